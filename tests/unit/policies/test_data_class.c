/* test_data_class.c - what the detectors find, what they leave alone, and how many of the marked spans of a public set they find.
 *
 * Numbers are made up or are published examples; those with check digits have right ones.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "policies/data_class.h"
#include "sdk/base/json.h"
#include "tests/support/cm.h"
#include "tests/support/test_files.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    MAIL = SLUICE_CLASS_EMAIL, PHONE = SLUICE_CLASS_PHONE, CARD = SLUICE_CLASS_PAYMENT_CARD, IBAN = SLUICE_CLASS_IBAN, ID = SLUICE_CLASS_NATIONAL_ID,
    NET = SLUICE_CLASS_NETWORK_ADDRESS, SECRET = SLUICE_CLASS_SECRET, HEALTH = SLUICE_CLASS_HEALTH, MONEY = SLUICE_CLASS_FINANCE
};

typedef struct text_case { const char *text; sluice_data_classes want; } text_case;

static void check(const text_case *cases, size_t n)
{
    bool is_wrong = false;

    for (size_t i = 0; i < n; i++) {
        /* a block of exactly its size, so that a sanitizer sees a byte read too far */
        size_t len = strlen(cases[i].text);
        char *copy = malloc(len + 1), found[160], wanted[160];
        sluice_data_classes got;

        assert_non_null(copy);
        memcpy(copy, cases[i].text, len);
        got = sluice_data_class_find(sluice_span_of(copy, len));
        free(copy);
        if (got == (cases[i].want | SLUICE_CLASS_PROMPT))
            continue;
        sluice_data_class_list(got, found, sizeof found);
        sluice_data_class_list(cases[i].want | SLUICE_CLASS_PROMPT, wanted, sizeof wanted);
        print_message("\"%s\" has %s, not %s\n", cases[i].text, found, wanted);
        is_wrong = true;
    }
    assert_false(is_wrong);
}
#define CHECK(cases) check((cases), sizeof(cases) / sizeof((cases)[0]))

static void names_and_bits_belong_together(void **state)
{
    char all[160], cut[10];

    (void)state;
    for (uint32_t bit = 1; bit <= SLUICE_CLASS_ALL; bit <<= 1) {
        const char *name = sluice_data_class_name(bit);

        assert_non_null(name);
        assert_int_equal(sluice_data_class_parse(sluice_span_str(name)), bit);
    }
    assert_null(sluice_data_class_name(0));
    assert_null(sluice_data_class_name(3));
    assert_null(sluice_data_class_name(1u << 10));
    assert_int_equal(sluice_data_class_parse(SLUICE_SPAN_LIT("Email")), 0);
    assert_int_equal(sluice_data_class_parse(SLUICE_SPAN_EMPTY), 0);
    sluice_data_class_list(SLUICE_CLASS_ALL, all, sizeof all);
    assert_string_equal(all, "prompt, email, phone, payment_card, iban, national_id, network_address, secret, health, finance");
    sluice_data_class_list(SLUICE_CLASS_ALL, cut, sizeof cut);
    assert_string_equal(cut, "prompt");
    sluice_data_class_list(0, all, sizeof all);
    assert_string_equal(all, "");
    sluice_data_class_list(1, all, 0);
}

static void plain_texts_have_the_prompt_alone(void **state)
{
    static const text_case cases[] = {
        { "", 0 },
        { "a", 0 },
        { "Hello, how are you today?", 0 },
        { "set an alarm for 7:30 am tomorrow", 0 },
        { "what is 12 + 30 / 5", 0 },
        { "the year 2019-2020 was odd", 0 },
        { "it cost 1.234.567 or 12,50", 0 },
        { "on 2024-01-15 or 15.01.2024 or 01/15/2024", 0 },
        { "version 3.11.2 of the std::vector class", 0 },
        { "x = a::b", 0 },
        { "12:30:45 o'clock", 0 },
        { "@home with friends @ 5", 0 },
        { "see foo@bar or x@.y", 0 },
        { "sk-learn-is-a-nice-library", 0 },
        { "a very-long-hyphenated-word-indeed", 0 },
        { "my password is not working", 0 },
        { "password reset please", 0 },
        { "the password was too short", 0 },
        { "is the token valid", 0 },
        { "pin: see below", 0 },
        { "https://example.com:8080/path?x=1", 0 },
        { "isbn 978-3-16-148410-0 edition", PHONE }, /* has the shape of one */
        { "order 4111111111111112 was shipped", 0 }, /* Luhn is wrong */
        { "GB82WEST12345698765433", 0 },
        { "room 101, floor 3, seat 14C", 0 },
        { "\xff\xfe\x80 garbage \xc3", 0 },
        { "chapter 10.1.2", 0 },
        { "0000000000000000", 0 },
        { "translate 'good morning' to french", 0 },
        { "call me at five", 0 },
        { "::", 0 },
        { ":::::::", 0 },
        { "abc::def", 0 },
        { "the bearer of bad news", 0 },
        { "1 234 567 people", 0 },
        { "score 3-2", 0 },
        { "AKIA", 0 },
        { "----------", 0 },
    };

    (void)state;
    CHECK(cases);
}

static void structured_data_is_found(void **state)
{
    static const text_case cases[] = {
        { "write to jane.doe+news@mail.example.co.uk please", MAIL },
        { "<j@ex.org>", MAIL },
        { "j\xc3\xbcrgen@m\xc3\xbcller.de", MAIL },
        { "a@b.io.", MAIL },
        { "a_b@x-y.travel,c", MAIL },

        { "call +1 (555) 123-4567", PHONE },
        { "(555) 123-4567", PHONE },
        { "555-123-4567", PHONE },
        { "555.123.4567", PHONE },
        { "+442079460958", PHONE },
        { "+44 (0) 20 7946 0958", PHONE },
        { "tel 030 123456", PHONE },
        { "089 72 63 41 office", PHONE },
        { "06-10446904", PHONE },
        { "001-748-088-2851x818", PHONE },
        { "my phone is 5551234567", PHONE },
        { "ring 555-1234", PHONE },
        { "0712345678 is mine", PHONE },
        { "+49\xc2\xa0"
          "30\xc2\xa0"
          "901820",
          PHONE },
        { "\xe9\x9b\xbb\xe8\xa9\xb1"
          "0312345678",
          PHONE },
        { "(978)645-9740x11144", PHONE },
        { "555\xe2\x80\x91"
          "123\xe2\x80\x91"
          "4567",
          PHONE },

        { "4111 1111 1111 1111", CARD },
        { "4111-1111-1111-1111", CARD },
        { "card 4111111111111111.", CARD },
        { "3782 822463 10005", CARD },
        { "5555555555554444", CARD },
        { "2223003122003222", CARD },
        { "30569309025904", CARD },
        { "6011111111111117", CARD },
        { "3530111333300000", CARD },
        { "4111\xc2\xa0"
          "1111\xc2\xa0"
          "1111\xc2\xa0"
          "1111",
          CARD },
        { "555-123-4567 4111111111111111", PHONE | CARD },

        { "GB82 WEST 1234 5698 7654 32", IBAN },
        { "gb82west12345698765432", IBAN },
        { "DE89370400440532013000", IBAN },
        { "FR14 2004 1010 0505 0001 3M02 606", IBAN },
        { "pay NO9386011117947 now", IBAN },
        { "MT84MALT011000012345MTLCAST001S", IBAN },

        { "ssn 078-05-1121", ID },
        { "078 05 1121", ID },
        { "my SSN is 078051121", ID },
        { "SIN 130 692 544", ID },
        { "BSN 111222333", ID },
        { "NHS number 943 476 5919", ID },
        { "811218-9876", ID },
        { "CPF 529.982.247-25", ID },
        { "85.07.30-033.28", ID },
        { "44051401359", ID },
        { "Steuer-ID 86095742719", ID },
        { "86 095 742 719", ID },
        { "2341 2341 2346", ID },
        { "756.9217.0769.85", ID },
        { "1 89 05 49 588 157 23", ID },
        { "11010519491231002X", ID },
        { "RSSMRA85T10A562S", ID },
        { "12345678Z", ID },
        { "X1234567L", ID },
        { "AB 12 34 56 C", ID },

        { "ping 192.168.0.1!", NET },
        { "10.218.6.131", NET },
        { "d80:e4b5:79da:6cf6:71f3:51f7:9161:c319", NET },
        { "2001:db8::1", NET },
        { "at fe80::1, port 5", NET },
        { "::1", NET },
        { "00:1A:2b:3c:4d:5e", NET },
        { "00-1A-2B-3C-4D-5E", NET },
        { "2001:db8::", NET },
    };

    (void)state;
    CHECK(cases);
}

static void wrong_check_digits_are_no_numbers(void **state)
{
    static const text_case cases[] = {
        { "NHS number 9434765918", 0 },
        { "11010519491231003X", 0 },
        { "RSSMRA85T10A562T", 0 },
        { "12345678A", 0 },
        { "X1234567A", 0 },
        { "QQ123456C", 0 },
        { "756921707698", 0 },
        { "189054958815781", 0 },
        { "2341 2341 2347", PHONE },
        { "000-12-3456", PHONE },
        { "666-12-3456", 0 },
        { "078051121", PHONE },
        { "256.1.1.1", 0 },
        { "1.2.3.4.5", 0 },
        { "00:1A:2b:3c:4d", 0 },
        { "2001:db8::1::2", 0 },
        { "12345:db8::1", 0 },
        { "1:2:3:4:5:6:7", 0 },
        { "00:1A-2b:3c:4d:5e", 0 },
        { "XX82WEST12345698765432", 0 },
        { "DE8937040044053201300", 0 },
    };

    (void)state;
    CHECK(cases);
}

static void secrets_are_found(void **state)
{
    static const text_case cases[] = {
        { "use sk-abcdEFGH1234567890abcd", SECRET },
        { "sk-ant-api03-abcdefgh12345678", SECRET },
        { "AKIAIOSFODNN7EXAMPLE", SECRET },
        { "ghp_abcdefghijklmnopqrstuvwxyz0123456789", SECRET },
        { "key=AIzaSyA1234567890123456789012345678901", SECRET },
        { "xoxb-1234567890-abcdef", SECRET },
        { "Authorization: Bearer abcdef0123456789abcdef", SECRET },
        { "Authorization: Basic dXNlcjpwYXNz", SECRET },
        { "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", SECRET },
        { "postgres://admin:hunter2@db.internal/x", SECRET | MAIL },
        { "https://u:p@h.example/", SECRET | MAIL },
        { "-----BEGIN RSA PRIVATE KEY-----\nMIIE", SECRET },
        { "my password is hunter2", SECRET },
        { "the password is swordfish", SECRET },
        { "Password: correct-horse", SECRET },
        { "{\"password\": \"abcd1\"}", SECRET },
        { "pwd=abc123", SECRET },
        { "pin is 4711", SECRET },
        { "api_key = 0123456789abcdef", SECRET },
        { "Passwort lautet geheim9", SECRET },
        { "password is \"not easy\"", 0 },
        { "-----BEGIN CERTIFICATE-----", 0 },
        { "AKIAiosfodnn7example", 0 },
        { "the cvv is 123", SECRET },
        { "mailto://nobody", 0 },
    };

    (void)state;
    CHECK(cases);
    assert_true(sluice_data_class_has_key(SLUICE_SPAN_LIT("x sk-abcdEFGH1234567890abcd")));
    assert_false(sluice_data_class_has_key(SLUICE_SPAN_LIT("my password is hunter2")));
    assert_false(sluice_data_class_has_key(SLUICE_SPAN_EMPTY));
}

static void health_and_finance_vocabulary_is_found(void **state)
{
    static const text_case cases[] = {
        { "I was diagnosed with diabetes", HEALTH },
        { "my Blood Pressure is high", HEALTH },
        { "side effects of antidepressants", HEALTH },
        { "she is pregnant", HEALTH },
        { "what is HIV?", HEALTH },
        { "ich habe Krebs", HEALTH },
        { "my salary is low", MONEY },
        { "raise my credit limit", MONEY },
        { "mortgages explained", MONEY },
        { "show my bank account", MONEY },
        { "I am in debt because of cancer", HEALTH | MONEY },
        { "cancel my order", 0 },
        { "stroke of luck", HEALTH },
        { "strokes", HEALTH },
        { "a loaner car", MONEY },
        { "the bloodhound", 0 },
        { "archives", 0 },
        { "pensive", 0 },
    };

    (void)state;
    CHECK(cases);
}

/* ---- a public set -------------------------------------------------------------------------------- */

static const struct marked { const char *type; sluice_data_classes bit; unsigned percent_min;
} marked[] = { { "EMAIL_ADDRESS", MAIL, 98 }, { "CREDIT_CARD", CARD, 98 }, { "IBAN_CODE", IBAN, 98 },
               { "IP_ADDRESS", NET, 98 },     { "US_SSN", ID, 98 },        { "PHONE_NUMBER", PHONE, 90 } };
enum { N_MARKED = sizeof marked / sizeof marked[0] };

static void most_marked_texts_of_a_public_set_are_found(void **state)
{
    const char *path = test_data_path("pii/generated.jsonl");
    size_t hits[N_MARKED] = { 0 }, total[N_MARKED] = { 0 }, wrong[N_MARKED] = { 0 }, texts = 0;
    sluice_buf file;

    (void)state;
    if (path == NULL || !test_read_file(path, &file)) {
        print_message("SLUICE_TEST_DATA has no pii/generated.jsonl\n");
        skip();
        return;
    }
    for (size_t i = 0; i < file.len;) {
        const uint8_t *end = memchr(file.ptr + i, '\n', file.len - i);
        size_t len = end != NULL ? (size_t)(end - (file.ptr + i)) : file.len - i;
        sluice_json_doc *doc;
        const sluice_json *text, *spans;
        sluice_data_classes found;

        assert_int_equal(sluice_json_parse(&doc, sluice_span_of(file.ptr + i, len), NULL, NULL, NULL), SLUICE_OK);
        text = sluice_json_get(sluice_json_root(doc), "text");
        spans = sluice_json_get(sluice_json_root(doc), "spans");
        found = sluice_data_class_find(sluice_span_of(text->string, text->string_len));
        for (size_t m = 0; m < N_MARKED; m++) {
            bool is_marked = false;

            for (const sluice_json *s = spans->child; s != NULL; s = s->next)
                is_marked = is_marked || strcmp(sluice_json_get(s, "type")->string, marked[m].type) == 0;
            total[m] += is_marked;
            hits[m] += is_marked && (found & marked[m].bit) != 0;
            wrong[m] += !is_marked && (found & marked[m].bit) != 0;
            if (getenv("SLUICE_TEST_VERBOSE") != NULL && is_marked != ((found & marked[m].bit) != 0))
                print_message("%s %s: %s\n", is_marked ? "missed" : "wrong", marked[m].type, text->string);
        }
        texts++;
        sluice_json_close(doc);
        i += len + 1;
    }
    for (size_t m = 0; m < N_MARKED; m++) {
        print_message("%-14s %zu of %zu texts found, %zu of %zu others taken for it\n", marked[m].type, hits[m], total[m], wrong[m],
                      texts - total[m]);
        assert_true(total[m] > 0);
        if (hits[m] * 100 < total[m] * marked[m].percent_min || wrong[m] * 50 > texts)
            fail_msg("%s: recall or precision is too low", marked[m].type);
    }
    sluice_buf_deinit(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_bits_belong_together),
        cmocka_unit_test(plain_texts_have_the_prompt_alone),
        cmocka_unit_test(structured_data_is_found),
        cmocka_unit_test(wrong_check_digits_are_no_numbers),
        cmocka_unit_test(secrets_are_found),
        cmocka_unit_test(health_and_finance_vocabulary_is_found),
        cmocka_unit_test(most_marked_texts_of_a_public_set_are_found),
    };

    return cmocka_run_group_tests_name("data_class", tests, NULL, NULL);
}
