/* device_none.c - a device about which nothing is known but its processor's features.
 *
 * An app on such a system replaces device_state with its own.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/platform/default.h"

void sluice_default_device_state(void *user, sluice_device_state *out)
{
    (void)user;
    memset(out, 0, sizeof *out);
    out->battery_percent = -1;
    out->cpu_features = sluice_cpu_features();
}
