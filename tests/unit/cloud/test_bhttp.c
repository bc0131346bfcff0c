/* test_bhttp.c - bhttp.c against RFC 9292's examples; splits, truncation, and what it must refuse
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cloud-adapters/oblivious/bhttp.h"
#include "tests/support/cm.h"
#include "tests/unit/cloud/vectors.h"

enum { CONTENT_MAX = 4096 };

static sluice_buf new_buf(void)
{
    sluice_buf b;

    sluice_buf_init(&b, NULL, 1 << 20);
    return b;
}

/* Events as text: content pieces run together, so that two readings can be compared whatever the cuts. */
static sluice_status write_down(const sluice_bhttp_event *e, void *user)
{
    sluice_buf *log = user;
    bool ok = true;

    switch (e->part) {
    case SLUICE_BHTTP_REQUEST:
        ok = sluice_buf_append_span(log, e->method) && sluice_buf_append_str(log, " ") && sluice_buf_append_span(log, e->scheme) &&
             sluice_buf_append_str(log, " ") && sluice_buf_append_span(log, e->authority) && sluice_buf_append_str(log, " ") &&
             sluice_buf_append_span(log, e->path) && sluice_buf_append_str(log, "\n");
        break;
    case SLUICE_BHTTP_STATUS: ok = sluice_buf_appendf(log, "%d\n", e->http_status); break;
    case SLUICE_BHTTP_HEADER:
    case SLUICE_BHTTP_TRAILER:
        ok = sluice_buf_append_str(log, e->part == SLUICE_BHTTP_HEADER ? "" : "T ") && sluice_buf_append_span(log, e->name) &&
             sluice_buf_append_str(log, ": ") && sluice_buf_append_span(log, e->value) && sluice_buf_append_str(log, "\n");
        break;
    case SLUICE_BHTTP_BODY:
        assert_true(e->body.len > 0);
        ok = sluice_buf_append_span(log, e->body);
        break;
    }
    return ok ? SLUICE_OK : SLUICE_ERR_NO_MEMORY;
}

static sluice_status read_steps(sluice_bhttp_kind kind, sluice_span bytes, size_t step, sluice_buf *log, sluice_error *err)
{
    const sluice_bhttp_limits limits = { 0, 0, CONTENT_MAX };
    sluice_bhttp_reader r;
    sluice_status st = SLUICE_OK;

    sluice_bhttp_reader_init(&r, kind, &limits, NULL, write_down, log);
    for (size_t at = 0; st == SLUICE_OK && at < bytes.len; at += step)
        st = sluice_bhttp_reader_feed(&r, sluice_span_of(bytes.ptr + at, bytes.len - at < step ? bytes.len - at : step), err);
    if (st == SLUICE_OK)
        st = sluice_bhttp_reader_finish(&r, err);
    sluice_bhttp_reader_deinit(&r);
    return st;
}

static sluice_status reads_as(sluice_bhttp_kind kind, sluice_span bytes, const char *want)
{
    sluice_buf log = new_buf();
    const sluice_status st = read_steps(kind, bytes, bytes.len > 0 ? bytes.len : 1, &log, NULL);

    if (st == SLUICE_OK && !sluice_span_eq_str(sluice_buf_span(&log), want))
        fail_msg("read \"%.*s\"", (int)log.len, (const char *)log.ptr);
    sluice_buf_deinit(&log);
    return st;
}

static const char *const EXAMPLES[] = {
    "GET https  /hello.txt\nuser-agent: curl/7.16.3 libcurl/7.16.3 OpenSSL/0.9.7l zlib/1.2.3\nhost: www.example.com\naccept-language: en, mi\n",
    "GET https  /hello.txt\nuser-agent: curl/7.16.3 libcurl/7.16.3 OpenSSL/0.9.7l zlib/1.2.3\nhost: www.example.com\naccept-language: en, mi\n",
    "102\nrunning: \"sleep 15\"\n103\nlink: </style.css>; rel=preload; as=style\nlink: </script.js>; rel=preload; as=script\n"
    "200\ndate: Mon, 27 Jul 2009 12:28:53 GMT\nserver: Apache\nlast-modified: Wed, 22 Jul 2009 19:15:56 GMT\netag: \"34aa387-d-1568eb00\"\n"
    "accept-ranges: bytes\ncontent-length: 51\nvary: Accept-Encoding\ncontent-type: text/plain\nHello World! My content includes a trailing "
    "CRLF.\r\n",
    "200\nThis content contains CRLF.\r\nT trailer: text\n",
};

static void examples_of_rfc9292_are_read_wherever_they_are_cut(void **state)
{
    sluice_json_doc *doc = vectors_open("rfc9292-examples.json");
    sluice_buf log = new_buf();
    size_t i = 0;

    (void)state;
    for (const sluice_json *v = sluice_json_get(sluice_json_root(doc), "binary")->child; v != NULL; v = v->next, i++) {
        const sluice_span bytes = vectors_bytes(v, "hex");

        for (size_t step = 1; step <= bytes.len; step++) {
            sluice_buf_clear(&log);
            assert_int_equal(read_steps(i < 2 ? SLUICE_BHTTP_IS_REQUEST : SLUICE_BHTTP_IS_RESPONSE, bytes, step, &log, NULL), SLUICE_OK);
            assert_span_equal(sluice_buf_span(&log), sluice_span_str(EXAMPLES[i]));
        }
    }
    assert_int_equal(i, 4);
    sluice_buf_deinit(&log);
    sluice_json_close(doc);
}

static void known_length_examples_are_written_byte_for_byte(void **state)
{
    sluice_json_doc *doc = vectors_open("rfc9292-examples.json");
    const sluice_json *v = sluice_json_get(sluice_json_root(doc), "binary")->child;
    sluice_buf out = new_buf(), fields = new_buf();

    (void)state;
    assert_int_equal(
        sluice_bhttp_field(&fields, SLUICE_SPAN_LIT("user-agent"), SLUICE_SPAN_LIT("curl/7.16.3 libcurl/7.16.3 OpenSSL/0.9.7l zlib/1.2.3"), NULL), 0);
    assert_int_equal(sluice_bhttp_field(&fields, SLUICE_SPAN_LIT("host"), SLUICE_SPAN_LIT("www.example.com"), NULL), 0);
    assert_int_equal(sluice_bhttp_field(&fields, SLUICE_SPAN_LIT("accept-language"), SLUICE_SPAN_LIT("en, mi"), NULL), 0);
    assert_int_equal(sluice_bhttp_request(&out, SLUICE_SPAN_LIT("GET"), SLUICE_SPAN_LIT("https"), SLUICE_SPAN_EMPTY, SLUICE_SPAN_LIT("/hello.txt"),
                                          sluice_buf_span(&fields), SLUICE_SPAN_EMPTY, NULL),
                     SLUICE_OK);
    assert_span_equal(sluice_buf_span(&out), vectors_bytes(v, "hex"));
    sluice_buf_deinit(&out);
    sluice_buf_deinit(&fields);
    sluice_json_close(doc);
}

static void indeterminate_response_is_read_as_it_is_written(void **state)
{
    sluice_buf out = new_buf(), fields = new_buf();

    (void)state;
    assert_int_equal(sluice_bhttp_field(&fields, SLUICE_SPAN_LIT("content-type"), SLUICE_SPAN_LIT("text/event-stream"), NULL), SLUICE_OK);
    assert_int_equal(sluice_bhttp_response_head(&out, 200, sluice_buf_span(&fields), NULL), SLUICE_OK);
    assert_int_equal(sluice_bhttp_chunk(&out, SLUICE_SPAN_LIT("data: a\n\n"), NULL), SLUICE_OK);
    assert_int_equal(sluice_bhttp_chunk(&out, SLUICE_SPAN_EMPTY, NULL), SLUICE_OK);
    assert_int_equal(sluice_bhttp_chunk(&out, SLUICE_SPAN_LIT("data: b\n\n"), NULL), SLUICE_OK);
    assert_int_equal(sluice_bhttp_end(&out, NULL), SLUICE_OK);
    assert_int_equal(reads_as(SLUICE_BHTTP_IS_RESPONSE, sluice_buf_span(&out), "200\ncontent-type: text/event-stream\ndata: a\n\ndata: b\n\n"),
                     SLUICE_OK);
    sluice_buf_deinit(&out);
    sluice_buf_deinit(&fields);
}

static void empty_parts_may_be_missing_and_zeros_may_follow(void **state)
{
    static const struct {
        sluice_bhttp_kind kind;
        const char *hex, *want;
    } cases[] = {
        { SLUICE_BHTTP_IS_RESPONSE, "0140c8", "200\n" },
        { SLUICE_BHTTP_IS_RESPONSE, "0140c80000000000", "200\n" },
        { SLUICE_BHTTP_IS_RESPONSE, "0140c800016100000000", "200\na" },
        { SLUICE_BHTTP_IS_RESPONSE, "0140c8000161", "200\na" },
        { SLUICE_BHTTP_IS_RESPONSE, "0340c8", "200\n" },
        { SLUICE_BHTTP_IS_RESPONSE, "0340c80161016200", "200\na: b\n" },
        { SLUICE_BHTTP_IS_RESPONSE, "0340c800016100", "200\na" },
        { SLUICE_BHTTP_IS_RESPONSE, "0340c80001610000000000", "200\na" },
        { SLUICE_BHTTP_IS_RESPONSE, "014067004067000140c8", NULL },
        { SLUICE_BHTTP_IS_REQUEST, "00034745540568747470730161012f", "GET https a /\n" },
        { SLUICE_BHTTP_IS_REQUEST, "02034745540568747470730161012f000000", "GET https a /\n" },
        { SLUICE_BHTTP_IS_REQUEST, "4000034745540568747470738000000161012f", "GET https a /\n" }, /* integers need not be short */
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (reads_as(cases[i].kind, vectors_unhex(cases[i].hex), cases[i].want != NULL ? cases[i].want : "") !=
            (cases[i].want != NULL ? SLUICE_OK : SLUICE_ERR_FORMAT))
            fail_msg("%s", cases[i].hex);
}

static void a_message_that_breaks_off_is_truncated(void **state)
{
    static const struct {
        const char *why, *hex;
    } cases[] = {
        { "nothing", "" },
        { "framing alone", "01" },
        { "half a status", "0140" },
        { "an informational response alone", "01406600" },
        { "an informational response alone, section missing", "014066" },
        { "inside the field section", "0140c8040161" },
        { "inside known-length content", "0140c8000361" },
        { "fields without their end", "0340c801610162" },
        { "content without its end", "0340c8000161" },
        { "inside a chunk", "0340c8000361" },
        { "trailers without their end", "0340c80001610001610162" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (reads_as(SLUICE_BHTTP_IS_RESPONSE, vectors_unhex(cases[i].hex), "") != SLUICE_ERR_TRUNCATED)
            fail_msg("%s", cases[i].why);
}

static void malformed_messages_are_refused_with_the_same_place_for_any_cut(void **state)
{
    static const struct {
        const char *why, *hex;
        sluice_bhttp_kind kind;
        sluice_status want;
    } cases[] = {
        { "unknown framing", "04", SLUICE_BHTTP_IS_REQUEST, SLUICE_ERR_FORMAT },
        { "a response for a request", "0140c8", SLUICE_BHTTP_IS_REQUEST, SLUICE_ERR_FORMAT },
        { "a request for a response", "00034745540568747470730161012f", SLUICE_BHTTP_IS_RESPONSE, SLUICE_ERR_FORMAT },
        { "status 99", "014063", SLUICE_BHTTP_IS_RESPONSE, SLUICE_ERR_FORMAT },
        { "status 600", "014258", SLUICE_BHTTP_IS_RESPONSE, SLUICE_ERR_FORMAT },
        { "upper-case name", "0140c80401410161", SLUICE_BHTTP_IS_RESPONSE, SLUICE_ERR_FORMAT },
        { "pseudo-field", "0140c805023a610161", SLUICE_BHTTP_IS_RESPONSE, SLUICE_ERR_FORMAT },
        { "empty name", "0140c803000161", SLUICE_BHTTP_IS_RESPONSE, SLUICE_ERR_FORMAT },
        { "CR in a value", "0140c806016103620d63", SLUICE_BHTTP_IS_RESPONSE, SLUICE_ERR_FORMAT },
        { "LF in a value", "0340c8016103620a6300", SLUICE_BHTTP_IS_RESPONSE, SLUICE_ERR_FORMAT },
        { "NUL in a value", "0140c8050161020061", SLUICE_BHTTP_IS_RESPONSE, SLUICE_ERR_FORMAT },
        { "blank before a value", "0140c8050161022061", SLUICE_BHTTP_IS_RESPONSE, SLUICE_ERR_FORMAT },
        { "a name that crosses its section", "0140c80209616161616161616161", SLUICE_BHTTP_IS_RESPONSE, SLUICE_ERR_FORMAT },
        { "a value that crosses its section", "0140c8030161026161", SLUICE_BHTTP_IS_RESPONSE, SLUICE_ERR_FORMAT },
        { "padding that is not zero", "0140c80000000001", SLUICE_BHTTP_IS_RESPONSE, SLUICE_ERR_FORMAT },
        { "content above the limit", "0140c8005001", SLUICE_BHTTP_IS_RESPONSE, SLUICE_ERR_LIMIT },
        { "chunks above the limit", "0340c80001615000", SLUICE_BHTTP_IS_RESPONSE, SLUICE_ERR_LIMIT },
        { "a section of 2^62 - 1", "0140c8ffffffffffffffff", SLUICE_BHTTP_IS_RESPONSE, SLUICE_ERR_LIMIT },
        { "a name of 2^62 - 1", "0340c8ffffffffffffffff", SLUICE_BHTTP_IS_RESPONSE, SLUICE_ERR_LIMIT },
        { "content of 2^62 - 1", "0140c800ffffffffffffffff", SLUICE_BHTTP_IS_RESPONSE, SLUICE_ERR_LIMIT },
        { "blank in the path", "000347455405687474707301610320612f", SLUICE_BHTTP_IS_REQUEST, SLUICE_ERR_FORMAT },
        { "path without slash", "00034745540568747470730161026162", SLUICE_BHTTP_IS_REQUEST, SLUICE_ERR_FORMAT },
        { "empty method", "000005687474707301610161", SLUICE_BHTTP_IS_REQUEST, SLUICE_ERR_FORMAT },
        { "CR in the authority", "0003474554056874747073010d012f", SLUICE_BHTTP_IS_REQUEST, SLUICE_ERR_FORMAT },
    };
    sluice_buf log = new_buf();

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const sluice_span bytes = vectors_unhex(cases[i].hex);
        sluice_error whole = SLUICE_ERROR_INIT, cut = SLUICE_ERROR_INIT;

        if (read_steps(cases[i].kind, bytes, bytes.len, &log, &whole) != cases[i].want ||
            read_steps(cases[i].kind, bytes, 1, &log, &cut) != cases[i].want)
            fail_msg("%s: %d", cases[i].why, whole.status);
        if (whole.offset != cut.offset || !whole.has_offset)
            fail_msg("%s: the place depends on the cut", cases[i].why);
    }
    sluice_buf_deinit(&log);
}

static void a_refused_message_stays_refused(void **state)
{
    sluice_buf log = new_buf();
    sluice_bhttp_reader r;

    (void)state;
    sluice_bhttp_reader_init(&r, SLUICE_BHTTP_IS_RESPONSE, NULL, NULL, write_down, &log);
    assert_int_equal(sluice_bhttp_reader_feed(&r, SLUICE_SPAN_LIT("\x04"), NULL), SLUICE_ERR_FORMAT);
    assert_int_equal(sluice_bhttp_reader_feed(&r, SLUICE_SPAN_LIT("\x01\x40\xc8"), NULL), SLUICE_ERR_FORMAT);
    assert_int_equal(sluice_bhttp_reader_finish(&r, NULL), SLUICE_ERR_FORMAT);
    assert_int_equal(log.len, 0);
    sluice_bhttp_reader_deinit(&r);
    sluice_buf_deinit(&log);
}

static void fields_and_informational_responses_are_counted(void **state)
{
    const sluice_bhttp_limits limits = { 0, 3, 0 };
    sluice_buf log = new_buf(), many = new_buf();
    sluice_bhttp_reader r;

    (void)state;
    sluice_bhttp_reader_init(&r, SLUICE_BHTTP_IS_RESPONSE, &limits, NULL, write_down, &log);
    assert_int_equal(sluice_bhttp_reader_feed(&r, vectors_unhex("0340c80161000161000161000161"), NULL), SLUICE_OK);
    assert_int_equal(sluice_bhttp_reader_feed(&r, vectors_unhex("00"), NULL), SLUICE_ERR_LIMIT);
    sluice_bhttp_reader_deinit(&r);
    assert_true(sluice_buf_append_byte(&many, 1));
    for (size_t i = 0; i < 17; i++)
        assert_true(sluice_buf_append_span(&many, vectors_unhex("406600")));
    assert_int_equal(reads_as(SLUICE_BHTTP_IS_RESPONSE, sluice_buf_span(&many), ""), SLUICE_ERR_LIMIT);
    sluice_buf_deinit(&log);
    sluice_buf_deinit(&many);
}

static void head_is_limited_and_a_full_one_still_lets_content_through(void **state)
{
    const sluice_bhttp_limits limits = { 3 + 5 + 1, 0, 100 };
    sluice_buf log = new_buf();
    sluice_bhttp_reader r;

    (void)state;
    sluice_bhttp_reader_init(&r, SLUICE_BHTTP_IS_RESPONSE, &limits, NULL, write_down, &log);
    assert_int_equal(sluice_bhttp_reader_feed(&r, vectors_unhex("0340c8016102626300026161006161"), NULL),
                     SLUICE_ERR_LIMIT); /* a trailer is too much */
    sluice_bhttp_reader_deinit(&r);
    sluice_buf_clear(&log);
    sluice_bhttp_reader_init(&r, SLUICE_BHTTP_IS_RESPONSE, &limits, NULL, write_down, &log);
    assert_int_equal(sluice_bhttp_reader_feed(&r, vectors_unhex("0340c801610262630002616100"), NULL), SLUICE_OK);
    assert_int_equal(sluice_bhttp_reader_finish(&r, NULL), SLUICE_OK);
    assert_span_equal(sluice_buf_span(&log), SLUICE_SPAN_LIT("200\na: bc\naa"));
    sluice_bhttp_reader_deinit(&r);
    sluice_buf_deinit(&log);
}

static void writer_refuses_what_http_forbids(void **state)
{
    static const struct {
        const char *name, *value;
    } cases[] = {
        { "Host", "a" }, { "", "a" },   { "a b", "a" }, { "a:b", "a" },  { "a", "b\r\nc: d" },
        { "a", "b\n" },  { "a", " b" }, { "a", "b\t" }, { "a", "\x7f" },
    };
    sluice_buf out = new_buf();

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (sluice_bhttp_field(&out, sluice_span_str(cases[i].name), sluice_span_str(cases[i].value), NULL) != SLUICE_ERR_ARGUMENT)
            fail_msg("%s: %s", cases[i].name, cases[i].value);
    assert_int_equal(sluice_bhttp_field(&out, SLUICE_SPAN_LIT("a"), sluice_span_of("b\0c", 3), NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_bhttp_response(&out, 102, SLUICE_SPAN_EMPTY, SLUICE_SPAN_EMPTY, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_bhttp_request(&out, SLUICE_SPAN_LIT("GET"), SLUICE_SPAN_LIT("https"), SLUICE_SPAN_LIT("a"), SLUICE_SPAN_LIT("/a b"),
                                          SLUICE_SPAN_EMPTY, SLUICE_SPAN_EMPTY, NULL),
                     SLUICE_ERR_ARGUMENT);
    assert_int_equal(out.len, 0);
    sluice_buf_deinit(&out);
}

static void integers_are_written_in_their_shortest_form(void **state)
{
    static const struct {
        uint64_t value;
        const char *hex;
    } cases[] = {
        /* RFC 9000 A.1 */
        { 37, "25" },   { 15293, "7bbd" }, { 494878333, "9d7f3e7d" }, { 151288809941952652u, "c2197c5eff14e88c" },     { 0, "00" }, { 63, "3f" },
        { 64, "4040" }, { 16383, "7fff" }, { 16384, "80004000" },     { (UINT64_C(1) << 62) - 1, "ffffffffffffffff" },
    };
    sluice_buf out = new_buf();

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sluice_buf_clear(&out);
        assert_true(sluice_varint_append(&out, cases[i].value));
        assert_span_equal(sluice_buf_span(&out), vectors_unhex(cases[i].hex));
        assert_int_equal(sluice_varint_len(out.ptr[0]), out.len);
        assert_int_equal(sluice_varint_value(out.ptr), cases[i].value);
    }
    assert_false(sluice_varint_append(&out, UINT64_C(1) << 62));
    sluice_buf_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples_of_rfc9292_are_read_wherever_they_are_cut),
        cmocka_unit_test(known_length_examples_are_written_byte_for_byte),
        cmocka_unit_test(indeterminate_response_is_read_as_it_is_written),
        cmocka_unit_test(empty_parts_may_be_missing_and_zeros_may_follow),
        cmocka_unit_test(a_message_that_breaks_off_is_truncated),
        cmocka_unit_test(malformed_messages_are_refused_with_the_same_place_for_any_cut),
        cmocka_unit_test(a_refused_message_stays_refused),
        cmocka_unit_test(fields_and_informational_responses_are_counted),
        cmocka_unit_test(head_is_limited_and_a_full_one_still_lets_content_through),
        cmocka_unit_test(writer_refuses_what_http_forbids),
        cmocka_unit_test(integers_are_written_in_their_shortest_form),
    };

    return cmocka_run_group_tests_name("bhttp", tests, NULL, NULL);
}
