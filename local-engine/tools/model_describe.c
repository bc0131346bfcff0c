/* model_describe.c - a model file in a dozen lines for people.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "local-engine/engine.h"
#include "local-engine/prompt.h"
#include "local-engine/tools/mix.h"
#include "local-engine/tools/model_tools.h"

enum { TEXT_BYTES_MAX = 16 << 20, TYPES = 64, NAME_SHOWN = 120 };

/* Failures stick: the end answers for all. */
typedef struct page {
    sluice_buf text;
    bool is_whole;
} page;

static void put_span(page *b, sluice_span s)
{
    b->is_whole = b->is_whole && sluice_buf_append_span(&b->text, s);
}

static void put(page *b, const char *fmt, ...) SLUICE_PRINTF(2, 3);

static void put(page *b, const char *fmt, ...)
{
    char line[1024]; /* a message and a name fit */
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    put_span(b, sluice_span_str(line));
}

/* "1.23 GiB", "456.7 MiB", "12 KiB" */
typedef struct size_text {
    char text[32];
} size_text;

static size_text size_of(uint64_t bytes)
{
    size_text s;

    if (bytes >= UINT64_C(1) << 30)
        (void)snprintf(s.text, sizeof s.text, "%.2f GiB", (double)bytes / (1 << 30));
    else if (bytes >= 1 << 20)
        (void)snprintf(s.text, sizeof s.text, "%.1f MiB", (double)bytes / (1 << 20));
    else if (bytes >= 1 << 10)
        (void)snprintf(s.text, sizeof s.text, "%.1f KiB", (double)bytes / (1 << 10));
    else
        (void)snprintf(s.text, sizeof s.text, "%" PRIu64 " bytes", bytes);
    return s;
}

/* "1.24 B", "134.5 M", "78" */
static size_text count_of(uint64_t n)
{
    size_text s;

    if (n >= UINT64_C(1000000000))
        (void)snprintf(s.text, sizeof s.text, "%.2f B", (double)n / 1e9);
    else if (n >= 1000000)
        (void)snprintf(s.text, sizeof s.text, "%.1f M", (double)n / 1e6);
    else if (n >= 10000)
        (void)snprintf(s.text, sizeof s.text, "%.1f K", (double)n / 1e3);
    else
        (void)snprintf(s.text, sizeof s.text, "%" PRIu64, n);
    return s;
}

static void label(page *b, const char *name)
{
    put(b, "  %-14s", name);
}

static sluice_span text_of(const sluice_gguf *g, const char *key)
{
    sluice_span s = SLUICE_SPAN_EMPTY;

    (void)sluice_gguf_opt_string(g, key, &s, NULL);
    if (s.len > NAME_SHOWN)
        s.len = sluice_utf8_whole(sluice_span_of(s.ptr, NAME_SHOWN));
    return s;
}

/* A number of the architecture; 0 where there is none, or one for each layer. */
static uint32_t number_of(const sluice_gguf *g, sluice_span architecture, const char *name)
{
    char key[SLUICE_GGUF_MAX_NAME_BYTES + 64];
    uint32_t n = 0;

    (void)snprintf(key, sizeof key, "%.*s.%s", (int)architecture.len, (const char *)architecture.ptr, name);
    (void)sluice_gguf_opt_u32(g, key, &n, NULL);
    return n;
}

static void put_shape(page *b, const sluice_gguf *g)
{
    static const struct { const char *key, *before, *after; } parts[] = {
        { "block_count", ", ", " layers" },
        { "embedding_length", ", width ", "" },
        { "feed_forward_length", ", feed-forward ", "" },
        { "attention.head_count", ", ", " heads" },
        { "attention.head_count_kv", " on ", " key-value heads" },
        { "expert_count", ", ", " experts" },
        { "expert_used_count", " of which ", " at a time" },
    };
    const sluice_span architecture = text_of(g, "general.architecture");
    const uint32_t context = number_of(g, architecture, "context_length");

    label(b, "architecture");
    put_span(b, architecture.len > 0 ? architecture : SLUICE_SPAN_LIT("not said"));
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const uint32_t n = number_of(g, architecture, parts[i].key);

        if (n > 0)
            put(b, "%s%" PRIu32 "%s", parts[i].before, n, parts[i].after);
    }
    put(b, "\n");
    if (context > 0) {
        label(b, "trained for");
        put(b, "%" PRIu32 " tokens of context\n", context);
    }
}

static void put_types(page *b, const sluice_gguf *g)
{
    uint64_t n_tensors[TYPES] = { 0 }, n_weights[TYPES] = { 0 }, n_bytes[TYPES] = { 0 }, all_weights = 0, all_bytes = 0;
    uint32_t file_type = UINT32_MAX;
    bool is_first = true;

    for (size_t i = 0; i < sluice_gguf_n_tensors(g); i++) {
        const sluice_gguf_tensor *t = sluice_gguf_tensor_at(g, i);
        const uint64_t n = t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
        const uint32_t type = t->type < TYPES ? t->type : TYPES - 1;

        n_tensors[type]++;
        n_weights[type] += n;
        n_bytes[type] += t->bytes;
        all_weights += n;
        all_bytes += t->bytes;
    }
    label(b, "parameters");
    put(b, "%s in %zu tensors", count_of(all_weights).text, sluice_gguf_n_tensors(g));
    if (all_weights > 0)
        put(b, ", %.2f bits each", 8.0 * (double)all_bytes / (double)all_weights);
    put(b, "\n");
    if (sluice_gguf_get_u32(g, "general.file_type", &file_type, NULL) == SLUICE_OK) {
        label(b, "made as");
        put(b, "%s\n", sluice_gguf_file_type_name(file_type));
    }
    for (uint32_t type = 0; type < TYPES; type++) {
        if (n_tensors[type] == 0)
            continue;
        label(b, is_first ? "types" : "");
        is_first = false;
        put(b, "%-8s %6" PRIu64 " tensors  %9s weights  %10s  %3.0f %%\n", sluice_tensor_type_name(type), n_tensors[type],
                                 count_of(n_weights[type]).text, size_of(n_bytes[type]).text, 100.0 * (double)n_bytes[type] / (double)all_bytes);
    }
}

/* Returns SLUICE_ERR_NO_MEMORY; whatever else is wrong stands in the text. */
static sluice_status put_text_half(page *b, const sluice_gguf *g, const sluice_allocator *al, sluice_error *err)
{
    sluice_error e = SLUICE_ERROR_INIT;
    const sluice_span pre = text_of(g, "tokenizer.ggml.pre");
    sluice_prompt prompt;
    sluice_tokenizer *t = NULL;
    sluice_status st = sluice_tokenizer_open(&t, g, al, &e);

    memset(&prompt, 0, sizeof prompt);
    label(b, "tokenizer");
    if (st == SLUICE_OK) {
        put(b, "%s%s", sluice_tokenizer_kind(t), pre.len > 0 ? " (" : "");
        put_span(b, pre);
        put(b, "%s, %" PRIu32 " tokens\n", pre.len > 0 ? ")" : "", sluice_tokenizer_n_vocab(t));
        st = sluice_prompt_init(&prompt, g, t, &e);
        label(b, "prompt format");
    }
    if (st == SLUICE_OK)
        put(b, "%s%s\n", sluice_prompt_format_name(prompt.format),
                                 prompt.format == SLUICE_PROMPT_UNKNOWN ? ": a chat template of no family that this build has" : "");
    else
        put(b, "%s\n", e.message);
    sluice_tokenizer_close(t);
    return st == SLUICE_ERR_NO_MEMORY ? sluice_error_set(err, st, "%s", e.message) : SLUICE_OK;
}

static sluice_status put_memory(page *b, const char *path, const sluice_platform *platform, const sluice_allocator *al, sluice_error *err)
{
    sluice_error e = SLUICE_ERROR_INIT;
    sluice_engine_options options;
    sluice_engine_estimate need;
    sluice_status st;

    sluice_engine_options_init(&options);
    st = sluice_engine_estimate_memory(&need, path, &options, platform, al, &e);
    if (st == SLUICE_ERR_NO_MEMORY)
        return sluice_error_set(err, st, "%s", e.message);
    label(b, st == SLUICE_OK ? "memory" : "does not run");
    if (st != SLUICE_OK)
        put(b, "%s\n", e.message);
    else
        put(b, "%s with %" PRIu32 " tokens of context: %s of the file, %s KV cache, %s scratch\n", size_of(need.total_bytes).text,
                                 need.context_tokens, size_of(need.touched_bytes).text, size_of(need.kv_bytes).text, size_of(need.scratch_bytes).text);
    return SLUICE_OK;
}

static void put_tensors(page *b, const sluice_gguf *g)
{
    size_t widest = 4;

    for (size_t i = 0; i < sluice_gguf_n_tensors(g); i++)
        if (sluice_gguf_tensor_at(g, i)->name.len > widest)
            widest = sluice_gguf_tensor_at(g, i)->name.len;
    put(b, "\n  %-*s  %-7s  %10s  shape\n", (int)widest, "tensor", "type", "size");
    for (size_t i = 0; i < sluice_gguf_n_tensors(g); i++) {
        const sluice_gguf_tensor *t = sluice_gguf_tensor_at(g, i);

        put(b, "  %-*.*s  %-7s  %10s  %" PRIu64, (int)widest, (int)t->name.len, (const char *)t->name.ptr,
                                 sluice_tensor_type_name(t->type), size_of(t->bytes).text, t->ne[0]);
        for (uint32_t d = 1; d < t->n_dims; d++)
            put(b, " x %" PRIu64, t->ne[d]);
        put(b, "\n");
    }
}

static sluice_status describe(page *b, const sluice_gguf *g, const char *path, bool with_tensors, const sluice_platform *platform,
                              const sluice_allocator *al, sluice_error *err)
{
    const sluice_span name = text_of(g, "general.name");
    sluice_status st;

    put_span(b, name.len > 0 ? name : SLUICE_SPAN_LIT("a model without a name"));
    put(b, "\n");
    label(b, "file");
    put(b, "GGUF %" PRIu32 ", %s\n", sluice_gguf_version(g), size_of(sluice_gguf_bytes(g).len).text);
    put_shape(b, g);
    put_types(b, g);
    st = put_text_half(b, g, al, err);
    if (st == SLUICE_OK)
        st = put_memory(b, path, platform, al, err);
    if (st == SLUICE_OK && with_tensors)
        put_tensors(b, g);
    return st;
}

sluice_status sluice_model_describe(const char *path, bool with_tensors, const sluice_platform *platform, const sluice_allocator *al, char **text,
                                    sluice_error *err)
{
    sluice_gguf *g = NULL;
    page b = { .is_whole = true };
    sluice_status st;

    *text = NULL;
    sluice_buf_init(&b.text, al, TEXT_BYTES_MAX);
    st = sluice_gguf_open(&g, path, platform, al, err);
    if (st == SLUICE_OK)
        st = describe(&b, g, path, with_tensors, platform, al, err);
    else
        sluice_error_where(err, path);
    if (st == SLUICE_OK && !b.is_whole)
        st = sluice_buf_error(&b.text, "the description of the model", err);
    if (st == SLUICE_OK) {
        *text = sluice_buf_take_str(&b.text);
        if (*text == NULL)
            st = sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "inspect: no memory for the description");
    }
    sluice_buf_deinit(&b.text);
    sluice_gguf_close(g);
    return st;
}

void sluice_model_text_free(const sluice_allocator *al, char *text)
{
    if (text != NULL)
        sluice_str_free(al, text);
}
