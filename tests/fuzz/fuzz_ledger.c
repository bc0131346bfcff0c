/* fuzz_ledger.c - files of a ledger from a stranger: open takes what is its own and refuses the rest, and never crashes.
 *
 * The first byte chooses where the input goes: ledger, head, or in place of bytes of a good ledger.  Files live in memory.
 * When the ledger opens, what it holds is a prefix of what was written with the key, plus notes of recovery; it can be appended to and opened again.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "policies/consent.h"
#include "sdk/crypto/crypto.h"

/* ---- files in memory ------------------------------------------------------------------------------ */

enum { N_FILES = 4, FILE_BYTES_MAX = 1 << 17 };

typedef struct memory_file { char name[96]; bool exists; size_t len; uint8_t bytes[FILE_BYTES_MAX]; } memory_file;
static memory_file files[N_FILES];
struct sluice_file { memory_file *f; };
static struct sluice_file handles[N_FILES];

static memory_file *file_of(const char *path, bool make)
{
    for (size_t i = 0; i < N_FILES; i++)
        if (files[i].exists && strcmp(files[i].name, path) == 0)
            return &files[i];
    for (size_t i = 0; make && i < N_FILES; i++)
        if (!files[i].exists) {
            (void)sluice_copy_str(files[i].name, sizeof files[i].name, path);
            files[i].exists = true;
            files[i].len = 0;
            return &files[i];
        }
    return NULL;
}

static sluice_status mem_open(void *user, sluice_file **out, const char *path, sluice_file_mode mode, sluice_error *err)
{
    memory_file *f = file_of(path, mode != SLUICE_FILE_READ);

    (void)user;
    *out = NULL;
    if (f == NULL)
        return sluice_error_set(err, SLUICE_ERR_NOT_FOUND, "no file");
    if (mode == SLUICE_FILE_TRUNCATE)
        f->len = 0;
    *out = &handles[f - files];
    (*out)->f = f;
    return SLUICE_OK;
}

static sluice_status mem_size(void *user, sluice_file *f, uint64_t *out, sluice_error *err)
{
    (void)user;
    (void)err;
    *out = f->f->len;
    return SLUICE_OK;
}

static sluice_status mem_read(void *user, sluice_file *f, uint64_t offset, void *buf, size_t len, size_t *got, sluice_error *err)
{
    size_t left = offset < f->f->len ? f->f->len - (size_t)offset : 0;

    (void)user;
    (void)err;
    *got = len < left ? len : left;
    if (*got > 1000)
        *got = 1000; /* short reads are no end */
    memcpy(buf, f->f->bytes + (size_t)offset * (*got > 0), *got);
    return SLUICE_OK;
}

static sluice_status mem_write(void *user, sluice_file *f, const void *buf, size_t len, sluice_error *err)
{
    (void)user;
    if (len > FILE_BYTES_MAX - f->f->len)
        return sluice_error_set(err, SLUICE_ERR_IO, "full");
    memcpy(f->f->bytes + f->f->len, buf, len);
    f->f->len += len;
    return SLUICE_OK;
}

static sluice_status mem_truncate(void *user, sluice_file *f, uint64_t len, sluice_error *err)
{
    (void)user;
    (void)err;
    if (len < f->f->len)
        f->f->len = (size_t)len;
    return SLUICE_OK;
}

static sluice_status mem_ok(void *user, sluice_file *f, sluice_error *err)
{
    (void)user;
    (void)f;
    (void)err;
    return SLUICE_OK;
}

static void mem_close(void *user, sluice_file *f)
{
    (void)user;
    (void)f;
}

static sluice_status mem_rename(void *user, const char *from, const char *to, sluice_error *err)
{
    memory_file *f = file_of(from, false), *old = file_of(to, false);

    (void)user;
    if (f == NULL)
        return sluice_error_set(err, SLUICE_ERR_NOT_FOUND, "no file");
    if (old != NULL)
        old->exists = false;
    (void)sluice_copy_str(f->name, sizeof f->name, to);
    return SLUICE_OK;
}

static sluice_status mem_make_dir(void *user, const char *path, sluice_error *err)
{
    (void)user;
    (void)path;
    (void)err;
    return SLUICE_OK;
}

static sluice_status key_load(void *user, const char *name, uint8_t out[32], sluice_error *err)
{
    (void)user;
    (void)name;
    (void)err;
    memset(out, 7, 32);
    return SLUICE_OK;
}

static sluice_status key_store(void *user, const char *name, const uint8_t key[32], sluice_error *err)
{
    (void)user;
    (void)name;
    (void)key;
    (void)err;
    return SLUICE_OK;
}

static int64_t wall_ms(void *user)
{
    (void)user;
    return 1767225600000;
}

static sluice_platform platform(void)
{
    sluice_platform p = *sluice_platform_default();

    p.wall_ms = wall_ms;
    p.file_open = mem_open;
    p.file_size = mem_size;
    p.file_read = mem_read;
    p.file_write = mem_write;
    p.file_truncate = mem_truncate;
    p.file_sync = mem_ok;
    p.file_lock = mem_ok;
    p.file_close = mem_close;
    p.file_rename = mem_rename;
    p.make_dir = mem_make_dir;
    p.key_load = key_load;
    p.key_store = key_store;
    return p;
}

/* ---- a good ledger to begin with ------------------------------------------------------------------ */

enum { N_GOOD = 4 };
static memory_file good_ledger, good_head;

static void make_good(const sluice_platform *p)
{
    static const char *const events[N_GOOD] = { "given", "refused", "spent", "withdrawn" };
    sluice_ledger *l;

    if (sluice_ledger_open(&l, "s", p, NULL, NULL) != SLUICE_OK)
        abort();
    for (int i = 0; i < N_GOOD; i++) {
        const sluice_ledger_field fields[] = {
            { "event", events[i], 0 }, { "id", i % 2 == 0 ? "c-1" : "c-2", 0 }, { "classes", "prompt", 0 }, { "scope", "once", 0 }
        };

        if (sluice_ledger_append(l, "consent", fields, 4, NULL, NULL) != SLUICE_OK)
            abort();
    }
    sluice_ledger_close(l);
    good_ledger = *file_of("s/ledger", false);
    good_head = *file_of("s/ledger.head", false);
}

static void put(const char *path, const uint8_t *ptr, size_t len)
{
    memory_file *f = file_of(path, true);

    f->len = len < FILE_BYTES_MAX ? len : FILE_BYTES_MAX;
    if (f->len > 0)
        memcpy(f->bytes, ptr, f->len);
}

static size_t n_lines;

static bool on_line(const char *json, size_t len, void *user)
{
    (void)user;
    if (strlen(json) != len)
        abort();
    n_lines++;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sluice_platform p = platform();
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_ledger *l = NULL;
    sluice_status st;

    if (good_ledger.len == 0)
        make_good(&p);
    if (size < 2)
        return 0;
    memset(files[0].name, 0, 1);
    for (size_t i = 0; i < N_FILES; i++)
        files[i].exists = false;
    put("s/ledger", good_ledger.bytes, good_ledger.len);
    put("s/ledger.head", good_head.bytes, good_head.len);
    switch (data[0] % 4) {
    case 0: /* the ledger, without a head */
        file_of("s/ledger.head", false)->exists = false;
        put("s/ledger", data + 1, size - 1);
        break;
    case 1: /* the head */
        put("s/ledger.head", data + 1, size - 1);
        break;
    case 2: { /* over the good ledger, somewhere */
        memory_file *f = file_of("s/ledger", false);
        size_t at = ((size_t)data[1] << 3) % f->len, n = size - 2 < f->len - at ? size - 2 : f->len - at;

        memcpy(f->bytes + at, data + 2, n);
        break;
    }
    default: { /* behind it */
        memory_file *f = file_of("s/ledger", false);
        size_t n = size - 1 < FILE_BYTES_MAX - f->len - 20000 ? size - 1 : 0;

        memcpy(f->bytes + f->len, data + 1, n);
        f->len += n;
        break;
    }
    }
    st = sluice_ledger_open(&l, "s", &p, NULL, &err);
    if ((st == SLUICE_OK) != (l != NULL) || err.status != st)
        abort();
    if (st == SLUICE_OK) {
        sluice_consent_store *c = NULL;
        uint64_t n = 0;

        n_lines = 0;
        if (sluice_ledger_check(l, &n, NULL) != SLUICE_OK || sluice_ledger_walk(l, on_line, NULL, NULL) != SLUICE_OK || n_lines != n ||
            n > N_GOOD + 1)
            abort(); /* nobody without the key adds an entry: at most the note of a recovery */
        if (sluice_consent_open(&c, l, &p, NULL, NULL) != SLUICE_OK || sluice_consent_count(c) > 2)
            abort();
        sluice_consent_close(c);
        if (sluice_ledger_append(l, "decision", NULL, 0, NULL, NULL) != SLUICE_OK)
            abort();
        sluice_ledger_close(l);
        if (sluice_ledger_open(&l, "s", &p, NULL, NULL) != SLUICE_OK)
            abort();
        sluice_ledger_close(l);
    } else if (st != SLUICE_ERR_INTEGRITY) {
        abort();
    }
    return 0;
}
