/* fuzz_bhttp.c - a binary HTTP message may arrive cut anywhere: events and status must not depend on where
 *
 * Byte 0: bit 0 asks for a response, else a request.  Byte 1: where to cut.  The rest is the message.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "cloud-adapters/oblivious/bhttp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

/* Everything an event says, in an unambiguous order; pieces of content run together. */
static sluice_status write_down(const sluice_bhttp_event *e, void *user)
{
    const sluice_span parts[] = { e->method, e->scheme, e->authority, e->path, e->name, e->value };
    sluice_buf *log = user;

    if (e->part == SLUICE_BHTTP_BODY) {
        must(e->body.len > 0 && sluice_buf_append_span(log, e->body));
        return SLUICE_OK;
    }
    must(sluice_buf_appendf(log, "<%d %d", (int)e->part, e->http_status));
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        must(sluice_buf_appendf(log, " %zu:", parts[i].len) && sluice_buf_append_span(log, parts[i]));
    must(e->part == SLUICE_BHTTP_REQUEST || e->part == SLUICE_BHTTP_STATUS || (sluice_http_name_ok(e->name) && sluice_http_value_ok(e->value)));
    must(sluice_buf_append_str(log, ">"));
    return SLUICE_OK;
}

static sluice_status read_cut(sluice_bhttp_kind kind, sluice_span bytes, size_t cut, sluice_buf *log)
{
    const sluice_bhttp_limits limits = { 512, 16, 4096 };
    sluice_bhttp_reader r;
    sluice_status st;

    sluice_buf_init(log, NULL, SIZE_MAX);
    sluice_bhttp_reader_init(&r, kind, &limits, NULL, write_down, log);
    st = sluice_bhttp_reader_feed(&r, sluice_span_of(bytes.ptr, cut), NULL);
    if (st == SLUICE_OK)
        st = sluice_bhttp_reader_feed(&r, sluice_span_of(bytes.ptr + cut, bytes.len - cut), NULL);
    if (st == SLUICE_OK)
        st = sluice_bhttp_reader_finish(&r, NULL);
    sluice_bhttp_reader_deinit(&r);
    return st;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sluice_bhttp_kind kind;
    sluice_span bytes;
    sluice_buf whole, cut;
    sluice_status st;

    if (size < 3)
        return 0;
    kind = (data[0] & 1) != 0 ? SLUICE_BHTTP_IS_RESPONSE : SLUICE_BHTTP_IS_REQUEST;
    bytes = sluice_span_of(data + 2, size - 2);
    st = read_cut(kind, bytes, bytes.len, &whole);
    must(read_cut(kind, bytes, data[1] % bytes.len, &cut) == st);
    must(sluice_span_eq(sluice_buf_span(&whole), sluice_buf_span(&cut)));
    sluice_buf_deinit(&whole);
    sluice_buf_deinit(&cut);
    return 0;
}
