/* bhttp.h - binary HTTP messages (RFC 9292): writing, and incremental strict reading of both framings.
 *
 * Writing appends to a buffer: a field section is built with sluice_bhttp_field() into a buffer of its own, then handed to the message
 * functions.  Reading takes bytes cut anywhere; the events do not depend on the cuts, except that content arrives in pieces.
 *
 * Refused (SLUICE_ERR_FORMAT): another kind of message than was asked for, a method that is no token, a path that does not begin with "/" (and
 * is not "*"), status codes outside 100 … 599, names that are not lower-case tokens (so no pseudo-fields), values with control characters or
 * white space around them, a field that crosses its section, padding that is not zero.
 * A message that stops where RFC 9292 3.8 does not let it stop is SLUICE_ERR_TRUNCATED.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_CLOUD_BHTTP_H
#define SLUICE_CLOUD_BHTTP_H

#include "sdk/base/base.h"

/* ---- writing.  SLUICE_ERR_ARGUMENT when a part is not what HTTP allows, _LIMIT or _NO_MEMORY from the buffer. */
sluice_status sluice_bhttp_field(sluice_buf *section, sluice_span name, sluice_span value, sluice_error *err);
sluice_status sluice_bhttp_request(sluice_buf *out, sluice_span method, sluice_span scheme, sluice_span authority, sluice_span path,
                                   sluice_span field_section, sluice_span content, sluice_error *err); /* known length */
sluice_status sluice_bhttp_response(sluice_buf *out, int http_status, sluice_span field_section, sluice_span content, sluice_error *err); /* known length */

/* Indeterminate length: head, then any number of chunks, then the end. */
sluice_status sluice_bhttp_response_head(sluice_buf *out, int http_status, sluice_span field_section, sluice_error *err);
sluice_status sluice_bhttp_chunk(sluice_buf *out, sluice_span content, sluice_error *err); /* an empty one writes nothing: it would be the end */
sluice_status sluice_bhttp_end(sluice_buf *out, sluice_error *err);                       /* no more content, no trailers */

/* QUIC variable-length integer (RFC 9000, 16), in the shortest form.  False when it does not fit the buffer or 62 bits. */
bool sluice_varint_append(sluice_buf *out, uint64_t value);
/* Bytes of the integer that begins with `first`: 1, 2, 4 or 8; and its value, `bytes` holding all of it. */
size_t sluice_varint_len(uint8_t first);
uint64_t sluice_varint_value(const uint8_t *bytes);

/* ---- reading */
typedef enum sluice_bhttp_kind { SLUICE_BHTTP_IS_REQUEST = 1, SLUICE_BHTTP_IS_RESPONSE = 2 } sluice_bhttp_kind;
typedef enum sluice_bhttp_part {
    SLUICE_BHTTP_REQUEST = 1, /* method, scheme, authority, path */
    SLUICE_BHTTP_STATUS,      /* http_status; 1xx may come before the final one, each with its headers */
    SLUICE_BHTTP_HEADER,      /* name, value */
    SLUICE_BHTTP_BODY,        /* body, never empty */
    SLUICE_BHTTP_TRAILER      /* name, value */
} sluice_bhttp_part;
typedef struct sluice_bhttp_event {
    sluice_bhttp_part part;
    int http_status;
    sluice_span method, scheme, authority, path, name, value, body; /* borrowed during the call */
} sluice_bhttp_event;
typedef sluice_status (*sluice_bhttp_fn)(const sluice_bhttp_event *event, void *user); /* not SLUICE_OK: the feed stops and returns it; err is the callback's to word */

/* Zero means: 64 KiB of control data and fields, 128 fields, 16 informational responses, no content at all. */
typedef struct sluice_bhttp_limits { size_t head_bytes_max, fields_max, content_bytes_max; } sluice_bhttp_limits;

typedef struct sluice_bhttp_reader {
    sluice_bhttp_kind kind;
    sluice_bhttp_limits limits;
    sluice_bhttp_fn on_event;
    void *user;
    sluice_buf held;         /* the beginning of an item that is not complete */
    int state;               /* of bhttp.c */
    int http_status;
    bool is_indeterminate, is_trailer, has_begun_part;
    uint64_t left;           /* bytes left of the section or of the content */
    size_t head_bytes, n_fields, n_informational;
    uint64_t content_bytes, offset;
    sluice_status failed;    /* sticky */
} sluice_bhttp_reader;

void sluice_bhttp_reader_init(sluice_bhttp_reader *r, sluice_bhttp_kind kind, const sluice_bhttp_limits *limits, const sluice_allocator *al,
                              sluice_bhttp_fn on_event, void *user);
sluice_status sluice_bhttp_reader_feed(sluice_bhttp_reader *r, sluice_span bytes, sluice_error *err); /* FORMAT with offset, LIMIT, NO_MEMORY */
sluice_status sluice_bhttp_reader_finish(sluice_bhttp_reader *r, sluice_error *err); /* the message has ended: TRUNCATED when it may not end here */
void sluice_bhttp_reader_deinit(sluice_bhttp_reader *r);                             /* wipes; safe on a zeroed struct */

/* RFC 9110: a lower-case token; a value without control characters and without white space around it. */
bool sluice_http_name_ok(sluice_span name);
bool sluice_http_value_ok(sluice_span value);
bool sluice_http_media_type_is(sluice_span content_type, const char *want); /* `want` in lower case; parameters are ignored */

#endif
