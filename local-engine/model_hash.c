/* model_hash.c - SHA-256 (FIPS 180-4) and what of a model file goes into it.
 *
 * The engine may not call sdk/crypto, and needs no secret here: this is the plain algorithm, for public bytes only.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/model_hash.h"

typedef struct sha256 {
    uint32_t h[8];
    uint64_t n_bytes;
    uint8_t block[64];
} sha256;

static uint32_t rotate(uint32_t x, unsigned n)
{
    return x >> n | x << (32 - n);
}

/* FIPS 180-4, 4.2.2: the fractional parts of the cube roots of the first 64 primes. */
static const uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static void compress(sha256 *s, const uint8_t *p)
{
    uint32_t w[64], v[8];

    for (size_t i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (size_t i = 16; i < 64; i++)
        w[i] = w[i - 16] + w[i - 7] + (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) +
               (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(v, s->h, sizeof v);
    for (size_t i = 0; i < 64; i++) {
        const uint32_t sum1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25), choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
        const uint32_t sum0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22);
        const uint32_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
        const uint32_t t1 = v[7] + sum1 + choice + round_constants[i] + w[i];

        memmove(v + 1, v, 7 * sizeof v[0]);
        v[4] += t1;
        v[0] = t1 + sum0 + majority;
    }
    for (size_t i = 0; i < 8; i++)
        s->h[i] += v[i];
}

static void sha256_init(sha256 *s)
{
    static const uint32_t start[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };

    memset(s, 0, sizeof *s);
    memcpy(s->h, start, sizeof start);
}

static void sha256_add(sha256 *s, const void *data, size_t len)
{
    const uint8_t *p = data;

    while (len > 0) {
        const size_t at = s->n_bytes % 64;
        const size_t n = len < 64 - at ? len : 64 - at;

        memcpy(s->block + at, p, n);
        s->n_bytes += n;
        p += n;
        len -= n;
        if (s->n_bytes % 64 == 0)
            compress(s, s->block);
    }
}

static void sha256_add_u64(sha256 *s, uint64_t value)
{
    uint8_t bytes[8];

    for (size_t i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> (56 - 8 * i));
    sha256_add(s, bytes, sizeof bytes);
}

static void sha256_end(sha256 *s, uint8_t out[32])
{
    static const uint8_t padding[64] = { 0x80 };
    const uint64_t n_bits = s->n_bytes * 8;

    sha256_add(s, padding, 1 + (119 - s->n_bytes % 64) % 64);
    sha256_add_u64(s, n_bits);
    for (size_t i = 0; i < 32; i++)
        out[i] = (uint8_t)(s->h[i / 4] >> (24 - 8 * (i % 4)));
}

void sluice_model_hash(const sluice_gguf *g, uint8_t out[32])
{
    enum { PIECE = 256 };
    const sluice_span file = sluice_gguf_bytes(g);
    const uint64_t header = sluice_gguf_data_offset(g);
    sha256 s;

    sha256_init(&s);
    sha256_add_u64(&s, file.len);
    sha256_add(&s, file.ptr, header < file.len ? (size_t)header : file.len);
    for (size_t i = 0; i < sluice_gguf_n_tensors(g); i++) {
        const sluice_gguf_tensor *t = sluice_gguf_tensor_at(g, i);
        const uint8_t *p = t->data;
        const size_t n = t->bytes < PIECE ? t->bytes : PIECE;

        if (n == 0)
            continue;
        sha256_add(&s, p, n);
        sha256_add(&s, p + (t->bytes - n) / 2, n);
        sha256_add(&s, p + (t->bytes - n), n);
    }
    sha256_end(&s, out);
}
