/* tiny_model.c - writes them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/unit/engine/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "local-engine/tools/gguf_write.h"
#include "local-engine/tools/quantize.h"
#include "tests/support/cm.h"

tiny_model tiny_model_default(void)
{
    tiny_model m;

    memset(&m, 0, sizeof m);
    m.arch = "llama";
    m.type = SLUICE_TENSOR_F32;
    m.n_layer = 2;
    m.n_embd = 64;
    m.n_head = 4;
    m.n_head_kv = 2;
    m.head_dim = 16;
    m.n_ff = 96;
    m.n_vocab = 300;
    m.n_context = 128;
    m.seed = 1;
    return m;
}

typedef struct writing {
    const tiny_model *m;
    sluice_gguf_writer w;
    uint64_t state;
} writing;

static float next_float(uint64_t *state) /* about normal, deviation 1 */
{
    float sum = 0;

    for (int i = 0; i < 6; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(*state >> 40) / 16777216.0f - 0.5f;
    }
    return sum * 1.4142135f;
}

static bool is_named(const char *which, const char *name)
{
    return which != NULL && strcmp(which, name) == 0;
}

static void put_u32(writing *x, const char *name, uint32_t value)
{
    char key[80];

    (void)snprintf(key, sizeof key, "%s.%s", x->m->arch, name);
    if (!is_named(x->m->absent, key))
        sluice_gguf_put_u32(&x->w, key, is_named(x->m->key, key) ? x->m->value : value);
}

/* Deviation `size` around `middle`. */
static void put_tensor(writing *x, const char *name, sluice_tensor_type type, uint64_t ne0, uint64_t ne1, float middle, float size)
{
    const uint64_t ne[2] = { is_named(x->m->tensor, name) ? x->m->ne0 : ne0, is_named(x->m->tensor, name) ? x->m->ne1 : ne1 };
    const size_t n = (size_t)(ne[0] * ne[1]);
    uint64_t row_bytes;
    float *values;
    uint8_t *bytes;

    if (is_named(x->m->absent, name))
        return;
    if (!sluice_tensor_row_bytes((uint32_t)type, ne[0], &row_bytes)) {
        type = SLUICE_TENSOR_F16; /* rows that are no whole blocks */
        row_bytes = 2 * ne[0];
    }
    values = malloc((n + 1) * sizeof *values);
    bytes = malloc((size_t)(row_bytes * ne[1]) + 1);
    assert_non_null(values);
    assert_non_null(bytes);
    for (size_t i = 0; i < n; i++)
        values[i] = is_named(x->m->poisoned, name) ? NAN : middle + size * next_float(&x->state);
    if (type == SLUICE_TENSOR_F32)
        memcpy(bytes, values, n * sizeof *values);
    else
        sluice_quantize(type, values, n, bytes);
    if (is_named(x->m->poisoned, name) && (type == SLUICE_TENSOR_Q8_0 || type == SLUICE_TENSOR_Q4_0))
        memset(bytes, 0xff, (size_t)(row_bytes * ne[1])); /* scales that are no numbers */
    sluice_gguf_put_tensor(&x->w, name, (uint32_t)type, ne1 == 1 ? 1 : 2, ne, bytes, (size_t)(row_bytes * ne[1]));
    free(values);
    free(bytes);
}

static void put_layer(writing *x, uint32_t index)
{
    const tiny_model *m = x->m;
    const uint32_t q_dim = m->n_head * m->head_dim, kv_dim = m->n_head_kv * m->head_dim;
    const float in = 1 / sqrtf((float)m->n_embd);
    char name[64];

#define NAME(suffix) ((void)snprintf(name, sizeof name, "blk.%u.%s", index, suffix), name)
    put_tensor(x, NAME("attn_norm.weight"), SLUICE_TENSOR_F32, m->n_embd, 1, 1, 0.1f);
    put_tensor(x, NAME("attn_q.weight"), m->type, m->n_embd, q_dim, 0, 2 * in);
    put_tensor(x, NAME("attn_k.weight"), m->type, m->n_embd, kv_dim, 0, 2 * in);
    put_tensor(x, NAME("attn_v.weight"), m->type, m->n_embd, kv_dim, 0, in);
    put_tensor(x, NAME("attn_output.weight"), m->type, q_dim, m->n_embd, 0, in);
    put_tensor(x, NAME("ffn_norm.weight"), SLUICE_TENSOR_F32, m->n_embd, 1, 1, 0.1f);
    put_tensor(x, NAME("ffn_gate.weight"), m->type, m->n_embd, m->n_ff, 0, in);
    put_tensor(x, NAME("ffn_up.weight"), m->type, m->n_embd, m->n_ff, 0, in);
    put_tensor(x, NAME("ffn_down.weight"), m->type, m->n_ff, m->n_embd, 0, in);
    if (m->has_bias) {
        put_tensor(x, NAME("attn_q.bias"), SLUICE_TENSOR_F32, q_dim, 1, 0, 0.3f);
        put_tensor(x, NAME("attn_k.bias"), SLUICE_TENSOR_F32, kv_dim, 1, 0, 0.3f);
        put_tensor(x, NAME("attn_v.bias"), SLUICE_TENSOR_F32, kv_dim, 1, 0, 0.3f);
    }
    if (m->has_qk_norm) {
        put_tensor(x, NAME("attn_q_norm.weight"), SLUICE_TENSOR_F32, m->head_dim, 1, 1, 0.1f);
        put_tensor(x, NAME("attn_k_norm.weight"), SLUICE_TENSOR_F32, m->head_dim, 1, 1, 0.1f);
    }
#undef NAME
}

static void put_vocabulary(writing *x)
{
    enum { MAX = 1024 };
    static char text[MAX][16];
    static sluice_span items[MAX];
    static float scores[MAX];
    static int32_t types[MAX];
    const uint32_t n = x->m->n_vocab;

    assert_in_range(n, 259, MAX);
    for (uint32_t i = 0; i < n; i++) {
        static const char *const first[3] = { "<unk>", "<s>", "</s>" };

        if (i < 3)
            (void)snprintf(text[i], sizeof text[i], "%s", first[i]);
        else if (i < 259)
            (void)snprintf(text[i], sizeof text[i], "<0x%02X>", i - 3);
        else if (i < 259 + 26)
            (void)snprintf(text[i], sizeof text[i], "%c", 'a' + (int)(i - 259));
        else
            (void)snprintf(text[i], sizeof text[i], "word%u", i);
        items[i] = sluice_span_str(text[i]);
        scores[i] = -(float)i;
        types[i] = i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1; /* unknown, control, byte, normal */
    }
    sluice_gguf_put_string(&x->w, "tokenizer.ggml.model", "llama");
    sluice_gguf_put_strings(&x->w, "tokenizer.ggml.tokens", items, n);
    sluice_gguf_put_f32s(&x->w, "tokenizer.ggml.scores", scores, n);
    sluice_gguf_put_i32s(&x->w, "tokenizer.ggml.token_type", types, n);
    sluice_gguf_put_u32(&x->w, "tokenizer.ggml.bos_token_id", 1);
    sluice_gguf_put_u32(&x->w, "tokenizer.ggml.eos_token_id", 2);
}

void tiny_model_write(const tiny_model *m, const char *path)
{
    writing x = { .m = m, .state = m->seed };
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_buf file;
    char key[80];

    sluice_gguf_writer_init(&x.w, NULL, 64u << 20);
    if (!is_named(m->absent, "general.architecture"))
        sluice_gguf_put_string(&x.w, "general.architecture", is_named(m->string_key, "general.architecture") ? m->string_value : m->arch);
    sluice_gguf_put_string(&x.w, "general.name", "tiny");
    put_u32(&x, "block_count", m->n_layer);
    put_u32(&x, "context_length", m->n_context);
    put_u32(&x, "embedding_length", m->n_embd);
    put_u32(&x, "feed_forward_length", m->n_ff);
    put_u32(&x, "attention.head_count", m->n_head);
    put_u32(&x, "attention.head_count_kv", m->n_head_kv);
    put_u32(&x, "attention.key_length", m->head_dim);
    put_u32(&x, "attention.value_length", m->head_dim);
    put_u32(&x, "rope.dimension_count", m->head_dim);
    if (m->key != NULL && (strstr(m->key, "expert_count") != NULL || strstr(m->key, "vocab_size") != NULL))
        sluice_gguf_put_u32(&x.w, m->key, m->value);
    if (m->string_key != NULL && strcmp(m->string_key, "general.architecture") != 0)
        sluice_gguf_put_string(&x.w, m->string_key, m->string_value);
    (void)snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", m->arch);
    sluice_gguf_put_f32(&x.w, key, is_named(m->key, key) ? -1.0f : 1e-5f);
    put_vocabulary(&x);
    put_tensor(&x, "token_embd.weight", m->type, m->n_embd, m->n_vocab, 0, 0.3f);
    for (uint32_t i = 0; i < m->n_layer; i++)
        put_layer(&x, i);
    put_tensor(&x, "output_norm.weight", SLUICE_TENSOR_F32, m->n_embd, 1, 1, 0.1f);
    if (m->has_output)
        put_tensor(&x, "output.weight", m->type, m->n_embd, m->n_vocab, 0, 0.3f);
    if (m->has_rope_factors)
        put_tensor(&x, "rope_freqs.weight", SLUICE_TENSOR_F32, m->head_dim / 2, 1, 4, 0.5f);
    if (m->unknown != NULL)
        put_tensor(&x, m->unknown, SLUICE_TENSOR_F32, 8, 1, 0, 1);
    sluice_buf_init(&file, NULL, 64u << 20);
    assert_true(sluice_gguf_writer_finish(&x.w, &file));
    assert_int_equal(sluice_platform_write_file(sluice_platform_default(), path, sluice_buf_span(&file), &err), SLUICE_OK);
    sluice_buf_deinit(&file);
    sluice_gguf_writer_deinit(&x.w);
}
