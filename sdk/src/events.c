/* events.c - events to the app: called on the orchestrator, or queued for sluice_poll().
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/src/instance.h"

static void queue_event(sluice *s, sluice_job *job, const sluice_event *event)
{
    sluice_queued_event *q = NULL;
    if (event->kind == SLUICE_EVENT_DONE) { /* its room was set aside when the request was accepted */
        q = job->done_event;
        job->done_event = NULL;
    } else {
        q = sluice_alloc_zeroed(s->al, sizeof *q + event->text.len);
    }
    if (q == NULL) {
        job->has_lost_text = job->has_lost_text || event->kind == SLUICE_EVENT_TEXT || event->kind == SLUICE_EVENT_RESTART;
        return;
    }
    q->on_event = job->on_event;
    q->user = job->on_event_user;
    q->event = *event;
    if (event->text.len > 0)
        memcpy(q->text, event->text.ptr, event->text.len);
    q->event.text = sluice_span_of(q->text, event->text.len);
    sluice_lock(s, s->inbox_lock);
    *s->events_tail = q;
    s->events_tail = &q->next;
    s->platform->cond_broadcast(s->platform->user, s->inbox_cond);
    sluice_unlock(s, s->inbox_lock);
}

void sluice_deliver(sluice_job *job, sluice_event *event)
{
    sluice *s = job->s;

    event->size = sizeof *event;
    event->request_id = job->id;
    if (job->on_event == NULL)
        return;
    if (s->poll_events) {
        queue_event(s, job, event);
        return;
    }
    job->on_event(event, job->on_event_user);
}

static sluice_queued_event *take_event(sluice *s)
{
    sluice_queued_event *q = s->events_head;
    if (q == NULL)
        return NULL;
    s->events_head = q->next;
    if (s->events_head == NULL)
        s->events_tail = &s->events_head;
    return q;
}

static void release_event(sluice *s, sluice_queued_event *q)
{
    sluice_free_wiped(s->al, q, sizeof *q + q->event.text.len);
}

sluice_status sluice_poll(sluice *s, uint32_t timeout_ms, size_t *n_delivered)
{
    size_t n = 0;

    if (n_delivered != NULL)
        *n_delivered = 0;
    if (s == NULL || !s->poll_events)
        return s == NULL ? SLUICE_ERR_ARGUMENT : SLUICE_ERR_STATE;
    sluice_lock(s, s->inbox_lock);
    if (s->is_polling) {
        sluice_unlock(s, s->inbox_lock);
        return SLUICE_ERR_STATE;
    }
    s->is_polling = true;
    const uint64_t until = sluice_now_us(s->platform) + (uint64_t)timeout_ms * 1000;
    while (s->events_head == NULL && !s->close_after_poll && sluice_now_us(s->platform) < until)
        s->platform->cond_wait(s->platform->user, s->inbox_cond, s->inbox_lock, until);
    /* Only what is there now, so that an app that submits from its callbacks still gets its thread back. */
    size_t n_waiting = 0;
    for (const sluice_queued_event *e = s->events_head; e != NULL; e = e->next)
        n_waiting++;
    for (sluice_queued_event *q; n < n_waiting && !s->close_after_poll && (q = take_event(s)) != NULL; n++) {
        sluice_unlock(s, s->inbox_lock);
        q->on_event(&q->event, q->user);
        release_event(s, q);
        sluice_lock(s, s->inbox_lock);
    }
    s->is_polling = false;
    const bool must_close = s->close_after_poll;
    s->close_after_poll = false;
    sluice_unlock(s, s->inbox_lock);
    if (n_delivered != NULL)
        *n_delivered = n;
    if (must_close)
        sluice_close(s);
    return SLUICE_OK;
}

/* After the threads have ended: what nobody pulled is delivered on the closing thread. */
void sluice_events_drain(sluice *s)
{
    for (sluice_queued_event *q; (q = take_event(s)) != NULL;) {
        q->on_event(&q->event, q->user);
        release_event(s, q);
    }
}
