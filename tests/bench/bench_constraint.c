/* bench_constraint.c - what a constraint costs per token, over given vocabularies, as JSON lines.
 *
 *   bench_constraint [-x TOKENS] [-r RUNS] VOCABULARY.gguf...
 *
 * Follows texts that a model could have written, token by token as the tokenizer cuts them, under their schemas, and times at each step
 *   allows   the check of the one token that is taken: what a greedy step costs when the model's favourite is allowed
 *   mask     the whole vocabulary: what a step at a temperature costs, and a greedy step whose first favourites are refused
 *   accept   going on
 * Each step counts with the fastest of RUNS, so that a busy machine does not show; the mean and the slowest step are printed.
 * mask_first is the mask when it is asked for the first time in a state, with nothing cached, and has one run alone.
 *
 * -x extends the vocabulary to that many tokens by putting pairs of its tokens together: sizes for which there is no file at hand.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "local-engine/constraint.h"
#include "local-engine/tools/gguf_write.h"
#include "sdk/platform/platform.h"

enum { TOKENS_MAX = 4096, FILE_MAX = 64 << 20 };

static const sluice_platform *platform;

static const struct {
    const char *name, *schema, *text;
} cases[] = {
    { "any JSON", "",
      "{\"user\": {\"name\": \"Ada Lovelace\", \"born\": 1815, \"tags\": [\"mathematics\", \"computing\"]}, \"active\": true, \"score\": 0.75}" },
    { "long string", "{\"type\":\"object\",\"properties\":{\"summary\":{\"type\":\"string\"}},\"required\":[\"summary\"]}",
      "{\"summary\": \"The meeting was moved to Thursday afternoon because two of the engineers are travelling; they asked for the notes to be "
      "sent around before noon, and \\\"no later\\\". Caf\xc3\xa9 as usual.\"}" },
    { "record",
      "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":40},\"age\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":"
      "150},"
      "\"email\":{\"type\":\"string\",\"format\":\"email\"},\"role\":{\"enum\":[\"admin\",\"user\",\"guest\"]},\"tags\":{\"type\":\"array\","
      "\"items\":{\"type\":\"string\"},"
      "\"maxItems\":5}},\"required\":[\"name\",\"age\",\"email\",\"role\"]}",
      "{\"name\": \"Grace Hopper\", \"age\": 85, \"email\": \"grace@navy.example.com\", \"role\": \"admin\", \"tags\": [\"compiler\", \"cobol\"]}" },
    { "alternatives",
      "{\"type\":\"array\",\"items\":{\"anyOf\":[{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"call\"},\"to\":{\"type\":\"string\"}},"
      "\"required\":"
      "[\"kind\",\"to\"]},{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"message\"},\"to\":{\"type\":\"string\"},\"text\":{\"type\":"
      "\"string\"}},\"required\":[\"kind\",\"to\","
      "\"text\"]}]}}",
      "[{\"kind\": \"call\", \"to\": \"Mum\"}, {\"kind\": \"message\", \"to\": \"Dad\", \"text\": \"I will be there at eight\"}]" },
    { "pattern",
      "{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\",\"pattern\":\"^(/"
      "[A-Za-z0-9._-]+)+$\"},\"at\":{\"type\":\"string\",\"format\":\"date-time\"}},"
      "\"required\":[\"path\",\"at\"]}",
      "{\"path\": \"/home/ada/notes/engine.txt\", \"at\": \"2024-05-17T09:30:00Z\"}" },
};

typedef struct timing {
    double sum, max;
    uint64_t n;
} timing;

static void note(timing *t, double us)
{
    t->sum += us;
    t->max = us > t->max ? us : t->max;
    t->n++;
}

static double mean(const timing *t)
{
    return t->n > 0 ? t->sum / (double)t->n : 0;
}

static bool run_case(const sluice_constraint_vocab *v, const sluice_tokenizer *t, size_t i, uint32_t runs)
{
    static int32_t tokens[TOKENS_MAX];
    static uint32_t bits[SLUICE_TOKENIZER_MAX_VOCAB / 32];
    timing allows = { 0, 0, 0 }, mask = allows, first = allows, accept = allows;
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_constraint *c = NULL;
    size_t n = TOKENS_MAX;
    uint64_t compiled = sluice_now_us(platform);
    bool ok = sluice_constraint_open_shared(&c, v, sluice_span_str(cases[i].schema), NULL, &err) == SLUICE_OK;

    compiled = sluice_now_us(platform) - compiled;
    ok = ok && sluice_tokenizer_encode(t, sluice_span_str(cases[i].text), false, tokens, &n, &err) == SLUICE_OK;
    for (size_t k = 0; ok && k < n; k++) {
        uint64_t from = sluice_now_us(platform);
        double best_mask = 1e9, best_allows = 1e9;

        (void)sluice_constraint_mask(c, bits);
        note(&first, (double)(sluice_now_us(platform) - from));
        for (uint32_t r = 0; r < runs; r++) {
            double us;

            from = sluice_now_us(platform);
            (void)sluice_constraint_mask(c, bits);
            us = (double)(sluice_now_us(platform) - from);
            best_mask = us < best_mask ? us : best_mask;
            from = sluice_now_us(platform);
            for (uint32_t j = 0; j < 100; j++)
                (void)sluice_constraint_allows(c, tokens[k]);
            us = (double)(sluice_now_us(platform) - from) / 100;
            best_allows = us < best_allows ? us : best_allows;
        }
        note(&mask, best_mask);
        note(&allows, best_allows);
        from = sluice_now_us(platform);
        ok = sluice_constraint_accept(c, tokens[k], &err) == SLUICE_OK;
        note(&accept, (double)(sluice_now_us(platform) - from));
    }
    if (ok)
        printf("{\"schema\": \"%s\", \"n_vocab\": %u, \"tokens\": %zu, \"compile_us\": %llu, \"allows_us\": %.2f, \"accept_us\": %.1f, \"mask_us\": "
               "%.1f, "
               "\"mask_us_max\": %.1f, \"mask_first_us\": %.1f, \"mask_first_us_max\": %.1f}\n",
               cases[i].name, sluice_tokenizer_n_vocab(t), n, (unsigned long long)compiled, mean(&allows), mean(&accept), mean(&mask), mask.max,
               mean(&first), first.max);
    else
        fprintf(stderr, "bench_constraint: %s: %s\n", cases[i].name, err.message);
    sluice_constraint_close(c);
    return ok;
}

/* The bytes of a token in GPT-2's alphabet, so that it can be written as a token again. */
static bool append_spelled(sluice_buf *out, sluice_span text)
{
    bool ok = true;

    for (size_t i = 0; i < text.len && ok; i++) {
        uint32_t c = text.ptr[i], extra = 0;

        for (uint32_t b = 0; b <= text.ptr[i]; b++)
            if (!((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174)) {
                c = b == text.ptr[i] ? 256 + extra : c;
                extra++;
            }
        ok = c < 0x80 ? sluice_buf_append_byte(out, (uint8_t)c)
                      : sluice_buf_append_byte(out, (uint8_t)(0xc0 | c >> 6)) && sluice_buf_append_byte(out, (uint8_t)(0x80 | (c & 0x3f)));
    }
    return ok;
}

/* A file like `t`, with pairs of its tokens added up to n_want; four letters at the end make each a new one. */
static bool extend(sluice_buf *file, const sluice_tokenizer *t, uint32_t n_want)
{
    const uint32_t n_have = sluice_tokenizer_n_vocab(t);
    sluice_buf pool;
    size_t *ends = calloc(n_want + 1u, sizeof *ends);
    sluice_span *texts = calloc(n_want, sizeof *texts);
    int32_t *types = calloc(n_want, sizeof *types);
    sluice_gguf_writer w;
    bool ok = ends != NULL && texts != NULL && types != NULL;

    sluice_buf_init(&pool, NULL, FILE_MAX);
    for (uint32_t i = 0; i < n_want && ok; i++) {
        if (i < n_have) {
            types[i] = sluice_tokenizer_is_control(t, (int32_t)i) ? 3 : 1;
            ok = types[i] == 3 ? sluice_buf_appendf(&pool, "<|control %u|>", i) : append_spelled(&pool, sluice_tokenizer_bytes(t, (int32_t)i));
        } else { /* a common first part, a rare second one, and a number that makes it unique */
            types[i] = 1;
            ok = append_spelled(&pool, sluice_tokenizer_bytes(t, (int32_t)(300 + i * 7919u % 20000 % n_have))) &&
                 append_spelled(&pool, sluice_tokenizer_bytes(t, (int32_t)(300 + i * 104729u % (n_have - 300)))) &&
                 sluice_buf_appendf(&pool, "%c%c%c%c", 'a' + (int)(i % 26), 'a' + (int)(i / 26 % 26), 'a' + (int)(i / 676 % 26),
                                    'A' + (int)(i / 17576 % 26));
        }
        ends[i + 1] = pool.len;
    }
    for (uint32_t i = 0; i < n_want && ok; i++)
        texts[i] = sluice_span_of(pool.ptr + ends[i], ends[i + 1] - ends[i]);
    if (ok) {
        sluice_gguf_writer_init(&w, NULL, FILE_MAX);
        sluice_gguf_put_string(&w, "general.architecture", "llama");
        sluice_gguf_put_string(&w, "tokenizer.ggml.model", "gpt2");
        sluice_gguf_put_string(&w, "tokenizer.ggml.pre", "gpt-2");
        sluice_gguf_put_strings(&w, "tokenizer.ggml.tokens", texts, n_want);
        sluice_gguf_put_i32s(&w, "tokenizer.ggml.token_type", types, n_want);
        sluice_gguf_put_strings(&w, "tokenizer.ggml.merges", texts, 0);
        ok = sluice_gguf_writer_finish(&w, file);
        sluice_gguf_writer_deinit(&w);
    }
    sluice_buf_deinit(&pool);
    free(ends);
    free(texts);
    free(types);
    return ok;
}

static bool run_vocabulary(const sluice_tokenizer *t, const char *name, uint32_t runs)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_constraint_vocab *v = NULL;
    uint64_t from = sluice_now_us(platform);
    bool ok = sluice_constraint_vocab_open(&v, t, NULL, &err) == SLUICE_OK;

    if (!ok) {
        fprintf(stderr, "bench_constraint: %s: %s\n", name, err.message);
        return false;
    }
    printf("{\"vocabulary\": \"%s\", \"n_vocab\": %u, \"open_us\": %llu, \"bytes\": %zu}\n", name, sluice_tokenizer_n_vocab(t),
           (unsigned long long)(sluice_now_us(platform) - from), sluice_constraint_vocab_bytes(v));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0] && ok; i++)
        ok = run_case(v, t, i, runs);
    sluice_constraint_vocab_close(v);
    return ok;
}

static bool run_file(const char *path, uint32_t n_want, uint32_t runs)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_gguf *g = NULL, *more = NULL;
    sluice_tokenizer *t = NULL, *extended = NULL;
    sluice_buf file;
    bool ok;

    sluice_buf_init(&file, NULL, FILE_MAX);
    ok = sluice_gguf_open(&g, path, platform, NULL, &err) == SLUICE_OK && sluice_tokenizer_open(&t, g, NULL, &err) == SLUICE_OK;
    if (ok && n_want > sluice_tokenizer_n_vocab(t)) {
        ok = extend(&file, t, n_want) && sluice_gguf_open_span(&more, sluice_buf_span(&file), NULL, &err) == SLUICE_OK &&
             sluice_tokenizer_open(&extended, more, NULL, &err) == SLUICE_OK;
    }
    if (!ok)
        fprintf(stderr, "bench_constraint: %s: %s\n", path, err.message);
    else
        ok = run_vocabulary(extended != NULL ? extended : t, path, runs);
    sluice_tokenizer_close(extended);
    sluice_gguf_close(more);
    sluice_tokenizer_close(t);
    sluice_gguf_close(g);
    sluice_buf_deinit(&file);
    return ok;
}

int main(int argc, char **argv)
{
    uint32_t n_want = 0, runs = 20;
    bool any = false;

    platform = sluice_platform_default();
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-x") == 0 && i + 1 < argc) {
            n_want = (uint32_t)strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "-r") == 0 && i + 1 < argc) {
            runs = (uint32_t)strtoul(argv[++i], NULL, 10);
        } else {
            any = true;
            if (n_want > SLUICE_TOKENIZER_MAX_VOCAB || runs == 0 || !run_file(argv[i], n_want, runs))
                return 1;
        }
    }
    if (!any)
        fprintf(stderr, "usage: bench_constraint [-x TOKENS] [-r RUNS] VOCABULARY.gguf...\n");
    return any ? 0 : 2;
}
