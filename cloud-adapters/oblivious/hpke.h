/* hpke.h - HPKE base mode (RFC 9180): DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and one AEAD, ChaCha20-Poly1305.
 *
 * The AEAD is a row of functions behind the suite, so that the published vectors that exist only for AES-128-GCM (RFC 9458, chunked OHTTP)
 * can be run byte for byte through this very code by a test that brings its own AES.  The library holds and offers ChaCha20-Poly1305 alone: it is
 * constant time on processors without AES instructions.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_CLOUD_HPKE_H
#define SLUICE_CLOUD_HPKE_H

#include "sdk/crypto/crypto.h"

enum {
    SLUICE_HPKE_KEM_X25519 = 0x0020, SLUICE_HPKE_KDF_SHA256 = 0x0001, SLUICE_HPKE_AEAD_CHACHA20 = 0x0003,
    SLUICE_HPKE_ENC_BYTES = 32, SLUICE_HPKE_KEY_MAX = 32, SLUICE_HPKE_NONCE_BYTES = 12, SLUICE_HPKE_TAG_BYTES = 16
};

/* RFC 9180 7.3, Nn = 12 and Nt = 16 in every row.  seal writes plain.len + 16 bytes, open sealed.len - 16; in place is fine. */
typedef struct sluice_hpke_aead {
    uint16_t id;
    size_t key_len; /* Nk, at most SLUICE_HPKE_KEY_MAX */
    void (*seal)(uint8_t *out, const uint8_t *key, const uint8_t nonce[12], sluice_span aad, sluice_span plain);
    bool (*open)(uint8_t *out, const uint8_t *key, const uint8_t nonce[12], sluice_span aad, sluice_span sealed);
} sluice_hpke_aead;
extern const sluice_hpke_aead sluice_hpke_chacha20;

/* One direction of one encryption context.  Wipe with sluice_hpke_deinit() on every path. */
typedef struct sluice_hpke {
    const sluice_hpke_aead *aead; /* NULL: empty, every use fails */
    uint8_t key[SLUICE_HPKE_KEY_MAX], base_nonce[SLUICE_HPKE_NONCE_BYTES], exporter_secret[32];
    uint64_t seq;
} sluice_hpke;

/* RFC 9180 7.1.3 DeriveKeyPair. */
bool sluice_hpke_derive_keypair(uint8_t secret[32], uint8_t pub[32], sluice_span ikm);

/* 5.1.1 SetupBaseS with the ephemeral secret handed in (32 random bytes; the vectors' skEm in tests), and SetupBaseR.
 * False when the far side's point is of small order (7.1.4); ctx is empty then. */
bool sluice_hpke_setup_sender(sluice_hpke *ctx, const sluice_hpke_aead *aead, uint8_t enc[32], const uint8_t pk_recipient[32],
                              const uint8_t ephemeral_secret[32], sluice_span info);
bool sluice_hpke_setup_receiver(sluice_hpke *ctx, const sluice_hpke_aead *aead, const uint8_t enc[32], const uint8_t sk_recipient[32], sluice_span info);

/* 5.2.  The sequence number advances on success; a context that has used the last one refuses.  open: false on a forgery. */
bool sluice_hpke_seal(sluice_hpke *ctx, uint8_t *out /* plain.len + 16 */, sluice_span aad, sluice_span plain);
bool sluice_hpke_open(sluice_hpke *ctx, uint8_t *out /* sealed.len - 16 */, sluice_span aad, sluice_span sealed);

/* 5.3.  exporter_context of at most 128 bytes. */
bool sluice_hpke_export(const sluice_hpke *ctx, uint8_t *out, size_t len, sluice_span exporter_context);
void sluice_hpke_deinit(sluice_hpke *ctx);

#endif
