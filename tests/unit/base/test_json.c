/* test_json.c - strict JSON reading.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <time.h>

#include "sdk/base/json.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"

static sluice_status parse(const char *text, sluice_json_doc **doc, sluice_error *err)
{
    sluice_error_clear(err);
    return sluice_json_parse(doc, sluice_span_str(text), NULL, NULL, err);
}

static void values_arrive_with_their_places(void **state)
{
    static const char text[] = "{\n  \"a\": [1, -2.5e1, \"x\\u00e9\\n\"],\n  \"b\": {\"c\": true, \"d\": null}\n}\n";
    sluice_json_doc *doc;
    const sluice_json *root, *a, *b, *node;
    sluice_error err = SLUICE_ERROR_INIT;
    uint32_t line, column;

    (void)state;
    assert_int_equal(parse(text, &doc, &err), SLUICE_OK);
    root = sluice_json_root(doc);
    assert_int_equal(root->kind, SLUICE_JSON_OBJECT);
    assert_int_equal(root->n_children, 2);
    assert_null(root->key);
    a = sluice_json_get(root, "a");
    assert_int_equal(a->kind, SLUICE_JSON_ARRAY);
    assert_int_equal(a->n_children, 3);
    assert_int_equal(a->key_offset, 4);
    assert_int_equal(a->offset, 9);
    node = a->child;
    assert_true(node->number > 0.999 && node->number < 1.001);
    node = node->next;
    assert_true(node->number > -25.001 && node->number < -24.999);
    node = node->next;
    assert_string_equal(node->string, "x\xc3\xa9\n");
    assert_int_equal(node->string_len, 4);
    assert_null(node->next);
    b = sluice_json_get(root, "b");
    assert_ptr_equal(a->next, b);
    assert_true(sluice_json_get(b, "c")->boolean);
    assert_int_equal(sluice_json_get(b, "d")->kind, SLUICE_JSON_NULL);
    sluice_json_place(SLUICE_SPAN_LIT(text), sluice_json_get(b, "d")->key_offset, &line, &column);
    assert_int_equal(line, 3);
    assert_int_equal(column, 20);
    assert_null(sluice_json_get(root, "c"));
    assert_null(sluice_json_get(a, "c"));
    assert_null(sluice_json_get(NULL, "c"));
    sluice_json_close(doc);
}

static void what_is_not_json_is_refused_at_its_place(void **state)
{
    static const struct { const char *text; uint64_t offset; const char *message; } cases[] = {
        { "", 0, "a value is missing at the end" },
        { "  ", 2, "a value is missing at the end" },
        { "nul", 0, "not a JSON value" },
        { "nulll", 4, "text after the value" },
        { "{} {}", 3, "text after the value" },
        { "'a'", 0, "strings take double quotes" },
        { "[1,]", 3, "comma before the closing bracket" },
        { "[,1]", 1, "not a JSON value" },
        { "[1 2]", 3, "',' or ']' expected" },
        { "[1", 0, "array without its ']'" },
        { "[1,", 3, "a value is missing at the end" },
        { "[", 1, "a value is missing at the end" },
        { "{", 0, "object without its '}'" },
        { "{\"a\":1,", 0, "object without its '}'" },
        { "{\"a\":1", 0, "object without its '}'" },
        { "{\"a\":1,}", 7, "comma before the closing bracket" },
        { "{\"a\" 1}", 5, "':' expected after the key" },
        { "{a:1}", 1, "a key in double quotes expected" },
        { "{\"a\":1 \"b\":2}", 7, "',' or '}' expected" },
        { "[1}", 2, "',' or ']' expected" },
        { "01", 0, "number with a leading zero" },
        { "-01", 0, "number with a leading zero" },
        { "-", 0, "a number needs a digit here" },
        { "+1", 0, "not a JSON value" },
        { ".5", 0, "not a JSON value" },
        { "1.", 0, "number without a digit after its point" },
        { "1.e5", 0, "number without a digit after its point" },
        { "1e", 0, "number without a digit in its exponent" },
        { "1e+", 0, "number without a digit in its exponent" },
        { "0x10", 1, "text after the value" },
        { "NaN", 0, "not a JSON value" },
        { "Infinity", 0, "not a JSON value" },
        { "1e999", 0, "number is too large" },
        { "[-1e999]", 1, "number is too large" },
        { "1111111111111111111111111111111111111111111111111111111111111111", 0, "number with more than 63 characters" },
        { "\"a", 0, "string without its closing quote" },
        { "\"a\\\"", 0, "string without its closing quote" },
        { "\"a\\", 2, "unknown escape in a string" },
        { "\"\\x41\"", 1, "unknown escape in a string" },
        { "\"a\tb\"", 2, "control character in a string, write it as an escape" },
        { "\"\\u12\"", 1, "\\u needs four hexadecimal digits" },
        { "\"\\u12g4\"", 1, "\\u needs four hexadecimal digits" },
        { "\"\\u0000\"", 1, "\\u0000 in a string is not allowed" },
        { "{\"a\\u0000b\":1}", 3, "\\u0000 in a string is not allowed" },
        { "\"\\ud800\"", 1, "half of a surrogate pair" },
        { "\"\\ud800\\u0041\"", 1, "half of a surrogate pair" },
        { "\"\\ud800\\ud800\"", 1, "half of a surrogate pair" },
        { "\"\\udc00\"", 1, "half of a surrogate pair" },
        { "\"\\ud83d", 1, "half of a surrogate pair" },
        { "\xef\xbb\xbf{}", 0, "begins with a byte order mark" },
        { "\"\xff\"", 1, "not UTF-8" },
        { "\"\xc0\x80\"", 1, "not UTF-8" },
        { "\"\xed\xa0\x80\"", 1, "not UTF-8" },
        { "// c\n1", 0, "not a JSON value" },
        { "\v1", 0, "not a JSON value" },
        { "tru", 0, "not a JSON value" },
        { "\"\x7f\"", UINT64_MAX, NULL },
        { "\"\\ud83d\\ude00\"", UINT64_MAX, NULL },
        { " -0.0e-0 ", UINT64_MAX, NULL },
        { "111111111111111111111111111111111111111111111111111111111111111", UINT64_MAX, NULL },
        { "1e-999", UINT64_MAX, NULL },
        { "[[],{},\"\"]", UINT64_MAX, NULL },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sluice_json_doc *doc = (sluice_json_doc *)(uintptr_t)1;
        sluice_error err = SLUICE_ERROR_INIT;
        sluice_status st = parse(cases[i].text, &doc, &err);

        if (cases[i].message == NULL) {
            if (st != SLUICE_OK)
                fail_msg("%s: %s", cases[i].text, err.message);
            sluice_json_close(doc);
            continue;
        }
        if (st != SLUICE_ERR_FORMAT || doc != NULL || strcmp(err.message + strlen("json: "), cases[i].message) != 0 || !err.has_offset ||
            err.offset != cases[i].offset || err.line == 0)
            fail_msg("%s: %s at %llu: %s", cases[i].text, sluice_status_name(st), (unsigned long long)err.offset, err.message);
    }
}

static void a_nul_byte_is_refused_wherever_it_is(void **state)
{
    static const char *const texts[] = { "\0{}", "{\0}", "{}\0", "[1,\0]", "\"a\0b\"", "\"\\\0\"", "1\0" };
    static const size_t lens[] = { 3, 3, 3, 5, 5, 4, 2 };

    (void)state;
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        sluice_json_doc *doc;
        sluice_error err;

        assert_int_equal(sluice_json_parse(&doc, sluice_span_of(texts[i], lens[i]), NULL, NULL, &err), SLUICE_ERR_FORMAT);
        assert_null(doc);
    }
}

static void the_message_names_line_column_and_key(void **state)
{
    sluice_json_doc *doc;
    sluice_error err = SLUICE_ERROR_INIT;

    (void)state;
    assert_int_equal(parse("{\n \"endpoint\": 1,\n  \"endpoint\": 2}", &doc, &err), SLUICE_ERR_FORMAT);
    assert_string_equal(err.message, "json: duplicate key \"endpoint\"");
    assert_int_equal(err.line, 3);
    assert_int_equal(err.column, 3);
    assert_int_equal(err.offset, 20);
}

static void duplicate_keys_are_found_after_unescaping_and_in_every_object(void **state)
{
    static const struct { const char *text; bool duplicate; } cases[] = {
        { "{\"a\":1,\"\\u0061\":2}", true },
        { "{\"a\":1,\"A\":2}", false },
        { "{\"\":1,\"\":2}", true },
        { "[{\"a\":1},{\"a\":1}]", false },
        { "{\"a\":{\"a\":{\"a\":1}}}", false },
        { "{\"x\":{\"b\":1,\"c\":2,\"b\":3}}", true },
        { "{\"\\ud83d\\ude00\":1,\"\xf0\x9f\x98\x80\":2}", true },
        { "{\"d\":1,\"c\":1,\"b\":1,\"a\":1,\"e\":1,\"c\":1}", true },
        { "{\"d\":1,\"c\":1,\"b\":1,\"a\":1,\"e\":1,\"cc\":1}", false },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sluice_json_doc *doc;
        sluice_error err = SLUICE_ERROR_INIT;
        sluice_status st = parse(cases[i].text, &doc, &err);

        if (st != (cases[i].duplicate ? SLUICE_ERR_FORMAT : SLUICE_OK))
            fail_msg("%s: %s", cases[i].text, err.message);
        sluice_json_close(doc);
    }
}

static void limits_hold_to_the_byte_and_the_level(void **state)
{
    static const sluice_json_limits ten = { 10, 2 };
    sluice_json_doc *doc;
    sluice_error err;
    char deep[140];

    (void)state;
    assert_int_equal(sluice_json_parse(&doc, SLUICE_SPAN_LIT("[[      ]]"), &ten, NULL, &err), SLUICE_OK);
    sluice_json_close(doc);
    assert_int_equal(sluice_json_parse(&doc, SLUICE_SPAN_LIT("[[       ]]"), &ten, NULL, &err), SLUICE_ERR_LIMIT);
    assert_int_equal(sluice_json_parse(&doc, SLUICE_SPAN_LIT("[[[]]]"), &ten, NULL, &err), SLUICE_ERR_LIMIT);
    assert_int_equal(err.offset, 2);
    for (uint32_t depth = 1; depth <= 66; depth++) {
        const sluice_json_limits limits = { 0, depth };

        memset(deep, '[', depth);
        memset(deep + depth, ']', depth);
        assert_int_equal(sluice_json_parse(&doc, sluice_span_of(deep, 2 * (size_t)depth), &limits, NULL, &err),
                         depth <= 64 ? SLUICE_OK : SLUICE_ERR_LIMIT);
        sluice_json_close(doc);
    }
    memset(deep, '[', sizeof deep);
    assert_int_equal(sluice_json_parse(&doc, sluice_span_of(deep, sizeof deep), NULL, NULL, &err), SLUICE_ERR_LIMIT);
}

/* Texts of half a megabyte that are bad for something: each takes milliseconds, not minutes. */
static void hostile_texts_take_linear_time(void **state)
{
    enum { BYTES = 1 << 19 };
    static char text[BYTES + 1];
    sluice_json_doc *doc;
    sluice_error err;
    clock_t start = clock();
    size_t n;

    (void)state;
    for (size_t i = 0; i < BYTES; i++)
        text[i] = i == 0 ? '[' : i == BYTES - 1 ? ']' : i % 4 == 0 ? ',' : '1';
    assert_int_equal(sluice_json_parse(&doc, sluice_span_of(text, BYTES), NULL, NULL, &err), SLUICE_ERR_LIMIT); /* more than 131,072 values */

    for (size_t i = 0; i < BYTES; i++)
        text[i] = i == 0 ? '[' : i == BYTES - 1 ? ']' : i % 8 == 0 ? ',' : '1';
    assert_int_equal(sluice_json_parse(&doc, sluice_span_of(text, BYTES), NULL, NULL, &err), SLUICE_OK);
    sluice_json_close(doc);

    n = 0;
    text[n++] = '{'; /* many keys that share a long beginning */
    for (unsigned i = 0; n + 80 < BYTES; i++)
        n += (size_t)snprintf(text + n, 80, "%s\"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk%06u\":0", i > 0 ? "," : "", (i * 7919) % 100003);
    text[n++] = '}';
    assert_int_equal(sluice_json_parse(&doc, sluice_span_of(text, n), NULL, NULL, &err), SLUICE_OK);
    sluice_json_close(doc);

    memset(text, '\\', BYTES); /* one string of escapes */
    text[0] = text[BYTES - 1] = '"';
    assert_int_equal(sluice_json_parse(&doc, sluice_span_of(text, BYTES), NULL, NULL, &err), SLUICE_OK);
    sluice_json_close(doc);
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 20.0); /* quadratic would be minutes, also under a sanitizer */
}

static void nothing_is_left_in_freed_memory(void **state)
{
    fake_allocator fa;
    sluice_json_doc *doc;

    (void)state;
    fake_allocator_init(&fa);
    fa.canary = "my diagnosis";
    assert_int_equal(sluice_json_parse(&doc, SLUICE_SPAN_LIT("{\"my diagnosis\":\"my diagnosis\"}"), NULL, &fa.al, NULL), SLUICE_OK);
    sluice_json_close(doc);
    assert_int_equal(sluice_json_parse(&doc, SLUICE_SPAN_LIT("{\"my diagnosis\":1,\"my diagnosis\":2}"), NULL, &fa.al, NULL), SLUICE_ERR_FORMAT);
    assert_int_equal(fa.n_canaries_freed, 0);
    assert_true(fake_allocator_is_clean(&fa));
}

static void the_doc_does_not_need_the_text(void **state)
{
    char text[] = "{\"key\":\"value\"}";
    sluice_json_doc *doc;

    (void)state;
    assert_int_equal(sluice_json_parse(&doc, sluice_span_str(text), NULL, NULL, NULL), SLUICE_OK);
    memset(text, 'x', sizeof text);
    assert_string_equal(sluice_json_get(sluice_json_root(doc), "key")->string, "value");
    sluice_json_close(doc);
    sluice_json_close(NULL);
    assert_null(sluice_json_root(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_arrive_with_their_places),
        cmocka_unit_test(what_is_not_json_is_refused_at_its_place),
        cmocka_unit_test(a_nul_byte_is_refused_wherever_it_is),
        cmocka_unit_test(the_message_names_line_column_and_key),
        cmocka_unit_test(duplicate_keys_are_found_after_unescaping_and_in_every_object),
        cmocka_unit_test(limits_hold_to_the_byte_and_the_level),
        cmocka_unit_test(hostile_texts_take_linear_time),
        cmocka_unit_test(nothing_is_left_in_freed_memory),
        cmocka_unit_test(the_doc_does_not_need_the_text),
    };

    return cmocka_run_group_tests_name("base/json", tests, NULL, NULL);
}
