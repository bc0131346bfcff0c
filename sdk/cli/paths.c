/* paths.c - where the state, the policy and the model are.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef SLUICE_MODEL_IN_TREE
#define SLUICE_MODEL_IN_TREE ""
#endif

bool cli_join(char *out, size_t cap, const char *dir, const char *name)
{
    const int n = snprintf(out, cap, "%s/%s", dir, name);
    return n > 0 && (size_t)n < cap;
}

bool cli_home(const cli *c, char *out, size_t cap)
{
    const char *home = c->home != NULL ? c->home : getenv("SLUICE_HOME");
    if (home != NULL && home[0] != '\0')
        return (size_t)snprintf(out, cap, "%s", home) < cap;
    const char *data = getenv("XDG_DATA_HOME");
    if (data != NULL && data[0] == '/')
        return cli_join(out, cap, data, "sluice");
    const char *user = getenv("HOME");
    return cli_join(out, cap, user != NULL && user[0] ? user : "/tmp", ".local/share/sluice");
}

bool cli_beside_me(char *out, size_t cap, const char *name)
{
    char me[CLI_PATH_MAX];
    const ssize_t n = readlink("/proc/self/exe", me, sizeof me - 1);
    if (n <= 0)
        return false;
    me[n] = '\0';
    char *slash = strrchr(me, '/');
    if (slash == NULL)
        return false;
    *slash = '\0';
    return cli_join(out, cap, me, name);
}

bool cli_model_path(const cli *c, char *out, size_t cap)
{
    char home[CLI_PATH_MAX];
    const char *given = c->model != NULL ? c->model : getenv("SLUICE_MODEL");
    if (given != NULL && given[0] != '\0')
        return (size_t)snprintf(out, cap, "%s", given) < cap;
    if (cli_home(c, home, sizeof home) && cli_join(out, cap, home, "model.gguf") && access(out, R_OK) == 0)
        return true;
    if (cli_beside_me(out, cap, "../share/sluice/sluice-intents.gguf") && access(out, R_OK) == 0)
        return true;
    return (size_t)snprintf(out, cap, "%s", SLUICE_MODEL_IN_TREE) < cap && access(out, R_OK) == 0;
}

static char *fail(sluice_error *err, const char *path, const char *what, const char *hint, char *buf, FILE *f)
{
    memset(err, 0, sizeof *err);
    err->status = SLUICE_ERR_IO;
    (void)snprintf(err->message, sizeof err->message, "%s", what);
    (void)snprintf(err->hint, sizeof err->hint, "%s", hint);
    (void)snprintf(err->where, sizeof err->where, "%s", path);
    free(buf);
    if (f != NULL && f != stdin)
        fclose(f);
    return NULL;
}

char *cli_read_file(const char *path, size_t max, size_t *len, sluice_error *err)
{
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    if (f == NULL)
        return fail(err, path, strerror(errno), "check the path and its permissions", NULL, NULL);
    char *buf = malloc(max + 1);
    if (buf == NULL)
        return fail(err, path, "no memory to read it", "", NULL, f);
    *len = fread(buf, 1, max + 1, f);
    if (ferror(f))
        return fail(err, path, strerror(errno), "is it a file?", buf, f);
    if (*len > max)
        return fail(err, path, "it is larger than this command takes", "", buf, f);
    buf[*len] = '\0';
    if (f != stdin)
        fclose(f);
    return buf;
}
