/* engine_runs.h - small engines and what they said, for tests of whole requests.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_UNIT_ENGINE_ENGINE_RUNS_H
#define SLUICE_TESTS_UNIT_ENGINE_ENGINE_RUNS_H

#include "local-engine/engine.h"
#include "tests/unit/engine/tiny_model.h"

enum { RUN_MAX = 1024 };

typedef struct run_log {
    int32_t ids[RUN_MAX];
    float logprobs[RUN_MAX], margins[RUN_MAX], entropies[RUN_MAX], probes[RUN_MAX];
    uint32_t n;
    char text[8192];            /* what came out, NUL-terminated */
    size_t text_len;
    bool had_end;
    sluice_engine *stop_engine; /* stopped after stop_after tokens */
    uint32_t stop_after;
    const size_t *n_allocs;     /* a counter … */
    size_t allocs_first, allocs_last; /* … at the first and the last token */
} run_log;

/* For sluice_engine_request.on_token, with a zeroed run_log as user. */
bool run_log_take(const sluice_engine_token *token, void *user);
bool run_log_same(const run_log *a, const run_log *b); /* tokens, to the bit of their numbers, and text */

/* Writes `tiny` to `path` and opens it; ends the test where that fails.  options NULL: one thread, this machine's instructions. */
sluice_engine *run_open(const tiny_model *tiny, const char *path, const sluice_engine_options *options, const sluice_allocator *al);
/* tokens[i] for a seed, in [0, 300), no control tokens */
void run_fill(int32_t *tokens, size_t n, uint32_t seed);

#endif
