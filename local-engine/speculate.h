/* speculate.h - guesses at the next tokens, for the model to check several in one run.
 *
 * How many are tried follows how many were right: two more after a guess that was right to the end, one more than were right otherwise; and after
 * guesses that were wrong from the first token on, none for a while, which doubles each time.  A wrong guess costs time, never correctness.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_SPECULATE_H
#define SLUICE_LOCAL_ENGINE_SPECULATE_H

#include "local-engine/engine_impl.h"

typedef struct sluice_drafter {
    sluice_engine *e;
    sluice_engine_draft kind;
    sluice_engine_draft_fn fn;
    void *user;
    uint32_t length;            /* tokens to try next */
    uint32_t n_missed;          /* guesses in a row that were wrong from the start */
    uint32_t n_rest;            /* tokens to decode without a guess */
} sluice_drafter;

/* SLUICE_ERR_STATE for a draft model that the engine does not have, _ARGUMENT for a hook that is NULL. */
sluice_status sluice_drafter_init(sluice_drafter *d, sluice_engine *e, const sluice_engine_request *request, sluice_error *err);
/* What may follow tokens[0 … n), n >= 1: at most `max` ids of the vocabulary to `out`, none of them an end token.  `c` may be NULL: where
 * it leaves one way on, that is the guess. */
uint32_t sluice_drafter_propose(sluice_drafter *d, const int32_t *tokens, size_t n, sluice_constraint *c, int32_t *out, uint32_t max);
void sluice_drafter_learn(sluice_drafter *d, uint32_t n_proposed, uint32_t n_accepted);

#endif
