/* random_apple.c - the kernel's generator through arc4random_buf(), which cannot fail on Apple systems.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "sdk/platform/default.h"

sluice_status sluice_default_random(void *user, void *out, size_t len, sluice_error *err)
{
    (void)user;
    (void)err;
    if (len > 0)
        arc4random_buf(out, len);
    return SLUICE_OK;
}
