/* test_oom_base.c - each allocation of sdk/base fails once, and leaves nothing behind.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/base/json.h"
#include "sdk/platform/platform.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"
#include "tests/support/temp_dir.h"

static sluice_status parse(const sluice_allocator *al, void *user)
{
    sluice_json_doc *doc = (sluice_json_doc *)(uintptr_t)1;
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_status st = sluice_json_parse(&doc, SLUICE_SPAN_LIT("{\"a\":[1,2,{\"b\":\"c\",\"d\":\"e\"}],\"f\":null}"), NULL, al, &err);

    (void)user;
    assert_true(st == SLUICE_OK ? doc != NULL : doc == NULL && err.status == st);
    sluice_json_close(doc);
    return st;
}

static void json_reading_survives_every_failed_allocation(void **state)
{
    (void)state;
    assert_int_equal(fake_allocator_sweep(parse, NULL), 2); /* the doc, and the keys to compare */
}

static sluice_status write_json(const sluice_allocator *al, void *user)
{
    sluice_buf b;
    sluice_json_writer w;
    sluice_status st;
    char *s = NULL;

    (void)user;
    sluice_buf_init(&b, al, 1 << 20);
    sluice_json_begin(&w, &b);
    sluice_json_array_open(&w, NULL);
    for (int i = 0; i < 200; i++)
        sluice_json_str(&w, NULL, "some text");
    sluice_json_array_close(&w);
    st = w.ok ? SLUICE_OK : sluice_buf_error(&b, "test", NULL);
    if (st == SLUICE_OK && !sluice_buf_appendf(&b, "%400s", "padded"))
        st = sluice_buf_error(&b, "test", NULL);
    if (st == SLUICE_OK) {
        s = sluice_buf_take_str(&b);
        st = s != NULL ? SLUICE_OK : SLUICE_ERR_NO_MEMORY;
    }
    sluice_str_free(al, s);
    sluice_buf_deinit(&b);
    return st;
}

static void writing_survives_every_failed_allocation(void **state)
{
    (void)state;
    assert_true(fake_allocator_sweep(write_json, NULL) < 20);
}

static sluice_status use_arena(const sluice_allocator *al, void *user)
{
    sluice_arena a;
    sluice_status st = SLUICE_OK;

    (void)user;
    sluice_arena_init(&a, al, 1 << 20);
    for (size_t i = 0; i < 40 && st == SLUICE_OK; i++)
        if (sluice_arena_alloc(&a, 1 + i * 997) == NULL || sluice_arena_strdup(&a, SLUICE_SPAN_LIT("x")) == NULL)
            st = SLUICE_ERR_NO_MEMORY;
    sluice_arena_deinit(&a);
    return st;
}

static void arenas_survive_every_failed_allocation(void **state)
{
    (void)state;
    assert_in_range(fake_allocator_sweep(use_arena, NULL), 4, 60);
}

static sluice_status read_file(const sluice_allocator *al, void *user)
{
    sluice_buf b;
    sluice_status st;

    sluice_buf_init(&b, al, 1 << 20);
    st = sluice_platform_read_file(sluice_platform_default(), user, 1 << 20, &b, NULL);
    assert_int_equal(b.len, st == SLUICE_OK ? 30000 : 0);
    sluice_buf_deinit(&b);
    return st;
}

static void reading_a_file_survives_every_failed_allocation(void **state)
{
    static uint8_t bytes[30000];
    temp_dir dir;
    char *path;

    (void)state;
    temp_dir_open(&dir);
    path = sluice_strdup(NULL, temp_dir_file(&dir, "x"));
    assert_int_equal(sluice_platform_write_file(sluice_platform_default(), path, sluice_span_of(bytes, sizeof bytes), NULL), SLUICE_OK);
    assert_in_range(fake_allocator_sweep(read_file, path), 1, 20);
    sluice_str_free(NULL, path);
    temp_dir_close(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_reading_survives_every_failed_allocation),
        cmocka_unit_test(writing_survives_every_failed_allocation),
        cmocka_unit_test(arenas_survive_every_failed_allocation),
        cmocka_unit_test(reading_a_file_survives_every_failed_allocation),
    };

    return cmocka_run_group_tests_name("fault/base", tests, NULL, NULL);
}
