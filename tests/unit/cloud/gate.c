/* gate.c - grants for tests, from the real egress gate
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/unit/cloud/gate.h"

#include "sdk/crypto/crypto.h"
#include "sluice/gateway.h"
#include "tests/support/cm.h"

const uint8_t TEST_GATEWAY_SECRET[32] = { 0x5a, 1, 2, 3, 4, 5, 6, 7, 8, 9 };

/* Durability is the ledger's own test; here hundreds of grants would wait for a disk. */
static sluice_status no_sync(void *user, sluice_file *f, sluice_error *err)
{
    (void)user;
    (void)f;
    (void)err;
    return SLUICE_OK;
}

void test_gate_open(test_gate *g, sluice_span key_config)
{
    size_t len = sizeof g->key_config;

    memset(g, 0, sizeof *g);
    assert_int_equal(sluice_crypto_init(NULL), SLUICE_OK);
    if (key_config.len > 0) {
        assert_true(key_config.len <= sizeof g->key_config);
        memcpy(g->key_config, key_config.ptr, key_config.len);
        len = key_config.len;
    } else {
        assert_int_equal(sluice_gateway_key_config(7, TEST_GATEWAY_SECRET, g->key_config, &len, NULL), SLUICE_OK);
    }
    temp_dir_open(&g->dir);
    fake_platform_init(&g->fp, 42);
    g->fp.platform.file_sync = no_sync;
    g->policy.id = "test";
    g->policy.version = 1;
    g->policy.mode = SLUICE_MODE_PREFER_LOCAL;
    g->policy.request_bytes_max = 1 << 20;
    g->policy.response_bytes_max = 1 << 20;
    g->policy.n_purposes = g->policy.n_endpoints = g->policy.n_rules = 1;
    g->policy.purposes[0] = (sluice_policy_purpose){ "answer", "to answer", 1 };
    g->policy.endpoints[0] = (sluice_policy_endpoint){
        .id = "gw", .url = "https://gw.example/", .adapter = "openai-chat", .key_config = g->key_config, .key_config_len = len
    };
    g->policy.rules[0] =
        (sluice_policy_rule){ .id = "let", .effect = SLUICE_RULE_PERMIT, .purposes = 1, .endpoints = 1, .classes = SLUICE_CLASS_ALL };
    assert_int_equal(sluice_ledger_open(&g->ledger, g->dir.path, &g->fp.platform, NULL, NULL), SLUICE_OK);
    assert_int_equal(sluice_consent_open(&g->consents, g->ledger, &g->fp.platform, NULL, NULL), SLUICE_OK);
    assert_int_equal(sluice_egress_open(&g->gate, &g->policy, g->consents, g->ledger, &g->fp.platform, NULL, NULL), SLUICE_OK);
}

void test_gate_close(test_gate *g)
{
    sluice_egress_close(g->gate);
    sluice_consent_close(g->consents);
    sluice_ledger_close(g->ledger);
    fake_platform_deinit(&g->fp);
    temp_dir_close(&g->dir);
}

sluice_grant *test_gate_grant(test_gate *g, sluice_span plaintext)
{
    sluice_egress_request request = { .request_id = 1, .attempt = 1, .plaintext = plaintext };
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_grant *grant = NULL;
    sluice_reason reason;

    request.query.classes = SLUICE_CLASS_PROMPT;
    request.expires_us = sluice_now_us(&g->fp.platform) + 10000000;
    if (sluice_egress_grant(g->gate, &request, &grant, &reason, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
    return grant;
}
