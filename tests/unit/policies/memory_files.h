/* memory_files.h - let a test that writes thousands of small files do so in memory, where the system offers that.
 *
 * Include it first: it asks for POSIX.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_MEMORY_FILES_H
#define SLUICE_TESTS_MEMORY_FILES_H

#define _POSIX_C_SOURCE 200809L

#include <stdlib.h>
#include <unistd.h>

static inline void prefer_memory_for_files(void)
{
    if (getenv("TMPDIR") == NULL && access("/dev/shm", W_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 1);
}

#endif
