/* kernels_neon_dotprod.c - 64-bit ARM with the dot product instructions (ARMv8.2 and later): 4 floats or 16 bytes a register.
 *
 * sdot adds four products of signed bytes into each 32-bit lane, so neither the sign nor the range of a weight matters, and there is no offset to
 * pay for.  All formats share three pieces of code: what a block unpacks into, a loop for a few tokens and a loop that makes strips.
 *
 * A few tokens (decode) read four rows side by side, as they lie in the file, once for all of them.  The four sums of a group fold into one register by
 * three pairwise additions, lane = row; scales and mins of a block are made as vectors over the four rows as well.
 *
 * Many tokens (prefill) run over strips (kernels_neon.h), two registers of rows for each unit of four bytes, so that sdot by lane takes its four
 * activation bytes from one of sixteen that were loaded at once.  kernels_neon_i8mm.c has the other loop over strips.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/kernels/kernels_neon.h"

#include <math.h>

/* ---- formats: four rows of a block as vectors */

/* What the code for a format is specialized for; a constant wherever it is used.  The traits repeat sluice_weight_table, which is not one. */
typedef struct format {
    sluice_weight type;
    size_t block_bytes;
    bool is_long;               /* blocks of 256, not of 32 */
    bool has_halves, has_min;
} format;

typedef struct pair {
    int8x16_t low, high;        /* weights 0 … 15 and 16 … 31 of a group */
} pair;

typedef struct scales {
    float32x4_t scale[16], min[16];     /* of group (or half) i of a block, lane = row */
} scales;

/* Transposes 4-byte units: in[row] holds units 0 … 3 of a row, out[unit] that unit of rows 0 … 3. */
NEON_INLINE void transpose(uint8x16_t out[4], const uint8x16_t in[4])
{
    const uint32x4_t a = vreinterpretq_u32_u8(in[0]), b = vreinterpretq_u32_u8(in[1]), c = vreinterpretq_u32_u8(in[2]),
                     d = vreinterpretq_u32_u8(in[3]);
    const uint64x2_t ab_even = vreinterpretq_u64_u32(vtrn1q_u32(a, b)), ab_odd = vreinterpretq_u64_u32(vtrn2q_u32(a, b));
    const uint64x2_t cd_even = vreinterpretq_u64_u32(vtrn1q_u32(c, d)), cd_odd = vreinterpretq_u64_u32(vtrn2q_u32(c, d));

    out[0] = vreinterpretq_u8_u64(vtrn1q_u64(ab_even, cd_even));
    out[1] = vreinterpretq_u8_u64(vtrn1q_u64(ab_odd, cd_odd));
    out[2] = vreinterpretq_u8_u64(vtrn2q_u64(ab_even, cd_even));
    out[3] = vreinterpretq_u8_u64(vtrn2q_u64(ab_odd, cd_odd));
}

/* Bytes at … at + 15 of four blocks, by units. */
NEON_INLINE void load_units(uint8x16_t out[4], const uint8_t *const b[4], size_t at)
{
    uint8x16_t rows[4];

    for (size_t i = 0; i < 4; i++)
        rows[i] = vld1q_u8(b[i] + at);
    transpose(out, rows);
}

/* Four bytes of each of four blocks. */
NEON_INLINE uint8x16_t load_unit(const uint8_t *const b[4], size_t at)
{
    uint32_t v[4];

    for (size_t i = 0; i < 4; i++)
        memcpy(&v[i], b[i] + at, sizeof v[i]);
    return vreinterpretq_u8_u32(vld1q_u32(v));
}

/* One f16 of each of four blocks. */
NEON_INLINE float32x4_t load_f16_of(const uint8_t *const b[4], size_t at)
{
    uint16_t h[4];

    for (size_t i = 0; i < 4; i++)
        memcpy(&h[i], b[i] + at, sizeof h[i]);
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(h)));
}

/* The first and the second f16 of each unit. */
NEON_INLINE float32x4_t first_f16(uint8x16_t units)
{
    const uint16x8_t h = vreinterpretq_u16_u8(units);

    return vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(vuzp1q_u16(h, h))));
}

NEON_INLINE float32x4_t second_f16(uint8x16_t units)
{
    const uint16x8_t h = vreinterpretq_u16_u8(units);

    return vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(vuzp2q_u16(h, h))));
}

/* d times signed byte j of each unit.  The table moves it to the top of its lane, and the conversion takes 24 bits as fraction. */
NEON_INLINE float32x4_t times_byte(float32x4_t d, uint8x16_t units, size_t j)
{
    static const uint8_t byte_to_top[4][16] = {
        { 16, 16, 16, 0, 16, 16, 16, 4, 16, 16, 16, 8, 16, 16, 16, 12 },
        { 16, 16, 16, 1, 16, 16, 16, 5, 16, 16, 16, 9, 16, 16, 16, 13 },
        { 16, 16, 16, 2, 16, 16, 16, 6, 16, 16, 16, 10, 16, 16, 16, 14 },
        { 16, 16, 16, 3, 16, 16, 16, 7, 16, 16, 16, 11, 16, 16, 16, 15 },
    };

    return vmulq_f32(d, vcvtq_n_f32_s32(vreinterpretq_s32_u8(vqtbl1q_u8(units, vld1q_u8(byte_to_top[j]))), 24));
}

NEON_INLINE void times_bytes(float32x4_t out[4], float32x4_t d, uint8x16_t units)
{
    for (size_t j = 0; j < 4; j++)
        out[j] = times_byte(d, units, j);
}

NEON_INLINE uint8x16_t and8(uint8x16_t a, uint8_t mask)
{
    return vandq_u8(a, vdupq_n_u8(mask));
}

NEON_INLINE void scales_q2_k(scales *s, const uint8_t *const b[4])
{
    const uint8x16_t ends = load_unit(b, 80);
    const float32x4_t d = first_f16(ends), minus = vnegq_f32(second_f16(ends));
    uint8x16_t v[4];

    load_units(v, b, 0);
    for (size_t i = 0; i < 4; i++) {
        times_bytes(&s->scale[4 * i], d, and8(v[i], 15));
        times_bytes(&s->min[4 * i], minus, vshrq_n_u8(v[i], 4));
    }
}

/* The twelve bytes of scales begin at 96; the sixteen loaded begin two earlier and end with the block. */
NEON_INLINE void scales_q3_k(scales *s, const uint8_t *const b[4])
{
    uint8x16_t rows[4], v[4], high;
    float32x4_t d;

    for (size_t i = 0; i < 4; i++) {
        rows[i] = vld1q_u8(b[i] + 94);
        rows[i] = vextq_u8(rows[i], rows[i], 2);
    }
    transpose(v, rows);
    d = first_f16(v[3]);
    for (size_t i = 0; i < 4; i++) {
        high = i == 0 ? vshlq_n_u8(v[2], 4) : i == 1 ? vshlq_n_u8(v[2], 2) : i == 2 ? v[2] : vshrq_n_u8(v[2], 2);
        high = vorrq_u8(i < 2 ? and8(v[i], 15) : vshrq_n_u8(v[i - 2], 4), and8(high, 0x30));
        times_bytes(&s->scale[4 * i], d, vsubq_u8(high, vdupq_n_u8(32)));
    }
}

/* Q4_K and Q5_K: the first sixteen bytes hold d, dmin and the twelve bytes of scales and mins. */
NEON_INLINE void scales_q45_k(scales *s, const uint8_t *const b[4])
{
    uint8x16_t v[4];
    float32x4_t d, minus;

    load_units(v, b, 0);
    d = first_f16(v[0]);
    minus = vnegq_f32(second_f16(v[0]));
    times_bytes(&s->scale[0], d, and8(v[1], 63));
    times_bytes(&s->scale[4], d, vorrq_u8(and8(v[3], 15), and8(vshrq_n_u8(v[1], 2), 0x30)));
    times_bytes(&s->min[0], minus, and8(v[2], 63));
    times_bytes(&s->min[4], minus, vorrq_u8(vshrq_n_u8(v[3], 4), and8(vshrq_n_u8(v[2], 2), 0x30)));
}

NEON_INLINE void scales_q6_k(scales *s, const uint8_t *const b[4])
{
    const float32x4_t d = load_f16_of(b, 208);
    uint8x16_t v[4];

    load_units(v, b, 192);
    for (size_t i = 0; i < 4; i++)
        times_bytes(&s->scale[4 * i], d, v[i]);
}

/* Four low bits of scale g in nibble g of bytes 4 … 7, two high ones in pair g of bytes 2 and 3.  Spread to one nibble a byte, the high pairs of two
 * groups come to lie under the low nibbles of the same two. */
NEON_INLINE void scales_iq4_xs(scales *s, const uint8_t *const b[4])
{
    const uint8x16_t first = load_unit(b, 0), low = load_unit(b, 4);
    const float32x4_t d = first_f16(first);
    uint32x4_t spread = vshrq_n_u32(vreinterpretq_u32_u8(first), 16);
    uint8x16_t high, even, odd;

    spread = vandq_u32(vorrq_u32(spread, vshlq_n_u32(spread, 8)), vdupq_n_u32(0x00ff00ff));
    spread = vandq_u32(vorrq_u32(spread, vshlq_n_u32(spread, 4)), vdupq_n_u32(0x0f0f0f0f));
    high = vreinterpretq_u8_u32(spread);
    even = vsubq_u8(vorrq_u8(and8(low, 15), and8(vshlq_n_u8(high, 4), 0x30)), vdupq_n_u8(32));
    odd = vsubq_u8(vorrq_u8(vshrq_n_u8(low, 4), and8(vshlq_n_u8(high, 2), 0x30)), vdupq_n_u8(32));
    for (size_t j = 0; j < 4; j++) {
        s->scale[2 * j] = times_byte(d, even, j);
        s->scale[2 * j + 1] = times_byte(d, odd, j);
    }
}

/* 2^(e - 128), also where that is below the smallest normal number. */
NEON_INLINE float32x4_t scale_mxfp4(const uint8_t *const b[4])
{
    const uint32_t bytes[4] = { b[0][0], b[1][0], b[2][0], b[3][0] };
    const uint32x4_t e = vld1q_u32(bytes);
    const uint32x4_t normal = vshlq_n_u32(vsubq_u32(e, vdupq_n_u32(1)), 23);
    const uint32x4_t tiny = vshlq_u32(vdupq_n_u32(0x00200000u), vreinterpretq_s32_u32(e));

    return vreinterpretq_f32_u32(vbslq_u32(vcltq_u32(e, vdupq_n_u32(2)), tiny, normal));
}

NEON_INLINE void load_scales(scales *s, const uint8_t *const b[4], format f)
{
    switch (f.type) {
    case SLUICE_WEIGHT_Q2_K: scales_q2_k(s, b); break;
    case SLUICE_WEIGHT_Q3_K: scales_q3_k(s, b); break;
    case SLUICE_WEIGHT_Q4_K:
    case SLUICE_WEIGHT_Q5_K: scales_q45_k(s, b); break;
    case SLUICE_WEIGHT_Q6_K: scales_q6_k(s, b); break;
    case SLUICE_WEIGHT_IQ4_XS: scales_iq4_xs(s, b); break;
    case SLUICE_WEIGHT_MXFP4: s->scale[0] = scale_mxfp4(b); break;
    default:
        s->scale[0] = load_f16_of(b, 0);
        if (f.has_min)
            s->min[0] = load_f16_of(b, 2);
    }
}

NEON_INLINE pair signed_pair(uint8x16_t low, uint8x16_t high)
{
    return (pair){ vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(high) };
}

/* Sixteen bits of `fifth`, from `byte` on: 0xff where the bit is set. */
NEON_INLINE uint8x16_t spread_bits(uint32_t fifth, uint8_t byte)
{
    static const uint8_t bit[16] = { 1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128 };
    const uint8x16_t bytes = vcombine_u8(vdup_n_u8(byte), vdup_n_u8((uint8_t)(byte + 1)));

    return vtstq_u8(vqtbl1q_u8(vreinterpretq_u8_u32(vdupq_n_u32(fifth)), bytes), vld1q_u8(bit));
}

/* The fifth bit is put on top of four by shift and insert, so the bits above the four need no clearing.  Without a min, 16 is to be subtracted, which
 * is to set the upper four bits where the fifth is not set. */
NEON_INLINE pair unpack_q5(const uint8_t *b, bool has_min)
{
    const uint8x16_t q = vld1q_u8(b + (has_min ? 8 : 6));
    uint32_t fifth;

    memcpy(&fifth, b + (has_min ? 4 : 2), sizeof fifth);
    if (has_min)
        return signed_pair(vsliq_n_u8(q, vshrq_n_u8(spread_bits(fifth, 0), 7), 4),
                           vsliq_n_u8(vshrq_n_u8(q, 4), vshrq_n_u8(spread_bits(fifth, 2), 7), 4));
    return signed_pair(vsliq_n_u8(q, spread_bits(~fifth, 0), 4), vsliq_n_u8(vshrq_n_u8(q, 4), spread_bits(~fifth, 2), 4));
}

NEON_INLINE pair unpack_table(uint8x16_t q, const int8_t values[16])
{
    const int8x16_t table = vld1q_s8(values);

    return (pair){ vqtbl1q_s8(table, and8(q, 15)), vqtbl1q_s8(table, vshrq_n_u8(q, 4)) };
}

/* Two bits of each byte, in place 2 j. */
NEON_INLINE uint8x16_t two_bits_low(uint8x16_t v, size_t j)
{
    return j == 0 ? v : j == 1 ? vshrq_n_u8(v, 2) : j == 2 ? vshrq_n_u8(v, 4) : vshrq_n_u8(v, 6);
}

NEON_INLINE uint8x16_t two_bits_high(uint8x16_t v, size_t j)
{
    return j == 0 ? vshlq_n_u8(v, 6) : j == 1 ? vshlq_n_u8(v, 4) : j == 2 ? vshlq_n_u8(v, 2) : v;
}

/* 4 (q - 32): pair of bits on top, nibble inserted below it, top bit flipped. */
NEON_INLINE uint8x16_t unpack_q6_half(const uint8_t *low, const uint8_t *high, size_t j)
{
    const uint8x16_t q = vld1q_u8(low), nibble = j < 2 ? vshlq_n_u8(q, 4) : and8(q, 0xf0);

    return veorq_u8(vsriq_n_u8(two_bits_high(vld1q_u8(high), j), nibble, 2), vdupq_n_u8(0x80));
}

NEON_INLINE uint8x16_t unpack_q3_half(const uint8_t *low, const uint8_t *high, size_t j, uint8x16_t bit)
{
    return vsliq_n_u8(two_bits_low(vld1q_u8(low), j), vceqzq_u8(vandq_u8(vld1q_u8(high), bit)), 2);
}

/* Nibbles j % 2 of 16 bytes, and a bit of `high` above them. */
NEON_INLINE uint8x16_t unpack_q5_half(const uint8_t *low, const uint8_t *high, size_t j, uint8x16_t bit)
{
    const uint8x16_t q = vld1q_u8(low);

    return vsliq_n_u8(j % 2 == 0 ? q : vshrq_n_u8(q, 4), vshrq_n_u8(vtstq_u8(vld1q_u8(high), bit), 7), 4);
}

/* Left in place at the top of their bytes, the weights of some formats take an instruction less: they come out as 2^n q. */
NEON_INLINE int bits_up(format f)
{
    return f.type == SLUICE_WEIGHT_Q4_0 ? 4 : f.type == SLUICE_WEIGHT_Q6_K ? 2 : 0;
}

/* Group 4 half + j of a block, j a constant. */
NEON_INLINE pair unpack(const uint8_t *b, size_t half, size_t j, format f)
{
    static const int8_t iq4_values[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
    static const int8_t e2m1_values[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 }; /* twice the value */
    const uint8x16_t bit = vdupq_n_u8((uint8_t)(1u << (4 * half + j)));
    uint8x16_t q, r;

    switch (f.type) {
    case SLUICE_WEIGHT_Q8_0:
        return signed_pair(vld1q_u8(b + 2), vld1q_u8(b + 18));
    case SLUICE_WEIGHT_Q4_0: /* 16 (q - 8) */
        q = veorq_u8(vld1q_u8(b + 2), vdupq_n_u8(0x88));
        return signed_pair(vshlq_n_u8(q, 4), and8(q, 0xf0));
    case SLUICE_WEIGHT_Q4_1:
        q = vld1q_u8(b + 4);
        return signed_pair(and8(q, 15), vshrq_n_u8(q, 4));
    case SLUICE_WEIGHT_Q5_0:
    case SLUICE_WEIGHT_Q5_1:
        return unpack_q5(b, f.has_min);
    case SLUICE_WEIGHT_Q2_K:
        b += 16 + 32 * half;
        return signed_pair(and8(two_bits_low(vld1q_u8(b), j), 3), and8(two_bits_low(vld1q_u8(b + 16), j), 3));
    case SLUICE_WEIGHT_Q3_K:
        return signed_pair(unpack_q3_half(b + 32 + 32 * half, b, j, bit), unpack_q3_half(b + 48 + 32 * half, b + 16, j, bit));
    case SLUICE_WEIGHT_Q4_K:
        b += 16 + 64 * half + 32 * (j / 2);
        q = vld1q_u8(b);
        r = vld1q_u8(b + 16);
        return j % 2 == 0 ? signed_pair(and8(q, 15), and8(r, 15)) : signed_pair(vshrq_n_u8(q, 4), vshrq_n_u8(r, 4));
    case SLUICE_WEIGHT_Q5_K:
        return signed_pair(unpack_q5_half(b + 48 + 64 * half + 32 * (j / 2), b + 16, j, bit),
                           unpack_q5_half(b + 64 + 64 * half + 32 * (j / 2), b + 32, j, bit));
    case SLUICE_WEIGHT_Q6_K:
        return signed_pair(unpack_q6_half(b + 64 * half + 32 * (j % 2), b + 128 + 32 * half, j),
                           unpack_q6_half(b + 16 + 64 * half + 32 * (j % 2), b + 144 + 32 * half, j));
    case SLUICE_WEIGHT_IQ4_NL:
        return unpack_table(vld1q_u8(b + 2), iq4_values);
    case SLUICE_WEIGHT_IQ4_XS:
        return unpack_table(vld1q_u8(b + 8 + 64 * half + 16 * j), iq4_values);
    case SLUICE_WEIGHT_MXFP4:
    default:
        return unpack_table(vld1q_u8(b + 1), e2m1_values);
    }
}

/* The rows' pointers; a matrix's last quad repeats its last row. */
NEON_INLINE void quad_rows(const uint8_t *rows[4], const sluice_product *p, size_t r)
{
    for (size_t i = 0; i < NEON_QUAD; i++)
        rows[i] = p->w + (r + i < p->rows ? r + i : p->rows - 1) * p->row_bytes;
}

/* ---- a few tokens: rows as they lie in the file */

/* Asks, while a block of four rows is worked on, for as many bytes at least this far on, in the order in which they lie in memory: the next four rows.
 * The distance was measured on x86, where it is worth a factor of 1.6; where a prefetcher follows four streams by itself it costs a few
 * instructions a block.  Inlined by force: GCC takes a function that only prefetches for one without effects, and drops the call. */
NEON_INLINE void prefetch_ahead(const uint8_t *rows, size_t row_bytes, size_t block, size_t block_bytes)
{
    enum { PREFETCH_DISTANCE = 4096 };
    const uint8_t *next = rows + (4 * row_bytes > PREFETCH_DISTANCE ? 4 * row_bytes : PREFETCH_DISTANCE) + 4 * block * block_bytes;

    for (size_t line = 0; line < 4 * block_bytes; line += 64)
        __builtin_prefetch(next + line, 0, 2);
}

NEON_INLINE int32x4_t fold_rows(const int32x4_t s[4])
{
    return vpaddq_s32(vpaddq_s32(s[0], s[1]), vpaddq_s32(s[2], s[3]));
}

NEON_INLINE float32x4_t to_float(int32x4_t v, int n_bits)
{
    return n_bits == 4 ? vcvtq_n_f32_s32(v, 4) : n_bits == 2 ? vcvtq_n_f32_s32(v, 2) : vcvtq_f32_s32(v);
}

/* Adds group (or halves) i of a block in four rows to the token's y. */
NEON_INLINE float32x4_t add_group(float32x4_t y, const pair w[4], const sluice_q8 *x, const scales *s, size_t i, format f)
{
    const int8x16_t low = vld1q_s8(x->q), high = vld1q_s8(x->q + 16);
    const int32x4_t zero = vdupq_n_s32(0);
    int32x4_t sums[4], more[4];

    if (!f.has_halves) {
        for (size_t r = 0; r < 4; r++)
            sums[r] = vdotq_s32(vdotq_s32(zero, w[r].low, low), w[r].high, high);
        y = vfmaq_f32(y, vmulq_n_f32(s->scale[i], x->scale), to_float(fold_rows(sums), bits_up(f)));
        return f.has_min ? vfmaq_n_f32(y, s->min[i], x->scaled_sum) : y;
    }
    for (size_t r = 0; r < 4; r++) {
        sums[r] = vdotq_s32(zero, w[r].low, low);
        more[r] = vdotq_s32(zero, w[r].high, high);
    }
    y = vfmaq_f32(y, vmulq_n_f32(s->scale[2 * i], x->scale), to_float(fold_rows(sums), bits_up(f)));
    if (f.has_min)
        y = vfmaq_n_f32(y, s->min[2 * i], x->scale * (float)x->sum[0]);
    y = vfmaq_f32(y, vmulq_n_f32(s->scale[2 * i + 1], x->scale), to_float(fold_rows(more), bits_up(f)));
    if (f.has_min)
        y = vfmaq_n_f32(y, s->min[2 * i + 1], x->scale * (float)x->sum[1]);
    return y;
}

/* The same for several tokens, which move on.  Not inlined: the weights are its arguments in eight registers, and formats alike share it. */
#define ADD_FEW(name, has_halves, has_min, type) \
    static __attribute__((noinline)) void name(float32x4_t y[], const sluice_q8 *x[], size_t n_tokens, const scales *s, size_t i, int8x16_t l0, \
                                               int8x16_t h0, int8x16_t l1, int8x16_t h1, int8x16_t l2, int8x16_t h2, int8x16_t l3, int8x16_t h3) \
    { \
        const pair w[4] = { { l0, h0 }, { l1, h1 }, { l2, h2 }, { l3, h3 } }; \
        for (size_t t = 0; t < n_tokens; t++) \
            y[t] = add_group(y[t], w, x[t]++, s, i, (format){ type, 0, false, has_halves, has_min }); \
    }

ADD_FEW(add_plain, false, false, SLUICE_WEIGHT_Q8_0)
ADD_FEW(add_q4_0, false, false, SLUICE_WEIGHT_Q4_0)
ADD_FEW(add_mins, false, true, SLUICE_WEIGHT_Q4_K)
ADD_FEW(add_halves, true, false, SLUICE_WEIGHT_Q3_K)
ADD_FEW(add_q6_k, true, false, SLUICE_WEIGHT_Q6_K)
ADD_FEW(add_halves_mins, true, true, SLUICE_WEIGHT_Q2_K)

/* Group 4 half + j of a block, j a constant, in four rows. */
NEON_INLINE void few_group(float32x4_t y[], const sluice_q8 *x[], size_t n_tokens, const uint8_t *const b[4], const scales *s, size_t half, size_t j,
                           format f)
{
    pair w[4];

    for (size_t i = 0; i < 4; i++)
        w[i] = unpack(b[i], half, j, f);
    if (n_tokens == 1)
        y[0] = add_group(y[0], w, x[0]++, s, 4 * half + j, f);
    else
        (f.type == SLUICE_WEIGHT_Q4_0   ? add_q4_0
         : f.type == SLUICE_WEIGHT_Q6_K ? add_q6_k
         : f.has_halves                 ? (f.has_min ? add_halves_mins : add_halves)
         : f.has_min                    ? add_mins
                                        : add_plain)(y, x, n_tokens, s, 4 * half + j, w[0].low, w[0].high, w[1].low, w[1].high, w[2].low, w[2].high,
                                                     w[3].low, w[3].high);
}

/* Four rows by n_tokens tokens: one, a constant, or a few. */
NEON_INLINE void rows_quad(const sluice_product *p, size_t r, size_t n_tokens, format f)
{
    const size_t n_blocks = p->cols / (f.is_long ? 256 : SLUICE_Q_LEN), n_rows = p->rows - r < 4 ? p->rows - r : 4;
    const sluice_q8 *x[NEON_FEW];
    const uint8_t *b[4];
    float32x4_t y[NEON_FEW];

    quad_rows(b, p, r);
    for (size_t t = 0; t < n_tokens; t++) {
        x[t] = neon_token(p, t);
        y[t] = vdupq_n_f32(0);
    }
    for (size_t block = 0; block < n_blocks; block++) {
        scales s;

        prefetch_ahead(p->w + r * p->row_bytes, p->row_bytes, block, f.block_bytes);
        load_scales(&s, b, f);
        for (size_t half = 0; half < (f.is_long ? 2 : 1); half++) {
            few_group(y, x, n_tokens, b, &s, half, 0, f);
            if (!f.is_long)
                continue;
            few_group(y, x, n_tokens, b, &s, half, 1, f);
            few_group(y, x, n_tokens, b, &s, half, 2, f);
            few_group(y, x, n_tokens, b, &s, half, 3, f);
        }
        for (size_t i = 0; i < 4; i++)
            b[i] += f.block_bytes;
    }
    for (size_t t = 0; t < n_tokens; t++) {
        float out[4];

        vst1q_f32(out, y[t]);
        memcpy(p->y + t * p->y_stride + r, out, n_rows * sizeof *out);
    }
}

NEON_INLINE void rows_few(const sluice_product *p, format f)
{
    for (size_t r = 0; r < p->rows; r += NEON_QUAD)
        if (p->n_tokens == 1)
            rows_quad(p, r, 1, f);
        else
            rows_quad(p, r, p->n_tokens, f);
}

/* ---- many tokens: strips */

/* A group of four rows, a quad of the eight.  Not inlined: the eight registers are its arguments, and all formats share it. */
typedef void (*store_fn)(int8_t *out, int8x16_t l0, int8x16_t l1, int8x16_t l2, int8x16_t l3, int8x16_t h0, int8x16_t h1, int8x16_t h2, int8x16_t h3);

static __attribute__((noinline)) void store_units(int8_t *out, int8x16_t l0, int8x16_t l1, int8x16_t l2, int8x16_t l3, int8x16_t h0, int8x16_t h1,
                                                  int8x16_t h2, int8x16_t h3)
{
    const uint8x16_t low[4] = { vreinterpretq_u8_s8(l0), vreinterpretq_u8_s8(l1), vreinterpretq_u8_s8(l2), vreinterpretq_u8_s8(l3) };
    const uint8x16_t high[4] = { vreinterpretq_u8_s8(h0), vreinterpretq_u8_s8(h1), vreinterpretq_u8_s8(h2), vreinterpretq_u8_s8(h3) };
    uint8x16_t units[4];

    transpose(units, low);
    for (size_t i = 0; i < 4; i++)
        vst1q_s8(out + 32 * i, vreinterpretq_s8_u8(units[i]));
    transpose(units, high);
    for (size_t i = 0; i < 4; i++)
        vst1q_s8(out + 128 + 32 * i, vreinterpretq_s8_u8(units[i]));
}

/* Two rows' eight bytes side by side: columns 0 … 7, and 8 … 15 in the next step. */
NEON_INLINE void store_two(int8_t *out, int8x16_t a, int8x16_t b)
{
    const int64x2_t first = vreinterpretq_s64_s8(a), second = vreinterpretq_s64_s8(b);

    vst1q_s8(out, vreinterpretq_s8_s64(vzip1q_s64(first, second)));
    vst1q_s8(out + 64, vreinterpretq_s8_s64(vzip2q_s64(first, second)));
}

static __attribute__((noinline)) void store_pairs(int8_t *out, int8x16_t l0, int8x16_t l1, int8x16_t l2, int8x16_t l3, int8x16_t h0, int8x16_t h1,
                                                  int8x16_t h2, int8x16_t h3)
{
    store_two(out, l0, l1);
    store_two(out + 16, l2, l3);
    store_two(out + 128, h0, h1);
    store_two(out + 144, h2, h3);
}

/* 2^n q to q. */
NEON_INLINE int8x16_t come_down(int8x16_t v, format f)
{
    return bits_up(f) == 4 ? vshrq_n_s8(v, 4) : bits_up(f) == 2 ? vshrq_n_s8(v, 2) : v;
}

NEON_INLINE void make_group(int8_t *out, const uint8_t *const b[4], size_t half, size_t j, store_fn store, format f)
{
    int8x16_t low[4], high[4];

    for (size_t i = 0; i < 4; i++) {
        const pair w = unpack(b[i], half, j, f);

        low[i] = come_down(w.low, f);
        high[i] = come_down(w.high, f);
    }
    store(out, low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]);
}

NEON_INLINE void make_strip(const sluice_product *p, const sluice_neon_strip *strip, bool in_pairs, format f)
{
    enum { GROUP = NEON_ROWS * SLUICE_Q_LEN };
    const size_t groups = f.is_long ? 8 : 1, n_scales = f.has_halves ? 2 * groups : groups;
    const store_fn store = in_pairs ? store_pairs : store_units;

    for (size_t quad = 0; quad < (strip->n_rows + NEON_ROWS - 1) / NEON_ROWS * 2; quad++) {
        const size_t rows = quad / 2 * NEON_ROWS;
        int8_t *q = strip->q + rows * strip->n_groups * SLUICE_Q_LEN + (in_pairs ? 32 : 16) * (quad % 2);
        float *scale = strip->scale + rows * strip->n_groups * (f.has_halves ? 2 : 1) + 4 * (quad % 2);
        float *min = strip->min + rows * strip->n_groups * (f.has_halves ? 2 : 1) + 4 * (quad % 2);
        const uint8_t *b[4];

        quad_rows(b, p, strip->row + 4 * quad);
        for (size_t i = 0; i < 4; i++)
            b[i] += strip->group / groups * f.block_bytes;
        for (size_t g = 0; g < strip->n_groups; g += groups) {
            scales s;

            load_scales(&s, b, f);
            for (size_t i = 0; i < n_scales; i++, scale += NEON_ROWS, min += NEON_ROWS) {
                vst1q_f32(scale, s.scale[i]);
                if (f.has_min)
                    vst1q_f32(min, s.min[i]);
            }
            for (size_t half = 0; half < (f.is_long ? 2 : 1); half++, q += f.is_long ? 4 * GROUP : GROUP) {
                make_group(q, b, half, 0, store, f);
                if (!f.is_long)
                    continue;
                make_group(q + GROUP, b, half, 1, store, f);
                make_group(q + 2 * GROUP, b, half, 2, store, f);
                make_group(q + 3 * GROUP, b, half, 3, store, f);
            }
            for (size_t i = 0; i < 4; i++)
                b[i] += f.block_bytes;
        }
    }
}

/* Eight rows of a strip, from `at` on, by n_tokens tokens; the tile is always full, short ones repeat the last token. */
NEON_INLINE void strip_tile(const sluice_product *p, const sluice_neon_strip *s, size_t at, size_t t, size_t n_tokens, bool has_halves, bool has_min)
{
    const size_t r = s->row + at, n_rows = s->n_rows - at < NEON_ROWS ? s->n_rows - at : NEON_ROWS;
    const int8_t *q = s->q + at * s->n_groups * SLUICE_Q_LEN;
    const float *scale = s->scale + at * s->n_groups * (has_halves ? 2 : 1), *min = s->min + at * s->n_groups * (has_halves ? 2 : 1);
    neon_tile tile = neon_tile_load(p, s, r, n_rows, t, n_tokens);
    const sluice_q8 *x[NEON_TILE];
    float32x4_t y[NEON_TILE][2];

    for (size_t j = 0; j < NEON_TILE; j++) {
        x[j] = neon_token(p, t + (j < n_tokens ? j : n_tokens - 1)) + s->group;
        y[j][0] = vld1q_f32(tile.y[j]);
        y[j][1] = vld1q_f32(tile.y[j] + 4);
    }
    for (size_t g = 0; g < s->n_groups; g++, q += NEON_ROWS * SLUICE_Q_LEN) {
        int32x4_t sum[NEON_TILE][2];

        for (size_t half = 0; half < 2; half++) {
            int8x16_t a[NEON_TILE];

            for (size_t j = 0; j < NEON_TILE; j++) {
                a[j] = vld1q_s8(x[j][g].q + 16 * half);
                if (half == 0 || has_halves)
                    sum[j][0] = sum[j][1] = vdupq_n_s32(0);
            }
            for (size_t i = 0; i < 2; i++) {
                const int8x16_t w0 = vld1q_s8(q + 128 * half + 16 * i), w1 = vld1q_s8(q + 128 * half + 32 + 16 * i),
                                w2 = vld1q_s8(q + 128 * half + 64 + 16 * i), w3 = vld1q_s8(q + 128 * half + 96 + 16 * i);

                for (size_t j = 0; j < NEON_TILE; j++)
                    sum[j][i] = vdotq_laneq_s32(sum[j][i], w0, a[j], 0);
                for (size_t j = 0; j < NEON_TILE; j++)
                    sum[j][i] = vdotq_laneq_s32(sum[j][i], w1, a[j], 1);
                for (size_t j = 0; j < NEON_TILE; j++)
                    sum[j][i] = vdotq_laneq_s32(sum[j][i], w2, a[j], 2);
                for (size_t j = 0; j < NEON_TILE; j++)
                    sum[j][i] = vdotq_laneq_s32(sum[j][i], w3, a[j], 3);
            }
            if (half == 0 && !has_halves)
                continue;
            for (size_t i = 0; i < 2; i++) {
                const float32x4_t d = vld1q_f32(scale + 4 * i);

                for (size_t j = 0; j < NEON_TILE; j++)
                    y[j][i] = vfmaq_f32(y[j][i], vmulq_n_f32(d, x[j][g].scale), vcvtq_f32_s32(sum[j][i]));
                for (size_t j = 0; j < NEON_TILE && has_min; j++)
                    y[j][i] = vfmaq_n_f32(y[j][i], vld1q_f32(min + 4 * i),
                                          has_halves ? x[j][g].scale * (float)x[j][g].sum[half] : x[j][g].scaled_sum);
            }
            scale += NEON_ROWS;
            min += NEON_ROWS;
        }
    }
    for (size_t j = 0; j < NEON_TILE; j++) {
        vst1q_f32(tile.y[j], y[j][0]);
        vst1q_f32(tile.y[j] + 4, y[j][1]);
    }
    neon_tile_store(p, &tile, r, n_rows, t, n_tokens);
}

NEON_INLINE void run_strip(const sluice_product *p, const sluice_neon_strip *s, bool has_halves, bool has_min)
{
    for (size_t t = 0; t < p->n_tokens; t += NEON_TILE)
        for (size_t at = 0; at < s->n_rows; at += NEON_ROWS)
            strip_tile(p, s, at, t, p->n_tokens - t < NEON_TILE ? p->n_tokens - t : NEON_TILE, has_halves, has_min);
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

static const sluice_neon_gemm gemm_dotprod = { false, { { run_plain, run_mins }, { run_halves, run_halves_mins } } };

/* ---- the formats' code, and products with them */

#define FORMAT(name, weight, block_bytes, is_long, has_halves, has_min) \
    static void few_##name(const sluice_product *p) \
    { \
        rows_few(p, (format){ weight, block_bytes, is_long, has_halves, has_min }); \
    } \
    static void strip_##name(const sluice_product *p, const sluice_neon_strip *s, bool in_pairs) \
    { \
        make_strip(p, s, in_pairs, (format){ weight, block_bytes, is_long, has_halves, has_min }); \
    } \
    static void product_##name(const sluice_product *p) \
    { \
        sluice_neon_product(p, weight, &gemm_dotprod); \
    }

FORMAT(q8_0, SLUICE_WEIGHT_Q8_0, 34, false, false, false)
FORMAT(q4_0, SLUICE_WEIGHT_Q4_0, 18, false, false, false)
FORMAT(q4_1, SLUICE_WEIGHT_Q4_1, 20, false, false, true)
FORMAT(q5_0, SLUICE_WEIGHT_Q5_0, 22, false, false, false)
FORMAT(q5_1, SLUICE_WEIGHT_Q5_1, 24, false, false, true)
FORMAT(q2_k, SLUICE_WEIGHT_Q2_K, 84, true, true, true)
FORMAT(q3_k, SLUICE_WEIGHT_Q3_K, 110, true, true, false)
FORMAT(q4_k, SLUICE_WEIGHT_Q4_K, 144, true, false, true)
FORMAT(q5_k, SLUICE_WEIGHT_Q5_K, 176, true, false, true)
FORMAT(q6_k, SLUICE_WEIGHT_Q6_K, 210, true, true, false)
FORMAT(iq4_nl, SLUICE_WEIGHT_IQ4_NL, 18, false, false, false)
FORMAT(iq4_xs, SLUICE_WEIGHT_IQ4_XS, 136, true, false, false)
FORMAT(mxfp4, SLUICE_WEIGHT_MXFP4, 17, false, false, false)

static const struct {
    sluice_product_fn few;
    void (*strip)(const sluice_product *p, const sluice_neon_strip *s, bool in_pairs);
} code[SLUICE_WEIGHT_COUNT] = {
    [SLUICE_WEIGHT_Q8_0] = { few_q8_0, strip_q8_0 },       [SLUICE_WEIGHT_Q4_0] = { few_q4_0, strip_q4_0 },
    [SLUICE_WEIGHT_Q4_1] = { few_q4_1, strip_q4_1 },       [SLUICE_WEIGHT_Q5_0] = { few_q5_0, strip_q5_0 },
    [SLUICE_WEIGHT_Q5_1] = { few_q5_1, strip_q5_1 },       [SLUICE_WEIGHT_Q2_K] = { few_q2_k, strip_q2_k },
    [SLUICE_WEIGHT_Q3_K] = { few_q3_k, strip_q3_k },       [SLUICE_WEIGHT_Q4_K] = { few_q4_k, strip_q4_k },
    [SLUICE_WEIGHT_Q5_K] = { few_q5_k, strip_q5_k },       [SLUICE_WEIGHT_Q6_K] = { few_q6_k, strip_q6_k },
    [SLUICE_WEIGHT_IQ4_NL] = { few_iq4_nl, strip_iq4_nl }, [SLUICE_WEIGHT_IQ4_XS] = { few_iq4_xs, strip_iq4_xs },
    [SLUICE_WEIGHT_MXFP4] = { few_mxfp4, strip_mxfp4 },
};

void sluice_neon_product(const sluice_product *p, sluice_weight type, const sluice_neon_gemm *gemm)
{
    const sluice_weight_traits *traits = &sluice_weight_table[type];
    const size_t n_groups = p->cols / SLUICE_Q_LEN;
    sluice_neon_strip s;

    if (p->n_tokens <= NEON_FEW) {
        code[type].few(p);
        return;
    }
    s.q = p->strip;
    s.scale = (float *)p->strip + SLUICE_STRIP_ROWS * NEON_GROUPS * SLUICE_Q_LEN / sizeof(float);
    s.min = s.scale + SLUICE_STRIP_ROWS * NEON_GROUPS * 2;
    s.panel = s.min + SLUICE_STRIP_ROWS * NEON_GROUPS * 2;
    for (s.row = 0; s.row < p->rows; s.row += s.n_rows) {
        s.n_rows = p->rows - s.row < SLUICE_STRIP_ROWS ? p->rows - s.row : SLUICE_STRIP_ROWS;
        for (s.group = 0; s.group < n_groups; s.group += s.n_groups) {
            s.n_groups = n_groups - s.group < NEON_GROUPS ? n_groups - s.group : NEON_GROUPS;
            code[type].strip(p, &s, gemm->in_pairs);
            gemm->run[traits->has_halves][traits->has_min](p, &s);
        }
    }
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

static inline sums f32x16_of_f16(uint8x16_t a, uint8x16_t b)
{
    const float16x8_t low = vreinterpretq_f16_u8(a), high = vreinterpretq_f16_u8(b);

    return (sums){ { vcvt_f32_f16(vget_low_f16(low)), vcvt_f32_f16(vget_high_f16(low)), vcvt_f32_f16(vget_low_f16(high)),
                     vcvt_f32_f16(vget_high_f16(high)) } };
}

/* Sixteen numbers of a row; type is a constant. */
NEON_INLINE sums load_x16(const uint8_t *p, sluice_weight type)
{
    sums s;

    if (type == SLUICE_WEIGHT_F16)
        return f32x16_of_f16(vld1q_u8(p), vld1q_u8(p + 16));
    for (size_t i = 0; i < 4; i++)
        s.v[i] = type == SLUICE_WEIGHT_F32 ? vreinterpretq_f32_u8(vld1q_u8(p + 16 * i))
                                           : vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p + 8 * i)), 16));
    return s;
}

/* The last n < 16 of them, zeros behind. */
NEON_INLINE sums load_rest_x16(const uint8_t *p, size_t n, sluice_weight type)
{
    uint8_t rest[64] = { 0 };

    memcpy(rest, p, n * (type == SLUICE_WEIGHT_F32 ? 4 : 2));
    return load_x16(rest, type);
}

NEON_INLINE sums load_some_x16(const uint8_t *p, size_t n, sluice_weight type)
{
    return n < 16 ? load_rest_x16(p, n, type) : load_x16(p, type);
}

enum { FLOAT_ROWS = 2, FLOAT_TOKENS = 2 }; /* 16 registers of sums; with 24 GCC 12 keeps some in memory */

/* Sixteen columns, or the last few of them. */
NEON_INLINE void float_step(sums acc[FLOAT_ROWS][FLOAT_TOKENS], const uint8_t *const w[], const float *const x[], size_t k, size_t n, size_t n_rows,
                            size_t n_tokens, sluice_weight type)
{
    sums rows[FLOAT_ROWS];

    for (size_t i = 0; i < n_rows; i++)
        rows[i] = load_some_x16(w[i] + k * (type == SLUICE_WEIGHT_F32 ? 4 : 2), n, type);
    for (size_t j = 0; j < n_tokens; j++) {
        const sums token = load_some_x16((const uint8_t *)(x[j] + k), n, SLUICE_WEIGHT_F32);

        for (size_t i = 0; i < n_rows; i++)
            for (size_t l = 0; l < 4; l++)
                acc[i][j].v[l] = vfmaq_f32(acc[i][j].v[l], rows[i].v[l], token.v[l]);
    }
}

/* n_rows rows by n_tokens tokens at once, both small constants: enough chains to hide the latency of fma. */
NEON_INLINE void float_tile(const sluice_product *p, size_t r, size_t t, size_t n_rows, size_t n_tokens, sluice_weight type)
{
    sums acc[FLOAT_ROWS][FLOAT_TOKENS];
    const uint8_t *w[FLOAT_ROWS];
    const float *x[FLOAT_TOKENS];
    size_t k = 0;

    for (size_t i = 0; i < n_rows; i++) {
        w[i] = p->w + (r + i) * p->row_bytes;
        for (size_t j = 0; j < n_tokens; j++)
            acc[i][j] = zero_sums();
    }
    for (size_t j = 0; j < n_tokens; j++)
        x[j] = (const float *)(const void *)((const uint8_t *)p->x + (t + j) * p->x_stride);
    for (; k + 16 <= p->cols; k += 16)
        float_step(acc, w, x, k, 16, n_rows, n_tokens, type);
    if (k < p->cols)
        float_step(acc, w, x, k, p->cols - k, n_rows, n_tokens, type);
    for (size_t i = 0; i < n_rows; i++)
        for (size_t j = 0; j < n_tokens; j++)
            p->y[(t + j) * p->y_stride + r + i] = fold(acc[i][j]);
}

NEON_INLINE void product_floats(const sluice_product *p, sluice_weight type)
{
    size_t r = 0;

    for (; r + FLOAT_ROWS <= p->rows; r += FLOAT_ROWS) {
        size_t t = 0;

        for (; t + FLOAT_TOKENS <= p->n_tokens; t += FLOAT_TOKENS)
            float_tile(p, r, t, FLOAT_ROWS, FLOAT_TOKENS, type);
        for (; t < p->n_tokens; t++)
            float_tile(p, r, t, FLOAT_ROWS, 1, type);
    }
    for (; r < p->rows; r++)
        for (size_t t = 0; t < p->n_tokens; t++)
            float_tile(p, r, t, 1, 1, type);
}

static void product_f32(const sluice_product *p)
{
    product_floats(p, SLUICE_WEIGHT_F32);
}

static void product_f16(const sluice_product *p)
{
    product_floats(p, SLUICE_WEIGHT_F16);
}

static void product_bf16(const sluice_product *p)
{
    product_floats(p, SLUICE_WEIGHT_BF16);
}

/* ---- activations */

static void quantize(sluice_q8 *out, const float *x, size_t n)
{
    for (size_t b = 0; b < n / SLUICE_Q_LEN; b++, x += SLUICE_Q_LEN, out++) {
        uint32x4_t largest = vdupq_n_u32(0);
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
            out->scale = out->scaled_sum = bits >= 0x7f800000u ? NAN : 0;
            continue;
        }
        out->scale = top / 127.0f;
        inverse = 127.0f / top;
        for (size_t half = 0; half < 2; half++) {
            int32x4_t q[4];

            for (size_t i = 0; i < 4; i++)
                q[i] = vcvtnq_s32_f32(vmulq_n_f32(v[4 * half + i], inverse));
            out->sum[half] = vaddvq_s32(vaddq_s32(vaddq_s32(q[0], q[1]), vaddq_s32(q[2], q[3])));
            vst1q_s8(out->q + 16 * half, vcombine_s8(vmovn_s16(vcombine_s16(vmovn_s32(q[0]), vmovn_s32(q[1]))),
                                                     vmovn_s16(vcombine_s16(vmovn_s32(q[2]), vmovn_s32(q[3])))));
        }
        out->scaled_sum = out->scale * (float)(out->sum[0] + out->sum[1]);
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

/* The next four numbers, or the last n < 4 of them with zeros behind; and back. */
static inline float32x4_t load_4(const float *x, size_t n)
{
    float rest[4] = { 0 };

    if (n >= 4)
        return vld1q_f32(x);
    memcpy(rest, x, n * sizeof *x);
    return vld1q_f32(rest);
}

static inline void store_4(float *x, float32x4_t v, size_t n)
{
    float rest[4];

    if (n >= 4) {
        vst1q_f32(x, v);
        return;
    }
    vst1q_f32(rest, v);
    memcpy(x, rest, n * sizeof *x);
}

static void rms_norm(float *out, const float *x, const float *w, size_t n, float eps)
{
    sums s = zero_sums();
    float scale;

    for (size_t i = 0; i < n; i += 16) {
        const sums v = load_some_x16((const uint8_t *)(x + i), n - i, SLUICE_WEIGHT_F32);

        for (size_t l = 0; l < 4; l++)
            s.v[l] = vfmaq_f32(s.v[l], v.v[l], v.v[l]);
    }
    scale = 1.0f / sqrtf(fold(s) / (float)n + eps);
    for (size_t i = 0; i < n; i += 4)
        store_4(out + i, vmulq_f32(vmulq_n_f32(load_4(x + i, n - i), scale), load_4(w + i, n - i)), n - i);
}

static void layer_norm(float *out, const float *x, const float *w, const float *b, size_t n, float eps)
{
    sums total = zero_sums(), squares = zero_sums();
    float32x4_t mean;
    float scale;
    size_t i = 0;

    for (i = 0; i < n; i += 16) {
        const sums v = load_some_x16((const uint8_t *)(x + i), n - i, SLUICE_WEIGHT_F32);

        for (size_t l = 0; l < 4; l++)
            total.v[l] = vaddq_f32(total.v[l], v.v[l]);
    }
    mean = vdupq_n_f32(fold(total) / (float)n);
    for (i = 0; i + 4 <= n; i += 4) {
        const float32x4_t v = vsubq_f32(vld1q_f32(x + i), mean);

        squares.v[i / 4 % 4] = vfmaq_f32(squares.v[i / 4 % 4], v, v);
    }
    if (i < n) {
        const float32x4_t v = vsubq_f32(load_4(x + i, n - i), mean);
        float rest[4] = { 0 };

        store_4(rest, v, n - i); /* what is behind the end counts as zero, not as -mean */
        squares.v[i / 4 % 4] = vfmaq_f32(squares.v[i / 4 % 4], vld1q_f32(rest), vld1q_f32(rest));
    }
    scale = 1.0f / sqrtf(fold(squares) / (float)n + eps);
    for (i = 0; i < n; i += 4) {
        const float32x4_t v = vmulq_f32(vmulq_n_f32(vsubq_f32(load_4(x + i, n - i), mean), scale), load_4(w + i, n - i));

        store_4(out + i, vaddq_f32(v, b == NULL ? vdupq_n_f32(0) : load_4(b + i, n - i)), n - i);
    }
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

static inline float32x4_t tanh_of(float32x4_t x)
{
    const float32x4_t one = vdupq_n_f32(1.0f);

    return vsubq_f32(one, vdivq_f32(vdupq_n_f32(2.0f), vaddq_f32(exp_clamped(vmulq_n_f32(x, 2.0f)), one)));
}

static float softmax(float *x, size_t n, float scale)
{
    sums s = zero_sums();
    float32x4_t top = vdupq_n_f32(x[0]);
    float largest, sum, inverse;
    size_t i = 0;

    for (; i + 4 <= n; i += 4)
        top = vmaxq_f32(top, vld1q_f32(x + i));
    for (largest = vmaxvq_f32(top); i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    top = vdupq_n_f32(largest);
    for (i = 0; i + 16 <= n; i += 16)
        for (size_t l = 0; l < 4; l++) {
            const float32x4_t e = exp_clamped(vmulq_n_f32(vsubq_f32(vld1q_f32(x + i + 4 * l), top), scale));

            vst1q_f32(x + i + 4 * l, e);
            s.v[l] = vaddq_f32(s.v[l], e);
        }
    for (size_t l = 0; i < n; i += 4, l++) {
        store_4(x + i, exp_clamped(vmulq_n_f32(vsubq_f32(load_4(x + i, n - i), top), scale)), n - i);
        s.v[l] = vaddq_f32(s.v[l], load_4(x + i, n - i));
    }
    sum = fold(s);
    inverse = 1.0f / sum;
    for (i = 0; i < n; i += 4)
        store_4(x + i, vmulq_n_f32(load_4(x + i, n - i), inverse), n - i);
    return sum;
}

static void soft_cap(float *x, size_t n, float scale, float cap)
{
    const float by = scale / cap;

    for (size_t i = 0; i < n; i += 4)
        store_4(x + i, vmulq_n_f32(tanh_of(vmulq_n_f32(load_4(x + i, n - i), by)), cap), n - i);
}

static void silu_mul(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += 4) {
        const float32x4_t v = load_4(gate + i, n - i), one = vdupq_n_f32(1.0f);

        store_4(gate + i, vmulq_f32(vdivq_f32(v, vaddq_f32(one, exp_clamped(vnegq_f32(v)))), load_4(up + i, n - i)), n - i);
    }
}

static void gelu_mul(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += 4) {
        const float32x4_t x = load_4(gate + i, n - i);
        const float32x4_t inner = vmulq_n_f32(vfmaq_f32(x, vmulq_f32(vmulq_n_f32(x, 0.044715f), x), x), 0.797884561f); /* sqrt(2 / pi) */
        const float32x4_t y = vmulq_f32(vmulq_n_f32(x, 0.5f), vaddq_f32(vdupq_n_f32(1.0f), tanh_of(inner)));

        store_4(gate + i, up == NULL ? y : vmulq_f32(y, load_4(up + i, n - i)), n - i);
    }
}

/* ---- attention */

enum { QUERIES = 4 }; /* of a tile; a tile of attention is their sums for sixteen positions or dimensions, sixteen registers */

/* Sums of n queries, 4 or 1, in the sixteen positions of a block of keys. */
NEON_INLINE void scores_f16_tile(const sluice_scores *s, const uint8_t *key, float *out, size_t q, size_t n)
{
    const float *query = (const float *)s->queries + q * s->dim;
    sums acc[QUERIES];
    size_t d = 0;

    for (size_t j = 0; j < n; j++)
        acc[j] = zero_sums();
    for (; d + 4 <= s->dim; d += 4) {
        float32x4_t x[QUERIES];

        for (size_t j = 0; j < n; j++)
            x[j] = vld1q_f32(query + j * s->dim + d);
#define STEP(lane) \
    do { \
        const sums k = load_x16(key + 32 * (d + (lane)), SLUICE_WEIGHT_F16); \
        for (size_t j = 0; j < n; j++) \
            for (size_t l = 0; l < 4; l++) \
                acc[j].v[l] = vfmaq_laneq_f32(acc[j].v[l], k.v[l], x[j], lane); \
    } while (0)
        STEP(0);
        STEP(1);
        STEP(2);
        STEP(3);
#undef STEP
    }
    for (; d < s->dim; d++) {
        const sums k = load_x16(key + 32 * d, SLUICE_WEIGHT_F16);

        for (size_t j = 0; j < n; j++)
            for (size_t l = 0; l < 4; l++)
                acc[j].v[l] = vfmaq_n_f32(acc[j].v[l], k.v[l], query[j * s->dim + d]);
    }
    for (size_t j = 0; j < n; j++)
        for (size_t l = 0; l < 4; l++)
            vst1q_f32(out + (q + j) * s->out_stride + 4 * l, acc[j].v[l]);
}

static void scores_f16(const sluice_scores *s)
{
    const size_t block_bytes = s->dim * SLUICE_KEY_BLOCK * sizeof(uint16_t);

    for (size_t i = 0; i < s->n; i += SLUICE_KEY_BLOCK) {
        const uint8_t *key = (const uint8_t *)s->keys + (s->first + i) / SLUICE_KEY_BLOCK * block_bytes;
        size_t q = 0;

        for (; q + QUERIES <= s->n_queries; q += QUERIES)
            scores_f16_tile(s, key, s->out + i, q, QUERIES);
        for (; q < s->n_queries; q++)
            scores_f16_tile(s, key, s->out + i, q, 1);
    }
}

/* Eight of the sixteen positions, so that integer and float sums of four queries are sixteen registers. */
NEON_INLINE void scores_q8_tile(const sluice_scores *s, const uint8_t *group, float *out, size_t q, size_t n)
{
    enum { UNIT_BYTES = 4 * SLUICE_KEY_BLOCK, GROUP_BYTES = UNIT_BYTES + SLUICE_Q_LEN * SLUICE_KEY_BLOCK };
    const size_t n_groups = s->dim / SLUICE_Q_LEN;
    const sluice_q8 *query = (const sluice_q8 *)s->queries + q * n_groups;
    float32x4_t y[QUERIES][2];

    for (size_t j = 0; j < n; j++)
        y[j][0] = y[j][1] = vdupq_n_f32(0);
    for (size_t g = 0; g < n_groups; g++, group += GROUP_BYTES) {
        int32x4_t sum[QUERIES][2];

        for (size_t j = 0; j < n; j++)
            sum[j][0] = sum[j][1] = vdupq_n_s32(0);
        for (size_t half = 0; half < 2; half++) {
            const int8_t *unit = (const int8_t *)group + UNIT_BYTES * (1 + 4 * half);
            int8x16_t x[QUERIES];

            for (size_t j = 0; j < n; j++)
                x[j] = vld1q_s8(query[j * n_groups + g].q + 16 * half);
            for (size_t i = 0; i < 2; i++) {
                const int8x16_t k0 = vld1q_s8(unit + 16 * i), k1 = vld1q_s8(unit + UNIT_BYTES + 16 * i),
                                k2 = vld1q_s8(unit + 2 * UNIT_BYTES + 16 * i), k3 = vld1q_s8(unit + 3 * UNIT_BYTES + 16 * i);

                for (size_t j = 0; j < n; j++)
                    sum[j][i] = vdotq_laneq_s32(sum[j][i], k0, x[j], 0);
                for (size_t j = 0; j < n; j++)
                    sum[j][i] = vdotq_laneq_s32(sum[j][i], k1, x[j], 1);
                for (size_t j = 0; j < n; j++)
                    sum[j][i] = vdotq_laneq_s32(sum[j][i], k2, x[j], 2);
                for (size_t j = 0; j < n; j++)
                    sum[j][i] = vdotq_laneq_s32(sum[j][i], k3, x[j], 3);
            }
        }
        for (size_t i = 0; i < 2; i++) {
            const float32x4_t scale = vreinterpretq_f32_u8(vld1q_u8(group + 16 * i));

            for (size_t j = 0; j < n; j++)
                y[j][i] = vfmaq_f32(y[j][i], vmulq_n_f32(scale, query[j * n_groups + g].scale), vcvtq_f32_s32(sum[j][i]));
        }
    }
    for (size_t j = 0; j < n; j++) {
        vst1q_f32(out + (q + j) * s->out_stride, y[j][0]);
        vst1q_f32(out + (q + j) * s->out_stride + 4, y[j][1]);
    }
}

static void scores_q8(const sluice_scores *s)
{
    const size_t block_bytes = s->dim / SLUICE_Q_LEN * SLUICE_KEY_BLOCK * (sizeof(float) + SLUICE_Q_LEN);

    for (size_t i = 0; i < s->n; i += SLUICE_KEY_BLOCK / 2) {
        /* scales and bytes of the second eight positions lie equally far, 32 bytes, behind those of the first */
        const uint8_t *key = (const uint8_t *)s->keys + (s->first + i) / SLUICE_KEY_BLOCK * block_bytes + 4 * (i % SLUICE_KEY_BLOCK);
        size_t q = 0;

        for (; q + QUERIES <= s->n_queries; q += QUERIES)
            scores_q8_tile(s, key, s->out + i, q, QUERIES);
        for (; q < s->n_queries; q++)
            scores_q8_tile(s, key, s->out + i, q, 1);
    }
}

/* Numbers j … j + 15 of a position's value, without the block's scale where there is one. */
NEON_INLINE sums load_value(const sluice_mix *m, size_t i, size_t j, bool is_q8)
{
    enum { BLOCK_BYTES = 2 + SLUICE_Q_LEN };
    const uint8_t *v = (const uint8_t *)m->v;
    int8x16_t q;
    int16x8_t low, high;

    if (!is_q8)
        return load_x16(v + 2 * (i * m->v_stride + j), SLUICE_WEIGHT_F16);
    q = vld1q_s8((const int8_t *)v + i * m->v_stride + j / SLUICE_Q_LEN * BLOCK_BYTES + 2 + j % SLUICE_Q_LEN);
    low = vmovl_s8(vget_low_s8(q));
    high = vmovl_s8(vget_high_s8(q));
    return (sums){ { vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
                     vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high))) } };
}

/* The scales of n positions' blocks with number j in them. */
NEON_INLINE float32x4_t load_value_scales(const sluice_mix *m, size_t i, size_t j, size_t n)
{
    enum { BLOCK_BYTES = 2 + SLUICE_Q_LEN };
    const uint8_t *v = (const uint8_t *)m->v + i * m->v_stride + j / SLUICE_Q_LEN * BLOCK_BYTES;
    uint16_t h[4] = { 0 };

    for (size_t l = 0; l < n; l++)
        memcpy(&h[l], v + l * m->v_stride, sizeof h[l]);
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(h)));
}

/* Sums of n_queries queries, 4 or 1, in sixteen dimensions: they stay in registers while the positions go by, four at a time. */
NEON_INLINE void mix_tile(const sluice_mix *m, size_t q, size_t j, size_t n_queries, bool is_q8)
{
    sums acc[QUERIES];
    size_t i = 0;

    for (size_t l = 0; l < n_queries; l++)
        acc[l] = zero_sums();
    for (; i + 4 <= m->n; i += 4) {
        float32x4_t weight[QUERIES];

        for (size_t l = 0; l < n_queries; l++)
            weight[l] = vld1q_f32(m->weights + (q + l) * m->weights_stride + i);
        if (is_q8) {
            const float32x4_t d = load_value_scales(m, i, j, 4);

            for (size_t l = 0; l < n_queries; l++)
                weight[l] = vmulq_f32(weight[l], d);
        }
#define STEP(lane) \
    do { \
        const sums v = load_value(m, i + (lane), j, is_q8); \
        for (size_t l = 0; l < n_queries; l++) \
            for (size_t k = 0; k < 4; k++) \
                acc[l].v[k] = vfmaq_laneq_f32(acc[l].v[k], v.v[k], weight[l], lane); \
    } while (0)
        STEP(0);
        STEP(1);
        STEP(2);
        STEP(3);
#undef STEP
    }
    for (; i < m->n; i++) {
        const float32_t d = is_q8 ? vgetq_lane_f32(load_value_scales(m, i, j, 1), 0) : 1.0f;
        const sums v = load_value(m, i, j, is_q8);

        for (size_t l = 0; l < n_queries; l++)
            for (size_t k = 0; k < 4; k++)
                acc[l].v[k] = vfmaq_n_f32(acc[l].v[k], v.v[k], m->weights[(q + l) * m->weights_stride + i] * d);
    }
    for (size_t l = 0; l < n_queries; l++)
        for (size_t k = 0; k < 4; k++)
            vst1q_f32(m->out + (q + l) * m->out_stride + j + 4 * k, acc[l].v[k]);
}

NEON_INLINE void mix(const sluice_mix *m, bool is_q8)
{
    for (size_t j = 0; j + 16 <= m->dim; j += 16) {
        size_t q = 0;

        for (; q + QUERIES <= m->n_queries; q += QUERIES)
            mix_tile(m, q, j, QUERIES, is_q8);
        for (; q < m->n_queries; q++)
            mix_tile(m, q, j, 1, is_q8);
    }
}

static void mix_f16(const sluice_mix *m)
{
    mix(m, false);
    for (size_t j = m->dim / 16 * 16; j < m->dim; j++) /* odd head sizes */
        for (size_t q = 0; q < m->n_queries; q++) {
            float sum = 0;

            for (size_t i = 0; i < m->n; i++)
                sum = fmaf(m->weights[q * m->weights_stride + i], sluice_f16_to_f32(((const uint16_t *)m->v)[i * m->v_stride + j]), sum);
            m->out[q * m->out_stride + j] = sum;
        }
}

static void mix_q8(const sluice_mix *m)
{
    mix(m, true);
}

void sluice_kernels_install_neon_dotprod(sluice_kernels *k)
{
    k->isa = "neon-dotprod";
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
