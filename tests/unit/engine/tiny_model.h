/* tiny_model.h - small models with random weights, of every architecture, right or wrong in one place.
 *
 * Equal descriptions give equal bytes on every machine, so that another engine's answers for them can be kept (tests/data/logits).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_UNIT_ENGINE_TINY_MODEL_H
#define SLUICE_TESTS_UNIT_ENGINE_TINY_MODEL_H

#include "local-engine/gguf.h"

typedef struct tiny_model {
    const char *arch;               /* "llama" */
    sluice_tensor_type type;        /* of matrices; rows that are no whole blocks of it become F16 */
    uint32_t n_layer, n_embd, n_head, n_head_kv, head_dim, n_ff, n_context;
    uint32_t n_vocab;               /* at most 1024; below 259 the file has no tokenizer */
    bool has_output;                /* an output.weight of its own */
    bool has_bias, has_qk_norm, has_rope_factors;
    bool has_post_norm;             /* Gemma */
    bool has_fused_qkv, has_fused_gate; /* Phi-3 */
    bool has_long_rope;             /* two sets of factors */
    bool is_encoder, has_positions; /* BERT */
    bool is_ungated;
    uint32_t n_expert, n_expert_used;
    uint32_t window, window_pattern;    /* 0: not written */
    uint32_t rope_context;          /* the context before it was stretched; 0: not written */
    const char *rope_scaling;       /* "linear", "yarn", or NULL */
    float rope_factor, rope_magnitude;  /* 0: not written */
    float rope_base;                /* 0: not written */
    uint32_t n_rot;                 /* 0: all of a head */
    float attention_cap, logit_cap; /* 0: not written */
    uint32_t pooling;               /* 0: not written */
    bool has_probe;                 /* a confidence head, in the metadata */
    bool has_probe_tensor;          /* the same numbers, as tensors */
    uint32_t vocabulary_shift;      /* the letters among its tokens begin so much later in the alphabet */
    bool is_read_back;              /* matrices in F32, as their type keeps them */
    uint64_t seed;

    /* one thing wrong */
    const char *key;                /* "llama.block_count": written as `value` */
    uint32_t value;
    const char *absent;             /* a key or tensor that is left out */
    const char *string_key, *string_value;
    const char *tensor;             /* this tensor has the shape (ne0, ne1) … */
    uint64_t ne0, ne1;
    const char *poisoned;           /* this tensor is all NaN */
    uint32_t poisoned_experts;      /* of its experts only those whose bit is set here; 0: all */
    const char *unknown;            /* a tensor of this name is added */
} tiny_model;

/* 2 layers, embedding 64, 4 heads on 2, feed-forward 96, vocabulary 300 ("<unk>", "<s>", "</s>", 256 bytes, some letters), context 128. */
tiny_model tiny_model_default(void);

/* "llama", "gemma3", …: a family as its files are made.  is_wide: rows of whole blocks of 256, for any weight type, and a long context.  False for an
 * unknown name. */
bool tiny_model_family(const char *name, bool is_wide, tiny_model *out);
/* The names, NULL past the end. */
const char *tiny_model_family_name(size_t i);

/* Ends the program where it cannot. */
void tiny_model_write(const tiny_model *m, const char *path);

#endif
