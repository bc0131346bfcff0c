/* session_seal.h - authenticated encryption for sessions on disk, from a key that the app or the platform's key store keeps.
 *
 * XChaCha20-Poly1305 (libsodium) with a random nonce in front of each chunk; the key that is used is derived from the one given, so that the same
 * secret may serve other purposes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_SDK_SRC_SESSION_SEAL_H
#define SLUICE_SDK_SRC_SESSION_SEAL_H

#include "local-engine/engine.h"

typedef struct sluice_session_seal {
    sluice_engine_sealer sealer;    /* hand out its address; it points into the struct, which must not move */
    const sluice_platform *platform;/* borrowed */
    uint8_t key[32];
} sluice_session_seal;

/* key: 32 bytes of full entropy, copied.  sluice_crypto_init() has been called. */
void sluice_session_seal_init(sluice_session_seal *s, const uint8_t key[32], const sluice_platform *platform);
void sluice_session_seal_wipe(sluice_session_seal *s);

#endif
