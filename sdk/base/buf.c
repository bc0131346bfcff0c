/* buf.c - owned bytes that grow up to a maximum.
 *
 * Buffers carry prompts and keys, so nothing is left behind: what growth, consume and release give up is wiped first.
 * Capacity doubles, so n appended bytes cost O(n) copies however they are cut.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>

#include "sdk/base/base.h"

enum { FIRST_CAP = 64 };

void sluice_buf_init(sluice_buf *b, const sluice_allocator *al, size_t max)
{
    memset(b, 0, sizeof *b);
    b->al = al;
    b->max = max;
}

/* Room for `more` bytes after len.  *old is the block that was outgrown, *old_cap its size: the caller releases it
 * once it has copied what it appends, which may lie inside that block. */
static bool grow(sluice_buf *b, size_t more, uint8_t **old, size_t *old_cap)
{
    size_t need, cap;
    uint8_t *ptr;

    *old = NULL;
    *old_cap = 0;
    if (!sluice_add_size(b->len, more, &need) || need > b->max) {
        b->failed_limit = true;
        return false;
    }
    if (need <= b->cap)
        return true;
    cap = b->cap > b->max / 2 ? b->max : b->cap * 2;
    if (cap < FIRST_CAP)
        cap = FIRST_CAP < b->max ? FIRST_CAP : b->max;
    if (cap < need)
        cap = need;
    ptr = sluice_alloc(b->al, cap);
    if (ptr == NULL) {
        b->failed_limit = false;
        return false;
    }
    if (b->len > 0)
        memcpy(ptr, b->ptr, b->len);
    *old = b->ptr;
    *old_cap = b->cap;
    b->ptr = ptr;
    b->cap = cap;
    return true;
}

bool sluice_buf_append(sluice_buf *b, const void *ptr, size_t len)
{
    uint8_t *old;
    size_t old_cap;

    if (len == 0)
        return true;
    if (!grow(b, len, &old, &old_cap))
        return false;
    memcpy(b->ptr + b->len, ptr, len);
    b->len += len;
    sluice_free_wiped(b->al, old, old_cap);
    return true;
}

bool sluice_buf_append_span(sluice_buf *b, sluice_span s)
{
    return sluice_buf_append(b, s.ptr, s.len);
}

bool sluice_buf_append_str(sluice_buf *b, const char *s)
{
    return sluice_buf_append_span(b, sluice_span_str(s));
}

bool sluice_buf_append_byte(sluice_buf *b, uint8_t byte)
{
    return sluice_buf_append(b, &byte, 1);
}

/* A short text takes one pass, through the stack; a longer one is measured first and then written in place. */
bool sluice_buf_appendf(sluice_buf *b, const char *fmt, ...)
{
    char text[256];
    va_list args, again;
    uint8_t *old = NULL;
    size_t old_cap = 0;
    int n;
    bool ok = false;

    va_start(args, fmt);
    va_copy(again, args);
    n = vsnprintf(text, sizeof text, fmt, args);
    if (n < 0)
        b->failed_limit = false;
    else if ((size_t)n < sizeof text)
        ok = sluice_buf_append(b, text, (size_t)n);
    else if (grow(b, (size_t)n, &old, &old_cap)) {
        /* vsnprintf wants a byte for the NUL, which the buffer does not hold: the last byte goes in by hand */
        char *scratch = sluice_alloc(b->al, (size_t)n + 1);

        b->failed_limit = false;
        if (scratch != NULL && vsnprintf(scratch, (size_t)n + 1, fmt, again) == n) {
            memcpy(b->ptr + b->len, scratch, (size_t)n);
            b->len += (size_t)n;
            ok = true;
        }
        sluice_free_wiped(b->al, scratch, (size_t)n + 1);
        sluice_free_wiped(b->al, old, old_cap);
    }
    va_end(again);
    va_end(args);
    sluice_wipe(text, sizeof text);
    return ok;
}

void sluice_buf_consume(sluice_buf *b, size_t n)
{
    if (n > b->len)
        n = b->len;
    if (n == 0)
        return;
    memmove(b->ptr, b->ptr + n, b->len - n);
    sluice_wipe(b->ptr + b->len - n, n);
    b->len -= n;
}

void sluice_buf_clear(sluice_buf *b)
{
    sluice_wipe(b->ptr, b->len);
    b->len = 0;
    b->failed_limit = false;
}

void sluice_buf_deinit(sluice_buf *b)
{
    sluice_free_wiped(b->al, b->ptr, b->cap);
    b->ptr = NULL;
    b->len = b->cap = 0;
}

char *sluice_buf_take_str(sluice_buf *b)
{
    const uint8_t *nul = b->len > 0 ? memchr(b->ptr, 0, b->len) : NULL;
    size_t len = nul != NULL ? (size_t)(nul - b->ptr) : b->len; /* strlen() must tell the size to sluice_str_free */
    char *s = sluice_alloc(b->al, len + 1);

    if (s != NULL) {
        if (len > 0)
            memcpy(s, b->ptr, len);
        s[len] = '\0';
    }
    sluice_buf_deinit(b);
    return s;
}

sluice_status sluice_buf_error(const sluice_buf *b, const char *what, sluice_error *err)
{
    if (b->failed_limit)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "%s: more than %zu bytes", what, b->max);
    return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "%s: out of memory after %zu bytes", what, b->len);
}
