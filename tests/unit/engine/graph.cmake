# graph.cmake - tests of the model table, the graph and the KV cache, and the program that writes tiny models for other engines
# SPDX-License-Identifier: Apache-2.0
set(_tiny tiny_model.c ${_tools}/gguf_write.c ${_tools}/quantize.c)

sluice_test(engine_kv_cache SOURCES test_kv_cache.c LINKS sluice::engine sluice::test_support LABELS engine)
sluice_test(engine_forward SOURCES test_forward.c ${_tiny} LINKS sluice::engine sluice::test_support LABELS engine TIMEOUT 180)
sluice_program(make_tiny_model SOURCES ${PROJECT_SOURCE_DIR}/tests/support/make_tiny_model.c ${_tiny} LINKS sluice::engine)
