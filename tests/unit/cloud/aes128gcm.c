/* aes128gcm.c - AES-128-GCM (FIPS 197, NIST SP 800-38D), short and slow, for tests alone.
 *
 * It exists to run the vectors of RFC 9458 and of chunked OHTTP, which are printed for AES-128-GCM only, through the library's own HPKE and
 * OHTTP code.  Table look-ups by secret bytes make it unfit for anything but vectors.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/unit/cloud/aes128gcm.h"

enum { ROUNDS = 10, BLOCK = 16 };

static uint8_t sbox[256];

static uint8_t times2(uint8_t v)
{
    return (uint8_t)(v << 1 ^ ((v & 0x80) != 0 ? 0x1b : 0));
}

static uint8_t gf_mul(uint8_t a, uint8_t b)
{
    uint8_t r = 0;

    for (; b != 0; b >>= 1, a = times2(a))
        if ((b & 1) != 0)
            r ^= a;
    return r;
}

/* FIPS 197 5.1.1: the inverse in GF(2^8), found by trying, then the affine map. */
static void sbox_init(void)
{
    for (unsigned v = 0; v < 256 && sbox[0] == 0; v++) {
        /* filled from the top so that sbox[0] says whether the table is complete */
        const uint8_t x = (uint8_t)(255 - v);
        uint8_t inv = 0, y;

        for (unsigned t = 1; t < 256 && x != 0; t++)
            if (gf_mul(x, (uint8_t)t) == 1)
                inv = (uint8_t)t;
        y = inv;
        for (unsigned i = 1; i < 5; i++)
            y ^= (uint8_t)((unsigned)inv << i | (unsigned)inv >> (8 - i));
        sbox[x] = (uint8_t)(y ^ 0x63);
    }
}

static void expand_key(uint8_t w[(ROUNDS + 1) * BLOCK], const uint8_t key[BLOCK])
{
    uint8_t rcon = 1;

    memcpy(w, key, BLOCK);
    for (size_t i = BLOCK; i < (ROUNDS + 1) * BLOCK; i += 4) {
        uint8_t t[4];

        memcpy(t, w + i - 4, 4);
        if (i % BLOCK == 0) {
            const uint8_t first = t[0];

            t[0] = (uint8_t)(sbox[t[1]] ^ rcon);
            t[1] = sbox[t[2]];
            t[2] = sbox[t[3]];
            t[3] = sbox[first];
            rcon = times2(rcon);
        }
        for (size_t j = 0; j < 4; j++)
            w[i + j] = (uint8_t)(w[i + j - BLOCK] ^ t[j]);
    }
}

static void encrypt_block(const uint8_t w[(ROUNDS + 1) * BLOCK], uint8_t s[BLOCK])
{
    for (size_t round = 0; round <= ROUNDS; round++) {
        if (round > 0) {
            uint8_t t[BLOCK]; /* SubBytes and ShiftRows together */

            for (size_t i = 0; i < BLOCK; i++)
                t[i] = sbox[s[(i + 4 * (i % 4)) % BLOCK]];
            for (size_t c = 0; c < BLOCK; c += 4)
                for (size_t i = 0; i < 4; i++)
                    s[c + i] = round == ROUNDS
                                   ? t[c + i]
                                   : (uint8_t)(gf_mul(t[c + i], 2) ^ gf_mul(t[c + (i + 1) % 4], 3) ^ t[c + (i + 2) % 4] ^ t[c + (i + 3) % 4]);
        }
        for (size_t i = 0; i < BLOCK; i++)
            s[i] ^= w[round * BLOCK + i];
    }
}

static void ghash_block(uint8_t y[BLOCK], const uint8_t h[BLOCK], const uint8_t *data, size_t len)
{
    uint8_t v[BLOCK], z[BLOCK] = { 0 };

    for (size_t i = 0; i < len; i++)
        y[i] ^= data[i];
    memcpy(v, h, BLOCK);
    for (size_t bit = 0; bit < 128; bit++) {
        const bool carry = (v[15] & 1) != 0;

        if ((y[bit / 8] >> (7 - bit % 8) & 1) != 0)
            for (size_t i = 0; i < BLOCK; i++)
                z[i] ^= v[i];
        for (size_t i = 15; i > 0; i--)
            v[i] = (uint8_t)(v[i] >> 1 | v[i - 1] << 7);
        v[0] = (uint8_t)(v[0] >> 1 ^ (carry ? 0xe1 : 0));
    }
    memcpy(y, z, BLOCK);
}

static void ghash(uint8_t y[BLOCK], const uint8_t h[BLOCK], sluice_span data)
{
    for (size_t i = 0; i < data.len; i += BLOCK)
        ghash_block(y, h, data.ptr + i, data.len - i < BLOCK ? data.len - i : BLOCK);
}

static void tag_of(uint8_t tag[BLOCK], const uint8_t *w, const uint8_t nonce[12], sluice_span aad, sluice_span cipher)
{
    uint8_t h[BLOCK] = { 0 }, mask[BLOCK] = { 0 }, lengths[BLOCK] = { 0 };

    encrypt_block(w, h);
    memcpy(mask, nonce, 12);
    mask[15] = 1;
    encrypt_block(w, mask);
    for (size_t i = 0; i < 8; i++) {
        lengths[7 - i] = (uint8_t)((uint64_t)aad.len * 8 >> (8 * i));
        lengths[15 - i] = (uint8_t)((uint64_t)cipher.len * 8 >> (8 * i));
    }
    memset(tag, 0, BLOCK);
    ghash(tag, h, aad);
    ghash(tag, h, cipher);
    ghash_block(tag, h, lengths, BLOCK);
    for (size_t i = 0; i < BLOCK; i++)
        tag[i] ^= mask[i];
}

static void counter_mode(uint8_t *out, const uint8_t *w, const uint8_t nonce[12], sluice_span in)
{
    for (size_t i = 0; i < in.len; i++) {
        static uint8_t stream[BLOCK];

        if (i % BLOCK == 0) {
            const size_t counter = 2 + i / BLOCK;

            memcpy(stream, nonce, 12);
            for (size_t j = 0; j < 4; j++)
                stream[15 - j] = (uint8_t)(counter >> (8 * j));
            encrypt_block(w, stream);
        }
        out[i] = (uint8_t)(in.ptr[i] ^ stream[i % BLOCK]);
    }
}

static void seal(uint8_t *out, const uint8_t *key, const uint8_t nonce[12], sluice_span aad, sluice_span plain)
{
    uint8_t w[(ROUNDS + 1) * BLOCK];

    sbox_init();
    expand_key(w, key);
    counter_mode(out, w, nonce, plain);
    tag_of(out + plain.len, w, nonce, aad, sluice_span_of(out, plain.len));
}

static bool open(uint8_t *out, const uint8_t *key, const uint8_t nonce[12], sluice_span aad, sluice_span sealed)
{
    const sluice_span cipher = sluice_span_of(sealed.ptr, sealed.len - BLOCK);
    uint8_t w[(ROUNDS + 1) * BLOCK], tag[BLOCK];

    sbox_init();
    expand_key(w, key);
    tag_of(tag, w, nonce, aad, cipher);
    if (memcmp(tag, sealed.ptr + cipher.len, BLOCK) != 0)
        return false;
    counter_mode(out, w, nonce, cipher);
    return true;
}

const sluice_hpke_aead aes128gcm = { 0x0001, BLOCK, seal, open };
