/* prompt.c - which prompt format a model has, and how it is rendered.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/prompt.h"

#include "local-engine/unicode.h"

static const char format_key[] = "sluice.prompt_format";

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
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (formats[i].format == format)
            return formats[i].name;
    return "unknown";
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

/* The ordinary token with exactly this text, as the model's answers use it; SLUICE_TOKEN_NONE when there is none. */
static int32_t find_text(const sluice_tokenizer *t, const char *text)
{
    for (uint32_t i = 0; i < sluice_tokenizer_n_vocab(t); i++)
        if (sluice_span_eq_str(sluice_tokenizer_bytes(t, (int32_t)i), text))
            return (int32_t)i;
    return SLUICE_TOKEN_NONE;
}

sluice_status sluice_prompt_init(sluice_prompt *out, const sluice_gguf *g, const sluice_tokenizer *t, sluice_error *err)
{
    sluice_span name = SLUICE_SPAN_EMPTY;
    sluice_status st;

    *out = (sluice_prompt){ SLUICE_PROMPT_UNKNOWN, SLUICE_TOKEN_NONE, SLUICE_TOKEN_NONE, SLUICE_TOKEN_NONE };
    st = sluice_gguf_opt_string(g, format_key, &name, err);
    if (st != SLUICE_OK)
        return st;
    if (sluice_gguf_find(g, format_key) == NULL && sluice_gguf_find(g, "tokenizer.chat_template") == NULL)
        name = SLUICE_SPAN_LIT("completion");
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        if (!sluice_span_eq_str(name, formats[i].name))
            continue;
        st = find_control(t, formats[i].begin, formats[i].name, &out->begin, err);
        if (st == SLUICE_OK)
            st = find_control(t, formats[i].end, formats[i].name, &out->end, err);
        if (st == SLUICE_OK)
            out->format = formats[i].format;
        if (st == SLUICE_OK && out->format == SLUICE_PROMPT_INTENT_ACTION_1)
            out->declines = find_text(t, "{\"intent\":\"oos");
        return st;
    }
    return SLUICE_OK;
}

static sluice_status unsupported(sluice_error *err, const char *what, const char *hint)
{
    sluice_status st = sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "prompt: %s", what);

    sluice_error_hint(err, "%s", hint);
    return st;
}

static sluice_status check_messages(const sluice_prompt *p, const sluice_engine_message *messages, size_t n_messages, sluice_error *err)
{
    if (n_messages == 0)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "prompt: there is no message");
    if (p->format == SLUICE_PROMPT_UNKNOWN)
        return unsupported(
            err, "the model has a prompt format that this build does not know",
            "set the metadata key \"sluice.prompt_format\" to intent-action/1 or completion, if that is what the model was trained on");
    for (size_t i = 0; i < n_messages; i++)
        if (messages[i].role == NULL || strcmp(messages[i].role, "user") != 0)
            return unsupported(err, "this model takes a user message alone: no system message, no earlier answers", "send the last user message");
    if (n_messages > 1)
        return unsupported(err, "this model takes one message, not a conversation of several turns", "send the last user message");
    return SLUICE_OK;
}

sluice_status sluice_prompt_render(const sluice_prompt *p, const sluice_tokenizer *t, const sluice_engine_message *messages, size_t n_messages,
                                   int32_t *tokens, size_t *n, sluice_error *err)
{
    size_t capacity = *n, n_begin = p->begin != SLUICE_TOKEN_NONE, n_end = p->end != SLUICE_TOKEN_NONE, n_text;
    sluice_span text;
    sluice_status st;

    *n = 0;
    st = check_messages(p, messages, n_messages, err);
    if (st != SLUICE_OK)
        return st;
    text = messages[0].text;
    if (p->format == SLUICE_PROMPT_INTENT_ACTION_1) {
        text = sluice_unicode_trim(text);
        if (text.len == 0)
            return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "prompt: the message is empty");
    }
    n_text = capacity > n_begin + n_end ? capacity - n_begin - n_end : 0;
    st = sluice_tokenizer_encode(t, text, p->format == SLUICE_PROMPT_COMPLETION, n_text > 0 ? tokens + n_begin : NULL, &n_text, err);
    if (st != SLUICE_OK && (st != SLUICE_ERR_LIMIT || n_text == 0))
        return st;
    *n = n_begin + n_text + n_end;
    if (st == SLUICE_ERR_LIMIT || *n > capacity)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "prompt: %zu tokens; there is room for %zu", *n, capacity);
    if (n_begin > 0)
        tokens[0] = p->begin;
    if (n_end > 0)
        tokens[n_begin + n_text] = p->end;
    return SLUICE_OK;
}
