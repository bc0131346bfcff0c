# engine.cmake - model files and text
# SPDX-License-Identifier: Apache-2.0
set(_samples "${PROJECT_SOURCE_DIR}/tests/unit/engine/gguf_samples.c" "${PROJECT_SOURCE_DIR}/local-engine/tools/gguf_write.c")
sluice_fuzzer(gguf SOURCES fuzz_gguf.c LINKS sluice::engine CORPUS corpus/gguf)
sluice_fuzzer(tokenizer SOURCES fuzz_tokenizer.c ${_samples} LINKS sluice::engine CORPUS corpus/tokenizer)
sluice_fuzzer(template SOURCES fuzz_template.c ${_samples} LINKS sluice::engine CORPUS corpus/template)
