/* fake_allocator.c - an allocator that counts, fails on demand and checks what it gets back.
 *
 *   [ head: magic, bytes | the caller's bytes | tail magic ]
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/support/fake_allocator.h"

#include <stdio.h>
#include <stdlib.h>

enum { SWEEP_MAX = 100000 };

static const uint64_t HEAD_LIVE = 0x5175696365416c6cu, HEAD_FREED = 0xdeadb10cdeadb10cu, TAIL = 0x7a11cafe7a11cafeu;

typedef struct head {
    _Alignas(16) uint64_t magic;
    size_t bytes;
} head;

static void lock(fake_allocator *fa)
{
    while (atomic_flag_test_and_set_explicit(&fa->lock, memory_order_acquire))
        ;
}

static void unlock(fake_allocator *fa)
{
    atomic_flag_clear_explicit(&fa->lock, memory_order_release);
}

static void stop(const char *what, size_t bytes)
{
    fprintf(stderr, "fake_allocator: %s (%zu bytes)\n", what, bytes);
    abort();
}

static bool count_and_choose(fake_allocator *fa, size_t bytes)
{
    bool fails;

    lock(fa);
    fails = fa->n_allocs == fa->fail_at || (fa->fail_on && fa->n_allocs > fa->fail_at);
    fa->n_allocs++;
    if (fails) {
        fa->n_failed++;
    } else {
        fa->live_blocks++;
        fa->live_bytes += bytes;
        if (fa->live_bytes > fa->peak_bytes)
            fa->peak_bytes = fa->live_bytes;
    }
    unlock(fa);
    return !fails;
}

static void *fake_alloc(void *user, size_t bytes)
{
    head *h;

    if (bytes == 0)
        stop("asked for nothing", bytes);
    if (!count_and_choose(user, bytes))
        return NULL;
    h = malloc(sizeof *h + bytes + sizeof TAIL);
    if (h == NULL)
        stop("the test machine is out of memory", bytes);
    h->magic = HEAD_LIVE;
    h->bytes = bytes;
    memset(h + 1, 0xa5, bytes); /* nobody may count on zeros */
    memcpy((uint8_t *)(h + 1) + bytes, &TAIL, sizeof TAIL);
    return h + 1;
}

static bool holds(const uint8_t *bytes, size_t len, const char *canary)
{
    size_t n = strlen(canary);

    for (size_t i = 0; n > 0 && i + n <= len; i++)
        if (memcmp(bytes + i, canary, n) == 0)
            return true;
    return false;
}

static void fake_free(void *user, void *ptr, size_t bytes)
{
    fake_allocator *fa = user;
    head *h = ptr == NULL ? NULL : (head *)ptr - 1;

    if (h == NULL)
        stop("free(NULL) reached the allocator", bytes);
    if (h->magic == HEAD_FREED)
        stop("freed twice", bytes);
    if (h->magic != HEAD_LIVE)
        stop("freed what was not allocated here, or its front was overwritten", bytes);
    if (h->bytes != bytes) {
        fprintf(stderr, "fake_allocator: allocated %zu bytes\n", h->bytes);
        stop("freed with another size", bytes);
    }
    if (memcmp((uint8_t *)ptr + bytes, &TAIL, sizeof TAIL) != 0)
        stop("written beyond the end", bytes);
    lock(fa);
    fa->live_blocks--;
    fa->live_bytes -= bytes;
    if (fa->canary != NULL && holds(ptr, bytes, fa->canary))
        fa->n_canaries_freed++;
    unlock(fa);
    h->magic = HEAD_FREED;
    memset(ptr, 0xdd, bytes);
    free(h);
}

void fake_allocator_init(fake_allocator *fa)
{
    memset(fa, 0, sizeof *fa);
    fa->al.alloc = fake_alloc;
    fa->al.free = fake_free;
    fa->al.user = fa;
    fa->fail_at = SIZE_MAX;
    atomic_flag_clear(&fa->lock);
}

bool fake_allocator_is_clean(const fake_allocator *fa)
{
    if (fa->live_blocks == 0 && fa->live_bytes == 0)
        return true;
    fprintf(stderr, "fake_allocator: %zu blocks of %zu bytes are live\n", fa->live_blocks, fa->live_bytes);
    return false;
}

size_t fake_allocator_sweep(sluice_status (*attempt)(const sluice_allocator *al, void *user), void *user)
{
    for (size_t n = 0; n < SWEEP_MAX; n++) {
        fake_allocator fa;
        sluice_status st, want;

        fake_allocator_init(&fa);
        fa.fail_at = n;
        st = attempt(&fa.al, user);
        want = fa.n_failed > 0 ? SLUICE_ERR_NO_MEMORY : SLUICE_OK;
        if (!fake_allocator_is_clean(&fa) || st != want) {
            fprintf(stderr, "fake_allocator: allocation %zu %s: %s\n", n, fa.n_failed > 0 ? "failed" : "was not asked for", sluice_status_name(st));
            return SIZE_MAX;
        }
        if (fa.n_failed == 0)
            return n;
    }
    fprintf(stderr, "fake_allocator: no end after %d allocations\n", SWEEP_MAX);
    return SIZE_MAX;
}
