/* error.c - filling the caller's error record.
 *
 * Texts in the record end up in terminals, logs and bug reports, and parts of them (a key of a policy, a
 * file name) were written by strangers.  So each text is made harmless on its way in: a control character or a broken piece of UTF-8
 * becomes '?', and a text that is too long is cut where a code point ends.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>

#include "sdk/base/base.h"

/* Make the NUL-terminated text harmless, in place; it never grows. */
static void tidy(char *text, size_t cap)
{
    size_t len = strlen(text);
    size_t i = 0;

    if (len == cap - 1) { /* perhaps cut: drop what is left of a code point */
        len = sluice_utf8_whole(sluice_span_of(text, len));
        text[len] = '\0';
    }
    while (i < len) {
        bool valid;
        size_t n = sluice_utf8_step(sluice_span_of(text, len), i, &valid);
        unsigned char c = (unsigned char)text[i];

        if (!valid)
            memset(text + i, '?', n);
        else if (c < 0x20 || c == 0x7f)
            text[i] = '?';
        else if (c == 0xc2 && (unsigned char)text[i + 1] < 0xa0) /* C1 controls: some terminals obey them */
            text[i] = text[i + 1] = '?';
        i += n;
    }
}

static void format_into(char *dst, size_t cap, const char *fmt, va_list args) SLUICE_PRINTF(3, 0);

static void format_into(char *dst, size_t cap, const char *fmt, va_list args)
{
    if (vsnprintf(dst, cap, fmt, args) < 0)
        dst[0] = '\0';
    tidy(dst, cap);
}

sluice_status sluice_error_set(sluice_error *err, sluice_status status, const char *fmt, ...)
{
    va_list args;
    char message[sizeof err->message]; /* first here: an argument may be a text of the record itself */

    if (err == NULL)
        return status;
    va_start(args, fmt);
    format_into(message, sizeof message, fmt, args);
    va_end(args);
    sluice_error_clear(err);
    err->status = status;
    memcpy(err->message, message, strlen(message) + 1);
    return status;
}

void sluice_error_hint(sluice_error *err, const char *fmt, ...)
{
    va_list args;
    char hint[sizeof err->hint];

    if (err == NULL)
        return;
    va_start(args, fmt);
    format_into(hint, sizeof hint, fmt, args);
    va_end(args);
    memcpy(err->hint, hint, strlen(hint) + 1);
}

/* Of a place that is too long the end is kept: it says more than the start of a path does. */
void sluice_error_where(sluice_error *err, const char *where)
{
    size_t len, skip = 0;

    if (err == NULL)
        return;
    len = where != NULL ? strlen(where) : 0;
    if (len >= sizeof err->where) {
        skip = len - (sizeof err->where - 1) + 3;
        while (((unsigned char)where[skip] & 0xc0) == 0x80) /* NUL is no continuation byte, so this ends */
            skip++;
    }
    memmove(err->where + (skip > 0 ? 3 : 0), where != NULL ? where + skip : "", len - skip);
    err->where[(skip > 0 ? 3 : 0) + len - skip] = '\0';
    if (skip > 0)
        memcpy(err->where, "...", 3);
    tidy(err->where, sizeof err->where);
}

void sluice_error_offset(sluice_error *err, uint64_t offset)
{
    if (err == NULL)
        return;
    err->offset = offset;
    err->has_offset = true;
}

void sluice_error_line(sluice_error *err, uint32_t line, uint32_t column)
{
    if (err == NULL)
        return;
    err->line = line;
    err->column = column;
}

void sluice_error_clear(sluice_error *err)
{
    if (err != NULL)
        *err = (sluice_error)SLUICE_ERROR_INIT;
}
