/* crypto.h - the primitives that Sluice uses, over libsodium alone.
 *
 * No randomness is drawn here: keys and nonces are handed in, from the platform's generator, so that every caller is
 * deterministic under test.  Call sluice_crypto_init() once before anything else (idempotent, any thread).
 * Functions that return bool return false on a forgery or an invalid point, and then the output is wiped.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_SDK_CRYPTO_CRYPTO_H
#define SLUICE_SDK_CRYPTO_CRYPTO_H

#include "sdk/base/base.h"

enum {
    SLUICE_SHA256_BYTES = 32, SLUICE_BLAKE2B_BYTES = 32, SLUICE_X25519_BYTES = 32,
    SLUICE_CHACHA_KEY_BYTES = 32, SLUICE_CHACHA_NONCE_BYTES = 12, SLUICE_AEAD_TAG_BYTES = 16, SLUICE_XCHACHA_NONCE_BYTES = 24,
    SLUICE_ED25519_PUBLIC_BYTES = 32, SLUICE_ED25519_SEED_BYTES = 32, SLUICE_ED25519_SIG_BYTES = 64
};

sluice_status sluice_crypto_init(sluice_error *err);
const char *sluice_crypto_version(void); /* libsodium's; static */

void sluice_sha256(uint8_t out[32], sluice_span data);
void sluice_blake2b(uint8_t out[32], sluice_span key /* 0 or 16..64 bytes */, sluice_span data); /* RFC 7693, 256-bit output */
typedef struct sluice_hmac_sha256_state { uint64_t opaque[64]; } sluice_hmac_sha256_state; /* large enough; checked in crypto_sodium.c */
void sluice_hmac_sha256_init(sluice_hmac_sha256_state *st, sluice_span key);
void sluice_hmac_sha256_update(sluice_hmac_sha256_state *st, sluice_span data);
void sluice_hmac_sha256_final(sluice_hmac_sha256_state *st, uint8_t out[32]); /* wipes st */
void sluice_hmac_sha256(uint8_t out[32], sluice_span key, sluice_span data);
void sluice_hkdf_sha256_extract(uint8_t prk[32], sluice_span salt, sluice_span ikm);        /* RFC 5869 2.2 */
bool sluice_hkdf_sha256_expand(uint8_t *out, size_t len, const uint8_t prk[32], sluice_span info); /* 2.3; false when len > 255 * 32 */

/* RFC 8439 ChaCha20-Poly1305.  seal writes plain.len + 16 bytes, open writes sealed.len - 16. In place is fine. */
void sluice_chacha20poly1305_seal(uint8_t *out, const uint8_t key[32], const uint8_t nonce[12], sluice_span aad, sluice_span plain);
bool sluice_chacha20poly1305_open(uint8_t *out, const uint8_t key[32], const uint8_t nonce[12], sluice_span aad, sluice_span sealed);
void sluice_xchacha20poly1305_seal(uint8_t *out, const uint8_t key[32], const uint8_t nonce[24], sluice_span aad, sluice_span plain);
bool sluice_xchacha20poly1305_open(uint8_t *out, const uint8_t key[32], const uint8_t nonce[24], sluice_span aad, sluice_span sealed);

void sluice_x25519_public(uint8_t pub[32], const uint8_t secret[32]);                              /* RFC 7748 */
bool sluice_x25519(uint8_t shared[32], const uint8_t secret[32], const uint8_t pub[32]);           /* false on an all-zero result */

void sluice_ed25519_public(uint8_t pub[32], const uint8_t seed[32]);                               /* RFC 8032 */
void sluice_ed25519_sign(uint8_t sig[64], const uint8_t seed[32], sluice_span message);
bool sluice_ed25519_verify(const uint8_t sig[64], const uint8_t pub[32], sluice_span message);

bool sluice_ct_eq(const void *a, const void *b, size_t len); /* constant time */
void sluice_hex(char *out /* 2 * len + 1 */, const uint8_t *data, size_t len);
bool sluice_unhex(uint8_t *out, size_t out_len, const char *hex); /* exactly out_len bytes, lower or upper case */
size_t sluice_base64_len(size_t n);                           /* with padding, without NUL */
void sluice_base64(char *out /* sluice_base64_len + 1 */, sluice_span data);
bool sluice_unbase64(uint8_t *out, size_t cap, size_t *len, sluice_span text); /* standard alphabet, padded, no white space */

#endif
