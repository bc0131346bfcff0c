/* grant.h - the two types that carry the rule "no grant, no bytes".
 *
 * A grant is made by policies/egress.c alone, an envelope by cloud-adapters/oblivious/seal.c alone; both structs are
 * defined in those files and nowhere else.  Sealing consumes a grant, the transport takes envelopes only: so no code path
 * without policy and consent can build what reaches a socket.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_POLICIES_GRANT_H
#define SLUICE_POLICIES_GRANT_H

#include "sdk/base/base.h"

typedef struct sluice_grant sluice_grant;       /* permission for one sealing of one payload to one destination */
typedef struct sluice_envelope sluice_envelope; /* sealed bytes with their destination */

/* Where an envelope goes.  Borrowed from the policy, which outlives it. */
typedef struct sluice_destination {
    const char *endpoint_id;
    const char *url;
    const char *ca_pem;
    const char *const *spki_pins; /* base64 SHA-256 */
    size_t n_spki_pins;
    sluice_span key_config;       /* application/ohttp-keys */
    uint32_t response_bytes_max;
} sluice_destination;

/* Spend the grant on exactly these plaintext bytes at this instant (monotonic clock): single use, size, digest and expiry are checked.
 * SLUICE_ERR_STATE when it was used before, _INTEGRITY when the payload is another, _TIMEOUT when it has expired, _CONSENT when it was revoked meanwhile. */
sluice_status sluice_grant_spend(sluice_grant *g, sluice_span plaintext, uint64_t now_us, sluice_error *err);
const sluice_destination *sluice_grant_destination(const sluice_grant *g);
uint64_t sluice_grant_ledger_seq(const sluice_grant *g);
const char *sluice_grant_consent_id(const sluice_grant *g); /* "" where the rule needs none */
const char *sluice_grant_rule_id(const sluice_grant *g);
void sluice_grant_close(sluice_grant *g);                   /* accepts NULL; wipes */

sluice_span sluice_envelope_bytes(const sluice_envelope *e);         /* the encapsulated request */
const char *sluice_envelope_content_type(const sluice_envelope *e);  /* "message/ohttp-req" or "message/ohttp-chunked-req" */
const sluice_destination *sluice_envelope_destination(const sluice_envelope *e);
void sluice_envelope_close(sluice_envelope *e);                      /* accepts NULL; wipes */

#endif
