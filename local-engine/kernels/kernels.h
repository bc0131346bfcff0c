/* kernels.h - the only door to SIMD: products of weights and activations, norm, softmax, activation, quantizing.
 *
 * kernels_scalar.c defines the right answer, to the bit: every table of every instruction set gives the same bits as the
 * scalar one, for any shape, any number of rows or tokens in a call and any order of calls.  So an answer depends neither on
 * the processor nor on the number of threads nor on how a prompt was cut into chunks, and a test compares with memcmp.
 * What makes that possible costs next to nothing:
 *
 *   quantized weights   the products of a block are exact integers; blocks are added from first to last, in one float of
 *                       its own per row and token:  y = fma(w.scale * x.scale, (float)block_sum, y)
 *   float weights       sixteen running sums, element i going to sum i % 16 by fma, folded 8, 4, 2, 1 at the end
 *   exp                 one polynomial, named below, in fma steps
 *
 * (Where an operand is not finite the result is not finite either; which NaN it is, is not defined.  Zeros may differ in sign.)
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_KERNELS_KERNELS_H
#define SLUICE_LOCAL_ENGINE_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Weight formats, as they lie in a GGUF file, at any alignment. */
typedef enum sluice_weight {
    SLUICE_WEIGHT_F32 = 0,
    SLUICE_WEIGHT_F16 = 1,
    SLUICE_WEIGHT_Q8_0 = 2, /* blocks of 32: f16 scale, 32 int8                          w = scale * q       */
    SLUICE_WEIGHT_Q4_0 = 3, /* blocks of 32: f16 scale, 16 bytes; byte j holds q[j] low and q[j + 16] high,  *
                             *                                                           w = scale * (q - 8) */
    SLUICE_WEIGHT_COUNT = 4
} sluice_weight;

enum {
    SLUICE_Q_LEN = 32,          /* weights or activations of a block */
    SLUICE_Q8_0_BYTES = 34,
    SLUICE_Q4_0_BYTES = 18,
    SLUICE_STRIP_ROWS = 32      /* work is cut between threads at multiples of this many rows */
};

/* 32 activations in 8 bits: x = scale * q, scale = max|x| / 127 (in f32; ggml rounds it to f16), q in [-127, 127], rounded to nearest, ties to even.
 * A block that holds an infinity or a NaN has scale NaN, so that the damage shows in the result. */
typedef struct sluice_q8 {
    float scale;
    int32_t sum;                /* of q: pays for the offset of unsigned weights */
    int8_t q[SLUICE_Q_LEN];
} sluice_q8;

/* y[t * y_stride + r] = W(r, :) . x(t, :)  for r < rows, t < n_tokens. */
typedef struct sluice_product {
    const uint8_t *w;           /* (rows, cols), row_bytes apart */
    size_t row_bytes;
    size_t rows, cols;          /* cols % 32 == 0 for quantized weights, anything for float ones */
    const void *x;              /* (n_tokens, cols): float for float weights, sluice_q8 blocks for quantized ones */
    size_t x_stride;            /* bytes from token to token */
    size_t n_tokens;
    float *y;
    size_t y_stride;            /* floats from token to token */
    void *strip;                /* sluice_kernels_strip_bytes(cols) of scratch, 64-byte aligned */
} sluice_product;

typedef void (*sluice_product_fn)(const sluice_product *p);

/* out(q, :) = sum over i < n of weights(q, i) * v(i, :), from first to last, by fma.  What attention gathers; a weight of 0 adds nothing. */
typedef struct sluice_mix {
    const uint16_t *v;          /* (n, dim) f16 */
    size_t v_stride;            /* numbers from row to row, as all strides here */
    const float *weights;       /* (n_queries, n) */
    size_t weights_stride;
    size_t n_queries, n, dim;
    float *out;                 /* (n_queries, dim) */
    size_t out_stride;
} sluice_mix;

typedef struct sluice_kernels {
    const char *isa;            /* of the last table row installed, for benches and bug reports: "avx2" */
    sluice_product_fn product[SLUICE_WEIGHT_COUNT];
    void (*quantize)(sluice_q8 *out, const float *x, size_t n);                /* n % 32 == 0 */
    void (*to_f16)(uint16_t *out, const float *x, size_t n);                   /* nearest, ties to even; too large: infinity */
    /* out = x / sqrt(mean(x^2) + eps) * w; out may be x */
    void (*rms_norm)(float *out, const float *x, const float *w, size_t n, float eps);
    /* x = softmax(scale * x) in place, scale > 0, n >= 1; returns the sum of exp(scale * (x - max)) */
    float (*softmax)(float *x, size_t n, float scale);
    /* gate = gate / (1 + exp(-gate)) * up */
    void (*silu_mul)(float *gate, const float *up, size_t n);
    void (*mix)(const sluice_mix *m);
} sluice_kernels;

/* The best that `cpu` (SLUICE_CPU_* of sdk/platform) allows; 0 gives the scalar reference. */
void sluice_kernels_init(sluice_kernels *k, uint32_t cpu);

/* Scratch that a product over rows of `cols` may use: a strip of 32 rows as bytes, with its scales. */
static inline size_t sluice_kernels_strip_bytes(size_t cols)
{
    return SLUICE_STRIP_ROWS * cols + SLUICE_STRIP_ROWS * sizeof(float) * (cols / SLUICE_Q_LEN) + 64;
}

float sluice_f16_to_f32(uint16_t h);
uint16_t sluice_f32_to_f16(float f);

/* Bytes of a row; cols % 32 == 0 for quantized weights. */
size_t sluice_weight_row_bytes(sluice_weight type, size_t cols);
/* One row to f32 (an embedding). */
void sluice_weight_row(sluice_weight type, float *out, const uint8_t *row, size_t cols);

/* Each replaces what its instruction set improves and leaves the rest in place. */
void sluice_kernels_install_scalar(sluice_kernels *k);
void sluice_kernels_install_avx2(sluice_kernels *k);
void sluice_kernels_install_avx512vnni(sluice_kernels *k);
void sluice_kernels_install_neon_dotprod(sluice_kernels *k);

/* ---- exp, as every table computes it
 *
 * With t = x * log2(e) + 1.5 * 2^23 the sum rounds to an integer, n, in t's low bits.  r = x - n * ln 2, in two steps, is within +-0.347, where Taylor's
 * polynomial of degree 7 is off by 5e-9 of the value, a tenth of a float's rounding.  x is clamped so that 2^n stays a normal number. */
#define SLUICE_EXP_MIN (-87.3f)
#define SLUICE_EXP_MAX 88.3f
#define SLUICE_EXP_LOG2E 1.44269504f
#define SLUICE_EXP_SHIFT 12582912.0f        /* 1.5 * 2^23: bits 0x4b400000 */
#define SLUICE_EXP_LN2_HI 0.693359375f      /* ten bits: n * LN2_HI is exact */
#define SLUICE_EXP_LN2_LO (-2.12194440e-4f)
#define SLUICE_EXP_C7 (1.0f / 5040.0f)
#define SLUICE_EXP_C6 (1.0f / 720.0f)
#define SLUICE_EXP_C5 (1.0f / 120.0f)
#define SLUICE_EXP_C4 (1.0f / 24.0f)
#define SLUICE_EXP_C3 (1.0f / 6.0f)
#define SLUICE_EXP_C2 0.5f

#endif
