/* decision.c - which backend answers, and why.
 *
 * Three questions, asked of every backend and never mixed:
 *   eligible    can it do this at all?      (model, context, memory, device; endpoint, breaker, size)
 *   worthwhile  is it likely to be good, in time?
 *   permitted   do policy and consent let it?   (asked of the egress gate by the caller; this file only carries the answer)
 * sluice_decide() at the end turns the answers into a route.  An ineligible local model never makes a cloud permitted.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "router/decision.h"

enum {
    BATTERY_FLOOR_PERCENT = 5, /* below it, and not charging, decoding for seconds may switch the phone off */
    SEALED_OVERHEAD_BYTES = 1024 /* request JSON and inner HTTP around the text, generously */
};

void sluice_reason_add(sluice_reason *list, size_t *n, sluice_reason r)
{
    if (r == SLUICE_REASON_NONE)
        return;
    for (size_t i = 0; i < *n; i++)
        if (list[i] == r)
            return;
    if (*n < SLUICE_REASONS_MAX)
        list[(*n)++] = r;
}

bool sluice_reason_is_askable(sluice_reason r)
{
    return r == SLUICE_REASON_CONSENT_MISSING || r == SLUICE_REASON_CONSENT_EXPIRED;
}

bool sluice_reason_is_consent(sluice_reason r)
{
    return sluice_reason_is_askable(r) || r == SLUICE_REASON_CONSENT_REVOKED;
}

static sluice_reason local_eligible(const sluice_decision_input *in)
{
    const sluice_local_facts *l = &in->local;
    if (!l->is_present)
        return SLUICE_REASON_LOCAL_NO_MODEL;
    if (!l->is_supported || !in->features.is_valid_utf8)
        return SLUICE_REASON_LOCAL_UNSUPPORTED;
    if (!l->fits_context)
        return SLUICE_REASON_LOCAL_CONTEXT_TOO_LONG;
    if (!l->fits_memory)
        return SLUICE_REASON_LOCAL_NO_MEMORY;
    if (l->device.thermal == SLUICE_THERMAL_CRITICAL)
        return SLUICE_REASON_LOCAL_DEVICE_STATE;
    if (l->device.battery_percent >= 0 && l->device.battery_percent < BATTERY_FLOOR_PERCENT && !l->device.is_charging)
        return SLUICE_REASON_LOCAL_DEVICE_STATE;
    return SLUICE_REASON_LOCAL_READY;
}

static void judge_local(const sluice_decision_input *in, sluice_backend_verdict *v)
{
    const sluice_local_facts *l = &in->local;

    v->eligible_reason = local_eligible(in);
    v->is_eligible = v->eligible_reason == SLUICE_REASON_LOCAL_READY;

    const float us = (float)l->prompt_tokens * l->prefill_us_per_token +
                     (float)l->expected_output_tokens * l->decode_us_per_token;
    v->expected_ms = us > 0.0f ? (uint32_t)(us / 1000.0f) + 1 : 0;
    v->confidence = 1.0f - in->features.difficulty;
    if (v->expected_ms > in->time_left_ms)
        v->worthwhile_reason = SLUICE_REASON_LOCAL_TOO_SLOW;
    else if (v->confidence < in->policy->stop_below)
        v->worthwhile_reason = SLUICE_REASON_OUT_OF_DOMAIN;
    else if (v->confidence < in->policy->escalate_below)
        v->worthwhile_reason = SLUICE_REASON_LIKELY_WEAK;
    else
        v->worthwhile_reason = SLUICE_REASON_LIKELY_GOOD;
    v->is_worthwhile = v->worthwhile_reason == SLUICE_REASON_LIKELY_GOOD;

    v->is_permitted = in->policy->mode != SLUICE_MODE_CLOUD_ONLY;
    v->permitted_reason = v->is_permitted ? SLUICE_REASON_PERMITTED : SLUICE_REASON_POLICY_PREFERS_CLOUD;
}

static void judge_cloud(const sluice_decision_input *in, size_t i, sluice_backend_verdict *v)
{
    const sluice_cloud_facts *c = &in->clouds[i];

    v->eligible_reason = SLUICE_REASON_CLOUD_READY;
    if (c->is_offline)
        v->eligible_reason = SLUICE_REASON_CLOUD_OFFLINE;
    else if (!c->is_usable)
        v->eligible_reason = SLUICE_REASON_CLOUD_BREAKER_OPEN;
    else if ((uint64_t)in->features.n_bytes + SEALED_OVERHEAD_BYTES > in->policy->request_bytes_max)
        v->eligible_reason = SLUICE_REASON_CLOUD_TOO_LARGE;
    v->is_eligible = v->eligible_reason == SLUICE_REASON_CLOUD_READY;

    v->expected_ms = c->expected_total_ms;
    v->confidence = -1.0f; /* nothing is known of the far side's answer */
    v->is_worthwhile = c->expected_ttft_ms <= in->time_left_ms;
    v->worthwhile_reason = v->is_worthwhile ? SLUICE_REASON_LIKELY_GOOD : SLUICE_REASON_CLOUD_TOO_SLOW;

    v->permitted_reason = in->is_local_only ? SLUICE_REASON_POLICY_LOCAL_ONLY : c->permission;
    if (v->permitted_reason == SLUICE_REASON_NONE) /* a permission that nobody asked for is a denial */
        v->permitted_reason = SLUICE_REASON_POLICY_NO_RULE;
    v->is_permitted = v->permitted_reason == SLUICE_REASON_PERMITTED;
}

/* The first endpoint, in policy order, that could be used: permitted ones before those that need a consent. */
static int best_cloud(const sluice_decision *d)
{
    for (size_t i = 0; i < d->n_clouds; i++)
        if (d->clouds[i].is_eligible && d->clouds[i].is_worthwhile && d->clouds[i].is_permitted)
            return (int)i;
    for (size_t i = 0; i < d->n_clouds; i++)
        if (d->clouds[i].is_eligible && d->clouds[i].is_worthwhile &&
            sluice_reason_is_consent(d->clouds[i].permitted_reason))
            return (int)i;
    return -1;
}

/* Why no cloud: the reason of the first endpoint, asked in the order permitted, eligible, worthwhile. */
static sluice_reason cloud_obstacle(const sluice_decision *d)
{
    if (d->n_clouds == 0)
        return SLUICE_REASON_CLOUD_NO_ENDPOINT;
    const sluice_backend_verdict *v = &d->clouds[0];
    return !v->is_permitted ? v->permitted_reason : !v->is_eligible ? v->eligible_reason : v->worthwhile_reason;
}

static void explain(const sluice_decision_input *in, sluice_decision *d)
{
    sluice_reason_add(d->reasons, &d->n_reasons, d->local.eligible_reason);
    if (d->local.is_eligible)
        sluice_reason_add(d->reasons, &d->n_reasons, d->local.worthwhile_reason);
    if (in->policy->mode == SLUICE_MODE_PREFER_CLOUD || in->policy->mode == SLUICE_MODE_CLOUD_ONLY)
        sluice_reason_add(d->reasons, &d->n_reasons, SLUICE_REASON_POLICY_PREFERS_CLOUD);
    if (d->cloud >= 0) {
        sluice_reason_add(d->reasons, &d->n_reasons, d->clouds[d->cloud].permitted_reason);
        return;
    }
    sluice_reason_add(d->reasons, &d->n_reasons, cloud_obstacle(d));
}

void sluice_decide(const sluice_decision_input *in, sluice_decision *out)
{
    memset(out, 0, sizeof *out);
    out->can_ask = in->can_ask;
    out->n_clouds = in->n_clouds < SLUICE_DECISION_CLOUDS_MAX ? in->n_clouds : SLUICE_DECISION_CLOUDS_MAX;
    judge_local(in, &out->local);
    for (size_t i = 0; i < out->n_clouds; i++)
        judge_cloud(in, i, &out->clouds[i]);
    out->cloud = best_cloud(out);

    const sluice_policy_mode mode = in->policy->mode;
    const bool local = out->local.is_eligible && out->local.is_permitted &&
                       out->local.worthwhile_reason != SLUICE_REASON_LOCAL_TOO_SLOW;
    const bool cloud = out->cloud >= 0 && out->clouds[out->cloud].is_permitted;
    const bool needs_consent = out->cloud >= 0 && !cloud;
    const bool ask = needs_consent && in->can_ask && sluice_reason_is_askable(out->clouds[out->cloud].permitted_reason);
    const bool prefers_cloud = mode == SLUICE_MODE_PREFER_CLOUD || mode == SLUICE_MODE_CLOUD_ONLY;
    /* A text that is nothing like what the local model does goes straight to a permitted cloud. */
    const bool hopeless = out->local.worthwhile_reason == SLUICE_REASON_OUT_OF_DOMAIN;

    if (cloud && (prefers_cloud || !local || hopeless))
        out->route = SLUICE_ROUTE_CLOUD;
    else if (local && (cloud || ask))
        out->route = prefers_cloud ? SLUICE_ROUTE_ASK : SLUICE_ROUTE_CASCADE;
    else if (local)
        out->route = SLUICE_ROUTE_LOCAL;
    else if (needs_consent)
        out->route = SLUICE_ROUTE_ASK;
    else
        out->route = SLUICE_ROUTE_ABSTAIN;

    out->local_budget_ms = in->time_left_ms;
    if (out->route == SLUICE_ROUTE_CASCADE) {
        const uint32_t reserve = in->policy->cloud_reserve_ms;
        /* Where the time does not hold both, local gets half: a cloud attempt with no time is no reserve. */
        out->local_budget_ms = reserve < in->time_left_ms / 2 ? in->time_left_ms - reserve : in->time_left_ms / 2;
    }
    explain(in, out);
}
