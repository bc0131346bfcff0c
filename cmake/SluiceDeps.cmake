# SluiceDeps.cmake - the third-party libraries as imported targets sluice_dep::<name>
#
#   sodium   used by sdk/crypto            <sodium.h>
#   cjson    used by samples/gateway       <cjson/cJSON.h>
#   curl     used by cloud-adapters        <curl/curl.h>     brings its TLS library
#   mbedtls  used by samples/gateway       <mbedtls/ssl.h>
#   cmocka   used by tests                 <cmocka.h>
#
# SLUICE_DEPS=bundled builds pinned versions once (cmake/deps), SLUICE_DEPS=system takes what the
# machine has.  Only the bundled set gives the one TLS stack that the SDK is tested with.
#
# SPDX-License-Identifier: Apache-2.0
include_guard(GLOBAL)

set(SLUICE_DEPS bundled CACHE STRING "third-party libraries: bundled or system")
set_property(CACHE SLUICE_DEPS PROPERTY STRINGS bundled system)
option(SLUICE_WITH_HTTP2 "HTTP/2 to the cloud (adds nghttp2)" OFF)

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

# The archives that go into libsluice.a beside our own, filled in below for the bundled set.
set(SLUICE_DEP_ARCHIVES "")

# ARCHIVES stand in link order, each using those after it; one that is not there is not needed.
function(_sluice_dep name dir)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "" "ARCHIVES;DEFINITIONS;LINKS")
  set(paths "")
  foreach(archive IN LISTS arg_ARCHIVES)
    if(EXISTS "${dir}/lib/${archive}")
      list(APPEND paths "${dir}/lib/${archive}")
    endif()
  endforeach()
  if(NOT paths)
    message(FATAL_ERROR "Dependencies: no ${arg_ARCHIVES} in ${dir}/lib")
  endif()
  set(SLUICE_DEP_${name}_ARCHIVES ${paths} PARENT_SCOPE)

  # A target for each archive, not just its path: only then does CMake know which must follow which.
  list(POP_FRONT paths first)
  list(REVERSE paths)
  set(after ${arg_LINKS})
  foreach(path IN LISTS paths)
    get_filename_component(part "${path}" NAME_WE)
    add_library(sluice_dep::${part} STATIC IMPORTED GLOBAL)
    set_target_properties(sluice_dep::${part} PROPERTIES IMPORTED_LOCATION "${path}")
    target_link_libraries(sluice_dep::${part} INTERFACE ${after})
    list(PREPEND after sluice_dep::${part})
  endforeach()
  add_library(sluice_dep::${name} STATIC IMPORTED GLOBAL)
  set_target_properties(sluice_dep::${name} PROPERTIES IMPORTED_LOCATION "${first}")
  target_include_directories(sluice_dep::${name} INTERFACE "${dir}/include")
  target_compile_definitions(sluice_dep::${name} INTERFACE ${arg_DEFINITIONS})
  target_link_libraries(sluice_dep::${name} INTERFACE ${after})
endfunction()

if(SLUICE_DEPS STREQUAL "bundled")
  include("${CMAKE_CURRENT_LIST_DIR}/deps/build.cmake")
  # only the sample gateway listens, so only its builds carry the server's half of TLS
  set(SLUICE_TLS_SERVER ${SLUICE_BUILD_SAMPLES})
  set(_parts mbedtls libsodium cjson)
  if(SLUICE_WITH_HTTP2)
    list(APPEND _parts nghttp2)
  endif()
  if(NOT SLUICE_ONLY) # the engine needs none of them
    sluice_deps_prefix(SLUICE_DEPS_PREFIX ${_parts} curl)

    set(_p "${SLUICE_DEPS_PREFIX}")
    _sluice_dep(cjson "${_p}/cjson" ARCHIVES libcjson.a DEFINITIONS CJSON_NESTING_LIMIT=64 CJSON_HIDE_SYMBOLS)
    _sluice_dep(sodium "${_p}/libsodium" ARCHIVES libsodium.a DEFINITIONS SODIUM_STATIC=1 LINKS Threads::Threads)
    _sluice_dep(mbedtls "${_p}/mbedtls" LINKS Threads::Threads
                ARCHIVES libmbedtls.a libmbedx509.a libmbedcrypto.a libeverest.a libp256m.a)
    set(_http2 "")
    if(SLUICE_WITH_HTTP2)
      _sluice_dep(nghttp2 "${_p}/nghttp2" ARCHIVES libnghttp2.a DEFINITIONS NGHTTP2_STATICLIB)
      set(_http2 sluice_dep::nghttp2)
    endif()
    _sluice_dep(curl "${_p}/curl" ARCHIVES libcurl.a DEFINITIONS CURL_STATICLIB
                LINKS ${_http2} sluice_dep::mbedtls Threads::Threads)
  endif()
  foreach(_name IN ITEMS curl nghttp2 mbedtls sodium cjson)
    list(APPEND SLUICE_DEP_ARCHIVES ${SLUICE_DEP_${_name}_ARCHIVES})
  endforeach()

  if(SLUICE_BUILD_TESTS)
    sluice_deps_prefix(SLUICE_CMOCKA_PREFIX cmocka)
    _sluice_dep(cmocka "${SLUICE_CMOCKA_PREFIX}/cmocka" ARCHIVES libcmocka.a libcmocka-static.a)
  endif()

elseif(SLUICE_DEPS STREQUAL "system")
  include("${CMAKE_CURRENT_LIST_DIR}/SluiceSystemDeps.cmake")
else()
  message(FATAL_ERROR "SLUICE_DEPS is '${SLUICE_DEPS}'; it must be bundled or system")
endif()
