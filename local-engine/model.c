/* model.c - reads sizes and tensors of a model, and checks each against the others.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/model.h"

#include <math.h>
#include <stdio.h>

/* ---- architectures */

/* What a row of the table may switch on beside the parts that all have. */
enum {
    HAS_QKV_BIAS = 1u << 0,     /* may have biases of q, k, v and the attention's output */
    HAS_QK_NORM = 1u << 1       /* each head of q and k is normalized before it is rotated */
};

typedef struct architecture {
    const char *name;
    sluice_rope rope;
    unsigned features;
} architecture;

static const architecture architectures[] = {
    { "llama", SLUICE_ROPE_PAIRS, HAS_QKV_BIAS },
    { "qwen2", SLUICE_ROPE_HALVES, HAS_QKV_BIAS },
    { "qwen3", SLUICE_ROPE_HALVES, HAS_QK_NORM },
};

/* A tensor's sizes in terms of the model's. */
typedef enum size_name { ONE, EMBD, Q_DIM, KV_DIM, FF, HEAD_DIM } size_name;

typedef struct tensor_rule {
    const char *name;           /* after "blk.N." */
    size_name cols, rows;
    unsigned feature;           /* 0: every architecture */
    bool is_required;           /* where the architecture has the feature */
} tensor_rule;

static const tensor_rule matrix_rules[SLUICE_LAYER_MATRIX_COUNT] = {
    [SLUICE_ATTN_Q] = { "attn_q.weight", EMBD, Q_DIM, 0, true },
    [SLUICE_ATTN_K] = { "attn_k.weight", EMBD, KV_DIM, 0, true },
    [SLUICE_ATTN_V] = { "attn_v.weight", EMBD, KV_DIM, 0, true },
    [SLUICE_ATTN_OUTPUT] = { "attn_output.weight", Q_DIM, EMBD, 0, true },
    [SLUICE_FFN_GATE] = { "ffn_gate.weight", EMBD, FF, 0, true },
    [SLUICE_FFN_UP] = { "ffn_up.weight", EMBD, FF, 0, true },
    [SLUICE_FFN_DOWN] = { "ffn_down.weight", FF, EMBD, 0, true },
};

static const tensor_rule vector_rules[SLUICE_LAYER_VECTOR_COUNT] = {
    [SLUICE_ATTN_NORM] = { "attn_norm.weight", EMBD, ONE, 0, true },
    [SLUICE_FFN_NORM] = { "ffn_norm.weight", EMBD, ONE, 0, true },
    [SLUICE_ATTN_Q_BIAS] = { "attn_q.bias", Q_DIM, ONE, HAS_QKV_BIAS, false },
    [SLUICE_ATTN_K_BIAS] = { "attn_k.bias", KV_DIM, ONE, HAS_QKV_BIAS, false },
    [SLUICE_ATTN_V_BIAS] = { "attn_v.bias", KV_DIM, ONE, HAS_QKV_BIAS, false },
    [SLUICE_ATTN_OUTPUT_BIAS] = { "attn_output.bias", EMBD, ONE, HAS_QKV_BIAS, false },
    [SLUICE_ATTN_Q_NORM] = { "attn_q_norm.weight", HEAD_DIM, ONE, HAS_QK_NORM, true },
    [SLUICE_ATTN_K_NORM] = { "attn_k_norm.weight", HEAD_DIM, ONE, HAS_QK_NORM, true },
};

static uint32_t size_of(const sluice_model *m, size_name name)
{
    switch (name) {
    case ONE: return 1;
    case EMBD: return m->n_embd;
    case Q_DIM: return m->n_head * m->head_dim;
    case KV_DIM: return m->n_head_kv * m->head_dim;
    case FF: return m->n_ff;
    case HEAD_DIM: return m->head_dim;
    }
    return 0;
}

/* ---- metadata */

typedef struct reader {
    const sluice_gguf *g;
    sluice_model *m;
    const architecture *arch;
    size_t n_used;              /* tensors that the graph takes */
    sluice_error *err;
} reader;

enum { KEY_BYTES = 96 };

/* "llama.block_count" for "block_count". */
static const char *key_of(const reader *r, char key[KEY_BYTES], const char *name)
{
    (void)snprintf(key, KEY_BYTES, "%s.%s", r->arch->name, name);
    return key;
}

/* A size in [1, max].  `fallback` > 0 stands in for an absent key. */
static sluice_status read_size(const reader *r, const char *name, uint32_t max, uint32_t fallback, uint32_t *out)
{
    char key[KEY_BYTES];
    uint32_t value = fallback;
    sluice_status st;

    key_of(r, key, name);
    st = fallback > 0 ? sluice_gguf_opt_u32(r->g, key, &value, r->err) : sluice_gguf_get_u32(r->g, key, &value, r->err);
    if (st == SLUICE_ERR_NOT_FOUND)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: the file lacks the key %s", key);
    if (st != SLUICE_OK)
        return st;
    if (value == 0)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: %s is 0", key);
    if (value > max)
        return sluice_error_set(r->err, SLUICE_ERR_LIMIT, "model: %s is %u, of at most %u", key, value, max);
    *out = value;
    return SLUICE_OK;
}

static sluice_status read_positive(const reader *r, const char *name, float fallback, float *out)
{
    char key[KEY_BYTES];
    float value = fallback;
    const sluice_status st = sluice_gguf_opt_f32(r->g, key_of(r, key, name), &value, r->err);

    if (st != SLUICE_OK)
        return st;
    if (!(value > 0))
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: %s is %g, and must be above 0", key, (double)value);
    *out = value;
    return SLUICE_OK;
}

/* How much of a string from the file goes into a message: at most 64 bytes, whole code points, nothing that is not text. */
static int shown_len(sluice_span s)
{
    s.len = s.len < 64 ? s.len : 64;
    s.len = sluice_utf8_whole(s);
    return sluice_utf8_valid(s) ? (int)s.len : 0;
}

static sluice_status read_architecture(reader *r)
{
    sluice_span name;
    sluice_status st = sluice_gguf_get_string(r->g, "general.architecture", &name, r->err);

    if (st == SLUICE_ERR_NOT_FOUND)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: the file lacks the key general.architecture");
    if (st != SLUICE_OK)
        return st;
    for (size_t i = 0; i < sizeof architectures / sizeof architectures[0]; i++)
        if (sluice_span_eq_str(name, architectures[i].name)) {
            r->arch = &architectures[i];
            r->m->architecture = r->arch->name;
            r->m->rope = r->arch->rope;
            return SLUICE_OK;
        }
    st = sluice_error_set(r->err, SLUICE_ERR_UNSUPPORTED, "model: architecture \"%.*s\" is not one of this build's", shown_len(name),
                          (const char *)name.ptr);
    sluice_error_hint(r->err, "it has llama, qwen2 and qwen3");
    return st;
}

/* Stretching positions evenly is supported; the other methods change each frequency by rules of their own. */
static sluice_status read_rope_scaling(reader *r)
{
    char key[KEY_BYTES];
    sluice_span type = sluice_span_str("none");
    float factor = 1;
    sluice_status st;

    r->m->rope_scale = 1;
    st = sluice_gguf_opt_string(r->g, key_of(r, key, "rope.scaling.type"), &type, r->err);
    if (st != SLUICE_OK)
        return st;
    if (sluice_span_eq_str(type, "none"))
        return SLUICE_OK;
    if (!sluice_span_eq_str(type, "linear"))
        return sluice_error_set(r->err, SLUICE_ERR_UNSUPPORTED, "model: %s is \"%.*s\"; this build has none and linear", key,
                                shown_len(type), (const char *)type.ptr);
    st = read_positive(r, "rope.scaling.factor", 1, &factor);
    if (st == SLUICE_OK)
        r->m->rope_scale = 1 / factor;
    return st;
}

static sluice_status read_heads(reader *r)
{
    sluice_model *m = r->m;
    char key[KEY_BYTES];
    uint32_t value_dim;
    sluice_status st;

    st = read_size(r, "attention.head_count", SLUICE_MODEL_MAX_HEADS, 0, &m->n_head);
    if (st == SLUICE_OK)
        st = read_size(r, "attention.head_count_kv", SLUICE_MODEL_MAX_HEADS, m->n_head, &m->n_head_kv);
    if (st != SLUICE_OK)
        return st;
    if (m->n_head % m->n_head_kv != 0)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: %u heads cannot share %u key/value heads evenly", m->n_head, m->n_head_kv);
    if (sluice_gguf_find(r->g, key_of(r, key, "attention.key_length")) == NULL && m->n_embd % m->n_head != 0)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: an embedding of %u cannot be divided into %u heads", m->n_embd, m->n_head);
    st = read_size(r, "attention.key_length", SLUICE_MODEL_MAX_HEAD_DIM, m->n_embd / m->n_head, &m->head_dim);
    if (st == SLUICE_OK)
        st = read_size(r, "attention.value_length", SLUICE_MODEL_MAX_HEAD_DIM, m->head_dim, &value_dim);
    if (st == SLUICE_OK && value_dim != m->head_dim)
        return sluice_error_set(r->err, SLUICE_ERR_UNSUPPORTED, "model: keys of length %u with values of length %u", m->head_dim, value_dim);
    if (st == SLUICE_OK)
        st = read_size(r, "rope.dimension_count", m->head_dim, m->head_dim, &m->n_rot);
    if (st == SLUICE_OK && m->n_rot % 2 != 0)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: RoPE over %u dimensions, an odd number", m->n_rot);
    return st;
}

static sluice_status read_sizes(reader *r)
{
    sluice_model *m = r->m;
    uint32_t n_experts = 0;
    char key[KEY_BYTES];
    sluice_status st;

    st = sluice_gguf_opt_u32(r->g, key_of(r, key, "expert_count"), &n_experts, r->err);
    if (st == SLUICE_OK && n_experts > 0)
        return sluice_error_set(r->err, SLUICE_ERR_UNSUPPORTED, "model: a mixture of %u experts, which this build cannot run", n_experts);
    if (st == SLUICE_OK)
        st = read_size(r, "block_count", SLUICE_MODEL_MAX_LAYERS, 0, &m->n_layer);
    if (st == SLUICE_OK)
        st = read_size(r, "embedding_length", SLUICE_MODEL_MAX_EMBD, 0, &m->n_embd);
    if (st == SLUICE_OK)
        st = read_size(r, "feed_forward_length", SLUICE_MODEL_MAX_FF, 0, &m->n_ff);
    if (st == SLUICE_OK)
        st = read_size(r, "context_length", UINT32_MAX, 0, &m->n_context);
    if (st == SLUICE_OK)
        st = read_heads(r);
    if (st == SLUICE_OK)
        st = read_positive(r, "attention.layer_norm_rms_epsilon", 1e-5f, &m->rms_eps);
    if (st == SLUICE_OK)
        st = read_positive(r, "rope.freq_base", 10000.0f, &m->rope_base);
    if (st == SLUICE_OK)
        st = read_rope_scaling(r);
    return st;
}

/* ---- tensors */

static bool weight_of(uint32_t type, sluice_weight *out)
{
    switch (type) {
    case SLUICE_TENSOR_F32: *out = SLUICE_WEIGHT_F32; return true;
    case SLUICE_TENSOR_F16: *out = SLUICE_WEIGHT_F16; return true;
    case SLUICE_TENSOR_Q8_0: *out = SLUICE_WEIGHT_Q8_0; return true;
    case SLUICE_TENSOR_Q4_0: *out = SLUICE_WEIGHT_Q4_0; return true;
    default: return false;
    }
}

/* The tensor `name`, which must be (cols, rows); *out is NULL for an absent one that is not required. */
static sluice_status take_tensor(reader *r, const char *name, uint64_t cols, uint64_t rows, bool is_required,
                                 const sluice_gguf_tensor **out)
{
    const sluice_gguf_tensor *t;
    sluice_status st;

    *out = NULL;
    if (!is_required && sluice_gguf_tensor_find(r->g, name) == NULL)
        return SLUICE_OK;
    st = sluice_gguf_tensor_get(r->g, name, &t, r->err);
    if (st == SLUICE_ERR_NOT_FOUND)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: the file lacks the tensor %s", name);
    if (st != SLUICE_OK)
        return st;
    if (t->ne[0] != cols || t->ne[1] != rows || t->ne[2] != 1 || t->ne[3] != 1) {
        st = sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: tensor %s is %llu x %llu, and metadata makes it %llu x %llu", name,
                              (unsigned long long)t->ne[0], (unsigned long long)t->ne[1], (unsigned long long)cols, (unsigned long long)rows);
        sluice_error_offset(r->err, t->offset);
        return st;
    }
    r->m->n_params += cols * rows;
    r->n_used++;
    *out = t;
    return SLUICE_OK;
}

static sluice_status take_matrix(reader *r, const char *name, uint32_t cols, uint32_t rows, bool is_required, sluice_matrix *out)
{
    const sluice_gguf_tensor *t;
    sluice_matrix w = { NULL, 0, rows, cols, SLUICE_WEIGHT_F32 };
    const sluice_status st = take_tensor(r, name, cols, rows, is_required, &t);

    if (st != SLUICE_OK || t == NULL)
        return st;
    if (!weight_of(t->type, &w.type))
        return sluice_error_set(r->err, SLUICE_ERR_UNSUPPORTED, "model: tensor %s is %s", name, sluice_tensor_type_name(t->type));
    if (w.type >= SLUICE_WEIGHT_Q8_0 && cols % SLUICE_Q_LEN != 0)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: rows of tensor %s are not a multiple of %d", name, SLUICE_Q_LEN);
    w.row_bytes = sluice_weight_row_bytes(w.type, cols);
    if (t->bytes / w.row_bytes < rows) /* the reader of the file computed it too; a product must not depend on two of them agreeing */
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: tensor %s has %zu bytes, too few for its shape", name, t->bytes);
    w.data = t->data;
    *out = w;
    return SLUICE_OK;
}

static sluice_status take_vector(reader *r, const char *name, uint32_t n, bool is_required, const float **out)
{
    const sluice_gguf_tensor *t;
    const sluice_status st = take_tensor(r, name, n, 1, is_required, &t);

    if (st != SLUICE_OK || t == NULL)
        return st;
    if (t->type != SLUICE_TENSOR_F32)
        return sluice_error_set(r->err, SLUICE_ERR_UNSUPPORTED, "model: tensor %s is %s, and norms and biases must be F32", name,
                                sluice_tensor_type_name(t->type));
    if (t->bytes / sizeof(float) < n || (uintptr_t)t->data % _Alignof(float) != 0)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: tensor %s has %zu bytes, too few or misaligned", name, t->bytes);
    *out = t->data;
    return SLUICE_OK;
}

static sluice_status take_layer(reader *r, uint32_t index)
{
    sluice_model *m = r->m;
    sluice_layer *layer = &m->layers[index];
    char name[64];
    sluice_status st = SLUICE_OK;

    for (size_t i = 0; i < SLUICE_LAYER_MATRIX_COUNT && st == SLUICE_OK; i++) {
        const tensor_rule *rule = &matrix_rules[i];

        (void)snprintf(name, sizeof name, "blk.%u.%s", index, rule->name);
        st = take_matrix(r, name, size_of(m, rule->cols), size_of(m, rule->rows), rule->is_required, &layer->matrix[i]);
    }
    for (size_t i = 0; i < SLUICE_LAYER_VECTOR_COUNT && st == SLUICE_OK; i++) {
        const tensor_rule *rule = &vector_rules[i];

        if (rule->feature != 0 && !(r->arch->features & rule->feature))
            continue;
        (void)snprintf(name, sizeof name, "blk.%u.%s", index, rule->name);
        st = take_vector(r, name, size_of(m, rule->cols), rule->is_required, &layer->vector[i]);
    }
    return st;
}

static sluice_status take_embedding(reader *r)
{
    const sluice_gguf_tensor *t = sluice_gguf_tensor_find(r->g, "token_embd.weight");
    sluice_model *m = r->m;
    uint32_t n_vocab;
    char key[KEY_BYTES];
    sluice_status st;

    if (t == NULL)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: the file lacks the tensor token_embd.weight");
    if (t->ne[1] == 0 || t->ne[1] > INT32_MAX)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: a vocabulary of %llu tokens", (unsigned long long)t->ne[1]);
    m->n_vocab = n_vocab = (uint32_t)t->ne[1];
    st = sluice_gguf_opt_u32(r->g, key_of(r, key, "vocab_size"), &n_vocab, r->err);
    if (st == SLUICE_OK && n_vocab != m->n_vocab)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: %s is %u, and token_embd.weight has %u rows", key, n_vocab, m->n_vocab);
    if (st == SLUICE_OK)
        st = take_matrix(r, "token_embd.weight", m->n_embd, m->n_vocab, true, &m->embedding);
    if (st == SLUICE_OK)
        st = take_vector(r, "output_norm.weight", m->n_embd, true, &m->output_norm);
    if (st == SLUICE_OK)
        st = take_matrix(r, "output.weight", m->n_embd, m->n_vocab, false, &m->output);
    if (st == SLUICE_OK && m->output.data == NULL)
        m->output = m->embedding;
    return st;
}

static sluice_status take_rope_factors(reader *r)
{
    sluice_model *m = r->m;
    const sluice_status st = take_vector(r, "rope_freqs.weight", m->n_rot / 2, false, &m->rope_factors);

    for (uint32_t i = 0; st == SLUICE_OK && m->rope_factors != NULL && i < m->n_rot / 2; i++)
        if (!(m->rope_factors[i] > 0) || isinf(m->rope_factors[i]))
            return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: rope_freqs.weight[%u] is not a positive number", i);
    return st;
}

/* Every tensor of the file must have been taken; name one that was not. */
static sluice_status check_none_left(reader *r)
{
    const size_t n = sluice_gguf_n_tensors(r->g);
    sluice_status st;

    if (n == r->n_used)
        return SLUICE_OK;
    for (size_t i = 0; i < n; i++) {
        const sluice_gguf_tensor *t = sluice_gguf_tensor_at(r->g, i);
        const void *data = t->data;
        bool is_used = data == (const void *)r->m->embedding.data || data == (const void *)r->m->output.data ||
                       data == (const void *)r->m->output_norm || data == (const void *)r->m->rope_factors;

        for (uint32_t l = 0; l < r->m->n_layer && !is_used; l++) {
            for (size_t j = 0; j < SLUICE_LAYER_MATRIX_COUNT; j++)
                is_used = is_used || data == (const void *)r->m->layers[l].matrix[j].data;
            for (size_t j = 0; j < SLUICE_LAYER_VECTOR_COUNT; j++)
                is_used = is_used || data == (const void *)r->m->layers[l].vector[j];
        }
        if (!is_used) {
            st = sluice_error_set(r->err, SLUICE_ERR_UNSUPPORTED, "model: tensor %.*s has no place in architecture %s", shown_len(t->name),
                                  (const char *)t->name.ptr, r->arch->name);
            sluice_error_offset(r->err, t->offset);
            return st;
        }
    }
    return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: %zu tensors share the data of others", n - r->n_used);
}

sluice_status sluice_model_init(sluice_model *out, const sluice_gguf *g, const sluice_allocator *al, sluice_error *err)
{
    reader r = { g, out, NULL, 0, err };
    sluice_status st;

    memset(out, 0, sizeof *out);
    out->al = al;
    st = read_architecture(&r);
    if (st == SLUICE_OK)
        st = read_sizes(&r);
    if (st == SLUICE_OK)
        st = take_embedding(&r);
    if (st == SLUICE_OK)
        st = take_rope_factors(&r);
    if (st == SLUICE_OK) {
        out->layers = sluice_alloc_array(al, out->n_layer, sizeof *out->layers);
        if (out->layers == NULL)
            st = sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "model: the index of %u layers", out->n_layer);
    }
    for (uint32_t i = 0; i < out->n_layer && st == SLUICE_OK; i++)
        st = take_layer(&r, i);
    if (st == SLUICE_OK)
        st = check_none_left(&r);
    if (st != SLUICE_OK) {
        sluice_model_deinit(out);
        memset(out, 0, sizeof *out);
    }
    return st;
}

void sluice_model_deinit(sluice_model *m)
{
    if (m->layers != NULL)
        sluice_free(m->al, m->layers, (size_t)m->n_layer * sizeof *m->layers);
    m->layers = NULL;
}
