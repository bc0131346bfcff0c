/* sim.h - a small world in which the real driver, machine, policy, gate, ledger, sealing and answer parsing run.
 *
 * Simulated: time, randomness, files, the local model, the network and the gateway behind it.  Real: everything between.  One seed decides all of
 * it, so a run replays byte for byte.  One stream of random numbers per domain: a new draw in one leaves the others as they were.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_SIMULATION_SIM_H
#define SLUICE_TESTS_SIMULATION_SIM_H

#include "sdk/src/instance.h"

/* ---- random ------------------------------------------------------------------------------------------- */
typedef struct sim_random { uint64_t state; } sim_random;
sim_random sim_random_make(uint64_t seed, const char *domain);
uint64_t sim_next(sim_random *r);
uint32_t sim_below(sim_random *r, uint32_t n);  /* [0, n) */
bool sim_chance(sim_random *r, uint32_t percent);

/* ---- platform ------------------------------------------------------------------------------------------- */
enum { SIM_FILES_MAX = 16, SIM_PATH_MAX = 128 };
typedef struct sim_disk_file { char path[SIM_PATH_MAX]; uint8_t *data; size_t len, cap; bool exists; } sim_disk_file;
typedef struct sim_platform {
    sluice_platform vtable;
    uint64_t now_us;
    int64_t wall_ms;
    sim_random random, disk_random;
    uint32_t disk_fault_percent;   /* of writes and syncs */
    sim_disk_file files[SIM_FILES_MAX];
    sluice_device_state device;
    struct { char name[72]; uint8_t key[32]; bool is_set; } keys[8];
} sim_platform;
void sim_platform_init(sim_platform *p, uint64_t seed);
void sim_platform_deinit(sim_platform *p);

/* ---- world --------------------------------------------------------------------------------------------- */
typedef struct sim_result {
    uint64_t trace;             /* hash over everything that the app and the network saw, with times */
    uint32_t n_requests, n_envelopes, n_done;
    uint32_t outcomes[9];       /* by sluice_outcome */
    uint32_t routes[6];         /* of the terminal events */
    uint32_t faults[16];        /* by sim_fault */
    char violation[256];        /* empty: every invariant held */
} sim_result;

typedef enum sim_fault {
    SIM_FAULT_NONE = 0, SIM_FAULT_REFUSED, SIM_FAULT_STALL, SIM_FAULT_CUT, SIM_FAULT_STATUS, SIM_FAULT_FORGED, SIM_FAULT_PIN, SIM_FAULT_TLS,
    SIM_FAULT_INNER_ERROR, SIM_FAULT_NO_END_MARK, SIM_FAULT_PLAIN_TYPE, SIM_FAULTS_COUNT
} sim_fault;

typedef struct sim_options {
    bool is_verbose;
    const sluice_allocator *allocator; /* of the instance; NULL: malloc.  It may fail: then less is answered, and no invariant is broken */
    /* Defects planted to show that the invariants can fail: */
    bool observer_forgets_consents; /* every envelope then looks uncovered */
} sim_options;

void sim_run(uint64_t seed, const sim_options *options, sim_result *out);

#endif
