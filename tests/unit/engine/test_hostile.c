/* test_hostile.c - model files that mean harm end in the status that the table of hostile_corpus.c states, and never in a crash, a hang or a leak.
 *
 * Every file is described, opened and, where it opens, used: a text is encoded, tokens are evaluated, generated and embedded.  The bytes
 * lie in memory of exactly their length, so that a sanitizer sees a read past the end.  Besides the corpus, all prefixes of a valid file are tried, all
 * other values of each of its bytes, and weights with scales that are no numbers.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _POSIX_C_SOURCE 200809L /* posix_memalign: unlike aligned_alloc it takes a size that is no multiple of the alignment */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "local-engine/engine.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"
#include "tests/unit/engine/hostile_corpus.h"

enum { FILE_BYTES_MAX = 32 << 20, TEXT_TOKENS_MAX = 64 };

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(undefined_behavior_sanitizer)
#define IS_SLOW 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__x86_64__) /* others run in an emulator */
#define IS_SLOW 1
#endif
#ifndef IS_SLOW
#define IS_SLOW 0
#endif

/* ---- a platform whose only file lies in memory */

static sluice_span served; /* tests run one after the other */

static sluice_status map_served(void *user, sluice_mapping *out, const char *path, sluice_error *err)
{
    (void)user;
    (void)path;
    (void)err;
    *out = SLUICE_MAPPING_EMPTY;
    out->ptr = served.ptr;
    out->len = served.len;
    return SLUICE_OK;
}

static void unmap_served(void *user, sluice_mapping *m)
{
    (void)user;
    *m = SLUICE_MAPPING_EMPTY;
}

static sluice_platform memory_platform(void)
{
    sluice_platform p = *sluice_platform_default();

    p.map = map_served;
    p.unmap = unmap_served;
    return p;
}

/* A copy in memory of exactly this length, aligned as a mapping is. */
static uint8_t *exact_copy(sluice_span bytes)
{
    void *copy = NULL;

    assert_int_equal(posix_memalign(&copy, 64, bytes.len > 0 ? bytes.len : 1), 0);
    if (bytes.len > 0)
        memcpy(copy, bytes.ptr, bytes.len);
    return copy;
}

/* ---- using a file */

/* What the engine said on the way to and in using a file. */
typedef struct outcome {
    sluice_status inspect, open;
    sluice_status use;          /* of evaluating and generating; SLUICE_OK when it did not come so far */
    bool is_finite;             /* all logits that came out are */
    char message[sizeof(((sluice_error *)NULL)->message)];
} outcome;

static void check_logits(outcome *o, const float *logits, size_t n)
{
    for (size_t i = 0; i < n; i++)
        o->is_finite = o->is_finite && isfinite(logits[i]);
}

static void use_engine(outcome *o, sluice_engine *e)
{
    static const sluice_engine_message message = { "user", { (const uint8_t *)"ab cd", 5 } };
    const sluice_engine_info *info = sluice_engine_get_info(e);
    const sluice_engine_sampling greedy = { .top_p = 1 };
    sluice_error err = SLUICE_ERROR_INIT;
    int32_t tokens[TEXT_TOKENS_MAX];
    sluice_engine_result result;
    const float *logits = NULL;
    size_t n = TEXT_TOKENS_MAX;

    (void)sluice_engine_render(e, &message, 1, tokens, &n, &err);
    n = TEXT_TOKENS_MAX;
    (void)sluice_engine_tokenize(e, sluice_span_str("ab \xff\xe2\x96"), false, tokens, &n, &err);
    n = TEXT_TOKENS_MAX;
    if (sluice_engine_tokenize(e, sluice_span_str("ab a cd"), true, tokens, &n, &err) != SLUICE_OK || n == 0) {
        tokens[0] = (int32_t)info->n_vocab - 1;
        tokens[1] = 0;
        n = 2;
    }
    n = n < info->context_tokens ? n : info->context_tokens;
    o->use = sluice_engine_eval(e, tokens, n, &logits, &err);
    if (o->use == SLUICE_OK)
        check_logits(o, logits, info->n_vocab);
    sluice_engine_reset(e);
    if (o->use == SLUICE_OK && n < info->context_tokens)
        o->use = sluice_engine_generate(e, tokens, n, 4, &greedy, NULL, NULL, &result, &err);
    if (o->use == SLUICE_OK) {
        float *vector = calloc(info->n_embd, sizeof *vector);

        assert_non_null(vector);
        (void)sluice_engine_embed_tokens(e, tokens, n, true, vector, info->n_embd, &err);
        free(vector);
    }
    (void)snprintf(o->message, sizeof o->message, "%s", err.message);
}

static outcome try_file(sluice_span bytes, uint32_t cpu, bool inspects)
{
    const sluice_platform platform = memory_platform();
    outcome o = { SLUICE_OK, SLUICE_OK, SLUICE_OK, true, "" };
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_engine_options options;
    uint8_t *copy = exact_copy(bytes);
    sluice_engine *e = NULL;
    fake_allocator fa;

    served = sluice_span_of(copy, bytes.len);
    fake_allocator_init(&fa);
    if (inspects) {
        sluice_buf json;

        sluice_buf_init(&json, &fa.al, 1 << 20);
        o.inspect = sluice_engine_inspect("memory", &platform, &fa.al, &json, &err);
        sluice_buf_deinit(&json);
    }
    sluice_engine_options_init(&options);
    options.n_threads = 1;
    options.context_tokens = 16;
    options.cpu = cpu;
    o.open = sluice_engine_open(&e, "memory", &options, &platform, &fa.al, &err);
    if (o.open == SLUICE_ERR_LIMIT && strstr(err.message, "context") != NULL) { /* 16 tokens are more than it was trained for */
        options.context_tokens = 0;
        o.open = sluice_engine_open(&e, "memory", &options, &platform, &fa.al, &err);
    }
    if (o.open == SLUICE_OK) {
        use_engine(&o, e);
    } else {
        assert_null(e);
        assert_int_equal(err.status, o.open);
        assert_int_not_equal(err.message[0], '\0');
        (void)snprintf(o.message, sizeof o.message, "%s", err.message);
    }
    sluice_engine_close(e);
    assert_true(fake_allocator_is_clean(&fa));
    served = sluice_span_of(NULL, 0);
    free(copy);
    return o;
}

/* ---- the corpus */

static void every_case_ends_as_the_table_says(void **state)
{
    size_t n_wrong = 0;

    (void)state;
    for (size_t i = 0; i < hostile_n_cases(); i++) {
        const hostile_case *c = hostile_case_at(i);
        sluice_buf b;
        outcome o;

        sluice_buf_init(&b, NULL, FILE_BYTES_MAX);
        hostile_write(i, &b);
        o = try_file(sluice_buf_span(&b), 0xffffffffu, true);
        if (o.open != c->open || o.inspect != c->inspect || o.use != SLUICE_OK || !o.is_finite) {
            printf("%u %s: open %d, stated %d; inspect %d, stated %d; use %d%s: %s\n", c->group, c->name, o.open, c->open, o.inspect, c->inspect, o.use,
                   o.is_finite ? "" : ", not finite", o.message);
            n_wrong++;
        }
        sluice_buf_deinit(&b);
    }
    assert_int_equal(n_wrong, 0);
}

static void every_group_has_its_cases(void **state)
{
    size_t n[HOSTILE_GROUPS + 1] = { 0 };

    (void)state;
    for (size_t i = 0; i < hostile_n_cases(); i++) {
        assert_in_range(hostile_case_at(i)->group, 1, HOSTILE_GROUPS);
        n[hostile_case_at(i)->group]++;
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(hostile_case_at(i)->name, hostile_case_at(j)->name);
    }
    for (size_t g = 1; g <= HOSTILE_GROUPS; g++)
        assert_int_not_equal(n[g], 0);
}

/* A refusal names its place: an offset into the file, or the key or tensor in words. */
static void messages_of_refusals_are_not_alike(void **state)
{
    static char seen[512][sizeof(((sluice_error *)NULL)->message)];
    size_t n = 0, n_distinct = 0;

    (void)state;
    for (size_t i = 0; i < hostile_n_cases() && n < 512; i++) {
        bool is_new = true;
        sluice_buf b;
        outcome o;

        if (hostile_case_at(i)->open == SLUICE_OK)
            continue;
        sluice_buf_init(&b, NULL, FILE_BYTES_MAX);
        hostile_write(i, &b);
        o = try_file(sluice_buf_span(&b), 0, false);
        for (size_t j = 0; j < n; j++)
            is_new = is_new && strcmp(seen[j], o.message) != 0;
        (void)snprintf(seen[n++], sizeof seen[0], "%s", o.message);
        n_distinct += is_new;
        sluice_buf_deinit(&b);
    }
    assert_true(n_distinct * 4 > n * 3);
}

/* ---- a valid file, bent */

static sluice_buf valid_file(sluice_tensor_type type)
{
    sluice_buf b;
    outcome o;

    sluice_buf_init(&b, NULL, FILE_BYTES_MAX);
    hostile_write_valid(type, &b);
    o = try_file(sluice_buf_span(&b), 0xffffffffu, true);
    if (o.open != SLUICE_OK || o.use != SLUICE_OK || !o.is_finite)
        fail_msg("a valid file of %s: open %d, use %d: %s", sluice_tensor_type_name((uint32_t)type), o.open, o.use, o.message);
    return b;
}

static void every_prefix_ends_in_a_status(void **state)
{
    sluice_buf b = valid_file(SLUICE_TENSOR_Q4_0);

    (void)state;
    assert_true(b.len < 8192);
    for (size_t n = 0; n < b.len; n++) {
        const outcome o = try_file(sluice_span_of(b.ptr, n), 0, true);

        assert_int_equal(o.open, SLUICE_ERR_FORMAT);
        assert_int_equal(o.inspect, SLUICE_ERR_FORMAT);
    }
    sluice_buf_deinit(&b);
}

/* Metadata and tensor table; what comes after is numbers, of which none is looked at before the model runs. */
static size_t table_bytes(sluice_span file)
{
    sluice_gguf *g;
    size_t n;

    assert_int_equal(sluice_gguf_open_span(&g, file, NULL, NULL), SLUICE_OK);
    n = (size_t)sluice_gguf_data_offset(g);
    sluice_gguf_close(g);
    return n;
}

static void every_other_value_of_every_byte_is_parsed(void **state)
{
    sluice_buf b = valid_file(SLUICE_TENSOR_Q4_0);
    const size_t n = table_bytes(sluice_buf_span(&b));
    uint8_t *copy = exact_copy(sluice_buf_span(&b));
    size_t n_refused = 0;

    (void)state;
    for (size_t i = 0; i < n; i++) {
        for (unsigned x = 1; x < 256; x = IS_SLOW ? x * 2 : x + 1) {
            sluice_gguf *g = NULL;
            sluice_error err = SLUICE_ERROR_INIT;

            copy[i] = (uint8_t)(b.ptr[i] ^ x);
            if (sluice_gguf_open_span(&g, sluice_span_of(copy, b.len), NULL, &err) != SLUICE_OK) {
                assert_null(g);
                assert_int_not_equal(err.message[0], '\0');
                n_refused++;
            }
            sluice_gguf_close(g);
        }
        copy[i] = b.ptr[i];
    }
    assert_true(n_refused > n);
    free(copy);
    sluice_buf_deinit(&b);
}

static void every_flipped_bit_opens_or_ends_in_a_status(void **state)
{
    sluice_buf b = valid_file(SLUICE_TENSOR_Q4_0);
    const size_t n = table_bytes(sluice_buf_span(&b));
    size_t n_opened = 0, n_refused = 0;

    (void)state;
    for (size_t i = 0; i < b.len; i += i < n ? 1 : 7)
        for (unsigned bit = IS_SLOW ? i % 8 : 0; bit < 8; bit += IS_SLOW ? 8 : 1) {
            outcome o;

            b.ptr[i] ^= (uint8_t)(1u << bit);
            o = try_file(sluice_buf_span(&b), 0, i % 5 == 0);
            b.ptr[i] ^= (uint8_t)(1u << bit);
            if (o.open != SLUICE_OK) {
                n_refused++;
                continue;
            }
            n_opened++;
            if (!(o.use == SLUICE_ERR_INTEGRITY || (o.use == SLUICE_OK && o.is_finite)))
                fail_msg("bit %u of byte %zu: use %d%s: %s", bit, i, o.use, o.is_finite ? "" : ", not finite", o.message);
        }
    assert_true(n_opened > 0 && n_refused > n_opened / 8);
    sluice_buf_deinit(&b);
}

/* ---- damaged weights */

typedef enum damage { ALL_ZERO, ALL_ONES, SUBNORMAL, LARGEST, INFINITE, NOT_A_NUMBER, NOISE, N_DAMAGES } damage;

/* Two bytes that make an f16, bf16 or the upper half of an f32 what the damage is called, for as many kinds of numbers as can be. */
static const uint8_t patterns[N_DAMAGES][2] = {
    [ALL_ZERO] = { 0, 0 }, [ALL_ONES] = { 0xff, 0xff }, [SUBNORMAL] = { 1, 0 }, [LARGEST] = { 0xff, 0x7b }, [INFINITE] = { 0, 0x7c },
    [NOT_A_NUMBER] = { 0x01, 0x7e },
};

static void damage_bytes(uint8_t *p, size_t n, damage d, uint64_t *seed)
{
    for (size_t i = 0; i < n; i++) {
        *seed = *seed * 6364136223846793005u + 1442695040888963407u;
        p[i] = d == NOISE ? (uint8_t)(*seed >> 40) : patterns[d][i % 2];
    }
}

static void check_damaged(sluice_span file, const char *what, uint32_t cpu)
{
    const outcome o = try_file(file, cpu, false);

    if (o.open == SLUICE_OK && (o.use == SLUICE_ERR_INTEGRITY || (o.use == SLUICE_OK && o.is_finite)))
        return;
    fail_msg("%s: open %d, use %d%s: %s", what, o.open, o.use, o.is_finite ? "" : ", not finite", o.message);
}

static void damaged_weights_give_finite_numbers_or_a_status(void **state)
{
    static const sluice_tensor_type all[] = {
        SLUICE_TENSOR_F32, SLUICE_TENSOR_F16, SLUICE_TENSOR_BF16, SLUICE_TENSOR_Q4_0, SLUICE_TENSOR_Q4_1, SLUICE_TENSOR_Q5_0, SLUICE_TENSOR_Q5_1,
        SLUICE_TENSOR_Q8_0, SLUICE_TENSOR_Q2_K, SLUICE_TENSOR_Q3_K, SLUICE_TENSOR_Q4_K, SLUICE_TENSOR_Q5_K, SLUICE_TENSOR_Q6_K, SLUICE_TENSOR_IQ4_NL,
        SLUICE_TENSOR_IQ4_XS, SLUICE_TENSOR_MXFP4,
    };
    uint64_t seed = 1;

    (void)state;
    for (size_t k = 0; k < sizeof all / sizeof all[0]; k++) {
        sluice_buf b = valid_file(all[k]);
        sluice_gguf *g;

        assert_int_equal(sluice_gguf_open_span(&g, sluice_buf_span(&b), NULL, NULL), SLUICE_OK);
        for (size_t t = 0; t < sluice_gguf_n_tensors(g); t++)
            for (damage d = 0; d < N_DAMAGES; d++) {
                const sluice_gguf_tensor *x = sluice_gguf_tensor_at(g, t);
                uint8_t *data = b.ptr + x->offset, *saved = exact_copy(sluice_span_of(data, x->bytes));
                char what[400];

                (void)snprintf(what, sizeof what, "%.*s of %s, damage %d", (int)x->name.len, (const char *)x->name.ptr,
                               sluice_tensor_type_name(x->type), d);
                damage_bytes(data, x->bytes, d, &seed);
                check_damaged(sluice_buf_span(&b), what, t % 2 == 0 ? 0xffffffffu : 0);
                memcpy(data, saved, x->bytes);
                damage_bytes(data, x->bytes < 6 ? x->bytes : 6, d, &seed); /* one block alone */
                check_damaged(sluice_buf_span(&b), what, t % 2 == 0 ? 0 : 0xffffffffu);
                memcpy(data, saved, x->bytes);
                free(saved);
            }
        sluice_gguf_close(g);
        sluice_buf_deinit(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_group_has_its_cases),
        cmocka_unit_test(every_case_ends_as_the_table_says),
        cmocka_unit_test(messages_of_refusals_are_not_alike),
        cmocka_unit_test(every_prefix_ends_in_a_status),
        cmocka_unit_test(every_other_value_of_every_byte_is_parsed),
        cmocka_unit_test(every_flipped_bit_opens_or_ends_in_a_status),
        cmocka_unit_test(damaged_weights_give_finite_numbers_or_a_status),
    };

    return cmocka_run_group_tests_name("hostile", tests, NULL, NULL);
}
