/* sluice/base.h - status codes, the error record, spans and the allocator shared by every call.
 *
 * Every function that can fail returns a sluice_status and takes a caller-owned sluice_error, which
 * may be NULL.  The status answers *what kind*; the record answers what happened, where, and what to
 * do about it.  Statuses live in bands, so a caller can ask for the kind without knowing every value.
 *
 * Threads: everything here is a plain value or a pure function.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_BASE_H
#define SLUICE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SLUICE_API __attribute__((visibility("default")))
#define SLUICE_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#else
#define SLUICE_API
#define SLUICE_PRINTF(fmt, first)
#endif

#define SLUICE_VERSION_MAJOR 0
#define SLUICE_VERSION_MINOR 1
#define SLUICE_VERSION_PATCH 0

/* Stored in records and shown to users: append inside a band, never renumber. */
typedef enum sluice_status {
    SLUICE_OK = 0,
    SLUICE_NEED_INPUT = 1, /* not a failure: an incremental parser wants more bytes */

    SLUICE_ERR_ARGUMENT = -1,    /* the caller's bug: a value out of range, a NULL, a bad size */
    SLUICE_ERR_STATE = -2,       /* the caller's bug: not now (closed, already cancelled, used twice) */
    SLUICE_ERR_UNSUPPORTED = -3, /* well formed, but this build or model cannot do it */
    SLUICE_ERR_NOT_FOUND = -4,   /* no such file, id or record */

    SLUICE_ERR_NO_MEMORY = -20,
    SLUICE_ERR_LIMIT = -21,     /* a stated bound would be passed */
    SLUICE_ERR_CANCELLED = -22, /* the app cancelled */

    SLUICE_ERR_FORMAT = -40,    /* untrusted input is malformed: file or peer */
    SLUICE_ERR_INTEGRITY = -41, /* a checksum, a signature, a tag or a hash chain does not verify */
    SLUICE_ERR_IO = -42,        /* the operating system refused a file operation */

    SLUICE_ERR_NETWORK = -60,
    SLUICE_ERR_TIMEOUT = -61,
    SLUICE_ERR_PIN_MISMATCH = -62, /* the server's key is not the one that the policy names */
    SLUICE_ERR_TLS = -63,          /* certificate or handshake refused */
    SLUICE_ERR_REMOTE = -64,       /* the far side answered with an error */
    SLUICE_ERR_TRUNCATED = -65,    /* the answer broke off before its end mark */

    SLUICE_ERR_CONSENT = -80, /* refused on purpose: never retried elsewhere */
    SLUICE_ERR_POLICY = -81,
    SLUICE_ERR_BUDGET = -82
} sluice_status;

/* "SLUICE_ERR_FORMAT" for SLUICE_ERR_FORMAT; "SLUICE_ERR_UNKNOWN" for a number not in the list. Static storage. */
SLUICE_API const char *sluice_status_name(sluice_status status);

/* What went wrong, where, and how to mend it.  Zero-initialise it, or use SLUICE_ERROR_INIT.
 * Texts are UTF-8, NUL-terminated, cut at a code point, and never hold prompt text, keys or server bodies. */
typedef struct sluice_error {
    sluice_status status;
    char message[256]; /* what and why: "policy: unknown field \"endpoint\"" */
    char hint[192];    /* what to do about it: "did you mean \"endpoints\"?"; may be empty */
    char where[160];   /* the file or the peer, as the caller named it; may be empty */
    uint32_t line;     /* 1-based; 0 when the place has no lines */
    uint32_t column;   /* 1-based, in bytes; 0 when unknown */
    uint64_t offset;   /* byte offset in `where`; meaningful where `has_offset` */
    bool has_offset;
} sluice_error;

#define SLUICE_ERROR_INIT { SLUICE_OK, "", "", "", 0, 0, 0, false }

/* Borrowed bytes.  ptr may be NULL only when len is 0. */
typedef struct sluice_span {
    const uint8_t *ptr;
    size_t len;
} sluice_span;

/* The app's allocator.  free gets the size that alloc was asked for.  alloc returns memory aligned for
 * any C object (16 bytes or more), or NULL; it is never asked for 0 bytes.  Both may be called from any of the instance's
 * threads, at the same time. */
typedef struct sluice_allocator {
    void *(*alloc)(void *user, size_t bytes);
    void (*free)(void *user, void *ptr, size_t bytes);
    void *user;
} sluice_allocator;

/* "0.1.0", static storage. */
SLUICE_API const char *sluice_version(void);

#ifdef __cplusplus
}
#endif
#endif
