/* cpu_linux_arm64.c - instruction sets of an arm64 processor, as the kernel reports them.
 *
 * The kernel lists only what every core has and what it saves.  The bits are part of its ABI (Documentation/arch/arm64/elf_hwcaps);
 * they are spelled out because older headers lack the newer names.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <sys/auxv.h>

#include "sdk/platform/platform.h"

enum {
    HWCAP_BIT_ASIMD = 1 << 1,
    HWCAP_BIT_ASIMDHP = 1 << 10, /* half-precision arithmetic in vectors */
    HWCAP_BIT_ASIMDDP = 1 << 20, /* SDOT, UDOT */
    HWCAP2_BIT_I8MM = 1 << 13
};

uint32_t sluice_cpu_features(void)
{
    unsigned long caps = getauxval(AT_HWCAP);
    unsigned long caps2 = getauxval(AT_HWCAP2);
    uint32_t found = 0;

    if ((caps & HWCAP_BIT_ASIMD) == 0)
        return 0;
    found |= SLUICE_CPU_NEON;
    if ((caps & HWCAP_BIT_ASIMDDP) != 0)
        found |= SLUICE_CPU_DOTPROD;
    if ((caps & HWCAP_BIT_ASIMDHP) != 0)
        found |= SLUICE_CPU_FP16;
    if ((caps2 & HWCAP2_BIT_I8MM) != 0)
        found |= SLUICE_CPU_I8MM;
    return found;
}
