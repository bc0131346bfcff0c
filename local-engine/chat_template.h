/* chat_template.h - conversations in the forms that known model families were trained on.
 *
 * A GGUF file carries its chat template as a program in Jinja, written by a stranger.  It is never run.  It is only searched for the texts by
 * which the families differ (at most SLUICE_CHAT_TEMPLATE_MAX_BYTES of it, in linear time), and the family is then rendered by our own code: control
 * tokens are placed by id, everything that an app or a user wrote is encoded as plain text.  The tokens are those that a tokenizer reading
 * special tokens in the template's own output would give, as long as nobody's text imitates them.
 *
 *   name              turns are written                                              needs the tokens
 *   chatml            <|im_start|>role\n…<|im_end|>\n                                <|im_start|> <|im_end|>
 *   qwen2 qwen2.5 smollm2   chatml with that family's default system message
 *   qwen3             chatml; thinking can be on or off
 *   llama-3           <|start_header_id|>role<|end_header_id|>\n\n…<|eot_id|>        those three
 *   llama-3.1         the same, with a block of dates in the system turn (3.1, 3.2, 3.3)
 *   gemma             <start_of_turn>user\n…<end_of_turn>\n; no system turn          those two
 *   phi-3             <|user|>\n…<|end|>\n                                           <|user|> <|assistant|> <|end|>
 *   phi-4-mini        <|user|>…<|end|>                                               the same
 *   mistral-v1        <s> [INST] … [/INST] …</s>                                     eos
 *   mistral-v3        <s>[INST] …[/INST] …</s>                                       [INST] [/INST] eos
 *   mistral-v3-tekken <s>[INST]…[/INST]…</s>                                         the same
 *   mistral-v7        v3, and [SYSTEM_PROMPT] …[/SYSTEM_PROMPT] at the beginning      and those two
 *   mistral-v7-tekken the same without the spaces                                    the same
 *   llama-2           <s>[INST] <<SYS>>\n…\n<</SYS>>\n\n… [/INST] … </s>             eos
 *   zephyr            <|user|>\n…</s>\n  (Zephyr, TinyLlama)                         eos
 *   deepseek-llm      User: …\n\nAssistant: …<eos>                                   eos
 *
 * In the last three and in mistral-v1 the roles are written in plain text, so a user can imitate a turn in them, as with every other
 * engine; what nobody can imitate is a control token.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_CHAT_TEMPLATE_H
#define SLUICE_LOCAL_ENGINE_CHAT_TEMPLATE_H

#include "local-engine/chat_tools.h"
#include "local-engine/tokenizer.h"

enum { SLUICE_CHAT_TEMPLATE_MAX_BYTES = 256 << 10 };

/* A plain value: copy it, nothing to release.  default_system may point into the text that it was detected in. */
typedef struct sluice_chat_template {
    uint32_t family;            /* place in the list above, from 1; 0: none */
    bool adds_bos;              /* bos at the beginning, also where the tokenizer does not add one */
    bool bos_each_turn;         /* llama-2: before every user turn */
    bool strips;                /* llama-2: white space around messages; mistral-v3: around answers */
    bool leading_space;         /* mistral-v1: " [INST]", and a space before answers */
    bool system_last;           /* mistral: the system message goes into the last user turn, not into the first */
    bool thinks;                /* qwen3: <think></think> switches thinking off */
    bool opens_thinking;        /* qwen3: the answer begins inside <think> */
    sluice_span default_system; /* where no system message is given; empty: none */
} sluice_chat_template;

typedef struct sluice_chat_message {
    const char *role;           /* "system", "user", "assistant", "tool" (the result of a call) */
    sluice_span text;
    const sluice_chat_tool_call *calls; /* of an assistant's turn */
    size_t n_calls;
    sluice_span call_id;        /* of a tool's: which call it answers; may be empty */
} sluice_chat_message;

typedef struct sluice_chat_options {
    sluice_span tools;          /* definitions, see chat_tools.h; empty: none */
    bool thinking;              /* qwen3: let the model think before it answers */
    sluice_span today;          /* llama-3.1: "26 Jul 2024", which is also what it is when empty: the engine reads no clock */
} sluice_chat_options;

/* Which family a template is of (the first of a fixed list of tests that fits), and whether the vocabulary has its tokens.  False, and *out zero,
 * when it is none of them. */
bool sluice_chat_detect(sluice_chat_template *out, sluice_span text, const sluice_tokenizer *t);
/* The family called so, as its official template has it.  SLUICE_ERR_NOT_FOUND for another name, SLUICE_ERR_FORMAT when the vocabulary lacks a token. */
sluice_status sluice_chat_by_name(sluice_chat_template *out, sluice_span name, const sluice_tokenizer *t, sluice_error *err);
const char *sluice_chat_name(const sluice_chat_template *c);    /* "unknown" for none; static storage */
const char *sluice_chat_names(void);                            /* all of them, for a message; static storage */

/* The tokens of a conversation and of the beginning of the answer to it.  *n and SLUICE_ERR_LIMIT as in sluice_tokenizer_encode().
 * SLUICE_ERR_ARGUMENT: no message, turns in an order that the family does not know, a last turn that is nobody's question, broken tools.
 * SLUICE_ERR_UNSUPPORTED: a role that does not exist, or something that the family cannot carry.  What it allocates is wiped. */
sluice_status sluice_chat_render(const sluice_chat_template *c, const sluice_tokenizer *t, const sluice_chat_message *messages, size_t n_messages,
                                 const sluice_chat_options *options, const sluice_allocator *al, int32_t *tokens, size_t *n, sluice_error *err);

#endif
