/* status.c - names of the status codes, and the library's version.
 *
 * The switch has no default on purpose: the compiler names the status that was added to the list and forgotten here.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sluice/base.h"

#define STRINGIFY_(x) #x
#define STRINGIFY(x)  STRINGIFY_(x)

const char *sluice_status_name(sluice_status status)
{
    switch (status) {
    case SLUICE_OK: return "SLUICE_OK";
    case SLUICE_NEED_INPUT: return "SLUICE_NEED_INPUT";
    case SLUICE_ERR_ARGUMENT: return "SLUICE_ERR_ARGUMENT";
    case SLUICE_ERR_STATE: return "SLUICE_ERR_STATE";
    case SLUICE_ERR_UNSUPPORTED: return "SLUICE_ERR_UNSUPPORTED";
    case SLUICE_ERR_NOT_FOUND: return "SLUICE_ERR_NOT_FOUND";
    case SLUICE_ERR_NO_MEMORY: return "SLUICE_ERR_NO_MEMORY";
    case SLUICE_ERR_LIMIT: return "SLUICE_ERR_LIMIT";
    case SLUICE_ERR_CANCELLED: return "SLUICE_ERR_CANCELLED";
    case SLUICE_ERR_FORMAT: return "SLUICE_ERR_FORMAT";
    case SLUICE_ERR_INTEGRITY: return "SLUICE_ERR_INTEGRITY";
    case SLUICE_ERR_IO: return "SLUICE_ERR_IO";
    case SLUICE_ERR_NETWORK: return "SLUICE_ERR_NETWORK";
    case SLUICE_ERR_TIMEOUT: return "SLUICE_ERR_TIMEOUT";
    case SLUICE_ERR_PIN_MISMATCH: return "SLUICE_ERR_PIN_MISMATCH";
    case SLUICE_ERR_TLS: return "SLUICE_ERR_TLS";
    case SLUICE_ERR_REMOTE: return "SLUICE_ERR_REMOTE";
    case SLUICE_ERR_TRUNCATED: return "SLUICE_ERR_TRUNCATED";
    case SLUICE_ERR_CONSENT: return "SLUICE_ERR_CONSENT";
    case SLUICE_ERR_POLICY: return "SLUICE_ERR_POLICY";
    case SLUICE_ERR_BUDGET: return "SLUICE_ERR_BUDGET";
    }
    return "SLUICE_ERR_UNKNOWN";
}

const char *sluice_version(void)
{
    return STRINGIFY(SLUICE_VERSION_MAJOR) "." STRINGIFY(SLUICE_VERSION_MINOR) "." STRINGIFY(SLUICE_VERSION_PATCH);
}
