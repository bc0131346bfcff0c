# quantize.cmake - tests of the tools that make and measure model files
# SPDX-License-Identifier: Apache-2.0
sluice_test(engine_quantize SOURCES test_quantize.c LINKS sluice::modeltools sluice::test_support LABELS unit engine TIMEOUT 120)
sluice_test(engine_mix SOURCES test_mix.c LINKS sluice::modeltools sluice::test_support LABELS unit engine)
sluice_test(engine_imatrix SOURCES test_imatrix.c LINKS sluice::modeltools sluice::test_support LABELS unit engine)
sluice_test(engine_model_tools SOURCES test_model_tools.c LINKS sluice::modeltools sluice::test_support LABELS unit engine TIMEOUT 120)
