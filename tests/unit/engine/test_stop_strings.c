/* test_stop_strings.c - what comes out is the text up to the first stop string, however the text is chopped.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>

#include "local-engine/stop_strings.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"

enum { TEXT_MAX = 4096 };

static uint64_t seed = 1;

static uint32_t pick_below(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((seed >> 33) % n);
}

static void collect(sluice_span text, void *user)
{
    assert_true(text.len > 0);
    assert_true(sluice_buf_append_span(user, text));
}

/* The end of the text by looking everywhere: the first place where a string ends, less the longest that ends there. */
static size_t cut_at(sluice_span text, const sluice_span *strings, size_t n)
{
    for (size_t end = 1; end <= text.len; end++) {
        size_t longest = 0;

        for (size_t i = 0; i < n; i++)
            if (strings[i].len <= end && strings[i].len > longest && memcmp(text.ptr + end - strings[i].len, strings[i].ptr, strings[i].len) == 0)
                longest = strings[i].len;
        if (longest > 0)
            return end - longest;
    }
    return text.len;
}

static void any_chopping_gives_the_text_up_to_the_first_stop_string(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < 3000; round++) {
        uint8_t pool[SLUICE_STOP_STRINGS_MAX][SLUICE_STOP_STRING_BYTES_MAX], text[600];
        sluice_span strings[SLUICE_STOP_STRINGS_MAX], whole = { text, pick_below(600) };
        const uint32_t n = pick_below(SLUICE_STOP_STRINGS_MAX + 1), letters = 1 + pick_below(3), longest = 1 + pick_below(round % 10 == 0 ? 256 : 12);
        sluice_stop_strings s;
        sluice_buf out;
        size_t want;
        bool stopped = false;

        for (uint32_t i = 0; i < n; i++) {
            strings[i] = sluice_span_of(pool[i], 1 + pick_below(longest));
            for (size_t k = 0; k < strings[i].len; k++)
                pool[i][k] = (uint8_t)('a' + pick_below(letters));
        }
        for (size_t k = 0; k < whole.len; k++)
            text[k] = (uint8_t)('a' + pick_below(letters + round % 2));
        want = cut_at(whole, strings, n);
        sluice_buf_init(&out, NULL, TEXT_MAX);
        assert_int_equal(sluice_stop_strings_init(&s, strings, n, false, NULL, NULL), SLUICE_OK);
        for (int twice = 0; twice < 2; twice++) {
            sluice_stop_strings_reset(&s);
            sluice_buf_clear(&out);
            stopped = false;
            for (size_t at = 0; at < whole.len;) {
                size_t len = 1 + pick_below(round % 3 == 0 ? 300 : 6);

                len = len < whole.len - at ? len : whole.len - at;
                stopped = sluice_stop_strings_push(&s, sluice_span_of(text + at, len), collect, &out);
                assert_true(out.len <= want); /* nothing of a stop string, at no time */
                at += len;
            }
            sluice_stop_strings_flush(&s, collect, &out);
            assert_int_equal(stopped, s.has_stopped);
            assert_true(stopped || want == whole.len);
            assert_int_equal(out.len, want);
            assert_true(want == 0 || memcmp(out.ptr, text, want) == 0);
        }
        sluice_stop_strings_deinit(&s);
        sluice_buf_deinit(&out);
    }
}

static void text_that_cannot_become_a_stop_string_comes_at_once(void **state)
{
    const sluice_span strings[] = { SLUICE_SPAN_LIT("</s>"), SLUICE_SPAN_LIT("STOP") };
    sluice_stop_strings s;
    sluice_buf out;

    (void)state;
    sluice_buf_init(&out, NULL, TEXT_MAX);
    assert_int_equal(sluice_stop_strings_init(&s, strings, 2, false, NULL, NULL), SLUICE_OK);
    assert_false(sluice_stop_strings_push(&s, SLUICE_SPAN_LIT("ab <"), collect, &out));
    assert_true(sluice_span_eq_str(sluice_buf_span(&out), "ab "));
    assert_false(sluice_stop_strings_push(&s, SLUICE_SPAN_LIT("b>ST"), collect, &out));
    assert_true(sluice_span_eq_str(sluice_buf_span(&out), "ab <b>"));
    assert_true(sluice_stop_strings_push(&s, SLUICE_SPAN_LIT("OP more"), collect, &out));
    assert_true(sluice_stop_strings_push(&s, SLUICE_SPAN_LIT("more"), collect, &out));
    sluice_stop_strings_flush(&s, collect, &out);
    assert_true(sluice_span_eq_str(sluice_buf_span(&out), "ab <b>"));
    assert_int_equal(s.stopped_by, 1);
    sluice_stop_strings_deinit(&s);
    sluice_buf_deinit(&out);
}

static void code_points_come_whole_where_asked(void **state)
{
    static const char text[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z";
    const sluice_span strings[] = { SLUICE_SPAN_LIT("zzz") };
    sluice_stop_strings s;
    sluice_buf out;

    (void)state;
    sluice_buf_init(&out, NULL, TEXT_MAX);
    for (size_t n = 0; n < 2; n++) {
        sluice_buf_clear(&out);
        assert_int_equal(sluice_stop_strings_init(&s, strings, n, true, NULL, NULL), SLUICE_OK);
        for (size_t i = 0; i + 1 < sizeof text; i++) {
            assert_false(sluice_stop_strings_push(&s, sluice_span_of(text + i, 1), collect, &out));
            assert_true(sluice_utf8_valid(sluice_buf_span(&out)));
        }
        sluice_stop_strings_flush(&s, collect, &out);
        assert_true(sluice_span_eq_str(sluice_buf_span(&out), text));
        /* a broken tail comes out at the end, and not before */
        sluice_stop_strings_reset(&s);
        sluice_buf_clear(&out);
        assert_false(sluice_stop_strings_push(&s, SLUICE_SPAN_LIT("x\xe2\x82"), collect, &out));
        assert_int_equal(out.len, 1);
        sluice_stop_strings_flush(&s, collect, &out);
        assert_int_equal(out.len, 3);
        sluice_stop_strings_deinit(&s);
    }
    sluice_buf_deinit(&out);
}

static void what_is_no_stop_string_is_refused(void **state)
{
    static uint8_t bytes[SLUICE_STOP_STRING_BYTES_MAX + 1];
    sluice_span strings[SLUICE_STOP_STRINGS_MAX + 1];
    sluice_stop_strings s;

    (void)state;
    for (size_t i = 0; i <= SLUICE_STOP_STRINGS_MAX; i++)
        strings[i] = sluice_span_of(bytes, 1);
    assert_int_equal(sluice_stop_strings_init(&s, strings, SLUICE_STOP_STRINGS_MAX + 1, false, NULL, NULL), SLUICE_ERR_LIMIT);
    strings[1].len = 0;
    assert_int_equal(sluice_stop_strings_init(&s, strings, 2, false, NULL, NULL), SLUICE_ERR_ARGUMENT);
    strings[1].len = sizeof bytes;
    assert_int_equal(sluice_stop_strings_init(&s, strings, 2, false, NULL, NULL), SLUICE_ERR_LIMIT);
}

static sluice_status open_and_close(const sluice_allocator *al, void *user)
{
    sluice_stop_strings s;
    const sluice_status st = sluice_stop_strings_init(&s, user, 1, false, al, NULL);

    if (st == SLUICE_OK)
        sluice_stop_strings_deinit(&s);
    return st;
}

static void every_failed_allocation_is_a_status(void **state)
{
    sluice_span string = SLUICE_SPAN_LIT("stop");

    (void)state;
    assert_int_equal(fake_allocator_sweep(open_and_close, &string), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_chopping_gives_the_text_up_to_the_first_stop_string),
        cmocka_unit_test(text_that_cannot_become_a_stop_string_comes_at_once),
        cmocka_unit_test(code_points_come_whole_where_asked),
        cmocka_unit_test(what_is_no_stop_string_is_refused),
        cmocka_unit_test(every_failed_allocation_is_a_status),
    };

    return cmocka_run_group_tests_name("stop_strings", tests, NULL, NULL);
}
