/* count_arm64.c - what count_arm64.sh counts the instructions of: every kernel on weights of every type, and tokens of a model.
 *
 *   count_arm64 kernels              each quantized and float type: a product with one token, and one with 32
 *   count_arm64 model MODEL P N      P tokens at once, then N one by one
 *
 * Each piece of work stands between two calls of count_mark(), which the emulator's trace shows, and is printed as
 * "label units", in order; what is between the end of one and the beginning of the next counts for neither.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "local-engine/engine.h"
#include "local-engine/kernels/kernels.h"
#include "sdk/platform/platform.h"

enum { ROWS = 32, COLS = 512, TOKENS = 32 };

void count_mark(void);

__attribute__((noinline)) void count_mark(void)
{
    __asm__ volatile("" ::: "memory");
}

static int count_kernels(void)
{
    static uint8_t w[ROWS * COLS * 4];
    static float x[TOKENS * COLS], y[TOKENS * ROWS];
    static sluice_q8 xq[TOKENS * COLS / SLUICE_Q_LEN];
    void *strip = aligned_alloc(64, SLUICE_STRIP_BYTES);
    sluice_kernels k;

    if (strip == NULL)
        return 1;
    sluice_kernels_init(&k, sluice_cpu_features());
    printf("table %s\n", k.isa);
    for (size_t i = 0; i < TOKENS * COLS; i++)
        x[i] = (float)(i * 7919 % 211) / 105.0f - 1.0f;
    for (size_t i = 0; i < sizeof w; i++)
        w[i] = (uint8_t)(i * 40503 >> 5 & 0x37); /* small, finite numbers in every format */
    k.quantize(xq, x, TOKENS * COLS);
    for (int type = 0; type < SLUICE_WEIGHT_COUNT; type++)
        for (size_t n_tokens = 1; n_tokens <= TOKENS; n_tokens += TOKENS - 1) {
            const bool is_quantized = sluice_weight_is_quantized((sluice_weight)type);
            const sluice_product p = {
                .w = w,
                .row_bytes = sluice_weight_row_bytes((sluice_weight)type, COLS),
                .rows = ROWS,
                .cols = COLS,
                .x = is_quantized ? (const void *)xq : (const void *)x,
                .x_stride = is_quantized ? COLS / SLUICE_Q_LEN * sizeof *xq : COLS * sizeof *x,
                .n_tokens = n_tokens,
                .y = y,
                .y_stride = ROWS,
                .strip = strip,
                .readable_end = w + sizeof w,
            };

            count_mark();
            k.product[type](&p);
            count_mark();
            printf("%s_%s %d\n", sluice_weight_name((sluice_weight)type), n_tokens == 1 ? "decode" : "prefill", (int)(ROWS * COLS * n_tokens));
        }
    free(strip);
    return 0;
}

static int count_model(const char *path, uint32_t n_prompt, uint32_t n_decode)
{
    const sluice_platform *platform = sluice_platform_default();
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_engine_options options;
    static int32_t tokens[1024];
    const float *logits;
    sluice_engine *e;
    sluice_status st;

    sluice_engine_options_init(&options);
    options.n_threads = 1;
    options.context_tokens = n_prompt + n_decode;
    for (size_t i = 0; i < 1024; i++)
        tokens[i] = (int32_t)(3 + i * 37 % 250);
    st = sluice_engine_open(&e, path, &options, platform, NULL, &err);
    if (st != SLUICE_OK) {
        fprintf(stderr, "count_arm64: %s\n", err.message);
        return 1;
    }
    printf("table %s\n", sluice_engine_get_info(e)->kernels);
    count_mark();
    st = sluice_engine_eval(e, tokens, n_prompt, &logits, &err);
    count_mark();
    printf("prefill %u\n", n_prompt);
    count_mark();
    for (uint32_t i = 0; i < n_decode && st == SLUICE_OK; i++)
        st = sluice_engine_eval(e, tokens + n_prompt + i, 1, &logits, &err);
    count_mark();
    printf("decode %u\n", n_decode);
    sluice_engine_close(e);
    return st == SLUICE_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "kernels") == 0)
        return count_kernels();
    if (argc == 5 && strcmp(argv[1], "model") == 0 && atoi(argv[3]) > 0 && atoi(argv[4]) > 0 && atoi(argv[3]) + atoi(argv[4]) <= 1024)
        return count_model(argv[2], (uint32_t)atoi(argv[3]), (uint32_t)atoi(argv[4]));
    fprintf(stderr, "usage: count_arm64 kernels | model MODEL P N\n");
    return 2;
}
