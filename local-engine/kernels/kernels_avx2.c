/* kernels_avx2.c - AVX2, FMA and F16C: 8 floats or 32 bytes a register.
 *
 * A lane is a row everywhere: eight rows share one register of sums, one of scales and one float result, so nothing is added across lanes at the end.
 * Two functions know the formats, and all products are made of them:
 *
 *     weights_16      sixteen weights of two rows as bytes: row i in the low half of a register and row i + 4 in the high half
 *     block_scales    the scales and mins of a block in eight rows, lane = row
 *
 * One token (decode) multiplies rows as they lie in the file and folds four registers of partial sums into one of eight rows, which
 * is in the right order because rows i and i + 4 shared a register.  Memory is asked for ahead of time.
 * More tokens go over a strip: eight rows transposed in units of four bytes, so that four bytes of activations are broadcast to all rows:
 *
 *     strip:  group 0: [r0 k0-3][r1 k0-3] … [r7 k0-3]  [r0 k4-7] …  (8 registers)   group 1: …      and scales and mins, (group, part, 8)
 *
 * Their activations are copied into tiles of four tokens, with what a group's arithmetic needs side by side.
 *
 * maddubs multiplies unsigned by signed bytes and adds pairs into 16 bits, saturating.  Weights are unsigned there, their offset is paid with the
 * sum of the activations, and as many results are added in 16 bits as fit (|x| <= 127):
 *
 *     up to 4 bits    8 * 2 * 15 * 127 = 30480        all of a group: one widening madd for 32 weights
 *     5 bits          4 * 2 * 31 * 127 = 31496
 *     6 bits          2 * 2 * 63 * 127 = 32004
 *     8 bits          1 * 2 * 128 * 127 = 32512       as |w| and x with w's sign
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/kernels/kernels_x86.h"

#include <math.h>

#define INLINE static inline __attribute__((always_inline)) /* what gets small constants, so that its loops and branches vanish */

enum {
    ROWS = 8,                   /* of a register */
    TILE = 4,                   /* tokens */
    FEW = 8,                    /* up to here memory is the limit: rows are turned into strips a block at a time, in the order of memory */
    CHUNK = 64,                 /* groups of a strip for many tokens: 2048 weights, so that a tile stays in the first cache level */
    GROUPS_OF_BLOCK = 8         /* of the formats with 256 weights a block */
};

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

static inline __m256 load_8(const void *p)
{
    return _mm256_loadu_ps((const float *)p);
}

static inline __m256 load_half8(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

static inline __m256 load_bf8(const void *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}

static inline size_t float_bytes(sluice_weight type)
{
    return type == SLUICE_WEIGHT_F32 ? 4 : 2;
}

/* Sixteen numbers of a row, or the last n < 16 of them with zeros behind. */
INLINE sums load_x16(sluice_weight type, const uint8_t *p, size_t n)
{
    uint8_t rest[16 * sizeof(float)];

    if (n < 16) {
        memset(rest, 0, sizeof rest);
        memcpy(rest, p, n * float_bytes(type));
        p = rest;
    }
    if (type == SLUICE_WEIGHT_F32)
        return (sums){ load_8(p), load_8(p + 32) };
    return type == SLUICE_WEIGHT_F16 ? (sums){ load_half8(p), load_half8(p + 16) } : (sums){ load_bf8(p), load_bf8(p + 16) };
}

/* Asks for `n` of the next `ahead` bytes. */
INLINE void prefetch_bytes(const uint8_t *from, size_t ahead, size_t at, size_t n)
{
    enum { AT_LEAST = 8192 };

    for (size_t line = 0; line < n; line += 64)
        _mm_prefetch((const char *)(from + (ahead > AT_LEAST ? ahead : AT_LEAST) + at + line), _MM_HINT_T1);
}

/* n_rows rows by n_tokens tokens at once, both small constants: enough chains to hide the latency of fma. */
INLINE void float_step(sums acc[4][2], const sluice_product *p, sluice_weight type, size_t r, size_t t, size_t k, size_t n, size_t n_rows,
                       size_t n_tokens)
{
    sums x[2];

    for (size_t j = 0; j < n_tokens; j++)
        x[j] = load_x16(SLUICE_WEIGHT_F32, (const uint8_t *)p->x + (t + j) * p->x_stride + k * sizeof(float), n);
    for (size_t i = 0; i < n_rows; i++) {
        const sums w = load_x16(type, p->w + (r + i) * p->row_bytes + k * float_bytes(type), n);

        for (size_t j = 0; j < n_tokens; j++) {
            acc[i][j].low = _mm256_fmadd_ps(w.low, x[j].low, acc[i][j].low);
            acc[i][j].high = _mm256_fmadd_ps(w.high, x[j].high, acc[i][j].high);
        }
    }
}

INLINE void float_tile(const sluice_product *p, sluice_weight type, size_t r, size_t t, size_t n_rows, size_t n_tokens)
{
    sums acc[4][2];
    size_t k = 0;

    for (size_t i = 0; i < n_rows; i++)
        for (size_t j = 0; j < n_tokens; j++)
            acc[i][j] = (sums){ _mm256_setzero_ps(), _mm256_setzero_ps() };
    for (; k + 16 <= p->cols; k += 16) {
        if (n_rows == 4)
            prefetch_bytes(p->w + r * p->row_bytes, 4 * p->row_bytes, 4 * k * float_bytes(type), 64 * float_bytes(type));
        float_step(acc, p, type, r, t, k, 16, n_rows, n_tokens);
    }
    if (k < p->cols)
        float_step(acc, p, type, r, t, k, p->cols - k, n_rows, n_tokens);
    for (size_t i = 0; i < n_rows; i++)
        for (size_t j = 0; j < n_tokens; j++)
            p->y[(t + j) * p->y_stride + r + i] = fold(acc[i][j]);
}

/* As many rows at a time as stay in the second cache level while all tokens run over them. */
INLINE void product_float(const sluice_product *p, sluice_weight type)
{
    enum { CACHED = 128 * 1024 };
    const size_t fit = CACHED / (p->row_bytes + 1) / 4 * 4, step = p->n_tokens == 1 || fit < 4 ? 4 : fit;

    for (size_t from = 0; from < p->rows; from += step) {
        const size_t end = p->rows - from < step ? p->rows : from + step;
        size_t t = 0;

        for (; t + 2 <= p->n_tokens; t += 2) {
            size_t r = from;

            for (; r + 2 <= end; r += 2)
                float_tile(p, type, r, t, 2, 2);
            if (r < end)
                float_tile(p, type, r, t, 1, 2);
        }
        if (t < p->n_tokens) {
            size_t r = from;

            for (; r + 4 <= end; r += 4)
                float_tile(p, type, r, t, 4, 1);
            for (; r < end; r++)
                float_tile(p, type, r, t, 1, 1);
        }
    }
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

/* ---- quantized weights: what tells the formats apart */

/* weights_16 gives q + offset. */
static inline int32_t offset_of(sluice_weight type)
{
    switch (type) {
    case SLUICE_WEIGHT_Q4_0: return 8;
    case SLUICE_WEIGHT_Q5_0: return 16;
    case SLUICE_WEIGHT_Q3_K: return 4;
    case SLUICE_WEIGHT_Q6_K: return 32;
    case SLUICE_WEIGHT_MXFP4: return 12;
    default: return 0;
    }
}

/* How many results of maddubs may be added in 16 bits. */
static inline unsigned fits_of(sluice_weight type)
{
    switch (type) {
    case SLUICE_WEIGHT_Q8_0:
    case SLUICE_WEIGHT_IQ4_NL:
    case SLUICE_WEIGHT_IQ4_XS: return 1;
    case SLUICE_WEIGHT_Q6_K: return 2;
    case SLUICE_WEIGHT_Q5_0:
    case SLUICE_WEIGHT_Q5_1:
    case SLUICE_WEIGHT_Q5_K:
    case SLUICE_WEIGHT_MXFP4: return 4;
    default: return 8;
    }
}

static inline bool has_halves(sluice_weight type)
{
    return type == SLUICE_WEIGHT_Q2_K || type == SLUICE_WEIGHT_Q3_K || type == SLUICE_WEIGHT_Q6_K;
}

static inline bool has_min(sluice_weight type)
{
    return type == SLUICE_WEIGHT_Q4_1 || type == SLUICE_WEIGHT_Q5_1 || type == SLUICE_WEIGHT_Q2_K || type == SLUICE_WEIGHT_Q4_K ||
           type == SLUICE_WEIGHT_Q5_K;
}

static inline bool is_block_256(sluice_weight type)
{
    return (type >= SLUICE_WEIGHT_Q2_K && type <= SLUICE_WEIGHT_Q6_K) || type == SLUICE_WEIGHT_IQ4_XS;
}

/* Bytes of a block: sluice_weight_table's, where the compiler sees them. */
static inline size_t block_bytes_of(sluice_weight type)
{
    switch (type) {
    case SLUICE_WEIGHT_Q8_0: return 34;
    case SLUICE_WEIGHT_Q4_1: return 20;
    case SLUICE_WEIGHT_Q5_0: return 22;
    case SLUICE_WEIGHT_Q5_1: return 24;
    case SLUICE_WEIGHT_Q2_K: return 84;
    case SLUICE_WEIGHT_Q3_K: return 110;
    case SLUICE_WEIGHT_Q4_K: return 144;
    case SLUICE_WEIGHT_Q5_K: return 176;
    case SLUICE_WEIGHT_Q6_K: return 210;
    case SLUICE_WEIGHT_IQ4_XS: return 136;
    case SLUICE_WEIGHT_MXFP4: return 17;
    default: return 18; /* Q4_0, IQ4_NL */
    }
}

/* Moves bit `from` of each byte to bit `to` and takes the bits of mask; what comes over from the neighbour is outside it. */
INLINE __m256i take_bits(__m256i v, unsigned from, unsigned to, int mask)
{
    const __m256i moved = from > to ? _mm256_srli_epi16(v, (int)(from - to)) : to > from ? _mm256_slli_epi16(v, (int)(to - from)) : v;

    return _mm256_and_si256(moved, _mm256_set1_epi8((char)mask));
}

INLINE __m256i look_up(const int8_t table[16], __m256i nibbles)
{
    return _mm256_shuffle_epi8(broadcast_128(table), nibbles);
}

/* Sixteen fifth bits, half h of a 32-bit word in each row, as bytes 0 or 16. */
INLINE __m256i fifth_bits(const uint8_t *a, const uint8_t *b, unsigned h)
{
    const __m256i words = _mm256_set_m128i(_mm_set1_epi32(load_i32(b)), _mm_set1_epi32(load_i32(a)));
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    const char k = (char)(2 * h);
    const __m128i pick = _mm_setr_epi8(k, k, k, k, k, k, k, k, k + 1, k + 1, k + 1, k + 1, k + 1, k + 1, k + 1, k + 1);
    const __m256i bytes = _mm256_and_si256(_mm256_shuffle_epi8(words, _mm256_broadcastsi128_si256(pick)), bit);

    return _mm256_and_si256(_mm256_cmpeq_epi8(bytes, bit), _mm256_set1_epi8(16));
}

/* As sluice_weight_group has them; e2m1 with the offset that makes it unsigned. */
static const int8_t iq4_values[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
static const int8_t e2m1_plus_12[16] = { 12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0 };

/* Weights 16 h … 16 h + 15 of group g of the blocks at a and b. */
INLINE __m256i weights_16(sluice_weight type, const uint8_t *a, const uint8_t *b, unsigned g, unsigned h)
{
    const size_t quarter = 32 * (g / 4) + 16 * h;       /* of a row of two bits that four groups share */
    const size_t pair = 32 * (g / 2) + 16 * h;          /* of nibbles that two groups share */

    switch (type) {
    case SLUICE_WEIGHT_Q8_0:
        return load_two(a + 2 + 16 * h, b + 2 + 16 * h);
    case SLUICE_WEIGHT_Q4_0:
        return take_bits(load_two(a + 2, b + 2), 4 * h, 0, 15);
    case SLUICE_WEIGHT_Q4_1:
        return take_bits(load_two(a + 4, b + 4), 4 * h, 0, 15);
    case SLUICE_WEIGHT_Q5_0:
        return _mm256_or_si256(take_bits(load_two(a + 6, b + 6), 4 * h, 0, 15), fifth_bits(a + 2, b + 2, h));
    case SLUICE_WEIGHT_Q5_1:
        return _mm256_or_si256(take_bits(load_two(a + 8, b + 8), 4 * h, 0, 15), fifth_bits(a + 4, b + 4, h));
    case SLUICE_WEIGHT_IQ4_NL:
        return look_up(iq4_values, take_bits(load_two(a + 2, b + 2), 4 * h, 0, 15));
    case SLUICE_WEIGHT_MXFP4:
        return look_up(e2m1_plus_12, take_bits(load_two(a + 1, b + 1), 4 * h, 0, 15));
    case SLUICE_WEIGHT_IQ4_XS:
        return look_up(iq4_values, take_bits(load_two(a + 8 + 16 * g, b + 8 + 16 * g), 4 * h, 0, 15));
    case SLUICE_WEIGHT_Q2_K:
        return take_bits(load_two(a + 16 + quarter, b + 16 + quarter), 2 * (g % 4), 0, 3);
    case SLUICE_WEIGHT_Q3_K:
        return _mm256_or_si256(take_bits(load_two(a + 32 + quarter, b + 32 + quarter), 2 * (g % 4), 0, 3),
                               take_bits(load_two(a + 16 * h, b + 16 * h), g, 2, 4));
    case SLUICE_WEIGHT_Q4_K:
        return take_bits(load_two(a + 16 + pair, b + 16 + pair), 4 * (g % 2), 0, 15);
    case SLUICE_WEIGHT_Q5_K:
        return _mm256_or_si256(take_bits(load_two(a + 48 + pair, b + 48 + pair), 4 * (g % 2), 0, 15),
                               take_bits(load_two(a + 16 + 16 * h, b + 16 + 16 * h), g, 4, 16));
    default: { /* Q6_K */
        const size_t low = 64 * (g / 4) + 32 * (g % 2) + 16 * h, high = 128 + quarter;

        return _mm256_or_si256(take_bits(load_two(a + low, b + low), 4 * (g % 4 / 2), 0, 15),
                               take_bits(load_two(a + high, b + high), 2 * (g % 4), 4, 48));
    }
    }
}

/* Four units of four bytes of rows i | i + 4 in register i: unit u of rows 0 … 7 in register u. */
INLINE void transpose_4(__m256i out[4], const __m256i in[4])
{
    const __m256i a = _mm256_unpacklo_epi32(in[0], in[1]), b = _mm256_unpacklo_epi32(in[2], in[3]);
    const __m256i c = _mm256_unpackhi_epi32(in[0], in[1]), d = _mm256_unpackhi_epi32(in[2], in[3]);

    out[0] = _mm256_unpacklo_epi64(a, b);
    out[1] = _mm256_unpackhi_epi64(a, b);
    out[2] = _mm256_unpacklo_epi64(c, d);
    out[3] = _mm256_unpackhi_epi64(c, d);
}

/* Sixteen bytes of eight rows as four registers of four bytes, lane = row. */
INLINE void load_words(__m256i out[4], const uint8_t *w, size_t row_bytes)
{
    __m256i in[4];

    for (size_t i = 0; i < 4; i++)
        in[i] = load_two(w + i * row_bytes, w + (i + 4) * row_bytes);
    transpose_4(out, in);
}

/* The f16 in the low halves of eight words. */
INLINE __m256 low_f16(__m256i words)
{
    const __m256i low = _mm256_and_si256(words, _mm256_set1_epi32(0xffff));

    return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)));
}

/* `bits` bits of each lane from bit `from` on. */
INLINE __m256i field(__m256i v, unsigned from, unsigned bits)
{
    return _mm256_and_si256(_mm256_srli_epi32(v, (int)from), _mm256_set1_epi32((1 << bits) - 1));
}

INLINE __m256 scaled(__m256 d, __m256i s)
{
    return _mm256_mul_ps(d, _mm256_cvtepi32_ps(s));
}

/* 2^(e - 128) of eight rows. */
INLINE __m256 mx_scales(const uint8_t *w, size_t row_bytes)
{
    const __m256i e = _mm256_setr_epi32(w[0], w[row_bytes], w[2 * row_bytes], w[3 * row_bytes], w[4 * row_bytes], w[5 * row_bytes],
                                        w[6 * row_bytes], w[7 * row_bytes]);
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    const __m256i subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);

    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, subnormal, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e)));
}

/* Scale (of part 2 g + h with halves, else of group g) and min of a block in eight rows, from what load_words read. */
INLINE __m256i part_scale(sluice_weight type, const __m256i words[4], unsigned k)
{
    const unsigned byte = 8 * (k % 4);

    switch (type) {
    case SLUICE_WEIGHT_Q2_K:
        return field(words[k / 4], byte, 4);
    case SLUICE_WEIGHT_Q3_K:
        return _mm256_sub_epi32(_mm256_or_si256(field(words[k / 4 % 2], byte + 4 * (k / 8), 4),
                                                _mm256_slli_epi32(field(words[2], byte + 2 * (k / 4), 2), 4)), _mm256_set1_epi32(32));
    case SLUICE_WEIGHT_Q4_K:
    case SLUICE_WEIGHT_Q5_K:
        return k < 4 ? field(words[1], byte, 6)
                     : _mm256_or_si256(field(words[3], byte, 4), _mm256_slli_epi32(field(words[1], byte + 6, 2), 4));
    case SLUICE_WEIGHT_Q6_K:
        return _mm256_srai_epi32(_mm256_slli_epi32(words[k / 4], (int)(24 - byte)), 24);
    default: /* IQ4_XS */
        return _mm256_sub_epi32(_mm256_or_si256(field(words[1], 4 * k, 4), _mm256_slli_epi32(field(words[0], 16 + 2 * k, 2), 4)),
                                _mm256_set1_epi32(32));
    }
}

INLINE __m256i part_min(sluice_weight type, const __m256i words[4], unsigned k)
{
    const unsigned byte = 8 * (k % 4);

    if (type == SLUICE_WEIGHT_Q2_K)
        return field(words[k / 4], byte + 4, 4);
    return k < 4 ? field(words[2], byte, 6) : _mm256_or_si256(field(words[3], byte + 4, 4), _mm256_slli_epi32(field(words[2], byte + 6, 2), 4));
}

/* The scales and mins of the block at w in eight rows: for each group the scales of its one or two parts, then their mins. */
INLINE void block_scales(sluice_weight type, float *out, const uint8_t *w, size_t row_bytes)
{
    const unsigned n_parts = has_halves(type) ? 2 : 1;
    __m256i words[4];
    __m256 d, min = _mm256_setzero_ps();

    if (!is_block_256(type)) {
        _mm256_storeu_ps(out, type == SLUICE_WEIGHT_MXFP4 ? mx_scales(w, row_bytes) : load_scales(w, row_bytes));
        if (has_min(type))
            _mm256_storeu_ps(out + ROWS, load_scales(w + 2, row_bytes));
        return;
    }
    if (type == SLUICE_WEIGHT_Q6_K) {
        load_words(words, w + 192, row_bytes);
        d = load_scales(w + 208, row_bytes);
    } else if (type == SLUICE_WEIGHT_Q3_K) { /* a load that ends with the block begins two bytes before the scales; d is behind them */
        load_words(words, w + 94, row_bytes);
        for (size_t i = 0; i < 3; i++)
            words[i] = _mm256_or_si256(_mm256_srli_epi32(words[i], 16), _mm256_slli_epi32(words[i + 1], 16));
        d = low_f16(_mm256_srli_epi32(words[3], 16));
    } else {
        load_words(words, w, row_bytes);
        d = type == SLUICE_WEIGHT_Q2_K ? load_scales(w + 80, row_bytes) : low_f16(words[0]);
        if (has_min(type))
            min = type == SLUICE_WEIGHT_Q2_K ? load_scales(w + 82, row_bytes) : low_f16(_mm256_srli_epi32(words[0], 16));
        min = _mm256_xor_ps(min, _mm256_set1_ps(-0.0f));
    }
    for (unsigned k = 0; k < GROUPS_OF_BLOCK * n_parts; k++) {
        float *group = out + k / n_parts * n_parts * (has_min(type) ? 2 : 1) * ROWS;

        _mm256_storeu_ps(group + k % n_parts * ROWS, scaled(d, part_scale(type, words, k)));
        if (has_min(type))
            _mm256_storeu_ps(group + (n_parts + k % n_parts) * ROWS, scaled(min, part_min(type, words, k)));
    }
}

INLINE __m256i widen(__m256i pairs)
{
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* Products of bytes in 16 bits, two added: of unsigned weights, or of signed ones. */
INLINE __m256i multiply(__m256i w, __m256i x, bool is_signed)
{
    return is_signed ? _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)) : _mm256_maddubs_epi16(w, x);
}

/* ---- one token: rows as they lie in the file */

/* The sums of each half of four registers, each sum of n results of multiply so far, as one register: rows 0 … 7. */
INLINE __m256i fold_rows(const __m256i s[4], unsigned n, unsigned fits)
{
    __m256i a, b;

    if (2 * n > fits)
        return _mm256_hadd_epi32(_mm256_hadd_epi32(widen(s[0]), widen(s[1])), _mm256_hadd_epi32(widen(s[2]), widen(s[3])));
    a = _mm256_hadd_epi16(s[0], s[1]);
    b = _mm256_hadd_epi16(s[2], s[3]);
    return 4 * n > fits ? _mm256_hadd_epi32(widen(a), widen(b)) : widen(_mm256_hadd_epi16(a, b));
}

/* Sums of the products of group g's halves h0 … h1 - 1. */
INLINE __m256i rows_sum(sluice_weight type, const uint8_t *w, size_t row_bytes, const sluice_q8 *x, unsigned g, unsigned h0, unsigned h1)
{
    const bool is_signed = fits_of(type) == 1;
    const __m256i first = broadcast_128(x->q + 16 * h0), second = broadcast_128(x->q + 16 * (h1 - 1));
    __m256i s[4];

    for (size_t i = 0; i < 4; i++) {
        const uint8_t *a = w + i * row_bytes, *b = w + (i + 4) * row_bytes;

        s[i] = multiply(weights_16(type, a, b, g, h0), first, is_signed);
        if (h1 - h0 == 2 && is_signed)
            s[i] = _mm256_add_epi32(widen(s[i]), widen(multiply(weights_16(type, a, b, g, 1), second, true)));
        else if (h1 - h0 == 2)
            s[i] = _mm256_add_epi16(s[i], multiply(weights_16(type, a, b, g, 1), second, false));
    }
    if (h1 - h0 == 2 && is_signed)
        return _mm256_hadd_epi32(_mm256_hadd_epi32(s[0], s[1]), _mm256_hadd_epi32(s[2], s[3]));
    return fold_rows(s, h1 - h0, fits_of(type));
}

/* Adds group g of a block, whose scales are at s, to y. */
INLINE __m256 rows_group(sluice_weight type, __m256 y, const uint8_t *w, size_t row_bytes, const sluice_q8 *x, const float *s, unsigned g)
{
    const unsigned n_parts = has_halves(type) ? 2 : 1;
    const int32_t offset = offset_of(type);

    for (unsigned h = 0; h < n_parts; h++) {
        const __m256 scale = _mm256_mul_ps(_mm256_loadu_ps(s + h * ROWS), _mm256_set1_ps(x->scale));
        __m256i sum = rows_sum(type, w, row_bytes, x, g, h, n_parts == 2 ? h + 1 : 2);

        if (offset != 0)
            sum = _mm256_sub_epi32(sum, _mm256_set1_epi32(offset * (n_parts == 2 ? x->sum[h] : x->sum[0] + x->sum[1])));
        y = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sum), y);
        if (has_min(type))
            y = _mm256_fmadd_ps(_mm256_loadu_ps(s + (n_parts + h) * ROWS),
                                _mm256_set1_ps(n_parts == 2 ? x->scale * (float)x->sum[h] : x->scaled_sum), y);
    }
    return y;
}

/* Floats of scales and mins of a group. */
INLINE size_t scales_len(sluice_weight type)
{
    return (size_t)ROWS * (has_halves(type) ? 2 : 1) * (has_min(type) ? 2 : 1);
}

INLINE void rows_token(sluice_weight type, const sluice_product *p, size_t r)
{
    const size_t block_bytes = block_bytes_of(type), row_bytes = p->row_bytes, n_groups = p->cols / SLUICE_Q_LEN;
    const size_t step = is_block_256(type) ? GROUPS_OF_BLOCK : 1, len = scales_len(type);
    const uint8_t *w = p->w + r * row_bytes;
    const sluice_q8 *x = p->x;
    float s[GROUPS_OF_BLOCK * 4 * ROWS];
    __m256 y = _mm256_setzero_ps();

    for (size_t g = 0; g < n_groups; g += step, w += block_bytes, x += step) {
        prefetch_ahead(p->w + r * row_bytes, row_bytes, g / step, block_bytes);
        block_scales(type, s, w, row_bytes);
        y = rows_group(type, y, w, row_bytes, x, s, 0);
        if (is_block_256(type)) { /* by hand: the shifts have to be constants */
            y = rows_group(type, y, w, row_bytes, x + 1, s + len, 1);
            y = rows_group(type, y, w, row_bytes, x + 2, s + 2 * len, 2);
            y = rows_group(type, y, w, row_bytes, x + 3, s + 3 * len, 3);
            y = rows_group(type, y, w, row_bytes, x + 4, s + 4 * len, 4);
            y = rows_group(type, y, w, row_bytes, x + 5, s + 5 * len, 5);
            y = rows_group(type, y, w, row_bytes, x + 6, s + 6 * len, 6);
            y = rows_group(type, y, w, row_bytes, x + 7, s + 7 * len, 7);
        }
    }
    _mm256_storeu_ps(p->y + r, y);
}

/* ---- several tokens: strips */

/* A group of the activations of four tokens. */
typedef struct tile {
    int8_t q[TILE][SLUICE_Q_LEN];
    float scale[TILE];
    int32_t start[2][TILE];     /* -offset * sum of the group, or of each half */
    float sum[2][TILE];         /* what the min, or the min of each half, is multiplied with */
} tile;

/* Eight rows by the tokens of a tile over n_groups groups. */
typedef struct tile_job {
    const uint8_t *q;           /* (n_groups, 8, 8 rows, 4) */
    const float *scales;
    const tile *x;
    size_t n_groups;
    float *y;
    size_t y_stride, n_tokens;
    size_t done;                /* the first rows that another job has done: the last rows of a matrix overlap the ones before */
    bool adds;                  /* to what is in y */
} tile_job;

INLINE __m256 broadcast_f32(const float *p)
{
    return _mm256_broadcast_ss(p);
}

/* Adds units first … end - 1 of a group's products with n tokens to acc. */
INLINE void tile_units(__m256i acc[TILE], const uint8_t *w, const tile *x, size_t first, size_t end, size_t n, size_t fits)
{
    const size_t step = fits < end - first ? fits : end - first;

    for (size_t u = first; u < end; u += step) {
        __m256i pairs[TILE];

        for (size_t k = u; k < u + step; k++) {
            const __m256i weights = _mm256_load_si256((const __m256i *)(const void *)(w + 32 * k));

            for (size_t j = 0; j < n; j++) {
                const __m256i products = multiply(weights, _mm256_set1_epi32(load_i32(x->q[j] + 4 * k)), fits == 1);

                pairs[j] = k == u ? products : _mm256_add_epi16(pairs[j], products);
            }
        }
        for (size_t j = 0; j < n; j++)
            acc[j] = _mm256_add_epi32(acc[j], widen(pairs[j]));
    }
}

INLINE void run_tile(const tile_job *job, size_t n, size_t fits, bool halves, bool min)
{
    const size_t n_parts = halves ? 2 : 1;
    const uint8_t *w = job->q;
    const float *s = job->scales;
    const tile *x = job->x;
    __m256 y[TILE];

    for (size_t j = 0; j < n; j++)
        y[j] = job->adds && j < job->n_tokens ? _mm256_loadu_ps(job->y + j * job->y_stride) : _mm256_setzero_ps();
    for (size_t g = 0; g < job->n_groups; g++, x++, w += ROWS * SLUICE_Q_LEN, s += ROWS * n_parts * (min ? 2 : 1)) {
        for (size_t h = 0; h < n_parts; h++) {
            const __m256 scale = _mm256_load_ps(s + h * ROWS);
            __m256i acc[TILE];

            for (size_t j = 0; j < n; j++)
                acc[j] = _mm256_set1_epi32(x->start[h][j]);
            tile_units(acc, w, x, halves ? 4 * h : 0, halves ? 4 * h + 4 : 8, n, fits);
            for (size_t j = 0; j < n; j++)
                y[j] = _mm256_fmadd_ps(_mm256_mul_ps(scale, broadcast_f32(&x->scale[j])), _mm256_cvtepi32_ps(acc[j]), y[j]);
            for (size_t j = 0; j < n && min; j++)
                y[j] = _mm256_fmadd_ps(_mm256_load_ps(s + (n_parts + h) * ROWS), broadcast_f32(&x->sum[h][j]), y[j]);
        }
    }
    for (size_t j = 0; j < n && j < job->n_tokens; j++) {
        float lanes[ROWS];

        if (job->done == 0) {
            _mm256_storeu_ps(job->y + j * job->y_stride, y[j]);
            continue;
        }
        _mm256_storeu_ps(lanes, y[j]);
        memcpy(job->y + j * job->y_stride + job->done, lanes + job->done, (ROWS - job->done) * sizeof lanes[0]);
    }
}

/* One for all formats of the same arithmetic. */
#define TILE_RUNNER(name, fits, halves, min) \
    static void name(const tile_job *job) \
    { \
        if (job->n_tokens == 1) \
            run_tile(job, 1, fits, halves, min); \
        else if (job->n_tokens == 2) \
            run_tile(job, 2, fits, halves, min); \
        else \
            run_tile(job, TILE, fits, halves, min); \
    }

TILE_RUNNER(tile_4_bits, 8, false, false)
TILE_RUNNER(tile_4_bits_min, 8, false, true)
TILE_RUNNER(tile_5_bits, 4, false, false)
TILE_RUNNER(tile_5_bits_min, 4, false, true)
TILE_RUNNER(tile_8_bits, 1, false, false)
TILE_RUNNER(tile_halves_3_bits, 8, true, false)
TILE_RUNNER(tile_halves_3_bits_min, 8, true, true)
TILE_RUNNER(tile_halves_6_bits, 2, true, false)

/* Groups g … g + n - 1 of up to four tokens from t on.  What a tile has no token for is computed as zeros and not stored. */
static void pack_tile(tile *out, const sluice_product *p, sluice_weight type, size_t t, size_t g, size_t n)
{
    const size_t n_tokens = p->n_tokens - t < TILE ? p->n_tokens - t : TILE;
    const int32_t offset = offset_of(type);
    const bool halves = has_halves(type);

    for (size_t i = 0; i < n && n_tokens < TILE; i++)
        memset(&out[i], 0, sizeof out[i]);
    for (size_t j = 0; j < n_tokens; j++) {
        const sluice_q8 *x = (const sluice_q8 *)(const void *)((const uint8_t *)p->x + (t + j) * p->x_stride) + g;

        for (size_t i = 0; i < n; i++) {
            _mm256_storeu_si256((__m256i *)(void *)out[i].q[j], load_256(x[i].q));
            out[i].scale[j] = x[i].scale;
            out[i].start[0][j] = -offset * (halves ? x[i].sum[0] : x[i].sum[0] + x[i].sum[1]);
            out[i].start[1][j] = -offset * x[i].sum[1];
            out[i].sum[0][j] = halves ? x[i].scale * (float)x[i].sum[0] : x[i].scaled_sum;
            out[i].sum[1][j] = x[i].scale * (float)x[i].sum[1];
        }
    }
}

INLINE void strip_group(sluice_weight type, uint8_t *q, const uint8_t *w, size_t row_bytes, unsigned g)
{
    for (unsigned h = 0; h < 2; h++) {
        __m256i in[4], out[4];

        for (size_t i = 0; i < 4; i++)
            in[i] = weights_16(type, w + i * row_bytes, w + (i + 4) * row_bytes, g, h);
        transpose_4(out, in);
        for (size_t u = 0; u < 4; u++)
            _mm256_store_si256((__m256i *)(void *)(q + 32 * (4 * h + u)), out[u]);
    }
}

/* Groups g … g + n - 1 of the eight rows at `rows`; g and n multiples of a block. */
INLINE void make_strip(sluice_weight type, uint8_t *q, float *scales, const uint8_t *rows, size_t row_bytes, size_t g, size_t n)
{
    enum { GROUP = ROWS * SLUICE_Q_LEN };
    const size_t block_bytes = block_bytes_of(type), step = is_block_256(type) ? GROUPS_OF_BLOCK : 1;
    const uint8_t *w = rows + g / step * block_bytes;

    for (size_t i = 0; i < n; i += step, w += block_bytes, q += step * GROUP, scales += step * scales_len(type)) {
        prefetch_ahead(rows, row_bytes, (g + i) / step, block_bytes);
        block_scales(type, scales, w, row_bytes);
        strip_group(type, q, w, row_bytes, 0);
        if (is_block_256(type)) {
            strip_group(type, q + GROUP, w, row_bytes, 1);
            strip_group(type, q + 2 * GROUP, w, row_bytes, 2);
            strip_group(type, q + 3 * GROUP, w, row_bytes, 3);
            strip_group(type, q + 4 * GROUP, w, row_bytes, 4);
            strip_group(type, q + 5 * GROUP, w, row_bytes, 5);
            strip_group(type, q + 6 * GROUP, w, row_bytes, 6);
            strip_group(type, q + 7 * GROUP, w, row_bytes, 7);
        }
    }
}

typedef void (*make_strip_fn)(uint8_t *q, float *scales, const uint8_t *rows, size_t row_bytes, size_t g, size_t n);
typedef void (*run_tile_fn)(const tile_job *job);

typedef struct format {
    sluice_weight type;
    make_strip_fn make_strip;
    run_tile_fn run_tile;
} format;

/* A strip's bytes, its scales and tiles, in p->strip. */
typedef struct scratch {
    uint8_t *q;
    float *scales;
    tile *tiles;
} scratch;

enum {
    STRIP_GROUP = ROWS * SLUICE_Q_LEN,                  /* bytes of a group */
    SCALES_GROUP = 4 * ROWS,                            /* floats of one, at most */
    STRIPS_ROWS = SLUICE_STRIP_ROWS / ROWS              /* registers of rows that a tile runs over, for many tokens */
};

static scratch cut_scratch(const sluice_product *p, size_t n_groups)
{
    uint8_t *q = p->strip, *scales = q + n_groups * STRIP_GROUP;

    return (scratch){ q, (float *)(void *)scales, (tile *)(void *)(scales + n_groups * SCALES_GROUP * sizeof(float)) };
}

/* Runs tile x of tokens t … over rows r … r + 7, or the last eight of the matrix. */
static void tile_rows(const format *f, const sluice_product *p, size_t r, size_t t, const uint8_t *q, const float *scales, const tile *x, size_t n,
                      bool adds)
{
    const size_t base = r + ROWS <= p->rows ? r : p->rows - ROWS;
    const tile_job job = {
        .q = q,
        .scales = scales,
        .x = x,
        .n_groups = n,
        .y = p->y + t * p->y_stride + base,
        .y_stride = p->y_stride,
        .n_tokens = p->n_tokens - t < TILE ? p->n_tokens - t : TILE,
        .done = r - base,
        .adds = adds,
    };

    f->run_tile(&job);
}

static const uint8_t *rows_at(const sluice_product *p, size_t r)
{
    return p->w + (r + ROWS <= p->rows ? r : p->rows - ROWS) * p->row_bytes;
}

/* All tokens are packed once, and run over a block of eight rows as soon as it is read. */
static void product_few(const sluice_product *p, const format *f)
{
    const scratch s = cut_scratch(p, GROUPS_OF_BLOCK);
    const size_t n_groups = p->cols / SLUICE_Q_LEN, n_tiles = (p->n_tokens + TILE - 1) / TILE;
    const size_t room = (size_t)((const uint8_t *)p->strip + SLUICE_STRIP_BYTES - (const uint8_t *)s.tiles) / sizeof(tile);
    const size_t fit = room / n_tiles / GROUPS_OF_BLOCK * GROUPS_OF_BLOCK;

    for (size_t from = 0; from < n_groups; from += fit) {
        const size_t n = n_groups - from < fit ? n_groups - from : fit;

        for (size_t k = 0; k < n_tiles; k++)
            pack_tile(s.tiles + k * n, p, f->type, k * TILE, from, n);
        for (size_t r = 0; r < p->rows; r += ROWS)
            for (size_t g = 0; g < n; g += GROUPS_OF_BLOCK) {
                const size_t some = n - g < GROUPS_OF_BLOCK ? n - g : GROUPS_OF_BLOCK;

                f->make_strip(s.q, s.scales, rows_at(p, r), p->row_bytes, from + g, some);
                for (size_t k = 0; k < n_tiles; k++)
                    tile_rows(f, p, r, k * TILE, s.q, s.scales, s.tiles + k * n + g, some, from + g > 0);
            }
    }
}

static void product_many(const sluice_product *p, const format *f)
{
    const scratch s = cut_scratch(p, STRIPS_ROWS * CHUNK);
    const size_t n_groups = p->cols / SLUICE_Q_LEN;

    for (size_t r = 0; r < p->rows; r += SLUICE_STRIP_ROWS)
        for (size_t g = 0; g < n_groups; g += CHUNK) {
            const size_t n = n_groups - g < CHUNK ? n_groups - g : CHUNK;

            for (size_t i = 0; i < STRIPS_ROWS && r + i * ROWS < p->rows; i++)
                f->make_strip(s.q + i * CHUNK * STRIP_GROUP, s.scales + i * CHUNK * SCALES_GROUP, rows_at(p, r + i * ROWS), p->row_bytes, g, n);
            for (size_t t = 0; t < p->n_tokens; t += TILE) {
                pack_tile(s.tiles, p, f->type, t, g, n);
                for (size_t i = 0; i < STRIPS_ROWS && r + i * ROWS < p->rows; i++)
                    tile_rows(f, p, r + i * ROWS, t, s.q + i * CHUNK * STRIP_GROUP, s.scales + i * CHUNK * SCALES_GROUP, s.tiles, n, g > 0);
            }
        }
}

/* Fewer rows than a register has lanes. */
static void product_rest(const sluice_product *p, sluice_weight type)
{
    for (size_t r = 0; r < p->rows; r++) {
        for (size_t t = 0; t < p->n_tokens; t++)
            p->y[t * p->y_stride + r] = 0;
        for (size_t g = 0; g < p->cols / SLUICE_Q_LEN; g++) {
            sluice_group w;
            __m256i q;

            sluice_weight_group(type, &w, p->w + r * p->row_bytes, g);
            q = load_256(w.q);
            for (size_t t = 0; t < p->n_tokens; t++) {
                const sluice_q8 *x = (const sluice_q8 *)(const void *)((const uint8_t *)p->x + t * p->x_stride) + g;
                const __m256i products = widen(multiply(q, load_256(x->q), true));
                const __m128i low = _mm256_castsi256_si128(products), high = _mm256_extracti128_si256(products, 1);
                float *y = &p->y[t * p->y_stride + r];

                if (!has_halves(type)) {
                    *y = fmaf(w.scale[0] * x->scale, (float)add_lanes(products), *y);
                    *y = has_min(type) ? fmaf(w.min[0], x->scaled_sum, *y) : *y;
                    continue;
                }
                *y = fmaf(w.scale[0] * x->scale, (float)add_lanes(_mm256_zextsi128_si256(low)), *y);
                *y = has_min(type) ? fmaf(w.min[0], x->scale * (float)x->sum[0], *y) : *y;
                *y = fmaf(w.scale[1] * x->scale, (float)add_lanes(_mm256_zextsi128_si256(high)), *y);
                *y = has_min(type) ? fmaf(w.min[1], x->scale * (float)x->sum[1], *y) : *y;
            }
        }
    }
}

/* The product of a format, and the functions that it passes to what all formats share. */
#define PRODUCT(name, weight, tile_runner) \
    static void strip_##name(uint8_t *q, float *scales, const uint8_t *rows, size_t row_bytes, size_t g, size_t n) \
    { \
        make_strip(weight, q, scales, rows, row_bytes, g, n); \
    } \
    static void product_##name(const sluice_product *p) \
    { \
        static const format f = { weight, strip_##name, tile_runner }; \
        if (p->rows < ROWS) \
            product_rest(p, weight); \
        else if (p->n_tokens > FEW) \
            product_many(p, &f); \
        else if (p->n_tokens > 1) \
            product_few(p, &f); \
        else \
            for (size_t r = 0; r < p->rows && p->n_tokens == 1; r += ROWS) \
                rows_token(weight, p, r + ROWS <= p->rows ? r : p->rows - ROWS); \
    }

PRODUCT(q8_0, SLUICE_WEIGHT_Q8_0, tile_8_bits)
PRODUCT(q4_0, SLUICE_WEIGHT_Q4_0, tile_4_bits)
PRODUCT(q4_1, SLUICE_WEIGHT_Q4_1, tile_4_bits_min)
PRODUCT(q5_0, SLUICE_WEIGHT_Q5_0, tile_5_bits)
PRODUCT(q5_1, SLUICE_WEIGHT_Q5_1, tile_5_bits_min)
PRODUCT(q2_k, SLUICE_WEIGHT_Q2_K, tile_halves_3_bits_min)
PRODUCT(q3_k, SLUICE_WEIGHT_Q3_K, tile_halves_3_bits)
PRODUCT(q4_k, SLUICE_WEIGHT_Q4_K, tile_4_bits_min)
PRODUCT(q5_k, SLUICE_WEIGHT_Q5_K, tile_5_bits_min)
PRODUCT(q6_k, SLUICE_WEIGHT_Q6_K, tile_halves_6_bits)
PRODUCT(iq4_nl, SLUICE_WEIGHT_IQ4_NL, tile_8_bits)
PRODUCT(iq4_xs, SLUICE_WEIGHT_IQ4_XS, tile_8_bits)
PRODUCT(mxfp4, SLUICE_WEIGHT_MXFP4, tile_5_bits)

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
        __m256i q[4], largest = _mm256_setzero_si256();
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
            out->scale = out->scaled_sum = bits >= 0x7f800000u ? NAN : 0;
            continue;
        }
        out->scale = top / 127.0f;
        inverse = 127.0f / top;
        for (size_t i = 0; i < 4; i++)
            q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inverse))); /* to nearest, ties to even */
        out->sum[0] = add_lanes(_mm256_add_epi32(q[0], q[1]));
        out->sum[1] = add_lanes(_mm256_add_epi32(q[2], q[3]));
        out->scaled_sum = out->scale * (float)(out->sum[0] + out->sum[1]);
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

static inline sums load_sums(const float *x, size_t n)
{
    return load_x16(SLUICE_WEIGHT_F32, (const uint8_t *)x, n < 16 ? n : 16);
}

static void rms_norm(float *out, const float *x, const float *w, size_t n, float eps)
{
    sums s = { _mm256_setzero_ps(), _mm256_setzero_ps() };
    float scale;
    size_t i;

    for (i = 0; i < n; i += 16) {
        const sums v = load_sums(x + i, n - i);

        s.low = _mm256_fmadd_ps(v.low, v.low, s.low);
        s.high = _mm256_fmadd_ps(v.high, v.high, s.high);
    }
    scale = 1.0f / sqrtf(fold(s) / (float)n + eps);
    for (i = 0; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(scale)), _mm256_loadu_ps(w + i)));
    for (; i < n; i++)
        out[i] = x[i] * scale * w[i];
}

static void layer_norm(float *out, const float *x, const float *w, const float *b, size_t n, float eps)
{
    sums total = { _mm256_setzero_ps(), _mm256_setzero_ps() }, squares = total;
    float mean, scale, rest[16];
    size_t i;

    for (i = 0; i < n; i += 16) {
        const sums v = load_sums(x + i, n - i);

        total.low = _mm256_add_ps(total.low, v.low);
        total.high = _mm256_add_ps(total.high, v.high);
    }
    mean = fold(total) / (float)n;
    for (i = 0; i < n; i += 16) {
        const bool is_last = n - i < 16;
        sums v;

        for (size_t j = 0; j < 16 && is_last; j++)
            rest[j] = i + j < n ? x[i + j] : mean;
        v = load_sums(is_last ? rest : x + i, 16);
        v.low = _mm256_sub_ps(v.low, _mm256_set1_ps(mean));
        v.high = _mm256_sub_ps(v.high, _mm256_set1_ps(mean));
        squares.low = _mm256_fmadd_ps(v.low, v.low, squares.low);
        squares.high = _mm256_fmadd_ps(v.high, v.high, squares.high);
    }
    scale = 1.0f / sqrtf(fold(squares) / (float)n + eps);
    for (i = 0; i + 8 <= n; i += 8) {
        const __m256 v = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(mean)), _mm256_set1_ps(scale));

        _mm256_storeu_ps(out + i, _mm256_add_ps(_mm256_mul_ps(v, _mm256_loadu_ps(w + i)), b == NULL ? _mm256_setzero_ps() : _mm256_loadu_ps(b + i)));
    }
    for (; i < n; i++)
        out[i] = (x[i] - mean) * scale * w[i] + (b == NULL ? 0 : b[i]);
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

static inline __m256 tanh_of(__m256 x)
{
    const __m256 one = _mm256_set1_ps(1.0f), two = _mm256_set1_ps(2.0f);

    return _mm256_sub_ps(one, _mm256_div_ps(two, _mm256_add_ps(exp_clamped(_mm256_mul_ps(two, x)), one)));
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

static void soft_cap(float *x, size_t n, float scale, float cap)
{
    const __m256 by = _mm256_set1_ps(scale / cap), limit = _mm256_set1_ps(cap);
    size_t i = 0;

    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(x + i, _mm256_mul_ps(limit, tanh_of(_mm256_mul_ps(_mm256_loadu_ps(x + i), by))));
    if (i < n)
        store_rest(x + i, _mm256_mul_ps(limit, tanh_of(_mm256_mul_ps(load_rest(x + i, n - i), by))), n - i);
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

static inline __m256 gelu_8(__m256 x)
{
    const __m256 cube = _mm256_mul_ps(_mm256_mul_ps(_mm256_set1_ps(0.044715f), x), x);
    const __m256 inner = _mm256_mul_ps(_mm256_set1_ps(0.797884561f), _mm256_fmadd_ps(cube, x, x)); /* sqrt(2 / pi) */

    return _mm256_mul_ps(_mm256_mul_ps(_mm256_set1_ps(0.5f), x), _mm256_add_ps(_mm256_set1_ps(1.0f), tanh_of(inner)));
}

static void gelu_mul(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        const size_t rest = n - i < 8 ? n - i : 8;
        __m256 v = gelu_8(rest == 8 ? _mm256_loadu_ps(gate + i) : load_rest(gate + i, rest));

        if (up != NULL)
            v = _mm256_mul_ps(v, rest == 8 ? _mm256_loadu_ps(up + i) : load_rest(up + i, rest));
        if (rest == 8)
            _mm256_storeu_ps(gate + i, v);
        else
            store_rest(gate + i, v, rest);
    }
}

/* ---- attention */

/* n_queries queries from q on with n_blocks blocks of keys from position `at` of the call on, both small constants. */
INLINE void scores_f16_tile(const sluice_scores *s, size_t q, size_t at, size_t n_queries, size_t n_blocks)
{
    const uint16_t *keys = (const uint16_t *)s->keys + (s->first + at) * s->dim;
    const float *query = (const float *)s->queries + q * s->dim;
    sums y[4][4];

    for (size_t l = 0; l < n_queries; l++)
        for (size_t b = 0; b < n_blocks; b++)
            y[l][b] = (sums){ _mm256_setzero_ps(), _mm256_setzero_ps() };
    for (size_t d = 0; d < s->dim; d++)
        for (size_t b = 0; b < n_blocks; b++) {
            const uint16_t *key = keys + (b * s->dim + d) * SLUICE_KEY_BLOCK;
            const sums k = { load_half8(key), load_half8(key + 8) };

            for (size_t l = 0; l < n_queries; l++) {
                const __m256 x = broadcast_f32(query + l * s->dim + d);

                y[l][b].low = _mm256_fmadd_ps(x, k.low, y[l][b].low);
                y[l][b].high = _mm256_fmadd_ps(x, k.high, y[l][b].high);
            }
        }
    for (size_t l = 0; l < n_queries; l++)
        for (size_t b = 0; b < n_blocks; b++) {
            float *out = s->out + (q + l) * s->out_stride + at + b * SLUICE_KEY_BLOCK;

            _mm256_storeu_ps(out, y[l][b].low);
            _mm256_storeu_ps(out + 8, y[l][b].high);
        }
}

static void scores_f16(const sluice_scores *s)
{
    enum { BLOCK = SLUICE_KEY_BLOCK };
    size_t i = 0;

    for (; i + 4 * BLOCK <= s->n; i += 4 * BLOCK) { /* in the order of memory: all queries over four blocks, which stay in the first cache level */
        size_t q = 0;

        for (; q + 4 <= s->n_queries; q += 4)
            for (size_t b = 0; b < 4; b++)
                scores_f16_tile(s, q, i + b * BLOCK, 4, 1);
        for (; q + 2 <= s->n_queries; q += 2)
            for (size_t b = 0; b < 4; b += 2)
                scores_f16_tile(s, q, i + b * BLOCK, 2, 2);
        if (q < s->n_queries)
            scores_f16_tile(s, q, i, 1, 4);
    }
    for (; i < s->n; i += BLOCK) {
        size_t q = 0;

        for (; q + 4 <= s->n_queries; q += 4)
            scores_f16_tile(s, q, i, 4, 1);
        for (; q < s->n_queries; q++)
            scores_f16_tile(s, q, i, 1, 1);
    }
}

/* n_queries queries with the block of keys at position `at` of the call. */
INLINE void scores_q8_tile(const sluice_scores *s, size_t q, size_t at, size_t n_queries)
{
    enum { GROUP_BYTES = SLUICE_KEY_BLOCK * (4 + SLUICE_Q_LEN) };
    const size_t n_groups = s->dim / SLUICE_Q_LEN;
    const uint8_t *group = (const uint8_t *)s->keys + (s->first + at) / SLUICE_KEY_BLOCK * n_groups * GROUP_BYTES;
    const sluice_q8 *query = (const sluice_q8 *)s->queries + q * n_groups;
    sums y[2];

    for (size_t l = 0; l < n_queries; l++)
        y[l] = (sums){ _mm256_setzero_ps(), _mm256_setzero_ps() };
    for (size_t g = 0; g < n_groups; g++, group += GROUP_BYTES) {
        const uint8_t *key = group + 4 * SLUICE_KEY_BLOCK;
        __m256i low[2], high[2];

        for (size_t l = 0; l < n_queries; l++)
            low[l] = high[l] = _mm256_setzero_si256();
        for (size_t u = 0; u < SLUICE_Q_LEN / 4; u++) {
            const __m256i first = load_256(key + 64 * u), second = load_256(key + 64 * u + 32);

            for (size_t l = 0; l < n_queries; l++) {
                const __m256i x = _mm256_set1_epi32(load_i32(query[l * n_groups + g].q + 4 * u));

                low[l] = _mm256_add_epi32(low[l], widen(multiply(first, x, true)));
                high[l] = _mm256_add_epi32(high[l], widen(multiply(second, x, true)));
            }
        }
        for (size_t l = 0; l < n_queries; l++) {
            const __m256 scale = broadcast_f32(&query[l * n_groups + g].scale);

            y[l].low = _mm256_fmadd_ps(_mm256_mul_ps(load_8(group), scale), _mm256_cvtepi32_ps(low[l]), y[l].low);
            y[l].high = _mm256_fmadd_ps(_mm256_mul_ps(load_8(group + 32), scale), _mm256_cvtepi32_ps(high[l]), y[l].high);
        }
    }
    for (size_t l = 0; l < n_queries; l++) {
        float *out = s->out + (q + l) * s->out_stride + at;

        _mm256_storeu_ps(out, y[l].low);
        _mm256_storeu_ps(out + 8, y[l].high);
    }
}

static void scores_q8(const sluice_scores *s)
{
    for (size_t i = 0; i < s->n; i += SLUICE_KEY_BLOCK) {
        size_t q = 0;

        for (; q + 2 <= s->n_queries; q += 2)
            scores_q8_tile(s, q, i, 2);
        if (q < s->n_queries)
            scores_q8_tile(s, q, i, 1);
    }
}

/* n_queries and n_parts (of eight numbers) are small constants: their sums stay in registers while the rows go by. */
INLINE void mix_f16_tile(const sluice_mix *m, size_t q, size_t j, size_t n_queries, size_t n_parts)
{
    const uint16_t *row = (const uint16_t *)m->v + j;
    __m256 s[4][8];

    for (size_t l = 0; l < n_queries; l++)
        for (size_t k = 0; k < n_parts; k++)
            s[l][k] = _mm256_setzero_ps();
    for (size_t i = 0; i < m->n; i++, row += m->v_stride)
        for (size_t k = 0; k < n_parts; k++) {
            const __m256 v = load_half8(row + 8 * k);

            for (size_t l = 0; l < n_queries; l++)
                s[l][k] = _mm256_fmadd_ps(broadcast_f32(&m->weights[(q + l) * m->weights_stride + i]), v, s[l][k]);
        }
    for (size_t l = 0; l < n_queries; l++)
        for (size_t k = 0; k < n_parts; k++)
            _mm256_storeu_ps(m->out + (q + l) * m->out_stride + j + 8 * k, s[l][k]);
}

/* One row of results for each query, up to n_queries, n_parts registers wide. */
INLINE void mix_f16_column(const sluice_mix *m, size_t j, size_t n_parts)
{
    size_t q = 0;

    for (; q + 4 <= m->n_queries && n_parts <= 2; q += 4)
        mix_f16_tile(m, q, j, 4, n_parts);
    for (; q + 2 <= m->n_queries && n_parts <= 4; q += 2)
        mix_f16_tile(m, q, j, 2, n_parts);
    for (; q < m->n_queries; q++)
        mix_f16_tile(m, q, j, 1, n_parts);
}

static void mix_f16(const sluice_mix *m)
{
    size_t j = 0;

    for (; j + 64 <= m->dim && m->n_queries == 1; j += 64)
        mix_f16_column(m, j, 8);
    for (; j + 32 <= m->dim && m->n_queries < 4; j += 32)
        mix_f16_column(m, j, 4);
    for (; j + 16 <= m->dim; j += 16)
        mix_f16_column(m, j, 2);
    for (; j + 8 <= m->dim; j += 8)
        mix_f16_column(m, j, 1);
    for (; j < m->dim; j++)
        for (size_t q = 0; q < m->n_queries; q++) {
            const uint16_t *v = m->v;
            float sum = 0;

            for (size_t i = 0; i < m->n; i++)
                sum = fmaf(m->weights[q * m->weights_stride + i], _cvtsh_ss(v[i * m->v_stride + j]), sum);
            m->out[q * m->out_stride + j] = sum;
        }
}

/* Block b of each row with n_queries queries. */
INLINE void mix_q8_tile(const sluice_mix *m, size_t q, size_t b, size_t n_queries)
{
    const uint8_t *block = (const uint8_t *)m->v + b * block_bytes_of(SLUICE_WEIGHT_Q8_0);
    __m256 s[2][4];

    for (size_t l = 0; l < n_queries; l++)
        for (size_t k = 0; k < 4; k++)
            s[l][k] = _mm256_setzero_ps();
    for (size_t i = 0; i < m->n; i++, block += m->v_stride) {
        const float d = load_f16(block);
        __m256 v[4];

        for (size_t k = 0; k < 4; k++)
            v[k] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(block + 2 + 8 * k))));
        for (size_t l = 0; l < n_queries; l++) {
            const __m256 weight = _mm256_set1_ps(m->weights[(q + l) * m->weights_stride + i] * d);

            for (size_t k = 0; k < 4; k++)
                s[l][k] = _mm256_fmadd_ps(weight, v[k], s[l][k]);
        }
    }
    for (size_t l = 0; l < n_queries; l++)
        for (size_t k = 0; k < 4; k++)
            _mm256_storeu_ps(m->out + (q + l) * m->out_stride + b * SLUICE_Q_LEN + 8 * k, s[l][k]);
}

static void mix_q8(const sluice_mix *m)
{
    for (size_t b = 0; b < m->dim / SLUICE_Q_LEN; b++) {
        size_t q = 0;

        for (; q + 2 <= m->n_queries; q += 2)
            mix_q8_tile(m, q, b, 2);
        if (q < m->n_queries)
            mix_q8_tile(m, q, b, 1);
    }
}

void sluice_kernels_install_avx2(sluice_kernels *k)
{
    k->isa = "avx2";
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
    k->to_f16 = to_f16;
    k->rms_norm = rms_norm;
    k->layer_norm = layer_norm;
    k->softmax = softmax;
    k->soft_cap = soft_cap;
    k->silu_mul = silu_mul;
    k->gelu_mul = gelu_mul;
    k->scores_f16 = scores_f16;
    k->scores_q8 = scores_q8;
    k->mix_f16 = mix_f16;
    k->mix_q8 = mix_q8;
}
