/* chat_tools.h - tool definitions, tool calls and the little JSON that they are written in.
 *
 * Definitions come from the app, answers from a model; neither is trusted to be JSON.  Everything here is bounded: values nest at most
 * SLUICE_CHAT_JSON_DEPTH deep, a text is read once, nothing is allocated but what is appended to a buffer.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_CHAT_TOOLS_H
#define SLUICE_LOCAL_ENGINE_CHAT_TOOLS_H

#include "sdk/base/base.h"

enum {
    SLUICE_CHAT_JSON_DEPTH = 32,
    SLUICE_CHAT_MAX_TOOLS = 64,
    SLUICE_CHAT_MAX_TOOLS_BYTES = 256 << 10,
    SLUICE_CHAT_MAX_CALLS = 16,
    SLUICE_CHAT_MAX_NAME_BYTES = 64         /* of a tool: letters, digits, "_", "-" and "." */
};

/* One call, in an answer or in an earlier turn. */
typedef struct sluice_chat_tool_call {
    sluice_span name;       /* as in the definition */
    sluice_span arguments;  /* JSON object */
    sluice_span id;         /* ties the result to the call; may be empty */
} sluice_chat_tool_call;

/* `tools`: a JSON array, each item {"type":"function","function":{"name":…,"description":…,"parameters":{…}}} or the inner object alone.
 * SLUICE_ERR_ARGUMENT, with the offset, for anything else; _LIMIT for too many or too much.  Empty text: no tools, SLUICE_OK. */
sluice_status sluice_chat_tools_check(sluice_span tools, sluice_error *err);
bool sluice_chat_tools_declare(sluice_span tools, sluice_span name); /* checked tools: is one of them called so */
bool sluice_chat_tool_name_is_valid(sluice_span name);

/* The calls in an answer of a model.  Read are <tool_call>{…}</tool_call> (Qwen, Hermes), [TOOL_CALLS] with a JSON array or with name[ARGS]{…}
 * (Mistral), and, where nothing but JSON is answered, one object or an array of them (Llama 3.x, and models that were only asked to);
 * an object is {"name":…,"arguments" or "parameters":{…}}.  `tools` are checked definitions; a bare object counts only if it names one.
 *
 * *n in: capacity of `calls`, out: how many; spans point into `answer`.  *text: what stands before the first call, trimmed, or all of the answer.
 * SLUICE_OK with *n = 0: no call.  SLUICE_ERR_FORMAT: a call was begun that is not one, or names no tool; SLUICE_ERR_LIMIT: more than fit. */
sluice_status sluice_chat_find_calls(sluice_span answer, sluice_span tools, sluice_chat_tool_call *calls, size_t *n, sluice_span *text,
                                     sluice_error *err);

/* ---- JSON, as far as that needs it */
size_t sluice_chat_json_end(sluice_span s, size_t at);  /* the end of the value that begins at `at` (white space before it allowed); 0: none */
bool sluice_chat_json_member(sluice_span object, const char *key, sluice_span *value);      /* of a valid object; the first of that name */
bool sluice_chat_json_next(sluice_span array, size_t *cursor, sluice_span *item);           /* of a valid array; *cursor = 0 at first */
/* Append a valid value in the layout of Python's json.dumps(): ", " and ": ", or with indent > 0 one item a line.  False: out of memory or room. */
bool sluice_chat_json_put(sluice_buf *out, sluice_span value, size_t indent);
bool sluice_chat_json_put_string(sluice_buf *out, sluice_span text); /* quoted and escaped, not ASCII alone */

#endif
