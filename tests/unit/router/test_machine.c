/* test_machine.c - one request, event by event; and any events in any order.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>

#include "tests/unit/router/support.h"

typedef struct rig {
    sluice_policy policy;
    sluice_machine m;
    sluice_decision decision;
    sluice_machine_action a[SLUICE_MACHINE_ACTIONS_MAX];
    size_t n;
    uint64_t now;
} rig;

static void step(rig *r, sluice_machine_event e)
{
    r->n = sluice_machine_step(&r->m, &e, r->now, r->a);
}

static const sluice_machine_action *find(const rig *r, sluice_machine_action_kind kind)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->a[i].kind == kind)
            return &r->a[i];
    return NULL;
}

static void start(rig *r, sluice_policy_mode mode, sluice_reason permission, bool can_ask)
{
    r->policy = test_policy(mode);
    r->now = 1000000;
    sluice_decision_input in = test_input(&r->policy, "set a timer", permission);
    in.can_ask = can_ask;
    sluice_decide(&in, &r->decision);
    sluice_machine_init(&r->m, &r->policy, NULL, r->now, r->now + 10000000);
    step(r, (sluice_machine_event){ .kind = SLUICE_ME_START, .decision = &r->decision });
}

static void token(rig *r, float logprob)
{
    step(r, (sluice_machine_event){ .kind = SLUICE_ME_LOCAL_TOKEN, .logprob = logprob, .text = SLUICE_SPAN_LIT("x") });
}

static void a_confident_local_answer_is_delivered_whole(void **state)
{
    rig r;
    (void)state;
    start(&r, SLUICE_MODE_PREFER_LOCAL, SLUICE_REASON_PERMITTED, false);
    assert_non_null(find(&r, SLUICE_MA_START_LOCAL));
    assert_null(find(&r, SLUICE_MA_ASK_GATE));
    token(&r, -0.01f);
    assert_null(find(&r, SLUICE_MA_DELIVER)); /* held until it is known to be good */
    token(&r, -0.1f);
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_LOCAL_DONE });
    assert_non_null(find(&r, SLUICE_MA_DELIVER_HELD));
    const sluice_machine_action *f = find(&r, SLUICE_MA_FINISH);
    assert_non_null(f);
    assert_int_equal(f->outcome, SLUICE_OUTCOME_ANSWERED);
    assert_int_equal(f->route, SLUICE_ROUTE_LOCAL);
    assert_true(f->confidence > 0.89f && f->confidence < 0.92f);
}

static void a_weak_answer_stops_early_and_goes_through_the_gate(void **state)
{
    rig r;
    (void)state;
    start(&r, SLUICE_MODE_PREFER_LOCAL, SLUICE_REASON_PERMITTED, false);
    token(&r, -0.01f);
    token(&r, -2.0f); /* 13 %: under stop_below */
    assert_non_null(find(&r, SLUICE_MA_STOP_LOCAL));
    const sluice_machine_action *g = find(&r, SLUICE_MA_ASK_GATE);
    assert_non_null(g);
    assert_int_equal(g->attempt, 1);
    assert_null(find(&r, SLUICE_MA_START_CLOUD));
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_GATE_GRANTED, .attempt = 1 });
    assert_non_null(find(&r, SLUICE_MA_START_CLOUD));
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_CLOUD_TEXT, .attempt = 1, .text = SLUICE_SPAN_LIT("hi") });
    assert_non_null(find(&r, SLUICE_MA_DELIVER));
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_CLOUD_DONE, .attempt = 1 });
    assert_int_equal(find(&r, SLUICE_MA_FINISH)->route, SLUICE_ROUTE_CLOUD);
    assert_true(test_has_reason(r.m.reasons, r.m.n_reasons, SLUICE_REASON_STOPPED_EARLY));
}

static void a_declining_model_escalates_however_sure_it_is(void **state)
{
    rig r;
    (void)state;
    start(&r, SLUICE_MODE_PREFER_LOCAL, SLUICE_REASON_PERMITTED, false);
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_LOCAL_TOKEN, .logprob = -0.02f, .is_declined = true });
    assert_non_null(find(&r, SLUICE_MA_ASK_GATE));
    assert_true(test_has_reason(r.m.reasons, r.m.n_reasons, SLUICE_REASON_OUT_OF_DOMAIN));
}

static void without_consent_and_nobody_to_ask_the_weak_answer_says_so(void **state)
{
    rig r;
    (void)state;
    start(&r, SLUICE_MODE_PREFER_LOCAL, SLUICE_REASON_CONSENT_MISSING, false);
    token(&r, -2.0f);
    token(&r, -2.0f);
    assert_null(find(&r, SLUICE_MA_STOP_LOCAL)); /* what cannot be replaced is not thrown away */
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_LOCAL_DONE });
    assert_null(find(&r, SLUICE_MA_ASK_GATE));
    assert_int_equal(find(&r, SLUICE_MA_FINISH)->outcome, SLUICE_OUTCOME_NEEDS_CONSENT);
    assert_true(test_has_reason(r.m.reasons, r.m.n_reasons, SLUICE_REASON_CONSENT_MISSING));
}

static void a_withdrawn_consent_is_not_asked_for_again_but_is_named(void **state)
{
    rig r;
    (void)state;
    start(&r, SLUICE_MODE_CLOUD_ONLY, SLUICE_REASON_CONSENT_REVOKED, true);
    assert_null(find(&r, SLUICE_MA_ASK_CONSENT));
    assert_int_equal(find(&r, SLUICE_MA_FINISH)->outcome, SLUICE_OUTCOME_NEEDS_CONSENT);
}

static void consent_is_asked_for_once_and_a_no_is_final(void **state)
{
    rig r;
    (void)state;
    start(&r, SLUICE_MODE_PREFER_LOCAL, SLUICE_REASON_CONSENT_MISSING, true);
    token(&r, -2.0f);
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_LOCAL_DONE });
    assert_non_null(find(&r, SLUICE_MA_ASK_CONSENT));
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_CONSENT, .is_granted = false });
    const sluice_machine_action *f = find(&r, SLUICE_MA_FINISH);
    assert_int_equal(f->outcome, SLUICE_OUTCOME_LOW_CONFIDENCE);
    assert_true(test_has_reason(r.m.reasons, r.m.n_reasons, SLUICE_REASON_CONSENT_REFUSED));
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_CONSENT, .is_granted = true });
    assert_int_equal(r.n, 0);
}

static void a_gate_that_refuses_ends_in_a_refusal_or_the_local_answer(void **state)
{
    rig r;
    (void)state;
    start(&r, SLUICE_MODE_CLOUD_ONLY, SLUICE_REASON_PERMITTED, false);
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_GATE_REFUSED, .attempt = 1, .reason = SLUICE_REASON_LEDGER_UNAVAILABLE, .status = SLUICE_ERR_IO });
    assert_int_equal(find(&r, SLUICE_MA_FINISH)->outcome, SLUICE_OUTCOME_REFUSED);
    assert_null(find(&r, SLUICE_MA_START_CLOUD));

    start(&r, SLUICE_MODE_PREFER_CLOUD, SLUICE_REASON_PERMITTED, false);
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_GATE_REFUSED, .attempt = 1, .reason = SLUICE_REASON_POLICY_FORBIDS });
    assert_non_null(find(&r, SLUICE_MA_START_LOCAL));
    token(&r, -0.1f);
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_LOCAL_DONE });
    assert_int_equal(find(&r, SLUICE_MA_FINISH)->outcome, SLUICE_OUTCOME_ANSWERED);
    assert_true(test_has_reason(r.m.reasons, r.m.n_reasons, SLUICE_REASON_POLICY_FORBIDS));
}

static void only_what_was_not_sent_is_tried_again_and_each_try_asks_the_gate(void **state)
{
    rig r;
    (void)state;
    start(&r, SLUICE_MODE_CLOUD_ONLY, SLUICE_REASON_PERMITTED, false);
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_GATE_GRANTED, .attempt = 1 });
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_CLOUD_FAILED, .attempt = 1, .status = SLUICE_ERR_NETWORK, .jitter = 7 });
    const sluice_machine_action *t = find(&r, SLUICE_MA_ARM_TIMER);
    assert_non_null(t);
    assert_int_equal(t->timer, SLUICE_TIMER_BACKOFF);
    assert_true(t->at_us > r.now);
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_TIMER, .timer = SLUICE_TIMER_BACKOFF });
    assert_int_equal(find(&r, SLUICE_MA_ASK_GATE)->attempt, 2);
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_GATE_GRANTED, .attempt = 1 }); /* an old one counts for nothing */
    assert_int_equal(r.n, 0);
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_GATE_GRANTED, .attempt = 2 });
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_CLOUD_FAILED, .attempt = 2, .status = SLUICE_ERR_NETWORK });
    assert_int_equal(find(&r, SLUICE_MA_FINISH)->status, SLUICE_ERR_NETWORK);

    start(&r, SLUICE_MODE_CLOUD_ONLY, SLUICE_REASON_PERMITTED, false);
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_GATE_GRANTED, .attempt = 1 });
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_CLOUD_FAILED, .attempt = 1, .status = SLUICE_ERR_NETWORK, .was_sent = true });
    assert_non_null(find(&r, SLUICE_MA_FINISH)); /* it may have been processed: RFC 9458, 6.5 */
    start(&r, SLUICE_MODE_CLOUD_ONLY, SLUICE_REASON_PERMITTED, false);
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_GATE_GRANTED, .attempt = 1 });
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_CLOUD_FAILED, .attempt = 1, .status = SLUICE_ERR_PIN_MISMATCH });
    assert_int_equal(find(&r, SLUICE_MA_FINISH)->status, SLUICE_ERR_PIN_MISMATCH);
}

static void a_second_attempt_without_consent_is_a_failure_of_the_first(void **state)
{
    rig r;
    (void)state;
    start(&r, SLUICE_MODE_CLOUD_ONLY, SLUICE_REASON_CONSENT_MISSING, true);
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_CONSENT, .is_granted = true });
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_GATE_GRANTED, .attempt = 1 });
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_CLOUD_FAILED, .attempt = 1, .status = SLUICE_ERR_NETWORK });
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_TIMER, .timer = SLUICE_TIMER_BACKOFF });
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_GATE_REFUSED, .attempt = 2, .reason = SLUICE_REASON_CONSENT_MISSING });
    assert_int_equal(find(&r, SLUICE_MA_FINISH)->outcome, SLUICE_OUTCOME_FAILED);
    assert_int_equal(find(&r, SLUICE_MA_FINISH)->status, SLUICE_ERR_NETWORK);
    assert_true(test_has_reason(r.m.reasons, r.m.n_reasons, SLUICE_REASON_CLOUD_FAILED));
}

static void a_stream_that_breaks_after_text_is_truncated_never_answered(void **state)
{
    rig r;
    (void)state;
    start(&r, SLUICE_MODE_CLOUD_ONLY, SLUICE_REASON_PERMITTED, false);
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_GATE_GRANTED, .attempt = 1 });
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_CLOUD_TEXT, .attempt = 1, .text = SLUICE_SPAN_LIT("half") });
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_CLOUD_FAILED, .attempt = 1, .status = SLUICE_ERR_TRUNCATED, .was_sent = true });
    assert_int_equal(find(&r, SLUICE_MA_FINISH)->outcome, SLUICE_OUTCOME_TRUNCATED);
}

static void revoking_cancels_the_cloud_at_once(void **state)
{
    rig r;
    (void)state;
    start(&r, SLUICE_MODE_PREFER_CLOUD, SLUICE_REASON_PERMITTED, false);
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_GATE_GRANTED, .attempt = 1 });
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_REVOKED });
    assert_non_null(find(&r, SLUICE_MA_CANCEL_CLOUD));
    assert_non_null(find(&r, SLUICE_MA_START_LOCAL));
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_CLOUD_TEXT, .attempt = 1, .text = SLUICE_SPAN_LIT("late") });
    assert_int_equal(r.n, 0);
}

static void the_deadline_ends_every_state(void **state)
{
    rig r;
    (void)state;
    start(&r, SLUICE_MODE_PREFER_LOCAL, SLUICE_REASON_PERMITTED, false);
    const sluice_machine_action *t = find(&r, SLUICE_MA_ARM_TIMER);
    assert_int_equal(t->timer, SLUICE_TIMER_DEADLINE);
    assert_true(t->at_us < r.m.deadline_us);
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_TIMER, .timer = SLUICE_TIMER_DEADLINE });
    assert_non_null(find(&r, SLUICE_MA_STOP_LOCAL));
    assert_int_equal(find(&r, SLUICE_MA_FINISH)->status, SLUICE_ERR_TIMEOUT);

    start(&r, SLUICE_MODE_PREFER_LOCAL, SLUICE_REASON_CONSENT_MISSING, true);
    token(&r, -2.0f);
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_LOCAL_DONE });
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_TIMER, .timer = SLUICE_TIMER_DEADLINE }); /* silence is a no */
    assert_non_null(find(&r, SLUICE_MA_DELIVER_HELD));
    assert_int_equal(find(&r, SLUICE_MA_FINISH)->outcome, SLUICE_OUTCOME_NEEDS_CONSENT);
}

static void text_of_another_backend_comes_after_a_restart(void **state)
{
    rig r;
    (void)state;
    start(&r, SLUICE_MODE_PREFER_LOCAL, SLUICE_REASON_PERMITTED, false);
    r.m.stream = SLUICE_STREAM_NOW;
    token(&r, -0.1f);
    assert_non_null(find(&r, SLUICE_MA_DELIVER));
    token(&r, -3.0f);
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_GATE_GRANTED, .attempt = 1 });
    step(&r, (sluice_machine_event){ .kind = SLUICE_ME_CLOUD_TEXT, .attempt = 1, .text = SLUICE_SPAN_LIT("hi") });
    assert_true(r.n >= 2);
    assert_int_equal(r.a[0].kind, SLUICE_MA_RESTART);
    assert_int_equal(r.a[1].kind, SLUICE_MA_DELIVER);
}

/* Property: whatever comes in whatever order, the invariants of machine.h hold. */
static void any_events_in_any_order_keep_the_invariants(void **state)
{
    uint64_t x = 88172645463325252u;
    static const sluice_reason permissions[] = { SLUICE_REASON_PERMITTED, SLUICE_REASON_CONSENT_MISSING, SLUICE_REASON_POLICY_FORBIDS };

    (void)state;
    for (int run = 0; run < 20000; run++) {
        rig r;
        uint32_t n_finish = 0;
        bool finished = false;
        start(&r, (sluice_policy_mode)(1 + run % 4), permissions[run % 3], run % 5 < 3);
        n_finish = find(&r, SLUICE_MA_FINISH) != NULL; /* nothing possible: over at once */
        finished = n_finish != 0;
        r.m.stream = run % 7 < 2 ? SLUICE_STREAM_NOW : SLUICE_STREAM_HOLD;
        for (int k = 0; k < 60; k++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            const sluice_machine_event e = {
                .kind = (sluice_machine_event_kind)(1 + x % 13), .attempt = (uint32_t)(x >> 20) % 4, .decision = &r.decision,
                .text = (x >> 24 & 3) ? SLUICE_SPAN_LIT("t") : SLUICE_SPAN_EMPTY, .logprob = -(float)(x >> 32 & 255) / 64.0f,
                .is_granted = x >> 40 & 1, .was_sent = x >> 41 & 1, .is_truncated = x >> 42 & 1, .is_declined = (x >> 43 & 15) == 0,
                .reason = x >> 48 & 1 ? SLUICE_REASON_CONSENT_MISSING : SLUICE_REASON_POLICY_FORBIDS,
                .status = x >> 49 & 1 ? SLUICE_ERR_NETWORK : SLUICE_ERR_TRUNCATED,
                .timer = (sluice_machine_timer)(1 + (x >> 52) % 3), .jitter = x
            };
            const sluice_machine_state before = r.m.state;
            const uint32_t attempt = r.m.attempt;
            r.now += x >> 56;
            step(&r, e);
            assert_true(r.n <= SLUICE_MACHINE_ACTIONS_MAX);
            if (finished)
                assert_int_equal(r.n, 0);
            for (size_t i = 0; i < r.n; i++) {
                n_finish += r.a[i].kind == SLUICE_MA_FINISH;
                if (r.a[i].kind == SLUICE_MA_FINISH)
                    assert_int_equal(i, r.n - 1);
                if (r.a[i].kind == SLUICE_MA_START_CLOUD) {
                    assert_int_equal(e.kind, SLUICE_ME_GATE_GRANTED);
                    assert_int_equal(before, SLUICE_MACHINE_GATE);
                    assert_int_equal(e.attempt, attempt);
                }
            }
            finished = r.m.state == SLUICE_MACHINE_DONE;
        }
        step(&r, (sluice_machine_event){ .kind = SLUICE_ME_TIMER, .timer = SLUICE_TIMER_DEADLINE });
        n_finish += find(&r, SLUICE_MA_FINISH) != NULL;
        assert_int_equal(n_finish, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_confident_local_answer_is_delivered_whole),
        cmocka_unit_test(a_weak_answer_stops_early_and_goes_through_the_gate),
        cmocka_unit_test(a_declining_model_escalates_however_sure_it_is),
        cmocka_unit_test(without_consent_and_nobody_to_ask_the_weak_answer_says_so),
        cmocka_unit_test(a_withdrawn_consent_is_not_asked_for_again_but_is_named),
        cmocka_unit_test(consent_is_asked_for_once_and_a_no_is_final),
        cmocka_unit_test(a_gate_that_refuses_ends_in_a_refusal_or_the_local_answer),
        cmocka_unit_test(only_what_was_not_sent_is_tried_again_and_each_try_asks_the_gate),
        cmocka_unit_test(a_second_attempt_without_consent_is_a_failure_of_the_first),
        cmocka_unit_test(a_stream_that_breaks_after_text_is_truncated_never_answered),
        cmocka_unit_test(revoking_cancels_the_cloud_at_once),
        cmocka_unit_test(the_deadline_ends_every_state),
        cmocka_unit_test(text_of_another_backend_comes_after_a_restart),
        cmocka_unit_test(any_events_in_any_order_keep_the_invariants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
