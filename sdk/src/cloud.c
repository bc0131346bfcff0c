/* cloud.c - one cloud attempt: payload, gate, seal, transport, and the way back.
 *
 *   ASK_GATE     provider->build ── plaintext ──► sluice_egress_grant ──► grant
 *   START_CLOUD  grant + plaintext ── sluice_seal ──► envelope ──► transport->open
 *   body bytes   transport ──► answer opener (decrypts, verifies) ──► provider reader ──► text, usage, done ──► machine
 *
 * The plaintext is wiped as soon as it is sealed.  libcurl never sees anything but the envelope.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/src/instance.h"

static void close_attempt(sluice_job *job)
{
    sluice_envelope_close(job->envelope);
    job->envelope = NULL;
    sluice_answer_close(job->opener);
    job->opener = NULL;
    if (job->reader != NULL)
        job->provider->reader_close(job->reader);
    job->reader = NULL;
    sluice_grant_close(job->grant);
    job->grant = NULL;
    sluice_buf_clear(&job->payload);
}

static void breaker_result(sluice_job *job, bool ok)
{
    sluice *s = job->s;
    sluice_breaker *b = &s->breakers[job->machine.cloud];

    sluice_lock(s, s->state_lock);
    if (ok)
        sluice_breaker_succeeded(b);
    else
        sluice_breaker_failed(b, sluice_now_us(s->platform));
    sluice_unlock(s, s->state_lock);
}

/* A user who cancels or withdraws says nothing about the endpoint; an overrun deadline does.  An abandoned probe always counts, else the breaker
 * would stay half-open. */
static bool is_endpoints_fault(sluice_job *job)
{
    sluice *s = job->s;
    bool probing;

    sluice_lock(s, s->state_lock);
    probing = s->breakers[job->machine.cloud].state == SLUICE_BREAKER_HALF_OPEN;
    sluice_unlock(s, s->state_lock);
    for (size_t i = 0; i < job->machine.n_reasons; i++)
        if (job->machine.reasons[i] == SLUICE_REASON_DEADLINE)
            return true;
    return probing;
}

void sluice_cloud_abandon(sluice_job *job)
{
    if (job->exchange != NULL) {
        sluice_exchange *x = job->exchange;
        job->exchange = NULL;
        job->s->transport.cancel(job->s->transport.user, x);
        if (!job->attempt_done && is_endpoints_fault(job))
            breaker_result(job, false);
    }
    job->attempt_done = true;
    close_attempt(job);
}

/* ---- out ---------------------------------------------------------------------------------------------- */

static sluice_status build_payload(sluice_job *job, const sluice_policy_endpoint *ep, sluice_error *err)
{
    const sluice_request *r = &job->request;
    const int64_t wall_ms = sluice_wall_ms(job->s->platform);
    sluice_provider_message *messages = sluice_arena_alloc(&job->arena, r->n_messages * sizeof *messages);

    if (messages == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "cloud request: no memory");
    for (size_t i = 0; i < r->n_messages; i++) {
        messages[i].role = r->messages[i].role;
        messages[i].text = r->messages[i].text;
    }
    const sluice_provider_request p = {
        .authority = ep->target_authority, .path = ep->target_path, .model = ep->model, .messages = messages,
        .n_messages = r->n_messages, .max_tokens = r->max_tokens, .temperature = r->temperature, .is_streamed = true,
        .date_ms = wall_ms
    };
    job->provider = sluice_provider_find(ep->adapter);
    if (job->provider == NULL)
        return sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "endpoint %s: no adapter \"%s\"", ep->id, ep->adapter);
    sluice_buf_clear(&job->payload);
    return job->provider->build(&p, &job->payload, job->s->al, err);
}

static sluice_reason reason_for(sluice_status st)
{
    return st == SLUICE_ERR_LIMIT ? SLUICE_REASON_CLOUD_TOO_LARGE : SLUICE_REASON_CLOUD_FAILED;
}

void sluice_cloud_ask_gate(sluice_job *job, int endpoint, uint32_t attempt)
{
    sluice *s = job->s;
    const sluice_policy_endpoint *ep = &s->policy->endpoints[endpoint];
    sluice_machine_event e = { .kind = SLUICE_ME_GATE_REFUSED, .attempt = attempt };
    sluice_device_state device;

    close_attempt(job);
    sluice_error_clear(&job->cloud_error);
    s->platform->device_state(s->platform->user, &device);
    e.status = build_payload(job, ep, &job->cloud_error);
    e.reason = e.status != SLUICE_OK ? reason_for(e.status) : SLUICE_REASON_NONE;
    if (e.status == SLUICE_OK) {
        const sluice_egress_request q = {
            .request_id = job->id, .attempt = attempt,
            .query = { .purpose = job->purpose, .endpoint = (size_t)endpoint, .classes = job->features.classes,
                       .is_local_only = job->request.privacy == SLUICE_PRIVACY_LOCAL_ONLY, .network = device.network },
            .plaintext = sluice_buf_span(&job->payload), .expires_us = job->machine.deadline_us
        };
        sluice_lock(s, s->state_lock);
        if (!sluice_breaker_would_admit(&s->breakers[endpoint], sluice_now_us(s->platform))) {
            e.status = sluice_error_set(&job->cloud_error, SLUICE_ERR_NETWORK, "endpoint %s: paused after failures", ep->id);
            e.reason = SLUICE_REASON_CLOUD_BREAKER_OPEN;
        } else {
            e.status = sluice_egress_grant(s->gate, &q, &job->grant, &e.reason, &job->cloud_error);
            if (e.status == SLUICE_OK) /* a refusal must not hold the probe of a half-open breaker */
                (void)sluice_breaker_admit(&s->breakers[endpoint], sluice_now_us(s->platform));
        }
        sluice_unlock(s, s->state_lock);
    }
    if (e.status == SLUICE_OK) {
        e.kind = SLUICE_ME_GATE_GRANTED;
        (void)sluice_copy_str(job->receipt.endpoint, sizeof job->receipt.endpoint, ep->id);
        (void)sluice_copy_str(job->receipt.rule, sizeof job->receipt.rule, sluice_grant_rule_id(job->grant));
        (void)sluice_copy_str(job->receipt.consent, sizeof job->receipt.consent, sluice_grant_consent_id(job->grant));
        job->receipt.ledger_seq = sluice_grant_ledger_seq(job->grant);
    } else {
        sluice_buf_clear(&job->payload);
    }
    sluice_job_push(job, e);
}

/* ---- back --------------------------------------------------------------------------------------------- */

static void fail(sluice_job *job, sluice_status st)
{
    uint64_t jitter = 0;

    if (job->attempt_done)
        return;
    job->attempt_done = true;
    if (job->exchange != NULL) { /* nothing that still comes can mend it */
        sluice_exchange *x = job->exchange;
        job->exchange = NULL;
        job->s->transport.cancel(job->s->transport.user, x);
    }
    breaker_result(job, false);
    (void)sluice_random(job->s->platform, &jitter, sizeof jitter, NULL); /* without it: no jitter */
    const sluice_machine_event e = {
        .kind = SLUICE_ME_CLOUD_FAILED, .attempt = job->attempt, .status = st, .was_sent = job->attempt_sent, .jitter = jitter
    };
    sluice_job_push(job, e);
}

static bool on_provider(const sluice_provider_event *event, void *user)
{
    sluice_job *job = user;
    sluice_machine_event e = { .attempt = job->attempt };

    switch (event->part) {
    case SLUICE_PROVIDER_TEXT:
        e.kind = SLUICE_ME_CLOUD_TEXT;
        e.text = event->text;
        sluice_job_step(job, &e);
        break;
    case SLUICE_PROVIDER_USAGE:
        job->cloud_prompt_tokens = event->prompt_tokens;
        job->cloud_output_tokens = event->output_tokens;
        break;
    case SLUICE_PROVIDER_DONE: job->cloud_truncated = event->is_truncated; break;
    }
    return !job->is_finished && !job->attempt_done;
}

static bool on_answer(const sluice_answer_event *event, void *user)
{
    sluice_job *job = user;
    sluice_status st = SLUICE_OK;

    switch (event->part) {
    case SLUICE_ANSWER_STATUS:
        st = job->provider->reader_status(job->reader, event->http_status, &job->cloud_error);
        break;
    case SLUICE_ANSWER_HEADER:
        st = job->provider->reader_header(job->reader, event->name, event->value, &job->cloud_error);
        break;
    case SLUICE_ANSWER_BODY: st = job->provider->reader_feed(job->reader, event->body, &job->cloud_error); break;
    case SLUICE_ANSWER_END: break;
    }
    if (st != SLUICE_OK && st != SLUICE_ERR_CANCELLED)
        fail(job, st);
    return st == SLUICE_OK && !job->is_finished && !job->attempt_done;
}

/* The gateway refused before it opened the envelope.  That text is not authenticated, so only the number is believed. */
static void refuse_outer(sluice_job *job)
{
    sluice_error_set(&job->cloud_error, SLUICE_ERR_REMOTE, "endpoint %s: the gateway answered HTTP %d",
                     job->receipt.endpoint, job->outer_status);
    sluice_error_hint(&job->cloud_error, job->outer_status == 401 || job->outer_status == 403
                                             ? "the gateway does not accept this app"
                                             : "is \"key_config\" in the policy the gateway's present one?");
    fail(job, SLUICE_ERR_REMOTE);
}

static void on_header(sluice_job *job, const sluice_exchange_event *event)
{
    if (job->outer_status != 200 || !sluice_span_eq_str(event->name, "content-type") || job->answer_begun)
        return;
    const sluice_status st = sluice_answer_begin(job->opener, event->value, job->s->policy->response_bytes_max,
                                                 on_answer, job, &job->cloud_error);
    if (st != SLUICE_OK)
        fail(job, st);
    job->answer_begun = true;
}

static void on_body(sluice_job *job, sluice_span body)
{
    if (job->outer_status != 200 || job->attempt_done)
        return;
    job->receipt.sealed_bytes_received += body.len;
    if (!job->answer_begun) {
        fail(job, sluice_error_set(&job->cloud_error, SLUICE_ERR_FORMAT, "endpoint %s: an answer without content type",
                                   job->receipt.endpoint));
        return;
    }
    const sluice_status st = sluice_answer_feed(job->opener, body, &job->cloud_error);
    if (st != SLUICE_OK && st != SLUICE_ERR_CANCELLED)
        fail(job, st);
}

static void on_end(sluice_job *job)
{
    if (job->attempt_done)
        return;
    if (!job->answer_begun) {
        refuse_outer(job); /* 200 without content type or body */
        return;
    }
    sluice_status st = sluice_answer_finish(job->opener, &job->cloud_error);
    if (st == SLUICE_OK && !job->attempt_done)
        st = job->provider->reader_finish(job->reader, &job->cloud_error);
    if (st != SLUICE_OK) {
        if (st != SLUICE_ERR_CANCELLED)
            fail(job, st);
        return;
    }
    if (job->attempt_done)
        return;
    job->attempt_done = true;
    breaker_result(job, true);
    const sluice_machine_event e = {
        .kind = SLUICE_ME_CLOUD_DONE, .attempt = job->attempt, .is_truncated = job->cloud_truncated
    };
    sluice_job_push(job, e);
}

static void run_pending(sluice_job *job)
{
    if (job->n_pending == 0 || job->is_finished)
        return;
    const sluice_machine_event e = job->pending[0];
    memmove(job->pending, job->pending + 1, --job->n_pending * sizeof job->pending[0]);
    sluice_job_step(job, &e); /* which runs the rest */
}

static void on_exchange(const sluice_exchange_event *event, void *user)
{
    sluice_job *job = user;

    switch (event->kind) {
    case SLUICE_EXCHANGE_CONNECTED: /* from here on its bytes may leave */
        job->receipt.sealed_bytes_sent += sluice_envelope_bytes(job->envelope).len;
        break;
    case SLUICE_EXCHANGE_SENT: job->attempt_sent = true; break;
    case SLUICE_EXCHANGE_STATUS:
        job->outer_status = event->http_status;
        if (event->http_status != 200)
            refuse_outer(job);
        break;
    case SLUICE_EXCHANGE_HEADER: on_header(job, event); break;
    case SLUICE_EXCHANGE_BODY: on_body(job, event->body); break;
    case SLUICE_EXCHANGE_END:
        job->exchange = NULL; /* the transport releases it */
        on_end(job);
        break;
    case SLUICE_EXCHANGE_FAILED:
        job->attempt_sent = job->attempt_sent || event->was_sent;
        job->exchange = NULL;
        if (!job->attempt_done) {
            job->cloud_error = event->error;
            fail(job, event->error.status != SLUICE_OK ? event->error.status : SLUICE_ERR_NETWORK);
        }
        break;
    }
    run_pending(job);
}

/* Opened with the first envelope: libcurl opens a socket just to see whether there is IPv6, and who never escalates should never see one. */
static sluice_status need_transport(sluice *s, sluice_error *err)
{
    sluice_transport opened;
    if (s->has_transport)
        return SLUICE_OK;
    const sluice_status st = sluice_transport_curl_open(&opened, s->platform, s->al, err);
    if (st != SLUICE_OK)
        return st;
    sluice_lock(s, s->inbox_lock); /* other threads wake it */
    s->transport = opened;
    s->has_transport = true;
    sluice_unlock(s, s->inbox_lock);
    return SLUICE_OK;
}

void sluice_cloud_start(sluice_job *job, uint32_t attempt)
{
    sluice *s = job->s;
    const sluice_exchange_limits limits = {
        .deadline_us = job->machine.deadline_us, .response_bytes_max = s->policy->response_bytes_max
    };

    job->attempt = attempt;
    job->attempt_sent = job->attempt_done = job->answer_begun = job->cloud_truncated = false;
    job->outer_status = 0;
    sluice_lock(s, s->state_lock); /* spending the grant looks at the consent store */
    sluice_status st = sluice_seal(job->grant, sluice_buf_span(&job->payload), true, s->platform, s->al, &job->envelope,
                                   &job->opener, &job->cloud_error);
    sluice_unlock(s, s->state_lock);
    sluice_buf_clear(&job->payload);
    if (st == SLUICE_OK)
        st = job->provider->reader_open(&job->reader, s->al, on_provider, job, &job->cloud_error);
    if (st == SLUICE_OK)
        st = need_transport(s, &job->cloud_error);
    if (st == SLUICE_OK)
        st = s->transport.open(s->transport.user, job->envelope, &limits, on_exchange, job, &job->exchange, &job->cloud_error);
    if (st != SLUICE_OK) {
        fail(job, st);
        return;
    }
    job->receipt.attempts++;
}
