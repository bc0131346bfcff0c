/* forward.h - runs a model: tokens in, logits, hidden states or embeddings out, over the KV cache.
 *
 * Everything it needs is allocated when it is opened, in one block whose size the same code tells beforehand.  A prompt goes through in
 * chunks, so that a weight that was read serves many tokens; what comes out is the same, to the bit, as for one token at a
 * time, with any number of threads.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_FORWARD_H
#define SLUICE_LOCAL_ENGINE_FORWARD_H

#include <stdatomic.h>

#include "local-engine/kv_cache.h"
#include "local-engine/model.h"
#include "local-engine/threads.h"

enum {
    SLUICE_FORWARD_MAX_CHUNK = 512, /* tokens of a chunk; fewer for small models, whose scratch would outweigh them */
    SLUICE_FORWARD_MAX_LOGITS = 16  /* positions of one run that may have logits: a draft and the token before it */
};

typedef struct sluice_forward sluice_forward; /* opaque */

/* The cache that a model wants; an encoder's needs one layer alone. */
sluice_kv_shape sluice_forward_kv_shape(const sluice_model *model, sluice_kv_type type, uint32_t context);

/* What opening allocates beside the KV cache.  SLUICE_ERR_LIMIT when that is more than memory can be. */
sluice_status sluice_forward_bytes(const sluice_model *model, const sluice_kv_shape *kv, uint32_t n_threads, size_t *out, sluice_error *err);

/* All pointers are borrowed and must outlive it.  `stop` ends a run between two layers. */
sluice_status sluice_forward_open(sluice_forward **out, const sluice_model *model, const sluice_kernels *kernels, sluice_pool *pool,
                                  sluice_kv_cache *kv, const _Atomic bool *stop, const sluice_allocator *al, sluice_error *err);
void sluice_forward_close(sluice_forward *f); /* accepts NULL; wipes */
void sluice_forward_wipe(sluice_forward *f);  /* activations and logits tell what the prompt was */

/* Run n >= 1 tokens, each in [0, n_vocab), after those in the cache; they fit.  logits: (n_logits, n_vocab) of the last n_logits of them
 * (1 <= n_logits <= min(n, SLUICE_FORWARD_MAX_LOGITS)), borrowed until the next run; each row has the bits that a run of its own would give.
 * SLUICE_ERR_CANCELLED when stopped (whole chunks that were finished stay in the cache), SLUICE_ERR_INTEGRITY when a logit is not finite.
 * SLUICE_ERR_UNSUPPORTED for an encoder. */
sluice_status sluice_forward_run(sluice_forward *f, const int32_t *tokens, size_t n, uint32_t n_logits, const float **logits, sluice_error *err);

/* The last hidden state, after the final norm, of the last token that ran: (n_embd), borrowed until the next run.  What a probe head reads.  Those of
 * the tokens before it that have logits lie before it. */
const float *sluice_forward_hidden(const sluice_forward *f);

/* Embedding of a whole text, for encoders and decoders: pooled as the model says (mean, first, last token), length 1 (L2) when `normalize`.
 * What is cached stays where there is room for the text behind it, and is forgotten (n_used becomes 0) where there is not.
 * n <= the context, and for encoders <= the model's own positions.  out: (n_embd). */
sluice_status sluice_forward_embed(sluice_forward *f, const int32_t *tokens, size_t n, bool normalize, float *out, sluice_error *err);

/* Called with the f32 input of every matrix product, (n_tokens, cols), on the calling thread before the product runs; for mixtures once per expert
 * used with its tokens alone (expert >= 0; else -1).  Of a quantized matrix the input is in 8 bits: then it is what those stand for, and comes a row
 * at a time.  Matrices that are parts of one tensor count once.  NULL: off.  For importance matrices. */
typedef void (*sluice_forward_observer)(void *user, const char *tensor_name, int32_t expert, const float *x, size_t n_tokens, size_t cols);
void sluice_forward_observe(sluice_forward *f, sluice_forward_observer fn, void *user);

#endif
