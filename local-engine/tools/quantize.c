/* quantize.c - float32 rows to F16, Q8_0 and Q4_0, and back.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/tools/quantize.h"

#include <math.h>

enum { BLOCK = 32 };

uint16_t sluice_half_from_float(float f)
{
    uint32_t bits, sign, magnitude, rounded;

    memcpy(&bits, &f, sizeof bits);
    sign = bits >> 16 & 0x8000u;
    magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) { /* below 2^-14: subnormal, a multiple of 2^-24 */
        float scaled = fabsf(f) * 16777216.0f;

        return (uint16_t)(sign | (uint32_t)lrintf(scaled));
    }
    rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u); /* nearest even */
    return (uint16_t)(sign | ((rounded >> 13) - (112u << 10)));
}

float sluice_float_from_half(uint16_t h)
{
    uint32_t exponent = (uint32_t)h >> 10 & 31u, mantissa = h & 0x3ffu;
    float f = exponent == 0    ? ldexpf((float)mantissa, -24)
              : exponent == 31 ? (mantissa != 0 ? NAN : INFINITY)
                               : ldexpf((float)(mantissa | 0x400u), (int)exponent - 25);

    return (h & 0x8000u) != 0 ? -f : f;
}

static void put_half(uint8_t *out, float f)
{
    uint16_t h = sluice_half_from_float(f);

    out[0] = (uint8_t)h;
    out[1] = (uint8_t)(h >> 8);
}

static float get_half(const uint8_t *in)
{
    return sluice_float_from_half((uint16_t)(in[0] | in[1] << 8));
}

static void quantize_q8_0(const float *in, uint8_t *out)
{
    float largest = 0, d;

    for (size_t i = 0; i < BLOCK; i++)
        largest = fmaxf(largest, fabsf(in[i]));
    d = largest / 127.0f;
    put_half(out, d);
    for (size_t i = 0; i < BLOCK; i++)
        out[2 + i] = (uint8_t)(int8_t)(d > 0 ? lrintf(in[i] / d) : 0);
}

/* The scale gives the weight of the largest magnitude, whatever its sign, the value -8: the one that only the negative side has. */
static void quantize_q4_0(const float *in, uint8_t *out)
{
    float largest = 0, d;
    uint8_t q[BLOCK];

    for (size_t i = 0; i < BLOCK; i++)
        if (fabsf(in[i]) > fabsf(largest))
            largest = in[i];
    d = largest / -8.0f;
    put_half(out, d);
    for (size_t i = 0; i < BLOCK; i++) {
        long v = largest != 0 ? lrintf(in[i] / d) + 8 : 8;

        q[i] = (uint8_t)(v < 0 ? 0 : v > 15 ? 15 : v);
    }
    for (size_t i = 0; i < BLOCK / 2; i++)
        out[2 + i] = (uint8_t)(q[i] | q[i + BLOCK / 2] << 4);
}

void sluice_quantize(sluice_tensor_type type, const float *in, size_t n, uint8_t *out)
{
    switch (type) {
    case SLUICE_TENSOR_F16:
        for (size_t i = 0; i < n; i++)
            put_half(out + 2 * i, in[i]);
        break;
    case SLUICE_TENSOR_Q8_0:
        for (size_t i = 0; i < n / BLOCK; i++)
            quantize_q8_0(in + i * BLOCK, out + i * (2 + BLOCK));
        break;
    case SLUICE_TENSOR_Q4_0:
        for (size_t i = 0; i < n / BLOCK; i++)
            quantize_q4_0(in + i * BLOCK, out + i * (2 + BLOCK / 2));
        break;
    case SLUICE_TENSOR_F32:
    default: memcpy(out, in, n * sizeof *in); break;
    }
}

void sluice_dequantize(sluice_tensor_type type, const uint8_t *in, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        const uint8_t *q8 = in + i / BLOCK * (2 + BLOCK), *q4 = in + i / BLOCK * (2 + BLOCK / 2);
        size_t j = i % BLOCK;

        switch (type) {
        case SLUICE_TENSOR_F16: out[i] = get_half(in + 2 * i); break;
        case SLUICE_TENSOR_Q8_0: out[i] = get_half(q8) * (float)(int8_t)q8[2 + j]; break;
        case SLUICE_TENSOR_Q4_0: out[i] = get_half(q4) * (float)((j < BLOCK / 2 ? q4[2 + j] & 15 : q4[2 + j - BLOCK / 2] >> 4) - 8); break;
        case SLUICE_TENSOR_F32:
        default: memcpy(&out[i], in + 4 * i, sizeof out[i]); break;
        }
    }
}
