# build.cmake - build the pinned dependencies as static libraries, once per toolchain
#
#   sluice_deps_prefix(<out> <name>...)
#
# gives the folder that holds <name>/include and <name>/lib for each dependency, built now unless an
# earlier configure has.  The folder's name carries a hash over everything that shapes the result: the
# lock file, these recipes, the compiler and its target, the flags and the options.  The work happens
# beside it and is renamed into place at the end, under a lock, so an interrupted build leaves nothing
# that looks finished and two configures at once build it once.
#
# SPDX-License-Identifier: Apache-2.0
include_guard(GLOBAL)
include("${CMAKE_CURRENT_LIST_DIR}/fetch.cmake")

set(SLUICE_DEPS_DIR "${CMAKE_CURRENT_LIST_DIR}")
set(SLUICE_DEPS_CFLAGS
  "-Os -ffunction-sections -fdata-sections -fvisibility=hidden -fstack-protector-strong -fPIC"
  CACHE STRING "compiler flags of the bundled dependencies")
set(SLUICE_DEPS_C_COMPILER "" CACHE STRING "compiler of the bundled dependencies; empty means the project's own")
set(SLUICE_DEPS_JOBS "" CACHE STRING "parallel compile jobs for the bundled dependencies; empty means one per core")
mark_as_advanced(SLUICE_DEPS_CFLAGS SLUICE_DEPS_C_COMPILER SLUICE_DEPS_JOBS)

# ---- steps ----------------------------------------------------------------------------------------

# Run one command of a recipe in the folder <dir>; its output goes to a file that is shown on failure.
function(_sluice_step label dir)
  set(log "${SLUICE_WORK}/log/${label}.txt")
  file(MAKE_DIRECTORY "${dir}" "${SLUICE_WORK}/log")
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY "${dir}" RESULT_VARIABLE result
                  OUTPUT_FILE "${log}" ERROR_FILE "${log}")
  if(NOT result EQUAL 0)
    file(READ "${log}" text)
    string(LENGTH "${text}" length)
    if(length GREATER 4000)
      math(EXPR from "${length} - 4000")
      string(SUBSTRING "${text}" ${from} -1 text)
    endif()
    message("${text}")
    message(FATAL_ERROR "Building a dependency failed in step '${label}' (${result}).  The whole log: ${log}")
  endif()
endfunction()

# Fetch and unpack one dependency; <out> receives the folder with its sources.
function(_sluice_unpack name out out_version)
  sluice_fetch(${name} archive version)
  set(dir "${SLUICE_WORK}/src/${name}")
  _sluice_step(${name}-unpack "${dir}" "${CMAKE_COMMAND}" -E tar xf "${archive}")
  file(GLOB inside "${dir}/*")
  list(LENGTH inside n)
  if(n EQUAL 1)
    set(dir "${inside}")
  endif()
  file(APPEND "${SLUICE_WORK}/out/manifest.txt" "${name} ${version}\n")
  file(GLOB licence "${dir}/LICENSE*" "${dir}/COPYING*")
  file(COPY ${licence} DESTINATION "${SLUICE_WORK}/out/${name}/licenses")
  set(${out} "${dir}" PARENT_SCOPE)
  set(${out_version} "${version}" PARENT_SCOPE)
endfunction()

# Configure, build and install a dependency that has a CMakeLists.txt.
function(_sluice_cmake_build name source flags)
  set(build "${SLUICE_WORK}/build/${name}")
  _sluice_step(${name}-configure "${SLUICE_WORK}" "${CMAKE_COMMAND}" -S "${source}" -B "${build}"
    -G "${CMAKE_GENERATOR}" ${SLUICE_TOOLCHAIN_ARGS}
    -DCMAKE_BUILD_TYPE=None "-DCMAKE_C_FLAGS=${SLUICE_ALL_CFLAGS} ${flags}"
    "-DCMAKE_INSTALL_PREFIX=${SLUICE_WORK}/out/${name}" -DCMAKE_INSTALL_LIBDIR=lib
    -DBUILD_SHARED_LIBS=OFF -DBUILD_TESTING=OFF -DCMAKE_POSITION_INDEPENDENT_CODE=ON
    -DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF -DCMAKE_POLICY_DEFAULT_CMP0074=NEW
    ${ARGN})
  _sluice_step(${name}-build "${SLUICE_WORK}" "${CMAKE_COMMAND}" --build "${build}" --parallel ${SLUICE_JOBS})
  _sluice_step(${name}-install "${SLUICE_WORK}" "${CMAKE_COMMAND}" --install "${build}")
endfunction()

# ---- recipes --------------------------------------------------------------------------------------

function(_sluice_build_mbedtls)
  _sluice_unpack(mbedtls source version)
  file(READ "${SLUICE_DEPS_DIR}/sluice_mbedtls_config.h" text)
  if(SLUICE_TLS_SERVER)
    string(PREPEND text "#define SLUICE_TLS_SERVER\n")
  endif()
  set(config "${SLUICE_WORK}/mbedtls_config.h")
  file(WRITE "${config}" "${text}")
  _sluice_cmake_build(mbedtls "${source}" ""
    -DENABLE_PROGRAMS=OFF -DENABLE_TESTING=OFF -DGEN_FILES=OFF -DMBEDTLS_FATAL_WARNINGS=OFF
    -DUSE_STATIC_MBEDTLS_LIBRARY=ON -DUSE_SHARED_MBEDTLS_LIBRARY=OFF "-DMBEDTLS_CONFIG_FILE=${config}")
  # upstream installs its default configuration: whoever includes these headers must see ours
  file(COPY "${config}" DESTINATION "${SLUICE_WORK}/out/mbedtls/include/mbedtls")
endfunction()

function(_sluice_build_libsodium)
  _sluice_unpack(libsodium source version)
  if(NOT EXISTS "${source}/configure") # a snapshot of the repository, as Debian has 1.0.18
    _sluice_step(libsodium-autoreconf "${source}" autoreconf -fi)
  endif()
  set(build "${SLUICE_WORK}/build/libsodium")
  set(host "")
  if(CMAKE_CROSSCOMPILING)
    set(host "--host=${SLUICE_TRIPLET}")
  endif()
  # -O2: field arithmetic at -Os is far slower and hardly smaller
  _sluice_step(libsodium-configure "${build}" "${CMAKE_COMMAND}" -E env
    "CC=${SLUICE_CC}" "CFLAGS=${SLUICE_ALL_CFLAGS} -O2" "AR=${CMAKE_AR}" "RANLIB=${CMAKE_RANLIB}"
    "${source}/configure" ${host} "--prefix=${SLUICE_WORK}/out/libsodium" "--libdir=${SLUICE_WORK}/out/libsodium/lib"
    --disable-shared --enable-static --disable-pie --disable-dependency-tracking)
  _sluice_step(libsodium-build "${build}" make -j${SLUICE_JOBS})
  _sluice_step(libsodium-install "${build}" make install)
endfunction()

function(_sluice_build_cjson)
  _sluice_unpack(cjson source version)
  # a document nested deeper than this is refused by the parser itself, before it can use up the stack
  _sluice_cmake_build(cjson "${source}" "-DCJSON_NESTING_LIMIT=64 -DCJSON_HIDE_SYMBOLS"
    -DENABLE_CJSON_TEST=OFF -DENABLE_CJSON_UTILS=OFF -DENABLE_CUSTOM_COMPILER_FLAGS=OFF -DENABLE_HIDDEN_SYMBOLS=OFF)
endfunction()

function(_sluice_build_nghttp2)
  _sluice_unpack(nghttp2 source version)
  _sluice_cmake_build(nghttp2 "${source}" ""
    -DENABLE_LIB_ONLY=ON -DENABLE_DOC=OFF -DBUILD_STATIC_LIBS=ON -DENABLE_STATIC_LIB=ON -DENABLE_SHARED_LIB=OFF)
endfunction()

function(_sluice_build_curl)
  _sluice_unpack(curl source version)
  set(mbedtls "${SLUICE_WORK}/out/mbedtls")
  set(nghttp2 -DUSE_NGHTTP2=OFF)
  set(flags "")
  if(SLUICE_WITH_HTTP2)
    set(nghttp2 -DUSE_NGHTTP2=ON "-DNGHTTP2_INCLUDE_DIR=${SLUICE_WORK}/out/nghttp2/include"
                "-DNGHTTP2_LIBRARY=${SLUICE_WORK}/out/nghttp2/lib/libnghttp2.a")
    set(flags "-DNGHTTP2_STATICLIB")
  endif()
  set(off "")
  # What Sluice does not use is left out, for size and because it cannot be reached by mistake: no
  # cookies, credentials files, response decoders, alternative services or platform certificate stores.
  foreach(feature IN ITEMS ALTSVC AWS BINDLOCAL CA_SEARCH COOKIES DIGEST_AUTH DOH FORM_API GETOPTIONS HSTS IPFS
          KERBEROS_AUTH LIBCURL_OPTION MIME NEGOTIATE_AUTH NETRC NTLM PROGRESS_METER SHA512_256 SHUFFLE_DNS SRP
          WEBSOCKETS)
    list(APPEND off -DCURL_DISABLE_${feature}=ON)
  endforeach()
  foreach(package IN ITEMS CURL_BROTLI CURL_ZLIB CURL_ZSTD CURL_USE_GSASL CURL_USE_GSSAPI CURL_USE_LIBPSL
          CURL_USE_LIBSSH CURL_USE_LIBSSH2 CURL_USE_OPENSSL CURL_USE_PKGCONFIG USE_LIBIDN2)
    list(APPEND off -D${package}=OFF)
  endforeach()
  _sluice_cmake_build(curl "${source}" "${flags}"
    -DBUILD_CURL_EXE=OFF -DBUILD_STATIC_LIBS=ON -DBUILD_LIBCURL_DOCS=OFF -DBUILD_MISC_DOCS=OFF -DBUILD_EXAMPLES=OFF
    -DENABLE_CURL_MANUAL=OFF -DHTTP_ONLY=ON -DENABLE_IPV6=ON -DENABLE_THREADED_RESOLVER=ON -DENABLE_UNIX_SOCKETS=OFF
    -DCURL_ENABLE_SSL=ON -DCURL_USE_MBEDTLS=ON "-DMBEDTLS_INCLUDE_DIR=${mbedtls}/include"
    "-DMBEDTLS_LIBRARY=${mbedtls}/lib/libmbedtls.a" "-DMBEDX509_LIBRARY=${mbedtls}/lib/libmbedx509.a"
    "-DMBEDCRYPTO_LIBRARY=${mbedtls}/lib/libmbedcrypto.a"
    -DCURL_CA_BUNDLE=none -DCURL_CA_PATH=none -DCURL_CA_FALLBACK=OFF
    ${nghttp2} ${off})
endfunction()

function(_sluice_build_cmocka)
  _sluice_unpack(cmocka source version)
  _sluice_cmake_build(cmocka "${source}" ""
    -DWITH_STATIC_LIB=ON -DWITH_EXAMPLES=OFF -DUNIT_TESTING=OFF -DPICKY_DEVELOPER=OFF)
endfunction()

# ---- the prefix -----------------------------------------------------------------------------------

function(sluice_deps_prefix out)
  set(SLUICE_CC "${CMAKE_C_COMPILER}")
  if(SLUICE_DEPS_C_COMPILER AND NOT CMAKE_CROSSCOMPILING)
    find_program(SLUICE_DEPS_C_COMPILER_PATH "${SLUICE_DEPS_C_COMPILER}" REQUIRED)
    mark_as_advanced(SLUICE_DEPS_C_COMPILER_PATH)
    set(SLUICE_CC "${SLUICE_DEPS_C_COMPILER_PATH}")
  endif()
  set(SLUICE_TOOLCHAIN_ARGS "")
  foreach(v IN ITEMS CMAKE_TOOLCHAIN_FILE CMAKE_MAKE_PROGRAM ANDROID_ABI ANDROID_PLATFORM
          CMAKE_OSX_ARCHITECTURES CMAKE_OSX_DEPLOYMENT_TARGET CMAKE_OSX_SYSROOT)
    if(${v})
      list(APPEND SLUICE_TOOLCHAIN_ARGS "-D${v}=${${v}}")
    endif()
  endforeach()
  if(NOT CMAKE_TOOLCHAIN_FILE)
    list(APPEND SLUICE_TOOLCHAIN_ARGS "-DCMAKE_C_COMPILER=${SLUICE_CC}")
  endif()
  # what a toolchain file tells CMake, configure scripts must be told in words
  if(CMAKE_C_COMPILER_TARGET)
    string(APPEND SLUICE_CC " --target=${CMAKE_C_COMPILER_TARGET}")
  endif()
  if(CMAKE_SYSROOT)
    string(APPEND SLUICE_CC " --sysroot=${CMAKE_SYSROOT}")
  endif()
  separate_arguments(cc UNIX_COMMAND "${SLUICE_CC}")
  execute_process(COMMAND ${cc} -dumpmachine OUTPUT_VARIABLE SLUICE_TRIPLET OUTPUT_STRIP_TRAILING_WHITESPACE)
  execute_process(COMMAND ${cc} --version OUTPUT_VARIABLE compiler ERROR_QUIET)
  string(REGEX REPLACE "^[^ ]+ ([^\n]*).*" "\\1" compiler "${compiler}") # not the name it was called by

  set(shape "${ARGN}|${compiler}|${SLUICE_DEPS_CFLAGS}|${SLUICE_TOOLCHAIN_ARGS}")
  # places on this machine are not properties of the result
  string(REGEX REPLACE "-DCMAKE_(TOOLCHAIN_FILE|MAKE_PROGRAM|C_COMPILER)=[^;]*" "" shape "${shape}")
  set(inputs deps.lock build.cmake)
  if("mbedtls" IN_LIST ARGN)
    string(APPEND shape "|server=${SLUICE_TLS_SERVER}|http2=${SLUICE_WITH_HTTP2}")
    list(APPEND inputs sluice_mbedtls_config.h)
  endif()
  foreach(input IN LISTS inputs)
    file(SHA256 "${SLUICE_DEPS_DIR}/${input}" hash)
    string(APPEND shape " ${hash}")
  endforeach()
  string(SHA256 key "${shape}")
  string(SUBSTRING "${key}" 0 12 key)
  set(key "${SLUICE_TRIPLET}-${key}")
  get_filename_component(cache "${SLUICE_DEPS_CACHE}" ABSOLUTE)
  set(prefix "${cache}/${key}")
  set(${out} "${prefix}" PARENT_SCOPE)
  if(EXISTS "${prefix}/manifest.txt")
    return()
  endif()

  file(MAKE_DIRECTORY "${cache}")
  file(LOCK "${cache}/${key}.lock" GUARD FUNCTION TIMEOUT 0 RESULT_VARIABLE busy)
  if(busy)
    message(STATUS "Dependencies: another configure is building ${key}, waiting for it")
    file(LOCK "${cache}/${key}.lock" GUARD FUNCTION TIMEOUT 3600)
  endif()
  if(EXISTS "${prefix}/manifest.txt")
    return()
  endif()
  set(SLUICE_WORK "${cache}/work-${key}")
  # no path of this machine stays in an object: equal inputs give equal libraries
  set(SLUICE_ALL_CFLAGS "${SLUICE_DEPS_CFLAGS} -ffile-prefix-map=${SLUICE_WORK}=.")
  set(SLUICE_JOBS "${SLUICE_DEPS_JOBS}")
  if(NOT SLUICE_JOBS)
    cmake_host_system_information(RESULT SLUICE_JOBS QUERY NUMBER_OF_LOGICAL_CORES)
  endif()
  file(REMOVE_RECURSE "${SLUICE_WORK}" "${prefix}")
  file(MAKE_DIRECTORY "${SLUICE_WORK}/out")
  file(WRITE "${SLUICE_WORK}/out/manifest.txt" "")
  message(STATUS "Dependencies: building for ${SLUICE_TRIPLET}, once (about two minutes on two cores)")
  string(TIMESTAMP began "%s" UTC)
  foreach(name IN LISTS ARGN)
    cmake_language(CALL _sluice_build_${name})
    file(REMOVE_RECURSE "${SLUICE_WORK}/out/${name}/bin" "${SLUICE_WORK}/out/${name}/share"
         "${SLUICE_WORK}/out/${name}/lib/cmake" "${SLUICE_WORK}/out/${name}/lib/pkgconfig")
    file(GLOB shared "${SLUICE_WORK}/out/${name}/lib/*.so*" "${SLUICE_WORK}/out/${name}/lib/*.dylib")
    if(shared)
      message(FATAL_ERROR "Dependencies: ${name} installed a shared library: ${shared}")
    endif()
    string(TIMESTAMP now "%s" UTC)
    math(EXPR seconds "${now} - ${began}")
    message(STATUS "  ${name}: built (${seconds} s so far)")
  endforeach()
  file(RENAME "${SLUICE_WORK}/out" "${prefix}")
  file(REMOVE_RECURSE "${SLUICE_WORK}")
  message(STATUS "Dependencies: ready in ${prefix}")
endfunction()
