/* tiny_model.h - small models with random weights, right or wrong in one place, for the engine's tests.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_UNIT_ENGINE_TINY_MODEL_H
#define SLUICE_TESTS_UNIT_ENGINE_TINY_MODEL_H

#include "local-engine/gguf.h"

typedef struct tiny_model {
    const char *arch;               /* "llama" */
    sluice_tensor_type type;        /* of matrices */
    uint32_t n_layer, n_embd, n_head, n_head_kv, head_dim, n_ff, n_vocab, n_context;
    bool has_output;                /* an output.weight of its own */
    bool has_bias, has_qk_norm, has_rope_factors;
    uint64_t seed;

    /* one thing wrong */
    const char *key;                /* "llama.block_count": written as `value` */
    uint32_t value;
    const char *absent;             /* a key or tensor that is left out */
    const char *string_key, *string_value;
    const char *tensor;             /* this tensor has the shape (ne0, ne1) … */
    uint64_t ne0, ne1;
    const char *poisoned;           /* this tensor is all NaN */
    const char *unknown;            /* a tensor of this name is added */
} tiny_model;

/* 2 layers, embedding 64, 4 heads on 2, feed-forward 96, vocabulary 300 ("<unk>", "<s>", "</s>", 256 bytes, some letters), context 128. */
tiny_model tiny_model_default(void);
/* Ends the test where it cannot. */
void tiny_model_write(const tiny_model *m, const char *path);

#endif
