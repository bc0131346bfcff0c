/* aes128gcm.h - AES-128-GCM for tests: the published OHTTP vectors use it, the library does not.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_CLOUD_AES128GCM_H
#define SLUICE_TESTS_CLOUD_AES128GCM_H

#include "cloud-adapters/oblivious/hpke.h"

extern const sluice_hpke_aead aes128gcm; /* HPKE AEAD 0x0001 */

#endif
