/* peer_logits.c - the logits that an installed llama.cpp computes for a token sequence.
 *
 *   peer_logits MODEL OUT.f32 TOKEN...
 *
 * Writes one row of raw f32 per position.  Keys and values in f16, no flash attention, one thread: what our engine does.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include <llama.h>

static void keep_quiet(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

int main(int argc, char **argv)
{
    struct llama_model_params model_params;
    struct llama_context_params context_params;
    struct llama_context *context;
    struct llama_model *model;
    size_t n_vocab;
    FILE *out;

    if (argc < 4) {
        fprintf(stderr, "usage: peer_logits MODEL OUT.f32 TOKEN...\n");
        return 2;
    }
    llama_log_set(keep_quiet, NULL);
    ggml_backend_load_all();
    llama_backend_init();
    model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    model = llama_model_load_from_file(argv[1], model_params);
    out = fopen(argv[2], "wb");
    if (model == NULL || out == NULL)
        return 1;
    context_params = llama_context_default_params();
    context_params.n_ctx = (uint32_t)(argc + 8);
    context_params.n_threads = context_params.n_threads_batch = 1;
    context_params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    context = llama_init_from_model(model, context_params);
    if (context == NULL)
        return 1;
    n_vocab = (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model));
    for (int i = 3; i < argc; i++) {
        llama_token token = (llama_token)strtol(argv[i], NULL, 10);

        if (llama_decode(context, llama_batch_get_one(&token, 1)) != 0 ||
            fwrite(llama_get_logits_ith(context, -1), sizeof(float), n_vocab, out) != n_vocab)
            return 1;
    }
    if (fclose(out) != 0)
        return 1;
    llama_free(context);
    llama_model_free(model);
    llama_backend_free();
    return 0;
}
