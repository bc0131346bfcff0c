/* chat_tools.c - a JSON scanner that never allocates, and the shapes that models write tool calls in.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/chat_tools.h"

#include "local-engine/unicode.h"

/* ---- scanning --------------------------------------------------------------------------------------------- */

static size_t skip_space(sluice_span s, size_t at)
{
    while (at < s.len && (s.ptr[at] == ' ' || s.ptr[at] == '\t' || s.ptr[at] == '\n' || s.ptr[at] == '\r'))
        at++;
    return at;
}

static bool is_hex(uint8_t c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

/* Each of these takes the place where its value begins and returns its end, or 0. */
static size_t string_end(sluice_span s, size_t at)
{
    for (at++; at < s.len; at++) {
        if (s.ptr[at] == '"')
            return at + 1;
        if (s.ptr[at] < 0x20)
            return 0;
        if (s.ptr[at] != '\\')
            continue;
        at++;
        if (at >= s.len || memchr("\"\\/bfnrtu", s.ptr[at], 9) == NULL)
            return 0;
        if (s.ptr[at] != 'u')
            continue;
        for (size_t i = 0; i < 4; i++)
            if (++at >= s.len || !is_hex(s.ptr[at]))
                return 0;
    }
    return 0;
}

static size_t digits_end(sluice_span s, size_t at)
{
    while (at < s.len && s.ptr[at] >= '0' && s.ptr[at] <= '9')
        at++;
    return at;
}

static size_t number_end(sluice_span s, size_t at)
{
    size_t digits;

    if (s.ptr[at] == '-')
        at++;
    digits = at;
    at = digits_end(s, at);
    if (at == digits || (s.ptr[digits] == '0' && at - digits > 1))
        return 0;
    if (at < s.len && s.ptr[at] == '.') {
        digits = ++at;
        at = digits_end(s, at);
        if (at == digits)
            return 0;
    }
    if (at < s.len && (s.ptr[at] == 'e' || s.ptr[at] == 'E')) {
        at++;
        if (at < s.len && (s.ptr[at] == '+' || s.ptr[at] == '-'))
            at++;
        digits = at;
        at = digits_end(s, at);
        if (at == digits)
            return 0;
    }
    return at;
}

static size_t word_end(sluice_span s, size_t at, const char *word)
{
    size_t n = strlen(word);

    return s.len - at >= n && memcmp(s.ptr + at, word, n) == 0 ? at + n : 0;
}

static size_t value_end(sluice_span s, size_t at, uint32_t depth);

static size_t members_end(sluice_span s, size_t at, uint32_t depth)
{
    const bool is_object = s.ptr[at] == '{';
    const uint8_t closing = is_object ? '}' : ']';

    at = skip_space(s, at + 1);
    if (at < s.len && s.ptr[at] == closing)
        return at + 1;
    for (;;) {
        at = skip_space(s, at);
        if (is_object) {
            if (at >= s.len || s.ptr[at] != '"' || (at = string_end(s, at)) == 0)
                return 0;
            at = skip_space(s, at);
            if (at >= s.len || s.ptr[at++] != ':')
                return 0;
        }
        at = value_end(s, at, depth - 1);
        if (at == 0)
            return 0;
        at = skip_space(s, at);
        if (at >= s.len)
            return 0;
        if (s.ptr[at] == closing)
            return at + 1;
        if (s.ptr[at++] != ',')
            return 0;
    }
}

static size_t value_end(sluice_span s, size_t at, uint32_t depth)
{
    at = skip_space(s, at);
    if (at >= s.len || depth == 0)
        return 0;
    switch (s.ptr[at]) {
    case '{':
    case '[': return members_end(s, at, depth);
    case '"': return string_end(s, at);
    case 't': return word_end(s, at, "true");
    case 'f': return word_end(s, at, "false");
    case 'n': return word_end(s, at, "null");
    default: return s.ptr[at] == '-' || (s.ptr[at] >= '0' && s.ptr[at] <= '9') ? number_end(s, at) : 0;
    }
}

size_t sluice_chat_json_end(sluice_span s, size_t at)
{
    return value_end(s, at, SLUICE_CHAT_JSON_DEPTH);
}

/* The value at *cursor, without white space around it; *cursor moves behind it. */
static sluice_span take_value(sluice_span s, size_t *cursor)
{
    size_t at = skip_space(s, *cursor);

    *cursor = value_end(s, at, SLUICE_CHAT_JSON_DEPTH);
    return *cursor > at ? sluice_span_of(s.ptr + at, *cursor - at) : SLUICE_SPAN_EMPTY;
}

static size_t skip_mark(sluice_span s, size_t at, uint8_t mark)
{
    at = skip_space(s, at);
    return at < s.len && s.ptr[at] == mark ? skip_space(s, at + 1) : at;
}

bool sluice_chat_json_next(sluice_span array, size_t *cursor, sluice_span *item)
{
    size_t at = skip_mark(array, *cursor, *cursor == 0 ? '[' : ',');

    if (at >= array.len || array.ptr[at] == ']')
        return false;
    *item = take_value(array, &at);
    *cursor = at;
    return item->len > 0;
}

bool sluice_chat_json_member(sluice_span object, const char *key, sluice_span *value)
{
    for (size_t at = skip_mark(object, 0, '{'); at < object.len && object.ptr[at] == '"'; at = skip_mark(object, at, ',')) {
        sluice_span name = take_value(object, &at);

        at = skip_mark(object, at, ':');
        *value = take_value(object, &at);
        if (name.len < 2 || value->len == 0)
            break;
        if (sluice_span_eq_str(sluice_span_of(name.ptr + 1, name.len - 2), key))
            return true;
    }
    *value = SLUICE_SPAN_EMPTY;
    return false;
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

static bool new_line(sluice_buf *out, size_t spaces)
{
    bool ok = sluice_buf_append_byte(out, '\n');

    for (size_t i = 0; i < spaces && ok; i++)
        ok = sluice_buf_append_byte(out, ' ');
    return ok;
}

/* One pass over the bytes: outside of strings only the marks matter. */
bool sluice_chat_json_put(sluice_buf *out, sluice_span value, size_t indent)
{
    size_t depth = 0;
    bool ok = true;

    for (size_t at = skip_space(value, 0); at < value.len && ok; at = skip_space(value, at)) {
        uint8_t c = value.ptr[at];
        size_t next = skip_space(value, at + 1), end;

        switch (c) {
        case '{':
        case '[':
            ok = sluice_buf_append_byte(out, c);
            if (next < value.len && (value.ptr[next] == '}' || value.ptr[next] == ']')) {
                ok = ok && sluice_buf_append_byte(out, value.ptr[next]);
                at = next + 1;
                break;
            }
            depth++;
            ok = ok && (indent == 0 || new_line(out, depth * indent));
            at++;
            break;
        case '}':
        case ']':
            depth -= depth > 0;
            ok = (indent == 0 || new_line(out, depth * indent)) && sluice_buf_append_byte(out, c);
            at++;
            break;
        case ',':
            ok = indent == 0 ? sluice_buf_append(out, ", ", 2) : sluice_buf_append_byte(out, ',') && new_line(out, depth * indent);
            at++;
            break;
        case ':':
            ok = sluice_buf_append(out, ": ", 2);
            at++;
            break;
        default:
            end = value_end(value, at, 1);
            if (end == 0)
                return false; /* not a value: the caller promised one */
            ok = sluice_buf_append(out, value.ptr + at, end - at);
            at = end;
            break;
        }
    }
    return ok;
}

bool sluice_chat_json_put_string(sluice_buf *out, sluice_span text)
{
    static const char escaped[] = "\"\\\n\r\t\b\f", letters[] = "\"\\nrtbf";
    bool ok = sluice_buf_append_byte(out, '"');

    for (size_t i = 0; i < text.len && ok; i++) {
        uint8_t c = text.ptr[i];
        const char *found = c != 0 ? strchr(escaped, c) : NULL;

        if (found != NULL)
            ok = sluice_buf_append_byte(out, '\\') && sluice_buf_append_byte(out, (uint8_t)letters[found - escaped]);
        else if (c < 0x20)
            ok = sluice_buf_appendf(out, "\\u%04x", c);
        else
            ok = sluice_buf_append_byte(out, c);
    }
    return ok && sluice_buf_append_byte(out, '"');
}

/* ---- definitions ------------------------------------------------------------------------------------------ */

bool sluice_chat_tool_name_is_valid(sluice_span name)
{
    if (name.len == 0 || name.len > SLUICE_CHAT_MAX_NAME_BYTES)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.ptr[i];

        if (!((c | 0x20) >= 'a' && (c | 0x20) <= 'z') && !(c >= '0' && c <= '9') && c != '_' && c != '-' && c != '.')
            return false;
    }
    return true;
}

/* The string member "name", without its quotes, where it is a valid name. */
static bool take_name(sluice_span object, sluice_span *name)
{
    if (!sluice_chat_json_member(object, "name", name) || name->len < 2 || name->ptr[0] != '"')
        return false;
    *name = sluice_span_of(name->ptr + 1, name->len - 2);
    return sluice_chat_tool_name_is_valid(*name);
}

static sluice_span inner_definition(sluice_span tool)
{
    sluice_span function;

    return sluice_chat_json_member(tool, "function", &function) && function.ptr[0] == '{' ? function : tool;
}

sluice_status sluice_chat_tools_check(sluice_span tools, sluice_error *err)
{
    size_t end, cursor = 0, n = 0, begin = skip_space(tools, 0);
    sluice_span tool, name;
    sluice_status st;

    if (tools.len > SLUICE_CHAT_MAX_TOOLS_BYTES)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "tools: %zu bytes of definitions; the limit is %d", tools.len, SLUICE_CHAT_MAX_TOOLS_BYTES);
    if (begin == tools.len)
        return SLUICE_OK;
    end = sluice_chat_json_end(tools, begin);
    if (tools.ptr[begin] != '[' || end == 0 || skip_space(tools, end) != tools.len)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "tools: the definitions are not one JSON array");
    for (; sluice_chat_json_next(tools, &cursor, &tool); n++) {
        if (tool.ptr[0] != '{' || !take_name(inner_definition(tool), &name)) {
            st = sluice_error_set(err, SLUICE_ERR_ARGUMENT, "tools: definition %zu is not an object with a name of letters, digits, _, - and .", n);
            sluice_error_offset(err, (uint64_t)(tool.ptr - tools.ptr));
            return st;
        }
        if (n == SLUICE_CHAT_MAX_TOOLS)
            return sluice_error_set(err, SLUICE_ERR_LIMIT, "tools: more than %d definitions", SLUICE_CHAT_MAX_TOOLS);
    }
    return SLUICE_OK;
}

bool sluice_chat_tools_declare(sluice_span tools, sluice_span name)
{
    size_t cursor = 0;
    sluice_span tool, declared;

    while (sluice_chat_json_next(tools, &cursor, &tool))
        if (take_name(inner_definition(tool), &declared) && sluice_span_eq(declared, name))
            return true;
    return false;
}

/* ---- calls ------------------------------------------------------------------------------------------------ */

typedef struct finder {
    sluice_span s, tools;
    sluice_chat_tool_call *calls;
    size_t capacity, n, begin; /* where the first call begins */
    sluice_error *err;
} finder;

static sluice_status bad_call(const finder *f, size_t at, const char *what)
{
    sluice_status st = sluice_error_set(f->err, SLUICE_ERR_FORMAT, "tools: the model's call %s", what);

    sluice_error_offset(f->err, at);
    return st;
}

static sluice_status add_call(finder *f, size_t at, sluice_span name, sluice_span arguments, sluice_span id)
{
    if (!sluice_chat_tool_name_is_valid(name) || !sluice_chat_tools_declare(f->tools, name))
        return bad_call(f, at, "names no tool that was declared");
    if (arguments.len == 0 || sluice_span_eq_str(arguments, "null"))
        arguments = SLUICE_SPAN_LIT("{}");
    if (arguments.ptr[0] != '{')
        return bad_call(f, at, "has arguments that are no object");
    if (f->n == f->capacity)
        return sluice_error_set(f->err, SLUICE_ERR_LIMIT, "tools: the answer has more than %zu calls", f->capacity);
    f->calls[f->n++] = (sluice_chat_tool_call){ name, arguments, id };
    return SLUICE_OK;
}

static sluice_status add_object(finder *f, size_t at, sluice_span object)
{
    sluice_span inner = inner_definition(object), name, arguments, id;

    if (!take_name(inner, &name))
        return bad_call(f, at, "has no name");
    if (!sluice_chat_json_member(inner, "arguments", &arguments))
        (void)sluice_chat_json_member(inner, "parameters", &arguments);
    if (!sluice_chat_json_member(object, "id", &id) || id.len < 2 || id.ptr[0] != '"' || memchr(id.ptr, '\\', id.len) != NULL)
        id = SLUICE_SPAN_EMPTY;
    else
        id = sluice_span_of(id.ptr + 1, id.len - 2);
    return add_call(f, at, name, arguments, id);
}

/* An object or an array of them at `at`; *end is where it ends. */
static sluice_status add_objects(finder *f, size_t at, size_t *end)
{
    sluice_span value, item;
    sluice_status st = SLUICE_OK;
    size_t cursor = 0;

    at = skip_space(f->s, at);
    *end = sluice_chat_json_end(f->s, at);
    if (*end == 0 || (f->s.ptr[at] != '{' && f->s.ptr[at] != '['))
        return bad_call(f, at, "is not JSON");
    value = sluice_span_of(f->s.ptr + at, *end - at);
    if (value.ptr[0] == '{')
        return add_object(f, at, value);
    while (st == SLUICE_OK && sluice_chat_json_next(value, &cursor, &item))
        st = item.ptr[0] == '{' ? add_object(f, (size_t)(item.ptr - f->s.ptr), item) : bad_call(f, at, "is not an object");
    return st;
}

/* The place of `text` from `at` on, or s.len.  Texts are a few bytes: linear. */
static size_t find_text(sluice_span s, size_t at, const char *text)
{
    size_t n = strlen(text);

    while (s.len - at >= n) {
        const uint8_t *p = memchr(s.ptr + at, text[0], s.len - at - n + 1);

        if (p == NULL)
            return s.len;
        at = (size_t)(p - s.ptr);
        if (memcmp(p, text, n) == 0)
            return at;
        at++;
    }
    return s.len;
}

static sluice_status find_hermes(finder *f)
{
    static const char opening[] = "<tool_call>";
    sluice_status st = SLUICE_OK;

    f->begin = find_text(f->s, 0, opening);
    for (size_t at = f->begin; at < f->s.len && st == SLUICE_OK; at = at < f->s.len ? find_text(f->s, at, opening) : at)
        st = add_objects(f, at + sizeof opening - 1, &at);
    return st;
}

/* name[ARGS]{…}, once or more; or a JSON value */
static sluice_status find_mistral(finder *f)
{
    static const char opening[] = "[TOOL_CALLS]", args[] = "[ARGS]";
    sluice_status st = SLUICE_OK;

    f->begin = find_text(f->s, 0, opening);
    for (size_t at = f->begin; at < f->s.len && st == SLUICE_OK; at = at < f->s.len ? find_text(f->s, at, opening) : at) {
        size_t name = skip_space(f->s, at + sizeof opening - 1), end;

        if (name < f->s.len && (f->s.ptr[name] == '[' || f->s.ptr[name] == '{')) {
            st = add_objects(f, name, &at);
            continue;
        }
        for (end = name; end < f->s.len && f->s.ptr[end] != '{' && f->s.ptr[end] != '[';)
            end++;
        at = end + (find_text(sluice_span_of(f->s.ptr + end, f->s.len - end), 0, args) == 0 ? sizeof args - 1 : 0);
        at = skip_space(f->s, at);
        if (at >= f->s.len || f->s.ptr[at] != '{' || (f->s.len > at && sluice_chat_json_end(f->s, at) == 0))
            return bad_call(f, name, "is not JSON");
        st = add_call(f, name, sluice_unicode_trim(sluice_span_of(f->s.ptr + name, end - name)),
                      sluice_span_of(f->s.ptr + at, sluice_chat_json_end(f->s, at) - at), SLUICE_SPAN_EMPTY);
        at = sluice_chat_json_end(f->s, at);
    }
    return st;
}

static bool begins_with(sluice_span s, size_t at, const char *text)
{
    size_t n = strlen(text);

    return s.len - at >= n && memcmp(s.ptr + at, text, n) == 0;
}

/* Nothing but JSON, perhaps behind <|python_tag|> or in a code fence; several objects stand one after the other, or with ";" between.  Whatever else
 * an answer is, it is text and no error. */
static void find_bare(finder *f, size_t at)
{
    bool fenced;

    f->begin = at;
    at = skip_space(f->s, at);
    if (begins_with(f->s, at, "<|python_tag|>"))
        at = skip_space(f->s, at + 14);
    fenced = begins_with(f->s, at, "```");
    if (fenced)
        at = skip_space(f->s, at + (begins_with(f->s, at, "```json") ? 7 : 3));
    while (at < f->s.len) {
        sluice_error *err = f->err;
        sluice_status st;

        f->err = NULL;
        st = add_objects(f, at, &at);
        f->err = err;
        if (st != SLUICE_OK) {
            f->n = 0;
            return;
        }
        at = skip_mark(f->s, at, ';');
        if (fenced && begins_with(f->s, at, "```"))
            at = skip_space(f->s, at + 3);
    }
}

/* Behind the model's thinking, if it thought. */
static size_t answer_begins(sluice_span s)
{
    static const char closing[] = "</think>";
    size_t begin = 0, at = find_text(s, 0, closing);

    while (at < s.len) {
        begin = at + sizeof closing - 1;
        at = find_text(s, begin, closing);
    }
    return begin;
}

sluice_status sluice_chat_find_calls(sluice_span answer, sluice_span tools, sluice_chat_tool_call *calls, size_t *n, sluice_span *text,
                                     sluice_error *err)
{
    size_t thought = answer_begins(answer);
    finder f = { sluice_span_of(answer.ptr + thought, answer.len - thought), tools, calls, *n, 0, 0, err };
    sluice_status st = SLUICE_OK;

    *n = 0;
    *text = sluice_unicode_trim(answer);
    if (skip_space(tools, 0) == tools.len)
        return SLUICE_OK;
    if (answer.len == 0)
        return SLUICE_OK;
    st = find_hermes(&f);
    if (st == SLUICE_OK && f.begin == f.s.len)
        st = find_mistral(&f);
    if (st == SLUICE_OK && f.begin == f.s.len)
        find_bare(&f, 0);
    if (st != SLUICE_OK)
        return st;
    *n = f.n;
    if (f.n > 0)
        *text = sluice_unicode_trim(sluice_span_of(answer.ptr, thought + f.begin));
    return SLUICE_OK;
}
