/* constraint_vocab.c - the vocabulary as tries, and what each token does inside a string.
 *
 * Most of the text of a JSON value is inside strings, where most of a vocabulary is allowed.  So every token is walked once through the automaton of strings: those
 * that stay inside are a ready-made mask, and those that close the string are sorted by what they do after that, which is all that depends on
 * where the string stands.
 *
 * Built in O(bytes + n log n); the tries take 8 bytes a node.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/constraint_impl.h"

/* ---- strings: UTF-8 (RFC 3629, section 4), escapes without \u0000 and with surrogates in pairs only */

enum {
    U1 = 1, /* one continuation byte to go */
    U2,
    U2_E0,
    U2_ED,
    U3,
    U3_F0,
    U3_F4,
    ESC = SLUICE_STR_ESCAPE,
    X4,
    X3_0,
    X2_0,
    X1_0, /* digits of \u to go; _0: zeros so far */
    X3,
    X2,
    X1,
    X3_D, /* after a 'd': perhaps a surrogate */
    H2,
    H1, /* digits of a high surrogate to go */
    LB,
    LU,
    LD,
    LC, /* of a low one: backslash, u, d, c … f */
    L2,
    L1
};

const uint8_t sluice_string_rest[SLUICE_STR_STATES] = {
    [SLUICE_STR_GROUND] = 0,
    [U1] = 1,
    [U2] = 2,
    [U2_E0] = 2,
    [U2_ED] = 2,
    [U3] = 3,
    [U3_F0] = 3,
    [U3_F4] = 3,
    [ESC] = 1,
    [X4] = 4,
    [X3_0] = 3,
    [X2_0] = 2,
    [X1_0] = 1,
    [X3] = 3,
    [X2] = 2,
    [X1] = 1,
    [X3_D] = 3,
    [H2] = 8,
    [H1] = 7,
    [LB] = 6,
    [LU] = 5,
    [LD] = 4,
    [LC] = 3,
    [L2] = 2,
    [L1] = 1,
};

static int hex_value(uint32_t c)
{
    return c >= '0' && c <= '9' ? (int)c - '0' : c >= 'a' && c <= 'f' ? (int)c - 'a' + 10 : c >= 'A' && c <= 'F' ? (int)c - 'A' + 10 : -1;
}

static uint32_t step_ground(uint32_t b)
{
    if (b == '"')
        return SLUICE_STR_QUOTE;
    if (b == '\\')
        return ESC;
    if (b < 0x80)
        return b < 0x20 ? SLUICE_STR_DEAD : SLUICE_STR_GROUND;
    if (b < 0xc2 || b > 0xf4)
        return SLUICE_STR_DEAD;
    if (b < 0xe0)
        return U1;
    if (b < 0xf0)
        return b == 0xe0 ? U2_E0 : b == 0xed ? U2_ED : U2;
    return b == 0xf0 ? U3_F0 : b == 0xf4 ? U3_F4 : U3;
}

static uint32_t in_range(uint32_t b, uint32_t low, uint32_t high, uint32_t then)
{
    return b >= low && b <= high ? then : SLUICE_STR_DEAD;
}

static uint32_t step_digit(uint32_t state, int h)
{
    if (h < 0)
        return SLUICE_STR_DEAD;
    switch (state) {
    case X4: return h == 0 ? X3_0 : h == 13 ? X3_D : X3;
    case X3_0: return h == 0 ? X2_0 : X2;
    case X2_0: return h == 0 ? X1_0 : X1;
    case X1_0: return h == 0 ? SLUICE_STR_DEAD : SLUICE_STR_GROUND;
    case X3: return X2;
    case X2: return X1;
    case X3_D: return h < 8 ? X2 : h < 12 ? H2 : SLUICE_STR_DEAD;
    case H2: return H1;
    case H1: return LB;
    case LC: return h >= 12 ? L2 : SLUICE_STR_DEAD;
    case L2: return L1;
    default: return SLUICE_STR_GROUND; /* X1, L1 */
    }
}

static uint32_t string_step(uint32_t state, uint32_t b)
{
    switch (state) {
    case SLUICE_STR_GROUND: return step_ground(b);
    case U1: return in_range(b, 0x80, 0xbf, SLUICE_STR_GROUND);
    case U2: return in_range(b, 0x80, 0xbf, U1);
    case U2_E0: return in_range(b, 0xa0, 0xbf, U1);
    case U2_ED: return in_range(b, 0x80, 0x9f, U1);
    case U3: return in_range(b, 0x80, 0xbf, U2);
    case U3_F0: return in_range(b, 0x90, 0xbf, U2);
    case U3_F4: return in_range(b, 0x80, 0x8f, U2);
    case ESC: return b == 'u' ? X4 : b != 0 && strchr("\"\\/bfnrt", (int)b) != NULL ? SLUICE_STR_GROUND : SLUICE_STR_DEAD;
    case LB: return b == '\\' ? LU : SLUICE_STR_DEAD;
    case LU: return b == 'u' ? LD : SLUICE_STR_DEAD;
    case LD: return b == 'd' || b == 'D' ? LC : SLUICE_STR_DEAD;
    default: return step_digit(state, hex_value(b));
    }
}

/* ---- sorting tokens by their bytes */

typedef struct entry {
    uint64_t head; /* the first 8 bytes, so that most comparisons need no look at the text */
    const uint8_t *ptr;
    uint32_t len, token;
} entry;

static entry make_entry(sluice_span text, uint32_t token)
{
    entry e = { 0, text.ptr, (uint32_t)text.len, token };

    for (size_t i = 0; i < 8; i++)
        e.head = e.head << 8 | (i < text.len ? text.ptr[i] : 0u);
    return e;
}

static bool comes_first(const entry *a, const entry *b)
{
    const uint32_t len = a->len < b->len ? a->len : b->len;
    int order;

    if (a->head != b->head)
        return a->head < b->head;
    order = memcmp(a->ptr, b->ptr, len);
    if (order != 0)
        return order < 0;
    return a->len != b->len ? a->len < b->len : a->token < b->token;
}

/* Bottom-up merge sort. */
static void sort_entries(entry *e, entry *scratch, size_t n)
{
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t begin = 0; begin < n; begin += 2 * width) {
            const size_t mid = begin + width < n ? begin + width : n, end = begin + 2 * width < n ? begin + 2 * width : n;
            size_t a = begin, b = mid;

            for (size_t i = begin; i < end; i++)
                scratch[i] = a < mid && (b == end || !comes_first(&e[b], &e[a])) ? e[a++] : e[b++];
        }
        memcpy(e, scratch, n * sizeof *e);
    }
}

static uint32_t common_prefix(const entry *a, const entry *b)
{
    const uint32_t len = a->len < b->len ? a->len : b->len;
    uint32_t n = 0;

    while (n < len && a->ptr[n] == b->ptr[n])
        n++;
    return n == b->len ? n - 1 : n; /* the same bytes again: a node of its own */
}

static void *take(sluice_constraint_vocab *v, size_t n, size_t each)
{
    void *p = sluice_alloc_array(v->al, n > 0 ? n : 1, each);

    if (p != NULL)
        v->bytes += (n > 0 ? n : 1) * each;
    return p;
}

/* Sorted texts, none empty, to a trie. */
static bool build_trie(sluice_constraint_vocab *v, sluice_trie *trie, const entry *e, size_t n)
{
    uint32_t open[SLUICE_CONSTRAINT_MAX_TOKEN_BYTES], depth = 0, at = 0;
    size_t total = 0;

    for (size_t i = 0; i < n; i++)
        total += e[i].len - (i > 0 ? common_prefix(&e[i - 1], &e[i]) : 0);
    trie->nodes = take(v, total, sizeof *trie->nodes);
    if (trie->nodes == NULL)
        return false;
    trie->n = (uint32_t)total; /* at most SLUICE_TOKENIZER_MAX_VOCAB * SLUICE_CONSTRAINT_MAX_TOKEN_BYTES */
    for (size_t i = 0; i < n; i++) {
        const uint32_t shared = i > 0 ? common_prefix(&e[i - 1], &e[i]) : 0;

        while (depth > shared)
            trie->nodes[open[--depth]].end = at;
        for (uint32_t k = shared; k < e[i].len; k++) {
            trie->nodes[at] = (sluice_trie_node){ 0, SLUICE_TRIE_NO_TOKEN, e[i].ptr[k] };
            open[depth++] = at++;
        }
        trie->nodes[at - 1].token = e[i].token & SLUICE_TRIE_NO_TOKEN;
    }
    while (depth > 0)
        trie->nodes[open[--depth]].end = at;
    return true;
}

/* ---- classes of tokens */

static void put(uint32_t *mask, uint32_t token)
{
    mask[token / 32] |= 1u << token % 32;
}

/* One token through a string.  Where it closes the string, *quote is the place of that quote. */
static void classify(sluice_constraint_vocab *v, uint32_t token, sluice_span text, size_t *quote)
{
    uint32_t state = SLUICE_STR_GROUND, n_chars = 0;
    bool has_backslash = false;

    for (size_t i = 0; i < text.len; i++) {
        state = v->string_next[state][text.ptr[i]];
        if (state == SLUICE_STR_QUOTE) {
            *quote = i;
            break;
        }
        if (state == SLUICE_STR_DEAD)
            break;
        has_backslash = has_backslash || text.ptr[i] == '\\';
        n_chars += state == SLUICE_STR_GROUND;
    }
    v->string_end[token] = (uint8_t)state;
    v->string_chars[token] = (uint8_t)n_chars;
    if (state >= SLUICE_STR_STATES || (state != SLUICE_STR_GROUND && state < SLUICE_STR_ESCAPE && !v->spells_utf8))
        return;
    put(v->string_mask, token);
    if (!has_backslash)
        put(v->key_mask, token);
}

static bool is_usable(const sluice_tokenizer *t, uint32_t token, sluice_span *text)
{
    if (sluice_tokenizer_is_control(t, (int32_t)token) || sluice_tokenizer_is_end(t, (int32_t)token))
        return false;
    *text = sluice_tokenizer_bytes(t, (int32_t)token);
    return text->len > 0 && text->len <= SLUICE_CONSTRAINT_MAX_TOKEN_BYTES;
}

static void find_first(sluice_constraint_vocab *v)
{
    uint32_t at = 0;

    for (uint32_t byte = 0; byte < 256; byte++) {
        v->first[byte] = at;
        while (at < v->all.n && v->all.nodes[at].byte == byte)
            at = v->all.nodes[at].end;
    }
    v->first[256] = at;
}

static bool build(sluice_constraint_vocab *v, entry *entries, entry *scratch)
{
    const uint32_t words = sluice_mask_words(v->n_vocab);
    size_t n = 0, n_quote = 0;
    sluice_span text;

    v->string_end = take(v, v->n_vocab, 1);
    v->string_chars = take(v, v->n_vocab, 1);
    v->string_mask = take(v, words, sizeof *v->string_mask);
    v->key_mask = take(v, words, sizeof *v->key_mask);
    if (v->string_end == NULL || v->string_chars == NULL || v->string_mask == NULL || v->key_mask == NULL)
        return false;
    memset(v->string_end, SLUICE_STR_DEAD, v->n_vocab);
    for (uint32_t state = 0; state < SLUICE_STR_STATES; state++)
        for (uint32_t b = 0; b < 256; b++)
            v->string_next[state][b] = (uint8_t)string_step(state, b);
    for (uint32_t token = 0; token < v->n_vocab; token++)
        if (is_usable(v->tokenizer, token, &text)) {
            entries[n++] = make_entry(text, token);
            if (text.len == 1)
                v->spells[text.ptr[0]] = true;
        }
    v->spells_utf8 = true;
    for (uint32_t b = 0x80; b < 0xc0; b++)
        v->spells_utf8 = v->spells_utf8 && v->spells[b];
    for (uint32_t token = 0; token < v->n_vocab && v->n_ends < SLUICE_VOCAB_MAX_ENDS; token++)
        if (sluice_tokenizer_is_end(v->tokenizer, (int32_t)token))
            v->ends[v->n_ends++] = token;
    sort_entries(entries, scratch, n);
    if (!build_trie(v, &v->all, entries, n))
        return false;
    find_first(v);
    /* the quote tries */
    for (size_t i = 0; i < n; i++) {
        size_t quote = 0;

        classify(v, entries[i].token, sluice_span_of(entries[i].ptr, entries[i].len), &quote);
        if (memchr(entries[i].ptr, '"', entries[i].len) != NULL)
            scratch[n_quote++] = entries[i];
    }
    if (!build_trie(v, &v->quote, scratch, n_quote))
        return false;
    v->n_quote = (uint32_t)n_quote;
    v->quote_alone = take(v, n_quote, sizeof *v->quote_alone);
    if (v->quote_alone == NULL)
        return false;
    n = 0;
    for (size_t i = 0; i < n_quote; i++) {
        const uint32_t token = scratch[i].token;
        size_t quote = 0;

        if (v->string_end[token] != SLUICE_STR_QUOTE)
            continue;
        classify(v, token, sluice_span_of(scratch[i].ptr, scratch[i].len), &quote);
        if (quote + 1 == scratch[i].len)
            v->quote_alone[v->n_quote_alone++] = token;
        else
            entries[n++] = make_entry(sluice_span_of(scratch[i].ptr + quote + 1, scratch[i].len - quote - 1), token);
    }
    sort_entries(entries, scratch, n);
    return build_trie(v, &v->after_quote, entries, n);
}

sluice_status sluice_constraint_vocab_open(sluice_constraint_vocab **out, const sluice_tokenizer *t, const sluice_allocator *al, sluice_error *err)
{
    const uint32_t n_vocab = sluice_tokenizer_n_vocab(t);
    const size_t bytes = n_vocab * sizeof(entry);
    sluice_constraint_vocab *v = sluice_alloc_zeroed(al, sizeof *v);
    entry *entries = sluice_alloc(al, bytes), *scratch = sluice_alloc(al, bytes);
    sluice_status st = SLUICE_OK;

    *out = NULL;
    if (v != NULL) {
        v->al = al;
        v->tokenizer = t;
        v->n_vocab = n_vocab;
        v->bytes = sizeof *v;
    }
    if (v == NULL || entries == NULL || scratch == NULL || !build(v, entries, scratch)) {
        st = sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "constraint: no memory for the tries of %u tokens", n_vocab);
        sluice_constraint_vocab_close(v);
    } else {
        *out = v;
    }
    sluice_free(al, entries, bytes);
    sluice_free(al, scratch, bytes);
    return st;
}

static void give(const sluice_constraint_vocab *v, void *p, size_t n, size_t each)
{
    sluice_free(v->al, p, (n > 0 ? n : 1) * each);
}

void sluice_constraint_vocab_close(sluice_constraint_vocab *v)
{
    if (v == NULL)
        return;
    give(v, v->all.nodes, v->all.n, sizeof *v->all.nodes);
    give(v, v->quote.nodes, v->quote.n, sizeof *v->quote.nodes);
    give(v, v->after_quote.nodes, v->after_quote.n, sizeof *v->after_quote.nodes);
    give(v, v->quote_alone, v->n_quote, sizeof *v->quote_alone);
    give(v, v->string_end, v->n_vocab, 1);
    give(v, v->string_chars, v->n_vocab, 1);
    give(v, v->string_mask, sluice_mask_words(v->n_vocab), sizeof *v->string_mask);
    give(v, v->key_mask, sluice_mask_words(v->n_vocab), sizeof *v->key_mask);
    sluice_free(v->al, v, sizeof *v);
}

size_t sluice_constraint_vocab_bytes(const sluice_constraint_vocab *v)
{
    return v->bytes;
}
