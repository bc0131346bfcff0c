# SPDX-License-Identifier: Apache-2.0
sluice_test(oom_base SOURCES test_oom_base.c LINKS sluice::platform sluice::base sluice::test_support LABELS fault base)
