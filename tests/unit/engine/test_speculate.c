/* test_speculate.c - guessing changes how fast an answer comes, never what it says.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <stdio.h>

#include "local-engine/speculate.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/engine/engine_runs.h"

enum { N_PROMPT = 40 };

static temp_dir dir;

static int open_dir(void **state)
{
    (void)state;
    temp_dir_open(&dir);
    return 0;
}

static int close_dir(void **state)
{
    (void)state;
    temp_dir_close(&dir);
    return 0;
}

/* A prompt that repeats itself, so that there is something to look up. */
static void fill_prompt(int32_t tokens[N_PROMPT], uint32_t seed)
{
    run_fill(tokens, N_PROMPT / 2, seed);
    for (int i = N_PROMPT / 2; i < N_PROMPT; i++)
        tokens[i] = tokens[i - N_PROMPT / 2];
}

/* ---- hooks */

typedef struct oracle {
    const run_log *answer;
    size_t n_prompt;
    uint32_t n_calls, lies_each; /* each lies_each-th token is wrong; 0: none */
} oracle;

/* Knows the answer, and lies now and then. */
static size_t guess_right(const int32_t *tokens, size_t n, int32_t *out, size_t max, void *user)
{
    oracle *o = user;
    size_t made = 0;

    (void)tokens;
    o->n_calls++;
    for (size_t at = n - o->n_prompt; made < max && at < o->answer->n; at++, made++)
        out[made] = o->lies_each > 0 && at % o->lies_each == 0 ? (o->answer->ids[at] + 1) % 300 : o->answer->ids[at];
    return made;
}

/* What no caller should: nonsense, and more of it than there is room for. */
static size_t guess_nonsense(const int32_t *tokens, size_t n, int32_t *out, size_t max, void *user)
{
    static const int32_t ids[] = { -1, 300, INT32_MAX, INT32_MIN, 2, 5 };

    (void)user;
    for (size_t i = 0; i < max; i++)
        out[i] = ids[(n + i + (size_t)tokens[n - 1]) % 6];
    return SIZE_MAX;
}

/* ---- the same answer */

static const char schema[] = "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":12},\"kind\":{\"enum\":[\"alpha\",\"beta\"]},"
                             "\"count\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":999}},\"required\":[\"name\",\"kind\",\"count\"]}";

typedef struct variant { const char *name; sluice_engine_sampling sampling; bool json; const char *stop; bool whole, truncates; uint32_t n_threads; } variant;

static const variant variants[] = {
    { .name = "greedy", .n_threads = 1 },
    { .name = "greedy, two threads", .n_threads = 2 },
    { .name = "penalties", .sampling = { .repetition_penalty = 1.2f, .frequency_penalty = 0.3f, .presence_penalty = 0.2f, .penalty_window = 64 }, .n_threads = 1 },
    { .name = "schema", .json = true, .n_threads = 1 },
    { .name = "drawn", .sampling = { .temperature = 0.7f, .top_k = 40, .top_p = 0.95f, .seed = 5 }, .n_threads = 1 },
    { .name = "drawn by schema", .sampling = { .temperature = 1.0f, .top_p = 1, .seed = 6 }, .json = true, .n_threads = 1 },
    { .name = "stop string", .stop = "", .n_threads = 1 },
    { .name = "whole code points", .whole = true, .n_threads = 1 },
    { .name = "alternatives", .sampling = { .n_alternatives = 5 }, .n_threads = 1 },
    { .name = "beyond the context", .truncates = true, .n_threads = 1 },
};

/* `stop`: the string, where the variant wants one. */
static sluice_status run_variant(sluice_engine *e, const variant *v, const int32_t *tokens, const sluice_span *stop, sluice_engine_draft draft,
                                 sluice_engine_draft_fn fn, void *user, run_log *log, sluice_engine_result *result)
{
    const sluice_engine_request request = {
        .prompt = tokens, .n_prompt = N_PROMPT, .max_tokens = v->truncates ? 200 : 80, .sampling = v->sampling, .json = v->json,
        .json_schema = v->json ? sluice_span_str(schema) : SLUICE_SPAN_EMPTY, .stop = stop, .n_stop = stop != NULL, .whole_code_points = v->whole,
        .draft = draft, .draft_fn = fn, .draft_user = user, .overflow = v->truncates ? SLUICE_OVERFLOW_TRUNCATE_OLDEST : SLUICE_OVERFLOW_REFUSE,
        .n_keep = v->truncates ? 8 : 0, .keep = true, .on_token = run_log_take, .user = log,
    };
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_status st;

    memset(log, 0, sizeof *log);
    st = sluice_engine_run(e, &request, result, &err);
    if (st != SLUICE_OK)
        print_message("%s: %s\n", v->name, err.message);
    return st;
}

static void guesses_of_every_kind_leave_the_answer_as_it_is(void **state)
{
    static const struct { const char *name; sluice_engine_draft draft; sluice_engine_draft_fn fn; uint32_t lies_each; } ways[] = {
        { "lookup", SLUICE_DRAFT_LOOKUP, NULL, 0 }, { "model", SLUICE_DRAFT_MODEL, NULL, 0 }, { "oracle", SLUICE_DRAFT_HOOK, guess_right, 0 },
        { "liar", SLUICE_DRAFT_HOOK, guess_right, 3 }, { "nonsense", SLUICE_DRAFT_HOOK, guess_nonsense, 0 },
    };
    tiny_model tiny = tiny_model_default(), small = tiny_model_default();
    char draft_path[768];

    (void)state;
    tiny.has_probe = true;
    small.n_layer = 1;
    (void)sluice_copy_str(draft_path, sizeof draft_path, temp_dir_file(&dir, "draft.gguf"));
    tiny_model_write(&small, draft_path);
    for (size_t v = 0; v < sizeof variants / sizeof variants[0]; v++) {
        const sluice_engine_options options = { .n_threads = variants[v].n_threads, .cpu = UINT32_MAX, .draft_path = draft_path };
        sluice_engine *e = run_open(&tiny, temp_dir_file(&dir, "a.gguf"), &options, NULL);

        for (uint32_t seed = 1; seed <= 3; seed++) {
            static run_log plain, guessed;
            sluice_engine_result want, got;
            int32_t tokens[N_PROMPT];
            char stop_text[32] = "";
            sluice_span stop = SLUICE_SPAN_EMPTY;

            fill_prompt(tokens, seed);
            assert_int_equal(run_variant(e, &variants[v], tokens, NULL, SLUICE_DRAFT_NONE, NULL, NULL, &plain, &want), SLUICE_OK);
            if (variants[v].stop != NULL && plain.text_len > 20) { /* something that does come */
                memcpy(stop_text, plain.text + plain.text_len / 2, 3);
                stop = sluice_span_of(stop_text, 3);
                sluice_engine_reset(e);
                assert_int_equal(run_variant(e, &variants[v], tokens, &stop, SLUICE_DRAFT_NONE, NULL, NULL, &plain, &want), SLUICE_OK);
                assert_int_equal(want.stop, SLUICE_STOP_STRING);
            }
            assert_int_equal(want.drafted_tokens, 0);
            for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
                oracle o = { &plain, N_PROMPT, 0, ways[w].lies_each };

                if (variants[v].truncates && ways[w].fn == guess_right)
                    continue; /* it counts from the beginning of the text */
                sluice_engine_reset(e);
                assert_int_equal(run_variant(e, &variants[v], tokens, stop.len > 0 ? &stop : NULL, ways[w].draft, ways[w].fn, &o, &guessed, &got), SLUICE_OK);
                if (!run_log_same(&plain, &guessed) || want.stop != got.stop || want.output_tokens != got.output_tokens)
                    fail_msg("%s, %s, seed %u: another answer", variants[v].name, ways[w].name, seed);
                assert_true(got.accepted_tokens <= got.drafted_tokens);
                /* each run of the model gives one token, and each right guess one more; the prompt's run gives the first */
                if (!variants[v].truncates)
                    assert_in_range(got.decode_runs + got.accepted_tokens + 1, got.output_tokens, got.output_tokens + 1);
                if (ways[w].fn == guess_right && ways[w].lies_each == 0 && !variants[v].json && got.output_tokens > 40) /* a schema guesses first */
                    assert_true(got.accepted_tokens == got.drafted_tokens && got.decode_runs < got.output_tokens / 4);
            }
        }
        sluice_engine_close(e);
    }
}

/* A model that drafts for itself is always right while decoding greedily. */
static void a_model_guesses_its_own_greedy_answer(void **state)
{
    const tiny_model tiny = tiny_model_default();
    char path[768];
    sluice_engine_options options = { .n_threads = 2, .cpu = UINT32_MAX };
    static run_log log;
    sluice_engine_result result;
    int32_t tokens[N_PROMPT];
    sluice_engine *e;

    (void)state;
    (void)sluice_copy_str(path, sizeof path, temp_dir_file(&dir, "self.gguf"));
    options.draft_path = path;
    e = run_open(&tiny, path, &options, NULL);
    fill_prompt(tokens, 1);
    for (int turn = 0; turn < 2; turn++) { /* the second with caches that are warm */
        assert_int_equal(run_variant(e, &variants[0], tokens, NULL, SLUICE_DRAFT_MODEL, NULL, NULL, &log, &result), SLUICE_OK);
        assert_true(result.drafted_tokens > 30);
        assert_int_equal(result.accepted_tokens, result.drafted_tokens);
    }
    sluice_engine_close(e);
}

static void a_draft_model_of_another_vocabulary_is_refused(void **state)
{
    tiny_model tiny = tiny_model_default(), other = tiny_model_default();
    char path[768], draft[768];
    sluice_engine_options options = { .n_threads = 1, .cpu = UINT32_MAX };
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_engine *e;

    (void)state;
    (void)sluice_copy_str(path, sizeof path, temp_dir_file(&dir, "a.gguf"));
    (void)sluice_copy_str(draft, sizeof draft, temp_dir_file(&dir, "draft.gguf"));
    options.draft_path = draft;
    tiny_model_write(&tiny, path);
    other.n_vocab = 320; /* padded: fine */
    tiny_model_write(&other, draft);
    assert_int_equal(sluice_engine_open(&e, path, &options, sluice_platform_default(), NULL, &err), SLUICE_OK);
    sluice_engine_close(e);
    other = tiny_model_default();
    other.vocabulary_shift = 1;
    tiny_model_write(&other, draft);
    assert_int_equal(sluice_engine_open(&e, path, &options, sluice_platform_default(), NULL, &err), SLUICE_ERR_UNSUPPORTED);
    assert_null(e);
    assert_string_equal(err.where, draft);
    options.draft_path = "/nonexistent/draft.gguf";
    assert_int_equal(sluice_engine_open(&e, path, &options, sluice_platform_default(), NULL, &err), SLUICE_ERR_NOT_FOUND);
}

static void asking_for_a_draft_that_there_is_not_is_an_error(void **state)
{
    const tiny_model tiny = tiny_model_default();
    sluice_engine *e = run_open(&tiny, temp_dir_file(&dir, "a.gguf"), NULL, NULL);
    static run_log log;
    sluice_engine_result result;
    int32_t tokens[N_PROMPT];

    (void)state;
    fill_prompt(tokens, 1);
    assert_int_equal(run_variant(e, &variants[0], tokens, NULL, SLUICE_DRAFT_MODEL, NULL, NULL, &log, &result), SLUICE_ERR_STATE);
    assert_int_equal(run_variant(e, &variants[0], tokens, NULL, SLUICE_DRAFT_HOOK, NULL, NULL, &log, &result), SLUICE_ERR_ARGUMENT);
    assert_int_equal(run_variant(e, &variants[0], tokens, NULL, (sluice_engine_draft)9, NULL, NULL, &log, &result), SLUICE_ERR_ARGUMENT);
    assert_int_equal(log.n, 0);
    sluice_engine_close(e);
}

/* ---- lookup, and how long guesses are */

static void lookup_finds_the_longest_and_newest_match(void **state)
{
    static const struct { int32_t tokens[16]; size_t n; uint32_t max, n_want; int32_t want[6]; } cases[] = {
        { { 1, 2, 3, 4, 9, 1, 2 }, 7, 3, 3, { 3, 4, 9 } },
        { { 1, 2, 3, 8, 1, 2, 4, 8, 1, 2 }, 10, 1, 1, { 4 } },          /* the newest of equally long ones */
        { { 7, 1, 2, 3, 8, 9, 1, 2, 4, 8, 7, 1, 2 }, 13, 1, 1, { 3 } }, /* the longest of all */
        { { 5, 6, 5, 6, 5, 6 }, 6, 4, 4, { 5, 6, 5, 6 } },              /* text that repeats goes on so */
        { { 1, 2, 3, 4, 5, 2 }, 6, 4, 0, { 0 } },                       /* one token is no match */
        { { 1, 2, 3 }, 3, 4, 0, { 0 } }, { { 1 }, 1, 4, 0, { 0 } },
    };
    const tiny_model tiny = tiny_model_default();
    sluice_engine *e = run_open(&tiny, temp_dir_file(&dir, "a.gguf"), NULL, NULL);
    const sluice_engine_request request = { .draft = SLUICE_DRAFT_LOOKUP };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int32_t shifted[16], out[SLUICE_MAX_DRAFT];
        sluice_drafter d;
        uint32_t n;

        for (size_t k = 0; k < 16; k++)
            shifted[k] = cases[i].tokens[k] + 10; /* clear of control tokens */
        assert_int_equal(sluice_drafter_init(&d, e, &request, NULL), SLUICE_OK);
        n = sluice_drafter_propose(&d, shifted, cases[i].n, NULL, out, cases[i].max);
        assert_int_equal(n, cases[i].n_want);
        for (uint32_t k = 0; k < n; k++)
            assert_int_equal(out[k], cases[i].want[k] + 10);
    }
    sluice_engine_close(e);
}

static void guesses_get_longer_when_right_and_rest_when_wrong(void **state)
{
    const tiny_model tiny = tiny_model_default();
    sluice_engine *e = run_open(&tiny, temp_dir_file(&dir, "a.gguf"), NULL, NULL);
    const sluice_engine_request request = { .draft = SLUICE_DRAFT_LOOKUP };
    int32_t tokens[64], out[SLUICE_MAX_DRAFT];
    uint32_t n, last = 0, n_asked = 0;
    sluice_drafter d;

    (void)state;
    for (int i = 0; i < 64; i++)
        tokens[i] = 10 + i % 2;
    assert_int_equal(sluice_drafter_init(&d, e, &request, NULL), SLUICE_OK);
    for (int i = 0; i < 10; i++) {
        n = sluice_drafter_propose(&d, tokens, 64, NULL, out, SLUICE_MAX_DRAFT);
        assert_true(n > last || n == SLUICE_MAX_DRAFT);
        sluice_drafter_learn(&d, n, n);
        last = n;
    }
    assert_int_equal(last, SLUICE_MAX_DRAFT);
    for (int i = 0; i < 200; i++) { /* always wrong from now on */
        n = sluice_drafter_propose(&d, tokens, 64, NULL, out, SLUICE_MAX_DRAFT);
        n_asked += n > 0;
        sluice_drafter_learn(&d, n, 0);
    }
    assert_in_range(n_asked, 5, 15);
    sluice_engine_close(e);
}

/* ---- memory */

static void decoding_allocates_nothing_whatever_the_request(void **state)
{
    tiny_model tiny = tiny_model_default();
    char path[768];
    sluice_engine_options options = { .n_threads = 2, .cpu = UINT32_MAX };
    fake_allocator fa;
    sluice_engine *e;

    (void)state;
    (void)sluice_copy_str(path, sizeof path, temp_dir_file(&dir, "self.gguf"));
    options.draft_path = path;
    fake_allocator_init(&fa);
    e = run_open(&tiny, path, &options, &fa.al);
    for (size_t v = 0; v < sizeof variants / sizeof variants[0]; v++)
        for (int draft = SLUICE_DRAFT_NONE; draft <= SLUICE_DRAFT_MODEL; draft++) {
            const sluice_span stop = sluice_span_str("zzz");
            const sluice_span *stops = variants[v].stop != NULL ? &stop : NULL;
            sluice_engine_result result;
            int32_t tokens[N_PROMPT];
            static run_log log;

            fill_prompt(tokens, 1);
            memset(&log, 0, sizeof log);
            {
                const sluice_engine_request request = {
                    .prompt = tokens, .n_prompt = N_PROMPT, .max_tokens = 80, .sampling = variants[v].sampling, .json = variants[v].json,
                    .json_schema = variants[v].json ? sluice_span_str(schema) : SLUICE_SPAN_EMPTY, .stop = stops, .n_stop = stops != NULL,
                    .draft = (sluice_engine_draft)draft, .overflow = SLUICE_OVERFLOW_TRUNCATE_OLDEST, .on_token = run_log_take, .user = &log,
                };
                log.n_allocs = &fa.n_allocs;
                assert_int_equal(sluice_engine_run(e, &request, &result, NULL), SLUICE_OK);
            }
            assert_true(log.n >= 5);
            assert_int_equal(log.allocs_first, log.allocs_last);
        }
    sluice_engine_close(e);
    assert_true(fake_allocator_is_clean(&fa));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guesses_of_every_kind_leave_the_answer_as_it_is),
        cmocka_unit_test(a_model_guesses_its_own_greedy_answer),
        cmocka_unit_test(a_draft_model_of_another_vocabulary_is_refused),
        cmocka_unit_test(asking_for_a_draft_that_there_is_not_is_an_error),
        cmocka_unit_test(lookup_finds_the_longest_and_newest_match),
        cmocka_unit_test(guesses_get_longer_when_right_and_rest_when_wrong),
        cmocka_unit_test(decoding_allocates_nothing_whatever_the_request),
    };

    return cmocka_run_group_tests_name("speculate", tests, open_dir, close_dir);
}
