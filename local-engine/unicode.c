/* unicode.c - code point kinds by binary search, UTF-8 by RFC 3629.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/unicode.h"

sluice_unicode_kind sluice_unicode_kind_of(uint32_t code_point)
{
    size_t lo = 0, hi = sluice_unicode_n_kind_starts; /* the kind is that of the last start <= code_point */

    if (code_point - 'a' < 26)
        return SLUICE_UNICODE_KIND_LOWER;
    if (code_point == ' ')
        return SLUICE_UNICODE_KIND_SPACE;
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;

        if (sluice_unicode_kind_starts[mid] >> 4 <= code_point)
            lo = mid;
        else
            hi = mid;
    }
    return (sluice_unicode_kind)(sluice_unicode_kind_starts[lo] & 15u);
}

sluice_unicode_class sluice_unicode_class_of(uint32_t code_point)
{
    switch (sluice_unicode_kind_of(code_point)) {
    case SLUICE_UNICODE_KIND_UPPER:
    case SLUICE_UNICODE_KIND_LOWER:
    case SLUICE_UNICODE_KIND_LETTER: return SLUICE_UNICODE_LETTER;
    case SLUICE_UNICODE_KIND_NUMBER: return SLUICE_UNICODE_NUMBER;
    case SLUICE_UNICODE_KIND_PUNCTUATION: return SLUICE_UNICODE_PUNCTUATION;
    case SLUICE_UNICODE_KIND_SPACE: return SLUICE_UNICODE_SPACE;
    default: return SLUICE_UNICODE_OTHER;
    }
}

/* The Unicode Standard, 3.12: a syllable is its leading consonant, its vowel and, for most, a trailing consonant. */
static size_t fold_hangul(uint32_t syllable, uint32_t out[3])
{
    enum { BASE = 0xac00, LEADING = 0x1100, VOWEL = 0x1161, TRAILING = 0x11a7, N_VOWELS = 21, N_TRAILING = 28 };
    uint32_t index = syllable - BASE, trailing = index % N_TRAILING;

    out[0] = LEADING + index / (N_VOWELS * N_TRAILING);
    out[1] = VOWEL + index % (N_VOWELS * N_TRAILING) / N_TRAILING;
    out[2] = TRAILING + trailing;
    return trailing != 0 ? 3 : 2;
}

size_t sluice_unicode_fold(uint32_t code_point, uint32_t out[3])
{
    size_t lo = 0, hi = sluice_unicode_n_fold_runs;

    out[0] = code_point;
    if (code_point < 'A' || (code_point > 'Z' && code_point < 0x80))
        return 1;
    if (code_point - 0xac00u < 11172)
        return fold_hangul(code_point, out);
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;

        if ((sluice_unicode_fold_runs[mid].first & 0x1fffffu) <= code_point)
            lo = mid;
        else
            hi = mid;
    }
    const sluice_unicode_fold_run *run = &sluice_unicode_fold_runs[lo];
    uint32_t distance = code_point - (run->first & 0x1fffffu), stride = (run->first >> 21 & 1u) + 1; /* wraps below the first run: too far */

    if (distance % stride == 0 && distance / stride < run->first >> 22) {
        out[0] = run->target + distance;
        return 1;
    }
    if (sluice_unicode_kind_of(code_point) == SLUICE_UNICODE_KIND_NONSPACING)
        return 0;
    for (size_t i = 0; i < sluice_unicode_n_fold_several; i++) {
        const uint32_t *row = sluice_unicode_fold_several[i];

        if (row[0] == code_point) {
            memcpy(out, row + 1, 3 * sizeof *row);
            return row[3] != 0 ? 3 : 2;
        }
    }
    return 1;
}

size_t sluice_unicode_encode(uint32_t code_point, uint8_t out[4])
{
    if (code_point < 0x80) {
        out[0] = (uint8_t)code_point;
        return 1;
    }
    if (code_point < 0x800) {
        out[0] = (uint8_t)(0xc0 | code_point >> 6);
        out[1] = (uint8_t)(0x80 | (code_point & 0x3f));
        return 2;
    }
    if (code_point < 0x10000) {
        out[0] = (uint8_t)(0xe0 | code_point >> 12);
        out[1] = (uint8_t)(0x80 | (code_point >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (code_point & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | code_point >> 18);
    out[1] = (uint8_t)(0x80 | (code_point >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (code_point >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (code_point & 0x3f));
    return 4;
}

uint32_t sluice_unicode_decode(sluice_span s, size_t at, uint32_t *n_bytes)
{
    static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 }; /* below: an overlong form */
    const uint8_t *p = s.ptr + at;
    uint32_t n, c;

    *n_bytes = 1;
    if (p[0] < 0x80)
        return p[0];
    n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || s.len - at < n)
        return 0xfffd;
    c = p[0] & (0x7fu >> n);
    for (uint32_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0u) != 0x80)
            return 0xfffd;
        c = c << 6 | (p[i] & 0x3fu);
    }
    if (c < smallest[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0xfffd;
    *n_bytes = n;
    return c;
}

/* The code point that ends at s.len, for trimming: walk back over at most three continuation bytes. */
static uint32_t decode_last(sluice_span s, uint32_t *n_bytes)
{
    size_t at = s.len - 1;

    while (at > 0 && s.len - at < 4 && (s.ptr[at] & 0xc0u) == 0x80)
        at--;
    uint32_t c = sluice_unicode_decode(s, at, n_bytes);

    if (at + *n_bytes == s.len)
        return c;
    *n_bytes = 1;
    return 0xfffd;
}

sluice_span sluice_unicode_trim(sluice_span s)
{
    uint32_t n;

    while (s.len > 0 && sluice_unicode_class_of(sluice_unicode_decode(s, 0, &n)) == SLUICE_UNICODE_SPACE) {
        s.ptr += n;
        s.len -= n;
    }
    while (s.len > 0 && sluice_unicode_class_of(decode_last(s, &n)) == SLUICE_UNICODE_SPACE)
        s.len -= n;
    return s;
}
