/* test_oom_engine.c - every allocation of whole lives of an engine fails once: a status, nothing leaked, no token of an answer that failed before it began,
 * and an engine that goes on working.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>

#include "sdk/crypto/crypto.h"
#include "sdk/src/session_seal.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/engine/engine_runs.h"

static const char schema[] = "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"array\",\"items\":{\"type\":\"string\",\"pattern\":\"^[a-c]+$\",\"maxLength\":3}},"
                             "\"b\":{\"enum\":[1,2]}},\"required\":[\"b\"]}";
static const char tools[] = "[{\"type\":\"function\",\"function\":{\"name\":\"light\",\"parameters\":{\"type\":\"object\",\"properties\":{\"on\":{\"type\":\"boolean\"}}}}}]";

static temp_dir dir;

static int open_dir(void **state)
{
    (void)state;
    temp_dir_open(&dir);
    return sluice_crypto_init(NULL) == SLUICE_OK ? 0 : -1;
}

static int close_dir(void **state)
{
    (void)state;
    temp_dir_close(&dir);
    return 0;
}

typedef struct paths { char model[768], draft[768], encoder[768], session[768]; } paths;

static void write_models(paths *p)
{
    tiny_model tiny = tiny_model_default();

    (void)sluice_copy_str(p->model, sizeof p->model, temp_dir_file(&dir, "model.gguf"));
    (void)sluice_copy_str(p->draft, sizeof p->draft, temp_dir_file(&dir, "draft.gguf"));
    (void)sluice_copy_str(p->encoder, sizeof p->encoder, temp_dir_file(&dir, "encoder.gguf"));
    (void)sluice_copy_str(p->session, sizeof p->session, temp_dir_file(&dir, "session"));
    tiny.has_probe = true;
    tiny_model_write(&tiny, p->model);
    tiny.n_layer = 1;
    tiny_model_write(&tiny, p->draft);
    assert_true(tiny_model_family("bert", false, &tiny));
    tiny_model_write(&tiny, p->encoder);
}

static sluice_status open_and_close(const sluice_allocator *al, void *user)
{
    const paths *p = user;
    const sluice_engine_options options = { .n_threads = 2, .cpu = UINT32_MAX, .draft_path = p->draft };
    sluice_engine *e;
    const sluice_status st = sluice_engine_open(&e, p->model, &options, sluice_platform_default(), al, NULL);

    assert_int_equal(e == NULL, st != SLUICE_OK);
    sluice_engine_close(e);
    return st;
}

static sluice_status estimate(const sluice_allocator *al, void *user)
{
    const paths *p = user;
    const sluice_engine_options options = { .n_threads = 2, .cpu = UINT32_MAX, .draft_path = p->draft };
    sluice_engine_estimate out;

    return sluice_engine_estimate_memory(&out, p->model, &options, sluice_platform_default(), al, NULL);
}

static void opening_and_estimating_survive_every_failed_allocation(void **state)
{
    paths p;

    (void)state;
    write_models(&p);
    assert_in_range(fake_allocator_sweep(open_and_close, &p), 20, 10000);
    assert_in_range(fake_allocator_sweep(estimate, &p), 4, 10000);
}

/* ---- requests to an engine that is open */

typedef struct kind { const char *name; sluice_engine_request request; } kind;

static const sluice_span stops[] = { { (const uint8_t *)"zq", 2 }, { (const uint8_t *)"never", 5 } };

static const kind kinds[] = {
    { "plain", { .max_tokens = 10 } },
    { "stop strings", { .max_tokens = 10, .stop = stops, .n_stop = 2 } },
    { "whole code points", { .max_tokens = 10, .whole_code_points = true } },
    { "schema", { .max_tokens = 40, .json = true, .json_schema = { (const uint8_t *)schema, sizeof schema - 1 } } },
    { "tools", { .max_tokens = 60, .tools = { (const uint8_t *)tools, sizeof tools - 1 }, .tool_choice = SLUICE_TOOL_REQUIRED } },
    { "draft model", { .max_tokens = 20, .draft = SLUICE_DRAFT_MODEL } },
    { "lookup", { .max_tokens = 20, .draft = SLUICE_DRAFT_LOOKUP, .overflow = SLUICE_OVERFLOW_TRUNCATE_OLDEST } },
};

static sluice_status ask(sluice_engine *e, const kind *k, bool keep, run_log *log)
{
    sluice_engine_request r = k->request;
    sluice_engine_result result;
    int32_t tokens[30];

    run_fill(tokens, 30, 1);
    r.prompt = tokens;
    r.n_prompt = 30;
    r.keep = keep;
    r.on_token = run_log_take;
    r.user = log;
    memset(log, 0, sizeof *log);
    return sluice_engine_run(e, &r, &result, NULL);
}

/* The engine is opened with memory, then each allocation of the request fails in turn. */
static void requests_survive_every_failed_allocation_and_the_engine_goes_on(void **state)
{
    sluice_engine_options options = { .n_threads = 1, .cpu = UINT32_MAX };
    static run_log want, log;
    size_t n_points = 0;
    paths p;

    (void)state;
    write_models(&p);
    options.draft_path = p.draft;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        sluice_status st = SLUICE_ERR_NO_MEMORY;

        for (size_t at = 0; st != SLUICE_OK; at++, n_points++) {
            fake_allocator fa;
            sluice_engine *e;

            fake_allocator_init(&fa);
            assert_int_equal(sluice_engine_open(&e, p.model, &options, sluice_platform_default(), &fa.al, NULL), SLUICE_OK);
            fa.fail_at = fa.n_allocs + at;
            st = ask(e, &kinds[i], at % 2 == 0, &log);
            if (st != SLUICE_OK && (st != SLUICE_ERR_NO_MEMORY || log.n != 0))
                fail_msg("%s, allocation %zu fails: status %d after %u tokens", kinds[i].name, at, (int)st, log.n);
            fa.fail_at = SIZE_MAX;
            assert_int_equal(ask(e, &kinds[i], false, at == 0 ? &want : &log), SLUICE_OK);
            if (at > 0 && !run_log_same(&want, &log))
                fail_msg("%s, allocation %zu failed: another answer afterwards", kinds[i].name, at);
            sluice_engine_close(e);
            if (!fake_allocator_is_clean(&fa))
                fail_msg("%s, allocation %zu fails: memory is lost", kinds[i].name, at);
        }
    }
    assert_true(n_points > 30);
}

static sluice_status embed(const sluice_allocator *al, void *user)
{
    const paths *p = user;
    const sluice_engine_options options = { .n_threads = 1, .cpu = UINT32_MAX };
    sluice_engine *e;
    float out[64];
    sluice_status st = sluice_engine_open(&e, p->encoder, &options, sluice_platform_default(), al, NULL);

    if (st == SLUICE_OK)
        st = sluice_engine_embed(e, sluice_span_str("abc def"), true, out, 64, NULL);
    sluice_engine_close(e);
    return st;
}

static sluice_status save_and_restore(const sluice_allocator *al, void *user)
{
    static const uint8_t key[32] = { 7 };
    const paths *p = user;
    const sluice_engine_options options = { .n_threads = 1, .cpu = UINT32_MAX };
    sluice_session_seal seal;
    static run_log log;
    sluice_engine *e;
    sluice_status st = sluice_engine_open(&e, p->model, &options, sluice_platform_default(), al, NULL);

    sluice_session_seal_init(&seal, key, sluice_platform_default());
    if (st == SLUICE_OK)
        st = ask(e, &kinds[0], true, &log);
    if (st == SLUICE_OK)
        st = sluice_engine_save_session(e, p->session, &seal.sealer, NULL);
    if (st == SLUICE_OK) {
        st = sluice_engine_restore_session(e, p->session, &seal.sealer, NULL);
        assert_int_equal(sluice_engine_position(e), st == SLUICE_OK ? 30 + log.n - 1 : 0);
    }
    sluice_engine_close(e);
    return st;
}

static void embedding_saving_and_restoring_survive_every_failed_allocation(void **state)
{
    paths p;

    (void)state;
    write_models(&p);
    assert_in_range(fake_allocator_sweep(embed, &p), 10, 10000);
    assert_in_range(fake_allocator_sweep(save_and_restore, &p), 10, 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_and_estimating_survive_every_failed_allocation),
        cmocka_unit_test(requests_survive_every_failed_allocation_and_the_engine_goes_on),
        cmocka_unit_test(embedding_saving_and_restoring_survive_every_failed_allocation),
    };

    return cmocka_run_group_tests(tests, open_dir, close_dir);
}
