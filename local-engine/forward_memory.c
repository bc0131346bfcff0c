/* forward_memory.c - the working memory of the forward pass: one block, cut into regions.
 *
 * A chunk is as long as it can be without the block outweighing the model: what a weight costs to read and unpack is shared by the
 * chunk's tokens, and beyond some hundred of them little is gained.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/forward_impl.h"

enum {
    LINE = 64,                  /* regions begin on cache lines, so that threads do not share one by accident */
    MIN_CHUNK = 64,
    CHUNK_STEP = 32,
    MODEL_SHARE = 40            /* the block is at most this part of the model's file, where that leaves MIN_CHUNK */
};

/* Which inputs some matrix of the model reads as f32, and which in 8 bits. */
typedef struct needs {
    bool narrow_f32, narrow_q8; /* inputs of n_embd or q_dim */
    bool wide_f32, wide_q8;     /* of n_ff */
    bool expert_f32, expert_q8;
} needs;

static bool is_float(const sluice_matrix *w)
{
    return w->data != NULL && !sluice_weight_is_quantized(w->type);
}

static bool is_quantized(const sluice_matrix *w)
{
    return w->data != NULL && sluice_weight_is_quantized(w->type);
}

static needs find_needs(const sluice_model *m)
{
    needs n = { 0 };

    for (uint32_t i = 0; i < m->n_layer; i++) {
        const sluice_matrix *w = m->layers[i].matrix;

        for (int j = SLUICE_ATTN_Q; j < SLUICE_FFN_DOWN; j++) {
            n.narrow_f32 = n.narrow_f32 || is_float(&w[j]);
            n.narrow_q8 = n.narrow_q8 || is_quantized(&w[j]);
        }
        n.wide_f32 = n.wide_f32 || is_float(&w[SLUICE_FFN_DOWN]);
        n.wide_q8 = n.wide_q8 || is_quantized(&w[SLUICE_FFN_DOWN]);
        if (m->n_expert > 0) {
            n.expert_f32 = n.expert_f32 || is_float(&w[SLUICE_FFN_GATE]) || is_float(&w[SLUICE_FFN_UP]);
            n.expert_q8 = n.expert_q8 || is_quantized(&w[SLUICE_FFN_GATE]) || is_quantized(&w[SLUICE_FFN_UP]);
        }
    }
    if (m->head_dim % SLUICE_Q_LEN != 0)
        n.narrow_f32 = true; /* a head is no whole group, so what attention gathers becomes 8 bits in a second step */
    return n;
}

/* rows * cols elements of `each` bytes; hostile sizes may exceed what a 32-bit size_t holds. */
static bool place(sluice_layout *l, sluice_region which, size_t rows, size_t cols, size_t each)
{
    size_t bytes;

    l->at[which] = l->bytes;
    return sluice_mul_size(rows, cols, &bytes) && sluice_mul_size(bytes, each, &bytes) &&
           sluice_add_size(bytes, (LINE - bytes % LINE) % LINE, &bytes) && sluice_add_size(l->bytes, bytes, &l->bytes);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t round_up(size_t n, size_t step)
{
    return (n + step - 1) / step * step;
}

static bool place_mixture(sluice_layout *l, const sluice_model *m, const needs *n)
{
    const size_t slots = (size_t)l->chunk * m->n_expert_used;

    return place(l, SLUICE_R_GATHERED, n->expert_f32 ? slots : 0, m->n_embd, sizeof(float)) &&
           place(l, SLUICE_R_GATHERED_Q, n->expert_q8 ? slots : 0, m->n_embd / SLUICE_Q_LEN, sizeof(sluice_q8)) &&
           place(l, SLUICE_R_ROUTER, l->chunk, m->n_expert, sizeof(float)) && place(l, SLUICE_R_CHOICES, slots, 1, sizeof(sluice_choice)) &&
           place(l, SLUICE_R_SLOTS, slots, 1, sizeof(sluice_slot)) && place(l, SLUICE_R_EXPERTS, m->n_expert, 1, sizeof(sluice_expert_group));
}

static bool place_threads(sluice_layout *l, const sluice_model *m, const sluice_kv_shape *kv, uint32_t n_threads)
{
    const size_t dim = m->head_dim, splits = (size_t)kv->context / SLUICE_SPLIT + 1;
    const size_t widest = larger(larger(m->n_embd, m->n_head * dim), m->n_ff);

    /* chunk and sizes are each below 2^18, the tile below 2^26 */
    l->tile_bytes = round_up(larger((size_t)l->chunk * SLUICE_TILE_ROWS, widest) * sizeof(float), LINE);
    /* scores; queries; gathered in this split; in all of them; largest score and sum of each */
    l->attention_bytes = round_up(SLUICE_TILE_QUERIES * ((size_t)SLUICE_SPLIT + 3 * dim + 4) * sizeof(float), LINE);
    l->part_floats = round_up(dim + 2, LINE / sizeof(float));
    return place(l, SLUICE_R_STRIPS, n_threads, 1, SLUICE_STRIP_BYTES) && place(l, SLUICE_R_TILES, n_threads, 1, l->tile_bytes) &&
           place(l, SLUICE_R_ATTENTION, n_threads, 1, l->attention_bytes) &&
           place(l, SLUICE_R_PARTS, splits * m->n_head, l->part_floats, sizeof(float));
}

static bool place_rotations(sluice_layout *l, const sluice_model *m)
{
    const size_t half = m->n_rot / 2, rows = (size_t)m->n_angles * l->chunk;

    return place(l, SLUICE_R_ANGLES, m->n_angles, half, sizeof(double)) && place(l, SLUICE_R_COSINES, rows, half, sizeof(float)) &&
           place(l, SLUICE_R_SINES, rows, half, sizeof(float));
}

static bool lay_out(sluice_layout *l, const sluice_model *m, const sluice_kv_shape *kv, uint32_t n_threads, uint32_t chunk)
{
    const size_t q_dim = (size_t)m->n_head * m->head_dim, kv_dim = (size_t)m->n_head_kv * m->head_dim, n = chunk;
    const size_t narrow = larger(m->n_embd, q_dim), slots = n * (m->n_expert > 0 ? m->n_expert_used : 1);
    const size_t n_final = m->is_encoder ? 0 : SLUICE_FORWARD_MAX_LOGITS;
    const needs needed = find_needs(m);

    memset(l, 0, sizeof *l);
    l->chunk = chunk;
    return place(l, SLUICE_R_HIDDEN, n, m->n_embd, sizeof(float)) && place(l, SLUICE_R_X, needed.narrow_f32 ? n : 0, narrow, sizeof(float)) &&
           place(l, SLUICE_R_XQ, needed.narrow_q8 ? n : 0, narrow / SLUICE_Q_LEN, sizeof(sluice_q8)) &&
           place(l, SLUICE_R_QUERIES, n, q_dim, sizeof(float)) &&
           place(l, SLUICE_R_QUERIES_Q, kv->type == SLUICE_KV_Q8_0 ? n : 0, q_dim / SLUICE_Q_LEN, sizeof(sluice_q8)) &&
           place(l, SLUICE_R_KEYS, n, kv_dim, sizeof(float)) && place(l, SLUICE_R_VALUES, n, kv_dim, sizeof(float)) &&
           place(l, SLUICE_R_POST, m->layers[0].vector[SLUICE_ATTN_POST_NORM] != NULL ? n : 0, m->n_embd, sizeof(float)) &&
           place(l, SLUICE_R_WIDE, needed.wide_f32 ? slots : 0, m->n_ff, sizeof(float)) &&
           place(l, SLUICE_R_WIDE_Q, needed.wide_q8 ? slots : 0, m->n_ff / SLUICE_Q_LEN, sizeof(sluice_q8)) &&
           place_mixture(l, m, &needed) && place_rotations(l, m) && place_threads(l, m, kv, n_threads) &&
           place(l, SLUICE_R_FINAL, n_final, m->n_embd, sizeof(float)) &&
           place(l, SLUICE_R_FINAL_Q, n_final, m->n_embd / SLUICE_Q_LEN, sizeof(sluice_q8)) &&
           place(l, SLUICE_R_POOLED, 1, m->n_embd, sizeof(double)) && place(l, SLUICE_R_LOGITS, n_final, m->n_vocab, sizeof(float));
}

bool sluice_forward_lay_out(sluice_layout *l, const sluice_model *m, const sluice_kv_shape *kv, uint32_t n_threads)
{
    const size_t limit = m->file.len / MODEL_SHARE;
    uint32_t chunk = SLUICE_FORWARD_MAX_CHUNK;

    if (m->is_encoder) /* sees the whole text at once */
        return lay_out(l, m, kv, n_threads, m->n_context < kv->context ? m->n_context : kv->context);
    while (chunk > MIN_CHUNK && chunk - CHUNK_STEP >= kv->context)
        chunk -= CHUNK_STEP;
    for (;; chunk -= CHUNK_STEP) {
        /* a row of logits more than one is there for drafts alone, and untouched without */
        const size_t unused = (SLUICE_FORWARD_MAX_LOGITS - 1) * (size_t)m->n_vocab * sizeof(float);

        if (!lay_out(l, m, kv, n_threads, chunk))
            return false;
        if (chunk <= MIN_CHUNK || l->bytes - unused <= limit)
            return true;
    }
}
