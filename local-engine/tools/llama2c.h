/* llama2c.h - turn a llama2.c checkpoint and its tokenizer into a GGUF file.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_TOOLS_LLAMA2C_H
#define SLUICE_LOCAL_ENGINE_TOOLS_LLAMA2C_H

#include "local-engine/gguf.h"

/* `model`: the "version 0" float32 .bin; `tokenizer`: its tokenizer.bin.  Matrices are written as `type`; one whose rows are not whole
 * blocks of it becomes F16, and vectors stay F32.  The file is appended to `out`. */
sluice_status sluice_convert_llama2c(sluice_span model, sluice_span tokenizer, const char *name, sluice_tensor_type type,
                                     const sluice_allocator *al, sluice_buf *out, sluice_error *err);

#endif
