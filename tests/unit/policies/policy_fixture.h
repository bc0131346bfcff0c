/* policy_fixture.h - a policy with two endpoints, for the tests of this room.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_POLICY_FIXTURE_H
#define SLUICE_TESTS_POLICY_FIXTURE_H

#include "policies/policy.h"

#define FIXTURE_PEM "-----BEGIN CERTIFICATE-----\\nMIIB\\n-----END CERTIFICATE-----\\n"
#define FIXTURE_PIN "sha256//qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqo="
#define FIXTURE_PIN_2 "sha256//VVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVU="
#define FIXTURE_KEY_CONFIG "ACkBACABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fIAAEAAEAAw==" /* id 1, X25519, HKDF-SHA256, ChaCha20-Poly1305 */

#define FIXTURE_ENDPOINT(id)                                                                                                             \
    "{\"id\":\"" id "\",\"url\":\"https://gateway.example:8443/ohttp\",\"adapter\":\"openai-chat\",\"model\":\"big\","                     \
    "\"target\":{\"authority\":\"api.example.com\",\"path\":\"/v1/chat/completions\"},\"controller\":\"Acme\",\"region\":\"EU\","          \
    "\"ca_pem\":\"" FIXTURE_PEM "\",\"spki_pins\":[\"" FIXTURE_PIN "\",\"" FIXTURE_PIN_2 "\"],\"key_config\":\"" FIXTURE_KEY_CONFIG "\"}"

#define FIXTURE_HEAD "{\"sluice_policy\":1,\"id\":\"demo\",\"version\":7,"
#define FIXTURE_PURPOSES                                                                                                                 \
    "\"purposes\":[{\"id\":\"answer_question\",\"text\":\"May we ask the cloud?\",\"text_version\":3},{\"id\":\"summarise\",\"text\":\"May we?\"}],"
#define FIXTURE_ENDPOINTS "\"endpoints\":[" FIXTURE_ENDPOINT("acme") "," FIXTURE_ENDPOINT("other") "],"
#define FIXTURE_RULES                                                                                                                    \
    "\"rules\":[{\"id\":\"ask\",\"effect\":\"permit\",\"purposes\":[\"answer_question\"],\"endpoints\":[\"acme\"],\"classes\":[\"prompt\",\"email\"]},"  \
    "{\"id\":\"plain\",\"effect\":\"permit\",\"purposes\":[\"summarise\"],\"endpoints\":[\"other\"],\"classes\":[\"prompt\"],\"consent\":false},"       \
    "{\"id\":\"no-cards\",\"effect\":\"forbid\",\"classes\":[\"payment_card\"]},"                                                          \
    "{\"id\":\"no-metered\",\"effect\":\"forbid\",\"purposes\":[\"summarise\"],\"networks\":[\"metered\"]}]}"
#define FIXTURE_POLICY FIXTURE_HEAD FIXTURE_PURPOSES FIXTURE_ENDPOINTS FIXTURE_RULES

/* Purposes: 0 answer_question, 1 summarise.  Endpoints: 0 acme, 1 other.  Rules: 0 ask, 1 plain, 2 no-cards, 3 no-metered. */
static inline sluice_policy *fixture_policy(const char *text)
{
    sluice_policy *p = NULL;

    (void)sluice_policy_parse(&p, sluice_span_str(text), NULL, NULL, NULL, NULL, NULL, NULL);
    return p;
}

#endif
