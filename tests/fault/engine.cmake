# tests/fault/engine.cmake
# SPDX-License-Identifier: Apache-2.0
set(_engine_tests "${PROJECT_SOURCE_DIR}/tests/unit/engine")
set(_engine_tools "${PROJECT_SOURCE_DIR}/local-engine/tools")
sluice_test(oom_engine SOURCES test_oom_engine.c ${_engine_tests}/engine_runs.c ${_engine_tests}/tiny_model.c ${_engine_tools}/gguf_write.c
            ${_engine_tools}/quantize.c ${PROJECT_SOURCE_DIR}/sdk/src/session_seal.c
            LINKS sluice::engine sluice::crypto sluice::platform sluice::base sluice::test_support LABELS fault engine TIMEOUT 300)
