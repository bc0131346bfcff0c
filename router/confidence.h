/* confidence.h - running confidence of a local answer from its token log-probabilities.
 *
 * score = a monotone function of (minimum, mean) of the token probabilities so far; calibrated by a table per model.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_ROUTER_CONFIDENCE_H
#define SLUICE_ROUTER_CONFIDENCE_H

#include "sdk/base/base.h"

typedef struct sluice_confidence {
    uint32_t n;
    float logprob_min, logprob_sum, margin_min, entropy_max;
} sluice_confidence;

/* Logistic calibration: confidence = 1 / (1 + exp(-(a + b_min * logprob_min + b_mean * logprob_mean))).  b_* >= 0, so that it is monotone. */
typedef struct sluice_calibration { float a, b_min, b_mean; bool is_fitted; } sluice_calibration;

void sluice_confidence_init(sluice_confidence *c);
void sluice_confidence_add(sluice_confidence *c, float logprob, float margin, float entropy);
/* Confidence in [0, 1] if the answer ended now; never rises again after a low minimum.  An unfitted calibration gives exp(logprob_min). */
float sluice_confidence_value(const sluice_confidence *c, const sluice_calibration *cal);

#endif
