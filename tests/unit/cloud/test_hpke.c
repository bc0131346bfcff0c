/* test_hpke.c - hpke.c against RFC 9180's appendix, and what it must refuse
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cloud-adapters/oblivious/hpke.h"
#include "tests/support/cm.h"
#include "tests/unit/cloud/aes128gcm.h"
#include "tests/unit/cloud/vectors.h"

static const sluice_hpke_aead *aead_of(const sluice_json *v)
{
    const int id = vectors_int(v, "aead_id");

    assert_true(id == aes128gcm.id || id == sluice_hpke_chacha20.id);
    return id == aes128gcm.id ? &aes128gcm : &sluice_hpke_chacha20;
}

static void check_schedule(const sluice_hpke *ctx, const sluice_json *v)
{
    assert_span_equal(sluice_span_of(ctx->key, ctx->aead->key_len), vectors_bytes(v, "key"));
    assert_span_equal(sluice_span_of(ctx->base_nonce, 12), vectors_bytes(v, "base_nonce"));
    assert_span_equal(sluice_span_of(ctx->exporter_secret, 32), vectors_bytes(v, "exporter_secret"));
}

static void setups(const sluice_json *v, sluice_hpke *sender, sluice_hpke *receiver)
{
    const sluice_span info = vectors_bytes(v, "info");
    uint8_t enc[32];

    assert_true(sluice_hpke_setup_sender(sender, aead_of(v), enc, vectors_bytes(v, "pkRm").ptr, vectors_bytes(v, "skEm").ptr, info));
    assert_span_equal(sluice_span_of(enc, 32), vectors_bytes(v, "enc"));
    assert_true(sluice_hpke_setup_receiver(receiver, aead_of(v), enc, vectors_bytes(v, "skRm").ptr, info));
}

static void key_pairs_are_derived_as_in_rfc9180(void **state)
{
    sluice_json_doc *doc = vectors_open("rfc9180-appendix-a.json");
    uint8_t secret[32], pub[32];

    (void)state;
    for (const sluice_json *v = sluice_json_root(doc)->child; v != NULL; v = v->next) {
        assert_true(sluice_hpke_derive_keypair(secret, pub, vectors_bytes(v, "ikmE")));
        assert_span_equal(sluice_span_of(secret, 32), vectors_bytes(v, "skEm"));
        assert_span_equal(sluice_span_of(pub, 32), vectors_bytes(v, "pkEm"));
        assert_true(sluice_hpke_derive_keypair(secret, pub, vectors_bytes(v, "ikmR")));
        assert_span_equal(sluice_span_of(secret, 32), vectors_bytes(v, "skRm"));
    }
    sluice_json_close(doc);
}

static void key_schedule_gives_the_secrets_of_rfc9180(void **state)
{
    sluice_json_doc *doc = vectors_open("rfc9180-appendix-a.json");
    sluice_hpke sender, receiver;
    size_t n = 0;

    (void)state;
    for (const sluice_json *v = sluice_json_root(doc)->child; v != NULL; v = v->next, n++) {
        setups(v, &sender, &receiver);
        check_schedule(&sender, v);
        check_schedule(&receiver, v);
    }
    assert_int_equal(n, 2);
    sluice_json_close(doc);
}

static void messages_and_exports_equal_rfc9180(void **state)
{
    sluice_json_doc *doc = vectors_open("rfc9180-appendix-a.json");
    sluice_hpke sender, receiver;
    uint8_t out[256];
    size_t n_messages = 0, n_exports = 0;

    (void)state;
    for (const sluice_json *v = sluice_json_root(doc)->child; v != NULL; v = v->next) {
        setups(v, &sender, &receiver);
        for (const sluice_json *e = sluice_json_get(v, "encryptions")->child; e != NULL; e = e->next, n_messages++) {
            const sluice_span ct = vectors_bytes(e, "ct"), pt = vectors_bytes(e, "pt"), aad = vectors_bytes(e, "aad");

            sender.seq = receiver.seq = (uint64_t)vectors_int(e, "seq");
            assert_true(sluice_hpke_seal(&sender, out, aad, pt));
            assert_span_equal(sluice_span_of(out, pt.len + 16), ct);
            assert_true(sluice_hpke_open(&receiver, out, aad, ct));
            assert_span_equal(sluice_span_of(out, ct.len - 16), pt);
            assert_int_equal(receiver.seq, vectors_int(e, "seq") + 1);
        }
        for (const sluice_json *e = sluice_json_get(v, "exports")->child; e != NULL; e = e->next, n_exports++) {
            const sluice_span want = vectors_bytes(e, "exported_value");

            assert_true(sluice_hpke_export(&sender, out, want.len, vectors_bytes(e, "exporter_context")));
            assert_span_equal(sluice_span_of(out, want.len), want);
        }
    }
    assert_int_equal(n_messages, 12);
    assert_int_equal(n_exports, 6);
    sluice_json_close(doc);
}

static void chacha_setups(sluice_hpke *sender, sluice_hpke *receiver)
{
    sluice_json_doc *doc = vectors_open("rfc9180-appendix-a.json");

    setups(sluice_json_root(doc)->child->next, sender, receiver);
    sluice_json_close(doc);
}

static void open_refuses_every_flipped_bit_and_keeps_its_place(void **state)
{
    sluice_hpke sender, receiver;
    uint8_t sealed[5 + 16], out[5];
    const sluice_span aad = SLUICE_SPAN_LIT("aad"), whole = sluice_span_of(sealed, sizeof sealed);

    (void)state;
    chacha_setups(&sender, &receiver);
    assert_true(sluice_hpke_seal(&sender, sealed, aad, SLUICE_SPAN_LIT("hello")));
    for (size_t bit = 0; bit < sizeof sealed * 8; bit++) {
        sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(sluice_hpke_open(&receiver, out, aad, whole));
        sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_false(sluice_hpke_open(&receiver, out, SLUICE_SPAN_LIT("aae"), whole));
    assert_false(sluice_hpke_open(&receiver, out, aad, sluice_span_of(sealed, 15)));
    assert_true(sluice_hpke_open(&receiver, out, aad, whole));
    assert_memory_equal(out, "hello", 5);
    assert_false(sluice_hpke_open(&receiver, out, aad, whole)); /* the next number: a repeated message is a forgery */
}

static void context_refuses_after_the_last_sequence_number(void **state)
{
    sluice_hpke sender, receiver;
    uint8_t out[16];

    (void)state;
    chacha_setups(&sender, &receiver);
    sender.seq = UINT64_MAX - 1;
    assert_true(sluice_hpke_seal(&sender, out, SLUICE_SPAN_EMPTY, SLUICE_SPAN_EMPTY));
    assert_false(sluice_hpke_seal(&sender, out, SLUICE_SPAN_EMPTY, SLUICE_SPAN_EMPTY));
}

static void points_of_small_order_are_refused_and_leave_an_empty_context(void **state)
{
    static const uint8_t secret[32] = { 1, 2, 3 }, zero[32], one[32] = { 1 };
    sluice_hpke ctx;
    uint8_t enc[32], out[16];

    (void)state;
    assert_false(sluice_hpke_setup_sender(&ctx, &sluice_hpke_chacha20, enc, zero, secret, SLUICE_SPAN_EMPTY));
    assert_false(sluice_hpke_setup_sender(&ctx, &sluice_hpke_chacha20, enc, one, secret, SLUICE_SPAN_EMPTY));
    assert_false(sluice_hpke_setup_receiver(&ctx, &sluice_hpke_chacha20, zero, secret, SLUICE_SPAN_EMPTY));
    assert_false(sluice_hpke_seal(&ctx, out, SLUICE_SPAN_EMPTY, SLUICE_SPAN_EMPTY));
    assert_false(sluice_hpke_export(&ctx, out, 16, SLUICE_SPAN_EMPTY));
}

static void deinit_leaves_no_secret(void **state)
{
    static const sluice_hpke empty;
    sluice_hpke sender, receiver;

    (void)state;
    chacha_setups(&sender, &receiver);
    sluice_hpke_deinit(&sender);
    assert_memory_equal(&sender, &empty, sizeof sender);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(key_pairs_are_derived_as_in_rfc9180),
        cmocka_unit_test(key_schedule_gives_the_secrets_of_rfc9180),
        cmocka_unit_test(messages_and_exports_equal_rfc9180),
        cmocka_unit_test(open_refuses_every_flipped_bit_and_keeps_its_place),
        cmocka_unit_test(context_refuses_after_the_last_sequence_number),
        cmocka_unit_test(points_of_small_order_are_refused_and_leave_an_empty_context),
        cmocka_unit_test(deinit_leaves_no_secret),
    };

    if (sluice_crypto_init(NULL) != SLUICE_OK)
        return 1;
    return cmocka_run_group_tests_name("hpke", tests, NULL, NULL);
}
