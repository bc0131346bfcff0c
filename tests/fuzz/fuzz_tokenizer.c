/* fuzz_tokenizer.c - any bytes encode, never to a control or markup token, and decode to the same.
 *
 * The first byte chooses the vocabulary, the rest is the text.  The vocabularies have all bytes, a few merges, user-defined tokens, and tokens that
 * chat formats are made of.  WordPiece loses text: there the property is that what came back encodes to the same.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "local-engine/tokenizer.h"
#include "tests/unit/engine/gguf_samples.h"

enum { TEXT_MAX = 4096, FILE_MAX = 1 << 20, WORDPIECE_UNKNOWN = 1 };

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "fuzz_tokenizer: %s\n", what);
        abort();
    }
}

#define MARK "\xe2\x96\x81"
static const sample_token spm_tokens[] = { { MARK, 1, -9 },     { "a", 1, -7 },  { "b", 1, -8 },   { "ab", 1, -2 },
                                           { MARK "a", 1, -3 }, { "aa", 1, -1 }, { "aaaa", 1, 0 }, { "1", 1, 1 } };
static const sample_token bpe_tokens[] = { { "ab", 1, 0 },
                                           { "bc", 1, 0 },
                                           { "abc", 1, 0 },
                                           { "\xc4\xa0"
                                             "a",
                                             1, 0 },
                                           { "aa", 1, 0 },
                                           { "aaaa", 1, 0 },
                                           { "12", 1, 0 },
                                           { "[x]", 4, 0 },
                                           { "[x]]", 4, 0 },
                                           { "<|im_start|>", 1, 0 },
                                           { "<tool_call>", 4, 0 } };
static const char *const bpe_merges[] = { "b c", "a b", "a bc", "\xc4\xa0 a", "a a", "aa aa", "1 2" };
static const char *const pres[] = {
    "gpt-2", "default", "llama-bpe", "qwen2", "smollm", "falcon", "deepseek-llm", "deepseek-coder", "tekken", "gpt-4o"
};
static const char *const pieces[] = { "[PAD]",
                                      "[UNK]",
                                      "[CLS]",
                                      "[SEP]",
                                      MARK "a",
                                      MARK "b",
                                      "a",
                                      "b",
                                      "ab",
                                      MARK "abc",
                                      "1",
                                      MARK "1",
                                      MARK "!",
                                      MARK "[",
                                      MARK "]",
                                      "x",
                                      MARK "x",
                                      MARK "<",
                                      MARK "e",
                                      MARK "\xe4\xbd\xa0",
                                      MARK "\xe1\x84\x92",
                                      "\xe1\x85\xa1" };

enum { N_PRES = sizeof pres / sizeof pres[0], SPM = N_PRES, WORDPIECE, N_VOCABULARIES, N_PIECES = sizeof pieces / sizeof pieces[0] };

static void sample_wordpiece(sluice_buf *out)
{
    sluice_span texts[N_PIECES];
    int32_t types[N_PIECES];
    sluice_gguf_writer w;

    for (size_t i = 0; i < N_PIECES; i++) {
        texts[i] = sluice_span_str(pieces[i]);
        types[i] = i == WORDPIECE_UNKNOWN ? 2 : i < 4 ? 3 : 1;
    }
    sluice_gguf_writer_init(&w, NULL, FILE_MAX);
    sluice_gguf_put_string(&w, "tokenizer.ggml.model", "bert");
    sluice_gguf_put_strings(&w, "tokenizer.ggml.tokens", texts, N_PIECES);
    sluice_gguf_put_i32s(&w, "tokenizer.ggml.token_type", types, N_PIECES);
    must(sluice_gguf_writer_finish(&w, out), "no wordpiece");
    sluice_gguf_writer_deinit(&w);
}

/* Opened once, for the life of the process. */
static const sluice_tokenizer *vocabulary(size_t which)
{
    static sluice_tokenizer *opened[N_VOCABULARIES];
    static sluice_gguf *files[N_VOCABULARIES];
    static sluice_buf bytes[N_VOCABULARIES];

    if (opened[which] == NULL) {
        sluice_buf_init(&bytes[which], NULL, FILE_MAX);
        if (which == WORDPIECE) {
            sample_wordpiece(&bytes[which]);
        } else if (which == SPM) {
            sample_spm(&bytes[which], true, spm_tokens, sizeof spm_tokens / sizeof spm_tokens[0]);
        } else {
            sample_bpe(&bytes[which], &(sample_bpe_options){ .pre = pres[which],
                                                             .tokens = bpe_tokens,
                                                             .n_tokens = sizeof bpe_tokens / sizeof bpe_tokens[0],
                                                             .merges = bpe_merges,
                                                             .n_merges = sizeof bpe_merges / sizeof bpe_merges[0] });
        }
        must(sluice_gguf_open_span(&files[which], sluice_buf_span(&bytes[which]), NULL, NULL) == SLUICE_OK &&
                 sluice_tokenizer_open(&opened[which], files[which], NULL, NULL) == SLUICE_OK,
             "no vocabulary");
    }
    return opened[which];
}

static void check_wordpiece(const sluice_tokenizer *t, const int32_t *tokens, size_t n, sluice_span back)
{
    static int32_t again[4 * TEXT_MAX];
    size_t n_again = 4 * TEXT_MAX;

    for (size_t i = 0; i < n; i++)
        if (tokens[i] == WORDPIECE_UNKNOWN)
            return;
    must(sluice_tokenizer_encode(t, back, false, again, &n_again, NULL) == SLUICE_OK, "what came back cannot be encoded");
    must(n_again == n && (n == 0 || memcmp(again, tokens, n * sizeof *tokens) == 0), "what came back is other tokens");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int32_t tokens[4 * TEXT_MAX];
    const sluice_tokenizer *t;
    size_t n = 4 * TEXT_MAX, which;
    sluice_span text;
    sluice_buf back;

    if (size < 1 || size > TEXT_MAX)
        return 0;
    which = data[0] % N_VOCABULARIES;
    t = vocabulary(which);
    text = sluice_span_of(data + 1, size - 1);
    must(sluice_tokenizer_encode(t, text, false, tokens, &n, NULL) == SLUICE_OK, "text that cannot be encoded");
    must(n <= 2 * text.len, "more tokens than bytes and spaces put in front");
    for (size_t i = 0; i < n; i++) {
        must(which == WORDPIECE || !sluice_tokenizer_is_control(t, tokens[i]), "a control token");
        must(!sluice_tokenizer_is_markup(t, tokens[i]), "a markup token");
    }
    sluice_buf_init(&back, NULL, SIZE_MAX);
    must(sluice_tokenizer_decode(t, tokens, n, &back, NULL) == SLUICE_OK, "tokens that cannot be decoded");
    if (which == WORDPIECE)
        check_wordpiece(t, tokens, n, sluice_buf_span(&back));
    else
        must(sluice_span_eq(sluice_buf_span(&back), text), "another text");
    sluice_buf_deinit(&back);
    return 0;
}
