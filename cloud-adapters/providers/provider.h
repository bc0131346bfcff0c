/* provider.h - the wire format of a cloud model: build the inner HTTP request, read the inner answer.
 *
 * One vtable row per dialect; "openai-chat" is the first.  Nothing here does I/O: bytes in, bytes out.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_CLOUD_PROVIDER_H
#define SLUICE_CLOUD_PROVIDER_H

#include "sdk/base/base.h"

typedef struct sluice_provider_message { const char *role; sluice_span text; } sluice_provider_message;
typedef struct sluice_provider_request {
    const char *authority, *path, *model;   /* of the inner request */
    const sluice_provider_message *messages;
    size_t n_messages;
    uint32_t max_tokens;
    float temperature;                      /* < 0 or not a number: not sent, for models that take no temperature */
    bool is_streamed;
    int64_t date_ms;                        /* for the inner Date header (replay protection); < 0: none */
} sluice_provider_request;

typedef enum sluice_provider_part { SLUICE_PROVIDER_TEXT = 1, SLUICE_PROVIDER_USAGE, SLUICE_PROVIDER_DONE } sluice_provider_part;
typedef struct sluice_provider_event {
    sluice_provider_part part;
    sluice_span text;
    uint32_t prompt_tokens, output_tokens;
    bool is_truncated;                      /* DONE with finish_reason length */
} sluice_provider_event;
/* TEXT as it comes, USAGE when the server says it, DONE exactly once, from reader_finish: text before it is provisional.  false stops: the call then
 * returns SLUICE_ERR_CANCELLED.  Do not close the reader from inside. */
typedef bool (*sluice_provider_fn)(const sluice_provider_event *event, void *user);

typedef struct sluice_provider_reader sluice_provider_reader;
typedef struct sluice_provider {
    const char *name;
    /* Append the whole binary HTTP request (RFC 9292, known length) to out. */
    sluice_status (*build)(const sluice_provider_request *request, sluice_buf *out, const sluice_allocator *al, sluice_error *err);
    sluice_status (*reader_open)(sluice_provider_reader **out, const sluice_allocator *al, sluice_provider_fn on_event, void *user, sluice_error *err);
    /* Inner status and headers decide the form (event stream, JSON, error body). */
    sluice_status (*reader_status)(sluice_provider_reader *r, int http_status, sluice_error *err);
    sluice_status (*reader_header)(sluice_provider_reader *r, sluice_span name, sluice_span value, sluice_error *err);
    /* SLUICE_ERR_FORMAT, _LIMIT, _REMOTE (an error in the middle of a stream), _CANCELLED, _NO_MEMORY; a failure is final. */
    sluice_status (*reader_feed)(sluice_provider_reader *r, sluice_span body, sluice_error *err);
    /* The inner body has ended.  Without the dialect's end mark: SLUICE_ERR_TRUNCATED.  An error body: SLUICE_ERR_REMOTE with the server's type
     * (never its text) in the message. */
    sluice_status (*reader_finish)(sluice_provider_reader *r, sluice_error *err);
    void (*reader_close)(sluice_provider_reader *r);
} sluice_provider;

const sluice_provider *sluice_provider_find(const char *adapter); /* NULL when unknown */

#endif
