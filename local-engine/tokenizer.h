/* tokenizer.h - text to tokens and back, from the vocabulary inside a GGUF file.
 *
 * Three kinds: "spm" (tokenizer.ggml.model = "llama": merges by score, byte fallback, U+2581 for a space), "bpe" ("gpt2": a byte
 * alphabet, merges by rank after a pre-tokenizer has cut the text into words) and "wordpiece" ("bert": words in lower case without accents,
 * cut into the longest pieces).  Encoding is O(n log n) in the text, whatever the text or the vocabulary.
 *
 * What text can become.  Normal and byte tokens, and user-defined ones, which are matched in the text before anything else (Gemma has runs
 * of line breaks as such).  User text never becomes a control token: encode() reads "<|bos|>" as eight characters.  Nor does it become
 * a *markup* token: a fixed list of texts that chat formats are made of ("<|im_start|>", "<think>", "<tool_call>", "[INST]" …; tokenizer.c) is
 * placed by id alone, whatever type the file gives them.  Ids are looked up by exact text with sluice_tokenizer_special().
 *
 * What comes back.  spm and bpe: sluice_tokenizer_decode(encode(x)) is x, for bytes of any kind: text need not be valid UTF-8.  (It needs
 * the vocabulary to spell every byte; without that encode() says so, or uses the unknown token where there is one.)  wordpiece loses case, accents,
 * white space and words that it does not know: what comes back is the words and punctuation marks of the normalized text, one space
 * between them, and encoding that again gives the same tokens as long as none is unknown.
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

/* What opening allocates and holds (the two are the same), without opening: exact but for a few bytes.  0 without a tokenizer. */
uint64_t sluice_tokenizer_estimate_bytes(const sluice_gguf *g);

const sluice_allocator *sluice_tokenizer_allocator(const sluice_tokenizer *t); /* that it was opened with */
const char *sluice_tokenizer_kind(const sluice_tokenizer *t); /* "spm", "bpe" or "wordpiece" */
uint32_t sluice_tokenizer_n_vocab(const sluice_tokenizer *t); /* ids are 0 … n_vocab - 1; at least 1 */

/* Token ids, or SLUICE_TOKEN_NONE where the model has none.  Always in range. */
int32_t sluice_tokenizer_bos(const sluice_tokenizer *t);    /* wordpiece: [CLS] */
int32_t sluice_tokenizer_eos(const sluice_tokenizer *t);    /* wordpiece: [SEP] */
int32_t sluice_tokenizer_eot(const sluice_tokenizer *t);
bool sluice_tokenizer_is_end(const sluice_tokenizer *t, int32_t token);     /* generation stops here: eos, eot, eom and other models' ends of turn */
bool sluice_tokenizer_is_control(const sluice_tokenizer *t, int32_t token); /* control, unknown and unused tokens: no text; true out of range */
bool sluice_tokenizer_is_markup(const sluice_tokenizer *t, int32_t token);  /* control, or of the list above: never comes out of text */
bool sluice_tokenizer_wants_bos(const sluice_tokenizer *t);                 /* texts of this model begin with bos */
bool sluice_tokenizer_wants_eos(const sluice_tokenizer *t);                 /* whole texts end with eos: to embed, not to continue */

/* A token as it appears in text, may be a part of a code point; control tokens and ids out of range: empty.  Markup that an answer is read by
 * ("<think>", "<tool_call>", "[TOOL_CALLS]") has its text.  Borrowed. */
sluice_span sluice_tokenizer_bytes(const sluice_tokenizer *t, int32_t token);
/* The id of the control or markup token written exactly so ("<|action|>"), or SLUICE_TOKEN_NONE. */
int32_t sluice_tokenizer_special(const sluice_tokenizer *t, sluice_span text);
/* The longest of them that `text` begins with, and its length. */
int32_t sluice_tokenizer_special_at(const sluice_tokenizer *t, sluice_span text, size_t *len);
/* The id of the ordinary token that says exactly this, or SLUICE_TOKEN_NONE. */
int32_t sluice_tokenizer_find(const sluice_tokenizer *t, sluice_span text);

/* Text to tokens.  With add_bos the bos token comes first, if the model wants one.  *n in: capacity of `tokens` (which may be NULL with capacity
 * 0), out: how many; SLUICE_ERR_LIMIT when they do not fit (then *n is the need and `tokens` holds nothing of use) or the text is longer
 * than SLUICE_TOKENIZER_MAX_TEXT (then *n is 0).  SLUICE_ERR_UNSUPPORTED when the vocabulary cannot spell a byte of the text.  Scratch is wiped. */
sluice_status sluice_tokenizer_encode(const sluice_tokenizer *t, sluice_span text, bool add_bos, int32_t *tokens, size_t *n, sluice_error *err);
/* The same for a whole text, as encoders read it: bos before and eos behind, where the model wants them. */
sluice_status sluice_tokenizer_encode_whole(const sluice_tokenizer *t, sluice_span text, int32_t *tokens, size_t *n, sluice_error *err);

/* The same with tokens put in by id, each before the byte at `at`; `at` ascends, at most text.len.  Gives the tokens that a tokenizer gives
 * which reads markup in the text, but markup is what the caller says it is.  No bos of its own. */
typedef struct sluice_token_mark { size_t at; int32_t token; } sluice_token_mark;
sluice_status sluice_tokenizer_encode_marked(const sluice_tokenizer *t, sluice_span text, const sluice_token_mark *marks, size_t n_marks,
                                             int32_t *tokens, size_t *n, sluice_error *err);

/* Append what the tokens say.  The inverse of encode(): a space that add_space_prefix put in front is taken off again, at the beginning and after
 * user-defined, markup and control tokens.  SLUICE_ERR_ARGUMENT for an id out of range; else as appending fails. */
sluice_status sluice_tokenizer_decode(const sluice_tokenizer *t, const int32_t *tokens, size_t n, sluice_buf *out, sluice_error *err);

#endif
