/* test_mix.c - which tensor gets which type: what the common names of files stand for.
 *
 * The expectations were read off files that llama.cpp's quantizer (0.7.0) made from models of these shapes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "local-engine/tools/mix.h"

#define T(type) SLUICE_TENSOR_##type

static sluice_mix_model model_of(uint32_t n_layer, uint32_t n_head, uint32_t n_head_kv, uint32_t n_expert, bool has_output, bool has_importance)
{
    return (sluice_mix_model){ SLUICE_SPAN_LIT("llama"), n_layer, n_head, n_head_kv, n_expert, has_output, has_importance };
}

static sluice_gguf_tensor tensor_of(const char *name, uint64_t cols, uint64_t experts)
{
    sluice_gguf_tensor t;

    memset(&t, 0, sizeof t);
    t.name = sluice_span_str(name);
    t.n_dims = experts > 1 ? 3 : 2;
    t.ne[0] = cols;
    t.ne[1] = 256;
    t.ne[2] = experts;
    t.ne[3] = 1;
    return t;
}

static void names_stand_for_these_types(void **state)
{
    const sluice_mix_model plain = model_of(32, 8, 4, 0, true, false), grouped = model_of(32, 8, 2, 0, true, false);
    const sluice_mix_model tied = model_of(16, 8, 4, 0, false, false), with_matrix = model_of(32, 8, 2, 0, true, true);
    const sluice_mix_model mixtral = model_of(32, 8, 4, 8, true, false);
    const struct { const char *mix; const sluice_mix_model *m; const char *tensor; uint64_t cols; uint32_t want; bool is_fallback; } cases[] = {
        { "Q4_K_M", &plain, "token_embd.weight", 2048, T(Q4_K), false },
        { "Q4_K_M", &plain, "output.weight", 2048, T(Q6_K), false },
        { "Q4_K_M", &tied, "token_embd.weight", 2048, T(Q6_K), false },
        { "Q4_K_M", &plain, "blk.0.attn_q.weight", 2048, T(Q4_K), false },
        { "Q4_K_M", &plain, "blk.0.attn_v.weight", 2048, T(Q6_K), false },       /* the first eighth */
        { "Q4_K_M", &plain, "blk.4.attn_v.weight", 2048, T(Q4_K), false },
        { "Q4_K_M", &plain, "blk.6.attn_v.weight", 2048, T(Q6_K), false },       /* every third between */
        { "Q4_K_M", &plain, "blk.27.ffn_down.weight", 2048, T(Q6_K), false },
        { "Q4_K_M", &plain, "blk.28.ffn_down.weight", 2048, T(Q6_K), false },    /* the last eighth */
        { "Q4_K_M", &plain, "blk.29.ffn_down.weight", 2048, T(Q6_K), false },
        { "Q4_K_M", &plain, "blk.25.ffn_down.weight", 2048, T(Q4_K), false },
        { "Q4_K_M", &plain, "blk.0.attn_qkv.weight", 2048, T(Q6_K), false },
        { "Q4_K_M", &plain, "blk.4.attn_qkv.weight", 2048, T(Q4_K), false },
        { "Q4_K_M", &plain, "blk.1.attn_output.weight", 2048, T(Q4_K), false },
        { "Q4_K_M", &mixtral, "blk.1.attn_output.weight", 2048, T(Q5_K), false },
        { "Q4_K_M", &mixtral, "blk.9.attn_k.weight", 2048, T(Q8_0), false },
        { "Q4_K_M", &mixtral, "blk.9.attn_v.weight", 2048, T(Q8_0), false },
        { "Q4_K_S", &plain, "blk.3.attn_v.weight", 2048, T(Q5_K), false },
        { "Q4_K_S", &plain, "blk.4.attn_v.weight", 2048, T(Q4_K), false },
        { "Q4_K_S", &plain, "blk.3.ffn_down.weight", 2048, T(Q5_K), false },
        { "Q4_K_S", &plain, "blk.4.ffn_down.weight", 2048, T(Q4_K), false },
        { "Q5_K_M", &plain, "blk.0.ffn_down.weight", 2048, T(Q6_K), false },
        { "Q5_K_M", &plain, "blk.4.ffn_down.weight", 2048, T(Q5_K), false },
        { "Q5_K_S", &plain, "blk.0.attn_v.weight", 2048, T(Q5_K), false },
        { "Q3_K_S", &plain, "blk.0.ffn_down.weight", 2048, T(Q3_K), false },
        { "Q3_K_M", &plain, "blk.1.attn_v.weight", 2048, T(Q5_K), false },
        { "Q3_K_M", &plain, "blk.2.attn_v.weight", 2048, T(Q4_K), false },
        { "Q3_K_M", &plain, "blk.1.ffn_down.weight", 2048, T(Q5_K), false },
        { "Q3_K_M", &plain, "blk.2.ffn_down.weight", 2048, T(Q4_K), false },
        { "Q3_K_M", &plain, "blk.9.attn_output.weight", 2048, T(Q4_K), false },
        { "Q3_K_L", &plain, "blk.9.attn_output.weight", 2048, T(Q5_K), false },
        { "Q3_K_L", &plain, "blk.9.ffn_up.weight", 2048, T(Q3_K), false },
        { "Q2_K", &plain, "blk.9.attn_v.weight", 2048, T(Q3_K), false },
        { "Q2_K", &grouped, "blk.9.attn_v.weight", 2048, T(Q4_K), false },
        { "Q2_K", &plain, "blk.9.ffn_down.weight", 2048, T(Q3_K), false },
        { "Q2_K", &plain, "blk.9.ffn_gate.weight", 2048, T(Q2_K), false },
        { "IQ4_XS", &plain, "blk.9.attn_v.weight", 2048, T(IQ4_XS), false },
        { "IQ4_XS", &grouped, "blk.9.attn_v.weight", 2048, T(Q5_K), false },
        { "IQ4_XS", &grouped, "blk.3.ffn_down.weight", 2048, T(Q5_K), false },
        { "IQ4_XS", &with_matrix, "blk.3.ffn_down.weight", 2048, T(IQ4_XS), false },
        { "Q4_0", &plain, "blk.3.ffn_down.weight", 2048, T(Q4_0), false },
        { "Q4_0", &with_matrix, "blk.3.ffn_down.weight", 2048, T(Q4_1), false },
        { "Q5_0", &with_matrix, "blk.3.ffn_down.weight", 2048, T(Q5_1), false },
        { "Q4_0", &plain, "output.weight", 2048, T(Q6_K), false },
        { "Q8_0", &plain, "output.weight", 2048, T(Q8_0), false },
        { "F16", &plain, "output.weight", 2048, T(F16), false },
        { "BF16", &tied, "token_embd.weight", 2048, T(BF16), false },
        { "MXFP4_MOE", &plain, "blk.0.ffn_up.weight", 2048, T(Q8_0), false },
        { "MXFP4", &plain, "blk.0.ffn_up.weight", 2048, T(MXFP4), false },
        /* rows that are no whole blocks of 256, or of 32 */
        { "Q4_K_M", &plain, "blk.5.ffn_up.weight", 576, T(Q5_0), true },
        { "Q5_K_M", &plain, "blk.5.ffn_up.weight", 576, T(Q5_1), true },
        { "Q6_K", &plain, "blk.5.ffn_up.weight", 576, T(Q8_0), true },
        { "Q4_K_M", &plain, "blk.0.attn_v.weight", 576, T(Q8_0), true },
        { "Q4_K_M", &tied, "token_embd.weight", 576, T(Q8_0), false },
        { "Q2_K", &plain, "blk.5.ffn_up.weight", 576, T(Q4_0), true },
        { "Q3_K_S", &plain, "blk.5.ffn_up.weight", 576, T(Q4_0), true },
        { "IQ4_XS", &plain, "blk.5.ffn_up.weight", 576, T(IQ4_NL), true },
        { "Q4_0", &plain, "output.weight", 576, T(Q8_0), true },
        { "Q4_K_M", &plain, "blk.5.ffn_up.weight", 208, T(F16), true },
        { "Q8_0", &plain, "blk.5.ffn_up.weight", 208, T(F16), true },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const sluice_mix_kind *kind = sluice_mix_find(cases[i].mix);
        const sluice_gguf_tensor t = tensor_of(cases[i].tensor, cases[i].cols, 1);
        bool is_fallback = !cases[i].is_fallback;
        uint32_t got;

        assert_non_null(kind);
        assert_true(sluice_mix_applies(&t));
        got = sluice_mix_type(kind, cases[i].m, &t, &is_fallback);
        if (got != cases[i].want || is_fallback != cases[i].is_fallback)
            fail_msg("%s, %s of %llu: %s, not %s", cases[i].mix, cases[i].tensor, (unsigned long long)cases[i].cols, sluice_tensor_type_name(got),
                     sluice_tensor_type_name(cases[i].want));
    }
}

static void experts_take_the_four_bits_of_mxfp4_moe(void **state)
{
    const sluice_mix_model m = model_of(32, 8, 4, 8, true, false);
    const sluice_gguf_tensor t = tensor_of("blk.0.ffn_up_exps.weight", 2048, 8);
    bool is_fallback = true;

    (void)state;
    assert_int_equal(sluice_mix_type(sluice_mix_find("MXFP4_MOE"), &m, &t, &is_fallback), SLUICE_TENSOR_MXFP4);
    assert_false(is_fallback);
}

static void vectors_norms_and_routers_stay(void **state)
{
    static const char *const stay[] = { "blk.0.attn_norm.weight", "blk.0.ffn_gate_inp.weight", "position_embd.weight", "token_types.weight",
                                        "blk.0.attn_q.bias", "blk.0.attn_q_norm.weight", "rope_factors_long" };
    sluice_gguf_tensor t;

    (void)state;
    for (size_t i = 0; i < sizeof stay / sizeof stay[0]; i++) {
        t = tensor_of(stay[i], 256, 1);
        if (sluice_mix_applies(&t))
            fail_msg("%s", stay[i]);
    }
    t = tensor_of("blk.0.attn_q.weight", 256, 1);
    t.n_dims = 1;
    assert_false(sluice_mix_applies(&t));
}

static void names_are_found_in_any_case(void **state)
{
    char name[32];
    const char *all = sluice_mix_names();
    size_t n = 0;

    (void)state;
    assert_string_equal(sluice_mix_name(sluice_mix_find("q4_k_m")), "Q4_K_M");
    assert_string_equal(sluice_mix_name(sluice_mix_find("Q4_K")), "Q4_K_M");
    assert_int_equal(sluice_mix_file_type(sluice_mix_find("iq4_xs")), 30);
    assert_int_equal(sluice_mix_base(sluice_mix_find("Q5_K_S")), SLUICE_TENSOR_Q5_K);
    assert_null(sluice_mix_find("Q4_K_"));
    assert_null(sluice_mix_find("Q4_K_MM"));
    assert_null(sluice_mix_find(""));
    for (const char *at = all; *at != '\0';) { /* what the help says is what there is */
        const size_t len = strcspn(at, ",");

        assert_true(len < sizeof name);
        memcpy(name, at, len);
        name[len] = '\0';
        if (sluice_mix_find(name) == NULL || strcmp(sluice_mix_name(sluice_mix_find(name)), name) != 0)
            fail_msg("%s", name);
        n++;
        at += len + (at[len] == ',' ? 2 : 0);
    }
    assert_int_equal(n, 21);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_stand_for_these_types),
        cmocka_unit_test(experts_take_the_four_bits_of_mxfp4_moe),
        cmocka_unit_test(vectors_norms_and_routers_stay),
        cmocka_unit_test(names_are_found_in_any_case),
    };

    return cmocka_run_group_tests_name("mix", tests, NULL, NULL);
}
