# engine_generation.cmake - schemas, and the choice of tokens
# SPDX-License-Identifier: Apache-2.0
set(_samples "${PROJECT_SOURCE_DIR}/tests/unit/engine/gguf_samples.c" "${PROJECT_SOURCE_DIR}/local-engine/tools/gguf_write.c")
sluice_fuzzer(schema SOURCES fuzz_schema.c ${_samples} LINKS sluice::engine CORPUS corpus/schema)
sluice_fuzzer(sampler SOURCES fuzz_sampler.c ${_samples} LINKS sluice::engine CORPUS corpus/sampler)
