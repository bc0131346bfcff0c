/* memory.c - the allocator funnel.
 *
 * The only place that names malloc and free.  An app's allocator is told the size of what it gets back, so
 * that it can keep accounts or pools without headers of its own.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "sdk/base/base.h"

void *sluice_alloc(const sluice_allocator *al, size_t bytes)
{
    if (bytes == 0 || bytes > PTRDIFF_MAX) /* beyond it pointer differences would overflow */
        return NULL;
    return al != NULL ? al->alloc(al->user, bytes) : malloc(bytes);
}

void *sluice_alloc_zeroed(const sluice_allocator *al, size_t bytes)
{
    void *ptr = sluice_alloc(al, bytes);

    if (ptr != NULL)
        memset(ptr, 0, bytes);
    return ptr;
}

void *sluice_alloc_array(const sluice_allocator *al, size_t n, size_t each)
{
    size_t bytes;

    if (!sluice_mul_size(n, each, &bytes))
        return NULL;
    return sluice_alloc_zeroed(al, bytes);
}

void sluice_free(const sluice_allocator *al, void *ptr, size_t bytes)
{
    if (ptr == NULL)
        return;
    if (al != NULL)
        al->free(al->user, ptr, bytes);
    else
        free(ptr);
}

void sluice_free_wiped(const sluice_allocator *al, void *ptr, size_t bytes)
{
    sluice_wipe(ptr, bytes);
    sluice_free(al, ptr, bytes);
}

char *sluice_strdup(const sluice_allocator *al, const char *s)
{
    size_t bytes;
    char *copy;

    if (s == NULL)
        return NULL;
    bytes = strlen(s) + 1;
    copy = sluice_alloc(al, bytes);
    if (copy != NULL)
        memcpy(copy, s, bytes);
    return copy;
}

void sluice_str_free(const sluice_allocator *al, char *s)
{
    if (s != NULL)
        sluice_free_wiped(al, s, strlen(s) + 1);
}

/* The empty assembly claims to read the memory, so the compiler cannot drop the stores before it, not
 * even with link-time optimization. */
void sluice_wipe(void *ptr, size_t len)
{
    if (ptr == NULL || len == 0)
        return;
    memset(ptr, 0, len);
    __asm__ volatile("" : : "r"(ptr) : "memory");
}
