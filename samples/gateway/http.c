/* http.c - the gateway's inner door: takes sealed requests out of HTTP, opens them, seals what the backend answers.
 *
 *   POST /ohttp     message/ohttp-req or message/ohttp-chunked-req (RFC 9458, draft-ietf-ohai-chunked-ohttp)
 *   GET  /healthz   "ok"
 *
 * What is wrong before a request could be opened is answered in the clear, with problem details and nothing of the request; what
 * is wrong after that is answered sealed, so that nobody in between learns it.
 *
 * libmicrohttpd runs one thread per connection, so a handler may wait for the backend.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include "samples/gateway/parts.h"

#include <curl/curl.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "sluice/gateway.h"

enum {
    CONNECTION_IDLE_S = 60,
    GATHER_MS = 50,  /* tokens that come within this go into one sealed chunk */
    PAD_BYTES = 256, /* the plaintext of a sealed chunk is a multiple of it */
    OUTER_BYTES_MAX = 8 << 20
};

#define PROBLEM_KEY  "https://iana.org/assignments/http-problem-types#ohttp-key" /* RFC 9458, 5.3 */
#define PROBLEM_DATE "https://iana.org/assignments/http-problem-types#date"      /* RFC 9458, 6.5.2 */

struct gateway_http {
    gateway_http_options options;
    struct MHD_Daemon *daemon;
    atomic_ulong n_requests;
    atomic_bool fault_is_spent;
};

/* One HTTP request, from its first header line to the end of its answer. */
typedef struct exchange {
    gateway_http *owner;
    unsigned long number; /* in the log */
    uint64_t began_ms, deadline_ms;
    const char *content_type; /* a literal of ours */
    gateway_buf request;
    sluice_gateway_exchange *sealed;
    gateway_stream *answer;
    gateway_buf piece; /* plaintext on its way into the seal */
    gateway_buf out;   /* sealed bytes on their way to the phone */
    size_t out_at, out_total, n_pieces;
    bool is_padded_sse, is_padded_json, is_ended, is_broken;
    gateway_fault fault;
} exchange;

static void exchange_free(exchange *x)
{
    if (x == NULL)
        return;
    gateway_stream_leave(x->answer);
    sluice_gateway_close(x->sealed);
    gateway_buf_free(&x->request);
    gateway_buf_free(&x->piece);
    gateway_buf_free(&x->out);
    free(x);
}

/* ---- answers in the clear ------------------------------------------------------------------------------ */

static enum MHD_Result respond_text(struct MHD_Connection *c, unsigned status, const char *content_type, const char *text)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    enum MHD_Result result;

    if (r == NULL)
        return MHD_NO;
    (void)MHD_add_response_header(r, "Content-Type", content_type);
    (void)MHD_add_response_header(r, "Cache-Control", "no-store");
    result = MHD_queue_response(c, status, r);
    MHD_destroy_response(r);
    return result;
}

static enum MHD_Result respond_problem(struct MHD_Connection *c, unsigned status, const char *type, const char *title)
{
    char text[256];

    (void)snprintf(text, sizeof text, "{\"type\":\"%s\",\"title\":\"%s\"}", type, title); /* both literals */
    gateway_log("answered %u in the clear: %s", status, title);
    return respond_text(c, status, "application/problem+json", text);
}

/* ---- sealing ------------------------------------------------------------------------------------------- */

static sluice_status take_sealed(sluice_span bytes, void *user)
{
    exchange *x = user;

    if (x->out_at == x->out.len)
        x->out_at = x->out.len = 0; /* all of it has gone out: begin at the front again */
    x->out_total += bytes.len;
    return gateway_buf_add(&x->out, bytes.ptr, bytes.len) ? SLUICE_OK : SLUICE_ERR_LIMIT;
}

static bool seal_begin(exchange *x, int status, const char *content_type, const char *date)
{
    const sluice_gateway_header headers[] = {
        { { (const uint8_t *)"content-type", 12 }, { (const uint8_t *)content_type, strlen(content_type) } },
        { { (const uint8_t *)"date", 4 }, { (const uint8_t *)date, strlen(date) } },
    };
    sluice_error err = SLUICE_ERROR_INIT;
    uint8_t random[32];

    return gateway_random(random, sizeof random) &&
           sluice_gateway_respond_begin(x->sealed, random, status, headers, date[0] != '\0' ? 2 : 1, take_sealed, x, &err) == SLUICE_OK;
}

/* The length of a sealed chunk tells the length of a word, so it is rounded up: an event stream takes comment lines between
 * its events, JSON takes white space after its end. */
static void pad(exchange *x, bool is_end)
{
    gateway_buf *p = &x->piece;
    char fill[2 * PAD_BYTES];
    const size_t least = x->is_padded_sse ? 2 : 1;
    size_t n = (PAD_BYTES - p->len % PAD_BYTES) % PAD_BYTES;

    if (x->is_padded_json ? !is_end : !(x->is_padded_sse && p->len >= 2 && memcmp(p->ptr + p->len - 2, "\n\n", 2) == 0))
        return;
    if (n == 0)
        return;
    if (n < least)
        n += PAD_BYTES;
    memset(fill, ' ', n);
    if (x->is_padded_sse) {
        fill[0] = ':';
        fill[n - 1] = '\n';
    }
    (void)gateway_buf_add(p, fill, n); /* without memory for it, without padding */
}

static bool seal_piece(exchange *x, bool is_end)
{
    sluice_error err = SLUICE_ERROR_INIT;
    bool ok = true;

    pad(x, is_end);
    x->n_pieces++;
    if (x->piece.len > 0)
        ok = sluice_gateway_respond_body(x->sealed, (sluice_span){ x->piece.ptr, x->piece.len }, &err) == SLUICE_OK;
    x->piece.len = 0;
    if (ok && is_end)
        ok = sluice_gateway_respond_end(x->sealed, &err) == SLUICE_OK;
    x->is_ended = is_end;
    return ok;
}

/* Take from the backend until there are sealed bytes to send. */
static bool fill_out(exchange *x)
{
    while (x->out_at == x->out.len && !x->is_ended) {
        switch (gateway_stream_read(x->answer, &x->piece, x->is_padded_sse ? GATHER_MS : 0, x->deadline_ms)) {
        case GATEWAY_STREAM_BYTES:
            if (x->is_padded_json)
                break; /* padded, and so sealed, at its end */
            if (!seal_piece(x, false))
                return false;
            break;
        case GATEWAY_STREAM_END:
            if (!seal_piece(x, true))
                return false;
            break;
        case GATEWAY_STREAM_BROKEN: return false; /* no final chunk: the phone knows that the answer is cut */
        }
    }
    return true;
}

static ssize_t on_read(void *user, uint64_t at, char *data, size_t cap)
{
    exchange *x = user;
    size_t n;

    (void)at;
    if (!x->is_broken && !fill_out(x)) {
        x->is_broken = true;
        gateway_log("request %lu: the answer broke off", x->number);
    }
    if (x->is_broken)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    n = x->out.len - x->out_at;
    if (n == 0)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (n > cap)
        n = cap;
    if (x->fault == GATEWAY_FAULT_CUT && x->n_pieces > 0) {
        n = (n + 1) / 2; /* in the middle of the first sealed chunk */
        x->is_broken = true;
    }
    memcpy(data, x->out.ptr + x->out_at, n);
    x->out_at += n;
    return (ssize_t)n;
}

/* Queue what on_read() will give: the sealed answer. */
static enum MHD_Result respond_sealed(exchange *x, struct MHD_Connection *c)
{
    struct MHD_Response *r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, on_read, x, NULL);
    enum MHD_Result result;

    if (r == NULL)
        return MHD_NO;
    (void)MHD_add_response_header(r, "Content-Type", sluice_gateway_response_type(x->sealed));
    (void)MHD_add_response_header(r, "Cache-Control", "no-store");
    if (strcmp(x->content_type, "message/ohttp-chunked-req") == 0)
        (void)MHD_add_response_header(r, "Incremental", "?1");
    result = MHD_queue_response(c, MHD_HTTP_OK, r);
    MHD_destroy_response(r);
    return result;
}

/* A whole answer of our own, sealed. */
static enum MHD_Result respond_inner(exchange *x, struct MHD_Connection *c, int status, const char *content_type, const char *text, const char *date)
{
    x->is_padded_json = true;
    gateway_log("request %lu: answered %d sealed", x->number, status);
    if (!seal_begin(x, status, content_type, date) || !gateway_buf_add(&x->piece, text, strlen(text)) || !seal_piece(x, true))
        return respond_problem(c, MHD_HTTP_INTERNAL_SERVER_ERROR, "about:blank", "the answer could not be sealed");
    return respond_sealed(x, c);
}

static enum MHD_Result respond_inner_error(exchange *x, struct MHD_Connection *c, int status, const char *type, const char *message)
{
    char *text = gateway_chat_error(type, message);
    const enum MHD_Result result = respond_inner(x, c, status, "application/json", text ? text : "{}", "");

    free(text);
    return result;
}

/* ---- one request ------------------------------------------------------------------------------------------ */

static sluice_span inner_header(const sluice_gateway_request *http, const char *name)
{
    for (size_t i = 0; i < http->n_headers; i++)
        if (http->headers[i].name.len == strlen(name) && strncasecmp((const char *)http->headers[i].name.ptr, name, strlen(name)) == 0)
            return http->headers[i].value;
    return (sluice_span){ NULL, 0 };
}

static bool span_is(sluice_span s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.ptr, text, s.len) == 0;
}

static long long inner_date(const sluice_gateway_request *http)
{
    const sluice_span value = inner_header(http, "date");
    char text[64];

    if (value.len == 0 || value.len >= sizeof text)
        return -1;
    memcpy(text, value.ptr, value.len);
    text[value.len] = '\0';
    return (long long)curl_getdate(text, NULL);
}

static bool target_is_allowed(const gateway_http *h, const sluice_gateway_request *http)
{
    if (!span_is(http->scheme, "https") || !span_is(http->path, "/v1/chat/completions"))
        return false;
    for (size_t i = 0; i < h->options.n_targets; i++)
        if (span_is(http->authority, h->options.targets[i]))
            return true;
    return false;
}

static enum MHD_Result answer_stale(exchange *x, struct MHD_Connection *c)
{
    const time_t now = time(NULL);
    struct tm utc;
    char date[40];

    gmtime_r(&now, &utc);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &utc);
    return respond_inner(x, c, 400, "application/problem+json",
                         "{\"type\":\"" PROBLEM_DATE "\",\"title\":\"the request's Date is missing or outside the window\"}", date);
}

/* Ask the backend and pass its answer on. */
static enum MHD_Result answer_chat(exchange *x, struct MHD_Connection *c, sluice_span body)
{
    const gateway_backend *b = &x->owner->options.backend;
    const char *content_type, *problem;
    gateway_chat chat;
    int status;

    problem = gateway_chat_parse(&chat, (const char *)body.ptr, body.len);
    if (problem != NULL)
        return respond_inner_error(x, c, 400, "invalid_request_error", problem);
    gateway_chat_free(&chat);
    x->answer = gateway_stream_new(x->owner->options.response_bytes_max);
    if (x->answer == NULL)
        return respond_inner_error(x, c, 503, "gateway_error", "the gateway is out of memory");
    b->ask(b->user, (const char *)body.ptr, body.len, x->answer);
    if (!gateway_stream_wait(x->answer, x->deadline_ms, &status, &content_type))
        return respond_inner_error(x, c, 504, "gateway_timeout", "the model has not answered in time");
    x->is_padded_sse = strncasecmp(content_type, "text/event-stream", 17) == 0;
    x->is_padded_json = strncasecmp(content_type, "application/json", 16) == 0;
    if (!seal_begin(x, status, content_type, ""))
        return respond_problem(c, MHD_HTTP_INTERNAL_SERVER_ERROR, "about:blank", "the answer could not be sealed");
    gateway_log("request %lu: the backend answers %d after %llu ms", x->number, status, (unsigned long long)(gateway_now_ms() - x->began_ms));
    return respond_sealed(x, c);
}

static void stall(const exchange *x)
{
    struct timespec nap = { 0, 50000000 };

    while (!gateway_is_stopping() && gateway_now_ms() < x->deadline_ms)
        nanosleep(&nap, NULL);
}

static gateway_fault take_fault(gateway_http *h)
{
    return atomic_exchange(&h->fault_is_spent, true) ? GATEWAY_FAULT_NONE : h->options.once_fail;
}

static enum MHD_Result answer(exchange *x, struct MHD_Connection *c)
{
    gateway_http *h = x->owner;
    const gateway_identity *id = &h->options.identity;
    sluice_gateway_request http;
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_status st;

    x->fault = take_fault(h);
    if (x->fault == GATEWAY_FAULT_STATUS)
        return respond_problem(c, MHD_HTTP_SERVICE_UNAVAILABLE, "about:blank", "asked to fail once");
    if (x->fault == GATEWAY_FAULT_STALL) {
        stall(x);
        return MHD_NO;
    }
    st = sluice_gateway_open(&x->sealed, id->key_id, id->secret, x->content_type, (sluice_span){ x->request.ptr, x->request.len }, NULL, &http, &err);
    gateway_log("request %lu: %zu sealed bytes, %s", x->number, x->request.len, sluice_status_name(st));
    if (st == SLUICE_ERR_INTEGRITY || st == SLUICE_ERR_UNSUPPORTED)
        return respond_problem(c, MHD_HTTP_BAD_REQUEST, PROBLEM_KEY, "the request is not sealed to this gateway's key");
    if (st == SLUICE_ERR_NO_MEMORY)
        return respond_problem(c, MHD_HTTP_SERVICE_UNAVAILABLE, "about:blank", "out of memory");
    if (st != SLUICE_OK)
        return respond_problem(c, MHD_HTTP_BAD_REQUEST, "about:blank", "not a sealed request");
    switch (gateway_replay_check(h->options.replay, http.enc, inner_date(&http))) {
    case GATEWAY_FRESH: break;
    case GATEWAY_STALE: return answer_stale(x, c);
    case GATEWAY_SEEN: return respond_problem(c, MHD_HTTP_BAD_REQUEST, "about:blank", "this request has been here before");
    case GATEWAY_FULL: return respond_problem(c, MHD_HTTP_SERVICE_UNAVAILABLE, "about:blank", "too many requests");
    }
    if (!target_is_allowed(h, &http))
        return respond_inner_error(x, c, 403, "target_not_allowed", "this gateway does not forward to that authority and path");
    if (!span_is(http.method, "POST"))
        return respond_inner_error(x, c, 405, "method_not_allowed", "POST is what this gateway takes");
    if (x->fault == GATEWAY_FAULT_INNER)
        return respond_inner_error(x, c, 500, "asked_to_fail_once", "asked to fail once");
    return answer_chat(x, c, http.body);
}

/* ---- libmicrohttpd -------------------------------------------------------------------------------------- */

static const char *known_type(const char *text)
{
    if (text != NULL && strcasecmp(text, "message/ohttp-req") == 0)
        return "message/ohttp-req";
    if (text != NULL && strcasecmp(text, "message/ohttp-chunked-req") == 0)
        return "message/ohttp-chunked-req";
    return NULL;
}

/* The header lines are here, the body is not. */
static enum MHD_Result on_first_call(gateway_http *h, struct MHD_Connection *c, const char *path, const char *method, void **state)
{
    const char *length = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Content-Length");
    const char *type = known_type(MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Content-Type"));
    exchange *x;

    if (strcmp(path, "/healthz") == 0)
        return strcmp(method, "GET") == 0 ? respond_text(c, MHD_HTTP_OK, "text/plain", "ok\n")
                                          : respond_problem(c, MHD_HTTP_METHOD_NOT_ALLOWED, "about:blank", "GET is what /healthz takes");
    if (strcmp(path, "/ohttp") != 0)
        return respond_problem(c, MHD_HTTP_NOT_FOUND, "about:blank", "there is /ohttp and /healthz");
    if (strcmp(method, "POST") != 0)
        return respond_problem(c, MHD_HTTP_METHOD_NOT_ALLOWED, "about:blank", "POST is what /ohttp takes");
    if (type == NULL)
        return respond_problem(c, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE, "about:blank",
                               "message/ohttp-req or message/ohttp-chunked-req is what /ohttp takes");
    if (length != NULL && strtoull(length, NULL, 10) > h->options.request_bytes_max)
        return respond_problem(c, MHD_HTTP_CONTENT_TOO_LARGE, "about:blank", "the request is too large");
    x = calloc(1, sizeof *x);
    if (x == NULL)
        return MHD_NO;
    x->owner = h;
    x->number = atomic_fetch_add(&h->n_requests, 1) + 1;
    x->began_ms = gateway_now_ms();
    x->deadline_ms = x->began_ms + h->options.answer_ms;
    x->content_type = type;
    x->request.max = h->options.request_bytes_max;
    x->piece.max = h->options.response_bytes_max + 2 * PAD_BYTES;
    x->out.max = OUTER_BYTES_MAX;
    *state = x;
    return MHD_YES;
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *c, const char *path, const char *method, const char *version, const char *upload,
                                  size_t *upload_len, void **state)
{
    exchange *x = *state;

    (void)version;
    if (x == NULL)
        return on_first_call(user, c, path, method, state);
    if (*upload_len > 0) {
        if (!gateway_buf_add(&x->request, upload, *upload_len))
            return respond_problem(c, MHD_HTTP_CONTENT_TOO_LARGE, "about:blank", "the request is too large");
        *upload_len = 0;
        return MHD_YES;
    }
    return answer(x, c);
}

static void on_completed(void *user, struct MHD_Connection *c, void **state, enum MHD_RequestTerminationCode why)
{
    exchange *x = *state;

    (void)user, (void)c;
    if (x == NULL)
        return;
    gateway_log("request %lu: %s after %llu ms, %zu sealed bytes back", x->number,
                why == MHD_REQUEST_TERMINATED_COMPLETED_OK ? "done" : "ended early", (unsigned long long)(gateway_now_ms() - x->began_ms),
                x->out_total);
    exchange_free(x);
    *state = NULL;
}

/* libmicrohttpd's own messages may quote what a client has sent. */
static void on_mhd_log(void *user, const char *format, va_list args)
{
    (void)user, (void)format, (void)args;
}

gateway_http *gateway_http_open(const gateway_http_options *options, sluice_error *err)
{
    const unsigned flags =
        MHD_USE_NO_LISTEN_SOCKET | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL | MHD_USE_ITC | MHD_USE_ERROR_LOG;
    gateway_http *h = calloc(1, sizeof *h);

    if (h == NULL) {
        gateway_fail(err, SLUICE_ERR_NO_MEMORY, "", "no memory");
        return NULL;
    }
    h->options = *options;
    h->daemon = MHD_start_daemon(flags, 0, NULL, NULL, on_request, h, MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, NULL, MHD_OPTION_NOTIFY_COMPLETED,
                                 on_completed, NULL, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)CONNECTION_IDLE_S, MHD_OPTION_CONNECTION_LIMIT,
                                 options->connections_max + 4, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)65536, MHD_OPTION_END);
    if (h->daemon == NULL) {
        gateway_fail(err, SLUICE_ERR_UNSUPPORTED, "libmicrohttpd needs thread support", "libmicrohttpd cannot be started");
        free(h);
        return NULL;
    }
    return h;
}

bool gateway_http_add(gateway_http *h, int fd, const struct sockaddr *peer, socklen_t peer_len)
{
    return MHD_add_connection(h->daemon, fd, peer, peer_len) == MHD_YES;
}

void gateway_http_close(gateway_http *h)
{
    if (h == NULL)
        return;
    MHD_stop_daemon(h->daemon);
    explicit_bzero(&h->options.identity, sizeof h->options.identity);
    free(h);
}
