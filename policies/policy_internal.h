/* policy_internal.h - what the reader and the linter of policy files share.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_POLICIES_POLICY_INTERNAL_H
#define SLUICE_POLICIES_POLICY_INTERNAL_H

#include "policies/policy.h"
#include "sdk/base/json.h"

/* Every kind of finding.  The codes are P001 … in docs/policy.md: append, never renumber or reuse. */
typedef enum sluice_policy_code {
    P_NOT_JSON = 1, P_DUPLICATE_KEY = 2, P_TOO_LARGE = 3, P_NOT_OBJECT = 4,
    P_UNKNOWN_FIELD = 10, P_MISSING_FIELD = 11, P_WRONG_TYPE = 12, P_OUT_OF_RANGE = 13, P_UNKNOWN_WORD = 14, P_FORMAT_VERSION = 15,
    P_BAD_ID = 16, P_BAD_DATE = 17, P_BAD_URL = 18, P_BAD_PIN = 19, P_BAD_KEY_CONFIG = 20, P_BAD_TARGET = 21, P_BAD_PEM = 22,
    P_TOO_MANY = 23, P_EMPTY_LIST = 24, P_REPEATED_ITEM = 25, P_BAD_TEXT = 26,
    P_DUPLICATE_ID = 30, P_UNDEFINED_NAME = 31, P_PERMIT_UNBOUNDED = 32, P_WRONG_EFFECT = 33, P_TRUST_ANCHORS = 34, P_CA_FILE = 35,
    P_THRESHOLDS = 36, P_RESERVE = 37,
    P_NO_RULES = 101, P_SINGLE_PIN = 102, P_PERMIT_WITHOUT_CONSENT = 103, P_SHADOWED = 104, P_UNUSED_PURPOSE = 105, P_UNUSED_ENDPOINT = 106,
    P_LOOKS_LIKE_KEY = 107, P_EXPIRED = 108, P_NO_ANSWER = 109, P_NEVER_MATCHES = 110, P_CONSENT_OVERRULED = 111
} sluice_policy_code;

enum { SLUICE_POLICY_FINDINGS_MAX = 100 }; /* a file that is wrong all over is not worth more */

/* One reading of one file. */
typedef struct sluice_policy_reader {
    sluice_span text;
    sluice_policy *policy;
    sluice_policy_file_fn read_file;
    void *read_user;
    sluice_policy_finding_fn on_finding;
    void *finding_user;
    const sluice_allocator *al;
    sluice_error *err;         /* the first error fills it */
    sluice_status status;      /* of the first error; SLUICE_OK while there is none */
    bool is_out_of_memory;     /* overrides whatever was found */
    size_t n_findings;
} sluice_policy_reader;

/* Report at a byte offset of the text.  hint may be "". */
void sluice_policy_report(sluice_policy_reader *r, sluice_policy_code code, size_t offset, const char *hint, const char *fmt, ...)
    SLUICE_PRINTF(5, 6);

/* Warnings on a policy without errors. */
void sluice_policy_lint_tree(sluice_policy_reader *r, const sluice_json *root);

#endif
