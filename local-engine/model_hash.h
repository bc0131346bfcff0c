/* model_hash.h - a name for a model file: SHA-256 over its metadata, its tensor table and samples of its tensors.
 *
 * Hashing every byte of a gigabyte would take seconds at each start.  What is hashed tells two trainings, quantizations or tokenizers
 * apart; it is no proof that the rest of the file is untouched.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_MODEL_HASH_H
#define SLUICE_LOCAL_ENGINE_MODEL_HASH_H

#include "local-engine/gguf.h"

void sluice_model_hash(const sluice_gguf *g, uint8_t out[32]);

#endif
