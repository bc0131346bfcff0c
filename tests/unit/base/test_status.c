/* test_status.c - names of the status codes, and the version.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "sluice/base.h"
#include "tests/support/cm.h"

static void every_status_has_the_name_it_has_in_the_header(void **state)
{
    static const struct { sluice_status status; const char *name; } all[] = {
#define ROW(s) { s, #s }
        ROW(SLUICE_OK), ROW(SLUICE_NEED_INPUT), ROW(SLUICE_ERR_ARGUMENT), ROW(SLUICE_ERR_STATE), ROW(SLUICE_ERR_UNSUPPORTED),
        ROW(SLUICE_ERR_NOT_FOUND), ROW(SLUICE_ERR_NO_MEMORY), ROW(SLUICE_ERR_LIMIT), ROW(SLUICE_ERR_CANCELLED), ROW(SLUICE_ERR_FORMAT),
        ROW(SLUICE_ERR_INTEGRITY), ROW(SLUICE_ERR_IO), ROW(SLUICE_ERR_NETWORK), ROW(SLUICE_ERR_TIMEOUT), ROW(SLUICE_ERR_PIN_MISMATCH),
        ROW(SLUICE_ERR_TLS), ROW(SLUICE_ERR_REMOTE), ROW(SLUICE_ERR_TRUNCATED), ROW(SLUICE_ERR_CONSENT), ROW(SLUICE_ERR_POLICY),
        ROW(SLUICE_ERR_BUDGET),
#undef ROW
    };
    int n_named = 0;

    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        assert_string_equal(sluice_status_name(all[i].status), all[i].name);
    for (int i = -200; i < 200; i++)
        n_named += strcmp(sluice_status_name((sluice_status)i), "SLUICE_ERR_UNKNOWN") != 0;
    assert_int_equal(n_named, sizeof all / sizeof all[0]); /* a status without a row above fails here */
}

static void version_is_that_of_the_header(void **state)
{
    char want[32];

    (void)state;
    (void)snprintf(want, sizeof want, "%d.%d.%d", SLUICE_VERSION_MAJOR, SLUICE_VERSION_MINOR, SLUICE_VERSION_PATCH);
    assert_string_equal(sluice_version(), want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_the_name_it_has_in_the_header),
        cmocka_unit_test(version_is_that_of_the_header),
    };

    return cmocka_run_group_tests_name("base/status", tests, NULL, NULL);
}
