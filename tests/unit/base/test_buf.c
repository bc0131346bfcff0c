/* test_buf.c - buffers that grow up to a maximum.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/base/base.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"

static void appends_keep_their_order_through_growth(void **state)
{
    fake_allocator fa;
    sluice_buf b;

    (void)state;
    fake_allocator_init(&fa);
    sluice_buf_init(&b, &fa.al, 100000);
    for (unsigned i = 0; i < 100000; i++)
        assert_true(sluice_buf_append_byte(&b, (uint8_t)(i * 7)));
    for (unsigned i = 0; i < 100000; i++)
        assert_int_equal(b.ptr[i], (uint8_t)(i * 7));
    assert_true(fa.n_allocs < 16); /* doubling, not one by one */
    sluice_buf_deinit(&b);
    assert_true(fake_allocator_is_clean(&fa));
}

static void the_maximum_is_exact_and_an_append_is_all_or_nothing(void **state)
{
    sluice_buf b;
    sluice_error err;

    (void)state;
    sluice_buf_init(&b, NULL, 10);
    assert_true(sluice_buf_append_str(&b, "123456789"));
    assert_false(sluice_buf_append_str(&b, "ab"));
    assert_int_equal(b.len, 9);
    assert_int_equal(sluice_buf_error(&b, "test", &err), SLUICE_ERR_LIMIT);
    assert_string_equal(err.message, "test: more than 10 bytes");
    assert_true(sluice_buf_append_byte(&b, 'a'));
    assert_false(sluice_buf_append_byte(&b, 'b'));
    assert_false(sluice_buf_append(&b, "x", SIZE_MAX));
    assert_true(sluice_buf_append(&b, NULL, 0));
    sluice_buf_deinit(&b);
}

static void failed_memory_is_told_from_the_maximum(void **state)
{
    fake_allocator fa;
    sluice_buf b;

    (void)state;
    fake_allocator_init(&fa);
    fa.fail_at = 1;
    sluice_buf_init(&b, &fa.al, 1000);
    assert_true(sluice_buf_append_str(&b, "kept"));
    for (int i = 0; i < 60; i++)
        assert_true(sluice_buf_append_byte(&b, 'x'));
    assert_false(sluice_buf_append_byte(&b, 'x'));
    assert_int_equal(sluice_buf_error(&b, "test", NULL), SLUICE_ERR_NO_MEMORY);
    assert_int_equal(b.len, 64);
    assert_true(sluice_buf_append_byte(&b, 'y'));
    sluice_buf_deinit(&b);
    assert_true(fake_allocator_is_clean(&fa));
}

static void its_own_bytes_may_be_appended(void **state)
{
    sluice_buf b;

    (void)state;
    sluice_buf_init(&b, NULL, 4096);
    assert_true(sluice_buf_append_str(&b, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"));
    for (int i = 0; i < 3; i++) {
        size_t len = b.len;

        assert_true(sluice_buf_append_span(&b, sluice_buf_span(&b)));
        assert_int_equal(b.len, 2 * len);
        assert_memory_equal(b.ptr, b.ptr + len, len);
    }
    sluice_buf_deinit(&b);
}

static void formatted_text_of_any_length_fits(void **state)
{
    fake_allocator fa;
    sluice_buf b;

    (void)state;
    fake_allocator_init(&fa);
    sluice_buf_init(&b, &fa.al, 5000);
    for (int width = 0; width < 600; width += 37) {
        sluice_buf_clear(&b);
        assert_true(sluice_buf_appendf(&b, "<%*d>", width, 7));
        assert_int_equal(b.len, (width < 1 ? 1 : width) + 2);
        assert_int_equal(b.ptr[0], '<');
        assert_int_equal(b.ptr[b.len - 1], '>');
    }
    assert_false(sluice_buf_appendf(&b, "%*d", 6000, 1));
    assert_true(b.failed_limit);
    sluice_buf_deinit(&b);
    assert_true(fake_allocator_is_clean(&fa));
}

static void consume_drops_from_the_front(void **state)
{
    sluice_buf b;

    (void)state;
    sluice_buf_init(&b, NULL, 100);
    assert_true(sluice_buf_append_str(&b, "hello world"));
    sluice_buf_consume(&b, 6);
    assert_true(sluice_span_eq_str(sluice_buf_span(&b), "world"));
    for (size_t i = b.len; i < 11; i++)
        assert_int_equal(b.ptr[i], 0); /* what was moved away from is wiped */
    sluice_buf_consume(&b, 99);
    assert_int_equal(b.len, 0);
    sluice_buf_consume(&b, 1);
    sluice_buf_deinit(&b);
}

static void nothing_it_held_is_left_in_freed_memory(void **state)
{
    fake_allocator fa;
    sluice_buf b;
    char *s;

    (void)state;
    fake_allocator_init(&fa);
    fa.canary = "CANARY-42";
    sluice_buf_init(&b, &fa.al, 100000);
    for (int i = 0; i < 500; i++)
        assert_true(sluice_buf_append_str(&b, "CANARY-42 "));
    sluice_buf_clear(&b);
    assert_true(sluice_buf_appendf(&b, "%300s", "CANARY-42"));
    s = sluice_buf_take_str(&b);
    assert_non_null(s);
    sluice_str_free(&fa.al, s);
    sluice_buf_deinit(&b);
    assert_int_equal(fa.n_canaries_freed, 0);
    assert_true(fake_allocator_is_clean(&fa));
}

static void take_gives_a_string_whose_length_tells_its_size(void **state)
{
    fake_allocator fa;
    sluice_buf b;
    char *s;

    (void)state;
    fake_allocator_init(&fa);
    sluice_buf_init(&b, &fa.al, 100);
    s = sluice_buf_take_str(&b);
    assert_string_equal(s, "");
    sluice_str_free(&fa.al, s);
    assert_true(sluice_buf_append(&b, "ab\0cd", 5));
    s = sluice_buf_take_str(&b);
    assert_string_equal(s, "ab");
    assert_int_equal(b.len, 0);
    sluice_str_free(&fa.al, s); /* stops the test if the size were wrong */
    assert_true(sluice_buf_append_str(&b, "again"));
    fa.fail_at = fa.n_allocs;
    assert_null(sluice_buf_take_str(&b));
    assert_true(fake_allocator_is_clean(&fa));
}

static void a_zeroed_buffer_may_be_released(void **state)
{
    sluice_buf b;

    (void)state;
    memset(&b, 0, sizeof b);
    sluice_buf_deinit(&b);
    sluice_buf_deinit(&b);
    sluice_buf_clear(&b);
    assert_false(sluice_buf_append_byte(&b, 1)); /* its maximum is 0 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_keep_their_order_through_growth),
        cmocka_unit_test(the_maximum_is_exact_and_an_append_is_all_or_nothing),
        cmocka_unit_test(failed_memory_is_told_from_the_maximum),
        cmocka_unit_test(its_own_bytes_may_be_appended),
        cmocka_unit_test(formatted_text_of_any_length_fits),
        cmocka_unit_test(consume_drops_from_the_front),
        cmocka_unit_test(nothing_it_held_is_left_in_freed_memory),
        cmocka_unit_test(take_gives_a_string_whose_length_tells_its_size),
        cmocka_unit_test(a_zeroed_buffer_may_be_released),
    };

    return cmocka_run_group_tests_name("base/buf", tests, NULL, NULL);
}
