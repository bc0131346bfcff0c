/* sluice/platform.h - everything that Sluice takes from the operating system, behind one vtable.
 *
 * Clock, randomness, files, mappings, threads, device state and the key store come from here and from
 * nowhere else, so that a test can fail, delay or rewind any of them and an app can put its own
 * key store in.  sluice_platform_default() is the operating system's; take a copy and replace members to change one thing.
 *
 * Threads: every member may be called from any thread, at the same time, unless it says otherwise.
 * Errors:  members that return a status fill `err` (which may be NULL) with what the system said.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_PLATFORM_H
#define SLUICE_PLATFORM_H

#include "sluice/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sluice_file sluice_file;     /* opaque: the vtable's own */
typedef struct sluice_thread sluice_thread; /* opaque */
typedef struct sluice_mutex sluice_mutex;   /* opaque, not recursive */
typedef struct sluice_cond sluice_cond;     /* opaque */

typedef enum sluice_file_mode {
    SLUICE_FILE_READ = 1,       /* must exist */
    SLUICE_FILE_APPEND = 2,     /* created with mode 0600 when missing; writes go to the end */
    SLUICE_FILE_CREATE_NEW = 3, /* must not exist; mode 0600 */
    SLUICE_FILE_TRUNCATE = 4    /* created, or emptied; mode 0600 */
} sluice_file_mode;

/* A read-only mapping of a whole file.  {NULL, 0, NULL} is empty and may be unmapped. */
typedef struct sluice_mapping {
    const uint8_t *ptr;
    size_t len;
    void *handle;
} sluice_mapping;
#define SLUICE_MAPPING_EMPTY ((sluice_mapping){ NULL, 0, NULL })

typedef enum sluice_thermal {
    SLUICE_THERMAL_UNKNOWN = 0,
    SLUICE_THERMAL_NOMINAL = 1,
    SLUICE_THERMAL_FAIR = 2,
    SLUICE_THERMAL_SERIOUS = 3,
    SLUICE_THERMAL_CRITICAL = 4
} sluice_thermal;

typedef enum sluice_network {
    SLUICE_NETWORK_UNKNOWN = 0,
    SLUICE_NETWORK_NONE = 1,
    SLUICE_NETWORK_METERED = 2,
    SLUICE_NETWORK_UNMETERED = 3
} sluice_network;

/* What the device is and how it is doing.  Zero means unknown everywhere. */
typedef struct sluice_device_state {
    uint64_t memory_total_bytes;
    uint64_t memory_available_bytes;
    uint32_t n_cores;           /* cores this process may use */
    uint32_t n_fast_cores;      /* of those, the ones that are at least half as fast as the fastest */
    uint32_t cpu_features;      /* SLUICE_CPU_* of sdk/platform; informational for apps */
    int32_t battery_percent;    /* 0 … 100; -1 where there is no battery or it is unknown */
    bool is_charging;
    bool is_low_power;          /* the user's battery saver */
    sluice_thermal thermal;
    sluice_network network;
} sluice_device_state;

typedef enum sluice_log_level {
    SLUICE_LOG_ERROR = 1,
    SLUICE_LOG_WARN = 2,
    SLUICE_LOG_INFO = 3,
    SLUICE_LOG_DEBUG = 4
} sluice_log_level;

typedef struct sluice_platform {
    size_t size; /* sizeof(sluice_platform) of the build that filled it in */
    void *user;  /* handed to every member */

    uint64_t (*now_us)(void *user);  /* monotonic, microseconds since some fixed point */
    int64_t (*wall_ms)(void *user);  /* Unix time in milliseconds; < 0 when the clock cannot be trusted */
    sluice_status (*random)(void *user, void *out, size_t len, sluice_error *err); /* cryptographic quality */

    /* Files.  Paths are UTF-8.  A short read is not an error: *got says how much, 0 is the end of the file. */
    sluice_status (*file_open)(void *user, sluice_file **out, const char *path, sluice_file_mode mode, sluice_error *err);
    sluice_status (*file_size)(void *user, sluice_file *f, uint64_t *out, sluice_error *err);
    sluice_status (*file_read)(void *user, sluice_file *f, uint64_t offset, void *buf, size_t len, size_t *got, sluice_error *err);
    sluice_status (*file_write)(void *user, sluice_file *f, const void *buf, size_t len, sluice_error *err); /* all of it, at the end */
    sluice_status (*file_truncate)(void *user, sluice_file *f, uint64_t len, sluice_error *err);
    sluice_status (*file_sync)(void *user, sluice_file *f, sluice_error *err); /* durable when it returns OK */
    sluice_status (*file_lock)(void *user, sluice_file *f, sluice_error *err); /* exclusive, whole file, SLUICE_ERR_STATE when another process has it; released by close */
    void (*file_close)(void *user, sluice_file *f); /* accepts NULL */
    sluice_status (*file_rename)(void *user, const char *from, const char *to, sluice_error *err); /* atomic, then the folder is synced */
    sluice_status (*file_remove)(void *user, const char *path, sluice_error *err); /* SLUICE_ERR_NOT_FOUND when missing */
    sluice_status (*make_dir)(void *user, const char *path, sluice_error *err);    /* with parents, mode 0700; OK when it exists */
    sluice_status (*map)(void *user, sluice_mapping *out, const char *path, sluice_error *err);
    void (*unmap)(void *user, sluice_mapping *m); /* accepts an empty mapping; leaves it empty */

    sluice_status (*thread_start)(void *user, sluice_thread **out, void (*run)(void *arg), void *arg, const char *name, sluice_error *err);
    void (*thread_join)(void *user, sluice_thread *t); /* waits and releases it; accepts NULL.  Called by the thread itself: it releases itself when it ends */
    bool (*thread_is_self)(void *user, const sluice_thread *t);
    sluice_status (*mutex_create)(void *user, sluice_mutex **out, sluice_error *err);
    void (*mutex_destroy)(void *user, sluice_mutex *m); /* accepts NULL */
    void (*mutex_lock)(void *user, sluice_mutex *m);
    void (*mutex_unlock)(void *user, sluice_mutex *m);
    sluice_status (*cond_create)(void *user, sluice_cond **out, sluice_error *err);
    void (*cond_destroy)(void *user, sluice_cond *c); /* accepts NULL */
    void (*cond_wait)(void *user, sluice_cond *c, sluice_mutex *m, uint64_t until_us); /* now_us clock; UINT64_MAX waits for ever */
    void (*cond_broadcast)(void *user, sluice_cond *c);

    void (*device_state)(void *user, sluice_device_state *out);

    /* Key store: 32-byte secrets by name ([a-z0-9._-], at most 64).  NULL members: keys are kept in files
     * of mode 0600 in the state folder. */
    sluice_status (*key_load)(void *user, const char *name, uint8_t out[32], sluice_error *err); /* SLUICE_ERR_NOT_FOUND */
    sluice_status (*key_store)(void *user, const char *name, const uint8_t key[32], sluice_error *err);

    void (*log)(void *user, sluice_log_level level, const char *message); /* NULL: no log.  Never prompt text or keys. */
} sluice_platform;

/* The operating system's platform.  Static storage, never changes; `log` is NULL. */
SLUICE_API const sluice_platform *sluice_platform_default(void);

#ifdef __cplusplus
}
#endif
#endif
