/* threads_posix.c - threads, mutexes and condition variables.
 *
 * A thread's record is shared by the thread and its owner, and the last of the two to leave frees it:
 * that is what lets a callback close the instance whose thread it runs on (join on oneself detaches).
 *
 *   start: 2 holders ──► the thread returns: 1 less ──┐
 *                        the owner joins:    1 less ──┴─► 0: freed
 *
 * Our threads take no signals of the app's: its handlers expect its own threads.  Those that a fault raises in the thread itself
 * stay, so that a crash reporter sees them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _POSIX_C_SOURCE 200809L

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "sdk/platform/default.h"

enum { NAME_CAP = 16, STACK_BYTES_MIN = 1 << 20 /* some systems give 128 KiB, too little for TLS and the JSON scan */ };

struct sluice_thread {
    pthread_t handle; /* written by pthread_create, read by the owner only */
    pthread_t self;   /* written by the thread before `is_running` */
    atomic_bool is_running;
    atomic_int n_holders;
    void (*run)(void *arg);
    void *arg;
    char name[NAME_CAP];
};

struct sluice_mutex {
    pthread_mutex_t handle;
};

struct sluice_cond {
    pthread_cond_t handle;
};

/* A pthread call that can fail only when we misuse it. */
static void must(int rc)
{
    assert(rc == 0);
    (void)rc;
}

/* ---- threads --------------------------------------------------------------------------------------- */

static void leave(sluice_thread *t)
{
    if (atomic_fetch_sub_explicit(&t->n_holders, 1, memory_order_acq_rel) == 1)
        sluice_free(NULL, t, sizeof *t);
}

static void *thread_main(void *user)
{
    sluice_thread *t = user;

    t->self = pthread_self();
    atomic_store_explicit(&t->is_running, true, memory_order_release);
    if (t->name[0] != '\0')
        sluice_default_thread_name(t->name);
    t->run(t->arg);
    leave(t);
    return NULL;
}

static void signals_not_for_us(sigset_t *set)
{
    static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF };

    (void)sigfillset(set);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        (void)sigdelset(set, faults[i]);
}

static int create(sluice_thread *t)
{
    pthread_attr_t attr;
    sigset_t block, before;
    size_t stack_bytes = 0;
    int rc = pthread_attr_init(&attr);

    if (rc != 0)
        return rc;
    if (pthread_attr_getstacksize(&attr, &stack_bytes) == 0 && stack_bytes < STACK_BYTES_MIN)
        (void)pthread_attr_setstacksize(&attr, STACK_BYTES_MIN);
    signals_not_for_us(&block);
    must(pthread_sigmask(SIG_BLOCK, &block, &before)); /* the new thread inherits the mask from its first instruction */
    rc = pthread_create(&t->handle, &attr, thread_main, t);
    must(pthread_sigmask(SIG_SETMASK, &before, NULL));
    must(pthread_attr_destroy(&attr));
    return rc;
}

sluice_status sluice_default_thread_start(void *user, sluice_thread **out, void (*run)(void *arg), void *arg, const char *name, sluice_error *err)
{
    sluice_thread *t = sluice_alloc_zeroed(NULL, sizeof *t);
    int rc;

    (void)user;
    *out = NULL;
    if (t == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "threads: no memory for a thread");
    t->run = run;
    t->arg = arg;
    (void)sluice_copy_str(t->name, sizeof t->name, name);
    atomic_init(&t->is_running, false);
    atomic_init(&t->n_holders, 2);
    *out = t; /* before it runs: the thread may look at it there */
    rc = create(t);
    if (rc == 0)
        return SLUICE_OK;
    *out = NULL;
    sluice_free(NULL, t, sizeof *t);
    (void)sluice_errno_set(err, rc, "threads: cannot start a thread", NULL);
    if (err != NULL)
        err->status = SLUICE_ERR_NO_MEMORY; /* EAGAIN: the system's or the process's limit */
    return SLUICE_ERR_NO_MEMORY;
}

bool sluice_default_thread_is_self(void *user, const sluice_thread *t)
{
    (void)user;
    /* until it has said so it has run nothing of ours, so the caller is somebody else */
    return t != NULL && atomic_load_explicit(&t->is_running, memory_order_acquire) && pthread_equal(t->self, pthread_self()) != 0;
}

void sluice_default_thread_join(void *user, sluice_thread *t)
{
    if (t == NULL)
        return;
    if (sluice_default_thread_is_self(user, t))
        must(pthread_detach(pthread_self()));
    else
        must(pthread_join(t->handle, NULL));
    leave(t);
}

/* ---- mutexes --------------------------------------------------------------------------------------- */

sluice_status sluice_default_mutex_create(void *user, sluice_mutex **out, sluice_error *err)
{
    sluice_mutex *m = sluice_alloc_zeroed(NULL, sizeof *m);

    (void)user;
    *out = NULL;
    if (m == NULL || pthread_mutex_init(&m->handle, NULL) != 0) {
        sluice_free(NULL, m, sizeof *m);
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "threads: no memory for a mutex");
    }
    *out = m;
    return SLUICE_OK;
}

void sluice_default_mutex_destroy(void *user, sluice_mutex *m)
{
    (void)user;
    if (m == NULL)
        return;
    must(pthread_mutex_destroy(&m->handle));
    sluice_free(NULL, m, sizeof *m);
}

void sluice_default_mutex_lock(void *user, sluice_mutex *m)
{
    (void)user;
    must(pthread_mutex_lock(&m->handle));
}

void sluice_default_mutex_unlock(void *user, sluice_mutex *m)
{
    (void)user;
    must(pthread_mutex_unlock(&m->handle));
}

/* ---- condition variables: deadlines are instants of now_us(), so changes of the wall clock do not matter -- */

#ifdef __APPLE__ /* no clock can be chosen there, but the wait can be relative */

static int cond_init(pthread_cond_t *c)
{
    return pthread_cond_init(c, NULL);
}

int pthread_cond_timedwait_relative_np(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);

static void timed_wait(pthread_cond_t *c, pthread_mutex_t *m, uint64_t until_us)
{
    uint64_t now = sluice_default_now_us(NULL);
    uint64_t left = until_us > now ? until_us - now : 0;
    struct timespec ts = { (time_t)(left / 1000000u), (long)(left % 1000000u) * 1000 };

    (void)pthread_cond_timedwait_relative_np(c, m, &ts);
}

#else

static int cond_init(pthread_cond_t *c)
{
    pthread_condattr_t attr;
    int rc = pthread_condattr_init(&attr);

    if (rc != 0)
        return rc;
    rc = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    if (rc == 0)
        rc = pthread_cond_init(c, &attr);
    (void)pthread_condattr_destroy(&attr);
    return rc;
}

static void timed_wait(pthread_cond_t *c, pthread_mutex_t *m, uint64_t until_us)
{
    struct timespec ts = { (time_t)(until_us / 1000000u), (long)(until_us % 1000000u) * 1000 };

    (void)pthread_cond_timedwait(c, m, &ts); /* a timeout is no error: the caller looks at its condition and the clock */
}

#endif

sluice_status sluice_default_cond_create(void *user, sluice_cond **out, sluice_error *err)
{
    sluice_cond *c = sluice_alloc_zeroed(NULL, sizeof *c);

    (void)user;
    *out = NULL;
    if (c == NULL || cond_init(&c->handle) != 0) {
        sluice_free(NULL, c, sizeof *c);
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "threads: no memory for a condition variable");
    }
    *out = c;
    return SLUICE_OK;
}

void sluice_default_cond_destroy(void *user, sluice_cond *c)
{
    (void)user;
    if (c == NULL)
        return;
    must(pthread_cond_destroy(&c->handle));
    sluice_free(NULL, c, sizeof *c);
}

void sluice_default_cond_wait(void *user, sluice_cond *c, sluice_mutex *m, uint64_t until_us)
{
    const uint64_t for_ever_us = (uint64_t)INT32_MAX * 1000000u; /* 68 years; fits a 32-bit time_t */

    (void)user;
    if (until_us >= for_ever_us)
        must(pthread_cond_wait(&c->handle, &m->handle));
    else
        timed_wait(&c->handle, &m->handle, until_us);
}

void sluice_default_cond_broadcast(void *user, sluice_cond *c)
{
    (void)user;
    must(pthread_cond_broadcast(&c->handle));
}
