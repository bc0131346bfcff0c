/* kernels_avx512vnni.c - AVX-512 with VNNI: 16 floats or 64 bytes a register, four byte products and their sum in one step.
 *
 * dpbusd multiplies unsigned by signed bytes into 32-bit lanes without saturating.  Weights are the unsigned operand, q + offset_of(type), and
 * the offset is paid with the sum of the activations.  In the integers nothing is lost, so how a sum is split does not matter.
 *
 * One to a few tokens (decode): sixteen rows as they lie in the file, lane = row at the end; the weights are taken apart once for up to four tokens,
 * and memory is asked for long before it is read.
 *
 * More tokens (prefill): a strip of 32 rows in bytes (kernels_avx512.h) that all tokens run over.  A tile is 32 rows by seven tokens: 14 integer and
 * 14 float sums, two registers of weights and one of activations, of the 32 there are; each broadcast of four activations
 * comes straight from memory and feeds two dpbusd, and fourteen chains hide their latency.  The integer sum starts at -offset * sum(activations), so that the offset
 * costs nothing.  Rows are cut into pieces of 2048 columns, and the float sums wait in y in between: the same additions in the same order.
 *
 * The matrix unit (AMX, tdpbssd) was tried on these strips and left out: with a scale for every group each 16 x 16 result must be stored, loaded, converted and
 * multiplied before the next, and those stores do not overlap with the vector work.  On a Xeon of model 207 it came to 0.9 to 1.1 times the rate of dpbusd.
 *
 * Everything that is not here is kernels_avx2.c's.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/kernels/kernels_avx512.h"

#include <math.h>

enum {
    TILE = 7,                   /* tokens of a tile */
    STRIP_FROM = 7,             /* tokens from which a strip pays */
    SLAB = 16                   /* rows that are worked on side by side without a strip */
};

_Static_assert(2 * (STRIP_COLS / SLUICE_Q_LEN) * (STRIP_Q_BYTES + 4 * STRIP_UNIT_BYTES) <= SLUICE_STRIP_BYTES, "two strips fit the scratch");

SLUICE_INLINE int32_t load_i32(const void *p)
{
    int32_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

SLUICE_INLINE uint16_t load_u16(const void *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

/* ---- a few tokens: rows as they lie in the file */

/* Up to sixteen rows of a product. */
typedef struct slab {
    const uint8_t *w;           /* sixteen rows that can be read, of which `mask` matter */
    size_t row_bytes, n_blocks;
    size_t ahead;               /* bytes from the slab to what is prefetched while it is worked on */
    const uint8_t *x;
    size_t x_stride;
    float *y;
    size_t y_stride;
    __mmask16 mask;
    bool is_first;              /* y starts at 0; otherwise the columns before are in y already */
} slab;

/* One group in sixteen rows, n tokens.  next: where this group's share of the prefetching begins. */
SLUICE_INLINE void slab_group(sluice_weight type, size_t n, __m512 y[4], const slab *s, const uint8_t *block, const scales16 *scales, const sluice_q8 *const x[4],
                              const uint8_t *next, size_t part, unsigned k)
{
    const size_t g = part * part_groups_of(type) + k, share = SLAB * block_bytes_of(type) / groups_of(type);
    __m512i q[2][4];

    prefetch_bytes(next + g * share, share);
    unpack_group(type, q, block, s->row_bytes, part, k);
    for (size_t j = 0; j < n; j++) {
        const sluice_q8 *v = x[j] + g;
        __m512i sum[2][4], products;

        for (size_t h = 0; h < 2; h++) {
            const __m512i four = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(v->q + 16 * h)));

            for (size_t i = 0; i < 4; i++)
                sum[h][i] = _mm512_dpbusd_epi32(has_halves(type) || h == 0 ? _mm512_setzero_si512() : sum[0][i], q[h][i], four);
        }
        for (size_t h = has_halves(type) ? 0 : 1; h < 2; h++) {
            const size_t number = has_halves(type) ? 2 * g + h : g;

            products = add_quads(sum[h]);
            if (offset_of(type) != 0)
                products = _mm512_sub_epi32(products, _mm512_set1_epi32(offset_of(type) * (has_halves(type) ? v->sum[h] : v->sum[0] + v->sum[1])));
            y[j] = _mm512_fmadd_ps(_mm512_mul_ps(scales->scale[number], _mm512_set1_ps(v->scale)), _mm512_cvtepi32_ps(products), y[j]);
            if (has_min(type))
                y[j] = _mm512_fmadd_ps(scales->min[number], _mm512_set1_ps(has_halves(type) ? v->scale * (float)v->sum[h] : v->scaled_sum), y[j]);
        }
    }
}

SLUICE_INLINE void slab_tokens(sluice_weight type, size_t n, const slab *s, size_t t)
{
    const size_t per_part = part_groups_of(type);
    const uint8_t *block = s->w, *next = s->w + s->ahead;
    const sluice_q8 *x[4];
    __m512 y[4];

    for (size_t j = 0; j < n; j++) {
        x[j] = (const sluice_q8 *)(const void *)(s->x + (t + j) * s->x_stride);
        y[j] = s->is_first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(s->mask, s->y + (t + j) * s->y_stride);
    }
    for (size_t b = 0; b < s->n_blocks; b++, block += block_bytes_of(type)) {
        scales16 scales;

        block_scales(type, &scales, block, s->row_bytes);
        for (size_t part = 0; part < groups_of(type) / per_part; part++) {
            slab_group(type, n, y, s, block, &scales, x, next, part, 0);
            if (per_part >= 2)
                slab_group(type, n, y, s, block, &scales, x, next, part, 1);
            if (per_part >= 4) {
                slab_group(type, n, y, s, block, &scales, x, next, part, 2);
                slab_group(type, n, y, s, block, &scales, x, next, part, 3);
            }
        }
        next += SLAB * block_bytes_of(type);
        for (size_t j = 0; j < n; j++)
            x[j] += groups_of(type);
    }
    for (size_t j = 0; j < n; j++)
        _mm512_mask_storeu_ps(s->y + (t + j) * s->y_stride, s->mask, y[j]);
}

SLUICE_INLINE void slab_all_tokens(sluice_weight type, const slab *s, size_t n_tokens)
{
    size_t t = 0;

    for (; t + 4 <= n_tokens; t += 4)
        slab_tokens(type, 4, s, t);
    if (t + 2 <= n_tokens) {
        slab_tokens(type, 2, s, t);
        t += 2;
    }
    if (t < n_tokens)
        slab_tokens(type, 1, s, t);
}

/* Fewer rows than a slab has are copied, with zeros behind, n blocks of their columns at a time. */
SLUICE_INLINE void copy_rows(const sluice_product *p, sluice_weight type, size_t b, size_t n)
{
    const size_t bytes = n * block_bytes_of(type);

    memset(p->strip, 0, SLAB * bytes);
    for (size_t r = 0; r < p->rows; r++)
        memcpy((uint8_t *)p->strip + r * bytes, p->w + r * p->row_bytes + b * block_bytes_of(type), bytes);
}

SLUICE_INLINE void product_slabs(const sluice_product *p, sluice_weight type)
{
    const bool is_few = p->rows < SLAB;
    const size_t n_blocks = p->cols / SLUICE_Q_LEN / groups_of(type), fit = SLUICE_STRIP_BYTES / SLAB / block_bytes_of(type), most = is_few ? fit : n_blocks;

    for (size_t r = 0; r < p->rows; r += SLAB) {
        const size_t at = r + SLAB <= p->rows || is_few ? r : p->rows - SLAB; /* the last slab may overlap the one before: the same results again */

        for (size_t b = 0; b < n_blocks; b += most) {
            const size_t n = n_blocks - b < most ? n_blocks - b : most;
            const slab s = {
                .w = is_few ? p->strip : p->w + at * p->row_bytes,
                .row_bytes = is_few ? n * block_bytes_of(type) : p->row_bytes,
                .n_blocks = n,
                .ahead = SLAB * p->row_bytes > PREFETCH_BYTES ? SLAB * p->row_bytes : PREFETCH_BYTES,
                .x = (const uint8_t *)p->x + b * groups_of(type) * sizeof(sluice_q8),
                .x_stride = p->x_stride,
                .y = p->y + at,
                .y_stride = p->y_stride,
                .mask = (__mmask16)(is_few ? (1u << p->rows) - 1u : 0xffffu),
                .is_first = b == 0,
            };

            if (is_few)
                copy_rows(p, type, b, n);
            slab_all_tokens(type, &s, p->n_tokens);
        }
    }
}

/* ---- many tokens: strips */

typedef struct strips {
    const uint8_t *q;           /* n_strips of them, `bytes` apart, rows one after another */
    size_t n_strips, bytes, n_groups;
    const uint8_t *x;
    size_t x_stride, n_tokens;
    float *y;
    size_t y_stride;
    bool is_first;
    int32_t offset;
    const uint8_t *next;        /* what will be read after this, to be prefetched by and by */
    size_t next_bytes;
} strips;

/* The 32 rows of strip q by n tokens from t on.  halves: 1 or 2 scales to a group. */
SLUICE_INLINE void strip_tile(const strips *s, const uint8_t *q, float *out, size_t t, size_t n, size_t halves, bool with_min)
{
    const uint8_t *x[TILE];
    __m512 y[TILE][2];

    for (size_t j = 0; j < n; j++) {
        x[j] = s->x + (t + j) * s->x_stride;
        for (size_t i = 0; i < 2; i++)
            y[j][i] = s->is_first ? _mm512_setzero_ps() : _mm512_loadu_ps(out + (t + j) * s->y_stride + 16 * i);
    }
    for (size_t g = 0; g < s->n_groups; g++) {
        const float *scales = (const float *)(const void *)(q + STRIP_Q_BYTES), *mins = scales + STRIP_ROWS * halves;

        for (size_t h = 0; h < halves; h++) {
            const uint8_t *units = q + h * (STRIP_Q_BYTES / 2);
            __m512i acc[TILE][2];

            for (size_t j = 0; j < n; j++) {
                const sluice_q8 *v = (const sluice_q8 *)(const void *)(x[j]);

                acc[j][0] = acc[j][1] = with_min ? _mm512_setzero_si512() : _mm512_set1_epi32(-s->offset * (halves == 2 ? v->sum[h] : v->sum[0] + v->sum[1]));
            }
            for (size_t u = 0; u < 8 / halves; u++) {
                const __m512i low = _mm512_load_si512(units + STRIP_UNIT_BYTES * u), high = _mm512_load_si512(units + STRIP_UNIT_BYTES * u + 64);

                for (size_t j = 0; j < n; j++) {
                    const __m512i four = _mm512_set1_epi32(load_i32(((const sluice_q8 *)(const void *)(x[j]))->q + 16 * h + 4 * u));

                    acc[j][0] = _mm512_dpbusd_epi32(acc[j][0], low, four);
                    acc[j][1] = _mm512_dpbusd_epi32(acc[j][1], high, four);
                }
            }
            for (size_t j = 0; j < n; j++) {
                const sluice_q8 *v = (const sluice_q8 *)(const void *)(x[j]);
                const __m512 by = _mm512_set1_ps(v->scale);

                for (size_t i = 0; i < 2; i++) {
                    y[j][i] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_load_ps(scales + STRIP_ROWS * h + 16 * i), by), _mm512_cvtepi32_ps(acc[j][i]), y[j][i]);
                    if (with_min)
                        y[j][i] = _mm512_fmadd_ps(_mm512_load_ps(mins + STRIP_ROWS * h + 16 * i),
                                                  _mm512_set1_ps(halves == 2 ? v->scale * (float)v->sum[h] : v->scaled_sum), y[j][i]);
                }
            }
        }
        q += STRIP_Q_BYTES + STRIP_UNIT_BYTES * halves * (with_min ? 2 : 1);
        for (size_t j = 0; j < n; j++)
            x[j] += sizeof(sluice_q8);
    }
    for (size_t j = 0; j < n; j++)
        for (size_t i = 0; i < 2; i++)
            _mm512_storeu_ps(out + (t + j) * s->y_stride + 16 * i, y[j][i]);
}

SLUICE_INLINE void strip_tokens(const strips *s, size_t halves, bool with_min)
{
    const size_t ask = s->next_bytes / (s->n_tokens / TILE + 1) + 64;
    size_t t = 0, asked = 0;

    for (; t + TILE <= s->n_tokens; t += TILE) {
        for (size_t i = 0; i < s->n_strips; i++)
            strip_tile(s, s->q + i * s->bytes, s->y + i * STRIP_ROWS, t, TILE, halves, with_min);
        if (asked < s->next_bytes)
            prefetch_bytes(s->next + asked, ask);
        asked += ask;
    }
    for (size_t i = 0; i < s->n_strips; i++) {
        const uint8_t *q = s->q + i * s->bytes;
        float *y = s->y + i * STRIP_ROWS;
        size_t rest = t;

        if (rest + 4 <= s->n_tokens) {
            strip_tile(s, q, y, rest, 4, halves, with_min);
            rest += 4;
        }
        if (rest + 2 <= s->n_tokens) {
            strip_tile(s, q, y, rest, 2, halves, with_min);
            rest += 2;
        }
        if (rest < s->n_tokens)
            strip_tile(s, q, y, rest, 1, halves, with_min);
    }
}

static void strips_plain(const strips *s)
{
    strip_tokens(s, 1, false);
}

static void strips_min(const strips *s)
{
    strip_tokens(s, 1, true);
}

static void strips_halves(const strips *s)
{
    strip_tokens(s, 2, false);
}

static void strips_halves_min(const strips *s)
{
    strip_tokens(s, 2, true);
}

SLUICE_INLINE void product_strips(const sluice_product *p, sluice_weight type)
{
    const size_t block_cols = groups_of(type) * SLUICE_Q_LEN, n_blocks = p->cols / block_cols, most = STRIP_COLS / block_cols;
    size_t n_rows;

    for (size_t r = 0; r < p->rows; r += n_rows) {
        const size_t n_strips = r + 2 * STRIP_ROWS <= p->rows ? 2 : 1;
        const size_t at = r + n_strips * STRIP_ROWS <= p->rows ? r : p->rows - STRIP_ROWS; /* the last strip may overlap the one before */

        n_rows = n_strips * STRIP_ROWS;
        for (size_t b = 0; b < n_blocks; b += most) {
            const size_t n = n_blocks - b < most ? n_blocks - b : most;
            strips s = {
                .q = p->strip,
                .n_strips = n_strips,
                .bytes = n * groups_of(type) * strip_group_bytes(type),
                .n_groups = n * groups_of(type),
                .x = (const uint8_t *)p->x + b * groups_of(type) * sizeof(sluice_q8),
                .x_stride = p->x_stride,
                .n_tokens = p->n_tokens,
                .y = p->y + at,
                .y_stride = p->y_stride,
                .is_first = b == 0,
                .offset = offset_of(type),
            };

            for (size_t i = 0; i < 2 * n_strips; i++)
                make_half_strip(type, (uint8_t *)p->strip + i / 2 * s.bytes + 64 * (i % 2), p->w + (at + 16 * i) * p->row_bytes + b * block_bytes_of(type),
                                p->row_bytes, n);
            if (b + n == n_blocks) { /* the rows behind these, also where they are the next call's */
                s.next = p->w + (r + n_rows) * p->row_bytes;
                s.next_bytes = n_rows * p->row_bytes;
            }
            if (has_halves(type) && has_min(type))
                strips_halves_min(&s);
            else if (has_halves(type))
                strips_halves(&s);
            else if (has_min(type))
                strips_min(&s);
            else
                strips_plain(&s);
        }
    }
}

SLUICE_INLINE void product_quantized(const sluice_product *p, sluice_weight type)
{
    if (p->n_tokens >= STRIP_FROM && p->rows >= STRIP_ROWS)
        product_strips(p, type);
    else
        product_slabs(p, type);
}

#define PRODUCT(name, type) \
    static void name(const sluice_product *p) \
    { \
        product_quantized(p, type); \
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

/* ---- float weights: the sixteen running sums are one register */

/* Sixteen numbers of a row, or the last n < 16 of them with zeros behind. */
static inline __m512 load_f32x16(const void *p, size_t n)
{
    return n >= 16 ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1u), p);
}

static inline __m512 load_f16x16(const void *p, size_t n)
{
    return _mm512_cvtph_ps(n >= 16 ? _mm256_loadu_si256(p) : _mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1u), p));
}

static inline __m512 load_bf16x16(const void *p, size_t n)
{
    const __m256i h = n >= 16 ? _mm256_loadu_si256(p) : _mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1u), p);

    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

SLUICE_INLINE __m512 load_x16(sluice_weight type, const void *p, size_t n)
{
    return type == SLUICE_WEIGHT_F32 ? load_f32x16(p, n) : type == SLUICE_WEIGHT_F16 ? load_f16x16(p, n) : load_bf16x16(p, n);
}

static inline float fold(__m512 v)
{
    const __m256 by8 = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 by4 = _mm_add_ps(_mm256_castps256_ps128(by8), _mm256_extractf128_ps(by8, 1));
    const __m128 by2 = _mm_add_ps(by4, _mm_movehl_ps(by4, by4));

    return _mm_cvtss_f32(_mm_add_ss(by2, _mm_movehdup_ps(by2)));
}

/* The same for v[4 * row + token] at once, in the same order of additions: 128-bit lane t of the result holds token t's four rows. */
static inline __m512 fold_sixteen(const __m512 v[16])
{
    __m512 by8[8], by4[4], by2[2];

    for (size_t i = 0; i < 8; i++)
        by8[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x44), _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xee));
    for (size_t i = 0; i < 4; i++)
        by4[i] = _mm512_add_ps(_mm512_shuffle_f32x4(by8[2 * i], by8[2 * i + 1], 0x88), _mm512_shuffle_f32x4(by8[2 * i], by8[2 * i + 1], 0xdd));
    for (size_t i = 0; i < 2; i++)
        by2[i] = _mm512_add_ps(_mm512_shuffle_ps(by4[2 * i], by4[2 * i + 1], 0x44), _mm512_shuffle_ps(by4[2 * i], by4[2 * i + 1], 0xee));
    return _mm512_add_ps(_mm512_shuffle_ps(by2[0], by2[1], 0x88), _mm512_shuffle_ps(by2[0], by2[1], 0xdd));
}

/* n_rows rows by n_tokens tokens at once, both constants of at most four. */
SLUICE_INLINE void float_tile(const sluice_product *p, size_t r, size_t t, size_t n_rows, size_t n_tokens, sluice_weight type)
{
    const size_t width = type == SLUICE_WEIGHT_F32 ? 4 : 2;
    __m512 acc[16];

    for (size_t i = 0; i < 16; i++)
        acc[i] = _mm512_setzero_ps();
    for (size_t k = 0; k < p->cols; k += 16) {
        const size_t n = p->cols - k < 16 ? p->cols - k : 16;
        __m512 x[4];

        for (size_t j = 0; j < n_tokens; j++)
            x[j] = load_f32x16((const uint8_t *)p->x + (t + j) * p->x_stride + k * sizeof(float), n);
        for (size_t i = 0; i < n_rows; i++) {
            const __m512 w = load_x16(type, p->w + (r + i) * p->row_bytes + k * width, n);

            for (size_t j = 0; j < n_tokens; j++)
                acc[4 * i + j] = _mm512_fmadd_ps(w, x[j], acc[4 * i + j]);
        }
    }
    if (n_rows == 4 && n_tokens >= 2) {
        const __m512 y = fold_sixteen(acc);
        const __m128 lane[4] = { _mm512_castps512_ps128(y), _mm512_extractf32x4_ps(y, 1), _mm512_extractf32x4_ps(y, 2),
                                 _mm512_extractf32x4_ps(y, 3) };

        for (size_t j = 0; j < n_tokens; j++)
            _mm_storeu_ps(p->y + (t + j) * p->y_stride + r, lane[j]);
        return;
    }
    for (size_t i = 0; i < n_rows; i++)
        for (size_t j = 0; j < n_tokens; j++)
            p->y[(t + j) * p->y_stride + r + i] = fold(acc[4 * i + j]);
}

SLUICE_INLINE void product_float(const sluice_product *p, sluice_weight type)
{
    size_t r = 0;

    for (; r + 4 <= p->rows; r += 4) {
        size_t t = 0;

        for (; t + 4 <= p->n_tokens; t += 4)
            float_tile(p, r, t, 4, 4, type);
        switch (p->n_tokens - t) {
        case 3: float_tile(p, r, t, 4, 3, type); break;
        case 2: float_tile(p, r, t, 4, 2, type); break;
        case 1: float_tile(p, r, t, 4, 1, type); break;
        default: break;
        }
    }
    for (; r < p->rows; r++)
        for (size_t t = 0; t < p->n_tokens; t++)
            float_tile(p, r, t, 1, 1, type);
}

static void product_f32(const sluice_product *p)
{
    product_float(p, SLUICE_WEIGHT_F32);
}

static void product_f16(const sluice_product *p)
{
    product_float(p, SLUICE_WEIGHT_F16);
}

static void product_bf16(const sluice_product *p)
{
    product_float(p, SLUICE_WEIGHT_BF16);
}

/* ---- attention: scores, lane = position */

/* n_queries queries by n_blocks blocks of sixteen positions, both constants of at most four. */
SLUICE_INLINE void scores_f16_tile(const sluice_scores *s, size_t q, size_t block, size_t n_queries, size_t n_blocks)
{
    const uint16_t *keys = (const uint16_t *)s->keys + (s->first / SLUICE_KEY_BLOCK + block) * s->dim * SLUICE_KEY_BLOCK;
    const float *queries = (const float *)s->queries + q * s->dim;
    __m512 sum[4][4];

    for (size_t l = 0; l < n_queries; l++)
        for (size_t i = 0; i < n_blocks; i++)
            sum[l][i] = _mm512_setzero_ps();
    for (size_t d = 0; d < s->dim; d++) {
        __m512 key[4];

        for (size_t i = 0; i < n_blocks; i++)
            key[i] = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(keys + (i * s->dim + d) * SLUICE_KEY_BLOCK)));
        for (size_t l = 0; l < n_queries; l++)
            for (size_t i = 0; i < n_blocks; i++)
                sum[l][i] = _mm512_fmadd_ps(_mm512_set1_ps(queries[l * s->dim + d]), key[i], sum[l][i]);
    }
    for (size_t l = 0; l < n_queries; l++)
        for (size_t i = 0; i < n_blocks; i++)
            _mm512_store_ps(s->out + (q + l) * s->out_stride + (block + i) * SLUICE_KEY_BLOCK, sum[l][i]);
}

/* The same for 8-bit keys, n_blocks at most two: the unsigned operand is the key plus 128. */
SLUICE_INLINE void scores_q8_tile(const sluice_scores *s, size_t q, size_t block, size_t n_queries, size_t n_blocks)
{
    enum { GROUP_BYTES = SLUICE_KEY_BLOCK * (4 + SLUICE_Q_LEN) };
    const size_t n_groups = s->dim / SLUICE_Q_LEN;
    const uint8_t *keys = (const uint8_t *)s->keys + (s->first / SLUICE_KEY_BLOCK + block) * n_groups * GROUP_BYTES;
    const sluice_q8 *queries = (const sluice_q8 *)s->queries + q * n_groups;
    __m512 sum[4][2];

    for (size_t l = 0; l < n_queries; l++)
        for (size_t i = 0; i < n_blocks; i++)
            sum[l][i] = _mm512_setzero_ps();
    for (size_t g = 0; g < n_groups; g++, keys += GROUP_BYTES) {
        __m512i products[4][2];

        for (size_t l = 0; l < n_queries; l++)
            for (size_t i = 0; i < n_blocks; i++)
                products[l][i] = _mm512_set1_epi32(-128 * (queries[l * n_groups + g].sum[0] + queries[l * n_groups + g].sum[1]));
        for (size_t u = 0; u < SLUICE_Q_LEN / 4; u++)
            for (size_t i = 0; i < n_blocks; i++) {
                const __m512i key = _mm512_xor_si512(_mm512_loadu_si512(keys + i * n_groups * GROUP_BYTES + 64 * (u + 1)), _mm512_set1_epi8((char)0x80));

                for (size_t l = 0; l < n_queries; l++)
                    products[l][i] = _mm512_dpbusd_epi32(products[l][i], key, _mm512_set1_epi32(load_i32(queries[l * n_groups + g].q + 4 * u)));
            }
        for (size_t i = 0; i < n_blocks; i++) {
            const __m512 scale = _mm512_loadu_ps(keys + i * n_groups * GROUP_BYTES);

            for (size_t l = 0; l < n_queries; l++)
                sum[l][i] = _mm512_fmadd_ps(_mm512_mul_ps(scale, _mm512_set1_ps(queries[l * n_groups + g].scale)), _mm512_cvtepi32_ps(products[l][i]), sum[l][i]);
        }
    }
    for (size_t l = 0; l < n_queries; l++)
        for (size_t i = 0; i < n_blocks; i++)
            _mm512_store_ps(s->out + (q + l) * s->out_stride + (block + i) * SLUICE_KEY_BLOCK, sum[l][i]);
}

SLUICE_INLINE void scores_tile(bool is_q8, const sluice_scores *s, size_t q, size_t block, size_t n_queries, size_t n_blocks)
{
    if (is_q8)
        scores_q8_tile(s, q, block, n_queries, n_blocks);
    else
        scores_f16_tile(s, q, block, n_queries, n_blocks);
}

SLUICE_INLINE void scores_queries(bool is_q8, const sluice_scores *s, size_t block, size_t n_blocks)
{
    size_t q = 0;

    for (; q + 4 <= s->n_queries; q += 4)
        scores_tile(is_q8, s, q, block, 4, n_blocks);
    for (; q + 2 <= s->n_queries; q += 2)
        scores_tile(is_q8, s, q, block, 2, n_blocks);
    if (q < s->n_queries)
        scores_tile(is_q8, s, q, block, 1, n_blocks);
}

/* Blocks outside, queries inside: a few blocks of keys stay in the first cache while all queries pass. */
static void scores_f16(const sluice_scores *s)
{
    size_t block = 0;

    for (; block + 4 <= s->n / SLUICE_KEY_BLOCK; block += 4)
        scores_queries(false, s, block, 4);
    for (; block < s->n / SLUICE_KEY_BLOCK; block++)
        scores_queries(false, s, block, 1);
}

static void scores_q8(const sluice_scores *s)
{
    size_t block = 0;

    for (; block + 2 <= s->n / SLUICE_KEY_BLOCK; block += 2)
        scores_queries(true, s, block, 2);
    if (block < s->n / SLUICE_KEY_BLOCK)
        scores_queries(true, s, block, 1);
}

/* ---- attention: sums of values, lane = dimension */

static inline __mmask16 lanes(size_t n)
{
    return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1u);
}

/* n_queries and n_parts (of sixteen numbers) are constants of at most four: their sums stay in registers while the positions go by.
 * 8-bit values come in blocks of two parts. */
SLUICE_INLINE void mix_tile(bool is_q8, const sluice_mix *m, size_t q, size_t j, size_t n_queries, size_t n_parts)
{
    enum { BLOCK_BYTES = 34 };
    const uint8_t *row = (const uint8_t *)m->v + (is_q8 ? j / SLUICE_Q_LEN * BLOCK_BYTES : 2 * j);
    const size_t row_bytes = is_q8 ? m->v_stride : 2 * m->v_stride, left = m->dim - j;
    const float *weights = m->weights + q * m->weights_stride;
    __m512 sum[4][4];

    for (size_t l = 0; l < n_queries; l++)
        for (size_t k = 0; k < n_parts; k++)
            sum[l][k] = _mm512_setzero_ps();
    for (size_t i = 0; i < m->n; i++, row += row_bytes) {
        __m512 v[4], by[4];

        for (size_t k = 0; k < n_parts; k++)
            v[k] = is_q8 ? _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(row + k / 2 * BLOCK_BYTES + 2 + k % 2 * 16))))
                         : load_f16x16(row + 32 * k, n_parts == 1 ? left : 16);
        for (size_t l = 0; l < n_queries; l++) {
            const float weight = weights[l * m->weights_stride + i];

            for (size_t k = 0; k < n_parts; k++) {
                if (!is_q8)
                    by[k] = _mm512_set1_ps(weight);
                else if (k % 2 == 0)
                    by[k] = _mm512_mul_ps(_mm512_set1_ps(weight), _mm512_cvtph_ps(_mm256_set1_epi16((short)load_u16(row + k / 2 * BLOCK_BYTES))));
                else
                    by[k] = by[k - 1];
                sum[l][k] = _mm512_fmadd_ps(by[k], v[k], sum[l][k]);
            }
        }
    }
    for (size_t l = 0; l < n_queries; l++)
        for (size_t k = 0; k < n_parts; k++)
            _mm512_mask_storeu_ps(m->out + (q + l) * m->out_stride + j + 16 * k, lanes(n_parts == 1 ? left : 16), sum[l][k]);
}

SLUICE_INLINE void mix_parts(bool is_q8, const sluice_mix *m, size_t j, size_t n_parts)
{
    size_t q = 0;

    for (; q + 4 <= m->n_queries; q += 4)
        mix_tile(is_q8, m, q, j, 4, n_parts);
    for (; q < m->n_queries; q++)
        mix_tile(is_q8, m, q, j, 1, n_parts);
}

static void mix_f16(const sluice_mix *m)
{
    size_t j = 0;

    for (; j + 64 <= m->dim; j += 64)
        mix_parts(false, m, j, 4);
    for (; j < m->dim; j += 16)
        mix_parts(false, m, j, 1);
}

static void mix_q8(const sluice_mix *m)
{
    size_t j = 0;

    for (; j + 64 <= m->dim; j += 64)
        mix_parts(true, m, j, 4);
    if (j < m->dim)
        mix_parts(true, m, j, 2);
}

/* ---- activations */

static void quantize(sluice_q8 *out, const float *x, size_t n)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);

    for (size_t b = 0; b < n / SLUICE_Q_LEN; b++, x += SLUICE_Q_LEN, out++) {
        const __m512 low = _mm512_loadu_ps(x), high = _mm512_loadu_ps(x + 16);
        const uint32_t bits = _mm512_reduce_max_epu32(_mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(low), magnitude),
                                                                       _mm512_and_si512(_mm512_castps_si512(high), magnitude)));
        __m512i a, c;
        float top;

        memcpy(&top, &bits, sizeof top);
        if (bits >= 0x7f800000u || top / 127.0f < 1e-30f) {
            memset(out, 0, sizeof *out);
            out->scale = out->scaled_sum = bits >= 0x7f800000u ? NAN : 0;
            continue;
        }
        a = _mm512_cvtps_epi32(_mm512_mul_ps(low, _mm512_set1_ps(127.0f / top))); /* to nearest, ties to even */
        c = _mm512_cvtps_epi32(_mm512_mul_ps(high, _mm512_set1_ps(127.0f / top)));
        out->scale = top / 127.0f;
        out->sum[0] = _mm512_reduce_add_epi32(a);
        out->sum[1] = _mm512_reduce_add_epi32(c);
        out->scaled_sum = out->scale * (float)(out->sum[0] + out->sum[1]);
        _mm_storeu_si128((__m128i *)(void *)out->q, _mm512_cvtepi32_epi8(a));
        _mm_storeu_si128((__m128i *)(void *)(out->q + 16), _mm512_cvtepi32_epi8(c));
    }
}

static inline __m512 exp_clamped(__m512 x)
{
    __m512 t, n, r, p;

    x = _mm512_max_ps(_mm512_set1_ps(SLUICE_EXP_MIN), x); /* the second operand is the result where one is a NaN */
    x = _mm512_min_ps(_mm512_set1_ps(SLUICE_EXP_MAX), x);
    t = _mm512_fmadd_ps(x, _mm512_set1_ps(SLUICE_EXP_LOG2E), _mm512_set1_ps(SLUICE_EXP_SHIFT));
    n = _mm512_sub_ps(t, _mm512_set1_ps(SLUICE_EXP_SHIFT));
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-SLUICE_EXP_LN2_HI), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-SLUICE_EXP_LN2_LO), r);
    p = _mm512_fmadd_ps(_mm512_set1_ps(SLUICE_EXP_C7), r, _mm512_set1_ps(SLUICE_EXP_C6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(SLUICE_EXP_C5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(SLUICE_EXP_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(SLUICE_EXP_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(SLUICE_EXP_C2));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_mul_ps(p, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_castps_si512(t), _mm512_set1_epi32(127)), 23)));
}

static inline __m512 tanh_of(__m512 x)
{
    const __m512 e = exp_clamped(_mm512_mul_ps(_mm512_set1_ps(2.0f), x));

    return _mm512_sub_ps(_mm512_set1_ps(1.0f), _mm512_div_ps(_mm512_set1_ps(2.0f), _mm512_add_ps(e, _mm512_set1_ps(1.0f))));
}

static float softmax(float *x, size_t n, float scale)
{
    __m512 top = _mm512_set1_ps(x[0]), sum = _mm512_setzero_ps(), inverse;
    float total;

    for (size_t i = 0; i < n; i += 16)
        top = _mm512_mask_max_ps(top, lanes(n - i), _mm512_maskz_loadu_ps(lanes(n - i), x + i), top);
    top = _mm512_set1_ps(_mm512_reduce_max_ps(top));
    for (size_t i = 0; i < n; i += 16) {
        const __m512 v = _mm512_maskz_loadu_ps(lanes(n - i), x + i);
        const __m512 e = _mm512_maskz_mov_ps(lanes(n - i), exp_clamped(_mm512_mul_ps(_mm512_sub_ps(v, top), _mm512_set1_ps(scale))));

        _mm512_mask_storeu_ps(x + i, lanes(n - i), e);
        sum = _mm512_add_ps(sum, e);
    }
    total = fold(sum);
    inverse = _mm512_set1_ps(1.0f / total);
    for (size_t i = 0; i < n; i += 16)
        _mm512_mask_storeu_ps(x + i, lanes(n - i), _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes(n - i), x + i), inverse));
    return total;
}

static void soft_cap(float *x, size_t n, float scale, float cap)
{
    const __m512 by = _mm512_set1_ps(scale / cap), to = _mm512_set1_ps(cap);

    for (size_t i = 0; i < n; i += 16)
        _mm512_mask_storeu_ps(x + i, lanes(n - i), _mm512_mul_ps(to, tanh_of(_mm512_mul_ps(_mm512_maskz_loadu_ps(lanes(n - i), x + i), by))));
}

static void silu_mul(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 k = lanes(n - i);
        const __m512 x = _mm512_maskz_loadu_ps(k, gate + i), e = exp_clamped(_mm512_xor_ps(x, _mm512_set1_ps(-0.0f)));

        _mm512_mask_storeu_ps(gate + i, k, _mm512_mul_ps(_mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), e)), _mm512_maskz_loadu_ps(k, up + i)));
    }
}

static void gelu_mul(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 k = lanes(n - i);
        const __m512 x = _mm512_maskz_loadu_ps(k, gate + i), square = _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(0.044715f), x), x);
        const __m512 inner = _mm512_mul_ps(_mm512_set1_ps(0.797884561f), _mm512_fmadd_ps(square, x, x));
        __m512 y = _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(0.5f), x), _mm512_add_ps(_mm512_set1_ps(1.0f), tanh_of(inner)));

        if (up != NULL)
            y = _mm512_mul_ps(y, _mm512_maskz_loadu_ps(k, up + i));
        _mm512_mask_storeu_ps(gate + i, k, y);
    }
}

static void rms_norm(float *out, const float *x, const float *w, size_t n, float eps)
{
    __m512 sum = _mm512_setzero_ps(), by;

    for (size_t i = 0; i < n; i += 16) {
        const __m512 v = _mm512_maskz_loadu_ps(lanes(n - i), x + i);

        sum = _mm512_fmadd_ps(v, v, sum);
    }
    by = _mm512_set1_ps(1.0f / sqrtf(fold(sum) / (float)n + eps));
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 k = lanes(n - i);

        _mm512_mask_storeu_ps(out + i, k, _mm512_mul_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(k, x + i), by), _mm512_maskz_loadu_ps(k, w + i)));
    }
}

void sluice_kernels_install_avx512vnni(sluice_kernels *k)
{
    k->isa = "avx512vnni";
    k->product[SLUICE_WEIGHT_F32] = product_f32;
    k->product[SLUICE_WEIGHT_F16] = product_f16;
    k->product[SLUICE_WEIGHT_BF16] = product_bf16;
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
    k->quantize = quantize;
    k->rms_norm = rms_norm;
    k->softmax = softmax;
    k->soft_cap = soft_cap;
    k->silu_mul = silu_mul;
    k->gelu_mul = gelu_mul;
    k->scores_f16 = scores_f16;
    k->scores_q8 = scores_q8;
    k->mix_f16 = mix_f16;
    k->mix_q8 = mix_q8;
}
