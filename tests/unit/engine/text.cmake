# text.cmake - tests of the engine's file and text half
# SPDX-License-Identifier: Apache-2.0
foreach(_name gguf tokenizer prompt chat_template inspect)
  sluice_test(engine_${_name} SOURCES test_${_name}.c gguf_samples.c ${_tools}/gguf_write.c
              LINKS sluice::engine sluice::test_support LABELS unit engine TIMEOUT 120)
endforeach()
sluice_test(engine_llama2c SOURCES test_llama2c.c ${_tools}/gguf_write.c ${_tools}/llama2c.c ${_tools}/quantize.c
            LINKS sluice::engine sluice::test_support LABELS unit engine)
