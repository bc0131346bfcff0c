/* egress.h - the egress gate: the only maker of a grant.
 *
 * It checks policy, consent, size and destination against each other once more, writes the ledger entry durably, and only then returns a grant.
 * Everything missing (policy, ledger, trusted clock, known purpose) is a refusal.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_POLICIES_EGRESS_H
#define SLUICE_POLICIES_EGRESS_H

#include "policies/consent.h"
#include "policies/grant.h"

typedef struct sluice_egress_gate sluice_egress_gate; /* borrows policy, consents, ledger; any may be NULL: then it refuses */

sluice_status sluice_egress_open(sluice_egress_gate **out, const sluice_policy *policy, sluice_consent_store *consents, sluice_ledger *ledger,
                                 const sluice_platform *platform, const sluice_allocator *al, sluice_error *err);
void sluice_egress_close(sluice_egress_gate *gate);

typedef struct sluice_egress_request {
    uint64_t request_id;
    uint32_t attempt;               /* 1, 2, … */
    sluice_policy_query query;      /* wall_ms is filled in by the gate */
    sluice_span plaintext;          /* what will be sealed: its length and keyed digest are bound into the grant and the ledger */
    uint64_t expires_us;            /* monotonic: the request's deadline */
} sluice_egress_request;

/* Ask for a grant.  On refusal: SLUICE_ERR_CONSENT or SLUICE_ERR_POLICY, *reason says which, *out is NULL, and the refusal is
 * in the ledger where that can be written.  SLUICE_ERR_IO with SLUICE_REASON_LEDGER_UNAVAILABLE when the entry cannot be made durable. */
sluice_status sluice_egress_grant(sluice_egress_gate *gate, const sluice_egress_request *request, sluice_grant **out, sluice_reason *reason,
                                  sluice_error *err);

/* Would it be granted?  Writes nothing.  The same verdict logic as above. */
sluice_reason sluice_egress_check(sluice_egress_gate *gate, const sluice_policy_query *query, int *rule, size_t *consent_index);

#endif
