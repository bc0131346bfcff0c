/* chat_template.c - detection by text, rendering by family.
 *
 * A renderer writes into one text with marks: own() is for our own constants, in which the names of special tokens stand for the tokens;
 * say() is for everybody else's text, which stays text.  Text between two special tokens is tokenized as one piece, whoever wrote which
 * part of it, because that is how the models saw it.
 *
 * Sources of the forms: the chat_template of each family's published tokenizer_config.json, and its model card.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/chat_template.h"

#include "local-engine/unicode.h"

enum { DEFAULT_SYSTEM_MAX = 1024 };

typedef struct writer writer;
typedef struct conversation conversation;
typedef void (*render_fn)(writer *w, const conversation *c);

typedef enum tool_style {
    TOOLS_ASKED_FOR, /* no form of its own: the system message asks for JSON, results are user turns */
    TOOLS_HERMES,
    TOOLS_LLAMA3,
    TOOLS_MISTRAL
} tool_style;

typedef struct family {
    const char *name;
    render_fn render;
    const char *needs[4];       /* special tokens; NULL: no more */
    bool needs_eos, alternates; /* after a system message: user, assistant, user … */
    tool_style tools;
    bool spaced, system_tokens; /* Mistral: a space behind its tokens; tokens around the system message */
    sluice_chat_template official;
} family;

/* ---- writing ---------------------------------------------------------------------------------------------- */

struct conversation {
    const sluice_chat_template *form;
    const family *family;
    const sluice_chat_message *messages; /* without the system message */
    size_t n;
    sluice_span system; /* given, or the default; empty: none */
    bool has_system;
    size_t last_user; /* place of the last question; n: none */
    sluice_span tools, today;
    bool thinking;
};

struct writer {
    const sluice_tokenizer *t;
    sluice_buf text, marks;
    bool ok;
};

static void say(writer *w, sluice_span text)
{
    w->ok = w->ok && sluice_buf_append_span(&w->text, text);
}

static void place(writer *w, int32_t token)
{
    const sluice_token_mark mark = { w->text.len, token };

    if (token != SLUICE_TOKEN_NONE)
        w->ok = w->ok && sluice_buf_append(&w->marks, &mark, sizeof mark);
}

static void own(writer *w, const char *text)
{
    sluice_span s = sluice_span_str(text);
    size_t begin = 0, at = 0, len;

    while (at < s.len) {
        int32_t token = s.ptr[at] == '<' || s.ptr[at] == '[' ? sluice_tokenizer_special_at(w->t, sluice_span_of(s.ptr + at, s.len - at), &len)
                                                             : SLUICE_TOKEN_NONE;

        if (token == SLUICE_TOKEN_NONE) {
            at++;
            continue;
        }
        say(w, sluice_span_of(s.ptr + begin, at - begin));
        place(w, token);
        at += len;
        begin = at;
    }
    say(w, sluice_span_of(s.ptr + begin, s.len - begin));
}

static void own_eos(writer *w)
{
    place(w, sluice_tokenizer_eos(w->t));
}

static void say_json(writer *w, sluice_span value, size_t indent)
{
    w->ok = w->ok && sluice_chat_json_put(&w->text, value, indent);
}

/* Messages that are text alone become JSON strings. */
static void say_as_json(writer *w, sluice_span text)
{
    size_t end = sluice_chat_json_end(text, 0);

    if (end > 0 && sluice_unicode_trim(sluice_span_of(text.ptr + end, text.len - end)).len == 0)
        say_json(w, sluice_span_of(text.ptr, end), 0);
    else
        w->ok = w->ok && sluice_chat_json_put_string(&w->text, text);
}

/* ---- roles ------------------------------------------------------------------------------------------------- */

static bool is_role(const sluice_chat_message *m, const char *role)
{
    return m->role != NULL && strcmp(m->role, role) == 0;
}

static bool is_user(const sluice_chat_message *m)
{
    return is_role(m, "user");
}

static bool is_assistant(const sluice_chat_message *m)
{
    return is_role(m, "assistant");
}

static bool is_tool(const sluice_chat_message *m)
{
    return is_role(m, "tool");
}

/* A run of tool results is one turn. */
static bool is_first_result(const conversation *c, size_t i)
{
    return i == 0 || !is_tool(&c->messages[i - 1]);
}

static bool is_last_result(const conversation *c, size_t i)
{
    return i + 1 == c->n || !is_tool(&c->messages[i + 1]);
}

/* ---- tools -------------------------------------------------------------------------------------------------- */

/* Each definition in the form {"type": "function", "function": {…}}, whichever it was given in. */
static void say_definition(writer *w, sluice_span tool, size_t indent)
{
    static const char before[] = "{\"type\":\"function\",\"function\":";
    sluice_span inner;
    sluice_buf whole;

    if (sluice_chat_json_member(tool, "function", &inner)) {
        say_json(w, tool, indent);
        return;
    }
    sluice_buf_init(&whole, w->text.al, SLUICE_CHAT_MAX_TOOLS_BYTES + 64);
    if (sluice_buf_append(&whole, before, sizeof before - 1) && sluice_buf_append_span(&whole, tool) && sluice_buf_append_byte(&whole, '}'))
        say_json(w, sluice_buf_span(&whole), indent);
    else
        w->ok = false;
    sluice_buf_deinit(&whole);
}

static void say_definitions(writer *w, sluice_span tools, const char *before, const char *between, const char *after, size_t indent)
{
    size_t cursor = 0;
    sluice_span tool;

    for (size_t i = 0; sluice_chat_json_next(tools, &cursor, &tool); i++) {
        own(w, i > 0 ? between : before);
        say_definition(w, tool, indent);
        own(w, after);
    }
}

static void say_call(writer *w, const sluice_chat_tool_call *call, const char *arguments_key)
{
    own(w, "{\"name\": \"");
    say(w, call->name);
    own(w, "\", \"");
    own(w, arguments_key);
    own(w, "\": ");
    say_json(w, call->arguments.len > 0 ? call->arguments : SLUICE_SPAN_LIT("{}"), 0);
}

/* TOOLS_ASKED_FOR: what is asked of a model that has no form of its own. */
static void ask_for_calls(writer *w, sluice_span tools)
{
    own(w, "You can call the functions below. To call one, answer with a JSON object and nothing else:\n"
           "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n\nFunctions:");
    say_definitions(w, tools, "\n", "\n", "", 0);
}

static void say_system(writer *w, const conversation *c)
{
    say(w, c->system);
    if (c->family->tools != TOOLS_ASKED_FOR || c->tools.len == 0)
        return;
    if (c->system.len > 0)
        own(w, "\n\n");
    ask_for_calls(w, c->tools);
}

static bool has_system_text(const conversation *c)
{
    return c->has_system || (c->family->tools == TOOLS_ASKED_FOR && c->tools.len > 0);
}

/* What an assistant said, calls included, for families that were only asked for them. */
static void say_answer(writer *w, const sluice_chat_message *m, sluice_span text)
{
    say(w, text);
    for (size_t i = 0; i < m->n_calls; i++) {
        if (i > 0 || text.len > 0)
            own(w, "\n");
        say_call(w, &m->calls[i], "arguments");
        own(w, "}");
    }
}

/* One of a run of results, which together are one turn. */
static void say_result(writer *w, const conversation *c, size_t i)
{
    own(w, is_first_result(c, i) ? "Function result:\n" : "\n\nFunction result:\n");
    say(w, c->messages[i].text);
}

/* ---- ChatML, Qwen ------------------------------------------------------------------------------------------- */

static void open_turn(writer *w, const char *role)
{
    own(w, "<|im_start|>");
    own(w, role);
}

static void chatml_system(writer *w, const conversation *c)
{
    if (!c->has_system && c->tools.len == 0)
        return;
    open_turn(w, "system\n");
    say(w, c->system);
    if (c->tools.len > 0) {
        own(w, c->has_system ? "\n\n# Tools" : "# Tools");
        own(w, "\n\nYou may call one or more functions to assist with the user query.\n\n"
               "You are provided with function signatures within <tools></tools> XML tags:\n<tools>");
        say_definitions(w, c->tools, "\n", "\n", "", 0);
        own(w,
            "\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n"
            "<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>");
    }
    own(w, "<|im_end|>\n");
}

/* The place of `text`, or s.len. */
static size_t find_last(sluice_span s, const char *text)
{
    size_t n = strlen(text);

    for (size_t at = s.len; at >= n; at--)
        if (memcmp(s.ptr + at - n, text, n) == 0)
            return at - n;
    return s.len;
}

static sluice_span trim_lines(sluice_span s)
{
    while (s.len > 0 && s.ptr[0] == '\n')
        s = sluice_span_of(s.ptr + 1, s.len - 1);
    while (s.len > 0 && s.ptr[s.len - 1] == '\n')
        s.len--;
    return s;
}

/* Qwen3 forgets what it thought before the last question, and keeps it after. */
static void chatml_answer_text(writer *w, const conversation *c, size_t i)
{
    static const char opening[] = "<think>", closing[] = "</think>";
    sluice_span text = c->messages[i].text, thought = SLUICE_SPAN_EMPTY;
    size_t at = c->form->thinks ? find_last(text, closing) : text.len;

    if (at < text.len) {
        size_t begin;

        thought = sluice_span_of(text.ptr, at);
        begin = find_last(thought, opening);
        begin = begin < thought.len ? begin + sizeof opening - 1 : 0;
        thought = trim_lines(sluice_span_of(thought.ptr + begin, thought.len - begin));
        text = sluice_span_of(text.ptr + at + sizeof closing - 1, text.len - at - (sizeof closing - 1));
        while (text.len > 0 && text.ptr[0] == '\n')
            text = sluice_span_of(text.ptr + 1, text.len - 1);
    }
    if (thought.len > 0 && c->last_user < i) {
        own(w, "<think>\n");
        say(w, thought);
        own(w, "\n</think>\n\n");
    }
    say(w, text);
}

static void chatml_answer(writer *w, const conversation *c, size_t i)
{
    const sluice_chat_message *m = &c->messages[i];

    open_turn(w, "assistant");
    if (m->text.len > 0 || m->n_calls == 0) {
        own(w, "\n");
        chatml_answer_text(w, c, i);
    }
    for (size_t k = 0; k < m->n_calls; k++) {
        own(w, "\n<tool_call>\n");
        say_call(w, &m->calls[k], "arguments");
        own(w, "}\n</tool_call>");
    }
    own(w, "<|im_end|>\n");
}

static void render_chatml(writer *w, const conversation *c)
{
    chatml_system(w, c);
    for (size_t i = 0; i < c->n; i++) {
        const sluice_chat_message *m = &c->messages[i];

        if (is_assistant(m)) {
            chatml_answer(w, c, i);
        } else if (is_tool(m)) {
            if (is_first_result(c, i))
                open_turn(w, "user");
            own(w, "\n<tool_response>\n");
            say(w, m->text);
            own(w, "\n</tool_response>");
            if (is_last_result(c, i))
                own(w, "<|im_end|>\n");
        } else {
            open_turn(w, is_user(m) ? "user\n" : "system\n");
            say(w, m->text);
            own(w, "<|im_end|>\n");
        }
    }
    open_turn(w, "assistant\n");
    if (c->form->opens_thinking)
        own(w, "<think>\n");
    else if (c->form->thinks && !c->thinking)
        own(w, "<think>\n\n</think>\n\n");
}

/* ---- Llama 3 ------------------------------------------------------------------------------------------------- */

static void llama3_turn(writer *w, const char *role)
{
    own(w, "<|start_header_id|>");
    own(w, role);
    own(w, "<|end_header_id|>\n\n");
}

static void llama3_answer(writer *w, const conversation *c, const sluice_chat_message *m)
{
    llama3_turn(w, "assistant");
    if (c->family->tools == TOOLS_LLAMA3 && m->n_calls > 0) {
        say_call(w, &m->calls[0], "parameters");
        own(w, "}");
    } else {
        say_answer(w, m, sluice_unicode_trim(m->text));
    }
    own(w, "<|eot_id|>");
}

static void llama3_user(writer *w, const conversation *c, size_t i)
{
    llama3_turn(w, "user");
    if (i == 0 && c->family->tools == TOOLS_LLAMA3 && c->tools.len > 0) {
        own(w, "Given the following functions, please respond with a JSON for a function call with its proper arguments that best answers the given "
               "prompt.\n\nRespond in the format {\"name\": function name, \"parameters\": dictionary of argument name and its value}."
               "Do not use variables.\n\n");
        say_definitions(w, c->tools, "", "", "\n\n", 4);
    }
    say(w, sluice_unicode_trim(c->messages[i].text));
    own(w, "<|eot_id|>");
}

static void llama3_messages(writer *w, const conversation *c)
{
    for (size_t i = 0; i < c->n; i++) {
        const sluice_chat_message *m = &c->messages[i];

        if (is_user(m)) {
            llama3_user(w, c, i);
        } else if (is_assistant(m)) {
            llama3_answer(w, c, m);
        } else if (is_tool(m) && c->family->tools == TOOLS_LLAMA3) {
            llama3_turn(w, "ipython");
            w->ok = w->ok && sluice_chat_json_put_string(&w->text, m->text); /* quoted even if it is JSON, as the template has it */
            own(w, "<|eot_id|>");
        } else if (is_tool(m)) {
            if (is_first_result(c, i))
                llama3_turn(w, "user");
            say_result(w, c, i);
            if (is_last_result(c, i))
                own(w, "<|eot_id|>");
        } else {
            llama3_turn(w, "system");
            say(w, sluice_unicode_trim(m->text));
            own(w, "<|eot_id|>");
        }
    }
    llama3_turn(w, "assistant");
}

static void render_llama3(writer *w, const conversation *c)
{
    if (has_system_text(c)) {
        llama3_turn(w, "system");
        say_system(w, c);
        own(w, "<|eot_id|>");
    }
    llama3_messages(w, c);
}

static void render_llama31(writer *w, const conversation *c)
{
    llama3_turn(w, "system");
    own(w, c->tools.len > 0 ? "Environment: ipython\nCutting Knowledge Date: December 2023\nToday Date: "
                            : "Cutting Knowledge Date: December 2023\nToday Date: ");
    say(w, c->today.len > 0 ? c->today : SLUICE_SPAN_LIT("26 Jul 2024"));
    own(w, "\n\n");
    say(w, c->system);
    own(w, "<|eot_id|>");
    llama3_messages(w, c);
}

/* ---- Gemma ---------------------------------------------------------------------------------------------------- */

static void render_gemma(writer *w, const conversation *c)
{
    for (size_t i = 0; i < c->n; i++) {
        const sluice_chat_message *m = &c->messages[i];

        if (is_assistant(m))
            own(w, "<start_of_turn>model\n");
        else if (!is_tool(m) || is_first_result(c, i))
            own(w, "<start_of_turn>user\n");
        if (i == 0 && has_system_text(c)) {
            say_system(w, c);
            own(w, "\n\n");
        }
        if (is_tool(m))
            say_result(w, c, i);
        else
            say_answer(w, m, sluice_unicode_trim(m->text));
        if (!is_tool(m) || is_last_result(c, i))
            own(w, "<end_of_turn>\n");
    }
    own(w, "<start_of_turn>model\n");
}

/* ---- Phi, Zephyr: a role's token or its name in plain text, then the message, then an end ------------------- */

static void simple_turns(writer *w, const conversation *c, const char *line, void (*end)(writer *w))
{
    if (has_system_text(c)) {
        own(w, "<|system|>");
        own(w, line);
        say_system(w, c);
        end(w);
    }
    for (size_t i = 0; i < c->n; i++) {
        const sluice_chat_message *m = &c->messages[i];

        if (!is_tool(m) || is_first_result(c, i)) {
            own(w, is_assistant(m) ? "<|assistant|>" : is_user(m) || is_tool(m) ? "<|user|>" : "<|system|>");
            own(w, line);
        }
        if (is_tool(m))
            say_result(w, c, i);
        else
            say_answer(w, m, m->text);
        if (!is_tool(m) || is_last_result(c, i))
            end(w);
    }
    own(w, "<|assistant|>");
}

static void end_phi3(writer *w)
{
    own(w, "<|end|>\n");
}

static void end_phi4(writer *w)
{
    own(w, "<|end|>");
}

static void end_zephyr(writer *w)
{
    own_eos(w);
    own(w, "\n");
}

static void render_phi3(writer *w, const conversation *c)
{
    simple_turns(w, c, "\n", end_phi3);
    own(w, "\n");
}

static void render_phi4(writer *w, const conversation *c)
{
    simple_turns(w, c, "", end_phi4);
}

static void render_zephyr(writer *w, const conversation *c)
{
    simple_turns(w, c, "\n", end_zephyr);
    own(w, "\n");
}

/* ---- Llama 2 --------------------------------------------------------------------------------------------------- */

static sluice_span stripped(const conversation *c, sluice_span s)
{
    return c->form->strips ? sluice_unicode_trim(s) : s;
}

static sluice_span trim_end(sluice_span s)
{
    sluice_span inner = sluice_unicode_trim(s);

    return sluice_span_of(s.ptr, inner.len > 0 ? (size_t)(inner.ptr + inner.len - s.ptr) : 0);
}

static void render_llama2(writer *w, const conversation *c)
{
    for (size_t i = 0; i < c->n; i++) {
        const sluice_chat_message *m = &c->messages[i];

        if (is_assistant(m)) {
            own(w, " ");
            say_answer(w, m, stripped(c, m->text));
            own(w, " ");
            own_eos(w);
            continue;
        }
        if (!is_tool(m) || is_first_result(c, i)) {
            if (c->form->bos_each_turn && i > 0)
                place(w, sluice_tokenizer_bos(w->t));
            own(w, "[INST] ");
        }
        if (i == 0 && has_system_text(c)) {
            own(w, "<<SYS>>\n");
            say_system(w, c);
            own(w, c->form->strips && sluice_unicode_trim(m->text).len == 0 ? "\n<</SYS>>" : "\n<</SYS>>\n\n");
        }
        if (is_tool(m))
            say_result(w, c, i);
        else if (i == 0 && has_system_text(c)) /* what is stripped begins with the system message */
            say(w, c->form->strips ? trim_end(m->text) : m->text);
        else
            say(w, stripped(c, m->text));
        if (!is_tool(m) || is_last_result(c, i))
            own(w, " [/INST]");
    }
}

/* ---- Mistral --------------------------------------------------------------------------------------------------- */

/* Mistral's calls carry ids of nine letters and digits. */
static void mistral_id(writer *w, sluice_span id, size_t ordinal)
{
    char made[] = "call00000";

    if (id.len == 9) {
        say(w, id);
        return;
    }
    for (size_t i = sizeof made - 2; i >= 4; i--, ordinal /= 10)
        made[i] = (char)('0' + ordinal % 10);
    own(w, made);
}

static void mistral_user(writer *w, const conversation *c, size_t i)
{
    bool with_system = has_system_text(c) && !c->family->system_tokens && (c->form->system_last ? i == c->last_user : i == 0);

    if (c->tools.len > 0 && i == c->last_user && c->family->tools == TOOLS_MISTRAL) {
        own(w, c->family->spaced ? "[AVAILABLE_TOOLS] [" : "[AVAILABLE_TOOLS][");
        say_definitions(w, c->tools, "", ", ", "", 0);
        own(w, "][/AVAILABLE_TOOLS]");
    }
    own(w, c->form->leading_space ? " [INST] " : c->family->spaced ? "[INST] " : "[INST]");
    if (with_system) {
        say_system(w, c);
        own(w, "\n\n");
    }
    say(w, c->messages[i].text);
    own(w, c->family->tools == TOOLS_ASKED_FOR ? " [/INST]" : "[/INST]");
}

static void mistral_answer(writer *w, const conversation *c, const sluice_chat_message *m, size_t *n_calls)
{
    if (m->n_calls > 0 && c->family->tools == TOOLS_MISTRAL) {
        own(w, c->family->spaced ? "[TOOL_CALLS] [" : "[TOOL_CALLS][");
        for (size_t i = 0; i < m->n_calls; i++) {
            if (i > 0)
                own(w, ", ");
            say_call(w, &m->calls[i], "arguments");
            own(w, ", \"id\": \"");
            mistral_id(w, m->calls[i].id, (*n_calls)++);
            own(w, "\"}");
        }
        own(w, "]");
    } else {
        if (c->form->leading_space || (c->family->tools == TOOLS_MISTRAL && c->family->spaced))
            own(w, " ");
        say_answer(w, m, stripped(c, m->text));
    }
    own_eos(w);
}

static void mistral_result(writer *w, const conversation *c, size_t i, size_t *n_results)
{
    const sluice_chat_message *m = &c->messages[i];

    if (c->family->tools == TOOLS_ASKED_FOR) {
        if (is_first_result(c, i))
            own(w, c->form->leading_space ? " [INST] " : "[INST] ");
        say_result(w, c, i);
        if (is_last_result(c, i))
            own(w, " [/INST]");
        return;
    }
    own(w, c->family->spaced ? "[TOOL_RESULTS] " : "[TOOL_RESULTS]");
    if (c->family->system_tokens) {
        mistral_id(w, m->call_id, (*n_results)++);
        own(w, "[TOOL_CONTENT]");
        say(w, m->text);
    } else {
        own(w, "{\"content\": ");
        say_as_json(w, m->text);
        own(w, ", \"call_id\": \"");
        mistral_id(w, m->call_id, (*n_results)++);
        own(w, "\"}");
    }
    own(w, "[/TOOL_RESULTS]");
}

static void render_mistral(writer *w, const conversation *c)
{
    size_t n_calls = 0, n_results = 0;

    if (c->has_system && c->family->system_tokens) {
        own(w, c->family->spaced ? "[SYSTEM_PROMPT] " : "[SYSTEM_PROMPT]");
        say(w, c->system);
        own(w, "[/SYSTEM_PROMPT]");
    }
    for (size_t i = 0; i < c->n; i++) {
        if (is_assistant(&c->messages[i]))
            mistral_answer(w, c, &c->messages[i], &n_calls);
        else if (is_tool(&c->messages[i]))
            mistral_result(w, c, i, &n_results);
        else
            mistral_user(w, c, i);
    }
}

/* ---- DeepSeek LLM ----------------------------------------------------------------------------------------------- */

static void render_deepseek(writer *w, const conversation *c)
{
    if (has_system_text(c)) {
        say_system(w, c);
        own(w, "\n\n");
    }
    for (size_t i = 0; i < c->n; i++) {
        const sluice_chat_message *m = &c->messages[i];

        if (is_assistant(m)) {
            own(w, "Assistant: ");
            say_answer(w, m, m->text);
            own_eos(w);
            continue;
        }
        if (is_user(m) || (is_tool(m) && is_first_result(c, i)))
            own(w, "User: ");
        if (is_tool(m))
            say_result(w, c, i);
        else
            say(w, m->text);
        if (!is_tool(m) || is_last_result(c, i))
            own(w, "\n\n");
    }
    own(w, "Assistant:");
}

/* ---- families ---------------------------------------------------------------------------------------------------- */

#define CHATML_TOKENS                                                                                                                                \
    {                                                                                                                                                \
        "<|im_start|>", "<|im_end|>"                                                                                                                 \
    }
#define LLAMA3_TOKENS                                                                                                                                \
    {                                                                                                                                                \
        "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"                                                                                     \
    }
#define PHI_TOKENS                                                                                                                                   \
    {                                                                                                                                                \
        "<|user|>", "<|assistant|>", "<|end|>"                                                                                                       \
    }
#define MISTRAL_TOKENS                                                                                                                               \
    {                                                                                                                                                \
        "[INST]", "[/INST]"                                                                                                                          \
    }

static const family families[] = {
    { .name = "chatml", .render = render_chatml, .needs = CHATML_TOKENS, .tools = TOOLS_HERMES },
    { .name = "qwen2",
      .render = render_chatml,
      .needs = CHATML_TOKENS,
      .tools = TOOLS_HERMES,
      .official = { .default_system = { (const uint8_t *)"You are a helpful assistant.", 28 } } },
    { .name = "qwen2.5",
      .render = render_chatml,
      .needs = CHATML_TOKENS,
      .tools = TOOLS_HERMES,
      .official = { .default_system = { (const uint8_t *)"You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", 68 } } },
    { .name = "smollm2",
      .render = render_chatml,
      .needs = CHATML_TOKENS,
      .tools = TOOLS_HERMES,
      .official = { .default_system = { (const uint8_t *)"You are a helpful AI assistant named SmolLM, trained by Hugging Face", 68 } } },
    { .name = "qwen3", .render = render_chatml, .needs = CHATML_TOKENS, .tools = TOOLS_HERMES, .official = { .thinks = true } },
    { .name = "llama-3", .render = render_llama3, .needs = LLAMA3_TOKENS, .official = { .adds_bos = true } },
    { .name = "llama-3.1", .render = render_llama31, .needs = LLAMA3_TOKENS, .tools = TOOLS_LLAMA3, .official = { .adds_bos = true } },
    { .name = "gemma",
      .render = render_gemma,
      .needs = { "<start_of_turn>", "<end_of_turn>" },
      .alternates = true,
      .official = { .adds_bos = true } },
    { .name = "phi-3", .render = render_phi3, .needs = PHI_TOKENS },
    { .name = "phi-4-mini", .render = render_phi4, .needs = PHI_TOKENS },
    { .name = "mistral-v1",
      .render = render_mistral,
      .needs_eos = true,
      .alternates = true,
      .spaced = true,
      .official = { .adds_bos = true, .leading_space = true } },
    { .name = "mistral-v3",
      .render = render_mistral,
      .needs = MISTRAL_TOKENS,
      .needs_eos = true,
      .alternates = true,
      .tools = TOOLS_MISTRAL,
      .spaced = true,
      .official = { .adds_bos = true, .strips = true, .system_last = true } },
    { .name = "mistral-v3-tekken",
      .render = render_mistral,
      .needs = MISTRAL_TOKENS,
      .needs_eos = true,
      .alternates = true,
      .tools = TOOLS_MISTRAL,
      .official = { .adds_bos = true, .system_last = true } },
    { .name = "mistral-v7",
      .render = render_mistral,
      .needs = { "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]" },
      .needs_eos = true,
      .alternates = true,
      .tools = TOOLS_MISTRAL,
      .spaced = true,
      .system_tokens = true,
      .official = { .adds_bos = true } },
    { .name = "mistral-v7-tekken",
      .render = render_mistral,
      .needs = { "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]" },
      .needs_eos = true,
      .alternates = true,
      .tools = TOOLS_MISTRAL,
      .system_tokens = true,
      .official = { .adds_bos = true } },
    { .name = "llama-2",
      .render = render_llama2,
      .needs_eos = true,
      .alternates = true,
      .official = { .adds_bos = true, .bos_each_turn = true, .strips = true } },
    { .name = "zephyr", .render = render_zephyr, .needs_eos = true },
    { .name = "deepseek-llm", .render = render_deepseek, .needs_eos = true, .official = { .adds_bos = true } },
};
enum { N_FAMILIES = sizeof families / sizeof families[0] };

const char *sluice_chat_names(void)
{
    return "chatml qwen2 qwen2.5 smollm2 qwen3 llama-3 llama-3.1 gemma phi-3 phi-4-mini mistral-v1 mistral-v3 mistral-v3-tekken mistral-v7 "
           "mistral-v7-tekken llama-2 zephyr deepseek-llm";
}

const char *sluice_chat_name(const sluice_chat_template *c)
{
    return c->family >= 1 && c->family <= N_FAMILIES ? families[c->family - 1].name : "unknown";
}

/* What the family needs and the vocabulary lacks; NULL: nothing. */
static const char *lacking(const family *f, const sluice_tokenizer *t)
{
    for (size_t i = 0; i < sizeof f->needs / sizeof f->needs[0] && f->needs[i] != NULL; i++)
        if (sluice_tokenizer_special(t, sluice_span_str(f->needs[i])) == SLUICE_TOKEN_NONE)
            return f->needs[i];
    return f->needs_eos && sluice_tokenizer_eos(t) == SLUICE_TOKEN_NONE ? "end of text" : NULL;
}

static const family *find_family(sluice_span name)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (sluice_span_eq_str(name, families[i].name))
            return &families[i];
    return NULL;
}

sluice_status sluice_chat_by_name(sluice_chat_template *out, sluice_span name, const sluice_tokenizer *t, sluice_error *err)
{
    const family *f = find_family(name);

    memset(out, 0, sizeof *out);
    if (f == NULL)
        return sluice_error_set(err, SLUICE_ERR_NOT_FOUND, "prompt: there is no chat format of that name");
    if (lacking(f, t) != NULL)
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "prompt: the format %s needs the control token \"%s\", which the vocabulary lacks", f->name,
                                lacking(f, t));
    *out = f->official;
    out->family = (uint32_t)(f - families) + 1;
    return SLUICE_OK;
}

/* ---- detection ------------------------------------------------------------------------------------------------------ */

static bool contains(sluice_span s, const char *text)
{
    size_t n = strlen(text);

    for (size_t at = 0; s.len - at >= n;) {
        const uint8_t *p = memchr(s.ptr + at, text[0], s.len - at - n + 1);

        if (p == NULL)
            return false;
        if (memcmp(p, text, n) == 0)
            return true;
        at = (size_t)(p - s.ptr) + 1;
    }
    return false;
}

/* White space and line breaks, real ones or escaped, do not count between a template's parts. */
static size_t skip_layout(sluice_span s, size_t at)
{
    for (; at < s.len; at++) {
        if (s.ptr[at] == '\\' && at + 1 < s.len && s.ptr[at + 1] == 'n')
            at++;
        else if (s.ptr[at] != ' ' && s.ptr[at] != '\n' && s.ptr[at] != '\r' && s.ptr[at] != '\t')
            break;
    }
    return at;
}

/* As contains(), but without layout, and whichever quotes were used; `text` has neither layout nor double quotes and begins with a mark. */
static bool contains_code(sluice_span s, const char *text)
{
    for (size_t begin = 0; begin < s.len; begin++) {
        size_t at = begin;
        const char *p = text;

        while (*p != '\0' && at < s.len && (s.ptr[at] == (uint8_t)*p || (*p == '\'' && s.ptr[at] == '"'))) {
            p++;
            at = skip_layout(s, at + 1);
        }
        if (*p == '\0')
            return true;
    }
    return false;
}

/* The system message that a ChatML template writes where none is given: a constant after "<|im_start|>system\n", up to "<|im_end|>". */
static sluice_span find_default_system(sluice_span s)
{
    static const char opening[] = "<|im_start|>system", closing[] = "<|im_end|>";

    for (size_t at = 0; at + sizeof opening < s.len; at++) {
        size_t begin = at + sizeof opening - 1, end;

        if (s.ptr[at] != '<' || memcmp(s.ptr + at, opening, sizeof opening - 1) != 0)
            continue;
        if (s.ptr[begin] == '\n')
            begin++;
        else if (s.ptr[begin] == '\\' && s.ptr[begin + 1] == 'n')
            begin += 2;
        else
            continue;
        for (end = begin; end < s.len && end - begin <= DEFAULT_SYSTEM_MAX && memchr("'\"\\{}", s.ptr[end], 5) == NULL; end++)
            if (s.ptr[end] == '<' && s.len - end >= sizeof closing - 1 && memcmp(s.ptr + end, closing, sizeof closing - 1) == 0)
                return sluice_span_of(s.ptr + begin, end - begin);
    }
    return SLUICE_SPAN_EMPTY;
}

/* The token names alone tell it; Qwen3 is what can think. */
static const char *detect_chatml(sluice_chat_template *c, sluice_span s)
{
    if (contains(s, "<|im_sep|>") || contains(s, "## Metadata") || contains(s, "<end_of_utterance>"))
        return NULL; /* Phi-4, SmolLM3, SmolVLM: other forms with the same tokens */
    if (contains(s, "<think>")) {
        c->thinks = contains(s, "enable_thinking");
        c->opens_thinking = !c->thinks && contains_code(s, "<|im_start|>assistant<think>'");
        return "qwen3";
    }
    c->default_system = find_default_system(s);
    if (contains(s, "named SmolLM"))
        return "smollm2";
    if (contains(s, "You are Qwen"))
        return "qwen2.5";
    return sluice_span_eq_str(c->default_system, "You are a helpful assistant.") ? "qwen2" : "chatml";
}

static const char *detect_mistral(sluice_chat_template *c, sluice_span s, const sluice_tokenizer *t)
{
    bool spaces = contains(s, "[INST] ");

    if (contains(s, "<<SYS>>")) {
        c->strips = contains(s, ".strip()") || contains(s, "trim");
        c->bos_each_turn = contains_code(s, "bos_token+'[INST]");
        return "llama-2";
    }
    c->system_last = contains(s, "loop.last and system_message");
    if (contains(s, "[SYSTEM_PROMPT]"))
        return contains(s, "[SYSTEM_PROMPT] ") ? "mistral-v7" : "mistral-v7-tekken";
    if (sluice_tokenizer_special(t, SLUICE_SPAN_LIT("[INST]")) != SLUICE_TOKEN_NONE) {
        c->strips = contains(s, "|trim") || contains(s, "| trim");
        return spaces ? "mistral-v3" : "mistral-v3-tekken";
    }
    c->leading_space = contains(s, "\" [INST] \"") || contains(s, "' [INST] '");
    return spaces ? "mistral-v1" : NULL;
}

/* The name of the family, by what stands in the template; the first that fits.  *c takes what differs inside a family. */
static const char *detect(sluice_chat_template *c, sluice_span s, const sluice_tokenizer *t)
{
    if (contains(s, "<|im_start|>"))
        return detect_chatml(c, s);
    if (contains(s, "<|start_header_id|>") && contains(s, "<|eot_id|>"))
        return contains(s, "Cutting Knowledge Date") ? "llama-3.1" : "llama-3";
    if (contains(s, "<start_of_turn>") && contains(s, "<end_of_turn>"))
        return "gemma";
    if (contains(s, "[INST]"))
        return detect_mistral(c, s, t);
    if (contains(s, "<|end|>") && (contains(s, "<|assistant|>") || contains_code(s, "'<|'+message['role']+'|>'")))
        return contains_code(s, "'<|'+message['role']+'|>'+message['content']") ? "phi-4-mini" : "phi-3";
    if (contains_code(s, "'<|user|>'+message['content']+eos_token") && contains_code(s, "'<|assistant|>'+message['content']+eos_token"))
        return "zephyr";
    if (contains_code(s, "'User:'+message['content']+''") && contains_code(s, "'Assistant:'+message['content']+eos_token"))
        return "deepseek-llm";
    return NULL;
}

bool sluice_chat_detect(sluice_chat_template *out, sluice_span text, const sluice_tokenizer *t)
{
    const char *name = NULL;
    const family *f = NULL;

    memset(out, 0, sizeof *out);
    if (text.len <= SLUICE_CHAT_TEMPLATE_MAX_BYTES)
        name = detect(out, text, t);
    if (name != NULL)
        f = find_family(sluice_span_str(name));
    if (f == NULL || lacking(f, t) != NULL) {
        memset(out, 0, sizeof *out);
        return false;
    }
    out->family = (uint32_t)(f - families) + 1;
    out->adds_bos = contains(text, "bos_token") || contains(text, "<|begin_of_text|>") || contains(text, "<bos>");
    return true;
}

/* ---- rendering ------------------------------------------------------------------------------------------------------- */

static sluice_status refuse(sluice_error *err, sluice_status status, const family *f, size_t i, const char *what, const char *hint)
{
    sluice_status st = sluice_error_set(err, status, "prompt: message %zu %s (format %s)", i, what, f->name);

    if (hint != NULL)
        sluice_error_hint(err, "%s", hint);
    return st;
}

static bool is_object(sluice_span s)
{
    s = sluice_unicode_trim(s);
    return s.len > 0 && s.ptr[0] == '{' && sluice_chat_json_end(s, 0) == s.len;
}

static sluice_status check_calls(const conversation *c, size_t i, sluice_error *err)
{
    const sluice_chat_message *m = &c->messages[i];

    if (m->n_calls > 0 && !is_assistant(m))
        return refuse(err, SLUICE_ERR_ARGUMENT, c->family, i, "has tool calls, but is not the assistant's", NULL);
    if (m->n_calls > 1 && c->family->tools == TOOLS_LLAMA3)
        return refuse(err, SLUICE_ERR_UNSUPPORTED, c->family, i, "has several tool calls; this model makes one at a time", NULL);
    for (size_t k = 0; k < m->n_calls; k++)
        if (!sluice_chat_tool_name_is_valid(m->calls[k].name) || (m->calls[k].arguments.len > 0 && !is_object(m->calls[k].arguments)))
            return refuse(err, SLUICE_ERR_ARGUMENT, c->family, i, "has a tool call without a valid name or a JSON object of arguments", NULL);
    return SLUICE_OK;
}

/* Results of tools count as the user's where they are written as such, and neither they nor the calls count where both have forms of their own. */
static sluice_status check_order(const conversation *c, sluice_error *err)
{
    bool want_user = true;

    for (size_t i = 0; i < c->n; i++) {
        const sluice_chat_message *m = &c->messages[i];
        bool user = is_user(m) || is_tool(m);

        if (!user && !is_assistant(m))
            return refuse(err, SLUICE_ERR_ARGUMENT, c->family, i, "is a system message, and not the first", "put system messages first, as one");
        if ((is_tool(m) && !is_first_result(c, i)) || (c->family->tools == TOOLS_MISTRAL && (is_tool(m) || m->n_calls > 0)))
            continue;
        if (user != want_user)
            return refuse(err, SLUICE_ERR_ARGUMENT, c->family, i, "is out of turn: user and assistant must alternate, the user first",
                          "join messages of the same role into one");
        want_user = !want_user;
    }
    return SLUICE_OK;
}

static sluice_status check(conversation *c, sluice_error *err)
{
    sluice_status st = sluice_chat_tools_check(c->tools, err);
    sluice_span tool;
    size_t cursor = 0;

    if (st == SLUICE_OK && !sluice_chat_json_next(c->tools, &cursor, &tool))
        c->tools = SLUICE_SPAN_EMPTY;
    for (size_t i = 0; i < c->n && st == SLUICE_OK; i++) {
        const sluice_chat_message *m = &c->messages[i];

        if (!is_user(m) && !is_assistant(m) && !is_tool(m) && !is_role(m, "system"))
            return refuse(err, SLUICE_ERR_UNSUPPORTED, c->family, i, "has a role that is none of system, user, assistant and tool", NULL);
        if (is_tool(m) && (i == 0 || is_user(&c->messages[i - 1])))
            return refuse(err, SLUICE_ERR_ARGUMENT, c->family, i, "is a tool's, and nothing called one before it", NULL);
        st = check_calls(c, i, err);
        if (is_user(m))
            c->last_user = i;
    }
    if (st != SLUICE_OK)
        return st;
    if (c->n == 0 || (!is_user(&c->messages[c->n - 1]) && !is_tool(&c->messages[c->n - 1])))
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "prompt: the last message is neither a user's nor a tool's: there is nothing to answer");
    if (c->family->tools == TOOLS_LLAMA3 && c->tools.len > 0 && !is_user(&c->messages[0]))
        return refuse(err, SLUICE_ERR_ARGUMENT, c->family, 0, "is not the user's, which the tools go into", NULL);
    return c->family->alternates ? check_order(c, err) : SLUICE_OK;
}

sluice_status sluice_chat_render(const sluice_chat_template *form, const sluice_tokenizer *t, const sluice_chat_message *messages, size_t n_messages,
                                 const sluice_chat_options *options, const sluice_allocator *al, int32_t *tokens, size_t *n, sluice_error *err)
{
    conversation c = { .form = form, .messages = messages, .n = n_messages, .system = form->default_system, .last_user = n_messages };
    size_t capacity = *n;
    sluice_status st;
    writer w = { .t = t, .ok = true };

    *n = 0;
    if (form->family < 1 || form->family > N_FAMILIES)
        return sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "prompt: no chat format was chosen");
    c.family = &families[form->family - 1];
    c.has_system = c.system.len > 0;
    if (options != NULL) {
        c.tools = sluice_unicode_trim(options->tools);
        c.today = options->today;
        c.thinking = options->thinking;
    }
    if (n_messages > 0 && is_role(&messages[0], "system")) {
        c.system = c.family->render == render_llama3 || c.family->render == render_llama31 ? sluice_unicode_trim(messages[0].text) : messages[0].text;
        c.has_system = true;
        c.messages++;
        c.n--;
        c.last_user = c.n;
    }
    st = check(&c, err);
    if (st != SLUICE_OK)
        return st;
    sluice_buf_init(&w.text, al, SLUICE_TOKENIZER_MAX_TEXT);
    sluice_buf_init(&w.marks, al, SLUICE_TOKENIZER_MAX_TEXT);
    if (form->adds_bos || sluice_tokenizer_wants_bos(t))
        place(&w, sluice_tokenizer_bos(t));
    c.family->render(&w, &c);
    if (w.ok) {
        *n = capacity;
        st = sluice_tokenizer_encode_marked(t, sluice_buf_span(&w.text), (const sluice_token_mark *)(const void *)w.marks.ptr,
                                            w.marks.len / sizeof(sluice_token_mark), tokens, n, err);
    } else {
        st = sluice_buf_error(w.marks.failed_limit ? &w.marks : &w.text, "prompt: the conversation", err);
    }
    sluice_buf_deinit(&w.text);
    sluice_buf_deinit(&w.marks);
    return st;
}
