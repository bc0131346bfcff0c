/* unicode.c - code point classes by binary search, UTF-8 by RFC 3629.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/unicode.h"

sluice_unicode_class sluice_unicode_class_of(uint32_t code_point)
{
    size_t lo = 0, hi = sluice_unicode_n_class_starts; /* the class is that of the last start <= code_point */

    if (code_point - 'a' < 26 || code_point - 'A' < 26)
        return SLUICE_UNICODE_LETTER;
    if (code_point == ' ')
        return SLUICE_UNICODE_SPACE;
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;

        if (sluice_unicode_class_starts[mid] >> 3 <= code_point)
            lo = mid;
        else
            hi = mid;
    }
    return (sluice_unicode_class)(sluice_unicode_class_starts[lo] & 7u);
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
