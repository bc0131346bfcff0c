/* replay.c - no sealed request is answered twice.
 *
 * Whoever records a sealed request could send it again.  Each has its own encapsulated key, so the keys that were seen are
 * remembered for as long as a request with an acceptable date can come: twice the window.  What is older is refused by its
 * date alone.  After a restart nothing is remembered, so nothing dated before the start is taken (RFC 9458, 6.5).
 *
 * The table is a ring of entries in order of arrival, found through hash chains.  It does not grow: when a window's worth of requests
 * fills it, requests are refused until the oldest ages out, rather than forgetting a key too early.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "samples/gateway/parts.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ENTRIES = 1 << 16, BUCKETS = 1 << 16, NONE = -1 };

typedef struct seen {
    uint8_t enc[32];
    uint64_t until_ms;
    int32_t next; /* in its chain */
} seen;

struct gateway_replay {
    pthread_mutex_t lock;
    unsigned window_s;
    long long started_s;
    uint64_t mix; /* secret, so that nobody can choose keys that fall into one chain */
    size_t first, n;
    int32_t heads[BUCKETS];
    seen entries[ENTRIES];
};

gateway_replay *gateway_replay_open(unsigned window_s)
{
    gateway_replay *r = calloc(1, sizeof *r);

    if (r == NULL || !gateway_random(&r->mix, sizeof r->mix)) {
        free(r);
        return NULL;
    }
    r->mix |= 1;
    r->window_s = window_s;
    r->started_s = (long long)time(NULL);
    memset(r->heads, 0xff, sizeof r->heads); /* NONE */
    pthread_mutex_init(&r->lock, NULL);
    return r;
}

static size_t bucket_of(const gateway_replay *r, const uint8_t enc[32])
{
    uint64_t h = r->mix, word;

    for (size_t i = 0; i < 32; i += sizeof word) {
        memcpy(&word, enc + i, sizeof word);
        h = (h ^ word) * r->mix;
        h ^= h >> 29;
    }
    return (size_t)(h >> 32) % BUCKETS;
}

static void forget_old(gateway_replay *r, uint64_t now_ms)
{
    while (r->n > 0 && r->entries[r->first].until_ms <= now_ms) {
        int32_t *link = &r->heads[bucket_of(r, r->entries[r->first].enc)];
        while (*link != (int32_t)r->first)
            link = &r->entries[*link].next;
        *link = r->entries[r->first].next;
        r->first = (r->first + 1) % ENTRIES;
        r->n--;
    }
}

static gateway_freshness check_locked(gateway_replay *r, const uint8_t enc[32], long long date_s)
{
    const long long now_s = (long long)time(NULL), window_s = r->window_s;
    const uint64_t now_ms = gateway_now_ms();
    const size_t bucket = bucket_of(r, enc);
    int32_t i;
    seen *e;

    if (date_s < now_s - window_s || date_s > now_s + window_s || date_s < r->started_s)
        return GATEWAY_STALE;
    forget_old(r, now_ms);
    for (i = r->heads[bucket]; i != NONE; i = r->entries[i].next)
        if (memcmp(r->entries[i].enc, enc, 32) == 0)
            return GATEWAY_SEEN;
    if (r->n == ENTRIES)
        return GATEWAY_FULL;
    i = (int32_t)((r->first + r->n) % ENTRIES);
    e = &r->entries[i];
    memcpy(e->enc, enc, 32);
    e->until_ms = now_ms + 2000ull * r->window_s + 1000;
    e->next = r->heads[bucket];
    r->heads[bucket] = i;
    r->n++;
    return GATEWAY_FRESH;
}

gateway_freshness gateway_replay_check(gateway_replay *r, sluice_span enc, long long date_s)
{
    gateway_freshness f;

    if (enc.len != 32)
        return GATEWAY_STALE;
    pthread_mutex_lock(&r->lock);
    f = check_locked(r, enc.ptr, date_s);
    pthread_mutex_unlock(&r->lock);
    return f;
}

void gateway_replay_close(gateway_replay *r)
{
    if (r == NULL)
        return;
    pthread_mutex_destroy(&r->lock);
    free(r);
}
