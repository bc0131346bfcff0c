/* sampler.h - from logits to one token, and how sure the model was.
 *
 * Greedy, or drawn: the temperature is applied first, then top_k keeps the k likeliest, then top_p the fewest of those that hold that share of
 * their probability.  Confidence numbers are always of the model's own distribution, before any of this.
 * Ties go to the lower id, and draws come from a seeded generator, so equal inputs give equal tokens.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_SAMPLER_H
#define SLUICE_LOCAL_ENGINE_SAMPLER_H

#include "local-engine/engine.h"
#include "local-engine/kernels/kernels.h"

typedef struct sluice_sampler {
    const sluice_kernels *kernels;
    sluice_engine_sampling sampling;
    uint64_t state;             /* of the generator */
    uint32_t n_vocab;
    float *probabilities;       /* (n_vocab), borrowed scratch */
    uint32_t *order;            /* (n_vocab), borrowed scratch */
} sluice_sampler;

typedef struct sluice_sample {
    int32_t id;
    float logprob, margin, entropy; /* as in sluice_engine_token */
} sluice_sample;

/* Scratch for n_vocab logits, in bytes; 4-byte aligned. */
size_t sluice_sampler_bytes(uint32_t n_vocab);
/* SLUICE_ERR_ARGUMENT when a setting is out of range: temperature below 0 or not finite, top_p outside [0, 1]. */
sluice_status sluice_sampler_init(sluice_sampler *s, const sluice_kernels *kernels, const sluice_engine_sampling *sampling, uint32_t n_vocab,
                                  void *scratch, sluice_error *err);
/* logits: (n_vocab), finite. */
void sluice_sampler_pick(sluice_sampler *s, const float *logits, sluice_sample *out);

#endif
