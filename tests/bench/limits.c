/* limits.c - measures peak read bandwidth and peak int8 arithmetic.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/bench/limits.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/platform/platform.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

enum { MAX_THREADS = 16, ROUNDS = 7 };

typedef struct job {
    const uint8_t *data;
    size_t bytes;
    uint64_t n_steps;
    uint64_t (*run)(const struct job *);
    uint64_t result;            /* keeps the compiler from dropping the work */
    sluice_thread *thread;
} job;

static void start(void *arg)
{
    job *j = arg;

    j->result = j->run(j);
}

/* Seconds until all are done. */
static double run_all(job *jobs, uint32_t n)
{
    const sluice_platform *p = sluice_platform_default();
    sluice_error err = SLUICE_ERROR_INIT;
    const uint64_t begin = p->now_us(p->user);

    for (uint32_t i = 1; i < n; i++)
        if (p->thread_start(p->user, &jobs[i].thread, start, &jobs[i], "limits", &err) != SLUICE_OK)
            jobs[i].thread = NULL;
    start(&jobs[0]);
    for (uint32_t i = 1; i < n; i++) {
        if (jobs[i].thread != NULL)
            p->thread_join(p->user, jobs[i].thread);
        else
            start(&jobs[i]);
    }
    return (double)(p->now_us(p->user) - begin) * 1e-6;
}

/* ---- reading */

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t read_avx2(const job *j)
{
    __m256i s[4] = { _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256() };
    uint64_t out[4];

    for (size_t i = 0; i + 128 <= j->bytes; i += 128) {
        _mm_prefetch((const char *)j->data + i + 6144, _MM_HINT_T0);
        _mm_prefetch((const char *)j->data + i + 6208, _MM_HINT_T0);
        for (size_t k = 0; k < 4; k++)
            s[k] = _mm256_add_epi64(s[k], _mm256_loadu_si256((const __m256i *)(const void *)(j->data + i + 32 * k)));
    }
    _mm256_storeu_si256((__m256i *)(void *)out, _mm256_add_epi64(_mm256_add_epi64(s[0], s[1]), _mm256_add_epi64(s[2], s[3])));
    return out[0] + out[1] + out[2] + out[3];
}
#endif

static uint64_t read_plain(const job *j)
{
    const uint64_t *w = (const uint64_t *)(const void *)j->data;
    uint64_t s[4] = { 0, 0, 0, 0 };

    for (size_t i = 0; i + 4 <= j->bytes / 8; i += 4)
        for (size_t k = 0; k < 4; k++)
            s[k] += w[i + k];
    return s[0] + s[1] + s[2] + s[3];
}

double limits_read_gb_per_s(uint32_t n_threads, size_t bytes)
{
    const uint32_t n = n_threads < 1 ? 1 : n_threads > MAX_THREADS ? MAX_THREADS : n_threads;
    uint64_t (*run)(const job *) = read_plain;
    uint8_t *data = malloc(bytes);
    job jobs[MAX_THREADS];
    double best = 0;

    if (data == NULL)
        return 0;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        run = read_avx2;
#endif
    memset(data, 1, bytes);
    memset(jobs, 0, sizeof jobs);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        double seconds;

        for (uint32_t i = 0; i < n; i++) {
            jobs[i].data = data + bytes / n / 64 * 64 * i;
            jobs[i].bytes = bytes / n / 64 * 64;
            jobs[i].run = run;
        }
        seconds = run_all(jobs, n);
        best = best > 0 && best < seconds ? best : seconds;
    }
    free(data);
    return (double)(bytes / n / 64 * 64 * n) / best * 1e-9;
}

/* ---- arithmetic: twelve chains, so that a result that takes five cycles does not hold up the next */

enum { CHAINS = 12 };

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bw,avx512vnni"))) static uint64_t multiply_vnni512(const job *j)
{
    __m512i s[CHAINS];
    const __m512i a = _mm512_set1_epi8((char)j->n_steps), b = _mm512_set1_epi8(3);

#pragma GCC unroll 12 /* every loop over s: one that is not keeps the sums in memory, at half the speed */
    for (size_t k = 0; k < CHAINS; k++)
        s[k] = _mm512_set1_epi32((int)k);
    for (uint64_t i = 0; i < j->n_steps; i++) {
#pragma GCC unroll 12
        for (size_t k = 0; k < CHAINS; k++)
            s[k] = _mm512_dpbusd_epi32(s[k], a, b);
        __asm__ volatile("" : "+v"(s[0]), "+v"(s[1]), "+v"(s[2]), "+v"(s[3]), "+v"(s[4]), "+v"(s[5]));
    }
#pragma GCC unroll 12
    for (size_t k = 1; k < CHAINS; k++)
        s[0] = _mm512_add_epi32(s[0], s[k]);
    return (uint64_t)(uint32_t)_mm512_reduce_add_epi32(s[0]);
}

__attribute__((target("avx2"))) static uint64_t multiply_avx2(const job *j)
{
    __m256i s[8];
    const __m256i one = _mm256_set1_epi16(1);
    __m256i a = _mm256_set1_epi8((char)j->n_steps), b = _mm256_set1_epi8(3);
    uint64_t out[4];

#pragma GCC unroll 12
    for (size_t k = 0; k < 8; k++)
        s[k] = _mm256_set1_epi32((int)k);
    for (uint64_t i = 0; i < j->n_steps; i++) {
        __asm__ volatile("" : "+x"(a), "+x"(b));
#pragma GCC unroll 8
        for (size_t k = 0; k < 8; k++)
            s[k] = _mm256_add_epi32(s[k], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), one));
    }
#pragma GCC unroll 12
    for (size_t k = 1; k < 8; k++)
        s[0] = _mm256_add_epi32(s[0], s[k]);
    _mm256_storeu_si256((__m256i *)(void *)out, s[0]);
    return out[0] + out[1] + out[2] + out[3];
}
#elif defined(__aarch64__)
__attribute__((target("arch=armv8.2-a+dotprod"))) static uint64_t multiply_sdot(const job *j)
{
    int32x4_t s[CHAINS];
    const int8x16_t a = vdupq_n_s8((int8_t)j->n_steps), b = vdupq_n_s8(3);

#pragma GCC unroll 12
    for (size_t k = 0; k < CHAINS; k++)
        s[k] = vdupq_n_s32((int32_t)k);
    for (uint64_t i = 0; i < j->n_steps; i++) {
#pragma GCC unroll 12
        for (size_t k = 0; k < CHAINS; k++)
            s[k] = vdotq_s32(s[k], a, b);
        __asm__ volatile("" : "+w"(s[0]), "+w"(s[1]), "+w"(s[2]), "+w"(s[3]));
    }
#pragma GCC unroll 12
    for (size_t k = 1; k < CHAINS; k++)
        s[0] = vaddq_s32(s[0], s[k]);
    return (uint64_t)(uint32_t)vaddvq_s32(s[0]);
}
#endif

double limits_int8_gop_per_s(uint32_t n_threads, const char **what)
{
    const uint32_t n = n_threads < 1 ? 1 : n_threads > MAX_THREADS ? MAX_THREADS : n_threads;
    uint64_t (*run)(const job *) = NULL;
    double ops = 0, best = 0;
    job jobs[MAX_THREADS];

    *what = "none";
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512vnni")) {
        run = multiply_vnni512;
        ops = 128.0 * CHAINS;
        *what = "dpbusd, 512 bits";
    } else if (__builtin_cpu_supports("avx2")) {
        run = multiply_avx2;
        ops = 64.0 * 8;
        *what = "maddubs + madd, 256 bits";
    }
#elif defined(__aarch64__)
    if (sluice_cpu_features() & SLUICE_CPU_DOTPROD) {
        run = multiply_sdot;
        ops = 32.0 * CHAINS;
        *what = "sdot";
    }
#endif
    if (run == NULL)
        return 0;
    memset(jobs, 0, sizeof jobs);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        double seconds;

        for (uint32_t i = 0; i < n; i++) {
            jobs[i].n_steps = 20 * 1000 * 1000;
            jobs[i].run = run;
        }
        seconds = run_all(jobs, n);
        best = best > 0 && best < seconds ? best : seconds;
    }
    return ops * 20e6 * n / best * 1e-9;
}
