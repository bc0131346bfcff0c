/* engine.h - the built-in engine: open a GGUF model, estimate its memory, prefill, decode, sample.
 *
 * One engine holds one mapped model, one KV cache and one compute pool.  Model files are hostile: everything is parsed from a bounded mapping
 * and ends in a status with the byte offset.  Decoding allocates nothing.
 *
 * Threads: one call at a time per engine; sluice_engine_stop() may be called from any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_ENGINE_H
#define SLUICE_LOCAL_ENGINE_ENGINE_H

#include "sdk/platform/platform.h"

typedef struct sluice_engine sluice_engine;

typedef struct sluice_engine_options {
    uint32_t n_threads;       /* 0: from the machine */
    uint32_t context_tokens;  /* 0: the model's own, at most 4096 */
    uint32_t cpu;             /* SLUICE_CPU_* to use; 0xffffffff: what the machine has; 0: scalar reference */
} sluice_engine_options;

/* What opening would take, in bytes, without opening. */
typedef struct sluice_engine_estimate {
    uint64_t mapped_bytes;    /* the file: clean pages the system may drop */
    uint64_t kv_bytes;
    uint64_t scratch_bytes;   /* private, beside the KV cache, tokenizer included */
    uint32_t context_tokens;
} sluice_engine_estimate;

typedef struct sluice_engine_info {
    const char *architecture, *name, *file_type; /* owned by the engine */
    const char *tokenizer;    /* "spm" or "bpe" */
    const char *prompt_format;/* "intent-action/1", "completion" */
    const char *kernels;      /* "avx2", "neon-dotprod", "scalar" … */
    uint32_t n_vocab, n_layer, n_embd, n_head, n_head_kv, n_ff, context_tokens, n_threads;
    uint64_t n_params, model_bytes;
    /* Logistic calibration of its answers' token log-probabilities, from the file (sluice.confidence.bias, .weight_min, .weight_mean): 
     * P(right) = 1 / (1 + exp(-(bias + weight_min * min + weight_mean * mean))).  Weights are >= 0. */
    bool has_calibration;
    float confidence_bias, confidence_weight_min, confidence_weight_mean;
    uint8_t model_hash[32];   /* identifies the file to calibrations: of metadata, tensor table and a sample of the data, not of every byte */
} sluice_engine_info;

sluice_status sluice_engine_estimate_memory(sluice_engine_estimate *out, const char *path, const sluice_engine_options *options,
                                            const sluice_platform *platform, const sluice_allocator *al, sluice_error *err);
/* Refused with SLUICE_ERR_NO_MEMORY when the estimate does not fit what the device has available. */
sluice_status sluice_engine_open(sluice_engine **out, const char *path, const sluice_engine_options *options,
                                 const sluice_platform *platform, const sluice_allocator *al, sluice_error *err);
void sluice_engine_close(sluice_engine *e); /* accepts NULL */
const sluice_engine_info *sluice_engine_get_info(const sluice_engine *e);

/* JSON description of a model file for `model inspect`, without loading it. */
sluice_status sluice_engine_inspect(const char *path, const sluice_platform *platform, const sluice_allocator *al, sluice_buf *json, sluice_error *err);

/* Text to tokens.  User text never becomes a control token.  *n in: capacity, out: how many; SLUICE_ERR_LIMIT when they do not fit (then *n is the need). */
sluice_status sluice_engine_tokenize(const sluice_engine *e, sluice_span text, bool add_bos, int32_t *tokens, size_t *n, sluice_error *err);
/* Bytes of one token as they appear in text (control tokens: empty).  Borrowed from the engine. */
sluice_span sluice_engine_token_bytes(const sluice_engine *e, int32_t token);

/* A conversation in the model's own prompt format. */
typedef struct sluice_engine_message { const char *role; sluice_span text; } sluice_engine_message;
/* As sluice_engine_tokenize.  SLUICE_ERR_UNSUPPORTED when the model's format cannot carry it (several turns for a single-turn model). */
sluice_status sluice_engine_render(const sluice_engine *e, const sluice_engine_message *messages, size_t n_messages,
                                   int32_t *tokens, size_t *n, sluice_error *err);

/* ---- evaluation, token by token (tests, parity, other decoders) */
void sluice_engine_reset(sluice_engine *e);                  /* forget the KV cache */
uint32_t sluice_engine_position(const sluice_engine *e);     /* tokens in the KV cache */
/* Run n tokens after those in the cache.  logits: (n_vocab) of the last one, borrowed until the next call.
 * SLUICE_ERR_LIMIT when the context is full; _CANCELLED after sluice_engine_stop(). */
sluice_status sluice_engine_eval(sluice_engine *e, const int32_t *tokens, size_t n, const float **logits, sluice_error *err);

/* ---- generation */
typedef struct sluice_engine_sampling {
    float temperature;  /* 0: greedy */
    uint32_t top_k;     /* 0: off */
    float top_p;        /* 1: off */
    uint64_t seed;
} sluice_engine_sampling;

typedef struct sluice_engine_token {
    int32_t id;
    sluice_span text;      /* bytes, may be a part of a code point */
    float logprob;         /* natural log, of the chosen token under the untempered distribution */
    float margin;          /* probability of the best minus that of the second best, in [0, 1] */
    float entropy;         /* nats */
    uint32_t index;        /* 0, 1, … in the output */
    bool is_declined;      /* with this token the model says that the request is none that it can answer (prompt format) */
    bool is_end;           /* the model's end token: text is empty, it is reported once, last */
} sluice_engine_token;

typedef enum sluice_engine_stop_reason {
    SLUICE_STOP_END = 1, SLUICE_STOP_MAX_TOKENS = 2, SLUICE_STOP_CONTEXT = 3, SLUICE_STOP_CALLER = 4
} sluice_engine_stop_reason;

typedef struct sluice_engine_result {
    uint32_t prompt_tokens, output_tokens;
    uint64_t prefill_us, decode_us;
    sluice_engine_stop_reason stop;
} sluice_engine_result;

/* Return false to stop (SLUICE_STOP_CALLER). Called on the calling thread. */
typedef bool (*sluice_engine_token_fn)(const sluice_engine_token *token, void *user);

/* Prefill `prompt` from an empty cache and decode up to max_tokens.  SLUICE_ERR_LIMIT when the prompt does not fit the context, _INTEGRITY when
 * the weights give numbers that are none.  The temperature applies first, then top_k, then top_p.  The end token does not count as output.
 * However it ends, the cache and all activations are wiped before it returns; `result` is filled in as far as it got. */
sluice_status sluice_engine_generate(sluice_engine *e, const int32_t *prompt, size_t n_prompt, uint32_t max_tokens,
                                     const sluice_engine_sampling *sampling, sluice_engine_token_fn on_token, void *user,
                                     sluice_engine_result *result, sluice_error *err);
void sluice_engine_stop(sluice_engine *e);  /* any thread: the running call ends within one token with SLUICE_ERR_CANCELLED; sticky until resume */
void sluice_engine_resume(sluice_engine *e);

#endif
