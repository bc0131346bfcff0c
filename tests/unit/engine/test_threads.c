/* test_threads.c - the compute pool runs every item once, whoever sleeps.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdatomic.h>

#include "local-engine/threads.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"
#include "tests/support/fake_platform.h"

enum { MAX_ITEMS = 1000 };

typedef struct tally {
    uint32_t count[MAX_ITEMS];  /* each item is one thread's, so no atomics */
    uint32_t n_threads;
    _Atomic uint32_t n_bad_threads;
} tally;

static void count_item(void *arg, uint32_t item, uint32_t thread)
{
    tally *t = arg;

    t->count[item]++;
    if (thread >= t->n_threads)
        atomic_fetch_add(&t->n_bad_threads, 1);
}

static void every_item_runs_once(void **state)
{
    static tally t;

    (void)state;
    for (uint32_t n_threads = 1; n_threads <= 4; n_threads++) {
        sluice_pool *pool;

        assert_int_equal(sluice_pool_open(&pool, sluice_platform_default(), NULL, n_threads, NULL), SLUICE_OK);
        assert_int_equal(sluice_pool_n_threads(pool), n_threads);
        for (uint32_t round = 0; round < 2000; round++) {
            const uint32_t n = round * 7 % (round % 50 == 0 ? MAX_ITEMS : 9);

            memset(&t, 0, sizeof t);
            t.n_threads = n_threads;
            sluice_pool_run(pool, count_item, &t, n);
            for (uint32_t i = 0; i < MAX_ITEMS; i++)
                if (t.count[i] != (i < n))
                    fail_msg("%u threads: item %u of %u ran %u times", n_threads, i, n, t.count[i]);
            assert_int_equal(t.n_bad_threads, 0);
        }
        sluice_pool_close(pool);
    }
}

static void sum_slowly(void *arg, uint32_t item, uint32_t thread)
{
    volatile uint32_t waste = 0;

    (void)thread;
    for (uint32_t i = 0; i < 200000; i++)
        waste += i;
    (void)waste;
    atomic_fetch_add((_Atomic uint32_t *)arg, item);
}

static void helpers_wake_after_a_pause(void **state)
{
    const sluice_platform *p = sluice_platform_default();
    _Atomic uint32_t sum = 0;
    sluice_pool *pool;

    (void)state;
    assert_int_equal(sluice_pool_open(&pool, p, NULL, 3, NULL), SLUICE_OK);
    for (int round = 0; round < 20; round++) {
        const uint64_t until = sluice_now_us(p) + 2000; /* long enough for helpers to go to sleep */

        while (sluice_now_us(p) < until)
            continue;
        atomic_store(&sum, 0);
        sluice_pool_run(pool, sum_slowly, &sum, 12);
        assert_int_equal(atomic_load(&sum), 66);
    }
    sluice_pool_close(pool);
}

typedef struct presence {
    _Atomic uint32_t n_of[SLUICE_POOL_MAX_THREADS]; /* items by thread */
} presence;

static void note_thread(void *arg, uint32_t item, uint32_t thread)
{
    presence *p = arg;
    volatile uint32_t waste = 0;

    (void)item;
    for (uint32_t i = 0; i < 2000; i++)
        waste += i;
    (void)waste;
    atomic_fetch_add(&p->n_of[thread], 1);
}

static void only_active_threads_take_part(void **state)
{
    static const uint32_t active[] = { 4, 2, 1, 3, 1, 4, 0, 9 };
    static presence seen;
    sluice_pool *pool;

    (void)state;
    assert_int_equal(sluice_pool_open(&pool, sluice_platform_default(), NULL, 4, NULL), SLUICE_OK);
    for (size_t i = 0; i < sizeof active / sizeof active[0]; i++) {
        const uint32_t want = active[i] < 1 ? 1 : active[i] > 4 ? 4 : active[i];
        uint32_t total = 0;

        sluice_pool_set_active(pool, active[i]);
        assert_int_equal(sluice_pool_n_active(pool), want);
        assert_int_equal(sluice_pool_n_threads(pool), 4);
        memset(&seen, 0, sizeof seen);
        for (uint32_t round = 0; round < 300; round++)
            sluice_pool_run(pool, note_thread, &seen, 32);
        for (uint32_t t = 0; t < SLUICE_POOL_MAX_THREADS; t++) {
            if (t >= want && atomic_load(&seen.n_of[t]) > 0)
                fail_msg("thread %u of %u active ones took part", t, want);
            total += atomic_load(&seen.n_of[t]);
        }
        assert_int_equal(total, 300 * 32);
    }
    sluice_pool_close(pool);
}

static void changing_how_many_are_active_loses_no_item_and_no_thread(void **state)
{
    static tally t;
    sluice_pool *pool;

    (void)state;
    t.n_threads = 4;
    assert_int_equal(sluice_pool_open(&pool, sluice_platform_default(), NULL, 4, NULL), SLUICE_OK);
    for (uint32_t round = 0; round < 3000; round++) {
        sluice_pool_set_active(pool, 1 + round * 7 % 4);
        sluice_pool_run(pool, count_item, &t, 10);
    }
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(t.count[i], 3000);
    assert_int_equal(t.n_bad_threads, 0);
    sluice_pool_set_active(pool, 1);
    sluice_pool_close(pool); /* with helpers that are left out */
}

static void one_thread_starts_none(void **state)
{
    fake_platform fp;
    sluice_pool *pool;

    (void)state;
    fake_platform_init(&fp, 1);
    fake_platform_fail_on(&fp, FAKE_THREAD, 0);
    assert_int_equal(sluice_pool_open(&pool, &fp.platform, NULL, 1, NULL), SLUICE_OK);
    sluice_pool_close(pool);
    fake_platform_deinit(&fp);
}

static void a_thread_that_does_not_start_is_an_error(void **state)
{
    fake_allocator fa;
    fake_platform fp;
    sluice_pool *pool;

    (void)state;
    fake_allocator_init(&fa);
    for (size_t n = 0; n < 2; n++) { /* the first or the second helper */
        fake_platform_init(&fp, 1);
        fake_platform_fail(&fp, FAKE_THREAD, n);
        assert_int_not_equal(sluice_pool_open(&pool, &fp.platform, &fa.al, 3, NULL), SLUICE_OK);
        assert_null(pool);
        fake_platform_deinit(&fp);
    }
    assert_true(fake_allocator_is_clean(&fa));
    assert_int_equal(sluice_pool_open(&pool, sluice_platform_default(), NULL, 0, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_pool_open(&pool, sluice_platform_default(), NULL, SLUICE_POOL_MAX_THREADS + 1, NULL), SLUICE_ERR_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_runs_once),
        cmocka_unit_test(helpers_wake_after_a_pause),
        cmocka_unit_test(only_active_threads_take_part),
        cmocka_unit_test(changing_how_many_are_active_loses_no_item_and_no_thread),
        cmocka_unit_test(one_thread_starts_none),
        cmocka_unit_test(a_thread_that_does_not_start_is_an_error),
    };

    return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
