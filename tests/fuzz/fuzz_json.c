/* fuzz_json.c - what the reader accepts, the writer can write, and reading that gives the same tree.
 *
 * Where the reader refuses, its record must be complete: a status of input, a message, and a place within the text.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "sdk/base/json.h"

enum { WRITTEN_MAX = 1 << 24 };

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "fuzz_json: %s\n", what);
        abort();
    }
}

static void write_value(sluice_json_writer *w, const sluice_json *v)
{
    switch (v->kind) {
    case SLUICE_JSON_NULL: sluice_json_str(w, v->key, NULL); return;
    case SLUICE_JSON_BOOL: sluice_json_bool(w, v->key, v->boolean); return;
    case SLUICE_JSON_NUMBER: sluice_json_num(w, v->key, v->number, -1); return;
    case SLUICE_JSON_STRING: sluice_json_span(w, v->key, sluice_span_of(v->string, v->string_len)); return;
    case SLUICE_JSON_ARRAY: sluice_json_array_open(w, v->key); break;
    case SLUICE_JSON_OBJECT: sluice_json_object_open(w, v->key); break;
    }
    for (const sluice_json *child = v->child; child != NULL; child = child->next)
        write_value(w, child);
    if (v->kind == SLUICE_JSON_ARRAY)
        sluice_json_array_close(w);
    else
        sluice_json_object_close(w);
}

static void must_be_equal(const sluice_json *a, const sluice_json *b)
{
    size_t n = 0;

    must(a->kind == b->kind && a->n_children == b->n_children && a->boolean == b->boolean, "another kind");
    must((a->key == NULL) == (b->key == NULL) && (a->key == NULL || strcmp(a->key, b->key) == 0), "another key");
    must(memcmp(&a->number, &b->number, sizeof a->number) == 0, "another number");
    must(a->string_len == b->string_len && (a->string == NULL || memcmp(a->string, b->string, a->string_len + 1) == 0), "another string");
    for (a = a->child, b = b->child; a != NULL && b != NULL; a = a->next, b = b->next, n++)
        must_be_equal(a, b);
    must(a == NULL && b == NULL, "another number of children");
}

/* Places lie in the text, in its order, and on what they claim. */
static void must_be_placed(const sluice_json *v, sluice_span text)
{
    static const char firsts[] = "ntf-0123456789\"[{";
    size_t last = v->offset;

    must(v->offset < text.len && strchr(firsts, text.ptr[v->offset]) != NULL, "a value's place");
    must(v->key == NULL || text.ptr[v->key_offset] == '"', "a key's place");
    for (const sluice_json *child = v->child; child != NULL; child = child->next) {
        must(child->offset > last, "places in order");
        last = child->offset;
        must_be_placed(child, text);
    }
}

static void must_be_a_complete_refusal(const sluice_error *err, sluice_status st, size_t size)
{
    uint32_t line_max = (uint32_t)size + 1;

    must(st == SLUICE_ERR_FORMAT || st == SLUICE_ERR_LIMIT, "another status");
    must(err->status == st && err->message[0] != '\0', "no message");
    must(err->has_offset && err->offset <= size && err->line >= 1 && err->line <= line_max && err->column >= 1, "no place");
    must(sluice_utf8_valid(sluice_span_str(err->message)), "a message that is not UTF-8");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const sluice_json_limits limits = { WRITTEN_MAX, 64 };
    sluice_span text = sluice_span_of(data, size);
    sluice_json_doc *first, *second;
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_json_writer w;
    sluice_buf written;
    sluice_status st = sluice_json_parse(&first, text, &limits, NULL, &err);

    if (st != SLUICE_OK) {
        must(first == NULL, "an output beside an error");
        must_be_a_complete_refusal(&err, st, size);
        return 0;
    }
    must_be_placed(sluice_json_root(first), text);
    sluice_buf_init(&written, NULL, WRITTEN_MAX);
    sluice_json_begin(&w, &written);
    write_value(&w, sluice_json_root(first));
    must(w.ok && w.depth == 0, "cannot be written");
    st = sluice_json_parse(&second, sluice_buf_span(&written), &limits, NULL, &err);
    if (st != SLUICE_OK)
        fprintf(stderr, "%.*s\n%s\n", (int)written.len, (const char *)written.ptr, err.message);
    must(st == SLUICE_OK, "what was written is not read");
    must_be_equal(sluice_json_root(first), sluice_json_root(second));
    sluice_json_close(first);
    sluice_json_close(second);
    sluice_buf_deinit(&written);
    return 0;
}
