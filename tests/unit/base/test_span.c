/* test_span.c - UTF-8, spans, string copies, checked arithmetic and the allocator funnel.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/base/base.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"

/* The definition, spelled out: encode every code point and nothing else. */
static size_t encode(uint32_t c, uint8_t out[4])
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xc0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xe0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (c & 0x3f));
    return 4;
}

static void every_code_point_is_valid_and_nothing_else(void **state)
{
    uint32_t n_valid[5] = { 0 };

    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        uint8_t bytes[4];
        size_t n = encode(c, bytes);
        bool want = c < 0xd800 || c > 0xdfff;

        if (sluice_utf8_valid(sluice_span_of(bytes, n)) != want)
            fail_msg("U+%04X", c);
        n_valid[n] += want;
        for (size_t cut = 1; want && cut < n; cut++) {
            assert_false(sluice_utf8_valid(sluice_span_of(bytes, cut)));
            assert_int_equal(sluice_utf8_whole(sluice_span_of(bytes, cut)), 0);
        }
        assert_int_equal(sluice_utf8_whole(sluice_span_of(bytes, n)), n);
    }
    /* all strings of up to three bytes: exactly as many are valid single code points as there are code points */
    for (uint32_t v = 0; v < 1u << 24; v += 1) {
        uint8_t bytes[3] = { (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v };
        bool valid;

        if (bytes[0] < 0xe0 || bytes[0] > 0xf0)
            continue;
        if (sluice_utf8_step(sluice_span_of(bytes, 3), 0, &valid) == 3 && valid)
            n_valid[3]--;
    }
    assert_int_equal(n_valid[3], 0);
}

static void step_takes_a_broken_piece_as_a_whole(void **state)
{
    static const struct { const char *bytes; size_t n; bool valid; } cases[] = {
        { "a", 1, true },          { "\x80", 1, false },          { "\xc0\x80", 1, false },     { "\xc3", 1, false },
        { "\xc3" "a", 1, false },  { "\xe2\x82", 2, false },      { "\xe2\x82" "a", 2, false }, { "\xe2\x82\xac", 3, true },
        { "\xed\xa0\x80", 1, false }, { "\xf0\x9f\x98", 3, false }, { "\xf4\x90\x80\x80", 1, false }, { "\xf5\x80\x80\x80", 1, false },
        { "\xf0\x80\x80\x80", 1, false }, { "\xe0\x9f\x80", 1, false },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool valid;

        assert_int_equal(sluice_utf8_step(sluice_span_str(cases[i].bytes), 0, &valid), cases[i].n);
        assert_int_equal(valid, cases[i].valid);
    }
}

static void whole_cuts_only_what_more_bytes_could_complete(void **state)
{
    (void)state;
    assert_int_equal(sluice_utf8_whole(SLUICE_SPAN_EMPTY), 0);
    assert_int_equal(sluice_utf8_whole(SLUICE_SPAN_LIT("abc")), 3);
    assert_int_equal(sluice_utf8_whole(SLUICE_SPAN_LIT("ab\xf0\x9f\x98")), 2);
    assert_int_equal(sluice_utf8_whole(SLUICE_SPAN_LIT("ab\x80\x80\x80\x80")), 6);
    assert_int_equal(sluice_utf8_whole(SLUICE_SPAN_LIT("ab\xff")), 3);
}

static void copies_always_end_and_tell_when_they_were_cut(void **state)
{
    char small[4];

    (void)state;
    assert_true(sluice_copy_str(small, sizeof small, "abc"));
    assert_string_equal(small, "abc");
    assert_false(sluice_copy_str(small, sizeof small, "abcd"));
    assert_string_equal(small, "abc");
    assert_false(sluice_copy_str(small, sizeof small, "ab\xc3\xa9"));
    assert_string_equal(small, "ab");
    assert_true(sluice_copy_str(small, sizeof small, NULL));
    assert_string_equal(small, "");
    assert_false(sluice_copy_str(small, 0, ""));
}

static void spans_compare_by_content(void **state)
{
    (void)state;
    assert_true(sluice_span_eq(SLUICE_SPAN_EMPTY, sluice_span_str(NULL)));
    assert_true(sluice_span_eq_str(SLUICE_SPAN_LIT("ab"), "ab"));
    assert_false(sluice_span_eq_str(SLUICE_SPAN_LIT("ab"), "abc"));
    assert_false(sluice_span_eq_str(SLUICE_SPAN_LIT("ab"), NULL));
}

static void arithmetic_that_overflows_leaves_the_output(void **state)
{
    size_t n = 7;
    uint64_t u = 7;

    (void)state;
    assert_false(sluice_add_size(SIZE_MAX, 1, &n));
    assert_false(sluice_mul_size(SIZE_MAX / 2, 3, &n));
    assert_false(sluice_add_u64(UINT64_MAX, 1, &u));
    assert_false(sluice_mul_u64(UINT64_MAX, 2, &u));
    assert_int_equal(n, 7);
    assert_int_equal(u, 7);
    assert_true(sluice_mul_size(6, 7, &n));
    assert_int_equal(n, 42);
}

static void the_allocator_hears_every_size(void **state)
{
    fake_allocator fa;
    char *s;
    uint8_t *zeros;

    (void)state;
    fake_allocator_init(&fa);
    fa.canary = "secret";
    s = sluice_strdup(&fa.al, "a secret");
    assert_string_equal(s, "a secret");
    assert_int_equal(fa.live_bytes, sizeof "a secret");
    sluice_str_free(&fa.al, s);
    assert_int_equal(fa.n_canaries_freed, 0);
    zeros = sluice_alloc_array(&fa.al, 3, 5);
    for (size_t i = 0; i < 15; i++)
        assert_int_equal(zeros[i], 0);
    sluice_free(&fa.al, zeros, 15);
    assert_true(fake_allocator_is_clean(&fa));
    assert_null(sluice_alloc(&fa.al, 0));
    assert_null(sluice_alloc(&fa.al, SIZE_MAX));
    assert_null(sluice_alloc_array(&fa.al, SIZE_MAX / 2, 4));
    assert_null(sluice_strdup(&fa.al, NULL));
    assert_int_equal(fa.n_allocs, 2); /* none of the four got as far as the allocator */
    sluice_free(&fa.al, NULL, 9);
    sluice_str_free(&fa.al, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_is_valid_and_nothing_else),
        cmocka_unit_test(step_takes_a_broken_piece_as_a_whole),
        cmocka_unit_test(whole_cuts_only_what_more_bytes_could_complete),
        cmocka_unit_test(copies_always_end_and_tell_when_they_were_cut),
        cmocka_unit_test(spans_compare_by_content),
        cmocka_unit_test(arithmetic_that_overflows_leaves_the_output),
        cmocka_unit_test(the_allocator_hears_every_size),
    };

    return cmocka_run_group_tests_name("base/span", tests, NULL, NULL);
}
