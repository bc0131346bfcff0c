/* size_app.c - the smallest app around the built-in engine, for size_arm64.sh: answers with text, with JSON of a schema, and with an embedding.
 *
 * Compiled twice: with the engine, and without it, when all that is left is what nearly every app has anyway (standard output, numbers as text, memory,
 * threads, square roots).  The difference is what the engine adds.
 *
 *   size_app MODEL TEXT [SCHEMA]
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *work(void *text)
{
    char *copy = malloc(strlen(text) + 1);

    if (copy != NULL)
        printf("%zu bytes, %.3f\n", strlen(strcpy(copy, text)), sqrt((double)strlen(text)));
    free(copy);
    return NULL;
}

#ifdef SIZE_APP_WITH_ENGINE
#include "local-engine/engine.h"

enum { TOKENS_MAX = 1024, DIMENSIONS_MAX = 4096 };

static bool print(const sluice_engine_token *token, void *user)
{
    (void)user;
    return fwrite(token->text.ptr, 1, token->text.len, stdout) == token->text.len;
}

static sluice_status answer(sluice_engine *e, const char *text, const char *schema, sluice_error *err)
{
    static int32_t tokens[TOKENS_MAX];
    static float vector[DIMENSIONS_MAX];
    const sluice_engine_message message = { "user", sluice_span_str(text) };
    sluice_engine_request request = { .prompt = tokens, .max_tokens = 64, .keep = true, .on_token = print };
    sluice_engine_result result;
    size_t n = TOKENS_MAX;
    sluice_status st = sluice_engine_render(e, &message, 1, tokens, &n, err);

    if (st == SLUICE_ERR_UNSUPPORTED) {
        n = TOKENS_MAX;
        st = sluice_engine_tokenize(e, message.text, true, tokens, &n, err);
    }
    request.n_prompt = n;
    request.sampling.top_p = 1;
    request.json = schema != NULL;
    request.json_schema = schema != NULL ? sluice_span_str(schema) : SLUICE_SPAN_EMPTY;
    if (st == SLUICE_OK)
        st = sluice_engine_run(e, &request, &result, err);
    if (st == SLUICE_OK)
        st = sluice_engine_embed(e, message.text, true, vector, sluice_engine_get_info(e)->n_embd, err);
    if (st == SLUICE_OK)
        printf("\n%u tokens, %.3f\n", result.output_tokens, (double)vector[0]);
    return st;
}

static int use_engine(const char *path, const char *text, const char *schema)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_engine_options options;
    sluice_engine *e;
    sluice_status st;

    sluice_engine_options_init(&options);
    options.context_tokens = TOKENS_MAX;
    st = sluice_engine_open(&e, path, &options, sluice_platform_default(), NULL, &err);
    if (st == SLUICE_OK)
        st = answer(e, text, schema, &err);
    if (st != SLUICE_OK)
        printf("%s\n", err.message);
    sluice_engine_close(e);
    return st == SLUICE_OK ? 0 : 1;
}
#endif

int main(int argc, char **argv)
{
    pthread_t thread;

    if (argc < 3)
        return 2;
    if (pthread_create(&thread, NULL, work, argv[2]) != 0)
        return 1;
    (void)pthread_join(thread, NULL);
#ifdef SIZE_APP_WITH_ENGINE
    return use_engine(argv[1], argv[2], argc > 3 ? argv[3] : NULL);
#else
    return 0;
#endif
}
