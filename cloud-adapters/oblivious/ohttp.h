/* ohttp.h - oblivious HTTP (RFC 9458) and its chunked form (draft-ietf-ohai-chunked-ohttp-08): key configurations, requests, responses.
 *
 * One set of functions serves both sides; only the setup differs.  A response context is a sluice_hpke as well: its key and
 * base nonce are derived per RFC 9458 4.4, its messages are counted the same way.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_CLOUD_OHTTP_H
#define SLUICE_CLOUD_OHTTP_H

#include "cloud-adapters/oblivious/hpke.h"

enum {
    SLUICE_OHTTP_HEADER_BYTES = 7,                        /* key id, KEM, KDF, AEAD */
    SLUICE_OHTTP_PREFIX_BYTES = SLUICE_OHTTP_HEADER_BYTES + SLUICE_HPKE_ENC_BYTES,
    SLUICE_OHTTP_NONCE_MAX = 32,                          /* max(Nn, Nk) */
    SLUICE_OHTTP_CHUNK_BYTES = 16384 - SLUICE_HPKE_TAG_BYTES, /* plaintext per chunk that we write: every receiver must take 16384 sealed bytes */
    SLUICE_OHTTP_CHUNK_BYTES_MAX = 256 * 1024             /* sealed chunk that we take */
};

#define SLUICE_OHTTP_REQUEST_TYPE "message/ohttp-req"
#define SLUICE_OHTTP_RESPONSE_TYPE "message/ohttp-res"
#define SLUICE_OHTTP_CHUNKED_REQUEST_TYPE "message/ohttp-chunked-req"
#define SLUICE_OHTTP_CHUNKED_RESPONSE_TYPE "message/ohttp-chunked-res"

/* ---- key configurations */
typedef struct sluice_ohttp_key {
    uint8_t key_id, pub[32];
    const sluice_hpke_aead *aead;
} sluice_ohttp_key;

/* Choose from application/ohttp-keys (RFC 9458 3.2): the first configuration with X25519 that offers HKDF-SHA256 with `aead`.
 * SLUICE_ERR_FORMAT with the offset when anything in the list is malformed: the list is then discarded whole, or a server could tell
 * clients apart by what they make of its broken half.  Configurations with unknown KEMs are skipped.  SLUICE_ERR_UNSUPPORTED when none fits. */
sluice_status sluice_ohttp_key_select(sluice_ohttp_key *out, sluice_span list, const sluice_hpke_aead *aead, sluice_error *err);

/* Append a list of one configuration: X25519, HKDF-SHA256, `aead`. */
bool sluice_ohttp_key_write(sluice_buf *out, const sluice_ohttp_key *key);

/* ---- both sides of one exchange */
typedef struct sluice_ohttp {
    sluice_hpke request;               /* client: seals; gateway: opens */
    uint8_t enc[SLUICE_HPKE_ENC_BYTES];
    bool is_chunked;
} sluice_ohttp;

/* Client: writes header and enc, SLUICE_OHTTP_PREFIX_BYTES, into `prefix`.  SLUICE_ERR_INTEGRITY when the key is a point of small order. */
sluice_status sluice_ohttp_client_begin(sluice_ohttp *x, const sluice_ohttp_key *key, bool is_chunked, const uint8_t ephemeral_secret[32],
                                        uint8_t prefix[SLUICE_OHTTP_PREFIX_BYTES], sluice_error *err);
/* Gateway: reads them.  SLUICE_ERR_FORMAT when `message` is too short, _UNSUPPORTED when key id or suite are not ours, _INTEGRITY. */
sluice_status sluice_ohttp_gateway_begin(sluice_ohttp *x, uint8_t key_id, const uint8_t secret[32], const sluice_hpke_aead *aead, bool is_chunked,
                                         sluice_span message, sluice_error *err);
void sluice_ohttp_deinit(sluice_ohttp *x); /* wipes */

/* Bytes of the response nonce: max(Nn, Nk) of the suite. */
size_t sluice_ohttp_nonce_len(const sluice_ohttp *x);
/* Response key and nonce (RFC 9458 4.4 from the exported secret on).  Wipe *response with sluice_hpke_deinit(). */
bool sluice_ohttp_response_begin(sluice_hpke *response, const sluice_ohttp *x, const uint8_t *response_nonce);

/* Seal `plain` with empty AAD and append it: the body of a plain request or response. */
sluice_status sluice_ohttp_seal(sluice_hpke *ctx, sluice_span plain, sluice_buf *out, sluice_error *err);

/* ---- chunks: {length, sealed}* 0 sealed-final.  The final one is sealed with the AAD "final", so that an end cannot be forged by cutting. */

/* Append `plain` as chunks of at most SLUICE_OHTTP_CHUNK_BYTES.  Without is_final an empty `plain` writes nothing. */
sluice_status sluice_ohttp_chunks(sluice_hpke *ctx, sluice_span plain, bool is_final, sluice_buf *out, sluice_error *err);
/* Append exactly one chunk. */
sluice_status sluice_ohttp_chunk(sluice_hpke *ctx, sluice_span plain, bool is_final, sluice_buf *out, sluice_error *err);

typedef sluice_status (*sluice_ohttp_chunk_fn)(sluice_span plain, void *user); /* not SLUICE_OK: the feed stops and returns it; err is the callback's to word */
typedef struct sluice_ohttp_chunk_reader {
    sluice_hpke *ctx;        /* borrowed */
    sluice_ohttp_chunk_fn on_chunk;
    void *user;
    sluice_buf held;         /* the length, then the sealed chunk */
    size_t chunk_len;        /* sealed; 0: the length is being read */
    bool is_final;
    sluice_status failed;    /* sticky */
} sluice_ohttp_chunk_reader;
void sluice_ohttp_chunk_reader_init(sluice_ohttp_chunk_reader *r, sluice_hpke *ctx, const sluice_allocator *al, sluice_ohttp_chunk_fn on_chunk, void *user);
/* FORMAT (an empty chunk that is not final), LIMIT, INTEGRITY, NO_MEMORY.  A chunk reaches the callback only after its tag has been verified. */
sluice_status sluice_ohttp_chunk_reader_feed(sluice_ohttp_chunk_reader *r, sluice_span bytes, sluice_error *err);
/* The bytes have ended: opens the final chunk.  TRUNCATED when there was none. */
sluice_status sluice_ohttp_chunk_reader_finish(sluice_ohttp_chunk_reader *r, sluice_error *err);
void sluice_ohttp_chunk_reader_deinit(sluice_ohttp_chunk_reader *r); /* wipes; safe on a zeroed struct */

/* The size class of a message of `len` bytes: multiples of 512 up to 4 KiB, beyond that Padme (Nikitin et al., PETS 2019: at most 12 % more, and only
 * O(log log len) bits of the length stay visible). */
size_t sluice_ohttp_size_class(size_t len);
/* Bring a binary HTTP message to its size class: zeros after its end are padding (RFC 9292 3.8). */
sluice_status sluice_ohttp_pad(sluice_buf *message, sluice_error *err);

#endif
