/* fake_envelope.h - envelopes that no gate and no seal have made, for trying the transport alone.
 *
 * A program that links fake_envelope.c has these accessors instead of those of cloud-adapters/oblivious/seal.c, which the linker then leaves
 * out.  It lets the transport meet destinations that no policy file would pass.  tests/integration goes the whole way.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_UNIT_CLOUD_FAKE_ENVELOPE_H
#define SLUICE_TESTS_UNIT_CLOUD_FAKE_ENVELOPE_H

#include "policies/grant.h"

typedef struct fake_envelope {
    sluice_destination destination;
    const char *pins[8];
    const char *content_type;
    const char *bytes;
} fake_envelope;

const sluice_envelope *fake_envelope_view(const fake_envelope *fake);

#endif
