/* imatrix.h - importance matrices: for each matrix of a model, how much its columns are used.
 *
 * The importance of column j is the mean of x_j squared over the tokens of a calibration text, x being what the matrix is multiplied with.  Files are
 * those of llama.cpp, in both of its forms:
 *
 *   GGUF    general.type "imatrix", imatrix.datasets, imatrix.chunk_count, imatrix.chunk_size; for each matrix NAME
 *           NAME.in_sum2 (cols, n_expert) F32, the sums of squares, and NAME.counts (1, n_expert) F32, how many tokens they are of
 *   legacy  n_entries i32, then { name length i32, name, calls i32, n_values i32, values f32 }, then optionally the last chunk i32 and the text's name
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_TOOLS_IMATRIX_H
#define SLUICE_LOCAL_ENGINE_TOOLS_IMATRIX_H

#include "local-engine/gguf.h"

typedef struct sluice_imatrix sluice_imatrix; /* opaque */

sluice_status sluice_imatrix_open(sluice_imatrix **out, const char *path, const sluice_platform *platform, const sluice_allocator *al, sluice_error *err);
sluice_status sluice_imatrix_new(sluice_imatrix **out, const sluice_allocator *al, sluice_error *err); /* an empty one, to collect in */
void sluice_imatrix_close(sluice_imatrix *m); /* accepts NULL */

/* Importance of the columns of one matrix (expert 0 where there is one matrix only): (cols), borrowed.  NULL with SLUICE_OK when the text says nothing
 * about it: no entry, or an expert that was never used.  SLUICE_ERR_FORMAT when the entry is of another shape. */
sluice_status sluice_imatrix_get(const sluice_imatrix *m, sluice_span tensor, uint64_t cols, uint64_t n_experts, uint64_t expert, const float **out,
                                 sluice_error *err);

/* Add the squares of x: (n_tokens, cols), which went into `expert` (-1: the matrix has none) of the tensor. */
sluice_status sluice_imatrix_add(sluice_imatrix *m, const char *tensor, int32_t expert, const float *x, size_t n_tokens, size_t cols, sluice_error *err);

size_t sluice_imatrix_n_entries(const sluice_imatrix *m);
/* As GGUF, appended to `out`.  chunk: how many tokens were run at a time, n_chunks of them; dataset: the text's name.  Experts of `model`
 * (NULL: unknown) that were never used are written as that. */
sluice_status sluice_imatrix_write(const sluice_imatrix *m, const sluice_gguf *model, const char *dataset, uint32_t n_chunks, uint32_t chunk,
                                   sluice_buf *out, sluice_error *err);

#endif
