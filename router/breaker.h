/* breaker.h - circuit breaker for one cloud endpoint: the struct is the state, time is an argument.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_ROUTER_BREAKER_H
#define SLUICE_ROUTER_BREAKER_H

#include "sdk/base/base.h"

typedef enum sluice_breaker_state { SLUICE_BREAKER_CLOSED = 0, SLUICE_BREAKER_OPEN = 1, SLUICE_BREAKER_HALF_OPEN = 2 } sluice_breaker_state;
typedef struct sluice_breaker {
    sluice_breaker_state state;
    uint32_t failures, trips;
    uint64_t retry_at_us;
    bool probing;
} sluice_breaker;
void sluice_breaker_init(sluice_breaker *b);
bool sluice_breaker_would_admit(const sluice_breaker *b, uint64_t now_us); /* changes nothing */
bool sluice_breaker_admit(sluice_breaker *b, uint64_t now_us);             /* claims the probe when half-open */
void sluice_breaker_succeeded(sluice_breaker *b);
void sluice_breaker_failed(sluice_breaker *b, uint64_t now_us);            /* an abandoned probe counts as failed */

#endif
