/* test_io_policies.c - every file operation fails once, and the machine stops after every byte written.
 *
 * A script grants, spends, refuses and withdraws.  What was acknowledged before the failure is there after the next opening; what takes permission
 * away holds at once; nothing is ever permitted that was not acknowledged as given, but for one whose fate the failure left unknown.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/unit/policies/memory_files.h"

#include "policies/egress.h"
#include "tests/support/cm.h"
#include "tests/support/fake_platform.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"
#include "tests/unit/policies/policy_fixture.h"

#include <stdio.h>
#include <stdlib.h>

enum { N_STEPS = 6 };

typedef struct world {
    fake_platform fp;
    temp_dir dir;
    sluice_policy *policy;
    sluice_ledger *ledger;
    sluice_consent_store *store;
} world;

static sluice_status open_world(world *w)
{
    sluice_status st = sluice_ledger_open(&w->ledger, w->dir.path, &w->fp.platform, NULL, NULL);

    if (st == SLUICE_OK) {
        st = sluice_consent_open(&w->store, w->ledger, &w->fp.platform, NULL, NULL);
        if (st != SLUICE_OK) {
            sluice_ledger_close(w->ledger);
            w->ledger = NULL;
        }
    }
    return st;
}

static void close_world(world *w)
{
    sluice_consent_close(w->store);
    sluice_ledger_close(w->ledger);
    w->store = NULL;
    w->ledger = NULL;
}

/* Thousands of heads are written here, and no plug is pulled: the folder need not be synced each time. */
static sluice_status rename_unsynced(void *user, const char *from, const char *to, sluice_error *err)
{
    (void)user;
    return rename(from, to) == 0 ? SLUICE_OK : sluice_error_set(err, SLUICE_ERR_IO, "cannot rename");
}

static void begin_world(world *w)
{
    static sluice_platform quick;

    memset(w, 0, sizeof *w);
    fake_platform_init(&w->fp, 2);
    quick = *w->fp.real;
    quick.file_rename = rename_unsynced;
    w->fp.real = &quick;
    temp_dir_open(&w->dir);
    w->policy = fixture_policy(FIXTURE_POLICY);
    assert_non_null(w->policy);
}

static void end_world(world *w)
{
    close_world(w);
    sluice_policy_close(w->policy);
    temp_dir_close(&w->dir);
    fake_platform_deinit(&w->fp);
}

/* Purpose 0 is given, spent and given again; purpose 1 is given and withdrawn. */
static sluice_status step(world *w, int i, char ids[2][SLUICE_ID_MAX])
{
    sluice_consent k = { .size = sizeof k, .endpoint = "acme", .classes = SLUICE_CLASS_PROMPT };

    (void)sluice_copy_str(k.purpose, sizeof k.purpose, i == 1 ? "summarise" : "answer_question");
    switch (i) {
    case 0:
        k.scope = SLUICE_CONSENT_ONCE;
        return sluice_consent_add(w->store, w->policy, &k, ids[0], NULL);
    case 1:
        k.scope = SLUICE_CONSENT_UNTIL;
        return sluice_consent_add(w->store, w->policy, &k, ids[1], NULL);
    case 2:
        return sluice_consent_spend(w->store, 0, NULL);
    case 3:
        return sluice_consent_withdraw(w->store, ids[1], NULL);
    case 4:
        return sluice_consent_refuse(w->store, w->policy, 0, 0, SLUICE_CLASS_PROMPT, NULL);
    default:
        k.scope = SLUICE_CONSENT_UNTIL;
        return sluice_consent_add(w->store, w->policy, &k, NULL, NULL);
    }
}

static bool permits(world *w, size_t purpose)
{
    return sluice_consent_covers(w->store, w->policy, purpose, 0, SLUICE_CLASS_PROMPT, sluice_wall_ms(&w->fp.platform), NULL) ==
           SLUICE_REASON_PERMITTED;
}

/* What is permitted after the first n steps. */
static bool expected(size_t purpose, int n)
{
    return purpose == 0 ? (n >= 1 && n < 3) || n >= 6 : n >= 2 && n < 4;
}

/* The state of the store is that after n steps, or, where `unknown`, after n + 1. */
static void check_state(world *w, int n, bool unknown, const char *what, size_t nth)
{
    for (int k = n; k <= n + unknown; k++)
        if (permits(w, 0) == expected(0, k) && permits(w, 1) == expected(1, k))
            return;
    fail_msg("%s %zu: after %d steps the store permits %d and %d", what, nth, n, permits(w, 0), permits(w, 1));
}

static void every_file_operation_fails_once(void **state)
{
    static const struct { fake_op op; const char *name;
    } ops[] = { { FAKE_OPEN, "open" },     { FAKE_READ, "read" },         { FAKE_WRITE, "write" },        { FAKE_TRUNCATE, "truncate" },
                { FAKE_SYNC, "sync" },     { FAKE_LOCK, "lock" },         { FAKE_RENAME, "rename" },      { FAKE_MAKE_DIR, "make_dir" },
                { FAKE_RANDOM, "random" }, { FAKE_KEY_LOAD, "key_load" }, { FAKE_KEY_STORE, "key_store" } };

    (void)state;
    for (size_t o = 0; o < sizeof ops / sizeof ops[0]; o++)
        for (int torn = 0; torn < (ops[o].op == FAKE_WRITE ? 2 : 1); torn++) {
            size_t failures = 0;

            for (size_t nth = 0;; nth++) {
                char ids[2][SLUICE_ID_MAX] = { "", "" };
                world w;
                size_t before;
                sluice_status st;
                int done = 0;

                begin_world(&w);
                w.fp.torn_writes = torn;
                before = atomic_load(&w.fp.count[ops[o].op]);
                fake_platform_fail(&w.fp, ops[o].op, nth);
                st = open_world(&w);
                while (st == SLUICE_OK && done < N_STEPS) {
                    st = step(&w, done, ids);
                    if (st == SLUICE_OK)
                        done++;
                }
                if (st != SLUICE_OK && w.ledger != NULL) {
                    if (done == 2)
                        assert_false(permits(&w, 0)); /* the failed spending counts here and now */
                    else if (done == 3)
                        assert_false(permits(&w, 1)); /* so does the failed withdrawal */
                    else
                        check_state(&w, done, false, ops[o].name, nth); /* and what failed to be given is not given */
                }
                close_world(&w);
                failures += st != SLUICE_OK;
                before = atomic_load(&w.fp.count[ops[o].op]) - before;
                fake_platform_heal(&w.fp);
                st = open_world(&w); /* the device is well again */
                if (st != SLUICE_OK)
                    fail_msg("%s %zu: cannot be opened again: %s", ops[o].name, nth, sluice_status_name(st));
                check_state(&w, done, done < N_STEPS, ops[o].name, nth);
                assert_int_equal(sluice_ledger_check(w.ledger, NULL, NULL), SLUICE_OK);
                end_world(&w);
                if (nth >= before)
                    break; /* there is no such call any more */
            }
            if (ops[o].op != FAKE_TRUNCATE && ops[o].op != FAKE_READ && failures == 0) /* nothing is cut, and nothing read, in a new folder */
                fail_msg("%s never failed", ops[o].name);
        }
}

static void mending_a_torn_ledger_may_fail_too(void **state)
{
    static const fake_op ops[] = { FAKE_OPEN, FAKE_TRUNCATE, FAKE_SYNC, FAKE_WRITE, FAKE_RENAME, FAKE_READ };

    (void)state;
    for (size_t o = 0; o < sizeof ops / sizeof ops[0]; o++)
        for (size_t nth = 0; nth < 8; nth++) {
            char ids[2][SLUICE_ID_MAX] = { "", "" };
            world w;
            FILE *file;

            begin_world(&w);
            assert_int_equal(open_world(&w), SLUICE_OK);
            assert_int_equal(step(&w, 0, ids), SLUICE_OK);
            assert_int_equal(step(&w, 1, ids), SLUICE_OK);
            close_world(&w);
            file = fopen(temp_dir_file(&w.dir, "ledger"), "ab");
            assert_non_null(file);
            assert_true(fputs("{\"seq\":3,\"time", file) >= 0);
            assert_int_equal(fclose(file), 0);
            fake_platform_fail(&w.fp, ops[o], nth);
            (void)open_world(&w);
            close_world(&w);
            fake_platform_heal(&w.fp);
            assert_int_equal(open_world(&w), SLUICE_OK);
            check_state(&w, 2, false, "mending", nth);
            assert_int_equal(sluice_ledger_check(w.ledger, NULL, NULL), SLUICE_OK);
            end_world(&w);
        }
}

/* ---- the machine stops --------------------------------------------------------------------------- */

static void store_file(world *w, const char *name, const void *ptr, size_t len)
{
    FILE *file = fopen(temp_dir_file(&w->dir, name), "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(ptr, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

/* Each step writes a line, then the head.  The machine stops at every byte of the line with the old head, and between line and head. */
static void the_machine_stops_after_every_byte(void **state)
{
    sluice_buf ledger[N_STEPS + 1], head[N_STEPS + 1];
    char ids[2][SLUICE_ID_MAX] = { "", "" };
    world w;

    (void)state;
    begin_world(&w);
    assert_int_equal(open_world(&w), SLUICE_OK);
    for (int i = 0; i <= N_STEPS; i++) {
        if (i > 0)
            assert_int_equal(step(&w, i - 1, ids), SLUICE_OK);
        if (!test_read_file(temp_dir_file(&w.dir, "ledger"), &ledger[i]))
            sluice_buf_init(&ledger[i], NULL, 0);
        if (!test_read_file(temp_dir_file(&w.dir, "ledger.head"), &head[i]))
            sluice_buf_init(&head[i], NULL, 0);
    }
    close_world(&w);
    for (int i = 0; i < N_STEPS; i++)
        for (size_t cut = ledger[i].len; cut <= ledger[i + 1].len; cut++) {
            bool is_whole = cut == ledger[i + 1].len;

            store_file(&w, "ledger", ledger[i + 1].ptr, cut);
            if (i == 0)
                (void)remove(temp_dir_file(&w.dir, "ledger.head"));
            else
                store_file(&w, "ledger.head", head[i].ptr, head[i].len);
            assert_int_equal(open_world(&w), SLUICE_OK);
            check_state(&w, is_whole ? i + 1 : i, false, "cut", cut);
            assert_int_equal(sluice_ledger_check(w.ledger, NULL, NULL), SLUICE_OK);
            close_world(&w);
            assert_int_equal(open_world(&w), SLUICE_OK); /* a mended ledger is a sound one */
            check_state(&w, is_whole ? i + 1 : i, false, "cut", cut);
            close_world(&w);
        }
    for (int i = 0; i <= N_STEPS; i++) {
        sluice_buf_deinit(&ledger[i]);
        sluice_buf_deinit(&head[i]);
    }
    end_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_file_operation_fails_once),
        cmocka_unit_test(mending_a_torn_ledger_may_fail_too),
        cmocka_unit_test(the_machine_stops_after_every_byte),
    };

    prefer_memory_for_files();
    return cmocka_run_group_tests_name("io_policies", tests, NULL, NULL);
}
