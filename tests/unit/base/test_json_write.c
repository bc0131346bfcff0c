/* test_json_write.c - appending JSON to a buffer.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <float.h>
#include <locale.h>
#include <math.h>

#include "sdk/base/json.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"

static void commas_and_brackets_fall_into_place(void **state)
{
    sluice_buf b;
    sluice_json_writer w;

    (void)state;
    sluice_buf_init(&b, NULL, 4096);
    sluice_json_begin(&w, &b);
    sluice_json_object_open(&w, NULL);
    sluice_json_str(&w, "a", "x");
    sluice_json_array_open(&w, "list");
    sluice_json_int(&w, NULL, INT64_MIN);
    sluice_json_uint(&w, NULL, UINT64_MAX);
    sluice_json_object_open(&w, NULL);
    sluice_json_object_close(&w);
    sluice_json_array_open(&w, NULL);
    sluice_json_array_close(&w);
    sluice_json_array_close(&w);
    sluice_json_bool(&w, "t", true);
    sluice_json_bool(&w, "f", false);
    sluice_json_str(&w, "none", NULL);
    sluice_json_raw(&w, "raw", SLUICE_SPAN_LIT("{\"k\":1}"));
    sluice_json_num(&w, "n", 0.125, 3);
    sluice_json_object_close(&w);
    assert_true(w.ok);
    assert_int_equal(w.depth, 0);
    assert_true(sluice_buf_append_byte(&b, 0));
    assert_string_equal((char *)b.ptr,
                        "{\"a\":\"x\",\"list\":[-9223372036854775808,18446744073709551615,{},[]],\"t\":true,\"f\":false,\"none\":null,\"raw\":{\"k\":1},\"n\":0.125}");
    sluice_buf_deinit(&b);
}

static const char *written_span(sluice_span value)
{
    static char text[512];
    sluice_buf b;
    sluice_json_writer w;

    sluice_buf_init(&b, NULL, sizeof text - 1);
    sluice_json_begin(&w, &b);
    sluice_json_span(&w, NULL, value);
    assert_true(w.ok);
    memcpy(text, b.ptr, b.len);
    text[b.len] = '\0';
    sluice_buf_deinit(&b);
    return text;
}

static void strings_are_escaped_and_repaired(void **state)
{
    (void)state;
    assert_string_equal(written_span(SLUICE_SPAN_EMPTY), "\"\"");
    assert_string_equal(written_span(SLUICE_SPAN_LIT("a\"b\\c/\b\f\n\r\t\x01\x1f\x7f")), "\"a\\\"b\\\\c/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\"");
    assert_string_equal(written_span(SLUICE_SPAN_LIT("\xc3\xa9\xf0\x9f\x98\x80")), "\"\xc3\xa9\xf0\x9f\x98\x80\"");
    assert_string_equal(written_span(SLUICE_SPAN_LIT("a\xff\xe2\x82z\xed\xa0")), "\"a\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbd\xef\xbf\xbd\"");
    assert_string_equal(written_span(SLUICE_SPAN_LIT("a\0b")), "\"a\xef\xbf\xbd" "b\"");
}

static const char *written_num(double value, int decimals)
{
    static char text[128];
    sluice_buf b;
    sluice_json_writer w;

    sluice_buf_init(&b, NULL, sizeof text - 1);
    sluice_json_begin(&w, &b);
    sluice_json_num(&w, NULL, value, decimals);
    assert_true(w.ok);
    memcpy(text, b.ptr, b.len);
    text[b.len] = '\0';
    sluice_buf_deinit(&b);
    return text;
}

static void numbers_have_the_decimals_asked_for(void **state)
{
    (void)state;
    assert_string_equal(written_num(0.5, 0), "0");
    assert_string_equal(written_num(2.0 / 3.0, 4), "0.6667");
    assert_string_equal(written_num(-1.5, 2), "-1.50");
    assert_string_equal(written_num(0.1, -1), "0.1");
    assert_string_equal(written_num(1.0 / 3.0, -1), "0.3333333333333333");
    assert_string_equal(written_num(NAN, 2), "null");
    assert_string_equal(written_num(INFINITY, -1), "null");
    assert_string_equal(written_num(-INFINITY, 2), "null");
    assert_true(strlen(written_num(-999999999999999.0, 99)) <= 63); /* what the reader takes */
    assert_string_equal(written_num(1e300, 2), "1e+300");
}

static void numbers_come_back_equal(void **state)
{
    static const double values[] = { 0.1, 1.0 / 3.0, DBL_MAX, -DBL_MAX, DBL_MIN, 4.9e-324, 1e15, 123456789012345680.0, 6.02214076e23, -0.0 };

    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        sluice_json_doc *doc;
        const char *text = written_num(values[i], -1);

        if (sluice_json_parse(&doc, sluice_span_str(text), NULL, NULL, NULL) != SLUICE_OK)
            fail_msg("%s", text);
        assert_memory_equal(&sluice_json_root(doc)->number, &values[i], sizeof(double));
        sluice_json_close(doc);
    }
}

static void the_locale_changes_nothing(void **state)
{
    static const char *const names[] = { "de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "C.UTF-8" };
    const char *set = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && set == NULL; i++)
        set = setlocale(LC_NUMERIC, names[i]);
    assert_string_equal(written_num(1234.5, 2), "1234.50");
    assert_string_equal(written_num(0.1, -1), "0.1");
    (void)setlocale(LC_NUMERIC, "C");
}

static void a_failure_sticks(void **state)
{
    sluice_buf b;
    sluice_json_writer w;

    (void)state;
    sluice_buf_init(&b, NULL, 8);
    sluice_json_begin(&w, &b);
    sluice_json_array_open(&w, NULL);
    sluice_json_str(&w, NULL, "too long for eight");
    sluice_json_int(&w, NULL, 1);
    sluice_json_array_close(&w);
    assert_false(w.ok);
    assert_true(b.failed_limit);
    assert_int_equal(sluice_buf_error(&b, "test", NULL), SLUICE_ERR_LIMIT);
    sluice_buf_clear(&b);
    sluice_json_begin(&w, &b);
    sluice_json_array_close(&w);
    assert_false(w.ok); /* closed what was not open */
    sluice_buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commas_and_brackets_fall_into_place),
        cmocka_unit_test(strings_are_escaped_and_repaired),
        cmocka_unit_test(numbers_have_the_decimals_asked_for),
        cmocka_unit_test(numbers_come_back_equal),
        cmocka_unit_test(the_locale_changes_nothing),
        cmocka_unit_test(a_failure_sticks),
    };

    return cmocka_run_group_tests_name("base/json_write", tests, NULL, NULL);
}
