/* gguf_samples.h - small GGUF files for the tests of the engine's file and text half.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_UNIT_ENGINE_GGUF_SAMPLES_H
#define SLUICE_TESTS_UNIT_ENGINE_GGUF_SAMPLES_H

#include "local-engine/tools/gguf_write.h"

/* Each appends a whole file to `out`, which the caller has initialised; running out of memory ends the test program. */

/* About 1 KB with every kind of value, a small SPM vocabulary without byte tokens, and three tensors (F32, F16, Q8_0). */
void sample_spm_small(sluice_buf *out);
/* About 1 KB: a BPE vocabulary of a few letters and merges, control tokens <|bos|> and <|action|>, intent-action/1. */
void sample_bpe_small(sluice_buf *out);

typedef struct sample_token { const char *text; int32_t type; float score; } sample_token;

/* A vocabulary alone.  SPM: `tokens` after <unk> (0), <s> (1), </s> (2) and, with_bytes, <0x00> … <0xFF> (3 … 258). */
void sample_spm(sluice_buf *out, bool with_bytes, const sample_token *tokens, size_t n);
/* BPE: <|bos|> (0), <|eos|> (1), <|action|> (2), the 256 bytes (3 … 258, token 3 + b says byte b), then `tokens`.
 * `merges` as in a file; `pre` NULL: the key is left out; `prompt_format` and `chat_template` likewise. */
enum { SAMPLE_BPE_BYTE_0 = 3, SAMPLE_BPE_FIRST = 259 };
typedef struct sample_bpe_options {
    const char *pre, *prompt_format, *chat_template;
    const sample_token *tokens;
    size_t n_tokens;
    const char *const *merges;
    size_t n_merges;
} sample_bpe_options;
void sample_bpe(sluice_buf *out, const sample_bpe_options *options);

#endif
