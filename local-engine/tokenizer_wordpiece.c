/* tokenizer_wordpiece.c - BERT's tokenizer (tokenizer.ggml.model = "bert").
 *
 * The text is normalized as the uncased BERT models were trained (Devlin et al. 2019; the reference is their "basic" tokenizer): control characters go,
 * accents go (canonical decomposition, nonspacing marks dropped), letters become small; white space ends a word, and every
 * punctuation mark and every CJK ideograph is a word by itself.  Then each word is cut greedily into the longest pieces of the
 * vocabulary.  A word that cannot be cut to its end, or has more than WORD_CODE_POINTS_MAX code points, is the unknown token.
 *
 * GGUF writes a piece that begins a word with U+2581 in front, and one that continues a word without.  As for spm the mark is read as a
 * space, so a word is looked up with a space before it, and its later pieces without.
 *
 * Words are handled one at a time in a buffer of fixed size: one pass over the text, and for each code point of a word as many look-ups as the
 * longest piece has bytes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/tokenizer_impl.h"
#include "local-engine/unicode.h"

enum { WORD_CODE_POINTS_MAX = 100, WORD_BYTES_MAX = 4 * WORD_CODE_POINTS_MAX };

typedef struct word {
    uint8_t bytes[1 + WORD_BYTES_MAX]; /* a space, then the word */
    size_t len, n_code_points;         /* without the space; n_code_points counts on past the maximum, len does not */
} word;

sluice_status sluice_wordpiece_open(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err)
{
    (void)g;
    t->wants_bos = true;
    t->wants_eos = true;
    t->add_space_prefix = true;
    if (t->unknown == SLUICE_TOKEN_NONE) {
        for (uint32_t i = 0; i < t->n_vocab && t->unknown == SLUICE_TOKEN_NONE; i++)
            if (sluice_span_eq_str(sluice_tokenizer_text(t, i), "[UNK]"))
                t->unknown = (int32_t)i;
        if (t->unknown != SLUICE_TOKEN_NONE)
            t->types[t->unknown] = TOKEN_UNKNOWN;
    }
    if (t->unknown == SLUICE_TOKEN_NONE)
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "tokenizer: a wordpiece vocabulary without an unknown token");
    return SLUICE_OK;
}

/* As the reference has it: planes of unified ideographs, not kana or hangul, which are written with spaces or are letters. */
static bool is_ideograph(uint32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
           (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b820 && c <= 0x2ceaf) || (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

/* All of ASCII that is neither letter, digit, space nor control counts, as "$" and "^". */
static bool is_punctuation(uint32_t c, sluice_unicode_kind kind)
{
    return kind == SLUICE_UNICODE_KIND_PUNCTUATION || (c > 32 && c < 127 && kind == SLUICE_UNICODE_KIND_OTHER);
}

static sluice_status end_word(sluice_encoder *e, word *w)
{
    const sluice_tokenizer *t = e->t;
    int32_t pieces[WORD_CODE_POINTS_MAX + 1];
    size_t at = 0, n = 0, end = w->len + 1, n_code_points = w->n_code_points;

    w->len = 0;
    w->n_code_points = 0;
    if (n_code_points == 0)
        return SLUICE_OK;
    while (at < end && n_code_points <= WORD_CODE_POINTS_MAX) {
        size_t len = 0;
        uint32_t id = sluice_text_index_longest(&t->words, sluice_span_of(w->bytes + at, end - at), t->word_bytes_max, &len);

        if (id == SLUICE_TEXT_INDEX_NONE || n == sizeof pieces / sizeof pieces[0])
            break;
        pieces[n++] = (int32_t)id;
        at += len;
    }
    if (at < end)
        return sluice_encoder_emit_unknown(e);
    for (size_t i = 0; i < n; i++)
        sluice_encoder_emit(e, pieces[i]);
    return SLUICE_OK;
}

static void add(word *w, uint32_t c)
{
    if (++w->n_code_points <= WORD_CODE_POINTS_MAX)
        w->len += sluice_unicode_encode(c, w->bytes + 1 + w->len);
}

/* A word of one code point. */
static sluice_status add_alone(sluice_encoder *e, word *w, uint32_t c)
{
    sluice_status st = end_word(e, w);

    add(w, c);
    return st == SLUICE_OK ? end_word(e, w) : st;
}

/* Ideographs are told by what stands in the text, punctuation by what it folds to: U+226E is "<" without its stroke. */
static sluice_status add_code_point(sluice_encoder *e, word *w, uint32_t c)
{
    sluice_unicode_kind kind = sluice_unicode_kind_of(c);
    sluice_status st = SLUICE_OK;
    uint32_t folded[3];
    size_t n;

    if (c == 0 || c == 0xfffd || kind == SLUICE_UNICODE_KIND_CONTROL)
        return SLUICE_OK;
    if (kind == SLUICE_UNICODE_KIND_SPACE)
        return end_word(e, w);
    n = sluice_unicode_fold(c, folded);
    for (size_t i = 0; i < n && st == SLUICE_OK; i++) {
        if (is_ideograph(c) || is_punctuation(folded[i], sluice_unicode_kind_of(folded[i])))
            st = add_alone(e, w, folded[i]);
        else
            add(w, folded[i]);
    }
    return st;
}

sluice_status sluice_wordpiece_encode(sluice_encoder *e, sluice_span text)
{
    sluice_status st = SLUICE_OK;
    word w;

    w.bytes[0] = ' ';
    w.len = w.n_code_points = 0;
    for (size_t i = 0; i < text.len && st == SLUICE_OK;) {
        uint32_t len, c = sluice_unicode_decode(text, i, &len);

        st = add_code_point(e, &w, c);
        i += len;
    }
    if (st == SLUICE_OK)
        st = end_word(e, &w);
    sluice_wipe(&w, sizeof w);
    return st;
}
