/* test_transport.c - the transport against real TLS servers: what is verified before a byte leaves, what is reported, what is bounded.
 *
 * The envelopes come from the real gate and seal: there is no other way to make one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE /* setenv, pthread_create */
#include "tests/support/cm.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cloud-adapters/oblivious/seal.h"
#include "cloud-adapters/transport/transport.h"
#include "tests/support/fake_allocator.h"
#include "tests/unit/cloud/gate.h"
#include "tests/unit/cloud/tls_server.h"

enum { LIMIT_MS = 10000 };

/* A smallest binary HTTP request (RFC 9292): framing, method, scheme, authority, path, nothing else. */
static const uint8_t inner_request[] = "\x00\x04POST\x05https\x07gw.test\x01/\x00\x00";

/* What an exchange has reported: "CONNECTED SENT STATUS:200 name=value BODY END", and the body. */
typedef struct record {
    char events[4096];
    char body[65536];
    size_t n_body;
    sluice_error error;
    bool was_sent, is_over;
    sluice_transport *cancel_with; /* cancel from inside the first event of that kind */
    sluice_exchange_event_kind cancel_at;
    sluice_exchange *exchange;
    sluice_envelope *envelope; /* goes with the cancel or the terminal event, as its owner may let it go */
    int n_after_cancel;
} record;

typedef struct fixture {
    test_gate gate;
    sluice_policy_endpoint *endpoint; /* the gate's */
    bool is_streamed;
    fake_allocator allocator;
    sluice_transport transport;
    sluice_exchange_limits limits;
    char url[200];
    char *ca, *pin, *other_pin;
    record record;
} fixture;

static void note(record *r, const char *text)
{
    const size_t n = strlen(r->events);
    (void)snprintf(r->events + n, sizeof r->events - n, "%s%s", n ? " " : "", text);
}

static void on_event(const sluice_exchange_event *e, void *user)
{
    record *r = user;
    char text[200];

    if (r->is_over)
        r->n_after_cancel++;
    switch (e->kind) {
    case SLUICE_EXCHANGE_CONNECTED: note(r, "CONNECTED"); break;
    case SLUICE_EXCHANGE_SENT: note(r, "SENT"); break;
    case SLUICE_EXCHANGE_STATUS:
        (void)snprintf(text, sizeof text, "STATUS:%d", e->http_status);
        note(r, text);
        break;
    case SLUICE_EXCHANGE_HEADER:
        (void)snprintf(text, sizeof text, "%.*s=%.*s", (int)e->name.len, (const char *)e->name.ptr, (int)e->value.len, (const char *)e->value.ptr);
        note(r, text);
        break;
    case SLUICE_EXCHANGE_BODY:
        assert_true(r->n_body + e->body.len < sizeof r->body);
        memcpy(r->body + r->n_body, e->body.ptr, e->body.len);
        r->n_body += e->body.len;
        break;
    case SLUICE_EXCHANGE_END:
        note(r, "END");
        r->is_over = true;
        break;
    case SLUICE_EXCHANGE_FAILED:
        note(r, sluice_status_name(e->error.status));
        r->error = e->error;
        r->was_sent = e->was_sent;
        r->is_over = true;
        break;
    }
    if (r->cancel_with != NULL && e->kind == r->cancel_at) {
        r->cancel_with->cancel(r->cancel_with->user, r->exchange);
        r->is_over = true;
    }
    if (r->is_over) {
        sluice_envelope_close(r->envelope);
        r->envelope = NULL;
    }
}

static uint64_t now_us(void)
{
    return sluice_now_us(sluice_platform_default());
}

static int setup(void **state)
{
    const char *dir = test_certs();
    fixture *f;

    if (dir == NULL)
        return 0; /* each test then skips */
    f = calloc(1, sizeof *f);
    assert_non_null(f);
    fake_allocator_init(&f->allocator);
    assert_int_equal(sluice_transport_curl_open(&f->transport, sluice_platform_default(), &f->allocator.al, NULL), SLUICE_OK);
    f->ca = test_read_text(dir, "ca.pem");
    f->pin = test_read_text(dir, "pin.txt");
    f->other_pin = test_read_text(dir, "other_pin.txt");
    test_gate_open(&f->gate, SLUICE_SPAN_EMPTY);
    f->endpoint = &f->gate.policy.endpoints[0];
    f->endpoint->url = f->url;
    f->endpoint->ca_pem = f->ca;
    f->endpoint->spki_pins[0] = f->pin;
    f->endpoint->n_spki_pins = 1;
    f->limits.deadline_us = now_us() + LIMIT_MS * 1000ull;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;

    if (f == NULL)
        return 0;
    f->transport.close(f->transport.user);
    sluice_envelope_close(f->record.envelope);
    test_gate_close(&f->gate);
    free(f->ca);
    free(f->pin);
    free(f->other_pin);
    assert_true(fake_allocator_is_clean(&f->allocator));
    free(f);
    *state = NULL;
    return 0;
}

#define FIXTURE(name)                                                                                                                                \
    fixture *name = *state;                                                                                                                          \
    if (name == NULL) {                                                                                                                              \
        print_message("needs the openssl command and SLUICE_SOURCE_DIR\n");                                                                          \
        skip();                                                                                                                                      \
        return;                                                                                                                                      \
    }

/* Through the gate and the seal, to where the endpoint says. */
static sluice_envelope *seal(fixture *f)
{
    const sluice_span plain = sluice_span_of(inner_request, sizeof inner_request - 1);
    sluice_grant *grant = test_gate_grant(&f->gate, plain);
    sluice_envelope *envelope = NULL;
    sluice_answer_opener *opener = NULL;

    assert_int_equal(sluice_seal(grant, plain, f->is_streamed, &f->gate.fp.platform, NULL, &envelope, &opener, NULL), SLUICE_OK);
    sluice_answer_close(opener);
    sluice_grant_close(grant);
    return envelope;
}

static void forget(fixture *f)
{
    sluice_envelope_close(f->record.envelope);
    memset(&f->record, 0, sizeof f->record);
}

static sluice_status start(fixture *f, const char *host, int port)
{
    (void)snprintf(f->url, sizeof f->url, "https://%s:%d/ohttp?x=1", host, port);
    sluice_envelope_close(f->record.envelope);
    f->record.envelope = seal(f);
    return f->transport.open(f->transport.user, f->record.envelope, &f->limits, on_event, &f->record, &f->record.exchange, &f->record.error);
}

static void step_until_over(fixture *f)
{
    const uint64_t until_us = now_us() + 2 * LIMIT_MS * 1000ull;

    while (!f->record.is_over && now_us() < until_us)
        (void)f->transport.step(f->transport.user, 200);
    assert_true(f->record.is_over);
}

/* Step until the server has printed `text`: what the client sent, or its own state. */
static void step_until_seen(fixture *f, tls_server *s, const char *text)
{
    const uint64_t until_us = now_us() + LIMIT_MS * 1000ull;

    while (!tls_server_has_seen(s, text) && now_us() < until_us)
        (void)f->transport.step(f->transport.user, 20);
    if (!tls_server_has_seen(s, text))
        fail_msg("the server never saw \"%s\", but:\n%s\nevents: %s %s", text, s->seen, f->record.events, f->record.error.message);
}

static void step_until_sent(fixture *f)
{
    const uint64_t until_us = now_us() + LIMIT_MS * 1000ull;

    while (strstr(f->record.events, "SENT") == NULL && !f->record.is_over && now_us() < until_us)
        (void)f->transport.step(f->transport.user, 20);
}

/* One exchange with a server that says `answer` once the request is there, then cuts the connection where `cut` says so. */
static void exchange_with(fixture *f, tls_server *s, const char *answer, bool cut)
{
    tls_server_open(s, test_certs(), "good", "-tls1_3");
    assert_int_equal(start(f, "localhost", s->port), SLUICE_OK);
    step_until_seen(f, s, "POST /ohttp");
    step_until_sent(f);
    tls_server_say(s, answer);
    if (cut) {
        for (int i = 0; i < 10; i++) /* let it go out first */
            (void)f->transport.step(f->transport.user, 20);
        tls_server_cut(s);
    }
    step_until_over(f);
    tls_server_close(s);
}

/* ---- what goes right ------------------------------------------------------------------------------------- */

static void events_come_in_order_and_the_body_is_whole(void **state)
{
    FIXTURE(f);
    tls_server s;

    exchange_with(f, &s, "HTTP/1.1 200 OK\r\nContent-Type: message/ohttp-res\r\nX-Two:  words here \r\nContent-Length: 11\r\n\r\nhello world", false);
    assert_string_equal(f->record.events, "CONNECTED SENT STATUS:200 content-type=message/ohttp-res x-two=words here content-length=11 END");
    assert_int_equal(f->record.n_body, 11);
    assert_memory_equal(f->record.body, "hello world", 11);
    assert_int_equal(f->transport.step(f->transport.user, 0), 0);
}

static void the_request_is_one_plain_post_with_fixed_headers(void **state)
{
    static const char *const wanted[] = { "POST /ohttp?x=1 HTTP/1.1\r\n",
                                          "Content-Type: message/ohttp-chunked-req\r\n",
                                          "Accept: message/ohttp-chunked-res\r\n",
                                          "User-Agent: Sluice\r\n",
                                          "Content-Length: ",
                                          "Incremental: ?1\r\n" };
    static const char *const unwanted[] = { "Expect:", "Accept-Encoding:", "Cookie:", "Referer:", "Authorization:", "Accept: */*" };
    FIXTURE(f);
    tls_server s;

    f->is_streamed = true;
    exchange_with(f, &s, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        if (strstr(s.seen, wanted[i]) == NULL)
            fail_msg("missing in the request: %s", wanted[i]);
    for (size_t i = 0; i < sizeof unwanted / sizeof unwanted[0]; i++)
        if (strstr(s.seen, unwanted[i]) != NULL)
            fail_msg("in the request: %s", unwanted[i]);
}

static void chunked_bodies_trailers_and_interim_answers_are_understood(void **state)
{
    FIXTURE(f);
    tls_server s;

    exchange_with(f, &s,
                  "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "3\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Trailer: t\r\n\r\n",
                  false);
    assert_string_equal(f->record.events, "CONNECTED SENT STATUS:200 transfer-encoding=chunked END");
    assert_int_equal(f->record.n_body, 7);
    assert_memory_equal(f->record.body, "abcdefg", 7);
}

static void other_statuses_are_answers_too(void **state)
{
    FIXTURE(f);
    tls_server s;

    exchange_with(f, &s, "HTTP/1.1 503 Down\r\nContent-Length: 4\r\n\r\nbusy", false);
    assert_string_equal(f->record.events, "CONNECTED SENT STATUS:503 content-length=4 END");
    assert_memory_equal(f->record.body, "busy", 4);
}

static void a_redirect_is_reported_and_not_followed(void **state)
{
    FIXTURE(f);
    tls_server s, target;
    char answer[300];

    tls_server_open(&target, test_certs(), "good", "-tls1_3");
    (void)snprintf(answer, sizeof answer, "HTTP/1.1 307 Elsewhere\r\nLocation: https://localhost:%d/\r\nContent-Length: 0\r\n\r\n", target.port);
    exchange_with(f, &s, answer, false);
    assert_non_null(strstr(f->record.events, "STATUS:307"));
    assert_non_null(strstr(f->record.events, "END"));
    (void)f->transport.step(f->transport.user, 200);
    assert_false(tls_server_has_seen(&target, "POST"));
    tls_server_close(&target);
}

static void a_proxy_in_the_environment_is_not_used(void **state)
{
    FIXTURE(f);
    tls_server s;

    setenv("https_proxy", "http://127.0.0.1:1", 1);
    setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
    exchange_with(f, &s, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false);
    unsetenv("https_proxy");
    unsetenv("ALL_PROXY");
    assert_non_null(strstr(f->record.events, "END"));
}

static void a_backup_pin_is_as_good_as_the_first(void **state)
{
    FIXTURE(f);
    tls_server s;

    f->endpoint->spki_pins[0] = f->other_pin;
    f->endpoint->spki_pins[1] = f->pin;
    f->endpoint->n_spki_pins = 2;
    exchange_with(f, &s, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false);
    assert_non_null(strstr(f->record.events, "END"));
}

static void an_address_counts_as_a_name_where_the_certificate_has_it(void **state)
{
    FIXTURE(f);
    tls_server s;

    tls_server_open(&s, test_certs(), "good", "-tls1_3");
    assert_int_equal(start(f, "127.0.0.1", s.port), SLUICE_OK);
    step_until_seen(f, &s, "POST /ohttp");
    step_until_sent(f);
    assert_non_null(strstr(f->record.events, "CONNECTED SENT"));
    tls_server_close(&s);
}

/* ---- what is refused before a byte has left ------------------------------------------------------------------ */

static void servers_that_cannot_be_trusted_get_no_request_byte(void **state)
{
    static const struct {
        const char *why, *certificate, *version;
        bool wrong_pin;
        sluice_status want;
        const char *words;
    } cases[] = {
        { "wrong pin", "good", "-tls1_3", true, SLUICE_ERR_PIN_MISMATCH, "none of those that the policy pins" },
        { "unknown CA", "unknown", "-tls1_3", false, SLUICE_ERR_TLS, "does not lead to the endpoint's CA" },
        { "unknown CA and wrong pin", "unknown", "-tls1_3", true, SLUICE_ERR_TLS, "does not lead to the endpoint's CA" },
        { "expired", "expired", "-tls1_3", false, SLUICE_ERR_TLS, "has expired" },
        { "not valid yet", "future", "-tls1_3", false, SLUICE_ERR_TLS, "not valid yet" },
        { "another host's", "wronghost", "-tls1_3", false, SLUICE_ERR_TLS, "for another host name" },
        { "TLS 1.2 only", "good", "-tls1_2", false, SLUICE_ERR_TLS, "handshake failed" },
    };
    FIXTURE(f);

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tls_server s;
        forget(f);
        f->endpoint->spki_pins[0] = cases[i].wrong_pin ? f->other_pin : f->pin;
        tls_server_open(&s, test_certs(), cases[i].certificate, cases[i].version);
        assert_int_equal(start(f, "localhost", s.port), SLUICE_OK);
        step_until_over(f);
        usleep(100000); /* so that what the server got could be here */
        if (tls_server_has_seen(&s, "POST") || tls_server_has_seen(&s, "Content-"))
            fail_msg("%s: the server has the request", cases[i].why);
        if (f->record.error.status != cases[i].want || strstr(f->record.error.message, cases[i].words) == NULL || f->record.error.hint[0] == '\0')
            fail_msg("%s: %s: %s (%s)", cases[i].why, sluice_status_name(f->record.error.status), f->record.error.message, f->record.error.hint);
        assert_false(f->record.was_sent);
        assert_string_equal(f->record.error.where, "gw");
        assert_null(strstr(f->record.events, "CONNECTED"));
        tls_server_close(&s);
    }
}

static void nobody_listening_is_a_network_error(void **state)
{
    FIXTURE(f);

    assert_int_equal(start(f, "localhost", unused_port()), SLUICE_OK);
    step_until_over(f);
    assert_string_equal(f->record.events, "SLUICE_ERR_NETWORK");
    assert_non_null(strstr(f->record.error.message, "refused"));
    assert_false(f->record.was_sent);
}

static void something_that_is_not_tls_fails_the_handshake(void **state)
{
    FIXTURE(f);
    raw_server s;

    raw_server_open(&s, NULL, "HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(start(f, "localhost", s.port), SLUICE_OK);
    step_until_over(f);
    assert_string_equal(f->record.events, "SLUICE_ERR_TLS");
    assert_non_null(strstr(f->record.error.hint, "captive portal"));
    raw_server_close(&s);
}

static void expect_refused_at_once(fixture *f, const char *what)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_exchange *x;

    forget(f);
    f->record.envelope = seal(f);
    if (f->transport.open(f->transport.user, f->record.envelope, &f->limits, on_event, &f->record, &x, &err) != SLUICE_ERR_ARGUMENT || x != NULL)
        fail_msg("taken: %s", what);
    assert_string_equal(err.where, "gw");
    assert_string_equal(f->record.events, "");
}

/* No policy file that says this would be read; the transport does not count on it. */
static void destinations_that_cannot_be_verified_are_refused_at_once(void **state)
{
    FIXTURE(f);
    static const char *const urls[] = { "http://localhost:1/", "ftp://localhost/", "https://user:word@localhost/", "https://", "/path", "" };
    static const char *const pins[] = { "", "short=", "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                                        "AAAAAAAAAAAAAAAAAAAAA;AAAAAAAAAAAAAAAAAAAAA=" };

    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        f->endpoint->url = urls[i];
        expect_refused_at_once(f, urls[i]);
    }
    f->endpoint->url = "https://localhost:1/";
    for (size_t i = 0; i < sizeof pins / sizeof pins[0]; i++) {
        f->endpoint->spki_pins[0] = pins[i];
        expect_refused_at_once(f, pins[i]);
    }
    f->endpoint->n_spki_pins = 0;
    expect_refused_at_once(f, "no pin");
    f->endpoint->spki_pins[0] = f->pin;
    f->endpoint->n_spki_pins = 1;
    f->endpoint->ca_pem = "";
    expect_refused_at_once(f, "no CA");
}

static void a_ca_that_is_no_certificate_fails_closed(void **state)
{
    FIXTURE(f);
    tls_server s;

    f->endpoint->ca_pem = "-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n";
    tls_server_open(&s, test_certs(), "good", "-tls1_3");
    assert_int_equal(start(f, "localhost", s.port), SLUICE_OK);
    step_until_over(f);
    assert_string_equal(f->record.events, "SLUICE_ERR_TLS");
    assert_false(tls_server_has_seen(&s, "POST"));
    tls_server_close(&s);
}

/* ---- time ------------------------------------------------------------------------------------------------------ */

static void each_timer_ends_its_own_phase(void **state)
{
    FIXTURE(f);
    tls_server s;
    raw_server silent;

    f->limits.connect_ms = 300;
    raw_server_open(&silent, NULL, NULL);
    assert_int_equal(start(f, "localhost", silent.port), SLUICE_OK);
    step_until_over(f);
    assert_string_equal(f->record.events, "SLUICE_ERR_TIMEOUT");
    assert_non_null(strstr(f->record.error.message, "no connection in time"));
    raw_server_close(&silent);

    forget(f);
    f->limits.connect_ms = 0;
    f->limits.first_byte_ms = 500;
    tls_server_open(&s, test_certs(), "good", "-tls1_3");
    assert_int_equal(start(f, "localhost", s.port), SLUICE_OK);
    step_until_over(f);
    assert_string_equal(f->record.events, "CONNECTED SENT SLUICE_ERR_TIMEOUT");
    assert_non_null(strstr(f->record.error.message, "has not answered in time"));
    assert_true(f->record.was_sent);
    tls_server_close(&s);

    forget(f);
    f->limits.first_byte_ms = 0;
    f->limits.gap_ms = 1000;
    exchange_with(f, &s, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", false);
    assert_non_null(strstr(f->record.events, "SLUICE_ERR_TIMEOUT"));
    assert_non_null(strstr(f->record.error.message, "stalled"));
    assert_int_equal(f->record.n_body, 3);

    forget(f);
    f->limits.gap_ms = 0;
    f->limits.deadline_us = now_us() + 1000000;
    tls_server_open(&s, test_certs(), "good", "-tls1_3");
    assert_int_equal(start(f, "localhost", s.port), SLUICE_OK);
    step_until_over(f);
    assert_non_null(strstr(f->record.events, "SLUICE_ERR_TIMEOUT"));
    assert_non_null(strstr(f->record.error.message, "deadline"));
    assert_true(now_us() >= f->limits.deadline_us);
    tls_server_close(&s);
}

static void a_deadline_in_the_past_opens_nothing(void **state)
{
    FIXTURE(f);

    f->limits.deadline_us = now_us() - 1;
    assert_int_equal(start(f, "localhost", 1), SLUICE_ERR_TIMEOUT);
    assert_null(f->record.exchange);
    assert_int_equal(f->transport.step(f->transport.user, 0), 0);
}

/* ---- answers that break off or are too large ------------------------------------------------------------------------ */

static void an_answer_that_breaks_off_is_truncated(void **state)
{
    static const char *const answers[] = { "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it",
                                           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
                                           "HTTP/1.1 200 OK\r\nContent-Type: te" };
    FIXTURE(f);
    tls_server s;

    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        forget(f);
        exchange_with(f, &s, answers[i], true);
        if (f->record.error.status != SLUICE_ERR_TRUNCATED)
            fail_msg("%s: %s %s", answers[i], f->record.events, f->record.error.message);
        assert_true(f->record.was_sent);
    }
}

static void a_connection_cut_before_the_answer_is_a_network_error(void **state)
{
    FIXTURE(f);
    tls_server s;

    exchange_with(f, &s, "", true);
    assert_string_equal(f->record.events, "CONNECTED SENT SLUICE_ERR_NETWORK");
    assert_true(f->record.was_sent);
}

static void answers_stay_within_their_limits(void **state)
{
    FIXTURE(f);
    tls_server s;
    char *answer = calloc(1, 60000);

    f->limits.response_bytes_max = 1000;
    exchange_with(f, &s, "HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", false); /* announced */
    assert_int_equal(f->record.error.status, SLUICE_ERR_LIMIT);
    assert_int_equal(f->record.n_body, 0);

    forget(f);
    (void)snprintf(answer, 60000, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n%02000d\r\n0\r\n\r\n", 0); /* not announced */
    exchange_with(f, &s, answer, false);
    assert_int_equal(f->record.error.status, SLUICE_ERR_LIMIT);
    assert_true(f->record.n_body <= 1000);

    forget(f);
    strcpy(answer, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 70; i++)
        sprintf(answer + strlen(answer), "X-%d: y\r\n", i);
    strcat(answer, "\r\n");
    exchange_with(f, &s, answer, false);
    assert_int_equal(f->record.error.status, SLUICE_ERR_LIMIT);
    assert_non_null(strstr(f->record.error.message, "header"));
    free(answer);
}

static void nonsense_instead_of_http_is_an_error(void **state)
{
    static const char *const answers[] = { "not http at all\r\n\r\n", "HTTP/1.1 xyz\r\n\r\n",
                                           "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: -5\r\n\r\n" };
    FIXTURE(f);
    tls_server s;

    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        forget(f);
        exchange_with(f, &s, answers[i], false);
        if (f->record.error.status != SLUICE_ERR_NETWORK)
            fail_msg("%s: %s %s", answers[i], f->record.events, f->record.error.message);
    }
}

/* ---- cancelling, waking, several at once --------------------------------------------------------------------------------- */

static void nothing_follows_a_cancel(void **state)
{
    static const sluice_exchange_event_kind kinds[] = { SLUICE_EXCHANGE_SENT, SLUICE_EXCHANGE_STATUS, SLUICE_EXCHANGE_HEADER, SLUICE_EXCHANGE_BODY,
                                                        SLUICE_EXCHANGE_END };
    FIXTURE(f);
    tls_server s;

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        forget(f);
        f->record.cancel_with = &f->transport;
        f->record.cancel_at = kinds[i];
        exchange_with(f, &s, "HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\nContent-Length: 3\r\n\r\nabc", false);
        for (int k = 0; k < 5; k++)
            assert_int_equal(f->transport.step(f->transport.user, 10), 0);
        assert_int_equal(f->record.n_after_cancel, 0);
    }
}

static void a_cancel_when_connected_keeps_the_request_back(void **state)
{
    FIXTURE(f);
    tls_server s;

    f->record.cancel_with = &f->transport;
    f->record.cancel_at = SLUICE_EXCHANGE_CONNECTED;
    tls_server_open(&s, test_certs(), "good", "-tls1_3");
    assert_int_equal(start(f, "localhost", s.port), SLUICE_OK);
    step_until_over(f);
    for (int k = 0; k < 5; k++)
        assert_int_equal(f->transport.step(f->transport.user, 20), 0);
    assert_string_equal(f->record.events, "CONNECTED");
    assert_false(tls_server_has_seen(&s, "POST"));
    tls_server_close(&s);
}

static void a_cancel_from_outside_frees_at_once(void **state)
{
    FIXTURE(f);
    raw_server s;
    size_t blocks;

    raw_server_open(&s, NULL, NULL);
    blocks = f->allocator.live_blocks;
    assert_int_equal(start(f, "localhost", s.port), SLUICE_OK);
    assert_int_equal(f->transport.step(f->transport.user, 50), 1);
    f->transport.cancel(f->transport.user, f->record.exchange);
    assert_int_equal(f->allocator.live_blocks, blocks);
    assert_int_equal(f->transport.step(f->transport.user, 0), 0);
    assert_int_equal(start(f, "localhost", s.port), SLUICE_OK); /* one that never ran, and one for close() to end */
    f->transport.cancel(f->transport.user, f->record.exchange);
    assert_int_equal(start(f, "localhost", s.port), SLUICE_OK);
    assert_int_equal(f->transport.step(f->transport.user, 50), 1);
    assert_string_equal(f->record.events, "");
    raw_server_close(&s);
}

static void *wake_soon(void *user)
{
    fixture *f = user;

    usleep(100000);
    f->transport.wake(f->transport.user);
    return NULL;
}

static void wake_ends_a_wait(void **state)
{
    FIXTURE(f);
    const uint64_t began_us = now_us();
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, wake_soon, f), 0);
    assert_int_equal(f->transport.step(f->transport.user, 8000), 0);
    pthread_join(thread, NULL);
    assert_true(now_us() - began_us < 4000000);
}

static void exchanges_run_side_by_side(void **state)
{
    FIXTURE(f);
    tls_server s[2];
    record records[2] = { 0 };
    char urls[2][100];

    for (int i = 0; i < 2; i++) {
        tls_server_open(&s[i], test_certs(), "good", "-tls1_3");
        (void)snprintf(urls[i], sizeof urls[i], "https://localhost:%d/", s[i].port);
        f->endpoint->url = urls[i];
        records[i].envelope = seal(f);
        assert_int_equal(f->transport.open(f->transport.user, records[i].envelope, &f->limits, on_event, &records[i], &records[i].exchange, NULL),
                         SLUICE_OK);
    }
    step_until_seen(f, &s[1], "POST /");
    step_until_seen(f, &s[0], "POST /");
    tls_server_say(&s[1], "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo");
    while (!records[1].is_over)
        assert_int_not_equal(f->transport.step(f->transport.user, 100), 0);
    assert_false(records[0].is_over);
    tls_server_say(&s[0], "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none");
    while (!records[0].is_over)
        (void)f->transport.step(f->transport.user, 100);
    assert_memory_equal(records[0].body, "one", 3);
    assert_memory_equal(records[1].body, "two", 3);
    tls_server_close(&s[0]);
    tls_server_close(&s[1]);
}

static sluice_status open_attempt(const sluice_allocator *al, void *user)
{
    fixture *f = user;
    sluice_transport t;
    sluice_exchange *x = NULL;
    sluice_status st = sluice_transport_curl_open(&t, sluice_platform_default(), al, NULL);

    if (st != SLUICE_OK) {
        assert_null(t.user);
        return st;
    }
    st = t.open(t.user, f->record.envelope, &f->limits, on_event, &f->record, &x, NULL);
    assert_true((st == SLUICE_OK) == (x != NULL));
    t.close(t.user);
    return st;
}

static void memory_running_out_is_a_status(void **state)
{
    FIXTURE(f);

    f->endpoint->url = "https://localhost:1/";
    f->record.envelope = seal(f);
    assert_int_equal(fake_allocator_sweep(open_attempt, f), 2); /* the transport, the exchange */
}

static void the_version_names_the_tls_library(void **state)
{
    (void)state;
    assert_int_equal(strncmp(sluice_transport_curl_version(), "libcurl/", 8), 0);
    assert_non_null(strchr(sluice_transport_curl_version(), ' '));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(events_come_in_order_and_the_body_is_whole),
        TEST(the_request_is_one_plain_post_with_fixed_headers),
        TEST(chunked_bodies_trailers_and_interim_answers_are_understood),
        TEST(other_statuses_are_answers_too),
        TEST(a_redirect_is_reported_and_not_followed),
        TEST(a_proxy_in_the_environment_is_not_used),
        TEST(a_backup_pin_is_as_good_as_the_first),
        TEST(an_address_counts_as_a_name_where_the_certificate_has_it),
        TEST(servers_that_cannot_be_trusted_get_no_request_byte),
        TEST(nobody_listening_is_a_network_error),
        TEST(something_that_is_not_tls_fails_the_handshake),
        TEST(destinations_that_cannot_be_verified_are_refused_at_once),
        TEST(a_ca_that_is_no_certificate_fails_closed),
        TEST(each_timer_ends_its_own_phase),
        TEST(a_deadline_in_the_past_opens_nothing),
        TEST(an_answer_that_breaks_off_is_truncated),
        TEST(a_connection_cut_before_the_answer_is_a_network_error),
        TEST(answers_stay_within_their_limits),
        TEST(nonsense_instead_of_http_is_an_error),
        TEST(nothing_follows_a_cancel),
        TEST(a_cancel_when_connected_keeps_the_request_back),
        TEST(a_cancel_from_outside_frees_at_once),
        TEST(wake_ends_a_wait),
        TEST(exchanges_run_side_by_side),
        TEST(memory_running_out_is_a_status),
        TEST(the_version_names_the_tls_library),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);

    test_certs_remove();
    return failed;
}
