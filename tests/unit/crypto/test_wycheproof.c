/* test_wycheproof.c - the primitives against Wycheproof's collection of traps.
 *
 * The vectors are large and stay outside the tree: $SLUICE_TEST_DATA/crypto-vectors/wycheproof/NAME_test.json
 * (github.com/C2SP/wycheproof, testvectors_v1).  Without them the tests are skipped.  They are read with our own JSON reader.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>

#include "sdk/base/json.h"
#include "sdk/crypto/crypto.h"
#include "tests/support/cm.h"
#include "tests/support/test_files.h"

enum { BYTES_CAP = 16384 };

/* A member's hex as bytes; `slot` keeps several apart. */
static sluice_span bytes_of(const sluice_json *test, const char *key, int slot)
{
    static uint8_t slots[6][BYTES_CAP];
    const sluice_json *value = sluice_json_get(test, key);

    if (value == NULL || value->kind != SLUICE_JSON_STRING || value->string_len / 2 > BYTES_CAP ||
        !sluice_unhex(slots[slot], value->string_len / 2, value->string))
        fail_msg("member %s", key);
    return sluice_span_of(slots[slot], value->string_len / 2);
}

/* Calls check() for every test; it says whether the implementation accepted it with the right result. */
static void for_each(const char *name, int n_expected, bool (*check)(const sluice_json *group, const sluice_json *test))
{
    char path[128];
    sluice_buf text;
    sluice_json_doc *doc;
    sluice_error err = SLUICE_ERROR_INIT;
    int n = 0;

    (void)snprintf(path, sizeof path, "crypto-vectors/wycheproof/%s_test.json", name);
    if (!test_read_file(test_data_path(path), &text)) {
        print_message("no %s under $SLUICE_TEST_DATA\n", path);
        sluice_buf_deinit(&text);
        skip();
    }
    if (sluice_json_parse(&doc, sluice_buf_span(&text), NULL, NULL, &err) != SLUICE_OK)
        fail_msg("%s: %s, line %u", path, err.message, (unsigned)err.line);
    const sluice_json *groups = sluice_json_get(sluice_json_root(doc), "testGroups");
    assert_non_null(groups);
    for (const sluice_json *group = groups->child; group != NULL; group = group->next)
        for (const sluice_json *test = sluice_json_get(group, "tests")->child; test != NULL; test = test->next) {
            const char *result = sluice_json_get(test, "result")->string;
            bool accepted = check(group, test);

            n++;
            if (strcmp(result, "acceptable") != 0 && accepted != (strcmp(result, "valid") == 0))
                fail_msg("%s %d (%s): %s", name, (int)sluice_json_get(test, "tcId")->number, result, sluice_json_get(test, "comment")->string);
        }
    assert_int_equal(n, n_expected);
    sluice_json_close(doc);
    sluice_buf_deinit(&text);
}

static bool aead(const sluice_json *test, size_t nonce_len, bool wide)
{
    sluice_span key = bytes_of(test, "key", 0), nonce = bytes_of(test, "iv", 1), aad = bytes_of(test, "aad", 2);
    sluice_span msg = bytes_of(test, "msg", 3), ct = bytes_of(test, "ct", 4), tag = bytes_of(test, "tag", 5);
    static uint8_t sealed[BYTES_CAP + 16], out[BYTES_CAP + 16];

    if (key.len != 32 || nonce.len != nonce_len || tag.len != 16) /* our interface cannot be called like that */
        return false;
    if (ct.len > 0)
        memcpy(sealed, ct.ptr, ct.len);
    memcpy(sealed + ct.len, tag.ptr, tag.len);
    if (!(wide ? sluice_xchacha20poly1305_open : sluice_chacha20poly1305_open)(out, key.ptr, nonce.ptr, aad, sluice_span_of(sealed, ct.len + 16)))
        return false;
    assert_true(sluice_span_eq(sluice_span_of(out, ct.len), msg));
    (wide ? sluice_xchacha20poly1305_seal : sluice_chacha20poly1305_seal)(out, key.ptr, nonce.ptr, aad, msg);
    return memcmp(out, sealed, ct.len + 16) == 0;
}

static bool check_chacha(const sluice_json *group, const sluice_json *test)
{
    (void)group;
    return aead(test, 12, false);
}

static bool check_xchacha(const sluice_json *group, const sluice_json *test)
{
    (void)group;
    return aead(test, 24, true);
}

static bool check_x25519(const sluice_json *group, const sluice_json *test)
{
    sluice_span pub = bytes_of(test, "public", 0), secret = bytes_of(test, "private", 1), want = bytes_of(test, "shared", 2);
    uint8_t shared[32], zeros[32] = { 0 };

    (void)group;
    assert_int_equal(pub.len, 32);
    assert_int_equal(secret.len, 32);
    if (!sluice_x25519(shared, secret.ptr, pub.ptr)) {
        assert_memory_equal(want.ptr, zeros, 32); /* nothing else may be refused */
        return false;
    }
    assert_memory_equal(shared, want.ptr, 32);
    return true;
}

static bool check_hkdf(const sluice_json *group, const sluice_json *test)
{
    sluice_span ikm = bytes_of(test, "ikm", 0), salt = bytes_of(test, "salt", 1), info = bytes_of(test, "info", 2), want = bytes_of(test, "okm", 3);
    size_t size = (size_t)sluice_json_get(test, "size")->number;
    static uint8_t okm[BYTES_CAP];
    uint8_t prk[32];

    (void)group;
    sluice_hkdf_sha256_extract(prk, salt, ikm);
    return size <= sizeof okm && sluice_hkdf_sha256_expand(okm, size, prk, info) && sluice_span_eq(sluice_span_of(okm, size), want);
}

static bool check_hmac(const sluice_json *group, const sluice_json *test)
{
    sluice_span key = bytes_of(test, "key", 0), msg = bytes_of(test, "msg", 1), tag = bytes_of(test, "tag", 2);
    uint8_t out[32];

    (void)group;
    assert_true(tag.len <= sizeof out); /* some groups cut the tag */
    sluice_hmac_sha256(out, key, msg);
    return sluice_ct_eq(out, tag.ptr, tag.len);
}

static bool check_ed25519(const sluice_json *group, const sluice_json *test)
{
    sluice_span pub = bytes_of(sluice_json_get(group, "publicKey"), "pk", 0), msg = bytes_of(test, "msg", 1), sig = bytes_of(test, "sig", 2);

    return pub.len == 32 && sig.len == 64 && sluice_ed25519_verify(sig.ptr, pub.ptr, msg);
}

static void chacha20poly1305_holds(void **state)
{
    (void)state;
    for_each("chacha20_poly1305", 325, check_chacha);
}

static void xchacha20poly1305_holds(void **state)
{
    (void)state;
    for_each("xchacha20_poly1305", 315, check_xchacha);
}

static void x25519_holds(void **state)
{
    (void)state;
    for_each("x25519", 518, check_x25519);
}

static void hkdf_holds(void **state)
{
    (void)state;
    for_each("hkdf_sha256", 86, check_hkdf);
}

static void hmac_holds(void **state)
{
    (void)state;
    for_each("hmac_sha256", 174, check_hmac);
}

static void ed25519_holds(void **state)
{
    (void)state;
    for_each("ed25519", 151, check_ed25519);
}

static int start(void **state)
{
    (void)state;
    return sluice_crypto_init(NULL) == SLUICE_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chacha20poly1305_holds), cmocka_unit_test(xchacha20poly1305_holds), cmocka_unit_test(x25519_holds),
        cmocka_unit_test(hkdf_holds),             cmocka_unit_test(hmac_holds),              cmocka_unit_test(ed25519_holds),
    };

    return cmocka_run_group_tests_name("crypto/wycheproof", tests, start, NULL);
}
