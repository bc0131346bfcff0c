/* kernels_neon_i8mm.c - 64-bit ARM with the matrix instructions for bytes (ARMv8.6 and later): twice the products of sdot in one instruction.
 *
 * smmla multiplies two rows of eight bytes by two others, four sums a register.  Here one is two tokens, the other two rows of a strip:
 *
 *     [t0 k0-7, t1 k0-7] x [r0 k0-7, r1 k0-7] -> t0 r0, t0 r1, t1 r0, t1 r1
 *
 * It pays for many tokens alone: with one, half of it would be spent on nothing, and rows would have to be paired first.  So this table is the one of
 * kernels_neon_dotprod.c but for the loop over strips.  Before four tokens run over a strip they are put into the order above, once for all of its rows.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/kernels/kernels_neon.h"

/* A group of four tokens, two pairs. */
typedef struct panel {
    int8_t q[4][2][16];         /* eight columns of a pair: the first token's, then the second's */
    float scale[2][4];          /* of a pair: first, first, second, second, as the sums come out */
    float sum[2][2][4];         /* what mins are multiplied with, of a half (or the group: half 0) and a pair */
} panel;

_Static_assert(SLUICE_STRIP_ROWS * NEON_GROUPS * (SLUICE_Q_LEN + 4 * sizeof(float)) + NEON_GROUPS * sizeof(panel) <= SLUICE_STRIP_BYTES,
               "strip and panel share the scratch");

NEON_INLINE float32x4_t two_each(float first, float second)
{
    return vcombine_f32(vdup_n_f32(first), vdup_n_f32(second));
}

NEON_INLINE void pack_pair(panel *out, size_t pair, const sluice_q8 *a, const sluice_q8 *b, bool has_halves, bool has_min)
{
    for (size_t half = 0; half < 2; half++) {
        const int64x2_t first = vreinterpretq_s64_s8(vld1q_s8(a->q + 16 * half)), second = vreinterpretq_s64_s8(vld1q_s8(b->q + 16 * half));

        vst1q_s8(out->q[2 * half][pair], vreinterpretq_s8_s64(vzip1q_s64(first, second)));
        vst1q_s8(out->q[2 * half + 1][pair], vreinterpretq_s8_s64(vzip2q_s64(first, second)));
        if (has_min && has_halves)
            vst1q_f32(out->sum[half][pair], two_each(a->scale * (float)a->sum[half], b->scale * (float)b->sum[half]));
    }
    if (has_min && !has_halves)
        vst1q_f32(out->sum[0][pair], two_each(a->scaled_sum, b->scaled_sum));
    vst1q_f32(out->scale[pair], two_each(a->scale, b->scale));
}

/* Four tokens' columns of the strip; the last token stands for those that are missing. */
NEON_INLINE void pack_tokens(panel *out, const sluice_product *p, const sluice_neon_strip *s, size_t t, size_t n_tokens, bool has_halves, bool has_min)
{
    const sluice_q8 *x[NEON_TILE];

    for (size_t j = 0; j < NEON_TILE; j++)
        x[j] = neon_token(p, t + (j < n_tokens ? j : n_tokens - 1)) + s->group;
    for (size_t g = 0; g < s->n_groups; g++)
        for (size_t pair = 0; pair < 2; pair++)
            pack_pair(&out[g], pair, &x[2 * pair][g], &x[2 * pair + 1][g], has_halves, has_min);
}

/* A pair of rows' floats twice: for the first token and for the second. */
NEON_INLINE float32x4_t load_two(const float *p)
{
    return vreinterpretq_f32_u64(vld1q_dup_u64((const uint64_t *)(const void *)p));
}

/* Eight rows of a strip, from `at` on, by four tokens. */
NEON_INLINE void strip_tile(const sluice_product *p, const sluice_neon_strip *s, size_t at, size_t t, size_t n_tokens, bool has_halves, bool has_min)
{
    const size_t r = s->row + at, n_rows = s->n_rows - at < NEON_ROWS ? s->n_rows - at : NEON_ROWS;
    const int8_t *q = s->q + at * s->n_groups * SLUICE_Q_LEN;
    const float *scale = s->scale + at * s->n_groups * (has_halves ? 2 : 1), *min = s->min + at * s->n_groups * (has_halves ? 2 : 1);
    neon_tile tile = neon_tile_load(p, s, r, n_rows, t, n_tokens);
    const panel *x = s->panel;
    float32x4_t y[4][2];        /* [pair of rows][pair of tokens] */

    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 2; j++)
            y[i][j] = vcombine_f32(vld1_f32(&tile.y[2 * j][2 * i]), vld1_f32(&tile.y[2 * j + 1][2 * i]));
    for (size_t g = 0; g < s->n_groups; g++, x++) {
        int32x4_t sum[4][2];

        for (size_t half = 0; half < 2; half++) {
            for (size_t i = 0; i < 4; i++)
                if (half == 0 || has_halves)
                    sum[i][0] = sum[i][1] = vdupq_n_s32(0);
            for (size_t step = 0; step < 2; step++, q += 64) {
                const int8x16_t a = vld1q_s8(x->q[2 * half + step][0]), b = vld1q_s8(x->q[2 * half + step][1]);

                for (size_t i = 0; i < 4; i++) {
                    const int8x16_t w = vld1q_s8(q + 16 * i);

                    sum[i][0] = vmmlaq_s32(sum[i][0], a, w);
                    sum[i][1] = vmmlaq_s32(sum[i][1], b, w);
                }
            }
            if (half == 0 && !has_halves)
                continue;
            for (size_t i = 0; i < 4; i++) {
                const float32x4_t d = load_two(scale + 2 * i);

                for (size_t j = 0; j < 2; j++)
                    y[i][j] = vfmaq_f32(y[i][j], vmulq_f32(d, vld1q_f32(x->scale[j])), vcvtq_f32_s32(sum[i][j]));
                for (size_t j = 0; j < 2 && has_min; j++)
                    y[i][j] = vfmaq_f32(y[i][j], load_two(min + 2 * i), vld1q_f32(x->sum[has_halves ? half : 0][j]));
            }
            scale += NEON_ROWS;
            min += NEON_ROWS;
        }
    }
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 2; j++) {
            vst1_f32(&tile.y[2 * j][2 * i], vget_low_f32(y[i][j]));
            vst1_f32(&tile.y[2 * j + 1][2 * i], vget_high_f32(y[i][j]));
        }
    neon_tile_store(p, &tile, r, n_rows, t, n_tokens);
}

NEON_INLINE void run_strip(const sluice_product *p, const sluice_neon_strip *s, bool has_halves, bool has_min)
{
    for (size_t t = 0; t < p->n_tokens; t += NEON_TILE) {
        const size_t n_tokens = p->n_tokens - t < NEON_TILE ? p->n_tokens - t : NEON_TILE;

        pack_tokens(s->panel, p, s, t, n_tokens, has_halves, has_min);
        for (size_t at = 0; at < s->n_rows; at += NEON_ROWS)
            strip_tile(p, s, at, t, n_tokens, has_halves, has_min);
    }
}

#define RUN(name, has_halves, has_min) \
    static void name(const sluice_product *p, const sluice_neon_strip *s) \
    { \
        run_strip(p, s, has_halves, has_min); \
    }

RUN(run_plain, false, false)
RUN(run_mins, false, true)
RUN(run_halves, true, false)
RUN(run_halves_mins, true, true)

static const sluice_neon_gemm gemm_i8mm = { true, { { run_plain, run_mins }, { run_halves, run_halves_mins } } };

#define PRODUCT(name, type) \
    static void name(const sluice_product *p) \
    { \
        sluice_neon_product(p, type, &gemm_i8mm); \
    }

PRODUCT(product_q8_0, SLUICE_WEIGHT_Q8_0)
PRODUCT(product_q4_0, SLUICE_WEIGHT_Q4_0)
PRODUCT(product_q4_1, SLUICE_WEIGHT_Q4_1)
PRODUCT(product_q5_0, SLUICE_WEIGHT_Q5_0)
PRODUCT(product_q5_1, SLUICE_WEIGHT_Q5_1)
PRODUCT(product_q2_k, SLUICE_WEIGHT_Q2_K)
PRODUCT(product_q3_k, SLUICE_WEIGHT_Q3_K)
PRODUCT(product_q4_k, SLUICE_WEIGHT_Q4_K)
PRODUCT(product_q5_k, SLUICE_WEIGHT_Q5_K)
PRODUCT(product_q6_k, SLUICE_WEIGHT_Q6_K)
PRODUCT(product_iq4_nl, SLUICE_WEIGHT_IQ4_NL)
PRODUCT(product_iq4_xs, SLUICE_WEIGHT_IQ4_XS)
PRODUCT(product_mxfp4, SLUICE_WEIGHT_MXFP4)

void sluice_kernels_install_neon_i8mm(sluice_kernels *k)
{
    k->isa = "neon-i8mm";
    k->product[SLUICE_WEIGHT_Q8_0] = product_q8_0;
    k->product[SLUICE_WEIGHT_Q4_0] = product_q4_0;
    k->product[SLUICE_WEIGHT_Q4_1] = product_q4_1;
    k->product[SLUICE_WEIGHT_Q5_0] = product_q5_0;
    k->product[SLUICE_WEIGHT_Q5_1] = product_q5_1;
    k->product[SLUICE_WEIGHT_Q2_K] = product_q2_k;
    k->product[SLUICE_WEIGHT_Q3_K] = product_q3_k;
    k->product[SLUICE_WEIGHT_Q4_K] = product_q4_k;
    k->product[SLUICE_WEIGHT_Q5_K] = product_q5_k;
    k->product[SLUICE_WEIGHT_Q6_K] = product_q6_k;
    k->product[SLUICE_WEIGHT_IQ4_NL] = product_iq4_nl;
    k->product[SLUICE_WEIGHT_IQ4_XS] = product_iq4_xs;
    k->product[SLUICE_WEIGHT_MXFP4] = product_mxfp4;
}
