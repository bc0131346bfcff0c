/* test_llama2c.c - conversion of llama2.c checkpoints, and the quantization that it can apply.
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

static void every_half_survives_and_rounding_is_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = sluice_float_from_half((uint16_t)h);

        if ((h & 0x7c00u) == 0x7c00u && (h & 0x3ffu) != 0)
            assert_true(isnan(sluice_float_from_half(sluice_half_from_float(f))));
        else
            assert_int_equal(sluice_half_from_float(f), h);
        if ((h & 0x7fffu) >= 0x7bffu)
            continue;
        /* Half way to the next one goes to the even one; a little more goes up, a little less goes down. */
        float next = sluice_float_from_half((uint16_t)(h + 1)), middle = f + (next - f) / 2;

        assert_int_equal(sluice_half_from_float(middle), h + (h & 1));
        assert_int_equal(sluice_half_from_float(nextafterf(middle, next)), h + 1);
        assert_int_equal(sluice_half_from_float(nextafterf(middle, f)), h);
    }
    assert_int_equal(sluice_half_from_float(65519.996f), 0x7bff);
    assert_int_equal(sluice_half_from_float(65520.0f), 0x7c00);
    assert_int_equal(sluice_half_from_float(-3e38f), 0xfc00);
    assert_int_equal(sluice_half_from_float(1e-30f), 0);
}

/* The error of a block is at most half a step (Q8_0), or half a step and the clipped end (Q4_0: the other sign reaches only 7), plus the
 * rounding of the scale to a half. */
static void quantization_error_is_bounded_by_the_step(void **state)
{
    float in[32], back[32];
    uint8_t q[64];

    (void)state;
    for (uint32_t round = 0; round < 2000; round++) {
        float largest = 0;

        for (uint32_t i = 0; i < 32; i++) {
            uint32_t r = (round * 32 + i + 1) * 2654435761u;

            r ^= r >> 15;
            in[i] = round == 0 ? 0 : ((float)(r & 0xffff) / 32768.0f - 1.0f) * (float)(1 + round % 7);
            largest = fmaxf(largest, fabsf(in[i]));
        }
        sluice_quantize(SLUICE_TENSOR_Q8_0, in, 32, q);
        sluice_dequantize(SLUICE_TENSOR_Q8_0, q, 32, back);
        for (size_t i = 0; i < 32; i++) {
            assert_true(fabsf(in[i] - back[i]) <= largest / 127 * 0.5f + largest / 2000);
            assert_int_not_equal((int8_t)q[2 + i], -128); /* kernels rely on it */
        }
        sluice_quantize(SLUICE_TENSOR_Q4_0, in, 32, q);
        sluice_dequantize(SLUICE_TENSOR_Q4_0, q, 32, back);
        for (size_t i = 0; i < 32; i++)
            assert_true(fabsf(in[i] - back[i]) <= largest / 8 + largest / 2000);
    }
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
        cmocka_unit_test(every_half_survives_and_rounding_is_to_nearest_even),
        cmocka_unit_test(quantization_error_is_bounded_by_the_step),
        cmocka_unit_test(every_failed_allocation_is_no_memory),
    };

    return cmocka_run_group_tests_name("llama2c", tests, NULL, NULL);
}
