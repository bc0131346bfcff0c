# policies.cmake - policy files, ledger files, texts
# SPDX-License-Identifier: Apache-2.0
sluice_fuzzer(fuzz_policy SOURCES "${CMAKE_CURRENT_LIST_DIR}/fuzz_policy.c" LINKS sluice::policy CORPUS "${CMAKE_CURRENT_LIST_DIR}/corpus/policy")
sluice_fuzzer(fuzz_ledger SOURCES "${CMAKE_CURRENT_LIST_DIR}/fuzz_ledger.c" LINKS sluice::policy sluice::crypto CORPUS "${CMAKE_CURRENT_LIST_DIR}/corpus/ledger")
sluice_fuzzer(fuzz_data_class SOURCES "${CMAKE_CURRENT_LIST_DIR}/fuzz_data_class.c" LINKS sluice::policy CORPUS "${CMAKE_CURRENT_LIST_DIR}/corpus/data_class")
