/* test_sse.c - sse.c: the event stream format, whatever the cuts
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cloud-adapters/wire/sse.h"

#include "tests/support/cm.h"

static bool write_down(sluice_span type, sluice_span data, void *user)
{
    sluice_buf *log = user;

    return sluice_buf_append_str(log, "[") && sluice_buf_append_span(log, type) && sluice_buf_append_str(log, "|") &&
           sluice_buf_append_span(log, data) && sluice_buf_append_str(log, "]");
}

static sluice_status read_steps(sluice_span stream, size_t step, size_t line_max, size_t event_max, sluice_buf *log)
{
    sluice_status st = SLUICE_OK;
    sluice_sse s;

    sluice_buf_init(log, NULL, 1 << 20);
    sluice_sse_init(&s, NULL, line_max, event_max, write_down, log);
    for (size_t at = 0; st == SLUICE_OK && at < stream.len; at += step)
        st = sluice_sse_feed(&s, sluice_span_of(stream.ptr + at, stream.len - at < step ? stream.len - at : step), NULL);
    sluice_sse_deinit(&s);
    return st;
}

static void events_are_the_same_wherever_the_bytes_are_cut(void **state)
{
    static const struct {
        const char *why, *stream, *want;
    } cases[] = {
        { "one event", "data: a\n\n", "[message|a]" },
        { "no space after the colon", "data:a\n\n", "[message|a]" },
        { "only one space is dropped", "data:  a\n\n", "[message| a]" },
        { "several lines", "data: a\ndata: b\ndata:\n\n", "[message|a\nb\n]" },
        { "named event, name forgotten afterwards", "event: x\ndata: a\n\ndata: b\n\n", "[x|a][message|b]" },
        { "last name wins", "event: x\nevent: y\ndata: a\n\n", "[y|a]" },
        { "an event without data is none", "event: x\n\ndata: a\n\n", "[message|a]" },
        { "a field without colon has an empty value", "data\n\ndata\ndata\n\n", "[message|][message|\n]" },
        { "comments and keep-alives", ": hello\n\n:\ndata: a\n: between\ndata: b\n\n", "[message|a\nb]" },
        { "unknown fields, id and retry", "id: 7\nretry: 10\nfoo: bar\nData: no\n data: no\ndata: a\n\n", "[message|a]" },
        { "CR line ends", "data: a\r\rdata: b\r\r", "[message|a][message|b]" },
        { "CRLF line ends", "data: a\r\n\r\ndata: b\r\n\r\n", "[message|a][message|b]" },
        { "mixed line ends", "data: a\r\ndata: b\n\r\ndata: c\r\n\n", "[message|a\nb][message|c]" },
        { "empty lines", "\n\n\r\n\rdata: a\n\n\n\n", "[message|a]" },
        { "byte order mark",
          "\xef\xbb\xbf"
          "data: a\n\n",
          "[message|a]" },
        { "only one byte order mark",
          "\xef\xbb\xbf\xef\xbb\xbf"
          "data: a\n\ndata: b\n\n",
          "[message|b]" },
        { "the beginning of one that is none", "\xef\xbb\x80: x\ndata: a\n\n", "[message|a]" },
        { "the last event without its empty line is dropped", "data: a\n\ndata: b\n", "[message|a]" },
        { "colons in the value", "data: {\"a\":1}\n\n", "[message|{\"a\":1}]" },
        { "text of many bytes", "data: gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80 \xe2\x82\xac\n\n",
          "[message|gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80 \xe2\x82\xac]" },
        { "nothing", "", "" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const sluice_span stream = sluice_span_str(cases[i].stream);

        for (size_t step = 1; step <= stream.len + 1; step++) {
            sluice_buf log;

            assert_int_equal(read_steps(stream, step, 100, 100, &log), SLUICE_OK);
            if (!sluice_span_eq_str(sluice_buf_span(&log), cases[i].want))
                fail_msg("%s, cut every %zu: %.*s", cases[i].why, step, (int)log.len, (const char *)log.ptr);
            sluice_buf_deinit(&log);
        }
    }
}

static void every_pair_of_cuts_gives_the_same_events(void **state)
{
    static const char stream[] = "\xef\xbb\xbf"
                                 ":c\r\nevent: \xc3\xbc\r\ndata: a\r\rdata\n\ndata: \xf0\x9f\x98\x80\n\r\n";
    const size_t len = sizeof stream - 1;

    (void)state;
    for (size_t i = 0; i <= len; i++)
        for (size_t j = i; j <= len; j++) {
            sluice_buf log;
            sluice_sse s;

            sluice_buf_init(&log, NULL, 1000);
            sluice_sse_init(&s, NULL, 100, 100, write_down, &log);
            assert_int_equal(sluice_sse_feed(&s, sluice_span_of(stream, i), NULL), SLUICE_OK);
            assert_int_equal(sluice_sse_feed(&s, sluice_span_of(stream + i, j - i), NULL), SLUICE_OK);
            assert_int_equal(sluice_sse_feed(&s, sluice_span_of(stream + j, len - j), NULL), SLUICE_OK);
            assert_true(sluice_span_eq_str(sluice_buf_span(&log), "[\xc3\xbc|a][message|][message|\xf0\x9f\x98\x80]"));
            sluice_sse_deinit(&s);
            sluice_buf_deinit(&log);
        }
}

static void lines_and_events_are_limited(void **state)
{
    static const struct {
        const char *why, *stream;
        size_t line_max, event_max;
        sluice_status want;
    } cases[] = {
        { "a line of just the limit", "data: abcd\n\n", 10, 100, SLUICE_OK },
        { "a line above it", "data: abcde\n\n", 10, 100, SLUICE_ERR_LIMIT },
        { "a line without end", "aaaaaaaaaaaaaaaaaaaaaaaa", 10, 100, SLUICE_ERR_LIMIT },
        { "an event of just the limit", "data: ab\ndata: c\n\n", 100, 4, SLUICE_OK },
        { "an event above it", "data: ab\ndata: cd\n\n", 100, 4, SLUICE_ERR_LIMIT },
        { "the limit is per event", "data: abcd\n\ndata: abcd\n\n", 100, 4, SLUICE_OK },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t step = 1; step <= 40; step += 39) {
            sluice_buf log;

            if (read_steps(sluice_span_str(cases[i].stream), step, cases[i].line_max, cases[i].event_max, &log) != cases[i].want)
                fail_msg("%s", cases[i].why);
            sluice_buf_deinit(&log);
        }
}

static void what_is_not_utf8_is_refused(void **state)
{
    static const char *const streams[] = { "data: \xff\n\n", "data: \xc3\n\n", "data: \xed\xa0\x80\n\n", ": \xc0\x80\n\n",
                                           "event: \xf5\x80\x80\x80\n\n" };

    (void)state;
    for (size_t i = 0; i < sizeof streams / sizeof streams[0]; i++) {
        sluice_buf log;

        if (read_steps(sluice_span_str(streams[i]), 1, 100, 100, &log) != SLUICE_ERR_FORMAT || log.len != 0)
            fail_msg("stream %zu", i);
        sluice_buf_deinit(&log);
    }
}

static bool stop_at_second(sluice_span type, sluice_span data, void *user)
{
    (void)type;
    (void)data;
    return ++*(int *)user < 2;
}

static void receiver_can_stop_the_stream(void **state)
{
    int n = 0;
    sluice_sse s;

    (void)state;
    sluice_sse_init(&s, NULL, 100, 100, stop_at_second, &n);
    assert_int_equal(sluice_sse_feed(&s, SLUICE_SPAN_LIT("data: a\n\ndata: b\n\ndata: c\n\n"), NULL), SLUICE_ERR_CANCELLED);
    assert_int_equal(n, 2);
    sluice_sse_deinit(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_are_the_same_wherever_the_bytes_are_cut),
        cmocka_unit_test(every_pair_of_cuts_gives_the_same_events),
        cmocka_unit_test(lines_and_events_are_limited),
        cmocka_unit_test(what_is_not_utf8_is_refused),
        cmocka_unit_test(receiver_can_stop_the_stream),
    };

    return cmocka_run_group_tests_name("sse", tests, NULL, NULL);
}
