/* test_threads.c - threads, mutexes and condition variables; also meant for the thread sanitizer.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "sdk/platform/platform.h"
#include "tests/support/cm.h"
#include "tests/support/fake_platform.h"

static const sluice_platform *p;
static sluice_error err;

static sluice_thread *must_start(sluice_thread **slot, void (*run)(void *), void *arg)
{
    if (p->thread_start(p->user, slot, run, arg, "test", &err) != SLUICE_OK)
        fail_msg("%s", err.message);
    return *slot;
}

typedef struct counter {
    sluice_mutex *m;
    sluice_cond *c;
    int n; /* under m */
} counter;

static void counter_open(counter *c)
{
    c->n = 0;
    assert_int_equal(p->mutex_create(p->user, &c->m, &err), SLUICE_OK);
    assert_int_equal(p->cond_create(p->user, &c->c, &err), SLUICE_OK);
}

static void counter_close(counter *c)
{
    p->cond_destroy(p->user, c->c);
    p->mutex_destroy(p->user, c->m);
}

static void count_up(void *arg)
{
    counter *c = arg;

    for (int i = 0; i < 2000; i++) {
        p->mutex_lock(p->user, c->m);
        c->n++;
        p->mutex_unlock(p->user, c->m);
    }
    p->mutex_lock(p->user, c->m);
    p->cond_broadcast(p->user, c->c);
    p->mutex_unlock(p->user, c->m);
}

static void a_mutex_lets_one_in_at_a_time(void **state)
{
    sluice_thread *threads[4];
    counter c;

    (void)state;
    counter_open(&c);
    for (int i = 0; i < 4; i++)
        (void)must_start(&threads[i], count_up, &c);
    p->mutex_lock(p->user, c.m);
    while (c.n < 8000)
        p->cond_wait(p->user, c.c, c.m, UINT64_MAX);
    p->mutex_unlock(p->user, c.m);
    for (int i = 0; i < 4; i++)
        p->thread_join(p->user, threads[i]);
    assert_int_equal(c.n, 8000);
    counter_close(&c);
}

typedef struct self_check {
    sluice_thread *thread;
    bool inside;
    atomic_bool checked;
    atomic_bool may_end;
} self_check;

static void check_self(void *arg)
{
    self_check *s = arg;

    s->inside = p->thread_is_self(p->user, s->thread);
    atomic_store(&s->checked, true);
    while (!atomic_load(&s->may_end))
        ;
}

static void a_thread_knows_itself_from_its_first_step(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        self_check s = { 0 };

        (void)must_start(&s.thread, check_self, &s);
        assert_false(p->thread_is_self(p->user, s.thread));
        while (!atomic_load(&s.checked))
            ;
        assert_false(p->thread_is_self(p->user, s.thread));
        atomic_store(&s.may_end, true);
        p->thread_join(p->user, s.thread);
        assert_true(s.inside);
    }
    assert_false(p->thread_is_self(p->user, NULL));
    p->thread_join(p->user, NULL);
}

static void join_myself(void *arg)
{
    self_check *s = arg;

    p->thread_join(p->user, s->thread);
    atomic_store(&s->checked, true);
}

static void a_thread_that_joins_itself_releases_itself(void **state)
{
    static self_check all[20];

    (void)state;
    for (int i = 0; i < 20; i++)
        (void)must_start(&all[i].thread, join_myself, &all[i]);
    for (int i = 0; i < 20; i++)
        while (!atomic_load(&all[i].checked))
            ;
}

static void waits_end_at_their_deadline(void **state)
{
    counter c;
    uint64_t start = sluice_now_us(p);

    (void)state;
    counter_open(&c);
    p->mutex_lock(p->user, c.m);
    p->cond_wait(p->user, c.c, c.m, 0); /* long past */
    assert_true(sluice_now_us(p) - start < 2000000);
    start = sluice_now_us(p);
    while (sluice_now_us(p) < start + 30000)
        p->cond_wait(p->user, c.c, c.m, start + 30000);
    assert_true(sluice_now_us(p) - start < 5000000);
    p->mutex_unlock(p->user, c.m);
    counter_close(&c);
}

static void on_the_fake_clock_a_wait_ends_when_the_test_says_so(void **state)
{
    fake_platform fp;
    sluice_mutex *m;
    sluice_cond *c;
    uint64_t until;
    int n_wakeups = 0;

    (void)state;
    fake_platform_init(&fp, 1);
    assert_int_equal(fp.platform.mutex_create(&fp, &m, NULL), SLUICE_OK);
    assert_int_equal(fp.platform.cond_create(&fp, &c, NULL), SLUICE_OK);
    until = sluice_now_us(&fp.platform) + 3600u * 1000000u; /* an hour */
    fp.platform.mutex_lock(&fp, m);
    while (sluice_now_us(&fp.platform) < until) {
        fp.platform.cond_wait(&fp, c, m, until);
        fake_platform_advance_us(&fp, 1200u * 1000000u);
        n_wakeups++;
    }
    fp.platform.mutex_unlock(&fp, m);
    assert_int_equal(n_wakeups, 3);
    fp.platform.cond_destroy(&fp, c);
    fp.platform.mutex_destroy(&fp, m);
    fake_platform_deinit(&fp);
}

static void look_at_mask(void *arg)
{
    sigset_t set;

    (void)pthread_sigmask(SIG_BLOCK, NULL, &set);
    *(bool *)arg = sigismember(&set, SIGINT) == 1 && sigismember(&set, SIGPIPE) == 1 && sigismember(&set, SIGSEGV) == 0;
}

static void our_threads_take_no_signals_of_the_app(void **state)
{
    sluice_thread *t;
    sigset_t set;
    bool right = false;

    (void)state;
    (void)must_start(&t, look_at_mask, &right);
    p->thread_join(p->user, t);
    assert_true(right);
    (void)pthread_sigmask(SIG_BLOCK, NULL, &set);
    assert_int_equal(sigismember(&set, SIGINT), 0); /* the caller's own mask is as before */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mutex_lets_one_in_at_a_time),
        cmocka_unit_test(a_thread_knows_itself_from_its_first_step),
        cmocka_unit_test(a_thread_that_joins_itself_releases_itself),
        cmocka_unit_test(waits_end_at_their_deadline),
        cmocka_unit_test(on_the_fake_clock_a_wait_ends_when_the_test_says_so),
        cmocka_unit_test(our_threads_take_no_signals_of_the_app),
    };

    p = sluice_platform_default();
    return cmocka_run_group_tests_name("platform/threads", tests, NULL, NULL);
}
