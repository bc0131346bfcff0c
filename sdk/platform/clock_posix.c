/* clock_posix.c - monotonic and wall clock.
 *
 * A device that lost its battery wakes up in 1970 or at the date of its firmware.  Consent and budgets must not rest on such a
 * clock, so a wall time before this library existed is reported as not to be trusted.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _POSIX_C_SOURCE 200809L

#include <time.h>

#include "sdk/platform/default.h"

static const int64_t WALL_MS_MIN = 1704067200000; /* 2024-01-01T00:00:00Z */

uint64_t sluice_default_now_us(void *user)
{
    struct timespec ts;

    (void)user;
    if (clock_gettime(CLOCK_MONOTONIC, &ts) != 0) /* every system we run on has it */
        return 0;
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

int64_t sluice_default_wall_ms(void *user)
{
    struct timespec ts;
    int64_t ms;

    (void)user;
    if (clock_gettime(CLOCK_REALTIME, &ts) != 0)
        return -1;
    ms = (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
    return ms >= WALL_MS_MIN ? ms : -1;
}
