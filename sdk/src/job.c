/* job.c - one request on the orchestrator: drives its machine, does what the machine says.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/src/instance.h"

enum { BYTES_A_TOKEN_MAX = 32 };

/* ---- making --------------------------------------------------------------------------------------- */

static sluice_status check_request(const sluice *s, const sluice_request *r, sluice_error *err)
{
    size_t total = 0;

    if (r == NULL || r->size < sizeof *r) /* the first version: nothing smaller is valid */
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "request: size is not set: call sluice_request_init() first");
    if (r->messages == NULL || r->n_messages == 0)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "request: no messages");
    if (r->n_messages > SLUICE_MESSAGES_MAX)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "request: %zu messages, at most %d", r->n_messages,
                                SLUICE_MESSAGES_MAX);
    for (size_t i = 0; i < r->n_messages; i++) {
        const sluice_message *m = &r->messages[i];
        if (m->role == NULL || (strcmp(m->role, "user") != 0 && strcmp(m->role, "system") != 0 &&
                                strcmp(m->role, "assistant") != 0))
            return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "request: message %zu has role \"%.20s\"", i,
                                    m->role ? m->role : "(null)");
        if (m->text.len > 0 && m->text.ptr == NULL)
            return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "request: message %zu has a length but no text", i);
        if (!sluice_add_size(total, m->text.len, &total) || total > SLUICE_REQUEST_BYTES_MAX) {
            sluice_error_set(err, SLUICE_ERR_LIMIT, "request: more than %d bytes of messages", SLUICE_REQUEST_BYTES_MAX);
            sluice_error_hint(err, "leave out older messages");
            return SLUICE_ERR_LIMIT;
        }
        if (!sluice_utf8_valid(m->text)) {
            sluice_error_set(err, SLUICE_ERR_ARGUMENT, "request: message %zu is not valid UTF-8", i);
            sluice_error_hint(err, "convert the text to UTF-8 first");
            return SLUICE_ERR_ARGUMENT;
        }
    }
    if (strcmp(r->messages[r->n_messages - 1].role, "user") != 0)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "request: the last message must be the user's");
    if (!(r->temperature >= 0.0f && r->temperature <= 5.0f))
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "request: temperature must be in [0, 5]");
    if ((r->extra_classes & ~(sluice_data_classes)SLUICE_CLASS_ALL) != 0)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "request: extra_classes has unknown bits");
    if (r->privacy != SLUICE_PRIVACY_POLICY && r->privacy != SLUICE_PRIVACY_LOCAL_ONLY)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "request: privacy class %d is unknown", (int)r->privacy);
    if (r->output_schema.len > 0 && r->output_schema.ptr == NULL)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "request: output_schema has a length but no text");
    if (r->output_schema.len > SLUICE_CONSTRAINT_MAX_SCHEMA_BYTES)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "request: output_schema has more than %d bytes", SLUICE_CONSTRAINT_MAX_SCHEMA_BYTES);
    if (r->output_schema.len > 0 && !(s->has_backend && s->backend.can_constrain)) {
        sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "request: output_schema needs a model on the device");
        sluice_error_hint(err, "open the instance with a model_path, or leave it out");
        return SLUICE_ERR_UNSUPPORTED;
    }
    if (r->purpose != NULL && sluice_policy_find_purpose(s->policy, r->purpose) < 0) {
        sluice_error_set(err, SLUICE_ERR_ARGUMENT, "request: the policy has no purpose \"%.60s\"", r->purpose);
        sluice_error_hint(err, "name one of the policy's \"purposes\", or leave it out");
        return SLUICE_ERR_ARGUMENT;
    }
    return SLUICE_OK;
}

static sluice_status copy_request(sluice_job *job, const sluice_request *r, sluice_error *err)
{
    sluice_message *messages = sluice_arena_alloc(&job->arena, r->n_messages * sizeof *messages);
    bool ok = messages != NULL;

    job->request = *r;
    job->request.output_schema = sluice_arena_copy(&job->arena, r->output_schema);
    ok = ok && job->request.output_schema.len == r->output_schema.len;
    for (size_t i = 0; ok && i < r->n_messages; i++) {
        messages[i].role = sluice_arena_strdup(&job->arena, sluice_span_str(r->messages[i].role));
        messages[i].text = sluice_arena_copy(&job->arena, r->messages[i].text);
        ok = messages[i].role != NULL && messages[i].text.len == r->messages[i].text.len;
    }
    job->request.messages = messages;
    if (ok && r->domain != NULL)
        ok = (job->request.domain = sluice_arena_strdup(&job->arena, sluice_span_str(r->domain))) != NULL;
    if (ok && r->purpose != NULL)
        ok = (job->request.purpose = sluice_arena_strdup(&job->arena, sluice_span_str(r->purpose))) != NULL;
    return ok ? SLUICE_OK : sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "request: no memory for a copy");
}

static void fill_defaults(sluice_job *job)
{
    const sluice_policy *p = job->s->policy;
    sluice_request *r = &job->request;
    const int purpose = sluice_policy_find_purpose(p, r->purpose);

    job->purpose = purpose >= 0 ? (size_t)purpose : SIZE_MAX; /* a policy without purposes permits nothing */
    if (r->deadline_ms == 0)
        r->deadline_ms = p->deadline_ms;
    if (r->max_tokens == 0)
        r->max_tokens = p->max_tokens;
    if (r->max_tokens > SLUICE_OUTPUT_TOKENS_MAX)
        r->max_tokens = SLUICE_OUTPUT_TOKENS_MAX;
    if (r->output_schema.len > 0)
        r->privacy = SLUICE_PRIVACY_LOCAL_ONLY; /* nothing would hold an answer from elsewhere to the schema */
}

sluice_status sluice_job_new(sluice_job **out, sluice *s, const sluice_request *request, sluice_error *err)
{
    *out = NULL;
    sluice_status st = check_request(s, request, err);
    if (st != SLUICE_OK)
        return st;
    sluice_job *job = sluice_alloc_zeroed(s->al, sizeof *job);
    if (job == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "request: no memory");
    job->s = s;
    sluice_arena_init(&job->arena, s->al, 4u * SLUICE_REQUEST_BYTES_MAX);
    sluice_buf_init(&job->held, s->al, SLUICE_OUTPUT_BYTES_MAX);
    sluice_buf_init(&job->carry, s->al, SLUICE_OUTPUT_BYTES_MAX);
    sluice_buf_init(&job->payload, s->al, s->policy->request_bytes_max);
    st = copy_request(job, request, err);
    if (st != SLUICE_OK) {
        sluice_job_free(job);
        return st;
    }
    if (s->poll_events && (job->done_event = sluice_alloc_zeroed(s->al, sizeof *job->done_event)) == NULL) {
        sluice_job_free(job);
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "request: no memory");
    }
    fill_defaults(job);
    job->submitted_us = sluice_now_us(s->platform);
    *out = job;
    return SLUICE_OK;
}

void sluice_job_free(sluice_job *job)
{
    if (job == NULL)
        return;
    const sluice_allocator *al = job->s->al;
    sluice_cloud_abandon(job);
    sluice_free(al, job->done_event, sizeof *job->done_event);
    sluice_free_wiped(al, job->tokens, job->n_tokens * sizeof *job->tokens);
    sluice_buf_deinit(&job->held);
    sluice_buf_deinit(&job->carry);
    sluice_buf_deinit(&job->payload);
    sluice_arena_deinit(&job->arena);
    sluice_free_wiped(al, job, sizeof *job);
}

/* ---- what is known before deciding ------------------------------------------------------------------ */

/* Render the prompt once; whether that works is part of "eligible". */
static sluice_status render(sluice_job *job, sluice_local_facts *facts, sluice_error *err)
{
    sluice *s = job->s;
    const sluice_request *r = &job->request;
    sluice_error detail = SLUICE_ERROR_INIT;

    /* No text packs this many bytes into each token: so long a prompt is not worth tokenizing to learn that it does not fit. */
    if (job->features.n_bytes / BYTES_A_TOKEN_MAX > s->backend.context_tokens) {
        facts->is_supported = true;
        facts->prompt_tokens = job->features.prompt_tokens_estimate;
        return SLUICE_OK;
    }
    sluice_engine_message *messages = sluice_arena_alloc(&job->arena, r->n_messages * sizeof *messages);
    size_t cap = s->backend.context_tokens;
    job->tokens = sluice_alloc_array(s->al, cap, sizeof *job->tokens);
    job->n_tokens = cap;
    if (messages == NULL || job->tokens == NULL) {
        job->n_tokens = job->tokens != NULL ? cap : 0;
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "request: no memory for %zu tokens", cap);
    }
    for (size_t i = 0; i < r->n_messages; i++) {
        messages[i].role = r->messages[i].role;
        messages[i].text = r->messages[i].text;
    }
    size_t n = cap;
    const sluice_status st = s->backend.render(s->backend.user, messages, r->n_messages, job->tokens, &n, &detail);
    facts->is_supported = st == SLUICE_OK || st == SLUICE_ERR_LIMIT;
    facts->fits_context = st == SLUICE_OK && n < cap; /* room for one token of answer */
    facts->prompt_tokens = n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
    if (st == SLUICE_ERR_NO_MEMORY)
        return sluice_error_set(err, st, "request: no memory for the prompt");
    if (facts->fits_context) { /* keep exactly what is used: the free must know the size */
        int32_t *exact = sluice_alloc_array(s->al, n, sizeof *exact);
        if (exact == NULL)
            return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "request: no memory for %zu tokens", n);
        memcpy(exact, job->tokens, n * sizeof *exact);
        sluice_free_wiped(s->al, job->tokens, cap * sizeof *job->tokens);
        job->tokens = exact;
        job->n_tokens = n;
    }
    return SLUICE_OK;
}

static void cloud_facts(sluice_job *job, const sluice_device_state *device, uint64_t now_us, sluice_decision_input *in)
{
    sluice *s = job->s;

    in->n_clouds = s->policy->n_endpoints;
    for (size_t i = 0; i < in->n_clouds; i++) {
        const sluice_policy_endpoint *e = &s->policy->endpoints[i];
        sluice_cloud_facts *c = &in->clouds[i];
        const sluice_policy_query q = {
            .purpose = job->purpose, .endpoint = i, .classes = job->features.classes,
            .is_local_only = job->request.privacy == SLUICE_PRIVACY_LOCAL_ONLY,
            .network = device->network, .wall_ms = sluice_wall_ms(s->platform)
        };
        c->is_usable = sluice_provider_find(e->adapter) != NULL && sluice_breaker_would_admit(&s->breakers[i], now_us);
        c->is_offline = device->network == SLUICE_NETWORK_NONE;
        c->expected_ttft_ms = e->expected_ttft_ms;
        c->expected_total_ms = e->expected_ttft_ms;
        c->permission = sluice_egress_check(s->gate, &q, &c->rule, NULL);
    }
}

sluice_status sluice_job_prepare(sluice_job *job, uint32_t time_left_ms, sluice_decision_input *in, sluice_error *err)
{
    sluice *s = job->s;
    const sluice_request *r = &job->request;
    const uint64_t t0 = sluice_now_us(s->platform);

    memset(in, 0, sizeof *in);
    sluice_features_input *texts = sluice_arena_alloc(&job->arena, r->n_messages * sizeof *texts);
    if (texts == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "request: no memory for features");
    for (size_t i = 0; i < r->n_messages; i++) {
        texts[i].role = r->messages[i].role;
        texts[i].text = r->messages[i].text;
    }
    sluice_features_compute(&job->features, texts, r->n_messages, r->extra_classes);

    in->policy = s->policy;
    in->time_left_ms = time_left_ms;
    in->is_local_only = r->privacy == SLUICE_PRIVACY_LOCAL_ONLY;
    in->can_ask = s->on_consent != NULL;
    in->local.is_present = s->has_backend;
    in->local.fits_memory = true; /* decided when the model was opened */
    s->platform->device_state(s->platform->user, &in->local.device);
    if (s->has_backend) {
        const sluice_status st = render(job, &in->local, err);
        if (st != SLUICE_OK)
            return st;
        job->features.prompt_tokens_estimate = in->local.prompt_tokens;
    }
    in->features = job->features;

    sluice_lock(s, s->state_lock);
    in->local.prefill_us_per_token = s->prefill_us_per_token;
    in->local.decode_us_per_token = s->decode_us_per_token;
    const float expected = s->output_tokens_mean > 0.0f ? s->output_tokens_mean : 16.0f;
    in->local.expected_output_tokens = expected < (float)r->max_tokens ? (uint32_t)expected : r->max_tokens;
    cloud_facts(job, &in->local.device, t0, in);
    sluice_unlock(s, s->state_lock);
    job->timings.features_us = sluice_now_us(s->platform) - t0;
    return SLUICE_OK;
}

/* ---- actions ------------------------------------------------------------------------------------------ */

void sluice_job_push(sluice_job *job, sluice_machine_event event)
{
    /* Eight are plenty: an action gives rise to one event, and the machine stops asking when it is done. */
    if (job->n_pending < sizeof job->pending / sizeof job->pending[0])
        job->pending[job->n_pending++] = event;
}

static void note_text_time(sluice_job *job)
{
    job->last_text_us = sluice_now_us(job->s->platform);
    if (job->first_text_us == 0)
        job->first_text_us = job->last_text_us;
}

static void deliver_text(sluice_job *job, sluice_span text)
{
    if (text.len == 0)
        return;
    note_text_time(job);
    sluice_event e = { .kind = SLUICE_EVENT_TEXT, .text = text, .confidence = -1.0f };
    sluice_deliver(job, &e);
}

static void deliver_held(sluice_job *job)
{
    static const uint8_t replacement[] = { 0xef, 0xbf, 0xbd }; /* U+FFFD for a code point that never became whole */
    if (job->carry.len > 0)
        (void)sluice_buf_append(&job->held, replacement, sizeof replacement);
    sluice_buf_clear(&job->carry);
    deliver_text(job, sluice_buf_span(&job->held));
}

static void report_route(sluice_job *job, const sluice_machine_action *a)
{
    sluice_event e = { .kind = SLUICE_EVENT_ROUTE, .route = a->route, .confidence = a->confidence };
    memcpy(e.reasons, job->machine.reasons, sizeof e.reasons);
    e.n_reasons = job->machine.n_reasons;
    sluice_deliver(job, &e);
}

/* Remember the question (or, with endpoint < 0, forget it), so that the answer can be matched from any thread. */
static void set_question(sluice_job *job, int endpoint)
{
    sluice *s = job->s;
    const uint64_t looking_for = endpoint < 0 ? job->id : 0;

    sluice_lock(s, s->state_lock);
    for (size_t i = 0; i < SLUICE_REQUESTS_MAX; i++)
        if (s->asked[i].request_id == looking_for) {
            s->asked[i] = (sluice_asked){ 0, 0, 0, 0 };
            if (endpoint >= 0)
                s->asked[i] = (sluice_asked){ job->id, job->purpose, (size_t)endpoint, job->features.classes };
            break;
        }
    sluice_unlock(s, s->state_lock);
}

static void ask_consent(sluice_job *job, int endpoint)
{
    sluice *s = job->s;
    const sluice_policy_endpoint *ep = &s->policy->endpoints[endpoint];
    const sluice_policy_purpose *pu = job->purpose < s->policy->n_purposes ? &s->policy->purposes[job->purpose] : NULL;
    const sluice_consent_request ask = {
        .size = sizeof ask, .request_id = job->id, .purpose = pu ? pu->id : "", .purpose_text = pu ? pu->text : "",
        .endpoint = ep->id, .controller = ep->controller ? ep->controller : "", .region = ep->region ? ep->region : "",
        .classes = job->features.classes
    };
    sluice_event e = { .kind = SLUICE_EVENT_CONSENT, .route = SLUICE_ROUTE_ASK, .confidence = -1.0f };
    if (s->on_consent == NULL) {
        sluice_job_push(job, (sluice_machine_event){ .kind = SLUICE_ME_CONSENT });
        return;
    }
    set_question(job, endpoint); /* first: the answer may come from inside the event */
    sluice_deliver(job, &e);
    s->on_consent(&ask, s->on_consent_user);
}

static void start_local(sluice_job *job)
{
    sluice *s = job->s;

    sluice_buf_clear(&job->held);
    sluice_buf_clear(&job->carry);
    job->run = ++s->next_run;
    job->local_output_tokens = 0;
    const sluice_run run = {
        .request_id = job->id, .run = job->run, .tokens = job->tokens, .n_tokens = job->n_tokens,
        .max_tokens = job->request.max_tokens,
        .sampling = { .temperature = job->request.temperature, .top_p = 1.0f, .seed = job->request.seed },
        .output_schema = job->request.output_schema, .keep_session = job->request.keep_session
    };
    const sluice_status st = s->backend.start(s->backend.user, &run, &job->local_error);
    if (st != SLUICE_OK)
        sluice_job_push(job, (sluice_machine_event){ .kind = SLUICE_ME_LOCAL_FAILED, .status = st });
}

static void stop_local(sluice_job *job)
{
    if (job->run != 0)
        job->s->backend.cancel(job->s->backend.user, job->run);
    job->run = 0;
}

static void append_ledger(sluice_job *job, const char *type, const sluice_ledger_field *fields, size_t n)
{
    sluice *s = job->s;
    sluice_error err = SLUICE_ERROR_INIT;

    sluice_lock(s, s->state_lock);
    if (s->ledger != NULL && sluice_ledger_append(s->ledger, type, fields, n, NULL, &err) != SLUICE_OK)
        sluice_log(s->platform, SLUICE_LOG_WARN, "ledger: %s", err.message);
    sluice_unlock(s, s->state_lock);
}

static void record(sluice_job *job, const sluice_machine_action *a)
{
    const bool is_attempt = a->attempt > 0;
    const sluice_ledger_field fields[] = {
        { "request", NULL, job->id },
        { "reason", sluice_reason_name(a->reason), 0 },
        { "route", sluice_route_name(job->machine.decision.route), 0 },
        { "status", sluice_status_name(a->status), 0 },
        { "attempt", NULL, a->attempt },
    };
    append_ledger(job, is_attempt ? "attempt" : "decision", fields, is_attempt ? 5 : 3);
}

static void learn_rates(sluice_job *job, const sluice_engine_result *r)
{
    sluice *s = job->s;
    enum { SHARE_OF_NEW = 4 }; /* moving average: a quarter of each new measurement */

    sluice_lock(s, s->state_lock);
    /* A run of the few tokens that a kept session lacks is one that reads all weights for them: it says nothing about a whole prompt. */
    if (r->prompt_tokens > 0 && r->reused_tokens <= r->prompt_tokens / 2) {
        const float x = (float)r->prefill_us / (float)(r->prompt_tokens - r->reused_tokens);
        s->prefill_us_per_token += s->prefill_us_per_token > 0.0f ? (x - s->prefill_us_per_token) / SHARE_OF_NEW : x;
    }
    if (r->output_tokens > 0) {
        const float x = (float)r->decode_us / (float)r->output_tokens;
        s->decode_us_per_token += s->decode_us_per_token > 0.0f ? (x - s->decode_us_per_token) / SHARE_OF_NEW : x;
        const float n = (float)r->output_tokens;
        s->output_tokens_mean += s->output_tokens_mean > 0.0f ? (n - s->output_tokens_mean) / SHARE_OF_NEW : n;
    }
    sluice_unlock(s, s->state_lock);
}

static void fill_timings(sluice_job *job, uint64_t now_us, uint32_t output_tokens)
{
    sluice_timings *t = &job->timings;
    t->queued_us = job->started_us - job->submitted_us;
    t->total_us = now_us - job->submitted_us;
    t->ttft_us = job->first_text_us ? job->first_text_us - job->submitted_us : 0;
    if (t->tpot_us == 0 && output_tokens > 1 && job->last_text_us > job->first_text_us)
        t->tpot_us = (job->last_text_us - job->first_text_us) / (output_tokens - 1);
}

static void finish(sluice_job *job, const sluice_machine_action *a)
{
    sluice_event e = { .kind = SLUICE_EVENT_DONE, .route = a->route, .outcome = a->outcome, .status = a->status };
    const bool local = a->route == SLUICE_ROUTE_LOCAL;

    stop_local(job);
    sluice_cloud_abandon(job);
    set_question(job, -1);
    memcpy(e.reasons, job->machine.reasons, sizeof e.reasons);
    e.n_reasons = job->machine.n_reasons;
    e.confidence = a->confidence;
    e.prompt_tokens = local ? job->local_prompt_tokens : job->cloud_prompt_tokens;
    e.output_tokens = local ? job->local_output_tokens : job->cloud_output_tokens;
    if (job->has_lost_text && e.status == SLUICE_OK) {
        e.outcome = SLUICE_OUTCOME_FAILED;
        e.status = sluice_error_set(&e.error, SLUICE_ERR_NO_MEMORY, "a piece of the answer was lost for want of memory");
    } else if (a->status != SLUICE_OK) {
        e.error = job->cloud_error.status == a->status ? job->cloud_error : job->local_error;
        if (e.error.status != a->status)
            sluice_error_set(&e.error, a->status, "%s",
                             a->status == SLUICE_ERR_TIMEOUT     ? "the deadline has passed"
                             : a->status == SLUICE_ERR_CANCELLED ? "the app cancelled the request"
                             : a->status == SLUICE_ERR_CONSENT   ? "consent was withdrawn while the answer came in"
                                                                 : sluice_status_name(a->status));
    }
    fill_timings(job, sluice_now_us(job->s->platform), e.output_tokens);
    e.timings = job->timings;
    job->receipt.classes = job->features.classes;
    e.receipt = job->receipt;
    job->is_finished = true;
    sluice_deliver(job, &e);
    const sluice_ledger_field fields[] = {
        { "request", NULL, job->id },
        { "outcome", sluice_outcome_name(a->outcome), 0 },
        { "route", sluice_route_name(a->route), 0 },
        { "attempts", NULL, job->receipt.attempts },
        { "sealed_bytes_sent", NULL, job->receipt.sealed_bytes_sent },
        { "sealed_bytes_received", NULL, job->receipt.sealed_bytes_received },
    };
    append_ledger(job, "outcome", fields, sizeof fields / sizeof fields[0]); /* after the event: the app need not wait for the disk */
}

static void do_action(sluice_job *job, const sluice_machine_action *a)
{
    switch (a->kind) {
    case SLUICE_MA_START_LOCAL: start_local(job); break;
    case SLUICE_MA_STOP_LOCAL: stop_local(job); break;
    case SLUICE_MA_ASK_CONSENT: ask_consent(job, a->cloud); break;
    case SLUICE_MA_ASK_GATE: sluice_cloud_ask_gate(job, a->cloud, a->attempt); break;
    case SLUICE_MA_START_CLOUD: sluice_cloud_start(job, a->attempt); break;
    case SLUICE_MA_CANCEL_CLOUD: sluice_cloud_abandon(job); break;
    case SLUICE_MA_DELIVER: deliver_text(job, a->text); break;
    case SLUICE_MA_DELIVER_HELD: deliver_held(job); break;
    case SLUICE_MA_RESTART: {
        sluice_event e = { .kind = SLUICE_EVENT_RESTART, .confidence = -1.0f };
        sluice_deliver(job, &e);
        break;
    }
    case SLUICE_MA_REPORT_ROUTE: report_route(job, a); break;
    case SLUICE_MA_ARM_TIMER: job->timer_at_us[a->timer] = a->at_us; break;
    case SLUICE_MA_RECORD: record(job, a); break;
    case SLUICE_MA_FINISH: finish(job, a); break;
    }
}

static void step_once(sluice_job *job, const sluice_machine_event *event)
{
    sluice_machine_action actions[SLUICE_MACHINE_ACTIONS_MAX];
    const size_t n = sluice_machine_step(&job->machine, event, sluice_now_us(job->s->platform), actions);
    for (size_t i = 0; i < n; i++)
        do_action(job, &actions[i]);
}

void sluice_job_step(sluice_job *job, const sluice_machine_event *event)
{
    step_once(job, event);
    while (job->n_pending > 0) {
        const sluice_machine_event next = job->pending[0];
        memmove(job->pending, job->pending + 1, --job->n_pending * sizeof job->pending[0]);
        step_once(job, &next);
    }
}

void sluice_job_start(sluice_job *job)
{
    sluice *s = job->s;
    sluice_decision_input in;
    sluice_decision decision;

    job->started_us = sluice_now_us(s->platform);
    const uint64_t deadline_us = job->submitted_us + (uint64_t)job->request.deadline_ms * 1000;
    const uint64_t left_us = deadline_us > job->started_us ? deadline_us - job->started_us : 0;
    sluice_machine_init(&job->machine, s->policy, &s->calibration, job->started_us, deadline_us);
    const sluice_status st = sluice_job_prepare(job, (uint32_t)(left_us / 1000), &in, &job->local_error);
    if (st != SLUICE_OK) { /* nothing can be decided without features */
        const sluice_machine_action a = {
            .kind = SLUICE_MA_FINISH, .outcome = SLUICE_OUTCOME_FAILED, .status = st, .confidence = -1.0f
        };
        job->machine.state = SLUICE_MACHINE_DONE;
        finish(job, &a);
        return;
    }
    sluice_decide(&in, &decision);
    const sluice_machine_event e = { .kind = SLUICE_ME_START, .decision = &decision };
    sluice_job_step(job, &e);
}

/* ---- events ------------------------------------------------------------------------------------------- */

static void on_token(sluice_job *job, const sluice_note *note)
{
    const sluice_span text = sluice_span_of(note->text, note->text_len);
    sluice_machine_event e = {
        .kind = SLUICE_ME_LOCAL_TOKEN, .logprob = note->logprob, .margin = note->margin, .entropy = note->entropy,
        .is_declined = note->is_declined
    };
    /* Only whole code points go out; the rest waits for the next token. */
    const bool carried = sluice_buf_append_span(&job->carry, text);
    const size_t whole = sluice_utf8_whole(sluice_buf_span(&job->carry));
    e.text = sluice_span_of(job->carry.ptr, whole);
    if (!carried || !sluice_buf_append_span(&job->held, e.text)) {
        e = (sluice_machine_event){ .kind = SLUICE_ME_LOCAL_FAILED };
        e.status = sluice_buf_error(carried ? &job->held : &job->carry, "local answer", &job->local_error);
        stop_local(job);
        sluice_job_step(job, &e);
        return;
    }
    job->local_output_tokens++;
    sluice_job_step(job, &e);
    sluice_buf_consume(&job->carry, whole <= job->carry.len ? whole : job->carry.len);
}

void sluice_job_on_note(sluice_job *job, const sluice_note *note)
{
    sluice_machine_event e = { .kind = SLUICE_ME_CANCEL };

    switch (note->kind) {
    case SLUICE_NOTE_CANCEL: break;
    case SLUICE_NOTE_CONSENT:
        e.kind = SLUICE_ME_CONSENT;
        e.is_granted = note->is_granted;
        break;
    case SLUICE_NOTE_TOKEN:
        if (note->run == job->run && job->run != 0)
            on_token(job, note);
        return;
    case SLUICE_NOTE_LOCAL_DONE:
        if (note->run != job->run || job->run == 0)
            return;
        job->run = 0;
        job->local_prompt_tokens = note->result.prompt_tokens;
        job->local_output_tokens = note->result.output_tokens;
        job->timings.prefill_us = note->result.prefill_us;
        if (note->result.output_tokens > 1)
            job->timings.tpot_us = note->result.decode_us / (note->result.output_tokens - 1);
        learn_rates(job, &note->result);
        e.kind = SLUICE_ME_LOCAL_DONE;
        e.is_truncated = note->result.stop != SLUICE_STOP_END && note->result.stop != SLUICE_STOP_COMPLETE;
        break;
    case SLUICE_NOTE_LOCAL_FAILED:
        if (note->run != job->run || job->run == 0)
            return;
        job->run = 0;
        e.kind = SLUICE_ME_LOCAL_FAILED;
        e.status = sluice_error_set(&job->local_error, note->status, "%.*s", (int)note->text_len, (const char *)note->text);
        break;
    case SLUICE_NOTE_SUBMIT:
    case SLUICE_NOTE_REVOKED: return;
    }
    sluice_job_step(job, &e);
}

void sluice_job_on_timers(sluice_job *job, uint64_t now_us)
{
    for (int t = 1; t < 4 && !job->is_finished; t++)
        if (job->timer_at_us[t] != 0 && now_us >= job->timer_at_us[t]) {
            const sluice_machine_event e = { .kind = SLUICE_ME_TIMER, .timer = (sluice_machine_timer)t };
            job->timer_at_us[t] = 0;
            sluice_job_step(job, &e);
        }
}

uint64_t sluice_job_next_timer(const sluice_job *job)
{
    uint64_t at = UINT64_MAX;
    if (job->is_finished)
        return at;
    for (int t = 1; t < 4; t++)
        if (job->timer_at_us[t] != 0 && job->timer_at_us[t] < at)
            at = job->timer_at_us[t];
    return at;
}

bool sluice_job_uses_consent(const sluice_job *job, const char *consent_id)
{
    return !job->is_finished && strcmp(job->receipt.consent, consent_id) == 0;
}
