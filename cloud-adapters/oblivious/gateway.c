/* gateway.c - the server side of (chunked) oblivious HTTP: implements sluice/gateway.h.
 *
 * A request is opened whole and parsed into the exchange's own memory, so that nothing in sluice_gateway_request points into the caller's bytes.
 * An answer is sealed in the form in which the request came: plain ones at the end, padded to a size class, so that whoever carries them
 * learns little about their length; chunked ones call by call.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sluice/gateway.h"

#include "cloud-adapters/oblivious/bhttp.h"
#include "cloud-adapters/oblivious/ohttp.h"

enum { HEADERS_MAX = 128, STRINGS_BYTES_MAX = 256 * 1024, RESPONSE_BYTES_MAX = 64 << 20 };

typedef enum respond_state { RESPOND_NEW, RESPOND_BODY, RESPOND_OVER } respond_state;

struct sluice_gateway_exchange {
    const sluice_allocator *al;
    sluice_ohttp exchange;
    /* the request */
    sluice_arena strings;
    sluice_buf content;
    sluice_gateway_header headers[HEADERS_MAX];
    sluice_gateway_request http;
    sluice_ohttp_chunk_reader chunks;
    sluice_bhttp_reader reader;
    sluice_error *err; /* of the running call, for what happens inside callbacks */
    /* the answer */
    respond_state state;
    sluice_hpke response;
    uint8_t nonce[SLUICE_OHTTP_NONCE_MAX];
    int http_status;
    sluice_buf section, answer; /* field section and content of a plain answer */
    sluice_gateway_out_fn out;
    void *out_user;
};

sluice_status sluice_gateway_key_config(uint8_t key_id, const uint8_t secret[32], uint8_t *out, size_t *len, sluice_error *err)
{
    sluice_ohttp_key key = { key_id, { 0 }, &sluice_hpke_chacha20 };
    sluice_status st = sluice_crypto_init(err);
    sluice_buf list;

    if (st != SLUICE_OK)
        return st;
    sluice_x25519_public(key.pub, secret);
    sluice_buf_init(&list, NULL, *len);
    if (sluice_ohttp_key_write(&list, &key)) {
        memcpy(out, list.ptr, list.len);
        *len = list.len;
    } else {
        st = sluice_buf_error(&list, "gateway: key configuration", err);
    }
    sluice_buf_deinit(&list);
    return st;
}

/* ---- the request ------------------------------------------------------------------------------ */

static bool keep(sluice_gateway_exchange *x, sluice_span *out, sluice_span s)
{
    *out = sluice_arena_copy(&x->strings, s);
    return s.len == 0 || out->ptr != NULL;
}

static sluice_status on_request(const sluice_bhttp_event *e, void *user)
{
    sluice_gateway_exchange *x = user;
    sluice_gateway_request *http = &x->http;
    bool ok = true;

    switch (e->part) {
    case SLUICE_BHTTP_REQUEST:
        ok = keep(x, &http->method, e->method) && keep(x, &http->scheme, e->scheme) && keep(x, &http->authority, e->authority) &&
             keep(x, &http->path, e->path);
        break;
    case SLUICE_BHTTP_HEADER: /* the reader lets at most HEADERS_MAX through */
        ok = keep(x, &x->headers[http->n_headers].name, e->name) && keep(x, &x->headers[http->n_headers].value, e->value);
        http->n_headers++;
        break;
    case SLUICE_BHTTP_BODY:
        if (!sluice_buf_append_span(&x->content, e->body))
            return sluice_buf_error(&x->content, "gateway: request", x->err);
        break;
    default: break; /* trailers say nothing that a target needs */
    }
    return ok ? SLUICE_OK : sluice_error_set(x->err, SLUICE_ERR_NO_MEMORY, "gateway: no memory for the request");
}

static sluice_status on_chunk(sluice_span plain, void *user)
{
    sluice_gateway_exchange *x = user;

    return sluice_bhttp_reader_feed(&x->reader, plain, x->err);
}

static sluice_status open_chunked(sluice_gateway_exchange *x, sluice_span sealed, sluice_error *err)
{
    sluice_status st;

    sluice_ohttp_chunk_reader_init(&x->chunks, &x->exchange.request, x->al, on_chunk, x);
    st = sluice_ohttp_chunk_reader_feed(&x->chunks, sealed, err);
    if (st == SLUICE_OK)
        st = sluice_ohttp_chunk_reader_finish(&x->chunks, err);
    sluice_ohttp_chunk_reader_deinit(&x->chunks);
    return st;
}

static sluice_status open_plain(sluice_gateway_exchange *x, sluice_span sealed, sluice_error *err)
{
    const size_t len = sealed.len - SLUICE_HPKE_TAG_BYTES; /* gateway_begin has checked that there is a tag */
    uint8_t *plain = sluice_alloc(x->al, sealed.len);
    sluice_status st;

    if (plain == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "gateway: %zu bytes for the request", sealed.len);
    if (sluice_hpke_open(&x->exchange.request, plain, SLUICE_SPAN_EMPTY, sealed))
        st = sluice_bhttp_reader_feed(&x->reader, sluice_span_of(plain, len), err);
    else
        st = sluice_error_set(err, SLUICE_ERR_INTEGRITY, "gateway: the request does not open with this key");
    sluice_free_wiped(x->al, plain, sealed.len);
    return st;
}

static sluice_status open_request(sluice_gateway_exchange *x, uint8_t key_id, const uint8_t secret[32], bool is_chunked, sluice_span body,
                                  sluice_error *err)
{
    const sluice_bhttp_limits limits = { 0, HEADERS_MAX, body.len };
    sluice_span sealed;
    sluice_status st = sluice_ohttp_gateway_begin(&x->exchange, key_id, secret, &sluice_hpke_chacha20, is_chunked, body, err);

    if (st != SLUICE_OK)
        return st;
    sealed = sluice_span_of(body.ptr + SLUICE_OHTTP_PREFIX_BYTES, body.len - SLUICE_OHTTP_PREFIX_BYTES);
    sluice_bhttp_reader_init(&x->reader, SLUICE_BHTTP_IS_REQUEST, &limits, x->al, on_request, x);
    x->err = err;
    st = is_chunked ? open_chunked(x, sealed, err) : open_plain(x, sealed, err);
    if (st == SLUICE_OK)
        st = sluice_bhttp_reader_finish(&x->reader, err);
    x->err = NULL;
    sluice_bhttp_reader_deinit(&x->reader);
    return st;
}

sluice_status sluice_gateway_open(sluice_gateway_exchange **out, uint8_t key_id, const uint8_t secret[32], const char *content_type, sluice_span body,
                                  const sluice_allocator *al, sluice_gateway_request *http, sluice_error *err)
{
    const bool is_chunked = content_type != NULL && strcmp(content_type, SLUICE_OHTTP_CHUNKED_REQUEST_TYPE) == 0;
    sluice_gateway_exchange *x;
    sluice_status st;

    *out = NULL;
    memset(http, 0, sizeof *http);
    if (!is_chunked && (content_type == NULL || strcmp(content_type, SLUICE_OHTTP_REQUEST_TYPE) != 0))
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "gateway: the content type is not one of oblivious HTTP");
    st = sluice_crypto_init(err);
    if (st != SLUICE_OK)
        return st;
    x = sluice_alloc_zeroed(al, sizeof *x);
    if (x == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "gateway: %zu bytes for the exchange", sizeof *x);
    x->al = al;
    sluice_arena_init(&x->strings, al, STRINGS_BYTES_MAX);
    sluice_buf_init(&x->content, al, body.len);
    sluice_buf_init(&x->section, al, STRINGS_BYTES_MAX);
    sluice_buf_init(&x->answer, al, RESPONSE_BYTES_MAX);
    st = open_request(x, key_id, secret, is_chunked, body, err);
    if (st != SLUICE_OK) {
        sluice_gateway_close(x);
        return st;
    }
    x->http.headers = x->headers;
    x->http.body = sluice_buf_span(&x->content);
    x->http.enc = sluice_span_of(x->exchange.enc, sizeof x->exchange.enc);
    x->http.is_chunked = is_chunked;
    *http = x->http;
    *out = x;
    return SLUICE_OK;
}

/* ---- the answer ------------------------------------------------------------------------------- */

const char *sluice_gateway_response_type(const sluice_gateway_exchange *x)
{
    return x->exchange.is_chunked ? SLUICE_OHTTP_CHUNKED_RESPONSE_TYPE : SLUICE_OHTTP_RESPONSE_TYPE;
}

/* Seal one piece of a chunked answer and send it, after `before` (the nonce, or nothing). */
static sluice_status send_chunk(sluice_gateway_exchange *x, sluice_span before, sluice_span plain, bool is_final, sluice_error *err)
{
    sluice_status st = SLUICE_OK;
    sluice_buf sealed;

    sluice_buf_init(&sealed, x->al, SIZE_MAX);
    if (!sluice_buf_append_span(&sealed, before))
        st = sluice_buf_error(&sealed, "gateway", err);
    if (st == SLUICE_OK)
        st = sluice_ohttp_chunks(&x->response, plain, is_final, &sealed, err);
    if (st == SLUICE_OK && sealed.len > 0)
        st = x->out(sluice_buf_span(&sealed), x->out_user);
    sluice_buf_deinit(&sealed);
    return st;
}

static sluice_status begin_chunked(sluice_gateway_exchange *x, sluice_error *err)
{
    sluice_buf head;
    sluice_status st;

    sluice_buf_init(&head, x->al, SIZE_MAX);
    st = sluice_bhttp_response_head(&head, x->http_status, sluice_buf_span(&x->section), err);
    if (st == SLUICE_OK)
        st = send_chunk(x, sluice_span_of(x->nonce, sluice_ohttp_nonce_len(&x->exchange)), sluice_buf_span(&head), false, err);
    sluice_buf_deinit(&head);
    return st;
}

sluice_status sluice_gateway_respond_begin(sluice_gateway_exchange *x, const uint8_t random[32], int http_status,
                                           const sluice_gateway_header *headers, size_t n_headers, sluice_gateway_out_fn out, void *user,
                                           sluice_error *err)
{
    sluice_status st = SLUICE_OK;

    if (x->state != RESPOND_NEW)
        return sluice_error_set(err, SLUICE_ERR_STATE, "gateway: an exchange has one answer");
    if (http_status < 200 || http_status > 599)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "gateway: status %d is not a final one", http_status);
    sluice_buf_clear(&x->section);
    for (size_t i = 0; i < n_headers && st == SLUICE_OK; i++)
        st = sluice_bhttp_field(&x->section, headers[i].name, headers[i].value, err);
    if (st != SLUICE_OK)
        return st; /* nothing has been sent: the caller may try again with better headers */
    x->state = RESPOND_OVER;
    x->http_status = http_status;
    x->out = out;
    x->out_user = user;
    memcpy(x->nonce, random, sizeof x->nonce);
    if (!sluice_ohttp_response_begin(&x->response, &x->exchange, x->nonce))
        return sluice_error_set(err, SLUICE_ERR_STATE, "gateway: the response key cannot be derived");
    if (x->exchange.is_chunked)
        st = begin_chunked(x, err);
    if (st == SLUICE_OK)
        x->state = RESPOND_BODY;
    return st;
}

static sluice_status body_chunk(sluice_gateway_exchange *x, sluice_span body, sluice_error *err)
{
    sluice_buf plain;
    sluice_status st;

    sluice_buf_init(&plain, x->al, SIZE_MAX);
    st = sluice_bhttp_chunk(&plain, body, err);
    if (st == SLUICE_OK)
        st = send_chunk(x, SLUICE_SPAN_EMPTY, sluice_buf_span(&plain), false, err);
    sluice_buf_deinit(&plain);
    return st;
}

sluice_status sluice_gateway_respond_body(sluice_gateway_exchange *x, sluice_span body, sluice_error *err)
{
    sluice_status st;

    if (x->state != RESPOND_BODY)
        return sluice_error_set(err, SLUICE_ERR_STATE, "gateway: no answer has been begun");
    if (x->exchange.is_chunked)
        st = body_chunk(x, body, err);
    else
        st = sluice_buf_append_span(&x->answer, body) ? SLUICE_OK : sluice_buf_error(&x->answer, "gateway: answer", err);
    if (st != SLUICE_OK)
        x->state = RESPOND_OVER;
    return st;
}

static sluice_status end_plain(sluice_gateway_exchange *x, sluice_error *err)
{
    sluice_buf message, sealed;
    sluice_status st;

    sluice_buf_init(&message, x->al, SIZE_MAX);
    sluice_buf_init(&sealed, x->al, SIZE_MAX);
    st = sluice_bhttp_response(&message, x->http_status, sluice_buf_span(&x->section), sluice_buf_span(&x->answer), err);
    if (st == SLUICE_OK)
        st = sluice_ohttp_pad(&message, err);
    if (st == SLUICE_OK && !sluice_buf_append(&sealed, x->nonce, sluice_ohttp_nonce_len(&x->exchange)))
        st = sluice_buf_error(&sealed, "gateway", err);
    if (st == SLUICE_OK)
        st = sluice_ohttp_seal(&x->response, sluice_buf_span(&message), &sealed, err);
    if (st == SLUICE_OK)
        st = x->out(sluice_buf_span(&sealed), x->out_user);
    sluice_buf_deinit(&message);
    sluice_buf_deinit(&sealed);
    return st;
}

static sluice_status end_chunked(sluice_gateway_exchange *x, sluice_error *err)
{
    sluice_buf end;
    sluice_status st;

    sluice_buf_init(&end, x->al, SIZE_MAX);
    st = sluice_bhttp_end(&end, err);
    if (st == SLUICE_OK)
        st = send_chunk(x, SLUICE_SPAN_EMPTY, sluice_buf_span(&end), true, err);
    sluice_buf_deinit(&end);
    return st;
}

sluice_status sluice_gateway_respond_end(sluice_gateway_exchange *x, sluice_error *err)
{
    if (x->state != RESPOND_BODY)
        return sluice_error_set(err, SLUICE_ERR_STATE, "gateway: no answer has been begun");
    x->state = RESPOND_OVER;
    return x->exchange.is_chunked ? end_chunked(x, err) : end_plain(x, err);
}

void sluice_gateway_close(sluice_gateway_exchange *x)
{
    const sluice_allocator *al;

    if (x == NULL)
        return;
    al = x->al;
    sluice_arena_deinit(&x->strings);
    sluice_buf_deinit(&x->content);
    sluice_buf_deinit(&x->section);
    sluice_buf_deinit(&x->answer);
    sluice_ohttp_deinit(&x->exchange);
    sluice_hpke_deinit(&x->response);
    sluice_free_wiped(al, x, sizeof *x);
}
