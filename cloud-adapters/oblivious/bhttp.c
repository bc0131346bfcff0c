/* bhttp.c - binary HTTP (RFC 9292): a writer, and a reader that takes bytes cut anywhere.
 *
 *   known length    framing 0|1, control, {len, fields}, {len, content}, {len, trailers}, padding
 *   indeterminate   framing 2|3, control, fields 0, {len, bytes}* 0, trailers 0, padding
 *
 *   FRAMING -> CONTROL -> SECTION -> FIELDS --+--> CONTENT <-> BODY -> SECTION -> FIELDS -> PADDING
 *                 ^                           |    (indeterminate goes round once per chunk)
 *                 +------- after a 1xx -------+
 *
 * The reader collects one item at a time (an integer, a field line) in `held` and acts when it is complete, so where the bytes were cut
 * cannot matter; content is passed through without being held.  An item says how many bytes it needs before it has them, and each
 * such number is checked against the limits first, so nothing a peer writes makes the reader hold more than head_bytes_max.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cloud-adapters/oblivious/bhttp.h"

enum { HEAD_BYTES_MAX = 64 * 1024, FIELDS_MAX = 128, INFORMATIONAL_MAX = 16 };
enum { CHUNK_LEN_MAX = 8 }; /* bytes of a chunk's length: room that content needs when the head has used up all of its own */
enum { STATE_FRAMING, STATE_CONTROL, STATE_SECTION, STATE_FIELDS, STATE_CONTENT, STATE_BODY, STATE_PADDING };

/* ---- what HTTP allows ------------------------------------------------------------------------- */

static bool is_token_char(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_token(sluice_span s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!is_token_char(s.ptr[i]))
            return false;
    return s.len > 0;
}

static bool is_visible(sluice_span s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] <= 0x20 || s.ptr[i] >= 0x7f)
            return false;
    return true;
}

static bool is_scheme(sluice_span s)
{
    for (size_t i = 0; i < s.len; i++) {
        const uint8_t c = s.ptr[i];
        const bool is_alpha = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

        if (!is_alpha && (i == 0 || !((c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.')))
            return false;
    }
    return s.len > 0;
}

static bool is_path(sluice_span s)
{
    return s.len > 0 && is_visible(s) && (s.ptr[0] == '/' || sluice_span_eq_str(s, "*"));
}

bool sluice_http_name_ok(sluice_span name)
{
    for (size_t i = 0; i < name.len; i++)
        if (name.ptr[i] >= 'A' && name.ptr[i] <= 'Z')
            return false;
    return is_token(name);
}

bool sluice_http_value_ok(sluice_span value)
{
    for (size_t i = 0; i < value.len; i++) {
        const uint8_t c = value.ptr[i];
        const bool is_blank = c == ' ' || c == '\t';

        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
        if (is_blank && (i == 0 || i == value.len - 1))
            return false;
    }
    return true;
}

/* Media types compare without case and without parameters (RFC 9110 8.3.1). */
bool sluice_http_media_type_is(sluice_span content_type, const char *want)
{
    const size_t len = strlen(want);

    if (content_type.len < len)
        return false;
    for (size_t i = 0; i < len; i++) {
        const uint8_t c = content_type.ptr[i];

        if ((c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c) != want[i])
            return false;
    }
    return content_type.len == len || content_type.ptr[len] == ';' || content_type.ptr[len] == ' ' || content_type.ptr[len] == '\t';
}

/* ---- variable-length integers ----------------------------------------------------------------- */

size_t sluice_varint_len(uint8_t first)
{
    return (size_t)1 << (first >> 6);
}

uint64_t sluice_varint_value(const uint8_t *bytes)
{
    const size_t len = sluice_varint_len(bytes[0]);
    uint64_t v = bytes[0] & 0x3f;

    for (size_t i = 1; i < len; i++)
        v = v << 8 | bytes[i];
    return v;
}

bool sluice_varint_append(sluice_buf *out, uint64_t value)
{
    uint8_t bytes[8];
    unsigned log2_len = value < 1u << 6 ? 0 : value < 1u << 14 ? 1 : value < 1u << 30 ? 2 : 3;
    const size_t len = (size_t)1 << log2_len;

    if (value >= (uint64_t)1 << 62)
        return false;
    for (size_t i = 0; i < len; i++)
        bytes[len - 1 - i] = (uint8_t)(value >> (8 * i));
    bytes[0] = (uint8_t)(bytes[0] | log2_len << 6);
    return sluice_buf_append(out, bytes, len);
}

/* ---- writing ---------------------------------------------------------------------------------- */

static bool append_prefixed(sluice_buf *out, sluice_span s)
{
    return sluice_varint_append(out, s.len) && sluice_buf_append_span(out, s);
}

static sluice_status wrote(bool ok, const sluice_buf *out, sluice_error *err)
{
    return ok ? SLUICE_OK : sluice_buf_error(out, "binary http", err);
}

sluice_status sluice_bhttp_field(sluice_buf *section, sluice_span name, sluice_span value, sluice_error *err)
{
    if (!sluice_http_name_ok(name))
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "http: a field name is not a lower-case token");
    if (!sluice_http_value_ok(value))
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "http: the value of field \"%.*s\" has characters that HTTP forbids",
                                (int)(name.len < 64 ? name.len : 64), (const char *)name.ptr);
    return wrote(append_prefixed(section, name) && append_prefixed(section, value), section, err);
}

sluice_status sluice_bhttp_request(sluice_buf *out, sluice_span method, sluice_span scheme, sluice_span authority, sluice_span path,
                                   sluice_span field_section, sluice_span content, sluice_error *err)
{
    if (!is_token(method) || !is_scheme(scheme) || !is_visible(authority) || !is_path(path))
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "http: method, scheme, authority or path has characters that HTTP forbids");
    return wrote(sluice_buf_append_byte(out, 0) && append_prefixed(out, method) && append_prefixed(out, scheme) && append_prefixed(out, authority) &&
                     append_prefixed(out, path) && append_prefixed(out, field_section) && append_prefixed(out, content) &&
                     sluice_buf_append_byte(out, 0),
                 out, err);
}

static bool is_final_status(int http_status)
{
    return http_status >= 200 && http_status <= 599;
}

sluice_status sluice_bhttp_response(sluice_buf *out, int http_status, sluice_span field_section, sluice_span content, sluice_error *err)
{
    if (!is_final_status(http_status))
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "http: status %d is not a final one", http_status);
    return wrote(sluice_buf_append_byte(out, 1) && sluice_varint_append(out, (uint64_t)http_status) && append_prefixed(out, field_section) &&
                     append_prefixed(out, content) && sluice_buf_append_byte(out, 0),
                 out, err);
}

sluice_status sluice_bhttp_response_head(sluice_buf *out, int http_status, sluice_span field_section, sluice_error *err)
{
    if (!is_final_status(http_status))
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "http: status %d is not a final one", http_status);
    return wrote(sluice_buf_append_byte(out, 3) && sluice_varint_append(out, (uint64_t)http_status) && sluice_buf_append_span(out, field_section) &&
                     sluice_buf_append_byte(out, 0),
                 out, err);
}

sluice_status sluice_bhttp_chunk(sluice_buf *out, sluice_span content, sluice_error *err)
{
    return wrote(content.len == 0 || append_prefixed(out, content), out, err);
}

sluice_status sluice_bhttp_end(sluice_buf *out, sluice_error *err)
{
    return wrote(sluice_buf_append(out, "\0", 2), out, err);
}

/* ---- reading ---------------------------------------------------------------------------------- */

/* Where an item stands: all of it is held, more bytes are wanted, or it has failed. */
typedef enum item { ITEM_READY, ITEM_WANTS, ITEM_FAILED } item;

typedef struct feeding {
    sluice_bhttp_reader *r;
    sluice_span in; /* not yet consumed */
    sluice_error *err;
} feeding;

static item refuse(feeding *f, sluice_status status, const char *what)
{
    f->r->failed = sluice_error_set(f->err, status, "binary http: %s", what);
    sluice_error_offset(f->err, f->r->offset - f->r->held.len); /* where the item begins: the same however the bytes were cut */
    return ITEM_FAILED;
}

/* Move bytes from the input until `n` of the item are held. */
static item hold(feeding *f, size_t n)
{
    sluice_buf *held = &f->r->held;
    size_t take;

    if (held->len >= n)
        return ITEM_READY;
    if (n + f->r->head_bytes > f->r->limits.head_bytes_max + CHUNK_LEN_MAX)
        return refuse(f, SLUICE_ERR_LIMIT, "control data and fields are too long");
    take = n - held->len < f->in.len ? n - held->len : f->in.len;
    if (!sluice_buf_append(held, f->in.ptr, take)) {
        f->r->failed = sluice_buf_error(held, "binary http", f->err);
        return ITEM_FAILED;
    }
    f->in = sluice_span_of(f->in.ptr + take, f->in.len - take);
    f->r->offset += take;
    return held->len >= n ? ITEM_READY : ITEM_WANTS;
}

static item hold_varint(feeding *f, size_t *at, uint64_t *value)
{
    item it = hold(f, *at + 1);

    if (it == ITEM_READY)
        it = hold(f, *at + sluice_varint_len(f->r->held.ptr[*at]));
    if (it != ITEM_READY)
        return it;
    *value = sluice_varint_value(f->r->held.ptr + *at);
    *at += sluice_varint_len(f->r->held.ptr[*at]);
    return ITEM_READY;
}

/* A length-prefixed string at `*at` of what is held.  `out` is an offset and a length: held may move while it grows. */
static item hold_string(feeding *f, size_t *at, size_t *start, size_t *len)
{
    uint64_t n = 0;
    item it = hold_varint(f, at, &n);

    if (it != ITEM_READY)
        return it;
    if (n > f->r->limits.head_bytes_max)
        return refuse(f, SLUICE_ERR_LIMIT, "control data and fields are too long");
    *start = *at;
    *len = (size_t)n;
    it = hold(f, *at + *len);
    if (it == ITEM_READY)
        *at += *len;
    return it;
}

/* The item is used up. */
static void drop_held(sluice_bhttp_reader *r)
{
    r->head_bytes += r->held.len;
    sluice_buf_clear(&r->held);
}

static item tell(feeding *f, const sluice_bhttp_event *event)
{
    f->r->failed = f->r->on_event(event, f->r->user);
    return f->r->failed == SLUICE_OK ? ITEM_READY : ITEM_FAILED;
}

static item read_framing(feeding *f)
{
    sluice_bhttp_reader *r = f->r;
    uint64_t framing = 0;
    size_t at = 0;
    item it = hold_varint(f, &at, &framing);

    if (it != ITEM_READY)
        return it;
    if (framing > 3)
        return refuse(f, SLUICE_ERR_FORMAT, "unknown framing indicator");
    if ((framing % 2 == 0) != (r->kind == SLUICE_BHTTP_IS_REQUEST))
        return refuse(f, SLUICE_ERR_FORMAT,
                      r->kind == SLUICE_BHTTP_IS_REQUEST ? "a response where a request was expected" : "a request where a response was expected");
    r->is_indeterminate = framing >= 2;
    r->state = STATE_CONTROL;
    drop_held(r);
    return ITEM_READY;
}

static item read_request_control(feeding *f)
{
    sluice_bhttp_reader *r = f->r;
    size_t at = 0, start[4], len[4];
    sluice_bhttp_event event = { .part = SLUICE_BHTTP_REQUEST };

    for (size_t i = 0; i < 4; i++) {
        const item it = hold_string(f, &at, &start[i], &len[i]);

        if (it != ITEM_READY)
            return it;
    }
    event.method = sluice_span_of(r->held.ptr + start[0], len[0]);
    event.scheme = sluice_span_of(r->held.ptr + start[1], len[1]);
    event.authority = sluice_span_of(r->held.ptr + start[2], len[2]);
    event.path = sluice_span_of(r->held.ptr + start[3], len[3]);
    if (!is_token(event.method) || !is_scheme(event.scheme) || !is_visible(event.authority) || !is_path(event.path))
        return refuse(f, SLUICE_ERR_FORMAT, "method, scheme, authority or path has characters that HTTP forbids");
    if (tell(f, &event) != ITEM_READY)
        return ITEM_FAILED;
    drop_held(r);
    r->state = STATE_SECTION;
    return ITEM_READY;
}

static item read_status(feeding *f)
{
    sluice_bhttp_reader *r = f->r;
    sluice_bhttp_event event = { .part = SLUICE_BHTTP_STATUS };
    uint64_t code = 0;
    size_t at = 0;
    item it = hold_varint(f, &at, &code);

    if (it != ITEM_READY)
        return it;
    if (code < 100 || code > 599)
        return refuse(f, SLUICE_ERR_FORMAT, "status code outside 100 to 599");
    if (code < 200 && ++r->n_informational > INFORMATIONAL_MAX)
        return refuse(f, SLUICE_ERR_LIMIT, "too many informational responses");
    event.http_status = r->http_status = (int)code;
    if (tell(f, &event) != ITEM_READY)
        return ITEM_FAILED;
    drop_held(r);
    r->state = STATE_SECTION;
    return ITEM_READY;
}

static item read_control(feeding *f)
{
    return f->r->kind == SLUICE_BHTTP_IS_REQUEST ? read_request_control(f) : read_status(f);
}

/* The beginning of a header or trailer section. */
static item read_section(feeding *f)
{
    sluice_bhttp_reader *r = f->r;

    r->has_begun_part = false;
    if (!r->is_indeterminate) {
        size_t at = 0;
        const item it = hold_varint(f, &at, &r->left);

        if (it != ITEM_READY)
            return it;
        drop_held(r);
        if (r->head_bytes > r->limits.head_bytes_max || r->left > r->limits.head_bytes_max - r->head_bytes)
            return refuse(f, SLUICE_ERR_LIMIT, "control data and fields are too long");
        r->has_begun_part = true;
    }
    r->state = STATE_FIELDS;
    return ITEM_READY;
}

static void leave_fields(sluice_bhttp_reader *r)
{
    r->has_begun_part = false;
    if (r->is_trailer)
        r->state = STATE_PADDING;
    else if (r->kind == SLUICE_BHTTP_IS_RESPONSE && r->http_status < 200)
        r->state = STATE_CONTROL;
    else
        r->state = STATE_CONTENT;
}

/* A known-length section ends where its length says; a field may not reach beyond.  `at` bytes of the field are known to belong to it. */
static bool crosses_section(const sluice_bhttp_reader *r, size_t at)
{
    return !r->is_indeterminate && at > r->left;
}

static item read_field(feeding *f)
{
    sluice_bhttp_reader *r = f->r;
    size_t at = 0, name = 0, name_len = 0, value = 0, value_len = 0;
    sluice_bhttp_event event = { .part = r->is_trailer ? SLUICE_BHTTP_TRAILER : SLUICE_BHTTP_HEADER };
    item it;

    if (!r->is_indeterminate && r->left == 0) {
        leave_fields(r);
        return ITEM_READY;
    }
    it = hold_string(f, &at, &name, &name_len);
    /* name + name_len is set as soon as the length is known: a field that cannot fit is refused before its bytes are waited for */
    if (it != ITEM_FAILED && crosses_section(r, name + name_len))
        return refuse(f, SLUICE_ERR_FORMAT, "a field reaches beyond its section");
    if (it != ITEM_READY)
        return it;
    r->has_begun_part = true;
    if (name_len == 0 && r->is_indeterminate) {
        drop_held(r);
        leave_fields(r);
        return ITEM_READY;
    }
    it = hold_string(f, &at, &value, &value_len);
    if (it != ITEM_FAILED && crosses_section(r, value + value_len))
        return refuse(f, SLUICE_ERR_FORMAT, "a field reaches beyond its section");
    if (it != ITEM_READY)
        return it;
    event.name = sluice_span_of(r->held.ptr + name, name_len);
    event.value = sluice_span_of(r->held.ptr + value, value_len);
    if (!sluice_http_name_ok(event.name))
        return refuse(f, SLUICE_ERR_FORMAT, "a field name is not a lower-case token");
    if (!sluice_http_value_ok(event.value))
        return refuse(f, SLUICE_ERR_FORMAT, "a field value has characters that HTTP forbids");
    if (++r->n_fields > r->limits.fields_max)
        return refuse(f, SLUICE_ERR_LIMIT, "too many fields");
    if (tell(f, &event) != ITEM_READY)
        return ITEM_FAILED;
    if (!r->is_indeterminate)
        r->left -= at;
    drop_held(r);
    return ITEM_READY;
}

/* The length of the content, or of its next chunk. */
static item read_content(feeding *f)
{
    sluice_bhttp_reader *r = f->r;
    size_t at = 0;
    item it = hold_varint(f, &at, &r->left);

    if (it != ITEM_READY)
        return it;
    sluice_buf_clear(&r->held); /* not counted as head: a stream has any number of chunks */
    if (r->left > r->limits.content_bytes_max - r->content_bytes)
        return refuse(f, SLUICE_ERR_LIMIT, "the content is too long");
    r->content_bytes += r->left;
    if (r->left == 0) {
        r->is_trailer = true;
        r->state = STATE_SECTION;
    } else {
        r->has_begun_part = true;
        r->state = STATE_BODY;
    }
    return ITEM_READY;
}

static item read_body(feeding *f)
{
    sluice_bhttp_reader *r = f->r;
    const size_t n = r->left < f->in.len ? (size_t)r->left : f->in.len;
    const sluice_bhttp_event event = { .part = SLUICE_BHTTP_BODY, .body = sluice_span_of(f->in.ptr, n) };

    if (n == 0)
        return ITEM_WANTS;
    f->in = sluice_span_of(f->in.ptr + n, f->in.len - n);
    r->offset += n;
    r->left -= n;
    if (tell(f, &event) != ITEM_READY)
        return ITEM_FAILED;
    if (r->left == 0) {
        r->is_trailer = !r->is_indeterminate;
        r->state = r->is_indeterminate ? STATE_CONTENT : STATE_SECTION;
    }
    return ITEM_READY;
}

static item read_padding(feeding *f)
{
    for (; f->in.len > 0; f->in = sluice_span_of(f->in.ptr + 1, f->in.len - 1)) {
        if (f->in.ptr[0] != 0)
            return refuse(f, SLUICE_ERR_FORMAT, "padding is not zero");
        f->r->offset++;
    }
    return ITEM_WANTS;
}

void sluice_bhttp_reader_init(sluice_bhttp_reader *r, sluice_bhttp_kind kind, const sluice_bhttp_limits *limits, const sluice_allocator *al,
                              sluice_bhttp_fn on_event, void *user)
{
    memset(r, 0, sizeof *r);
    r->kind = kind;
    if (limits != NULL)
        r->limits = *limits;
    if (r->limits.head_bytes_max == 0)
        r->limits.head_bytes_max = HEAD_BYTES_MAX;
    if (r->limits.fields_max == 0)
        r->limits.fields_max = FIELDS_MAX;
    r->on_event = on_event;
    r->user = user;
    sluice_buf_init(&r->held, al, r->limits.head_bytes_max + CHUNK_LEN_MAX);
}

sluice_status sluice_bhttp_reader_feed(sluice_bhttp_reader *r, sluice_span bytes, sluice_error *err)
{
    static item (*const steps[])(feeding *) = { read_framing, read_control, read_section, read_field, read_content, read_body, read_padding };
    feeding f = { r, bytes, err };
    item it = ITEM_READY;

    if (r->failed != SLUICE_OK)
        return sluice_error_set(err, r->failed, "binary http: the message was refused before");
    if (bytes.len == 0)
        return SLUICE_OK;
    while (it == ITEM_READY)
        it = steps[r->state](&f);
    return r->failed;
}

/* RFC 9292 3.8: empty parts may be missing at the end, down to the header section (the examples of RFC 9458 leave out even that one). */
static bool may_end(const sluice_bhttp_reader *r)
{
    if (r->held.len > 0)
        return false;
    switch (r->state) {
    case STATE_SECTION: return r->is_trailer || r->kind == SLUICE_BHTTP_IS_REQUEST || r->http_status >= 200;
    case STATE_FIELDS: /* indeterminate and no field yet, or a known-length section that is used up */
        return (r->is_indeterminate ? !r->has_begun_part : r->left == 0) &&
               (r->is_trailer || r->kind == SLUICE_BHTTP_IS_REQUEST || r->http_status >= 200);
    case STATE_CONTENT: return !r->has_begun_part; /* content that has begun must have its end mark */
    case STATE_PADDING: return true;
    default: return false;
    }
}

sluice_status sluice_bhttp_reader_finish(sluice_bhttp_reader *r, sluice_error *err)
{
    if (r->failed != SLUICE_OK)
        return sluice_error_set(err, r->failed, "binary http: the message was refused before");
    if (!may_end(r)) {
        r->failed = sluice_error_set(err, SLUICE_ERR_TRUNCATED, "binary http: the message breaks off");
        sluice_error_offset(err, r->offset);
        return r->failed;
    }
    return SLUICE_OK;
}

void sluice_bhttp_reader_deinit(sluice_bhttp_reader *r)
{
    sluice_buf_deinit(&r->held);
    sluice_wipe(r, sizeof *r);
}
