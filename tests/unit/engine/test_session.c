/* test_session.c - what an engine keeps between requests: reuse to the bit, the file and its enemies, full contexts, memory that does not grow.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "local-engine/engine_impl.h"
#include "sdk/crypto/crypto.h"
#include "sdk/src/session_seal.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"
#include "tests/support/fake_platform.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"
#include "tests/unit/engine/engine_runs.h"

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

/* A request over `tokens`, collected into `log`. */
static sluice_status ask(sluice_engine *e, const int32_t *tokens, size_t n, uint32_t max_tokens, bool keep, run_log *log, sluice_engine_result *result)
{
    const sluice_engine_request request = { .prompt = tokens, .n_prompt = n, .max_tokens = max_tokens, .keep = keep, .on_token = run_log_take, .user = log };

    memset(log, 0, sizeof *log);
    return sluice_engine_run(e, &request, result, NULL);
}

/* ---- reuse */

static const sluice_engine_options kinds[] = {
    { .n_threads = 1, .cpu = UINT32_MAX }, { .n_threads = 2, .cpu = UINT32_MAX }, { .n_threads = 1, .cpu = 0 },
    { .n_threads = 1, .cpu = UINT32_MAX, .kv = SLUICE_ENGINE_KV_Q8_0 },
};

static tiny_model tiny_for(const sluice_engine_options *options)
{
    tiny_model tiny = tiny_model_default();

    if (options->kv == SLUICE_ENGINE_KV_Q8_0) {
        tiny.n_head = 2;
        tiny.n_head_kv = 1;
        tiny.head_dim = 32;
    }
    return tiny;
}

/* A session of 5 tokens has the same bytes on its way out whether more had been there or not. */
static void what_was_truncated_is_not_saved(void **state)
{
    static uint8_t with[16384], without[16384];

    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const tiny_model tiny = tiny_for(&kinds[i]);
        sluice_engine *e = run_open(&tiny, temp_dir_file(&dir, "lanes.gguf"), &kinds[i], NULL);
        int32_t tokens[14];
        const float *logits;
        size_t bytes;

        run_fill(tokens, 14, 3);
        bytes = sluice_kv_cache_piece_bytes(&e->kv, 5);
        assert_true(bytes <= sizeof with);
        assert_int_equal(sluice_engine_eval(e, tokens, 5, &logits, NULL), SLUICE_OK);
        sluice_kv_cache_read_piece(&e->kv, 1, 0, 0, 5, without);
        assert_int_equal(sluice_engine_eval(e, tokens + 5, 9, &logits, NULL), SLUICE_OK);
        sluice_engine_truncate(e, 5);
        sluice_kv_cache_read_piece(&e->kv, 1, 0, 0, 5, with);
        assert_memory_equal(with, without, bytes);
        sluice_engine_close(e);
    }
}

/* Three turns of a conversation: each prompt is the one before, the answer to it, and something new. */
static void a_kept_session_answers_like_an_empty_one_to_the_bit(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        const tiny_model tiny = tiny_for(&kinds[k]);
        sluice_engine *kept = run_open(&tiny, temp_dir_file(&dir, "a.gguf"), &kinds[k], NULL);
        sluice_engine *fresh = run_open(&tiny, temp_dir_file(&dir, "b.gguf"), &kinds[k], NULL);
        static run_log with, without;
        sluice_engine_result result;
        int32_t tokens[128];
        size_t n = 20;

        run_fill(tokens, n, 1);
        for (uint32_t turn = 0; turn < 3; turn++) {
            assert_int_equal(ask(kept, tokens, n, 8, true, &with, &result), SLUICE_OK);
            assert_int_equal(result.reused_tokens, turn == 0 ? 0 : n - 11);
            assert_int_equal(ask(fresh, tokens, n, 8, false, &without, &result), SLUICE_OK);
            assert_int_equal(result.reused_tokens, 0);
            assert_int_equal(sluice_engine_position(fresh), 0);
            assert_true(run_log_same(&with, &without));
            assert_int_equal(with.n, 8);
            assert_int_equal(sluice_engine_position(kept), n + 7);
            memcpy(tokens + n, with.ids, 8 * sizeof tokens[0]);
            run_fill(tokens + n + 8, 10, turn + 7);
            n += 18;
        }
        sluice_engine_close(kept);
        sluice_engine_close(fresh);
    }
}

static void only_what_is_common_is_reused(void **state)
{
    const tiny_model tiny = tiny_model_default();
    sluice_engine *e = run_open(&tiny, temp_dir_file(&dir, "a.gguf"), NULL, NULL);
    static run_log first, again;
    sluice_engine_result result;
    int32_t tokens[60], other[60];

    (void)state;
    run_fill(tokens, 60, 1);
    assert_int_equal(ask(e, tokens, 60, 6, false, &first, &result), SLUICE_OK);
    for (size_t same = 0; same <= 60; same += 12) {
        run_fill(other, 60, 2);
        memcpy(other, tokens, same * sizeof other[0]);
        if (same < 60)
            other[same] = tokens[same] == 5 ? 6 : 5;
        assert_int_equal(ask(e, other, 60, 6, true, &again, &result), SLUICE_OK);
        assert_int_equal(ask(e, tokens, 60, 6, true, &again, &result), SLUICE_OK);
        assert_int_equal(result.reused_tokens, same < 60 ? same : 59); /* the last token runs again for its logits */
        assert_true(run_log_same(&first, &again));
        assert_int_equal(result.prompt_tokens, 60);
        sluice_engine_reset(e);
    }
    sluice_engine_close(e);
}

static void a_request_that_keeps_nothing_wipes_what_was_kept(void **state)
{
    const tiny_model tiny = tiny_model_default();
    sluice_engine *e = run_open(&tiny, temp_dir_file(&dir, "a.gguf"), NULL, NULL);
    static run_log log;
    sluice_engine_result result;
    int32_t tokens[40];

    (void)state;
    run_fill(tokens, 40, 1);
    assert_int_equal(ask(e, tokens, 30, 4, true, &log, &result), SLUICE_OK);
    assert_int_equal(ask(e, tokens, 40, 4, false, &log, &result), SLUICE_OK);
    assert_int_equal(result.reused_tokens, 30);
    assert_int_equal(sluice_engine_position(e), 0);
    assert_int_equal(ask(e, tokens, 30, 4, true, &log, &result), SLUICE_OK);
    assert_int_equal(ask(e, tokens, 0, 4, false, &log, &result), SLUICE_ERR_ARGUMENT); /* however it ends */
    assert_int_equal(sluice_engine_position(e), 0);
    sluice_engine_close(e);
}

static void a_cancelled_request_leaves_a_session_that_goes_on(void **state)
{
    const tiny_model tiny = tiny_model_default();
    sluice_engine *e = run_open(&tiny, temp_dir_file(&dir, "a.gguf"), NULL, NULL);
    static run_log first, cut, again;
    sluice_engine_result result;
    int32_t tokens[40];

    (void)state;
    run_fill(tokens, 40, 1);
    assert_int_equal(ask(e, tokens, 40, 20, false, &first, &result), SLUICE_OK);
    const sluice_engine_request request = { .prompt = tokens, .n_prompt = 40, .max_tokens = 20, .keep = true, .on_token = run_log_take, .user = &cut };
    memset(&cut, 0, sizeof cut);
    cut.stop_engine = e;
    cut.stop_after = 5;
    assert_int_equal(sluice_engine_run(e, &request, &result, NULL), SLUICE_ERR_CANCELLED);
    assert_int_equal(result.output_tokens, 5); /* within one token */
    sluice_engine_resume(e);
    assert_int_equal(ask(e, tokens, 40, 20, true, &again, &result), SLUICE_OK);
    assert_int_equal(result.reused_tokens, 39);
    assert_true(run_log_same(&first, &again));
    sluice_engine_close(e);
}

/* ---- on disk */

static const uint8_t a_key[32] = { 1, 2, 3 }, another_key[32] = { 1, 2, 4 };

typedef struct saved { sluice_engine *e; char path[768]; int32_t tokens[60]; size_t n; run_log goes_on; sluice_session_seal seal; } saved;

/* A session of some turns in a file, and how it goes on. */
static void save_one(saved *s, const tiny_model *tiny, size_t n)
{
    static run_log log;
    sluice_engine_result result;
    sluice_error err = SLUICE_ERROR_INIT;

    memset(s, 0, sizeof *s);
    s->e = run_open(tiny, temp_dir_file(&dir, "a.gguf"), NULL, NULL);
    s->n = n;
    run_fill(s->tokens, 60, 3);
    sluice_session_seal_init(&s->seal, a_key, sluice_platform_default());
    (void)sluice_copy_str(s->path, sizeof s->path, temp_dir_file(&dir, "session"));
    assert_int_equal(ask(s->e, s->tokens, n, 1, true, &log, &result), SLUICE_OK);
    if (sluice_engine_save_session(s->e, s->path, &s->seal.sealer, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
    assert_int_equal(sluice_engine_position(s->e), n);
    assert_int_equal(ask(s->e, s->tokens, n + 5, 10, true, &s->goes_on, &result), SLUICE_OK);
    assert_int_equal(result.reused_tokens, n);
    sluice_engine_reset(s->e);
}

static void a_restored_session_goes_on_with_the_same_tokens(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        tiny_model tiny = tiny_model_default();
        static run_log log;
        sluice_engine_result result;
        sluice_error err = SLUICE_ERROR_INIT;
        sluice_engine *other;
        static saved s;

        if (k == 1) { /* several chunks of the file, and several pieces of a head */
            tiny.n_layer = 8;
            tiny.n_head_kv = 4;
            tiny.n_context = 512;
        }
        save_one(&s, &tiny, k == 0 ? 33 : 55);
        other = run_open(&tiny, temp_dir_file(&dir, "b.gguf"), NULL, NULL); /* as after a restart of the app */
        if (sluice_engine_restore_session(other, s.path, &s.seal.sealer, &err) != SLUICE_OK)
            fail_msg("%s", err.message);
        assert_int_equal(sluice_engine_position(other), s.n);
        assert_int_equal(ask(other, s.tokens, s.n + 5, 10, true, &log, &result), SLUICE_OK);
        assert_int_equal(result.reused_tokens, s.n);
        assert_true(run_log_same(&s.goes_on, &log));
        sluice_engine_close(other);
        sluice_engine_close(s.e);
    }
}

/* Replaces the file, tries it, and wants `want` and an empty session. */
static void try_file(saved *s, sluice_span file, const char *what, size_t at)
{
    sluice_error err = SLUICE_ERROR_INIT;
    FILE *out = fopen(s->path, "wb"); /* thousands of times: not worth a sync each */
    sluice_status st;

    assert_non_null(out);
    assert_int_equal(fwrite(file.ptr, 1, file.len, out), file.len);
    assert_int_equal(fclose(out), 0);
    st = sluice_engine_restore_session(s->e, s->path, &s->seal.sealer, &err);
    if (st == SLUICE_OK || err.message[0] == '\0')
        fail_msg("%s %zu passes", what, at);
    assert_int_equal(sluice_engine_position(s->e), 0);
}

static void every_changed_byte_and_every_missing_end_is_found(void **state)
{
    tiny_model tiny = tiny_model_default();
    static saved s;
    sluice_buf file;

    (void)state;
    tiny.n_layer = 1; /* a small file: each of its bytes is tried */
    tiny.n_head_kv = 1;
    save_one(&s, &tiny, 3);
    assert_true(test_read_file(s.path, &file));
    assert_in_range(file.len, 500, 4000);
    for (size_t i = 0; i < file.len; i++) {
        file.ptr[i] ^= (uint8_t)(1u << i % 8);
        try_file(&s, sluice_buf_span(&file), "a change of byte", i);
        file.ptr[i] ^= (uint8_t)(1u << i % 8);
    }
    for (size_t i = 0; i < file.len; i++)
        try_file(&s, sluice_span_of(file.ptr, i), "an end at", i);
    assert_true(sluice_buf_append_byte(&file, 0));
    try_file(&s, sluice_buf_span(&file), "a byte more than", file.len);
    file.len--;
    assert_int_equal(sluice_platform_write_file(sluice_platform_default(), s.path, sluice_buf_span(&file), NULL), SLUICE_OK);
    assert_int_equal(sluice_engine_restore_session(s.e, s.path, &s.seal.sealer, NULL), SLUICE_OK); /* and as it was, it is good */
    sluice_buf_deinit(&file);
    sluice_engine_close(s.e);
}

static void chunks_that_are_swapped_repeated_or_of_another_file_are_found(void **state)
{
    enum { PREFIX = 88, CHUNK = 65536 + 40 };
    tiny_model tiny = tiny_model_default();
    sluice_buf first, second, mixed;
    static saved s;

    (void)state;
    tiny.n_layer = 16;
    tiny.n_head_kv = 4;
    save_one(&s, &tiny, 50);
    assert_true(test_read_file(s.path, &first));
    sluice_engine_close(s.e);
    save_one(&s, &tiny, 50); /* the same session, sealed again with the same key */
    assert_true(test_read_file(s.path, &second));
    assert_int_equal(first.len, second.len);
    assert_true(first.len > PREFIX + 3 * CHUNK);
    for (int kind = 0; kind < 4; kind++) {
        sluice_buf_init(&mixed, NULL, SIZE_MAX);
        assert_true(sluice_buf_append_span(&mixed, sluice_buf_span(&first)));
        if (kind == 0) { /* swapped */
            memcpy(mixed.ptr + PREFIX, first.ptr + PREFIX + CHUNK, CHUNK);
            memcpy(mixed.ptr + PREFIX + CHUNK, first.ptr + PREFIX, CHUNK);
        } else if (kind == 1) /* repeated */
            memcpy(mixed.ptr + PREFIX + CHUNK, first.ptr + PREFIX, CHUNK);
        else if (kind == 2) /* of the other file, same place */
            memcpy(mixed.ptr + PREFIX + CHUNK, second.ptr + PREFIX + CHUNK, CHUNK);
        else /* the last one early */
            sluice_buf_consume(&mixed, 0), mixed.len = PREFIX + CHUNK;
        try_file(&s, sluice_buf_span(&mixed), "mixture", (size_t)kind);
        sluice_buf_deinit(&mixed);
    }
    sluice_buf_deinit(&first);
    sluice_buf_deinit(&second);
    sluice_engine_close(s.e);
}

static void a_session_of_another_model_key_cache_or_kind_is_refused(void **state)
{
    const sluice_engine_options q8 = { .n_threads = 1, .cpu = UINT32_MAX, .kv = SLUICE_ENGINE_KV_Q8_0 };
    const sluice_engine_options narrow = { .n_threads = 1, .cpu = UINT32_MAX, .context_tokens = 16 };
    tiny_model tiny = tiny_for(&q8);
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_session_seal wrong;
    static saved s;
    sluice_engine *e;

    (void)state;
    save_one(&s, &tiny, 33);
    sluice_session_seal_init(&wrong, another_key, sluice_platform_default());
    assert_int_equal(sluice_engine_restore_session(s.e, s.path, &wrong.sealer, &err), SLUICE_ERR_INTEGRITY);
    assert_int_equal(sluice_engine_position(s.e), 0);
    assert_int_equal(sluice_engine_restore_session(s.e, "/nonexistent/session", &s.seal.sealer, &err), SLUICE_ERR_NOT_FOUND);
    assert_int_equal(sluice_engine_restore_session(s.e, temp_dir_file(&dir, "a.gguf"), &s.seal.sealer, &err), SLUICE_ERR_FORMAT);
    assert_int_equal(sluice_engine_restore_session(s.e, s.path, NULL, &err), SLUICE_ERR_ARGUMENT);

    e = run_open(&tiny, temp_dir_file(&dir, "a.gguf"), &q8, NULL);
    assert_int_equal(sluice_engine_restore_session(e, s.path, &s.seal.sealer, &err), SLUICE_ERR_STATE);
    sluice_engine_close(e);
    e = run_open(&tiny, temp_dir_file(&dir, "a.gguf"), &narrow, NULL);
    assert_int_equal(sluice_engine_restore_session(e, s.path, &s.seal.sealer, &err), SLUICE_ERR_LIMIT);
    sluice_engine_close(e);
    tiny.seed = 2;
    e = run_open(&tiny, temp_dir_file(&dir, "a.gguf"), NULL, NULL);
    assert_int_equal(sluice_engine_restore_session(e, s.path, &s.seal.sealer, &err), SLUICE_ERR_STATE);
    assert_non_null(strstr(err.message, "another model"));
    sluice_engine_close(e);
    sluice_engine_close(s.e);
}

static sluice_status seal_nothing(void *user, sluice_span aad, sluice_span plain, uint8_t *out, sluice_error *err)
{
    (void)user;
    (void)aad;
    (void)err;
    memcpy(out, plain.ptr, plain.len);
    return SLUICE_OK;
}

static void nothing_is_saved_without_encryption_or_without_a_session(void **state)
{
    const sluice_engine_sealer pretends = { .overhead = 0, .seal = seal_nothing, .open = seal_nothing };
    const tiny_model tiny = tiny_model_default();
    sluice_error err = SLUICE_ERROR_INIT;
    const char *path;
    static saved s;
    sluice_buf file;

    (void)state;
    save_one(&s, &tiny, 33);
    path = temp_dir_file(&dir, "nothing");
    assert_int_equal(sluice_engine_save_session(s.e, path, &s.seal.sealer, &err), SLUICE_ERR_STATE); /* it was reset */
    assert_int_equal(sluice_engine_restore_session(s.e, s.path, &s.seal.sealer, &err), SLUICE_OK);
    assert_int_equal(sluice_engine_save_session(s.e, path, NULL, &err), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_engine_save_session(s.e, path, &pretends, &err), SLUICE_ERR_ARGUMENT);
    assert_false(test_read_file(path, &file));
    assert_int_equal(sluice_engine_position(s.e), 33);
    sluice_engine_close(s.e);
}

/* Each file operation fails once, half of a write being done: the file is then the old one or the new one, whole. */
static void saving_is_all_or_nothing(void **state)
{
    static const fake_op ops[] = { FAKE_OPEN, FAKE_WRITE, FAKE_SYNC, FAKE_RENAME, FAKE_RANDOM };
    const sluice_engine_options one = { .n_threads = 1, .cpu = UINT32_MAX };
    const tiny_model tiny = tiny_model_default();
    const char *model;
    sluice_session_seal seal;
    static run_log log;
    sluice_engine_result result;
    int32_t tokens[60];
    sluice_engine *e;
    fake_platform fp;
    char path[768];
    size_t n_failed = 0;

    (void)state;
    fake_platform_init(&fp, 1);
    fp.torn_writes = true;
    model = temp_dir_file(&dir, "a.gguf");
    tiny_model_write(&tiny, model);
    assert_int_equal(sluice_engine_open(&e, model, &one, &fp.platform, NULL, NULL), SLUICE_OK);
    (void)sluice_copy_str(path, sizeof path, temp_dir_file(&dir, "atomic"));
    sluice_session_seal_init(&seal, a_key, &fp.platform);
    run_fill(tokens, 60, 1);
    assert_int_equal(ask(e, tokens, 20, 1, true, &log, &result), SLUICE_OK);
    assert_int_equal(sluice_engine_save_session(e, path, &seal.sealer, NULL), SLUICE_OK);
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        for (size_t at = 0; at < 3; at++) {
            sluice_status st;

            assert_int_equal(ask(e, tokens, 40, 1, true, &log, &result), SLUICE_OK);
            fake_platform_fail(&fp, ops[i], at);
            st = sluice_engine_save_session(e, path, &seal.sealer, NULL);
            fake_platform_heal(&fp);
            n_failed += st != SLUICE_OK;
            assert_int_equal(sluice_engine_restore_session(e, path, &seal.sealer, NULL), SLUICE_OK);
            if (st != SLUICE_OK && ops[i] != FAKE_RENAME)
                assert_int_equal(sluice_engine_position(e), 20);
            assert_int_equal(ask(e, tokens, 20, 1, true, &log, &result), SLUICE_OK); /* the old one again */
            sluice_engine_reset(e);
            assert_int_equal(ask(e, tokens, 20, 1, true, &log, &result), SLUICE_OK);
            assert_int_equal(sluice_engine_save_session(e, path, &seal.sealer, NULL), SLUICE_OK);
        }
    assert_true(n_failed >= 6);
    sluice_engine_close(e);
    fake_platform_deinit(&fp);
}

/* ---- full contexts */

static void overflow_is_refused_or_said_as_the_policy_has_it(void **state)
{
    const tiny_model tiny = tiny_model_default();
    sluice_engine *e = run_open(&tiny, temp_dir_file(&dir, "a.gguf"), NULL, NULL);
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_engine_result result;
    int32_t tokens[200];
    static run_log log;

    (void)state;
    run_fill(tokens, 200, 1);
    sluice_engine_request r = { .prompt = tokens, .n_prompt = 129, .max_tokens = 10, .on_token = run_log_take, .user = &log };
    memset(&log, 0, sizeof log);
    assert_int_equal(sluice_engine_run(e, &r, &result, &err), SLUICE_ERR_LIMIT);
    assert_true(err.hint[0] != '\0');
    r.overflow = SLUICE_OVERFLOW_STOP;
    assert_int_equal(sluice_engine_run(e, &r, &result, &err), SLUICE_OK);
    assert_int_equal(result.stop, SLUICE_STOP_CONTEXT);
    assert_int_equal(log.n, 0);
    for (int policy = SLUICE_OVERFLOW_REFUSE; policy <= SLUICE_OVERFLOW_STOP; policy++) {
        memset(&log, 0, sizeof log);
        r.overflow = (sluice_engine_overflow)policy;
        r.n_prompt = 120;
        r.max_tokens = 100;
        assert_int_equal(sluice_engine_run(e, &r, &result, &err), SLUICE_OK);
        assert_int_equal(result.stop, SLUICE_STOP_CONTEXT);
        assert_int_equal(result.output_tokens, 9);
        assert_int_equal(result.dropped_tokens, 0);
    }
    r.overflow = (sluice_engine_overflow)7;
    assert_int_equal(sluice_engine_run(e, &r, &result, &err), SLUICE_ERR_ARGUMENT);
    r.overflow = SLUICE_OVERFLOW_TRUNCATE_OLDEST;
    r.n_keep = 65;
    assert_int_equal(sluice_engine_run(e, &r, &result, &err), SLUICE_ERR_ARGUMENT);
    sluice_engine_close(e);
}

static void truncation_answers_as_if_the_dropped_tokens_had_never_been(void **state)
{
    const tiny_model tiny = tiny_model_default();
    sluice_engine *e = run_open(&tiny, temp_dir_file(&dir, "a.gguf"), NULL, NULL);
    static run_log truncated, plain;
    sluice_engine_result result;
    int32_t tokens[200], left[200];
    sluice_engine_request r = { .prompt = tokens, .n_prompt = 200, .max_tokens = 10, .on_token = run_log_take, .user = &truncated,
                                .overflow = SLUICE_OVERFLOW_TRUNCATE_OLDEST, .n_keep = 8 };

    (void)state;
    run_fill(tokens, 200, 1);
    memset(&truncated, 0, sizeof truncated);
    assert_int_equal(sluice_engine_run(e, &r, &result, NULL), SLUICE_OK);
    assert_int_equal(result.output_tokens, 10);
    assert_int_equal(result.dropped_tokens, 90); /* 72 are too many, 10 need room: three steps of (128 - 8) / 4 */
    assert_int_equal(result.prompt_tokens, 110);
    memcpy(left, tokens, 8 * sizeof left[0]);
    memcpy(left + 8, tokens + 98, 102 * sizeof left[0]);
    assert_int_equal(ask(e, left, 110, 10, false, &plain, &result), SLUICE_OK);
    assert_true(run_log_same(&truncated, &plain));
    sluice_engine_close(e);
}

static void decoding_goes_on_beyond_the_context_when_old_tokens_may_go(void **state)
{
    const tiny_model tiny = tiny_model_default();
    sluice_engine *e = run_open(&tiny, temp_dir_file(&dir, "a.gguf"), NULL, NULL);
    static run_log log, plain;
    sluice_engine_result result;
    int32_t tokens[200], left[200];
    const sluice_engine_request r = { .prompt = tokens, .n_prompt = 100, .max_tokens = 400, .on_token = run_log_take, .user = &log, .keep = true,
                                      .overflow = SLUICE_OVERFLOW_TRUNCATE_OLDEST, .n_keep = 8 };

    (void)state;
    run_fill(tokens, 200, 1);
    memset(&log, 0, sizeof log);
    assert_int_equal(sluice_engine_run(e, &r, &result, NULL), SLUICE_OK);
    assert_int_equal(result.output_tokens, 400);
    assert_int_equal(result.stop, SLUICE_STOP_MAX_TOKENS);
    assert_int_equal(result.dropped_tokens % 60, 0);
    assert_true(result.dropped_tokens >= 371 && result.dropped_tokens < 371 + 61);
    assert_int_equal(result.reevaluated_tokens, result.dropped_tokens); /* as many stay as go */
    assert_true(sluice_engine_position(e) <= 128);
    /* after the first shift: the first 8, then the newest 60 of the 128 tokens before the one that did not fit */
    memcpy(left, tokens, 8 * sizeof left[0]);
    memcpy(left + 8, tokens + 68, 32 * sizeof left[0]);
    memcpy(left + 40, log.ids, 29 * sizeof left[0]);
    assert_int_equal(ask(e, left, 69, 20, false, &plain, &result), SLUICE_OK);
    assert_memory_equal(plain.ids, log.ids + 29, 20 * sizeof plain.ids[0]);
    sluice_engine_close(e);
}

/* ---- memory */

/* Half of the turns go on with the conversation, the others are new ones; all kinds of requests take their turn. */
static void a_thousand_turns_take_no_more_memory_than_one(void **state)
{
    static const char schema[] = "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":[\"a\"]}";
    const sluice_engine_options one = { .n_threads = 1, .cpu = UINT32_MAX };
    const sluice_span stop = sluice_span_str("zq");
    tiny_model tiny = tiny_model_default();
    size_t live = 0, peak = 0;
    sluice_engine_result result;
    int32_t tokens[128];
    static run_log log;
    fake_allocator fa;
    sluice_engine *e;

    (void)state;
    tiny.n_layer = 1;
    fake_allocator_init(&fa);
    e = run_open(&tiny, temp_dir_file(&dir, "a.gguf"), &one, &fa.al);
    for (uint32_t turn = 0; turn < 1000; turn++) {
        sluice_engine_request r = { .prompt = tokens, .n_prompt = 10 + turn % 20, .max_tokens = 24, .on_token = run_log_take, .user = &log };

        run_fill(tokens, 40, turn / 2);
        r.keep = turn % 3 == 0;
        r.draft = turn % 2 == 0 ? SLUICE_DRAFT_LOOKUP : SLUICE_DRAFT_NONE;
        if (turn % 5 == 0) {
            r.json = true;
            r.json_schema = sluice_span_str(schema);
        } else if (turn % 5 == 1) {
            r.stop = &stop;
            r.n_stop = 1;
        }
        memset(&log, 0, sizeof log);
        assert_int_equal(sluice_engine_run(e, &r, &result, NULL), SLUICE_OK);
        if (turn == 10) {
            live = fa.live_bytes;
            peak = fa.peak_bytes;
        }
        if (turn > 10 && (fa.live_bytes != live || fa.peak_bytes != peak))
            fail_msg("turn %u: %zu bytes live, %zu at the peak; %zu and %zu after turn 10", turn, fa.live_bytes, fa.peak_bytes, live, peak);
    }
    sluice_engine_close(e);
    assert_true(fake_allocator_is_clean(&fa));
}

static void saving_and_restoring_give_back_what_they_take(void **state)
{
    const sluice_engine_options one = { .n_threads = 1, .cpu = UINT32_MAX };
    const tiny_model tiny = tiny_model_default();
    const char *path = temp_dir_file(&dir, "session2");
    sluice_session_seal seal;
    sluice_engine_result result;
    int32_t tokens[40];
    static run_log log;
    fake_allocator fa;
    sluice_engine *e;
    size_t live;

    (void)state;
    fake_allocator_init(&fa);
    e = run_open(&tiny, temp_dir_file(&dir, "a.gguf"), &one, &fa.al);
    sluice_session_seal_init(&seal, a_key, sluice_platform_default());
    run_fill(tokens, 40, 1);
    assert_int_equal(ask(e, tokens, 40, 1, true, &log, &result), SLUICE_OK);
    live = fa.live_bytes;
    assert_int_equal(live, sluice_engine_private_bytes(e));
    assert_int_equal(sluice_engine_save_session(e, path, &seal.sealer, NULL), SLUICE_OK);
    assert_int_equal(sluice_engine_restore_session(e, path, &seal.sealer, NULL), SLUICE_OK);
    assert_int_equal(fa.live_bytes, live);
    fa.fail_at = fa.n_allocs;
    assert_int_equal(sluice_engine_save_session(e, path, &seal.sealer, NULL), SLUICE_ERR_NO_MEMORY);
    assert_int_equal(sluice_engine_position(e), 40); /* not saved, not lost */
    fa.fail_at = fa.n_allocs;
    assert_int_equal(sluice_engine_restore_session(e, path, &seal.sealer, NULL), SLUICE_ERR_NO_MEMORY);
    assert_int_equal(sluice_engine_position(e), 0);
    assert_int_equal(sluice_engine_restore_session(e, path, &seal.sealer, NULL), SLUICE_OK);
    sluice_engine_close(e);
    assert_true(fake_allocator_is_clean(&fa));
}

/* ---- two in one process */

typedef struct worker { sluice_engine *e; int32_t tokens[40]; run_log log; sluice_status st; } worker;

static void work(void *arg)
{
    worker *w = arg;

    for (int i = 0; i < 10; i++) {
        sluice_engine_result result;

        w->st = ask(w->e, w->tokens, 40, 20, i % 2 == 0, &w->log, &result);
        if (w->st != SLUICE_OK)
            return;
    }
}

static void two_engines_work_at_the_same_time_and_share_nothing(void **state)
{
    const sluice_engine_options two = { .n_threads = 2, .cpu = UINT32_MAX };
    const sluice_platform *p = sluice_platform_default();
    const tiny_model tiny = tiny_model_default();
    sluice_thread *threads[2];
    sluice_engine_result result;
    static worker workers[2];
    static run_log alone;
    sluice_engine *e;

    (void)state;
    for (int i = 0; i < 2; i++) {
        workers[i].e = run_open(&tiny, temp_dir_file(&dir, i == 0 ? "a.gguf" : "b.gguf"), &two, NULL);
        run_fill(workers[i].tokens, 40, (uint32_t)i);
        assert_int_equal(p->thread_start(p->user, &threads[i], work, &workers[i], "worker", NULL), SLUICE_OK);
    }
    for (int i = 0; i < 2; i++)
        p->thread_join(p->user, threads[i]);
    e = run_open(&tiny, temp_dir_file(&dir, "c.gguf"), NULL, NULL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(workers[i].st, SLUICE_OK);
        assert_int_equal(ask(e, workers[i].tokens, 40, 20, false, &alone, &result), SLUICE_OK);
        assert_true(run_log_same(&alone, &workers[i].log));
        sluice_engine_close(workers[i].e);
    }
    sluice_engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_truncated_is_not_saved),
        cmocka_unit_test(a_kept_session_answers_like_an_empty_one_to_the_bit),
        cmocka_unit_test(only_what_is_common_is_reused),
        cmocka_unit_test(a_request_that_keeps_nothing_wipes_what_was_kept),
        cmocka_unit_test(a_cancelled_request_leaves_a_session_that_goes_on),
        cmocka_unit_test(a_restored_session_goes_on_with_the_same_tokens),
        cmocka_unit_test(every_changed_byte_and_every_missing_end_is_found),
        cmocka_unit_test(chunks_that_are_swapped_repeated_or_of_another_file_are_found),
        cmocka_unit_test(a_session_of_another_model_key_cache_or_kind_is_refused),
        cmocka_unit_test(nothing_is_saved_without_encryption_or_without_a_session),
        cmocka_unit_test(saving_is_all_or_nothing),
        cmocka_unit_test(overflow_is_refused_or_said_as_the_policy_has_it),
        cmocka_unit_test(truncation_answers_as_if_the_dropped_tokens_had_never_been),
        cmocka_unit_test(decoding_goes_on_beyond_the_context_when_old_tokens_may_go),
        cmocka_unit_test(a_thousand_turns_take_no_more_memory_than_one),
        cmocka_unit_test(saving_and_restoring_give_back_what_they_take),
        cmocka_unit_test(two_engines_work_at_the_same_time_and_share_nothing),
    };

    return cmocka_run_group_tests_name("session", tests, open_dir, close_dir);
}
