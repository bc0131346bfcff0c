/* test_imatrix.c - importance matrices: collected, written, read in both forms, refused.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "local-engine/tools/gguf_write.h"
#include "local-engine/tools/imatrix.h"
#include "tests/support/fake_allocator.h"
#include "tests/support/temp_dir.h"

enum { FILE_MAX = 1 << 20 };

static void put_u32(sluice_buf *b, uint32_t v)
{
    const uint8_t bytes[4] = { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24) };

    assert_true(sluice_buf_append(b, bytes, 4));
}

static void put_f32(sluice_buf *b, float f)
{
    uint32_t bits;

    memcpy(&bits, &f, 4);
    put_u32(b, bits);
}

static sluice_status open_bytes(sluice_imatrix **m, temp_dir *dir, sluice_span bytes, const sluice_allocator *al, sluice_error *err)
{
    const sluice_platform *p = sluice_platform_default();

    assert_int_equal(sluice_platform_write_file(p, temp_dir_file(dir, "m"), bytes, err), SLUICE_OK);
    return sluice_imatrix_open(m, temp_dir_file(dir, "m"), p, al, err);
}

/* Two experts of a matrix of four columns, and a plain one; expert 1 was never used. */
static void collect(sluice_imatrix **m)
{
    static const float x[8] = { 1, -2, 3, 0, 1, 2, -1, 0 };
    sluice_error err = SLUICE_ERROR_INIT;

    assert_int_equal(sluice_imatrix_new(m, NULL, &err), SLUICE_OK);
    assert_int_equal(sluice_imatrix_add(*m, "blk.0.ffn_up_exps.weight", 0, x, 2, 4, &err), SLUICE_OK);
    assert_int_equal(sluice_imatrix_add(*m, "blk.0.ffn_up_exps.weight", 2, x, 1, 4, &err), SLUICE_OK);
    assert_int_equal(sluice_imatrix_add(*m, "blk.0.attn_q.weight", -1, x, 1, 4, &err), SLUICE_OK);
    assert_int_equal(sluice_imatrix_add(*m, "blk.0.attn_q.weight", -1, x + 4, 1, 4, &err), SLUICE_OK);
}

static void check_collected(const sluice_imatrix *m, uint64_t n_experts)
{
    static const float sums[4] = { 2, 8, 10, 0 }, first[4] = { 1, 4, 9, 0 };
    const sluice_span experts = SLUICE_SPAN_LIT("blk.0.ffn_up_exps.weight"), q = SLUICE_SPAN_LIT("blk.0.attn_q.weight");
    sluice_error err = SLUICE_ERROR_INIT;
    const float *got;

    assert_int_equal(sluice_imatrix_n_entries(m), 2);
    assert_int_equal(sluice_imatrix_get(m, q, 4, 1, 0, &got, &err), SLUICE_OK);
    assert_memory_equal(got, sums, sizeof sums);
    assert_int_equal(sluice_imatrix_get(m, experts, 4, n_experts, 0, &got, &err), SLUICE_OK);
    assert_memory_equal(got, sums, sizeof sums);
    assert_int_equal(sluice_imatrix_get(m, experts, 4, n_experts, 1, &got, &err), SLUICE_OK);
    assert_null(got);
    assert_int_equal(sluice_imatrix_get(m, experts, 4, n_experts, 2, &got, &err), SLUICE_OK);
    assert_memory_equal(got, first, sizeof first);
    assert_int_equal(sluice_imatrix_get(m, experts, 4, n_experts, 3, &got, &err), SLUICE_OK);
    assert_null(got);
    assert_int_equal(sluice_imatrix_get(m, SLUICE_SPAN_LIT("blk.0.attn_k.weight"), 4, 1, 0, &got, &err), SLUICE_OK);
    assert_null(got);
    assert_int_equal(sluice_imatrix_get(m, q, 5, 1, 0, &got, &err), SLUICE_ERR_FORMAT);
    assert_non_null(strstr(err.message, "blk.0.attn_q.weight"));
    assert_int_equal(sluice_imatrix_get(m, experts, 4, 2, 0, &got, &err), SLUICE_ERR_FORMAT);
}

static void squares_add_up_and_survive_the_file(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_imatrix *m, *back;
    sluice_gguf *g = NULL;
    sluice_span type;
    uint32_t n = 0;
    sluice_buf file;
    temp_dir dir;

    (void)state;
    collect(&m);
    check_collected(m, 4);
    sluice_buf_init(&file, NULL, FILE_MAX);
    assert_int_equal(sluice_imatrix_write(m, NULL, "a text", 3, 512, &file, &err), SLUICE_OK);
    assert_int_equal(sluice_gguf_open_span(&g, sluice_buf_span(&file), NULL, &err), SLUICE_OK);
    assert_int_equal(sluice_gguf_get_string(g, "general.type", &type, &err), SLUICE_OK);
    assert_true(sluice_span_eq_str(type, "imatrix"));
    assert_int_equal(sluice_gguf_get_u32(g, "imatrix.chunk_count", &n, &err), SLUICE_OK);
    assert_int_equal(n, 3);
    assert_int_equal(sluice_gguf_tensor_find(g, "blk.0.ffn_up_exps.weight.in_sum2")->ne[1], 3);
    assert_int_equal(sluice_gguf_tensor_find(g, "blk.0.ffn_up_exps.weight.counts")->ne[0], 1);
    sluice_gguf_close(g);
    temp_dir_open(&dir);
    assert_int_equal(open_bytes(&back, &dir, sluice_buf_span(&file), NULL, &err), SLUICE_OK);
    check_collected(back, 4);
    temp_dir_close(&dir);
    sluice_imatrix_close(back);
    sluice_imatrix_close(m);
    sluice_buf_deinit(&file);
}

static void experts_never_used_are_written_as_such(void **state)
{
    static const uint8_t zeros[4 * 4 * 6 * 2] = { 0 };
    const uint64_t ne[3] = { 4, 4, 6 };
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_gguf *model = NULL, *g = NULL;
    sluice_buf model_file, file;
    sluice_gguf_writer w;
    sluice_imatrix *m;

    (void)state;
    sluice_buf_init(&model_file, NULL, FILE_MAX);
    sluice_buf_init(&file, NULL, FILE_MAX);
    sluice_gguf_writer_init(&w, NULL, FILE_MAX);
    sluice_gguf_put_tensor(&w, "blk.0.ffn_up_exps.weight", SLUICE_TENSOR_F16, 3, ne, zeros, sizeof zeros);
    assert_true(sluice_gguf_writer_finish(&w, &model_file));
    assert_int_equal(sluice_gguf_open_span(&model, sluice_buf_span(&model_file), NULL, &err), SLUICE_OK);
    collect(&m);
    assert_int_equal(sluice_imatrix_write(m, model, "a text", 1, 512, &file, &err), SLUICE_OK);
    assert_int_equal(sluice_gguf_open_span(&g, sluice_buf_span(&file), NULL, &err), SLUICE_OK);
    assert_int_equal(sluice_gguf_tensor_find(g, "blk.0.ffn_up_exps.weight.in_sum2")->ne[1], 6);
    assert_int_equal(sluice_gguf_tensor_find(g, "blk.0.ffn_up_exps.weight.counts")->ne[1], 6);
    sluice_gguf_close(g);
    sluice_gguf_close(model);
    sluice_gguf_writer_deinit(&w);
    sluice_imatrix_close(m);
    sluice_buf_deinit(&file);
    sluice_buf_deinit(&model_file);
}

static void legacy_file(sluice_buf *b, uint32_t n_values)
{
    static const char name[] = "blk.0.ffn_up_exps.weight";

    sluice_buf_init(b, NULL, FILE_MAX);
    put_u32(b, 1);
    put_u32(b, sizeof name - 1);
    assert_true(sluice_buf_append(b, name, sizeof name - 1));
    put_u32(b, 7);
    put_u32(b, n_values);
    for (uint32_t i = 0; i < n_values; i++)
        put_f32(b, (float)i);
    put_u32(b, 12);
    put_u32(b, 4);
    assert_true(sluice_buf_append_str(b, "text"));
}

static void the_legacy_form_is_read(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_imatrix *m;
    const float *got;
    sluice_buf file;
    temp_dir dir;

    (void)state;
    legacy_file(&file, 8);
    temp_dir_open(&dir);
    assert_int_equal(open_bytes(&m, &dir, sluice_buf_span(&file), NULL, &err), SLUICE_OK);
    assert_int_equal(sluice_imatrix_get(m, SLUICE_SPAN_LIT("blk.0.ffn_up_exps.weight"), 4, 2, 1, &got, &err), SLUICE_OK); /* two experts in one row */
    assert_true(got[0] == 4.0f && got[3] == 7.0f);
    assert_int_equal(sluice_imatrix_get(m, SLUICE_SPAN_LIT("blk.0.ffn_up_exps.weight"), 4, 3, 1, &got, &err), SLUICE_ERR_FORMAT);
    sluice_imatrix_close(m);
    temp_dir_close(&dir);
    sluice_buf_deinit(&file);
}

static void every_beginning_of_a_file_is_refused_or_whole(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_imatrix *m;
    sluice_buf legacy, gguf;
    temp_dir dir;

    (void)state;
    temp_dir_open(&dir);
    legacy_file(&legacy, 8);
    for (size_t len = 1; len < legacy.len; len++) {
        const bool is_whole = len >= legacy.len - 12; /* what names the text may be missing */

        assert_int_equal(open_bytes(&m, &dir, sluice_span_of(legacy.ptr, len), NULL, &err), is_whole ? SLUICE_OK : SLUICE_ERR_FORMAT);
        assert_true(is_whole == (m != NULL));
        sluice_imatrix_close(m);
    }
    collect(&m);
    sluice_buf_init(&gguf, NULL, FILE_MAX);
    assert_int_equal(sluice_imatrix_write(m, NULL, "a text", 3, 512, &gguf, &err), SLUICE_OK);
    sluice_imatrix_close(m);
    for (size_t len = 1; len + 32 < gguf.len; len += 3) {
        const sluice_status st = open_bytes(&m, &dir, sluice_span_of(gguf.ptr, len), NULL, &err);

        assert_true(st < 0 && m == NULL && err.message[0] != '\0');
    }
    temp_dir_close(&dir);
    sluice_buf_deinit(&legacy);
    sluice_buf_deinit(&gguf);
}

static void numbers_that_cannot_be_sums_of_squares_are_refused(void **state)
{
    static const float bad[] = { NAN, INFINITY, -1 };
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_imatrix *m;
    temp_dir dir;

    (void)state;
    temp_dir_open(&dir);
    for (size_t i = 0; i < 3; i++) {
        const uint64_t ne[2] = { 4, 1 }, count_ne[2] = { 1, 1 };
        float sums[4] = { 1, 2, 3, 4 }, counts[1] = { 9 };
        sluice_gguf_writer w;
        sluice_buf file;

        for (int which = 0; which < 2; which++) {
            sums[2] = which == 0 ? bad[i] : 3.0f;
            counts[0] = which == 1 ? bad[i] : 9.0f;
            sluice_buf_init(&file, NULL, FILE_MAX);
            sluice_gguf_writer_init(&w, NULL, FILE_MAX);
            sluice_gguf_put_string(&w, "general.type", "imatrix");
            sluice_gguf_put_tensor(&w, "a.weight.in_sum2", SLUICE_TENSOR_F32, 2, ne, sums, sizeof sums);
            sluice_gguf_put_tensor(&w, "a.weight.counts", SLUICE_TENSOR_F32, 2, count_ne, counts, sizeof counts);
            assert_true(sluice_gguf_writer_finish(&w, &file));
            assert_int_equal(open_bytes(&m, &dir, sluice_buf_span(&file), NULL, &err), SLUICE_ERR_FORMAT);
            assert_non_null(strstr(err.message, "a.weight"));
            sluice_gguf_writer_deinit(&w);
            sluice_buf_deinit(&file);
        }
    }
    temp_dir_close(&dir);
}

static void other_gguf_files_are_refused(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_imatrix *m;
    sluice_gguf_writer w;
    sluice_buf file;
    temp_dir dir;

    (void)state;
    temp_dir_open(&dir);
    sluice_buf_init(&file, NULL, FILE_MAX);
    sluice_gguf_writer_init(&w, NULL, FILE_MAX);
    sluice_gguf_put_string(&w, "general.architecture", "llama");
    assert_true(sluice_gguf_writer_finish(&w, &file));
    assert_int_equal(open_bytes(&m, &dir, sluice_buf_span(&file), NULL, &err), SLUICE_ERR_FORMAT);
    assert_true(err.hint[0] != '\0');
    sluice_gguf_writer_deinit(&w);
    sluice_buf_deinit(&file);
    temp_dir_close(&dir);
}

typedef struct attempt {
    temp_dir dir;
    sluice_buf file;
} attempt;

static sluice_status read_and_write(const sluice_allocator *al, void *user)
{
    static const float x[4] = { 1, 2, 3, 4 };
    attempt *a = user;
    sluice_imatrix *m = NULL;
    sluice_buf out;
    sluice_status st = sluice_imatrix_open(&m, temp_dir_file(&a->dir, "m"), sluice_platform_default(), al, NULL);

    sluice_buf_init(&out, al, FILE_MAX);
    if (st == SLUICE_OK)
        st = sluice_imatrix_add(m, "blk.0.ffn_up_exps.weight", 5, x, 1, 4, NULL);
    if (st == SLUICE_OK)
        st = sluice_imatrix_add(m, "blk.1.ffn_up_exps.weight", 0, x, 1, 4, NULL);
    if (st == SLUICE_OK)
        st = sluice_imatrix_write(m, NULL, "a text", 3, 512, &out, NULL);
    sluice_buf_deinit(&out);
    sluice_imatrix_close(m);
    return st;
}

static void every_failed_allocation_is_no_memory(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_imatrix *m;
    attempt a;
    size_t n;

    (void)state;
    collect(&m);
    sluice_buf_init(&a.file, NULL, FILE_MAX);
    assert_int_equal(sluice_imatrix_write(m, NULL, "a text", 3, 512, &a.file, &err), SLUICE_OK);
    sluice_imatrix_close(m);
    temp_dir_open(&a.dir);
    assert_int_equal(open_bytes(&m, &a.dir, sluice_buf_span(&a.file), NULL, &err), SLUICE_OK);
    sluice_imatrix_close(m);
    n = fake_allocator_sweep(read_and_write, &a);
    assert_true(n != SIZE_MAX && n > 20);
    temp_dir_close(&a.dir);
    sluice_buf_deinit(&a.file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(squares_add_up_and_survive_the_file),
        cmocka_unit_test(experts_never_used_are_written_as_such),
        cmocka_unit_test(the_legacy_form_is_read),
        cmocka_unit_test(every_beginning_of_a_file_is_refused_or_whole),
        cmocka_unit_test(numbers_that_cannot_be_sums_of_squares_are_refused),
        cmocka_unit_test(other_gguf_files_are_refused),
        cmocka_unit_test(every_failed_allocation_is_no_memory),
    };

    return cmocka_run_group_tests_name("imatrix", tests, NULL, NULL);
}
