/* inspect.c - describe a model file as JSON, without loading it.
 *
 * What the file says (metadata, tensors), what this build makes of it (tokenizer, prompt format), and what stands in the way of
 * running it ("problems").  Long strings and arrays are summarised.  Whether the architecture can run is the model's business: it
 * reads the same metadata when the engine opens.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>

#include "local-engine/engine.h"
#include "local-engine/gguf.h"
#include "local-engine/prompt.h"
#include "local-engine/tokenizer.h"
#include "sdk/base/json.h"

enum { STRING_SHOWN_BYTES = 256 };

/* Keys and tensor names are checked printable ASCII of at most SLUICE_GGUF_MAX_NAME_BYTES. */
typedef struct name_text {
    char text[SLUICE_GGUF_MAX_NAME_BYTES + 1];
} name_text;

static name_text name_of(sluice_span s)
{
    name_text n = { "" };

    memcpy(n.text, s.ptr, s.len);
    return n;
}

static void write_string(sluice_json_writer *w, const char *key, sluice_span s)
{
    if (s.len > STRING_SHOWN_BYTES)
        s.len = sluice_utf8_whole(sluice_span_of(s.ptr, STRING_SHOWN_BYTES));
    sluice_json_span(w, key, s);
}

static void write_value(sluice_json_writer *w, const sluice_gguf *g, const sluice_gguf_value *v)
{
    name_text key = name_of(v->key);
    int32_t i32 = 0;
    uint64_t u64 = 0;
    float f32 = 0;
    bool b = false;

    switch (v->type) {
    case SLUICE_GGUF_STRING: write_string(w, key.text, v->data); break;
    case SLUICE_GGUF_ARRAY:
        sluice_json_object_open(w, key.text);
        sluice_json_str(w, "array_of", sluice_gguf_value_type_name(v->item_type));
        sluice_json_uint(w, "count", v->count);
        sluice_json_object_close(w);
        break;
    case SLUICE_GGUF_F32:
    case SLUICE_GGUF_F64:
        sluice_json_num(w, key.text, sluice_gguf_get_f32(g, key.text, &f32, NULL) == SLUICE_OK ? (double)f32 : (double)INFINITY, -1);
        break;
    case SLUICE_GGUF_BOOL:
        (void)sluice_gguf_get_bool(g, key.text, &b, NULL);
        sluice_json_bool(w, key.text, b);
        break;
    default:
        if (sluice_gguf_get_u64(g, key.text, &u64, NULL) == SLUICE_OK)
            sluice_json_uint(w, key.text, u64);
        else if (sluice_gguf_get_i32(g, key.text, &i32, NULL) == SLUICE_OK)
            sluice_json_int(w, key.text, i32);
        else
            sluice_json_str(w, key.text, NULL);
        break;
    }
}

static uint64_t count_parameters(const sluice_gguf *g)
{
    uint64_t n = 0, each;

    for (size_t i = 0; i < sluice_gguf_n_tensors(g); i++) {
        const sluice_gguf_tensor *t = sluice_gguf_tensor_at(g, i);

        each = t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]; /* fits int64, and all together fit the file times 16 */
        if (!sluice_add_u64(n, each, &n))
            return UINT64_MAX;
    }
    return n;
}

static void write_tensors(sluice_json_writer *w, const sluice_gguf *g)
{
    sluice_json_array_open(w, "tensors");
    for (size_t i = 0; i < sluice_gguf_n_tensors(g); i++) {
        const sluice_gguf_tensor *t = sluice_gguf_tensor_at(g, i);
        name_text name = name_of(t->name);

        sluice_json_object_open(w, NULL);
        sluice_json_str(w, "name", name.text);
        sluice_json_str(w, "type", sluice_tensor_type_name(t->type));
        sluice_json_array_open(w, "shape"); /* row length first, as in the file */
        for (uint32_t d = 0; d < t->n_dims; d++)
            sluice_json_uint(w, NULL, t->ne[d]);
        sluice_json_array_close(w);
        sluice_json_uint(w, "offset", t->offset);
        sluice_json_uint(w, "bytes", t->bytes);
        sluice_json_object_close(w);
    }
    sluice_json_array_close(w);
}

static void write_tokenizer(sluice_json_writer *w, const sluice_gguf *g, const sluice_tokenizer *t)
{
    static const struct {
        const char *name;
        int32_t (*id)(const sluice_tokenizer *);
    } ids[] = { { "bos", sluice_tokenizer_bos }, { "eos", sluice_tokenizer_eos }, { "eot", sluice_tokenizer_eot } };

    sluice_json_object_open(w, "tokenizer");
    sluice_json_str(w, "kind", sluice_tokenizer_kind(t));
    sluice_json_uint(w, "n_vocab", sluice_tokenizer_n_vocab(t));
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++)
        if (ids[i].id(t) != SLUICE_TOKEN_NONE)
            sluice_json_int(w, ids[i].name, ids[i].id(t));
    sluice_json_bool(w, "adds_bos", sluice_tokenizer_wants_bos(t));
    sluice_json_uint(w, "memory_bytes_max", sluice_tokenizer_estimate_bytes(g));
    sluice_json_object_close(w);
}

/* The tokenizer and the prompt format, or why not. */
static sluice_status write_text_half(sluice_json_writer *w, const sluice_gguf *g, const sluice_allocator *al, sluice_error *problem)
{
    sluice_prompt prompt = { SLUICE_PROMPT_UNKNOWN, SLUICE_TOKEN_NONE, SLUICE_TOKEN_NONE, SLUICE_TOKEN_NONE };
    sluice_tokenizer *t = NULL;
    sluice_status st = sluice_tokenizer_open(&t, g, al, problem);

    if (st == SLUICE_OK) {
        write_tokenizer(w, g, t);
        st = sluice_prompt_init(&prompt, g, t, problem);
        if (st == SLUICE_OK)
            sluice_json_str(w, "prompt_format", sluice_prompt_format_name(prompt.format));
    }
    sluice_tokenizer_close(t);
    if (st == SLUICE_OK && prompt.format == SLUICE_PROMPT_UNKNOWN)
        (void)sluice_error_set(problem, SLUICE_ERR_UNSUPPORTED, "prompt: the model has a prompt format that this build does not know");
    return st;
}

static void write_problems(sluice_json_writer *w, const sluice_gguf *g, const sluice_error *text_problem)
{
    sluice_json_array_open(w, "problems");
    if (text_problem->status != SLUICE_OK)
        sluice_json_str(w, NULL, text_problem->message);
    for (size_t i = 0; i < sluice_gguf_n_tensors(g); i++) {
        name_text name = name_of(sluice_gguf_tensor_at(g, i)->name);
        sluice_error e = SLUICE_ERROR_INIT;
        const sluice_gguf_tensor *t;

        if (sluice_gguf_tensor_get(g, name.text, &t, &e) != SLUICE_OK) {
            sluice_json_str(w, NULL, e.message); /* the first is enough */
            break;
        }
    }
    sluice_json_array_close(w);
}

static void write_head(sluice_json_writer *w, const sluice_gguf *g)
{
    sluice_span text = SLUICE_SPAN_EMPTY;
    uint32_t file_type = UINT32_MAX;

    sluice_json_str(w, "format", "gguf");
    sluice_json_uint(w, "version", sluice_gguf_version(g));
    sluice_json_uint(w, "file_bytes", sluice_gguf_bytes(g).len);
    sluice_json_uint(w, "alignment", sluice_gguf_alignment(g));
    sluice_json_uint(w, "data_offset", sluice_gguf_data_offset(g));
    if (sluice_gguf_get_string(g, "general.architecture", &text, NULL) == SLUICE_OK)
        write_string(w, "architecture", text);
    if (sluice_gguf_get_string(g, "general.name", &text, NULL) == SLUICE_OK)
        write_string(w, "name", text);
    if (sluice_gguf_get_u32(g, "general.file_type", &file_type, NULL) == SLUICE_OK)
        sluice_json_str(w, "file_type", sluice_gguf_file_type_name(file_type));
    sluice_json_uint(w, "n_parameters", count_parameters(g));
    sluice_json_uint(w, "n_tensors", sluice_gguf_n_tensors(g));
}

static sluice_status describe(const sluice_gguf *g, const sluice_allocator *al, sluice_buf *json, sluice_error *err)
{
    sluice_error problem = SLUICE_ERROR_INIT;
    sluice_json_writer w;

    sluice_json_begin(&w, json);
    sluice_json_object_open(&w, NULL);
    write_head(&w, g);
    if (write_text_half(&w, g, al, &problem) == SLUICE_ERR_NO_MEMORY)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "%s", problem.message);
    write_problems(&w, g, &problem);
    sluice_json_object_open(&w, "metadata");
    for (size_t i = 0; i < sluice_gguf_n_values(g); i++)
        write_value(&w, g, sluice_gguf_value_at(g, i));
    sluice_json_object_close(&w);
    write_tensors(&w, g);
    sluice_json_object_close(&w);
    return w.ok ? SLUICE_OK : sluice_buf_error(json, "the description of the model", err);
}

sluice_status sluice_engine_inspect(const char *path, const sluice_platform *platform, const sluice_allocator *al, sluice_buf *json,
                                    sluice_error *err)
{
    sluice_gguf *g = NULL;
    sluice_status st = sluice_gguf_open(&g, path, platform, al, err);

    if (st == SLUICE_OK)
        st = describe(g, al, json, err);
    sluice_gguf_close(g);
    if (st != SLUICE_OK)
        sluice_buf_clear(json);
    return st;
}
