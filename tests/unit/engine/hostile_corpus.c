/* hostile_corpus.c - builds them: a valid file as lists of entries and tensors, one change, and the bytes of it.
 *
 * A change is a function and up to four operands, so that most cases are one line of the table at the end.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/unit/engine/hostile_corpus.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ITEMS_MAX = 64, ROWS_MAX = 32, NAME_MAX_BYTES = 300, FILE_BYTES_MAX = 32 << 20 };

typedef struct item {
    uint8_t key[NAME_MAX_BYTES];
    uint64_t key_len;           /* that are there */
    uint64_t key_says;          /* that the file speaks of */
    uint32_t type;
    sluice_buf value;           /* as it lies in the file */
} item;

typedef struct row {
    uint8_t name[NAME_MAX_BYTES];
    uint64_t name_len;
    uint32_t n_dims, type;
    uint64_t ne[SLUICE_GGUF_MAX_DIMS];
    uint64_t offset;
    size_t bytes;
} row;

typedef struct file {
    const char *magic;
    uint32_t version;
    item items[ITEMS_MAX];
    size_t n_items;
    row rows[ROWS_MAX];
    size_t n_rows;
    uint64_t data_bytes;
    uint64_t items_say, rows_say;       /* added to what the header says, wrapping around */
    uint64_t keep;                      /* bytes of the file, from the front */
    uint64_t drop;                      /* and from its end */
} file;

typedef struct recipe recipe;
typedef void (*change_fn)(file *f, const recipe *r);

struct recipe {
    hostile_case shown;
    change_fn change;
    const char *key, *text;
    uint64_t a, b;
};

static void must(bool ok)
{
    if (ok)
        return;
    fprintf(stderr, "hostile_corpus: no memory, or no such key\n");
    exit(1);
}

/* ---- bytes */

static void put_le(sluice_buf *b, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        must(sluice_buf_append_byte(b, (uint8_t)(v >> 8 * i)));
}

static void put_bytes(sluice_buf *b, const void *p, size_t n)
{
    must(sluice_buf_append(b, p, n));
}

static void put_text(sluice_buf *b, const char *s)
{
    put_le(b, strlen(s), 8);
    put_bytes(b, s, strlen(s));
}

static uint64_t bits_of(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* ---- entries */

static item *find(file *f, const char *key)
{
    for (size_t i = 0; i < f->n_items; i++)
        if (f->items[i].key_len == strlen(key) && memcmp(f->items[i].key, key, strlen(key)) == 0)
            return &f->items[i];
    return NULL;
}

static item *append(file *f, const char *key)
{
    item *x = &f->items[f->n_items];

    must(f->n_items < ITEMS_MAX && strlen(key) < NAME_MAX_BYTES);
    f->n_items++;
    memset(x, 0, sizeof *x);
    memcpy(x->key, key, strlen(key));
    x->key_len = x->key_says = strlen(key);
    sluice_buf_init(&x->value, NULL, FILE_BYTES_MAX);
    return x;
}

/* The entry of this key, empty, to be written anew. */
static sluice_buf *set(file *f, const char *key, uint32_t type)
{
    item *x = find(f, key);

    if (x == NULL)
        x = append(f, key);
    sluice_buf_clear(&x->value);
    x->type = type;
    return &x->value;
}

static sluice_buf *set_array(file *f, const char *key, uint32_t item_type, uint64_t count)
{
    sluice_buf *b = set(f, key, SLUICE_GGUF_ARRAY);

    put_le(b, item_type, 4);
    put_le(b, count, 8);
    return b;
}

static void set_u32(file *f, const char *key, uint32_t v)
{
    put_le(set(f, key, SLUICE_GGUF_U32), v, 4);
}

static void set_string(file *f, const char *key, const char *text)
{
    put_text(set(f, key, SLUICE_GGUF_STRING), text);
}

static void set_strings(file *f, const char *key, const char *const *texts, size_t n)
{
    sluice_buf *b = set_array(f, key, SLUICE_GGUF_STRING, n);

    for (size_t i = 0; i < n; i++)
        put_text(b, texts[i]);
}

static void set_types(file *f, const uint8_t *types, size_t n)
{
    sluice_buf *b = set_array(f, "tokenizer.ggml.token_type", SLUICE_GGUF_I32, n);

    for (size_t i = 0; i < n; i++)
        put_le(b, types[i], 4);
}

static void set_scores(file *f, size_t n)
{
    sluice_buf *b = set_array(f, "tokenizer.ggml.scores", SLUICE_GGUF_F32, n);

    for (size_t i = 0; i < n; i++)
        put_le(b, bits_of(-(float)i), 4);
}

/* ---- tensors */

static uint64_t bytes_of(uint32_t type, const uint64_t ne[SLUICE_GGUF_MAX_DIMS])
{
    uint64_t bytes = 0;

    must(sluice_tensor_row_bytes(type, ne[0], &bytes));
    return bytes * ne[1] * ne[2] * ne[3];
}

static row *add_tensor(file *f, const char *name, uint32_t type, uint64_t ne0, uint64_t ne1)
{
    row *t = &f->rows[f->n_rows];

    must(f->n_rows < ROWS_MAX && strlen(name) < NAME_MAX_BYTES);
    f->n_rows++;
    memset(t, 0, sizeof *t);
    memcpy(t->name, name, strlen(name));
    t->name_len = strlen(name);
    t->n_dims = ne1 == 1 ? 1 : 2;
    t->type = type;
    t->ne[0] = ne0;
    t->ne[1] = ne1;
    t->ne[2] = t->ne[3] = 1;
    t->bytes = (size_t)bytes_of(type, t->ne);
    t->offset = f->data_bytes;
    f->data_bytes += (t->bytes + 31) / 32 * 32;
    return t;
}

static row *find_tensor(file *f, const char *name)
{
    for (size_t i = 0; i < f->n_rows; i++)
        if (f->rows[i].name_len == strlen(name) && memcmp(f->rows[i].name, name, strlen(name)) == 0)
            return &f->rows[i];
    must(false);
    return NULL;
}

/* ---- the valid file */

#define MARK "\xe2\x96\x81"

static const char *const spm_tokens[HOSTILE_N_VOCAB] = { "<unk>", "<s>", "</s>", MARK, "a", "b", "c", "d",
                                                         "e", "ab", MARK "a", "cd", "<0x41>", "t", "u", "v" };
static const uint8_t spm_types[HOSTILE_N_VOCAB] = { 2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 6, 1, 1, 1 };
static const char *const bpe_tokens[HOSTILE_N_VOCAB] = { "<|end|>", "a", "b", "c", "d", "e", "\xc4\xa0", "ab", "cd", "abcd",
                                                         "\xc4\xa0\x61", "t", "u", "v", "w", "x" };
static const uint8_t bpe_types[HOSTILE_N_VOCAB] = { 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 };
static const char *const bpe_merges[] = { "a b", "c d", "ab cd", "\xc4\xa0 a" };

static void put_vocabulary(file *f)
{
    set_string(f, "tokenizer.ggml.model", "llama");
    set_strings(f, "tokenizer.ggml.tokens", spm_tokens, HOSTILE_N_VOCAB);
    set_scores(f, HOSTILE_N_VOCAB);
    set_types(f, spm_types, HOSTILE_N_VOCAB);
    set_u32(f, "tokenizer.ggml.bos_token_id", 1);
    set_u32(f, "tokenizer.ggml.eos_token_id", 2);
}

static void make_valid(file *f, uint32_t type, uint32_t width)
{
    memset(f, 0, sizeof *f);
    f->magic = "GGUF";
    f->version = 3;
    f->keep = UINT64_MAX;
    set_string(f, "general.architecture", "llama");
    set_string(f, "general.name", "hostile");
    set_u32(f, "general.file_type", 2);
    set_u32(f, "llama.block_count", 1);
    set_u32(f, "llama.context_length", HOSTILE_N_CONTEXT);
    set_u32(f, "llama.embedding_length", width);
    set_u32(f, "llama.feed_forward_length", width);
    set_u32(f, "llama.attention.head_count", 2);
    set_u32(f, "llama.attention.head_count_kv", 1);
    set_u32(f, "llama.rope.dimension_count", width / 2);
    put_le(set(f, "llama.attention.layer_norm_rms_epsilon", SLUICE_GGUF_F32), bits_of(1e-5f), 4);
    put_vocabulary(f);
    add_tensor(f, "token_embd.weight", type, width, HOSTILE_N_VOCAB);
    add_tensor(f, "blk.0.attn_norm.weight", SLUICE_TENSOR_F32, width, 1);
    add_tensor(f, "blk.0.attn_q.weight", type, width, width);
    add_tensor(f, "blk.0.attn_k.weight", type, width, width / 2);
    add_tensor(f, "blk.0.attn_v.weight", type, width, width / 2);
    add_tensor(f, "blk.0.attn_output.weight", type, width, width);
    add_tensor(f, "blk.0.ffn_norm.weight", SLUICE_TENSOR_F32, width, 1);
    add_tensor(f, "blk.0.ffn_gate.weight", type, width, width);
    add_tensor(f, "blk.0.ffn_up.weight", type, width, width);
    add_tensor(f, "blk.0.ffn_down.weight", type, width, width);
    add_tensor(f, "output_norm.weight", SLUICE_TENSOR_F32, width, 1);
}

static uint32_t next_u32(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

/* Where a block holds f16 scales, and what they are: none of the formats may become a number too large. */
static void put_scales(uint8_t *block, uint32_t type)
{
    static const struct { uint32_t type; uint8_t at[2]; } scales[] = {
        { SLUICE_TENSOR_Q4_0, { 0, 0 } },   { SLUICE_TENSOR_Q4_1, { 0, 2 } }, { SLUICE_TENSOR_Q5_0, { 0, 0 } }, { SLUICE_TENSOR_Q5_1, { 0, 2 } },
        { SLUICE_TENSOR_Q8_0, { 0, 0 } },   { SLUICE_TENSOR_Q2_K, { 80, 82 } }, { SLUICE_TENSOR_Q3_K, { 108, 108 } },
        { SLUICE_TENSOR_Q4_K, { 0, 2 } },   { SLUICE_TENSOR_Q5_K, { 0, 2 } },   { SLUICE_TENSOR_Q6_K, { 208, 208 } }, { SLUICE_TENSOR_IQ4_NL, { 0, 0 } }, { SLUICE_TENSOR_IQ4_XS, { 0, 0 } },
    };

    if (type == SLUICE_TENSOR_MXFP4)
        block[0] = 122;
    for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++)
        for (size_t k = 0; k < 2 && scales[i].type == type; k++) {
            block[scales[i].at[k]] = 0x00; /* 2^-9 */
            block[scales[i].at[k] + 1] = 0x18;
        }
}

/* Numbers about 1 for norms, small ones for everything else. */
static void fill(uint8_t *data, const row *t, uint64_t *state)
{
    uint32_t n_elements = 1, n_bytes = 1;

    must(sluice_tensor_type_block(t->type, &n_elements, &n_bytes));
    for (size_t i = 0; i + n_bytes <= t->bytes; i += n_bytes) {
        const uint32_t word = next_u32(state);

        for (size_t k = 0; k < n_bytes; k++)
            data[i + k] = (uint8_t)next_u32(state);
        if (t->type == SLUICE_TENSOR_F32) {
            const float value = (t->n_dims == 1 ? 1.0f : 0.0f) + ((float)(word >> 8) / 16777216.0f - 0.5f) / 4;

            memcpy(data + i, &value, sizeof value);
        } else if (t->type == SLUICE_TENSOR_F16) {
            data[i + 1] = (uint8_t)((word & 0x80) | 0x2c);
        } else if (t->type == SLUICE_TENSOR_BF16) {
            data[i + 1] = (uint8_t)((word & 0x80) | 0x3d);
        } else {
            put_scales(data + i, t->type);
        }
    }
}

static void put_data(const file *f, sluice_buf *out)
{
    uint8_t *data = calloc((size_t)f->data_bytes + 1, 1);
    uint64_t state = 1;

    must(data != NULL);
    for (size_t i = 0; i < f->n_rows; i++) {
        const row *t = &f->rows[i];
        uint32_t n_elements, n_bytes;

        if (t->bytes > 0 && t->offset <= f->data_bytes && t->bytes <= f->data_bytes - t->offset &&
            sluice_tensor_type_block(t->type, &n_elements, &n_bytes))
            fill(data + t->offset, t, &state);
    }
    put_bytes(out, data, (size_t)f->data_bytes);
    free(data);
}

static void write_file(file *f, sluice_buf *out)
{
    sluice_buf b;
    size_t n;

    sluice_buf_init(&b, NULL, FILE_BYTES_MAX);
    put_bytes(&b, f->magic, 4);
    put_le(&b, f->version, 4);
    put_le(&b, f->n_rows + f->rows_say, 8);
    put_le(&b, f->n_items + f->items_say, 8);
    for (size_t i = 0; i < f->n_items; i++) {
        const item *x = &f->items[i];

        put_le(&b, x->key_says, 8);
        put_bytes(&b, x->key, (size_t)x->key_len);
        put_le(&b, x->type, 4);
        put_bytes(&b, x->value.ptr, x->value.len);
    }
    for (size_t i = 0; i < f->n_rows; i++) {
        const row *t = &f->rows[i];

        put_le(&b, t->name_len, 8);
        put_bytes(&b, t->name, (size_t)t->name_len);
        put_le(&b, t->n_dims, 4);
        for (uint32_t d = 0; d < t->n_dims && d < 8; d++)
            put_le(&b, d < SLUICE_GGUF_MAX_DIMS ? t->ne[d] : 1, 8);
        put_le(&b, t->type, 4);
        put_le(&b, t->offset, 8);
    }
    while (b.len % 32 != 0)
        put_le(&b, 0, 1);
    put_data(f, &b);
    n = b.len - (size_t)(f->drop < b.len ? f->drop : b.len);
    n = f->keep < n ? (size_t)f->keep : n;
    put_bytes(out, b.ptr, n);
    sluice_buf_deinit(&b);
    for (size_t i = 0; i < f->n_items; i++)
        sluice_buf_deinit(&f->items[i].value);
}

/* ---- changes of the header */

static void keep(file *f, const recipe *r) { f->keep = r->a; }
static void drop(file *f, const recipe *r) { f->drop = r->a; }
static void magic(file *f, const recipe *r) { f->magic = r->text; }
static void version(file *f, const recipe *r) { f->version = (uint32_t)r->a; }
static void say_tensors(file *f, const recipe *r) { f->rows_say = r->a - f->n_rows; }
static void say_keys(file *f, const recipe *r) { f->items_say = r->a - f->n_items; }

/* ---- changes of metadata.  The victim without a name of its own is general.name, the second entry. */

static void key_length(file *f, const recipe *r) { f->items[1].key_says = r->a; }

static void key_bytes(file *f, const recipe *r) /* `a` of them */
{
    must(r->a < NAME_MAX_BYTES);
    memset(f->items[1].key, 'k', NAME_MAX_BYTES);
    memcpy(f->items[1].key, r->text, strlen(r->text) < r->a ? strlen(r->text) : (size_t)r->a);
    if (strcmp(r->text, "nul") == 0)
        f->items[1].key[1] = 0;
    f->items[1].key_len = f->items[1].key_says = r->a;
}

static void twice(file *f, const recipe *r) /* with the type number `a` */
{
    item *x = append(f, r->key);

    x->type = (uint32_t)r->a;
    put_le(&x->value, 1, r->a == SLUICE_GGUF_U64 ? 8 : 4);
}

static void type_number(file *f, const recipe *r) { f->items[1].type = (uint32_t)r->a; }

static void string_length(file *f, const recipe *r)
{
    sluice_buf *b = set(f, "general.name", SLUICE_GGUF_STRING);

    put_le(b, r->a, 8);
    put_bytes(b, "hostile", 7);
}

static void without(file *f, const recipe *r)
{
    item *x = find(f, r->key);

    must(x != NULL);
    sluice_buf_deinit(&x->value);
    memmove(x, x + 1, (size_t)(&f->items[--f->n_items] - x) * sizeof *x);
}

static void u8(file *f, const recipe *r) { put_le(set(f, r->key, SLUICE_GGUF_U8), r->a, 1); }
static void u32(file *f, const recipe *r) { set_u32(f, r->key, (uint32_t)r->a); }
static void i32(file *f, const recipe *r) { put_le(set(f, r->key, SLUICE_GGUF_I32), r->a, 4); }
static void f32(file *f, const recipe *r) { put_le(set(f, r->key, SLUICE_GGUF_F32), r->a, 4); }
static void u64(file *f, const recipe *r) { put_le(set(f, r->key, SLUICE_GGUF_U64), r->a, 8); }
static void i64(file *f, const recipe *r) { put_le(set(f, r->key, SLUICE_GGUF_I64), r->a, 8); }
static void f64(file *f, const recipe *r) { put_le(set(f, r->key, SLUICE_GGUF_F64), r->a, 8); }
static void boolean(file *f, const recipe *r) { put_le(set(f, r->key, SLUICE_GGUF_BOOL), r->a, 1); }
static void string(file *f, const recipe *r) { set_string(f, r->key, r->text); }

/* `text` is `b` times what it says. */
static void long_string(file *f, const recipe *r)
{
    sluice_buf *b = set(f, r->key, SLUICE_GGUF_STRING);

    put_le(b, strlen(r->text) * r->b, 8);
    for (uint64_t i = 0; i < r->b; i++)
        put_bytes(b, r->text, strlen(r->text));
}

/* An array of item type `a` that announces `b` items, all zero; no more than 64 are there. */
static void array(file *f, const recipe *r)
{
    static const uint8_t widths[] = { 1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8 }; /* by type number */
    const uint64_t width = r->a < sizeof widths ? widths[r->a] : 4, n = r->b < 64 ? r->b : 64;
    sluice_buf *b = set_array(f, r->key, (uint32_t)r->a, r->b);

    for (uint64_t i = 0; i < n; i++)
        put_le(b, 0, (size_t)width < 8 ? (size_t)width : 8);
}

/* ---- changes of the tensor table; the victim without a name is blk.0.attn_q.weight */

static row *victim(file *f) { return find_tensor(f, "blk.0.attn_q.weight"); }

static void tensor_name(file *f, const recipe *r) /* `a` bytes */
{
    row *t = victim(f);

    memset(t->name, 't', sizeof t->name);
    memcpy(t->name, r->text, strlen(r->text) < r->a ? strlen(r->text) : (size_t)r->a);
    if (strcmp(r->text, "nul") == 0)
        t->name[1] = 0;
    t->name_len = r->a;
}

static void tensor_dims(file *f, const recipe *r) { victim(f)->n_dims = (uint32_t)r->a; }

static void tensor_ne(file *f, const recipe *r) /* the first two become a and b */
{
    victim(f)->ne[0] = r->a;
    victim(f)->ne[1] = r->b;
}

static void tensor_ne_4(file *f, const recipe *r) /* four dimensions, all `a` */
{
    row *t = victim(f);

    t->n_dims = 4;
    for (size_t d = 0; d < 4; d++)
        t->ne[d] = r->a;
}

static void tensor_ne_3(file *f, const recipe *r) /* `b` times `a` rows */
{
    victim(f)->n_dims = 3;
    victim(f)->ne[1] = r->a;
    victim(f)->ne[2] = r->b;
}

static void tensor_type(file *f, const recipe *r) { victim(f)->type = (uint32_t)r->a; }
static void tensor_offset(file *f, const recipe *r) { victim(f)->offset = r->a; }
static void tensor_moved(file *f, const recipe *r) { victim(f)->offset += r->a; }
static void named_type(file *f, const recipe *r) { find_tensor(f, r->key)->type = (uint32_t)r->a; }

static void named_ne(file *f, const recipe *r)
{
    row *t = find_tensor(f, r->key);

    t->ne[0] = r->a;
    t->ne[1] = r->b;
    t->n_dims = r->b == 1 ? 1 : 2;
}

/* All after the victim lie `a` bytes further on. */
static void gap(file *f, const recipe *r)
{
    for (row *t = victim(f) + 1; t < f->rows + f->n_rows; t++)
        t->offset += r->a;
    f->data_bytes += r->a;
}

/* Two more of `a` bytes each, at 0 and where the sum of their sizes wraps around. */
static void huge_pair(file *f, const recipe *r)
{
    for (int i = 0; i < 2; i++) {
        char name[32];
        row *t;

        (void)snprintf(name, sizeof name, "blk.%d.huge", i);
        t = add_tensor(f, name, 24, 32, 1); /* I8 */
        t->ne[0] = r->a;
        t->bytes = 0;
    }
}

static void no_tensor(file *f, const recipe *r)
{
    row *t = find_tensor(f, r->key);

    memmove(t, t + 1, (size_t)(&f->rows[--f->n_rows] - t) * sizeof *t);
}

static void more_tensors(file *f, const recipe *r)
{
    (void)add_tensor(f, r->key, SLUICE_TENSOR_F32, 8, 1);
}

/* ---- changes of the vocabulary */

static void token(file *f, const recipe *r) /* number `a` has this text, and the type `b` */
{
    const char *texts[HOSTILE_N_VOCAB];
    uint8_t types[HOSTILE_N_VOCAB];

    memcpy(texts, spm_tokens, sizeof texts);
    memcpy(types, spm_types, sizeof types);
    texts[r->a] = r->text;
    types[r->a] = (uint8_t)r->b;
    set_strings(f, "tokenizer.ggml.tokens", texts, HOSTILE_N_VOCAB);
    set_types(f, types, HOSTILE_N_VOCAB);
}

static void long_token(file *f, const recipe *r) /* of `a` bytes */
{
    sluice_buf *b = set_array(f, "tokenizer.ggml.tokens", SLUICE_GGUF_STRING, HOSTILE_N_VOCAB);

    for (size_t i = 0; i + 1 < HOSTILE_N_VOCAB; i++)
        put_text(b, spm_tokens[i]);
    put_le(b, r->a, 8);
    for (uint64_t i = 0; i < r->a; i++)
        put_le(b, 'x', 1);
}

static void fewer_tokens(file *f, const recipe *r) /* `a`, in everything that speaks of tokens; without ids of the special ones where b is 1 */
{
    set_strings(f, "tokenizer.ggml.tokens", spm_tokens, (size_t)r->a);
    set_scores(f, (size_t)r->a);
    set_types(f, spm_types, (size_t)r->a);
    find_tensor(f, "token_embd.weight")->ne[1] = r->a;
    if (r->b == 1) {
        without(f, &(recipe){ .key = "tokenizer.ggml.bos_token_id" });
        without(f, &(recipe){ .key = "tokenizer.ggml.eos_token_id" });
    }
}

static void scores(file *f, const recipe *r) { set_scores(f, (size_t)r->a); }
static void types(file *f, const recipe *r) { set_types(f, spm_types, (size_t)r->a); }

static void bad_score(file *f, const recipe *r)
{
    sluice_buf *b = set_array(f, "tokenizer.ggml.scores", SLUICE_GGUF_F32, HOSTILE_N_VOCAB);

    for (size_t i = 0; i < HOSTILE_N_VOCAB; i++)
        put_le(b, r->a, 4);
}

/* A vocabulary of the other kind; `text`, if any, is the merges' last one, `a` times. */
static void bpe(file *f, const recipe *r)
{
    const size_t n = sizeof bpe_merges / sizeof bpe_merges[0], more = r->text == NULL ? 0 : r->a == 0 ? 1 : (size_t)r->a;
    sluice_buf *b;

    set_string(f, "tokenizer.ggml.model", "gpt2");
    if (r->key != NULL)
        set_string(f, "tokenizer.ggml.pre", r->key);
    set_strings(f, "tokenizer.ggml.tokens", bpe_tokens, HOSTILE_N_VOCAB);
    set_types(f, bpe_types, HOSTILE_N_VOCAB);
    without(f, &(recipe){ .key = "tokenizer.ggml.scores" });
    set_u32(f, "tokenizer.ggml.bos_token_id", 0);
    set_u32(f, "tokenizer.ggml.eos_token_id", 0);
    b = set_array(f, "tokenizer.ggml.merges", SLUICE_GGUF_STRING, n + more);
    for (size_t i = 0; i < n; i++)
        put_text(b, bpe_merges[i]);
    for (size_t i = 0; i < more; i++)
        put_text(b, r->text);
}

/* ---- the table */

#define INF_BITS 0x7f800000u
#define NAN_BITS 0x7fc00000u
#define MINUS_1 0xbf800000u

#define FORMAT SLUICE_ERR_FORMAT
#define LIMIT SLUICE_ERR_LIMIT
#define UNSUPPORTED SLUICE_ERR_UNSUPPORTED
#define REFUSED(group, name, status, ...) { { group, name, status, status }, __VA_ARGS__ }     /* not a file that could be described */
#define NO_MODEL(group, name, status, ...) { { group, name, status, SLUICE_OK }, __VA_ARGS__ } /* a sound file, and no model of this build */
#define HARMLESS(group, name, ...) { { group, name, SLUICE_OK, SLUICE_OK }, __VA_ARGS__ }

static const recipe cases[] = {
    /* header */
    REFUSED(1, "empty", FORMAT, keep, .a = 0),
    REFUSED(2, "one_byte", FORMAT, keep, .a = 1),
    REFUSED(2, "magic_alone", FORMAT, keep, .a = 4),
    REFUSED(2, "version_alone", FORMAT, keep, .a = 8),
    REFUSED(2, "header_one_byte_short", FORMAT, keep, .a = 23),
    REFUSED(2, "header_alone", FORMAT, keep, .a = 24),
    REFUSED(3, "magic_ggml", FORMAT, magic, .text = "ggml"),
    REFUSED(3, "magic_small", FORMAT, magic, .text = "gguf"),
    REFUSED(4, "magic_reversed", FORMAT, magic, .text = "FUGG"),
    REFUSED(4, "version_big_endian", UNSUPPORTED, version, .a = 0x03000000),
    REFUSED(5, "version_0", UNSUPPORTED, version, .a = 0),
    REFUSED(5, "version_1", UNSUPPORTED, version, .a = 1),
    REFUSED(5, "version_4", UNSUPPORTED, version, .a = 4),
    REFUSED(5, "version_2_31", UNSUPPORTED, version, .a = 0x80000000),
    REFUSED(6, "tensors_minus_1", FORMAT, say_tensors, .a = UINT64_MAX),
    REFUSED(7, "tensors_wrap_64", FORMAT, say_tensors, .a = UINT64_MAX / 88 + 2),
    REFUSED(7, "tensors_wrap_32", FORMAT, say_tensors, .a = (UINT64_C(1) << 32) + 11),
    REFUSED(7, "tensors_2_63", FORMAT, say_tensors, .a = UINT64_C(1) << 63),
    REFUSED(8, "keys_minus_1", FORMAT, say_keys, .a = UINT64_MAX),
    REFUSED(8, "keys_wrap_64", FORMAT, say_keys, .a = UINT64_MAX / 72 + 2),
    REFUSED(8, "keys_wrap_32", FORMAT, say_keys, .a = (UINT64_C(1) << 32) + 17),
    REFUSED(9, "keys_more_than_the_file", FORMAT, say_keys, .a = 5000),
    REFUSED(9, "keys_one_more", FORMAT, say_keys, .a = 18),
    REFUSED(10, "tensors_a_million", FORMAT, say_tensors, .a = 1000000),
    REFUSED(10, "tensors_one_more", FORMAT, say_tensors, .a = 12),

    /* keys and values */
    REFUSED(11, "key_length_minus_1", FORMAT, key_length, .a = UINT64_MAX),
    REFUSED(11, "key_length_wraps_with_its_nul", FORMAT, key_length, .a = UINT64_MAX - 7),
    REFUSED(11, "key_length_2_32", FORMAT, key_length, .a = (UINT64_C(1) << 32) + 12),
    REFUSED(11, "key_length_0", FORMAT, key_length, .a = 0),
    REFUSED(11, "key_of_256_bytes", LIMIT, key_bytes, .a = 256, .text = ""),
    HARMLESS(11, "key_of_255_bytes", key_bytes, .a = 255, .text = ""),
    REFUSED(12, "key_not_utf8", FORMAT, key_bytes, .a = 12, .text = "general\xff\xfe"),
    REFUSED(12, "key_with_nul", FORMAT, key_bytes, .a = 12, .text = "nul"),
    REFUSED(12, "key_with_line_end", FORMAT, key_bytes, .a = 12, .text = "general\n"),
    REFUSED(13, "key_twice", FORMAT, twice, .key = "llama.block_count", .a = SLUICE_GGUF_U32),
    REFUSED(14, "key_twice_as_another_type", FORMAT, twice, .key = "llama.block_count", .a = SLUICE_GGUF_U64),
    REFUSED(15, "type_13", FORMAT, type_number, .a = 13),
    REFUSED(15, "type_255", FORMAT, type_number, .a = 255),
    REFUSED(15, "type_minus_1", FORMAT, type_number, .a = UINT32_MAX),
    REFUSED(16, "string_length_minus_1", FORMAT, string_length, .a = UINT64_MAX),
    REFUSED(16, "string_length_wraps", FORMAT, string_length, .a = UINT64_MAX - 6),
    REFUSED(16, "string_length_wraps_32", FORMAT, string_length, .a = (UINT64_C(1) << 32) + 7),
    REFUSED(16, "string_longer_than_the_file", FORMAT, string_length, .a = 100000),
    REFUSED(17, "array_of_arrays", FORMAT, array, .key = "general.tags", .a = SLUICE_GGUF_ARRAY, .b = 1),
    REFUSED(17, "array_of_an_unknown_type", FORMAT, array, .key = "general.tags", .a = 77, .b = 1),
    REFUSED(18, "array_wraps_u32", FORMAT, array, .key = "general.tags", .a = SLUICE_GGUF_U32, .b = UINT64_C(1) << 62),
    REFUSED(18, "array_wraps_f64", FORMAT, array, .key = "general.tags", .a = SLUICE_GGUF_F64, .b = UINT64_C(1) << 61),
    REFUSED(18, "array_wraps_32_bits", FORMAT, array, .key = "general.tags", .a = SLUICE_GGUF_U32, .b = UINT64_C(1) << 30),
    REFUSED(18, "array_of_minus_1", FORMAT, array, .key = "general.tags", .a = SLUICE_GGUF_U8, .b = UINT64_MAX),
    REFUSED(19, "strings_2_60", FORMAT, array, .key = "general.tags", .a = SLUICE_GGUF_STRING, .b = UINT64_C(1) << 60),
    REFUSED(19, "strings_wrap_32", FORMAT, array, .key = "general.tags", .a = SLUICE_GGUF_STRING, .b = UINT64_C(1) << 29),
    REFUSED(20, "bool_2", FORMAT, boolean, .key = "tokenizer.ggml.add_bos_token", .a = 2),
    REFUSED(20, "bool_255", FORMAT, boolean, .key = "tokenizer.ggml.add_bos_token", .a = 255),
    REFUSED(21, "alignment_0", FORMAT, u32, .key = "general.alignment", .a = 0),
    REFUSED(21, "alignment_1", FORMAT, u32, .key = "general.alignment", .a = 1),
    REFUSED(21, "alignment_3", FORMAT, u32, .key = "general.alignment", .a = 3),
    REFUSED(21, "alignment_13", FORMAT, u32, .key = "general.alignment", .a = 13),
    REFUSED(21, "alignment_2_31", FORMAT, u32, .key = "general.alignment", .a = 0x80000000),
    REFUSED(21, "alignment_a_string", FORMAT, string, .key = "general.alignment", .text = "32"),
    REFUSED(21, "alignment_signed", FORMAT, i32, .key = "general.alignment", .a = 32),
    REFUSED(21, "alignment_negative", FORMAT, i32, .key = "general.alignment", .a = UINT32_MAX),
    NO_MODEL(22, "architecture_missing", FORMAT, without, .key = "general.architecture"),
    NO_MODEL(22, "architecture_a_number", FORMAT, u32, .key = "general.architecture", .a = 7),
    NO_MODEL(22, "architecture_unknown", UNSUPPORTED, string, .key = "general.architecture", .text = "%s%n%s"),
    NO_MODEL(22, "architecture_empty", UNSUPPORTED, string, .key = "general.architecture", .text = ""),
    NO_MODEL(22, "architecture_64_KB", UNSUPPORTED, long_string, .key = "general.architecture", .text = "llamalla", .b = 8192),
    NO_MODEL(22, "architecture_not_utf8", FORMAT, string, .key = "general.architecture", .text = "llama\xff"),
    HARMLESS(23, "file_type_unknown", u32, .key = "general.file_type", .a = 9999),
    NO_MODEL(23, "file_type_minus_1", FORMAT, i32, .key = "general.file_type", .a = UINT32_MAX),
    NO_MODEL(24, "rope_base_nan", FORMAT, f32, .key = "llama.rope.freq_base", .a = NAN_BITS),
    NO_MODEL(24, "rope_base_infinite", FORMAT, f32, .key = "llama.rope.freq_base", .a = INF_BITS),
    NO_MODEL(24, "rope_base_negative", FORMAT, f32, .key = "llama.rope.freq_base", .a = MINUS_1),
    NO_MODEL(24, "rope_base_0", FORMAT, f32, .key = "llama.rope.freq_base", .a = 0),
    HARMLESS(24, "rope_base_subnormal", f32, .key = "llama.rope.freq_base", .a = 1),
    NO_MODEL(24, "epsilon_nan", FORMAT, f32, .key = "llama.attention.layer_norm_rms_epsilon", .a = NAN_BITS),
    NO_MODEL(24, "epsilon_infinite", FORMAT, f32, .key = "llama.attention.layer_norm_rms_epsilon", .a = INF_BITS),
    NO_MODEL(24, "epsilon_negative", FORMAT, f32, .key = "llama.attention.layer_norm_rms_epsilon", .a = MINUS_1),
    NO_MODEL(24, "epsilon_f64_too_large", FORMAT, f64, .key = "llama.attention.layer_norm_rms_epsilon", .a = UINT64_C(0x7fe0000000000000)),
    NO_MODEL(24, "rope_scale_nan", FORMAT, f32, .key = "llama.rope.scaling.factor", .a = NAN_BITS),
    NO_MODEL(24, "rope_scale_huge", LIMIT, f32, .key = "llama.rope.scaling.factor", .a = 0x7f7fffff),
    HARMLESS(25, "block_count_u64", u64, .key = "llama.block_count", .a = 1),
    HARMLESS(25, "block_count_u8", u8, .key = "llama.block_count", .a = 1),
    NO_MODEL(25, "block_count_u64_wraps", FORMAT, u64, .key = "llama.block_count", .a = (UINT64_C(1) << 32) + 1),
    NO_MODEL(25, "block_count_i64_negative", FORMAT, i64, .key = "llama.block_count", .a = UINT64_MAX),
    NO_MODEL(25, "block_count_f32", FORMAT, f32, .key = "llama.block_count", .a = 0x3f800000),
    NO_MODEL(25, "block_count_an_array", FORMAT, array, .key = "llama.block_count", .a = SLUICE_GGUF_U32, .b = 16),
    HARMLESS(26, "split_count_0", u32, .key = "split.count", .a = 0),
    REFUSED(26, "split_count_2", UNSUPPORTED, u32, .key = "split.count", .a = 2),
    REFUSED(26, "split_count_65535", UNSUPPORTED, u32, .key = "split.count", .a = 65535),
    REFUSED(26, "split_count_negative", FORMAT, i32, .key = "split.count", .a = UINT32_MAX),
    HARMLESS(26, "split_number_without_count", u32, .key = "split.no", .a = 9),

    /* tensor table */
    REFUSED(27, "tensor_name_256_bytes", LIMIT, tensor_name, .a = 256, .text = ""),
    REFUSED(27, "tensor_name_empty", FORMAT, tensor_name, .a = 0, .text = ""),
    REFUSED(27, "tensor_name_twice", FORMAT, tensor_name, .a = 19, .text = "blk.0.attn_k.weight"),
    REFUSED(27, "tensor_name_with_nul", FORMAT, tensor_name, .a = 19, .text = "nul"),
    NO_MODEL(27, "tensor_name_a_path", FORMAT, tensor_name, .a = 16, .text = "../../etc/passwd"),
    REFUSED(28, "dims_0", FORMAT, tensor_dims, .a = 0),
    REFUSED(28, "dims_5", FORMAT, tensor_dims, .a = 5),
    REFUSED(28, "dims_minus_1", FORMAT, tensor_dims, .a = UINT32_MAX),
    REFUSED(29, "rows_0", FORMAT, tensor_ne, .a = 32, .b = 0),
    REFUSED(29, "row_length_0", FORMAT, tensor_ne, .a = 0, .b = 32),
    REFUSED(29, "all_dims_0", FORMAT, tensor_ne_4, .a = 0),
    REFUSED(30, "rows_minus_1", FORMAT, tensor_ne, .a = 32, .b = UINT64_MAX),
    REFUSED(30, "row_length_minus_32", FORMAT, tensor_ne, .a = UINT64_MAX - 31, .b = 1),
    REFUSED(30, "row_length_2_63", FORMAT, tensor_ne, .a = UINT64_C(1) << 63, .b = 1),
    REFUSED(31, "product_wraps_to_0", FORMAT, tensor_ne, .a = UINT64_C(1) << 32, .b = UINT64_C(1) << 32),
    REFUSED(31, "product_wraps_to_little", FORMAT, tensor_ne, .a = (UINT64_C(1) << 42) + 32, .b = UINT64_C(1) << 22),
    REFUSED(31, "four_dims_wrap_to_0", FORMAT, tensor_ne_4, .a = 65536),
    REFUSED(31, "product_wraps_32_bits", FORMAT, tensor_ne, .a = 65536, .b = 65536),
    REFUSED(31, "bytes_wrap_32_bits", FORMAT, tensor_ne, .a = 32, .b = (UINT64_C(1) << 32) / 18 + 32),
    REFUSED(32, "row_of_33", FORMAT, tensor_ne, .a = 33, .b = 32),
    REFUSED(32, "row_of_1", FORMAT, tensor_ne, .a = 1, .b = 32),
    REFUSED(32, "row_of_32_in_a_format_of_256", FORMAT, tensor_type, .a = SLUICE_TENSOR_Q4_K),
    REFUSED(33, "tensor_type_removed_4", UNSUPPORTED, tensor_type, .a = 4),
    REFUSED(33, "tensor_type_removed_36", UNSUPPORTED, tensor_type, .a = 36),
    REFUSED(33, "tensor_type_1000", UNSUPPORTED, tensor_type, .a = 1000),
    REFUSED(33, "tensor_type_minus_1", UNSUPPORTED, tensor_type, .a = UINT32_MAX),
    NO_MODEL(33, "tensor_type_that_is_no_weight", UNSUPPORTED, named_type, .key = "output_norm.weight", .a = 24),
    REFUSED(34, "offset_plus_1", FORMAT, tensor_moved, .a = 1),
    REFUSED(34, "offset_plus_16", FORMAT, tensor_moved, .a = 16),
    REFUSED(35, "offset_beyond_the_file", FORMAT, tensor_offset, .a = 1 << 20),
    REFUSED(35, "offset_2_63", FORMAT, tensor_offset, .a = UINT64_C(1) << 63),
    REFUSED(36, "offset_and_size_wrap", FORMAT, tensor_offset, .a = UINT64_MAX - 31),
    REFUSED(36, "offset_wraps_with_the_data", FORMAT, tensor_offset, .a = UINT64_MAX - 2047),
    REFUSED(36, "offset_wraps_32", FORMAT, tensor_moved, .a = UINT64_C(1) << 32),
    REFUSED(37, "overlaps_the_one_before", FORMAT, tensor_offset, .a = 0),
    REFUSED(37, "overlaps_by_a_step", FORMAT, tensor_moved, .a = UINT64_MAX - 31),
    HARMLESS(38, "gap_of_32", gap, .a = 32),
    HARMLESS(38, "gap_of_4096", gap, .a = 4096),
    REFUSED(39, "two_that_wrap_together", FORMAT, huge_pair, .a = 0x7fffffffffffffc0),
    REFUSED(39, "two_that_wrap_32_together", FORMAT, huge_pair, .a = 0x7fffffe0),
    REFUSED(40, "data_one_byte_short", FORMAT, drop, .a = 1),
    REFUSED(40, "last_tensor_missing", FORMAT, drop, .a = 128),
    REFUSED(41, "cut_in_the_data", FORMAT, drop, .a = 2000),
    REFUSED(41, "cut_before_the_data", FORMAT, drop, .a = 3584),

    /* sizes */
    NO_MODEL(42, "blocks_0", FORMAT, u32, .key = "llama.block_count", .a = 0),
    NO_MODEL(42, "blocks_2", FORMAT, u32, .key = "llama.block_count", .a = 2),
    NO_MODEL(42, "blocks_513", LIMIT, u32, .key = "llama.block_count", .a = 513),
    NO_MODEL(42, "blocks_2_31", LIMIT, u32, .key = "llama.block_count", .a = 0x80000000),
    NO_MODEL(42, "blocks_missing", FORMAT, without, .key = "llama.block_count"),
    NO_MODEL(43, "heads_0", FORMAT, u32, .key = "llama.attention.head_count", .a = 0),
    NO_MODEL(43, "heads_3", FORMAT, u32, .key = "llama.attention.head_count", .a = 3),
    NO_MODEL(43, "heads_2_31", LIMIT, u32, .key = "llama.attention.head_count", .a = 0x80000000),
    NO_MODEL(43, "heads_64_of_an_embedding_of_32", FORMAT, u32, .key = "llama.attention.head_count", .a = 64),
    NO_MODEL(44, "key_heads_0", FORMAT, u32, .key = "llama.attention.head_count_kv", .a = 0),
    NO_MODEL(44, "key_heads_3", FORMAT, u32, .key = "llama.attention.head_count_kv", .a = 3),
    NO_MODEL(44, "key_heads_4", FORMAT, u32, .key = "llama.attention.head_count_kv", .a = 4),
    NO_MODEL(44, "key_heads_an_array", FORMAT, array, .key = "llama.attention.head_count_kv", .a = SLUICE_GGUF_U32, .b = 16),
    NO_MODEL(44, "head_dimension_0", FORMAT, u32, .key = "llama.attention.key_length", .a = 0),
    NO_MODEL(44, "head_dimension_2_31", LIMIT, u32, .key = "llama.attention.key_length", .a = 0x80000000),
    NO_MODEL(45, "embedding_0", FORMAT, u32, .key = "llama.embedding_length", .a = 0),
    NO_MODEL(45, "embedding_64", FORMAT, u32, .key = "llama.embedding_length", .a = 64),
    NO_MODEL(45, "embedding_2_31", LIMIT, u32, .key = "llama.embedding_length", .a = 0x80000000),
    NO_MODEL(45, "feed_forward_0", FORMAT, u32, .key = "llama.feed_forward_length", .a = 0),
    NO_MODEL(45, "feed_forward_2_31", LIMIT, u32, .key = "llama.feed_forward_length", .a = 0x80000000),
    NO_MODEL(46, "context_0", FORMAT, u32, .key = "llama.context_length", .a = 0),
    HARMLESS(46, "context_1", u32, .key = "llama.context_length", .a = 1),
    HARMLESS(46, "context_2_31", u32, .key = "llama.context_length", .a = 0x80000000),
    NO_MODEL(46, "context_2_32", FORMAT, u64, .key = "llama.context_length", .a = UINT64_C(1) << 32),
    NO_MODEL(47, "rope_dims_0", FORMAT, u32, .key = "llama.rope.dimension_count", .a = 0),
    NO_MODEL(47, "rope_dims_odd", FORMAT, u32, .key = "llama.rope.dimension_count", .a = 7),
    NO_MODEL(47, "rope_dims_more_than_the_head", LIMIT, u32, .key = "llama.rope.dimension_count", .a = 18),
    NO_MODEL(48, "vocabulary_of_15_rows", FORMAT, named_ne, .key = "token_embd.weight", .a = 32, .b = 15),
    NO_MODEL(48, "vocab_size_17", FORMAT, u32, .key = "llama.vocab_size", .a = 17),
    NO_MODEL(48, "scores_and_tokens_of_15", FORMAT, types, .a = 15),
    NO_MODEL(49, "no_embedding", FORMAT, no_tensor, .key = "token_embd.weight"),
    NO_MODEL(49, "no_attn_norm", FORMAT, no_tensor, .key = "blk.0.attn_norm.weight"),
    NO_MODEL(49, "no_attn_q", FORMAT, no_tensor, .key = "blk.0.attn_q.weight"),
    NO_MODEL(49, "no_attn_v", FORMAT, no_tensor, .key = "blk.0.attn_v.weight"),
    NO_MODEL(49, "no_ffn_down", FORMAT, no_tensor, .key = "blk.0.ffn_down.weight"),
    NO_MODEL(49, "no_output_norm", FORMAT, no_tensor, .key = "output_norm.weight"),
    NO_MODEL(50, "norm_of_16", FORMAT, named_ne, .key = "output_norm.weight", .a = 16, .b = 1),
    NO_MODEL(50, "attn_k_of_8_rows", FORMAT, named_ne, .key = "blk.0.attn_k.weight", .a = 32, .b = 8),
    NO_MODEL(50, "attn_q_one_dimension", FORMAT, named_ne, .key = "blk.0.attn_q.weight", .a = 32, .b = 1),
    NO_MODEL(50, "attn_q_of_half_the_rows_twice", FORMAT, tensor_ne_3, .a = 16, .b = 2),
    HARMLESS(50, "attn_q_with_a_third_dimension_of_1", tensor_ne_3, .a = 32, .b = 1),
    NO_MODEL(50, "norm_f16", UNSUPPORTED, named_type, .key = "output_norm.weight", .a = SLUICE_TENSOR_F16),
    NO_MODEL(50, "one_tensor_more", UNSUPPORTED, more_tensors, .key = "blk.0.attn_q.bias2"),
    NO_MODEL(50, "tensor_of_a_second_layer", UNSUPPORTED, more_tensors, .key = "blk.1.attn_norm.weight"),
    HARMLESS(51, "experts_0", u32, .key = "llama.expert_count", .a = 0),
    NO_MODEL(51, "experts_without_how_many_are_used", FORMAT, u32, .key = "llama.expert_count", .a = 4),
    NO_MODEL(51, "experts_2_31", LIMIT, u32, .key = "llama.expert_count", .a = 0x80000000),
    HARMLESS(51, "used_experts_of_none", u32, .key = "llama.expert_used_count", .a = 4),
    HARMLESS(52, "window_0", u32, .key = "llama.attention.sliding_window", .a = 0),
    NO_MODEL(52, "window_negative", FORMAT, i32, .key = "llama.attention.sliding_window", .a = UINT32_MAX),
    HARMLESS(52, "window_2_32_minus_1", u32, .key = "llama.attention.sliding_window", .a = UINT32_MAX),

    /* vocabulary */
    NO_MODEL(53, "scores_u8", FORMAT, array, .key = "tokenizer.ggml.scores", .a = SLUICE_GGUF_U8, .b = 16),
    NO_MODEL(53, "scores_i16", FORMAT, array, .key = "tokenizer.ggml.scores", .a = SLUICE_GGUF_I16, .b = 16),
    NO_MODEL(53, "scores_f64", FORMAT, array, .key = "tokenizer.ggml.scores", .a = SLUICE_GGUF_F64, .b = 8),
    NO_MODEL(53, "scores_one_short", FORMAT, scores, .a = 15),
    NO_MODEL(53, "scores_none", FORMAT, scores, .a = 0),
    NO_MODEL(53, "scores_nan", FORMAT, bad_score, .a = NAN_BITS),
    HARMLESS(53, "scores_infinite", bad_score, .a = INF_BITS),
    NO_MODEL(53, "types_u8", FORMAT, array, .key = "tokenizer.ggml.token_type", .a = SLUICE_GGUF_U8, .b = 16),
    NO_MODEL(53, "types_i8", FORMAT, array, .key = "tokenizer.ggml.token_type", .a = SLUICE_GGUF_I8, .b = 16),
    NO_MODEL(53, "types_one_short", FORMAT, types, .a = 15),
    NO_MODEL(53, "tokens_are_numbers", FORMAT, array, .key = "tokenizer.ggml.tokens", .a = SLUICE_GGUF_U32, .b = 16),
    NO_MODEL(53, "tokens_missing", SLUICE_ERR_NOT_FOUND, without, .key = "tokenizer.ggml.tokens"), /* as tokenizer.h says: no tokenizer */
    NO_MODEL(54, "bos_is_16_of_16", FORMAT, u32, .key = "tokenizer.ggml.bos_token_id", .a = 16),
    NO_MODEL(54, "eos_2_31", FORMAT, u32, .key = "tokenizer.ggml.eos_token_id", .a = 0x80000000),
    NO_MODEL(54, "eos_minus_2", FORMAT, i32, .key = "tokenizer.ggml.eos_token_id", .a = UINT32_MAX - 1),
    NO_MODEL(54, "unknown_token_16", FORMAT, u32, .key = "tokenizer.ggml.unknown_token_id", .a = 16),
    NO_MODEL(54, "padding_token_16", FORMAT, u32, .key = "tokenizer.ggml.padding_token_id", .a = 16),
    NO_MODEL(54, "two_tokens_and_an_end_of_2", FORMAT, fewer_tokens, .a = 2, .b = 0),
    HARMLESS(54, "two_tokens_and_defaults", fewer_tokens, .a = 2, .b = 1),
    NO_MODEL(54, "no_tokens", FORMAT, array, .key = "tokenizer.ggml.tokens", .a = SLUICE_GGUF_STRING, .b = 0),
    NO_MODEL(55, "byte_token_negative", FORMAT, token, .a = 12, .b = 6, .text = "<0x-1>"),
    NO_MODEL(55, "byte_token_no_number", FORMAT, token, .a = 12, .b = 6, .text = "<0xZZ>"),
    NO_MODEL(55, "byte_token_100", FORMAT, token, .a = 12, .b = 6, .text = "<0x100>"),
    NO_MODEL(55, "byte_token_1", FORMAT, token, .a = 12, .b = 6, .text = "<0x1>"),
    NO_MODEL(55, "byte_token_empty", FORMAT, token, .a = 12, .b = 6, .text = ""),
    HARMLESS(55, "no_byte_tokens", token, .a = 12, .b = 1, .text = "w"),
    NO_MODEL(56, "merge_without_space", FORMAT, bpe, .text = "abcd"),
    NO_MODEL(56, "merge_of_nothing", FORMAT, bpe, .text = " "),
    NO_MODEL(56, "merge_of_itself", FORMAT, bpe, .text = "abcd abcd"),
    HARMLESS(56, "merge_twice", bpe, .text = "a b"),
    HARMLESS(56, "merge_a_hundred_thousand_times", bpe, .text = "a b", .a = 100000),
    HARMLESS(57, "token_empty_text", token, .a = 15, .b = 1, .text = ""),
    HARMLESS(57, "token_not_utf8", token, .a = 15, .b = 1, .text = "\xc3\x28"),
    NO_MODEL(57, "token_twice", FORMAT, token, .a = 15, .b = 1, .text = "ab"),
    NO_MODEL(57, "token_type_99", FORMAT, token, .a = 15, .b = 99, .text = "w"),
    NO_MODEL(57, "token_of_64_KB", LIMIT, long_token, .a = 65536),
    REFUSED(57, "token_of_1_MB", LIMIT, long_token, .a = (1 << 20) + 1),
    NO_MODEL(58, "pre_tokenizer_a_slow_pattern", UNSUPPORTED, bpe, .key = "(a+)+$"),
    NO_MODEL(58, "pre_tokenizer_empty", UNSUPPORTED, bpe, .key = ""),
    NO_MODEL(59, "add_bos_a_string", FORMAT, string, .key = "tokenizer.ggml.add_bos_token", .text = "true"),
    NO_MODEL(59, "add_bos_a_number", FORMAT, u32, .key = "tokenizer.ggml.add_bos_token", .a = 1),

    /* templates: none is ever executed */
    HARMLESS(60, "template_calls_itself", string, .key = "tokenizer.chat_template", .text = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
    HARMLESS(60, "template_of_parentheses", long_string, .key = "tokenizer.chat_template", .text = "{{((((((((", .b = 200),
    HARMLESS(60, "template_of_loops", long_string, .key = "tokenizer.chat_template", .text = "{% for i in range(9999) %}", .b = 50),
    HARMLESS(61, "template_range", string, .key = "tokenizer.chat_template", .text = "{% for i in range(10**9) %}x{% endfor %}"),
    HARMLESS(61, "template_product", string, .key = "tokenizer.chat_template", .text = "{{ 'x' * 10**10 }}"),
    HARMLESS(61, "template_indent", string, .key = "tokenizer.chat_template", .text = "{{ messages | tojson(indent=10**9) | indent(10**9) }}"),
    HARMLESS(62, "template_of_half_a_MB", long_string, .key = "tokenizer.chat_template", .text = "{{ m }} ", .b = 65536),
    REFUSED(62, "template_of_1_MB", LIMIT, long_string, .key = "tokenizer.chat_template", .text = "{{ m }} ", .b = 131073),
    HARMLESS(62, "template_includes", string, .key = "tokenizer.chat_template", .text = "{% include '/etc/passwd' %}{{ x | nosuch }}"),
    HARMLESS(62, "template_a_number", u32, .key = "tokenizer.chat_template", .a = 1),
};

size_t hostile_n_cases(void)
{
    return sizeof cases / sizeof cases[0];
}

const hostile_case *hostile_case_at(size_t i)
{
    return &cases[i].shown;
}

void hostile_write(size_t i, sluice_buf *out)
{
    file *f = calloc(1, sizeof *f);

    must(f != NULL);
    make_valid(f, SLUICE_TENSOR_Q4_0, HOSTILE_N_EMBD);
    cases[i].change(f, &cases[i]);
    write_file(f, out);
    free(f);
}

void hostile_write_valid(sluice_tensor_type type, sluice_buf *out)
{
    uint32_t n_elements = 1, n_bytes = 1;
    file *f = calloc(1, sizeof *f);

    must(f != NULL && sluice_tensor_type_block((uint32_t)type, &n_elements, &n_bytes));
    make_valid(f, (uint32_t)type, n_elements == 256 ? 8 * HOSTILE_N_EMBD : HOSTILE_N_EMBD);
    write_file(f, out);
    free(f);
}
