/* mix.c - which tensor of a model gets which type.
 *
 * A file called Q4_K_M is not all Q4_K: the tensors that hurt most get more bits.  Which ones is a convention that llama.cpp's quantizer set, and what
 * people expect of a name; the tables below say it as data, checked tensor by tensor against files that it made:
 *
 *   output          the logits' matrix, or the embeddings where they serve as that: Q6_K, Q8_0 in files of Q8_0
 *   attn_v          small, shared by a group of heads, and each error in it reaches the output unweighted; also where it is fused with others
 *   ffn_down        its input has the largest outliers; the first and last eighth of the layers and every third between are "important"
 *   attn_output, and with eight experts (Mixtral) attn_k: see the table
 *
 * Rows that are no whole blocks of 256 take a type with blocks of 32 that is not smaller, and rows that are not even that, F16.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/tools/mix.h"

#include <inttypes.h>
#include <stdio.h>

/* When a layer gets the better type. */
typedef enum when {
    NEVER,
    ALWAYS,
    IMPORTANT,    /* the first and last eighth and every third between */
    FIRST_2,      /* layers 0 and 1 */
    FIRST_4,      /* layers 0 to 3 */
    FIRST_8TH,    /* the first eighth */
    FIRST_16TH,   /* the first sixteenth */
    GROUPS_OF_4,  /* at least four heads share a key and value */
    FIRST_8TH_PLAIN,      /* the first eighth, without an importance matrix */
    FIRST_8TH_WITH_MATRIX /* the first eighth, with one */
} when;

typedef struct rule {
    when when;
    uint8_t then, otherwise; /* tensor types; otherwise 0: the kind's own */
} rule;

struct sluice_mix_kind {
    const char *name;
    uint8_t base;
    uint8_t file_type;
    uint8_t output;         /* tensor type of the logits' matrix */
    uint8_t eight_experts;  /* of attn_output in models of eight experts; 0: the base */
    bool only_experts;      /* everything else takes `output` */
    rule attn_v, ffn_down, attn_output;
};

#define T(type) ((uint8_t)SLUICE_TENSOR_##type)
#define NO_RULE { NEVER, 0, 0 }

static const sluice_mix_kind kinds[] = {
    { "F32", T(F32), 0, T(F32), 0, false, NO_RULE, NO_RULE, NO_RULE },
    { "F16", T(F16), 1, T(F16), 0, false, NO_RULE, NO_RULE, NO_RULE },
    { "BF16", T(BF16), 32, T(BF16), 0, false, NO_RULE, NO_RULE, NO_RULE },
    { "Q4_0", T(Q4_0), 2, T(Q6_K), 0, false, NO_RULE, { FIRST_8TH_WITH_MATRIX, T(Q4_1), 0 }, NO_RULE },
    { "Q4_1", T(Q4_1), 3, T(Q6_K), 0, false, NO_RULE, NO_RULE, NO_RULE },
    { "Q5_0", T(Q5_0), 8, T(Q6_K), 0, false, NO_RULE, { FIRST_8TH_WITH_MATRIX, T(Q5_1), 0 }, NO_RULE },
    { "Q5_1", T(Q5_1), 9, T(Q6_K), 0, false, NO_RULE, NO_RULE, NO_RULE },
    { "Q8_0", T(Q8_0), 7, T(Q8_0), 0, false, NO_RULE, NO_RULE, NO_RULE },
    { "Q2_K", T(Q2_K), 10, T(Q6_K), T(Q5_K), false, { GROUPS_OF_4, T(Q4_K), T(Q3_K) }, { ALWAYS, T(Q3_K), 0 }, { ALWAYS, T(Q3_K), 0 } },
    { "Q3_K_S", T(Q3_K), 11, T(Q6_K), T(Q5_K), false, NO_RULE, NO_RULE, NO_RULE },
    { "Q3_K_M", T(Q3_K), 12, T(Q6_K), T(Q5_K), false, { FIRST_2, T(Q5_K), T(Q4_K) }, { FIRST_16TH, T(Q5_K), T(Q4_K) }, { ALWAYS, T(Q4_K), 0 } },
    { "Q3_K_L", T(Q3_K), 13, T(Q6_K), 0, false, { ALWAYS, T(Q5_K), 0 }, { ALWAYS, T(Q5_K), 0 }, { ALWAYS, T(Q5_K), 0 } },
    { "Q4_K_S", T(Q4_K), 14, T(Q6_K), T(Q5_K), false, { FIRST_4, T(Q5_K), 0 }, { FIRST_8TH, T(Q5_K), 0 }, NO_RULE },
    { "Q4_K_M", T(Q4_K), 15, T(Q6_K), T(Q5_K), false, { IMPORTANT, T(Q6_K), 0 }, { IMPORTANT, T(Q6_K), 0 }, NO_RULE },
    { "Q5_K_S", T(Q5_K), 16, T(Q6_K), 0, false, NO_RULE, NO_RULE, NO_RULE },
    { "Q5_K_M", T(Q5_K), 17, T(Q6_K), 0, false, { IMPORTANT, T(Q6_K), 0 }, { IMPORTANT, T(Q6_K), 0 }, NO_RULE },
    { "Q6_K", T(Q6_K), 18, T(Q6_K), 0, false, NO_RULE, NO_RULE, NO_RULE },
    { "IQ4_NL", T(IQ4_NL), 25, T(Q6_K), T(Q5_K), false, { GROUPS_OF_4, T(Q5_K), 0 }, { FIRST_8TH_PLAIN, T(Q5_K), 0 }, NO_RULE },
    { "IQ4_XS", T(IQ4_XS), 30, T(Q6_K), T(Q5_K), false, { GROUPS_OF_4, T(Q5_K), 0 }, { FIRST_8TH_PLAIN, T(Q5_K), 0 }, NO_RULE },
    { "MXFP4", T(MXFP4), 38, T(Q8_0), 0, false, NO_RULE, NO_RULE, NO_RULE },
    { "MXFP4_MOE", T(MXFP4), 38, T(Q8_0), 0, true, NO_RULE, NO_RULE, NO_RULE },
};

enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

const char *sluice_mix_names(void)
{
    return "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K_S, Q3_K_M, Q3_K_L, Q4_K_S, Q4_K_M, Q5_K_S, Q5_K_M, Q6_K, IQ4_NL, IQ4_XS, MXFP4, "
           "MXFP4_MOE";
}

static bool same_name(const char *a, const char *b)
{
    for (; *a != '\0' && *b != '\0'; a++, b++)
        if ((*a >= 'a' && *a <= 'z' ? *a - 'a' + 'A' : *a) != *b)
            return false;
    return *a == *b;
}

const sluice_mix_kind *sluice_mix_find(const char *name)
{
    static const struct { const char *alias, *name; } aliases[] = { { "Q3_K", "Q3_K_M" }, { "Q4_K", "Q4_K_M" }, { "Q5_K", "Q5_K_M" } };

    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++)
        if (same_name(name, aliases[i].alias))
            name = aliases[i].name;
    for (size_t i = 0; i < N_KINDS; i++)
        if (same_name(name, kinds[i].name))
            return &kinds[i];
    return NULL;
}

const char *sluice_mix_name(const sluice_mix_kind *kind)
{
    return kind->name;
}

uint32_t sluice_mix_base(const sluice_mix_kind *kind)
{
    return kind->base;
}

uint32_t sluice_mix_file_type(const sluice_mix_kind *kind)
{
    return kind->file_type;
}

/* A number of the architecture; an array of them (heads that differ from layer to layer) counts by its largest. */
static sluice_status read_number(const sluice_gguf *g, sluice_span architecture, const char *name, uint32_t *out, sluice_error *err)
{
    char key[SLUICE_GGUF_MAX_NAME_BYTES + 64];
    const sluice_gguf_value *v;

    (void)snprintf(key, sizeof key, "%.*s.%s", (int)architecture.len, (const char *)architecture.ptr, name);
    v = sluice_gguf_find(g, key);
    if (v == NULL || v->type != SLUICE_GGUF_ARRAY)
        return sluice_gguf_opt_u32(g, key, out, err);
    if (v->item_type != SLUICE_GGUF_U32 && v->item_type != SLUICE_GGUF_I32)
        return SLUICE_OK;
    for (uint64_t i = 0; i < v->count; i++)
        if (i == 0 || sluice_gguf_array_u32(v, i) > *out)
            *out = sluice_gguf_array_u32(v, i);
    return SLUICE_OK;
}

sluice_status sluice_mix_model_init(sluice_mix_model *m, const sluice_gguf *g, bool has_importance, sluice_error *err)
{
    sluice_status st;

    *m = (sluice_mix_model){ SLUICE_SPAN_EMPTY, 1, 1, 1, 0, false, has_importance };
    m->has_output = sluice_gguf_tensor_find(g, "output.weight") != NULL;
    st = sluice_gguf_opt_string(g, "general.architecture", &m->architecture, err);
    if (st != SLUICE_OK || m->architecture.len == 0 || m->architecture.len > SLUICE_GGUF_MAX_NAME_BYTES)
        return st;
    st = read_number(g, m->architecture, "block_count", &m->n_layer, err);
    if (st == SLUICE_OK)
        st = read_number(g, m->architecture, "attention.head_count", &m->n_head, err);
    m->n_head_kv = m->n_head;
    if (st == SLUICE_OK)
        st = read_number(g, m->architecture, "attention.head_count_kv", &m->n_head_kv, err);
    if (st == SLUICE_OK)
        st = read_number(g, m->architecture, "expert_count", &m->n_expert, err);
    return st;
}

static bool has(sluice_span name, const char *part)
{
    const size_t n = strlen(part);

    for (size_t i = 0; i + n <= name.len; i++)
        if (memcmp(name.ptr + i, part, n) == 0)
            return true;
    return false;
}

static bool ends_with(sluice_span name, const char *end)
{
    const size_t n = strlen(end);

    return name.len >= n && memcmp(name.ptr + name.len - n, end, n) == 0;
}

bool sluice_mix_applies(const sluice_gguf_tensor *t)
{
    /* small, and errors in them steer whole layers: routers choose experts, positions and token kinds are added once */
    static const char *const never[] = { "_norm.weight", "ffn_gate_inp", "position_embd", "token_types", "attn_rel_b", "ssm_conv1d", "shortconv" };

    if (t->n_dims < 2 || !ends_with(t->name, "weight"))
        return false;
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++)
        if (has(t->name, never[i]))
            return false;
    return true;
}

/* "blk.7.ffn_down.weight" is of layer 7; 0 where the name says none. */
static uint32_t layer_of(sluice_span name)
{
    uint32_t layer = 0;

    if (name.len < 5 || memcmp(name.ptr, "blk.", 4) != 0)
        return 0;
    for (size_t i = 4; i < name.len && name.ptr[i] >= '0' && name.ptr[i] <= '9' && layer < 100000; i++)
        layer = 10 * layer + (uint32_t)(name.ptr[i] - '0');
    return layer;
}

static bool is_when(when w, const sluice_mix_model *m, uint32_t layer)
{
    const uint32_t eighth = m->n_layer / 8;

    switch (w) {
    case NEVER: return false;
    case ALWAYS: return true;
    case IMPORTANT: return layer < eighth || layer >= 7 * (uint64_t)m->n_layer / 8 || (layer - eighth) % 3 == 2;
    case FIRST_2: return layer < 2;
    case FIRST_4: return layer < 4;
    case FIRST_8TH: return layer < eighth;
    case FIRST_16TH: return layer < m->n_layer / 16;
    case GROUPS_OF_4: return m->n_head_kv > 0 && m->n_head / m->n_head_kv >= 4;
    case FIRST_8TH_PLAIN: return layer < eighth && !m->has_importance;
    case FIRST_8TH_WITH_MATRIX: return layer < eighth && m->has_importance;
    }
    return false;
}

static uint32_t by_rule(const rule *r, const sluice_mix_kind *kind, const sluice_mix_model *m, sluice_span name)
{
    if (is_when(r->when, m, layer_of(name)))
        return r->then;
    return r->otherwise != 0 ? r->otherwise : kind->base;
}

/* The 70 B models share values among eight heads and have few of them. */
static bool is_70b(const sluice_mix_model *m)
{
    return (sluice_span_eq_str(m->architecture, "llama") || sluice_span_eq_str(m->architecture, "qwen2")) && m->n_layer == 80 &&
           m->n_head != m->n_head_kv;
}

static uint32_t type_of_values(const sluice_mix_kind *kind, const sluice_mix_model *m, sluice_span name)
{
    const uint32_t type = by_rule(&kind->attn_v, kind, m, name);

    if (m->n_expert == 8)
        return SLUICE_TENSOR_Q8_0; /* little, beside eight experts */
    return is_70b(m) && (type == SLUICE_TENSOR_Q3_K || type == SLUICE_TENSOR_Q4_K) ? (uint32_t)SLUICE_TENSOR_Q5_K : type;
}

static bool is_quantized(uint32_t type)
{
    return type != SLUICE_TENSOR_F32 && type != SLUICE_TENSOR_F16 && type != SLUICE_TENSOR_BF16;
}

static bool fits(uint32_t type, uint64_t row)
{
    uint64_t bytes;

    return sluice_tensor_row_bytes(type, row, &bytes);
}

static uint32_t wanted_type(const sluice_mix_kind *kind, const sluice_mix_model *m, const sluice_gguf_tensor *t)
{
    const sluice_span name = t->name;

    if (!is_quantized(kind->base))
        return kind->base;
    if (sluice_span_eq_str(name, "output.weight") || (!m->has_output && sluice_span_eq_str(name, "token_embd.weight")))
        return fits(kind->base, t->ne[0]) ? kind->output : (uint32_t)SLUICE_TENSOR_Q8_0;
    if (kind->only_experts && t->ne[2] <= 1)
        return kind->output;
    if (has(name, "attn_v.weight") || has(name, "attn_qkv.weight") || has(name, "attn_kv_b.weight"))
        return type_of_values(kind, m, name);
    if (has(name, "attn_k.weight") && m->n_expert == 8)
        return SLUICE_TENSOR_Q8_0;
    if (has(name, "ffn_down"))
        return by_rule(&kind->ffn_down, kind, m, name);
    if (has(name, "attn_output.weight") && m->n_expert == 8)
        return kind->eight_experts != 0 ? kind->eight_experts : kind->base;
    if (has(name, "attn_output.weight"))
        return by_rule(&kind->attn_output, kind, m, name);
    return kind->base;
}

/* The next type up whose blocks are 32 long. */
static uint32_t with_short_blocks(uint32_t type)
{
    switch (type) {
    case SLUICE_TENSOR_Q2_K:
    case SLUICE_TENSOR_Q3_K: return SLUICE_TENSOR_Q4_0;
    case SLUICE_TENSOR_IQ4_XS: return SLUICE_TENSOR_IQ4_NL;
    case SLUICE_TENSOR_Q4_K: return SLUICE_TENSOR_Q5_0;
    case SLUICE_TENSOR_Q5_K: return SLUICE_TENSOR_Q5_1;
    case SLUICE_TENSOR_Q6_K: return SLUICE_TENSOR_Q8_0;
    default: return SLUICE_TENSOR_F16;
    }
}

uint32_t sluice_mix_fallback(uint32_t type, uint64_t cols)
{
    const uint32_t shorter = with_short_blocks(type);

    return fits(shorter, cols) ? shorter : (uint32_t)SLUICE_TENSOR_F16;
}

uint32_t sluice_mix_type(const sluice_mix_kind *kind, const sluice_mix_model *m, const sluice_gguf_tensor *t, bool *is_fallback)
{
    const uint32_t type = wanted_type(kind, m, t);

    *is_fallback = !fits(type, t->ne[0]);
    return *is_fallback ? sluice_mix_fallback(type, t->ne[0]) : type;
}
