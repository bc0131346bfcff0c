/* test_oom_cloud.c - every allocation of cloud-adapters fails once: the status says so, outputs are NULL, nothing is left
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cloud-adapters/oblivious/seal.h"
#include "cloud-adapters/providers/provider.h"
#include "sdk/crypto/crypto.h"
#include "sluice/gateway.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"
#include "tests/unit/cloud/gate.h"

static const uint8_t RANDOM[32] = { 4, 2 };
static const sluice_gateway_header HEADER = { { (const uint8_t *)"content-type", 12 }, { (const uint8_t *)"text/event-stream", 17 } };
static const sluice_provider_message MESSAGE = { "user", { (const uint8_t *)"How far is the moon from here, roughly?", 39 } };

typedef struct round_trip {
    test_gate gate;
    bool is_streamed;
} round_trip;

static sluice_status build(const sluice_allocator *al, bool is_streamed, sluice_buf *out)
{
    const sluice_provider_request q = { "api.example", "/v1/chat/completions", "small", &MESSAGE, 1, 64, 0.5f, is_streamed, 1763690000000 };

    sluice_buf_init(out, al, 1 << 20);
    return sluice_provider_find("openai-chat")->build(&q, out, al, NULL);
}

static sluice_status build_request(const sluice_allocator *al, void *user)
{
    sluice_buf out;
    const sluice_status st = build(al, *(bool *)user, &out);

    sluice_buf_deinit(&out);
    return st;
}

static sluice_status append(sluice_span bytes, void *user)
{
    return sluice_buf_append_span(user, bytes) ? SLUICE_OK : SLUICE_ERR_NO_MEMORY;
}

static sluice_status answer_from_gateway(const sluice_allocator *al, const sluice_envelope *e, sluice_buf *answer)
{
    sluice_gateway_exchange *x;
    sluice_gateway_request http;
    sluice_status st = sluice_gateway_open(&x, 7, TEST_GATEWAY_SECRET, sluice_envelope_content_type(e), sluice_envelope_bytes(e), al, &http, NULL);

    assert_true((st == SLUICE_OK) == (x != NULL));
    if (st == SLUICE_OK)
        st = sluice_gateway_respond_begin(x, RANDOM, 200, &HEADER, 1, append, answer, NULL);
    if (st == SLUICE_OK)
        st = sluice_gateway_respond_body(x, SLUICE_SPAN_LIT("data: one\n\n"), NULL);
    if (st == SLUICE_OK)
        st = sluice_gateway_respond_end(x, NULL);
    sluice_gateway_close(x);
    return st;
}

static bool take_part(const sluice_answer_event *e, void *user)
{
    if (e->part == SLUICE_ANSWER_END)
        ++*(int *)user;
    return true;
}

static sluice_status seal_answer_and_open(const sluice_allocator *al, void *user)
{
    round_trip *t = user;
    sluice_envelope *e = NULL;
    sluice_answer_opener *o = NULL;
    sluice_buf request, answer;
    sluice_grant *grant;
    sluice_status st;
    int n_ends = 0;

    assert_int_equal(build(NULL, t->is_streamed, &request), SLUICE_OK);
    grant = test_gate_grant(&t->gate, sluice_buf_span(&request));
    sluice_buf_init(&answer, NULL, 1 << 20);
    st = sluice_seal(grant, sluice_buf_span(&request), t->is_streamed, &t->gate.fp.platform, al, &e, &o, NULL);
    assert_true((st == SLUICE_OK) == (e != NULL) && (st == SLUICE_OK) == (o != NULL));
    if (st == SLUICE_OK)
        st = answer_from_gateway(al, e, &answer);
    if (st == SLUICE_OK)
        st = sluice_answer_begin(o, t->is_streamed ? SLUICE_SPAN_LIT("message/ohttp-chunked-res") : SLUICE_SPAN_LIT("message/ohttp-res"), 1 << 20,
                                 take_part, &n_ends, NULL);
    for (size_t i = 0; i < answer.len && st == SLUICE_OK; i++)
        st = sluice_answer_feed(o, sluice_span_of(answer.ptr + i, 1), NULL);
    if (st == SLUICE_OK)
        st = sluice_answer_finish(o, NULL);
    assert_int_equal(n_ends, st == SLUICE_OK);
    sluice_envelope_close(e);
    sluice_answer_close(o);
    sluice_grant_close(grant);
    sluice_buf_deinit(&request);
    sluice_buf_deinit(&answer);
    return st;
}

static bool take_event(const sluice_provider_event *e, void *user)
{
    if (e->part == SLUICE_PROVIDER_DONE)
        ++*(int *)user;
    return true;
}

typedef struct answer {
    int status;
    const char *type, *body;
    sluice_status want;
} answer;

static sluice_status read_answer(const sluice_allocator *al, void *user)
{
    const sluice_provider *p = sluice_provider_find("openai-chat");
    const answer *a = user;
    sluice_provider_reader *r;
    int n_done = 0;
    sluice_status st = p->reader_open(&r, al, take_event, &n_done, NULL);

    assert_true((st == SLUICE_OK) == (r != NULL));
    if (st == SLUICE_OK)
        st = p->reader_status(r, a->status, NULL);
    if (st == SLUICE_OK)
        st = p->reader_header(r, SLUICE_SPAN_LIT("content-type"), sluice_span_str(a->type), NULL);
    for (const char *c = a->body; *c != 0 && st == SLUICE_OK; c++)
        st = p->reader_feed(r, sluice_span_of(c, 1), NULL);
    if (st == SLUICE_OK)
        st = p->reader_finish(r, NULL);
    assert_int_equal(n_done, st == SLUICE_OK);
    p->reader_close(r);
    return st == a->want ? SLUICE_OK : st;
}

static void sealing_answering_and_opening_survive_every_failed_allocation(void **state)
{
    (void)state;
    for (int is_streamed = 0; is_streamed < 2; is_streamed++) {
        static round_trip t;
        size_t n;

        t.is_streamed = is_streamed != 0;
        test_gate_open(&t.gate, SLUICE_SPAN_EMPTY);
        n = fake_allocator_sweep(seal_answer_and_open, &t);
        assert_true(n != SIZE_MAX && n >= 10);
        test_gate_close(&t.gate);
    }
}

static void building_a_request_survives_every_failed_allocation(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        bool is_streamed = i != 0;
        const size_t n = fake_allocator_sweep(build_request, &is_streamed);

        assert_true(n != SIZE_MAX && n >= 3);
    }
}

static void reading_an_answer_survives_every_failed_allocation(void **state)
{
    static answer answers[] = {
        { 200, "text/event-stream",
          "event: x\ndata: "
          "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1}}\n\ndata: "
          "[DONE]\n\n",
          SLUICE_OK },
        { 200, "application/json", "{\"choices\":[{\"index\":0,\"message\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}", SLUICE_OK },
        { 429, "application/json", "{\"error\":{\"type\":\"rate_limit_exceeded\"}}", SLUICE_ERR_REMOTE },
    };

    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        const size_t n = fake_allocator_sweep(read_answer, &answers[i]);

        assert_true(n != SIZE_MAX && n >= 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sealing_answering_and_opening_survive_every_failed_allocation),
        cmocka_unit_test(building_a_request_survives_every_failed_allocation),
        cmocka_unit_test(reading_an_answer_survives_every_failed_allocation),
    };

    if (sluice_crypto_init(NULL) != SLUICE_OK)
        return 1;
    return cmocka_run_group_tests_name("oom_cloud", tests, NULL, NULL);
}
