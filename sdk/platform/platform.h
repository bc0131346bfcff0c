/* platform.h - helpers over the platform vtable, and the cpu feature bits.
 *
 * The operating system itself is in <feature>_<os>.c files behind sluice_platform_default().
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_SDK_PLATFORM_PLATFORM_H
#define SLUICE_SDK_PLATFORM_PLATFORM_H

#include "sdk/base/base.h"
#include "sluice/platform.h"

/* Only what the operating system also saves on a context switch is reported. */
enum {
    SLUICE_CPU_AVX2 = 1u << 0, SLUICE_CPU_FMA = 1u << 1, SLUICE_CPU_F16C = 1u << 2,
    SLUICE_CPU_AVX512 = 1u << 3,      /* F, BW, VL, DQ */
    SLUICE_CPU_AVX512_VNNI = 1u << 4, SLUICE_CPU_AVX_VNNI = 1u << 5,
    SLUICE_CPU_NEON = 1u << 16, SLUICE_CPU_DOTPROD = 1u << 17, SLUICE_CPU_I8MM = 1u << 18, SLUICE_CPU_FP16 = 1u << 19
};
uint32_t sluice_cpu_features(void);

static inline uint64_t sluice_now_us(const sluice_platform *p) { return p->now_us(p->user); }
static inline int64_t sluice_wall_ms(const sluice_platform *p) { return p->wall_ms(p->user); }
static inline sluice_status sluice_random(const sluice_platform *p, void *out, size_t len, sluice_error *err) { return p->random(p->user, out, len, err); }

/* Every required member present and size sane?  SLUICE_ERR_ARGUMENT names the missing one. */
sluice_status sluice_platform_check(const sluice_platform *p, sluice_error *err);

/* Read a whole file of at most max_bytes into `out` (initialised by the caller).  SLUICE_ERR_LIMIT when it is larger. */
sluice_status sluice_platform_read_file(const sluice_platform *p, const char *path, size_t max_bytes, sluice_buf *out, sluice_error *err);

/* Replace a file whole or not at all: write `path`.tmp, sync, rename. */
sluice_status sluice_platform_write_file(const sluice_platform *p, const char *path, sluice_span data, sluice_error *err);

/* "dir/name" into out; SLUICE_ERR_LIMIT when it does not fit. */
sluice_status sluice_path_join(char *out, size_t cap, const char *dir, const char *name, sluice_error *err);

/* 32-byte secret by name: key_load of the platform or, where that is NULL, the file state_dir/keys/NAME.key;
 * made from the platform's randomness and stored when missing.  *created may be NULL. */
sluice_status sluice_platform_key(const sluice_platform *p, const char *state_dir, const char *name, uint8_t out[32], bool *created, sluice_error *err);

void sluice_log(const sluice_platform *p, sluice_log_level level, const char *fmt, ...) SLUICE_PRINTF(3, 4);

#endif
