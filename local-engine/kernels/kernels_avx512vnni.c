/* kernels_avx512vnni.c - products with AVX-512 and VNNI: 16 floats or 64 bytes a register, four byte products and their sum in one step.
 *
 * dpbusd multiplies unsigned by signed bytes into 32-bit lanes without saturating.  Weights are the unsigned operand: Q8_0 with 128 added, Q4_0 as its
 * nibbles are; the integer sum of a block starts at -offset * sum(activations), so that the offset costs nothing.
 *
 * A strip is 32 rows, two registers of sixteen, interleaved in units of four bytes as in kernels_avx2.c.  A tile is 32 rows by six
 * tokens: 12 integer and 12 float sums, two registers of weights and one of activations, of the 32 there are; each broadcast of four activations
 * feeds two dpbusd, and the twelve chains hide its latency.
 *
 * Everything that is not here is kernels_avx2.c's.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/kernels/kernels_x86.h"

#include <math.h>

enum { ROWS = 32, TILE = 6, STRIP_FROM = 6 }; /* rows of a strip; tokens of a tile; tokens from which a strip pays */

static inline int32_t offset_of(bool is_q4)
{
    return is_q4 ? 8 : 128;
}

static inline __m256i load_unsigned(const uint8_t *block, bool is_q4)
{
    return is_q4 ? unpack_q4(block + 2) : _mm256_xor_si256(load_256(block + 2), _mm256_set1_epi8((char)0x80));
}

static inline const sluice_q8 *token_blocks(const sluice_product *p, size_t t)
{
    return (const sluice_q8 *)(const void *)((const uint8_t *)p->x + t * p->x_stride);
}

/* ---- a few tokens: rows as they lie in the file */

/* Sums of a block in eight rows, lane = row; see kernels_avx2.c. */
static inline __m256i eight_sums_q8(const uint8_t *w, size_t row_bytes, const sluice_q8 *x)
{
    __m256i s[8];

    for (size_t i = 0; i < 8; i++)
        s[i] = _mm256_dpbusd_epi32(_mm256_setzero_si256(), load_unsigned(w + i * row_bytes, false), load_256(x->q));
    return fold_eight(s);
}

static inline __m256i eight_sums_q4(const uint8_t *w, size_t row_bytes, const sluice_q8 *x)
{
    const __m256i low = broadcast_128(x->q), high = broadcast_128(x->q + 16), mask = _mm256_set1_epi8(15);
    __m256i s[4];

    for (size_t i = 0; i < 4; i++) {
        const __m256i q = load_two(w + i * row_bytes + 2, w + (i + 4) * row_bytes + 2);

        s[i] = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_and_si256(q, mask), low);
        s[i] = _mm256_dpbusd_epi32(s[i], _mm256_and_si256(_mm256_srli_epi16(q, 4), mask), high);
    }
    return _mm256_hadd_epi32(_mm256_hadd_epi32(s[0], s[1]), _mm256_hadd_epi32(s[2], s[3]));
}

/* Eight rows, one token. */
static inline __attribute__((always_inline)) void rows_token(const sluice_product *p, size_t r, size_t t, bool is_q4)
{
    const size_t block_bytes = is_q4 ? SLUICE_Q4_0_BYTES : SLUICE_Q8_0_BYTES;
    const sluice_q8 *x = token_blocks(p, t);
    const uint8_t *w = p->w + r * p->row_bytes;
    __m256 y = _mm256_setzero_ps();

    for (size_t b = 0; b < p->cols / SLUICE_Q_LEN; b++, w += block_bytes) {
        __m256i sum = is_q4 ? eight_sums_q4(w, p->row_bytes, &x[b]) : eight_sums_q8(w, p->row_bytes, &x[b]);

        prefetch_ahead(p->w + r * p->row_bytes, p->row_bytes, b, block_bytes);
        sum = _mm256_sub_epi32(sum, _mm256_set1_epi32(offset_of(is_q4) * x[b].sum));
        y = _mm256_fmadd_ps(_mm256_mul_ps(load_scales(w, p->row_bytes), _mm256_set1_ps(x[b].scale)), _mm256_cvtepi32_ps(sum), y);
    }
    _mm256_storeu_ps(p->y + t * p->y_stride + r, y);
}

static inline __attribute__((always_inline)) void row_token(const sluice_product *p, size_t r, size_t t, bool is_q4)
{
    const size_t block_bytes = is_q4 ? SLUICE_Q4_0_BYTES : SLUICE_Q8_0_BYTES;
    const sluice_q8 *x = token_blocks(p, t);
    const uint8_t *w = p->w + r * p->row_bytes;
    float y = 0;

    for (size_t b = 0; b < p->cols / SLUICE_Q_LEN; b++, w += block_bytes) {
        const __m256i s = _mm256_dpbusd_epi32(_mm256_setzero_si256(), load_unsigned(w, is_q4), load_256(x[b].q));

        y = fmaf(load_f16(w) * x[b].scale, (float)(add_lanes(s) - offset_of(is_q4) * x[b].sum), y);
    }
    p->y[t * p->y_stride + r] = y;
}

/* ---- many tokens: strips */

static inline __attribute__((always_inline)) void make_strip(const sluice_product *p, size_t r, uint8_t *q, float *scales, bool is_q4)
{
    const size_t block_bytes = is_q4 ? SLUICE_Q4_0_BYTES : SLUICE_Q8_0_BYTES;

    for (size_t b = 0; b < p->cols / SLUICE_Q_LEN; b++, q += ROWS * SLUICE_Q_LEN, scales += ROWS)
        for (size_t part = 0; part < ROWS / 8; part++) {
            const uint8_t *w = p->w + (r + 8 * part) * p->row_bytes + b * block_bytes;
            __m256i in[8], out[8];

            for (size_t i = 0; i < 8; i++)
                in[i] = load_unsigned(w + i * p->row_bytes, is_q4);
            transpose(out, in);
            for (size_t i = 0; i < 8; i++)
                _mm256_store_si256((__m256i *)(void *)(q + 128 * i + 32 * part), out[i]);
            _mm256_store_ps(scales + 8 * part, load_scales(w, p->row_bytes));
        }
}

/* 32 rows of a strip by n tokens, n a small constant. */
static inline __attribute__((always_inline)) void strip_tile(const sluice_product *p, size_t r, size_t t, const uint8_t *q, const float *scales,
                                                             size_t n, bool is_q4)
{
    const sluice_q8 *x[TILE];
    __m512 y[TILE][2];

    for (size_t j = 0; j < n; j++) {
        x[j] = token_blocks(p, t + j);
        y[j][0] = y[j][1] = _mm512_setzero_ps();
    }
    for (size_t b = 0; b < p->cols / SLUICE_Q_LEN; b++, q += ROWS * SLUICE_Q_LEN, scales += ROWS) {
        __m512i acc[TILE][2];

        for (size_t j = 0; j < n; j++)
            acc[j][0] = acc[j][1] = _mm512_set1_epi32(-offset_of(is_q4) * x[j][b].sum);
        for (size_t u = 0; u < 8; u++) {
            const __m512i low = _mm512_load_si512(q + 128 * u), high = _mm512_load_si512(q + 128 * u + 64);

            for (size_t j = 0; j < n; j++) {
                const __m512i four = _mm512_set1_epi32(load_i32(x[j][b].q + 4 * u));

                acc[j][0] = _mm512_dpbusd_epi32(acc[j][0], low, four);
                acc[j][1] = _mm512_dpbusd_epi32(acc[j][1], high, four);
            }
        }
        for (size_t j = 0; j < n; j++)
            for (size_t i = 0; i < 2; i++)
                y[j][i] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_load_ps(scales + 16 * i), _mm512_set1_ps(x[j][b].scale)),
                                          _mm512_cvtepi32_ps(acc[j][i]), y[j][i]);
    }
    for (size_t j = 0; j < n; j++)
        for (size_t i = 0; i < 2; i++)
            _mm512_storeu_ps(p->y + (t + j) * p->y_stride + r + 16 * i, y[j][i]);
}

static inline __attribute__((always_inline)) void product_blocks(const sluice_product *p, bool is_q4)
{
    float *scales = p->strip;
    uint8_t *q = (uint8_t *)p->strip + ROWS * sizeof(float) * (p->cols / SLUICE_Q_LEN);
    size_t r = 0;

    for (; r + ROWS <= p->rows && p->n_tokens >= STRIP_FROM; r += ROWS) {
        size_t t = 0;

        make_strip(p, r, q, scales, is_q4);
        for (; t + TILE <= p->n_tokens; t += TILE)
            strip_tile(p, r, t, q, scales, TILE, is_q4);
        for (; t + 2 <= p->n_tokens; t += 2)
            strip_tile(p, r, t, q, scales, 2, is_q4);
        for (; t < p->n_tokens; t++)
            strip_tile(p, r, t, q, scales, 1, is_q4);
    }
    for (; r + 8 <= p->rows; r += 8)
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
static inline __attribute__((always_inline)) void float_tile(const sluice_product *p, size_t r, size_t t, size_t n_rows, size_t n_tokens,
                                                             bool is_f16)
{
    __m512 acc[16];

    for (size_t i = 0; i < 16; i++)
        acc[i] = _mm512_setzero_ps();
    for (size_t k = 0; k < p->cols; k += 16) {
        const size_t n = p->cols - k < 16 ? p->cols - k : 16;
        __m512 x[4];

        for (size_t j = 0; j < n_tokens; j++)
            x[j] = load_f32x16((const uint8_t *)p->x + (t + j) * p->x_stride + k * sizeof(float), n);
        for (size_t i = 0; i < n_rows; i++) {
            const uint8_t *row = p->w + (r + i) * p->row_bytes + k * (is_f16 ? 2 : 4);
            const __m512 w = is_f16 ? load_f16x16(row, n) : load_f32x16(row, n);

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

static inline __attribute__((always_inline)) void product_float(const sluice_product *p, bool is_f16)
{
    size_t r = 0;

    for (; r + 4 <= p->rows; r += 4) {
        size_t t = 0;

        for (; t + 4 <= p->n_tokens; t += 4)
            float_tile(p, r, t, 4, 4, is_f16);
        switch (p->n_tokens - t) {
        case 3: float_tile(p, r, t, 4, 3, is_f16); break;
        case 2: float_tile(p, r, t, 4, 2, is_f16); break;
        case 1: float_tile(p, r, t, 4, 1, is_f16); break;
        default: break;
        }
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

/* n_queries and n_parts (of sixteen numbers) are constants of at most four: their sums stay in registers while the rows go by. */
static inline __attribute__((always_inline)) void mix_tile(const sluice_mix *m, size_t q, size_t j, size_t n_queries, size_t n_parts)
{
    const size_t left = m->dim - j;
    __m512 s[4][4];

    for (size_t l = 0; l < n_queries; l++)
        for (size_t k = 0; k < n_parts; k++)
            s[l][k] = _mm512_setzero_ps();
    for (size_t i = 0; i < m->n; i++) {
        __m512 v[4];

        for (size_t k = 0; k < n_parts; k++)
            v[k] = load_f16x16(m->v + i * m->v_stride + j + 16 * k, n_parts == 1 ? left : 16);
        for (size_t l = 0; l < n_queries; l++) {
            const __m512 weight = _mm512_set1_ps(m->weights[(q + l) * m->weights_stride + i]);

            for (size_t k = 0; k < n_parts; k++)
                s[l][k] = _mm512_fmadd_ps(weight, v[k], s[l][k]);
        }
    }
    for (size_t l = 0; l < n_queries; l++)
        for (size_t k = 0; k < n_parts; k++) {
            float *out = m->out + (q + l) * m->out_stride + j + 16 * k;

            if (n_parts > 1 || left >= 16)
                _mm512_storeu_ps(out, s[l][k]);
            else
                _mm512_mask_storeu_ps(out, (__mmask16)((1u << left) - 1u), s[l][k]);
        }
}

static inline __attribute__((always_inline)) void mix_parts(const sluice_mix *m, size_t j, size_t n_parts)
{
    size_t q = 0;

    for (; q + 4 <= m->n_queries; q += 4)
        mix_tile(m, q, j, 4, n_parts);
    for (; q < m->n_queries; q++)
        mix_tile(m, q, j, 1, n_parts);
}

static void mix(const sluice_mix *m)
{
    size_t j = 0;

    for (; j + 64 <= m->dim; j += 64)
        mix_parts(m, j, 4);
    for (; j < m->dim; j += 16)
        mix_parts(m, j, 1);
}

void sluice_kernels_install_avx512vnni(sluice_kernels *k)
{
    k->isa = "avx512vnni";
    k->product[SLUICE_WEIGHT_F32] = product_f32;
    k->product[SLUICE_WEIGHT_F16] = product_f16;
    k->product[SLUICE_WEIGHT_Q8_0] = product_q8_0;
    k->product[SLUICE_WEIGHT_Q4_0] = product_q4_0;
    k->mix = mix;
}
