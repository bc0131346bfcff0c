/* sampler.c - choosing a token.
 *
 * After penalties and bias the candidates are compacted: ids in rising order with a weight each.  Every cut keeps a prefix of the order "likelier
 * first, equals by id" and compacts again, so later stages see few.
 *
 *   logits ──► adjusted ──► candidates (ids, logits) ──► top_k ──► softmax (weights) ──► top_p ──► min_p ──► draw
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/sampler.h"

#include <math.h>

enum {
    N_LIKELY = 16, /* candidates tried one by one before a whole mask is asked for */
    BUCKET_BITS = 11,
    N_BUCKETS = 1 << BUCKET_BITS
};

static uint32_t mask_words(uint32_t n_vocab)
{
    return (n_vocab + 31) / 32;
}

size_t sluice_sampler_bytes(uint32_t n_vocab)
{
    const size_t counts = ((size_t)n_vocab + 1) / 2 * sizeof(uint32_t); /* 16 bits each */

    return (size_t)n_vocab * (2 * sizeof(float) + sizeof(uint32_t)) + mask_words(n_vocab) * sizeof(uint32_t) + counts +
           SLUICE_SAMPLER_MAX_WINDOW * sizeof(uint32_t);
}

static sluice_status check(const sluice_engine_sampling *sampling, uint32_t n_vocab, sluice_error *err)
{
    const struct {
        const char *name;
        float value, min, max;
    } settings[] = {
        { "temperature", sampling->temperature, 0, 3e38f },
        { "top_p", sampling->top_p, 0, 1 },
        { "min_p", sampling->min_p, 0, 1 },
        { "repetition_penalty", sampling->repetition_penalty, 0, 1e6f },
        { "frequency_penalty", sampling->frequency_penalty, -1e6f, 1e6f },
        { "presence_penalty", sampling->presence_penalty, -1e6f, 1e6f },
    };

    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        if (!(settings[i].value >= settings[i].min && settings[i].value <= settings[i].max))
            return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "sampling: %s is %g, and must be in [%g, %g]", settings[i].name,
                                    (double)settings[i].value, (double)settings[i].min, (double)settings[i].max);
    if (sampling->repetition_penalty > 0 && sampling->repetition_penalty < 1e-6f) /* dividing by less would leave the numbers */
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "sampling: repetition_penalty is %g, and must be 0 or in [1e-06, 1e+06]",
                                (double)sampling->repetition_penalty);
    if (sampling->penalty_window > SLUICE_SAMPLER_MAX_WINDOW && sampling->penalty_window != UINT32_MAX)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "sampling: penalty_window is %u; it can be %d, or UINT32_MAX for all",
                                sampling->penalty_window, SLUICE_SAMPLER_MAX_WINDOW);
    if (sampling->n_alternatives > SLUICE_MAX_ALTERNATIVES)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "sampling: n_alternatives is %u; the most is %d", sampling->n_alternatives,
                                SLUICE_MAX_ALTERNATIVES);
    if (sampling->n_logit_bias > SLUICE_SAMPLER_MAX_BIAS)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "sampling: %zu biases; the most is %d", sampling->n_logit_bias, SLUICE_SAMPLER_MAX_BIAS);
    for (size_t i = 0; i < sampling->n_logit_bias; i++) {
        const sluice_logit_bias *b = &sampling->logit_bias[i];

        if (b->token < 0 || (uint32_t)b->token >= n_vocab)
            return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "sampling: a bias for token %d, outside the vocabulary of %u", b->token, n_vocab);
        if (!(b->bias <= 1e6f) || (b->bias < -1e6f && !isinf(b->bias)))
            return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "sampling: the bias of token %d is %g, and must be -infinite or in [-1e6, 1e6]",
                                    b->token, (double)b->bias);
    }
    return SLUICE_OK;
}

sluice_status sluice_sampler_init(sluice_sampler *s, const sluice_kernels *kernels, const sluice_engine_sampling *sampling, uint32_t n_vocab,
                                  void *scratch, sluice_error *err)
{
    const sluice_status st = check(sampling, n_vocab, err);

    if (st != SLUICE_OK)
        return st;
    memset(s, 0, sizeof *s);
    s->kernels = kernels;
    s->sampling = *sampling;
    s->state = sampling->seed;
    s->n_vocab = n_vocab;
    s->weights = scratch;
    s->adjusted = s->weights + n_vocab;
    s->ids = (uint32_t *)(void *)(s->adjusted + n_vocab);
    s->mask = s->ids + n_vocab;
    s->window = s->mask + mask_words(n_vocab);
    s->counts = (uint16_t *)(void *)(s->window + SLUICE_SAMPLER_MAX_WINDOW);
    if (s->sampling.repetition_penalty == 0)
        s->sampling.repetition_penalty = 1;
    s->has_penalties = s->sampling.penalty_window > 0 &&
                       (s->sampling.repetition_penalty != 1 || sampling->frequency_penalty != 0 || sampling->presence_penalty != 0);
    if (s->has_penalties)
        memset(s->counts, 0, n_vocab * sizeof *s->counts);
    return SLUICE_OK;
}

/* ---- the window of penalties */

void sluice_sampler_accept(sluice_sampler *s, int32_t token)
{
    const uint32_t length = s->sampling.penalty_window;
    uint32_t id;

    if (!s->has_penalties || token < 0 || (uint32_t)token >= s->n_vocab)
        return;
    id = (uint32_t)token;
    if (length == UINT32_MAX) {
        if (s->counts[id] == 0) {
            if (s->n_window < SLUICE_SAMPLER_MAX_WINDOW)
                s->window[s->n_window++] = id;
            else
                s->overflowed = true;
        }
        if (s->counts[id] < UINT16_MAX)
            s->counts[id]++;
        return;
    }
    if (s->n_window == length)
        s->counts[s->window[s->next]]--;
    else
        s->n_window++;
    s->window[s->next] = id;
    s->counts[id]++; /* at most the window's length, 4096 */
    s->next = s->next + 1 == length ? 0 : s->next + 1;
}

void sluice_sampler_feed_prompt(sluice_sampler *s, const int32_t *tokens, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sluice_sampler_accept(s, tokens[i]);
}

/* From the raw logit, so that meeting a token twice in the window does it no more harm. */
static void penalise(sluice_sampler *s, const float *logits, uint32_t id)
{
    const sluice_engine_sampling *sampling = &s->sampling;
    const float x = logits[id], by = sampling->repetition_penalty;

    if (s->counts[id] == 0)
        return;
    s->adjusted[id] = (x > 0 ? x / by : x * by) - sampling->frequency_penalty * (float)s->counts[id] - sampling->presence_penalty;
}

/* The logits that tokens are chosen by: the model's own, or a copy with penalties and biases. */
static const float *adjust(sluice_sampler *s, const float *logits)
{
    if (!s->has_penalties && s->sampling.n_logit_bias == 0)
        return logits;
    memcpy(s->adjusted, logits, s->n_vocab * sizeof *logits);
    if (s->has_penalties && s->overflowed) {
        for (uint32_t id = 0; id < s->n_vocab; id++)
            penalise(s, logits, id);
    } else if (s->has_penalties) {
        for (uint32_t i = 0; i < s->n_window; i++)
            penalise(s, logits, s->window[i]);
    }
    for (size_t i = 0; i < s->sampling.n_logit_bias; i++)
        s->adjusted[s->sampling.logit_bias[i].token] += s->sampling.logit_bias[i].bias;
    return s->adjusted;
}

/* ---- random numbers */

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

/* ---- the best */

/* The n_max best, in order, ties by id.  One pass; insertion is rare once the list is good, and at worst costs 16 steps a token. */
static uint32_t likeliest(const float *logits, uint32_t n, uint32_t *ids, uint32_t n_max)
{
    uint32_t n_ids = 0;

    if (n_max == 0)
        return 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = n_ids;

        if (n_ids == n_max) {
            if (!(logits[i] > logits[ids[n_max - 1]]))
                continue;
            at = n_max - 1;
        } else {
            n_ids++;
        }
        while (at > 0 && logits[i] > logits[ids[at - 1]]) {
            ids[at] = ids[at - 1];
            at--;
        }
        ids[at] = i;
    }
    return n_ids;
}

static bool is_in(const uint32_t *mask, uint32_t id)
{
    return mask[id / 32] >> id % 32 & 1;
}

/* The best that the constraint allows.  Mostly the model's favourite is allowed, and nearly always one of its first few. */
static int32_t best_allowed(sluice_sampler *s, const float *logits, uint32_t favourite, sluice_constraint *c)
{
    uint32_t ids[N_LIKELY], n;
    int32_t best = SLUICE_TOKEN_NONE;

    if (isinf(logits[favourite]))
        return SLUICE_TOKEN_NONE; /* everything is banned */
    if (c == NULL || sluice_constraint_allows(c, (int32_t)favourite))
        return (int32_t)favourite;
    n = likeliest(logits, s->n_vocab, ids, N_LIKELY);
    for (uint32_t i = 1; i < n; i++)
        if (!isinf(logits[ids[i]]) && sluice_constraint_allows(c, (int32_t)ids[i]))
            return (int32_t)ids[i];
    (void)sluice_constraint_mask(c, s->mask);
    for (uint32_t word = 0; word < mask_words(s->n_vocab); word++) {
        if (s->mask[word] == 0)
            continue;
        for (uint32_t id = word * 32; id < s->n_vocab && id < word * 32 + 32; id++)
            if (is_in(s->mask, id) && !isinf(logits[id]) && (best < 0 || logits[id] > logits[best]))
                best = (int32_t)id;
    }
    return best;
}

/* ---- cuts: each keeps a prefix of the candidates' order, and keeps them in the order of their ids */

/* Order-preserving: greater floats have greater keys, and the two zeros the same. */
static uint32_t key_of(float x)
{
    uint32_t bits;

    x += 0.0f;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

typedef struct candidates {
    const float *logits; /* by id */
    uint32_t *ids;
    float *weights; /* of the candidate in that place */
    uint32_t n;
} candidates;

/* Keep the shortest prefix whose weights, or whose number where not by_weight, reach `want`; at least one.
 *
 * The keys are looked at 11, 11 and 10 bits at a time: a histogram finds the bucket in which the sum passes `want`, all above it stay, and the bucket is
 * looked into.  What is left at last has one key: as many of these as are needed stay, lowest ids first. */
static void keep_prefix(candidates *c, bool by_weight, double want)
{
    static const struct {
        uint32_t shift, bits;
    } levels[] = { { 21, 11 }, { 10, 11 }, { 0, 10 } };
    double sums[N_BUCKETS], above = 0;
    uint32_t floor_key = 0, n_equal = 0; /* keys from floor_key on are in; of those that equal it, only so many */
    double equal_weight = 0;

    for (uint32_t level = 0; level < 3; level++) {
        const uint32_t shift = levels[level].shift, mask = (1u << levels[level].bits) - 1;
        uint32_t bucket = 0, lowest = UINT32_MAX;
        double sum = above;

        memset(sums, 0, sizeof sums);
        for (uint32_t i = 0; i < c->n; i++) {
            const uint32_t key = key_of(c->logits[c->ids[i]]);

            if (level > 0 && key >> (shift + levels[level].bits) != floor_key >> (shift + levels[level].bits))
                continue;
            sums[key >> shift & mask] += by_weight ? (double)c->weights[i] : 1.0;
            if ((key >> shift & mask) < lowest)
                lowest = key >> shift & mask;
        }
        for (bucket = mask; bucket > lowest; bucket--) {
            if (sums[bucket] > 0 && sum + sums[bucket] >= want)
                break;
            sum += sums[bucket];
        }
        above = sum;
        floor_key |= bucket << shift;
        if (level == 0) { /* from here on, most of a vocabulary is gone */
            uint32_t n = 0;

            for (uint32_t i = 0; i < c->n; i++)
                if (key_of(c->logits[c->ids[i]]) >= floor_key) {
                    c->ids[n] = c->ids[i];
                    c->weights[n++] = c->weights[i];
                }
            c->n = n;
        }
    }
    {
        uint32_t n = 0;

        for (uint32_t i = 0; i < c->n; i++) {
            const uint32_t key = key_of(c->logits[c->ids[i]]);

            if (key < floor_key)
                continue;
            if (key == floor_key) {
                if (n_equal > 0 && above + equal_weight >= want)
                    continue;
                n_equal++;
                equal_weight += by_weight ? (double)c->weights[i] : 1.0;
            }
            c->ids[n] = c->ids[i];
            c->weights[n++] = c->weights[i];
        }
        c->n = n;
    }
}

/* Four sums side by side: one would wait for each addition. */
static double total_of(const candidates *c)
{
    double sums[4] = { 0, 0, 0, 0 };

    for (uint32_t i = 0; i < c->n; i++)
        sums[i % 4] += (double)c->weights[i];
    return sums[0] + sums[1] + (sums[2] + sums[3]);
}

static void keep_heavier(candidates *c, double least)
{
    const float threshold = (float)least;
    uint32_t n = 0;

    for (uint32_t i = 0; i < c->n; i++)
        if (c->weights[i] >= threshold) {
            c->ids[n] = c->ids[i];
            c->weights[n++] = c->weights[i];
        }
    c->n = n;
}

/* A sample tells roughly from where on the k likeliest are.  All that are below go, if enough stay; else nothing changes.  A look at one
 * number of each instead of the histograms, and the result is the same. */
static void thin_out(candidates *c, uint32_t k)
{
    enum { SAMPLE = 1024, RANK_MAX = 64 };
    const uint32_t stride = c->n / SAMPLE;
    float top[RANK_MAX];
    uint32_t rank, n_top = 0, n = 0;
    float floor_logit;

    if (stride < 8 || k > c->n / 128)
        return;
    rank = 4 + 4 * k / stride; /* k / stride of the sample are among the k likeliest, on average */
    if (rank > RANK_MAX)
        return;
    for (uint32_t i = 0; i < SAMPLE; i++) {
        const float x = c->logits[c->ids[i * stride]];
        uint32_t at = n_top;

        if (n_top == rank && !(x > top[rank - 1]))
            continue;
        if (n_top < rank)
            n_top++;
        else
            at = rank - 1;
        for (; at > 0 && x > top[at - 1]; at--)
            top[at] = top[at - 1];
        top[at] = x;
    }
    floor_logit = top[rank - 1];
    for (uint32_t i = 0; i < c->n; i++)
        n += c->logits[c->ids[i]] >= floor_logit;
    if (n < k)
        return;
    n = 0;
    for (uint32_t i = 0; i < c->n; i++)
        if (c->logits[c->ids[i]] >= floor_logit) {
            c->ids[n] = c->ids[i];
            c->weights[n++] = c->weights[i];
        }
    c->n = n;
}

static void keep_top_p(candidates *c, double share)
{
    const double total = total_of(c);

    /* All that are lighter than this together weigh less than what may be cut off, so none of them can be in the prefix. */
    if (share > 0)
        keep_heavier(c, (1 - share) * total / ((double)c->n + 1));
    keep_prefix(c, true, share * total);
}

static double heaviest(const candidates *c)
{
    float most = 0;

    for (uint32_t i = 0; i < c->n; i++)
        most = c->weights[i] > most ? c->weights[i] : most;
    return (double)most;
}

/* ---- choosing */

static candidates gather(sluice_sampler *s, const float *logits, sluice_constraint *c)
{
    candidates got = { logits, s->ids, s->weights, 0 };

    if (c != NULL) {
        (void)sluice_constraint_mask(c, s->mask);
        for (uint32_t word = 0; word < mask_words(s->n_vocab); word++) {
            if (s->mask[word] == 0)
                continue;
            for (uint32_t id = word * 32; id < s->n_vocab && id < word * 32 + 32; id++)
                if (is_in(s->mask, id) && !isinf(logits[id])) {
                    s->ids[got.n] = id;
                    s->weights[got.n++] = logits[id];
                }
        }
        return got;
    }
    for (uint32_t id = 0; id < s->n_vocab; id++)
        if (!isinf(logits[id])) {
            s->ids[got.n] = id;
            s->weights[got.n++] = logits[id];
        }
    return got;
}

static int32_t draw(const candidates *c, double share)
{
    double mass = 0;

    share *= total_of(c);
    for (uint32_t i = 0; i + 1 < c->n; i++) {
        mass += (double)c->weights[i];
        if (mass > share)
            return (int32_t)c->ids[i];
    }
    return (int32_t)c->ids[c->n - 1];
}

/* `best` of the model's own logits: still the best if nothing was adjusted. */
static int32_t choose_best(sluice_sampler *s, const float *logits, uint32_t best, sluice_constraint *c)
{
    if (logits == s->adjusted)
        (void)likeliest(logits, s->n_vocab, &best, 1);
    return best_allowed(s, logits, best, c);
}

static int32_t choose(sluice_sampler *s, const float *logits, uint32_t best, sluice_constraint *c)
{
    const sluice_engine_sampling *sampling = &s->sampling;
    candidates left;
    double share;

    if (sampling->temperature == 0)
        return choose_best(s, logits, best, c);
    share = next_unit(&s->state);
    if (sampling->temperature < 1e-4f) /* its inverse times a difference of logits could overflow; nothing but the best is left anyway */
        return choose_best(s, logits, best, c);
    left = gather(s, logits, c);
    if (left.n == 0)
        return SLUICE_TOKEN_NONE;
    if (sampling->top_k > 0 &&
        sampling->top_k < left.n) { /* the order is that of the logits at any temperature, so this can come first: fewer exponentials */
        thin_out(&left, sampling->top_k);
        keep_prefix(&left, false, (double)sampling->top_k);
    }
    (void)s->kernels->softmax(left.weights, left.n, 1 / sampling->temperature);
    if (sampling->top_p < 1)
        keep_top_p(&left, (double)sampling->top_p);
    if (sampling->min_p > 0)
        keep_heavier(&left, (double)sampling->min_p * heaviest(&left));
    return draw(&left, share);
}

void sluice_sampler_pick(sluice_sampler *s, const float *logits, sluice_constraint *c, sluice_sample *out)
{
    const uint32_t n = s->n_vocab, n_alternatives = s->sampling.n_alternatives;
    uint32_t top[SLUICE_MAX_ALTERNATIVES], n_top, best;
    double log_sum, means[4] = { 0, 0, 0, 0 };
    float *p = s->weights, highest;

    memset(out, 0, sizeof *out);
    n_top = likeliest(logits, n, top, n_alternatives > 2 ? n_alternatives : 2);
    best = top[0];
    highest = logits[best];
    memcpy(p, logits, n * sizeof *p);
    log_sum = log((double)s->kernels->softmax(p, n, 1.0f));
    for (uint32_t i = 0; i < n; i++)
        means[i % 4] += (double)(p[i] * (logits[i] - highest));
    out->margin = p[best] - (n_top > 1 ? p[top[1]] : 0);
    out->entropy = (float)fmax(log_sum - (means[0] + means[1] + (means[2] + means[3])), 0);
    out->n_alternatives = n_alternatives < n_top ? n_alternatives : n_top;
    for (uint32_t i = 0; i < out->n_alternatives; i++) {
        out->alternatives[i].id = (int32_t)top[i];
        out->alternatives[i].logprob = (float)fmin((double)logits[top[i]] - (double)highest - log_sum, 0);
    }
    out->id = choose(s, adjust(s, logits), best, c);
    if (out->id >= 0)
        out->logprob = (float)fmin((double)logits[out->id] - (double)highest - log_sum, 0);
}
