/* kernels_x86.h - small steps that the x86 kernels share; each file compiles them with its own flags.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_KERNELS_KERNELS_X86_H
#define SLUICE_LOCAL_ENGINE_KERNELS_KERNELS_X86_H

#include "local-engine/kernels/kernels.h"

#include <immintrin.h>
#include <string.h>

static inline int32_t load_i32(const void *p)
{
    int32_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

static inline float load_f16(const uint8_t *p)
{
    uint16_t h;

    memcpy(&h, p, sizeof h);
    return _cvtsh_ss(h);
}

static inline __m256i load_256(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

static inline __m256i broadcast_128(const void *p)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
}

static inline __m256i load_two(const void *low, const void *high)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)low)), _mm_loadu_si128((const __m128i *)high), 1);
}

/* Asks, while block b of eight rows is worked on, for as many bytes further on, in the order in which they lie in memory: eight rows
 * are eight streams, which the hardware's prefetcher does not follow, and its 16 line buffers of the first cache level bound what
 * demand loads can keep in flight, hence the second level as the goal.  One core of a Xeon (model 207) that streams 16 GB/s
 * got 7 to 10 GB/s without this, and 14 to 16 with it (Q8_0 and Q4_0, rows of 576 to 2048).
 * Inlined by force: GCC takes a function that only prefetches for one without effects, and drops the call. */
static inline __attribute__((always_inline)) void prefetch_ahead(const uint8_t *rows, size_t row_bytes, size_t b, size_t block_bytes)
{
    enum { AT_LEAST = 8192 };
    const uint8_t *next = rows + (8 * row_bytes > AT_LEAST ? 8 * row_bytes : AT_LEAST) + 8 * b * block_bytes;

    for (size_t line = 0; line < 8 * block_bytes; line += 64)
        _mm_prefetch((const char *)(next + line), _MM_HINT_T1);
}

/* Adds the lanes of eight registers, one result a lane. */
static inline __m256i fold_eight(const __m256i s[8])
{
    const __m256i four = _mm256_hadd_epi32(_mm256_hadd_epi32(s[0], s[1]), _mm256_hadd_epi32(s[2], s[3]));
    const __m256i eight = _mm256_hadd_epi32(_mm256_hadd_epi32(s[4], s[5]), _mm256_hadd_epi32(s[6], s[7]));

    return _mm256_add_epi32(_mm256_permute2x128_si256(four, eight, 0x20), _mm256_permute2x128_si256(four, eight, 0x31));
}

/* 32 nibbles of a Q4_0 block as bytes in order. */
static inline __m256i unpack_q4(const uint8_t *q)
{
    const __m128i bytes = _mm_loadu_si128((const __m128i *)q);

    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes), _mm256_set1_epi8(15));
}

/* The scales of one block in eight rows. */
static inline __m256 load_scales(const uint8_t *block, size_t row_bytes)
{
    uint16_t h[8];

    for (size_t i = 0; i < 8; i++)
        memcpy(&h[i], block + i * row_bytes, sizeof h[i]);
    return _mm256_cvtph_ps(_mm_set_epi16((short)h[7], (short)h[6], (short)h[5], (short)h[4], (short)h[3], (short)h[2], (short)h[1], (short)h[0]));
}

/* All eight lanes. */
static inline int32_t add_lanes(__m256i v)
{
    const __m128i by4 = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    const __m128i by2 = _mm_add_epi32(by4, _mm_unpackhi_epi64(by4, by4));

    return _mm_cvtsi128_si32(_mm_add_epi32(by2, _mm_shuffle_epi32(by2, 1)));
}

/* Transposes an 8 x 8 matrix of 4-byte units: in[row] holds units 0 … 7 of a row, out[unit] that unit of rows 0 … 7. */
static inline void transpose(__m256i out[8], const __m256i in[8])
{
    __m256i a[8], b[8];

    for (size_t i = 0; i < 4; i++) {
        a[2 * i] = _mm256_unpacklo_epi32(in[2 * i], in[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_epi32(in[2 * i], in[2 * i + 1]);
    }
    for (size_t i = 0; i < 2; i++) {
        b[4 * i] = _mm256_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 1] = _mm256_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 2] = _mm256_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
        b[4 * i + 3] = _mm256_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
    }
    for (size_t i = 0; i < 4; i++) {
        out[i] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x20);
        out[i + 4] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x31);
    }
}

#endif
