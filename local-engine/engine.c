/* engine.c - one model opened, with its memory, its threads and its confidence.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/engine.h"

#include "local-engine/forward.h"
#include "local-engine/model_hash.h"
#include "local-engine/prompt.h"
#include "local-engine/sampler.h"

struct sluice_engine {
    sluice_platform platform;       /* a copy: the caller's may be on its stack */
    sluice_allocator allocator;     /* the same */
    const sluice_allocator *al;     /* &allocator, or NULL for malloc */
    sluice_gguf *gguf;
    sluice_tokenizer *tokenizer;
    sluice_prompt prompt;
    sluice_model model;
    sluice_kernels kernels;
    sluice_pool *pool;
    sluice_kv_cache kv;
    sluice_forward *forward;
    void *sampler_scratch;
    size_t sampler_bytes;
    char *name;
    sluice_engine_info info;
    _Atomic bool stop;
};

enum { MAX_DEFAULT_THREADS = 4 };   /* what a phone has of fast cores; decoding is bound by memory before that */

/* ---- what options come to on this machine */

static uint32_t choose_threads(const sluice_engine_options *options, const sluice_platform *platform)
{
    sluice_device_state device;

    if (options != NULL && options->n_threads > 0)
        return options->n_threads;
    memset(&device, 0, sizeof device);
    platform->device_state(platform->user, &device);
    if (device.n_cores == 0)
        return 1;
    return device.n_cores < MAX_DEFAULT_THREADS ? device.n_cores : MAX_DEFAULT_THREADS;
}

static uint32_t choose_context(const sluice_engine_options *options, const sluice_model *model)
{
    uint32_t context = model->n_context < SLUICE_MODEL_MAX_CONTEXT ? model->n_context : (uint32_t)SLUICE_MODEL_MAX_CONTEXT;

    if (options != NULL && options->context_tokens > 0 && options->context_tokens < context)
        context = options->context_tokens;
    return context;
}

static uint32_t choose_cpu(const sluice_engine_options *options)
{
    return options != NULL ? options->cpu & sluice_cpu_features() : sluice_cpu_features();
}

static sluice_status check_options(const sluice_engine_options *options, sluice_error *err)
{
    if (options != NULL && options->n_threads > SLUICE_POOL_MAX_THREADS)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "engine: %u threads, of at most %d", options->n_threads, SLUICE_POOL_MAX_THREADS);
    return SLUICE_OK;
}

/* ---- memory */

static sluice_status estimate(sluice_engine_estimate *out, const sluice_gguf *g, const sluice_model *model, uint32_t context,
                              uint32_t n_threads, sluice_error *err)
{
    size_t kv_bytes, forward_bytes;
    uint64_t scratch = sizeof(sluice_engine);
    sluice_status st;

    memset(out, 0, sizeof *out);
    if (!sluice_kv_cache_bytes(model->n_layer, model->n_head_kv, model->head_dim, context, &kv_bytes))
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "engine: the KV cache of %u tokens is larger than memory can be", context);
    st = sluice_forward_bytes(model, context, n_threads, &forward_bytes, err);
    if (st != SLUICE_OK)
        return st;
    scratch += forward_bytes;
    scratch += sluice_sampler_bytes(model->n_vocab);
    scratch += (uint64_t)model->n_layer * sizeof(sluice_layer);
    scratch += sluice_pool_bytes();
    scratch += sluice_tokenizer_estimate_bytes(g);
    /* the index of the file: its entries, and as much again for finding them by name */
    scratch += 2 * (sluice_gguf_n_values(g) * sizeof(sluice_gguf_value) + sluice_gguf_n_tensors(g) * sizeof(sluice_gguf_tensor));
    out->mapped_bytes = sluice_gguf_bytes(g).len;
    out->kv_bytes = kv_bytes;
    out->scratch_bytes = scratch;
    out->context_tokens = context;
    return SLUICE_OK;
}

sluice_status sluice_engine_estimate_memory(sluice_engine_estimate *out, const char *path, const sluice_engine_options *options,
                                            const sluice_platform *platform, const sluice_allocator *al, sluice_error *err)
{
    sluice_gguf *g = NULL;
    sluice_model model;
    sluice_status st;

    memset(&model, 0, sizeof model);
    memset(out, 0, sizeof *out);
    st = check_options(options, err);
    if (st == SLUICE_OK)
        st = sluice_gguf_open(&g, path, platform, al, err);
    if (st == SLUICE_OK)
        st = sluice_model_init(&model, g, al, err);
    if (st == SLUICE_OK)
        st = estimate(out, g, &model, choose_context(options, &model), choose_threads(options, platform), err);
    if (st != SLUICE_OK)
        sluice_error_where(err, path);
    sluice_model_deinit(&model);
    sluice_gguf_close(g);
    return st;
}

/* A model whose pages the system has to drop and read again for each token would crawl, so the file counts too. */
static sluice_status check_fits(const sluice_engine_estimate *need, const sluice_platform *platform, sluice_error *err)
{
    const uint64_t total = need->mapped_bytes + need->kv_bytes + need->scratch_bytes;
    sluice_device_state device;
    sluice_status st;

    memset(&device, 0, sizeof device);
    platform->device_state(platform->user, &device);
    if (device.memory_available_bytes == 0 || total <= device.memory_available_bytes)
        return SLUICE_OK;
    st = sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "engine: the model needs %llu MB (file %llu, KV cache %llu, scratch %llu), and %llu MB are available",
                          (unsigned long long)(total >> 20), (unsigned long long)(need->mapped_bytes >> 20),
                          (unsigned long long)(need->kv_bytes >> 20), (unsigned long long)(need->scratch_bytes >> 20),
                          (unsigned long long)(device.memory_available_bytes >> 20));
    sluice_error_hint(err, "use a smaller model, or a context of fewer than %u tokens", need->context_tokens);
    return st;
}

/* ---- open and close */

/* The weights must not be negative: more probable tokens never mean less confidence. */
static sluice_status read_calibration(sluice_engine *e, sluice_error *err)
{
    sluice_engine_info *info = &e->info;
    const struct { const char *key; float *out; } keys[] = {
        { "sluice.confidence.bias", &info->confidence_bias },
        { "sluice.confidence.weight_min", &info->confidence_weight_min },
        { "sluice.confidence.weight_mean", &info->confidence_weight_mean },
    };
    if (sluice_gguf_find(e->gguf, keys[0].key) == NULL)
        return SLUICE_OK;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const sluice_status st = sluice_gguf_get_f32(e->gguf, keys[i].key, keys[i].out, err);
        if (st != SLUICE_OK)
            return st;
        if (i > 0 && *keys[i].out < 0.0f)
            return sluice_error_set(err, SLUICE_ERR_FORMAT, "model: %s is negative", keys[i].key);
    }
    info->has_calibration = true;
    return SLUICE_OK;
}

static sluice_status read_info(sluice_engine *e, uint32_t context, sluice_error *err)
{
    sluice_engine_info *info = &e->info;
    const sluice_model *m = &e->model;
    sluice_span name = sluice_span_str("");
    uint32_t file_type = UINT32_MAX;
    sluice_buf buf;
    bool fits;
    sluice_status st;

    st = sluice_gguf_opt_string(e->gguf, "general.name", &name, err);
    if (st == SLUICE_OK)
        st = sluice_gguf_opt_u32(e->gguf, "general.file_type", &file_type, err);
    if (st != SLUICE_OK)
        return st;
    sluice_buf_init(&buf, e->al, SLUICE_GGUF_MAX_STRING_BYTES + 1);
    fits = sluice_buf_append_span(&buf, name);
    e->name = fits ? sluice_buf_take_str(&buf) : NULL;
    sluice_buf_deinit(&buf);
    if (e->name == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "engine: %zu bytes for the model's name", name.len + 1);
    info->architecture = m->architecture;
    info->name = e->name;
    info->file_type = sluice_gguf_file_type_name(file_type);
    info->tokenizer = sluice_tokenizer_kind(e->tokenizer);
    info->prompt_format = sluice_prompt_format_name(e->prompt.format);
    info->kernels = e->kernels.isa;
    info->n_vocab = m->n_vocab;
    info->n_layer = m->n_layer;
    info->n_embd = m->n_embd;
    info->n_head = m->n_head;
    info->n_head_kv = m->n_head_kv;
    info->n_ff = m->n_ff;
    info->context_tokens = context;
    info->n_threads = sluice_pool_n_threads(e->pool);
    info->n_params = m->n_params;
    info->model_bytes = sluice_gguf_bytes(e->gguf).len;
    sluice_model_hash(e->gguf, info->model_hash);
    return read_calibration(e, err);
}

static sluice_status open_tokenizer(sluice_engine *e, sluice_error *err)
{
    sluice_status st = sluice_tokenizer_open(&e->tokenizer, e->gguf, e->al, err);

    if (st != SLUICE_OK)
        return st;
    if (sluice_tokenizer_n_vocab(e->tokenizer) != e->model.n_vocab)
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "model: the tokenizer has %u tokens, and token_embd.weight %u rows",
                                sluice_tokenizer_n_vocab(e->tokenizer), e->model.n_vocab);
    return sluice_prompt_init(&e->prompt, e->gguf, e->tokenizer, err);
}

static sluice_status open_parts(sluice_engine *e, const char *path, const sluice_engine_options *options, sluice_error *err)
{
    const uint32_t n_threads = choose_threads(options, &e->platform);
    sluice_engine_estimate need;
    uint32_t context;
    sluice_status st;

    st = sluice_gguf_open(&e->gguf, path, &e->platform, e->al, err);
    if (st == SLUICE_OK)
        st = sluice_model_init(&e->model, e->gguf, e->al, err);
    if (st != SLUICE_OK)
        return st;
    context = choose_context(options, &e->model);
    st = estimate(&need, e->gguf, &e->model, context, n_threads, err);
    if (st == SLUICE_OK)
        st = check_fits(&need, &e->platform, err);
    if (st == SLUICE_OK)
        st = open_tokenizer(e, err);
    if (st == SLUICE_OK)
        st = sluice_kv_cache_init(&e->kv, e->al, e->model.n_layer, e->model.n_head_kv, e->model.head_dim, context, err);
    if (st != SLUICE_OK)
        return st;
    e->sampler_bytes = sluice_sampler_bytes(e->model.n_vocab);
    e->sampler_scratch = sluice_alloc_zeroed(e->al, e->sampler_bytes);
    if (e->sampler_scratch == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "engine: %zu bytes for the sampler", e->sampler_bytes);
    sluice_kernels_init(&e->kernels, choose_cpu(options));
    st = sluice_pool_open(&e->pool, &e->platform, e->al, n_threads, err);
    if (st == SLUICE_OK)
        st = sluice_forward_open(&e->forward, &e->model, &e->kernels, e->pool, &e->kv, &e->stop, e->al, err);
    if (st == SLUICE_OK)
        st = read_info(e, context, err);
    return st;
}

sluice_status sluice_engine_open(sluice_engine **out, const char *path, const sluice_engine_options *options,
                                 const sluice_platform *platform, const sluice_allocator *al, sluice_error *err)
{
    sluice_engine *e;
    sluice_status st;

    *out = NULL;
    st = check_options(options, err);
    if (st != SLUICE_OK)
        return st;
    e = sluice_alloc_zeroed(al, sizeof *e);
    if (e == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "engine: %zu bytes", sizeof *e);
    e->platform = *platform;
    if (al != NULL) {
        e->allocator = *al;
        e->al = &e->allocator;
    }
    atomic_init(&e->stop, false);
    st = open_parts(e, path, options, err);
    if (st != SLUICE_OK) {
        sluice_error_where(err, path);
        sluice_engine_close(e);
        return st;
    }
    *out = e;
    return SLUICE_OK;
}

void sluice_engine_close(sluice_engine *e)
{
    sluice_allocator allocator;
    bool is_custom;

    if (e == NULL)
        return;
    sluice_forward_close(e->forward);
    sluice_pool_close(e->pool);
    sluice_kv_cache_deinit(&e->kv);
    if (e->sampler_scratch != NULL)
        sluice_free_wiped(e->al, e->sampler_scratch, e->sampler_bytes);
    sluice_tokenizer_close(e->tokenizer);
    sluice_model_deinit(&e->model);
    sluice_gguf_close(e->gguf);
    if (e->name != NULL)
        sluice_str_free(e->al, e->name);
    is_custom = e->al != NULL;
    allocator = e->allocator; /* e->al points into what is about to go */
    sluice_free(is_custom ? &allocator : NULL, e, sizeof *e);
}

const sluice_engine_info *sluice_engine_get_info(const sluice_engine *e)
{
    return &e->info;
}

/* ---- text */

sluice_status sluice_engine_tokenize(const sluice_engine *e, sluice_span text, bool add_bos, int32_t *tokens, size_t *n, sluice_error *err)
{
    return sluice_tokenizer_encode(e->tokenizer, text, add_bos, tokens, n, err);
}

sluice_span sluice_engine_token_bytes(const sluice_engine *e, int32_t token)
{
    return sluice_tokenizer_bytes(e->tokenizer, token);
}

sluice_status sluice_engine_render(const sluice_engine *e, const sluice_engine_message *messages, size_t n_messages,
                                   int32_t *tokens, size_t *n, sluice_error *err)
{
    return sluice_prompt_render(&e->prompt, e->tokenizer, messages, n_messages, tokens, n, err);
}

/* ---- evaluation */

void sluice_engine_reset(sluice_engine *e)
{
    sluice_kv_cache_reset(&e->kv);
    sluice_forward_wipe(e->forward);
    sluice_wipe(e->sampler_scratch, e->sampler_bytes);
}

uint32_t sluice_engine_position(const sluice_engine *e)
{
    return e->kv.n_used;
}

sluice_status sluice_engine_eval(sluice_engine *e, const int32_t *tokens, size_t n, const float **logits, sluice_error *err)
{
    *logits = NULL;
    if (n == 0)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "engine: no tokens");
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= e->model.n_vocab)
            return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "engine: token %zu is %d, outside the vocabulary of %u", i, tokens[i],
                                    e->model.n_vocab);
    if (n > e->kv.context - e->kv.n_used)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "engine: %zu tokens after %u do not fit the context of %u", n, e->kv.n_used,
                                e->kv.context);
    if (atomic_load(&e->stop))
        return sluice_error_set(err, SLUICE_ERR_CANCELLED, "engine: stopped");
    return sluice_forward_run(e->forward, tokens, n, logits, err);
}

/* ---- generation */

typedef struct generation {
    sluice_engine *e;
    sluice_sampler sampler;
    uint32_t max_tokens;
    sluice_engine_token_fn on_token;
    void *user;
    sluice_engine_result *result;
} generation;

/* Samples from `logits` and reports.  True when there is a token to go on with. */
static bool take_token(generation *g, const float *logits, int32_t *next)
{
    sluice_engine_result *result = g->result;
    sluice_engine_token token;
    sluice_sample sample;

    sluice_sampler_pick(&g->sampler, logits, &sample);
    memset(&token, 0, sizeof token);
    token.id = sample.id;
    token.is_end = sluice_tokenizer_is_end(g->e->tokenizer, sample.id);
    if (!token.is_end)
        token.text = sluice_tokenizer_bytes(g->e->tokenizer, sample.id);
    token.logprob = sample.logprob;
    token.is_declined = sample.id == g->e->prompt.declines && sample.id != SLUICE_TOKEN_NONE;
    token.margin = sample.margin;
    token.entropy = sample.entropy;
    token.index = result->output_tokens;
    if (!token.is_end)
        result->output_tokens++;
    if (g->on_token != NULL && !g->on_token(&token, g->user))
        result->stop = SLUICE_STOP_CALLER;
    else if (token.is_end)
        result->stop = SLUICE_STOP_END;
    else if (result->output_tokens >= g->max_tokens)
        result->stop = SLUICE_STOP_MAX_TOKENS;
    else if (g->e->kv.n_used >= g->e->kv.context)
        result->stop = SLUICE_STOP_CONTEXT;
    else {
        *next = sample.id;
        return true;
    }
    return false;
}

static sluice_status decode(generation *g, const float *logits, sluice_error *err)
{
    sluice_status st = SLUICE_OK;
    int32_t next;

    if (g->max_tokens == 0) {
        g->result->stop = SLUICE_STOP_MAX_TOKENS;
        return SLUICE_OK;
    }
    while (st == SLUICE_OK && take_token(g, logits, &next))
        st = sluice_engine_eval(g->e, &next, 1, &logits, err);
    return st;
}

sluice_status sluice_engine_generate(sluice_engine *e, const int32_t *prompt, size_t n_prompt, uint32_t max_tokens,
                                     const sluice_engine_sampling *sampling, sluice_engine_token_fn on_token, void *user,
                                     sluice_engine_result *result, sluice_error *err)
{
    generation g = { .e = e, .max_tokens = max_tokens, .on_token = on_token, .user = user, .result = result };
    const uint64_t begin = sluice_now_us(&e->platform);
    uint64_t prefilled;
    const float *logits;
    sluice_status st;

    memset(result, 0, sizeof *result);
    st = sluice_sampler_init(&g.sampler, &e->kernels, sampling, e->model.n_vocab, e->sampler_scratch, err);
    if (st != SLUICE_OK)
        return st;
    sluice_kv_cache_reset(&e->kv);
    st = sluice_engine_eval(e, prompt, n_prompt, &logits, err);
    prefilled = sluice_now_us(&e->platform);
    result->prefill_us = prefilled - begin;
    if (st == SLUICE_OK) {
        result->prompt_tokens = (uint32_t)n_prompt;
        st = decode(&g, logits, err);
        result->decode_us = sluice_now_us(&e->platform) - prefilled;
    }
    sluice_engine_reset(e); /* nothing of the prompt or the answer stays behind, however this ended */
    return st;
}

void sluice_engine_stop(sluice_engine *e)
{
    atomic_store(&e->stop, true);
}

void sluice_engine_resume(sluice_engine *e)
{
    atomic_store(&e->stop, false);
}
