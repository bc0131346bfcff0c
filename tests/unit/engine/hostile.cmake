# hostile.cmake - files that mean harm
# SPDX-License-Identifier: Apache-2.0
sluice_test(engine_hostile SOURCES test_hostile.c hostile_corpus.c LINKS sluice::engine sluice::test_support LABELS unit engine TIMEOUT 180)
