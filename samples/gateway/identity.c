/* identity.c - the gateway's keys and certificates: made once, kept in one folder.
 *
 *   ca.key ca.pem            a private CA: its certificate goes into policies as the only trust anchor
 *   server.key server.pem    what the gateway shows; the pin is the SHA-256 of this key, so renewing server.pem keeps it
 *   backup.key               the next server key: its pin is in policies already, so that a lost server.key locks nobody out.
 *                            Keep it, and ca.key, somewhere else.
 *   ohttp.key                the X25519 key that sealed requests are opened with
 *   endpoint.json            what a policy file needs to know of all this: an element of "endpoints"
 *
 * Everything is made only where it is missing.  To renew the certificate, remove server.pem and run init again.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include "samples/gateway/parts.h"

#include <arpa/inet.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <mbedtls/asn1.h>
#include <mbedtls/ecp.h>
#include <mbedtls/error.h>
#include <mbedtls/oid.h>
#include <mbedtls/pk.h>
#include <mbedtls/psa_util.h>
#include <mbedtls/sha256.h>
#include <mbedtls/x509_crt.h>
#include <psa/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sluice/gateway.h"

enum { PEM_BYTES_MAX = 4096, CA_DAYS = 3650, SERVER_DAYS = 365, SAN_MAX = 4, TARGET_TTFT_MS = 800 };

static bool fail_tls(sluice_error *err, const char *what, int code)
{
    char words[128];

    mbedtls_strerror(code, words, sizeof words);
    return gateway_fail(err, SLUICE_ERR_INTEGRITY, "remove that file and run init again; a new server key has a new pin", "%s: %s", what, words);
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* ---- keys ------------------------------------------------------------------------------------------ */

static bool generate_key(mbedtls_pk_context *pk)
{
    return mbedtls_pk_setup(pk, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY)) == 0 &&
           mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(*pk), mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE) == 0;
}

/* Load the P-256 key of that name, or make it. */
static bool key_load_or_make(mbedtls_pk_context *pk, const char *dir, const char *name, sluice_error *err)
{
    char *path = gateway_path(dir, name);
    unsigned char pem[PEM_BYTES_MAX] = { 0 };
    bool ok;
    int code;

    if (exists(path)) {
        code = mbedtls_pk_parse_keyfile(pk, path, NULL, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE);
        ok = code == 0 || fail_tls(err, path, code);
    } else {
        ok = (generate_key(pk) && mbedtls_pk_write_key_pem(pk, pem, sizeof pem) == 0) ||
             gateway_fail(err, SLUICE_ERR_IO, "", "no key could be made for %s", path);
        ok = ok && gateway_write_new(path, pem, strlen((char *)pem), true, err);
    }
    explicit_bzero(pem, sizeof pem);
    free(path);
    return ok;
}

/* base64 of SHA-256 of the SubjectPublicKeyInfo; free(). */
static char *spki_pin(mbedtls_pk_context *pk)
{
    unsigned char der[256], hash[32];
    const int len = mbedtls_pk_write_pubkey_der(pk, der, sizeof der); /* at the end of the buffer */

    if (len <= 0 || mbedtls_sha256(der + sizeof der - len, (size_t)len, hash, 0) != 0)
        return NULL;
    return gateway_base64(hash, sizeof hash);
}

/* "01 <64 hex digits>\n": key id and secret. */
static bool ohttp_key_load_or_make(const char *dir, gateway_identity *out, bool may_make, sluice_error *err)
{
    char *path = gateway_path(dir, "ohttp.key"), *text = NULL;
    char line[80] = { 0 };
    unsigned id = 1, byte;
    bool ok = true;

    if (may_make && !exists(path)) {
        ok = gateway_random(out->secret, sizeof out->secret) || gateway_fail(err, SLUICE_ERR_IO, "", "no randomness");
        (void)snprintf(line, sizeof line, "%02x ", id);
        for (size_t i = 0; i < sizeof out->secret; i++)
            (void)snprintf(line + 3 + 2 * i, 3, "%02x", out->secret[i]);
        line[67] = '\n';
        ok = ok && gateway_write_new(path, line, 68, true, err);
    }
    text = ok ? gateway_read_file(path, NULL, err) : NULL;
    ok = text != NULL;
    if (ok && (strlen(text) != 68 || text[2] != ' ' || sscanf(text, "%2x", &id) != 1))
        ok = gateway_fail(err, SLUICE_ERR_FORMAT, "restore it from a copy; a new key needs a new policy on every phone", "%s is no key file", path);
    for (size_t i = 0; ok && i < sizeof out->secret; i++) {
        if (sscanf(text + 3 + 2 * i, "%2x", &byte) != 1)
            ok = gateway_fail(err, SLUICE_ERR_FORMAT, "restore it from a copy; a new key needs a new policy on every phone", "%s is no key file",
                              path);
        out->secret[i] = (uint8_t)byte;
    }
    out->key_id = (uint8_t)id;
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    explicit_bzero(line, sizeof line);
    free(text);
    free(path);
    return ok;
}

/* ---- certificates ----------------------------------------------------------------------------------- */

static void date_text(char out[15], int days)
{
    const time_t at = time(NULL) + (time_t)days * 86400 - 3600; /* an hour back, for clocks that differ */
    struct tm utc;

    gmtime_r(&at, &utc);
    strftime(out, 15, "%Y%m%d%H%M%S", &utc);
}

/* localhost and the loopback addresses, and the host that was asked for. */
typedef struct name_list {
    mbedtls_x509_san_list rows[SAN_MAX];
    uint8_t v4[4], v6[16], host_v4[4];
    size_t n;
} name_list;

static void name_add(name_list *l, int type, const void *ptr, size_t len)
{
    mbedtls_x509_san_list *row = &l->rows[l->n];

    row->node.type = type;
    row->node.san.unstructured_name.tag = type;
    row->node.san.unstructured_name.p = (unsigned char *)(uintptr_t)ptr; /* only read */
    row->node.san.unstructured_name.len = len;
    if (l->n > 0)
        l->rows[l->n - 1].next = row;
    l->n++;
}

static void name_list_fill(name_list *l, const char *host)
{
    memset(l, 0, sizeof *l);
    name_add(l, MBEDTLS_X509_SAN_DNS_NAME, "localhost", 9);
    if (inet_pton(AF_INET, "127.0.0.1", l->v4) == 1)
        name_add(l, MBEDTLS_X509_SAN_IP_ADDRESS, l->v4, 4);
    if (inet_pton(AF_INET6, "::1", l->v6) == 1)
        name_add(l, MBEDTLS_X509_SAN_IP_ADDRESS, l->v6, 16);
    if (inet_pton(AF_INET, host, l->host_v4) == 1) {
        if (strcmp(host, "127.0.0.1") != 0)
            name_add(l, MBEDTLS_X509_SAN_IP_ADDRESS, l->host_v4, 4);
    } else if (strcmp(host, "localhost") != 0) {
        name_add(l, MBEDTLS_X509_SAN_DNS_NAME, host, strlen(host));
    }
}

/* Without key identifiers: mbedTLS makes them with SHA-1 alone, which is not built in; with one CA nobody needs them. */
static bool write_certificate(const char *path, mbedtls_pk_context *subject, const char *subject_name, mbedtls_pk_context *issuer,
                              const char *issuer_name, const name_list *names, int days, sluice_error *err)
{
    mbedtls_asn1_sequence usage = { 0 };
    mbedtls_x509write_cert c;
    unsigned char serial[16], pem[PEM_BYTES_MAX];
    char from[15], to[15];
    const bool is_ca = names == NULL;
    int code = 0;

    if (!gateway_random(serial, sizeof serial))
        return gateway_fail(err, SLUICE_ERR_IO, "", "no randomness");
    serial[0] = (unsigned char)((serial[0] & 0x7f) | 1); /* positive, and of full length */
    date_text(from, 0);
    date_text(to, days);
    mbedtls_x509write_crt_init(&c);
    mbedtls_x509write_crt_set_version(&c, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_md_alg(&c, MBEDTLS_MD_SHA256);
    mbedtls_x509write_crt_set_subject_key(&c, subject);
    mbedtls_x509write_crt_set_issuer_key(&c, issuer);
    usage.buf.tag = MBEDTLS_ASN1_OID;
    usage.buf.p = (unsigned char *)(uintptr_t)MBEDTLS_OID_SERVER_AUTH;
    usage.buf.len = MBEDTLS_OID_SIZE(MBEDTLS_OID_SERVER_AUTH);

    code = code ? code : mbedtls_x509write_crt_set_subject_name(&c, subject_name);
    code = code ? code : mbedtls_x509write_crt_set_issuer_name(&c, issuer_name);
    code = code ? code : mbedtls_x509write_crt_set_serial_raw(&c, serial, sizeof serial);
    code = code ? code : mbedtls_x509write_crt_set_validity(&c, from, to);
    code = code ? code : mbedtls_x509write_crt_set_basic_constraints(&c, is_ca, is_ca ? 0 : -1);
    code = code ? code
                : mbedtls_x509write_crt_set_key_usage(&c, is_ca ? MBEDTLS_X509_KU_KEY_CERT_SIGN | MBEDTLS_X509_KU_CRL_SIGN
                                                                : MBEDTLS_X509_KU_DIGITAL_SIGNATURE);
    if (!is_ca) {
        code = code ? code : mbedtls_x509write_crt_set_ext_key_usage(&c, &usage);
        code = code ? code : mbedtls_x509write_crt_set_subject_alternative_name(&c, names->rows);
    }
    code = code ? code : mbedtls_x509write_crt_pem(&c, pem, sizeof pem, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE);
    mbedtls_x509write_crt_free(&c);
    if (code != 0)
        return fail_tls(err, path, code);
    return gateway_write_new(path, pem, strlen((char *)pem), false, err);
}

static bool certificates_make(const char *dir, const char *host, mbedtls_pk_context *ca, mbedtls_pk_context *server, sluice_error *err)
{
    static const char ca_name[] = "CN=Sluice gateway CA,O=Sluice sample";
    static const char server_name[] = "CN=Sluice gateway,O=Sluice sample";
    char *ca_pem = gateway_path(dir, "ca.pem"), *server_pem = gateway_path(dir, "server.pem");
    name_list names;
    bool ok;

    name_list_fill(&names, host);
    ok = exists(ca_pem) || write_certificate(ca_pem, ca, ca_name, ca, ca_name, NULL, CA_DAYS, err);
    ok = ok && (exists(server_pem) || write_certificate(server_pem, server, server_name, ca, ca_name, &names, SERVER_DAYS, err));
    free(ca_pem);
    free(server_pem);
    return ok;
}

/* ---- the endpoint's description ------------------------------------------------------------------------ */

static void add_pins(cJSON *to, const char *pin, const char *backup_pin)
{
    const char *const pins[] = { pin, backup_pin };
    char text[80];

    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(text, sizeof text, "sha256//%s", pins[i] ? pins[i] : "");
        cJSON_AddItemToArray(to, cJSON_CreateString(text));
    }
}

static bool endpoint_make(const char *dir, const char *host, int port, mbedtls_pk_context *server, mbedtls_pk_context *backup,
                          const gateway_identity *identity, sluice_error *err)
{
    char *path = gateway_path(dir, "endpoint.json"), *ca_path = gateway_path(dir, "ca.pem");
    char *ca_pem = gateway_read_file(ca_path, NULL, err), *pin = spki_pin(server), *backup_pin = spki_pin(backup), *keys = NULL, *text = NULL;
    uint8_t config[64];
    size_t config_len = sizeof config;
    char url[300];
    cJSON *j = cJSON_CreateObject(), *target;
    bool ok = ca_pem != NULL && sluice_gateway_key_config(identity->key_id, identity->secret, config, &config_len, err) == SLUICE_OK;

    if (ok) {
        keys = gateway_base64(config, config_len);
        (void)snprintf(url, sizeof url, "https://%s:%d/ohttp", host, port);
        cJSON_AddStringToObject(j, "id", "gateway");
        cJSON_AddStringToObject(j, "url", url);
        cJSON_AddStringToObject(j, "adapter", "openai-chat");
        cJSON_AddStringToObject(j, "model", "default");
        target = cJSON_AddObjectToObject(j, "target");
        cJSON_AddStringToObject(target, "authority", "model.gateway.internal");
        cJSON_AddStringToObject(target, "path", "/v1/chat/completions");
        cJSON_AddStringToObject(j, "controller", "whoever runs this gateway");
        cJSON_AddStringToObject(j, "region", "local");
        cJSON_AddStringToObject(j, "ca_pem", ca_pem);
        add_pins(cJSON_AddArrayToObject(j, "spki_pins"), pin, backup_pin);
        cJSON_AddStringToObject(j, "key_config", keys ? keys : "");
        cJSON_AddNumberToObject(j, "expected_ttft_ms", TARGET_TTFT_MS);
        text = cJSON_Print(j);
        ok = (pin != NULL && backup_pin != NULL && keys != NULL && text != NULL) ||
             gateway_fail(err, SLUICE_ERR_NO_MEMORY, "", "no memory for %s", path);
    }
    ok = ok && (exists(path) || gateway_write_new(path, text, strlen(text), false, err));
    cJSON_Delete(j);
    cJSON_free(text);
    free(keys);
    free(backup_pin);
    free(pin);
    free(ca_pem);
    free(ca_path);
    free(path);
    return ok;
}

char *gateway_endpoint_text(const char *dir, int port, sluice_error *err)
{
    char *path = gateway_path(dir, "endpoint.json"), *text = gateway_read_file(path, NULL, err), *out = NULL;
    cJSON *j = text ? cJSON_Parse(text) : NULL, *url = cJSON_GetObjectItemCaseSensitive(j, "url");
    char host[256], fresh[300];

    if (text == NULL)
        goto out;
    /* an address in brackets keeps its colons */
    if (!cJSON_IsString(url) ||
        (sscanf(url->valuestring, "https://[%250[0-9a-fA-F:]]", host + 1) != 1 && sscanf(url->valuestring, "https://%250[^:/]", host) != 1)) {
        gateway_fail(err, SLUICE_ERR_FORMAT, "remove it and run init again", "%s holds no https url", path);
        goto out;
    }
    if (strncmp(url->valuestring, "https://[", 9) == 0) {
        host[0] = '[';
        strcat(host, "]");
    }
    (void)snprintf(fresh, sizeof fresh, "https://%s:%d/ohttp", host, port);
    if (cJSON_SetValuestring(url, fresh) == NULL) /* it cannot grow a string in place everywhere */
        cJSON_ReplaceItemInObjectCaseSensitive(j, "url", cJSON_CreateString(fresh));
    out = cJSON_Print(j);
    if (out == NULL)
        gateway_fail(err, SLUICE_ERR_NO_MEMORY, "", "no memory for %s", path);
out:
    cJSON_Delete(j);
    free(text);
    free(path);
    return out;
}

bool gateway_identity_init(const char *dir, const char *host, int port, sluice_error *err)
{
    gateway_identity identity = { 0 };
    mbedtls_pk_context ca, server, backup;
    bool ok;

    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return gateway_fail(err, SLUICE_ERR_IO, "its parent folder must exist and be writable", "cannot make the folder %s: %s", dir,
                            strerror(errno));
    if (psa_crypto_init() != PSA_SUCCESS)
        return gateway_fail(err, SLUICE_ERR_UNSUPPORTED, "", "mbedTLS cannot be started");
    mbedtls_pk_init(&ca);
    mbedtls_pk_init(&server);
    mbedtls_pk_init(&backup);
    ok = key_load_or_make(&ca, dir, "ca.key", err) && key_load_or_make(&server, dir, "server.key", err) &&
         key_load_or_make(&backup, dir, "backup.key", err);
    ok = ok && ohttp_key_load_or_make(dir, &identity, true, err);
    ok = ok && certificates_make(dir, host, &ca, &server, err);
    ok = ok && endpoint_make(dir, host, port, &server, &backup, &identity, err);
    mbedtls_pk_free(&ca);
    mbedtls_pk_free(&server);
    mbedtls_pk_free(&backup);
    explicit_bzero(&identity, sizeof identity);
    return ok;
}

bool gateway_identity_load(const char *dir, gateway_identity *out, sluice_error *err)
{
    return ohttp_key_load_or_make(dir, out, false, err);
}
