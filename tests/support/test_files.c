/* test_files.c - files that tests read.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/support/test_files.h"

#include <stdio.h>
#include <stdlib.h>

enum { FILE_MAX = 64 << 20 };

static const char *under(const char *variable, const char *name)
{
    static char path[1024];
    const char *base = getenv(variable);
    int n;

    if (base == NULL || base[0] == '\0')
        return NULL;
    n = snprintf(path, sizeof path, "%s/%s", base, name);
    return n > 0 && (size_t)n < sizeof path ? path : NULL;
}

const char *test_source_path(const char *name)
{
    return under("SLUICE_SOURCE_DIR", name);
}

const char *test_data_path(const char *name)
{
    return under("SLUICE_TEST_DATA", name);
}

bool test_read_file(const char *path, sluice_buf *out)
{
    FILE *f = path != NULL ? fopen(path, "rb") : NULL;
    char chunk[65536];
    bool ok = f != NULL;
    size_t n;

    sluice_buf_init(out, NULL, FILE_MAX);
    while (ok && (n = fread(chunk, 1, sizeof chunk, f)) > 0)
        ok = sluice_buf_append(out, chunk, n);
    if (f != NULL) {
        ok = ok && ferror(f) == 0;
        fclose(f);
    }
    return ok;
}
