/* test_ledger.c - an entry that was acknowledged is there for good, and nobody can change the record unseen.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/unit/policies/memory_files.h"

#include "policies/ledger.h"
#include "sdk/base/json.h"
#include "tests/support/cm.h"
#include "tests/support/fake_platform.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct fixture {
    fake_platform fp;
    temp_dir dir;
} fixture;

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);

    if (f == NULL)
        return -1;
    fake_platform_init(&f->fp, 11);
    temp_dir_open(&f->dir);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;

    temp_dir_close(&f->dir);
    fake_platform_deinit(&f->fp);
    free(f);
    return 0;
}

static sluice_status try_open(fixture *f, sluice_ledger **l, sluice_error *err)
{
    sluice_status st = sluice_ledger_open(l, f->dir.path, &f->fp.platform, NULL, err);

    if ((st == SLUICE_OK) != (*l != NULL))
        fail_msg("status and output disagree");
    return st;
}

static sluice_ledger *open_ledger(fixture *f)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_ledger *l;

    if (try_open(f, &l, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
    return l;
}

static sluice_status add(sluice_ledger *l, uint64_t number)
{
    const sluice_ledger_field fields[] = { { "text", "a \"quoted\"\nline", 0 }, { "number", NULL, number } };

    return sluice_ledger_append(l, "decision", fields, 2, NULL, NULL);
}

/* A ledger with n entries, closed. */
static void make(fixture *f, size_t n)
{
    sluice_ledger *l = open_ledger(f);

    for (size_t i = 0; i < n; i++)
        assert_int_equal(add(l, i), SLUICE_OK);
    sluice_ledger_close(l);
}

static void load(fixture *f, const char *name, sluice_buf *out)
{
    if (!test_read_file(temp_dir_file(&f->dir, name), out))
        fail_msg("%s cannot be read", name);
}

static void store(fixture *f, const char *name, const void *ptr, size_t len)
{
    FILE *file = fopen(temp_dir_file(&f->dir, name), "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(ptr, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static void expect_message(fixture *f, const char *why, const char *part)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_ledger *l;
    sluice_status st = try_open(f, &l, &err);

    sluice_ledger_close(l);
    if (st != SLUICE_ERR_INTEGRITY || err.status != st || err.hint[0] == '\0' || err.where[0] == '\0' || strstr(err.message, part) == NULL)
        fail_msg("%s: %s, %s", why, sluice_status_name(st), err.message);
}

static void expect_integrity(fixture *f, const char *why)
{
    expect_message(f, why, "");
}

typedef struct lines { size_t n, stop_at; char last[8192]; } lines;

static bool on_line(const char *json, size_t len, void *user)
{
    lines *all = user;

    assert_true(len < sizeof all->last);
    assert_int_equal(json[len], '\0');
    memcpy(all->last, json, len + 1);
    all->n++;
    return all->n != all->stop_at;
}

static size_t count(sluice_ledger *l)
{
    lines all = { .n = 0 };

    assert_int_equal(sluice_ledger_walk(l, on_line, &all, NULL), SLUICE_OK);
    return all.n;
}

/* ---- what it is for ------------------------------------------------------------------------------ */

static void entries_survive_and_are_numbered_from_one(void **state)
{
    fixture *f = *state;
    sluice_ledger *l = open_ledger(f);
    uint64_t seq = 0, n = 99;
    lines all = { .n = 0 };

    assert_int_equal(sluice_ledger_check(l, &n, NULL), SLUICE_OK);
    assert_int_equal(n, 0);
    assert_int_equal(count(l), 0);
    for (uint64_t i = 1; i <= 300; i++) { /* more than one chunk of the reader */
        const sluice_ledger_field fields[] = { { "request", NULL, UINT64_MAX }, { "name", "x", 0 } };

        assert_int_equal(sluice_ledger_append(l, "outcome", fields, 2, &seq, NULL), SLUICE_OK);
        assert_int_equal(seq, i);
    }
    assert_true(sluice_ledger_is_writable(l));
    sluice_ledger_close(l);
    l = open_ledger(f);
    assert_int_equal(sluice_ledger_check(l, &n, NULL), SLUICE_OK);
    assert_int_equal(n, 300);
    assert_int_equal(count(l), 300);
    all.stop_at = 7;
    assert_int_equal(sluice_ledger_walk(l, on_line, &all, NULL), SLUICE_OK);
    assert_int_equal(all.n, 7);
    assert_int_equal(sluice_ledger_append(l, "outcome", NULL, 0, &seq, NULL), SLUICE_OK);
    assert_int_equal(seq, 301);
    sluice_ledger_close(l);
    sluice_ledger_close(NULL);
    assert_false(sluice_ledger_is_writable(NULL));
}

static void an_entry_is_a_line_of_json(void **state)
{
    fixture *f = *state;
    sluice_ledger *l = open_ledger(f);
    lines all = { .n = 0 };
    sluice_json_doc *doc;
    const sluice_json *root;
    const sluice_ledger_field fields[] = { { "text", "caf\xc3\xa9 \xff \"q\" \x01\n", 0 }, { "big", NULL, 18446744073709551615u } };

    fake_platform_set_wall_ms(&f->fp, 1835440496789);
    assert_int_equal(sluice_ledger_append(l, "egress", fields, 2, NULL, NULL), SLUICE_OK);
    assert_int_equal(sluice_ledger_walk(l, on_line, &all, NULL), SLUICE_OK);
    assert_int_equal(sluice_json_parse(&doc, sluice_span_str(all.last), NULL, NULL, NULL), SLUICE_OK);
    root = sluice_json_root(doc);
    assert_true(sluice_json_get(root, "seq")->number == 1.0);
    assert_true(sluice_json_get(root, "time_ms")->number == 1835440496789.0);
    assert_string_equal(sluice_json_get(root, "time")->string, "2028-02-29T12:34:56.789Z");
    assert_string_equal(sluice_json_get(root, "type")->string, "egress");
    assert_string_equal(sluice_json_get(root, "text")->string, "caf\xc3\xa9 \xef\xbf\xbd \"q\" \x01\n");
    assert_non_null(strstr(all.last, "\"big\":18446744073709551615"));
    assert_int_equal(sluice_json_get(root, "mac")->string_len, 64);
    assert_string_equal(sluice_json_get(root, "prev")->string, "0000000000000000000000000000000000000000000000000000000000000000");
    sluice_json_close(doc);
    sluice_ledger_close(l);
}

static void dates_are_those_of_the_calendar(void **state)
{
    static const struct { int64_t ms; const char *want; } cases[] = {
        { 0, "1970-01-01T00:00:00.000Z" }, { 951782399999, "2000-02-28T23:59:59.999Z" }, { 951782400000, "2000-02-29T00:00:00.000Z" },
        { 4107542400000, "2100-03-01T00:00:00.000Z" }, { 253402300799999, "9999-12-31T23:59:59.999Z" }, { 1767225600000, "2026-01-01T00:00:00.000Z" },
    };
    fixture *f = *state;
    sluice_ledger *l = open_ledger(f);
    lines all = { .n = 0 };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fake_platform_set_wall_ms(&f->fp, cases[i].ms);
        assert_int_equal(add(l, 1), SLUICE_OK);
        assert_int_equal(sluice_ledger_walk(l, on_line, &all, NULL), SLUICE_OK);
        if (strstr(all.last, cases[i].want) == NULL)
            fail_msg("%s is not in %s", cases[i].want, all.last);
    }
    sluice_ledger_close(l);
}

static void an_untrusted_clock_is_written_as_such(void **state)
{
    fixture *f = *state;
    sluice_ledger *l = open_ledger(f);
    lines all = { .n = 0 };

    assert_true(sluice_ledger_time_max(l) == 0);
    assert_int_equal(add(l, 1), SLUICE_OK);
    assert_true(sluice_ledger_time_max(l) == 1767225600000);
    fake_platform_set_wall_ms(&f->fp, -5);
    assert_int_equal(add(l, 2), SLUICE_OK);
    assert_int_equal(sluice_ledger_walk(l, on_line, &all, NULL), SLUICE_OK);
    assert_non_null(strstr(all.last, "\"time_ms\":-1,\"time\":null,"));
    fake_platform_set_wall_ms(&f->fp, 253402300800000); /* the year 10000 */
    assert_int_equal(add(l, 3), SLUICE_OK);
    fake_platform_set_wall_ms(&f->fp, 1000); /* set back */
    assert_int_equal(add(l, 4), SLUICE_OK);
    sluice_ledger_close(l);
    l = open_ledger(f);
    assert_true(sluice_ledger_time_max(l) == 1767225600000);
    sluice_ledger_close(l);
}

static void odd_entries_are_refused_and_harm_nothing(void **state)
{
    static char large[9000];
    fixture *f = *state;
    sluice_ledger *l = open_ledger(f);
    sluice_ledger_field many[25], one = { "text", large, 0 };
    static const sluice_ledger_field bad[] = {
        { "seq", "x", 0 }, { "mac", "x", 0 }, { "prev", "x", 0 },     { "Upper", "x", 0 }, { "", "x", 0 },
        { NULL, "x", 0 },  { "a-b", "x", 0 }, { "time_ms", NULL, 1 }, { "9a", "x", 0 },    { "a_name_that_is_longer_than_thirty_two", "x", 0 }
    };
    const sluice_ledger_field twice[] = { { "a", "x", 0 }, { "a", "y", 0 } };
    uint64_t n;

    memset(large, 'x', sizeof large - 1);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(sluice_ledger_append(l, "decision", &bad[i], 1, NULL, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_ledger_append(l, "decision", twice, 2, NULL, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_ledger_append(l, "De cision", NULL, 0, NULL, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_ledger_append(l, NULL, NULL, 0, NULL, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_ledger_append(l, "decision", &one, 1, NULL, NULL), SLUICE_ERR_LIMIT);
    for (size_t i = 0; i < 25; i++)
        many[i] = twice[0];
    assert_int_equal(sluice_ledger_append(l, "decision", many, 25, NULL, NULL), SLUICE_ERR_LIMIT);
    assert_int_equal(add(l, 1), SLUICE_OK);
    large[7800] = '\0'; /* the largest that fits, about */
    assert_int_equal(sluice_ledger_append(l, "decision", &one, 1, NULL, NULL), SLUICE_OK);
    assert_int_equal(sluice_ledger_check(l, &n, NULL), SLUICE_OK);
    assert_int_equal(n, 2);
    sluice_ledger_close(l);
    l = open_ledger(f);
    sluice_ledger_close(l);
}

static void digests_are_keyed(void **state)
{
    fixture *f = *state;
    sluice_ledger *l = open_ledger(f);
    uint8_t a[32], b[32], c[32];

    sluice_ledger_digest(l, SLUICE_SPAN_LIT("prompt"), a);
    sluice_ledger_digest(l, SLUICE_SPAN_LIT("prompu"), b);
    assert_memory_not_equal(a, b, 32);
    sluice_ledger_close(l);
    l = open_ledger(f);
    sluice_ledger_digest(l, SLUICE_SPAN_LIT("prompt"), b);
    assert_memory_equal(a, b, 32);
    sluice_ledger_close(l);
    f->fp.keys[0].key[0] ^= 1; /* another device */
    l = open_ledger(f);
    sluice_ledger_digest(l, SLUICE_SPAN_LIT("prompt"), c);
    assert_memory_not_equal(a, c, 32);
    sluice_ledger_close(l);
}

static void a_second_instance_is_kept_out(void **state)
{
    fixture *f = *state;
    sluice_ledger *l = open_ledger(f), *second;
    sluice_error err = SLUICE_ERROR_INIT;

    assert_int_equal(try_open(f, &second, &err), SLUICE_ERR_STATE);
    assert_true(err.hint[0] != '\0');
    sluice_ledger_close(l);
    l = open_ledger(f);
    sluice_ledger_close(l);
}

static void arguments_are_checked(void **state)
{
    fixture *f = *state;
    sluice_platform broken = f->fp.platform;
    sluice_ledger *l = (sluice_ledger *)f;

    assert_int_equal(sluice_ledger_open(&l, NULL, &f->fp.platform, NULL, NULL), SLUICE_ERR_ARGUMENT);
    assert_null(l);
    assert_int_equal(sluice_ledger_open(&l, "", &f->fp.platform, NULL, NULL), SLUICE_ERR_ARGUMENT);
    broken.file_sync = NULL;
    assert_int_equal(sluice_ledger_open(&l, f->dir.path, &broken, NULL, NULL), SLUICE_ERR_ARGUMENT);
    assert_int_equal(sluice_ledger_open(&l, f->dir.path, NULL, NULL, NULL), SLUICE_ERR_ARGUMENT);
}

/* ---- somebody's hand ----------------------------------------------------------------------------- */

static void every_changed_byte_is_found(void **state)
{
    fixture *f = *state;
    sluice_buf file, head;

    make(f, 3);
    load(f, "ledger", &file);
    load(f, "ledger.head", &head);
    for (size_t i = 0; i < file.len; i++) {
        const uint8_t bit = (uint8_t)(1u << i % 8);

        file.ptr[i] ^= bit;
        store(f, "ledger", file.ptr, file.len);
        expect_integrity(f, "a byte of the ledger");
        file.ptr[i] ^= bit;
    }
    store(f, "ledger", file.ptr, file.len);
    for (size_t i = 0; i < head.len; i++) {
        head.ptr[i] ^= 4;
        store(f, "ledger.head", head.ptr, head.len);
        expect_integrity(f, "a byte of the head");
        head.ptr[i] ^= 4;
    }
    store(f, "ledger.head", head.ptr, head.len);
    sluice_ledger_close(open_ledger(f));
    sluice_buf_deinit(&file);
    sluice_buf_deinit(&head);
}

/* The file as lines: start of each, and the end. */
static size_t split(const sluice_buf *file, size_t *start, size_t max)
{
    size_t n = 0;

    start[0] = 0;
    for (size_t i = 0; i < file->len && n + 1 < max; i++)
        if (file->ptr[i] == '\n')
            start[++n] = i + 1;
    return n;
}

static void removed_swapped_and_repeated_entries_are_found(void **state)
{
    fixture *f = *state;
    sluice_buf file, work;
    size_t start[8], n;

    make(f, 5);
    load(f, "ledger", &file);
    n = split(&file, start, 8);
    assert_int_equal(n, 5);
    sluice_buf_init(&work, NULL, 1 << 20);
    for (size_t drop = 0; drop < n; drop++) {
        sluice_buf_clear(&work);
        for (size_t i = 0; i < n; i++)
            if (i != drop)
                assert_true(sluice_buf_append(&work, file.ptr + start[i], start[i + 1] - start[i]));
        store(f, "ledger", work.ptr, work.len);
        expect_integrity(f, "an entry was removed");
    }
    for (size_t swap = 0; swap + 1 < n; swap++) {
        sluice_buf_clear(&work);
        for (size_t i = 0; i < n; i++) {
            size_t k = i == swap ? i + 1 : i == swap + 1 ? i - 1 : i;

            assert_true(sluice_buf_append(&work, file.ptr + start[k], start[k + 1] - start[k]));
        }
        store(f, "ledger", work.ptr, work.len);
        expect_integrity(f, "two entries were swapped");
    }
    for (size_t keep = 0; keep < n; keep++) { /* cut at the end, whole entries */
        store(f, "ledger", file.ptr, start[keep]);
        expect_message(f, "entries were cut off", "missing: the head has a later one");
    }
    sluice_buf_clear(&work);
    assert_true(sluice_buf_append_span(&work, sluice_buf_span(&file)));
    assert_true(sluice_buf_append(&work, file.ptr + start[2], start[3] - start[2]));
    assert_true(sluice_buf_append(&work, file.ptr + start[4], start[5] - start[4]));
    store(f, "ledger", work.ptr, work.len);
    expect_integrity(f, "old entries were added");
    sluice_buf_deinit(&file);
    sluice_buf_deinit(&work);
}

static void missing_and_old_files_are_found(void **state)
{
    fixture *f = *state;
    sluice_buf file, head_2, head_4;

    make(f, 2);
    load(f, "ledger.head", &head_2);
    make(f, 2);
    load(f, "ledger.head", &head_4);
    load(f, "ledger", &file);

    store(f, "ledger.head", head_2.ptr, head_2.len);
    expect_integrity(f, "an old head");
    assert_int_equal(remove(temp_dir_file(&f->dir, "ledger.head")), 0);
    expect_integrity(f, "no head");
    store(f, "ledger.head", "", 0);
    expect_integrity(f, "an empty head");
    store(f, "ledger.head", file.ptr, file.len < 2000 ? file.len : 2000);
    expect_integrity(f, "a head that is too long");
    store(f, "ledger.head", head_4.ptr, head_4.len);
    assert_int_equal(remove(temp_dir_file(&f->dir, "ledger")), 0);
    expect_message(f, "no ledger", "there is a head, but no ledger");
    store(f, "ledger", "", 0);
    expect_integrity(f, "an empty ledger");
    store(f, "ledger", file.ptr, file.len);
    sluice_ledger_close(open_ledger(f));
    assert_true(sluice_buf_append_span(&file, sluice_buf_span(&file)));
    while (file.len < 40000)
        assert_true(sluice_buf_append_str(&file, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"));
    store(f, "ledger", file.ptr, file.len);
    expect_integrity(f, "the ledger twice, and a line without end");
    file.len = 20000;
    memset(file.ptr, 'x', file.len);
    assert_int_equal(remove(temp_dir_file(&f->dir, "ledger.head")), 0);
    store(f, "ledger", file.ptr, file.len);
    expect_integrity(f, "a line without end");
    store(f, "ledger", file.ptr, 0);
    sluice_ledger_close(open_ledger(f));
    make(f, 1);
    f->fp.keys[0].key[5] ^= 1;
    expect_integrity(f, "another key");
    sluice_buf_deinit(&file);
    sluice_buf_deinit(&head_2);
    sluice_buf_deinit(&head_4);
}

static void a_change_while_it_is_open_is_found(void **state)
{
    fixture *f = *state;
    sluice_ledger *l;
    sluice_buf file;
    uint64_t n = 7;
    sluice_error err = SLUICE_ERROR_INIT;
    lines all = { .n = 0 };
    size_t start[8];

    make(f, 3);
    l = open_ledger(f);
    load(f, "ledger", &file);
    assert_int_equal(split(&file, start, 8), 3);
    file.ptr[start[1] + 30] ^= 1;
    store(f, "ledger", file.ptr, file.len);
    assert_int_equal(sluice_ledger_check(l, &n, &err), SLUICE_ERR_INTEGRITY);
    assert_int_equal(n, 0);
    assert_non_null(strstr(err.message, "entry 2"));
    assert_int_equal(sluice_ledger_walk(l, on_line, &all, NULL), SLUICE_ERR_INTEGRITY);
    assert_int_equal(all.n, 1);
    file.ptr[start[1] + 30] ^= 1;
    file.ptr[start[2] + 30] ^= 1; /* the last entry */
    store(f, "ledger", file.ptr, file.len);
    assert_int_equal(sluice_ledger_walk(l, on_line, &all, NULL), SLUICE_ERR_INTEGRITY);
    assert_int_equal(sluice_ledger_check(l, &n, NULL), SLUICE_ERR_INTEGRITY);
    file.ptr[start[2] + 30] ^= 1;
    store(f, "ledger", file.ptr, file.len);
    assert_int_equal(sluice_ledger_check(l, &n, NULL), SLUICE_OK);
    assert_true(sluice_buf_append_str(&file, "x"));
    store(f, "ledger", file.ptr, file.len);
    assert_int_equal(sluice_ledger_check(l, &n, NULL), SLUICE_ERR_INTEGRITY);
    sluice_ledger_close(l);
    sluice_buf_deinit(&file);
}

static void an_older_pair_put_back_is_found_while_it_is_open(void **state)
{
    fixture *f = *state;
    sluice_buf file, head;
    sluice_ledger *l;

    make(f, 2);
    load(f, "ledger", &file);
    load(f, "ledger.head", &head);
    l = open_ledger(f);
    assert_int_equal(add(l, 1), SLUICE_OK);
    store(f, "ledger", file.ptr, file.len);
    store(f, "ledger.head", head.ptr, head.len);
    assert_int_equal(sluice_ledger_check(l, NULL, NULL), SLUICE_ERR_INTEGRITY);
    sluice_ledger_close(l);
    sluice_buf_deinit(&file);
    sluice_buf_deinit(&head);
}

/* ---- crashes ------------------------------------------------------------------------------------- */

static void a_torn_tail_is_cut_and_noted_at_every_length(void **state)
{
    fixture *f = *state;
    sluice_buf before, head, after;
    size_t cut;

    make(f, 2);
    load(f, "ledger", &before);
    load(f, "ledger.head", &head);
    make(f, 1);
    load(f, "ledger", &after);
    for (cut = before.len + 1; cut <= after.len; cut++) { /* the write of entry 3 was cut here, its head never written */
        sluice_ledger *l;
        lines all = { .n = 0 };
        uint64_t n;

        store(f, "ledger", after.ptr, cut);
        store(f, "ledger.head", head.ptr, head.len);
        l = open_ledger(f);
        assert_int_equal(sluice_ledger_walk(l, on_line, &all, NULL), SLUICE_OK);
        assert_int_equal(all.n, 3); /* the note, or entry 3 where all of it was written */
        if ((strstr(all.last, "\"type\":\"recovered\"") != NULL) != (cut < after.len))
            fail_msg("cut at %zu of %zu: %s", cut, after.len, all.last);
        assert_int_equal(add(l, 5), SLUICE_OK);
        sluice_ledger_close(l);
        l = open_ledger(f);
        assert_int_equal(sluice_ledger_check(l, &n, NULL), SLUICE_OK);
        assert_int_equal(n, 4);
        sluice_ledger_close(l);
    }
    sluice_buf_deinit(&before);
    sluice_buf_deinit(&head);
    sluice_buf_deinit(&after);
}

static void a_last_entry_with_a_lost_beginning_is_cut(void **state)
{
    fixture *f = *state;
    sluice_buf before, head, after;
    sluice_ledger *l;
    lines all = { .n = 0 };

    make(f, 2);
    load(f, "ledger", &before);
    load(f, "ledger.head", &head);
    make(f, 1);
    load(f, "ledger", &after);
    memset(after.ptr + before.len, 0, 100); /* pages are written in any order */
    store(f, "ledger", after.ptr, after.len);
    store(f, "ledger.head", head.ptr, head.len);
    l = open_ledger(f);
    assert_int_equal(sluice_ledger_walk(l, on_line, &all, NULL), SLUICE_OK);
    assert_int_equal(all.n, 3);
    assert_non_null(strstr(all.last, "recovered"));
    sluice_ledger_close(l);
    sluice_buf_deinit(&before);
    sluice_buf_deinit(&head);
    sluice_buf_deinit(&after);
}

static void an_acknowledged_entry_cannot_be_cut_as_torn(void **state)
{
    fixture *f = *state;
    sluice_buf file;

    make(f, 3);
    load(f, "ledger", &file);
    for (size_t cut = 0; cut < file.len; cut++) {
        store(f, "ledger", file.ptr, cut);
        expect_integrity(f, "cut");
    }
    sluice_buf_deinit(&file);
}

static void the_first_entry_may_be_without_its_head(void **state)
{
    fixture *f = *state;
    sluice_buf file;
    sluice_ledger *l;

    make(f, 1);
    load(f, "ledger", &file);
    for (size_t cut = 0; cut <= file.len; cut++) {
        (void)remove(temp_dir_file(&f->dir, "ledger.head"));
        store(f, "ledger", file.ptr, cut);
        l = open_ledger(f);
        assert_int_equal(count(l), cut == 0 ? 0 : 1);
        sluice_ledger_close(l);
    }
    sluice_buf_deinit(&file);
}

static void an_entry_is_synced_before_its_head_is_written(void **state)
{
    fixture *f = *state;
    sluice_ledger *l = open_ledger(f);
    size_t syncs, renames;

    assert_int_equal(add(l, 1), SLUICE_OK);
    syncs = atomic_load(&f->fp.count[FAKE_SYNC]);
    renames = atomic_load(&f->fp.count[FAKE_RENAME]);
    assert_int_equal(add(l, 2), SLUICE_OK);
    assert_int_equal(atomic_load(&f->fp.count[FAKE_SYNC]), syncs + 2); /* the entry's, the head's */
    assert_int_equal(atomic_load(&f->fp.count[FAKE_RENAME]), renames + 1);
    fake_platform_fail(&f->fp, FAKE_SYNC, 0);
    assert_int_equal(add(l, 3), SLUICE_ERR_IO);
    assert_int_equal(atomic_load(&f->fp.count[FAKE_RENAME]), renames + 1);
    fake_platform_heal(&f->fp);
    sluice_ledger_close(l);
    l = open_ledger(f);
    assert_int_equal(count(l), 2);
    sluice_ledger_close(l);
}

static void after_a_failed_write_nothing_more_is_recorded(void **state)
{
    static const fake_op ops[] = { FAKE_WRITE, FAKE_SYNC, FAKE_RENAME, FAKE_OPEN };
    fixture *f = *state;

    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        for (size_t nth = 0; nth < 2; nth++) {
            sluice_ledger *l = open_ledger(f);
            size_t before = count(l);
            uint64_t seq = 42;
            sluice_status st;

            f->fp.torn_writes = true;
            fake_platform_fail(&f->fp, ops[i], nth);
            st = sluice_ledger_append(l, "decision", NULL, 0, &seq, NULL);
            fake_platform_heal(&f->fp);
            if (st == SLUICE_OK) { /* there is no second one of these in an append */
                assert_int_equal(nth, 1);
                sluice_ledger_close(l);
                continue;
            }
            assert_int_equal(st, SLUICE_ERR_IO);
            assert_int_equal(seq, 42);
            assert_false(sluice_ledger_is_writable(l));
            assert_int_equal(add(l, 1), SLUICE_ERR_IO);
            assert_int_equal(sluice_ledger_check(l, NULL, NULL), SLUICE_OK); /* what it holds is still sound */
            sluice_ledger_close(l);
            l = open_ledger(f);
            assert_in_range(count(l), before, before + 2);
            assert_int_equal(add(l, 2), SLUICE_OK);
            sluice_ledger_close(l);
        }
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(entries_survive_and_are_numbered_from_one),
        T(an_entry_is_a_line_of_json),
        T(dates_are_those_of_the_calendar),
        T(an_untrusted_clock_is_written_as_such),
        T(odd_entries_are_refused_and_harm_nothing),
        T(digests_are_keyed),
        T(a_second_instance_is_kept_out),
        T(arguments_are_checked),
        T(every_changed_byte_is_found),
        T(removed_swapped_and_repeated_entries_are_found),
        T(missing_and_old_files_are_found),
        T(a_change_while_it_is_open_is_found),
        T(an_older_pair_put_back_is_found_while_it_is_open),
        T(a_torn_tail_is_cut_and_noted_at_every_length),
        T(a_last_entry_with_a_lost_beginning_is_cut),
        T(an_acknowledged_entry_cannot_be_cut_as_torn),
        T(the_first_entry_may_be_without_its_head),
        T(an_entry_is_synced_before_its_head_is_written),
        T(after_a_failed_write_nothing_more_is_recorded),
    };

    prefer_memory_for_files();
    return cmocka_run_group_tests_name("ledger", tests, NULL, NULL);
}
