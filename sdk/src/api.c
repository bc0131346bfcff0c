/* api.c - the public calls on an open instance: submit, cancel, consents, ledger.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/src/instance.h"

static sluice_status no_instance(sluice_error *err)
{
    return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "the instance is NULL");
}

sluice_status sluice_submit(sluice *s, const sluice_request *request, sluice_event_fn on_event, void *user,
                            uint64_t *request_id, sluice_error *err)
{
    sluice_job *job = NULL;

    sluice_error_clear(err);
    if (s == NULL)
        return no_instance(err);
    sluice_status st = sluice_job_new(&job, s, request, err);
    if (st != SLUICE_OK)
        return st;
    job->on_event = on_event;
    job->on_event_user = user;
    sluice_note *note = sluice_note_new(s, SLUICE_NOTE_SUBMIT, SLUICE_SPAN_EMPTY);
    if (note == NULL) {
        sluice_job_free(job);
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "submit: no memory");
    }
    sluice_lock(s, s->inbox_lock);
    const uint64_t id = s->next_request_id++;
    sluice_unlock(s, s->inbox_lock);
    job->id = id;
    note->request_id = id;
    note->request = job;
    if (request_id != NULL)
        *request_id = id; /* before the first event can arrive */
    if (sluice_post(s, note))
        return SLUICE_OK;
    sluice_job_free(job);
    if (request_id != NULL)
        *request_id = 0;
    sluice_lock(s, s->inbox_lock);
    const bool closing = s->is_closing;
    sluice_unlock(s, s->inbox_lock);
    if (closing)
        return sluice_error_set(err, SLUICE_ERR_STATE, "submit: the instance is closing");
    sluice_error_set(err, SLUICE_ERR_LIMIT, "submit: %d requests are waiting already", SLUICE_REQUESTS_MAX);
    sluice_error_hint(err, "wait for their events, or cancel some");
    return SLUICE_ERR_LIMIT;
}

sluice_status sluice_cancel(sluice *s, uint64_t request_id)
{
    if (s == NULL)
        return SLUICE_ERR_ARGUMENT;
    sluice_lock(s, s->inbox_lock);
    bool known = false;
    for (size_t i = 0; i < s->n_requests; i++)
        known = known || s->live[i] == request_id;
    sluice_unlock(s, s->inbox_lock);
    if (!known)
        return SLUICE_ERR_NOT_FOUND;
    sluice_note *note = sluice_note_new(s, SLUICE_NOTE_CANCEL, SLUICE_SPAN_EMPTY);
    if (note == NULL)
        return SLUICE_ERR_NO_MEMORY;
    note->request_id = request_id;
    sluice_post(s, note);
    return SLUICE_OK;
}

/* ---- consent -------------------------------------------------------------------------------------------- */

static sluice_status need_ledger(sluice *s, sluice_error *err)
{
    if (s->ledger != NULL)
        return SLUICE_OK;
    if (err != NULL)
        *err = s->ledger_error;
    return s->ledger_error.status != SLUICE_OK ? s->ledger_error.status : SLUICE_ERR_STATE;
}

sluice_status sluice_consent_grant(sluice *s, const sluice_consent *consent, char *id_out, sluice_error *err)
{
    sluice_error_clear(err);
    if (s == NULL || consent == NULL || consent->size < sizeof *consent)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "consent: size is not set: call sluice_consent_init() first");
    sluice_consent c = *consent;
    if (c.purpose[0] == '\0' && s->policy->n_purposes > 0)
        (void)sluice_copy_str(c.purpose, sizeof c.purpose, s->policy->purposes[0].id);
    sluice_lock(s, s->state_lock);
    sluice_status st = need_ledger(s, err);
    if (st == SLUICE_OK)
        st = sluice_consent_add(s->consents, s->policy, &c, id_out, err);
    sluice_unlock(s, s->state_lock);
    return st;
}

sluice_status sluice_consent_revoke(sluice *s, const char *id, sluice_error *err)
{
    sluice_error_clear(err);
    if (s == NULL || id == NULL)
        return no_instance(err);
    sluice_lock(s, s->state_lock);
    const sluice_status st = sluice_consent_withdraw(s->consents, id, err);
    sluice_unlock(s, s->state_lock);
    if (st == SLUICE_ERR_NOT_FOUND || st == SLUICE_ERR_ARGUMENT)
        return st;
    /* From here on no grant can be spent.  What is in flight under this consent is cancelled by the orchestrator. */
    sluice_note *note = sluice_note_new(s, SLUICE_NOTE_REVOKED, sluice_span_str(id));
    if (note == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY,
                                "consent %s is withdrawn, but there is no memory to stop a request in flight", id);
    sluice_post(s, note);
    return st;
}

static bool take_question(sluice *s, uint64_t request_id, sluice_asked *out)
{
    for (size_t i = 0; i < SLUICE_REQUESTS_MAX && request_id != 0; i++)
        if (s->asked[i].request_id == request_id) {
            *out = s->asked[i];
            s->asked[i].request_id = 0;
            return true;
        }
    return false;
}

sluice_status sluice_consent_answer(sluice *s, uint64_t request_id, const sluice_consent *grant, sluice_error *err)
{
    sluice_error_clear(err);
    if (s == NULL)
        return no_instance(err);
    /* Allocated first: a consent that could be recorded but not reported would be in force without the app's knowing. */
    sluice_note *note = sluice_note_new(s, SLUICE_NOTE_CONSENT, SLUICE_SPAN_EMPTY);
    if (note == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "consent: no memory; nothing was recorded, answer again");
    sluice_asked a;
    sluice_lock(s, s->state_lock);
    if (!take_question(s, request_id, &a)) {
        sluice_unlock(s, s->state_lock);
        sluice_note_free(s, note);
        return sluice_error_set(err, SLUICE_ERR_NOT_FOUND, "request %llu does not wait for consent",
                                (unsigned long long)request_id);
    }
    sluice_status st = need_ledger(s, err);
    if (st == SLUICE_OK && grant != NULL) {
        sluice_consent c;
        sluice_consent_init(&c, sizeof c);
        (void)sluice_copy_str(c.purpose, sizeof c.purpose, s->policy->purposes[a.purpose].id);
        (void)sluice_copy_str(c.endpoint, sizeof c.endpoint, s->policy->endpoints[a.endpoint].id);
        c.classes = a.classes;
        c.scope = grant->scope;
        c.valid_until_ms = grant->valid_until_ms;
        st = sluice_consent_add(s->consents, s->policy, &c, NULL, err);
    } else if (st == SLUICE_OK) {
        st = sluice_consent_refuse(s->consents, s->policy, a.purpose, a.endpoint, a.classes, err);
    }
    sluice_unlock(s, s->state_lock);
    note->request_id = request_id;
    note->is_granted = grant != NULL && st == SLUICE_OK; /* what cannot be recorded is not granted */
    sluice_post(s, note);
    return st;
}

sluice_status sluice_consent_list(sluice *s, sluice_consent **list, size_t *n, sluice_error *err)
{
    sluice_error_clear(err);
    if (s == NULL || list == NULL || n == NULL)
        return no_instance(err);
    *list = NULL;
    *n = 0;
    sluice_lock(s, s->state_lock);
    sluice_status st = need_ledger(s, err);
    const size_t count = st == SLUICE_OK ? sluice_consent_count(s->consents) : 0;
    if (count > 0) {
        *list = sluice_alloc_array(s->al, count, sizeof **list);
        if (*list == NULL)
            st = sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "consent: no memory for %zu records", count);
    }
    for (size_t i = 0; st == SLUICE_OK && i < count; i++) {
        sluice_consent_init(&(*list)[i], sizeof **list);
        sluice_consent_get(s->consents, i, &(*list)[i]);
        *n = i + 1;
    }
    sluice_unlock(s, s->state_lock);
    return st;
}

void sluice_consent_list_free(sluice *s, sluice_consent *list, size_t n)
{
    if (s != NULL)
        sluice_free(s->al, list, n * sizeof *list);
}

/* ---- ledger --------------------------------------------------------------------------------------------- */

typedef struct kept_lines {
    sluice_buf text;
    bool are_whole;
} kept_lines;

static bool keep_line(const char *json, size_t len, void *user)
{
    kept_lines *k = user;
    k->are_whole = sluice_buf_append(&k->text, json, len) && sluice_buf_append_byte(&k->text, '\n');
    return k->are_whole;
}

/* The lines are copied first: the app's code runs without a lock, and may call anything. */
sluice_status sluice_ledger_list(sluice *s, sluice_line_fn on_line, void *user, sluice_error *err)
{
    kept_lines k = { .are_whole = true };

    sluice_error_clear(err);
    if (s == NULL || on_line == NULL)
        return no_instance(err);
    sluice_buf_init(&k.text, s->al, SIZE_MAX);
    sluice_lock(s, s->state_lock);
    sluice_status st = need_ledger(s, err);
    if (st == SLUICE_OK)
        st = sluice_ledger_walk(s->ledger, keep_line, &k, err);
    sluice_unlock(s, s->state_lock);
    if (!k.are_whole)
        st = sluice_buf_error(&k.text, "ledger", err);
    for (size_t at = 0; st == SLUICE_OK && at < k.text.len;) {
        const uint8_t *line = k.text.ptr + at;
        const uint8_t *end = memchr(line, '\n', k.text.len - at);
        const size_t len = (size_t)(end - line);
        if (!on_line((const char *)line, len, user))
            break;
        at += len + 1;
    }
    sluice_buf_deinit(&k.text);
    return st;
}

sluice_status sluice_ledger_verify(sluice *s, uint64_t *n_entries, sluice_error *err)
{
    sluice_error_clear(err);
    if (s == NULL)
        return no_instance(err);
    sluice_lock(s, s->state_lock);
    sluice_status st = need_ledger(s, err);
    if (st == SLUICE_OK)
        st = sluice_ledger_check(s->ledger, n_entries, err);
    sluice_unlock(s, s->state_lock);
    return st;
}
