/* files_posix.c - durable files.
 *
 * Everything that is written opens with O_APPEND: "at the end" is then the kernel's promise, also after a truncation.
 * Files that we create are ours alone (0600) and are never reached through a symbolic link in the last
 * place, which somebody else might have put there.
 *
 * Durability: fsync() of a file says nothing about the name that leads to it.  So a file that open created
 * remembers its folder, and the first sync of the file syncs the folder too; rename syncs the folder it changed.
 * A sync that failed is not tried again: the kernel may have dropped the pages and would report success.
 *
 * Locks are flock()'s, which belong to the open file and not to the process: two instances in one process exclude each other, and
 * closing one of two handles of a file keeps the other's lock.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifdef __APPLE__
#define _DARWIN_C_SOURCE
#else
#define _DEFAULT_SOURCE /* flock */
#endif
#define _FILE_OFFSET_BITS 64

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdk/platform/default.h"

enum { PATH_CAP = 4096, CHUNK_MAX = 1 << 30 /* Linux moves at most 2 GiB at once */ };

struct sluice_file {
    int fd;
    int folder_fd; /* of the folder, until it has been synced; -1 when open did not create the file */
    char path[];   /* for messages */
};

static size_t file_bytes(const char *path)
{
    return sizeof(sluice_file) + strlen(path) + 1;
}

/* The folder part of a path: "." for a bare name, "/" for something in the root. */
static bool folder_of(char *out, size_t cap, const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t len = slash != NULL ? (size_t)(slash - path) : 0;

    if (slash == NULL)
        return sluice_copy_str(out, cap, ".");
    if (len == 0)
        return sluice_copy_str(out, cap, "/");
    if (len >= cap)
        return false;
    memcpy(out, path, len);
    out[len] = '\0';
    return true;
}

static int open_retrying(const char *path, int flags, mode_t mode)
{
    int fd;

    do
        fd = open(path, flags, mode);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static int open_folder(const char *path)
{
    char folder[PATH_CAP];

    if (!folder_of(folder, sizeof folder, path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return open_retrying(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
}

/* Returns 0 or -1 with errno. */
static int sync_fd(int fd)
{
    int rc;

#ifdef F_FULLFSYNC /* Apple: fsync() stops at the drive's cache */
    if (fcntl(fd, F_FULLFSYNC) == 0)
        return 0;
#endif
    do
        rc = fsync(fd);
    while (rc != 0 && errno == EINTR);
    return rc;
}

/* Some file systems cannot sync a folder, and then need not. */
static int sync_folder_fd(int fd)
{
    int rc = sync_fd(fd);

    return rc != 0 && (errno == EINVAL || errno == ENOTSUP || errno == EROFS) ? 0 : rc;
}

static sluice_status sync_folder_of(const char *path, sluice_error *err)
{
    int fd = open_folder(path);
    int rc, number;

    if (fd < 0)
        return sluice_errno_set(err, errno, "files: cannot open the folder of", path);
    rc = sync_folder_fd(fd);
    number = errno;
    (void)close(fd);
    return rc == 0 ? SLUICE_OK : sluice_errno_set(err, number, "files: cannot sync the folder of", path);
}

/* ---- open and close -------------------------------------------------------------------------------- */

/* Opens for reading and writing.  *created says whether the file was made; a race with somebody who makes or removes the same name
 * is tried a few times. */
static int open_or_create(const char *path, int flags, bool *created)
{
    int fd = -1;

    for (int i = 0; i < 8; i++) {
        *created = false;
        fd = open_retrying(path, flags, 0);
        if (fd >= 0 || errno != ENOENT)
            return fd;
        *created = true;
        fd = open_retrying(path, flags | O_CREAT | O_EXCL, 0600);
        if (fd >= 0 || errno != EEXIST)
            return fd;
    }
    return fd;
}

/* A pipe, a device or a folder would hang, never end, or fail later in odd ways. */
static sluice_status refuse_unless_regular(int fd, const char *path, sluice_error *err)
{
    struct stat st;
    sluice_status status;

    if (fstat(fd, &st) != 0)
        return sluice_errno_set(err, errno, "files: cannot look at", path);
    if (S_ISREG(st.st_mode))
        return SLUICE_OK;
    if (S_ISDIR(st.st_mode))
        return sluice_errno_set(err, EISDIR, "files: cannot open", path);
    status = sluice_error_set(err, SLUICE_ERR_IO, "files: not a regular file");
    sluice_error_where(err, path);
    return status;
}

static const char *action_of(sluice_file_mode mode)
{
    switch (mode) {
    case SLUICE_FILE_READ: return "files: cannot open";
    case SLUICE_FILE_APPEND: return "files: cannot append to";
    case SLUICE_FILE_CREATE_NEW: return "files: cannot create";
    case SLUICE_FILE_TRUNCATE: return "files: cannot write";
    }
    return NULL;
}

sluice_status sluice_default_file_open(void *user, sluice_file **out, const char *path, sluice_file_mode mode, sluice_error *err)
{
    /* O_NONBLOCK: opening a pipe must not wait for its other end; it changes nothing for a regular file */
    const int ours = O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
    const char *action = action_of(mode);
    sluice_file *f = NULL;
    sluice_status st;
    bool created = false;
    int fd = -1;

    (void)user;
    *out = NULL;
    if (path == NULL || path[0] == '\0' || action == NULL)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, action == NULL ? "files: no such mode" : "files: empty path");
    switch (mode) {
    case SLUICE_FILE_READ: fd = open_retrying(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0); break;
    case SLUICE_FILE_APPEND: fd = open_or_create(path, ours, &created); break;
    case SLUICE_FILE_CREATE_NEW:
        fd = open_retrying(path, ours | O_CREAT | O_EXCL, 0600);
        created = fd >= 0;
        break;
    case SLUICE_FILE_TRUNCATE: fd = open_or_create(path, ours | O_TRUNC, &created); break;
    }
    if (fd < 0)
        return sluice_errno_set(err, errno, action, path);
    st = refuse_unless_regular(fd, path, err);
    if (st != SLUICE_OK)
        goto out;
    f = sluice_alloc(NULL, file_bytes(path));
    if (f == NULL) {
        st = sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "files: no memory for a handle");
        goto out;
    }
    f->fd = fd;
    f->folder_fd = -1;
    memcpy(f->path, path, strlen(path) + 1);
    if (created) {
        f->folder_fd = open_folder(path);
        if (f->folder_fd < 0) {
            st = sluice_errno_set(err, errno, "files: cannot open the folder of", path);
            goto out;
        }
    }
    *out = f;
    f = NULL;
    fd = -1;
out:
    if (fd >= 0)
        (void)close(fd);
    if (fd >= 0 && created) /* nothing stays of an open that failed */
        (void)unlink(path);
    if (f != NULL)
        sluice_free(NULL, f, file_bytes(path));
    return st;
}

void sluice_default_file_close(void *user, sluice_file *f)
{
    (void)user;
    if (f == NULL)
        return;
    if (f->folder_fd >= 0)
        (void)close(f->folder_fd);
    (void)close(f->fd); /* not repeated after EINTR: the descriptor is gone, and may be somebody else's by then */
    sluice_free(NULL, f, file_bytes(f->path));
}

/* ---- content --------------------------------------------------------------------------------------- */

sluice_status sluice_default_file_size(void *user, sluice_file *f, uint64_t *out, sluice_error *err)
{
    struct stat st;

    (void)user;
    *out = 0;
    if (fstat(f->fd, &st) != 0)
        return sluice_errno_set(err, errno, "files: cannot measure", f->path);
    *out = (uint64_t)st.st_size;
    return SLUICE_OK;
}

sluice_status sluice_default_file_read(void *user, sluice_file *f, uint64_t offset, void *buf, size_t len, size_t *got, sluice_error *err)
{
    uint8_t *to = buf;

    (void)user;
    *got = 0;
    if (offset > INT64_MAX || len > INT64_MAX - offset)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "files: offset beyond any file");
    while (*got < len) {
        size_t want = len - *got < CHUNK_MAX ? len - *got : CHUNK_MAX;
        ssize_t n = pread(f->fd, to + *got, want, (off_t)(offset + *got));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return sluice_errno_set(err, errno, "files: cannot read", f->path);
        if (n == 0)
            break;
        *got += (size_t)n;
    }
    return SLUICE_OK;
}

sluice_status sluice_default_file_write(void *user, sluice_file *f, const void *buf, size_t len, sluice_error *err)
{
    const uint8_t *from = buf;

    (void)user;
    while (len > 0) {
        ssize_t n = write(f->fd, from, len < CHUNK_MAX ? len : CHUNK_MAX);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return sluice_errno_set(err, n < 0 ? errno : EIO, "files: cannot write", f->path);
        from += n;
        len -= (size_t)n;
    }
    return SLUICE_OK;
}

sluice_status sluice_default_file_truncate(void *user, sluice_file *f, uint64_t len, sluice_error *err)
{
    int rc;

    (void)user;
    if (len > INT64_MAX)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "files: offset beyond any file");
    do
        rc = ftruncate(f->fd, (off_t)len);
    while (rc != 0 && errno == EINTR);
    return rc == 0 ? SLUICE_OK : sluice_errno_set(err, errno, "files: cannot shorten", f->path);
}

sluice_status sluice_default_file_sync(void *user, sluice_file *f, sluice_error *err)
{
    (void)user;
    if (sync_fd(f->fd) != 0)
        return sluice_errno_set(err, errno, "files: cannot sync", f->path);
    if (f->folder_fd < 0)
        return SLUICE_OK;
    if (sync_folder_fd(f->folder_fd) != 0)
        return sluice_errno_set(err, errno, "files: cannot sync the folder of", f->path);
    (void)close(f->folder_fd);
    f->folder_fd = -1;
    return SLUICE_OK;
}

sluice_status sluice_default_file_lock(void *user, sluice_file *f, sluice_error *err)
{
    sluice_status st;
    int rc;

    (void)user;
    do
        rc = flock(f->fd, LOCK_EX | LOCK_NB);
    while (rc != 0 && errno == EINTR);
    if (rc == 0)
        return SLUICE_OK;
    if (errno != EWOULDBLOCK)
        return sluice_errno_set(err, errno, "files: cannot lock", f->path);
    st = sluice_error_set(err, SLUICE_ERR_STATE, "files: in use by another instance");
    sluice_error_where(err, f->path);
    sluice_error_hint(err, "close the other instance, or give each its own folder");
    return st;
}

/* ---- names ----------------------------------------------------------------------------------------- */

sluice_status sluice_default_file_rename(void *user, const char *from, const char *to, sluice_error *err)
{
    char from_folder[PATH_CAP], to_folder[PATH_CAP];
    sluice_status st;

    (void)user;
    if (!folder_of(from_folder, sizeof from_folder, from) || !folder_of(to_folder, sizeof to_folder, to))
        return sluice_errno_set(err, ENAMETOOLONG, "files: cannot rename", from);
    if (rename(from, to) != 0)
        return sluice_errno_set(err, errno, "files: cannot rename", from);
    st = sync_folder_of(to, err);
    if (st == SLUICE_OK && strcmp(from_folder, to_folder) != 0)
        st = sync_folder_of(from, err);
    return st;
}

sluice_status sluice_default_file_remove(void *user, const char *path, sluice_error *err)
{
    (void)user;
    if (unlink(path) != 0)
        return sluice_errno_set(err, errno, "files: cannot remove", path);
    return SLUICE_OK;
}

/* One folder whose parent is there. */
static sluice_status make_one(const char *path, sluice_error *err)
{
    sluice_status status;
    struct stat st;
    int number;

    if (mkdir(path, 0700) == 0)
        return sync_folder_of(path, err);
    number = errno;
    if (stat(path, &st) != 0) /* some systems say EROFS or EACCES before EEXIST, so only this tells */
        return sluice_errno_set(err, number, "files: cannot make the folder", path);
    if (S_ISDIR(st.st_mode))
        return SLUICE_OK;
    status = sluice_error_set(err, SLUICE_ERR_IO, "files: a file stands where a folder belongs");
    sluice_error_where(err, path);
    return status;
}

sluice_status sluice_default_make_dir(void *user, const char *path, sluice_error *err)
{
    char part[PATH_CAP];
    size_t len = strlen(path);

    (void)user;
    if (len == 0)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "files: empty path");
    if (!sluice_copy_str(part, sizeof part, path))
        return sluice_errno_set(err, ENAMETOOLONG, "files: cannot make the folder", path);
    while (len > 1 && part[len - 1] == '/')
        part[--len] = '\0';
    for (size_t i = 1; i < len; i++) {
        sluice_status st;

        if (part[i] != '/' || part[i - 1] == '/')
            continue;
        part[i] = '\0';
        st = make_one(part, err);
        part[i] = '/';
        if (st != SLUICE_OK)
            return st;
    }
    return make_one(part, err);
}
