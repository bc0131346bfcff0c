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
static uint64_t scratch[8192];

static sluice_sampler make(float temperature, uint32_t top_k, float top_p, uint64_t seed)
{
    const sluice_engine_sampling sampling = { .temperature = temperature, .top_k = top_k, .top_p = top_p, .seed = seed };
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
    sluice_sampler_pick(&s, logits, NULL, &got);
    assert_int_equal(got.id, 0);
    logits[17] = logits[40] = 2;
    sluice_sampler_pick(&s, logits, NULL, &got);
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
    sluice_sampler_pick(&s, logits, NULL, &got);
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
    sluice_sampler_pick(&s, logits, NULL, &got);
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

        sluice_sampler_pick(&a, logits, NULL, &cold);
        sluice_sampler_pick(&b, logits, NULL, &hot);
        assert_true(fabsf(hot.logprob + (float)(rank_of(hot.id) + 1) * 0.69314718f) < 1e-4f);
        assert_true(cold.margin == hot.margin && cold.entropy == hot.entropy);
    }
    assert_true(fabsf(cold.margin - 0.25f) < 1e-5f);
    assert_true(fabsf(cold.entropy - 2 * 0.69314718f) < 1e-4f); /* sum of k / 2^k, in units of ln 2 */
}

static void draws_follow_the_distribution(void **state)
{
    static const struct {
        float temperature;
        uint32_t top_k;
        float top_p;
        double share[4];
    } cases[] = {
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
            sluice_sampler_pick(&s, logits, NULL, &got);
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
        sluice_sampler_pick(&a, logits, NULL, &x);
        sluice_sampler_pick(&b, logits, NULL, &y);
        sluice_sampler_pick(&c, logits, NULL, &z);
        assert_int_equal(x.id, y.id);
        n_other += x.id != z.id;
    }
    assert_true(n_other > 10);
}

static void settings_out_of_range_are_refused(void **state)
{
    static const sluice_logit_bias biases[] = { { N, 1 }, { -1, 1 }, { 1, INFINITY }, { 1, NAN } };
    static const sluice_engine_sampling bad[] = {
        { .temperature = -0.1f, .top_p = 1 },
        { .temperature = NAN, .top_p = 1 },
        { .temperature = INFINITY, .top_p = 1 },
        { .temperature = 1, .top_p = 1, .min_p = 1.5f },
        { .temperature = 1, .top_p = 1, .min_p = NAN },
        { .temperature = 1, .top_p = 1, .repetition_penalty = -1 },
        { .temperature = 1, .top_p = 1, .repetition_penalty = 1e-40f },
        { .temperature = 1, .top_p = 1, .frequency_penalty = INFINITY },
        { .temperature = 1, .top_p = 1, .presence_penalty = NAN },
        { .temperature = 1, .top_p = 1, .penalty_window = SLUICE_SAMPLER_MAX_WINDOW + 1 },
        { .temperature = 1, .top_p = 1, .n_alternatives = SLUICE_MAX_ALTERNATIVES + 1 },
        { .temperature = 1, .top_p = 1, .logit_bias = &biases[0], .n_logit_bias = 1 },
        { .temperature = 1, .top_p = 1, .logit_bias = &biases[1], .n_logit_bias = 1 },
        { .temperature = 1, .top_p = 1, .logit_bias = &biases[2], .n_logit_bias = 1 },
        { .temperature = 1, .top_p = 1, .logit_bias = &biases[3], .n_logit_bias = 1 },
        { .temperature = 1, .top_p = 1.01f },
        { .temperature = 1, .top_p = -0.1f },
        { .temperature = 1, .top_p = NAN },
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
    const sluice_engine_sampling sampling = { .temperature = 1, .top_k = 5, .top_p = 0.5f, .seed = 1 };
    const float logit = -3;
    sluice_sampler s;
    sluice_sample got;

    (void)state;
    assert_int_equal(sluice_sampler_init(&s, &kernels, &sampling, 1, scratch, NULL), SLUICE_OK);
    sluice_sampler_pick(&s, &logit, NULL, &got);
    assert_int_equal(got.id, 0);
    assert_true(got.logprob == 0 && got.entropy == 0);
}

/* ---- penalties and bias: greedy picks show the adjusted order */

static int32_t best_with(const sluice_engine_sampling *sampling, const float *logits, const int32_t *taken, size_t n)
{
    sluice_sampler s;
    sluice_sample got;

    assert_int_equal(sluice_sampler_init(&s, &kernels, sampling, N, scratch, NULL), SLUICE_OK);
    sluice_sampler_feed_prompt(&s, taken, n);
    sluice_sampler_pick(&s, logits, NULL, &got);
    return got.id;
}

static void penalties_lower_what_came_before(void **state)
{
    float logits[N] = { [3] = 4, [5] = 3, [7] = 2.5f, [9] = -0.0f };
    const int32_t once[] = { 3 }, twice[] = { 3, 5, 5 };

    (void)state;
    for (int i = 0; i < N; i++)
        logits[i] -= i == 3 || i == 5 || i == 7 ? 0 : 50;
    assert_int_equal(best_with(&(sluice_engine_sampling){ .top_p = 1, .repetition_penalty = 2 }, logits, once, 1), 3); /* without a window: off */
    assert_int_equal(best_with(&(sluice_engine_sampling){ .top_p = 1, .repetition_penalty = 2, .penalty_window = 8 }, logits, once, 1), 5);
    assert_int_equal(best_with(&(sluice_engine_sampling){ .top_p = 1, .repetition_penalty = 1.1f, .penalty_window = 8 }, logits, once, 1), 3);
    assert_int_equal(best_with(&(sluice_engine_sampling){ .top_p = 1, .presence_penalty = 1.2f, .penalty_window = 8 }, logits, once, 1), 5);
    assert_int_equal(best_with(&(sluice_engine_sampling){ .top_p = 1, .presence_penalty = 1.2f, .penalty_window = 8 }, logits, twice, 3), 3);
    assert_int_equal(best_with(&(sluice_engine_sampling){ .top_p = 1, .frequency_penalty = 1.2f, .penalty_window = 8 }, logits, twice, 3), 3);
    assert_int_equal(best_with(&(sluice_engine_sampling){ .top_p = 1, .frequency_penalty = 1.6f, .penalty_window = 8 }, logits, twice, 3), 7);
    assert_int_equal(best_with(&(sluice_engine_sampling){ .top_p = 1, .frequency_penalty = 1.6f, .penalty_window = UINT32_MAX }, logits, twice, 3),
                     7);
    for (int i = 0; i < N; i++) /* a negative logit is multiplied, so it falls too */
        logits[i] -= 60;
    assert_int_equal(best_with(&(sluice_engine_sampling){ .top_p = 1, .repetition_penalty = 1.2f, .penalty_window = 8 }, logits, once, 1), 5);
}

static void the_window_forgets_what_is_older(void **state)
{
    const int32_t taken[] = { 3, 60, 61, -5, 1000 }; /* ids out of range do not count */
    float logits[N] = { [3] = 4, [5] = 3 };

    (void)state;
    assert_int_equal(best_with(&(sluice_engine_sampling){ .top_p = 1, .presence_penalty = 2, .penalty_window = 2 }, logits, taken, 5), 3);
    assert_int_equal(best_with(&(sluice_engine_sampling){ .top_p = 1, .presence_penalty = 2, .penalty_window = 3 }, logits, taken, 5), 5);
}

static void a_window_without_end_remembers_more_than_it_lists(void **state)
{
    enum { MANY = SLUICE_SAMPLER_MAX_WINDOW + 200 };
    const sluice_engine_sampling sampling = { .top_p = 1, .presence_penalty = 2, .penalty_window = UINT32_MAX };
    float *logits = calloc(MANY, sizeof *logits);
    void *memory = malloc(sluice_sampler_bytes(MANY));
    sluice_sampler s;
    sluice_sample got;

    (void)state;
    assert_true(logits != NULL && memory != NULL);
    assert_int_equal(sluice_sampler_init(&s, &kernels, &sampling, MANY, memory, NULL), SLUICE_OK);
    for (int32_t i = 0; i < MANY - 1; i++)
        sluice_sampler_accept(&s, i);
    sluice_sampler_pick(&s, logits, NULL, &got);
    assert_int_equal(got.id, MANY - 1);
    free(logits);
    free(memory);
}

static void biases_raise_lower_and_ban(void **state)
{
    const float logits[N] = { [3] = 4, [5] = 3 };
    static const sluice_logit_bias raise[] = { { 9, 5 } }, lower[] = { { 3, -2 } }, ban[] = { { 3, -INFINITY }, { 5, -INFINITY } };
    sluice_logit_bias all[N];
    int32_t got;

    (void)state;
    assert_int_equal(best_with(&(sluice_engine_sampling){ .top_p = 1, .logit_bias = raise, .n_logit_bias = 1 }, logits, NULL, 0), 9);
    assert_int_equal(best_with(&(sluice_engine_sampling){ .top_p = 1, .logit_bias = lower, .n_logit_bias = 1 }, logits, NULL, 0), 5);
    for (uint64_t i = 0; i < 500; i++) {
        got = best_with(&(sluice_engine_sampling){ .temperature = 1, .top_p = 1, .seed = i, .logit_bias = ban, .n_logit_bias = 2 }, logits, NULL, 0);
        assert_true(got != 3 && got != 5 && got >= 0);
    }
    for (int32_t i = 0; i < N; i++)
        all[i] = (sluice_logit_bias){ i, -INFINITY };
    for (float temperature = 0; temperature < 2; temperature++)
        assert_int_equal(
            best_with(&(sluice_engine_sampling){ .temperature = temperature, .top_p = 1, .logit_bias = all, .n_logit_bias = N }, logits, NULL, 0),
            SLUICE_TOKEN_NONE);
}

static void confidence_knows_nothing_of_penalties(void **state)
{
    static const sluice_logit_bias raise[] = { { 9, 5 } };
    const sluice_engine_sampling sampling = { .top_p = 1, .logit_bias = raise, .n_logit_bias = 1, .n_alternatives = 3 };
    float logits[N];
    sluice_sampler s, plain = make(0, 0, 1, 0);
    sluice_sample got, want;

    (void)state;
    fill_halves(logits);
    sluice_sampler_pick(&plain, logits, NULL, &want);
    assert_int_equal(sluice_sampler_init(&s, &kernels, &sampling, N, scratch, NULL), SLUICE_OK);
    sluice_sampler_pick(&s, logits, NULL, &got);
    assert_true(got.margin == want.margin && got.entropy == want.entropy);
    assert_int_equal(got.n_alternatives, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(rank_of(got.alternatives[i].id), i);
        assert_true(fabsf(got.alternatives[i].logprob + (float)(i + 1) * 0.69314718f) < 1e-4f);
    }
    assert_true(fabsf(got.logprob + (float)(rank_of(got.id) + 1) * 0.69314718f) < 1e-4f);
}

/* ---- cuts against a plain reference: sort everything, then walk */

static const float *sorted_by;

static int likelier_first(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    if (sorted_by[x] > sorted_by[y] || sorted_by[x] < sorted_by[y])
        return sorted_by[x] > sorted_by[y] ? -1 : 1;
    return x < y ? -1 : 1;
}

/* Shares of the kept tokens. */
static void reference(const float *logits, uint32_t n, const sluice_engine_sampling *sampling, double *share)
{
    uint32_t *order = malloc(n * sizeof *order), n_kept = n;
    double *p = malloc(n * sizeof *p), total = 0, mass = 0;

    assert_true(order != NULL && p != NULL);
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    sorted_by = logits;
    qsort(order, n, sizeof *order, likelier_first);
    for (uint32_t i = 0; i < n; i++)
        p[i] = exp(((double)logits[order[i]] - (double)logits[order[0]]) / (double)sampling->temperature);
    if (sampling->top_k > 0 && sampling->top_k < n)
        n_kept = sampling->top_k;
    for (uint32_t i = 0; i < n_kept; i++)
        total += p[i];
    if (sampling->top_p < 1) {
        uint32_t k = 0;

        do
            mass += p[k++];
        while (k < n_kept && mass < (double)sampling->top_p * total);
        n_kept = k;
    }
    while (n_kept > 1 && p[n_kept - 1] < (double)sampling->min_p * p[0])
        n_kept--;
    total = 0;
    for (uint32_t i = 0; i < n_kept; i++)
        total += p[i];
    for (uint32_t i = 0; i < n; i++)
        share[order[i]] = i < n_kept ? p[i] / total : 0;
    free(order);
    free(p);
}

static void cuts_are_those_of_a_sorted_vocabulary(void **state)
{
    enum { MANY = 1000, LARGE = 20000, DRAWS = 1000, CASES = 40 };
    static float logits[LARGE];
    static double share[LARGE];
    static uint32_t count[LARGE];
    void *memory = malloc(sluice_sampler_bytes(LARGE));
    uint64_t seed = 12345;

    (void)state;
    assert_non_null(memory);
    for (uint32_t c = 0; c < CASES; c++) {
        const uint32_t n = c % 3 == 0    ? 40
                           : c % 20 == 7 ? LARGE
                                         : MANY,
                       draws = n == LARGE ? DRAWS / 10 : DRAWS; /* the large one is thinned out by a sample first */
        sluice_engine_sampling sampling = { .temperature = 0.5f + (float)(c % 4) / 2, .top_p = 1, .seed = c };
        sluice_sampler s;
        uint32_t n_wrong = 0;

        for (uint32_t i = 0; i < n; i++) { /* with many ties, of both signs and zeros of both signs */
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            logits[i] = c % 2 ? (float)((seed >> 40) % 7) - 3 : (float)(seed >> 40) / (float)(1 << 21) - 4;
            if (logits[i] == 0 && i % 2)
                logits[i] = -0.0f;
        }
        if (c % 5 != 0)
            sampling.top_k = c % 5 == 1 ? n - 1 : 1 + c * 7 % 50;
        if (c % 7 > 3)
            sampling.top_p = 0.13f * (float)(c % 7);
        if (c % 11 > 5)
            sampling.min_p = 0.037f * (float)(c % 11);
        reference(logits, n, &sampling, share);
        memset(count, 0, sizeof count);
        assert_int_equal(sluice_sampler_init(&s, &kernels, &sampling, n, memory, NULL), SLUICE_OK);
        for (uint32_t i = 0; i < draws; i++) {
            sluice_sample got;

            sluice_sampler_pick(&s, logits, NULL, &got);
            if (share[got.id] == 0)
                fail_msg("case %u: token %d was cut off, and came", c, got.id);
            count[got.id]++;
        }
        for (uint32_t i = 0; i < n; i++)
            n_wrong += fabs((double)count[i] / draws - share[i]) > 5 * sqrt(share[i] * (1 - share[i]) / draws) + 2.0 / draws;
        assert_true(n_wrong <= n / 250);
    }
    free(memory);
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
        cmocka_unit_test(penalties_lower_what_came_before),
        cmocka_unit_test(the_window_forgets_what_is_older),
        cmocka_unit_test(a_window_without_end_remembers_more_than_it_lists),
        cmocka_unit_test(biases_raise_lower_and_ban),
        cmocka_unit_test(confidence_knows_nothing_of_penalties),
        cmocka_unit_test(cuts_are_those_of_a_sorted_vocabulary),
    };

    return cmocka_run_group_tests_name("sampler", tests, setup, NULL);
}
