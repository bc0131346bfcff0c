/* fake_allocator.h - an allocator that counts, fails on demand and checks what it gets back.
 *
 *   fake_allocator fa;
 *   fake_allocator_init(&fa);
 *   … use &fa.al …
 *   assert_true(fake_allocator_is_clean(&fa));
 *
 * A block that is freed with another size than it was asked for, twice, or that is not ours, and bytes written beyond its end,
 * stop the test with a message at once.  May be used by several threads; read the counters when they are done.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_SUPPORT_FAKE_ALLOCATOR_H
#define SLUICE_TESTS_SUPPORT_FAKE_ALLOCATOR_H

#include <stdatomic.h>

#include "sdk/base/base.h"

typedef struct fake_allocator {
    sluice_allocator al;      /* hand out its address */
    size_t n_allocs;          /* asked for so far, failed ones too */
    size_t fail_at;           /* this one fails, counted from 0; SIZE_MAX: none */
    bool fail_on;             /* and all after it */
    size_t n_failed;
    size_t live_blocks, live_bytes, peak_bytes;
    const char *canary;       /* looked for in every block that is freed; NULL: not */
    size_t n_canaries_freed;  /* blocks that still held it: something was not wiped */
    atomic_flag lock;
} fake_allocator;

void fake_allocator_init(fake_allocator *fa);
bool fake_allocator_is_clean(const fake_allocator *fa); /* nothing live; says on stderr what is */

/* Call attempt() with the 1st, 2nd, 3rd … allocation failing, until it gets by without asking for that many.  Each
 * failing call must return SLUICE_ERR_NO_MEMORY and leave nothing live, the last one SLUICE_OK.
 * attempt() releases what it made; it also checks that outputs are NULL on failure.
 * Returns how many allocations were failed, or SIZE_MAX with a message on stderr. */
size_t fake_allocator_sweep(sluice_status (*attempt)(const sluice_allocator *al, void *user), void *user);

#endif
