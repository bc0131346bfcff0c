/* test_openai_chat.c - openai_chat.c: the request that it builds, the answers that it reads, the errors that it does not repeat
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cloud-adapters/providers/provider.h"

#include <math.h>
#include <stdio.h>

#include "cloud-adapters/oblivious/bhttp.h"
#include "sdk/base/json.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"

static const sluice_provider *openai(void)
{
    const sluice_provider *p = sluice_provider_find("openai-chat");

    assert_non_null(p);
    return p;
}

static void only_known_adapters_are_found(void **state)
{
    (void)state;
    assert_string_equal(openai()->name, "openai-chat");
    assert_null(sluice_provider_find("openai"));
    assert_null(sluice_provider_find(""));
    assert_null(sluice_provider_find(NULL));
}

/* ---- the request ---- */

typedef struct parsed {
    sluice_buf control, fields, content;
} parsed;

static sluice_status parse_part(const sluice_bhttp_event *e, void *user)
{
    parsed *p = user;

    if (e->part == SLUICE_BHTTP_REQUEST)
        assert_true(sluice_buf_appendf(&p->control, "%.*s %.*s %.*s %.*s", (int)e->method.len, (const char *)e->method.ptr, (int)e->scheme.len,
                                       (const char *)e->scheme.ptr, (int)e->authority.len, (const char *)e->authority.ptr, (int)e->path.len,
                                       (const char *)e->path.ptr));
    else if (e->part == SLUICE_BHTTP_HEADER)
        assert_true(sluice_buf_appendf(&p->fields, "%.*s: %.*s\n", (int)e->name.len, (const char *)e->name.ptr, (int)e->value.len,
                                       (const char *)e->value.ptr));
    else if (e->part == SLUICE_BHTTP_BODY)
        assert_true(sluice_buf_append_span(&p->content, e->body));
    return SLUICE_OK;
}

static const sluice_provider_message MESSAGES[] = {
    { "system", { (const uint8_t *)"Be short.", 9 } },
    { "user", { (const uint8_t *)"Say \"hi\"\n", 9 } },
};

static sluice_provider_request a_request(void)
{
    return (sluice_provider_request){ "api.example:8443", "/v1/chat/completions", "small", MESSAGES, 2, 64, 0.0f, true, 1763690000000 };
}

static parsed built(const sluice_provider_request *q)
{
    const sluice_bhttp_limits limits = { 0, 0, 1 << 20 };
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_bhttp_reader r;
    sluice_buf out;
    parsed p;

    sluice_buf_init(&out, NULL, 1 << 20);
    sluice_buf_init(&p.control, NULL, 1 << 20);
    sluice_buf_init(&p.fields, NULL, 1 << 20);
    sluice_buf_init(&p.content, NULL, 1 << 20);
    if (openai()->build(q, &out, NULL, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
    assert_int_equal(out.ptr[0], 0); /* known length */
    sluice_bhttp_reader_init(&r, SLUICE_BHTTP_IS_REQUEST, &limits, NULL, parse_part, &p);
    assert_int_equal(sluice_bhttp_reader_feed(&r, sluice_buf_span(&out), NULL), SLUICE_OK);
    assert_int_equal(sluice_bhttp_reader_finish(&r, NULL), SLUICE_OK);
    sluice_bhttp_reader_deinit(&r);
    sluice_buf_deinit(&out);
    return p;
}

static void parsed_free(parsed *p)
{
    sluice_buf_deinit(&p->control);
    sluice_buf_deinit(&p->fields);
    sluice_buf_deinit(&p->content);
}

static void assert_text(const sluice_buf *b, const char *want)
{
    if (!sluice_span_eq_str(sluice_buf_span(b), want))
        fail_msg("got %.*s", (int)b->len, (const char *)b->ptr);
}

static void streamed_request_says_what_it_means(void **state)
{
    const sluice_provider_request q = a_request();
    parsed p = built(&q);

    (void)state;
    assert_text(&p.control, "POST https api.example:8443 /v1/chat/completions");
    assert_text(&p.fields, "content-type: application/json\naccept: text/event-stream\ndate: Fri, 21 Nov 2025 01:53:20 GMT\n");
    assert_text(
        &p.content,
        "{\"model\":\"small\",\"messages\":[{\"role\":\"system\",\"content\":\"Be short.\"},{\"role\":\"user\",\"content\":\"Say \\\"hi\\\"\\n\"}],"
        "\"max_completion_tokens\":64,\"temperature\":0.000,\"stream\":true,\"stream_options\":{\"include_usage\":true},\"store\":false}");
    parsed_free(&p);
}

static void what_is_not_wanted_is_left_out(void **state)
{
    sluice_provider_request q = a_request();
    parsed p;

    (void)state;
    q.is_streamed = false;
    q.max_tokens = 0;
    q.temperature = NAN;
    q.date_ms = -1;
    q.n_messages = 1;
    p = built(&q);
    assert_text(&p.fields, "content-type: application/json\naccept: application/json\n");
    assert_text(&p.content, "{\"model\":\"small\",\"messages\":[{\"role\":\"system\",\"content\":\"Be short.\"}],\"stream\":false,\"store\":false}");
    parsed_free(&p);
}

static void date_is_right_on_the_days_that_calendars_get_wrong(void **state)
{
    static const struct {
        int64_t ms;
        const char *want;
    } cases[] = {
        { 0, "Thu, 01 Jan 1970 00:00:00 GMT" },
        { 951782399999, "Mon, 28 Feb 2000 23:59:59 GMT" },
        { 951782400000, "Tue, 29 Feb 2000 00:00:00 GMT" },
        { 951868800000, "Wed, 01 Mar 2000 00:00:00 GMT" },
        { 1709164800000, "Thu, 29 Feb 2024 00:00:00 GMT" },
        { 1735689599000, "Tue, 31 Dec 2024 23:59:59 GMT" },
        { 4107542400000, "Mon, 01 Mar 2100 00:00:00 GMT" }, /* 2100 has no 29 February */
        { 253402300799000, "Fri, 31 Dec 9999 23:59:59 GMT" },
    };
    sluice_provider_request q = a_request();

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char want[128];
        parsed p;

        q.date_ms = cases[i].ms;
        p = built(&q);
        snprintf(want, sizeof want, "content-type: application/json\naccept: text/event-stream\ndate: %s\n", cases[i].want);
        assert_text(&p.fields, want);
        parsed_free(&p);
    }
    q.date_ms = INT64_MAX; /* beyond the format: left out */
    {
        parsed p = built(&q);

        assert_text(&p.fields, "content-type: application/json\naccept: text/event-stream\n");
        parsed_free(&p);
    }
}

static void incomplete_and_smuggling_requests_are_refused(void **state)
{
    static const sluice_provider_message no_role = { NULL, { NULL, 0 } };
    sluice_buf out;

    (void)state;
    sluice_buf_init(&out, NULL, 1 << 20);
    for (int i = 0; i < 7; i++) {
        sluice_provider_request q = a_request();

        switch (i) {
        case 0: q.authority = ""; break;
        case 1: q.path = NULL; break;
        case 2: q.model = NULL; break;
        case 3: q.n_messages = 0; break;
        case 4:
            q.messages = &no_role;
            q.n_messages = 1;
            break;
        case 5: q.authority = "a\r\nx: y"; break;
        default: q.path = "v1"; break;
        }
        if (openai()->build(&q, &out, NULL, NULL) != SLUICE_ERR_ARGUMENT || out.len != 0)
            fail_msg("case %d", i);
    }
    sluice_buf_deinit(&out);
}

/* ---- the answer ---- */

static bool write_down(const sluice_provider_event *e, void *user)
{
    sluice_buf *log = user;

    switch (e->part) {
    case SLUICE_PROVIDER_TEXT: return sluice_buf_append_span(log, e->text);
    case SLUICE_PROVIDER_USAGE: return sluice_buf_appendf(log, "{%u,%u}", e->prompt_tokens, e->output_tokens);
    case SLUICE_PROVIDER_DONE: return sluice_buf_append_str(log, e->is_truncated ? "<length>" : "<done>");
    }
    return false;
}

static sluice_status read_answer(int status, const char *type, const char *body, size_t step, sluice_buf *log, sluice_error *err)
{
    const sluice_provider *p = openai();
    const size_t len = strlen(body);
    sluice_provider_reader *r;
    sluice_status st;

    sluice_buf_init(log, NULL, 1 << 20);
    assert_int_equal(p->reader_open(&r, NULL, write_down, log, NULL), SLUICE_OK);
    assert_int_equal(p->reader_status(r, status, NULL), SLUICE_OK);
    assert_int_equal(p->reader_header(r, SLUICE_SPAN_LIT("x-other"), SLUICE_SPAN_LIT("text/event-stream"), NULL), SLUICE_OK);
    st = p->reader_header(r, SLUICE_SPAN_LIT("content-type"), sluice_span_str(type), NULL);
    for (size_t at = 0; st == SLUICE_OK && at < len; at += step)
        st = p->reader_feed(r, sluice_span_of(body + at, len - at < step ? len - at : step), err);
    if (st == SLUICE_OK)
        st = p->reader_finish(r, err);
    else
        assert_int_equal(p->reader_finish(r, NULL), st); /* a failure is final */
    p->reader_close(r);
    return st;
}

#define STREAM "text/event-stream; charset=utf-8"
#define JSON   "application/json"
#define PIECE(text)                                                                                                                                  \
    "data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" text                                           \
    "\"},\"finish_reason\":null}],\"usage\":null}\n\n"
#define STOP(why) "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"" why "\"}]}\n\n"
#define USAGE     "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,\"total_tokens\":10}}\n\n"
#define DONE      "data: [DONE]\n\n"
#define WHOLE(message, reason)                                                                                                                       \
    "{\"id\":\"x\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\"," message "},\"finish_reason\":" reason                             \
    "}],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}"

static const struct {
    const char *why;
    int status;
    const char *type, *body;
    sluice_status want;
    const char *log, *message;
} ANSWERS[] = {
    { "a stream as OpenAI sends it", 200, STREAM,
      "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},\"finish_reason\":null}]}\n\n" PIECE(
          "Hel") PIECE("lo \\u20ac") STOP("stop") USAGE DONE,
      SLUICE_OK, "Hello \xe2\x82\xac{7,3}<done>", NULL },
    { "llama-server: usage with the last piece, timings, comments", 200, STREAM,
      ": ping\n\n" PIECE("a") "data: "
                              "{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":7,\"completion_"
                              "tokens\":3},\"timings\":{\"x\":1.5}}\n\n" DONE,
      SLUICE_OK, "a{7,3}<done>", NULL },
    { "no [DONE], but a finish reason", 200, STREAM, PIECE("a") STOP("stop"), SLUICE_OK, "a<done>", NULL },
    { "[DONE] without a finish reason", 200, STREAM, PIECE("a") DONE, SLUICE_OK, "a<done>", NULL },
    { "cut by max_tokens", 200, STREAM, PIECE("a") STOP("length") DONE, SLUICE_OK, "a<length>", NULL },
    { "Azure's first chunk without choices", 200, STREAM, "data: {\"choices\":[],\"prompt_filter_results\":[{}]}\n\n" PIECE("a") STOP("stop"),
      SLUICE_OK, "a<done>", NULL },
    { "a refusal is text", 200, STREAM, "data: {\"choices\":[{\"index\":0,\"delta\":{\"refusal\":\"I cannot\"}}]}\n\n" STOP("stop"), SLUICE_OK,
      "I cannot<done>", NULL },
    { "another choice is not ours", 200, STREAM,
      "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"no\"}},{\"index\":0,\"delta\":{\"content\":\"yes\"}}]}\n\n" STOP("stop"), SLUICE_OK,
      "yes<done>", NULL },
    { "nothing counts after [DONE]", 200, STREAM, PIECE("a") DONE PIECE("b") "data: not json\n\n", SLUICE_OK, "a<done>", NULL },
    { "error: null is none", 200, STREAM,
      "data: {\"error\":null,\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\n", SLUICE_OK, "a<done>", NULL },
    { "a stream that just stops", 200, STREAM, PIECE("a") PIECE("b"), SLUICE_ERR_TRUNCATED, "ab", NULL },
    { "a stream cut inside its last event", 200, STREAM, PIECE("a") "data: [DONE]\n", SLUICE_ERR_TRUNCATED, "a", NULL },
    { "an empty stream", 200, STREAM, "", SLUICE_ERR_TRUNCATED, "", NULL },
    { "an error in the middle", 200, STREAM, PIECE("a") "data: {\"error\":{\"message\":\"SECRET\",\"type\":\"server_error\",\"code\":null}}\n\n" DONE,
      SLUICE_ERR_REMOTE, "a", "server_error" },
    { "an error event in the middle", 200, STREAM, PIECE("a") "event: error\ndata: {\"error\":\"SECRET text\"}\n\n", SLUICE_ERR_REMOTE, "a",
      "(status 200)" },
    { "the content filter", 200, STREAM, PIECE("a") STOP("content_filter"), SLUICE_ERR_REMOTE, "a", "content filter" },
    { "a tool that was not offered", 200, STREAM, STOP("tool_calls"), SLUICE_ERR_UNSUPPORTED, "", NULL },
    { "a piece that is not JSON", 200, STREAM, PIECE("a") "data: SECRET{\n\n", SLUICE_ERR_FORMAT, "a", NULL },
    { "a piece that is no object", 200, STREAM, "data: [1]\n\n", SLUICE_ERR_FORMAT, "", NULL },
    { "a piece that is not UTF-8", 200, STREAM, "data: \xff\n\n", SLUICE_ERR_FORMAT, "", NULL },

    { "a plain answer", 200, JSON, WHOLE("\"content\":\"Hello\",\"refusal\":null", "\"stop\""), SLUICE_OK, "Hello{7,3}<done>", NULL },
    { "a plain answer, cut by max_tokens", 200, JSON "; charset=utf-8", WHOLE("\"content\":\"Hel\"", "\"length\""), SLUICE_OK, "Hel{7,3}<length>",
      NULL },
    { "a plain answer without a finish reason", 200, JSON, WHOLE("\"content\":\"Hel\"", "null"), SLUICE_ERR_TRUNCATED, "Hel{7,3}", NULL },
    { "a plain answer without choices", 200, JSON, "{\"choices\":[]}", SLUICE_ERR_TRUNCATED, "", NULL },
    { "no content type at all", 200, "", WHOLE("\"content\":\"a\"", "\"stop\""), SLUICE_OK, "a{7,3}<done>", NULL },
    { "half a document", 200, JSON, "{\"choices\":[", SLUICE_ERR_FORMAT, "", NULL },
    { "an empty document", 200, JSON, "", SLUICE_ERR_TRUNCATED, "", NULL },
    { "wild numbers", 200, JSON,
      "{\"choices\":[{\"index\":0,\"message\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":-5,\"completion_tokens\":"
      "1e300}}",
      SLUICE_OK, "a{0,4294967295}<done>", NULL },
    { "wrong types everywhere", 200, JSON, "{\"choices\":[{\"index\":0,\"message\":[],\"finish_reason\":7}],\"usage\":[]}", SLUICE_ERR_TRUNCATED, "",
      NULL },
    { "an error with status 200", 200, JSON, "{\"error\":{\"type\":\"overloaded\"}}", SLUICE_ERR_REMOTE, "", "overloaded" },

    { "an error object", 429, JSON, "{\"error\":{\"message\":\"SECRET\",\"type\":\"insufficient_quota\",\"code\":\"x\"}}", SLUICE_ERR_REMOTE, "",
      "insufficient_quota (status 429)" },
    { "type null, code a word", 400, JSON, "{\"error\":{\"type\":null,\"code\":\"content_filter\"}}", SLUICE_ERR_REMOTE, "",
      "content_filter (status 400)" },
    { "llama-server: code a number", 400, JSON, "{\"error\":{\"code\":400,\"message\":\"SECRET\",\"type\":\"exceed_context_size_error\"}}",
      SLUICE_ERR_REMOTE, "", "exceed_context_size_error" },
    { "an error as a string", 404, JSON, "{\"error\":\"SECRET\"}", SLUICE_ERR_REMOTE, "", "(status 404)" },
    { "errors in an array", 500, JSON, "{\"error\":[{\"type\":\"server_error\"}]}", SLUICE_ERR_REMOTE, "", "server_error" },
    { "a document in an array", 503, JSON, "[{\"error\":{\"status\":\"UNAVAILABLE\"}}]", SLUICE_ERR_REMOTE, "", "UNAVAILABLE" },
    { "an error page", 502, "text/html", "<html>SECRET</html>", SLUICE_ERR_REMOTE, "", "(status 502)" },
    { "a type that is a sentence", 400, JSON, "{\"error\":{\"type\":\"SECRET words here\"}}", SLUICE_ERR_REMOTE, "", "(status 400)" },
    { "an error with the type of a stream", 401, STREAM, "{\"error\":{\"type\":\"invalid_api_key\"}}", SLUICE_ERR_REMOTE, "", "invalid_api_key" },
    { "a redirect is an error", 307, JSON, "", SLUICE_ERR_REMOTE, "", "(status 307)" },
};

static void answers_are_read_wherever_they_are_cut_and_errors_are_not_repeated(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ANSWERS / sizeof ANSWERS[0]; i++) {
        static const size_t steps[] = { 1, 7, 100000 };

        for (size_t k = 0; k < 3; k++) {
            sluice_error err = SLUICE_ERROR_INIT;
            sluice_buf log;
            const sluice_status st = read_answer(ANSWERS[i].status, ANSWERS[i].type, ANSWERS[i].body, steps[k], &log, &err);

            if (st != ANSWERS[i].want || err.status != st)
                fail_msg("%s: %s (%s)", ANSWERS[i].why, sluice_status_name(st), err.message);
            if (!sluice_span_eq_str(sluice_buf_span(&log), ANSWERS[i].log))
                fail_msg("%s: %.*s", ANSWERS[i].why, (int)log.len, (const char *)log.ptr);
            if (ANSWERS[i].message != NULL && strstr(err.message, ANSWERS[i].message) == NULL)
                fail_msg("%s: %s", ANSWERS[i].why, err.message);
            if (strstr(err.message, "SECRET") != NULL || strstr(err.hint, "SECRET") != NULL)
                fail_msg("%s: a server's text was repeated: %s", ANSWERS[i].why, err.message);
            sluice_buf_deinit(&log);
        }
    }
}

static void a_long_error_body_is_let_go_and_a_long_answer_refused(void **state)
{
    static char body[5 << 20];
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_buf log;

    (void)state;
    memset(body, ' ', sizeof body - 1);
    assert_int_equal(read_answer(500, JSON, body, 4096, &log, &err), SLUICE_ERR_REMOTE);
    sluice_buf_deinit(&log);
    assert_int_equal(read_answer(200, JSON, body, 65536, &log, &err), SLUICE_ERR_LIMIT);
    sluice_buf_deinit(&log);
    memset(body, 'x', sizeof body - 1);
    assert_int_equal(read_answer(200, STREAM, body, 65536, &log, &err), SLUICE_ERR_LIMIT);
    sluice_buf_deinit(&log);
}

static void deep_nesting_is_refused(void **state)
{
    static char body[4096];
    sluice_buf log;

    (void)state;
    memset(body, '[', 2000);
    assert_int_equal(read_answer(200, JSON, body, 100, &log, NULL), SLUICE_ERR_LIMIT);
    sluice_buf_deinit(&log);
}

static bool refuse_all(const sluice_provider_event *e, void *user)
{
    (void)e;
    (void)user;
    return false;
}

static void receiver_can_stop_and_order_is_kept(void **state)
{
    const sluice_provider *p = openai();
    sluice_provider_reader *r;
    sluice_error err = SLUICE_ERROR_INIT;

    (void)state;
    assert_int_equal(p->reader_open(&r, NULL, refuse_all, NULL, NULL), SLUICE_OK);
    assert_int_equal(p->reader_feed(r, SLUICE_SPAN_LIT("x"), NULL), SLUICE_ERR_STATE); /* no status yet */
    assert_int_equal(p->reader_finish(r, NULL), SLUICE_ERR_STATE);
    assert_int_equal(p->reader_status(r, 200, NULL), SLUICE_OK);
    assert_int_equal(p->reader_header(r, SLUICE_SPAN_LIT("content-type"), SLUICE_SPAN_LIT("text/event-stream"), NULL), SLUICE_OK);
    assert_int_equal(p->reader_feed(r, SLUICE_SPAN_LIT(PIECE("a")), &err), SLUICE_ERR_CANCELLED);
    assert_int_equal(err.status, SLUICE_ERR_CANCELLED);
    p->reader_close(r);
    assert_int_equal(p->reader_open(&r, NULL, refuse_all, NULL, NULL), SLUICE_OK);
    assert_int_equal(p->reader_status(r, 200, NULL), SLUICE_OK);
    assert_int_equal(p->reader_status(r, 200, NULL), SLUICE_ERR_FORMAT);
    assert_int_equal(p->reader_feed(r, SLUICE_SPAN_LIT("x"), NULL), SLUICE_ERR_FORMAT);
    p->reader_close(r);
    p->reader_close(NULL);
}

static bool take_all(const sluice_provider_event *e, void *user)
{
    (void)e;
    (void)user;
    return true;
}

static void prompts_and_answers_are_wiped_from_freed_memory(void **state)
{
    static const sluice_provider_message message = { "user", { (const uint8_t *)"canary-77aa01 and more", 22 } };
    const sluice_provider *p = openai();
    sluice_provider_request q = a_request();
    sluice_provider_reader *r;
    fake_allocator fa;
    sluice_buf out;

    (void)state;
    fake_allocator_init(&fa);
    fa.canary = "canary-77aa01";
    q.messages = &message;
    q.n_messages = 1;
    sluice_buf_init(&out, &fa.al, 1 << 20);
    assert_int_equal(p->build(&q, &out, &fa.al, NULL), SLUICE_OK);
    sluice_buf_deinit(&out);
    for (int is_stream = 0; is_stream < 2; is_stream++) {
        assert_int_equal(p->reader_open(&r, &fa.al, take_all, NULL, NULL), SLUICE_OK);
        assert_int_equal(p->reader_status(r, 200, NULL), SLUICE_OK);
        assert_int_equal(p->reader_header(r, SLUICE_SPAN_LIT("content-type"), is_stream != 0 ? SLUICE_SPAN_LIT(STREAM) : SLUICE_SPAN_LIT(JSON), NULL),
                         SLUICE_OK);
        assert_int_equal(p->reader_feed(r,
                                        is_stream != 0 ? SLUICE_SPAN_LIT(PIECE("canary-77aa01") STOP("stop"))
                                                       : SLUICE_SPAN_LIT(WHOLE("\"content\":\"canary-77aa01\"", "\"stop\"")),
                                        NULL),
                         SLUICE_OK);
        assert_int_equal(p->reader_finish(r, NULL), SLUICE_OK);
        p->reader_close(r);
    }
    assert_true(fake_allocator_is_clean(&fa));
    assert_true(fa.n_allocs > 0);
    assert_int_equal(fa.n_canaries_freed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_known_adapters_are_found),
        cmocka_unit_test(streamed_request_says_what_it_means),
        cmocka_unit_test(what_is_not_wanted_is_left_out),
        cmocka_unit_test(date_is_right_on_the_days_that_calendars_get_wrong),
        cmocka_unit_test(incomplete_and_smuggling_requests_are_refused),
        cmocka_unit_test(answers_are_read_wherever_they_are_cut_and_errors_are_not_repeated),
        cmocka_unit_test(a_long_error_body_is_let_go_and_a_long_answer_refused),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(receiver_can_stop_and_order_is_kept),
        cmocka_unit_test(prompts_and_answers_are_wiped_from_freed_memory),
    };

    return cmocka_run_group_tests_name("openai_chat", tests, NULL, NULL);
}
