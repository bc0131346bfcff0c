/* tokenizer_impl.h - what tokenizer.c, tokenizer_spm.c and tokenizer_bpe.c share.  Nobody else includes it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_TOKENIZER_IMPL_H
#define SLUICE_LOCAL_ENGINE_TOKENIZER_IMPL_H

#include "local-engine/text_index.h"
#include "local-engine/tokenizer.h"

enum { TOKEN_BYTES_MAX = 1024 }; /* of one token: bounds the look-ups of a text made to match long ones */

/* As numbered in tokenizer.ggml.token_type. */
typedef enum sluice_token_type {
    TOKEN_UNDEFINED = 0, TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_USER = 4, TOKEN_UNUSED = 5, TOKEN_BYTE = 6
} sluice_token_type;

typedef struct sluice_bpe_merge { int32_t left, right, merged; } sluice_bpe_merge; /* its rank is its place in the list */

/* How one pre-tokenizer cuts: each stage cuts every piece of the stage before.  A stage returns the end of the piece that begins at `at`. */
typedef size_t (*sluice_split_fn)(sluice_span s, size_t at);
typedef struct sluice_pre_tokenizer {
    const char *name;
    sluice_split_fn stages[4]; /* ends at NULL, or at 4 */
    bool whole_words;          /* a word that is a token is taken as it is, before any merge */
    bool wants_bos;            /* where the file does not say */
} sluice_pre_tokenizer;

struct sluice_tokenizer {
    const sluice_allocator *al;
    bool is_bpe, wants_bos, add_space_prefix;
    uint32_t n_vocab;
    int32_t bos, eos, eot, eom, unknown;
    int32_t byte_ids[256];      /* the token that spells one byte, or SLUICE_TOKEN_NONE */

    const uint8_t *raw;         /* the token array of the file */
    uint32_t *raw_at;           /* (n_vocab) where each token's bytes begin in it; the length is in the 8 bytes before */
    uint8_t *types;             /* (n_vocab) */
    uint8_t *text;              /* what each token says, one after the other */
    size_t text_bytes;
    uint32_t *text_at;          /* (n_vocab + 1) */

    sluice_text_index words;    /* normal tokens: spm by their raw text, bpe by their bytes (kept only for whole_words) */
    sluice_text_index users;    /* user-defined tokens, by raw text: matched in the text before anything else */
    uint32_t user_bytes_max;
    bool user_begins[256];      /* some user-defined token begins with this byte */

    const sluice_gguf_value *scores;        /* spm */

    const sluice_pre_tokenizer *pre;        /* bpe, from here */
    sluice_bpe_merge *merges;
    uint32_t n_merges;
    uint32_t *merge_slots;      /* rank + 1 by (left, right); 0: free */
    uint32_t n_merge_slots;
};

sluice_span sluice_tokenizer_raw(const void *tokenizer, uint32_t token);  /* a text_index callback */
sluice_span sluice_tokenizer_text(const void *tokenizer, uint32_t token); /* likewise */

/* Enter a token into t->words; SLUICE_ERR_FORMAT for a duplicate. */
sluice_status sluice_tokenizer_add_word(sluice_tokenizer *t, uint32_t token, uint64_t offset, sluice_error *err);

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

/* Merge until no pair can.  symbols[n] is linked already, `heap` has room for 2 * n: the first pairs are at most n - 1, and each
 * of at most n - 1 merges takes one candidate out and puts at most two in. */
void sluice_merge_symbols(const sluice_tokenizer *t, sluice_span text, sluice_symbol *symbols, size_t n,
                          sluice_merge_candidate *heap, sluice_pair_fn pair);
void sluice_link_symbols(sluice_symbol *symbols, size_t n);

/* ---- the two kinds.  open reads what is the kind's own; encode takes text between user-defined tokens. */
sluice_status sluice_spm_open(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err);
sluice_status sluice_spm_encode(sluice_encoder *e, sluice_span text);
size_t sluice_spm_token_text(sluice_span raw, uint8_t *out);

sluice_status sluice_bpe_open(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err);
sluice_status sluice_bpe_encode(sluice_encoder *e, sluice_span text);
/* The bytes that a token's raw text stands for; false, and the text as it is, where it is not all of the byte alphabet.  At most raw.len bytes. */
bool sluice_bpe_token_text(sluice_span raw, uint8_t *out, size_t *n);
uint64_t sluice_bpe_merge_bytes(uint64_t n_merges); /* what the merges take */

#endif
