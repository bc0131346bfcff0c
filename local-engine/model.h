/* model.h - what a model is: an architecture's features, its sizes, and where its tensors lie in the mapped file.
 *
 * The forward pass is one graph for all of them; an architecture is a row of a table in model.c that says which tensors it
 * has, how it rotates, normalizes and masks.  A new architecture whose parts are all known is a new row.  The graph itself
 * asks only for what is here: a norm that is NULL is not computed, a window of 0 hides nothing.
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
    SLUICE_MODEL_MAX_EXPERTS = 512,
    SLUICE_MODEL_MAX_EXPERTS_USED = 32,
    SLUICE_MODEL_MAX_CONTEXT = 131072   /* positions this build keeps, whatever the model could */
};

/* A weight matrix: y(rows) = W x(cols).  data is NULL where the model has none. */
typedef struct sluice_matrix {
    const uint8_t *data;
    size_t row_bytes;
    size_t expert_bytes;        /* from one expert's matrix to the next; 0 where there is one matrix */
    uint32_t rows, cols;
    sluice_weight type;
    sluice_span name;           /* of the tensor, in the file; parts of a fused tensor share it */
} sluice_matrix;

/* Tensors of a layer.  Matrices first, then vectors of f32. */
typedef enum sluice_layer_matrix {
    SLUICE_ATTN_Q, SLUICE_ATTN_K, SLUICE_ATTN_V, SLUICE_ATTN_OUTPUT,
    SLUICE_FFN_ROUTER,                                  /* of a mixture of experts, whose three matrices follow */
    SLUICE_FFN_GATE, SLUICE_FFN_UP, SLUICE_FFN_DOWN,
    SLUICE_LAYER_MATRIX_COUNT
} sluice_layer_matrix;

typedef enum sluice_layer_vector {
    SLUICE_ATTN_NORM, SLUICE_FFN_NORM,                  /* of what goes into attention and feed-forward */
    SLUICE_ATTN_POST_NORM, SLUICE_FFN_POST_NORM,        /* of what comes out, before it is added (Gemma) */
    SLUICE_ATTN_SUM_NORM, SLUICE_ATTN_SUM_NORM_BIAS,    /* of the sum (BERT) */
    SLUICE_FFN_SUM_NORM, SLUICE_FFN_SUM_NORM_BIAS,
    SLUICE_ATTN_Q_NORM, SLUICE_ATTN_K_NORM,             /* of each head, before it is rotated */
    SLUICE_ATTN_Q_BIAS, SLUICE_ATTN_K_BIAS, SLUICE_ATTN_V_BIAS, SLUICE_ATTN_OUTPUT_BIAS,
    SLUICE_FFN_UP_BIAS, SLUICE_FFN_DOWN_BIAS,
    SLUICE_LAYER_VECTOR_COUNT
} sluice_layer_vector;

/* How positions turn queries and keys. */
typedef enum sluice_rope {
    SLUICE_ROPE_NONE = 0,
    SLUICE_ROPE_PAIRS,          /* rotates (x[2i], x[2i + 1]) */
    SLUICE_ROPE_HALVES          /* rotates (x[i], x[i + n_rot / 2]) */
} sluice_rope;

/* The angles of a set of layers: position * scale / base^(2i / n_rot) / factors[i], mixed with the unscaled angle where is_yarn. */
typedef struct sluice_rope_angles {
    float base, scale;
    bool is_yarn;               /* Peng et al. 2023, section 3.2 */
} sluice_rope_angles;

enum { SLUICE_ANGLES_GLOBAL = 0, SLUICE_ANGLES_LOCAL = 1, SLUICE_ANGLES_COUNT = 2, SLUICE_ANGLES_NONE = 2 };

typedef struct sluice_layer {
    sluice_matrix matrix[SLUICE_LAYER_MATRIX_COUNT];
    const float *vector[SLUICE_LAYER_VECTOR_COUNT]; /* NULL where the model has none */
    uint32_t window;            /* a position sees itself and the window - 1 before it; 0: all before it */
    uint8_t angles;             /* SLUICE_ANGLES_* */
} sluice_layer;

typedef enum sluice_activation { SLUICE_SILU, SLUICE_GELU } sluice_activation;

typedef enum sluice_pooling { SLUICE_POOLING_MEAN = 1, SLUICE_POOLING_FIRST = 2, SLUICE_POOLING_LAST = 3 } sluice_pooling; /* as GGUF numbers them */

typedef struct sluice_model {
    const char *architecture;   /* static storage */
    bool is_encoder;            /* every position sees every other, and there is no next token */
    bool has_layer_norm;        /* LayerNorm instead of RMSNorm */
    sluice_activation activation;
    sluice_pooling pooling;     /* of embeddings */
    uint32_t n_layer, n_embd, n_head, n_head_kv, head_dim, n_vocab;
    uint32_t n_ff;              /* of an expert, where there are experts */
    uint32_t n_expert;          /* 0: none */
    uint32_t n_expert_used;     /* of them, by each token */
    float expert_scale;         /* of the weights of those, whose sum is 1 before */
    uint32_t n_context;         /* positions the model was trained for */
    float norm_eps;
    float embedding_scale, attention_scale;
    float attention_cap, logit_cap; /* cap * tanh(x / cap); 0: none */
    sluice_rope rope;
    uint32_t n_rot;             /* dimensions of a head that are rotated; even */
    sluice_rope_angles angles[SLUICE_ANGLES_COUNT];
    uint32_t n_angles;          /* sets in use */
    float rope_magnitude;       /* of the rotated vectors; 1 but for long contexts */
    uint32_t rope_context;      /* positions before they were stretched */
    const float *rope_factors;  /* (n_rot / 2), or NULL */
    const float *rope_factors_long; /* instead of them for a context beyond rope_context, or NULL */
    sluice_matrix embedding;    /* (n_vocab, n_embd) */
    sluice_matrix positions;    /* (n_context, n_embd), added; or none */
    sluice_matrix token_types;  /* (n, n_embd), the first is added; or none */
    const float *embedding_norm, *embedding_norm_bias; /* or NULL */
    sluice_matrix output;       /* the same data as embedding where they are tied; none in an encoder */
    const float *output_norm;   /* NULL in an encoder */
    const float *probe, *probe_bias; /* (n_embd) and (1), of a confidence head that is kept among the tensors; or NULL */
    sluice_layer *layers;
    uint64_t n_params;
    sluice_span file;           /* the whole of it, mapped */
    const sluice_allocator *al;
} sluice_model;

/* Describe the model in `g`, which is borrowed and must outlive it.  SLUICE_ERR_UNSUPPORTED for an architecture or a part that this build does
 * not have, SLUICE_ERR_FORMAT or _LIMIT for one that contradicts itself; the message names the key or tensor.  On failure *out is zeroed. */
sluice_status sluice_model_init(sluice_model *out, const sluice_gguf *g, const sluice_allocator *al, sluice_error *err);
void sluice_model_deinit(sluice_model *m); /* safe on a zeroed struct */

/* "llama", "qwen2", …: what sluice_model_init() knows, NULL past the end. */
const char *sluice_model_architecture(size_t i);

#endif
