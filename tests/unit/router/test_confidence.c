/* test_confidence.c - running confidence, and the circuit breaker.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>

#include "router/breaker.h"
#include "tests/unit/router/support.h"

static void confidence_is_the_weakest_token_when_nothing_was_fitted(void **state)
{
    sluice_confidence c;
    (void)state;
    sluice_confidence_init(&c);
    assert_true(sluice_confidence_value(&c, NULL) == 0.0f);
    sluice_confidence_add(&c, logf(0.9f), 0.8f, 0.1f);
    sluice_confidence_add(&c, logf(0.5f), 0.1f, 0.7f);
    sluice_confidence_add(&c, logf(0.99f), 0.9f, 0.1f);
    assert_true(fabsf(sluice_confidence_value(&c, NULL) - 0.5f) < 1e-5f);
}

static void confidence_never_rises_again_after_a_weak_token(void **state)
{
    sluice_confidence c;
    float last = 1.0f;
    uint32_t x = 1;
    (void)state;
    sluice_confidence_init(&c);
    for (int i = 0; i < 200; i++) {
        x = x * 1664525u + 1013904223u;
        sluice_confidence_add(&c, -(float)(x >> 20) / 4096.0f, 0.5f, 0.5f);
        const float now = sluice_confidence_value(&c, NULL);
        assert_true(now <= last);
        last = now;
    }
}

static void calibration_is_monotone_in_the_weakest_token(void **state)
{
    const sluice_calibration cal = { 1.5f, 0.7f, 0.2f, true };
    float last = -1.0f;
    (void)state;
    for (int i = 50; i >= 0; i--) {
        sluice_confidence c;
        sluice_confidence_init(&c);
        sluice_confidence_add(&c, -(float)i / 10.0f, 0.5f, 0.5f);
        const float now = sluice_confidence_value(&c, &cal);
        assert_true(now >= last && now >= 0.0f && now <= 1.0f);
        last = now;
    }
}

static void what_is_no_log_probability_counts_as_no_confidence(void **state)
{
    static const float bad[] = { NAN, INFINITY, 0.5f, -INFINITY };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sluice_confidence c;
        sluice_confidence_init(&c);
        sluice_confidence_add(&c, -0.01f, 0.9f, 0.1f);
        sluice_confidence_add(&c, bad[i], 0.9f, 0.1f);
        assert_true(sluice_confidence_value(&c, NULL) < 1e-6f);
    }
}

static void breaker_opens_after_three_failures_in_a_row(void **state)
{
    sluice_breaker b;
    (void)state;
    sluice_breaker_init(&b);
    sluice_breaker_failed(&b, 0);
    sluice_breaker_failed(&b, 0);
    sluice_breaker_succeeded(&b);
    sluice_breaker_failed(&b, 0);
    sluice_breaker_failed(&b, 0);
    assert_true(sluice_breaker_admit(&b, 1));
    sluice_breaker_failed(&b, 10);
    assert_int_equal(b.state, SLUICE_BREAKER_OPEN);
    assert_false(sluice_breaker_admit(&b, 11));
}

static void breaker_admits_one_probe_when_half_open(void **state)
{
    sluice_breaker b;
    (void)state;
    sluice_breaker_init(&b);
    for (int i = 0; i < 3; i++)
        sluice_breaker_failed(&b, 0);
    assert_false(sluice_breaker_admit(&b, 4999999));
    assert_true(sluice_breaker_would_admit(&b, 5000000));
    assert_int_equal(b.state, SLUICE_BREAKER_OPEN); /* asking changes nothing */
    assert_true(sluice_breaker_admit(&b, 5000000));
    assert_false(sluice_breaker_admit(&b, 5000001));
    sluice_breaker_succeeded(&b);
    assert_int_equal(b.state, SLUICE_BREAKER_CLOSED);
}

static void breaker_waits_longer_after_each_failed_probe_up_to_two_minutes(void **state)
{
    sluice_breaker b;
    uint64_t now = 0, last = 0;
    (void)state;
    sluice_breaker_init(&b);
    for (int i = 0; i < 3; i++)
        sluice_breaker_failed(&b, now);
    for (int i = 0; i < 10; i++) {
        const uint64_t pause = b.retry_at_us - now;
        assert_true(pause >= last && pause <= 120000000);
        last = pause;
        now = b.retry_at_us;
        assert_true(sluice_breaker_admit(&b, now));
        sluice_breaker_failed(&b, now);
    }
    assert_int_equal(last, 120000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(confidence_is_the_weakest_token_when_nothing_was_fitted),
        cmocka_unit_test(confidence_never_rises_again_after_a_weak_token),
        cmocka_unit_test(calibration_is_monotone_in_the_weakest_token),
        cmocka_unit_test(what_is_no_log_probability_counts_as_no_confidence),
        cmocka_unit_test(breaker_opens_after_three_failures_in_a_row),
        cmocka_unit_test(breaker_admits_one_probe_when_half_open),
        cmocka_unit_test(breaker_waits_longer_after_each_failed_probe_up_to_two_minutes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
