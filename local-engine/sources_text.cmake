# sources_text.cmake - the file and text half of the engine: GGUF, tokenizers, prompts, inspection
#
# SPDX-License-Identifier: Apache-2.0
set(SLUICE_ENGINE_TEXT_SOURCES
  chat_template.c
  chat_tools.c
  gguf.c
  inspect.c
  prompt.c
  text_index.c
  tokenizer.c
  tokenizer_bpe.c
  tokenizer_spm.c
  tokenizer_wordpiece.c
  unicode.c
  unicode_table.c)

add_subdirectory(tools)
