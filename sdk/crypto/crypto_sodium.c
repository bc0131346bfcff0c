/* crypto_sodium.c - the primitives of crypto.h on libsodium, and the only file that knows it.
 *
 * Builds with libsodium 1.0.18 and later; HKDF is built here on HMAC, since 1.0.18 has none.
 *
 * A few libsodium calls can fail only when the caller breaks crypto.h (a BLAKE2b key of 5 bytes, say).  Such a call
 * must not go on with an output that nobody computed, and there is no status to return: it aborts.
 * Nothing that a file, a peer or an app's text holds can lead there.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <sodium.h>
#include <stdlib.h>

#include "sdk/crypto/crypto.h"

_Static_assert(sizeof(crypto_auth_hmacsha256_state) <= sizeof(sluice_hmac_sha256_state), "HMAC state fits");
_Static_assert(_Alignof(crypto_auth_hmacsha256_state) <= _Alignof(sluice_hmac_sha256_state), "HMAC state is aligned");
_Static_assert(crypto_hash_sha256_BYTES == SLUICE_SHA256_BYTES, "SHA-256");
_Static_assert(crypto_scalarmult_BYTES == SLUICE_X25519_BYTES, "X25519");
_Static_assert(crypto_aead_chacha20poly1305_ietf_KEYBYTES == SLUICE_CHACHA_KEY_BYTES, "ChaCha20-Poly1305 key");
_Static_assert(crypto_aead_chacha20poly1305_ietf_NPUBBYTES == SLUICE_CHACHA_NONCE_BYTES, "ChaCha20-Poly1305 nonce");
_Static_assert(crypto_aead_chacha20poly1305_ietf_ABYTES == SLUICE_AEAD_TAG_BYTES, "ChaCha20-Poly1305 tag");
_Static_assert(crypto_aead_xchacha20poly1305_ietf_NPUBBYTES == SLUICE_XCHACHA_NONCE_BYTES, "XChaCha20-Poly1305 nonce");
_Static_assert(crypto_aead_xchacha20poly1305_ietf_ABYTES == SLUICE_AEAD_TAG_BYTES, "XChaCha20-Poly1305 tag");
_Static_assert(crypto_sign_BYTES == SLUICE_ED25519_SIG_BYTES, "Ed25519 signature");
_Static_assert(crypto_sign_PUBLICKEYBYTES == SLUICE_ED25519_PUBLIC_BYTES, "Ed25519 public key");
_Static_assert(crypto_sign_SEEDBYTES == SLUICE_ED25519_SEED_BYTES, "Ed25519 seed");

static void must(bool ok)
{
    if (!ok)
        abort();
}

sluice_status sluice_crypto_init(sluice_error *err)
{
    if (sodium_init() < 0) /* 0 the first time, 1 later; libsodium serializes */
        return sluice_error_set(err, SLUICE_ERR_STATE, "crypto: libsodium %s does not start", sodium_version_string());
    return SLUICE_OK;
}

const char *sluice_crypto_version(void)
{
    return sodium_version_string();
}

/* ---- hashes and MACs ------------------------------------------------------------------------------- */

void sluice_sha256(uint8_t out[32], sluice_span data)
{
    must(crypto_hash_sha256(out, data.ptr, data.len) == 0);
}

void sluice_blake2b(uint8_t out[32], sluice_span key, sluice_span data)
{
    must(key.len == 0 || (key.len >= crypto_generichash_KEYBYTES_MIN && key.len <= crypto_generichash_KEYBYTES_MAX));
    must(crypto_generichash(out, SLUICE_BLAKE2B_BYTES, data.ptr, data.len, key.len > 0 ? key.ptr : NULL, key.len) == 0);
}

void sluice_hmac_sha256_init(sluice_hmac_sha256_state *st, sluice_span key)
{
    must(crypto_auth_hmacsha256_init((crypto_auth_hmacsha256_state *)(void *)st, key.ptr, key.len) == 0);
}

void sluice_hmac_sha256_update(sluice_hmac_sha256_state *st, sluice_span data)
{
    must(crypto_auth_hmacsha256_update((crypto_auth_hmacsha256_state *)(void *)st, data.ptr, data.len) == 0);
}

void sluice_hmac_sha256_final(sluice_hmac_sha256_state *st, uint8_t out[32])
{
    must(crypto_auth_hmacsha256_final((crypto_auth_hmacsha256_state *)(void *)st, out) == 0);
    sluice_wipe(st, sizeof *st);
}

void sluice_hmac_sha256(uint8_t out[32], sluice_span key, sluice_span data)
{
    sluice_hmac_sha256_state st;

    sluice_hmac_sha256_init(&st, key);
    sluice_hmac_sha256_update(&st, data);
    sluice_hmac_sha256_final(&st, out);
}

/* An absent salt is 32 zero bytes (RFC 5869, 2.2), and HMAC pads its key with zeros: the empty key is the same. */
void sluice_hkdf_sha256_extract(uint8_t prk[32], sluice_span salt, sluice_span ikm)
{
    sluice_hmac_sha256(prk, salt, ikm);
}

bool sluice_hkdf_sha256_expand(uint8_t *out, size_t len, const uint8_t prk[32], sluice_span info)
{
    uint8_t block[SLUICE_SHA256_BYTES]; /* T(i); T(0) is empty */
    uint8_t counter = 0;

    if (len > 255 * sizeof block)
        return false;
    for (size_t done = 0; done < len; done += sizeof block) {
        sluice_hmac_sha256_state st;
        size_t n = len - done < sizeof block ? len - done : sizeof block;

        sluice_hmac_sha256_init(&st, sluice_span_of(prk, SLUICE_SHA256_BYTES));
        sluice_hmac_sha256_update(&st, sluice_span_of(block, counter > 0 ? sizeof block : 0));
        sluice_hmac_sha256_update(&st, info);
        counter++; /* 1 … 255 */
        sluice_hmac_sha256_update(&st, sluice_span_of(&counter, 1));
        sluice_hmac_sha256_final(&st, block);
        memcpy(out + done, block, n);
    }
    sluice_wipe(block, sizeof block);
    return true;
}

/* ---- AEAD ------------------------------------------------------------------------------------------ */

void sluice_chacha20poly1305_seal(uint8_t *out, const uint8_t key[32], const uint8_t nonce[12], sluice_span aad, sluice_span plain)
{
    must(crypto_aead_chacha20poly1305_ietf_encrypt(out, NULL, plain.ptr, plain.len, aad.ptr, aad.len, NULL, nonce, key) == 0);
}

bool sluice_chacha20poly1305_open(uint8_t *out, const uint8_t key[32], const uint8_t nonce[12], sluice_span aad, sluice_span sealed)
{
    if (sealed.len < SLUICE_AEAD_TAG_BYTES)
        return false;
    if (crypto_aead_chacha20poly1305_ietf_decrypt(out, NULL, NULL, sealed.ptr, sealed.len, aad.ptr, aad.len, nonce, key) == 0)
        return true;
    sluice_wipe(out, sealed.len - SLUICE_AEAD_TAG_BYTES);
    return false;
}

void sluice_xchacha20poly1305_seal(uint8_t *out, const uint8_t key[32], const uint8_t nonce[24], sluice_span aad, sluice_span plain)
{
    must(crypto_aead_xchacha20poly1305_ietf_encrypt(out, NULL, plain.ptr, plain.len, aad.ptr, aad.len, NULL, nonce, key) == 0);
}

bool sluice_xchacha20poly1305_open(uint8_t *out, const uint8_t key[32], const uint8_t nonce[24], sluice_span aad, sluice_span sealed)
{
    if (sealed.len < SLUICE_AEAD_TAG_BYTES)
        return false;
    if (crypto_aead_xchacha20poly1305_ietf_decrypt(out, NULL, NULL, sealed.ptr, sealed.len, aad.ptr, aad.len, nonce, key) == 0)
        return true;
    sluice_wipe(out, sealed.len - SLUICE_AEAD_TAG_BYTES);
    return false;
}

/* ---- curves ---------------------------------------------------------------------------------------- */

void sluice_x25519_public(uint8_t pub[32], const uint8_t secret[32])
{
    must(crypto_scalarmult_base(pub, secret) == 0);
}

bool sluice_x25519(uint8_t shared[32], const uint8_t secret[32], const uint8_t pub[32])
{
    /* libsodium refuses points of small order, which are the ones that give zero whatever the secret (RFC 7748, 6.1) */
    if (crypto_scalarmult(shared, secret, pub) == 0 && !sodium_is_zero(shared, SLUICE_X25519_BYTES))
        return true;
    sluice_wipe(shared, SLUICE_X25519_BYTES);
    return false;
}

void sluice_ed25519_public(uint8_t pub[32], const uint8_t seed[32])
{
    uint8_t pair[crypto_sign_SECRETKEYBYTES];

    must(crypto_sign_seed_keypair(pub, pair, seed) == 0);
    sluice_wipe(pair, sizeof pair);
}

/* The public half is derived again rather than taken from the caller: signing with a wrong one gives the seed away. */
void sluice_ed25519_sign(uint8_t sig[64], const uint8_t seed[32], sluice_span message)
{
    uint8_t pub[SLUICE_ED25519_PUBLIC_BYTES];
    uint8_t pair[crypto_sign_SECRETKEYBYTES];

    must(crypto_sign_seed_keypair(pub, pair, seed) == 0);
    must(crypto_sign_detached(sig, NULL, message.ptr, message.len, pair) == 0);
    sluice_wipe(pair, sizeof pair);
}

bool sluice_ed25519_verify(const uint8_t sig[64], const uint8_t pub[32], sluice_span message)
{
    return crypto_sign_verify_detached(sig, message.ptr, message.len, pub) == 0;
}

/* ---- comparing and encoding: libsodium's are free of secret-dependent branches ------------------------- */

bool sluice_ct_eq(const void *a, const void *b, size_t len)
{
    return len == 0 || sodium_memcmp(a, b, len) == 0;
}

void sluice_hex(char *out, const uint8_t *data, size_t len)
{
    out[0] = '\0';
    if (len > 0)
        must(sodium_bin2hex(out, 2 * len + 1, data, len) != NULL);
}

bool sluice_unhex(uint8_t *out, size_t out_len, const char *hex)
{
    size_t len = hex != NULL ? strlen(hex) : 1;
    size_t got = 0;

    if (out_len > SIZE_MAX / 2 || len != 2 * out_len)
        return false;
    if (out_len == 0)
        return true;
    if (sodium_hex2bin(out, out_len, hex, len, NULL, &got, NULL) == 0 && got == out_len)
        return true;
    sluice_wipe(out, out_len);
    return false;
}

size_t sluice_base64_len(size_t n)
{
    return n / 3 * 4 + (n % 3 != 0 ? 4 : 0);
}

void sluice_base64(char *out, sluice_span data)
{
    out[0] = '\0';
    if (data.len > 0)
        must(sodium_bin2base64(out, sluice_base64_len(data.len) + 1, data.ptr, data.len, sodium_base64_VARIANT_ORIGINAL) != NULL);
}

bool sluice_unbase64(uint8_t *out, size_t cap, size_t *len, sluice_span text)
{
    *len = 0;
    if (text.len == 0)
        return true;
    /* the padded form has whole groups of four; unused bits that are not zero are refused, so each value has one text */
    if (text.len % 4 != 0 || sodium_base642bin(out, cap, (const char *)text.ptr, text.len, NULL, len, NULL, sodium_base64_VARIANT_ORIGINAL) != 0) {
        sluice_wipe(out, cap);
        *len = 0;
        return false;
    }
    return true;
}
