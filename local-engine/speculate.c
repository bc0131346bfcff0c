/* speculate.c - guesses from the text so far, from a small model, or from the caller.
 *
 * Prompt lookup (Saxena 2023): find the last tokens earlier in prompt and answer, and guess what followed there.  It costs one pass over the
 * tokens and is right where an answer quotes: code, names, documents.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/speculate.h"

enum {
    FIRST_LENGTH = 4,
    MIN_MATCH = 2, MAX_MATCH = 8,   /* tokens that must and may be the same before a guess */
    MAX_REST = 32                   /* tokens without a guess after many wrong ones */
};

sluice_status sluice_drafter_init(sluice_drafter *d, sluice_engine *e, const sluice_engine_request *request, sluice_error *err)
{
    memset(d, 0, sizeof *d);
    d->e = e;
    d->kind = request->draft;
    d->fn = request->draft_fn;
    d->user = request->draft_user;
    d->length = FIRST_LENGTH;
    switch (d->kind) {
    case SLUICE_DRAFT_NONE:
    case SLUICE_DRAFT_LOOKUP:
        return SLUICE_OK;
    case SLUICE_DRAFT_MODEL:
        return e->draft != NULL ? SLUICE_OK : sluice_error_set(err, SLUICE_ERR_STATE, "engine: it was opened without a draft model");
    case SLUICE_DRAFT_HOOK:
        return d->fn != NULL ? SLUICE_OK : sluice_error_set(err, SLUICE_ERR_ARGUMENT, "engine: the hook that drafts is NULL");
    }
    return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "engine: draft %d is unknown", (int)d->kind);
}

/* How many tokens before `end` are those before n, at most MAX_MATCH. */
static size_t match_length(const int32_t *tokens, size_t n, size_t end)
{
    size_t k = 0;

    while (k < MAX_MATCH && k < end && tokens[end - 1 - k] == tokens[n - 1 - k])
        k++;
    return k;
}

/* After the longest match, and of equally long ones the newest.  A guess that reaches the end of the text goes on with itself: the text repeats. */
static uint32_t look_up(const int32_t *tokens, size_t n, int32_t *out, uint32_t max)
{
    size_t best = MIN_MATCH - 1, from = 0;

    for (size_t end = n - 1; end >= MIN_MATCH && best < MAX_MATCH; end--) {
        const size_t k = tokens[end - 1] == tokens[n - 1] ? match_length(tokens, n, end) : 0;

        if (k > best) {
            best = k;
            from = end;
        }
    }
    if (from == 0)
        return 0;
    for (uint32_t i = 0; i < max; i++)
        out[i] = from + i < n ? tokens[from + i] : out[from + i - n];
    return max;
}

static int32_t likeliest(const float *logits, uint32_t n)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n; i++)
        best = logits[i] > logits[best] ? i : best;
    return (int32_t)best;
}

/* Greedy, and only what both vocabularies have.  The draft model keeps its own cache, which goes along with the text. */
static uint32_t ask_model(sluice_engine *draft, const int32_t *tokens, size_t n, int32_t *out, uint32_t max)
{
    const float *logits;
    uint32_t same, made = 0;

    if (n + max > draft->context)
        return 0;
    same = sluice_engine_common_prefix(draft, tokens, n - 1);
    sluice_engine_truncate(draft, same);
    if (sluice_engine_eval(draft, tokens + same, n - same, &logits, NULL) != SLUICE_OK)
        return 0;
    for (;;) {
        out[made++] = likeliest(logits, draft->model.n_vocab);
        if (made == max || sluice_tokenizer_is_end(draft->tokenizer, out[made - 1]) ||
            sluice_engine_eval(draft, out + made - 1, 1, &logits, NULL) != SLUICE_OK)
            return made;
    }
}

/* Up to the first token that cannot be checked: a caller's hook may say anything, and nothing follows an end. */
static uint32_t count_usable(const sluice_engine *e, const int32_t *tokens, size_t n)
{
    uint32_t i = 0;

    while (i < n && tokens[i] >= 0 && (uint32_t)tokens[i] < e->model.n_vocab && !sluice_tokenizer_is_end(e->tokenizer, tokens[i]))
        i++;
    return i;
}

uint32_t sluice_drafter_propose(sluice_drafter *d, const int32_t *tokens, size_t n, sluice_constraint *c, int32_t *out, uint32_t max)
{
    size_t made = 0;

    if (d->kind == SLUICE_DRAFT_NONE || max == 0)
        return 0;
    if (d->n_rest > 0) {
        d->n_rest--;
        return 0;
    }
    max = d->length < max ? d->length : max;
    if (c != NULL)
        made = sluice_constraint_forced(c, out, max);
    if (made == 0 && d->kind == SLUICE_DRAFT_LOOKUP)
        made = look_up(tokens, n, out, max);
    else if (made == 0 && d->kind == SLUICE_DRAFT_MODEL)
        made = ask_model(d->e->draft, tokens, n, out, max);
    else if (made == 0 && d->kind == SLUICE_DRAFT_HOOK)
        made = d->fn(tokens, n, out, max, d->user);
    return count_usable(d->e, out, made < max ? made : max);
}

void sluice_drafter_learn(sluice_drafter *d, uint32_t n_proposed, uint32_t n_accepted)
{
    if (n_proposed == 0)
        return;
    d->length = n_accepted == n_proposed ? d->length + 2 : n_accepted + 1;
    if (d->length > SLUICE_MAX_DRAFT)
        d->length = SLUICE_MAX_DRAFT;
    d->n_missed = n_accepted > 0 ? 0 : d->n_missed + 1;
    if (d->n_missed > 1)
        d->n_rest = d->n_missed > 5 ? (uint32_t)MAX_REST : 1u << d->n_missed;
}
