/* util.c - errors, files, the log and the stop flag of sluice-gateway.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE /* getrandom, explicit_bzero */
#include "samples/gateway/parts.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 1 << 20 };

bool gateway_fail(sluice_error *err, sluice_status status, const char *hint, const char *fmt, ...)
{
    va_list args;

    memset(err, 0, sizeof *err);
    err->status = status;
    va_start(args, fmt);
    (void)vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    (void)snprintf(err->hint, sizeof err->hint, "%s", hint);
    return false;
}

void gateway_log(const char *fmt, ...)
{
    char line[512];
    char when[32];
    const time_t now = time(NULL);
    struct tm utc;
    va_list args;

    gmtime_r(&now, &utc);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
    va_start(args, fmt);
    (void)vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    fprintf(stderr, "%s gateway: %s\n", when, line); /* one call, so lines of two threads do not mix */
}

char *gateway_path(const char *dir, const char *name)
{
    const size_t cap = strlen(dir) + strlen(name) + 2;
    char *path = malloc(cap);

    if (path == NULL)
        abort(); /* a few hundred bytes at the start of a program */
    (void)snprintf(path, cap, "%s/%s", dir, name);
    return path;
}

char *gateway_read_file(const char *path, size_t *len, sluice_error *err)
{
    FILE *f = fopen(path, "rb");
    char *text = malloc(FILE_BYTES_MAX + 1);
    char *exact = NULL;
    size_t n = 0;

    if (f == NULL || text == NULL) {
        gateway_fail(err, errno == ENOENT ? SLUICE_ERR_NOT_FOUND : SLUICE_ERR_IO, "make the folder with: sluice-gateway init DIR",
                     "cannot read %s: %s", path, strerror(errno));
        goto out;
    }
    n = fread(text, 1, FILE_BYTES_MAX, f);
    if (ferror(f) || !feof(f)) {
        gateway_fail(err, SLUICE_ERR_LIMIT, "is it the file that sluice-gateway init has made?", "%s is larger than %d bytes", path, FILE_BYTES_MAX);
        goto out;
    }
    text[n] = '\0';
    exact = malloc(n + 1);
    if (exact != NULL)
        memcpy(exact, text, n + 1);
    else
        gateway_fail(err, SLUICE_ERR_NO_MEMORY, "", "no memory for %s", path);
    if (len != NULL)
        *len = n;
out:
    if (f != NULL)
        fclose(f);
    if (text != NULL)
        explicit_bzero(text, n); /* it may have been a key */
    free(text);
    return exact;
}

static bool write_fd(int fd, const void *data, size_t len)
{
    const char *at = data;

    while (len > 0) {
        const ssize_t n = write(fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return fsync(fd) == 0;
}

bool gateway_write_new(const char *path, const void *data, size_t len, bool is_secret, sluice_error *err)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, is_secret ? 0600 : 0644);
    bool ok;

    if (fd < 0)
        return gateway_fail(err, SLUICE_ERR_IO, "the folder must be writable; existing files are never overwritten", "cannot create %s: %s", path,
                            strerror(errno));
    ok = write_fd(fd, data, len);
    close(fd);
    if (!ok) {
        unlink(path); /* half a key is worse than none */
        return gateway_fail(err, SLUICE_ERR_IO, "is the disk full?", "cannot write %s", path);
    }
    return true;
}

bool gateway_write_whole(const char *path, const void *data, size_t len, sluice_error *err)
{
    const size_t cap = strlen(path) + 5;
    char *tmp = malloc(cap);
    bool ok = false;
    int fd;

    if (tmp == NULL)
        return gateway_fail(err, SLUICE_ERR_NO_MEMORY, "", "no memory for a path");
    (void)snprintf(tmp, cap, "%s.tmp", path);
    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd >= 0) {
        ok = write_fd(fd, data, len);
        close(fd);
        ok = ok && rename(tmp, path) == 0;
    }
    free(tmp);
    return ok || gateway_fail(err, SLUICE_ERR_IO, "the folder must exist and be writable", "cannot write %s: %s", path, strerror(errno));
}

bool gateway_random(void *out, size_t len)
{
    return getrandom(out, len, 0) == (ssize_t)len; /* requests of 256 bytes or less are never cut short */
}

char *gateway_base64(const void *data, size_t len)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *in = data;
    char *out = malloc((len + 2) / 3 * 4 + 1);
    char *at = out;

    if (out == NULL)
        return NULL;
    for (size_t i = 0; i < len; i += 3) {
        const size_t left = len - i;
        const uint32_t word = (uint32_t)in[i] << 16 | (left > 1 ? (uint32_t)in[i + 1] << 8 : 0) | (left > 2 ? in[i + 2] : 0);
        *at++ = alphabet[word >> 18 & 63];
        *at++ = alphabet[word >> 12 & 63];
        *at++ = left > 1 ? alphabet[word >> 6 & 63] : '=';
        *at++ = left > 2 ? alphabet[word & 63] : '=';
    }
    *at = '\0';
    return out;
}

uint64_t gateway_now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

bool gateway_buf_add(gateway_buf *b, const void *data, size_t len)
{
    if (len > b->max - b->len)
        return false;
    if (len > b->cap - b->len) {
        size_t cap = b->cap ? b->cap : 1024;
        uint8_t *ptr;
        while (cap - b->len < len)
            cap *= 2;      /* cannot overflow: b->max is a few MiB */
        ptr = malloc(cap); /* not realloc: the old bytes must be wiped, and it would leave a copy */
        if (ptr == NULL)
            return false;
        if (b->len > 0)
            memcpy(ptr, b->ptr, b->len);
        if (b->ptr != NULL)
            explicit_bzero(b->ptr, b->len);
        free(b->ptr);
        b->ptr = ptr;
        b->cap = cap;
    }
    if (len > 0)
        memcpy(b->ptr + b->len, data, len);
    b->len += len;
    return true;
}

void gateway_buf_free(gateway_buf *b)
{
    if (b->ptr != NULL)
        explicit_bzero(b->ptr, b->len);
    free(b->ptr);
    b->ptr = NULL;
    b->len = b->cap = 0;
}
