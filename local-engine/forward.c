/* forward.c - one graph for all architectures.
 *
 * A layer, for a chunk of n tokens; every line is one loop over items that the pool shares out, and ends in its barrier.  What a model
 * does not have is left out; (parentheses) mark what only some have.
 *
 *     (settle,) (norm,) quantize          token by token          x -> xq
 *     q, k, v = W xq (+ bias)             strips of rows
 *     (norm,) rotate, store k, v          token by token
 *     attention, quantize                 tokens and k/v head     q, cache -> xq
 *     x += W_o xq                         strips of rows
 *     (settle,) (norm,) quantize          token by token          x -> xq
 *     act(W_g xq) * W_u xq, quantize      strips of rows          -> wide
 *     x += W_d wide                       strips of rows
 *
 * "Settle" is what some families do to the sum or to what is added to it.  Loops over a single token run on the calling
 * thread alone, so decoding takes five barriers a layer.  In the last layer only the tokens whose result somebody wants go beyond
 * their keys and values.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>

#include "local-engine/forward_impl.h"

enum { LINE = 64 };

static const double PI = 3.14159265358979323846;

/* ---- opening and closing */

sluice_kv_shape sluice_forward_kv_shape(const sluice_model *model, sluice_kv_type type, uint32_t context)
{
    return (sluice_kv_shape){ type, model->is_encoder ? 1 : model->n_layer, model->n_head_kv, model->head_dim, context };
}

sluice_status sluice_forward_bytes(const sluice_model *model, const sluice_kv_shape *kv, uint32_t n_threads, size_t *out, sluice_error *err)
{
    sluice_layout l;

    if (!sluice_forward_lay_out(&l, model, kv, n_threads) || !sluice_add_size(l.bytes, LINE + sizeof(sluice_forward), out))
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "engine: the working memory is larger than memory can be");
    return SLUICE_OK;
}

/* How much of dimension pair i keeps its unstretched angle: all of it where it turns more than 32 times within the original context, nothing
 * where less than once (Peng et al. 2023, section 3.2, with the constants given there). */
static double yarn_share(const sluice_model *m, double base, uint32_t i)
{
    const double per_turn = m->n_rot / (2 * log(base));
    const double low = floor(per_turn * log(m->rope_context / (32 * 2 * PI))), high = ceil(per_turn * log(m->rope_context / (2 * PI)));
    const double from = low > 0 ? low : 0, to = high < m->n_rot - 1 ? high : m->n_rot - 1;
    const double at = (i - from) / (to - from > 0.001 ? to - from : 0.001);

    return 1 - (at < 0 ? 0 : at > 1 ? 1 : at);
}

static void fill_angles(sluice_forward *f)
{
    const sluice_model *m = f->model;
    const bool is_long = m->rope_factors_long != NULL && f->kv->shape.context > m->rope_context;
    const float *factors = is_long ? m->rope_factors_long : m->rope_factors;
    double *angles = sluice_forward_region(f, SLUICE_R_ANGLES);
    const uint32_t half = m->n_rot / 2;

    for (uint32_t set = 0; set < m->n_angles; set++)
        for (uint32_t i = 0; i < half; i++) {
            const sluice_rope_angles *a = &m->angles[set];
            const double angle = pow((double)a->base, -2.0 * i / m->n_rot) / (factors != NULL ? (double)factors[i] : 1.0);
            const double share = a->is_yarn ? yarn_share(m, (double)a->base, i) : 0;

            angles[set * half + i] = angle * ((double)a->scale * (1 - share) + share);
        }
}

static void point_to_regions(sluice_forward *f)
{
    f->hidden = sluice_forward_floats(f, SLUICE_R_HIDDEN);
    f->queries = sluice_forward_floats(f, SLUICE_R_QUERIES);
    f->queries_q = sluice_forward_region(f, SLUICE_R_QUERIES_Q);
    f->keys = sluice_forward_floats(f, SLUICE_R_KEYS);
    f->values = sluice_forward_floats(f, SLUICE_R_VALUES);
    f->post = sluice_forward_floats(f, SLUICE_R_POST);
    f->cosines = sluice_forward_floats(f, SLUICE_R_COSINES);
    f->sines = sluice_forward_floats(f, SLUICE_R_SINES);
}

sluice_status sluice_forward_open(sluice_forward **out, const sluice_model *model, const sluice_kernels *kernels, sluice_pool *pool,
                                  sluice_kv_cache *kv, const _Atomic bool *stop, const sluice_allocator *al, sluice_error *err)
{
    const uint32_t n_threads = sluice_pool_n_threads(pool);
    sluice_forward *f;
    size_t bytes;
    sluice_status st;

    *out = NULL;
    st = sluice_forward_bytes(model, &kv->shape, n_threads, &bytes, err);
    if (st != SLUICE_OK)
        return st;
    f = sluice_alloc_zeroed(al, sizeof *f);
    if (f == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "engine: %zu bytes of working memory", bytes);
    f->model = model;
    f->kernels = kernels;
    f->pool = pool;
    f->kv = kv;
    f->stop = stop;
    f->al = al;
    f->n_threads = n_threads;
    atomic_init(&f->is_damaged, false);
    (void)sluice_forward_lay_out(&f->layout, model, &kv->shape, n_threads); /* succeeded above */
    f->block_bytes = f->layout.bytes + LINE;
    f->block = sluice_alloc(al, f->block_bytes);
    if (f->block == NULL) {
        sluice_forward_close(f);
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "engine: %zu bytes of working memory", bytes);
    }
    f->base = f->block + (LINE - (uintptr_t)f->block % LINE) % LINE;
    memset(f->base, 0, f->layout.at[SLUICE_R_LOGITS]); /* rows of logits beyond the first stay untouched until a draft needs them */
    f->last_hidden = sluice_forward_floats(f, SLUICE_R_FINAL);
    point_to_regions(f);
    fill_angles(f);
    *out = f;
    return SLUICE_OK;
}

void sluice_forward_wipe(sluice_forward *f)
{
    sluice_wipe(f->base, f->layout.at[SLUICE_R_LOGITS] + (size_t)f->n_logit_rows * f->model->n_vocab * sizeof(float));
    f->n_logit_rows = 0;
    fill_angles(f);
}

void sluice_forward_close(sluice_forward *f)
{
    if (f == NULL)
        return;
    if (f->block != NULL) {
        sluice_forward_wipe(f);
        sluice_free(f->al, f->block, f->block_bytes);
    }
    sluice_free(f->al, f, sizeof *f);
}

void sluice_forward_observe(sluice_forward *f, sluice_forward_observer fn, void *user)
{
    f->observer = fn;
    f->observer_user = user;
}

/* ---- a chunk */

static void add_row(const sluice_matrix *w, uint32_t row, float *restrict x, float *restrict scratch)
{
    sluice_weight_row(w->type, scratch, w->data + row * w->row_bytes, w->cols);
    for (uint32_t i = 0; i < w->cols; i++)
        x[i] += scratch[i];
}

static void fill_rotations(const sluice_forward *f, uint32_t token)
{
    const sluice_model *m = f->model;
    const uint32_t half = m->n_rot / 2;
    const double *angles = sluice_forward_region(f, SLUICE_R_ANGLES);

    for (uint32_t set = 0; set < m->n_angles; set++) {
        const size_t at = ((size_t)set * f->layout.chunk + token) * half;
        float *cosines = sluice_forward_floats(f, SLUICE_R_COSINES) + at, *sines = sluice_forward_floats(f, SLUICE_R_SINES) + at;

        for (uint32_t i = 0; i < half; i++) {
            const double angle = (double)(f->position + token) * angles[set * half + i];

            cosines[i] = (float)(cos(angle) * (double)m->rope_magnitude);
            sines[i] = (float)(sin(angle) * (double)m->rope_magnitude);
        }
    }
}

static void embed_token(const sluice_forward *f, uint32_t token, uint32_t thread)
{
    const sluice_model *m = f->model;
    const sluice_matrix *e = &m->embedding;
    float *x = f->hidden + (size_t)token * m->n_embd, *tile = sluice_forward_tile(f, thread);

    sluice_weight_row(e->type, x, e->data + (size_t)f->tokens[token] * e->row_bytes, e->cols);
    if (m->embedding_scale != 1)
        for (uint32_t i = 0; i < m->n_embd; i++)
            x[i] *= m->embedding_scale;
    if (m->token_types.data != NULL)
        add_row(&m->token_types, 0, x, tile);
    if (m->positions.data != NULL)
        add_row(&m->positions, f->position + token, x, tile);
    if (m->embedding_norm != NULL)
        sluice_forward_norm(f, x, x, m->embedding_norm, m->embedding_norm_bias);
    fill_rotations(f, token);
}

static void embed_item(void *arg, uint32_t item, uint32_t thread)
{
    const sluice_forward *f = arg;
    const uint32_t first = item * SLUICE_TOKENS_PER_ITEM;

    for (uint32_t t = first; t < first + SLUICE_TOKENS_PER_ITEM && t < f->n_tokens; t++)
        embed_token(f, t, thread);
}

/* After it, the last n_wanted tokens are the chunk, and their rows of the residual stream wait to be settled. */
static sluice_status run_chunk(sluice_forward *f, const int32_t *tokens, uint32_t n, uint32_t position, uint32_t n_wanted, sluice_error *err)
{
    point_to_regions(f);
    f->n_threads = sluice_pool_n_active(f->pool);
    f->tokens = tokens;
    f->n_tokens = n;
    f->position = position;
    memset(&f->pending, 0, sizeof f->pending);
    if (f->kv->n_written < f->origin + position + n)
        f->kv->n_written = f->origin + position + n;
    sluice_pool_run(f->pool, embed_item, f, (n + SLUICE_TOKENS_PER_ITEM - 1) / SLUICE_TOKENS_PER_ITEM);
    for (f->layer = 0; f->layer < f->model->n_layer; f->layer++) {
        if (atomic_load_explicit(f->stop, memory_order_relaxed))
            return sluice_error_set(err, SLUICE_ERR_CANCELLED, "engine: stopped");
        if (!sluice_forward_attention(f, f->layer + 1 < f->model->n_layer ? f->n_tokens : n_wanted))
            break;
        sluice_forward_feed_forward(f);
    }
    return SLUICE_OK;
}

/* The next chunk of n tokens: as few chunks as there can be, of nearly equal length. */
static uint32_t chunk_of(const sluice_forward *f, size_t n)
{
    const size_t n_chunks = (n + f->layout.chunk - 1) / f->layout.chunk;

    return (uint32_t)((n + n_chunks - 1) / n_chunks);
}

/* ---- logits */

typedef struct head {
    sluice_forward *f;
    sluice_operand in;
    uint32_t rows_per_item;
} head;

static bool all_finite(const float *x, uint32_t n)
{
    uint32_t bad = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t bits;

        memcpy(&bits, &x[i], sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return bad == 0;
}

static void head_item(void *arg, uint32_t item, uint32_t thread)
{
    const head *h = arg;
    sluice_forward *f = h->f;
    const sluice_model *m = f->model;
    const uint32_t first = item * h->rows_per_item, n = m->n_vocab - first < h->rows_per_item ? m->n_vocab - first : h->rows_per_item;
    float *y = sluice_forward_floats(f, SLUICE_R_LOGITS) + first;

    sluice_forward_piece(f, &m->output, 0, &h->in, 0, h->in.n, first, n, NULL, y, m->n_vocab, thread);
    for (uint32_t t = 0; t < h->in.n; t++) {
        float *row = y + (size_t)t * m->n_vocab;

        if (!all_finite(row, n)) /* before the cap, which would hide an infinity */
            atomic_store_explicit(&f->is_damaged, true, memory_order_relaxed);
        if (m->logit_cap > 0)
            f->kernels->soft_cap(row, n, 1, m->logit_cap);
    }
}

/* Of the tokens that are left of the last chunk. */
static sluice_status run_head(sluice_forward *f, sluice_error *err)
{
    const sluice_model *m = f->model;
    const bool is_quantized = sluice_weight_is_quantized(m->output.type);
    float *final = sluice_forward_floats(f, SLUICE_R_FINAL);
    sluice_q8 *final_q = sluice_forward_region(f, SLUICE_R_FINAL_Q);
    head h = { f, { final, is_quantized ? final_q : NULL, f->n_tokens, m->n_embd }, 0 };

    for (uint32_t t = 0; t < f->n_tokens; t++) {
        sluice_forward_settle(f, t, sluice_forward_tile(f, 0));
        sluice_forward_norm(f, final + (size_t)t * m->n_embd, f->hidden + (size_t)t * m->n_embd, m->output_norm, NULL);
    }
    if (is_quantized)
        f->kernels->quantize(final_q, final, (size_t)f->n_tokens * m->n_embd);
    f->last_hidden = final + (size_t)(f->n_tokens - 1) * m->n_embd;
    if (f->n_logit_rows < f->n_tokens)
        f->n_logit_rows = f->n_tokens;
    sluice_forward_report(f, &m->output, -1, &h.in);
    atomic_store(&f->is_damaged, false);
    h.rows_per_item = sluice_forward_rows_per_item(f, m->n_vocab, m->output.row_bytes, f->n_tokens);
    sluice_pool_run(f->pool, head_item, &h, (m->n_vocab + h.rows_per_item - 1) / h.rows_per_item);
    if (atomic_load(&f->is_damaged))
        return sluice_error_set(err, SLUICE_ERR_INTEGRITY, "engine: a logit at position %u is not a number; the model file is damaged",
                                f->kv->n_used - 1);
    return SLUICE_OK;
}

sluice_status sluice_forward_run(sluice_forward *f, const int32_t *tokens, size_t n, uint32_t n_logits, const float **logits, sluice_error *err)
{
    sluice_status st;

    *logits = NULL;
    if (f->model->is_encoder)
        return sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "engine: %s gives embeddings, and no next token", f->model->architecture);
    f->origin = 0;
    while (n > 0) {
        const uint32_t n_chunk = chunk_of(f, n);

        st = run_chunk(f, tokens, n_chunk, f->kv->n_used, n_chunk == n ? n_logits : 0, err);
        if (st != SLUICE_OK)
            return st;
        f->kv->n_used += n_chunk;
        tokens += n_chunk;
        n -= n_chunk;
    }
    st = run_head(f, err);
    if (st == SLUICE_OK)
        *logits = sluice_forward_floats(f, SLUICE_R_LOGITS);
    return st;
}

const float *sluice_forward_hidden(const sluice_forward *f)
{
    return f->last_hidden;
}

/* ---- embeddings */

/* The chunk's tokens, settled and normalized, go into the pool; `from` of the text are before them. */
static void pool_chunk(sluice_forward *f, double *pooled, bool is_first, bool is_last)
{
    const sluice_model *m = f->model;
    float *tile = sluice_forward_tile(f, 0);

    for (uint32_t t = 0; t < f->n_tokens; t++) {
        const bool counts = m->pooling == SLUICE_POOLING_MEAN || (m->pooling == SLUICE_POOLING_FIRST && is_first && t == 0) ||
                            (m->pooling == SLUICE_POOLING_LAST && is_last && t + 1 == f->n_tokens);
        const float *x = f->hidden + (size_t)t * m->n_embd;

        if (!counts)
            continue;
        sluice_forward_settle(f, t, tile);
        if (m->output_norm != NULL) {
            sluice_forward_norm(f, tile, x, m->output_norm, NULL);
            x = tile;
        }
        for (uint32_t i = 0; i < m->n_embd; i++)
            pooled[i] += (double)x[i];
    }
}

static sluice_status finish_embedding(const sluice_forward *f, double divisor, bool normalize, float *out, sluice_error *err)
{
    const double *pooled = sluice_forward_region(f, SLUICE_R_POOLED);
    double length = 0;

    for (uint32_t i = 0; i < f->model->n_embd; i++)
        length += pooled[i] / divisor * (pooled[i] / divisor);
    if (!isfinite(length))
        return sluice_error_set(err, SLUICE_ERR_INTEGRITY, "engine: an embedding is not a number; the model file is damaged");
    if (normalize && length > 0)
        divisor *= sqrt(length);
    for (uint32_t i = 0; i < f->model->n_embd; i++)
        out[i] = (float)(pooled[i] / divisor);
    return SLUICE_OK;
}

sluice_status sluice_forward_embed(sluice_forward *f, const int32_t *tokens, size_t n, bool normalize, float *out, sluice_error *err)
{
    const sluice_model *m = f->model;
    const uint32_t behind = (f->kv->n_used + SLUICE_SPLIT - 1) / SLUICE_SPLIT * SLUICE_SPLIT;
    double *pooled = sluice_forward_region(f, SLUICE_R_POOLED);
    uint32_t position = 0;

    if (n == 0 || n > f->kv->shape.context || (m->is_encoder && n > f->layout.chunk))
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "engine: a text of %zu tokens, of at most %u", n,
                                m->is_encoder ? f->layout.chunk : f->kv->shape.context);
    f->origin = m->is_encoder ? 0 : behind;
    if (f->origin > f->kv->shape.context || n > f->kv->shape.context - f->origin) { /* no room behind what is cached */
        sluice_kv_cache_truncate(f->kv, 0);
        f->origin = 0;
    }
    memset(pooled, 0, m->n_embd * sizeof *pooled);
    while (position < n) {
        const uint32_t n_chunk = chunk_of(f, n - position);
        const bool is_last = position + n_chunk == n;
        const bool is_wanted = m->pooling == SLUICE_POOLING_MEAN || (m->pooling == SLUICE_POOLING_FIRST ? position == 0 : is_last);
        const sluice_status st = run_chunk(f, tokens + position, n_chunk, position,
                                           !is_wanted ? 0 : m->pooling == SLUICE_POOLING_LAST && !m->is_encoder ? 1 : n_chunk, err);

        if (st != SLUICE_OK)
            return st;
        if (is_wanted)
            pool_chunk(f, pooled, position == 0, is_last);
        position += n_chunk;
    }
    return finish_embedding(f, m->pooling == SLUICE_POOLING_MEAN ? (double)n : 1, normalize, out, err);
}
