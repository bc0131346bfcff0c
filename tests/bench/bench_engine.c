/* bench_engine.c - prefill and decode speed of one model, as JSON.
 *
 *   bench_engine MODEL [-p PROMPT_TOKENS] [-n DECODE_TOKENS] [-t THREADS] [-r RUNS] [-c CPU_FEATURES]
 *
 * Counts as llama-bench does: prefill is one prompt from an empty cache with logits for its last token, decode is one token at a time
 * from an empty cache; tokens are arbitrary, nothing is sampled.  Each is run once unmeasured, then RUNS times.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "local-engine/engine.h"

enum { MAX_TOKENS = 4096, MAX_RUNS = 100 };

typedef struct settings {
    const char *model;
    uint32_t n_prompt, n_decode, n_runs;
    sluice_engine_options options;
} settings;

static bool parse(settings *s, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;

        if (argv[i][0] != '-') {
            s->model = argv[i];
            continue;
        }
        if (value == NULL || argv[i][1] == '\0' || argv[i][2] != '\0')
            return false;
        switch (argv[i][1]) {
        case 'p': s->n_prompt = (uint32_t)strtoul(value, NULL, 10); break;
        case 'n': s->n_decode = (uint32_t)strtoul(value, NULL, 10); break;
        case 't': s->options.n_threads = (uint32_t)strtoul(value, NULL, 10); break;
        case 'r': s->n_runs = (uint32_t)strtoul(value, NULL, 10); break;
        case 'c': s->options.cpu = (uint32_t)strtoul(value, NULL, 0); break;
        default: return false;
        }
        i++;
    }
    return s->model != NULL && s->n_prompt <= MAX_TOKENS && s->n_decode <= MAX_TOKENS && s->n_runs >= 1 && s->n_runs <= MAX_RUNS;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* n tokens in one call (prefill) or one by one (decode); tokens per second. */
static sluice_status run(sluice_engine *e, const int32_t *tokens, uint32_t n, bool one_by_one, double *rate, sluice_error *err)
{
    const sluice_platform *platform = sluice_platform_default();
    const float *logits;
    sluice_status st = SLUICE_OK;
    uint64_t begin;

    sluice_engine_reset(e);
    begin = sluice_now_us(platform);
    if (one_by_one)
        for (uint32_t i = 0; i < n && st == SLUICE_OK; i++)
            st = sluice_engine_eval(e, tokens + i, 1, &logits, err);
    else
        st = sluice_engine_eval(e, tokens, n, &logits, err);
    *rate = n * 1e6 / (double)(sluice_now_us(platform) - begin + 1);
    return st;
}

static sluice_status measure(sluice_engine *e, const char *what, uint32_t n, bool one_by_one, uint32_t n_runs, sluice_error *err)
{
    static int32_t tokens[MAX_TOKENS];
    double rates[MAX_RUNS + 1];
    sluice_status st = SLUICE_OK;

    if (n == 0)
        return SLUICE_OK;
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (int32_t)((i * 2654435761u) % sluice_engine_get_info(e)->n_vocab);
    for (uint32_t i = 0; i <= n_runs && st == SLUICE_OK; i++)
        st = run(e, tokens, n, one_by_one, &rates[i], err); /* the first reads the file and is overwritten below */
    if (st != SLUICE_OK)
        return st;
    rates[0] = rates[n_runs];
    qsort(rates, n_runs, sizeof rates[0], by_value);
    printf(",\"%s\":{\"tokens\":%u,\"tokens_per_s\":{\"median\":%.2f,\"min\":%.2f,\"max\":%.2f}}", what, n, rates[n_runs / 2], rates[0],
           rates[n_runs - 1]);
    return SLUICE_OK;
}

int main(int argc, char **argv)
{
    settings s = { NULL, 512, 128, 3, { 1, 0, 0xffffffffu } };
    sluice_error err = SLUICE_ERROR_INIT;
    const sluice_engine_info *info;
    sluice_engine *e;
    sluice_status st;

    if (!parse(&s, argc, argv)) {
        fprintf(stderr, "usage: bench_engine MODEL [-p PROMPT_TOKENS] [-n DECODE_TOKENS] [-t THREADS] [-r RUNS] [-c CPU_FEATURES]\n");
        return 2;
    }
    s.options.context_tokens = s.n_prompt > s.n_decode ? s.n_prompt : s.n_decode;
    st = sluice_engine_open(&e, s.model, &s.options, sluice_platform_default(), NULL, &err);
    if (st == SLUICE_OK) {
        info = sluice_engine_get_info(e);
        printf("{\"model\":\"%s\",\"file_type\":\"%s\",\"bytes\":%llu,\"kernels\":\"%s\",\"threads\":%u,\"runs\":%u", s.model, info->file_type,
               (unsigned long long)info->model_bytes, info->kernels, info->n_threads, s.n_runs);
        st = measure(e, "prefill", s.n_prompt, false, s.n_runs, &err);
        if (st == SLUICE_OK)
            st = measure(e, "decode", s.n_decode, true, s.n_runs, &err);
        printf("}\n");
        sluice_engine_close(e);
    }
    if (st != SLUICE_OK)
        fprintf(stderr, "bench_engine: %s: %s\n", sluice_status_name(st), err.message);
    return st == SLUICE_OK ? 0 : 1;
}
