# SPDX-License-Identifier: Apache-2.0
sluice_test(oom_cloud
  SOURCES test_oom_cloud.c ../unit/cloud/gate.c
  LINKS sluice::cloud sluice::test_support
  LABELS fault cloud)
