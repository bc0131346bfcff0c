/* fake_envelope.c - see fake_envelope.h
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/unit/cloud/fake_envelope.h"

static const fake_envelope *fake_of(const sluice_envelope *e)
{
    return (const fake_envelope *)(const void *)e;
}

const sluice_envelope *fake_envelope_view(const fake_envelope *fake)
{
    return (const sluice_envelope *)(const void *)fake;
}

sluice_span sluice_envelope_bytes(const sluice_envelope *e)
{
    return sluice_span_str(fake_of(e)->bytes);
}

const char *sluice_envelope_content_type(const sluice_envelope *e)
{
    return fake_of(e)->content_type;
}

const sluice_destination *sluice_envelope_destination(const sluice_envelope *e)
{
    return &fake_of(e)->destination;
}
