/* tokens.c - our side of run_token_parity.sh: texts, vocabularies with another pre-tokenizer, and tokens.
 *
 *   tokens texts SEED N > TEXTS         N random texts, each ended by a NUL
 *   tokens pre NAME VOCAB > VOCAB       the same file with another value of tokenizer.ggml.pre
 *   tokens encode VOCAB TEXTS           a line of token ids for each text
 *
 * Left out of the texts is what both engines are known to see differently, and why: code points that Unicode got after version 14; Hangul syllables
 * and spacing marks, which the peer's WordPiece shortens; white space beyond ASCII that DeepSeek's expressions name, which the peer matches as another
 * character; U+2581, which the peer's SPM makes a space of; lone marks, whose place in GPT-4o's and Mistral's words the peer approximates;
 * and words of more than 100 code points, which are unknown to BERT and not to the peer.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "local-engine/tokenizer.h"
#include "local-engine/unicode.h"

enum { FILE_MAX_BYTES = 256 << 20 };

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static bool read_file(const char *path, sluice_buf *out)
{
    FILE *f = fopen(path, "rb");
    char chunk[1 << 14];
    size_t n;
    bool ok = f != NULL;

    while (ok && (n = fread(chunk, 1, sizeof chunk, f)) > 0)
        ok = sluice_buf_append(out, chunk, n);
    if (f != NULL)
        (void)fclose(f);
    return ok;
}

static bool is_agreed_on(uint32_t c)
{
    switch (sluice_unicode_kind_of(c)) {
    case SLUICE_UNICODE_KIND_UPPER: return c < 0x1c90 || c > 0x1cbf; /* Georgian capitals are newer than the peer's small letters */
    case SLUICE_UNICODE_KIND_LOWER:
    case SLUICE_UNICODE_KIND_NUMBER:
    case SLUICE_UNICODE_KIND_PUNCTUATION: return c < 0x20000;
    case SLUICE_UNICODE_KIND_LETTER: return (c < 0xac00 || c > 0xd7a3) && c < 0x1f000;
    case SLUICE_UNICODE_KIND_OTHER: return c >= 0x20a0 && c <= 0x27bf && c != 0x2581 && (c < 0x20c0 || c > 0x20ff);
    default: return false;
    }
}

static void put_random_code_point(uint64_t *state)
{
    uint8_t bytes[4];
    uint32_t c;

    do
        c = (uint32_t)(next_random(state) >> 20) % (next_random(state) % 4 == 0 ? 0x1f000u : 0x3100u);
    while (c < 0x21 || !is_agreed_on(c));
    (void)fwrite(bytes, 1, sluice_unicode_encode(c, bytes), stdout);
}

static int put_texts(uint64_t seed, long n)
{
    static const char *const words[] = {
        "the",
        "of",
        "Hello",
        "world",
        "I'm",
        "we'LL",
        "'RE",
        "NASA",
        "camelCase",
        "\xc3\xbc"
        "ber",
        "na\xc3\xafve",
        "\xc3\x89"
        "COLE",
        "\xe4\xbd\xa0\xe5\xa5\xbd",
        "\xd1\x80\xd1\x83\xd1\x81\xd1\x81\xd0\xba\xd0\xb8\xd0\xb9",
        "123",
        "1",
        "45678",
        "3.14",
        "...",
        "!!!",
        "//",
        "<b>",
        "{}",
        "[]",
        "$5",
        "#tag",
        "@me",
        "a_b",
        "x^2",
        "100%",
        "\"",
        "'",
        "`code`",
        "~",
        "|",
        "\\",
        "&",
        "\xe2\x82\xac",
        "\xe2\x80\x94",
        "\xf0\x9f\x9a\x80",
        "<s>",
        "</s>",
        "<|endoftext|>",
        "[CLS]",
        "[SEP]",
        "<|im_start|>",
    };
    static const char *const spaces[] = { " ", " ", " ", " ", " ", " ", "", "", "  ", "   ", "\n", "\n\n", " \n", "\t", "\r\n", " \n \n  " };

    seed = seed * 0x9e3779b97f4a7c15u + 1;
    for (long i = 0; i < n; i++) {
        for (uint64_t k = next_random(&seed) % 40 + 1; k > 0; k--) {
            if (next_random(&seed) % 4 != 0)
                (void)fputs(words[next_random(&seed) % (sizeof words / sizeof words[0])], stdout);
            else
                for (uint64_t j = next_random(&seed) % 4 + 1; j > 0; j--)
                    put_random_code_point(&seed);
            (void)fputs(k % 4 == 0 ? " " : spaces[next_random(&seed) % (sizeof spaces / sizeof spaces[0])], stdout);
        }
        (void)fputc(0, stdout);
    }
    return 0;
}

static int put_with_pre(const char *name, sluice_span file)
{
    static const char key[] = "tokenizer.ggml.pre";
    uint64_t old_len = 0, new_len = strlen(name);

    for (size_t at = 0; at + sizeof key + 12 < file.len; at++) {
        size_t value = at + sizeof key - 1 + 4; /* behind the key and the type of its value */

        if (memcmp(file.ptr + at, key, sizeof key - 1) != 0)
            continue;
        memcpy(&old_len, file.ptr + value, 8);
        if (old_len > 64)
            continue;
        (void)fwrite(file.ptr, 1, value, stdout);
        (void)fwrite(&new_len, 1, 8, stdout);
        (void)fputs(name, stdout);
        (void)fwrite(file.ptr + value + 8 + old_len, 1, file.len - value - 8 - (size_t)old_len, stdout);
        return 0;
    }
    fprintf(stderr, "tokens: no %s in the file\n", key);
    return 1;
}

static int put_tokens(sluice_span file, sluice_span texts)
{
    static int32_t tokens[1 << 16];
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_tokenizer *t = NULL;
    sluice_gguf *g = NULL;

    if (sluice_gguf_open_span(&g, file, NULL, &err) != SLUICE_OK || sluice_tokenizer_open(&t, g, NULL, &err) != SLUICE_OK) {
        fprintf(stderr, "tokens: %s\n", err.message);
        sluice_gguf_close(g);
        return 1;
    }
    for (size_t at = 0; at < texts.len; at++) {
        const uint8_t *end = memchr(texts.ptr + at, 0, texts.len - at);
        size_t len = end != NULL ? (size_t)(end - (texts.ptr + at)) : texts.len - at, n = sizeof tokens / sizeof tokens[0];

        if (sluice_tokenizer_encode(t, sluice_span_of(texts.ptr + at, len), false, tokens, &n, &err) != SLUICE_OK)
            n = 0;
        for (size_t i = 0; i < n; i++)
            printf("%s%d", i > 0 ? " " : "", (int)tokens[i]);
        printf("\n");
        at += len;
    }
    sluice_tokenizer_close(t);
    sluice_gguf_close(g);
    return 0;
}

int main(int argc, char **argv)
{
    sluice_buf file, texts;
    int result = 2;

    sluice_buf_init(&file, NULL, FILE_MAX_BYTES);
    sluice_buf_init(&texts, NULL, FILE_MAX_BYTES);
    if (argc == 4 && strcmp(argv[1], "texts") == 0)
        result = put_texts(strtoull(argv[2], NULL, 10), strtol(argv[3], NULL, 10));
    else if (argc == 4 && strcmp(argv[1], "pre") == 0 && read_file(argv[3], &file))
        result = put_with_pre(argv[2], sluice_buf_span(&file));
    else if (argc == 4 && strcmp(argv[1], "encode") == 0 && read_file(argv[2], &file) && read_file(argv[3], &texts))
        result = put_tokens(sluice_buf_span(&file), sluice_buf_span(&texts));
    else
        fprintf(stderr, "usage: tokens texts SEED N | pre NAME VOCAB | encode VOCAB TEXTS\n");
    sluice_buf_deinit(&file);
    sluice_buf_deinit(&texts);
    return result;
}
