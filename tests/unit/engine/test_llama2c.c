/* test_llama2c.c - conversion of llama2.c checkpoints.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "local-engine/tokenizer.h"
#include "local-engine/tools/llama2c.h"
#include "local-engine/tools/quantize.h"
#include "tests/support/fake_allocator.h"
#include "tests/support/test_files.h"

enum { FILE_MAX = 16 << 20, HEADER_BYTES = 28, VOCAB = 512, DIM = 64 };

typedef struct stories {
    sluice_buf model, tokenizer;
} stories;

static void read_stories(stories *s)
{
    assert_non_null(test_source_path(""));
    assert_true(test_read_file(test_source_path("tests/data/models/stories260K/stories260K.bin"), &s->model));
    assert_true(test_read_file(test_source_path("tests/data/models/stories260K/tok512.bin"), &s->tokenizer));
}

static void deinit_stories(stories *s)
{
    sluice_buf_deinit(&s->model);
    sluice_buf_deinit(&s->tokenizer);
}

static sluice_gguf *convert(const stories *s, sluice_tensor_type type, sluice_buf *out)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_gguf *g = NULL;

    sluice_buf_init(out, NULL, FILE_MAX);
    if (sluice_convert_llama2c(sluice_buf_span(&s->model), sluice_buf_span(&s->tokenizer), "stories", type, NULL, out, &err) != SLUICE_OK ||
        sluice_gguf_open_span(&g, sluice_buf_span(out), NULL, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
    return g;
}

static void every_weight_arrives(void **state)
{
    const sluice_gguf_tensor *embd = NULL, *norm = NULL, *down = NULL;
    sluice_error err = SLUICE_ERROR_INIT;
    uint32_t n = 0;
    sluice_buf out;
    sluice_gguf *g;
    stories s;

    (void)state;
    read_stories(&s);
    g = convert(&s, SLUICE_TENSOR_F32, &out);
    assert_int_equal(sluice_gguf_n_tensors(g), 2 + 9 * 5);
    assert_int_equal(sluice_gguf_get_u32(g, "llama.attention.head_count_kv", &n, &err), SLUICE_OK);
    assert_int_equal(n, 4);
    assert_int_equal(sluice_gguf_tensor_get(g, "token_embd.weight", &embd, &err), SLUICE_OK);
    assert_memory_equal(embd->data, s.model.ptr + HEADER_BYTES, embd->bytes);
    assert_int_equal(embd->ne[0], DIM);
    assert_int_equal(embd->ne[1], VOCAB);
    assert_int_equal(sluice_gguf_tensor_get(g, "blk.4.ffn_down.weight", &down, &err), SLUICE_OK);
    assert_int_equal(down->ne[0], 172);
    assert_int_equal(down->ne[1], DIM);
    assert_int_equal(sluice_gguf_tensor_get(g, "output_norm.weight", &norm, &err), SLUICE_OK); /* the last one: before the two RoPE tables */
    assert_int_equal(norm->n_dims, 1);
    assert_memory_equal(norm->data, s.model.ptr + s.model.len - 512 * 8 * sizeof(float) - norm->bytes, norm->bytes);
    assert_null(sluice_gguf_tensor_find(g, "output.weight")); /* tied */
    sluice_gguf_close(g);
    sluice_buf_deinit(&out);
    deinit_stories(&s);
}

static void vocabulary_arrives(void **state)
{
    static const int32_t want[] = { 1, 403, 407, 261, 378 }; /* bos, then "_Once", "_upon", "_a", "_time" */
    sluice_error err = SLUICE_ERROR_INIT;
    int32_t tokens[16];
    sluice_tokenizer *t;
    size_t n = 16;
    sluice_buf out;
    sluice_gguf *g;
    stories s;

    (void)state;
    read_stories(&s);
    g = convert(&s, SLUICE_TENSOR_F32, &out);
    assert_int_equal(sluice_tokenizer_open(&t, g, NULL, &err), SLUICE_OK);
    assert_int_equal(sluice_tokenizer_n_vocab(t), VOCAB);
    assert_int_equal(sluice_tokenizer_encode(t, SLUICE_SPAN_LIT("Once upon a time"), true, tokens, &n, &err), SLUICE_OK);
    assert_int_equal(n, 5);
    assert_memory_equal(tokens, want, sizeof want);
    assert_true(sluice_span_eq_str(sluice_tokenizer_bytes(t, 259), " t"));
    assert_true(sluice_span_eq_str(sluice_tokenizer_bytes(t, 3 + '\n'), "\n"));
    sluice_tokenizer_close(t);
    sluice_gguf_close(g);
    sluice_buf_deinit(&out);
    deinit_stories(&s);
}

static void quantized_files_keep_vectors_and_fall_back_to_f16(void **state)
{
    static const sluice_tensor_type types[] = { SLUICE_TENSOR_F16, SLUICE_TENSOR_Q8_0, SLUICE_TENSOR_Q4_0 };
    stories s;

    (void)state;
    read_stories(&s);
    for (size_t i = 0; i < 3; i++) {
        sluice_buf out;
        sluice_gguf *g = convert(&s, types[i], &out);

        assert_int_equal(sluice_gguf_tensor_find(g, "blk.0.attn_q.weight")->type, types[i]);
        assert_int_equal(sluice_gguf_tensor_find(g, "blk.0.ffn_down.weight")->type, SLUICE_TENSOR_F16); /* rows of 172 are no whole blocks */
        assert_int_equal(sluice_gguf_tensor_find(g, "blk.0.attn_norm.weight")->type, SLUICE_TENSOR_F32);
        sluice_gguf_close(g);
        sluice_buf_deinit(&out);
    }
    deinit_stories(&s);
}

static void bad_checkpoints_are_refused(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_buf out;
    stories s;

    (void)state;
    read_stories(&s);
    sluice_buf_init(&out, NULL, FILE_MAX);
    for (size_t len = 0; len < s.model.len; len += len < 40 ? 1 : 50021)
        assert_int_equal(
            sluice_convert_llama2c(sluice_span_of(s.model.ptr, len), sluice_buf_span(&s.tokenizer), "x", SLUICE_TENSOR_F32, NULL, &out, &err),
            SLUICE_ERR_FORMAT);
    for (size_t len = 0; len < s.tokenizer.len; len += 61)
        assert_int_equal(
            sluice_convert_llama2c(sluice_buf_span(&s.model), sluice_span_of(s.tokenizer.ptr, len), "x", SLUICE_TENSOR_F32, NULL, &out, &err),
            SLUICE_ERR_FORMAT);
    for (size_t i = 0; i < HEADER_BYTES; i += 4) {
        uint8_t was[4];

        memcpy(was, s.model.ptr + i, 4);
        memset(s.model.ptr + i, 0, 4);
        assert_int_equal(sluice_convert_llama2c(sluice_buf_span(&s.model), sluice_buf_span(&s.tokenizer), "x", SLUICE_TENSOR_F32, NULL, &out, &err),
                         SLUICE_ERR_FORMAT);
        memset(s.model.ptr + i, 0x7f, 4);
        assert_int_equal(sluice_convert_llama2c(sluice_buf_span(&s.model), sluice_buf_span(&s.tokenizer), "x", SLUICE_TENSOR_F32, NULL, &out, &err),
                         SLUICE_ERR_FORMAT);
        memcpy(s.model.ptr + i, was, 4);
    }
    assert_int_equal(out.len, 0);
    sluice_buf_deinit(&out);
    deinit_stories(&s);
}

static void a_weight_that_is_no_number_is_refused_by_name(void **state)
{
    static const uint8_t nan_bytes[4] = { 0, 0, 0xc0, 0x7f };
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_buf out;
    stories s;

    (void)state;
    read_stories(&s);
    sluice_buf_init(&out, NULL, FILE_MAX);
    memcpy(s.model.ptr + HEADER_BYTES + 4 * (VOCAB * DIM + 5 * DIM + 3), nan_bytes, 4); /* behind the embeddings and five layers' norms: wq of layer 0 */
    assert_int_equal(sluice_convert_llama2c(sluice_buf_span(&s.model), sluice_buf_span(&s.tokenizer), "x", SLUICE_TENSOR_Q4_0, NULL, &out, &err),
                     SLUICE_ERR_INTEGRITY);
    assert_non_null(strstr(err.message, "blk.0.attn_q.weight"));
    sluice_buf_deinit(&out);
    deinit_stories(&s);
}

static sluice_status convert_once(const sluice_allocator *al, void *user)
{
    const stories *s = user;
    sluice_buf out;
    sluice_status st;

    sluice_buf_init(&out, al, FILE_MAX);
    st = sluice_convert_llama2c(sluice_buf_span(&s->model), sluice_buf_span(&s->tokenizer), "x", SLUICE_TENSOR_Q4_0, al, &out, NULL);
    sluice_buf_deinit(&out);
    return st;
}

static void every_failed_allocation_is_no_memory(void **state)
{
    stories s;
    size_t n;

    (void)state;
    read_stories(&s);
    n = fake_allocator_sweep(convert_once, &s);
    assert_true(n != SIZE_MAX && n > 90);
    deinit_stories(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_weight_arrives),
        cmocka_unit_test(vocabulary_arrives),
        cmocka_unit_test(quantized_files_keep_vectors_and_fall_back_to_f16),
        cmocka_unit_test(bad_checkpoints_are_refused),
        cmocka_unit_test(a_weight_that_is_no_number_is_refused_by_name),
        cmocka_unit_test(every_failed_allocation_is_no_memory),
    };

    return cmocka_run_group_tests_name("llama2c", tests, NULL, NULL);
}
