/* sampler.h - from logits to one token, and how sure the model was.
 *
 * The stages, in this order, each on what the one before left:
 *
 *   penalties     over the window: repetition (Keskar et al. 2019, section 4.1: a positive logit is divided, a negative one multiplied), then
 *                 logit - frequency * count - presence * (count > 0), as OpenAI's API defines them
 *   bias          added to the logit; -INFINITY bans
 *   constraint    tokens that the grammar does not allow are removed; what is left is renormalised
 *   temperature   softmax(logit / temperature); 0 takes the best of what is left, and nothing below applies
 *   top_k         the k likeliest (Fan et al. 2018)
 *   top_p         the fewest of those that hold that share of their probability (Holtzman et al. 2020), at least one
 *   min_p         those at least that share as likely as the likeliest (Nguyen et al. 2024)
 *   draw          by what they then weigh
 *
 * The temperature comes before the cuts, as in Hugging Face's generate() and unlike llama.cpp's default chain.  The cuts are all prefixes of one order, from
 * the likeliest down and equal ones by id, so they are found by histograms of the logits' bits in a constant number of passes; nothing is sorted.
 *
 * Confidence numbers and alternatives are always of the model's own distribution, before any of this.
 * Ties go to the lower id, and draws come from a seeded generator, so equal inputs give equal tokens.  Picking allocates nothing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_SAMPLER_H
#define SLUICE_LOCAL_ENGINE_SAMPLER_H

#include "local-engine/constraint.h"
#include "local-engine/engine.h"
#include "local-engine/kernels/kernels.h"

enum {
    SLUICE_SAMPLER_MAX_WINDOW = 4096,   /* of penalties; UINT32_MAX is allowed too, and never forgets */
    SLUICE_SAMPLER_MAX_BIAS = 1024
};

typedef struct sluice_sampler {
    const sluice_kernels *kernels;
    sluice_engine_sampling sampling;
    uint64_t state;             /* of the generator */
    uint32_t n_vocab;
    bool has_penalties;
    /* borrowed scratch, each (n_vocab) but for the window */
    float *weights, *adjusted;
    uint32_t *ids, *mask;
    uint16_t *counts;           /* occurrences in the window, at most 65535 */
    uint32_t *window;           /* a ring of the last penalty_window tokens; without an end, the distinct tokens so far */
    uint32_t n_window, next;    /* tokens in it; where the next one goes */
    bool overflowed;            /* more distinct tokens than the window holds: look at all counts */
} sluice_sampler;

typedef struct sluice_sample {
    int32_t id;                     /* SLUICE_TOKEN_NONE when nothing is allowed: biases and constraint leave no token */
    float logprob, margin, entropy; /* as in sluice_engine_token */
    uint32_t n_alternatives;        /* min(sampling.n_alternatives, n_vocab) */
    sluice_engine_alternative alternatives[SLUICE_MAX_ALTERNATIVES]; /* the likeliest tokens by the model's own distribution, from the best on */
} sluice_sample;

/* Scratch for n_vocab logits, in bytes; 4-byte aligned. */
size_t sluice_sampler_bytes(uint32_t n_vocab);
/* SLUICE_ERR_ARGUMENT when a setting is out of range: temperature below 0 or not finite, top_p or min_p outside [0, 1], a penalty that is not finite or a
 * negative repetition penalty, a window above SLUICE_SAMPLER_MAX_WINDOW (but UINT32_MAX), a bias that is NaN or +infinite, of a token that does not
 * exist, or more of them than SLUICE_SAMPLER_MAX_BIAS, too many alternatives.  logit_bias must outlive the sampler. */
sluice_status sluice_sampler_init(sluice_sampler *s, const sluice_kernels *kernels, const sluice_engine_sampling *sampling, uint32_t n_vocab,
                                  void *scratch, sluice_error *err);
/* Tokens for the penalties' window: those of the prompt, and each one that was taken.  Ids out of range are ignored. */
void sluice_sampler_feed_prompt(sluice_sampler *s, const int32_t *tokens, size_t n);
void sluice_sampler_accept(sluice_sampler *s, int32_t token);
/* logits: (n_vocab), finite.  `c` may be NULL; it is asked, not advanced. */
void sluice_sampler_pick(sluice_sampler *s, const float *logits, sluice_constraint *c, sluice_sample *out);

#endif
