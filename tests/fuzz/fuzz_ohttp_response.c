/* fuzz_ohttp_response.c - a chunked answer may arrive cut anywhere: what is opened must not depend on where
 *
 * No fuzzer forges a tag, so an AEAD that accepts everything stands in for the real one: chunk framing and the binary HTTP inside are
 * then reached.  The real AEAD must refuse the same bytes.  Byte 0: where to cut.  The rest is the answer after its nonce.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "cloud-adapters/oblivious/bhttp.h"
#include "cloud-adapters/oblivious/ohttp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

static bool open_anything(uint8_t *out, const uint8_t *key, const uint8_t nonce[12], sluice_span aad, sluice_span sealed)
{
    (void)key;
    (void)nonce;
    must(aad.len == 0 || sluice_span_eq_str(aad, "final"));
    must(sealed.len >= SLUICE_HPKE_TAG_BYTES);
    memmove(out, sealed.ptr, sealed.len - SLUICE_HPKE_TAG_BYTES);
    return true;
}

static const sluice_hpke_aead TRANSPARENT = { 0xfff0, 32, NULL, open_anything };

static sluice_status count(const sluice_bhttp_event *e, void *user)
{
    sluice_buf *log = user;

    must(e->part == SLUICE_BHTTP_BODY ? sluice_buf_append_span(log, e->body)
                                      : sluice_buf_appendf(log, "<%d %d %zu>", (int)e->part, e->http_status, e->name.len));
    return SLUICE_OK;
}

static sluice_status into_http(sluice_span plain, void *user)
{
    must(plain.len > 0);
    return sluice_bhttp_reader_feed(user, plain, NULL);
}

static sluice_status read_cut(const sluice_hpke_aead *aead, sluice_span bytes, size_t cut, sluice_buf *log)
{
    const sluice_bhttp_limits limits = { 512, 16, 4096 };
    sluice_hpke ctx = { .aead = aead };
    sluice_ohttp_chunk_reader chunks;
    sluice_bhttp_reader http;
    sluice_status st;

    sluice_buf_init(log, NULL, SIZE_MAX);
    sluice_bhttp_reader_init(&http, SLUICE_BHTTP_IS_RESPONSE, &limits, NULL, count, log);
    sluice_ohttp_chunk_reader_init(&chunks, &ctx, NULL, into_http, &http);
    st = sluice_ohttp_chunk_reader_feed(&chunks, sluice_span_of(bytes.ptr, cut), NULL);
    if (st == SLUICE_OK)
        st = sluice_ohttp_chunk_reader_feed(&chunks, sluice_span_of(bytes.ptr + cut, bytes.len - cut), NULL);
    if (st == SLUICE_OK)
        st = sluice_ohttp_chunk_reader_finish(&chunks, NULL);
    if (st == SLUICE_OK)
        st = sluice_bhttp_reader_finish(&http, NULL);
    sluice_ohttp_chunk_reader_deinit(&chunks);
    sluice_bhttp_reader_deinit(&http);
    return st;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sluice_buf whole, cut, none;
    sluice_span bytes;
    sluice_status st;

    if (size < 2)
        return 0;
    bytes = sluice_span_of(data + 1, size - 1);
    st = read_cut(&TRANSPARENT, bytes, bytes.len, &whole);
    must(read_cut(&TRANSPARENT, bytes, data[0] % bytes.len, &cut) == st);
    must(sluice_span_eq(sluice_buf_span(&whole), sluice_buf_span(&cut)));
    must(read_cut(&sluice_hpke_chacha20, bytes, bytes.len, &none) != SLUICE_OK && none.len == 0);
    sluice_buf_deinit(&whole);
    sluice_buf_deinit(&cut);
    sluice_buf_deinit(&none);
    return 0;
}
