/* openai_chat.h - the "openai-chat" row of the provider table.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_CLOUD_OPENAI_CHAT_H
#define SLUICE_CLOUD_OPENAI_CHAT_H

#include "cloud-adapters/providers/provider.h"

extern const sluice_provider sluice_provider_openai_chat;

#endif
