/* tokenizer_impl.h - what tokenizer.c and the three kinds of tokenizer share.  Nobody else includes it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_TOKENIZER_IMPL_H
#define SLUICE_LOCAL_ENGINE_TOKENIZER_IMPL_H

#include "local-engine/text_index.h"
#include "local-engine/tokenizer.h"

enum { TOKEN_BYTES_MAX = 1024 }; /* of one token: bounds the look-ups of a text made to match long ones */

/* As numbered in tokenizer.ggml.token_type; MARKUP is ours: placed by id alone like a control token, but it has text. */
typedef enum sluice_token_type {
    TOKEN_UNDEFINED = 0, TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_USER = 4, TOKEN_UNUSED = 5, TOKEN_BYTE = 6, TOKEN_MARKUP = 7
} sluice_token_type;

typedef enum sluice_tokenizer_sort { TOKENIZER_SPM, TOKENIZER_BPE, TOKENIZER_WORDPIECE } sluice_tokenizer_sort;

/* left << 40 | right << 20 | merged: SLUICE_TOKENIZER_MAX_VOCAB is 2^20.  Its rank is its place in the list. */
typedef uint64_t sluice_bpe_merge;

/* How one pre-tokenizer cuts: each stage cuts every piece of the stage before.  A stage returns the end of the piece that begins at `at`. */
typedef size_t (*sluice_split_fn)(sluice_span s, size_t at);
enum { SPLIT_STAGES_MAX = 6 };
typedef struct sluice_pre_tokenizer {
    const char *name;
    sluice_split_fn stages[SPLIT_STAGES_MAX]; /* ends at NULL, or at SPLIT_STAGES_MAX */
    bool whole_words;          /* a word that is a token is taken as it is, before any merge */
    bool wants_bos;            /* where the file does not say */
} sluice_pre_tokenizer;

enum { TOKENIZER_ENDS_MAX = 12 };

struct sluice_tokenizer {
    const sluice_allocator *al;
    sluice_tokenizer_sort sort;
    bool wants_bos, wants_eos, add_space_prefix;
    bool strips_after_special;  /* white space behind control and user-defined tokens is dropped (Phi-3) */
    uint32_t n_vocab;
    int32_t bos, eos, eot, unknown;
    int32_t ends[TOKENIZER_ENDS_MAX]; /* generation stops at each of them */
    size_t n_ends;
    int32_t byte_ids[256];      /* the token that spells one byte, or SLUICE_TOKEN_NONE */

    uint8_t *types;             /* (n_vocab) */
    uint8_t *text;              /* of every token: what it says, or for those that say nothing how they are written; one after the other */
    size_t text_bytes;
    uint32_t *text_at;          /* (n_vocab + 1) */

    sluice_text_index words;    /* normal tokens that text can become, by what they say */
    sluice_text_index users;    /* user-defined tokens: matched in the text before anything else */
    sluice_text_index specials; /* control and markup tokens, as they are written */
    uint32_t word_bytes_max, user_bytes_max, special_bytes_max;
    bool user_begins[256];      /* some user-defined token begins with this byte */

    const sluice_gguf_value *scores;        /* spm */

    const sluice_pre_tokenizer *pre;        /* bpe, from here */
    sluice_bpe_merge *merges;
    uint32_t n_merges;
    uint32_t *merge_slots;      /* rank + 1 by (left, right); 0: free */
    uint32_t n_merge_slots;
};

sluice_span sluice_tokenizer_text(const void *tokenizer, uint32_t token); /* from the pool, whatever its type; a text_index callback */

/* ---- encoding */
typedef struct sluice_encoder {
    const sluice_tokenizer *t;
    int32_t *out;
    size_t capacity, n; /* n counts on past the capacity */
    uint8_t *scratch;
    size_t scratch_bytes;
    sluice_error *err;
} sluice_encoder;

/* A run of the text that has become one token, or may become part of one. */
typedef struct sluice_symbol {
    uint32_t start, len;    /* len 0: merged into the one before */
    int32_t id;             /* SLUICE_TOKEN_NONE: not a token by itself */
    uint32_t prev, next;    /* UINT32_MAX at the ends */
} sluice_symbol;

/* A pair that can merge; small key first, then the leftmost. */
typedef struct sluice_merge_candidate { uint32_t key, left, right, len; int32_t id; } sluice_merge_candidate;

enum { MERGE_SCRATCH_BYTES = sizeof(sluice_symbol) + 2 * sizeof(sluice_merge_candidate) }; /* per symbol */

/* Can a and b, which stand side by side in `text`, become one?  Then which token, and how urgently. */
typedef bool (*sluice_pair_fn)(const sluice_tokenizer *t, sluice_span text, const sluice_symbol *a, const sluice_symbol *b,
                               sluice_merge_candidate *out);

/* Scratch of at least this size, 16-byte aligned; grows, never shrinks.  NULL: out of memory. */
void *sluice_encoder_scratch(sluice_encoder *e, size_t bytes);
void sluice_encoder_emit(sluice_encoder *e, int32_t token);
sluice_status sluice_encoder_emit_byte(sluice_encoder *e, uint8_t byte); /* or the unknown token; SLUICE_ERR_UNSUPPORTED without both */
sluice_status sluice_encoder_emit_unknown(sluice_encoder *e);

/* Merge until no pair can.  symbols[n] is linked already, `heap` has room for 2 * n: the first pairs are at most n - 1, and each
 * of at most n - 1 merges takes one candidate out and puts at most two in. */
void sluice_merge_symbols(const sluice_tokenizer *t, sluice_span text, sluice_symbol *symbols, size_t n,
                          sluice_merge_candidate *heap, sluice_pair_fn pair);
void sluice_link_symbols(sluice_symbol *symbols, size_t n);

/* ---- the kinds.  open reads what is the kind's own, once the vocabulary stands; encode takes text between user-defined tokens.  token_text writes what
 * a normal token says, at most as long as it is written, and tells whether text can become it. */
sluice_status sluice_spm_open(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err);
sluice_status sluice_spm_encode(sluice_encoder *e, sluice_span text);
bool sluice_spm_token_text(sluice_span raw, uint8_t *out, size_t *n); /* wordpiece's as well */

sluice_status sluice_bpe_open(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err);
sluice_status sluice_bpe_encode(sluice_encoder *e, sluice_span text);
bool sluice_bpe_token_text(sluice_span raw, uint8_t *out, size_t *n);
uint64_t sluice_bpe_merge_bytes(uint64_t n_merges); /* what the merges take */

sluice_status sluice_wordpiece_open(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err);
sluice_status sluice_wordpiece_encode(sluice_encoder *e, sluice_span text);

#endif
