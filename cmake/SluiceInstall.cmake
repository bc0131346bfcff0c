# SluiceInstall.cmake - one archive libsluice.a, headers, CMake package, pkg-config file
#
# The components and the bundled third parties become one relocatable object in which only the public
# API stays global (cmake/exports.txt).  An app may therefore link its own libcurl, mbedTLS, libsodium
# or cJSON beside it, in any version.  Sections are kept apart on the way, so the app's linker still
# drops what the app does not reach.
#
# SPDX-License-Identifier: Apache-2.0
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

if(SLUICE_INSTRUMENTED)
  return()
endif()

set(SLUICE_COMPONENTS base platform crypto policy router engine cloud sdk)
list(TRANSFORM SLUICE_COMPONENTS PREPEND sluice_ OUTPUT_VARIABLE _targets)
set(SLUICE_ARCHIVE "${PROJECT_BINARY_DIR}/lib/libsluice.a")
set(_files "")
foreach(_target IN LISTS _targets)
  list(APPEND _files "$<TARGET_FILE:${_target}>")
endforeach()
add_custom_command(
  OUTPUT "${SLUICE_ARCHIVE}"
  COMMAND "${CMAKE_COMMAND}"
    "-DOUT=${SLUICE_ARCHIVE}" "-DCOMPONENTS=${_files}" "-DTHIRD_PARTY=${SLUICE_DEP_ARCHIVES}"
    "-DEXPORTS=${PROJECT_SOURCE_DIR}/cmake/exports.txt"
    "-DCC=${CMAKE_C_COMPILER}" "-DTARGET=${CMAKE_C_COMPILER_TARGET}" "-DAR=${CMAKE_AR}" "-DRANLIB=${CMAKE_RANLIB}"
    "-DOBJCOPY=$<$<NOT:$<BOOL:${APPLE}>>:${CMAKE_OBJCOPY}>" "-DAPPLE=${APPLE}"
    -P "${PROJECT_SOURCE_DIR}/cmake/merge.cmake"
  DEPENDS ${_targets} "${PROJECT_SOURCE_DIR}/cmake/exports.txt" "${PROJECT_SOURCE_DIR}/cmake/merge.cmake"
  COMMENT "Merging libsluice.a"
  VERBATIM)
add_custom_target(sluice_archive ALL DEPENDS "${SLUICE_ARCHIVE}")

# What an app must still name: the system's libraries, and the third parties where they were not bundled.
set(SLUICE_PC_REQUIRES "")
set(SLUICE_CMAKE_FIND "")
set(SLUICE_CMAKE_LINK "Threads::Threads")
if(SLUICE_DEPS STREQUAL "system")
  set(SLUICE_PC_REQUIRES "libcurl libsodium libcjson")
  set(SLUICE_CMAKE_FIND "find_dependency(PkgConfig)
pkg_check_modules(SLUICE_THIRD_PARTY REQUIRED IMPORTED_TARGET ${SLUICE_PC_REQUIRES})")
  string(APPEND SLUICE_CMAKE_LINK ";PkgConfig::SLUICE_THIRD_PARTY")
endif()
if(UNIX)
  string(APPEND SLUICE_CMAKE_LINK ";m")
endif()

set(_package "${CMAKE_INSTALL_LIBDIR}/cmake/sluice")
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/sluiceConfig.cmake.in" "${PROJECT_BINARY_DIR}/sluiceConfig.cmake"
  INSTALL_DESTINATION "${_package}" PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/sluiceConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
# the .pc file finds its prefix from where it lies, so an unpacked archive of the SDK works anywhere
file(RELATIVE_PATH SLUICE_PC_UP "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" SLUICE_PC_UP "${SLUICE_PC_UP}")
configure_file("${PROJECT_SOURCE_DIR}/cmake/sluice.pc.in" "${PROJECT_BINARY_DIR}/sluice.pc" @ONLY)

install(FILES "${SLUICE_ARCHIVE}" DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/sdk/include/sluice" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" FILES_MATCHING PATTERN "*.h")
install(FILES "${PROJECT_BINARY_DIR}/sluiceConfig.cmake" "${PROJECT_BINARY_DIR}/sluiceConfigVersion.cmake" DESTINATION "${_package}")
install(FILES "${PROJECT_BINARY_DIR}/sluice.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DOCDIR}")
if(SLUICE_DEPS STREQUAL "bundled")
  foreach(_name IN ITEMS mbedtls libsodium cjson curl nghttp2)
    if(EXISTS "${SLUICE_DEPS_PREFIX}/${_name}/licenses")
      install(DIRECTORY "${SLUICE_DEPS_PREFIX}/${_name}/licenses/" DESTINATION "${CMAKE_INSTALL_DOCDIR}/third-party/${_name}")
    endif()
  endforeach()
  install(FILES "${SLUICE_DEPS_PREFIX}/manifest.txt" DESTINATION "${CMAKE_INSTALL_DOCDIR}/third-party" RENAME versions.txt)
endif()
if(TARGET sluice_cli)
  install(TARGETS sluice_cli RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endif()
