/* consent.c - what the user has agreed to, as a projection of the ledger's "consent" entries.
 *
 * Four events make the state of a record: given and refused begin one, spent and withdrawn end it.  Every event is durable in the
 * ledger before it counts, but for those that take permission away: they count at once, written or not.
 *
 *     given ──► ACTIVE ──► EXPIRED     the clock's high-water mark passed valid_until_ms, or the session is over
 *                 ├──────► USED        scope once, spent by a grant
 *                 └──────► REVOKED     withdrawn
 *     refused ► REFUSED ─► REVOKED     (a refusal may be taken back, too: then nothing is known again)
 *
 * A consent covers a request exactly: the same purpose, the same endpoint, the text in the version that was
 * shown, and classes that include every class of the request.  There are no wildcards, no inheritance, no default.
 *
 * Time: a timed consent counts only while the wall clock is trusted and below its end, and the clock never runs backwards here: the
 * mark is the latest of all times seen by this store and written in the ledger.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "policies/consent.h"

#include <stdio.h>

#include "policies/data_class.h"
#include "sdk/base/json.h"
#include "sdk/crypto/crypto.h"

enum { RECORDS_MAX = 100000, ID_RANDOM_BYTES = 8, CLASSES_TEXT_CAP = 160, SESSION_HEX_LEN = 16 };

typedef struct record {
    sluice_consent consent; /* state: ACTIVE, REVOKED, REFUSED or USED as recorded; EXPIRED is found out when asked */
    bool is_refusal;        /* it began as one, also when it has been taken back */
    bool is_of_session;     /* scope session and given in this one */
    bool is_unwritten;      /* its withdrawal is not in the ledger */
} record;

struct sluice_consent_store {
    sluice_ledger *ledger;
    const sluice_platform *platform;
    const sluice_allocator *al;
    record *records;
    size_t n, cap;
    int64_t mark_ms;            /* the latest time known to have been */
    uint64_t mark_us;           /* monotonic, when mark_ms was true */
    uint64_t generation;
    char session[SESSION_HEX_LEN + 1];
};

static const char *const scope_names[] = { "once", "session", "until" };

/* ---- records ------------------------------------------------------------------------------------- */

static sluice_status reserve(sluice_consent_store *c, sluice_error *err)
{
    size_t cap = c->cap == 0 ? 16 : c->cap * 2;
    record *more;

    if (c->n < c->cap)
        return SLUICE_OK;
    if (c->n >= RECORDS_MAX)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "consent: more than %d records", RECORDS_MAX);
    more = sluice_alloc_array(c->al, cap, sizeof *more);
    if (more == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "consent: no memory for %zu records", cap);
    if (c->n > 0)
        memcpy(more, c->records, c->n * sizeof *more);
    sluice_free(c->al, c->records, c->cap * sizeof *more);
    c->records = more;
    c->cap = cap;
    return SLUICE_OK;
}

static record *find(sluice_consent_store *c, const char *id)
{
    for (size_t i = 0; id != NULL && i < c->n; i++)
        if (strcmp(c->records[i].consent.id, id) == 0)
            return &c->records[i];
    return NULL;
}

int64_t sluice_consent_clock(sluice_consent_store *c, int64_t now_ms)
{
    int64_t written = c->ledger != NULL ? sluice_ledger_time_max(c->ledger) : 0;
    const uint64_t now_us = sluice_now_us(c->platform);
    const uint64_t passed_ms = now_us > c->mark_us ? (now_us - c->mark_us) / 1000 : 0;

    /* Time passes at least as fast as the monotonic clock, whatever the wall clock was set to meanwhile. */
    if (c->mark_ms > 0)
        c->mark_ms += (int64_t)passed_ms;
    c->mark_us += passed_ms * 1000;
    if (now_ms < 0)
        return now_ms;
    if (written > c->mark_ms)
        c->mark_ms = written;
    if (now_ms > c->mark_ms)
        c->mark_ms = now_ms;
    return c->mark_ms;
}

/* The state at a time (< 0: not trusted, then only what is surely over is expired). */
static sluice_consent_state state_at(const record *r, int64_t clock_ms)
{
    const sluice_consent *k = &r->consent;

    if (k->state != SLUICE_CONSENT_ACTIVE)
        return k->state;
    if (k->scope == SLUICE_CONSENT_SESSION && !r->is_of_session)
        return SLUICE_CONSENT_EXPIRED;
    if (k->valid_until_ms != 0 && clock_ms >= k->valid_until_ms)
        return SLUICE_CONSENT_EXPIRED;
    return SLUICE_CONSENT_ACTIVE;
}

/* ---- from the ledger ----------------------------------------------------------------------------- */

typedef struct replay {
    sluice_consent_store *store;
    sluice_status status;
    sluice_error *err;
} replay;

static const char *text_of(const sluice_json *entry, const char *key)
{
    const sluice_json *v = sluice_json_get(entry, key);

    return v != NULL && v->kind == SLUICE_JSON_STRING ? v->string : "";
}

static int64_t number_of(const sluice_json *entry, const char *key)
{
    const sluice_json *v = sluice_json_get(entry, key);

    return v != NULL && v->kind == SLUICE_JSON_NUMBER && v->number >= -1.0 && v->number <= 9007199254740991.0 ? (int64_t)v->number : 0;
}

/* "prompt, email"; a name that this version does not know is left out, which narrows the consent. */
static sluice_data_classes classes_of(const char *text)
{
    sluice_data_classes set = 0;

    while (*text != '\0') {
        size_t len = strcspn(text, ",");

        set |= sluice_data_class_parse(sluice_span_of(text, len));
        text += len;
        text += strspn(text, ", ");
    }
    return set;
}

static sluice_status begin_record(sluice_consent_store *c, const sluice_json *entry, bool is_refusal, sluice_error *err)
{
    const char *scope = text_of(entry, "scope");
    sluice_consent *k;
    sluice_status st = reserve(c, err);

    if (st != SLUICE_OK)
        return st;
    memset(&c->records[c->n], 0, sizeof c->records[c->n]);
    k = &c->records[c->n].consent;
    k->size = sizeof *k;
    k->scope = SLUICE_CONSENT_SESSION; /* the narrowest for one that cannot be read: it is over */
    for (int i = 0; i < 3; i++)
        if (strcmp(scope, scope_names[i]) == 0)
            k->scope = (sluice_consent_scope)(i + 1);
    if (!sluice_copy_str(k->id, sizeof k->id, text_of(entry, "id")) || !sluice_copy_str(k->purpose, sizeof k->purpose, text_of(entry, "purpose"))
        || !sluice_copy_str(k->endpoint, sizeof k->endpoint, text_of(entry, "endpoint")) || k->id[0] == '\0')
        return sluice_error_set(err, SLUICE_ERR_INTEGRITY, "consent: entry %lld of the ledger has no usable names",
                                (long long)number_of(entry, "seq"));
    k->classes = classes_of(text_of(entry, "classes"));
    k->valid_until_ms = number_of(entry, "valid_until_ms");
    k->granted_ms = number_of(entry, "time_ms");
    k->text_version = (uint32_t)number_of(entry, "text_version");
    k->state = is_refusal ? SLUICE_CONSENT_REFUSED : SLUICE_CONSENT_ACTIVE;
    c->records[c->n].is_refusal = is_refusal;
    c->n++;
    return SLUICE_OK;
}

static sluice_status apply(sluice_consent_store *c, const sluice_json *entry, sluice_error *err)
{
    const char *event = text_of(entry, "event");
    record *r = find(c, text_of(entry, "id"));

    if (strcmp(event, "given") == 0 || strcmp(event, "refused") == 0) {
        if (r != NULL)
            return sluice_error_set(err, SLUICE_ERR_INTEGRITY, "consent: \"%.40s\" begins twice in the ledger", r->consent.id);
        return begin_record(c, entry, event[0] == 'r', err);
    }
    /* Whatever else befell a consent took it away: an event of a later version counts as a withdrawal. */
    if (r != NULL)
        r->consent.state = strcmp(event, "spent") == 0 && r->consent.state == SLUICE_CONSENT_ACTIVE ? SLUICE_CONSENT_USED : SLUICE_CONSENT_REVOKED;
    return SLUICE_OK;
}

static bool on_entry(const char *line, size_t len, void *user)
{
    static const char mark[] = ",\"type\":\"consent\",";
    replay *p = user;
    sluice_json_doc *doc = NULL;

    /* Quotes inside texts are escaped, so the mark stands only where the type does; most entries are of other types. */
    if (strstr(line, mark) == NULL)
        return true;
    p->status = sluice_json_parse(&doc, sluice_span_of(line, len), NULL, p->store->al, p->err);
    if (p->status == SLUICE_OK)
        p->status = apply(p->store, sluice_json_root(doc), p->err);
    sluice_json_close(doc);
    return p->status == SLUICE_OK;
}

static sluice_status random_hex(sluice_consent_store *c, char *out /* 17 bytes */, sluice_error *err)
{
    uint8_t bytes[ID_RANDOM_BYTES];
    sluice_status st = sluice_random(c->platform, bytes, sizeof bytes, err);

    if (st == SLUICE_OK)
        sluice_hex(out, bytes, sizeof bytes);
    return st;
}

sluice_status sluice_consent_open(sluice_consent_store **out, sluice_ledger *ledger, const sluice_platform *platform, const sluice_allocator *al,
                                  sluice_error *err)
{
    sluice_consent_store *c;
    replay p = { .status = SLUICE_OK, .err = err };
    sluice_status st;

    *out = NULL;
    if (platform == NULL)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "consent: no platform");
    c = sluice_alloc_zeroed(al, sizeof *c);
    if (c == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "consent: no memory for the store");
    c->ledger = ledger;
    c->platform = platform;
    c->al = al;
    p.store = c;
    (void)sluice_consent_clock(c, sluice_wall_ms(platform)); /* from here on time only goes forward */
    st = random_hex(c, c->session, err);
    if (st == SLUICE_OK && ledger != NULL) {
        st = sluice_ledger_walk(ledger, on_entry, &p, err);
        if (p.status != SLUICE_OK)
            st = p.status;
    }
    if (st != SLUICE_OK) {
        sluice_consent_close(c);
        return st;
    }
    *out = c;
    return SLUICE_OK;
}

void sluice_consent_close(sluice_consent_store *c)
{
    if (c == NULL)
        return;
    sluice_free(c->al, c->records, c->cap * sizeof *c->records);
    sluice_free(c->al, c, sizeof *c);
}

/* ---- giving and refusing ------------------------------------------------------------------------- */

static sluice_status needs_ledger(const sluice_consent_store *c, sluice_error *err)
{
    if (c->ledger != NULL)
        return SLUICE_OK;
    (void)sluice_error_set(err, SLUICE_ERR_STATE, "consent: there is no ledger to record it in");
    sluice_error_hint(err, "name a state folder that the app may write to");
    return SLUICE_ERR_STATE;
}

/* Record the beginning of `k` and keep it. */
static sluice_status begin(sluice_consent_store *c, const sluice_policy *policy, size_t purpose, sluice_consent *k, const char *event, char *id_out,
                           sluice_error *err)
{
    const sluice_policy_purpose *u = &policy->purposes[purpose];
    char classes[CLASSES_TEXT_CAP], text_hash[2 * SLUICE_BLAKE2B_BYTES + 1];
    uint8_t hash[SLUICE_BLAKE2B_BYTES];
    sluice_status st = reserve(c, err); /* first: what is in the ledger must be in memory */

    memcpy(k->id, "c-", 2);
    if (st == SLUICE_OK)
        st = random_hex(c, k->id + 2, err);
    if (st != SLUICE_OK)
        return st;
    k->size = sizeof *k;
    k->text_version = u->text_version;
    k->granted_ms = sluice_wall_ms(c->platform);
    sluice_data_class_list(k->classes, classes, sizeof classes);
    sluice_blake2b(hash, SLUICE_SPAN_EMPTY, sluice_span_str(u->text));
    sluice_hex(text_hash, hash, sizeof hash);
    {
        const sluice_ledger_field fields[] = {
            { "event", event, 0 }, { "id", k->id, 0 }, { "purpose", k->purpose, 0 }, { "text_version", NULL, k->text_version },
            { "text_hash", text_hash, 0 }, { "endpoint", k->endpoint, 0 }, { "classes", classes, 0 },
            { "policy", policy->id, 0 }, { "policy_version", NULL, policy->version }, { "session", c->session, 0 },
            { "scope", scope_names[k->scope - SLUICE_CONSENT_ONCE], 0 }, { "valid_until_ms", NULL, (uint64_t)k->valid_until_ms }
        };
        size_t n = sizeof fields / sizeof fields[0];

        st = sluice_ledger_append(c->ledger, "consent", fields, k->state == SLUICE_CONSENT_REFUSED ? n - 2 : n, NULL, err);
    }
    if (st != SLUICE_OK)
        return st;
    c->records[c->n++] =
        (record){ .consent = *k, .is_refusal = k->state == SLUICE_CONSENT_REFUSED, .is_of_session = k->scope == SLUICE_CONSENT_SESSION };
    if (id_out != NULL)
        (void)sluice_copy_str(id_out, SLUICE_ID_MAX, k->id);
    return SLUICE_OK;
}

static sluice_status check_classes(sluice_data_classes classes, sluice_error *err)
{
    if ((classes & ~(sluice_data_classes)SLUICE_CLASS_ALL) != 0)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "consent: a data class that is not known");
    if ((classes & SLUICE_CLASS_PROMPT) == 0) {
        (void)sluice_error_set(err, SLUICE_ERR_ARGUMENT, "consent: without the class \"prompt\" it would cover no request");
        sluice_error_hint(err, "add SLUICE_CLASS_PROMPT to classes: every request has the user's text");
        return SLUICE_ERR_ARGUMENT;
    }
    return SLUICE_OK;
}

sluice_status sluice_consent_add(sluice_consent_store *c, const sluice_policy *policy, const sluice_consent *consent, char *id_out, sluice_error *err)
{
    sluice_consent k;
    int purpose;
    int64_t clock;
    sluice_status st;

    if (id_out != NULL)
        id_out[0] = '\0';
    if (c == NULL || policy == NULL || consent == NULL)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "consent: no store, policy or consent");
    k = *consent;
    if (memchr(k.purpose, '\0', sizeof k.purpose) == NULL || memchr(k.endpoint, '\0', sizeof k.endpoint) == NULL)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "consent: an id without its end");
    purpose = k.purpose[0] != '\0' ? sluice_policy_find_purpose(policy, k.purpose) : -1;
    if (purpose < 0)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "consent: the policy has no purpose \"%.40s\"", k.purpose);
    if (sluice_policy_find_endpoint(policy, k.endpoint) < 0)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "consent: the policy has no endpoint \"%.40s\"", k.endpoint);
    st = check_classes(k.classes, err);
    if (st != SLUICE_OK)
        return st;
    if (k.scope < SLUICE_CONSENT_ONCE || k.scope > SLUICE_CONSENT_UNTIL)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "consent: scope %d is not known", (int)k.scope);
    st = needs_ledger(c, err);
    if (st != SLUICE_OK)
        return st;
    if (k.valid_until_ms != 0) {
        clock = sluice_consent_clock(c, sluice_wall_ms(c->platform));
        if (clock < 0)
            return sluice_error_set(err, SLUICE_ERR_STATE, "consent: the clock cannot be trusted, so none can be given until a time");
        if (k.valid_until_ms <= clock || k.valid_until_ms > INT64_C(253402300799999))
            return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "consent: valid_until_ms is past, or beyond the year 9999");
    }
    k.state = SLUICE_CONSENT_ACTIVE;
    return begin(c, policy, (size_t)purpose, &k, "given", id_out, err);
}

sluice_status sluice_consent_refuse(sluice_consent_store *c, const sluice_policy *policy, size_t purpose, size_t endpoint,
                                    sluice_data_classes classes, sluice_error *err)
{
    sluice_consent k = { .scope = SLUICE_CONSENT_UNTIL, .state = SLUICE_CONSENT_REFUSED };
    sluice_status st;

    if (c == NULL || policy == NULL || purpose >= policy->n_purposes || endpoint >= policy->n_endpoints)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "consent: no such purpose or endpoint");
    k.classes = classes;
    (void)sluice_copy_str(k.purpose, sizeof k.purpose, policy->purposes[purpose].id);
    (void)sluice_copy_str(k.endpoint, sizeof k.endpoint, policy->endpoints[endpoint].id);
    st = check_classes(classes, err);
    if (st == SLUICE_OK)
        st = needs_ledger(c, err);
    if (st == SLUICE_OK)
        st = begin(c, policy, purpose, &k, "refused", NULL, err);
    if (st == SLUICE_OK)
        c->generation++;
    return st;
}

/* ---- taking away --------------------------------------------------------------------------------- */

sluice_status sluice_consent_withdraw(sluice_consent_store *c, const char *id, sluice_error *err)
{
    record *r;
    sluice_status st;

    if (c == NULL || id == NULL)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "consent: no id");
    r = find(c, id);
    if (r == NULL)
        return sluice_error_set(err, SLUICE_ERR_NOT_FOUND, "consent: there is none with this id");
    if (r->consent.state == SLUICE_CONSENT_REVOKED && !r->is_unwritten)
        return SLUICE_OK;
    r->consent.state = SLUICE_CONSENT_REVOKED; /* at once, whatever becomes of the writing */
    r->is_unwritten = true;
    c->generation++;
    st = needs_ledger(c, err);
    if (st == SLUICE_OK) {
        const sluice_ledger_field fields[] = { { "event", "withdrawn", 0 }, { "id", r->consent.id, 0 }, { "session", c->session, 0 } };

        st = sluice_ledger_append(c->ledger, "consent", fields, sizeof fields / sizeof fields[0], NULL, err);
    }
    r->is_unwritten = st != SLUICE_OK;
    return st;
}

sluice_status sluice_consent_spend(sluice_consent_store *c, size_t index, sluice_error *err)
{
    record *r;
    sluice_status st;

    if (c == NULL || index >= c->n)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "consent: no such consent");
    r = &c->records[index];
    if (r->consent.scope != SLUICE_CONSENT_ONCE)
        return SLUICE_OK;
    if (r->consent.state != SLUICE_CONSENT_ACTIVE)
        return sluice_error_set(err, SLUICE_ERR_CONSENT, "consent: it has been used, or withdrawn");
    r->consent.state = SLUICE_CONSENT_USED; /* also when it cannot be written: rather once too few */
    st = needs_ledger(c, err);
    if (st == SLUICE_OK) {
        const sluice_ledger_field fields[] = { { "event", "spent", 0 }, { "id", r->consent.id, 0 }, { "session", c->session, 0 } };

        st = sluice_ledger_append(c->ledger, "consent", fields, sizeof fields / sizeof fields[0], NULL, err);
    }
    return st;
}

/* ---- asking -------------------------------------------------------------------------------------- */

size_t sluice_consent_count(const sluice_consent_store *c)
{
    return c != NULL ? c->n : 0;
}

void sluice_consent_get(sluice_consent_store *c, size_t i, sluice_consent *out)
{
    memset(out, 0, sizeof *out);
    out->size = sizeof *out;
    if (c == NULL || i >= c->n)
        return;
    *out = c->records[i].consent;
    out->state = state_at(&c->records[i], sluice_consent_clock(c, sluice_wall_ms(c->platform)));
}

uint64_t sluice_consent_generation(const sluice_consent_store *c)
{
    return c->generation;
}

/* Does this refusal speak of a request with these classes?  Who refused to send less refused to send more. */
static bool refuses(const record *r, const char *purpose, const char *endpoint, sluice_data_classes classes)
{
    return r->consent.state == SLUICE_CONSENT_REFUSED && (r->consent.classes & ~classes) == 0 && strcmp(r->consent.purpose, purpose) == 0
           && strcmp(r->consent.endpoint, endpoint) == 0;
}

sluice_reason sluice_consent_stands(const sluice_consent_store *c, size_t index, sluice_data_classes classes)
{
    const sluice_consent *k;

    if (c == NULL || index >= c->n || c->records[index].consent.state == SLUICE_CONSENT_REVOKED)
        return SLUICE_REASON_CONSENT_REVOKED;
    k = &c->records[index].consent;
    for (size_t i = index + 1; i < c->n; i++)
        if (refuses(&c->records[i], k->purpose, k->endpoint, classes))
            return SLUICE_REASON_CONSENT_REFUSED;
    return SLUICE_REASON_PERMITTED;
}

/* Why this record, which is about the same purpose, endpoint and classes, does or does not permit. */
static sluice_reason reason_of(const record *r, const sluice_policy_purpose *purpose, int64_t clock_ms)
{
    switch (state_at(r, clock_ms)) {
    case SLUICE_CONSENT_ACTIVE:
        break;
    case SLUICE_CONSENT_EXPIRED:
        return SLUICE_REASON_CONSENT_EXPIRED;
    case SLUICE_CONSENT_REVOKED:
        return SLUICE_REASON_CONSENT_REVOKED;
    case SLUICE_CONSENT_REFUSED:
    case SLUICE_CONSENT_USED:
    default:
        return SLUICE_REASON_CONSENT_MISSING;
    }
    if (r->consent.text_version != purpose->text_version)
        return SLUICE_REASON_CONSENT_MISSING;
    if (r->consent.valid_until_ms != 0 && clock_ms < 0)
        return SLUICE_REASON_CLOCK_UNTRUSTED;
    return SLUICE_REASON_PERMITTED;
}

sluice_reason sluice_consent_covers(sluice_consent_store *c, const sluice_policy *policy, size_t purpose, size_t endpoint,
                                    sluice_data_classes classes, int64_t now_ms, size_t *index)
{
    sluice_reason why = SLUICE_REASON_CONSENT_MISSING;
    bool has_why = false;
    int64_t clock_ms;

    if (index != NULL)
        *index = SIZE_MAX;
    if (c == NULL || policy == NULL || purpose >= policy->n_purposes || endpoint >= policy->n_endpoints)
        return SLUICE_REASON_CONSENT_MISSING;
    if (classes == 0 || (classes & ~(sluice_data_classes)SLUICE_CLASS_ALL) != 0)
        return SLUICE_REASON_CLASS_UNKNOWN;
    clock_ms = sluice_consent_clock(c, now_ms);

    /* Newest first: the last word counts. */
    for (size_t i = c->n; i-- > 0;) {
        const record *r = &c->records[i];
        sluice_reason reason;

        if (refuses(r, policy->purposes[purpose].id, policy->endpoints[endpoint].id, classes))
            return has_why ? why : SLUICE_REASON_CONSENT_REFUSED;
        if (r->is_refusal || (classes & ~r->consent.classes) != 0
            || strcmp(r->consent.purpose, policy->purposes[purpose].id) != 0 || strcmp(r->consent.endpoint, policy->endpoints[endpoint].id) != 0)
            continue;
        reason = reason_of(r, &policy->purposes[purpose], clock_ms);
        if (reason == SLUICE_REASON_PERMITTED) {
            if (index != NULL)
                *index = i;
            return reason;
        }
        if (!has_why) {
            why = reason;
            has_why = true;
        }
    }
    return why;
}
