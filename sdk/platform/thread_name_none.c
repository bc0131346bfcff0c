/* thread_name_none.c - threads without names.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/platform/default.h"

void sluice_default_thread_name(const char *name)
{
    (void)name;
}
