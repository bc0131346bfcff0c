/* consent.h - consent records: purpose x data classes x endpoint x expiry, stored, revocable, never widened by a clock.
 *
 * The store is a projection of the ledger's "consent" entries, kept in memory: granting appends to the ledger first.  Without a ledger nothing can
 * be granted.  Revoking takes effect in memory at once, even where it cannot be written.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_POLICIES_CONSENT_H
#define SLUICE_POLICIES_CONSENT_H

#include "policies/ledger.h"
#include "policies/policy.h"

typedef struct sluice_consent_store sluice_consent_store;

/* Rebuilt from the ledger (which may be NULL: then the store is empty and read-only).  Session consents do not survive. */
sluice_status sluice_consent_open(sluice_consent_store **out, sluice_ledger *ledger, const sluice_platform *platform, const sluice_allocator *al,
                                  sluice_error *err);
void sluice_consent_close(sluice_consent_store *c);

sluice_status sluice_consent_add(sluice_consent_store *c, const sluice_policy *policy, const sluice_consent *consent, char *id_out,
                                 sluice_error *err);
sluice_status sluice_consent_refuse(sluice_consent_store *c, const sluice_policy *policy, size_t purpose, size_t endpoint,
                                    sluice_data_classes classes, sluice_error *err);
sluice_status sluice_consent_withdraw(sluice_consent_store *c, const char *id, sluice_error *err);
size_t sluice_consent_count(const sluice_consent_store *c);
void sluice_consent_get(sluice_consent_store *c, size_t i, sluice_consent *out); /* state as of now */

/* Does a consent cover this?  SLUICE_REASON_PERMITTED and *index, or MISSING, EXPIRED, REVOKED, REFUSED, CLOCK_UNTRUSTED.
 * `now_ms` is the wall clock; the store keeps a high-water mark, so a clock set back never revives an expired consent. Pure but for the mark. */
sluice_reason sluice_consent_covers(sluice_consent_store *c, const sluice_policy *policy, size_t purpose, size_t endpoint,
                                    sluice_data_classes classes, int64_t now_ms, size_t *index);

/* Raised by every withdrawal and refusal: who has looked at a consent before looks again when it has changed. */
uint64_t sluice_consent_generation(const sluice_consent_store *c);

/* Does consent `index`, which covered the classes when it was looked up (and may be spent since), still stand?  PERMITTED, REVOKED or REFUSED. */
sluice_reason sluice_consent_stands(const sluice_consent_store *c, size_t index, sluice_data_classes classes);

/* The wall clock, never behind what it or the ledger has shown before; < 0 where `now_ms` is.  Raises the mark. */
int64_t sluice_consent_clock(sluice_consent_store *c, int64_t now_ms);

/* A scope-once consent has been used by a grant: recorded before the grant is handed out. */
sluice_status sluice_consent_spend(sluice_consent_store *c, size_t index, sluice_error *err);

#endif
