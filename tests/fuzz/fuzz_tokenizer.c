/* fuzz_tokenizer.c - any bytes encode, never to a control token, and come back the same.
 *
 * The first byte chooses the vocabulary, the rest is the text.  The vocabularies have all bytes and a few merges; the SPM one has
 * its two known exceptions, a space in front and U+2581 read as a space.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "local-engine/tokenizer.h"
#include "local-engine/unicode.h"
#include "tests/unit/engine/gguf_samples.h"

enum { TEXT_MAX = 4096, FILE_MAX = 1 << 20 };

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
                                           { "[x]]", 4, 0 } };
static const char *const bpe_merges[] = { "b c", "a b", "a bc", "\xc4\xa0 a", "a a", "aa aa", "1 2" };
static const char *const pres[] = { "gpt-2", "default", "llama-bpe", "qwen2", "smollm", "falcon" };

enum { N_PRES = sizeof pres / sizeof pres[0], N_VOCABULARIES = N_PRES + 1 };

/* Opened once, for the life of the process. */
static const sluice_tokenizer *vocabulary(size_t which)
{
    static sluice_tokenizer *opened[N_VOCABULARIES];
    static sluice_gguf *files[N_VOCABULARIES];
    static sluice_buf bytes[N_VOCABULARIES];

    if (opened[which] == NULL) {
        sluice_buf_init(&bytes[which], NULL, FILE_MAX);
        if (which == N_PRES) {
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

/* What SPM gives back: a space, then the text with every U+2581 as a space. */
static size_t spm_text(sluice_span in, uint8_t *out)
{
    size_t n = 0;

    if (in.len > 0)
        out[n++] = ' ';
    for (size_t i = 0; i < in.len;) {
        uint32_t len, c = sluice_unicode_decode(in, i, &len);

        if (c == 0x2581)
            out[n++] = ' ';
        else
            for (uint32_t k = 0; k < len; k++)
                out[n++] = in.ptr[i + k];
        i += len;
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int32_t tokens[2 * TEXT_MAX];
    static uint8_t want[TEXT_MAX + 1];
    const sluice_tokenizer *t;
    size_t n = 2 * TEXT_MAX, n_want, at = 0, which;
    sluice_span text;

    if (size < 1 || size > TEXT_MAX)
        return 0;
    which = data[0] % N_VOCABULARIES;
    t = vocabulary(which);
    text = sluice_span_of(data + 1, size - 1);
    if (which == N_PRES) {
        n_want = spm_text(text, want);
    } else {
        memcpy(want, text.ptr, text.len);
        n_want = text.len;
    }
    must(sluice_tokenizer_encode(t, text, false, tokens, &n, NULL) == SLUICE_OK, "text that cannot be encoded");
    must(n <= n_want, "more tokens than bytes");
    for (size_t i = 0; i < n; i++) {
        sluice_span s = sluice_tokenizer_bytes(t, tokens[i]);

        must(!sluice_tokenizer_is_control(t, tokens[i]), "a control token");
        must(s.len > 0 && s.len <= n_want - at && memcmp(want + at, s.ptr, s.len) == 0, "another text");
        at += s.len;
    }
    must(at == n_want, "a shorter text");
    return 0;
}
