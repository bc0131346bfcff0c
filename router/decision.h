/* decision.h - three questions kept apart: eligible, worthwhile, permitted; and the route that follows.
 *
 * Pure: equal inputs give equal decisions, byte for byte.  The record can be replayed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_ROUTER_DECISION_H
#define SLUICE_ROUTER_DECISION_H

#include "router/features.h"

enum { SLUICE_DECISION_CLOUDS_MAX = SLUICE_POLICY_ENDPOINTS_MAX };

/* What the driver knows of the local backend; any backend that fills this in is scored the same way. */
typedef struct sluice_local_facts {
    bool is_present;               /* a model is loaded */
    bool fits_context, fits_memory, is_supported; /* supported: the prompt format can carry this request */
    sluice_device_state device;
    uint32_t prompt_tokens;        /* counted, or estimated */
    float prefill_us_per_token, decode_us_per_token; /* learned on this device; 0: unknown */
    uint32_t expected_output_tokens;
} sluice_local_facts;

typedef struct sluice_cloud_facts {
    bool is_usable;                /* adapter known, breaker admits */
    bool is_offline;
    uint32_t expected_ttft_ms, expected_total_ms;
    sluice_reason permission;      /* of sluice_egress_check(): PERMITTED, CONSENT_MISSING, POLICY_… */
    int rule;                      /* determining rule or -1 */
} sluice_cloud_facts;

typedef struct sluice_decision_input {
    const sluice_policy *policy;
    sluice_features features;
    sluice_local_facts local;
    sluice_cloud_facts clouds[SLUICE_DECISION_CLOUDS_MAX];
    size_t n_clouds;
    uint32_t time_left_ms;
    bool is_local_only;
    bool can_ask;                  /* somebody is there to answer a consent question */
} sluice_decision_input;

typedef struct sluice_backend_verdict {
    bool is_eligible, is_worthwhile, is_permitted;
    sluice_reason eligible_reason, worthwhile_reason, permitted_reason;
    float confidence;              /* predicted, [0, 1]; < 0 unknown */
    uint32_t expected_ms;          /* to the end of the answer; 0 unknown */
} sluice_backend_verdict;

typedef struct sluice_decision {
    sluice_route route;
    int cloud;                     /* endpoint index for CLOUD, CASCADE (where it would escalate), ASK; -1: none */
    sluice_backend_verdict local;
    sluice_backend_verdict clouds[SLUICE_DECISION_CLOUDS_MAX];
    size_t n_clouds;
    sluice_reason reasons[SLUICE_REASONS_MAX];
    size_t n_reasons;
    uint32_t local_budget_ms;      /* time that a local run has before the cloud's reserve begins */
    bool can_ask;                  /* copied from the input */
} sluice_decision;

/* May the user still be asked when permission fails for this reason?  A refusal or a withdrawal is not asked again. */
bool sluice_reason_is_askable(sluice_reason r);

/* Would a consent of the user open the way? */
bool sluice_reason_is_consent(sluice_reason r);

void sluice_decide(const sluice_decision_input *in, sluice_decision *out); /* this line decides a route: follow it from here */

/* Append a reason unless it is there; silently full at SLUICE_REASONS_MAX. */
void sluice_reason_add(sluice_reason *list, size_t *n, sluice_reason r);

#endif
