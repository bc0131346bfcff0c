/* kv_cache.h - keys and values of the tokens seen so far, in f16 or in 8 bits.
 *
 * Laid out for kernels.h: per layer and key/value head, keys in blocks of 16 positions (lanes are positions), values position after position.
 *
 *     f16    key and value: 2 bytes a number
 *     q8     key block: 16 f32 scales and 512 int8 for every 32 dimensions; value row: Q8_0 blocks (34 bytes for every 32 dimensions)
 *
 * One allocation for everything, sized when it is opened and wiped when it is forgotten.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_KV_CACHE_H
#define SLUICE_LOCAL_ENGINE_KV_CACHE_H

#include "local-engine/kernels/kernels.h"
#include "sdk/base/base.h"

typedef enum sluice_kv_type { SLUICE_KV_F16 = 0, SLUICE_KV_Q8_0 = 1 } sluice_kv_type;

typedef struct sluice_kv_shape {
    sluice_kv_type type;
    uint32_t n_layer, n_head_kv, head_dim;  /* head_dim % 32 == 0 for q8 */
    uint32_t context;                       /* positions; rounded up to a multiple of 16 by init */
} sluice_kv_shape;

typedef struct sluice_kv_cache {
    sluice_kv_shape shape;
    uint8_t *data;
    size_t bytes;               /* of data */
    size_t key_block_bytes;     /* of 16 positions of a head */
    size_t value_row_bytes;     /* of a position of a head */
    size_t head_bytes;          /* keys, then values, of a head */
    uint32_t n_used;            /* tokens in the cache */
    uint32_t n_written;         /* positions that hold something: may be more than n_used after a run that was stopped or a truncation */
    const sluice_allocator *al;
} sluice_kv_cache;

/* What opening allocates; false when it does not fit a size_t. */
bool sluice_kv_cache_bytes(const sluice_kv_shape *shape, size_t *out);
sluice_status sluice_kv_cache_init(sluice_kv_cache *kv, const sluice_allocator *al, const sluice_kv_shape *shape, sluice_error *err);
void sluice_kv_cache_deinit(sluice_kv_cache *kv);               /* wipes: keys and values tell what the prompt was.  Safe on a zeroed struct */
void sluice_kv_cache_reset(sluice_kv_cache *kv);                /* wipes what was written and forgets it */
void sluice_kv_cache_truncate(sluice_kv_cache *kv, uint32_t n); /* keep the first n tokens; what follows is overwritten later or wiped by reset */

/* Store a token's key and value of one head, (head_dim) each, already rotated.  Different (position, head) may be stored by different threads. */
void sluice_kv_cache_store(sluice_kv_cache *kv, const sluice_kernels *k, uint32_t layer, uint32_t head, uint32_t position,
                           const float *key, const float *value);

/* For saving and restoring: the bytes of positions [first, first + n) of one layer and head, first % 16 == 0, as they lie: keys, then values.
 * Of a last block that n does not fill, what lies beyond is read as zero. */
size_t sluice_kv_cache_piece_bytes(const sluice_kv_cache *kv, uint32_t n);
void sluice_kv_cache_read_piece(const sluice_kv_cache *kv, uint32_t layer, uint32_t head, uint32_t first, uint32_t n, uint8_t *out);
void sluice_kv_cache_write_piece(sluice_kv_cache *kv, uint32_t layer, uint32_t head, uint32_t first, uint32_t n, const uint8_t *in);

static inline uint8_t *sluice_kv_cache_keys(const sluice_kv_cache *kv, uint32_t layer, uint32_t head)
{
    return kv->data + ((size_t)layer * kv->shape.n_head_kv + head) * kv->head_bytes;
}

static inline uint8_t *sluice_kv_cache_values(const sluice_kv_cache *kv, uint32_t layer, uint32_t head)
{
    return sluice_kv_cache_keys(kv, layer, head) + (size_t)(kv->shape.context / SLUICE_KEY_BLOCK) * kv->key_block_bytes;
}

#endif
