/* test_files.c - the operating system's files and mappings.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _XOPEN_SOURCE 700

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sdk/platform/platform.h"
#include "tests/support/cm.h"
#include "tests/support/temp_dir.h"

static const sluice_platform *p;
static temp_dir dir;
static sluice_error err;

static int setup(void **state)
{
    (void)state;
    p = sluice_platform_default();
    temp_dir_open(&dir);
    sluice_error_clear(&err);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    temp_dir_close(&dir);
    return 0;
}

static sluice_file *must_open(const char *name, sluice_file_mode mode)
{
    sluice_file *f;

    if (p->file_open(p->user, &f, temp_dir_file(&dir, name), mode, &err) != SLUICE_OK)
        fail_msg("%s: %s", name, err.message);
    return f;
}

static void must_write(sluice_file *f, const char *text)
{
    assert_int_equal(p->file_write(p->user, f, text, strlen(text), &err), SLUICE_OK);
}

static const char *content(sluice_file *f)
{
    static char text[64];
    size_t got;

    assert_int_equal(p->file_read(p->user, f, 0, text, sizeof text - 1, &got, &err), SLUICE_OK);
    text[got] = '\0';
    return text;
}

static void writes_go_to_the_end_also_after_truncation(void **state)
{
    sluice_file *f = must_open("log", SLUICE_FILE_APPEND);
    uint64_t size;

    (void)state;
    must_write(f, "hello");
    must_write(f, " world");
    assert_string_equal(content(f), "hello world");
    assert_int_equal(p->file_truncate(p->user, f, 4, &err), SLUICE_OK);
    must_write(f, "!");
    assert_string_equal(content(f), "hell!");
    assert_int_equal(p->file_sync(p->user, f, &err), SLUICE_OK);
    assert_int_equal(p->file_sync(p->user, f, &err), SLUICE_OK);
    p->file_close(p->user, f);
    f = must_open("log", SLUICE_FILE_APPEND);
    must_write(f, "?");
    assert_string_equal(content(f), "hell!?");
    assert_int_equal(p->file_size(p->user, f, &size, &err), SLUICE_OK);
    assert_int_equal(size, 6);
    p->file_close(p->user, f);
    p->file_close(p->user, NULL);
}

static void modes_do_what_they_say(void **state)
{
    sluice_file *f;
    struct stat st;
    mode_t mask = umask(0);

    (void)state;
    assert_int_equal(p->file_open(p->user, &f, temp_dir_file(&dir, "x"), SLUICE_FILE_READ, &err), SLUICE_ERR_NOT_FOUND);
    assert_null(f);
    assert_string_equal(err.where, temp_dir_file(&dir, "x"));
    f = must_open("x", SLUICE_FILE_CREATE_NEW);
    must_write(f, "abc");
    p->file_close(p->user, f);
    assert_int_equal(p->file_open(p->user, &f, temp_dir_file(&dir, "x"), SLUICE_FILE_CREATE_NEW, &err), SLUICE_ERR_STATE);
    f = must_open("x", SLUICE_FILE_READ);
    assert_string_equal(content(f), "abc");
    assert_int_equal(p->file_write(p->user, f, "x", 1, &err), SLUICE_ERR_IO);
    p->file_close(p->user, f);
    f = must_open("x", SLUICE_FILE_TRUNCATE);
    assert_string_equal(content(f), "");
    p->file_close(p->user, f);
    p->file_close(p->user, must_open("y", SLUICE_FILE_TRUNCATE));
    p->file_close(p->user, must_open("z", SLUICE_FILE_APPEND));
    (void)umask(mask);
    for (const char *name = "xyz"; *name != '\0'; name++) {
        char one[2] = { *name, '\0' };

        assert_int_equal(stat(temp_dir_file(&dir, one), &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
    }
    assert_int_equal(p->file_open(p->user, &f, "", SLUICE_FILE_READ, &err), SLUICE_ERR_ARGUMENT);
    assert_int_equal(p->file_open(p->user, &f, NULL, SLUICE_FILE_READ, &err), SLUICE_ERR_ARGUMENT);
    assert_int_equal(p->file_open(p->user, &f, "x", (sluice_file_mode)9, &err), SLUICE_ERR_ARGUMENT);
}

static void short_reads_end_at_the_end(void **state)
{
    sluice_file *f = must_open("x", SLUICE_FILE_APPEND);
    char buf[10];
    size_t got;

    (void)state;
    must_write(f, "abcdef");
    assert_int_equal(p->file_read(p->user, f, 4, buf, sizeof buf, &got, &err), SLUICE_OK);
    assert_int_equal(got, 2);
    assert_memory_equal(buf, "ef", 2);
    assert_int_equal(p->file_read(p->user, f, 6, buf, sizeof buf, &got, &err), SLUICE_OK);
    assert_int_equal(got, 0);
    assert_int_equal(p->file_read(p->user, f, 99, buf, sizeof buf, &got, &err), SLUICE_OK);
    assert_int_equal(got, 0);
    assert_int_equal(p->file_read(p->user, f, UINT64_MAX, buf, sizeof buf, &got, &err), SLUICE_ERR_ARGUMENT);
    assert_int_equal(p->file_truncate(p->user, f, UINT64_MAX, &err), SLUICE_ERR_ARGUMENT);
    p->file_close(p->user, f);
}

static void what_is_not_a_regular_file_is_refused_and_never_waited_for(void **state)
{
    sluice_file *f;
    sluice_mapping m;

    (void)state;
    assert_int_equal(mkfifo(temp_dir_file(&dir, "pipe"), 0600), 0);
    assert_int_equal(p->file_open(p->user, &f, temp_dir_file(&dir, "pipe"), SLUICE_FILE_READ, &err), SLUICE_ERR_IO);
    assert_null(f);
    assert_int_equal(p->file_open(p->user, &f, temp_dir_file(&dir, "pipe"), SLUICE_FILE_APPEND, &err), SLUICE_ERR_IO);
    assert_int_equal(p->file_open(p->user, &f, dir.path, SLUICE_FILE_READ, &err), SLUICE_ERR_IO);
    assert_int_equal(p->map(p->user, &m, temp_dir_file(&dir, "pipe"), &err), SLUICE_ERR_IO);
    assert_int_equal(p->map(p->user, &m, dir.path, &err), SLUICE_ERR_IO);
}

static void our_files_are_not_written_through_a_link(void **state)
{
    sluice_file *f;

    (void)state;
    p->file_close(p->user, must_open("target", SLUICE_FILE_CREATE_NEW));
    assert_int_equal(symlink("target", temp_dir_file(&dir, "link")), 0);
    assert_int_equal(symlink("nowhere", temp_dir_file(&dir, "dangling")), 0);
    assert_int_equal(p->file_open(p->user, &f, temp_dir_file(&dir, "link"), SLUICE_FILE_APPEND, &err), SLUICE_ERR_IO);
    assert_true(strlen(err.hint) > 0);
    assert_int_equal(p->file_open(p->user, &f, temp_dir_file(&dir, "link"), SLUICE_FILE_TRUNCATE, &err), SLUICE_ERR_IO);
    assert_int_equal(p->file_open(p->user, &f, temp_dir_file(&dir, "link"), SLUICE_FILE_CREATE_NEW, &err), SLUICE_ERR_STATE);
    assert_int_not_equal(p->file_open(p->user, &f, temp_dir_file(&dir, "dangling"), SLUICE_FILE_APPEND, &err), SLUICE_OK);
    f = must_open("link", SLUICE_FILE_READ); /* reading a model through a link is fine */
    p->file_close(p->user, f);
}

static void a_lock_excludes_everybody_else(void **state)
{
    sluice_file *a = must_open("lock", SLUICE_FILE_APPEND);
    sluice_file *b = must_open("lock", SLUICE_FILE_APPEND);
    pid_t child;
    int status;

    (void)state;
    assert_int_equal(p->file_lock(p->user, a, &err), SLUICE_OK);
    assert_int_equal(p->file_lock(p->user, b, &err), SLUICE_ERR_STATE); /* another instance in this process */
    assert_true(strlen(err.hint) > 0);
    child = fork();
    if (child == 0) {
        sluice_file *c;
        sluice_status st = p->file_open(p->user, &c, temp_dir_file(&dir, "lock"), SLUICE_FILE_APPEND, NULL);

        _exit(st == SLUICE_OK && p->file_lock(p->user, c, NULL) == SLUICE_ERR_STATE ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    p->file_close(p->user, b); /* closing one handle does not release the other's lock */
    b = must_open("lock", SLUICE_FILE_APPEND);
    assert_int_equal(p->file_lock(p->user, b, &err), SLUICE_ERR_STATE);
    p->file_close(p->user, a);
    assert_int_equal(p->file_lock(p->user, b, &err), SLUICE_OK);
    p->file_close(p->user, b);
}

static void rename_replaces_and_remove_tells_what_is_missing(void **state)
{
    sluice_file *f = must_open("from", SLUICE_FILE_CREATE_NEW);
    char from[800], to[800];

    (void)state;
    must_write(f, "new");
    p->file_close(p->user, f);
    p->file_close(p->user, must_open("to", SLUICE_FILE_CREATE_NEW));
    (void)snprintf(from, sizeof from, "%s/from", dir.path);
    (void)snprintf(to, sizeof to, "%s/to", dir.path);
    assert_int_equal(p->file_rename(p->user, from, to, &err), SLUICE_OK);
    f = must_open("to", SLUICE_FILE_READ);
    assert_string_equal(content(f), "new");
    p->file_close(p->user, f);
    assert_int_equal(p->file_rename(p->user, from, to, &err), SLUICE_ERR_NOT_FOUND);
    assert_int_equal(p->file_remove(p->user, to, &err), SLUICE_OK);
    assert_int_equal(p->file_remove(p->user, to, &err), SLUICE_ERR_NOT_FOUND);
    assert_true(temp_dir_is_empty(&dir));
}

static void folders_are_made_with_their_parents(void **state)
{
    struct stat st;

    (void)state;
    assert_int_equal(p->make_dir(p->user, temp_dir_file(&dir, "a//b/c/"), &err), SLUICE_OK);
    assert_int_equal(p->make_dir(p->user, temp_dir_file(&dir, "a/b/c"), &err), SLUICE_OK);
    assert_int_equal(stat(temp_dir_file(&dir, "a/b/c"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    p->file_close(p->user, must_open("a/file", SLUICE_FILE_CREATE_NEW));
    assert_int_equal(p->make_dir(p->user, temp_dir_file(&dir, "a/file"), &err), SLUICE_ERR_IO);
    assert_int_not_equal(p->make_dir(p->user, temp_dir_file(&dir, "a/file/x"), &err), SLUICE_OK);
    assert_int_equal(p->make_dir(p->user, "/", &err), SLUICE_OK);
    assert_int_equal(p->make_dir(p->user, "", &err), SLUICE_ERR_ARGUMENT);
}

static void refusals_say_what_to_do(void **state)
{
    static char path[9000];
    sluice_file *f;

    (void)state;
    memset(path, 'x', sizeof path - 1);
    path[0] = '/';
    assert_int_equal(p->file_open(p->user, &f, path, SLUICE_FILE_APPEND, &err), SLUICE_ERR_IO);
    assert_string_equal(err.hint, "use a shorter path");
    if (geteuid() == 0) /* root may write anywhere */
        return;
    assert_int_equal(chmod(dir.path, 0500), 0);
    assert_int_equal(p->file_open(p->user, &f, temp_dir_file(&dir, "x"), SLUICE_FILE_APPEND, &err), SLUICE_ERR_IO);
    assert_true(strlen(err.hint) > 0);
    assert_int_equal(chmod(dir.path, 0700), 0);
}

/* A file size limit stands for a full disk: the first write is cut short, the next fails. */
static void a_full_disk_is_an_error_with_a_hint(void **state)
{
    static char block[4096];
    pid_t child = fork();
    int status;

    (void)state;
    if (child == 0) {
        struct rlimit limit = { 1000, 1000 };
        sluice_file *f = must_open("x", SLUICE_FILE_CREATE_NEW);
        uint64_t size = 0;

        (void)signal(SIGXFSZ, SIG_IGN);
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0 || p->file_write(p->user, f, block, sizeof block, &err) != SLUICE_ERR_IO)
            _exit(1);
        if (p->file_size(p->user, f, &size, NULL) != SLUICE_OK || size != 1000)
            _exit(2);
        _exit(strlen(err.hint) > 0 && strstr(err.message, "\"x\"") != NULL ? 0 : 3);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void descriptors_do_not_reach_other_programs(void **state)
{
    sluice_file *f = must_open("x", SLUICE_FILE_CREATE_NEW);
    char command[900];

    (void)state;
    (void)snprintf(command, sizeof command, "ls -l /proc/self/fd 2>/dev/null | grep -q '%s'", dir.path);
    assert_int_not_equal(system(command), 0);
    p->file_close(p->user, f);
}

static void a_mapping_shows_the_whole_file(void **state)
{
    sluice_file *f = must_open("model", SLUICE_FILE_CREATE_NEW);
    sluice_mapping m;
    char path[800];

    (void)state;
    (void)snprintf(path, sizeof path, "%s/model", dir.path);
    assert_int_equal(p->map(p->user, &m, path, &err), SLUICE_ERR_FORMAT); /* empty */
    assert_null(m.ptr);
    must_write(f, "weights");
    p->file_close(p->user, f);
    assert_int_equal(p->map(p->user, &m, path, &err), SLUICE_OK);
    assert_int_equal(m.len, 7);
    assert_memory_equal(m.ptr, "weights", 7);
    assert_int_equal(unlink(path), 0);
    assert_memory_equal(m.ptr, "weights", 7);
    p->unmap(p->user, &m);
    assert_null(m.ptr);
    p->unmap(p->user, &m);
    assert_int_equal(p->map(p->user, &m, path, &err), SLUICE_ERR_NOT_FOUND);
    assert_int_equal(p->map(p->user, &m, NULL, &err), SLUICE_ERR_ARGUMENT);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(writes_go_to_the_end_also_after_truncation),
        TEST(modes_do_what_they_say),
        TEST(short_reads_end_at_the_end),
        TEST(what_is_not_a_regular_file_is_refused_and_never_waited_for),
        TEST(our_files_are_not_written_through_a_link),
        TEST(a_lock_excludes_everybody_else),
        TEST(rename_replaces_and_remove_tells_what_is_missing),
        TEST(folders_are_made_with_their_parents),
        TEST(refusals_say_what_to_do),
        TEST(a_full_disk_is_an_error_with_a_hint),
        TEST(descriptors_do_not_reach_other_programs),
        TEST(a_mapping_shows_the_whole_file),
    };

    return cmocka_run_group_tests_name("platform/files", tests, NULL, NULL);
}
