/* sim_world.c - one run: an app, a device, a network and gateways, moved by one event queue under a virtual clock.
 *
 * The observer at the network keeps its own book of consents, from what the app did, and its own reading of the policy that was drawn; it opens each
 * envelope with the gateway's key and looks at what is really inside.  So the check shares no code with the gate.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE /* memmem */
#include <stdio.h>
#include <stdlib.h>

#include "sluice/gateway.h"
#include "tests/simulation/sim.h"

enum {
    REQUESTS_MAX = 4, ENDPOINTS = 2, CONSENTS_MAX = 16, QUEUE_MAX = 512, EXCHANGES_MAX = 24, RUNS_MAX = 32,
    ANSWER_MAX = 65536, TOKENS_MAX = 12, RUN_LIMIT_EVENTS = 20000
};

typedef struct consent_note { /* the observer's own book */
    char id[SLUICE_ID_MAX];
    uint32_t endpoint;
    sluice_data_classes classes;
    bool is_active, is_once;
    int64_t until_ms; /* 0: no end */
} consent_note;

typedef struct request_note {
    uint64_t id, submitted_us, deadline_us;
    sluice_data_classes classes;
    bool is_submitted, is_local_only, is_done;
    char prompt[160];
    char text[4096];
    size_t text_len;
    uint32_t n_done;
    char local_text[512], cloud_text[512]; /* what a whole answer of either would be */
} request_note;

typedef struct exchange_note {
    struct sluice_exchange *handle;
    sluice_exchange_fn on_event;
    void *user;
    bool is_live;
    sim_fault fault;
    uint8_t *answer; /* sealed bytes */
    size_t answer_len, sent;
    const char *content_type;
} exchange_note;

typedef struct run_note {
    uint64_t run, request_id;
    bool is_live;
    uint32_t n_tokens, next_token;
    float quality; /* probability of its weakest token */
    bool fails;
    uint32_t ms_per_token;
    char text[512];
    size_t at;
} run_note;

typedef enum happening_kind {
    H_SUBMIT = 1, H_CANCEL, H_GRANT, H_REVOKE, H_ANSWER, H_TOKEN, H_EXCHANGE, H_CLOCK, H_NETWORK
} happening_kind;

typedef struct happening {
    uint64_t at_us, seq;
    happening_kind kind;
    uint32_t index, detail;
    uint64_t id;
} happening;

typedef struct world {
    const sim_options *options;
    sim_result *result;
    sim_platform platform;
    sluice *s;
    sim_random net, model, app;
    happening queue[QUEUE_MAX];
    size_t n_queue;
    uint64_t next_seq;
    request_note requests[REQUESTS_MAX];
    consent_note consents[CONSENTS_MAX];
    size_t n_consents;
    exchange_note exchanges[EXCHANGES_MAX];
    size_t n_exchanges;
    run_note runs[RUNS_MAX];
    size_t n_runs;
    uint8_t secrets[ENDPOINTS][32];
    int64_t wall_start_ms, wall_high_ms; /* the observer's own reckoning of time */
    /* the policy that was drawn */
    sluice_data_classes permits[ENDPOINTS], forbids;
    bool needs_consent, is_local_only, can_ask;
    int64_t expires_ms;
    uint32_t fault_percent;
} world;

struct sluice_exchange { world *w; size_t index; };

/* The first violation is kept: what follows is often its consequence. */
static void violate(world *w, const char *what, const char *detail)
{
    if (w->result->violation[0] == '\0')
        (void)snprintf(w->result->violation, sizeof w->result->violation, "%s%s%s", what, detail[0] ? ": " : "", detail);
}

/* An error that is a violation, unless memory was taken away. */
static void complain(world *w, const char *what, const sluice_error *err)
{
    if (w->options->allocator == NULL || err->status != SLUICE_ERR_NO_MEMORY)
        violate(w, what, err->message);
}

static void trace(world *w, uint64_t x)
{
    w->result->trace = (w->result->trace ^ x ^ w->platform.now_us) * 0x100000001b3u;
}

static void plan(world *w, uint64_t delay_us, happening_kind kind, uint32_t index, uint32_t detail, uint64_t id)
{
    if (w->n_queue == QUEUE_MAX) {
        violate(w, "sim: the event queue is full", "");
        return;
    }
    w->queue[w->n_queue++] = (happening){ w->platform.now_us + delay_us, w->next_seq++, kind, index, detail, id };
}

static bool take_next(world *w, happening *out)
{
    size_t best = 0;
    if (w->n_queue == 0)
        return false;
    for (size_t i = 1; i < w->n_queue; i++)
        if (w->queue[i].at_us < w->queue[best].at_us ||
            (w->queue[i].at_us == w->queue[best].at_us && w->queue[i].seq < w->queue[best].seq))
            best = i;
    *out = w->queue[best];
    w->queue[best] = w->queue[--w->n_queue];
    return true;
}

/* ---- the app ------------------------------------------------------------------------------------------- */

static const struct { const char *text; sluice_data_classes classes; } prompts[] = {
    { "set a timer", SLUICE_CLASS_PROMPT },
    { "who wrote the odyssey", SLUICE_CLASS_PROMPT },
    { "write to jane.doe@example.org", SLUICE_CLASS_PROMPT | SLUICE_CLASS_EMAIL },
    { "my card is 4111 1111 1111 1111", SLUICE_CLASS_PROMPT | SLUICE_CLASS_PAYMENT_CARD },
};

static void check_answer(world *w, const request_note *r, const sluice_event *e)
{
    if (e->outcome != SLUICE_OUTCOME_ANSWERED)
        return;
    const char *whole = e->route == SLUICE_ROUTE_CLOUD ? r->cloud_text : r->local_text;
    if (strlen(whole) != r->text_len || memcmp(whole, r->text, r->text_len) != 0)
        violate(w, "a success was reported for an answer that is not whole", r->prompt);
}

static void on_event(const sluice_event *e, void *user)
{
    world *w = user;
    request_note *r = NULL;

    for (size_t i = 0; i < REQUESTS_MAX; i++)
        if (w->requests[i].is_submitted && w->requests[i].id == e->request_id)
            r = &w->requests[i];
    if (r == NULL) {
        violate(w, "an event of no request", "");
        return;
    }
    trace(w, (uint64_t)e->kind * 31 + (uint64_t)e->outcome * 7 + (uint64_t)e->route + e->text.len);
    if (r->is_done)
        violate(w, "an event after the terminal one", r->prompt);
    if (e->kind == SLUICE_EVENT_TEXT && r->text_len + e->text.len < sizeof r->text) {
        memcpy(r->text + r->text_len, e->text.ptr, e->text.len);
        r->text_len += e->text.len;
    } else if (e->kind == SLUICE_EVENT_RESTART) {
        r->text_len = 0;
    } else if (e->kind == SLUICE_EVENT_DONE) {
        r->is_done = true;
        r->n_done++;
        w->result->n_done++;
        w->result->outcomes[e->outcome]++;
        w->result->routes[e->route]++;
        if (w->platform.now_us > r->deadline_us)
            violate(w, "the terminal event came after the deadline", r->prompt);
        check_answer(w, r, e);
    }
    if (w->options->is_verbose)
        printf("%10.3f ms  request %llu  event %d  %s %s %.*s\n", (double)(w->platform.now_us - 1000000) / 1000.0,
               (unsigned long long)e->request_id, (int)e->kind,
               e->kind == SLUICE_EVENT_DONE ? sluice_outcome_name(e->outcome) : "", sluice_route_name(e->route),
               (int)e->text.len, (const char *)e->text.ptr);
}

static void on_consent(const sluice_consent_request *ask, void *user)
{
    world *w = user;
    const uint32_t endpoint = strcmp(ask->endpoint, "b") == 0;
    const uint32_t answer = sim_below(&w->app, 10); /* 0-4 once, 5-6 until, 7-8 no, 9 silence */
    if (answer < 9)
        plan(w, sim_below(&w->app, 400000), H_ANSWER, endpoint, answer | ask->classes << 8, ask->request_id);
}

static void submit(world *w, uint32_t k)
{
    request_note *r = &w->requests[k];
    sluice_message m = { "user", { NULL, 0 } };
    sluice_request q;
    const uint32_t kind = sim_below(&w->app, sizeof prompts / sizeof prompts[0]);

    sluice_request_init(&q, sizeof q);
    (void)snprintf(r->prompt, sizeof r->prompt, "tag-%u: %s", k, prompts[kind].text);
    (void)snprintf(r->cloud_text, sizeof r->cloud_text, "cloud says: answer %u is \xc3\xa9t\xc3\xa9 and more of it", k);
    r->classes = prompts[kind].classes;
    r->is_local_only = sim_chance(&w->app, 15);
    m.text = sluice_span_str(r->prompt);
    q.messages = &m;
    q.n_messages = 1;
    q.deadline_ms = sim_chance(&w->app, 20) ? 1 + sim_below(&w->app, 60) : 200 + sim_below(&w->app, 4000);
    q.privacy = r->is_local_only ? SLUICE_PRIVACY_LOCAL_ONLY : SLUICE_PRIVACY_POLICY;
    r->submitted_us = w->platform.now_us;
    r->deadline_us = r->submitted_us + (uint64_t)q.deadline_ms * 1000;
    sluice_error err = SLUICE_ERROR_INIT;
    if (sluice_submit(w->s, &q, on_event, w, &r->id, &err) != SLUICE_OK) {
        complain(w, "submit failed", &err);
        return;
    }
    r->is_submitted = true;
    w->result->n_requests++;
    if (sim_chance(&w->app, 10))
        plan(w, sim_below(&w->app, 1500000), H_CANCEL, k, 0, 0);
}

static void book(world *w, const char *id, uint32_t endpoint, sluice_data_classes classes, bool once, int64_t until_ms)
{
    if (w->n_consents == CONSENTS_MAX || w->options->observer_forgets_consents)
        return;
    consent_note *c = &w->consents[w->n_consents++];
    (void)sluice_copy_str(c->id, sizeof c->id, id);
    c->endpoint = endpoint;
    c->classes = classes;
    c->is_active = true;
    c->is_once = once;
    c->until_ms = until_ms;
}

static void grant(world *w)
{
    sluice_consent c;
    sluice_error err = SLUICE_ERROR_INIT;
    char id[SLUICE_ID_MAX] = "";
    const uint32_t endpoint = sim_below(&w->app, ENDPOINTS), scope = sim_below(&w->app, 3);

    sluice_consent_init(&c, sizeof c);
    (void)sluice_copy_str(c.purpose, sizeof c.purpose, "help");
    (void)sluice_copy_str(c.endpoint, sizeof c.endpoint, endpoint ? "b" : "a");
    c.classes = SLUICE_CLASS_PROMPT | (sim_chance(&w->app, 50) ? SLUICE_CLASS_EMAIL : 0);
    c.scope = (sluice_consent_scope)(scope + 1);
    if (c.scope == SLUICE_CONSENT_UNTIL && sim_chance(&w->app, 50))
        c.valid_until_ms = w->platform.wall_ms + 1 + (int64_t)sim_below(&w->app, 2000);
    const sluice_status st = sluice_consent_grant(w->s, &c, id, &err);
    if (w->options->is_verbose)
        printf("               grant %s to %s, scope %d, classes %x, until %lld: %s\n", id, c.endpoint, (int)c.scope, c.classes, (long long)c.valid_until_ms, sluice_status_name(st));
    if (st == SLUICE_OK)
        book(w, id, endpoint, c.classes, c.scope == SLUICE_CONSENT_ONCE, c.valid_until_ms);
}

static void answer_consent(world *w, const happening *h)
{
    sluice_consent c;
    sluice_error err = SLUICE_ERROR_INIT;
    const uint32_t answer = h->detail & 0xff;

    sluice_consent_init(&c, sizeof c);
    c.scope = answer < 5 ? SLUICE_CONSENT_ONCE : SLUICE_CONSENT_UNTIL;
    const bool yes = answer < 7;
    if (sluice_consent_answer(w->s, h->id, yes ? &c : NULL, &err) == SLUICE_OK && yes)
        book(w, "(asked)", h->index, h->detail >> 8, c.scope == SLUICE_CONSENT_ONCE, 0);
}

/* Withdraw every active consent, the observer's book first: from this instant on nothing may leave under them. */
static void revoke_all(world *w)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_consent *list = NULL;
    size_t n = 0;

    if (sluice_consent_list(w->s, &list, &n, &err) != SLUICE_OK)
        return; /* no memory for the list: the app knows of nothing to withdraw */
    for (size_t i = 0; i < w->n_consents; i++)
        w->consents[i].is_active = false;
    for (size_t i = 0; i < n; i++)
        if (list[i].state == SLUICE_CONSENT_ACTIVE)
            (void)sluice_consent_revoke(w->s, list[i].id, &err); /* a disk fault must not keep it in force */
    sluice_consent_list_free(w->s, list, n);
}

/* ---- the local model ------------------------------------------------------------------------------------ */

static sluice_status render(void *user, const sluice_engine_message *messages, size_t n_messages, int32_t *tokens, size_t *n,
                            sluice_error *err)
{
    world *w = user;
    (void)n_messages;
    if (sim_chance(&w->model, 5))
        return sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "sim: not this one");
    *n = 4 + messages[0].text.len / 8;
    for (size_t i = 0; i < *n; i++)
        tokens[i] = (int32_t)i;
    return SLUICE_OK;
}

static sluice_status start_run(void *user, const sluice_run *run, sluice_error *err)
{
    world *w = user;
    if (w->n_runs == RUNS_MAX)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "sim: too many runs");
    run_note *r = &w->runs[w->n_runs];
    memset(r, 0, sizeof *r);
    r->run = run->run;
    r->request_id = run->request_id;
    r->is_live = true;
    r->n_tokens = 1 + sim_below(&w->model, TOKENS_MAX);
    r->quality = sim_chance(&w->model, 50) ? 0.9f : (float)sim_below(&w->model, 100) / 100.0f;
    r->fails = sim_chance(&w->model, 5);
    r->ms_per_token = 1 + (sim_chance(&w->model, 20) ? sim_below(&w->model, 300) : sim_below(&w->model, 10));
    for (size_t k = 0; k < REQUESTS_MAX; k++)
        if (w->requests[k].is_submitted && w->requests[k].id == run->request_id)
            w->requests[k].local_text[0] = '\0';
    plan(w, r->ms_per_token * 1000u, H_TOKEN, (uint32_t)w->n_runs++, 0, 0);
    return SLUICE_OK;
}

static void cancel_run(void *user, uint64_t run)
{
    world *w = user;
    for (size_t i = 0; i < w->n_runs; i++)
        if (w->runs[i].run == run)
            w->runs[i].is_live = false;
}

static request_note *request_of(world *w, uint64_t id)
{
    for (size_t k = 0; k < REQUESTS_MAX; k++)
        if (w->requests[k].is_submitted && w->requests[k].id == id)
            return &w->requests[k];
    return NULL;
}

static void next_token(world *w, uint32_t index)
{
    run_note *r = &w->runs[index];
    static const char *const pieces[] = { "\xc3", "\xa9", " one", " two", "," }; /* a code point may come in halves */
    request_note *q = request_of(w, r->request_id);

    if (!r->is_live || q == NULL)
        return;
    if (r->next_token == r->n_tokens) {
        r->is_live = false;
        sluice_note *note = sluice_note_new(w->s, r->fails ? SLUICE_NOTE_LOCAL_FAILED : SLUICE_NOTE_LOCAL_DONE, SLUICE_SPAN_EMPTY);
        if (note == NULL)
            return;
        note->request_id = r->request_id;
        note->run = r->run;
        note->status = SLUICE_ERR_NO_MEMORY;
        note->result = (sluice_engine_result){ .prompt_tokens = 8, .output_tokens = r->n_tokens, .prefill_us = 1000,
                                               .decode_us = (uint64_t)r->n_tokens * r->ms_per_token * 1000, .stop = SLUICE_STOP_END };
        sluice_post(w->s, note);
        return;
    }
    const char *piece = r->next_token == 0 ? pieces[0] : r->next_token == 1 ? pieces[1] : pieces[2 + r->next_token % 3];
    if (r->n_tokens == 1)
        piece = pieces[2];
    (void)snprintf(q->local_text + strlen(q->local_text), sizeof q->local_text - strlen(q->local_text), "%s", piece);
    sluice_note *note = sluice_note_new(w->s, SLUICE_NOTE_TOKEN, sluice_span_str(piece));
    if (note == NULL)
        return;
    const float p = sim_chance(&w->model, 30) ? r->quality : 0.99f;
    note->request_id = r->request_id;
    note->run = r->run;
    note->logprob = p > 0.01f ? -(1.0f - p) : -5.0f;
    note->margin = p;
    note->entropy = 1.0f - p;
    r->next_token++;
    sluice_post(w->s, note);
    plan(w, r->ms_per_token * 1000u, H_TOKEN, index, 0, 0);
}

/* ---- the network and the gateway -------------------------------------------------------------------------- */

typedef struct sealed_sink { world *w; exchange_note *x; } sealed_sink;

static sluice_status collect(sluice_span bytes, void *user)
{
    sealed_sink *k = user;
    if (k->x->answer == NULL)
        k->x->answer = malloc(ANSWER_MAX);
    if (k->x->answer == NULL || k->x->answer_len + bytes.len > ANSWER_MAX)
        return SLUICE_ERR_NO_MEMORY;
    memcpy(k->x->answer + k->x->answer_len, bytes.ptr, bytes.len);
    k->x->answer_len += bytes.len;
    return SLUICE_OK;
}

/* The newest consent of the book that covers the request (the last word counts); a once-consent is used up by it. */
static bool use_covering_consent(world *w, const request_note *r, uint32_t endpoint)
{
    for (size_t i = w->n_consents; i-- > 0;) {
        consent_note *c = &w->consents[i];
        const bool in_time = c->until_ms == 0 || w->wall_high_ms < c->until_ms;
        if (!c->is_active || c->endpoint != endpoint || (r->classes & ~c->classes) != 0 || !in_time)
            continue;
        c->is_active = !c->is_once;
        return true;
    }
    return false;
}

static void inspect(world *w, const request_note *r, uint32_t endpoint)
{
    if (w->is_local_only || r->is_local_only)
        violate(w, "an envelope of a local-only request", r->prompt);
    if (r->is_done)
        violate(w, "an envelope after the terminal event", r->prompt);
    if (w->expires_ms != 0 && w->wall_high_ms >= w->expires_ms)
        violate(w, "an envelope under an expired policy", r->prompt);
    if ((r->classes & w->forbids) != 0 || (r->classes & ~w->permits[endpoint]) != 0)
        violate(w, "an envelope that no rule permits", r->prompt);
    if (w->needs_consent && !use_covering_consent(w, r, endpoint))
        violate(w, "an envelope without a covering consent", r->prompt);
}

static void answer_inside(world *w, sluice_gateway_exchange *g, exchange_note *x, const request_note *r)
{
    uint8_t random[32];
    char body[2048];
    sealed_sink sink = { w, x };
    sluice_error err = SLUICE_ERROR_INIT;
    const sluice_gateway_header h = { SLUICE_SPAN_LIT("content-type"), SLUICE_SPAN_LIT("text/event-stream") };

    for (size_t i = 0; i < sizeof random; i++)
        random[i] = (uint8_t)sim_next(&w->net);
    const int half = (int)strlen(r->cloud_text) / 2 + 1;
    const bool has_end = x->fault != SIM_FAULT_NO_END_MARK;
    const int n = x->fault == SIM_FAULT_INNER_ERROR
                      ? snprintf(body, sizeof body, "data: {\"error\":{\"message\":\"no\",\"type\":\"server_error\"}}\n\n")
                      : snprintf(body, sizeof body,
                                 "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"cloud \"},\"finish_reason\":null}]}\n\n"
                                 "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%.*s\"},\"finish_reason\":null}]}\n\n"
                                 "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"finish_reason\":null}]}\n\n%s",
                                 half - 6, r->cloud_text + 6, r->cloud_text + half,
                                 has_end ? "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n" : "");
    x->content_type = sluice_gateway_response_type(g);
    if (sluice_gateway_respond_begin(g, random, 200, &h, 1, collect, &sink, &err) != SLUICE_OK)
        violate(w, "sim: the gateway cannot answer", err.message);
    for (int at = 0; at < n;) { /* chunks of any size */
        int piece = 1 + (int)sim_below(&w->net, 200);
        piece = piece < n - at ? piece : n - at;
        (void)sluice_gateway_respond_body(g, sluice_span_of(body + at, (size_t)piece), &err);
        at += piece;
    }
    (void)sluice_gateway_respond_end(g, &err);
}

static sluice_status net_open(void *user, const sluice_envelope *envelope, const sluice_exchange_limits *limits,
                              sluice_exchange_fn on_exchange, void *event_user, sluice_exchange **out, sluice_error *err)
{
    world *w = user;
    const uint32_t endpoint = strcmp(sluice_envelope_destination(envelope)->endpoint_id, "b") == 0;
    sluice_gateway_exchange *g = NULL;
    sluice_gateway_request http;
    const request_note *r = NULL;

    (void)limits;
    *out = NULL;
    w->result->n_envelopes++;
    trace(w, 0xe000 + sluice_envelope_bytes(envelope).len);
    if (w->n_exchanges == EXCHANGES_MAX)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "sim: too many exchanges");
    if (sluice_gateway_open(&g, 1, w->secrets[endpoint], sluice_envelope_content_type(envelope), sluice_envelope_bytes(envelope),
                            NULL, &http, err) != SLUICE_OK) {
        violate(w, "an envelope that its gateway cannot open", err ? err->message : "");
        return SLUICE_ERR_INTEGRITY;
    }
    for (size_t k = 0; k < REQUESTS_MAX; k++) {
        char tag[16];
        (void)snprintf(tag, sizeof tag, "tag-%zu:", k);
        if (memmem(http.body.ptr, http.body.len, tag, strlen(tag)) != NULL)
            r = &w->requests[k];
    }
    exchange_note *x = &w->exchanges[w->n_exchanges];
    memset(x, 0, sizeof *x);
    x->on_event = on_exchange;
    x->user = event_user;
    x->is_live = true;
    x->fault = sim_chance(&w->net, w->fault_percent) ? (sim_fault)(1 + sim_below(&w->net, SIM_FAULTS_COUNT - 1)) : SIM_FAULT_NONE;
    w->result->faults[x->fault]++;
    if (r == NULL) {
        violate(w, "an envelope of no known request", "");
    } else {
        inspect(w, r, endpoint);
        answer_inside(w, g, x, r);
    }
    sluice_gateway_close(g);
    if (x->fault == SIM_FAULT_FORGED && x->answer_len > 40)
        x->answer[33 + sim_below(&w->net, (uint32_t)(x->answer_len - 33))] ^= 0x10;
    x->handle = malloc(sizeof *x->handle);
    if (x->handle == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "sim");
    *x->handle = (struct sluice_exchange){ w, w->n_exchanges };
    *out = x->handle;
    plan(w, 1000 + sim_below(&w->net, 200000), H_EXCHANGE, (uint32_t)w->n_exchanges++, 0, 0);
    return SLUICE_OK;
}

static void net_cancel(void *user, sluice_exchange *exchange)
{
    world *w = user;
    exchange_note *x = &w->exchanges[exchange->index];
    if (!x->is_live)
        violate(w, "an exchange was cancelled after its end", "");
    x->is_live = false;
}

static size_t net_step(void *user, uint32_t max_wait_ms) { (void)user; (void)max_wait_ms; return 0; }
static void net_wake(void *user) { (void)user; }
static void net_close(void *user) { (void)user; }

static void fail_exchange(exchange_note *x, sluice_status status, bool was_sent)
{
    sluice_exchange_event e = { .kind = SLUICE_EXCHANGE_FAILED, .was_sent = was_sent };
    sluice_error_set(&e.error, status, "sim: %s", sluice_status_name(status));
    x->is_live = false;
    x->on_event(&e, x->user);
}

static void say(exchange_note *x, sluice_exchange_event e)
{
    if (x->is_live)
        x->on_event(&e, x->user);
}

/* detail: 0 connect, 1 head, 2 a piece of the body. */
static void move_exchange(world *w, const happening *h)
{
    exchange_note *x = &w->exchanges[h->index];
    if (!x->is_live)
        return;
    trace(w, 0xc000 + h->detail);
    if (h->detail == 0) {
        if (x->fault == SIM_FAULT_REFUSED || x->fault == SIM_FAULT_PIN || x->fault == SIM_FAULT_TLS) {
            fail_exchange(x, x->fault == SIM_FAULT_REFUSED ? SLUICE_ERR_NETWORK : x->fault == SIM_FAULT_PIN ? SLUICE_ERR_PIN_MISMATCH : SLUICE_ERR_TLS, false);
            return;
        }
        say(x, (sluice_exchange_event){ .kind = SLUICE_EXCHANGE_CONNECTED });
        say(x, (sluice_exchange_event){ .kind = SLUICE_EXCHANGE_SENT });
        if (x->fault != SIM_FAULT_STALL)
            plan(w, 1000 + sim_below(&w->net, 300000), H_EXCHANGE, h->index, 1, 0);
        return;
    }
    if (h->detail == 1) {
        const bool refuses = x->fault == SIM_FAULT_STATUS;
        const char *type = refuses ? "application/problem+json" : x->fault == SIM_FAULT_PLAIN_TYPE ? "text/html" : x->content_type;
        say(x, (sluice_exchange_event){ .kind = SLUICE_EXCHANGE_STATUS, .http_status = refuses ? 503 : 200 });
        say(x, (sluice_exchange_event){ .kind = SLUICE_EXCHANGE_HEADER, .name = SLUICE_SPAN_LIT("content-type"), .value = sluice_span_str(type) });
        plan(w, 100, H_EXCHANGE, h->index, 2, 0);
        return;
    }
    if (x->fault == SIM_FAULT_CUT && x->sent >= x->answer_len / 2) {
        fail_exchange(x, SLUICE_ERR_NETWORK, true);
        return;
    }
    const size_t left = x->answer_len - x->sent;
    if (left == 0) {
        const sluice_exchange_event e = { .kind = SLUICE_EXCHANGE_END };
        x->is_live = false; /* released before the app hears of it, as the real transport's handle is gone after it */
        x->on_event(&e, x->user);
        return;
    }
    size_t piece = 1 + sim_below(&w->net, 400);
    piece = piece < left ? piece : left;
    const sluice_span body = sluice_span_of(x->answer + x->sent, piece);
    x->sent += piece;
    say(x, (sluice_exchange_event){ .kind = SLUICE_EXCHANGE_BODY, .body = body });
    plan(w, 100 + sim_below(&w->net, 20000), H_EXCHANGE, h->index, 2, 0);
}

/* ---- the run --------------------------------------------------------------------------------------------- */

static void draw_policy(world *w, uint64_t seed, char *out, size_t cap)
{
    sim_random r = sim_random_make(seed, "policy");
    static const char *const modes[] = { "prefer_local", "prefer_local", "prefer_local", "prefer_cloud", "cloud_only", "local_only" };
    const uint32_t mode = sim_below(&r, 6);
    const bool stream = sim_chance(&r, 30), expires = sim_chance(&r, 10), forbid = sim_chance(&r, 60), permit = sim_chance(&r, 90);
    const bool only_a = sim_chance(&r, 40), email = sim_chance(&r, 60);
    char keys[ENDPOINTS][128];

    w->is_local_only = mode == 5;
    w->needs_consent = sim_chance(&r, 90);
    w->can_ask = sim_chance(&r, 60);
    w->fault_percent = sim_chance(&r, 50) ? 0 : sim_below(&r, 80);
    w->expires_ms = expires ? 1800000001000 : 0; /* one second into the run */
    w->forbids = forbid ? SLUICE_CLASS_PAYMENT_CARD : 0;
    const sluice_data_classes permitted = SLUICE_CLASS_PROMPT | (email ? SLUICE_CLASS_EMAIL : 0) | SLUICE_CLASS_PAYMENT_CARD;
    for (size_t i = 0; i < ENDPOINTS; i++) {
        uint8_t config[64];
        size_t len = sizeof config;
        for (size_t k = 0; k < 32; k++)
            w->secrets[i][k] = (uint8_t)sim_next(&r);
        if (sluice_gateway_key_config(1, w->secrets[i], config, &len, NULL) != SLUICE_OK)
            violate(w, "sim: no key configuration", "");
        sluice_base64(keys[i], sluice_span_of(config, len));
        w->permits[i] = permit && !(only_a && i == 1) ? permitted : 0;
    }
    char permit_rule[256] = "", endpoints[2][1024];
    if (permit)
        (void)snprintf(permit_rule, sizeof permit_rule,
                       "{\"id\":\"p\",\"effect\":\"permit\",\"purposes\":[\"help\"],\"endpoints\":[\"a\"%s],"
                       "\"classes\":[\"prompt\"%s,\"payment_card\"],\"consent\":%s},",
                       only_a ? "" : ",\"b\"", email ? ",\"email\"" : "", w->needs_consent ? "true" : "false");
    for (size_t i = 0; i < ENDPOINTS; i++)
        (void)snprintf(endpoints[i], sizeof endpoints[i],
                       "{\"id\":\"%c\",\"url\":\"https://%c.test/ohttp\",\"adapter\":\"openai-chat\",\"model\":\"m\","
                       "\"target\":{\"authority\":\"m.test\",\"path\":\"/v1/chat/completions\"},"
                       "\"ca_pem\":\"-----BEGIN CERTIFICATE-----\\nAA==\\n-----END CERTIFICATE-----\\n\","
                       "\"spki_pins\":[\"sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\","
                       "\"sha256//AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\"],"
                       "\"key_config\":\"%s\",\"expected_ttft_ms\":100}",
                       (char)('a' + i), (char)('a' + i), keys[i]);
    const int n = snprintf(
        out, cap,
        "{\"sluice_policy\":1,\"id\":\"sim\",\"version\":1,\"mode\":\"%s\",%s"
        "\"router\":{\"escalate_below\":0.8,\"stop_below\":0.4,\"stream\":\"%s\",\"cloud_reserve_ms\":%u},"
        "\"limits\":{\"attempts\":%u},\"purposes\":[{\"id\":\"help\",\"text\":\"help\",\"text_version\":1}],"
        "\"endpoints\":[%s,%s],\"rules\":[%s%s{\"id\":\"no-secrets\",\"effect\":\"forbid\",\"classes\":[\"secret\"]}]}",
        modes[mode], expires ? "\"expires\":\"2027-01-15T08:00:01Z\"," : "", stream ? "now" : "hold", sim_below(&r, 2000),
        1 + sim_below(&r, 3), endpoints[0], endpoints[1], permit_rule,
        forbid ? "{\"id\":\"f\",\"effect\":\"forbid\",\"classes\":[\"payment_card\"]}," : "");
    if (n < 0 || (size_t)n >= cap)
        violate(w, "sim: the policy does not fit", "");
}

static void plan_the_day(world *w)
{
    for (uint32_t k = 0; k < REQUESTS_MAX; k++)
        plan(w, sim_below(&w->app, 1500000), H_SUBMIT, k, 0, 0);
    const uint32_t n_grants = sim_below(&w->app, 6), n_revokes = sim_below(&w->app, 3);
    for (uint32_t i = 0; i < n_grants; i++)
        plan(w, sim_below(&w->app, 2000000), H_GRANT, 0, 0, 0);
    for (uint32_t i = 0; i < n_revokes; i++)
        plan(w, sim_below(&w->app, 3000000), H_REVOKE, 0, 0, 0);
    if (sim_chance(&w->app, 30))
        plan(w, sim_below(&w->app, 2000000), H_CLOCK, 0, 0, 0);
    if (sim_chance(&w->app, 20))
        plan(w, sim_below(&w->app, 2000000), H_NETWORK, 0, 0, 0);
}

static void happen(world *w, const happening *h)
{
    if (w->options->is_verbose && h->kind != H_TOKEN && h->kind != H_EXCHANGE)
        printf("%10.3f ms  happening %d  wall %lld\n", (double)(w->platform.now_us - 1000000) / 1000.0, (int)h->kind, (long long)w->platform.wall_ms);
    switch (h->kind) {
    case H_SUBMIT: submit(w, h->index); break;
    case H_CANCEL:
        if (w->requests[h->index].is_submitted)
            (void)sluice_cancel(w->s, w->requests[h->index].id);
        break;
    case H_GRANT: grant(w); break;
    case H_REVOKE: revoke_all(w); break;
    case H_ANSWER: answer_consent(w, h); break;
    case H_TOKEN: next_token(w, h->index); break;
    case H_EXCHANGE: move_exchange(w, h); break;
    case H_CLOCK: /* a user sets the clock, to and fro; sometimes it is lost */
        w->platform.wall_ms = sim_chance(&w->app, 20) ? -1 : w->platform.wall_ms + (int64_t)sim_below(&w->app, 6000) - 3000;
        break;
    case H_NETWORK: w->platform.device.network = (sluice_network)sim_below(&w->app, 4); break;
    }
}

static void advance(world *w, uint64_t to_us)
{
    if (to_us <= w->platform.now_us)
        return;
    if (w->platform.wall_ms >= 0)
        w->platform.wall_ms += (int64_t)((to_us - w->platform.now_us) / 1000);
    w->platform.now_us = to_us;
    /* What any device must know: the clock it sees now, and that time passes at least as fast as the monotonic clock. */
    const int64_t passed = w->wall_start_ms + (int64_t)((to_us - 1000000) / 1000) - 2;
    w->wall_high_ms = w->platform.wall_ms > passed ? w->platform.wall_ms : passed;
}

static void live(world *w)
{
    for (uint32_t n = 0; n < RUN_LIMIT_EVENTS; n++) {
        const uint64_t timer = sluice_orchestrator_next_us(w->s);
        uint64_t next = UINT64_MAX;
        for (size_t i = 0; i < w->n_queue; i++)
            next = w->queue[i].at_us < next ? w->queue[i].at_us : next;
        if (timer == UINT64_MAX && next == UINT64_MAX)
            return;
        if (timer <= next) {
            advance(w, timer);
        } else {
            happening h;
            if (!take_next(w, &h))
                return;
            advance(w, h.at_us);
            happen(w, &h);
        }
        (void)sluice_orchestrator_turn(w->s);
    }
    violate(w, "sim: it never ends", "");
}

static void check_end(world *w)
{
    for (size_t k = 0; k < REQUESTS_MAX; k++)
        if (w->requests[k].is_submitted && w->requests[k].n_done != 1)
            violate(w, "not exactly one terminal event", w->requests[k].prompt);
    if (w->platform.disk_fault_percent == 0) {
        sluice_error err = SLUICE_ERROR_INIT;
        if (sluice_ledger_verify(w->s, NULL, &err) != SLUICE_OK)
            complain(w, "the ledger does not verify", &err);
    }
}

void sim_run(uint64_t seed, const sim_options *options, sim_result *out)
{
    static const sim_options plain;
    char policy[4096];
    world *w = calloc(1, sizeof *w);
    sluice_options o;
    sluice_error err = SLUICE_ERROR_INIT;

    memset(out, 0, sizeof *out);
    if (w == NULL) {
        (void)snprintf(out->violation, sizeof out->violation, "sim: no memory");
        return;
    }
    w->options = options != NULL ? options : &plain;
    w->result = out;
    out->trace = 0xcbf29ce484222325u;
    sim_platform_init(&w->platform, seed);
    w->wall_start_ms = w->wall_high_ms = w->platform.wall_ms;
    w->net = sim_random_make(seed, "net");
    w->model = sim_random_make(seed, "model");
    w->app = sim_random_make(seed, "app");
    draw_policy(w, seed, policy, sizeof policy);
    const sluice_transport transport = { .size = sizeof transport, .user = w, .open = net_open, .cancel = net_cancel,
                                         .step = net_step, .wake = net_wake, .close = net_close };
    const sluice_backend backend = { .user = w, .context_tokens = 64, .render = render, .start = start_run, .cancel = cancel_run };
    const sluice_parts parts = { .transport = &transport, .backend = sim_chance(&w->app, 95) ? &backend : NULL, .is_stepped = true };
    sluice_options_init(&o, sizeof o);
    o.policy_json = sluice_span_str(policy);
    o.state_dir = "/sim";
    o.platform = &w->platform.vtable;
    o.allocator = w->options->allocator;
    o.on_consent = w->can_ask ? on_consent : NULL;
    o.on_consent_user = w;
    if (sluice_instance_open(&w->s, &o, &parts, &err) != SLUICE_OK) {
        complain(w, "sim: open failed", &err);
    } else {
        w->platform.disk_fault_percent = seed % 5 == 0 ? 1 + (uint32_t)(seed / 5 % 20) : 0;
        plan_the_day(w);
        live(w);
        check_end(w);
        sluice_close(w->s);
    }
    for (size_t i = 0; i < w->n_exchanges; i++) {
        free(w->exchanges[i].answer);
        free(w->exchanges[i].handle);
    }
    sim_platform_deinit(&w->platform);
    free(w);
}
