/* tokenizer.c - the vocabulary, and what both kinds of encoding share.
 *
 * Opening checks everything that encoding and decoding rely on: every id that the file names is in range, every array is as long as the
 * vocabulary, no two tokens that text can become are the same.  After that nothing in here can fail for the file's sake.
 *
 * Both kinds merge neighbouring symbols, the most urgent pair first; they differ in what a symbol is at first and in what
 * makes a pair urgent.  So there is one merge loop, on a binary heap of candidates.  A candidate may have been overtaken by
 * another merge when it surfaces: then the symbols no longer have the length that it remembers, and it is dropped.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/tokenizer.h"

#include <inttypes.h>

#include "local-engine/tokenizer_impl.h"

enum { TOKEN_ARRAY_BYTES_MAX = 64 << 20 };

/* ---- symbols and merges ------------------------------------------------------------------------------- */

static bool comes_before(const sluice_merge_candidate *a, const sluice_merge_candidate *b)
{
    return a->key != b->key ? a->key < b->key : a->left < b->left;
}

static void heap_push(sluice_merge_candidate *heap, size_t *n, sluice_merge_candidate c)
{
    size_t i = (*n)++;

    while (i > 0 && comes_before(&c, &heap[(i - 1) / 2])) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = c;
}

static sluice_merge_candidate heap_pop(sluice_merge_candidate *heap, size_t *n)
{
    sluice_merge_candidate top = heap[0], last = heap[--(*n)];
    size_t i = 0;

    for (size_t child = 1; child < *n; child = 2 * i + 1) {
        if (child + 1 < *n && comes_before(&heap[child + 1], &heap[child]))
            child++;
        if (!comes_before(&heap[child], &last))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

void sluice_link_symbols(sluice_symbol *symbols, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        symbols[i].prev = i > 0 ? (uint32_t)(i - 1) : UINT32_MAX;
        symbols[i].next = i + 1 < n ? (uint32_t)(i + 1) : UINT32_MAX;
    }
}

void sluice_merge_symbols(const sluice_tokenizer *t, sluice_span text, sluice_symbol *symbols, size_t n, sluice_merge_candidate *heap,
                          sluice_pair_fn pair)
{
    size_t n_heap = 0;
    sluice_merge_candidate c;

    for (size_t i = 1; i < n; i++) {
        c = (sluice_merge_candidate){ 0, (uint32_t)(i - 1), (uint32_t)i, symbols[i - 1].len + symbols[i].len, SLUICE_TOKEN_NONE };
        if (pair(t, text, &symbols[i - 1], &symbols[i], &c))
            heap_push(heap, &n_heap, c);
    }
    while (n_heap > 0) {
        sluice_symbol *a, *b;

        c = heap_pop(heap, &n_heap);
        a = &symbols[c.left];
        b = &symbols[c.right];
        if (a->len == 0 || b->len == 0 || a->len + b->len != c.len)
            continue;
        a->len = c.len;
        a->id = c.id;
        a->next = b->next;
        b->len = 0;
        if (a->next != UINT32_MAX) {
            symbols[a->next].prev = c.left;
            c = (sluice_merge_candidate){ 0, c.left, a->next, a->len + symbols[a->next].len, SLUICE_TOKEN_NONE };
            if (pair(t, text, a, &symbols[a->next], &c))
                heap_push(heap, &n_heap, c);
        }
        if (a->prev != UINT32_MAX) {
            uint32_t left = a->prev, right = (uint32_t)(a - symbols);

            c = (sluice_merge_candidate){ 0, left, right, symbols[left].len + a->len, SLUICE_TOKEN_NONE };
            if (pair(t, text, &symbols[left], a, &c))
                heap_push(heap, &n_heap, c);
        }
    }
}

/* ---- encoder ------------------------------------------------------------------------------------------- */

void *sluice_encoder_scratch(sluice_encoder *e, size_t bytes)
{
    size_t want = bytes < 4096 ? 4096 : bytes;

    if (e->scratch_bytes >= bytes && e->scratch != NULL)
        return e->scratch;
    sluice_free_wiped(e->t->al, e->scratch, e->scratch_bytes);
    e->scratch_bytes = 0;
    e->scratch = sluice_alloc(e->t->al, want);
    if (e->scratch == NULL) {
        sluice_error_set(e->err, SLUICE_ERR_NO_MEMORY, "tokenizer: %zu bytes of scratch", want);
        return NULL;
    }
    e->scratch_bytes = want;
    return e->scratch;
}

void sluice_encoder_emit(sluice_encoder *e, int32_t token)
{
    if (e->n < e->capacity)
        e->out[e->n] = token;
    e->n++;
}

sluice_status sluice_encoder_emit_byte(sluice_encoder *e, uint8_t byte)
{
    int32_t id = e->t->byte_ids[byte] != SLUICE_TOKEN_NONE ? e->t->byte_ids[byte] : e->t->unknown;

    if (id == SLUICE_TOKEN_NONE)
        return sluice_error_set(e->err, SLUICE_ERR_UNSUPPORTED, "tokenizer: the model's vocabulary cannot spell a byte of the text");
    sluice_encoder_emit(e, id);
    return SLUICE_OK;
}

static sluice_status encode_fragment(sluice_encoder *e, sluice_span text)
{
    if (text.len == 0)
        return SLUICE_OK;
    return e->t->is_bpe ? sluice_bpe_encode(e, text) : sluice_spm_encode(e, text);
}

static sluice_status encode_text(sluice_encoder *e, sluice_span text)
{
    size_t begin = 0, at = 0;

    while (e->t->user_bytes_max > 0 && at < text.len) {
        const sluice_tokenizer *t = e->t;
        uint32_t id = SLUICE_TEXT_INDEX_NONE;
        sluice_status st;
        size_t len = 0;

        if (t->user_begins[text.ptr[at]])
            id = sluice_text_index_longest(&t->users, sluice_span_of(text.ptr + at, text.len - at), t->user_bytes_max, &len);
        if (id == SLUICE_TEXT_INDEX_NONE) {
            at++;
            continue;
        }
        st = encode_fragment(e, sluice_span_of(text.ptr + begin, at - begin));
        if (st != SLUICE_OK)
            return st;
        sluice_encoder_emit(e, (int32_t)id);
        at += len;
        begin = at;
    }
    return encode_fragment(e, sluice_span_of(text.ptr + begin, text.len - begin));
}

sluice_status sluice_tokenizer_encode(const sluice_tokenizer *t, sluice_span text, bool add_bos, int32_t *tokens, size_t *n, sluice_error *err)
{
    sluice_encoder e = { t, tokens, *n, 0, NULL, 0, err };
    sluice_status st;

    *n = 0;
    if (text.len > SLUICE_TOKENIZER_MAX_TEXT)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "tokenizer: a text of %zu bytes; the limit is %d", text.len, SLUICE_TOKENIZER_MAX_TEXT);
    if (add_bos && t->wants_bos)
        sluice_encoder_emit(&e, t->bos);
    st = encode_text(&e, text);
    sluice_free_wiped(t->al, e.scratch, e.scratch_bytes);
    if (st != SLUICE_OK)
        return st;
    *n = e.n;
    if (e.n > e.capacity)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "tokenizer: the text is %zu tokens; there is room for %zu", e.n, e.capacity);
    return SLUICE_OK;
}

/* ---- vocabulary ----------------------------------------------------------------------------------------- */

sluice_span sluice_tokenizer_raw(const void *tokenizer, uint32_t token)
{
    const sluice_tokenizer *t = tokenizer;
    const uint8_t *p = t->raw + t->raw_at[token];

    /* at most TOKEN_BYTES_MAX, checked on opening: the low two bytes of the length are all of it */
    return sluice_span_of(p, (size_t)p[-8] | (size_t)p[-7] << 8);
}

sluice_span sluice_tokenizer_text(const void *tokenizer, uint32_t token)
{
    const sluice_tokenizer *t = tokenizer;

    return sluice_span_of(t->text + t->text_at[token], t->text_at[token + 1] - t->text_at[token]);
}

static sluice_status bad(sluice_error *err, uint64_t offset, const char *what, uint32_t token)
{
    sluice_status st = sluice_error_set(err, SLUICE_ERR_FORMAT, "tokenizer: %s (token %" PRIu32 ")", what, token);

    sluice_error_offset(err, offset);
    return st;
}

sluice_status sluice_tokenizer_add_word(sluice_tokenizer *t, uint32_t token, uint64_t offset, sluice_error *err)
{
    switch (sluice_text_index_add(&t->words, token)) {
    case SLUICE_TEXT_ADDED: return SLUICE_OK;
    case SLUICE_TEXT_DUPLICATE: return bad(err, offset, "two tokens have the same text", token);
    case SLUICE_TEXT_EXHAUSTED:
    default: return bad(err, offset, "the tokens are made to collide", token);
    }
}

static sluice_status no_memory(sluice_error *err)
{
    return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "tokenizer: no memory for the vocabulary");
}

static sluice_status read_tokens(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err)
{
    const sluice_gguf_value *tokens = NULL;
    sluice_span item;
    uint64_t cursor = 0;
    sluice_status st = sluice_gguf_get_array(g, "tokenizer.ggml.tokens", SLUICE_GGUF_STRING, &tokens, err);

    if (st != SLUICE_OK)
        return st;
    if (tokens->count == 0)
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "tokenizer: the vocabulary is empty");
    if (tokens->count > SLUICE_TOKENIZER_MAX_VOCAB || tokens->data.len > TOKEN_ARRAY_BYTES_MAX)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "tokenizer: %" PRIu64 " tokens in %zu bytes; the limits are %d and %d", tokens->count,
                                tokens->data.len, SLUICE_TOKENIZER_MAX_VOCAB, TOKEN_ARRAY_BYTES_MAX);
    t->raw = tokens->data.ptr;
    t->raw_at = sluice_alloc_array(t->al, (size_t)tokens->count, sizeof *t->raw_at);
    t->types = sluice_alloc_array(t->al, (size_t)tokens->count, 1);
    t->n_vocab = (uint32_t)tokens->count; /* from here close() knows the sizes */
    if (t->raw_at == NULL || t->types == NULL)
        return no_memory(err);
    for (uint32_t i = 0; i < t->n_vocab; i++) {
        if (!sluice_gguf_array_next_string(tokens, &cursor, &item))
            return bad(err, tokens->offset, "the vocabulary ends early", i);
        if (item.len > TOKEN_BYTES_MAX) {
            st = sluice_error_set(err, SLUICE_ERR_LIMIT, "tokenizer: token %" PRIu32 " has %zu bytes; the limit is %d", i, item.len, TOKEN_BYTES_MAX);
            sluice_error_offset(err, tokens->offset);
            return st;
        }
        t->raw_at[i] = (uint32_t)(cursor - item.len);
    }
    return SLUICE_OK;
}

static sluice_status read_types(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err)
{
    static const char key[] = "tokenizer.ggml.token_type";
    const sluice_gguf_value *types = sluice_gguf_find(g, key);

    if (types == NULL) {
        memset(t->types, TOKEN_NORMAL, t->n_vocab);
        return SLUICE_OK;
    }
    if (types->type != SLUICE_GGUF_ARRAY || (types->item_type != SLUICE_GGUF_I32 && types->item_type != SLUICE_GGUF_U32) ||
        types->count != t->n_vocab) {
        sluice_status st =
            sluice_error_set(err, SLUICE_ERR_FORMAT, "tokenizer: \"%s\" is not an array of one i32 for each of %" PRIu32 " tokens", key, t->n_vocab);

        sluice_error_offset(err, types->offset);
        return st;
    }
    for (uint32_t i = 0; i < t->n_vocab; i++) {
        uint32_t type = sluice_gguf_array_u32(types, i);

        if (type > TOKEN_BYTE)
            return bad(err, types->offset, "unknown token type", i);
        t->types[i] = (uint8_t)type;
    }
    return SLUICE_OK;
}

/* A special id, checked against the vocabulary.  Whatever the file calls that token's type, text must not become it. */
static sluice_status read_special(sluice_tokenizer *t, const sluice_gguf *g, const char *key, int32_t *out, sluice_error *err)
{
    uint32_t id = UINT32_MAX;
    sluice_status st = sluice_gguf_opt_u32(g, key, &id, err);

    *out = SLUICE_TOKEN_NONE;
    if (st != SLUICE_OK || sluice_gguf_find(g, key) == NULL)
        return st;
    if (id >= t->n_vocab) {
        st = sluice_error_set(err, SLUICE_ERR_FORMAT, "tokenizer: \"%s\" is %" PRIu32 ", but there are %" PRIu32 " tokens", key, id, t->n_vocab);
        sluice_error_offset(err, sluice_gguf_find(g, key)->offset);
        return st;
    }
    if (t->types[id] != TOKEN_UNKNOWN)
        t->types[id] = TOKEN_CONTROL;
    *out = (int32_t)id;
    return SLUICE_OK;
}

/* Chat models often end a turn with a token of its own that older files do not name by key. */
static int32_t find_end_of_turn(const sluice_tokenizer *t)
{
    static const char *const known[] = { "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|end_of_text|>" };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        int32_t id = sluice_tokenizer_special(t, sluice_span_str(known[i]));

        if (id != SLUICE_TOKEN_NONE)
            return id;
    }
    return SLUICE_TOKEN_NONE;
}

static sluice_status read_specials(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err)
{
    sluice_status st = read_special(t, g, "tokenizer.ggml.bos_token_id", &t->bos, err);

    if (st == SLUICE_OK)
        st = read_special(t, g, "tokenizer.ggml.eos_token_id", &t->eos, err);
    if (st == SLUICE_OK)
        st = read_special(t, g, "tokenizer.ggml.eot_token_id", &t->eot, err);
    if (st == SLUICE_OK)
        st = read_special(t, g, "tokenizer.ggml.eom_token_id", &t->eom, err);
    if (st == SLUICE_OK)
        st = read_special(t, g, "tokenizer.ggml.unknown_token_id", &t->unknown, err);
    if (st == SLUICE_OK && t->eot == SLUICE_TOKEN_NONE)
        t->eot = find_end_of_turn(t);
    return st;
}

/* "<0x0A>" is the byte 10. */
static int hex_digit(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool byte_token_value(sluice_span raw, uint8_t *out)
{
    int hi, lo;

    if (raw.len != 6 || memcmp(raw.ptr, "<0x", 3) != 0 || raw.ptr[5] != '>')
        return false;
    hi = hex_digit(raw.ptr[3]);
    lo = hex_digit(raw.ptr[4]);
    if (hi < 0 || lo < 0)
        return false;
    *out = (uint8_t)(hi * 16 + lo);
    return true;
}

/* Write down what every token says.  The pool is as large as the raw texts together: no token grows. */
static sluice_status spell_tokens(sluice_tokenizer *t, uint64_t offset, sluice_error *err)
{
    size_t n = 0, at = 0;

    for (uint32_t i = 0; i < t->n_vocab; i++)
        n += sluice_tokenizer_raw(t, i).len;
    t->text_bytes = n > 0 ? n : 1;
    t->text = sluice_alloc(t->al, t->text_bytes);
    t->text_at = sluice_alloc_array(t->al, (size_t)t->n_vocab + 1, sizeof *t->text_at);
    if (t->text == NULL || t->text_at == NULL)
        return no_memory(err);
    for (uint32_t i = 0; i < t->n_vocab; i++) {
        sluice_span raw = sluice_tokenizer_raw(t, i);

        t->text_at[i] = (uint32_t)at;
        switch (t->types[i]) {
        case TOKEN_NORMAL:
            if (t->is_bpe) {
                (void)sluice_bpe_token_text(raw, t->text + at, &n);
                at += n;
            } else {
                at += sluice_spm_token_text(raw, t->text + at);
            }
            break;
        case TOKEN_USER:
            memcpy(t->text + at, raw.ptr, raw.len);
            at += raw.len;
            break;
        case TOKEN_BYTE:
            if (!byte_token_value(raw, &t->text[at]))
                return bad(err, offset, "a byte token that is not written <0xHH>", i);
            t->byte_ids[t->text[at]] = (int32_t)i;
            at++;
            break;
        default: break;
        }
    }
    t->text_at[t->n_vocab] = (uint32_t)at;
    return SLUICE_OK;
}

static sluice_status index_user_tokens(sluice_tokenizer *t, uint64_t offset, sluice_error *err)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < t->n_vocab; i++)
        n += t->types[i] == TOKEN_USER;
    if (n == 0)
        return SLUICE_OK;
    if (!sluice_text_index_init(&t->users, n, sluice_tokenizer_raw, t, t->al))
        return no_memory(err);
    for (uint32_t i = 0; i < t->n_vocab; i++) {
        sluice_span raw = sluice_tokenizer_raw(t, i);

        if (t->types[i] != TOKEN_USER || raw.len == 0)
            continue;
        if (sluice_text_index_add(&t->users, i) != SLUICE_TEXT_ADDED)
            return bad(err, offset, "two user-defined tokens have the same text", i);
        t->user_begins[raw.ptr[0]] = true;
        if (raw.len > t->user_bytes_max)
            t->user_bytes_max = (uint32_t)raw.len;
    }
    return SLUICE_OK;
}

static sluice_status read_kind(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err)
{
    sluice_span kind = SLUICE_SPAN_EMPTY;
    sluice_status st = sluice_gguf_get_string(g, "tokenizer.ggml.model", &kind, err);

    if (st != SLUICE_OK)
        return st;
    t->is_bpe = sluice_span_eq_str(kind, "gpt2");
    if (t->is_bpe || sluice_span_eq_str(kind, "llama"))
        return SLUICE_OK;
    st = sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "tokenizer: the kind \"%.*s\"; this build has \"llama\" (spm) and \"gpt2\" (bpe)",
                          (int)(kind.len < 40 ? kind.len : 40), (const char *)kind.ptr);
    sluice_error_offset(err, sluice_gguf_find(g, "tokenizer.ggml.model")->offset);
    return st;
}

static sluice_status read_vocabulary(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err)
{
    uint64_t offset;
    sluice_status st = read_kind(t, g, err);

    if (st == SLUICE_OK)
        st = read_tokens(t, g, err);
    if (st != SLUICE_OK)
        return st;
    offset = sluice_gguf_find(g, "tokenizer.ggml.tokens")->offset;
    st = read_types(t, g, err);
    if (st == SLUICE_OK)
        st = read_specials(t, g, err);
    if (st == SLUICE_OK)
        st = spell_tokens(t, offset, err);
    if (st == SLUICE_OK)
        st = index_user_tokens(t, offset, err);
    if (st == SLUICE_OK)
        st = t->is_bpe ? sluice_bpe_open(t, g, err) : sluice_spm_open(t, g, err);
    if (st == SLUICE_OK)
        st = sluice_gguf_opt_bool(g, "tokenizer.ggml.add_bos_token", &t->wants_bos, err);
    t->wants_bos = t->wants_bos && t->bos != SLUICE_TOKEN_NONE;
    return st;
}

sluice_status sluice_tokenizer_open(sluice_tokenizer **out, const sluice_gguf *g, const sluice_allocator *al, sluice_error *err)
{
    sluice_tokenizer *t;
    sluice_status st;

    *out = NULL;
    t = sluice_alloc_zeroed(al, sizeof *t);
    if (t == NULL)
        return no_memory(err);
    t->al = al;
    for (size_t i = 0; i < 256; i++)
        t->byte_ids[i] = SLUICE_TOKEN_NONE;
    st = read_vocabulary(t, g, err);
    if (st != SLUICE_OK) {
        sluice_tokenizer_close(t);
        return st;
    }
    *out = t;
    return SLUICE_OK;
}

void sluice_tokenizer_close(sluice_tokenizer *t)
{
    if (t == NULL)
        return;
    sluice_free(t->al, t->raw_at, t->n_vocab * sizeof *t->raw_at);
    sluice_free(t->al, t->types, t->n_vocab);
    sluice_free(t->al, t->text, t->text_bytes);
    sluice_free(t->al, t->text_at, ((size_t)t->n_vocab + 1) * sizeof *t->text_at);
    sluice_free(t->al, t->merges, t->n_merges * sizeof *t->merges);
    sluice_free(t->al, t->merge_slots, t->n_merge_slots * sizeof *t->merge_slots);
    if (t->words.n_slots != 0)
        sluice_text_index_deinit(&t->words);
    if (t->users.n_slots != 0)
        sluice_text_index_deinit(&t->users);
    sluice_free(t->al, t, sizeof *t);
}

uint64_t sluice_tokenizer_estimate_bytes(const sluice_gguf *g)
{
    const sluice_gguf_value *tokens = sluice_gguf_find(g, "tokenizer.ggml.tokens");
    const sluice_gguf_value *merges = sluice_gguf_find(g, "tokenizer.ggml.merges");
    uint64_t n;

    if (tokens == NULL || tokens->type != SLUICE_GGUF_ARRAY || tokens->item_type != SLUICE_GGUF_STRING)
        return 0;
    n = tokens->count < SLUICE_TOKENIZER_MAX_VOCAB ? tokens->count : SLUICE_TOKENIZER_MAX_VOCAB;
    return sizeof(sluice_tokenizer) + n * (2 * sizeof(uint32_t) + 1) + sizeof(uint32_t) + tokens->data.len +
           2 * sluice_text_index_bytes((uint32_t)n) /* words; user-defined tokens at their most */
           + (merges != NULL ? sluice_bpe_merge_bytes(merges->count) : 0);
}

/* ---- questions -------------------------------------------------------------------------------------------- */

static bool in_range(const sluice_tokenizer *t, int32_t token)
{
    return token >= 0 && (uint32_t)token < t->n_vocab;
}

const char *sluice_tokenizer_kind(const sluice_tokenizer *t)
{
    return t->is_bpe ? "bpe" : "spm";
}

uint32_t sluice_tokenizer_n_vocab(const sluice_tokenizer *t)
{
    return t->n_vocab;
}

int32_t sluice_tokenizer_bos(const sluice_tokenizer *t)
{
    return t->bos;
}

int32_t sluice_tokenizer_eos(const sluice_tokenizer *t)
{
    return t->eos;
}

int32_t sluice_tokenizer_eot(const sluice_tokenizer *t)
{
    return t->eot;
}

bool sluice_tokenizer_is_end(const sluice_tokenizer *t, int32_t token)
{
    return token != SLUICE_TOKEN_NONE && (token == t->eos || token == t->eot || token == t->eom);
}

bool sluice_tokenizer_is_control(const sluice_tokenizer *t, int32_t token)
{
    return !in_range(t, token) || (t->types[token] != TOKEN_NORMAL && t->types[token] != TOKEN_USER && t->types[token] != TOKEN_BYTE);
}

bool sluice_tokenizer_wants_bos(const sluice_tokenizer *t)
{
    return t->wants_bos;
}

sluice_span sluice_tokenizer_bytes(const sluice_tokenizer *t, int32_t token)
{
    return in_range(t, token) ? sluice_tokenizer_text(t, (uint32_t)token) : SLUICE_SPAN_EMPTY;
}

int32_t sluice_tokenizer_special(const sluice_tokenizer *t, sluice_span text)
{
    for (uint32_t i = 0; i < t->n_vocab; i++)
        if (t->types[i] == TOKEN_CONTROL && sluice_span_eq(sluice_tokenizer_raw(t, i), text))
            return (int32_t)i;
    return SLUICE_TOKEN_NONE;
}
