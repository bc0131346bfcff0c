/* openai_chat.c - OpenAI's Chat Completions, as OpenAI itself, llama-server and vLLM speak it.
 *
 * The request goes out as one binary HTTP message.  It carries no key: the gateway adds the provider's.  The Date lets a gateway
 * refuse what was recorded and sent again.
 *
 *   max_completion_tokens  and not max_tokens: OpenAI's reasoning models refuse the old name outright (and both together), so a request with it
 *                          would have no answer at all.  vLLM takes both names, llama-server took up the new one in 2026-02; a server that knows only the
 *                          old one ignores this one, and then deadline and response limit still bound the answer.
 *   store: false           so that OpenAI keeps nothing; others ignore it.
 *   stream_options         only when streaming: elsewhere it is an error.
 *
 * The answer is an event stream, one JSON document, or an error; status and content type say which.
 *
 *   {"choices":[{"delta":{"content":"..."},"finish_reason":null}]}   a piece
 *   {"choices":[],"usage":{...}}                                     after the last piece, if asked for
 *   [DONE]
 *   {"error":{...}}                                                  instead of any of these, also in the middle
 *
 * An answer is complete only when a finish_reason or [DONE] has been seen: a stream that just stops is cut.  What a server writes into its
 * error texts is never repeated; only its error type is, and only when it looks like an identifier.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cloud-adapters/providers/openai_chat.h"

#include <stdio.h>

#include "cloud-adapters/oblivious/bhttp.h"
#include "cloud-adapters/wire/sse.h"
#include "sdk/base/json.h"

enum {
    REQUEST_BYTES_MAX = 8 << 20,
    LINE_BYTES_MAX = 1 << 20,
    EVENT_BYTES_MAX = 1 << 20,
    DOCUMENT_BYTES_MAX = 4 << 20,
    ERROR_BYTES_MAX = 64 << 10,
    JSON_DEPTH_MAX = 32,
    ERROR_TYPE_MAX = 48
};

/* ---- building --------------------------------------------------------------------------------- */

static sluice_status write_body(sluice_buf *body, const sluice_provider_request *q, sluice_error *err)
{
    sluice_json_writer w;

    sluice_json_begin(&w, body);
    sluice_json_object_open(&w, NULL);
    sluice_json_str(&w, "model", q->model);
    sluice_json_array_open(&w, "messages");
    for (size_t i = 0; i < q->n_messages; i++) {
        sluice_json_object_open(&w, NULL);
        sluice_json_str(&w, "role", q->messages[i].role);
        sluice_json_span(&w, "content", q->messages[i].text);
        sluice_json_object_close(&w);
    }
    sluice_json_array_close(&w);
    if (q->max_tokens > 0)
        sluice_json_uint(&w, "max_completion_tokens", q->max_tokens);
    if (q->temperature >= 0.0f)
        sluice_json_num(&w, "temperature", (double)q->temperature, 3);
    sluice_json_bool(&w, "stream", q->is_streamed);
    if (q->is_streamed) {
        sluice_json_object_open(&w, "stream_options");
        sluice_json_bool(&w, "include_usage", true);
        sluice_json_object_close(&w);
    }
    sluice_json_bool(&w, "store", false);
    sluice_json_object_close(&w);
    return w.ok ? SLUICE_OK : sluice_buf_error(body, "openai-chat: request", err);
}

static int days_in_month(int year, int month)
{
    static const int DAYS[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    const bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return DAYS[month] + (month == 1 && is_leap ? 1 : 0);
}

/* IMF-fixdate (RFC 9110 5.6.7) of a Unix time.  Counted month by month: no time zone, no locale, no state of libc. */
static bool format_date(char out[64], int64_t unix_ms)
{
    static const char *const WEEKDAYS[] = { "Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed" }; /* 1970-01-01 was a Thursday */
    static const char *const MONTHS[] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
    const int second = (int)(unix_ms / 1000 % 86400);
    const char *weekday = WEEKDAYS[unix_ms / 86400000 % 7];
    int64_t day = unix_ms / 86400000;
    int year = 1970, month = 0;

    while (day >= days_in_month(year, month)) {
        day -= days_in_month(year, month);
        month = (month + 1) % 12;
        year += month == 0;
        if (year > 9999)
            return false;
    }
    (void)snprintf(out, 64, "%s, %02d %s %04d %02d:%02d:%02d GMT", weekday, (int)day + 1, MONTHS[month], year, second / 3600, second / 60 % 60,
                   second % 60);
    return true;
}

static sluice_status write_fields(sluice_buf *fields, const sluice_provider_request *q, sluice_error *err)
{
    const sluice_span accept = q->is_streamed ? SLUICE_SPAN_LIT("text/event-stream") : SLUICE_SPAN_LIT("application/json");
    char date[64];
    sluice_status st = sluice_bhttp_field(fields, SLUICE_SPAN_LIT("content-type"), SLUICE_SPAN_LIT("application/json"), err);

    if (st == SLUICE_OK)
        st = sluice_bhttp_field(fields, SLUICE_SPAN_LIT("accept"), accept, err);
    if (st == SLUICE_OK && q->date_ms >= 0 && format_date(date, q->date_ms))
        st = sluice_bhttp_field(fields, SLUICE_SPAN_LIT("date"), sluice_span_str(date), err);
    return st;
}

static sluice_status check_request(const sluice_provider_request *q, sluice_error *err)
{
    if (q->authority == NULL || q->authority[0] == 0 || q->path == NULL || q->model == NULL || q->messages == NULL || q->n_messages == 0)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "openai-chat: authority, path, model and at least one message are needed");
    for (size_t i = 0; i < q->n_messages; i++)
        if (q->messages[i].role == NULL)
            return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "openai-chat: message %zu has no role", i + 1);
    return SLUICE_OK;
}

static sluice_status build(const sluice_provider_request *q, sluice_buf *out, const sluice_allocator *al, sluice_error *err)
{
    sluice_buf body, fields;
    sluice_status st = check_request(q, err);

    sluice_buf_init(&body, al, REQUEST_BYTES_MAX);
    sluice_buf_init(&fields, al, 1024);
    if (st == SLUICE_OK)
        st = write_body(&body, q, err);
    if (st == SLUICE_OK)
        st = write_fields(&fields, q, err);
    if (st == SLUICE_OK)
        st = sluice_bhttp_request(out, SLUICE_SPAN_LIT("POST"), SLUICE_SPAN_LIT("https"), sluice_span_str(q->authority), sluice_span_str(q->path),
                                  sluice_buf_span(&fields), sluice_buf_span(&body), err);
    sluice_buf_deinit(&body);
    sluice_buf_deinit(&fields);
    return st;
}

/* ---- reading ---------------------------------------------------------------------------------- */

struct sluice_provider_reader {
    const sluice_allocator *al;
    sluice_provider_fn on_event;
    void *user;
    int http_status;
    bool is_event_stream;
    bool is_finished;  /* a finish_reason or [DONE] was seen */
    bool is_over;      /* [DONE]: nothing after it counts */
    bool is_truncated; /* finish_reason length */
    bool is_error_cut; /* an error body longer than we keep */
    bool is_closed;    /* finish has been called */
    sluice_sse sse;
    sluice_buf document;         /* JSON answer or error body */
    sluice_error *err;           /* of the running call, for what happens inside callbacks */
    sluice_status stream_status; /* why on_sse stopped the parser */
    sluice_status failed;        /* sticky */
};

static sluice_status tell(sluice_provider_reader *r, const sluice_provider_event *event, sluice_error *err)
{
    return r->on_event(event, r->user) ? SLUICE_OK
                                       : sluice_error_set(err, SLUICE_ERR_CANCELLED, "openai-chat: stopped by the receiver of the answer");
}

static sluice_span string_of(const sluice_json *v)
{
    return v != NULL && v->kind == SLUICE_JSON_STRING ? sluice_span_of(v->string, v->string_len) : SLUICE_SPAN_EMPTY;
}

static uint32_t count_of(const sluice_json *v)
{
    if (v == NULL || v->kind != SLUICE_JSON_NUMBER || !(v->number >= 0.0))
        return 0;
    return v->number < (double)UINT32_MAX ? (uint32_t)v->number : UINT32_MAX;
}

/* A server's word goes into our messages only when it is an identifier: no sentence, no markup, no prompt text. */
static bool is_identifier(sluice_span s)
{
    for (size_t i = 0; i < s.len; i++) {
        const uint8_t c = s.ptr[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.'))
            return false;
    }
    return s.len > 0 && s.len <= ERROR_TYPE_MAX;
}

/* `error` comes as an object, as a bare string (Ollama) or inside an array (proxies of other dialects). */
static sluice_status remote_error(const sluice_provider_reader *r, const sluice_json *error, sluice_error *err)
{
    static const char *const NAMES[] = { "type", "code", "status" };
    sluice_span type = SLUICE_SPAN_EMPTY;

    if (error != NULL && error->kind == SLUICE_JSON_ARRAY)
        error = error->child;
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0] && !is_identifier(type); i++)
        type = string_of(sluice_json_get(error, NAMES[i]));
    if (!is_identifier(type))
        return sluice_error_set(err, SLUICE_ERR_REMOTE, "openai-chat: the far side answered with an error (status %d)", r->http_status);
    return sluice_error_set(err, SLUICE_ERR_REMOTE, "openai-chat: the far side answered with the error %.*s (status %d)", (int)type.len,
                            (const char *)type.ptr, r->http_status);
}

static bool is_present(const sluice_json *v)
{
    return v != NULL && v->kind != SLUICE_JSON_NULL;
}

/* The error of a document, wherever it sits: {"error": ...} or [{"error": ...}]. */
static const sluice_json *find_error(const sluice_json *root)
{
    const sluice_json *object = root->kind == SLUICE_JSON_ARRAY ? root->child : root;
    const sluice_json *error = object != NULL ? sluice_json_get(object, "error") : NULL;

    return is_present(error) ? error : NULL;
}

/* The choice with index 0, which is the only one that was asked for. */
static const sluice_json *first_choice(const sluice_json *root)
{
    const sluice_json *choices = sluice_json_get(root, "choices");

    if (choices == NULL || choices->kind != SLUICE_JSON_ARRAY)
        return NULL;
    for (const sluice_json *c = choices->child; c != NULL; c = c->next)
        if (count_of(sluice_json_get(c, "index")) == 0)
            return c;
    return NULL;
}

/* `message` is a delta or a whole message.  A refusal is the model's answer in words, so it is text. */
static sluice_status take_text(sluice_provider_reader *r, const sluice_json *message, sluice_error *err)
{
    static const char *const NAMES[] = { "content", "refusal" };
    sluice_status st = SLUICE_OK;

    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0] && st == SLUICE_OK; i++) {
        const sluice_provider_event event = { .part = SLUICE_PROVIDER_TEXT, .text = string_of(sluice_json_get(message, NAMES[i])) };

        if (event.text.len > 0)
            st = tell(r, &event, err);
    }
    return st;
}

static sluice_status take_finish_reason(sluice_provider_reader *r, sluice_span reason, sluice_error *err)
{
    if (reason.len == 0)
        return SLUICE_OK;
    if (sluice_span_eq_str(reason, "content_filter"))
        return sluice_error_set(err, SLUICE_ERR_REMOTE, "openai-chat: the far side's content filter stopped the answer");
    if (sluice_span_eq_str(reason, "tool_calls") || sluice_span_eq_str(reason, "function_call"))
        return sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "openai-chat: the model asks for a tool, and none was offered");
    r->is_finished = true;
    r->is_truncated = sluice_span_eq_str(reason, "length");
    return SLUICE_OK;
}

static sluice_status take_usage(sluice_provider_reader *r, const sluice_json *usage, sluice_error *err)
{
    sluice_provider_event event = { .part = SLUICE_PROVIDER_USAGE };

    if (usage == NULL || usage->kind != SLUICE_JSON_OBJECT)
        return SLUICE_OK;
    event.prompt_tokens = count_of(sluice_json_get(usage, "prompt_tokens"));
    event.output_tokens = count_of(sluice_json_get(usage, "completion_tokens"));
    return tell(r, &event, err);
}

/* One JSON document: a whole answer, or a piece of a stream. */
static sluice_status take_document(sluice_provider_reader *r, const sluice_json *root, sluice_error *err)
{
    const sluice_json *error = find_error(root), *choice = first_choice(root);
    sluice_status st;

    if (error != NULL)
        return remote_error(r, error, err);
    if (root->kind != SLUICE_JSON_OBJECT)
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "openai-chat: the answer is not a JSON object");
    st = take_text(r, sluice_json_get(choice, r->is_event_stream ? "delta" : "message"), err);
    if (st == SLUICE_OK)
        st = take_finish_reason(r, string_of(sluice_json_get(choice, "finish_reason")), err);
    if (st == SLUICE_OK)
        st = take_usage(r, sluice_json_get(root, "usage"), err);
    return st;
}

static sluice_status parse(sluice_provider_reader *r, sluice_span text, sluice_error *err)
{
    const sluice_json_limits limits = { DOCUMENT_BYTES_MAX, JSON_DEPTH_MAX };
    sluice_json_doc *doc = NULL;
    sluice_error parse_err = SLUICE_ERROR_INIT; /* its text may quote the server: not passed on */
    sluice_status st = sluice_json_parse(&doc, text, &limits, r->al, &parse_err);

    if (st == SLUICE_OK)
        st = take_document(r, sluice_json_root(doc), err);
    else
        sluice_error_set(err, st,
                         st == SLUICE_ERR_NO_MEMORY ? "openai-chat: no memory for the answer"
                                                    : "openai-chat: the answer is not the JSON that was expected");
    sluice_json_close(doc);
    return st;
}

static bool on_sse(sluice_span event_type, sluice_span data, void *user)
{
    sluice_provider_reader *r = user;

    (void)event_type; /* this dialect names none that matters: errors come under "error" and under none */
    if (r->is_over)
        return true;
    if (sluice_span_eq_str(data, "[DONE]"))
        r->is_finished = r->is_over = true;
    else
        r->stream_status = parse(r, data, r->err);
    return r->stream_status == SLUICE_OK;
}

static sluice_status reader_open(sluice_provider_reader **out, const sluice_allocator *al, sluice_provider_fn on_event, void *user, sluice_error *err)
{
    sluice_provider_reader *r = sluice_alloc_zeroed(al, sizeof *r);

    *out = r;
    if (r == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "openai-chat: %zu bytes for the reader", sizeof *r);
    r->al = al;
    r->on_event = on_event;
    r->user = user;
    sluice_sse_init(&r->sse, al, LINE_BYTES_MAX, EVENT_BYTES_MAX, on_sse, r);
    sluice_buf_init(&r->document, al, DOCUMENT_BYTES_MAX);
    return SLUICE_OK;
}

static bool is_error_status(const sluice_provider_reader *r)
{
    return r->http_status < 200 || r->http_status > 299;
}

static sluice_status reader_status(sluice_provider_reader *r, int http_status, sluice_error *err)
{
    if (r->http_status != 0 || http_status < 200)
        return r->failed = sluice_error_set(err, SLUICE_ERR_FORMAT, "openai-chat: an answer has one final status");
    r->http_status = http_status;
    return SLUICE_OK;
}

static sluice_status reader_header(sluice_provider_reader *r, sluice_span name, sluice_span value, sluice_error *err)
{
    (void)err;
    if (sluice_span_eq_str(name, "content-type"))
        r->is_event_stream = sluice_http_media_type_is(value, "text/event-stream");
    return SLUICE_OK;
}

static sluice_status feed(sluice_provider_reader *r, sluice_span body, sluice_error *err)
{
    if (is_error_status(r)) { /* of an error only its type is wanted: what is beyond the limit is let go */
        if (body.len > ERROR_BYTES_MAX - r->document.len) {
            r->is_error_cut = true;
            return SLUICE_OK;
        }
    } else if (r->is_event_stream) {
        const sluice_status st = sluice_sse_feed(&r->sse, body, err);

        return r->stream_status != SLUICE_OK ? r->stream_status : st;
    }
    return sluice_buf_append_span(&r->document, body) ? SLUICE_OK : sluice_buf_error(&r->document, "openai-chat: answer", err);
}

static sluice_status reader_feed(sluice_provider_reader *r, sluice_span body, sluice_error *err)
{
    sluice_error inner = SLUICE_ERROR_INIT;

    if (r->failed != SLUICE_OK)
        return sluice_error_set(err, r->failed, "openai-chat: the answer was refused before");
    if (r->http_status == 0 || r->is_closed)
        return sluice_error_set(err, SLUICE_ERR_STATE, "openai-chat: no status yet, or already finished");
    /* Where on_sse fails, the parser above it reports only that it was stopped: the first message is the one that counts. */
    r->err = &inner;
    r->failed = feed(r, body, err);
    if (r->stream_status != SLUICE_OK && err != NULL)
        *err = inner;
    r->err = NULL;
    return r->failed;
}

static sluice_status finish(sluice_provider_reader *r, sluice_error *err)
{
    const sluice_json_limits limits = { DOCUMENT_BYTES_MAX, JSON_DEPTH_MAX };
    sluice_status st = SLUICE_OK;

    if (is_error_status(r)) {
        sluice_json_doc *doc = NULL;

        if (!r->is_error_cut && sluice_json_parse(&doc, sluice_buf_span(&r->document), &limits, r->al, NULL) == SLUICE_ERR_NO_MEMORY)
            return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "openai-chat: no memory for the answer");
        st = remote_error(r, doc != NULL ? find_error(sluice_json_root(doc)) : NULL, err);
        sluice_json_close(doc);
        return st;
    }
    if (!r->is_event_stream && r->document.len > 0)
        st = parse(r, sluice_buf_span(&r->document), err);
    if (st == SLUICE_OK && !r->is_finished)
        st = sluice_error_set(err, SLUICE_ERR_TRUNCATED, "openai-chat: the answer has no end mark");
    if (st == SLUICE_OK) {
        const sluice_provider_event done = { .part = SLUICE_PROVIDER_DONE, .is_truncated = r->is_truncated };

        st = tell(r, &done, err);
    }
    return st;
}

static sluice_status reader_finish(sluice_provider_reader *r, sluice_error *err)
{
    if (r->failed != SLUICE_OK)
        return sluice_error_set(err, r->failed, "openai-chat: the answer was refused before");
    if (r->http_status == 0 || r->is_closed)
        return sluice_error_set(err, SLUICE_ERR_STATE, "openai-chat: no status yet, or already finished");
    r->is_closed = true;
    r->failed = finish(r, err);
    return r->failed;
}

static void reader_close(sluice_provider_reader *r)
{
    const sluice_allocator *al;

    if (r == NULL)
        return;
    al = r->al;
    sluice_sse_deinit(&r->sse);
    sluice_buf_deinit(&r->document);
    sluice_free_wiped(al, r, sizeof *r);
}

const sluice_provider sluice_provider_openai_chat = {
    .name = "openai-chat",
    .build = build,
    .reader_open = reader_open,
    .reader_status = reader_status,
    .reader_header = reader_header,
    .reader_feed = reader_feed,
    .reader_finish = reader_finish,
    .reader_close = reader_close,
};
