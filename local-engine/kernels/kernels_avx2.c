/* kernels_avx2.c - AVX2, FMA and F16C: 8 floats or 32 bytes a register.
 *
 * Quantized products come in two forms.  A single token (decode) reads rows as they lie in the file, eight rows abreast, so that
 * the eight block sums fall into one register, lane = row, and the float work is shared; it asks for memory
 * ahead of time.  Several tokens (prefill) go over a
 * strip: eight rows unpacked to bytes, interleaved in units of four, so that a lane is a row from the start and four activation bytes
 * are broadcast to all of them:
 *
 *     strip:  block 0: [r0 k0-3][r1 k0-3] … [r7 k0-3]  [r0 k4-7] …  (8 registers)   block 1: …
 *
 * maddubs multiplies unsigned by signed bytes and adds pairs into 16 bits, saturating.  Q8_0: |w| <= 128 and |x| <= 127, so a pair
 * is at most 2 * 128 * 127 = 32512.  Q4_0: with w in 0 … 15 even the eight products of a strip's block stay below 8 * 2 * 15 * 127 = 30480, so that
 * they are added in 16 bits; the offset of 8 is paid with the sum of the activations.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/kernels/kernels_x86.h"

#include <math.h>

enum { ROWS = 8, TILE = 4, STRIP_FROM = 4 }; /* rows of a register; tokens of a tile; tokens from which a strip pays */

/* ---- float weights: sixteen running sums in two registers */

typedef struct sums {
    __m256 low, high;           /* lanes 0 … 7 and 8 … 15 */
} sums;

static inline float fold(sums s)
{
    const __m256 by8 = _mm256_add_ps(s.low, s.high);
    const __m128 by4 = _mm_add_ps(_mm256_castps256_ps128(by8), _mm256_extractf128_ps(by8, 1));
    const __m128 by2 = _mm_add_ps(by4, _mm_movehl_ps(by4, by4));

    return _mm_cvtss_f32(_mm_add_ss(by2, _mm_movehdup_ps(by2)));
}

/* Sixteen numbers of a row, or the last n < 16 of them with zeros behind. */
static inline sums load_f32x16(const uint8_t *p, size_t n)
{
    float rest[16] = { 0 };

    if (n < 16) {
        memcpy(rest, p, n * sizeof(float));
        p = (const uint8_t *)rest;
    }
    return (sums){ _mm256_loadu_ps((const float *)(const void *)p), _mm256_loadu_ps((const float *)(const void *)p + 8) };
}

static inline sums load_f16x16(const uint8_t *p, size_t n)
{
    uint16_t rest[16] = { 0 };

    if (n < 16) {
        memcpy(rest, p, n * sizeof(uint16_t));
        p = (const uint8_t *)rest;
    }
    return (sums){ _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 16))) };
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
    sums acc[4][4];

    for (size_t i = 0; i < n_rows; i++)
        for (size_t j = 0; j < n_tokens; j++)
            acc[i][j] = (sums){ _mm256_setzero_ps(), _mm256_setzero_ps() };
    for (size_t k = 0; k < p->cols; k += 16) {
        const size_t n = p->cols - k < 16 ? p->cols - k : 16;
        sums x[4];

        for (size_t j = 0; j < n_tokens; j++)
            x[j] = load_f32x16((const uint8_t *)p->x + (t + j) * p->x_stride + k * sizeof(float), n);
        for (size_t i = 0; i < n_rows; i++) {
            const sums w = load_x16(p->w + (r + i) * p->row_bytes + k * width, n, is_f16);

            for (size_t j = 0; j < n_tokens; j++) {
                acc[i][j].low = _mm256_fmadd_ps(w.low, x[j].low, acc[i][j].low);
                acc[i][j].high = _mm256_fmadd_ps(w.high, x[j].high, acc[i][j].high);
            }
        }
    }
    for (size_t i = 0; i < n_rows; i++)
        for (size_t j = 0; j < n_tokens; j++)
            p->y[(t + j) * p->y_stride + r + i] = fold(acc[i][j]);
}

static inline __attribute__((always_inline)) void product_float(const sluice_product *p, bool is_f16)
{
    size_t r = 0;

    for (; r + 4 <= p->rows; r += 4) {
        size_t t = 0;

        for (; t + 2 <= p->n_tokens; t += 2) {
            float_tile(p, r, t, 2, 2, is_f16);
            float_tile(p, r + 2, t, 2, 2, is_f16);
        }
        for (; t < p->n_tokens; t++)
            float_tile(p, r, t, 4, 1, is_f16);
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

/* Eight partial sums of a block's products; for Q4_0 without its offset. */
static inline __m256i block_sums(const uint8_t *block, __m256i x, bool is_q4)
{
    const __m256i w = is_q4 ? unpack_q4(block + 2) : load_256(block + 2);
    const __m256i pairs = is_q4 ? _mm256_maddubs_epi16(w, x) : _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));

    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* Sums of a Q8_0 block in eight rows, lane = row. */
static inline __m256i eight_sums_q8(const uint8_t *w, size_t row_bytes, const sluice_q8 *x)
{
    const __m256i xq = load_256(x->q);
    __m256i s[8];

    for (size_t i = 0; i < 8; i++)
        s[i] = block_sums(w + i * row_bytes, xq, false);
    return fold_eight(s);
}

/* The same for Q4_0.  Rows i and i + 4 share a register, so that nibbles are taken apart for two at a time and the sums of four
 * registers fold straight into the order of the rows.  Four products of at most 15 * 127 fit 16 bits. */
static inline __m256i eight_sums_q4(const uint8_t *w, size_t row_bytes, const sluice_q8 *x)
{
    const __m256i low = broadcast_128(x->q), high = broadcast_128(x->q + 16), mask = _mm256_set1_epi8(15);
    __m256i s[4];

    for (size_t i = 0; i < 4; i++) {
        const __m256i q = load_two(w + i * row_bytes + 2, w + (i + 4) * row_bytes + 2);
        const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(_mm256_and_si256(q, mask), low),
                                               _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(q, 4), mask), high));

        s[i] = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
    return _mm256_sub_epi32(_mm256_hadd_epi32(_mm256_hadd_epi32(s[0], s[1]), _mm256_hadd_epi32(s[2], s[3])), _mm256_set1_epi32(8 * x->sum));
}

/* Eight rows as they lie in the file, one token. */
static inline __attribute__((always_inline)) void rows_token(const sluice_product *p, size_t r, size_t t, bool is_q4)
{
    const size_t block_bytes = is_q4 ? SLUICE_Q4_0_BYTES : SLUICE_Q8_0_BYTES;
    const sluice_q8 *x = (const sluice_q8 *)(const void *)((const uint8_t *)p->x + t * p->x_stride);
    const uint8_t *w = p->w + r * p->row_bytes;
    __m256 y = _mm256_setzero_ps();

    for (size_t b = 0; b < p->cols / SLUICE_Q_LEN; b++, w += block_bytes) {
        const __m256i sum = is_q4 ? eight_sums_q4(w, p->row_bytes, &x[b]) : eight_sums_q8(w, p->row_bytes, &x[b]);

        prefetch_ahead(p->w + r * p->row_bytes, p->row_bytes, b, block_bytes);
        y = _mm256_fmadd_ps(_mm256_mul_ps(load_scales(w, p->row_bytes), _mm256_set1_ps(x[b].scale)), _mm256_cvtepi32_ps(sum), y);
    }
    _mm256_storeu_ps(p->y + t * p->y_stride + r, y);
}

/* The last rows of a matrix whose rows are no multiple of eight. */
static inline __attribute__((always_inline)) void row_token(const sluice_product *p, size_t r, size_t t, bool is_q4)
{
    const size_t block_bytes = is_q4 ? SLUICE_Q4_0_BYTES : SLUICE_Q8_0_BYTES;
    const sluice_q8 *x = (const sluice_q8 *)(const void *)((const uint8_t *)p->x + t * p->x_stride);
    const uint8_t *w = p->w + r * p->row_bytes;
    float y = 0;

    for (size_t b = 0; b < p->cols / SLUICE_Q_LEN; b++, w += block_bytes) {
        const int32_t sum = add_lanes(block_sums(w, load_256(x[b].q), is_q4)) - (is_q4 ? 8 * x[b].sum : 0);

        y = fmaf(load_f16(w) * x[b].scale, (float)sum, y);
    }
    p->y[t * p->y_stride + r] = y;
}

static inline __attribute__((always_inline)) void make_strip(const sluice_product *p, size_t r, int8_t *q, float *scales, bool is_q4)
{
    const size_t block_bytes = is_q4 ? SLUICE_Q4_0_BYTES : SLUICE_Q8_0_BYTES;
    const uint8_t *w = p->w + r * p->row_bytes;

    for (size_t b = 0; b < p->cols / SLUICE_Q_LEN; b++, w += block_bytes, q += ROWS * SLUICE_Q_LEN, scales += ROWS) {
        __m256i in[8], out[8];

        for (size_t i = 0; i < ROWS; i++)
            in[i] = is_q4 ? unpack_q4(w + i * p->row_bytes + 2) : load_256(w + i * p->row_bytes + 2);
        transpose(out, in);
        for (size_t i = 0; i < 8; i++)
            _mm256_store_si256((__m256i *)(void *)(q + 32 * i), out[i]);
        _mm256_store_ps(scales, load_scales(w, p->row_bytes));
    }
}

/* Eight rows of a strip by n tokens, n a small constant. */
static inline __attribute__((always_inline)) void strip_tile(const sluice_product *p, size_t r, size_t t, const int8_t *q, const float *scales,
                                                             size_t n, bool is_q4)
{
    const sluice_q8 *x[TILE];
    __m256 y[TILE];

    for (size_t j = 0; j < n; j++) {
        x[j] = (const sluice_q8 *)(const void *)((const uint8_t *)p->x + (t + j) * p->x_stride);
        y[j] = _mm256_setzero_ps();
    }
    for (size_t b = 0; b < p->cols / SLUICE_Q_LEN; b++, q += ROWS * SLUICE_Q_LEN, scales += ROWS) {
        __m256i acc[TILE];

        for (size_t j = 0; j < n; j++)
            acc[j] = _mm256_setzero_si256();
        for (size_t u = 0; u < 8; u++) {
            const __m256i w = _mm256_load_si256((const __m256i *)(const void *)(q + 32 * u)), magnitude = _mm256_abs_epi8(w);

            for (size_t j = 0; j < n; j++) {
                const __m256i four = _mm256_set1_epi32(load_i32(x[j][b].q + 4 * u));

                if (is_q4)
                    acc[j] = _mm256_add_epi16(acc[j], _mm256_maddubs_epi16(w, four));
                else
                    acc[j] = _mm256_add_epi32(acc[j], _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(four, w)),
                                                                        _mm256_set1_epi16(1)));
            }
        }
        for (size_t j = 0; j < n; j++) {
            if (is_q4)
                acc[j] = _mm256_sub_epi32(_mm256_madd_epi16(acc[j], _mm256_set1_epi16(1)), _mm256_set1_epi32(8 * x[j][b].sum));
            y[j] = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_load_ps(scales), _mm256_set1_ps(x[j][b].scale)), _mm256_cvtepi32_ps(acc[j]), y[j]);
        }
    }
    for (size_t j = 0; j < n; j++)
        _mm256_storeu_ps(p->y + (t + j) * p->y_stride + r, y[j]);
}

static inline __attribute__((always_inline)) void product_blocks(const sluice_product *p, bool is_q4)
{
    float *scales = p->strip;
    int8_t *q = (int8_t *)p->strip + ROWS * sizeof(float) * (p->cols / SLUICE_Q_LEN);
    size_t r = 0;

    for (; r + ROWS <= p->rows; r += ROWS) {
        size_t t = 0;

        if (p->n_tokens >= STRIP_FROM) {
            make_strip(p, r, q, scales, is_q4);
            for (; t + TILE <= p->n_tokens; t += TILE)
                strip_tile(p, r, t, q, scales, TILE, is_q4);
            for (; t < p->n_tokens; t++)
                strip_tile(p, r, t, q, scales, 1, is_q4);
        }
        for (; t < p->n_tokens; t++)
            rows_token(p, r, t, is_q4);
    }
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

static inline uint32_t largest_lane(__m256i v)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));

    m = _mm_max_epi32(m, _mm_unpackhi_epi64(m, m));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

static void quantize(sluice_q8 *out, const float *x, size_t n)
{
    const __m256i magnitude_bits = _mm256_set1_epi32(0x7fffffff);

    for (size_t b = 0; b < n / SLUICE_Q_LEN; b++, x += SLUICE_Q_LEN, out++) {
        __m256 v[4];
        __m256i q[4], largest = _mm256_setzero_si256(), sum;
        uint32_t bits;
        float top, inverse;

        for (size_t i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            largest = _mm256_max_epi32(largest, _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude_bits));
        }
        bits = largest_lane(largest);
        memcpy(&top, &bits, sizeof top);
        if (bits >= 0x7f800000u || top / 127.0f < 1e-30f) {
            memset(out, 0, sizeof *out);
            out->scale = bits >= 0x7f800000u ? NAN : 0;
            continue;
        }
        out->scale = top / 127.0f;
        inverse = 127.0f / top;
        for (size_t i = 0; i < 4; i++)
            q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inverse))); /* to nearest, ties to even */
        sum = _mm256_add_epi32(_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3]));
        out->sum = add_lanes(sum);
        /* packs work in halves of 128 bits; the permutation puts the eight groups of four back in order */
        q[0] = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        q[0] = _mm256_permutevar8x32_epi32(q[0], _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)(void *)out->q, q[0]);
    }
}

static void to_f16(uint16_t *out, const float *x, size_t n)
{
    size_t i = 0;

    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(void *)(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    for (; i < n; i++)
        out[i] = sluice_f32_to_f16(x[i]);
}

/* The n < 8 last numbers, and zeros behind. */
static inline __m256 load_rest(const float *x, size_t n)
{
    float rest[8] = { 0 };

    memcpy(rest, x, n * sizeof *x);
    return _mm256_loadu_ps(rest);
}

static inline void store_rest(float *x, __m256 v, size_t n)
{
    float rest[8];

    _mm256_storeu_ps(rest, v);
    memcpy(x, rest, n * sizeof *x);
}

static void rms_norm(float *out, const float *x, const float *w, size_t n, float eps)
{
    sums s = { _mm256_setzero_ps(), _mm256_setzero_ps() };
    float scale;
    size_t i;

    for (i = 0; i < n; i += 16) {
        const sums v = load_f32x16((const uint8_t *)(x + i), n - i < 16 ? n - i : 16);

        s.low = _mm256_fmadd_ps(v.low, v.low, s.low);
        s.high = _mm256_fmadd_ps(v.high, v.high, s.high);
    }
    scale = 1.0f / sqrtf(fold(s) / (float)n + eps);
    for (i = 0; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(scale)), _mm256_loadu_ps(w + i)));
    for (; i < n; i++)
        out[i] = x[i] * scale * w[i];
}

static inline __m256 exp_clamped(__m256 x)
{
    __m256 t, n, r, p;

    x = _mm256_max_ps(_mm256_set1_ps(SLUICE_EXP_MIN), x); /* the second operand is the result where one is a NaN */
    x = _mm256_min_ps(_mm256_set1_ps(SLUICE_EXP_MAX), x);
    t = _mm256_fmadd_ps(x, _mm256_set1_ps(SLUICE_EXP_LOG2E), _mm256_set1_ps(SLUICE_EXP_SHIFT));
    n = _mm256_sub_ps(t, _mm256_set1_ps(SLUICE_EXP_SHIFT));
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-SLUICE_EXP_LN2_HI), x);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-SLUICE_EXP_LN2_LO), r);
    p = _mm256_fmadd_ps(_mm256_set1_ps(SLUICE_EXP_C7), r, _mm256_set1_ps(SLUICE_EXP_C6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(SLUICE_EXP_C5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(SLUICE_EXP_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(SLUICE_EXP_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(SLUICE_EXP_C2));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_castps_si256(t), _mm256_set1_epi32(127)), 23)));
}

static float largest_of(const float *x, size_t n)
{
    float largest = x[0];
    size_t i = 0;

    if (n >= 8) {
        __m256 m = _mm256_loadu_ps(x);
        float lane[8];

        for (i = 8; i + 8 <= n; i += 8)
            m = _mm256_max_ps(m, _mm256_loadu_ps(x + i));
        _mm256_storeu_ps(lane, m);
        for (size_t j = 0; j < 8; j++)
            largest = lane[j] > largest ? lane[j] : largest;
    }
    for (; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    return largest;
}

static float softmax(float *x, size_t n, float scale)
{
    const __m256 top = _mm256_set1_ps(largest_of(x, n)), by = _mm256_set1_ps(scale);
    __m256 lanes[2] = { _mm256_setzero_ps(), _mm256_setzero_ps() };
    float sum, inverse;
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        const __m256 e = exp_clamped(_mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), top), by));

        _mm256_storeu_ps(x + i, e);
        lanes[i / 8 % 2] = _mm256_add_ps(lanes[i / 8 % 2], e);
    }
    if (i < n) {
        store_rest(x + i, exp_clamped(_mm256_mul_ps(_mm256_sub_ps(load_rest(x + i, n - i), top), by)), n - i);
        lanes[i / 8 % 2] = _mm256_add_ps(lanes[i / 8 % 2], load_rest(x + i, n - i));
    }
    sum = fold((sums){ lanes[0], lanes[1] });
    inverse = 1.0f / sum;
    for (i = 0; i + 8 <= n; i += 8)
        _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(inverse)));
    for (; i < n; i++)
        x[i] *= inverse;
    return sum;
}

static inline __m256 silu_mul_8(__m256 gate, __m256 up)
{
    const __m256 e = exp_clamped(_mm256_xor_ps(gate, _mm256_set1_ps(-0.0f)));

    return _mm256_mul_ps(_mm256_div_ps(gate, _mm256_add_ps(_mm256_set1_ps(1.0f), e)), up);
}

static void silu_mul(float *gate, const float *up, size_t n)
{
    size_t i = 0;

    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(gate + i, silu_mul_8(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
    if (i < n)
        store_rest(gate + i, silu_mul_8(load_rest(gate + i, n - i), load_rest(up + i, n - i)), n - i);
}

static inline __m256 load_half8(const uint16_t *v)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)v));
}

/* n_queries and n_parts (of eight numbers) are small constants: their sums stay in registers while the rows go by. */
static inline __attribute__((always_inline)) void mix_tile(const sluice_mix *m, size_t q, size_t j, size_t n_queries, size_t n_parts)
{
    __m256 s[2][4];

    for (size_t l = 0; l < n_queries; l++)
        for (size_t k = 0; k < n_parts; k++)
            s[l][k] = _mm256_setzero_ps();
    for (size_t i = 0; i < m->n; i++) {
        __m256 v[4];

        for (size_t k = 0; k < n_parts; k++)
            v[k] = load_half8(m->v + i * m->v_stride + j + 8 * k);
        for (size_t l = 0; l < n_queries; l++) {
            const __m256 weight = _mm256_set1_ps(m->weights[(q + l) * m->weights_stride + i]);

            for (size_t k = 0; k < n_parts; k++)
                s[l][k] = _mm256_fmadd_ps(weight, v[k], s[l][k]);
        }
    }
    for (size_t l = 0; l < n_queries; l++)
        for (size_t k = 0; k < n_parts; k++)
            _mm256_storeu_ps(m->out + (q + l) * m->out_stride + j + 8 * k, s[l][k]);
}

static void mix(const sluice_mix *m)
{
    size_t j = 0;

    for (; j + 32 <= m->dim; j += 32) {
        size_t q = 0;

        for (; q + 2 <= m->n_queries; q += 2)
            mix_tile(m, q, j, 2, 4);
        for (; q < m->n_queries; q++)
            mix_tile(m, q, j, 1, 4);
    }
    for (; j + 8 <= m->dim; j += 8)
        for (size_t q = 0; q < m->n_queries; q++)
            mix_tile(m, q, j, 1, 1);
    for (; j < m->dim; j++)
        for (size_t q = 0; q < m->n_queries; q++) {
            float sum = 0;

            for (size_t i = 0; i < m->n; i++)
                sum = fmaf(m->weights[q * m->weights_stride + i], _cvtsh_ss(m->v[i * m->v_stride + j]), sum);
            m->out[q * m->out_stride + j] = sum;
        }
}

void sluice_kernels_install_avx2(sluice_kernels *k)
{
    k->isa = "avx2";
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
