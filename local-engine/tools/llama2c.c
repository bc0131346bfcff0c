/* llama2c.c - llama2.c's float32 checkpoint ("version 0") and tokenizer.bin to GGUF.
 *
 * The checkpoint is a header of seven int32 (dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len; a negative
 * vocab_size says that the classifier has weights of its own), then every kind of tensor for all layers together:
 *
 *   token_embd  attn_norm*  wq*  wk*  wv*  wo*  ffn_norm*  w1*  w2*  w3*  norm  (two RoPE tables, unused)  [wcls]       * n_layers
 *
 * Both formats rotate neighbouring pairs, so nothing is permuted.  tokenizer.bin is max_length int32, then { score f32, length int32, bytes } for
 * each token, with spaces as spaces: U+2581 is put back.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/tools/llama2c.h"

#include <inttypes.h>
#include <stdio.h>

#include "local-engine/tools/gguf_write.h"
#include "local-engine/tools/quantize.h"

enum { HEADER_BYTES = 28, SIZE_MAX_ALLOWED = 1 << 20, FILE_BYTES_MAX = 1 << 30, TOKEN_BYTES_MAX = 256 };

typedef struct checkpoint {
    uint32_t dim, hidden, n_layers, n_heads, n_kv_heads, n_vocab, n_context;
    bool has_classifier;
    sluice_span data; /* what follows the header and has not been taken yet */
} checkpoint;

typedef struct converter {
    checkpoint c;
    sluice_gguf_writer w;
    sluice_tensor_type type;
    const sluice_allocator *al;
    sluice_error *err;
} converter;

static uint32_t load_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static sluice_status read_header(checkpoint *c, sluice_span model, sluice_error *err)
{
    uint32_t v[7];

    if (model.len < HEADER_BYTES)
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "llama2.c: a file of %zu bytes has no room for the header", model.len);
    for (size_t i = 0; i < 7; i++)
        v[i] = load_u32(model.ptr + 4 * i);
    c->has_classifier = (int32_t)v[5] < 0;
    if (c->has_classifier)
        v[5] = (uint32_t)0 - v[5];
    for (size_t i = 0; i < 7; i++)
        if (v[i] == 0 || v[i] > SIZE_MAX_ALLOWED)
            return sluice_error_set(err, SLUICE_ERR_FORMAT, "llama2.c: the header's number %zu is %" PRIu32, i, v[i]);
    *c = (checkpoint){
        v[0], v[1], v[2], v[3], v[4], v[5], v[6], c->has_classifier, sluice_span_of(model.ptr + HEADER_BYTES, model.len - HEADER_BYTES)
    };
    if (c->dim % c->n_heads != 0 || c->n_heads % c->n_kv_heads != 0)
        return sluice_error_set(err, SLUICE_ERR_FORMAT,
                                "llama2.c: %" PRIu32 " dimensions, %" PRIu32 " heads and %" PRIu32 " KV heads do not go together", c->dim, c->n_heads,
                                c->n_kv_heads);
    return SLUICE_OK;
}

/* The next n floats of the checkpoint. */
static sluice_status take(converter *k, uint64_t n, sluice_span *out)
{
    if (n > k->c.data.len / sizeof(float))
        return sluice_error_set(k->err, SLUICE_ERR_FORMAT, "llama2.c: the checkpoint ends before its weights do");
    *out = sluice_span_of(k->c.data.ptr, (size_t)n * sizeof(float));
    k->c.data.ptr += out->len;
    k->c.data.len -= out->len;
    return SLUICE_OK;
}

/* One tensor, rows of `cols`; rows 0 makes it a vector. */
static sluice_status write_tensor(converter *k, const char *name, sluice_span data, uint64_t cols, uint64_t rows)
{
    sluice_tensor_type type = rows == 0 ? SLUICE_TENSOR_F32 : k->type;
    uint64_t ne[2] = { cols, rows }, bytes = 0;
    size_t n = data.len / sizeof(float);
    sluice_error e = SLUICE_ERROR_INIT;
    sluice_status st = SLUICE_ERR_NO_MEMORY;
    uint8_t *out;
    float *in;

    if (!sluice_tensor_row_bytes(type, cols, &bytes))
        type = SLUICE_TENSOR_F16;
    if (!sluice_tensor_row_bytes(type, n, &bytes))
        return sluice_error_set(k->err, SLUICE_ERR_STATE, "llama2.c: no size for \"%s\"", name);
    in = sluice_alloc(k->al, data.len); /* a copy: the span need not be aligned */
    out = sluice_alloc(k->al, (size_t)bytes);
    if (in != NULL && out != NULL) {
        memcpy(in, data.ptr, data.len);
        st = sluice_quantize_row((uint32_t)type, in, n, NULL, out, &e);
        if (st == SLUICE_OK)
            sluice_gguf_put_tensor(&k->w, name, (uint32_t)type, rows == 0 ? 1 : 2, ne, out, (size_t)bytes);
    }
    sluice_free(k->al, in, data.len);
    sluice_free(k->al, out, (size_t)bytes);
    if (st == SLUICE_ERR_NO_MEMORY)
        return sluice_error_set(k->err, st, "llama2.c: no memory for \"%s\"", name);
    return st == SLUICE_OK ? st : sluice_error_set(k->err, st, "llama2.c: \"%s\": %s", name, e.message);
}

static sluice_status convert_one(converter *k, const char *name, uint64_t cols, uint64_t rows)
{
    sluice_span data = SLUICE_SPAN_EMPTY;
    sluice_status st = take(k, cols * (rows != 0 ? rows : 1), &data);

    return st == SLUICE_OK ? write_tensor(k, name, data, cols, rows) : st;
}

static sluice_status convert_layers(converter *k, const char *name, uint64_t cols, uint64_t rows)
{
    sluice_status st = SLUICE_OK;

    for (uint32_t i = 0; i < k->c.n_layers && st == SLUICE_OK; i++) {
        char text[64];

        (void)snprintf(text, sizeof text, "blk.%" PRIu32 ".%s.weight", i, name);
        st = convert_one(k, text, cols, rows);
    }
    return st;
}

static sluice_status convert_weights(converter *k)
{
    const checkpoint *c = &k->c;
    uint64_t dim = c->dim, kv_dim = (uint64_t)c->dim / c->n_heads * c->n_kv_heads, hidden = c->hidden;
    const struct {
        const char *name;
        uint64_t cols, rows;
    } layers[] = {
        { "attn_norm", dim, 0 }, { "attn_q", dim, dim },      { "attn_k", dim, kv_dim },   { "attn_v", dim, kv_dim }, { "attn_output", dim, dim },
        { "ffn_norm", dim, 0 },  { "ffn_gate", dim, hidden }, { "ffn_down", hidden, dim }, { "ffn_up", dim, hidden },
    };
    sluice_span unused = SLUICE_SPAN_EMPTY;
    sluice_status st = convert_one(k, "token_embd.weight", dim, c->n_vocab);

    for (size_t i = 0; i < sizeof layers / sizeof layers[0] && st == SLUICE_OK; i++)
        st = convert_layers(k, layers[i].name, layers[i].cols, layers[i].rows);
    if (st == SLUICE_OK)
        st = convert_one(k, "output_norm.weight", dim, 0);
    if (st == SLUICE_OK)
        st = take(k, (uint64_t)c->n_context * (dim / c->n_heads), &unused); /* cosines and sines, half each */
    if (st == SLUICE_OK && c->has_classifier)
        st = convert_one(k, "output.weight", dim, c->n_vocab);
    if (st == SLUICE_OK && k->c.data.len != 0)
        st = sluice_error_set(k->err, SLUICE_ERR_FORMAT, "llama2.c: %zu bytes after the weights", k->c.data.len);
    return st;
}

/* ---- tokenizer ------------------------------------------------------------------------------------------ */

static bool is_byte_token(sluice_span s)
{
    return s.len == 6 && memcmp(s.ptr, "<0x", 3) == 0 && s.ptr[5] == '>';
}

/* One token as GGUF writes it, appended to `text`; its type number. */
static int32_t convert_token(uint32_t i, sluice_span s, sluice_buf *text, bool *ok)
{
    static const char *const special[] = { "<unk>", "<s>", "</s>" };

    if (i < 3) {
        *ok = *ok && sluice_buf_append_str(text, special[i]);
        return i == 0 ? 2 : 3;
    }
    for (size_t j = 0; j < s.len; j++)
        *ok = *ok && (s.ptr[j] == ' ' ? sluice_buf_append_str(text, "\xe2\x96\x81") : sluice_buf_append_byte(text, s.ptr[j]));
    return is_byte_token(s) ? 6 : 1;
}

typedef struct vocabulary {
    float *scores;
    int32_t *types;
    sluice_span *tokens;
    size_t *ends; /* in text */
    sluice_buf text;
} vocabulary;

static sluice_status read_vocabulary(vocabulary *v, sluice_span file, uint32_t n, sluice_error *err)
{
    uint64_t at = 4;
    bool ok = true;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t len;

        if (file.len < at || file.len - at < 8)
            return sluice_error_set(err, SLUICE_ERR_FORMAT, "llama2.c: the tokenizer ends at token %" PRIu32 " of %" PRIu32, i, n);
        memcpy(&v->scores[i], file.ptr + at, sizeof v->scores[i]);
        len = load_u32(file.ptr + at + 4);
        at += 8;
        if (len > TOKEN_BYTES_MAX || len > file.len - at)
            return sluice_error_set(err, SLUICE_ERR_FORMAT, "llama2.c: token %" PRIu32 " has %" PRIu32 " bytes", i, len);
        v->types[i] = convert_token(i, sluice_span_of(file.ptr + at, len), &v->text, &ok);
        v->ends[i] = v->text.len;
        at += len;
    }
    if (!ok)
        return sluice_buf_error(&v->text, "the vocabulary", err);
    for (uint32_t i = 0; i < n; i++) {
        size_t begin = i > 0 ? v->ends[i - 1] : 0;

        v->tokens[i] = sluice_span_of(v->text.ptr + begin, v->ends[i] - begin);
    }
    return SLUICE_OK;
}

static sluice_status convert_vocabulary(converter *k, sluice_span file)
{
    uint32_t n = k->c.n_vocab;
    vocabulary v = { sluice_alloc_array(k->al, n, sizeof *v.scores),
                     sluice_alloc_array(k->al, n, sizeof *v.types),
                     sluice_alloc_array(k->al, n, sizeof *v.tokens),
                     sluice_alloc_array(k->al, n, sizeof *v.ends),
                     { 0 } };
    sluice_status st;

    sluice_buf_init(&v.text, k->al, FILE_BYTES_MAX);
    if (v.scores == NULL || v.types == NULL || v.tokens == NULL || v.ends == NULL)
        st = sluice_error_set(k->err, SLUICE_ERR_NO_MEMORY, "llama2.c: no memory for %" PRIu32 " tokens", n);
    else
        st = read_vocabulary(&v, file, n, k->err);
    if (st == SLUICE_OK) {
        sluice_gguf_put_string(&k->w, "tokenizer.ggml.model", "llama");
        sluice_gguf_put_strings(&k->w, "tokenizer.ggml.tokens", v.tokens, n);
        sluice_gguf_put_f32s(&k->w, "tokenizer.ggml.scores", v.scores, n);
        sluice_gguf_put_i32s(&k->w, "tokenizer.ggml.token_type", v.types, n);
        sluice_gguf_put_u32(&k->w, "tokenizer.ggml.unknown_token_id", 0);
        sluice_gguf_put_u32(&k->w, "tokenizer.ggml.bos_token_id", 1);
        sluice_gguf_put_u32(&k->w, "tokenizer.ggml.eos_token_id", 2);
    }
    sluice_free(k->al, v.scores, n * sizeof *v.scores);
    sluice_free(k->al, v.types, n * sizeof *v.types);
    sluice_free(k->al, v.tokens, n * sizeof *v.tokens);
    sluice_free(k->al, v.ends, n * sizeof *v.ends);
    sluice_buf_deinit(&v.text);
    return st;
}

static uint32_t file_type(sluice_tensor_type type) /* general.file_type numbers most types otherwise */
{
    return type == SLUICE_TENSOR_Q8_0 ? 7 : (uint32_t)type;
}

static void write_head(converter *k, const char *name)
{
    const checkpoint *c = &k->c;

    sluice_gguf_put_string(&k->w, "general.architecture", "llama");
    sluice_gguf_put_string(&k->w, "general.name", name);
    sluice_gguf_put_u32(&k->w, "general.file_type", file_type(k->type));
    sluice_gguf_put_u32(&k->w, "llama.context_length", c->n_context);
    sluice_gguf_put_u32(&k->w, "llama.embedding_length", c->dim);
    sluice_gguf_put_u32(&k->w, "llama.block_count", c->n_layers);
    sluice_gguf_put_u32(&k->w, "llama.feed_forward_length", c->hidden);
    sluice_gguf_put_u32(&k->w, "llama.attention.head_count", c->n_heads);
    sluice_gguf_put_u32(&k->w, "llama.attention.head_count_kv", c->n_kv_heads);
    sluice_gguf_put_f32(&k->w, "llama.attention.layer_norm_rms_epsilon", 1e-5f); /* fixed in llama2.c */
    sluice_gguf_put_f32(&k->w, "llama.rope.freq_base", 10000.0f);                /* likewise */
    sluice_gguf_put_u32(&k->w, "llama.rope.dimension_count", c->dim / c->n_heads);
    sluice_gguf_put_u32(&k->w, "llama.vocab_size", c->n_vocab);
}

sluice_status sluice_convert_llama2c(sluice_span model, sluice_span tokenizer, const char *name, sluice_tensor_type type, const sluice_allocator *al,
                                     sluice_buf *out, sluice_error *err)
{
    converter k = { .type = type, .al = al, .err = err };
    sluice_status st = read_header(&k.c, model, err);

    if (st != SLUICE_OK)
        return st;
    sluice_gguf_writer_init(&k.w, al, FILE_BYTES_MAX);
    write_head(&k, name);
    st = convert_vocabulary(&k, tokenizer);
    if (st == SLUICE_OK)
        st = convert_weights(&k);
    if (st == SLUICE_OK && !sluice_gguf_writer_finish(&k.w, out))
        st = sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "llama2.c: no memory for the file, or larger than %d bytes", FILE_BYTES_MAX);
    sluice_gguf_writer_deinit(&k.w);
    return st;
}
