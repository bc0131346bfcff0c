/* kernels.c - which kernels this processor runs, and what needs no speed: f16, row formats, single rows.
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
};

void sluice_kernels_init(sluice_kernels *k, uint32_t cpu)
{
    memset(k, 0, sizeof *k);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if ((cpu & rows[i].needs) == rows[i].needs)
            rows[i].install(k);
}

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

size_t sluice_weight_row_bytes(sluice_weight type, size_t cols)
{
    switch (type) {
    case SLUICE_WEIGHT_F32: return cols * 4;
    case SLUICE_WEIGHT_F16: return cols * 2;
    case SLUICE_WEIGHT_Q8_0: return cols / SLUICE_Q_LEN * SLUICE_Q8_0_BYTES;
    case SLUICE_WEIGHT_Q4_0: return cols / SLUICE_Q_LEN * SLUICE_Q4_0_BYTES;
    case SLUICE_WEIGHT_COUNT: break;
    }
    return 0;
}

static float load_f16(const uint8_t *p)
{
    uint16_t h;

    memcpy(&h, p, sizeof h);
    return sluice_f16_to_f32(h);
}

void sluice_weight_row(sluice_weight type, float *out, const uint8_t *row, size_t cols)
{
    switch (type) {
    case SLUICE_WEIGHT_F32:
        memcpy(out, row, cols * sizeof *out);
        break;
    case SLUICE_WEIGHT_F16:
        for (size_t i = 0; i < cols; i++)
            out[i] = load_f16(row + 2 * i);
        break;
    case SLUICE_WEIGHT_Q8_0:
        for (size_t b = 0; b < cols / SLUICE_Q_LEN; b++, row += SLUICE_Q8_0_BYTES)
            for (size_t i = 0; i < SLUICE_Q_LEN; i++)
                out[b * SLUICE_Q_LEN + i] = load_f16(row) * (float)(int8_t)row[2 + i];
        break;
    case SLUICE_WEIGHT_Q4_0:
        for (size_t b = 0; b < cols / SLUICE_Q_LEN; b++, row += SLUICE_Q4_0_BYTES)
            for (size_t i = 0; i < SLUICE_Q_LEN; i++) {
                const int q = i < 16 ? row[2 + i] & 15 : row[2 + i - 16] >> 4;

                out[b * SLUICE_Q_LEN + i] = load_f16(row) * (float)(q - 8);
            }
        break;
    case SLUICE_WEIGHT_COUNT:
        break;
    }
}
