/* peer_tokens.c - the peer's side of run_token_parity.sh, linked with llama.cpp where that is installed.
 *
 *   peer_tokens VOCAB TEXTS             a line of token ids for each text; texts end with a NUL
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <llama.h>

enum { TEXTS_MAX = 64 << 20, TOKENS_MAX = 1 << 16 };

static void quiet(enum ggml_log_level level, const char *text, void *user)
{
    (void)level;
    (void)text;
    (void)user;
}

int main(int argc, char **argv)
{
    struct llama_model_params params = llama_model_default_params();
    static llama_token tokens[TOKENS_MAX];
    struct llama_model *model;
    char *texts = calloc(1, TEXTS_MAX);
    FILE *f = argc == 3 ? fopen(argv[2], "rb") : NULL;
    size_t n;

    if (texts == NULL || f == NULL)
        return 2;
    n = fread(texts, 1, TEXTS_MAX - 1, f);
    (void)fclose(f);
    llama_log_set(quiet, NULL);
    params.vocab_only = true;
    model = llama_model_load_from_file(argv[1], params);
    if (model == NULL) {
        fprintf(stderr, "peer_tokens: %s does not load\n", argv[1]);
        return 1;
    }
    for (size_t at = 0; at < n; at += strlen(texts + at) + 1) {
        int n_tokens = llama_tokenize(llama_model_get_vocab(model), texts + at, (int)strlen(texts + at), tokens, TOKENS_MAX, false, false);

        for (int i = 0; i < n_tokens; i++)
            printf("%s%d", i > 0 ? " " : "", (int)tokens[i]);
        printf("\n");
    }
    llama_model_free(model);
    free(texts);
    return 0;
}
