/* explain.c - decide a request without running it, and say everything that went into the decision.
 *
 * docs/explain.md describes the document.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/src/instance.h"

enum { EXPLANATION_BYTES_MAX = 1 << 20 };

static void write_reason(sluice_json_writer *w, const char *key, sluice_reason r)
{
    sluice_json_object_open(w, key);
    sluice_json_int(w, "code", r);
    sluice_json_str(w, "name", sluice_reason_name(r));
    sluice_json_str(w, "text", sluice_reason_text(r));
    sluice_json_object_close(w);
}

static void write_classes(sluice_json_writer *w, const char *key, sluice_data_classes classes)
{
    sluice_json_array_open(w, key);
    for (unsigned bit = 0; bit < 32; bit++) {
        const char *name = classes >> bit & 1u ? sluice_data_class_name(1u << bit) : NULL;
        if (name != NULL)
            sluice_json_str(w, NULL, name);
    }
    sluice_json_array_close(w);
}

static void write_features(sluice_json_writer *w, const sluice_features *f)
{
    sluice_json_object_open(w, "features");
    sluice_json_uint(w, "bytes", f->n_bytes);
    sluice_json_uint(w, "words", f->n_words);
    sluice_json_uint(w, "sentences", f->n_sentences);
    sluice_json_uint(w, "prompt_tokens", f->prompt_tokens_estimate);
    sluice_json_bool(w, "has_code", f->has_code);
    sluice_json_bool(w, "is_multi_turn", f->is_multi_turn);
    sluice_json_num(w, "non_ascii_share", (double)f->non_ascii_share, 3);
    sluice_json_num(w, "difficulty", (double)f->difficulty, 3);
    write_classes(w, "data_classes", f->classes);
    sluice_json_object_close(w);
}

static void write_verdict(sluice_json_writer *w, const sluice_backend_verdict *v)
{
    sluice_json_bool(w, "is_eligible", v->is_eligible);
    write_reason(w, "eligible", v->eligible_reason);
    sluice_json_bool(w, "is_worthwhile", v->is_worthwhile);
    write_reason(w, "worthwhile", v->worthwhile_reason);
    sluice_json_bool(w, "is_permitted", v->is_permitted);
    write_reason(w, "permitted", v->permitted_reason);
    if (v->confidence >= 0.0f)
        sluice_json_num(w, "predicted_confidence", (double)v->confidence, 3);
    if (v->expected_ms > 0)
        sluice_json_uint(w, "expected_ms", v->expected_ms);
}

static void write_rules(sluice_json_writer *w, const sluice_policy *p, const sluice_policy_query *q, int determining)
{
    char buf[200];

    sluice_json_array_open(w, "rules");
    for (size_t i = 0; i < p->n_rules; i++) {
        const char *miss = sluice_policy_rule_miss(p, i, q, buf, sizeof buf);
        sluice_json_object_open(w, NULL);
        sluice_json_str(w, "id", p->rules[i].id);
        sluice_json_str(w, "effect", p->rules[i].effect == SLUICE_RULE_PERMIT ? "permit" : "forbid");
        sluice_json_uint(w, "line", p->rules[i].line);
        sluice_json_bool(w, "matches", miss == NULL);
        sluice_json_bool(w, "determines", (int)i == determining);
        if (miss != NULL)
            sluice_json_str(w, "first_false_condition", miss);
        sluice_json_object_close(w);
    }
    sluice_json_array_close(w);
}

/* What would open the way, in words; NULL when nothing the user or developer can do here and now. */
static const char *mend(sluice_reason r)
{
    switch (r) {
    case SLUICE_REASON_CONSENT_MISSING:
    case SLUICE_REASON_CONSENT_EXPIRED: return "a consent to this purpose, these data classes and this endpoint";
    case SLUICE_REASON_CONSENT_REVOKED:
    case SLUICE_REASON_CONSENT_REFUSED: return "a new consent, given by the user unasked";
    case SLUICE_REASON_POLICY_NO_RULE: return "a permit rule of the policy that covers this purpose, endpoint and these data classes";
    case SLUICE_REASON_POLICY_FORBIDS: return "a request without the data class that the forbid rule names";
    case SLUICE_REASON_POLICY_LOCAL_ONLY: return "another mode of the policy or privacy class of the request";
    case SLUICE_REASON_LEDGER_UNAVAILABLE: return "a state folder that can be written";
    case SLUICE_REASON_CLOCK_UNTRUSTED: return "a correct clock";
    case SLUICE_REASON_POLICY_EXPIRED: return "a newer policy";
    case SLUICE_REASON_LOCAL_CONTEXT_TOO_LONG: return "a shorter request, or a model with a longer context";
    case SLUICE_REASON_LOCAL_NO_MODEL: return "a local model";
    case SLUICE_REASON_CLOUD_OFFLINE: return "a network";
    case SLUICE_REASON_LOCAL_TOO_SLOW:
    case SLUICE_REASON_CLOUD_TOO_SLOW: return "a later deadline";
    default: return NULL;
    }
}

static void write_changes(sluice_json_writer *w, const sluice *s, const sluice_decision *d)
{
    sluice_json_array_open(w, "would_change");
    if (!d->local.is_eligible && mend(d->local.eligible_reason) != NULL) {
        sluice_json_object_open(w, NULL);
        sluice_json_str(w, "backend", "local");
        sluice_json_str(w, "needs", mend(d->local.eligible_reason));
        sluice_json_object_close(w);
    }
    for (size_t i = 0; i < d->n_clouds; i++) {
        const sluice_backend_verdict *v = &d->clouds[i];
        const sluice_reason r = !v->is_permitted ? v->permitted_reason : !v->is_eligible ? v->eligible_reason : v->worthwhile_reason;
        if (mend(r) == NULL)
            continue;
        sluice_json_object_open(w, NULL);
        sluice_json_str(w, "backend", s->policy->endpoints[i].id);
        sluice_json_str(w, "needs", mend(r));
        sluice_json_object_close(w);
    }
    sluice_json_array_close(w);
}

static void write_document(sluice_json_writer *w, sluice_job *job, const sluice_decision_input *in, const sluice_decision *d)
{
    const sluice *s = job->s;
    char hash[65];

    sluice_json_object_open(w, NULL);
    sluice_json_str(w, "route", sluice_route_name(d->route));
    if (d->cloud >= 0)
        sluice_json_str(w, "endpoint", s->policy->endpoints[d->cloud].id);
    sluice_json_array_open(w, "reasons");
    for (size_t i = 0; i < d->n_reasons; i++)
        write_reason(w, NULL, d->reasons[i]);
    sluice_json_array_close(w);
    sluice_json_object_open(w, "policy");
    sluice_json_str(w, "id", s->policy->id);
    sluice_json_uint(w, "version", s->policy->version);
    sluice_hex(hash, s->policy->hash, sizeof s->policy->hash);
    sluice_json_str(w, "hash", hash);
    sluice_json_num(w, "escalate_below", (double)s->policy->escalate_below, 3);
    sluice_json_num(w, "stop_below", (double)s->policy->stop_below, 3);
    sluice_json_object_close(w);
    sluice_json_uint(w, "deadline_ms", in->time_left_ms);
    sluice_json_uint(w, "local_budget_ms", d->local_budget_ms);
    write_features(w, &in->features);
    sluice_json_object_open(w, "local");
    write_verdict(w, &d->local);
    sluice_json_object_close(w);
    sluice_json_array_open(w, "endpoints");
    for (size_t i = 0; i < d->n_clouds; i++) {
        const sluice_policy_query q = {
            .purpose = job->purpose, .endpoint = i, .classes = in->features.classes, .is_local_only = in->is_local_only,
            .network = in->local.device.network, .wall_ms = sluice_wall_ms(s->platform)
        };
        sluice_json_object_open(w, NULL);
        sluice_json_str(w, "id", s->policy->endpoints[i].id);
        write_verdict(w, &d->clouds[i]);
        write_rules(w, s->policy, &q, in->clouds[i].rule);
        sluice_json_object_close(w);
    }
    sluice_json_array_close(w);
    write_changes(w, s, d);
    sluice_json_object_close(w);
}

sluice_status sluice_explain(sluice *s, const sluice_request *request, char **json, sluice_error *err)
{
    sluice_job *job = NULL;
    sluice_decision_input in;
    sluice_decision decision;
    sluice_buf out;

    sluice_error_clear(err);
    if (s == NULL || json == NULL)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "explain: a required argument is NULL");
    *json = NULL;
    sluice_status st = sluice_job_new(&job, s, request, err);
    if (st != SLUICE_OK)
        return st;
    sluice_buf_init(&out, s->al, EXPLANATION_BYTES_MAX);
    st = sluice_job_prepare(job, job->request.deadline_ms, &in, err);
    if (st == SLUICE_OK) {
        sluice_json_writer w;
        sluice_decide(&in, &decision);
        sluice_json_begin(&w, &out);
        write_document(&w, job, &in, &decision);
        if (!w.ok)
            st = sluice_buf_error(&out, "explanation", err);
    }
    if (st == SLUICE_OK && (*json = sluice_buf_take_str(&out)) == NULL)
        st = sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "explain: no memory");
    sluice_buf_deinit(&out);
    sluice_job_free(job);
    return st;
}
