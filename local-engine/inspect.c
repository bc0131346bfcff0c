/* inspect.c - describe a model file as JSON, without loading it.
 *
 * What the file says (metadata, tensors, how many weights of which type), what this build makes of it (tokenizer, prompt format, memory that opening
 * takes), and what stands in the way of running it ("problems", and under "memory" what opening would say).  Long strings and arrays are summarised.
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

/* Of the tensors of one type; TYPES: of all. */
enum { TYPES = 64 };

typedef struct amount {
    uint64_t n_tensors, n_parameters, n_bytes;
} amount;

static amount amount_of(const sluice_gguf *g, uint32_t type)
{
    amount a = { 0, 0, 0 };

    for (size_t i = 0; i < sluice_gguf_n_tensors(g); i++) {
        const sluice_gguf_tensor *t = sluice_gguf_tensor_at(g, i);

        if (type != TYPES && t->type != type)
            continue;
        a.n_tensors++;
        a.n_parameters += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]; /* all of them lie in the file, with half a bit each at least: no overflow */
        a.n_bytes += t->bytes;
    }
    return a;
}

static void write_types(sluice_json_writer *w, const sluice_gguf *g)
{
    sluice_json_array_open(w, "types");
    for (uint32_t type = 0; type < TYPES; type++) {
        const amount a = amount_of(g, type);

        if (a.n_tensors == 0)
            continue;
        sluice_json_object_open(w, NULL);
        sluice_json_str(w, "type", sluice_tensor_type_name(type));
        sluice_json_uint(w, "n_tensors", a.n_tensors);
        sluice_json_uint(w, "n_parameters", a.n_parameters);
        sluice_json_uint(w, "bytes", a.n_bytes);
        sluice_json_object_close(w);
    }
    sluice_json_array_close(w);
}

/* What opening would take with the context that the engine chooses by itself; or why it would not open. */
static sluice_status write_memory(sluice_json_writer *w, const char *path, const sluice_platform *platform, const sluice_allocator *al, sluice_error *err)
{
    sluice_error problem = SLUICE_ERROR_INIT;
    sluice_engine_options options;
    sluice_engine_estimate need;
    sluice_status st;

    sluice_engine_options_init(&options);
    st = sluice_engine_estimate_memory(&need, path, &options, platform, al, &problem);
    if (st == SLUICE_ERR_NO_MEMORY)
        return sluice_error_set(err, st, "%s", problem.message);
    sluice_json_object_open(w, "memory");
    if (st == SLUICE_OK) {
        sluice_json_uint(w, "context_tokens", need.context_tokens);
        sluice_json_uint(w, "mapped_bytes", need.mapped_bytes);
        sluice_json_uint(w, "touched_bytes", need.touched_bytes);
        sluice_json_uint(w, "kv_bytes", need.kv_bytes);
        sluice_json_uint(w, "scratch_bytes", need.scratch_bytes);
        sluice_json_uint(w, "total_bytes", need.total_bytes);
    } else {
        sluice_json_str(w, "problem", problem.message);
    }
    sluice_json_object_close(w);
    return SLUICE_OK;
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
    sluice_prompt prompt;
    sluice_tokenizer *t = NULL;
    sluice_status st = sluice_tokenizer_open(&t, g, al, problem);

    memset(&prompt, 0, sizeof prompt);
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
    const amount all = amount_of(g, TYPES);
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
    sluice_json_uint(w, "n_parameters", all.n_parameters);
    if (all.n_parameters > 0)
        sluice_json_num(w, "bits_per_weight", 8.0 * (double)all.n_bytes / (double)all.n_parameters, 3);
    sluice_json_uint(w, "n_tensors", all.n_tensors);
    write_types(w, g);
}

static sluice_status describe(const sluice_gguf *g, const char *path, const sluice_platform *platform, const sluice_allocator *al, sluice_buf *json,
                              sluice_error *err)
{
    sluice_error problem = SLUICE_ERROR_INIT;
    sluice_json_writer w;
    sluice_status st;

    sluice_json_begin(&w, json);
    sluice_json_object_open(&w, NULL);
    write_head(&w, g);
    if (write_text_half(&w, g, al, &problem) == SLUICE_ERR_NO_MEMORY)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "%s", problem.message);
    write_problems(&w, g, &problem);
    st = write_memory(&w, path, platform, al, err);
    if (st != SLUICE_OK)
        return st;
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
        st = describe(g, path, platform, al, json, err);
    sluice_gguf_close(g);
    if (st != SLUICE_OK)
        sluice_buf_clear(json);
    return st;
}
