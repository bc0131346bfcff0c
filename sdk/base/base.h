/* base.h - allocator funnel, spans, buffers, arena, checked arithmetic, error filling.
 *
 * Depends on libc alone.  Nothing else in the library names malloc or free.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_SDK_BASE_BASE_H
#define SLUICE_SDK_BASE_BASE_H

#include <stdarg.h>
#include <string.h>

#include "sluice/base.h"

/* ---- errors: each fills what it is given and returns the status, so that `return sluice_error_set(...)` reads well. err may be NULL. */
sluice_status sluice_error_set(sluice_error *err, sluice_status status, const char *fmt, ...) SLUICE_PRINTF(3, 4); /* resets the rest of the record */
void sluice_error_hint(sluice_error *err, const char *fmt, ...) SLUICE_PRINTF(2, 3);
void sluice_error_where(sluice_error *err, const char *where);
void sluice_error_offset(sluice_error *err, uint64_t offset);
void sluice_error_line(sluice_error *err, uint32_t line, uint32_t column);
void sluice_error_clear(sluice_error *err);

/* ---- memory.  al NULL means malloc and free.  Free accepts NULL. */
void *sluice_alloc(const sluice_allocator *al, size_t bytes);        /* NULL when out of memory or bytes == 0 */
void *sluice_alloc_zeroed(const sluice_allocator *al, size_t bytes);
void *sluice_alloc_array(const sluice_allocator *al, size_t n, size_t each); /* zeroed, overflow-checked */
void sluice_free(const sluice_allocator *al, void *ptr, size_t bytes);
void sluice_free_wiped(const sluice_allocator *al, void *ptr, size_t bytes);
char *sluice_strdup(const sluice_allocator *al, const char *s);      /* free with strlen + 1 */
void sluice_str_free(const sluice_allocator *al, char *s);           /* a string that sluice_strdup made */
void sluice_wipe(void *ptr, size_t len); /* not optimised away */

/* ---- checked arithmetic: false on overflow, *out untouched then */
static inline bool sluice_add_size(size_t a, size_t b, size_t *out) { size_t r; if (__builtin_add_overflow(a, b, &r)) return false; *out = r; return true; }
static inline bool sluice_mul_size(size_t a, size_t b, size_t *out) { size_t r; if (__builtin_mul_overflow(a, b, &r)) return false; *out = r; return true; }
static inline bool sluice_add_u64(uint64_t a, uint64_t b, uint64_t *out) { uint64_t r; if (__builtin_add_overflow(a, b, &r)) return false; *out = r; return true; }
static inline bool sluice_mul_u64(uint64_t a, uint64_t b, uint64_t *out) { uint64_t r; if (__builtin_mul_overflow(a, b, &r)) return false; *out = r; return true; }

/* ---- spans */
#define SLUICE_SPAN_EMPTY ((sluice_span){ NULL, 0 })
#define SLUICE_SPAN_LIT(s) ((sluice_span){ (const uint8_t *)(s), sizeof(s) - 1 })
static inline sluice_span sluice_span_of(const void *ptr, size_t len) { sluice_span s = { (const uint8_t *)ptr, len }; return s; }
static inline sluice_span sluice_span_str(const char *s) { return sluice_span_of(s, s ? strlen(s) : 0); }
static inline bool sluice_span_eq(sluice_span a, sluice_span b) { return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0); }
bool sluice_span_eq_str(sluice_span a, const char *s);
bool sluice_utf8_valid(sluice_span s);                    /* RFC 3629: no overlong forms, no surrogates, at most U+10FFFF */
size_t sluice_utf8_step(sluice_span s, size_t at, bool *valid); /* at < s.len: bytes of the code point there, or of the broken piece; at least 1 */
size_t sluice_utf8_whole(sluice_span s);                  /* length of the longest prefix that does not cut a code point at its end */
bool sluice_copy_str(char *dst, size_t cap, const char *src); /* always terminates; false when it was cut */

/* ---- buffer: owned bytes that grow up to a maximum (SIZE_MAX: none; 0 takes nothing) */
typedef struct sluice_buf {
    uint8_t *ptr;
    size_t len, cap, max;
    const sluice_allocator *al;
    bool failed_limit; /* why the last append failed: true the maximum, false memory */
} sluice_buf;
void sluice_buf_init(sluice_buf *b, const sluice_allocator *al, size_t max);
bool sluice_buf_append(sluice_buf *b, const void *ptr, size_t len); /* all or nothing */
bool sluice_buf_append_span(sluice_buf *b, sluice_span s);
bool sluice_buf_append_str(sluice_buf *b, const char *s);
bool sluice_buf_append_byte(sluice_buf *b, uint8_t byte);
bool sluice_buf_appendf(sluice_buf *b, const char *fmt, ...) SLUICE_PRINTF(2, 3);
void sluice_buf_consume(sluice_buf *b, size_t n);                  /* drop n bytes from the front */
void sluice_buf_clear(sluice_buf *b);                              /* wipes the content, keeps the memory */
void sluice_buf_deinit(sluice_buf *b);                             /* wipes and releases; safe on a zeroed struct */
char *sluice_buf_take_str(sluice_buf *b);                          /* NUL-terminated string of its own exact allocation (release: sluice_str_free), cut at a NUL inside; b is left empty, also when there is no memory (NULL) */
sluice_status sluice_buf_error(const sluice_buf *b, const char *what, sluice_error *err); /* LIMIT or NO_MEMORY after a failed append */
static inline sluice_span sluice_buf_span(const sluice_buf *b) { return sluice_span_of(b->ptr, b->len); }

/* ---- arena: everything of one request, released (wiped) at once */
typedef struct sluice_arena {
    struct sluice_arena_block *head;
    size_t used_bytes, max_bytes;
    const sluice_allocator *al;
} sluice_arena;
void sluice_arena_init(sluice_arena *a, const sluice_allocator *al, size_t max_bytes);
void *sluice_arena_alloc(sluice_arena *a, size_t bytes);            /* zeroed, 16-byte aligned; NULL when out of memory or over the maximum */
char *sluice_arena_strdup(sluice_arena *a, sluice_span s);          /* NUL-terminated copy */
sluice_span sluice_arena_copy(sluice_arena *a, sluice_span s);      /* {NULL,0} when out of memory (or s is empty) */
void sluice_arena_deinit(sluice_arena *a);

#endif
