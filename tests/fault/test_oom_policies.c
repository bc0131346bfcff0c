/* test_oom_policies.c - every allocation of the room fails once: the status says so, nothing is leaked, nothing is half done.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/unit/policies/memory_files.h"

#include "policies/egress.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"
#include "tests/support/fake_platform.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/policies/policy_fixture.h"

static sluice_status read_ca(const char *name, sluice_buf *out, void *user, sluice_error *err)
{
    (void)name;
    (void)user;
    return sluice_buf_append_str(out, "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n") ? SLUICE_OK
                                                                                                        : sluice_buf_error(out, "ca", err);
}

static sluice_status parse(const sluice_allocator *al, void *user)
{
    sluice_policy *p = (sluice_policy *)user;
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_status st = sluice_policy_parse(&p, sluice_span_str(user), read_ca, NULL, NULL, NULL, al, &err);

    assert_int_equal(st == SLUICE_OK, p != NULL);
    assert_int_equal(err.status, st);
    sluice_policy_close(p);
    return st;
}

static void parsing_survives_every_failed_allocation(void **state)
{
    static char full[] = FIXTURE_POLICY;
    static char with_file[] = FIXTURE_HEAD "\"endpoints\":[{\"id\":\"a\",\"url\":\"https://g/\",\"adapter\":\"openai-chat\",\"model\":\"m\","
                                           "\"target\":{\"authority\":\"h\",\"path\":\"/\"},\"spki_pins\":[\"" FIXTURE_PIN
                                           "\"],\"key_config\":\"" FIXTURE_KEY_CONFIG "\",\"ca_file\":\"ca.pem\"}]}";

    (void)state;
    assert_in_range(fake_allocator_sweep(parse, full), 3, 10000);
    assert_in_range(fake_allocator_sweep(parse, with_file), 4, 10000);
}

/* One life of ledger, consents and gate, from opening to a spent grant. */
typedef struct world {
    fake_platform fp;
    temp_dir dir;
    sluice_policy *policy;
} world;

static sluice_status live(const sluice_allocator *al, void *user)
{
    world *w = user;
    const sluice_consent k = {
        .size = sizeof k, .purpose = "answer_question", .endpoint = "acme", .classes = SLUICE_CLASS_PROMPT, .scope = SLUICE_CONSENT_ONCE
    };
    const sluice_egress_request r = { .request_id = 1, .attempt = 1, .query = { 0, 0, SLUICE_CLASS_PROMPT, false, SLUICE_NETWORK_UNMETERED, 0 },
                                      .plaintext = SLUICE_SPAN_LIT("hello"), .expires_us = UINT64_MAX };
    sluice_ledger *l = NULL;
    sluice_consent_store *c = NULL;
    sluice_egress_gate *gate = NULL;
    sluice_grant *g = NULL;
    sluice_reason reason;
    sluice_status st;

    temp_dir_close(&w->dir); /* from nothing each time */
    temp_dir_open(&w->dir);
    w->fp.n_keys = 0;
    st = sluice_ledger_open(&l, w->dir.path, &w->fp.platform, al, NULL);
    assert_int_equal(st == SLUICE_OK, l != NULL);
    for (int i = 0; st == SLUICE_OK && i < 20; i++) /* more than the store's first array */
        st = sluice_ledger_append(l, "consent", (const sluice_ledger_field[]){ { "event", "refused", 0 }, { "id", "abcdefghijklmnopqrst" + i, 0 } },
                                  2, NULL, NULL);
    if (st == SLUICE_OK)
        st = sluice_consent_open(&c, l, &w->fp.platform, al, NULL);
    assert_int_equal(st == SLUICE_OK, c != NULL);
    if (st == SLUICE_OK)
        st = sluice_consent_add(c, w->policy, &k, NULL, NULL);
    if (st == SLUICE_OK)
        st = sluice_egress_open(&gate, w->policy, c, l, &w->fp.platform, al, NULL);
    if (st == SLUICE_OK)
        st = sluice_egress_grant(gate, &r, &g, &reason, NULL);
    assert_int_equal(st == SLUICE_OK, g != NULL);
    if (st == SLUICE_OK)
        st = sluice_grant_spend(g, r.plaintext, 0, NULL);
    if (st == SLUICE_OK)
        st = sluice_consent_refuse(c, w->policy, 0, 0, SLUICE_CLASS_PROMPT, NULL);
    if (st == SLUICE_OK)
        st = sluice_ledger_check(l, NULL, NULL);
    if (l != NULL)
        assert_true(sluice_ledger_is_writable(l)); /* want of memory breaks nothing */
    sluice_grant_close(g);
    sluice_egress_close(gate);
    sluice_consent_close(c);
    sluice_ledger_close(l);
    return st;
}

static void a_whole_life_survives_every_failed_allocation(void **state)
{
    static world w;

    (void)state;
    fake_platform_init(&w.fp, 1);
    temp_dir_open(&w.dir);
    w.policy = fixture_policy(FIXTURE_POLICY);
    assert_non_null(w.policy);
    assert_in_range(fake_allocator_sweep(live, &w), 30, 10000);
    sluice_policy_close(w.policy);
    temp_dir_close(&w.dir);
    fake_platform_deinit(&w.fp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parsing_survives_every_failed_allocation),
        cmocka_unit_test(a_whole_life_survives_every_failed_allocation),
    };

    prefer_memory_for_files();
    return cmocka_run_group_tests_name("oom_policies", tests, NULL, NULL);
}
