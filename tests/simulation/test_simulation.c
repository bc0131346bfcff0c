/* test_simulation.c - many seeds, one promise: no envelope without a covering consent; and the others of sim_world.c.
 *
 *   test_simulation                      SLUICE_SIM_RUNS seeds (default 10,000) from SLUICE_SIM_SEED (default 1)
 *   test_simulation --seed N             one run, told event by event
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/simulation/sim.h"

enum { RUNS_DEFAULT = 10000, TWICE_EVERY = 100 };

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL && text[0] != '\0' ? strtoull(text, NULL, 10) : otherwise;
}

static void add(sim_result *sum, const sim_result *one)
{
    sum->n_requests += one->n_requests;
    sum->n_envelopes += one->n_envelopes;
    sum->n_done += one->n_done;
    for (size_t i = 0; i < sizeof sum->outcomes / sizeof sum->outcomes[0]; i++)
        sum->outcomes[i] += one->outcomes[i];
    for (size_t i = 0; i < sizeof sum->routes / sizeof sum->routes[0]; i++)
        sum->routes[i] += one->routes[i];
    for (size_t i = 0; i < sizeof sum->faults / sizeof sum->faults[0]; i++)
        sum->faults[i] += one->faults[i];
}

static void print_sum(const sim_result *sum, uint64_t runs)
{
    static const char *const faults[] = { "none", "refused", "stall", "cut", "status", "forged", "pin", "tls", "inner error", "no end mark", "plain type" };
    printf("%llu runs, %u requests, %u envelopes\n  outcomes:", (unsigned long long)runs, sum->n_requests, sum->n_envelopes);
    for (int i = 1; i < 9; i++)
        printf(" %s %u", sluice_outcome_name((sluice_outcome)i), sum->outcomes[i]);
    printf("\n  network:");
    for (int i = 0; i < SIM_FAULTS_COUNT; i++)
        printf(" %s %u", faults[i], sum->faults[i]);
    printf("\n");
}

static void no_envelope_leaves_without_a_covering_consent(void **state)
{
    const uint64_t runs = number_from("SLUICE_SIM_RUNS", RUNS_DEFAULT), first = number_from("SLUICE_SIM_SEED", 1);
    sim_result sum, one;

    (void)state;
    memset(&sum, 0, sizeof sum);
    for (uint64_t seed = first; seed < first + runs; seed++) {
        sim_run(seed, NULL, &one);
        if (one.violation[0] != '\0')
            fail_msg("seed %llu: %s (replay: test_simulation --seed %llu)", (unsigned long long)seed, one.violation,
                     (unsigned long long)seed);
        add(&sum, &one);
    }
    print_sum(&sum, runs);
    /* A world in which nothing leaves, or nothing fails, would prove nothing. */
    assert_true(sum.n_envelopes > runs / 4);
    for (int i = 1; i < SIM_FAULTS_COUNT; i++)
        assert_true(sum.faults[i] > 0);
    for (int i = 1; i < 9; i++)
        assert_true(sum.outcomes[i] > 0);
}

static void the_same_seed_gives_the_same_run(void **state)
{
    const uint64_t runs = number_from("SLUICE_SIM_RUNS", RUNS_DEFAULT);
    sim_result once, twice;
    uint64_t n_different_seeds = 0, last = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= runs; seed += TWICE_EVERY) {
        sim_run(seed, NULL, &once);
        sim_run(seed, NULL, &twice);
        if (once.trace != twice.trace)
            fail_msg("seed %llu runs differently the second time", (unsigned long long)seed);
        n_different_seeds += once.trace != last;
        last = once.trace;
    }
    assert_true(n_different_seeds > runs / TWICE_EVERY / 2); /* the trace does depend on the seed */
}

static void the_observer_sees_an_envelope_without_consent(void **state)
{
    const sim_options blind = { .observer_forgets_consents = true };
    sim_result r;
    uint32_t n_seen = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        sim_run(seed, &blind, &r);
        n_seen += strstr(r.violation, "without a covering consent") != NULL;
    }
    assert_true(n_seen > 20); /* so the check above can fail */
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_envelope_leaves_without_a_covering_consent),
        cmocka_unit_test(the_same_seed_gives_the_same_run),
        cmocka_unit_test(the_observer_sees_an_envelope_without_consent),
    };
    if (argc == 3 && strcmp(argv[1], "--seed") == 0) {
        const sim_options loud = { .is_verbose = true };
        sim_result r;
        sim_run(strtoull(argv[2], NULL, 10), &loud, &r);
        printf("%u requests, %u envelopes, trace %016llx\n%s\n", r.n_requests, r.n_envelopes, (unsigned long long)r.trace,
               r.violation[0] ? r.violation : "every invariant held");
        return r.violation[0] != '\0';
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
