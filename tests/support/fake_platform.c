/* fake_platform.c - the default platform with everything that a test wants to hold in its hands.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/support/fake_platform.h"

#include <stdio.h>

enum { LOG_MAX = 1 << 20, WAIT_SLICE_US = 1000 };

static const int64_t WALL_MS_START = 1767225600000; /* 2026-01-01T00:00:00Z */

static const char *const op_names[FAKE_N_OPS] = { "random", "open", "read", "write", "truncate", "sync", "lock", "rename", "remove", "make_dir", "map",
                                                  "thread", "key_load", "key_store" };

static void lock(fake_platform *fp)
{
    while (atomic_flag_test_and_set_explicit(&fp->lock, memory_order_acquire))
        ;
}

static void unlock(fake_platform *fp)
{
    atomic_flag_clear_explicit(&fp->lock, memory_order_release);
}

/* Count a call; true when it is the one that fails. */
static bool fails(fake_platform *fp, fake_op op, sluice_error *err)
{
    size_t n = atomic_fetch_add(&fp->count[op], 1);
    size_t at = atomic_load(&fp->fail_at[op]);

    if (n != at && !(atomic_load(&fp->fail_on[op]) && at != SIZE_MAX && n > at))
        return false;
    sluice_error_set(err, SLUICE_ERR_IO, "fake: %s %zu fails on purpose", op_names[op], n);
    return true;
}

/* ---- clock and randomness -------------------------------------------------------------------------- */

static uint64_t fake_now_us(void *user)
{
    fake_platform *fp = user;

    return fp->real_clock ? fp->real->now_us(fp->real->user) : atomic_load(&fp->now_us);
}

static int64_t fake_wall_ms(void *user)
{
    fake_platform *fp = user;

    return fp->real_clock ? fp->real->wall_ms(fp->real->user) : atomic_load(&fp->wall_ms);
}

/* splitmix64 over a counter: any state is one addition away, so threads need no lock */
static uint64_t draw(fake_platform *fp)
{
    uint64_t z = fp->seed + 0x9e3779b97f4a7c15u * (atomic_fetch_add(&fp->n_drawn, 1) + 1);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static sluice_status fake_random(void *user, void *out, size_t len, sluice_error *err)
{
    fake_platform *fp = user;
    uint8_t *to = out;

    if (fails(fp, FAKE_RANDOM, err))
        return SLUICE_ERR_IO;
    for (size_t i = 0; i < len; i += 8) {
        uint64_t bits = draw(fp);
        size_t n = len - i < 8 ? len - i : 8;

        for (size_t j = 0; j < n; j++)
            to[i + j] = (uint8_t)(bits >> (8 * j)); /* the same on every byte order */
    }
    return SLUICE_OK;
}

/* ---- files ----------------------------------------------------------------------------------------- */

static sluice_status fake_file_open(void *user, sluice_file **out, const char *path, sluice_file_mode mode, sluice_error *err)
{
    fake_platform *fp = user;

    *out = NULL;
    return fails(fp, FAKE_OPEN, err) ? SLUICE_ERR_IO : fp->real->file_open(fp->real->user, out, path, mode, err);
}

static sluice_status fake_file_size(void *user, sluice_file *f, uint64_t *out, sluice_error *err)
{
    fake_platform *fp = user;

    return fp->real->file_size(fp->real->user, f, out, err);
}

static sluice_status fake_file_read(void *user, sluice_file *f, uint64_t offset, void *buf, size_t len, size_t *got, sluice_error *err)
{
    fake_platform *fp = user;

    *got = 0;
    return fails(fp, FAKE_READ, err) ? SLUICE_ERR_IO : fp->real->file_read(fp->real->user, f, offset, buf, len, got, err);
}

static sluice_status fake_file_write(void *user, sluice_file *f, const void *buf, size_t len, sluice_error *err)
{
    fake_platform *fp = user;

    if (!fails(fp, FAKE_WRITE, err))
        return fp->real->file_write(fp->real->user, f, buf, len, err);
    if (fp->torn_writes)
        (void)fp->real->file_write(fp->real->user, f, buf, len / 2, NULL);
    return SLUICE_ERR_IO;
}

static sluice_status fake_file_truncate(void *user, sluice_file *f, uint64_t len, sluice_error *err)
{
    fake_platform *fp = user;

    return fails(fp, FAKE_TRUNCATE, err) ? SLUICE_ERR_IO : fp->real->file_truncate(fp->real->user, f, len, err);
}

/* What succeeds is not really synced: tests write a lot, and none of them pulls the plug. */
static sluice_status fake_file_sync(void *user, sluice_file *f, sluice_error *err)
{
    (void)f;
    return fails(user, FAKE_SYNC, err) ? SLUICE_ERR_IO : SLUICE_OK;
}

static sluice_status fake_file_lock(void *user, sluice_file *f, sluice_error *err)
{
    fake_platform *fp = user;

    return fails(fp, FAKE_LOCK, err) ? SLUICE_ERR_IO : fp->real->file_lock(fp->real->user, f, err);
}

static void fake_file_close(void *user, sluice_file *f)
{
    fake_platform *fp = user;

    fp->real->file_close(fp->real->user, f);
}

static sluice_status fake_file_rename(void *user, const char *from, const char *to, sluice_error *err)
{
    fake_platform *fp = user;

    return fails(fp, FAKE_RENAME, err) ? SLUICE_ERR_IO : fp->real->file_rename(fp->real->user, from, to, err);
}

static sluice_status fake_file_remove(void *user, const char *path, sluice_error *err)
{
    fake_platform *fp = user;

    return fails(fp, FAKE_REMOVE, err) ? SLUICE_ERR_IO : fp->real->file_remove(fp->real->user, path, err);
}

static sluice_status fake_make_dir(void *user, const char *path, sluice_error *err)
{
    fake_platform *fp = user;

    return fails(fp, FAKE_MAKE_DIR, err) ? SLUICE_ERR_IO : fp->real->make_dir(fp->real->user, path, err);
}

static sluice_status fake_map(void *user, sluice_mapping *out, const char *path, sluice_error *err)
{
    fake_platform *fp = user;

    *out = SLUICE_MAPPING_EMPTY;
    return fails(fp, FAKE_MAP, err) ? SLUICE_ERR_IO : fp->real->map(fp->real->user, out, path, err);
}

static void fake_unmap(void *user, sluice_mapping *m)
{
    fake_platform *fp = user;

    fp->real->unmap(fp->real->user, m);
}

/* ---- threads --------------------------------------------------------------------------------------- */

static sluice_status fake_thread_start(void *user, sluice_thread **out, void (*run)(void *arg), void *arg, const char *name, sluice_error *err)
{
    fake_platform *fp = user;

    if (!fails(fp, FAKE_THREAD, err))
        return fp->real->thread_start(fp->real->user, out, run, arg, name, err);
    *out = NULL;
    if (err != NULL)
        err->status = SLUICE_ERR_NO_MEMORY;
    return SLUICE_ERR_NO_MEMORY;
}

static void fake_thread_join(void *user, sluice_thread *t)
{
    fake_platform *fp = user;

    fp->real->thread_join(fp->real->user, t);
}

static bool fake_thread_is_self(void *user, const sluice_thread *t)
{
    fake_platform *fp = user;

    return fp->real->thread_is_self(fp->real->user, t);
}

static sluice_status fake_mutex_create(void *user, sluice_mutex **out, sluice_error *err)
{
    fake_platform *fp = user;

    return fp->real->mutex_create(fp->real->user, out, err);
}

static void fake_mutex_destroy(void *user, sluice_mutex *m)
{
    fake_platform *fp = user;

    fp->real->mutex_destroy(fp->real->user, m);
}

static void fake_mutex_lock(void *user, sluice_mutex *m)
{
    fake_platform *fp = user;

    fp->real->mutex_lock(fp->real->user, m);
}

static void fake_mutex_unlock(void *user, sluice_mutex *m)
{
    fake_platform *fp = user;

    fp->real->mutex_unlock(fp->real->user, m);
}

static sluice_status fake_cond_create(void *user, sluice_cond **out, sluice_error *err)
{
    fake_platform *fp = user;

    return fp->real->cond_create(fp->real->user, out, err);
}

static void fake_cond_destroy(void *user, sluice_cond *c)
{
    fake_platform *fp = user;

    fp->real->cond_destroy(fp->real->user, c);
}

static void fake_cond_wait(void *user, sluice_cond *c, sluice_mutex *m, uint64_t until_us)
{
    fake_platform *fp = user;

    if (!fp->real_clock && until_us != UINT64_MAX) {
        if (until_us <= atomic_load(&fp->now_us))
            return;
        until_us = fp->real->now_us(fp->real->user) + WAIT_SLICE_US;
    }
    fp->real->cond_wait(fp->real->user, c, m, until_us);
}

static void fake_cond_broadcast(void *user, sluice_cond *c)
{
    fake_platform *fp = user;

    fp->real->cond_broadcast(fp->real->user, c);
}

/* ---- device, keys, log ----------------------------------------------------------------------------- */

static void fake_device_state(void *user, sluice_device_state *out)
{
    *out = ((fake_platform *)user)->device;
}

/* With the lock held: the index of the key, or n_keys. */
static size_t find_key(const fake_platform *fp, const char *name)
{
    size_t i = 0;

    while (i < fp->n_keys && strcmp(fp->keys[i].name, name) != 0)
        i++;
    return i;
}

static sluice_status fake_key_load(void *user, const char *name, uint8_t out[32], sluice_error *err)
{
    fake_platform *fp = user;
    bool found;
    size_t i;

    if (fails(fp, FAKE_KEY_LOAD, err))
        return SLUICE_ERR_IO;
    lock(fp);
    i = find_key(fp, name);
    found = i < fp->n_keys;
    if (found)
        memcpy(out, fp->keys[i].key, 32);
    unlock(fp);
    return found ? SLUICE_OK : sluice_error_set(err, SLUICE_ERR_NOT_FOUND, "fake: no key \"%s\"", name);
}

static sluice_status fake_key_store(void *user, const char *name, const uint8_t key[32], sluice_error *err)
{
    fake_platform *fp = user;
    bool stored = false;
    size_t i;

    if (fails(fp, FAKE_KEY_STORE, err))
        return SLUICE_ERR_IO;
    lock(fp);
    i = find_key(fp, name);
    if (i < FAKE_KEYS_MAX && sluice_copy_str(fp->keys[i].name, sizeof fp->keys[i].name, name)) {
        memcpy(fp->keys[i].key, key, 32);
        fp->n_keys += i == fp->n_keys;
        stored = true;
    }
    unlock(fp);
    return stored ? SLUICE_OK : sluice_error_set(err, SLUICE_ERR_LIMIT, "fake: no room for key \"%s\"", name);
}

static void fake_log(void *user, sluice_log_level level, const char *message)
{
    static const char levels[] = "-EWID";
    fake_platform *fp = user;

    lock(fp);
    (void)sluice_buf_appendf(&fp->log, "%c %s\n", levels[level], message);
    unlock(fp);
    if (fp->log_to_stderr)
        fprintf(stderr, "%c %s\n", levels[level], message);
}

/* ---- the test's side ------------------------------------------------------------------------------- */

void fake_platform_init(fake_platform *fp, uint64_t seed)
{
    sluice_platform *p = &fp->platform;

    memset(fp, 0, sizeof *fp);
    fp->real = sluice_platform_default();
    fp->seed = seed;
    atomic_init(&fp->now_us, 1000000u);
    atomic_init(&fp->wall_ms, WALL_MS_START);
    atomic_init(&fp->n_drawn, 0u);
    for (int op = 0; op < FAKE_N_OPS; op++) {
        atomic_init(&fp->count[op], 0u);
        atomic_init(&fp->fail_at[op], SIZE_MAX);
        atomic_init(&fp->fail_on[op], false);
    }
    atomic_flag_clear(&fp->lock);
    sluice_buf_init(&fp->log, NULL, LOG_MAX);
    fp->device = (sluice_device_state){ .memory_total_bytes = (uint64_t)8 << 30, .memory_available_bytes = (uint64_t)4 << 30, .n_cores = 4,
                                        .battery_percent = 80, .thermal = SLUICE_THERMAL_NOMINAL, .network = SLUICE_NETWORK_UNMETERED };

    p->size = sizeof *p;
    p->user = fp;
    p->now_us = fake_now_us;
    p->wall_ms = fake_wall_ms;
    p->random = fake_random;
    p->file_open = fake_file_open;
    p->file_size = fake_file_size;
    p->file_read = fake_file_read;
    p->file_write = fake_file_write;
    p->file_truncate = fake_file_truncate;
    p->file_sync = fake_file_sync;
    p->file_lock = fake_file_lock;
    p->file_close = fake_file_close;
    p->file_rename = fake_file_rename;
    p->file_remove = fake_file_remove;
    p->make_dir = fake_make_dir;
    p->map = fake_map;
    p->unmap = fake_unmap;
    p->thread_start = fake_thread_start;
    p->thread_join = fake_thread_join;
    p->thread_is_self = fake_thread_is_self;
    p->mutex_create = fake_mutex_create;
    p->mutex_destroy = fake_mutex_destroy;
    p->mutex_lock = fake_mutex_lock;
    p->mutex_unlock = fake_mutex_unlock;
    p->cond_create = fake_cond_create;
    p->cond_destroy = fake_cond_destroy;
    p->cond_wait = fake_cond_wait;
    p->cond_broadcast = fake_cond_broadcast;
    p->device_state = fake_device_state;
    p->key_load = fake_key_load;
    p->key_store = fake_key_store;
    p->log = fake_log;
}

void fake_platform_deinit(fake_platform *fp)
{
    sluice_wipe(fp->keys, sizeof fp->keys);
    fp->n_keys = 0;
    sluice_buf_deinit(&fp->log);
}

void fake_platform_advance_us(fake_platform *fp, uint64_t us)
{
    uint64_t before = atomic_fetch_add(&fp->now_us, us);

    /* the wall clock ticks where the monotonic one passes a millisecond, so many small steps do not lose time */
    if (atomic_load(&fp->wall_ms) >= 0)
        atomic_fetch_add(&fp->wall_ms, (int64_t)((before + us) / 1000 - before / 1000));
}

void fake_platform_set_wall_ms(fake_platform *fp, int64_t wall_ms)
{
    atomic_store(&fp->wall_ms, wall_ms);
}

void fake_platform_fail(fake_platform *fp, fake_op op, size_t n)
{
    atomic_store(&fp->fail_on[op], false);
    atomic_store(&fp->fail_at[op], atomic_load(&fp->count[op]) + n);
}

void fake_platform_fail_on(fake_platform *fp, fake_op op, size_t n)
{
    fake_platform_fail(fp, op, n);
    atomic_store(&fp->fail_on[op], true);
}

void fake_platform_heal(fake_platform *fp)
{
    for (int op = 0; op < FAKE_N_OPS; op++) {
        atomic_store(&fp->fail_on[op], false);
        atomic_store(&fp->fail_at[op], SIZE_MAX);
    }
}
