/* test_policy_parse.c - what the reader of policy files takes, refuses and warns about.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "policies/policy.h"
#include "sdk/base/json.h"
#include "tests/support/cm.h"
#include "tests/support/test_files.h"
#include "tests/unit/policies/policy_fixture.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- collecting findings ------------------------------------------------------------------------- */

typedef struct findings {
    sluice_policy_finding list[128];
    size_t n;
} findings;

static void collect(const sluice_policy_finding *f, void *user)
{
    findings *all = user;

    if (all->n < sizeof all->list / sizeof all->list[0])
        all->list[all->n++] = *f;
}

static const sluice_policy_finding *find(const findings *all, const char *code)
{
    for (size_t i = 0; i < all->n; i++)
        if (strcmp(all->list[i].code, code) == 0)
            return &all->list[i];
    return NULL;
}

/* A file reader that knows three files. */
static sluice_status read_named(const char *name, sluice_buf *out, void *user, sluice_error *err)
{
    (void)user;
    if (strcmp(name, "ca.pem") == 0 || strcmp(name, "acme-ca.pem") == 0)
        return sluice_buf_append_str(out, "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n") ? SLUICE_OK : SLUICE_ERR_NO_MEMORY;
    if (strcmp(name, "key.pem") == 0)
        return sluice_buf_append_str(out, "-----BEGIN PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
                   ? SLUICE_OK
                   : SLUICE_ERR_NO_MEMORY;
    if (strcmp(name, "full") == 0)
        return SLUICE_ERR_NO_MEMORY;
    if (strcmp(name, "nul") == 0)
        return sluice_buf_append(out, "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\0", 54) ? SLUICE_OK : SLUICE_ERR_NO_MEMORY;
    return sluice_error_set(err, SLUICE_ERR_NOT_FOUND, "no such file");
}

static sluice_status parse(const char *text, sluice_policy **p, findings *all, sluice_error *err)
{
    memset(all, 0, sizeof *all);
    return sluice_policy_parse(p, sluice_span_str(text), read_named, NULL, collect, all, NULL, err);
}

/* ---- what it takes ------------------------------------------------------------------------------- */

static void smallest_policy_is_local_only(void **state)
{
    findings all;
    sluice_policy *p;

    (void)state;
    assert_int_equal(parse("{\"sluice_policy\":1,\"id\":\"x\",\"version\":1,\"mode\":\"local_only\"}", &p, &all, NULL), SLUICE_OK);
    assert_int_equal(all.n, 0);
    assert_int_equal(p->mode, SLUICE_MODE_LOCAL_ONLY);
    assert_int_equal(p->n_rules + p->n_endpoints + p->n_purposes, 0);
    assert_int_equal(sluice_policy_find_purpose(p, NULL), -1);
    sluice_policy_close(p);
}

static void defaults_are_those_of_the_header(void **state)
{
    sluice_policy *p = fixture_policy("{\"sluice_policy\":1,\"id\":\"x\",\"version\":1}");

    (void)state;
    assert_non_null(p);
    assert_int_equal(p->mode, SLUICE_MODE_PREFER_LOCAL);
    assert_int_equal(p->stream, SLUICE_STREAM_HOLD);
    assert_true(p->escalate_below == 0.80f && p->stop_below == 0.40f);
    assert_int_equal(p->deadline_ms, 10000);
    assert_int_equal(p->cloud_reserve_ms, 2500);
    assert_int_equal(p->max_tokens, 256);
    assert_int_equal(p->request_bytes_max, 65536);
    assert_int_equal(p->response_bytes_max, 1 << 20);
    assert_int_equal(p->max_attempts, 2);
    assert_int_equal(p->expires_ms, 0);
    sluice_policy_close(p);
    p = fixture_policy("{\"sluice_policy\":1,\"id\":\"x\",\"version\":1,\"router\":{\"deadline_ms\":2000,\"escalate_below\":0.5}}");
    assert_non_null(p);
    assert_int_equal(p->cloud_reserve_ms, 500); /* a quarter of a short deadline */
    assert_true(p->stop_below == 0.25f);
    sluice_policy_close(p);
}

static void every_field_arrives(void **state)
{
    sluice_policy *p = fixture_policy(
        "{\"$schema\":\"policy.schema.json\",\"sluice_policy\":1,\"id\":\"full\",\"version\":9007199254740991,"
        "\"expires\":\"2028-02-29T12:34:56Z\",\"mode\":\"cloud_only\","
        "\"router\":{\"escalate_below\":0.9,\"stop_below\":0.1,\"deadline_ms\":20000,\"cloud_reserve_ms\":0,\"max_tokens\":64,\"stream\":\"now\"},"
        "\"limits\":{\"request_bytes\":256,\"response_bytes\":16777216,\"attempts\":4}," FIXTURE_PURPOSES FIXTURE_ENDPOINTS FIXTURE_RULES);
    const sluice_policy_endpoint *e;

    (void)state;
    assert_non_null(p);
    assert_string_equal(p->id, "full");
    assert_true(p->version == 9007199254740991u);
    assert_true(p->expires_ms == INT64_C(1835440496000));
    assert_int_equal(p->mode, SLUICE_MODE_CLOUD_ONLY);
    assert_int_equal(p->stream, SLUICE_STREAM_NOW);
    assert_true(p->escalate_below == 0.9f && p->stop_below == 0.1f);
    assert_int_equal(p->cloud_reserve_ms, 0);
    assert_int_equal(p->max_tokens, 64);
    assert_int_equal(p->request_bytes_max, 256);
    assert_int_equal(p->response_bytes_max, 16 << 20);
    assert_int_equal(p->max_attempts, 4);
    assert_int_equal(p->n_purposes, 2);
    assert_string_equal(p->purposes[0].text, "May we ask the cloud?");
    assert_int_equal(p->purposes[0].text_version, 3);
    assert_int_equal(p->purposes[1].text_version, 1);
    assert_int_equal(p->n_endpoints, 2);
    e = &p->endpoints[1];
    assert_string_equal(e->id, "other");
    assert_string_equal(e->url, "https://gateway.example:8443/ohttp");
    assert_string_equal(e->adapter, "openai-chat");
    assert_string_equal(e->model, "big");
    assert_string_equal(e->target_authority, "api.example.com");
    assert_string_equal(e->target_path, "/v1/chat/completions");
    assert_string_equal(e->controller, "Acme");
    assert_string_equal(e->region, "EU");
    assert_memory_equal(e->ca_pem, "-----BEGIN CERTIFICATE-----\nMIIB\n", 33);
    assert_int_equal(e->n_spki_pins, 2);
    assert_string_equal(e->spki_pins[0], &FIXTURE_PIN[8]);
    assert_int_equal(e->key_config_len, 43);
    assert_int_equal(e->key_config[2], 1);
    assert_int_equal(e->expected_ttft_ms, 800);
    assert_int_equal(p->n_rules, 4);
    assert_int_equal(p->rules[0].effect, SLUICE_RULE_PERMIT);
    assert_int_equal(p->rules[0].classes, SLUICE_CLASS_PROMPT | SLUICE_CLASS_EMAIL);
    assert_true(p->rules[0].requires_consent && !p->rules[1].requires_consent);
    assert_int_equal(p->rules[1].purposes, 2);
    assert_int_equal(p->rules[1].endpoints, 2);
    assert_int_equal(p->rules[2].purposes, UINT32_MAX);
    assert_true(p->rules[3].forbids_metered && !p->rules[2].forbids_metered);
    assert_int_equal(sluice_policy_find_endpoint(p, "other"), 1);
    assert_int_equal(sluice_policy_find_endpoint(p, "none"), -1);
    assert_int_equal(sluice_policy_find_endpoint(p, NULL), -1);
    assert_int_equal(sluice_policy_find_purpose(p, NULL), 0);
    assert_int_equal(sluice_policy_find_purpose(p, "summarise"), 1);
    assert_int_equal(sluice_policy_find_purpose(p, "x"), -1);
    sluice_policy_close(p);
}

static void lines_and_hash_are_of_the_file(void **state)
{
    sluice_policy *p =
        fixture_policy("{\n\"sluice_policy\":1,\n\"id\":\"x\",\"version\":1,\n\"rules\":[\n\n {\"id\":\"no\",\"effect\":\"forbid\"}]}");
    sluice_policy *q =
        fixture_policy("{\n\"sluice_policy\":1,\n\"id\":\"x\",\"version\":1,\n\"rules\":[\n\n {\"id\":\"no\",\"effect\":\"forbid\"}] }");

    (void)state;
    assert_non_null(p);
    assert_non_null(q);
    assert_int_equal(p->rules[0].line, 6);
    assert_memory_not_equal(p->hash, q->hash, sizeof p->hash);
    sluice_policy_close(p);
    sluice_policy_close(q);
    sluice_policy_close(NULL);
}

static void ca_file_is_read_beside_the_policy(void **state)
{
    static const char head[] = FIXTURE_HEAD "\"endpoints\":[{\"id\":\"a\",\"url\":\"https://g/\",\"adapter\":\"openai-chat\",\"model\":\"m\","
                                            "\"target\":{\"authority\":\"h\",\"path\":\"/\"},\"spki_pins\":[\"" FIXTURE_PIN
                                            "\"],\"key_config\":\"" FIXTURE_KEY_CONFIG "\",\"ca_file\":\"%s\"}]}";
    static const struct { const char *name; const char *code; } cases[] = {
        { "ca.pem", NULL }, { "missing.pem", "P035" }, { "/etc/ca.pem", "P035" }, { "../ca.pem", "P035" }, { "", "P035" }, { "a\\\\b", "P035" },
        { "key.pem", "P022" }, { "nul", "P022" }
    };
    char text[2048];
    findings all;
    sluice_policy *p;
    sluice_error err = SLUICE_ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        (void)snprintf(text, sizeof text, head, cases[i].name);
        if (cases[i].code == NULL) {
            assert_int_equal(parse(text, &p, &all, NULL), SLUICE_OK);
            assert_non_null(p->endpoints[0].ca_pem);
        } else {
            assert_int_not_equal(parse(text, &p, &all, NULL), SLUICE_OK);
            if (find(&all, cases[i].code) == NULL)
                fail_msg("\"%s\" is not %s", cases[i].name, cases[i].code);
        }
        sluice_policy_close(p);
    }
    (void)snprintf(text, sizeof text, head, "full");
    assert_int_equal(parse(text, &p, &all, &err), SLUICE_ERR_NO_MEMORY);
    assert_null(p);
    assert_int_equal(err.status, SLUICE_ERR_NO_MEMORY);
    (void)snprintf(text, sizeof text, head, "ca.pem");
    assert_int_equal(sluice_policy_parse(&p, sluice_span_str(text), NULL, NULL, NULL, NULL, NULL, &err), SLUICE_ERR_POLICY);
    assert_non_null(strstr(err.hint, "ca_pem"));
}

/* ---- what it refuses ----------------------------------------------------------------------------- */

#define MINI(more) "{\"sluice_policy\":1,\"id\":\"x\",\"version\":1," more "}"
#define RULES(rule) FIXTURE_HEAD FIXTURE_PURPOSES FIXTURE_ENDPOINTS "\"rules\":[" rule "]}"
#define ENDPOINT(url, target, anchors, pins, config)                                                                                     \
    MINI("\"endpoints\":[{\"id\":\"a\",\"url\":" url ",\"adapter\":\"openai-chat\",\"model\":\"m\",\"target\":" target "," anchors               \
         "\"spki_pins\":" pins ",\"key_config\":" config "}]")
#define URL "\"https://g.example/\""
#define TARGET "{\"authority\":\"h\",\"path\":\"/\"}"
#define PEM "\"ca_pem\":\"" FIXTURE_PEM "\","
#define PINS "[\"" FIXTURE_PIN "\"]"
#define CONFIG "\"" FIXTURE_KEY_CONFIG "\""
#define WITH_URL(url) ENDPOINT(url, TARGET, PEM, PINS, CONFIG)
#define WITH_TARGET(target) ENDPOINT(URL, target, PEM, PINS, CONFIG)
#define WITH_PEM(anchors) ENDPOINT(URL, TARGET, anchors, PINS, CONFIG)
#define WITH_PINS(pins) ENDPOINT(URL, TARGET, PEM, pins, CONFIG)
#define WITH_CONFIG(config) ENDPOINT(URL, TARGET, PEM, PINS, config)

static const struct bad_case { const char *text, *code; sluice_status status; const char *hint;
} bad[] = {
    { "", "P001", SLUICE_ERR_FORMAT, "" },
    { "{\"sluice_policy\":1,}", "P001", SLUICE_ERR_FORMAT, "" },
    { "{\"sluice_policy\":1,\"id\":\"x\",\"version\":1} x", "P001", SLUICE_ERR_FORMAT, "" },
    { MINI("\"id\":\"y\""), "P002", SLUICE_ERR_FORMAT, "" },
    { "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]", "P003", SLUICE_ERR_LIMIT, "" },
    { "[]", "P004", SLUICE_ERR_FORMAT, "" },
    { MINI("\"rule\":[]"), "P010", SLUICE_ERR_FORMAT, "did you mean \"rules\"?" },
    { MINI("\"Rules\":[]"), "P010", SLUICE_ERR_FORMAT, "did you mean \"rules\"?" },
    { MINI("\"zzz\":[]"), "P010", SLUICE_ERR_FORMAT, "" },
    { MINI("\"router\":{\"escalate-below\":0.5}"), "P010", SLUICE_ERR_FORMAT, "did you mean \"escalate_below\"?" },
    { MINI("\"limits\":{\"request_byte\":500}"), "P010", SLUICE_ERR_FORMAT, "did you mean \"request_bytes\"?" },
    { MINI("\"purposes\":[{\"id\":\"a\",\"text\":\"t\",\"textversion\":1}]"), "P010", SLUICE_ERR_FORMAT, "did you mean \"text_version\"?" },
    { RULES("{\"id\":\"a\",\"effect\":\"forbid\",\"class\":[\"email\"]}"), "P010", SLUICE_ERR_FORMAT, "did you mean \"classes\"?" },
    { "{\"id\":\"x\",\"version\":1}", "P011", SLUICE_ERR_FORMAT, "" },
    { "{\"sluice_policy\":1,\"version\":1}", "P011", SLUICE_ERR_FORMAT, "" },
    { "{\"sluice_policy\":1,\"id\":\"x\"}", "P011", SLUICE_ERR_FORMAT, "" },
    { MINI("\"purposes\":[{\"id\":\"a\"}]"), "P011", SLUICE_ERR_FORMAT, "" },
    { MINI("\"endpoints\":[{}]"), "P011", SLUICE_ERR_FORMAT, "" },
    { MINI("\"rules\":[{}]"), "P011", SLUICE_ERR_FORMAT, "" },
    { MINI("\"mode\":1"), "P012", SLUICE_ERR_FORMAT, "" },
    { MINI("\"router\":[]"), "P012", SLUICE_ERR_FORMAT, "" },
    { MINI("\"router\":{\"max_tokens\":\"64\"}"), "P012", SLUICE_ERR_FORMAT, "" },
    { MINI("\"router\":{\"stop_below\":null}"), "P012", SLUICE_ERR_FORMAT, "" },
    { MINI("\"purposes\":{}"), "P012", SLUICE_ERR_FORMAT, "" },
    { MINI("\"purposes\":[1]"), "P012", SLUICE_ERR_FORMAT, "" },
    { MINI("\"$schema\":1"), "P012", SLUICE_ERR_FORMAT, "" },
    { RULES("{\"id\":\"a\",\"effect\":\"forbid\",\"classes\":[1]}"), "P012", SLUICE_ERR_FORMAT, "" },
    { RULES("{\"id\":\"a\",\"effect\":\"permit\",\"consent\":\"no\",\"purposes\":[\"summarise\"],\"endpoints\":[\"acme\"],\"classes\":[\"prompt\"]}"),
      "P012", SLUICE_ERR_FORMAT, "" },
    { "{\"sluice_policy\":1,\"id\":\"x\",\"version\":0}", "P013", SLUICE_ERR_FORMAT, "" },
    { "{\"sluice_policy\":1,\"id\":\"x\",\"version\":1.5}", "P013", SLUICE_ERR_FORMAT, "" },
    { "{\"sluice_policy\":1,\"id\":\"x\",\"version\":1e300}", "P013", SLUICE_ERR_FORMAT, "" },
    { MINI("\"router\":{\"escalate_below\":1.01}"), "P013", SLUICE_ERR_FORMAT, "" },
    { MINI("\"router\":{\"deadline_ms\":99}"), "P013", SLUICE_ERR_FORMAT, "" },
    { MINI("\"limits\":{\"request_bytes\":1048577}"), "P013", SLUICE_ERR_FORMAT, "" },
    { MINI("\"limits\":{\"attempts\":5}"), "P013", SLUICE_ERR_FORMAT, "" },
    { MINI("\"purposes\":[{\"id\":\"a\",\"text\":\"\"}]"), "P013", SLUICE_ERR_FORMAT, "" },
    { MINI("\"mode\":\"prefer_locale\""), "P014", SLUICE_ERR_FORMAT, "did you mean \"prefer_local\"?" },
    { MINI("\"mode\":\"prefer-local\""), "P014", SLUICE_ERR_FORMAT, "did you mean \"prefer_local\"?" },
    { MINI("\"router\":{\"stream\":\"later\"}"), "P014", SLUICE_ERR_FORMAT, "one of hold, now" },
    { RULES("{\"id\":\"a\",\"effect\":\"deny\"}"), "P014", SLUICE_ERR_FORMAT, "one of permit, forbid" },
    { "{\"sluice_policy\":2,\"id\":\"x\",\"version\":1,\"news\":1}", "P015", SLUICE_ERR_FORMAT, "\"sluice_policy\": 1" },
    { "{\"sluice_policy\":1,\"id\":\"\",\"version\":1}", "P016", SLUICE_ERR_FORMAT, "" },
    { "{\"sluice_policy\":1,\"id\":\"a b\",\"version\":1}", "P016", SLUICE_ERR_FORMAT, "" },
    { "{\"sluice_policy\":1,\"id\":\"-a\",\"version\":1}", "P016", SLUICE_ERR_FORMAT, "" },
    { "{\"sluice_policy\":1,\"id\":\"0123456789012345678901234567890123456789012345678901234567890123\",\"version\":1}", "P016", SLUICE_ERR_FORMAT,
      "" },
    { MINI("\"expires\":\"2026-0a-01T00:00:00Z\""), "P017", SLUICE_ERR_FORMAT, "" },
    { MINI("\"expires\":\"2026-01-01T00:00:60Z\""), "P017", SLUICE_ERR_FORMAT, "" },
    { MINI("\"expires\":\"2026-04-31T00:00:00Z\""), "P017", SLUICE_ERR_FORMAT, "" },
    { MINI("\"expires\":\"2026-01-01\""), "P017", SLUICE_ERR_FORMAT, "" },
    { MINI("\"expires\":\"2026-02-29T00:00:00Z\""), "P017", SLUICE_ERR_FORMAT, "" },
    { MINI("\"expires\":\"2100-02-29T00:00:00Z\""), "P017", SLUICE_ERR_FORMAT, "" },
    { MINI("\"expires\":\"2026-01-01T00:00:00+01:00\""), "P017", SLUICE_ERR_FORMAT, "" },
    { MINI("\"expires\":\"2026-01-01T24:00:00Z\""), "P017", SLUICE_ERR_FORMAT, "" },
    { MINI("\"expires\":\"2026-13-01T00:00:00Z\""), "P017", SLUICE_ERR_FORMAT, "" },
    { MINI("\"expires\":\"1969-12-31T00:00:00Z\""), "P017", SLUICE_ERR_FORMAT, "" },
    { WITH_URL("\"http://g.example/\""), "P018", SLUICE_ERR_FORMAT, "" },
    { WITH_URL("\"HTTPS://g.example/\""), "P018", SLUICE_ERR_FORMAT, "" },
    { WITH_URL("\"https://user:pass@g.example/\""), "P018", SLUICE_ERR_FORMAT, "" },
    { WITH_URL("\"https://g.example/#x\""), "P018", SLUICE_ERR_FORMAT, "" },
    { WITH_URL("\"https://g.example\""), "P018", SLUICE_ERR_FORMAT, "" },
    { WITH_URL("\"https:///x\""), "P018", SLUICE_ERR_FORMAT, "" },
    { WITH_URL("\"https://g.example:0/\""), "P018", SLUICE_ERR_FORMAT, "" },
    { WITH_URL("\"https://g.example:65536/\""), "P018", SLUICE_ERR_FORMAT, "" },
    { WITH_URL("\"https://g..example/\""), "P018", SLUICE_ERR_FORMAT, "" },
    { WITH_URL("\"https://g.example./\""), "P018", SLUICE_ERR_FORMAT, "" },
    { WITH_URL("\"https://g-.example-/\""), "P018", SLUICE_ERR_FORMAT, "" },
    { WITH_URL("\"https://[]/\""), "P018", SLUICE_ERR_FORMAT, "" },
    { WITH_URL("\"https://[::1/\""), "P018", SLUICE_ERR_FORMAT, "" },
    { WITH_URL("\"https://g.example/a b\""), "P018", SLUICE_ERR_FORMAT, "" },
    { WITH_URL("\"https://g.example/\\u00e9\""), "P018", SLUICE_ERR_FORMAT, "" },
    { WITH_URL("\"https://g.example\\\\@evil.example/\""), "P018", SLUICE_ERR_FORMAT, "" },
    { WITH_PINS("[\"sha256//AAAA\"]"), "P019", SLUICE_ERR_FORMAT, "" },
    { WITH_PINS("[\"qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqo=\"]"), "P019", SLUICE_ERR_FORMAT, "" },
    { WITH_PINS("[7]"), "P019", SLUICE_ERR_FORMAT, "" },
    { WITH_CONFIG("\"\""), "P020", SLUICE_ERR_FORMAT, "" },
    { WITH_CONFIG("\"!!!!\""), "P020", SLUICE_ERR_FORMAT, "" },
    { WITH_CONFIG("\"ACkBACABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fIAAEAAEA\""), "P020", SLUICE_ERR_FORMAT, "" }, /* cut short */
    { WITH_CONFIG("\"AAcBZHoBAgME\""), "P020", SLUICE_ERR_FORMAT, "" },                                             /* another KEM alone */
    { WITH_CONFIG("\"AAIBAA==\""), "P020", SLUICE_ERR_FORMAT, "" },
    { WITH_CONFIG("\"AA==\""), "P020", SLUICE_ERR_FORMAT, "" },
    { WITH_CONFIG("\"AAQBACAB\""), "P020", SLUICE_ERR_FORMAT, "" },
    { WITH_CONFIG("\"ACkBACABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fIAADAAEAAw==\""), "P020", SLUICE_ERR_FORMAT, "" }, /* list of 3 bytes */
    { WITH_TARGET("{\"authority\":\"h/x\",\"path\":\"/\"}"), "P021", SLUICE_ERR_FORMAT, "" },
    { WITH_TARGET("{\"authority\":\"\",\"path\":\"/\"}"), "P021", SLUICE_ERR_FORMAT, "" },
    { WITH_TARGET("{\"authority\":\"h\",\"path\":\"x\"}"), "P021", SLUICE_ERR_FORMAT, "" },
    { WITH_TARGET("{\"authority\":\"h\",\"path\":\"/\\r\\nHost: evil\"}"), "P021", SLUICE_ERR_FORMAT, "" },
    { WITH_TARGET("{\"authority\":\"h\"}"), "P011", SLUICE_ERR_FORMAT, "" },
    { WITH_TARGET("7"), "P012", SLUICE_ERR_FORMAT, "" },
    { WITH_PEM("\"ca_pem\":\"hello\","), "P022", SLUICE_ERR_FORMAT, "" },
    { WITH_PEM("\"ca_pem\":\"\","), "P022", SLUICE_ERR_FORMAT, "" },
    { WITH_PEM("\"ca_pem\":\"-----END CERTIFICATE----- -----BEGIN CERTIFICATE-----\","), "P022", SLUICE_ERR_FORMAT, "" },
    { WITH_PEM("\"ca_pem\":7,"), "P012", SLUICE_ERR_FORMAT, "" },
    { WITH_PEM(""), "P034", SLUICE_ERR_POLICY, "exactly one" },
    { WITH_PEM(PEM "\"ca_file\":\"ca.pem\","), "P034", SLUICE_ERR_POLICY, "exactly one" },
    { RULES("{\"id\":\"a\",\"effect\":\"forbid\",\"networks\":[\"metered\",\"metered\",\"metered\",\"metered\",\"metered\"]}"), "P023",
      SLUICE_ERR_LIMIT, "" },
    { WITH_PINS("[1,2,3,4,5,6,7,8,9]"), "P023", SLUICE_ERR_LIMIT, "" },
    { WITH_PINS("[]"), "P024", SLUICE_ERR_FORMAT, "" },
    { RULES("{\"id\":\"a\",\"effect\":\"forbid\",\"classes\":[]}"), "P024", SLUICE_ERR_FORMAT, "" },
    { WITH_PINS("[\"" FIXTURE_PIN "\",\"" FIXTURE_PIN "\"]"), "P025", SLUICE_ERR_FORMAT, "" },
    { RULES("{\"id\":\"a\",\"effect\":\"forbid\",\"classes\":[\"email\",\"email\"]}"), "P025", SLUICE_ERR_FORMAT, "" },
    { MINI("\"purposes\":[{\"id\":\"a\",\"text\":\"bell \\u0007\"}]"), "P026", SLUICE_ERR_FORMAT, "" },
    { MINI("\"purposes\":[{\"id\":\"a\",\"text\":\"t\"},{\"id\":\"a\",\"text\":\"t\"}]"), "P030", SLUICE_ERR_POLICY, "" },
    { FIXTURE_HEAD "\"endpoints\":[" FIXTURE_ENDPOINT("a") "," FIXTURE_ENDPOINT("a") "]}", "P030", SLUICE_ERR_POLICY, "" },
    { RULES("{\"id\":\"a\",\"effect\":\"forbid\"},{\"id\":\"a\",\"effect\":\"forbid\"}"), "P030", SLUICE_ERR_POLICY, "" },
    { RULES("{\"id\":\"a\",\"effect\":\"forbid\",\"classes\":[\"e-mail\"]}"), "P031", SLUICE_ERR_POLICY, "did you mean \"email\"?" },
    { RULES("{\"id\":\"a\",\"effect\":\"forbid\",\"endpoints\":[\"acne\"]}"), "P031", SLUICE_ERR_POLICY, "did you mean \"acme\"?" },
    { RULES("{\"id\":\"a\",\"effect\":\"forbid\",\"purposes\":[\"sell\"]}"), "P031", SLUICE_ERR_POLICY, "one of answer_question, summarise" },
    { RULES("{\"id\":\"a\",\"effect\":\"forbid\",\"networks\":[\"wifi\"]}"), "P031", SLUICE_ERR_POLICY, "" },
    { RULES("{\"id\":\"a\",\"effect\":\"permit\",\"purposes\":[\"summarise\"],\"endpoints\":[\"acme\"]}"), "P032", SLUICE_ERR_POLICY,
      "no wildcards" },
    { RULES("{\"id\":\"a\",\"effect\":\"permit\",\"networks\":[\"metered\"],\"purposes\":[\"summarise\"],\"endpoints\":[\"acme\"],\"classes\":["
            "\"prompt\"]}"),
      "P033", SLUICE_ERR_POLICY, "" },
    { RULES("{\"id\":\"a\",\"effect\":\"forbid\",\"consent\":true}"), "P033", SLUICE_ERR_POLICY, "" },
    { MINI("\"router\":{\"escalate_below\":0.5,\"stop_below\":0.6}"), "P036", SLUICE_ERR_POLICY, "" },
    { MINI("\"router\":{\"deadline_ms\":1000,\"cloud_reserve_ms\":1000}"), "P037", SLUICE_ERR_POLICY, "" },
};

static void whatever_is_not_understood_is_refused_with_its_code(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sluice_error err = SLUICE_ERROR_INIT;
        sluice_policy *p = (sluice_policy *)&err; /* must be overwritten */
        findings all;
        sluice_status st = parse(bad[i].text, &p, &all, &err);
        const sluice_policy_finding *f = find(&all, bad[i].code);

        if (p != NULL || f == NULL || !f->is_error)
            fail_msg("case %zu: no %s in %zu findings, first %s %s\n%s", i, bad[i].code, all.n, all.n > 0 ? all.list[0].code : "-",
                     all.n > 0 ? all.list[0].message : "", bad[i].text);
        if (st != err.status || err.line != all.list[0].line || strstr(err.message, all.list[0].message) == NULL)
            fail_msg("case %zu: the record is not the first error: %s", i, err.message);
        if (f == &all.list[0] && st != bad[i].status)
            fail_msg("case %zu: %s gives %s", i, bad[i].code, sluice_status_name(st));
        if (strstr(f->hint, bad[i].hint) == NULL)
            fail_msg("case %zu: hint \"%s\" lacks \"%s\"", i, f->hint, bad[i].hint);
        if (f->line < 1 || f->column < 1)
            fail_msg("case %zu: no place", i);
    }
}

static void odd_but_good_addresses_are_taken(void **state)
{
    static const char *const good[] = {
        WITH_URL("\"https://[2001:DB8::1]:8443/p?q=1&r=[2]\""),
        WITH_URL("\"https://127.0.0.1:1/\""),
        WITH_URL("\"https://x-1.y.z:65535/~a%20b\""),
        WITH_URL("\"https://localhost/\""),
        WITH_TARGET("{\"authority\":\"[::1]:1\",\"path\":\"/v1?x=y\"}"),
        MINI("\"purposes\":[{\"id\":\"a\",\"text\":\"two\\nlines \u00e9\"}]"),
        /* a configuration for another KEM beside one for X25519 */
        WITH_CONFIG("\"AAcBZHoBAgMEACkBACABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fIAAEAAEAAw==\""),
        MINI("\"expires\":\"2000-02-29T23:59:59Z\""),
    };
    findings all;
    sluice_policy *p;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (parse(good[i], &p, &all, NULL) != SLUICE_OK)
            fail_msg("case %zu: %s", i, all.list[0].message);
        sluice_policy_close(p);
    }
}

/* Fields one byte longer than they may be. */
static void fields_have_their_lengths(void **state)
{
    static char text[400000], filler[300000];
    findings all;
    sluice_policy *p;

    (void)state;
    memset(filler, 'a', sizeof filler - 1);
#define TRY(code, n, before, after)                                                                                                      \
    do {                                                                                                                                 \
        (void)snprintf(text, sizeof text, "%s%.*s%s", before, (int)(n), filler, after);                                                  \
        if (parse(text, &p, &all, NULL) == SLUICE_OK || find(&all, code) == NULL)                                                        \
            fail_msg("%s does not come with %d bytes", code, (int)(n));                                                                  \
    } while (0)
    TRY("P018", 512, "{\"sluice_policy\":1,\"id\":\"x\",\"version\":1,\"endpoints\":[{\"url\":\"https://g.example/", "\"}]}");
    TRY("P018", 256, "{\"sluice_policy\":1,\"id\":\"x\",\"version\":1,\"endpoints\":[{\"url\":\"https://", "/\"}]}");
    TRY("P021", 256, "{\"sluice_policy\":1,\"id\":\"x\",\"version\":1,\"endpoints\":[{\"target\":{\"path\":\"/", "\"}}]}");
    TRY("P021", 257, "{\"sluice_policy\":1,\"id\":\"x\",\"version\":1,\"endpoints\":[{\"target\":{\"authority\":\"", "\"}}]}");
    TRY("P013", 129, "{\"sluice_policy\":1,\"id\":\"x\",\"version\":1,\"endpoints\":[{\"model\":\"", "\"}]}");
    TRY("P013", 2001, "{\"sluice_policy\":1,\"id\":\"x\",\"version\":1,\"purposes\":[{\"id\":\"a\",\"text\":\"", "\"}]}");
    TRY("P013", 10924, "{\"sluice_policy\":1,\"id\":\"x\",\"version\":1,\"endpoints\":[{\"key_config\":\"", "\"}]}");
    TRY("P013", 262145, "{\"sluice_policy\":1,\"id\":\"x\",\"version\":1,\"endpoints\":[{\"ca_pem\":\"", "\"}]}");
}

static void findings_name_line_and_column(void **state)
{
    findings all;
    sluice_policy *p;
    sluice_error err = SLUICE_ERROR_INIT;

    (void)state;
    assert_int_equal(
        parse("{\n  \"sluice_policy\": 1,\n  \"id\": \"x\",\n  \"version\": 1,\n  \"endpoint\": [],\n  \"mode\": \"near\"\n}", &p, &all, &err),
        SLUICE_ERR_FORMAT);
    assert_int_equal(all.n, 2); /* one run shows all */
    assert_string_equal(all.list[0].code, "P010");
    assert_int_equal(all.list[0].line, 5);
    assert_int_equal(all.list[0].column, 3);
    assert_string_equal(all.list[0].hint, "did you mean \"endpoints\"?");
    assert_string_equal(all.list[1].code, "P014");
    assert_int_equal(all.list[1].line, 6);
    assert_int_equal(all.list[1].column, 11);
    assert_int_equal(err.line, 5);
    assert_non_null(strstr(err.message, "(P010)"));
}

static void foreign_bytes_do_not_reach_a_terminal(void **state)
{
    findings all;
    sluice_policy *p;

    (void)state;
    assert_int_equal(parse(MINI("\"\\u001b[31m\\u00e9-and-a-long-name-that-goes-on-and-on-and-on\":1"), &p, &all, NULL), SLUICE_ERR_FORMAT);
    assert_null(strchr(all.list[0].message, 0x1b));
    assert_non_null(strstr(all.list[0].message, "?[31m"));
    assert_non_null(strstr(all.list[0].message, "..."));
}

static void findings_are_bounded(void **state)
{
    static char text[40000];
    findings all;
    sluice_policy *p;
    size_t len = (size_t)snprintf(text, sizeof text, "{\"sluice_policy\":1,\"id\":\"x\",\"version\":1,\"rules\":[");

    (void)state;
    for (int i = 0; i < 256; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "%s{\"id\":\"r%d\",\"effect\":\"forbid\",\"x\":1}", i > 0 ? "," : "", i);
    (void)snprintf(text + len, sizeof text - len, "]}");
    assert_int_equal(parse(text, &p, &all, NULL), SLUICE_ERR_FORMAT);
    assert_int_equal(all.n, 100);
}

static void sizes_at_the_limits_fit(void **state)
{
    static char text[120000];
    sluice_policy *p;
    size_t len = (size_t)snprintf(text, sizeof text, FIXTURE_HEAD "\"purposes\":[");

    (void)state;
    for (int i = 0; i < SLUICE_POLICY_PURPOSES_MAX; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "%s{\"id\":\"p%d\",\"text\":\"t\"}", i > 0 ? "," : "", i);
    len += (size_t)snprintf(text + len, sizeof text - len, "],\"endpoints\":[");
    for (int i = 0; i < SLUICE_POLICY_ENDPOINTS_MAX; i++) {
        char one[2048] = FIXTURE_ENDPOINT("e00");

        one[8] = (char)('a' + i);
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%s", i > 0 ? "," : "", one);
    }
    len += (size_t)snprintf(text + len, sizeof text - len, "],\"rules\":[");
    for (int i = 0; i < SLUICE_POLICY_RULES_MAX; i++)
        len +=
            (size_t)snprintf(text + len, sizeof text - len, "%s{\"id\":\"r%d\",\"effect\":\"forbid\",\"purposes\":[\"p31\"]}", i > 0 ? "," : "", i);
    (void)snprintf(text + len, sizeof text - len, "]}");
    p = fixture_policy(text);
    assert_non_null(p);
    assert_int_equal(p->n_rules, SLUICE_POLICY_RULES_MAX);
    assert_int_equal(p->n_endpoints, SLUICE_POLICY_ENDPOINTS_MAX);
    assert_int_equal(p->rules[255].purposes, UINT32_C(1) << 31);
    sluice_policy_close(p);
}

/* ---- what it warns about ------------------------------------------------------------------------- */

#define PERMIT(id, purpose, endpoint, more) "{\"id\":\"" id "\",\"effect\":\"permit\",\"purposes\":[\"" purpose "\"],\"endpoints\":[\"" endpoint "\"]," more "}"
#define BOTH PERMIT("a", "answer_question", "acme", "\"classes\":[\"prompt\"]") "," PERMIT("b", "summarise", "other", "\"classes\":[\"prompt\"]")

static void a_doubtful_policy_loads_with_warnings(void **state)
{
    static const struct { const char *text, *code; } cases[] = {
        { "{\"sluice_policy\":1,\"id\":\"x\",\"version\":1}", "P101" },
        { WITH_URL(URL), "P102" },
        { RULES(PERMIT("a", "answer_question", "acme", "\"classes\":[\"prompt\"],\"consent\":false")), "P103" },
        { RULES(BOTH ",{\"id\":\"no\",\"effect\":\"forbid\",\"endpoints\":[\"acme\"]}"), "P104" },
        { RULES(BOTH ",{\"id\":\"no\",\"effect\":\"forbid\",\"classes\":[\"email\",\"prompt\"]}"), "P104" },
        { RULES(PERMIT("a", "answer_question", "acme", "\"classes\":[\"prompt\"]")), "P105" },
        { RULES(PERMIT("a", "answer_question", "acme", "\"classes\":[\"prompt\"]")), "P106" },
        { MINI("\"purposes\":[{\"id\":\"a\",\"text\":\"key sk-abcdefghijklmnop1234 here\"}]"), "P107" },
        { MINI("\"$schema\":\"AIzaSyA1234567890123456789012345678901\""), "P107" },
        { MINI("\"mode\":\"cloud_only\""), "P109" },
        { RULES(PERMIT("a", "answer_question", "acme", "\"classes\":[\"email\"]")), "P110" },
        { RULES(BOTH "," PERMIT("c", "summarise", "other", "\"classes\":[\"prompt\"],\"consent\":false")), "P111" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        findings all;
        sluice_policy *p;
        sluice_error err = SLUICE_ERROR_INIT;
        const sluice_policy_finding *f;

        if (parse(cases[i].text, &p, &all, &err) != SLUICE_OK)
            fail_msg("case %zu: %s", i, err.message);
        f = find(&all, cases[i].code);
        if (f == NULL || f->is_error || f->line < 1)
            fail_msg("case %zu: no warning %s", i, cases[i].code);
        sluice_policy_close(p);
    }
}

static void a_sound_policy_has_no_warnings(void **state)
{
    static const char *const sound[] = {
        RULES(BOTH),
        RULES(BOTH ",{\"id\":\"no\",\"effect\":\"forbid\",\"classes\":[\"payment_card\"]}"),
        RULES(BOTH ",{\"id\":\"no\",\"effect\":\"forbid\",\"networks\":[\"metered\"]}"),
        RULES(BOTH ",{\"id\":\"no\",\"effect\":\"forbid\",\"purposes\":[\"summarise\"],\"endpoints\":[\"acme\"]}"),
    };
    findings all;
    sluice_policy *p;

    (void)state;
    for (size_t i = 0; i < sizeof sound / sizeof sound[0]; i++) {
        assert_int_equal(parse(sound[i], &p, &all, NULL), SLUICE_OK);
        if (all.n != 0)
            fail_msg("policy %zu: %s %s", i, all.list[0].code, all.list[0].message);
        sluice_policy_close(p);
    }
}

static void expiry_is_found_with_a_clock(void **state)
{
    sluice_policy *p = fixture_policy(MINI("\"expires\":\"1970-01-01T00:00:02Z\",\"mode\":\"local_only\""));
    findings all = { .n = 0 };

    (void)state;
    assert_non_null(p);
    sluice_policy_lint_time(p, 1999, collect, &all);
    assert_int_equal(all.n, 0);
    sluice_policy_lint_time(p, 2000, collect, &all);
    assert_int_equal(all.n, 1);
    assert_string_equal(all.list[0].code, "P108");
    assert_false(all.list[0].is_error);
    p->expires_ms = 0;
    sluice_policy_lint_time(p, INT64_MAX, collect, &all);
    assert_int_equal(all.n, 1);
    sluice_policy_close(p);
}

/* ---- schema and documentation in step ------------------------------------------------------------ */

static void schema_is_the_published_file(void **state)
{
    sluice_buf file;
    sluice_json_doc *doc;

    (void)state;
    if (!test_read_file(test_source_path("policies/policy.schema.json"), &file))
        fail_msg("policies/policy.schema.json cannot be read");
    assert_true(sluice_span_eq(sluice_buf_span(&file), sluice_policy_schema_text()));
    assert_int_equal(sluice_json_parse(&doc, sluice_policy_schema_text(), NULL, NULL, NULL), SLUICE_OK);
    sluice_json_close(doc);
    sluice_buf_deinit(&file);
}

/* Does the reader know this field in an object that stands where `where` has its '@'? */
static bool reader_knows(const char *where, const char *name)
{
    char text[1024];
    findings all;
    sluice_policy *p;
    const sluice_policy_finding *f;
    size_t before = strcspn(where, "@");

    (void)snprintf(text, sizeof text, "%.*s\"%s\":0%s", (int)before, where, name, where + before + 1);
    (void)parse(text, &p, &all, NULL);
    sluice_policy_close(p);
    f = find(&all, "P010");
    return f == NULL;
}

static size_t compare_fields(const sluice_json *object, const char *where)
{
    size_t n = 0;

    assert_non_null(object);
    assert_false(sluice_json_get(object, "additionalProperties")->boolean);
    for (const sluice_json *c = sluice_json_get(object, "properties")->child; c != NULL; c = c->next, n++)
        if (!reader_knows(where, c->key))
            fail_msg("the schema has \"%s\", the reader has not", c->key);
    return n;
}

static void schema_and_reader_know_the_same_fields(void **state)
{
    sluice_json_doc *doc;
    const sluice_json *root, *defs, *properties;

    (void)state;
    assert_int_equal(sluice_json_parse(&doc, sluice_policy_schema_text(), NULL, NULL, NULL), SLUICE_OK);
    root = sluice_json_root(doc);
    properties = sluice_json_get(root, "properties");
    defs = sluice_json_get(root, "$defs");
    /* the counts are those of the field lists in policy_parse.c: a field that only the reader knows changes one */
    assert_int_equal(compare_fields(root, "{@}"), 11);
    assert_int_equal(compare_fields(sluice_json_get(properties, "router"), "{\"router\":{@}}"), 6);
    assert_int_equal(compare_fields(sluice_json_get(properties, "limits"), "{\"limits\":{@}}"), 3);
    assert_int_equal(compare_fields(sluice_json_get(defs, "purpose"), "{\"purposes\":[{@}]}"), 3);
    assert_int_equal(compare_fields(sluice_json_get(defs, "endpoint"), "{\"endpoints\":[{@}]}"), 12);
    assert_int_equal(compare_fields(sluice_json_get(defs, "rule"), "{\"rules\":[{@}]}"), 7);
    assert_false(reader_knows("{@}", "nonsense"));
    sluice_json_close(doc);
}

static void every_code_is_documented(void **state)
{
    sluice_buf page;

    (void)state;
    if (!test_read_file(test_source_path("docs/policy.md"), &page))
        fail_msg("docs/policy.md cannot be read");
    assert_true(sluice_buf_append_byte(&page, '\0'));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (strstr((const char *)page.ptr, bad[i].code) == NULL)
            fail_msg("docs/policy.md does not speak of %s", bad[i].code);
    for (int code = 101; code <= 111; code++) {
        char name[16];

        (void)snprintf(name, sizeof name, "P%d", code);
        if (strstr((const char *)page.ptr, name) == NULL)
            fail_msg("docs/policy.md does not speak of %s", name);
    }
    sluice_buf_deinit(&page);
}

static void the_examples_of_the_guide_load_without_a_warning(void **state)
{
    static const char fence[] = "```json\n";
    sluice_buf page;
    size_t n = 0;

    (void)state;
    if (!test_read_file(test_source_path("docs/policy.md"), &page) || !sluice_buf_append_byte(&page, '\0'))
        fail_msg("docs/policy.md cannot be read");
    for (char *at = strstr((char *)page.ptr, fence); at != NULL; at = strstr(at, fence), n++) {
        char *end = strstr(at += sizeof fence - 1, "```");
        findings all;
        sluice_policy *p;

        assert_non_null(end);
        *end = '\0';
        if (parse(at, &p, &all, NULL) != SLUICE_OK || all.n != 0)
            fail_msg("example %zu, line %u: %s", n, (unsigned)all.list[0].line, all.list[0].message);
        sluice_policy_close(p);
        at = end + 1;
    }
    assert_int_equal(n, 2);
    sluice_buf_deinit(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smallest_policy_is_local_only),
        cmocka_unit_test(defaults_are_those_of_the_header),
        cmocka_unit_test(every_field_arrives),
        cmocka_unit_test(lines_and_hash_are_of_the_file),
        cmocka_unit_test(ca_file_is_read_beside_the_policy),
        cmocka_unit_test(whatever_is_not_understood_is_refused_with_its_code),
        cmocka_unit_test(odd_but_good_addresses_are_taken),
        cmocka_unit_test(fields_have_their_lengths),
        cmocka_unit_test(findings_name_line_and_column),
        cmocka_unit_test(foreign_bytes_do_not_reach_a_terminal),
        cmocka_unit_test(findings_are_bounded),
        cmocka_unit_test(sizes_at_the_limits_fit),
        cmocka_unit_test(a_doubtful_policy_loads_with_warnings),
        cmocka_unit_test(a_sound_policy_has_no_warnings),
        cmocka_unit_test(expiry_is_found_with_a_clock),
        cmocka_unit_test(schema_is_the_published_file),
        cmocka_unit_test(schema_and_reader_know_the_same_fields),
        cmocka_unit_test(every_code_is_documented),
        cmocka_unit_test(the_examples_of_the_guide_load_without_a_warning),
    };

    return cmocka_run_group_tests_name("policy_parse", tests, NULL, NULL);
}
