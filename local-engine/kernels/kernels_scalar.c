/* kernels_scalar.c - the right answer: plain C that every other table must equal bit for bit.
 *
 * It also runs where nothing better does.  fmaf() is one instruction on ARM and on x86 processors with FMA (the C library
 * looks when it is loaded); on older ones it is exact as well, and slow.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/kernels/kernels.h"

#include <math.h>
#include <string.h>

enum { LANES = 16 };

static uint32_t bits_of(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof f);
    return f;
}

static float load_f16(const uint8_t *p)
{
    uint16_t h;

    memcpy(&h, p, sizeof h);
    return sluice_f16_to_f32(h);
}

static float load_f32(const uint8_t *p)
{
    float f;

    memcpy(&f, p, sizeof f);
    return f;
}

static float fold(const float lane[LANES])
{
    float sum[LANES];

    memcpy(sum, lane, sizeof sum);
    for (size_t width = LANES / 2; width >= 1; width /= 2)
        for (size_t i = 0; i < width; i++)
            sum[i] += sum[i + width];
    return sum[0];
}

/* ---- products */

static void product_f32(const sluice_product *p)
{
    for (size_t r = 0; r < p->rows; r++)
        for (size_t t = 0; t < p->n_tokens; t++) {
            const uint8_t *w = p->w + r * p->row_bytes;
            const float *x = (const float *)((const uint8_t *)p->x + t * p->x_stride);
            float lane[LANES] = { 0 };

            for (size_t i = 0; i < p->cols; i++)
                lane[i % LANES] = fmaf(load_f32(w + 4 * i), x[i], lane[i % LANES]);
            p->y[t * p->y_stride + r] = fold(lane);
        }
}

static void product_f16(const sluice_product *p)
{
    for (size_t r = 0; r < p->rows; r++)
        for (size_t t = 0; t < p->n_tokens; t++) {
            const uint8_t *w = p->w + r * p->row_bytes;
            const float *x = (const float *)((const uint8_t *)p->x + t * p->x_stride);
            float lane[LANES] = { 0 };

            for (size_t i = 0; i < p->cols; i++)
                lane[i % LANES] = fmaf(load_f16(w + 2 * i), x[i], lane[i % LANES]);
            p->y[t * p->y_stride + r] = fold(lane);
        }
}

static int32_t block_q8_0(const uint8_t *q, const int8_t *x)
{
    int32_t sum = 0;

    for (size_t i = 0; i < SLUICE_Q_LEN; i++)
        sum += (int32_t)(int8_t)q[i] * x[i];
    return sum;
}

static int32_t block_q4_0(const uint8_t *q, const int8_t *x)
{
    int32_t sum = 0;

    for (size_t i = 0; i < SLUICE_Q_LEN / 2; i++)
        sum += ((q[i] & 15) - 8) * x[i] + ((q[i] >> 4) - 8) * x[i + SLUICE_Q_LEN / 2];
    return sum;
}

static void product_blocks(const sluice_product *p, size_t block_bytes, int32_t (*block)(const uint8_t *, const int8_t *))
{
    for (size_t r = 0; r < p->rows; r++)
        for (size_t t = 0; t < p->n_tokens; t++) {
            const uint8_t *w = p->w + r * p->row_bytes;
            const sluice_q8 *x = (const sluice_q8 *)(const void *)((const uint8_t *)p->x + t * p->x_stride);
            float y = 0;

            for (size_t b = 0; b < p->cols / SLUICE_Q_LEN; b++, w += block_bytes)
                y = fmaf(load_f16(w) * x[b].scale, (float)block(w + 2, x[b].q), y);
            p->y[t * p->y_stride + r] = y;
        }
}

static void product_q8_0(const sluice_product *p)
{
    product_blocks(p, SLUICE_Q8_0_BYTES, block_q8_0);
}

static void product_q4_0(const sluice_product *p)
{
    product_blocks(p, SLUICE_Q4_0_BYTES, block_q4_0);
}

/* ---- activations */

/* Rounds to nearest, ties to even, |f| < 2^22. */
static float round_even(float f)
{
    return (f + SLUICE_EXP_SHIFT) - SLUICE_EXP_SHIFT;
}

static void quantize(sluice_q8 *out, const float *x, size_t n)
{
    for (size_t b = 0; b < n / SLUICE_Q_LEN; b++, x += SLUICE_Q_LEN, out++) {
        uint32_t largest = 0; /* the bits of |x| are ordered as |x| is, with infinity and NaN on top */
        float scale, inverse;

        for (size_t i = 0; i < SLUICE_Q_LEN; i++) {
            const uint32_t magnitude = bits_of(x[i]) & 0x7fffffffu;

            largest = magnitude > largest ? magnitude : largest;
        }
        memset(out, 0, sizeof *out);
        if (largest >= 0x7f800000u) {
            out->scale = NAN;
            continue;
        }
        scale = float_of(largest) / 127.0f;
        if (scale < 1e-30f) /* too small for its inverse to be finite, and to matter */
            continue;
        inverse = 127.0f / float_of(largest);
        out->scale = scale;
        for (size_t i = 0; i < SLUICE_Q_LEN; i++) {
            out->q[i] = (int8_t)round_even(x[i] * inverse); /* |x * inverse| < 127.5: the product of two roundings is within 1e-5 of 127 */
            out->sum += out->q[i];
        }
    }
}

static void to_f16(uint16_t *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = sluice_f32_to_f16(x[i]);
}

static void rms_norm(float *out, const float *x, const float *w, size_t n, float eps)
{
    float lane[LANES] = { 0 };
    float scale;

    for (size_t i = 0; i < n; i++)
        lane[i % LANES] = fmaf(x[i], x[i], lane[i % LANES]);
    scale = 1.0f / sqrtf(fold(lane) / (float)n + eps);
    for (size_t i = 0; i < n; i++)
        out[i] = x[i] * scale * w[i];
}

static float exp_clamped(float x)
{
    float t, n, r, p;

    x = x < SLUICE_EXP_MIN ? SLUICE_EXP_MIN : x; /* a NaN passes both comparisons */
    x = x > SLUICE_EXP_MAX ? SLUICE_EXP_MAX : x;
    t = fmaf(x, SLUICE_EXP_LOG2E, SLUICE_EXP_SHIFT);
    n = t - SLUICE_EXP_SHIFT;
    r = fmaf(n, -SLUICE_EXP_LN2_HI, x);
    r = fmaf(n, -SLUICE_EXP_LN2_LO, r);
    p = fmaf(SLUICE_EXP_C7, r, SLUICE_EXP_C6);
    p = fmaf(p, r, SLUICE_EXP_C5);
    p = fmaf(p, r, SLUICE_EXP_C4);
    p = fmaf(p, r, SLUICE_EXP_C3);
    p = fmaf(p, r, SLUICE_EXP_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    return p * float_of((bits_of(t) + 127u) << 23); /* the shift drops the high bits of t, which are not n's */
}

static float softmax(float *x, size_t n, float scale)
{
    float lane[LANES] = { 0 };
    float largest = x[0], sum, inverse;

    for (size_t i = 1; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    for (size_t i = 0; i < n; i++) {
        x[i] = exp_clamped((x[i] - largest) * scale);
        lane[i % LANES] += x[i];
    }
    sum = fold(lane);
    inverse = 1.0f / sum;
    for (size_t i = 0; i < n; i++)
        x[i] *= inverse;
    return sum;
}

static void silu_mul(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        gate[i] = gate[i] / (1.0f + exp_clamped(-gate[i])) * up[i];
}

static void mix(const sluice_mix *m)
{
    for (size_t q = 0; q < m->n_queries; q++)
        for (size_t j = 0; j < m->dim; j++) {
            float sum = 0;

            for (size_t i = 0; i < m->n; i++)
                sum = fmaf(m->weights[q * m->weights_stride + i], sluice_f16_to_f32(m->v[i * m->v_stride + j]), sum);
            m->out[q * m->out_stride + j] = sum;
        }
}

void sluice_kernels_install_scalar(sluice_kernels *k)
{
    k->isa = "scalar";
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
