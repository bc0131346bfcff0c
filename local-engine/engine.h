/* engine.h - the built-in engine: open a GGUF model, estimate its memory, generate, embed, keep and restore sessions.
 *
 * One engine holds one mapped model, one KV cache and one compute pool.  Model files are hostile: everything is parsed from a bounded mapping
 * and ends in a status with the byte offset.  Everything is allocated when the engine opens or when a call begins; decoding allocates nothing.
 *
 *   sluice_engine_options_init(&options);
 *   sluice_engine_open(&e, path, &options, platform, al, &err);
 *   sluice_engine_render(e, messages, n_messages, tokens, &n, &err);           the whole conversation, each turn
 *   sluice_engine_run(e, &(sluice_engine_request){ .prompt = tokens, .n_prompt = n, .max_tokens = 256, .keep = true,
 *                                                  .on_token = print }, &result, &err);
 *   sluice_engine_close(e);
 *
 * Threads: one call at a time per engine; sluice_engine_stop() may be called from any thread, and so may the text functions (tokenize, render,
 * token_bytes, get_info), at the same time as a run.  Engines share nothing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_ENGINE_H
#define SLUICE_LOCAL_ENGINE_ENGINE_H

#include "local-engine/constraint.h"
#include "sdk/platform/platform.h"

typedef struct sluice_engine sluice_engine;

/* What a number of the KV cache takes. */
typedef enum sluice_engine_kv {
    SLUICE_ENGINE_KV_F16 = 0,   /* 2 bytes */
    SLUICE_ENGINE_KV_Q8_0 = 1   /* about 1.1 bytes, with some loss; head dimensions that are no multiple of 32 are refused */
} sluice_engine_kv;

typedef struct sluice_engine_options {
    uint32_t n_threads;         /* 0: from the machine, fewer while it is hot or saves power; otherwise always so many, at most 16 */
    uint32_t context_tokens;    /* at most what the model was trained for; 0: that, but at most 4096 */
    uint32_t cpu;               /* SLUICE_CPU_* to use; 0xffffffff: what the machine has; 0: scalar reference */
    sluice_engine_kv kv;
    const char *prompt_format;  /* a name of prompt.h or chat_template.h ("chatml", "llama-3.1") in place of what the file says; NULL: as the file says.  Not kept */
    uint64_t memory_budget_bytes; /* refuse what needs more; 0: what the device says is available */
    bool allow_overcommit;      /* without a budget: open also what needs more than is available, and let the system read pages again and again */
    const char *draft_path;     /* a small model over the same vocabulary that drafts for this one (SLUICE_DRAFT_MODEL); NULL: none.  Not kept */
} sluice_engine_options;
void sluice_engine_options_init(sluice_engine_options *options); /* the machine's threads and instructions, f16, no budget */

/* What opening would take, in bytes, without opening. */
typedef struct sluice_engine_estimate {
    uint64_t mapped_bytes;    /* the file: clean pages the system may drop */
    uint64_t touched_bytes;   /* of those, what a token reads: all but the experts that it does not use */
    uint64_t kv_bytes;
    uint64_t scratch_bytes;   /* private, beside the KV cache: activations, tokenizer, file index, sampler */
    uint64_t draft_bytes;     /* all of the draft model, its touched pages included */
    uint64_t total_bytes;     /* touched + kv + scratch + draft: what must be there for decoding at full speed */
    uint32_t context_tokens;
} sluice_engine_estimate;

typedef struct sluice_engine_info {
    const char *architecture, *name, *file_type; /* owned by the engine */
    const char *tokenizer;    /* "spm", "bpe" or "wordpiece" */
    const char *prompt_format;/* "intent-action/1", "completion", "qwen2.5", "unknown" … */
    const char *kernels;      /* "avx2", "neon-dotprod", "scalar" … */
    uint32_t n_vocab, n_layer, n_embd, n_head, n_head_kv, n_ff, context_tokens, n_threads;
    uint64_t n_params, model_bytes;
    /* Logistic calibration of its answers' token log-probabilities, from the file (sluice.confidence.bias, .weight_min, .weight_mean):
     * P(right) = 1 / (1 + exp(-(bias + weight_min * min + weight_mean * mean))).  Weights are >= 0. */
    bool has_calibration;
    float confidence_bias, confidence_weight_min, confidence_weight_mean;
    uint8_t model_hash[32];   /* identifies the file to calibrations: of metadata, tensor table and a sample of the data, not of every byte */
    bool is_encoder;          /* embeds, and does not generate */
    bool has_probe;           /* tokens carry a probe score */
    sluice_engine_kv kv;
} sluice_engine_info;

/* Within 5 % of what opening then holds.  A request may add to it for its own time: stop strings, a constraint (about 20 bytes for each token of the
 * vocabulary, from the first one on, and its grammar). */
sluice_status sluice_engine_estimate_memory(sluice_engine_estimate *out, const char *path, const sluice_engine_options *options,
                                            const sluice_platform *platform, const sluice_allocator *al, sluice_error *err);
/* Refused with SLUICE_ERR_NO_MEMORY when the estimate's total does not fit the budget; the message names each part.  A mixture of experts larger
 * than memory opens as long as what a token touches fits.  Options and strings in them are not kept; the platform's and the allocator's structs are copied. */
sluice_status sluice_engine_open(sluice_engine **out, const char *path, const sluice_engine_options *options,
                                 const sluice_platform *platform, const sluice_allocator *al, sluice_error *err);
void sluice_engine_close(sluice_engine *e); /* accepts NULL; wipes what derives from prompts */
const sluice_engine_info *sluice_engine_get_info(const sluice_engine *e);
uint64_t sluice_engine_private_bytes(const sluice_engine *e); /* allocated right now, KV cache and draft model included, the mapped file not */

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

/* The same with tool definitions, calls and results (chat_template.h); `options` may be NULL. */
struct sluice_chat_message;
struct sluice_chat_options;
sluice_status sluice_engine_render_chat(const sluice_engine *e, const struct sluice_chat_message *messages, size_t n_messages,
                                        const struct sluice_chat_options *options, int32_t *tokens, size_t *n, sluice_error *err);

/* ---- evaluation, token by token (tests, parity, other decoders) */
void sluice_engine_reset(sluice_engine *e);                  /* forget the session: wipes KV cache, tokens and activations */
uint32_t sluice_engine_position(const sluice_engine *e);     /* tokens in the KV cache */
/* Run n tokens after those in the cache.  logits: (n_vocab) of the last one, borrowed until the next call.
 * SLUICE_ERR_LIMIT when the context is full; _CANCELLED after sluice_engine_stop(); _UNSUPPORTED for an encoder. */
sluice_status sluice_engine_eval(sluice_engine *e, const int32_t *tokens, size_t n, const float **logits, sluice_error *err);
/* The same, with logits (n_rows, n_vocab) of the last n_rows of them, at most 16.  Each row has the bits that a run of its own would give. */
sluice_status sluice_engine_eval_rows(sluice_engine *e, const int32_t *tokens, size_t n, uint32_t n_rows, const float **logits, sluice_error *err);
/* The last hidden state after the final norm, (n_embd), of the last token that ran; borrowed until the next call.  NULL before the first run. */
const float *sluice_engine_hidden(const sluice_engine *e);

/* Called with the f32 input of every matrix product, (n_tokens, cols), on the calling thread before the product runs: what an importance matrix is
 * made of.  For mixtures once per expert used, with its tokens alone (expert >= 0; else -1).  NULL: off.  It must not call the engine, but for
 * sluice_engine_stop(). */
typedef void (*sluice_engine_observer)(void *user, const char *tensor_name, int32_t expert, const float *x, size_t n_tokens, size_t cols);
void sluice_engine_observe(sluice_engine *e, sluice_engine_observer fn, void *user);

/* ---- embeddings
 * Pooled as the model says (mean, first or last token), of length 1 (L2) when `normalize`; out: (n_out), n_out = info.n_embd.  A text of an encoder gets the
 * marks around it that the model was trained with.  SLUICE_ERR_LIMIT when it does not fit the context: nothing is cut off silently.
 * The session is forgotten: the activations share its memory. */
sluice_status sluice_engine_embed(sluice_engine *e, sluice_span text, bool normalize, float *out, size_t n_out, sluice_error *err);
sluice_status sluice_engine_embed_tokens(sluice_engine *e, const int32_t *tokens, size_t n, bool normalize, float *out, size_t n_out, sluice_error *err);

/* ---- generation */
typedef struct sluice_logit_bias { int32_t token; float bias; } sluice_logit_bias; /* added to the logit; -INFINITY: never */

typedef struct sluice_engine_sampling {
    float temperature;  /* 0: greedy */
    uint32_t top_k;     /* 0: off */
    float top_p;        /* 1: off */
    float min_p;        /* 0: off; tokens less likely than this share of the likeliest are dropped */
    float repetition_penalty;                   /* 0 and 1: off; else 1e-6 to 1e6, above 1 makes tokens of the window less likely (Keskar et al. 2019, section 4.1) */
    float frequency_penalty, presence_penalty;  /* 0: off; per occurrence, and once */
    uint32_t penalty_window;                    /* tokens looked back on, prompt included; 0: no penalties */
    uint32_t n_alternatives;                    /* likeliest tokens reported with each, at most SLUICE_MAX_ALTERNATIVES */
    uint64_t seed;
    const sluice_logit_bias *logit_bias;        /* (n_logit_bias), borrowed */
    size_t n_logit_bias;
} sluice_engine_sampling;

enum { SLUICE_MAX_ALTERNATIVES = 8 };

typedef struct sluice_engine_alternative { int32_t id; float logprob; } sluice_engine_alternative;

typedef struct sluice_engine_token {
    int32_t id;
    sluice_span text;      /* what can be shown now: its bytes, which may be a part of a code point.  With stop strings or whole code points some may be
                              held back and come with a later token; put together, the texts are the answer */
    float logprob;         /* natural log, of the chosen token under the untempered distribution */
    float margin;          /* probability of the best minus that of the second best, in [0, 1] */
    float entropy;         /* nats */
    uint32_t index;        /* 0, 1, … in the output */
    bool is_declined;      /* with this token the model says that the request is none that it can answer (prompt format) */
    bool is_end;           /* the model's end token: no text of its own, it is reported once, last */
    float probe;           /* the probe head's word on the state it came from, in [0, 1]; negative where the file has none */
    uint32_t n_alternatives;
    const sluice_engine_alternative *alternatives; /* (n_alternatives), from the likeliest on, borrowed for the call */
} sluice_engine_token;

typedef enum sluice_engine_stop_reason {
    SLUICE_STOP_END = 1,        /* the model's end token */
    SLUICE_STOP_MAX_TOKENS = 2,
    SLUICE_STOP_CONTEXT = 3,    /* the context is full, and the policy is to say so */
    SLUICE_STOP_CALLER = 4,     /* on_token returned false */
    SLUICE_STOP_STRING = 5,     /* result.stop_string says which */
    SLUICE_STOP_COMPLETE = 6    /* the constraint is fulfilled, and nothing but an end token could follow */
} sluice_engine_stop_reason;

/* What happens when prompt and answer do not fit the context.  The result says what did. */
typedef enum sluice_engine_overflow {
    SLUICE_OVERFLOW_REFUSE = 0, /* SLUICE_ERR_LIMIT for a prompt that leaves no room for one token of answer; SLUICE_STOP_CONTEXT while decoding */
    SLUICE_OVERFLOW_STOP = 1,   /* SLUICE_STOP_CONTEXT in both cases, with an empty answer in the first */
    /* Keep the first n_keep tokens and the newest.  What lies between goes in steps of a quarter of the rest of the context: while decoding two at a time,
     * of a prompt as many as leave room for max_tokens, or for half of the rest.  What stays moves to other positions, and since rotated keys cannot be
     * moved exactly it is evaluated again: about (context - n_keep) / 2 tokens of prefill each time, once per as many tokens of answer.  The model then
     * answers as one that never saw what was dropped. */
    SLUICE_OVERFLOW_TRUNCATE_OLDEST = 2
} sluice_engine_overflow;

/* Speculation: cheap guesses at the next tokens are checked in one run of the model, which costs little more than a run for one token while memory is
 * the bottleneck.  Each token is picked from the model's own logits in the order of plain decoding, with the same draws, and a guess is kept only when it is
 * that very token, so that the answer is that of plain decoding, token by token: greedy or drawn, with constraints, penalties and stop strings. */
typedef enum sluice_engine_draft {
    SLUICE_DRAFT_NONE = 0,
    SLUICE_DRAFT_LOOKUP = 1,    /* what followed the last tokens where they stood before, in prompt and answer (Saxena 2023) */
    SLUICE_DRAFT_MODEL = 2,     /* the draft model of the options; SLUICE_ERR_STATE without one */
    SLUICE_DRAFT_HOOK = 3       /* the request's draft_fn */
} sluice_engine_draft;

enum { SLUICE_MAX_DRAFT = 15 }; /* tokens of one guess; how many are tried adapts to how many are right */

/* Guess what follows `tokens` (prompt and answer so far, as much as the model sees of them): write at most `max` to `out`, return
 * how many.  On the calling thread; must not call this engine. */
typedef size_t (*sluice_engine_draft_fn)(const int32_t *tokens, size_t n, int32_t *out, size_t max, void *user);

/* Return false to stop (SLUICE_STOP_CALLER). Called on the calling thread; must not call the engine, but for sluice_engine_stop(). */
typedef bool (*sluice_engine_token_fn)(const sluice_engine_token *token, void *user);

/* Zero is a fair choice for everything but prompt and max_tokens.  All is borrowed for the call. */
typedef struct sluice_engine_request {
    const int32_t *prompt;      /* (n_prompt), everything that the model shall see */
    size_t n_prompt;
    uint32_t max_tokens;        /* the end token not counted */
    sluice_engine_sampling sampling;
    const sluice_span *stop;    /* (n_stop) stop strings: the answer ends before the first one, and no part of it comes out; at most 16 of 256 bytes */
    size_t n_stop;
    bool whole_code_points;     /* hold bytes back until they make a code point */

    /* At most one of the two.  The answer is a whole valid value, or the call fails: SLUICE_ERR_LIMIT before anything is evaluated when max_tokens is too small
     * for any, and otherwise as sluice_constraint_open() and sluice_constraint_open_tools() say. */
    bool json;                  /* the answer is JSON, of json_schema or of any kind where that is empty */
    sluice_span json_schema;
    sluice_span tools;          /* JSON array of tools, as in constraint.h; empty: none */
    sluice_tool_choice tool_choice;
    const char *tool_name;      /* SLUICE_TOOL_NAMED */
    const sluice_tool_format *tool_format; /* what stands around a call; NULL: as the model's prompt format has it */

    sluice_engine_draft draft;
    sluice_engine_draft_fn draft_fn; /* SLUICE_DRAFT_HOOK */
    void *draft_user;

    sluice_engine_overflow overflow;
    uint32_t n_keep;            /* SLUICE_OVERFLOW_TRUNCATE_OLDEST: at most half of the context */
    bool keep;                  /* keep the session for the next request; otherwise it is wiped, however this ends */
    sluice_engine_token_fn on_token; /* may be NULL */
    void *user;
} sluice_engine_request;

typedef struct sluice_engine_result {
    uint32_t prompt_tokens, output_tokens;
    uint64_t prefill_us, decode_us;
    sluice_engine_stop_reason stop;
    uint32_t stop_string;       /* index, with SLUICE_STOP_STRING */
    uint32_t reused_tokens;     /* of the prompt: they were in the cache already */
    uint32_t dropped_tokens;    /* of prompt and answer: SLUICE_OVERFLOW_TRUNCATE_OLDEST took them out of the model's sight */
    uint32_t reevaluated_tokens;/* what that cost */
    uint32_t drafted_tokens, accepted_tokens; /* guesses checked, and those that were right */
    uint32_t decode_runs;       /* of the model after the prompt; without speculation one for each token but the last */
    uint32_t n_threads;         /* that computed it */
} sluice_engine_result;

/* Answer `request`.  Of the prompt, what the cache has from the last kept session is not evaluated again, as far as both begin alike, and the answer is the
 * same to the bit.  SLUICE_ERR_ARGUMENT and _LIMIT for what the request says, _UNSUPPORTED for an encoder, _INTEGRITY when the weights give numbers that are
 * none, _CANCELLED after sluice_engine_stop(): within one token, and in a prompt within a layer of a chunk.  `result` is filled in as far as it got. */
sluice_status sluice_engine_run(sluice_engine *e, const sluice_engine_request *request, sluice_engine_result *result, sluice_error *err);

/* The same for a prompt that nothing is kept of, neither before nor after. */
sluice_status sluice_engine_generate(sluice_engine *e, const int32_t *prompt, size_t n_prompt, uint32_t max_tokens,
                                     const sluice_engine_sampling *sampling, sluice_engine_token_fn on_token, void *user,
                                     sluice_engine_result *result, sluice_error *err);
void sluice_engine_stop(sluice_engine *e);  /* any thread: the running call ends with SLUICE_ERR_CANCELLED; sticky until resume */
void sluice_engine_resume(sluice_engine *e);

/* ---- sessions on disk
 * What the cache holds is the conversation, so it is written only sealed.  The engine has no cryptography of its own: the caller hands in authenticated
 * encryption (sdk/src/session_seal.h has one).  The file is cut into chunks, each sealed with what it is as additional data: the file's random id, model,
 * shape of the cache, number of the chunk, and whether it is the last.  So each changed byte, a missing end, chunks that are swapped, repeated or taken
 * from another file are found.  That a whole file was put back in place of a newer one is not: who needs that keeps a counter of their own. */
typedef struct sluice_engine_sealer {
    size_t overhead; /* bytes that sealing adds: 16 to 256 */
    /* Writes plain.len + overhead bytes. */
    sluice_status (*seal)(void *user, sluice_span aad, sluice_span plain, uint8_t *out, sluice_error *err);
    /* Writes sealed.len - overhead bytes.  SLUICE_ERR_INTEGRITY for a forgery, or another key. */
    sluice_status (*open)(void *user, sluice_span aad, sluice_span sealed, uint8_t *out, sluice_error *err);
    void *user;
} sluice_engine_sealer;

/* Write the session to `path`, whole or not at all (a temporary file beside it, synced and renamed).  SLUICE_ERR_ARGUMENT without a sealer,
 * _STATE when there is no session. */
sluice_status sluice_engine_save_session(sluice_engine *e, const char *path, const sluice_engine_sealer *sealer, sluice_error *err);
/* The next request goes on as if the session had never left.  SLUICE_ERR_STATE when it is of another model or cache type, _LIMIT when it does not fit this
 * context, _INTEGRITY for any damage and another key, _FORMAT for another kind of file, _NOT_FOUND, _IO, _NO_MEMORY.  After a failure the session is empty. */
sluice_status sluice_engine_restore_session(sluice_engine *e, const char *path, const sluice_engine_sealer *sealer, sluice_error *err);

#endif
