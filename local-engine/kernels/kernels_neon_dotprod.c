/* kernels_neon_dotprod.c - 64-bit ARM with the dot product instructions (ARMv8.2 and later): 4 floats or 16 bytes a register.
 *
 * sdot adds four products of signed bytes into each 32-bit lane, so neither the sign nor the range of a weight matters.
 * A single token (decode) reads four rows as they lie in the file and folds their sums into one register, lane = row.
 * Several tokens (prefill) go over a strip of eight rows, two registers for each unit of four bytes, so that sdot by lane takes its four activation
 * bytes from one of sixteen that were loaded at once:
 *
 *     strip:  block 0: [r0 k0-3] … [r3 k0-3]  [r4 k0-3] … [r7 k0-3]  [r0 k4-7] …  (16 registers)   block 1: …
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/kernels/kernels.h"

#include <arm_neon.h>
#include <math.h>
#include <string.h>

enum { ROWS = 8, TILE = 4, STRIP_FROM = 4 }; /* rows of a strip; tokens of a tile; tokens from which a strip pays */

static inline float load_f16(const uint8_t *p)
{
    __fp16 h;

    memcpy(&h, p, sizeof h);
    return (float)h;
}

/* ---- float weights: sixteen running sums in four registers */

typedef struct sums {
    float32x4_t v[4];
} sums;

static inline sums zero_sums(void)
{
    return (sums){ { vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0) } };
}

static inline float fold(sums s)
{
    const float32x4_t by4 = vaddq_f32(vaddq_f32(s.v[0], s.v[2]), vaddq_f32(s.v[1], s.v[3]));
    const float32x2_t by2 = vadd_f32(vget_low_f32(by4), vget_high_f32(by4));

    return vget_lane_f32(by2, 0) + vget_lane_f32(by2, 1);
}

/* Sixteen numbers of a row, or the last n < 16 of them with zeros behind. */
static inline sums load_f32x16(const uint8_t *p, size_t n)
{
    float rest[16] = { 0 };
    sums s;

    if (n < 16) {
        memcpy(rest, p, n * sizeof(float));
        p = (const uint8_t *)rest;
    }
    for (size_t i = 0; i < 4; i++)
        s.v[i] = vreinterpretq_f32_u8(vld1q_u8(p + 16 * i));
    return s;
}

static inline sums load_f16x16(const uint8_t *p, size_t n)
{
    uint16_t rest[16] = { 0 };
    float16x8_t low, high;

    if (n < 16) {
        memcpy(rest, p, n * sizeof(uint16_t));
        p = (const uint8_t *)rest;
    }
    low = vreinterpretq_f16_u8(vld1q_u8(p));
    high = vreinterpretq_f16_u8(vld1q_u8(p + 16));
    return (sums){ { vcvt_f32_f16(vget_low_f16(low)), vcvt_f32_f16(vget_high_f16(low)), vcvt_f32_f16(vget_low_f16(high)),
                     vcvt_f32_f16(vget_high_f16(high)) } };
}

static inline sums load_x16(const uint8_t *p, size_t n, bool is_f16)
{
    return is_f16 ? load_f16x16(p, n) : load_f32x16(p, n);
}

/* n_rows rows by n_tokens tokens at once, both small constants: enough chains to hide the latency of fma. */
static inline __attribute__((always_inline)) void float_tile(const sluice_product *p, size_t r, size_t t, size_t n_rows, size_t n_tokens,
                                                             bool is_f16)
{
    const size_t width = is_f16 ? 2 : 4;
    sums acc[2][2];

    for (size_t i = 0; i < n_rows; i++)
        for (size_t j = 0; j < n_tokens; j++)
            acc[i][j] = zero_sums();
    for (size_t k = 0; k < p->cols; k += 16) {
        const size_t n = p->cols - k < 16 ? p->cols - k : 16;
        sums x[2];

        for (size_t j = 0; j < n_tokens; j++)
            x[j] = load_f32x16((const uint8_t *)p->x + (t + j) * p->x_stride + k * sizeof(float), n);
        for (size_t i = 0; i < n_rows; i++) {
            const sums w = load_x16(p->w + (r + i) * p->row_bytes + k * width, n, is_f16);

            for (size_t j = 0; j < n_tokens; j++)
                for (size_t l = 0; l < 4; l++)
                    acc[i][j].v[l] = vfmaq_f32(acc[i][j].v[l], w.v[l], x[j].v[l]);
        }
    }
    for (size_t i = 0; i < n_rows; i++)
        for (size_t j = 0; j < n_tokens; j++)
            p->y[(t + j) * p->y_stride + r + i] = fold(acc[i][j]);
}

static inline __attribute__((always_inline)) void product_float(const sluice_product *p, bool is_f16)
{
    size_t r = 0;

    for (; r + 2 <= p->rows; r += 2) {
        size_t t = 0;

        for (; t + 2 <= p->n_tokens; t += 2)
            float_tile(p, r, t, 2, 2, is_f16);
        for (; t < p->n_tokens; t++)
            float_tile(p, r, t, 2, 1, is_f16);
    }
    for (; r < p->rows; r++)
        for (size_t t = 0; t < p->n_tokens; t++)
            float_tile(p, r, t, 1, 1, is_f16);
}

static void product_f32(const sluice_product *p)
{
    product_float(p, false);
}

static void product_f16(const sluice_product *p)
{
    product_float(p, true);
}

/* ---- quantized weights */

typedef struct block {
    int8x16_t low, high;        /* elements 0 … 15 and 16 … 31 */
} block;

static inline block load_block(const uint8_t *p, bool is_q4)
{
    uint8x16_t bytes;

    if (!is_q4)
        return (block){ vreinterpretq_s8_u8(vld1q_u8(p + 2)), vreinterpretq_s8_u8(vld1q_u8(p + 18)) };
    bytes = vld1q_u8(p + 2);
    return (block){ vsubq_s8(vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))), vdupq_n_s8(8)),
                    vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4)), vdupq_n_s8(8)) };
}

/* Four partial sums of a block's products. */
static inline int32x4_t block_sums(const uint8_t *p, const sluice_q8 *x, bool is_q4)
{
    const block w = load_block(p, is_q4);

    return vdotq_s32(vdotq_s32(vdupq_n_s32(0), w.low, vld1q_s8(x->q)), w.high, vld1q_s8(x->q + 16));
}

/* The scales of one block in four rows. */
static inline float32x4_t load_scales(const uint8_t *p, size_t row_bytes)
{
    uint16_t h[4];

    for (size_t i = 0; i < 4; i++)
        memcpy(&h[i], p + i * row_bytes, sizeof h[i]);
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(h)));
}

/* Asks, while block b of four rows is worked on, for as many bytes further on, in the order in which they lie in memory.  Measured on x86 only,
 * where it is worth a factor of 1.6 (kernels_x86.h); where a prefetcher follows four streams by itself it costs two to three instructions a block.
 * Inlined by force: GCC takes a function that only prefetches for one without effects, and drops the call. */
static inline __attribute__((always_inline)) void prefetch_ahead(const uint8_t *rows, size_t row_bytes, size_t b, size_t block_bytes)
{
    enum { AT_LEAST = 4096 };
    const uint8_t *next = rows + (4 * row_bytes > AT_LEAST ? 4 * row_bytes : AT_LEAST) + 4 * b * block_bytes;

    for (size_t line = 0; line < 4 * block_bytes; line += 64)
        __builtin_prefetch(next + line, 0, 2);
}

/* Four rows as they lie in the file, one token. */
static inline __attribute__((always_inline)) void rows_token(const sluice_product *p, size_t r, size_t t, bool is_q4)
{
    const size_t block_bytes = is_q4 ? SLUICE_Q4_0_BYTES : SLUICE_Q8_0_BYTES;
    const sluice_q8 *x = (const sluice_q8 *)(const void *)((const uint8_t *)p->x + t * p->x_stride);
    const uint8_t *w = p->w + r * p->row_bytes;
    float32x4_t y = vdupq_n_f32(0);

    for (size_t b = 0; b < p->cols / SLUICE_Q_LEN; b++, w += block_bytes) {
        int32x4_t s[4], sum;

        for (size_t i = 0; i < 4; i++)
            s[i] = block_sums(w + i * p->row_bytes, &x[b], is_q4);
        prefetch_ahead(p->w + r * p->row_bytes, p->row_bytes, b, block_bytes);
        sum = vpaddq_s32(vpaddq_s32(s[0], s[1]), vpaddq_s32(s[2], s[3]));
        y = vfmaq_f32(y, vmulq_n_f32(load_scales(w, p->row_bytes), x[b].scale), vcvtq_f32_s32(sum));
    }
    vst1q_f32(p->y + t * p->y_stride + r, y);
}

/* The last rows of a matrix whose rows are no multiple of four. */
static inline __attribute__((always_inline)) void row_token(const sluice_product *p, size_t r, size_t t, bool is_q4)
{
    const size_t block_bytes = is_q4 ? SLUICE_Q4_0_BYTES : SLUICE_Q8_0_BYTES;
    const sluice_q8 *x = (const sluice_q8 *)(const void *)((const uint8_t *)p->x + t * p->x_stride);
    const uint8_t *w = p->w + r * p->row_bytes;
    float y = 0;

    for (size_t b = 0; b < p->cols / SLUICE_Q_LEN; b++, w += block_bytes)
        y = fmaf(load_f16(w) * x[b].scale, (float)vaddvq_s32(block_sums(w, &x[b], is_q4)), y);
    p->y[t * p->y_stride + r] = y;
}

/* Transposes a 4 x 4 matrix of 4-byte units: in[row] holds units 0 … 3 of a row, out[unit] that unit of rows 0 … 3. */
static inline void transpose(int8_t *out, size_t stride, const int8x16_t in[4])
{
    const int32x4_t a = vreinterpretq_s32_s8(in[0]), b = vreinterpretq_s32_s8(in[1]), c = vreinterpretq_s32_s8(in[2]),
                    d = vreinterpretq_s32_s8(in[3]);
    const int64x2_t ab_even = vreinterpretq_s64_s32(vtrn1q_s32(a, b)), ab_odd = vreinterpretq_s64_s32(vtrn2q_s32(a, b));
    const int64x2_t cd_even = vreinterpretq_s64_s32(vtrn1q_s32(c, d)), cd_odd = vreinterpretq_s64_s32(vtrn2q_s32(c, d));

    vst1q_s8(out, vreinterpretq_s8_s64(vtrn1q_s64(ab_even, cd_even)));
    vst1q_s8(out + stride, vreinterpretq_s8_s64(vtrn1q_s64(ab_odd, cd_odd)));
    vst1q_s8(out + 2 * stride, vreinterpretq_s8_s64(vtrn2q_s64(ab_even, cd_even)));
    vst1q_s8(out + 3 * stride, vreinterpretq_s8_s64(vtrn2q_s64(ab_odd, cd_odd)));
}

static inline __attribute__((always_inline)) void make_strip(const sluice_product *p, size_t r, int8_t *q, float *scales, bool is_q4)
{
    const size_t block_bytes = is_q4 ? SLUICE_Q4_0_BYTES : SLUICE_Q8_0_BYTES;
    const uint8_t *w = p->w + r * p->row_bytes;

    for (size_t b = 0; b < p->cols / SLUICE_Q_LEN; b++, w += block_bytes, q += ROWS * SLUICE_Q_LEN, scales += ROWS)
        for (size_t half = 0; half < 2; half++) {
            int8x16_t low[4], high[4];

            for (size_t i = 0; i < 4; i++) {
                const block rows = load_block(w + (4 * half + i) * p->row_bytes, is_q4);

                low[i] = rows.low;
                high[i] = rows.high;
            }
            transpose(q + 16 * half, 32, low);
            transpose(q + 16 * half + 128, 32, high);
            vst1q_f32(scales + 4 * half, load_scales(w + 4 * half * p->row_bytes, p->row_bytes));
        }
}

/* Eight rows of a strip by n tokens, n a small constant. */
static inline __attribute__((always_inline)) void strip_tile(const sluice_product *p, size_t r, size_t t, const int8_t *q, const float *scales,
                                                             size_t n)
{
    const sluice_q8 *x[TILE];
    float32x4_t y[TILE][2];

    for (size_t j = 0; j < n; j++) {
        x[j] = (const sluice_q8 *)(const void *)((const uint8_t *)p->x + (t + j) * p->x_stride);
        y[j][0] = y[j][1] = vdupq_n_f32(0);
    }
    for (size_t b = 0; b < p->cols / SLUICE_Q_LEN; b++, q += ROWS * SLUICE_Q_LEN, scales += ROWS) {
        int32x4_t acc[TILE][2];

        for (size_t j = 0; j < n; j++)
            acc[j][0] = acc[j][1] = vdupq_n_s32(0);
        for (size_t half = 0; half < 2; half++) {
            const int8_t *unit = q + 128 * half;

            for (size_t j = 0; j < n; j++) {
                const int8x16_t a = vld1q_s8(x[j][b].q + 16 * half);

                for (size_t i = 0; i < 2; i++) {
                    acc[j][i] = vdotq_laneq_s32(acc[j][i], vld1q_s8(unit + 16 * i), a, 0);
                    acc[j][i] = vdotq_laneq_s32(acc[j][i], vld1q_s8(unit + 32 + 16 * i), a, 1);
                    acc[j][i] = vdotq_laneq_s32(acc[j][i], vld1q_s8(unit + 64 + 16 * i), a, 2);
                    acc[j][i] = vdotq_laneq_s32(acc[j][i], vld1q_s8(unit + 96 + 16 * i), a, 3);
                }
            }
        }
        for (size_t j = 0; j < n; j++)
            for (size_t i = 0; i < 2; i++)
                y[j][i] = vfmaq_f32(y[j][i], vmulq_n_f32(vld1q_f32(scales + 4 * i), x[j][b].scale), vcvtq_f32_s32(acc[j][i]));
    }
    for (size_t j = 0; j < n; j++)
        for (size_t i = 0; i < 2; i++)
            vst1q_f32(p->y + (t + j) * p->y_stride + r + 4 * i, y[j][i]);
}

static inline __attribute__((always_inline)) void product_blocks(const sluice_product *p, bool is_q4)
{
    float *scales = p->strip;
    int8_t *q = (int8_t *)p->strip + ROWS * sizeof(float) * (p->cols / SLUICE_Q_LEN);
    size_t r = 0;

    for (; r + ROWS <= p->rows && p->n_tokens >= STRIP_FROM; r += ROWS) {
        size_t t = 0;

        make_strip(p, r, q, scales, is_q4);
        for (; t + TILE <= p->n_tokens; t += TILE)
            strip_tile(p, r, t, q, scales, TILE);
        for (; t < p->n_tokens; t++)
            strip_tile(p, r, t, q, scales, 1);
    }
    for (; r + 4 <= p->rows; r += 4)
        for (size_t t = 0; t < p->n_tokens; t++)
            rows_token(p, r, t, is_q4);
    for (; r < p->rows; r++)
        for (size_t t = 0; t < p->n_tokens; t++)
            row_token(p, r, t, is_q4);
}

static void product_q8_0(const sluice_product *p)
{
    product_blocks(p, false);
}

static void product_q4_0(const sluice_product *p)
{
    product_blocks(p, true);
}

/* ---- activations */

static void quantize(sluice_q8 *out, const float *x, size_t n)
{
    for (size_t b = 0; b < n / SLUICE_Q_LEN; b++, x += SLUICE_Q_LEN, out++) {
        uint32x4_t largest = vdupq_n_u32(0);
        int32x4_t sum = vdupq_n_s32(0);
        float32x4_t v[8];
        uint32_t bits;
        float top, inverse;

        for (size_t i = 0; i < 8; i++) {
            v[i] = vld1q_f32(x + 4 * i);
            largest = vmaxq_u32(largest, vandq_u32(vreinterpretq_u32_f32(v[i]), vdupq_n_u32(0x7fffffffu)));
        }
        bits = vmaxvq_u32(largest);
        memcpy(&top, &bits, sizeof top);
        if (bits >= 0x7f800000u || top / 127.0f < 1e-30f) {
            memset(out, 0, sizeof *out);
            out->scale = bits >= 0x7f800000u ? NAN : 0;
            continue;
        }
        out->scale = top / 127.0f;
        inverse = 127.0f / top;
        for (size_t i = 0; i < 8; i += 2) {
            const int32x4_t low = vcvtnq_s32_f32(vmulq_n_f32(v[i], inverse)), high = vcvtnq_s32_f32(vmulq_n_f32(v[i + 1], inverse));

            sum = vaddq_s32(sum, vaddq_s32(low, high));
            vst1_s8(out->q + 4 * i, vmovn_s16(vcombine_s16(vmovn_s32(low), vmovn_s32(high))));
        }
        out->sum = vaddvq_s32(sum);
    }
}

static void to_f16(uint16_t *out, const float *x, size_t n)
{
    size_t i = 0;

    for (; i + 4 <= n; i += 4)
        vst1_u16(out + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x + i))));
    for (; i < n; i++)
        out[i] = sluice_f32_to_f16(x[i]);
}

/* The n < 4 last numbers, and zeros behind. */
static inline float32x4_t load_rest(const float *x, size_t n)
{
    float rest[4] = { 0 };

    memcpy(rest, x, n * sizeof *x);
    return vld1q_f32(rest);
}

static inline void store_rest(float *x, float32x4_t v, size_t n)
{
    float rest[4];

    vst1q_f32(rest, v);
    memcpy(x, rest, n * sizeof *x);
}

static void rms_norm(float *out, const float *x, const float *w, size_t n, float eps)
{
    sums s = zero_sums();
    float scale;
    size_t i;

    for (i = 0; i < n; i += 16) {
        const sums v = load_f32x16((const uint8_t *)(x + i), n - i < 16 ? n - i : 16);

        for (size_t l = 0; l < 4; l++)
            s.v[l] = vfmaq_f32(s.v[l], v.v[l], v.v[l]);
    }
    scale = 1.0f / sqrtf(fold(s) / (float)n + eps);
    for (i = 0; i + 4 <= n; i += 4)
        vst1q_f32(out + i, vmulq_f32(vmulq_n_f32(vld1q_f32(x + i), scale), vld1q_f32(w + i)));
    for (; i < n; i++)
        out[i] = x[i] * scale * w[i];
}

static inline float32x4_t exp_clamped(float32x4_t x)
{
    const float32x4_t one = vdupq_n_f32(1.0f);
    float32x4_t t, n, r, p;

    x = vmaxq_f32(vdupq_n_f32(SLUICE_EXP_MIN), x); /* a NaN stays one */
    x = vminq_f32(vdupq_n_f32(SLUICE_EXP_MAX), x);
    t = vfmaq_f32(vdupq_n_f32(SLUICE_EXP_SHIFT), x, vdupq_n_f32(SLUICE_EXP_LOG2E));
    n = vsubq_f32(t, vdupq_n_f32(SLUICE_EXP_SHIFT));
    r = vfmaq_f32(x, n, vdupq_n_f32(-SLUICE_EXP_LN2_HI));
    r = vfmaq_f32(r, n, vdupq_n_f32(-SLUICE_EXP_LN2_LO));
    p = vfmaq_f32(vdupq_n_f32(SLUICE_EXP_C6), vdupq_n_f32(SLUICE_EXP_C7), r);
    p = vfmaq_f32(vdupq_n_f32(SLUICE_EXP_C5), p, r);
    p = vfmaq_f32(vdupq_n_f32(SLUICE_EXP_C4), p, r);
    p = vfmaq_f32(vdupq_n_f32(SLUICE_EXP_C3), p, r);
    p = vfmaq_f32(vdupq_n_f32(SLUICE_EXP_C2), p, r);
    p = vfmaq_f32(one, p, r);
    p = vfmaq_f32(one, p, r);
    return vmulq_f32(p, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vreinterpretq_s32_f32(t), vdupq_n_s32(127)), 23)));
}

static float softmax(float *x, size_t n, float scale)
{
    sums s = zero_sums();
    float largest = x[0], sum, inverse;
    float32x4_t top;
    size_t i;

    for (i = 1; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    top = vdupq_n_f32(largest);
    for (i = 0; i + 4 <= n; i += 4) {
        const float32x4_t e = exp_clamped(vmulq_n_f32(vsubq_f32(vld1q_f32(x + i), top), scale));

        vst1q_f32(x + i, e);
        s.v[i / 4 % 4] = vaddq_f32(s.v[i / 4 % 4], e);
    }
    if (i < n) {
        store_rest(x + i, exp_clamped(vmulq_n_f32(vsubq_f32(load_rest(x + i, n - i), top), scale)), n - i);
        s.v[i / 4 % 4] = vaddq_f32(s.v[i / 4 % 4], load_rest(x + i, n - i));
    }
    sum = fold(s);
    inverse = 1.0f / sum;
    for (i = 0; i < n; i++)
        x[i] *= inverse;
    return sum;
}

static inline float32x4_t silu_mul_4(float32x4_t gate, float32x4_t up)
{
    return vmulq_f32(vdivq_f32(gate, vaddq_f32(vdupq_n_f32(1.0f), exp_clamped(vnegq_f32(gate)))), up);
}

static void silu_mul(float *gate, const float *up, size_t n)
{
    size_t i = 0;

    for (; i + 4 <= n; i += 4)
        vst1q_f32(gate + i, silu_mul_4(vld1q_f32(gate + i), vld1q_f32(up + i)));
    if (i < n)
        store_rest(gate + i, silu_mul_4(load_rest(gate + i, n - i), load_rest(up + i, n - i)), n - i);
}

/* n_queries, a small constant, by sixteen numbers: their sums stay in registers while the rows go by. */
static inline __attribute__((always_inline)) void mix_tile(const sluice_mix *m, size_t q, size_t j, size_t n_queries)
{
    sums s[4];

    for (size_t l = 0; l < n_queries; l++)
        s[l] = zero_sums();
    for (size_t i = 0; i < m->n; i++) {
        const sums v = load_f16x16((const uint8_t *)(m->v + i * m->v_stride + j), 16);

        for (size_t l = 0; l < n_queries; l++)
            for (size_t k = 0; k < 4; k++)
                s[l].v[k] = vfmaq_n_f32(s[l].v[k], v.v[k], m->weights[(q + l) * m->weights_stride + i]);
    }
    for (size_t l = 0; l < n_queries; l++)
        for (size_t k = 0; k < 4; k++)
            vst1q_f32(m->out + (q + l) * m->out_stride + j + 4 * k, s[l].v[k]);
}

static void mix(const sluice_mix *m)
{
    size_t j = 0;

    for (; j + 16 <= m->dim; j += 16) {
        size_t q = 0;

        for (; q + 4 <= m->n_queries; q += 4)
            mix_tile(m, q, j, 4);
        for (; q < m->n_queries; q++)
            mix_tile(m, q, j, 1);
    }
    for (; j < m->dim; j++)
        for (size_t q = 0; q < m->n_queries; q++) {
            float sum = 0;

            for (size_t i = 0; i < m->n; i++)
                sum = fmaf(m->weights[q * m->weights_stride + i], load_f16((const uint8_t *)(m->v + i * m->v_stride + j)), sum);
            m->out[q * m->out_stride + j] = sum;
        }
}

void sluice_kernels_install_neon_dotprod(sluice_kernels *k)
{
    k->isa = "neon-dotprod";
    k->product[SLUICE_WEIGHT_F32] = product_f32;
    k->product[SLUICE_WEIGHT_F16] = product_f16;
    k->product[SLUICE_WEIGHT_Q8_0] = product_q8_0;
    k->product[SLUICE_WEIGHT_Q4_0] = product_q4_0;
    k->quantize = quantize;
    k->to_f16 = to_f16;
    k->rms_norm = rms_norm;
    k->softmax = softmax;
    k->silu_mul = silu_mul;
    k->mix = mix;
}
