/* policy_lint.c - warnings on a policy that is well formed: it will load, but does its author mean it?
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "policies/policy_internal.h"

#include <stdio.h>

#include "policies/data_class.h"

static size_t offset_of(const sluice_json *root, const char *key)
{
    const sluice_json *v = sluice_json_get(root, key);

    return v != NULL ? v->offset : root->offset;
}

/* The i-th item of a list of the root.  The policy has no errors, so lists and arrays correspond. */
static const sluice_json *item(const sluice_json *root, const char *key, size_t i)
{
    const sluice_json *v = sluice_json_get(root, key)->child;

    while (i-- > 0)
        v = v->next;
    return v;
}

/* A forbid whose conditions hold for every request between this purpose and endpoint: every request has the prompt. */
static bool forbids_all(const sluice_policy_rule *f, size_t purpose, size_t endpoint)
{
    return f->effect == SLUICE_RULE_FORBID && !f->forbids_metered && (f->classes & SLUICE_CLASS_PROMPT) != 0
           && (f->purposes >> purpose & 1u) != 0 && (f->endpoints >> endpoint & 1u) != 0;
}

/* Does some forbid take away every pair of purpose and endpoint that the permit gives?  *one is the last that did. */
static bool is_shadowed(const sluice_policy *p, const sluice_policy_rule *permit, const sluice_policy_rule **one)
{
    for (size_t u = 0; u < p->n_purposes; u++)
        for (size_t e = 0; e < p->n_endpoints; e++) {
            bool is_taken = false;

            if ((permit->purposes >> u & 1u) == 0 || (permit->endpoints >> e & 1u) == 0)
                continue;
            for (size_t i = 0; i < p->n_rules && !is_taken; i++)
                if (forbids_all(&p->rules[i], u, e)) {
                    is_taken = true;
                    *one = &p->rules[i];
                }
            if (!is_taken)
                return false;
        }
    return true;
}

static void lint_permit(sluice_policy_reader *r, const sluice_json *place, const sluice_policy_rule *rule)
{
    const sluice_policy *p = r->policy;
    const sluice_policy_rule *forbid = NULL;

    if ((rule->classes & SLUICE_CLASS_PROMPT) == 0) {
        sluice_policy_report(r, P_NEVER_MATCHES, place->offset, "add \"prompt\" to \"classes\"",
                             "permit \"%s\" never matches: every request has the class prompt", rule->id);
        return;
    }
    if (is_shadowed(p, rule, &forbid)) {
        sluice_policy_report(r, P_SHADOWED, place->offset, "forbid overrides permit, whatever their order",
                             "permit \"%s\" has no effect: forbid \"%s\" covers it", rule->id, forbid->id);
        return;
    }
    if (rule->requires_consent)
        return;
    for (size_t i = 0; i < p->n_rules; i++) {
        const sluice_policy_rule *other = &p->rules[i];

        if (other->effect == SLUICE_RULE_PERMIT && other->requires_consent && (rule->purposes & ~other->purposes) == 0
            && (rule->endpoints & ~other->endpoints) == 0 && (rule->classes & ~other->classes) == 0) {
            sluice_policy_report(r, P_CONSENT_OVERRULED, place->offset, "where several permits match, the strictest counts",
                                 "permit \"%s\" has no effect: permit \"%s\" asks for consent for the same", rule->id, other->id);
            return;
        }
    }
    sluice_policy_report(r, P_PERMIT_WITHOUT_CONSENT, place->offset, "leave out \"consent\": false unless nothing personal can be in these requests",
                         "permit \"%s\" lets data out without asking the user", rule->id);
}

static void lint_rules(sluice_policy_reader *r, const sluice_json *root)
{
    const sluice_policy *p = r->policy;
    uint32_t purposes = 0, endpoints = 0;

    for (size_t i = 0; i < p->n_rules; i++) {
        if (p->rules[i].effect != SLUICE_RULE_PERMIT)
            continue;
        purposes |= p->rules[i].purposes;
        endpoints |= p->rules[i].endpoints;
        lint_permit(r, item(root, "rules", i), &p->rules[i]);
    }
    if (p->mode == SLUICE_MODE_LOCAL_ONLY)
        return; /* nothing is meant to leave */
    if (p->n_rules == 0)
        sluice_policy_report(r, P_NO_RULES, offset_of(root, "rules"), "say \"mode\": \"local_only\" if that is meant",
                             "there are no rules, so nothing may leave");
    for (size_t i = 0; i < p->n_purposes; i++)
        if ((purposes >> i & 1u) == 0)
            sluice_policy_report(r, P_UNUSED_PURPOSE, item(root, "purposes", i)->offset, "", "no permit names purpose \"%s\"", p->purposes[i].id);
    for (size_t i = 0; i < p->n_endpoints; i++)
        if ((endpoints >> i & 1u) == 0)
            sluice_policy_report(r, P_UNUSED_ENDPOINT, item(root, "endpoints", i)->offset, "", "no permit names endpoint \"%s\"", p->endpoints[i].id);
    if (p->mode == SLUICE_MODE_CLOUD_ONLY && (p->n_endpoints == 0 || endpoints == 0))
        sluice_policy_report(r, P_NO_ANSWER, offset_of(root, "mode"), "", "\"cloud_only\" without a permitted endpoint: no request can be answered");
}

/* Every string of the file but those that are long random text by nature. */
static void lint_keys(sluice_policy_reader *r, const sluice_json *v)
{
    if (v->key != NULL && (strcmp(v->key, "key_config") == 0 || strcmp(v->key, "ca_pem") == 0 || strcmp(v->key, "spki_pins") == 0))
        return;
    if (v->kind == SLUICE_JSON_STRING && sluice_data_class_has_key(sluice_span_of(v->string, v->string_len)))
        sluice_policy_report(r, P_LOOKS_LIKE_KEY, v->offset, "a key in an app is public: let the gateway hold it, and have this one revoked",
                             "this looks like the secret key of a provider");
    for (const sluice_json *c = v->child; c != NULL; c = c->next)
        lint_keys(r, c); /* as deep as the JSON reader allows */
}

void sluice_policy_lint_tree(sluice_policy_reader *r, const sluice_json *root)
{
    const sluice_policy *p = r->policy;

    for (size_t i = 0; i < p->n_endpoints; i++)
        if (p->endpoints[i].n_spki_pins == 1)
            sluice_policy_report(r, P_SINGLE_PIN, offset_of(item(root, "endpoints", i), "spki_pins"), "add the pin of a key that is kept offline",
                                 "endpoint \"%s\" has no backup pin: a lost key locks every app out", p->endpoints[i].id);
    lint_rules(r, root);
    lint_keys(r, root);
}

void sluice_policy_lint_time(const sluice_policy *p, int64_t wall_ms, sluice_policy_finding_fn on_finding, void *user)
{
    sluice_policy_finding f = { .code = "P108" };

    if (p->expires_ms == 0 || wall_ms < p->expires_ms)
        return;
    (void)sluice_copy_str(f.message, sizeof f.message, "the policy has expired: only the device answers");
    (void)sluice_copy_str(f.hint, sizeof f.hint, "issue a new version with a later \"expires\"");
    on_finding(&f, user);
}
