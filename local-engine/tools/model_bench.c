/* model_bench.c - how fast a model runs here, and what it takes.
 *
 * A round is one prefill and one run of decoding behind it, so that both see the same state of a machine that warms up or has other things to do;
 * the median says what to expect and the spread how much to trust it.  All memory goes through an allocator that counts.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <stdatomic.h>

#include "local-engine/engine.h"
#include "local-engine/tools/model_tools.h"

enum { DEFAULT_PROMPT = 512, DEFAULT_DECODE = 64, DEFAULT_ROUNDS = 5, WARM_DECODE = 4 };

typedef struct counter {
    sluice_allocator al;
    _Atomic uint64_t now, peak;
} counter;

typedef struct bench {
    const char *path;
    const sluice_model_bench_options *options;
    const sluice_platform *p;
    sluice_model_bench_result *result;
    sluice_error *err;
    counter memory;
    sluice_engine_options engine_options;
    sluice_engine *engine;
    int32_t *tokens; /* (prompt_tokens + decode_tokens) */
    double prefill[SLUICE_BENCH_MAX_ROUNDS], decode[SLUICE_BENCH_MAX_ROUNDS];
    uint64_t first_token_at;
} bench;

static void *count_alloc(void *user, size_t bytes)
{
    counter *c = user;
    void *ptr = sluice_alloc(NULL, bytes);
    uint64_t now, peak;

    if (ptr == NULL)
        return NULL;
    now = atomic_fetch_add(&c->now, bytes) + bytes;
    peak = atomic_load(&c->peak);
    while (now > peak && !atomic_compare_exchange_weak(&c->peak, &peak, now))
        ;
    return ptr;
}

static void count_free(void *user, void *ptr, size_t bytes)
{
    counter *c = user;

    atomic_fetch_sub(&c->now, bytes);
    sluice_free(NULL, ptr, bytes);
}

static uint64_t token_bytes(const bench *b)
{
    return ((uint64_t)b->result->prompt_tokens + b->result->decode_tokens) * sizeof *b->tokens;
}

static sluice_status check_options(bench *b)
{
    const sluice_model_bench_options *o = b->options;
    sluice_model_bench_result *r = b->result;

    r->prompt_tokens = o->prompt_tokens > 0 ? o->prompt_tokens : DEFAULT_PROMPT;
    r->decode_tokens = o->decode_tokens > 0 ? o->decode_tokens : DEFAULT_DECODE;
    r->rounds = o->rounds > 0 ? o->rounds : DEFAULT_ROUNDS;
    if (r->rounds > SLUICE_BENCH_MAX_ROUNDS)
        return sluice_error_set(b->err, SLUICE_ERR_ARGUMENT, "bench: %u rounds, of at most %d", r->rounds, SLUICE_BENCH_MAX_ROUNDS);
    if (r->prompt_tokens > 1u << 20 || r->decode_tokens > 1u << 20)
        return sluice_error_set(b->err, SLUICE_ERR_ARGUMENT, "bench: %u and %u tokens are more than any context", r->prompt_tokens, r->decode_tokens);
    sluice_engine_options_init(&b->engine_options);
    b->engine_options.n_threads = o->n_threads;
    b->engine_options.context_tokens = o->context_tokens > 0 ? o->context_tokens : r->prompt_tokens + r->decode_tokens;
    return SLUICE_OK;
}

static sluice_status open_engine(bench *b)
{
    const uint64_t start = sluice_now_us(b->p);
    sluice_status st = sluice_engine_open(&b->engine, b->path, &b->engine_options, b->p, &b->memory.al, b->err);

    b->result->open_us = sluice_now_us(b->p) - start;
    return st;
}

static sluice_status check_context(bench *b)
{
    const uint32_t context = sluice_engine_get_info(b->engine)->context_tokens, need = b->result->prompt_tokens + b->result->decode_tokens;
    sluice_status st;

    if (need <= context)
        return SLUICE_OK;
    st = sluice_error_set(b->err, SLUICE_ERR_ARGUMENT, "bench: %u tokens of prompt and %u of decoding do not fit the context of %u",
                          b->result->prompt_tokens, b->result->decode_tokens, context);
    sluice_error_hint(b->err, "give fewer with --prompt and --decode, or more with --context where the model has it");
    return st;
}

static void take_facts(bench *b)
{
    const sluice_engine_info *info = sluice_engine_get_info(b->engine);
    sluice_model_bench_result *r = b->result;

    (void)sluice_copy_str(r->architecture, sizeof r->architecture, info->architecture);
    (void)sluice_copy_str(r->name, sizeof r->name, info->name);
    (void)sluice_copy_str(r->file_type, sizeof r->file_type, info->file_type);
    (void)sluice_copy_str(r->kernels, sizeof r->kernels, info->kernels);
    r->n_threads = info->n_threads;
    r->context_tokens = info->context_tokens;
    r->n_parameters = info->n_params;
    r->is_encoder = info->is_encoder;
    if (r->is_encoder)
        r->decode_tokens = 0;
}

/* The same tokens on every machine. */
static sluice_status draw_tokens(bench *b)
{
    const uint32_t n_vocab = sluice_engine_get_info(b->engine)->n_vocab;
    const size_t n = (size_t)b->result->prompt_tokens + b->result->decode_tokens;
    uint64_t state = 0x9e3779b97f4a7c15u;

    b->tokens = sluice_alloc_array(NULL, n, sizeof *b->tokens);
    if (b->tokens == NULL)
        return sluice_error_set(b->err, SLUICE_ERR_NO_MEMORY, "bench: no memory for %zu tokens", n);
    for (size_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        b->tokens[i] = (int32_t)((state >> 33) % n_vocab);
    }
    return SLUICE_OK;
}

static sluice_status report(bench *b, uint32_t done)
{
    const sluice_tool_progress now = { "bench", "", "", "", done, b->result->rounds, 0, 0 };

    if (b->options->progress != NULL && !b->options->progress(&now, b->options->user))
        return sluice_error_set(b->err, SLUICE_ERR_CANCELLED, "bench: stopped");
    return SLUICE_OK;
}

static sluice_status embed_once(bench *b)
{
    const uint32_t n_embd = sluice_engine_get_info(b->engine)->n_embd;
    float *out = sluice_alloc_array(NULL, n_embd, sizeof *out);
    sluice_status st = out != NULL ? sluice_engine_embed_tokens(b->engine, b->tokens, b->result->prompt_tokens, true, out, n_embd, b->err)
                                   : sluice_error_set(b->err, SLUICE_ERR_NO_MEMORY, "bench: no memory for an embedding");

    sluice_free(NULL, out, n_embd * sizeof *out);
    return st;
}

static sluice_status prefill_once(bench *b, double *speed)
{
    const float *logits;
    uint64_t start, took;
    sluice_status st;

    sluice_engine_reset(b->engine);
    start = sluice_now_us(b->p);
    st = b->result->is_encoder ? embed_once(b) : sluice_engine_eval(b->engine, b->tokens, b->result->prompt_tokens, &logits, b->err);
    took = sluice_now_us(b->p) - start;
    *speed = 1e6 * (double)b->result->prompt_tokens / (double)(took > 0 ? took : 1);
    return st;
}

static sluice_status decode_some(bench *b, uint32_t n, uint32_t round, double *speed)
{
    const uint64_t start = sluice_now_us(b->p);
    sluice_status st = SLUICE_OK;
    uint64_t took;

    for (uint32_t i = 0; i < n && st == SLUICE_OK; i++) {
        const float *logits;

        st = sluice_engine_eval(b->engine, b->tokens + b->result->prompt_tokens + i, 1, &logits, b->err);
        if (st == SLUICE_OK && i % 16 == 15)
            st = report(b, round);
    }
    took = sluice_now_us(b->p) - start;
    *speed = 1e6 * (double)n / (double)(took > 0 ? took : 1);
    return st;
}

static sluice_status run_rounds(bench *b)
{
    double ignored;
    sluice_status st = report(b, 0);

    if (st == SLUICE_OK) /* pages, caches and clocks: what comes first is slower than what an app sees */
        st = prefill_once(b, &ignored);
    if (st == SLUICE_OK && !b->result->is_encoder)
        st = decode_some(b, b->result->decode_tokens < WARM_DECODE ? b->result->decode_tokens : WARM_DECODE, 0, &ignored);
    for (uint32_t i = 0; i < b->result->rounds && st == SLUICE_OK; i++) {
        st = report(b, i);
        if (st == SLUICE_OK)
            st = prefill_once(b, &b->prefill[i]);
        if (st == SLUICE_OK && !b->result->is_encoder)
            st = decode_some(b, b->result->decode_tokens, i, &b->decode[i]);
    }
    return st == SLUICE_OK ? report(b, b->result->rounds) : st;
}

static bool note_first(const sluice_engine_token *token, void *user)
{
    bench *b = user;

    (void)token;
    b->first_token_at = sluice_now_us(b->p);
    return false;
}

/* Close, open again, answer: what a user waits for when the file is in the page cache. */
static sluice_status time_first_token(bench *b)
{
    const uint64_t start = sluice_now_us(b->p);
    sluice_engine_sampling greedy;
    sluice_engine_result ignored;
    sluice_status st;

    memset(&greedy, 0, sizeof greedy);
    greedy.top_p = 1.0f;
    sluice_engine_close(b->engine);
    b->engine = NULL;
    st = open_engine(b);
    if (st == SLUICE_OK && b->result->is_encoder)
        st = embed_once(b);
    else if (st == SLUICE_OK)
        st = sluice_engine_generate(b->engine, b->tokens, b->result->prompt_tokens, 1, &greedy, note_first, b, &ignored, b->err);
    if (b->first_token_at == 0)
        b->first_token_at = sluice_now_us(b->p);
    b->result->first_token_us = b->first_token_at - start;
    return st;
}

static sluice_bench_speed summarise(double *v, size_t n)
{
    sluice_bench_speed s = { 0, 0, 0, 0, 0 };
    double squares = 0;

    for (size_t i = 1; i < n; i++) /* few: sorted by insertion */
        for (size_t k = i; k > 0 && v[k] < v[k - 1]; k--) {
            const double t = v[k];

            v[k] = v[k - 1];
            v[k - 1] = t;
        }
    for (size_t i = 0; i < n; i++)
        s.mean += v[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (v[i] - s.mean) * (v[i] - s.mean);
    s.deviation = n > 1 ? sqrt(squares / (double)(n - 1)) : 0;
    s.median = n % 2 == 1 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
    s.slowest = v[0];
    s.fastest = v[n - 1];
    return s;
}

static sluice_status run(bench *b)
{
    sluice_engine_estimate need;
    sluice_status st = check_options(b);

    if (st == SLUICE_OK)
        st = sluice_engine_estimate_memory(&need, b->path, &b->engine_options, b->p, NULL, b->err);
    if (st == SLUICE_OK) {
        b->result->mapped_bytes = need.mapped_bytes;
        b->result->kv_bytes = need.kv_bytes;
        b->result->scratch_bytes = need.scratch_bytes;
        st = open_engine(b);
    }
    if (st == SLUICE_OK) {
        take_facts(b);
        st = check_context(b);
    }
    if (st == SLUICE_OK)
        st = draw_tokens(b);
    if (st == SLUICE_OK)
        st = run_rounds(b);
    if (st == SLUICE_OK)
        st = time_first_token(b);
    if (st != SLUICE_OK)
        return st;
    b->result->prefill = summarise(b->prefill, b->result->rounds);
    if (!b->result->is_encoder)
        b->result->decode = summarise(b->decode, b->result->rounds);
    b->result->peak_bytes = atomic_load(&b->memory.peak);
    return SLUICE_OK;
}

sluice_status sluice_model_bench(const char *path, const sluice_model_bench_options *options, const sluice_platform *platform,
                                 sluice_model_bench_result *result, sluice_error *err)
{
    sluice_status st;
    bench *b;

    memset(result, 0, sizeof *result);
    b = sluice_alloc_zeroed(NULL, sizeof *b);
    if (b == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "bench: %zu bytes", sizeof *b);
    b->path = path;
    b->options = options;
    b->p = platform;
    b->result = result;
    b->err = err;
    b->memory.al = (sluice_allocator){ count_alloc, count_free, &b->memory };
    atomic_init(&b->memory.now, 0);
    atomic_init(&b->memory.peak, 0);
    st = run(b);
    if (st != SLUICE_OK && err != NULL && err->where[0] == '\0')
        sluice_error_where(err, path);
    if (b->tokens != NULL)
        sluice_free(NULL, b->tokens, (size_t)token_bytes(b));
    sluice_engine_close(b->engine);
    sluice_free(NULL, b, sizeof *b);
    return st;
}
