/* threads.c - the compute pool.
 *
 * One 64-bit ticket holds everything a helper needs to take an item:
 *
 *      63            32 31        16 15         0
 *     +----------------+------------+------------+
 *     |   generation   |  n_items   |    next    |        compare-and-swap  next -> next + 1
 *     +----------------+------------+------------+
 *
 * A helper that slept through a loop, or through a thousand, fails its compare-and-swap because the generation moved on, so a
 * run waits only for items that somebody took, never for a thread to wake up.  `fn` and `arg` are read after an item was taken and
 * stay until all items are done, and `done` is what the caller waits for.
 *
 * Sleeping follows the usual two-sided check: a sleeper announces itself and looks once more, a caller publishes and then looks for
 * sleepers, all sequentially consistent, so one of the two sees the other.
 *
 * Helpers that are not active wait on a condition of their own and are not counted as sleepers, so they cost a loop nothing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/threads.h"

#include <stdatomic.h>

enum { SPIN_ROUNDS = 4000 }; /* some 40 to 100 us: longer than the gaps between the loops of a token, shorter than a scheduler's slice */

typedef struct helper {
    struct sluice_pool *pool;
    sluice_thread *thread;
    uint32_t index;
} helper;

struct sluice_pool {
    const sluice_platform *platform;
    const sluice_allocator *al;
    sluice_mutex *mutex;
    sluice_cond *wake;          /* helpers wait for a ticket, the caller for the last item */
    sluice_cond *activated;     /* helpers that are left out wait to be taken in */
    uint32_t n_threads, n_started;
    _Atomic uint32_t n_active;  /* helpers below it take part; written under the mutex */
    sluice_pool_fn fn;
    void *arg;
    _Atomic uint64_t ticket;
    _Atomic uint32_t done;
    _Atomic uint32_t n_sleeping; /* helpers and the caller */
    _Atomic bool closing;
    helper helpers[SLUICE_POOL_MAX_THREADS];
};

/* Tells the core that this is a waiting loop: it saves power and leaves execution slots to its sibling. */
static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static bool ticket_has_items(uint64_t ticket)
{
    return (ticket & 0xffffu) < (ticket >> 16 & 0xffffu);
}

static void announce(sluice_pool *pool)
{
    if (atomic_load(&pool->n_sleeping) == 0)
        return;
    pool->platform->mutex_lock(pool->platform->user, pool->mutex);
    pool->platform->cond_broadcast(pool->platform->user, pool->wake);
    pool->platform->mutex_unlock(pool->platform->user, pool->mutex);
}

static void run_items(sluice_pool *pool, uint32_t thread)
{
    uint64_t ticket = atomic_load(&pool->ticket);

    /* A helper that is left out takes nothing: after the ticket it looks at n_active, and a ticket that is still there then is of before. */
    while (ticket_has_items(ticket) && thread < atomic_load(&pool->n_active)) {
        const uint32_t n_items = (uint32_t)(ticket >> 16 & 0xffffu);

        if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket + 1))
            continue;
        pool->fn(pool->arg, (uint32_t)(ticket & 0xffffu), thread);
        if (atomic_fetch_add(&pool->done, 1) + 1 == n_items && thread != 0)
            announce(pool); /* the caller may be waiting for this last item */
        ticket = atomic_load(&pool->ticket);
    }
}

static bool has_work(sluice_pool *pool, uint32_t thread)
{
    return ticket_has_items(atomic_load(&pool->ticket)) || thread >= atomic_load(&pool->n_active) || atomic_load(&pool->closing);
}

static bool all_done(sluice_pool *pool, uint32_t thread)
{
    (void)thread;
    return atomic_load(&pool->done) == (uint32_t)(atomic_load(&pool->ticket) >> 16 & 0xffffu);
}

static void wait_until(sluice_pool *pool, bool (*ready)(sluice_pool *, uint32_t), uint32_t thread)
{
    const sluice_platform *p = pool->platform;

    for (uint32_t i = 0; i < SPIN_ROUNDS; i++) {
        if (ready(pool, thread))
            return;
        relax();
    }
    p->mutex_lock(p->user, pool->mutex);
    atomic_fetch_add(&pool->n_sleeping, 1);
    while (!ready(pool, thread))
        p->cond_wait(p->user, pool->wake, pool->mutex, UINT64_MAX);
    atomic_fetch_sub(&pool->n_sleeping, 1);
    p->mutex_unlock(p->user, pool->mutex);
}

static void wait_until_active(sluice_pool *pool, uint32_t thread)
{
    const sluice_platform *p = pool->platform;

    p->mutex_lock(p->user, pool->mutex);
    while (thread >= atomic_load(&pool->n_active) && !atomic_load(&pool->closing))
        p->cond_wait(p->user, pool->activated, pool->mutex, UINT64_MAX);
    p->mutex_unlock(p->user, pool->mutex);
}

static void help(void *arg)
{
    helper *h = arg;

    for (;;) {
        wait_until(h->pool, has_work, h->index);
        if (atomic_load(&h->pool->closing))
            return;
        if (h->index >= atomic_load(&h->pool->n_active))
            wait_until_active(h->pool, h->index);
        else
            run_items(h->pool, h->index);
    }
}

void sluice_pool_run(sluice_pool *pool, sluice_pool_fn fn, void *arg, uint32_t n_items)
{
    uint64_t generation;

    if (atomic_load(&pool->n_active) <= 1 || n_items <= 1) {
        for (uint32_t i = 0; i < n_items; i++)
            fn(arg, i, 0);
        return;
    }
    pool->fn = fn;
    pool->arg = arg;
    atomic_store(&pool->done, 0);
    generation = (atomic_load(&pool->ticket) >> 32) + 1;
    atomic_store(&pool->ticket, generation << 32 | (uint64_t)n_items << 16);
    announce(pool);
    run_items(pool, 0);
    wait_until(pool, all_done, 0);
}

sluice_status sluice_pool_open(sluice_pool **out, const sluice_platform *platform, const sluice_allocator *al, uint32_t n_threads,
                               sluice_error *err)
{
    sluice_status st = SLUICE_OK;
    sluice_pool *pool;

    *out = NULL;
    if (n_threads < 1 || n_threads > SLUICE_POOL_MAX_THREADS)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "engine: %u threads, of at most %d", n_threads, SLUICE_POOL_MAX_THREADS);
    pool = sluice_alloc_zeroed(al, sizeof *pool);
    if (pool == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "engine: %zu bytes for the compute pool", sizeof *pool);
    pool->platform = platform;
    pool->al = al;
    pool->n_threads = n_threads;
    atomic_init(&pool->n_active, n_threads);
    if (n_threads > 1) {
        st = platform->mutex_create(platform->user, &pool->mutex, err);
        if (st == SLUICE_OK)
            st = platform->cond_create(platform->user, &pool->wake, err);
        if (st == SLUICE_OK)
            st = platform->cond_create(platform->user, &pool->activated, err);
    }
    for (uint32_t i = 1; st == SLUICE_OK && i < n_threads; i++) {
        helper *h = &pool->helpers[i];

        h->pool = pool;
        h->index = i;
        st = platform->thread_start(platform->user, &h->thread, help, h, "sluice-compute", err);
        if (st == SLUICE_OK)
            pool->n_started++;
    }
    if (st != SLUICE_OK) {
        sluice_pool_close(pool);
        return st;
    }
    *out = pool;
    return SLUICE_OK;
}

void sluice_pool_close(sluice_pool *pool)
{
    const sluice_platform *p;

    if (pool == NULL)
        return;
    p = pool->platform;
    if (pool->n_started > 0) {
        p->mutex_lock(p->user, pool->mutex);
        atomic_store(&pool->closing, true);
        p->cond_broadcast(p->user, pool->activated);
        p->mutex_unlock(p->user, pool->mutex);
        announce(pool);
        for (uint32_t i = 1; i <= pool->n_started; i++)
            p->thread_join(p->user, pool->helpers[i].thread);
    }
    p->cond_destroy(p->user, pool->activated);
    p->cond_destroy(p->user, pool->wake);
    p->mutex_destroy(p->user, pool->mutex);
    sluice_free(pool->al, pool, sizeof *pool);
}

uint32_t sluice_pool_n_threads(const sluice_pool *pool)
{
    return pool->n_threads;
}

void sluice_pool_set_active(sluice_pool *pool, uint32_t n)
{
    const sluice_platform *p = pool->platform;

    n = n < 1 ? 1 : n > pool->n_threads ? pool->n_threads : n;
    if (n == atomic_load(&pool->n_active))
        return;
    p->mutex_lock(p->user, pool->mutex);
    atomic_store(&pool->n_active, n);
    p->cond_broadcast(p->user, pool->activated);
    p->cond_broadcast(p->user, pool->wake); /* those that sleep there and are left out now go to sleep here */
    p->mutex_unlock(p->user, pool->mutex);
}

uint32_t sluice_pool_n_active(const sluice_pool *pool)
{
    return atomic_load(&pool->n_active);
}

uint64_t sluice_pool_bytes(void)
{
    return sizeof(sluice_pool);
}
