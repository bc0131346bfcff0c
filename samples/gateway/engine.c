/* engine.c - answers with a model on this machine: a second instance of Sluice, under a policy that lets nothing out.
 *
 * It makes the way through the sealed envelope real from end to end without any provider.  What it says is what the model says: the demo
 * model answers with a JSON action, and the reply's `model` field says where that came from.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include "samples/gateway/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sluice/sluice.h"

enum { DEADLINE_MS = 60000, TEXT_BYTES_MAX = 1 << 20 };

static const char model_name[] = "sluice-demo-gateway (second engine instance on this machine)";

/* No endpoint and no rule, so nothing could leave even in another mode; every answer is confident enough for a mode that has no other. */
static const char policy[] =
    "{ \"sluice_policy\": 1, \"id\": \"gateway-engine\", \"version\": 1, \"mode\": \"local_only\","
    " \"router\": { \"escalate_below\": 0, \"stop_below\": 0, \"stream\": \"now\", \"deadline_ms\": 60000, \"max_tokens\": 512 } }";

typedef struct question {
    sluice *instance;
    gateway_stream *stream;
    gateway_reply reply;
    gateway_buf text; /* not streamed: the answer so far */
    bool is_streamed, wants_usage, has_started, has_failed;
} question;

/* ---- writing to the stream ------------------------------------------------------------------------------ */

static bool send_event(question *q, char *json)
{
    bool ok = json != NULL;

    ok = ok && gateway_stream_write(q->stream, "data: ", 6) && gateway_stream_write(q->stream, json, strlen(json)) &&
         gateway_stream_write(q->stream, "\n\n", 2);
    free(json);
    return ok;
}

static bool begin(question *q)
{
    if (q->has_started)
        return true;
    q->has_started = true;
    gateway_stream_start(q->stream, 200, q->is_streamed ? "text/event-stream" : "application/json");
    return !q->is_streamed || send_event(q, gateway_chat_chunk(&q->reply, "assistant", "", 0, NULL));
}

static void answer_error(question *q, int status, const char *type, const char *message)
{
    char *json = gateway_chat_error(type, message);

    if (q->has_started && q->is_streamed) {
        send_event(q, json);
        return;
    }
    gateway_stream_start(q->stream, status, "application/json");
    if (json != NULL)
        gateway_stream_write(q->stream, json, strlen(json));
    free(json);
}

static void on_text(question *q, const sluice_event *e)
{
    const char *text = (const char *)e->text.ptr;

    if (q->has_failed)
        return;
    if (q->is_streamed)
        q->has_failed = !begin(q) || !send_event(q, gateway_chat_chunk(&q->reply, NULL, text, e->text.len, NULL));
    else
        q->has_failed = gateway_stream_is_abandoned(q->stream) || !gateway_buf_add(&q->text, text, e->text.len);
    if (q->has_failed)
        (void)sluice_cancel(q->instance, e->request_id);
}

static bool has_reason(const sluice_event *e, sluice_reason reason)
{
    for (size_t i = 0; i < e->n_reasons; i++)
        if (e->reasons[i] == reason)
            return true;
    return false;
}

/* True: a whole answer, or a whole error. */
static bool finish_answer(question *q, const sluice_event *e)
{
    const char *finish = has_reason(e, SLUICE_REASON_OUTPUT_LIMIT) ? "length" : "stop";
    char *json;
    bool ok;

    if (!begin(q))
        return false;
    if (!q->is_streamed) {
        json = gateway_chat_whole(&q->reply, (const char *)q->text.ptr, q->text.len, finish, e->prompt_tokens, e->output_tokens);
        ok = json != NULL && gateway_stream_write(q->stream, json, strlen(json));
        free(json);
        return ok;
    }
    ok = send_event(q, gateway_chat_chunk(&q->reply, NULL, NULL, 0, finish));
    if (q->wants_usage)
        ok = ok && send_event(q, gateway_chat_usage_chunk(&q->reply, e->prompt_tokens, e->output_tokens));
    return ok && gateway_stream_write(q->stream, "data: [DONE]\n\n", 14);
}

static bool on_done(question *q, const sluice_event *e)
{
    if (q->has_failed)
        return false;
    switch (e->outcome) {
    case SLUICE_OUTCOME_ANSWERED:
    case SLUICE_OUTCOME_LOW_CONFIDENCE: return finish_answer(q, e);
    case SLUICE_OUTCOME_ABSTAINED:
    case SLUICE_OUTCOME_REFUSED: answer_error(q, 422, "model_cannot_answer", "the gateway's own model cannot take this request"); return true;
    case SLUICE_OUTCOME_CANCELLED: return false;
    default:
        gateway_log("the model failed: %s: %s", sluice_outcome_name(e->outcome), sluice_status_name(e->status));
        answer_error(q, 500, "model_failed", "the gateway's own model failed");
        return true;
    }
}

static void question_free(question *q)
{
    gateway_buf_free(&q->text);
    free(q);
}

static void on_event(const sluice_event *e, void *user)
{
    question *q = user;

    if (e->kind == SLUICE_EVENT_TEXT)
        on_text(q, e);
    if (e->kind == SLUICE_EVENT_DONE) {
        gateway_stream_finish(q->stream, on_done(q, e));
        question_free(q);
    }
}

/* ---- the backend ----------------------------------------------------------------------------------------- */

static sluice_status submit(question *q, const gateway_chat *chat, sluice_error *err)
{
    sluice_message *messages = calloc(chat->n_messages, sizeof *messages);
    sluice_request request;
    sluice_status st;
    uint64_t id;

    if (messages == NULL)
        return SLUICE_ERR_NO_MEMORY;
    for (size_t i = 0; i < chat->n_messages; i++) {
        messages[i].role = chat->messages[i].role;
        messages[i].text = (sluice_span){ (const uint8_t *)chat->messages[i].text, strlen(chat->messages[i].text) };
    }
    sluice_request_init(&request, sizeof request);
    request.messages = messages;
    request.n_messages = chat->n_messages;
    request.deadline_ms = DEADLINE_MS;
    request.privacy = SLUICE_PRIVACY_LOCAL_ONLY;
    request.max_tokens = chat->max_tokens;
    request.temperature = chat->temperature;
    st = sluice_submit(q->instance, &request, on_event, q, &id, err);
    free(messages);
    return st;
}

static void engine_ask(void *user, const char *body, size_t len, gateway_stream *s)
{
    question *q = calloc(1, sizeof *q);
    sluice_error err = SLUICE_ERROR_INIT;
    uint8_t random[8] = { 0 };
    gateway_chat chat;
    sluice_status st;

    if (q == NULL || gateway_chat_parse(&chat, body, len) != NULL) {
        free(q);
        gateway_stream_finish(s, false);
        return;
    }
    *q = (question){
        .instance = user, .stream = s, .is_streamed = chat.is_streamed, .wants_usage = chat.wants_usage, .text = { .max = TEXT_BYTES_MAX }
    };
    (void)gateway_random(random, sizeof random);
    (void)snprintf(q->reply.id, sizeof q->reply.id, "chatcmpl-");
    for (size_t i = 0; i < sizeof random; i++)
        (void)snprintf(q->reply.id + 9 + 2 * i, 3, "%02x", random[i]);
    q->reply.created = (long long)time(NULL);
    q->reply.model = model_name;
    st = submit(q, &chat, &err);
    gateway_chat_free(&chat);
    if (st == SLUICE_OK)
        return; /* on_event() has it now, and may be done with it already */
    gateway_log("the model refused a request: %s", sluice_status_name(st));
    answer_error(q, 400, "invalid_request_error", "the gateway's own model cannot take this request");
    gateway_stream_finish(s, true);
    question_free(q);
}

static void engine_close(void *user)
{
    sluice_close(user); /* delivers the terminal events of what runs */
}

bool gateway_engine_open(gateway_backend *out, const char *model_path, sluice_error *err)
{
    sluice_options options;
    sluice *instance;

    sluice_options_init(&options, sizeof options);
    options.policy_json = (sluice_span){ (const uint8_t *)policy, sizeof policy - 1 };
    options.model_path = model_path;
    if (sluice_open(&instance, &options, err) != SLUICE_OK)
        return false;
    *out = (gateway_backend){ .name = "a model on this machine", .user = instance, .ask = engine_ask, .close = engine_close };
    return true;
}
