/* bench_engine.c - prefill and decode speed of one model, its share of what the machine can do, and its memory, as JSON.
 *
 *   bench_engine MODEL [-p PROMPT_TOKENS] [-n DECODE_TOKENS] [-d DEPTH] [-t THREADS] [-r RUNS] [-c CPU_FEATURES] [-k f16|q8_0] [-l]
 *
 * Counts as llama-bench does: prefill is one prompt from an empty cache with logits for its last token, decode is one token at a time
 * after DEPTH tokens (0); tokens are arbitrary, nothing is sampled.  Each is run once unmeasured, then RUNS times.
 *
 * -l measures the machine first and adds shares: of the int8 peak, counting two operations for every weight of the blocks and
 * for every product of attention, as if all were int8 (the head counts for one token alone, so it does not); of the read bandwidth, counting every byte of
 * weights that a token needs and the mean of the KV bytes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "local-engine/engine.h"
#include "local-engine/gguf.h"
#include "tests/bench/limits.h"

enum { MAX_TOKENS = 32768, MAX_RUNS = 100 };

typedef struct settings {
    const char *model;
    uint32_t n_prompt, n_decode, n_runs, depth;
    bool with_limits;
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
        if (strcmp(argv[i], "-l") == 0) {
            s->with_limits = true;
            continue;
        }
        if (value == NULL || argv[i][1] == '\0' || argv[i][2] != '\0')
            return false;
        switch (argv[i][1]) {
        case 'p': s->n_prompt = (uint32_t)strtoul(value, NULL, 10); break;
        case 'n': s->n_decode = (uint32_t)strtoul(value, NULL, 10); break;
        case 'd': s->depth = (uint32_t)strtoul(value, NULL, 10); break;
        case 't': s->options.n_threads = (uint32_t)strtoul(value, NULL, 10); break;
        case 'r': s->n_runs = (uint32_t)strtoul(value, NULL, 10); break;
        case 'c': s->options.cpu = (uint32_t)strtoul(value, NULL, 0); break;
        case 'k': s->options.kv = strcmp(value, "q8_0") == 0 ? SLUICE_ENGINE_KV_Q8_0 : SLUICE_ENGINE_KV_F16; break;
        default: return false;
        }
        i++;
    }
    return s->model != NULL && s->n_prompt <= MAX_TOKENS && s->n_decode + s->depth <= MAX_TOKENS && s->n_runs >= 1 && s->n_runs <= MAX_RUNS;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* What a token costs at least. */
typedef struct work {
    double decode_bytes;        /* of weights read for one token */
    double block_weights;       /* of all layers, without embedding and head */
} work;

static sluice_status count_work(work *w, const char *path, sluice_error *err)
{
    sluice_gguf *g;
    const sluice_status st = sluice_gguf_open(&g, path, sluice_platform_default(), NULL, err);
    bool is_tied;

    if (st != SLUICE_OK)
        return st;
    memset(w, 0, sizeof *w);
    is_tied = sluice_gguf_tensor_find(g, "output.weight") == NULL;
    for (size_t i = 0; i < sluice_gguf_n_tensors(g); i++) {
        const sluice_gguf_tensor *t = sluice_gguf_tensor_at(g, i);

        if (is_tied || !sluice_span_eq_str(t->name, "token_embd.weight"))
            w->decode_bytes += (double)t->bytes;
        if (t->name.len > 4 && memcmp(t->name.ptr, "blk.", 4) == 0 && t->n_dims == 2)
            w->block_weights += (double)t->ne[0] * (double)t->ne[1];
    }
    sluice_gguf_close(g);
    return SLUICE_OK;
}

/* n tokens in one call (prefill) or one by one (decode) after `depth` others; tokens per second. */
static sluice_status run(sluice_engine *e, const int32_t *tokens, uint32_t depth, uint32_t n, bool one_by_one, double *rate, sluice_error *err)
{
    const sluice_platform *platform = sluice_platform_default();
    const float *logits;
    sluice_status st = SLUICE_OK;
    uint64_t begin;

    sluice_engine_reset(e);
    if (depth > 0)
        st = sluice_engine_eval(e, tokens, depth, &logits, err);
    begin = sluice_now_us(platform);
    if (one_by_one)
        for (uint32_t i = 0; i < n && st == SLUICE_OK; i++)
            st = sluice_engine_eval(e, tokens + depth + i, 1, &logits, err);
    else if (st == SLUICE_OK)
        st = sluice_engine_eval(e, tokens, n, &logits, err);
    *rate = n * 1e6 / (double)(sluice_now_us(platform) - begin + 1);
    return st;
}

static sluice_status measure(sluice_engine *e, const settings *s, bool is_decode, double *median, sluice_error *err)
{
    static int32_t tokens[MAX_TOKENS];
    const uint32_t n = is_decode ? s->n_decode : s->n_prompt, depth = is_decode ? s->depth : 0;
    double rates[MAX_RUNS + 1];
    sluice_status st = SLUICE_OK;

    *median = 0;
    if (n == 0)
        return SLUICE_OK;
    for (uint32_t i = 0; i < MAX_TOKENS; i++)
        tokens[i] = (int32_t)((i * 2654435761u) % sluice_engine_get_info(e)->n_vocab);
    for (uint32_t i = 0; i <= s->n_runs && st == SLUICE_OK; i++)
        st = run(e, tokens, depth, n, is_decode, &rates[i], err); /* the first reads the file and is overwritten below */
    if (st != SLUICE_OK)
        return st;
    rates[0] = rates[s->n_runs];
    qsort(rates, s->n_runs, sizeof rates[0], by_value);
    *median = rates[s->n_runs / 2];
    printf(",\"%s\":{\"tokens\":%u,\"depth\":%u,\"tokens_per_s\":{\"median\":%.2f,\"min\":%.2f,\"max\":%.2f}}", is_decode ? "decode" : "prefill", n,
           depth, *median, rates[0], rates[s->n_runs - 1]);
    return SLUICE_OK;
}

/* A line of /proc/self/status in kB; 0 where there is none. */
static unsigned long status_kb(const char *key)
{
    FILE *f = fopen("/proc/self/status", "r");
    unsigned long kb = 0;
    char line[256];

    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, key, strlen(key)) == 0)
            kb = strtoul(line + strlen(key) + 1, NULL, 10);
    if (f != NULL)
        (void)fclose(f);
    return kb;
}

static void print_shares(const settings *s, const sluice_engine_info *info, const work *w, double prefill, double decode)
{
    const char *what;
    const double peak = limits_int8_gop_per_s(info->n_threads, &what), bandwidth = limits_read_gb_per_s(info->n_threads, (size_t)512 << 20);
    const double head = (double)info->n_embd / info->n_head; /* near enough for models whose heads differ */
    const double attention = 2.0 * info->n_layer * info->n_head * head * s->n_prompt / 2;
    const double kv = 2.0 * info->n_layer * info->n_head_kv * head * 2 * (s->depth + s->n_decode / 2.0);

    printf(",\"limits\":{\"int8\":\"%s\",\"int8_gop_per_s\":%.1f,\"read_gb_per_s\":%.2f}", what, peak, bandwidth);
    if (prefill > 0 && peak > 0)
        printf(",\"prefill_share_of_int8_peak\":%.3f", 2 * (w->block_weights + attention) * prefill / peak * 1e-9);
    if (decode > 0 && bandwidth > 0)
        printf(",\"decode_share_of_bandwidth\":%.3f", (w->decode_bytes + kv) * decode / bandwidth * 1e-9);
}

int main(int argc, char **argv)
{
    settings s;
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_engine_estimate estimate;
    const sluice_engine_info *info;
    double prefill = 0, decode = 0;
    sluice_engine *e;
    sluice_status st;
    work w;

    memset(&s, 0, sizeof s);
    s.n_prompt = 512;
    s.n_decode = 128;
    s.n_runs = 3;
    s.options.n_threads = 1;
    s.options.cpu = 0xffffffffu;
    if (!parse(&s, argc, argv)) {
        fprintf(stderr, "usage: bench_engine MODEL [-p PROMPT_TOKENS] [-n DECODE_TOKENS] [-d DEPTH] [-t THREADS] [-r RUNS] [-c CPU_FEATURES] [-k f16|q8_0] [-l]\n");
        return 2;
    }
    s.options.context_tokens = s.n_prompt > s.n_decode + s.depth ? s.n_prompt : s.n_decode + s.depth;
    st = count_work(&w, s.model, &err);
    if (st == SLUICE_OK)
        st = sluice_engine_estimate_memory(&estimate, s.model, &s.options, sluice_platform_default(), NULL, &err);
    if (st == SLUICE_OK)
        st = sluice_engine_open(&e, s.model, &s.options, sluice_platform_default(), NULL, &err);
    if (st == SLUICE_OK) {
        info = sluice_engine_get_info(e);
        printf("{\"model\":\"%s\",\"file_type\":\"%s\",\"bytes\":%llu,\"bytes_per_token\":%.0f,\"kernels\":\"%s\",\"threads\":%u,\"runs\":%u", s.model,
               info->file_type, (unsigned long long)info->model_bytes, w.decode_bytes, info->kernels, info->n_threads, s.n_runs);
        st = measure(e, &s, false, &prefill, &err);
        if (st == SLUICE_OK)
            st = measure(e, &s, true, &decode, &err);
        printf(",\"memory\":{\"private_mb\":%.2f,\"kv_mb\":%.2f,\"private_beside_kv_share_of_model\":%.4f}", (double)status_kb("RssAnon") / 1024,
               (double)estimate.kv_bytes / 1048576,
               ((double)status_kb("RssAnon") * 1024 - (double)estimate.kv_bytes) / (double)info->model_bytes);
        if (st == SLUICE_OK && s.with_limits)
            print_shares(&s, info, &w, prefill, decode);
        printf("}\n");
        sluice_engine_close(e);
    }
    if (st != SLUICE_OK)
        fprintf(stderr, "bench_engine: %s: %s\n", sluice_status_name(st), err.message);
    return st == SLUICE_OK ? 0 : 1;
}
