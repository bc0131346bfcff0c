/* model.c - reads sizes and tensors of a model, and checks each against the others.
 *
 * Names of keys and tensors, and what they mean, are GGUF's (the specification in ggml's documentation, and what llama.cpp's converters
 * write); the order of operations of each family is that of its published reference.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/model.h"

#include <math.h>
#include <stdio.h>

/* ---- architectures */

/* What a row of the table switches on.  MAY: where the file has it. */
enum {
    PRE_NORM = 1u << 0,         /* norms before attention and feed-forward, and of the last hidden state */
    POST_NORM = 1u << 1,        /* norms of what attention and feed-forward give */
    SUM_NORM = 1u << 2,         /* norms of the sums instead, LayerNorm, the embedding's included */
    MAY_BIAS_QKV = 1u << 3,
    MAY_BIAS_FFN = 1u << 4,
    QK_NORM = 1u << 5,
    GATED = 1u << 6,            /* feed-forward: activation(gate) * up */
    FUSED_GATE = 1u << 7,       /* gate and up are one tensor, ffn_up, gate first */
    MAY_MIX = 1u << 8,          /* experts, where the file counts any */
    ENCODER = 1u << 9,
    POSITIONS = 1u << 10,       /* learned */
    GELU = 1u << 11,
    SCALED_EMBEDDING = 1u << 12,/* by sqrt(n_embd) */
    WINDOW = 1u << 13,          /* attention.sliding_window counts */
    ATTENTION_CAP = 1u << 14,
    LOGIT_CAP = 1u << 15,
    LOCAL_BASE = 1u << 16,      /* layers with a window rotate by a base of their own, unscaled */
    LONG_ROPE = 1u << 17        /* two sets of factors, for short and for long contexts */
};

typedef struct architecture {
    const char *name;
    sluice_rope rope;
    unsigned features;
    uint32_t window;            /* where the file does not say */
    uint32_t local_period;      /* every so manyth layer has no window; 0: all have it */
    uint32_t unrotated_period;  /* every so manyth layer does not rotate */
    uint32_t wide_layers;       /* the family's largest size, known by its layers, scales scores by n_embd / n_head instead of head_dim */
} architecture;

static const architecture architectures[] = {
    { "llama", SLUICE_ROPE_PAIRS, PRE_NORM | GATED | MAY_BIAS_QKV | MAY_MIX | WINDOW, 0, 0, 0, 0 },    /* and Mistral, Mixtral, SmolLM */
    { "smollm3", SLUICE_ROPE_PAIRS, PRE_NORM | GATED | MAY_BIAS_QKV, 0, 0, 4, 0 },
    { "qwen2", SLUICE_ROPE_HALVES, PRE_NORM | GATED | MAY_BIAS_QKV, 0, 0, 0, 0 },
    { "qwen3", SLUICE_ROPE_HALVES, PRE_NORM | GATED | QK_NORM, 0, 0, 0, 0 },
    { "qwen3moe", SLUICE_ROPE_HALVES, PRE_NORM | GATED | QK_NORM | MAY_MIX, 0, 0, 0, 0 },
    { "gemma2", SLUICE_ROPE_HALVES,
      PRE_NORM | POST_NORM | GATED | GELU | SCALED_EMBEDDING | WINDOW | ATTENTION_CAP | LOGIT_CAP, 4096, 2, 0, 46 },
    { "gemma3", SLUICE_ROPE_HALVES,
      PRE_NORM | POST_NORM | QK_NORM | GATED | GELU | SCALED_EMBEDDING | WINDOW | LOGIT_CAP | LOCAL_BASE, 0, 6, 0, 62 },
    /* Phi-3's files name a window, but not which of its layers have it, so llama.cpp goes without, and so does this table. */
    { "phi3", SLUICE_ROPE_HALVES, PRE_NORM | GATED | FUSED_GATE | MAY_BIAS_QKV | LONG_ROPE, 0, 0, 0, 0 },
    { "bert", SLUICE_ROPE_NONE, SUM_NORM | MAY_BIAS_QKV | MAY_BIAS_FFN | ENCODER | POSITIONS | GELU, 0, 0, 0, 0 },
    { "nomic-bert", SLUICE_ROPE_HALVES, SUM_NORM | GATED | MAY_BIAS_QKV | MAY_BIAS_FFN | ENCODER, 0, 0, 0, 0 },
};

enum { N_ARCHITECTURES = sizeof architectures / sizeof architectures[0] };

const char *sluice_model_architecture(size_t i)
{
    return i < N_ARCHITECTURES ? architectures[i].name : NULL;
}

/* A tensor's sizes in terms of the model's. */
typedef enum size_name { ONE, EMBD, Q_DIM, KV_DIM, FF, HEAD_DIM, EXPERTS } size_name;

typedef struct tensor_rule {
    const char *name;           /* after "blk.N." */
    const char *expert_name;    /* where there are experts; NULL: the same */
    size_name cols, rows;
    unsigned feature;           /* any of them; 0: every architecture */
    bool is_required;           /* where the architecture has the feature */
} tensor_rule;

static const tensor_rule matrix_rules[SLUICE_LAYER_MATRIX_COUNT] = {
    [SLUICE_ATTN_Q] = { "attn_q.weight", NULL, EMBD, Q_DIM, 0, true },
    [SLUICE_ATTN_K] = { "attn_k.weight", NULL, EMBD, KV_DIM, 0, true },
    [SLUICE_ATTN_V] = { "attn_v.weight", NULL, EMBD, KV_DIM, 0, true },
    [SLUICE_ATTN_OUTPUT] = { "attn_output.weight", NULL, Q_DIM, EMBD, 0, true },
    [SLUICE_FFN_ROUTER] = { NULL, "ffn_gate_inp.weight", EMBD, EXPERTS, MAY_MIX, true },
    [SLUICE_FFN_GATE] = { "ffn_gate.weight", "ffn_gate_exps.weight", EMBD, FF, GATED, true },
    [SLUICE_FFN_UP] = { "ffn_up.weight", "ffn_up_exps.weight", EMBD, FF, 0, true },
    [SLUICE_FFN_DOWN] = { "ffn_down.weight", "ffn_down_exps.weight", FF, EMBD, 0, true },
};

static const tensor_rule vector_rules[SLUICE_LAYER_VECTOR_COUNT] = {
    [SLUICE_ATTN_NORM] = { "attn_norm.weight", NULL, EMBD, ONE, PRE_NORM, true },
    [SLUICE_FFN_NORM] = { "ffn_norm.weight", NULL, EMBD, ONE, PRE_NORM, true },
    [SLUICE_ATTN_POST_NORM] = { "post_attention_norm.weight", NULL, EMBD, ONE, POST_NORM, true },
    [SLUICE_FFN_POST_NORM] = { "post_ffw_norm.weight", NULL, EMBD, ONE, POST_NORM, true },
    [SLUICE_ATTN_SUM_NORM] = { "attn_output_norm.weight", NULL, EMBD, ONE, SUM_NORM, true },
    [SLUICE_ATTN_SUM_NORM_BIAS] = { "attn_output_norm.bias", NULL, EMBD, ONE, SUM_NORM, true },
    [SLUICE_FFN_SUM_NORM] = { "layer_output_norm.weight", NULL, EMBD, ONE, SUM_NORM, true },
    [SLUICE_FFN_SUM_NORM_BIAS] = { "layer_output_norm.bias", NULL, EMBD, ONE, SUM_NORM, true },
    [SLUICE_ATTN_Q_NORM] = { "attn_q_norm.weight", NULL, HEAD_DIM, ONE, QK_NORM, true },
    [SLUICE_ATTN_K_NORM] = { "attn_k_norm.weight", NULL, HEAD_DIM, ONE, QK_NORM, true },
    [SLUICE_ATTN_Q_BIAS] = { "attn_q.bias", NULL, Q_DIM, ONE, MAY_BIAS_QKV, false },
    [SLUICE_ATTN_K_BIAS] = { "attn_k.bias", NULL, KV_DIM, ONE, MAY_BIAS_QKV, false },
    [SLUICE_ATTN_V_BIAS] = { "attn_v.bias", NULL, KV_DIM, ONE, MAY_BIAS_QKV, false },
    [SLUICE_ATTN_OUTPUT_BIAS] = { "attn_output.bias", NULL, EMBD, ONE, MAY_BIAS_QKV, false },
    [SLUICE_FFN_UP_BIAS] = { "ffn_up.bias", NULL, FF, ONE, MAY_BIAS_FFN, false },
    [SLUICE_FFN_DOWN_BIAS] = { "ffn_down.bias", NULL, EMBD, ONE, MAY_BIAS_FFN, false },
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
    case EXPERTS: return m->n_expert;
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

static bool has(const reader *r, unsigned feature)
{
    return (r->arch->features & feature) != 0;
}

/* "llama.block_count" for "block_count". */
static const char *key_of(const reader *r, char key[KEY_BYTES], const char *name)
{
    (void)snprintf(key, KEY_BYTES, "%s.%s", r->arch->name, name);
    return key;
}

static bool is_said(const reader *r, const char *name)
{
    char key[KEY_BYTES];

    return sluice_gguf_find(r->g, key_of(r, key, name)) != NULL;
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

/* As read_positive, where 0 and an absent key both mean that there is none. */
static sluice_status read_switched(const reader *r, const char *name, float fallback, float *out)
{
    char key[KEY_BYTES];
    float value = fallback;
    const sluice_status st = sluice_gguf_opt_f32(r->g, key_of(r, key, name), &value, r->err);

    if (st != SLUICE_OK)
        return st;
    if (!(value >= 0))
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: %s is %g, and must not be negative", key, (double)value);
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

static sluice_status refuse_architecture(reader *r, sluice_span name)
{
    const sluice_status st = sluice_error_set(r->err, SLUICE_ERR_UNSUPPORTED, "model: architecture \"%.*s\" is not one of this build's",
                                              shown_len(name), (const char *)name.ptr);
    char list[128];
    size_t at = 0;

    for (size_t i = 0; i < N_ARCHITECTURES && at < sizeof list; i++)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i > 0 ? ", " : "", architectures[i].name);
    sluice_error_hint(r->err, "it has %s", list);
    return st;
}

static sluice_status read_architecture(reader *r)
{
    sluice_span name;
    const sluice_status st = sluice_gguf_get_string(r->g, "general.architecture", &name, r->err);

    if (st == SLUICE_ERR_NOT_FOUND)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: the file lacks the key general.architecture");
    if (st != SLUICE_OK)
        return st;
    for (size_t i = 0; i < N_ARCHITECTURES; i++)
        if (sluice_span_eq_str(name, architectures[i].name)) {
            r->arch = &architectures[i];
            r->m->architecture = r->arch->name;
            r->m->rope = r->arch->rope;
            r->m->is_encoder = has(r, ENCODER);
            r->m->has_layer_norm = has(r, SUM_NORM);
            r->m->activation = has(r, GELU) ? SLUICE_GELU : SLUICE_SILU;
            return SLUICE_OK;
        }
    return refuse_architecture(r, name);
}

/* ---- rotation */

/* What stretches positions beyond those of training.  Llama 3's own stretch is not here: its files bring it as factors (rope_freqs.weight). */
static sluice_status read_rope_scaling(reader *r)
{
    sluice_model *m = r->m;
    sluice_rope_angles *angles = &m->angles[SLUICE_ANGLES_GLOBAL];
    char key[KEY_BYTES];
    sluice_span type = sluice_span_str("linear"); /* older files give the factor alone */
    float factor = 0, log_multiplier = 0;
    sluice_status st;

    angles->scale = 1;
    st = sluice_gguf_opt_string(r->g, key_of(r, key, "rope.scaling.type"), &type, r->err);
    if (st == SLUICE_OK && !sluice_span_eq_str(type, "none") && !sluice_span_eq_str(type, "linear") && !sluice_span_eq_str(type, "yarn") &&
        !(sluice_span_eq_str(type, "longrope") && has(r, LONG_ROPE))) {
        st = sluice_error_set(r->err, SLUICE_ERR_UNSUPPORTED, "model: %s is \"%.*s\"", key, shown_len(type), (const char *)type.ptr);
        sluice_error_hint(r->err, "this build has none, linear and yarn, and longrope for phi3");
        return st;
    }
    if (st == SLUICE_OK)
        st = read_switched(r, is_said(r, "rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear", 0, &factor);
    if (st == SLUICE_OK)
        st = read_positive(r, "rope.scaling.attn_factor", 1, &m->rope_magnitude);
    if (st == SLUICE_OK)
        st = read_size(r, "rope.scaling.original_context_length", UINT32_MAX, m->n_context, &m->rope_context);
    if (st == SLUICE_OK)
        st = read_switched(r, "rope.scaling.yarn_log_multiplier", 0, &log_multiplier);
    if (st != SLUICE_OK || sluice_span_eq_str(type, "none"))
        return st;
    if (factor > 0 && (factor < 1e-3f || factor > 1e6f))
        return sluice_error_set(r->err, SLUICE_ERR_LIMIT, "model: positions are scaled by a factor of %g", (double)factor);
    if (factor > 0)
        angles->scale = 1 / factor;
    angles->is_yarn = sluice_span_eq_str(type, "yarn");
    if (angles->is_yarn && log_multiplier > 0)
        return sluice_error_set(r->err, SLUICE_ERR_UNSUPPORTED, "model: YaRN with a multiplier of its own");
    if (angles->is_yarn && factor > 1)
        m->rope_magnitude *= 1 + 0.1f * logf(factor); /* Peng et al. 2023, equation 22 */
    return SLUICE_OK;
}

static sluice_status read_rope(reader *r)
{
    sluice_model *m = r->m;
    sluice_rope_angles *local = &m->angles[SLUICE_ANGLES_LOCAL];
    sluice_status st;

    m->rope_magnitude = 1;
    if (m->rope == SLUICE_ROPE_NONE)
        return SLUICE_OK;
    m->n_angles = 1;
    st = read_size(r, "rope.dimension_count", m->head_dim, m->head_dim, &m->n_rot);
    if (st == SLUICE_OK && m->n_rot % 2 != 0)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: RoPE over %u dimensions, an odd number", m->n_rot);
    if (st == SLUICE_OK)
        st = read_positive(r, "rope.freq_base", 10000.0f, &m->angles[SLUICE_ANGLES_GLOBAL].base);
    if (st == SLUICE_OK)
        st = read_rope_scaling(r);
    if (st != SLUICE_OK || !has(r, LOCAL_BASE))
        return st;
    m->n_angles = 2;
    local->scale = 1;
    return read_positive(r, "rope.freq_base_swa", 10000.0f, &local->base);
}

/* ---- sizes */

static sluice_status read_heads(reader *r)
{
    sluice_model *m = r->m;
    uint32_t value_dim;
    sluice_status st;

    st = read_size(r, "attention.head_count", SLUICE_MODEL_MAX_HEADS, 0, &m->n_head);
    if (st == SLUICE_OK)
        st = read_size(r, "attention.head_count_kv", SLUICE_MODEL_MAX_HEADS, m->n_head, &m->n_head_kv);
    if (st != SLUICE_OK)
        return st;
    if (m->n_head % m->n_head_kv != 0)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: %u heads cannot share %u key/value heads evenly", m->n_head, m->n_head_kv);
    if (!is_said(r, "attention.key_length") && m->n_embd % m->n_head != 0)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: an embedding of %u cannot be divided into %u heads", m->n_embd, m->n_head);
    st = read_size(r, "attention.key_length", SLUICE_MODEL_MAX_HEAD_DIM, m->n_embd / m->n_head, &m->head_dim);
    if (st == SLUICE_OK)
        st = read_size(r, "attention.value_length", SLUICE_MODEL_MAX_HEAD_DIM, m->head_dim, &value_dim);
    if (st == SLUICE_OK && value_dim != m->head_dim)
        return sluice_error_set(r->err, SLUICE_ERR_UNSUPPORTED, "model: keys of length %u with values of length %u", m->head_dim, value_dim);
    if (st == SLUICE_OK)
        m->attention_scale = 1 / sqrtf((float)(m->n_layer == r->arch->wide_layers ? m->n_embd / m->n_head : m->head_dim));
    if (st == SLUICE_OK && !(m->attention_scale > 0 && m->attention_scale <= 1))
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: %u heads for an embedding of %u", m->n_head, m->n_embd);
    return st;
}

static sluice_status read_experts(reader *r)
{
    sluice_model *m = r->m;
    char key[KEY_BYTES];
    float scale = 0;
    sluice_status st = sluice_gguf_opt_u32(r->g, key_of(r, key, "expert_count"), &m->n_expert, r->err);
    uint32_t gating = 1;

    if (st != SLUICE_OK || m->n_expert == 0)
        return st;
    if (!has(r, MAY_MIX))
        return sluice_error_set(r->err, SLUICE_ERR_UNSUPPORTED, "model: a mixture of %u experts in architecture %s", m->n_expert, r->arch->name);
    st = read_size(r, "expert_count", SLUICE_MODEL_MAX_EXPERTS, 0, &m->n_expert);
    if (st == SLUICE_OK)
        st = read_size(r, "expert_used_count", SLUICE_MODEL_MAX_EXPERTS_USED, 0, &m->n_expert_used);
    if (st == SLUICE_OK && m->n_expert_used > m->n_expert)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: %u experts used of %u", m->n_expert_used, m->n_expert);
    if (st == SLUICE_OK)
        st = sluice_gguf_opt_u32(r->g, key_of(r, key, "expert_gating_func"), &gating, r->err);
    if (st == SLUICE_OK && gating != 1) /* 1: softmax */
        return sluice_error_set(r->err, SLUICE_ERR_UNSUPPORTED, "model: %s is %u; this build has softmax, 1", key, gating);
    if (st == SLUICE_OK)
        st = read_size(r, "expert_feed_forward_length", SLUICE_MODEL_MAX_FF, m->n_ff, &m->n_ff);
    if (st == SLUICE_OK)
        st = read_switched(r, "expert_weights_scale", 0, &scale);
    m->expert_scale = scale > 0 ? scale : 1;
    return st;
}

static sluice_status read_caps(reader *r)
{
    sluice_status st = SLUICE_OK;

    if (has(r, ATTENTION_CAP))
        st = read_switched(r, "attn_logit_softcapping", 50, &r->m->attention_cap);
    if (st == SLUICE_OK && has(r, LOGIT_CAP))
        st = read_switched(r, "final_logit_softcapping", has(r, ATTENTION_CAP) ? 30 : 0, &r->m->logit_cap);
    return st;
}

static sluice_status read_pooling(reader *r)
{
    char key[KEY_BYTES];
    uint32_t pooling = SLUICE_POOLING_MEAN;
    bool is_causal = !has(r, ENCODER);
    sluice_status st = sluice_gguf_opt_u32(r->g, key_of(r, key, "pooling_type"), &pooling, r->err);

    if (st == SLUICE_OK && pooling > SLUICE_POOLING_LAST)
        return sluice_error_set(r->err, SLUICE_ERR_UNSUPPORTED, "model: %s is %u; this build has mean, first and last, 1 to 3", key, pooling);
    r->m->pooling = pooling == 0 ? SLUICE_POOLING_MEAN : (sluice_pooling)pooling; /* 0: a vector for each token, and we give one for the text */
    if (st == SLUICE_OK)
        st = sluice_gguf_opt_bool(r->g, key_of(r, key, "attention.causal"), &is_causal, r->err);
    if (st == SLUICE_OK && is_causal == has(r, ENCODER))
        return sluice_error_set(r->err, SLUICE_ERR_UNSUPPORTED, "model: %s is %s in architecture %s", key, is_causal ? "true" : "false",
                                r->arch->name);
    return st;
}

static sluice_status read_sizes(reader *r)
{
    sluice_model *m = r->m;
    sluice_status st;

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
        st = read_experts(r);
    if (st == SLUICE_OK)
        st = has(r, SUM_NORM) ? read_positive(r, "attention.layer_norm_epsilon", 1e-12f, &m->norm_eps)
                              : read_positive(r, "attention.layer_norm_rms_epsilon", 1e-5f, &m->norm_eps);
    if (st == SLUICE_OK)
        st = read_rope(r);
    if (st == SLUICE_OK)
        st = read_caps(r);
    if (st == SLUICE_OK)
        st = read_pooling(r);
    m->embedding_scale = has(r, SCALED_EMBEDDING) ? sqrtf((float)m->n_embd) : 1;
    return st;
}

/* Which layers see a window alone, and by which angles each rotates. */
static sluice_status read_layer_kinds(reader *r)
{
    sluice_model *m = r->m;
    uint32_t window = r->arch->window, period = r->arch->local_period;
    char key[KEY_BYTES];
    sluice_status st = SLUICE_OK;

    if (has(r, WINDOW))
        st = sluice_gguf_opt_u32(r->g, key_of(r, key, "attention.sliding_window"), &window, r->err);
    if (st == SLUICE_OK && has(r, WINDOW) && period > 0)
        st = sluice_gguf_opt_u32(r->g, key_of(r, key, "attention.sliding_window_pattern"), &period, r->err);
    for (uint32_t i = 0; st == SLUICE_OK && i < m->n_layer; i++) {
        const bool is_local = window > 0 && (period == 0 || i % period < period - 1);
        const bool is_rotated = m->rope != SLUICE_ROPE_NONE && (r->arch->unrotated_period == 0 || (i + 1) % r->arch->unrotated_period != 0);

        m->layers[i].window = is_local ? window : 0;
        m->layers[i].angles = (uint8_t)(!is_rotated ? SLUICE_ANGLES_NONE : is_local && m->n_angles > 1 ? SLUICE_ANGLES_LOCAL : SLUICE_ANGLES_GLOBAL);
    }
    return st;
}

/* ---- tensors */

static bool weight_of(uint32_t type, sluice_weight *out)
{
    switch (type) {
    case SLUICE_TENSOR_F32: *out = SLUICE_WEIGHT_F32; return true;
    case SLUICE_TENSOR_F16: *out = SLUICE_WEIGHT_F16; return true;
    case SLUICE_TENSOR_BF16: *out = SLUICE_WEIGHT_BF16; return true;
    case SLUICE_TENSOR_Q8_0: *out = SLUICE_WEIGHT_Q8_0; return true;
    case SLUICE_TENSOR_Q4_0: *out = SLUICE_WEIGHT_Q4_0; return true;
    case SLUICE_TENSOR_Q4_1: *out = SLUICE_WEIGHT_Q4_1; return true;
    case SLUICE_TENSOR_Q5_0: *out = SLUICE_WEIGHT_Q5_0; return true;
    case SLUICE_TENSOR_Q5_1: *out = SLUICE_WEIGHT_Q5_1; return true;
    case SLUICE_TENSOR_Q2_K: *out = SLUICE_WEIGHT_Q2_K; return true;
    case SLUICE_TENSOR_Q3_K: *out = SLUICE_WEIGHT_Q3_K; return true;
    case SLUICE_TENSOR_Q4_K: *out = SLUICE_WEIGHT_Q4_K; return true;
    case SLUICE_TENSOR_Q5_K: *out = SLUICE_WEIGHT_Q5_K; return true;
    case SLUICE_TENSOR_Q6_K: *out = SLUICE_WEIGHT_Q6_K; return true;
    case SLUICE_TENSOR_IQ4_NL: *out = SLUICE_WEIGHT_IQ4_NL; return true;
    case SLUICE_TENSOR_IQ4_XS: *out = SLUICE_WEIGHT_IQ4_XS; return true;
    case SLUICE_TENSOR_MXFP4: *out = SLUICE_WEIGHT_MXFP4; return true;
    default: return false;
    }
}

/* The tensor `name`, which must be (cols, rows, n); *out is NULL for an absent one that is not required. */
static sluice_status take_tensor(reader *r, const char *name, uint64_t cols, uint64_t rows, uint64_t n, bool is_required,
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
    if (t->ne[0] != cols || t->ne[1] != rows || t->ne[2] != n || t->ne[3] != 1) {
        st = sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: tensor %s is %llu x %llu x %llu, and metadata makes it %llu x %llu x %llu", name,
                              (unsigned long long)t->ne[0], (unsigned long long)t->ne[1], (unsigned long long)t->ne[2],
                              (unsigned long long)cols, (unsigned long long)rows, (unsigned long long)n);
        sluice_error_offset(r->err, t->offset);
        return st;
    }
    r->m->n_params += cols * rows * n;
    r->n_used++;
    *out = t;
    return SLUICE_OK;
}

static sluice_status take_matrices(reader *r, const char *name, uint32_t cols, uint32_t rows, uint32_t n, bool is_required, sluice_matrix *out)
{
    const sluice_gguf_tensor *t;
    sluice_matrix w = { .rows = rows, .cols = cols };
    const sluice_status st = take_tensor(r, name, cols, rows, n, is_required, &t);

    if (st != SLUICE_OK || t == NULL)
        return st;
    if (!weight_of(t->type, &w.type))
        return sluice_error_set(r->err, SLUICE_ERR_UNSUPPORTED, "model: tensor %s is %s", name, sluice_tensor_type_name(t->type));
    if (cols % sluice_weight_table[w.type].block_len != 0)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: rows of tensor %s are not a multiple of %d", name,
                                sluice_weight_table[w.type].block_len);
    w.row_bytes = sluice_weight_row_bytes(w.type, cols);
    if (t->bytes / w.row_bytes / rows < n) /* the reader of the file computed it too; a product must not depend on two of them agreeing */
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: tensor %s has %zu bytes, too few for its shape", name, t->bytes);
    w.expert_bytes = n > 1 ? rows * w.row_bytes : 0;
    w.data = t->data;
    w.name = t->name;
    *out = w;
    return SLUICE_OK;
}

static sluice_status take_matrix(reader *r, const char *name, uint32_t cols, uint32_t rows, bool is_required, sluice_matrix *out)
{
    return take_matrices(r, name, cols, rows, 1, is_required, out);
}

static sluice_status take_vector(reader *r, const char *name, uint32_t n, bool is_required, const float **out)
{
    const sluice_gguf_tensor *t;
    const sluice_status st = take_tensor(r, name, n, 1, 1, is_required, &t);

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

/* `rows` rows of `whole` from `first` on. */
static sluice_matrix part_of(const sluice_matrix *whole, uint32_t first, uint32_t rows)
{
    sluice_matrix part = *whole;

    part.data = whole->data + first * whole->row_bytes;
    part.rows = rows;
    return part;
}

enum { NAME_BYTES = 64 };

static const char *name_in(char name[NAME_BYTES], uint32_t layer, const char *suffix)
{
    (void)snprintf(name, NAME_BYTES, "blk.%u.%s", layer, suffix);
    return name;
}

/* q, k and v in one tensor, in this order: any architecture's converter may write them so. */
static sluice_status take_fused_qkv(reader *r, uint32_t index)
{
    sluice_layer *layer = &r->m->layers[index];
    const uint32_t q_dim = size_of(r->m, Q_DIM), kv_dim = size_of(r->m, KV_DIM);
    const float *bias = NULL;
    sluice_matrix whole = { 0 };
    char name[NAME_BYTES];
    sluice_status st;

    st = take_matrix(r, name_in(name, index, "attn_qkv.weight"), r->m->n_embd, q_dim + 2 * kv_dim, true, &whole);
    if (st == SLUICE_OK && has(r, MAY_BIAS_QKV))
        st = take_vector(r, name_in(name, index, "attn_qkv.bias"), q_dim + 2 * kv_dim, false, &bias);
    if (st != SLUICE_OK)
        return st;
    layer->matrix[SLUICE_ATTN_Q] = part_of(&whole, 0, q_dim);
    layer->matrix[SLUICE_ATTN_K] = part_of(&whole, q_dim, kv_dim);
    layer->matrix[SLUICE_ATTN_V] = part_of(&whole, q_dim + kv_dim, kv_dim);
    if (bias != NULL) {
        layer->vector[SLUICE_ATTN_Q_BIAS] = bias;
        layer->vector[SLUICE_ATTN_K_BIAS] = bias + q_dim;
        layer->vector[SLUICE_ATTN_V_BIAS] = bias + q_dim + kv_dim;
    }
    return SLUICE_OK;
}

static sluice_status take_fused_gate(reader *r, uint32_t index)
{
    sluice_layer *layer = &r->m->layers[index];
    sluice_matrix whole = { 0 };
    char name[NAME_BYTES];
    const sluice_status st = take_matrix(r, name_in(name, index, "ffn_up.weight"), r->m->n_embd, 2 * r->m->n_ff, true, &whole);

    if (st != SLUICE_OK)
        return st;
    layer->matrix[SLUICE_FFN_GATE] = part_of(&whole, 0, r->m->n_ff);
    layer->matrix[SLUICE_FFN_UP] = part_of(&whole, r->m->n_ff, r->m->n_ff);
    return SLUICE_OK;
}

static sluice_status take_layer_matrix(reader *r, uint32_t index, sluice_layer_matrix which)
{
    const tensor_rule *rule = &matrix_rules[which];
    sluice_model *m = r->m;
    const bool is_mixed = m->n_expert > 0 && rule->expert_name != NULL;
    const uint32_t n = is_mixed && which != SLUICE_FFN_ROUTER ? m->n_expert : 1;
    char name[NAME_BYTES];

    if ((rule->name == NULL && !is_mixed) || (rule->feature != 0 && !has(r, rule->feature)))
        return SLUICE_OK;
    name_in(name, index, is_mixed ? rule->expert_name : rule->name);
    return take_matrices(r, name, size_of(m, rule->cols), size_of(m, rule->rows), n, rule->is_required, &m->layers[index].matrix[which]);
}

static sluice_status take_layer(reader *r, uint32_t index)
{
    sluice_model *m = r->m;
    sluice_layer *layer = &m->layers[index];
    char name[NAME_BYTES];
    sluice_status st = SLUICE_OK;

    if (sluice_gguf_tensor_find(r->g, name_in(name, index, "attn_qkv.weight")) != NULL)
        st = take_fused_qkv(r, index);
    if (st == SLUICE_OK && has(r, FUSED_GATE))
        st = take_fused_gate(r, index);
    for (int i = 0; i < SLUICE_LAYER_MATRIX_COUNT && st == SLUICE_OK; i++)
        if (layer->matrix[i].data == NULL)
            st = take_layer_matrix(r, index, (sluice_layer_matrix)i);
    for (size_t i = 0; i < SLUICE_LAYER_VECTOR_COUNT && st == SLUICE_OK; i++) {
        const tensor_rule *rule = &vector_rules[i];

        if (has(r, rule->feature) && layer->vector[i] == NULL)
            st = take_vector(r, name_in(name, index, rule->name), size_of(m, rule->cols), rule->is_required, &layer->vector[i]);
    }
    return st;
}

static sluice_status take_token_types(reader *r)
{
    const sluice_gguf_tensor *t = sluice_gguf_tensor_find(r->g, "token_types.weight");

    if (t == NULL)
        return SLUICE_OK;
    if (t->ne[1] == 0 || t->ne[1] > 256)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: %llu token types", (unsigned long long)t->ne[1]);
    return take_matrix(r, "token_types.weight", r->m->n_embd, (uint32_t)t->ne[1], true, &r->m->token_types);
}

/* What is added to an encoder's embedding, and its norm. */
static sluice_status take_encoder_embedding(reader *r)
{
    sluice_model *m = r->m;
    sluice_status st = SLUICE_OK;

    if (has(r, POSITIONS) && m->n_context > SLUICE_MODEL_MAX_CONTEXT)
        return sluice_error_set(r->err, SLUICE_ERR_LIMIT, "model: %u learned positions, of at most %d", m->n_context, SLUICE_MODEL_MAX_CONTEXT);
    if (has(r, POSITIONS))
        st = take_matrix(r, "position_embd.weight", m->n_embd, m->n_context, true, &m->positions);
    if (st == SLUICE_OK)
        st = take_token_types(r);
    if (st == SLUICE_OK)
        st = take_vector(r, "token_embd_norm.weight", m->n_embd, true, &m->embedding_norm);
    if (st == SLUICE_OK)
        st = take_vector(r, "token_embd_norm.bias", m->n_embd, true, &m->embedding_norm_bias);
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
    if (st == SLUICE_OK && has(r, ENCODER))
        return take_encoder_embedding(r);
    if (st == SLUICE_OK)
        st = take_vector(r, "output_norm.weight", m->n_embd, true, &m->output_norm);
    if (st == SLUICE_OK)
        st = take_matrix(r, "output.weight", m->n_embd, m->n_vocab, false, &m->output);
    if (st == SLUICE_OK && m->output.data == NULL)
        m->output = m->embedding;
    return st;
}

static sluice_status take_factors(reader *r, const char *name, bool is_required, const float **out)
{
    sluice_model *m = r->m;
    const sluice_status st = take_vector(r, name, m->n_rot / 2, is_required, out);

    for (uint32_t i = 0; st == SLUICE_OK && *out != NULL && i < m->n_rot / 2; i++)
        if (!((*out)[i] > 0) || isinf((*out)[i]))
            return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "model: %s[%u] is not a positive number", name, i);
    return st;
}

static sluice_status take_rope_factors(reader *r)
{
    sluice_model *m = r->m;
    sluice_status st;

    if (m->rope == SLUICE_ROPE_NONE)
        return SLUICE_OK;
    if (!has(r, LONG_ROPE))
        return take_factors(r, "rope_freqs.weight", false, &m->rope_factors);
    st = take_factors(r, "rope_factors_long.weight", false, &m->rope_factors_long);
    return st == SLUICE_OK ? take_factors(r, "rope_factors_short.weight", m->rope_factors_long != NULL, &m->rope_factors) : st;
}

/* What the engine reads beside the graph: a logistic unit on the last hidden state. */
static sluice_status take_probe(reader *r)
{
    const sluice_status st = take_vector(r, "sluice.probe.weight", r->m->n_embd, false, &r->m->probe);

    return st == SLUICE_OK ? take_vector(r, "sluice.probe.bias", 1, false, &r->m->probe_bias) : st;
}

static bool layer_uses(const sluice_layer *layer, const void *data)
{
    for (size_t i = 0; i < SLUICE_LAYER_MATRIX_COUNT; i++)
        if (data == (const void *)layer->matrix[i].data)
            return true;
    for (size_t i = 0; i < SLUICE_LAYER_VECTOR_COUNT; i++)
        if (data == (const void *)layer->vector[i])
            return true;
    return false;
}

static bool model_uses(const sluice_model *m, const void *data)
{
    const void *const shared[] = { m->embedding.data, m->positions.data, m->token_types.data, m->embedding_norm, m->embedding_norm_bias,
                                   m->output.data, m->output_norm, m->rope_factors, m->rope_factors_long, m->probe, m->probe_bias };

    for (size_t i = 0; i < sizeof shared / sizeof shared[0]; i++)
        if (data == shared[i])
            return true;
    for (uint32_t l = 0; l < m->n_layer; l++)
        if (layer_uses(&m->layers[l], data))
            return true;
    return false;
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

        if (!model_uses(r->m, t->data)) {
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
    out->file = sluice_gguf_bytes(g);
    st = read_architecture(&r);
    if (st == SLUICE_OK)
        st = read_sizes(&r);
    if (st == SLUICE_OK)
        st = take_embedding(&r);
    if (st == SLUICE_OK)
        st = take_rope_factors(&r);
    if (st == SLUICE_OK)
        st = take_probe(&r);
    if (st == SLUICE_OK) {
        out->layers = sluice_alloc_zeroed(al, (size_t)out->n_layer * sizeof *out->layers);
        if (out->layers == NULL)
            st = sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "model: the index of %u layers", out->n_layer);
    }
    if (st == SLUICE_OK)
        st = read_layer_kinds(&r);
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
