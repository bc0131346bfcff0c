/* peer_embedding.c - the embedding that an installed llama.cpp computes for a token sequence, pooled as the model says.
 *
 *   peer_embedding MODEL OUT.f32 TOKEN...
 *
 * Writes one row of raw f32, of length 1.  No flash attention, one thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <llama.h>

static void keep_quiet(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

static int write_normalized(const char *path, const float *x, int n)
{
    FILE *out = fopen(path, "wb");
    double length = 0;

    if (out == NULL)
        return 1;
    for (int i = 0; i < n; i++)
        length += (double)x[i] * (double)x[i];
    for (int i = 0; i < n; i++) {
        const float y = (float)((double)x[i] / sqrt(length));

        if (fwrite(&y, sizeof y, 1, out) != 1)
            return 1;
    }
    return fclose(out) != 0;
}

int main(int argc, char **argv)
{
    const int n = argc - 3;
    struct llama_context_params params;
    struct llama_context *context;
    struct llama_model *model;
    struct llama_batch batch;
    const float *embedding;
    int failed;

    if (n < 1) {
        fprintf(stderr, "usage: peer_embedding MODEL OUT.f32 TOKEN...\n");
        return 2;
    }
    llama_log_set(keep_quiet, NULL);
    ggml_backend_load_all();
    llama_backend_init();
    model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (model == NULL)
        return 1;
    params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = (uint32_t)(n < 512 ? 512 : n);
    params.n_threads = params.n_threads_batch = 1;
    params.embeddings = true;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    context = llama_init_from_model(model, params);
    if (context == NULL)
        return 1;
    batch = llama_batch_init(n, 0, 1);
    batch.n_tokens = n;
    for (int i = 0; i < n; i++) {
        batch.token[i] = (llama_token)strtol(argv[i + 3], NULL, 10);
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    failed = llama_decode(context, batch) != 0;
    embedding = failed ? NULL : llama_get_embeddings_seq(context, 0);
    failed = embedding == NULL || write_normalized(argv[2], embedding, llama_model_n_embd(model)) != 0;
    llama_batch_free(batch);
    llama_free(context);
    llama_model_free(model);
    llama_backend_free();
    return failed;
}
