/* gguf_write.c - build a GGUF file in memory.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/tools/gguf_write.h"

static bool put_u32(sluice_buf *b, uint32_t v)
{
    uint8_t bytes[4] = { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24) };

    return sluice_buf_append(b, bytes, sizeof bytes);
}

static bool put_u64(sluice_buf *b, uint64_t v)
{
    return put_u32(b, (uint32_t)v) && put_u32(b, (uint32_t)(v >> 32));
}

static bool put_text(sluice_buf *b, sluice_span s)
{
    return put_u64(b, s.len) && sluice_buf_append_span(b, s);
}

static bool pad(sluice_buf *b, uint32_t alignment)
{
    while (b->len % alignment != 0)
        if (!sluice_buf_append_byte(b, 0))
            return false;
    return true;
}

void sluice_gguf_writer_init(sluice_gguf_writer *w, const sluice_allocator *al, size_t max_bytes)
{
    sluice_buf_init(&w->values, al, max_bytes);
    sluice_buf_init(&w->table, al, max_bytes);
    sluice_buf_init(&w->data, al, max_bytes);
    w->n_values = w->n_tensors = 0;
    w->version = 3;
    w->alignment = 32;
    w->ok = true;
}

void sluice_gguf_writer_deinit(sluice_gguf_writer *w)
{
    sluice_buf_deinit(&w->values);
    sluice_buf_deinit(&w->table);
    sluice_buf_deinit(&w->data);
}

/* A key and its type number; the value follows. */
static void begin(sluice_gguf_writer *w, sluice_span key, uint32_t type)
{
    w->n_values++;
    w->ok = w->ok && put_text(&w->values, key) && put_u32(&w->values, type);
}

static void begin_array(sluice_gguf_writer *w, const char *key, uint32_t item_type, size_t n)
{
    begin(w, sluice_span_str(key), SLUICE_GGUF_ARRAY);
    w->ok = w->ok && put_u32(&w->values, item_type) && put_u64(&w->values, n);
}

void sluice_gguf_put_u32(sluice_gguf_writer *w, const char *key, uint32_t value)
{
    begin(w, sluice_span_str(key), SLUICE_GGUF_U32);
    w->ok = w->ok && put_u32(&w->values, value);
}

void sluice_gguf_put_i32(sluice_gguf_writer *w, const char *key, int32_t value)
{
    begin(w, sluice_span_str(key), SLUICE_GGUF_I32);
    w->ok = w->ok && put_u32(&w->values, (uint32_t)value);
}

static uint32_t float_bits(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    return bits;
}

void sluice_gguf_put_f32(sluice_gguf_writer *w, const char *key, float value)
{
    begin(w, sluice_span_str(key), SLUICE_GGUF_F32);
    w->ok = w->ok && put_u32(&w->values, float_bits(value));
}

void sluice_gguf_put_bool(sluice_gguf_writer *w, const char *key, bool value)
{
    begin(w, sluice_span_str(key), SLUICE_GGUF_BOOL);
    w->ok = w->ok && sluice_buf_append_byte(&w->values, value ? 1 : 0);
}

void sluice_gguf_put_string(sluice_gguf_writer *w, const char *key, const char *value)
{
    begin(w, sluice_span_str(key), SLUICE_GGUF_STRING);
    w->ok = w->ok && put_text(&w->values, sluice_span_str(value));
}

void sluice_gguf_put_strings(sluice_gguf_writer *w, const char *key, const sluice_span *items, size_t n)
{
    begin_array(w, key, SLUICE_GGUF_STRING, n);
    for (size_t i = 0; i < n; i++)
        w->ok = w->ok && put_text(&w->values, items[i]);
}

void sluice_gguf_put_f32s(sluice_gguf_writer *w, const char *key, const float *items, size_t n)
{
    begin_array(w, key, SLUICE_GGUF_F32, n);
    for (size_t i = 0; i < n; i++)
        w->ok = w->ok && put_u32(&w->values, float_bits(items[i]));
}

void sluice_gguf_put_i32s(sluice_gguf_writer *w, const char *key, const int32_t *items, size_t n)
{
    begin_array(w, key, SLUICE_GGUF_I32, n);
    for (size_t i = 0; i < n; i++)
        w->ok = w->ok && put_u32(&w->values, (uint32_t)items[i]);
}

void sluice_gguf_put_raw(sluice_gguf_writer *w, sluice_span key, uint32_t type, sluice_span payload)
{
    begin(w, key, type);
    w->ok = w->ok && sluice_buf_append_span(&w->values, payload);
}

void sluice_gguf_put_tensor_row(sluice_gguf_writer *w, sluice_span name, uint32_t type, uint32_t n_dims, const uint64_t *ne, uint64_t offset)
{
    w->n_tensors++;
    w->ok = w->ok && put_text(&w->table, name) && put_u32(&w->table, n_dims);
    for (uint32_t d = 0; d < n_dims && d < SLUICE_GGUF_MAX_DIMS; d++)
        w->ok = w->ok && put_u64(&w->table, ne[d]);
    w->ok = w->ok && put_u32(&w->table, type) && put_u64(&w->table, offset);
}

void sluice_gguf_put_tensor(sluice_gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *ne, const void *data,
                            size_t bytes)
{
    sluice_gguf_put_tensor_row(w, sluice_span_str(name), type, n_dims, ne, w->data.len);
    w->ok = w->ok && sluice_buf_append(&w->data, data, bytes) && pad(&w->data, w->alignment);
}

bool sluice_gguf_writer_finish(sluice_gguf_writer *w, sluice_buf *out)
{
    return w->ok && sluice_buf_append(out, "GGUF", 4) && put_u32(out, w->version) && put_u64(out, w->n_tensors) && put_u64(out, w->n_values) &&
           sluice_buf_append_span(out, sluice_buf_span(&w->values)) && sluice_buf_append_span(out, sluice_buf_span(&w->table)) &&
           (w->n_tensors == 0 || pad(out, w->alignment)) && sluice_buf_append_span(out, sluice_buf_span(&w->data));
}
