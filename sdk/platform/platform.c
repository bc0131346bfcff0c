/* platform.c - helpers over the platform vtable, the same for every platform.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/platform/platform.h"

#include <stdio.h>

enum { PATH_CAP = 4096, CHUNK_BYTES = 8192, KEY_BYTES = 32, KEY_NAME_MAX = 64, LOG_CAP = 1024 };

sluice_status sluice_platform_check(const sluice_platform *p, sluice_error *err)
{
    const char *missing = NULL;

    if (p == NULL)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "platform: NULL");
    if (p->size < sizeof *p)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "platform: size is %zu, this build needs %zu", p->size, sizeof *p);
#define REQUIRE(member)                                                                                                                              \
    do                                                                                                                                               \
        if (missing == NULL && p->member == NULL)                                                                                                    \
            missing = #member;                                                                                                                       \
    while (0)
    REQUIRE(now_us);
    REQUIRE(wall_ms);
    REQUIRE(random);
    REQUIRE(file_open);
    REQUIRE(file_size);
    REQUIRE(file_read);
    REQUIRE(file_write);
    REQUIRE(file_truncate);
    REQUIRE(file_sync);
    REQUIRE(file_lock);
    REQUIRE(file_close);
    REQUIRE(file_rename);
    REQUIRE(file_remove);
    REQUIRE(make_dir);
    REQUIRE(map);
    REQUIRE(unmap);
    REQUIRE(thread_start);
    REQUIRE(thread_join);
    REQUIRE(thread_is_self);
    REQUIRE(mutex_create);
    REQUIRE(mutex_destroy);
    REQUIRE(mutex_lock);
    REQUIRE(mutex_unlock);
    REQUIRE(cond_create);
    REQUIRE(cond_destroy);
    REQUIRE(cond_wait);
    REQUIRE(cond_broadcast);
    REQUIRE(device_state);
#undef REQUIRE
    if (missing == NULL && (p->key_load == NULL) != (p->key_store == NULL))
        missing = p->key_load == NULL ? "key_load (key_store is set)" : "key_store (key_load is set)";
    if (missing != NULL)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "platform: no %s", missing);
    return SLUICE_OK;
}

/* ---- files ----------------------------------------------------------------------------------------- */

static sluice_status too_large(const char *path, uint64_t bytes, size_t max_bytes, sluice_error *err)
{
    sluice_status st =
        sluice_error_set(err, SLUICE_ERR_LIMIT, "files: %llu bytes or more, at most %zu are read", (unsigned long long)bytes, max_bytes);

    sluice_error_where(err, path);
    return st;
}

/* Reads to the end, wherever it has moved since the size was asked for. */
static sluice_status read_all(const sluice_platform *p, sluice_file *f, const char *path, size_t max_bytes, sluice_buf *out, sluice_error *err)
{
    uint8_t chunk[CHUNK_BYTES];
    uint64_t offset = 0;
    size_t got = 0;
    sluice_status st;

    do {
        st = p->file_read(p->user, f, offset, chunk, sizeof chunk, &got, err);
        if (st != SLUICE_OK)
            break;
        offset += got;
        if (offset > max_bytes)
            st = too_large(path, offset, max_bytes, err);
        else if (!sluice_buf_append(out, chunk, got))
            st = sluice_buf_error(out, "files", err);
    } while (st == SLUICE_OK && got > 0);
    sluice_wipe(chunk, sizeof chunk); /* key files pass through here */
    return st;
}

sluice_status sluice_platform_read_file(const sluice_platform *p, const char *path, size_t max_bytes, sluice_buf *out, sluice_error *err)
{
    sluice_file *f = NULL;
    size_t len_before = out->len;
    uint64_t bytes = 0;
    sluice_status st = p->file_open(p->user, &f, path, SLUICE_FILE_READ, err);

    if (st != SLUICE_OK)
        return st;
    st = p->file_size(p->user, f, &bytes, err);
    if (st == SLUICE_OK && bytes > max_bytes)
        st = too_large(path, bytes, max_bytes, err);
    if (st == SLUICE_OK)
        st = read_all(p, f, path, max_bytes, out, err);
    p->file_close(p->user, f);
    if (st != SLUICE_OK && out->len > len_before) { /* what was there before is untouched */
        sluice_wipe(out->ptr + len_before, out->len - len_before);
        out->len = len_before;
    }
    return st;
}

sluice_status sluice_platform_write_file(const sluice_platform *p, const char *path, sluice_span data, sluice_error *err)
{
    char tmp[PATH_CAP];
    sluice_file *f = NULL;
    sluice_status st;
    int n = snprintf(tmp, sizeof tmp, "%s.tmp", path);

    if (n < 0 || (size_t)n >= sizeof tmp) {
        st = sluice_error_set(err, SLUICE_ERR_LIMIT, "files: the path is longer than %d bytes", PATH_CAP);
        sluice_error_where(err, path);
        return st;
    }
    st = p->file_open(p->user, &f, tmp, SLUICE_FILE_TRUNCATE, err);
    if (st != SLUICE_OK)
        return st;
    if (data.len > 0)
        st = p->file_write(p->user, f, data.ptr, data.len, err);
    if (st == SLUICE_OK)
        st = p->file_sync(p->user, f, err); /* before the rename: else a crash may leave the new name on an empty file */
    p->file_close(p->user, f);
    if (st == SLUICE_OK)
        st = p->file_rename(p->user, tmp, path, err);
    if (st != SLUICE_OK)
        (void)p->file_remove(p->user, tmp, NULL); /* missing where the rename was done and only the folder's sync failed */
    return st;
}

sluice_status sluice_path_join(char *out, size_t cap, const char *dir, const char *name, sluice_error *err)
{
    size_t len = strlen(dir);
    const char *slash = len > 0 && dir[len - 1] != '/' ? "/" : "";
    int n = snprintf(out, cap, "%s%s%s", dir, slash, name);

    if (n >= 0 && (size_t)n < cap)
        return SLUICE_OK;
    if (cap > 0)
        out[0] = '\0';
    return sluice_error_set(err, SLUICE_ERR_LIMIT, "files: \"%.80s\" in its folder makes a path longer than %zu bytes", name, cap > 0 ? cap - 1 : 0);
}

/* ---- keys ------------------------------------------------------------------------------------------ */

static bool key_name_fits(const char *name)
{
    size_t len = strlen(name);

    return len > 0 && len <= KEY_NAME_MAX && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

static sluice_status load_key_file(const sluice_platform *p, const char *path, uint8_t out[KEY_BYTES], sluice_error *err)
{
    sluice_buf content;
    sluice_status st;

    sluice_buf_init(&content, NULL, KEY_BYTES);
    st = sluice_platform_read_file(p, path, KEY_BYTES, &content, err);
    if (st == SLUICE_ERR_LIMIT || (st == SLUICE_OK && content.len != KEY_BYTES)) {
        st = sluice_error_set(err, SLUICE_ERR_FORMAT, "platform: a key file that is not %d bytes long", KEY_BYTES);
        sluice_error_where(err, path);
        sluice_error_hint(err, "restore it from a backup; without it, what it signed or sealed is lost");
    }
    if (st == SLUICE_OK)
        memcpy(out, content.ptr, KEY_BYTES);
    sluice_buf_deinit(&content);
    return st;
}

/* state_dir/keys/NAME.key; the folder is made when `make` says so. */
static sluice_status key_path(const sluice_platform *p, const char *state_dir, const char *name, bool make, char out[PATH_CAP], sluice_error *err)
{
    char folder[PATH_CAP];
    char file[KEY_NAME_MAX + sizeof ".key"];
    sluice_status st = sluice_path_join(folder, sizeof folder, state_dir, "keys", err);

    (void)snprintf(file, sizeof file, "%s.key", name);
    if (st == SLUICE_OK && make)
        st = p->make_dir(p->user, folder, err);
    if (st == SLUICE_OK)
        st = sluice_path_join(out, PATH_CAP, folder, file, err);
    return st;
}

static sluice_status load_key(const sluice_platform *p, const char *state_dir, const char *name, uint8_t out[KEY_BYTES], sluice_error *err)
{
    char path[PATH_CAP];
    sluice_status st;

    if (p->key_load != NULL)
        return p->key_load(p->user, name, out, err);
    st = key_path(p, state_dir, name, false, path, err);
    return st == SLUICE_OK ? load_key_file(p, path, out, err) : st;
}

static sluice_status store_key(const sluice_platform *p, const char *state_dir, const char *name, const uint8_t key[KEY_BYTES], sluice_error *err)
{
    char path[PATH_CAP];
    sluice_status st;

    if (p->key_store != NULL)
        return p->key_store(p->user, name, key, err);
    st = key_path(p, state_dir, name, true, path, err);
    return st == SLUICE_OK ? sluice_platform_write_file(p, path, sluice_span_of(key, KEY_BYTES), err) : st;
}

/* Two instances that make the same key at the same time would each keep their own: whoever calls holds the lock of the state folder.
 * Only a key that is missing is made.  One that cannot be read is an error, or a passing fault would
 * replace the key that everything was signed with. */
sluice_status sluice_platform_key(const sluice_platform *p, const char *state_dir, const char *name, uint8_t out[32], bool *created,
                                  sluice_error *err)
{
    uint8_t key[KEY_BYTES] = { 0 };
    sluice_status st;

    if (created != NULL)
        *created = false;
    if (!key_name_fits(name))
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "platform: \"%.80s\" is no name of a key", name);
    st = load_key(p, state_dir, name, key, err);
    if (st == SLUICE_ERR_NOT_FOUND) {
        st = sluice_random(p, key, sizeof key, err);
        if (st == SLUICE_OK)
            st = store_key(p, state_dir, name, key, err);
        if (st == SLUICE_OK) {
            sluice_error_clear(err); /* that it was missing is no news */
            if (created != NULL)
                *created = true;
        }
    }
    if (st == SLUICE_OK)
        memcpy(out, key, sizeof key);
    sluice_wipe(key, sizeof key);
    return st;
}

/* ---- log ------------------------------------------------------------------------------------------- */

void sluice_log(const sluice_platform *p, sluice_log_level level, const char *fmt, ...)
{
    char text[LOG_CAP];
    va_list args;
    int n;

    if (p == NULL || p->log == NULL)
        return;
    va_start(args, fmt);
    n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (n < 0)
        return;
    if ((size_t)n >= sizeof text)
        text[sluice_utf8_whole(sluice_span_of(text, sizeof text - 1))] = '\0';
    p->log(p->user, level, text);
}
