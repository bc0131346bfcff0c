/* random_linux.c - the kernel's generator.
 *
 * getrandom() with no flags blocks until the generator has been seeded, once after boot, and never gives weak bytes.
 * There is no fallback to a device file: one that is missing or replaced in a chroot would fail silently.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <sys/random.h>
#include <sys/types.h>

#include "sdk/platform/default.h"

sluice_status sluice_default_random(void *user, void *out, size_t len, sluice_error *err)
{
    uint8_t *at = out;
    size_t left = len;

    (void)user;
    while (left > 0) {
        ssize_t got = getrandom(at, left, 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            int number = got < 0 ? errno : EIO;

            sluice_wipe(out, len);
            (void)sluice_errno_set(err, number, "random: the system gives no random bytes", NULL);
            if (err != NULL)
                err->status = SLUICE_ERR_IO;
            return SLUICE_ERR_IO;
        }
        at += got;
        left -= (size_t)got;
    }
    return SLUICE_OK;
}
