/* temp_dir.h - a folder of a test's own, removed with all that is in it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_SUPPORT_TEMP_DIR_H
#define SLUICE_TESTS_SUPPORT_TEMP_DIR_H

#include <stdbool.h>

typedef struct temp_dir {
    char path[512];
    char joined[4][768];
    unsigned next;
} temp_dir;

void temp_dir_open(temp_dir *d);  /* under $TMPDIR or /tmp; ends the test program where that is impossible */
void temp_dir_close(temp_dir *d); /* removes it */
const char *temp_dir_file(temp_dir *d, const char *name); /* "path/name"; good until the fourth call after */
bool temp_dir_is_empty(const temp_dir *d);

#endif
