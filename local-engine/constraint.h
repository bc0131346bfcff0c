/* constraint.h - decoding that can only end in JSON of a given schema.
 *
 * A JSON schema is compiled into a grammar over bytes.  Beside the model's logits the constraint says which tokens may come next: those whose
 * bytes keep the text a prefix of a valid value, and after which the value can still be finished with the tokens that are left.
 *
 *   sluice_constraint_open(&c, tokenizer, schema, al, err);
 *   per step:  st = sluice_constraint_set_budget(c, tokens_left, err);     before the first step: does it fit at all?
 *              sluice_sampler_pick(&sampler, logits, c, &sample);           asks allows(), or mask() where it needs every token
 *              if the token is an end token: done
 *              st = sluice_constraint_accept(c, sample.id, err);
 *
 * What comes out.  Compact JSON, with optional white space between its parts, at most 8 bytes and 4 for each level of nesting in one place.
 * Strings are valid UTF-8 and hold no NUL; integers have at most 15 digits and no exponent, so that every reader reads them exactly; nesting goes
 * 32 deep; a key comes once.  Properties come in any order.  Control tokens are never allowed; end tokens are when the value is whole.
 *
 * What a schema may say (JSON Schema 2020-12).  type (one or a list), enum, const, anyOf, oneOf (of alternatives that visibly exclude each other), allOf,
 * $ref into the document, $defs and definitions, booleans as schemas; properties, required, additionalProperties, minProperties, maxProperties;
 * items, prefixItems, minItems, maxItems; minLength, maxLength, pattern (a regular subset, constraint_regex.c), format (date, time, date-time,
 * uuid, email, ipv4); minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf.  Annotations (title, description, default, examples,
 * $schema, $id, $comment, deprecated, readOnly, writeOnly) change nothing.  Any other keyword is refused by its name and place.
 * An object that names properties and says nothing of additionalProperties has the named ones alone: that is narrower than the
 * standard reads, so what comes out is still valid, and small models do not lose themselves in properties that nobody asked for.
 *
 * The budget.  For every state the constraint knows a number of tokens that is enough to finish: the sum, over the fixed pieces still needed (keys,
 * literals, single characters), of the fewest tokens that spell each piece alone.  A token is allowed only if what follows it still fits.  With a budget
 * of at least sluice_constraint_least_tokens() the output is therefore whole and valid when the budget is spent, whatever the model prefers.
 *
 * Cost.  One token is checked in its bytes' time.  A full mask walks the vocabulary's trie along the bytes that the grammar allows;
 * inside strings, where nearly everything is allowed, masks are prepared when the vocabulary is opened.
 *
 * Threads: a vocabulary is immutable and may be shared; a constraint belongs to one call at a time.  Memory: all is allocated when opening; a
 * constraint takes 1.1 megabytes and what its schema compiles to (and eight masks where there are patterns or free text).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_CONSTRAINT_H
#define SLUICE_LOCAL_ENGINE_CONSTRAINT_H

#include "local-engine/tokenizer.h"

enum {
    SLUICE_CONSTRAINT_MAX_DEPTH = 32,        /* arrays and objects inside each other, in what comes out */
    SLUICE_CONSTRAINT_MAX_TOKEN_BYTES = 128, /* longer tokens are never allowed */
    SLUICE_CONSTRAINT_MAX_SCHEMA_BYTES = 256 << 10
};

typedef struct sluice_constraint sluice_constraint;
/* What all constraints over one tokenizer share: about 20 bytes a token (0.9 MB for GPT-2's 50,257, 2.0 MB for DeepSeek's 102,400). */
typedef struct sluice_constraint_vocab sluice_constraint_vocab;

/* `t` is borrowed and must outlive it. */
sluice_status sluice_constraint_vocab_open(sluice_constraint_vocab **out, const sluice_tokenizer *t, const sluice_allocator *al, sluice_error *err);
void sluice_constraint_vocab_close(sluice_constraint_vocab *v); /* accepts NULL */
size_t sluice_constraint_vocab_bytes(const sluice_constraint_vocab *v); /* memory that it holds */

/* Compile `json_schema` (empty: any JSON value) over a vocabulary, which must outlive the constraint.  On failure *out is NULL:
 * SLUICE_ERR_FORMAT (no JSON, or no schema), SLUICE_ERR_UNSUPPORTED (a keyword or a combination that is not supported, or a vocabulary without a
 * single-byte token that the output needs), SLUICE_ERR_ARGUMENT (no value satisfies it), SLUICE_ERR_LIMIT (too large in some respect).
 * err names the JSON pointer and has line and column. */
sluice_status sluice_constraint_open_shared(sluice_constraint **out, const sluice_constraint_vocab *v, sluice_span json_schema, const sluice_allocator *al,
                                            sluice_error *err);
/* The same with a vocabulary of its own. */
sluice_status sluice_constraint_open(sluice_constraint **out, const sluice_tokenizer *t, sluice_span json_schema, const sluice_allocator *al,
                                     sluice_error *err);
void sluice_constraint_close(sluice_constraint *c); /* accepts NULL; wipes */

/* ---- tool calls: {"name": …, "arguments": …} of one of the tools, between a family's marks */
typedef enum sluice_tool_choice {
    SLUICE_TOOL_AUTO,       /* free text, which may lead to one call; after the begin mark a call must follow */
    SLUICE_TOOL_REQUIRED,   /* a call */
    SLUICE_TOOL_NAMED       /* a call of the named tool */
} sluice_tool_choice;

typedef struct sluice_tool_format {
    sluice_span begin, end;     /* text around the call, as in "<tool_call>\n" and "\n</tool_call>"; may be empty.  With an empty `begin`, under
                                   SLUICE_TOOL_AUTO, an answer that starts with '{' is a call */
    const char *arguments_key;  /* NULL: "arguments"; "parameters" for Llama 3 */
} sluice_tool_format;

/* `tools_json`: [{"type": "function", "function": {"name": …, "description": …, "parameters": {schema}}}, …]; $ref in parameters counts from that schema.
 * `name` for SLUICE_TOOL_NAMED: SLUICE_ERR_NOT_FOUND when there is none such.  `format` NULL: no marks.  Errors as for opening. */
sluice_status sluice_constraint_open_tools_shared(sluice_constraint **out, const sluice_constraint_vocab *v, sluice_span tools_json,
                                                  sluice_tool_choice choice, const char *name, const sluice_tool_format *format,
                                                  const sluice_allocator *al, sluice_error *err);
sluice_status sluice_constraint_open_tools(sluice_constraint **out, const sluice_tokenizer *t, sluice_span tools_json, sluice_tool_choice choice,
                                           const char *name, const sluice_tool_format *format, const sluice_allocator *al, sluice_error *err);

/* ---- decoding */
void sluice_constraint_reset(sluice_constraint *c); /* to the start, without a budget */

/* Enough tokens to finish from here, end token not counted; 0 when the text is whole.  UINT32_MAX: never, which does not happen. */
uint32_t sluice_constraint_least_tokens(const sluice_constraint *c);
/* Tokens that may still be made, the next one included.  Set it before each step, one lower each time, or once: accept() counts down.
 * SLUICE_ERR_LIMIT when they are fewer than needed; the budget is set all the same, and nothing may be allowed then. */
sluice_status sluice_constraint_set_budget(sluice_constraint *c, uint32_t tokens_left, sluice_error *err);

bool sluice_constraint_allows(sluice_constraint *c, int32_t token);
/* SLUICE_ERR_STATE when the token is not allowed, and then nothing changes. */
sluice_status sluice_constraint_accept(sluice_constraint *c, int32_t token, sluice_error *err);
bool sluice_constraint_is_complete(const sluice_constraint *c); /* the text so far is a whole valid value */
bool sluice_constraint_has_ended(const sluice_constraint *c);   /* nothing but an end token may follow: decoding can stop without asking the model for it */

/* bits: (n_vocab + 31) / 32 words; token t is bit t % 32 of word t / 32; 1 is allowed.  Returns how many are. */
uint32_t sluice_constraint_mask(sluice_constraint *c, uint32_t *bits);

/* Tokens that spell the only way on: where the grammar leaves one choice of byte after byte (inside keys, literals), the run is spelled with the longest
 * tokens.  Returns how many were written, 0 when there is a choice.  They may be accepted and fed to the model in one batch, without asking
 * it; the text is what it would have to be, the cut into tokens may be another than the model's own. */
uint32_t sluice_constraint_forced(sluice_constraint *c, int32_t *tokens, uint32_t capacity);

#endif
