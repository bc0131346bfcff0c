/* gguf.c - the GGUF index.
 *
 *   "GGUF"  version u32  n_tensors u64  n_kv u64          fixed header, 24 bytes
 *   n_kv      x { key string, type u32, value }            string: length u64, bytes
 *   n_tensors x { name string, n_dims u32, ne u64 x n_dims, type u32, offset u64 }
 *   padding to the alignment, tensor data
 *
 * One pass, front to back, through a reader that knows what is left; nothing is allocated for a count before the count has been
 * held against the bytes that would have to carry it (14 for the smallest entry, 33 for the smallest tensor).
 *
 * Tensor data must lie in the order of the table, without overlap.  Every writer does that, and it turns the check
 * for overlaps into one comparison.  Gaps are allowed.
 *
 * A file that shrinks while it is mapped faults on access (SIGBUS); model files are replaced by rename, never in place.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/gguf.h"

#include <float.h>
#include <inttypes.h>
#include <stdio.h>

#include "local-engine/text_index.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensor data is used as it lies in the file, which is little-endian"
#endif

enum { HEADER_BYTES = 24, ENTRY_BYTES_MIN = 8 + 1 + 4 + 1, TENSOR_BYTES_MIN = 8 + 1 + 4 + 8 + 4 + 8, DEFAULT_ALIGNMENT = 32, MIN_ALIGNMENT = 8 };

struct sluice_gguf {
    const sluice_allocator *al;
    const sluice_platform *platform; /* NULL when opened over a span */
    sluice_mapping map;
    sluice_span bytes;
    uint32_t version, alignment;
    uint64_t data_offset;
    sluice_gguf_value *values;
    size_t n_values;
    sluice_gguf_tensor *tensors;
    size_t n_tensors;
    sluice_text_index keys, names;
};

/* ---- tensor types ---------------------------------------------------------------------------------- */

typedef struct tensor_type {
    const char *name; /* NULL: never assigned, or removed from the format */
    uint16_t block_elements, block_bytes;
} tensor_type;

static const tensor_type tensor_types[] = {
    [0] = { "F32", 1, 4 },         [1] = { "F16", 1, 2 },         [2] = { "Q4_0", 32, 18 },      [3] = { "Q4_1", 32, 20 },
    [6] = { "Q5_0", 32, 22 },      [7] = { "Q5_1", 32, 24 },      [8] = { "Q8_0", 32, 34 },      [9] = { "Q8_1", 32, 36 },
    [10] = { "Q2_K", 256, 84 },    [11] = { "Q3_K", 256, 110 },   [12] = { "Q4_K", 256, 144 },   [13] = { "Q5_K", 256, 176 },
    [14] = { "Q6_K", 256, 210 },   [15] = { "Q8_K", 256, 292 },   [16] = { "IQ2_XXS", 256, 66 }, [17] = { "IQ2_XS", 256, 74 },
    [18] = { "IQ3_XXS", 256, 98 }, [19] = { "IQ1_S", 256, 50 },   [20] = { "IQ4_NL", 32, 18 },   [21] = { "IQ3_S", 256, 110 },
    [22] = { "IQ2_S", 256, 82 },   [23] = { "IQ4_XS", 256, 136 }, [24] = { "I8", 1, 1 },         [25] = { "I16", 1, 2 },
    [26] = { "I32", 1, 4 },        [27] = { "I64", 1, 8 },        [28] = { "F64", 1, 8 },        [29] = { "IQ1_M", 256, 56 },
    [30] = { "BF16", 1, 2 },       [34] = { "TQ1_0", 256, 54 },   [35] = { "TQ2_0", 256, 66 },   [39] = { "MXFP4", 32, 17 },
};

static const tensor_type *tensor_type_of(uint32_t type)
{
    if (type >= sizeof tensor_types / sizeof tensor_types[0] || tensor_types[type].name == NULL)
        return NULL;
    return &tensor_types[type];
}

const char *sluice_tensor_type_name(uint32_t type)
{
    const tensor_type *t = tensor_type_of(type);

    return t != NULL ? t->name : "unknown";
}

bool sluice_tensor_type_is_supported(uint32_t type)
{
    switch (type) {
    case SLUICE_TENSOR_F32: case SLUICE_TENSOR_F16: case SLUICE_TENSOR_BF16: case SLUICE_TENSOR_Q4_0: case SLUICE_TENSOR_Q4_1:
    case SLUICE_TENSOR_Q5_0: case SLUICE_TENSOR_Q5_1: case SLUICE_TENSOR_Q8_0: case SLUICE_TENSOR_Q2_K: case SLUICE_TENSOR_Q3_K:
    case SLUICE_TENSOR_Q4_K: case SLUICE_TENSOR_Q5_K: case SLUICE_TENSOR_Q6_K: case SLUICE_TENSOR_IQ4_NL: case SLUICE_TENSOR_IQ4_XS:
    case SLUICE_TENSOR_MXFP4:
        return true;
    default:
        return false;
    }
}

bool sluice_tensor_type_block(uint32_t type, uint32_t *n_elements, uint32_t *n_bytes)
{
    const tensor_type *t = tensor_type_of(type);

    if (t == NULL)
        return false;
    *n_elements = t->block_elements;
    *n_bytes = t->block_bytes;
    return true;
}

bool sluice_tensor_row_bytes(uint32_t type, uint64_t n, uint64_t *out)
{
    const tensor_type *t = tensor_type_of(type);

    return t != NULL && n % t->block_elements == 0 && sluice_mul_u64(n / t->block_elements, t->block_bytes, out);
}

const char *sluice_gguf_file_type_name(uint32_t file_type)
{
    static const char *const names[] = {
        [0] = "F32",     [1] = "F16",     [2] = "Q4_0",    [3] = "Q4_1",    [7] = "Q8_0",    [8] = "Q5_0",
        [9] = "Q5_1",    [10] = "Q2_K",   [11] = "Q3_K_S", [12] = "Q3_K_M", [13] = "Q3_K_L", [14] = "Q4_K_S",
        [15] = "Q4_K_M", [16] = "Q5_K_S", [17] = "Q5_K_M", [18] = "Q6_K",   [21] = "Q2_K_S", [25] = "IQ4_NL",
        [30] = "IQ4_XS", [32] = "BF16",   [38] = "MXFP4",
    };

    return file_type < sizeof names / sizeof names[0] && names[file_type] != NULL ? names[file_type] : "unknown";
}

/* ---- reader ------------------------------------------------------------------------------------------ */

typedef struct reader {
    const uint8_t *ptr;
    uint64_t len, pos; /* pos <= len, always */
    sluice_error *err;
} reader;

static uint32_t load_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t load_u64(const uint8_t *p)
{
    return load_u32(p) | (uint64_t)load_u32(p + 4) << 32;
}

static uint64_t left(const reader *r)
{
    return r->len - r->pos;
}

/* Fill the record with a message and its place in the file. */
static sluice_status fail(sluice_error *err, sluice_status st, uint64_t offset, const char *fmt, ...) SLUICE_PRINTF(4, 5);

static sluice_status fail(sluice_error *err, sluice_status st, uint64_t offset, const char *fmt, ...)
{
    char text[sizeof err->message];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    (void)sluice_error_set(err, st, "%s", text);
    sluice_error_offset(err, offset);
    return st;
}

#define SPAN_ARGS(span) (int)(span).len, (const char *)(span).ptr /* for "%.*s"; names have at most SLUICE_GGUF_MAX_NAME_BYTES */

static sluice_status truncated(const reader *r, const char *what, uint64_t need)
{
    return fail(r->err, SLUICE_ERR_FORMAT, r->pos, "gguf: the file ends inside %s: %" PRIu64 " bytes needed, %" PRIu64 " left", what, need, left(r));
}

static sluice_status read_u32(reader *r, const char *what, uint32_t *out)
{
    if (left(r) < 4)
        return truncated(r, what, 4);
    *out = load_u32(r->ptr + r->pos);
    r->pos += 4;
    return SLUICE_OK;
}

static sluice_status read_u64(reader *r, const char *what, uint64_t *out)
{
    if (left(r) < 8)
        return truncated(r, what, 8);
    *out = load_u64(r->ptr + r->pos);
    r->pos += 8;
    return SLUICE_OK;
}

static sluice_status read_string(reader *r, const char *what, uint64_t max, sluice_span *out)
{
    uint64_t start = r->pos, n = 0;
    sluice_status st = read_u64(r, what, &n);

    if (st != SLUICE_OK)
        return st;
    if (n > left(r))
        return fail(r->err, SLUICE_ERR_FORMAT, start, "gguf: %s of %" PRIu64 " bytes, but %" PRIu64 " are left in the file", what, n, left(r));
    if (n > max)
        return fail(r->err, SLUICE_ERR_LIMIT, start, "gguf: %s of %" PRIu64 " bytes; the limit is %" PRIu64, what, n, max);
    *out = sluice_span_of(r->ptr + r->pos, (size_t)n);
    r->pos += n;
    return SLUICE_OK;
}

/* Keys and tensor names are printable ASCII (the format asks for that of keys; every real name is): they end up in messages and logs. */
static sluice_status read_name(reader *r, const char *what, sluice_span *out)
{
    uint64_t start = r->pos;
    sluice_status st = read_string(r, what, SLUICE_GGUF_MAX_NAME_BYTES, out);

    if (st != SLUICE_OK)
        return st;
    if (out->len == 0)
        return fail(r->err, SLUICE_ERR_FORMAT, start, "gguf: %s is empty", what);
    for (size_t i = 0; i < out->len; i++)
        if (out->ptr[i] < 0x20 || out->ptr[i] > 0x7e)
            return fail(r->err, SLUICE_ERR_FORMAT, start + 8 + i, "gguf: %s holds the byte 0x%02x; printable ASCII is allowed", what,
                        (unsigned)out->ptr[i]);
    return SLUICE_OK;
}

/* ---- metadata ---------------------------------------------------------------------------------------- */

/* Bytes of one value; 0 for strings, arrays and unknown types. */
static uint32_t scalar_bytes(uint32_t type)
{
    static const uint8_t sizes[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

    return type < sizeof sizes ? sizes[type] : 0;
}

const char *sluice_gguf_value_type_name(sluice_gguf_type type)
{
    static const char *const names[] = { "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64" };

    return (uint32_t)type < sizeof names / sizeof names[0] ? names[type] : "unknown";
}

static sluice_status read_array(reader *r, sluice_gguf_value *v)
{
    uint64_t start = r->pos, each;
    uint32_t type = 0;
    sluice_status st = read_u32(r, "an array's type", &type);

    if (st == SLUICE_OK)
        st = read_u64(r, "an array's length", &v->count);
    if (st != SLUICE_OK)
        return st;
    each = type == SLUICE_GGUF_STRING ? 8 : scalar_bytes(type); /* a string takes 8 bytes at least */
    if (each == 0)
        return fail(r->err, SLUICE_ERR_FORMAT, start, "gguf: \"%.*s\" is an array of %s (type %" PRIu32 "), which this format does not have",
                    SPAN_ARGS(v->key), type == SLUICE_GGUF_ARRAY ? "arrays" : "an unknown type", type);
    if (v->count > left(r) / each)
        return fail(r->err, SLUICE_ERR_FORMAT, start, "gguf: \"%.*s\" announces %" PRIu64 " items, but %" PRIu64 " bytes are left in the file",
                    SPAN_ARGS(v->key), v->count, left(r));
    if (v->count > SLUICE_GGUF_MAX_ITEMS)
        return fail(r->err, SLUICE_ERR_LIMIT, start, "gguf: \"%.*s\" has %" PRIu64 " items; the limit is %d", SPAN_ARGS(v->key), v->count,
                    SLUICE_GGUF_MAX_ITEMS);
    v->item_type = (sluice_gguf_type)type;
    v->data.ptr = r->ptr + r->pos;
    if (type == SLUICE_GGUF_STRING) {
        for (uint64_t i = 0; i < v->count && st == SLUICE_OK; i++) {
            sluice_span item;

            st = read_string(r, "a string in an array", SLUICE_GGUF_MAX_STRING_BYTES, &item);
        }
        if (st != SLUICE_OK)
            return st;
    } else {
        r->pos += v->count * each;
    }
    v->data.len = (size_t)(r->ptr + r->pos - v->data.ptr);
    return SLUICE_OK;
}

static sluice_status read_value(reader *r, sluice_gguf_value *v)
{
    uint32_t type = 0, n;
    sluice_status st;

    v->offset = r->pos;
    st = read_name(r, "a metadata key", &v->key);
    if (st == SLUICE_OK)
        st = read_u32(r, "a metadata type", &type);
    if (st != SLUICE_OK)
        return st;
    v->type = v->item_type = (sluice_gguf_type)type;
    v->count = 1;
    if (type == SLUICE_GGUF_STRING)
        return read_string(r, "a metadata string", SLUICE_GGUF_MAX_STRING_BYTES, &v->data);
    if (type == SLUICE_GGUF_ARRAY)
        return read_array(r, v);
    n = scalar_bytes(type);
    if (n == 0)
        return fail(r->err, SLUICE_ERR_FORMAT, r->pos - 4, "gguf: \"%.*s\" has the unknown type %" PRIu32, SPAN_ARGS(v->key), type);
    if (left(r) < n)
        return truncated(r, "a metadata value", n);
    v->data = sluice_span_of(r->ptr + r->pos, n);
    if (type == SLUICE_GGUF_BOOL && v->data.ptr[0] > 1)
        return fail(r->err, SLUICE_ERR_FORMAT, r->pos, "gguf: \"%.*s\" is a bool of value %u", SPAN_ARGS(v->key), (unsigned)v->data.ptr[0]);
    r->pos += n;
    return SLUICE_OK;
}

static sluice_span key_text(const void *user, uint32_t i)
{
    return ((const sluice_gguf *)user)->values[i].key;
}

static sluice_span tensor_text(const void *user, uint32_t i)
{
    return ((const sluice_gguf *)user)->tensors[i].name;
}

/* Enter what was just read into its index; `what` is "key" or "tensor". */
static sluice_status enter(sluice_text_index *ix, size_t i, const char *what, uint64_t offset, sluice_error *err)
{
    sluice_span text = ix->text_of(ix->user, (uint32_t)i);

    switch (sluice_text_index_add(ix, (uint32_t)i)) {
    case SLUICE_TEXT_ADDED: return SLUICE_OK;
    case SLUICE_TEXT_DUPLICATE: return fail(err, SLUICE_ERR_FORMAT, offset, "gguf: the %s \"%.*s\" is there twice", what, SPAN_ARGS(text));
    case SLUICE_TEXT_EXHAUSTED:
    default: return fail(err, SLUICE_ERR_FORMAT, offset, "gguf: the %s names are made to collide", what);
    }
}

static sluice_status no_memory(sluice_error *err, const char *what, uint64_t n)
{
    return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "gguf: no memory for the index of %" PRIu64 " %s", n, what);
}

static sluice_status read_metadata(sluice_gguf *g, reader *r, uint64_t n)
{
    if (n > left(r) / ENTRY_BYTES_MIN)
        return fail(r->err, SLUICE_ERR_FORMAT, 16, "gguf: %" PRIu64 " metadata entries announced, but %" PRIu64 " bytes are left in the file", n,
                    left(r));
    if (n > SLUICE_GGUF_MAX_KEYS)
        return fail(r->err, SLUICE_ERR_LIMIT, 16, "gguf: %" PRIu64 " metadata entries; the limit is %d", n, SLUICE_GGUF_MAX_KEYS);
    if (n == 0)
        return SLUICE_OK;
    g->values = sluice_alloc_array(g->al, (size_t)n, sizeof *g->values);
    if (g->values == NULL)
        return no_memory(r->err, "metadata entries", n);
    g->n_values = (size_t)n; /* from here close() knows the allocation's size */
    if (!sluice_text_index_init(&g->keys, (uint32_t)n, key_text, g, g->al))
        return no_memory(r->err, "metadata entries", n);
    for (size_t i = 0; i < n; i++) {
        sluice_status st = read_value(r, &g->values[i]);

        if (st == SLUICE_OK)
            st = enter(&g->keys, i, "key", g->values[i].offset, r->err);
        if (st != SLUICE_OK)
            return st;
    }
    return SLUICE_OK;
}

static sluice_status read_alignment(sluice_gguf *g, sluice_error *err)
{
    const sluice_gguf_value *v = sluice_gguf_find(g, "general.alignment");

    g->alignment = DEFAULT_ALIGNMENT;
    if (v == NULL)
        return SLUICE_OK;
    if (v->type != SLUICE_GGUF_U32)
        return fail(err, SLUICE_ERR_FORMAT, v->offset, "gguf: \"general.alignment\" is %s, not u32", sluice_gguf_value_type_name(v->type));
    g->alignment = load_u32(v->data.ptr);
    if (g->alignment < MIN_ALIGNMENT || g->alignment > SLUICE_GGUF_MAX_ALIGNMENT || (g->alignment & (g->alignment - 1)) != 0)
        return fail(err, SLUICE_ERR_FORMAT, v->offset, "gguf: \"general.alignment\" is %" PRIu32 ", not a power of two from %d to %d", g->alignment,
                    MIN_ALIGNMENT, SLUICE_GGUF_MAX_ALIGNMENT);
    return SLUICE_OK;
}

/* A part of a model has tensors missing; say what it is instead of naming the first one that is not there. */
static sluice_status refuse_split(const sluice_gguf *g, sluice_error *err)
{
    uint32_t n = 1;
    sluice_status st = sluice_gguf_opt_u32(g, "split.count", &n, err);

    if (st != SLUICE_OK || n <= 1)
        return st;
    st = fail(err, SLUICE_ERR_UNSUPPORTED, sluice_gguf_find(g, "split.count")->offset, "gguf: this is one of %" PRIu32 " parts of a split model", n);
    sluice_error_hint(err, "merge the parts into one file first");
    return st;
}

/* ---- tensor table -------------------------------------------------------------------------------------- */

static sluice_status bad_tensor(const sluice_gguf_tensor *t, uint64_t offset, sluice_error *err, const char *what, uint64_t value)
{
    return fail(err, SLUICE_ERR_FORMAT, offset, "gguf: tensor \"%.*s\": %s %" PRIu64, SPAN_ARGS(t->name), what, value);
}

static sluice_status read_tensor_shape(reader *r, sluice_gguf_tensor *t, uint64_t *n_elements)
{
    uint64_t start = r->pos;
    sluice_status st = read_u32(r, "a tensor's number of dimensions", &t->n_dims);

    if (st != SLUICE_OK)
        return st;
    if (t->n_dims < 1 || t->n_dims > SLUICE_GGUF_MAX_DIMS)
        return bad_tensor(t, start, r->err, "1 to 4 dimensions are allowed, not", t->n_dims);
    *n_elements = 1;
    for (uint32_t d = 0; d < SLUICE_GGUF_MAX_DIMS; d++) {
        t->ne[d] = 1;
        if (d >= t->n_dims)
            continue;
        start = r->pos;
        st = read_u64(r, "a tensor's dimensions", &t->ne[d]);
        if (st != SLUICE_OK)
            return st;
        if (t->ne[d] == 0)
            return bad_tensor(t, start, r->err, "a dimension is", 0);
        if (!sluice_mul_u64(*n_elements, t->ne[d], n_elements) || *n_elements > INT64_MAX)
            return bad_tensor(t, start, r->err, "too many elements with the dimension", t->ne[d]);
    }
    return SLUICE_OK;
}

/* One row of the table; leaves t->offset relative to the data, which begins only after the table. */
static sluice_status read_tensor(reader *r, sluice_gguf_tensor *t)
{
    uint64_t type_at, n_elements = 0, row_bytes = 0, bytes = 0;
    sluice_status st = read_name(r, "a tensor name", &t->name);

    if (st == SLUICE_OK)
        st = read_tensor_shape(r, t, &n_elements);
    type_at = r->pos;
    if (st == SLUICE_OK)
        st = read_u32(r, "a tensor's type", &t->type);
    if (st == SLUICE_OK)
        st = read_u64(r, "a tensor's offset", &t->offset);
    if (st != SLUICE_OK)
        return st;
    if (tensor_type_of(t->type) == NULL)
        return fail(r->err, SLUICE_ERR_UNSUPPORTED, type_at,
                    "gguf: unknown tensor type %" PRIu32 " in \"%.*s\"; this build computes with F32, F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS and MXFP4", t->type, SPAN_ARGS(t->name));
    if (!sluice_tensor_row_bytes(t->type, t->ne[0], &row_bytes))
        return bad_tensor(t, type_at, r->err, "a row of its type cannot have this many elements:", t->ne[0]);
    if (!sluice_mul_u64(row_bytes, n_elements / t->ne[0], &bytes))
        return bad_tensor(t, type_at, r->err, "too large with rows of", t->ne[0]);
    if (bytes > r->len) /* also keeps it inside size_t, for the file is */
        return bad_tensor(t, type_at, r->err, "larger than the file with bytes:", bytes);
    t->bytes = (size_t)bytes;
    return SLUICE_OK;
}

static sluice_status read_tensors(sluice_gguf *g, reader *r, uint64_t n)
{
    if (n > left(r) / TENSOR_BYTES_MIN)
        return fail(r->err, SLUICE_ERR_FORMAT, 8, "gguf: %" PRIu64 " tensors announced, but %" PRIu64 " bytes are left in the file", n, left(r));
    if (n > SLUICE_GGUF_MAX_TENSORS)
        return fail(r->err, SLUICE_ERR_LIMIT, 8, "gguf: %" PRIu64 " tensors; the limit is %d", n, SLUICE_GGUF_MAX_TENSORS);
    if (n == 0)
        return SLUICE_OK;
    g->tensors = sluice_alloc_array(g->al, (size_t)n, sizeof *g->tensors);
    if (g->tensors == NULL)
        return no_memory(r->err, "tensors", n);
    g->n_tensors = (size_t)n;
    if (!sluice_text_index_init(&g->names, (uint32_t)n, tensor_text, g, g->al))
        return no_memory(r->err, "tensors", n);
    for (size_t i = 0; i < n; i++) {
        uint64_t start = r->pos;
        sluice_status st = read_tensor(r, &g->tensors[i]);

        if (st == SLUICE_OK)
            st = enter(&g->names, i, "tensor", start, r->err);
        if (st != SLUICE_OK)
            return st;
    }
    return SLUICE_OK;
}

/* Give every tensor its place: inside the file, aligned, after the one before. */
static sluice_status place_tensors(sluice_gguf *g, const reader *r)
{
    uint64_t data, end = 0;

    data = (r->pos + g->alignment - 1) & ~(uint64_t)(g->alignment - 1); /* pos is at most the file's length: no wrap */
    if (g->n_tensors == 0) {
        g->data_offset = data < r->len ? data : r->len; /* a file of a vocabulary alone needs no padding */
        return SLUICE_OK;
    }
    if (data > r->len)
        return fail(r->err, SLUICE_ERR_FORMAT, r->pos, "gguf: the file ends before its tensor data");
    g->data_offset = data;
    for (size_t i = 0; i < g->n_tensors; i++) {
        sluice_gguf_tensor *t = &g->tensors[i];
        uint64_t have = r->len - data;

        if (t->offset % g->alignment != 0)
            return bad_tensor(t, data, r->err, "not aligned: data offset", t->offset);
        if (t->offset > have || t->bytes > have - t->offset)
            return fail(r->err, SLUICE_ERR_FORMAT, r->len,
                        "gguf: tensor \"%.*s\" has %zu bytes at data offset %" PRIu64 ", but the file has %" PRIu64 " bytes of data",
                        SPAN_ARGS(t->name), t->bytes, t->offset, have);
        if (t->offset < end)
            return bad_tensor(t, data + t->offset, r->err, "overlaps or precedes the tensor before it: data offset", t->offset);
        end = t->offset + t->bytes;
        t->offset += data;
        t->data = r->ptr + t->offset;
    }
    return SLUICE_OK;
}

/* ---- open and close ----------------------------------------------------------------------------------- */

static sluice_status read_header(sluice_gguf *g, reader *r, uint64_t *n_tensors, uint64_t *n_values)
{
    if (r->len < 4 || memcmp(r->ptr, "GGUF", 4) != 0)
        return fail(r->err, SLUICE_ERR_FORMAT, 0, "gguf: not a GGUF file: it does not begin with \"GGUF\"");
    if (r->len < HEADER_BYTES)
        return fail(r->err, SLUICE_ERR_FORMAT, r->len, "gguf: the file ends inside its header of %d bytes", HEADER_BYTES);
    g->version = load_u32(r->ptr + 4);
    *n_tensors = load_u64(r->ptr + 8);
    *n_values = load_u64(r->ptr + 16);
    r->pos = HEADER_BYTES;
    if (g->version == 2 || g->version == 3)
        return SLUICE_OK;
    if (g->version != 0 && (g->version & 0xffffu) == 0) /* 3 with its bytes reversed */
        return fail(r->err, SLUICE_ERR_UNSUPPORTED, 4, "gguf: a big-endian file");
    return fail(r->err, SLUICE_ERR_UNSUPPORTED, 4, "gguf: version %" PRIu32 "; this build reads 2 and 3", g->version);
}

static sluice_status parse(sluice_gguf *g, sluice_error *err)
{
    reader r = { g->bytes.ptr, g->bytes.len, 0, err };
    uint64_t n_tensors = 0, n_values = 0;
    sluice_status st = read_header(g, &r, &n_tensors, &n_values);

    if (st == SLUICE_OK)
        st = read_metadata(g, &r, n_values);
    if (st == SLUICE_OK)
        st = read_alignment(g, err);
    if (st == SLUICE_OK)
        st = refuse_split(g, err);
    if (st == SLUICE_OK)
        st = read_tensors(g, &r, n_tensors);
    if (st == SLUICE_OK)
        st = place_tensors(g, &r);
    return st;
}

static sluice_status new_gguf(sluice_gguf **out, const sluice_allocator *al, sluice_error *err)
{
    *out = sluice_alloc_zeroed(al, sizeof **out);
    if (*out == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "gguf: no memory to open a model file");
    (*out)->al = al;
    return SLUICE_OK;
}

sluice_status sluice_gguf_open_span(sluice_gguf **out, sluice_span bytes, const sluice_allocator *al, sluice_error *err)
{
    sluice_gguf *g;
    sluice_status st;

    *out = NULL;
    st = new_gguf(&g, al, err);
    if (st != SLUICE_OK)
        return st;
    g->bytes = bytes;
    st = parse(g, err);
    if (st != SLUICE_OK) {
        sluice_gguf_close(g);
        return st;
    }
    *out = g;
    return SLUICE_OK;
}

sluice_status sluice_gguf_open(sluice_gguf **out, const char *path, const sluice_platform *platform, const sluice_allocator *al, sluice_error *err)
{
    sluice_gguf *g;
    sluice_status st;

    *out = NULL;
    st = new_gguf(&g, al, err);
    if (st != SLUICE_OK)
        return st;
    g->map = SLUICE_MAPPING_EMPTY;
    st = platform->map(platform->user, &g->map, path, err);
    if (st == SLUICE_OK) {
        g->platform = platform;
        g->bytes = sluice_span_of(g->map.ptr, g->map.len);
        st = parse(g, err);
        if (st != SLUICE_OK)
            sluice_error_where(err, path);
    }
    if (st != SLUICE_OK) {
        sluice_gguf_close(g);
        return st;
    }
    *out = g;
    return SLUICE_OK;
}

void sluice_gguf_close(sluice_gguf *g)
{
    if (g == NULL)
        return;
    if (g->keys.n_slots != 0)
        sluice_text_index_deinit(&g->keys);
    if (g->names.n_slots != 0)
        sluice_text_index_deinit(&g->names);
    sluice_free(g->al, g->values, g->n_values * sizeof *g->values);
    sluice_free(g->al, g->tensors, g->n_tensors * sizeof *g->tensors);
    if (g->platform != NULL)
        g->platform->unmap(g->platform->user, &g->map);
    sluice_free(g->al, g, sizeof *g);
}

/* ---- questions ---------------------------------------------------------------------------------------- */

sluice_span sluice_gguf_bytes(const sluice_gguf *g)
{
    return g->bytes;
}

uint64_t sluice_gguf_data_offset(const sluice_gguf *g)
{
    return g->data_offset;
}

uint32_t sluice_gguf_version(const sluice_gguf *g)
{
    return g->version;
}

uint32_t sluice_gguf_alignment(const sluice_gguf *g)
{
    return g->alignment;
}

size_t sluice_gguf_n_values(const sluice_gguf *g)
{
    return g->n_values;
}

const sluice_gguf_value *sluice_gguf_value_at(const sluice_gguf *g, size_t i)
{
    return i < g->n_values ? &g->values[i] : NULL;
}

const sluice_gguf_value *sluice_gguf_find(const sluice_gguf *g, const char *key)
{
    uint32_t i = sluice_text_index_find(&g->keys, sluice_span_str(key));

    return i != SLUICE_TEXT_INDEX_NONE ? &g->values[i] : NULL;
}

static sluice_status find(const sluice_gguf *g, const char *key, const sluice_gguf_value **out, sluice_error *err)
{
    *out = sluice_gguf_find(g, key);
    if (*out == NULL)
        return sluice_error_set(err, SLUICE_ERR_NOT_FOUND, "gguf: the metadata has no \"%s\"", key);
    return SLUICE_OK;
}

static sluice_status wrong_type(const sluice_gguf_value *v, const char *want, sluice_error *err)
{
    return fail(err, SLUICE_ERR_FORMAT, v->offset, "gguf: \"%.*s\" is %s, not %s", SPAN_ARGS(v->key), sluice_gguf_value_type_name(v->type), want);
}

/* The integer as magnitude and sign: no integer type of the file lies outside of that. */
static bool load_integer(const sluice_gguf_value *v, uint64_t *magnitude, bool *negative)
{
    const uint8_t *p = v->data.ptr;
    int64_t i;

    *negative = false;
    switch (v->type) {
    case SLUICE_GGUF_U8: *magnitude = p[0]; return true;
    case SLUICE_GGUF_U16: *magnitude = (uint32_t)p[0] | (uint32_t)p[1] << 8; return true;
    case SLUICE_GGUF_U32: *magnitude = load_u32(p); return true;
    case SLUICE_GGUF_U64: *magnitude = load_u64(p); return true;
    case SLUICE_GGUF_I8: i = p[0] < 0x80 ? p[0] : (int64_t)p[0] - 0x100; break;
    case SLUICE_GGUF_I16: i = (int16_t)((uint32_t)p[0] | (uint32_t)p[1] << 8); break;
    case SLUICE_GGUF_I32: i = (int32_t)load_u32(p); break;
    case SLUICE_GGUF_I64: i = (int64_t)load_u64(p); break;
    default: return false;
    }
    *negative = i < 0;
    *magnitude = i < 0 ? (uint64_t)0 - (uint64_t)i : (uint64_t)i;
    return true;
}

/* An integer of any width from -min to max. */
static sluice_status get_integer(const sluice_gguf *g, const char *key, uint64_t min, uint64_t max, uint64_t *magnitude, bool *negative,
                                 sluice_error *err)
{
    const sluice_gguf_value *v;
    uint64_t m = 0;
    bool neg = false;
    sluice_status st = find(g, key, &v, err);

    if (st != SLUICE_OK)
        return st;
    if (!load_integer(v, &m, &neg))
        return wrong_type(v, "an integer", err);
    if (m > (neg ? min : max))
        return fail(err, SLUICE_ERR_FORMAT, v->offset, "gguf: \"%s\" is %s%" PRIu64 ", which is out of range", key, neg ? "-" : "", m);
    *magnitude = m;
    *negative = neg;
    return SLUICE_OK;
}

sluice_status sluice_gguf_get_u32(const sluice_gguf *g, const char *key, uint32_t *out, sluice_error *err)
{
    uint64_t m = 0;
    bool neg = false;
    sluice_status st = get_integer(g, key, 0, UINT32_MAX, &m, &neg, err);

    if (st == SLUICE_OK)
        *out = (uint32_t)m;
    return st;
}

sluice_status sluice_gguf_get_u64(const sluice_gguf *g, const char *key, uint64_t *out, sluice_error *err)
{
    uint64_t m = 0;
    bool neg = false;
    sluice_status st = get_integer(g, key, 0, UINT64_MAX, &m, &neg, err);

    if (st == SLUICE_OK)
        *out = m;
    return st;
}

sluice_status sluice_gguf_get_i32(const sluice_gguf *g, const char *key, int32_t *out, sluice_error *err)
{
    uint64_t m = 0;
    bool neg = false;
    sluice_status st = get_integer(g, key, (uint64_t)INT32_MAX + 1, INT32_MAX, &m, &neg, err);

    if (st == SLUICE_OK)
        *out = (int32_t)(neg ? -(int64_t)m : (int64_t)m);
    return st;
}

sluice_status sluice_gguf_get_f32(const sluice_gguf *g, const char *key, float *out, sluice_error *err)
{
    const sluice_gguf_value *v;
    double d;
    sluice_status st = find(g, key, &v, err);

    if (st != SLUICE_OK)
        return st;
    if (v->type == SLUICE_GGUF_F32) {
        float f;

        memcpy(&f, v->data.ptr, sizeof f);
        d = (double)f;
    } else if (v->type == SLUICE_GGUF_F64) {
        memcpy(&d, v->data.ptr, sizeof d);
    } else {
        return wrong_type(v, "a floating-point number", err);
    }
    if (!(d >= -(double)FLT_MAX && d <= (double)FLT_MAX)) /* also false for NaN */
        return fail(err, SLUICE_ERR_FORMAT, v->offset, "gguf: \"%s\" is not a finite number", key);
    *out = (float)d;
    return SLUICE_OK;
}

sluice_status sluice_gguf_get_bool(const sluice_gguf *g, const char *key, bool *out, sluice_error *err)
{
    const sluice_gguf_value *v;
    sluice_status st = find(g, key, &v, err);

    if (st != SLUICE_OK)
        return st;
    if (v->type != SLUICE_GGUF_BOOL)
        return wrong_type(v, "a bool", err);
    *out = v->data.ptr[0] != 0;
    return SLUICE_OK;
}

sluice_status sluice_gguf_get_string(const sluice_gguf *g, const char *key, sluice_span *out, sluice_error *err)
{
    const sluice_gguf_value *v;
    sluice_status st = find(g, key, &v, err);

    if (st != SLUICE_OK)
        return st;
    if (v->type != SLUICE_GGUF_STRING)
        return wrong_type(v, "a string", err);
    if (!sluice_utf8_valid(v->data) || (v->data.len > 0 && memchr(v->data.ptr, 0, v->data.len) != NULL))
        return fail(err, SLUICE_ERR_FORMAT, v->offset, "gguf: \"%s\" is not valid UTF-8, or has a NUL inside", key);
    *out = v->data;
    return SLUICE_OK;
}

sluice_status sluice_gguf_get_array(const sluice_gguf *g, const char *key, sluice_gguf_type item_type, const sluice_gguf_value **out,
                                    sluice_error *err)
{
    const sluice_gguf_value *v;
    sluice_status st = find(g, key, &v, err);

    if (st != SLUICE_OK)
        return st;
    if (v->type != SLUICE_GGUF_ARRAY)
        return wrong_type(v, "an array", err);
    if (v->item_type != item_type)
        return fail(err, SLUICE_ERR_FORMAT, v->offset, "gguf: \"%s\" is an array of %s, not of %s", key, sluice_gguf_value_type_name(v->item_type),
                    sluice_gguf_value_type_name(item_type));
    *out = v;
    return SLUICE_OK;
}

sluice_status sluice_gguf_opt_u32(const sluice_gguf *g, const char *key, uint32_t *out, sluice_error *err)
{
    return sluice_gguf_find(g, key) != NULL ? sluice_gguf_get_u32(g, key, out, err) : SLUICE_OK;
}

sluice_status sluice_gguf_opt_i32(const sluice_gguf *g, const char *key, int32_t *out, sluice_error *err)
{
    return sluice_gguf_find(g, key) != NULL ? sluice_gguf_get_i32(g, key, out, err) : SLUICE_OK;
}

sluice_status sluice_gguf_opt_f32(const sluice_gguf *g, const char *key, float *out, sluice_error *err)
{
    return sluice_gguf_find(g, key) != NULL ? sluice_gguf_get_f32(g, key, out, err) : SLUICE_OK;
}

sluice_status sluice_gguf_opt_bool(const sluice_gguf *g, const char *key, bool *out, sluice_error *err)
{
    return sluice_gguf_find(g, key) != NULL ? sluice_gguf_get_bool(g, key, out, err) : SLUICE_OK;
}

sluice_status sluice_gguf_opt_string(const sluice_gguf *g, const char *key, sluice_span *out, sluice_error *err)
{
    return sluice_gguf_find(g, key) != NULL ? sluice_gguf_get_string(g, key, out, err) : SLUICE_OK;
}

uint32_t sluice_gguf_array_u32(const sluice_gguf_value *array, uint64_t i)
{
    return load_u32(array->data.ptr + 4 * i);
}

int32_t sluice_gguf_array_i32(const sluice_gguf_value *array, uint64_t i)
{
    return (int32_t)sluice_gguf_array_u32(array, i);
}

float sluice_gguf_array_f32(const sluice_gguf_value *array, uint64_t i)
{
    float f;

    memcpy(&f, array->data.ptr + 4 * i, sizeof f);
    return f;
}

bool sluice_gguf_array_next_string(const sluice_gguf_value *array, uint64_t *cursor, sluice_span *out)
{
    uint64_t n, have = array->data.len;

    if (*cursor >= have || have - *cursor < 8) /* the lengths were checked on opening; the bounds here are for a bad cursor */
        return false;
    n = load_u64(array->data.ptr + *cursor);
    if (n > have - *cursor - 8)
        return false;
    *out = sluice_span_of(array->data.ptr + *cursor + 8, (size_t)n);
    *cursor += 8 + n;
    return true;
}

size_t sluice_gguf_n_tensors(const sluice_gguf *g)
{
    return g->n_tensors;
}

const sluice_gguf_tensor *sluice_gguf_tensor_at(const sluice_gguf *g, size_t i)
{
    return i < g->n_tensors ? &g->tensors[i] : NULL;
}

const sluice_gguf_tensor *sluice_gguf_tensor_find(const sluice_gguf *g, const char *name)
{
    uint32_t i = sluice_text_index_find(&g->names, sluice_span_str(name));

    return i != SLUICE_TEXT_INDEX_NONE ? &g->tensors[i] : NULL;
}

sluice_status sluice_gguf_tensor_get(const sluice_gguf *g, const char *name, const sluice_gguf_tensor **out, sluice_error *err)
{
    const sluice_gguf_tensor *t = sluice_gguf_tensor_find(g, name);
    sluice_status st;

    if (t == NULL)
        return sluice_error_set(err, SLUICE_ERR_NOT_FOUND, "gguf: the model has no tensor \"%s\"", name);
    if (!sluice_tensor_type_is_supported(t->type)) {
        st = fail(err, SLUICE_ERR_UNSUPPORTED, t->offset, "gguf: unsupported tensor type %s in \"%s\"; this build computes with F32, F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS and MXFP4",
                  sluice_tensor_type_name(t->type), name);
        sluice_error_hint(err, "use a Q4_K_M, Q4_0 or Q8_0 file of the same model");
        return st;
    }
    *out = t;
    return SLUICE_OK;
}
