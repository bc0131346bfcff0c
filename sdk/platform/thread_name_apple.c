/* thread_name_apple.c - the calling thread's name, as debuggers and profilers show it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _DARWIN_C_SOURCE

#include <pthread.h>

#include "sdk/platform/default.h"

void sluice_default_thread_name(const char *name)
{
    (void)pthread_setname_np(name);
}
