/* test_crypto.c - the primitives against the vectors of their RFCs, and their edges.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/crypto/crypto.h"
#include "tests/support/cm.h"

enum { BYTES_CAP = 512 };

/* Hex to bytes; static, good until the eighth call after. */
static sluice_span hex(const char *text)
{
    static uint8_t ring[8][BYTES_CAP];
    static unsigned next;
    uint8_t *out = ring[next++ % 8];
    size_t len = strlen(text) / 2;

    assert_true(len <= BYTES_CAP);
    assert_true(sluice_unhex(out, len, text));
    return sluice_span_of(out, len);
}

static void is(const uint8_t *got, size_t len, const char *want)
{
    char text[2 * BYTES_CAP + 1];

    assert_true(len <= BYTES_CAP);
    sluice_hex(text, got, len);
    assert_string_equal(text, want);
}

static int start(void **state)
{
    (void)state;
    return sluice_crypto_init(NULL) == SLUICE_OK ? 0 : -1;
}

static void init_may_be_repeated(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;

    (void)state;
    assert_int_equal(sluice_crypto_init(&err), SLUICE_OK);
    assert_int_equal(sluice_crypto_init(&err), SLUICE_OK);
    assert_true(strlen(sluice_crypto_version()) > 0);
}

static void sha256_gives_fips_180_values(void **state)
{
    uint8_t out[32];

    (void)state;
    sluice_sha256(out, SLUICE_SPAN_LIT("abc"));
    is(out, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sluice_sha256(out, SLUICE_SPAN_EMPTY);
    is(out, 32, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

/* RFC 7693's appendix prints 512-bit outputs; these of 256 bits were made with Python's hashlib. */
static void blake2b_takes_keys_of_0_and_16_to_64_bytes(void **state)
{
    uint8_t out[32], key[64], data[300];

    (void)state;
    for (size_t i = 0; i < sizeof key; i++)
        key[i] = (uint8_t)i;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)i;
    sluice_blake2b(out, SLUICE_SPAN_EMPTY, SLUICE_SPAN_LIT("abc"));
    is(out, 32, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
    sluice_blake2b(out, SLUICE_SPAN_EMPTY, SLUICE_SPAN_EMPTY);
    is(out, 32, "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
    sluice_blake2b(out, sluice_span_of(key, 16), SLUICE_SPAN_LIT("abc"));
    is(out, 32, "3fd8fd31501cdbe942607b204368e3dc4ebce5744de1a955a6025f5c9848bb20");
    sluice_blake2b(out, sluice_span_of(key, 64), sluice_span_of(data, sizeof data));
    is(out, 32, "e35ea32ba735680b5e3908020230f8da8637ea9bf934d59d0d05150175280e4f");
}

static void hmac_gives_rfc_4231_values(void **state)
{
    uint8_t out[32], key[131];

    (void)state;
    memset(key, 0x0b, 20);
    sluice_hmac_sha256(out, sluice_span_of(key, 20), SLUICE_SPAN_LIT("Hi There"));
    is(out, 32, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    sluice_hmac_sha256(out, SLUICE_SPAN_LIT("Jefe"), SLUICE_SPAN_LIT("what do ya want for nothing?"));
    is(out, 32, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, sizeof key);
    sluice_hmac_sha256(out, sluice_span_of(key, sizeof key), SLUICE_SPAN_LIT("Test Using Larger Than Block-Size Key - Hash Key First"));
    is(out, 32, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

static void hmac_in_pieces_is_hmac_and_leaves_no_state(void **state)
{
    sluice_hmac_sha256_state st, zeros;
    uint8_t out[32];

    (void)state;
    memset(&zeros, 0, sizeof zeros);
    sluice_hmac_sha256_init(&st, SLUICE_SPAN_LIT("Jefe"));
    sluice_hmac_sha256_update(&st, SLUICE_SPAN_LIT("what do ya "));
    sluice_hmac_sha256_update(&st, SLUICE_SPAN_EMPTY);
    sluice_hmac_sha256_update(&st, SLUICE_SPAN_LIT("want for nothing?"));
    sluice_hmac_sha256_final(&st, out);
    is(out, 32, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    assert_memory_equal(&st, &zeros, sizeof st);
}

static void hkdf_gives_rfc_5869_values(void **state)
{
    uint8_t prk[32], okm[82], ikm[80], salt[80], info[80];

    (void)state;
    memset(ikm, 0x0b, 22);
    sluice_hkdf_sha256_extract(prk, hex("000102030405060708090a0b0c"), sluice_span_of(ikm, 22));
    is(prk, 32, "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
    assert_true(sluice_hkdf_sha256_expand(okm, 42, prk, hex("f0f1f2f3f4f5f6f7f8f9")));
    is(okm, 42, "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");

    for (size_t i = 0; i < 80; i++) {
        ikm[i] = (uint8_t)i;
        salt[i] = (uint8_t)(0x60 + i);
        info[i] = (uint8_t)(0xb0 + i);
    }
    sluice_hkdf_sha256_extract(prk, sluice_span_of(salt, 80), sluice_span_of(ikm, 80));
    assert_true(sluice_hkdf_sha256_expand(okm, 82, prk, sluice_span_of(info, 80)));
    is(okm, 82, "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
                "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87");

    memset(ikm, 0x0b, 22);
    sluice_hkdf_sha256_extract(prk, SLUICE_SPAN_EMPTY, sluice_span_of(ikm, 22));
    assert_true(sluice_hkdf_sha256_expand(okm, 42, prk, SLUICE_SPAN_EMPTY));
    is(okm, 42, "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
}

static void hkdf_ends_at_255_blocks(void **state)
{
    static uint8_t out[255 * 32 + 1];
    uint8_t prk[32] = { 1 };

    (void)state;
    assert_true(sluice_hkdf_sha256_expand(out, sizeof out - 1, prk, SLUICE_SPAN_EMPTY));
    assert_false(sluice_hkdf_sha256_expand(out, sizeof out, prk, SLUICE_SPAN_EMPTY));
    assert_true(sluice_hkdf_sha256_expand(out, 0, prk, SLUICE_SPAN_EMPTY));
}

static const char sunscreen[] = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";

static void chacha20poly1305_gives_the_rfc_8439_value(void **state)
{
    uint8_t sealed[sizeof sunscreen - 1 + 16], opened[sizeof sunscreen - 1];
    sluice_span key = hex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
    sluice_span nonce = hex("070000004041424344454647"), aad = hex("50515253c0c1c2c3c4c5c6c7");

    (void)state;
    sluice_chacha20poly1305_seal(sealed, key.ptr, nonce.ptr, aad, SLUICE_SPAN_LIT(sunscreen));
    is(sealed, sizeof sealed, "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
                              "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691");
    assert_true(sluice_chacha20poly1305_open(opened, key.ptr, nonce.ptr, aad, sluice_span_of(sealed, sizeof sealed)));
    assert_memory_equal(opened, sunscreen, sizeof opened);
}

static void xchacha20poly1305_gives_the_draft_s_value(void **state) /* draft-irtf-cfrg-xchacha-03, A.3.1 */
{
    uint8_t sealed[sizeof sunscreen - 1 + 16], opened[sizeof sunscreen - 1];
    sluice_span key = hex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
    sluice_span nonce = hex("404142434445464748494a4b4c4d4e4f5051525354555657"), aad = hex("50515253c0c1c2c3c4c5c6c7");

    (void)state;
    sluice_xchacha20poly1305_seal(sealed, key.ptr, nonce.ptr, aad, SLUICE_SPAN_LIT(sunscreen));
    is(sealed, sizeof sealed, "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452"
                              "2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff921f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49");
    assert_true(sluice_xchacha20poly1305_open(opened, key.ptr, nonce.ptr, aad, sluice_span_of(sealed, sizeof sealed)));
    assert_memory_equal(opened, sunscreen, sizeof opened);
}

typedef void seal_fn(uint8_t *out, const uint8_t *key, const uint8_t *nonce, sluice_span aad, sluice_span plain);
typedef bool open_fn(uint8_t *out, const uint8_t *key, const uint8_t *nonce, sluice_span aad, sluice_span sealed);

static void every_changed_bit_is_a_forgery(seal_fn *seal, open_fn *open)
{
    uint8_t key[32] = { 1 }, nonce[24] = { 2 }, plain[5] = "hello", sealed[21], opened[5], zeros[5] = { 0 };

    seal(sealed, key, nonce, SLUICE_SPAN_LIT("aad"), sluice_span_of(plain, 5));
    for (size_t bit = 0; bit < 8 * sizeof sealed; bit++) {
        sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
        memset(opened, 0xee, sizeof opened);
        assert_false(open(opened, key, nonce, SLUICE_SPAN_LIT("aad"), sluice_span_of(sealed, sizeof sealed)));
        assert_memory_equal(opened, zeros, sizeof opened);
        sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_false(open(opened, key, nonce, SLUICE_SPAN_LIT("aae"), sluice_span_of(sealed, sizeof sealed)));
    assert_false(open(opened, key, nonce, SLUICE_SPAN_EMPTY, sluice_span_of(sealed, sizeof sealed)));
    key[31] = 1;
    assert_false(open(opened, key, nonce, SLUICE_SPAN_LIT("aad"), sluice_span_of(sealed, sizeof sealed)));
    key[31] = 0;
    for (size_t len = 0; len < sizeof sealed; len++)
        assert_false(open(opened, key, nonce, SLUICE_SPAN_LIT("aad"), sluice_span_of(sealed, len)));
    assert_true(open(opened, key, nonce, SLUICE_SPAN_LIT("aad"), sluice_span_of(sealed, sizeof sealed)));
}

static void a_changed_message_does_not_open(void **state)
{
    (void)state;
    every_changed_bit_is_a_forgery(sluice_chacha20poly1305_seal, sluice_chacha20poly1305_open);
    every_changed_bit_is_a_forgery(sluice_xchacha20poly1305_seal, sluice_xchacha20poly1305_open);
}

static void sealing_works_in_place_and_on_nothing(void **state)
{
    uint8_t key[32] = { 3 }, nonce[24] = { 4 }, apart[32], place[32] = "sixteen bytes..";

    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        seal_fn *seal = wide ? sluice_xchacha20poly1305_seal : sluice_chacha20poly1305_seal;
        open_fn *open = wide ? sluice_xchacha20poly1305_open : sluice_chacha20poly1305_open;

        seal(apart, key, nonce, SLUICE_SPAN_EMPTY, sluice_span_of(place, 16));
        seal(place, key, nonce, SLUICE_SPAN_EMPTY, sluice_span_of(place, 16));
        assert_memory_equal(place, apart, 32);
        assert_true(open(place, key, nonce, SLUICE_SPAN_EMPTY, sluice_span_of(place, 32)));
        assert_string_equal((char *)place, "sixteen bytes..");
        seal(apart, key, nonce, SLUICE_SPAN_EMPTY, SLUICE_SPAN_EMPTY);
        assert_true(open(apart, key, nonce, SLUICE_SPAN_EMPTY, sluice_span_of(apart, 16)));
    }
}

static void x25519_gives_rfc_7748_values(void **state) /* 6.1 */
{
    sluice_span a = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    sluice_span b = hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    uint8_t a_pub[32], b_pub[32], shared[32];

    (void)state;
    sluice_x25519_public(a_pub, a.ptr);
    sluice_x25519_public(b_pub, b.ptr);
    is(a_pub, 32, "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    is(b_pub, 32, "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
    assert_true(sluice_x25519(shared, a.ptr, b_pub));
    is(shared, 32, "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert_true(sluice_x25519(shared, b.ptr, a_pub));
    is(shared, 32, "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
}

static void x25519_refuses_points_that_give_zero(void **state)
{
    static const char *const points[] = {
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    };
    uint8_t secret[32] = { 9, 8, 7 }, shared[32], zeros[32] = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        memset(shared, 0xee, sizeof shared);
        assert_false(sluice_x25519(shared, secret, hex(points[i]).ptr));
        assert_memory_equal(shared, zeros, sizeof shared);
    }
}

static void ed25519_gives_rfc_8032_values(void **state) /* 7.1, tests 1 and 2 */
{
    static const struct { const char *seed, *pub, *message, *sig; } cases[] = {
        { "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
          "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b" },
        { "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
          "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sluice_span seed = hex(cases[i].seed), message = hex(cases[i].message);
        uint8_t pub[32], sig[64];

        sluice_ed25519_public(pub, seed.ptr);
        is(pub, 32, cases[i].pub);
        sluice_ed25519_sign(sig, seed.ptr, message);
        is(sig, 64, cases[i].sig);
        assert_true(sluice_ed25519_verify(sig, pub, message));
        assert_false(sluice_ed25519_verify(sig, pub, SLUICE_SPAN_LIT("other")));
        for (size_t bit = 0; bit < 512; bit += 7) {
            sig[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_false(sluice_ed25519_verify(sig, pub, message));
            sig[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
}

static void hex_reads_what_it_writes_and_nothing_else(void **state)
{
    uint8_t bytes[3];
    char text[7];

    (void)state;
    sluice_hex(text, (const uint8_t *)"\x00\xab\xff", 3);
    assert_string_equal(text, "00abff");
    assert_true(sluice_unhex(bytes, 3, "00AbFf"));
    assert_memory_equal(bytes, "\x00\xab\xff", 3);
    assert_false(sluice_unhex(bytes, 3, "00abf"));
    assert_false(sluice_unhex(bytes, 3, "00abff0"));
    assert_false(sluice_unhex(bytes, 3, "00abff00"));
    assert_false(sluice_unhex(bytes, 3, "00abfg"));
    assert_false(sluice_unhex(bytes, 3, "00 abf"));
    assert_false(sluice_unhex(bytes, 3, NULL));
    assert_true(sluice_unhex(bytes, 0, ""));
    sluice_hex(text, NULL, 0);
    assert_string_equal(text, "");
}

static void base64_reads_what_it_writes_and_nothing_else(void **state) /* RFC 4648, section 10 */
{
    static const struct { const char *plain, *text; } good[] = {
        { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" }, { "foob", "Zm9vYg==" }, { "fooba", "Zm9vYmE=" }, { "foobar", "Zm9vYmFy" },
    };
    static const char *const bad[] = { "Zg", "Zg=", "Zh==", "Zm9=", "Z===", "====", "Zm9v\n", " Zm9", "Zm-_", "Zg==Zg==", "Zm9v=", "Z" };
    char text[9];
    uint8_t bytes[8];
    size_t len;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(sluice_base64_len(strlen(good[i].plain)), strlen(good[i].text));
        sluice_base64(text, sluice_span_str(good[i].plain));
        assert_string_equal(text, good[i].text);
        assert_true(sluice_unbase64(bytes, sizeof bytes, &len, sluice_span_str(good[i].text)));
        assert_true(sluice_span_eq_str(sluice_span_of(bytes, len), good[i].plain));
        assert_true(sluice_unbase64(bytes, len, &len, sluice_span_str(good[i].text))); /* room for exactly that */
        if (len > 0)
            assert_false(sluice_unbase64(bytes, len - 1, &len, sluice_span_str(good[i].text)));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (sluice_unbase64(bytes, sizeof bytes, &len, sluice_span_str(bad[i])) || len != 0)
            fail_msg("%s", bad[i]);
}

static void equal_means_every_byte(void **state)
{
    uint8_t a[33] = { 0 }, b[33] = { 0 };

    (void)state;
    assert_true(sluice_ct_eq(a, b, sizeof a));
    for (size_t i = 0; i < sizeof a; i++) {
        b[i] = 0x80;
        assert_false(sluice_ct_eq(a, b, sizeof a));
        b[i] = 0;
    }
    assert_true(sluice_ct_eq(NULL, NULL, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(init_may_be_repeated),
        cmocka_unit_test(sha256_gives_fips_180_values),
        cmocka_unit_test(blake2b_takes_keys_of_0_and_16_to_64_bytes),
        cmocka_unit_test(hmac_gives_rfc_4231_values),
        cmocka_unit_test(hmac_in_pieces_is_hmac_and_leaves_no_state),
        cmocka_unit_test(hkdf_gives_rfc_5869_values),
        cmocka_unit_test(hkdf_ends_at_255_blocks),
        cmocka_unit_test(chacha20poly1305_gives_the_rfc_8439_value),
        cmocka_unit_test(xchacha20poly1305_gives_the_draft_s_value),
        cmocka_unit_test(a_changed_message_does_not_open),
        cmocka_unit_test(sealing_works_in_place_and_on_nothing),
        cmocka_unit_test(x25519_gives_rfc_7748_values),
        cmocka_unit_test(x25519_refuses_points_that_give_zero),
        cmocka_unit_test(ed25519_gives_rfc_8032_values),
        cmocka_unit_test(hex_reads_what_it_writes_and_nothing_else),
        cmocka_unit_test(base64_reads_what_it_writes_and_nothing_else),
        cmocka_unit_test(equal_means_every_byte),
    };

    return cmocka_run_group_tests_name("crypto/crypto", tests, start, NULL);
}
