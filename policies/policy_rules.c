/* policy_rules.c - evaluation of the rules of a policy for one request and one endpoint.
 *
 * Default deny; forbid overrides permit; what is unknown is denied.  A condition has three answers: true, false
 * and unknown.  An unknown one makes a permit miss and a forbid match, so ignorance never opens the gate.
 *
 * The verdict does not depend on the order of the rules but for the index it names: the first matching forbid, else the
 * first matching permit that asks for consent, else the first matching permit.  Where several permits match, the
 * strictest counts: adding a permit never takes away the need for consent that another states.
 *
 * Pure: no clock, no allocation, no failure.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "policies/policy.h"

#include <stdio.h>

#include "policies/data_class.h"

static bool has_bit(uint32_t set, size_t i)
{
    return i < 32 && ((set >> i) & 1u) != 0;
}

/* SLUICE_NETWORK_NONE is known not to be metered; any value that is not in the list is as unknown as UNKNOWN. */
static bool may_be_metered(sluice_network network)
{
    return network != SLUICE_NETWORK_NONE && network != SLUICE_NETWORK_UNMETERED;
}

typedef enum rule_condition { COND_NONE = 0, COND_PURPOSES, COND_ENDPOINTS, COND_CLASSES, COND_NETWORKS } rule_condition;

/* The first condition that keeps the rule from matching, COND_NONE when it matches. */
static rule_condition rule_miss(const sluice_policy_rule *r, const sluice_policy_query *q)
{
    if (!has_bit(r->purposes, q->purpose))
        return COND_PURPOSES;
    if (!has_bit(r->endpoints, q->endpoint))
        return COND_ENDPOINTS;
    if (r->effect != SLUICE_RULE_PERMIT) {
        if ((r->classes & q->classes) == 0)
            return COND_CLASSES;
        if (r->forbids_metered && !may_be_metered(q->network))
            return COND_NETWORKS;
        return COND_NONE;
    }
    return (q->classes & ~r->classes) != 0 ? COND_CLASSES : COND_NONE;
}

/* What stands before any rule: policy, mode, known names, a trusted clock, expiry. */
static sluice_reason precondition(const sluice_policy *p, const sluice_policy_query *q)
{
    if (p == NULL || q == NULL)
        return SLUICE_REASON_POLICY_NO_RULE;
    if (p->mode == SLUICE_MODE_LOCAL_ONLY || q->is_local_only)
        return SLUICE_REASON_POLICY_LOCAL_ONLY;
    if (q->purpose >= p->n_purposes)
        return SLUICE_REASON_PURPOSE_UNKNOWN;
    if (q->endpoint >= p->n_endpoints)
        return SLUICE_REASON_CLOUD_NO_ENDPOINT;
    /* Every request holds the user's text, so a set without it did not come from the detectors. */
    if ((q->classes & ~(sluice_data_classes)SLUICE_CLASS_ALL) != 0 || (q->classes & SLUICE_CLASS_PROMPT) == 0)
        return SLUICE_REASON_CLASS_UNKNOWN;
    if (q->wall_ms < 0)
        return SLUICE_REASON_CLOCK_UNTRUSTED;
    if (p->expires_ms != 0 && q->wall_ms >= p->expires_ms)
        return SLUICE_REASON_POLICY_EXPIRED;
    return SLUICE_REASON_PERMITTED;
}

void sluice_policy_evaluate(const sluice_policy *p, const sluice_policy_query *q, sluice_policy_verdict *out)
{
    int permit = -1;

    out->is_permitted = false;
    out->requires_consent = true;
    out->rule = -1;
    out->reason = precondition(p, q);
    if (out->reason != SLUICE_REASON_PERMITTED)
        return;

    for (size_t i = 0; i < p->n_rules; i++) {
        const sluice_policy_rule *r = &p->rules[i];

        if (rule_miss(r, q) != COND_NONE)
            continue;
        if (r->effect != SLUICE_RULE_PERMIT) {
            out->reason = SLUICE_REASON_POLICY_FORBIDS;
            out->rule = (int)i;
            return;
        }
        if (permit < 0 || (r->requires_consent && !p->rules[permit].requires_consent))
            permit = (int)i;
    }
    if (permit < 0) {
        out->reason = SLUICE_REASON_POLICY_NO_RULE;
        return;
    }
    out->is_permitted = true;
    out->requires_consent = p->rules[permit].requires_consent;
    out->rule = permit;
}

const char *sluice_policy_rule_miss(const sluice_policy *p, size_t i, const sluice_policy_query *q, char *buf, size_t cap)
{
    const sluice_policy_rule *r;
    char names[160];

    if (buf == NULL || cap == 0)
        return "";
    buf[0] = '\0';
    if (p == NULL || q == NULL || i >= p->n_rules) {
        (void)snprintf(buf, cap, "rule: there is no rule %zu", i);
        return buf;
    }
    r = &p->rules[i];
    switch (rule_miss(r, q)) {
    case COND_NONE:
        return NULL;
    case COND_PURPOSES:
        if (q->purpose < p->n_purposes)
            (void)snprintf(buf, cap, "purposes: the request's is %s", p->purposes[q->purpose].id);
        else
            (void)snprintf(buf, cap, "purposes: the request's is not known");
        break;
    case COND_ENDPOINTS:
        if (q->endpoint < p->n_endpoints)
            (void)snprintf(buf, cap, "endpoints: the endpoint is %s", p->endpoints[q->endpoint].id);
        else
            (void)snprintf(buf, cap, "endpoints: the endpoint is not known");
        break;
    case COND_CLASSES:
        if (r->effect == SLUICE_RULE_FORBID) {
            sluice_data_class_list(r->classes, names, sizeof names);
            (void)snprintf(buf, cap, "classes: the request has none of %s", names);
        } else {
            sluice_data_class_list(q->classes & ~r->classes & (sluice_data_classes)SLUICE_CLASS_ALL, names, sizeof names);
            (void)snprintf(buf, cap, "classes: the request has %s", names[0] != '\0' ? names : "a class that is not known");
        }
        break;
    case COND_NETWORKS:
        (void)snprintf(buf, cap, "networks: the network is not metered");
        break;
    }
    return buf;
}
