/* policy.h - the policy file: parsed, validated, immutable, evaluated.
 *
 * Default deny; forbid overrides permit; anything unknown, expired or malformed means: not permitted.  Evaluation is a pure
 * function of (policy, attributes, consents, time) and allocates nothing.
 *
 * Threads: a parsed policy never changes; all calls on it may run concurrently.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_POLICIES_POLICY_H
#define SLUICE_POLICIES_POLICY_H

#include "sdk/base/base.h"
#include "sluice/sluice.h"

enum {
    SLUICE_POLICY_BYTES_MAX = 1 << 20, SLUICE_POLICY_ENDPOINTS_MAX = 16, SLUICE_POLICY_RULES_MAX = 256,
    SLUICE_POLICY_PURPOSES_MAX = 32, SLUICE_POLICY_PINS_MAX = 8
};

typedef enum sluice_policy_mode {
    SLUICE_MODE_PREFER_LOCAL = 1, SLUICE_MODE_LOCAL_ONLY = 2, SLUICE_MODE_PREFER_CLOUD = 3, SLUICE_MODE_CLOUD_ONLY = 4
} sluice_policy_mode;

typedef enum sluice_stream_mode {
    SLUICE_STREAM_HOLD = 1, /* local text is delivered when it is finished and confident enough */
    SLUICE_STREAM_NOW = 2   /* local text is delivered as it comes; an escalation announces a restart */
} sluice_stream_mode;

/* Where sealed requests go.  All strings are owned by the policy and NUL-terminated; optional ones may be NULL. */
typedef struct sluice_policy_endpoint {
    const char *id;
    const char *url;            /* https://host[:port]/path of the gateway (or relay) that takes message/ohttp-req */
    const char *adapter;        /* "openai-chat" */
    const char *model;          /* model name for the far side */
    const char *target_authority; /* host[:port] of the provider inside the sealed request */
    const char *target_path;    /* "/v1/chat/completions" */
    const char *controller;     /* who answers for it, shown when consent is asked for; optional */
    const char *region;         /* optional */
    const char *ca_pem;         /* trust anchors, PEM text (from "ca_pem", or "ca_file" resolved beside the policy file); required */
    const char *spki_pins[SLUICE_POLICY_PINS_MAX]; /* base64 SHA-256 of the SPKI, without prefix */
    size_t n_spki_pins;         /* at least 1 */
    const uint8_t *key_config;  /* application/ohttp-keys (RFC 9458, 3.2), decoded from base64 */
    size_t key_config_len;
    uint32_t expected_ttft_ms;  /* for prediction; default 800 */
    uint32_t line;              /* in the policy file */
} sluice_policy_endpoint;

typedef struct sluice_policy_purpose {
    const char *id;
    const char *text;           /* shown when consent is asked for */
    uint32_t text_version;      /* a consent to an older version does not count */
} sluice_policy_purpose;

typedef enum sluice_rule_effect { SLUICE_RULE_PERMIT = 1, SLUICE_RULE_FORBID = 2 } sluice_rule_effect;

/* Conditions that are left out match everything on a forbid; a permit must name purposes, classes and endpoints. */
typedef struct sluice_policy_rule {
    const char *id;
    sluice_rule_effect effect;
    uint32_t purposes;              /* bit i: purpose i of the policy; all ones when not named */
    uint32_t endpoints;             /* bit i: endpoint i; all ones when not named */
    sluice_data_classes classes;    /* permit: the request's classes must be a subset.  forbid: must intersect */
    bool requires_consent;          /* permit only; default true; false is a lint warning */
    bool forbids_metered;           /* forbid only: matches on a metered network ("networks": ["metered"]) */
    uint32_t line;
} sluice_policy_rule;

typedef struct sluice_policy {
    const char *id;
    uint64_t version;
    int64_t expires_ms;             /* Unix time, 0: never.  Expired: nothing is permitted; local inference goes on */
    sluice_policy_mode mode;
    sluice_stream_mode stream;
    float escalate_below;           /* confidence in [0, 1]; default 0.80 */
    float stop_below;               /* running confidence under which a local run is stopped early; default escalate_below / 2 */
    uint32_t deadline_ms;           /* default 10000 */
    uint32_t cloud_reserve_ms;      /* kept free of the deadline for the cloud while local runs; default 2500 */
    uint32_t max_tokens;            /* default 256 */
    uint32_t request_bytes_max;     /* plaintext of one sealed request; default 65536 */
    uint32_t response_bytes_max;    /* default 1 MiB */
    uint32_t max_attempts;          /* cloud attempts per request, 1 … 4; default 2 */
    sluice_policy_purpose purposes[SLUICE_POLICY_PURPOSES_MAX];
    size_t n_purposes;
    sluice_policy_endpoint endpoints[SLUICE_POLICY_ENDPOINTS_MAX];
    size_t n_endpoints;
    sluice_policy_rule rules[SLUICE_POLICY_RULES_MAX];
    size_t n_rules;
    uint8_t hash[32];               /* BLAKE2b-256 of the file's bytes */
    sluice_arena arena;             /* owns the strings */
    const sluice_allocator *al;
} sluice_policy;

/* One finding of the reader or the linter. */
typedef struct sluice_policy_finding {
    const char *code;      /* "P001" …, stable, listed in docs/policy.md; static */
    bool is_error;
    uint32_t line, column;
    char message[200];
    char hint[160];
} sluice_policy_finding;
typedef void (*sluice_policy_finding_fn)(const sluice_policy_finding *f, void *user);

/* Reads files named by "ca_file", relative to the policy file; NULL where the policy may not name files. */
typedef sluice_status (*sluice_policy_file_fn)(const char *name, sluice_buf *out, void *user, sluice_error *err);

/* Parse and validate.  All findings go to on_finding (may be NULL); the first error also fills err.
 * Errors: SLUICE_ERR_FORMAT (not JSON, unknown field, wrong type), SLUICE_ERR_POLICY (well formed, contradictory), _LIMIT, _NO_MEMORY.
 * On failure *out is NULL.  Release with sluice_policy_close(). */
sluice_status sluice_policy_parse(sluice_policy **out, sluice_span text, sluice_policy_file_fn read_file, void *read_user,
                                  sluice_policy_finding_fn on_finding, void *finding_user, const sluice_allocator *al, sluice_error *err);
void sluice_policy_close(sluice_policy *policy); /* accepts NULL */

/* The findings that depend on the time: parsing reads no clock.  Today P108, an expired policy. */
void sluice_policy_lint_time(const sluice_policy *p, int64_t wall_ms, sluice_policy_finding_fn on_finding, void *user);

int sluice_policy_find_endpoint(const sluice_policy *p, const char *id); /* index or -1 */
int sluice_policy_find_purpose(const sluice_policy *p, const char *id);  /* index or -1; NULL id: 0 when there is one */

/* What a request is, as far as rules speak of it. */
typedef struct sluice_policy_query {
    size_t purpose, endpoint;      /* indexes */
    sluice_data_classes classes;
    bool is_local_only;            /* the request's privacy class */
    sluice_network network;
    int64_t wall_ms;               /* < 0: untrusted clock */
} sluice_policy_query;

typedef struct sluice_policy_verdict {
    bool is_permitted;             /* by the rules alone: consent is asked of the consent store */
    bool requires_consent;
    sluice_reason reason;          /* SLUICE_REASON_PERMITTED or why not */
    int rule;                      /* index of the determining rule, -1: none */
} sluice_policy_verdict;

/* Evaluate the rules for one endpoint.  Pure; never fails; anything out of range is a denial. */
void sluice_policy_evaluate(const sluice_policy *p, const sluice_policy_query *q, sluice_policy_verdict *out);

/* For explanations: why rule `i` does not match the query, as the first false condition ("classes: the request has payment_card"), or NULL when it matches. */
const char *sluice_policy_rule_miss(const sluice_policy *p, size_t i, const sluice_policy_query *q, char *buf, size_t cap);

/* The published JSON Schema text. */
sluice_span sluice_policy_schema_text(void);

#endif
