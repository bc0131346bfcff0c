/* ohttp.c - oblivious HTTP: key configurations, encapsulation, response keys, chunks (RFC 9458; draft-ietf-ohai-chunked-ohttp-08).
 *
 *   request    key id(1) kem(2) kdf(2) aead(2) | enc(32) | sealed
 *   response   nonce(32) | sealed
 *   chunked    in place of "sealed": {varint length, sealed chunk}* varint 0, final sealed chunk up to the end
 *
 * Request and response are bound to each other by the exported secret, plain and chunked form are kept apart by their labels: bytes of one form
 * never open as the other.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cloud-adapters/oblivious/ohttp.h"

#include "cloud-adapters/oblivious/bhttp.h"

enum { CONFIGS_MAX = 16, CONFIG_X25519_BYTES_MIN = 1 + 2 + 32 + 2 + 4 };

#define REQUEST_LABEL          "message/bhttp request"
#define RESPONSE_LABEL         "message/bhttp response"
#define CHUNKED_REQUEST_LABEL  "message/bhttp chunked request"
#define CHUNKED_RESPONSE_LABEL "message/bhttp chunked response"

static unsigned read_u16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static void write_u16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)(v & 0xff);
}

/* ---- key configurations ----------------------------------------------------------------------- */

static sluice_status bad_keys(sluice_error *err, size_t offset, const char *what)
{
    sluice_error_set(err, SLUICE_ERR_FORMAT, "ohttp keys: %s", what);
    sluice_error_offset(err, offset);
    return SLUICE_ERR_FORMAT;
}

/* One configuration with our KEM; everything after the KEM's two bytes has a known place.  *fits: it offers the suite. */
static bool read_x25519_config(sluice_span config, const sluice_hpke_aead *aead, sluice_ohttp_key *out, bool *fits)
{
    size_t suites_len;

    *fits = false;
    if (config.len < CONFIG_X25519_BYTES_MIN)
        return false;
    suites_len = read_u16(config.ptr + 35);
    if (suites_len < 4 || suites_len % 4 != 0 || suites_len != config.len - 37)
        return false;
    for (size_t at = 37; at < config.len; at += 4)
        *fits = *fits || (read_u16(config.ptr + at) == SLUICE_HPKE_KDF_SHA256 && read_u16(config.ptr + at + 2) == aead->id);
    out->key_id = config.ptr[0];
    memcpy(out->pub, config.ptr + 3, sizeof out->pub);
    out->aead = aead;
    return true;
}

sluice_status sluice_ohttp_key_select(sluice_ohttp_key *out, sluice_span list, const sluice_hpke_aead *aead, sluice_error *err)
{
    sluice_ohttp_key chosen = { 0, { 0 }, NULL }, key;
    size_t at = 0, n_configs = 0;

    memset(out, 0, sizeof *out);
    while (at < list.len) {
        sluice_span config;
        bool fits;

        if (list.len - at < 2)
            return bad_keys(err, at, "the list is cut");
        config = sluice_span_of(list.ptr + at + 2, read_u16(list.ptr + at));
        if (config.len > list.len - at - 2)
            return bad_keys(err, at, "a configuration reaches beyond the list");
        if (config.len < 3)
            return bad_keys(err, at, "a configuration is too short");
        if (++n_configs > CONFIGS_MAX)
            return bad_keys(err, at, "too many configurations");
        if (read_u16(config.ptr + 1) == SLUICE_HPKE_KEM_X25519) {
            if (!read_x25519_config(config, aead, &key, &fits))
                return bad_keys(err, at, "a configuration does not hold what its lengths say");
            if (fits && chosen.aead == NULL)
                chosen = key;
        }
        at += 2 + config.len;
    }
    if (n_configs == 0)
        return bad_keys(err, 0, "the list is empty");
    if (chosen.aead == NULL)
        return sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "ohttp keys: no configuration offers X25519, HKDF-SHA256 and the AEAD 0x%04x", aead->id);
    *out = chosen;
    return SLUICE_OK;
}

bool sluice_ohttp_key_write(sluice_buf *out, const sluice_ohttp_key *key)
{
    uint8_t bytes[2 + CONFIG_X25519_BYTES_MIN];

    write_u16(bytes, CONFIG_X25519_BYTES_MIN);
    bytes[2] = key->key_id;
    write_u16(bytes + 3, SLUICE_HPKE_KEM_X25519);
    memcpy(bytes + 5, key->pub, sizeof key->pub);
    write_u16(bytes + 37, 4);
    write_u16(bytes + 39, SLUICE_HPKE_KDF_SHA256);
    write_u16(bytes + 41, key->aead->id);
    return sluice_buf_append(out, bytes, sizeof bytes);
}

/* ---- one exchange ----------------------------------------------------------------------------- */

static void write_header(uint8_t hdr[SLUICE_OHTTP_HEADER_BYTES], uint8_t key_id, const sluice_hpke_aead *aead)
{
    hdr[0] = key_id;
    write_u16(hdr + 1, SLUICE_HPKE_KEM_X25519);
    write_u16(hdr + 3, SLUICE_HPKE_KDF_SHA256);
    write_u16(hdr + 5, aead->id);
}

/* RFC 9458 4.3: info = label || 0x00 || hdr.  Returns its length. */
static size_t request_info(uint8_t info[64], bool is_chunked, const uint8_t hdr[SLUICE_OHTTP_HEADER_BYTES])
{
    const sluice_span label = is_chunked ? SLUICE_SPAN_LIT(CHUNKED_REQUEST_LABEL) : SLUICE_SPAN_LIT(REQUEST_LABEL);

    memcpy(info, label.ptr, label.len);
    info[label.len] = 0;
    memcpy(info + label.len + 1, hdr, SLUICE_OHTTP_HEADER_BYTES);
    return label.len + 1 + SLUICE_OHTTP_HEADER_BYTES;
}

sluice_status sluice_ohttp_client_begin(sluice_ohttp *x, const sluice_ohttp_key *key, bool is_chunked, const uint8_t ephemeral_secret[32],
                                        uint8_t prefix[SLUICE_OHTTP_PREFIX_BYTES], sluice_error *err)
{
    uint8_t info[64];
    size_t info_len;

    memset(x, 0, sizeof *x);
    x->is_chunked = is_chunked;
    write_header(prefix, key->key_id, key->aead);
    info_len = request_info(info, is_chunked, prefix);
    if (!sluice_hpke_setup_sender(&x->request, key->aead, x->enc, key->pub, ephemeral_secret, sluice_span_of(info, info_len)))
        return sluice_error_set(err, SLUICE_ERR_INTEGRITY, "ohttp: the gateway's public key is not usable");
    memcpy(prefix + SLUICE_OHTTP_HEADER_BYTES, x->enc, sizeof x->enc);
    return SLUICE_OK;
}

sluice_status sluice_ohttp_gateway_begin(sluice_ohttp *x, uint8_t key_id, const uint8_t secret[32], const sluice_hpke_aead *aead, bool is_chunked,
                                         sluice_span message, sluice_error *err)
{
    uint8_t expected[SLUICE_OHTTP_HEADER_BYTES], info[64];
    size_t info_len;

    memset(x, 0, sizeof *x);
    if (message.len < SLUICE_OHTTP_PREFIX_BYTES + SLUICE_HPKE_TAG_BYTES)
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "ohttp: %zu bytes are too few for an encapsulated request", message.len);
    write_header(expected, key_id, aead);
    if (memcmp(expected, message.ptr, sizeof expected) != 0)
        return sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "ohttp: the request is for key %u and suite %04x/%04x/%04x, not for this key",
                                message.ptr[0], read_u16(message.ptr + 1), read_u16(message.ptr + 3), read_u16(message.ptr + 5));
    x->is_chunked = is_chunked;
    memcpy(x->enc, message.ptr + SLUICE_OHTTP_HEADER_BYTES, sizeof x->enc);
    info_len = request_info(info, is_chunked, expected);
    if (!sluice_hpke_setup_receiver(&x->request, aead, x->enc, secret, sluice_span_of(info, info_len)))
        return sluice_error_set(err, SLUICE_ERR_INTEGRITY, "ohttp: the encapsulated key is not usable");
    return SLUICE_OK;
}

void sluice_ohttp_deinit(sluice_ohttp *x)
{
    if (x != NULL)
        sluice_wipe(x, sizeof *x);
}

size_t sluice_ohttp_nonce_len(const sluice_ohttp *x)
{
    const size_t key_len = x->request.aead != NULL ? x->request.aead->key_len : 0;

    return key_len > SLUICE_HPKE_NONCE_BYTES ? key_len : SLUICE_HPKE_NONCE_BYTES;
}

bool sluice_ohttp_response_begin(sluice_hpke *response, const sluice_ohttp *x, const uint8_t *response_nonce)
{
    const sluice_span label = x->is_chunked ? SLUICE_SPAN_LIT(CHUNKED_RESPONSE_LABEL) : SLUICE_SPAN_LIT(RESPONSE_LABEL);
    const size_t nonce_len = sluice_ohttp_nonce_len(x);
    uint8_t secret[SLUICE_OHTTP_NONCE_MAX], salt[SLUICE_HPKE_ENC_BYTES + SLUICE_OHTTP_NONCE_MAX], prk[32];
    bool ok;

    memset(response, 0, sizeof *response);
    if (!sluice_hpke_export(&x->request, secret, nonce_len, label))
        return false;
    memcpy(salt, x->enc, sizeof x->enc);
    memcpy(salt + sizeof x->enc, response_nonce, nonce_len);
    sluice_hkdf_sha256_extract(prk, sluice_span_of(salt, sizeof x->enc + nonce_len), sluice_span_of(secret, nonce_len));
    ok = sluice_hkdf_sha256_expand(response->key, x->request.aead->key_len, prk, SLUICE_SPAN_LIT("key")) &&
         sluice_hkdf_sha256_expand(response->base_nonce, sizeof response->base_nonce, prk, SLUICE_SPAN_LIT("nonce"));
    response->aead = x->request.aead;
    sluice_wipe(secret, sizeof secret);
    sluice_wipe(prk, sizeof prk);
    if (!ok)
        sluice_hpke_deinit(response);
    return ok;
}

/* Grow `out` by the sealed form of `plain`, sealed where it lies. */
static sluice_status append_sealed(sluice_hpke *ctx, sluice_span aad, sluice_span plain, sluice_buf *out, sluice_error *err)
{
    static const uint8_t no_tag[SLUICE_HPKE_TAG_BYTES];
    const size_t start = out->len;

    if (!sluice_buf_append_span(out, plain) || !sluice_buf_append(out, no_tag, sizeof no_tag)) {
        sluice_wipe(out->ptr != NULL ? out->ptr + start : NULL, out->len - start);
        out->len = start;
        return sluice_buf_error(out, "ohttp", err);
    }
    if (!sluice_hpke_seal(ctx, out->ptr + start, aad, sluice_span_of(out->ptr + start, plain.len))) {
        sluice_wipe(out->ptr + start, out->len - start);
        out->len = start;
        return sluice_error_set(err, SLUICE_ERR_STATE, "ohttp: the encryption context is used up");
    }
    return SLUICE_OK;
}

sluice_status sluice_ohttp_seal(sluice_hpke *ctx, sluice_span plain, sluice_buf *out, sluice_error *err)
{
    return append_sealed(ctx, SLUICE_SPAN_EMPTY, plain, out, err);
}

/* ---- chunks ----------------------------------------------------------------------------------- */

sluice_status sluice_ohttp_chunk(sluice_hpke *ctx, sluice_span plain, bool is_final, sluice_buf *out, sluice_error *err)
{
    if (!is_final && plain.len == 0)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "ohttp: only the final chunk may be empty");
    if (!sluice_varint_append(out, is_final ? 0 : plain.len + SLUICE_HPKE_TAG_BYTES))
        return sluice_buf_error(out, "ohttp", err);
    return append_sealed(ctx, is_final ? SLUICE_SPAN_LIT("final") : SLUICE_SPAN_EMPTY, plain, out, err);
}

sluice_status sluice_ohttp_chunks(sluice_hpke *ctx, sluice_span plain, bool is_final, sluice_buf *out, sluice_error *err)
{
    sluice_status st = SLUICE_OK;

    while (st == SLUICE_OK && plain.len > SLUICE_OHTTP_CHUNK_BYTES) {
        st = sluice_ohttp_chunk(ctx, sluice_span_of(plain.ptr, SLUICE_OHTTP_CHUNK_BYTES), false, out, err);
        plain = sluice_span_of(plain.ptr + SLUICE_OHTTP_CHUNK_BYTES, plain.len - SLUICE_OHTTP_CHUNK_BYTES);
    }
    if (st == SLUICE_OK && (is_final || plain.len > 0))
        st = sluice_ohttp_chunk(ctx, plain, is_final, out, err);
    return st;
}

void sluice_ohttp_chunk_reader_init(sluice_ohttp_chunk_reader *r, sluice_hpke *ctx, const sluice_allocator *al, sluice_ohttp_chunk_fn on_chunk,
                                    void *user)
{
    memset(r, 0, sizeof *r);
    r->ctx = ctx;
    r->on_chunk = on_chunk;
    r->user = user;
    sluice_buf_init(&r->held, al, SLUICE_OHTTP_CHUNK_BYTES_MAX);
}

/* Open what is held, where it lies, and pass it on. */
static sluice_status open_held(sluice_ohttp_chunk_reader *r, sluice_error *err)
{
    const sluice_span aad = r->is_final ? SLUICE_SPAN_LIT("final") : SLUICE_SPAN_EMPTY;
    sluice_status st = SLUICE_OK;

    if (!sluice_hpke_open(r->ctx, r->held.ptr, aad, sluice_buf_span(&r->held)))
        return sluice_error_set(err, SLUICE_ERR_INTEGRITY, "ohttp: a chunk does not verify");
    if (r->held.len > SLUICE_HPKE_TAG_BYTES)
        st = r->on_chunk(sluice_span_of(r->held.ptr, r->held.len - SLUICE_HPKE_TAG_BYTES), r->user);
    sluice_buf_clear(&r->held);
    r->chunk_len = 0;
    return st;
}

static sluice_status read_chunk_len(sluice_ohttp_chunk_reader *r, sluice_error *err)
{
    const uint64_t len = sluice_varint_value(r->held.ptr);

    sluice_buf_clear(&r->held);
    if (len == 0) {
        r->is_final = true;
        return SLUICE_OK;
    }
    if (len <= SLUICE_HPKE_TAG_BYTES)
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "ohttp: a chunk before the final one is empty");
    if (len > SLUICE_OHTTP_CHUNK_BYTES_MAX)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "ohttp: a chunk is longer than %d bytes", SLUICE_OHTTP_CHUNK_BYTES_MAX);
    r->chunk_len = (size_t)len;
    return SLUICE_OK;
}

/* Bytes that are still missing from what is being collected: the final chunk takes everything. */
static size_t chunk_missing(const sluice_ohttp_chunk_reader *r)
{
    if (r->is_final)
        return SIZE_MAX;
    if (r->chunk_len > 0)
        return r->chunk_len - r->held.len;
    return r->held.len == 0 ? 1 : sluice_varint_len(r->held.ptr[0]) - r->held.len;
}

sluice_status sluice_ohttp_chunk_reader_feed(sluice_ohttp_chunk_reader *r, sluice_span bytes, sluice_error *err)
{
    if (r->failed != SLUICE_OK)
        return sluice_error_set(err, r->failed, "ohttp: the message was refused before");
    while (bytes.len > 0 && r->failed == SLUICE_OK) {
        const size_t missing = chunk_missing(r), n = missing < bytes.len ? missing : bytes.len;

        if (!sluice_buf_append(&r->held, bytes.ptr, n)) {
            r->failed = sluice_buf_error(&r->held, "ohttp", err);
            break;
        }
        bytes = sluice_span_of(bytes.ptr + n, bytes.len - n);
        if (r->is_final)
            continue;
        if (r->chunk_len > 0 && r->held.len == r->chunk_len)
            r->failed = open_held(r, err);
        else if (r->chunk_len == 0 && r->held.len == sluice_varint_len(r->held.ptr[0]))
            r->failed = read_chunk_len(r, err);
    }
    return r->failed;
}

sluice_status sluice_ohttp_chunk_reader_finish(sluice_ohttp_chunk_reader *r, sluice_error *err)
{
    if (r->failed != SLUICE_OK)
        return sluice_error_set(err, r->failed, "ohttp: the message was refused before");
    if (!r->is_final || r->held.len < SLUICE_HPKE_TAG_BYTES)
        r->failed = sluice_error_set(err, SLUICE_ERR_TRUNCATED, "ohttp: the sealed message breaks off");
    else
        r->failed = open_held(r, err);
    return r->failed;
}

void sluice_ohttp_chunk_reader_deinit(sluice_ohttp_chunk_reader *r)
{
    sluice_buf_deinit(&r->held);
    sluice_wipe(r, sizeof *r);
}

/* ---- size classes ----------------------------------------------------------------------------- */

size_t sluice_ohttp_size_class(size_t len)
{
    unsigned exponent = 0, significant = 0;
    size_t mask;

    if (len <= 4096)
        return len == 0 ? 512 : (len + 511) / 512 * 512;
    /* Padme: with e = floor(log2 len) and s = floor(log2 e) + 1, the last e - s bits of the size are zero. */
    for (size_t rest = len; rest > 1; rest >>= 1)
        exponent++;
    for (unsigned rest = exponent; rest > 0; rest >>= 1)
        significant++;
    mask = ((size_t)1 << (exponent - significant)) - 1;
    return len > SIZE_MAX - mask ? len : (len + mask) & ~mask;
}

sluice_status sluice_ohttp_pad(sluice_buf *message, sluice_error *err)
{
    static const uint8_t zeros[512];
    const size_t padded_len = sluice_ohttp_size_class(message->len);

    while (message->len < padded_len) {
        const size_t missing = padded_len - message->len;

        if (!sluice_buf_append(message, zeros, missing < sizeof zeros ? missing : sizeof zeros))
            return sluice_buf_error(message, "ohttp: padding", err);
    }
    return SLUICE_OK;
}
