/* sampler.c - choosing a token.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/sampler.h"

#include <math.h>

size_t sluice_sampler_bytes(uint32_t n_vocab)
{
    return (size_t)n_vocab * (sizeof(float) + sizeof(uint32_t));
}

sluice_status sluice_sampler_init(sluice_sampler *s, const sluice_kernels *kernels, const sluice_engine_sampling *sampling, uint32_t n_vocab,
                                  void *scratch, sluice_error *err)
{
    if (!(sampling->temperature >= 0) || isinf(sampling->temperature))
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "sampling: temperature is %g, and must be 0 or more", (double)sampling->temperature);
    if (!(sampling->top_p >= 0 && sampling->top_p <= 1))
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "sampling: top_p is %g, and must be in [0, 1]", (double)sampling->top_p);
    s->kernels = kernels;
    s->sampling = *sampling;
    s->state = sampling->seed;
    s->n_vocab = n_vocab;
    s->probabilities = scratch;
    s->order = (uint32_t *)(void *)(s->probabilities + n_vocab);
    return SLUICE_OK;
}

/* SplitMix64 (Steele, Lea and Flood 2014): a counter, well mixed; any seed is a good one. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* In [0, 1), a multiple of 2^-53. */
static double next_unit(uint64_t *state)
{
    return (double)(next_random(state) >> 11) * 0x1p-53;
}

/* ---- a heap of ids, likeliest on top */

static bool is_likelier(const float *logits, uint32_t a, uint32_t b)
{
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

static void sift_down(uint32_t *heap, uint32_t n, uint32_t at, const float *logits)
{
    const uint32_t id = heap[at];

    while (at < n / 2) {
        uint32_t child = 2 * at + 1;

        if (child + 1 < n && is_likelier(logits, heap[child + 1], heap[child]))
            child++;
        if (!is_likelier(logits, heap[child], id))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = id;
}

/* The likeliest of n; it moves to heap[n - 1], so that popped ids end up sorted behind the heap. */
static uint32_t pop(uint32_t *heap, uint32_t n, const float *logits)
{
    const uint32_t top = heap[0];

    heap[0] = heap[n - 1];
    heap[n - 1] = top;
    sift_down(heap, n - 1, 0, logits);
    return top;
}

/* ---- choosing */

static uint32_t greedy(const float *logits, uint32_t n)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

/* One of all: walk the ids until the drawn share is reached. */
static uint32_t draw_from_all(const float *p, uint32_t n, double share)
{
    double mass = 0;

    for (uint32_t i = 0; i < n; i++)
        mass += (double)p[i];
    share *= mass;
    mass = 0;
    for (uint32_t i = 0; i + 1 < n; i++) {
        mass += (double)p[i];
        if (mass > share)
            return i;
    }
    return n - 1;
}

/* One of the likeliest.  order[n - 1], order[n - 2] … are ids from the likeliest on; the heap holds the others. */
static uint32_t draw_from_top(sluice_sampler *s, const float *logits, double share)
{
    const uint32_t n = s->n_vocab, top_k = s->sampling.top_k;
    const uint32_t n_max = top_k > 0 && top_k < n ? top_k : n;
    const float *p = s->probabilities;
    double total = 0, mass = 0;
    uint32_t n_kept = 0;

    for (uint32_t i = 0; i < n; i++)
        s->order[i] = i;
    for (uint32_t i = n / 2; i-- > 0;)
        sift_down(s->order, n, i, logits);
    if (n_max == n) { /* top_p alone: of everything, so that only the kept ids need sorting */
        for (uint32_t i = 0; i < n; i++)
            total += (double)p[i];
    } else {
        for (uint32_t i = 0; i < n_max; i++)
            total += (double)p[pop(s->order, n - i, logits)];
    }
    do {
        const uint32_t id = n_max == n ? pop(s->order, n - n_kept, logits) : s->order[n - 1 - n_kept];

        mass += (double)p[id];
        n_kept++;
    } while (n_kept < n_max && mass < (double)s->sampling.top_p * total);
    share *= mass;
    mass = 0;
    for (uint32_t i = 0; i + 1 < n_kept; i++) {
        mass += (double)p[s->order[n - 1 - i]];
        if (mass > share)
            return s->order[n - 1 - i];
    }
    return s->order[n - n_kept];
}

static uint32_t choose(sluice_sampler *s, const float *logits, uint32_t best)
{
    const sluice_engine_sampling *sampling = &s->sampling;
    double share;

    if (sampling->temperature == 0)
        return best;
    share = next_unit(&s->state);
    if (sampling->temperature < 1e-4f) /* its inverse times a difference of logits could overflow; nothing but the best is left anyway */
        return best;
    memcpy(s->probabilities, logits, s->n_vocab * sizeof *logits);
    (void)s->kernels->softmax(s->probabilities, s->n_vocab, 1 / sampling->temperature);
    if (sampling->top_p >= 1 && (sampling->top_k == 0 || sampling->top_k >= s->n_vocab))
        return draw_from_all(s->probabilities, s->n_vocab, share);
    return draw_from_top(s, logits, share);
}

void sluice_sampler_pick(sluice_sampler *s, const float *logits, sluice_sample *out)
{
    const uint32_t n = s->n_vocab, best = greedy(logits, n);
    float *p = s->probabilities, second = 0;
    double log_sum, mean = 0;
    uint32_t id;

    memcpy(p, logits, n * sizeof *p);
    log_sum = log((double)s->kernels->softmax(p, n, 1.0f));
    for (uint32_t i = 0; i < n; i++) {
        mean += (double)p[i] * ((double)logits[i] - (double)logits[best]);
        if (i != best && p[i] > second)
            second = p[i];
    }
    out->margin = p[best] - second;
    out->entropy = (float)fmax(log_sum - mean, 0);
    id = choose(s, logits, best);
    out->id = (int32_t)id;
    out->logprob = (float)fmin((double)logits[id] - (double)logits[best] - log_sum, 0);
}
