# tests/fault/sdk.cmake
# SPDX-License-Identifier: Apache-2.0
sluice_test(oom_sdk SOURCES test_oom_sdk.c ../simulation/sim_world.c ../simulation/sim_platform.c
  LINKS sluice::sdk sluice::router sluice::policy sluice::engine sluice::cloud sluice::crypto sluice::platform sluice::base sluice::test_support
  LABELS fault sdk TIMEOUT 300)
