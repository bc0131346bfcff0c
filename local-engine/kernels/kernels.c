/* kernels.c - which kernels this processor runs, and what needs no speed: f16, weight formats, single rows.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/kernels/kernels.h"

#include <string.h>

#include "sdk/platform/platform.h"

/* Slowest first: each row replaces what it improves and leaves the rest in place. */
static const struct {
    uint32_t needs;
    void (*install)(sluice_kernels *);
} rows[] = {
    { 0, sluice_kernels_install_scalar },
#ifdef SLUICE_WITH_AVX2
    { SLUICE_CPU_AVX2 | SLUICE_CPU_FMA | SLUICE_CPU_F16C, sluice_kernels_install_avx2 },
#endif
#ifdef SLUICE_WITH_AVX512VNNI
    { SLUICE_CPU_AVX2 | SLUICE_CPU_FMA | SLUICE_CPU_F16C | SLUICE_CPU_AVX512 | SLUICE_CPU_AVX512_VNNI,
      sluice_kernels_install_avx512vnni },
#endif
#ifdef SLUICE_WITH_NEON_DOTPROD
    { SLUICE_CPU_NEON | SLUICE_CPU_DOTPROD, sluice_kernels_install_neon_dotprod },
#endif
#ifdef SLUICE_WITH_NEON_I8MM
    { SLUICE_CPU_NEON | SLUICE_CPU_DOTPROD | SLUICE_CPU_I8MM, sluice_kernels_install_neon_i8mm },
#endif
};

void sluice_kernels_init(sluice_kernels *k, uint32_t cpu)
{
    memset(k, 0, sizeof *k);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if ((cpu & rows[i].needs) == rows[i].needs)
            rows[i].install(k);
}

/* ---- f16 */

float sluice_f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, fraction = h & 0x3ffu;
    uint32_t bits;
    float f;

    if (exponent == 0) { /* zero or subnormal: fraction * 2^-24, exact in f32 */
        f = (float)fraction * (1.0f / 16777216.0f);
        memcpy(&bits, &f, sizeof bits);
        bits |= sign;
    } else if (exponent == 31) {
        bits = sign | 0x7f800000u | fraction << 13;
    } else {
        bits = sign | (exponent + 112u) << 23 | fraction << 13;
    }
    memcpy(&f, &bits, sizeof f);
    return f;
}

uint16_t sluice_f32_to_f16(float f)
{
    uint32_t bits, sign, magnitude, shift, kept, rest, half;

    memcpy(&bits, &f, sizeof bits);
    sign = bits >> 16 & 0x8000u;
    magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu)); /* a quiet NaN, payload kept as the hardware does */
    if (magnitude >= 0x477ff000u) /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude >= 0x38800000u) { /* 2^-14: normal */
        kept = (magnitude - 0x38000000u) >> 13;
        rest = magnitude & 0x1fffu;
        half = 0x1000u;
    } else {
        if (magnitude < 0x33000000u) /* below 2^-25: nearer to 0 than to the smallest subnormal */
            return (uint16_t)sign;
        shift = 126u - (magnitude >> 23);
        kept = ((magnitude & 0x7fffffu) | 0x800000u) >> shift;
        rest = ((magnitude & 0x7fffffu) | 0x800000u) & ((1u << shift) - 1u);
        half = 1u << (shift - 1u);
    }
    if (rest > half || (rest == half && (kept & 1u)))
        kept++; /* may carry into the exponent, which is right */
    return (uint16_t)(sign | kept);
}

/* ---- weight formats */

const sluice_weight_traits sluice_weight_table[SLUICE_WEIGHT_COUNT] = {
    /*                         block: weights, bytes; quantized, halves, min */
    [SLUICE_WEIGHT_F32] = { 1, 4, false, false, false },
    [SLUICE_WEIGHT_F16] = { 1, 2, false, false, false },
    [SLUICE_WEIGHT_BF16] = { 1, 2, false, false, false },
    [SLUICE_WEIGHT_Q8_0] = { 32, 34, true, false, false },
    [SLUICE_WEIGHT_Q4_0] = { 32, 18, true, false, false },
    [SLUICE_WEIGHT_Q4_1] = { 32, 20, true, false, true },
    [SLUICE_WEIGHT_Q5_0] = { 32, 22, true, false, false },
    [SLUICE_WEIGHT_Q5_1] = { 32, 24, true, false, true },
    [SLUICE_WEIGHT_Q2_K] = { 256, 84, true, true, true },
    [SLUICE_WEIGHT_Q3_K] = { 256, 110, true, true, false },
    [SLUICE_WEIGHT_Q4_K] = { 256, 144, true, false, true },
    [SLUICE_WEIGHT_Q5_K] = { 256, 176, true, false, true },
    [SLUICE_WEIGHT_Q6_K] = { 256, 210, true, true, false },
    [SLUICE_WEIGHT_IQ4_NL] = { 32, 18, true, false, false },
    [SLUICE_WEIGHT_IQ4_XS] = { 256, 136, true, false, false },
    [SLUICE_WEIGHT_MXFP4] = { 32, 17, true, false, false },
};

static const char *const weight_names[SLUICE_WEIGHT_COUNT] = {
    [SLUICE_WEIGHT_F32] = "F32",     [SLUICE_WEIGHT_F16] = "F16",       [SLUICE_WEIGHT_BF16] = "BF16",     [SLUICE_WEIGHT_Q8_0] = "Q8_0",
    [SLUICE_WEIGHT_Q4_0] = "Q4_0",   [SLUICE_WEIGHT_Q4_1] = "Q4_1",     [SLUICE_WEIGHT_Q5_0] = "Q5_0",     [SLUICE_WEIGHT_Q5_1] = "Q5_1",
    [SLUICE_WEIGHT_Q2_K] = "Q2_K",   [SLUICE_WEIGHT_Q3_K] = "Q3_K",     [SLUICE_WEIGHT_Q4_K] = "Q4_K",     [SLUICE_WEIGHT_Q5_K] = "Q5_K",
    [SLUICE_WEIGHT_Q6_K] = "Q6_K",   [SLUICE_WEIGHT_IQ4_NL] = "IQ4_NL", [SLUICE_WEIGHT_IQ4_XS] = "IQ4_XS", [SLUICE_WEIGHT_MXFP4] = "MXFP4",
};

/* What a nibble of IQ4_NL and IQ4_XS stands for, and one of MXFP4 (twice the value of e2m1). */
static const int8_t iq4_values[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
static const int8_t e2m1_values[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

const char *sluice_weight_name(sluice_weight type)
{
    return weight_names[type];
}

size_t sluice_weight_row_bytes(sluice_weight type, size_t cols)
{
    return cols / sluice_weight_table[type].block_len * sluice_weight_table[type].block_bytes;
}

static float load_f16(const uint8_t *p)
{
    uint16_t h;

    memcpy(&h, p, sizeof h);
    return sluice_f16_to_f32(h);
}

static uint32_t load_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void set_scale(sluice_group *out, float scale, float min)
{
    out->scale[0] = out->scale[1] = scale;
    out->min[0] = out->min[1] = min;
}

/* Nibble i of the formats with blocks of 32: sixteen low ones, then sixteen high ones. */
static unsigned nibble_of_32(const uint8_t *q, size_t i)
{
    return i < 16 ? q[i] & 15u : (unsigned)q[i - 16] >> 4;
}

/* Nibble i of group g of Q4_K and Q5_K: 32 bytes hold a group low and the next one high. */
static unsigned nibble_of_64(const uint8_t *q, size_t g, size_t i)
{
    return (unsigned)q[32 * (g / 2) + i] >> 4 * (g % 2) & 15u;
}

/* Scale and min of part g of Q4_K and Q5_K, six bits each: those of parts 0 … 3 in bytes 0 … 3 and 4 … 7; of the others four low bits in
 * bytes 8 … 11 and two high ones on top of the first eight bytes. */
static void six_bit_pair(const uint8_t *s, size_t g, unsigned *scale, unsigned *min)
{
    if (g < 4) {
        *scale = s[g] & 63u;
        *min = s[g + 4] & 63u;
    } else {
        *scale = (s[g + 4] & 15u) | ((unsigned)s[g - 4] >> 6) << 4;
        *min = (unsigned)s[g + 4] >> 4 | ((unsigned)s[g] >> 6) << 4;
    }
}

/* Scale k of Q3_K, six bits: four low ones in a nibble of bytes 0 … 7, two high ones in a pair of bits of bytes 8 … 11. */
static int q3_scale(const uint8_t *s, size_t k)
{
    const unsigned low = k < 8 ? s[k] & 15u : (unsigned)s[k - 8] >> 4, high = (unsigned)s[8 + k % 4] >> 2 * (k / 4) & 3u;

    return (int)(low | high << 4) - 32;
}

/* 2^(e - 128), also where that is below the smallest normal number. */
static float exponent_of_mx(unsigned e)
{
    const uint32_t bits = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23;
    float f;

    memcpy(&f, &bits, sizeof f);
    return f;
}

static void group_of_256(sluice_weight type, sluice_group *out, const uint8_t *b, size_t g)
{
    const size_t half = g / 4, pair = 2 * (g % 4); /* which 128 weights, and which two bits of their bytes, in the formats of 2, 3 and 6 bits */
    unsigned scale, min;

    switch (type) {
    case SLUICE_WEIGHT_Q2_K:
        for (size_t h = 0; h < 2; h++) {
            out->scale[h] = load_f16(b + 80) * (float)(b[2 * g + h] & 15);
            out->min[h] = -(load_f16(b + 82) * (float)(b[2 * g + h] >> 4));
        }
        for (size_t i = 0; i < SLUICE_Q_LEN; i++)
            out->q[i] = (int8_t)(b[16 + 32 * half + i] >> pair & 3);
        break;
    case SLUICE_WEIGHT_Q3_K:
        for (size_t h = 0; h < 2; h++)
            out->scale[h] = load_f16(b + 108) * (float)q3_scale(b + 96, 2 * g + h);
        for (size_t i = 0; i < SLUICE_Q_LEN; i++)
            out->q[i] = (int8_t)((b[32 + 32 * half + i] >> pair & 3) + 4 * (b[i] >> g & 1) - 4);
        break;
    case SLUICE_WEIGHT_Q4_K:
    case SLUICE_WEIGHT_Q5_K:
        six_bit_pair(b + 4, g, &scale, &min);
        set_scale(out, load_f16(b) * (float)scale, -(load_f16(b + 2) * (float)min));
        for (size_t i = 0; i < SLUICE_Q_LEN; i++)
            out->q[i] = type == SLUICE_WEIGHT_Q4_K ? (int8_t)nibble_of_64(b + 16, g, i)
                                                   : (int8_t)(nibble_of_64(b + 48, g, i) | ((unsigned)b[16 + i] >> g & 1u) << 4);
        break;
    case SLUICE_WEIGHT_Q6_K:
        for (size_t h = 0; h < 2; h++)
            out->scale[h] = load_f16(b + 208) * (float)(int8_t)b[192 + 2 * g + h];
        for (size_t i = 0; i < SLUICE_Q_LEN; i++) {
            const unsigned low = (unsigned)b[64 * half + 32 * (g % 2) + i] >> 4 * (g % 4 / 2) & 15u, high = (unsigned)b[128 + 32 * half + i] >> pair & 3u;

            out->q[i] = (int8_t)((int)(low | high << 4) - 32);
        }
        break;
    case SLUICE_WEIGHT_IQ4_XS:
        scale = ((unsigned)b[4 + g / 2] >> 4 * (g % 2) & 15u) | ((load_u32(b) >> 16 >> 2 * g) & 3u) << 4;
        set_scale(out, load_f16(b) * (float)((int)scale - 32), 0);
        for (size_t i = 0; i < SLUICE_Q_LEN; i++)
            out->q[i] = iq4_values[nibble_of_32(b + 8 + 16 * g, i)];
        break;
    default:
        break;
    }
}

static void group_of_32(sluice_weight type, sluice_group *out, const uint8_t *b)
{
    const bool has_min = sluice_weight_table[type].has_min;
    const uint8_t *q = b + (has_min ? 4 : 2);
    uint32_t fifth = 0;

    if (type == SLUICE_WEIGHT_MXFP4) {
        set_scale(out, exponent_of_mx(b[0]), 0);
        q = b + 1;
    } else {
        set_scale(out, load_f16(b), has_min ? load_f16(b + 2) : 0);
    }
    if (type == SLUICE_WEIGHT_Q5_0 || type == SLUICE_WEIGHT_Q5_1) {
        fifth = load_u32(q);
        q += 4;
    }
    for (size_t i = 0; i < SLUICE_Q_LEN; i++)
        switch (type) {
        case SLUICE_WEIGHT_Q8_0: out->q[i] = (int8_t)q[i]; break;
        case SLUICE_WEIGHT_Q4_0: out->q[i] = (int8_t)((int)nibble_of_32(q, i) - 8); break;
        case SLUICE_WEIGHT_Q4_1: out->q[i] = (int8_t)nibble_of_32(q, i); break;
        case SLUICE_WEIGHT_Q5_0: out->q[i] = (int8_t)((int)(nibble_of_32(q, i) | (fifth >> i & 1u) << 4) - 16); break;
        case SLUICE_WEIGHT_Q5_1: out->q[i] = (int8_t)(nibble_of_32(q, i) | (fifth >> i & 1u) << 4); break;
        case SLUICE_WEIGHT_IQ4_NL: out->q[i] = iq4_values[nibble_of_32(q, i)]; break;
        case SLUICE_WEIGHT_MXFP4: out->q[i] = e2m1_values[nibble_of_32(q, i)]; break;
        default: break;
        }
}

void sluice_weight_group(sluice_weight type, sluice_group *out, const uint8_t *row, size_t g)
{
    const sluice_weight_traits *t = &sluice_weight_table[type];

    memset(out, 0, sizeof *out);
    if (t->block_len == SLUICE_Q_LEN)
        group_of_32(type, out, row + g * t->block_bytes);
    else if (t->is_quantized)
        group_of_256(type, out, row + g / 8 * t->block_bytes, g % 8);
}

void sluice_weight_row(sluice_weight type, float *out, const uint8_t *row, size_t cols)
{
    if (type == SLUICE_WEIGHT_F32) {
        memcpy(out, row, cols * sizeof *out);
    } else if (type == SLUICE_WEIGHT_F16) {
        for (size_t i = 0; i < cols; i++)
            out[i] = load_f16(row + 2 * i);
    } else if (type == SLUICE_WEIGHT_BF16) {
        for (size_t i = 0; i < cols; i++) {
            const uint32_t bits = (uint32_t)row[2 * i] << 16 | (uint32_t)row[2 * i + 1] << 24;

            memcpy(&out[i], &bits, sizeof bits);
        }
    } else {
        for (size_t g = 0; g < cols / SLUICE_Q_LEN; g++) {
            sluice_group w;

            sluice_weight_group(type, &w, row, g);
            for (size_t i = 0; i < SLUICE_Q_LEN; i++)
                out[g * SLUICE_Q_LEN + i] = w.scale[i / 16] * (float)w.q[i] + w.min[i / 16];
        }
    }
}
