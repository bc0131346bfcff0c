/* test_gateway.c - gateway.c: what it opens, what it refuses, and the order of its calls
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sluice/gateway.h"

#include "cloud-adapters/oblivious/bhttp.h"
#include "cloud-adapters/oblivious/ohttp.h"
#include "tests/support/cm.h"
#include "tests/unit/cloud/vectors.h"

static const uint8_t SECRET[32] = { 3, 1, 4, 1, 5 }, OTHER_SECRET[32] = { 2, 7, 1, 8 }, EPHEMERAL[32] = { 1, 6, 1, 8 }, RANDOM[32] = { 1, 4, 1, 4 };

#define PLAIN   "message/ohttp-req"
#define CHUNKED "message/ohttp-chunked-req"
#define INNER                                                                                                                                        \
    "0003"                                                                                                                                           \
    "474554"                                                                                                                                         \
    "05"                                                                                                                                             \
    "6874747073"                                                                                                                                     \
    "01"                                                                                                                                             \
    "61"                                                                                                                                             \
    "02"                                                                                                                                             \
    "2f62"                                                                                                                                           \
    "04"                                                                                                                                             \
    "0178"                                                                                                                                           \
    "0179"                                                                                                                                           \
    "02"                                                                                                                                             \
    "6869"                                                                                                                                           \
    "00" /* GET https a /b, x: y, "hi" */

static sluice_buf new_buf(void)
{
    sluice_buf b;

    sluice_buf_init(&b, NULL, 1 << 22);
    return b;
}

/* An encapsulated request with these inner bytes. */
static sluice_buf encapsulated(sluice_span inner, bool is_chunked)
{
    sluice_ohttp_key key = { 7, { 0 }, &sluice_hpke_chacha20 };
    uint8_t prefix[SLUICE_OHTTP_PREFIX_BYTES];
    sluice_buf out = new_buf();
    sluice_ohttp client;

    sluice_x25519_public(key.pub, SECRET);
    assert_int_equal(sluice_ohttp_client_begin(&client, &key, is_chunked, EPHEMERAL, prefix, NULL), SLUICE_OK);
    assert_true(sluice_buf_append(&out, prefix, sizeof prefix));
    assert_int_equal(is_chunked ? sluice_ohttp_chunks(&client.request, inner, true, &out, NULL)
                                : sluice_ohttp_seal(&client.request, inner, &out, NULL),
                     SLUICE_OK);
    return out;
}

static sluice_status opens(sluice_span body, const char *type, uint8_t key_id, const uint8_t *secret)
{
    sluice_gateway_exchange *x;
    sluice_gateway_request http;
    sluice_error err = SLUICE_ERROR_INIT;
    const sluice_status st = sluice_gateway_open(&x, key_id, secret, type, body, NULL, &http, &err);

    assert_int_equal(st, err.status);
    assert_true((x != NULL) == (st == SLUICE_OK));
    if (st != SLUICE_OK)
        assert_true(http.method.len == 0 && http.n_headers == 0 && http.enc.len == 0);
    sluice_gateway_close(x);
    return st;
}

static void key_configuration_is_one_that_clients_select(void **state)
{
    uint8_t list[64], pub[32];
    size_t len = sizeof list;
    sluice_ohttp_key key;

    (void)state;
    assert_int_equal(sluice_gateway_key_config(9, SECRET, list, &len, NULL), SLUICE_OK);
    assert_int_equal(sluice_ohttp_key_select(&key, sluice_span_of(list, len), &sluice_hpke_chacha20, NULL), SLUICE_OK);
    sluice_x25519_public(pub, SECRET);
    assert_int_equal(key.key_id, 9);
    assert_memory_equal(key.pub, pub, 32);
    len = 42;
    assert_int_equal(sluice_gateway_key_config(9, SECRET, list, &len, NULL), SLUICE_ERR_LIMIT);
}

static void both_forms_of_a_request_are_opened_and_parsed(void **state)
{
    (void)state;
    for (int is_chunked = 0; is_chunked < 2; is_chunked++) {
        sluice_buf body = encapsulated(vectors_unhex(INNER), is_chunked != 0);
        sluice_gateway_exchange *x;
        sluice_gateway_request http;

        assert_int_equal(sluice_gateway_open(&x, 7, SECRET, is_chunked != 0 ? CHUNKED : PLAIN, sluice_buf_span(&body), NULL, &http, NULL), SLUICE_OK);
        assert_span_equal(http.enc, sluice_span_of(body.ptr + 7, 32));
        sluice_buf_deinit(&body); /* nothing may point into it */
        assert_span_equal(http.method, SLUICE_SPAN_LIT("GET"));
        assert_span_equal(http.scheme, SLUICE_SPAN_LIT("https"));
        assert_span_equal(http.authority, SLUICE_SPAN_LIT("a"));
        assert_span_equal(http.path, SLUICE_SPAN_LIT("/b"));
        assert_int_equal(http.n_headers, 1);
        assert_span_equal(http.headers[0].name, SLUICE_SPAN_LIT("x"));
        assert_span_equal(http.headers[0].value, SLUICE_SPAN_LIT("y"));
        assert_span_equal(http.body, SLUICE_SPAN_LIT("hi"));
        assert_string_equal(sluice_gateway_response_type(x), is_chunked != 0 ? "message/ohttp-chunked-res" : "message/ohttp-res");
        sluice_gateway_close(x);
    }
}

static void requests_that_are_not_for_this_key_are_told_apart(void **state)
{
    sluice_buf body = encapsulated(vectors_unhex(INNER), false);
    const sluice_span all = sluice_buf_span(&body);

    (void)state;
    assert_int_equal(opens(all, PLAIN, 7, SECRET), SLUICE_OK);
    assert_int_equal(opens(all, PLAIN, 8, SECRET), SLUICE_ERR_UNSUPPORTED);
    assert_int_equal(opens(all, PLAIN, 7, OTHER_SECRET), SLUICE_ERR_INTEGRITY);
    assert_int_not_equal(opens(all, CHUNKED, 7, SECRET), SLUICE_OK);
    assert_int_equal(opens(all, "application/json", 7, SECRET), SLUICE_ERR_FORMAT);
    assert_int_equal(opens(all, NULL, 7, SECRET), SLUICE_ERR_FORMAT);
    assert_int_equal(opens(SLUICE_SPAN_EMPTY, PLAIN, 7, SECRET), SLUICE_ERR_FORMAT);
    sluice_buf_deinit(&body);
}

static void a_request_touched_or_cut_anywhere_is_refused(void **state)
{
    (void)state;
    for (int is_chunked = 0; is_chunked < 2; is_chunked++) {
        sluice_buf body = encapsulated(vectors_unhex(INNER), is_chunked != 0);

        for (size_t i = 0; i < body.len; i++) {
            /* the top bit of the last byte of enc is not part of the point (RFC 7748 5); but enc is bound into the key schedule as bytes */
            body.ptr[i] ^= 0x80;
            assert_int_not_equal(opens(sluice_buf_span(&body), is_chunked != 0 ? CHUNKED : PLAIN, 7, SECRET), SLUICE_OK);
            body.ptr[i] ^= 0x80;
            assert_int_not_equal(opens(sluice_span_of(body.ptr, i), is_chunked != 0 ? CHUNKED : PLAIN, 7, SECRET), SLUICE_OK);
        }
        sluice_buf_deinit(&body);
    }
}

static void sealed_bytes_that_are_no_request_are_refused(void **state)
{
    static const struct {
        const char *hex;
        sluice_status want;
    } cases[] = {
        { "", SLUICE_ERR_TRUNCATED },
        { "0140c8", SLUICE_ERR_FORMAT },
        { "0003474554", SLUICE_ERR_TRUNCATED },
        { "00034745540568747470730161012f007fff", SLUICE_ERR_LIMIT }, /* more content than there are bytes in the message */
        { "00034745540568747470730161012f000568", SLUICE_ERR_TRUNCATED },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sluice_buf body = encapsulated(vectors_unhex(cases[i].hex), true);
        const sluice_status st = opens(sluice_buf_span(&body), CHUNKED, 7, SECRET);

        if (st != cases[i].want)
            fail_msg("%s: %s", cases[i].hex, sluice_status_name(st));
        sluice_buf_deinit(&body);
    }
}

typedef struct output {
    sluice_buf bytes;
    size_t n_calls, fail_at;
} output;

static sluice_status put(sluice_span bytes, void *user)
{
    output *o = user;

    assert_true(bytes.len > 0);
    if (o->n_calls++ == o->fail_at)
        return SLUICE_ERR_NETWORK;
    assert_true(sluice_buf_append_span(&o->bytes, bytes));
    return SLUICE_OK;
}

static sluice_gateway_exchange *open_exchange(bool is_chunked)
{
    sluice_buf body = encapsulated(vectors_unhex(INNER), is_chunked);
    sluice_gateway_exchange *x;
    sluice_gateway_request http;

    assert_int_equal(sluice_gateway_open(&x, 7, SECRET, is_chunked ? CHUNKED : PLAIN, sluice_buf_span(&body), NULL, &http, NULL), SLUICE_OK);
    sluice_buf_deinit(&body);
    return x;
}

static void plain_answer_leaves_at_its_end_in_one_padded_piece(void **state)
{
    output out = { new_buf(), 0, SIZE_MAX };
    sluice_gateway_exchange *x = open_exchange(false);

    (void)state;
    assert_int_equal(sluice_gateway_respond_begin(x, RANDOM, 200, NULL, 0, put, &out, NULL), SLUICE_OK);
    assert_int_equal(sluice_gateway_respond_body(x, SLUICE_SPAN_LIT("hello"), NULL), SLUICE_OK);
    assert_int_equal(out.n_calls, 0);
    assert_int_equal(sluice_gateway_respond_end(x, NULL), SLUICE_OK);
    assert_int_equal(out.n_calls, 1);
    assert_int_equal(out.bytes.len, 32 + 512 + 16);
    sluice_buf_deinit(&out.bytes);
    sluice_gateway_close(x);
}

static void chunked_answer_leaves_call_by_call(void **state)
{
    output out = { new_buf(), 0, SIZE_MAX };
    sluice_gateway_exchange *x = open_exchange(true);

    (void)state;
    assert_int_equal(sluice_gateway_respond_begin(x, RANDOM, 200, NULL, 0, put, &out, NULL), SLUICE_OK);
    assert_int_equal(out.n_calls, 1);
    assert_int_equal(sluice_gateway_respond_body(x, SLUICE_SPAN_LIT("hello"), NULL), SLUICE_OK);
    assert_int_equal(out.n_calls, 2);
    assert_int_equal(sluice_gateway_respond_body(x, SLUICE_SPAN_EMPTY, NULL), SLUICE_OK);
    assert_int_equal(out.n_calls, 2);
    assert_int_equal(sluice_gateway_respond_end(x, NULL), SLUICE_OK);
    assert_int_equal(out.n_calls, 3);
    sluice_buf_deinit(&out.bytes);
    sluice_gateway_close(x);
}

static void calls_out_of_order_are_refused(void **state)
{
    output out = { new_buf(), 0, SIZE_MAX };
    sluice_gateway_exchange *x = open_exchange(true);

    (void)state;
    assert_int_equal(sluice_gateway_respond_body(x, SLUICE_SPAN_LIT("a"), NULL), SLUICE_ERR_STATE);
    assert_int_equal(sluice_gateway_respond_end(x, NULL), SLUICE_ERR_STATE);
    assert_int_equal(sluice_gateway_respond_begin(x, RANDOM, 200, NULL, 0, put, &out, NULL), SLUICE_OK);
    assert_int_equal(sluice_gateway_respond_begin(x, RANDOM, 200, NULL, 0, put, &out, NULL), SLUICE_ERR_STATE);
    assert_int_equal(sluice_gateway_respond_end(x, NULL), SLUICE_OK);
    assert_int_equal(sluice_gateway_respond_end(x, NULL), SLUICE_ERR_STATE);
    assert_int_equal(sluice_gateway_respond_body(x, SLUICE_SPAN_LIT("a"), NULL), SLUICE_ERR_STATE);
    assert_int_equal(sluice_gateway_respond_begin(x, RANDOM, 200, NULL, 0, put, &out, NULL),
                     SLUICE_ERR_STATE); /* the same nonce twice would be fatal */
    sluice_buf_deinit(&out.bytes);
    sluice_gateway_close(x);
}

static void bad_heads_are_refused_before_anything_leaves(void **state)
{
    static const sluice_gateway_header bad = { { (const uint8_t *)"x", 1 }, { (const uint8_t *)"a\r\nb: c", 7 } };
    output out = { new_buf(), 0, SIZE_MAX };
    sluice_gateway_exchange *x = open_exchange(true);

    (void)state;
    assert_int_equal(sluice_gateway_respond_begin(x, RANDOM, 200, &bad, 1, put, &out, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_gateway_respond_begin(x, RANDOM, 102, NULL, 0, put, &out, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(out.n_calls, 0);
    assert_int_equal(sluice_gateway_respond_begin(x, RANDOM, 500, NULL, 0, put, &out, NULL), SLUICE_OK);
    sluice_buf_deinit(&out.bytes);
    sluice_gateway_close(x);
}

static void an_answer_whose_bytes_could_not_be_sent_is_over(void **state)
{
    (void)state;
    for (size_t fail_at = 0; fail_at < 3; fail_at++) {
        output out = { new_buf(), 0, fail_at };
        sluice_gateway_exchange *x = open_exchange(true);
        sluice_status st = sluice_gateway_respond_begin(x, RANDOM, 200, NULL, 0, put, &out, NULL);

        if (st == SLUICE_OK)
            st = sluice_gateway_respond_body(x, SLUICE_SPAN_LIT("a"), NULL);
        if (st == SLUICE_OK)
            st = sluice_gateway_respond_end(x, NULL);
        assert_int_equal(st, SLUICE_ERR_NETWORK);
        assert_int_equal(sluice_gateway_respond_body(x, SLUICE_SPAN_LIT("a"), NULL), SLUICE_ERR_STATE);
        assert_int_equal(sluice_gateway_respond_end(x, NULL), SLUICE_ERR_STATE);
        sluice_buf_deinit(&out.bytes);
        sluice_gateway_close(x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(key_configuration_is_one_that_clients_select),
        cmocka_unit_test(both_forms_of_a_request_are_opened_and_parsed),
        cmocka_unit_test(requests_that_are_not_for_this_key_are_told_apart),
        cmocka_unit_test(a_request_touched_or_cut_anywhere_is_refused),
        cmocka_unit_test(sealed_bytes_that_are_no_request_are_refused),
        cmocka_unit_test(plain_answer_leaves_at_its_end_in_one_padded_piece),
        cmocka_unit_test(chunked_answer_leaves_call_by_call),
        cmocka_unit_test(calls_out_of_order_are_refused),
        cmocka_unit_test(bad_heads_are_refused_before_anything_leaves),
        cmocka_unit_test(an_answer_whose_bytes_could_not_be_sent_is_over),
    };

    if (sluice_crypto_init(NULL) != SLUICE_OK)
        return 1;
    return cmocka_run_group_tests_name("gateway", tests, NULL, NULL);
}
