/* fuzz_template.c - chat templates, conversations, tool definitions and answers by strangers.
 *
 * The input is cut at NUL bytes: a chat template, tool definitions, an answer, then messages.  Detection and rendering end in a status
 * whatever they are; what is rendered has the markup that the same conversation has with harmless text in it; the calls found in an answer lie inside it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "local-engine/chat_template.h"
#include "tests/unit/engine/gguf_samples.h"

enum { FILE_MAX = 1 << 20, INPUT_MAX = 1 << 14, TOKENS_MAX = 1 << 18, MESSAGES_MAX = 8 };

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "fuzz_template: %s\n", what);
        abort();
    }
}

static const sample_token marks[] = {
    { "<|im_start|>", 3, 0 },
    { "<|im_end|>", 3, 0 },
    { "<|start_header_id|>", 3, 0 },
    { "<|end_header_id|>", 3, 0 },
    { "<|eot_id|>", 3, 0 },
    { "<start_of_turn>", 4, 0 },
    { "<end_of_turn>", 1, 0 },
    { "<|system|>", 4, 0 },
    { "<|user|>", 4, 0 },
    { "<|assistant|>", 4, 0 },
    { "<|end|>", 3, 0 },
    { "[INST]", 3, 0 },
    { "[/INST]", 3, 0 },
    { "[TOOL_CALLS]", 3, 0 },
    { "[AVAILABLE_TOOLS]", 3, 0 },
    { "[/AVAILABLE_TOOLS]", 3, 0 },
    { "[TOOL_RESULTS]", 3, 0 },
    { "[/TOOL_RESULTS]", 3, 0 },
    { "[SYSTEM_PROMPT]", 3, 0 },
    { "[/SYSTEM_PROMPT]", 3, 0 },
    { "<think>", 4, 0 },
    { "</think>", 4, 0 },
    { "<tool_call>", 4, 0 },
    { "</tool_call>", 4, 0 },
};

/* With all the tokens, and without any; opened once, for the life of the process. */
static const sluice_tokenizer *vocabulary(size_t which)
{
    static sluice_tokenizer *opened[2];
    static sluice_gguf *files[2];
    static sluice_buf bytes[2];

    if (opened[which] == NULL) {
        sluice_buf_init(&bytes[which], NULL, FILE_MAX);
        sample_bpe(&bytes[which],
                   &(sample_bpe_options){ .pre = "gpt-2", .tokens = marks, .n_tokens = which == 0 ? sizeof marks / sizeof marks[0] : 0 });
        must(sluice_gguf_open_span(&files[which], sluice_buf_span(&bytes[which]), NULL, NULL) == SLUICE_OK &&
                 sluice_tokenizer_open(&opened[which], files[which], NULL, NULL) == SLUICE_OK,
             "no vocabulary");
    }
    return opened[which];
}

static sluice_span next_part(sluice_span *rest)
{
    const uint8_t *nul = rest->len > 0 ? memchr(rest->ptr, 0, rest->len) : NULL;
    size_t len = nul != NULL ? (size_t)(nul - rest->ptr) : rest->len, used = nul != NULL ? len + 1 : len;
    sluice_span part = sluice_span_of(rest->ptr, len);

    *rest = sluice_span_of(rest->ptr + used, rest->len - used);
    return part;
}

static bool lies_in(sluice_span outer, sluice_span inner)
{
    return inner.len == 0 || (inner.ptr >= outer.ptr && inner.len <= outer.len && (size_t)(inner.ptr - outer.ptr) <= outer.len - inner.len);
}

static void check_answer(sluice_span answer, sluice_span tools)
{
    sluice_chat_tool_call calls[SLUICE_CHAT_MAX_CALLS];
    size_t n = SLUICE_CHAT_MAX_CALLS;
    sluice_span text;

    if (sluice_chat_tools_check(tools, NULL) != SLUICE_OK || sluice_chat_find_calls(answer, tools, calls, &n, &text, NULL) != SLUICE_OK)
        return;
    must(n <= SLUICE_CHAT_MAX_CALLS && lies_in(answer, text), "calls or text beyond the answer");
    for (size_t i = 0; i < n; i++) {
        must(lies_in(answer, calls[i].name) && sluice_chat_tools_declare(tools, calls[i].name), "a call of no tool");
        must(calls[i].arguments.len >= 2 && sluice_chat_json_end(calls[i].arguments, 0) == calls[i].arguments.len, "arguments that are no JSON");
    }
}

static size_t count_markup(const sluice_tokenizer *t, const int32_t *tokens, size_t n)
{
    size_t n_markup = 0;

    for (size_t i = 0; i < n; i++)
        n_markup += sluice_tokenizer_is_markup(t, tokens[i]);
    return n_markup;
}

/* Thoughts are cut off and kept by what stands in a text; without "<think>" and "</think>" nothing depends on it but emptiness and white space. */
static bool is_plain(const sluice_chat_message *m, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k + 6 <= m[i].text.len; k++)
            if (memcmp(m[i].text.ptr + k, "think>", 6) == 0)
                return false;
    return true;
}

static void check_rendering(const sluice_chat_template *c, const sluice_tokenizer *t, sluice_chat_message *m, size_t n_messages, sluice_span tools)
{
    static int32_t tokens[TOKENS_MAX];
    const sluice_chat_options options = { .tools = tools };
    size_t n = TOKENS_MAX, n_markup;

    if (sluice_chat_render(c, t, m, n_messages, &options, NULL, tokens, &n, NULL) != SLUICE_OK || !is_plain(m, n_messages))
        return;
    n_markup = count_markup(t, tokens, n);
    for (size_t i = 0; i < n_messages; i++)
        m[i].text = SLUICE_SPAN_LIT("x");
    n = TOKENS_MAX;
    must(sluice_chat_render(c, t, m, n_messages, &options, NULL, tokens, &n, NULL) == SLUICE_OK, "harmless text is refused");
    must(count_markup(t, tokens, n) == n_markup, "text has become markup");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const roles[] = { "system", "user", "assistant", "user", "assistant", "user", "tool", "wizard" };
    sluice_span rest = sluice_span_of(data, size), chat_template, tools, answer;
    sluice_chat_message m[MESSAGES_MAX] = { { 0 } };
    size_t n = 0, skip;

    if (size < 1 || size > INPUT_MAX)
        return 0;
    skip = data[0] % 2; /* with a system message, or without */
    rest = sluice_span_of(data + 1, size - 1);
    chat_template = next_part(&rest);
    tools = next_part(&rest);
    answer = next_part(&rest);
    check_answer(answer, tools);
    for (; n + skip < MESSAGES_MAX && rest.len > 0; n++)
        m[n] = (sluice_chat_message){ .role = roles[n + skip], .text = next_part(&rest) };
    for (size_t which = 0; which < 2; which++) {
        const sluice_tokenizer *t = vocabulary(which);
        sluice_chat_message copy[MESSAGES_MAX];
        sluice_chat_template c;

        if (!sluice_chat_detect(&c, chat_template, t))
            continue;
        for (size_t k = 1; k <= n; k++) { /* one of these ends with a user's message */
            memcpy(copy, m, sizeof copy);
            check_rendering(&c, t, copy, k, tools);
        }
    }
    return 0;
}
