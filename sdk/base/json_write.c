/* json_write.c - appending JSON to a buffer.
 *
 * The output is always one line of ASCII punctuation and UTF-8, the same bytes for the same calls on every machine and in every
 * locale: records are hashed and signed.  Failures stick, so a caller checks `ok` once, at the end.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "sdk/base/json.h"

enum {
    DECIMALS_MAX = 17,
    NUMBER_CAP = 64 /* 16 digits, sign, point, 17 decimals; what the reader takes */
};

static const double FIXED_MAX = 1e15; /* beyond it fixed notation would print digits that mean nothing */

static void put(sluice_json_writer *w, const void *ptr, size_t len)
{
    if (w->ok)
        w->ok = sluice_buf_append(w->out, ptr, len);
}

static void put_str(sluice_json_writer *w, const char *s)
{
    put(w, s, strlen(s));
}

static void put_escaped(sluice_json_writer *w, uint8_t c)
{
    char text[8];

    switch (c) {
    case '"': put_str(w, "\\\""); return;
    case '\\': put_str(w, "\\\\"); return;
    case '\b': put_str(w, "\\b"); return;
    case '\f': put_str(w, "\\f"); return;
    case '\n': put_str(w, "\\n"); return;
    case '\r': put_str(w, "\\r"); return;
    case '\t': put_str(w, "\\t"); return;
    default: break;
    }
    (void)snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
    put_str(w, text);
}

/* Runs of plain bytes are appended whole.  A NUL becomes U+FFFD too: readers that keep C strings, ours among them, refuse \u0000. */
static void put_string(sluice_json_writer *w, sluice_span s)
{
    static const char replacement[] = "\xef\xbf\xbd";
    size_t run = 0; /* start of the plain bytes not yet appended */
    size_t i = 0;

    put_str(w, "\"");
    while (i < s.len && w->ok) {
        bool valid = true;
        uint8_t c = s.ptr[i];
        size_t n = c < 0x80 ? 1 : sluice_utf8_step(s, i, &valid);

        if (c >= 0x20 && c != '"' && c != '\\' && valid) {
            i += n;
            continue;
        }
        put(w, s.ptr + run, i - run);
        if (!valid || c == 0)
            put_str(w, replacement);
        else
            put_escaped(w, c);
        i += n;
        run = i;
    }
    if (w->ok && i > run)
        put(w, s.ptr + run, i - run);
    put_str(w, "\"");
}

/* What stands before every value: a comma where one came before, and the key. */
static void lead_in(sluice_json_writer *w, const char *key)
{
    if (w->needs_comma)
        put_str(w, ",");
    w->needs_comma = true;
    if (key != NULL) {
        put_string(w, sluice_span_str(key));
        put_str(w, ":");
    }
}

void sluice_json_begin(sluice_json_writer *w, sluice_buf *out)
{
    w->out = out;
    w->ok = true;
    w->needs_comma = false;
    w->depth = 0;
}

static void open_with(sluice_json_writer *w, const char *key, const char *bracket)
{
    lead_in(w, key);
    put_str(w, bracket);
    w->needs_comma = false;
    w->depth++;
}

static void close_with(sluice_json_writer *w, const char *bracket)
{
    if (w->depth == 0) { /* closed more than was opened */
        w->ok = false;
        return;
    }
    put_str(w, bracket);
    w->needs_comma = true;
    w->depth--;
}

void sluice_json_object_open(sluice_json_writer *w, const char *key)
{
    open_with(w, key, "{");
}

void sluice_json_object_close(sluice_json_writer *w)
{
    close_with(w, "}");
}

void sluice_json_array_open(sluice_json_writer *w, const char *key)
{
    open_with(w, key, "[");
}

void sluice_json_array_close(sluice_json_writer *w)
{
    close_with(w, "]");
}

void sluice_json_str(sluice_json_writer *w, const char *key, const char *value)
{
    if (value != NULL) {
        sluice_json_span(w, key, sluice_span_str(value));
        return;
    }
    lead_in(w, key);
    put_str(w, "null");
}

void sluice_json_span(sluice_json_writer *w, const char *key, sluice_span value)
{
    lead_in(w, key);
    put_string(w, value);
}

void sluice_json_int(sluice_json_writer *w, const char *key, int64_t value)
{
    char text[24];

    lead_in(w, key);
    (void)snprintf(text, sizeof text, "%" PRId64, value);
    put_str(w, text);
}

void sluice_json_uint(sluice_json_writer *w, const char *key, uint64_t value)
{
    char text[24];

    lead_in(w, key);
    (void)snprintf(text, sizeof text, "%" PRIu64, value);
    put_str(w, text);
}

/* printf puts the locale's decimal point, which may be a comma or several bytes, where JSON wants '.'. */
static void point_for_locale(char *text)
{
    char *to = text;

    for (const char *from = text; *from != '\0'; from++) {
        bool plain = (*from >= '0' && *from <= '9') || *from == '-' || *from == '+' || *from == 'e';

        if (plain)
            *to++ = *from;
        else if (to == text || to[-1] != '.')
            *to++ = '.';
    }
    *to = '\0';
}

void sluice_json_num(sluice_json_writer *w, const char *key, double value, int decimals)
{
    char text[NUMBER_CAP];

    lead_in(w, key);
    if (!isfinite(value)) {
        put_str(w, "null");
        return;
    }
    if (decimals >= 0 && fabs(value) < FIXED_MAX) {
        (void)snprintf(text, sizeof text, "%.*f", decimals < DECIMALS_MAX ? decimals : DECIMALS_MAX, value);
    } else {
        for (int digits = 15; digits <= 17; digits++) { /* 17 give every double back, most need fewer */
            (void)snprintf(text, sizeof text, "%.*g", digits, value);
            if (strtod(text, NULL) == value)
                break;
        }
    }
    point_for_locale(text);
    put_str(w, text);
}

void sluice_json_bool(sluice_json_writer *w, const char *key, bool value)
{
    lead_in(w, key);
    put_str(w, value ? "true" : "false");
}

void sluice_json_raw(sluice_json_writer *w, const char *key, sluice_span json)
{
    lead_in(w, key);
    put(w, json.ptr, json.len);
}
