/* test_gateway.c - the whole way out and back, with nothing faked: policy, consent, ledger, gate, seal, TLS, gateway, model.
 *
 *   test_gateway <sluice-gateway> <model.gguf>
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE /* memmem */
#include "tests/support/cm.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/integration/house.h"
#include "tests/unit/cloud/tls_server.h"

static const char *gateway_path, *model_path;

static const char *const no_arguments[] = { NULL };
static const char question_text[] = "what will the weather be like in Heliopolis tomorrow?";

typedef struct scene {
    gateway_process gateway;
    house house;
    house_answer answer;
} scene;

static void scene_open(scene *s, const char *const *arguments)
{
    memset(s, 0, sizeof *s);
    if (!gateway_process_open(&s->gateway, arguments))
        fail_msg("the gateway did not start; SLUICE_TEST_VERBOSE=1 shows its words");
    house_open(&s->house, s->gateway.endpoint);
}

static void scene_close(scene *s)
{
    house_answer_close(&s->answer);
    house_close(&s->house);
    assert_int_equal(gateway_process_stop(&s->gateway), 0);
    gateway_process_close(&s->gateway);
}

static void ask(scene *s, const house_question *q)
{
    house_answer_close(&s->answer);
    assert_int_equal(house_seal(&s->house, q, &s->answer), SLUICE_OK);
    house_send(&s->house, q, &s->answer);
}

static void expect_whole_answer(const scene *s)
{
    if (!s->answer.is_whole || s->answer.inner_status != 200 || s->answer.n_text == 0)
        fail_msg("outer %d, inner %d, %zu bytes: %s %s", s->answer.outer_status, s->answer.inner_status, s->answer.n_text,
                 sluice_status_name(s->answer.error.status), s->answer.error.message);
}

/* ---- the way there and back ------------------------------------------------------------------------------------ */

static void streamed_and_plain_answers_are_the_same_text(void **state)
{
    char streamed[1024];
    scene s;

    (void)state;
    scene_open(&s, no_arguments);
    ask(&s, &(house_question){ .text = question_text, .is_streamed = true });
    expect_whole_answer(&s);
    assert_true(s.answer.n_text < sizeof streamed);
    assert_true(s.answer.n_pieces >= 1);
    memcpy(streamed, s.answer.text, sizeof streamed);
    ask(&s, &(house_question){ .text = question_text, .is_streamed = false });
    expect_whole_answer(&s);
    assert_string_equal(s.answer.text, streamed);
    assert_int_equal(s.answer.text[0], '{'); /* the demo model says what to do in JSON */
    scene_close(&s);
}

static void whoever_ends_tls_reads_neither_question_nor_answer(void **state)
{
    static const char *const secrets[] = {
        "Heliopolis", "weather", "messages", "chat/completions", "chatcmpl", "sluice-demo-gateway", "\"content\""
    };
    scene s;
    char *tap;
    size_t len;

    (void)state;
    scene_open(&s, no_arguments);
    ask(&s, &(house_question){ .text = question_text, .is_streamed = true });
    expect_whole_answer(&s);
    ask(&s, &(house_question){ .text = question_text, .is_streamed = false });
    expect_whole_answer(&s);
    tap = gateway_process_tap(&s.gateway, &len);
    assert_non_null(tap);
    assert_non_null(memmem(tap, len, "POST /ohttp HTTP/1.1", 20)); /* it is the tap that we think it is */
    assert_non_null(memmem(tap, len, "message/ohttp-chunked-res", 25));
    for (size_t i = 0; i < sizeof secrets / sizeof secrets[0]; i++)
        if (memmem(tap, len, secrets[i], strlen(secrets[i])) != NULL)
            fail_msg("\"%s\" can be read on the way", secrets[i]);
    if (s.answer.n_text >= 12 && memmem(tap, len, s.answer.text, 12) != NULL)
        fail_msg("the answer can be read on the way");
    free(tap);
    scene_close(&s);
}

static void the_size_on_the_way_does_not_tell_the_question(void **state)
{
    static const char *const texts[] = { "hi", "turn on the lights in the kitchen please", question_text };
    scene s;
    size_t first = 0;

    (void)state;
    scene_open(&s, no_arguments);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        house_answer_close(&s.answer);
        assert_int_equal(house_seal(&s.house, &(house_question){ .text = texts[i] }, &s.answer), SLUICE_OK);
        if (i == 0)
            first = sluice_envelope_bytes(s.answer.envelope).len;
        assert_int_equal(sluice_envelope_bytes(s.answer.envelope).len, first);
    }
    scene_close(&s);
}

/* ---- what the gateway refuses --------------------------------------------------------------------------------------- */

static void an_envelope_is_taken_once(void **state)
{
    const house_question q = { .text = question_text };
    scene s;

    (void)state;
    scene_open(&s, no_arguments);
    ask(&s, &q);
    expect_whole_answer(&s);
    house_send(&s.house, &q, &s.answer); /* the same bytes again, as whoever recorded them would */
    assert_int_equal(s.answer.outer_status, 400);
    assert_false(s.answer.is_begun);
    ask(&s, &q); /* the same question, sealed anew, is another request */
    expect_whole_answer(&s);
    scene_close(&s);
}

static void stale_requests_are_refused_under_the_seal(void **state)
{
    static const int64_t offsets_ms[] = { -3600 * 1000, 3600 * 1000 };
    scene s;

    (void)state;
    scene_open(&s, no_arguments);
    for (size_t i = 0; i < 2; i++) {
        ask(&s, &(house_question){ .text = question_text, .date_offset_ms = offsets_ms[i], .is_streamed = i == 1 });
        assert_int_equal(s.answer.outer_status, 200);
        assert_int_equal(s.answer.inner_status, 400);
        assert_int_equal(s.answer.n_text, 0);
    }
    scene_close(&s);
}

/* Replace `from` in the endpoint's description; free(). */
static char *with(const char *endpoint, const char *from, const char *to)
{
    const char *at = strstr(endpoint, from);
    char *out = calloc(1, strlen(endpoint) + strlen(to) + 1);

    assert_non_null(at);
    assert_non_null(out);
    memcpy(out, endpoint, (size_t)(at - endpoint));
    strcat(out, to);
    strcat(out, at + strlen(from));
    return out;
}

/* The value of a text field, with its quotes; free(). */
static char *field(const char *endpoint, const char *name)
{
    const char *at = strstr(endpoint, name), *end;

    assert_non_null(at);
    at = strchr(at + strlen(name), '"');
    assert_non_null(at);
    end = strchr(at + 1, '"');
    assert_non_null(end);
    return strndup(at, (size_t)(end + 1 - at));
}

static void other_targets_are_refused_under_the_seal(void **state)
{
    scene s;
    char *endpoint;

    (void)state;
    scene_open(&s, no_arguments);
    endpoint = with(s.gateway.endpoint, "model.gateway.internal", "intranet.example");
    house_close(&s.house);
    house_open(&s.house, endpoint);
    ask(&s, &(house_question){ .text = question_text });
    assert_int_equal(s.answer.outer_status, 200);
    assert_int_equal(s.answer.inner_status, 403);
    free(endpoint);
    scene_close(&s);
}

static void requests_sealed_to_another_key_are_refused(void **state)
{
    gateway_process other = { 0 };
    scene s;
    char *endpoint, *ours, *theirs;

    (void)state;
    scene_open(&s, no_arguments);
    assert_true(gateway_process_open(&other, no_arguments));
    ours = field(s.gateway.endpoint, "\"key_config\":");
    theirs = field(other.endpoint, "\"key_config\":");
    assert_string_not_equal(ours, theirs);
    endpoint = with(s.gateway.endpoint, ours, theirs);
    house_close(&s.house);
    house_open(&s.house, endpoint);
    ask(&s, &(house_question){ .text = question_text });
    assert_int_equal(s.answer.outer_status, 400);
    assert_false(s.answer.is_begun);
    free(endpoint);
    free(ours);
    free(theirs);
    gateway_process_close(&other);
    scene_close(&s);
}

/* A server with our CA in front of it but another key, or another CA, gets nothing. */
static void another_gateways_pin_or_ca_stops_the_request(void **state)
{
    static const struct {
        const char *name;
        sluice_status want;
    } cases[] = { { "\"spki_pins\":", SLUICE_ERR_PIN_MISMATCH }, { "\"ca_pem\":", SLUICE_ERR_TLS } };
    gateway_process other = { 0 };
    scene s;

    (void)state;
    scene_open(&s, no_arguments);
    assert_true(gateway_process_open(&other, no_arguments));
    for (size_t i = 0; i < 2; i++) {
        char *ours = field(s.gateway.endpoint, cases[i].name), *theirs = field(other.endpoint, cases[i].name),
             *endpoint = with(s.gateway.endpoint, ours, theirs);
        void *tap;
        size_t len = 0;

        house_close(&s.house);
        house_open(&s.house, endpoint);
        ask(&s, &(house_question){ .text = question_text });
        if (s.answer.error.status != cases[i].want)
            fail_msg("%s: %s %s", cases[i].name, sluice_status_name(s.answer.error.status), s.answer.error.message);
        assert_false(s.answer.was_sent);
        tap = gateway_process_tap(&s.gateway, &len);
        assert_int_equal(len, 0);
        free(tap);
        free(endpoint);
        free(theirs);
        free(ours);
    }
    gateway_process_close(&other);
    scene_close(&s);
}

/* ---- what goes wrong on the way ------------------------------------------------------------------------------------------ */

static void each_fault_is_seen_for_what_it_is_and_passes(void **state)
{
    static const struct {
        const char *mode;
        bool is_streamed;
        int outer, inner;
        sluice_status want;
    } cases[] = {
        { "status", true, 503, 0, SLUICE_OK },           { "inner", true, 200, 500, SLUICE_ERR_REMOTE },
        { "inner", false, 200, 500, SLUICE_ERR_REMOTE }, { "cut", true, 200, 200, SLUICE_ERR_TRUNCATED },
        { "cut", false, 200, 0, SLUICE_ERR_TRUNCATED },  { "stall", true, 0, 0, SLUICE_ERR_TIMEOUT },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *const arguments[] = { "--once-fail", cases[i].mode, NULL };
        const house_question q = { .text = question_text,
                                   .is_streamed = cases[i].is_streamed,
                                   .first_byte_ms = strcmp(cases[i].mode, "stall") == 0 ? 500 : 0 };
        scene s;

        scene_open(&s, arguments);
        ask(&s, &q);
        if (s.answer.outer_status != cases[i].outer || s.answer.inner_status != cases[i].inner || s.answer.error.status != cases[i].want ||
            s.answer.is_whole)
            fail_msg("%s: outer %d, inner %d, %s %s", cases[i].mode, s.answer.outer_status, s.answer.inner_status,
                     sluice_status_name(s.answer.error.status), s.answer.error.message);
        ask(&s, &(house_question){ .text = question_text, .is_streamed = true });
        expect_whole_answer(&s);
        scene_close(&s);
    }
}

static void a_gateway_that_dies_is_a_network_error(void **state)
{
    scene s;

    (void)state;
    scene_open(&s, no_arguments);
    assert_int_equal(gateway_process_stop(&s.gateway), 0);
    ask(&s, &(house_question){ .text = question_text });
    assert_int_equal(s.answer.error.status, SLUICE_ERR_NETWORK);
    house_answer_close(&s.answer);
    house_close(&s.house);
    gateway_process_close(&s.gateway);
}

/* ---- forwarding -------------------------------------------------------------------------------------------------------- */

static void the_upstreams_key_stays_with_the_gateway(void **state)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Secret-Header: sesame\r\nConnection: close\r\n\r\n"
                                 "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"from \"}}]}\n\n"
                                 "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"upstream\"},\"finish_reason\":\"stop\"}]}\n\n"
                                 "data: [DONE]\n\n";
    const char *arguments[] = { "--upstream", NULL, "--upstream-key-env", "SLUICE_TEST_UPSTREAM_KEY", NULL };
    raw_server upstream;
    char url[64];
    scene s;

    (void)state;
    raw_server_open(&upstream, "Authorization: Bearer sk-open-sesame\r\n", answer);
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d/v1", upstream.port);
    arguments[1] = url;
    setenv("SLUICE_TEST_UPSTREAM_KEY", "sk-open-sesame", 1);
    scene_open(&s, arguments);
    ask(&s, &(house_question){ .text = question_text, .is_streamed = true });
    expect_whole_answer(&s);
    assert_string_equal(s.answer.text, "from upstream");
    assert_null(strstr(s.answer.inner_headers, "sesame"));
    assert_non_null(strstr(s.answer.inner_headers, "content-type=text/event-stream"));
    raw_server_close(&upstream);
    ask(&s, &(house_question){ .text = question_text, .is_streamed = true });
    assert_int_equal(s.answer.inner_status, 502); /* and the phone learns of it under the seal */
    scene_close(&s);
}

/* ---- the program ------------------------------------------------------------------------------------------------------------ */

static void init_keeps_what_is_there(void **state)
{
    gateway_process g = { 0 };
    char *first;

    (void)state;
    assert_true(gateway_process_open(&g, no_arguments));
    first = field(g.endpoint, "\"key_config\":");
    assert_int_equal(gateway_process_stop(&g), 0);
    assert_true(gateway_process_open(&g, no_arguments)); /* runs init again */
    assert_non_null(strstr(g.endpoint, first));
    free(first);
    gateway_process_close(&g);
}

static void it_ends_with_its_parent(void **state)
{
    gateway_process g = { 0 };
    int pipe_fds[2];
    pid_t parent, child = 0;

    (void)state;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    assert_int_equal(pipe(pipe_fds), 0);
    temp_dir_open(&g.work);
    parent = fork();
    if (parent == 0) {
        const bool ok = gateway_process_open(&g, no_arguments);
        if (!ok || write(pipe_fds[1], &g.pid, sizeof g.pid) != sizeof g.pid)
            _exit(1);
        pause();
    }
    assert_int_equal(read(pipe_fds[0], &child, sizeof child), sizeof child);
    assert_int_equal(kill(child, 0), 0);
    kill(parent, SIGKILL);
    waitpid(parent, NULL, 0);
    for (int waited = 0; waited < 10000 && waitpid(child, NULL, WNOHANG) != child; waited += 20)
        usleep(20000);
    assert_int_not_equal(kill(child, 0), 0);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    gateway_process_close(&g);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streamed_and_plain_answers_are_the_same_text),
        cmocka_unit_test(whoever_ends_tls_reads_neither_question_nor_answer),
        cmocka_unit_test(the_size_on_the_way_does_not_tell_the_question),
        cmocka_unit_test(an_envelope_is_taken_once),
        cmocka_unit_test(stale_requests_are_refused_under_the_seal),
        cmocka_unit_test(other_targets_are_refused_under_the_seal),
        cmocka_unit_test(requests_sealed_to_another_key_are_refused),
        cmocka_unit_test(another_gateways_pin_or_ca_stops_the_request),
        cmocka_unit_test(each_fault_is_seen_for_what_it_is_and_passes),
        cmocka_unit_test(a_gateway_that_dies_is_a_network_error),
        cmocka_unit_test(the_upstreams_key_stays_with_the_gateway),
        cmocka_unit_test(init_keeps_what_is_there),
        cmocka_unit_test(it_ends_with_its_parent),
    };

    gateway_path = argc > 1 ? argv[1] : "";
    model_path = argc > 2 ? argv[2] : "";
    if (access(gateway_path, X_OK) != 0 || access(model_path, R_OK) != 0) {
        fprintf(stderr, "test_gateway: needs the gateway and a model: test_gateway <sluice-gateway> <model.gguf>\n");
        return 77;
    }
    house_programs(gateway_path, model_path);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
