/* gate.h - grants for tests, from the real egress gate: a policy of one endpoint, a ledger in a folder of its own, a clock that stands still.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_CLOUD_GATE_H
#define SLUICE_TESTS_CLOUD_GATE_H

#include "policies/egress.h"
#include "tests/support/fake_platform.h"
#include "tests/support/temp_dir.h"

typedef struct test_gate {
    temp_dir dir;
    fake_platform fp;
    sluice_policy policy;
    sluice_ledger *ledger;
    sluice_consent_store *consents;
    sluice_egress_gate *gate;
    uint8_t key_config[512];
} test_gate;

extern const uint8_t TEST_GATEWAY_SECRET[32]; /* key id 7 */

/* `key_config` empty: the one of TEST_GATEWAY_SECRET.  Anything that fails ends the test. */
void test_gate_open(test_gate *g, sluice_span key_config);
void test_gate_close(test_gate *g);
sluice_grant *test_gate_grant(test_gate *g, sluice_span plaintext); /* good for ten seconds; close it with sluice_grant_close() */

#endif
