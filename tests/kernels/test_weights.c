/* test_weights.c - the weight formats against plain formulas, written down a second time and in another order.
 *
 * sluice_weight_group() takes one group of 32 out of a block; the functions here walk over a whole block as the formats are usually
 * described (ggml's block structures and their dequantization), in double precision.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "local-engine/kernels/kernels.h"

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static uint64_t seed = 7;

static uint32_t next_u32(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 32);
}

/* An f16 by its definition. */
static double half(const uint8_t *p)
{
    const int bits = p[0] | p[1] << 8, exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double sign = bits & 0x8000 ? -1 : 1;

    return sign * (exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25));
}

static void q8_0(double *w, const uint8_t *b)
{
    for (int i = 0; i < 32; i++)
        w[i] = half(b) * (b[2 + i] < 128 ? b[2 + i] : b[2 + i] - 256);
}

static void q4_0(double *w, const uint8_t *b)
{
    for (int j = 0; j < 16; j++) {
        w[j] = half(b) * ((b[2 + j] & 15) - 8);
        w[j + 16] = half(b) * (b[2 + j] / 16 - 8);
    }
}

static void q4_1(double *w, const uint8_t *b)
{
    for (int j = 0; j < 16; j++) {
        w[j] = half(b) * (b[4 + j] & 15) + half(b + 2);
        w[j + 16] = half(b) * (b[4 + j] / 16) + half(b + 2);
    }
}

static int bit_of(const uint8_t *bits, int i)
{
    return bits[i / 8] >> i % 8 & 1;
}

static void q5_0(double *w, const uint8_t *b)
{
    for (int j = 0; j < 16; j++) {
        w[j] = half(b) * ((b[6 + j] & 15) + 16 * bit_of(b + 2, j) - 16);
        w[j + 16] = half(b) * (b[6 + j] / 16 + 16 * bit_of(b + 2, j + 16) - 16);
    }
}

static void q5_1(double *w, const uint8_t *b)
{
    for (int j = 0; j < 16; j++) {
        w[j] = half(b) * ((b[8 + j] & 15) + 16 * bit_of(b + 4, j)) + half(b + 2);
        w[j + 16] = half(b) * (b[8 + j] / 16 + 16 * bit_of(b + 4, j + 16)) + half(b + 2);
    }
}

static void q2_k(double *w, const uint8_t *b)
{
    const uint8_t *q = b + 16, *s = b;
    const double d = half(b + 80), m = half(b + 82);

    for (int n = 0; n < 2; n++, q += 32)
        for (int shift = 0; shift < 8; shift += 2)
            for (int part = 0; part < 2; part++, s++)
                for (int l = 0; l < 16; l++)
                    *w++ = d * (*s & 15) * (q[16 * part + l] >> shift & 3) - m * (*s / 16);
}

static void q3_k(double *w, const uint8_t *b)
{
    const uint8_t *high = b, *q = b + 32, *s = b + 96;
    const double d = half(b + 108);
    int scale[16], mask = 1, is = 0;

    for (int i = 0; i < 4; i++) { /* the twelve bytes, a column at a time */
        scale[i] = (s[i] & 15) + 16 * (s[8 + i] & 3);
        scale[4 + i] = (s[4 + i] & 15) + 16 * (s[8 + i] / 4 & 3);
        scale[8 + i] = s[i] / 16 + 16 * (s[8 + i] / 16 & 3);
        scale[12 + i] = s[4 + i] / 16 + 16 * (s[8 + i] / 64);
    }
    for (int n = 0; n < 2; n++, q += 32)
        for (int shift = 0; shift < 8; shift += 2, mask *= 2)
            for (int part = 0; part < 2; part++, is++)
                for (int l = 0; l < 16; l++)
                    *w++ = d * (scale[is] - 32) * ((q[16 * part + l] >> shift & 3) - (high[16 * part + l] & mask ? 0 : 4));
}

static void six_bits(int scale[8], int min[8], const uint8_t *s)
{
    for (int j = 0; j < 4; j++) {
        scale[j] = s[j] % 64;
        min[j] = s[j + 4] % 64;
        scale[j + 4] = s[j + 8] % 16 + s[j] / 64 * 16;
        min[j + 4] = s[j + 8] / 16 + s[j + 4] / 64 * 16;
    }
}

static void q4_k(double *w, const uint8_t *b)
{
    const uint8_t *q = b + 16;
    int scale[8], min[8];

    six_bits(scale, min, b + 4);
    for (int j = 0; j < 8; j += 2, q += 32)
        for (int l = 0; l < 32; l++) {
            w[32 * j + l] = half(b) * scale[j] * (q[l] % 16) - half(b + 2) * min[j];
            w[32 * j + 32 + l] = half(b) * scale[j + 1] * (q[l] / 16) - half(b + 2) * min[j + 1];
        }
}

static void q5_k(double *w, const uint8_t *b)
{
    const uint8_t *high = b + 16, *q = b + 48;
    int scale[8], min[8];

    six_bits(scale, min, b + 4);
    for (int j = 0; j < 8; j += 2, q += 32)
        for (int l = 0; l < 32; l++) {
            w[32 * j + l] = half(b) * scale[j] * (q[l] % 16 + (high[l] & 1 << j ? 16 : 0)) - half(b + 2) * min[j];
            w[32 * j + 32 + l] = half(b) * scale[j + 1] * (q[l] / 16 + (high[l] & 2 << j ? 16 : 0)) - half(b + 2) * min[j + 1];
        }
}

static void q6_k(double *w, const uint8_t *b)
{
    const uint8_t *low = b, *high = b + 128;
    const int8_t *scale = (const int8_t *)(b + 192);

    for (int n = 0; n < 2; n++, low += 64, high += 32, scale += 8, w += 128)
        for (int l = 0; l < 32; l++) {
            w[l] = half(b + 208) * scale[l / 16] * ((low[l] % 16 + 16 * (high[l] & 3)) - 32);
            w[l + 32] = half(b + 208) * scale[l / 16 + 2] * ((low[l + 32] % 16 + 16 * (high[l] / 4 & 3)) - 32);
            w[l + 64] = half(b + 208) * scale[l / 16 + 4] * ((low[l] / 16 + 16 * (high[l] / 16 & 3)) - 32);
            w[l + 96] = half(b + 208) * scale[l / 16 + 6] * ((low[l + 32] / 16 + 16 * (high[l] / 64)) - 32);
        }
}

static const int nonlinear[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };

static void iq4_nl(double *w, const uint8_t *b)
{
    for (int j = 0; j < 16; j++) {
        w[j] = half(b) * nonlinear[b[2 + j] % 16];
        w[j + 16] = half(b) * nonlinear[b[2 + j] / 16];
    }
}

static void iq4_xs(double *w, const uint8_t *b)
{
    const int high = b[2] | b[3] << 8;

    for (int part = 0; part < 8; part++, w += 32) {
        const int low = part % 2 == 0 ? b[4 + part / 2] % 16 : b[4 + part / 2] / 16;
        const double d = half(b) * (low + 16 * (high >> 2 * part & 3) - 32);

        for (int j = 0; j < 16; j++) {
            w[j] = d * nonlinear[b[8 + 16 * part + j] % 16];
            w[j + 16] = d * nonlinear[b[8 + 16 * part + j] / 16];
        }
    }
}

static void mxfp4(double *w, const uint8_t *b)
{
    static const double e2m1[8] = { 0, 0.5, 1, 1.5, 2, 3, 4, 6 }; /* OCP MX v1.0, table 4 */

    for (int j = 0; j < 32; j++) {
        const int nibble = j < 16 ? b[1 + j] % 16 : b[1 + j - 16] / 16;

        w[j] = ldexp(e2m1[nibble % 8], b[0] - 127) * (nibble < 8 ? 1 : -1);
    }
}

static const struct {
    sluice_weight type;
    size_t block_len, block_bytes;
    void (*formula)(double *w, const uint8_t *b);
    size_t halves[2]; /* where f16 numbers lie; 0xffff: none */
} formats[] = {
    { SLUICE_WEIGHT_Q8_0, 32, 34, q8_0, { 0, 0xffff } },     { SLUICE_WEIGHT_Q4_0, 32, 18, q4_0, { 0, 0xffff } },
    { SLUICE_WEIGHT_Q4_1, 32, 20, q4_1, { 0, 2 } },          { SLUICE_WEIGHT_Q5_0, 32, 22, q5_0, { 0, 0xffff } },
    { SLUICE_WEIGHT_Q5_1, 32, 24, q5_1, { 0, 2 } },          { SLUICE_WEIGHT_Q2_K, 256, 84, q2_k, { 80, 82 } },
    { SLUICE_WEIGHT_Q3_K, 256, 110, q3_k, { 108, 0xffff } }, { SLUICE_WEIGHT_Q4_K, 256, 144, q4_k, { 0, 2 } },
    { SLUICE_WEIGHT_Q5_K, 256, 176, q5_k, { 0, 2 } },        { SLUICE_WEIGHT_Q6_K, 256, 210, q6_k, { 208, 0xffff } },
    { SLUICE_WEIGHT_IQ4_NL, 32, 18, iq4_nl, { 0, 0xffff } }, { SLUICE_WEIGHT_IQ4_XS, 256, 136, iq4_xs, { 0, 0xffff } },
    { SLUICE_WEIGHT_MXFP4, 32, 17, mxfp4, { 0xffff, 0xffff } },
};

static void fill_blocks(uint8_t *row, size_t f, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks * formats[f].block_bytes; i++)
        row[i] = (uint8_t)next_u32();
    for (size_t b = 0; b < n_blocks; b++) {
        if (formats[f].type == SLUICE_WEIGHT_MXFP4)
            row[b * formats[f].block_bytes] %= 250; /* 12 times the scale is a float */
        for (size_t h = 0; h < 2; h++)
            if (formats[f].halves[h] != 0xffff) /* finite, of either sign, sometimes subnormal */
                row[b * formats[f].block_bytes + formats[f].halves[h] + 1] &= next_u32() % 8 == 0 ? 0x83 : 0xbb;
    }
}

static void groups_are_what_the_formats_say(void **state)
{
    enum { BLOCKS = 3 };
    uint8_t row[BLOCKS * 256];
    double want[BLOCKS * 256];
    float whole[BLOCKS * 256];

    (void)state;
    for (size_t f = 0; f < COUNT(formats); f++)
        for (int round = 0; round < 200; round++) {
            const size_t len = formats[f].block_len;

            fill_blocks(row, f, BLOCKS);
            for (size_t b = 0; b < BLOCKS; b++)
                formats[f].formula(want + b * len, row + b * formats[f].block_bytes);
            sluice_weight_row(formats[f].type, whole, row, BLOCKS * len);
            for (size_t g = 0; g < BLOCKS * len / 32; g++) {
                sluice_group w;

                sluice_weight_group(formats[f].type, &w, row, g);
                for (size_t i = 0; i < 32; i++) {
                    const double product = (double)w.scale[i / 16] * w.q[i], got = product + (double)w.min[i / 16];
                    const double room = 1.2e-7 * (fabs(product) + fabs((double)w.min[i / 16])); /* scale and min are rounded once */

                    if (!(fabs(got - want[32 * g + i]) <= room) || !(fabs((double)whole[32 * g + i] - want[32 * g + i]) <= 3 * room + 1e-45))
                        fail_msg("%s, weight %zu: %.9g and %.9g, by the formula %.9g", sluice_weight_name(formats[f].type), 32 * g + i, got,
                                 (double)whole[32 * g + i], want[32 * g + i]);
                }
            }
        }
}

static void the_table_of_traits_is_right(void **state)
{
    sluice_group w;

    (void)state;
    assert_int_equal(COUNT(formats) + 3, SLUICE_WEIGHT_COUNT);
    for (size_t f = 0; f < COUNT(formats); f++) {
        const sluice_weight_traits *t = &sluice_weight_table[formats[f].type];
        bool halves_differ = false, has_min = false;
        uint8_t row[256];

        assert_int_equal(t->block_len, formats[f].block_len);
        assert_int_equal(t->block_bytes, formats[f].block_bytes);
        assert_true(t->is_quantized);
        assert_int_equal(sluice_weight_row_bytes(formats[f].type, 512), 512 / formats[f].block_len * formats[f].block_bytes);
        for (int round = 0; round < 20; round++) {
            fill_blocks(row, f, 1);
            sluice_weight_group(formats[f].type, &w, row, 0);
            halves_differ |= w.scale[0] != w.scale[1];
            has_min |= w.min[0] != 0;
        }
        assert_int_equal(t->has_halves, halves_differ);
        assert_int_equal(t->has_min, has_min);
    }
    assert_int_equal(sluice_weight_row_bytes(SLUICE_WEIGHT_F32, 7), 28);
    assert_int_equal(sluice_weight_row_bytes(SLUICE_WEIGHT_F16, 7), 14);
    assert_int_equal(sluice_weight_row_bytes(SLUICE_WEIGHT_BF16, 7), 14);
    assert_string_equal(sluice_weight_name(SLUICE_WEIGHT_IQ4_XS), "IQ4_XS");
}

static void float_rows_are_what_they_hold(void **state)
{
    static const uint8_t f16[] = { 0x00, 0x3c, 0x00, 0xc0, 0x01, 0x00 }, bf16[] = { 0x80, 0x3f, 0x49, 0x40, 0x00, 0xc0 };
    const float f32[] = { 1.5f, -0.1f };
    float out[3];

    (void)state;
    sluice_weight_row(SLUICE_WEIGHT_F16, out, f16, 3);
    assert_true(out[0] == 1.0f && out[1] == -2.0f && out[2] == 0x1p-24f);
    sluice_weight_row(SLUICE_WEIGHT_BF16, out, bf16, 3);
    assert_true(out[0] == 1.0f && out[1] == 3.140625f && out[2] == -2.0f);
    sluice_weight_row(SLUICE_WEIGHT_F32, out, (const uint8_t *)f32, 2);
    assert_true(out[0] == 1.5f && out[1] == -0.1f);
}

static void an_exponent_of_mxfp4_may_be_at_either_end(void **state)
{
    uint8_t block[17] = { 0, 0x12 };
    sluice_group w;

    (void)state;
    sluice_weight_group(SLUICE_WEIGHT_MXFP4, &w, block, 0);
    assert_true(w.scale[0] == 0x1p-128f && w.q[0] == 2 && w.q[16] == 1);
    block[0] = 1;
    sluice_weight_group(SLUICE_WEIGHT_MXFP4, &w, block, 0);
    assert_true(w.scale[0] == 0x1p-127f);
    block[0] = 255;
    sluice_weight_group(SLUICE_WEIGHT_MXFP4, &w, block, 0);
    assert_true(w.scale[0] == 0x1p127f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_are_what_the_formats_say),
        cmocka_unit_test(the_table_of_traits_is_right),
        cmocka_unit_test(float_rows_are_what_they_hold),
        cmocka_unit_test(an_exponent_of_mxfp4_may_be_at_either_end),
    };

    return cmocka_run_group_tests_name("kernels/weights", tests, NULL, NULL);
}
