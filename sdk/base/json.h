/* json.h - strict JSON reading with places, and JSON writing.
 *
 * The reader takes RFC 8259 and nothing beside it: no bytes after the value, NUL bytes, invalid UTF-8, duplicate keys, nothing
 * too deep or too large, no numbers that are not JSON numbers.  Nodes know their byte offset, so that a message can name line and column.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_SDK_BASE_JSON_H
#define SLUICE_SDK_BASE_JSON_H

#include "sdk/base/base.h"

typedef enum sluice_json_kind {
    SLUICE_JSON_NULL, SLUICE_JSON_BOOL, SLUICE_JSON_NUMBER, SLUICE_JSON_STRING, SLUICE_JSON_ARRAY, SLUICE_JSON_OBJECT
} sluice_json_kind;

typedef struct sluice_json {
    sluice_json_kind kind;
    const char *key;     /* in an object, else NULL; NUL-terminated, no NUL inside */
    const char *string;  /* STRING: NUL-terminated (a \u0000 escape is refused), string_len bytes */
    size_t string_len;
    double number;
    bool boolean;
    const struct sluice_json *child, *next; /* first child of an array or object; next sibling */
    size_t n_children;
    size_t offset, key_offset; /* of the value and of its key in the text */
} sluice_json;

typedef struct sluice_json_doc sluice_json_doc; /* owns the nodes */

typedef struct sluice_json_limits { size_t max_bytes; uint32_t max_depth; } sluice_json_limits; /* zero: 1 MiB and 32; depth is at most 64, values at most max_bytes / 8 (but 65536) */

/* Parse the whole of `text`.  Errors: SLUICE_ERR_FORMAT with line, column and offset; _LIMIT; _NO_MEMORY.  The doc is independent of `text`. */
sluice_status sluice_json_parse(sluice_json_doc **out, sluice_span text, const sluice_json_limits *limits,
                                const sluice_allocator *al, sluice_error *err);
void sluice_json_close(sluice_json_doc *doc); /* accepts NULL; wipes */
const sluice_json *sluice_json_root(const sluice_json_doc *doc);
const sluice_json *sluice_json_get(const sluice_json *object, const char *key); /* NULL when missing or not an object */
void sluice_json_place(sluice_span text, size_t offset, uint32_t *line, uint32_t *column);

/* ---- writing: append to a buffer; false when the buffer could not take it (check once at the end: failures stick) */
typedef struct sluice_json_writer { sluice_buf *out; bool ok; bool needs_comma; uint32_t depth; } sluice_json_writer;
void sluice_json_begin(sluice_json_writer *w, sluice_buf *out);
void sluice_json_object_open(sluice_json_writer *w, const char *key);  /* key NULL: as an array element or the root */
void sluice_json_object_close(sluice_json_writer *w);
void sluice_json_array_open(sluice_json_writer *w, const char *key);
void sluice_json_array_close(sluice_json_writer *w);
void sluice_json_str(sluice_json_writer *w, const char *key, const char *value);   /* NULL value writes null */
void sluice_json_span(sluice_json_writer *w, const char *key, sluice_span value);  /* invalid UTF-8 and NUL become U+FFFD */
void sluice_json_int(sluice_json_writer *w, const char *key, int64_t value);
void sluice_json_uint(sluice_json_writer *w, const char *key, uint64_t value);
void sluice_json_num(sluice_json_writer *w, const char *key, double value, int decimals); /* decimals < 0: as many digits as give the value back; not finite: null */
void sluice_json_bool(sluice_json_writer *w, const char *key, bool value);
void sluice_json_raw(sluice_json_writer *w, const char *key, sluice_span json);    /* trusted JSON text */

#endif
