/* test_gguf.c - the GGUF reader: what a good file gives, and where a bad one is refused.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "local-engine/gguf.h"
#include "local-engine/prompt.h"
#include "local-engine/tokenizer.h"
#include "sdk/platform/platform.h"
#include "tests/support/fake_allocator.h"
#include "tests/support/fake_platform.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/engine/gguf_samples.h"

enum { FILE_MAX = 16 << 20 };

/* A block of exactly the file's size, so that the sanitizer sees one byte too far. */
static sluice_status open_exact(sluice_gguf **g, sluice_span bytes, uint8_t **block, sluice_error *err)
{
    *block = malloc(bytes.len > 0 ? bytes.len : 1);
    assert_non_null(*block);
    if (bytes.len > 0)
        memcpy(*block, bytes.ptr, bytes.len);
    return sluice_gguf_open_span(g, sluice_span_of(*block, bytes.len), NULL, err);
}

static void good_file_gives_every_value_and_tensor(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;
    const sluice_gguf_tensor *t = NULL;
    const sluice_gguf_value *v = NULL;
    sluice_span text = SLUICE_SPAN_EMPTY;
    uint64_t cursor = 0;
    uint8_t *block;
    sluice_gguf *g;
    sluice_buf b;
    float f = 0;

    (void)state;
    sluice_buf_init(&b, NULL, FILE_MAX);
    sample_spm_small(&b);
    assert_int_equal(open_exact(&g, sluice_buf_span(&b), &block, &err), SLUICE_OK);
    assert_int_equal(sluice_gguf_version(g), 3);
    assert_int_equal(sluice_gguf_alignment(g), 32);
    assert_int_equal(sluice_gguf_bytes(g).len, b.len);
    assert_int_equal(sluice_gguf_get_string(g, "general.architecture", &text, &err), SLUICE_OK);
    assert_true(sluice_span_eq_str(text, "llama"));
    assert_int_equal(sluice_gguf_get_f32(g, "a.f32", &f, &err), SLUICE_OK);
    assert_true(f == 0.5f);
    assert_int_equal(sluice_gguf_get_f32(g, "a.f64", &f, &err), SLUICE_OK);
    assert_true(f == 0.5f);
    assert_true(sluice_span_eq_str(sluice_gguf_value_at(g, 0)->key, "general.architecture"));
    assert_null(sluice_gguf_value_at(g, sluice_gguf_n_values(g)));

    assert_int_equal(sluice_gguf_get_array(g, "tokenizer.ggml.tokens", SLUICE_GGUF_STRING, &v, &err), SLUICE_OK);
    assert_int_equal(v->count, 11);
    for (int i = 0; i < 8; i++)
        assert_true(sluice_gguf_array_next_string(v, &cursor, &text));
    assert_true(sluice_span_eq_str(text, "ab"));
    for (int i = 8; i < 11; i++)
        assert_true(sluice_gguf_array_next_string(v, &cursor, &text));
    assert_int_equal(text.len, 0);
    assert_false(sluice_gguf_array_next_string(v, &cursor, &text));
    assert_int_equal(sluice_gguf_get_array(g, "tokenizer.ggml.scores", SLUICE_GGUF_F32, &v, &err), SLUICE_OK);
    assert_true(sluice_gguf_array_f32(v, 7) == -1.0f);
    assert_int_equal(sluice_gguf_get_array(g, "tokenizer.ggml.token_type", SLUICE_GGUF_I32, &v, &err), SLUICE_OK);
    assert_int_equal(sluice_gguf_array_i32(v, 3), 6);

    assert_int_equal(sluice_gguf_n_tensors(g), 3);
    assert_int_equal(sluice_gguf_tensor_get(g, "f32", &t, &err), SLUICE_OK);
    assert_int_equal(t->bytes, 32);
    assert_int_equal(t->offset, sluice_gguf_data_offset(g));
    assert_ptr_equal(t->data, block + t->offset);
    memcpy(&f, (const uint8_t *)t->data + 28, sizeof f);
    assert_true(f == 8.0f);
    assert_int_equal(sluice_gguf_tensor_get(g, "f16", &t, &err), SLUICE_OK);
    assert_int_equal(t->n_dims, 3);
    assert_int_equal(t->bytes, 12);
    assert_int_equal(sluice_gguf_tensor_get(g, "q8_0", &t, &err), SLUICE_OK);
    assert_int_equal(t->bytes, 68);
    assert_int_equal(t->ne[0], 32);
    assert_int_equal(t->ne[1], 2);
    assert_int_equal(t->ne[2], 1);
    assert_ptr_equal(sluice_gguf_tensor_at(g, 2), t);
    assert_null(sluice_gguf_tensor_find(g, "q8_1"));
    assert_int_equal(sluice_gguf_tensor_get(g, "q8_1", &t, &err), SLUICE_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "q8_1"));
    sluice_gguf_close(g);
    free(block);
    sluice_buf_deinit(&b);
}

static void getters_check_type_and_range_and_name_the_key(void **state)
{
    static const struct {
        const char *key;
        bool u32, u64, i32;
        uint64_t value;
    } integers[] = {
        { "a.u8", true, true, true, 255 },           { "a.i8", false, false, true, UINT64_MAX },      { "a.u16", true, true, true, 65535 },
        { "a.i16", false, false, true, UINT64_MAX }, { "a.u32", true, true, false, 4000000000u },     { "a.i32", false, false, true, UINT64_MAX - 6 },
        { "a.u64", false, true, false, 1ull << 32 }, { "a.i64", false, false, true, UINT64_MAX - 1 }, { "a.f32", false, false, false, 0 },
        { "a.bool", false, false, false, 0 },
    };
    sluice_error err = SLUICE_ERROR_INIT;
    const sluice_gguf_value *v = NULL;
    sluice_gguf *g;
    uint8_t *block;
    sluice_span s;
    sluice_buf b;
    bool yes = false;
    float f = 0;

    (void)state;
    sluice_buf_init(&b, NULL, FILE_MAX);
    sample_spm_small(&b);
    assert_int_equal(open_exact(&g, sluice_buf_span(&b), &block, NULL), SLUICE_OK);
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++) {
        uint32_t u32 = 77;
        uint64_t u64 = 77;
        int32_t i32 = 77;

        assert_int_equal(sluice_gguf_get_u32(g, integers[i].key, &u32, &err), integers[i].u32 ? SLUICE_OK : SLUICE_ERR_FORMAT);
        assert_true(u32 == (integers[i].u32 ? (uint32_t)integers[i].value : 77));
        if (!integers[i].u32) {
            assert_non_null(strstr(err.message, integers[i].key));
            assert_true(err.has_offset);
        }
        assert_int_equal(sluice_gguf_get_u64(g, integers[i].key, &u64, &err), integers[i].u64 ? SLUICE_OK : SLUICE_ERR_FORMAT);
        assert_true(u64 == (integers[i].u64 ? integers[i].value : 77));
        assert_int_equal(sluice_gguf_get_i32(g, integers[i].key, &i32, &err), integers[i].i32 ? SLUICE_OK : SLUICE_ERR_FORMAT);
        assert_true(i32 == (integers[i].i32 ? (int32_t)(uint32_t)integers[i].value : 77));
    }
    assert_int_equal(sluice_gguf_get_bool(g, "a.bool", &yes, &err), SLUICE_OK);
    assert_true(yes);
    assert_int_equal(sluice_gguf_get_bool(g, "a.u8", &yes, &err), SLUICE_ERR_FORMAT);
    assert_int_equal(sluice_gguf_get_f32(g, "a.u8", &f, &err), SLUICE_ERR_FORMAT);
    assert_int_equal(sluice_gguf_get_string(g, "a.u8", &s, &err), SLUICE_ERR_FORMAT);
    assert_int_equal(sluice_gguf_get_array(g, "a.u8", SLUICE_GGUF_U8, &v, &err), SLUICE_ERR_FORMAT);
    assert_int_equal(sluice_gguf_get_array(g, "tokenizer.ggml.scores", SLUICE_GGUF_F64, &v, &err), SLUICE_ERR_FORMAT);
    assert_non_null(strstr(err.message, "tokenizer.ggml.scores"));
    assert_null(v);
    assert_int_equal(sluice_gguf_get_f32(g, "no.such", &f, &err), SLUICE_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "no.such"));
    assert_int_equal(sluice_gguf_opt_f32(g, "no.such", &f, &err), SLUICE_OK);
    assert_int_equal(sluice_gguf_opt_f32(g, "a.u8", &f, &err), SLUICE_ERR_FORMAT);
    sluice_gguf_close(g);
    free(block);
    sluice_buf_deinit(&b);
}

/* ---- bad files, one by one ------------------------------------------------------------------------------ */

typedef struct bad_file {
    const char *why;
    void (*build)(sluice_gguf_writer *w);
    sluice_status status;
    const char *says;
} bad_file;

static sluice_span u32_bytes(uint32_t v)
{
    static uint8_t bytes[4];

    for (size_t i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(v >> 8 * i);
    return sluice_span_of(bytes, 4);
}

/* `n` little-endian 64-bit numbers after an optional 32-bit one. */
static sluice_span payload(uint32_t head, size_t n, uint64_t a, uint64_t b)
{
    static uint8_t bytes[20];
    uint64_t v[2] = { a, b };

    for (size_t i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(head >> 8 * i);
    for (size_t i = 0; i < 8 * n; i++)
        bytes[4 + i] = (uint8_t)(v[i / 8] >> 8 * (i % 8));
    return sluice_span_of(bytes, 4 + 8 * n);
}

#define RAW(name, key, type, bytes)                                                                                                                  \
    static void name(sluice_gguf_writer *w)                                                                                                          \
    {                                                                                                                                                \
        sluice_gguf_put_raw(w, SLUICE_SPAN_LIT(key), type, bytes);                                                                                   \
    }
#define ROW(name, label, type, n_dims, offset, ...)                                                                                                  \
    static void name(sluice_gguf_writer *w)                                                                                                          \
    {                                                                                                                                                \
        sluice_gguf_put_tensor_row(w, SLUICE_SPAN_LIT(label), type, n_dims, (uint64_t[4]){ __VA_ARGS__ }, offset);                                   \
        (void)sluice_buf_append(&w->data, (uint8_t[64]){ 0 }, 64);                                                                                   \
    }

static void many_values(sluice_gguf_writer *w)
{
    w->n_values = UINT64_MAX;
}
static void wrapping_values(sluice_gguf_writer *w)
{
    w->n_values = UINT64_MAX / sizeof(sluice_gguf_value) + 2;
}
static void many_tensors(sluice_gguf_writer *w)
{
    w->n_tensors = UINT64_MAX;
}
static void million_tensors(sluice_gguf_writer *w)
{
    w->n_tensors = 1000000;
}
static void version_0(sluice_gguf_writer *w)
{
    w->version = 0;
}
static void version_1(sluice_gguf_writer *w)
{
    w->version = 1;
}
static void version_4(sluice_gguf_writer *w)
{
    w->version = 4;
}
static void version_2_31(sluice_gguf_writer *w)
{
    w->version = 0x80000000u;
}
static void big_endian(sluice_gguf_writer *w)
{
    w->version = 0x03000000u;
}
RAW(empty_key, "", SLUICE_GGUF_U64, SLUICE_SPAN_LIT("12345678"))
RAW(nul_in_key, "a\0b", SLUICE_GGUF_U8, SLUICE_SPAN_LIT("x"))
RAW(key_not_ascii, "a\xff", SLUICE_GGUF_U8, SLUICE_SPAN_LIT("x"))
RAW(unknown_type, "k", 13, SLUICE_SPAN_LIT("xxxxxxxx"))
RAW(negative_type, "k", UINT32_MAX, SLUICE_SPAN_LIT("xxxxxxxx"))
RAW(string_minus_1, "k", SLUICE_GGUF_STRING, SLUICE_SPAN_LIT("\xff\xff\xff\xff\xff\xff\xff\xff"))
RAW(string_one_too_long, "k", SLUICE_GGUF_STRING, SLUICE_SPAN_LIT("\2\0\0\0\0\0\0\0x"))
RAW(bool_2, "k", SLUICE_GGUF_BOOL, SLUICE_SPAN_LIT("\2"))
RAW(value_cut, "k", SLUICE_GGUF_U64, SLUICE_SPAN_LIT("1234567"))
RAW(nested_array, "k", SLUICE_GGUF_ARRAY, payload(SLUICE_GGUF_ARRAY, 1, 1, 0))
RAW(array_of_unknown, "k", SLUICE_GGUF_ARRAY, payload(99, 1, 1, 0))
RAW(array_too_long, "k", SLUICE_GGUF_ARRAY, payload(SLUICE_GGUF_U64, 2, 2, 0))
RAW(array_wraps, "k", SLUICE_GGUF_ARRAY, payload(SLUICE_GGUF_U64, 2, (1ull << 61) + 1, 0))
RAW(array_strings_2_60, "k", SLUICE_GGUF_ARRAY, payload(SLUICE_GGUF_STRING, 2, 1ull << 60, 0))
RAW(array_string_cut, "k", SLUICE_GGUF_ARRAY, payload(SLUICE_GGUF_STRING, 2, 1, UINT64_MAX))
RAW(alignment_0, "general.alignment", SLUICE_GGUF_U32, u32_bytes(0))
RAW(alignment_1, "general.alignment", SLUICE_GGUF_U32, u32_bytes(1))
RAW(alignment_48, "general.alignment", SLUICE_GGUF_U32, u32_bytes(48))
RAW(alignment_2_31, "general.alignment", SLUICE_GGUF_U32, u32_bytes(0x80000000u))
RAW(alignment_string, "general.alignment", SLUICE_GGUF_STRING,
    SLUICE_SPAN_LIT("\2\0\0\0\0\0\0\0"
                    "32"))
RAW(split, "split.count", SLUICE_GGUF_U32, u32_bytes(5))
RAW(split_negative, "split.count", SLUICE_GGUF_I32, u32_bytes(UINT32_MAX))
ROW(tensor_no_name, "", 0, 1, 0, 16)
ROW(tensor_nul_name, "a\0b", 0, 1, 0, 16)
ROW(tensor_0_dims, "t", 0, 0, 0, 16)
ROW(tensor_5_dims, "t", 0, 5, 0, 1, 1, 1, 1)
ROW(tensor_max_dims, "t", 0, UINT32_MAX, 0, 1, 1, 1, 1)
ROW(tensor_dim_0, "t", 0, 2, 0, 16, 0)
ROW(tensor_dim_negative, "t", 0, 1, 0, UINT64_MAX)
ROW(tensor_product_wraps, "t", 0, 3, 0, 1ull << 32, 1ull << 32, 16)
ROW(tensor_bytes_wrap, "t", 0, 1, 0, 1ull << 62)
ROW(tensor_half_block, "t", SLUICE_TENSOR_Q8_0, 1, 0, 33)
ROW(tensor_unknown_type, "t", 4, 1, 0, 16)
ROW(tensor_negative_type, "t", UINT32_MAX, 1, 0, 16)
ROW(tensor_unaligned, "t", 0, 1, 4, 8)
ROW(tensor_beyond, "t", 0, 1, 64, 1)
ROW(tensor_offset_wraps, "t", 0, 1, 0xffffffffffffffe0u, 16)
ROW(tensor_one_byte_short, "t", 24, 1, 0, 65)
ROW(tensor_larger_than_file, "t", 0, 2, 0, 1u << 20, 1u << 20)

static void key_twice(sluice_gguf_writer *w)
{
    sluice_gguf_put_u32(w, "k", 1);
    sluice_gguf_put_u32(w, "k", 1);
}

static void key_twice_of_two_types(sluice_gguf_writer *w)
{
    sluice_gguf_put_u32(w, "k", 1);
    sluice_gguf_put_string(w, "k", "1");
}

static void long_key(sluice_gguf_writer *w)
{
    static const char key[300] = { 0 };

    sluice_gguf_put_raw(w, sluice_span_of(key, sizeof key), SLUICE_GGUF_U8, SLUICE_SPAN_LIT("x"));
}

static void too_many_values(sluice_gguf_writer *w)
{
    for (unsigned i = 0; i < SLUICE_GGUF_MAX_KEYS + 1; i++) {
        char key[16];

        (void)snprintf(key, sizeof key, "k%u", i);
        sluice_gguf_put_u32(w, key, i);
    }
}

static void tensor_twice(sluice_gguf_writer *w)
{
    for (int i = 0; i < 2; i++)
        sluice_gguf_put_tensor(w, "t", 0, 1, (uint64_t[]){ 8 }, (uint8_t[32]){ 0 }, 32);
}

static void tensors_overlap(sluice_gguf_writer *w)
{
    sluice_gguf_put_tensor(w, "a", 0, 1, (uint64_t[]){ 16 }, (uint8_t[64]){ 0 }, 64);
    sluice_gguf_put_tensor_row(w, SLUICE_SPAN_LIT("b"), 0, 1, (uint64_t[]){ 8 }, 32);
}

static void tensor_sizes_wrap_together(sluice_gguf_writer *w)
{
    sluice_gguf_put_tensor_row(w, SLUICE_SPAN_LIT("a"), 24, 1, (uint64_t[]){ 0x7fffffffffffffc0u }, 0);
    sluice_gguf_put_tensor_row(w, SLUICE_SPAN_LIT("b"), 24, 1, (uint64_t[]){ 0x7fffffffffffffc0u }, 0x7fffffffffffffc0u);
}

static const bad_file bad_files[] = {
    { "n_kv -1", many_values, SLUICE_ERR_FORMAT, "announced" },
    { "n_kv times the entry wraps", wrapping_values, SLUICE_ERR_FORMAT, "announced" },
    { "n_tensors -1", many_tensors, SLUICE_ERR_FORMAT, "announced" },
    { "a million tensors in a tiny file", million_tensors, SLUICE_ERR_FORMAT, "announced" },
    { "version 0", version_0, SLUICE_ERR_UNSUPPORTED, "version 0" },
    { "version 1", version_1, SLUICE_ERR_UNSUPPORTED, "version 1" },
    { "version 4", version_4, SLUICE_ERR_UNSUPPORTED, "version 4" },
    { "version 2^31", version_2_31, SLUICE_ERR_UNSUPPORTED, "gguf" },
    { "big-endian", big_endian, SLUICE_ERR_UNSUPPORTED, "big-endian" },
    { "empty key", empty_key, SLUICE_ERR_FORMAT, "empty" },
    { "NUL in key", nul_in_key, SLUICE_ERR_FORMAT, "0x00" },
    { "key not ASCII", key_not_ascii, SLUICE_ERR_FORMAT, "0xff" },
    { "long key", long_key, SLUICE_ERR_LIMIT, "300" },
    { "more keys than the limit", too_many_values, SLUICE_ERR_LIMIT, "1025" },
    { "unknown value type", unknown_type, SLUICE_ERR_FORMAT, "type 13" },
    { "negative value type", negative_type, SLUICE_ERR_FORMAT, "unknown type" },
    { "string of length -1", string_minus_1, SLUICE_ERR_FORMAT, "left" },
    { "string one too long", string_one_too_long, SLUICE_ERR_FORMAT, "left" },
    { "bool of 2", bool_2, SLUICE_ERR_FORMAT, "bool" },
    { "value cut", value_cut, SLUICE_ERR_FORMAT, "ends inside" },
    { "array of arrays", nested_array, SLUICE_ERR_FORMAT, "array" },
    { "array of unknown", array_of_unknown, SLUICE_ERR_FORMAT, "array" },
    { "array too long", array_too_long, SLUICE_ERR_FORMAT, "announces 2 items" },
    { "array size wraps", array_wraps, SLUICE_ERR_FORMAT, "announces" },
    { "2^60 strings", array_strings_2_60, SLUICE_ERR_FORMAT, "announces" },
    { "string in array cut", array_string_cut, SLUICE_ERR_FORMAT, "left" },
    { "key twice", key_twice, SLUICE_ERR_FORMAT, "\"k\" is there twice" },
    { "key twice, two types", key_twice_of_two_types, SLUICE_ERR_FORMAT, "twice" },
    { "alignment 0", alignment_0, SLUICE_ERR_FORMAT, "general.alignment" },
    { "alignment 1", alignment_1, SLUICE_ERR_FORMAT, "general.alignment" },
    { "alignment 48", alignment_48, SLUICE_ERR_FORMAT, "power of two" },
    { "alignment 2^31", alignment_2_31, SLUICE_ERR_FORMAT, "general.alignment" },
    { "alignment a string", alignment_string, SLUICE_ERR_FORMAT, "not u32" },
    { "split model", split, SLUICE_ERR_UNSUPPORTED, "5 parts" },
    { "split of -1", split_negative, SLUICE_ERR_FORMAT, "split.count" },
    { "tensor without name", tensor_no_name, SLUICE_ERR_FORMAT, "empty" },
    { "tensor with NUL in its name", tensor_nul_name, SLUICE_ERR_FORMAT, "0x00" },
    { "0 dimensions", tensor_0_dims, SLUICE_ERR_FORMAT, "dimensions" },
    { "5 dimensions", tensor_5_dims, SLUICE_ERR_FORMAT, "dimensions" },
    { "2^32-1 dimensions", tensor_max_dims, SLUICE_ERR_FORMAT, "dimensions" },
    { "dimension 0", tensor_dim_0, SLUICE_ERR_FORMAT, "dimension" },
    { "dimension -1", tensor_dim_negative, SLUICE_ERR_FORMAT, "too many elements" },
    { "element count wraps", tensor_product_wraps, SLUICE_ERR_FORMAT, "too many elements" },
    { "byte count wraps", tensor_bytes_wrap, SLUICE_ERR_FORMAT, "row of its type" },
    { "half a block", tensor_half_block, SLUICE_ERR_FORMAT, "row of its type" },
    { "removed tensor type", tensor_unknown_type, SLUICE_ERR_UNSUPPORTED, "unknown tensor type 4 in \"t\"" },
    { "negative tensor type", tensor_negative_type, SLUICE_ERR_UNSUPPORTED, "unknown tensor type" },
    { "offset not aligned", tensor_unaligned, SLUICE_ERR_FORMAT, "aligned" },
    { "offset beyond the file", tensor_beyond, SLUICE_ERR_FORMAT, "\"t\"" },
    { "offset + size wraps", tensor_offset_wraps, SLUICE_ERR_FORMAT, "\"t\"" },
    { "data one byte short", tensor_one_byte_short, SLUICE_ERR_FORMAT, "65 bytes" },
    { "larger than the file", tensor_larger_than_file, SLUICE_ERR_FORMAT, "larger than the file" },
    { "tensor twice", tensor_twice, SLUICE_ERR_FORMAT, "\"t\" is there twice" },
    { "tensors overlap", tensors_overlap, SLUICE_ERR_FORMAT, "overlaps" },
    { "sizes wrap together", tensor_sizes_wrap_together, SLUICE_ERR_FORMAT, "larger than the file" },
};

static void bad_files_are_refused_with_their_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_files / sizeof bad_files[0]; i++) {
        sluice_error err = SLUICE_ERROR_INIT;
        sluice_gguf_writer w;
        sluice_status st;
        sluice_gguf *g;
        uint8_t *block;
        sluice_buf b;

        sluice_buf_init(&b, NULL, FILE_MAX);
        sluice_gguf_writer_init(&w, NULL, FILE_MAX);
        bad_files[i].build(&w);
        assert_true(sluice_gguf_writer_finish(&w, &b));
        st = open_exact(&g, sluice_buf_span(&b), &block, &err);
        if (st != bad_files[i].status || g != NULL || err.status != st || strstr(err.message, bad_files[i].says) == NULL || !err.has_offset ||
            err.offset > b.len)
            fail_msg("%s: %s \"%s\" at %llu", bad_files[i].why, sluice_status_name(st), err.message, (unsigned long long)err.offset);
        sluice_gguf_writer_deinit(&w);
        sluice_buf_deinit(&b);
        free(block);
    }
}

static void other_files_are_not_gguf(void **state)
{
    static const char *const files[] = { "", "G", "GGU", "GGML1234567890123456789012345", "FUGG0000000000000000000000", "PK\3\4" };

    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        sluice_error err = SLUICE_ERROR_INIT;
        sluice_gguf *g;
        uint8_t *block;

        assert_int_equal(open_exact(&g, sluice_span_str(files[i]), &block, &err), SLUICE_ERR_FORMAT);
        assert_non_null(strstr(err.message, "not a GGUF file"));
        free(block);
    }
}

static void version_2_reads_like_version_3(void **state)
{
    sluice_gguf *g;
    uint8_t *block;
    sluice_buf b;

    (void)state;
    sluice_buf_init(&b, NULL, FILE_MAX);
    sample_spm_small(&b);
    b.ptr[4] = 2;
    assert_int_equal(open_exact(&g, sluice_buf_span(&b), &block, NULL), SLUICE_OK);
    assert_int_equal(sluice_gguf_version(g), 2);
    assert_int_equal(sluice_gguf_n_tensors(g), 3);
    sluice_gguf_close(g);
    free(block);
    sluice_buf_deinit(&b);
}

static void not_finite_numbers_are_refused(void **state)
{
    static const uint32_t bits[] = { 0x7fc00000u, 0x7f800000u, 0xff800000u };

    (void)state;
    for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++) {
        sluice_error err = SLUICE_ERROR_INIT;
        sluice_gguf_writer w;
        float f = 1;
        sluice_gguf *g;
        sluice_buf b;

        sluice_buf_init(&b, NULL, FILE_MAX);
        sluice_gguf_writer_init(&w, NULL, FILE_MAX);
        sluice_gguf_put_raw(&w, SLUICE_SPAN_LIT("eps"), SLUICE_GGUF_F32, u32_bytes(bits[i]));
        assert_true(sluice_gguf_writer_finish(&w, &b));
        assert_int_equal(sluice_gguf_open_span(&g, sluice_buf_span(&b), NULL, &err), SLUICE_OK);
        assert_int_equal(sluice_gguf_get_f32(g, "eps", &f, &err), SLUICE_ERR_FORMAT);
        assert_non_null(strstr(err.message, "eps"));
        assert_true(f == 1.0f);
        sluice_gguf_close(g);
        sluice_gguf_writer_deinit(&w);
        sluice_buf_deinit(&b);
    }
}

static void a_known_type_without_kernels_opens_but_is_not_given_out(void **state)
{
    static const uint8_t data[54] = { 0 };
    sluice_error err = SLUICE_ERROR_INIT;
    const sluice_gguf_tensor *t = NULL;
    sluice_gguf_writer w;
    sluice_gguf *g;
    sluice_buf b;

    (void)state;
    sluice_buf_init(&b, NULL, FILE_MAX);
    sluice_gguf_writer_init(&w, NULL, FILE_MAX);
    sluice_gguf_put_tensor(&w, "blk.0.attn_q.weight", 34, 1, (uint64_t[]){ 256 }, data, sizeof data);
    assert_true(sluice_gguf_writer_finish(&w, &b));
    assert_int_equal(sluice_gguf_open_span(&g, sluice_buf_span(&b), NULL, &err), SLUICE_OK);
    assert_int_equal(sluice_gguf_tensor_at(g, 0)->bytes, 54);
    assert_int_equal(sluice_gguf_tensor_get(g, "blk.0.attn_q.weight", &t, &err), SLUICE_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "gguf: unsupported tensor type TQ1_0 in \"blk.0.attn_q.weight\"; this build computes with F32, F16, BF16, Q4_0 to Q8_0, Q2_K to "
                                     "Q6_K, IQ4_NL, IQ4_XS and MXFP4");
    assert_null(t);
    sluice_gguf_close(g);
    sluice_gguf_writer_deinit(&w);
    sluice_buf_deinit(&b);
}

/* ---- names made to collide ---------------------------------------------------------------------------- */

enum { COLLIDING_STAGES = 9, CANDIDATES = 1 << 18, BLOCK_LEN = 8 };

typedef struct candidate {
    uint32_t hash, number;
} candidate;

static uint32_t fnv(uint32_t h, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)s[i]) * 16777619u;
    return h;
}

static void block_text(uint32_t number, char out[BLOCK_LEN])
{
    uint64_t mixed = (number + 1) * 0x9e3779b97f4a7c15u; /* neighbours differ everywhere: FNV keeps small differences small */

    for (size_t i = 0; i < BLOCK_LEN; i++, mixed /= 64)
        out[i] = (char)('0' + mixed % 64);
}

static int by_hash(const void *a, const void *b)
{
    const candidate *x = a, *y = b;

    return x->hash != y->hash ? (x->hash < y->hash ? -1 : 1) : 0;
}

/* Two blocks that lead from state h to the same state: a birthday search.  Joining stages doubles the names each time. */
static uint32_t find_pair(uint32_t h, candidate *c, char pair[2][BLOCK_LEN])
{
    for (uint32_t i = 0; i < CANDIDATES; i++) {
        char text[BLOCK_LEN];

        block_text(i, text);
        c[i] = (candidate){ fnv(h, text, BLOCK_LEN), i };
    }
    qsort(c, CANDIDATES, sizeof *c, by_hash);
    for (uint32_t i = 1; i < CANDIDATES; i++) {
        if (c[i].hash == c[i - 1].hash) {
            block_text(c[i].number, pair[0]);
            block_text(c[i - 1].number, pair[1]);
            return c[i].hash;
        }
    }
    return 0;
}

static void names_made_to_collide_are_refused(void **state)
{
    char pairs[COLLIDING_STAGES][2][BLOCK_LEN];
    candidate *c = malloc(CANDIDATES * sizeof *c);
    sluice_error err = SLUICE_ERROR_INIT;
    uint32_t h = 2166136261u;
    sluice_gguf_writer w;
    sluice_gguf *g;
    sluice_buf b;

    (void)state;
    assert_non_null(c);
    for (size_t i = 0; i < COLLIDING_STAGES; i++) {
        h = find_pair(h, c, pairs[i]);
        assert_int_not_equal(h, 0);
    }
    free(c);
    sluice_buf_init(&b, NULL, FILE_MAX);
    sluice_gguf_writer_init(&w, NULL, FILE_MAX);
    for (unsigned n = 0; n < 1u << COLLIDING_STAGES; n++) {
        char name[COLLIDING_STAGES * BLOCK_LEN + 1] = { 0 };

        for (size_t i = 0; i < COLLIDING_STAGES; i++)
            memcpy(name + i * BLOCK_LEN, pairs[i][n >> i & 1], BLOCK_LEN);
        assert_true(fnv(2166136261u, name, COLLIDING_STAGES * BLOCK_LEN) == h);
        sluice_gguf_put_u32(&w, name, n);
    }
    assert_true(sluice_gguf_writer_finish(&w, &b));
    assert_int_equal(sluice_gguf_open_span(&g, sluice_buf_span(&b), NULL, &err), SLUICE_ERR_FORMAT);
    assert_non_null(strstr(err.message, "collide"));
    sluice_gguf_writer_deinit(&w);
    sluice_buf_deinit(&b);
}

/* ---- bad files, all at once ------------------------------------------------------------------------------ */

/* Everything that this half does with a file: open it, ask for every value and tensor, tokenize, render. */
static bool use_file(sluice_span bytes)
{
    static const sluice_engine_message message = { "user", { (const uint8_t *)" ab a[x]c<s>[tool] A", 20 } };
    sluice_error err = SLUICE_ERROR_INIT;
    volatile uint8_t sum = 0;
    sluice_tokenizer *t = NULL;
    sluice_gguf *g = NULL;
    sluice_prompt prompt;
    uint8_t *block;
    sluice_status st = open_exact(&g, bytes, &block, &err);

    if (st == SLUICE_OK) {
        for (size_t i = 0; i < sluice_gguf_n_tensors(g); i++) {
            const sluice_gguf_tensor *x = sluice_gguf_tensor_at(g, i);

            for (size_t j = 0; j < x->bytes; j++)
                sum = (uint8_t)(sum + ((const uint8_t *)x->data)[j]);
        }
        st = sluice_tokenizer_open(&t, g, NULL, &err);
    }
    if (st == SLUICE_OK) {
        int32_t tokens[64];
        size_t n = 64;

        if (sluice_tokenizer_encode(t, message.text, true, tokens, &n, &err) == SLUICE_OK)
            for (size_t i = 0; i < n; i++)
                sum = (uint8_t)(sum + sluice_tokenizer_bytes(t, tokens[i]).len);
        n = 64;
        if (sluice_prompt_init(&prompt, g, t, &err) == SLUICE_OK)
            (void)sluice_prompt_render(&prompt, t, &message, 1, tokens, &n, &err);
    } else {
        assert_int_equal(err.status, st);
        assert_int_not_equal(err.message[0], '\0');
    }
    sluice_tokenizer_close(t);
    sluice_gguf_close(g);
    free(block);
    return st == SLUICE_OK;
}

static void every_prefix_of_a_file_ends_in_a_status(void **state)
{
    void (*const samples[])(sluice_buf *) = { sample_spm_small, sample_bpe_small };

    (void)state;
    for (size_t s = 0; s < 2; s++) {
        size_t n_good = 0;
        sluice_buf b;

        sluice_buf_init(&b, NULL, FILE_MAX);
        samples[s](&b);
        assert_true(use_file(sluice_buf_span(&b)));
        for (size_t n = 0; n < b.len; n++)
            n_good += use_file(sluice_span_of(b.ptr, n));
        assert_true(n_good < 32); /* all but the padding after the last tensor is needed */
        sluice_buf_deinit(&b);
    }
}

static void every_changed_byte_of_a_file_ends_in_a_status(void **state)
{
    static const uint8_t flips[] = { 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff, 0x7f };
    void (*const samples[])(sluice_buf *) = { sample_spm_small, sample_bpe_small };
    size_t n_bad = 0;

    (void)state;
    for (size_t s = 0; s < 2; s++) {
        sluice_buf b;

        sluice_buf_init(&b, NULL, FILE_MAX);
        samples[s](&b);
        for (size_t i = 0; i < b.len; i++) {
            uint8_t was = b.ptr[i];

            for (size_t f = 0; f < sizeof flips; f++) {
                b.ptr[i] = (uint8_t)(was ^ flips[f]);
                n_bad += !use_file(sluice_buf_span(&b));
            }
            b.ptr[i] = was;
        }
        sluice_buf_deinit(&b);
    }
    assert_true(n_bad > 1000);
}

/* Two fields at a time: every 8-byte word of the file becomes an extreme number, in every second place after it too. */
static void every_word_made_extreme_ends_in_a_status(void **state)
{
    static const uint64_t extremes[] = { 0, 1, 0x7fffffffffffffffu, 0x8000000000000000u, UINT64_MAX, UINT64_MAX - 7, 1ull << 32, 0xffffffffu };
    sluice_buf b;

    (void)state;
    sluice_buf_init(&b, NULL, FILE_MAX);
    sample_spm_small(&b);
    for (size_t i = 0; i + 8 <= b.len; i++) {
        uint8_t was[8];

        memcpy(was, b.ptr + i, 8);
        for (size_t x = 0; x < sizeof extremes / sizeof extremes[0]; x++) {
            for (size_t k = 0; k < 8; k++)
                b.ptr[i + k] = (uint8_t)(extremes[x] >> 8 * k);
            (void)use_file(sluice_buf_span(&b));
        }
        memcpy(b.ptr + i, was, 8);
    }
    assert_true(use_file(sluice_buf_span(&b)));
    sluice_buf_deinit(&b);
}

/* ---- files and memory ------------------------------------------------------------------------------------ */

static void a_file_is_mapped_and_errors_name_it(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;
    const sluice_platform *p = sluice_platform_default();
    fake_platform fp;
    sluice_gguf *g;
    sluice_buf b;
    temp_dir d;

    (void)state;
    temp_dir_open(&d);
    sluice_buf_init(&b, NULL, FILE_MAX);
    sample_spm_small(&b);
    assert_int_equal(sluice_platform_write_file(p, temp_dir_file(&d, "good.gguf"), sluice_buf_span(&b), &err), SLUICE_OK);
    assert_int_equal(sluice_platform_write_file(p, temp_dir_file(&d, "bad.gguf"), sluice_span_of(b.ptr, 100), &err), SLUICE_OK);
    assert_int_equal(sluice_platform_write_file(p, temp_dir_file(&d, "empty.gguf"), SLUICE_SPAN_EMPTY, &err), SLUICE_OK);
    assert_int_equal(sluice_gguf_open(&g, temp_dir_file(&d, "good.gguf"), p, NULL, &err), SLUICE_OK);
    assert_int_equal(sluice_gguf_n_tensors(g), 3);
    assert_int_equal((uintptr_t)sluice_gguf_tensor_at(g, 0)->data % 32, 0);
    sluice_gguf_close(g);
    assert_int_equal(sluice_gguf_open(&g, temp_dir_file(&d, "bad.gguf"), p, NULL, &err), SLUICE_ERR_FORMAT);
    assert_null(g);
    assert_non_null(strstr(err.where, "bad.gguf"));
    assert_int_equal(sluice_gguf_open(&g, temp_dir_file(&d, "empty.gguf"), p, NULL, &err), SLUICE_ERR_FORMAT);
    assert_int_equal(sluice_gguf_open(&g, temp_dir_file(&d, "missing.gguf"), p, NULL, &err), SLUICE_ERR_NOT_FOUND);
    assert_null(g);
    fake_platform_init(&fp, 1);
    fake_platform_fail(&fp, FAKE_MAP, 0);
    assert_int_not_equal(sluice_gguf_open(&g, temp_dir_file(&d, "good.gguf"), &fp.platform, NULL, &err), SLUICE_OK);
    assert_null(g);
    fake_platform_deinit(&fp);
    sluice_buf_deinit(&b);
    temp_dir_close(&d);
}

static sluice_status open_once(const sluice_allocator *al, void *user)
{
    sluice_buf *b = user;
    sluice_gguf *g = (sluice_gguf *)(uintptr_t)1;
    sluice_status st = sluice_gguf_open_span(&g, sluice_buf_span(b), al, NULL);

    if (st != SLUICE_OK)
        assert_null(g);
    sluice_gguf_close(g);
    return st;
}

static void every_failed_allocation_is_no_memory(void **state)
{
    size_t n;
    sluice_buf b;

    (void)state;
    sluice_buf_init(&b, NULL, FILE_MAX);
    sample_spm_small(&b);
    n = fake_allocator_sweep(open_once, &b);
    assert_true(n != SIZE_MAX && n >= 5);
    sluice_buf_deinit(&b);
}

static void row_sizes_are_checked(void **state)
{
    uint32_t n_elements = 0, n_bytes = 0;
    uint64_t bytes = 7;

    (void)state;
    assert_true(sluice_tensor_row_bytes(SLUICE_TENSOR_Q4_0, 64, &bytes));
    assert_int_equal(bytes, 36);
    assert_false(sluice_tensor_row_bytes(SLUICE_TENSOR_Q4_0, 63, &bytes));
    assert_false(sluice_tensor_row_bytes(4, 64, &bytes));
    assert_false(sluice_tensor_row_bytes(SLUICE_TENSOR_F32, 1ull << 62, &bytes));
    assert_true(sluice_tensor_type_block(SLUICE_TENSOR_Q8_0, &n_elements, &n_bytes));
    assert_int_equal(n_elements, 32);
    assert_int_equal(n_bytes, 34);
    assert_string_equal(sluice_tensor_type_name(12), "Q4_K");
    assert_string_equal(sluice_tensor_type_name(4), "unknown");
    assert_string_equal(sluice_tensor_type_name(UINT32_MAX), "unknown");
    assert_string_equal(sluice_gguf_file_type_name(7), "Q8_0");
    assert_string_equal(sluice_gguf_file_type_name(UINT32_MAX), "unknown");
    assert_true(sluice_tensor_type_is_supported(12));
    assert_false(sluice_tensor_type_is_supported(34));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_file_gives_every_value_and_tensor),   cmocka_unit_test(getters_check_type_and_range_and_name_the_key),
        cmocka_unit_test(bad_files_are_refused_with_their_place),   cmocka_unit_test(other_files_are_not_gguf),
        cmocka_unit_test(version_2_reads_like_version_3),           cmocka_unit_test(not_finite_numbers_are_refused),
        cmocka_unit_test(a_known_type_without_kernels_opens_but_is_not_given_out),   cmocka_unit_test(names_made_to_collide_are_refused),
        cmocka_unit_test(every_prefix_of_a_file_ends_in_a_status),  cmocka_unit_test(every_changed_byte_of_a_file_ends_in_a_status),
        cmocka_unit_test(every_word_made_extreme_ends_in_a_status), cmocka_unit_test(a_file_is_mapped_and_errors_name_it),
        cmocka_unit_test(every_failed_allocation_is_no_memory),     cmocka_unit_test(row_sizes_are_checked),
    };

    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
