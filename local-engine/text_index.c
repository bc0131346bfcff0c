/* text_index.c - open addressing with a probe budget.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/text_index.h"

#define HASH_START 2166136261u /* FNV's */

enum { BUDGET_PER_ENTRY = 32, BUDGET_BASE = 4096, NUMBER_BITS = 21 };

#define NUMBER_MASK ((1u << NUMBER_BITS) - 1)

/* Number + 1 in the low bits, 0 for a free slot; above it a part of the hash that the place in the table does not tell, so that
 * nearly every text that is compared is the one looked for. */
typedef struct sluice_text_slot {
    uint32_t word;
} slot;

/* FNV-1a, then a finisher (the multiply of FNV leaves the low bits of the last byte poorly mixed). */
static uint32_t hash_more(uint32_t h, sluice_span s)
{
    for (size_t i = 0; i < s.len; i++)
        h = (h ^ s.ptr[i]) * 16777619u;
    return h;
}

static uint32_t hash_finish(uint32_t h)
{
    h ^= h >> 16;
    h *= 0x7feb352du;
    h ^= h >> 15;
    return h;
}

static uint32_t hash_of(sluice_span a, sluice_span b)
{
    return hash_finish(hash_more(hash_more(HASH_START, a), b));
}

static bool is_text(const sluice_text_index *ix, uint32_t number, sluice_span a, sluice_span b)
{
    sluice_span text = ix->text_of(ix->user, number);

    if (text.len < a.len || text.len - a.len != b.len)
        return false;
    return (a.len == 0 || memcmp(text.ptr, a.ptr, a.len) == 0) && (b.len == 0 || memcmp(text.ptr + a.len, b.ptr, b.len) == 0);
}

/* Two thirds full at most. */
static uint32_t slots_for(uint32_t n_max)
{
    return n_max + n_max / 2 + 4;
}

/* Where to begin, from the high bits of the hash. */
static uint32_t first_slot(const sluice_text_index *ix, uint32_t hash)
{
    return (uint32_t)((uint64_t)hash * ix->n_slots >> 32);
}

static uint32_t next_slot(const sluice_text_index *ix, uint32_t at)
{
    return at + 1 < ix->n_slots ? at + 1 : 0;
}

static uint32_t tag_of(uint32_t hash)
{
    return hash << NUMBER_BITS;
}

uint64_t sluice_text_index_bytes(uint32_t n_max)
{
    return (uint64_t)slots_for(n_max) * sizeof(slot);
}

bool sluice_text_index_init(sluice_text_index *ix, uint32_t n_max, sluice_span (*text_of)(const void *user, uint32_t number), const void *user,
                            const sluice_allocator *al)
{
    uint32_t n;

    if (n_max >= NUMBER_MASK)
        return false;
    n = slots_for(n_max);
    ix->slots = sluice_alloc_array(al, n, sizeof(slot));
    if (ix->slots == NULL)
        return false;
    ix->n_slots = n;
    ix->probes_left = (uint64_t)n_max * BUDGET_PER_ENTRY + BUDGET_BASE;
    ix->text_of = text_of;
    ix->user = user;
    ix->al = al;
    return true;
}

void sluice_text_index_deinit(sluice_text_index *ix)
{
    sluice_free(ix->al, ix->slots, ix->n_slots * sizeof(slot));
    ix->slots = NULL;
    ix->n_slots = 0;
}

sluice_text_added sluice_text_index_add(sluice_text_index *ix, uint32_t number)
{
    sluice_span text = ix->text_of(ix->user, number);
    uint32_t hash = hash_of(text, SLUICE_SPAN_EMPTY);

    for (uint32_t at = first_slot(ix, hash);; at = next_slot(ix, at)) {
        slot *s = &ix->slots[at];

        if (ix->probes_left == 0)
            return SLUICE_TEXT_EXHAUSTED;
        ix->probes_left--;
        if (s->word == 0) {
            s->word = tag_of(hash) | (number + 1);
            return SLUICE_TEXT_ADDED;
        }
        if ((s->word & ~NUMBER_MASK) == tag_of(hash) && is_text(ix, (s->word & NUMBER_MASK) - 1, text, SLUICE_SPAN_EMPTY))
            return SLUICE_TEXT_DUPLICATE;
    }
}

static uint32_t find_hashed(const sluice_text_index *ix, uint32_t hash, sluice_span a, sluice_span b)
{
    for (uint32_t at = first_slot(ix, hash);; at = next_slot(ix, at)) { /* ends: a third of the slots is free */
        uint32_t word = ix->slots[at].word;

        if (word == 0)
            return SLUICE_TEXT_INDEX_NONE;
        if ((word & ~NUMBER_MASK) == tag_of(hash) && is_text(ix, (word & NUMBER_MASK) - 1, a, b))
            return (word & NUMBER_MASK) - 1;
    }
}

uint32_t sluice_text_index_find2(const sluice_text_index *ix, sluice_span a, sluice_span b)
{
    return ix->n_slots > 0 ? find_hashed(ix, hash_of(a, b), a, b) : SLUICE_TEXT_INDEX_NONE;
}

uint32_t sluice_text_index_longest(const sluice_text_index *ix, sluice_span text, size_t max, size_t *len)
{
    uint32_t best = SLUICE_TEXT_INDEX_NONE, h = HASH_START;

    if (ix->n_slots == 0)
        return best;
    for (size_t n = 1; n <= text.len && n <= max; n++) {
        uint32_t found;

        h = hash_more(h, sluice_span_of(text.ptr + n - 1, 1));
        found = find_hashed(ix, hash_finish(h), sluice_span_of(text.ptr, n), SLUICE_SPAN_EMPTY);
        if (found != SLUICE_TEXT_INDEX_NONE) {
            best = found;
            *len = n;
        }
    }
    return best;
}
