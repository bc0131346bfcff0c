/* test_request.c - what a request can ask for: stop strings, JSON, tools, confidence, embeddings; what it costs, and how it ends early.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <stdio.h>

#include "sdk/base/json.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"
#include "tests/support/fake_platform.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"
#include "tests/unit/engine/engine_runs.h"

enum { N_PROMPT = 30 };

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

static sluice_status ask(sluice_engine *e, sluice_engine_request r, uint32_t seed, run_log *log, sluice_engine_result *result, sluice_error *err)
{
    int32_t tokens[N_PROMPT];

    run_fill(tokens, N_PROMPT, seed);
    r.prompt = tokens;
    r.n_prompt = N_PROMPT;
    r.on_token = run_log_take;
    r.user = log;
    if (r.max_tokens == 0)
        r.max_tokens = 60;
    memset(log, 0, sizeof *log);
    return sluice_engine_run(e, &r, result, err);
}

static sluice_engine *open_tiny(const sluice_engine_options *options)
{
    const tiny_model tiny = tiny_model_default();

    return run_open(&tiny, temp_dir_file(&dir, "tiny.gguf"), options, NULL);
}

/* ---- stop strings */

static void text_ends_before_the_first_stop_string_and_nothing_of_it_comes_out(void **state)
{
    sluice_engine *e = open_tiny(NULL);

    (void)state;
    for (uint32_t seed = 0; seed < 20; seed++)
        for (size_t at = 1; at < 12; at += 2) {
            static run_log plain, stopped;
            sluice_engine_result result;
            sluice_span stops[2];
            const char *found;
            char wanted[5];

            assert_int_equal(ask(e, (sluice_engine_request){ .sampling = { .temperature = 1, .top_p = 1, .seed = seed } }, seed, &plain, &result, NULL), SLUICE_OK);
            if (plain.text_len < at + 4 || memchr(plain.text, 0, plain.text_len) != NULL)
                continue;
            memcpy(wanted, plain.text + at, 4);
            wanted[4] = '\0';
            found = strstr(plain.text, wanted);
            assert_non_null(found);
            stops[0] = sluice_span_str("never to be seen");
            stops[1] = sluice_span_str(wanted);
            assert_int_equal(ask(e, (sluice_engine_request){ .stop = stops, .n_stop = 2, .sampling = { .temperature = 1, .top_p = 1, .seed = seed } }, seed,
                                 &stopped, &result, NULL), SLUICE_OK);
            assert_int_equal(result.stop, SLUICE_STOP_STRING);
            assert_int_equal(result.stop_string, 1);
            assert_int_equal(stopped.text_len, found - plain.text);
            assert_memory_equal(stopped.text, plain.text, stopped.text_len);
            assert_true(result.output_tokens <= plain.n && memcmp(stopped.ids, plain.ids, stopped.n * sizeof plain.ids[0]) == 0);
        }
    sluice_engine_close(e);
}

static void text_held_back_comes_out_when_the_answer_ends_otherwise(void **state)
{
    sluice_engine *e = open_tiny(NULL);

    (void)state;
    for (uint32_t seed = 0; seed < 20; seed++) {
        static run_log plain, held;
        sluice_engine_result result;
        char wanted[64];
        sluice_span stop;

        assert_int_equal(ask(e, (sluice_engine_request){ .max_tokens = 20 }, seed, &plain, &result, NULL), SLUICE_OK);
        if (plain.text_len < 6)
            continue;
        memcpy(wanted, plain.text + plain.text_len - 3, 3); /* begins like the end of the answer, and never comes */
        memcpy(wanted + 3, "\x01\x02\x03 never", 9);
        stop = sluice_span_of(wanted, 12);
        assert_int_equal(ask(e, (sluice_engine_request){ .max_tokens = 20, .stop = &stop, .n_stop = 1 }, seed, &held, &result, NULL), SLUICE_OK);
        assert_true(run_log_same(&plain, &held));
        assert_int_not_equal(result.stop, SLUICE_STOP_STRING);
    }
    sluice_engine_close(e);
}

static void bad_requests_are_refused_before_anything_runs(void **state)
{
    const sluice_span empty = SLUICE_SPAN_EMPTY, x = sluice_span_str("x");
    const sluice_engine_request bad[] = {
        { .stop = &empty, .n_stop = 1 }, { .sampling = { .temperature = -1 } }, { .sampling = { .n_alternatives = SLUICE_MAX_ALTERNATIVES + 1 } },
        { .json = true, .stop = &x, .n_stop = 1 }, { .json = true, .tools = sluice_span_str("[]") },
        { .json = true, .json_schema = sluice_span_str("{\"type\":\"nonsense\"}") }, { .json = true, .json_schema = sluice_span_str("{") },
        { .json = true, .json_schema = sluice_span_str("{\"type\":\"string\",\"minLength\":200}") }, /* more than 60 tokens can say */
        { .tools = sluice_span_str("{}") },
    };
    sluice_engine *e = open_tiny(NULL);
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_engine_result result;
    static run_log log;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (ask(e, bad[i], 1, &log, &result, &err) == SLUICE_OK || err.message[0] == '\0')
            fail_msg("request %zu passes", i);
        assert_int_equal(log.n, 0);
        assert_int_equal(result.prefill_us, 0);
    }
    sluice_engine_close(e);
}

/* ---- JSON and tools */

static void answers_by_a_schema_are_whole_and_valid_whatever_the_model_prefers(void **state)
{
    static const char schema[] = "{\"type\":\"object\",\"properties\":{\"title\":{\"type\":\"string\",\"maxLength\":10},\"tags\":{\"type\":\"array\",\"items\":"
                                 "{\"enum\":[\"a\",\"b\",\"c\"]},\"minItems\":1,\"maxItems\":3},\"size\":{\"type\":\"integer\"}},\"required\":[\"title\",\"tags\"]}";
    sluice_engine *e = open_tiny(NULL);
    size_t n_short = 0;

    (void)state;
    for (uint32_t seed = 0; seed < 60; seed++) {
        sluice_engine_request r = { .json = true, .json_schema = sluice_span_str(schema), .max_tokens = 45 + seed,
                                    .sampling = { .temperature = seed % 2 == 0 ? 0 : 1.5f, .top_p = 1, .seed = seed },
                                    .draft = seed % 3 == 0 ? SLUICE_DRAFT_LOOKUP : SLUICE_DRAFT_NONE };
        sluice_error err = SLUICE_ERROR_INIT;
        sluice_engine_result result;
        const sluice_json *tags;
        static run_log log;
        sluice_json_doc *doc;

        if (ask(e, r, seed, &log, &result, &err) != SLUICE_OK)
            fail_msg("seed %u: %s", seed, err.message);
        if (sluice_json_parse(&doc, sluice_span_of(log.text, log.text_len), NULL, NULL, &err) != SLUICE_OK)
            fail_msg("seed %u: %s: %s", seed, log.text, err.message);
        tags = sluice_json_get(sluice_json_root(doc), "tags");
        assert_non_null(sluice_json_get(sluice_json_root(doc), "title"));
        assert_non_null(tags);
        assert_non_null(tags->child);
        assert_true(result.stop == SLUICE_STOP_COMPLETE || result.stop == SLUICE_STOP_END || result.stop == SLUICE_STOP_MAX_TOKENS);
        assert_true(result.output_tokens <= r.max_tokens);
        n_short += result.stop == SLUICE_STOP_COMPLETE;
        sluice_json_close(doc);
    }
    assert_true(n_short > 10);
    sluice_engine_close(e);
}

static void a_tool_call_names_a_tool_and_fits_its_parameters(void **state)
{
    static const char tools[] = "[{\"type\":\"function\",\"function\":{\"name\":\"light\",\"parameters\":{\"type\":\"object\",\"properties\":{\"on\":"
                                "{\"type\":\"boolean\"}},\"required\":[\"on\"]}}},{\"type\":\"function\",\"function\":{\"name\":\"volume\",\"parameters\":"
                                "{\"type\":\"object\",\"properties\":{\"level\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":9}},\"required\":[\"level\"]}}}]";
    sluice_engine *e = open_tiny(NULL);

    (void)state;
    for (uint32_t seed = 0; seed < 20; seed++) {
        const bool is_named = seed % 2 == 0;
        const sluice_engine_request r = { .tools = sluice_span_str(tools), .tool_choice = is_named ? SLUICE_TOOL_NAMED : SLUICE_TOOL_REQUIRED,
                                          .tool_name = is_named ? "volume" : NULL, .max_tokens = 90,
                                          .sampling = { .temperature = 1, .top_p = 1, .seed = seed } };
        sluice_error err = SLUICE_ERROR_INIT;
        sluice_engine_result result;
        static run_log log;
        sluice_json_doc *doc;
        const char *name;

        if (ask(e, r, seed, &log, &result, &err) != SLUICE_OK)
            fail_msg("seed %u: %s", seed, err.message);
        if (sluice_json_parse(&doc, sluice_span_of(log.text, log.text_len), NULL, NULL, &err) != SLUICE_OK)
            fail_msg("seed %u: %s: %s", seed, log.text, err.message);
        assert_non_null(sluice_json_get(sluice_json_root(doc), "name"));
        name = sluice_json_get(sluice_json_root(doc), "name")->string;
        assert_true(strcmp(name, "volume") == 0 || (!is_named && strcmp(name, "light") == 0));
        assert_non_null(sluice_json_get(sluice_json_get(sluice_json_root(doc), "arguments"), strcmp(name, "volume") == 0 ? "level" : "on"));
        sluice_json_close(doc);
    }
    sluice_engine_close(e);
}

/* ---- what tokens carry */

typedef struct seen { bool is_bad; uint32_t n; } seen;

static bool check_alternatives(const sluice_engine_token *t, void *user)
{
    seen *s = user;

    s->n++;
    s->is_bad = s->is_bad || t->n_alternatives != 5 || t->alternatives[0].id != t->id || t->alternatives[0].logprob != t->logprob;
    for (uint32_t i = 1; i < t->n_alternatives; i++)
        s->is_bad = s->is_bad || !(t->alternatives[i].logprob <= t->alternatives[i - 1].logprob) || t->alternatives[i].id == t->alternatives[i - 1].id;
    s->is_bad = s->is_bad || fabs(exp((double)t->alternatives[0].logprob) - exp((double)t->alternatives[1].logprob) - (double)t->margin) > 1e-5;
    return true;
}

static void greedy_tokens_lead_their_alternatives(void **state)
{
    sluice_engine *e = open_tiny(NULL);
    sluice_engine_result result;
    int32_t tokens[N_PROMPT];
    seen s = { false, 0 };
    const sluice_engine_request r = { .prompt = tokens, .n_prompt = N_PROMPT, .max_tokens = 20, .sampling = { .n_alternatives = 5 },
                                      .on_token = check_alternatives, .user = &s };

    (void)state;
    run_fill(tokens, N_PROMPT, 1);
    assert_int_equal(sluice_engine_run(e, &r, &result, NULL), SLUICE_OK);
    assert_true(s.n > 3);
    assert_false(s.is_bad);
    sluice_engine_close(e);
}

static void a_probe_head_scores_the_state_that_each_token_came_from(void **state)
{
    tiny_model tiny = tiny_model_default();
    static run_log none, log;
    sluice_engine_result result;
    int32_t tokens[N_PROMPT];
    const float *logits, *hidden;
    sluice_engine *e;

    (void)state;
    e = run_open(&tiny, temp_dir_file(&dir, "tiny.gguf"), NULL, NULL);
    assert_false(sluice_engine_get_info(e)->has_probe);
    assert_null(sluice_engine_hidden(e));
    assert_int_equal(ask(e, (sluice_engine_request){ .max_tokens = 10 }, 1, &none, &result, NULL), SLUICE_OK);
    assert_true(none.probes[0] < 0);
    sluice_engine_close(e);
    for (int form = 0; form < 2; form++) {
        tiny = tiny_model_default();
        tiny.has_probe = form == 0;
        tiny.has_probe_tensor = form == 1;
        tiny_model_write(&tiny, temp_dir_file(&dir, "probe.gguf"));
        sluice_error err = SLUICE_ERROR_INIT;
        if (sluice_engine_open(&e, temp_dir_file(&dir, "probe.gguf"), NULL, sluice_platform_default(), NULL, &err) != SLUICE_OK)
            fail_msg("%s", err.message);
        assert_true(sluice_engine_get_info(e)->has_probe);
        assert_int_equal(ask(e, (sluice_engine_request){ .max_tokens = 10 }, 1, &log, &result, NULL), SLUICE_OK);
        run_fill(tokens, N_PROMPT, 1);
        assert_int_equal(sluice_engine_eval(e, tokens, N_PROMPT, &logits, NULL), SLUICE_OK);
        for (uint32_t i = 0; i < log.n; i++) {
            double sum = 0.25;

            hidden = sluice_engine_hidden(e);
            assert_non_null(hidden);
            for (int k = 0; k < 64; k++)
                sum += (double)((float)(k * 37 % 101 - 50) / 400.0f) * (double)hidden[k];
            assert_true(fabs(1 / (1 + exp(-sum)) - (double)log.probes[i]) < 1e-6);
            assert_int_equal(log.ids[i], none.ids[i]);
            if (!log.had_end || i + 1 < log.n)
                assert_int_equal(sluice_engine_eval(e, &log.ids[i], 1, &logits, NULL), SLUICE_OK);
        }
        assert_true(log.probes[0] != log.probes[1]);
        sluice_engine_close(e);
    }
}

static void rows_of_logits_are_those_of_runs_of_their_own(void **state)
{
    sluice_engine *e = open_tiny(NULL);
    static float want[16][300];
    int32_t tokens[40];
    const float *logits;

    (void)state;
    run_fill(tokens, 40, 1);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(sluice_engine_eval(e, tokens + i, 1, &logits, NULL), SLUICE_OK);
        if (i >= 24)
            memcpy(want[i - 24], logits, sizeof want[0]);
    }
    for (uint32_t rows = 1; rows <= 16; rows++) {
        sluice_engine_reset(e);
        assert_int_equal(sluice_engine_eval_rows(e, tokens, 40, rows, &logits, NULL), SLUICE_OK);
        assert_memory_equal(logits, want[16 - rows], rows * sizeof want[0]);
    }
    assert_int_equal(sluice_engine_eval_rows(e, tokens, 20, 17, &logits, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_engine_eval_rows(e, tokens, 2, 3, &logits, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_engine_eval_rows(e, tokens, 2, 0, &logits, NULL), SLUICE_ERR_ARGUMENT);
    sluice_engine_close(e);
}

/* ---- embeddings */

static void embeddings_come_from_encoders_and_decoders_and_forget_the_text(void **state)
{
    static const char *const families[] = { "llama", "qwen3", "bert", "nomic-bert" };

    (void)state;
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        float first[64], again[64], raw[64], other[64], dot = 0, length = 0;
        sluice_engine_result result;
        int32_t tokens[40];
        static run_log log;
        tiny_model tiny;
        sluice_engine *e;

        assert_true(tiny_model_family(families[i], false, &tiny));
        e = run_open(&tiny, temp_dir_file(&dir, "embed.gguf"), NULL, NULL);
        run_fill(tokens, 40, 1);
        assert_int_equal(sluice_engine_embed_tokens(e, tokens, 40, true, first, 64, NULL), SLUICE_OK);
        assert_int_equal(sluice_engine_position(e), 0);
        assert_int_equal(sluice_engine_embed_tokens(e, tokens + 1, 39, true, other, 64, NULL), SLUICE_OK);
        assert_int_equal(sluice_engine_embed_tokens(e, tokens, 40, true, again, 64, NULL), SLUICE_OK);
        assert_memory_equal(first, again, sizeof first);
        assert_memory_not_equal(first, other, sizeof first);
        assert_int_equal(sluice_engine_embed_tokens(e, tokens, 40, false, raw, 64, NULL), SLUICE_OK);
        for (int k = 0; k < 64; k++) {
            dot += first[k] * raw[k];
            length += raw[k] * raw[k];
        }
        assert_true(fabsf(dot / sqrtf(length) - 1) < 1e-4f); /* the same direction, and of length 1 */
        assert_int_equal(sluice_engine_embed(e, sluice_span_str("abc abc"), true, again, 64, NULL), SLUICE_OK);
        assert_int_equal(sluice_engine_embed(e, sluice_span_str("abc abc"), true, other, 64, NULL), SLUICE_OK);
        assert_memory_equal(again, other, sizeof again);
        assert_int_equal(sluice_engine_embed_tokens(e, tokens, 40, true, first, 63, NULL), SLUICE_ERR_ARGUMENT);
        assert_int_equal(sluice_engine_embed_tokens(e, tokens, 0, true, first, 64, NULL), SLUICE_ERR_ARGUMENT);
        tokens[3] = 300;
        assert_int_equal(sluice_engine_embed_tokens(e, tokens, 40, true, first, 64, NULL), SLUICE_ERR_ARGUMENT);
        {
            static int32_t many[129];
            char text[400];

            assert_int_equal(sluice_engine_embed_tokens(e, many, 129, true, first, 64, NULL), SLUICE_ERR_LIMIT);
            memset(text, 'q', sizeof text);
            assert_int_equal(sluice_engine_embed(e, sluice_span_of(text, sizeof text), true, first, 64, NULL), SLUICE_ERR_LIMIT);
        }
        assert_int_equal(sluice_engine_get_info(e)->is_encoder, tiny.is_encoder);
        assert_int_equal(ask(e, (sluice_engine_request){ .max_tokens = 3 }, 1, &log, &result, NULL), tiny.is_encoder ? SLUICE_ERR_UNSUPPORTED : SLUICE_OK);
        sluice_engine_close(e);
    }
}

/* ---- memory */

static uint64_t private_part(const sluice_engine_estimate *estimate)
{
    return estimate->kv_bytes + estimate->scratch_bytes;
}

static void check_estimate(const char *path, const sluice_engine_options *options)
{
    sluice_engine_estimate estimate, draft = { 0 };
    uint64_t private_bytes, mapped_draft = 0;
    sluice_error err = SLUICE_ERROR_INIT;
    static run_log log;
    sluice_engine_result result;
    fake_allocator fa;
    sluice_engine *e;
    float embedding[4096];

    fake_allocator_init(&fa);
    assert_int_equal(sluice_engine_estimate_memory(&estimate, path, options, sluice_platform_default(), &fa.al, &err), SLUICE_OK);
    assert_true(fake_allocator_is_clean(&fa));
    fake_allocator_init(&fa);
    if (sluice_engine_open(&e, path, options, sluice_platform_default(), &fa.al, &err) != SLUICE_OK)
        fail_msg("%s: %s", path, err.message);
    assert_int_equal(estimate.mapped_bytes, sluice_engine_get_info(e)->model_bytes);
    assert_int_equal(estimate.context_tokens, sluice_engine_get_info(e)->context_tokens);
    assert_int_equal(estimate.total_bytes, estimate.touched_bytes + estimate.kv_bytes + estimate.scratch_bytes + estimate.draft_bytes);
    if (options->draft_path != NULL) {
        const sluice_engine_options alone = { .n_threads = options->n_threads, .context_tokens = estimate.context_tokens, .cpu = options->cpu };

        assert_int_equal(sluice_engine_estimate_memory(&draft, options->draft_path, &alone, sluice_platform_default(), NULL, &err), SLUICE_OK);
        mapped_draft = draft.mapped_bytes;
    }
    private_bytes = private_part(&estimate) + estimate.draft_bytes - mapped_draft;
    if (sluice_engine_get_info(e)->is_encoder)
        assert_int_equal(sluice_engine_embed(e, sluice_span_str("abc"), true, embedding, sluice_engine_get_info(e)->n_embd, NULL), SLUICE_OK);
    else
        assert_int_equal(ask(e, (sluice_engine_request){ .max_tokens = 20 }, 1, &log, &result, NULL), SLUICE_OK);
    if (fabs((double)private_bytes - (double)fa.live_bytes) > 0.05 * (double)fa.live_bytes || (double)fa.peak_bytes > 1.05 * (double)private_bytes)
        fail_msg("%s: estimated %llu private bytes, held %zu, peak %zu", path, (unsigned long long)private_bytes, fa.live_bytes, fa.peak_bytes);
    assert_int_equal(fa.live_bytes, sluice_engine_private_bytes(e));
    sluice_engine_close(e);
    assert_true(fake_allocator_is_clean(&fa));
}

static void the_estimate_is_what_is_used_within_five_percent(void **state)
{
    sluice_engine_options options = { .n_threads = 2, .cpu = UINT32_MAX };
    char path[768], draft[768];
    const char *name, *shipped;

    (void)state;
    (void)sluice_copy_str(path, sizeof path, temp_dir_file(&dir, "estimate.gguf"));
    (void)sluice_copy_str(draft, sizeof draft, temp_dir_file(&dir, "estimate-draft.gguf"));
    for (size_t i = 0; (name = tiny_model_family_name(i)) != NULL; i++) {
        tiny_model tiny;

        assert_true(tiny_model_family(name, false, &tiny));
        tiny_model_write(&tiny, path);
        options.kv = tiny.head_dim % 32 == 0 && i % 2 == 0 ? SLUICE_ENGINE_KV_Q8_0 : SLUICE_ENGINE_KV_F16;
        check_estimate(path, &options);
    }
    options.kv = SLUICE_ENGINE_KV_F16;
    options.context_tokens = 100;
    {
        tiny_model tiny = tiny_model_default();

        tiny.has_probe = true;
        tiny_model_write(&tiny, path);
        tiny.n_layer = 1;
        tiny_model_write(&tiny, draft);
        options.draft_path = draft;
        check_estimate(path, &options);
        options.draft_path = NULL;
    }
    shipped = test_source_path("local-engine/models/sluice-intents.gguf");
    if (shipped == NULL)
        print_message("SLUICE_SOURCE_DIR is not set: the shipped model's estimate is not checked\n");
    else {
        (void)sluice_copy_str(path, sizeof path, shipped);
        options.context_tokens = 0;
        check_estimate(path, &options);
    }
}

static void of_a_mixture_only_the_experts_in_use_count(void **state)
{
    const sluice_engine_options options = { .n_threads = 1, .cpu = UINT32_MAX }, over = { .n_threads = 1, .cpu = UINT32_MAX, .allow_overcommit = true };
    const char *path = temp_dir_file(&dir, "mixture.gguf");
    sluice_engine_estimate estimate;
    uint64_t experts;
    fake_platform fp;
    tiny_model tiny;
    sluice_engine *e;

    (void)state;
    assert_true(tiny_model_family("qwen3moe", false, &tiny));
    tiny.n_expert = 32;
    tiny_model_write(&tiny, path);
    fake_platform_init(&fp, 1);
    assert_int_equal(sluice_engine_estimate_memory(&estimate, path, &options, &fp.platform, NULL, NULL), SLUICE_OK);
    experts = 3u * tiny.n_layer * tiny.n_expert * tiny.n_ff * tiny.n_embd * sizeof(float);
    assert_int_equal(estimate.mapped_bytes - estimate.touched_bytes, experts / 32 * 29); /* 3 of 32 are used */
    fp.device.memory_available_bytes = estimate.total_bytes;
    assert_true(fp.device.memory_available_bytes < estimate.mapped_bytes);
    assert_int_equal(sluice_engine_open(&e, path, &options, &fp.platform, NULL, NULL), SLUICE_OK); /* larger than memory, and yet */
    sluice_engine_close(e);
    fp.device.memory_available_bytes--;
    assert_int_equal(sluice_engine_open(&e, path, &options, &fp.platform, NULL, NULL), SLUICE_ERR_NO_MEMORY);
    assert_int_equal(sluice_engine_open(&e, path, &over, &fp.platform, NULL, NULL), SLUICE_OK);
    sluice_engine_close(e);
    fake_platform_deinit(&fp);
}

static void a_budget_is_kept_and_the_refusal_names_each_part(void **state)
{
    sluice_engine_options options = { .n_threads = 1, .cpu = UINT32_MAX, .allow_overcommit = true };
    const char *path = temp_dir_file(&dir, "budget.gguf");
    static const char *const parts[] = { "weights", "file", "KV cache", "scratch", "draft model", "budget" };
    const tiny_model tiny = tiny_model_default();
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_engine_estimate estimate;
    sluice_engine *e;

    (void)state;
    tiny_model_write(&tiny, path);
    assert_int_equal(sluice_engine_estimate_memory(&estimate, path, &options, sluice_platform_default(), NULL, NULL), SLUICE_OK);
    options.memory_budget_bytes = estimate.total_bytes;
    assert_int_equal(sluice_engine_open(&e, path, &options, sluice_platform_default(), NULL, &err), SLUICE_OK);
    sluice_engine_close(e);
    options.memory_budget_bytes--;
    assert_int_equal(sluice_engine_open(&e, path, &options, sluice_platform_default(), NULL, &err), SLUICE_ERR_NO_MEMORY);
    assert_null(e);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (strstr(err.message, parts[i]) == NULL)
            fail_msg("\"%s\" does not name the %s", err.message, parts[i]);
    assert_true(err.hint[0] != '\0');
}

/* ---- threads and stopping */

static void fewer_threads_work_while_the_device_is_hot(void **state)
{
    static const struct { sluice_thermal thermal; bool is_low_power; uint32_t n; } cases[] = {
        { SLUICE_THERMAL_NOMINAL, false, 4 }, { SLUICE_THERMAL_FAIR, false, 4 }, { SLUICE_THERMAL_SERIOUS, false, 2 },
        { SLUICE_THERMAL_CRITICAL, false, 1 }, { SLUICE_THERMAL_NOMINAL, true, 2 }, { SLUICE_THERMAL_CRITICAL, true, 1 },
        { SLUICE_THERMAL_UNKNOWN, false, 4 },
    };
    sluice_engine_options options = { .cpu = UINT32_MAX };
    const char *path = temp_dir_file(&dir, "hot.gguf");
    const tiny_model tiny = tiny_model_default();
    static run_log first, log;
    sluice_engine_result result;
    fake_platform fp;
    sluice_engine *e;

    (void)state;
    tiny_model_write(&tiny, path);
    fake_platform_init(&fp, 1);
    assert_int_equal(sluice_engine_open(&e, path, &options, &fp.platform, NULL, NULL), SLUICE_OK);
    assert_int_equal(sluice_engine_get_info(e)->n_threads, 4);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fp.device.thermal = cases[i].thermal;
        fp.device.is_low_power = cases[i].is_low_power;
        assert_int_equal(ask(e, (sluice_engine_request){ .max_tokens = 10 }, 1, i == 0 ? &first : &log, &result, NULL), SLUICE_OK);
        assert_int_equal(result.n_threads, cases[i].n);
        assert_true(i == 0 || run_log_same(&first, &log));
    }
    sluice_engine_close(e);
    fp.device.n_fast_cores = 2; /* two of the four are slow */
    assert_int_equal(sluice_engine_open(&e, path, &options, &fp.platform, NULL, NULL), SLUICE_OK);
    assert_int_equal(sluice_engine_get_info(e)->n_threads, 2);
    sluice_engine_close(e);
    options.n_threads = 3; /* said is said */
    fp.device.thermal = SLUICE_THERMAL_CRITICAL;
    assert_int_equal(sluice_engine_open(&e, path, &options, &fp.platform, NULL, NULL), SLUICE_OK);
    assert_int_equal(ask(e, (sluice_engine_request){ .max_tokens = 1 }, 1, &log, &result, NULL), SLUICE_OK);
    assert_int_equal(result.n_threads, 3);
    sluice_engine_close(e);
    fake_platform_deinit(&fp);
}

typedef struct stopper { sluice_engine *e; uint32_t n_calls, stop_at, n_after; } stopper;

static void stop_at_a_product(void *user, const char *name, int32_t expert, const float *x, size_t n_tokens, size_t cols)
{
    stopper *s = user;

    (void)name;
    (void)expert;
    (void)x;
    (void)n_tokens;
    (void)cols;
    s->n_after += s->n_calls >= s->stop_at;
    if (++s->n_calls == s->stop_at)
        sluice_engine_stop(s->e);
}

static void a_prefill_stops_within_a_layer_of_a_chunk(void **state)
{
    tiny_model tiny = tiny_model_default();
    static int32_t tokens[3000];
    const float *logits;

    (void)state;
    tiny.n_context = 4096;
    tiny.n_layer = 6;
    for (uint32_t at = 1; at < 120; at += 13) {
        sluice_engine *e = run_open(&tiny, temp_dir_file(&dir, "long.gguf"), NULL, NULL);
        stopper s = { e, 0, at, 0 };

        run_fill(tokens, 3000, 1);
        sluice_engine_observe(e, stop_at_a_product, &s);
        assert_int_equal(sluice_engine_eval(e, tokens, 3000, &logits, NULL), SLUICE_ERR_CANCELLED);
        assert_true(s.n_after < 7); /* a layer has seven products */
        assert_true(sluice_engine_position(e) < 3000);
        sluice_engine_close(e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_ends_before_the_first_stop_string_and_nothing_of_it_comes_out),
        cmocka_unit_test(text_held_back_comes_out_when_the_answer_ends_otherwise),
        cmocka_unit_test(bad_requests_are_refused_before_anything_runs),
        cmocka_unit_test(answers_by_a_schema_are_whole_and_valid_whatever_the_model_prefers),
        cmocka_unit_test(a_tool_call_names_a_tool_and_fits_its_parameters),
        cmocka_unit_test(greedy_tokens_lead_their_alternatives),
        cmocka_unit_test(a_probe_head_scores_the_state_that_each_token_came_from),
        cmocka_unit_test(rows_of_logits_are_those_of_runs_of_their_own),
        cmocka_unit_test(embeddings_come_from_encoders_and_decoders_and_forget_the_text),
        cmocka_unit_test(the_estimate_is_what_is_used_within_five_percent),
        cmocka_unit_test(of_a_mixture_only_the_experts_in_use_count),
        cmocka_unit_test(a_budget_is_kept_and_the_refusal_names_each_part),
        cmocka_unit_test(fewer_threads_work_while_the_device_is_hot),
        cmocka_unit_test(a_prefill_stops_within_a_layer_of_a_chunk),
    };

    return cmocka_run_group_tests_name("request", tests, open_dir, close_dir);
}
