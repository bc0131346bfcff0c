/* orchestrator.c - the thread that owns every request: inbox, timers, transport.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/src/instance.h"

sluice_note *sluice_note_new(sluice *s, sluice_note_kind kind, sluice_span text)
{
    size_t bytes;
    if (!sluice_add_size(sizeof(sluice_note), text.len, &bytes))
        return NULL;
    sluice_note *note = sluice_alloc_zeroed(s->al, bytes);
    if (note == NULL)
        return NULL;
    note->kind = kind;
    note->text_len = text.len;
    if (text.len > 0)
        memcpy(note->text, text.ptr, text.len);
    return note;
}

void sluice_note_free(sluice *s, sluice_note *note)
{
    if (note != NULL)
        sluice_free_wiped(s->al, note, sizeof *note + note->text_len);
}

void sluice_wake(sluice *s)
{
    s->platform->cond_broadcast(s->platform->user, s->inbox_cond);
    if (s->has_transport)
        s->transport.wake(s->transport.user);
}

bool sluice_post(sluice *s, sluice_note *note)
{
    sluice_lock(s, s->inbox_lock);
    const bool refused = note->kind == SLUICE_NOTE_SUBMIT && (s->is_closing || s->n_requests >= SLUICE_REQUESTS_MAX);
    if (!refused) {
        if (note->kind == SLUICE_NOTE_SUBMIT)
            s->live[s->n_requests++] = note->request_id;
        *s->inbox_tail = note;
        s->inbox_tail = &note->next;
        sluice_wake(s);
    }
    sluice_unlock(s, s->inbox_lock);
    if (refused)
        sluice_note_free(s, note);
    return !refused;
}

static sluice_note *take_all(sluice *s, bool *closing)
{
    sluice_lock(s, s->inbox_lock);
    sluice_note *notes = s->inbox_head;
    s->inbox_head = NULL;
    s->inbox_tail = &s->inbox_head;
    *closing = s->is_closing;
    sluice_unlock(s, s->inbox_lock);
    return notes;
}

static sluice_job *find_job(sluice *s, uint64_t id)
{
    for (sluice_job *j = s->jobs; j != NULL; j = j->next)
        if (j->id == id)
            return j;
    return NULL;
}

static void revoke(sluice *s, const sluice_note *note)
{
    char id[SLUICE_ID_MAX] = { 0 };
    memcpy(id, note->text, note->text_len < sizeof id - 1 ? note->text_len : sizeof id - 1);
    const sluice_machine_event e = { .kind = SLUICE_ME_REVOKED };
    for (sluice_job *j = s->jobs; j != NULL; j = j->next)
        if (sluice_job_uses_consent(j, id))
            sluice_job_step(j, &e);
}

static void handle(sluice *s, sluice_note *note)
{
    if (note->kind == SLUICE_NOTE_SUBMIT) {
        sluice_job *job = note->request;
        job->next = s->jobs;
        s->jobs = job;
        sluice_job_start(job);
    } else if (note->kind == SLUICE_NOTE_REVOKED) {
        revoke(s, note);
    } else {
        sluice_job *job = find_job(s, note->request_id);
        if (job != NULL && !job->is_finished)
            sluice_job_on_note(job, note);
    }
}

static void reap(sluice *s)
{
    for (sluice_job **p = &s->jobs; *p != NULL;) {
        sluice_job *job = *p;
        if (!job->is_finished) {
            p = &job->next;
            continue;
        }
        *p = job->next;
        sluice_lock(s, s->inbox_lock);
        for (size_t i = 0; i < s->n_requests; i++)
            if (s->live[i] == job->id) {
                s->live[i] = s->live[--s->n_requests];
                break;
            }
        sluice_unlock(s, s->inbox_lock);
        sluice_job_free(job);
    }
}

static void run_timers(sluice *s)
{
    const uint64_t now = sluice_now_us(s->platform);
    for (sluice_job *j = s->jobs; j != NULL; j = j->next)
        if (!j->is_finished)
            sluice_job_on_timers(j, now);
}

static void cancel_all(sluice *s)
{
    const sluice_machine_event e = { .kind = SLUICE_ME_CANCEL };
    for (sluice_job *j = s->jobs; j != NULL; j = j->next)
        if (!j->is_finished)
            sluice_job_step(j, &e);
}

uint64_t sluice_orchestrator_next_us(const sluice *s)
{
    uint64_t at = UINT64_MAX;
    for (const sluice_job *j = s->jobs; j != NULL; j = j->next) {
        const uint64_t t = sluice_job_next_timer(j);
        at = t < at ? t : at;
    }
    return at;
}

/* Until a note, a timer or the network has something. */
static void wait_for_work(sluice *s)
{
    const uint64_t at = sluice_orchestrator_next_us(s), now = sluice_now_us(s->platform);
    bool exchanging = false;

    for (const sluice_job *j = s->jobs; j != NULL; j = j->next)
        exchanging = exchanging || j->exchange != NULL;
    if (exchanging) {
        const uint64_t left_ms = at <= now ? 0 : (at - now + 999) / 1000;
        s->transport.step(s->transport.user, left_ms < 1000 ? (uint32_t)left_ms : 1000);
        return;
    }
    if (at <= now)
        return;
    sluice_lock(s, s->inbox_lock);
    if (s->inbox_head == NULL && !s->is_closing)
        s->platform->cond_wait(s->platform->user, s->inbox_cond, s->inbox_lock, at);
    sluice_unlock(s, s->inbox_lock);
}

bool sluice_orchestrator_turn(sluice *s)
{
    bool closing = false;
    for (sluice_note *note = take_all(s, &closing), *next; note != NULL; note = next) {
        next = note->next;
        handle(s, note);
        sluice_note_free(s, note);
    }
    run_timers(s);
    reap(s);
    return closing;
}

void sluice_orchestrator_end(sluice *s)
{
    cancel_all(s);
    reap(s);
}

void sluice_orchestrator_run(void *arg)
{
    sluice *s = arg;

    do
        wait_for_work(s);
    while (!sluice_orchestrator_turn(s));
    sluice_orchestrator_end(s);
    sluice_lock(s, s->inbox_lock);
    const bool must_free = s->close_from_callback;
    sluice_unlock(s, s->inbox_lock);
    if (must_free)
        sluice_instance_free(s); /* closed from its own callback: nobody else will */
}
