/* test_model.c - sizes and tensors of a model are believed only where they agree with each other.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
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
    assert_int_equal(m.n_layer, 2);
    assert_int_equal(m.n_embd, 64);
    assert_int_equal(m.n_vocab, 300);
    assert_int_equal(m.n_rot, 16);
    assert_true(m.rms_eps == 1e-5f && m.rope_base == 10000.0f && m.rope_scale == 1.0f);
    assert_int_equal(m.n_params, 300 * 64 + 64 + 2 * (64 * 64 * 2 + 32 * 64 * 2 + 3 * 64 * 96 + 2 * 64));
    for (uint32_t i = 0; i < 2; i++)
        for (int j = 0; j < SLUICE_LAYER_MATRIX_COUNT; j++) {
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

typedef struct wrong {
    const char *why;
    tiny_model change;          /* only what is set of `key` … `unknown` counts */
    sluice_status status;
    const char *message;        /* a part of it */
} wrong;

static void what_contradicts_itself_is_refused(void **state)
{
    static const wrong cases[] = {
        { "no architecture", { .absent = "general.architecture" }, SLUICE_ERR_FORMAT, "general.architecture" },
        { "unknown architecture", { .string_key = "general.architecture", .string_value = "mamba" }, SLUICE_ERR_UNSUPPORTED, "mamba" },
        { "no layers", { .key = "llama.block_count", .value = 0 }, SLUICE_ERR_FORMAT, "block_count is 0" },
        { "too many layers", { .key = "llama.block_count", .value = 1000000 }, SLUICE_ERR_LIMIT, "block_count" },
        { "a layer more than there is", { .key = "llama.block_count", .value = 3 }, SLUICE_ERR_FORMAT, "blk.2." },
        { "a layer fewer than there is", { .key = "llama.block_count", .value = 1 }, SLUICE_ERR_UNSUPPORTED, "blk.1." },
        { "layer count missing", { .absent = "llama.block_count" }, SLUICE_ERR_FORMAT, "block_count" },
        { "no embedding", { .key = "llama.embedding_length", .value = 0 }, SLUICE_ERR_FORMAT, "embedding_length is 0" },
        { "huge embedding", { .key = "llama.embedding_length", .value = 0xffffffffu }, SLUICE_ERR_LIMIT, "embedding_length" },
        { "other embedding", { .key = "llama.embedding_length", .value = 128 }, SLUICE_ERR_FORMAT, "token_embd.weight" },
        { "no heads", { .key = "llama.attention.head_count", .value = 0 }, SLUICE_ERR_FORMAT, "head_count is 0" },
        { "heads that do not share", { .key = "llama.attention.head_count_kv", .value = 3 }, SLUICE_ERR_FORMAT, "share" },
        { "more k/v heads than heads", { .key = "llama.attention.head_count_kv", .value = 8 }, SLUICE_ERR_FORMAT, "share" },
        { "other heads", { .key = "llama.attention.head_count", .value = 8 }, SLUICE_ERR_FORMAT, "attn_q.weight" },
        { "other k/v heads", { .key = "llama.attention.head_count_kv", .value = 1 }, SLUICE_ERR_FORMAT, "attn_k.weight" },
        { "huge heads", { .key = "llama.attention.key_length", .value = 0x80000000u }, SLUICE_ERR_LIMIT, "key_length" },
        { "values of another length", { .key = "llama.attention.value_length", .value = 8 }, SLUICE_ERR_UNSUPPORTED, "values of length 8" },
        { "odd rotation", { .key = "llama.rope.dimension_count", .value = 15 }, SLUICE_ERR_FORMAT, "odd" },
        { "rotation wider than a head", { .key = "llama.rope.dimension_count", .value = 18 }, SLUICE_ERR_LIMIT, "dimension_count" },
        { "other feed-forward", { .key = "llama.feed_forward_length", .value = 64 }, SLUICE_ERR_FORMAT, "ffn_gate.weight" },
        { "no context", { .key = "llama.context_length", .value = 0 }, SLUICE_ERR_FORMAT, "context_length" },
        { "negative epsilon", { .key = "llama.attention.layer_norm_rms_epsilon" }, SLUICE_ERR_FORMAT, "rms_epsilon" },
        { "experts", { .key = "llama.expert_count", .value = 8 }, SLUICE_ERR_UNSUPPORTED, "experts" },
        { "vocabulary of another size", { .key = "llama.vocab_size", .value = 299 }, SLUICE_ERR_FORMAT, "vocab_size" },
        { "unknown rope scaling", { .string_key = "llama.rope.scaling.type", .string_value = "yarn" }, SLUICE_ERR_UNSUPPORTED, "yarn" },
        { "embedding missing", { .absent = "token_embd.weight" }, SLUICE_ERR_FORMAT, "token_embd.weight" },
        { "norm missing", { .absent = "output_norm.weight" }, SLUICE_ERR_FORMAT, "output_norm.weight" },
        { "a matrix missing", { .absent = "blk.1.ffn_up.weight" }, SLUICE_ERR_FORMAT, "blk.1.ffn_up.weight" },
        { "down too narrow", { .tensor = "blk.0.ffn_down.weight", .ne0 = 64, .ne1 = 64 }, SLUICE_ERR_FORMAT, "ffn_down.weight is 64 x 64" },
        { "up too short", { .tensor = "blk.0.ffn_up.weight", .ne0 = 64, .ne1 = 95 }, SLUICE_ERR_FORMAT, "ffn_up.weight" },
        { "norm too short", { .tensor = "blk.1.attn_norm.weight", .ne0 = 63, .ne1 = 1 }, SLUICE_ERR_FORMAT, "attn_norm.weight" },
        { "one row of embedding too many", { .tensor = "token_embd.weight", .ne0 = 65, .ne1 = 300 }, SLUICE_ERR_FORMAT, "token_embd.weight" },
        { "a part that is not known", { .unknown = "blk.0.attn_sinks.weight" }, SLUICE_ERR_UNSUPPORTED, "attn_sinks" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const tiny_model *change = &cases[i].change;
        tiny_model tiny = tiny_model_default();
        sluice_error err = SLUICE_ERROR_INIT;
        sluice_gguf *g;
        sluice_model m;
        sluice_status st;

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
        cmocka_unit_test(what_contradicts_itself_is_refused),
    };

    return cmocka_run_group_tests_name("model", tests, open_dir, close_dir);
}
