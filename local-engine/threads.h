/* threads.h - the compute pool: one loop over items, shared by the calling thread and a few helpers.
 *
 * Items are taken one by one from a counter, so that unequal or interrupted cores get unequal shares, and the caller takes
 * part: when no helper gets a core, the loop still finishes at the caller's speed.  Which thread runs an item never changes what it
 * computes.  Helpers spin for a moment after a loop, because the next one usually follows within microseconds, then sleep.
 *
 * Between runs the number of threads that take part can be lowered and raised again, for a device that gets hot.  Those left out sleep where no loop wakes them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_THREADS_H
#define SLUICE_LOCAL_ENGINE_THREADS_H

#include "sdk/platform/platform.h"

enum {
    SLUICE_POOL_MAX_THREADS = 16,
    SLUICE_POOL_MAX_ITEMS = 65535
};

typedef struct sluice_pool sluice_pool; /* opaque */

/* thread < n_threads: which scratch to use.  The caller is 0. */
typedef void (*sluice_pool_fn)(void *arg, uint32_t item, uint32_t thread);

/* n_threads in [1, SLUICE_POOL_MAX_THREADS] counts the caller: 1 starts none.  `platform` is borrowed, `al` too (NULL: malloc). */
sluice_status sluice_pool_open(sluice_pool **out, const sluice_platform *platform, const sluice_allocator *al, uint32_t n_threads,
                               sluice_error *err);
void sluice_pool_close(sluice_pool *pool); /* accepts NULL; not during a run */
uint32_t sluice_pool_n_threads(const sluice_pool *pool); /* as opened: thread indices are below it, whatever is active */
/* From the next run on, n threads take part (clamped to [1, n_threads]), the caller among them.  Not during a run. */
void sluice_pool_set_active(sluice_pool *pool, uint32_t n);
uint32_t sluice_pool_n_active(const sluice_pool *pool);
uint64_t sluice_pool_bytes(void); /* what opening allocates, the system's thread stacks aside */

/* fn(arg, i, thread) for every i < n_items, in any order; returns when all are done.  One run at a time, from one thread at a time. */
void sluice_pool_run(sluice_pool *pool, sluice_pool_fn fn, void *arg, uint32_t n_items);

#endif
