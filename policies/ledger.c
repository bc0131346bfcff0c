/* ledger.c - the append-only, hash-chained, authenticated record.
 *
 *     ledger        line 1 ── hash ──► "prev" of line 2 ── hash ──► … ──► line n
 *     ledger.head   number and hash of line n, written after line n is durable
 *     ledger.lock   held while the ledger is open
 *
 * A line's "mac" is BLAKE2b-256 under a key of this device, over everything in front of it: number and chain included, so a
 * line can be neither changed nor moved.  A line is written whole and synced, then the head is replaced.  A crash can
 * therefore leave four states, and open mends each without losing what was acknowledged:
 *
 *     nothing written              the old state
 *     a part of a line             cut off; noted with a "recovered" entry
 *     a whole line, the old head   accepted (its chain and mac are right); the head is written again
 *     both                         the new state
 *
 * Everything else is somebody's hand: SLUICE_ERR_INTEGRITY.  In particular a head that is ahead of the file (entries were cut
 * off), a head more than one entry behind, or no head beside two entries or more (an old or removed head would hide a cut).
 * What cannot be seen from inside: file and head put back together from one backup, or both deleted.  Consents that were
 * revoked since come back with the first; the platform's key store can hold the head one day.  The second leaves no consent at all.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "policies/ledger.h"

#include <stdio.h>

#include "sdk/base/json.h"
#include "sdk/crypto/crypto.h"

enum {
    HASH_BYTES = SLUICE_BLAKE2B_BYTES, HEX_LEN = 2 * HASH_BYTES, PATH_CAP = 4096, CHUNK_BYTES = 4 * SLUICE_LEDGER_ENTRY_BYTES_MAX,
    HEAD_BYTES_MAX = 512, NAME_LEN_MAX = 32
};

/* An entry ends in  ,"prev":"<64>","mac":"<64>"}  */
static const char prev_mark[] = ",\"prev\":\"", mac_mark[] = "\",\"mac\":\"", end_mark[] = "\"}";
enum {
    PREV_MARK_LEN = sizeof prev_mark - 1, MAC_MARK_LEN = sizeof mac_mark - 1, END_MARK_LEN = sizeof end_mark - 1,
    TAIL_LEN = PREV_MARK_LEN + HEX_LEN + MAC_MARK_LEN + HEX_LEN + END_MARK_LEN
};

/* The end of a chain: how many entries there are and the hash of the last (zeros before the first). */
typedef struct position {
    uint64_t seq;
    uint8_t hash[HASH_BYTES];
} position;

struct sluice_ledger {
    const sluice_platform *platform;
    const sluice_allocator *al;
    char path[PATH_CAP], head_path[PATH_CAP];
    sluice_file *lock, *file;
    uint8_t mac_key[HASH_BYTES], head_key[HASH_BYTES], digest_key[HASH_BYTES];
    position end;
    uint64_t bytes;        /* of the file up to the end of the last entry */
    int64_t time_max_ms;
    bool is_broken;        /* a write failed: what the file holds is not known until it is read again */
};

static sluice_status damaged(const sluice_ledger *l, uint64_t seq, uint64_t offset, const char *what, sluice_error *err)
{
    sluice_status st = sluice_error_set(err, SLUICE_ERR_INTEGRITY, "ledger: entry %llu: %s", (unsigned long long)seq, what);

    sluice_error_where(err, l->path);
    sluice_error_offset(err, offset);
    sluice_error_hint(err, "the record was changed or its key was lost; keep a copy for inquiry, then move the state folder away to begin anew");
    return st;
}

/* ---- entries ------------------------------------------------------------------------------------- */

static void mac_of(const sluice_ledger *l, uint8_t out[HASH_BYTES], const void *ptr, size_t len)
{
    sluice_blake2b(out, sluice_span_of(l->mac_key, sizeof l->mac_key), sluice_span_of(ptr, len));
}

/* Days since 1970 to a date: the year begins in March, so that the leap day comes last. */
static void format_time(char *out, size_t cap, int64_t ms)
{
    int64_t days = ms / 86400000, of_day = ms % 86400000, shifted = days + 719468, era = shifted / 146097;
    int64_t of_era = shifted % 146097, year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100), months_on = (5 * of_year + 2) / 153;
    int64_t day = of_year - (153 * months_on + 2) / 5 + 1, month = months_on < 10 ? months_on + 3 : months_on - 9;
    int64_t year = year_of_era + era * 400 + (month <= 2);

    (void)snprintf(out, cap, "%04lld-%02lld-%02lldT%02lld:%02lld:%02lld.%03lldZ", (long long)year, (long long)month, (long long)day,
                   (long long)(of_day / 3600000), (long long)(of_day / 60000 % 60), (long long)(of_day / 1000 % 60), (long long)(of_day % 1000));
}

static bool is_name(const char *s)
{
    size_t len = s != NULL ? strlen(s) : 0;

    return len > 0 && len <= NAME_LEN_MAX && s[0] >= 'a' && s[0] <= 'z' && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == len;
}

static bool is_own_name(const char *s)
{
    static const char *const own[] = { "seq", "time", "time_ms", "type", "prev", "mac" };

    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        if (strcmp(s, own[i]) == 0)
            return true;
    return false;
}

static sluice_status check_fields(const char *type, const sluice_ledger_field *fields, size_t n_fields, sluice_error *err)
{
    if (!is_name(type))
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "ledger: the type of an entry must be [a-z][a-z0-9_]*");
    if (n_fields > SLUICE_LEDGER_FIELDS_MAX)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "ledger: more than %d fields", SLUICE_LEDGER_FIELDS_MAX);
    for (size_t i = 0; i < n_fields; i++) {
        if (!is_name(fields[i].name) || is_own_name(fields[i].name))
            return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "ledger: field %zu has no usable name", i);
        for (size_t k = 0; k < i; k++)
            if (strcmp(fields[i].name, fields[k].name) == 0)
                return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "ledger: field \"%s\" is there twice", fields[i].name);
    }
    return SLUICE_OK;
}

/* The line of the next entry, with its line feed. */
static sluice_status write_line(const sluice_ledger *l, int64_t time_ms, const char *type, const sluice_ledger_field *fields, size_t n_fields,
                                sluice_buf *out, sluice_error *err)
{
    sluice_json_writer w;
    char time[40] = "", hex[HEX_LEN + 1];
    uint8_t mac[HASH_BYTES];

    sluice_json_begin(&w, out);
    sluice_json_object_open(&w, NULL);
    sluice_json_uint(&w, "seq", l->end.seq + 1);
    sluice_json_int(&w, "time_ms", time_ms < 0 ? -1 : time_ms);
    if (time_ms >= 0)
        format_time(time, sizeof time, time_ms);
    sluice_json_str(&w, "time", time_ms >= 0 ? time : NULL);
    sluice_json_str(&w, "type", type);
    for (size_t i = 0; i < n_fields; i++) {
        if (fields[i].text != NULL)
            sluice_json_span(&w, fields[i].name, sluice_span_str(fields[i].text));
        else
            sluice_json_uint(&w, fields[i].name, fields[i].number);
    }
    sluice_hex(hex, l->end.hash, HASH_BYTES);
    sluice_json_str(&w, "prev", hex);
    if (w.ok) {
        mac_of(l, mac, out->ptr, out->len); /* ends in the quote after prev; what follows is fixed */
        sluice_hex(hex, mac, HASH_BYTES);
        sluice_json_str(&w, "mac", hex);
    }
    sluice_json_object_close(&w);
    if (!w.ok || !sluice_buf_append_byte(out, '\n'))
        return sluice_buf_error(out, "ledger: an entry", err);
    return SLUICE_OK;
}

static bool starts_with(const char *line, size_t len, const char *text, size_t text_len)
{
    return len >= text_len && memcmp(line, text, text_len) == 0;
}

/* Verify that the line is the entry after `at`, and step there.  NULL, or what is wrong. */
static const char *step(const sluice_ledger *l, position *at, const char *line, size_t len, int64_t *time_ms)
{
    char start[40], hex[HEX_LEN + 1];
    uint8_t mac[HASH_BYTES], said[HASH_BYTES];
    const char *tail = line + len - TAIL_LEN;
    size_t start_len;
    int64_t ms = 0;

    if (len < TAIL_LEN || len >= SLUICE_LEDGER_ENTRY_BYTES_MAX || memcmp(line + len - END_MARK_LEN, end_mark, END_MARK_LEN) != 0
        || memcmp(tail, prev_mark, PREV_MARK_LEN) != 0 || memcmp(tail + PREV_MARK_LEN + HEX_LEN, mac_mark, MAC_MARK_LEN) != 0)
        return "not an entry";
    memcpy(hex, tail + PREV_MARK_LEN + HEX_LEN + MAC_MARK_LEN, HEX_LEN);
    hex[HEX_LEN] = '\0';
    mac_of(l, mac, line, len - HEX_LEN - END_MARK_LEN - MAC_MARK_LEN + 1);
    if (!sluice_unhex(said, sizeof said, hex) || !sluice_ct_eq(mac, said, HASH_BYTES))
        return "its authentication code is wrong";

    /* From here on the line is our own; only its place can be wrong. */
    start_len = (size_t)snprintf(start, sizeof start, "{\"seq\":%llu,\"time_ms\":", (unsigned long long)at->seq + 1);
    if (!starts_with(line, len, start, start_len))
        return "its number is out of order";
    sluice_hex(hex, at->hash, HASH_BYTES);
    if (memcmp(tail + PREV_MARK_LEN, hex, HEX_LEN) != 0)
        return "it does not continue the entry before it";
    for (size_t i = start_len; line[i] >= '0' && line[i] <= '9' && i < start_len + 18; i++) /* "-1" for a clock that was not trusted: 0 */
        ms = ms * 10 + (line[i] - '0');
    at->seq++;
    sluice_blake2b(at->hash, SLUICE_SPAN_EMPTY, sluice_span_of(line, len));
    *time_ms = ms;
    return NULL;
}

/* ---- the file, line by line ---------------------------------------------------------------------- */

/* What a reading found. */
typedef struct reading {
    position end;
    uint64_t good_bytes;   /* up to the end of the last whole entry */
    uint64_t torn_bytes;   /* behind it: no whole entry */
    const char *torn_why;  /* what is wrong with a line there, NULL where it has no line feed */
    int64_t time_max_ms;
    position mark;         /* in: a position to look for, by its number; out: `mark_found` */
    bool mark_found;
} reading;

static void reading_init(reading *r, const position *mark)
{
    memset(r, 0, sizeof *r);
    if (mark != NULL)
        r->mark = *mark;
    r->mark_found = r->mark.seq == 0;
}

static sluice_status read_entry(const sluice_ledger *l, reading *r, const char *line, size_t len, uint64_t limit, sluice_line_fn on_line, void *user,
                                bool *stop, sluice_error *err)
{
    int64_t time_ms = 0;
    const char *wrong = step(l, &r->end, line, len, &time_ms);

    if (wrong != NULL && r->good_bytes + len + 1 == limit) {
        /* The last line: a crash before its sync may have kept its end and lost its beginning.  If it was ever
         * acknowledged, the head knows it, and check_head() finds it missing. */
        r->torn_bytes = len + 1;
        r->torn_why = wrong;
        *stop = true;
        return SLUICE_OK;
    }
    if (wrong != NULL)
        return damaged(l, r->end.seq + 1, r->good_bytes, wrong, err);
    if (time_ms > r->time_max_ms)
        r->time_max_ms = time_ms;
    if (r->end.seq == r->mark.seq && memcmp(r->end.hash, r->mark.hash, HASH_BYTES) == 0)
        r->mark_found = true;
    r->good_bytes += len + 1;
    if (on_line != NULL)
        *stop = !on_line(line, len, user);
    return SLUICE_OK;
}

/* Read and verify the file up to `limit` bytes (it may grow meanwhile).  on_line may be NULL. */
static sluice_status read_entries(const sluice_ledger *l, sluice_file *f, uint64_t limit, reading *r, sluice_line_fn on_line, void *user,
                                  sluice_error *err)
{
    const sluice_platform *p = l->platform;
    uint64_t offset = 0;
    size_t have = 0;
    bool stop = false;
    sluice_status st = SLUICE_OK;
    uint8_t *chunk = sluice_alloc(l->al, CHUNK_BYTES + 1);

    if (chunk == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "ledger: no memory to read it");
    while (st == SLUICE_OK && !stop) {
        uint64_t left = limit - offset;
        size_t want = CHUNK_BYTES - have, got = 0, from = 0;
        uint8_t *end;

        if (want > left)
            want = (size_t)left;
        if (want > 0)
            st = p->file_read(p->user, f, offset, chunk + have, want, &got, err);
        if (st != SLUICE_OK || got == 0)
            break;
        offset += got;
        have += got;
        while (st == SLUICE_OK && !stop && (end = memchr(chunk + from, '\n', have - from)) != NULL) {
            size_t len = (size_t)(end - (chunk + from));

            *end = '\0'; /* a reader may take it for a string */
            st = read_entry(l, r, (const char *)chunk + from, len, limit, on_line, user, &stop, err);
            from += len + 1;
        }
        memmove(chunk, chunk + from, have - from);
        have -= from;
        if (st == SLUICE_OK && !stop && have >= SLUICE_LEDGER_ENTRY_BYTES_MAX)
            st = damaged(l, r->end.seq + 1, r->good_bytes, "longer than an entry can be", err);
    }
    if (!stop)
        r->torn_bytes = have;
    sluice_free(l->al, chunk, CHUNK_BYTES + 1);
    return st;
}

/* ---- the head ------------------------------------------------------------------------------------ */

static void head_mac(const sluice_ledger *l, const position *at, uint8_t out[HASH_BYTES])
{
    uint8_t text[8 + HASH_BYTES];

    for (size_t i = 0; i < 8; i++)
        text[i] = (uint8_t)(at->seq >> (8 * i));
    memcpy(text + 8, at->hash, HASH_BYTES);
    sluice_blake2b(out, sluice_span_of(l->head_key, sizeof l->head_key), sluice_span_of(text, sizeof text));
}

static int format_head(const sluice_ledger *l, const position *at, char *out, size_t cap)
{
    char hash[HEX_LEN + 1], mac_hex[HEX_LEN + 1];
    uint8_t mac[HASH_BYTES];

    head_mac(l, at, mac);
    sluice_hex(hash, at->hash, HASH_BYTES);
    sluice_hex(mac_hex, mac, HASH_BYTES);
    return snprintf(out, cap, "{\"seq\":%llu,\"hash\":\"%s\",\"mac\":\"%s\"}\n", (unsigned long long)at->seq, hash, mac_hex);
}

static sluice_status write_head(const sluice_ledger *l, sluice_error *err)
{
    char text[HEAD_BYTES_MAX];
    int len = format_head(l, &l->end, text, sizeof text);

    return sluice_platform_write_file(l->platform, l->head_path, sluice_span_of(text, (size_t)len), err);
}

/* *out is the position that the head names, zeros when there is no head. */
static sluice_status read_head(const sluice_ledger *l, position *out, sluice_error *err)
{
    static const char seq_mark[] = "{\"seq\":", hash_mark[] = ",\"hash\":\"";
    char text[HEAD_BYTES_MAX], again[HEAD_BYTES_MAX], hex[HEX_LEN + 1];
    position at = { 0 };
    sluice_buf b;
    sluice_status st;
    size_t i = sizeof seq_mark - 1, len;
    bool is_good;

    memset(out, 0, sizeof *out);
    sluice_buf_init(&b, l->al, sizeof text - 1);
    st = sluice_platform_read_file(l->platform, l->head_path, sizeof text - 1, &b, err);
    len = b.len;
    if (st == SLUICE_OK && len > 0)
        memcpy(text, b.ptr, len);
    text[len] = '\0';
    sluice_buf_deinit(&b);
    if (st == SLUICE_ERR_NOT_FOUND) {
        sluice_error_clear(err);
        return SLUICE_OK;
    }
    if (st != SLUICE_OK && st != SLUICE_ERR_LIMIT)
        return st;

    /* Read number and hash, write the head that we would have written, compare: the mac is compared with the rest. */
    is_good = st == SLUICE_OK && strncmp(text, seq_mark, i) == 0;
    for (size_t digits = 0; is_good && text[i] >= '0' && text[i] <= '9' && digits < 19; i++, digits++)
        at.seq = at.seq * 10 + (uint64_t)(text[i] - '0');
    if (is_good && strncmp(text + i, hash_mark, sizeof hash_mark - 1) == 0 && len - i > sizeof hash_mark - 1 + HEX_LEN) {
        memcpy(hex, text + i + sizeof hash_mark - 1, HEX_LEN);
        hex[HEX_LEN] = '\0';
        is_good = sluice_unhex(at.hash, HASH_BYTES, hex) && (size_t)format_head(l, &at, again, sizeof again) == len && sluice_ct_eq(again, text, len);
    } else {
        is_good = false;
    }
    if (is_good && at.seq > 0) {
        *out = at;
        return SLUICE_OK;
    }
    st = sluice_error_set(err, SLUICE_ERR_INTEGRITY, "ledger: the head does not verify");
    sluice_error_where(err, l->head_path);
    sluice_error_hint(err, "the record was changed or its key was lost; keep a copy for inquiry, then move the state folder away to begin anew");
    return st;
}

/* Do the head and what was read belong together? */
static sluice_status check_head(const sluice_ledger *l, const reading *r, sluice_error *err)
{
    if (r->mark.seq > r->end.seq)
        return damaged(l, r->end.seq + 1, r->good_bytes, r->torn_why != NULL ? r->torn_why : "missing: the head has a later one", err);
    if (!r->mark_found)
        return damaged(l, r->mark.seq, r->good_bytes, "not the one that the head names", err);
    if (r->end.seq - r->mark.seq > 1)
        return damaged(l, r->mark.seq + 1, r->good_bytes, "more than one entry behind the head: the head is an old one, or was removed", err);
    return SLUICE_OK;
}

/* ---- open ---------------------------------------------------------------------------------------- */

static sluice_status open_paths(sluice_ledger *l, const char *state_dir, sluice_error *err)
{
    const sluice_platform *p = l->platform;
    char lock_path[PATH_CAP];
    sluice_status st = p->make_dir(p->user, state_dir, err);

    if (st == SLUICE_OK)
        st = sluice_path_join(l->path, sizeof l->path, state_dir, "ledger", err);
    if (st == SLUICE_OK)
        st = sluice_path_join(l->head_path, sizeof l->head_path, state_dir, "ledger.head", err);
    if (st == SLUICE_OK)
        st = sluice_path_join(lock_path, sizeof lock_path, state_dir, "ledger.lock", err);
    if (st == SLUICE_OK)
        st = p->file_open(p->user, &l->lock, lock_path, SLUICE_FILE_APPEND, err);
    if (st == SLUICE_OK)
        st = p->file_lock(p->user, l->lock, err);
    if (st == SLUICE_ERR_STATE)
        sluice_error_hint(err, "another instance has this state folder open; give each its own, or close the other");
    return st;
}

/* One key for each use, from the one that the platform keeps (RFC 5869). */
static sluice_status open_keys(sluice_ledger *l, const char *state_dir, sluice_error *err)
{
    uint8_t key[32], prk[32];
    sluice_status st = sluice_platform_key(l->platform, state_dir, "ledger", key, NULL, err);

    if (st == SLUICE_OK) {
        sluice_hkdf_sha256_extract(prk, SLUICE_SPAN_LIT("sluice ledger 1"), sluice_span_of(key, sizeof key));
        (void)sluice_hkdf_sha256_expand(l->mac_key, sizeof l->mac_key, prk, SLUICE_SPAN_LIT("entry"));
        (void)sluice_hkdf_sha256_expand(l->head_key, sizeof l->head_key, prk, SLUICE_SPAN_LIT("head"));
        (void)sluice_hkdf_sha256_expand(l->digest_key, sizeof l->digest_key, prk, SLUICE_SPAN_LIT("digest"));
        sluice_wipe(prk, sizeof prk);
    }
    sluice_wipe(key, sizeof key);
    return st;
}

/* Read the whole file; *exists says whether there is one. */
static sluice_status read_file(const sluice_ledger *l, reading *r, bool *exists, sluice_line_fn on_line, void *user, sluice_error *err)
{
    const sluice_platform *p = l->platform;
    sluice_file *f = NULL;
    uint64_t bytes = 0;
    sluice_status st = p->file_open(p->user, &f, l->path, SLUICE_FILE_READ, err);

    *exists = st != SLUICE_ERR_NOT_FOUND;
    if (st == SLUICE_ERR_NOT_FOUND) {
        sluice_error_clear(err);
        return SLUICE_OK;
    }
    if (st == SLUICE_OK)
        st = p->file_size(p->user, f, &bytes, err);
    if (st == SLUICE_OK)
        st = read_entries(l, f, bytes, r, on_line, user, err);
    if (f != NULL)
        p->file_close(p->user, f);
    return st;
}

/* Cut what a crash has left behind the last whole entry, write the head that it has kept from being written, and note the cut. */
static sluice_status mend(sluice_ledger *l, const reading *r, sluice_error *err)
{
    const sluice_platform *p = l->platform;
    const sluice_ledger_field fields[] = { { "bytes_cut", NULL, r->torn_bytes }, { "entries", NULL, r->end.seq } };
    sluice_status st = SLUICE_OK;

    if (r->torn_bytes > 0) {
        st = p->file_truncate(p->user, l->file, r->good_bytes, err);
        if (st == SLUICE_OK)
            st = p->file_sync(p->user, l->file, err);
    }
    if (st == SLUICE_OK && r->mark.seq != r->end.seq) {
        st = p->file_sync(p->user, l->file, err); /* the entry may never have been synced: the head must not be ahead of it */
        if (st == SLUICE_OK)
            st = write_head(l, err);
    }
    if (st == SLUICE_OK && r->torn_bytes > 0)
        st = sluice_ledger_append(l, "recovered", fields, 2, NULL, err);
    return st;
}

static sluice_status open_entries(sluice_ledger *l, sluice_error *err)
{
    const sluice_platform *p = l->platform;
    position head;
    reading r;
    bool exists = false;
    sluice_status st = read_head(l, &head, err);

    if (st != SLUICE_OK)
        return st;
    reading_init(&r, &head);
    st = read_file(l, &r, &exists, NULL, NULL, err);
    if (st != SLUICE_OK)
        return st;
    if (!exists && head.seq > 0)
        return damaged(l, 1, 0, "missing: there is a head, but no ledger", err);
    st = check_head(l, &r, err);
    if (st != SLUICE_OK)
        return st;
    l->end = r.end;
    l->bytes = r.good_bytes;
    l->time_max_ms = r.time_max_ms;
    st = p->file_open(p->user, &l->file, l->path, SLUICE_FILE_APPEND, err);
    return st == SLUICE_OK ? mend(l, &r, err) : st;
}

sluice_status sluice_ledger_open(sluice_ledger **out, const char *state_dir, const sluice_platform *platform, const sluice_allocator *al,
                                 sluice_error *err)
{
    sluice_ledger *l;
    sluice_status st;

    *out = NULL;
    if (state_dir == NULL || state_dir[0] == '\0')
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "ledger: no state folder");
    st = sluice_platform_check(platform, err);
    if (st == SLUICE_OK)
        st = sluice_crypto_init(err);
    if (st != SLUICE_OK)
        return st;
    l = sluice_alloc_zeroed(al, sizeof *l);
    if (l == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "ledger: no memory to open it");
    l->al = al;
    l->platform = platform;
    st = open_paths(l, state_dir, err);
    if (st == SLUICE_OK)
        st = open_keys(l, state_dir, err);
    if (st == SLUICE_OK)
        st = open_entries(l, err);
    if (st != SLUICE_OK) {
        sluice_ledger_close(l);
        return st;
    }
    sluice_error_clear(err); /* a key that was made just now was missed before */
    *out = l;
    return SLUICE_OK;
}

void sluice_ledger_close(sluice_ledger *l)
{
    if (l == NULL)
        return;
    l->platform->file_close(l->platform->user, l->file);
    l->platform->file_close(l->platform->user, l->lock);
    sluice_free_wiped(l->al, l, sizeof *l);
}

/* ---- append -------------------------------------------------------------------------------------- */

sluice_status sluice_ledger_append(sluice_ledger *l, const char *type, const sluice_ledger_field *fields, size_t n_fields, uint64_t *seq,
                                   sluice_error *err)
{
    const sluice_platform *p = l->platform;
    int64_t time_ms = sluice_wall_ms(p);
    sluice_buf line;
    sluice_status st;

    if (l->is_broken) {
        st = sluice_error_set(err, SLUICE_ERR_IO, "ledger: an earlier write failed, so nothing more is recorded until it is opened again");
        sluice_error_where(err, l->path);
        return st;
    }
    st = check_fields(type, fields, n_fields, err);
    if (st != SLUICE_OK)
        return st;
    if (time_ms > INT64_C(253402300799999)) /* beyond the year 9999: no clock */
        time_ms = -1;
    sluice_buf_init(&line, l->al, SLUICE_LEDGER_ENTRY_BYTES_MAX);
    st = write_line(l, time_ms, type, fields, n_fields, &line, err);
    if (st != SLUICE_OK)
        goto out;

    st = p->file_write(p->user, l->file, line.ptr, line.len, err);
    if (st == SLUICE_OK)
        st = p->file_sync(p->user, l->file, err);
    if (st != SLUICE_OK) {
        /* Its fate is not known.  Try to take it back, so that it does not come to light as something that was said to have failed. */
        l->is_broken = true;
        (void)p->file_truncate(p->user, l->file, l->bytes, NULL);
        goto out;
    }
    l->bytes += line.len;
    l->end.seq++;
    sluice_blake2b(l->end.hash, SLUICE_SPAN_EMPTY, sluice_span_of(line.ptr, line.len - 1));
    if (time_ms > l->time_max_ms)
        l->time_max_ms = time_ms;
    st = write_head(l, err);
    if (st != SLUICE_OK) {
        l->is_broken = true; /* the entry stays: were it cut now, a head that was written after all would be ahead of it */
        goto out;
    }
    if (seq != NULL)
        *seq = l->end.seq;
out:
    sluice_buf_deinit(&line);
    return st;
}

bool sluice_ledger_is_writable(const sluice_ledger *l)
{
    return l != NULL && !l->is_broken;
}

int64_t sluice_ledger_time_max(const sluice_ledger *l)
{
    return l->time_max_ms;
}

/* ---- read ---------------------------------------------------------------------------------------- */

/* While it is open a ledger has no torn tail, unless a write of its own has failed. */
static sluice_status check_tail(const sluice_ledger *l, const reading *r, sluice_error *err)
{
    if (l->is_broken || r->torn_bytes == 0)
        return SLUICE_OK;
    return damaged(l, r->end.seq + 1, r->good_bytes, r->torn_why != NULL ? r->torn_why : "bytes that this instance did not write", err);
}

sluice_status sluice_ledger_walk(sluice_ledger *l, sluice_line_fn on_line, void *user, sluice_error *err)
{
    reading r;
    bool exists;
    sluice_status st;

    reading_init(&r, NULL);
    st = read_file(l, &r, &exists, on_line, user, err);
    return st == SLUICE_OK ? check_tail(l, &r, err) : st;
}

sluice_status sluice_ledger_check(sluice_ledger *l, uint64_t *n_entries, sluice_error *err)
{
    position head;
    reading r;
    bool exists = false;
    sluice_status st = read_head(l, &head, err);

    if (n_entries != NULL)
        *n_entries = 0;
    if (st != SLUICE_OK)
        return st;
    reading_init(&r, &head);
    st = read_file(l, &r, &exists, NULL, NULL, err);
    if (st == SLUICE_OK)
        st = check_head(l, &r, err);
    /* What this instance has written is known better than any file: neither an older pair of files nor a younger one will do. */
    if (st == SLUICE_OK && !l->is_broken && (r.end.seq != l->end.seq || memcmp(r.end.hash, l->end.hash, HASH_BYTES) != 0))
        st = damaged(l, l->end.seq, r.good_bytes, "not what this instance wrote", err);
    if (st == SLUICE_OK)
        st = check_tail(l, &r, err);
    if (st == SLUICE_OK && n_entries != NULL)
        *n_entries = r.end.seq;
    return st;
}

void sluice_ledger_digest(const sluice_ledger *l, sluice_span data, uint8_t out[32])
{
    sluice_blake2b(out, sluice_span_of(l->digest_key, sizeof l->digest_key), data);
}
