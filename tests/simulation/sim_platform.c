/* sim_platform.c - clock, randomness, files and keys of the simulated device; one thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/simulation/sim.h"

#include <stdlib.h>

sim_random sim_random_make(uint64_t seed, const char *domain)
{
    sim_random r = { seed * 0x9e3779b97f4a7c15u + 0x1234567u };
    for (; *domain != '\0'; domain++)
        r.state = (r.state ^ (uint8_t)*domain) * 0x100000001b3u;
    return r;
}

/* SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). */
uint64_t sim_next(sim_random *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t sim_below(sim_random *r, uint32_t n)
{
    return (uint32_t)(sim_next(r) >> 33) % n;
}

bool sim_chance(sim_random *r, uint32_t percent)
{
    return sim_below(r, 100) < percent;
}

struct sluice_file {
    sim_disk_file *file;
    bool can_write;
};

static sim_platform *self(void *user)
{
    return user;
}

static uint64_t now_us(void *user) { return self(user)->now_us; }
static int64_t wall_ms(void *user) { return self(user)->wall_ms; }

static sluice_status draw(void *user, void *out, size_t len, sluice_error *err)
{
    uint8_t *bytes = out;
    (void)err;
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)sim_next(&self(user)->random);
    return SLUICE_OK;
}

static bool disk_fails(sim_platform *p)
{
    return p->disk_fault_percent > 0 && sim_chance(&p->disk_random, p->disk_fault_percent);
}

static sim_disk_file *find(sim_platform *p, const char *path)
{
    for (size_t i = 0; i < SIM_FILES_MAX; i++)
        if (p->files[i].exists && strcmp(p->files[i].path, path) == 0)
            return &p->files[i];
    return NULL;
}

static sim_disk_file *create(sim_platform *p, const char *path)
{
    for (size_t i = 0; i < SIM_FILES_MAX; i++)
        if (!p->files[i].exists) {
            if (!sluice_copy_str(p->files[i].path, sizeof p->files[i].path, path))
                return NULL;
            p->files[i].exists = true;
            p->files[i].len = 0;
            return &p->files[i];
        }
    return NULL;
}

static sluice_status file_open(void *user, sluice_file **out, const char *path, sluice_file_mode mode, sluice_error *err)
{
    sim_platform *p = self(user);
    sim_disk_file *f = find(p, path);

    *out = NULL;
    if (f == NULL && mode == SLUICE_FILE_READ)
        return sluice_error_set(err, SLUICE_ERR_NOT_FOUND, "sim: no file");
    if (f != NULL && mode == SLUICE_FILE_CREATE_NEW)
        return sluice_error_set(err, SLUICE_ERR_IO, "sim: it exists");
    if (mode != SLUICE_FILE_READ && disk_fails(p))
        return sluice_error_set(err, SLUICE_ERR_IO, "sim: open failed");
    if (f == NULL)
        f = create(p, path);
    if (f == NULL)
        return sluice_error_set(err, SLUICE_ERR_IO, "sim: disk full");
    if (mode == SLUICE_FILE_TRUNCATE)
        f->len = 0;
    *out = malloc(sizeof **out);
    if (*out == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "sim");
    (*out)->file = f;
    (*out)->can_write = mode != SLUICE_FILE_READ;
    return SLUICE_OK;
}

static sluice_status file_size(void *user, sluice_file *f, uint64_t *out, sluice_error *err)
{
    (void)user;
    (void)err;
    *out = f->file->len;
    return SLUICE_OK;
}

static sluice_status file_read(void *user, sluice_file *f, uint64_t offset, void *buf, size_t len, size_t *got, sluice_error *err)
{
    (void)user;
    (void)err;
    const size_t at = offset < f->file->len ? (size_t)offset : f->file->len;
    *got = f->file->len - at < len ? f->file->len - at : len;
    if (*got > 0)
        memcpy(buf, f->file->data + at, *got);
    return SLUICE_OK;
}

static sluice_status file_write(void *user, sluice_file *f, const void *buf, size_t len, sluice_error *err)
{
    sim_platform *p = self(user);
    sim_disk_file *d = f->file;
    size_t n = len;

    const bool fails = disk_fails(p);
    if (fails) /* a part of it may have reached the disk */
        n = len > 0 ? sim_below(&p->disk_random, (uint32_t)len) : 0;
    if (d->len + n > d->cap) {
        const size_t cap = (d->len + n) * 2 + 4096;
        uint8_t *grown = realloc(d->data, cap);
        if (grown == NULL)
            return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "sim");
        d->data = grown;
        d->cap = cap;
    }
    if (n > 0)
        memcpy(d->data + d->len, buf, n);
    d->len += n;
    return fails ? sluice_error_set(err, SLUICE_ERR_IO, "sim: write failed") : SLUICE_OK;
}

static sluice_status file_truncate(void *user, sluice_file *f, uint64_t len, sluice_error *err)
{
    (void)user;
    (void)err;
    if (len < f->file->len)
        f->file->len = (size_t)len;
    return SLUICE_OK;
}

static sluice_status file_sync(void *user, sluice_file *f, sluice_error *err)
{
    (void)f;
    return disk_fails(self(user)) ? sluice_error_set(err, SLUICE_ERR_IO, "sim: sync failed") : SLUICE_OK;
}

static sluice_status file_lock(void *user, sluice_file *f, sluice_error *err)
{
    (void)user;
    (void)f;
    (void)err;
    return SLUICE_OK;
}

static void file_close(void *user, sluice_file *f)
{
    (void)user;
    free(f);
}

static sluice_status file_remove(void *user, const char *path, sluice_error *err)
{
    sim_disk_file *f = find(self(user), path);
    if (f == NULL)
        return sluice_error_set(err, SLUICE_ERR_NOT_FOUND, "sim: no file");
    f->exists = false;
    return SLUICE_OK;
}

static sluice_status file_rename(void *user, const char *from, const char *to, sluice_error *err)
{
    sim_disk_file *f = find(self(user), from);
    if (f == NULL || disk_fails(self(user)))
        return sluice_error_set(err, SLUICE_ERR_IO, "sim: rename failed");
    (void)file_remove(user, to, NULL);
    return sluice_copy_str(f->path, sizeof f->path, to) ? SLUICE_OK : sluice_error_set(err, SLUICE_ERR_IO, "sim: path too long");
}

static sluice_status make_dir(void *user, const char *path, sluice_error *err)
{
    (void)user;
    (void)path;
    (void)err;
    return SLUICE_OK;
}

static sluice_status map(void *user, sluice_mapping *out, const char *path, sluice_error *err)
{
    (void)user;
    (void)path;
    *out = SLUICE_MAPPING_EMPTY;
    return sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "sim: no mappings");
}

static void unmap(void *user, sluice_mapping *m)
{
    (void)user;
    *m = SLUICE_MAPPING_EMPTY;
}

/* One thread: locks are remembered only to catch a double lock, which would be a deadlock in the real world. */
struct sluice_mutex { bool is_locked; };
struct sluice_cond { int unused; };
struct sluice_thread { int unused; };

static sluice_status thread_start(void *user, sluice_thread **out, void (*run)(void *arg), void *arg, const char *name, sluice_error *err)
{
    (void)user;
    (void)run;
    (void)arg;
    (void)name;
    *out = NULL;
    return sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "sim: no threads");
}

static void thread_join(void *user, sluice_thread *t) { (void)user; (void)t; }
static bool thread_is_self(void *user, const sluice_thread *t) { (void)user; (void)t; return false; }

static sluice_status mutex_create(void *user, sluice_mutex **out, sluice_error *err)
{
    (void)user;
    *out = calloc(1, sizeof **out);
    return *out ? SLUICE_OK : sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "sim");
}

static void mutex_destroy(void *user, sluice_mutex *m) { (void)user; free(m); }

static void mutex_lock(void *user, sluice_mutex *m)
{
    (void)user;
    if (m->is_locked)
        abort(); /* a deadlock: the fuzzer of orders has found one */
    m->is_locked = true;
}

static void mutex_unlock(void *user, sluice_mutex *m)
{
    (void)user;
    if (!m->is_locked)
        abort();
    m->is_locked = false;
}

static sluice_status cond_create(void *user, sluice_cond **out, sluice_error *err)
{
    (void)user;
    *out = calloc(1, sizeof **out);
    return *out ? SLUICE_OK : sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "sim");
}

static void cond_destroy(void *user, sluice_cond *c) { (void)user; free(c); }
static void cond_broadcast(void *user, sluice_cond *c) { (void)user; (void)c; }

static void cond_wait(void *user, sluice_cond *c, sluice_mutex *m, uint64_t until_us)
{
    (void)c;
    (void)m;
    if (until_us != UINT64_MAX && until_us > self(user)->now_us)
        self(user)->now_us = until_us;
}

static void device_state(void *user, sluice_device_state *out) { *out = self(user)->device; }

static sluice_status key_load(void *user, const char *name, uint8_t out[32], sluice_error *err)
{
    sim_platform *p = self(user);
    for (size_t i = 0; i < sizeof p->keys / sizeof p->keys[0]; i++)
        if (p->keys[i].is_set && strcmp(p->keys[i].name, name) == 0) {
            memcpy(out, p->keys[i].key, 32);
            return SLUICE_OK;
        }
    return sluice_error_set(err, SLUICE_ERR_NOT_FOUND, "sim: no key");
}

static sluice_status key_store(void *user, const char *name, const uint8_t key[32], sluice_error *err)
{
    sim_platform *p = self(user);
    for (size_t i = 0; i < sizeof p->keys / sizeof p->keys[0]; i++)
        if (!p->keys[i].is_set) {
            (void)sluice_copy_str(p->keys[i].name, sizeof p->keys[i].name, name);
            memcpy(p->keys[i].key, key, 32);
            p->keys[i].is_set = true;
            return SLUICE_OK;
        }
    return sluice_error_set(err, SLUICE_ERR_IO, "sim: key store full");
}

void sim_platform_init(sim_platform *p, uint64_t seed)
{
    memset(p, 0, sizeof *p);
    p->now_us = 1000000;
    p->wall_ms = 1800000000000; /* 2027-01-15 */
    p->random = sim_random_make(seed, "random");
    p->disk_random = sim_random_make(seed, "disk");
    p->device.battery_percent = -1;
    p->device.network = SLUICE_NETWORK_UNMETERED;
    p->vtable = (sluice_platform){
        .size = sizeof(sluice_platform), .user = p, .now_us = now_us, .wall_ms = wall_ms, .random = draw,
        .file_open = file_open, .file_size = file_size, .file_read = file_read, .file_write = file_write,
        .file_truncate = file_truncate, .file_sync = file_sync, .file_lock = file_lock, .file_close = file_close,
        .file_rename = file_rename, .file_remove = file_remove, .make_dir = make_dir, .map = map, .unmap = unmap,
        .thread_start = thread_start, .thread_join = thread_join, .thread_is_self = thread_is_self,
        .mutex_create = mutex_create, .mutex_destroy = mutex_destroy, .mutex_lock = mutex_lock, .mutex_unlock = mutex_unlock,
        .cond_create = cond_create, .cond_destroy = cond_destroy, .cond_wait = cond_wait, .cond_broadcast = cond_broadcast,
        .device_state = device_state, .key_load = key_load, .key_store = key_store,
    };
}

void sim_platform_deinit(sim_platform *p)
{
    for (size_t i = 0; i < SIM_FILES_MAX; i++)
        free(p->files[i].data);
    memset(p, 0, sizeof *p);
}
