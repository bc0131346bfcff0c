/* default.h - what the files of sdk/platform give to platform_default.c.  Nobody else includes this.
 *
 * One implementation of each group is chosen by CMake; the signatures are those of the vtable (sluice/platform.h),
 * which also says what they do.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_SDK_PLATFORM_DEFAULT_H
#define SLUICE_SDK_PLATFORM_DEFAULT_H

#include "sdk/platform/platform.h"

/* clock_posix.c */
uint64_t sluice_default_now_us(void *user);
int64_t sluice_default_wall_ms(void *user);

/* random_linux.c, random_apple.c */
sluice_status sluice_default_random(void *user, void *out, size_t len, sluice_error *err);

/* files_posix.c */
sluice_status sluice_default_file_open(void *user, sluice_file **out, const char *path, sluice_file_mode mode, sluice_error *err);
sluice_status sluice_default_file_size(void *user, sluice_file *f, uint64_t *out, sluice_error *err);
sluice_status sluice_default_file_read(void *user, sluice_file *f, uint64_t offset, void *buf, size_t len, size_t *got, sluice_error *err);
sluice_status sluice_default_file_write(void *user, sluice_file *f, const void *buf, size_t len, sluice_error *err);
sluice_status sluice_default_file_truncate(void *user, sluice_file *f, uint64_t len, sluice_error *err);
sluice_status sluice_default_file_sync(void *user, sluice_file *f, sluice_error *err);
sluice_status sluice_default_file_lock(void *user, sluice_file *f, sluice_error *err);
void sluice_default_file_close(void *user, sluice_file *f);
sluice_status sluice_default_file_rename(void *user, const char *from, const char *to, sluice_error *err);
sluice_status sluice_default_file_remove(void *user, const char *path, sluice_error *err);
sluice_status sluice_default_make_dir(void *user, const char *path, sluice_error *err);

/* map_posix.c */
sluice_status sluice_default_map(void *user, sluice_mapping *out, const char *path, sluice_error *err);
void sluice_default_unmap(void *user, sluice_mapping *m);

/* threads_posix.c */
sluice_status sluice_default_thread_start(void *user, sluice_thread **out, void (*run)(void *arg), void *arg, const char *name, sluice_error *err);
void sluice_default_thread_join(void *user, sluice_thread *t);
bool sluice_default_thread_is_self(void *user, const sluice_thread *t);
sluice_status sluice_default_mutex_create(void *user, sluice_mutex **out, sluice_error *err);
void sluice_default_mutex_destroy(void *user, sluice_mutex *m);
void sluice_default_mutex_lock(void *user, sluice_mutex *m);
void sluice_default_mutex_unlock(void *user, sluice_mutex *m);
sluice_status sluice_default_cond_create(void *user, sluice_cond **out, sluice_error *err);
void sluice_default_cond_destroy(void *user, sluice_cond *c);
void sluice_default_cond_wait(void *user, sluice_cond *c, sluice_mutex *m, uint64_t until_us);
void sluice_default_cond_broadcast(void *user, sluice_cond *c);

/* thread_name_linux.c, thread_name_none.c: what debuggers and profilers show */
void sluice_default_thread_name(const char *name);

/* device_linux.c, device_none.c */
void sluice_default_device_state(void *user, sluice_device_state *out);

/* errno_posix.c */
/* "WHAT \"last part of path\": what the system says", with `path` as the place and a hint where one helps. */
sluice_status sluice_errno_set(sluice_error *err, int number, const char *what, const char *path);

#endif
