/* kv_cache.c - storage of the KV cache: sized once, wiped when forgotten.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/kv_cache.h"

bool sluice_kv_cache_bytes(uint32_t n_layer, uint32_t n_head_kv, uint32_t head_dim, uint32_t context, size_t *out)
{
    size_t n = 2 * sizeof(uint16_t);

    if (!sluice_mul_size(n, n_layer, &n) || !sluice_mul_size(n, n_head_kv, &n) || !sluice_mul_size(n, head_dim, &n) ||
        !sluice_mul_size(n, context, &n))
        return false;
    *out = n;
    return true;
}

sluice_status sluice_kv_cache_init(sluice_kv_cache *kv, const sluice_allocator *al, uint32_t n_layer, uint32_t n_head_kv,
                                   uint32_t head_dim, uint32_t context, sluice_error *err)
{
    size_t bytes;

    memset(kv, 0, sizeof *kv);
    if (!sluice_kv_cache_bytes(n_layer, n_head_kv, head_dim, context, &bytes))
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "engine: the KV cache of %u tokens is larger than memory can be", context);
    kv->keys = sluice_alloc_zeroed(al, bytes);
    if (kv->keys == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "engine: %zu bytes for the KV cache of %u tokens", bytes, context);
    kv->values = kv->keys + bytes / 2 / sizeof(uint16_t);
    kv->n_layer = n_layer;
    kv->n_head_kv = n_head_kv;
    kv->head_dim = head_dim;
    kv->context = context;
    kv->bytes = bytes;
    kv->al = al;
    return SLUICE_OK;
}

void sluice_kv_cache_deinit(sluice_kv_cache *kv)
{
    if (kv->keys == NULL)
        return;
    sluice_kv_cache_reset(kv);
    sluice_free(kv->al, kv->keys, kv->bytes);
    memset(kv, 0, sizeof *kv);
}

void sluice_kv_cache_reset(sluice_kv_cache *kv)
{
    if (kv->n_written > 0)
        for (uint32_t layer = 0; layer < kv->n_layer; layer++)
            for (uint32_t head = 0; head < kv->n_head_kv; head++) {
                sluice_wipe(sluice_kv_cache_keys(kv, layer, head), (size_t)kv->n_written * kv->head_dim * sizeof(uint16_t));
                sluice_wipe(sluice_kv_cache_values(kv, layer, head), (size_t)kv->n_written * kv->head_dim * sizeof(uint16_t));
            }
    kv->n_used = 0;
    kv->n_written = 0;
}
