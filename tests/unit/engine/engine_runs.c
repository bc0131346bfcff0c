/* engine_runs.c - opens, fills, collects.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/unit/engine/engine_runs.h"

#include "tests/support/cm.h"

bool run_log_take(const sluice_engine_token *token, void *user)
{
    run_log *log = user;

    assert_false(log->had_end);
    assert_int_equal(token->index, log->n);
    assert_true(log->n < RUN_MAX);
    assert_true(token->logprob <= 0 && token->margin >= 0 && token->margin <= 1 && token->entropy >= 0);
    log->had_end = token->is_end;
    log->ids[log->n] = token->id;
    log->logprobs[log->n] = token->logprob;
    log->margins[log->n] = token->margin;
    log->entropies[log->n] = token->entropy;
    log->probes[log->n++] = token->probe;
    assert_true(log->text_len + token->text.len < sizeof log->text);
    if (token->text.len > 0)
        memcpy(log->text + log->text_len, token->text.ptr, token->text.len);
    log->text_len += token->text.len;
    log->text[log->text_len] = '\0';
    if (log->n_allocs != NULL && log->n == 1)
        log->allocs_first = *log->n_allocs;
    if (log->n_allocs != NULL)
        log->allocs_last = *log->n_allocs;
    if (log->stop_engine != NULL && log->n == log->stop_after)
        sluice_engine_stop(log->stop_engine);
    return log->stop_engine != NULL || log->stop_after == 0 || log->n < log->stop_after;
}

bool run_log_same(const run_log *a, const run_log *b)
{
    return a->n == b->n && memcmp(a->ids, b->ids, a->n * sizeof a->ids[0]) == 0 &&
           memcmp(a->logprobs, b->logprobs, a->n * sizeof a->logprobs[0]) == 0 && memcmp(a->margins, b->margins, a->n * sizeof a->margins[0]) == 0 &&
           memcmp(a->entropies, b->entropies, a->n * sizeof a->entropies[0]) == 0 && memcmp(a->probes, b->probes, a->n * sizeof a->probes[0]) == 0 &&
           a->text_len == b->text_len && memcmp(a->text, b->text, a->text_len) == 0 && a->had_end == b->had_end;
}

sluice_engine *run_open(const tiny_model *tiny, const char *path, const sluice_engine_options *options, const sluice_allocator *al)
{
    const sluice_engine_options one = { .n_threads = 1, .cpu = UINT32_MAX };
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_engine *e;

    tiny_model_write(tiny, path);
    if (sluice_engine_open(&e, path, options != NULL ? options : &one, sluice_platform_default(), al, &err) != SLUICE_OK)
        fail_msg("%s: %s", err.where, err.message);
    return e;
}

void run_fill(int32_t *tokens, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        tokens[i] = (int32_t)(3 + (seed >> 8) % 297);
    }
}
