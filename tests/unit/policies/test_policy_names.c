/* test_policy_names.c - every value of the public lists has a name of its own, and nothing else has one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sluice/sluice.h"
#include "tests/support/cm.h"

#include <string.h>

static void reasons_have_distinct_names_and_sentences(void **state)
{
    const char *seen[128];
    size_t n = 0;

    (void)state;
    for (int r = 0; r < 600; r++) {
        const char *name = sluice_reason_name((sluice_reason)r), *text = sluice_reason_text((sluice_reason)r);

        if (strcmp(name, "unknown") == 0)
            continue;
        assert_true(text[strlen(text) - 1] == '.');
        for (size_t i = 0; i < n; i++)
            if (strcmp(seen[i], name) == 0)
                fail_msg("%s is there twice", name);
        assert_true(n < sizeof seen / sizeof seen[0]);
        seen[n++] = name;
    }
    assert_int_equal(n, 47); /* those of sluice.h */
    assert_string_equal(sluice_reason_name(SLUICE_REASON_CONSENT_MISSING), "consent_missing");
    assert_string_equal(sluice_reason_name((sluice_reason)-1), "unknown");
    assert_non_null(sluice_reason_text((sluice_reason)9999));
}

static void routes_and_outcomes_have_their_names(void **state)
{
    static const char *const routes[] = { "none", "local", "cloud", "cascade", "abstain", "ask", "unknown" };
    static const char *const outcomes[] = { "none",      "answered",  "low_confidence", "needs_consent", "refused",
                                            "abstained", "truncated", "cancelled",      "failed",        "unknown" };

    (void)state;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++)
        assert_string_equal(sluice_route_name((sluice_route)i), routes[i]);
    for (size_t i = 0; i < sizeof outcomes / sizeof outcomes[0]; i++)
        assert_string_equal(sluice_outcome_name((sluice_outcome)i), outcomes[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reasons_have_distinct_names_and_sentences),
        cmocka_unit_test(routes_and_outcomes_have_their_names),
    };

    return cmocka_run_group_tests_name("policy_names", tests, NULL, NULL);
}
