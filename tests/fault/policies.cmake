# policies.cmake - the policy reader, ledger, consents and gate while memory, files and the machine fail
# SPDX-License-Identifier: Apache-2.0
sluice_test(oom_policies SOURCES "${CMAKE_CURRENT_LIST_DIR}/test_oom_policies.c" LINKS sluice::policy sluice::test_support LABELS fault policies)
sluice_test(io_policies SOURCES "${CMAKE_CURRENT_LIST_DIR}/test_io_policies.c" LINKS sluice::policy sluice::test_support LABELS fault policies)
