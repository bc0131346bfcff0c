/* test_arena.c - everything of one request, released at once.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/base/base.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"

static void pieces_are_zeroed_aligned_and_apart(void **state)
{
    fake_allocator fa;
    sluice_arena a;
    uint8_t *pieces[400];

    (void)state;
    fake_allocator_init(&fa);
    sluice_arena_init(&a, &fa.al, 1 << 24);
    for (size_t i = 0; i < 400; i++) {
        size_t len = i * 97 % 40000;

        pieces[i] = sluice_arena_alloc(&a, len);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 16, 0);
        for (size_t j = 0; j < len; j++)
            assert_int_equal(pieces[i][j], 0);
        memset(pieces[i], (int)(i & 0xff), len);
    }
    for (size_t i = 0; i < 400; i++)
        for (size_t j = 0; j < i * 97 % 40000; j++)
            assert_int_equal(pieces[i][j], i & 0xff);
    sluice_arena_deinit(&a);
    assert_true(fake_allocator_is_clean(&fa));
}

static void small_requests_share_a_block(void **state)
{
    fake_allocator fa;
    sluice_arena a;

    (void)state;
    fake_allocator_init(&fa);
    sluice_arena_init(&a, &fa.al, 1 << 20);
    for (int i = 0; i < 100; i++)
        assert_non_null(sluice_arena_alloc(&a, 32));
    assert_int_equal(fa.n_allocs, 1);
    assert_non_null(sluice_arena_alloc(&a, 200000)); /* a block of its own, and the first goes on being used */
    assert_non_null(sluice_arena_alloc(&a, 32));
    assert_int_equal(fa.n_allocs, 2);
    sluice_arena_deinit(&a);
    assert_true(fake_allocator_is_clean(&fa));
}

static void the_maximum_counts_what_was_handed_out(void **state)
{
    sluice_arena a;

    (void)state;
    sluice_arena_init(&a, NULL, 64);
    assert_non_null(sluice_arena_alloc(&a, 1));
    assert_int_equal(a.used_bytes, 16);
    assert_null(sluice_arena_alloc(&a, 49));
    assert_null(sluice_arena_alloc(&a, SIZE_MAX));
    assert_null(sluice_arena_alloc(&a, SIZE_MAX - 16));
    assert_non_null(sluice_arena_alloc(&a, 48));
    assert_null(sluice_arena_alloc(&a, 1));
    sluice_arena_deinit(&a);
    assert_int_equal(a.used_bytes, 0);
    assert_non_null(sluice_arena_alloc(&a, 64)); /* it may be used again */
    sluice_arena_deinit(&a);
    sluice_arena_init(&a, NULL, 0);
    assert_null(sluice_arena_alloc(&a, 1));
    sluice_arena_deinit(&a);
}

static void copies_end_with_a_nul_where_they_are_strings(void **state)
{
    fake_allocator fa;
    sluice_arena a;
    sluice_span s;

    (void)state;
    fake_allocator_init(&fa);
    fa.canary = "prompt of the user";
    sluice_arena_init(&a, &fa.al, 4096);
    assert_string_equal(sluice_arena_strdup(&a, SLUICE_SPAN_LIT("prompt of the user")), "prompt of the user");
    assert_string_equal(sluice_arena_strdup(&a, SLUICE_SPAN_EMPTY), "");
    s = sluice_arena_copy(&a, SLUICE_SPAN_LIT("prompt of the user"));
    assert_true(sluice_span_eq_str(s, "prompt of the user"));
    assert_int_equal(sluice_arena_copy(&a, SLUICE_SPAN_EMPTY).len, 0);
    assert_null(sluice_arena_copy(&a, sluice_span_of(s.ptr, 5000)).ptr);
    sluice_arena_deinit(&a);
    assert_int_equal(fa.n_canaries_freed, 0);
    assert_true(fake_allocator_is_clean(&fa));
}

static void failed_memory_leaves_the_arena_as_it_was(void **state)
{
    fake_allocator fa;
    sluice_arena a;

    (void)state;
    fake_allocator_init(&fa);
    sluice_arena_init(&a, &fa.al, 1 << 20);
    assert_non_null(sluice_arena_alloc(&a, 4000));
    fa.fail_at = 1;
    assert_null(sluice_arena_alloc(&a, 4000));
    assert_int_equal(a.used_bytes, 4000);
    assert_non_null(sluice_arena_alloc(&a, 4000));
    sluice_arena_deinit(&a);
    assert_true(fake_allocator_is_clean(&fa));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_zeroed_aligned_and_apart),
        cmocka_unit_test(small_requests_share_a_block),
        cmocka_unit_test(the_maximum_counts_what_was_handed_out),
        cmocka_unit_test(copies_end_with_a_nul_where_they_are_strings),
        cmocka_unit_test(failed_memory_leaves_the_arena_as_it_was),
    };

    return cmocka_run_group_tests_name("base/arena", tests, NULL, NULL);
}
