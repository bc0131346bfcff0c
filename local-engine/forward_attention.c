/* forward_attention.c - queries, keys and values; rotation; the cache; scores, softmax and mixing.
 *
 * A tile is up to 32 queries that read the same keys: the heads that share a key/value head, for a few neighbouring tokens.  Positions
 * are taken in splits of 256, so that scores stay in the first cache whatever the context is.  Each split gives every query a
 * weighted mean of values, the largest score, and the sum of exponentials beside it; two of them merge into one:
 *
 *     m = max(m1, m2)    s = s1 e^(m1 - m) + s2 e^(m2 - m)    v = (s1 e^(m1 - m) v1 + s2 e^(m2 - m) v2) / s
 *
 * Splits begin at multiples of 256 and merge from first to last, so where a tile, a chunk or a thread ends never changes a bit.  A single
 * token, as in decoding, has few tiles: there the splits are shared out among the threads, and merged afterwards.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <float.h>
#include <math.h>

#include "local-engine/forward_impl.h"

/* ---- rotation, and storing */

static void rotate_pairs(float *restrict x, const float *restrict cosines, const float *restrict sines, uint32_t half)
{
    for (uint32_t i = 0; i < half; i++) {
        const float a = x[2 * i], b = x[2 * i + 1];

        x[2 * i] = a * cosines[i] - b * sines[i];
        x[2 * i + 1] = a * sines[i] + b * cosines[i];
    }
}

static void rotate_halves(float *restrict low, float *restrict high, const float *restrict cosines, const float *restrict sines, uint32_t half)
{
    for (uint32_t i = 0; i < half; i++) {
        const float a = low[i], b = high[i];

        low[i] = a * cosines[i] - b * sines[i];
        high[i] = a * sines[i] + b * cosines[i];
    }
}

/* Normalize and rotate n heads of a token. */
static void turn_heads(const sluice_forward *f, float *heads, uint32_t n, const float *norm, uint32_t token)
{
    const sluice_model *m = f->model;
    const uint32_t half = m->n_rot / 2, set = sluice_forward_layer(f)->angles;
    const size_t at = ((size_t)(set == SLUICE_ANGLES_LOCAL ? 1 : 0) * f->layout.chunk + token) * half;

    for (uint32_t h = 0; h < n; h++) {
        float *head = heads + (size_t)h * m->head_dim;

        if (norm != NULL)
            f->kernels->rms_norm(head, head, norm, m->head_dim, m->norm_eps);
        if (set == SLUICE_ANGLES_NONE)
            continue;
        if (m->rope == SLUICE_ROPE_PAIRS)
            rotate_pairs(head, f->cosines + at, f->sines + at, half);
        else
            rotate_halves(head, head + half, f->cosines + at, f->sines + at, half);
    }
}

typedef struct turning { sluice_forward *f; uint32_t first_query; } turning; /* tokens before it have no queries */

static uint32_t cache_layer(const sluice_forward *f)
{
    return f->model->is_encoder ? 0 : f->layer; /* an encoder never returns to a text, so its layers take turns */
}

static void turn_token(const turning *work, uint32_t token)
{
    sluice_forward *f = work->f;
    const sluice_model *m = f->model;
    const sluice_layer *l = sluice_forward_layer(f);
    const size_t kv_dim = (size_t)m->n_head_kv * m->head_dim, q_dim = (size_t)m->n_head * m->head_dim;
    float *keys = f->keys + token * kv_dim, *values = f->values + token * kv_dim;

    turn_heads(f, keys, m->n_head_kv, l->vector[SLUICE_ATTN_K_NORM], token);
    for (uint32_t h = 0; h < m->n_head_kv; h++)
        sluice_kv_cache_store(f->kv, f->kernels, cache_layer(f), h, f->origin + f->position + token, keys + (size_t)h * m->head_dim,
                              values + (size_t)h * m->head_dim);
    if (token >= work->first_query) {
        const size_t at = (token - work->first_query) * q_dim;

        turn_heads(f, f->queries + at, m->n_head, l->vector[SLUICE_ATTN_Q_NORM], token);
        if (f->kv->shape.type == SLUICE_KV_Q8_0)
            f->kernels->quantize(f->queries_q + at / SLUICE_Q_LEN, f->queries + at, q_dim);
    }
}

/* The tokens whose keys lie in one block of the cache. */
static void turn_item(void *arg, uint32_t item, uint32_t thread)
{
    const turning *work = arg;
    const uint32_t before = work->f->position % SLUICE_KEY_BLOCK, begin = item * SLUICE_KEY_BLOCK, end = begin + SLUICE_KEY_BLOCK - before;

    (void)thread;
    for (uint32_t t = begin < before ? 0 : begin - before; t < end && t < work->f->n_tokens; t++)
        turn_token(work, t);
}

/* ---- tiles */

/* Head h of key/value head `head` is query head `head * group + h`; query i of a tile is token i / n_heads, head i % n_heads. */
typedef struct tile { uint32_t head, first_head, n_heads, first_token, n_tokens; } tile;

typedef struct attention {
    sluice_forward *f;
    float *x;                               /* (n_tokens, q_dim): what is gathered, where a float matrix reads it; or NULL */
    sluice_q8 *xq;                          /* the same in 8 bits, or NULL */
    uint32_t group, heads_per_tile, parts, tokens_per_tile;
    uint32_t n_tiles, tiles_per_item;
    uint32_t first_split, n_splits;         /* of the single token, where threads share its splits; else 0 */
} attention;

typedef struct scratch { float *scores, *queries, *mixed, *sum_mixed, *max, *sum, *all_max, *all_sum; } scratch;

static scratch scratch_of(const sluice_forward *f, uint32_t thread)
{
    float *at = (float *)(void *)(f->base + f->layout.at[SLUICE_R_ATTENTION] + thread * f->layout.attention_bytes);
    const size_t rows = (size_t)SLUICE_TILE_QUERIES * f->model->head_dim;
    scratch s;

    s.scores = at;
    s.queries = s.scores + (size_t)SLUICE_TILE_QUERIES * SLUICE_SPLIT;
    s.mixed = s.queries + rows;
    s.sum_mixed = s.mixed + rows;
    s.max = s.sum_mixed + rows;
    s.sum = s.max + SLUICE_TILE_QUERIES;
    s.all_max = s.sum + SLUICE_TILE_QUERIES;
    s.all_sum = s.all_max + SLUICE_TILE_QUERIES;
    return s;
}

static tile tile_of(const attention *a, uint32_t index)
{
    const uint32_t n_tokens = a->f->n_tokens, per_token_block = a->f->model->n_head_kv * a->parts;
    tile t;

    t.first_token = index / per_token_block * a->tokens_per_tile;
    t.n_tokens = n_tokens - t.first_token < a->tokens_per_tile ? n_tokens - t.first_token : a->tokens_per_tile;
    t.head = index % per_token_block / a->parts;
    t.first_head = index % a->parts * a->heads_per_tile;
    t.n_heads = a->group - t.first_head < a->heads_per_tile ? a->group - t.first_head : a->heads_per_tile;
    return t;
}

/* Positions [first, end) of the text that token `token` of the chunk sees. */
static void visible(const sluice_forward *f, uint32_t token, uint32_t *first, uint32_t *end)
{
    const uint32_t window = sluice_forward_layer(f)->window;

    *end = f->model->is_encoder ? f->n_tokens : f->position + token + 1;
    *first = window > 0 && *end > window ? *end - window : 0;
}

/* The tile's queries side by side, as scores want them. */
static const void *pack_queries(const attention *a, const tile *t, float *out)
{
    const sluice_forward *f = a->f;
    const size_t dim = f->model->head_dim, q_dim = f->model->n_head * dim;
    const size_t first = t->first_token * q_dim + (t->head * a->group + t->first_head) * dim;
    const bool is_q8 = f->kv->shape.type == SLUICE_KV_Q8_0;
    const uint8_t *from = is_q8 ? (const uint8_t *)(f->queries_q + first / SLUICE_Q_LEN) : (const uint8_t *)(f->queries + first);
    const size_t step = is_q8 ? q_dim / SLUICE_Q_LEN * sizeof(sluice_q8) : q_dim * sizeof(float);
    const size_t bytes = t->n_heads * (is_q8 ? dim / SLUICE_Q_LEN * sizeof(sluice_q8) : dim * sizeof(float));

    if (t->n_tokens == 1)
        return from;
    for (uint32_t i = 0; i < t->n_tokens; i++)
        memcpy((uint8_t *)out + i * bytes, from + i * step, bytes);
    return out;
}

static float largest_of(const float *x, uint32_t n)
{
    enum { LANES = 16 };
    float lane[LANES], max = -FLT_MAX;
    uint32_t i = 0;

    for (uint32_t j = 0; j < LANES; j++)
        lane[j] = -FLT_MAX;
    for (; i + LANES <= n; i += LANES)
        for (uint32_t j = 0; j < LANES; j++)
            lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    for (uint32_t j = 0; j < LANES; j++)
        max = lane[j] > max ? lane[j] : max;
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

/* Scores of one query at [first, end) become weights there and 0 beside; row[0] is position `begin`, the row ends at `limit`.  Returns the sum of
 * exponentials, 0 where it sees nothing. */
static float weigh(const sluice_forward *f, float *row, uint32_t begin, uint32_t limit, uint32_t first, uint32_t end, bool is_split, float *max)
{
    const sluice_model *m = f->model;
    float *seen = row + (first - begin), scale = m->attention_scale, sum;

    *max = 0;
    if (first >= end) {
        memset(row, 0, (limit - begin) * sizeof(float));
        return 0;
    }
    if (m->attention_cap > 0) {
        f->kernels->soft_cap(seen, end - first, scale, m->attention_cap);
        scale = 1;
    }
    if (is_split)
        *max = largest_of(seen, end - first);
    sum = f->kernels->softmax(seen, end - first, scale);
    memset(row, 0, (first - begin) * sizeof(float));
    memset(row + (end - begin), 0, (limit - end) * sizeof(float));
    return sum;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t most(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* One split of one tile: s->mixed, s->max and s->sum of its queries. */
static void attend_split(const attention *a, const tile *t, uint32_t split, const void *queries, const scratch *s, float *mixed)
{
    const sluice_forward *f = a->f;
    const sluice_kv_cache *kv = f->kv;
    const sluice_model *m = f->model;
    const bool is_q8 = kv->shape.type == SLUICE_KV_Q8_0;
    uint32_t tile_first, tile_end, ignored, begin, limit;

    visible(f, t->first_token, &tile_first, &ignored);
    visible(f, t->first_token + t->n_tokens - 1, &ignored, &tile_end);
    begin = most(split * SLUICE_SPLIT, tile_first / SLUICE_KEY_BLOCK * SLUICE_KEY_BLOCK);
    limit = least((split + 1) * SLUICE_SPLIT, tile_end);
    {
        const sluice_scores scores = {
            .keys = sluice_kv_cache_keys(kv, cache_layer(f), t->head) + f->origin / SLUICE_KEY_BLOCK * kv->key_block_bytes,
            .first = begin,
            .n = (limit - begin + SLUICE_KEY_BLOCK - 1) / SLUICE_KEY_BLOCK * SLUICE_KEY_BLOCK,
            .dim = m->head_dim,
            .queries = queries,
            .n_queries = (size_t)t->n_tokens * t->n_heads,
            .out = s->scores,
            .out_stride = SLUICE_SPLIT,
        };
        const sluice_mix mix = {
            .v = sluice_kv_cache_values(kv, cache_layer(f), t->head) + (f->origin + begin) * kv->value_row_bytes,
            .v_stride = is_q8 ? kv->value_row_bytes : m->head_dim,
            .weights = s->scores,
            .weights_stride = SLUICE_SPLIT,
            .n_queries = (size_t)t->n_tokens * t->n_heads,
            .n = limit - begin,
            .dim = m->head_dim,
            .out = mixed,
            .out_stride = m->head_dim,
        };

        (is_q8 ? f->kernels->scores_q8 : f->kernels->scores_f16)(&scores);
        for (uint32_t i = 0; i < t->n_tokens * t->n_heads; i++) {
            uint32_t first, end;
            bool is_split;

            visible(f, t->first_token + i / t->n_heads, &first, &end);
            is_split = first / SLUICE_SPLIT != (end - 1) / SLUICE_SPLIT;
            s->sum[i] = weigh(f, s->scores + (size_t)i * SLUICE_SPLIT, begin, limit, most(first, begin), least(end, limit), is_split, &s->max[i]);
        }
        (is_q8 ? f->kernels->mix_q8 : f->kernels->mix_f16)(&mix);
    }
}

/* (all, all_max, all_sum) takes in (part, max, sum). */
static void merge(const sluice_forward *f, float *restrict all, float *all_max, float *all_sum, const float *restrict part, float max, float sum)
{
    const uint32_t dim = f->model->head_dim;
    float pair[2] = { *all_max, max }, beside, old, new, total;

    if (sum == 0) /* exactly: it saw nothing there */
        return;
    if (*all_sum == 0) {
        memcpy(all, part, dim * sizeof(float));
        *all_max = max;
        *all_sum = sum;
        return;
    }
    beside = f->kernels->softmax(pair, 2, f->model->attention_cap > 0 ? 1 : f->model->attention_scale);
    old = pair[0] * *all_sum;
    new = pair[1] * sum;
    total = old + new;
    old /= total;
    new /= total;
    for (uint32_t d = 0; d < dim; d++)
        all[d] = all[d] * old + part[d] * new;
    *all_max = max > *all_max ? max : *all_max;
    *all_sum = total * beside;
}

/* What heads [first, first + n) of a token gathered goes to the next product. */
static void hand_over(const attention *a, uint32_t token, uint32_t first, uint32_t n, const float *mixed)
{
    const sluice_forward *f = a->f;
    const size_t dim = f->model->head_dim, at = ((size_t)token * f->model->n_head + first) * dim;

    if (a->x != NULL)
        memcpy(a->x + at, mixed, n * dim * sizeof(float));
    if (a->xq != NULL && dim % SLUICE_Q_LEN == 0)
        f->kernels->quantize(a->xq + at / SLUICE_Q_LEN, mixed, n * dim);
}

static void attend_tile(const attention *a, const tile *t, const scratch *s)
{
    const sluice_forward *f = a->f;
    const size_t dim = f->model->head_dim;
    const uint32_t n = t->n_tokens * t->n_heads;
    const void *queries = pack_queries(a, t, s->queries);
    uint32_t first, end, ignored;

    visible(f, t->first_token, &first, &ignored);
    visible(f, t->first_token + t->n_tokens - 1, &ignored, &end);
    attend_split(a, t, first / SLUICE_SPLIT, queries, s, s->sum_mixed);
    memcpy(s->all_max, s->max, n * sizeof(float));
    memcpy(s->all_sum, s->sum, n * sizeof(float));
    for (uint32_t split = first / SLUICE_SPLIT + 1; split <= (end - 1) / SLUICE_SPLIT; split++) {
        attend_split(a, t, split, queries, s, s->mixed);
        for (uint32_t i = 0; i < n; i++)
            merge(f, s->sum_mixed + i * dim, &s->all_max[i], &s->all_sum[i], s->mixed + i * dim, s->max[i], s->sum[i]);
    }
    for (uint32_t i = 0; i < t->n_tokens; i++)
        hand_over(a, t->first_token + i, t->head * a->group + t->first_head, t->n_heads, s->sum_mixed + i * t->n_heads * dim);
}

static void attend_item(void *arg, uint32_t item, uint32_t thread)
{
    const attention *a = arg;
    const scratch s = scratch_of(a->f, thread);

    for (uint32_t i = item * a->tiles_per_item; i < (item + 1) * a->tiles_per_item && i < a->n_tiles; i++) {
        const tile t = tile_of(a, i);

        attend_tile(a, &t, &s);
    }
}

/* ---- a single token, its splits shared out */

static float *part_of(const attention *a, uint32_t split, uint32_t head)
{
    return sluice_forward_floats(a->f, SLUICE_R_PARTS) + ((size_t)split * a->f->model->n_head + head) * a->f->layout.part_floats;
}

/* Tile i % n_tiles, split i / n_tiles. */
static void part_item(void *arg, uint32_t item, uint32_t thread)
{
    const attention *a = arg;
    const size_t dim = a->f->model->head_dim;
    const scratch s = scratch_of(a->f, thread);

    for (uint32_t i = item * a->tiles_per_item; i < (item + 1) * a->tiles_per_item && i < a->n_tiles * a->n_splits; i++) {
        const uint32_t split = i / a->n_tiles;
        const tile t = tile_of(a, i % a->n_tiles);

        attend_split(a, &t, a->first_split + split, pack_queries(a, &t, s.queries), &s, s.mixed);
        for (uint32_t h = 0; h < t.n_heads; h++) {
            float *part = part_of(a, split, t.head * a->group + t.first_head + h);

            memcpy(part, s.mixed + h * dim, dim * sizeof(float));
            part[dim] = s.max[h];
            part[dim + 1] = s.sum[h];
        }
    }
}

static void merge_parts(const attention *a)
{
    const size_t dim = a->f->model->head_dim;

    for (uint32_t h = 0; h < a->f->model->n_head; h++) {
        float *all = part_of(a, 0, h);

        for (uint32_t split = 1; split < a->n_splits; split++) {
            const float *part = part_of(a, split, h);

            merge(a->f, all, &all[dim], &all[dim + 1], part, part[dim], part[dim + 1]);
        }
        hand_over(a, 0, h, 1, all);
    }
}

/* ---- the half of a layer */

static uint32_t per_item(uint32_t n)
{
    return n / SLUICE_POOL_MAX_ITEMS + 1;
}

static void attend(attention *a)
{
    sluice_forward *f = a->f;
    uint32_t first, end;

    a->group = f->model->n_head / f->model->n_head_kv;
    a->parts = (a->group + SLUICE_TILE_QUERIES - 1) / SLUICE_TILE_QUERIES;
    a->heads_per_tile = (a->group + a->parts - 1) / a->parts;
    a->parts = (a->group + a->heads_per_tile - 1) / a->heads_per_tile;
    a->tokens_per_tile = SLUICE_TILE_QUERIES / a->heads_per_tile;
    a->n_tiles = (f->n_tokens + a->tokens_per_tile - 1) / a->tokens_per_tile * f->model->n_head_kv * a->parts;
    visible(f, 0, &first, &end);
    a->first_split = first / SLUICE_SPLIT;
    a->n_splits = (end - 1) / SLUICE_SPLIT - a->first_split + 1;
    if (f->n_tokens == 1 && a->n_splits > 1 && f->n_threads > 1) {
        a->tiles_per_item = per_item(a->n_tiles * a->n_splits);
        sluice_pool_run(f->pool, part_item, a, (a->n_tiles * a->n_splits + a->tiles_per_item - 1) / a->tiles_per_item);
        merge_parts(a);
    } else {
        a->tiles_per_item = per_item(a->n_tiles);
        sluice_pool_run(f->pool, attend_item, a, (a->n_tiles + a->tiles_per_item - 1) / a->tiles_per_item);
    }
    if (a->xq != NULL && f->model->head_dim % SLUICE_Q_LEN != 0)
        f->kernels->quantize(a->xq, a->x, (size_t)f->n_tokens * f->model->n_head * f->model->head_dim);
}

/* The first n tokens of the chunk are done with: what follows sees the rest alone. */
static void drop_tokens(sluice_forward *f, uint32_t n)
{
    const size_t half = f->model->n_rot / 2;

    f->hidden += (size_t)n * f->model->n_embd;
    f->position += n;
    f->cosines += n * half;
    f->sines += n * half;
    f->n_tokens -= n;
}

bool sluice_forward_attention(sluice_forward *f, uint32_t n_wanted)
{
    const sluice_layer *l = sluice_forward_layer(f);
    const sluice_matrix *w = l->matrix, *const readers[3] = { &w[SLUICE_ATTN_Q], &w[SLUICE_ATTN_K], &w[SLUICE_ATTN_V] };
    const sluice_matrix *const output[1] = { &w[SLUICE_ATTN_OUTPUT] };
    const bool has_post = l->vector[SLUICE_ATTN_POST_NORM] != NULL;
    const uint32_t q_dim = f->model->n_head * f->model->head_dim, unwanted = f->n_tokens - n_wanted;
    const sluice_target targets[3] = { { &w[SLUICE_ATTN_Q], l->vector[SLUICE_ATTN_Q_BIAS], f->queries, false, unwanted },
                                       { &w[SLUICE_ATTN_K], l->vector[SLUICE_ATTN_K_BIAS], f->keys, false, 0 },
                                       { &w[SLUICE_ATTN_V], l->vector[SLUICE_ATTN_V_BIAS], f->values, false, 0 } };
    const sluice_operand in = sluice_forward_prepare(f, l->vector[SLUICE_ATTN_NORM], readers, 3);
    turning turn = { f, unwanted };
    attention a = { .f = f };

    sluice_forward_multiply(f, &in, targets, 3);
    sluice_pool_run(f->pool, turn_item, &turn, (f->position % SLUICE_KEY_BLOCK + f->n_tokens + SLUICE_KEY_BLOCK - 1) / SLUICE_KEY_BLOCK);
    if (n_wanted == 0)
        return false;
    drop_tokens(f, unwanted);
    if (sluice_forward_any_quantized(output, 1))
        a.xq = sluice_forward_region(f, SLUICE_R_XQ);
    if (a.xq == NULL || f->model->head_dim % SLUICE_Q_LEN != 0)
        a.x = sluice_forward_floats(f, SLUICE_R_X);
    attend(&a);
    {
        const sluice_operand mixed = { sluice_forward_any_float(output, 1) ? a.x : NULL, a.xq, f->n_tokens, q_dim };
        const sluice_target sum = { output[0], l->vector[SLUICE_ATTN_OUTPUT_BIAS], has_post ? f->post : f->hidden, !has_post, 0 };

        sluice_forward_multiply(f, &mixed, &sum, 1);
    }
    f->pending = (sluice_pending){ l->vector[SLUICE_ATTN_POST_NORM], l->vector[SLUICE_ATTN_SUM_NORM], l->vector[SLUICE_ATTN_SUM_NORM_BIAS] };
    return true;
}
