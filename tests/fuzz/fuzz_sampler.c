/* fuzz_sampler.c - any settings and logits: refused, or a token that is not banned, is allowed, and is the same the second time.
 *
 * The first bytes are the settings, as they lie in memory: any float.  Then come logits, two bytes each, as halves without infinities.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "local-engine/sampler.h"
#include "tests/unit/engine/gguf_samples.h"

enum { SIZE_MAX_IN = 8192, FILE_MAX = 1 << 20, STEPS = 4 };

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "fuzz_sampler: %s\n", what);
        abort();
    }
}

static sluice_tokenizer *tokenizer;
static sluice_constraint *constraint;

static void prepare(void)
{
    static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":[\"integer\",\"null\"]},\"b\":{\"type\":\"string\"}},\"required\":[\"a\"]}";
    static sluice_buf file;
    static sluice_gguf *gguf;

    if (constraint != NULL)
        return;
    sluice_buf_init(&file, NULL, FILE_MAX);
    sample_bpe(&file, &(sample_bpe_options){ .pre = "gpt-2" });
    must(sluice_gguf_open_span(&gguf, sluice_buf_span(&file), NULL, NULL) == SLUICE_OK &&
             sluice_tokenizer_open(&tokenizer, gguf, NULL, NULL) == SLUICE_OK &&
             sluice_constraint_open(&constraint, tokenizer, sluice_span_str(schema), NULL, NULL) == SLUICE_OK,
         "no constraint");
}

typedef struct settings {
    float temperature, top_p, min_p, repetition, frequency, presence, bias[3];
    uint32_t top_k, window;
    uint8_t tokens[3], n_alternatives, with_constraint, seed, n_bias, budget;
} settings;

static void run(const settings *in, const float *logits, uint32_t n_vocab, void *scratch, int32_t *taken)
{
    const sluice_logit_bias biases[3] = { { in->tokens[0], in->bias[0] }, { in->tokens[1], in->bias[1] }, { in->tokens[2], in->bias[2] } };
    const sluice_engine_sampling sampling = { .temperature = in->temperature,
                                              .top_k = in->top_k,
                                              .top_p = in->top_p,
                                              .min_p = in->min_p,
                                              .repetition_penalty = in->repetition,
                                              .frequency_penalty = in->frequency,
                                              .presence_penalty = in->presence,
                                              .penalty_window = in->window,
                                              .n_alternatives = in->n_alternatives,
                                              .seed = in->seed,
                                              .logit_bias = biases,
                                              .n_logit_bias = in->n_bias % 4u };
    sluice_constraint *c = in->with_constraint & 1 ? constraint : NULL;
    sluice_kernels kernels;
    sluice_sampler s;

    sluice_kernels_init(&kernels, 0);
    for (int i = 0; i < STEPS; i++)
        taken[i] = -2;
    if (sluice_sampler_init(&s, &kernels, &sampling, n_vocab, scratch, NULL) != SLUICE_OK)
        return;
    sluice_constraint_reset(constraint);
    if (c != NULL && in->budget != 0)
        (void)sluice_constraint_set_budget(c, in->budget, NULL);
    for (int i = 0; i < STEPS; i++) {
        sluice_sample got;

        sluice_sampler_pick(&s, logits, c, &got);
        must(got.id >= -1 && got.id < (int32_t)n_vocab, "an id out of range");
        must(got.n_alternatives <= SLUICE_MAX_ALTERNATIVES && got.logprob <= 0 && got.entropy >= 0 && got.margin >= 0 && got.margin <= 1,
             "confidence out of range");
        taken[i] = got.id;
        if (got.id < 0)
            break;
        for (uint32_t k = 0; k < sampling.n_logit_bias; k++)
            must(!isinf(biases[k].bias) || biases[k].token != got.id, "a banned token");
        if (c != NULL) {
            must(sluice_constraint_accept(c, got.id, NULL) == SLUICE_OK, "a token that is not allowed");
            if (sluice_tokenizer_is_end(tokenizer, got.id))
                break;
        }
        sluice_sampler_accept(&s, got.id);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static float logits[1024];
    int32_t first[STEPS], second[STEPS];
    settings in;
    uint32_t n_vocab;
    void *scratch;

    prepare();
    if (size < sizeof in || size > SIZE_MAX_IN)
        return 0;
    memcpy(&in, data, sizeof in);
    data += sizeof in;
    size -= sizeof in;
    n_vocab = sluice_tokenizer_n_vocab(tokenizer);
    must(n_vocab <= sizeof logits / sizeof logits[0], "a larger vocabulary");
    for (uint32_t i = 0; i < n_vocab; i++) {
        const uint32_t at = size >= 2 ? 2 * i % (uint32_t)(size - 1) : 0;

        logits[i] = size >= 2 ? (float)(int16_t)(data[at] | data[at + 1] << 8) / 256 : 0;
    }
    scratch = malloc(sluice_sampler_bytes(n_vocab));
    must(scratch != NULL, "no memory");
    run(&in, logits, n_vocab, scratch, first);
    run(&in, logits, n_vocab, scratch, second);
    must(memcmp(first, second, sizeof first) == 0, "another token the second time");
    free(scratch);
    return 0;
}
