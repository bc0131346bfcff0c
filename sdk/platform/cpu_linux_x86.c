/* cpu_linux_x86.c - instruction sets of an x86 processor.
 *
 * CPUID says what the processor has; XCR0 (read by XGETBV) says which registers the system saves when it switches threads.
 * An instruction set is reported only when both agree.  Bit positions: Intel SDM volume 2A, CPUID; volume 1, 13.1.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <cpuid.h>

#include "sdk/platform/platform.h"

enum {
    XCR0_AVX = 0x6,    /* SSE and AVX state */
    XCR0_AVX512 = 0xe6 /* and the opmask and both halves of the upper ZMM state */
};

static uint32_t xcr0(void)
{
    uint32_t low, high;

    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static bool has(uint32_t reg, unsigned bit)
{
    return (reg >> bit & 1u) != 0;
}

uint32_t sluice_cpu_features(void)
{
    uint32_t a, b, c, d, saved;
    uint32_t found = 0;

    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || !has(c, 27) /* OSXSAVE: XGETBV may be used */ || !has(c, 28) /* AVX */)
        return 0;
    saved = xcr0();
    if ((saved & XCR0_AVX) != XCR0_AVX)
        return 0;
    if (has(c, 12))
        found |= SLUICE_CPU_FMA;
    if (has(c, 29))
        found |= SLUICE_CPU_F16C;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0)
        return found;
    uint32_t n_subleaves = a;
    if (has(b, 5))
        found |= SLUICE_CPU_AVX2;
    if ((saved & XCR0_AVX512) == XCR0_AVX512 && has(b, 16) /* F */ && has(b, 17) /* DQ */ && has(b, 30) /* BW */ && has(b, 31) /* VL */) {
        found |= SLUICE_CPU_AVX512;
        if (has(c, 11))
            found |= SLUICE_CPU_AVX512_VNNI;
    }
    if (n_subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && has(a, 4))
        found |= SLUICE_CPU_AVX_VNNI;
    return found;
}
