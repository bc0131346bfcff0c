/* test_closing.c - an instance with a model, closed at awkward moments: from several callbacks, while it is polled
 *
 *   test_closing <model.gguf>
 *
 * What goes wrong here goes wrong in memory, so the runs under the address and thread sanitizers are the ones that count.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _POSIX_C_SOURCE 200809L
#include "tests/support/cm.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "sluice/sluice.h"

enum { N_REQUESTS = 64, POLL_MS = 20000 };

static const char *model_path;
static const char policy[] = "{\"sluice_policy\": 1, \"id\": \"closing\", \"version\": 1, \"mode\": \"local_only\"}";

typedef struct app {
    sluice *s;
    atomic_uint n_done, n_closes;
    atomic_bool is_polling;
} app;

static void open_app(app *a, bool is_polled)
{
    sluice_options o;
    sluice_error err = SLUICE_ERROR_INIT;

    sluice_options_init(&o, sizeof o);
    o.policy_json = (sluice_span){ (const uint8_t *)policy, sizeof policy - 1 };
    o.model_path = model_path;
    o.n_threads = 1;
    o.poll_events = is_polled;
    atomic_init(&a->n_done, 0);
    atomic_init(&a->n_closes, 0);
    atomic_init(&a->is_polling, false);
    if (sluice_open(&a->s, &o, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
}

static void submit(app *a, sluice_event_fn on_event)
{
    static const char text[] = "what is the weather going to be like in the city by the sea tomorrow";
    const sluice_message m = { "user", { (const uint8_t *)text, sizeof text - 1 } };
    sluice_request r;

    sluice_request_init(&r, sizeof r);
    r.messages = &m;
    r.n_messages = 1;
    assert_int_equal(sluice_submit(a->s, &r, on_event, a, NULL, NULL), SLUICE_OK);
}

/* As an app that gives up when a request fails.  Only a close that is under way cancels requests here, so this one is never the first. */
static void close_when_cancelled(const sluice_event *e, void *user)
{
    app *a = user;

    if (e->kind != SLUICE_EVENT_DONE)
        return;
    atomic_fetch_add(&a->n_done, 1);
    if (e->outcome != SLUICE_OUTCOME_CANCELLED)
        return;
    atomic_fetch_add(&a->n_closes, 1);
    sluice_close(a->s);
}

static void count_done(const sluice_event *e, void *user)
{
    app *a = user;

    if (e->kind == SLUICE_EVENT_DONE)
        atomic_fetch_add(&a->n_done, 1);
}

static double now_s(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void sleep_ms(long ms)
{
    const struct timespec t = { 0, ms * 1000000L };

    (void)nanosleep(&t, NULL);
}

static void callbacks_may_close_what_is_being_closed(void **state)
{
    (void)state;
    for (int is_polled = 0; is_polled < 2; is_polled++) {
        app a;

        open_app(&a, is_polled != 0);
        for (int i = 0; i < N_REQUESTS; i++)
            submit(&a, close_when_cancelled);
        sluice_close(a.s);
        assert_int_equal(atomic_load(&a.n_done), N_REQUESTS);
        assert_true(atomic_load(&a.n_closes) >= 2);
    }
}

static void closing_with_a_full_queue_ends_every_request_once(void **state)
{
    (void)state;
    for (int is_polled = 0; is_polled < 2; is_polled++) {
        app a;

        open_app(&a, is_polled != 0);
        for (int i = 0; i < N_REQUESTS; i++)
            submit(&a, count_done);
        sluice_close(a.s);
        assert_int_equal(atomic_load(&a.n_done), N_REQUESTS);
    }
}

static void *poll_once(void *user)
{
    app *a = user;

    atomic_store(&a->is_polling, true);
    (void)sluice_poll(a->s, POLL_MS, NULL);
    return NULL;
}

static void closing_ends_a_poll_that_waits(void **state)
{
    app a;
    pthread_t poller;
    const double began = now_s();

    (void)state;
    open_app(&a, true);
    assert_int_equal(pthread_create(&poller, NULL, poll_once, &a), 0);
    while (!atomic_load(&a.is_polling))
        sleep_ms(1);
    sleep_ms(200); /* it waits by now; were it late, it would find a closed instance: that is the app's to avoid */
    sluice_close(a.s);
    assert_int_equal(pthread_join(poller, NULL), 0);
    assert_true(now_s() - began < POLL_MS / 2000.0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(callbacks_may_close_what_is_being_closed),
        cmocka_unit_test(closing_with_a_full_queue_ends_every_request_once),
        cmocka_unit_test(closing_ends_a_poll_that_waits),
    };

    if (argc != 2)
        return 2;
    model_path = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
