/* house.h - a real gateway, and a client's real way to it: policy, consent, ledger, gate, seal, TLS, and back.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_INTEGRATION_HOUSE_H
#define SLUICE_TESTS_INTEGRATION_HOUSE_H

#include <sys/types.h>

#include "cloud-adapters/oblivious/seal.h"
#include "cloud-adapters/providers/provider.h"
#include "cloud-adapters/transport/transport.h"
#include "policies/egress.h"
#include "tests/support/temp_dir.h"

/* `sluice-gateway serve` as a child process.  `dir` is its folder, made by init where it is new. */
typedef struct gateway_process {
    temp_dir work;
    pid_t pid;
    char *endpoint; /* endpoint.json with the port in it */
} gateway_process;

bool gateway_process_open(gateway_process *g, const char *const *arguments /* after DIR; NULL-terminated */);
int gateway_process_stop(gateway_process *g); /* SIGTERM; its exit status, or -1 when it did not exit by itself */
void gateway_process_close(gateway_process *g);
void *gateway_process_tap(gateway_process *g, size_t *len);  /* what it has tapped so far; free() */
void house_programs(const char *gateway, const char *model); /* from the test's arguments */

/* Everything on the client's side. */
typedef struct house {
    temp_dir state;
    sluice_policy *policy;
    sluice_ledger *ledger;
    sluice_consent_store *consents;
    sluice_egress_gate *gate;
    sluice_transport transport;
} house;

void house_open(house *h, const char *endpoint_json);
void house_close(house *h);

/* One question, sealed, and what became of it. */
typedef struct house_answer {
    sluice_envelope *envelope;
    sluice_answer_opener *opener;
    sluice_provider_reader *reader;
    const sluice_provider *provider;
    bool is_over, was_sent, is_begun, is_whole; /* whole: sealed stream and dialect ended as they must */
    int outer_status, inner_status;
    sluice_error error;       /* of the exchange, the seal or the dialect: the first one */
    char inner_headers[1024]; /* "name=value\n" each */
    char text[65536];
    size_t n_text, n_pieces;
} house_answer;

typedef struct house_question {
    const char *text;
    bool is_streamed;
    int64_t date_offset_ms;
    uint32_t first_byte_ms;
} house_question;

/* Gate and seal; the answer's envelope is there when it returns SLUICE_OK. */
sluice_status house_seal(house *h, const house_question *q, house_answer *a);
/* Send the envelope and wait for the end. */
void house_send(house *h, const house_question *q, house_answer *a);
void house_answer_close(house_answer *a);

#endif
