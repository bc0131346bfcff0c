/* kernels_avx512.h - sixteen rows of any quantized format in AVX-512 registers, and strips made of them.
 *
 * Four rows share a register.  Of sixteen rows r … r + 15 register i holds, in its 128-bit lane l, sixteen weights of row 4 l + i:
 *
 *     register 0:  row 0   row 4   row 8    row 12        Every 4 x 4 step inside the lanes (a transposition, a sum of four numbers) over the four
 *     register 1:  row 1   row 5   row 9    row 13        registers then leaves the sixteen rows in their natural order, without a shuffle across lanes.
 *     register 2:  row 2   row 6   row 10   row 14
 *     register 3:  row 3   row 7   row 11   row 15
 *
 * Weights come out as unsigned bytes u = q + offset_of(type), as dpbusd wants them.  Nothing here reads a byte outside the rows: every load of sixteen bytes
 * lies within one block.
 *
 * A strip is 32 rows of a piece of the columns, uniform for all formats.  For each group of 32 columns:
 *
 *     (8, 32, 4) bytes     unit k of a row: its weights 4 k … 4 k + 3
 *     (halves, 32) f32     scales
 *     (halves, 32) f32     mins, where the format has them
 *
 * Functions that are called with constants are inlined by force: what depends on the format must be gone after compilation.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_KERNELS_KERNELS_AVX512_H
#define SLUICE_LOCAL_ENGINE_KERNELS_KERNELS_AVX512_H

#include "local-engine/kernels/kernels.h"

#include <immintrin.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLUICE_INLINE static inline /* with every access checked, all of it in one function takes a compiler minutes */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SLUICE_INLINE static inline
#endif
#endif
#ifndef SLUICE_INLINE
#define SLUICE_INLINE static inline __attribute__((always_inline))
#endif

enum {
    STRIP_ROWS = 32,
    STRIP_UNIT_BYTES = 4 * STRIP_ROWS,          /* one unit of all rows; also the bytes of one scale of all rows */
    STRIP_Q_BYTES = SLUICE_Q_LEN * STRIP_ROWS,
    STRIP_COLS = 2048,                          /* of a piece: its activations, for 512 tokens, and two strips fit in 2 MB of cache */
    /* Bytes between a load and the prefetch of what it will read, at least: one core of a Xeon (model 207) wants 4 to 8 KB asked for ahead of the loads to
     * stream at the speed of its memory, and its own prefetcher does not follow rows in sixteen streams. */
    PREFETCH_BYTES = 8192
};

/* ---- what the formats look like, as constants */

SLUICE_INLINE bool has_halves(sluice_weight type)
{
    return type == SLUICE_WEIGHT_Q2_K || type == SLUICE_WEIGHT_Q3_K || type == SLUICE_WEIGHT_Q6_K;
}

SLUICE_INLINE bool has_min(sluice_weight type)
{
    return type == SLUICE_WEIGHT_Q4_1 || type == SLUICE_WEIGHT_Q5_1 || type == SLUICE_WEIGHT_Q2_K || type == SLUICE_WEIGHT_Q4_K || type == SLUICE_WEIGHT_Q5_K;
}

SLUICE_INLINE size_t block_bytes_of(sluice_weight type)
{
    switch (type) {
    case SLUICE_WEIGHT_Q8_0: return 34;
    case SLUICE_WEIGHT_Q4_0: return 18;
    case SLUICE_WEIGHT_Q4_1: return 20;
    case SLUICE_WEIGHT_Q5_0: return 22;
    case SLUICE_WEIGHT_Q5_1: return 24;
    case SLUICE_WEIGHT_Q2_K: return 84;
    case SLUICE_WEIGHT_Q3_K: return 110;
    case SLUICE_WEIGHT_Q4_K: return 144;
    case SLUICE_WEIGHT_Q5_K: return 176;
    case SLUICE_WEIGHT_Q6_K: return 210;
    case SLUICE_WEIGHT_IQ4_NL: return 18;
    case SLUICE_WEIGHT_IQ4_XS: return 136;
    case SLUICE_WEIGHT_MXFP4: return 17;
    default: return 0;
    }
}

/* Groups of a block; they come in parts that differ by an address alone, so that a part's code is there once. */
SLUICE_INLINE size_t groups_of(sluice_weight type)
{
    return type >= SLUICE_WEIGHT_Q2_K && type <= SLUICE_WEIGHT_Q6_K ? 8 : type == SLUICE_WEIGHT_IQ4_XS ? 8 : 1;
}

SLUICE_INLINE size_t part_groups_of(sluice_weight type)
{
    switch (type) {
    case SLUICE_WEIGHT_Q2_K:
    case SLUICE_WEIGHT_Q3_K:
    case SLUICE_WEIGHT_Q6_K: return 4;
    case SLUICE_WEIGHT_Q4_K:
    case SLUICE_WEIGHT_Q5_K: return 2;
    default: return 1;
    }
}

/* What is added to q to make it unsigned. */
SLUICE_INLINE int32_t offset_of(sluice_weight type)
{
    switch (type) {
    case SLUICE_WEIGHT_Q8_0:
    case SLUICE_WEIGHT_IQ4_NL:
    case SLUICE_WEIGHT_IQ4_XS: return 128;
    case SLUICE_WEIGHT_Q4_0: return 8;
    case SLUICE_WEIGHT_Q5_0: return 16;
    case SLUICE_WEIGHT_Q3_K: return 4;
    case SLUICE_WEIGHT_Q6_K: return 32;
    case SLUICE_WEIGHT_MXFP4: return 12;
    default: return 0;
    }
}

SLUICE_INLINE size_t strip_group_bytes(sluice_weight type)
{
    return STRIP_Q_BYTES + (size_t)STRIP_UNIT_BYTES * (has_halves(type) ? 2 : 1) * (has_min(type) ? 2 : 1);
}

/* ---- sixteen rows */

/* p: the sixteen bytes of row 0; the other rows' follow row_bytes apart. */
SLUICE_INLINE void load_quads(__m512i q[4], const uint8_t *p, size_t row_bytes)
{
    for (size_t i = 0; i < 4; i++) {
        const uint8_t *r = p + i * row_bytes;

        q[i] = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)r));
        q[i] = _mm512_inserti32x4(q[i], _mm_loadu_si128((const __m128i *)(const void *)(r + 4 * row_bytes)), 1);
        q[i] = _mm512_inserti32x4(q[i], _mm_loadu_si128((const __m128i *)(const void *)(r + 8 * row_bytes)), 2);
        q[i] = _mm512_inserti32x4(q[i], _mm_loadu_si128((const __m128i *)(const void *)(r + 12 * row_bytes)), 3);
    }
}

/* out[k]: word k of the sixteen rows' four 32-bit words. */
SLUICE_INLINE void transpose_quads(__m512i out[4], const __m512i q[4])
{
    const __m512i a = _mm512_unpacklo_epi32(q[0], q[1]), b = _mm512_unpacklo_epi32(q[2], q[3]);
    const __m512i c = _mm512_unpackhi_epi32(q[0], q[1]), d = _mm512_unpackhi_epi32(q[2], q[3]);

    out[0] = _mm512_unpacklo_epi64(a, b);
    out[1] = _mm512_unpackhi_epi64(a, b);
    out[2] = _mm512_unpacklo_epi64(c, d);
    out[3] = _mm512_unpackhi_epi64(c, d);
}

/* The sum of each row's four words. */
SLUICE_INLINE __m512i add_quads(const __m512i q[4])
{
    const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(q[0], q[1]), _mm512_unpackhi_epi32(q[0], q[1]));
    const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(q[2], q[3]), _mm512_unpackhi_epi32(q[2], q[3]));

    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/* Sixteen f16 numbers in the low halves of 32-bit words; the high halves do not matter. */
SLUICE_INLINE __m512 low_halves(__m512i words)
{
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
}

/* One f16 number of each row. */
SLUICE_INLINE __m512 load_halves(const uint8_t *p, size_t row_bytes)
{
    uint16_t h[16];
    __m128i low, high;

    for (size_t i = 0; i < 16; i++)
        memcpy(&h[i], p + i * row_bytes, sizeof h[i]);
    low = _mm_setr_epi16((short)h[0], (short)h[1], (short)h[2], (short)h[3], (short)h[4], (short)h[5], (short)h[6], (short)h[7]);
    high = _mm_setr_epi16((short)h[8], (short)h[9], (short)h[10], (short)h[11], (short)h[12], (short)h[13], (short)h[14], (short)h[15]);
    return _mm512_cvtph_ps(_mm256_set_m128i(high, low));
}

/* One 32-bit word of each row. */
SLUICE_INLINE __m512i load_words(const uint8_t *p, size_t row_bytes)
{
    int32_t v[16];

    for (size_t i = 0; i < 16; i++)
        memcpy(&v[i], p + i * row_bytes, sizeof v[i]);
    return _mm512_setr_epi32(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11], v[12], v[13], v[14], v[15]);
}

/* a | (b & mask) */
SLUICE_INLINE __m512i or_masked(__m512i a, __m512i b, __m512i mask)
{
    return _mm512_ternarylogic_epi32(a, b, mask, 0xf8);
}

SLUICE_INLINE void split_nibbles(__m512i q[2][4], const __m512i bytes[4])
{
    const __m512i mask = _mm512_set1_epi8(15);

    for (size_t i = 0; i < 4; i++) {
        q[0][i] = _mm512_and_si512(bytes[i], mask);
        q[1][i] = _mm512_and_si512(_mm512_srli_epi16(bytes[i], 4), mask);
    }
}

/* Nibbles become table entries. */
SLUICE_INLINE void look_up(__m512i q[2][4], const uint8_t table[16])
{
    const __m512i t = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)table));

    for (size_t i = 0; i < 4; i++) {
        q[0][i] = _mm512_shuffle_epi8(t, q[0][i]);
        q[1][i] = _mm512_shuffle_epi8(t, q[1][i]);
    }
}

/* The fifth bits of blocks of 32 weights: bit j of the 32-bit word at p belongs to weight j.  Reads sixteen bytes at p. */
SLUICE_INLINE void add_fifth_bits(__m512i q[2][4], const uint8_t *p, size_t row_bytes)
{
    const __m512i bit = _mm512_set1_epi64((long long)0x8040201008040201), sixteen = _mm512_set1_epi8(16);
    const __m512i low = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1));
    const __m512i high = _mm512_broadcast_i32x4(_mm_setr_epi8(2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3));
    __m512i bits[4];

    load_quads(bits, p, row_bytes);
    for (size_t i = 0; i < 4; i++) {
        q[0][i] = _mm512_mask_add_epi8(q[0][i], _mm512_test_epi8_mask(_mm512_shuffle_epi8(bits[i], low), bit), q[0][i], sixteen);
        q[1][i] = _mm512_mask_add_epi8(q[1][i], _mm512_test_epi8_mask(_mm512_shuffle_epi8(bits[i], high), bit), q[1][i], sixteen);
    }
}

/* Moves bit `from` of each byte to bit `to`; the other bits are to be masked. */
SLUICE_INLINE __m512i move_bit(__m512i v, unsigned from, unsigned to)
{
    return from < to ? _mm512_slli_epi32(v, to - from) : _mm512_srli_epi32(v, from - to);
}

/* Adds `value` to the bytes of q where `bit` is set in those of v. */
SLUICE_INLINE __m512i add_bit(__m512i q, __m512i v, unsigned bit, int value)
{
    return _mm512_mask_add_epi8(q, _mm512_test_epi8_mask(v, _mm512_set1_epi8((char)(1u << bit))), q, _mm512_set1_epi8((char)value));
}

/* 32 weights of sixteen rows, as unsigned bytes: q[0] the first half of the group, q[1] the second.
 * The group is number k, a constant, of part `part` of the block. */
SLUICE_INLINE void unpack_group(sluice_weight type, __m512i q[2][4], const uint8_t *block, size_t row_bytes, size_t part, unsigned k)
{
    static const uint8_t iq4_values[16] = { 1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241 };  /* 128 added */
    static const uint8_t e2m1_values[16] = { 12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0 };               /* 12 added */
    __m512i bytes[4], high[4];

    switch (type) {
    case SLUICE_WEIGHT_Q8_0:
        for (size_t h = 0; h < 2; h++) {
            load_quads(q[h], block + 2 + 16 * h, row_bytes);
            for (size_t i = 0; i < 4; i++)
                q[h][i] = _mm512_xor_si512(q[h][i], _mm512_set1_epi8((char)0x80));
        }
        break;
    case SLUICE_WEIGHT_Q4_0:
    case SLUICE_WEIGHT_Q4_1:
        load_quads(bytes, block + (type == SLUICE_WEIGHT_Q4_0 ? 2 : 4), row_bytes);
        split_nibbles(q, bytes);
        break;
    case SLUICE_WEIGHT_Q5_0:
    case SLUICE_WEIGHT_Q5_1:
        load_quads(bytes, block + (type == SLUICE_WEIGHT_Q5_0 ? 6 : 8), row_bytes);
        split_nibbles(q, bytes);
        add_fifth_bits(q, block + (type == SLUICE_WEIGHT_Q5_0 ? 2 : 4), row_bytes);
        break;
    case SLUICE_WEIGHT_IQ4_NL:
    case SLUICE_WEIGHT_IQ4_XS:
        load_quads(bytes, block + (type == SLUICE_WEIGHT_IQ4_NL ? 2 : 8 + 16 * part), row_bytes);
        split_nibbles(q, bytes);
        look_up(q, iq4_values);
        break;
    case SLUICE_WEIGHT_MXFP4:
        load_quads(bytes, block + 1, row_bytes);
        split_nibbles(q, bytes);
        look_up(q, e2m1_values);
        break;
    case SLUICE_WEIGHT_Q4_K:
    case SLUICE_WEIGHT_Q5_K:
        for (size_t h = 0; h < 2; h++) {
            load_quads(q[h], block + (type == SLUICE_WEIGHT_Q4_K ? 16 : 48) + 32 * part + 16 * h, row_bytes);
            if (type == SLUICE_WEIGHT_Q5_K)
                load_quads(high, block + 16 + 16 * h, row_bytes);
            for (size_t i = 0; i < 4; i++) {
                q[h][i] = _mm512_and_si512(k == 0 ? q[h][i] : _mm512_srli_epi16(q[h][i], 4), _mm512_set1_epi8(15));
                if (type == SLUICE_WEIGHT_Q5_K)
                    q[h][i] = add_bit(q[h][i], high[i], (unsigned)(2 * part) + k, 16);
            }
        }
        break;
    case SLUICE_WEIGHT_Q6_K:
        for (size_t h = 0; h < 2; h++) {
            load_quads(q[h], block + 64 * part + 32 * (k % 2) + 16 * h, row_bytes);
            load_quads(high, block + 128 + 32 * part + 16 * h, row_bytes);
            for (size_t i = 0; i < 4; i++) {
                q[h][i] = _mm512_and_si512(k < 2 ? q[h][i] : _mm512_srli_epi16(q[h][i], 4), _mm512_set1_epi8(15));
                q[h][i] = or_masked(q[h][i], move_bit(high[i], 2 * k, 4), _mm512_set1_epi8(0x30));
            }
        }
        break;
    case SLUICE_WEIGHT_Q2_K:
        for (size_t h = 0; h < 2; h++) {
            load_quads(q[h], block + 16 + 32 * part + 16 * h, row_bytes);
            for (size_t i = 0; i < 4; i++)
                q[h][i] = _mm512_and_si512(move_bit(q[h][i], 2 * k, 0), _mm512_set1_epi8(3));
        }
        break;
    case SLUICE_WEIGHT_Q3_K:
        for (size_t h = 0; h < 2; h++) {
            load_quads(q[h], block + 32 + 32 * part + 16 * h, row_bytes);
            load_quads(high, block + 16 * h, row_bytes);
            for (size_t i = 0; i < 4; i++) {
                q[h][i] = _mm512_and_si512(move_bit(q[h][i], 2 * k, 0), _mm512_set1_epi8(3));
                q[h][i] = add_bit(q[h][i], high[i], (unsigned)(4 * part) + k, 4);
            }
        }
        break;
    default:
        break;
    }
}

/* Scales and mins of a block in sixteen rows: of group g, or of half h of it in number 2 g + h. */
typedef struct scales16 {
    __m512 scale[16], min[16];
} scales16;

/* Four scales a word, from the lowest byte up, times d. */
SLUICE_INLINE void scale_bytes(__m512 out[4], __m512 d, __m512i words, bool is_signed, int32_t minus)
{
    for (unsigned i = 0; i < 4; i++) {
        __m512i v;

        if (is_signed)
            v = _mm512_srai_epi32(i == 3 ? words : _mm512_slli_epi32(words, 24 - 8 * i), 24);
        else
            v = i == 3 ? _mm512_srli_epi32(words, 24) : _mm512_and_si512(i == 0 ? words : _mm512_srli_epi32(words, 8 * i), _mm512_set1_epi32(255));
        if (minus != 0)
            v = _mm512_sub_epi32(v, _mm512_set1_epi32(minus));
        out[i] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(v));
    }
}

SLUICE_INLINE __m512 negated(__m512 v)
{
    return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(v), _mm512_set1_epi32(INT32_MIN)));
}

SLUICE_INLINE void block_scales(sluice_weight type, scales16 *s, const uint8_t *block, size_t row_bytes)
{
    const __m512i nibbles = _mm512_set1_epi8(15), pairs = _mm512_set1_epi8(0x30), six = _mm512_set1_epi8(63);
    __m512i q[4], w[4];
    __m512 d, m;

    switch (type) {
    case SLUICE_WEIGHT_Q4_1:
    case SLUICE_WEIGHT_Q5_1:
        w[0] = load_words(block, row_bytes);
        s->scale[0] = low_halves(w[0]);
        s->min[0] = low_halves(_mm512_srli_epi32(w[0], 16));
        break;
    case SLUICE_WEIGHT_MXFP4: { /* 2^(e - 128): for e of 2 and more the exponent's bits, for 0 and 1 a subnormal number */
        const __m512i e = _mm512_and_si512(load_words(block, row_bytes), _mm512_set1_epi32(255));
        const __m512i small = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
        const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);

        s->scale[0] = _mm512_castsi512_ps(_mm512_mask_mov_epi32(normal, _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2)), small));
        break;
    }
    case SLUICE_WEIGHT_Q4_K:
    case SLUICE_WEIGHT_Q5_K: /* d, dmin and twelve bytes; see six_bit_pair() in kernels.c */
        load_quads(q, block, row_bytes);
        transpose_quads(w, q);
        d = low_halves(w[0]);
        m = negated(low_halves(_mm512_srli_epi32(w[0], 16)));
        scale_bytes(s->scale, d, _mm512_and_si512(w[1], six), false, 0);
        scale_bytes(s->min, m, _mm512_and_si512(w[2], six), false, 0);
        scale_bytes(s->scale + 4, d, or_masked(_mm512_and_si512(w[3], nibbles), _mm512_srli_epi32(w[1], 2), pairs), false, 0);
        scale_bytes(s->min + 4, m, or_masked(_mm512_and_si512(_mm512_srli_epi32(w[3], 4), nibbles), _mm512_srli_epi32(w[2], 2), pairs), false, 0);
        break;
    case SLUICE_WEIGHT_Q6_K:
        load_quads(q, block + 192, row_bytes);
        transpose_quads(w, q);
        d = load_halves(block + 208, row_bytes);
        for (size_t i = 0; i < 4; i++)
            scale_bytes(s->scale + 4 * i, d, w[i], true, 0);
        break;
    case SLUICE_WEIGHT_Q2_K:
        load_quads(q, block, row_bytes);
        transpose_quads(w, q);
        q[0] = load_words(block + 80, row_bytes);
        d = low_halves(q[0]);
        m = negated(low_halves(_mm512_srli_epi32(q[0], 16)));
        for (size_t i = 0; i < 4; i++) {
            scale_bytes(s->scale + 4 * i, d, _mm512_and_si512(w[i], nibbles), false, 0);
            scale_bytes(s->min + 4 * i, m, _mm512_and_si512(_mm512_srli_epi32(w[i], 4), nibbles), false, 0);
        }
        break;
    case SLUICE_WEIGHT_Q3_K: /* the last sixteen bytes of a block: two of the weights, twelve of the scales, d; see q3_scale() in kernels.c */
        load_quads(q, block + 94, row_bytes);
        for (size_t i = 0; i < 4; i++)
            q[i] = _mm512_bsrli_epi128(q[i], 2);
        transpose_quads(w, q);
        d = low_halves(w[3]);
        for (unsigned i = 0; i < 4; i++) {
            const __m512i low = _mm512_and_si512(i < 2 ? w[i] : _mm512_srli_epi32(w[i - 2], 4), nibbles);

            scale_bytes(s->scale + 4 * i, d, or_masked(low, i <= 2 ? _mm512_slli_epi32(w[2], 4 - 2 * i) : _mm512_srli_epi32(w[2], 2), pairs), false, 32);
        }
        break;
    case SLUICE_WEIGHT_IQ4_XS:
        load_quads(q, block, row_bytes);
        transpose_quads(w, q);
        d = low_halves(w[0]);
        for (unsigned g = 0; g < 8; g++) {
            const __m512i low = _mm512_and_si512(_mm512_srli_epi32(w[1], 4 * g), _mm512_set1_epi32(15));
            const __m512i v = or_masked(low, _mm512_srli_epi32(w[0], 12 + 2 * g), _mm512_set1_epi32(0x30));

            s->scale[g] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_sub_epi32(v, _mm512_set1_epi32(32))));
        }
        break;
    default:
        s->scale[0] = load_halves(block, row_bytes);
        break;
    }
}

/* Asks for the next `bytes` at p. */
SLUICE_INLINE void prefetch_bytes(const uint8_t *p, size_t bytes)
{
    for (size_t line = 0; line < bytes; line += 64)
        _mm_prefetch((const char *)(p + line), _MM_HINT_T1);
}

/* ---- strips */

/* Group k of a part, number g of its block, to a strip. */
SLUICE_INLINE void strip_group(sluice_weight type, uint8_t *out, const uint8_t *block, size_t row_bytes, const scales16 *s, size_t part, unsigned k)
{
    const size_t halves = has_halves(type) ? 2 : 1, g = part * part_groups_of(type) + k;
    uint8_t *scales = out + STRIP_Q_BYTES;
    __m512i q[2][4], units[4];

    unpack_group(type, q, block, row_bytes, part, k);
    for (size_t h = 0; h < 2; h++) {
        transpose_quads(units, q[h]);
        for (size_t i = 0; i < 4; i++)
            _mm512_store_si512(out + (4 * h + i) * STRIP_UNIT_BYTES, units[i]);
    }
    for (size_t h = 0; h < halves; h++) {
        _mm512_store_ps(scales + h * STRIP_UNIT_BYTES, s->scale[halves * g + h]);
        if (has_min(type))
            _mm512_store_ps(scales + (halves + h) * STRIP_UNIT_BYTES, s->min[halves * g + h]);
    }
}

/* Sixteen rows from w on, n_blocks blocks each, to their places in a strip: out is the strip's start, plus 64 bytes for rows 16 … 31. */
SLUICE_INLINE void make_half_strip(sluice_weight type, uint8_t *out, const uint8_t *w, size_t row_bytes, size_t n_blocks)
{
    const size_t per_part = part_groups_of(type), step = strip_group_bytes(type);

    for (size_t b = 0; b < n_blocks; b++, w += block_bytes_of(type)) {
        scales16 s;

        block_scales(type, &s, w, row_bytes);
        for (size_t part = 0; part < groups_of(type) / per_part; part++, out += per_part * step) {
            strip_group(type, out, w, row_bytes, &s, part, 0);
            if (per_part >= 2)
                strip_group(type, out + step, w, row_bytes, &s, part, 1);
            if (per_part >= 4) {
                strip_group(type, out + 2 * step, w, row_bytes, &s, part, 2);
                strip_group(type, out + 3 * step, w, row_bytes, &s, part, 3);
            }
        }
    }
}

#endif
