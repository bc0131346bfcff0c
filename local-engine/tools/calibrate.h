/* calibrate.h - an importance matrix from a text: run the model over it and look at what its matrices are multiplied with.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_TOOLS_CALIBRATE_H
#define SLUICE_LOCAL_ENGINE_TOOLS_CALIBRATE_H

#include "local-engine/tools/imatrix.h"
#include "local-engine/tools/model_tools.h"

/* Runs the model at `path` over options->calibrate, in pieces of SLUICE_CALIBRATE_CHUNK tokens, each from an empty cache and with the model's first token
 * before it.  Writes options->imatrix_out where that is given.  *out is the caller's; *n_tokens says how many ran.
 * SLUICE_ERR_ARGUMENT for a text of fewer than SLUICE_CALIBRATE_MIN tokens. */
sluice_status sluice_calibrate(sluice_imatrix **out, const char *path, const sluice_model_quantize_options *options, uint32_t n_threads,
                               const sluice_platform *platform, const sluice_allocator *al, uint32_t *n_tokens, sluice_error *err);

enum { SLUICE_CALIBRATE_CHUNK = 512, SLUICE_CALIBRATE_MIN = 64 };

#endif
