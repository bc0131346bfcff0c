/* json.c - strict JSON reading (RFC 8259).
 *
 *   text ── scan ──► count nodes and string bytes   (refuses everything that is not strict JSON, with its offset)
 *        ── scan ──► fill nodes: kind, offsets, links   (the same walk, now with memory)
 *        ── read ──► unescaped strings and numbers, in document order
 *        ── check ─► duplicate keys
 *
 * Once a text has passed the first scan, nothing is left to go wrong but a number too large, a key that is there twice, and memory.
 * A document takes one block of the instance's allocator.
 *
 * Every step is linear in the text, but for the duplicate check, which sorts the keys of an object: n log n comparisons
 * whatever the keys are (a hash table without a random seed could be made quadratic on purpose).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <locale.h>
#include <math.h>
#include <stdlib.h>

#include "sdk/base/json.h"

enum {
    BYTES_MAX_DEFAULT = 1 << 20,
    DEPTH_MAX_DEFAULT = 32,
    DEPTH_MAX = 64,     /* the scan recurses as deep */
    BYTES_PER_NODE = 8, /* a node takes eleven times that, so dense arrays are bounded by max_bytes / 8 values */
    NODES_MIN = 65536,
    NUMBER_LEN_MAX = 63,
    KEY_SHOWN_MAX = 64
};

struct sluice_json_doc {
    const sluice_allocator *al;
    size_t bytes; /* of the block that holds this, the nodes and the strings */
    size_t n_nodes;
    sluice_json *nodes; /* in document order; the root is first */
    char *strings;
    size_t strings_used;
};

typedef struct scanner {
    sluice_span text;
    size_t at;
    uint32_t depth_max;
    size_t n_nodes, n_nodes_max;
    size_t string_bytes; /* upper bound of the unescaped strings with their NULs */
    size_t n_keys_max;   /* members of the largest object */
    sluice_json *nodes;  /* NULL in the counting pass */
    sluice_error *err;
} scanner;

void sluice_json_place(sluice_span text, size_t offset, uint32_t *line, uint32_t *column)
{
    size_t start = 0; /* of the line */
    uint32_t n = 1;

    if (offset > text.len)
        offset = text.len;
    for (size_t i = 0; i < offset; i++)
        if (text.ptr[i] == '\n') {
            n++;
            start = i + 1;
        }
    *line = n;
    *column = (uint32_t)(offset - start + 1);
}

/* ---- scan ------------------------------------------------------------------------------------------ */

/* The place of an error that sluice_error_set() has just worded; returns the status. */
static sluice_status at_place(sluice_span text, size_t offset, sluice_error *err, sluice_status status)
{
    uint32_t line, column;

    if (err == NULL)
        return status;
    sluice_json_place(text, offset, &line, &column);
    sluice_error_line(err, line, column);
    sluice_error_offset(err, offset);
    return status;
}

static sluice_status bad(const scanner *s, size_t offset, const char *what)
{
    return at_place(s->text, offset, s->err, sluice_error_set(s->err, SLUICE_ERR_FORMAT, "json: %s", what));
}

static int peek(const scanner *s)
{
    return s->at < s->text.len ? s->text.ptr[s->at] : -1;
}

static void skip_space(scanner *s)
{
    int c = peek(s);

    while (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        s->at++;
        c = peek(s);
    }
}

static int hex_value(int c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Four hex digits at `at`, or -1. */
static int32_t hex4(const scanner *s, size_t at)
{
    int32_t value = 0;

    if (s->text.len - at < 4)
        return -1;
    for (size_t i = 0; i < 4; i++) {
        int digit = hex_value(s->text.ptr[at + i]);

        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* After "\u".  Surrogates must come as a pair; a NUL would cut our C strings. */
static sluice_status scan_unicode_escape(scanner *s)
{
    size_t start = s->at - 2;
    int32_t high = hex4(s, s->at);
    int32_t low;

    if (high < 0)
        return bad(s, start, "\\u needs four hexadecimal digits");
    if (high == 0)
        return bad(s, start, "\\u0000 in a string is not allowed");
    s->at += 4;
    if (high < 0xd800 || high > 0xdfff)
        return SLUICE_OK;
    if (high > 0xdbff || s->text.len - s->at < 6 || s->text.ptr[s->at] != '\\' || s->text.ptr[s->at + 1] != 'u')
        return bad(s, start, "half of a surrogate pair");
    low = hex4(s, s->at + 2);
    if (low < 0xdc00 || low > 0xdfff)
        return bad(s, start, "half of a surrogate pair");
    s->at += 6;
    return SLUICE_OK;
}

/* At the opening quote. */
static sluice_status scan_string(scanner *s)
{
    size_t start = s->at++;

    for (;;) {
        int c = peek(s);

        if (c < 0)
            return bad(s, start, "string without its closing quote");
        if (c == '"')
            break;
        if (c < 0x20)
            return bad(s, s->at, c == 0 ? "NUL byte" : "control character in a string, write it as an escape");
        s->at++;
        if (c != '\\')
            continue;
        c = peek(s);
        s->at++;
        if (c == 'u') {
            sluice_status st = scan_unicode_escape(s);

            if (st != SLUICE_OK)
                return st;
        } else if (c < 0 || c == 0 || strchr("\"\\/bfnrt", c) == NULL) {
            return bad(s, s->at - 2, "unknown escape in a string");
        }
    }
    s->at++;
    s->string_bytes += s->at - start - 1; /* an escape is never shorter than what it means; one quote is the NUL */
    return SLUICE_OK;
}

static size_t skip_digits(scanner *s)
{
    size_t start = s->at;

    while (peek(s) >= '0' && peek(s) <= '9')
        s->at++;
    return s->at - start;
}

/* -? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)? */
static sluice_status scan_number(scanner *s)
{
    size_t start = s->at;

    if (peek(s) == '-')
        s->at++;
    if (peek(s) == '0') {
        s->at++;
        if (peek(s) >= '0' && peek(s) <= '9')
            return bad(s, start, "number with a leading zero");
    } else if (skip_digits(s) == 0) {
        return bad(s, start, "a number needs a digit here");
    }
    if (peek(s) == '.') {
        s->at++;
        if (skip_digits(s) == 0)
            return bad(s, start, "number without a digit after its point");
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        s->at++;
        if (peek(s) == '+' || peek(s) == '-')
            s->at++;
        if (skip_digits(s) == 0)
            return bad(s, start, "number without a digit in its exponent");
    }
    if (s->at - start > NUMBER_LEN_MAX)
        return bad(s, start, "number with more than 63 characters");
    return SLUICE_OK;
}

static sluice_status scan_word(scanner *s, const char *word)
{
    size_t len = strlen(word);

    if (s->text.len - s->at < len || memcmp(s->text.ptr + s->at, word, len) != 0)
        return bad(s, s->at, "not a JSON value");
    s->at += len;
    return SLUICE_OK;
}

static sluice_status new_node(scanner *s, sluice_json **out)
{
    *out = NULL;
    if (s->n_nodes == s->n_nodes_max)
        return at_place(s->text, s->at, s->err, sluice_error_set(s->err, SLUICE_ERR_LIMIT, "json: more than %zu values", s->n_nodes_max));
    if (s->nodes != NULL)
        *out = &s->nodes[s->n_nodes];
    s->n_nodes++;
    return SLUICE_OK;
}

static sluice_status scan_value(scanner *s, uint32_t depth, size_t key_offset, sluice_json **out);

/* At '[' or '{', both alike but for the keys.  Links the children to `parent`, NULL in the counting pass. */
static sluice_status scan_container(scanner *s, uint32_t depth, sluice_json *parent)
{
    size_t start = s->at;
    bool is_object = peek(s) == '{';
    int close = is_object ? '}' : ']';
    const sluice_json **link = parent != NULL ? &parent->child : NULL;
    size_t n = 0;

    if (depth >= s->depth_max)
        return at_place(s->text, start, s->err, sluice_error_set(s->err, SLUICE_ERR_LIMIT, "json: nested deeper than %u", (unsigned)s->depth_max));
    s->at++;
    skip_space(s);
    while (peek(s) != close) {
        sluice_json *child;
        sluice_status st;
        size_t key_offset = s->at;

        if (n > 0) {
            if (peek(s) != ',')
                return peek(s) < 0 ? bad(s, start, is_object ? "object without its '}'" : "array without its ']'")
                                   : bad(s, s->at, is_object ? "',' or '}' expected" : "',' or ']' expected");
            s->at++;
            skip_space(s);
            if (peek(s) == close)
                return bad(s, s->at, "comma before the closing bracket");
            key_offset = s->at;
        }
        if (is_object) {
            if (peek(s) < 0)
                return bad(s, start, "object without its '}'");
            if (peek(s) != '"')
                return bad(s, s->at, "a key in double quotes expected");
            st = scan_string(s);
            if (st != SLUICE_OK)
                return st;
            skip_space(s);
            if (peek(s) != ':')
                return bad(s, s->at, "':' expected after the key");
            s->at++;
        }
        st = scan_value(s, depth + 1, is_object ? key_offset : 0, &child);
        if (st != SLUICE_OK)
            return st;
        if (link != NULL) {
            *link = child;
            link = &child->next;
        }
        n++;
        skip_space(s);
    }
    s->at++;
    if (parent != NULL)
        parent->n_children = n;
    if (is_object && n > s->n_keys_max)
        s->n_keys_max = n;
    return SLUICE_OK;
}

static sluice_status scan_value(scanner *s, uint32_t depth, size_t key_offset, sluice_json **out)
{
    sluice_json *node;
    sluice_json_kind kind = SLUICE_JSON_NULL;
    sluice_status st;
    size_t start;
    int c;

    skip_space(s);
    start = s->at;
    st = new_node(s, &node);
    if (st != SLUICE_OK)
        return st;
    c = peek(s);
    switch (c) {
    case -1: return bad(s, start, "a value is missing at the end");
    case '{':
        kind = SLUICE_JSON_OBJECT;
        st = scan_container(s, depth, node);
        break;
    case '[':
        kind = SLUICE_JSON_ARRAY;
        st = scan_container(s, depth, node);
        break;
    case '"':
        kind = SLUICE_JSON_STRING;
        st = scan_string(s);
        break;
    case 't':
        kind = SLUICE_JSON_BOOL;
        st = scan_word(s, "true");
        break;
    case 'f':
        kind = SLUICE_JSON_BOOL;
        st = scan_word(s, "false");
        break;
    case 'n': st = scan_word(s, "null"); break;
    default:
        if (c != '-' && (c < '0' || c > '9'))
            return bad(s, start, c == 0 ? "NUL byte" : c == '\'' ? "strings take double quotes" : "not a JSON value");
        kind = SLUICE_JSON_NUMBER;
        st = scan_number(s);
        break;
    }
    if (st == SLUICE_OK && node != NULL) {
        node->kind = kind;
        node->offset = start;
        node->key_offset = key_offset;
        node->boolean = c == 't';
    }
    *out = node;
    return st;
}

static sluice_status scan_text(scanner *s)
{
    sluice_json *root;
    sluice_status st;

    s->at = s->n_nodes = s->string_bytes = s->n_keys_max = 0;
    st = scan_value(s, 0, 0, &root);
    if (st != SLUICE_OK)
        return st;
    skip_space(s);
    if (s->at != s->text.len)
        return bad(s, s->at, s->text.ptr[s->at] == 0 ? "NUL byte after the value" : "text after the value");
    return SLUICE_OK;
}

/* Refused before anything else, so that messages which quote the text quote UTF-8. */
static sluice_status check_encoding(sluice_span text, sluice_error *err)
{
    static const uint8_t bom[] = { 0xef, 0xbb, 0xbf };
    size_t i = 0;

    if (text.len >= sizeof bom && memcmp(text.ptr, bom, sizeof bom) == 0) {
        sluice_error_set(err, SLUICE_ERR_FORMAT, "json: begins with a byte order mark");
        sluice_error_hint(err, "save the file as UTF-8 without a byte order mark");
        return at_place(text, 0, err, SLUICE_ERR_FORMAT);
    }
    while (i < text.len) {
        bool valid = true;
        size_t n = text.ptr[i] < 0x80 ? 1 : sluice_utf8_step(text, i, &valid);

        if (!valid)
            return at_place(text, i, err, sluice_error_set(err, SLUICE_ERR_FORMAT, "json: not UTF-8"));
        i += n;
    }
    return SLUICE_OK;
}

/* ---- values: the text is known to be strict JSON by now ------------------------------------------------------ */

static char *put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3f));
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    }
    return out;
}

/* What the escape at `at`, behind its backslash, means; *at moves behind it. */
static char *put_escape(char *out, const scanner *s, size_t *at)
{
    static const char letters[] = "bfnrt", meanings[] = "\b\f\n\r\t";
    const uint8_t c = s->text.ptr[(*at)++];
    const char *letter = strchr(letters, c);
    uint32_t code;

    if (c != 'u') {
        *out++ = letter != NULL ? meanings[letter - letters] : (char)c;
        return out;
    }
    code = (uint32_t)hex4(s, *at);
    *at += 4;
    if (code >= 0xd800 && code <= 0xdbff) { /* the other half follows */
        code = 0x10000 + ((code - 0xd800) << 10) + ((uint32_t)hex4(s, *at + 2) - 0xdc00);
        *at += 6;
    }
    return put_utf8(out, code);
}

/* The string whose opening quote is at `at`, unescaped and with a NUL, into the document's store. */
static char *read_string(sluice_json_doc *doc, const scanner *s, size_t at, size_t *len)
{
    char *const start = doc->strings + doc->strings_used;
    char *out = start;

    for (at++; s->text.ptr[at] != '"';) {
        const uint8_t c = s->text.ptr[at++];

        if (c == '\\')
            out = put_escape(out, s, &at);
        else
            *out++ = (char)c;
    }
    *out = '\0';
    *len = (size_t)(out - start);
    doc->strings_used += *len + 1;
    return start;
}

/* strtod() reads the locale's decimal point, which an app may have set to a comma. */
static double read_number(const scanner *s, size_t at)
{
    const char *point = localeconv()->decimal_point;
    char text[NUMBER_LEN_MAX + 16];
    double value;
    size_t n = 0;

    if (strlen(point) > 8)
        point = ".";
    for (; at < s->text.len && n + 9 < sizeof text; at++) {
        const uint8_t c = s->text.ptr[at];

        if (c == 0 || strchr("0123456789+-eE.", c) == NULL)
            break;
        if (c == '.') {
            memcpy(text + n, point, strlen(point));
            n += strlen(point);
        } else {
            text[n++] = (char)c;
        }
    }
    text[n] = '\0';
    value = strtod(text, NULL);
    sluice_wipe(text, sizeof text);
    return value;
}

/* Nodes lie in document order, and so do their strings. */
static sluice_status read_values(sluice_json_doc *doc, const scanner *s)
{
    for (size_t i = 0; i < doc->n_nodes; i++) {
        sluice_json *node = &doc->nodes[i];
        size_t len;

        if (node->key_offset > 0) /* a member; the first key of a text comes after its brace */
            node->key = read_string(doc, s, node->key_offset, &len);
        if (node->kind == SLUICE_JSON_STRING)
            node->string = read_string(doc, s, node->offset, &node->string_len);
        if (node->kind != SLUICE_JSON_NUMBER)
            continue;
        node->number = read_number(s, node->offset);
        if (!isfinite(node->number))
            return bad(s, node->offset, "number is too large");
    }
    return SLUICE_OK;
}

/* ---- duplicate keys -------------------------------------------------------------------------------- */

static bool key_after(const sluice_json *a, const sluice_json *b)
{
    int order = strcmp(a->key, b->key);

    return order != 0 ? order > 0 : a->key_offset > b->key_offset;
}

static void sift_down(const sluice_json **heap, size_t root, size_t n)
{
    for (;;) {
        size_t child = 2 * root + 1;
        const sluice_json *swap;

        if (child >= n)
            return;
        if (child + 1 < n && key_after(heap[child + 1], heap[child]))
            child++;
        if (!key_after(heap[child], heap[root]))
            return;
        swap = heap[root];
        heap[root] = heap[child];
        heap[child] = swap;
        root = child;
    }
}

/* Heapsort: in place, and n log n in the worst case too, which qsort() does not promise. */
static void sort_by_key(const sluice_json **keys, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down(keys, i, n);
    for (size_t end = n; end > 1; end--) {
        const sluice_json *last = keys[end - 1];

        keys[end - 1] = keys[0];
        keys[0] = last;
        sift_down(keys, 0, end - 1);
    }
}

/* The first member in the text that repeats an earlier key of its object, or NULL. */
static const sluice_json *repeated_key(const sluice_json *object, const sluice_json **keys)
{
    const sluice_json *found = NULL;
    size_t n = 0;

    for (const sluice_json *child = object->child; child != NULL; child = child->next)
        keys[n++] = child;
    sort_by_key(keys, n);
    for (size_t i = 1; i < n; i++)
        if (strcmp(keys[i - 1]->key, keys[i]->key) == 0 && (found == NULL || keys[i]->key_offset < found->key_offset))
            found = keys[i];
    return found;
}

static sluice_status check_keys(const sluice_json_doc *doc, size_t n_keys_max, sluice_span text, sluice_error *err)
{
    const sluice_json *found = NULL;
    const sluice_json **keys;

    if (n_keys_max < 2)
        return SLUICE_OK;
    keys = sluice_alloc_array(doc->al, n_keys_max, sizeof(const sluice_json *));
    if (keys == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "json: no memory to compare %zu keys", n_keys_max);
    for (size_t i = 0; i < doc->n_nodes && found == NULL; i++)
        if (doc->nodes[i].kind == SLUICE_JSON_OBJECT && doc->nodes[i].n_children > 1)
            found = repeated_key(&doc->nodes[i], keys);
    sluice_free(doc->al, (void *)keys, n_keys_max * sizeof(const sluice_json *));
    if (found == NULL)
        return SLUICE_OK;
    return at_place(text, found->key_offset, err,
                    sluice_error_set(err, SLUICE_ERR_FORMAT, "json: duplicate key \"%.*s\"", KEY_SHOWN_MAX, found->key));
}

/* ---- the doc --------------------------------------------------------------------------------------- */

/* One block: the doc, its nodes, its strings. */
static sluice_json_doc *doc_open(const scanner *s, const sluice_allocator *al)
{
    size_t nodes_bytes, bytes;
    sluice_json_doc *doc;

    if (!sluice_mul_size(s->n_nodes, sizeof(sluice_json), &nodes_bytes) || !sluice_add_size(nodes_bytes, sizeof *doc, &bytes) ||
        !sluice_add_size(bytes, s->string_bytes, &bytes))
        return NULL;
    doc = sluice_alloc_zeroed(al, bytes);
    if (doc == NULL)
        return NULL;
    doc->al = al;
    doc->bytes = bytes;
    doc->n_nodes = s->n_nodes;
    doc->nodes = (sluice_json *)(void *)(doc + 1);
    doc->strings = (char *)(doc->nodes + s->n_nodes);
    return doc;
}

_Static_assert(sizeof(sluice_json_doc) % _Alignof(sluice_json) == 0, "nodes follow the doc");

sluice_status sluice_json_parse(sluice_json_doc **out, sluice_span text, const sluice_json_limits *limits, const sluice_allocator *al,
                                sluice_error *err)
{
    size_t bytes_max = limits != NULL && limits->max_bytes > 0 ? limits->max_bytes : BYTES_MAX_DEFAULT;
    uint32_t depth_max = limits != NULL && limits->max_depth > 0 ? limits->max_depth : DEPTH_MAX_DEFAULT;
    scanner s = { .text = text, .err = err };
    sluice_json_doc *doc = NULL;
    sluice_status st;

    *out = NULL;
    if (text.len > bytes_max)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "json: %zu bytes, at most %zu are allowed", text.len, bytes_max);
    s.depth_max = depth_max < DEPTH_MAX ? depth_max : DEPTH_MAX;
    s.n_nodes_max = bytes_max / BYTES_PER_NODE > NODES_MIN ? bytes_max / BYTES_PER_NODE : NODES_MIN;

    st = check_encoding(text, err);
    if (st == SLUICE_OK)
        st = scan_text(&s);
    if (st != SLUICE_OK)
        goto out;
    doc = doc_open(&s, al);
    if (doc == NULL) {
        st = sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "json: no memory for %zu values", s.n_nodes);
        goto out;
    }
    s.nodes = doc->nodes;
    st = scan_text(&s);
    if (st == SLUICE_OK)
        st = read_values(doc, &s);
    if (st == SLUICE_OK)
        st = check_keys(doc, s.n_keys_max, text, err);
    if (st != SLUICE_OK)
        goto out;
    *out = doc;
    doc = NULL;
out:
    sluice_json_close(doc);
    return st;
}

void sluice_json_close(sluice_json_doc *doc)
{
    if (doc != NULL)
        sluice_free_wiped(doc->al, doc, doc->bytes);
}

const sluice_json *sluice_json_root(const sluice_json_doc *doc)
{
    return doc != NULL ? &doc->nodes[0] : NULL;
}

const sluice_json *sluice_json_get(const sluice_json *object, const char *key)
{
    if (object == NULL || object->kind != SLUICE_JSON_OBJECT)
        return NULL;
    for (const sluice_json *child = object->child; child != NULL; child = child->next)
        if (strcmp(child->key, key) == 0)
            return child;
    return NULL;
}
