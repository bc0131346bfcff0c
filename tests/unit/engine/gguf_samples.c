/* gguf_samples.c - small GGUF files for tests.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/unit/engine/gguf_samples.h"

#include <stdio.h>
#include <stdlib.h>

enum { SAMPLE_BYTES_MAX = 16 << 20, TOKENS_MAX = 4096 };

static void finish(sluice_gguf_writer *w, sluice_buf *out)
{
    if (!sluice_gguf_writer_finish(w, out)) {
        fprintf(stderr, "gguf_samples: no memory\n");
        exit(1);
    }
    sluice_gguf_writer_deinit(w);
}

/* A vocabulary under construction.  Texts are literals, or kept in `pool`. */
typedef struct vocabulary {
    sluice_span texts[TOKENS_MAX];
    float scores[TOKENS_MAX];
    int32_t types[TOKENS_MAX];
    char pool[256][8];
    size_t n;
} vocabulary;

static void add(vocabulary *v, const char *text, int32_t type, float score)
{
    if (v->n == TOKENS_MAX)
        exit(1);
    v->texts[v->n] = sluice_span_str(text);
    v->types[v->n] = type;
    v->scores[v->n++] = score;
}

static void add_all(vocabulary *v, const sample_token *tokens, size_t n)
{
    for (size_t i = 0; i < n; i++)
        add(v, tokens[i].text, tokens[i].type, tokens[i].score);
}

static void put_vocabulary(sluice_gguf_writer *w, const vocabulary *v, const char *model)
{
    sluice_gguf_put_string(w, "tokenizer.ggml.model", model);
    sluice_gguf_put_strings(w, "tokenizer.ggml.tokens", v->texts, v->n);
    if (strcmp(model, "llama") == 0)
        sluice_gguf_put_f32s(w, "tokenizer.ggml.scores", v->scores, v->n);
    sluice_gguf_put_i32s(w, "tokenizer.ggml.token_type", v->types, v->n);
}

static void put_strings(sluice_gguf_writer *w, const char *key, const char *const *items, size_t n)
{
    sluice_span *spans = calloc(n > 0 ? n : 1, sizeof *spans);

    if (spans == NULL)
        exit(1);
    for (size_t i = 0; i < n; i++)
        spans[i] = sluice_span_str(items[i]);
    sluice_gguf_put_strings(w, key, spans, n);
    free(spans);
}

void sample_spm(sluice_buf *out, bool with_bytes, const sample_token *tokens, size_t n)
{
    vocabulary *v = calloc(1, sizeof *v);
    sluice_gguf_writer w;

    if (v == NULL)
        exit(1);
    add(v, "<unk>", 2, 0);
    add(v, "<s>", 3, 0);
    add(v, "</s>", 3, 0);
    for (unsigned b = 0; with_bytes && b < 256; b++) {
        (void)snprintf(v->pool[b], sizeof v->pool[b], "<0x%02X>", b);
        add(v, v->pool[b], 6, 0);
    }
    add_all(v, tokens, n);
    sluice_gguf_writer_init(&w, NULL, SAMPLE_BYTES_MAX);
    sluice_gguf_put_string(&w, "general.architecture", "llama");
    put_vocabulary(&w, v, "llama");
    sluice_gguf_put_u32(&w, "tokenizer.ggml.bos_token_id", 1);
    sluice_gguf_put_u32(&w, "tokenizer.ggml.eos_token_id", 2);
    finish(&w, out);
    free(v);
}

/* UTF-8 of byte b in GPT-2's alphabet: the printable ones of Latin-1 are themselves, the others follow from U+0100. */
static void alphabet_char(unsigned b, char out[8])
{
    unsigned c = b, extra = 0;

    for (unsigned i = 0; i <= b; i++)
        if (!((i >= 33 && i <= 126) || (i >= 161 && i <= 172) || (i >= 174 && i <= 255)))
            c = i == b ? 256 + extra : c, extra++;
    (void)snprintf(out, 8, c < 0x80 ? "%c" : "%c%c", c < 0x80 ? (int)c : (int)(0xc0 | c >> 6), (int)(0x80 | (c & 0x3f)));
}

void sample_bpe(sluice_buf *out, const sample_bpe_options *o)
{
    vocabulary *v = calloc(1, sizeof *v);
    sluice_gguf_writer w;

    if (v == NULL)
        exit(1);
    add(v, "<|bos|>", 3, 0);
    add(v, "<|eos|>", 3, 0);
    add(v, "<|action|>", 3, 0);
    for (unsigned b = 0; b < 256; b++) {
        alphabet_char(b, v->pool[b]);
        add(v, v->pool[b], 1, 0);
    }
    add_all(v, o->tokens, o->n_tokens);
    sluice_gguf_writer_init(&w, NULL, SAMPLE_BYTES_MAX);
    sluice_gguf_put_string(&w, "general.architecture", "llama");
    put_vocabulary(&w, v, "gpt2");
    if (o->pre != NULL)
        sluice_gguf_put_string(&w, "tokenizer.ggml.pre", o->pre);
    put_strings(&w, "tokenizer.ggml.merges", o->merges, o->n_merges);
    sluice_gguf_put_u32(&w, "tokenizer.ggml.bos_token_id", 0);
    sluice_gguf_put_u32(&w, "tokenizer.ggml.eos_token_id", 1);
    if (o->prompt_format != NULL)
        sluice_gguf_put_string(&w, "sluice.prompt_format", o->prompt_format);
    if (o->chat_template != NULL)
        sluice_gguf_put_string(&w, "tokenizer.chat_template", o->chat_template);
    finish(&w, out);
    free(v);
}

void sample_spm_small(sluice_buf *out)
{
    static const sample_token tokens[] = {
        { "<unk>", 2, 0 },
        { "<s>", 3, 0 },
        { "</s>", 3, 0 },
        { "<0x41>", 6, 0 },
        { "\xe2\x96\x81", 1, -5 },
        { "a", 1, -3 },
        { "b", 1, -4 },
        { "ab", 1, -1 },
        { "\xe2\x96\x81"
          "a",
          1, -2 },
        { "[tool]", 4, 0 },
        { "", 5, 0 },
    };
    static const float f32[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    static const uint8_t f16[12], q8_0[34 * 2] = { 0, 0x3c, 1, 2, 3 };
    vocabulary *v = calloc(1, sizeof *v);
    sluice_gguf_writer w;

    if (v == NULL)
        exit(1);
    add_all(v, tokens, sizeof tokens / sizeof tokens[0]);
    sluice_gguf_writer_init(&w, NULL, SAMPLE_BYTES_MAX);
    sluice_gguf_put_string(&w, "general.architecture", "llama");
    sluice_gguf_put_u32(&w, "general.alignment", 32);
    sluice_gguf_put_u32(&w, "a.u32", 4000000000u);
    sluice_gguf_put_i32(&w, "a.i32", -7);
    sluice_gguf_put_f32(&w, "a.f32", 0.5f);
    sluice_gguf_put_bool(&w, "a.bool", true);
    sluice_gguf_put_raw(&w, SLUICE_SPAN_LIT("a.u8"), SLUICE_GGUF_U8, SLUICE_SPAN_LIT("\xff"));
    sluice_gguf_put_raw(&w, SLUICE_SPAN_LIT("a.i8"), SLUICE_GGUF_I8, SLUICE_SPAN_LIT("\xff"));
    sluice_gguf_put_raw(&w, SLUICE_SPAN_LIT("a.u16"), SLUICE_GGUF_U16, SLUICE_SPAN_LIT("\xff\xff"));
    sluice_gguf_put_raw(&w, SLUICE_SPAN_LIT("a.i16"), SLUICE_GGUF_I16, SLUICE_SPAN_LIT("\xff\xff"));
    sluice_gguf_put_raw(&w, SLUICE_SPAN_LIT("a.u64"), SLUICE_GGUF_U64, SLUICE_SPAN_LIT("\0\0\0\0\1\0\0\0"));
    sluice_gguf_put_raw(&w, SLUICE_SPAN_LIT("a.i64"), SLUICE_GGUF_I64, SLUICE_SPAN_LIT("\xfe\xff\xff\xff\xff\xff\xff\xff"));
    sluice_gguf_put_raw(&w, SLUICE_SPAN_LIT("a.f64"), SLUICE_GGUF_F64, SLUICE_SPAN_LIT("\0\0\0\0\0\0\xe0\x3f"));
    put_vocabulary(&w, v, "llama");
    sluice_gguf_put_u32(&w, "tokenizer.ggml.bos_token_id", 1);
    sluice_gguf_put_u32(&w, "tokenizer.ggml.eos_token_id", 2);
    sluice_gguf_put_u32(&w, "tokenizer.ggml.unknown_token_id", 0);
    sluice_gguf_put_bool(&w, "tokenizer.ggml.add_bos_token", true);
    sluice_gguf_put_bool(&w, "tokenizer.ggml.add_space_prefix", true);
    sluice_gguf_put_tensor(&w, "f32", SLUICE_TENSOR_F32, 1, (uint64_t[]){ 8 }, f32, sizeof f32);
    sluice_gguf_put_tensor(&w, "f16", SLUICE_TENSOR_F16, 3, (uint64_t[]){ 3, 2, 1 }, f16, sizeof f16);
    sluice_gguf_put_tensor(&w, "q8_0", SLUICE_TENSOR_Q8_0, 2, (uint64_t[]){ 32, 2 }, q8_0, sizeof q8_0);
    finish(&w, out);
    free(v);
}

void sample_bpe_small(sluice_buf *out)
{
    static const sample_token tokens[] = {
        { "<|bos|>", 3, 0 },
        { "<|eos|>", 3, 0 },
        { "<|action|>", 3, 0 },
        { "a", 1, 0 },
        { "b", 1, 0 },
        { "c", 1, 0 },
        { "\xc4\xa0", 1, 0 },
        { "ab", 1, 0 },
        { "abc", 1, 0 },
        { "\xc4\xa0"
          "a",
          1, 0 },
        { "[x]", 4, 0 },
    };
    static const char *const merges[] = { "a b", "ab c", "\xc4\xa0 a" };
    vocabulary *v = calloc(1, sizeof *v);
    sluice_gguf_writer w;

    if (v == NULL)
        exit(1);
    add_all(v, tokens, sizeof tokens / sizeof tokens[0]);
    sluice_gguf_writer_init(&w, NULL, SAMPLE_BYTES_MAX);
    sluice_gguf_put_string(&w, "general.architecture", "llama");
    put_vocabulary(&w, v, "gpt2");
    sluice_gguf_put_string(&w, "tokenizer.ggml.pre", "gpt-2");
    put_strings(&w, "tokenizer.ggml.merges", merges, sizeof merges / sizeof merges[0]);
    sluice_gguf_put_u32(&w, "tokenizer.ggml.bos_token_id", 0);
    sluice_gguf_put_u32(&w, "tokenizer.ggml.eos_token_id", 1);
    sluice_gguf_put_u32(&w, "tokenizer.ggml.eot_token_id", 1);
    sluice_gguf_put_string(&w, "sluice.prompt_format", "intent-action/1");
    finish(&w, out);
    free(v);
}
