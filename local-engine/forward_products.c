/* forward_products.c - inputs of products, and products shared out among threads.
 *
 * Every number is computed by one thread in an order that the model alone decides, which is why the result depends neither on
 * threads nor on chunks.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/forward_impl.h"

enum {
    ITEMS_PER_THREAD = 8,               /* enough that an interrupted thread does not hold up the others */
    ITEM_BYTES = 64 * 1024,             /* what an item should stream at least where weights are read for a few tokens */
    FEW_TOKENS = 16
};

/* ---- inputs */

bool sluice_forward_any_float(const sluice_matrix *const *matrices, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (matrices[i]->data != NULL && !sluice_weight_is_quantized(matrices[i]->type))
            return true;
    return false;
}

bool sluice_forward_any_quantized(const sluice_matrix *const *matrices, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (matrices[i]->data != NULL && sluice_weight_is_quantized(matrices[i]->type))
            return true;
    return false;
}

void sluice_forward_norm(const sluice_forward *f, float *out, const float *x, const float *w, const float *b)
{
    const sluice_model *m = f->model;

    if (m->has_layer_norm)
        f->kernels->layer_norm(out, x, w, b, m->n_embd, m->norm_eps);
    else
        f->kernels->rms_norm(out, x, w, m->n_embd, m->norm_eps);
}

void sluice_forward_settle(const sluice_forward *f, uint32_t token, float *scratch)
{
    const sluice_pending *p = &f->pending;
    const uint32_t n = f->model->n_embd;
    float *restrict x = f->hidden + (size_t)token * n;

    if (p->post_norm != NULL) {
        sluice_forward_norm(f, scratch, f->post + (size_t)token * n, p->post_norm, NULL);
        for (uint32_t i = 0; i < n; i++)
            x[i] += scratch[i];
    }
    if (p->sum_norm != NULL)
        sluice_forward_norm(f, x, x, p->sum_norm, p->sum_norm_bias);
}

typedef struct preparation {
    sluice_forward *f;
    const float *norm;
    float *x;                   /* or NULL */
    sluice_q8 *xq;              /* or NULL */
} preparation;

static void prepare_item(void *arg, uint32_t item, uint32_t thread)
{
    const preparation *p = arg;
    const sluice_forward *f = p->f;
    const uint32_t n = f->model->n_embd, first = item * SLUICE_TOKENS_PER_ITEM;
    float *tile = sluice_forward_tile(f, thread);

    for (uint32_t t = first; t < first + SLUICE_TOKENS_PER_ITEM && t < f->n_tokens; t++) {
        float *out = p->x != NULL ? p->x + (size_t)t * n : tile;
        const float *x = f->hidden + (size_t)t * n;

        sluice_forward_settle(f, t, tile);
        if (p->norm != NULL) {
            sluice_forward_norm(f, out, x, p->norm, NULL);
            x = out;
        } else if (p->x != NULL)
            memcpy(out, x, n * sizeof(float));
        if (p->xq != NULL)
            f->kernels->quantize(p->xq + (size_t)t * (n / SLUICE_Q_LEN), x, n);
    }
}

sluice_operand sluice_forward_prepare(sluice_forward *f, const float *norm, const sluice_matrix *const *matrices, size_t n_matrices)
{
    preparation p = { f, norm, NULL, NULL };

    if (sluice_forward_any_float(matrices, n_matrices))
        p.x = sluice_forward_floats(f, SLUICE_R_X);
    if (sluice_forward_any_quantized(matrices, n_matrices))
        p.xq = sluice_forward_region(f, SLUICE_R_XQ);
    sluice_pool_run(f->pool, prepare_item, &p, (f->n_tokens + SLUICE_TOKENS_PER_ITEM - 1) / SLUICE_TOKENS_PER_ITEM);
    memset(&f->pending, 0, sizeof f->pending);
    return (sluice_operand){ p.x, p.xq, f->n_tokens, f->model->n_embd };
}

/* 8-bit inputs are shown as the numbers that they stand for, a few rows at a time. */
void sluice_forward_report(const sluice_forward *f, const sluice_matrix *w, int32_t expert, const sluice_operand *in)
{
    float *tile = sluice_forward_tile(f, 0);
    const uint32_t groups = in->cols / SLUICE_Q_LEN;
    char name[SLUICE_GGUF_MAX_NAME_BYTES + 1];

    if (f->observer == NULL || w->data == NULL || in->n == 0)
        return;
    memcpy(name, w->name.ptr, w->name.len); /* at most SLUICE_GGUF_MAX_NAME_BYTES, the reader of the file has checked */
    name[w->name.len] = 0;
    if (in->x != NULL) {
        f->observer(f->observer_user, name, expert, in->x, in->n, in->cols);
        return;
    }
    for (uint32_t t = 0; t < in->n; t++) {
        for (uint32_t g = 0; g < groups; g++) {
            const sluice_q8 *group = &in->xq[(size_t)t * groups + g];

            for (uint32_t i = 0; i < SLUICE_Q_LEN; i++)
                tile[g * SLUICE_Q_LEN + i] = group->scale * (float)group->q[i];
        }
        f->observer(f->observer_user, name, expert, tile, 1, in->cols);
    }
}

/* ---- products */

void sluice_forward_piece(const sluice_forward *f, const sluice_matrix *w, uint32_t expert, const sluice_operand *in, uint32_t first, uint32_t n,
                          uint32_t first_row, uint32_t n_rows, const float *bias, float *y, size_t y_stride, uint32_t thread)
{
    const bool is_quantized = sluice_weight_is_quantized(w->type);
    const size_t groups = in->cols / SLUICE_Q_LEN;
    const sluice_product product = {
        .w = w->data + expert * w->expert_bytes + first_row * w->row_bytes,
        .row_bytes = w->row_bytes,
        .rows = n_rows,
        .cols = in->cols,
        .x = is_quantized ? (const void *)(in->xq + first * groups) : (const void *)(in->x + (size_t)first * in->cols),
        .x_stride = is_quantized ? groups * sizeof(sluice_q8) : in->cols * sizeof(float),
        .n_tokens = n,
        .y = y,
        .y_stride = y_stride,
        .strip = f->base + f->layout.at[SLUICE_R_STRIPS] + thread * SLUICE_STRIP_BYTES,
        .readable_end = f->model->file.ptr + f->model->file.len,
    };

    f->kernels->product[w->type](&product);
    if (bias != NULL)
        for (uint32_t t = 0; t < n; t++)
            for (uint32_t r = 0; r < n_rows; r++)
                y[t * y_stride + r] += bias[first_row + r];
}

uint32_t sluice_forward_rows_per_item(const sluice_forward *f, uint64_t rows, size_t row_bytes, uint32_t n_tokens)
{
    const uint64_t n_threads = f->n_threads, strips = (rows + SLUICE_STRIP_ROWS - 1) / SLUICE_STRIP_ROWS;
    uint64_t n_items = ITEMS_PER_THREAD * n_threads;

    if (n_threads == 1)
        n_items = 1;
    else if (n_tokens < FEW_TOKENS && rows * row_bytes / ITEM_BYTES < n_items)
        n_items = (rows * row_bytes / ITEM_BYTES + n_threads) / n_threads * n_threads; /* at least one each */
    return (uint32_t)((strips + n_items - 1) / n_items * SLUICE_STRIP_ROWS);
}

uint32_t sluice_forward_tile_rows(const sluice_forward *f, size_t share, uint32_t n)
{
    const size_t rows = f->layout.tile_bytes / sizeof(float) / share / n;

    return (uint32_t)(rows / SLUICE_STRIP_ROWS * SLUICE_STRIP_ROWS); /* n <= chunk and share <= 2: at least 32 */
}

enum { MAX_TARGETS = 3 };

typedef struct products {
    const sluice_forward *f;
    const sluice_operand *in;
    const sluice_target *targets;
    uint32_t rows_per_item;
    uint32_t first_item[MAX_TARGETS + 1];   /* of each target; then the number of items */
} products;

/* Rows [first, first + n) by way of the tile, added to what is there. */
static void multiply_and_add(const products *p, const sluice_target *t, uint32_t first, uint32_t n_rows, uint32_t thread)
{
    const uint32_t n = p->in->n - t->first, step = sluice_forward_tile_rows(p->f, 1, n);
    float *tile = sluice_forward_tile(p->f, thread);

    for (uint32_t done = 0; done < n_rows; done += step) {
        const uint32_t width = n_rows - done < step ? n_rows - done : step;

        sluice_forward_piece(p->f, t->w, 0, p->in, t->first, n, first + done, width, t->bias, tile, width, thread);
        for (uint32_t token = 0; token < n; token++) {
            const float *restrict from = tile + (size_t)token * width;
            float *restrict sum = t->y + (size_t)token * t->w->rows + first + done;

            for (uint32_t r = 0; r < width; r++)
                sum[r] += from[r];
        }
    }
}

static void multiply_item(void *arg, uint32_t item, uint32_t thread)
{
    const products *p = arg;
    const sluice_target *t;
    uint32_t which = 0, first, n_rows;

    while (item >= p->first_item[which + 1])
        which++;
    t = &p->targets[which];
    first = (item - p->first_item[which]) * p->rows_per_item;
    n_rows = t->w->rows - first < p->rows_per_item ? t->w->rows - first : p->rows_per_item;
    if (t->is_sum)
        multiply_and_add(p, t, first, n_rows, thread);
    else
        sluice_forward_piece(p->f, t->w, 0, p->in, t->first, p->in->n - t->first, first, n_rows, t->bias, t->y + first, t->w->rows, thread);
}

void sluice_forward_multiply(sluice_forward *f, const sluice_operand *in, const sluice_target *targets, uint32_t n_targets)
{
    products p = { .f = f, .in = in, .targets = targets };
    uint64_t rows = 0, bytes = 0;

    for (uint32_t i = 0; i < n_targets; i++) {
        if (i == 0 || targets[i].w->name.ptr != targets[i - 1].w->name.ptr) /* parts of one tensor read the same */
            sluice_forward_report(f, targets[i].w, -1, in);
        if (targets[i].first < in->n) {
            rows += targets[i].w->rows;
            bytes += (uint64_t)targets[i].w->rows * targets[i].w->row_bytes;
        }
    }
    p.rows_per_item = sluice_forward_rows_per_item(f, rows, rows > 0 ? (size_t)(bytes / rows) : 0, in->n);
    for (uint32_t i = 0; i < n_targets; i++)
        p.first_item[i + 1] = p.first_item[i] +
                              (targets[i].first < in->n ? (targets[i].w->rows + p.rows_per_item - 1) / p.rows_per_item : 0);
    sluice_pool_run(f->pool, multiply_item, &p, p.first_item[n_targets]);
}
