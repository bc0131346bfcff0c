/* sse.c - server-sent events from bytes that were cut anywhere (WHATWG HTML 9.2.6).
 *
 *   stream  [BOM] line*        line  ends with LF, CR or CRLF
 *   line    ":" comment | field [":" [" "] value] | empty: dispatch
 *
 * Lines are split on bytes: LF and CR never occur inside a UTF-8 sequence, so a code point that was cut is whole again before it is looked at.
 * An event is delivered at its empty line; what is left without one when the stream ends is dropped, as the standard says.  id and
 * retry are ignored: a request is never resumed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cloud-adapters/wire/sse.h"

static const uint8_t BOM[3] = { 0xef, 0xbb, 0xbf };

void sluice_sse_init(sluice_sse *s, const sluice_allocator *al, size_t line_bytes_max, size_t event_bytes_max, sluice_sse_fn on_event, void *user)
{
    memset(s, 0, sizeof *s);
    sluice_buf_init(&s->line, al, line_bytes_max);
    sluice_buf_init(&s->data, al, event_bytes_max);
    sluice_buf_init(&s->type, al, line_bytes_max);
    s->at_start = true;
    s->event_bytes_max = event_bytes_max;
    s->on_event = on_event;
    s->user = user;
}

static sluice_status dispatch(sluice_sse *s, sluice_error *err)
{
    const sluice_span type = s->type.len > 0 ? sluice_buf_span(&s->type) : SLUICE_SPAN_LIT("message");
    bool goes_on = true;

    if (s->has_data)
        goes_on = s->on_event(type, sluice_buf_span(&s->data), s->user);
    sluice_buf_clear(&s->data);
    sluice_buf_clear(&s->type);
    s->has_data = false;
    return goes_on ? SLUICE_OK : sluice_error_set(err, SLUICE_ERR_CANCELLED, "event stream: stopped by its receiver");
}

static sluice_status add_data(sluice_sse *s, sluice_span value, sluice_error *err)
{
    if ((s->has_data && !sluice_buf_append_byte(&s->data, '\n')) || !sluice_buf_append_span(&s->data, value))
        return sluice_buf_error(&s->data, "event stream: event", err);
    s->has_data = true;
    return SLUICE_OK;
}

static sluice_status set_type(sluice_sse *s, sluice_span value, sluice_error *err)
{
    sluice_buf_clear(&s->type);
    return sluice_buf_append_span(&s->type, value) ? SLUICE_OK : sluice_buf_error(&s->type, "event stream: type", err);
}

static sluice_status end_line(sluice_sse *s, sluice_error *err)
{
    const sluice_span line = sluice_buf_span(&s->line);
    sluice_span name = line, value = SLUICE_SPAN_EMPTY;
    sluice_status st = SLUICE_OK;
    const uint8_t *colon;

    if (line.len == 0)
        return dispatch(s, err);
    if (!sluice_utf8_valid(line))
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "event stream: a line is not UTF-8");
    colon = memchr(line.ptr, ':', line.len);
    if (colon != NULL) {
        name.len = (size_t)(colon - line.ptr);
        value = sluice_span_of(colon + 1, line.len - name.len - 1);
        if (value.len > 0 && value.ptr[0] == ' ')
            value = sluice_span_of(value.ptr + 1, value.len - 1);
    }
    if (sluice_span_eq_str(name, "data"))
        st = add_data(s, value, err);
    else if (sluice_span_eq_str(name, "event"))
        st = set_type(s, value, err);
    sluice_buf_clear(&s->line);
    return st;
}

/* A byte order mark at the very start is skipped; anything that only begins like one belongs to the first line. */
static sluice_status skip_bom(sluice_sse *s, sluice_span *bytes, sluice_error *err)
{
    while (s->at_start && bytes->len > 0) {
        if (bytes->ptr[0] != BOM[s->bom_seen]) {
            s->at_start = false;
            return sluice_buf_append(&s->line, BOM, s->bom_seen) ? SLUICE_OK : sluice_buf_error(&s->line, "event stream: line", err);
        }
        *bytes = sluice_span_of(bytes->ptr + 1, bytes->len - 1);
        s->at_start = ++s->bom_seen < sizeof BOM;
    }
    return SLUICE_OK;
}

static size_t until_line_end(sluice_span bytes)
{
    size_t n = 0;

    while (n < bytes.len && bytes.ptr[n] != '\n' && bytes.ptr[n] != '\r')
        n++;
    return n;
}

sluice_status sluice_sse_feed(sluice_sse *s, sluice_span bytes, sluice_error *err)
{
    sluice_status st = skip_bom(s, &bytes, err);

    while (st == SLUICE_OK && bytes.len > 0) {
        size_t n;

        if (s->last_cr && bytes.ptr[0] == '\n') { /* the second half of a CRLF whose CR has ended the line already */
            s->last_cr = false;
            bytes = sluice_span_of(bytes.ptr + 1, bytes.len - 1);
            continue;
        }
        s->last_cr = false;
        n = until_line_end(bytes);
        if (!sluice_buf_append(&s->line, bytes.ptr, n))
            return sluice_buf_error(&s->line, "event stream: line", err);
        if (n < bytes.len) {
            s->last_cr = bytes.ptr[n] == '\r';
            n++;
            st = end_line(s, err);
        }
        bytes = sluice_span_of(bytes.ptr + n, bytes.len - n);
    }
    return st;
}

void sluice_sse_deinit(sluice_sse *s)
{
    sluice_buf_deinit(&s->line);
    sluice_buf_deinit(&s->data);
    sluice_buf_deinit(&s->type);
    sluice_wipe(s, sizeof *s);
}
