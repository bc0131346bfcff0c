/* engine_impl.h - what an engine is made of, shared by the files that implement engine.h.
 *
 *   engine.c          open, close, text, evaluation, embeddings
 *   engine_memory.c   what it takes: estimate, refusal, the count of what is allocated; how many threads
 *   generate.c        a request from prompt to stop reason
 *   speculate.c       guesses at the next tokens
 *   session.c         the cache on disk
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_ENGINE_IMPL_H
#define SLUICE_LOCAL_ENGINE_ENGINE_IMPL_H

#include "local-engine/engine.h"
#include "local-engine/forward.h"
#include "local-engine/prompt.h"
#include "local-engine/sampler.h"

/* The caller's allocator, counted.  `al` points into the struct: it must not move. */
typedef struct sluice_memory {
    sluice_allocator al;            /* what the parts are given */
    sluice_allocator outer;         /* the caller's; all NULL for malloc */
    atomic_size_t bytes;            /* live; texts are tokenized on any thread */
} sluice_memory;

struct sluice_engine {
    sluice_platform platform;       /* a copy: the caller's may be on its stack */
    sluice_memory memory;
    const sluice_allocator *al;     /* &memory.al */
    sluice_gguf *gguf;
    sluice_tokenizer *tokenizer;
    sluice_prompt prompt;
    sluice_model model;
    sluice_kernels kernels;
    sluice_pool *pool;
    bool borrows_pool;              /* a draft model computes with the threads of the one that it drafts for */
    uint32_t fixed_threads;         /* as the options say; 0: by the state of the device */
    uint32_t context;               /* tokens; the cache may have room for a few more */
    sluice_kv_cache kv;
    sluice_forward *forward;
    bool has_run;                   /* there is a hidden state */
    int32_t *history;               /* (context) the tokens in the cache are the first kv.n_used */
    int32_t *pending;               /* (context) tokens on their way into it */
    void *sampler_scratch;
    size_t sampler_bytes;
    float *probe;                   /* (n_embd) weights of the probe head, or NULL */
    float probe_bias;
    sluice_constraint_vocab *constraint_vocab; /* from the first constraint on */
    size_t max_token_bytes;         /* of the vocabulary; 0: not looked for yet */
    sluice_engine *draft;           /* or NULL */
    char *name;
    sluice_engine_info info;
    _Atomic bool stop;
};

/* ---- engine_memory.c */
void sluice_memory_init(sluice_memory *m, const sluice_allocator *outer);
sluice_kv_shape sluice_engine_kv_shape(const sluice_model *model, const sluice_engine_options *options, uint32_t context);
uint32_t sluice_engine_choose_context(const sluice_engine_options *options, const sluice_model *model);
uint32_t sluice_engine_choose_threads(const sluice_engine_options *options, const sluice_platform *platform); /* that the pool has */
sluice_status sluice_engine_check_options(const sluice_engine_options *options, sluice_error *err);
/* `held`: bytes of the file's index and the model's description, which exist already.  `path`: of the model, for the draft's options. */
sluice_status sluice_engine_estimate_opened(sluice_engine_estimate *out, const sluice_gguf *g, const sluice_model *model,
                                            const sluice_engine_options *options, bool borrows_pool, size_t held, const sluice_platform *platform,
                                            const sluice_allocator *al, sluice_error *err);
sluice_status sluice_engine_check_fits(const sluice_engine_estimate *need, const sluice_engine_options *options, const sluice_platform *platform,
                                       sluice_error *err);
void sluice_engine_adapt_threads(sluice_engine *e); /* to how the device is doing; between runs */

/* ---- engine.c */
float sluice_engine_probe(const sluice_engine *e, const float *hidden); /* in [0, 1]; -1 without a probe head */
/* Keep the first n tokens of the session. */
void sluice_engine_truncate(sluice_engine *e, uint32_t n);
uint32_t sluice_engine_common_prefix(const sluice_engine *e, const int32_t *tokens, size_t n); /* that the cache has */

#endif
