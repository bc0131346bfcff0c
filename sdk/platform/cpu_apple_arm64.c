/* cpu_apple_arm64.c - instruction sets of an Apple processor.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _DARWIN_C_SOURCE

#include <sys/sysctl.h>

#include "sdk/platform/platform.h"

static bool has(const char *name)
{
    int value = 0;
    size_t len = sizeof value;

    return sysctlbyname(name, &value, &len, NULL, 0) == 0 && value != 0;
}

uint32_t sluice_cpu_features(void)
{
    uint32_t found = SLUICE_CPU_NEON; /* every arm64 processor of theirs */

    if (has("hw.optional.arm.FEAT_DotProd"))
        found |= SLUICE_CPU_DOTPROD;
    if (has("hw.optional.arm.FEAT_I8MM"))
        found |= SLUICE_CPU_I8MM;
    if (has("hw.optional.arm.FEAT_FP16"))
        found |= SLUICE_CPU_FP16;
    return found;
}
