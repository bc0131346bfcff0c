/* hpke.h - HPKE base mode (RFC 9180): DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_CLOUD_HPKE_H
#define SLUICE_CLOUD_HPKE_H

#include "sdk/crypto/crypto.h"

enum { SLUICE_HPKE_KEM_X25519 = 0x0020, SLUICE_HPKE_KDF_SHA256 = 0x0001, SLUICE_HPKE_AEAD_CHACHA20 = 0x0003, SLUICE_HPKE_ENC_BYTES = 32 };

/* One direction of one encryption context.  Wipe with sluice_hpke_deinit() on every path. */
typedef struct sluice_hpke {
    uint8_t key[32], base_nonce[12], exporter_secret[32];
    uint64_t seq;
} sluice_hpke;

/* RFC 9180 4.1 DeriveKeyPair. */
bool sluice_hpke_derive_keypair(uint8_t secret[32], uint8_t pub[32], sluice_span ikm);
/* 5.1.1 SetupBaseS with the ephemeral secret handed in (32 random bytes; the vectors' skEm in tests). */
bool sluice_hpke_setup_sender(sluice_hpke *ctx, uint8_t enc[32], const uint8_t pk_recipient[32], const uint8_t ephemeral_secret[32], sluice_span info);
bool sluice_hpke_setup_receiver(sluice_hpke *ctx, const uint8_t enc[32], const uint8_t sk_recipient[32], sluice_span info);
bool sluice_hpke_seal(sluice_hpke *ctx, uint8_t *out /* plain.len + 16 */, sluice_span aad, sluice_span plain);
bool sluice_hpke_open(sluice_hpke *ctx, uint8_t *out /* sealed.len - 16 */, sluice_span aad, sluice_span sealed);
bool sluice_hpke_export(const sluice_hpke *ctx, uint8_t *out, size_t len, sluice_span exporter_context);
void sluice_hpke_deinit(sluice_hpke *ctx);

#endif
