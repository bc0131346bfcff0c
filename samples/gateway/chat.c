/* chat.c - the OpenAI chat-completions dialect: requests read, answers written.
 *
 * What is read has come out of a sealed request, from a phone that nobody has authenticated: everything is checked.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "samples/gateway/parts.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGES_MAX = 256, TOKENS_MAX = 4096 };

/* ---- reading ------------------------------------------------------------------------------------------- */

/* Content is a string, or an array of parts; only text parts can be answered here.  One text part is what clients send. */
static const char *content_text(const cJSON *content)
{
    const cJSON *part;

    if (cJSON_IsString(content))
        return content->valuestring;
    if (!cJSON_IsArray(content) || cJSON_GetArraySize(content) != 1)
        return NULL;
    part = cJSON_GetArrayItem(content, 0);
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(part, "text"));
}

static const char *parse_messages(gateway_chat *out, const cJSON *messages)
{
    const int n = cJSON_GetArraySize(messages);
    const cJSON *m;

    if (!cJSON_IsArray(messages) || n < 1 || n > MESSAGES_MAX)
        return "messages must be an array of 1 to 256 messages";
    out->messages = calloc((size_t)n, sizeof *out->messages);
    if (out->messages == NULL)
        return "the gateway is out of memory";
    cJSON_ArrayForEach(m, messages)
    {
        gateway_chat_message *to = &out->messages[out->n_messages++];
        to->role = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m, "role"));
        to->text = content_text(cJSON_GetObjectItemCaseSensitive(m, "content"));
        if (to->role == NULL || to->text == NULL)
            return "every message needs a role and text content";
    }
    return NULL;
}

static unsigned parse_tokens(const cJSON *json)
{
    const cJSON *n = cJSON_GetObjectItemCaseSensitive(json, "max_completion_tokens");

    if (!cJSON_IsNumber(n))
        n = cJSON_GetObjectItemCaseSensitive(json, "max_tokens"); /* the older name */
    if (!cJSON_IsNumber(n) || !(n->valuedouble >= 1))
        return 0;
    return n->valuedouble > TOKENS_MAX ? (unsigned)TOKENS_MAX : (unsigned)n->valuedouble;
}

const char *gateway_chat_parse(gateway_chat *out, const char *body, size_t len)
{
    const cJSON *temperature;
    const char *problem;
    cJSON *json;

    memset(out, 0, sizeof *out);
    json = cJSON_ParseWithLength(body, len);
    out->json = json;
    if (!cJSON_IsObject(json))
        problem = "the body is not a JSON object";
    else
        problem = parse_messages(out, cJSON_GetObjectItemCaseSensitive(json, "messages"));
    if (problem != NULL) {
        gateway_chat_free(out);
        return problem;
    }
    out->is_streamed = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "stream"));
    out->wants_usage = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(json, "stream_options"), "include_usage"));
    out->max_tokens = parse_tokens(json);
    temperature = cJSON_GetObjectItemCaseSensitive(json, "temperature");
    if (cJSON_IsNumber(temperature) && temperature->valuedouble >= 0 && temperature->valuedouble <= 2)
        out->temperature = (float)temperature->valuedouble;
    return NULL;
}

void gateway_chat_free(gateway_chat *c)
{
    free(c->messages);
    cJSON_Delete(c->json);
    memset(c, 0, sizeof *c);
}

/* ---- writing ------------------------------------------------------------------------------------------- */

/* Our texts are freed with free(), which is what cJSON allocates with unless told otherwise. */
static char *print_and_delete(cJSON *json)
{
    char *text = cJSON_PrintUnformatted(json);

    cJSON_Delete(json);
    return text;
}

static cJSON *reply_head(const gateway_reply *r, const char *object)
{
    cJSON *json = cJSON_CreateObject();

    cJSON_AddStringToObject(json, "id", r->id);
    cJSON_AddStringToObject(json, "object", object);
    cJSON_AddNumberToObject(json, "created", (double)r->created);
    cJSON_AddStringToObject(json, "model", r->model);
    return json;
}

static void add_text(cJSON *to, const char *name, const char *text, size_t len)
{
    char *copy = malloc(len + 1);

    if (copy == NULL)
        return;
    memcpy(copy, text, len);
    copy[len] = '\0';
    cJSON_AddStringToObject(to, name, copy);
    free(copy);
}

static void add_usage(cJSON *to, unsigned prompt_tokens, unsigned output_tokens)
{
    cJSON *usage = cJSON_AddObjectToObject(to, "usage");

    cJSON_AddNumberToObject(usage, "prompt_tokens", prompt_tokens);
    cJSON_AddNumberToObject(usage, "completion_tokens", output_tokens);
    cJSON_AddNumberToObject(usage, "total_tokens", (double)prompt_tokens + output_tokens);
}

static cJSON *add_choice(cJSON *json)
{
    cJSON *choice = cJSON_CreateObject();

    cJSON_AddItemToArray(cJSON_AddArrayToObject(json, "choices"), choice);
    cJSON_AddNumberToObject(choice, "index", 0);
    return choice;
}

static void add_finish(cJSON *choice, const char *finish)
{
    if (finish != NULL)
        cJSON_AddStringToObject(choice, "finish_reason", finish);
    else
        cJSON_AddNullToObject(choice, "finish_reason");
}

char *gateway_chat_chunk(const gateway_reply *r, const char *role, const char *text, size_t text_len, const char *finish)
{
    cJSON *json = reply_head(r, "chat.completion.chunk"), *choice = add_choice(json), *delta = cJSON_AddObjectToObject(choice, "delta");

    if (role != NULL)
        cJSON_AddStringToObject(delta, "role", role);
    if (text != NULL)
        add_text(delta, "content", text, text_len);
    add_finish(choice, finish);
    return print_and_delete(json);
}

char *gateway_chat_usage_chunk(const gateway_reply *r, unsigned prompt_tokens, unsigned output_tokens)
{
    cJSON *json = reply_head(r, "chat.completion.chunk");

    cJSON_AddArrayToObject(json, "choices"); /* empty, as the dialect has it */
    add_usage(json, prompt_tokens, output_tokens);
    return print_and_delete(json);
}

char *gateway_chat_whole(const gateway_reply *r, const char *text, size_t text_len, const char *finish, unsigned prompt_tokens,
                         unsigned output_tokens)
{
    cJSON *json = reply_head(r, "chat.completion"), *choice = add_choice(json), *message = cJSON_AddObjectToObject(choice, "message");

    cJSON_AddStringToObject(message, "role", "assistant");
    add_text(message, "content", text, text_len);
    add_finish(choice, finish);
    add_usage(json, prompt_tokens, output_tokens);
    return print_and_delete(json);
}

char *gateway_chat_error(const char *type, const char *message)
{
    cJSON *json = cJSON_CreateObject(), *error = cJSON_AddObjectToObject(json, "error");

    cJSON_AddStringToObject(error, "message", message);
    cJSON_AddStringToObject(error, "type", type);
    cJSON_AddNullToObject(error, "param");
    cJSON_AddStringToObject(error, "code", type);
    return print_and_delete(json);
}
