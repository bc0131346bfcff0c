/* fuzz_sse.c - the network may cut an event stream anywhere: the events must not depend on where
 *
 * Byte 0: where to cut.  The rest is the stream.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "cloud-adapters/wire/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

static bool write_down(sluice_span type, sluice_span data, void *user)
{
    sluice_buf *log = user;

    must(sluice_utf8_valid(type) && sluice_utf8_valid(data) && type.len > 0);
    must(sluice_buf_appendf(log, "<%zu %zu ", type.len, data.len) && sluice_buf_append_span(log, type) && sluice_buf_append_span(log, data));
    return true;
}

static sluice_status read_cut(sluice_span bytes, size_t cut, sluice_buf *log)
{
    sluice_sse s;
    sluice_status st;

    sluice_buf_init(log, NULL, SIZE_MAX);
    sluice_sse_init(&s, NULL, 256, 512, write_down, log);
    st = sluice_sse_feed(&s, sluice_span_of(bytes.ptr, cut), NULL);
    if (st == SLUICE_OK)
        st = sluice_sse_feed(&s, sluice_span_of(bytes.ptr + cut, bytes.len - cut), NULL);
    sluice_sse_deinit(&s);
    return st;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sluice_buf whole, cut;
    sluice_span bytes;
    sluice_status st;

    if (size < 2)
        return 0;
    bytes = sluice_span_of(data + 1, size - 1);
    st = read_cut(bytes, bytes.len, &whole);
    must(read_cut(bytes, data[0] % bytes.len, &cut) == st);
    must(sluice_span_eq(sluice_buf_span(&whole), sluice_buf_span(&cut)));
    sluice_buf_deinit(&whole);
    sluice_buf_deinit(&cut);
    return 0;
}
