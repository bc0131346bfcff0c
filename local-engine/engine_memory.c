/* engine_memory.c - what an engine takes, before it takes it, and how many threads it uses.
 *
 * The estimate opens the file's index and the model's description (some hundred kilobytes, counted, not guessed), and adds what the other parts say
 * that they will allocate; the same arithmetic then allocates.  Of a mixture of experts only the share that a token uses has to be in memory: the rest
 * of the mapping is read from storage when a token asks for it, and dropped by the system when something else needs the room.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>

#include "local-engine/engine_impl.h"

enum {
    MAX_DEFAULT_THREADS = 4,    /* what a phone has of fast cores; decoding is bound by memory before that */
    MAX_DEFAULT_CONTEXT = 4096  /* tokens; models are trained for up to a hundred thousand, whose cache would be larger than themselves */
};

/* ---- counting */

static void *counted_alloc(void *user, size_t bytes)
{
    sluice_memory *m = user;
    void *p = sluice_alloc(m->outer.alloc != NULL ? &m->outer : NULL, bytes);

    if (p != NULL)
        atomic_fetch_add_explicit(&m->bytes, bytes, memory_order_relaxed);
    return p;
}

static void counted_free(void *user, void *ptr, size_t bytes)
{
    sluice_memory *m = user;

    if (ptr != NULL)
        atomic_fetch_sub_explicit(&m->bytes, bytes, memory_order_relaxed);
    sluice_free(m->outer.alloc != NULL ? &m->outer : NULL, ptr, bytes);
}

void sluice_memory_init(sluice_memory *m, const sluice_allocator *outer)
{
    memset(m, 0, sizeof *m);
    if (outer != NULL)
        m->outer = *outer;
    m->al = (sluice_allocator){ .alloc = counted_alloc, .free = counted_free, .user = m };
    atomic_init(&m->bytes, 0);
}

uint64_t sluice_engine_private_bytes(const sluice_engine *e)
{
    return sizeof *e + atomic_load(&e->memory.bytes); /* the draft model allocates through the same count */
}

/* ---- threads */

static uint32_t machine_threads(const sluice_platform *platform, bool *is_throttled, bool *is_critical)
{
    sluice_device_state device;
    uint32_t n;

    memset(&device, 0, sizeof device);
    platform->device_state(platform->user, &device);
    *is_critical = device.thermal == SLUICE_THERMAL_CRITICAL;
    *is_throttled = device.thermal == SLUICE_THERMAL_SERIOUS || device.is_low_power;
    n = device.n_fast_cores > 0 ? device.n_fast_cores : device.n_cores;
    return n == 0 ? 1 : n < MAX_DEFAULT_THREADS ? n : (uint32_t)MAX_DEFAULT_THREADS;
}

uint32_t sluice_engine_choose_threads(const sluice_engine_options *options, const sluice_platform *platform)
{
    bool is_throttled, is_critical;

    if (options != NULL && options->n_threads > 0)
        return options->n_threads;
    return machine_threads(platform, &is_throttled, &is_critical);
}

/* Half of the threads give far more than half of the speed, decoding being bound by memory, for half of the heat. */
void sluice_engine_adapt_threads(sluice_engine *e)
{
    bool is_throttled, is_critical;
    uint32_t n;

    if (e->fixed_threads > 0)
        return;
    n = machine_threads(&e->platform, &is_throttled, &is_critical);
    sluice_pool_set_active(e->pool, is_critical ? 1 : is_throttled ? (n + 1) / 2 : n);
}

/* ---- options */

sluice_status sluice_engine_check_options(const sluice_engine_options *options, sluice_error *err)
{
    if (options == NULL)
        return SLUICE_OK;
    if (options->n_threads > SLUICE_POOL_MAX_THREADS)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "engine: %u threads, of at most %d", options->n_threads, SLUICE_POOL_MAX_THREADS);
    if (options->kv != SLUICE_ENGINE_KV_F16 && options->kv != SLUICE_ENGINE_KV_Q8_0)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "engine: KV cache type %d is unknown", (int)options->kv);
    return SLUICE_OK;
}

void sluice_engine_options_init(sluice_engine_options *options)
{
    memset(options, 0, sizeof *options);
    options->cpu = UINT32_MAX;
}

uint32_t sluice_engine_choose_context(const sluice_engine_options *options, const sluice_model *model)
{
    const uint32_t most = model->n_context < SLUICE_MODEL_MAX_CONTEXT ? model->n_context : (uint32_t)SLUICE_MODEL_MAX_CONTEXT;
    const uint32_t asked = options != NULL && options->context_tokens > 0 ? options->context_tokens : (uint32_t)MAX_DEFAULT_CONTEXT;

    return asked < most ? asked : most;
}

sluice_kv_shape sluice_engine_kv_shape(const sluice_model *model, const sluice_engine_options *options, uint32_t context)
{
    const bool is_q8 = options != NULL && options->kv == SLUICE_ENGINE_KV_Q8_0;

    return sluice_forward_kv_shape(model, is_q8 ? SLUICE_KV_Q8_0 : SLUICE_KV_F16, context);
}

/* ---- estimate */

static bool name_has(sluice_span name, const char *part)
{
    const size_t n = strlen(part);

    for (size_t i = 0; i + n <= name.len; i++)
        if (memcmp(name.ptr + i, part, n) == 0)
            return true;
    return false;
}

/* Bytes of the file that a token does not touch: the experts that its router passes over.  Their matrices lie in one tensor, (cols, rows, experts). */
static uint64_t untouched_bytes(const sluice_gguf *g, const char *architecture)
{
    char key[SLUICE_GGUF_MAX_NAME_BYTES + 1];
    uint32_t n_expert = 0, n_used = 0;
    uint64_t untouched = 0;

    (void)snprintf(key, sizeof key, "%s.expert_count", architecture);
    (void)sluice_gguf_opt_u32(g, key, &n_expert, NULL);
    (void)snprintf(key, sizeof key, "%s.expert_used_count", architecture);
    (void)sluice_gguf_opt_u32(g, key, &n_used, NULL);
    if (n_expert == 0 || n_used >= n_expert)
        return 0;
    for (size_t i = 0; i < sluice_gguf_n_tensors(g); i++) {
        const sluice_gguf_tensor *t = sluice_gguf_tensor_at(g, i);

        if (name_has(t->name, "_exps.") && t->n_dims == 3 && t->ne[2] == n_expert)
            untouched += t->bytes / n_expert * (n_expert - n_used);
    }
    return untouched;
}

static uint64_t probe_bytes(const sluice_gguf *g, const sluice_model *model)
{
    const bool has_probe = sluice_gguf_find(g, "sluice.probe.weight") != NULL || sluice_gguf_tensor_find(g, "sluice.probe.weight") != NULL;

    return has_probe ? model->n_embd * sizeof(float) : 0;
}

static uint64_t name_bytes(const sluice_gguf *g)
{
    sluice_span name = SLUICE_SPAN_EMPTY;

    (void)sluice_gguf_opt_string(g, "general.name", &name, NULL);
    return name.len + 1;
}

static sluice_status estimate_draft(sluice_engine_estimate *out, const sluice_engine_options *options, const sluice_platform *platform,
                                    const sluice_allocator *al, sluice_error *err)
{
    const sluice_engine_options draft_options = { .n_threads = options->n_threads, .context_tokens = out->context_tokens, .cpu = options->cpu,
                                                  .kv = options->kv };
    sluice_engine_estimate draft;
    const sluice_status st = sluice_engine_estimate_memory(&draft, options->draft_path, &draft_options, platform, al, err);

    if (st == SLUICE_OK)
        out->draft_bytes = draft.total_bytes - sluice_pool_bytes(); /* it borrows the pool */
    return st;
}

sluice_status sluice_engine_estimate_opened(sluice_engine_estimate *out, const sluice_gguf *g, const sluice_model *model,
                                            const sluice_engine_options *options, bool borrows_pool, size_t held, const sluice_platform *platform,
                                            const sluice_allocator *al, sluice_error *err)
{
    const uint32_t context = sluice_engine_choose_context(options, model), n_threads = sluice_engine_choose_threads(options, platform);
    const sluice_kv_shape shape = sluice_engine_kv_shape(model, options, context);
    size_t kv_bytes, forward_bytes;
    sluice_status st;

    memset(out, 0, sizeof *out);
    if (!sluice_kv_cache_bytes(&shape, &kv_bytes))
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "engine: the KV cache of %u tokens is larger than memory can be", context);
    st = sluice_forward_bytes(model, &shape, n_threads, &forward_bytes, err);
    if (st != SLUICE_OK)
        return st;
    out->context_tokens = context;
    out->mapped_bytes = sluice_gguf_bytes(g).len;
    out->touched_bytes = out->mapped_bytes - untouched_bytes(g, model->architecture);
    out->kv_bytes = kv_bytes;
    out->scratch_bytes = (uint64_t)held + forward_bytes + sluice_sampler_bytes(model->n_vocab) + sluice_tokenizer_estimate_bytes(g) +
                         2 * (uint64_t)context * sizeof(int32_t) + probe_bytes(g, model) + name_bytes(g) + (borrows_pool ? 0 : sluice_pool_bytes());
    if (options != NULL && options->draft_path != NULL)
        st = estimate_draft(out, options, platform, al, err);
    out->total_bytes = out->touched_bytes + out->kv_bytes + out->scratch_bytes + out->draft_bytes;
    return st;
}

sluice_status sluice_engine_estimate_memory(sluice_engine_estimate *out, const char *path, const sluice_engine_options *options,
                                            const sluice_platform *platform, const sluice_allocator *al, sluice_error *err)
{
    sluice_gguf *g = NULL;
    sluice_memory memory;
    sluice_model model;
    sluice_status st;

    sluice_memory_init(&memory, al);
    memset(&model, 0, sizeof model);
    memset(out, 0, sizeof *out);
    st = sluice_engine_check_options(options, err);
    if (st == SLUICE_OK)
        st = sluice_gguf_open(&g, path, platform, &memory.al, err);
    if (st == SLUICE_OK)
        st = sluice_model_init(&model, g, &memory.al, err);
    if (st == SLUICE_OK)
        st = sluice_engine_estimate_opened(out, g, &model, options, false, atomic_load(&memory.bytes) + sizeof(sluice_engine), platform, al, err);
    if (st != SLUICE_OK && err != NULL && err->where[0] == '\0')
        sluice_error_where(err, path);
    sluice_model_deinit(&model);
    sluice_gguf_close(g);
    return st;
}

/* ---- refusal */

static double mebibytes(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

/* A model whose pages the system has to drop and read again for each token would crawl, so what is touched of the file counts too. */
sluice_status sluice_engine_check_fits(const sluice_engine_estimate *need, const sluice_engine_options *options, const sluice_platform *platform,
                                       sluice_error *err)
{
    uint64_t budget = options != NULL ? options->memory_budget_bytes : 0;
    const bool has_budget = budget > 0;
    sluice_device_state device;
    sluice_status st;

    if (!has_budget) {
        if (options != NULL && options->allow_overcommit)
            return SLUICE_OK;
        memset(&device, 0, sizeof device);
        platform->device_state(platform->user, &device);
        budget = device.memory_available_bytes;
    }
    if (budget == 0 || need->total_bytes <= budget)
        return SLUICE_OK;
    st = sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "engine: the model needs %.1f MiB (weights %.1f of a file of %.1f, KV cache %.1f, scratch %.1f, draft model %.1f), "
                          "and %.1f MiB are %s", mebibytes(need->total_bytes), mebibytes(need->touched_bytes), mebibytes(need->mapped_bytes),
                          mebibytes(need->kv_bytes), mebibytes(need->scratch_bytes), mebibytes(need->draft_bytes), mebibytes(budget),
                          has_budget ? "the budget" : "available");
    sluice_error_hint(err, "use a smaller model, a context of fewer than %u tokens, or the q8_0 cache", need->context_tokens);
    return st;
}
