/* cm.h - cmocka with the headers that it wants before it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_SUPPORT_CM_H
#define SLUICE_TESTS_SUPPORT_CM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
