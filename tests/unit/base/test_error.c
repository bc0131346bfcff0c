/* test_error.c - filling the error record.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/base/base.h"
#include "tests/support/cm.h"

static void set_resets_what_was_there(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;

    (void)state;
    sluice_error_set(&err, SLUICE_ERR_IO, "first");
    sluice_error_hint(&err, "hint");
    sluice_error_where(&err, "/a/b");
    sluice_error_line(&err, 3, 4);
    sluice_error_offset(&err, 0);
    assert_true(err.has_offset);
    assert_int_equal(sluice_error_set(&err, SLUICE_ERR_FORMAT, "second %d", 2), SLUICE_ERR_FORMAT);
    assert_int_equal(err.status, SLUICE_ERR_FORMAT);
    assert_string_equal(err.message, "second 2");
    assert_string_equal(err.hint, "");
    assert_string_equal(err.where, "");
    assert_int_equal(err.line, 0);
    assert_int_equal(err.column, 0);
    assert_false(err.has_offset);
}

static void a_null_record_is_allowed_everywhere(void **state)
{
    (void)state;
    assert_int_equal(sluice_error_set(NULL, SLUICE_ERR_IO, "%s", "x"), SLUICE_ERR_IO);
    sluice_error_hint(NULL, "x");
    sluice_error_where(NULL, "x");
    sluice_error_line(NULL, 1, 1);
    sluice_error_offset(NULL, 1);
    sluice_error_clear(NULL);
}

static void a_text_of_the_record_may_be_its_own_argument(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;

    (void)state;
    sluice_error_set(&err, SLUICE_ERR_IO, "inner");
    sluice_error_set(&err, SLUICE_ERR_IO, "outer: %s", err.message);
    assert_string_equal(err.message, "outer: inner");
}

static void long_texts_are_cut_between_code_points(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;
    char text[600];

    (void)state;
    for (size_t pad = 0; pad < 4; pad++) {
        memset(text, 'a', pad);
        for (size_t i = pad; i + 4 < sizeof text; i += 4)
            memcpy(text + i, "\xf0\x9f\x98\x80", 5);
        sluice_error_set(&err, SLUICE_ERR_IO, "%s", text);
        sluice_error_hint(&err, "%s", text);
        sluice_error_where(&err, text);
        assert_true(sluice_utf8_valid(sluice_span_str(err.message)));
        assert_true(sluice_utf8_valid(sluice_span_str(err.hint)));
        assert_true(sluice_utf8_valid(sluice_span_str(err.where)));
        assert_true(strlen(err.message) >= sizeof err.message - 4);
        assert_null(strchr(err.message, '?'));
        assert_null(strchr(err.where, '?'));
    }
}

static void of_a_long_place_the_end_is_kept(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;
    char path[400];

    (void)state;
    memset(path, 'd', sizeof path);
    memcpy(path + sizeof path - 12, "/policy.json", 12);
    path[sizeof path - 1] = '\0';
    sluice_error_where(&err, path);
    assert_int_equal(strlen(err.where), sizeof err.where - 1);
    assert_memory_equal(err.where, "...", 3);
    assert_string_equal(err.where + strlen(err.where) - 11, "/policy.jso");
    sluice_error_where(&err, NULL);
    assert_string_equal(err.where, "");
}

static void what_a_terminal_would_obey_becomes_a_question_mark(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;

    (void)state;
    sluice_error_set(&err, SLUICE_ERR_FORMAT, "%s", "a\x1b[2Jb\nc\x7f");
    assert_string_equal(err.message, "a?[2Jb?c?");
    sluice_error_set(&err, SLUICE_ERR_FORMAT, "%s", "\xc2\x9b" "2J \xc3\xa9");
    assert_string_equal(err.message, "??2J \xc3\xa9");
    sluice_error_set(&err, SLUICE_ERR_FORMAT, "%s", "x\xff\xe2\x82y\xed\xa0\x80");
    assert_true(sluice_utf8_valid(sluice_span_str(err.message)));
    assert_string_equal(err.message, "x???y???");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_resets_what_was_there),
        cmocka_unit_test(a_null_record_is_allowed_everywhere),
        cmocka_unit_test(a_text_of_the_record_may_be_its_own_argument),
        cmocka_unit_test(long_texts_are_cut_between_code_points),
        cmocka_unit_test(of_a_long_place_the_end_is_kept),
        cmocka_unit_test(what_a_terminal_would_obey_becomes_a_question_mark),
    };

    return cmocka_run_group_tests_name("base/error", tests, NULL, NULL);
}
