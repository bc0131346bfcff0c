/* test_ohttp.c - ohttp.c against RFC 9458's appendix A and the chunked draft's example, and what it must refuse
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cloud-adapters/oblivious/ohttp.h"
#include "tests/support/cm.h"
#include "tests/unit/cloud/aes128gcm.h"
#include "tests/unit/cloud/vectors.h"

static const uint8_t GATEWAY_SECRET[32] = { 9, 8, 7, 6 }, EPHEMERAL[32] = { 1, 2, 3, 4 }, NONCE[32] = { 5, 5, 5 };

static sluice_buf new_buf(void)
{
    sluice_buf b;

    sluice_buf_init(&b, NULL, 1 << 20);
    return b;
}

/* A list of one configuration from the vector's bare one. */
static sluice_buf list_of(sluice_span config)
{
    sluice_buf list = new_buf();
    const uint8_t len[2] = { (uint8_t)(config.len >> 8), (uint8_t)(config.len & 0xff) };

    assert_true(sluice_buf_append(&list, len, 2) && sluice_buf_append_span(&list, config));
    return list;
}

/* Client and gateway of a vector, after both have agreed on the request context. */
static void begin_vector(const sluice_json *v, bool is_chunked, sluice_ohttp *client, sluice_ohttp *gateway, sluice_buf *request)
{
    sluice_buf list = list_of(vectors_bytes(v, "keyConfig"));
    uint8_t prefix[SLUICE_OHTTP_PREFIX_BYTES];
    sluice_ohttp_key key;

    assert_int_equal(sluice_ohttp_key_select(&key, sluice_buf_span(&list), &aes128gcm, NULL), SLUICE_OK);
    assert_int_equal(key.key_id, vectors_int(v, "key_id"));
    assert_int_equal(sluice_ohttp_client_begin(client, &key, is_chunked, vectors_bytes(v, "skE").ptr, prefix, NULL), SLUICE_OK);
    assert_span_equal(sluice_span_of(client->enc, 32), vectors_bytes(v, "pkE"));
    assert_true(sluice_buf_append(request, prefix, sizeof prefix));
    assert_int_equal(sluice_ohttp_gateway_begin(gateway, key.key_id, vectors_bytes(v, "skR").ptr, &aes128gcm, is_chunked,
                                                vectors_bytes(v, "encapsulatedRequest"), NULL),
                     SLUICE_OK);
    sluice_buf_deinit(&list);
}

/* The derivations of RFC 9458 4.4, on both sides. */
static void check_response_keys(const sluice_json *v, const sluice_ohttp *x, sluice_hpke *response)
{
    const char *label = x->is_chunked ? "message/bhttp chunked response" : "message/bhttp response";
    const sluice_span salt = vectors_bytes(v, "salt"), secret = vectors_bytes(v, "exportedSecret");
    uint8_t bytes[32];

    assert_int_equal(sluice_ohttp_nonce_len(x), 16);
    assert_true(sluice_hpke_export(&x->request, bytes, secret.len, sluice_span_str(label)));
    assert_span_equal(sluice_span_of(bytes, secret.len), secret);
    sluice_hkdf_sha256_extract(bytes, salt, secret);
    assert_span_equal(sluice_span_of(bytes, 32), vectors_bytes(v, "prk"));
    assert_true(sluice_ohttp_response_begin(response, x, salt.ptr + 32));
    assert_span_equal(sluice_span_of(response->key, 16), vectors_bytes(v, "aeadKey"));
    assert_span_equal(sluice_span_of(response->base_nonce, 12), vectors_bytes(v, "aeadNonce"));
}

static void plain_exchange_equals_rfc9458_appendix_a(void **state)
{
    sluice_json_doc *doc = vectors_open("rfc9458-appendix-a.json");
    const sluice_json *v = sluice_json_root(doc);
    const sluice_span request = vectors_bytes(v, "request"), response = vectors_bytes(v, "response");
    const sluice_span sealed_request = vectors_bytes(v, "encapsulatedRequest"), sealed_response = vectors_bytes(v, "encapsulatedResponse");
    sluice_buf out = new_buf();
    sluice_ohttp client, gateway;
    sluice_hpke keys;
    uint8_t plain[256];

    (void)state;
    begin_vector(v, false, &client, &gateway, &out);
    assert_int_equal(sluice_ohttp_seal(&client.request, request, &out, NULL), SLUICE_OK);
    assert_span_equal(sluice_buf_span(&out), sealed_request);
    assert_true(sluice_hpke_open(&gateway.request, plain, SLUICE_SPAN_EMPTY, sluice_span_of(sealed_request.ptr + 39, sealed_request.len - 39)));
    assert_span_equal(sluice_span_of(plain, request.len), request);

    check_response_keys(v, &gateway, &keys);
    sluice_buf_clear(&out);
    assert_true(sluice_buf_append(&out, sealed_response.ptr, 16)); /* the response nonce */
    assert_int_equal(sluice_ohttp_seal(&keys, response, &out, NULL), SLUICE_OK);
    assert_span_equal(sluice_buf_span(&out), sealed_response);
    check_response_keys(v, &client, &keys);
    assert_true(sluice_hpke_open(&keys, plain, SLUICE_SPAN_EMPTY, sluice_span_of(sealed_response.ptr + 16, sealed_response.len - 16)));
    assert_span_equal(sluice_span_of(plain, response.len), response);
    sluice_buf_deinit(&out);
    sluice_json_close(doc);
}

static sluice_status collect(sluice_span plain, void *user)
{
    return sluice_buf_append_span(user, plain) ? SLUICE_OK : SLUICE_ERR_NO_MEMORY;
}

/* Feed `bytes` in pieces of `step` and give the status of feed and finish. */
static sluice_status read_chunks(sluice_hpke ctx, sluice_span bytes, size_t step, sluice_buf *plain)
{
    sluice_ohttp_chunk_reader r;
    sluice_status st = SLUICE_OK;

    sluice_ohttp_chunk_reader_init(&r, &ctx, NULL, collect, plain);
    for (size_t at = 0; st == SLUICE_OK && at < bytes.len; at += step)
        st = sluice_ohttp_chunk_reader_feed(&r, sluice_span_of(bytes.ptr + at, bytes.len - at < step ? bytes.len - at : step), NULL);
    if (st == SLUICE_OK)
        st = sluice_ohttp_chunk_reader_finish(&r, NULL);
    sluice_ohttp_chunk_reader_deinit(&r);
    return st;
}

static void seal_chunks(sluice_hpke *ctx, const sluice_json *plaintexts, sluice_buf *out)
{
    for (const sluice_json *c = plaintexts->child; c != NULL; c = c->next)
        assert_int_equal(sluice_ohttp_chunk(ctx, vectors_unhex(c->string), c->next == NULL, out, NULL), SLUICE_OK);
}

static void chunked_exchange_equals_the_drafts_example(void **state)
{
    sluice_json_doc *doc = vectors_open("chunked-ohttp-example.json");
    const sluice_json *v = sluice_json_root(doc);
    const sluice_span sealed_request = vectors_bytes(v, "encapsulatedRequest"), sealed_response = vectors_bytes(v, "encapsulatedResponse");
    sluice_buf out = new_buf(), plain = new_buf();
    sluice_ohttp client, gateway;
    sluice_hpke keys;

    (void)state;
    begin_vector(v, true, &client, &gateway, &out);
    seal_chunks(&client.request, sluice_json_get(v, "requestChunkPlaintexts"), &out);
    assert_span_equal(sluice_buf_span(&out), sealed_request);
    assert_int_equal(read_chunks(gateway.request, sluice_span_of(sealed_request.ptr + 39, sealed_request.len - 39), 1, &plain), SLUICE_OK);
    assert_span_equal(sluice_buf_span(&plain), vectors_bytes(v, "request"));

    check_response_keys(v, &gateway, &keys);
    sluice_buf_clear(&out);
    sluice_buf_clear(&plain);
    assert_true(sluice_buf_append_span(&out, vectors_bytes(v, "responseNonce")));
    seal_chunks(&keys, sluice_json_get(v, "responseChunkPlaintexts"), &out);
    assert_span_equal(sluice_buf_span(&out), sealed_response);
    check_response_keys(v, &client, &keys);
    assert_int_equal(read_chunks(keys, sluice_span_of(sealed_response.ptr + 16, sealed_response.len - 16), 1, &plain), SLUICE_OK);
    assert_span_equal(sluice_buf_span(&plain), vectors_bytes(v, "response"));
    sluice_buf_deinit(&out);
    sluice_buf_deinit(&plain);
    sluice_json_close(doc);
}

/* ---- our own suite ---- */

static sluice_ohttp_key our_key(void)
{
    sluice_ohttp_key key = { 7, { 0 }, &sluice_hpke_chacha20 };

    sluice_x25519_public(key.pub, GATEWAY_SECRET);
    return key;
}

/* A response context that has sealed three pieces into `out`; *ctx is a fresh one that can open them. */
static void sealed_stream(sluice_hpke *ctx, sluice_buf *out)
{
    const sluice_ohttp_key key = our_key();
    uint8_t prefix[SLUICE_OHTTP_PREFIX_BYTES];
    sluice_ohttp client;
    sluice_hpke sealer;

    assert_int_equal(sluice_ohttp_client_begin(&client, &key, true, EPHEMERAL, prefix, NULL), SLUICE_OK);
    assert_int_equal(sluice_ohttp_nonce_len(&client), 32);
    assert_true(sluice_ohttp_response_begin(&sealer, &client, NONCE));
    *ctx = sealer;
    assert_int_equal(sluice_ohttp_chunk(&sealer, SLUICE_SPAN_LIT("first "), false, out, NULL), SLUICE_OK);
    assert_int_equal(sluice_ohttp_chunk(&sealer, SLUICE_SPAN_LIT("a second one that is longer than sixty-three bytes, so that its length takes two "),
                                        false, out, NULL),
                     SLUICE_OK);
    assert_int_equal(sluice_ohttp_chunk(&sealer, SLUICE_SPAN_LIT("third"), true, out, NULL), SLUICE_OK);
}

static void chunks_do_not_depend_on_where_the_bytes_are_cut(void **state)
{
    sluice_buf stream = new_buf(), whole = new_buf(), cut = new_buf();
    sluice_hpke ctx;

    (void)state;
    sealed_stream(&ctx, &stream);
    assert_int_equal(read_chunks(ctx, sluice_buf_span(&stream), stream.len, &whole), SLUICE_OK);
    for (size_t step = 1; step < stream.len; step++) {
        sluice_buf_clear(&cut);
        assert_int_equal(read_chunks(ctx, sluice_buf_span(&stream), step, &cut), SLUICE_OK);
        assert_span_equal(sluice_buf_span(&cut), sluice_buf_span(&whole));
    }
    sluice_buf_deinit(&stream);
    sluice_buf_deinit(&whole);
    sluice_buf_deinit(&cut);
}

static void a_stream_cut_anywhere_is_never_complete(void **state)
{
    sluice_buf stream = new_buf(), plain = new_buf();
    sluice_hpke ctx;

    (void)state;
    sealed_stream(&ctx, &stream);
    for (size_t len = 0; len < stream.len; len++) {
        const sluice_status st = read_chunks(ctx, sluice_span_of(stream.ptr, len), 7, &plain);

        assert_true(st == SLUICE_ERR_TRUNCATED || st == SLUICE_ERR_INTEGRITY);
    }
    sluice_buf_deinit(&stream);
    sluice_buf_deinit(&plain);
}

static void chunks_that_were_touched_swapped_or_repeated_are_refused(void **state)
{
    sluice_buf stream = new_buf(), bent = new_buf(), plain = new_buf();
    sluice_hpke ctx;
    const size_t first_len = 1 + 6 + 16;

    (void)state;
    sealed_stream(&ctx, &stream);
    for (size_t at = 0; at < stream.len; at++) { /* a flipped length may also read as a limit or a format error */
        stream.ptr[at] ^= 0x10;
        assert_int_not_equal(read_chunks(ctx, sluice_buf_span(&stream), stream.len, &plain), SLUICE_OK);
        stream.ptr[at] ^= 0x10;
    }
    assert_true(sluice_buf_append(&bent, stream.ptr, first_len) && sluice_buf_append_span(&bent, sluice_buf_span(&stream)));
    assert_int_equal(read_chunks(ctx, sluice_buf_span(&bent), bent.len, &plain), SLUICE_ERR_INTEGRITY);
    /* the first chunk, marked as the final one: its AAD differs */
    sluice_buf_clear(&bent);
    assert_true(sluice_buf_append_byte(&bent, 0) && sluice_buf_append(&bent, stream.ptr + 1, first_len - 1));
    assert_int_equal(read_chunks(ctx, sluice_buf_span(&bent), bent.len, &plain), SLUICE_ERR_INTEGRITY);
    sluice_buf_deinit(&stream);
    sluice_buf_deinit(&bent);
    sluice_buf_deinit(&plain);
}

static void empty_and_oversized_chunks_are_refused_before_their_bytes_come(void **state)
{
    static const struct {
        const char *why, *hex;
        sluice_status want;
    } cases[] = {
        { "an empty chunk that is not final", "10", SLUICE_ERR_FORMAT },
        { "shorter than a tag", "01", SLUICE_ERR_FORMAT },
        { "above the limit", "80040001", SLUICE_ERR_LIMIT },
        { "2^62 - 1", "ffffffffffffffff", SLUICE_ERR_LIMIT },
    };
    sluice_buf plain = new_buf(), stream = new_buf();
    sluice_hpke ctx;

    (void)state;
    sealed_stream(&ctx, &stream);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (read_chunks(ctx, vectors_unhex(cases[i].hex), 1, &plain) != cases[i].want)
            fail_msg("%s", cases[i].why);
    sluice_buf_deinit(&plain);
    sluice_buf_deinit(&stream);
}

static void long_content_is_cut_into_chunks_that_every_receiver_takes(void **state)
{
    static uint8_t content[40000];
    sluice_buf stream = new_buf(), out = new_buf(), plain = new_buf();
    sluice_hpke ctx, sealer;

    (void)state;
    sealed_stream(&ctx, &stream);
    sealer = ctx;
    assert_int_equal(sluice_ohttp_chunks(&sealer, sluice_span_of(content, sizeof content), true, &out, NULL), SLUICE_OK);
    assert_memory_equal(out.ptr, "\x80\x00\x40\x00", 4); /* 16384 */
    assert_int_equal(sealer.seq, 3);
    assert_int_equal(read_chunks(ctx, sluice_buf_span(&out), 1000, &plain), SLUICE_OK);
    assert_span_equal(sluice_buf_span(&plain), sluice_span_of(content, sizeof content));
    sluice_buf_deinit(&stream);
    sluice_buf_deinit(&out);
    sluice_buf_deinit(&plain);
}

static void plain_and_chunked_forms_never_open_as_each_other(void **state)
{
    const sluice_ohttp_key key = our_key();
    sluice_buf out = new_buf();
    uint8_t prefix[SLUICE_OHTTP_PREFIX_BYTES], plain[64];
    sluice_ohttp client, gateway;

    (void)state;
    assert_int_equal(sluice_ohttp_client_begin(&client, &key, false, EPHEMERAL, prefix, NULL), SLUICE_OK);
    assert_true(sluice_buf_append(&out, prefix, sizeof prefix));
    assert_int_equal(sluice_ohttp_seal(&client.request, SLUICE_SPAN_LIT("hello"), &out, NULL), SLUICE_OK);
    for (int is_chunked = 0; is_chunked < 2; is_chunked++) {
        assert_int_equal(sluice_ohttp_gateway_begin(&gateway, 7, GATEWAY_SECRET, &sluice_hpke_chacha20, is_chunked != 0, sluice_buf_span(&out), NULL),
                         SLUICE_OK);
        assert_int_equal(sluice_hpke_open(&gateway.request, plain, SLUICE_SPAN_EMPTY, sluice_span_of(out.ptr + 39, out.len - 39)), is_chunked == 0);
    }
    sluice_buf_deinit(&out);
}

static void gateway_refuses_what_is_not_for_its_key(void **state)
{
    const sluice_ohttp_key key = our_key();
    uint8_t message[SLUICE_OHTTP_PREFIX_BYTES + 16] = { 0 };
    sluice_ohttp client, gateway;
    sluice_error err = SLUICE_ERROR_INIT;

    (void)state;
    assert_int_equal(sluice_ohttp_client_begin(&client, &key, false, EPHEMERAL, message, NULL), SLUICE_OK);
    assert_int_equal(
        sluice_ohttp_gateway_begin(&gateway, 7, GATEWAY_SECRET, &sluice_hpke_chacha20, false, sluice_span_of(message, sizeof message - 1), &err),
        SLUICE_ERR_FORMAT);
    for (size_t i = 0; i < SLUICE_OHTTP_HEADER_BYTES; i++) {
        message[i] ^= 1;
        assert_int_equal(
            sluice_ohttp_gateway_begin(&gateway, 7, GATEWAY_SECRET, &sluice_hpke_chacha20, false, sluice_span_of(message, sizeof message), &err),
            SLUICE_ERR_UNSUPPORTED);
        message[i] ^= 1;
    }
    memset(message + SLUICE_OHTTP_HEADER_BYTES, 0, 32);
    assert_int_equal(
        sluice_ohttp_gateway_begin(&gateway, 7, GATEWAY_SECRET, &sluice_hpke_chacha20, false, sluice_span_of(message, sizeof message), &err),
        SLUICE_ERR_INTEGRITY);
}

/* ---- key configurations ---- */

static sluice_status selects(sluice_span list, sluice_ohttp_key *key)
{
    sluice_error err = SLUICE_ERROR_INIT;
    const sluice_status st = sluice_ohttp_key_select(key, list, &sluice_hpke_chacha20, &err);

    assert_int_equal(err.status, st);
    return st;
}

static void key_list_is_read_as_it_is_written(void **state)
{
    const sluice_ohttp_key key = our_key();
    sluice_ohttp_key got;
    sluice_buf list = new_buf();

    (void)state;
    assert_true(sluice_ohttp_key_write(&list, &key));
    assert_int_equal(selects(sluice_buf_span(&list), &got), SLUICE_OK);
    assert_int_equal(got.key_id, 7);
    assert_memory_equal(got.pub, key.pub, 32);
    assert_ptr_equal(got.aead, &sluice_hpke_chacha20);
    sluice_buf_deinit(&list);
}

static void first_configuration_that_fits_is_taken_and_unknown_kems_are_skipped(void **state)
{
    sluice_ohttp_key key = our_key(), got;
    sluice_buf list = new_buf();

    (void)state;
    assert_true(sluice_buf_append_span(&list, vectors_unhex("0005ff647a0102"))); /* unknown KEM: its inside is not looked at */
    key.key_id = 1;
    key.aead = &aes128gcm; /* known KEM, suite that we do not offer */
    assert_true(sluice_ohttp_key_write(&list, &key));
    assert_int_equal(selects(sluice_buf_span(&list), &got), SLUICE_ERR_UNSUPPORTED);
    key.aead = &sluice_hpke_chacha20;
    key.key_id = 2;
    assert_true(sluice_ohttp_key_write(&list, &key));
    key.key_id = 3;
    assert_true(sluice_ohttp_key_write(&list, &key));
    assert_int_equal(selects(sluice_buf_span(&list), &got), SLUICE_OK);
    assert_int_equal(got.key_id, 2);
    sluice_buf_deinit(&list);
}

static void one_bad_configuration_discards_the_whole_list(void **state)
{
    static const struct {
        const char *why, *hex;
    } cases[] = {
        { "a length without its configuration", "0029" },
        { "half a length", "00" },
        { "too short for key id and KEM", "00020100" },
        { "X25519 without its key", "0005010020aabb" },
        { "no suite", "0025010020000000000000000000000000000000000000000000000000000000000000000100000000" },
        { "suites that are not whole", "002a0100200000000000000000000000000000000000000000000000000000000000000001000500010003aa" },
        { "bytes after the suites", "002a0100200000000000000000000000000000000000000000000000000000000000000001000400010003aa" },
    };
    const sluice_ohttp_key key = our_key();
    sluice_ohttp_key got;
    sluice_buf list = new_buf();

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sluice_buf_clear(&list);
        assert_true(sluice_ohttp_key_write(&list, &key) && sluice_buf_append_span(&list, vectors_unhex(cases[i].hex)));
        if (selects(sluice_buf_span(&list), &got) != SLUICE_ERR_FORMAT)
            fail_msg("%s", cases[i].why);
        assert_null(got.aead);
    }
    assert_int_equal(selects(SLUICE_SPAN_EMPTY, &got), SLUICE_ERR_FORMAT);
    sluice_buf_clear(&list);
    for (size_t i = 0; i < 17; i++)
        assert_true(sluice_ohttp_key_write(&list, &key));
    assert_int_equal(selects(sluice_buf_span(&list), &got), SLUICE_ERR_FORMAT);
    sluice_buf_deinit(&list);
}

static void size_classes_grow_by_at_most_an_eighth_beyond_4_kib(void **state)
{
    size_t before = 0;

    (void)state;
    assert_int_equal(sluice_ohttp_size_class(0), 512);
    assert_int_equal(sluice_ohttp_size_class(1), 512);
    assert_int_equal(sluice_ohttp_size_class(512), 512);
    assert_int_equal(sluice_ohttp_size_class(513), 1024);
    assert_int_equal(sluice_ohttp_size_class(4096), 4096);
    assert_int_equal(sluice_ohttp_size_class(4097), 4352);   /* e = 12, s = 4: multiples of 256 */
    assert_int_equal(sluice_ohttp_size_class(65537), 67584); /* e = 16, s = 5: multiples of 2048 */
    for (size_t len = 4096; len < 300000; len += 37) {
        const size_t padded = sluice_ohttp_size_class(len);

        assert_true(padded >= len && padded >= before);
        assert_true(padded - len <= len / 8);
        assert_int_equal(sluice_ohttp_size_class(padded), padded);
        before = padded;
    }
    assert_int_equal(sluice_ohttp_size_class(SIZE_MAX), SIZE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_exchange_equals_rfc9458_appendix_a),
        cmocka_unit_test(chunked_exchange_equals_the_drafts_example),
        cmocka_unit_test(chunks_do_not_depend_on_where_the_bytes_are_cut),
        cmocka_unit_test(a_stream_cut_anywhere_is_never_complete),
        cmocka_unit_test(chunks_that_were_touched_swapped_or_repeated_are_refused),
        cmocka_unit_test(empty_and_oversized_chunks_are_refused_before_their_bytes_come),
        cmocka_unit_test(long_content_is_cut_into_chunks_that_every_receiver_takes),
        cmocka_unit_test(plain_and_chunked_forms_never_open_as_each_other),
        cmocka_unit_test(gateway_refuses_what_is_not_for_its_key),
        cmocka_unit_test(key_list_is_read_as_it_is_written),
        cmocka_unit_test(first_configuration_that_fits_is_taken_and_unknown_kems_are_skipped),
        cmocka_unit_test(one_bad_configuration_discards_the_whole_list),
        cmocka_unit_test(size_classes_grow_by_at_most_an_eighth_beyond_4_kib),
    };

    if (sluice_crypto_init(NULL) != SLUICE_OK)
        return 1;
    return cmocka_run_group_tests_name("ohttp", tests, NULL, NULL);
}
