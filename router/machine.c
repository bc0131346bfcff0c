/* machine.c - one request as a state machine without I/O.
 *
 * machine.h has the picture and the invariants.  Every path ends in finish(), which is the only place that emits
 * FINISH and the only one that enters DONE; the cloud is started in one place too, on a GATE_GRANTED event.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "router/machine.h"

#include <math.h>

enum {
    DEADLINE_GUARD_US = 10000,      /* the terminal event is delivered this much before the deadline, or a 20th of the span */
    BACKOFF_BASE_US = 100000,       /* full jitter on top of half, as retries after a refused connection need no long wait */
    STOP_AFTER_TOKENS = 2           /* a running confidence from one token is no reason to stop */
};

static sluice_machine_action *emit(sluice_machine *m, sluice_machine_action_kind kind)
{
    static const sluice_machine_action empty;
    /* The longest chain of actions is eleven (stop, restart, deliver and finish after an escalation with its report and
     * timers); the last slot is reused rather than overrun should that ever grow. */
    sluice_machine_action *a = &m->out[m->n_out < SLUICE_MACHINE_ACTIONS_MAX ? m->n_out++ : SLUICE_MACHINE_ACTIONS_MAX - 1];
    *a = empty;
    a->kind = kind;
    a->cloud = m->cloud;
    a->attempt = m->attempt;
    a->confidence = m->confidence;
    return a;
}

static void note(sluice_machine *m, sluice_reason r)
{
    sluice_reason_add(m->reasons, &m->n_reasons, r);
}

static void arm(sluice_machine *m, sluice_machine_timer timer, uint64_t at_us)
{
    sluice_machine_action *a = emit(m, SLUICE_MA_ARM_TIMER);
    a->timer = timer;
    a->at_us = at_us;
}

static void report(sluice_machine *m, sluice_route route)
{
    emit(m, SLUICE_MA_REPORT_ROUTE)->route = route;
}

static void record(sluice_machine *m, sluice_reason reason, sluice_status status)
{
    sluice_machine_action *a = emit(m, SLUICE_MA_RECORD);
    a->reason = reason;
    a->status = status;
}

static void stop_local(sluice_machine *m)
{
    if (m->local_running)
        emit(m, SLUICE_MA_STOP_LOCAL);
    m->local_running = false;
}

static void finish(sluice_machine *m, sluice_outcome outcome, sluice_route route, sluice_status status)
{
    stop_local(m);
    if (m->state == SLUICE_MACHINE_CLOUD || m->state == SLUICE_MACHINE_GATE)
        if (outcome != SLUICE_OUTCOME_ANSWERED && m->gate_granted)
            emit(m, SLUICE_MA_CANCEL_CLOUD);
    m->state = SLUICE_MACHINE_DONE;
    sluice_machine_action *a = emit(m, SLUICE_MA_FINISH);
    a->outcome = outcome;
    a->route = route;
    a->status = status;
    if (route != SLUICE_ROUTE_LOCAL)
        a->confidence = -1.0f;
}

static bool consent_is_missing(const sluice_machine *m)
{
    if (m->cloud_status != SLUICE_OK) /* the cloud was tried: consent was there */
        return false;
    if (sluice_reason_is_consent(m->gate_reason))
        return true;
    for (size_t i = 0; i < m->decision.n_clouds; i++)
        if (m->decision.clouds[i].is_eligible && sluice_reason_is_consent(m->decision.clouds[i].permitted_reason))
            return m->gate_reason == SLUICE_REASON_NONE;
    return false;
}

/* The finished local answer is given, however weak. */
static void finish_local(sluice_machine *m)
{
    const bool confident = m->confidence >= m->escalate_below;

    if (m->cloud_delivered)
        emit(m, SLUICE_MA_RESTART);
    if (!m->local_delivered || m->cloud_delivered)
        emit(m, SLUICE_MA_DELIVER_HELD);
    if (m->local_truncated)
        note(m, SLUICE_REASON_OUTPUT_LIMIT);
    note(m, confident ? SLUICE_REASON_CONFIDENT : SLUICE_REASON_LOW_CONFIDENCE);
    if (confident)
        finish(m, SLUICE_OUTCOME_ANSWERED, SLUICE_ROUTE_LOCAL, SLUICE_OK);
    else if (consent_is_missing(m))
        finish(m, SLUICE_OUTCOME_NEEDS_CONSENT, SLUICE_ROUTE_LOCAL, SLUICE_OK);
    else
        finish(m, SLUICE_OUTCOME_LOW_CONFIDENCE, SLUICE_ROUTE_LOCAL, SLUICE_OK);
}

static void start_local(sluice_machine *m)
{
    m->state = SLUICE_MACHINE_LOCAL;
    m->local_running = true;
    m->local_finished = m->local_truncated = m->local_delivered = false;
    m->confidence = -1.0f;
    sluice_confidence_init(&m->local);
    emit(m, SLUICE_MA_START_LOCAL);
}

static bool can_run_local(const sluice_machine *m, uint64_t now_us)
{
    const sluice_backend_verdict *v = &m->decision.local;
    return v->is_eligible && v->is_permitted && now_us + (uint64_t)v->expected_ms * 1000 < m->deadline_us;
}

/* The cloud is out of reach for this request.  The best of what is left: the local answer that is there, one more
 * local run, or the plain reason. */
static void without_cloud(sluice_machine *m, uint64_t now_us)
{
    if (m->local_finished) {
        note(m, SLUICE_REASON_FELL_BACK_TO_LOCAL);
        finish_local(m);
        return;
    }
    if (!m->cloud_delivered && !m->local_is_last_resort && can_run_local(m, now_us)) {
        note(m, SLUICE_REASON_FELL_BACK_TO_LOCAL);
        if (m->local_delivered)
            emit(m, SLUICE_MA_RESTART); /* tokens of the stopped run were shown */
        m->local_is_last_resort = true;
        start_local(m);
        report(m, SLUICE_ROUTE_LOCAL);
        return;
    }
    if (m->cloud_delivered)
        finish(m, SLUICE_OUTCOME_TRUNCATED, SLUICE_ROUTE_CLOUD, m->cloud_status);
    else if (m->cloud_status != SLUICE_OK)
        finish(m, SLUICE_OUTCOME_FAILED, SLUICE_ROUTE_NONE, m->cloud_status);
    else if (consent_is_missing(m))
        finish(m, SLUICE_OUTCOME_NEEDS_CONSENT, SLUICE_ROUTE_ASK, SLUICE_OK);
    else
        finish(m, SLUICE_OUTCOME_REFUSED, SLUICE_ROUTE_NONE, SLUICE_OK);
}

static void ask_gate(sluice_machine *m)
{
    m->attempt++;
    m->gate_granted = false;
    m->state = SLUICE_MACHINE_GATE;
    emit(m, SLUICE_MA_ASK_GATE);
}

static void ask_consent(sluice_machine *m)
{
    m->asked = true;
    m->state = SLUICE_MACHINE_ASKING;
    emit(m, SLUICE_MA_ASK_CONSENT);
}

/* Towards the cloud: through the gate where the decision says permitted, through the user where consent is missing. */
static void escalate(sluice_machine *m, sluice_reason why, uint64_t now_us)
{
    note(m, why);
    stop_local(m);
    if (m->cloud < 0) {
        without_cloud(m, now_us);
        return;
    }
    const sluice_backend_verdict *v = &m->decision.clouds[m->cloud];
    if (v->is_permitted) {
        report(m, SLUICE_ROUTE_CLOUD);
        ask_gate(m);
    } else if (sluice_reason_is_askable(v->permitted_reason) && m->decision.can_ask && !m->asked) {
        report(m, SLUICE_ROUTE_ASK);
        ask_consent(m);
    } else {
        m->gate_reason = v->permitted_reason;
        note(m, v->permitted_reason);
        without_cloud(m, now_us);
    }
}

static void on_start(sluice_machine *m, const sluice_decision *d, uint64_t now_us)
{
    m->decision = *d;
    m->cloud = d->cloud;
    for (size_t i = 0; i < d->n_reasons; i++)
        note(m, d->reasons[i]);
    m->confidence = d->local.is_eligible ? d->local.confidence : -1.0f;
    report(m, d->route);
    record(m, d->n_reasons ? d->reasons[d->n_reasons - 1] : SLUICE_REASON_NONE, SLUICE_OK);

    const uint64_t span = m->deadline_us > now_us ? m->deadline_us - now_us : 0;
    const uint64_t guard = span / 20 < DEADLINE_GUARD_US ? span / 20 : DEADLINE_GUARD_US;
    arm(m, SLUICE_TIMER_DEADLINE, m->deadline_us - guard);

    switch (d->route) {
    case SLUICE_ROUTE_LOCAL:
        start_local(m);
        return;
    case SLUICE_ROUTE_CASCADE:
        m->local_until_us = now_us + (uint64_t)d->local_budget_ms * 1000;
        arm(m, SLUICE_TIMER_LOCAL_BUDGET, m->local_until_us);
        start_local(m);
        return;
    case SLUICE_ROUTE_CLOUD:
        ask_gate(m);
        return;
    case SLUICE_ROUTE_ASK:
        if (m->cloud < 0)
            break;
        m->gate_reason = d->clouds[m->cloud].permitted_reason;
        if (d->can_ask && sluice_reason_is_askable(m->gate_reason))
            ask_consent(m);
        else
            without_cloud(m, now_us);
        return;
    case SLUICE_ROUTE_ABSTAIN:
    case SLUICE_ROUTE_NONE:
        break;
    }
    for (size_t i = 0; i < d->n_clouds; i++)
        if (d->clouds[i].is_eligible && d->clouds[i].is_worthwhile && !d->clouds[i].is_permitted) {
            finish(m, SLUICE_OUTCOME_REFUSED, SLUICE_ROUTE_ABSTAIN, SLUICE_OK); /* policy alone is in the way */
            return;
        }
    finish(m, SLUICE_OUTCOME_ABSTAINED, SLUICE_ROUTE_ABSTAIN, SLUICE_OK);
}

static bool cloud_is_certain(const sluice_machine *m)
{
    return m->cloud >= 0 && m->decision.clouds[m->cloud].is_permitted && !m->local_is_last_resort;
}

static void on_local_token(sluice_machine *m, const sluice_machine_event *e, uint64_t now_us)
{
    if (!m->local_running)
        return;
    /* A model that is sure that it cannot answer is as unsure of an answer: log(1 - p), rounded towards no confidence. */
    const float logprob = e->is_declined ? log1pf(-expf(fminf(e->logprob, 0.0f))) : e->logprob;
    sluice_confidence_add(&m->local, logprob, e->margin, e->entropy);
    if (e->is_declined)
        note(m, SLUICE_REASON_OUT_OF_DOMAIN);
    m->confidence = sluice_confidence_value(&m->local, &m->calibration);
    if (m->stream == SLUICE_STREAM_NOW && e->text.len > 0) {
        emit(m, SLUICE_MA_DELIVER)->text = e->text;
        m->local_delivered = true;
    }
    /* Stopping throws the partial answer away, so only where the cloud may really be asked. */
    if ((m->local.n >= STOP_AFTER_TOKENS || e->is_declined) && m->confidence < m->stop_below && cloud_is_certain(m))
        escalate(m, SLUICE_REASON_STOPPED_EARLY, now_us);
}

static void on_local_done(sluice_machine *m, const sluice_machine_event *e, uint64_t now_us)
{
    if (!m->local_running)
        return;
    m->local_running = false;
    m->local_finished = true;
    m->local_truncated = e->is_truncated;
    if (m->confidence < 0.0f)
        m->confidence = 0.0f;
    if (m->confidence >= m->escalate_below || m->local_is_last_resort || m->cloud < 0) {
        if (m->confidence < m->escalate_below && !m->local_is_last_resort)
            for (size_t i = 0; i < m->decision.n_clouds && i < 1; i++)
                note(m, m->decision.clouds[i].permitted_reason == SLUICE_REASON_PERMITTED
                            ? m->decision.clouds[i].eligible_reason
                            : m->decision.clouds[i].permitted_reason);
        finish_local(m);
    } else {
        escalate(m, SLUICE_REASON_LOW_CONFIDENCE, now_us);
    }
}

static void on_local_failed(sluice_machine *m, const sluice_machine_event *e, uint64_t now_us)
{
    if (!m->local_running)
        return;
    m->local_running = false;
    note(m, SLUICE_REASON_LOCAL_FAILED);
    if (m->local_is_last_resort || m->cloud < 0) {
        finish(m, SLUICE_OUTCOME_FAILED, SLUICE_ROUTE_NONE, m->cloud_status != SLUICE_OK ? m->cloud_status : e->status);
        return;
    }
    m->local_is_last_resort = true; /* it failed once: it is not tried again */
    escalate(m, SLUICE_REASON_LOCAL_FAILED, now_us);
}

static void on_consent(sluice_machine *m, bool is_granted, uint64_t now_us)
{
    if (m->state != SLUICE_MACHINE_ASKING)
        return;
    if (is_granted) {
        note(m, SLUICE_REASON_CONSENT_GIVEN);
        report(m, SLUICE_ROUTE_CLOUD);
        ask_gate(m);
        return;
    }
    m->gate_reason = SLUICE_REASON_CONSENT_REFUSED;
    note(m, SLUICE_REASON_CONSENT_REFUSED);
    without_cloud(m, now_us);
}

static sluice_reason failure_reason(sluice_status status)
{
    switch (status) {
    case SLUICE_ERR_PIN_MISMATCH: return SLUICE_REASON_CLOUD_PIN_MISMATCH;
    case SLUICE_ERR_TLS: return SLUICE_REASON_CLOUD_TLS;
    case SLUICE_ERR_TRUNCATED: return SLUICE_REASON_CLOUD_TRUNCATED;
    default: return SLUICE_REASON_CLOUD_FAILED;
    }
}

static void on_gate(sluice_machine *m, const sluice_machine_event *e, uint64_t now_us)
{
    if (m->state != SLUICE_MACHINE_GATE || e->attempt != m->attempt || m->gate_granted)
        return;
    if (e->kind == SLUICE_ME_GATE_GRANTED) {
        m->gate_granted = true;
        m->state = SLUICE_MACHINE_CLOUD;
        emit(m, SLUICE_MA_START_CLOUD);
        return;
    }
    m->gate_reason = e->reason != SLUICE_REASON_NONE ? e->reason : SLUICE_REASON_POLICY_NO_RULE;
    if (sluice_reason_is_askable(m->gate_reason) && m->decision.can_ask && !m->asked) {
        report(m, SLUICE_ROUTE_ASK);
        ask_consent(m);
        return;
    }
    /* A repeated attempt that the gate refuses (a consent for once is used up) leaves the first one's failure as the cause. */
    note(m, m->cloud_status != SLUICE_OK ? failure_reason(m->cloud_status) : m->gate_reason);
    record(m, m->gate_reason, e->status);
    without_cloud(m, now_us);
}

static void on_cloud_text(sluice_machine *m, sluice_span text)
{
    if (!m->cloud_delivered && m->local_delivered)
        emit(m, SLUICE_MA_RESTART);
    m->cloud_delivered = true;
    emit(m, SLUICE_MA_DELIVER)->text = text;
}

/* RFC 9458, 6.5: a request that may have been processed is never repeated.  A wrong identity is no passing fault. */
static bool may_retry(const sluice_machine *m, const sluice_machine_event *e)
{
    return !e->was_sent && !m->cloud_delivered && m->attempt < m->max_attempts &&
           (e->status == SLUICE_ERR_NETWORK || e->status == SLUICE_ERR_TIMEOUT);
}

static void on_cloud_failed(sluice_machine *m, const sluice_machine_event *e, uint64_t now_us)
{
    m->cloud_status = e->status != SLUICE_OK ? e->status : SLUICE_ERR_NETWORK;
    m->gate_granted = false; /* that grant is spent, and there is nothing left to cancel */
    record(m, failure_reason(e->status), e->status);
    const uint64_t wait = BACKOFF_BASE_US / 2 + e->jitter % BACKOFF_BASE_US;
    if (may_retry(m, e) && now_us + wait < m->deadline_us) {
        m->state = SLUICE_MACHINE_BACKOFF;
        arm(m, SLUICE_TIMER_BACKOFF, now_us + wait);
        return;
    }
    note(m, failure_reason(e->status));
    without_cloud(m, now_us);
}

static void on_revoked(sluice_machine *m, uint64_t now_us)
{
    if (m->state != SLUICE_MACHINE_GATE && m->state != SLUICE_MACHINE_CLOUD && m->state != SLUICE_MACHINE_BACKOFF)
        return;
    if (m->gate_granted)
        emit(m, SLUICE_MA_CANCEL_CLOUD);
    m->gate_granted = false;
    m->gate_reason = SLUICE_REASON_CONSENT_REVOKED;
    m->cloud_status = SLUICE_OK;
    note(m, SLUICE_REASON_CONSENT_REVOKED);
    record(m, SLUICE_REASON_CONSENT_REVOKED, SLUICE_OK);
    if (m->cloud_delivered) { /* half of an answer that the user no longer wants to be sent for */
        m->cloud_status = SLUICE_ERR_CONSENT;
        m->local_is_last_resort = true;
    }
    without_cloud(m, now_us);
}

static void on_timer(sluice_machine *m, sluice_machine_timer timer, uint64_t now_us)
{
    switch (timer) {
    case SLUICE_TIMER_LOCAL_BUDGET:
        if (m->state == SLUICE_MACHINE_LOCAL && m->local_running && cloud_is_certain(m))
            escalate(m, SLUICE_REASON_LOCAL_LATE, now_us);
        return;
    case SLUICE_TIMER_BACKOFF:
        if (m->state == SLUICE_MACHINE_BACKOFF)
            ask_gate(m);
        return;
    case SLUICE_TIMER_DEADLINE:
        break;
    }
    note(m, SLUICE_REASON_DEADLINE);
    if (m->state == SLUICE_MACHINE_ASKING) { /* silence is a no */
        m->gate_reason = SLUICE_REASON_CONSENT_MISSING;
        note(m, SLUICE_REASON_CONSENT_MISSING);
    }
    if (m->local_finished && !m->cloud_delivered) {
        note(m, SLUICE_REASON_FELL_BACK_TO_LOCAL);
        if (m->gate_granted)
            emit(m, SLUICE_MA_CANCEL_CLOUD);
        m->gate_granted = false;
        finish_local(m);
    } else if (m->state == SLUICE_MACHINE_ASKING) {
        finish(m, SLUICE_OUTCOME_NEEDS_CONSENT, SLUICE_ROUTE_ASK, SLUICE_OK);
    } else if (m->cloud_delivered) {
        finish(m, SLUICE_OUTCOME_TRUNCATED, SLUICE_ROUTE_CLOUD, SLUICE_ERR_TIMEOUT);
    } else {
        finish(m, SLUICE_OUTCOME_FAILED, SLUICE_ROUTE_NONE, SLUICE_ERR_TIMEOUT);
    }
}

void sluice_machine_init(sluice_machine *m, const sluice_policy *policy, const sluice_calibration *cal, uint64_t now_us,
                         uint64_t deadline_us)
{
    memset(m, 0, sizeof *m);
    m->started_us = now_us;
    m->deadline_us = deadline_us;
    m->escalate_below = policy->escalate_below;
    m->stop_below = policy->stop_below;
    m->stream = policy->stream;
    m->max_attempts = policy->max_attempts;
    m->cloud = -1;
    m->confidence = -1.0f;
    if (cal != NULL)
        m->calibration = *cal;
    sluice_confidence_init(&m->local);
}

static bool is_for_current_attempt(const sluice_machine *m, const sluice_machine_event *e)
{
    return m->state == SLUICE_MACHINE_CLOUD && m->gate_granted && e->attempt == m->attempt;
}

size_t sluice_machine_step(sluice_machine *m, const sluice_machine_event *e, uint64_t now_us, sluice_machine_action *actions)
{
    m->out = actions;
    m->n_out = 0;
    if (m->state == SLUICE_MACHINE_DONE)
        return 0;
    if (m->state == SLUICE_MACHINE_NEW && e->kind != SLUICE_ME_START && e->kind != SLUICE_ME_CANCEL)
        return 0;
    switch (e->kind) {
    case SLUICE_ME_START:
        if (m->state == SLUICE_MACHINE_NEW && e->decision != NULL)
            on_start(m, e->decision, now_us);
        break;
    case SLUICE_ME_LOCAL_TOKEN: on_local_token(m, e, now_us); break;
    case SLUICE_ME_LOCAL_DONE: on_local_done(m, e, now_us); break;
    case SLUICE_ME_LOCAL_FAILED: on_local_failed(m, e, now_us); break;
    case SLUICE_ME_CONSENT: on_consent(m, e->is_granted, now_us); break;
    case SLUICE_ME_GATE_GRANTED:
    case SLUICE_ME_GATE_REFUSED: on_gate(m, e, now_us); break;
    case SLUICE_ME_CLOUD_TEXT:
        if (is_for_current_attempt(m, e) && e->text.len > 0)
            on_cloud_text(m, e->text);
        break;
    case SLUICE_ME_CLOUD_DONE:
        if (is_for_current_attempt(m, e)) {
            note(m, SLUICE_REASON_CLOUD_ANSWERED);
            if (e->is_truncated)
                note(m, SLUICE_REASON_OUTPUT_LIMIT);
            record(m, SLUICE_REASON_CLOUD_ANSWERED, SLUICE_OK);
            finish(m, SLUICE_OUTCOME_ANSWERED, SLUICE_ROUTE_CLOUD, SLUICE_OK);
        }
        break;
    case SLUICE_ME_CLOUD_FAILED:
        if (is_for_current_attempt(m, e))
            on_cloud_failed(m, e, now_us);
        break;
    case SLUICE_ME_REVOKED: on_revoked(m, now_us); break;
    case SLUICE_ME_TIMER: on_timer(m, e->timer, now_us); break;
    case SLUICE_ME_CANCEL:
        note(m, SLUICE_REASON_CANCELLED);
        finish(m, SLUICE_OUTCOME_CANCELLED, SLUICE_ROUTE_NONE, SLUICE_ERR_CANCELLED);
        break;
    }
    return m->n_out;
}
