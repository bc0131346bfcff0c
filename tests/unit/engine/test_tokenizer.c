/* test_tokenizer.c - the three kinds of tokenizer, against published answers, by hand, and by property.
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
#include "local-engine/unicode.h"
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

/* Encode and decode again.  No control or markup token may come out of text, nor more tokens than bytes (and a space in front of each stretch). */
static bool comes_back(const sluice_tokenizer *t, sluice_span text)
{
    size_t n = 0;
    bool same = true;
    int32_t *tokens;
    sluice_buf back;

    (void)sluice_tokenizer_encode(t, text, false, NULL, &n, NULL);
    if (n == 0)
        return text.len == 0;
    tokens = malloc(n * sizeof *tokens);
    assert_non_null(tokens);
    if (sluice_tokenizer_encode(t, text, false, tokens, &n, NULL) != SLUICE_OK) {
        free(tokens);
        return false;
    }
    for (size_t i = 0; i < n; i++)
        same = same && !sluice_tokenizer_is_control(t, tokens[i]) && !sluice_tokenizer_is_markup(t, tokens[i]);
    sluice_buf_init(&back, NULL, SIZE_MAX);
    same =
        same && n <= 2 * text.len && sluice_tokenizer_decode(t, tokens, n, &back, NULL) == SLUICE_OK && sluice_span_eq(sluice_buf_span(&back), text);
    sluice_buf_deinit(&back);
    free(tokens);
    return same;
}

/* ---- published answers -------------------------------------------------------------------------------- */

/* The cases of NAME.inp stand between __ggml_vocab_test__ lines, NAME.out has a line of token numbers for each. */
static size_t check_golden(const sluice_tokenizer *t, const char *name, char *in, char *out)
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
        if (strstr(name, "falcon") == NULL && strstr(name, "bert") == NULL) /* the first lacks some bytes, the second loses text */
            assert_true(comes_back(t, sluice_span_of(in, len)));
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
    static const char *const names[] = { "llama-spm", "phi-3", "gpt-2", "starcoder", "falcon", "deepseek-llm", "bert-bge" };
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
            assert_int_equal(check_golden(o.t, names[i], (char *)in.ptr, (char *)out.ptr), 46);
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

static void an_unknown_pre_tokenizer_is_refused_by_name(void **state)
{
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
            assert_true(comes_back(o[k].t, sluice_span_str(attacks[i]))); /* which also finds no control token in it */
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
    if (stage == SPLIT_STAGES_MAX || pre->stages[stage] == NULL) {
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
        { "deepseek-llm", "Hello  world\r\n12 a1", "Hello| | world|\r|\n|12| a|1" },
        { "deepseek-llm", "x!? \xe4\xbd\xa0\xe5\xa5\xbd\xe3\x80\x82  ", "x|!?| |\xe4\xbd\xa0\xe5\xa5\xbd|\xe3\x80\x82|  " },
        { "deepseek-llm", "\xd7\xa9 \xc3\xa9 \xe3\x80\x80", "\xd7\xa9| \xc3\xa9| |\xe3\x80\x80" },
        { "deepseek-coder", "if (x) 12", "if| (|x|)| |1|2" },
        { "tekken", "HelloWORLD abcDef ABC d'Or 12/3//\n", "Hello|WORLD| abc|Def| ABC| d|'Or| |1|2|/|3|//\n" },
        { "gpt-4o", "I'VE it's ABCdef 12345", "I'VE| it's| ABCdef| |123|45" },
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

static const char *const all_pres[] = { "gpt-2",  "default",      "llama-bpe",      "qwen2",  "smollm", "starcoder",
                                        "falcon", "deepseek-llm", "deepseek-coder", "tekken", "gpt-4o", "stablelm2" };

/* ---- properties ------------------------------------------------------------------------------------------ */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Bytes of any kind, words, numbers, runs of spaces, code points from all over, broken UTF-8. */
static size_t random_text(uint64_t *state, uint8_t *out, size_t cap)
{
    static const char *const words[] = { " ",   "  ",  "\n",   "ab",      "the",    " the",     "it's",
                                         "'LL", "12",  "3456", "<|bos|>", "<s>",    "\xc2\xa0", "\xf0\x9f\x9a\x80",
                                         "[x]", "{\"", "\t",   ".",       "[tool]", MARK };
    size_t n = 0, want = (size_t)(next_random(state) % (cap - 8));

    while (n < want) {
        uint64_t r = next_random(state);
        uint32_t c = (uint32_t)(r >> 32) % 0x3000 + 0x80;

        switch (r % 4) {
        case 0: out[n++] = (uint8_t)(r >> 8); break;
        case 1: n += sluice_unicode_encode(c, out + n); break;
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

static void decoding_gives_every_text_back(void **state)
{
    uint64_t seed = 88172645463325252u;
    uint8_t text[256];
    opened o;

    (void)state;
    for (size_t p = 0; p < sizeof all_pres / sizeof all_pres[0]; p++) {
        const sample_bpe_options options = BPE_SAMPLE(all_pres[p]);

        open_bpe(&o, &options);
        for (int i = 0; i < 2000; i++) {
            size_t n = random_text(&seed, text, sizeof text);

            if (!comes_back(o.t, sluice_span_of(text, n)))
                fail_msg("%s: text %d of %zu bytes", all_pres[p], i, n);
        }
        close_opened(&o);
    }
    open_spm(&o, true, spm_tokens, sizeof spm_tokens / sizeof spm_tokens[0]);
    for (int i = 0; i < 4000; i++) {
        size_t n = random_text(&seed, text, sizeof text);

        if (!comes_back(o.t, sluice_span_of(text, n)))
            fail_msg("spm: text %d of %zu bytes", i, n);
    }
    close_opened(&o);
}

/* Gemma's way: no space in front, runs of white space as user-defined tokens, its marks typed as user-defined too. */
static void gemma_vocabularies_keep_runs_of_white_space(void **state)
{
    static const sample_token tokens[] = {
        { "<unk>", 2, 0 }, { "<bos>", 3, 0 },   { "\n", 1, -1 },        { "\n\n", 4, 0 },    { "\n\n\n", 4, 0 },
        { "  ", 4, 0 },    { MARK, 1, -2 },     { "a", 1, -3 },         { MARK "a", 1, -1 }, { "<start_of_turn>", 4, 0 },
        { "<", 1, -5 },    { "<table>", 4, 0 }, { MARK MARK "a", 1, 0 }
    };
    enum { N = sizeof tokens / sizeof tokens[0] };
    sluice_span texts[N];
    float scores[N];
    int32_t types[N];
    sluice_gguf_writer w;
    sluice_error err = SLUICE_ERROR_INIT;
    opened o;

    (void)state;
    for (size_t i = 0; i < N; i++) {
        texts[i] = sluice_span_str(tokens[i].text);
        scores[i] = tokens[i].score;
        types[i] = tokens[i].type;
    }
    sluice_buf_init(&o.file, NULL, FILE_MAX);
    sluice_gguf_writer_init(&w, NULL, FILE_MAX);
    sluice_gguf_put_string(&w, "tokenizer.ggml.model", "llama");
    sluice_gguf_put_strings(&w, "tokenizer.ggml.tokens", texts, N);
    sluice_gguf_put_f32s(&w, "tokenizer.ggml.scores", scores, N);
    sluice_gguf_put_i32s(&w, "tokenizer.ggml.token_type", types, N);
    sluice_gguf_put_u32(&w, "tokenizer.ggml.bos_token_id", 1);
    sluice_gguf_put_u32(&w, "tokenizer.ggml.unknown_token_id", 0);
    sluice_gguf_put_bool(&w, "tokenizer.ggml.add_space_prefix", false);
    assert_true(sluice_gguf_writer_finish(&w, &o.file));
    sluice_gguf_writer_deinit(&w);
    if (open_built(&o, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
    assert_tokens(o.t, "a a\na", true, "1 7 8 2 7");
    assert_tokens(o.t, "a\n\n\n\n\na", false, "7 4 3 7"); /* the longest first */
    assert_tokens(o.t, "  a   a", false, "5 7 5 8");      /* before any merge: 12 is never made */
    assert_tokens(o.t, "<table>", false, "11");
    assert_int_equal(sluice_tokenizer_special(o.t, SLUICE_SPAN_LIT("<start_of_turn>")), 9);
    assert_true(sluice_tokenizer_is_markup(o.t, 9));
    assert_tokens(o.t, "<start_of_turn>", false, "10 0 0 7 0 0 0 0 0 0 0 0 0 0 0"); /* letters, which are unknown here */
    assert_true(comes_back(o.t, SLUICE_SPAN_LIT("a  a\n\n\n\n <table>  a\n")));
    close_opened(&o);
}

/* Every text that is a token in a real vocabulary, strung together at random, control tokens above all. */
static void real_vocabularies_give_their_own_tokens_back_as_text(void **state)
{
    static const char *const names[] = { "llama-spm", "phi-3", "gpt-2", "starcoder", "deepseek-llm" };
    uint64_t seed = 88172645463325252u;

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        sluice_error err = SLUICE_ERROR_INIT;
        opened o = { 0 };
        char path[64];

        (void)snprintf(path, sizeof path, "vocab/ggml-vocab-%s.gguf", names[i]);
        if (test_data_path(path) == NULL || !test_read_file(test_data_path(path), &o.file)) {
            sluice_buf_deinit(&o.file);
            print_message("no $SLUICE_TEST_DATA/vocab: texts of real vocabularies not checked\n");
            skip();
        }
        if (open_built(&o, &err) != SLUICE_OK)
            fail_msg("%s: %s", names[i], err.message);
        for (int k = 0; k < 1000; k++) {
            sluice_buf text;

            sluice_buf_init(&text, NULL, 1 << 16);
            for (uint64_t n = next_random(&seed) % 16; n > 0; n--) {
                uint32_t id = (uint32_t)(next_random(&seed) % (n % 2 == 0 ? o.t->n_vocab : 300)); /* control tokens are mostly the first … */

                if (n % 4 == 1)
                    id = o.t->n_vocab - 1 - id % 100; /* … or the last */
                assert_true(sluice_buf_append_span(&text, sluice_tokenizer_text(o.t, id)));
            }
            if (!comes_back(o.t, sluice_buf_span(&text)))
                fail_msg("%s: \"%.*s\"", names[i], (int)text.len, (const char *)text.ptr);
            sluice_buf_deinit(&text);
        }
        close_opened(&o);
    }
}

/* Quadratic work on a megabyte would outlast any test's time limit. */
static void a_megabyte_without_a_space_takes_linear_time(void **state)
{
    static const char *const fills[] = { "a", "1", " ", "[", "A", "'", "\n", "\xcc\x81", " \xe3\x80\x80", "a\xcc\x81", "!\n", "\xff" };
    uint8_t *text = malloc(SLUICE_TOKENIZER_MAX_TEXT);
    opened o;

    (void)state;
    assert_non_null(text);
    for (size_t f = 0; f < sizeof fills / sizeof fills[0]; f++) {
        for (size_t i = 0; i < SLUICE_TOKENIZER_MAX_TEXT; i++)
            text[i] = (uint8_t)fills[f][i % strlen(fills[f])];
        for (size_t k = 0; k <= sizeof all_pres / sizeof all_pres[0]; k++) {
            size_t len =
                f == 0 && k < 2 ? SLUICE_TOKENIZER_MAX_TEXT : SLUICE_TOKENIZER_MAX_TEXT / 32; /* some whole, the others large enough to tell */

            if (k == 0) {
                open_spm(&o, true, spm_tokens, sizeof spm_tokens / sizeof spm_tokens[0]);
            } else {
                const sample_bpe_options options = BPE_SAMPLE(all_pres[k - 1]);

                open_bpe(&o, &options);
            }
            assert_true(comes_back(o.t, sluice_span_of(text, len)));
            close_opened(&o);
        }
    }
    free(text);
}

/* ---- wordpiece ------------------------------------------------------------------------------------------ */

/* [PAD] (0), [UNK] (1), [CLS] (2), [SEP] (3), then pieces. */
static void open_wordpiece(opened *o, const char *const *pieces, size_t n, bool with_ids)
{
    sluice_span texts[64] = { SLUICE_SPAN_LIT("[PAD]"), SLUICE_SPAN_LIT("[UNK]"), SLUICE_SPAN_LIT("[CLS]"), SLUICE_SPAN_LIT("[SEP]") };
    int32_t types[64] = { 3, 2, 3, 3 };
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_gguf_writer w;

    assert_true(n <= 60);
    for (size_t i = 0; i < n; i++) {
        texts[4 + i] = sluice_span_str(pieces[i]);
        types[4 + i] = 1;
    }
    sluice_buf_init(&o->file, NULL, FILE_MAX);
    sluice_gguf_writer_init(&w, NULL, FILE_MAX);
    sluice_gguf_put_string(&w, "tokenizer.ggml.model", "bert");
    sluice_gguf_put_strings(&w, "tokenizer.ggml.tokens", texts, 4 + n);
    sluice_gguf_put_i32s(&w, "tokenizer.ggml.token_type", types, 4 + n);
    if (with_ids) {
        sluice_gguf_put_u32(&w, "tokenizer.ggml.unknown_token_id", 1);
        sluice_gguf_put_u32(&w, "tokenizer.ggml.cls_token_id", 2);
        sluice_gguf_put_u32(&w, "tokenizer.ggml.seperator_token_id", 3);
    }
    assert_true(sluice_gguf_writer_finish(&w, &o->file));
    sluice_gguf_writer_deinit(&w);
    if (open_built(o, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
}

static const char *const pieces[] = {
    /* 4 */ MARK "un",
    "aff",
    "able",
    MARK "the",
    MARK "!",
    MARK "$",
    MARK "e",
    MARK "\xe4\xbd\xa0",
    MARK "\xe5\xa5\xbd",
    /* 13 */ MARK "\xe1\x84\x92",
    "\xe1\x85\xa1",
    "\xe1\x86\xab",
    MARK "strasse",
    MARK "stra\xc3\x9f"
         "e",
    MARK "\xce\xbf\xcf\x83",
    "s",
};

static void wordpiece_takes_the_longest_pieces_of_each_word(void **state)
{
    opened o;

    (void)state;
    for (int with_ids = 0; with_ids < 2; with_ids++) { /* without keys the tokens are found by their texts */
        open_wordpiece(&o, pieces, sizeof pieces / sizeof pieces[0], with_ids > 0);
        assert_string_equal(sluice_tokenizer_kind(o.t), "wordpiece");
        assert_true(sluice_tokenizer_wants_bos(o.t) && sluice_tokenizer_wants_eos(o.t));
        assert_tokens(o.t, "unaffable", false, "4 5 6");
        assert_tokens(o.t, "Un UNAFF\tthe", true, "2 4 4 5 7");
        assert_tokens(o.t, "the!the$", false, "7 8 7 9");
        assert_tokens(o.t, "unx the", false, "1 7");                          /* a word is unknown as a whole */
        assert_tokens(o.t, "\xc3\x89 e\xcc\x81 \xc3\xaa", false, "10 10 10"); /* composed and decomposed accents */
        assert_tokens(o.t, "\xe4\xbd\xa0\xe5\xa5\xbd", false, "11 12");
        assert_tokens(o.t, "\xed\x95\x9c", false, "13 14 15"); /* a Hangul syllable is its letters */
        assert_tokens(o.t,
                      "STRASSE Stra\xc3\x9f"
                      "e",
                      false, "16 17");
        assert_tokens(o.t, "\xce\x9f\xce\xa3", false, "18");
        assert_tokens(o.t, "t\xe2\x80\x8bhe\xef\xbb\xbf\x01 \xef\xbf\xbd", false, "7"); /* control characters go */
        assert_tokens(o.t, "[CLS] [SEP] [UNK]", false, "1 1 1 1 1 1 1 1 1");            /* three marks, three unknown words, three marks */
        assert_tokens(o.t,
                      "the\xef\xbb\xbf\xe2\x89\xae"
                      "e",
                      false, "7 1 10"); /* what folds to punctuation stands alone: U+226E is "<" */
        assert_tokens(o.t, "", false, "");
        close_opened(&o);
    }
}

static void whole_texts_begin_and_end_as_the_model_wants(void **state)
{
    int32_t tokens[8];
    size_t n = 8;
    opened o;

    (void)state;
    open_wordpiece(&o, pieces, sizeof pieces / sizeof pieces[0], true);
    assert_int_equal(sluice_tokenizer_encode_whole(o.t, SLUICE_SPAN_LIT("the"), tokens, &n, NULL), SLUICE_OK);
    assert_int_equal(n, 3);
    assert_true(tokens[0] == 2 && tokens[1] == 7 && tokens[2] == 3);
    n = 8;
    assert_int_equal(sluice_tokenizer_encode_whole(o.t, SLUICE_SPAN_EMPTY, tokens, &n, NULL), SLUICE_OK);
    assert_int_equal(n, 2);
    close_opened(&o);
    open_spm(&o, true, spm_tokens, 7);
    n = 8;
    assert_int_equal(sluice_tokenizer_encode_whole(o.t, SLUICE_SPAN_LIT("a"), tokens, &n, NULL), SLUICE_OK);
    assert_true(n == 2 && tokens[0] == 1); /* spm ends with eos only where the file says so */
    close_opened(&o);
}

/* What is lost is lost once: the words that come back are the words that went in. */
static void wordpiece_text_that_came_back_stays(void **state)
{
    uint64_t seed = 88172645463325252u;
    uint8_t text[256];
    opened o;

    (void)state;
    open_wordpiece(&o, pieces, sizeof pieces / sizeof pieces[0], true);
    for (int i = 0; i < 4000; i++) {
        static const char *const parts[] = {
            "un", "AFF", "able", " ", "the", "!", "\t", "\xc3\x89", "e\xcc\x81", "\xe4\xbd\xa0", "\xed\x95\x9c", "$"
        };
        int32_t tokens[2][256];
        size_t len = 0, n[2] = { 256, 256 };
        sluice_buf back;
        bool known = true;

        for (uint64_t k = next_random(&seed) % 12; k > 0; k--) {
            const char *p = parts[next_random(&seed) % (sizeof parts / sizeof parts[0])];

            memcpy(text + len, p, strlen(p));
            len += strlen(p);
        }
        assert_int_equal(sluice_tokenizer_encode(o.t, sluice_span_of(text, len), false, tokens[0], &n[0], NULL), SLUICE_OK);
        for (size_t k = 0; k < n[0]; k++)
            known = known && tokens[0][k] != 1;
        if (!known)
            continue;
        sluice_buf_init(&back, NULL, 4096);
        assert_int_equal(sluice_tokenizer_decode(o.t, tokens[0], n[0], &back, NULL), SLUICE_OK);
        assert_int_equal(sluice_tokenizer_encode(o.t, sluice_buf_span(&back), false, tokens[1], &n[1], NULL), SLUICE_OK);
        assert_true(n[0] == n[1] && memcmp(tokens[0], tokens[1], n[0] * sizeof tokens[0][0]) == 0);
        sluice_buf_deinit(&back);
    }
    close_opened(&o);
}

/* ---- folding ------------------------------------------------------------------------------------------------ */

static void code_points_fold_to_small_letters_without_accents(void **state)
{
    static const struct {
        uint32_t from, to[4]; /* 0: no more */
    } cases[] = {
        { 'A', { 'a' } },
        { 'z', { 'z' } },
        { '@', { '@' } },
        { '[', { '[' } },
        { 0xc9, { 'e' } },
        { 0x1ec7, { 'e' } },
        { 0x130, { 'i' } },
        { 0x301, { 0 } },
        { 0x3a3, { 0x3c3 } },
        { 0x1e9e, { 0xdf } },
        { 0xac00, { 0x1100, 0x1161 } },
        { 0xac01, { 0x1100, 0x1161, 0x11a8 } },
        { 0xd7a3, { 0x1112, 0x1175, 0x11c2 } },
        { 0x9cb, { 0x9c7, 0x9be } },
        { 0x10400, { 0x10428 } },
        { 0xf900, { 0x8c48 } },
        { 0x2f800, { 0x4e3d } },
        { 0x93f, { 0x93f } },
        { 0x4e00, { 0x4e00 } },
        { 0x10ffff, { 0x10ffff } },
        { 0x41f, { 0x43f } },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t out[3] = { 0 };
        size_t n = sluice_unicode_fold(cases[i].from, out), want = 0;

        while (cases[i].to[want] != 0)
            want++;
        if (n != want || memcmp(out, cases[i].to, n * sizeof *out) != 0)
            fail_msg("U+%04x: %zu, U+%04x", (unsigned)cases[i].from, n, (unsigned)out[0]);
    }
    for (uint32_t c = 0; c <= 0x10ffff; c++) { /* once is enough, and kinds are in range */
        uint32_t once[3], twice[3];
        size_t n = sluice_unicode_fold(c, once);

        assert_true(n <= 3 && sluice_unicode_kind_of(c) <= SLUICE_UNICODE_KIND_CONTROL);
        for (size_t i = 0; i < n; i++)
            if (sluice_unicode_fold(once[i], twice) != 1 || twice[0] != once[i])
                fail_msg("U+%04x folds twice", (unsigned)c);
    }
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

static void megabyte_token(sluice_gguf_writer *w)
{
    static uint8_t text[1 << 20];

    memset(text, 'a', sizeof text);
    with_token(w, sluice_span_of(text, sizeof text), 1);
}

static void scores_double(sluice_gguf_writer *w)
{
    put_abc(w, "llama", 0, 3);
    sluice_gguf_put_raw(w, SLUICE_SPAN_LIT("tokenizer.ggml.scores"), SLUICE_GGUF_ARRAY,
                        SLUICE_SPAN_LIT("\14\0\0\0\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"));
}

static void eot_out_of_range(sluice_gguf_writer *w)
{
    with_u32(w, "tokenizer.ggml.eot_token_id", 3);
}
static void separator_out_of_range(sluice_gguf_writer *w)
{
    with_u32(w, "tokenizer.ggml.seperator_token_id", 102);
}
static void bos_a_string(sluice_gguf_writer *w)
{
    put_abc(w, "llama", 3, 3);
    sluice_gguf_put_string(w, "tokenizer.ggml.bos_token_id", "0");
}
static void add_eos_string(sluice_gguf_writer *w)
{
    put_abc(w, "llama", 3, 3);
    sluice_gguf_put_string(w, "tokenizer.ggml.add_eos_token", "true");
}
static void wordpiece_without_unknown(sluice_gguf_writer *w)
{
    put_abc(w, "bert", 0, 3);
}
static void merge_of_itself(sluice_gguf_writer *w)
{
    put_merge(w, "ab ab");
}

static void many_merges(sluice_gguf_writer *w)
{
    enum { N = (1 << 20) + 1 };
    sluice_span *merges = malloc(N * sizeof *merges);

    assert_non_null(merges);
    put_abc(w, "gpt2", 0, 0);
    for (size_t i = 0; i < N; i++)
        merges[i] = SLUICE_SPAN_LIT("a b");
    sluice_gguf_put_strings(w, "tokenizer.ggml.merges", merges, N);
    free(merges);
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
    { "token of a megabyte", megabyte_token, SLUICE_ERR_LIMIT, "1048576" },
    { "scores of eight bytes", scores_double, SLUICE_ERR_FORMAT, "tokenizer.ggml.scores" },
    { "eot out of range", eot_out_of_range, SLUICE_ERR_FORMAT, "eot_token_id" },
    { "separator of another vocabulary", separator_out_of_range, SLUICE_ERR_FORMAT, "seperator_token_id" },
    { "bos a string", bos_a_string, SLUICE_ERR_FORMAT, "bos_token_id" },
    { "add_eos a string", add_eos_string, SLUICE_ERR_FORMAT, "add_eos_token" },
    { "wordpiece without an unknown token", wordpiece_without_unknown, SLUICE_ERR_FORMAT, "unknown" },
    { "merge of a token with itself into none", merge_of_itself, SLUICE_ERR_FORMAT, "merge 0" },
    { "more than a million merges", many_merges, SLUICE_ERR_LIMIT, "1048577" },
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

/* Odd, but harmless: these open, and text goes through them. */
static void two_tokens(sluice_gguf_writer *w)
{
    sluice_gguf_put_string(w, "tokenizer.ggml.model", "llama");
    sluice_gguf_put_strings(w, "tokenizer.ggml.tokens", (sluice_span[]){ SLUICE_SPAN_LIT("a"), SLUICE_SPAN_LIT("b") }, 2);
    sluice_gguf_put_f32s(w, "tokenizer.ggml.scores", (float[]){ 0, 0 }, 2);
}

static void two_tokens_bpe(sluice_gguf_writer *w)
{
    sluice_gguf_put_string(w, "tokenizer.ggml.model", "gpt2");
    sluice_gguf_put_strings(w, "tokenizer.ggml.tokens", (sluice_span[]){ SLUICE_SPAN_LIT("a"), SLUICE_SPAN_LIT("b") }, 2);
    sluice_gguf_put_strings(w, "tokenizer.ggml.merges", NULL, 0);
}

static void empty_token(sluice_gguf_writer *w)
{
    with_token(w, SLUICE_SPAN_EMPTY, 1);
}

static void token_not_utf8(sluice_gguf_writer *w)
{
    with_token(w, SLUICE_SPAN_LIT("\xff\xe2\x96"), 1);
}

static void merge_said_a_million_times(sluice_gguf_writer *w)
{
    enum { N = 1000000 };
    sluice_span *merges = malloc(N * sizeof *merges);

    assert_non_null(merges);
    put_abc(w, "gpt2", 0, 0);
    for (size_t i = 0; i < N; i++)
        merges[i] = SLUICE_SPAN_LIT("a b");
    sluice_gguf_put_strings(w, "tokenizer.ggml.merges", merges, N);
    free(merges);
}

static void odd_vocabularies_open_and_cannot_be_led_astray(void **state)
{
    static void (*const builds[])(sluice_gguf_writer *) = { two_tokens, two_tokens_bpe, empty_token, token_not_utf8, merge_said_a_million_times };

    (void)state;
    for (size_t i = 0; i < sizeof builds / sizeof builds[0]; i++) {
        sluice_error err = SLUICE_ERROR_INIT;
        sluice_gguf_writer w;
        int32_t tokens[8];
        size_t n = 8;
        opened o;

        sluice_buf_init(&o.file, NULL, FILE_MAX);
        sluice_gguf_writer_init(&w, NULL, FILE_MAX);
        builds[i](&w);
        assert_true(sluice_gguf_writer_finish(&w, &o.file));
        if (open_built(&o, &err) != SLUICE_OK)
            fail_msg("%zu: %s", i, err.message);
        assert_int_equal(sluice_tokenizer_bos(o.t), SLUICE_TOKEN_NONE); /* no default is taken from a larger vocabulary */
        assert_int_equal(sluice_tokenizer_eos(o.t), SLUICE_TOKEN_NONE);
        assert_false(sluice_tokenizer_wants_bos(o.t) || sluice_tokenizer_wants_eos(o.t));
        assert_int_equal(sluice_tokenizer_encode(o.t, SLUICE_SPAN_LIT("\xff\xe2\x96z"), true, tokens, &n, &err), SLUICE_ERR_UNSUPPORTED);
        n = 8;
        if (o.t->sort == TOKENIZER_BPE)
            assert_tokens(o.t, "ab", true, i == 4 ? "2" : "0 1");
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
    opened o[3];

    (void)state;
    open_bpe(&o[0], &bpe);
    open_spm(&o[1], true, spm_tokens, sizeof spm_tokens / sizeof spm_tokens[0]);
    open_wordpiece(&o[2], pieces, sizeof pieces / sizeof pieces[0], true);
    for (size_t k = 0; k < 3; k++) {
        size_t n = fake_allocator_sweep(open_and_encode, o[k].g);

        assert_true(n != SIZE_MAX && n >= 5);
        close_opened(&o[k]);
    }
}

static void real_vocabularies_take_what_is_estimated_and_little(void **state)
{
    static const struct {
        const char *name;
        size_t most;
    } cases[] = { { "gpt-2", 2 << 20 }, { "starcoder", 2 << 20 }, { "llama-spm", 1 << 20 }, { "deepseek-llm", 4 << 20 }, { "bert-bge", 1 << 20 } };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sluice_error err = SLUICE_ERROR_INIT;
        opened o = { 0 };
        fake_allocator fa;
        char path[64];

        (void)snprintf(path, sizeof path, "vocab/ggml-vocab-%s.gguf", cases[i].name);
        if (test_data_path(path) == NULL || !test_read_file(test_data_path(path), &o.file)) {
            sluice_buf_deinit(&o.file);
            print_message("no $SLUICE_TEST_DATA/vocab: memory of real vocabularies not checked\n");
            skip();
        }
        fake_allocator_init(&fa);
        assert_int_equal(sluice_gguf_open_span(&o.g, sluice_buf_span(&o.file), NULL, &err), SLUICE_OK);
        assert_int_equal(sluice_tokenizer_open(&o.t, o.g, &fa.al, &err), SLUICE_OK);
        if (fa.peak_bytes != sluice_tokenizer_estimate_bytes(o.g) || fa.peak_bytes > cases[i].most)
            fail_msg("%s: %zu bytes, estimated %zu", cases[i].name, fa.peak_bytes, (size_t)sluice_tokenizer_estimate_bytes(o.g));
        close_opened(&o);
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
        assert_int_equal(fa.peak_bytes, sluice_tokenizer_estimate_bytes(o[k].g)); /* and what is held is no less */
        assert_int_equal(fa.live_bytes, fa.peak_bytes);
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
        cmocka_unit_test(an_unknown_pre_tokenizer_is_refused_by_name),
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
        cmocka_unit_test(gemma_vocabularies_keep_runs_of_white_space),
        cmocka_unit_test(real_vocabularies_give_their_own_tokens_back_as_text),
        cmocka_unit_test(wordpiece_takes_the_longest_pieces_of_each_word),
        cmocka_unit_test(whole_texts_begin_and_end_as_the_model_wants),
        cmocka_unit_test(wordpiece_text_that_came_back_stays),
        cmocka_unit_test(code_points_fold_to_small_letters_without_accents),
        cmocka_unit_test(bad_vocabularies_are_refused),
        cmocka_unit_test(odd_vocabularies_open_and_cannot_be_led_astray),
        cmocka_unit_test(real_vocabularies_take_what_is_estimated_and_little),
        cmocka_unit_test(every_failed_allocation_is_no_memory),
        cmocka_unit_test(scratch_is_wiped_and_the_estimate_holds),
    };

    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
