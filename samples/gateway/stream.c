/* stream.c - an answer on its way from a backend's thread to a connection's thread.
 *
 * A bounded pipe in memory.  The reader may leave first (the phone has hung up): the writer learns of it at its next write, or by asking.
 * The object goes away with the second of its two references.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include "samples/gateway/parts.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LOOK_MS = 100 }; /* how often a waiting reader looks at the stop flag */

struct gateway_stream {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    gateway_buf waiting; /* written, not yet read */
    size_t bytes_total, bytes_max;
    int http_status; /* 0: not started */
    char content_type[80];
    bool is_finished, is_whole, is_abandoned;
    int n_refs;
};

gateway_stream *gateway_stream_new(size_t bytes_max)
{
    gateway_stream *s = calloc(1, sizeof *s);
    pthread_condattr_t attr;

    if (s == NULL)
        return NULL;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, &attr);
    pthread_condattr_destroy(&attr);
    s->waiting.max = s->bytes_max = bytes_max;
    s->n_refs = 2;
    return s;
}

static void release_locked(gateway_stream *s)
{
    const bool is_last = --s->n_refs == 0;

    pthread_mutex_unlock(&s->lock);
    if (!is_last)
        return;
    gateway_buf_free(&s->waiting);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

void gateway_stream_start(gateway_stream *s, int http_status, const char *content_type)
{
    pthread_mutex_lock(&s->lock);
    if (s->http_status == 0) {
        s->http_status = http_status;
        (void)snprintf(s->content_type, sizeof s->content_type, "%s", content_type);
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
}

bool gateway_stream_write(gateway_stream *s, const void *data, size_t len)
{
    bool ok;

    pthread_mutex_lock(&s->lock);
    ok = !s->is_abandoned && len <= s->bytes_max - s->bytes_total && gateway_buf_add(&s->waiting, data, len);
    if (ok)
        s->bytes_total += len;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return ok;
}

void gateway_stream_finish(gateway_stream *s, bool is_whole)
{
    pthread_mutex_lock(&s->lock);
    s->is_finished = true;
    s->is_whole = is_whole;
    pthread_cond_broadcast(&s->changed);
    release_locked(s);
}

bool gateway_stream_is_abandoned(gateway_stream *s)
{
    bool is_abandoned;

    pthread_mutex_lock(&s->lock);
    is_abandoned = s->is_abandoned;
    pthread_mutex_unlock(&s->lock);
    return is_abandoned;
}

/* Sleep until something changes, `until_ms`, or the next look at the stop flag.  False when waiting is over. */
static bool wait_locked(gateway_stream *s, uint64_t until_ms)
{
    const uint64_t now_ms = gateway_now_ms();
    uint64_t at_ms = now_ms + LOOK_MS;
    struct timespec at;

    if (gateway_is_stopping() || now_ms >= until_ms)
        return false;
    if (at_ms > until_ms)
        at_ms = until_ms;
    at.tv_sec = (time_t)(at_ms / 1000);
    at.tv_nsec = (long)(at_ms % 1000) * 1000000;
    (void)pthread_cond_timedwait(&s->changed, &s->lock, &at);
    return true;
}

bool gateway_stream_wait(gateway_stream *s, uint64_t deadline_ms, int *http_status, const char **content_type)
{
    bool ok;

    pthread_mutex_lock(&s->lock);
    while (s->http_status == 0 && !s->is_finished)
        if (!wait_locked(s, deadline_ms))
            break;
    ok = s->http_status != 0;
    *http_status = s->http_status;
    *content_type = s->content_type; /* does not change after the start */
    pthread_mutex_unlock(&s->lock);
    return ok;
}

gateway_stream_state gateway_stream_read(gateway_stream *s, gateway_buf *out, unsigned gather_ms, uint64_t deadline_ms)
{
    gateway_stream_state state = GATEWAY_STREAM_BROKEN;
    uint64_t gather_until_ms;
    bool ok = true;

    pthread_mutex_lock(&s->lock);
    while (ok && s->waiting.len == 0 && !s->is_finished)
        ok = wait_locked(s, deadline_ms);
    gather_until_ms = gateway_now_ms() + gather_ms;
    while (ok && !s->is_finished && wait_locked(s, gather_until_ms))
        ;
    if (s->waiting.len > 0)
        state = gateway_buf_add(out, s->waiting.ptr, s->waiting.len) ? GATEWAY_STREAM_BYTES : GATEWAY_STREAM_BROKEN;
    else if (s->is_finished && s->is_whole)
        state = GATEWAY_STREAM_END;
    s->waiting.len = 0;
    pthread_mutex_unlock(&s->lock);
    return state;
}

void gateway_stream_leave(gateway_stream *s)
{
    if (s == NULL)
        return;
    pthread_mutex_lock(&s->lock);
    s->is_abandoned = true;
    release_locked(s);
}
