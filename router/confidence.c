/* confidence.c - running confidence of a local answer from its token log-probabilities.
 *
 * The minimum is the strongest single scalar (Gupta et al., ICLR 2024, arXiv 2404.10136: quantile 0 of the token
 * probabilities), and it only falls: so an answer that was doubtful once stays doubtful, and stopping early is safe.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "router/confidence.h"

#include <math.h>

void sluice_confidence_init(sluice_confidence *c)
{
    memset(c, 0, sizeof *c);
    c->margin_min = 1.0f;
}

void sluice_confidence_add(sluice_confidence *c, float logprob, float margin, float entropy)
{
    if (!(logprob <= 0.0f)) /* a positive value or NaN is no log-probability: count it as no confidence at all */
        logprob = -100.0f;
    if (logprob < -100.0f)
        logprob = -100.0f;
    c->n++;
    c->logprob_sum += logprob;
    c->logprob_min = logprob < c->logprob_min ? logprob : c->logprob_min;
    c->margin_min = margin < c->margin_min ? margin : c->margin_min;
    c->entropy_max = entropy > c->entropy_max ? entropy : c->entropy_max;
}

float sluice_confidence_value(const sluice_confidence *c, const sluice_calibration *cal)
{
    if (c->n == 0)
        return 0.0f;
    if (cal == NULL || !cal->is_fitted)
        return expf(c->logprob_min);
    const float mean = c->logprob_sum / (float)c->n;
    const float p = 1.0f / (1.0f + expf(-(cal->a + cal->b_min * c->logprob_min + cal->b_mean * mean)));
    return p >= 0.0f ? p : 0.0f; /* NaN from a hostile calibration is no confidence */
}
