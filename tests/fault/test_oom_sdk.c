/* test_oom_sdk.c - every allocation of whole simulated days fails once, and then for good.
 *
 * What is asked of an instance without memory: no crash, no leak, each accepted request still ends exactly once, in time, and nothing leaves
 * without consent.  The simulation checks the last three.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>

#include "tests/simulation/sim.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"

enum { SEEDS = 12, POINTS_A_SEED = 400 };

static void try_point(uint64_t seed, size_t at, bool for_good)
{
    fake_allocator fa;
    sim_result r;

    fake_allocator_init(&fa);
    fa.fail_at = at;
    fa.fail_on = for_good;
    const sim_options options = { .allocator = &fa.al };
    sim_run(seed, &options, &r);
    if (r.violation[0] != '\0')
        fail_msg("seed %llu, allocation %zu fails%s: %s", (unsigned long long)seed, at, for_good ? " and all after it" : "", r.violation);
    if (!fake_allocator_is_clean(&fa))
        fail_msg("seed %llu, allocation %zu fails%s: memory is lost", (unsigned long long)seed, at, for_good ? " and all after it" : "");
}

static void no_failed_allocation_crashes_leaks_or_lets_anything_out(void **state)
{
    size_t n_points = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        fake_allocator fa;
        sim_result r;
        fake_allocator_init(&fa);
        const sim_options options = { .allocator = &fa.al };
        sim_run(seed, &options, &r);
        assert_true(fake_allocator_is_clean(&fa));
        if (r.violation[0] != 0 || fa.n_allocs <= 10)
            fail_msg("seed %llu: %zu allocations; %s", (unsigned long long)seed, fa.n_allocs, r.violation);
        const size_t stride = fa.n_allocs / POINTS_A_SEED + 1;
        for (size_t at = 0; at < fa.n_allocs; at += stride, n_points++) {
            try_point(seed, at, false);
            try_point(seed, at, true);
        }
    }
    printf("%zu points, each once and for good\n", n_points);
    assert_true(n_points > SEEDS * 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(no_failed_allocation_crashes_leaks_or_lets_anything_out) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
