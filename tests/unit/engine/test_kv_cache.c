/* test_kv_cache.c - keys lie in blocks of 16 positions, values position after position, and nothing of them outlives a reset.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <stdlib.h>

#include "local-engine/kv_cache.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"

enum { DIM = 64, LAYERS = 2, HEADS = 3, CONTEXT = 40 };

static sluice_kv_shape shape_of(sluice_kv_type type)
{
    return (sluice_kv_shape){ type, LAYERS, HEADS, DIM, CONTEXT };
}

static float number(uint32_t layer, uint32_t head, uint32_t position, uint32_t d)
{
    return sinf((float)(layer * 7919 + head * 613 + position * 97 + d * 31 + 1));
}

/* Every position of every head, values being 2 - keys. */
static void fill(sluice_kv_cache *kv, const sluice_kernels *k, uint32_t n)
{
    float key[DIM], value[DIM];

    for (uint32_t layer = 0; layer < LAYERS; layer++)
        for (uint32_t head = 0; head < HEADS; head++)
            for (uint32_t i = 0; i < n; i++) {
                for (uint32_t d = 0; d < DIM; d++) {
                    key[d] = number(layer, head, i, d);
                    value[d] = 2 - key[d];
                }
                sluice_kv_cache_store(kv, k, layer, head, i, key, value);
            }
    kv->n_used = kv->n_written = n;
}

static float f16_at(const uint8_t *p, size_t i)
{
    uint16_t h;

    memcpy(&h, p + i * sizeof h, sizeof h);
    return sluice_f16_to_f32(h);
}

static void f16_keys_are_transposed_and_values_are_not(void **state)
{
    const sluice_kv_shape shape = shape_of(SLUICE_KV_F16);
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_kernels k;
    sluice_kv_cache kv;

    (void)state;
    sluice_kernels_init(&k, 0);
    assert_int_equal(sluice_kv_cache_init(&kv, NULL, &shape, &err), SLUICE_OK);
    assert_int_equal(kv.shape.context, 48);
    fill(&kv, &k, CONTEXT);
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        for (uint32_t head = 0; head < HEADS; head++)
            for (uint32_t i = 0; i < CONTEXT; i++)
                for (uint32_t d = 0; d < DIM; d++) {
                    const uint8_t *block = sluice_kv_cache_keys(&kv, layer, head) + i / 16 * kv.key_block_bytes;
                    const float x = sluice_f16_to_f32(sluice_f32_to_f16(number(layer, head, i, d)));
                    const float y = sluice_f16_to_f32(sluice_f32_to_f16(2 - number(layer, head, i, d)));

                    assert_true(f16_at(block, d * 16 + i % 16) == x);
                    assert_true(f16_at(sluice_kv_cache_values(&kv, layer, head) + i * kv.value_row_bytes, d) == y);
                }
    sluice_kv_cache_deinit(&kv);
}

static void q8_keys_and_values_are_within_half_a_step(void **state)
{
    const sluice_kv_shape shape = shape_of(SLUICE_KV_Q8_0);
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_kernels k;
    sluice_kv_cache kv;

    (void)state;
    sluice_kernels_init(&k, 0);
    assert_int_equal(sluice_kv_cache_init(&kv, NULL, &shape, &err), SLUICE_OK);
    assert_int_equal(kv.value_row_bytes, 34 * DIM / 32);
    fill(&kv, &k, CONTEXT);
    for (uint32_t head = 0; head < HEADS; head++)
        for (uint32_t i = 0; i < CONTEXT; i++)
            for (uint32_t d = 0; d < DIM; d++) {
                const uint32_t group = d / 32, unit = d % 32 / 4;
                const uint8_t *block = sluice_kv_cache_keys(&kv, 1, head) + i / 16 * kv.key_block_bytes + group * 16 * (4 + 32);
                const uint8_t *row = sluice_kv_cache_values(&kv, 1, head) + i * kv.value_row_bytes + group * 34;
                const float x = number(1, head, i, d);
                float scale;

                memcpy(&scale, block + i % 16 * 4, 4);
                assert_true(scale > 0 && scale <= 1.0f / 127);
                assert_true(fabsf(scale * (float)(int8_t)block[64 + (unit * 16 + i % 16) * 4 + d % 4] - x) <= scale * 0.501f);
                assert_true(fabsf(f16_at(row, 0) * (float)(int8_t)row[2 + d % 32] - (2 - x)) <= 0.5f * f16_at(row, 0) + 3.0f / 2048);
            }
    sluice_kv_cache_deinit(&kv);
}

static void a_piece_comes_back_as_it_was(void **state)
{
    (void)state;
    for (int type = 0; type < 2; type++) {
        const sluice_kv_shape shape = shape_of((sluice_kv_type)type);
        sluice_error err = SLUICE_ERROR_INIT;
        sluice_kernels k;
        sluice_kv_cache from, to;
        uint8_t *piece;

        sluice_kernels_init(&k, 0);
        assert_int_equal(sluice_kv_cache_init(&from, NULL, &shape, &err), SLUICE_OK);
        assert_int_equal(sluice_kv_cache_init(&to, NULL, &shape, &err), SLUICE_OK);
        fill(&from, &k, 37);
        piece = malloc(sluice_kv_cache_piece_bytes(&from, 21));
        assert_non_null(piece);
        for (uint32_t layer = 0; layer < LAYERS; layer++)
            for (uint32_t head = 0; head < HEADS; head++) {
                sluice_kv_cache_read_piece(&from, layer, head, 0, 16, piece);
                sluice_kv_cache_write_piece(&to, layer, head, 0, 16, piece);
                sluice_kv_cache_read_piece(&from, layer, head, 16, 21, piece);
                sluice_kv_cache_write_piece(&to, layer, head, 16, 21, piece);
            }
        assert_int_equal(to.n_written, 37);
        assert_memory_equal(from.data, to.data, from.bytes);
        free(piece);
        sluice_kv_cache_deinit(&from);
        sluice_kv_cache_deinit(&to);
    }
}

static void reset_leaves_nothing_even_after_a_truncation(void **state)
{
    (void)state;
    for (int type = 0; type < 2; type++) {
        const sluice_kv_shape shape = shape_of((sluice_kv_type)type);
        sluice_error err = SLUICE_ERROR_INIT;
        sluice_kernels k;
        sluice_kv_cache kv;

        sluice_kernels_init(&k, 0);
        assert_int_equal(sluice_kv_cache_init(&kv, NULL, &shape, &err), SLUICE_OK);
        fill(&kv, &k, 33);
        sluice_kv_cache_truncate(&kv, 40);
        assert_int_equal(kv.n_used, 33);
        sluice_kv_cache_truncate(&kv, 5);
        assert_int_equal(kv.n_used, 5);
        assert_int_equal(kv.n_written, 33);
        sluice_kv_cache_reset(&kv);
        assert_int_equal(kv.n_used + kv.n_written, 0);
        for (size_t i = 0; i < kv.bytes; i++)
            assert_int_equal(kv.data[i], 0);
        sluice_kv_cache_deinit(&kv);
    }
}

static void sizes_that_cannot_be_are_refused(void **state)
{
    const sluice_kv_shape huge = { SLUICE_KV_F16, 512, 512, 512, UINT32_MAX }, larger = { SLUICE_KV_Q8_0, UINT32_MAX, UINT32_MAX, 512, 1u << 31 };
    const sluice_kv_shape odd = { SLUICE_KV_Q8_0, 1, 1, 48, 16 }, none = { SLUICE_KV_F16, 1, 1, 0, 16 }, wide = { SLUICE_KV_F16, 1, 1, 513, 16 };
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_kv_cache kv;
    size_t bytes = 1;

    (void)state;
    assert_false(sluice_kv_cache_bytes(&huge, &bytes));
    assert_false(sluice_kv_cache_bytes(&larger, &bytes));
    assert_int_equal(bytes, 1);
    assert_int_equal(sluice_kv_cache_init(&kv, NULL, &huge, &err), SLUICE_ERR_LIMIT);
    assert_int_equal(sluice_kv_cache_init(&kv, NULL, &odd, &err), SLUICE_ERR_UNSUPPORTED);
    assert_int_equal(sluice_kv_cache_init(&kv, NULL, &none, &err), SLUICE_ERR_LIMIT);
    assert_int_equal(sluice_kv_cache_init(&kv, NULL, &wide, &err), SLUICE_ERR_LIMIT);
    sluice_kv_cache_deinit(&kv); /* zeroed by the failure */
}

static void it_is_one_allocation_of_the_size_foretold(void **state)
{
    (void)state;
    for (int type = 0; type < 2; type++) {
        const sluice_kv_shape shape = shape_of((sluice_kv_type)type);
        sluice_error err = SLUICE_ERROR_INIT;
        fake_allocator fa;
        sluice_kv_cache kv;
        size_t bytes;

        fake_allocator_init(&fa);
        assert_true(sluice_kv_cache_bytes(&shape, &bytes));
        assert_int_equal(sluice_kv_cache_init(&kv, &fa.al, &shape, &err), SLUICE_OK);
        assert_int_equal(fa.live_blocks, 1);
        assert_int_equal(fa.live_bytes, bytes);
        assert_int_equal(kv.bytes, bytes);
        sluice_kv_cache_deinit(&kv);
        assert_true(fake_allocator_is_clean(&fa));
        fake_allocator_init(&fa);
        fa.fail_at = 0;
        assert_int_equal(sluice_kv_cache_init(&kv, &fa.al, &shape, &err), SLUICE_ERR_NO_MEMORY);
        assert_true(fake_allocator_is_clean(&fa));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f16_keys_are_transposed_and_values_are_not),
        cmocka_unit_test(q8_keys_and_values_are_within_half_a_step),
        cmocka_unit_test(a_piece_comes_back_as_it_was),
        cmocka_unit_test(reset_leaves_nothing_even_after_a_truncation),
        cmocka_unit_test(sizes_that_cannot_be_are_refused),
        cmocka_unit_test(it_is_one_allocation_of_the_size_foretold),
    };

    return cmocka_run_group_tests_name("kv_cache", tests, NULL, NULL);
}
