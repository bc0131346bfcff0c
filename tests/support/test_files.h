/* test_files.h - files that tests read: of the source tree, and of the larger data that may or may not be there.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_SUPPORT_TEST_FILES_H
#define SLUICE_TESTS_SUPPORT_TEST_FILES_H

#include "sdk/base/base.h"

/* "$SLUICE_SOURCE_DIR/name" or "$SLUICE_TEST_DATA/name", static storage, good until the next call of either; NULL when
 * the variable is not set (a test then calls skip() after saying what it misses). */
const char *test_source_path(const char *name);
const char *test_data_path(const char *name);

/* The whole of a file, at most 64 MiB, into a buffer that this initialises and the caller deinits.  false: not there. */
bool test_read_file(const char *path, sluice_buf *out);

#endif
