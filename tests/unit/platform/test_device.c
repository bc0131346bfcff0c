/* test_device.c - clocks, randomness, processor features and device state.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <time.h>

#include "sdk/platform/platform.h"
#include "tests/support/cm.h"

static void the_default_platform_is_complete(void **state)
{
    sluice_error err;

    (void)state;
    assert_int_equal(sluice_platform_check(sluice_platform_default(), &err), SLUICE_OK);
    assert_null(sluice_platform_default()->log);
}

static void the_clock_never_runs_backwards(void **state)
{
    const sluice_platform *p = sluice_platform_default();
    uint64_t last = sluice_now_us(p);

    (void)state;
    for (int i = 0; i < 10000; i++) {
        uint64_t now = sluice_now_us(p);

        assert_true(now >= last);
        last = now;
    }
}

static void the_wall_clock_is_the_system_s(void **state)
{
    int64_t ms = sluice_wall_ms(sluice_platform_default());
    int64_t now = (int64_t)time(NULL);

    (void)state;
    assert_true(now < 1704067200 ? ms < 0 : ms / 1000 - now <= 1 && now - ms / 1000 <= 1);
}

static void random_bytes_differ_and_fill_everything(void **state)
{
    const sluice_platform *p = sluice_platform_default();
    static uint8_t big[100000];
    uint8_t a[32], b[32];
    unsigned seen[256] = { 0 };

    (void)state;
    assert_int_equal(sluice_random(p, a, sizeof a, NULL), SLUICE_OK);
    assert_int_equal(sluice_random(p, b, sizeof b, NULL), SLUICE_OK);
    assert_memory_not_equal(a, b, sizeof a);
    assert_int_equal(sluice_random(p, big, sizeof big, NULL), SLUICE_OK);
    for (size_t i = 0; i < sizeof big; i++)
        seen[big[i]]++;
    for (int i = 0; i < 256; i++)
        assert_in_range(seen[i], 200, 600); /* 390 expected; ten standard deviations away */
    assert_int_equal(sluice_random(p, NULL, 0, NULL), SLUICE_OK);
}

static void the_device_is_described_without_nonsense(void **state)
{
    const sluice_platform *p = sluice_platform_default();
    sluice_device_state d;

    (void)state;
    p->device_state(p->user, &d);
    assert_true(d.memory_total_bytes == 0 || d.memory_available_bytes <= d.memory_total_bytes);
    assert_in_range(d.n_cores, 0, 100000);
    assert_true(d.n_fast_cores <= d.n_cores);
    assert_true(d.battery_percent >= -1 && d.battery_percent <= 100);
    assert_true(d.thermal <= SLUICE_THERMAL_CRITICAL);
    assert_int_equal(d.cpu_features, sluice_cpu_features());
#ifdef __linux__
    assert_true(d.memory_total_bytes > 0);
    assert_true(d.n_cores > 0);
#endif
}

/* The kernel's own list of what it supports, which knows about saved registers too. */
static void features_agree_with_the_kernel(void **state)
{
    static const struct { const char *flag; uint32_t bit; } rows[] = {
#if defined(__x86_64__)
        { " avx2 ", SLUICE_CPU_AVX2 },     { " fma ", SLUICE_CPU_FMA },
        { " f16c ", SLUICE_CPU_F16C },     { " avx512_vnni ", SLUICE_CPU_AVX512_VNNI },
        { " avx_vnni ", SLUICE_CPU_AVX_VNNI },
#else
        { " asimd ", SLUICE_CPU_NEON },    { " asimddp ", SLUICE_CPU_DOTPROD },
        { " i8mm ", SLUICE_CPU_I8MM },     { " asimdhp ", SLUICE_CPU_FP16 },
#endif
    };
#if defined(__x86_64__)
    static const char key[] = "flags";
#else
    static const char key[] = "Features"; /* not there under an emulator that shows the host's file */
#endif
    static char line[16384];
    FILE *f = fopen("/proc/cpuinfo", "r");
    bool found = false;

    (void)state;
    while (f != NULL && !found && fgets(line, sizeof line - 1, f) != NULL)
        found = strncmp(line, key, sizeof key - 1) == 0;
    if (f != NULL)
        fclose(f);
    if (!found) {
        print_message("no /proc/cpuinfo with features\n");
        skip();
    }
    line[strcspn(line, "\n")] = ' ';
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if ((strstr(line, rows[i].flag) != NULL) != ((sluice_cpu_features() & rows[i].bit) != 0))
            fail_msg("%s", rows[i].flag);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_default_platform_is_complete),
        cmocka_unit_test(the_clock_never_runs_backwards),
        cmocka_unit_test(the_wall_clock_is_the_system_s),
        cmocka_unit_test(random_bytes_differ_and_fill_everything),
        cmocka_unit_test(the_device_is_described_without_nonsense),
        cmocka_unit_test(features_agree_with_the_kernel),
    };

    return cmocka_run_group_tests_name("platform/device", tests, NULL, NULL);
}
