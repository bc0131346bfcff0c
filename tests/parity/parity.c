/* parity.c - one model's logits against those that a peer engine wrote for the same tokens.
 *
 *   parity MODEL N_TOKENS REFERENCE.f32 PEER.f32 [MAX_KL_RATIO MIN_AGREE SLACK [CPU]]
 *
 * REFERENCE.f32 holds the peer's logits for the F32 form of the model, PEER.f32 those for this very file: rows of raw f32, one for each
 * position.  Prints one line of JSON:
 *
 *     kl_ours, kl_peer    mean KL divergence (nats) from the reference to us, and to the peer on the same file: what the format and the
 *                         arithmetic cost, ours and theirs
 *     same_top            share of positions where the likeliest token is the peer's (of the same file)
 *     same_top_clear      the same among positions where the peer's two likeliest tokens are further apart than four times the RMS difference
 *                         between the two engines: elsewhere either answer is a rounding
 *     top_ours, top_peer  share of positions where the likeliest token is the reference's
 *     rms                 RMS difference of the logits, ours and the peer's
 *
 * Fails when kl_ours > MAX_KL_RATIO * kl_peer + SLACK or same_top_clear < MIN_AGREE.  SLACK is for F32, where kl_peer is 0: two right orders of the same
 * sums, rounded to f16 in the cache, are a few millionths apart.
 *
 *   parity --tokens MODEL N_TOKENS       prints the sequence for the peer
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "local-engine/engine.h"

/* Any tokens do; these are spread over the vocabulary and the same everywhere. */
static int32_t parity_token(uint32_t i, uint32_t n_vocab)
{
    return (int32_t)((i * 2654435761u + 12345u) % n_vocab);
}

static uint32_t argmax(const float *x, uint32_t n)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

static float lead_of_best(const float *x, uint32_t n, uint32_t best)
{
    float second = -INFINITY;

    for (uint32_t i = 0; i < n; i++)
        if (i != best && x[i] > second)
            second = x[i];
    return x[best] - second;
}

static double log_sum_exp(const float *x, uint32_t n)
{
    const double top = (double)x[argmax(x, n)];
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)x[i] - top);
    return top + log(sum);
}

static double divergence(const float *p, const float *q, uint32_t n)
{
    const double zp = log_sum_exp(p, n), zq = log_sum_exp(q, n);
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)p[i] - zp) * (((double)p[i] - zp) - ((double)q[i] - zq));
    return sum;
}

typedef struct totals {
    double kl_ours, kl_peer, square, largest;
    uint32_t n_rows, n_same, n_ours, n_peer;
} totals;

typedef struct position { float lead, rms; bool is_same; } position;

static bool read_row(FILE *file, float *row, uint32_t n, uint32_t i, sluice_error *err)
{
    if (fread(row, sizeof *row, n, file) == n)
        return true;
    (void)sluice_error_set(err, SLUICE_ERR_FORMAT, "parity: the peer wrote only %u rows", i);
    return false;
}

/* rows: room for two of n_vocab. */
static bool compare(sluice_engine *e, FILE *reference, FILE *peer, uint32_t n_tokens, float *rows, position *positions, totals *t, sluice_error *err)
{
    const uint32_t n_vocab = sluice_engine_get_info(e)->n_vocab;
    float *const ref = rows, *const other = rows + n_vocab;

    for (uint32_t i = 0; i < n_tokens; i++) {
        const int32_t token = parity_token(i, n_vocab);
        const float *ours;
        uint32_t best_ref, best_ours, best_other;
        double square = 0;

        if (sluice_engine_eval(e, &token, 1, &ours, err) != SLUICE_OK || !read_row(reference, ref, n_vocab, i, err) ||
            !read_row(peer, other, n_vocab, i, err))
            return false;
        t->kl_ours += divergence(ref, ours, n_vocab);
        t->kl_peer += divergence(ref, other, n_vocab);
        best_ref = argmax(ref, n_vocab);
        best_ours = argmax(ours, n_vocab);
        best_other = argmax(other, n_vocab);
        for (uint32_t j = 0; j < n_vocab; j++) {
            const double d = fabs((double)other[j] - (double)ours[j]);

            t->largest = fmax(t->largest, d);
            square += d * d / n_vocab;
        }
        t->square += square;
        t->n_same += best_ours == best_other;
        t->n_ours += best_ours == best_ref;
        t->n_peer += best_other == best_ref;
        t->n_rows++;
        positions[i] = (position){ lead_of_best(other, n_vocab, best_other), (float)sqrt(square), best_ours == best_other };
    }
    return true;
}

int main(int argc, char **argv)
{
    sluice_engine_options options;
    sluice_error err = SLUICE_ERROR_INIT;
    const bool only_tokens = argc == 4 && strcmp(argv[1], "--tokens") == 0;
    const char *path = argc > 2 ? argv[only_tokens ? 2 : 1] : NULL;
    sluice_engine *e = NULL;
    totals t;
    uint32_t n_tokens, n_clear = 0, n_clear_same = 0;
    FILE *reference = NULL, *peer = NULL;
    float *rows = NULL;
    position *positions = NULL;
    double max_ratio, min_agree, slack, rms, same_clear;
    bool is_good = false;

    memset(&t, 0, sizeof t);
    memset(&options, 0, sizeof options);
    options.n_threads = 1;
    options.cpu = 0xffffffffu;
    if (!only_tokens && argc != 5 && argc != 8 && argc != 9) {
        fprintf(stderr, "usage: parity MODEL N_TOKENS REFERENCE.f32 PEER.f32 [MAX_KL_RATIO MIN_AGREE SLACK [CPU]]\n       parity --tokens MODEL N_TOKENS\n");
        return 2;
    }
    n_tokens = (uint32_t)strtoul(argv[only_tokens ? 3 : 2], NULL, 10);
    options.context_tokens = n_tokens;
    max_ratio = argc > 6 ? strtod(argv[5], NULL) : 1e9;
    min_agree = argc > 6 ? strtod(argv[6], NULL) : 0;
    slack = argc > 7 ? strtod(argv[7], NULL) : 0;
    if (argc == 9)
        options.cpu = (uint32_t)strtoul(argv[8], NULL, 0);
    if (n_tokens == 0 || sluice_engine_open(&e, path, &options, sluice_platform_default(), NULL, &err) != SLUICE_OK)
        goto out;
    if (only_tokens) {
        for (uint32_t i = 0; i < n_tokens; i++)
            printf("%d ", parity_token(i, sluice_engine_get_info(e)->n_vocab));
        printf("\n");
        is_good = true;
        goto out;
    }
    reference = fopen(argv[3], "rb");
    peer = fopen(argv[4], "rb");
    rows = malloc(2 * sizeof *rows * sluice_engine_get_info(e)->n_vocab);
    positions = malloc(n_tokens * sizeof *positions);
    if (reference == NULL || peer == NULL || rows == NULL || positions == NULL) {
        (void)sluice_error_set(&err, SLUICE_ERR_IO, "parity: cannot read %s and %s", argv[3], argv[4]);
        goto out;
    }
    if (!compare(e, reference, peer, n_tokens, rows, positions, &t, &err))
        goto out;
    for (uint32_t i = 0; i < n_tokens; i++)
        if (positions[i].lead > 4 * positions[i].rms) {
            n_clear++;
            n_clear_same += positions[i].is_same;
        }
    rms = sqrt(t.square / t.n_rows);
    same_clear = n_clear > 0 ? (double)n_clear_same / n_clear : 1;
    is_good = t.kl_ours <= max_ratio * t.kl_peer + slack * t.n_rows && same_clear >= min_agree && isfinite(t.kl_ours);
    printf("{\"model\":\"%s\",\"kernels\":\"%s\",\"rows\":%u,\"kl_ours\":%.4g,\"kl_peer\":%.4g,\"same_top\":%.4f,\"same_top_clear\":%.4f,\"clear\":%u,"
           "\"top_ours\":%.4f,\"top_peer\":%.4f,\"rms\":%.3g,\"largest\":%.3g,\"pass\":%s}\n",
           path, sluice_engine_get_info(e)->kernels, t.n_rows, t.kl_ours / t.n_rows, t.kl_peer / t.n_rows, (double)t.n_same / t.n_rows, same_clear,
           n_clear, (double)t.n_ours / t.n_rows, (double)t.n_peer / t.n_rows, rms, t.largest, is_good ? "true" : "false");
out:
    if (!is_good && err.status != SLUICE_OK)
        fprintf(stderr, "%s: %s\n", sluice_status_name(err.status), err.message);
    if (reference != NULL)
        fclose(reference);
    if (peer != NULL)
        fclose(peer);
    free(rows);
    free(positions);
    sluice_engine_close(e);
    return is_good ? 0 : 1;
}
