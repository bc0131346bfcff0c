/* test_consent.c - a consent covers exactly what was agreed, for as long as it was agreed, and ends when the user says so.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "policies/consent.h"
#include "tests/support/cm.h"
#include "tests/support/fake_platform.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/policies/policy_fixture.h"

#include <stdio.h>
#include <stdlib.h>

#define P SLUICE_CLASS_PROMPT
#define PE (SLUICE_CLASS_PROMPT | SLUICE_CLASS_EMAIL)
static const int64_t START = 1767225600000; /* of the fake wall clock */

typedef struct fixture {
    fake_platform fp;
    temp_dir dir;
    sluice_policy *policy;
    sluice_ledger *ledger;
    sluice_consent_store *store;
} fixture;

static void reopen(fixture *f)
{
    sluice_consent_close(f->store);
    sluice_ledger_close(f->ledger);
    assert_int_equal(sluice_ledger_open(&f->ledger, f->dir.path, &f->fp.platform, NULL, NULL), SLUICE_OK);
    assert_int_equal(sluice_consent_open(&f->store, f->ledger, &f->fp.platform, NULL, NULL), SLUICE_OK);
}

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);

    if (f == NULL)
        return -1;
    fake_platform_init(&f->fp, 3);
    temp_dir_open(&f->dir);
    f->policy = fixture_policy(FIXTURE_POLICY);
    assert_non_null(f->policy);
    reopen(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;

    sluice_consent_close(f->store);
    sluice_ledger_close(f->ledger);
    sluice_policy_close(f->policy);
    temp_dir_close(&f->dir);
    fake_platform_deinit(&f->fp);
    free(f);
    return 0;
}

static sluice_consent consent(sluice_data_classes classes, sluice_consent_scope scope, int64_t until)
{
    return (sluice_consent){
        .size = sizeof(sluice_consent), .purpose = "answer_question", .endpoint = "acme", .classes = classes, .scope = scope, .valid_until_ms = until
    };
}

static void give(fixture *f, sluice_data_classes classes, sluice_consent_scope scope, int64_t until, char *id)
{
    const sluice_consent k = consent(classes, scope, until);
    sluice_error err = SLUICE_ERROR_INIT;

    if (sluice_consent_add(f->store, f->policy, &k, id, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
}

static sluice_reason ask(fixture *f, sluice_data_classes classes)
{
    size_t index;
    sluice_reason r = sluice_consent_covers(f->store, f->policy, 0, 0, classes, sluice_wall_ms(&f->fp.platform), &index);

    assert_int_equal(r == SLUICE_REASON_PERMITTED, index != SIZE_MAX);
    return r;
}

static sluice_consent_state state_of(fixture *f, size_t i)
{
    sluice_consent k;

    sluice_consent_get(f->store, i, &k);
    return k.state;
}

/* ---- what it covers ------------------------------------------------------------------------------ */

static void nothing_is_covered_without_a_consent(void **state)
{
    fixture *f = *state;

    assert_int_equal(ask(f, P), SLUICE_REASON_CONSENT_MISSING);
    assert_int_equal(sluice_consent_count(f->store), 0);
    assert_int_equal(sluice_consent_count(NULL), 0);
}

static void a_consent_covers_exactly_what_was_agreed(void **state)
{
    fixture *f = *state;
    char id[SLUICE_ID_MAX];
    int64_t now = START;
    size_t index;

    give(f, PE, SLUICE_CONSENT_UNTIL, 0, id);
    assert_int_equal(strlen(id), 18);
    assert_memory_equal(id, "c-", 2);
    assert_int_equal(ask(f, P), SLUICE_REASON_PERMITTED);
    assert_int_equal(ask(f, PE), SLUICE_REASON_PERMITTED);
    assert_int_equal(ask(f, PE | SLUICE_CLASS_PHONE), SLUICE_REASON_CONSENT_MISSING);
    assert_int_equal(ask(f, P | 1u << 15), SLUICE_REASON_CLASS_UNKNOWN);
    assert_int_equal(ask(f, 0), SLUICE_REASON_CLASS_UNKNOWN);
    assert_int_equal(sluice_consent_covers(f->store, f->policy, 1, 0, P, now, &index), SLUICE_REASON_CONSENT_MISSING);
    assert_int_equal(sluice_consent_covers(f->store, f->policy, 0, 1, P, now, &index), SLUICE_REASON_CONSENT_MISSING);
    assert_int_equal(sluice_consent_covers(f->store, f->policy, 2, 0, P, now, &index), SLUICE_REASON_CONSENT_MISSING);
    assert_int_equal(sluice_consent_covers(f->store, f->policy, 0, 2, P, now, &index), SLUICE_REASON_CONSENT_MISSING);
    assert_int_equal(sluice_consent_covers(f->store, NULL, 0, 0, P, now, NULL), SLUICE_REASON_CONSENT_MISSING);
    assert_int_equal(sluice_consent_covers(NULL, f->policy, 0, 0, P, now, NULL), SLUICE_REASON_CONSENT_MISSING);
    assert_int_equal(sluice_consent_covers(f->store, f->policy, 0, 0, P, now, NULL), SLUICE_REASON_PERMITTED);
}

static void a_changed_text_needs_a_new_consent(void **state)
{
    fixture *f = *state;

    give(f, P, SLUICE_CONSENT_UNTIL, 0, NULL);
    f->policy->purposes[0].text_version = 4;
    assert_int_equal(ask(f, P), SLUICE_REASON_CONSENT_MISSING);
    give(f, P, SLUICE_CONSENT_UNTIL, 0, NULL);
    assert_int_equal(ask(f, P), SLUICE_REASON_PERMITTED);
    f->policy->purposes[0].text_version = 3; /* an older text put back is another text, too, but that one was agreed to */
    assert_int_equal(ask(f, P), SLUICE_REASON_PERMITTED);
}

static void records_survive_with_all_that_they_say(void **state)
{
    fixture *f = *state;
    sluice_consent before, after;
    char id[SLUICE_ID_MAX];

    give(f, PE, SLUICE_CONSENT_UNTIL, START + 5000, id);
    sluice_consent_get(f->store, 0, &before);
    reopen(f);
    assert_int_equal(sluice_consent_count(f->store), 1);
    sluice_consent_get(f->store, 0, &after);
    assert_memory_equal(&before, &after, sizeof before);
    assert_string_equal(after.id, id);
    assert_string_equal(after.purpose, "answer_question");
    assert_string_equal(after.endpoint, "acme");
    assert_int_equal(after.text_version, 3);
    assert_true(after.granted_ms == START);
    assert_int_equal(after.scope, SLUICE_CONSENT_UNTIL);
    assert_int_equal(after.state, SLUICE_CONSENT_ACTIVE);
    sluice_consent_get(f->store, 1, &after);
    assert_int_equal(after.state, 0);
    sluice_consent_get(NULL, 0, &after);
    assert_int_equal(after.state, 0);
}

static void many_records_are_kept(void **state)
{
    fixture *f = *state;

    for (int i = 0; i < 40; i++)
        give(f, P, SLUICE_CONSENT_UNTIL, 0, NULL);
    reopen(f);
    assert_int_equal(sluice_consent_count(f->store), 40);
}

static void what_the_policy_does_not_know_is_refused(void **state)
{
    fixture *f = *state;
    sluice_consent k = consent(P, SLUICE_CONSENT_UNTIL, 0);
    char id[SLUICE_ID_MAX] = "x";

#define REFUSED(status) assert_int_equal(sluice_consent_add(f->store, f->policy, &k, id, NULL), status); k = consent(P, SLUICE_CONSENT_UNTIL, 0)
    k.purpose[0] = 'b';
    REFUSED(SLUICE_ERR_ARGUMENT);
    assert_string_equal(id, "");
    k.purpose[0] = '\0'; /* no default purpose in a consent */
    REFUSED(SLUICE_ERR_ARGUMENT);
    k.endpoint[0] = 'b';
    REFUSED(SLUICE_ERR_ARGUMENT);
    memset(k.endpoint, 'a', sizeof k.endpoint);
    REFUSED(SLUICE_ERR_ARGUMENT);
    memset(k.purpose, 'a', sizeof k.purpose);
    REFUSED(SLUICE_ERR_ARGUMENT);
    k.classes = P | 1u << 30;
    REFUSED(SLUICE_ERR_ARGUMENT);
    k.classes = SLUICE_CLASS_EMAIL;
    REFUSED(SLUICE_ERR_ARGUMENT);
    k.classes = 0;
    REFUSED(SLUICE_ERR_ARGUMENT);
    k.scope = (sluice_consent_scope)0;
    REFUSED(SLUICE_ERR_ARGUMENT);
    k.scope = (sluice_consent_scope)4;
    REFUSED(SLUICE_ERR_ARGUMENT);
    k.valid_until_ms = START;
    REFUSED(SLUICE_ERR_ARGUMENT);
    k.valid_until_ms = -1;
    REFUSED(SLUICE_ERR_ARGUMENT);
    k.valid_until_ms = INT64_MAX;
    REFUSED(SLUICE_ERR_ARGUMENT);
    fake_platform_set_wall_ms(&f->fp, -1);
    k.valid_until_ms = START + 1;
    REFUSED(SLUICE_ERR_STATE);
    assert_int_equal(sluice_consent_add(NULL, f->policy, &k, id, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_consent_add(f->store, NULL, &k, id, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_consent_add(f->store, f->policy, NULL, NULL, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_consent_refuse(f->store, f->policy, 2, 0, P, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_consent_refuse(f->store, f->policy, 0, 2, P, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_consent_refuse(f->store, f->policy, 0, 0, 0, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_consent_refuse(f->store, NULL, 0, 0, P, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_consent_refuse(NULL, f->policy, 0, 0, P, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_consent_withdraw(f->store, NULL, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_consent_withdraw(NULL, "c", NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_consent_withdraw(f->store, "c-0", NULL), SLUICE_ERR_NOT_FOUND);
    assert_int_equal(sluice_consent_spend(f->store, 0, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_consent_spend(NULL, 0, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_consent_count(f->store), 0);
}

/* ---- how long ------------------------------------------------------------------------------------ */

static void once_is_spent_once(void **state)
{
    fixture *f = *state;

    give(f, P, SLUICE_CONSENT_ONCE, 0, NULL);
    assert_int_equal(ask(f, P), SLUICE_REASON_PERMITTED);
    assert_int_equal(sluice_consent_spend(f->store, 0, NULL), SLUICE_OK);
    assert_int_equal(ask(f, P), SLUICE_REASON_CONSENT_MISSING);
    assert_int_equal(sluice_consent_spend(f->store, 0, NULL), SLUICE_ERR_CONSENT);
    assert_int_equal(state_of(f, 0), SLUICE_CONSENT_USED);
    reopen(f);
    assert_int_equal(state_of(f, 0), SLUICE_CONSENT_USED);
    assert_int_equal(ask(f, P), SLUICE_REASON_CONSENT_MISSING);
    give(f, P, SLUICE_CONSENT_UNTIL, 0, NULL);
    assert_int_equal(sluice_consent_spend(f->store, 1, NULL), SLUICE_OK); /* not for once: stays */
    assert_int_equal(ask(f, P), SLUICE_REASON_PERMITTED);
}

static void a_session_ends_with_its_instance(void **state)
{
    fixture *f = *state;

    give(f, P, SLUICE_CONSENT_SESSION, 0, NULL);
    assert_int_equal(ask(f, P), SLUICE_REASON_PERMITTED);
    reopen(f);
    assert_int_equal(ask(f, P), SLUICE_REASON_CONSENT_EXPIRED);
    assert_int_equal(state_of(f, 0), SLUICE_CONSENT_EXPIRED);
}

static void a_timed_consent_ends_and_no_clock_revives_it(void **state)
{
    fixture *f = *state;

    give(f, P, SLUICE_CONSENT_UNTIL, START + 1000, NULL);
    fake_platform_set_wall_ms(&f->fp, START + 999);
    assert_int_equal(ask(f, P), SLUICE_REASON_PERMITTED);
    fake_platform_set_wall_ms(&f->fp, START + 1000);
    assert_int_equal(ask(f, P), SLUICE_REASON_CONSENT_EXPIRED);
    fake_platform_set_wall_ms(&f->fp, START);
    assert_int_equal(ask(f, P), SLUICE_REASON_CONSENT_EXPIRED);
    assert_int_equal(state_of(f, 0), SLUICE_CONSENT_EXPIRED);
}

static void the_mark_survives_in_the_ledger(void **state)
{
    fixture *f = *state;

    give(f, P, SLUICE_CONSENT_UNTIL, START + 1000, NULL);
    fake_platform_set_wall_ms(&f->fp, START + 2000);
    assert_int_equal(sluice_ledger_append(f->ledger, "decision", NULL, 0, NULL, NULL), SLUICE_OK);
    fake_platform_set_wall_ms(&f->fp, START);
    assert_int_equal(ask(f, P), SLUICE_REASON_CONSENT_EXPIRED); /* in this instance */
    reopen(f);
    assert_int_equal(ask(f, P), SLUICE_REASON_CONSENT_EXPIRED); /* and in the next */
    assert_true(sluice_consent_clock(f->store, START) == START + 2000);
    assert_true(sluice_consent_clock(f->store, -3) == -3);
}

static void an_untrusted_clock_stops_timed_consents_alone(void **state)
{
    fixture *f = *state;

    give(f, P, SLUICE_CONSENT_UNTIL, START + 1000, NULL);
    fake_platform_set_wall_ms(&f->fp, -1);
    assert_int_equal(ask(f, P), SLUICE_REASON_CLOCK_UNTRUSTED);
    assert_int_equal(state_of(f, 0), SLUICE_CONSENT_ACTIVE);
    give(f, P, SLUICE_CONSENT_UNTIL, 0, NULL);
    assert_int_equal(ask(f, P), SLUICE_REASON_PERMITTED);
}

/* ---- taking back --------------------------------------------------------------------------------- */

static void withdrawing_counts_at_once_and_for_good(void **state)
{
    fixture *f = *state;
    char id[SLUICE_ID_MAX];
    uint64_t generation = sluice_consent_generation(f->store);

    give(f, P, SLUICE_CONSENT_UNTIL, 0, id);
    assert_int_equal(sluice_consent_generation(f->store), generation);
    assert_int_equal(sluice_consent_stands(f->store, 0, P), SLUICE_REASON_PERMITTED);
    assert_int_equal(sluice_consent_withdraw(f->store, id, NULL), SLUICE_OK);
    assert_int_not_equal(sluice_consent_generation(f->store), generation);
    assert_int_equal(sluice_consent_stands(f->store, 0, P), SLUICE_REASON_CONSENT_REVOKED);
    assert_int_equal(sluice_consent_stands(f->store, 1, P), SLUICE_REASON_CONSENT_REVOKED);
    assert_int_equal(sluice_consent_stands(NULL, 0, P), SLUICE_REASON_CONSENT_REVOKED);
    assert_int_equal(ask(f, P), SLUICE_REASON_CONSENT_REVOKED);
    assert_int_equal(sluice_consent_withdraw(f->store, id, NULL), SLUICE_OK);
    reopen(f);
    assert_int_equal(ask(f, P), SLUICE_REASON_CONSENT_REVOKED);
    assert_int_equal(state_of(f, 0), SLUICE_CONSENT_REVOKED);
    give(f, P, SLUICE_CONSENT_UNTIL, 0, NULL);
    assert_int_equal(ask(f, P), SLUICE_REASON_PERMITTED);
}

static void withdrawing_one_leaves_another_that_covers(void **state)
{
    fixture *f = *state;
    char id[SLUICE_ID_MAX];

    give(f, PE, SLUICE_CONSENT_UNTIL, 0, NULL);
    give(f, P, SLUICE_CONSENT_UNTIL, 0, id);
    assert_int_equal(sluice_consent_withdraw(f->store, id, NULL), SLUICE_OK);
    assert_int_equal(ask(f, P), SLUICE_REASON_PERMITTED);
}

static void a_withdrawal_counts_where_it_cannot_be_written(void **state)
{
    fixture *f = *state;
    char id[SLUICE_ID_MAX];

    give(f, P, SLUICE_CONSENT_UNTIL, 0, id);
    fake_platform_fail_on(&f->fp, FAKE_WRITE, 0);
    assert_int_equal(sluice_consent_withdraw(f->store, id, NULL), SLUICE_ERR_IO);
    assert_int_equal(ask(f, P), SLUICE_REASON_CONSENT_REVOKED);
    assert_int_equal(sluice_consent_withdraw(f->store, id, NULL), SLUICE_ERR_IO); /* tried again, not forgotten */
    fake_platform_heal(&f->fp);
}

static void a_refusal_counts_until_a_later_consent(void **state)
{
    fixture *f = *state;
    uint64_t generation = sluice_consent_generation(f->store);

    assert_int_equal(sluice_consent_refuse(f->store, f->policy, 0, 0, PE, NULL), SLUICE_OK);
    assert_int_not_equal(sluice_consent_generation(f->store), generation);
    assert_int_equal(ask(f, PE), SLUICE_REASON_CONSENT_REFUSED);
    assert_int_equal(ask(f, PE | SLUICE_CLASS_PHONE), SLUICE_REASON_CONSENT_REFUSED); /* more than was refused */
    assert_int_equal(ask(f, P), SLUICE_REASON_CONSENT_MISSING);                       /* less was never asked */
    assert_int_equal(state_of(f, 0), SLUICE_CONSENT_REFUSED);
    reopen(f);
    assert_int_equal(ask(f, PE), SLUICE_REASON_CONSENT_REFUSED);
    give(f, PE, SLUICE_CONSENT_ONCE, 0, NULL);
    assert_int_equal(ask(f, PE), SLUICE_REASON_PERMITTED);
    assert_int_equal(sluice_consent_stands(f->store, 1, PE), SLUICE_REASON_PERMITTED);
    assert_int_equal(sluice_consent_refuse(f->store, f->policy, 0, 0, P, NULL), SLUICE_OK); /* the last word */
    assert_int_equal(ask(f, PE), SLUICE_REASON_CONSENT_REFUSED);
    assert_int_equal(sluice_consent_stands(f->store, 1, PE), SLUICE_REASON_CONSENT_REFUSED);
}

static void a_refusal_can_be_taken_back(void **state)
{
    fixture *f = *state;
    sluice_consent k;

    assert_int_equal(sluice_consent_refuse(f->store, f->policy, 0, 0, P, NULL), SLUICE_OK);
    sluice_consent_get(f->store, 0, &k);
    assert_int_equal(sluice_consent_withdraw(f->store, k.id, NULL), SLUICE_OK);
    assert_int_equal(ask(f, P), SLUICE_REASON_CONSENT_MISSING);
    reopen(f);
    assert_int_equal(ask(f, P), SLUICE_REASON_CONSENT_MISSING);
}

static void the_newest_reason_is_told(void **state)
{
    fixture *f = *state;
    char id[SLUICE_ID_MAX];

    give(f, P, SLUICE_CONSENT_UNTIL, 0, id);
    assert_int_equal(sluice_consent_withdraw(f->store, id, NULL), SLUICE_OK);
    give(f, P, SLUICE_CONSENT_UNTIL, START + 10, NULL);
    fake_platform_set_wall_ms(&f->fp, START + 10);
    assert_int_equal(ask(f, P), SLUICE_REASON_CONSENT_EXPIRED);
}

/* ---- without a ledger, and with an odd one ------------------------------------------------------- */

static void without_a_ledger_nothing_can_be_given(void **state)
{
    fixture *f = *state;
    sluice_consent_store *c = NULL;
    const sluice_consent k = consent(P, SLUICE_CONSENT_UNTIL, 0);
    sluice_error err = SLUICE_ERROR_INIT;

    assert_int_equal(sluice_consent_open(&c, NULL, &f->fp.platform, NULL, NULL), SLUICE_OK);
    assert_int_equal(sluice_consent_add(c, f->policy, &k, NULL, &err), SLUICE_ERR_STATE);
    assert_true(err.hint[0] != '\0');
    assert_int_equal(sluice_consent_refuse(c, f->policy, 0, 0, P, NULL), SLUICE_ERR_STATE);
    assert_int_equal(sluice_consent_covers(c, f->policy, 0, 0, P, START, NULL), SLUICE_REASON_CONSENT_MISSING);
    sluice_consent_close(c);
    assert_int_equal(sluice_consent_open(&c, NULL, NULL, NULL, NULL), SLUICE_ERR_ARGUMENT);
    assert_null(c);
    fake_platform_fail(&f->fp, FAKE_RANDOM, 0);
    assert_int_equal(sluice_consent_open(&c, f->ledger, &f->fp.platform, NULL, NULL), SLUICE_ERR_IO);
    assert_null(c);
    fake_platform_fail(&f->fp, FAKE_RANDOM, 0);
    assert_int_equal(sluice_consent_add(f->store, f->policy, &k, NULL, NULL), SLUICE_ERR_IO);
    assert_int_equal(sluice_consent_count(f->store), 0);
}

static void append(fixture *f, const char *event, const char *id, const char *classes, const char *scope)
{
    const sluice_ledger_field fields[] = { { "event", event, 0 }, { "id", id, 0 }, { "purpose", "answer_question", 0 }, { "endpoint", "acme", 0 },
                                           { "classes", classes, 0 }, { "text_version", NULL, 3 }, { "scope", scope, 0 } };

    assert_int_equal(sluice_ledger_append(f->ledger, "consent", fields, 7, NULL, NULL), SLUICE_OK);
}

static void entries_of_a_later_version_never_widen(void **state)
{
    fixture *f = *state;

    append(f, "given", "c-1", "prompt, shoe_size", "until");
    append(f, "given", "c-2", "prompt, email", "for_ever");
    reopen(f);
    assert_int_equal(ask(f, P), SLUICE_REASON_PERMITTED);
    assert_int_equal(ask(f, PE), SLUICE_REASON_CONSENT_EXPIRED); /* the scope is not known: the narrowest, and that is over */
    append(f, "paused", "c-1", "", "");                          /* not known either: taken for a withdrawal */
    append(f, "paused", "c-9", "", "");
    reopen(f);
    assert_int_not_equal(ask(f, P), SLUICE_REASON_PERMITTED);
    assert_int_equal(sluice_consent_count(f->store), 2);
}

static void spent_after_withdrawn_stays_withdrawn(void **state)
{
    fixture *f = *state;

    append(f, "given", "c-1", "prompt", "once");
    append(f, "withdrawn", "c-1", "", "");
    append(f, "spent", "c-1", "", "");
    reopen(f);
    assert_int_equal(state_of(f, 0), SLUICE_CONSENT_REVOKED);
}

static void a_store_that_makes_no_sense_is_refused(void **state)
{
    static const struct { const char *first, *second; } cases[] = { { "c-1", "c-1" }, { "", NULL },
        { "0123456789012345678901234567890123456789012345678901234567890123456789", NULL } };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fixture *f = *state;
        sluice_consent_store *c;
        sluice_error err = SLUICE_ERROR_INIT;

        append(f, "given", cases[i].first, "prompt", "until");
        if (cases[i].second != NULL)
            append(f, "given", cases[i].second, "prompt", "until");
        assert_int_equal(sluice_consent_open(&c, f->ledger, &f->fp.platform, NULL, &err), SLUICE_ERR_INTEGRITY);
        assert_null(c);
        assert_int_equal(err.status, SLUICE_ERR_INTEGRITY);
        tear_down(state);
        assert_int_equal(set_up(state), 0);
    }
}

static void texts_that_look_like_entries_are_not_taken_for_them(void **state)
{
    fixture *f = *state;
    const sluice_ledger_field fields[] = { { "note", "\",\"type\":\"consent\",\"event\":\"given\",\"id\":\"c-7\",\"x\":\"", 0 } };

    assert_int_equal(sluice_ledger_append(f->ledger, "decision", fields, 1, NULL, NULL), SLUICE_OK);
    reopen(f);
    assert_int_equal(sluice_consent_count(f->store), 0);
}

static void a_damaged_ledger_gives_no_store(void **state)
{
    fixture *f = *state;
    sluice_consent_store *c;
    FILE *file;

    give(f, P, SLUICE_CONSENT_UNTIL, 0, NULL);
    file = fopen(temp_dir_file(&f->dir, "ledger"), "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, 20, SEEK_SET), 0);
    assert_int_equal(fputc('x', file), 'x');
    assert_int_equal(fclose(file), 0);
    assert_int_equal(sluice_consent_open(&c, f->ledger, &f->fp.platform, NULL, NULL), SLUICE_ERR_INTEGRITY);
    assert_null(c);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(nothing_is_covered_without_a_consent),
        T(a_consent_covers_exactly_what_was_agreed),
        T(a_changed_text_needs_a_new_consent),
        T(records_survive_with_all_that_they_say),
        T(many_records_are_kept),
        T(what_the_policy_does_not_know_is_refused),
        T(once_is_spent_once),
        T(a_session_ends_with_its_instance),
        T(a_timed_consent_ends_and_no_clock_revives_it),
        T(the_mark_survives_in_the_ledger),
        T(an_untrusted_clock_stops_timed_consents_alone),
        T(withdrawing_counts_at_once_and_for_good),
        T(withdrawing_one_leaves_another_that_covers),
        T(a_withdrawal_counts_where_it_cannot_be_written),
        T(a_refusal_counts_until_a_later_consent),
        T(a_refusal_can_be_taken_back),
        T(the_newest_reason_is_told),
        T(without_a_ledger_nothing_can_be_given),
        T(entries_of_a_later_version_never_widen),
        T(spent_after_withdrawn_stays_withdrawn),
        T(a_store_that_makes_no_sense_is_refused),
        T(texts_that_look_like_entries_are_not_taken_for_them),
        T(a_damaged_ledger_gives_no_store),
    };

    return cmocka_run_group_tests_name("consent", tests, NULL, NULL);
}
