/* mix.h - which tensor of a model gets which type: the common names of quantized files, and what they stand for.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_TOOLS_MIX_H
#define SLUICE_LOCAL_ENGINE_TOOLS_MIX_H

#include "local-engine/gguf.h"

typedef struct sluice_mix_kind sluice_mix_kind; /* a row of the table in mix.c */

const sluice_mix_kind *sluice_mix_find(const char *name); /* "Q4_K_M", in any case; NULL when there is none */
const char *sluice_mix_name(const sluice_mix_kind *kind);
uint32_t sluice_mix_base(const sluice_mix_kind *kind);      /* the type of most tensors */
uint32_t sluice_mix_file_type(const sluice_mix_kind *kind); /* general.file_type */
const char *sluice_mix_names(void);                         /* all of them, for help and messages: "Q2_K, Q3_K_S, …" */

/* What the choice depends on, besides the tensor. */
typedef struct sluice_mix_model {
    sluice_span architecture;
    uint32_t n_layer, n_head, n_head_kv, n_expert;
    bool has_output;     /* a matrix of its own for the logits; else the embeddings serve */
    bool has_importance; /* an importance matrix is used */
} sluice_mix_model;

/* Fills it from the metadata; what is absent counts as one layer, head or group and no expert. */
sluice_status sluice_mix_model_init(sluice_mix_model *m, const sluice_gguf *g, bool has_importance, sluice_error *err);

/* Is the tensor one that quantizing changes?  Vectors, norms, routers and position tables are not. */
bool sluice_mix_applies(const sluice_gguf_tensor *t);

/* The type for a tensor to which it applies.  *is_fallback: its rows are no whole blocks of the type that it should get. */
uint32_t sluice_mix_type(const sluice_mix_kind *kind, const sluice_mix_model *m, const sluice_gguf_tensor *t, bool *is_fallback);

/* What a row of `cols` takes that is no whole blocks of `type`. */
uint32_t sluice_mix_fallback(uint32_t type, uint64_t cols);

#endif
