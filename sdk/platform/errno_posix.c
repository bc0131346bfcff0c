/* errno_posix.c - what the system said, as a status, a message and a hint.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _POSIX_C_SOURCE 200809L /* the strerror_r that returns int */

#include <errno.h>

#include "sdk/platform/default.h"

static sluice_status status_of(int number)
{
    switch (number) {
    case ENOENT:
    case ENOTDIR: return SLUICE_ERR_NOT_FOUND;
    case EEXIST: return SLUICE_ERR_STATE;
    case ENOMEM: return SLUICE_ERR_NO_MEMORY;
    default: return SLUICE_ERR_IO;
    }
}

static const char *hint_of(int number)
{
    switch (number) {
    case EROFS: return "the file system is read-only: choose a folder that the app may write to";
    case ENOSPC: return "the device is full: free some space and try again";
    case EDQUOT: return "the storage quota is used up: free some space and try again";
    case EFBIG: return "the file would pass the size that this file system or process may write";
    case EACCES:
    case EPERM: return "check who owns the file and its folder, and the app's sandbox rules";
    case ELOOP: return "a symbolic link stands where a file of our own belongs: remove it or name its target";
    case EMFILE:
    case ENFILE: return "too many open files: close some, or raise the limit";
    case ENAMETOOLONG: return "use a shorter path";
    case EIO: return "the storage reports a hardware error";
    default: return NULL;
    }
}

sluice_status sluice_errno_set(sluice_error *err, int number, const char *what, const char *path)
{
    sluice_status st = status_of(number);
    const char *slash = path != NULL ? strrchr(path, '/') : NULL;
    const char *name = slash != NULL && slash[1] != '\0' ? slash + 1 : path; /* the whole of it is in `where` */
    const char *hint = hint_of(number);
    char text[128] = "";

    if (strerror_r(number, text, sizeof text) != 0 && text[0] == '\0')
        memcpy(text, "unknown error", sizeof "unknown error");
    if (name != NULL)
        sluice_error_set(err, st, "%s \"%s\": %s", what, name, text);
    else
        sluice_error_set(err, st, "%s: %s", what, text);
    if (path != NULL)
        sluice_error_where(err, path);
    if (hint != NULL)
        sluice_error_hint(err, "%s", hint);
    return st;
}
