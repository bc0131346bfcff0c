/* test_model.c - sizes and tensors of a model are believed only where they agree with each other.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <stdio.h>

#include "local-engine/model.h"
#include "tests/support/cm.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/engine/tiny_model.h"

static temp_dir dir;

static int open_dir(void **state)
{
    (void)state;
    temp_dir_open(&dir);
    return 0;
}

static int close_dir(void **state)
{
    (void)state;
    temp_dir_close(&dir);
    return 0;
}

/* Opens what `tiny` describes. */
static sluice_status open_model(const tiny_model *tiny, sluice_gguf **g, sluice_model *m, sluice_error *err)
{
    const char *path = temp_dir_file(&dir, "m.gguf");
    sluice_status st;

    memset(m, 0, sizeof *m);
    *g = NULL;
    tiny_model_write(tiny, path);
    st = sluice_gguf_open(g, path, sluice_platform_default(), NULL, err);
    return st == SLUICE_OK ? sluice_model_init(m, *g, NULL, err) : st;
}

static void a_good_model_is_described(void **state)
{
    tiny_model tiny = tiny_model_default();
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_gguf *g;
    sluice_model m;

    (void)state;
    tiny.type = SLUICE_TENSOR_Q8_0;
    if (open_model(&tiny, &g, &m, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
    assert_string_equal(m.architecture, "llama");
    assert_int_equal(m.rope, SLUICE_ROPE_PAIRS);
    assert_int_equal(m.n_angles, 1);
    assert_int_equal(m.n_layer, 2);
    assert_int_equal(m.n_embd, 64);
    assert_int_equal(m.n_vocab, 300);
    assert_int_equal(m.n_rot, 16);
    assert_true(m.norm_eps == 1e-5f && m.angles[0].base == 10000.0f && m.angles[0].scale == 1.0f && m.rope_magnitude == 1.0f);
    assert_true(m.attention_scale == 0.25f && m.embedding_scale == 1.0f && m.attention_cap == 0.0f && m.logit_cap == 0.0f);
    assert_int_equal(m.n_params, 300 * 64 + 64 + 2 * (64 * 64 * 2 + 32 * 64 * 2 + 3 * 64 * 96 + 2 * 64));
    for (uint32_t i = 0; i < 2; i++)
        for (int j = 0; j < SLUICE_LAYER_MATRIX_COUNT; j++)
            if (j == SLUICE_FFN_ROUTER)
                assert_null(m.layers[i].matrix[j].data);
            else {
                assert_non_null(m.layers[i].matrix[j].data);
                assert_int_equal(m.layers[i].matrix[j].type, SLUICE_WEIGHT_Q8_0);
            }
    assert_int_equal(m.layers[1].matrix[SLUICE_FFN_DOWN].cols, 96);
    assert_int_equal(m.layers[1].matrix[SLUICE_FFN_DOWN].rows, 64);
    assert_null(m.layers[0].vector[SLUICE_ATTN_Q_BIAS]);
    sluice_model_deinit(&m);
    sluice_gguf_close(g);
}

static void output_is_the_embedding_where_it_has_none_of_its_own(void **state)
{
    for (int has_output = 0; has_output < 2; has_output++) {
        tiny_model tiny = tiny_model_default();
        sluice_error err = SLUICE_ERROR_INIT;
        sluice_gguf *g;
        sluice_model m;

        (void)state;
        tiny.has_output = has_output;
        assert_int_equal(open_model(&tiny, &g, &m, &err), SLUICE_OK);
        assert_int_equal(m.output.data != m.embedding.data, has_output);
        sluice_model_deinit(&m);
        sluice_gguf_close(g);
    }
}

static void architectures_differ_in_their_features(void **state)
{
    tiny_model tiny = tiny_model_default();
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_gguf *g;
    sluice_model m;

    (void)state;
    tiny.arch = "qwen2";
    tiny.has_bias = true;
    assert_int_equal(open_model(&tiny, &g, &m, &err), SLUICE_OK);
    assert_int_equal(m.rope, SLUICE_ROPE_HALVES);
    assert_non_null(m.layers[1].vector[SLUICE_ATTN_K_BIAS]);
    sluice_model_deinit(&m);
    sluice_gguf_close(g);

    tiny.arch = "qwen3";
    tiny.has_bias = false;
    tiny.has_qk_norm = true;
    tiny.head_dim = 32; /* heads wider than the embedding divided by their number */
    assert_int_equal(open_model(&tiny, &g, &m, &err), SLUICE_OK);
    assert_non_null(m.layers[1].vector[SLUICE_ATTN_Q_NORM]);
    assert_int_equal(m.layers[0].matrix[SLUICE_ATTN_Q].rows, 128);
    sluice_model_deinit(&m);
    sluice_gguf_close(g);

    tiny.has_bias = true; /* which qwen3 has no place for */
    assert_int_equal(open_model(&tiny, &g, &m, &err), SLUICE_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "attn_q.bias"));
    sluice_gguf_close(g);
}

static void families_are_described(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;
    tiny_model tiny;
    sluice_gguf *g;
    sluice_model m;

    (void)state;
    for (size_t i = 0; tiny_model_family_name(i) != NULL; i++) {
        assert_true(tiny_model_family(tiny_model_family_name(i), false, &tiny));
        if (open_model(&tiny, &g, &m, &err) != SLUICE_OK)
            fail_msg("%s: %s", tiny_model_family_name(i), err.message);
        assert_string_equal(m.architecture, tiny.arch);
        assert_int_equal(m.is_encoder, tiny.is_encoder);
        assert_int_equal(m.n_expert, tiny.n_expert);
        assert_int_equal(m.output.data != NULL, !tiny.is_encoder);
        sluice_model_deinit(&m);
        sluice_gguf_close(g);
    }
    assert_true(tiny_model_family("phi3", false, &tiny));
    assert_int_equal(open_model(&tiny, &g, &m, &err), SLUICE_OK);
    assert_ptr_equal(m.layers[0].matrix[SLUICE_ATTN_K].data, m.layers[0].matrix[SLUICE_ATTN_Q].data + 64 * 64 * 4);
    assert_ptr_equal(m.layers[0].matrix[SLUICE_ATTN_V].data, m.layers[0].matrix[SLUICE_ATTN_K].data + 32 * 64 * 4);
    assert_ptr_equal(m.layers[0].matrix[SLUICE_FFN_UP].data, m.layers[0].matrix[SLUICE_FFN_GATE].data + 96 * 64 * 4);
    assert_true(m.rope_factors != NULL && m.rope_factors_long != NULL && m.rope_context == 4096 && m.rope_magnitude == 1.19f);
    sluice_model_deinit(&m);
    sluice_gguf_close(g);
    assert_true(tiny_model_family("qwen3moe", false, &tiny));
    assert_int_equal(open_model(&tiny, &g, &m, &err), SLUICE_OK);
    assert_int_equal(m.layers[0].matrix[SLUICE_FFN_DOWN].expert_bytes, 64 * 96 * 4);
    assert_int_equal(m.layers[0].matrix[SLUICE_FFN_ROUTER].rows, 8);
    assert_int_equal(m.n_expert_used, 3);
    sluice_model_deinit(&m);
    sluice_gguf_close(g);
    assert_true(tiny_model_family("gemma2", false, &tiny));
    tiny.n_layer = 46; /* the family's largest, whose scores are scaled otherwise */
    tiny.n_head_kv = tiny.n_head = 2;
    tiny.attention_cap = tiny.logit_cap = 0;
    assert_int_equal(open_model(&tiny, &g, &m, &err), SLUICE_OK);
    assert_true(fabsf(m.attention_scale - 1 / sqrtf(32)) < 1e-7f && m.attention_cap == 50.0f && m.logit_cap == 30.0f);
    assert_true(m.embedding_scale == 8.0f);
    sluice_model_deinit(&m);
    sluice_gguf_close(g);
}

typedef struct wrong {
    const char *why;
    const char *family;         /* NULL: the default */
    tiny_model change;          /* only what is set of `key` … `unknown` counts */
    sluice_status status;
    const char *message;        /* a part of it */
} wrong;

static void what_contradicts_itself_is_refused(void **state)
{
    static const wrong cases[] = {
        { "no architecture", NULL, { .absent = "general.architecture" }, SLUICE_ERR_FORMAT, "general.architecture" },
        { "unknown architecture", NULL, { .string_key = "general.architecture", .string_value = "mamba" }, SLUICE_ERR_UNSUPPORTED, "mamba" },
        { "no layers", NULL, { .key = "llama.block_count", .value = 0 }, SLUICE_ERR_FORMAT, "block_count is 0" },
        { "too many layers", NULL, { .key = "llama.block_count", .value = 1000000 }, SLUICE_ERR_LIMIT, "block_count" },
        { "a layer more than there is", NULL, { .key = "llama.block_count", .value = 3 }, SLUICE_ERR_FORMAT, "blk.2." },
        { "a layer fewer than there is", NULL, { .key = "llama.block_count", .value = 1 }, SLUICE_ERR_UNSUPPORTED, "blk.1." },
        { "layer count missing", NULL, { .absent = "llama.block_count" }, SLUICE_ERR_FORMAT, "block_count" },
        { "no embedding", NULL, { .key = "llama.embedding_length", .value = 0 }, SLUICE_ERR_FORMAT, "embedding_length is 0" },
        { "huge embedding", NULL, { .key = "llama.embedding_length", .value = 0xffffffffu }, SLUICE_ERR_LIMIT, "embedding_length" },
        { "other embedding", NULL, { .key = "llama.embedding_length", .value = 128 }, SLUICE_ERR_FORMAT, "token_embd.weight" },
        { "no heads", NULL, { .key = "llama.attention.head_count", .value = 0 }, SLUICE_ERR_FORMAT, "head_count is 0" },
        { "heads that do not share", NULL, { .key = "llama.attention.head_count_kv", .value = 3 }, SLUICE_ERR_FORMAT, "share" },
        { "more k/v heads than heads", NULL, { .key = "llama.attention.head_count_kv", .value = 8 }, SLUICE_ERR_FORMAT, "share" },
        { "other heads", NULL, { .key = "llama.attention.head_count", .value = 8 }, SLUICE_ERR_FORMAT, "attn_q.weight" },
        { "other k/v heads", NULL, { .key = "llama.attention.head_count_kv", .value = 1 }, SLUICE_ERR_FORMAT, "attn_k.weight" },
        { "huge heads", NULL, { .key = "llama.attention.key_length", .value = 0x80000000u }, SLUICE_ERR_LIMIT, "key_length" },
        { "values of another length", NULL, { .key = "llama.attention.value_length", .value = 8 }, SLUICE_ERR_UNSUPPORTED, "values of length 8" },
        { "odd rotation", NULL, { .key = "llama.rope.dimension_count", .value = 15 }, SLUICE_ERR_FORMAT, "odd" },
        { "rotation wider than a head", NULL, { .key = "llama.rope.dimension_count", .value = 18 }, SLUICE_ERR_LIMIT, "dimension_count" },
        { "other feed-forward", NULL, { .key = "llama.feed_forward_length", .value = 64 }, SLUICE_ERR_FORMAT, "ffn_gate.weight" },
        { "no context", NULL, { .key = "llama.context_length", .value = 0 }, SLUICE_ERR_FORMAT, "context_length" },
        { "negative epsilon", NULL, { .key = "llama.attention.layer_norm_rms_epsilon" }, SLUICE_ERR_FORMAT, "rms_epsilon" },
        { "experts without tensors", NULL, { .key = "llama.expert_count", .value = 8 }, SLUICE_ERR_FORMAT, "expert_used_count" },
        { "vocabulary of another size", NULL, { .key = "llama.vocab_size", .value = 299 }, SLUICE_ERR_FORMAT, "vocab_size" },
        { "unknown rope scaling", NULL, { .string_key = "llama.rope.scaling.type", .string_value = "dynamic" }, SLUICE_ERR_UNSUPPORTED, "dynamic" },
        { "embedding missing", NULL, { .absent = "token_embd.weight" }, SLUICE_ERR_FORMAT, "token_embd.weight" },
        { "norm missing", NULL, { .absent = "output_norm.weight" }, SLUICE_ERR_FORMAT, "output_norm.weight" },
        { "a matrix missing", NULL, { .absent = "blk.1.ffn_up.weight" }, SLUICE_ERR_FORMAT, "blk.1.ffn_up.weight" },
        { "down too narrow", NULL, { .tensor = "blk.0.ffn_down.weight", .ne0 = 64, .ne1 = 64 }, SLUICE_ERR_FORMAT, "ffn_down.weight is 64 x 64" },
        { "up too short", NULL, { .tensor = "blk.0.ffn_up.weight", .ne0 = 64, .ne1 = 95 }, SLUICE_ERR_FORMAT, "ffn_up.weight" },
        { "norm too short", NULL, { .tensor = "blk.1.attn_norm.weight", .ne0 = 63, .ne1 = 1 }, SLUICE_ERR_FORMAT, "attn_norm.weight" },
        { "one row of embedding too many", NULL, { .tensor = "token_embd.weight", .ne0 = 65, .ne1 = 300 }, SLUICE_ERR_FORMAT, "token_embd.weight" },
        { "a part that is not known", NULL, { .unknown = "blk.0.attn_sinks.weight" }, SLUICE_ERR_UNSUPPORTED, "attn_sinks" },
        { "long rope in llama", NULL, { .string_key = "llama.rope.scaling.type", .string_value = "longrope" }, SLUICE_ERR_UNSUPPORTED, "longrope" },
        { "no experts used", "mixtral", { .key = "llama.expert_used_count", .value = 0 }, SLUICE_ERR_FORMAT, "expert_used_count" },
        { "more experts used than there are", "mixtral", { .key = "llama.expert_used_count", .value = 5 }, SLUICE_ERR_FORMAT, "5 experts used of 4" },
        { "very many used", "mixtral", { .key = "llama.expert_used_count", .value = 33 }, SLUICE_ERR_LIMIT, "expert_used_count" },
        { "more experts than tensors hold", "mixtral", { .key = "llama.expert_count", .value = 8 }, SLUICE_ERR_FORMAT, "ffn_gate_inp" },
        { "very many experts", "mixtral", { .key = "llama.expert_count", .value = 0xffffffffu }, SLUICE_ERR_LIMIT, "expert_count" },
        { "experts that are not there", "mixtral", { .absent = "blk.0.ffn_up_exps.weight" }, SLUICE_ERR_FORMAT, "ffn_up_exps" },
        { "an expert's matrix too short", "mixtral", { .tensor = "blk.1.ffn_down_exps.weight", .ne0 = 96, .ne1 = 63 }, SLUICE_ERR_FORMAT,
          "ffn_down_exps.weight is 96 x 63 x 4" },
        { "experts in an architecture without", "qwen2", { .key = "qwen2.expert_count", .value = 4 }, SLUICE_ERR_UNSUPPORTED, "qwen2" },
        { "other expert width", "qwen3moe", { .key = "qwen3moe.expert_feed_forward_length", .value = 128 }, SLUICE_ERR_FORMAT, "ffn_gate_exps" },
        { "fused q, k, v too short", "phi3", { .tensor = "blk.0.attn_qkv.weight", .ne0 = 64, .ne1 = 127 }, SLUICE_ERR_FORMAT, "attn_qkv" },
        { "half of a fused gate", "phi3", { .tensor = "blk.0.ffn_up.weight", .ne0 = 64, .ne1 = 96 }, SLUICE_ERR_FORMAT, "ffn_up.weight is 64 x 96" },
        { "long factors without short ones", "phi3", { .absent = "rope_factors_short.weight" }, SLUICE_ERR_FORMAT, "rope_factors_short" },
        { "too few factors", "phi3", { .tensor = "rope_factors_long.weight", .ne0 = 7, .ne1 = 1 }, SLUICE_ERR_FORMAT, "rope_factors_long" },
        { "factors that are no numbers", "llama3", { .poisoned = "rope_freqs.weight" }, SLUICE_ERR_FORMAT, "rope_freqs.weight[0]" },
        { "rotated by nothing", "qwen3", { .key = "qwen3.rope.dimension_count", .value = 0 }, SLUICE_ERR_FORMAT, "dimension_count is 0" },
        { "a negative base", "llama3", { .key = "llama.rope.freq_base" }, SLUICE_ERR_FORMAT, "freq_base" },
        { "a negative stretch", "linear", { .key = "llama.rope.scaling.factor" }, SLUICE_ERR_FORMAT, "rope.scaling.factor" },
        { "a negative cap", "gemma2", { .key = "gemma2.attn_logit_softcapping" }, SLUICE_ERR_FORMAT, "softcapping" },
        { "norms after, missing", "gemma2", { .absent = "blk.3.post_ffw_norm.weight" }, SLUICE_ERR_FORMAT, "blk.3.post_ffw_norm" },
        { "head norms missing", "gemma3", { .absent = "blk.6.attn_k_norm.weight" }, SLUICE_ERR_FORMAT, "attn_k_norm" },
        { "ranking", "bert", { .key = "bert.pooling_type", .value = 4 }, SLUICE_ERR_UNSUPPORTED, "pooling_type" },
        { "other positions", "bert", { .key = "bert.context_length", .value = 512 }, SLUICE_ERR_FORMAT, "position_embd" },
        { "very many positions", "bert", { .key = "bert.context_length", .value = 0xfffffff0u }, SLUICE_ERR_LIMIT, "positions" },
        { "no token types' rows", "bert", { .tensor = "token_types.weight", .ne0 = 64, .ne1 = 257 }, SLUICE_ERR_FORMAT, "257 token types" },
        { "embedding norm missing", "bert", { .absent = "token_embd_norm.bias" }, SLUICE_ERR_FORMAT, "token_embd_norm.bias" },
        { "an encoder's head", "bert", { .unknown = "cls.weight" }, SLUICE_ERR_UNSUPPORTED, "cls.weight" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const tiny_model *change = &cases[i].change;
        tiny_model tiny = tiny_model_default();
        sluice_error err = SLUICE_ERROR_INIT;
        sluice_gguf *g;
        sluice_model m;
        sluice_status st;

        if (cases[i].family != NULL)
            assert_true(tiny_model_family(cases[i].family, false, &tiny));
        tiny.poisoned = change->poisoned;
        tiny.key = change->key;
        tiny.value = change->value;
        tiny.absent = change->absent;
        tiny.string_key = change->string_key;
        tiny.string_value = change->string_value;
        tiny.tensor = change->tensor;
        tiny.ne0 = change->ne0;
        tiny.ne1 = change->ne1;
        tiny.unknown = change->unknown;
        st = open_model(&tiny, &g, &m, &err);
        if (st != cases[i].status || strstr(err.message, cases[i].message) == NULL)
            fail_msg("%s: %s, \"%s\"; wanted %s and \"%s\"", cases[i].why, sluice_status_name(st), err.message,
                     sluice_status_name(cases[i].status), cases[i].message);
        assert_null(m.layers);
        sluice_gguf_close(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_model_is_described),
        cmocka_unit_test(output_is_the_embedding_where_it_has_none_of_its_own),
        cmocka_unit_test(architectures_differ_in_their_features),
        cmocka_unit_test(families_are_described),
        cmocka_unit_test(what_contradicts_itself_is_refused),
    };

    return cmocka_run_group_tests_name("model", tests, open_dir, close_dir);
}
