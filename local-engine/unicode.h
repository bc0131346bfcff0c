/* unicode.h - code points, their kinds and their foldings, for the tokenizers.
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

/* The same, finer.  White space first: U+0085 is SPACE, not CONTROL. */
typedef enum sluice_unicode_kind {
    SLUICE_UNICODE_KIND_OTHER = 0,        /* symbols, unassigned */
    SLUICE_UNICODE_KIND_UPPER = 1,        /* Lu Lt */
    SLUICE_UNICODE_KIND_LOWER = 2,        /* Ll */
    SLUICE_UNICODE_KIND_LETTER = 3,       /* Lm Lo */
    SLUICE_UNICODE_KIND_NUMBER = 4,
    SLUICE_UNICODE_KIND_PUNCTUATION = 5,
    SLUICE_UNICODE_KIND_SPACE = 6,
    SLUICE_UNICODE_KIND_NONSPACING = 7,   /* Mn */
    SLUICE_UNICODE_KIND_MARK = 8,         /* Mc Me */
    SLUICE_UNICODE_KIND_CONTROL = 9       /* Cc Cf Co */
} sluice_unicode_kind;

sluice_unicode_class sluice_unicode_class_of(uint32_t code_point);
sluice_unicode_kind sluice_unicode_kind_of(uint32_t code_point);

/* Canonical decomposition without nonspacing marks, in lower case (one code point to one, as BERT's tokenizers do); the code points
 * written to `out`, at most 3.  0 for a nonspacing mark. */
size_t sluice_unicode_fold(uint32_t code_point, uint32_t out[3]);

/* The code point that begins at s.ptr[at] (at < s.len) and its length in bytes, 1 to 4.  A byte that begins no valid sequence is U+FFFD of length 1:
 * its class is other, and the bytes themselves are what is tokenized. */
uint32_t sluice_unicode_decode(sluice_span s, size_t at, uint32_t *n_bytes);
size_t sluice_unicode_encode(uint32_t code_point, uint8_t out[4]); /* UTF-8, 1 to 4 bytes; code_point <= U+10FFFF */

/* Without white space (as above) at both ends. */
sluice_span sluice_unicode_trim(sluice_span s);

/* ---- the tables behind it (unicode_table.c) */
extern const uint32_t sluice_unicode_kind_starts[]; /* code point << 4 | kind, where the kind changes */
extern const size_t sluice_unicode_n_kind_starts;

/* `first`: code point (21 bits), stride - 1 (1 bit), count (10 bits): code points at this stride become those from `target` on at the same stride. */
typedef struct sluice_unicode_fold_run { uint32_t first, target; } sluice_unicode_fold_run;
extern const sluice_unicode_fold_run sluice_unicode_fold_runs[];
extern const size_t sluice_unicode_n_fold_runs;
extern const uint32_t sluice_unicode_fold_several[][4];
extern const size_t sluice_unicode_n_fold_several;

#endif
