/* kernels.h - the only door to SIMD: products of weights and activations, attention, norms, activation functions, quantizing.
 *
 * kernels_scalar.c defines the right answer, to the bit: every table of every instruction set gives the same bits as the
 * scalar one, for any shape, any number of rows or tokens in a call and any order of calls.  So an answer depends neither on
 * the processor nor on the number of threads nor on how a prompt was cut into chunks, and a test compares with memcmp.
 * What makes that possible costs next to nothing:
 *
 *   quantized weights   a row is a sequence of groups of 32 weights, w = scale * q + min, with one scale and min for the group or one for each half
 *                       of it (sluice_weight_traits).  The integer product of a group (or half) with the activations is exact; groups are
 *                       added from first to last in one float of its own per row and token:
 *                           one scale    y = fma(scale * x.scale, (float)sum(q * x.q), y)       with a min, then y = fma(min, x.scaled_sum, y)
 *                           two          the same for each half, first half first                with mins, then y = fma(min[h], x.scale * (float)x.sum[h], y)
 *                       (scale, then min, of half 0; then of half 1).
 *   float weights       sixteen running sums, element i going to sum i % 16 by fma, folded 8, 4, 2, 1 at the end
 *   attention scores    one running sum, from dimension 0 up, by fma; 8-bit keys: as quantized weights
 *   exp                 one polynomial, named below, in fma steps
 *
 * (Where an operand is not finite the result is not finite either; which NaN it is, is not defined.  Zeros may differ in sign.)
 *
 * How a table gets its speed is its own affair: a product over many tokens turns 32 rows at a time into a strip of bytes, interleaved in units of four (or
 * what the instruction set wants), that all tokens run over; a product over a few tokens reads the rows as they lie in the file, with
 * software prefetch.  Both give the same bits.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_KERNELS_KERNELS_H
#define SLUICE_LOCAL_ENGINE_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Weight formats, as they lie in a GGUF file, at any alignment (source of the layouts: ggml's block structures). */
typedef enum sluice_weight {
    SLUICE_WEIGHT_F32, SLUICE_WEIGHT_F16, SLUICE_WEIGHT_BF16,
    SLUICE_WEIGHT_Q8_0,     /* 32: f16 d, 32 int8                                                  w = d q                        */
    SLUICE_WEIGHT_Q4_0,     /* 32: f16 d, 16 bytes; byte j holds q[j] low and q[j + 16] high       w = d (q - 8)                  */
    SLUICE_WEIGHT_Q4_1,     /* 32: f16 d, f16 m, 16 bytes                                          w = d q + m                    */
    SLUICE_WEIGHT_Q5_0,     /* 32: f16 d, u32 fifth bits, 16 bytes                                 w = d (q - 16)                 */
    SLUICE_WEIGHT_Q5_1,     /* 32: f16 d, f16 m, u32 fifth bits, 16 bytes                          w = d q + m                    */
    SLUICE_WEIGHT_Q2_K,     /* 256: 16 bytes (scale low, min high nibble), 64 bytes q, f16 d, f16 dmin; parts of 16: w = d s q - dmin m */
    SLUICE_WEIGHT_Q3_K,     /* 256: 32 bytes high bits, 64 bytes low bits, 12 bytes scales, f16 d; parts of 16:  w = d (s - 32) (q - 4) */
    SLUICE_WEIGHT_Q4_K,     /* 256: f16 d, f16 dmin, 12 bytes scales and mins, 128 bytes; parts of 32:           w = d s q - dmin m     */
    SLUICE_WEIGHT_Q5_K,     /* 256: as Q4_K with 32 bytes of fifth bits before the nibbles                                              */
    SLUICE_WEIGHT_Q6_K,     /* 256: 128 bytes low nibbles, 64 bytes high pairs, 16 int8 scales, f16 d; parts of 16: w = d s (q - 32)    */
    SLUICE_WEIGHT_IQ4_NL,   /* 32: f16 d, 16 bytes                                                 w = d table[q]                 */
    SLUICE_WEIGHT_IQ4_XS,   /* 256: f16 d, u16 high scale bits, 4 bytes low scale bits, 128 bytes; parts of 32:  w = d (s - 32) table[q] */
    SLUICE_WEIGHT_MXFP4,    /* 32: e8m0 exponent, 16 bytes of e2m1 (OCP MX v1.0)                   w = 2^(e - 128) table2[q]      */
    SLUICE_WEIGHT_COUNT
} sluice_weight;

enum {
    SLUICE_Q_LEN = 32,          /* weights or activations of a group */
    SLUICE_STRIP_ROWS = 32,     /* work is cut between threads at multiples of this many rows */
    SLUICE_KEY_BLOCK = 16       /* positions of a block of keys */
};

typedef struct sluice_weight_traits {
    uint16_t block_len, block_bytes;    /* weights and bytes of a block; block_len % 32 == 0 for quantized ones, 1 for floats */
    bool is_quantized;
    bool has_halves;                    /* a scale (and min) for each 16 weights instead of each 32 */
    bool has_min;
} sluice_weight_traits;

extern const sluice_weight_traits sluice_weight_table[SLUICE_WEIGHT_COUNT];

/* The 32 weights of group g of a quantized row as w = scale * q + min: what every kernel must agree with.  q in [-128, 127];
 * scale[1] and min[1] equal [0] without halves; min is 0 without mins.  scale and min are computed in f32 as one product, d * s and -(dmin * m). */
typedef struct sluice_group { int8_t q[SLUICE_Q_LEN]; float scale[2], min[2]; } sluice_group;
void sluice_weight_group(sluice_weight type, sluice_group *out, const uint8_t *row, size_t g);

/* 32 activations in 8 bits: x = scale * q, scale = max|x| / 127 (in f32), q in [-127, 127], rounded to nearest, ties to even.
 * A group that holds an infinity or a NaN has scale NaN, so that the damage shows in the result. */
typedef struct sluice_q8 {
    float scale;
    float scaled_sum;           /* scale * (float)(sum[0] + sum[1]): what a min is multiplied with */
    int32_t sum[2];             /* of q in each half: also pays for the offset where a kernel takes weights as unsigned */
    int8_t q[SLUICE_Q_LEN];
} sluice_q8;

/* y[t * y_stride + r] = W(r, :) . x(t, :)  for r < rows, t < n_tokens. */
typedef struct sluice_product {
    const uint8_t *w;           /* (rows, cols), row_bytes apart */
    size_t row_bytes;
    size_t rows, cols;          /* cols a multiple of the block for quantized weights, anything for float ones */
    const void *x;              /* (n_tokens, cols): float for float weights, sluice_q8 groups for quantized ones */
    size_t x_stride;            /* bytes from token to token */
    size_t n_tokens;
    float *y;
    size_t y_stride;            /* floats from token to token */
    void *strip;                /* SLUICE_STRIP_BYTES of scratch, 64-byte aligned */
    const uint8_t *readable_end;/* nothing at or past it may be read: the end of the file's mapping (a prefetch may touch it, a load not) */
} sluice_product;

typedef void (*sluice_product_fn)(const sluice_product *p);

/* Scratch of a product, whatever its shape: a table that makes strips cuts long rows into pieces that fit. */
#define SLUICE_STRIP_BYTES ((size_t)192 * 1024)

/* Attention.  Keys lie in blocks of 16 positions so that lanes are positions:
 *
 *     f16   block b of a head: (dim, 16) f16, key [d][i] of position 16 b + i
 *     q8    block b of a head: (dim / 32) times { 16 f32 scales, (8, 16, 4) int8 }: unit u of position i holds dimensions 4 u … 4 u + 3 of the group
 *
 * scores(q, i) = query q . key(first + i), unscaled.  Positions past the last written one hold anything finite or not; the caller ignores their scores. */
typedef struct sluice_scores {
    const void *keys;           /* block 0 of the head */
    size_t first, n;            /* positions; multiples of 16 */
    size_t dim;
    const void *queries;        /* f16 keys: (n_queries, dim) float; q8 keys: (n_queries, dim / 32) sluice_q8 */
    size_t n_queries;
    float *out;                 /* (n_queries, out_stride); 64-byte aligned, out_stride % 16 == 0 */
    size_t out_stride;
} sluice_scores;

/* out(q, :) = sum over i < n of weights(q, i) * v(i, :), from first to last, by fma.  A weight of 0 adds nothing, whatever v holds (it is finite).
 *
 *     f16   v: (n, v_stride) f16                                out = fma(weight, v, out)
 *     q8    v: rows of Q8_0 blocks, v_stride bytes apart        out = fma(weight * d, (float)q, out)      */
typedef struct sluice_mix {
    const void *v;
    size_t v_stride;            /* f16: numbers, q8: bytes, from position to position */
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
    /* out = (x - mean) / sqrt(variance + eps) * w + b; out may be x; b may be NULL */
    void (*layer_norm)(float *out, const float *x, const float *w, const float *b, size_t n, float eps);
    /* x = softmax(scale * x) in place, scale > 0, n >= 1; returns the sum of exp(scale * (x - max)) */
    float (*softmax)(float *x, size_t n, float scale);
    void (*soft_cap)(float *x, size_t n, float scale, float cap);              /* x = cap * tanh(scale * x / cap) */
    /* gate = gate / (1 + exp(-gate)) * up */
    void (*silu_mul)(float *gate, const float *up, size_t n);
    /* gate = gelu(gate) * up, gelu(x) = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))); up may be NULL: gelu alone */
    void (*gelu_mul)(float *gate, const float *up, size_t n);
    void (*scores_f16)(const sluice_scores *s);
    void (*scores_q8)(const sluice_scores *s);                                 /* dim % 32 == 0 */
    void (*mix_f16)(const sluice_mix *m);
    void (*mix_q8)(const sluice_mix *m);                                       /* dim % 32 == 0 */
} sluice_kernels;

/* The best that `cpu` (SLUICE_CPU_* of sdk/platform) allows; 0 gives the scalar reference. */
void sluice_kernels_init(sluice_kernels *k, uint32_t cpu);

float sluice_f16_to_f32(uint16_t h);
uint16_t sluice_f32_to_f16(float f);
static inline bool sluice_weight_is_quantized(sluice_weight type) { return sluice_weight_table[type].is_quantized; }

/* Bytes of a row; cols a multiple of the block. */
size_t sluice_weight_row_bytes(sluice_weight type, size_t cols);
/* One row to f32 (an embedding). */
void sluice_weight_row(sluice_weight type, float *out, const uint8_t *row, size_t cols);
const char *sluice_weight_name(sluice_weight type); /* "Q4_K" */

/* Each replaces what its instruction set improves and leaves the rest in place. */
void sluice_kernels_install_scalar(sluice_kernels *k);
void sluice_kernels_install_avx2(sluice_kernels *k);
void sluice_kernels_install_avx512vnni(sluice_kernels *k);
void sluice_kernels_install_neon_dotprod(sluice_kernels *k);
void sluice_kernels_install_neon_i8mm(sluice_kernels *k);

/* ---- exp, as every table computes it
 *
 * With t = x * log2(e) + 1.5 * 2^23 the sum rounds to an integer, n, in t's low bits.  r = x - n * ln 2, in two steps, is within +-0.347, where Taylor's
 * polynomial of degree 7 is off by 5e-9 of the value, a tenth of a float's rounding.  x is clamped so that 2^n stays a normal number.
 * tanh(x) = 1 - 2 / (exp(2 x) + 1), in that order of operations. */
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
