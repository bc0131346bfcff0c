/* fuzz_model.c - a model that opens can be run: whatever its sizes and weights say, nothing is read or written outside.
 *
 * What opens runs three tokens, in one piece and one by one, and comes to the same logits or to the same refusal.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "local-engine/forward.h"

enum { CONTEXT = 16, N_TOKENS = 3, PARAMS_MAX = 1 << 20, SCRATCH_MAX = 256 << 20 };

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "fuzz_model: %s\n", what);
        abort();
    }
}

/* Logits of the third token, or an embedding, into `out`, which holds as many; false where there are none. */
static bool run(const sluice_model *m, const sluice_kernels *k, sluice_pool *pool, sluice_kv_type type, size_t piece, float *out)
{
    static const _Atomic bool stop = false;
    sluice_error err = SLUICE_ERROR_INIT;
    const sluice_kv_shape shape = sluice_forward_kv_shape(m, type, CONTEXT);
    sluice_forward *f = NULL;
    const float *logits = NULL;
    int32_t tokens[N_TOKENS];
    sluice_kv_cache kv;
    sluice_status st = sluice_kv_cache_init(&kv, NULL, &shape, &err);

    if (st == SLUICE_OK)
        st = sluice_forward_open(&f, m, k, pool, &kv, &stop, NULL, &err);
    for (uint32_t i = 0; i < N_TOKENS; i++)
        tokens[i] = (int32_t)((i * 7 + 1) % m->n_vocab);
    if (m->is_encoder && st == SLUICE_OK)
        st = sluice_forward_embed(f, tokens, m->n_context < N_TOKENS ? m->n_context : N_TOKENS, true, out, &err);
    for (size_t at = 0; at < N_TOKENS && st == SLUICE_OK && !m->is_encoder; at += piece) {
        st = sluice_forward_run(f, tokens + at, piece, 1, &logits, &err);
        if (st == SLUICE_ERR_INTEGRITY && at + piece < N_TOKENS)
            st = SLUICE_OK; /* only the last logits are compared */
    }
    must(st == SLUICE_OK || st == SLUICE_ERR_INTEGRITY || st == SLUICE_ERR_NO_MEMORY, "another status");
    if (st == SLUICE_OK && !m->is_encoder)
        memcpy(out, logits, m->n_vocab * sizeof *out);
    sluice_forward_close(f);
    sluice_kv_cache_deinit(&kv);
    return st == SLUICE_OK;
}

static void run_model(const sluice_model *m, sluice_kv_type type)
{
    const uint32_t n = m->is_encoder ? m->n_embd : m->n_vocab;
    float *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b);
    sluice_kernels best, scalar;
    sluice_pool *pool = NULL;
    bool is_finite;

    sluice_kernels_init(&best, sluice_cpu_features());
    sluice_kernels_init(&scalar, 0);
    must(a != NULL && b != NULL && sluice_pool_open(&pool, sluice_platform_default(), NULL, 1, NULL) == SLUICE_OK, "no memory");
    is_finite = run(m, &best, pool, type, N_TOKENS, a);
    must(run(m, &best, pool, type, 1, b) == is_finite, "one piece ends otherwise than three");
    for (uint32_t i = 0; i < n && is_finite; i++)
        must(a[i] == b[i], "one piece gives other logits than three");
    must(run(m, &scalar, pool, type, N_TOKENS, b) == is_finite, "the scalar kernels end otherwise");
    for (uint32_t i = 0; i < n && is_finite; i++)
        must(a[i] == b[i], "the scalar kernels give other logits");
    sluice_pool_close(pool);
    free(a);
    free(b);
}

/* A file of few weights can still ask for many tokens or heads. */
static bool is_small(const sluice_model *m)
{
    const sluice_kv_shape shape = sluice_forward_kv_shape(m, SLUICE_KV_F16, CONTEXT);
    size_t kv_bytes, bytes;

    return sluice_kv_cache_bytes(&shape, &kv_bytes) && kv_bytes <= SCRATCH_MAX &&
           sluice_forward_bytes(m, &shape, 1, &bytes, NULL) == SLUICE_OK && bytes <= SCRATCH_MAX;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const size_t room = (size + 127) / 64 * 64;
    uint8_t *file = aligned_alloc(64, room);
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_gguf *g = NULL;
    sluice_model m;

    if (file == NULL)
        return 0;
    memcpy(file + (room - size) / 64 * 64, data, size); /* what is read behind the file is behind the block */
    if (sluice_gguf_open_span(&g, sluice_span_of(file + (room - size) / 64 * 64, size), NULL, &err) == SLUICE_OK) {
        const sluice_status st = sluice_model_init(&m, g, NULL, &err);

        if (st == SLUICE_OK && m.n_params <= PARAMS_MAX && is_small(&m)) {
            run_model(&m, SLUICE_KV_F16);
            if (m.head_dim % 32 == 0)
                run_model(&m, SLUICE_KV_Q8_0);
        }
        if (st != SLUICE_OK)
            must(err.message[0] != '\0' && sluice_utf8_valid(sluice_span_str(err.message)) && m.layers == NULL, "a bad refusal");
        sluice_model_deinit(&m);
    }
    sluice_gguf_close(g);
    free(file);
    return 0;
}
