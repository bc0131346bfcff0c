/* span.c - borrowed bytes, UTF-8, and bounded string copies.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/base/base.h"

bool sluice_span_eq_str(sluice_span a, const char *s)
{
    return s != NULL && sluice_span_eq(a, sluice_span_str(s));
}

/* Bytes that a sequence with this lead byte has; 0 for a byte that cannot lead (RFC 3629, section 4). */
static size_t sequence_len(uint8_t lead)
{
    if (lead < 0x80)
        return 1;
    if (lead >= 0xc2 && lead <= 0xdf)
        return 2;
    if (lead >= 0xe0 && lead <= 0xef)
        return 3;
    if (lead >= 0xf0 && lead <= 0xf4)
        return 4;
    return 0;
}

/* The second byte is where overlong forms (e0, f0), surrogates (ed) and values past U+10FFFF (f4) show. */
static bool second_byte_fits(uint8_t lead, uint8_t second)
{
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;

    return second >= low && second <= high;
}

size_t sluice_utf8_step(sluice_span s, size_t at, bool *valid)
{
    const uint8_t *p = s.ptr + at;
    size_t left = s.len - at;
    size_t want = sequence_len(p[0]);
    size_t n = 1;

    *valid = false;
    if (want == 0)
        return 1;
    while (n < want && n < left && (n == 1 ? second_byte_fits(p[0], p[1]) : (p[n] & 0xc0) == 0x80))
        n++;
    *valid = n == want;
    return n;
}

bool sluice_utf8_valid(sluice_span s)
{
    size_t i = 0;

    while (i < s.len) {
        bool valid = true;

        i += s.ptr[i] < 0x80 ? 1 : sluice_utf8_step(s, i, &valid);
        if (!valid)
            return false;
    }
    return true;
}

size_t sluice_utf8_whole(sluice_span s)
{
    size_t back = 1;

    while (back <= 3 && back <= s.len) {
        uint8_t c = s.ptr[s.len - back];

        if ((c & 0xc0) != 0x80) /* a lead byte, or one that is wrong anyway */
            return sequence_len(c) > back ? s.len - back : s.len;
        back++;
    }
    return s.len;
}

bool sluice_copy_str(char *dst, size_t cap, const char *src)
{
    size_t len = src != NULL ? strlen(src) : 0;
    bool fits = len < cap;

    if (cap == 0)
        return false;
    if (!fits)
        len = sluice_utf8_whole(sluice_span_of(src, cap - 1));
    if (len > 0)
        memmove(dst, src, len);
    dst[len] = '\0';
    return fits;
}
