/* temp_dir.c - a folder of a test's own, removed with all that is in it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _XOPEN_SOURCE 700 /* mkdtemp, nftw */

#include "tests/support/temp_dir.h"

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void temp_dir_open(temp_dir *d)
{
    const char *base = getenv("TMPDIR");
    int n;

    memset(d, 0, sizeof *d);
    n = snprintf(d->path, sizeof d->path, "%s/sluice-test-XXXXXX", base != NULL && base[0] != '\0' ? base : "/tmp");
    if (n < 0 || (size_t)n >= sizeof d->path || mkdtemp(d->path) == NULL) {
        perror("temp_dir");
        exit(1);
    }
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    if (remove(path) != 0)
        perror(path);
    return 0;
}

void temp_dir_close(temp_dir *d)
{
    if (d->path[0] == '\0')
        return;
    (void)chmod(d->path, 0700);
    (void)nftw(d->path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    d->path[0] = '\0';
}

const char *temp_dir_file(temp_dir *d, const char *name)
{
    char *out = d->joined[d->next++ % 4];
    size_t len = strlen(d->path);

    if (len + 1 + strlen(name) >= sizeof d->joined[0]) {
        fprintf(stderr, "temp_dir: the path of %s is too long\n", name);
        exit(1);
    }
    memcpy(out, d->path, len);
    out[len] = '/';
    memcpy(out + len + 1, name, strlen(name) + 1);
    return out;
}

bool temp_dir_is_empty(const temp_dir *d)
{
    DIR *folder = opendir(d->path);
    const struct dirent *entry;
    bool empty = folder != NULL;

    while (folder != NULL && (entry = readdir(folder)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            empty = false;
    if (folder != NULL)
        (void)closedir(folder);
    return empty;
}
