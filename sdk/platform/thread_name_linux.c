/* thread_name_linux.c - the calling thread's name, as debuggers and profilers show it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <sys/prctl.h>

#include "sdk/platform/default.h"

void sluice_default_thread_name(const char *name)
{
    (void)prctl(PR_SET_NAME, name); /* the kernel keeps 15 bytes */
}
