/* kv_cache.c - storage of the KV cache: sized once, wiped when forgotten.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/kv_cache.h"

enum {
    MAX_HEAD_DIM = 512,                 /* model.h's limit: a head fits the stack */
    Q8_BLOCK_BYTES = 34,                /* of a value: f16 scale, 32 int8 */
    UNIT = 4                            /* dimensions that lie together in an 8-bit key */
};

typedef struct sizes { size_t key_block_bytes, value_row_bytes, head_bytes, bytes; uint32_t context; } sizes;

static bool size_up(const sluice_kv_shape *shape, sizes *out)
{
    const size_t dim = shape->head_dim, groups = dim / SLUICE_Q_LEN;
    size_t values, n_heads;

    if (shape->context > UINT32_MAX - (SLUICE_KEY_BLOCK - 1))
        return false;
    out->context = (shape->context + SLUICE_KEY_BLOCK - 1) / SLUICE_KEY_BLOCK * SLUICE_KEY_BLOCK;
    if (shape->type == SLUICE_KV_Q8_0) {
        out->key_block_bytes = groups * SLUICE_KEY_BLOCK * (sizeof(float) + SLUICE_Q_LEN);
        out->value_row_bytes = groups * Q8_BLOCK_BYTES;
    } else {
        out->key_block_bytes = dim * SLUICE_KEY_BLOCK * sizeof(uint16_t);
        out->value_row_bytes = dim * sizeof(uint16_t);
    }
    return sluice_mul_size(out->key_block_bytes, out->context / SLUICE_KEY_BLOCK, &out->head_bytes) &&
           sluice_mul_size(out->value_row_bytes, out->context, &values) && sluice_add_size(out->head_bytes, values, &out->head_bytes) &&
           sluice_mul_size(shape->n_layer, shape->n_head_kv, &n_heads) && sluice_mul_size(out->head_bytes, n_heads, &out->bytes);
}

bool sluice_kv_cache_bytes(const sluice_kv_shape *shape, size_t *out)
{
    sizes s;

    if (!size_up(shape, &s))
        return false;
    *out = s.bytes;
    return true;
}

sluice_status sluice_kv_cache_init(sluice_kv_cache *kv, const sluice_allocator *al, const sluice_kv_shape *shape, sluice_error *err)
{
    sizes s;

    memset(kv, 0, sizeof *kv);
    if (shape->head_dim == 0 || shape->head_dim > MAX_HEAD_DIM)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "engine: keys of length %u", shape->head_dim);
    if (shape->type == SLUICE_KV_Q8_0 && shape->head_dim % SLUICE_Q_LEN != 0)
        return sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "engine: keys of length %u are not whole blocks of %d for an 8-bit KV cache",
                                shape->head_dim, SLUICE_Q_LEN);
    if (!size_up(shape, &s))
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "engine: the KV cache of %u tokens is larger than memory can be", shape->context);
    kv->data = sluice_alloc_zeroed(al, s.bytes);
    if (kv->data == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "engine: %zu bytes for the KV cache of %u tokens", s.bytes, shape->context);
    kv->shape = *shape;
    kv->shape.context = s.context;
    kv->bytes = s.bytes;
    kv->key_block_bytes = s.key_block_bytes;
    kv->value_row_bytes = s.value_row_bytes;
    kv->head_bytes = s.head_bytes;
    kv->al = al;
    return SLUICE_OK;
}

void sluice_kv_cache_deinit(sluice_kv_cache *kv)
{
    if (kv->data == NULL)
        return;
    sluice_kv_cache_reset(kv);
    sluice_free(kv->al, kv->data, kv->bytes);
    memset(kv, 0, sizeof *kv);
}

static size_t key_blocks(uint32_t n)
{
    return ((size_t)n + SLUICE_KEY_BLOCK - 1) / SLUICE_KEY_BLOCK;
}

void sluice_kv_cache_reset(sluice_kv_cache *kv)
{
    if (kv->n_written > 0)
        for (uint32_t layer = 0; layer < kv->shape.n_layer; layer++)
            for (uint32_t head = 0; head < kv->shape.n_head_kv; head++) {
                sluice_wipe(sluice_kv_cache_keys(kv, layer, head), key_blocks(kv->n_written) * kv->key_block_bytes);
                sluice_wipe(sluice_kv_cache_values(kv, layer, head), kv->n_written * kv->value_row_bytes);
            }
    kv->n_used = 0;
    kv->n_written = 0;
}

void sluice_kv_cache_truncate(sluice_kv_cache *kv, uint32_t n)
{
    if (n < kv->n_used)
        kv->n_used = n;
}

/* ---- storing */

static void store_f16(uint8_t *keys, uint8_t *values, const sluice_kernels *k, uint32_t dim, uint32_t lane, const float *key, const float *value)
{
    uint16_t half[MAX_HEAD_DIM];
    uint16_t *out = (uint16_t *)(void *)keys + lane;

    k->to_f16(half, key, dim);
    for (uint32_t d = 0; d < dim; d++)
        out[(size_t)d * SLUICE_KEY_BLOCK] = half[d];
    k->to_f16((uint16_t *)(void *)values, value, dim);
}

static void store_q8(uint8_t *keys, uint8_t *values, const sluice_kernels *k, uint32_t dim, uint32_t lane, const float *key, const float *value)
{
    sluice_q8 groups[MAX_HEAD_DIM / SLUICE_Q_LEN];
    const uint32_t n = dim / SLUICE_Q_LEN;

    k->quantize(groups, key, dim);
    for (uint32_t g = 0; g < n; g++) {
        uint8_t *block = keys + (size_t)g * SLUICE_KEY_BLOCK * (sizeof(float) + SLUICE_Q_LEN);
        uint8_t *q = block + SLUICE_KEY_BLOCK * sizeof(float) + (size_t)lane * UNIT;

        memcpy(block + lane * sizeof(float), &groups[g].scale, sizeof(float));
        for (uint32_t u = 0; u < SLUICE_Q_LEN / UNIT; u++)
            memcpy(q + (size_t)u * SLUICE_KEY_BLOCK * UNIT, groups[g].q + (size_t)u * UNIT, UNIT);
    }
    k->quantize(groups, value, dim);
    for (uint32_t g = 0; g < n; g++) {
        const uint16_t scale = sluice_f32_to_f16(groups[g].scale);

        memcpy(values + (size_t)g * Q8_BLOCK_BYTES, &scale, sizeof scale);
        memcpy(values + (size_t)g * Q8_BLOCK_BYTES + sizeof scale, groups[g].q, SLUICE_Q_LEN);
    }
}

void sluice_kv_cache_store(sluice_kv_cache *kv, const sluice_kernels *k, uint32_t layer, uint32_t head, uint32_t position,
                           const float *key, const float *value)
{
    uint8_t *keys = sluice_kv_cache_keys(kv, layer, head) + (size_t)(position / SLUICE_KEY_BLOCK) * kv->key_block_bytes;
    uint8_t *values = sluice_kv_cache_values(kv, layer, head) + position * kv->value_row_bytes;

    if (kv->shape.type == SLUICE_KV_Q8_0)
        store_q8(keys, values, k, kv->shape.head_dim, position % SLUICE_KEY_BLOCK, key, value);
    else
        store_f16(keys, values, k, kv->shape.head_dim, position % SLUICE_KEY_BLOCK, key, value);
}

/* ---- saving and restoring */

size_t sluice_kv_cache_piece_bytes(const sluice_kv_cache *kv, uint32_t n)
{
    return key_blocks(n) * kv->key_block_bytes + n * kv->value_row_bytes;
}

/* Lanes from `lane` on of one key block: they hold keys of tokens that were truncated, and are nobody's business. */
static void clear_lanes(const sluice_kv_cache *kv, uint8_t *block, uint32_t lane)
{
    const bool is_q8 = kv->shape.type == SLUICE_KV_Q8_0;
    const size_t each = is_q8 ? UNIT : sizeof(uint16_t), row = SLUICE_KEY_BLOCK * each;
    const size_t scales = is_q8 ? SLUICE_KEY_BLOCK * sizeof(float) : 0, group = is_q8 ? scales + SLUICE_KEY_BLOCK * SLUICE_Q_LEN : kv->key_block_bytes;

    for (uint8_t *g = block; g < block + kv->key_block_bytes; g += group) {
        if (is_q8)
            memset(g + lane * sizeof(float), 0, scales - lane * sizeof(float));
        for (uint8_t *r = g + scales; r < g + group; r += row)
            memset(r + lane * each, 0, row - lane * each);
    }
}

void sluice_kv_cache_read_piece(const sluice_kv_cache *kv, uint32_t layer, uint32_t head, uint32_t first, uint32_t n, uint8_t *out)
{
    const size_t key_bytes = key_blocks(n) * kv->key_block_bytes;

    memcpy(out, sluice_kv_cache_keys(kv, layer, head) + first / SLUICE_KEY_BLOCK * kv->key_block_bytes, key_bytes);
    if (n % SLUICE_KEY_BLOCK != 0)
        clear_lanes(kv, out + key_bytes - kv->key_block_bytes, n % SLUICE_KEY_BLOCK);
    memcpy(out + key_bytes, sluice_kv_cache_values(kv, layer, head) + first * kv->value_row_bytes, n * kv->value_row_bytes);
}

void sluice_kv_cache_write_piece(sluice_kv_cache *kv, uint32_t layer, uint32_t head, uint32_t first, uint32_t n, const uint8_t *in)
{
    const size_t key_bytes = key_blocks(n) * kv->key_block_bytes;

    memcpy(sluice_kv_cache_keys(kv, layer, head) + first / SLUICE_KEY_BLOCK * kv->key_block_bytes, in, key_bytes);
    memcpy(sluice_kv_cache_values(kv, layer, head) + first * kv->value_row_bytes, in + key_bytes, n * kv->value_row_bytes);
    if (kv->n_written < first + n)
        kv->n_written = first + n;
}
