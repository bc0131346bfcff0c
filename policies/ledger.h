/* ledger.h - the append-only, hash-chained, authenticated record of what was decided and what left.
 *
 * One file, state_dir/ledger.  An entry is durable when append returns.  A torn tail left by a crash is cut on open (and noted); a
 * change, a removal or a swap anywhere else is SLUICE_ERR_INTEGRITY.  Prompts are never in it: a keyed digest at most.
 *
 * An entry is a line that a person can read:
 *   {"seq":1,"time_ms":1763690000000,"time":"2025-11-21T01:53:20.000Z","type":"egress", …fields…,"prev":"…","mac":"…"}
 * "prev" is the BLAKE2b-256 of the line before it, "mac" is keyed and covers everything in front of it.  state_dir/ledger.head holds number and hash of the
 * last entry, so that entries cut off at the end are missed.
 *
 * Threads: one at a time (the orchestrator); the façade locks.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_POLICIES_LEDGER_H
#define SLUICE_POLICIES_LEDGER_H

#include "sdk/platform/platform.h"
#include "sluice/sluice.h"

typedef struct sluice_ledger sluice_ledger;

typedef struct sluice_ledger_field { const char *name; const char *text; uint64_t number; } sluice_ledger_field; /* text NULL: the number */

/* Open, verify and lock.  Errors: _IO (cannot be written), _STATE (another process), _INTEGRITY, _NO_MEMORY. */
sluice_status sluice_ledger_open(sluice_ledger **out, const char *state_dir, const sluice_platform *platform, const sluice_allocator *al,
                                 sluice_error *err);
void sluice_ledger_close(sluice_ledger *l); /* accepts NULL */

enum { SLUICE_LEDGER_ENTRY_BYTES_MAX = 8192, SLUICE_LEDGER_FIELDS_MAX = 24 };

/* Append one entry of a type ("egress", "consent", "decision", "policy", "attempt", "outcome") and make it durable.  *seq may be NULL.
 * Names of fields are [a-z][a-z0-9_]*, each once, and none of seq, time, time_ms, type, prev, mac: SLUICE_ERR_ARGUMENT.  SLUICE_ERR_LIMIT: too large.
 * After a failed write the ledger refuses further appends until it has been opened again: no ledger, no egress. */
sluice_status sluice_ledger_append(sluice_ledger *l, const char *type, const sluice_ledger_field *fields, size_t n_fields,
                                   uint64_t *seq, sluice_error *err);
bool sluice_ledger_is_writable(const sluice_ledger *l);

sluice_status sluice_ledger_walk(sluice_ledger *l, sluice_line_fn on_line, void *user, sluice_error *err);
sluice_status sluice_ledger_check(sluice_ledger *l, uint64_t *n_entries, sluice_error *err); /* from the file, not from memory */

/* The latest trusted wall clock that any entry carries, in ms; 0 when there is none.  No clock that is set back gets behind it. */
int64_t sluice_ledger_time_max(const sluice_ledger *l);

/* Keyed digest of bytes (for correlation, never reversible without the device's key). */
void sluice_ledger_digest(const sluice_ledger *l, sluice_span data, uint8_t out[32]);

#endif
