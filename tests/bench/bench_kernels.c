/* bench_kernels.c - the kernels alone, on one thread, as shares of what the machine can do.
 *
 *     bench_kernels [--scalar | --avx2 | --avx512 | --dotprod] [--cols N] [--tokens N] [--mb N] [type …]
 *
 * For each weight format: GOP/s of a product over many tokens with weights that stay in the caches, against the measured peak of 8-bit
 * arithmetic; and GB/s of products with one to four tokens that stream a matrix larger than the caches, against the measured
 * read bandwidth.  Then attention, in GFLOP/s.  Best of several rounds, because every disturbance makes a round slower.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "local-engine/kernels/kernels.h"
#include "sdk/platform/platform.h"
#include "tests/bench/limits.h"

enum { ROUNDS = 5, ROWS = 2048 };

static double seconds(void)
{
    return (double)sluice_now_us(sluice_platform_default()) * 1e-6;
}

static uint64_t seed = 1;

static uint32_t next_u32(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 32);
}

static void *aligned(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);

    if (p == NULL) {
        fprintf(stderr, "bench_kernels: %zu bytes are not to be had\n", bytes);
        exit(1);
    }
    return p;
}

/* Random weights of ordinary size: with two bits of every sixteen clear no f16 among them is huge, infinite or not a number. */
static void fill_weights(uint8_t *w, size_t bytes, sluice_weight type)
{
    for (size_t i = 0; i < bytes; i += 4) {
        uint32_t v = next_u32();

        if (type == SLUICE_WEIGHT_F32)
            v = (v & 0x807fffffu) | 0x3f000000u;
        else if (type == SLUICE_WEIGHT_BF16)
            v = (v & 0x807f807fu) | 0x3f003f00u;
        else
            v &= 0xbfbfbfbfu;
        memcpy(w + i, &v, bytes - i < 4 ? bytes - i : 4);
    }
    for (size_t i = 0; i < bytes && type == SLUICE_WEIGHT_MXFP4; i += 17)
        w[i] = 120;
}

static uint8_t *some_weights(size_t bytes, sluice_weight type)
{
    uint8_t *w = aligned(bytes);

    fill_weights(w, bytes, type);
    return w;
}

typedef struct inputs {
    size_t cols, n_tokens;
    float *x;                   /* (n_tokens, cols) */
    sluice_q8 *q;
    float *y;
    void *strip;
} inputs;

static sluice_product make_product(const inputs *in, sluice_weight type, const uint8_t *w, size_t rows, size_t n_tokens)
{
    const bool is_quantized = sluice_weight_is_quantized(type);
    const size_t row_bytes = sluice_weight_row_bytes(type, in->cols);

    return (sluice_product){
        .w = w,
        .row_bytes = row_bytes,
        .rows = rows,
        .cols = in->cols,
        .x = is_quantized ? (const void *)in->q : (const void *)in->x,
        .x_stride = is_quantized ? in->cols / 32 * sizeof(sluice_q8) : in->cols * sizeof(float),
        .n_tokens = n_tokens,
        .y = in->y,
        .y_stride = rows,
        .strip = in->strip,
        .readable_end = w + rows * row_bytes,
    };
}

static double gop_per_s(const sluice_kernels *k, const inputs *in, sluice_weight type)
{
    uint8_t *w = some_weights(ROWS * sluice_weight_row_bytes(type, in->cols), type);
    const sluice_product p = make_product(in, type, w, ROWS, in->n_tokens);
    double best = INFINITY;

    for (int i = 0; i < ROUNDS; i++) {
        const double start = seconds();

        k->product[type](&p);
        best = fmin(best, seconds() - start);
    }
    free(w);
    return 2.0 * ROWS * (double)in->cols * (double)in->n_tokens / best * 1e-9;
}

/* n_tokens > 1: what drafted tokens or a few sessions at once cost. */
static double gb_per_s(const sluice_kernels *k, const inputs *in, sluice_weight type, const uint8_t *w, size_t bytes, size_t n_tokens)
{
    const size_t row_bytes = sluice_weight_row_bytes(type, in->cols), rows = 512, n = bytes / (rows * row_bytes);
    double best = INFINITY;

    for (int i = 0; i < ROUNDS; i++) {
        const double start = seconds();

        for (size_t j = 0; j < n; j++) {
            sluice_product p = make_product(in, type, w + j * rows * row_bytes, rows, n_tokens);

            p.readable_end = w + bytes;
            k->product[type](&p);
        }
        best = fmin(best, seconds() - start);
    }
    return (double)(n * rows * row_bytes) / best * 1e-9;
}

static void attention(const sluice_kernels *k)
{
    enum { DIM = 64, POSITIONS = 512, QUERIES = 32 };
    uint8_t *keys = some_weights(POSITIONS * DIM * 2, SLUICE_WEIGHT_F16), *keys_q8 = some_weights(POSITIONS * DIM * 2, SLUICE_WEIGHT_F16);
    float *queries = aligned(QUERIES * DIM * sizeof(float)), *out = aligned(QUERIES * POSITIONS * sizeof(float));
    sluice_q8 *q8 = aligned(QUERIES * (DIM / 32) * sizeof *q8);
    const sluice_scores s[2] = { { keys, 0, POSITIONS, DIM, queries, QUERIES, out, POSITIONS }, { keys_q8, 0, POSITIONS, DIM, q8, QUERIES, out, POSITIONS } };
    const sluice_mix m[2] = { { keys, DIM, out, POSITIONS, QUERIES, POSITIONS, DIM, queries, DIM },
                              { keys, DIM / 32 * 34, out, POSITIONS, QUERIES, POSITIONS, DIM, queries, DIM } };
    const char *const names[] = { "scores_f16", "scores_q8", "mix_f16", "mix_q8", "softmax" };

    for (size_t i = 0; i < POSITIONS / 16 * (DIM / 32) * 16; i++) {
        const float scale = 0.01f;

        memcpy(keys_q8 + i / 16 * 16 * 36 + i % 16 * 4, &scale, sizeof scale);
    }
    for (size_t i = 0; i < QUERIES * DIM; i++)
        queries[i] = (float)(next_u32() % 2001) * 1e-3f - 1;
    k->quantize(q8, queries, QUERIES * DIM);
    for (int what = 0; what < 5; what++) {
        double best = INFINITY;

        for (size_t i = 0; i < QUERIES * POSITIONS; i++)
            out[i] = (float)(next_u32() % 2001) * 1e-3f - 1;
        for (int i = 0; i < 3 * ROUNDS; i++) {
            const double start = seconds();

            for (int j = 0; j < 20; j++) {
                switch (what) {
                case 0: k->scores_f16(&s[0]); break;
                case 1: k->scores_q8(&s[1]); break;
                case 2: k->mix_f16(&m[0]); break;
                case 3: k->mix_q8(&m[1]); break;
                default:
                    for (size_t q = 0; q < QUERIES; q++)
                        k->softmax(out + q * POSITIONS, POSITIONS, 0.125f);
                    break;
                }
            }
            best = fmin(best, (seconds() - start) / 20);
        }
        printf("%-11s %8.1f %s\n", names[what], (what == 4 ? 1.0 : 2.0 * DIM) * POSITIONS * QUERIES / best * 1e-9, what == 4 ? "G numbers/s" : "GFLOP/s");
    }
    free(keys);
    free(keys_q8);
    free(queries);
    free(out);
    free(q8);
}

static bool is_wanted(sluice_weight type, int argc, char **argv, int first)
{
    bool is_named = false;

    for (int i = first; i < argc; i++)
        is_named |= strcmp(argv[i], sluice_weight_name(type)) == 0;
    return first == argc || is_named;
}

int main(int argc, char **argv)
{
    uint32_t cpu = sluice_cpu_features();
    size_t bytes = (size_t)512 << 20;
    inputs in = { .cols = 2048, .n_tokens = 512 };
    const char *what = "";
    double int8, bandwidth;
    sluice_kernels k;
    uint8_t *big;
    int i = 1;

    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        if (strcmp(argv[i], "--scalar") == 0)
            cpu = 0;
        else if (strcmp(argv[i], "--avx2") == 0)
            cpu &= SLUICE_CPU_AVX2 | SLUICE_CPU_FMA | SLUICE_CPU_F16C;
        else if (strcmp(argv[i], "--avx512") == 0)
            cpu &= SLUICE_CPU_AVX2 | SLUICE_CPU_FMA | SLUICE_CPU_F16C | SLUICE_CPU_AVX512 | SLUICE_CPU_AVX512_VNNI;
        else if (strcmp(argv[i], "--dotprod") == 0)
            cpu &= SLUICE_CPU_NEON | SLUICE_CPU_DOTPROD;
        else if (strcmp(argv[i], "--cols") == 0 && i + 1 < argc)
            in.cols = strtoul(argv[++i], NULL, 10) / 256 * 256;
        else if (strcmp(argv[i], "--tokens") == 0 && i + 1 < argc)
            in.n_tokens = strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--mb") == 0 && i + 1 < argc)
            bytes = (size_t)strtoul(argv[++i], NULL, 10) << 20;
        else
            in.cols = 0;
    }
    if (in.cols == 0 || in.n_tokens < 4) {
        fprintf(stderr, "usage: bench_kernels [--scalar | --avx2 | --avx512 | --dotprod] [--cols N] [--tokens N] [--mb N] [type ...]\n");
        return 2;
    }
    sluice_kernels_init(&k, cpu);
    in.x = aligned(in.n_tokens * in.cols * sizeof *in.x);
    in.q = aligned(in.n_tokens * in.cols / 32 * sizeof *in.q);
    in.y = aligned(in.n_tokens * ROWS * sizeof *in.y);
    in.strip = aligned(SLUICE_STRIP_BYTES);
    for (size_t j = 0; j < in.n_tokens * in.cols; j++)
        in.x[j] = (float)(next_u32() % 2001) * 1e-3f - 1;
    k.quantize(in.q, in.x, in.n_tokens * in.cols);
    big = aligned(bytes);
    fill_weights(big, bytes, SLUICE_WEIGHT_Q4_0);
    int8 = limits_int8_gop_per_s(1, &what);
    bandwidth = limits_read_gb_per_s(1, bytes);
    printf("table %s, one thread; %s: %.1f GOP/s; read bandwidth: %.2f GB/s\n", k.isa, what, int8, bandwidth);
    printf("%-8s  %4zu tokens, %d x %zu  share     1 token GB/s  share    2 tokens   4 tokens\n", "type", in.n_tokens, ROWS, in.cols);
    for (int t = 0; t < SLUICE_WEIGHT_COUNT; t++)
        if (is_wanted((sluice_weight)t, argc, argv, i)) {
            if (t == SLUICE_WEIGHT_F32 || t == SLUICE_WEIGHT_BF16 || t == SLUICE_WEIGHT_MXFP4)
                fill_weights(big, bytes, (sluice_weight)t);
            else if (t == SLUICE_WEIGHT_F16 || t == SLUICE_WEIGHT_Q8_0)
                fill_weights(big, bytes, SLUICE_WEIGHT_Q4_0);
            const double gop = gop_per_s(&k, &in, (sluice_weight)t), one = gb_per_s(&k, &in, (sluice_weight)t, big, bytes, 1);

            printf("%-8s  %15.1f GOP/s   %4.0f %%  %12.2f  %4.0f %%  %10.2f %10.2f\n", sluice_weight_name((sluice_weight)t), gop, 100 * gop / int8, one,
                   100 * one / bandwidth, gb_per_s(&k, &in, (sluice_weight)t, big, bytes, 2), gb_per_s(&k, &in, (sluice_weight)t, big, bytes, 4));
            fflush(stdout);
        }
    if (i == argc)
        attention(&k);
    free(in.x);
    free(in.q);
    free(in.y);
    free(in.strip);
    free(big);
    return 0;
}
