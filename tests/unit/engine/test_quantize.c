/* test_quantize.c - quantizers: their layouts, their errors, what they refuse.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "local-engine/kernels/kernels.h"
#include "local-engine/tools/quantize.h"

enum { SUPER = 256, ROW = 1024, BLOCK_BYTES_MAX = 256 };

static const struct type_facts {
    uint32_t type;
    sluice_weight weight; /* the same format, as the kernels call it */
    float rms_max;        /* of the error on Gaussian numbers of deviation 1: what the search reaches, and 2 % */
} types[] = {
    { SLUICE_TENSOR_F16, SLUICE_WEIGHT_F16, 2.2e-4f },     { SLUICE_TENSOR_BF16, SLUICE_WEIGHT_BF16, 1.8e-3f },
    { SLUICE_TENSOR_Q8_0, SLUICE_WEIGHT_Q8_0, 5.5e-3f },   { SLUICE_TENSOR_Q4_0, SLUICE_WEIGHT_Q4_0, 8.2e-2f },
    { SLUICE_TENSOR_Q4_1, SLUICE_WEIGHT_Q4_1, 7.1e-2f },   { SLUICE_TENSOR_Q5_0, SLUICE_WEIGHT_Q5_0, 4.1e-2f },
    { SLUICE_TENSOR_Q5_1, SLUICE_WEIGHT_Q5_1, 3.45e-2f },  { SLUICE_TENSOR_Q2_K, SLUICE_WEIGHT_Q2_K, 0.267f },
    { SLUICE_TENSOR_Q3_K, SLUICE_WEIGHT_Q3_K, 0.147f },    { SLUICE_TENSOR_Q4_K, SLUICE_WEIGHT_Q4_K, 7.1e-2f },
    { SLUICE_TENSOR_Q5_K, SLUICE_WEIGHT_Q5_K, 3.5e-2f },   { SLUICE_TENSOR_Q6_K, SLUICE_WEIGHT_Q6_K, 1.75e-2f },
    { SLUICE_TENSOR_IQ4_NL, SLUICE_WEIGHT_IQ4_NL, 7.5e-2f }, { SLUICE_TENSOR_IQ4_XS, SLUICE_WEIGHT_IQ4_XS, 7.6e-2f },
    { SLUICE_TENSOR_MXFP4, SLUICE_WEIGHT_MXFP4, 0.114f },
};

enum { N_TYPES = sizeof types / sizeof types[0] };

/* ---- numbers */

static uint64_t next_u64(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u; /* splitmix64 */
    uint64_t z = *state;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static float uniform(uint64_t *state)
{
    return (float)((double)(next_u64(state) >> 11) / 9007199254740992.0);
}

static float gaussian(uint64_t *state)
{
    const float radius = sqrtf(-2.0f * logf(uniform(state) + 1e-12f));

    return radius * cosf(6.2831853f * uniform(state));
}

static size_t row_bytes(uint32_t type, size_t n)
{
    uint64_t bytes = 0;

    assert_true(sluice_tensor_row_bytes(type, n, &bytes));
    return (size_t)bytes;
}

static void quantize(uint32_t type, const float *x, size_t n, const float *importance, uint8_t *out)
{
    sluice_error err = SLUICE_ERROR_INIT;

    if (sluice_quantize_row(type, x, n, importance, out, &err) != SLUICE_OK)
        fail_msg("%s: %s", sluice_tensor_type_name(type), err.message);
}

static double error_of(const float *x, const float *y, const float *importance, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]) * (importance != NULL ? (double)importance[i] : 1.0);
    return sum;
}

/* ---- layouts */

/* Blocks written by hand from the formats' description. */
static void blocks_mean_what_the_formats_say(void **state)
{
    uint8_t b[BLOCK_BYTES_MAX];
    float y[SUPER];

    (void)state;
    /* d = 0.5 (0x3800), nibbles 1 and 14 */
    memset(b, 0, sizeof b);
    b[1] = 0x38;
    b[2] = 0xe1;
    assert_true(sluice_dequantize_row(SLUICE_TENSOR_Q4_0, b, 32, y));
    assert_true(y[0] == 0.5f * (1 - 8) && y[16] == 0.5f * (14 - 8) && y[1] == -4.0f);
    assert_true(sluice_dequantize_row(SLUICE_TENSOR_IQ4_NL, b, 32, y));
    assert_true(y[0] == 0.5f * -104 && y[16] == 0.5f * 89 && y[1] == 0.5f * -127);

    /* d = 2, m = -1, fifth bits of q[0] and q[31] */
    memset(b, 0, sizeof b);
    b[1] = 0x40;
    b[3] = 0xbc;
    b[4] = 0x01;
    b[7] = 0x80;
    b[8] = 0x03;
    b[23] = 0x20;
    assert_true(sluice_dequantize_row(SLUICE_TENSOR_Q5_1, b, 32, y));
    assert_true(y[0] == 2.0f * (16 + 3) - 1 && y[31] == 2.0f * (16 + 2) - 1 && y[1] == -1.0f);

    /* e = 127: steps of one half; nibble 7 is 6, nibble 9 is -0.5 */
    memset(b, 0, sizeof b);
    b[0] = 127;
    b[1] = 0x97;
    assert_true(sluice_dequantize_row(SLUICE_TENSOR_MXFP4, b, 32, y));
    assert_true(y[0] == 6.0f && y[16] == -0.5f && y[2] == 0.0f);

    /* Q4_K: d = 1, dmin = 1; part 0: s 5, m 7; part 4: s 0x21, m 0x12; its q[0] (element 128) is the low nibble of byte 16 + 64 */
    memset(b, 0, sizeof b);
    b[1] = b[3] = 0x3c;
    b[4] = (uint8_t)(5 | (0x21 >> 4) << 6);
    b[8] = (uint8_t)(7 | (0x12 >> 4) << 6);
    b[12] = 0x21;
    b[16] = 0x0b;
    b[16 + 64] = 0x04;
    assert_true(sluice_dequantize_row(SLUICE_TENSOR_Q4_K, b, SUPER, y));
    assert_true(y[0] == 5.0f * 11 - 7 && y[1] == -7.0f && y[32] == 0.0f && y[128] == 33.0f * 4 - 18 && y[129] == -18.0f);

    /* Q6_K: d = 1, scale of part 9 is -3; element 128 + 16 + 5: low nibble of byte 64 + 21, pair 0 of byte 128 + 32 + 21 */
    memset(b, 0, sizeof b);
    b[209] = 0x3c;
    b[192 + 9] = 0xfd;
    b[64 + 21] = 0x0a;
    b[128 + 32 + 21] = 0x02;
    assert_true(sluice_dequantize_row(SLUICE_TENSOR_Q6_K, b, SUPER, y));
    assert_true(y[149] == -3.0f * (10 + 32 - 32) && y[150] == -3.0f * -32 && y[0] == 0.0f);

    /* Q3_K: d = 1, part 15 has s = 32 + 1 (nibble 1 above byte 7, pair 2 at bits 6 of byte 11); third bit of element 255 and low pair 2 */
    memset(b, 0, sizeof b);
    b[109] = 0x3c;
    b[96 + 7] = 0x10;
    b[96 + 11] = 0x80;
    b[31] = 0x80;
    b[32 + 63] = 0x80;
    assert_true(sluice_dequantize_row(SLUICE_TENSOR_Q3_K, b, SUPER, y));
    assert_true(y[255] == 2.0f && y[254] == -4.0f && y[0] == -32.0f * -4);

    /* Q2_K: part 3 s 2, m 1; element 48 + 1 = row 1 of the first 32: bits 2 and 3 of byte 16 + 17 */
    memset(b, 0, sizeof b);
    b[3] = 0x12;
    b[16 + 17] = 3 << 2;
    b[81] = 0x3c;
    b[83] = 0x40;
    assert_true(sluice_dequantize_row(SLUICE_TENSOR_Q2_K, b, SUPER, y));
    assert_true(y[49] == 2.0f * 3 - 2.0f && y[48] == -2.0f && y[0] == 0.0f);

    /* IQ4_XS: d = 1, part 5: s = 32 + 2 (low nibble above byte 6, pair 2 at bits 10); element 160 is the low nibble of byte 8 + 80 */
    memset(b, 0, sizeof b);
    b[1] = 0x3c;
    b[3] = 2 << 2;
    b[4 + 2] = 0x20;
    b[8 + 80] = 0x08;
    assert_true(sluice_dequantize_row(SLUICE_TENSOR_IQ4_XS, b, SUPER, y));
    assert_true(y[160] == 2.0f * 1 && y[161] == 2.0f * -127 && y[0] == -32.0f * -127);
}

/* Two independent readers of every format: this one and the kernels'. */
static void kernels_read_the_same_numbers(void **state)
{
    uint64_t seed = 1;

    (void)state;
    for (size_t k = 0; k < N_TYPES; k++) {
        for (size_t round = 0; round < 20; round++) {
            uint8_t bytes[ROW * 4];
            float x[ROW], mine[ROW], theirs[ROW];

            for (size_t i = 0; i < ROW; i++)
                x[i] = gaussian(&seed) * (round % 2 == 0 ? 0.02f : 300.0f);
            quantize(types[k].type, x, ROW, NULL, bytes);
            assert_true(sluice_dequantize_row(types[k].type, bytes, ROW, mine));
            sluice_weight_row(types[k].weight, theirs, bytes, ROW);
            for (size_t i = 0; i < ROW; i++)
                if (!(fabsf(mine[i] - theirs[i]) <= 1e-5f * (fabsf(mine[i]) + 1e-3f * fabsf(x[i]))) && fabsf(mine[i] - theirs[i]) > 1e-6f * 300)
                    fail_msg("%s, element %zu: %g and %g", sluice_tensor_type_name(types[k].type), i, (double)mine[i], (double)theirs[i]);
        }
    }
}

/* ---- errors */

static void errors_stay_below_what_the_type_allows(void **state)
{
    uint64_t seed = 2;

    (void)state;
    for (size_t k = 0; k < N_TYPES; k++) {
        double sum = 0;

        for (size_t round = 0; round < 32; round++) {
            uint8_t bytes[ROW * 4];
            float x[ROW], y[ROW];

            for (size_t i = 0; i < ROW; i++)
                x[i] = gaussian(&seed);
            quantize(types[k].type, x, ROW, NULL, bytes);
            assert_true(sluice_dequantize_row(types[k].type, bytes, ROW, y));
            sum += error_of(x, y, NULL, ROW);
        }
        if (sqrt(sum / (32.0 * ROW)) > (double)types[k].rms_max)
            fail_msg("%s: RMS error %g of at most %g", sluice_tensor_type_name(types[k].type), sqrt(sum / (32.0 * ROW)), (double)types[k].rms_max);
    }
}

/* What a file of the type can say comes back as it was, or next to it: quantizing twice changes little. */
static void quantizing_again_changes_little(void **state)
{
    uint64_t seed = 3;

    (void)state;
    for (size_t k = 0; k < N_TYPES; k++) {
        uint8_t bytes[ROW * 4];
        float x[ROW], once[ROW], twice[ROW];

        for (size_t i = 0; i < ROW; i++)
            x[i] = gaussian(&seed);
        quantize(types[k].type, x, ROW, NULL, bytes);
        assert_true(sluice_dequantize_row(types[k].type, bytes, ROW, once));
        quantize(types[k].type, once, ROW, NULL, bytes);
        assert_true(sluice_dequantize_row(types[k].type, bytes, ROW, twice));
        if (error_of(once, twice, NULL, ROW) > 0.2 * error_of(x, once, NULL, ROW))
            fail_msg("%s: %g after %g", sluice_tensor_type_name(types[k].type), error_of(once, twice, NULL, ROW), error_of(x, once, NULL, ROW));
    }
}

static void importance_moves_the_error_to_where_it_matters_less(void **state)
{
    uint64_t seed = 4;

    (void)state;
    for (size_t k = 3; k < N_TYPES; k++) { /* floats and Q8_0 have nothing to choose */
        double with = 0, without = 0;

        for (size_t round = 0; round < 16; round++) {
            uint8_t bytes[ROW * 4], scaled[ROW * 4];
            float x[ROW], y[ROW], importance[ROW], twice[ROW];

            for (size_t i = 0; i < ROW; i++) {
                x[i] = gaussian(&seed);
                importance[i] = expf(2.0f * gaussian(&seed));
                twice[i] = importance[i] * 1048576.0f;
            }
            quantize(types[k].type, x, ROW, NULL, bytes);
            assert_true(sluice_dequantize_row(types[k].type, bytes, ROW, y));
            without += error_of(x, y, importance, ROW);
            quantize(types[k].type, x, ROW, importance, bytes);
            assert_true(sluice_dequantize_row(types[k].type, bytes, ROW, y));
            with += error_of(x, y, importance, ROW);
            quantize(types[k].type, x, ROW, twice, scaled); /* only proportions count */
            assert_memory_equal(bytes, scaled, row_bytes(types[k].type, ROW));
        }
        if (with >= 0.97 * without)
            fail_msg("%s: weighted error %g with importance, %g without", sluice_tensor_type_name(types[k].type), with, without);
    }
}

static void columns_without_importance_count_all_the_same(void **state)
{
    static const float none[ROW] = { 0 };
    uint64_t seed = 5;

    (void)state;
    for (size_t k = 0; k < N_TYPES; k++) {
        uint8_t a[ROW * 4], b[ROW * 4];
        float x[ROW];

        for (size_t i = 0; i < ROW; i++)
            x[i] = gaussian(&seed);
        quantize(types[k].type, x, ROW, NULL, a);
        quantize(types[k].type, x, ROW, none, b);
        (void)none;
        float ya[ROW], yb[ROW];
        assert_true(sluice_dequantize_row(types[k].type, a, ROW, ya));
        assert_true(sluice_dequantize_row(types[k].type, b, ROW, yb));
        assert_true(error_of(x, yb, NULL, ROW) <= 1.001 * error_of(x, ya, NULL, ROW));
    }
}

static float odd_number(size_t kind, size_t i, uint64_t *seed)
{
    switch (kind) {
    case 0: return 0.0f;
    case 1: return -0.0f;
    case 2: return 3.25f;
    case 3: return -3.25f;
    case 4: return i == 77 ? 65504.0f : 0.001f * gaussian(seed);
    case 5: return i % 2 == 0 ? 65504.0f : -65504.0f;
    case 6: return 1e-40f * gaussian(seed);
    case 7: return 1e-7f * gaussian(seed);
    case 8: return 100.0f + 0.001f * gaussian(seed);
    case 9: return i % 32 == 0 ? -1.0f : 0.0f;
    case 10: return uniform(seed) < 0.5f ? 1.0f : -1.0f;
    case 11: return ldexpf(gaussian(seed), (int)(next_u64(seed) % 30) - 20);
    default: return -50.0f - 10.0f * uniform(seed);
    }
}

static void odd_rows_give_finite_numbers_near_them(void **state)
{
    uint64_t seed = 6;

    (void)state;
    for (size_t k = 0; k < N_TYPES; k++) {
        for (size_t kind = 0; kind < 13; kind++) {
            uint8_t bytes[ROW * 4];
            float x[ROW], y[ROW], importance[ROW], largest = 0;

            for (size_t i = 0; i < ROW; i++) {
                x[i] = odd_number(kind, i, &seed);
                importance[i] = i % 3 == 0 ? 0.0f : i % 3 == 1 ? 1e30f : 1e-30f;
                largest = fmaxf(largest, fabsf(x[i]));
            }
            for (int pass = 0; pass < 2; pass++) {
                quantize(types[k].type, x, ROW, pass == 1 ? importance : NULL, bytes);
                assert_true(sluice_dequantize_row(types[k].type, bytes, ROW, y));
                for (size_t i = 0; i < ROW; i++)
                    if (!(fabsf(y[i]) <= 1.6f * largest + 6e-8f)) /* half precision cannot say less than that */
                        fail_msg("%s, rows of kind %zu: %g became %g", sluice_tensor_type_name(types[k].type), kind, (double)x[i], (double)y[i]);
                if (pass == 0 && largest > 1e-6f && error_of(x, y, NULL, ROW) > 0.12 * error_of(x, (float[ROW]){ 0 }, NULL, ROW))
                    fail_msg("%s, rows of kind %zu: error %g", sluice_tensor_type_name(types[k].type), kind, error_of(x, y, NULL, ROW));
            }
        }
    }
}

static void q8_0_never_says_minus_128(void **state)
{
    uint64_t seed = 7;

    (void)state;
    for (size_t round = 0; round < 2000; round++) {
        uint8_t bytes[34];
        float x[32];

        for (size_t i = 0; i < 32; i++)
            x[i] = ldexpf(gaussian(&seed), (int)(round % 56) - 45);
        quantize(SLUICE_TENSOR_Q8_0, x, 32, NULL, bytes);
        for (size_t i = 0; i < 32; i++)
            assert_int_not_equal((int8_t)bytes[2 + i], -128); /* kernels rely on it */
    }
}

/* ---- refusals */

static void numbers_that_are_none_are_refused(void **state)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    sluice_error err = SLUICE_ERROR_INIT;
    uint8_t bytes[ROW * 4];
    float x[ROW];

    (void)state;
    for (size_t k = 0; k < N_TYPES; k++) {
        for (size_t i = 0; i < 3; i++) {
            memset(x, 0, sizeof x);
            x[700] = bad[i];
            assert_int_equal(sluice_quantize_row(types[k].type, x, ROW, NULL, bytes, &err), SLUICE_ERR_INTEGRITY);
            assert_non_null(strstr(err.message, "700"));
        }
        x[700] = 3e38f;
        if (types[k].type != SLUICE_TENSOR_BF16 && types[k].type != SLUICE_TENSOR_MXFP4) {
            assert_int_equal(sluice_quantize_row(types[k].type, x, ROW, NULL, bytes, &err), SLUICE_ERR_LIMIT);
            assert_non_null(strstr(err.message, sluice_tensor_type_name(types[k].type)));
        } else {
            assert_int_equal(sluice_quantize_row(types[k].type, x, ROW, NULL, bytes, &err), SLUICE_OK);
        }
    }
    assert_int_equal(sluice_quantize_row(16, x, ROW, NULL, bytes, &err), SLUICE_ERR_UNSUPPORTED);
    assert_int_equal(sluice_quantize_row(9999, x, ROW, NULL, bytes, &err), SLUICE_ERR_UNSUPPORTED);
    assert_int_equal(sluice_quantize_row(SLUICE_TENSOR_Q4_K, x, 128, NULL, bytes, &err), SLUICE_ERR_ARGUMENT);
    assert_false(sluice_dequantize_row(16, bytes, ROW, x));
    assert_false(sluice_dequantize_row(SLUICE_TENSOR_Q4_K, bytes, 128, x));
}

static void every_half_survives_and_rounding_is_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = sluice_float_from_half((uint16_t)h);

        if ((h & 0x7c00u) == 0x7c00u && (h & 0x3ffu) != 0)
            assert_true(isnan(sluice_float_from_half(sluice_half_from_float(f))));
        else
            assert_int_equal(sluice_half_from_float(f), h);
        if ((h & 0x7fffu) >= 0x7bffu)
            continue;
        /* Half way to the next one goes to the even one; a little more goes up, a little less goes down. */
        float next = sluice_float_from_half((uint16_t)(h + 1)), middle = f + (next - f) / 2;

        assert_int_equal(sluice_half_from_float(middle), h + (h & 1));
        assert_int_equal(sluice_half_from_float(nextafterf(middle, next)), h + 1);
        assert_int_equal(sluice_half_from_float(nextafterf(middle, f)), h);
    }
    assert_int_equal(sluice_half_from_float(65519.996f), 0x7bff);
    assert_int_equal(sluice_half_from_float(65520.0f), 0x7c00);
    assert_int_equal(sluice_half_from_float(-3e38f), 0xfc00);
    assert_int_equal(sluice_half_from_float(1e-30f), 0);
    assert_int_equal(sluice_bfloat_from_float(1.00390625f), 0x3f80); /* half way: to the even one */
    assert_int_equal(sluice_bfloat_from_float(1.01171875f), 0x3f82);
    assert_int_equal(sluice_bfloat_from_float(nextafterf(1.00390625f, 2)), 0x3f81);
    assert_true(isnan(sluice_float_from_bfloat(sluice_bfloat_from_float(NAN))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_mean_what_the_formats_say),
        cmocka_unit_test(kernels_read_the_same_numbers),
        cmocka_unit_test(errors_stay_below_what_the_type_allows),
        cmocka_unit_test(quantizing_again_changes_little),
        cmocka_unit_test(importance_moves_the_error_to_where_it_matters_less),
        cmocka_unit_test(columns_without_importance_count_all_the_same),
        cmocka_unit_test(odd_rows_give_finite_numbers_near_them),
        cmocka_unit_test(q8_0_never_says_minus_128),
        cmocka_unit_test(numbers_that_are_none_are_refused),
        cmocka_unit_test(every_half_survives_and_rounding_is_to_nearest_even),
    };

    return cmocka_run_group_tests_name("quantize", tests, NULL, NULL);
}
