# end_to_end.cmake - the programs as users and attackers meet them: <name>.sh, with what it needs in the environment
#
# SPDX-License-Identifier: Apache-2.0

# an app that closes at awkward moments
sluice_test(closing SOURCES test_closing.c LINKS sluice::sdk LABELS integration threads TIMEOUT 60
  ARGS "${PROJECT_SOURCE_DIR}/local-engine/models/sluice-intents.gguf")

if(NOT TARGET sluice_cli OR NOT TARGET sluice-gateway OR CMAKE_CROSSCOMPILING)
  return()
endif()

set(_slow 0)
if(SLUICE_INSTRUMENTED)
  set(_slow 1)
endif()
foreach(_name IN ITEMS demo capture faults privacy cli)
  add_test(NAME end_to_end_${_name} COMMAND sh "${CMAKE_CURRENT_LIST_DIR}/${_name}.sh")
  _sluice_test_properties(end_to_end_${_name} 300 integration)
  set_property(TEST end_to_end_${_name} APPEND PROPERTY ENVIRONMENT
    "SLUICE=$<TARGET_FILE:sluice_cli>" "SLUICE_GATEWAY=$<TARGET_FILE:sluice-gateway>"
    "SLUICE_MODEL=${PROJECT_SOURCE_DIR}/local-engine/models/sluice-intents.gguf" "SLUICE_SLOW=${_slow}")
endforeach()
if(TEST end_to_end_demo) # it looks at what appears in the folder for temporary files, so no other test may run beside it
  set_tests_properties(end_to_end_demo PROPERTIES RUN_SERIAL ON)
endif()
