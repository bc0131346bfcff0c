/* session_seal.c - a chunk is nonce (24 bytes), ciphertext, tag (16 bytes).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/src/session_seal.h"

#include "sdk/crypto/crypto.h"

static sluice_status seal(void *user, sluice_span aad, sluice_span plain, uint8_t *out, sluice_error *err)
{
    const sluice_session_seal *s = user;
    const sluice_status st = sluice_random(s->platform, out, SLUICE_XCHACHA_NONCE_BYTES, err);

    if (st == SLUICE_OK)
        sluice_xchacha20poly1305_seal(out + SLUICE_XCHACHA_NONCE_BYTES, s->key, out, aad, plain);
    return st;
}

static sluice_status open_sealed(void *user, sluice_span aad, sluice_span sealed, uint8_t *out, sluice_error *err)
{
    const sluice_session_seal *s = user;
    sluice_span body;

    if (sealed.len < s->sealer.overhead)
        return sluice_error_set(err, SLUICE_ERR_INTEGRITY, "session: a chunk of %zu bytes", sealed.len);
    body = sluice_span_of(sealed.ptr + SLUICE_XCHACHA_NONCE_BYTES, sealed.len - SLUICE_XCHACHA_NONCE_BYTES);
    if (sluice_xchacha20poly1305_open(out, s->key, sealed.ptr, aad, body))
        return SLUICE_OK;
    return sluice_error_set(err, SLUICE_ERR_INTEGRITY, "session: the file was changed, or sealed with another key");
}

void sluice_session_seal_init(sluice_session_seal *s, const uint8_t key[32], const sluice_platform *platform)
{
    memset(s, 0, sizeof *s);
    s->platform = platform;
    (void)sluice_hkdf_sha256_expand(s->key, sizeof s->key, key, SLUICE_SPAN_LIT("sluice session file 1")); /* false only for more than 8,160 bytes */
    s->sealer = (sluice_engine_sealer){ .overhead = SLUICE_XCHACHA_NONCE_BYTES + SLUICE_AEAD_TAG_BYTES, .seal = seal, .open = open_sealed, .user = s };
}

void sluice_session_seal_wipe(sluice_session_seal *s)
{
    sluice_wipe(s, sizeof *s);
}
