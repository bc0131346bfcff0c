/* sse.h - incremental parser of server-sent events (WHATWG HTML, 9.2.6); any split of the bytes gives the same events.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_CLOUD_SSE_H
#define SLUICE_CLOUD_SSE_H

#include "sdk/base/base.h"

typedef bool (*sluice_sse_fn)(sluice_span event_type /* "message" when not named */, sluice_span data, void *user); /* false stops: CANCELLED */
typedef struct sluice_sse {
    sluice_buf line, data, type;
    bool at_start, has_data, last_cr;
    uint8_t bom_seen;
    size_t event_bytes_max;
    sluice_sse_fn on_event;
    void *user;
} sluice_sse;
void sluice_sse_init(sluice_sse *s, const sluice_allocator *al, size_t line_bytes_max, size_t event_bytes_max, sluice_sse_fn on_event, void *user);
sluice_status sluice_sse_feed(sluice_sse *s, sluice_span bytes, sluice_error *err); /* LIMIT, FORMAT (not UTF-8), CANCELLED, NO_MEMORY */
void sluice_sse_deinit(sluice_sse *s);

#endif
