/* egress.c - the one gate: here, and nowhere else, a grant is made.
 *
 *     policy ─► names known ─► clock ─► rules ─► ledger there ─► consent ─► size ─► spend a consent for once ─► ledger entry ─► grant
 *        └──────────┴───────────┴─────────┴───────────┴────────────┴─────────┴──► refusal, in the ledger where that can be written
 *
 * The checks run in an order that tells the user the first thing that would have to change, and nothing is written before all of them
 * have passed.  From the first write on, a failure loses a permission and never makes one: a consent for once may be spent without a
 * grant, and an entry may say "granted" where no byte left; the other way round cannot happen.
 *
 * struct sluice_grant is defined here alone, so no other file can make one, change one or copy one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "policies/egress.h"

#include "policies/data_class.h"
#include "sdk/crypto/crypto.h"

enum { DIGEST_BYTES = SLUICE_BLAKE2B_BYTES, CLASSES_TEXT_CAP = 160 };
#define NO_CONSENT SIZE_MAX

struct sluice_egress_gate {
    const sluice_policy *policy;
    sluice_consent_store *consents;
    sluice_ledger *ledger;
    const sluice_platform *platform;
    const sluice_allocator *al;
};

struct sluice_grant {
    const sluice_allocator *al;
    const sluice_ledger *ledger;           /* for the keyed digest; both outlive the grant, as the gate does */
    const sluice_consent_store *consents;
    size_t consent_index;                  /* NO_CONSENT where the rule needs none */
    uint64_t generation;                   /* of the consents when the grant was made */
    sluice_data_classes classes;
    uint64_t request_id, ledger_seq, expires_us;
    size_t plaintext_len;
    uint8_t digest[DIGEST_BYTES];
    bool is_spent;
    sluice_destination destination;
    const char *rule_id;
    char consent_id[SLUICE_ID_MAX];
};

sluice_status sluice_egress_open(sluice_egress_gate **out, const sluice_policy *policy, sluice_consent_store *consents, sluice_ledger *ledger,
                                 const sluice_platform *platform, const sluice_allocator *al, sluice_error *err)
{
    sluice_egress_gate *g;

    *out = NULL;
    if (platform == NULL)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "gate: no platform");
    g = sluice_alloc_zeroed(al, sizeof *g);
    if (g == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "gate: no memory");
    g->policy = policy;
    g->consents = consents;
    g->ledger = ledger;
    g->platform = platform;
    g->al = al;
    *out = g;
    return SLUICE_OK;
}

void sluice_egress_close(sluice_egress_gate *gate)
{
    if (gate != NULL)
        sluice_free(gate->al, gate, sizeof *gate);
}

/* ---- the verdict --------------------------------------------------------------------------------- */

sluice_reason sluice_egress_check(sluice_egress_gate *gate, const sluice_policy_query *query, int *rule, size_t *consent_index)
{
    sluice_policy_verdict verdict;
    sluice_policy_query q;

    if (rule != NULL)
        *rule = -1;
    if (consent_index != NULL)
        *consent_index = NO_CONSENT;
    if (gate == NULL || query == NULL)
        return SLUICE_REASON_POLICY_NO_RULE;
    q = *query;
    q.wall_ms = sluice_wall_ms(gate->platform);
    if (gate->consents != NULL) /* a clock set back revives neither a consent nor a policy */
        q.wall_ms = sluice_consent_clock(gate->consents, q.wall_ms);

    sluice_policy_evaluate(gate->policy, &q, &verdict);
    if (rule != NULL)
        *rule = verdict.rule;
    if (!verdict.is_permitted)
        return verdict.reason;
    if (!sluice_ledger_is_writable(gate->ledger) || gate->consents == NULL)
        return SLUICE_REASON_LEDGER_UNAVAILABLE;
    if (!verdict.requires_consent)
        return SLUICE_REASON_PERMITTED;
    return sluice_consent_covers(gate->consents, gate->policy, q.purpose, q.endpoint, q.classes, q.wall_ms, consent_index);
}

static sluice_status status_of(sluice_reason reason)
{
    switch (reason) {
    case SLUICE_REASON_CONSENT_MISSING:
    case SLUICE_REASON_CONSENT_EXPIRED:
    case SLUICE_REASON_CONSENT_REVOKED:
    case SLUICE_REASON_CONSENT_REFUSED:
        return SLUICE_ERR_CONSENT;
    case SLUICE_REASON_LEDGER_UNAVAILABLE:
        return SLUICE_ERR_IO;
    case SLUICE_REASON_DEADLINE:
        return SLUICE_ERR_TIMEOUT;
    default:
        return SLUICE_ERR_POLICY;
    }
}

/* ---- the entry ----------------------------------------------------------------------------------- */

/* The evidence of one verdict.  The payload is there as its length and a keyed digest, never itself. */
static sluice_status record(sluice_egress_gate *gate, const sluice_egress_request *request, sluice_reason reason, int rule, const char *consent_id,
                            const uint8_t digest[DIGEST_BYTES], uint64_t *seq, sluice_error *err)
{
    const sluice_policy *p = gate->policy;
    const sluice_policy_query *q = &request->query;
    char classes[CLASSES_TEXT_CAP], digest_hex[2 * DIGEST_BYTES + 1], policy_hash[2 * SLUICE_BLAKE2B_BYTES + 1] = "";

    sluice_data_class_list(q->classes, classes, sizeof classes);
    sluice_hex(digest_hex, digest, DIGEST_BYTES);
    if (p != NULL)
        sluice_hex(policy_hash, p->hash, sizeof p->hash);
    {
        const sluice_ledger_field fields[] = {
            { "verdict", reason == SLUICE_REASON_PERMITTED ? "granted" : "refused", 0 },
            { "reason", sluice_reason_name(reason), 0 },
            { "request", NULL, request->request_id },
            { "attempt", NULL, request->attempt },
            { "endpoint", p != NULL && q->endpoint < p->n_endpoints ? p->endpoints[q->endpoint].id : "", 0 },
            { "purpose", p != NULL && q->purpose < p->n_purposes ? p->purposes[q->purpose].id : "", 0 },
            { "classes", classes, 0 },
            { "rule", p != NULL && rule >= 0 ? p->rules[rule].id : "", 0 },
            { "consent", consent_id, 0 },
            { "plaintext_bytes", NULL, request->plaintext.len },
            { "digest", digest_hex, 0 },
            { "policy", p != NULL ? p->id : "", 0 },
            { "policy_version", NULL, p != NULL ? p->version : 0 },
            { "policy_hash", policy_hash, 0 },
        };

        return sluice_ledger_append(gate->ledger, "egress", fields, sizeof fields / sizeof fields[0], seq, err);
    }
}

/* ---- the grant ----------------------------------------------------------------------------------- */

/* What the gate knows beside the rules: the instant and the size. */
static sluice_reason check_request(const sluice_egress_gate *gate, const sluice_egress_request *request, uint64_t now_us)
{
    if (request->plaintext.len == 0 || request->plaintext.len > gate->policy->request_bytes_max)
        return SLUICE_REASON_CLOUD_TOO_LARGE;
    if (request->expires_us <= now_us)
        return SLUICE_REASON_DEADLINE;
    return SLUICE_REASON_PERMITTED;
}

static sluice_status refuse(sluice_egress_gate *gate, const sluice_egress_request *request, sluice_reason reason, int rule, sluice_error *err)
{
    static const uint8_t no_digest[DIGEST_BYTES] = { 0 };
    uint8_t digest[DIGEST_BYTES];

    memcpy(digest, no_digest, sizeof digest);
    if (sluice_ledger_is_writable(gate->ledger)) {
        sluice_ledger_digest(gate->ledger, request->plaintext, digest);
        (void)record(gate, request, reason, rule, "", digest, NULL, NULL); /* a refusal stands, recorded or not */
    }
    return sluice_error_set(err, status_of(reason), "gate: refused (%s): %s", sluice_reason_name(reason), sluice_reason_text(reason));
}

static void fill_grant(sluice_grant *g, const sluice_egress_gate *gate, const sluice_egress_request *request, int rule, size_t consent_index,
                       uint64_t now_us)
{
    const sluice_policy_endpoint *e = &gate->policy->endpoints[request->query.endpoint];
    sluice_consent consent;

    g->al = gate->al;
    g->ledger = gate->ledger;
    g->consents = gate->consents;
    g->consent_index = consent_index;
    g->generation = sluice_consent_generation(gate->consents);
    g->classes = request->query.classes;
    g->request_id = request->request_id;
    g->expires_us = request->expires_us;
    g->plaintext_len = request->plaintext.len;
    g->rule_id = gate->policy->rules[rule].id;
    g->destination = (sluice_destination){
        .endpoint_id = e->id, .url = e->url, .ca_pem = e->ca_pem, .spki_pins = e->spki_pins, .n_spki_pins = e->n_spki_pins,
        .key_config = sluice_span_of(e->key_config, e->key_config_len), .response_bytes_max = gate->policy->response_bytes_max
    };
    sluice_ledger_digest(gate->ledger, request->plaintext, g->digest);
    if (consent_index == NO_CONSENT)
        return;
    sluice_consent_get(gate->consents, consent_index, &consent);
    (void)sluice_copy_str(g->consent_id, sizeof g->consent_id, consent.id);
    if (consent.valid_until_ms != 0) { /* the grant ends with the consent */
        int64_t left_ms = consent.valid_until_ms - sluice_consent_clock(gate->consents, sluice_wall_ms(gate->platform));
        uint64_t left_us = left_ms > 0 ? (uint64_t)left_ms * 1000 : 0, until;

        if (sluice_add_u64(now_us, left_us, &until) && until < g->expires_us)
            g->expires_us = until;
    }
}

sluice_status sluice_egress_grant(sluice_egress_gate *gate, const sluice_egress_request *request, sluice_grant **out, sluice_reason *reason,
                                  sluice_error *err)
{
    sluice_reason why;
    sluice_grant *g;
    size_t consent_index;
    uint64_t now_us;
    int rule;
    sluice_status st;

    *out = NULL;
    *reason = SLUICE_REASON_NONE;
    if (gate == NULL || request == NULL || request->attempt == 0 || (request->plaintext.ptr == NULL && request->plaintext.len > 0))
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "gate: no gate, no request, or attempt 0");
    now_us = sluice_now_us(gate->platform);
    why = sluice_egress_check(gate, &request->query, &rule, &consent_index);
    if (why == SLUICE_REASON_PERMITTED)
        why = check_request(gate, request, now_us);
    if (why != SLUICE_REASON_PERMITTED) {
        *reason = why;
        return refuse(gate, request, why, rule, err);
    }

    g = sluice_alloc_zeroed(gate->al, sizeof *g); /* before anything is written: an entry should not speak of a grant that there is no room for */
    if (g == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "gate: no memory for a grant");
    fill_grant(g, gate, request, rule, consent_index, now_us);
    st = consent_index != NO_CONSENT ? sluice_consent_spend(gate->consents, consent_index, err) : SLUICE_OK;
    if (st == SLUICE_OK)
        st = record(gate, request, SLUICE_REASON_PERMITTED, rule, g->consent_id, g->digest, &g->ledger_seq, err);
    if (st != SLUICE_OK) {
        sluice_grant_close(g);
        if (st != SLUICE_ERR_NO_MEMORY) {
            *reason = SLUICE_REASON_LEDGER_UNAVAILABLE;
            st = SLUICE_ERR_IO;
            if (err != NULL)
                err->status = st;
        }
        return st;
    }
    *reason = SLUICE_REASON_PERMITTED;
    *out = g;
    return SLUICE_OK;
}

sluice_status sluice_grant_spend(sluice_grant *g, sluice_span plaintext, uint64_t now_us, sluice_error *err)
{
    uint8_t digest[DIGEST_BYTES];
    sluice_status st = SLUICE_OK;

    if (g == NULL)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "grant: none");
    if (g->is_spent)
        return sluice_error_set(err, SLUICE_ERR_STATE, "grant: it has been used");
    g->is_spent = true; /* one try: who presents other bytes gets no second */
    sluice_ledger_digest(g->ledger, plaintext, digest);
    if (now_us >= g->expires_us)
        st = sluice_error_set(err, SLUICE_ERR_TIMEOUT, "grant: it has expired");
    else if (plaintext.len != g->plaintext_len || !sluice_ct_eq(digest, g->digest, sizeof digest))
        st = sluice_error_set(err, SLUICE_ERR_INTEGRITY, "grant: it was given for another payload");
    else if (g->consent_index != NO_CONSENT && g->generation != sluice_consent_generation(g->consents)
             && sluice_consent_stands(g->consents, g->consent_index, g->classes) != SLUICE_REASON_PERMITTED)
        st = sluice_error_set(err, SLUICE_ERR_CONSENT, "grant: the consent was withdrawn meanwhile");
    sluice_wipe(digest, sizeof digest);
    return st;
}

const sluice_destination *sluice_grant_destination(const sluice_grant *g)
{
    return &g->destination;
}

uint64_t sluice_grant_ledger_seq(const sluice_grant *g)
{
    return g->ledger_seq;
}

const char *sluice_grant_consent_id(const sluice_grant *g)
{
    return g->consent_id;
}

const char *sluice_grant_rule_id(const sluice_grant *g)
{
    return g->rule_id;
}

void sluice_grant_close(sluice_grant *g)
{
    if (g != NULL)
        sluice_free_wiped(g->al, g, sizeof *g);
}
