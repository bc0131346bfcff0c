/* prompt.h - a conversation in the form that the model was trained on.
 *
 * GGUF files carry a Jinja template; running a stranger's program on a stranger's text is a risk that a phone need not take, so this
 * build knows formats by name instead.  The metadata key "sluice.prompt_format" chooses:
 *
 *   intent-action/1   <|bos|> text <|action|>     one user message, trimmed of white space; the model answers with one JSON action,
 *                                                 and {"intent":"oos"} says that the request is none that it knows
 *   completion        [bos] text                  one user message, continued as it is
 *
 * A file without the key and without a chat template is a completion model.  A chat template without the key, or a value not in the
 * list, is "unknown": the model opens and evaluates, but rendering says SLUICE_ERR_UNSUPPORTED, because a chat model that
 * is fed bare text answers badly and nothing would tell.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_PROMPT_H
#define SLUICE_LOCAL_ENGINE_PROMPT_H

#include "local-engine/engine.h"
#include "local-engine/tokenizer.h"

typedef enum sluice_prompt_format {
    SLUICE_PROMPT_UNKNOWN = 0, SLUICE_PROMPT_COMPLETION = 1, SLUICE_PROMPT_INTENT_ACTION_1 = 2
} sluice_prompt_format;

/* A plain value: copy it, nothing to release. */
typedef struct sluice_prompt {
    sluice_prompt_format format;
    int32_t begin, end;         /* control tokens around the text; SLUICE_TOKEN_NONE where the format has none */
    int32_t declines;           /* the token with which the model says that a request is out of its scope; SLUICE_TOKEN_NONE: none */
} sluice_prompt;

/* Which format, and its tokens.  SLUICE_ERR_FORMAT when the key is not a string or the vocabulary lacks a control token of the format. */
sluice_status sluice_prompt_init(sluice_prompt *out, const sluice_gguf *g, const sluice_tokenizer *t, sluice_error *err);
const char *sluice_prompt_format_name(sluice_prompt_format format); /* "intent-action/1", "completion", "unknown"; static storage */

/* *n and SLUICE_ERR_LIMIT as in sluice_tokenizer_encode().  SLUICE_ERR_UNSUPPORTED when the format cannot carry these messages (a system
 * message, several turns, format unknown), SLUICE_ERR_ARGUMENT when there is none, or when intent-action/1 has nothing but white space to work on. */
sluice_status sluice_prompt_render(const sluice_prompt *p, const sluice_tokenizer *t, const sluice_engine_message *messages, size_t n_messages,
                                   int32_t *tokens, size_t *n, sluice_error *err);

#endif
