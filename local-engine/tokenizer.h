/* tokenizer.h - text to tokens and back, from the vocabulary inside a GGUF file.
 *
 * Two kinds: "spm" (tokenizer.ggml.model = "llama": merges by score, byte fallback, U+2581 for a space) and "bpe" ("gpt2": a byte
 * alphabet, merges by rank after a pre-tokenizer has cut the text into words).  Encoding is O(n log n) in the text, whatever the text or
 * the vocabulary.
 *
 * User text never becomes a control token: encode() reads "<|bos|>" as eight characters.  Control tokens are placed by id, and
 * their ids are looked up by exact text with sluice_tokenizer_special().
 *
 * The bytes of encode(x) put together are x again, for bytes of any kind: text need not be valid UTF-8.  Two exceptions, both spm's own:
 * with add_space_prefix a space comes first, and U+2581 in the text comes back as a space.
 *
 * Threads: an open tokenizer is immutable; every function may be called from any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_TOKENIZER_H
#define SLUICE_LOCAL_ENGINE_TOKENIZER_H

#include "local-engine/gguf.h"

enum {
    SLUICE_TOKENIZER_MAX_VOCAB = 1 << 20,
    SLUICE_TOKENIZER_MAX_TEXT = 1 << 20,    /* bytes of one encode call; scratch is at most 80 times the longest word */
    SLUICE_TOKEN_NONE = -1
};

typedef struct sluice_tokenizer sluice_tokenizer; /* opaque */

/* `g` is borrowed and must outlive it.  SLUICE_ERR_NOT_FOUND when the file has no tokenizer, SLUICE_ERR_UNSUPPORTED for a kind or a
 * pre-tokenizer that this build does not have (the message names it), SLUICE_ERR_FORMAT for a broken one.  On failure *out is NULL. */
sluice_status sluice_tokenizer_open(sluice_tokenizer **out, const sluice_gguf *g, const sluice_allocator *al, sluice_error *err);
void sluice_tokenizer_close(sluice_tokenizer *t); /* accepts NULL */

/* An upper bound of what opening allocates and holds, without opening.  0 without a tokenizer. */
uint64_t sluice_tokenizer_estimate_bytes(const sluice_gguf *g);

const char *sluice_tokenizer_kind(const sluice_tokenizer *t); /* "spm" or "bpe" */
uint32_t sluice_tokenizer_n_vocab(const sluice_tokenizer *t); /* ids are 0 … n_vocab - 1; at least 1 */

/* Token ids, or SLUICE_TOKEN_NONE where the model has none.  Always in range. */
int32_t sluice_tokenizer_bos(const sluice_tokenizer *t);
int32_t sluice_tokenizer_eos(const sluice_tokenizer *t);
int32_t sluice_tokenizer_eot(const sluice_tokenizer *t);
bool sluice_tokenizer_is_end(const sluice_tokenizer *t, int32_t token);     /* generation stops here: eos, eot, eom */
bool sluice_tokenizer_is_control(const sluice_tokenizer *t, int32_t token); /* control, unknown and unused tokens: no text; true out of range */
bool sluice_tokenizer_wants_bos(const sluice_tokenizer *t);                 /* prompts of this model begin with bos */

/* A token as it appears in text, may be a part of a code point; control tokens and ids out of range: empty.  Borrowed. */
sluice_span sluice_tokenizer_bytes(const sluice_tokenizer *t, int32_t token);
/* The id of the control token written exactly so ("<|action|>"), or SLUICE_TOKEN_NONE. */
int32_t sluice_tokenizer_special(const sluice_tokenizer *t, sluice_span text);

/* Text to tokens.  With add_bos the bos token comes first, if the model wants one.  *n in: capacity of `tokens` (which may be NULL with capacity
 * 0), out: how many; SLUICE_ERR_LIMIT when they do not fit (then *n is the need and `tokens` holds nothing of use) or the text is longer
 * than SLUICE_TOKENIZER_MAX_TEXT (then *n is 0).  SLUICE_ERR_UNSUPPORTED when the vocabulary cannot spell a byte of the text.  Scratch is wiped. */
sluice_status sluice_tokenizer_encode(const sluice_tokenizer *t, sluice_span text, bool add_bos, int32_t *tokens, size_t *n, sluice_error *err);

#endif
