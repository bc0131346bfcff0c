/* unicode.h - code points and their classes, for the pre-tokenizers.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_UNICODE_H
#define SLUICE_LOCAL_ENGINE_UNICODE_H

#include "sdk/base/base.h"

typedef enum sluice_unicode_class {
    SLUICE_UNICODE_OTHER = 0,
    SLUICE_UNICODE_LETTER = 1,      /* general category L* */
    SLUICE_UNICODE_NUMBER = 2,      /* N* */
    SLUICE_UNICODE_PUNCTUATION = 3, /* P* */
    SLUICE_UNICODE_SPACE = 4        /* the property White_Space */
} sluice_unicode_class;

sluice_unicode_class sluice_unicode_class_of(uint32_t code_point);

/* The code point that begins at s.ptr[at] (at < s.len) and its length in bytes, 1 to 4.  A byte that begins no valid sequence is U+FFFD of length 1:
 * its class is other, and the bytes themselves are what is tokenized. */
uint32_t sluice_unicode_decode(sluice_span s, size_t at, uint32_t *n_bytes);

/* The table behind it (unicode_table.c): code point << 3 | class, where the class changes. */
extern const uint32_t sluice_unicode_class_starts[];
extern const size_t sluice_unicode_n_class_starts;

/* Without white space (as above) at both ends. */
sluice_span sluice_unicode_trim(sluice_span s);

#endif
