/* policy_schema.c - the published JSON Schema of policy files, as it is in policies/policy.schema.json.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "policies/policy.h"

static const uint8_t text[] = {
#include "policy_schema.inc" /* made from the file by CMakeLists.txt */
};

sluice_span sluice_policy_schema_text(void)
{
    return sluice_span_of(text, sizeof text);
}
