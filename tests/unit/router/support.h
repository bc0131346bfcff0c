/* support.h - a policy and a decision to start tests from.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_UNIT_ROUTER_SUPPORT_H
#define SLUICE_TESTS_UNIT_ROUTER_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "router/machine.h"

static inline sluice_policy test_policy(sluice_policy_mode mode)
{
    const sluice_policy p = {
        .id = "test", .mode = mode, .stream = SLUICE_STREAM_HOLD, .escalate_below = 0.8f, .stop_below = 0.4f,
        .deadline_ms = 10000, .cloud_reserve_ms = 2000, .max_attempts = 2, .request_bytes_max = 65536, .n_endpoints = 1
    };
    return p;
}

/* A local model that fits and one cloud endpoint with this permission. */
static inline sluice_decision_input test_input(const sluice_policy *policy, const char *text, sluice_reason permission)
{
    sluice_decision_input in = { .policy = policy, .n_clouds = 1, .time_left_ms = 10000 };
    const sluice_features_input message = { "user", sluice_span_str(text) };
    sluice_features_compute(&in.features, &message, 1, 0);
    in.local = (sluice_local_facts){ .is_present = true, .fits_context = true, .fits_memory = true, .is_supported = true,
                                     .prompt_tokens = 10, .expected_output_tokens = 10,
                                     .device = { .battery_percent = -1 } };
    in.clouds[0] = (sluice_cloud_facts){ .is_usable = true, .expected_ttft_ms = 500, .expected_total_ms = 500,
                                         .permission = permission, .rule = 0 };
    return in;
}

static inline bool test_has_reason(const sluice_reason *list, size_t n, sluice_reason r)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == r)
            return true;
    return false;
}

#endif
