/* transport.h - one vtable between sealed envelopes and the network.
 *
 * Two implementations: libcurl on mbedTLS (transport_curl.c) and the simulator's (tests/).  Nothing above it knows which.  It takes
 * envelopes, never plaintext.
 *
 * Threads: open, cancel and step are called from one thread (the orchestrator); wake may be called from any.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_CLOUD_TRANSPORT_H
#define SLUICE_CLOUD_TRANSPORT_H

#include "policies/grant.h"
#include "sdk/platform/platform.h"

typedef enum sluice_exchange_event_kind {
    SLUICE_EXCHANGE_CONNECTED = 1, /* TLS handshake done, certificate and pin verified */
    SLUICE_EXCHANGE_SENT,          /* the request is written: from here on the far side may have it */
    SLUICE_EXCHANGE_STATUS,        /* http_status */
    SLUICE_EXCHANGE_HEADER,        /* name (lower case), value */
    SLUICE_EXCHANGE_BODY,          /* body */
    SLUICE_EXCHANGE_END,           /* whole response received; terminal */
    SLUICE_EXCHANGE_FAILED         /* error; terminal */
} sluice_exchange_event_kind;

typedef struct sluice_exchange_event {
    sluice_exchange_event_kind kind;
    int http_status;
    sluice_span name, value, body; /* borrowed during the call */
    sluice_error error;            /* FAILED: NETWORK, TIMEOUT, PIN_MISMATCH, TLS, LIMIT, TRUNCATED; where = endpoint id */
    bool was_sent;                 /* FAILED: some request bytes may have left */
} sluice_exchange_event;

typedef struct sluice_exchange sluice_exchange;
/* Called inside step().  May call cancel on its own exchange.  Nothing follows a terminal event or a cancel. */
typedef void (*sluice_exchange_fn)(const sluice_exchange_event *event, void *user);

typedef struct sluice_exchange_limits {
    uint64_t deadline_us;          /* absolute, platform's monotonic clock */
    uint32_t connect_ms, first_byte_ms, gap_ms; /* 0: 10 s, none, 20 s */
    size_t response_bytes_max;
} sluice_exchange_limits;

typedef struct sluice_transport {
    size_t size;
    void *user;
    /* The envelope is borrowed until the terminal event or cancel.  *out is owned by the transport and gone after the terminal event. */
    sluice_status (*open)(void *user, const sluice_envelope *envelope, const sluice_exchange_limits *limits, sluice_exchange_fn on_event, void *event_user, sluice_exchange **out, sluice_error *err);
    void (*cancel)(void *user, sluice_exchange *exchange);
    /* Deliver what is ready; wait up to max_wait_ms when nothing is.  Returns the number of live exchanges. */
    size_t (*step)(void *user, uint32_t max_wait_ms);
    void (*wake)(void *user);      /* let a waiting step() return; any thread */
    void (*close)(void *user);     /* cancels what is live and releases */
} sluice_transport;

sluice_status sluice_transport_curl_open(sluice_transport *out, const sluice_platform *platform, const sluice_allocator *al, sluice_error *err);
const char *sluice_transport_curl_version(void); /* "libcurl/8.21.0 mbedTLS/3.6.7" */

#endif
