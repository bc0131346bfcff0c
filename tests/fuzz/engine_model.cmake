# engine_model.cmake - models that are run
# SPDX-License-Identifier: Apache-2.0
sluice_fuzzer(model SOURCES fuzz_model.c LINKS sluice::engine CORPUS corpus/model)
