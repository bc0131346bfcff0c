/* hpke.c - HPKE base mode over X25519 and HKDF-SHA256 (RFC 9180).
 *
 *   shared secret   DH(ephemeral, recipient) through the KEM's extract-and-expand (4.1)
 *   key schedule    shared secret + info -> key, base nonce, exporter secret (5.1)
 *   each message    nonce = base nonce XOR sequence number (5.2)
 *
 * Everything is derived from what the caller hands in, the ephemeral secret included, so a test can repeat a vector.  Nothing here allocates,
 * and every intermediate secret is wiped where it was made.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cloud-adapters/oblivious/hpke.h"

enum { SUITE_ID_MAX = 10, LABELED_INFO_MAX = 256 };

/* What a label is bound to: the KEM alone, or the whole suite. */
typedef struct suite_id {
    uint8_t bytes[SUITE_ID_MAX];
    size_t len;
} suite_id;

static const suite_id KEM_SUITE = { { 'K', 'E', 'M', 0x00, 0x20 }, 5 };

const sluice_hpke_aead sluice_hpke_chacha20 = { SLUICE_HPKE_AEAD_CHACHA20, SLUICE_CHACHA_KEY_BYTES, sluice_chacha20poly1305_seal,
                                                sluice_chacha20poly1305_open };

static suite_id hpke_suite(const sluice_hpke_aead *aead)
{
    suite_id s = { { 'H', 'P', 'K', 'E', 0x00, 0x20, 0x00, 0x01, 0x00, 0x00 }, 10 };

    s.bytes[8] = (uint8_t)(aead->id >> 8);
    s.bytes[9] = (uint8_t)(aead->id & 0xff);
    return s;
}

/* Extract is HMAC(salt, ikm), so the labeled input can be fed in pieces and needs no buffer, however long `info` is. */
static void labeled_extract(uint8_t prk[32], const suite_id *suite, sluice_span salt, const char *label, sluice_span ikm)
{
    sluice_hmac_sha256_state st;

    sluice_hmac_sha256_init(&st, salt);
    sluice_hmac_sha256_update(&st, SLUICE_SPAN_LIT("HPKE-v1"));
    sluice_hmac_sha256_update(&st, sluice_span_of(suite->bytes, suite->len));
    sluice_hmac_sha256_update(&st, sluice_span_str(label));
    sluice_hmac_sha256_update(&st, ikm);
    sluice_hmac_sha256_final(&st, prk);
}

static bool labeled_expand(uint8_t *out, size_t len, const uint8_t prk[32], const suite_id *suite, const char *label, sluice_span info)
{
    const sluice_span parts[] = { SLUICE_SPAN_LIT("HPKE-v1"), sluice_span_of(suite->bytes, suite->len), sluice_span_str(label), info };
    uint8_t text[LABELED_INFO_MAX];
    size_t at = 2;

    if (len > (size_t)255 * 32)
        return false;
    text[0] = (uint8_t)(len >> 8);
    text[1] = (uint8_t)(len & 0xff);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (parts[i].len > sizeof text - at)
            return false;
        if (parts[i].len > 0)
            memcpy(text + at, parts[i].ptr, parts[i].len);
        at += parts[i].len;
    }
    return sluice_hkdf_sha256_expand(out, len, prk, sluice_span_of(text, at));
}

/* RFC 9180 4.1, ExtractAndExpand. */
static bool kem_shared_secret(uint8_t out[32], const uint8_t secret[32], const uint8_t other[32], const uint8_t enc[32],
                              const uint8_t pk_recipient[32])
{
    uint8_t dh[32], prk[32], kem_context[64];
    bool ok;

    memcpy(kem_context, enc, 32);
    memcpy(kem_context + 32, pk_recipient, 32);
    ok = sluice_x25519(dh, secret, other);
    if (ok) {
        labeled_extract(prk, &KEM_SUITE, SLUICE_SPAN_EMPTY, "eae_prk", sluice_span_of(dh, sizeof dh));
        ok = labeled_expand(out, 32, prk, &KEM_SUITE, "shared_secret", sluice_span_of(kem_context, sizeof kem_context));
    }
    sluice_wipe(dh, sizeof dh);
    sluice_wipe(prk, sizeof prk);
    return ok;
}

/* RFC 9180 5.1, KeySchedule in mode_base: no pre-shared key, so psk and psk_id are empty. */
static bool key_schedule(sluice_hpke *ctx, const sluice_hpke_aead *aead, const uint8_t shared[32], sluice_span info)
{
    const suite_id suite = hpke_suite(aead);
    uint8_t context[1 + 32 + 32] = { 0 }, secret[32]; /* context[0] is the mode, base = 0 */
    const sluice_span ctx_span = sluice_span_of(context, sizeof context);
    bool ok;

    labeled_extract(context + 1, &suite, SLUICE_SPAN_EMPTY, "psk_id_hash", SLUICE_SPAN_EMPTY);
    labeled_extract(context + 33, &suite, SLUICE_SPAN_EMPTY, "info_hash", info);
    labeled_extract(secret, &suite, sluice_span_of(shared, 32), "secret", SLUICE_SPAN_EMPTY);
    ok = labeled_expand(ctx->key, aead->key_len, secret, &suite, "key", ctx_span) &&
         labeled_expand(ctx->base_nonce, sizeof ctx->base_nonce, secret, &suite, "base_nonce", ctx_span) &&
         labeled_expand(ctx->exporter_secret, sizeof ctx->exporter_secret, secret, &suite, "exp", ctx_span);
    ctx->aead = aead;
    ctx->seq = 0;
    sluice_wipe(secret, sizeof secret);
    return ok;
}

bool sluice_hpke_derive_keypair(uint8_t secret[32], uint8_t pub[32], sluice_span ikm)
{
    uint8_t prk[32];
    bool ok;

    labeled_extract(prk, &KEM_SUITE, SLUICE_SPAN_EMPTY, "dkp_prk", ikm);
    ok = labeled_expand(secret, 32, prk, &KEM_SUITE, "sk", SLUICE_SPAN_EMPTY);
    sluice_wipe(prk, sizeof prk);
    if (ok)
        sluice_x25519_public(pub, secret);
    return ok;
}

static bool setup(sluice_hpke *ctx, const sluice_hpke_aead *aead, const uint8_t secret[32], const uint8_t other[32], const uint8_t enc[32],
                  const uint8_t pk_recipient[32], sluice_span info)
{
    uint8_t shared[32];
    bool ok;

    memset(ctx, 0, sizeof *ctx);
    ok = aead != NULL && aead->key_len <= SLUICE_HPKE_KEY_MAX && kem_shared_secret(shared, secret, other, enc, pk_recipient) &&
         key_schedule(ctx, aead, shared, info);
    sluice_wipe(shared, sizeof shared);
    if (!ok)
        sluice_hpke_deinit(ctx);
    return ok;
}

bool sluice_hpke_setup_sender(sluice_hpke *ctx, const sluice_hpke_aead *aead, uint8_t enc[32], const uint8_t pk_recipient[32],
                              const uint8_t ephemeral_secret[32], sluice_span info)
{
    sluice_x25519_public(enc, ephemeral_secret);
    return setup(ctx, aead, ephemeral_secret, pk_recipient, enc, pk_recipient, info);
}

bool sluice_hpke_setup_receiver(sluice_hpke *ctx, const sluice_hpke_aead *aead, const uint8_t enc[32], const uint8_t sk_recipient[32],
                                sluice_span info)
{
    uint8_t pk_recipient[32];

    sluice_x25519_public(pk_recipient, sk_recipient);
    return setup(ctx, aead, sk_recipient, enc, enc, pk_recipient, info);
}

static void message_nonce(const sluice_hpke *ctx, uint8_t nonce[12])
{
    memcpy(nonce, ctx->base_nonce, SLUICE_HPKE_NONCE_BYTES);
    for (size_t i = 0; i < 8; i++)
        nonce[11 - i] = (uint8_t)(nonce[11 - i] ^ (ctx->seq >> (8 * i)));
}

/* A nonce must never repeat under one key.  2^64 - 1 messages are far below the suite's own 2^96 - 1, and out of reach. */
static bool is_usable(const sluice_hpke *ctx)
{
    return ctx->aead != NULL && ctx->seq != UINT64_MAX;
}

bool sluice_hpke_seal(sluice_hpke *ctx, uint8_t *out, sluice_span aad, sluice_span plain)
{
    uint8_t nonce[12];

    if (!is_usable(ctx))
        return false;
    message_nonce(ctx, nonce);
    ctx->aead->seal(out, ctx->key, nonce, aad, plain);
    ctx->seq++;
    return true;
}

bool sluice_hpke_open(sluice_hpke *ctx, uint8_t *out, sluice_span aad, sluice_span sealed)
{
    uint8_t nonce[12];

    if (!is_usable(ctx) || sealed.len < SLUICE_HPKE_TAG_BYTES)
        return false;
    message_nonce(ctx, nonce);
    if (!ctx->aead->open(out, ctx->key, nonce, aad, sealed))
        return false;
    ctx->seq++;
    return true;
}

bool sluice_hpke_export(const sluice_hpke *ctx, uint8_t *out, size_t len, sluice_span exporter_context)
{
    suite_id suite;

    if (ctx->aead == NULL || exporter_context.len > 128)
        return false;
    suite = hpke_suite(ctx->aead);
    return labeled_expand(out, len, ctx->exporter_secret, &suite, "sec", exporter_context);
}

void sluice_hpke_deinit(sluice_hpke *ctx)
{
    if (ctx != NULL)
        sluice_wipe(ctx, sizeof *ctx);
}
