/* forward.h - runs a model: tokens in, logits out, over the KV cache.
 *
 * Everything it needs is allocated when it is opened, in one block whose size the same code tells beforehand.  A prompt goes through in
 * chunks of SLUICE_FORWARD_CHUNK tokens, so that a weight that was read serves many tokens; what comes out is the same, to the
 * bit, as for one token at a time, with any number of threads.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_FORWARD_H
#define SLUICE_LOCAL_ENGINE_FORWARD_H

#include <stdatomic.h>

#include "local-engine/kv_cache.h"
#include "local-engine/model.h"
#include "local-engine/threads.h"

enum { SLUICE_FORWARD_CHUNK = 64 }; /* tokens; a multiple of every kernel's tile */

typedef struct sluice_forward sluice_forward; /* opaque */

/* What opening allocates beside the KV cache.  SLUICE_ERR_LIMIT when that is more than memory can be. */
sluice_status sluice_forward_bytes(const sluice_model *model, uint32_t context, uint32_t n_threads, size_t *out, sluice_error *err);

/* All pointers are borrowed and must outlive it.  `stop` ends a run between two layers. */
sluice_status sluice_forward_open(sluice_forward **out, const sluice_model *model, const sluice_kernels *kernels, sluice_pool *pool,
                                  sluice_kv_cache *kv, const _Atomic bool *stop, const sluice_allocator *al, sluice_error *err);
void sluice_forward_close(sluice_forward *f); /* accepts NULL; wipes */
void sluice_forward_wipe(sluice_forward *f);  /* activations and logits tell what the prompt was */

/* Run n >= 1 tokens, each in [0, n_vocab), after those in the cache; they fit.  logits: (n_vocab) of the last one, borrowed until the next run.
 * SLUICE_ERR_CANCELLED when stopped (whole chunks that were finished stay in the cache), SLUICE_ERR_INTEGRITY when a logit is not finite. */
sluice_status sluice_forward_run(sluice_forward *f, const int32_t *tokens, size_t n, const float **logits, sluice_error *err);

#endif
