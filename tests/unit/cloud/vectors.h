/* vectors.h - published test vectors from tests/data/crypto-vectors, and bytes in hexadecimal.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_CLOUD_VECTORS_H
#define SLUICE_TESTS_CLOUD_VECTORS_H

#include "sdk/base/json.h"

/* Parse tests/data/crypto-vectors/NAME; fails the test when it cannot. */
sluice_json_doc *vectors_open(const char *name);

/* The bytes of a hexadecimal member, in memory that lives as long as the process: a vector is small. */
sluice_span vectors_bytes(const sluice_json *object, const char *key);
sluice_span vectors_unhex(const char *hex);
int vectors_int(const sluice_json *object, const char *key);

#define assert_span_equal(a, b)                              \
    do {                                                     \
        const sluice_span a_ = (a), b_ = (b);                \
        assert_int_equal(a_.len, b_.len);                    \
        if (b_.len > 0)                                      \
            assert_memory_equal(a_.ptr, b_.ptr, b_.len);     \
    } while (0)

#endif
