/* provider.c - the table of dialects.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cloud-adapters/providers/provider.h"

#include "cloud-adapters/providers/openai_chat.h"

const sluice_provider *sluice_provider_find(const char *adapter)
{
    static const sluice_provider *const rows[] = { &sluice_provider_openai_chat };

    for (size_t i = 0; adapter != NULL && i < sizeof rows / sizeof rows[0]; i++)
        if (strcmp(rows[i]->name, adapter) == 0)
            return rows[i];
    return NULL;
}
