/* platform_default.c - the operating system's platform as one table.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/platform/default.h"

static const sluice_platform platform = {
    .size = sizeof(sluice_platform),
    .now_us = sluice_default_now_us,
    .wall_ms = sluice_default_wall_ms,
    .random = sluice_default_random,
    .file_open = sluice_default_file_open,
    .file_size = sluice_default_file_size,
    .file_read = sluice_default_file_read,
    .file_write = sluice_default_file_write,
    .file_truncate = sluice_default_file_truncate,
    .file_sync = sluice_default_file_sync,
    .file_lock = sluice_default_file_lock,
    .file_close = sluice_default_file_close,
    .file_rename = sluice_default_file_rename,
    .file_remove = sluice_default_file_remove,
    .make_dir = sluice_default_make_dir,
    .map = sluice_default_map,
    .unmap = sluice_default_unmap,
    .thread_start = sluice_default_thread_start,
    .thread_join = sluice_default_thread_join,
    .thread_is_self = sluice_default_thread_is_self,
    .mutex_create = sluice_default_mutex_create,
    .mutex_destroy = sluice_default_mutex_destroy,
    .mutex_lock = sluice_default_mutex_lock,
    .mutex_unlock = sluice_default_mutex_unlock,
    .cond_create = sluice_default_cond_create,
    .cond_destroy = sluice_default_cond_destroy,
    .cond_wait = sluice_default_cond_wait,
    .cond_broadcast = sluice_default_cond_broadcast,
    .device_state = sluice_default_device_state,
    /* key_load, key_store, log: NULL; see the header */
};

const sluice_platform *sluice_platform_default(void)
{
    return &platform;
}
