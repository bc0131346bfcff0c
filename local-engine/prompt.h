/* prompt.h - a conversation in the form that the model was trained on.
 *
 * Which form, in this order:
 *   1. what the app asks for: sluice_prompt_set_format();
 *   2. the metadata key "sluice.prompt_format";
 *   3. the family that the file's chat template is recognised as (chat_template.h; the template itself is never run);
 *   4. without a chat template: completion.
 * Beside the names in chat_template.h there are
 *
 *   intent-action/1   <|bos|> text <|action|>     one user message, trimmed of white space; the model answers with one JSON action,
 *                                                 and {"intent":"oos"} says that the request is none that it knows
 *   completion        [bos] text                  one user message, continued as it is
 *
 * A chat template that is not recognised, or another value of the key, is "unknown": the model opens and evaluates, but rendering says
 * SLUICE_ERR_UNSUPPORTED, because a chat model that is fed bare text answers badly and nothing would tell.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_PROMPT_H
#define SLUICE_LOCAL_ENGINE_PROMPT_H

#include "local-engine/chat_template.h"
#include "local-engine/engine.h"
#include "local-engine/tokenizer.h"

/* SLUICE_PROMPT_CHAT + the family of a sluice_chat_template: that chat format. */
typedef enum sluice_prompt_format {
    SLUICE_PROMPT_UNKNOWN = 0, SLUICE_PROMPT_COMPLETION = 1, SLUICE_PROMPT_INTENT_ACTION_1 = 2, SLUICE_PROMPT_CHAT = 16, SLUICE_PROMPT_CHAT_MAX = 63
} sluice_prompt_format;

/* A plain value: copy it, nothing to release; it may point into the file. */
typedef struct sluice_prompt {
    sluice_prompt_format format;
    int32_t begin, end;         /* control tokens around the text; SLUICE_TOKEN_NONE where the format has none */
    int32_t declines;           /* the token with which the model says that a request is out of its scope; SLUICE_TOKEN_NONE: none */
    sluice_chat_template chat;
} sluice_prompt;

/* Which format, and its tokens.  SLUICE_ERR_FORMAT when the key is not a string or the vocabulary lacks a control token of the format. */
sluice_status sluice_prompt_init(sluice_prompt *out, const sluice_gguf *g, const sluice_tokenizer *t, sluice_error *err);
/* The format called so, whatever the file says.  SLUICE_ERR_ARGUMENT for a name that does not exist (the hint has them all), SLUICE_ERR_FORMAT as above;
 * then *p is as it was.  A chat format that the file's template is of as well is taken with what the template says about it. */
sluice_status sluice_prompt_set_format(sluice_prompt *p, const char *name, const sluice_gguf *g, const sluice_tokenizer *t, sluice_error *err);
const char *sluice_prompt_format_name(sluice_prompt_format format); /* "intent-action/1", "completion", "qwen2.5", "unknown" …; static storage */
static inline bool sluice_prompt_is_chat(const sluice_prompt *p) { return p->format >= SLUICE_PROMPT_CHAT; }

/* *n and SLUICE_ERR_LIMIT as in sluice_tokenizer_encode().  SLUICE_ERR_UNSUPPORTED when the format cannot carry these messages (a role that it does not
 * have, several turns for a model of one, format unknown), SLUICE_ERR_ARGUMENT when there is none, when they stand in an order that the format does not
 * have, or when intent-action/1 has nothing but white space to work on.  Chat formats are rendered without tools and without thinking. */
sluice_status sluice_prompt_render(const sluice_prompt *p, const sluice_tokenizer *t, const sluice_engine_message *messages, size_t n_messages,
                                   int32_t *tokens, size_t *n, sluice_error *err);
/* The same with tool calls, results and options; formats that are no chat take one user message here too.  `options` may be NULL. */
sluice_status sluice_prompt_render_chat(const sluice_prompt *p, const sluice_tokenizer *t, const sluice_chat_message *messages, size_t n_messages,
                                        const sluice_chat_options *options, const sluice_allocator *al, int32_t *tokens, size_t *n, sluice_error *err);

#endif
