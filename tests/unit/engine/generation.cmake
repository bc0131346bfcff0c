# generation.cmake - tests of what chooses tokens: sampler, constraints, stop strings
# SPDX-License-Identifier: Apache-2.0
sluice_test(engine_sampler SOURCES test_sampler.c LINKS sluice::engine sluice::test_support LABELS unit engine)
sluice_test(engine_constraint SOURCES test_constraint.c gguf_samples.c ${_tools}/gguf_write.c
            LINKS sluice::engine sluice::test_support LABELS unit engine TIMEOUT 300)
sluice_test(engine_stop_strings SOURCES test_stop_strings.c LINKS sluice::engine sluice::test_support LABELS unit engine)
