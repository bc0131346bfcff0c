/* map_posix.c - read-only mappings of whole files.
 *
 * Private, so that nobody's later write through us is possible; what others write to the file may still show.  A file that
 * somebody shortens while it is mapped ends the process on the next touch of the missing part (SIGBUS): model files are replaced by
 * rename, never rewritten in place.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _POSIX_C_SOURCE   200809L
#define _FILE_OFFSET_BITS 64

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdk/platform/default.h"

static sluice_status refuse(sluice_error *err, sluice_status status, const char *what, const char *path)
{
    sluice_error_set(err, status, "map: %s", what);
    sluice_error_where(err, path);
    return status;
}

static sluice_status map_fd(sluice_mapping *out, int fd, const char *path, sluice_error *err)
{
    struct stat st;
    void *ptr;

    if (fstat(fd, &st) != 0)
        return sluice_errno_set(err, errno, "map: cannot look at", path);
    if (!S_ISREG(st.st_mode))
        return refuse(err, SLUICE_ERR_IO, "not a regular file", path);
    if (st.st_size <= 0)
        return refuse(err, SLUICE_ERR_FORMAT, "the file is empty", path);
    if ((uint64_t)st.st_size > PTRDIFF_MAX)
        return refuse(err, SLUICE_ERR_LIMIT, "the file does not fit into this process's address space", path);
    ptr = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (ptr == MAP_FAILED)
        return sluice_errno_set(err, errno, "map: cannot map", path);
    out->ptr = ptr;
    out->len = (size_t)st.st_size;
    out->handle = ptr;
    return SLUICE_OK;
}

sluice_status sluice_default_map(void *user, sluice_mapping *out, const char *path, sluice_error *err)
{
    sluice_status st;
    int fd;

    (void)user;
    *out = SLUICE_MAPPING_EMPTY;
    if (path == NULL || path[0] == '\0')
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "map: empty path");
    do
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return sluice_errno_set(err, errno, "map: cannot open", path);
    st = map_fd(out, fd, path, err);
    (void)close(fd); /* the mapping keeps the file */
    return st;
}

void sluice_default_unmap(void *user, sluice_mapping *m)
{
    (void)user;
    if (m->handle != NULL)
        (void)munmap(m->handle, m->len);
    *m = SLUICE_MAPPING_EMPTY;
}
