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

static float fold(const float lane[LANES])
{
    float sum[LANES];

    memcpy(sum, lane, sizeof sum);
    for (size_t width = LANES / 2; width >= 1; width /= 2)
        for (size_t i = 0; i < width; i++)
            sum[i] += sum[i + width];
    return sum[0];
}

/* ---- products with float weights */

static float load_f32(const uint8_t *p)
{
    float f;

    memcpy(&f, p, sizeof f);
    return f;
}

static float load_f16(const uint8_t *p)
{
    uint16_t h;

    memcpy(&h, p, sizeof h);
    return sluice_f16_to_f32(h);
}

static float load_bf16(const uint8_t *p)
{
    uint16_t h;

    memcpy(&h, p, sizeof h);
    return float_of((uint32_t)h << 16);
}

static void product_floats(const sluice_product *p, size_t width, float (*load)(const uint8_t *))
{
    for (size_t r = 0; r < p->rows; r++)
        for (size_t t = 0; t < p->n_tokens; t++) {
            const uint8_t *w = p->w + r * p->row_bytes;
            const float *x = (const float *)(const void *)((const uint8_t *)p->x + t * p->x_stride);
            float lane[LANES] = { 0 };

            for (size_t i = 0; i < p->cols; i++)
                lane[i % LANES] = fmaf(load(w + width * i), x[i], lane[i % LANES]);
            p->y[t * p->y_stride + r] = fold(lane);
        }
}

static void product_f32(const sluice_product *p)
{
    product_floats(p, 4, load_f32);
}

static void product_f16(const sluice_product *p)
{
    product_floats(p, 2, load_f16);
}

static void product_bf16(const sluice_product *p)
{
    product_floats(p, 2, load_bf16);
}

/* ---- products with quantized weights */

static int32_t dot(const int8_t *a, const int8_t *b, size_t n)
{
    int32_t sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += (int32_t)a[i] * b[i];
    return sum;
}

/* Adds one group's product to y. */
static float add_group(float y, const sluice_group *w, const sluice_q8 *x, const sluice_weight_traits *traits)
{
    if (!traits->has_halves) {
        y = fmaf(w->scale[0] * x->scale, (float)dot(w->q, x->q, SLUICE_Q_LEN), y);
        return traits->has_min ? fmaf(w->min[0], x->scaled_sum, y) : y;
    }
    for (size_t h = 0; h < 2; h++) {
        y = fmaf(w->scale[h] * x->scale, (float)dot(w->q + 16 * h, x->q + 16 * h, 16), y);
        if (traits->has_min)
            y = fmaf(w->min[h], x->scale * (float)x->sum[h], y);
    }
    return y;
}

static void product_groups(const sluice_product *p, sluice_weight type)
{
    for (size_t r = 0; r < p->rows; r++) {
        for (size_t t = 0; t < p->n_tokens; t++)
            p->y[t * p->y_stride + r] = 0;
        for (size_t g = 0; g < p->cols / SLUICE_Q_LEN; g++) {
            sluice_group w;

            sluice_weight_group(type, &w, p->w + r * p->row_bytes, g);
            for (size_t t = 0; t < p->n_tokens; t++) {
                const sluice_q8 *x = (const sluice_q8 *)(const void *)((const uint8_t *)p->x + t * p->x_stride);
                float *y = &p->y[t * p->y_stride + r];

                *y = add_group(*y, &w, &x[g], &sluice_weight_table[type]);
            }
        }
    }
}

#define PRODUCT(name, type) \
    static void name(const sluice_product *p) \
    { \
        product_groups(p, type); \
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
            out->scale = out->scaled_sum = NAN;
            continue;
        }
        scale = float_of(largest) / 127.0f;
        if (scale < 1e-30f) /* too small for its inverse to be finite, and to matter */
            continue;
        inverse = 127.0f / float_of(largest);
        out->scale = scale;
        for (size_t i = 0; i < SLUICE_Q_LEN; i++) {
            out->q[i] = (int8_t)round_even(x[i] * inverse); /* |x * inverse| < 127.5: the product of two roundings is within 1e-5 of 127 */
            out->sum[i / 16] += out->q[i];
        }
        out->scaled_sum = scale * (float)(out->sum[0] + out->sum[1]);
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

static void layer_norm(float *out, const float *x, const float *w, const float *b, size_t n, float eps)
{
    float total[LANES] = { 0 }, squares[LANES] = { 0 };
    float mean, scale;

    for (size_t i = 0; i < n; i++)
        total[i % LANES] += x[i];
    mean = fold(total) / (float)n;
    for (size_t i = 0; i < n; i++)
        squares[i % LANES] = fmaf(x[i] - mean, x[i] - mean, squares[i % LANES]);
    scale = 1.0f / sqrtf(fold(squares) / (float)n + eps);
    for (size_t i = 0; i < n; i++)
        out[i] = (x[i] - mean) * scale * w[i] + (b == NULL ? 0 : b[i]);
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

static float tanh_of(float x)
{
    return 1.0f - 2.0f / (exp_clamped(2.0f * x) + 1.0f);
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

static void soft_cap(float *x, size_t n, float scale, float cap)
{
    const float by = scale / cap;

    for (size_t i = 0; i < n; i++)
        x[i] = cap * tanh_of(x[i] * by);
}

static void silu_mul(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        gate[i] = gate[i] / (1.0f + exp_clamped(-gate[i])) * up[i];
}

static void gelu_mul(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float x = gate[i], inner = 0.797884561f * fmaf(0.044715f * x * x, x, x); /* sqrt(2 / pi) */

        gate[i] = 0.5f * x * (1.0f + tanh_of(inner));
        if (up != NULL)
            gate[i] *= up[i];
    }
}

/* ---- attention */

static void scores_f16(const sluice_scores *s)
{
    for (size_t q = 0; q < s->n_queries; q++)
        for (size_t i = 0; i < s->n; i++) {
            const size_t at = s->first + i;
            const uint16_t *block = (const uint16_t *)s->keys + at / SLUICE_KEY_BLOCK * s->dim * SLUICE_KEY_BLOCK;
            const float *query = (const float *)s->queries + q * s->dim;
            float sum = 0;

            for (size_t d = 0; d < s->dim; d++)
                sum = fmaf(query[d], sluice_f16_to_f32(block[d * SLUICE_KEY_BLOCK + at % SLUICE_KEY_BLOCK]), sum);
            s->out[q * s->out_stride + i] = sum;
        }
}

static void scores_q8(const sluice_scores *s)
{
    enum { GROUP_BYTES = SLUICE_KEY_BLOCK * (4 + SLUICE_Q_LEN) };
    const size_t n_groups = s->dim / SLUICE_Q_LEN;

    for (size_t q = 0; q < s->n_queries; q++)
        for (size_t i = 0; i < s->n; i++) {
            const size_t at = s->first + i, lane = at % SLUICE_KEY_BLOCK;
            const uint8_t *group = (const uint8_t *)s->keys + at / SLUICE_KEY_BLOCK * n_groups * GROUP_BYTES;
            const sluice_q8 *query = (const sluice_q8 *)s->queries + q * n_groups;
            float sum = 0;

            for (size_t g = 0; g < n_groups; g++, group += GROUP_BYTES) {
                const int8_t *key = (const int8_t *)group + 4 * SLUICE_KEY_BLOCK;
                int32_t products = 0;

                for (size_t u = 0; u < SLUICE_Q_LEN / 4; u++)
                    products += dot(key + (u * SLUICE_KEY_BLOCK + lane) * 4, query[g].q + 4 * u, 4);
                sum = fmaf(load_f32(group + 4 * lane) * query[g].scale, (float)products, sum);
            }
            s->out[q * s->out_stride + i] = sum;
        }
}

static void mix_f16(const sluice_mix *m)
{
    for (size_t q = 0; q < m->n_queries; q++)
        for (size_t j = 0; j < m->dim; j++) {
            const uint16_t *v = m->v;
            float sum = 0;

            for (size_t i = 0; i < m->n; i++)
                sum = fmaf(m->weights[q * m->weights_stride + i], sluice_f16_to_f32(v[i * m->v_stride + j]), sum);
            m->out[q * m->out_stride + j] = sum;
        }
}

static void mix_q8(const sluice_mix *m)
{
    const size_t block_bytes = sluice_weight_table[SLUICE_WEIGHT_Q8_0].block_bytes;

    for (size_t q = 0; q < m->n_queries; q++)
        for (size_t j = 0; j < m->dim; j++) {
            float sum = 0;

            for (size_t i = 0; i < m->n; i++) {
                const uint8_t *block = (const uint8_t *)m->v + i * m->v_stride + j / SLUICE_Q_LEN * block_bytes;

                sum = fmaf(m->weights[q * m->weights_stride + i] * load_f16(block), (float)(int8_t)block[2 + j % SLUICE_Q_LEN], sum);
            }
            m->out[q * m->out_stride + j] = sum;
        }
}

void sluice_kernels_install_scalar(sluice_kernels *k)
{
    k->isa = "scalar";
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
