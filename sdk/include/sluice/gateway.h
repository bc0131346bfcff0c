/* sluice/gateway.h - the server side of (chunked) oblivious HTTP, for gateways and tests.
 *
 * A phone never needs it; a linker drops it.  samples/gateway is built on it.
 *
 * Threads: a keys object is immutable after init; an exchange belongs to one thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_GATEWAY_H
#define SLUICE_GATEWAY_H

#include "sluice/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Key configuration of one X25519 key: writes application/ohttp-keys (one config, RFC 9458 3.2) into out, *len in: capacity (64 is enough), out: length. */
SLUICE_API sluice_status sluice_gateway_key_config(uint8_t key_id, const uint8_t secret[32], uint8_t *out, size_t *len, sluice_error *err);

typedef struct sluice_gateway_exchange sluice_gateway_exchange;

/* Decapsulate a whole encapsulated request.  content_type is "message/ohttp-req" or "message/ohttp-chunked-req".  *http is the inner request, parsed:
 * borrowed until close.  SLUICE_ERR_FORMAT (also for another content type), _INTEGRITY (wrong key, forged), _UNSUPPORTED (key id or suite are not
 * this key's), _TRUNCATED, _LIMIT, _NO_MEMORY. */
typedef struct sluice_gateway_header { sluice_span name, value; } sluice_gateway_header;
typedef struct sluice_gateway_request {
    sluice_span method, scheme, authority, path, body;
    const sluice_gateway_header *headers;
    size_t n_headers;
    sluice_span enc;        /* encapsulated key: unique per request, for a replay cache */
    bool is_chunked;        /* the client takes a chunked answer */
} sluice_gateway_request;
SLUICE_API sluice_status sluice_gateway_open(sluice_gateway_exchange **out, uint8_t key_id, const uint8_t secret[32], const char *content_type,
                                             sluice_span body, const sluice_allocator *al, sluice_gateway_request *http, sluice_error *err);

/* Encapsulate the answer.  `random` 32 fresh random bytes.  Plain: begin, body…, end give everything at end.  Chunked: each call gives sealed bytes
 * to send at once.  Output goes to the callback. */
typedef sluice_status (*sluice_gateway_out_fn)(sluice_span bytes, void *user);
SLUICE_API const char *sluice_gateway_response_type(const sluice_gateway_exchange *x); /* outer content type */
SLUICE_API sluice_status sluice_gateway_respond_begin(sluice_gateway_exchange *x, const uint8_t random[32], int http_status, const sluice_gateway_header *headers,
                                                      size_t n_headers, sluice_gateway_out_fn out, void *user, sluice_error *err);
SLUICE_API sluice_status sluice_gateway_respond_body(sluice_gateway_exchange *x, sluice_span body, sluice_error *err);
SLUICE_API sluice_status sluice_gateway_respond_end(sluice_gateway_exchange *x, sluice_error *err);
SLUICE_API void sluice_gateway_close(sluice_gateway_exchange *x); /* accepts NULL; wipes */

#ifdef __cplusplus
}
#endif
#endif
