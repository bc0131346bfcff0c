/* engine.c - one model opened, with its memory, its threads and its confidence; text, evaluation and embeddings.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/engine_impl.h"

#include <math.h>

#include "local-engine/model_hash.h"

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

/* The probe head, one logistic unit on the last hidden state: metadata or a tensor "sluice.probe.weight", (n_embd) f32, and "sluice.probe.bias". */
static sluice_status read_probe(sluice_engine *e, sluice_error *err)
{
    static const char weight[] = "sluice.probe.weight", bias[] = "sluice.probe.bias";
    const sluice_gguf_tensor *tensor = sluice_gguf_tensor_find(e->gguf, weight);
    const sluice_gguf_tensor *bias_tensor = sluice_gguf_tensor_find(e->gguf, bias);
    const uint32_t n = e->model.n_embd;
    const sluice_gguf_value *array = NULL;
    sluice_status st = SLUICE_OK;

    if (tensor == NULL && sluice_gguf_find(e->gguf, weight) == NULL)
        return SLUICE_OK;
    if (tensor == NULL)
        st = sluice_gguf_get_array(e->gguf, weight, SLUICE_GGUF_F32, &array, err);
    if (st == SLUICE_OK && bias_tensor == NULL)
        st = sluice_gguf_opt_f32(e->gguf, bias, &e->probe_bias, err);
    if (st != SLUICE_OK)
        return st;
    if (tensor != NULL ? tensor->type != SLUICE_TENSOR_F32 || tensor->n_dims != 1 || tensor->ne[0] != n : array->count != n)
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "model: %s is not of %u f32 numbers", weight, n);
    if (bias_tensor != NULL && (bias_tensor->type != SLUICE_TENSOR_F32 || bias_tensor->n_dims != 1 || bias_tensor->ne[0] != 1))
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "model: %s is not one f32 number", bias);
    e->probe = sluice_alloc_array(e->al, n, sizeof *e->probe);
    if (e->probe == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "engine: %zu bytes for the probe head", n * sizeof *e->probe);
    if (tensor != NULL)
        memcpy(e->probe, tensor->data, n * sizeof *e->probe);
    for (uint32_t i = 0; i < n && tensor == NULL; i++)
        e->probe[i] = sluice_gguf_array_f32(array, i);
    if (bias_tensor != NULL)
        memcpy(&e->probe_bias, bias_tensor->data, sizeof e->probe_bias);
    for (uint32_t i = 0; i < n; i++)
        if (!isfinite(e->probe[i]))
            return sluice_error_set(err, SLUICE_ERR_FORMAT, "model: %s[%u] is no number", weight, i);
    return isfinite(e->probe_bias) ? SLUICE_OK : sluice_error_set(err, SLUICE_ERR_FORMAT, "model: %s is no number", bias);
}

float sluice_engine_probe(const sluice_engine *e, const float *hidden)
{
    double sum = (double)e->probe_bias;

    if (e->probe == NULL)
        return -1.0f;
    for (uint32_t i = 0; i < e->model.n_embd; i++)
        sum += (double)e->probe[i] * (double)hidden[i];
    return (float)(1.0 / (1.0 + exp(-sum)));
}

static sluice_status read_info(sluice_engine *e, sluice_error *err)
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
    info->context_tokens = e->context;
    info->n_threads = sluice_pool_n_threads(e->pool);
    info->is_encoder = m->is_encoder;
    info->has_probe = e->probe != NULL;
    info->kv = e->kv.shape.type == SLUICE_KV_Q8_0 ? SLUICE_ENGINE_KV_Q8_0 : SLUICE_ENGINE_KV_F16;
    info->n_params = m->n_params;
    info->model_bytes = sluice_gguf_bytes(e->gguf).len;
    sluice_model_hash(e->gguf, info->model_hash);
    return read_calibration(e, err);
}

static sluice_status open_tokenizer(sluice_engine *e, const sluice_engine_options *options, sluice_error *err)
{
    sluice_status st = sluice_tokenizer_open(&e->tokenizer, e->gguf, e->al, err);

    if (st != SLUICE_OK)
        return st;
    if (sluice_tokenizer_n_vocab(e->tokenizer) != e->model.n_vocab)
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "model: the tokenizer has %u tokens, and token_embd.weight %u rows",
                                sluice_tokenizer_n_vocab(e->tokenizer), e->model.n_vocab);
    st = sluice_prompt_init(&e->prompt, e->gguf, e->tokenizer, err);
    if (st == SLUICE_OK && options != NULL && options->prompt_format != NULL)
        st = sluice_prompt_set_format(&e->prompt, options->prompt_format, e->gguf, e->tokenizer, err);
    return st;
}

static sluice_status open_scratch(sluice_engine *e, sluice_error *err)
{
    e->sampler_bytes = sluice_sampler_bytes(e->model.n_vocab);
    e->sampler_scratch = sluice_alloc_zeroed(e->al, e->sampler_bytes);
    if (e->sampler_scratch == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "engine: %zu bytes for the sampler", e->sampler_bytes);
    e->history = sluice_alloc_array(e->al, e->context, sizeof *e->history);
    e->pending = sluice_alloc_array(e->al, e->context, sizeof *e->pending);
    if (e->history == NULL || e->pending == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "engine: %zu bytes for a session's tokens", 2 * e->context * sizeof *e->history);
    return SLUICE_OK;
}

static sluice_status open_pool(sluice_engine *e, const sluice_engine_options *options, sluice_pool *shared, sluice_error *err)
{
    e->fixed_threads = options != NULL ? options->n_threads : 0;
    e->borrows_pool = shared != NULL;
    e->pool = shared;
    if (shared != NULL)
        return SLUICE_OK;
    return sluice_pool_open(&e->pool, &e->platform, e->al, sluice_engine_choose_threads(options, &e->platform), err);
}

static sluice_status open_parts(sluice_engine *e, const char *path, const sluice_engine_options *options, sluice_pool *shared, sluice_error *err)
{
    sluice_engine_estimate need;
    sluice_kv_shape shape;
    sluice_status st;

    st = sluice_gguf_open(&e->gguf, path, &e->platform, e->al, err);
    if (st == SLUICE_OK)
        st = sluice_model_init(&e->model, e->gguf, e->al, err);
    if (st != SLUICE_OK)
        return st;
    e->context = sluice_engine_choose_context(options, &e->model);
    shape = sluice_engine_kv_shape(&e->model, options, e->context);
    st = sluice_engine_estimate_opened(&need, e->gguf, &e->model, options, shared != NULL, atomic_load(&e->memory.bytes) + sizeof *e, &e->platform, e->al, err);
    if (st == SLUICE_OK && shared == NULL) /* a draft model is part of what its engine needs */
        st = sluice_engine_check_fits(&need, options, &e->platform, err);
    if (st == SLUICE_OK)
        st = open_tokenizer(e, options, err);
    if (st == SLUICE_OK)
        st = sluice_kv_cache_init(&e->kv, e->al, &shape, err);
    if (st == SLUICE_OK)
        st = open_scratch(e, err);
    if (st == SLUICE_OK)
        st = read_probe(e, err);
    if (st != SLUICE_OK)
        return st;
    sluice_kernels_init(&e->kernels, options != NULL ? options->cpu & sluice_cpu_features() : sluice_cpu_features());
    st = open_pool(e, options, shared, err);
    if (st == SLUICE_OK)
        st = sluice_forward_open(&e->forward, &e->model, &e->kernels, e->pool, &e->kv, &e->stop, e->al, err);
    if (st == SLUICE_OK)
        st = read_info(e, err);
    return st;
}

static sluice_status open_engine(sluice_engine **out, const char *path, const sluice_engine_options *options, const sluice_platform *platform,
                                 const sluice_allocator *al, sluice_pool *shared, sluice_error *err)
{
    sluice_engine *e = sluice_alloc_zeroed(al, sizeof *e);
    sluice_status st;

    *out = NULL;
    if (e == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "engine: %zu bytes", sizeof *e);
    e->platform = *platform;
    sluice_memory_init(&e->memory, al);
    e->al = &e->memory.al;
    atomic_init(&e->stop, false);
    st = open_parts(e, path, options, shared, err);
    if (st != SLUICE_OK) {
        if (err != NULL && err->where[0] == '\0')
            sluice_error_where(err, path);
        sluice_engine_close(e);
        return st;
    }
    *out = e;
    return SLUICE_OK;
}

/* A guess is a token id, so both must mean the same by it.  Families pad their vocabularies to different sizes: what one has more is not compared. */
static sluice_status check_draft(const sluice_engine *e, sluice_error *err)
{
    const sluice_engine *d = e->draft;
    const uint32_t n = d->model.n_vocab < e->model.n_vocab ? d->model.n_vocab : e->model.n_vocab;

    if (d->info.is_encoder || e->info.is_encoder)
        return sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "engine: an encoder neither drafts nor is drafted for");
    for (uint32_t i = 0; i < n; i++)
        if (!sluice_span_eq(sluice_tokenizer_bytes(d->tokenizer, (int32_t)i), sluice_tokenizer_bytes(e->tokenizer, (int32_t)i)) ||
            sluice_tokenizer_is_control(d->tokenizer, (int32_t)i) != sluice_tokenizer_is_control(e->tokenizer, (int32_t)i))
            return sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "engine: the draft model has another vocabulary: token %u differs", i);
    return SLUICE_OK;
}

sluice_status sluice_engine_open(sluice_engine **out, const char *path, const sluice_engine_options *options,
                                 const sluice_platform *platform, const sluice_allocator *al, sluice_error *err)
{
    sluice_engine_options draft_options;
    sluice_engine *e;
    sluice_status st;

    *out = NULL;
    st = sluice_engine_check_options(options, err);
    if (st == SLUICE_OK)
        st = open_engine(&e, path, options, platform, al, NULL, err);
    if (st != SLUICE_OK)
        return st;
    if (options != NULL && options->draft_path != NULL) {
        draft_options = (sluice_engine_options){ .n_threads = options->n_threads, .context_tokens = e->context, .cpu = options->cpu, .kv = options->kv };
        st = open_engine(&e->draft, options->draft_path, &draft_options, platform, e->al, e->pool, err);
        if (st == SLUICE_OK)
            st = check_draft(e, err);
        if (st != SLUICE_OK) {
            if (err != NULL && err->where[0] == '\0')
                sluice_error_where(err, options->draft_path);
            sluice_engine_close(e);
            return st;
        }
    }
    *out = e;
    return SLUICE_OK;
}

void sluice_engine_close(sluice_engine *e)
{
    sluice_allocator outer;

    if (e == NULL)
        return;
    sluice_engine_close(e->draft);
    sluice_forward_close(e->forward);
    if (!e->borrows_pool)
        sluice_pool_close(e->pool);
    sluice_kv_cache_deinit(&e->kv);
    if (e->sampler_scratch != NULL)
        sluice_free_wiped(e->al, e->sampler_scratch, e->sampler_bytes);
    sluice_free_wiped(e->al, e->history, e->context * sizeof *e->history);
    sluice_free_wiped(e->al, e->pending, e->context * sizeof *e->pending);
    sluice_free(e->al, e->probe, e->model.n_embd * sizeof *e->probe);
    sluice_constraint_vocab_close(e->constraint_vocab);
    sluice_tokenizer_close(e->tokenizer);
    sluice_model_deinit(&e->model);
    sluice_gguf_close(e->gguf);
    if (e->name != NULL)
        sluice_str_free(e->al, e->name);
    outer = e->memory.outer; /* it lies in what is about to go */
    sluice_free(outer.alloc != NULL ? &outer : NULL, e, sizeof *e);
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

sluice_status sluice_engine_render_chat(const sluice_engine *e, const struct sluice_chat_message *messages, size_t n_messages,
                                        const struct sluice_chat_options *options, int32_t *tokens, size_t *n, sluice_error *err)
{
    return sluice_prompt_render_chat(&e->prompt, e->tokenizer, messages, n_messages, options, e->al, tokens, n, err);
}

/* ---- evaluation */

void sluice_engine_reset(sluice_engine *e)
{
    sluice_kv_cache_reset(&e->kv);
    sluice_forward_wipe(e->forward);
    sluice_wipe(e->sampler_scratch, e->sampler_bytes);
    sluice_wipe(e->history, e->context * sizeof *e->history);
    sluice_wipe(e->pending, e->context * sizeof *e->pending);
    e->has_run = false;
    if (e->draft != NULL)
        sluice_engine_reset(e->draft);
}

uint32_t sluice_engine_position(const sluice_engine *e)
{
    return e->kv.n_used;
}

void sluice_engine_truncate(sluice_engine *e, uint32_t n)
{
    if (n < e->kv.n_used)
        sluice_kv_cache_truncate(&e->kv, n);
}

uint32_t sluice_engine_common_prefix(const sluice_engine *e, const int32_t *tokens, size_t n)
{
    uint32_t same = 0;

    while (same < e->kv.n_used && same < n && e->history[same] == tokens[same])
        same++;
    return same;
}

static sluice_status check_tokens(const sluice_engine *e, const int32_t *tokens, size_t n, sluice_error *err)
{
    if (n == 0)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "engine: no tokens");
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= e->model.n_vocab)
            return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "engine: token %zu is %d, outside the vocabulary of %u", i, tokens[i],
                                    e->model.n_vocab);
    return SLUICE_OK;
}

sluice_status sluice_engine_eval_rows(sluice_engine *e, const int32_t *tokens, size_t n, uint32_t n_rows, const float **logits, sluice_error *err)
{
    sluice_status st = check_tokens(e, tokens, n, err);

    *logits = NULL;
    if (st != SLUICE_OK)
        return st;
    if (e->info.is_encoder)
        return sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "engine: %s is an encoder: it embeds, and does not generate", e->model.architecture);
    if (n_rows < 1 || n_rows > n || n_rows > SLUICE_FORWARD_MAX_LOGITS)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "engine: logits of %u tokens, of at most %d", n_rows, SLUICE_FORWARD_MAX_LOGITS);
    if (n > e->context - e->kv.n_used)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "engine: %zu tokens after %u do not fit the context of %u", n, e->kv.n_used,
                                e->context);
    if (atomic_load(&e->stop))
        return sluice_error_set(err, SLUICE_ERR_CANCELLED, "engine: stopped");
    memmove(e->history + e->kv.n_used, tokens, n * sizeof *tokens);
    st = sluice_forward_run(e->forward, e->history + e->kv.n_used, n, n_rows, logits, err);
    e->has_run = st == SLUICE_OK;
    return st;
}

sluice_status sluice_engine_eval(sluice_engine *e, const int32_t *tokens, size_t n, const float **logits, sluice_error *err)
{
    return sluice_engine_eval_rows(e, tokens, n, 1, logits, err);
}

const float *sluice_engine_hidden(const sluice_engine *e)
{
    return e->has_run ? sluice_forward_hidden(e->forward) : NULL;
}

void sluice_engine_observe(sluice_engine *e, sluice_engine_observer fn, void *user)
{
    sluice_forward_observe(e->forward, fn, user);
}

/* ---- embeddings */

static sluice_status embed(sluice_engine *e, const int32_t *tokens, size_t n, bool normalize, float *out, size_t n_out, sluice_error *err)
{
    sluice_status st;

    if (n_out != e->model.n_embd)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "engine: room for %zu numbers of an embedding of %u", n_out, e->model.n_embd);
    st = check_tokens(e, tokens, n, err);
    if (st != SLUICE_OK)
        return st;
    if (n > e->context)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "engine: a text of %zu tokens does not fit the context of %u", n, e->context);
    if (atomic_load(&e->stop))
        return sluice_error_set(err, SLUICE_ERR_CANCELLED, "engine: stopped");
    sluice_engine_adapt_threads(e);
    return sluice_forward_embed(e->forward, tokens, n, normalize, out, err);
}

sluice_status sluice_engine_embed_tokens(sluice_engine *e, const int32_t *tokens, size_t n, bool normalize, float *out, size_t n_out, sluice_error *err)
{
    sluice_status st;

    sluice_kv_cache_reset(&e->kv);
    st = embed(e, tokens, n, normalize, out, n_out, err);
    sluice_engine_reset(e);
    return st;
}

sluice_status sluice_engine_embed(sluice_engine *e, sluice_span text, bool normalize, float *out, size_t n_out, sluice_error *err)
{
    size_t n = e->context;
    sluice_status st;

    sluice_kv_cache_reset(&e->kv);
    st = sluice_tokenizer_encode_whole(e->tokenizer, text, e->pending, &n, err);
    if (st == SLUICE_ERR_LIMIT && n > e->context)
        st = sluice_error_set(err, SLUICE_ERR_LIMIT, "engine: a text of %zu tokens does not fit the context of %u", n, e->context);
    if (st == SLUICE_OK)
        st = embed(e, e->pending, n, normalize, out, n_out, err);
    sluice_engine_reset(e);
    return st;
}

/* ---- stopping */

void sluice_engine_stop(sluice_engine *e)
{
    atomic_store(&e->stop, true);
    if (e->draft != NULL)
        atomic_store(&e->draft->stop, true);
}

void sluice_engine_resume(sluice_engine *e)
{
    atomic_store(&e->stop, false);
    if (e->draft != NULL)
        atomic_store(&e->draft->stop, false);
}
