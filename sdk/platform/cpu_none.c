/* cpu_none.c - a processor of which nothing is assumed: portable C does all the work.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/platform/platform.h"

uint32_t sluice_cpu_features(void)
{
    return 0;
}
