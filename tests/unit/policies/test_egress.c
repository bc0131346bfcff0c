/* test_egress.c - no grant without policy, consent and a durable entry; no second use, no other payload, no other time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "policies/egress.h"
#include "sdk/base/json.h"
#include "sdk/crypto/crypto.h"
#include "tests/support/cm.h"
#include "tests/support/fake_platform.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/policies/policy_fixture.h"

#include <stdio.h>
#include <stdlib.h>

#define P SLUICE_CLASS_PROMPT
static const int64_t START = 1767225600000;
static const uint64_t LATER = 60000000; /* the fake monotonic clock starts at one second */

typedef struct fixture {
    fake_platform fp;
    temp_dir dir;
    sluice_policy *policy;
    sluice_ledger *ledger;
    sluice_consent_store *store;
    sluice_egress_gate *gate;
    char last[8192]; /* entry of the ledger */
    size_t n_entries;
} fixture;

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);

    if (f == NULL)
        return -1;
    fake_platform_init(&f->fp, 5);
    temp_dir_open(&f->dir);
    f->policy = fixture_policy(FIXTURE_POLICY);
    assert_non_null(f->policy);
    assert_int_equal(sluice_ledger_open(&f->ledger, f->dir.path, &f->fp.platform, NULL, NULL), SLUICE_OK);
    assert_int_equal(sluice_consent_open(&f->store, f->ledger, &f->fp.platform, NULL, NULL), SLUICE_OK);
    assert_int_equal(sluice_egress_open(&f->gate, f->policy, f->store, f->ledger, &f->fp.platform, NULL, NULL), SLUICE_OK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;

    sluice_egress_close(f->gate);
    sluice_consent_close(f->store);
    sluice_ledger_close(f->ledger);
    sluice_policy_close(f->policy);
    temp_dir_close(&f->dir);
    fake_platform_deinit(&f->fp);
    free(f);
    return 0;
}

static bool on_line(const char *json, size_t len, void *user)
{
    fixture *f = user;

    memcpy(f->last, json, len + 1);
    f->n_entries++;
    return true;
}

static const char *last_entry(fixture *f)
{
    f->n_entries = 0;
    f->last[0] = '\0';
    assert_int_equal(sluice_ledger_walk(f->ledger, on_line, f, NULL), SLUICE_OK);
    return f->last;
}

static size_t n_entries(fixture *f)
{
    (void)last_entry(f);
    return f->n_entries;
}

static sluice_egress_request request(void)
{
    return (sluice_egress_request){ .request_id = 77, .attempt = 1, .query = { 0, 0, P, false, SLUICE_NETWORK_UNMETERED, 0 },
                                    .plaintext = SLUICE_SPAN_LIT("the secret prompt"), .expires_us = LATER };
}

static void give(fixture *f, sluice_consent_scope scope, int64_t until, char *id)
{
    const sluice_consent k = {
        .size = sizeof k, .purpose = "answer_question", .endpoint = "acme", .classes = P | SLUICE_CLASS_EMAIL, .scope = scope, .valid_until_ms = until
    };

    assert_int_equal(sluice_consent_add(f->store, f->policy, &k, id, NULL), SLUICE_OK);
}

static sluice_grant *granted(fixture *f, const sluice_egress_request *r)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_reason reason;
    sluice_grant *g;

    if (sluice_egress_grant(f->gate, r, &g, &reason, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
    assert_non_null(g);
    assert_int_equal(reason, SLUICE_REASON_PERMITTED);
    return g;
}

static void expect_refusal(fixture *f, const sluice_egress_request *r, sluice_status status, sluice_reason want)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_reason reason;
    sluice_grant *g = (sluice_grant *)f;
    sluice_status st = sluice_egress_grant(f->gate, r, &g, &reason, &err);

    if (st != status || reason != want || g != NULL || err.status != st)
        fail_msg("%s (%s), not %s (%s)", sluice_status_name(st), sluice_reason_name(reason), sluice_status_name(status), sluice_reason_name(want));
}

/* ---- granted ------------------------------------------------------------------------------------- */

static void a_grant_is_recorded_before_it_exists(void **state)
{
    fixture *f = *state;
    sluice_egress_request r = request();
    char id[SLUICE_ID_MAX], hex[65];
    sluice_json_doc *doc;
    const sluice_json *root;
    const sluice_destination *d;
    sluice_grant *g;
    uint8_t digest[32];

    give(f, SLUICE_CONSENT_UNTIL, 0, id);
    r.query.classes |= SLUICE_CLASS_EMAIL;
    g = granted(f, &r);
    d = sluice_grant_destination(g);
    assert_string_equal(d->endpoint_id, "acme");
    assert_string_equal(d->url, "https://gateway.example:8443/ohttp");
    assert_ptr_equal(d->ca_pem, f->policy->endpoints[0].ca_pem);
    assert_int_equal(d->n_spki_pins, 2);
    assert_string_equal(d->spki_pins[1], f->policy->endpoints[0].spki_pins[1]);
    assert_int_equal(d->key_config.len, 43);
    assert_int_equal(d->response_bytes_max, 1 << 20);
    assert_string_equal(sluice_grant_consent_id(g), id);
    assert_string_equal(sluice_grant_rule_id(g), "ask");
    assert_int_equal(sluice_grant_ledger_seq(g), 2);

    assert_int_equal(sluice_json_parse(&doc, sluice_span_str(last_entry(f)), NULL, NULL, NULL), SLUICE_OK);
    root = sluice_json_root(doc);
    assert_true(sluice_json_get(root, "seq")->number == 2.0);
    assert_string_equal(sluice_json_get(root, "type")->string, "egress");
    assert_string_equal(sluice_json_get(root, "verdict")->string, "granted");
    assert_string_equal(sluice_json_get(root, "reason")->string, "permitted");
    assert_true(sluice_json_get(root, "request")->number == 77.0);
    assert_true(sluice_json_get(root, "attempt")->number == 1.0);
    assert_string_equal(sluice_json_get(root, "endpoint")->string, "acme");
    assert_string_equal(sluice_json_get(root, "purpose")->string, "answer_question");
    assert_string_equal(sluice_json_get(root, "classes")->string, "prompt, email");
    assert_string_equal(sluice_json_get(root, "rule")->string, "ask");
    assert_string_equal(sluice_json_get(root, "consent")->string, id);
    assert_true(sluice_json_get(root, "plaintext_bytes")->number == 17.0);
    sluice_ledger_digest(f->ledger, r.plaintext, digest);
    sluice_hex(hex, digest, 32);
    assert_string_equal(sluice_json_get(root, "digest")->string, hex);
    sluice_hex(hex, f->policy->hash, 32);
    assert_string_equal(sluice_json_get(root, "policy_hash")->string, hex);
    assert_string_equal(sluice_json_get(root, "policy")->string, "demo");
    assert_true(sluice_json_get(root, "policy_version")->number == 7.0);
    assert_null(strstr(f->last, "secret prompt"));
    sluice_json_close(doc);
    assert_int_equal(sluice_grant_spend(g, r.plaintext, LATER - 1, NULL), SLUICE_OK);
    sluice_grant_close(g);
    sluice_grant_close(NULL);
}

static void a_rule_without_consent_needs_none(void **state)
{
    fixture *f = *state;
    sluice_egress_request r = request();
    sluice_grant *g;
    int rule;
    size_t index;

    r.query.purpose = r.query.endpoint = 1;
    assert_int_equal(sluice_egress_check(f->gate, &r.query, &rule, &index), SLUICE_REASON_PERMITTED);
    assert_int_equal(rule, 1);
    assert_true(index == SIZE_MAX);
    g = granted(f, &r);
    assert_string_equal(sluice_grant_consent_id(g), "");
    assert_string_equal(sluice_grant_rule_id(g), "plain");
    assert_int_equal(sluice_grant_spend(g, r.plaintext, 0, NULL), SLUICE_OK);
    sluice_grant_close(g);
}

/* ---- refused ------------------------------------------------------------------------------------- */

static void every_reason_refuses_and_is_recorded(void **state)
{
    static const struct {
        size_t purpose, endpoint;
        sluice_data_classes classes;
        bool local;
        sluice_network network;
        int64_t wall;
        sluice_status status;
        sluice_reason reason;
    } cases[] = {
        { 0, 0, P, true, SLUICE_NETWORK_UNMETERED, 5, SLUICE_ERR_POLICY, SLUICE_REASON_POLICY_LOCAL_ONLY },
        { 5, 0, P, false, SLUICE_NETWORK_UNMETERED, 5, SLUICE_ERR_POLICY, SLUICE_REASON_PURPOSE_UNKNOWN },
        { 0, 5, P, false, SLUICE_NETWORK_UNMETERED, 5, SLUICE_ERR_POLICY, SLUICE_REASON_CLOUD_NO_ENDPOINT },
        { 0, 0, P | 1u << 12, false, SLUICE_NETWORK_UNMETERED, 5, SLUICE_ERR_POLICY, SLUICE_REASON_CLASS_UNKNOWN },
        { 0, 0, P, false, SLUICE_NETWORK_UNMETERED, -1, SLUICE_ERR_POLICY, SLUICE_REASON_CLOCK_UNTRUSTED },
        { 0, 1, P, false, SLUICE_NETWORK_UNMETERED, 5, SLUICE_ERR_POLICY, SLUICE_REASON_POLICY_NO_RULE },
        { 1, 1, P, false, SLUICE_NETWORK_METERED, 5, SLUICE_ERR_POLICY, SLUICE_REASON_POLICY_FORBIDS },
        { 0, 0, P, false, SLUICE_NETWORK_UNMETERED, 5, SLUICE_ERR_CONSENT, SLUICE_REASON_CONSENT_MISSING },
    };
    fixture *f = *state;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sluice_egress_request r = request();
        size_t before = n_entries(f);

        r.query = (sluice_policy_query){ cases[i].purpose, cases[i].endpoint, cases[i].classes, cases[i].local, cases[i].network, 99 };
        fake_platform_set_wall_ms(&f->fp, cases[i].wall < 0 ? -1 : START);
        expect_refusal(f, &r, cases[i].status, cases[i].reason);
        assert_int_equal(sluice_egress_check(f->gate, &r.query, NULL, NULL), cases[i].reason);
        assert_int_equal(n_entries(f), before + 1);
        assert_non_null(strstr(f->last, "\"verdict\":\"refused\""));
        assert_non_null(strstr(f->last, sluice_reason_name(cases[i].reason)));
    }
}

static void consents_that_ended_refuse_with_their_reason(void **state)
{
    fixture *f = *state;
    sluice_egress_request r = request();
    char id[SLUICE_ID_MAX];

    give(f, SLUICE_CONSENT_UNTIL, START + 1000, id);
    fake_platform_set_wall_ms(&f->fp, START + 1000);
    expect_refusal(f, &r, SLUICE_ERR_CONSENT, SLUICE_REASON_CONSENT_EXPIRED);
    give(f, SLUICE_CONSENT_UNTIL, 0, id);
    assert_int_equal(sluice_consent_withdraw(f->store, id, NULL), SLUICE_OK);
    expect_refusal(f, &r, SLUICE_ERR_CONSENT, SLUICE_REASON_CONSENT_REVOKED);
    assert_int_equal(sluice_consent_refuse(f->store, f->policy, 0, 0, P, NULL), SLUICE_OK);
    expect_refusal(f, &r, SLUICE_ERR_CONSENT, SLUICE_REASON_CONSENT_REFUSED);
}

static void sizes_and_deadlines_are_kept(void **state)
{
    static uint8_t large[65537];
    fixture *f = *state;
    sluice_egress_request r = request();

    give(f, SLUICE_CONSENT_ONCE, 0, NULL);
    r.plaintext = SLUICE_SPAN_EMPTY;
    expect_refusal(f, &r, SLUICE_ERR_POLICY, SLUICE_REASON_CLOUD_TOO_LARGE);
    r.plaintext = sluice_span_of(large, sizeof large);
    expect_refusal(f, &r, SLUICE_ERR_POLICY, SLUICE_REASON_CLOUD_TOO_LARGE);
    r = request();
    r.expires_us = f->fp.now_us;
    expect_refusal(f, &r, SLUICE_ERR_TIMEOUT, SLUICE_REASON_DEADLINE);
    r.plaintext = sluice_span_of(large, sizeof large - 1);
    r.expires_us = LATER;
    sluice_grant_close(granted(f, &r)); /* the refusals have not spent the consent for once */
    expect_refusal(f, &r, SLUICE_ERR_CONSENT, SLUICE_REASON_CONSENT_MISSING);
}

static void what_is_missing_refuses(void **state)
{
    fixture *f = *state;
    sluice_egress_request r = request();
    sluice_egress_gate *real = f->gate;
    static const struct { bool policy, store, ledger; sluice_status status; sluice_reason reason; } cases[] = {
        { false, true, true, SLUICE_ERR_POLICY, SLUICE_REASON_POLICY_NO_RULE },
        { true, false, true, SLUICE_ERR_IO, SLUICE_REASON_LEDGER_UNAVAILABLE },
        { true, true, false, SLUICE_ERR_IO, SLUICE_REASON_LEDGER_UNAVAILABLE },
        { false, false, false, SLUICE_ERR_POLICY, SLUICE_REASON_POLICY_NO_RULE },
    };
    sluice_reason reason;
    sluice_grant *g;

    give(f, SLUICE_CONSENT_UNTIL, 0, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(sluice_egress_open(&f->gate, cases[i].policy ? f->policy : NULL, cases[i].store ? f->store : NULL,
                                            cases[i].ledger ? f->ledger : NULL, &f->fp.platform, NULL, NULL),
                         SLUICE_OK);
        expect_refusal(f, &r, cases[i].status, cases[i].reason);
        sluice_egress_close(f->gate);
    }
    f->gate = real;
    assert_int_equal(sluice_egress_open(&real, f->policy, f->store, f->ledger, NULL, NULL, NULL), SLUICE_ERR_ARGUMENT);
    assert_null(real);
    sluice_egress_close(NULL);
    assert_int_equal(sluice_egress_check(NULL, &r.query, NULL, NULL), SLUICE_REASON_POLICY_NO_RULE);
    assert_int_equal(sluice_egress_check(f->gate, NULL, NULL, NULL), SLUICE_REASON_POLICY_NO_RULE);
    assert_int_equal(sluice_egress_grant(NULL, &r, &g, &reason, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_egress_grant(f->gate, NULL, &g, &reason, NULL), SLUICE_ERR_ARGUMENT);
    r.attempt = 0;
    assert_int_equal(sluice_egress_grant(f->gate, &r, &g, &reason, NULL), SLUICE_ERR_ARGUMENT);
    r.attempt = 1;
    r.plaintext = sluice_span_of(NULL, 5);
    assert_int_equal(sluice_egress_grant(f->gate, &r, &g, &reason, NULL), SLUICE_ERR_ARGUMENT);
    assert_null(g);
}

static void a_disk_that_fails_lets_nothing_out(void **state)
{
    static const fake_op ops[] = { FAKE_WRITE, FAKE_SYNC, FAKE_RENAME };

    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        for (size_t nth = 0; nth < 4; nth++) {
            fixture *f = *state;
            sluice_egress_request r = request();
            sluice_reason reason;
            sluice_grant *g;
            sluice_error err = SLUICE_ERROR_INIT;
            sluice_status st;

            give(f, SLUICE_CONSENT_ONCE, 0, NULL);
            fake_platform_fail_on(&f->fp, ops[i], nth);
            st = sluice_egress_grant(f->gate, &r, &g, &reason, &err);
            fake_platform_heal(&f->fp);
            if (st == SLUICE_OK) { /* more than two entries need */
                assert_true(nth >= 2);
                sluice_grant_close(g);
            } else {
                assert_int_equal(st, SLUICE_ERR_IO);
                assert_int_equal(err.status, st);
                assert_int_equal(reason, SLUICE_REASON_LEDGER_UNAVAILABLE);
                assert_null(g);
                expect_refusal(f, &r, SLUICE_ERR_IO, SLUICE_REASON_LEDGER_UNAVAILABLE); /* also when the disk is well again */
                assert_int_equal(sluice_egress_grant(f->gate, &r, &g, &reason, NULL), SLUICE_ERR_IO); /* with no record of errors */
            }
            tear_down(state);
            assert_int_equal(set_up(state), 0);
        }
}

static void a_clock_set_back_revives_no_policy(void **state)
{
    fixture *f = *state;
    sluice_egress_request r = request();

    give(f, SLUICE_CONSENT_UNTIL, 0, NULL);
    f->policy->expires_ms = START + 1000;
    assert_int_equal(sluice_egress_check(f->gate, &r.query, NULL, NULL), SLUICE_REASON_PERMITTED);
    fake_platform_set_wall_ms(&f->fp, START + 1000);
    assert_int_equal(sluice_egress_check(f->gate, &r.query, NULL, NULL), SLUICE_REASON_POLICY_EXPIRED);
    fake_platform_set_wall_ms(&f->fp, START);
    assert_int_equal(sluice_egress_check(f->gate, &r.query, NULL, NULL), SLUICE_REASON_POLICY_EXPIRED);
}

static void checking_writes_and_spends_nothing(void **state)
{
    fixture *f = *state;
    sluice_egress_request r = request();
    size_t before, index;

    give(f, SLUICE_CONSENT_ONCE, 0, NULL);
    before = n_entries(f);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(sluice_egress_check(f->gate, &r.query, NULL, &index), SLUICE_REASON_PERMITTED);
        assert_int_equal(index, 0);
    }
    assert_int_equal(n_entries(f), before);
}

/* ---- spending ------------------------------------------------------------------------------------ */

static void a_grant_is_for_one_use_of_one_payload_in_time(void **state)
{
    static const struct { const char *why, *payload; uint64_t now; sluice_status want;
    } cases[] = {
        { "the payload in time", "the secret prompt", 1, SLUICE_OK },      { "another payload", "the secret prompu", 1, SLUICE_ERR_INTEGRITY },
        { "a longer one", "the secret prompt ", 1, SLUICE_ERR_INTEGRITY }, { "none", "", 1, SLUICE_ERR_INTEGRITY },
        { "too late", "the secret prompt", LATER, SLUICE_ERR_TIMEOUT },
    };
    fixture *f = *state;
    sluice_egress_request r = request();

    give(f, SLUICE_CONSENT_UNTIL, 0, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sluice_grant *g = granted(f, &r);

        if (sluice_grant_spend(g, sluice_span_str(cases[i].payload), cases[i].now, NULL) != cases[i].want)
            fail_msg("%s", cases[i].why);
        assert_int_equal(sluice_grant_spend(g, r.plaintext, 1, NULL), SLUICE_ERR_STATE); /* one try, whatever came of it */
        sluice_grant_close(g);
    }
    assert_int_equal(sluice_grant_spend(NULL, r.plaintext, 1, NULL), SLUICE_ERR_ARGUMENT);
}

static void a_withdrawal_stops_a_grant_that_is_out(void **state)
{
    fixture *f = *state;
    sluice_egress_request r = request();
    char id[SLUICE_ID_MAX], other[SLUICE_ID_MAX];
    sluice_grant *g;

    give(f, SLUICE_CONSENT_UNTIL, 0, other);
    give(f, SLUICE_CONSENT_UNTIL, 0, id);
    g = granted(f, &r);
    assert_int_equal(sluice_consent_withdraw(f->store, other, NULL), SLUICE_OK); /* not this one */
    assert_int_equal(sluice_grant_spend(g, r.plaintext, 1, NULL), SLUICE_OK);
    sluice_grant_close(g);
    g = granted(f, &r);
    fake_platform_fail_on(&f->fp, FAKE_WRITE, 0); /* even one that cannot be written */
    assert_int_equal(sluice_consent_withdraw(f->store, id, NULL), SLUICE_ERR_IO);
    fake_platform_heal(&f->fp);
    assert_int_equal(sluice_grant_spend(g, r.plaintext, 1, NULL), SLUICE_ERR_CONSENT);
    sluice_grant_close(g);
}

static void a_refusal_stops_a_grant_that_is_out(void **state)
{
    fixture *f = *state;
    sluice_egress_request r = request();
    sluice_grant *g;

    give(f, SLUICE_CONSENT_ONCE, 0, NULL);
    g = granted(f, &r);
    assert_int_equal(sluice_consent_refuse(f->store, f->policy, 0, 0, P, NULL), SLUICE_OK);
    assert_int_equal(sluice_grant_spend(g, r.plaintext, 1, NULL), SLUICE_ERR_CONSENT);
    sluice_grant_close(g);
}

static void a_grant_ends_with_its_consent(void **state)
{
    fixture *f = *state;
    sluice_egress_request r = request();
    sluice_grant *g;

    give(f, SLUICE_CONSENT_UNTIL, START + 2000, NULL);
    g = granted(f, &r); /* at one second */
    assert_int_equal(sluice_grant_spend(g, r.plaintext, 3000000, NULL), SLUICE_ERR_TIMEOUT);
    sluice_grant_close(g);
    g = granted(f, &r);
    assert_int_equal(sluice_grant_spend(g, r.plaintext, 2999999, NULL), SLUICE_OK);
    sluice_grant_close(g);
    r.expires_us = 2000000; /* the request ends earlier */
    g = granted(f, &r);
    assert_int_equal(sluice_grant_spend(g, r.plaintext, 2000000, NULL), SLUICE_ERR_TIMEOUT);
    sluice_grant_close(g);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(a_grant_is_recorded_before_it_exists),
        T(a_rule_without_consent_needs_none),
        T(every_reason_refuses_and_is_recorded),
        T(consents_that_ended_refuse_with_their_reason),
        T(sizes_and_deadlines_are_kept),
        T(what_is_missing_refuses),
        T(a_disk_that_fails_lets_nothing_out),
        T(a_clock_set_back_revives_no_policy),
        T(checking_writes_and_spends_nothing),
        T(a_grant_is_for_one_use_of_one_payload_in_time),
        T(a_withdrawal_stops_a_grant_that_is_out),
        T(a_refusal_stops_a_grant_that_is_out),
        T(a_grant_ends_with_its_consent),
    };

    return cmocka_run_group_tests_name("egress", tests, NULL, NULL);
}
