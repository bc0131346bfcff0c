/* fake_platform.h - the default platform with everything that a test wants to hold in its hands.
 *
 *   fake_platform fp;
 *   fake_platform_init(&fp, 7);                      seed of its randomness
 *   fake_platform_fail(&fp, FAKE_SYNC, 0);           the next sync fails
 *   … use &fp.platform …
 *   fake_platform_deinit(&fp);
 *
 * Files are real (use a temp_dir), threads are real.  The clocks stand still until the test moves them; a cond_wait with
 * a deadline then returns about once a millisecond of real time, as a spurious wakeup, and its caller looks at the
 * fake clock again.  Keys are kept in memory; set platform.key_load and key_store to NULL for key files.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_SUPPORT_FAKE_PLATFORM_H
#define SLUICE_TESTS_SUPPORT_FAKE_PLATFORM_H

#include <stdatomic.h>

#include "sdk/platform/platform.h"

typedef enum fake_op {
    FAKE_RANDOM, FAKE_OPEN, FAKE_READ, FAKE_WRITE, FAKE_TRUNCATE, FAKE_SYNC, FAKE_LOCK, FAKE_RENAME, FAKE_REMOVE, FAKE_MAKE_DIR, FAKE_MAP,
    FAKE_THREAD, FAKE_KEY_LOAD, FAKE_KEY_STORE, FAKE_N_OPS
} fake_op;

enum { FAKE_KEYS_MAX = 32 };

typedef struct fake_platform {
    sluice_platform platform;          /* hand out its address */
    const sluice_platform *real;

    atomic_uint_fast64_t now_us;       /* starts at one second */
    atomic_int_fast64_t wall_ms;       /* starts at 2026-01-01T00:00:00Z; negative: not to be trusted */
    bool real_clock;                   /* use the system's clocks instead; set it before any thread runs */

    uint64_t seed;                     /* equal seeds give equal randomness where one thread draws */
    atomic_uint_fast64_t n_drawn;

    atomic_size_t count[FAKE_N_OPS];   /* calls so far */
    atomic_size_t fail_at[FAKE_N_OPS]; /* this call fails, counted from 0; SIZE_MAX: none */
    atomic_bool fail_on[FAKE_N_OPS];   /* and all after it */
    bool torn_writes;                  /* a failing write writes half of its bytes first */

    sluice_device_state device;        /* what device_state() says; starts as a phone that is well */

    struct { char name[65]; uint8_t key[32]; } keys[FAKE_KEYS_MAX];
    size_t n_keys;

    sluice_buf log;                    /* every message, a line each, up to 1 MiB; not for reading while threads run */
    bool log_to_stderr;
    atomic_flag lock;                  /* keys and log */
} fake_platform;

void fake_platform_init(fake_platform *fp, uint64_t seed);
void fake_platform_deinit(fake_platform *fp); /* wipes keys, releases the log */
void fake_platform_advance_us(fake_platform *fp, uint64_t us); /* both clocks */
void fake_platform_set_wall_ms(fake_platform *fp, int64_t wall_ms);

/* The n-th call from now fails, 0 being the next; later ones succeed again. Files fail with SLUICE_ERR_IO. */
void fake_platform_fail(fake_platform *fp, fake_op op, size_t n);
void fake_platform_fail_on(fake_platform *fp, fake_op op, size_t n); /* it and all later ones */
void fake_platform_heal(fake_platform *fp);                          /* nothing fails any more */

#endif
