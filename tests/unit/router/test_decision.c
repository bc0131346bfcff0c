/* test_decision.c - features, and which route follows from eligible, worthwhile and permitted.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/unit/router/support.h"

static sluice_features features_of(const char *text)
{
    sluice_features f;
    const sluice_features_input message = { "user", sluice_span_str(text) };
    sluice_features_compute(&f, &message, 1, 0);
    return f;
}

static void features_count_words_sentences_and_code_points(void **state)
{
    (void)state;
    const sluice_features f = features_of("Caf\xc3\xa9 at 9? Yes. Now");
    assert_int_equal(f.n_words, 5);
    assert_int_equal(f.n_sentences, 3);
    assert_int_equal(f.n_chars, 19);
    assert_int_equal(f.n_bytes, 20);
    assert_int_equal(f.n_digits, 1);
    assert_int_equal(f.n_questions, 1);
    assert_true(f.is_valid_utf8);
}

static void short_commands_look_easy_and_essays_do_not(void **state)
{
    (void)state;
    assert_true(features_of("set a timer for ten minutes").difficulty < 0.2f);
    assert_true(features_of("compare the causes of the two wars, their cost and what they did to the towns, then propose three questions "
                            "on each of them for students of history and say what a good answer to each should hold and why it should")
                    .difficulty > 0.5f);
    assert_true(features_of("fix this: ```int main(void){ return x; }```").difficulty > 0.6f);
    assert_true(features_of("").difficulty == 1.0f);
    assert_true(features_of("\xff\xfe").difficulty == 1.0f);
}

static void features_name_the_data_classes_of_every_message(void **state)
{
    sluice_features f;
    const sluice_features_input messages[] = {
        { "user", SLUICE_SPAN_LIT("write to jane@example.org") }, { "user", SLUICE_SPAN_LIT("card 4111 1111 1111 1111") }
    };
    (void)state;
    sluice_features_compute(&f, messages, 2, SLUICE_CLASS_HEALTH);
    assert_true((f.classes & SLUICE_CLASS_EMAIL) != 0);
    assert_true((f.classes & SLUICE_CLASS_PAYMENT_CARD) != 0);
    assert_true((f.classes & SLUICE_CLASS_HEALTH) != 0);
    assert_true((f.classes & SLUICE_CLASS_PROMPT) != 0);
    assert_true(f.is_multi_turn);
}

static void the_route_follows_from_the_three_questions(void **state)
{
    static const struct {
        const char *why;
        sluice_policy_mode mode;
        bool local;
        sluice_reason permission;
        bool can_ask;
        const char *text;
        sluice_route want;
    } cases[] = {
        { "sure of local, cloud permitted: local first", SLUICE_MODE_PREFER_LOCAL, true, SLUICE_REASON_PERMITTED, false, "set a timer", SLUICE_ROUTE_CASCADE },
        { "consent missing, nobody to ask: local alone", SLUICE_MODE_PREFER_LOCAL, true, SLUICE_REASON_CONSENT_MISSING, false, "set a timer", SLUICE_ROUTE_LOCAL },
        { "consent missing, somebody to ask: local first", SLUICE_MODE_PREFER_LOCAL, true, SLUICE_REASON_CONSENT_MISSING, true, "set a timer", SLUICE_ROUTE_CASCADE },
        { "consent withdrawn: not asked again", SLUICE_MODE_PREFER_LOCAL, true, SLUICE_REASON_CONSENT_REVOKED, true, "set a timer", SLUICE_ROUTE_LOCAL },
        { "consent withdrawn, no model: consent is still what is missing", SLUICE_MODE_PREFER_LOCAL, false, SLUICE_REASON_CONSENT_REVOKED, true, "set a timer", SLUICE_ROUTE_ASK },
        { "consent refused: not asked again", SLUICE_MODE_PREFER_LOCAL, true, SLUICE_REASON_CONSENT_REFUSED, true, "set a timer", SLUICE_ROUTE_LOCAL },
        { "code goes straight to a permitted cloud", SLUICE_MODE_PREFER_LOCAL, true, SLUICE_REASON_PERMITTED, false, "fix ```int main();``` please", SLUICE_ROUTE_CLOUD },
        { "no model, cloud permitted", SLUICE_MODE_PREFER_LOCAL, false, SLUICE_REASON_PERMITTED, false, "set a timer", SLUICE_ROUTE_CLOUD },
        { "no model, consent missing", SLUICE_MODE_PREFER_LOCAL, false, SLUICE_REASON_CONSENT_MISSING, true, "set a timer", SLUICE_ROUTE_ASK },
        { "no model, no rule: an ineligible local model permits nothing", SLUICE_MODE_PREFER_LOCAL, false, SLUICE_REASON_POLICY_NO_RULE, true, "set a timer", SLUICE_ROUTE_ABSTAIN },
        { "prefer cloud, permitted", SLUICE_MODE_PREFER_CLOUD, true, SLUICE_REASON_PERMITTED, false, "set a timer", SLUICE_ROUTE_CLOUD },
        { "prefer cloud, forbidden: local", SLUICE_MODE_PREFER_CLOUD, true, SLUICE_REASON_POLICY_FORBIDS, true, "set a timer", SLUICE_ROUTE_LOCAL },
        { "prefer cloud, consent missing: ask", SLUICE_MODE_PREFER_CLOUD, true, SLUICE_REASON_CONSENT_MISSING, true, "set a timer", SLUICE_ROUTE_ASK },
        { "cloud only, forbidden: nothing", SLUICE_MODE_CLOUD_ONLY, true, SLUICE_REASON_POLICY_FORBIDS, true, "set a timer", SLUICE_ROUTE_ABSTAIN },
        { "local only", SLUICE_MODE_LOCAL_ONLY, true, SLUICE_REASON_POLICY_LOCAL_ONLY, true, "set a timer", SLUICE_ROUTE_LOCAL },
        { "a permission that nobody asked for is a denial", SLUICE_MODE_PREFER_LOCAL, false, SLUICE_REASON_NONE, true, "set a timer", SLUICE_ROUTE_ABSTAIN },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const sluice_policy p = test_policy(cases[i].mode);
        sluice_decision_input in = test_input(&p, cases[i].text, cases[i].permission);
        sluice_decision d;
        in.local.is_present = cases[i].local;
        in.can_ask = cases[i].can_ask;
        sluice_decide(&in, &d);
        if (d.route != cases[i].want)
            fail_msg("%s: got %d, want %d", cases[i].why, (int)d.route, (int)cases[i].want);
    }
}

static void a_local_only_request_finds_no_permitted_cloud(void **state)
{
    const sluice_policy p = test_policy(SLUICE_MODE_CLOUD_ONLY);
    sluice_decision_input in = test_input(&p, "set a timer", SLUICE_REASON_PERMITTED);
    sluice_decision d;
    (void)state;
    in.is_local_only = true;
    sluice_decide(&in, &d);
    assert_int_equal(d.route, SLUICE_ROUTE_ABSTAIN);
    assert_int_equal(d.clouds[0].permitted_reason, SLUICE_REASON_POLICY_LOCAL_ONLY);
    assert_false(d.clouds[0].is_permitted);
}

static void eligibility_says_why_not(void **state)
{
    const sluice_policy p = test_policy(SLUICE_MODE_PREFER_LOCAL);
    sluice_decision d;
    (void)state;
    sluice_decision_input in = test_input(&p, "x", SLUICE_REASON_POLICY_NO_RULE);
    in.local.fits_context = false;
    sluice_decide(&in, &d);
    assert_int_equal(d.local.eligible_reason, SLUICE_REASON_LOCAL_CONTEXT_TOO_LONG);
    in = test_input(&p, "x", SLUICE_REASON_POLICY_NO_RULE);
    in.local.is_supported = false;
    sluice_decide(&in, &d);
    assert_int_equal(d.local.eligible_reason, SLUICE_REASON_LOCAL_UNSUPPORTED);
    in = test_input(&p, "x", SLUICE_REASON_POLICY_NO_RULE);
    in.local.device.thermal = SLUICE_THERMAL_CRITICAL;
    sluice_decide(&in, &d);
    assert_int_equal(d.local.eligible_reason, SLUICE_REASON_LOCAL_DEVICE_STATE);
    in = test_input(&p, "x", SLUICE_REASON_POLICY_NO_RULE);
    in.local.device.battery_percent = 3;
    sluice_decide(&in, &d);
    assert_int_equal(d.local.eligible_reason, SLUICE_REASON_LOCAL_DEVICE_STATE);
    in.local.device.is_charging = true;
    sluice_decide(&in, &d);
    assert_int_equal(d.local.eligible_reason, SLUICE_REASON_LOCAL_READY);
    assert_int_equal(d.route, SLUICE_ROUTE_LOCAL);
}

static void a_deadline_too_short_for_local_goes_to_the_cloud_or_nowhere(void **state)
{
    const sluice_policy p = test_policy(SLUICE_MODE_PREFER_LOCAL);
    sluice_decision d;
    (void)state;
    sluice_decision_input in = test_input(&p, "set a timer", SLUICE_REASON_PERMITTED);
    in.local.prefill_us_per_token = 1000.0f;
    in.local.decode_us_per_token = 100000.0f; /* ten tokens: a second */
    in.time_left_ms = 700;
    sluice_decide(&in, &d);
    assert_int_equal(d.route, SLUICE_ROUTE_CLOUD);
    assert_true(test_has_reason(d.reasons, d.n_reasons, SLUICE_REASON_LOCAL_TOO_SLOW));
    in.time_left_ms = 100; /* too short for the cloud as well */
    sluice_decide(&in, &d);
    assert_int_equal(d.route, SLUICE_ROUTE_ABSTAIN);
}

static void a_cascade_keeps_the_clouds_reserve(void **state)
{
    const sluice_policy p = test_policy(SLUICE_MODE_PREFER_LOCAL);
    sluice_decision d;
    (void)state;
    sluice_decision_input in = test_input(&p, "set a timer", SLUICE_REASON_PERMITTED);
    sluice_decide(&in, &d);
    assert_int_equal(d.local_budget_ms, 8000);
    in.time_left_ms = 3000; /* less than twice the reserve: half */
    sluice_decide(&in, &d);
    assert_int_equal(d.local_budget_ms, 1500);
}

static void endpoints_are_taken_in_policy_order_permitted_ones_first(void **state)
{
    const sluice_policy p = test_policy(SLUICE_MODE_PREFER_CLOUD);
    sluice_decision d;
    (void)state;
    sluice_decision_input in = test_input(&p, "set a timer", SLUICE_REASON_CONSENT_MISSING);
    in.n_clouds = 3;
    in.clouds[1] = in.clouds[0];
    in.clouds[2] = in.clouds[0];
    in.clouds[2].permission = SLUICE_REASON_PERMITTED;
    sluice_decide(&in, &d);
    assert_int_equal(d.cloud, 2);
    in.clouds[1].permission = SLUICE_REASON_PERMITTED;
    sluice_decide(&in, &d);
    assert_int_equal(d.cloud, 1);
    in.clouds[1].is_usable = false; /* its breaker is open */
    sluice_decide(&in, &d);
    assert_int_equal(d.cloud, 2);
    assert_int_equal(d.clouds[1].eligible_reason, SLUICE_REASON_CLOUD_BREAKER_OPEN);
}

static void equal_inputs_give_equal_decisions(void **state)
{
    const sluice_policy p = test_policy(SLUICE_MODE_PREFER_LOCAL);
    const sluice_decision_input in = test_input(&p, "what is the weather", SLUICE_REASON_CONSENT_MISSING);
    sluice_decision a, b;
    (void)state;
    memset(&a, 0x55, sizeof a);
    memset(&b, 0xaa, sizeof b);
    sluice_decide(&in, &a);
    sluice_decide(&in, &b);
    assert_memory_equal(&a, &b, sizeof a);
}

static void reasons_are_kept_once_and_never_overflow(void **state)
{
    sluice_reason list[SLUICE_REASONS_MAX];
    size_t n = 0;
    (void)state;
    for (int i = 0; i < 100; i++)
        sluice_reason_add(list, &n, (sluice_reason)(100 + i % 40));
    assert_int_equal(n, SLUICE_REASONS_MAX);
    n = 0;
    sluice_reason_add(list, &n, SLUICE_REASON_PERMITTED);
    sluice_reason_add(list, &n, SLUICE_REASON_PERMITTED);
    sluice_reason_add(list, &n, SLUICE_REASON_NONE);
    assert_int_equal(n, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(features_count_words_sentences_and_code_points),
        cmocka_unit_test(short_commands_look_easy_and_essays_do_not),
        cmocka_unit_test(features_name_the_data_classes_of_every_message),
        cmocka_unit_test(the_route_follows_from_the_three_questions),
        cmocka_unit_test(a_local_only_request_finds_no_permitted_cloud),
        cmocka_unit_test(eligibility_says_why_not),
        cmocka_unit_test(a_deadline_too_short_for_local_goes_to_the_cloud_or_nowhere),
        cmocka_unit_test(a_cascade_keeps_the_clouds_reserve),
        cmocka_unit_test(endpoints_are_taken_in_policy_order_permitted_ones_first),
        cmocka_unit_test(equal_inputs_give_equal_decisions),
        cmocka_unit_test(reasons_are_kept_once_and_never_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
