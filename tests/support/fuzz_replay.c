/* fuzz_replay.c - run a fuzz target over its corpus, where no fuzzer is at hand
 *
 *   fuzz_NAME [file or folder]...
 *
 * Feeds the target the empty input, every file that is named or lies in a named folder, and a fixed
 * number of damaged copies of each: cut short, a byte changed, a piece repeated.  The damage comes from
 * a generator with a fixed seed, so two runs do the same.  A target reports a broken property by
 * aborting; reaching the end is success.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _POSIX_C_SOURCE 200809L

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { BENT_COPIES = 48, PATH_LEN_MAX = 4096 };

static size_t n_files, n_runs;

static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* Each run gets a block of exactly its size, so that a sanitizer sees the first byte read beyond it. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);

    if (copy == NULL) {
        fprintf(stderr, "fuzz_replay: no memory for %zu bytes\n", size);
        exit(1);
    }
    if (size > 0)
        memcpy(copy, data, size);
    (void)LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    n_runs++;
}

static void run_bent(const uint8_t *data, size_t size, uint32_t seed)
{
    uint32_t state = seed * 2654435761u + 1u;
    uint8_t *work = malloc(2 * size);

    if (work == NULL || size == 0) {
        free(work);
        return;
    }
    for (int i = 0; i < BENT_COPIES; i++) {
        size_t at = next_random(&state) % size;
        size_t len = size;

        memcpy(work, data, size);
        switch (i % 4) {
        case 0: /* cut short */
            len = at;
            break;
        case 1: /* one bit */
            work[at] = (uint8_t)(work[at] ^ (1u << (next_random(&state) % 8)));
            break;
        case 2: /* one byte, often an extreme */
            work[at] = (uint8_t)((next_random(&state) & 1u) != 0 ? 0xffu : next_random(&state) & 0xffu);
            break;
        default: /* the tail once more */
            memcpy(work + size, data + at, size - at);
            len = size + (size - at);
            break;
        }
        run(work, len);
    }
    free(work);
}

static int replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = NULL;
    size_t size = 0, room = 0;

    if (f == NULL) {
        perror(path);
        return -1;
    }
    for (;;) {
        if (size == room) {
            uint8_t *more = realloc(data, room = room * 2 + 65536);

            if (more == NULL) {
                free(data);
                fclose(f);
                return -1;
            }
            data = more;
        }
        size_t got = fread(data + size, 1, room - size, f);

        if (got == 0)
            break;
        size += got;
    }
    fclose(f);
    printf("%s\n", path); /* the last one named is where an aborting target stopped */
    fflush(stdout);
    run(data, size);
    run_bent(data, size, (uint32_t)n_files);
    n_files++;
    free(data);
    return 0;
}

static int replay(const char *path)
{
    struct stat st;
    struct dirent **names;
    int n, rc = 0;

    if (stat(path, &st) != 0) {
        perror(path);
        return -1;
    }
    if (!S_ISDIR(st.st_mode))
        return replay_file(path);
    n = scandir(path, &names, NULL, alphasort); /* sorted: the same order on every file system */
    if (n < 0) {
        perror(path);
        return -1;
    }
    for (int i = 0; i < n; i++) {
        char child[PATH_LEN_MAX];

        if (names[i]->d_name[0] != '.' && rc == 0) {
            int len = snprintf(child, sizeof child, "%s/%s", path, names[i]->d_name);

            rc = len > 0 && (size_t)len < sizeof child ? replay(child) : -1;
        }
        free(names[i]);
    }
    free(names);
    return rc;
}

int main(int argc, char **argv)
{
    run((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++)
        if (replay(argv[i]) != 0)
            return 1;
    printf("fuzz_replay: %zu files, %zu runs\n", n_files, n_runs);
    return 0;
}
