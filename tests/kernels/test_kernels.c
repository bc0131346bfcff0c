/* test_kernels.c - the scalar kernels against exact arithmetic, and every other table against the scalar one, bit for bit.
 *
 * Every table that this processor runs is tried, over shapes that no tile divides, weights at odd addresses and values at the ends
 * of their ranges.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "local-engine/kernels/kernels.h"
#include "sdk/platform/platform.h"

enum { MAX_ROWS = 70, MAX_COLS = 1088, MAX_TOKENS = 40 };

/* ---- inputs */

static uint64_t seed = 1;

static uint32_t next_u32(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 32);
}

static float next_float(void) /* about normal, deviation 1 */
{
    float sum = 0;

    for (int i = 0; i < 6; i++)
        sum += (float)(next_u32() >> 8) / 16777216.0f - 0.5f;
    return sum * 1.4142135f;
}

typedef struct problem {
    sluice_weight type;
    size_t rows, cols, n_tokens;
    uint8_t *w;                 /* at an odd address */
    float *x;                   /* (n_tokens, cols) */
    sluice_q8 *xq;
    float *y, *want;            /* (n_tokens, rows + 1): one guard behind each token's rows */
    void *strip;
    uint8_t *w_block;
} problem;

static void put_f16(uint8_t *p, float f)
{
    const uint16_t h = sluice_f32_to_f16(f);

    memcpy(p, &h, sizeof h);
}

static void fill_weights(problem *p)
{
    const size_t row_bytes = sluice_weight_row_bytes(p->type, p->cols);
    const size_t block_bytes = p->type == SLUICE_WEIGHT_Q8_0 ? SLUICE_Q8_0_BYTES : SLUICE_Q4_0_BYTES;

    for (size_t i = 0; i < p->rows * p->cols && p->type == SLUICE_WEIGHT_F32; i++) {
        const float f = next_float();

        memcpy(p->w + 4 * i, &f, sizeof f);
    }
    for (size_t i = 0; i < p->rows * p->cols && p->type == SLUICE_WEIGHT_F16; i++)
        put_f16(p->w + 2 * i, next_float());
    if (p->type == SLUICE_WEIGHT_F32 || p->type == SLUICE_WEIGHT_F16)
        return;
    for (size_t i = 0; i < p->rows * row_bytes; i++)
        p->w[i] = (uint8_t)next_u32();
    for (size_t i = 0; i < p->rows * row_bytes; i += block_bytes) {
        put_f16(p->w + i, 0.02f * next_float());
        if (next_u32() % 4 == 0) /* the ends of the range */
            memset(p->w + i + 2, p->type == SLUICE_WEIGHT_Q8_0 ? (next_u32() & 1 ? 0x80 : 0x7f) : (next_u32() & 1 ? 0 : 0xff), block_bytes - 2);
    }
}

static void *aligned(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);

    assert_non_null(p);
    return p;
}

static problem make_problem(sluice_weight type, size_t rows, size_t cols, size_t n_tokens)
{
    problem p = { type, rows, cols, n_tokens, NULL, NULL, NULL, NULL, NULL, NULL, NULL };
    sluice_kernels scalar;

    sluice_kernels_init(&scalar, 0);
    p.w_block = aligned(rows * sluice_weight_row_bytes(type, cols) + 1);
    p.w = p.w_block + 1;
    p.x = aligned(n_tokens * cols * sizeof *p.x);
    p.xq = aligned(n_tokens * (cols / 32 + 1) * sizeof *p.xq);
    p.y = aligned(n_tokens * (rows + 1) * sizeof *p.y);
    p.want = aligned(n_tokens * (rows + 1) * sizeof *p.want);
    p.strip = aligned(sluice_kernels_strip_bytes(cols));
    fill_weights(&p);
    for (size_t i = 0; i < n_tokens * cols; i++)
        p.x[i] = i / 32 % 5 == 0 ? (next_u32() & 1 ? 1.0f : -1.0f) : next_float(); /* some blocks are +-127 throughout */
    if (cols % 32 == 0)
        scalar.quantize(p.xq, p.x, n_tokens * cols);
    return p;
}

static void free_problem(problem *p)
{
    free(p->w_block);
    free(p->x);
    free(p->xq);
    free(p->y);
    free(p->want);
    free(p->strip);
}

static void run(const sluice_kernels *k, const problem *p, float *y)
{
    const bool blocks = p->type >= SLUICE_WEIGHT_Q8_0;
    const sluice_product product = {
        .w = p->w,
        .row_bytes = sluice_weight_row_bytes(p->type, p->cols),
        .rows = p->rows,
        .cols = p->cols,
        .x = blocks ? (const void *)p->xq : (const void *)p->x,
        .x_stride = blocks ? p->cols / 32 * sizeof(sluice_q8) : p->cols * sizeof(float),
        .n_tokens = p->n_tokens,
        .y = y,
        .y_stride = p->rows + 1,
        .strip = p->strip,
    };

    for (size_t i = 0; i < p->n_tokens * (p->rows + 1); i++)
        y[i] = 12345.0f;
    k->product[p->type](&product);
}

/* Equal bits, or zeros, or both not a number. */
static bool is_same(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0 || (a == 0 && b == 0) || (isnan(a) && isnan(b));
}

static const size_t float_cols[] = { 1, 5, 8, 15, 16, 17, 31, 40, 64, 100, 257 };
static const size_t block_cols[] = { 32, 64, 96, 160, 256, 576, 1088 };
static const size_t some_rows[] = { 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 64, 70 };
static const size_t some_tokens[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 15, 33 };

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* ---- the scalar table against exact arithmetic */

static void scalar_products_are_within_rounding_of_exact(void **state)
{
    (void)state;
    for (int type = 0; type < SLUICE_WEIGHT_COUNT; type++) {
        const size_t cols = type >= SLUICE_WEIGHT_Q8_0 ? 160 : 163;
        problem p = make_problem((sluice_weight)type, 9, cols, 3);
        sluice_kernels scalar;
        float row[163];

        sluice_kernels_init(&scalar, 0);
        run(&scalar, &p, p.y);
        for (size_t r = 0; r < p.rows; r++) {
            sluice_weight_row(p.type, row, p.w + r * sluice_weight_row_bytes(p.type, cols), cols);
            for (size_t t = 0; t < p.n_tokens; t++) {
                double want = 0, size = 0;

                for (size_t i = 0; i < cols; i++) {
                    const sluice_q8 *block = &p.xq[t * (cols / 32) + i / 32];
                    const double x = type >= SLUICE_WEIGHT_Q8_0 ? (double)block->scale * block->q[i % 32] : (double)p.x[t * cols + i];

                    want += row[i] * x;
                    size += fabs(row[i] * x);
                }
                if (!(fabs(p.y[t * (p.rows + 1) + r] - want) <= (double)(cols / 16 + 6) * FLT_EPSILON * size))
                    fail_msg("type %d row %zu token %zu: %.9g, exactly %.9g", type, r, t, (double)p.y[t * (p.rows + 1) + r], want);
            }
        }
        free_problem(&p);
    }
}

static void quantizing_is_within_half_a_step(void **state)
{
    sluice_kernels scalar;
    sluice_q8 block;
    float x[32];

    (void)state;
    sluice_kernels_init(&scalar, 0);
    for (int i = 0; i < 2000; i++) {
        const float size = powf(10.0f, (float)(next_u32() % 60) - 28.0f);
        float largest = 0;
        int32_t sum = 0;

        for (int j = 0; j < 32; j++) {
            x[j] = next_float() * size;
            largest = fmaxf(largest, fabsf(x[j]));
        }
        scalar.quantize(&block, x, 32);
        assert_true(is_same(block.scale, largest / 127.0f));
        for (int j = 0; j < 32; j++) {
            assert_in_range(block.q[j] + 127, 0, 254);
            assert_true(fabsf(x[j] - block.scale * (float)block.q[j]) <= 0.5001f * block.scale);
            sum += block.q[j];
        }
        assert_int_equal(sum, block.sum);
    }
}

static void quantizing_keeps_damage_visible(void **state)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    sluice_kernels k;
    sluice_q8 block;
    float x[32] = { 0 };

    (void)state;
    for (int table = 0; table < 2; table++) {
        sluice_kernels_init(&k, table == 0 ? 0 : sluice_cpu_features());
        for (size_t i = 0; i < COUNT(bad); i++) {
            x[17] = bad[i];
            k.quantize(&block, x, 32);
            assert_true(isnan(block.scale));
        }
        memset(x, 0, sizeof x);
        k.quantize(&block, x, 32);
        assert_true(block.scale == 0 && block.sum == 0);
        x[3] = FLT_MIN / 4; /* no inverse */
        k.quantize(&block, x, 32);
        assert_true(block.scale == 0 && block.sum == 0 && block.q[3] == 0);
        x[3] = 0;
    }
}

static void f16_survives_the_round_trip(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        const float f = sluice_f16_to_f32((uint16_t)h);

        if ((h & 0x7fffu) > 0x7c00u)
            assert_true(isnan(f) && isnan(sluice_f16_to_f32(sluice_f32_to_f16(f))));
        else if (sluice_f32_to_f16(f) != h)
            fail_msg("%04x comes back as %04x", h, sluice_f32_to_f16(f));
    }
    assert_true(sluice_f16_to_f32(0x3c00) == 1.0f);
    assert_true(sluice_f16_to_f32(0x0001) == 0x1p-24f);
    assert_true(sluice_f16_to_f32(0xfbff) == -65504.0f);
}

static void f16_rounds_to_the_nearest(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        const float low = sluice_f16_to_f32((uint16_t)h), high = sluice_f16_to_f32((uint16_t)(h + 1)), middle = (low + high) / 2;

        assert_int_equal(sluice_f32_to_f16(nextafterf(middle, 0.0f)), h);
        assert_int_equal(sluice_f32_to_f16(middle), h % 2 == 0 ? h : h + 1);
        assert_int_equal(sluice_f32_to_f16(nextafterf(middle, INFINITY)), h + 1);
    }
    assert_int_equal(sluice_f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(sluice_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(sluice_f32_to_f16(-1e30f), 0xfc00);
}

static void softmax_is_close_to_exact(void **state)
{
    sluice_kernels scalar;
    float x[300], y[300];

    (void)state;
    sluice_kernels_init(&scalar, 0);
    for (int i = 0; i < 50; i++) {
        const size_t n = 1 + next_u32() % 300;
        double sum = 0;
        float top = -INFINITY, got;

        for (size_t j = 0; j < n; j++) {
            x[j] = y[j] = 10 * next_float();
            top = fmaxf(top, x[j]);
        }
        for (size_t j = 0; j < n; j++)
            sum += exp(0.7 * ((double)x[j] - (double)top));
        got = scalar.softmax(y, n, 0.7f);
        assert_true(fabs((double)got - sum) <= 1e-6 * sum);
        for (size_t j = 0; j < n; j++) {
            const double want = exp(0.7 * ((double)x[j] - (double)top)) / sum;

            assert_true(fabs((double)y[j] - want) <= 5e-6 * want + 1e-37);
        }
    }
}

static void silu_is_close_to_exact(void **state)
{
    sluice_kernels scalar;

    (void)state;
    sluice_kernels_init(&scalar, 0);
    for (float x = -100; x < 100; x += 0.037f) {
        const double want = x / (1 + exp(-(double)x)) * 3;
        const float up = 3;
        float got = x;

        scalar.silu_mul(&got, &up, 1);
        if (!(fabs((double)got - want) <= 1e-6 * fabs(want) + 1e-35))
            fail_msg("silu(%g) * 3 = %.9g, exactly %.9g", (double)x, (double)got, want);
    }
}

/* ---- every table against the scalar one */

static sluice_kernels tables[8];
static size_t n_tables;

static void find_tables(void)
{
    const uint32_t cpu = sluice_cpu_features();
    const uint32_t levels[] = {
        cpu & (SLUICE_CPU_AVX2 | SLUICE_CPU_FMA | SLUICE_CPU_F16C),
        cpu & (SLUICE_CPU_NEON | SLUICE_CPU_DOTPROD),
        cpu,
    };

    for (size_t i = 0; i < COUNT(levels); i++) {
        sluice_kernels k;
        bool is_new = true;

        sluice_kernels_init(&k, levels[i]);
        for (size_t j = 0; j < n_tables; j++)
            is_new = is_new && strcmp(k.isa, tables[j].isa) != 0;
        if (is_new && strcmp(k.isa, "scalar") != 0)
            tables[n_tables++] = k;
    }
}

static void compare_product(const sluice_kernels *k, sluice_weight type, size_t rows, size_t cols, size_t n_tokens)
{
    problem p = make_problem(type, rows, cols, n_tokens);
    sluice_kernels scalar;

    sluice_kernels_init(&scalar, 0);
    run(&scalar, &p, p.want);
    run(k, &p, p.y);
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t r = 0; r <= rows; r++)
            if (!is_same(p.y[t * (rows + 1) + r], p.want[t * (rows + 1) + r]))
                fail_msg("%s, weights %d, %zu x %zu, %zu tokens: row %zu of token %zu is %.9g, scalar %.9g", k->isa, (int)type, rows, cols,
                         n_tokens, r, t, (double)p.y[t * (rows + 1) + r], (double)p.want[t * (rows + 1) + r]);
    free_problem(&p);
}

static void products_equal_the_scalar_ones(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_tables; i++)
        for (int type = 0; type < SLUICE_WEIGHT_COUNT; type++) {
            const size_t *cols = type >= SLUICE_WEIGHT_Q8_0 ? block_cols : float_cols;
            const size_t n_cols = type >= SLUICE_WEIGHT_Q8_0 ? COUNT(block_cols) : COUNT(float_cols);

            for (size_t r = 0; r < COUNT(some_rows); r++) /* each row count with each token count, columns in turn */
                for (size_t t = 0; t < COUNT(some_tokens); t++)
                    compare_product(&tables[i], (sluice_weight)type, some_rows[r], cols[(r + t) % n_cols], some_tokens[t]);
        }
}

static void products_keep_damage_visible(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_tables; i++)
        for (int type = SLUICE_WEIGHT_Q8_0; type < SLUICE_WEIGHT_COUNT; type++)
            for (size_t n_tokens = 1; n_tokens <= 9; n_tokens += 8) {
                problem p = make_problem((sluice_weight)type, 17, 96, n_tokens);

                put_f16(p.w + 3 * sluice_weight_row_bytes(p.type, 96), NAN);
                put_f16(p.w + 16 * sluice_weight_row_bytes(p.type, 96), NAN);
                p.xq[0].scale = NAN;
                run(&tables[i], &p, p.y);
                for (size_t r = 0; r < 17; r++)
                    assert_true(isnan(p.y[r]));
                for (size_t r = 0; r < 17 && n_tokens > 1; r++)
                    assert_true(isnan(p.y[18 + r]) == (r == 3 || r == 16));
                free_problem(&p);
            }
}

static void compare_vectors(const char *isa, const char *what, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!is_same(a[i], b[i]))
            fail_msg("%s, %s of %zu: number %zu is %.9g, scalar %.9g", isa, what, n, i, (double)a[i], (double)b[i]);
}

static void vectors_equal_the_scalar_ones(void **state)
{
    enum { MAX = 333 };
    float x[MAX], w[MAX], a[MAX + 1], b[MAX + 1];
    uint16_t ha[MAX], hb[MAX];
    sluice_kernels scalar;

    (void)state;
    sluice_kernels_init(&scalar, 0);
    for (size_t i = 0; i < n_tables; i++)
        for (size_t n = 1; n <= MAX; n++) {
            const sluice_kernels *k = &tables[i];

            for (size_t j = 0; j < n; j++) {
                x[j] = 20 * next_float();
                w[j] = next_float();
            }
            a[n] = b[n] = 12345.0f;
            scalar.rms_norm(a, x, w, n, 1e-5f);
            k->rms_norm(b, x, w, n, 1e-5f);
            compare_vectors(k->isa, "rms_norm", b, a, n + 1);
            memcpy(a, x, n * sizeof *x);
            memcpy(b, x, n * sizeof *x);
            assert_true(is_same(scalar.softmax(a, n, 0.3f), k->softmax(b, n, 0.3f)));
            compare_vectors(k->isa, "softmax", b, a, n + 1);
            memcpy(a, x, n * sizeof *x);
            memcpy(b, x, n * sizeof *x);
            scalar.silu_mul(a, w, n);
            k->silu_mul(b, w, n);
            compare_vectors(k->isa, "silu_mul", b, a, n + 1);
            if (n % 5 == 0)
                x[n / 2] = 1e6f;
            scalar.to_f16(ha, x, n);
            k->to_f16(hb, x, n);
            assert_memory_equal(ha, hb, n * sizeof *ha);
        }
}

static void quantizing_equals_the_scalar_one(void **state)
{
    sluice_q8 a[4], b[4];
    sluice_kernels scalar;
    float x[128];

    (void)state;
    sluice_kernels_init(&scalar, 0);
    for (size_t i = 0; i < n_tables; i++)
        for (int j = 0; j < 3000; j++) {
            const float size = powf(10.0f, (float)(next_u32() % 70) - 34.0f);

            for (int l = 0; l < 128; l++)
                x[l] = j % 7 == 0 ? size * ((float)(next_u32() % 255) - 127.0f) / 254.0f : size * next_float(); /* some are ties */
            scalar.quantize(a, x, 128);
            tables[i].quantize(b, x, 128);
            assert_memory_equal(a, b, sizeof a);
        }
}

static void mixes_equal_the_scalar_ones(void **state)
{
    enum { ROWS = 50, V_STRIDE = 130, W_STRIDE = 53, OUT_STRIDE = 131, QUERIES = 9 };
    static const size_t dims[] = { 1, 7, 8, 16, 24, 31, 32, 48, 64, 80, 128 };
    static uint16_t v[ROWS * V_STRIDE];
    static float weights[QUERIES * W_STRIDE], a[QUERIES * OUT_STRIDE], b[QUERIES * OUT_STRIDE];
    sluice_kernels scalar;

    (void)state;
    sluice_kernels_init(&scalar, 0);
    for (size_t i = 0; i < COUNT(v); i++)
        v[i] = sluice_f32_to_f16(next_float());
    for (size_t i = 0; i < COUNT(weights); i++)
        weights[i] = next_float();
    for (size_t i = 0; i < n_tables; i++)
        for (size_t d = 0; d < COUNT(dims); d++)
            for (size_t n = 1; n <= ROWS; n += 7) {
                sluice_mix m = { v, V_STRIDE, weights, W_STRIDE, 1 + n % QUERIES, n, dims[d], a, OUT_STRIDE };

                for (size_t j = 0; j < COUNT(a); j++)
                    a[j] = b[j] = 12345.0f;
                scalar.mix(&m);
                m.out = b;
                tables[i].mix(&m);
                compare_vectors(tables[i].isa, "mix", b, a, COUNT(a));
            }
}

static void no_feature_bits_give_the_scalar_table(void **state)
{
    sluice_kernels k;

    (void)state;
    sluice_kernels_init(&k, 0);
    assert_string_equal(k.isa, "scalar");
    sluice_kernels_init(&k, SLUICE_CPU_AVX2); /* without FMA: not enough */
    assert_string_equal(k.isa, "scalar");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalar_products_are_within_rounding_of_exact),
        cmocka_unit_test(quantizing_is_within_half_a_step),
        cmocka_unit_test(quantizing_keeps_damage_visible),
        cmocka_unit_test(f16_survives_the_round_trip),
        cmocka_unit_test(f16_rounds_to_the_nearest),
        cmocka_unit_test(softmax_is_close_to_exact),
        cmocka_unit_test(silu_is_close_to_exact),
        cmocka_unit_test(products_equal_the_scalar_ones),
        cmocka_unit_test(products_keep_damage_visible),
        cmocka_unit_test(vectors_equal_the_scalar_ones),
        cmocka_unit_test(quantizing_equals_the_scalar_one),
        cmocka_unit_test(mixes_equal_the_scalar_ones),
        cmocka_unit_test(no_feature_bits_give_the_scalar_table),
    };

    find_tables();
    printf("tables beside scalar:");
    for (size_t i = 0; i < n_tables; i++)
        printf(" %s", tables[i].isa);
    printf("\n");
    return cmocka_run_group_tests_name("kernels", tests, NULL, NULL);
}
