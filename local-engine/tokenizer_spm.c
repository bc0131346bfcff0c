/* tokenizer_spm.c - SentencePiece-style byte-pair merging by score (tokenizer.ggml.model = "llama").
 *
 * With add_space_prefix a space is put in front; then each code point is a symbol, and the neighbours whose joined text is the token of
 * the highest score merge first.  What is left and is no token is spelled in byte tokens.
 *
 * Vocabularies write a space as U+2581.  That is undone on opening, so that the text is looked up as it is; a U+2581 in the text is then no
 * token and is spelled in bytes, where SentencePiece would make a space of it: the text comes back as it was.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/tokenizer_impl.h"
#include "local-engine/unicode.h"

static const uint8_t space_mark[3] = { 0xe2, 0x96, 0x81 }; /* U+2581 */

bool sluice_spm_token_text(sluice_span raw, uint8_t *out, size_t *n)
{
    bool has_space = false; /* written with a space, which text never is: its spaces are looked up as marks */

    *n = 0;
    for (size_t i = 0; i < raw.len;) {
        if (raw.len - i >= 3 && memcmp(raw.ptr + i, space_mark, 3) == 0) {
            out[(*n)++] = ' ';
            i += 3;
        } else {
            has_space = has_space || raw.ptr[i] == ' ';
            out[(*n)++] = raw.ptr[i++];
        }
    }
    return !has_space;
}

static sluice_status read_scores(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err)
{
    sluice_status st = sluice_gguf_get_array(g, "tokenizer.ggml.scores", SLUICE_GGUF_F32, &t->scores, err);

    if (st != SLUICE_OK)
        return st;
    if (t->scores->count != t->n_vocab) {
        st = sluice_error_set(err, SLUICE_ERR_FORMAT, "tokenizer: %lu scores for %lu tokens", (unsigned long)t->scores->count,
                              (unsigned long)t->n_vocab);
        sluice_error_offset(err, t->scores->offset);
        return st;
    }
    for (uint32_t i = 0; i < t->n_vocab; i++) {
        float score = sluice_gguf_array_f32(t->scores, i);

        if (score != score) {
            st = sluice_error_set(err, SLUICE_ERR_FORMAT, "tokenizer: the score of token %lu is not a number", (unsigned long)i);
            sluice_error_offset(err, t->scores->offset);
            return st;
        }
    }
    return SLUICE_OK;
}

sluice_status sluice_spm_open(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err)
{
    sluice_status st = read_scores(t, g, err);

    t->wants_bos = true;
    t->add_space_prefix = true;
    return st == SLUICE_OK ? sluice_gguf_opt_bool(g, "tokenizer.ggml.add_space_prefix", &t->add_space_prefix, err) : st;
}

/* A number that is the smaller the higher the score: the bits of a float order like integers once negative ones are
 * turned round.  Adding zero makes -0 the same as 0. */
static uint32_t urgency(float score)
{
    uint32_t bits;

    score += 0.0f;
    memcpy(&bits, &score, sizeof bits);
    return ~((bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u);
}

static bool pair(const sluice_tokenizer *t, sluice_span text, const sluice_symbol *a, const sluice_symbol *b, sluice_merge_candidate *out)
{
    uint32_t id;

    if (out->len > TOKEN_BYTES_MAX)
        return false;
    id = sluice_text_index_find2(&t->words, sluice_span_of(text.ptr + a->start, a->len), sluice_span_of(text.ptr + b->start, b->len));
    if (id == SLUICE_TEXT_INDEX_NONE)
        return false;
    out->id = (int32_t)id;
    out->key = urgency(sluice_gguf_array_f32(t->scores, id));
    return true;
}

static size_t make_symbols(const sluice_tokenizer *t, sluice_span text, sluice_symbol *symbols)
{
    size_t n = 0;

    for (size_t i = 0; i < text.len; n++) {
        uint32_t len, id;

        (void)sluice_unicode_decode(text, i, &len);
        id = sluice_text_index_find(&t->words, sluice_span_of(text.ptr + i, len));
        symbols[n].start = (uint32_t)i;
        symbols[n].len = len;
        symbols[n].id = id != SLUICE_TEXT_INDEX_NONE ? (int32_t)id : SLUICE_TOKEN_NONE;
        i += len;
    }
    sluice_link_symbols(symbols, n);
    return n;
}

sluice_status sluice_spm_encode(sluice_encoder *e, sluice_span text)
{
    const sluice_tokenizer *t = e->t;
    size_t prefix = t->add_space_prefix, n_max = text.len + prefix, symbols_bytes = n_max * MERGE_SCRATCH_BYTES, n;
    sluice_status st = SLUICE_OK;
    sluice_symbol *symbols;
    uint8_t *scratch;

    /* Scratch, for a text of at most SLUICE_TOKENIZER_MAX_TEXT bytes: symbols, heap, text.  No overflow, also in 32 bits. */
    scratch = sluice_encoder_scratch(e, symbols_bytes + n_max);
    if (scratch == NULL)
        return SLUICE_ERR_NO_MEMORY;
    symbols = (sluice_symbol *)(void *)scratch;
    scratch += symbols_bytes;
    scratch[0] = ' ';
    memcpy(scratch + prefix, text.ptr, text.len);
    text = sluice_span_of(scratch, n_max);
    n = make_symbols(t, text, symbols);
    sluice_merge_symbols(t, text, symbols, n, (sluice_merge_candidate *)(void *)(symbols + n_max), pair);
    for (size_t i = 0; i < n && st == SLUICE_OK; i = symbols[i].next != UINT32_MAX ? symbols[i].next : n) {
        if (symbols[i].id != SLUICE_TOKEN_NONE)
            sluice_encoder_emit(e, symbols[i].id);
        else
            for (size_t k = symbols[i].start; k < symbols[i].start + symbols[i].len && st == SLUICE_OK; k++)
                st = sluice_encoder_emit_byte(e, text.ptr[k]);
    }
    return st;
}
