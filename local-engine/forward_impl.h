/* forward_impl.h - what the files of the forward pass share: its memory, the chunk that runs, and products over it.
 *
 *     forward.c               opening, chunks, the order of a layer, the head, embeddings
 *     forward_memory.c        one block cut into regions, and how many tokens a chunk has
 *     forward_products.c      inputs of products, and products shared out among threads
 *     forward_attention.c     rotation, the cache, scores, softmax, mixing
 *     forward_feed_forward.c  gate, up and down; experts
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_FORWARD_IMPL_H
#define SLUICE_LOCAL_ENGINE_FORWARD_IMPL_H

#include "local-engine/forward.h"

enum {
    SLUICE_TILE_QUERIES = 32,       /* queries that read keys and values together */
    SLUICE_SPLIT = 256,             /* positions whose scores lie in memory at a time; splits begin at its multiples */
    SLUICE_TILE_ROWS = 64,          /* columns of a thread's tile, for the tokens of a chunk */
    SLUICE_TOKENS_PER_ITEM = 4      /* of loops over tokens */
};

/* ---- memory */

typedef enum sluice_region {
    SLUICE_R_HIDDEN,        /* (chunk, n_embd) f32: the residual stream */
    SLUICE_R_X,             /* (chunk, widest) f32: the input of a product, where a float matrix reads it */
    SLUICE_R_XQ,            /* the same in 8 bits, where a quantized one does */
    SLUICE_R_QUERIES,       /* (chunk, q_dim) f32 */
    SLUICE_R_QUERIES_Q,     /* the same in 8 bits, for an 8-bit cache */
    SLUICE_R_KEYS, SLUICE_R_VALUES, /* (chunk, kv_dim) f32 */
    SLUICE_R_POST,          /* (chunk, n_embd) f32: what is normalized before it is added */
    SLUICE_R_WIDE,          /* (chunk * experts used, n_ff) f32: the input of the down product */
    SLUICE_R_WIDE_Q,        /* the same in 8 bits */
    SLUICE_R_GATHERED,      /* (chunk * experts used, n_embd) f32: tokens by expert */
    SLUICE_R_GATHERED_Q,    /* the same in 8 bits */
    SLUICE_R_ROUTER,        /* (chunk, n_expert) f32 */
    SLUICE_R_CHOICES,       /* (chunk * experts used) sluice_choice: token by token */
    SLUICE_R_SLOTS,         /* (chunk * experts used) sluice_slot: expert by expert */
    SLUICE_R_EXPERTS,       /* (n_expert) sluice_expert_group */
    SLUICE_R_ANGLES,        /* (sets, n_rot / 2) f64: per position */
    SLUICE_R_COSINES, SLUICE_R_SINES, /* (sets, chunk, n_rot / 2) f32 */
    SLUICE_R_STRIPS,        /* (threads) scratch of the kernels */
    SLUICE_R_TILES,         /* (threads) (chunk, SLUICE_TILE_ROWS) f32, or a row of the widest input */
    SLUICE_R_ATTENTION,     /* (threads) scores, queries, and what they gathered */
    SLUICE_R_PARTS,         /* (splits, n_head) what the heads of a single token gathered in each split */
    SLUICE_R_FINAL,         /* (SLUICE_FORWARD_MAX_LOGITS, n_embd) f32: the last hidden states */
    SLUICE_R_FINAL_Q,       /* the same in 8 bits */
    SLUICE_R_POOLED,        /* (n_embd) f64 */
    SLUICE_R_LOGITS,        /* (SLUICE_FORWARD_MAX_LOGITS, n_vocab) f32; the last, because a row that is never used is never touched */
    SLUICE_R_COUNT
} sluice_region;

typedef struct sluice_layout {
    size_t at[SLUICE_R_COUNT], bytes;
    uint32_t chunk;                                 /* tokens */
    size_t tile_bytes, attention_bytes;             /* per thread */
    size_t part_floats;                             /* of a head in a split */
} sluice_layout;

typedef struct sluice_choice { uint32_t expert, slot; float weight; } sluice_choice;
typedef struct sluice_slot { uint32_t token; float weight; } sluice_slot;
typedef struct sluice_expert_group { uint32_t expert, first, n; } sluice_expert_group; /* slots [first, first + n) */

bool sluice_forward_lay_out(sluice_layout *l, const sluice_model *m, const sluice_kv_shape *kv, uint32_t n_threads);

/* ---- state */

/* What has been added to the residual stream, or waits to be, and is not yet normalized; all NULL: nothing. */
typedef struct sluice_pending {
    const float *post_norm;         /* of `post`, which is then added */
    const float *sum_norm, *sum_norm_bias;
} sluice_pending;

struct sluice_forward {
    const sluice_model *model;
    const sluice_kernels *kernels;
    sluice_pool *pool;
    sluice_kv_cache *kv;
    const _Atomic bool *stop;
    const sluice_allocator *al;
    sluice_forward_observer observer;
    void *observer_user;
    sluice_layout layout;
    uint8_t *block, *base;          /* as allocated, and from its first cache line on */
    size_t block_bytes;
    uint32_t n_threads;             /* that take part in the chunk */
    uint32_t n_logit_rows;          /* touched since the last wipe */
    const float *last_hidden;

    /* the chunk that runs */
    const int32_t *tokens;
    uint32_t n_tokens, position;    /* position of the first of them in its text */
    uint32_t origin;                /* of the text in the cache; a multiple of SLUICE_SPLIT */
    uint32_t layer;
    float *hidden, *queries, *keys, *values, *post;
    sluice_q8 *queries_q;
    const float *cosines, *sines;   /* of the first token */
    sluice_pending pending;
    _Atomic bool is_damaged;        /* a logit is not finite */
};

static inline void *sluice_forward_region(const sluice_forward *f, sluice_region which)
{
    return f->base + f->layout.at[which];
}

static inline float *sluice_forward_floats(const sluice_forward *f, sluice_region which)
{
    return (float *)sluice_forward_region(f, which);
}

static inline float *sluice_forward_tile(const sluice_forward *f, uint32_t thread)
{
    return (float *)(void *)(f->base + f->layout.at[SLUICE_R_TILES] + thread * f->layout.tile_bytes);
}

static inline const sluice_layer *sluice_forward_layer(const sluice_forward *f)
{
    return &f->model->layers[f->layer];
}

/* ---- inputs of products: f32, 8 bits, or both */

typedef struct sluice_operand {
    const float *x;                 /* (n, cols), or NULL */
    const sluice_q8 *xq;            /* (n, cols / 32), or NULL */
    uint32_t n, cols;
} sluice_operand;

/* What `matrices` read of an input. */
bool sluice_forward_any_float(const sluice_matrix *const *matrices, size_t n);
bool sluice_forward_any_quantized(const sluice_matrix *const *matrices, size_t n);

/* The residual stream, settled (see sluice_pending) and normalized (norm may be NULL), as an input of `matrices`. */
sluice_operand sluice_forward_prepare(sluice_forward *f, const float *norm, const sluice_matrix *const *matrices, size_t n_matrices);
/* Settle row `token` of the residual stream; scratch: (n_embd). */
void sluice_forward_settle(const sluice_forward *f, uint32_t token, float *scratch);
/* out = norm(x); out may be x. */
void sluice_forward_norm(const sluice_forward *f, float *out, const float *x, const float *w, const float *b);

/* Tell the observer, if there is one, what `w` is about to read. */
void sluice_forward_report(const sluice_forward *f, const sluice_matrix *w, int32_t expert, const sluice_operand *in);

/* ---- products */

typedef struct sluice_target {
    const sluice_matrix *w;
    const float *bias;              /* (rows), or NULL */
    float *y;                       /* (n - first, rows) */
    bool is_sum;                    /* added to y instead of stored */
    uint32_t first;                 /* rows of the input before this one are not wanted */
} sluice_target;

/* All targets over one input, their rows shared out among the threads. */
void sluice_forward_multiply(sluice_forward *f, const sluice_operand *in, const sluice_target *targets, uint32_t n_targets);

/* One piece of a product, on this thread: y[t * y_stride + r] = W(first_row + r) . in(first + t), bias added. */
void sluice_forward_piece(const sluice_forward *f, const sluice_matrix *w, uint32_t expert, const sluice_operand *in, uint32_t first, uint32_t n,
                          uint32_t first_row, uint32_t n_rows, const float *bias, float *y, size_t y_stride, uint32_t thread);

/* How many rows of each tensor an item takes, of `rows` in all. */
uint32_t sluice_forward_rows_per_item(const sluice_forward *f, uint64_t rows, size_t row_bytes, uint32_t n_tokens);
/* How many rows a tile of `width` floats holds for n tokens: a multiple of SLUICE_STRIP_ROWS. */
uint32_t sluice_forward_tile_rows(const sluice_forward *f, size_t share, uint32_t n);

/* ---- the halves of a layer */

/* False when nothing of this chunk is wanted after it: the last layer's keys and values are stored, and that was all. */
bool sluice_forward_attention(sluice_forward *f, uint32_t n_wanted);
void sluice_forward_feed_forward(sluice_forward *f);

#endif
