/* quantize.c - float32 rows to the tensor types of GGUF files, and back.
 *
 * Blocks, as they lie in the file (a nibble pair is one byte, low nibble first):
 *
 *   Q8_0     32   d f16, 32 int8                                                       w = d q
 *   Q4_0     32   d f16, 16 bytes: byte j has q[j] low and q[j + 16] high              w = d (q - 8)
 *   Q4_1     32   d f16, m f16, the same 16 bytes                                      w = d q + m
 *   Q5_0     32   d f16, u32 of fifth bits (bit j of q[j]), the same 16 bytes          w = d (q - 16)
 *   Q5_1     32   d f16, m f16, u32, 16 bytes                                          w = d q + m
 *   IQ4_NL   32   d f16, the same 16 bytes                                             w = d table[q]
 *   MXFP4    32   e u8, the same 16 bytes (OCP MX v1.0: e8m0 and e2m1)                 w = 2^(e - 128) table2[q]
 *   Q2_K    256   16 bytes (scale low, min high nibble), 64 bytes q, d, dmin           w = d s q - dmin m       16 parts of 16
 *   Q3_K    256   32 bytes of third bits, 64 bytes of low pairs, 12 bytes s, d         w = d (s - 32) (q - 4)   16 parts of 16
 *   Q4_K    256   d, dmin, 12 bytes s and m, 128 bytes                                 w = d s q - dmin m        8 parts of 32
 *   Q5_K    256   d, dmin, 12 bytes s and m, 32 bytes of fifth bits, 128 bytes         w = d s q - dmin m        8 parts of 32
 *   Q6_K    256   128 bytes of low nibbles, 64 bytes of high pairs, 16 int8 s, d       w = d s (q - 32)         16 parts of 16
 *   IQ4_XS  256   d, u16 high pairs of s, 4 bytes low nibbles of s, 128 bytes          w = d (s - 32) table[q]   8 parts of 32
 *
 * Quantizing looks for the least squares.  For given whole numbers q the best scale (and min) is a formula; for a given scale the best q is the
 * nearest.  So each part tries a couple of dozen scales around "the largest weight gets the last number", takes q for each, solves for the scale
 * and keeps the best (the error of a part is a jagged function of its scale, and only trying finds its lowest tooth).  The blocks of 256 then round
 * their parts' scales to whole numbers, try the neighbours of each, solve for d and dmin with all of them, and go round again while that helps.
 * All of it uses scales as they come out of the file, so rounding them to half precision is not an error of its own.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/tools/quantize.h"

#include <float.h>
#include <math.h>

enum { BLOCK = 32, SUPER = 256, LANES = 8, PARTS_MAX = 16, ROUNDS = 3 };

/* ---- small floats -------------------------------------------------------------------------------------- */

uint16_t sluice_half_from_float(float f)
{
    uint32_t bits, sign, magnitude, rounded;

    memcpy(&bits, &f, sizeof bits);
    sign = bits >> 16 & 0x8000u;
    magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) { /* below 2^-14: subnormal, a multiple of 2^-24 */
        float scaled = fabsf(f) * 16777216.0f;

        return (uint16_t)(sign | (uint32_t)lrintf(scaled));
    }
    rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u); /* nearest even */
    return (uint16_t)(sign | ((rounded >> 13) - (112u << 10)));
}

float sluice_float_from_half(uint16_t h)
{
    uint32_t exponent = (uint32_t)h >> 10 & 31u, mantissa = h & 0x3ffu, bits;
    float f;

    if (exponent == 0) {
        f = (float)mantissa * (1.0f / 16777216.0f);
    } else {
        bits = (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
        memcpy(&f, &bits, sizeof f);
    }
    return (h & 0x8000u) != 0 ? -f : f;
}

uint16_t sluice_bfloat_from_float(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u); /* stays a NaN when its low bits go */
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

float sluice_float_from_bfloat(uint16_t b)
{
    uint32_t bits = (uint32_t)b << 16;
    float f;

    memcpy(&f, &bits, sizeof f);
    return f;
}

static void put_u16(uint8_t *out, uint16_t v)
{
    out[0] = (uint8_t)v;
    out[1] = (uint8_t)(v >> 8);
}

static uint16_t get_u16(const uint8_t *in)
{
    return (uint16_t)(in[0] | in[1] << 8);
}

static void put_half(uint8_t *out, float f)
{
    put_u16(out, sluice_half_from_float(f));
}

static float get_half(const uint8_t *in)
{
    return sluice_float_from_half(get_u16(in));
}

static float through_half(float f)
{
    return sluice_float_from_half(sluice_half_from_float(f));
}

/* To the nearest whole number, ties to even; |v| below 2^22. */
static inline float nearest(float v)
{
#if FLT_EVAL_METHOD == 0
    return (v + 12582912.0f) - 12582912.0f; /* 1.5 * 2^23: no room for a fraction beside it.  Unlike rintf(), it becomes vector code. */
#else
    return rintf(v);
#endif
}

static inline float clamp(float v, float lo, float hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

/* ---- parts without a min: w = d * level ------------------------------------------------------------- */

/* The numbers a weight can have before its scale: every whole number from lo to hi, or those of a table. */
typedef struct levels {
    const int8_t *table; /* (SLOTS): the level nearest to what falls in a slot; NULL: whole numbers */
    float lo, hi;
} levels;

/* Slots are half a step wide, because the middle between two levels is a whole or a half number. */
enum { SLOTS = 512 };

static inline size_t slot_of(float v)
{
    return (size_t)(int)(v + v + (float)(SLOTS / 2)); /* v >= -127: the sum is positive and loses its fraction downwards */
}

static const int8_t iq4_table[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };

static levels iq4_levels(int8_t table[SLOTS])
{
    size_t at = 0;

    for (size_t i = 0; i < 16; i++) { /* the middle between two levels, doubled, is their sum */
        const size_t end = i < 15 ? (size_t)(SLOTS / 2 + iq4_table[i] + iq4_table[i + 1]) : SLOTS;

        memset(table + at, iq4_table[i], end - at);
        at = end;
    }
    return (levels){ table, -127, 113 };
}

static unsigned iq4_index(int8_t level)
{
    unsigned i = level > iq4_table[7] ? 8 : 0;

    i += level > iq4_table[i + 3] ? 4 : 0;
    i += level > iq4_table[i + 1] ? 2 : 0;
    return i + (level > iq4_table[i] ? 1 : 0);
}

/* What the least squares need, for the levels nearest to x * inverse. */
typedef struct sums {
    float xq, qq; /* sum of w x q and of w q q */
} sums;

static inline float fold(const float *a)
{
    return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}

static sums sums_of(const levels *l, const float *x, const float *w, size_t n, float inverse)
{
    float xq[LANES] = { 0 }, qq[LANES] = { 0 };
    const float lo = l->lo, hi = l->hi;

    if (l->table != NULL) {
        for (size_t i = 0; i < n; i++) {
            const float q = (float)l->table[slot_of(clamp(x[i] * inverse, lo, hi))], wq = w[i] * q;

            xq[i % LANES] += wq * x[i];
            qq[i % LANES] += wq * q;
        }
    } else {
        for (size_t i = 0; i < n; i += LANES) {
            for (size_t k = 0; k < LANES; k++) {
                const float q = nearest(clamp(x[i + k] * inverse, lo, hi)), wq = w[i + k] * q;

                xq[k] += wq * x[i + k];
                qq[k] += wq * q;
            }
        }
    }
    return (sums){ fold(xq), fold(qq) };
}

/* The index (from 0) of the level of each weight at scale d. */
static void take_levels(const levels *l, const float *x, size_t n, float d, uint8_t *q)
{
    const float inverse = d != 0 ? 1.0f / d : 0;

    for (size_t i = 0; i < n; i++) {
        const float v = clamp(x[i] * inverse, l->lo, l->hi);

        q[i] = (uint8_t)(l->table != NULL ? iq4_index(l->table[slot_of(v)]) : (unsigned)(nearest(v) - l->lo));
    }
}

static float signed_peak(const float *x, size_t n)
{
    float peak = 0;

    for (size_t i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(peak))
            peak = x[i];
    return peak;
}

/* Is 1 / v a number that a weight can be multiplied with? */
static bool can_divide(float v)
{
    return fabsf(v) > 1e-30f;
}

/* The scale with the least squares.  Trials put the largest weight at the last level, inside and beyond it. */
static float fit_levels(const levels *l, const float *x, const float *w, size_t n)
{
    const float peak = signed_peak(x, n);
    const float span = -l->lo, step = l->table != NULL ? span / 80.0f : 0.1f;
    float best = 0, best_gain = 0;

    if (!can_divide(peak))
        return 0;
    for (int sign = 0; sign < (l->table != NULL ? 2 : 1); sign++) {
        for (int i = -15; i <= 10; i++) {
            const float reach = sign == 0 ? l->lo - step * (float)i : l->hi + step * (float)i;
            const sums s = sums_of(l, x, w, n, reach / peak);
            const float gain = s.qq > 0 ? s.xq / s.qq * s.xq : 0; /* by how much this lowers the error of all zeros */

            if (gain > best_gain) {
                best_gain = gain;
                best = s.xq / s.qq;
            }
        }
    }
    for (int i = 0; i < ROUNDS && can_divide(best); i++) {
        const sums s = sums_of(l, x, w, n, 1.0f / best);
        const float gain = s.qq > 0 ? s.xq / s.qq * s.xq : 0;

        if (!(gain > best_gain))
            break;
        best_gain = gain;
        best = s.xq / s.qq;
    }
    return best;
}

/* By how much the error of all zeros is lowered at scale t. */
static float gain_at(sums s, float t)
{
    return t * (2 * s.xq - t * s.qq);
}

typedef struct part_scales {
    float d;
    float gain;
    int8_t scale[PARTS_MAX];
} part_scales;

/* Whole numbers for the scales of the parts under d; wanted: (n_parts) the scales they should come to.  *solved: the best d for what was chosen. */
static part_scales choose_scales(const levels *l, const float *x, const float *w, size_t n_parts, float d, const float *wanted, float scale_lo,
                                 float *solved)
{
    const size_t len = SUPER / n_parts;
    part_scales out = { d, 0, { 0 } };
    double up = 0, down = 0;

    for (size_t p = 0; p < n_parts; p++) {
        const float center = nearest(clamp(wanted[p] / d, scale_lo, -1 - scale_lo));
        float best_gain = 0, best = 0;
        sums best_sums = { 0, 0 };

        for (int i = -1; i <= 1; i++) {
            const float scale = clamp(center + (float)i, scale_lo, -1 - scale_lo), t = d * scale;
            sums s;
            float gain;

            if (!can_divide(t))
                continue;
            s = sums_of(l, x + p * len, w + p * len, len, 1.0f / t);
            gain = gain_at(s, t);
            if (gain > best_gain) {
                best_gain = gain;
                best = scale;
                best_sums = s;
            }
        }
        out.scale[p] = (int8_t)best;
        out.gain += best_gain;
        up += (double)best * (double)best_sums.xq;
        down += (double)best * (double)best * (double)best_sums.qq;
    }
    *solved = through_half(down > 0 ? (float)(up / down) : 0);
    return out;
}

/* A block of 256 whose parts have signed scales from scale_lo to -1 - scale_lo.  q: (256) level indices. */
static part_scales fit_parts(const levels *l, const float *x, const float *w, size_t n_parts, float scale_lo, uint8_t *q)
{
    const size_t len = SUPER / n_parts;
    float wanted[PARTS_MAX] = { 0 }, d, solved;
    part_scales best = { 0, 0, { 0 } };

    for (size_t p = 0; p < n_parts; p++)
        wanted[p] = fit_levels(l, x + p * len, w + p * len, len);
    d = through_half(signed_peak(wanted, n_parts) / scale_lo);
    for (int i = 0; i < ROUNDS && d != 0; i++) {
        const part_scales now = choose_scales(l, x, w, n_parts, d, wanted, scale_lo, &solved);

        if (i > 0 && !(now.gain > best.gain))
            break;
        best = now;
        for (size_t p = 0; p < n_parts; p++)
            wanted[p] = best.d * (float)best.scale[p];
        d = solved;
    }
    for (size_t p = 0; p < n_parts; p++)
        take_levels(l, x + p * len, len, best.d * (float)best.scale[p], q + p * len);
    return best;
}

/* ---- parts with a min: w = d * q + m, q from 0 to top -------------------------------------------------- */

typedef struct line {
    float d, m;
} line;

typedef struct line_sums {
    float w, x, q, xq, qq; /* sums of w, w x, w q, w x q, w q q, where x stands for x - base */
} line_sums;

static line_sums line_sums_of(const float *x, const float *w, size_t n, float base, float inverse, float top)
{
    float sw[LANES] = { 0 }, sx[LANES] = { 0 }, sq[LANES] = { 0 }, sxq[LANES] = { 0 }, sqq[LANES] = { 0 };

    for (size_t i = 0; i < n; i += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            const float v = x[i + k] - base, q = nearest(clamp(v * inverse, 0, top)), wq = w[i + k] * q;

            sw[k] += w[i + k];
            sx[k] += w[i + k] * v;
            sq[k] += wq;
            sxq[k] += wq * v;
            sqq[k] += wq * q;
        }
    }
    return (line_sums){ fold(sw), fold(sx), fold(sq), fold(sxq), fold(sqq) };
}

/* The best line through (q, x), its m (from the base up) at most m_max; and by how much it lowers the error. */
static line solve_line(const line_sums *s, float m_max, float *gain)
{
    const float det = s->w * s->qq - s->q * s->q;
    line best = { 0, 0 };

    if (det > 0) {
        best.d = (s->w * s->xq - s->x * s->q) / det;
        best.m = (s->qq * s->x - s->q * s->xq) / det;
    }
    if (!(det > 0) || best.m > m_max || best.d < 0) {
        best.m = fminf(m_max, 0);
        best.d = s->qq > 0 ? fmaxf((s->xq - best.m * s->q) / s->qq, 0) : 0;
    }
    *gain = 2 * (best.d * s->xq + best.m * s->x) - (best.d * best.d * s->qq + 2 * best.d * best.m * s->q + best.m * best.m * s->w);
    return best;
}

/* m_max: FLT_MAX, or 0 where the format has no positive mins. */
static line fit_line(const float *x, const float *w, size_t n, float top, float m_max)
{
    float lo = x[0], hi = x[0], best_gain = -FLT_MAX;
    line best;

    for (size_t i = 1; i < n; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    lo = fminf(lo, m_max);
    best = (line){ 0, lo };
    if (!can_divide(hi - lo))
        return best;
    for (int i = -10; i <= 10; i++) {
        const line_sums s = line_sums_of(x, w, n, lo, (top + 0.1f * (float)i * (top < 4 ? 0.7f : 1.0f)) / (hi - lo), top);
        float gain;
        const line now = solve_line(&s, m_max - lo, &gain);

        if (gain > best_gain) {
            best_gain = gain;
            best = (line){ now.d, now.m + lo };
        }
    }
    /* The numbers above were counted from the lowest weight.  Counting from the line's own begin and solving again goes downhill. */
    for (int i = 0; i < ROUNDS && can_divide(best.d); i++) {
        const float base = best.m;
        line_sums s = line_sums_of(x, w, n, base, 1.0f / best.d, top);
        float gain;
        line now;

        s.x += (base - lo) * s.w; /* gains are told apart from one base: the lowest weight */
        s.xq += (base - lo) * s.q;
        now = solve_line(&s, m_max - lo, &gain);
        if (!(gain > best_gain))
            break;
        best_gain = gain;
        best = (line){ now.d, now.m + lo };
    }
    return best;
}

static void take_line(const float *x, size_t n, line l, float top, uint8_t *q)
{
    const float inverse = can_divide(l.d) ? 1.0f / l.d : 0;

    for (size_t i = 0; i < n; i++)
        q[i] = (uint8_t)nearest(clamp((x[i] - l.m) * inverse, 0, top));
}

static float line_error(const float *x, const float *w, size_t n, line l, float top)
{
    const float inverse = can_divide(l.d) ? 1.0f / l.d : 0;
    float e[LANES] = { 0 };

    for (size_t i = 0; i < n; i += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            const float v = x[i + k] - l.m, r = v - l.d * nearest(clamp(v * inverse, 0, top));

            e[k] += w[i + k] * r * r;
        }
    }
    return fold(e);
}

typedef struct part_lines {
    float d, dmin, error;
    uint8_t scale[PARTS_MAX], min[PARTS_MAX];
} part_lines;

typedef struct part_shape {
    size_t n;
    float top, scale_top; /* largest q; largest scale and min */
} part_shape;

static line line_of(const part_lines *p, size_t i)
{
    return (line){ p->d * (float)p->scale[i], -(p->dmin * (float)p->min[i]) };
}

/* Whole scales and mins for all parts under d and dmin, near the wanted ones. */
static part_lines choose_lines(const part_shape *shape, const float *x, const float *w, float d, float dmin, const line *wanted)
{
    const size_t len = SUPER / shape->n;
    part_lines out = { d, dmin, 0, { 0 }, { 0 } };

    for (size_t p = 0; p < shape->n; p++) {
        const float scale = d > 0 ? nearest(clamp(wanted[p].d / d, 0, shape->scale_top)) : 0;
        const float min = dmin > 0 ? nearest(clamp(-wanted[p].m / dmin, 0, shape->scale_top)) : 0;
        float best = FLT_MAX;

        for (int i = 0; i < 9; i++) {
            const float s = clamp(scale + (float)(i % 3 - 1), 0, shape->scale_top), m = clamp(min + (float)(i / 3 - 1), 0, shape->scale_top);
            const float error = line_error(x + p * len, w + p * len, len, (line){ d * s, -(dmin * m) }, shape->top);

            if (error < best) {
                best = error;
                out.scale[p] = (uint8_t)s;
                out.min[p] = (uint8_t)m;
            }
        }
        out.error += best;
    }
    return out;
}

/* The best d and dmin for whole numbers that have been chosen: two equations. */
static void solve_lines(const part_shape *shape, const float *x, const float *w, const part_lines *p, float *d, float *dmin)
{
    const size_t len = SUPER / shape->n;
    double aa = 0, ab = 0, bb = 0, xa = 0, xb = 0, det;

    for (size_t i = 0; i < shape->n; i++) {
        const line l = line_of(p, i);
        const line_sums s = line_sums_of(x + i * len, w + i * len, len, l.m, can_divide(l.d) ? 1.0f / l.d : 0, shape->top);
        const double a = (double)p->scale[i], b = (double)p->min[i];

        aa += a * a * (double)s.qq;
        ab += a * b * (double)s.q;
        bb += b * b * (double)s.w;
        xa += a * ((double)s.xq + (double)l.m * (double)s.q);
        xb += b * ((double)s.x + (double)l.m * (double)s.w);
    }
    det = aa * bb - ab * ab;
    *d = p->d;
    *dmin = p->dmin;
    if (det > 1e-9 * aa * bb) {
        *d = through_half((float)fmax((xa * bb - xb * ab) / det, 0));
        *dmin = through_half((float)fmax((xa * ab - xb * aa) / det, 0));
    } else if (aa > 0 && bb == 0) {
        *d = through_half((float)fmax(xa / aa, 0));
    }
}

static part_lines fit_part_lines(const part_shape *shape, const float *x, const float *w, uint8_t *q)
{
    const size_t len = SUPER / shape->n;
    line wanted[PARTS_MAX] = { { 0, 0 } };
    float d = 0, dmin = 0;
    part_lines best = { 0, 0, FLT_MAX, { 0 }, { 0 } };

    for (size_t p = 0; p < shape->n; p++) {
        wanted[p] = fit_line(x + p * len, w + p * len, len, shape->top, 0);
        d = fmaxf(d, wanted[p].d);
        dmin = fmaxf(dmin, -wanted[p].m);
    }
    d = through_half(d / shape->scale_top);
    dmin = through_half(dmin / shape->scale_top);
    for (int i = 0; i < ROUNDS; i++) {
        const part_lines now = choose_lines(shape, x, w, d, dmin, wanted);

        if (i > 0 && !(now.error < best.error))
            break;
        best = now;
        for (size_t p = 0; p < shape->n; p++)
            wanted[p] = line_of(&best, p);
        solve_lines(shape, x, w, &best, &d, &dmin);
    }
    for (size_t p = 0; p < shape->n; p++)
        take_line(x + p * len, len, line_of(&best, p), shape->top, q + p * len);
    return best;
}

/* ---- bits ------------------------------------------------------------------------------------------------ */

/* Byte j: low nibble of q[j], low nibble of q[j + 16] above it. */
static void put_nibbles(uint8_t *out, const uint8_t *q)
{
    for (size_t j = 0; j < BLOCK / 2; j++)
        out[j] = (uint8_t)((q[j] & 15) | (q[j + BLOCK / 2] & 15) << 4);
}

static void get_nibbles(const uint8_t *in, uint8_t *q)
{
    for (size_t j = 0; j < BLOCK / 2; j++) {
        q[j] = in[j] & 15;
        q[j + BLOCK / 2] = in[j] >> 4;
    }
}

static void put_fifth_bits(uint8_t *out, const uint8_t *q)
{
    uint32_t bits = 0;

    for (size_t j = 0; j < BLOCK; j++)
        bits |= (uint32_t)(q[j] >> 4 & 1) << j;
    for (size_t k = 0; k < 4; k++)
        out[k] = (uint8_t)(bits >> 8 * k);
}

static void get_fifth_bits(const uint8_t *in, uint8_t *q)
{
    for (size_t j = 0; j < BLOCK; j++)
        q[j] = (uint8_t)(q[j] | (in[j / 8] >> j % 8 & 1) << 4);
}

/* Q4_K, Q5_K: eight scales and eight mins of six bits in twelve bytes.  Parts 0 to 3 have bytes of their own, whose top pairs hold the
 * top pairs of parts 4 to 7; the low nibbles of these are in the last four bytes. */
static void put_six_bits(uint8_t *out, const uint8_t *scale, const uint8_t *min)
{
    for (size_t j = 0; j < 4; j++) {
        out[j] = (uint8_t)(scale[j] | scale[j + 4] >> 4 << 6);
        out[j + 4] = (uint8_t)(min[j] | min[j + 4] >> 4 << 6);
        out[j + 8] = (uint8_t)((scale[j + 4] & 15) | (min[j + 4] & 15) << 4);
    }
}

static void get_six_bits(const uint8_t *in, uint8_t *scale, uint8_t *min)
{
    for (size_t j = 0; j < 4; j++) {
        scale[j] = in[j] & 63;
        min[j] = in[j + 4] & 63;
        scale[j + 4] = (uint8_t)((in[j + 8] & 15) | in[j] >> 6 << 4);
        min[j + 4] = (uint8_t)(in[j + 8] >> 4 | in[j + 4] >> 6 << 4);
    }
}

/* Q4_K, Q5_K: byte l of the 32 for a pair of parts has part 2 c low and part 2 c + 1 high. */
static void put_nibble_rows(uint8_t *out, const uint8_t *q)
{
    for (size_t c = 0; c < SUPER / 64; c++)
        for (size_t l = 0; l < 32; l++)
            out[32 * c + l] = (uint8_t)((q[64 * c + l] & 15) | (q[64 * c + 32 + l] & 15) << 4);
}

static void get_nibble_rows(const uint8_t *in, uint8_t *q)
{
    for (size_t c = 0; c < SUPER / 64; c++) {
        for (size_t l = 0; l < 32; l++) {
            q[64 * c + l] = in[32 * c + l] & 15;
            q[64 * c + 32 + l] = in[32 * c + l] >> 4;
        }
    }
}

/* Q2_K, Q3_K: byte l of the 32 for a half of the block has its four rows of 32 from bit 0 up. */
static void put_pair_rows(uint8_t *out, const uint8_t *q)
{
    for (size_t h = 0; h < 2; h++)
        for (size_t l = 0; l < 32; l++)
            out[32 * h + l] = (uint8_t)((q[128 * h + l] & 3) | (q[128 * h + 32 + l] & 3) << 2 | (q[128 * h + 64 + l] & 3) << 4 |
                                        (q[128 * h + 96 + l] & 3) << 6);
}

static void get_pair_rows(const uint8_t *in, uint8_t *q)
{
    for (size_t i = 0; i < SUPER; i++)
        q[i] = in[32 * (i / 128) + i % 32] >> 2 * (i / 32 % 4) & 3;
}

/* ---- blocks ------------------------------------------------------------------------------------------------
 *
 * Each quantizer takes one block of finite numbers and its weights; w is never all zero. */

static void quantize_q8_0(const float *x, const float *w, uint8_t *out)
{
    float d, inverse;

    (void)w; /* steps this small leave nothing to gain from looking for better scales */
    d = through_half(fabsf(signed_peak(x, BLOCK)) / 127.0f);
    inverse = d > 0 ? 1.0f / d : 0;
    put_half(out, d);
    for (size_t i = 0; i < BLOCK; i++)
        out[2 + i] = (uint8_t)(int8_t)nearest(clamp(x[i] * inverse, -127, 127)); /* never -128: kernels rely on it */
}

static void dequantize_q8_0(const uint8_t *in, float *out)
{
    for (size_t i = 0; i < BLOCK; i++)
        out[i] = get_half(in) * (float)(int8_t)in[2 + i];
}

static void quantize_q4_0(const float *x, const float *w, uint8_t *out)
{
    static const levels l = { NULL, -8, 7 };
    const float d = through_half(fit_levels(&l, x, w, BLOCK));
    uint8_t q[BLOCK];

    take_levels(&l, x, BLOCK, d, q);
    put_half(out, d);
    put_nibbles(out + 2, q);
}

static void dequantize_q4_0(const uint8_t *in, float *out)
{
    uint8_t q[BLOCK];

    get_nibbles(in + 2, q);
    for (size_t i = 0; i < BLOCK; i++)
        out[i] = get_half(in) * (float)(q[i] - 8);
}

static void quantize_q5_0(const float *x, const float *w, uint8_t *out)
{
    static const levels l = { NULL, -16, 15 };
    const float d = through_half(fit_levels(&l, x, w, BLOCK));
    uint8_t q[BLOCK];

    take_levels(&l, x, BLOCK, d, q);
    put_half(out, d);
    put_fifth_bits(out + 2, q);
    put_nibbles(out + 6, q);
}

static void dequantize_q5_0(const uint8_t *in, float *out)
{
    uint8_t q[BLOCK];

    get_nibbles(in + 6, q);
    get_fifth_bits(in + 2, q);
    for (size_t i = 0; i < BLOCK; i++)
        out[i] = get_half(in) * (float)(q[i] - 16);
}

/* Scale and min as they will be read, and the numbers that go with them. */
static void line_block(const float *x, const float *w, float top, uint8_t *out, uint8_t *q)
{
    line l = fit_line(x, w, BLOCK, top, FLT_MAX);

    l.d = through_half(l.d);
    l.m = through_half(l.m);
    put_half(out, l.d);
    put_half(out + 2, l.m);
    take_line(x, BLOCK, l, top, q);
}

static void quantize_q4_1(const float *x, const float *w, uint8_t *out)
{
    uint8_t q[BLOCK];

    line_block(x, w, 15, out, q);
    put_nibbles(out + 4, q);
}

static void dequantize_q4_1(const uint8_t *in, float *out)
{
    uint8_t q[BLOCK];

    get_nibbles(in + 4, q);
    for (size_t i = 0; i < BLOCK; i++)
        out[i] = get_half(in) * (float)q[i] + get_half(in + 2);
}

static void quantize_q5_1(const float *x, const float *w, uint8_t *out)
{
    uint8_t q[BLOCK];

    line_block(x, w, 31, out, q);
    put_fifth_bits(out + 4, q);
    put_nibbles(out + 8, q);
}

static void dequantize_q5_1(const uint8_t *in, float *out)
{
    uint8_t q[BLOCK];

    get_nibbles(in + 8, q);
    get_fifth_bits(in + 4, q);
    for (size_t i = 0; i < BLOCK; i++)
        out[i] = get_half(in) * (float)q[i] + get_half(in + 2);
}

static void quantize_iq4_nl(const float *x, const float *w, uint8_t *out)
{
    int8_t table[SLOTS];
    const levels l = iq4_levels(table);
    const float d = through_half(fit_levels(&l, x, w, BLOCK));
    uint8_t q[BLOCK];

    take_levels(&l, x, BLOCK, d, q);
    put_half(out, d);
    put_nibbles(out + 2, q);
}

static void dequantize_iq4_nl(const uint8_t *in, float *out)
{
    uint8_t q[BLOCK];

    get_nibbles(in + 2, q);
    for (size_t i = 0; i < BLOCK; i++)
        out[i] = get_half(in) * (float)iq4_table[q[i]];
}

/* Twice the magnitudes of e2m1; bit 3 is the sign. */
static const uint8_t mxfp4_table[8] = { 0, 1, 2, 3, 4, 6, 8, 12 };

static unsigned nearest_mxfp4(float magnitude)
{
    static const float middle[7] = { 0.5f, 1.5f, 2.5f, 3.5f, 5, 7, 10 };
    unsigned i = 0;

    while (i < 7 && magnitude > middle[i])
        i++;
    return i;
}

static void quantize_mxfp4(const float *x, const float *w, uint8_t *out)
{
    const float peak = fabsf(signed_peak(x, BLOCK));
    uint8_t q[BLOCK] = { 0 };
    double best = DBL_MAX;
    int exponent = 0;

    out[0] = 0;
    if (peak > 0)
        (void)frexpf(peak, &exponent); /* peak in [2^(exponent - 1), 2^exponent) */
    /* the largest magnitude is 12 steps: a peak of 8 to 16 of them, and one to each side */
    for (int e = exponent + 123; peak > 0 && e <= exponent + 125; e++) {
        const int stored = e < 0 ? 0 : e > 254 ? 254 : e;
        const double step = ldexp(1.0, stored - 128);
        double error = 0;
        uint8_t now[BLOCK];

        for (size_t i = 0; i < BLOCK; i++) {
            const double magnitude = (double)fabsf(x[i]) / step;
            const unsigned k = nearest_mxfp4((float)magnitude);
            const double r = (magnitude - (double)mxfp4_table[k]) * step;

            error += (double)w[i] * r * r;
            now[i] = (uint8_t)(k | (x[i] < 0 && k > 0 ? 8u : 0u));
        }
        if (error < best) {
            best = error;
            out[0] = (uint8_t)stored;
            memcpy(q, now, sizeof q);
        }
    }
    put_nibbles(out + 1, q);
}

static void dequantize_mxfp4(const uint8_t *in, float *out)
{
    const float step = in[0] == 255 ? NAN : ldexpf(1.0f, in[0] - 128);
    uint8_t q[BLOCK];

    get_nibbles(in + 1, q);
    for (size_t i = 0; i < BLOCK; i++)
        out[i] = step * (float)mxfp4_table[q[i] & 7] * (q[i] & 8 ? -1.0f : 1.0f);
}

static void quantize_q2_k(const float *x, const float *w, uint8_t *out)
{
    static const part_shape shape = { 16, 3, 15 };
    uint8_t q[SUPER];
    const part_lines p = fit_part_lines(&shape, x, w, q);

    for (size_t i = 0; i < 16; i++)
        out[i] = (uint8_t)(p.scale[i] | p.min[i] << 4);
    put_pair_rows(out + 16, q);
    put_half(out + 80, p.d);
    put_half(out + 82, p.dmin);
}

static void dequantize_q2_k(const uint8_t *in, float *out)
{
    const float d = get_half(in + 80), dmin = get_half(in + 82);
    uint8_t q[SUPER];

    get_pair_rows(in + 16, q);
    for (size_t i = 0; i < SUPER; i++)
        out[i] = d * (float)(in[i / 16] & 15) * (float)q[i] - dmin * (float)(in[i / 16] >> 4);
}

/* Sixteen scales of six bits: low nibbles of parts 0 to 7, of parts 8 to 15 above them, then the top pairs, part j's in byte 8 + j % 4. */
static void quantize_q3_k(const float *x, const float *w, uint8_t *out)
{
    static const levels l = { NULL, -4, 3 };
    uint8_t q[SUPER];
    const part_scales p = fit_parts(&l, x, w, 16, -32, q);

    memset(out, 0, 110);
    for (size_t i = 0; i < SUPER; i++)
        out[i % 32] = (uint8_t)(out[i % 32] | (q[i] >> 2) << i / 32);
    put_pair_rows(out + 32, q);
    for (size_t j = 0; j < 16; j++) {
        const unsigned s = (unsigned)(p.scale[j] + 32);

        out[96 + j % 8] = (uint8_t)(out[96 + j % 8] | (s & 15) << 4 * (j / 8));
        out[104 + j % 4] = (uint8_t)(out[104 + j % 4] | (s >> 4) << 2 * (j / 4));
    }
    put_half(out + 108, p.d);
}

static void dequantize_q3_k(const uint8_t *in, float *out)
{
    const float d = get_half(in + 108);
    uint8_t q[SUPER];

    get_pair_rows(in + 32, q);
    for (size_t i = 0; i < SUPER; i++) {
        const size_t j = i / 16;
        const int s = (in[96 + j % 8] >> 4 * (j / 8) & 15) | (in[104 + j % 4] >> 2 * (j / 4) & 3) << 4;

        out[i] = d * (float)(s - 32) * (float)(q[i] + (in[i % 32] >> i / 32 & 1) * 4 - 4);
    }
}

static void quantize_q4_k(const float *x, const float *w, uint8_t *out)
{
    static const part_shape shape = { 8, 15, 63 };
    uint8_t q[SUPER];
    const part_lines p = fit_part_lines(&shape, x, w, q);

    put_half(out, p.d);
    put_half(out + 2, p.dmin);
    put_six_bits(out + 4, p.scale, p.min);
    put_nibble_rows(out + 16, q);
}

static void line_parts(const uint8_t *in, const uint8_t *q, float *out)
{
    const float d = get_half(in), dmin = get_half(in + 2);
    uint8_t scale[8], min[8];

    get_six_bits(in + 4, scale, min);
    for (size_t i = 0; i < SUPER; i++)
        out[i] = d * (float)scale[i / 32] * (float)q[i] - dmin * (float)min[i / 32];
}

static void dequantize_q4_k(const uint8_t *in, float *out)
{
    uint8_t q[SUPER];

    get_nibble_rows(in + 16, q);
    line_parts(in, q, out);
}

static void quantize_q5_k(const float *x, const float *w, uint8_t *out)
{
    static const part_shape shape = { 8, 31, 63 };
    uint8_t q[SUPER];
    const part_lines p = fit_part_lines(&shape, x, w, q);

    put_half(out, p.d);
    put_half(out + 2, p.dmin);
    put_six_bits(out + 4, p.scale, p.min);
    memset(out + 16, 0, 32);
    for (size_t i = 0; i < SUPER; i++)
        out[16 + i % 32] = (uint8_t)(out[16 + i % 32] | (q[i] >> 4) << i / 32);
    put_nibble_rows(out + 48, q);
}

static void dequantize_q5_k(const uint8_t *in, float *out)
{
    uint8_t q[SUPER];

    get_nibble_rows(in + 48, q);
    for (size_t i = 0; i < SUPER; i++)
        q[i] = (uint8_t)(q[i] | (in[16 + i % 32] >> i / 32 & 1) << 4);
    line_parts(in, q, out);
}

/* Low nibbles: byte l of the 64 of a half has element l low and element l + 64 high.  High pairs: byte l of its 32 has the four rows of 32. */
static void quantize_q6_k(const float *x, const float *w, uint8_t *out)
{
    static const levels l = { NULL, -32, 31 };
    uint8_t q[SUPER], high[SUPER];
    const part_scales p = fit_parts(&l, x, w, 16, -128, q);

    for (size_t h = 0; h < 2; h++)
        for (size_t i = 0; i < 64; i++)
            out[64 * h + i] = (uint8_t)((q[128 * h + i] & 15) | (q[128 * h + 64 + i] & 15) << 4);
    for (size_t i = 0; i < SUPER; i++)
        high[i] = q[i] >> 4;
    put_pair_rows(out + 128, high);
    for (size_t j = 0; j < 16; j++)
        out[192 + j] = (uint8_t)p.scale[j];
    put_half(out + 208, p.d);
}

static void dequantize_q6_k(const uint8_t *in, float *out)
{
    const float d = get_half(in + 208);
    uint8_t high[SUPER];

    get_pair_rows(in + 128, high);
    for (size_t i = 0; i < SUPER; i++) {
        const int low = in[64 * (i / 128) + i % 64] >> 4 * (i / 64 % 2) & 15;

        out[i] = d * (float)(int8_t)in[192 + i / 16] * (float)((low | high[i] << 4) - 32);
    }
}

static void quantize_iq4_xs(const float *x, const float *w, uint8_t *out)
{
    int8_t table[SLOTS];
    const levels l = iq4_levels(table);
    uint8_t q[SUPER];
    const part_scales p = fit_parts(&l, x, w, 8, -32, q);
    unsigned high = 0;

    put_half(out, p.d);
    memset(out + 4, 0, 4);
    for (size_t j = 0; j < 8; j++) {
        const unsigned s = (unsigned)(p.scale[j] + 32);

        out[4 + j / 2] = (uint8_t)(out[4 + j / 2] | (s & 15) << 4 * (j % 2));
        high |= s >> 4 << 2 * j;
        put_nibbles(out + 8 + 16 * j, q + 32 * j);
    }
    put_u16(out + 2, (uint16_t)high);
}

static void dequantize_iq4_xs(const uint8_t *in, float *out)
{
    const float d = get_half(in);

    for (size_t j = 0; j < 8; j++) {
        const int s = (in[4 + j / 2] >> 4 * (j % 2) & 15) | (get_u16(in + 2) >> 2 * j & 3) << 4;
        uint8_t q[BLOCK];

        get_nibbles(in + 8 + 16 * j, q);
        for (size_t i = 0; i < BLOCK; i++)
            out[32 * j + i] = d * (float)(s - 32) * (float)iq4_table[q[i]];
    }
}

/* ---- rows --------------------------------------------------------------------------------------------------- */

typedef struct format {
    void (*quantize)(const float *x, const float *w, uint8_t *out);
    void (*dequantize)(const uint8_t *in, float *out);
} format;

static const format formats[] = {
    [SLUICE_TENSOR_Q4_0] = { quantize_q4_0, dequantize_q4_0 },       [SLUICE_TENSOR_Q4_1] = { quantize_q4_1, dequantize_q4_1 },
    [SLUICE_TENSOR_Q5_0] = { quantize_q5_0, dequantize_q5_0 },       [SLUICE_TENSOR_Q5_1] = { quantize_q5_1, dequantize_q5_1 },
    [SLUICE_TENSOR_Q8_0] = { quantize_q8_0, dequantize_q8_0 },       [SLUICE_TENSOR_Q2_K] = { quantize_q2_k, dequantize_q2_k },
    [SLUICE_TENSOR_Q3_K] = { quantize_q3_k, dequantize_q3_k },       [SLUICE_TENSOR_Q4_K] = { quantize_q4_k, dequantize_q4_k },
    [SLUICE_TENSOR_Q5_K] = { quantize_q5_k, dequantize_q5_k },       [SLUICE_TENSOR_Q6_K] = { quantize_q6_k, dequantize_q6_k },
    [SLUICE_TENSOR_IQ4_NL] = { quantize_iq4_nl, dequantize_iq4_nl }, [SLUICE_TENSOR_IQ4_XS] = { quantize_iq4_xs, dequantize_iq4_xs },
    [SLUICE_TENSOR_MXFP4] = { quantize_mxfp4, dequantize_mxfp4 },
};

static const format *format_of(uint32_t type)
{
    return type < sizeof formats / sizeof formats[0] && formats[type].quantize != NULL ? &formats[type] : NULL;
}

static bool is_plain(uint32_t type)
{
    return type == SLUICE_TENSOR_F32 || type == SLUICE_TENSOR_F16 || type == SLUICE_TENSOR_BF16;
}

bool sluice_can_quantize(uint32_t type)
{
    return is_plain(type) || format_of(type) != NULL;
}

static sluice_status check_numbers(uint32_t type, const float *x, size_t n, sluice_error *err)
{
    const float max = type == SLUICE_TENSOR_F32 || type == SLUICE_TENSOR_MXFP4 ? FLT_MAX : type == SLUICE_TENSOR_BF16 ? 0x1.fep127f : SLUICE_QUANTIZE_MAX;
    bool is_good = true;

    for (size_t i = 0; i < n; i++)
        is_good = is_good & (x[i] >= -max) & (x[i] <= max); /* false for NaN */
    for (size_t i = 0; !is_good && i < n; i++) {
        if (!isfinite(x[i]))
            return sluice_error_set(err, SLUICE_ERR_INTEGRITY, "quantize: element %zu is %s", i, isnan(x[i]) ? "not a number" : "infinite");
        if (fabsf(x[i]) > max)
            return sluice_error_set(err, SLUICE_ERR_LIMIT, "quantize: element %zu is %g; %s goes up to %g", i, (double)x[i],
                                    sluice_tensor_type_name(type), (double)max);
    }
    return SLUICE_OK;
}

/* Weights of one block: the columns' importance, brought to a mean of 1 so that no product leaves the range of a float, with a floor that keeps a
 * column nobody used from being anything at all. */
static void block_weights(const float *importance, size_t n, float *w)
{
    double sum = 0;

    for (size_t i = 0; i < n && importance != NULL; i++)
        sum += isfinite(importance[i]) && importance[i] > 0 ? (double)importance[i] : 0;
    for (size_t i = 0; i < n; i++)
        w[i] = !(sum > 0) ? 1.0f : (importance[i] > 0 && isfinite(importance[i]) ? (float)((double)importance[i] * (double)n / sum) : 0) + 1e-6f;
}

static void quantize_plain(uint32_t type, const float *x, size_t n, uint8_t *out)
{
    switch (type) {
    case SLUICE_TENSOR_F16:
        for (size_t i = 0; i < n; i++)
            put_half(out + 2 * i, x[i]);
        break;
    case SLUICE_TENSOR_BF16:
        for (size_t i = 0; i < n; i++)
            put_u16(out + 2 * i, sluice_bfloat_from_float(x[i]));
        break;
    default: memcpy(out, x, n * sizeof *x); break;
    }
}

static void quantize_blocks(const format *f, uint32_t block_len, uint32_t block_bytes, const float *x, size_t n, const float *importance, uint8_t *out)
{
    float w[SUPER];

    block_weights(NULL, block_len, w);
    for (size_t i = 0; i < n; i += block_len, out += block_bytes) {
        if (importance != NULL)
            block_weights(importance + i, block_len, w);
        f->quantize(x + i, w, out);
    }
}

sluice_status sluice_quantize_row(uint32_t type, const float *x, size_t n, const float *importance, uint8_t *out, sluice_error *err)
{
    uint32_t block_len = 0, block_bytes = 0;
    sluice_status st;

    if (!sluice_can_quantize(type) || !sluice_tensor_type_block(type, &block_len, &block_bytes))
        return sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "quantize: no quantizer for the type %s", sluice_tensor_type_name(type));
    if (n % block_len != 0)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "quantize: %zu elements are no whole blocks of %s", n, sluice_tensor_type_name(type));
    st = check_numbers(type, x, n, err);
    if (st != SLUICE_OK)
        return st;
    if (is_plain(type))
        quantize_plain(type, x, n, out);
    else
        quantize_blocks(format_of(type), block_len, block_bytes, x, n, importance, out);
    return SLUICE_OK;
}

bool sluice_dequantize_row(uint32_t type, const uint8_t *in, size_t n, float *out)
{
    uint32_t block_len = 0, block_bytes = 0;

    if (!sluice_can_quantize(type) || !sluice_tensor_type_block(type, &block_len, &block_bytes) || n % block_len != 0)
        return false;
    switch (type) {
    case SLUICE_TENSOR_F32: memcpy(out, in, n * sizeof *out); break;
    case SLUICE_TENSOR_F16:
        for (size_t i = 0; i < n; i++)
            out[i] = get_half(in + 2 * i);
        break;
    case SLUICE_TENSOR_BF16:
        for (size_t i = 0; i < n; i++)
            out[i] = sluice_float_from_bfloat(get_u16(in + 2 * i));
        break;
    default:
        for (size_t i = 0; i < n; i += block_len, in += block_bytes)
            format_of(type)->dequantize(in, out + i);
        break;
    }
    return true;
}

void sluice_quantize(sluice_tensor_type type, const float *in, size_t n, uint8_t *out)
{
    (void)sluice_quantize_row((uint32_t)type, in, n, NULL, out, NULL);
}

void sluice_dequantize(sluice_tensor_type type, const uint8_t *in, size_t n, float *out)
{
    (void)sluice_dequantize_row((uint32_t)type, in, n, out);
}
