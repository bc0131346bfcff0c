/* tokenizer_bpe.c - byte-level byte-pair encoding by merge rank (tokenizer.ggml.model = "gpt2").
 *
 * A pre-tokenizer cuts the text into words; inside a word every byte is a symbol, and the pair that stands first in the list of merges
 * merges first.  Vocabularies are written in an alphabet of 256 printable characters, one for each byte; it is undone once, on
 * opening, so that encoding works on bytes and token numbers alone: a merge is (left token, right token) -> token.
 *
 * The pre-tokenizers are the regular expressions of the models' authors, written out as loops: each is one pass with a bounded look
 * ahead, so that no text can make it backtrack.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>

#include "local-engine/tokenizer_impl.h"
#include "local-engine/unicode.h"

enum { MERGES_MAX = 1 << 20, MERGE_BUDGET_PER_ENTRY = 32, MERGE_BUDGET_BASE = 4096 };

/* ---- pre-tokenizers ------------------------------------------------------------------------------------- */

/* A code point in its text.  Past the end: len 0, and a class that is none. */
enum { CLASS_END = 7 };
typedef struct place {
    uint32_t code_point, len;
    int cls;
} place;

static place look(sluice_span s, size_t at)
{
    place p = { 0, 0, CLASS_END };

    if (at < s.len) {
        p.code_point = sluice_unicode_decode(s, at, &p.len);
        p.cls = (int)sluice_unicode_class_of(p.code_point);
    }
    return p;
}

static bool is_symbol(int cls) /* [^\s\p{L}\p{N}] */
{
    return cls == SLUICE_UNICODE_OTHER || cls == SLUICE_UNICODE_PUNCTUATION;
}

/* The end of the run of characters of this class (symbols and punctuation count as one) that begins at `at`. */
static size_t run_end(sluice_span s, size_t at, int cls)
{
    place p = look(s, at);

    while (p.len > 0 && (p.cls == cls || (is_symbol(cls) && is_symbol(p.cls)))) {
        at += p.len;
        p = look(s, at);
    }
    return at;
}

/* Length of 's 't 'm 'd 're 've 'll at `at`, else 0. */
static size_t contraction(sluice_span s, size_t at, bool any_case)
{
    uint8_t a, b = 0, fold = any_case ? 0x20 : 0;

    if (s.ptr[at] != '\'' || s.len - at < 2)
        return 0;
    a = s.ptr[at + 1];
    if (a >= 'A' && a <= 'Z')
        a |= fold;
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    if (s.len - at < 3)
        return 0;
    b = s.ptr[at + 2];
    if (b >= 'A' && b <= 'Z')
        b |= fold;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* \s+(?!\S)|\s+ : a run of white space leaves its last character to the word that follows, where there is one. */
static size_t space_run_end(sluice_span s, size_t at)
{
    size_t end = at, last = at;
    place p = look(s, end);

    while (p.cls == SLUICE_UNICODE_SPACE) {
        last = end;
        end += p.len;
        p = look(s, end);
    }
    return p.len > 0 && last > at ? last : end;
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
static size_t split_gpt2(sluice_span s, size_t at)
{
    size_t n = contraction(s, at, false);
    place p = look(s, at);

    if (n > 0)
        return at + n;
    if (p.code_point == ' ') {
        place next = look(s, at + 1);

        if (next.len > 0 && next.cls != SLUICE_UNICODE_SPACE)
            return run_end(s, at + 1, next.cls);
    }
    if (p.cls == SLUICE_UNICODE_SPACE)
        return space_run_end(s, at);
    return run_end(s, at, p.cls);
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,max}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
static size_t split_llama3(sluice_span s, size_t at, int digits_max)
{
    size_t n = contraction(s, at, true), line_end = 0, end;
    place p = look(s, at), next = look(s, at + p.len);

    if (n > 0)
        return at + n;
    if (p.cls == SLUICE_UNICODE_LETTER)
        return run_end(s, at, SLUICE_UNICODE_LETTER);
    if (p.code_point != '\r' && p.code_point != '\n' && p.cls != SLUICE_UNICODE_NUMBER && next.cls == SLUICE_UNICODE_LETTER)
        return run_end(s, at + p.len, SLUICE_UNICODE_LETTER);
    if (p.cls == SLUICE_UNICODE_NUMBER) {
        for (int i = 0; i < digits_max && p.cls == SLUICE_UNICODE_NUMBER; i++) {
            at += p.len;
            p = look(s, at);
        }
        return at;
    }
    if (is_symbol(p.cls) || (p.code_point == ' ' && is_symbol(next.cls))) {
        at = run_end(s, p.code_point == ' ' ? at + 1 : at, SLUICE_UNICODE_OTHER);
        while (at < s.len && (s.ptr[at] == '\r' || s.ptr[at] == '\n'))
            at++;
        return at;
    }
    end = run_end(s, at, SLUICE_UNICODE_SPACE);
    for (size_t i = at; i < end; i++)
        if (s.ptr[i] == '\r' || s.ptr[i] == '\n')
            line_end = i + 1;
    return line_end > 0 ? line_end : space_run_end(s, at);
}

static size_t split_llama_bpe(sluice_span s, size_t at)
{
    return split_llama3(s, at, 3);
}

static size_t split_qwen2(sluice_span s, size_t at)
{
    return split_llama3(s, at, 1);
}

/* The end of the run of what is not a number. */
static size_t number_free_end(sluice_span s, size_t at)
{
    place p = look(s, at);

    while (p.len > 0 && p.cls != SLUICE_UNICODE_NUMBER) {
        at += p.len;
        p = look(s, at);
    }
    return at;
}

static size_t split_each_number(sluice_span s, size_t at) /* \p{N} */
{
    place p = look(s, at);

    return p.cls == SLUICE_UNICODE_NUMBER ? at + p.len : number_free_end(s, at);
}

static size_t split_numbers(sluice_span s, size_t at) /* \p{N}+ */
{
    return look(s, at).cls == SLUICE_UNICODE_NUMBER ? run_end(s, at, SLUICE_UNICODE_NUMBER) : number_free_end(s, at);
}

static bool three_digits(sluice_span s, size_t at)
{
    if (s.len - at < 3)
        return false;
    for (size_t i = at; i < at + 3; i++)
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
    return true;
}

static size_t split_three_digits(sluice_span s, size_t at) /* [0-9][0-9][0-9] */
{
    if (three_digits(s, at))
        return at + 3;
    while (at < s.len && !three_digits(s, at))
        at++;
    return at;
}

/* [\p{P}\$\+<=>\^~\|]+ and, for Falcon, ` as well */
static bool is_mark(place p, bool falcon)
{
    if (p.cls == SLUICE_UNICODE_PUNCTUATION)
        return true;
    return p.len == 1 && p.code_point != 0 && (strchr("$+<=>^~|", (int)p.code_point) != NULL || (falcon && p.code_point == '`'));
}

static size_t split_marks_of(sluice_span s, size_t at, bool falcon)
{
    place p = look(s, at);
    bool mark = is_mark(p, falcon);

    while (p.len > 0 && is_mark(p, falcon) == mark) {
        at += p.len;
        p = look(s, at);
    }
    return at;
}

static size_t split_marks(sluice_span s, size_t at)
{
    return split_marks_of(s, at, false);
}

static size_t split_marks_falcon(sluice_span s, size_t at)
{
    return split_marks_of(s, at, true);
}

static const sluice_pre_tokenizer pre_tokenizers[] = {
    { "gpt-2", { split_gpt2, NULL, NULL, NULL }, false, false },
    { "default", { split_marks, split_gpt2, split_numbers, split_three_digits }, false, false },
    { "phi-2", { split_gpt2, NULL, NULL, NULL }, false, false },
    { "mpt", { split_gpt2, NULL, NULL, NULL }, false, false },
    { "olmo", { split_gpt2, NULL, NULL, NULL }, false, false },
    { "llama-bpe", { split_llama_bpe, NULL, NULL, NULL }, true, true },
    { "llama3", { split_llama_bpe, NULL, NULL, NULL }, true, true },
    { "qwen2", { split_qwen2, NULL, NULL, NULL }, false, false },
    { "deepseek-r1-qwen", { split_qwen2, NULL, NULL, NULL }, false, false },
    { "smollm", { split_each_number, split_gpt2, NULL, NULL }, false, false },
    { "starcoder", { split_each_number, split_gpt2, NULL, NULL }, false, false },
    { "refact", { split_each_number, split_gpt2, NULL, NULL }, false, false },
    { "command-r", { split_each_number, split_gpt2, NULL, NULL }, false, false },
    { "falcon", { split_marks_falcon, split_gpt2, split_three_digits, NULL }, false, false },
};

/* A file that does not say gets the original: GPT-2's. */
static sluice_status read_pre_tokenizer(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err)
{
    sluice_span name = SLUICE_SPAN_LIT("gpt-2");
    sluice_status st = sluice_gguf_opt_string(g, "tokenizer.ggml.pre", &name, err);

    if (st != SLUICE_OK)
        return st;
    for (size_t i = 0; i < sizeof pre_tokenizers / sizeof pre_tokenizers[0]; i++) {
        if (sluice_span_eq_str(name, pre_tokenizers[i].name)) {
            t->pre = &pre_tokenizers[i];
            return SLUICE_OK;
        }
    }
    st = sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "tokenizer: the pre-tokenizer \"%.*s\" (tokenizer.ggml.pre) is not in this build",
                          (int)(name.len < 40 ? name.len : 40), (const char *)name.ptr);
    sluice_error_hint(err, "it has gpt-2, default, llama-bpe, qwen2, smollm, starcoder, refact, command-r, falcon, phi-2, mpt, olmo");
    sluice_error_offset(err, sluice_gguf_find(g, "tokenizer.ggml.pre")->offset);
    return st;
}

/* ---- byte alphabet ---------------------------------------------------------------------------------------- */

/* The printable bytes of Latin-1 stand for themselves; the other 68 are U+0100, U+0101 … in their order. */
static bool alphabet_byte(uint32_t c, uint8_t *out)
{
    if ((c >= 33 && c <= 126) || (c >= 161 && c <= 172) || (c >= 174 && c <= 255)) {
        *out = (uint8_t)c;
        return true;
    }
    if (c < 256 || c > 256 + 67)
        return false;
    c -= 256;
    *out = (uint8_t)(c < 33 ? c : c < 67 ? c - 33 + 127 : 173);
    return true;
}

bool sluice_bpe_token_text(sluice_span raw, uint8_t *out, size_t *n)
{
    size_t i = 0;

    for (*n = 0; i < raw.len; (*n)++) {
        uint32_t len, c = sluice_unicode_decode(raw, i, &len);

        if (!alphabet_byte(c, &out[*n])) {
            memcpy(out, raw.ptr, raw.len);
            *n = raw.len;
            return false;
        }
        i += len;
    }
    return true;
}

/* ---- merges ---------------------------------------------------------------------------------------------- */

static uint32_t merge_slots_for(uint64_t n)
{
    uint32_t slots = 16;

    while (slots / 2 < n && slots < 1u << 30)
        slots *= 2;
    return slots;
}

uint64_t sluice_bpe_merge_bytes(uint64_t n_merges)
{
    uint64_t n = n_merges < MERGES_MAX ? n_merges : MERGES_MAX;

    return n * sizeof(sluice_bpe_merge) + merge_slots_for(n) * sizeof(uint32_t);
}

static uint32_t pair_hash(int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;

    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    return (uint32_t)(h >> 32);
}

/* The slot of this pair: one that holds it, or the free one where it belongs.  *budget counts down; UINT32_MAX when it is used up. */
static uint32_t find_slot(const sluice_tokenizer *t, int32_t left, int32_t right, uint64_t *budget)
{
    uint32_t mask = t->n_merge_slots - 1;

    for (uint32_t at = pair_hash(left, right) & mask;; at = (at + 1) & mask) {
        uint32_t rank = t->merge_slots[at];

        if (rank == 0 || (t->merges[rank - 1].left == left && t->merges[rank - 1].right == right))
            return at;
        if (*budget == 0)
            return UINT32_MAX;
        --*budget;
    }
}

/* "left right": the two sides of a merge, both written in the byte alphabet, which has no space. */
static bool cut_merge(sluice_span text, sluice_span *left, sluice_span *right)
{
    const uint8_t *space = text.len > 0 ? memchr(text.ptr, ' ', text.len) : NULL;

    if (space == NULL)
        return false;
    *left = sluice_span_of(text.ptr, (size_t)(space - text.ptr));
    *right = sluice_span_of(space + 1, text.len - left->len - 1);
    return left->len > 0 && right->len > 0 && memchr(right->ptr, ' ', right->len) == NULL && left->len <= TOKEN_BYTES_MAX &&
           right->len <= TOKEN_BYTES_MAX;
}

/* Both sides and what they make must be tokens that text can become: a merge may not end in a control token. */
static bool resolve_merge(const sluice_tokenizer *t, sluice_span text, sluice_bpe_merge *out)
{
    uint8_t left_bytes[TOKEN_BYTES_MAX], right_bytes[TOKEN_BYTES_MAX];
    sluice_span left, right;
    size_t n_left, n_right;
    uint32_t a, b, ab;

    if (!cut_merge(text, &left, &right) || !sluice_bpe_token_text(left, left_bytes, &n_left) || !sluice_bpe_token_text(right, right_bytes, &n_right))
        return false;
    left = sluice_span_of(left_bytes, n_left);
    right = sluice_span_of(right_bytes, n_right);
    a = sluice_text_index_find(&t->words, left);
    b = sluice_text_index_find(&t->words, right);
    ab = sluice_text_index_find2(&t->words, left, right);
    *out = (sluice_bpe_merge){ (int32_t)a, (int32_t)b, (int32_t)ab };
    return a != SLUICE_TEXT_INDEX_NONE && b != SLUICE_TEXT_INDEX_NONE && ab != SLUICE_TEXT_INDEX_NONE;
}

static sluice_status bad_merge(sluice_error *err, const sluice_gguf_value *merges, uint32_t rank, const char *what)
{
    sluice_status st = sluice_error_set(err, SLUICE_ERR_FORMAT, "tokenizer: merge %" PRIu32 " %s", rank, what);

    sluice_error_offset(err, merges->offset);
    return st;
}

static sluice_status read_merges(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err)
{
    const sluice_gguf_value *merges = NULL;
    uint64_t cursor = 0, budget;
    sluice_status st = sluice_gguf_get_array(g, "tokenizer.ggml.merges", SLUICE_GGUF_STRING, &merges, err);

    if (st != SLUICE_OK)
        return st;
    if (merges->count > MERGES_MAX)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "tokenizer: %" PRIu64 " merges; the limit is %d", merges->count, MERGES_MAX);
    if (merges->count == 0)
        return SLUICE_OK;
    t->n_merges = (uint32_t)merges->count;
    t->n_merge_slots = merge_slots_for(t->n_merges);
    t->merges = sluice_alloc_array(t->al, t->n_merges, sizeof *t->merges);
    t->merge_slots = sluice_alloc_array(t->al, t->n_merge_slots, sizeof *t->merge_slots);
    if (t->merges == NULL || t->merge_slots == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "tokenizer: no memory for %" PRIu32 " merges", t->n_merges);
    budget = (uint64_t)t->n_merges * MERGE_BUDGET_PER_ENTRY + MERGE_BUDGET_BASE;
    for (uint32_t rank = 0; rank < t->n_merges; rank++) {
        sluice_bpe_merge *m = &t->merges[rank];
        sluice_span text;
        uint32_t slot;

        if (!sluice_gguf_array_next_string(merges, &cursor, &text) || !resolve_merge(t, text, m))
            return bad_merge(err, merges, rank, "is not two tokens that make a third");
        slot = find_slot(t, m->left, m->right, &budget);
        if (slot == UINT32_MAX)
            return bad_merge(err, merges, rank, "collides: the list is made to be slow");
        if (t->merge_slots[slot] == 0) /* said twice: the first counts */
            t->merge_slots[slot] = rank + 1;
    }
    return SLUICE_OK;
}

sluice_status sluice_bpe_open(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err)
{
    uint64_t offset = sluice_gguf_find(g, "tokenizer.ggml.tokens")->offset;
    sluice_status st = read_pre_tokenizer(t, g, err);

    if (st != SLUICE_OK)
        return st;
    t->wants_bos = t->pre->wants_bos;
    if (!sluice_text_index_init(&t->words, t->n_vocab, sluice_tokenizer_text, t, t->al))
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "tokenizer: no memory for the index of %" PRIu32 " tokens", t->n_vocab);
    for (uint32_t i = 0; i < t->n_vocab && st == SLUICE_OK; i++) {
        uint8_t bytes[TOKEN_BYTES_MAX];
        sluice_span text = sluice_tokenizer_text(t, i);
        size_t n;

        if (t->types[i] != TOKEN_NORMAL || text.len == 0 || !sluice_bpe_token_text(sluice_tokenizer_raw(t, i), bytes, &n))
            continue; /* a normal token that is not written in the alphabet cannot come out of a merge */
        st = sluice_tokenizer_add_word(t, i, offset, err);
        if (text.len == 1)
            t->byte_ids[text.ptr[0]] = (int32_t)i;
    }
    if (st == SLUICE_OK)
        st = read_merges(t, g, err);
    if (!t->pre->whole_words)
        sluice_text_index_deinit(&t->words);
    return st;
}

/* ---- encoding -------------------------------------------------------------------------------------------- */

static bool pair(const sluice_tokenizer *t, sluice_span text, const sluice_symbol *a, const sluice_symbol *b, sluice_merge_candidate *out)
{
    uint64_t budget = UINT64_MAX;
    uint32_t rank;

    (void)text;
    if (t->n_merges == 0 || a->id == SLUICE_TOKEN_NONE || b->id == SLUICE_TOKEN_NONE)
        return false;
    rank = t->merge_slots[find_slot(t, a->id, b->id, &budget)];
    if (rank == 0)
        return false;
    out->key = rank;
    out->id = t->merges[rank - 1].merged;
    return true;
}

static sluice_status encode_word(sluice_encoder *e, sluice_span word)
{
    const sluice_tokenizer *t = e->t;
    sluice_status st = SLUICE_OK;
    sluice_symbol *symbols;
    uint32_t id;

    if (t->pre->whole_words && word.len <= TOKEN_BYTES_MAX) {
        id = sluice_text_index_find(&t->words, word);
        if (id != SLUICE_TEXT_INDEX_NONE) {
            sluice_encoder_emit(e, (int32_t)id);
            return SLUICE_OK;
        }
    }
    symbols = sluice_encoder_scratch(e, word.len * MERGE_SCRATCH_BYTES); /* a word is at most a text: no overflow */
    if (symbols == NULL)
        return SLUICE_ERR_NO_MEMORY;
    for (size_t i = 0; i < word.len; i++)
        symbols[i] = (sluice_symbol){ (uint32_t)i, 1, t->byte_ids[word.ptr[i]], 0, 0 };
    sluice_link_symbols(symbols, word.len);
    sluice_merge_symbols(t, word, symbols, word.len, (sluice_merge_candidate *)(void *)(symbols + word.len), pair);
    for (size_t i = 0; i < word.len && st == SLUICE_OK; i = symbols[i].next != UINT32_MAX ? symbols[i].next : word.len) {
        if (symbols[i].id != SLUICE_TOKEN_NONE)
            sluice_encoder_emit(e, symbols[i].id);
        else
            st = sluice_encoder_emit_byte(e, word.ptr[symbols[i].start]);
    }
    return st;
}

/* Cut by the stages from `stage` on; at most four deep. */
static sluice_status encode_stages(sluice_encoder *e, sluice_span text, size_t stage)
{
    const sluice_pre_tokenizer *pre = e->t->pre;
    sluice_status st = SLUICE_OK;

    if (stage == sizeof pre->stages / sizeof pre->stages[0] || pre->stages[stage] == NULL)
        return encode_word(e, text);
    for (size_t at = 0; at < text.len && st == SLUICE_OK;) {
        size_t end = pre->stages[stage](text, at);

        st = encode_stages(e, sluice_span_of(text.ptr + at, end - at), stage + 1);
        at = end;
    }
    return st;
}

sluice_status sluice_bpe_encode(sluice_encoder *e, sluice_span text)
{
    return encode_stages(e, text, 0);
}
