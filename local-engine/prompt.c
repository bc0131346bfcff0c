/* prompt.c - which prompt format a model has, and how it is rendered.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/prompt.h"

#include "local-engine/unicode.h"

static const char format_key[] = "sluice.prompt_format", template_key[] = "tokenizer.chat_template";

/* Formats are control tokens around one user message. */
static const struct {
    sluice_prompt_format format;
    const char *name, *begin, *end; /* begin, end: NULL for none */
} formats[] = {
    { SLUICE_PROMPT_COMPLETION, "completion", NULL, NULL },
    { SLUICE_PROMPT_INTENT_ACTION_1, "intent-action/1", "<|bos|>", "<|action|>" },
};

const char *sluice_prompt_format_name(sluice_prompt_format format)
{
    const sluice_chat_template chat = { .family = format >= SLUICE_PROMPT_CHAT ? (uint32_t)(format - SLUICE_PROMPT_CHAT) : 0 };

    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (formats[i].format == format)
            return formats[i].name;
    return sluice_chat_name(&chat);
}

static sluice_status find_control(const sluice_tokenizer *t, const char *text, const char *format, int32_t *out, sluice_error *err)
{
    *out = SLUICE_TOKEN_NONE;
    if (text == NULL)
        return SLUICE_OK;
    *out = sluice_tokenizer_special(t, sluice_span_str(text));
    if (*out == SLUICE_TOKEN_NONE)
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "prompt: the format %s needs the control token \"%s\", which the vocabulary lacks", format,
                                text);
    return SLUICE_OK;
}

static const sluice_prompt nothing = { .begin = SLUICE_TOKEN_NONE, .end = SLUICE_TOKEN_NONE, .declines = SLUICE_TOKEN_NONE };

/* The file's own template, if it is of a known family. */
static bool detect(sluice_chat_template *out, const sluice_gguf *g, const sluice_tokenizer *t)
{
    sluice_span text = SLUICE_SPAN_EMPTY;

    memset(out, 0, sizeof *out);
    return sluice_gguf_find(g, template_key) != NULL && sluice_gguf_get_string(g, template_key, &text, NULL) == SLUICE_OK &&
           sluice_chat_detect(out, text, t);
}

static void take_chat(sluice_prompt *out, const sluice_chat_template *chat)
{
    *out = nothing;
    out->chat = *chat;
    out->format = (sluice_prompt_format)(SLUICE_PROMPT_CHAT + (int)chat->family);
}

/* SLUICE_ERR_NOT_FOUND for a name that does not exist. */
static sluice_status by_name(sluice_prompt *out, sluice_span name, const sluice_gguf *g, const sluice_tokenizer *t, sluice_error *err)
{
    sluice_chat_template chat, own;
    sluice_status st;

    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        sluice_prompt p = nothing;

        if (!sluice_span_eq_str(name, formats[i].name))
            continue;
        st = find_control(t, formats[i].begin, formats[i].name, &p.begin, err);
        if (st == SLUICE_OK)
            st = find_control(t, formats[i].end, formats[i].name, &p.end, err);
        if (st != SLUICE_OK)
            return st;
        p.format = formats[i].format;
        if (p.format == SLUICE_PROMPT_INTENT_ACTION_1)
            p.declines = sluice_tokenizer_find(t, SLUICE_SPAN_LIT("{\"intent\":\"oos"));
        *out = p;
        return SLUICE_OK;
    }
    st = sluice_chat_by_name(&chat, name, t, err);
    if (st != SLUICE_OK)
        return st;
    take_chat(out, detect(&own, g, t) && own.family == chat.family ? &own : &chat);
    return SLUICE_OK;
}

sluice_status sluice_prompt_init(sluice_prompt *out, const sluice_gguf *g, const sluice_tokenizer *t, sluice_error *err)
{
    sluice_span name = SLUICE_SPAN_EMPTY;
    sluice_chat_template chat;
    sluice_status st;

    *out = nothing;
    st = sluice_gguf_opt_string(g, format_key, &name, err);
    if (st != SLUICE_OK)
        return st;
    if (sluice_gguf_find(g, format_key) != NULL) {
        st = by_name(out, name, g, t, err);
        if (st == SLUICE_ERR_NOT_FOUND && err != NULL)
            sluice_error_clear(err);
        return st == SLUICE_ERR_NOT_FOUND ? SLUICE_OK : st; /* unknown; rendering says so */
    }
    if (sluice_gguf_find(g, template_key) == NULL)
        return by_name(out, SLUICE_SPAN_LIT("completion"), g, t, err);
    if (detect(&chat, g, t))
        take_chat(out, &chat);
    return SLUICE_OK;
}

sluice_status sluice_prompt_set_format(sluice_prompt *p, const char *name, const sluice_gguf *g, const sluice_tokenizer *t, sluice_error *err)
{
    sluice_status st = by_name(p, sluice_span_str(name), g, t, err);

    if (st != SLUICE_ERR_NOT_FOUND)
        return st;
    st = sluice_error_set(err, SLUICE_ERR_ARGUMENT, "prompt: there is no format \"%.40s\"", name != NULL ? name : "");
    sluice_error_hint(err, "%s completion", sluice_chat_names());
    return st;
}

static sluice_status unsupported(sluice_error *err, const char *what, const char *hint)
{
    sluice_status st = sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "prompt: %s", what);

    sluice_error_hint(err, "%s", hint);
    return st;
}

static sluice_status check_one_message(const sluice_prompt *p, const sluice_chat_message *messages, size_t n_messages,
                                       const sluice_chat_options *options, sluice_error *err)
{
    sluice_status st;

    if (n_messages == 0)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "prompt: there is no message");
    if (p->format == SLUICE_PROMPT_UNKNOWN) {
        st = sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "prompt: the model has a chat template that this build does not know");
        sluice_error_hint(
            err, "name the format it was trained on (chatml, llama-3, gemma, phi-3, mistral-v3, zephyr …): option prompt_format, or the file's key "
                 "\"sluice.prompt_format\"");
        return st;
    }
    for (size_t i = 0; i < n_messages; i++)
        if (messages[i].role == NULL || strcmp(messages[i].role, "user") != 0)
            return unsupported(err, "this model takes a user message alone: no system message, no earlier answers", "send the last user message");
    if (n_messages > 1)
        return unsupported(err, "this model takes one message, not a conversation of several turns", "send the last user message");
    if (options != NULL && sluice_unicode_trim(options->tools).len > 0)
        return unsupported(err, "this model does not know tools", "send the request without tools");
    return SLUICE_OK;
}

static sluice_status render_one_message(const sluice_prompt *p, const sluice_tokenizer *t, sluice_span text, int32_t *tokens, size_t *n,
                                        sluice_error *err)
{
    sluice_token_mark marks[2];
    size_t n_marks = 0;

    if (p->format == SLUICE_PROMPT_COMPLETION)
        return sluice_tokenizer_encode(t, text, true, tokens, n, err);
    text = sluice_unicode_trim(text);
    if (text.len == 0) {
        *n = 0;
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "prompt: the message is empty");
    }
    marks[n_marks++] = (sluice_token_mark){ 0, p->begin };
    marks[n_marks++] = (sluice_token_mark){ text.len, p->end };
    return sluice_tokenizer_encode_marked(t, text, marks, n_marks, tokens, n, err);
}

sluice_status sluice_prompt_render_chat(const sluice_prompt *p, const sluice_tokenizer *t, const sluice_chat_message *messages, size_t n_messages,
                                        const sluice_chat_options *options, const sluice_allocator *al, int32_t *tokens, size_t *n, sluice_error *err)
{
    sluice_status st;

    if (sluice_prompt_is_chat(p))
        return sluice_chat_render(&p->chat, t, messages, n_messages, options, al, tokens, n, err);
    st = check_one_message(p, messages, n_messages, options, err);
    if (st == SLUICE_OK)
        return render_one_message(p, t, messages[0].text, tokens, n, err);
    *n = 0;
    return st;
}

enum { MESSAGES_MAX = 1024 };

sluice_status sluice_prompt_render(const sluice_prompt *p, const sluice_tokenizer *t, const sluice_engine_message *messages, size_t n_messages,
                                   int32_t *tokens, size_t *n, sluice_error *err)
{
    const sluice_allocator *al = sluice_tokenizer_allocator(t);
    sluice_chat_message few[8], *all = few;
    sluice_status st;

    if (n_messages > MESSAGES_MAX) {
        *n = 0;
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "prompt: %zu messages; the limit is %d", n_messages, MESSAGES_MAX);
    }
    if (n_messages > sizeof few / sizeof few[0]) {
        all = sluice_alloc_array(al, n_messages, sizeof *all);
        if (all == NULL) {
            *n = 0;
            return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "prompt: no memory for %zu messages", n_messages);
        }
    }
    for (size_t i = 0; i < n_messages; i++)
        all[i] = (sluice_chat_message){ .role = messages[i].role, .text = messages[i].text };
    st = sluice_prompt_render_chat(p, t, all, n_messages, NULL, al, tokens, n, err);
    if (all != few)
        sluice_free(al, all, n_messages * sizeof *all);
    return st;
}
