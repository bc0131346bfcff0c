/* device_linux.c - memory, cores, battery and heat from procfs and sysfs.
 *
 * Everything is best effort: a file that a sandbox hides leaves its field unknown.  The network stays unknown on purpose:
 * the kernel does not know whether a link costs money or leads anywhere, the app does.
 *
 * What a container may use counts, not what its host has: memory and cores are bounded by the process's control group.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE /* sched_getaffinity, CPU_COUNT */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "sdk/platform/default.h"

enum { FILE_CAP = 4096, ZONES_MAX = 32, TRIPS_MAX = 12 };

/* A trip point whose temperature is closer than this (in thousandths of a degree) counts as nearly reached. */
enum { NEAR_MILLIDEGREES = 5000 };

/* The start of a small file as a string without its last newline; false when it cannot be read. */
static bool read_text(const char *path, char *out, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t len = 0;

    out[0] = '\0';
    if (fd < 0)
        return false;
    while (len < cap - 1) {
        ssize_t n = read(fd, out + len, cap - 1 - len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    (void)close(fd);
    if (len > 0 && out[len - 1] == '\n')
        len--;
    out[len] = '\0';
    return len > 0;
}

static bool read_number(const char *path, int64_t *out)
{
    char text[32];
    char *end;
    long long value;

    if (!read_text(path, text, sizeof text))
        return false;
    errno = 0;
    value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0') /* "max" ends here */
        return false;
    *out = value;
    return true;
}

/* ---- memory ---------------------------------------------------------------------------------------- */

/* Bytes of a "Name:   123 kB" line. */
static uint64_t meminfo(const char *text, const char *name)
{
    const char *line = strstr(text, name);
    unsigned long long kib;

    if (line == NULL)
        return 0;
    kib = strtoull(line + strlen(name), NULL, 10);
    return kib < UINT64_MAX / 1024 ? (uint64_t)kib * 1024 : 0;
}

static void read_memory(sluice_device_state *out)
{
    char text[FILE_CAP];
    int64_t limit, used;

    if (read_text("/proc/meminfo", text, sizeof text)) {
        out->memory_total_bytes = meminfo(text, "MemTotal:");
        out->memory_available_bytes = meminfo(text, "MemAvailable:");
    }
    if (!read_number("/sys/fs/cgroup/memory.max", &limit) || limit <= 0)
        return;
    if (out->memory_total_bytes == 0 || (uint64_t)limit < out->memory_total_bytes)
        out->memory_total_bytes = (uint64_t)limit;
    if (read_number("/sys/fs/cgroup/memory.current", &used) && used >= 0) {
        uint64_t left = used < limit ? (uint64_t)(limit - used) : 0;

        if (left < out->memory_available_bytes)
            out->memory_available_bytes = left;
    }
}

/* ---- cores ----------------------------------------------------------------------------------------- */

/* Whole cores that the group's quota pays for, rounded up; 0 where there is none. */
static uint32_t quota_cores(void)
{
    char text[64], *behind_quota, *behind_period;
    long long quota, period;

    if (!read_text("/sys/fs/cgroup/cpu.max", text, sizeof text))
        return 0;
    quota = strtoll(text, &behind_quota, 10); /* sscanf() would bring 50 KB of libc into a static program */
    period = strtoll(behind_quota, &behind_period, 10);
    if (behind_quota == text || behind_period == behind_quota) /* "max" */
        return 0;
    if (quota <= 0 || period <= 0 || quota / period >= UINT32_MAX)
        return 0;
    return (uint32_t)(quota / period + (quota % period != 0));
}

/* What the scheduler thinks a core is worth, 1024 for the fastest; 0 where the kernel does not say (machines with cores of one kind). */
static int64_t core_capacity(int core)
{
    char path[128];
    int64_t capacity;

    (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpu_capacity", core);
    return read_number(path, &capacity) && capacity > 0 ? capacity : 0;
}

static uint32_t count_fast_cores(const cpu_set_t *set)
{
    int64_t capacities[CPU_SETSIZE], best = 0;
    uint32_t n = 0;

    for (int i = 0; i < CPU_SETSIZE; i++) {
        capacities[i] = CPU_ISSET((size_t)i, set) ? core_capacity(i) : 0;
        if (CPU_ISSET((size_t)i, set) && capacities[i] == 0)
            return 0;
        best = capacities[i] > best ? capacities[i] : best;
    }
    for (int i = 0; i < CPU_SETSIZE; i++)
        n += capacities[i] > 0 && 2 * capacities[i] >= best;
    return n;
}

static void read_cores(sluice_device_state *out)
{
    cpu_set_t set;
    uint32_t quota = quota_cores();

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        out->n_cores = (uint32_t)CPU_COUNT(&set);
        out->n_fast_cores = count_fast_cores(&set);
    } else { /* more cores than the set holds */
        long online = sysconf(_SC_NPROCESSORS_ONLN);

        out->n_cores = online > 0 ? (uint32_t)online : 0;
    }
    if (quota > 0 && quota < out->n_cores)
        out->n_cores = quota;
    if (out->n_fast_cores > out->n_cores)
        out->n_fast_cores = out->n_cores;
}

/* ---- battery --------------------------------------------------------------------------------------- */

static bool read_supply(const char *name, const char *what, char *out, size_t cap)
{
    char path[512];
    int n = snprintf(path, sizeof path, "/sys/class/power_supply/%s/%s", name, what);

    return n > 0 && (size_t)n < sizeof path && read_text(path, out, cap);
}

/* The first battery that feeds the device itself; a mouse's has the scope "Device". */
static void read_battery(sluice_device_state *out)
{
    DIR *folder = opendir("/sys/class/power_supply");
    const struct dirent *entry;
    char text[64];

    if (folder == NULL)
        return;
    while (out->battery_percent < 0 && (entry = readdir(folder)) != NULL) {
        if (entry->d_name[0] == '.' || !read_supply(entry->d_name, "type", text, sizeof text) || strcmp(text, "Battery") != 0)
            continue;
        if (read_supply(entry->d_name, "scope", text, sizeof text) && strcmp(text, "Device") == 0)
            continue;
        if (read_supply(entry->d_name, "capacity", text, sizeof text)) {
            long percent = strtol(text, NULL, 10);

            if (percent >= 0 && percent <= 100)
                out->battery_percent = (int32_t)percent;
        }
        if (read_supply(entry->d_name, "status", text, sizeof text))
            out->is_charging = strcmp(text, "Charging") == 0 || strcmp(text, "Full") == 0;
    }
    (void)closedir(folder);
}

/* ---- heat ------------------------------------------------------------------------------------------ */

static sluice_thermal trip_level(const char *type, int64_t temp, int64_t trip)
{
    bool reached = temp >= trip;

    if (strcmp(type, "critical") == 0)
        return reached ? SLUICE_THERMAL_CRITICAL : temp >= trip - NEAR_MILLIDEGREES ? SLUICE_THERMAL_SERIOUS : SLUICE_THERMAL_NOMINAL;
    if (strcmp(type, "hot") == 0)
        return reached ? SLUICE_THERMAL_SERIOUS : SLUICE_THERMAL_NOMINAL;
    if (strcmp(type, "passive") == 0) /* from here on the kernel slows the processor down */
        return reached ? SLUICE_THERMAL_SERIOUS : temp >= trip - NEAR_MILLIDEGREES ? SLUICE_THERMAL_FAIR : SLUICE_THERMAL_NOMINAL;
    return SLUICE_THERMAL_UNKNOWN;
}

/* Of one zone, against its own trip points; false when there is no such zone. */
static bool zone_level(int zone, sluice_thermal *level)
{
    char path[128], type[32];
    int64_t temp, trip;

    (void)snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/temp", zone);
    if (!read_number(path, &temp))
        return false;
    for (int i = 0; i < TRIPS_MAX; i++) {
        sluice_thermal at;

        (void)snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/trip_point_%d_type", zone, i);
        if (!read_text(path, type, sizeof type))
            break;
        (void)snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/trip_point_%d_temp", zone, i);
        if (!read_number(path, &trip) || trip <= 0)
            continue;
        at = trip_level(type, temp, trip);
        if (at > *level)
            *level = at;
    }
    return true;
}

static sluice_thermal read_thermal(void)
{
    sluice_thermal level = SLUICE_THERMAL_UNKNOWN;

    for (int zone = 0; zone < ZONES_MAX; zone++)
        if (!zone_level(zone, &level) && zone > 0)
            break;
    return level;
}

void sluice_default_device_state(void *user, sluice_device_state *out)
{
    (void)user;
    memset(out, 0, sizeof *out);
    out->battery_percent = -1;
    out->cpu_features = sluice_cpu_features();
    read_cores(out);
    out->thermal = read_thermal();
    read_memory(out);
    read_battery(out);
}
