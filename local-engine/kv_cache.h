/* kv_cache.h - keys and values of the tokens seen so far, in f16.
 *
 * Per layer and key/value head the positions lie one after the other, so that the scores of a query are one product of an
 * f16 matrix (positions, head_dim), and the heads of a group share what they read:
 *
 *     layer 0: head 0: [pos 0][pos 1] …  head 1: …   layer 1: …        [pos] = head_dim f16 numbers
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_KV_CACHE_H
#define SLUICE_LOCAL_ENGINE_KV_CACHE_H

#include "sdk/base/base.h"

typedef struct sluice_kv_cache {
    uint16_t *keys, *values;    /* (n_layer, n_head_kv, context, head_dim) */
    uint32_t n_layer, n_head_kv, head_dim, context;
    uint32_t n_used;            /* tokens in the cache */
    uint32_t n_written;         /* positions that hold something: more than n_used after a run that was stopped */
    size_t bytes;               /* of keys and values together: one allocation */
    const sluice_allocator *al;
} sluice_kv_cache;

/* What opening allocates; false when it does not fit a size_t. */
bool sluice_kv_cache_bytes(uint32_t n_layer, uint32_t n_head_kv, uint32_t head_dim, uint32_t context, size_t *out);
sluice_status sluice_kv_cache_init(sluice_kv_cache *kv, const sluice_allocator *al, uint32_t n_layer, uint32_t n_head_kv,
                                   uint32_t head_dim, uint32_t context, sluice_error *err);
void sluice_kv_cache_deinit(sluice_kv_cache *kv); /* wipes: keys and values tell what the prompt was.  Safe on a zeroed struct */
void sluice_kv_cache_reset(sluice_kv_cache *kv);  /* wipes what was written and forgets it */

static inline uint16_t *sluice_kv_cache_keys(const sluice_kv_cache *kv, uint32_t layer, uint32_t head)
{
    return kv->keys + ((size_t)layer * kv->n_head_kv + head) * kv->context * kv->head_dim;
}

static inline uint16_t *sluice_kv_cache_values(const sluice_kv_cache *kv, uint32_t layer, uint32_t head)
{
    return kv->values + ((size_t)layer * kv->n_head_kv + head) * kv->context * kv->head_dim;
}

#endif
