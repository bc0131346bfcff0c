/* model.h - what a model is: an architecture's features, its sizes, and where its tensors lie in the mapped file.
 *
 * The forward pass (forward.c) is one graph for the whole Llama family; an architecture is a row of a table in model.c that says which
 * tensors it has, how it rotates and how it normalizes.  A new architecture whose parts are all known is a new row.
 *
 * Opening believes nothing: every size comes from metadata, is bounded, and must be confirmed by the shape of every tensor
 * that depends on it, so that no product can read outside the mapping.  A tensor that the graph would not use is refused too,
 * because an unknown part is a part of the answer that would be missing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_MODEL_H
#define SLUICE_LOCAL_ENGINE_MODEL_H

#include "local-engine/gguf.h"
#include "local-engine/kernels/kernels.h"

/* Hard limits on what metadata may say.  The largest models a phone can hold stay far below. */
enum {
    SLUICE_MODEL_MAX_LAYERS = 512,
    SLUICE_MODEL_MAX_EMBD = 32768,
    SLUICE_MODEL_MAX_FF = 262144,
    SLUICE_MODEL_MAX_HEADS = 512,
    SLUICE_MODEL_MAX_HEAD_DIM = 512,
    SLUICE_MODEL_MAX_CONTEXT = 4096     /* positions this build keeps, whatever the model could */
};

typedef enum sluice_rope {
    SLUICE_ROPE_PAIRS = 1,      /* rotates (x[2i], x[2i + 1]) */
    SLUICE_ROPE_HALVES = 2      /* rotates (x[i], x[i + n_rot / 2]) */
} sluice_rope;

/* A weight matrix: y(rows) = W x(cols).  data is NULL where the model has none. */
typedef struct sluice_matrix {
    const uint8_t *data;
    size_t row_bytes;
    uint32_t rows, cols;
    sluice_weight type;
} sluice_matrix;

/* Tensors of a layer.  Matrices first, then vectors of f32. */
typedef enum sluice_layer_matrix {
    SLUICE_ATTN_Q, SLUICE_ATTN_K, SLUICE_ATTN_V, SLUICE_ATTN_OUTPUT, SLUICE_FFN_GATE, SLUICE_FFN_UP, SLUICE_FFN_DOWN,
    SLUICE_LAYER_MATRIX_COUNT
} sluice_layer_matrix;

typedef enum sluice_layer_vector {
    SLUICE_ATTN_NORM, SLUICE_FFN_NORM, SLUICE_ATTN_Q_BIAS, SLUICE_ATTN_K_BIAS, SLUICE_ATTN_V_BIAS, SLUICE_ATTN_OUTPUT_BIAS,
    SLUICE_ATTN_Q_NORM, SLUICE_ATTN_K_NORM,
    SLUICE_LAYER_VECTOR_COUNT
} sluice_layer_vector;

typedef struct sluice_layer {
    sluice_matrix matrix[SLUICE_LAYER_MATRIX_COUNT];
    const float *vector[SLUICE_LAYER_VECTOR_COUNT]; /* NULL where the model has none */
} sluice_layer;

typedef struct sluice_model {
    const char *architecture;   /* static storage */
    sluice_rope rope;
    uint32_t n_layer, n_embd, n_head, n_head_kv, head_dim, n_ff, n_vocab;
    uint32_t n_rot;             /* dimensions of a head that are rotated; even */
    uint32_t n_context;         /* positions the model was trained for */
    float rms_eps, rope_base, rope_scale; /* angle = position * rope_scale / rope_base^(2i / n_rot) / rope_factors[i] */
    const float *rope_factors;  /* (n_rot / 2), or NULL */
    sluice_matrix embedding;    /* (n_vocab, n_embd) */
    sluice_matrix output;       /* the same data as embedding where they are tied */
    const float *output_norm;
    sluice_layer *layers;
    uint64_t n_params;
    const sluice_allocator *al;
} sluice_model;

/* Describe the model in `g`, which is borrowed and must outlive it.  SLUICE_ERR_UNSUPPORTED for an architecture or a part that this build does
 * not have, SLUICE_ERR_FORMAT or _LIMIT for one that contradicts itself; the message names the key or tensor.  On failure *out is zeroed. */
sluice_status sluice_model_init(sluice_model *out, const sluice_gguf *g, const sluice_allocator *al, sluice_error *err);
void sluice_model_deinit(sluice_model *m); /* safe on a zeroed struct */

#endif
