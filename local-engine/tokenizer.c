/* tokenizer.c - the vocabulary, and what the three kinds of encoding share.
 *
 * Opening checks everything that encoding and decoding rely on: every id that the file names is in range, every array is as long as the
 * vocabulary, no two tokens that text can become are the same.  After that nothing in here can fail for the file's sake.
 *
 * The vocabulary is walked twice.  survey() decides what each token is and measures; its sums are the estimate and the sizes of what is
 * allocated, so that nothing grows and nothing is given back.  fill() writes.  What is held for a vocabulary of n tokens: their texts (some 6 bytes
 * each), 5 bytes each beside, 6 for each in an index; for bpe 14 for each merge.  That is 1.6 MB for 49,152 tokens, 5 MB for 256,000 of spm.
 *
 * spm and bpe merge neighbouring symbols, the most urgent pair first; they differ in what a symbol is at first and in what
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

sluice_status sluice_encoder_emit_unknown(sluice_encoder *e)
{
    if (e->t->unknown == SLUICE_TOKEN_NONE)
        return sluice_error_set(e->err, SLUICE_ERR_UNSUPPORTED, "tokenizer: the model's vocabulary cannot spell a byte of the text");
    sluice_encoder_emit(e, e->t->unknown);
    return SLUICE_OK;
}

sluice_status sluice_encoder_emit_byte(sluice_encoder *e, uint8_t byte)
{
    if (e->t->byte_ids[byte] == SLUICE_TOKEN_NONE)
        return sluice_encoder_emit_unknown(e);
    sluice_encoder_emit(e, e->t->byte_ids[byte]);
    return SLUICE_OK;
}

static bool strips_after(const sluice_tokenizer *t, int32_t token)
{
    return t->strips_after_special && token != SLUICE_TOKEN_NONE && token != t->bos && token != t->eos && token != t->unknown;
}

/* Text without special tokens in it, behind the token `before`. */
static sluice_status encode_fragment(sluice_encoder *e, sluice_span text, int32_t before)
{
    if (strips_after(e->t, before))
        while (text.len > 0 && (text.ptr[0] == ' ' || (text.ptr[0] >= '\t' && text.ptr[0] <= '\r')))
            text = sluice_span_of(text.ptr + 1, text.len - 1);
    if (text.len == 0)
        return SLUICE_OK;
    switch (e->t->sort) {
    case TOKENIZER_SPM: return sluice_spm_encode(e, text);
    case TOKENIZER_BPE: return sluice_bpe_encode(e, text);
    case TOKENIZER_WORDPIECE:
    default: return sluice_wordpiece_encode(e, text);
    }
}

/* Text that may hold user-defined tokens, behind the token `before`. */
static sluice_status encode_text(sluice_encoder *e, sluice_span text, int32_t before)
{
    const sluice_tokenizer *t = e->t;
    size_t begin = 0, at = 0;

    while (t->user_bytes_max > 0 && at < text.len) {
        uint32_t id = SLUICE_TEXT_INDEX_NONE;
        sluice_status st;
        size_t len = 0;

        if (t->user_begins[text.ptr[at]])
            id = sluice_text_index_longest(&t->users, sluice_span_of(text.ptr + at, text.len - at), t->user_bytes_max, &len);
        if (id == SLUICE_TEXT_INDEX_NONE) {
            at++;
            continue;
        }
        st = encode_fragment(e, sluice_span_of(text.ptr + begin, at - begin), before);
        if (st != SLUICE_OK)
            return st;
        sluice_encoder_emit(e, (int32_t)id);
        before = (int32_t)id;
        at += len;
        begin = at;
    }
    return encode_fragment(e, sluice_span_of(text.ptr + begin, text.len - begin), before);
}

static sluice_status encode(const sluice_tokenizer *t, sluice_span text, const sluice_token_mark *marks, size_t n_marks, int32_t *tokens, size_t *n,
                            sluice_error *err)
{
    sluice_encoder e = { t, tokens, *n, 0, NULL, 0, err };
    int32_t before = SLUICE_TOKEN_NONE;
    sluice_status st = SLUICE_OK;
    size_t at = 0;

    *n = 0;
    if (text.len > SLUICE_TOKENIZER_MAX_TEXT)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "tokenizer: a text of %zu bytes; the limit is %d", text.len, SLUICE_TOKENIZER_MAX_TEXT);
    for (size_t i = 0; i < n_marks && st == SLUICE_OK; i++) {
        if (marks[i].at > at)
            st = encode_text(&e, sluice_span_of(text.ptr + at, marks[i].at - at), before);
        sluice_encoder_emit(&e, marks[i].token);
        before = marks[i].token;
        at = marks[i].at;
    }
    if (st == SLUICE_OK && at < text.len)
        st = encode_text(&e, sluice_span_of(text.ptr + at, text.len - at), before);
    sluice_free_wiped(t->al, e.scratch, e.scratch_bytes);
    if (st != SLUICE_OK)
        return st;
    *n = e.n;
    if (e.n > e.capacity)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "tokenizer: the text is %zu tokens; there is room for %zu", e.n, e.capacity);
    return SLUICE_OK;
}

static bool in_range(const sluice_tokenizer *t, int32_t token)
{
    return token >= 0 && (uint32_t)token < t->n_vocab;
}

sluice_status sluice_tokenizer_encode(const sluice_tokenizer *t, sluice_span text, bool add_bos, int32_t *tokens, size_t *n, sluice_error *err)
{
    const sluice_token_mark bos = { 0, t->bos };

    return encode(t, text, &bos, add_bos && t->wants_bos, tokens, n, err);
}

sluice_status sluice_tokenizer_encode_whole(const sluice_tokenizer *t, sluice_span text, int32_t *tokens, size_t *n, sluice_error *err)
{
    sluice_token_mark marks[2];
    size_t n_marks = 0;

    if (t->wants_bos)
        marks[n_marks++] = (sluice_token_mark){ 0, t->bos };
    if (t->wants_eos)
        marks[n_marks++] = (sluice_token_mark){ text.len, t->eos };
    return encode(t, text, marks, n_marks, tokens, n, err);
}

sluice_status sluice_tokenizer_encode_marked(const sluice_tokenizer *t, sluice_span text, const sluice_token_mark *marks, size_t n_marks,
                                             int32_t *tokens, size_t *n, sluice_error *err)
{
    size_t last = 0;

    for (size_t i = 0; i < n_marks; i++) {
        if (!in_range(t, marks[i].token) || marks[i].at < last || marks[i].at > text.len) {
            *n = 0;
            return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "tokenizer: mark %zu does not stand in the text", i);
        }
        last = marks[i].at;
    }
    return encode(t, text, marks, n_marks, tokens, n, err);
}

sluice_status sluice_tokenizer_decode(const sluice_tokenizer *t, const int32_t *tokens, size_t n, sluice_buf *out, sluice_error *err)
{
    bool begins = t->sort != TOKENIZER_BPE && t->add_space_prefix; /* a stretch of text that encode() put a space in front of */
    bool prefixes = begins;

    for (size_t i = 0; i < n; i++) {
        sluice_span s = sluice_tokenizer_bytes(t, tokens[i]);

        if (!in_range(t, tokens[i]))
            return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "tokenizer: token %zu is none of the vocabulary", i);
        if (begins && s.len > 0 && s.ptr[0] == ' ' && (t->types[tokens[i]] == TOKEN_NORMAL || t->types[tokens[i]] == TOKEN_BYTE))
            s = sluice_span_of(s.ptr + 1, s.len - 1);
        begins = prefixes && t->types[tokens[i]] != TOKEN_NORMAL && t->types[tokens[i]] != TOKEN_BYTE && t->types[tokens[i]] != TOKEN_UNKNOWN;
        if (s.len > 0 && !sluice_buf_append_span(out, s))
            return sluice_buf_error(out, "tokenizer: the text", err);
    }
    return SLUICE_OK;
}

/* ---- what a token is ------------------------------------------------------------------------------------- */

/* What chat formats are made of.  Files disagree on the type of these tokens (control, user-defined, normal), and a text that could become
 * one could open a turn of its own.  `has_text`: an answer is read by it.  `ends`: a model that says it has finished. */
static const struct {
    const char *text;
    bool has_text, ends;
} markup[] = {
    { "<|im_end|>", false, true },
    { "<|eot_id|>", false, true },
    { "<|end|>", false, true },
    { "<end_of_turn>", false, true },
    { "<|eom_id|>", false, true },
    { "<|end_of_text|>", false, true },
    { "<|endoftext|>", false, true },
    { "<|EOT|>", false, true },
    { "</s>", false, false },
    { "<s>", false, false },
    { "<bos>", false, false },
    { "<eos>", false, false },
    { "<|begin_of_text|>", false, false },
    { "<|im_start|>", false, false },
    { "<|im_sep|>", false, false },
    { "<|start_header_id|>", false, false },
    { "<|end_header_id|>", false, false },
    { "<start_of_turn>", false, false },
    { "<|system|>", false, false },
    { "<|user|>", false, false },
    { "<|assistant|>", false, false },
    { "<|tool|>", false, false },
    { "[INST]", false, false },
    { "[/INST]", false, false },
    { "[SYSTEM_PROMPT]", false, false },
    { "[/SYSTEM_PROMPT]", false, false },
    { "[AVAILABLE_TOOLS]", false, false },
    { "[/AVAILABLE_TOOLS]", false, false },
    { "[TOOL_RESULTS]", false, false },
    { "[TOOL_CONTENT]", false, false },
    { "[/TOOL_RESULTS]", false, false },
    { "[TOOL_CALLS]", true, false },
    { "[ARGS]", true, false },
    { "<|python_tag|>", true, false },
    { "<think>", true, false },
    { "</think>", true, false },
    { "<tool_call>", true, false },
    { "</tool_call>", true, false },
    { "<tool_response>", true, false },
    { "</tool_response>", true, false },
    { "[CLS]", false, false },
    { "[SEP]", false, false },
    { "[PAD]", false, false },
    { "[MASK]", false, false },
};
enum { N_MARKUP = sizeof markup / sizeof markup[0] };

/* "<|anything|>" as a user-defined token is a mark of some format that is not in the list. */
static bool looks_like_markup(sluice_span raw)
{
    return raw.len > 4 && raw.len <= 64 && memcmp(raw.ptr, "<|", 2) == 0 && memcmp(raw.ptr + raw.len - 2, "|>", 2) == 0 &&
           memchr(raw.ptr, ' ', raw.len) == NULL;
}

static uint32_t settle_type(sluice_span raw, uint32_t type)
{
    if ((type != TOKEN_NORMAL && type != TOKEN_USER && type != TOKEN_CONTROL) || raw.len == 0 || (raw.ptr[0] != '<' && raw.ptr[0] != '['))
        return type;
    for (size_t i = 0; i < N_MARKUP; i++)
        if (sluice_span_eq_str(raw, markup[i].text))
            return markup[i].has_text ? TOKEN_MARKUP : TOKEN_CONTROL;
    return type == TOKEN_USER && looks_like_markup(raw) ? TOKEN_CONTROL : type;
}

/* ---- survey ------------------------------------------------------------------------------------------------ */

enum { ID_BOS, ID_EOS, ID_EOT, ID_EOM, ID_UNKNOWN, ID_SEP, ID_CLS, ID_PAD, ID_MASK, N_IDS };
static const char *const id_keys[N_IDS] = {
    "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",     "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id", "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.seperator_token_id", /* as the format spells it */
    "tokenizer.ggml.cls_token_id", "tokenizer.ggml.padding_token_id", "tokenizer.ggml.mask_token_id",
};

typedef struct survey {
    sluice_tokenizer_sort sort;
    const sluice_gguf_value *tokens, *types; /* types NULL: all normal */
    int32_t ids[N_IDS];
    uint32_t n_vocab, n_words, n_users, n_specials;
    size_t text_bytes;
} survey;

static sluice_status bad(sluice_error *err, uint64_t offset, const char *what, uint32_t token)
{
    sluice_status st = sluice_error_set(err, SLUICE_ERR_FORMAT, "tokenizer: %s (token %" PRIu32 ")", what, token);

    sluice_error_offset(err, offset);
    return st;
}

static sluice_status read_sort(survey *s, const sluice_gguf *g, sluice_error *err)
{
    static const struct {
        const char *name;
        sluice_tokenizer_sort sort;
    } sorts[] = { { "llama", TOKENIZER_SPM }, { "gpt2", TOKENIZER_BPE }, { "bert", TOKENIZER_WORDPIECE } };
    sluice_span name = SLUICE_SPAN_EMPTY;
    sluice_status st = sluice_gguf_get_string(g, "tokenizer.ggml.model", &name, err);

    if (st != SLUICE_OK)
        return st;
    for (size_t i = 0; i < sizeof sorts / sizeof sorts[0]; i++) {
        if (sluice_span_eq_str(name, sorts[i].name)) {
            s->sort = sorts[i].sort;
            return SLUICE_OK;
        }
    }
    st = sluice_error_set(err, SLUICE_ERR_UNSUPPORTED,
                          "tokenizer: the kind \"%.*s\"; this build has \"llama\" (spm), \"gpt2\" (bpe) and \"bert\" (wordpiece)",
                          (int)(name.len < 40 ? name.len : 40), (const char *)name.ptr);
    sluice_error_offset(err, sluice_gguf_find(g, "tokenizer.ggml.model")->offset);
    return st;
}

static sluice_status find_arrays(survey *s, const sluice_gguf *g, sluice_error *err)
{
    static const char key[] = "tokenizer.ggml.token_type";
    sluice_status st = sluice_gguf_get_array(g, "tokenizer.ggml.tokens", SLUICE_GGUF_STRING, &s->tokens, err);

    if (st != SLUICE_OK)
        return st;
    if (s->tokens->count == 0)
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "tokenizer: the vocabulary is empty");
    if (s->tokens->count > SLUICE_TOKENIZER_MAX_VOCAB || s->tokens->data.len > TOKEN_ARRAY_BYTES_MAX)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "tokenizer: %" PRIu64 " tokens in %zu bytes; the limits are %d and %d", s->tokens->count,
                                s->tokens->data.len, SLUICE_TOKENIZER_MAX_VOCAB, TOKEN_ARRAY_BYTES_MAX);
    s->n_vocab = (uint32_t)s->tokens->count;
    s->types = sluice_gguf_find(g, key);
    if (s->types == NULL)
        return SLUICE_OK;
    if (s->types->type == SLUICE_GGUF_ARRAY && (s->types->item_type == SLUICE_GGUF_I32 || s->types->item_type == SLUICE_GGUF_U32) &&
        s->types->count == s->n_vocab)
        return SLUICE_OK;
    st = sluice_error_set(err, SLUICE_ERR_FORMAT, "tokenizer: \"%s\" is not an array of one i32 for each of %" PRIu32 " tokens", key, s->n_vocab);
    sluice_error_offset(err, s->types->offset);
    return st;
}

/* The ids that the file names by key, checked against the vocabulary. */
static sluice_status read_ids(survey *s, const sluice_gguf *g, sluice_error *err)
{
    for (size_t i = 0; i < N_IDS; i++) {
        uint32_t id = UINT32_MAX;
        sluice_status st = sluice_gguf_opt_u32(g, id_keys[i], &id, err);

        s->ids[i] = SLUICE_TOKEN_NONE;
        if (st != SLUICE_OK)
            return st;
        if (sluice_gguf_find(g, id_keys[i]) == NULL)
            continue;
        if (id >= s->n_vocab) {
            st = sluice_error_set(err, SLUICE_ERR_FORMAT, "tokenizer: \"%s\" is %" PRIu32 ", but there are %" PRIu32 " tokens", id_keys[i], id,
                                  s->n_vocab);
            sluice_error_offset(err, sluice_gguf_find(g, id_keys[i])->offset);
            return st;
        }
        s->ids[i] = (int32_t)id;
    }
    return SLUICE_OK;
}

/* Whatever the file calls a token that it names by key, text must not become it.  The type was checked by walk(). */
static uint32_t type_of(const survey *s, uint32_t token, sluice_span raw)
{
    uint32_t type = s->types != NULL ? sluice_gguf_array_u32(s->types, token) : TOKEN_NORMAL;

    for (size_t i = 0; i < N_IDS; i++)
        if (s->ids[i] == (int32_t)token && type != TOKEN_UNKNOWN)
            return i == ID_UNKNOWN ? TOKEN_UNKNOWN : TOKEN_CONTROL;
    return settle_type(raw, type);
}

/* What a token says, or how it is written when it says nothing. *is_word: text can become it. */
static size_t spell_token(const survey *s, uint32_t type, sluice_span raw, uint8_t *out, bool *is_word)
{
    size_t n = raw.len;

    *is_word = false;
    if (type == TOKEN_NORMAL)
        *is_word = s->sort == TOKENIZER_BPE ? sluice_bpe_token_text(raw, out, &n) : sluice_spm_token_text(raw, out, &n);
    else if (raw.len > 0)
        memcpy(out, raw.ptr, raw.len);
    *is_word = *is_word && n > 0;
    return n;
}

static sluice_status walk(survey *s, sluice_error *err)
{
    uint64_t cursor = 0;

    for (uint32_t i = 0; i < s->n_vocab; i++) {
        uint8_t bytes[TOKEN_BYTES_MAX];
        bool is_word = false;
        sluice_span raw;
        uint32_t type;

        if (!sluice_gguf_array_next_string(s->tokens, &cursor, &raw))
            return bad(err, s->tokens->offset, "the vocabulary ends early", i);
        if (raw.len > TOKEN_BYTES_MAX) {
            sluice_status st =
                sluice_error_set(err, SLUICE_ERR_LIMIT, "tokenizer: token %" PRIu32 " has %zu bytes; the limit is %d", i, raw.len, TOKEN_BYTES_MAX);

            sluice_error_offset(err, s->tokens->offset);
            return st;
        }
        if (s->types != NULL && sluice_gguf_array_u32(s->types, i) > TOKEN_BYTE)
            return bad(err, s->types->offset, "unknown token type", i);
        type = type_of(s, i, raw);
        s->text_bytes += type == TOKEN_BYTE ? 1 : spell_token(s, type, raw, bytes, &is_word);
        s->n_words += is_word;
        s->n_users += type == TOKEN_USER && raw.len > 0;
        s->n_specials += type == TOKEN_CONTROL || type == TOKEN_MARKUP;
    }
    return SLUICE_OK;
}

static sluice_status make_survey(survey *s, const sluice_gguf *g, sluice_error *err)
{
    sluice_status st;

    memset(s, 0, sizeof *s);
    st = read_sort(s, g, err);
    if (st == SLUICE_OK)
        st = find_arrays(s, g, err);
    if (st == SLUICE_OK)
        st = read_ids(s, g, err);
    return st == SLUICE_OK ? walk(s, err) : st;
}

uint64_t sluice_tokenizer_estimate_bytes(const sluice_gguf *g)
{
    const sluice_gguf_value *merges = sluice_gguf_find(g, "tokenizer.ggml.merges");
    uint64_t bytes = sizeof(sluice_tokenizer);
    survey s;

    if (make_survey(&s, g, NULL) != SLUICE_OK)
        return 0;
    bytes += s.n_vocab + s.text_bytes + ((uint64_t)s.n_vocab + 1) * sizeof(uint32_t);
    bytes += sluice_text_index_bytes(s.n_words) + sluice_text_index_bytes(s.n_users) + sluice_text_index_bytes(s.n_specials);
    if (s.sort == TOKENIZER_BPE && merges != NULL)
        bytes += sluice_bpe_merge_bytes(merges->count);
    return bytes;
}

/* ---- fill ------------------------------------------------------------------------------------------------- */

sluice_span sluice_tokenizer_text(const void *tokenizer, uint32_t token)
{
    const sluice_tokenizer *t = tokenizer;

    return sluice_span_of(t->text + t->text_at[token], t->text_at[token + 1] - t->text_at[token]);
}

static sluice_status no_memory(sluice_error *err)
{
    return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "tokenizer: no memory for the vocabulary");
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

static sluice_status allocate(sluice_tokenizer *t, const survey *s, sluice_error *err)
{
    t->n_vocab = s->n_vocab; /* from here close() knows the sizes */
    t->text_bytes = s->text_bytes > 0 ? s->text_bytes : 1;
    t->types = sluice_alloc(t->al, t->n_vocab);
    t->text = sluice_alloc(t->al, t->text_bytes);
    t->text_at = sluice_alloc_array(t->al, (size_t)t->n_vocab + 1, sizeof *t->text_at);
    if (t->types == NULL || t->text == NULL || t->text_at == NULL ||
        !sluice_text_index_init(&t->words, s->n_words, sluice_tokenizer_text, t, t->al) ||
        !sluice_text_index_init(&t->users, s->n_users, sluice_tokenizer_text, t, t->al) ||
        !sluice_text_index_init(&t->specials, s->n_specials, sluice_tokenizer_text, t, t->al))
        return no_memory(err);
    return SLUICE_OK;
}

static sluice_status enter(sluice_text_index *ix, uint32_t token, uint64_t offset, const char *twice, sluice_error *err)
{
    switch (sluice_text_index_add(ix, token)) {
    case SLUICE_TEXT_ADDED: return SLUICE_OK;
    case SLUICE_TEXT_DUPLICATE: return twice != NULL ? bad(err, offset, twice, token) : SLUICE_OK;
    case SLUICE_TEXT_EXHAUSTED:
    default: return bad(err, offset, "the tokens are made to collide", token);
    }
}

static void raise_to(uint32_t *max, size_t len)
{
    if (len > *max)
        *max = (uint32_t)len;
}

static sluice_status fill_token(sluice_tokenizer *t, const survey *s, uint32_t i, sluice_span raw, sluice_error *err)
{
    uint64_t offset = s->tokens->offset;
    uint8_t *out = t->text + t->text_at[i];
    bool is_word = false;
    size_t len = 1;

    t->types[i] = (uint8_t)type_of(s, i, raw);
    if (t->types[i] == TOKEN_BYTE) {
        if (!byte_token_value(raw, out))
            return bad(err, offset, "a byte token that is not written <0xHH>", i);
        t->byte_ids[*out] = (int32_t)i;
    } else {
        len = spell_token(s, t->types[i], raw, out, &is_word);
    }
    t->text_at[i + 1] = t->text_at[i] + (uint32_t)len;
    if (is_word) {
        if (t->sort == TOKENIZER_BPE && len == 1)
            t->byte_ids[*out] = (int32_t)i;
        raise_to(&t->word_bytes_max, len);
        return enter(&t->words, i, offset, "two tokens have the same text", err);
    }
    switch (t->types[i]) {
    case TOKEN_USER:
        if (len == 0)
            return SLUICE_OK;
        t->user_begins[*out] = true;
        raise_to(&t->user_bytes_max, len);
        return enter(&t->users, i, offset, "two user-defined tokens have the same text", err);
    case TOKEN_CONTROL:
    case TOKEN_MARKUP:
        raise_to(&t->special_bytes_max, len);
        return enter(&t->specials, i, offset, NULL, err); /* written the same: the first is the one */
    default: return SLUICE_OK;
    }
}

static sluice_status fill(sluice_tokenizer *t, const survey *s, sluice_error *err)
{
    sluice_status st = allocate(t, s, err);
    uint64_t cursor = 0;
    sluice_span raw;

    for (uint32_t i = 0; i < s->n_vocab && st == SLUICE_OK; i++) {
        if (!sluice_gguf_array_next_string(s->tokens, &cursor, &raw))
            return bad(err, s->tokens->offset, "the vocabulary ends early", i);
        st = fill_token(t, s, i, raw, err);
    }
    return st;
}

/* ---- ids --------------------------------------------------------------------------------------------------- */

static void add_end(sluice_tokenizer *t, int32_t token)
{
    for (size_t i = 0; i < t->n_ends; i++)
        if (t->ends[i] == token)
            return;
    if (token != SLUICE_TOKEN_NONE && t->n_ends < TOKENIZER_ENDS_MAX)
        t->ends[t->n_ends++] = token;
}

/* Chat models end a turn with a token of its own that older files do not name by key; the first in the list is the end of turn, and
 * generation ends at any of them, as the models do not keep to one. */
static void settle_ids(sluice_tokenizer *t, const survey *s)
{
    bool is_wordpiece = s->sort == TOKENIZER_WORDPIECE;

    t->bos = s->ids[ID_BOS];
    t->eos = s->ids[ID_EOS];
    t->eot = s->ids[ID_EOT];
    t->unknown = s->ids[ID_UNKNOWN];
    if (is_wordpiece) {
        t->bos = s->ids[ID_CLS] != SLUICE_TOKEN_NONE ? s->ids[ID_CLS] : t->bos;
        t->eos = s->ids[ID_SEP] != SLUICE_TOKEN_NONE ? s->ids[ID_SEP] : t->eos;
        if (t->bos == SLUICE_TOKEN_NONE)
            t->bos = sluice_tokenizer_special(t, SLUICE_SPAN_LIT("[CLS]"));
        if (t->eos == SLUICE_TOKEN_NONE)
            t->eos = sluice_tokenizer_special(t, SLUICE_SPAN_LIT("[SEP]"));
    }
    add_end(t, t->eos);
    add_end(t, t->eot);
    add_end(t, s->ids[ID_EOM]);
    for (size_t i = 0; i < N_MARKUP; i++) {
        int32_t id = markup[i].ends ? sluice_tokenizer_special(t, sluice_span_str(markup[i].text)) : SLUICE_TOKEN_NONE;

        if (id != SLUICE_TOKEN_NONE && t->eot == SLUICE_TOKEN_NONE && id != t->eos)
            t->eot = id;
        add_end(t, id);
    }
}

/* Phi-3's own tokenizer drops white space behind its special tokens; the file tells only by whose it is. */
static bool is_phi3(const sluice_gguf *g)
{
    sluice_span architecture = SLUICE_SPAN_EMPTY;

    (void)sluice_gguf_opt_string(g, "general.architecture", &architecture, NULL);
    return sluice_span_eq_str(architecture, "phi3");
}

static sluice_status read_flags(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err)
{
    sluice_status st = sluice_gguf_opt_bool(g, "tokenizer.ggml.add_bos_token", &t->wants_bos, err);

    if (st == SLUICE_OK)
        st = sluice_gguf_opt_bool(g, "tokenizer.ggml.add_eos_token", &t->wants_eos, err);
    t->wants_bos = t->wants_bos && t->bos != SLUICE_TOKEN_NONE;
    t->wants_eos = t->wants_eos && t->eos != SLUICE_TOKEN_NONE;
    t->strips_after_special = t->sort == TOKENIZER_SPM && is_phi3(g);
    return st;
}

static sluice_status read_vocabulary(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err)
{
    survey s;
    sluice_status st = make_survey(&s, g, err);

    t->sort = s.sort;
    if (st == SLUICE_OK)
        st = fill(t, &s, err);
    if (st != SLUICE_OK)
        return st;
    settle_ids(t, &s);
    switch (t->sort) {
    case TOKENIZER_SPM: st = sluice_spm_open(t, g, err); break;
    case TOKENIZER_BPE: st = sluice_bpe_open(t, g, err); break;
    case TOKENIZER_WORDPIECE:
    default: st = sluice_wordpiece_open(t, g, err); break;
    }
    return st == SLUICE_OK ? read_flags(t, g, err) : st;
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
    sluice_free(t->al, t->types, t->n_vocab);
    sluice_free(t->al, t->text, t->text_bytes);
    sluice_free(t->al, t->text_at, ((size_t)t->n_vocab + 1) * sizeof *t->text_at);
    sluice_free(t->al, t->merges, t->n_merges * sizeof *t->merges);
    sluice_free(t->al, t->merge_slots, t->n_merge_slots * sizeof *t->merge_slots);
    if (t->words.n_slots != 0)
        sluice_text_index_deinit(&t->words);
    if (t->users.n_slots != 0)
        sluice_text_index_deinit(&t->users);
    if (t->specials.n_slots != 0)
        sluice_text_index_deinit(&t->specials);
    sluice_free(t->al, t, sizeof *t);
}

/* ---- questions -------------------------------------------------------------------------------------------- */

const sluice_allocator *sluice_tokenizer_allocator(const sluice_tokenizer *t)
{
    return t->al;
}

const char *sluice_tokenizer_kind(const sluice_tokenizer *t)
{
    switch (t->sort) {
    case TOKENIZER_SPM: return "spm";
    case TOKENIZER_BPE: return "bpe";
    case TOKENIZER_WORDPIECE:
    default: return "wordpiece";
    }
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
    for (size_t i = 0; i < t->n_ends; i++)
        if (t->ends[i] == token)
            return true;
    return false;
}

bool sluice_tokenizer_is_control(const sluice_tokenizer *t, int32_t token)
{
    if (!in_range(t, token))
        return true;
    switch (t->types[token]) {
    case TOKEN_NORMAL:
    case TOKEN_USER:
    case TOKEN_BYTE:
    case TOKEN_MARKUP: return false;
    default: return true;
    }
}

bool sluice_tokenizer_is_markup(const sluice_tokenizer *t, int32_t token)
{
    return in_range(t, token) && (t->types[token] == TOKEN_CONTROL || t->types[token] == TOKEN_MARKUP);
}

bool sluice_tokenizer_wants_bos(const sluice_tokenizer *t)
{
    return t->wants_bos;
}

bool sluice_tokenizer_wants_eos(const sluice_tokenizer *t)
{
    return t->wants_eos;
}

sluice_span sluice_tokenizer_bytes(const sluice_tokenizer *t, int32_t token)
{
    return sluice_tokenizer_is_control(t, token) ? SLUICE_SPAN_EMPTY : sluice_tokenizer_text(t, (uint32_t)token);
}

static int32_t found(uint32_t id)
{
    return id != SLUICE_TEXT_INDEX_NONE ? (int32_t)id : SLUICE_TOKEN_NONE;
}

int32_t sluice_tokenizer_special(const sluice_tokenizer *t, sluice_span text)
{
    return found(sluice_text_index_find(&t->specials, text));
}

int32_t sluice_tokenizer_special_at(const sluice_tokenizer *t, sluice_span text, size_t *len)
{
    *len = 0;
    return found(sluice_text_index_longest(&t->specials, text, t->special_bytes_max, len));
}

int32_t sluice_tokenizer_find(const sluice_tokenizer *t, sluice_span text)
{
    return found(sluice_text_index_find(&t->words, text));
}
