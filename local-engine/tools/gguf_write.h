/* gguf_write.h - build a GGUF file in memory: what the converter and the tests use.
 *
 *   sluice_gguf_writer w;
 *   sluice_gguf_writer_init(&w, NULL, 1 << 20);
 *   sluice_gguf_put_string(&w, "general.architecture", "llama");
 *   sluice_gguf_put_tensor(&w, "token_embd.weight", SLUICE_TENSOR_F32, 2, (uint64_t[]){ 64, 512 }, data, bytes);
 *   if (sluice_gguf_writer_finish(&w, &file)) ...
 *   sluice_gguf_writer_deinit(&w);
 *
 * Failures stick: finish() answers for all.  The writer checks nothing, so that a test can build broken files with it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_TOOLS_GGUF_WRITE_H
#define SLUICE_LOCAL_ENGINE_TOOLS_GGUF_WRITE_H

#include "local-engine/gguf.h"

typedef struct sluice_gguf_writer {
    sluice_buf values, table, data;
    uint64_t n_values, n_tensors;
    uint32_t version, alignment; /* 3 and 32; change before the first put (and put "general.alignment" yourself) */
    bool ok;
} sluice_gguf_writer;

void sluice_gguf_writer_init(sluice_gguf_writer *w, const sluice_allocator *al, size_t max_bytes);
void sluice_gguf_writer_deinit(sluice_gguf_writer *w);

void sluice_gguf_put_u32(sluice_gguf_writer *w, const char *key, uint32_t value);
void sluice_gguf_put_i32(sluice_gguf_writer *w, const char *key, int32_t value);
void sluice_gguf_put_f32(sluice_gguf_writer *w, const char *key, float value);
void sluice_gguf_put_bool(sluice_gguf_writer *w, const char *key, bool value);
void sluice_gguf_put_string(sluice_gguf_writer *w, const char *key, const char *value);
void sluice_gguf_put_strings(sluice_gguf_writer *w, const char *key, const sluice_span *items, size_t n);
void sluice_gguf_put_f32s(sluice_gguf_writer *w, const char *key, const float *items, size_t n);
void sluice_gguf_put_i32s(sluice_gguf_writer *w, const char *key, const int32_t *items, size_t n);
/* A value of any type number, its bytes as given. */
void sluice_gguf_put_raw(sluice_gguf_writer *w, sluice_span key, uint32_t type, sluice_span payload);
/* ne[0] is the row length.  The data is copied and padded to the alignment. */
void sluice_gguf_put_tensor(sluice_gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *ne, const void *data,
                            size_t bytes);
/* A row of the tensor table alone, any numbers in it. */
void sluice_gguf_put_tensor_row(sluice_gguf_writer *w, sluice_span name, uint32_t type, uint32_t n_dims, const uint64_t *ne, uint64_t offset);

bool sluice_gguf_writer_finish(sluice_gguf_writer *w, sluice_buf *out); /* out is initialised by the caller; false: out of memory or over a maximum */

#endif
