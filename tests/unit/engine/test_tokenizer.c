/* test_tokenizer.c - both kinds of tokenizer, against published answers, by hand, and by property.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "local-engine/tokenizer.h"
#include "local-engine/tokenizer_impl.h"
#include "tests/support/fake_allocator.h"
#include "tests/support/test_files.h"
#include "tests/unit/engine/gguf_samples.h"

enum { FILE_MAX = 16 << 20 };

typedef struct opened {
    sluice_buf file;
    sluice_gguf *g;
    sluice_tokenizer *t;
} opened;

static sluice_status open_built(opened *o, sluice_error *err)
{
    sluice_status st = sluice_gguf_open_span(&o->g, sluice_buf_span(&o->file), NULL, err);

    o->t = NULL;
    return st == SLUICE_OK ? sluice_tokenizer_open(&o->t, o->g, NULL, err) : st;
}

static void close_opened(opened *o)
{
    sluice_tokenizer_close(o->t);
    sluice_gguf_close(o->g);
    sluice_buf_deinit(&o->file);
}

static void open_bpe(opened *o, const sample_bpe_options *options)
{
    sluice_error err = SLUICE_ERROR_INIT;

    sluice_buf_init(&o->file, NULL, FILE_MAX);
    sample_bpe(&o->file, options);
    if (open_built(o, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
}

static void open_spm(opened *o, bool with_bytes, const sample_token *tokens, size_t n)
{
    sluice_error err = SLUICE_ERROR_INIT;

    sluice_buf_init(&o->file, NULL, FILE_MAX);
    sample_spm(&o->file, with_bytes, tokens, n);
    if (open_built(o, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
}

/* "3 17 4" */
static void assert_tokens(const sluice_tokenizer *t, const char *text, bool add_bos, const char *want)
{
    sluice_error err = SLUICE_ERROR_INIT;
    int32_t tokens[256];
    char got[2048] = "";
    size_t n = 256, at = 0;

    if (sluice_tokenizer_encode(t, sluice_span_str(text), add_bos, tokens, &n, &err) != SLUICE_OK)
        fail_msg("%s: %s", text, err.message);
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(got + at, sizeof got - at, "%s%d", i > 0 ? " " : "", (int)tokens[i]);
    assert_string_equal(got, want);
}

/* Encode and put the bytes together again. */
static bool comes_back(const sluice_tokenizer *t, sluice_span text, bool space_first)
{
    size_t n = 0, at = 0;
    bool same = true;
    int32_t *tokens;

    (void)sluice_tokenizer_encode(t, text, false, NULL, &n, NULL);
    if (n == 0)
        return text.len == 0;
    tokens = malloc(n * sizeof *tokens);
    assert_non_null(tokens);
    if (sluice_tokenizer_encode(t, text, false, tokens, &n, NULL) != SLUICE_OK) {
        free(tokens);
        return false;
    }
    for (size_t i = 0; i < n && same; i++) {
        sluice_span s = sluice_tokenizer_bytes(t, tokens[i]);

        if (i == 0 && space_first) {
            same = s.len > 0 && s.ptr[0] == ' ';
            s.ptr += same;
            s.len -= same;
        }
        same =
            same && s.len <= text.len - at && (s.len == 0 || memcmp(s.ptr, text.ptr + at, s.len) == 0) && !sluice_tokenizer_is_control(t, tokens[i]);
        at += s.len;
    }
    free(tokens);
    return same && at == text.len;
}

/* ---- published answers -------------------------------------------------------------------------------- */

/* The cases of NAME.inp stand between __ggml_vocab_test__ lines, NAME.out has a line of token numbers for each. */
static size_t check_golden(const sluice_tokenizer *t, const char *name, char *in, char *out, bool space_first)
{
    static const char between[] = "\n__ggml_vocab_test__\n";
    size_t n_cases = 0;

    while (*out != '\0') {
        char *end = strstr(in, between), *line_end = strchr(out, '\n'), *number = out;
        size_t len = end != NULL ? (size_t)(end - in) : strlen(in), n = 4096;
        int32_t tokens[4096];

        assert_non_null(line_end);
        *line_end = '\0';
        if (end == NULL && len > 0 && in[len - 1] == '\n') /* the file's own */
            len--;
        assert_int_equal(sluice_tokenizer_encode(t, sluice_span_of(in, len), false, tokens, &n, NULL), SLUICE_OK);
        for (size_t i = 0; i <= n; i++) {
            char *next;
            long want = strtol(number, &next, 10);

            if ((next == number) != (i == n) || (i < n && want != tokens[i]))
                fail_msg("%s, case %zu, token %zu: want %ld", name, n_cases, i, want);
            number = next;
        }
        if (strstr(name, "falcon") == NULL) /* its vocabulary lacks some bytes */
            assert_true(comes_back(t, sluice_span_of(in, len), space_first));
        n_cases++;
        out = line_end + 1;
        in = end != NULL ? end + sizeof between - 1 : in + strlen(in);
    }
    return n_cases;
}

static bool read_text(const char *name, sluice_buf *out)
{
    const char *path = test_data_path(name);

    return path != NULL && test_read_file(path, out) && sluice_buf_append_byte(out, 0);
}

static void published_tokenizations_are_reproduced(void **state)
{
    static const char *const names[] = { "llama-spm", "phi-3", "gpt-2", "starcoder", "falcon" };
    size_t n_done = 0;

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        sluice_error err = SLUICE_ERROR_INIT;
        sluice_buf in = { 0 }, out = { 0 };
        char path[3][64];
        opened o = { 0 };

        (void)snprintf(path[0], sizeof path[0], "vocab/ggml-vocab-%s.gguf", names[i]);
        (void)snprintf(path[1], sizeof path[1], "vocab/ggml-vocab-%s.gguf.inp", names[i]);
        (void)snprintf(path[2], sizeof path[2], "vocab/ggml-vocab-%s.gguf.out", names[i]);
        if (test_data_path(path[0]) != NULL && test_read_file(test_data_path(path[0]), &o.file) && read_text(path[1], &in) &&
            read_text(path[2], &out)) {
            if (open_built(&o, &err) != SLUICE_OK)
                fail_msg("%s: %s", names[i], err.message);
            assert_int_equal(check_golden(o.t, names[i], (char *)in.ptr, (char *)out.ptr, i < 2), 46);
            n_done++;
        }
        close_opened(&o);
        sluice_buf_deinit(&in);
        sluice_buf_deinit(&out);
    }
    if (n_done == 0) {
        print_message("no $SLUICE_TEST_DATA/vocab: published tokenizations not checked\n");
        skip();
    }
    assert_int_equal(n_done, sizeof names / sizeof names[0]);
}

static void other_kinds_are_refused_by_name(void **state)
{
    static const struct {
        const char *file, *says;
    } cases[] = { { "vocab/ggml-vocab-bert-bge.gguf", "bert" }, { "vocab/ggml-vocab-deepseek-llm.gguf", "deepseek-llm" } };
    static const sample_bpe_options unknown = { .pre = "pre-of-tomorrow" };
    sluice_error err = SLUICE_ERROR_INIT;
    opened o = { 0 };

    (void)state;
    sluice_buf_init(&o.file, NULL, FILE_MAX);
    sample_bpe(&o.file, &unknown);
    assert_int_equal(open_built(&o, &err), SLUICE_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "pre-of-tomorrow"));
    assert_null(o.t);
    close_opened(&o);
    for (size_t i = 0; i < 2; i++) {
        o = (opened){ 0 };
        if (test_data_path(cases[i].file) == NULL || !test_read_file(test_data_path(cases[i].file), &o.file))
            continue;
        assert_int_equal(open_built(&o, &err), SLUICE_ERR_UNSUPPORTED);
        assert_non_null(strstr(err.message, cases[i].says));
        close_opened(&o);
    }
}

/* ---- SPM by hand ---------------------------------------------------------------------------------------- */

#define MARK "\xe2\x96\x81"
static const sample_token spm_tokens[] = {
    /* 259 */ { MARK, 1, -9 },
    { "a", 1, -7 },
    { "b", 1, -8 },
    { "c", 1, -8.5f },
    /* 263 */ { "ab", 1, -2 },
    { "bc", 1, -1 },
    { MARK "a", 1, -3 },
    /* 266 */ { "abc", 1, -0.5f },
    { "[tool]", 4, 0 },
    { "[tool]s", 4, 0 },
    { "x", 1, -10 },
    { "xx", 1, -10 },
    { "<|x|>", 3, 0 },
    { "<", 1, -10 },
};

static void spm_merges_the_best_score_first(void **state)
{
    opened o;

    (void)state;
    open_spm(&o, true, spm_tokens, sizeof spm_tokens / sizeof spm_tokens[0]);
    assert_string_equal(sluice_tokenizer_kind(o.t), "spm");
    assert_tokens(o.t, "", false, "");
    assert_tokens(o.t, "", true, "1");
    assert_tokens(o.t, "a", true, "1 265");
    assert_tokens(o.t, "abc", false, "259 266"); /* bc (-1), then abc (-0.5), and the mark is left alone though MARK a is a token */
    assert_tokens(o.t, "cab", false, "259 262 263");
    assert_tokens(o.t, "xxx", false, "259 270 269"); /* equal scores: the leftmost first */
    assert_tokens(o.t, "a a", false, "265 265");
    assert_tokens(o.t, "\xc3\xa9", false, "259 198 172"); /* 3 + 0xc3, 3 + 0xa9 */
    assert_tokens(o.t, "\xff", false, "259 258");
    close_opened(&o);
}

static void user_text_never_becomes_a_control_token(void **state)
{
    static const sample_bpe_options bpe = { .pre = "gpt-2" };
    const char *const attacks[] = { "<s>", "</s>", "<unk>", "<|x|>", "<0x41>", "<|bos|>", "<|eos|>", "<|action|>", "a<s>b", "<<s>>" };
    opened o[2];

    (void)state;
    open_spm(&o[0], true, spm_tokens, sizeof spm_tokens / sizeof spm_tokens[0]);
    open_bpe(&o[1], &bpe);
    for (size_t k = 0; k < 2; k++) {
        for (size_t i = 0; i < sizeof attacks / sizeof attacks[0]; i++)
            assert_true(comes_back(o[k].t, sluice_span_str(attacks[i]), k == 0)); /* which also finds no control token in it */
        close_opened(&o[k]);
    }
    open_spm(&o[0], true, spm_tokens, 0);
    assert_tokens(o[0].t, "<0x41>", false, "35 63 51 123 55 52 65"); /* seven bytes, not the byte 0x41 */
    close_opened(&o[0]);
}

/* A file may call its end token a normal one; naming it as the end makes it control. */
static void special_ids_are_control_whatever_their_type(void **state)
{
    static const sample_token tokens[] = { { "<end>", 1, 5 }, { "<", 1, 0 }, { "<e", 1, 1 }, { "<en", 1, 1 }, { "<end", 1, 1 },
                                           { "e", 1, 0 },     { "n", 1, 0 }, { "d", 1, 0 },  { ">", 1, 0 } };
    sluice_gguf_writer w;
    sluice_error err = SLUICE_ERROR_INIT;
    opened o;

    (void)state;
    open_spm(&o, true, tokens, 9);
    assert_tokens(o.t, "<end>", false, "35 259");
    close_opened(&o);
    /* the same vocabulary, eos 3: built by hand, since the sample has its own eos */
    sluice_buf_init(&o.file, NULL, FILE_MAX);
    sluice_gguf_writer_init(&w, NULL, FILE_MAX);
    sluice_gguf_put_string(&w, "tokenizer.ggml.model", "llama");
    sluice_gguf_put_strings(
        &w, "tokenizer.ggml.tokens",
        (sluice_span[]){ SLUICE_SPAN_LIT("<"), SLUICE_SPAN_LIT("<e"), SLUICE_SPAN_LIT("e"), SLUICE_SPAN_LIT("<e>"), SLUICE_SPAN_LIT(">") }, 5);
    sluice_gguf_put_f32s(&w, "tokenizer.ggml.scores", (float[]){ 0, 1, 0, 5, 0 }, 5);
    sluice_gguf_put_u32(&w, "tokenizer.ggml.eos_token_id", 3);
    sluice_gguf_put_bool(&w, "tokenizer.ggml.add_space_prefix", false);
    assert_true(sluice_gguf_writer_finish(&w, &o.file));
    assert_int_equal(open_built(&o, &err), SLUICE_OK);
    assert_tokens(o.t, "<e>", true, "1 4"); /* no bos in this file: none is added */
    assert_true(sluice_tokenizer_is_control(o.t, 3));
    assert_true(sluice_tokenizer_is_end(o.t, 3));
    assert_int_equal(sluice_tokenizer_bytes(o.t, 3).len, 0);
    sluice_gguf_writer_deinit(&w);
    close_opened(&o);
}

static void user_defined_tokens_are_matched_longest_first(void **state)
{
    opened o;

    (void)state;
    open_spm(&o, true, spm_tokens, sizeof spm_tokens / sizeof spm_tokens[0]);
    assert_tokens(o.t, "[tool]", false, "267");
    assert_tokens(o.t, "a[tool]sa", false, "265 268 265"); /* a space is put in front of every stretch of text, as in SentencePiece */
    assert_tokens(o.t, "[tool][tool]s", false, "267 268");
    assert_tokens(o.t, "[tool", false, "259 94 119 114 114 111");
    close_opened(&o);
}

static void bytes_that_no_token_spells_are_unknown_or_unsupported(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;
    int32_t tokens[8];
    size_t n = 8;
    opened o;

    (void)state;
    open_spm(&o, false, spm_tokens, sizeof spm_tokens / sizeof spm_tokens[0]); /* no byte tokens, and no unknown id in the sample */
    assert_int_equal(sluice_tokenizer_encode(o.t, SLUICE_SPAN_LIT("secret"), false, tokens, &n, &err), SLUICE_ERR_UNSUPPORTED);
    assert_null(strstr(err.message, "secret"));
    close_opened(&o);
    sluice_buf_init(&o.file, NULL, FILE_MAX);
    sample_spm_small(&o.file); /* unknown is 0 */
    assert_int_equal(open_built(&o, &err), SLUICE_OK);
    assert_tokens(o.t, "aqA", false, "8 0 3");
    close_opened(&o);
}

/* ---- BPE by hand ---------------------------------------------------------------------------------------- */

static const sample_token bpe_tokens[] = {
    /* 259 */ { "ab", 1, 0 },
    { "bc", 1, 0 },
    { "abc", 1, 0 },
    { "\xc4\xa0"
      "a",
      1, 0 },
    /* 263 */ { "aa", 1, 0 },
    { "aaaa", 1, 0 },
    { "xyz", 1, 0 },
    { "[x]", 4, 0 },
};
static const char *const bpe_merges[] = { "b c", "a b", "a bc", "\xc4\xa0 a", "a a", "aa aa" };
#define BPE_SAMPLE(name)                                                                                                                             \
    {                                                                                                                                                \
        .pre = name, .tokens = bpe_tokens, .n_tokens = sizeof bpe_tokens / sizeof bpe_tokens[0], .merges = bpe_merges,                               \
        .n_merges = sizeof bpe_merges / sizeof bpe_merges[0]                                                                                         \
    }

static void bpe_merges_the_lowest_rank_first(void **state)
{
    static const sample_bpe_options gpt2 = BPE_SAMPLE("gpt-2"), llama3 = BPE_SAMPLE("llama-bpe");
    opened o;

    (void)state;
    open_bpe(&o, &gpt2);
    assert_string_equal(sluice_tokenizer_kind(o.t), "bpe");
    assert_tokens(o.t, "abc", false, "261");
    assert_tokens(o.t, "ab", false, "259");
    assert_tokens(o.t, " abc", false, "35 261"); /* b c, then a bc: the space is left alone */
    assert_tokens(o.t, " a", false, "262");
    assert_tokens(o.t, "aaaaa", false, "264 100");
    assert_tokens(o.t, "xyz", false, "123 124 125"); /* a token that no merge makes */
    assert_tokens(o.t, "a[x]a", false, "100 266 100");
    assert_tokens(o.t, "a", true, "100"); /* gpt-2 wants no bos where the file does not say */
    close_opened(&o);
    open_bpe(&o, &llama3);
    assert_tokens(o.t, "xyz", false, "265"); /* whole words first */
    assert_tokens(o.t, "a", true, "0 100");
    close_opened(&o);
}

static void token_questions_have_answers(void **state)
{
    static const sample_bpe_options gpt2 = BPE_SAMPLE("gpt-2");
    opened o;

    (void)state;
    open_bpe(&o, &gpt2);
    assert_int_equal(sluice_tokenizer_n_vocab(o.t), 267);
    assert_int_equal(sluice_tokenizer_bos(o.t), 0);
    assert_int_equal(sluice_tokenizer_eos(o.t), 1);
    assert_int_equal(sluice_tokenizer_eot(o.t), SLUICE_TOKEN_NONE);
    assert_true(sluice_tokenizer_is_end(o.t, 1));
    assert_false(sluice_tokenizer_is_end(o.t, 0));
    assert_false(sluice_tokenizer_is_end(o.t, SLUICE_TOKEN_NONE));
    assert_int_equal(sluice_tokenizer_special(o.t, SLUICE_SPAN_LIT("<|action|>")), 2);
    assert_int_equal(sluice_tokenizer_special(o.t, SLUICE_SPAN_LIT("<|acti|>")), SLUICE_TOKEN_NONE);
    assert_int_equal(sluice_tokenizer_special(o.t, SLUICE_SPAN_LIT("ab")), SLUICE_TOKEN_NONE); /* not a control token */
    assert_true(sluice_span_eq_str(sluice_tokenizer_bytes(o.t, 262), " a"));
    assert_true(sluice_span_eq_str(sluice_tokenizer_bytes(o.t, 266), "[x]"));
    assert_int_equal(sluice_tokenizer_bytes(o.t, 2).len, 0);
    assert_int_equal(sluice_tokenizer_bytes(o.t, -1).len, 0);
    assert_int_equal(sluice_tokenizer_bytes(o.t, 267).len, 0);
    assert_true(sluice_tokenizer_is_control(o.t, INT32_MIN));
    assert_true(sluice_tokenizer_is_control(o.t, 267));
    assert_false(sluice_tokenizer_is_control(o.t, 266));
    for (int b = 0; b < 256; b++) { /* the alphabet: token 3 + b is the byte b */
        sluice_span s = sluice_tokenizer_bytes(o.t, SAMPLE_BPE_BYTE_0 + b);

        assert_int_equal(s.len, 1);
        assert_int_equal(s.ptr[0], b);
    }
    close_opened(&o);
}

static void too_little_room_says_how_much_is_needed(void **state)
{
    static const sample_bpe_options gpt2 = BPE_SAMPLE("gpt-2");
    sluice_error err = SLUICE_ERROR_INIT;
    int32_t tokens[4] = { -7, -7, -7, -7 };
    size_t n = 2;
    opened o;

    (void)state;
    open_bpe(&o, &gpt2);
    assert_int_equal(sluice_tokenizer_encode(o.t, SLUICE_SPAN_LIT("xyz"), false, tokens, &n, &err), SLUICE_ERR_LIMIT);
    assert_int_equal(n, 3);
    assert_int_equal(tokens[2], -7);
    n = 0;
    assert_int_equal(sluice_tokenizer_encode(o.t, SLUICE_SPAN_LIT("xyz"), false, NULL, &n, &err), SLUICE_ERR_LIMIT);
    assert_int_equal(n, 3);
    assert_int_equal(sluice_tokenizer_encode(o.t, SLUICE_SPAN_LIT("xyz"), false, tokens, &n, &err), SLUICE_OK);
    n = 4;
    assert_int_equal(sluice_tokenizer_encode(o.t, sluice_span_of(o.file.ptr, SLUICE_TOKENIZER_MAX_TEXT + 1u), false, tokens, &n, &err),
                     SLUICE_ERR_LIMIT);
    assert_int_equal(n, 0);
    n = 0;
    assert_int_equal(sluice_tokenizer_encode(o.t, SLUICE_SPAN_EMPTY, false, NULL, &n, &err), SLUICE_OK);
    close_opened(&o);
}

/* ---- pre-tokenizers ------------------------------------------------------------------------------------- */

/* The words of one stage after the other, joined by '|'. */
static void join_words(const sluice_pre_tokenizer *pre, sluice_span text, size_t stage, sluice_buf *out)
{
    if (stage == 4 || pre->stages[stage] == NULL) {
        if (out->len > 0)
            (void)sluice_buf_append_byte(out, '|');
        (void)sluice_buf_append_span(out, text);
        return;
    }
    for (size_t at = 0; at < text.len;) {
        size_t end = pre->stages[stage](text, at);

        assert_true(end > at && end <= text.len);
        join_words(pre, sluice_span_of(text.ptr + at, end - at), stage + 1, out);
        at = end;
    }
}

/* Expected words were worked out from the authors' regular expressions, quoted in tokenizer_bpe.c, with an independent regular-expression engine. */
static void pre_tokenizers_cut_as_their_expressions_do(void **state)
{
    static const struct {
        const char *pre, *text, *words;
    } cases[] = {
        { "gpt-2", "Hello  world", "Hello| | world" },
        { "gpt-2", "  x", " | x" },
        { "gpt-2", "x  ", "x|  " },
        { "gpt-2", "I've 'SEEN it's 1234.5!?", "I|'ve| '|SEEN| it|'s| 1234|.|5|!?" },
        { "gpt-2", "a\n\nb", "a|\n|\n|b" },
        { "gpt-2", "a \n b", "a| \n| b" },
        { "gpt-2", "\xc3\xa9t\xc3\xa9\xc2\xa0x", "\xc3\xa9t\xc3\xa9|\xc2\xa0|x" },
        { "gpt-2",
          "\xe4\xbd\xa0\xe5\xa5\xbd\xef\xbc\x8c"
          "3\xc2\xbd",
          "\xe4\xbd\xa0\xe5\xa5\xbd|\xef\xbc\x8c|3\xc2\xbd" },
        { "gpt-2", "a\xff\xfe b", "a|\xff\xfe| b" },
        { "llama-bpe", "Hello  world", "Hello| | world" },
        { "llama-bpe", "I'VE (seen) 1234567!\n\n x\n", "I|'VE| (|seen|)| |123|456|7|!\n\n| x|\n" },
        { "llama-bpe", "\tx \n\n  y", "\tx| \n\n| | y" },
        { "llama-bpe", "a\r\nb", "a|\r\n|b" },
        { "llama-bpe", "$x ...y", "$x| ...|y" },
        { "qwen2", "ab 123 it's", "ab| |1|2|3| it|'s" },
        { "smollm", "x 12 y34", "x| |1|2| y|3|4" },
        { "falcon", "a<b>c 12345 `q`", "a|<|b|>|c| |123|45| |`|q|`" },
        { "default", "x=12345! y", "x|=|123|45|!| y" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const sample_bpe_options options = { .pre = cases[i].pre };
        sluice_buf words;
        opened o;

        open_bpe(&o, &options);
        sluice_buf_init(&words, NULL, 1 << 16);
        join_words(o.t->pre, sluice_span_str(cases[i].text), 0, &words);
        if (!sluice_span_eq_str(sluice_buf_span(&words), cases[i].words))
            fail_msg("%s: \"%s\" became \"%.*s\"", cases[i].pre, cases[i].text, (int)words.len, (const char *)words.ptr);
        sluice_buf_deinit(&words);
        close_opened(&o);
    }
}

/* ---- properties ------------------------------------------------------------------------------------------ */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Bytes of any kind, words, numbers, runs of spaces, code points from all over, broken UTF-8. */
static size_t random_text(uint64_t *state, uint8_t *out, size_t cap, bool with_mark)
{
    static const char *const words[] = { " ",   "  ",  "\n",   "ab",      "the", " the",     "it's",
                                         "'LL", "12",  "3456", "<|bos|>", "<s>", "\xc2\xa0", "\xf0\x9f\x9a\x80",
                                         "[x]", "{\"", "\t",   "." };
    size_t n = 0, want = next_random(state) % (cap - 8);

    while (n < want) {
        uint64_t r = next_random(state);
        uint32_t c = (uint32_t)(r >> 32) % 0x3000 + 0x80;

        switch (r % 4) {
        case 0: out[n++] = (uint8_t)(r >> 8); break;
        case 1:
            if (with_mark || c != 0x2581) {
                if (c >= 0x800)
                    out[n++] = (uint8_t)(0xe0 | c >> 12);
                out[n++] = (uint8_t)(c >= 0x800 ? 0x80 | (c >> 6 & 0x3f) : 0xc0 | c >> 6);
                out[n++] = (uint8_t)(0x80 | (c & 0x3f));
            }
            break;
        default: {
            const char *w = words[(r >> 8) % (sizeof words / sizeof words[0])];

            memcpy(out + n, w, strlen(w));
            n += strlen(w);
            break;
        }
        }
    }
    return n;
}

static bool holds_mark(const uint8_t *text, size_t n)
{
    for (size_t i = 0; i + 3 <= n; i++)
        if (memcmp(text + i, MARK, 3) == 0)
            return true;
    return false;
}

static void decoding_gives_every_text_back(void **state)
{
    static const char *const pres[] = { "gpt-2", "default", "llama-bpe", "qwen2", "smollm", "falcon" };
    uint64_t seed = 88172645463325252u;
    uint8_t text[256];
    opened o;

    (void)state;
    for (size_t p = 0; p < sizeof pres / sizeof pres[0]; p++) {
        const sample_bpe_options options = BPE_SAMPLE(pres[p]);

        open_bpe(&o, &options);
        for (int i = 0; i < 2000; i++) {
            size_t n = random_text(&seed, text, sizeof text, true);

            if (!comes_back(o.t, sluice_span_of(text, n), false))
                fail_msg("%s: text %d of %zu bytes", pres[p], i, n);
        }
        close_opened(&o);
    }
    open_spm(&o, true, spm_tokens, 7); /* no user-defined tokens: each would have a space after it */
    for (int i = 0; i < 2000; i++) {
        size_t n = random_text(&seed, text, sizeof text, false);

        if (!holds_mark(text, n) && !comes_back(o.t, sluice_span_of(text, n), n > 0))
            fail_msg("spm: text %d of %zu bytes", i, n);
    }
    close_opened(&o);
}

/* Quadratic work on a megabyte would outlast any test's time limit. */
static void a_megabyte_without_a_space_takes_linear_time(void **state)
{
    static const sample_bpe_options gpt2 = BPE_SAMPLE("gpt-2"), falcon = BPE_SAMPLE("default");
    static const char fill[] = "a1 [";
    uint8_t *text = malloc(SLUICE_TOKENIZER_MAX_TEXT);
    opened o[3];

    (void)state;
    assert_non_null(text);
    open_bpe(&o[0], &gpt2);
    open_bpe(&o[1], &falcon);
    open_spm(&o[2], true, spm_tokens, sizeof spm_tokens / sizeof spm_tokens[0]);
    for (size_t f = 0; f < sizeof fill - 1; f++) {
        memset(text, fill[f], SLUICE_TOKENIZER_MAX_TEXT);
        for (size_t k = 0; k < 3; k++)
            assert_true(comes_back(o[k].t, sluice_span_of(text, SLUICE_TOKENIZER_MAX_TEXT), k == 2));
    }
    for (size_t k = 0; k < 3; k++)
        close_opened(&o[k]);
    free(text);
}

/* ---- bad vocabularies ----------------------------------------------------------------------------------- */

typedef struct bad_vocabulary {
    const char *why;
    void (*build)(sluice_gguf_writer *w);
    sluice_status status;
    const char *says;
} bad_vocabulary;

/* model, then tokens a b ab, scores and types as asked for; NULL or 0 leaves one out. */
static void put_abc(sluice_gguf_writer *w, const char *model, size_t n_scores, size_t n_types)
{
    if (model != NULL)
        sluice_gguf_put_string(w, "tokenizer.ggml.model", model);
    sluice_gguf_put_strings(w, "tokenizer.ggml.tokens", (sluice_span[]){ SLUICE_SPAN_LIT("a"), SLUICE_SPAN_LIT("b"), SLUICE_SPAN_LIT("ab") }, 3);
    if (n_scores > 0)
        sluice_gguf_put_f32s(w, "tokenizer.ggml.scores", (float[4]){ 0 }, n_scores);
    if (n_types > 0)
        sluice_gguf_put_i32s(w, "tokenizer.ggml.token_type", (int32_t[]){ 1, 1, 1, 1 }, n_types);
}

static void put_merge(sluice_gguf_writer *w, const char *merge)
{
    put_abc(w, "gpt2", 0, 0);
    sluice_gguf_put_strings(w, "tokenizer.ggml.merges", (sluice_span[]){ sluice_span_str(merge) }, 1);
}

static void no_tokenizer(sluice_gguf_writer *w)
{
    sluice_gguf_put_string(w, "general.architecture", "llama");
}
static void no_model(sluice_gguf_writer *w)
{
    put_abc(w, NULL, 3, 3);
}
static void model_number(sluice_gguf_writer *w)
{
    sluice_gguf_put_u32(w, "tokenizer.ggml.model", 1);
}
static void model_unknown(sluice_gguf_writer *w)
{
    put_abc(w, "tiktok", 3, 3);
}
static void no_tokens(sluice_gguf_writer *w)
{
    sluice_gguf_put_string(w, "tokenizer.ggml.model", "llama");
}
static void no_scores(sluice_gguf_writer *w)
{
    put_abc(w, "llama", 0, 3);
}
static void few_scores(sluice_gguf_writer *w)
{
    put_abc(w, "llama", 2, 3);
}
static void many_scores(sluice_gguf_writer *w)
{
    put_abc(w, "llama", 4, 3);
}
static void few_types(sluice_gguf_writer *w)
{
    put_abc(w, "llama", 3, 2);
}
static void no_merges(sluice_gguf_writer *w)
{
    put_abc(w, "gpt2", 0, 3);
}
static void merge_without_space(sluice_gguf_writer *w)
{
    put_merge(w, "ab");
}
static void merge_of_three(sluice_gguf_writer *w)
{
    put_merge(w, "a b ");
}
static void merge_empty(sluice_gguf_writer *w)
{
    put_merge(w, "");
}
static void merge_empty_side(sluice_gguf_writer *w)
{
    put_merge(w, " b");
}
static void merge_of_strangers(sluice_gguf_writer *w)
{
    put_merge(w, "a c");
}
static void merge_into_nothing(sluice_gguf_writer *w)
{
    put_merge(w, "b a");
}
static void merge_not_alphabet(sluice_gguf_writer *w)
{
    put_merge(w, "a \xff");
}

static void no_tokens_at_all(sluice_gguf_writer *w)
{
    sluice_gguf_put_string(w, "tokenizer.ggml.model", "llama");
    sluice_gguf_put_strings(w, "tokenizer.ggml.tokens", NULL, 0);
}

static void tokens_numbers(sluice_gguf_writer *w)
{
    sluice_gguf_put_string(w, "tokenizer.ggml.model", "llama");
    sluice_gguf_put_i32s(w, "tokenizer.ggml.tokens", (int32_t[]){ 1 }, 1);
}

static void narrow_types(sluice_gguf_writer *w)
{
    put_abc(w, "llama", 3, 0);
    sluice_gguf_put_raw(w, SLUICE_SPAN_LIT("tokenizer.ggml.token_type"), SLUICE_GGUF_ARRAY, SLUICE_SPAN_LIT("\0\0\0\0\3\0\0\0\0\0\0\0\1\1\1"));
}

static void narrow_scores(sluice_gguf_writer *w)
{
    put_abc(w, "llama", 0, 3);
    sluice_gguf_put_raw(w, SLUICE_SPAN_LIT("tokenizer.ggml.scores"), SLUICE_GGUF_ARRAY, SLUICE_SPAN_LIT("\0\0\0\0\3\0\0\0\0\0\0\0\1\1\1"));
}

static void nan_score(sluice_gguf_writer *w)
{
    put_abc(w, "llama", 0, 3);
    sluice_gguf_put_raw(w, SLUICE_SPAN_LIT("tokenizer.ggml.scores"), SLUICE_GGUF_ARRAY,
                        SLUICE_SPAN_LIT("\6\0\0\0\3\0\0\0\0\0\0\0\0\0\0\0\0\0\xc0\x7f\0\0\0\0"));
}

static void unknown_token_type(sluice_gguf_writer *w)
{
    put_abc(w, "llama", 3, 0);
    sluice_gguf_put_i32s(w, "tokenizer.ggml.token_type", (int32_t[]){ 1, -1, 1 }, 3);
}

static void with_u32(sluice_gguf_writer *w, const char *key, uint32_t value)
{
    put_abc(w, "llama", 3, 3);
    sluice_gguf_put_u32(w, key, value);
}

static void bos_out_of_range(sluice_gguf_writer *w)
{
    with_u32(w, "tokenizer.ggml.bos_token_id", 3);
}
static void eos_minus_1(sluice_gguf_writer *w)
{
    with_u32(w, "tokenizer.ggml.eos_token_id", UINT32_MAX);
}
static void unknown_out_of_range(sluice_gguf_writer *w)
{
    with_u32(w, "tokenizer.ggml.unknown_token_id", 1u << 31);
}
static void add_bos_number(sluice_gguf_writer *w)
{
    with_u32(w, "tokenizer.ggml.add_bos_token", 1);
}

static void with_token(sluice_gguf_writer *w, sluice_span text, int32_t type)
{
    sluice_gguf_put_string(w, "tokenizer.ggml.model", "llama");
    sluice_gguf_put_strings(w, "tokenizer.ggml.tokens", (sluice_span[]){ SLUICE_SPAN_LIT("a"), text }, 2);
    sluice_gguf_put_f32s(w, "tokenizer.ggml.scores", (float[]){ 0, 0 }, 2);
    sluice_gguf_put_i32s(w, "tokenizer.ggml.token_type", (int32_t[]){ type == 4 ? 4 : 1, type }, 2);
}

static void token_twice(sluice_gguf_writer *w)
{
    with_token(w, SLUICE_SPAN_LIT("a"), 1);
}
static void user_token_twice(sluice_gguf_writer *w)
{
    with_token(w, SLUICE_SPAN_LIT("a"), 4);
}
static void byte_token_minus_1(sluice_gguf_writer *w)
{
    with_token(w, SLUICE_SPAN_LIT("<0x-1>"), 6);
}
static void byte_token_zz(sluice_gguf_writer *w)
{
    with_token(w, SLUICE_SPAN_LIT("<0xZZ>"), 6);
}
static void byte_token_empty(sluice_gguf_writer *w)
{
    with_token(w, SLUICE_SPAN_EMPTY, 6);
}
static void byte_token_long(sluice_gguf_writer *w)
{
    with_token(w, SLUICE_SPAN_LIT("<0x100>"), 6);
}

static void huge_token(sluice_gguf_writer *w)
{
    static const char text[2000] = { 0 };

    with_token(w, sluice_span_of(text, sizeof text), 1);
}

static const bad_vocabulary bad_vocabularies[] = {
    { "no tokenizer", no_tokenizer, SLUICE_ERR_NOT_FOUND, "tokenizer.ggml.model" },
    { "no model", no_model, SLUICE_ERR_NOT_FOUND, "tokenizer.ggml.model" },
    { "model a number", model_number, SLUICE_ERR_FORMAT, "tokenizer.ggml.model" },
    { "model unknown", model_unknown, SLUICE_ERR_UNSUPPORTED, "tiktok" },
    { "no tokens", no_tokens, SLUICE_ERR_NOT_FOUND, "tokenizer.ggml.tokens" },
    { "empty vocabulary", no_tokens_at_all, SLUICE_ERR_FORMAT, "empty" },
    { "tokens are numbers", tokens_numbers, SLUICE_ERR_FORMAT, "tokenizer.ggml.tokens" },
    { "no scores", no_scores, SLUICE_ERR_NOT_FOUND, "tokenizer.ggml.scores" },
    { "too few scores", few_scores, SLUICE_ERR_FORMAT, "2 scores for 3 tokens" },
    { "too many scores", many_scores, SLUICE_ERR_FORMAT, "4 scores" },
    { "scores of one byte", narrow_scores, SLUICE_ERR_FORMAT, "tokenizer.ggml.scores" },
    { "a score is no number", nan_score, SLUICE_ERR_FORMAT, "token 1" },
    { "too few types", few_types, SLUICE_ERR_FORMAT, "token_type" },
    { "types of one byte", narrow_types, SLUICE_ERR_FORMAT, "token_type" },
    { "unknown token type", unknown_token_type, SLUICE_ERR_FORMAT, "token 1" },
    { "bos out of range", bos_out_of_range, SLUICE_ERR_FORMAT, "bos_token_id" },
    { "eos -1", eos_minus_1, SLUICE_ERR_FORMAT, "eos_token_id" },
    { "unknown out of range", unknown_out_of_range, SLUICE_ERR_FORMAT, "unknown_token_id" },
    { "add_bos a number", add_bos_number, SLUICE_ERR_FORMAT, "add_bos_token" },
    { "token twice", token_twice, SLUICE_ERR_FORMAT, "same text" },
    { "user-defined token twice", user_token_twice, SLUICE_ERR_FORMAT, "same text" },
    { "<0x-1>", byte_token_minus_1, SLUICE_ERR_FORMAT, "<0xHH>" },
    { "<0xZZ>", byte_token_zz, SLUICE_ERR_FORMAT, "<0xHH>" },
    { "empty byte token", byte_token_empty, SLUICE_ERR_FORMAT, "<0xHH>" },
    { "<0x100>", byte_token_long, SLUICE_ERR_FORMAT, "<0xHH>" },
    { "token of 2000 bytes", huge_token, SLUICE_ERR_LIMIT, "2000" },
    { "no merges", no_merges, SLUICE_ERR_NOT_FOUND, "tokenizer.ggml.merges" },
    { "merge without space", merge_without_space, SLUICE_ERR_FORMAT, "merge 0" },
    { "merge of three", merge_of_three, SLUICE_ERR_FORMAT, "merge 0" },
    { "merge empty", merge_empty, SLUICE_ERR_FORMAT, "merge 0" },
    { "merge with an empty side", merge_empty_side, SLUICE_ERR_FORMAT, "merge 0" },
    { "merge of unknown tokens", merge_of_strangers, SLUICE_ERR_FORMAT, "merge 0" },
    { "merge into no token", merge_into_nothing, SLUICE_ERR_FORMAT, "merge 0" },
    { "merge not in the alphabet", merge_not_alphabet, SLUICE_ERR_FORMAT, "merge 0" },
};

static void bad_vocabularies_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_vocabularies / sizeof bad_vocabularies[0]; i++) {
        sluice_error err = SLUICE_ERROR_INIT;
        sluice_gguf_writer w;
        sluice_status st;
        opened o;

        sluice_buf_init(&o.file, NULL, FILE_MAX);
        sluice_gguf_writer_init(&w, NULL, FILE_MAX);
        bad_vocabularies[i].build(&w);
        assert_true(sluice_gguf_writer_finish(&w, &o.file));
        st = open_built(&o, &err);
        if (o.g == NULL || o.t != NULL || st != bad_vocabularies[i].status || strstr(err.message, bad_vocabularies[i].says) == NULL)
            fail_msg("%s: %s \"%s\"", bad_vocabularies[i].why, sluice_status_name(st), err.message);
        sluice_gguf_writer_deinit(&w);
        close_opened(&o);
    }
}

/* ---- memory ---------------------------------------------------------------------------------------------- */

static const char secret[] = "the-secret-that-must-be-wiped";

static sluice_status open_and_encode(const sluice_allocator *al, void *user)
{
    sluice_tokenizer *t = (sluice_tokenizer *)(uintptr_t)1;
    sluice_status st = sluice_tokenizer_open(&t, user, al, NULL);
    int32_t tokens[64];
    size_t n = 64;

    if (st != SLUICE_OK) {
        assert_null(t);
        return st;
    }
    st = sluice_tokenizer_encode(t, sluice_span_str(secret), false, tokens, &n, NULL);
    sluice_tokenizer_close(t);
    return st;
}

static void every_failed_allocation_is_no_memory(void **state)
{
    static const sample_bpe_options bpe = BPE_SAMPLE("gpt-2");
    opened o[2];

    (void)state;
    open_bpe(&o[0], &bpe);
    open_spm(&o[1], true, spm_tokens, sizeof spm_tokens / sizeof spm_tokens[0]);
    for (size_t k = 0; k < 2; k++) {
        size_t n = fake_allocator_sweep(open_and_encode, o[k].g);

        assert_true(n != SIZE_MAX && n >= 7);
        close_opened(&o[k]);
    }
}

static void scratch_is_wiped_and_the_estimate_holds(void **state)
{
    static const sample_bpe_options bpe = BPE_SAMPLE("gpt-2");
    opened o[2];

    (void)state;
    open_bpe(&o[0], &bpe);
    open_spm(&o[1], true, spm_tokens, sizeof spm_tokens / sizeof spm_tokens[0]);
    for (size_t k = 0; k < 2; k++) {
        fake_allocator fa;
        sluice_tokenizer *t;
        int32_t tokens[64];
        size_t n = 64;

        fake_allocator_init(&fa);
        fa.canary = secret;
        assert_int_equal(sluice_tokenizer_open(&t, o[k].g, &fa.al, NULL), SLUICE_OK);
        assert_true(fa.peak_bytes <= sluice_tokenizer_estimate_bytes(o[k].g));
        assert_int_equal(sluice_tokenizer_encode(t, sluice_span_str(secret), false, tokens, &n, NULL), SLUICE_OK);
        assert_int_equal(fa.n_canaries_freed, 0);
        sluice_tokenizer_close(t);
        assert_true(fake_allocator_is_clean(&fa));
        close_opened(&o[k]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_tokenizations_are_reproduced),
        cmocka_unit_test(other_kinds_are_refused_by_name),
        cmocka_unit_test(spm_merges_the_best_score_first),
        cmocka_unit_test(user_text_never_becomes_a_control_token),
        cmocka_unit_test(special_ids_are_control_whatever_their_type),
        cmocka_unit_test(user_defined_tokens_are_matched_longest_first),
        cmocka_unit_test(bytes_that_no_token_spells_are_unknown_or_unsupported),
        cmocka_unit_test(bpe_merges_the_lowest_rank_first),
        cmocka_unit_test(token_questions_have_answers),
        cmocka_unit_test(too_little_room_says_how_much_is_needed),
        cmocka_unit_test(pre_tokenizers_cut_as_their_expressions_do),
        cmocka_unit_test(decoding_gives_every_text_back),
        cmocka_unit_test(a_megabyte_without_a_space_takes_linear_time),
        cmocka_unit_test(bad_vocabularies_are_refused),
        cmocka_unit_test(every_failed_allocation_is_no_memory),
        cmocka_unit_test(scratch_is_wiped_and_the_estimate_holds),
    };

    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
