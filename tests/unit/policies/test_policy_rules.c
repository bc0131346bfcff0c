/* test_policy_rules.c - evaluation of rules, against a table, against properties, and against a second implementation.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "policies/policy.h"
#include "tests/support/cm.h"
#include "tests/unit/policies/policy_fixture.h"

#include <stdio.h>
#include <stdlib.h>

#define P SLUICE_CLASS_PROMPT
static const int64_t NOW = 1767225600000;

static void rules_decide_as_the_table_says(void **state)
{
    static const struct {
        const char *why;
        sluice_policy_query q;
        sluice_reason reason;
        int rule;
        bool consent;
    } cases[] = {
        { "the permit matches", { 0, 0, P, false, SLUICE_NETWORK_UNMETERED, 5 }, SLUICE_REASON_PERMITTED, 0, true },
        { "a subset of its classes", { 0, 0, P | SLUICE_CLASS_EMAIL, false, SLUICE_NETWORK_METERED, 5 }, SLUICE_REASON_PERMITTED, 0, true },
        { "a class that it does not name",
          { 0, 0, P | SLUICE_CLASS_PHONE, false, SLUICE_NETWORK_UNMETERED, 5 },
          SLUICE_REASON_POLICY_NO_RULE,
          -1,
          true },
        { "another endpoint", { 0, 1, P, false, SLUICE_NETWORK_UNMETERED, 5 }, SLUICE_REASON_POLICY_NO_RULE, -1, true },
        { "another purpose", { 1, 0, P, false, SLUICE_NETWORK_UNMETERED, 5 }, SLUICE_REASON_POLICY_NO_RULE, -1, true },
        { "without consent", { 1, 1, P, false, SLUICE_NETWORK_UNMETERED, 5 }, SLUICE_REASON_PERMITTED, 1, false },
        { "forbidden on a metered network", { 1, 1, P, false, SLUICE_NETWORK_METERED, 5 }, SLUICE_REASON_POLICY_FORBIDS, 3, true },
        { "an unknown network may be metered", { 1, 1, P, false, SLUICE_NETWORK_UNKNOWN, 5 }, SLUICE_REASON_POLICY_FORBIDS, 3, true },
        { "so may one that is not in the list", { 1, 1, P, false, (sluice_network)77, 5 }, SLUICE_REASON_POLICY_FORBIDS, 3, true },
        { "no network is not metered", { 1, 1, P, false, SLUICE_NETWORK_NONE, 5 }, SLUICE_REASON_PERMITTED, 1, false },
        { "forbidden class beats no rule",
          { 0, 1, P | SLUICE_CLASS_PAYMENT_CARD, false, SLUICE_NETWORK_UNMETERED, 5 },
          SLUICE_REASON_POLICY_FORBIDS,
          2,
          true },
        { "the request stays here", { 0, 0, P, true, SLUICE_NETWORK_UNMETERED, 5 }, SLUICE_REASON_POLICY_LOCAL_ONLY, -1, true },
        { "purpose out of range", { 2, 0, P, false, SLUICE_NETWORK_UNMETERED, 5 }, SLUICE_REASON_PURPOSE_UNKNOWN, -1, true },
        { "purpose far out of range", { SIZE_MAX, 0, P, false, SLUICE_NETWORK_UNMETERED, 5 }, SLUICE_REASON_PURPOSE_UNKNOWN, -1, true },
        { "endpoint out of range", { 0, 2, P, false, SLUICE_NETWORK_UNMETERED, 5 }, SLUICE_REASON_CLOUD_NO_ENDPOINT, -1, true },
        { "no class at all", { 0, 0, 0, false, SLUICE_NETWORK_UNMETERED, 5 }, SLUICE_REASON_CLASS_UNKNOWN, -1, true },
        { "classes without the prompt", { 0, 0, SLUICE_CLASS_EMAIL, false, SLUICE_NETWORK_UNMETERED, 5 }, SLUICE_REASON_CLASS_UNKNOWN, -1, true },
        { "a class of another version", { 0, 0, P | 1u << 20, false, SLUICE_NETWORK_UNMETERED, 5 }, SLUICE_REASON_CLASS_UNKNOWN, -1, true },
        { "a clock that cannot be trusted", { 0, 0, P, false, SLUICE_NETWORK_UNMETERED, -1 }, SLUICE_REASON_CLOCK_UNTRUSTED, -1, true },
    };
    sluice_policy *p = fixture_policy(FIXTURE_POLICY);

    (void)state;
    assert_non_null(p);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sluice_policy_verdict v;

        memset(&v, 0x5a, sizeof v);
        sluice_policy_evaluate(p, &cases[i].q, &v);
        if (v.reason != cases[i].reason || v.rule != cases[i].rule || v.requires_consent != cases[i].consent ||
            v.is_permitted != (v.reason == SLUICE_REASON_PERMITTED))
            fail_msg("%s: %s, rule %d", cases[i].why, sluice_reason_name(v.reason), v.rule);
    }
    sluice_policy_close(p);
}

static void local_only_and_expiry_come_before_rules(void **state)
{
    sluice_policy *p = fixture_policy(FIXTURE_POLICY);
    const sluice_policy_query q = { 0, 0, P, false, SLUICE_NETWORK_UNMETERED, NOW };
    sluice_policy_verdict v;

    (void)state;
    p->expires_ms = NOW + 1;
    sluice_policy_evaluate(p, &q, &v);
    assert_int_equal(v.reason, SLUICE_REASON_PERMITTED);
    p->expires_ms = NOW;
    sluice_policy_evaluate(p, &q, &v);
    assert_int_equal(v.reason, SLUICE_REASON_POLICY_EXPIRED);
    assert_false(v.is_permitted);
    p->mode = SLUICE_MODE_LOCAL_ONLY;
    sluice_policy_evaluate(p, &q, &v);
    assert_int_equal(v.reason, SLUICE_REASON_POLICY_LOCAL_ONLY);
    sluice_policy_evaluate(NULL, &q, &v);
    assert_int_equal(v.reason, SLUICE_REASON_POLICY_NO_RULE);
    sluice_policy_evaluate(p, NULL, &v);
    assert_false(v.is_permitted);
    sluice_policy_close(p);
}

static void an_effect_that_is_not_known_forbids(void **state)
{
    sluice_policy *p = fixture_policy(FIXTURE_POLICY);
    const sluice_policy_query q = { 0, 0, P | SLUICE_CLASS_PHONE, false, SLUICE_NETWORK_UNMETERED, NOW };
    sluice_policy_verdict v;

    (void)state;
    p->rules[1] = p->rules[0];
    p->rules[1].effect = (sluice_rule_effect)9;
    sluice_policy_evaluate(p, &q, &v);
    assert_int_equal(v.reason, SLUICE_REASON_POLICY_FORBIDS);
    assert_int_equal(v.rule, 1); /* it intersects, as a forbid does */
    sluice_policy_close(p);
}

static void the_strictest_permit_counts_in_any_order(void **state)
{
    sluice_policy *p = fixture_policy(FIXTURE_POLICY);
    const sluice_policy_query q = { 0, 0, P, false, SLUICE_NETWORK_UNMETERED, NOW };
    sluice_policy_verdict v;

    (void)state;
    p->rules[1] = p->rules[0];
    p->rules[1].requires_consent = false;
    sluice_policy_evaluate(p, &q, &v);
    assert_true(v.is_permitted && v.requires_consent && v.rule == 0);
    p->rules[0].requires_consent = false;
    p->rules[1].requires_consent = true;
    sluice_policy_evaluate(p, &q, &v);
    assert_true(v.is_permitted && v.requires_consent && v.rule == 1);
    p->rules[1].requires_consent = false;
    sluice_policy_evaluate(p, &q, &v);
    assert_true(v.is_permitted && !v.requires_consent && v.rule == 0);
    sluice_policy_close(p);
}

static void a_miss_names_the_first_false_condition(void **state)
{
    static const struct { size_t rule; sluice_policy_query q; const char *want;
    } cases[] = {
        { 0, { 0, 0, P, false, SLUICE_NETWORK_METERED, 5 }, NULL },
        { 0, { 1, 0, P, false, SLUICE_NETWORK_METERED, 5 }, "purposes: the request's is summarise" },
        { 0, { 9, 0, P, false, SLUICE_NETWORK_METERED, 5 }, "purposes: the request's is not known" },
        { 0, { 0, 1, P, false, SLUICE_NETWORK_METERED, 5 }, "endpoints: the endpoint is other" },
        { 0, { 0, 9, P, false, SLUICE_NETWORK_METERED, 5 }, "endpoints: the endpoint is not known" },
        { 0,
          { 0, 0, P | SLUICE_CLASS_PAYMENT_CARD | SLUICE_CLASS_EMAIL, false, SLUICE_NETWORK_METERED, 5 },
          "classes: the request has payment_card" },
        { 0, { 0, 0, P | 1u << 20, false, SLUICE_NETWORK_METERED, 5 }, "classes: the request has a class that is not known" },
        { 2, { 0, 0, P, false, SLUICE_NETWORK_METERED, 5 }, "classes: the request has none of payment_card" },
        { 2, { 0, 0, P | SLUICE_CLASS_PAYMENT_CARD, false, SLUICE_NETWORK_METERED, 5 }, NULL },
        { 3, { 1, 0, P, false, SLUICE_NETWORK_UNMETERED, 5 }, "networks: the network is not metered" },
        { 4, { 1, 0, P, false, SLUICE_NETWORK_UNMETERED, 5 }, "rule: there is no rule 4" },
    };
    sluice_policy *p = fixture_policy(FIXTURE_POLICY);
    char buf[200], tiny[4] = "abc";

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *got = sluice_policy_rule_miss(p, cases[i].rule, &cases[i].q, buf, sizeof buf);

        if ((got == NULL) != (cases[i].want == NULL) || (got != NULL && strcmp(got, cases[i].want) != 0))
            fail_msg("case %zu: %s", i, got != NULL ? got : "NULL");
    }
    assert_string_equal(sluice_policy_rule_miss(p, 0, &cases[1].q, tiny, sizeof tiny), "pur");
    assert_string_equal(sluice_policy_rule_miss(p, 0, &cases[1].q, tiny, 0), "");
    assert_string_equal(sluice_policy_rule_miss(p, 0, &cases[1].q, NULL, 9), "");
    assert_non_null(sluice_policy_rule_miss(NULL, 0, &cases[0].q, buf, sizeof buf));
    sluice_policy_close(p);
}

/* ---- a second implementation, written from docs/policy.md ---------------------------------------- */

/* Sets as lists of names, three-valued conditions, all rules looked at before anything is concluded. */
typedef enum truth { NO, YES, UNSURE } truth;

static truth all_of(truth a, truth b)
{
    return a == NO || b == NO ? NO : a == YES && b == YES ? YES : UNSURE;
}

static truth listed(uint32_t list, size_t i)
{
    for (size_t k = 0; k < 32; k++)
        if ((list & ((uint32_t)1 << k)) && k == i)
            return YES;
    return NO;
}

static truth rule_holds(const sluice_policy_rule *r, const sluice_policy_query *q)
{
    truth t = all_of(listed(r->purposes, q->purpose), listed(r->endpoints, q->endpoint));
    int shared = 0, foreign = 0;

    for (size_t k = 0; k < 32; k++)
        if (listed(q->classes, k) == YES) {
            shared += listed(r->classes, k) == YES;
            foreign += listed(r->classes, k) == NO;
        }
    if (r->effect == SLUICE_RULE_PERMIT)
        return all_of(t, foreign == 0 ? YES : NO);
    t = all_of(t, shared > 0 ? YES : NO);
    if (r->forbids_metered)
        t = all_of(t, q->network == SLUICE_NETWORK_METERED                                          ? YES
                      : q->network == SLUICE_NETWORK_UNMETERED || q->network == SLUICE_NETWORK_NONE ? NO
                                                                                                    : UNSURE);
    return t;
}

static void second_opinion(const sluice_policy *p, const sluice_policy_query *q, bool *permitted, bool *consent)
{
    bool forbidden = false, asks = false, permits = false;
    int n_known = 0;

    for (size_t i = 0; i < p->n_rules; i++) {
        truth t = rule_holds(&p->rules[i], q);

        if (p->rules[i].effect == SLUICE_RULE_FORBID)
            forbidden |= t != NO;
        else if (t == YES) {
            permits = true;
            asks |= p->rules[i].requires_consent;
        }
    }
    for (size_t k = 0; k < 32; k++)
        if (listed(q->classes, k) == YES)
            n_known += k < 10 ? 1 : -1000;
    *permitted = permits && !forbidden && !q->is_local_only && p->mode != SLUICE_MODE_LOCAL_ONLY && q->purpose < p->n_purposes &&
                 q->endpoint < p->n_endpoints && n_known > 0 && listed(q->classes, 0) == YES && q->wall_ms >= 0 &&
                 (p->expires_ms == 0 || q->wall_ms < p->expires_ms);
    *consent = asks;
}

static uint64_t random_state = 0x853c49e6748fea9bu;

static uint32_t random_u32(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32);
}

static uint32_t below(uint32_t n) { return random_u32() % n; }

static void random_policy(sluice_policy *p)
{
    memset(p, 0, sizeof *p);
    p->mode = (sluice_policy_mode)(below(20) == 0 ? SLUICE_MODE_LOCAL_ONLY : SLUICE_MODE_PREFER_LOCAL);
    p->n_purposes = 2 + below(3);
    p->n_endpoints = 2 + below(3);
    p->n_rules = 1 + below(8);
    p->expires_ms = below(4) == 0 ? 1 + below(100) : 0;
    for (size_t i = 0; i < p->n_rules; i++) {
        sluice_policy_rule *r = &p->rules[i];

        r->id = "r";
        r->effect = below(4) == 0 ? SLUICE_RULE_FORBID : SLUICE_RULE_PERMIT;
        r->purposes = below(3) == 0 ? UINT32_MAX : 1 + below(15);
        r->endpoints = below(3) == 0 ? UINT32_MAX : 1 + below(7);
        r->classes = r->effect == SLUICE_RULE_PERMIT ? (1 + below(31)) | (below(6) ? P : 0) : below(3) == 0 ? UINT32_MAX : 1 + below(31);
        r->requires_consent = r->effect == SLUICE_RULE_PERMIT && below(2);
        r->forbids_metered = r->effect == SLUICE_RULE_FORBID && below(2);
    }
}

static sluice_policy_query random_query(void)
{
    return (sluice_policy_query){ .purpose = below(3),
                                  .endpoint = below(3),
                                  .classes = (below(12) == 0 ? 0 : P) | (below(3) ? 0 : below(32)) | (below(30) == 0 ? 1u << (10 + below(22)) : 0),
                                  .is_local_only = below(30) == 0,
                                  .network = (sluice_network)below(5),
                                  .wall_ms = (int64_t)below(100) - (below(20) == 0 ? 200 : 0) };
}

static void a_second_implementation_agrees_on_random_policies(void **state)
{
    enum { POLICIES = 6000, QUERIES = 50 }; /* 300,000 pairs */
    static sluice_policy p;
    size_t n_permitted = 0, n_forbidden = 0;

    (void)state;
    for (int i = 0; i < POLICIES; i++) {
        random_policy(&p);
        for (int k = 0; k < QUERIES; k++) {
            sluice_policy_query q = random_query();
            sluice_policy_verdict v;
            bool permitted, consent;
            char buf[200];

            sluice_policy_evaluate(&p, &q, &v);
            second_opinion(&p, &q, &permitted, &consent);
            if (v.is_permitted != permitted || (permitted && v.requires_consent != consent) ||
                v.is_permitted != (v.reason == SLUICE_REASON_PERMITTED))
                fail_msg("policy %d, query %d: %s, the other says %d", i, k, sluice_reason_name(v.reason), permitted);
            n_permitted += permitted;
            n_forbidden += v.reason == SLUICE_REASON_POLICY_FORBIDS;
            if (v.rule >= 0) /* the rule that is named does match */
                assert_null(sluice_policy_rule_miss(&p, (size_t)v.rule, &q, buf, sizeof buf));
        }
    }
    assert_true(n_permitted > 20000 && n_forbidden > 20000); /* else it was no test */
}

static void adding_a_forbid_or_a_class_never_opens(void **state)
{
    static sluice_policy p;

    (void)state;
    for (int i = 0; i < 30000; i++) {
        sluice_policy_query q = random_query(), more = q;
        sluice_policy_verdict before, after;

        random_policy(&p);
        sluice_policy_evaluate(&p, &q, &before);
        more.classes |= 1u << (1 + below(9));
        sluice_policy_evaluate(&p, &more, &after);
        assert_false(after.is_permitted && !before.is_permitted);
        p.rules[p.n_rules].effect = SLUICE_RULE_FORBID;
        p.rules[p.n_rules].purposes = random_u32();
        p.rules[p.n_rules].endpoints = random_u32();
        p.rules[p.n_rules].classes = random_u32();
        p.rules[p.n_rules].forbids_metered = below(2);
        p.n_rules++;
        sluice_policy_evaluate(&p, &q, &after);
        assert_false(after.is_permitted && !before.is_permitted);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_decide_as_the_table_says),
        cmocka_unit_test(local_only_and_expiry_come_before_rules),
        cmocka_unit_test(an_effect_that_is_not_known_forbids),
        cmocka_unit_test(the_strictest_permit_counts_in_any_order),
        cmocka_unit_test(a_miss_names_the_first_false_condition),
        cmocka_unit_test(a_second_implementation_agrees_on_random_policies),
        cmocka_unit_test(adding_a_forbid_or_a_class_never_opens),
    };

    return cmocka_run_group_tests_name("policy_rules", tests, NULL, NULL);
}
