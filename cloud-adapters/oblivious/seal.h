/* seal.h - the client side of (chunked) oblivious HTTP: a grant and a plaintext become an envelope, and the sealed answer is opened again.
 *
 * seal.c is the only maker of an envelope.  The inner message is binary HTTP (RFC 9292), the encapsulation RFC 9458; streamed answers use
 * chunked oblivious HTTP (draft-ietf-ohai-chunked-ohttp).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_CLOUD_SEAL_H
#define SLUICE_CLOUD_SEAL_H

#include "policies/grant.h"
#include "sdk/platform/platform.h"

typedef struct sluice_answer_opener sluice_answer_opener; /* the response context of one envelope; single use */

/* Spend `grant` on `plaintext` (a binary HTTP request) and seal it to the destination's key.  The request is padded to a size class first
 * (zeros after a binary HTTP message are padding).  On success *envelope and *opener are the caller's.  The grant is spent in any case, and may be
 * closed at once.  Errors: the grant's own; SLUICE_ERR_FORMAT, _UNSUPPORTED or _INTEGRITY from the destination's key configuration; _NO_MEMORY. */
sluice_status sluice_seal(sluice_grant *grant, sluice_span plaintext, bool is_streamed, const sluice_platform *platform,
                          const sluice_allocator *al, sluice_envelope **envelope, sluice_answer_opener **opener, sluice_error *err);

/* The inner response as it is opened. */
typedef enum sluice_answer_part { SLUICE_ANSWER_STATUS = 1, SLUICE_ANSWER_HEADER, SLUICE_ANSWER_BODY, SLUICE_ANSWER_END } sluice_answer_part;
typedef struct sluice_answer_event { sluice_answer_part part; int http_status; sluice_span name, value, body; } sluice_answer_event;
typedef bool (*sluice_answer_fn)(const sluice_answer_event *event, void *user); /* false: stop, the feed then returns SLUICE_ERR_CANCELLED */

/* Informational responses and trailers are checked and left out: a STATUS is final and comes once.  Do not close the opener from inside on_event. */

/* Tell it the outer content type ("message/ohttp-res" or "message/ohttp-chunked-res") and then every body byte, cut anywhere.
 * SLUICE_ERR_INTEGRITY on a forgery, _FORMAT on bad binary HTTP or another content type than the request asked for (a chunked request has no
 * plain answer), _LIMIT when the outer body is longer than bytes_max. Plain answers are delivered at finish, chunked ones as chunks verify. */
sluice_status sluice_answer_begin(sluice_answer_opener *o, sluice_span content_type, size_t bytes_max, sluice_answer_fn on_event, void *user, sluice_error *err);
sluice_status sluice_answer_feed(sluice_answer_opener *o, sluice_span bytes, sluice_error *err);
/* The outer body has ended: SLUICE_ERR_TRUNCATED unless the sealed stream ended properly, and END was delivered. */
sluice_status sluice_answer_finish(sluice_answer_opener *o, sluice_error *err);
void sluice_answer_close(sluice_answer_opener *o); /* accepts NULL; wipes */

#endif
