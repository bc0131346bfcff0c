/* test_seal.c - seal.c against the real gate on one side and gateway.c on the other
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cloud-adapters/oblivious/seal.h"

#include "cloud-adapters/oblivious/bhttp.h"
#include "cloud-adapters/oblivious/ohttp.h"
#include "sluice/gateway.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"
#include "tests/unit/cloud/gate.h"
#include "tests/unit/cloud/vectors.h"

#define CANARY "canary-5cf3a1"

enum { BYTES_MAX = 1 << 20 };

static const uint8_t RANDOM[32] = { 1, 1, 2, 3, 5, 8 };
static const sluice_gateway_header HEADERS[] = { { { (const uint8_t *)"content-type", 12 }, { (const uint8_t *)"text/event-stream", 17 } } };

static sluice_buf new_buf(void)
{
    sluice_buf b;

    sluice_buf_init(&b, NULL, 1 << 22);
    return b;
}

/* A binary HTTP request with `n` bytes of content, the canary among them. */
static sluice_buf new_request(size_t n)
{
    sluice_buf out = new_buf(), content = new_buf();

    assert_true(sluice_buf_append_str(&content, CANARY));
    while (content.len < n)
        assert_true(sluice_buf_append_byte(&content, 'x'));
    assert_int_equal(sluice_bhttp_request(&out, SLUICE_SPAN_LIT("POST"), SLUICE_SPAN_LIT("https"), SLUICE_SPAN_LIT("api.example"),
                                          SLUICE_SPAN_LIT("/v1"), SLUICE_SPAN_EMPTY, sluice_buf_span(&content), NULL),
                     SLUICE_OK);
    sluice_buf_deinit(&content);
    return out;
}

static sluice_status to_buf(sluice_span bytes, void *user)
{
    assert_true(sluice_buf_append_span(user, bytes));
    return SLUICE_OK;
}

/* One exchange: the sealed request, its opener, and the gateway that has opened it. */
typedef struct exchange {
    sluice_envelope *envelope;
    sluice_answer_opener *opener;
    sluice_gateway_exchange *gateway;
    sluice_gateway_request http;
    sluice_buf answer; /* sealed */
} exchange;

static test_gate shared; /* one ledger for all exchanges: each grant is an entry in it, and synced */

static void exchange_open(exchange *x, bool is_streamed)
{
    sluice_buf request = new_request(100);
    sluice_grant *grant;

    grant = test_gate_grant(&shared, sluice_buf_span(&request));
    assert_int_equal(sluice_seal(grant, sluice_buf_span(&request), is_streamed, &shared.fp.platform, NULL, &x->envelope, &x->opener, NULL),
                     SLUICE_OK);
    sluice_grant_close(grant);
    assert_int_equal(sluice_gateway_open(&x->gateway, 7, TEST_GATEWAY_SECRET, sluice_envelope_content_type(x->envelope),
                                         sluice_envelope_bytes(x->envelope), NULL, &x->http, NULL),
                     SLUICE_OK);
    x->answer = new_buf();
    assert_int_equal(sluice_gateway_respond_begin(x->gateway, RANDOM, 200, HEADERS, 1, to_buf, &x->answer, NULL), SLUICE_OK);
    assert_int_equal(sluice_gateway_respond_body(x->gateway, SLUICE_SPAN_LIT("data: one\n\n"), NULL), SLUICE_OK);
    assert_int_equal(sluice_gateway_respond_body(x->gateway, SLUICE_SPAN_LIT("data: two\n\n"), NULL), SLUICE_OK);
    assert_int_equal(sluice_gateway_respond_end(x->gateway, NULL), SLUICE_OK);
    sluice_buf_deinit(&request);
}

static void exchange_close(exchange *x)
{
    sluice_envelope_close(x->envelope);
    sluice_answer_close(x->opener);
    sluice_gateway_close(x->gateway);
    sluice_buf_deinit(&x->answer);
}

static bool write_down(const sluice_answer_event *e, void *user)
{
    sluice_buf *log = user;

    switch (e->part) {
    case SLUICE_ANSWER_STATUS: return sluice_buf_appendf(log, "%d|", e->http_status);
    case SLUICE_ANSWER_HEADER:
        return sluice_buf_append_span(log, e->name) && sluice_buf_append_str(log, "=") && sluice_buf_append_span(log, e->value) &&
               sluice_buf_append_str(log, "|");
    case SLUICE_ANSWER_BODY: return sluice_buf_append_span(log, e->body);
    case SLUICE_ANSWER_END: return sluice_buf_append_str(log, "|end");
    }
    return false;
}

#define WANT "200|content-type=text/event-stream|data: one\n\ndata: two\n\n|end"

static sluice_span response_type(const exchange *x)
{
    return sluice_span_str(sluice_gateway_response_type(x->gateway));
}

/* A fresh exchange's answer, bent by the caller before: feed in pieces of `step`, then finish. */
static sluice_status read_answer(exchange *x, sluice_span bytes, size_t step, sluice_buf *log)
{
    sluice_status st = sluice_answer_begin(x->opener, response_type(x), BYTES_MAX, write_down, log, NULL);

    for (size_t at = 0; st == SLUICE_OK && at < bytes.len; at += step)
        st = sluice_answer_feed(x->opener, sluice_span_of(bytes.ptr + at, bytes.len - at < step ? bytes.len - at : step), NULL);
    return st == SLUICE_OK ? sluice_answer_finish(x->opener, NULL) : st;
}

static void gateway_gets_what_was_sealed(void **state)
{
    (void)state;
    for (int is_streamed = 0; is_streamed < 2; is_streamed++) {
        exchange x;

        exchange_open(&x, is_streamed != 0);
        assert_span_equal(x.http.method, SLUICE_SPAN_LIT("POST"));
        assert_span_equal(x.http.authority, SLUICE_SPAN_LIT("api.example"));
        assert_span_equal(x.http.path, SLUICE_SPAN_LIT("/v1"));
        assert_int_equal(x.http.body.len, 100);
        assert_memory_equal(x.http.body.ptr, CANARY, strlen(CANARY));
        assert_int_equal(x.http.is_chunked, is_streamed != 0);
        assert_string_equal(sluice_envelope_content_type(x.envelope), is_streamed != 0 ? "message/ohttp-chunked-req" : "message/ohttp-req");
        assert_string_equal(sluice_envelope_destination(x.envelope)->url, "https://gw.example/");
        exchange_close(&x);
    }
}

static void envelope_has_the_size_of_its_class_and_no_plaintext(void **state)
{
    static const struct {
        size_t content, sealed;
        bool is_streamed;
    } cases[] = {
        { 20, 39 + 512 + 16, false },
        { 300, 39 + 512 + 16, false },
        { 500, 39 + 1024 + 16, false },
        { 20, 39 + 1 + 512 + 16, true },
        { 20000, 39 + 4 + 16384 + 1 + (20480 - 16368) + 16, true },
    };
    test_gate g;

    (void)state;
    test_gate_open(&g, SLUICE_SPAN_EMPTY);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sluice_buf request = new_request(cases[i].content);
        sluice_grant *grant = test_gate_grant(&g, sluice_buf_span(&request));
        sluice_envelope *e;
        sluice_answer_opener *o;
        sluice_span bytes;

        assert_int_equal(sluice_seal(grant, sluice_buf_span(&request), cases[i].is_streamed, &g.fp.platform, NULL, &e, &o, NULL), SLUICE_OK);
        bytes = sluice_envelope_bytes(e);
        assert_int_equal(bytes.len, cases[i].sealed);
        for (size_t at = 0; at + strlen(CANARY) <= bytes.len; at++)
            assert_memory_not_equal(bytes.ptr + at, CANARY, strlen(CANARY));
        sluice_envelope_close(e);
        sluice_answer_close(o);
        sluice_grant_close(grant);
        sluice_buf_deinit(&request);
    }
    test_gate_close(&g);
}

static void no_envelope_without_a_grant_that_fits(void **state)
{
    sluice_buf request = new_request(50), other = new_request(51);
    sluice_envelope *e = NULL;
    sluice_answer_opener *o = NULL;
    sluice_grant *grant;
    test_gate g;

    (void)state;
    test_gate_open(&g, SLUICE_SPAN_EMPTY);
    assert_int_equal(sluice_seal(NULL, sluice_buf_span(&request), false, &g.fp.platform, NULL, &e, &o, NULL), SLUICE_ERR_ARGUMENT);
    grant = test_gate_grant(&g, sluice_buf_span(&request));
    assert_int_equal(sluice_seal(grant, sluice_buf_span(&other), false, &g.fp.platform, NULL, &e, &o, NULL), SLUICE_ERR_INTEGRITY);
    assert_null(e);
    assert_null(o);
    assert_int_equal(sluice_seal(grant, sluice_buf_span(&request), false, &g.fp.platform, NULL, &e, &o, NULL), SLUICE_ERR_STATE);
    sluice_grant_close(grant);
    grant = test_gate_grant(&g, sluice_buf_span(&request));
    fake_platform_advance_us(&g.fp, 10000000);
    assert_int_equal(sluice_seal(grant, sluice_buf_span(&request), false, &g.fp.platform, NULL, &e, &o, NULL), SLUICE_ERR_TIMEOUT);
    assert_null(e);
    sluice_grant_close(grant);
    sluice_buf_deinit(&request);
    sluice_buf_deinit(&other);
    test_gate_close(&g);
}

static void a_bad_key_configuration_or_no_randomness_gives_no_envelope_and_spends_the_grant(void **state)
{
    static const struct {
        const char *config;
        sluice_status want;
        bool no_random;
    } cases[] = {
        { "00050700200102", SLUICE_ERR_FORMAT, false },
        { "00290700200000000000000000000000000000000000000000000000000000000000000000000400010003", SLUICE_ERR_INTEGRITY,
          false }, /* the zero point */
        { "0029070020aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa000400010001", SLUICE_ERR_UNSUPPORTED, false },
        { "0029070020aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa000400010003", SLUICE_ERR_IO, true },
    };
    sluice_buf request = new_request(50);

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sluice_envelope *e = NULL;
        sluice_answer_opener *o = NULL;
        sluice_grant *grant;
        test_gate g;

        test_gate_open(&g, vectors_unhex(cases[i].config));
        grant = test_gate_grant(&g, sluice_buf_span(&request));
        if (cases[i].no_random)
            fake_platform_fail(&g.fp, FAKE_RANDOM, 0);
        assert_int_equal(sluice_seal(grant, sluice_buf_span(&request), false, &g.fp.platform, NULL, &e, &o, NULL), cases[i].want);
        assert_null(e);
        assert_null(o);
        assert_int_equal(sluice_grant_spend(grant, sluice_buf_span(&request), 0, NULL), SLUICE_ERR_STATE);
        sluice_grant_close(grant);
        test_gate_close(&g);
    }
    sluice_buf_deinit(&request);
}

static void answer_is_the_same_wherever_it_is_cut(void **state)
{
    (void)state;
    for (int is_streamed = 0; is_streamed < 2; is_streamed++) {
        for (size_t step = 1; step < 700; step = step < 70 ? step + 1 : step * 3) {
            sluice_buf log = new_buf();
            exchange x;

            exchange_open(&x, is_streamed != 0);
            assert_int_equal(read_answer(&x, sluice_buf_span(&x.answer), step, &log), SLUICE_OK);
            assert_span_equal(sluice_buf_span(&log), SLUICE_SPAN_LIT(WANT));
            assert_int_equal(sluice_answer_feed(x.opener, SLUICE_SPAN_LIT("x"), NULL), SLUICE_ERR_STATE);
            assert_int_equal(sluice_answer_begin(x.opener, response_type(&x), 1, write_down, &log, NULL), SLUICE_ERR_STATE);
            sluice_buf_deinit(&log);
            exchange_close(&x);
        }
    }
}

static void chunks_are_delivered_as_they_verify_and_a_plain_answer_at_its_end(void **state)
{
    (void)state;
    for (int is_streamed = 0; is_streamed < 2; is_streamed++) {
        sluice_buf log = new_buf();
        exchange x;

        exchange_open(&x, is_streamed != 0);
        assert_int_equal(sluice_answer_begin(x.opener, response_type(&x), BYTES_MAX, write_down, &log, NULL), SLUICE_OK);
        assert_int_equal(sluice_answer_feed(x.opener, sluice_span_of(x.answer.ptr, x.answer.len - 1), NULL), SLUICE_OK);
        if (is_streamed != 0)
            assert_span_equal(sluice_buf_span(&log), sluice_span_of(WANT, strlen(WANT) - 4)); /* all but the end */
        else
            assert_int_equal(log.len, 0);
        sluice_buf_deinit(&log);
        exchange_close(&x);
    }
}

static bool has_end(const sluice_buf *log)
{
    return log->len >= 4 && memcmp(log->ptr + log->len - 4, "|end", 4) == 0;
}

static void an_answer_cut_anywhere_never_ends_well(void **state)
{
    (void)state;
    for (int is_streamed = 0; is_streamed < 2; is_streamed++) {
        size_t len = 0;

        for (bool more = true; more; len += is_streamed != 0 ? 1 : 29) {
            sluice_buf log = new_buf();
            sluice_status st;
            exchange x;

            exchange_open(&x, is_streamed != 0);
            more = len < x.answer.len;
            if (more) {
                st = read_answer(&x, sluice_span_of(x.answer.ptr, len), 16, &log);
                assert_true(st == SLUICE_ERR_TRUNCATED || st == SLUICE_ERR_INTEGRITY);
                assert_false(has_end(&log));
            }
            sluice_buf_deinit(&log);
            exchange_close(&x);
        }
    }
}

static void an_answer_touched_anywhere_never_ends_well(void **state)
{
    (void)state;
    for (int is_streamed = 0; is_streamed < 2; is_streamed++) {
        size_t at = 0;

        for (bool more = true; more; at += is_streamed != 0 ? 1 : 29) {
            sluice_buf log = new_buf();
            exchange x;

            exchange_open(&x, is_streamed != 0);
            more = at < x.answer.len;
            if (more) {
                x.answer.ptr[at] ^= 0x04;
                assert_int_not_equal(read_answer(&x, sluice_buf_span(&x.answer), x.answer.len, &log), SLUICE_OK);
                assert_false(has_end(&log));
            }
            sluice_buf_deinit(&log);
            exchange_close(&x);
        }
    }
}

static void the_answer_to_another_request_is_refused(void **state)
{
    sluice_buf log = new_buf();
    exchange x, y;

    (void)state;
    exchange_open(&x, true);
    exchange_open(&y, true);
    assert_int_equal(read_answer(&y, sluice_buf_span(&x.answer), x.answer.len, &log), SLUICE_ERR_INTEGRITY);
    assert_int_equal(log.len, 0);
    sluice_buf_deinit(&log);
    exchange_close(&x);
    exchange_close(&y);
}

static void only_the_content_type_of_the_requests_own_form_is_taken(void **state)
{
    static const struct {
        bool is_streamed;
        const char *type;
        sluice_status want;
    } cases[] = {
        { false, "message/ohttp-res", SLUICE_OK },
        { false, "Message/OHTTP-Res; charset=x", SLUICE_OK },
        { false, "message/ohttp-chunked-res", SLUICE_ERR_FORMAT },
        { false, "message/ohttp-resx", SLUICE_ERR_FORMAT },
        { false, "application/problem+json", SLUICE_ERR_FORMAT },
        { false, "", SLUICE_ERR_FORMAT },
        { true, "message/ohttp-chunked-res", SLUICE_OK },
        { true, "message/ohttp-res", SLUICE_ERR_FORMAT }, /* no fallback to the plain form */
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sluice_buf log = new_buf();
        exchange x;

        exchange_open(&x, cases[i].is_streamed);
        if (sluice_answer_begin(x.opener, sluice_span_str(cases[i].type), BYTES_MAX, write_down, &log, NULL) != cases[i].want)
            fail_msg("%s", cases[i].type);
        if (cases[i].want != SLUICE_OK)
            assert_int_equal(sluice_answer_finish(x.opener, NULL), SLUICE_ERR_STATE);
        sluice_buf_deinit(&log);
        exchange_close(&x);
    }
}

static void an_answer_longer_than_its_limit_is_refused(void **state)
{
    (void)state;
    for (int is_streamed = 0; is_streamed < 2; is_streamed++) {
        sluice_buf log = new_buf();
        exchange x;

        exchange_open(&x, is_streamed != 0);
        assert_int_equal(sluice_answer_begin(x.opener, response_type(&x), x.answer.len - 1, write_down, &log, NULL), SLUICE_OK);
        assert_int_equal(sluice_answer_feed(x.opener, sluice_buf_span(&x.answer), NULL), SLUICE_ERR_LIMIT);
        assert_int_equal(sluice_answer_finish(x.opener, NULL), SLUICE_ERR_STATE);
        assert_int_equal(log.len, 0);
        sluice_buf_deinit(&log);
        exchange_close(&x);
    }
}

static bool stop_at_body(const sluice_answer_event *e, void *user)
{
    (void)user;
    return e->part != SLUICE_ANSWER_BODY;
}

static void receiver_can_stop_an_answer(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;
    exchange x;

    (void)state;
    exchange_open(&x, true);
    assert_int_equal(sluice_answer_begin(x.opener, response_type(&x), BYTES_MAX, stop_at_body, NULL, NULL), SLUICE_OK);
    assert_int_equal(sluice_answer_feed(x.opener, sluice_buf_span(&x.answer), &err), SLUICE_ERR_CANCELLED);
    assert_int_equal(err.status, SLUICE_ERR_CANCELLED);
    assert_int_equal(sluice_answer_finish(x.opener, NULL), SLUICE_ERR_STATE);
    exchange_close(&x);
}

/* Answer `x` with these inner bytes, sealed properly. */
static void seal_answer(exchange *x, sluice_span inner)
{
    sluice_ohttp server;
    sluice_hpke keys;

    assert_int_equal(sluice_ohttp_gateway_begin(&server, 7, TEST_GATEWAY_SECRET, &sluice_hpke_chacha20, x->http.is_chunked,
                                                sluice_envelope_bytes(x->envelope), NULL),
                     SLUICE_OK);
    assert_true(sluice_ohttp_response_begin(&keys, &server, RANDOM));
    sluice_buf_clear(&x->answer);
    assert_true(sluice_buf_append(&x->answer, RANDOM, 32));
    assert_int_equal(sluice_ohttp_chunks(&keys, inner, true, &x->answer, NULL), SLUICE_OK);
}

static void informational_responses_and_trailers_are_left_out(void **state)
{
    sluice_buf log = new_buf();
    exchange x;

    (void)state;
    exchange_open(&x, true);
    /* 103 with a header, 200 with another, content "hi", a trailer */
    seal_answer(&x, vectors_unhex("03406701610161"
                                  "00"
                                  "40c801620162"
                                  "00"
                                  "026869"
                                  "00"
                                  "0174017400"));
    assert_int_equal(read_answer(&x, sluice_buf_span(&x.answer), 1, &log), SLUICE_OK);
    assert_span_equal(sluice_buf_span(&log), SLUICE_SPAN_LIT("200|b=b|hi|end"));
    sluice_buf_deinit(&log);
    exchange_close(&x);
}

static void sealed_bytes_that_are_no_whole_response_are_refused(void **state)
{
    static const struct {
        const char *hex;
        sluice_status want;
    } cases[] = {
        { "", SLUICE_ERR_TRUNCATED },
        { "0340c80000", SLUICE_OK },
        { "0340c80002", SLUICE_ERR_TRUNCATED },
        { "0340c8000161", SLUICE_ERR_TRUNCATED },
        { "07", SLUICE_ERR_FORMAT },
        { "0340c80002686900000001", SLUICE_ERR_FORMAT },
        { "00034745540568747470730161012f", SLUICE_ERR_FORMAT },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sluice_buf log = new_buf();
        exchange x;

        exchange_open(&x, true);
        seal_answer(&x, vectors_unhex(cases[i].hex));
        if (read_answer(&x, sluice_buf_span(&x.answer), 3, &log) != cases[i].want || has_end(&log) != (cases[i].want == SLUICE_OK))
            fail_msg("%s", cases[i].hex);
        sluice_buf_deinit(&log);
        exchange_close(&x);
    }
}

static void sealing_and_opening_leave_no_plaintext_in_freed_memory(void **state)
{
    sluice_buf request = new_request(3000);
    sluice_envelope *e;
    sluice_answer_opener *o;
    sluice_gateway_exchange *x;
    sluice_gateway_request http;
    sluice_grant *grant;
    fake_allocator fa;
    test_gate g;
    sluice_buf answer = new_buf(), log = new_buf();

    (void)state;
    test_gate_open(&g, SLUICE_SPAN_EMPTY);
    fake_allocator_init(&fa);
    fa.canary = CANARY;
    grant = test_gate_grant(&g, sluice_buf_span(&request));
    assert_int_equal(sluice_seal(grant, sluice_buf_span(&request), true, &g.fp.platform, &fa.al, &e, &o, NULL), SLUICE_OK);
    assert_int_equal(sluice_gateway_open(&x, 7, TEST_GATEWAY_SECRET, sluice_envelope_content_type(e), sluice_envelope_bytes(e), &fa.al, &http, NULL),
                     SLUICE_OK);
    assert_int_equal(sluice_gateway_respond_begin(x, RANDOM, 200, NULL, 0, to_buf, &answer, NULL), SLUICE_OK);
    assert_int_equal(sluice_gateway_respond_body(x, http.body, NULL), SLUICE_OK);
    assert_int_equal(sluice_gateway_respond_end(x, NULL), SLUICE_OK);
    assert_int_equal(sluice_answer_begin(o, SLUICE_SPAN_LIT("message/ohttp-chunked-res"), BYTES_MAX, write_down, &log, NULL), SLUICE_OK);
    assert_int_equal(sluice_answer_feed(o, sluice_buf_span(&answer), NULL), SLUICE_OK);
    assert_int_equal(sluice_answer_finish(o, NULL), SLUICE_OK);
    sluice_gateway_close(x);
    sluice_envelope_close(e);
    sluice_answer_close(o);
    sluice_grant_close(grant);
    assert_true(fake_allocator_is_clean(&fa));
    assert_int_equal(fa.n_canaries_freed, 0);
    sluice_buf_deinit(&answer);
    sluice_buf_deinit(&log);
    sluice_buf_deinit(&request);
    test_gate_close(&g);
}

static int open_shared_gate(void **state)
{
    (void)state;
    test_gate_open(&shared, SLUICE_SPAN_EMPTY);
    return 0;
}

static int close_shared_gate(void **state)
{
    (void)state;
    test_gate_close(&shared);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gateway_gets_what_was_sealed),
        cmocka_unit_test(envelope_has_the_size_of_its_class_and_no_plaintext),
        cmocka_unit_test(no_envelope_without_a_grant_that_fits),
        cmocka_unit_test(a_bad_key_configuration_or_no_randomness_gives_no_envelope_and_spends_the_grant),
        cmocka_unit_test(answer_is_the_same_wherever_it_is_cut),
        cmocka_unit_test(chunks_are_delivered_as_they_verify_and_a_plain_answer_at_its_end),
        cmocka_unit_test(an_answer_cut_anywhere_never_ends_well),
        cmocka_unit_test(an_answer_touched_anywhere_never_ends_well),
        cmocka_unit_test(the_answer_to_another_request_is_refused),
        cmocka_unit_test(only_the_content_type_of_the_requests_own_form_is_taken),
        cmocka_unit_test(an_answer_longer_than_its_limit_is_refused),
        cmocka_unit_test(receiver_can_stop_an_answer),
        cmocka_unit_test(informational_responses_and_trailers_are_left_out),
        cmocka_unit_test(sealed_bytes_that_are_no_whole_response_are_refused),
        cmocka_unit_test(sealing_and_opening_leave_no_plaintext_in_freed_memory),
    };

    return cmocka_run_group_tests_name("seal", tests, open_shared_gate, close_shared_gate);
}
