/* arena.c - everything of one request, released at once.
 *
 *   head -> [block: next, bytes, used | data ............ free] -> [block] -> NULL
 *
 * Blocks double from 4 KiB to 64 KiB, so a small request takes one allocation and a large one takes few.
 * Something large gets a block of its own behind the head, whose free space stays in use.  max_bytes bounds what was
 * handed out (rounded up to 16); block headers and the unused ends of blocks come on top.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdalign.h>

#include "sdk/base/base.h"

enum { ALIGN = 16, BLOCK_BYTES_MIN = 4096, BLOCK_BYTES_MAX = 65536 };

struct sluice_arena_block {
    alignas(ALIGN) struct sluice_arena_block *next;
    size_t bytes; /* of data */
    size_t used;
    alignas(ALIGN) uint8_t data[];
};

void sluice_arena_init(sluice_arena *a, const sluice_allocator *al, size_t max_bytes)
{
    memset(a, 0, sizeof *a);
    a->al = al;
    a->max_bytes = max_bytes;
}

static struct sluice_arena_block *block_open(sluice_arena *a, size_t bytes)
{
    struct sluice_arena_block *block;
    size_t total;

    if (!sluice_add_size(sizeof *block, bytes, &total))
        return NULL;
    block = sluice_alloc_zeroed(a->al, total);
    if (block != NULL)
        block->bytes = bytes;
    return block;
}

/* The size of the next ordinary block; never more than the arena may still hand out. */
static size_t next_block_bytes(const sluice_arena *a, size_t need)
{
    size_t bytes = BLOCK_BYTES_MIN;
    size_t left = a->max_bytes - a->used_bytes;

    if (a->head != NULL && a->head->bytes >= BLOCK_BYTES_MIN)
        bytes = a->head->bytes < BLOCK_BYTES_MAX / 2 ? a->head->bytes * 2 : BLOCK_BYTES_MAX;
    if (bytes > left)
        bytes = left;
    return bytes > need ? bytes : need;
}

void *sluice_arena_alloc(sluice_arena *a, size_t bytes)
{
    struct sluice_arena_block *block = a->head;
    size_t need, total;
    void *ptr;

    if (!sluice_add_size(bytes > 0 ? bytes : 1, ALIGN - 1, &need))
        return NULL;
    need -= need % ALIGN;
    if (!sluice_add_size(a->used_bytes, need, &total) || total > a->max_bytes)
        return NULL;

    if (block == NULL || block->bytes - block->used < need) {
        bool own = a->head != NULL && need >= BLOCK_BYTES_MAX / 4;

        block = block_open(a, own ? need : next_block_bytes(a, need));
        if (block == NULL)
            return NULL;
        if (own) {
            block->next = a->head->next;
            a->head->next = block;
        } else {
            block->next = a->head;
            a->head = block;
        }
    }
    ptr = block->data + block->used;
    block->used += need;
    a->used_bytes = total;
    return ptr;
}

char *sluice_arena_strdup(sluice_arena *a, sluice_span s)
{
    size_t bytes;
    char *copy;

    if (!sluice_add_size(s.len, 1, &bytes))
        return NULL;
    copy = sluice_arena_alloc(a, bytes);
    if (copy != NULL && s.len > 0)
        memcpy(copy, s.ptr, s.len);
    return copy;
}

sluice_span sluice_arena_copy(sluice_arena *a, sluice_span s)
{
    void *copy;

    if (s.len == 0)
        return SLUICE_SPAN_EMPTY;
    copy = sluice_arena_alloc(a, s.len);
    if (copy == NULL)
        return SLUICE_SPAN_EMPTY;
    memcpy(copy, s.ptr, s.len);
    return sluice_span_of(copy, s.len);
}

void sluice_arena_deinit(sluice_arena *a)
{
    struct sluice_arena_block *block = a->head;

    while (block != NULL) {
        struct sluice_arena_block *next = block->next;

        sluice_free_wiped(a->al, block, sizeof *block + block->bytes);
        block = next;
    }
    a->head = NULL;
    a->used_bytes = 0;
}
