# SluiceSystemDeps.cmake - sluice_dep::<name> from installed libraries (SLUICE_DEPS=system)
#
# For distributions and quick developer builds.  The TLS stack is then whatever libcurl was linked with,
# which is not the one that pins, tickets and cipher suites were tested with, so a warning says so.
#
# SPDX-License-Identifier: Apache-2.0
find_package(PkgConfig REQUIRED)
find_package(CURL 8.10 REQUIRED) # the first that tells when the last byte of a request was written

function(_sluice_system_dep name module)
  pkg_check_modules(SLUICE_${name} REQUIRED IMPORTED_TARGET GLOBAL "${module}")
  add_library(sluice_dep::${name} INTERFACE IMPORTED GLOBAL)
  target_link_libraries(sluice_dep::${name} INTERFACE PkgConfig::SLUICE_${name})
endfunction()

_sluice_system_dep(sodium "libsodium>=1.0.18")
_sluice_system_dep(cjson "libcjson>=1.7.15")
if(SLUICE_BUILD_TESTS)
  _sluice_system_dep(cmocka "cmocka>=1.1.5")
endif()

add_library(sluice_dep::curl INTERFACE IMPORTED GLOBAL)
target_link_libraries(sluice_dep::curl INTERFACE CURL::libcurl)

if(NOT CMAKE_CROSSCOMPILING AND NOT DEFINED SLUICE_CURL_TLS)
  file(WRITE "${CMAKE_BINARY_DIR}/CMakeFiles/curl_tls.c" "
#include <curl/curl.h>
#include <stdio.h>
int main(void)
{
    const char *tls = curl_version_info(CURLVERSION_NOW)->ssl_version;

    return puts(tls != NULL ? tls : \"no TLS\") < 0;
}
")
  try_run(_run _compiled "${CMAKE_BINARY_DIR}" "${CMAKE_BINARY_DIR}/CMakeFiles/curl_tls.c"
          LINK_LIBRARIES CURL::libcurl RUN_OUTPUT_VARIABLE _tls)
  string(STRIP "${_tls}" _tls)
  set(SLUICE_CURL_TLS "${_tls}" CACHE INTERNAL "the TLS library of the installed libcurl")
endif()
if(NOT SLUICE_CURL_TLS MATCHES "^mbedTLS")
  message(WARNING "The installed libcurl uses '${SLUICE_CURL_TLS}', not mbedTLS: do not ship this build.  "
                  "Certificate pins and cipher suites are tested with the bundled libraries only.")
endif()

# The gateway needs mbedTLS 3.6 itself; without it the samples are built and the gateway is not.
find_path(SLUICE_MBEDTLS_INCLUDE mbedtls/build_info.h)
find_library(SLUICE_MBEDTLS_LIBRARY mbedtls)
find_library(SLUICE_MBEDX509_LIBRARY mbedx509)
find_library(SLUICE_MBEDCRYPTO_LIBRARY mbedcrypto)
mark_as_advanced(SLUICE_MBEDTLS_INCLUDE SLUICE_MBEDTLS_LIBRARY SLUICE_MBEDX509_LIBRARY SLUICE_MBEDCRYPTO_LIBRARY)
set(_version "none")
if(SLUICE_MBEDTLS_INCLUDE AND SLUICE_MBEDTLS_LIBRARY AND SLUICE_MBEDX509_LIBRARY AND SLUICE_MBEDCRYPTO_LIBRARY)
  file(STRINGS "${SLUICE_MBEDTLS_INCLUDE}/mbedtls/build_info.h" _line REGEX "define MBEDTLS_VERSION_STRING ")
  string(REGEX REPLACE ".*\"([0-9.]+)\".*" "\\1" _version "${_line}")
endif()
if(_version VERSION_GREATER_EQUAL 3.6 AND _version VERSION_LESS 4)
  add_library(sluice_dep::mbedtls INTERFACE IMPORTED GLOBAL)
  target_include_directories(sluice_dep::mbedtls SYSTEM INTERFACE "${SLUICE_MBEDTLS_INCLUDE}")
  target_link_libraries(sluice_dep::mbedtls INTERFACE
    "${SLUICE_MBEDTLS_LIBRARY}" "${SLUICE_MBEDX509_LIBRARY}" "${SLUICE_MBEDCRYPTO_LIBRARY}" Threads::Threads)
elseif(SLUICE_BUILD_SAMPLES)
  message(STATUS "Installed mbedTLS is '${_version}', the gateway needs 3.6: not built")
endif()
