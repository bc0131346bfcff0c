/* forward_feed_forward.c - gate, up and down, of one network or of the experts that a token chose.
 *
 * Gate and up run over the same few rows on the same thread: their product goes through the activation and into 8 bits
 * without leaving the cache.  A mixture sorts the chunk's tokens by expert; an expert that no token chose is not read, so its pages stay
 * on the storage.  What experts give is added in the order of their numbers, whichever thread computes it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/forward_impl.h"

typedef struct feed_forward {
    sluice_forward *f;
    const sluice_layer *l;
    sluice_operand in;                      /* tokens, or slots: tokens by expert */
    float *wide;                            /* (in.n, n_ff), or NULL */
    sluice_q8 *wide_q;                      /* or NULL */
    const sluice_expert_group *groups;
    uint32_t n_groups;
    uint32_t rows_per_item, items_per_group;
} feed_forward;

/* ---- gate and up */

static void activate(const feed_forward *w, float *gate, float *up, size_t n)
{
    const sluice_kernels *k = w->f->kernels;

    if (w->f->model->activation == SLUICE_GELU)
        k->gelu_mul(gate != NULL ? gate : up, gate != NULL ? up : NULL, n);
    else
        k->silu_mul(gate, up, n);
}

static void wide_piece(const feed_forward *w, const sluice_expert_group *g, uint32_t first, uint32_t n_rows, uint32_t thread)
{
    const sluice_matrix *gate = &w->l->matrix[SLUICE_FFN_GATE], *up = &w->l->matrix[SLUICE_FFN_UP];
    const size_t n_ff = up->rows, n = (size_t)g->n * n_rows;
    float *tile = sluice_forward_tile(w->f, thread), *second = gate->data != NULL ? tile + n : tile;

    if (gate->data != NULL)
        sluice_forward_piece(w->f, gate, g->expert, &w->in, g->first, g->n, first, n_rows, NULL, tile, n_rows, thread);
    sluice_forward_piece(w->f, up, g->expert, &w->in, g->first, g->n, first, n_rows, w->l->vector[SLUICE_FFN_UP_BIAS], second, n_rows, thread);
    activate(w, gate->data != NULL ? tile : NULL, second, n);
    for (uint32_t t = 0; t < g->n; t++) {
        const size_t at = (size_t)(g->first + t) * n_ff + first;

        if (w->wide != NULL)
            memcpy(w->wide + at, tile + (size_t)t * n_rows, n_rows * sizeof(float));
        if (w->wide_q != NULL) /* n_ff is a multiple of 32, for a quantized matrix reads it, and so are first and n_rows */
            w->f->kernels->quantize(w->wide_q + at / SLUICE_Q_LEN, tile + (size_t)t * n_rows, n_rows);
    }
}

static void wide_item(void *arg, uint32_t item, uint32_t thread)
{
    const feed_forward *w = arg;
    const sluice_expert_group *g = &w->groups[item / w->items_per_group];
    const uint32_t rows = w->l->matrix[SLUICE_FFN_UP].rows, step = sluice_forward_tile_rows(w->f, 2, g->n);
    const uint32_t first = item % w->items_per_group * w->rows_per_item;
    const uint32_t end = rows - first < w->rows_per_item ? rows : first + w->rows_per_item;

    for (uint32_t r = first; r < end; r += step)
        wide_piece(w, g, r, end - r < step ? end - r : step, thread);
}

static void run_wide(feed_forward *w)
{
    const sluice_matrix *up = &w->l->matrix[SLUICE_FFN_UP], *const down[1] = { &w->l->matrix[SLUICE_FFN_DOWN] };
    const uint32_t n_matrices = w->l->matrix[SLUICE_FFN_GATE].data != NULL ? 2 : 1;

    if (sluice_forward_any_float(down, 1))
        w->wide = sluice_forward_floats(w->f, SLUICE_R_WIDE);
    if (sluice_forward_any_quantized(down, 1))
        w->wide_q = sluice_forward_region(w->f, SLUICE_R_WIDE_Q);
    w->rows_per_item = sluice_forward_rows_per_item(w->f, (uint64_t)w->n_groups * up->rows, n_matrices * up->row_bytes, w->in.n / w->n_groups);
    if (w->rows_per_item > up->rows)
        w->rows_per_item = up->rows;
    w->items_per_group = (up->rows + w->rows_per_item - 1) / w->rows_per_item;
    sluice_pool_run(w->f->pool, wide_item, w, w->n_groups * w->items_per_group);
}

/* ---- experts */

/* The likeliest first; weights are their shares of what the chosen have together (Mixtral, Qwen3). */
static void choose(const sluice_forward *f, float *scores, sluice_choice *out)
{
    const sluice_model *m = f->model;
    float sum = 0;

    (void)f->kernels->softmax(scores, m->n_expert, 1);
    for (uint32_t i = 0; i < m->n_expert_used; i++) {
        uint32_t best = UINT32_MAX;

        for (uint32_t e = 0; e < m->n_expert; e++)
            if (!(scores[e] < 0) && (best == UINT32_MAX || scores[e] > scores[best]))
                best = e;
        out[i].expert = best;
        out[i].weight = scores[best];
        sum += scores[best];
        scores[best] = -1; /* chosen */
    }
    for (uint32_t i = 0; i < m->n_expert_used; i++)
        out[i].weight = out[i].weight / sum * m->expert_scale;
}

static void choose_item(void *arg, uint32_t item, uint32_t thread)
{
    const sluice_forward *f = arg;
    const uint32_t first = item * SLUICE_TOKENS_PER_ITEM;
    sluice_choice *choices = sluice_forward_region(f, SLUICE_R_CHOICES);

    (void)thread;
    for (uint32_t t = first; t < first + SLUICE_TOKENS_PER_ITEM && t < f->n_tokens; t++)
        choose(f, sluice_forward_floats(f, SLUICE_R_ROUTER) + (size_t)t * f->model->n_expert, choices + (size_t)t * f->model->n_expert_used);
}

/* Slots expert by expert, in each the tokens in order; the experts that have any become groups. */
static uint32_t sort_by_expert(const sluice_forward *f)
{
    const uint32_t n_used = f->model->n_expert_used, n_expert = f->model->n_expert;
    sluice_choice *choices = sluice_forward_region(f, SLUICE_R_CHOICES);
    sluice_slot *slots = sluice_forward_region(f, SLUICE_R_SLOTS);
    sluice_expert_group *groups = sluice_forward_region(f, SLUICE_R_EXPERTS);
    uint32_t at = 0, n_groups = 0;

    for (uint32_t e = 0; e < n_expert; e++)
        groups[e] = (sluice_expert_group){ e, 0, 0 };
    for (uint32_t i = 0; i < f->n_tokens * n_used; i++)
        groups[choices[i].expert].n++;
    for (uint32_t e = 0; e < n_expert; e++) {
        groups[e].first = at;
        at += groups[e].n;
        groups[e].n = 0;
    }
    for (uint32_t i = 0; i < f->n_tokens * n_used; i++) {
        sluice_expert_group *g = &groups[choices[i].expert];

        choices[i].slot = g->first + g->n++;
        slots[choices[i].slot] = (sluice_slot){ i / n_used, choices[i].weight };
    }
    for (uint32_t e = 0; e < n_expert; e++)
        if (groups[e].n > 0)
            groups[n_groups++] = groups[e];
    return n_groups;
}

static void gather_item(void *arg, uint32_t item, uint32_t thread)
{
    const feed_forward *w = arg;
    const sluice_forward *f = w->f;
    const sluice_slot *slots = sluice_forward_region(f, SLUICE_R_SLOTS);
    const size_t n = f->model->n_embd, groups = n / SLUICE_Q_LEN;

    (void)thread;
    for (uint32_t i = item * SLUICE_KEY_BLOCK; i < (item + 1) * SLUICE_KEY_BLOCK && i < f->n_tokens * f->model->n_expert_used; i++) {
        if (w->in.x != NULL)
            memcpy(sluice_forward_floats(f, SLUICE_R_GATHERED) + i * n, w->in.x + slots[i].token * n, n * sizeof(float));
        if (w->in.xq != NULL)
            memcpy((sluice_q8 *)sluice_forward_region(f, SLUICE_R_GATHERED_Q) + i * groups, w->in.xq + slots[i].token * groups,
                   groups * sizeof(sluice_q8));
    }
}

/* Rows of all experts' down products, weighted and added in the order of the experts. */
static void down_item(void *arg, uint32_t item, uint32_t thread)
{
    const feed_forward *w = arg;
    const sluice_forward *f = w->f;
    const sluice_matrix *down = &w->l->matrix[SLUICE_FFN_DOWN];
    const sluice_slot *slots = sluice_forward_region(f, SLUICE_R_SLOTS);
    const uint32_t first = item * w->rows_per_item, n_rows = down->rows - first < w->rows_per_item ? down->rows - first : w->rows_per_item;
    float *tile = sluice_forward_tile(f, thread);

    for (uint32_t i = 0; i < w->n_groups; i++) {
        const sluice_expert_group *g = &w->groups[i];
        const uint32_t step = sluice_forward_tile_rows(f, 1, g->n);

        for (uint32_t done = 0; done < n_rows; done += step) {
            const uint32_t width = n_rows - done < step ? n_rows - done : step;

            sluice_forward_piece(f, down, g->expert, &w->in, g->first, g->n, first + done, width, NULL, tile, width, thread);
            for (uint32_t t = 0; t < g->n; t++) {
                const sluice_slot *slot = &slots[g->first + t];
                const float *restrict from = tile + (size_t)t * width;
                float *restrict sum = f->hidden + (size_t)slot->token * down->rows + first + done;

                for (uint32_t r = 0; r < width; r++)
                    sum[r] += slot->weight * from[r];
            }
        }
    }
}

/* `matrices` of each group's expert are about to read its slots. */
static void report_experts(const feed_forward *w, const sluice_matrix *matrix, const sluice_operand *in)
{
    for (uint32_t i = 0; w->f->observer != NULL && i < w->n_groups; i++) {
        const sluice_expert_group *g = &w->groups[i];
        const sluice_operand part = { in->x != NULL ? in->x + (size_t)g->first * in->cols : NULL,
                                      in->xq != NULL ? in->xq + (size_t)g->first * (in->cols / SLUICE_Q_LEN) : NULL, g->n, in->cols };

        sluice_forward_report(w->f, matrix, (int32_t)g->expert, &part);
    }
}

static void run_mixture(feed_forward *w)
{
    sluice_forward *f = w->f;
    const sluice_matrix *m = w->l->matrix, *const readers[2] = { &m[SLUICE_FFN_GATE], &m[SLUICE_FFN_UP] };
    const uint32_t n_slots = f->n_tokens * f->model->n_expert_used;
    const sluice_target scores = { &m[SLUICE_FFN_ROUTER], NULL, sluice_forward_floats(f, SLUICE_R_ROUTER), false, 0 };

    sluice_forward_multiply(f, &w->in, &scores, 1);
    sluice_pool_run(f->pool, choose_item, f, (f->n_tokens + SLUICE_TOKENS_PER_ITEM - 1) / SLUICE_TOKENS_PER_ITEM);
    w->n_groups = sort_by_expert(f);
    w->groups = sluice_forward_region(f, SLUICE_R_EXPERTS);
    if (!sluice_forward_any_float(readers, 2))
        w->in.x = NULL;
    if (!sluice_forward_any_quantized(readers, 2))
        w->in.xq = NULL;
    sluice_pool_run(f->pool, gather_item, w, (n_slots + SLUICE_KEY_BLOCK - 1) / SLUICE_KEY_BLOCK);
    w->in = (sluice_operand){ w->in.x != NULL ? sluice_forward_floats(f, SLUICE_R_GATHERED) : NULL,
                              w->in.xq != NULL ? sluice_forward_region(f, SLUICE_R_GATHERED_Q) : NULL, n_slots, f->model->n_embd };
    report_experts(w, readers[0], &w->in);
    report_experts(w, readers[1], &w->in);
    run_wide(w);
    w->in = (sluice_operand){ w->wide, w->wide_q, n_slots, f->model->n_ff };
    report_experts(w, &m[SLUICE_FFN_DOWN], &w->in);
    w->rows_per_item = sluice_forward_rows_per_item(f, m[SLUICE_FFN_DOWN].rows, m[SLUICE_FFN_DOWN].row_bytes * w->n_groups,
                                                    n_slots / w->n_groups);
    sluice_pool_run(f->pool, down_item, w, (m[SLUICE_FFN_DOWN].rows + w->rows_per_item - 1) / w->rows_per_item);
}

/* ---- one network for all */

static void run_dense(feed_forward *w)
{
    sluice_forward *f = w->f;
    const sluice_matrix *m = w->l->matrix;
    const sluice_expert_group all = { 0, 0, f->n_tokens };
    const bool has_post = w->l->vector[SLUICE_FFN_POST_NORM] != NULL;
    const sluice_target sum = { &m[SLUICE_FFN_DOWN], w->l->vector[SLUICE_FFN_DOWN_BIAS], has_post ? f->post : f->hidden, !has_post, 0 };

    w->groups = &all;
    w->n_groups = 1;
    sluice_forward_report(f, &m[SLUICE_FFN_GATE], -1, &w->in);
    if (m[SLUICE_FFN_UP].name.ptr != m[SLUICE_FFN_GATE].name.ptr)
        sluice_forward_report(f, &m[SLUICE_FFN_UP], -1, &w->in);
    run_wide(w);
    w->in = (sluice_operand){ w->wide, w->wide_q, f->n_tokens, f->model->n_ff };
    sluice_forward_multiply(f, &w->in, &sum, 1);
}

void sluice_forward_feed_forward(sluice_forward *f)
{
    const sluice_layer *l = sluice_forward_layer(f);
    const sluice_matrix *m = l->matrix, *const readers[3] = { &m[SLUICE_FFN_GATE], &m[SLUICE_FFN_UP], &m[SLUICE_FFN_ROUTER] };
    feed_forward w = { .f = f, .l = l, .in = sluice_forward_prepare(f, l->vector[SLUICE_FFN_NORM], readers, 3) };

    if (f->model->n_expert > 0)
        run_mixture(&w);
    else
        run_dense(&w);
    f->pending = (sluice_pending){ l->vector[SLUICE_FFN_POST_NORM], l->vector[SLUICE_FFN_SUM_NORM], l->vector[SLUICE_FFN_SUM_NORM_BIAS] };
}
