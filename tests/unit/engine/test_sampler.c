/* test_sampler.c - tokens are drawn from the distribution that was asked for, and confidence numbers are the model's own.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <stdlib.h>

#include "local-engine/sampler.h"
#include "tests/support/cm.h"

enum { N = 64 };

static sluice_kernels kernels;
static uint64_t scratch[N];

static sluice_sampler make(float temperature, uint32_t top_k, float top_p, uint64_t seed)
{
    const sluice_engine_sampling sampling = { temperature, top_k, top_p, seed };
    sluice_sampler s;

    assert_true(sluice_sampler_bytes(N) <= sizeof scratch);
    assert_int_equal(sluice_sampler_init(&s, &kernels, &sampling, N, scratch, NULL), SLUICE_OK);
    return s;
}

static int setup(void **state)
{
    (void)state;
    sluice_kernels_init(&kernels, 0);
    return 0;
}

/* Probabilities 0.5, 0.25, 0.125 … in a scattered order; token i has rank (i * 5) % 64. */
static void fill_halves(float logits[N])
{
    for (uint32_t i = 0; i < N; i++)
        logits[i] = -(float)(i * 5 % N) * 0.69314718f + 3;
}

static uint32_t rank_of(int32_t id)
{
    return (uint32_t)id * 5 % N;
}

static void greedy_takes_the_best_and_the_lowest_of_equals(void **state)
{
    float logits[N] = { 0 };
    sluice_sampler s = make(0, 0, 1, 0);
    sluice_sample got;

    (void)state;
    sluice_sampler_pick(&s, logits, &got);
    assert_int_equal(got.id, 0);
    logits[17] = logits[40] = 2;
    sluice_sampler_pick(&s, logits, &got);
    assert_int_equal(got.id, 17);
}

static void confidence_of_a_flat_distribution(void **state)
{
    float logits[N];
    sluice_sampler s = make(0, 0, 1, 0);
    sluice_sample got;

    (void)state;
    for (int i = 0; i < N; i++)
        logits[i] = -123;
    sluice_sampler_pick(&s, logits, &got);
    assert_true(fabsf(got.entropy - logf(N)) < 1e-5f);
    assert_true(fabsf(got.logprob + logf(N)) < 1e-5f);
    assert_true(got.margin == 0);
}

static void confidence_of_a_certain_token(void **state)
{
    float logits[N] = { 0 };
    sluice_sampler s = make(0, 0, 1, 0);
    sluice_sample got;

    (void)state;
    logits[5] = 500;
    sluice_sampler_pick(&s, logits, &got);
    assert_int_equal(got.id, 5);
    assert_true(got.entropy >= 0 && got.entropy < 1e-6f);
    assert_true(got.logprob <= 0 && got.logprob > -1e-6f);
    assert_true(got.margin > 0.999999f && got.margin <= 1);
}

static void confidence_is_of_the_untempered_distribution(void **state)
{
    float logits[N];
    sluice_sample cold, hot;

    (void)state;
    fill_halves(logits);
    for (uint64_t seed = 0; seed < 50; seed++) {
        sluice_sampler a = make(0, 0, 1, seed), b = make(3.0f, 0, 1, seed);

        sluice_sampler_pick(&a, logits, &cold);
        sluice_sampler_pick(&b, logits, &hot);
        assert_true(fabsf(hot.logprob + (float)(rank_of(hot.id) + 1) * 0.69314718f) < 1e-4f);
        assert_true(cold.margin == hot.margin && cold.entropy == hot.entropy);
    }
    assert_true(fabsf(cold.margin - 0.25f) < 1e-5f);
    assert_true(fabsf(cold.entropy - 2 * 0.69314718f) < 1e-4f); /* sum of k / 2^k, in units of ln 2 */
}

static void draws_follow_the_distribution(void **state)
{
    static const struct { float temperature; uint32_t top_k; float top_p; double share[4]; } cases[] = {
        { 1.0f, 0, 1.0f, { 0.5, 0.25, 0.125, 0.0625 } },
        { 1.0f, 3, 1.0f, { 4.0 / 7, 2.0 / 7, 1.0 / 7, 0 } },
        { 1.0f, 0, 0.7f, { 2.0 / 3, 1.0 / 3, 0, 0 } },
        { 1.0f, 3, 0.8f, { 2.0 / 3, 1.0 / 3, 0, 0 } }, /* 4/7 + 2/7 = 0.857 */
        { 0.5f, 0, 1.0f, { 0.75, 0.1875, 0.046875, 0.01171875 } },
        { 1.0f, 1, 1.0f, { 1, 0, 0, 0 } },
        { 1.0f, 0, 0.0f, { 1, 0, 0, 0 } },
        { 1e-20f, 0, 1.0f, { 1, 0, 0, 0 } },
    };
    enum { DRAWS = 20000 };
    float logits[N];

    (void)state;
    fill_halves(logits);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        sluice_sampler s = make(cases[c].temperature, cases[c].top_k, cases[c].top_p, 42);
        uint32_t count[N] = { 0 };
        sluice_sample got;

        for (int i = 0; i < DRAWS; i++) {
            sluice_sampler_pick(&s, logits, &got);
            count[rank_of(got.id)]++;
        }
        for (int r = 0; r < 4; r++) {
            const double p = cases[c].share[r], seen = (double)count[r] / DRAWS;

            if (fabs(seen - p) > 5 * sqrt(p * (1 - p) / DRAWS))
                fail_msg("case %zu: rank %d came in %.4f of the draws, not %.4f", c, r, seen, p);
        }
    }
}

static void equal_seeds_draw_equal_tokens(void **state)
{
    sluice_sampler a = make(1.5f, 20, 0.95f, 7), b = make(1.5f, 20, 0.95f, 7), c = make(1.5f, 20, 0.95f, 8);
    float logits[N];
    sluice_sample x, y, z;
    int n_other = 0;

    (void)state;
    fill_halves(logits);
    for (int i = 0; i < 100; i++) {
        sluice_sampler_pick(&a, logits, &x);
        sluice_sampler_pick(&b, logits, &y);
        sluice_sampler_pick(&c, logits, &z);
        assert_int_equal(x.id, y.id);
        n_other += x.id != z.id;
    }
    assert_true(n_other > 10);
}

static void settings_out_of_range_are_refused(void **state)
{
    static const sluice_engine_sampling bad[] = {
        { -0.1f, 0, 1, 0 }, { NAN, 0, 1, 0 }, { INFINITY, 0, 1, 0 }, { 1, 0, 1.01f, 0 }, { 1, 0, -0.1f, 0 }, { 1, 0, NAN, 0 },
    };
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_sampler s;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(sluice_sampler_init(&s, &kernels, &bad[i], N, scratch, &err), SLUICE_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "top_p"));
}

static void a_vocabulary_of_one_token_works(void **state)
{
    const sluice_engine_sampling sampling = { 1, 5, 0.5f, 1 };
    const float logit = -3;
    sluice_sampler s;
    sluice_sample got;

    (void)state;
    assert_int_equal(sluice_sampler_init(&s, &kernels, &sampling, 1, scratch, NULL), SLUICE_OK);
    sluice_sampler_pick(&s, &logit, &got);
    assert_int_equal(got.id, 0);
    assert_true(got.logprob == 0 && got.entropy == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_best_and_the_lowest_of_equals),
        cmocka_unit_test(confidence_of_a_flat_distribution),
        cmocka_unit_test(confidence_of_a_certain_token),
        cmocka_unit_test(confidence_is_of_the_untempered_distribution),
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(equal_seeds_draw_equal_tokens),
        cmocka_unit_test(settings_out_of_range_are_refused),
        cmocka_unit_test(a_vocabulary_of_one_token_works),
    };

    return cmocka_run_group_tests_name("sampler", tests, setup, NULL);
}
