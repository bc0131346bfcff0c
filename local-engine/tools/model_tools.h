/* model_tools.h - what people do with model files: quantize, calibrate, describe and measure them.
 *
 * For the command line and for programs that prepare models; an app that runs a model does not link this.  Everything here takes paths, says what
 * it does through a progress callback and ends in a status whose message names the file, the tensor and the way out.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_TOOLS_MODEL_TOOLS_H
#define SLUICE_LOCAL_ENGINE_TOOLS_MODEL_TOOLS_H

#include "sluice/base.h"
#include "sluice/platform.h"

/* ---- progress */
typedef struct sluice_tool_progress {
    const char *stage;          /* "calibrate", "quantize", "bench" */
    const char *item;           /* what is at work: a tensor's name, or "" */
    const char *from, *to;      /* types of that tensor, or "" */
    uint64_t done, total;       /* of the stage: bytes read of the source, tokens, rounds */
    uint32_t n_done, n_items;   /* tensors */
} sluice_tool_progress;

/* On the calling thread, often; false ends the work with SLUICE_ERR_CANCELLED. */
typedef bool (*sluice_tool_progress_fn)(const sluice_tool_progress *progress, void *user);

/* ---- quantizing */
typedef struct sluice_model_quantize_options {
    const char *type;           /* "Q4_K_M"; see sluice_model_quantize_types() */
    const char *imatrix;        /* an importance matrix to use, in either of llama.cpp's forms, or NULL */
    const char *calibrate;      /* or a text to make one from, by running the source model over it, or NULL */
    const char *imatrix_out;    /* where to leave what calibrate made, or NULL */
    uint32_t calibrate_tokens;  /* at most this many; 0: all */
    uint32_t n_threads;         /* 0: from the machine */
    bool allow_requantize;      /* take a source that is quantized already */
    bool overwrite;             /* replace an existing file */
    bool pure;                  /* every matrix the same type, the logits' too; no mix */
    sluice_tool_progress_fn progress; /* or NULL */
    void *user;
} sluice_model_quantize_options;

typedef struct sluice_model_quantize_result {
    uint64_t in_bytes, out_bytes;
    uint32_t n_tensors, n_changed;
    uint32_t n_fallback;        /* whose rows are no whole blocks of the type they should get */
    uint32_t n_without_importance; /* quantized without an entry in the importance matrix that was given */
    uint32_t calibrated_tokens;
    uint64_t us;                /* of quantizing, without calibration */
} sluice_model_quantize_result;

/* IN.gguf to OUT.gguf.  Metadata is copied but for general.file_type and general.quantization_version, vectors and norms become F32.  Memory is
 * that of a few rows for each thread and of the header, whatever the model's size.
 * The output appears whole, under its name, or not at all: it is written to "OUT.part", synced and renamed; on any failure that file is removed.
 * SLUICE_ERR_STATE when OUT exists and `overwrite` is not set, or when another program is writing it; SLUICE_ERR_ARGUMENT for an unknown type;
 * SLUICE_ERR_UNSUPPORTED for a source that is quantized already; SLUICE_ERR_INTEGRITY when the source holds a number that is none; SLUICE_ERR_CANCELLED. */
sluice_status sluice_model_quantize(const char *in, const char *out, const sluice_model_quantize_options *options, const sluice_platform *platform,
                                    const sluice_allocator *al, sluice_model_quantize_result *result, sluice_error *err);
const char *sluice_model_quantize_types(void); /* "F32, F16, …" */

/* ---- describing, for people.  As JSON: sluice_model_inspect() of the public API. */
/* *text: lines of UTF-8 ended by a NUL, to be released with sluice_model_text_free().  Names in it come from the file: print them with care.
 * A file that does not load in this build is described all the same, with what stands in its way; only what is no GGUF file at all is an error. */
sluice_status sluice_model_describe(const char *path, bool with_tensors, const sluice_platform *platform, const sluice_allocator *al, char **text,
                                    sluice_error *err);
void sluice_model_text_free(const sluice_allocator *al, char *text); /* accepts NULL */

/* ---- measuring */
typedef struct sluice_model_bench_options {
    uint32_t prompt_tokens;     /* of a prefill; 0: 512 */
    uint32_t decode_tokens;     /* after it, one by one; 0: 64 */
    uint32_t n_threads;         /* 0: from the machine */
    uint32_t context_tokens;    /* 0: what both need */
    uint32_t rounds;            /* 0: 5; at most SLUICE_BENCH_MAX_ROUNDS */
    sluice_tool_progress_fn progress; /* or NULL */
    void *user;
} sluice_model_bench_options;

enum { SLUICE_BENCH_MAX_ROUNDS = 100 };

/* Tokens a second over the rounds. */
typedef struct sluice_bench_speed {
    double median, mean, deviation, slowest, fastest; /* deviation: of the sample; 0 for one round */
} sluice_bench_speed;

typedef struct sluice_model_bench_result {
    char architecture[64], name[128], file_type[16], kernels[32];
    uint32_t prompt_tokens, decode_tokens, context_tokens, n_threads, rounds;
    sluice_bench_speed prefill, decode; /* decode is zero for an encoder */
    uint64_t open_us;           /* of a file in the page cache */
    uint64_t first_token_us;    /* from the begin of opening it to the first token after the prompt */
    uint64_t mapped_bytes, kv_bytes, scratch_bytes; /* as estimated before opening */
    uint64_t peak_bytes;        /* the most that was allocated at a time, the KV cache among it */
    uint64_t n_parameters;
    bool is_encoder;
} sluice_model_bench_result;

/* Prefill and decode alternate in every round, after one that is not counted.  The tokens are drawn from the vocabulary by a fixed seed. */
sluice_status sluice_model_bench(const char *path, const sluice_model_bench_options *options, const sluice_platform *platform,
                                 sluice_model_bench_result *result, sluice_error *err);

#endif
