/* test_prompt.c - prompt formats: which one a file has, and what it becomes in tokens.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "local-engine/prompt.h"
#include "sdk/base/json.h"
#include "tests/support/test_files.h"
#include "tests/unit/engine/gguf_samples.h"

enum { FILE_MAX = 16 << 20, TOKENS_MAX = 512 };

typedef struct opened {
    sluice_buf file;
    sluice_gguf *g;
    sluice_tokenizer *t;
    sluice_prompt p;
} opened;

static sluice_status open_built(opened *o, sluice_error *err)
{
    sluice_status st = sluice_gguf_open_span(&o->g, sluice_buf_span(&o->file), NULL, err);

    o->t = NULL;
    if (st == SLUICE_OK)
        st = sluice_tokenizer_open(&o->t, o->g, NULL, err);
    return st == SLUICE_OK ? sluice_prompt_init(&o->p, o->g, o->t, err) : st;
}

static void open_bpe(opened *o, const char *prompt_format, const char *chat_template)
{
    const sample_bpe_options options = { .pre = "gpt-2", .prompt_format = prompt_format, .chat_template = chat_template };
    sluice_error err = SLUICE_ERROR_INIT;

    sluice_buf_init(&o->file, NULL, FILE_MAX);
    sample_bpe(&o->file, &options);
    if (open_built(o, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
}

static void close_opened(opened *o)
{
    sluice_tokenizer_close(o->t);
    sluice_gguf_close(o->g);
    sluice_buf_deinit(&o->file);
}

static sluice_status render(const opened *o, const char *role, const char *text, int32_t *tokens, size_t *n, sluice_error *err)
{
    const sluice_engine_message message = { role, sluice_span_str(text) };

    return sluice_prompt_render(&o->p, o->t, &message, 1, tokens, n, err);
}

static void format_comes_from_the_key_or_the_lack_of_a_template(void **state)
{
    static const struct {
        const char *key, *chat_template, *name;
    } cases[] = {
        { NULL, NULL, "completion" },
        { NULL, "{{ messages }}", "unknown" },
        { "completion", NULL, "completion" },
        { "completion", "{{ m }}", "completion" },
        { "intent-action/1", "{{ m }}", "intent-action/1" },
        { "intent-action/2", NULL, "unknown" },
        { "", NULL, "unknown" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        opened o;

        open_bpe(&o, cases[i].key, cases[i].chat_template);
        assert_string_equal(sluice_prompt_format_name(o.p.format), cases[i].name);
        close_opened(&o);
    }
}

static void intent_action_puts_trimmed_text_between_its_tokens(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;
    int32_t tokens[16];
    size_t n = 16;
    opened o;

    (void)state;
    open_bpe(&o, "intent-action/1", "{{ whatever }}");
    assert_int_equal(render(&o, "user", " \t\xc2\xa0\n a b \xe3\x80\x80\r\n", tokens, &n, &err), SLUICE_OK);
    assert_int_equal(n, 5);
    assert_int_equal(tokens[0], 0);
    assert_int_equal(tokens[1], SAMPLE_BPE_BYTE_0 + 'a');
    assert_int_equal(tokens[2], SAMPLE_BPE_BYTE_0 + ' ');
    assert_int_equal(tokens[3], SAMPLE_BPE_BYTE_0 + 'b');
    assert_int_equal(tokens[4], 2);
    n = 16;
    assert_int_equal(render(&o, "user", "<|action|>", tokens, &n, &err), SLUICE_OK); /* text, however it looks */
    assert_int_equal(n, 12);
    for (size_t i = 1; i + 1 < n; i++)
        assert_true(tokens[i] >= SAMPLE_BPE_BYTE_0);
    close_opened(&o);
}

static void completion_continues_the_text_as_it_is(void **state)
{
    static const sample_token tokens_in[] = { { "\xe2\x96\x81", 1, -1 }, { "a", 1, -2 } };
    sluice_error err = SLUICE_ERROR_INIT;
    int32_t tokens[16];
    size_t n = 16;
    opened o;

    (void)state;
    open_bpe(&o, NULL, NULL);
    assert_int_equal(render(&o, "user", " a ", tokens, &n, &err), SLUICE_OK);
    assert_int_equal(n, 3); /* gpt-2 begins without bos */
    assert_int_equal(tokens[0], SAMPLE_BPE_BYTE_0 + ' ');
    close_opened(&o);
    sluice_buf_init(&o.file, NULL, FILE_MAX);
    sample_spm(&o.file, true, tokens_in, 2);
    assert_int_equal(open_built(&o, &err), SLUICE_OK);
    n = 16;
    assert_int_equal(render(&o, "user", "a", tokens, &n, &err), SLUICE_OK);
    assert_int_equal(n, 3);
    assert_int_equal(tokens[0], 1);
    assert_int_equal(tokens[2], 260);
    n = 16;
    assert_int_equal(render(&o, "user", "", tokens, &n, &err), SLUICE_OK);
    assert_int_equal(n, 1);
    close_opened(&o);
}

static void what_the_format_cannot_carry_is_unsupported(void **state)
{
    static const char *const formats[] = { "intent-action/1", "completion", "who-knows" };
    const sluice_engine_message turns[] = { { "user", SLUICE_SPAN_LIT("secret one") },
                                            { "assistant", SLUICE_SPAN_LIT("b") },
                                            { "user", SLUICE_SPAN_LIT("c") } };
    const sluice_engine_message users[] = { { "user", SLUICE_SPAN_LIT("a") }, { "user", SLUICE_SPAN_LIT("b") } };
    const sluice_engine_message system[] = { { "system", SLUICE_SPAN_LIT("a") }, { "user", SLUICE_SPAN_LIT("b") } };
    const sluice_engine_message no_role = { NULL, SLUICE_SPAN_LIT("a") };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const struct {
            const sluice_engine_message *m;
            size_t n;
            sluice_status want;
        } cases[] = {
            { turns, 3, SLUICE_ERR_UNSUPPORTED },  { users, 2, SLUICE_ERR_UNSUPPORTED },
            { system, 2, SLUICE_ERR_UNSUPPORTED }, { turns + 1, 1, SLUICE_ERR_UNSUPPORTED },
            { system, 1, SLUICE_ERR_UNSUPPORTED }, { &no_role, 1, SLUICE_ERR_UNSUPPORTED },
            { NULL, 0, SLUICE_ERR_ARGUMENT },      { users, 1, i < 2 ? SLUICE_OK : SLUICE_ERR_UNSUPPORTED },
        };
        opened o;

        open_bpe(&o, formats[i], NULL);
        for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
            sluice_error err = SLUICE_ERROR_INIT;
            int32_t tokens[16];
            size_t n = 16;

            assert_int_equal(sluice_prompt_render(&o.p, o.t, cases[c].m, cases[c].n, tokens, &n, &err), cases[c].want);
            assert_true(cases[c].want == SLUICE_OK || n == 0);
            assert_null(strstr(err.message, "secret"));
            if (i == 2 && cases[c].n > 0)
                assert_non_null(strstr(err.hint, "sluice.prompt_format"));
        }
        close_opened(&o);
    }
}

static void empty_requests_are_an_argument_error(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;
    int32_t tokens[16];
    size_t n = 16;
    opened o;

    (void)state;
    open_bpe(&o, "intent-action/1", NULL);
    assert_int_equal(render(&o, "user", "", tokens, &n, &err), SLUICE_ERR_ARGUMENT);
    n = 16;
    assert_int_equal(render(&o, "user", " \n\xe2\x80\xa8 ", tokens, &n, &err), SLUICE_ERR_ARGUMENT);
    assert_int_equal(n, 0);
    close_opened(&o);
}

static void too_little_room_says_how_much_is_needed(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;
    int32_t tokens[8];
    opened o;

    (void)state;
    open_bpe(&o, "intent-action/1", NULL);
    for (size_t room = 0; room < 5; room++) {
        size_t n = room;

        tokens[room] = -7;
        assert_int_equal(render(&o, "user", "abc", room > 0 ? tokens : NULL, &n, &err), SLUICE_ERR_LIMIT);
        assert_int_equal(n, 5);
        assert_int_equal(tokens[room], -7);
    }
    for (size_t room = 5; room < 7; room++) {
        size_t n = room;

        assert_int_equal(render(&o, "user", "abc", tokens, &n, &err), SLUICE_OK);
        assert_int_equal(n, 5);
    }
    close_opened(&o);
}

static void a_format_without_its_tokens_is_refused(void **state)
{
    static const sample_token token = { "a", 1, 0 };
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_gguf_writer w;
    sluice_prompt p;
    opened o;

    (void)state;
    sluice_buf_init(&o.file, NULL, FILE_MAX);
    sample_spm(&o.file, true, &token, 1);
    assert_int_equal(open_built(&o, &err), SLUICE_OK);
    sluice_gguf_close(o.g);
    /* the same tokenizer, another file's claim */
    sluice_buf_clear(&o.file);
    sluice_tokenizer_close(o.t);
    sluice_gguf_writer_init(&w, NULL, FILE_MAX);
    sluice_gguf_put_string(&w, "tokenizer.ggml.model", "llama");
    sluice_gguf_put_strings(&w, "tokenizer.ggml.tokens", (sluice_span[]){ SLUICE_SPAN_LIT("a") }, 1);
    sluice_gguf_put_f32s(&w, "tokenizer.ggml.scores", (float[]){ 0 }, 1);
    sluice_gguf_put_string(&w, "sluice.prompt_format", "intent-action/1");
    assert_true(sluice_gguf_writer_finish(&w, &o.file));
    assert_int_equal(open_built(&o, &err), SLUICE_ERR_FORMAT);
    assert_non_null(strstr(err.message, "<|bos|>"));
    sluice_gguf_writer_deinit(&w);
    close_opened(&o);

    sluice_buf_init(&o.file, NULL, FILE_MAX);
    sluice_gguf_writer_init(&w, NULL, FILE_MAX);
    sluice_gguf_put_string(&w, "tokenizer.ggml.model", "llama");
    sluice_gguf_put_strings(&w, "tokenizer.ggml.tokens", (sluice_span[]){ SLUICE_SPAN_LIT("a") }, 1);
    sluice_gguf_put_f32s(&w, "tokenizer.ggml.scores", (float[]){ 0 }, 1);
    sluice_gguf_put_u32(&w, "sluice.prompt_format", 1);
    assert_true(sluice_gguf_writer_finish(&w, &o.file));
    assert_int_equal(open_built(&o, &err), SLUICE_ERR_FORMAT);
    assert_non_null(strstr(err.message, "sluice.prompt_format"));
    assert_int_equal(sluice_prompt_init(&p, o.g, o.t, NULL), SLUICE_ERR_FORMAT);
    assert_int_equal(p.format, SLUICE_PROMPT_UNKNOWN);
    sluice_gguf_writer_deinit(&w);
    close_opened(&o);
}

/* The trainer wrote down the prompt of some requests, tokenized by its own implementation. */
static void default_model_prompts_are_those_of_its_training(void **state)
{
    const sluice_json_limits limits = { 16 << 20, 8 };
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_buf golden = { 0 };
    sluice_json_doc *doc = NULL;
    size_t n_cases = 0;
    opened o = { 0 };

    (void)state;
    if (test_source_path("local-engine/models/golden.json") == NULL ||
        !test_read_file(test_source_path("local-engine/models/golden.json"), &golden) ||
        !test_read_file(test_source_path("local-engine/models/sluice-intents.gguf"), &o.file)) {
        sluice_buf_deinit(&golden);
        sluice_buf_deinit(&o.file);
        print_message("no default model in $SLUICE_SOURCE_DIR/local-engine/models\n");
        skip();
    }
    if (open_built(&o, &err) != SLUICE_OK || sluice_json_parse(&doc, sluice_buf_span(&golden), &limits, NULL, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
    assert_string_equal(sluice_prompt_format_name(o.p.format), "intent-action/1");
    for (const sluice_json *c = sluice_json_root(doc)->child; c != NULL; c = c->next, n_cases++) {
        const sluice_json *text = sluice_json_get(c, "text"), *want = sluice_json_get(c, "prompt"), *answer = sluice_json_get(c, "answer");
        const sluice_json *output = sluice_json_get(c, "output"), *item = want->child;
        int32_t tokens[TOKENS_MAX];
        size_t n = TOKENS_MAX, at = 0;

        assert_int_equal(render(&o, "user", text->string, tokens, &n, &err), SLUICE_OK);
        assert_int_equal(n, want->n_children);
        for (size_t i = 0; i < n; i++, item = item->next)
            assert_int_equal(tokens[i], (int32_t)item->number);
        for (item = output->child; item != NULL; item = item->next) { /* and the answer's tokens say what it says */
            sluice_span s = sluice_tokenizer_bytes(o.t, (int32_t)item->number);

            assert_true(s.len <= answer->string_len - at && (s.len == 0 || memcmp(answer->string + at, s.ptr, s.len) == 0));
            at += s.len;
            assert_true(sluice_tokenizer_is_end(o.t, (int32_t)item->number) == (item->next == NULL));
        }
        assert_int_equal(at, answer->string_len);
    }
    assert_true(n_cases >= 10);
    sluice_json_close(doc);
    sluice_buf_deinit(&golden);
    close_opened(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(format_comes_from_the_key_or_the_lack_of_a_template),
        cmocka_unit_test(intent_action_puts_trimmed_text_between_its_tokens),
        cmocka_unit_test(completion_continues_the_text_as_it_is),
        cmocka_unit_test(what_the_format_cannot_carry_is_unsupported),
        cmocka_unit_test(empty_requests_are_an_argument_error),
        cmocka_unit_test(too_little_room_says_how_much_is_needed),
        cmocka_unit_test(a_format_without_its_tokens_is_refused),
        cmocka_unit_test(default_model_prompts_are_those_of_its_training),
    };

    return cmocka_run_group_tests_name("prompt", tests, NULL, NULL);
}
