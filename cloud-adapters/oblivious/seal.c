/* seal.c - the only maker of an envelope: a grant and a plaintext go in, ciphertext and the means to open its answer come out.
 *
 *   grant + binary HTTP --spend--> pad to a size class --> HPKE to the destination's key --> envelope (to the transport)
 *                                                                                       \-> opener   (stays here)
 *
 *   plain answer     nonce | sealed: collected, opened at finish
 *   chunked answer   nonce | {len, sealed}* 0 sealed: each chunk is delivered when its tag has been verified
 *
 * The struct behind sluice_envelope is defined in this file and nowhere else, and nothing in this file makes one without having spent a grant on
 * exactly these bytes.  Every request has a fresh HPKE context; its secrets live in the opener and are wiped with it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cloud-adapters/oblivious/seal.h"

#include "cloud-adapters/oblivious/bhttp.h"
#include "cloud-adapters/oblivious/ohttp.h"

struct sluice_envelope {
    const sluice_allocator *al;
    sluice_destination destination; /* a copy: the grant may go, what its pointers borrow is the policy's */
    bool is_chunked;
    sluice_buf bytes;
};

typedef enum opener_state { OPENER_NEW, OPENER_READING, OPENER_DONE, OPENER_FAILED } opener_state;

struct sluice_answer_opener {
    const sluice_allocator *al;
    opener_state state;
    sluice_ohttp exchange;
    sluice_hpke response; /* derived when the response nonce is complete */
    uint8_t nonce[SLUICE_OHTTP_NONCE_MAX];
    size_t nonce_len;
    size_t bytes_left; /* of the outer body's limit */
    sluice_buf sealed; /* plain answers */
    sluice_ohttp_chunk_reader chunks;
    sluice_bhttp_reader http;
    bool is_informational;
    sluice_answer_fn on_event;
    void *user;
    sluice_error *err; /* of the running call, for what happens inside callbacks */
};

/* ---- sealing ---------------------------------------------------------------------------------- */

/* Prefix and sealed request into `out`; the context of the exchange into `x`. */
static sluice_status encapsulate(sluice_ohttp *x, sluice_buf *out, const sluice_destination *destination, sluice_span plaintext, bool is_chunked,
                                 const sluice_platform *platform, const sluice_allocator *al, sluice_error *err)
{
    uint8_t ephemeral[32], prefix[SLUICE_OHTTP_PREFIX_BYTES];
    sluice_ohttp_key key;
    sluice_buf padded;
    sluice_status st;

    sluice_buf_init(&padded, al, SIZE_MAX);
    st = sluice_ohttp_key_select(&key, destination->key_config, &sluice_hpke_chacha20, err);
    if (st == SLUICE_OK)
        st = sluice_random(platform, ephemeral, sizeof ephemeral, err);
    if (st == SLUICE_OK)
        st = sluice_ohttp_client_begin(x, &key, is_chunked, ephemeral, prefix, err);
    if (st == SLUICE_OK && !sluice_buf_append(out, prefix, sizeof prefix))
        st = sluice_buf_error(out, "seal", err);
    if (st == SLUICE_OK && !sluice_buf_append_span(&padded, plaintext))
        st = sluice_buf_error(&padded, "seal", err);
    if (st == SLUICE_OK)
        st = sluice_ohttp_pad(&padded, err);
    if (st == SLUICE_OK)
        st = is_chunked ? sluice_ohttp_chunks(&x->request, sluice_buf_span(&padded), true, out, err)
                        : sluice_ohttp_seal(&x->request, sluice_buf_span(&padded), out, err);
    if (st != SLUICE_OK && err != NULL && destination->endpoint_id != NULL)
        sluice_error_where(err, destination->endpoint_id);
    sluice_buf_deinit(&padded);
    sluice_wipe(ephemeral, sizeof ephemeral);
    return st;
}

sluice_status sluice_seal(sluice_grant *grant, sluice_span plaintext, bool is_streamed, const sluice_platform *platform, const sluice_allocator *al,
                          sluice_envelope **envelope, sluice_answer_opener **opener, sluice_error *err)
{
    sluice_envelope *e = NULL;
    sluice_answer_opener *o = NULL;
    sluice_status st;

    *envelope = NULL;
    *opener = NULL;
    if (grant == NULL || platform == NULL)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "seal: nothing is sealed without a grant and a platform");
    st = sluice_grant_spend(grant, plaintext, sluice_now_us(platform), err);
    if (st != SLUICE_OK)
        return st;
    e = sluice_alloc_zeroed(al, sizeof *e);
    o = sluice_alloc_zeroed(al, sizeof *o);
    if (e == NULL || o == NULL) {
        st = sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "seal: %zu bytes for the envelope", sizeof *e + sizeof *o);
        sluice_free(al, e, sizeof *e);
        sluice_free(al, o, sizeof *o);
        return st;
    }
    e->al = o->al = al;
    e->destination = *sluice_grant_destination(grant);
    e->is_chunked = is_streamed;
    sluice_buf_init(&e->bytes, al, SIZE_MAX);
    st = encapsulate(&o->exchange, &e->bytes, &e->destination, plaintext, is_streamed, platform, al, err);
    if (st != SLUICE_OK) {
        sluice_envelope_close(e);
        sluice_answer_close(o);
        return st;
    }
    *envelope = e;
    *opener = o;
    return SLUICE_OK;
}

sluice_span sluice_envelope_bytes(const sluice_envelope *e)
{
    return sluice_buf_span(&e->bytes);
}

const char *sluice_envelope_content_type(const sluice_envelope *e)
{
    return e->is_chunked ? SLUICE_OHTTP_CHUNKED_REQUEST_TYPE : SLUICE_OHTTP_REQUEST_TYPE;
}

const sluice_destination *sluice_envelope_destination(const sluice_envelope *e)
{
    return &e->destination;
}

void sluice_envelope_close(sluice_envelope *e)
{
    if (e == NULL)
        return;
    sluice_buf_deinit(&e->bytes);
    sluice_free_wiped(e->al, e, sizeof *e);
}

/* ---- opening ---------------------------------------------------------------------------------- */

static sluice_status deliver(sluice_answer_opener *o, const sluice_answer_event *event)
{
    if (o->on_event(event, o->user))
        return SLUICE_OK;
    return sluice_error_set(o->err, SLUICE_ERR_CANCELLED, "answer: stopped by its receiver");
}

static sluice_status on_http(const sluice_bhttp_event *e, void *user)
{
    sluice_answer_opener *o = user;
    sluice_answer_event event = { .http_status = e->http_status, .name = e->name, .value = e->value, .body = e->body };

    switch (e->part) {
    case SLUICE_BHTTP_STATUS:
        o->is_informational = e->http_status < 200;
        event.part = SLUICE_ANSWER_STATUS;
        return o->is_informational ? SLUICE_OK : deliver(o, &event);
    case SLUICE_BHTTP_HEADER: event.part = SLUICE_ANSWER_HEADER; return o->is_informational ? SLUICE_OK : deliver(o, &event);
    case SLUICE_BHTTP_BODY: event.part = SLUICE_ANSWER_BODY; return deliver(o, &event);
    default: /* trailers; requests cannot come */ return SLUICE_OK;
    }
}

static sluice_status on_chunk(sluice_span plain, void *user)
{
    sluice_answer_opener *o = user;

    return sluice_bhttp_reader_feed(&o->http, plain, o->err);
}

sluice_status sluice_answer_begin(sluice_answer_opener *o, sluice_span content_type, size_t bytes_max, sluice_answer_fn on_event, void *user,
                                  sluice_error *err)
{
    const char *want = o->exchange.is_chunked ? SLUICE_OHTTP_CHUNKED_RESPONSE_TYPE : SLUICE_OHTTP_RESPONSE_TYPE;
    const sluice_bhttp_limits limits = { 0, 0, bytes_max };

    if (o->state != OPENER_NEW)
        return sluice_error_set(err, SLUICE_ERR_STATE, "answer: an opener opens one answer");
    if (!sluice_http_media_type_is(content_type, want)) {
        o->state = OPENER_FAILED;
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "answer: its content type is not %s", want);
    }
    o->on_event = on_event;
    o->user = user;
    o->bytes_left = bytes_max;
    sluice_buf_init(&o->sealed, o->al, bytes_max);
    sluice_bhttp_reader_init(&o->http, SLUICE_BHTTP_IS_RESPONSE, &limits, o->al, on_http, o);
    sluice_ohttp_chunk_reader_init(&o->chunks, &o->response, o->al, on_chunk, o);
    o->state = OPENER_READING;
    return SLUICE_OK;
}

static sluice_status take_nonce(sluice_answer_opener *o, sluice_span *bytes, sluice_error *err)
{
    const size_t want = sluice_ohttp_nonce_len(&o->exchange) - o->nonce_len, n = want < bytes->len ? want : bytes->len;

    if (n == 0)
        return SLUICE_OK;
    memcpy(o->nonce + o->nonce_len, bytes->ptr, n);
    o->nonce_len += n;
    *bytes = sluice_span_of(bytes->ptr + n, bytes->len - n);
    if (n < want)
        return SLUICE_OK;
    if (!sluice_ohttp_response_begin(&o->response, &o->exchange, o->nonce))
        return sluice_error_set(err, SLUICE_ERR_INTEGRITY, "answer: its key cannot be derived");
    return SLUICE_OK;
}

static sluice_status feed(sluice_answer_opener *o, sluice_span bytes, sluice_error *err)
{
    sluice_status st;

    if (bytes.len > o->bytes_left)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "answer: longer than the limit for this request");
    o->bytes_left -= bytes.len;
    st = take_nonce(o, &bytes, err);
    if (st != SLUICE_OK || bytes.len == 0)
        return st;
    if (o->exchange.is_chunked)
        return sluice_ohttp_chunk_reader_feed(&o->chunks, bytes, err);
    return sluice_buf_append_span(&o->sealed, bytes) ? SLUICE_OK : sluice_buf_error(&o->sealed, "answer", err);
}

sluice_status sluice_answer_feed(sluice_answer_opener *o, sluice_span bytes, sluice_error *err)
{
    sluice_status st;

    if (o->state != OPENER_READING)
        return sluice_error_set(err, SLUICE_ERR_STATE, "answer: not being read");
    o->err = err;
    st = feed(o, bytes, err);
    o->err = NULL;
    if (st != SLUICE_OK)
        o->state = OPENER_FAILED;
    return st;
}

static sluice_status open_plain(sluice_answer_opener *o, sluice_error *err)
{
    const sluice_span sealed = sluice_buf_span(&o->sealed);

    if (sealed.len < SLUICE_HPKE_TAG_BYTES)
        return sluice_error_set(err, SLUICE_ERR_TRUNCATED, "answer: it breaks off");
    if (!sluice_hpke_open(&o->response, o->sealed.ptr, SLUICE_SPAN_EMPTY, sealed))
        return sluice_error_set(err, SLUICE_ERR_INTEGRITY, "answer: it does not verify");
    return sluice_bhttp_reader_feed(&o->http, sluice_span_of(o->sealed.ptr, sealed.len - SLUICE_HPKE_TAG_BYTES), err);
}

static sluice_status finish(sluice_answer_opener *o, sluice_error *err)
{
    const sluice_answer_event end = { .part = SLUICE_ANSWER_END };
    sluice_status st;

    if (o->nonce_len < sluice_ohttp_nonce_len(&o->exchange))
        return sluice_error_set(err, SLUICE_ERR_TRUNCATED, "answer: it breaks off");
    st = o->exchange.is_chunked ? sluice_ohttp_chunk_reader_finish(&o->chunks, err) : open_plain(o, err);
    if (st == SLUICE_OK)
        st = sluice_bhttp_reader_finish(&o->http, err);
    if (st == SLUICE_OK)
        st = deliver(o, &end);
    return st;
}

sluice_status sluice_answer_finish(sluice_answer_opener *o, sluice_error *err)
{
    sluice_status st;

    if (o->state != OPENER_READING)
        return sluice_error_set(err, SLUICE_ERR_STATE, "answer: not being read");
    o->err = err;
    st = finish(o, err);
    o->err = NULL;
    o->state = st == SLUICE_OK ? OPENER_DONE : OPENER_FAILED;
    return st;
}

void sluice_answer_close(sluice_answer_opener *o)
{
    const sluice_allocator *al;

    if (o == NULL)
        return;
    al = o->al;
    sluice_ohttp_chunk_reader_deinit(&o->chunks);
    sluice_bhttp_reader_deinit(&o->http);
    sluice_buf_deinit(&o->sealed);
    sluice_ohttp_deinit(&o->exchange);
    sluice_hpke_deinit(&o->response);
    sluice_free_wiped(al, o, sizeof *o);
}
