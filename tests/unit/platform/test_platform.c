/* test_platform.c - the helpers over the vtable, on the fake platform.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <sys/stat.h>

#include "sdk/platform/platform.h"
#include "tests/support/cm.h"
#include "tests/support/fake_platform.h"
#include "tests/support/temp_dir.h"

typedef struct fixture {
    fake_platform fp;
    temp_dir dir;
    sluice_error err;
} fixture;

static int setup(void **state)
{
    static fixture f;

    fake_platform_init(&f.fp, 1);
    temp_dir_open(&f.dir);
    sluice_error_clear(&f.err);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;

    fake_platform_deinit(&f->fp);
    temp_dir_close(&f->dir);
    return 0;
}

static void check_names_the_member_that_is_missing(void **state)
{
    sluice_platform p = *sluice_platform_default();
    sluice_error err;

    (void)state;
    assert_int_equal(sluice_platform_check(&p, &err), SLUICE_OK);
    p.file_sync = NULL;
    assert_int_equal(sluice_platform_check(&p, &err), SLUICE_ERR_ARGUMENT);
    assert_string_equal(err.message, "platform: no file_sync");
    p = *sluice_platform_default();
    p.size = 0;
    assert_int_equal(sluice_platform_check(&p, &err), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_platform_check(NULL, &err), SLUICE_ERR_ARGUMENT);
}

static void check_wants_both_halves_of_a_key_store(void **state)
{
    fixture *f = *state;
    sluice_platform p = f->fp.platform;

    assert_int_equal(sluice_platform_check(&p, &f->err), SLUICE_OK);
    p.key_store = NULL;
    assert_int_equal(sluice_platform_check(&p, &f->err), SLUICE_ERR_ARGUMENT);
    p.key_load = NULL;
    assert_int_equal(sluice_platform_check(&p, &f->err), SLUICE_OK);
}

static void a_file_comes_back_as_it_was_written(void **state)
{
    fixture *f = *state;
    const char *path = temp_dir_file(&f->dir, "data");
    uint8_t bytes[20000];
    sluice_buf b;

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 31);
    assert_int_equal(sluice_platform_write_file(&f->fp.platform, path, sluice_span_of(bytes, sizeof bytes), &f->err), SLUICE_OK);
    sluice_buf_init(&b, NULL, 100000);
    assert_true(sluice_buf_append_str(&b, "before"));
    assert_int_equal(sluice_platform_read_file(&f->fp.platform, path, sizeof bytes, &b, &f->err), SLUICE_OK);
    assert_int_equal(b.len, 6 + sizeof bytes);
    assert_memory_equal(b.ptr + 6, bytes, sizeof bytes);
    assert_int_equal(sluice_platform_read_file(&f->fp.platform, path, sizeof bytes - 1, &b, &f->err), SLUICE_ERR_LIMIT);
    assert_string_equal(f->err.where, path);
    assert_int_equal(b.len, 6 + sizeof bytes);
    sluice_buf_deinit(&b);

    assert_int_equal(sluice_platform_write_file(&f->fp.platform, path, SLUICE_SPAN_EMPTY, &f->err), SLUICE_OK);
    sluice_buf_init(&b, NULL, 0);
    assert_int_equal(sluice_platform_read_file(&f->fp.platform, path, 0, &b, &f->err), SLUICE_OK);
    assert_int_equal(b.len, 0);
    assert_int_equal(sluice_platform_read_file(&f->fp.platform, temp_dir_file(&f->dir, "none"), 1, &b, &f->err), SLUICE_ERR_NOT_FOUND);
}

static void a_failed_replacement_leaves_the_old_file_and_no_other(void **state)
{
    static const fake_op ops[] = { FAKE_OPEN, FAKE_WRITE, FAKE_SYNC, FAKE_RENAME };
    fixture *f = *state;
    const char *path = temp_dir_file(&f->dir, "data");
    struct stat st;
    sluice_buf b;

    assert_int_equal(sluice_platform_write_file(&f->fp.platform, path, SLUICE_SPAN_LIT("old"), &f->err), SLUICE_OK);
    f->fp.torn_writes = true;
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        fake_platform_fail(&f->fp, ops[i], 0);
        assert_int_equal(sluice_platform_write_file(&f->fp.platform, path, SLUICE_SPAN_LIT("newer"), &f->err), SLUICE_ERR_IO);
        fake_platform_heal(&f->fp);
        sluice_buf_init(&b, NULL, 100);
        assert_int_equal(sluice_platform_read_file(&f->fp.platform, path, 100, &b, &f->err), SLUICE_OK);
        assert_true(sluice_span_eq_str(sluice_buf_span(&b), "old"));
        sluice_buf_deinit(&b);
        assert_int_equal(stat(temp_dir_file(&f->dir, "data.tmp"), &st), -1);
    }
}

static void the_data_is_synced_before_the_name_is_changed(void **state)
{
    fixture *f = *state;

    fake_platform_fail(&f->fp, FAKE_SYNC, 0);
    assert_int_equal(sluice_platform_write_file(&f->fp.platform, temp_dir_file(&f->dir, "x"), SLUICE_SPAN_LIT("1"), &f->err), SLUICE_ERR_IO);
    assert_int_equal(f->fp.count[FAKE_SYNC], 1);
    assert_int_equal(f->fp.count[FAKE_RENAME], 0);
}

static void joined_paths_have_one_slash(void **state)
{
    char out[16];
    sluice_error err;

    (void)state;
    assert_int_equal(sluice_path_join(out, sizeof out, "/a/b", "c", &err), SLUICE_OK);
    assert_string_equal(out, "/a/b/c");
    assert_int_equal(sluice_path_join(out, sizeof out, "/", "c", &err), SLUICE_OK);
    assert_string_equal(out, "/c");
    assert_int_equal(sluice_path_join(out, sizeof out, "", "c", &err), SLUICE_OK);
    assert_string_equal(out, "c");
    assert_int_equal(sluice_path_join(out, sizeof out, "/1234567890", "1234", &err), SLUICE_ERR_LIMIT);
    assert_string_equal(out, "");
    assert_int_equal(sluice_path_join(out, sizeof out, "/123456789", "1234", &err), SLUICE_OK);
}

static void a_key_is_made_once_and_then_found(void **state)
{
    fixture *f = *state;
    uint8_t first[32], again[32], other[32];
    bool created = false;

    for (int in_files = 0; in_files < 2; in_files++) {
        if (in_files) {
            f->fp.platform.key_load = NULL;
            f->fp.platform.key_store = NULL;
        }
        assert_int_equal(sluice_platform_key(&f->fp.platform, f->dir.path, "consent-1.x", first, &created, &f->err), SLUICE_OK);
        assert_true(created);
        assert_int_equal(f->err.status, SLUICE_OK);
        assert_int_equal(sluice_platform_key(&f->fp.platform, f->dir.path, "consent-1.x", again, &created, &f->err), SLUICE_OK);
        assert_false(created);
        assert_memory_equal(first, again, 32);
        assert_int_equal(sluice_platform_key(&f->fp.platform, f->dir.path, "other", other, NULL, &f->err), SLUICE_OK);
        assert_memory_not_equal(first, other, 32);
    }
}

static void key_files_are_for_their_owner_alone(void **state)
{
    fixture *f = *state;
    uint8_t key[32];
    struct stat st;

    f->fp.platform.key_load = NULL;
    f->fp.platform.key_store = NULL;
    assert_int_equal(sluice_platform_key(&f->fp.platform, f->dir.path, "k", key, NULL, &f->err), SLUICE_OK);
    assert_int_equal(stat(temp_dir_file(&f->dir, "keys/k.key"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(st.st_size, 32);
    assert_int_equal(stat(temp_dir_file(&f->dir, "keys"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
}

static void a_key_that_cannot_be_read_is_never_replaced(void **state)
{
    fixture *f = *state;
    uint8_t key[32], before[32];

    assert_int_equal(sluice_platform_key(&f->fp.platform, f->dir.path, "k", before, NULL, &f->err), SLUICE_OK);
    fake_platform_fail(&f->fp, FAKE_KEY_LOAD, 0);
    assert_int_equal(sluice_platform_key(&f->fp.platform, f->dir.path, "k", key, NULL, &f->err), SLUICE_ERR_IO);
    assert_int_equal(sluice_platform_key(&f->fp.platform, f->dir.path, "k", key, NULL, &f->err), SLUICE_OK);
    assert_memory_equal(key, before, 32);

    f->fp.platform.key_load = NULL;
    f->fp.platform.key_store = NULL;
    assert_int_equal(f->fp.platform.make_dir(f->fp.platform.user, temp_dir_file(&f->dir, "keys"), &f->err), SLUICE_OK);
    for (size_t len = 0; len <= 33; len += 33) {
        assert_int_equal(sluice_platform_write_file(&f->fp.platform, temp_dir_file(&f->dir, "keys/k.key"),
                                                    sluice_span_of("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", len), &f->err), SLUICE_OK);
        assert_int_equal(sluice_platform_key(&f->fp.platform, f->dir.path, "k", key, NULL, &f->err), SLUICE_ERR_FORMAT);
        assert_true(strlen(f->err.hint) > 0);
    }
}

static void a_key_that_cannot_be_stored_is_not_handed_out(void **state)
{
    fixture *f = *state;
    uint8_t key[32] = { 0 }, zeros[32] = { 0 };
    bool created = true;

    fake_platform_fail(&f->fp, FAKE_KEY_STORE, 0);
    assert_int_equal(sluice_platform_key(&f->fp.platform, f->dir.path, "k", key, &created, &f->err), SLUICE_ERR_IO);
    assert_memory_equal(key, zeros, 32);
    assert_false(created);
    fake_platform_fail(&f->fp, FAKE_RANDOM, 0);
    assert_int_equal(sluice_platform_key(&f->fp.platform, f->dir.path, "k", key, &created, &f->err), SLUICE_ERR_IO);
    assert_memory_equal(key, zeros, 32);
    assert_int_equal(f->fp.n_keys, 0);
}

static void key_names_cannot_leave_the_folder(void **state)
{
    static const char *const names[] = { "", "../x", "a/b", "A", "x y", "0123456789012345678901234567890123456789012345678901234567890123x" };
    fixture *f = *state;
    uint8_t key[32];

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_int_equal(sluice_platform_key(&f->fp.platform, f->dir.path, names[i], key, NULL, &f->err), SLUICE_ERR_ARGUMENT);
}

static void log_formats_and_cuts_between_code_points(void **state)
{
    fixture *f = *state;
    sluice_platform quiet = f->fp.platform;
    char text[3000];
    sluice_span line;

    sluice_log(&f->fp.platform, SLUICE_LOG_WARN, "hello %d", 7);
    assert_true(sluice_span_eq_str(sluice_buf_span(&f->fp.log), "W hello 7\n"));
    memset(text, 0, sizeof text);
    for (size_t i = 0; i + 3 < sizeof text; i += 3)
        memcpy(text + i, "\xe2\x82\xac", 3);
    sluice_buf_clear(&f->fp.log);
    sluice_log(&f->fp.platform, SLUICE_LOG_ERROR, "%s", text);
    line = sluice_buf_span(&f->fp.log);
    assert_true(line.len > 1000 && line.len < 1100);
    assert_true(sluice_utf8_valid(line));
    quiet.log = NULL;
    sluice_log(&quiet, SLUICE_LOG_ERROR, "x");
    sluice_log(NULL, SLUICE_LOG_ERROR, "x");
}

static void the_fake_is_deterministic_and_fails_where_it_is_told(void **state)
{
    fixture *f = *state;
    fake_platform twin;
    uint8_t a[40], b[40];

    fake_platform_init(&twin, 1);
    assert_int_equal(sluice_random(&f->fp.platform, a, sizeof a, NULL), SLUICE_OK);
    assert_int_equal(sluice_random(&twin.platform, b, sizeof b, NULL), SLUICE_OK);
    assert_memory_equal(a, b, sizeof a);
    assert_int_equal(sluice_random(&twin.platform, b, sizeof b, NULL), SLUICE_OK);
    assert_memory_not_equal(a, b, sizeof a);
    fake_platform_fail_on(&twin, FAKE_RANDOM, 1);
    assert_int_equal(sluice_random(&twin.platform, b, 1, NULL), SLUICE_OK);
    assert_int_equal(sluice_random(&twin.platform, b, 1, NULL), SLUICE_ERR_IO);
    assert_int_equal(sluice_random(&twin.platform, b, 1, NULL), SLUICE_ERR_IO);
    fake_platform_heal(&twin);
    assert_int_equal(sluice_random(&twin.platform, b, 1, NULL), SLUICE_OK);
    assert_int_equal(sluice_now_us(&twin.platform), 1000000);
    for (int i = 0; i < 10; i++)
        fake_platform_advance_us(&twin, 500);
    assert_int_equal(sluice_now_us(&twin.platform), 1005000);
    assert_int_equal(sluice_wall_ms(&twin.platform), 1767225600005);
    fake_platform_deinit(&twin);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(check_names_the_member_that_is_missing),
        TEST(check_wants_both_halves_of_a_key_store),
        TEST(a_file_comes_back_as_it_was_written),
        TEST(a_failed_replacement_leaves_the_old_file_and_no_other),
        TEST(the_data_is_synced_before_the_name_is_changed),
        TEST(joined_paths_have_one_slash),
        TEST(a_key_is_made_once_and_then_found),
        TEST(key_files_are_for_their_owner_alone),
        TEST(a_key_that_cannot_be_read_is_never_replaced),
        TEST(a_key_that_cannot_be_stored_is_not_handed_out),
        TEST(key_names_cannot_leave_the_folder),
        TEST(log_formats_and_cuts_between_code_points),
        TEST(the_fake_is_deterministic_and_fails_where_it_is_told),
    };

    return cmocka_run_group_tests_name("platform/platform", tests, NULL, NULL);
}
