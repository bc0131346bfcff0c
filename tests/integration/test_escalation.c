/* test_escalation.c - an app, the public API and a real gateway: what leaves, when, and what the receipt says.
 *
 *   test_escalation <sluice-gateway> <model.gguf>
 *
 * What has left is judged from outside: by what the gateway saw behind its TLS.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE /* memmem */
#include "tests/support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sluice/sluice.h"
#include "tests/integration/house.h"

enum { WAIT_MS = 30000 };

static const char *gateway_path, *model_path;
static const char *const no_arguments[] = { NULL };
static const char question_text[] = "when did the lighthouse of Heliopolis burn down";

/* An app with one instance and one request at a time. */
typedef struct app {
    gateway_process gateway;
    temp_dir state;
    sluice *s;
    sluice_event done;
    bool is_done;
    unsigned n_done, n_asked, n_restarts;
    char text[8192];
    size_t n_text;
    int answer_consent; /* when asked: 0 not at all, 1 yes, -1 no */
} app;

static void on_consent(const sluice_consent_request *ask, void *user)
{
    app *a = user;
    sluice_consent grant;

    a->n_asked++;
    assert_string_equal(ask->endpoint, "gateway");
    assert_string_equal(ask->purpose, "ask");
    sluice_consent_init(&grant, sizeof grant);
    grant.scope = SLUICE_CONSENT_ONCE;
    if (a->answer_consent != 0)
        assert_int_equal(sluice_consent_answer(a->s, ask->request_id, a->answer_consent > 0 ? &grant : NULL, NULL), SLUICE_OK);
}

static void on_event(const sluice_event *e, void *user)
{
    app *a = user;

    switch (e->kind) {
    case SLUICE_EVENT_RESTART:
        a->n_restarts++;
        a->n_text = 0;
        break;
    case SLUICE_EVENT_TEXT:
        assert_true(a->n_text + e->text.len < sizeof a->text);
        memcpy(a->text + a->n_text, e->text.ptr, e->text.len);
        a->n_text += e->text.len;
        break;
    case SLUICE_EVENT_DONE:
        a->done = *e;
        a->is_done = true;
        a->n_done++;
        break;
    default: break;
    }
}

/* `endpoint` NULL: the gateway's own description of itself. */
static void app_start(app *a, const char *endpoint, const char *mode, bool asks)
{
    const char *json = endpoint ? endpoint : a->gateway.endpoint;
    const size_t cap = strlen(json) + 1024;
    char *policy = malloc(cap);
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_options options;

    if (a->state.path[0] == '\0')
        temp_dir_open(&a->state);
    /* Nothing is ever sure enough, so every request wants to go on to the cloud. */
    (void)snprintf(
        policy, cap,
        "{\"sluice_policy\":1,\"id\":\"app\",\"version\":1,\"mode\":\"%s\",\"router\":{\"escalate_below\":1,\"stop_below\":0,\"deadline_ms\":15000},"
        "\"purposes\":[{\"id\":\"ask\",\"text\":\"Your question goes to the gateway.\"}],\"endpoints\":[%s],"
        "\"rules\":[{\"id\":\"allow\",\"effect\":\"permit\",\"purposes\":[\"ask\"],\"endpoints\":[\"gateway\"],\"classes\":[\"prompt\"]}]}",
        mode, json);
    sluice_options_init(&options, sizeof options);
    options.policy_json = sluice_span_str(policy);
    options.model_path = model_path;
    options.state_dir = a->state.path;
    options.poll_events = true;
    if (asks) {
        options.on_consent = on_consent;
        options.on_consent_user = a;
    }
    if (sluice_open(&a->s, &options, &err) != SLUICE_OK)
        fail_msg("%s: %s (%s)", sluice_status_name(err.status), err.message, err.hint);
    free(policy);
}

static void app_open(app *a, const char *const *arguments, const char *mode, bool asks)
{
    memset(a, 0, sizeof *a);
    if (!gateway_process_open(&a->gateway, arguments))
        fail_msg("the gateway did not start; SLUICE_TEST_VERBOSE=1 shows its words");
    app_start(a, NULL, mode, asks);
}

static void app_close(app *a)
{
    uint64_t n = 0;

    assert_int_equal(sluice_ledger_verify(a->s, &n, NULL), SLUICE_OK);
    assert_true(n > 0);
    sluice_close(a->s);
    temp_dir_close(&a->state);
    assert_int_equal(gateway_process_stop(&a->gateway), 0);
    gateway_process_close(&a->gateway);
}

/* `schema` NULL: any answer. */
static void ask_for(app *a, const char *text, sluice_privacy privacy, const char *schema)
{
    const sluice_message message = { "user", sluice_span_str(text) };
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_request request;

    a->is_done = false;
    a->n_done = a->n_restarts = 0;
    a->n_text = 0;
    sluice_request_init(&request, sizeof request);
    request.messages = &message;
    request.n_messages = 1;
    request.privacy = privacy;
    if (schema != NULL)
        request.output_schema = sluice_span_str(schema);
    if (sluice_submit(a->s, &request, on_event, a, NULL, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
    for (int waited = 0; waited < WAIT_MS && !a->is_done; waited += 100)
        (void)sluice_poll(a->s, 100, NULL);
    assert_true(a->is_done);
    assert_int_equal(a->n_done, 1);
}

static void ask(app *a, const char *text, sluice_privacy privacy)
{
    ask_for(a, text, privacy, NULL);
}

static void consent(app *a, char *id)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_consent c;

    sluice_consent_init(&c, sizeof c);
    strcpy(c.purpose, "ask");
    strcpy(c.endpoint, "gateway");
    c.classes = SLUICE_CLASS_PROMPT;
    c.scope = SLUICE_CONSENT_UNTIL;
    if (sluice_consent_grant(a->s, &c, id, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
}

static size_t tapped(app *a)
{
    size_t len = 0;

    free(gateway_process_tap(&a->gateway, &len));
    return len;
}

static bool has_reason(const app *a, sluice_reason reason)
{
    for (size_t i = 0; i < a->done.n_reasons; i++)
        if (a->done.reasons[i] == reason)
            return true;
    return false;
}

#define EXPECT(condition)                                                                                                                            \
    do {                                                                                                                                             \
        if (!(condition))                                                                                                                            \
            fail_msg("%s: outcome %s, route %s, %u attempts, last reason %s, %s %s", #condition, sluice_outcome_name(a.done.outcome),                \
                     sluice_route_name(a.done.route), a.done.receipt.attempts,                                                                       \
                     a.done.n_reasons ? sluice_reason_name(a.done.reasons[a.done.n_reasons - 1]) : "none", sluice_status_name(a.done.status),        \
                     a.done.error.message);                                                                                                          \
    } while (0)

static void expect_nothing_left(app *p)
{
    app a = *p;

    EXPECT(a.done.receipt.attempts == 0);
    EXPECT(a.done.receipt.sealed_bytes_sent == 0);
    EXPECT(a.done.route != SLUICE_ROUTE_CLOUD);
    assert_int_equal(tapped(p), 0);
}

/* ---- what leaves ------------------------------------------------------------------------------------------- */

static void a_weak_answer_escalates_with_consent_and_leaves_a_receipt(void **state)
{
    char id[SLUICE_ID_MAX];
    app a;
    char *tap;
    size_t len;

    (void)state;
    app_open(&a, no_arguments, "prefer_local", false);
    consent(&a, id);
    ask(&a, question_text, SLUICE_PRIVACY_POLICY);
    EXPECT(a.done.outcome == SLUICE_OUTCOME_ANSWERED);
    EXPECT(a.done.route == SLUICE_ROUTE_CLOUD);
    EXPECT(a.n_text > 0);
    EXPECT(a.done.receipt.attempts == 1);
    EXPECT(a.done.receipt.sealed_bytes_sent > strlen(question_text));
    EXPECT(a.done.receipt.sealed_bytes_received > a.n_text);
    EXPECT(a.done.receipt.ledger_seq > 0);
    EXPECT(a.done.receipt.classes == SLUICE_CLASS_PROMPT);
    EXPECT(strcmp(a.done.receipt.endpoint, "gateway") == 0);
    EXPECT(strcmp(a.done.receipt.rule, "allow") == 0);
    EXPECT(strcmp(a.done.receipt.consent, id) == 0);
    tap = gateway_process_tap(&a.gateway, &len);
    assert_true(len > a.done.receipt.sealed_bytes_sent);
    assert_null(memmem(tap, len, "Heliopolis", 10));
    assert_null(memmem(tap, len, "lighthouse", 10));
    free(tap);
    app_close(&a);
}

static void without_consent_nothing_leaves(void **state)
{
    app a;

    (void)state;
    app_open(&a, no_arguments, "prefer_local", false);
    ask(&a, question_text, SLUICE_PRIVACY_POLICY);
    EXPECT(a.done.outcome == SLUICE_OUTCOME_NEEDS_CONSENT);
    expect_nothing_left(&a);
    app_close(&a);
}

static void a_local_only_request_never_leaves_even_with_consent(void **state)
{
    app a;

    (void)state;
    app_open(&a, no_arguments, "prefer_local", false);
    consent(&a, NULL);
    ask(&a, question_text, SLUICE_PRIVACY_LOCAL_ONLY);
    EXPECT(a.done.outcome == SLUICE_OUTCOME_LOW_CONFIDENCE);
    EXPECT(has_reason(&a, SLUICE_REASON_POLICY_LOCAL_ONLY));
    expect_nothing_left(&a);
    app_close(&a);
}

/* Nothing would hold the gateway's answer to the schema: neither a weak answer nor a schema that is none, nor one that no answer of this length fits,
 * is a reason to go there, or to ask for consent. */
static void a_request_with_a_schema_never_leaves_whatever_the_policy_prefers(void **state)
{
    static const char *const modes[] = { "prefer_local", "prefer_cloud", "cloud_only" };
    static const char *const schemas[] = {
        "{\"type\":\"object\",\"properties\":{\"a\":{\"enum\":[1,2]}},\"required\":[\"a\"]}", "{\"type\":\"nonsense\"}", "{",
        "{\"type\":\"string\",\"minLength\":60000}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        app a;

        app_open(&a, no_arguments, modes[i], true);
        a.answer_consent = 1;
        consent(&a, NULL);
        for (size_t j = 0; j < sizeof schemas / sizeof schemas[0]; j++) {
            ask_for(&a, question_text, SLUICE_PRIVACY_POLICY, schemas[j]);
            expect_nothing_left(&a);
            assert_int_equal(a.n_asked, 0);
            if (j > 0 || i == 2) {
                EXPECT(a.done.outcome != SLUICE_OUTCOME_ANSWERED && a.done.outcome != SLUICE_OUTCOME_LOW_CONFIDENCE);
                assert_int_equal(a.n_text, 0);
            } else {
                EXPECT(a.n_text > 0 && memmem(a.text, a.n_text, "\"a\"", 3) != NULL);
            }
        }
        app_close(&a);
    }
}

static void a_class_that_no_rule_names_does_not_leave(void **state)
{
    app a;

    (void)state;
    app_open(&a, no_arguments, "prefer_local", false);
    consent(&a, NULL);
    ask(&a, "write to jane.doe@example.org about it", SLUICE_PRIVACY_POLICY);
    EXPECT(a.done.outcome != SLUICE_OUTCOME_ANSWERED);
    expect_nothing_left(&a);
    app_close(&a);
}

static void consent_asked_for_at_the_moment_decides(void **state)
{
    app a;

    (void)state;
    app_open(&a, no_arguments, "prefer_local", true);
    a.answer_consent = -1;
    ask(&a, question_text, SLUICE_PRIVACY_POLICY);
    EXPECT(a.n_asked == 1);
    expect_nothing_left(&a);
    app_close(&a);

    app_open(&a, no_arguments, "prefer_local", true);
    a.answer_consent = 1;
    ask(&a, question_text, SLUICE_PRIVACY_POLICY);
    EXPECT(a.n_asked == 1);
    EXPECT(a.done.outcome == SLUICE_OUTCOME_ANSWERED && a.done.route == SLUICE_ROUTE_CLOUD);
    ask(&a, question_text, SLUICE_PRIVACY_POLICY); /* it was for once */
    EXPECT(a.n_asked == 2);
    app_close(&a);
}

static void a_withdrawn_consent_closes_the_way(void **state)
{
    char id[SLUICE_ID_MAX];
    size_t before;
    app a;

    (void)state;
    app_open(&a, no_arguments, "prefer_local", false);
    consent(&a, id);
    ask(&a, question_text, SLUICE_PRIVACY_POLICY);
    EXPECT(a.done.route == SLUICE_ROUTE_CLOUD);
    before = tapped(&a);
    assert_int_equal(sluice_consent_revoke(a.s, id, NULL), SLUICE_OK);
    ask(&a, question_text, SLUICE_PRIVACY_POLICY);
    EXPECT(a.done.receipt.attempts == 0);
    EXPECT(a.done.outcome != SLUICE_OUTCOME_ANSWERED);
    assert_int_equal(tapped(&a), before);
    app_close(&a);
}

/* ---- what goes wrong -------------------------------------------------------------------------------------------- */

static void a_cut_answer_is_never_passed_off_as_whole(void **state)
{
    static const char *const arguments[] = { "--once-fail", "cut", NULL };
    app a;

    (void)state;
    app_open(&a, arguments, "cloud_only", false);
    consent(&a, NULL);
    ask(&a, question_text, SLUICE_PRIVACY_POLICY);
    EXPECT(a.done.outcome != SLUICE_OUTCOME_ANSWERED || a.done.receipt.attempts > 1);
    ask(&a, question_text, SLUICE_PRIVACY_POLICY);
    EXPECT(a.done.outcome == SLUICE_OUTCOME_ANSWERED && a.done.route == SLUICE_ROUTE_CLOUD);
    app_close(&a);
}

static void when_the_gateway_is_down_the_local_answer_is_given(void **state)
{
    app a;

    (void)state;
    app_open(&a, no_arguments, "prefer_local", false);
    consent(&a, NULL);
    assert_int_equal(gateway_process_stop(&a.gateway), 0);
    ask(&a, question_text, SLUICE_PRIVACY_POLICY);
    EXPECT(a.done.outcome == SLUICE_OUTCOME_LOW_CONFIDENCE);
    EXPECT(has_reason(&a, SLUICE_REASON_CLOUD_FAILED));
    EXPECT(has_reason(&a, SLUICE_REASON_FELL_BACK_TO_LOCAL));
    EXPECT(a.n_text > 0);
    sluice_close(a.s);
    temp_dir_close(&a.state);
    gateway_process_close(&a.gateway);
}

/* The gateway's own description, but with the pin of another key. */
static char *with_wrong_pins(const char *endpoint)
{
    char *copy = strdup(endpoint), *at = copy;

    assert_non_null(copy);
    while ((at = strstr(at, "sha256//")) != NULL) {
        at += strlen("sha256//");
        at[0] = at[0] == 'A' ? 'B' : 'A';
    }
    return copy;
}

static void a_wrong_pin_is_named_and_the_request_stays_here(void **state)
{
    char *endpoint;
    app a;

    (void)state;
    memset(&a, 0, sizeof a);
    assert_true(gateway_process_open(&a.gateway, no_arguments));
    endpoint = with_wrong_pins(a.gateway.endpoint);
    app_start(&a, endpoint, "prefer_local", false);
    consent(&a, NULL);
    ask(&a, question_text, SLUICE_PRIVACY_POLICY);
    EXPECT(has_reason(&a, SLUICE_REASON_CLOUD_PIN_MISMATCH));
    EXPECT(a.done.outcome == SLUICE_OUTCOME_LOW_CONFIDENCE);
    assert_int_equal(tapped(&a), 0);
    free(endpoint);
    app_close(&a);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_weak_answer_escalates_with_consent_and_leaves_a_receipt),
        cmocka_unit_test(without_consent_nothing_leaves),
        cmocka_unit_test(a_local_only_request_never_leaves_even_with_consent),
        cmocka_unit_test(a_request_with_a_schema_never_leaves_whatever_the_policy_prefers),
        cmocka_unit_test(a_class_that_no_rule_names_does_not_leave),
        cmocka_unit_test(consent_asked_for_at_the_moment_decides),
        cmocka_unit_test(a_withdrawn_consent_closes_the_way),
        cmocka_unit_test(a_cut_answer_is_never_passed_off_as_whole),
        cmocka_unit_test(when_the_gateway_is_down_the_local_answer_is_given),
        cmocka_unit_test(a_wrong_pin_is_named_and_the_request_stays_here),
    };

    gateway_path = argc > 1 ? argv[1] : "";
    model_path = argc > 2 ? argv[2] : "";
    if (access(gateway_path, X_OK) != 0 || access(model_path, R_OK) != 0) {
        fprintf(stderr, "test_escalation: needs the gateway and a model: test_escalation <sluice-gateway> <model.gguf>\n");
        return 77;
    }
    house_programs(gateway_path, model_path);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
