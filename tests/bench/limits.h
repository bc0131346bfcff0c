/* limits.h - what this machine can do at most: what an engine's speed is a share of.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_BENCH_LIMITS_H
#define SLUICE_TESTS_BENCH_LIMITS_H

#include <stddef.h>
#include <stdint.h>

/* Gigabytes (10^9) a second that n_threads threads together read from a buffer of `bytes` (far larger than the caches), best of a few
 * rounds: streaming loads with the sum kept.  0 when memory is short. */
double limits_read_gb_per_s(uint32_t n_threads, size_t bytes);

/* Billions of 8-bit multiplications and additions (two for each product) a second of n_threads threads, operands in registers, with the widest dot product that
 * this machine has and our kernels use: dpbusd of 512 bits, maddubs of 256, sdot.  *what names it.  0 where there is none. */
double limits_int8_gop_per_s(uint32_t n_threads, const char **what);

#endif
