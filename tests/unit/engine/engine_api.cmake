# engine_api.cmake - sessions, speculation, embeddings: whole requests to small engines
#
# SPDX-License-Identifier: Apache-2.0
set(_runs engine_runs.c tiny_model.c ${_tools}/gguf_write.c ${_tools}/quantize.c)

sluice_test(engine_request SOURCES test_request.c ${_runs} LINKS sluice::engine sluice::test_support LABELS engine TIMEOUT 120)
sluice_test(engine_speculate SOURCES test_speculate.c ${_runs} LINKS sluice::engine sluice::test_support LABELS engine TIMEOUT 120)
if(TARGET sluice::crypto) # sessions are sealed with the real thing
  sluice_test(engine_session SOURCES test_session.c ${_runs} ${PROJECT_SOURCE_DIR}/sdk/src/session_seal.c
              LINKS sluice::engine sluice::crypto sluice::test_support LABELS engine threads TIMEOUT 120)
endif()
