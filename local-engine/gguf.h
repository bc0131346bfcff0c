/* gguf.h - read a GGUF model file: metadata and tensor table, over a read-only mapping.
 *
 * A model file is hostile until proven otherwise.  Opening walks it once from a bounded span: every count is checked
 * against the bytes that are left before anything is allocated for it, every size is checked arithmetic, and the result
 * is either a complete immutable index or a status that names the byte offset.  Nothing of the file is copied: names,
 * strings, arrays and tensor data are borrowed from the mapping and live as long as the sluice_gguf.
 *
 * Versions 2 and 3, little-endian (version 3's big-endian form and version 1 are refused).  Known tensor types are indexed whatever
 * they are, so that a file can be described; only those of sluice_tensor_type come out of sluice_gguf_tensor_get().
 *
 * Threads: an open sluice_gguf is immutable; read it from any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_GGUF_H
#define SLUICE_LOCAL_ENGINE_GGUF_H

#include "sdk/platform/platform.h"

/* Hard limits.  Real models stay far below; what is above is refused with SLUICE_ERR_LIMIT. */
enum {
    SLUICE_GGUF_MAX_KEYS = 1024,
    SLUICE_GGUF_MAX_TENSORS = 16384,
    SLUICE_GGUF_MAX_NAME_BYTES = 255,        /* keys and tensor names; at least 1 */
    SLUICE_GGUF_MAX_STRING_BYTES = 1 << 20,
    SLUICE_GGUF_MAX_ITEMS = 4 << 20,         /* of one array */
    SLUICE_GGUF_MAX_DIMS = 4,
    SLUICE_GGUF_MAX_ALIGNMENT = 1 << 16
};

/* Value types, as numbered in the file. */
typedef enum sluice_gguf_type {
    SLUICE_GGUF_U8 = 0, SLUICE_GGUF_I8 = 1, SLUICE_GGUF_U16 = 2, SLUICE_GGUF_I16 = 3, SLUICE_GGUF_U32 = 4, SLUICE_GGUF_I32 = 5,
    SLUICE_GGUF_F32 = 6, SLUICE_GGUF_BOOL = 7, SLUICE_GGUF_STRING = 8, SLUICE_GGUF_ARRAY = 9,
    SLUICE_GGUF_U64 = 10, SLUICE_GGUF_I64 = 11, SLUICE_GGUF_F64 = 12
} sluice_gguf_type;

/* Tensor types that this build computes with, as numbered in the file. */
typedef enum sluice_tensor_type {
    SLUICE_TENSOR_F32 = 0, SLUICE_TENSOR_F16 = 1, SLUICE_TENSOR_Q4_0 = 2, SLUICE_TENSOR_Q4_1 = 3, SLUICE_TENSOR_Q5_0 = 6,
    SLUICE_TENSOR_Q5_1 = 7, SLUICE_TENSOR_Q8_0 = 8, SLUICE_TENSOR_Q2_K = 10, SLUICE_TENSOR_Q3_K = 11, SLUICE_TENSOR_Q4_K = 12,
    SLUICE_TENSOR_Q5_K = 13, SLUICE_TENSOR_Q6_K = 14, SLUICE_TENSOR_IQ4_NL = 20, SLUICE_TENSOR_IQ4_XS = 23,
    SLUICE_TENSOR_BF16 = 30, SLUICE_TENSOR_MXFP4 = 39
} sluice_tensor_type;

typedef struct sluice_gguf sluice_gguf; /* opaque */

/* One metadata entry.  `data` is little-endian and unaligned: use the getters. */
typedef struct sluice_gguf_value {
    sluice_span key;
    sluice_gguf_type type;
    sluice_gguf_type item_type; /* of arrays; else equal to type */
    uint64_t count;             /* items of an array; else 1 */
    sluice_span data;           /* a string's bytes (valid UTF-8 is not promised), a scalar's bytes, or all items of an array */
    uint64_t offset;            /* of the entry in the file, for error messages */
} sluice_gguf_value;

typedef struct sluice_gguf_tensor {
    sluice_span name;
    uint32_t type;              /* sluice_tensor_type, or another known number when listed by index */
    uint32_t n_dims;            /* 1 … 4 */
    uint64_t ne[4];             /* ne[0] is the row length (contiguous); unused ones are 1; the product fits int64 */
    uint64_t offset;            /* of the data, in the file; a multiple of the file's alignment (at least 8) */
    const void *data;
    size_t bytes;
} sluice_gguf_tensor;

/* Map and index `path`.  On failure *out is NULL: SLUICE_ERR_FORMAT (malformed), _LIMIT, _UNSUPPORTED (version, byte order,
 * tensor type, split model), _NO_MEMORY, or what the platform's map said. */
sluice_status sluice_gguf_open(sluice_gguf **out, const char *path, const sluice_platform *platform, const sluice_allocator *al, sluice_error *err);
/* The same over borrowed bytes, which must outlive it.  Tensor data is as aligned as span.ptr is: pass 64-byte aligned memory to compute with it. */
sluice_status sluice_gguf_open_span(sluice_gguf **out, sluice_span bytes, const sluice_allocator *al, sluice_error *err);
void sluice_gguf_close(sluice_gguf *g); /* accepts NULL */

sluice_span sluice_gguf_bytes(const sluice_gguf *g);        /* the whole file */
uint64_t sluice_gguf_data_offset(const sluice_gguf *g);     /* metadata and tensor table are before it, tensor data begins there */
uint32_t sluice_gguf_version(const sluice_gguf *g);
uint32_t sluice_gguf_alignment(const sluice_gguf *g);

/* ---- metadata */
size_t sluice_gguf_n_values(const sluice_gguf *g);
const sluice_gguf_value *sluice_gguf_value_at(const sluice_gguf *g, size_t i);          /* in file order; NULL past the end */
const sluice_gguf_value *sluice_gguf_find(const sluice_gguf *g, const char *key);       /* NULL when absent */

/* Typed lookup.  SLUICE_ERR_NOT_FOUND when absent, SLUICE_ERR_FORMAT when of another type or out of range; both name the
 * key, and *out is untouched.  Integer getters take any integer type whose value fits (writers disagree on widths); f32 takes F32 and F64
 * and refuses NaN and infinities; bool takes only 0 and 1. */
sluice_status sluice_gguf_get_u32(const sluice_gguf *g, const char *key, uint32_t *out, sluice_error *err);
sluice_status sluice_gguf_get_u64(const sluice_gguf *g, const char *key, uint64_t *out, sluice_error *err);
sluice_status sluice_gguf_get_i32(const sluice_gguf *g, const char *key, int32_t *out, sluice_error *err);
sluice_status sluice_gguf_get_f32(const sluice_gguf *g, const char *key, float *out, sluice_error *err);
sluice_status sluice_gguf_get_bool(const sluice_gguf *g, const char *key, bool *out, sluice_error *err);
sluice_status sluice_gguf_get_string(const sluice_gguf *g, const char *key, sluice_span *out, sluice_error *err); /* valid UTF-8, no NUL inside */
sluice_status sluice_gguf_get_array(const sluice_gguf *g, const char *key, sluice_gguf_type item_type, const sluice_gguf_value **out,
                                    sluice_error *err);

/* As get, but an absent key is SLUICE_OK and leaves *out, the default, as it was. */
sluice_status sluice_gguf_opt_u32(const sluice_gguf *g, const char *key, uint32_t *out, sluice_error *err);
sluice_status sluice_gguf_opt_i32(const sluice_gguf *g, const char *key, int32_t *out, sluice_error *err);
sluice_status sluice_gguf_opt_f32(const sluice_gguf *g, const char *key, float *out, sluice_error *err);
sluice_status sluice_gguf_opt_bool(const sluice_gguf *g, const char *key, bool *out, sluice_error *err);
sluice_status sluice_gguf_opt_string(const sluice_gguf *g, const char *key, sluice_span *out, sluice_error *err);

/* Item i < count of a fixed-size array that sluice_gguf_get_array() returned with the matching type. */
float sluice_gguf_array_f32(const sluice_gguf_value *array, uint64_t i);
int32_t sluice_gguf_array_i32(const sluice_gguf_value *array, uint64_t i);
uint32_t sluice_gguf_array_u32(const sluice_gguf_value *array, uint64_t i);
/* Walk an array of strings: start with *cursor = 0; false after the last one. */
bool sluice_gguf_array_next_string(const sluice_gguf_value *array, uint64_t *cursor, sluice_span *out);

/* ---- tensors */
size_t sluice_gguf_n_tensors(const sluice_gguf *g);
const sluice_gguf_tensor *sluice_gguf_tensor_at(const sluice_gguf *g, size_t i);            /* in file order; NULL past the end */
const sluice_gguf_tensor *sluice_gguf_tensor_find(const sluice_gguf *g, const char *name);  /* NULL when absent */
/* SLUICE_ERR_NOT_FOUND when absent; SLUICE_ERR_UNSUPPORTED for a type that this build cannot compute with. */
sluice_status sluice_gguf_tensor_get(const sluice_gguf *g, const char *name, const sluice_gguf_tensor **out, sluice_error *err);

const char *sluice_tensor_type_name(uint32_t type);             /* "Q4_K"; "unknown" for a number not in the list.  Static storage. */
bool sluice_tensor_type_is_supported(uint32_t type);
/* Elements and bytes of one block; false for an unknown type. */
bool sluice_tensor_type_block(uint32_t type, uint32_t *n_elements, uint32_t *n_bytes);
/* Bytes of a row of n elements; false when n is not a multiple of the block or the size overflows. */
bool sluice_tensor_row_bytes(uint32_t type, uint64_t n, uint64_t *out);
const char *sluice_gguf_value_type_name(sluice_gguf_type type); /* "u32"; "unknown" for a number not in the list.  Static storage. */
/* "Q4_0" for general.file_type 2; "unknown" for others not in the list.  Static storage. */
const char *sluice_gguf_file_type_name(uint32_t file_type);

#endif
