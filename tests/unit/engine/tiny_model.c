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

/* ---- families */

typedef struct family {
    const char *name;
    tiny_model differs;         /* what is not 0 here replaces the default */
} family;

static const family families[] = {
    { "llama", { .arch = "llama" } },
    { "llama3", { .arch = "llama", .has_rope_factors = true, .rope_base = 500000 } },
    { "linear", { .arch = "llama", .rope_scaling = "linear", .rope_factor = 4 } },
    { "yarn", { .arch = "llama", .rope_scaling = "yarn", .rope_factor = 4, .rope_context = 32 } },
    { "mistral", { .arch = "llama", .window = 4096, .rope_base = 1000000, .has_output = true } },
    { "smollm3", { .arch = "smollm3", .n_layer = 5 } },
    { "qwen2", { .arch = "qwen2", .has_bias = true } },
    { "qwen3", { .arch = "qwen3", .has_qk_norm = true, .head_dim = 32 } },
    { "gemma2", { .arch = "gemma2", .n_layer = 4, .has_post_norm = true, .window = 9, .attention_cap = 50, .logit_cap = 30 } },
    { "gemma3", { .arch = "gemma3", .n_layer = 7, .has_post_norm = true, .has_qk_norm = true, .head_dim = 32, .window = 9,
                  .rope_base = 1000000, .rope_scaling = "linear", .rope_factor = 8 } },
    { "phi3", { .arch = "phi3", .has_fused_qkv = true, .has_fused_gate = true, .has_output = true, .has_long_rope = true, .rope_context = 4096,
                .rope_magnitude = 1.19f } },
    { "phi3-long", { .arch = "phi3", .has_fused_qkv = true, .has_fused_gate = true, .has_output = true, .has_long_rope = true, .rope_context = 32,
                     .rope_magnitude = 1.19f, .n_rot = 12 } },
    { "mixtral", { .arch = "llama", .n_expert = 4, .n_expert_used = 2, .has_output = true } },
    { "qwen3moe", { .arch = "qwen3moe", .has_qk_norm = true, .n_expert = 8, .n_expert_used = 3, .head_dim = 32 } },
    { "bert", { .arch = "bert", .is_encoder = true, .is_ungated = true, .has_positions = true, .has_bias = true, .n_head_kv = 4, .pooling = 2 } },
    { "nomic-bert", { .arch = "nomic-bert", .is_encoder = true, .has_fused_qkv = true, .n_head_kv = 4, .rope_base = 1000, .pooling = 1 } },
};

const char *tiny_model_family_name(size_t i)
{
    return i < sizeof families / sizeof families[0] ? families[i].name : NULL;
}

bool tiny_model_family(const char *name, bool is_wide, tiny_model *out)
{
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (strcmp(families[i].name, name) == 0) {
            const tiny_model standard = tiny_model_default();

            *out = families[i].differs;
            out->type = standard.type;
            out->seed = standard.seed;
            out->n_layer = out->n_layer > 0 ? out->n_layer : standard.n_layer;
            out->n_head_kv = out->n_head_kv > 0 ? out->n_head_kv : standard.n_head_kv;
            out->head_dim = out->head_dim > 0 ? out->head_dim : standard.head_dim;
            out->n_embd = standard.n_embd;
            out->n_head = standard.n_head;
            out->n_ff = standard.n_ff;
            out->n_vocab = standard.n_vocab;
            out->n_context = standard.n_context;
            if (is_wide) {
                out->n_embd *= 4;
                out->head_dim *= 4;
                out->n_rot *= 4;
                out->n_ff = 512;
                out->n_vocab = 512;
                out->n_context = 4096;
                out->window *= 8;
                out->rope_context *= 8;
            }
            return true;
        }
    return false;
}

/* ---- writing */

typedef struct writing {
    const tiny_model *m;
    sluice_gguf_writer w;
    uint64_t state;
} writing;

static void must(bool holds, const char *what)
{
    if (holds)
        return;
    (void)fprintf(stderr, "tiny model: %s\n", what);
    abort();
}

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

static const char *key_of(const writing *x, const char *name)
{
    static char key[96];

    (void)snprintf(key, sizeof key, "%s.%s", x->m->arch, name);
    return key;
}

static void put_u32(writing *x, const char *name, uint32_t value)
{
    const char *key = key_of(x, name);

    if (!is_named(x->m->absent, key))
        sluice_gguf_put_u32(&x->w, key, is_named(x->m->key, key) ? x->m->value : value);
}

/* As put_u32, for what only some models have. */
static void put_size(writing *x, const char *name, uint32_t value)
{
    if (value > 0 || is_named(x->m->key, key_of(x, name)))
        put_u32(x, name, value);
}

static void put_number(writing *x, const char *name, float value)
{
    if (value > 0)
        sluice_gguf_put_f32(&x->w, key_of(x, name), is_named(x->m->key, key_of(x, name)) ? -1.0f : value);
}

/* Deviation `size` around `middle`. */
static void put_tensors(writing *x, const char *name, sluice_tensor_type type, uint64_t ne0, uint64_t ne1, uint64_t ne2, float middle, float size)
{
    const uint64_t ne[3] = { is_named(x->m->tensor, name) ? x->m->ne0 : ne0, is_named(x->m->tensor, name) ? x->m->ne1 : ne1, ne2 };
    const size_t n = (size_t)(ne[0] * ne[1]);
    const bool is_read_back = x->m->is_read_back && type != SLUICE_TENSOR_F32;
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
    bytes = malloc((size_t)(row_bytes * ne[1] * ne2) + 1);
    must(values != NULL && bytes != NULL, "no memory");
    for (uint64_t e = 0; e < ne2; e++) {
        const bool is_poisoned = is_named(x->m->poisoned, name) && (x->m->poisoned_experts == 0 || (x->m->poisoned_experts >> e & 1));
        uint8_t *out = bytes + e * row_bytes * ne[1];

        for (size_t i = 0; i < n; i++)
            values[i] = middle + size * next_float(&x->state);
        if (type == SLUICE_TENSOR_F32)
            memcpy(out, values, n * sizeof *values);
        else
            for (uint64_t r = 0; r < ne[1]; r++)
                sluice_quantize(type, values + r * ne[0], (size_t)ne[0], out + r * row_bytes);
        if (is_poisoned)
            memset(out, 0xff, (size_t)(row_bytes * ne[1])); /* numbers, or scales, that are none */
    }
    if (is_read_back) {
        must(ne2 == 1 && sluice_dequantize_row((uint32_t)type, bytes, n, values), "it cannot be read back");
        sluice_gguf_put_tensor(&x->w, name, SLUICE_TENSOR_F32, ne1 == 1 ? 1 : 2, ne, values, n * sizeof *values);
    } else
        sluice_gguf_put_tensor(&x->w, name, (uint32_t)type, ne2 > 1 ? 3 : ne1 == 1 ? 1 : 2, ne, bytes, (size_t)(row_bytes * ne[1] * ne2));
    free(values);
    free(bytes);
}

static void put_tensor(writing *x, const char *name, sluice_tensor_type type, uint64_t ne0, uint64_t ne1, float middle, float size)
{
    put_tensors(x, name, type, ne0, ne1, 1, middle, size);
}

static void put_norm(writing *x, const char *name, uint64_t n)
{
    put_tensor(x, name, SLUICE_TENSOR_F32, n, 1, 1, 0.1f);
}

static void put_bias(writing *x, const char *name, uint64_t n)
{
    put_tensor(x, name, SLUICE_TENSOR_F32, n, 1, 0, 0.3f);
}

static const char *name_in(uint32_t layer, const char *suffix)
{
    static char name[64];

    (void)snprintf(name, sizeof name, "blk.%u.%s", layer, suffix);
    return name;
}

static void put_attention(writing *x, uint32_t i)
{
    const tiny_model *m = x->m;
    const uint32_t q_dim = m->n_head * m->head_dim, kv_dim = m->n_head_kv * m->head_dim;
    const float in = 1 / sqrtf((float)m->n_embd);

    if (!m->is_encoder)
        put_norm(x, name_in(i, "attn_norm.weight"), m->n_embd);
    if (m->has_fused_qkv)
        put_tensor(x, name_in(i, "attn_qkv.weight"), m->type, m->n_embd, q_dim + 2 * kv_dim, 0, 1.5f * in);
    else {
        put_tensor(x, name_in(i, "attn_q.weight"), m->type, m->n_embd, q_dim, 0, 2 * in);
        put_tensor(x, name_in(i, "attn_k.weight"), m->type, m->n_embd, kv_dim, 0, 2 * in);
        put_tensor(x, name_in(i, "attn_v.weight"), m->type, m->n_embd, kv_dim, 0, in);
    }
    put_tensor(x, name_in(i, "attn_output.weight"), m->type, q_dim, m->n_embd, 0, in);
    if (m->has_bias) {
        put_bias(x, name_in(i, "attn_q.bias"), q_dim);
        put_bias(x, name_in(i, "attn_k.bias"), kv_dim);
        put_bias(x, name_in(i, "attn_v.bias"), kv_dim);
    }
    if (m->has_qk_norm) {
        put_norm(x, name_in(i, "attn_q_norm.weight"), m->head_dim);
        put_norm(x, name_in(i, "attn_k_norm.weight"), m->head_dim);
    }
    if (m->has_post_norm)
        put_norm(x, name_in(i, "post_attention_norm.weight"), m->n_embd);
    if (m->is_encoder) {
        if (m->has_bias)
            put_bias(x, name_in(i, "attn_output.bias"), m->n_embd);
        put_norm(x, name_in(i, "attn_output_norm.weight"), m->n_embd);
        put_bias(x, name_in(i, "attn_output_norm.bias"), m->n_embd);
    }
}

static void put_experts(writing *x, uint32_t i)
{
    const tiny_model *m = x->m;
    const float in = 1 / sqrtf((float)m->n_embd);

    put_tensor(x, name_in(i, "ffn_gate_inp.weight"), SLUICE_TENSOR_F32, m->n_embd, m->n_expert, 0, 4 * in);
    put_tensors(x, name_in(i, "ffn_gate_exps.weight"), m->type, m->n_embd, m->n_ff, m->n_expert, 0, in);
    put_tensors(x, name_in(i, "ffn_down_exps.weight"), m->type, m->n_ff, m->n_embd, m->n_expert, 0, in);
    put_tensors(x, name_in(i, "ffn_up_exps.weight"), m->type, m->n_embd, m->n_ff, m->n_expert, 0, in);
}

static void put_feed_forward(writing *x, uint32_t i)
{
    const tiny_model *m = x->m;
    const float in = 1 / sqrtf((float)m->n_embd);

    if (!m->is_encoder)
        put_norm(x, name_in(i, "ffn_norm.weight"), m->n_embd);
    if (m->n_expert > 0)
        put_experts(x, i);
    else {
        if (!m->has_fused_gate && !m->is_ungated)
            put_tensor(x, name_in(i, "ffn_gate.weight"), m->type, m->n_embd, m->n_ff, 0, in);
        put_tensor(x, name_in(i, "ffn_up.weight"), m->type, m->n_embd, m->has_fused_gate ? 2 * m->n_ff : m->n_ff, 0, in);
        put_tensor(x, name_in(i, "ffn_down.weight"), m->type, m->n_ff, m->n_embd, 0, in);
    }
    if (m->has_post_norm)
        put_norm(x, name_in(i, "post_ffw_norm.weight"), m->n_embd);
    if (m->is_encoder) {
        if (m->has_bias) {
            put_bias(x, name_in(i, "ffn_up.bias"), m->n_ff);
            put_bias(x, name_in(i, "ffn_down.bias"), m->n_embd);
        }
        put_norm(x, name_in(i, "layer_output_norm.weight"), m->n_embd);
        put_bias(x, name_in(i, "layer_output_norm.bias"), m->n_embd);
    }
}

static void put_probe(writing *x)
{
    float weights[1024];
    const float bias = 0.25f;
    const uint64_t ne[2] = { x->m->n_embd, 1 }, one[2] = { 1, 1 };

    must(x->m->n_embd <= 1024, "a probe on wide states");
    for (uint32_t i = 0; i < x->m->n_embd; i++)
        weights[i] = (float)((int)(i * 37 % 101) - 50) / 400.0f;
    if (x->m->has_probe) {
        sluice_gguf_put_f32s(&x->w, "sluice.probe.weight", weights, x->m->n_embd);
        sluice_gguf_put_f32(&x->w, "sluice.probe.bias", bias);
    }
    if (x->m->has_probe_tensor) {
        sluice_gguf_put_tensor(&x->w, "sluice.probe.weight", SLUICE_TENSOR_F32, 1, ne, weights, x->m->n_embd * sizeof weights[0]);
        sluice_gguf_put_tensor(&x->w, "sluice.probe.bias", SLUICE_TENSOR_F32, 1, one, &bias, sizeof bias);
    }
}

static void put_vocabulary(writing *x)
{
    enum { MAX = 1024 };
    static char text[MAX][16];
    static sluice_span items[MAX];
    static float scores[MAX];
    static int32_t types[MAX];
    const uint32_t n = x->m->n_vocab;

    must(n <= MAX, "a vocabulary of another size");
    if (n < 259)
        return; /* a graph without text */
    for (uint32_t i = 0; i < n; i++) {
        static const char *const first[3] = { "<unk>", "<s>", "</s>" };

        if (i < 3)
            (void)snprintf(text[i], sizeof text[i], "%s", first[i]);
        else if (i < 259)
            (void)snprintf(text[i], sizeof text[i], "<0x%02X>", i - 3);
        else if (i < 259 + 26)
            (void)snprintf(text[i], sizeof text[i], "%c", 'a' + (int)((i - 259 + x->m->vocabulary_shift) % 26));
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
    if (x->m->is_encoder)
        sluice_gguf_put_u32(&x->w, "tokenizer.ggml.token_type_count", 2);
}

static void put_keys(writing *x)
{
    const tiny_model *m = x->m;

    if (!is_named(m->absent, "general.architecture"))
        sluice_gguf_put_string(&x->w, "general.architecture", is_named(m->string_key, "general.architecture") ? m->string_value : m->arch);
    sluice_gguf_put_string(&x->w, "general.name", "tiny");
    put_u32(x, "block_count", m->n_layer);
    put_u32(x, "context_length", m->n_context);
    put_u32(x, "embedding_length", m->n_embd);
    put_u32(x, "feed_forward_length", m->n_ff);
    put_u32(x, "attention.head_count", m->n_head);
    put_u32(x, "attention.head_count_kv", m->n_head_kv);
    put_u32(x, "attention.key_length", m->head_dim);
    put_u32(x, "attention.value_length", m->head_dim);
    if (!m->has_positions)
        put_u32(x, "rope.dimension_count", m->n_rot > 0 ? m->n_rot : m->head_dim);
    put_size(x, "expert_count", m->n_expert);
    put_size(x, "expert_used_count", m->n_expert_used);
    put_size(x, "expert_feed_forward_length", m->n_expert > 0 && strcmp(m->arch, "llama") != 0 ? m->n_ff : 0);
    put_size(x, "attention.sliding_window", m->window);
    put_size(x, "attention.sliding_window_pattern", m->window_pattern);
    put_size(x, "rope.scaling.original_context_length", m->rope_context);
    put_size(x, "pooling_type", m->pooling);
    put_number(x, "rope.freq_base", m->rope_base);
    put_number(x, "rope.scaling.factor", m->rope_factor);
    put_number(x, "rope.scaling.attn_factor", m->rope_magnitude);
    put_number(x, "attn_logit_softcapping", m->attention_cap);
    put_number(x, "final_logit_softcapping", m->logit_cap);
    put_number(x, m->is_encoder ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", 1e-5f);
    if (m->rope_scaling != NULL)
        sluice_gguf_put_string(&x->w, key_of(x, "rope.scaling.type"), m->rope_scaling);
    if (m->is_encoder)
        sluice_gguf_put_bool(&x->w, key_of(x, "attention.causal"), false);
    if (m->key != NULL && strstr(m->key, "vocab_size") != NULL)
        sluice_gguf_put_u32(&x->w, m->key, m->value);
    if (m->string_key != NULL && strcmp(m->string_key, "general.architecture") != 0)
        sluice_gguf_put_string(&x->w, m->string_key, m->string_value);
    put_vocabulary(x);
    put_probe(x);
}

/* Logits of deviation 2.4; smaller where the embedding is scaled up, and would otherwise drown what the layers add. */
static float embedding_size(const tiny_model *m)
{
    return (m->has_post_norm ? 1.0f : 2.4f) / sqrtf((float)m->n_embd);
}

static void put_shared_tensors(writing *x)
{
    const tiny_model *m = x->m;
    const uint32_t half = (m->n_rot > 0 ? m->n_rot : m->head_dim) / 2;

    if (m->is_encoder) {
        if (m->has_positions)
            put_tensor(x, "position_embd.weight", SLUICE_TENSOR_F32, m->n_embd, m->n_context, 0, 0.2f);
        put_tensor(x, "token_types.weight", SLUICE_TENSOR_F32, m->n_embd, 2, 0, 0.2f);
        put_norm(x, "token_embd_norm.weight", m->n_embd);
        put_bias(x, "token_embd_norm.bias", m->n_embd);
        return;
    }
    put_norm(x, "output_norm.weight", m->n_embd);
    if (m->has_output)
        put_tensor(x, "output.weight", m->type, m->n_embd, m->n_vocab, 0, embedding_size(m));
    if (m->has_rope_factors)
        put_tensor(x, "rope_freqs.weight", SLUICE_TENSOR_F32, half, 1, 4, 0.5f);
    if (m->has_long_rope) {
        put_tensor(x, "rope_factors_long.weight", SLUICE_TENSOR_F32, half, 1, 6, 0.5f);
        put_tensor(x, "rope_factors_short.weight", SLUICE_TENSOR_F32, half, 1, 1.2f, 0.05f);
    }
}

void tiny_model_write(const tiny_model *m, const char *path)
{
    writing x = { .m = m, .state = m->seed };
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_buf file;

    sluice_gguf_writer_init(&x.w, NULL, 256u << 20);
    put_keys(&x);
    put_tensor(&x, "token_embd.weight", m->type, m->n_embd, m->n_vocab, 0, embedding_size(m));
    for (uint32_t i = 0; i < m->n_layer; i++) {
        put_attention(&x, i);
        put_feed_forward(&x, i);
    }
    put_shared_tensors(&x);
    if (m->unknown != NULL)
        put_tensor(&x, m->unknown, SLUICE_TENSOR_F32, 8, 1, 0, 1);
    sluice_buf_init(&file, NULL, 256u << 20);
    must(sluice_gguf_writer_finish(&x.w, &file), "the file cannot be put together");
    must(sluice_platform_write_file(sluice_platform_default(), path, sluice_buf_span(&file), &err) == SLUICE_OK, err.message);
    sluice_buf_deinit(&file);
    sluice_gguf_writer_deinit(&x.w);
}
