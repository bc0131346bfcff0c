/* test_facade.c - the public API as an app uses it: real threads, the real engine and the default model.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "sdk/src/instance.h" /* for what it has learned; all else is by the public API */
#include "sluice/sluice.h"

static const char local_policy[] = "{\"sluice_policy\":1,\"id\":\"local\",\"version\":1,\"mode\":\"local_only\"}";

static char model_path[4096], state_dir[64];

typedef struct seen {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned n_done, n_events;
    sluice_event done;
    char text[4096];
    size_t text_len;
    sluice *close_in_callback, *submit_in_callback, *cancel_in_callback;
    bool saw_event_after_done;
} seen;

static void seen_init(seen *k)
{
    memset(k, 0, sizeof *k);
    pthread_mutex_init(&k->lock, NULL);
    pthread_cond_init(&k->changed, NULL);
}

static sluice_request request_for(const char *text, sluice_message *m)
{
    sluice_request r;
    sluice_request_init(&r, sizeof r);
    m->role = "user";
    m->text.ptr = (const uint8_t *)text;
    m->text.len = strlen(text);
    r.messages = m;
    r.n_messages = 1;
    return r;
}

static void on_event(const sluice_event *e, void *user)
{
    seen *k = user;
    sluice *to_close = NULL, *to_submit = NULL, *to_cancel = NULL;

    pthread_mutex_lock(&k->lock);
    k->n_events++;
    if (e->kind == SLUICE_EVENT_TEXT && k->text_len + e->text.len < sizeof k->text) {
        memcpy(k->text + k->text_len, e->text.ptr, e->text.len);
        k->text_len += e->text.len;
    }
    if (e->kind == SLUICE_EVENT_DONE) {
        k->n_done++;
        k->done = *e;
        to_submit = k->submit_in_callback;
        k->submit_in_callback = NULL;
    }
    if (e->kind == SLUICE_EVENT_ROUTE) {
        to_cancel = k->cancel_in_callback;
        to_close = k->close_in_callback;
        k->close_in_callback = NULL;
    }
    pthread_cond_broadcast(&k->changed);
    pthread_mutex_unlock(&k->lock);
    if (to_submit != NULL) {
        sluice_message m;
        const sluice_request r = request_for("tell me a joke", &m);
        (void)sluice_submit(to_submit, &r, on_event, k, NULL, NULL);
    }
    if (to_cancel != NULL)
        (void)sluice_cancel(to_cancel, e->request_id);
    sluice_close(to_close);
}

static void wait_done(seen *k, unsigned n)
{
    pthread_mutex_lock(&k->lock);
    while (k->n_done < n)
        pthread_cond_wait(&k->changed, &k->lock);
    pthread_mutex_unlock(&k->lock);
}

static sluice *open_local(bool poll, bool with_model)
{
    sluice_options o;
    sluice *s = NULL;
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_options_init(&o, sizeof o);
    o.policy_json.ptr = (const uint8_t *)local_policy;
    o.policy_json.len = sizeof local_policy - 1;
    o.model_path = with_model ? model_path : NULL;
    o.poll_events = poll;
    if (sluice_open(&s, &o, &err) != SLUICE_OK)
        fail_msg("open: %s (%s)", err.message, err.hint);
    return s;
}

static void a_command_that_the_model_knows_is_answered_locally(void **state)
{
    sluice *s = open_local(false, true);
    sluice_message m;
    const sluice_request r = request_for("set a timer for ten minutes", &m);
    seen k;

    (void)state;
    seen_init(&k);
    assert_int_equal(sluice_submit(s, &r, on_event, &k, NULL, NULL), SLUICE_OK);
    wait_done(&k, 1);
    assert_int_equal(k.done.outcome, SLUICE_OUTCOME_ANSWERED);
    assert_int_equal(k.done.route, SLUICE_ROUTE_LOCAL);
    assert_non_null(strstr(k.text, "\"timer\""));
    assert_true(k.done.confidence > 0.5f && k.done.confidence <= 1.0f);
    assert_true(k.done.prompt_tokens > 0 && k.done.output_tokens > 0);
    assert_int_equal(k.done.receipt.attempts, 0);
    assert_true(k.done.timings.ttft_us > 0 && k.done.timings.ttft_us <= k.done.timings.total_us);
    sluice_close(s);
}

static void without_a_model_and_without_a_cloud_it_abstains(void **state)
{
    sluice *s = open_local(false, false);
    sluice_message m;
    const sluice_request r = request_for("set a timer", &m);
    seen k;

    (void)state;
    seen_init(&k);
    assert_int_equal(sluice_submit(s, &r, on_event, &k, NULL, NULL), SLUICE_OK);
    wait_done(&k, 1);
    assert_int_equal(k.done.outcome, SLUICE_OUTCOME_ABSTAINED);
    assert_int_equal(k.done.reasons[0], SLUICE_REASON_LOCAL_NO_MODEL);
    sluice_close(s);
}

static void polled_events_arrive_on_the_polling_thread(void **state)
{
    sluice *s = open_local(true, true);
    sluice_message m;
    const sluice_request r = request_for("what's the weather in Paris?", &m);
    seen k;

    (void)state;
    seen_init(&k);
    assert_int_equal(sluice_submit(s, &r, on_event, &k, NULL, NULL), SLUICE_OK);
    while (k.n_done == 0)
        assert_int_equal(sluice_poll(s, 1000, NULL), SLUICE_OK);
    assert_int_equal(k.done.outcome == SLUICE_OUTCOME_FAILED, 0);
    sluice_close(s);
    s = open_local(false, false);
    assert_int_equal(sluice_poll(s, 0, NULL), SLUICE_ERR_STATE);
    sluice_close(s);
}

static void closing_with_requests_in_flight_ends_each_exactly_once(void **state)
{
    (void)state;
    for (int poll = 0; poll < 2; poll++) {
        sluice *s = open_local(poll == 1, true);
        sluice_message m;
        const sluice_request r = request_for("play some jazz by miles davis and then something else entirely", &m);
        seen k;
        seen_init(&k);
        for (int i = 0; i < 20; i++)
            assert_int_equal(sluice_submit(s, &r, on_event, &k, NULL, NULL), SLUICE_OK);
        sluice_close(s);
        assert_int_equal(k.n_done, 20);
    }
}

static void an_app_may_submit_cancel_and_close_from_its_own_callback(void **state)
{
    sluice_message m;
    const sluice_request r = request_for("set an alarm for six", &m);
    seen k;

    (void)state;
    sluice *s = open_local(false, true);
    seen_init(&k);
    k.submit_in_callback = s;
    assert_int_equal(sluice_submit(s, &r, on_event, &k, NULL, NULL), SLUICE_OK);
    wait_done(&k, 2);
    seen_init(&k);
    k.cancel_in_callback = s;
    assert_int_equal(sluice_submit(s, &r, on_event, &k, NULL, NULL), SLUICE_OK);
    wait_done(&k, 1);
    assert_true(k.done.outcome == SLUICE_OUTCOME_CANCELLED || k.done.outcome == SLUICE_OUTCOME_ANSWERED);
    seen_init(&k);
    k.close_in_callback = s;
    assert_int_equal(sluice_submit(s, &r, on_event, &k, NULL, NULL), SLUICE_OK);
    wait_done(&k, 1); /* the instance goes away by itself */
    assert_int_equal(k.n_done, 1);

    s = open_local(true, true);
    seen_init(&k);
    k.close_in_callback = s;
    assert_int_equal(sluice_submit(s, &r, on_event, &k, NULL, NULL), SLUICE_OK);
    while (k.n_done == 0) {
        if (k.n_events == 0)
            (void)sluice_poll(s, 1000, NULL);
        else
            break;
    }
    assert_true(k.n_done == 1);
}

static void a_cancelled_request_says_so_and_an_unknown_one_is_not_found(void **state)
{
    sluice *s = open_local(false, true);
    sluice_message m;
    const sluice_request r = request_for("set a timer", &m);
    seen k;
    uint64_t id = 0;

    (void)state;
    seen_init(&k);
    assert_int_equal(sluice_cancel(s, 77), SLUICE_ERR_NOT_FOUND);
    assert_int_equal(sluice_submit(s, &r, on_event, &k, &id, NULL), SLUICE_OK);
    (void)sluice_cancel(s, id);
    wait_done(&k, 1);
    assert_int_equal(k.n_done, 1);
    sluice_close(s);
}

static void bad_requests_are_named(void **state)
{
    sluice *s = open_local(false, false);
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_message m = { "user", { (const uint8_t *)"\xff", 1 } };
    sluice_request r;

    (void)state;
    memset(&r, 0, sizeof r);
    assert_int_equal(sluice_submit(s, &r, NULL, NULL, NULL, &err), SLUICE_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "sluice_request_init"));
    sluice_request_init(&r, sizeof r);
    assert_int_equal(sluice_submit(s, &r, NULL, NULL, NULL, &err), SLUICE_ERR_ARGUMENT);
    r.messages = &m;
    r.n_messages = 1;
    assert_int_equal(sluice_submit(s, &r, NULL, NULL, NULL, &err), SLUICE_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "UTF-8"));
    m.text.ptr = (const uint8_t *)"x";
    m.role = "robot";
    assert_int_equal(sluice_submit(s, &r, NULL, NULL, NULL, &err), SLUICE_ERR_ARGUMENT);
    m.role = "assistant";
    assert_int_equal(sluice_submit(s, &r, NULL, NULL, NULL, &err), SLUICE_ERR_ARGUMENT);
    m.role = "user";
    r.purpose = "nonsense";
    assert_int_equal(sluice_submit(s, &r, NULL, NULL, NULL, &err), SLUICE_ERR_ARGUMENT);
    r.purpose = NULL;
    r.output_schema.ptr = (const uint8_t *)"{}";
    r.output_schema.len = 2;
    assert_int_equal(sluice_submit(s, &r, NULL, NULL, NULL, &err), SLUICE_ERR_UNSUPPORTED);
    sluice_close(s);
}

/* `messages`: one, of the user. */
static sluice_outcome ask_with(sluice *s, sluice_request r, seen *k)
{
    sluice_error err = SLUICE_ERROR_INIT;

    seen_init(k);
    if (sluice_submit(s, &r, on_event, k, NULL, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
    wait_done(k, 1);
    k->text[k->text_len] = '\0';
    return k->done.outcome;
}

static void an_answer_fulfils_the_schema_that_the_request_has(void **state)
{
    static const char schema[] = "{\"type\":\"object\",\"properties\":{\"minutes\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":99},\"what\":{\"enum\":"
                                 "[\"timer\",\"alarm\"]}},\"required\":[\"minutes\",\"what\"]}";
    static const char broken[] = "{\"type\":\"nonsense\"}";
    sluice *s = open_local(false, true);
    sluice_message m;
    sluice_request r = request_for("set a timer for ten minutes", &m);
    seen k;

    (void)state;
    r.output_schema.ptr = (const uint8_t *)schema;
    r.output_schema.len = sizeof schema - 1;
    r.max_tokens = 60;
    for (int i = 0; i < 2; i++) {
        const sluice_outcome outcome = ask_with(s, r, &k);

        assert_true(outcome == SLUICE_OUTCOME_ANSWERED || outcome == SLUICE_OUTCOME_LOW_CONFIDENCE); /* it was not trained for this one */
        assert_int_equal(k.text[strspn(k.text, " \t\r\n")], '{');
        assert_int_equal(k.text[k.text_len - 1], '}');
        assert_non_null(strstr(k.text, "\"minutes\""));
        assert_true(strstr(k.text, "\"timer\"") != NULL || strstr(k.text, "\"alarm\"") != NULL);
        assert_int_equal(k.done.receipt.attempts, 0);
    }
    r.max_tokens = 2; /* too few for any */
    (void)ask_with(s, r, &k);
    assert_int_equal(k.text_len, 0);
    assert_int_not_equal(k.done.outcome, SLUICE_OUTCOME_ANSWERED);
    r.max_tokens = 60;
    r.output_schema.ptr = NULL;
    assert_int_equal(sluice_submit(s, &r, on_event, &k, NULL, NULL), SLUICE_ERR_ARGUMENT);
    r.output_schema.ptr = (const uint8_t *)broken;
    r.output_schema.len = sizeof broken - 1;
    (void)ask_with(s, r, &k);
    assert_int_equal(k.text_len, 0);
    assert_int_not_equal(k.done.outcome, SLUICE_OUTCOME_ANSWERED);
    sluice_close(s);
}

/* Else prompts would soon look too slow for the device, and requests would go to the cloud for it. */
static void what_a_kept_session_spares_does_not_make_prompts_look_slow(void **state)
{
    sluice *s = open_local(false, true);
    sluice_message m;
    sluice_request r = request_for("set a timer for ten minutes", &m);
    float learned;
    seen k;

    (void)state;
    r.keep_session = true;
    assert_int_equal(ask_with(s, r, &k), SLUICE_OUTCOME_ANSWERED);
    learned = s->prefill_us_per_token;
    assert_true(learned > 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ask_with(s, r, &k), SLUICE_OUTCOME_ANSWERED);
        assert_memory_equal(&learned, &s->prefill_us_per_token, sizeof learned);
    }
    sluice_close(s);
}

static void a_kept_session_answers_as_a_fresh_one(void **state)
{
    static const char *const texts[] = { "set a timer for ten minutes", "set a timer for ten minutes", "set a timer for twenty minutes" };
    sluice *s = open_local(false, true);
    char fresh[3][4096];
    sluice_message m;
    seen k;

    (void)state;
    for (int keep = 0; keep < 2; keep++)
        for (int i = 0; i < 3; i++) {
            sluice_request r = request_for(texts[i], &m);

            r.keep_session = keep == 1;
            assert_int_equal(ask_with(s, r, &k), SLUICE_OUTCOME_ANSWERED);
            if (keep == 0)
                memcpy(fresh[i], k.text, sizeof fresh[i]);
            assert_string_equal(fresh[i], k.text);
        }
    sluice_close(s);
}

static void opening_without_a_policy_or_with_a_bad_one_is_an_error_with_a_place(void **state)
{
    static const char typo[] = "{\"sluice_policy\":1,\n \"id\":\"x\",\"version\":1,\n \"mod\":\"local_only\"}";
    sluice_options o;
    sluice *s = (sluice *)1;
    sluice_error err = SLUICE_ERROR_INIT;

    (void)state;
    sluice_options_init(&o, sizeof o);
    assert_int_equal(sluice_open(&s, &o, &err), SLUICE_ERR_ARGUMENT);
    assert_null(s);
    o.policy_json.ptr = (const uint8_t *)typo;
    o.policy_json.len = sizeof typo - 1;
    assert_int_equal(sluice_open(&s, &o, &err), SLUICE_ERR_FORMAT);
    assert_int_equal(err.line, 3);
    assert_non_null(strstr(err.hint, "mode"));
    o.policy_json.len = 0;
    o.policy_path = "/nonexistent/policy.json";
    assert_int_equal(sluice_open(&s, &o, &err), SLUICE_ERR_NOT_FOUND);
    assert_non_null(strstr(err.where, "policy.json"));
}

static void a_truncated_model_is_refused_with_its_name(void **state)
{
    char cut[128];
    uint8_t head[3000];
    sluice_options o;
    sluice *s = NULL;
    sluice_error err = SLUICE_ERROR_INIT;

    (void)state;
    FILE *in = fopen(model_path, "rb");
    assert_non_null(in);
    const size_t n = fread(head, 1, sizeof head, in);
    fclose(in);
    (void)snprintf(cut, sizeof cut, "%s/cut.gguf", state_dir);
    FILE *out = fopen(cut, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(head, 1, n, out), n);
    fclose(out);
    sluice_options_init(&o, sizeof o);
    o.policy_json.ptr = (const uint8_t *)local_policy;
    o.policy_json.len = sizeof local_policy - 1;
    o.model_path = cut;
    const sluice_status st = sluice_open(&s, &o, &err);
    assert_true(st == SLUICE_ERR_FORMAT || st == SLUICE_ERR_TRUNCATED);
    assert_null(s);
    assert_non_null(strstr(err.where, "cut.gguf"));
}

static void an_unusable_state_folder_still_answers_but_records_and_sends_nothing(void **state)
{
    sluice_options o;
    sluice *s = NULL;
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_consent c;
    sluice_message m;
    const sluice_request r = request_for("set a timer for ten minutes", &m);
    seen k;

    (void)state;
    sluice_options_init(&o, sizeof o);
    o.policy_json.ptr = (const uint8_t *)local_policy;
    o.policy_json.len = sizeof local_policy - 1;
    o.model_path = model_path;
    o.state_dir = "/dev/null/nowhere";
    assert_int_equal(sluice_open(&s, &o, &err), SLUICE_OK);
    seen_init(&k);
    assert_int_equal(sluice_submit(s, &r, on_event, &k, NULL, NULL), SLUICE_OK);
    wait_done(&k, 1);
    assert_int_equal(k.done.outcome, SLUICE_OUTCOME_ANSWERED);
    sluice_consent_init(&c, sizeof c);
    assert_int_not_equal(sluice_consent_grant(s, &c, NULL, &err), SLUICE_OK);
    assert_true(err.message[0] != '\0');
    assert_int_not_equal(sluice_ledger_verify(s, NULL, &err), SLUICE_OK);
    sluice_close(s);
}

static void explain_says_the_route_without_running(void **state)
{
    sluice *s = open_local(false, true);
    sluice_message m;
    const sluice_request r = request_for("write to jane.doe@example.org", &m);
    char *json = NULL;
    sluice_error err = SLUICE_ERROR_INIT;

    (void)state;
    assert_int_equal(sluice_explain(s, &r, &json, &err), SLUICE_OK);
    assert_non_null(strstr(json, "\"local_ready\""));
    assert_non_null(strstr(json, "\"email\""));
    assert_null(strstr(json, "jane")); /* explanations name classes, not texts */
    sluice_text_free(s, NULL, json);
    assert_int_equal(sluice_info(s, &json, &err), SLUICE_OK);
    assert_non_null(strstr(json, "\"version\""));
    sluice_text_free(s, NULL, json);
    sluice_close(s);
}

/* ---- several threads at once, for the thread sanitizer ------------------------------------------------- */

typedef struct crowd { sluice *s; seen k; } crowd;

static void *submitter(void *arg)
{
    crowd *c = arg;
    for (int i = 0; i < 15; i++) {
        sluice_message m;
        const sluice_request r = request_for(i % 2 ? "set a timer" : "tell me a joke", &m);
        uint64_t id = 0;
        if (sluice_submit(c->s, &r, on_event, &c->k, &id, NULL) != SLUICE_OK)
            abort();
        if (i % 3 == 0)
            (void)sluice_cancel(c->s, id);
        char *json = NULL;
        if (sluice_explain(c->s, &r, &json, NULL) == SLUICE_OK)
            sluice_text_free(c->s, NULL, json);
        sluice_consent *list = NULL;
        size_t n = 0;
        if (sluice_consent_list(c->s, &list, &n, NULL) == SLUICE_OK)
            sluice_consent_list_free(c->s, list, n);
    }
    return NULL;
}

static void four_threads_may_use_one_instance(void **state)
{
    static crowd c;
    pthread_t t[4];

    (void)state;
    seen_init(&c.k);
    c.s = open_local(false, true);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, submitter, &c), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    wait_done(&c.k, 60);
    sluice_close(c.s);
    assert_int_equal(c.k.n_done, 60);
}

static void two_instances_live_side_by_side(void **state)
{
    sluice *a = open_local(false, true), *b = open_local(false, true);
    sluice_message m;
    const sluice_request r = request_for("set a timer", &m);
    seen ka, kb;

    (void)state;
    seen_init(&ka);
    seen_init(&kb);
    assert_int_equal(sluice_submit(a, &r, on_event, &ka, NULL, NULL), SLUICE_OK);
    assert_int_equal(sluice_submit(b, &r, on_event, &kb, NULL, NULL), SLUICE_OK);
    wait_done(&ka, 1);
    wait_done(&kb, 1);
    assert_string_equal(ka.text, kb.text);
    sluice_close(a);
    sluice_close(b);
}

static int set_up(void **state)
{
    const char *source = getenv("SLUICE_SOURCE_DIR");
    (void)state;
    (void)snprintf(model_path, sizeof model_path, "%s/local-engine/models/sluice-intents.gguf", source ? source : ".");
    (void)snprintf(state_dir, sizeof state_dir, "/tmp/sluice-facade-XXXXXX");
    return mkdtemp(state_dir) == NULL;
}

static int tear_down(void **state)
{
    char cut[128];
    (void)state;
    (void)snprintf(cut, sizeof cut, "%s/cut.gguf", state_dir);
    (void)unlink(cut);
    return rmdir(state_dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_command_that_the_model_knows_is_answered_locally),
        cmocka_unit_test(without_a_model_and_without_a_cloud_it_abstains),
        cmocka_unit_test(polled_events_arrive_on_the_polling_thread),
        cmocka_unit_test(closing_with_requests_in_flight_ends_each_exactly_once),
        cmocka_unit_test(an_app_may_submit_cancel_and_close_from_its_own_callback),
        cmocka_unit_test(a_cancelled_request_says_so_and_an_unknown_one_is_not_found),
        cmocka_unit_test(bad_requests_are_named),
        cmocka_unit_test(an_answer_fulfils_the_schema_that_the_request_has),
        cmocka_unit_test(a_kept_session_answers_as_a_fresh_one),
        cmocka_unit_test(what_a_kept_session_spares_does_not_make_prompts_look_slow),
        cmocka_unit_test(opening_without_a_policy_or_with_a_bad_one_is_an_error_with_a_place),
        cmocka_unit_test(a_truncated_model_is_refused_with_its_name),
        cmocka_unit_test(an_unusable_state_folder_still_answers_but_records_and_sends_nothing),
        cmocka_unit_test(explain_says_the_route_without_running),
        cmocka_unit_test(four_threads_may_use_one_instance),
        cmocka_unit_test(two_instances_live_side_by_side),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
