/* text_index.h - find a number by its text: keys and tensors of a GGUF file, tokens of a vocabulary.
 *
 * An open-addressing table of numbers, 6 bytes for each entry.  The texts stay where they are: the index asks for them with a
 * callback, which also lets two pieces be looked up as one without joining them.
 *
 * The texts come from a file whose author may have chosen them to collide.  Filling therefore has a budget of probes: two
 * thirds full, linear probing needs five on average, so a table that has used up BUDGET_PER_ENTRY for each is an
 * attack, and add() says so.  The same budget bounds every later look-up to O(sqrt(n)) probes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_TEXT_INDEX_H
#define SLUICE_LOCAL_ENGINE_TEXT_INDEX_H

#include "sdk/base/base.h"

#define SLUICE_TEXT_INDEX_NONE UINT32_MAX

typedef struct sluice_text_index {
    struct sluice_text_slot *slots;
    uint32_t n_slots;       /* one and a half times the entries; 0: not initialised */
    uint64_t probes_left;
    sluice_span (*text_of)(const void *user, uint32_t number);
    const void *user;
    const sluice_allocator *al;
} sluice_text_index;

typedef enum sluice_text_added {
    SLUICE_TEXT_ADDED, SLUICE_TEXT_DUPLICATE /* left as it was */, SLUICE_TEXT_EXHAUSTED /* the budget is used up: refuse the file */
} sluice_text_added;

/* Room for n_max entries, each a number below 2^21 - 1; false when out of memory.  Zero-initialise before, so that deinit is safe on every path. */
bool sluice_text_index_init(sluice_text_index *ix, uint32_t n_max, sluice_span (*text_of)(const void *user, uint32_t number),
                            const void *user, const sluice_allocator *al);
void sluice_text_index_deinit(sluice_text_index *ix);
uint64_t sluice_text_index_bytes(uint32_t n_max); /* what init allocates */

sluice_text_added sluice_text_index_add(sluice_text_index *ix, uint32_t number);
/* The number of the text a followed by b, or SLUICE_TEXT_INDEX_NONE.  An index never initialised finds nothing. */
uint32_t sluice_text_index_find2(const sluice_text_index *ix, sluice_span a, sluice_span b);
static inline uint32_t sluice_text_index_find(const sluice_text_index *ix, sluice_span a)
{
    return sluice_text_index_find2(ix, a, SLUICE_SPAN_EMPTY);
}
/* The longest entry, of at most `max` bytes, that `text` begins with, and its length.  Linear in `max`. */
uint32_t sluice_text_index_longest(const sluice_text_index *ix, sluice_span text, size_t max, size_t *len);

#endif
