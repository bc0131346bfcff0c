/* test_kernels.c - the scalar kernels against exact arithmetic, and every other table against the scalar one, bit for bit.
 *
 * Every table that this processor runs is tried, over shapes that no tile divides, values at the ends of their ranges and damaged
 * ones.  Whatever a kernel reads or writes ends where a page ends, and the next page is not there: one byte too far and the test dies.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "local-engine/kernels/kernels.h"
#include "sdk/platform/platform.h"

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

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

static float float_of(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof f);
    return f;
}

static float wild_float(void) /* any bits: subnormal, infinite, not a number */
{
    const uint32_t kind = next_u32() % 8;

    return kind == 0 ? INFINITY : kind == 1 ? NAN : kind == 2 ? float_of(next_u32() & 0x807fffffu) : kind == 3 ? float_of(next_u32()) : next_float();
}

/* Memory that ends at a page which cannot be touched.  Two pages in front of it are there as well. */
typedef struct guarded {
    uint8_t *map, *p, *end;
    size_t map_bytes;
} guarded;

static guarded guard(size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (bytes + page - 1) / page * page;
    guarded g;

    g.map_bytes = room + page;
    g.map = mmap(NULL, g.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(g.map != MAP_FAILED);
    assert_int_equal(mprotect(g.map + room, page, PROT_NONE), 0);
    g.end = g.map + room;
    g.p = g.end - bytes;
    return g;
}

static void unguard(guarded *g)
{
    assert_int_equal(munmap(g->map, g->map_bytes), 0);
}

/* Equal bits, or zeros, or both not finite. */
static bool is_same(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0 || (a == 0 && b == 0) || (!isfinite(a) && !isfinite(b));
}

static void compare_vectors(const char *isa, const char *what, const float *got, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!is_same(got[i], want[i]))
            fail_msg("%s, %s of %zu: number %zu is %.9g, scalar %.9g", isa, what, n, i, (double)got[i], (double)want[i]);
}

/* ---- the tables of this machine */

static sluice_kernels scalar, tables[8];
static size_t n_tables;

static void find_tables(void)
{
    const uint32_t cpu = sluice_cpu_features();
    const uint32_t levels[] = {
        cpu & (SLUICE_CPU_AVX2 | SLUICE_CPU_FMA | SLUICE_CPU_F16C),
        cpu & (SLUICE_CPU_AVX2 | SLUICE_CPU_FMA | SLUICE_CPU_F16C | SLUICE_CPU_AVX512 | SLUICE_CPU_AVX512_VNNI),
        cpu & (SLUICE_CPU_NEON | SLUICE_CPU_DOTPROD),
        cpu,
    };

    sluice_kernels_init(&scalar, 0);
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

/* ---- products */

typedef enum mood {
    PLAIN,                      /* values as they are in models */
    EXTREME,                    /* all weights of a block at one end of their range, all activations too; scales of either sign, zero, subnormal */
    WILD                        /* scales that are infinite or not a number, too */
} mood;

typedef struct problem {
    sluice_weight type;
    size_t rows, cols, n_tokens;
    guarded w, x, y, want, strip;
    float *x_float;             /* (n_tokens, cols) */
} problem;

/* Where a block holds f16 numbers; 0xff: nowhere. */
static const uint8_t halves_at[SLUICE_WEIGHT_COUNT][2] = {
    [SLUICE_WEIGHT_Q8_0] = { 0, 0xff },   [SLUICE_WEIGHT_Q4_0] = { 0, 0xff },  [SLUICE_WEIGHT_Q4_1] = { 0, 2 },
    [SLUICE_WEIGHT_Q5_0] = { 0, 0xff },   [SLUICE_WEIGHT_Q5_1] = { 0, 2 },     [SLUICE_WEIGHT_Q2_K] = { 80, 82 },
    [SLUICE_WEIGHT_Q3_K] = { 108, 0xff }, [SLUICE_WEIGHT_Q4_K] = { 0, 2 },     [SLUICE_WEIGHT_Q5_K] = { 0, 2 },
    [SLUICE_WEIGHT_Q6_K] = { 208, 0xff }, [SLUICE_WEIGHT_IQ4_NL] = { 0, 0xff }, [SLUICE_WEIGHT_IQ4_XS] = { 0, 0xff },
    [SLUICE_WEIGHT_MXFP4] = { 0xff, 0xff },
};

static void put_f16(uint8_t *p, uint16_t h)
{
    memcpy(p, &h, sizeof h);
}

static uint16_t some_scale(mood m)
{
    const uint32_t kind = next_u32() % 8;

    if (m == WILD && kind == 0)
        return (uint16_t)(next_u32() & 1 ? 0x7c00 : 0xfe01); /* infinity, NaN */
    if (m != PLAIN && kind <= 2)
        return (uint16_t)(next_u32() & (kind == 1 ? 0x83ff : 0x8000)); /* subnormal, zero */
    return sluice_f32_to_f16(0.02f * next_float());
}

static void fill_floats(const problem *p, mood m)
{
    for (size_t i = 0; i < p->rows * p->cols; i++) {
        const float f = m == WILD && next_u32() % 16 == 0 ? wild_float() : m == EXTREME && next_u32() % 4 == 0 ? 6e4f * next_float() : next_float();

        if (p->type == SLUICE_WEIGHT_F32)
            memcpy(p->w.p + 4 * i, &f, sizeof f);
        else if (p->type == SLUICE_WEIGHT_F16)
            put_f16(p->w.p + 2 * i, sluice_f32_to_f16(f));
        else
            memcpy(p->w.p + 2 * i, (const uint8_t *)&f + 2, 2); /* the upper half, on the little-endian machines that there are */
    }
}

static void fill_weights(const problem *p, mood m)
{
    const sluice_weight_traits *t = &sluice_weight_table[p->type];

    if (!t->is_quantized) {
        fill_floats(p, m);
        return;
    }
    for (uint8_t *b = p->w.p; b < p->w.end; b += t->block_bytes) {
        const uint32_t kind = m == PLAIN ? 0 : next_u32() % 4;
        static const uint8_t ends[] = { 0x00, 0xff, 0x80, 0x7f };

        for (size_t i = 0; i < t->block_bytes; i++)
            b[i] = (uint8_t)next_u32();
        if (kind != 0)
            memset(b, ends[next_u32() % 4], t->block_bytes);
        for (size_t h = 0; h < 2; h++)
            if (halves_at[p->type][h] != 0xff)
                put_f16(b + halves_at[p->type][h], some_scale(m));
        if (p->type == SLUICE_WEIGHT_MXFP4)
            b[0] = m == PLAIN ? (uint8_t)(118 + next_u32() % 6) : (uint8_t)next_u32();
    }
}

static void fill_activations(const problem *p, mood m)
{
    for (size_t i = 0; i < p->n_tokens * p->cols; i += 32) {
        const uint32_t kind = next_u32() % 6;

        for (size_t j = i; j < i + 32 && j < p->n_tokens * p->cols; j++)
            p->x_float[j] = kind == 0 ? (next_u32() & 1 ? 1.0f : -1.0f) /* +-127 throughout, in either half of its range */
                            : kind == 1 && m != PLAIN ? (i & 32 ? 1.0f : -1.0f)
                            : kind == 2 && m != PLAIN ? 0.0f
                            : kind == 3 && m == WILD  ? wild_float()
                                                      : next_float();
    }
}

static problem make_problem(sluice_weight type, size_t rows, size_t cols, size_t n_tokens, mood m)
{
    const bool is_quantized = sluice_weight_is_quantized(type);
    problem p = { .type = type, .rows = rows, .cols = cols, .n_tokens = n_tokens };

    p.w = guard(rows * sluice_weight_row_bytes(type, cols));
    p.x = guard(n_tokens * (is_quantized ? cols / 32 * sizeof(sluice_q8) : cols * sizeof(float)));
    p.y = guard(n_tokens * (rows + 1) * sizeof(float));
    p.want = guard(n_tokens * (rows + 1) * sizeof(float));
    p.strip = guard(SLUICE_STRIP_BYTES);
    p.x_float = is_quantized ? malloc(n_tokens * cols * sizeof(float)) : (float *)(void *)p.x.p;
    assert_non_null(p.x_float);
    fill_weights(&p, m);
    fill_activations(&p, m);
    if (is_quantized)
        scalar.quantize((sluice_q8 *)(void *)p.x.p, p.x_float, n_tokens * cols);
    return p;
}

static void free_problem(problem *p)
{
    if (sluice_weight_is_quantized(p->type))
        free(p->x_float);
    unguard(&p->w);
    unguard(&p->x);
    unguard(&p->y);
    unguard(&p->want);
    unguard(&p->strip);
}

/* y: (n_tokens, rows + 1), with one number behind each token's rows that must stay as it is. */
static void run(const sluice_kernels *k, const problem *p, float *y)
{
    const sluice_product product = {
        .w = p->w.p,
        .row_bytes = sluice_weight_row_bytes(p->type, p->cols),
        .rows = p->rows,
        .cols = p->cols,
        .x = p->x.p,
        .x_stride = sluice_weight_is_quantized(p->type) ? p->cols / 32 * sizeof(sluice_q8) : p->cols * sizeof(float),
        .n_tokens = p->n_tokens,
        .y = y,
        .y_stride = p->rows + 1,
        .strip = p->strip.p,
        .readable_end = p->w.end,
    };

    for (size_t i = 0; i < p->n_tokens * (p->rows + 1); i++)
        y[i] = 12345.0f;
    k->product[p->type](&product);
}

static void compare_product(sluice_weight type, size_t rows, size_t cols, size_t n_tokens, mood m)
{
    problem p = make_problem(type, rows, cols, n_tokens, m);
    float *want = (float *)(void *)p.want.p, *y = (float *)(void *)p.y.p;

    run(&scalar, &p, want);
    for (size_t i = 0; i < n_tables; i++) {
        run(&tables[i], &p, y);
        for (size_t t = 0; t < n_tokens; t++)
            for (size_t r = 0; r <= rows; r++)
                if (!is_same(y[t * (rows + 1) + r], want[t * (rows + 1) + r]))
                    fail_msg("%s, %s, %zu x %zu, %zu tokens, mood %d: row %zu of token %zu is %.9g, scalar %.9g", tables[i].isa,
                             sluice_weight_name(type), rows, cols, n_tokens, m, r, t, (double)y[t * (rows + 1) + r],
                             (double)want[t * (rows + 1) + r]);
    }
    free_problem(&p);
}

/* Columns of about that many; whole blocks. */
static size_t fitting_cols(sluice_weight type, size_t cols)
{
    const size_t len = sluice_weight_table[type].block_len;

    return cols < len ? len : cols / len * len;
}

static void products_equal_the_scalar_ones(void **state)
{
    static const size_t rows[] = { 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 47, 64, 70 };
    static const size_t tokens[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 20, 32, 33, 40 };
    static const size_t cols[] = { 1, 31, 32, 33, 64, 96, 256, 257, 512, 575, 896 };

    (void)state;
    for (int type = 0; type < SLUICE_WEIGHT_COUNT && n_tables > 0; type++)
        for (size_t r = 0; r < COUNT(rows); r++)
            for (size_t t = r % 2; t < COUNT(tokens); t += 2)
                compare_product((sluice_weight)type, rows[r], fitting_cols((sluice_weight)type, cols[(5 * r + t) % COUNT(cols)]), tokens[t],
                                (mood)((r + t / 2) % 3));
}

/* Longer than any strip, so that it is cut into pieces. */
static void long_rows_equal_the_scalar_ones(void **state)
{
    (void)state;
    for (int type = 0; type < SLUICE_WEIGHT_COUNT && n_tables > 0; type++) {
        compare_product((sluice_weight)type, 33, 14336, 1, PLAIN);
        compare_product((sluice_weight)type, 35, fitting_cols((sluice_weight)type, 9000), 19, PLAIN);
        compare_product((sluice_weight)type, 32, 6144, 6, EXTREME);
        compare_product((sluice_weight)type, 64, 4096, 3, EXTREME);
    }
}

static void products_keep_damage_visible(void **state)
{
    (void)state;
    for (size_t i = 0; i <= n_tables; i++)
        for (int type = 0; type < SLUICE_WEIGHT_COUNT; type++)
            for (size_t n_tokens = 1; n_tokens <= 17; n_tokens += 8) {
                const sluice_kernels *k = i == n_tables ? &scalar : &tables[i];
                problem p = make_problem((sluice_weight)type, 33, 512, n_tokens, PLAIN);
                float *y = (float *)(void *)p.y.p;

                if (sluice_weight_is_quantized(p.type))
                    ((sluice_q8 *)(void *)p.x.p)[3].scale = ((sluice_q8 *)(void *)p.x.p)[3].scaled_sum = NAN;
                else
                    p.x_float[100] = NAN;
                if (halves_at[type][0] != 0xff && sluice_weight_is_quantized(p.type)) {
                    put_f16(p.w.p + 3 * sluice_weight_row_bytes(p.type, 512) + halves_at[type][0], 0x7e00);
                    put_f16(p.w.p + 32 * sluice_weight_row_bytes(p.type, 512) + halves_at[type][0], 0x7e00);
                }
                run(k, &p, y);
                for (size_t r = 0; r < 33; r++)
                    assert_true(isnan(y[r]));
                for (size_t r = 0; r < 33 && n_tokens > 1; r++)
                    assert_true(isnan(y[34 + r]) == ((r == 3 || r == 32) && halves_at[type][0] != 0xff && sluice_weight_is_quantized(p.type)));
                free_problem(&p);
            }
}

static void scalar_products_are_within_rounding_of_exact(void **state)
{
    (void)state;
    for (int type = 0; type < SLUICE_WEIGHT_COUNT; type++) {
        const bool is_quantized = sluice_weight_is_quantized((sluice_weight)type);
        const size_t cols = fitting_cols((sluice_weight)type, 515);
        problem p = make_problem((sluice_weight)type, 9, cols, 3, PLAIN);
        const sluice_q8 *xq = (const sluice_q8 *)(void *)p.x.p;
        const float *y = (const float *)(void *)p.y.p;
        float row[515];

        run(&scalar, &p, (float *)(void *)p.y.p);
        for (size_t r = 0; r < p.rows; r++) {
            sluice_weight_row(p.type, row, p.w.p + r * sluice_weight_row_bytes(p.type, cols), cols);
            for (size_t t = 0; t < p.n_tokens; t++) {
                double want = 0, size = 0;

                for (size_t i = 0; i < cols; i++) {
                    const sluice_q8 *group = &xq[t * (cols / 32) + i / 32];
                    const double x = is_quantized ? (double)group->scale * group->q[i % 32] : (double)p.x_float[t * cols + i];

                    want += (double)row[i] * x;
                    size += fabs((double)row[i] * x) + (is_quantized ? 2e-4 * fabs(x) : 0); /* a weight that is the difference of two parts has their rounding */
                }
                if (!(fabs((double)y[t * (p.rows + 1) + r] - want) <= (double)(cols / 16 + 6) * (double)FLT_EPSILON * size))
                    fail_msg("%s row %zu token %zu: %.9g, exactly %.9g", sluice_weight_name(p.type), r, t, (double)y[t * (p.rows + 1) + r], want);
            }
        }
        free_problem(&p);
    }
}

/* ---- activations */

static void quantizing_is_within_half_a_step(void **state)
{
    sluice_q8 group;
    float x[32];

    (void)state;
    for (int i = 0; i < 2000; i++) {
        const float size = powf(10.0f, (float)(next_u32() % 60) - 28.0f);
        float largest = 0;
        int32_t sum[2] = { 0, 0 };

        for (int j = 0; j < 32; j++) {
            x[j] = next_float() * size;
            largest = fmaxf(largest, fabsf(x[j]));
        }
        scalar.quantize(&group, x, 32);
        assert_true(is_same(group.scale, largest / 127.0f));
        for (int j = 0; j < 32; j++) {
            assert_in_range(group.q[j] + 127, 0, 254);
            assert_true(fabsf(x[j] - group.scale * (float)group.q[j]) <= 0.5001f * group.scale);
            sum[j / 16] += group.q[j];
        }
        assert_int_equal(sum[0], group.sum[0]);
        assert_int_equal(sum[1], group.sum[1]);
        assert_true(is_same(group.scaled_sum, group.scale * (float)(sum[0] + sum[1])));
    }
}

static void quantizing_keeps_damage_visible(void **state)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    float x[32] = { 0 };

    (void)state;
    for (size_t t = 0; t <= n_tables; t++) {
        const sluice_kernels *k = t == n_tables ? &scalar : &tables[t];
        sluice_q8 group;

        for (size_t i = 0; i < COUNT(bad); i++) {
            x[17] = bad[i];
            k->quantize(&group, x, 32);
            assert_true(isnan(group.scale) && isnan(group.scaled_sum));
            assert_true(group.sum[0] == 0 && group.sum[1] == 0 && group.q[17] == 0);
        }
        memset(x, 0, sizeof x);
        k->quantize(&group, x, 32);
        assert_true(group.scale == 0 && group.scaled_sum == 0 && group.sum[0] == 0);
        x[3] = FLT_MIN / 4; /* no inverse */
        k->quantize(&group, x, 32);
        assert_true(group.scale == 0 && group.scaled_sum == 0 && group.sum[0] == 0 && group.q[3] == 0);
        x[3] = 0;
    }
}

static void quantizing_equals_the_scalar_one(void **state)
{
    guarded in = guard(128 * sizeof(float)), out = guard(4 * sizeof(sluice_q8));
    float *x = (float *)(void *)in.p;
    sluice_q8 want[4];

    (void)state;
    for (size_t i = 0; i < n_tables; i++)
        for (int j = 0; j < 3000; j++) {
            const float size = powf(10.0f, (float)(next_u32() % 70) - 34.0f);

            for (int l = 0; l < 128; l++)
                x[l] = j % 7 == 0 ? size * ((float)(next_u32() % 255) - 127.0f) / 254.0f : size * next_float(); /* some are ties */
            scalar.quantize(want, x, 128);
            tables[i].quantize((sluice_q8 *)(void *)out.p, x, 128);
            assert_memory_equal(out.p, want, sizeof want);
        }
    unguard(&in);
    unguard(&out);
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
    float x[300], y[300];

    (void)state;
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

static void activation_functions_are_close_to_exact(void **state)
{
    (void)state;
    for (float x = -100; x < 100; x += 0.037f) {
        const double cube = (double)x * x * x, silu = x / (1 + exp(-(double)x)) * 3;
        const double gelu = x / 2.0 * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * cube))), capped = 50 * tanh(0.7 * x / 50.0);
        const float up = 3;
        float got = x;

        scalar.silu_mul(&got, &up, 1);
        if (!(fabs((double)got - silu) <= 1e-6 * fabs(silu) + 1e-35))
            fail_msg("silu(%g) * 3 = %.9g, exactly %.9g", (double)x, (double)got, silu);
        got = x;
        scalar.gelu_mul(&got, NULL, 1);
        if (!(fabs((double)got - gelu) <= 3e-7 * fabs((double)x)))
            fail_msg("gelu(%g) = %.9g, exactly %.9g", (double)x, (double)got, gelu);
        got = x;
        scalar.gelu_mul(&got, &up, 1);
        if (!(fabs((double)got - 3 * gelu) <= 9e-7 * fabs((double)x)))
            fail_msg("gelu(%g) * 3 = %.9g, exactly %.9g", (double)x, (double)got, 3 * gelu);
        got = x;
        scalar.soft_cap(&got, 1, 0.7f, 50.0f);
        if (!(fabs((double)got - capped) <= 1e-5))
            fail_msg("soft_cap(%g) = %.9g, exactly %.9g", (double)x, (double)got, capped);
    }
}

static void norms_are_close_to_exact(void **state)
{
    float x[100], w[100], b[100], got[100];

    (void)state;
    for (size_t n = 1; n <= 100; n += 3) {
        double mean = 0, squares = 0, variance = 0;

        for (size_t i = 0; i < n; i++) {
            x[i] = 3 * next_float() + 1;
            w[i] = next_float();
            b[i] = next_float();
            mean += (double)x[i] / (double)n;
            squares += (double)x[i] * (double)x[i] / (double)n;
        }
        for (size_t i = 0; i < n; i++)
            variance += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)n;
        scalar.rms_norm(got, x, w, n, 1e-5f);
        for (size_t i = 0; i < n; i++)
            assert_true(fabs((double)got[i] - (double)x[i] / sqrt(squares + 1e-5) * (double)w[i]) <= 2e-5);
        scalar.layer_norm(got, x, w, b, n, 1e-2f);
        for (size_t i = 0; i < n; i++)
            assert_true(fabs((double)got[i] - (((double)x[i] - mean) / sqrt(variance + 1e-2) * (double)w[i] + (double)b[i])) <= 2e-5);
    }
}

static void vectors_equal_the_scalar_ones(void **state)
{
    enum { MAX = 210 };
    guarded gx = guard(MAX * sizeof(float)), gw = guard(MAX * sizeof(float)), gb = guard(MAX * sizeof(float)), gh = guard(MAX * 2);
    float want[MAX];
    uint16_t halves[MAX];

    (void)state;
    for (size_t i = 0; i < n_tables; i++)
        for (size_t n = 1; n <= MAX; n++) {
            const sluice_kernels *k = &tables[i];
            float *x = (float *)(void *)gx.end - n, *w = (float *)(void *)gw.end - n, *got = (float *)(void *)gb.end - n;
            uint16_t *h = (uint16_t *)(void *)gh.end - n;
            float sum;

            for (size_t j = 0; j < n; j++) {
                x[j] = n % 9 == 8 && next_u32() % 16 == 0 ? wild_float() : 20 * next_float();
                w[j] = next_float();
            }
            scalar.rms_norm(want, x, w, n, 1e-5f);
            k->rms_norm(got, x, w, n, 1e-5f);
            compare_vectors(k->isa, "rms_norm", got, want, n);
            memcpy(got, x, n * sizeof *x);
            k->rms_norm(got, got, w, n, 1e-5f);
            compare_vectors(k->isa, "rms_norm in place", got, want, n);
            for (int with_b = 0; with_b < 2; with_b++) {
                scalar.layer_norm(want, x, w, with_b ? x : NULL, n, 1e-5f);
                k->layer_norm(got, x, w, with_b ? x : NULL, n, 1e-5f);
                compare_vectors(k->isa, "layer_norm", got, want, n);
            }
            memcpy(want, x, n * sizeof *x);
            memcpy(got, x, n * sizeof *x);
            sum = scalar.softmax(want, n, 0.3f);
            assert_true(is_same(k->softmax(got, n, 0.3f), sum));
            compare_vectors(k->isa, "softmax", got, want, n);
            memcpy(want, x, n * sizeof *x);
            memcpy(got, x, n * sizeof *x);
            scalar.silu_mul(want, w, n);
            k->silu_mul(got, w, n);
            compare_vectors(k->isa, "silu_mul", got, want, n);
            for (int with_up = 0; with_up < 2; with_up++) {
                memcpy(want, x, n * sizeof *x);
                memcpy(got, x, n * sizeof *x);
                scalar.gelu_mul(want, with_up ? w : NULL, n);
                k->gelu_mul(got, with_up ? w : NULL, n);
                compare_vectors(k->isa, "gelu_mul", got, want, n);
            }
            memcpy(want, x, n * sizeof *x);
            memcpy(got, x, n * sizeof *x);
            scalar.soft_cap(want, n, 1.7f, 30.0f);
            k->soft_cap(got, n, 1.7f, 30.0f);
            compare_vectors(k->isa, "soft_cap", got, want, n);
            for (size_t j = 0; j < n; j++)
                if (isnan(x[j]))
                    x[j] = 1e6f;
            scalar.to_f16(halves, x, n);
            k->to_f16(h, x, n);
            assert_memory_equal(h, halves, n * sizeof *h);
        }
    unguard(&gx);
    unguard(&gw);
    unguard(&gb);
    unguard(&gh);
}

/* ---- attention */

static uint16_t some_half(void)
{
    return next_u32() % 64 == 0 ? (uint16_t)next_u32() : sluice_f32_to_f16(next_float());
}

/* Scores of n positions from `first` on, with the last positions of the last block never written. */
static void compare_scores(bool is_q8, size_t dim, size_t first, size_t n, size_t n_queries)
{
    const size_t blocks = (first + n) / SLUICE_KEY_BLOCK, stride = n + 16, groups = dim / 32;
    guarded keys = guard(blocks * (is_q8 ? groups * 16 * 36 : dim * 16 * 2));
    guarded queries = guard(n_queries * (is_q8 ? groups * sizeof(sluice_q8) : dim * sizeof(float)));
    guarded out = guard((n_queries * stride * sizeof(float) + 63) / 64 * 64), want = guard((n_queries * stride * sizeof(float) + 63) / 64 * 64);
    sluice_scores s = { keys.p, first, n, dim, queries.p, n_queries, NULL, stride };
    float *floats = malloc(n_queries * dim * sizeof *floats);

    assert_non_null(floats);
    for (size_t i = 0; i < (size_t)(keys.end - keys.p); i++)
        keys.p[i] = (uint8_t)next_u32();
    for (size_t i = 0; !is_q8 && i < blocks * dim * 16; i++)
        put_f16(keys.p + 2 * i, some_half());
    for (size_t i = 0; is_q8 && i < blocks * groups * 16; i++) {
        const float scale = next_u32() % 50 == 0 ? wild_float() : 0.02f * fabsf(next_float());

        memcpy(keys.p + i / 16 * 16 * 36 + 4 * (i % 16), &scale, sizeof scale);
    }
    for (size_t i = 0; i < n_queries * dim; i++)
        floats[i] = i / 32 % 4 == 0 ? (next_u32() & 1 ? 1.0f : -1.0f) : next_float();
    if (is_q8)
        scalar.quantize((sluice_q8 *)(void *)queries.p, floats, n_queries * dim);
    else
        memcpy(queries.p, floats, n_queries * dim * sizeof *floats);
    s.out = (float *)(void *)want.p;
    for (size_t i = 0; i < n_queries * stride; i++)
        s.out[i] = 12345.0f;
    (is_q8 ? scalar.scores_q8 : scalar.scores_f16)(&s);
    for (size_t i = 0; i < n_tables; i++) {
        s.out = (float *)(void *)out.p;
        for (size_t j = 0; j < n_queries * stride; j++)
            s.out[j] = 12345.0f;
        (is_q8 ? tables[i].scores_q8 : tables[i].scores_f16)(&s);
        compare_vectors(tables[i].isa, is_q8 ? "scores_q8" : "scores_f16", s.out, (float *)(void *)want.p, n_queries * stride);
    }
    free(floats);
    unguard(&keys);
    unguard(&queries);
    unguard(&out);
    unguard(&want);
}

static void scores_equal_the_scalar_ones(void **state)
{
    static const size_t dims[] = { 1, 3, 16, 40, 64, 80, 96, 128, 256 }, q8_dims[] = { 32, 64, 96, 128, 256 };
    static const size_t lengths[] = { 16, 32, 48, 64, 80, 128, 144 };

    (void)state;
    for (size_t n_queries = 1; n_queries <= 13; n_queries++)
        for (size_t l = 0; l < COUNT(lengths); l++) {
            compare_scores(false, dims[(n_queries + l) % COUNT(dims)], 16 * (l % 3), lengths[l], n_queries);
            compare_scores(true, q8_dims[(n_queries + l) % COUNT(q8_dims)], 16 * (l % 3), lengths[l], n_queries);
        }
}

static void scalar_scores_are_dot_products(void **state)
{
    enum { DIM = 64 };
    float keys[32][DIM], query[DIM], out[32];
    uint16_t blocks[2 * DIM * 16];
    uint8_t blocks_q8[2 * 2 * 16 * 36];
    sluice_q8 quantized[2], query_q8[2];
    sluice_scores s = { blocks, 0, 32, DIM, query, 1, NULL, 32 };
    guarded g = guard(sizeof out);

    (void)state;
    s.out = (float *)(void *)g.p;
    for (size_t i = 0; i < DIM; i++)
        query[i] = next_float();
    scalar.quantize(query_q8, query, DIM);
    for (size_t i = 0; i < 32; i++) {
        for (size_t d = 0; d < DIM; d++) {
            keys[i][d] = next_float();
            blocks[i / 16 * DIM * 16 + d * 16 + i % 16] = sluice_f32_to_f16(keys[i][d]);
        }
        scalar.quantize(quantized, keys[i], DIM);
        for (size_t d = 0; d < DIM; d++) {
            uint8_t *group = blocks_q8 + (i / 16 * 2 + d / 32) * 16 * 36;

            memcpy(group + 4 * (i % 16), &quantized[d / 32].scale, sizeof(float));
            group[64 + d % 32 / 4 * 64 + i % 16 * 4 + d % 4] = (uint8_t)quantized[d / 32].q[d % 32];
        }
    }
    for (int is_q8 = 0; is_q8 < 2; is_q8++) {
        s.keys = is_q8 ? (const void *)blocks_q8 : (const void *)blocks;
        s.queries = is_q8 ? (const void *)query_q8 : (const void *)query;
        (is_q8 ? scalar.scores_q8 : scalar.scores_f16)(&s);
        for (size_t i = 0; i < 32; i++) {
            double want = 0;

            for (size_t d = 0; d < DIM; d++)
                want += (double)query[d] * (double)keys[i][d];
            assert_true(fabs((double)s.out[i] - want) <= (is_q8 ? 0.3 : 0.03));
        }
    }
    unguard(&g);
}

static void compare_mixes(bool is_q8, size_t dim, size_t n, size_t n_queries)
{
    const size_t stride = is_q8 ? dim / 32 * 34 + 6 : dim + 3, out_stride = dim + 5, weights_stride = n + 2;
    guarded v = guard(is_q8 ? (n - 1) * stride + dim / 32 * 34 : ((n - 1) * stride + dim) * 2);
    guarded weights = guard(((n_queries - 1) * weights_stride + n) * sizeof(float));
    guarded out = guard(((n_queries - 1) * out_stride + dim) * sizeof(float)), want = guard(((n_queries - 1) * out_stride + dim) * sizeof(float));
    const size_t n_out = (n_queries - 1) * out_stride + dim;
    sluice_mix m = { v.p, stride, (const float *)(void *)weights.p, weights_stride, n_queries, n, dim, NULL, out_stride };

    for (size_t i = 0; i < (size_t)(v.end - v.p); i++)
        v.p[i] = (uint8_t)next_u32();
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < dim; j++) {
            if (!is_q8)
                put_f16(v.p + 2 * (i * stride + j), sluice_f32_to_f16(next_float()));
            else if (j % 32 == 0)
                put_f16(v.p + i * stride + j / 32 * 34, sluice_f32_to_f16(0.02f * next_float()));
        }
    for (size_t i = 0; i < (size_t)(weights.end - weights.p) / sizeof(float); i++)
        ((float *)(void *)weights.p)[i] = next_u32() % 8 == 0 ? 0 : next_u32() % 200 == 0 ? NAN : fabsf(next_float());
    m.out = (float *)(void *)want.p;
    for (size_t i = 0; i < n_out; i++)
        m.out[i] = 12345.0f;
    (is_q8 ? scalar.mix_q8 : scalar.mix_f16)(&m);
    for (size_t i = 0; i < n_tables; i++) {
        m.out = (float *)(void *)out.p;
        for (size_t j = 0; j < n_out; j++)
            m.out[j] = 12345.0f;
        (is_q8 ? tables[i].mix_q8 : tables[i].mix_f16)(&m);
        compare_vectors(tables[i].isa, is_q8 ? "mix_q8" : "mix_f16", m.out, (float *)(void *)want.p, n_out);
    }
    unguard(&v);
    unguard(&weights);
    unguard(&out);
    unguard(&want);
}

static void mixes_equal_the_scalar_ones(void **state)
{
    static const size_t dims[] = { 1, 7, 8, 16, 24, 31, 32, 48, 64, 80, 128, 256 }, q8_dims[] = { 32, 64, 96, 128, 256 };

    (void)state;
    for (size_t n_queries = 1; n_queries <= 13; n_queries++)
        for (size_t n = 1; n <= 50; n += 7) {
            compare_mixes(false, dims[(n_queries + n / 7) % COUNT(dims)], n, n_queries);
            compare_mixes(true, q8_dims[(n_queries + n / 7) % COUNT(q8_dims)], n, n_queries);
        }
}

static void scalar_mixes_are_weighted_sums(void **state)
{
    enum { N = 5, DIM = 32 };
    float values[N][DIM], weights[N] = { 0.1f, 0, 0.5f, 0.3f, 0.1f }, out[DIM];
    uint16_t v[N * DIM];
    uint8_t v_q8[N * 34];
    sluice_mix m = { v, DIM, weights, N, 1, N, DIM, out, DIM };

    (void)state;
    for (size_t i = 0; i < N; i++) {
        sluice_q8 q;

        for (size_t j = 0; j < DIM; j++) {
            values[i][j] = next_float();
            v[i * DIM + j] = sluice_f32_to_f16(values[i][j]);
        }
        scalar.quantize(&q, values[i], DIM);
        put_f16(v_q8 + 34 * i, sluice_f32_to_f16(q.scale));
        memcpy(v_q8 + 34 * i + 2, q.q, DIM);
    }
    for (int is_q8 = 0; is_q8 < 2; is_q8++) {
        m.v = is_q8 ? (const void *)v_q8 : (const void *)v;
        m.v_stride = is_q8 ? 34 : DIM;
        (is_q8 ? scalar.mix_q8 : scalar.mix_f16)(&m);
        for (size_t j = 0; j < DIM; j++) {
            double want = 0;

            for (size_t i = 0; i < N; i++)
                want += (double)weights[i] * (double)values[i][j];
            assert_true(fabs((double)out[j] - want) <= (is_q8 ? 0.02 : 0.002));
        }
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
        cmocka_unit_test(activation_functions_are_close_to_exact),
        cmocka_unit_test(norms_are_close_to_exact),
        cmocka_unit_test(scalar_scores_are_dot_products),
        cmocka_unit_test(scalar_mixes_are_weighted_sums),
        cmocka_unit_test(products_equal_the_scalar_ones),
        cmocka_unit_test(long_rows_equal_the_scalar_ones),
        cmocka_unit_test(products_keep_damage_visible),
        cmocka_unit_test(quantizing_equals_the_scalar_one),
        cmocka_unit_test(vectors_equal_the_scalar_ones),
        cmocka_unit_test(scores_equal_the_scalar_ones),
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
