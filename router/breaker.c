/* breaker.c - circuit breaker for one cloud endpoint.
 *
 * A phone that keeps calling a dead endpoint pays in latency and battery, so after repeated failures the endpoint is
 * skipped for a while, then probed by a single request.
 *
 *            TRIP_AFTER failures in a row           now >= retry_at
 *   CLOSED ------------------------------> OPEN ---------------------> HALF_OPEN
 *     ^                                      ^      probe failed         |    |
 *     |                                      +---------------------------+    |
 *     +---------------------- probe succeeded --------------------------------+
 *
 * The pause doubles with each trip, from 5 s to 120 s: a phone's volume is too low for failure rates over a window.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "router/breaker.h"

enum { TRIP_AFTER = 3, PAUSE_FIRST_US = 5000000, PAUSE_MAX_US = 120000000 };

void sluice_breaker_init(sluice_breaker *b)
{
    memset(b, 0, sizeof *b);
}

bool sluice_breaker_would_admit(const sluice_breaker *b, uint64_t now_us)
{
    switch (b->state) {
    case SLUICE_BREAKER_CLOSED: return true;
    case SLUICE_BREAKER_OPEN: return now_us >= b->retry_at_us;
    case SLUICE_BREAKER_HALF_OPEN: return !b->probing;
    }
    return false;
}

bool sluice_breaker_admit(sluice_breaker *b, uint64_t now_us)
{
    if (!sluice_breaker_would_admit(b, now_us))
        return false;
    if (b->state != SLUICE_BREAKER_CLOSED) {
        b->state = SLUICE_BREAKER_HALF_OPEN;
        b->probing = true;
    }
    return true;
}

void sluice_breaker_succeeded(sluice_breaker *b)
{
    sluice_breaker_init(b);
}

void sluice_breaker_failed(sluice_breaker *b, uint64_t now_us)
{
    b->failures++;
    if (b->state == SLUICE_BREAKER_CLOSED && b->failures < TRIP_AFTER)
        return;
    uint64_t pause = PAUSE_FIRST_US;
    for (uint32_t i = 0; i < b->trips && pause < PAUSE_MAX_US; i++)
        pause *= 2;
    b->trips++;
    b->state = SLUICE_BREAKER_OPEN;
    b->probing = false;
    b->retry_at_us = now_us + (pause < PAUSE_MAX_US ? pause : PAUSE_MAX_US);
}
