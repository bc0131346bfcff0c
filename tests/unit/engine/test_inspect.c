/* test_inspect.c - the description of a model file is JSON that says what the file says and what stands in its way.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "local-engine/engine.h"
#include "sdk/base/json.h"
#include "tests/support/fake_allocator.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/engine/gguf_samples.h"

enum { FILE_MAX = 16 << 20 };

typedef struct inspected {
    temp_dir dir;
    sluice_buf file, json;
    sluice_json_doc *doc;
    const sluice_json *root;
} inspected;

static void inspect(inspected *x)
{
    const sluice_platform *p = sluice_platform_default();
    sluice_error err = SLUICE_ERROR_INIT;

    temp_dir_open(&x->dir);
    assert_int_equal(sluice_platform_write_file(p, temp_dir_file(&x->dir, "m.gguf"), sluice_buf_span(&x->file), &err), SLUICE_OK);
    sluice_buf_init(&x->json, NULL, FILE_MAX);
    if (sluice_engine_inspect(temp_dir_file(&x->dir, "m.gguf"), p, NULL, &x->json, &err) != SLUICE_OK ||
        sluice_json_parse(&x->doc, sluice_buf_span(&x->json), NULL, NULL, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
    x->root = sluice_json_root(x->doc);
}

static void deinit(inspected *x)
{
    sluice_json_close(x->doc);
    sluice_buf_deinit(&x->json);
    sluice_buf_deinit(&x->file);
    temp_dir_close(&x->dir);
}

static const char *text_of(const sluice_json *object, const char *key)
{
    const sluice_json *v = sluice_json_get(object, key);

    return v != NULL && v->kind == SLUICE_JSON_STRING ? v->string : "(no string)";
}

static double number_of(const sluice_json *object, const char *key)
{
    const sluice_json *v = sluice_json_get(object, key);

    return v != NULL && v->kind == SLUICE_JSON_NUMBER ? v->number : -1e300;
}

static void a_good_file_is_described(void **state)
{
    const sluice_json *metadata, *tensor;
    inspected x;

    (void)state;
    sluice_buf_init(&x.file, NULL, FILE_MAX);
    sample_spm_small(&x.file);
    inspect(&x);
    assert_string_equal(text_of(x.root, "format"), "gguf");
    assert_string_equal(text_of(x.root, "architecture"), "llama");
    assert_string_equal(text_of(x.root, "prompt_format"), "completion");
    assert_true(number_of(x.root, "n_parameters") == 8 + 6 + 64);
    assert_true(number_of(x.root, "file_bytes") == (double)x.file.len);
    assert_string_equal(text_of(sluice_json_get(x.root, "tokenizer"), "kind"), "spm");
    assert_true(number_of(sluice_json_get(x.root, "tokenizer"), "n_vocab") == 11);
    assert_int_equal(sluice_json_get(x.root, "problems")->n_children, 0);
    metadata = sluice_json_get(x.root, "metadata");
    assert_true(number_of(metadata, "a.i64") == -2);
    assert_true(number_of(metadata, "a.u64") == 4294967296.0);
    assert_true(number_of(metadata, "a.f32") == 0.5);
    assert_true(sluice_json_get(metadata, "a.bool")->boolean);
    assert_true(number_of(sluice_json_get(metadata, "tokenizer.ggml.tokens"), "count") == 11);
    tensor = sluice_json_get(x.root, "tensors")->child->next->next;
    assert_string_equal(text_of(tensor, "name"), "q8_0");
    assert_string_equal(text_of(tensor, "type"), "Q8_0");
    assert_true(number_of(tensor, "bytes") == 68);
    assert_int_equal(sluice_json_get(tensor, "shape")->n_children, 2);
    deinit(&x);
}

static void what_stands_in_the_way_is_a_problem(void **state)
{
    static const uint8_t data[66] = { 0 };
    sluice_gguf_writer w;
    inspected x;

    (void)state;
    sluice_buf_init(&x.file, NULL, FILE_MAX);
    sluice_gguf_writer_init(&w, NULL, FILE_MAX);
    sluice_gguf_put_string(&w, "general.architecture", "mamba \" \\ \n");
    sluice_gguf_put_string(&w, "tokenizer.ggml.model", "t5");
    sluice_gguf_put_raw(&w, SLUICE_SPAN_LIT("broken"), SLUICE_GGUF_STRING, SLUICE_SPAN_LIT("\2\0\0\0\0\0\0\0\xff\xfe"));
    sluice_gguf_put_raw(&w, SLUICE_SPAN_LIT("nan"), SLUICE_GGUF_F32, SLUICE_SPAN_LIT("\0\0\xc0\x7f"));
    sluice_gguf_put_tensor(&w, "k", 16, 1, (uint64_t[]){ 256 }, data, sizeof data);
    assert_true(sluice_gguf_writer_finish(&w, &x.file));
    inspect(&x);
    assert_int_equal(sluice_json_get(x.root, "problems")->n_children, 2);
    assert_non_null(strstr(sluice_json_get(x.root, "problems")->child->string, "t5"));
    assert_non_null(strstr(sluice_json_get(x.root, "problems")->child->next->string, "IQ2_XXS"));
    assert_int_equal(sluice_json_get(sluice_json_get(x.root, "metadata"), "nan")->kind, SLUICE_JSON_NULL);
    assert_string_equal(text_of(x.root, "architecture"), "mamba \" \\ \n");
    sluice_gguf_writer_deinit(&w);
    deinit(&x);
}

static sluice_status inspect_once(const sluice_allocator *al, void *user)
{
    sluice_buf json;
    sluice_status st;

    sluice_buf_init(&json, al, FILE_MAX);
    st = sluice_engine_inspect(user, sluice_platform_default(), al, &json, NULL);
    if (st != SLUICE_OK)
        assert_int_equal(json.len, 0);
    sluice_buf_deinit(&json);
    return st;
}

static void every_failed_allocation_is_no_memory(void **state)
{
    char path[768];
    inspected x;
    size_t n;

    (void)state;
    sluice_buf_init(&x.file, NULL, FILE_MAX);
    sample_bpe_small(&x.file);
    inspect(&x);
    (void)snprintf(path, sizeof path, "%s", temp_dir_file(&x.dir, "m.gguf"));
    n = fake_allocator_sweep(inspect_once, path);
    assert_true(n != SIZE_MAX && n > 8);
    deinit(&x);
}

static void a_description_that_does_not_fit_is_a_limit(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;
    inspected x;
    sluice_buf small;

    (void)state;
    sluice_buf_init(&x.file, NULL, FILE_MAX);
    sample_bpe_small(&x.file);
    inspect(&x);
    sluice_buf_init(&small, NULL, 100);
    assert_int_equal(sluice_engine_inspect(temp_dir_file(&x.dir, "m.gguf"), sluice_platform_default(), NULL, &small, &err), SLUICE_ERR_LIMIT);
    assert_int_equal(small.len, 0);
    assert_int_equal(sluice_engine_inspect(temp_dir_file(&x.dir, "none.gguf"), sluice_platform_default(), NULL, &small, &err), SLUICE_ERR_NOT_FOUND);
    sluice_buf_deinit(&small);
    deinit(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_file_is_described),
        cmocka_unit_test(what_stands_in_the_way_is_a_problem),
        cmocka_unit_test(every_failed_allocation_is_no_memory),
        cmocka_unit_test(a_description_that_does_not_fit_is_a_limit),
    };

    return cmocka_run_group_tests_name("inspect", tests, NULL, NULL);
}
