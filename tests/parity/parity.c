/* parity.c - one model's logits against those a peer engine wrote.
 *
 *   parity MODEL PEER.f32 MAX_KL MIN_AGREE N_TOKENS [CPU]
 *
 * Feeds the model the token sequence of parity_token() and compares each row of logits with the row of raw f32 that the peer wrote for
 * the same position.  Prints one line of JSON; fails when the mean KL divergence (nats, peer to us) is above MAX_KL, or
 * when the share of positions with the same likeliest token is below MIN_AGREE, or when the KL of the worst position exceeds ten times MAX_KL.
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
    double kl, worst_kl, square, largest;
    uint32_t n_rows, n_agree;
} totals;

static bool compare(sluice_engine *e, FILE *peer, uint32_t n_tokens, float *row, totals *t, sluice_error *err)
{
    const uint32_t n_vocab = sluice_engine_get_info(e)->n_vocab;

    for (uint32_t i = 0; i < n_tokens; i++) {
        const int32_t token = parity_token(i, n_vocab);
        const float *logits;
        double kl;

        if (sluice_engine_eval(e, &token, 1, &logits, err) != SLUICE_OK)
            return false;
        if (fread(row, sizeof *row, n_vocab, peer) != n_vocab) {
            (void)sluice_error_set(err, SLUICE_ERR_FORMAT, "parity: the peer wrote only %u rows", i);
            return false;
        }
        kl = divergence(row, logits, n_vocab);
        t->kl += kl;
        t->worst_kl = fmax(t->worst_kl, kl);
        t->n_agree += argmax(row, n_vocab) == argmax(logits, n_vocab);
        t->n_rows++;
        for (uint32_t j = 0; j < n_vocab; j++) {
            const double d = fabs((double)row[j] - (double)logits[j]);

            t->largest = fmax(t->largest, d);
            t->square += d * d / n_vocab;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    sluice_engine_options options = { 1, 0, 0xffffffffu };
    sluice_error err = SLUICE_ERROR_INIT;
    const bool only_tokens = argc == 4 && strcmp(argv[1], "--tokens") == 0;
    const char *path = argc > 2 ? argv[only_tokens ? 2 : 1] : NULL;
    sluice_engine *e = NULL;
    totals t = { 0, 0, 0, 0, 0, 0 };
    uint32_t n_tokens;
    FILE *peer = NULL;
    float *row = NULL;
    double max_kl, min_agree;
    bool is_good = false;

    if (!only_tokens && argc != 6 && argc != 7) {
        fprintf(stderr, "usage: parity MODEL PEER.f32 MAX_KL MIN_AGREE N_TOKENS [CPU]\n       parity --tokens MODEL N_TOKENS\n");
        return 2;
    }
    n_tokens = (uint32_t)strtoul(argv[only_tokens ? 3 : 5], NULL, 10);
    if (argc == 7)
        options.cpu = (uint32_t)strtoul(argv[6], NULL, 0);
    if (sluice_engine_open(&e, path, &options, sluice_platform_default(), NULL, &err) != SLUICE_OK)
        goto out;
    if (only_tokens) {
        for (uint32_t i = 0; i < n_tokens; i++)
            printf("%d ", parity_token(i, sluice_engine_get_info(e)->n_vocab));
        printf("\n");
        is_good = true;
        goto out;
    }
    max_kl = strtod(argv[3], NULL);
    min_agree = strtod(argv[4], NULL);
    peer = fopen(argv[2], "rb");
    row = malloc(sizeof *row * sluice_engine_get_info(e)->n_vocab);
    if (peer == NULL || row == NULL) {
        (void)sluice_error_set(&err, SLUICE_ERR_IO, "parity: cannot read %s", argv[2]);
        goto out;
    }
    if (!compare(e, peer, n_tokens, row, &t, &err))
        goto out;
    is_good = t.kl / t.n_rows <= max_kl && t.worst_kl <= 10 * max_kl && t.n_agree >= min_agree * t.n_rows;
    printf("{\"model\":\"%s\",\"kernels\":\"%s\",\"rows\":%u,\"largest_difference\":%.3g,\"rms\":%.3g,\"kl_mean\":%.3g,\"kl_worst\":%.3g,"
           "\"same_top\":%u,\"pass\":%s}\n",
           path, sluice_engine_get_info(e)->kernels, t.n_rows, t.largest, sqrt(t.square / t.n_rows), t.kl / t.n_rows, t.worst_kl, t.n_agree,
           is_good ? "true" : "false");
out:
    if (!is_good && err.status != SLUICE_OK)
        fprintf(stderr, "%s: %s\n", sluice_status_name(err.status), err.message);
    if (peer != NULL)
        fclose(peer);
    free(row);
    sluice_engine_close(e);
    return is_good ? 0 : 1;
}
