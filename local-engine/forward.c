/* forward.c - the graph of the Llama family.
 *
 * A layer, for a chunk of n tokens; every line is one loop over items that the pool shares out, and ends in its barrier:
 *
 *     norm, quantize              token by token          x -> xn, xq
 *     q, k, v = W xq (+ bias)     strips of rows
 *     (norm,) rotate, store k, v  token by token
 *     attention                   tokens and k/v head     q, cache -> mixed
 *     quantize                    token by token          mixed -> xq
 *     x += W_o xq                 strips of rows
 *     norm, quantize              token by token          x -> xn, xq
 *     silu(W_g xq) * W_u xq       strips of rows          -> gate
 *     quantize                    token by token          gate -> xq
 *     x += W_d xq                 strips of rows
 *
 * Loops over a single token run on the calling thread alone: waking the others would cost more.  Every number is computed
 * by one thread in an order that the model alone decides, which is why the result depends neither on threads nor on chunks.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/forward.h"

#include <math.h>

/* ---- memory: one block, cut into regions */

typedef enum region {
    HIDDEN,         /* (chunk, n_embd) f32: the residual stream */
    NORMED,         /* (chunk, n_embd) f32 */
    QUANTIZED,      /* (chunk, widest / 32) sluice_q8: the input of the next product */
    QUERIES,        /* (chunk, n_head * head_dim) f32 */
    KEYS, VALUES,   /* (chunk, n_head_kv * head_dim) f32 */
    MIXED,          /* (chunk, n_head * head_dim) f32: what attention gathered */
    GATE, UP,       /* (chunk, n_ff) f32 */
    ANGLES,         /* (n_rot / 2) f64: per position */
    COSINES, SINES, /* (chunk, n_rot / 2) f32 */
    SCORES,         /* (n_threads, ATTENTION_TOKENS * group, context) f32 */
    PACKED,         /* (n_threads, ATTENTION_TOKENS * group, head_dim) f32: queries side by side, then what they gathered */
    STRIPS,         /* (n_threads) scratch of the kernels */
    LOGITS,         /* (n_vocab) f32 */
    N_REGIONS
} region;

typedef struct layout {
    size_t at[N_REGIONS], bytes;
    size_t strip_bytes, scores_bytes, packed_bytes; /* per thread */
    size_t n_blocks;                  /* of a token's row in QUANTIZED */
} layout;

enum { ATTENTION_TOKENS = 4 }; /* whose queries read keys and values together */

enum { LINE = 64 }; /* regions begin on cache lines, so that threads do not share one by accident */

static bool place(layout *l, region which, size_t n, size_t each)
{
    size_t bytes;

    l->at[which] = l->bytes;
    return sluice_mul_size(n, each, &bytes) && sluice_add_size(bytes, (LINE - bytes % LINE) % LINE, &bytes) &&
           sluice_add_size(l->bytes, bytes, &l->bytes);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t round_up(size_t n, size_t step)
{
    return (n + step - 1) / step * step;
}

/* The limits of model.h keep every product of two sizes far below 2^63. */
static bool lay_out(layout *l, const sluice_model *m, uint32_t context, uint32_t n_threads)
{
    const size_t q_dim = (size_t)m->n_head * m->head_dim, kv_dim = (size_t)m->n_head_kv * m->head_dim;
    const size_t widest = larger(larger(m->n_embd, q_dim), m->n_ff), chunk = SLUICE_FORWARD_CHUNK;

    memset(l, 0, sizeof *l);
    l->n_blocks = widest / SLUICE_Q_LEN;
    l->strip_bytes = round_up(sluice_kernels_strip_bytes(widest), LINE);
    l->scores_bytes = ATTENTION_TOKENS * (m->n_head / m->n_head_kv) * round_up(context, 16) * sizeof(float);
    l->packed_bytes = round_up(ATTENTION_TOKENS * (m->n_head / m->n_head_kv) * (size_t)m->head_dim * sizeof(float), LINE);
    return place(l, HIDDEN, chunk * m->n_embd, sizeof(float)) && place(l, NORMED, chunk * m->n_embd, sizeof(float)) &&
           place(l, QUANTIZED, chunk * l->n_blocks, sizeof(sluice_q8)) && place(l, QUERIES, chunk * q_dim, sizeof(float)) &&
           place(l, KEYS, chunk * kv_dim, sizeof(float)) && place(l, VALUES, chunk * kv_dim, sizeof(float)) &&
           place(l, MIXED, chunk * q_dim, sizeof(float)) && place(l, GATE, chunk * m->n_ff, sizeof(float)) &&
           place(l, UP, chunk * m->n_ff, sizeof(float)) && place(l, ANGLES, m->n_rot / 2, sizeof(double)) &&
           place(l, COSINES, chunk * (m->n_rot / 2), sizeof(float)) && place(l, SINES, chunk * (m->n_rot / 2), sizeof(float)) &&
           place(l, SCORES, n_threads, l->scores_bytes) && place(l, PACKED, n_threads, l->packed_bytes) &&
           place(l, STRIPS, n_threads, l->strip_bytes) &&
           place(l, LOGITS, m->n_vocab, sizeof(float));
}

struct sluice_forward {
    const sluice_model *model;
    const sluice_kernels *kernels;
    sluice_pool *pool;
    sluice_kv_cache *kv;
    const _Atomic bool *stop;
    const sluice_allocator *al;
    layout layout;
    uint8_t *block, *base;      /* as allocated, and from its first cache line on */
    size_t block_bytes;
    float *hidden, *normed, *queries, *keys, *values, *mixed, *gate, *up, *cosines, *sines, *logits;
    double *angles;
    sluice_q8 *quantized;
    const int32_t *tokens;      /* of the chunk that runs */
    uint32_t n_tokens, position;
    uint32_t layer;
};

sluice_status sluice_forward_bytes(const sluice_model *model, uint32_t context, uint32_t n_threads, size_t *out, sluice_error *err)
{
    layout l;

    if (!lay_out(&l, model, context, n_threads) || !sluice_add_size(l.bytes, LINE + sizeof(sluice_forward), out))
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "engine: the working memory is larger than memory can be");
    return SLUICE_OK;
}

static void fill_angles(sluice_forward *f)
{
    const sluice_model *m = f->model;

    for (uint32_t i = 0; i < m->n_rot / 2; i++) {
        f->angles[i] = (double)m->rope_scale * pow((double)m->rope_base, -2.0 * i / m->n_rot);
        if (m->rope_factors != NULL)
            f->angles[i] /= (double)m->rope_factors[i];
    }
}

static float *floats(sluice_forward *f, region which)
{
    return (float *)(void *)(f->base + f->layout.at[which]);
}

sluice_status sluice_forward_open(sluice_forward **out, const sluice_model *model, const sluice_kernels *kernels, sluice_pool *pool,
                                  sluice_kv_cache *kv, const _Atomic bool *stop, const sluice_allocator *al, sluice_error *err)
{
    sluice_forward *f;
    size_t bytes;
    sluice_status st;

    *out = NULL;
    st = sluice_forward_bytes(model, kv->context, sluice_pool_n_threads(pool), &bytes, err);
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
    (void)lay_out(&f->layout, model, kv->context, sluice_pool_n_threads(pool)); /* succeeded above */
    f->block_bytes = f->layout.bytes + LINE;
    f->block = sluice_alloc_zeroed(al, f->block_bytes);
    if (f->block == NULL) {
        sluice_forward_close(f);
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "engine: %zu bytes of working memory", bytes);
    }
    f->base = f->block + (LINE - (uintptr_t)f->block % LINE) % LINE;
    f->hidden = floats(f, HIDDEN);
    f->normed = floats(f, NORMED);
    f->queries = floats(f, QUERIES);
    f->keys = floats(f, KEYS);
    f->values = floats(f, VALUES);
    f->mixed = floats(f, MIXED);
    f->gate = floats(f, GATE);
    f->up = floats(f, UP);
    f->cosines = floats(f, COSINES);
    f->sines = floats(f, SINES);
    f->logits = floats(f, LOGITS);
    f->angles = (double *)(void *)(f->base + f->layout.at[ANGLES]);
    f->quantized = (sluice_q8 *)(void *)(f->base + f->layout.at[QUANTIZED]);
    fill_angles(f);
    *out = f;
    return SLUICE_OK;
}

void sluice_forward_wipe(sluice_forward *f)
{
    sluice_wipe(f->base, f->layout.bytes);
    fill_angles(f);
}

void sluice_forward_close(sluice_forward *f)
{
    if (f == NULL)
        return;
    sluice_free_wiped(f->al, f->block, f->block_bytes);
    sluice_free(f->al, f, sizeof *f);
}

/* ---- loops */

/* A single item runs here; waking helpers for it would only cost. */
static void for_each_token(sluice_forward *f, sluice_pool_fn fn, void *arg)
{
    sluice_pool_run(f->pool, fn, arg, f->n_tokens);
}

/* ---- inputs of products: f32, and 8-bit blocks where a quantized matrix reads them */

typedef struct input {
    sluice_forward *f;
    const float *norm;          /* NULL: take `from` as it is */
    const float *from;          /* (n_tokens, width) */
    float *to;                  /* (n_tokens, width): from, normalized; unused without norm */
    size_t width;
    bool is_quantized;          /* some product reads 8-bit blocks */
} input;

static void prepare_token(void *arg, uint32_t token, uint32_t thread)
{
    const input *in = arg;
    const sluice_kernels *k = in->f->kernels;
    const float *x = in->from + token * in->width;

    (void)thread;
    if (in->norm != NULL) {
        float *normed = in->to + token * in->width;

        k->rms_norm(normed, x, in->norm, in->width, in->f->model->rms_eps);
        x = normed;
    }
    if (in->is_quantized)
        k->quantize(in->f->quantized + token * in->f->layout.n_blocks, x, in->width);
}

static bool reads_blocks(const sluice_matrix *w)
{
    return w->type == SLUICE_WEIGHT_Q8_0 || w->type == SLUICE_WEIGHT_Q4_0;
}

/* ---- products */

typedef struct target {
    const sluice_matrix *w;
    const float *bias;          /* (rows), or NULL */
    float *y;                   /* (n_tokens, rows) */
    float *add_to;              /* (n_tokens, rows): y is added to it; or NULL */
} target;

typedef struct products {
    sluice_forward *f;
    const float *x;             /* (n_tokens, cols) f32 */
    const sluice_q8 *xq;
    uint32_t n_tokens;
    uint32_t n_targets;
    uint32_t rows_per_item;
    uint32_t first_item[4];     /* of each target; the last one is the number of items */
    target targets[3];
} products;

static void multiply(const products *p, const target *t, uint32_t first, uint32_t n, uint32_t thread)
{
    const sluice_forward *f = p->f;
    const bool blocks = reads_blocks(t->w);
    const sluice_product product = {
        .w = t->w->data + first * t->w->row_bytes,
        .row_bytes = t->w->row_bytes,
        .rows = n,
        .cols = t->w->cols,
        .x = blocks ? (const void *)p->xq : (const void *)p->x,
        .x_stride = blocks ? f->layout.n_blocks * sizeof(sluice_q8) : t->w->cols * sizeof(float),
        .n_tokens = p->n_tokens,
        .y = t->y + first,
        .y_stride = t->w->rows,
        .strip = f->base + f->layout.at[STRIPS] + thread * f->layout.strip_bytes,
    };

    f->kernels->product[t->w->type](&product);
    for (uint32_t token = 0; token < p->n_tokens; token++) {
        float *y = t->y + (size_t)token * t->w->rows + first;

        if (t->bias != NULL)
            for (uint32_t i = 0; i < n; i++)
                y[i] += t->bias[first + i];
        if (t->add_to != NULL) {
            float *restrict sum = t->add_to + (size_t)token * t->w->rows + first;

            for (uint32_t i = 0; i < n; i++)
                sum[i] += y[i];
        }
    }
}

static void multiply_item(void *arg, uint32_t item, uint32_t thread)
{
    const products *p = arg;
    uint32_t which = 0, first, left;

    while (item >= p->first_item[which + 1])
        which++;
    first = (item - p->first_item[which]) * p->rows_per_item;
    left = p->targets[which].w->rows - first;
    multiply(p, &p->targets[which], first, left < p->rows_per_item ? left : p->rows_per_item, thread);
}

/* Enough items that an interrupted thread does not hold up the others, few enough that taking one does not count. */
static uint32_t choose_rows_per_item(const sluice_forward *f, uint64_t rows)
{
    const uint64_t n_items = 8u * (uint64_t)sluice_pool_n_threads(f->pool), strips = (rows + SLUICE_STRIP_ROWS - 1) / SLUICE_STRIP_ROWS;

    return (uint32_t)((strips + n_items - 1) / n_items * SLUICE_STRIP_ROWS);
}

static void run_products(products *p)
{
    uint64_t rows = 0;

    for (uint32_t i = 0; i < p->n_targets; i++)
        rows += p->targets[i].w->rows;
    p->rows_per_item = choose_rows_per_item(p->f, rows);
    p->first_item[0] = 0;
    for (uint32_t i = 0; i < p->n_targets; i++)
        p->first_item[i + 1] = p->first_item[i] + (p->targets[i].w->rows + p->rows_per_item - 1) / p->rows_per_item;
    sluice_pool_run(p->f->pool, multiply_item, p, p->first_item[p->n_targets]);
}

/* ---- attention */

static void rotate_head(const sluice_forward *f, float *head, uint32_t token)
{
    const uint32_t half = f->model->n_rot / 2;
    const float *cosines = f->cosines + (size_t)token * half, *sines = f->sines + (size_t)token * half;
    const uint32_t step = f->model->rope == SLUICE_ROPE_PAIRS ? 2 : 1, apart = f->model->rope == SLUICE_ROPE_PAIRS ? 1 : half;

    for (uint32_t i = 0; i < half; i++) {
        float *a = head + (size_t)i * step, *b = a + apart;
        const float old_a = *a, old_b = *b;

        *a = old_a * cosines[i] - old_b * sines[i];
        *b = old_a * sines[i] + old_b * cosines[i];
    }
}

static void rotate_token(void *arg, uint32_t token, uint32_t thread)
{
    sluice_forward *f = arg;
    const sluice_model *m = f->model;
    const sluice_layer *layer = &m->layers[f->layer];
    const float *q_norm = layer->vector[SLUICE_ATTN_Q_NORM], *k_norm = layer->vector[SLUICE_ATTN_K_NORM];
    const size_t at = (size_t)(f->position + token) * m->head_dim;

    (void)thread;
    for (uint32_t h = 0; h < m->n_head; h++) {
        float *q = f->queries + ((size_t)token * m->n_head + h) * m->head_dim;

        if (q_norm != NULL)
            f->kernels->rms_norm(q, q, q_norm, m->head_dim, m->rms_eps);
        rotate_head(f, q, token);
    }
    for (uint32_t h = 0; h < m->n_head_kv; h++) {
        const size_t from = ((size_t)token * m->n_head_kv + h) * m->head_dim;
        float *k = f->keys + from;

        if (k_norm != NULL)
            f->kernels->rms_norm(k, k, k_norm, m->head_dim, m->rms_eps);
        rotate_head(f, k, token);
        f->kernels->to_f16(sluice_kv_cache_keys(f->kv, f->layer, h) + at, k, m->head_dim);
        f->kernels->to_f16(sluice_kv_cache_values(f->kv, f->layer, h) + at, f->values + from, m->head_dim);
    }
}

/* A few tokens, one key/value head, and the query heads that share it: what is read of keys and values serves all of them.
 * Each query gets the weights of the positions that it may see, and 0, which adds nothing, for those of the block after it. */
static void attend(void *arg, uint32_t item, uint32_t thread)
{
    sluice_forward *f = arg;
    const sluice_model *m = f->model;
    const uint32_t head = item % m->n_head_kv, group = m->n_head / m->n_head_kv, first = item / m->n_head_kv * ATTENTION_TOKENS;
    const uint32_t n = f->n_tokens - first < ATTENTION_TOKENS ? f->n_tokens - first : (uint32_t)ATTENTION_TOKENS;
    const uint32_t n_seen = f->position + first + n; /* by the last of them */
    const size_t width = (size_t)group * m->head_dim, step = (size_t)m->n_head * m->head_dim;
    const size_t at = first * step + head * width;
    const size_t stride = round_up(n_seen, 16);
    float *scores = (float *)(void *)(f->base + f->layout.at[SCORES] + thread * f->layout.scores_bytes);
    float *packed = (float *)(void *)(f->base + f->layout.at[PACKED] + thread * f->layout.packed_bytes); /* (n * group, head_dim) */
    const sluice_product product = {
        .w = (const uint8_t *)sluice_kv_cache_keys(f->kv, f->layer, head),
        .row_bytes = m->head_dim * sizeof(uint16_t),
        .rows = n_seen,
        .cols = m->head_dim,
        .x = packed,
        .x_stride = m->head_dim * sizeof(float),
        .n_tokens = (size_t)n * group,
        .y = scores,
        .y_stride = stride,
        .strip = f->base + f->layout.at[STRIPS] + thread * f->layout.strip_bytes,
    };
    const sluice_mix mix = {
        .v = sluice_kv_cache_values(f->kv, f->layer, head),
        .v_stride = m->head_dim,
        .weights = scores,
        .weights_stride = stride,
        .n_queries = (size_t)n * group,
        .n = n_seen,
        .dim = m->head_dim,
        .out = packed,
        .out_stride = m->head_dim,
    };

    for (uint32_t i = 0; i < n; i++)
        memcpy(packed + i * width, f->queries + at + i * step, width * sizeof(float));
    f->kernels->product[SLUICE_WEIGHT_F16](&product);
    for (uint32_t i = 0; i < n * group; i++) {
        const uint32_t n_own = n_seen - n + 1 + i / group;
        float *weights = scores + i * stride;

        (void)f->kernels->softmax(weights, n_own, 1.0f / sqrtf((float)m->head_dim));
        memset(weights + n_own, 0, (n_seen - n_own) * sizeof(float));
    }
    f->kernels->mix(&mix);
    for (uint32_t i = 0; i < n; i++)
        memcpy(f->mixed + at + i * step, packed + i * width, width * sizeof(float));
}

/* ---- the feed-forward block */

/* Both targets, gate and up, over the same rows. */
static void gate_item(void *arg, uint32_t item, uint32_t thread)
{
    const products *p = arg;
    const uint32_t rows = p->targets[0].w->rows, first = item * p->rows_per_item;
    const uint32_t n = rows - first < p->rows_per_item ? rows - first : p->rows_per_item;

    multiply(p, &p->targets[0], first, n, thread);
    multiply(p, &p->targets[1], first, n, thread);
    for (uint32_t token = 0; token < p->n_tokens; token++) {
        const size_t at = (size_t)token * rows + first;

        p->f->kernels->silu_mul(p->targets[0].y + at, p->targets[1].y + at, n);
    }
}

/* ---- a chunk */

static void run_attention(sluice_forward *f, const sluice_layer *l)
{
    const sluice_matrix *w = l->matrix;
    const size_t q_dim = (size_t)f->model->n_head * f->model->head_dim;
    input in = { f, l->vector[SLUICE_ATTN_NORM], f->hidden, f->normed, f->model->n_embd,
                 reads_blocks(&w[SLUICE_ATTN_Q]) || reads_blocks(&w[SLUICE_ATTN_K]) || reads_blocks(&w[SLUICE_ATTN_V]) };
    products qkv = { .f = f, .x = f->normed, .xq = f->quantized, .n_tokens = f->n_tokens, .n_targets = 3,
                     .targets = { { &w[SLUICE_ATTN_Q], l->vector[SLUICE_ATTN_Q_BIAS], f->queries, NULL },
                                  { &w[SLUICE_ATTN_K], l->vector[SLUICE_ATTN_K_BIAS], f->keys, NULL },
                                  { &w[SLUICE_ATTN_V], l->vector[SLUICE_ATTN_V_BIAS], f->values, NULL } } };
    input mixed = { f, NULL, f->mixed, NULL, q_dim, reads_blocks(&w[SLUICE_ATTN_OUTPUT]) };
    products output = { .f = f, .x = f->mixed, .xq = f->quantized, .n_tokens = f->n_tokens, .n_targets = 1,
                        .targets = { { &w[SLUICE_ATTN_OUTPUT], l->vector[SLUICE_ATTN_OUTPUT_BIAS], f->normed, f->hidden } } };

    for_each_token(f, prepare_token, &in);
    run_products(&qkv);
    for_each_token(f, rotate_token, f);
    sluice_pool_run(f->pool, attend, f, (f->n_tokens + ATTENTION_TOKENS - 1) / ATTENTION_TOKENS * f->model->n_head_kv);
    for_each_token(f, prepare_token, &mixed);
    run_products(&output);
}

static void run_feed_forward(sluice_forward *f, const sluice_layer *l)
{
    const sluice_matrix *w = l->matrix;
    input in = { f, l->vector[SLUICE_FFN_NORM], f->hidden, f->normed, f->model->n_embd,
                 reads_blocks(&w[SLUICE_FFN_GATE]) || reads_blocks(&w[SLUICE_FFN_UP]) };
    products gate = { .f = f, .x = f->normed, .xq = f->quantized, .n_tokens = f->n_tokens, .n_targets = 2,
                      .targets = { { &w[SLUICE_FFN_GATE], NULL, f->gate, NULL }, { &w[SLUICE_FFN_UP], NULL, f->up, NULL } } };
    input wide = { f, NULL, f->gate, NULL, f->model->n_ff, reads_blocks(&w[SLUICE_FFN_DOWN]) };
    products down = { .f = f, .x = f->gate, .xq = f->quantized, .n_tokens = f->n_tokens, .n_targets = 1,
                      .targets = { { &w[SLUICE_FFN_DOWN], NULL, f->normed, f->hidden } } };

    for_each_token(f, prepare_token, &in);
    gate.rows_per_item = choose_rows_per_item(f, f->model->n_ff);
    sluice_pool_run(f->pool, gate_item, &gate, (f->model->n_ff + gate.rows_per_item - 1) / gate.rows_per_item);
    for_each_token(f, prepare_token, &wide);
    run_products(&down);
}

static void embed_token(void *arg, uint32_t token, uint32_t thread)
{
    sluice_forward *f = arg;
    const sluice_matrix *e = &f->model->embedding;
    const uint32_t half = f->model->n_rot / 2;

    (void)thread;
    sluice_weight_row(e->type, f->hidden + (size_t)token * e->cols, e->data + (size_t)f->tokens[token] * e->row_bytes, e->cols);
    for (uint32_t i = 0; i < half; i++) {
        const double angle = (double)(f->position + token) * f->angles[i];

        f->cosines[(size_t)token * half + i] = (float)cos(angle);
        f->sines[(size_t)token * half + i] = (float)sin(angle);
    }
}

static sluice_status run_chunk(sluice_forward *f, const int32_t *tokens, uint32_t n, sluice_error *err)
{
    f->tokens = tokens;
    f->n_tokens = n;
    f->position = f->kv->n_used;
    if (f->kv->n_written < f->position + n)
        f->kv->n_written = f->position + n;
    for_each_token(f, embed_token, f);
    for (f->layer = 0; f->layer < f->model->n_layer; f->layer++) {
        if (atomic_load_explicit(f->stop, memory_order_relaxed))
            return sluice_error_set(err, SLUICE_ERR_CANCELLED, "engine: stopped");
        run_attention(f, &f->model->layers[f->layer]);
        run_feed_forward(f, &f->model->layers[f->layer]);
    }
    f->kv->n_used += n;
    return SLUICE_OK;
}

/* The last token of the chunk that ran. */
static sluice_status run_output(sluice_forward *f, sluice_error *err)
{
    const sluice_model *m = f->model;
    input in = { f, m->output_norm, f->hidden + (size_t)(f->n_tokens - 1) * m->n_embd, f->normed, m->n_embd, reads_blocks(&m->output) };
    products head = { .f = f, .x = f->normed, .xq = f->quantized, .n_tokens = 1, .n_targets = 1,
                      .targets = { { &m->output, NULL, f->logits, NULL } } };

    prepare_token(&in, 0, 0);
    run_products(&head);
    for (uint32_t i = 0; i < m->n_vocab; i++)
        if (!isfinite(f->logits[i]))
            return sluice_error_set(err, SLUICE_ERR_INTEGRITY, "engine: logit %u at position %u is not a number; the model file is damaged",
                                    i, f->kv->n_used - 1);
    return SLUICE_OK;
}

sluice_status sluice_forward_run(sluice_forward *f, const int32_t *tokens, size_t n, const float **logits, sluice_error *err)
{
    sluice_status st;

    *logits = NULL;
    while (n > 0) {
        const uint32_t n_chunk = n < SLUICE_FORWARD_CHUNK ? (uint32_t)n : (uint32_t)SLUICE_FORWARD_CHUNK;

        st = run_chunk(f, tokens, n_chunk, err);
        if (st != SLUICE_OK)
            return st;
        tokens += n_chunk;
        n -= n_chunk;
    }
    st = run_output(f, err);
    if (st == SLUICE_OK)
        *logits = f->logits;
    return st;
}
