/* features.h - what is known of a request before anything runs.
 *
 * Computed once, on the device, linear in the text, without allocation.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_ROUTER_FEATURES_H
#define SLUICE_ROUTER_FEATURES_H

#include "policies/data_class.h"
#include "policies/policy.h"

typedef struct sluice_features {
    uint32_t n_bytes, n_chars, n_words, n_messages;
    uint32_t n_sentences, n_lines, n_digits, n_questions;
    float non_ascii_share;        /* of code points, [0, 1] */
    bool is_valid_utf8;
    bool has_code, has_system, is_multi_turn;
    sluice_data_classes classes;
    uint32_t prompt_tokens_estimate; /* 0.3 tokens a byte until the tokenizer has counted */
    float difficulty;             /* [0, 1]: how unlike a short command the text is; a prior only, the model's own confidence decides */
} sluice_features;

typedef struct sluice_features_input { const char *role; sluice_span text; } sluice_features_input;
void sluice_features_compute(sluice_features *out, const sluice_features_input *messages, size_t n_messages, sluice_data_classes extra);

#endif
