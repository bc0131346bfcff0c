/* policy_parse.c - read a policy file strictly: whatever is not understood is an error, with its line and a suggestion.
 *
 * The JSON reader has refused what is not exactly JSON (bytes after the value, duplicate keys, NUL, bad UTF-8, depth, size)
 * before anything here runs.  Here every object is checked against the list of its fields, every value against type and
 * range, every name against what is defined.  Reading goes on after an error, so that one run shows all of them;
 * the policy is handed out only when there was none, so a bad file leaves whatever was in force before.
 *
 * docs/policy.md describes the format and each finding; policies/policy.schema.json is the same for editors.  A test keeps the
 * three in step.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "policies/policy_internal.h"

#include <stdio.h>

#include "policies/data_class.h"
#include "sdk/crypto/crypto.h"

enum {
    ARENA_BYTES_MAX = 8 << 20,   /* the file's strings and sixteen bundles of trust anchors */
    CA_BYTES_MAX = 256 << 10,
    KEY_CONFIG_BYTES_MAX = 8192,
    URL_LEN_MAX = 512, TARGET_LEN_MAX = 256, NAME_LEN_MAX = 128, TEXT_LEN_MAX = 2000,
    QUOTE_LEN_MAX = 40           /* of a foreign string in a message */
};
static const double version_max = 9007199254740991.0; /* the largest integer that every JSON reader holds exactly */

/* ---- findings ------------------------------------------------------------------------------------ */

static sluice_status status_of(sluice_policy_code code)
{
    if (code == P_TOO_LARGE || code == P_TOO_MANY)
        return SLUICE_ERR_LIMIT;
    return code >= P_DUPLICATE_ID ? SLUICE_ERR_POLICY : SLUICE_ERR_FORMAT;
}

/* "P001" …, in static storage, so that a finding may be kept. */
static const char *code_name(sluice_policy_code code)
{
    static const char *const names[] = {
        [1] = "P001", [2] = "P002", [3] = "P003", [4] = "P004",
        [10] = "P010", [11] = "P011", [12] = "P012", [13] = "P013", [14] = "P014", [15] = "P015", [16] = "P016", [17] = "P017", [18] = "P018",
        [19] = "P019", [20] = "P020", [21] = "P021", [22] = "P022", [23] = "P023", [24] = "P024", [25] = "P025", [26] = "P026",
        [30] = "P030", [31] = "P031", [32] = "P032", [33] = "P033", [34] = "P034", [35] = "P035", [36] = "P036", [37] = "P037",
        [101] = "P101", [102] = "P102", [103] = "P103", [104] = "P104", [105] = "P105", [106] = "P106", [107] = "P107", [108] = "P108",
        [109] = "P109", [110] = "P110", [111] = "P111"
    };

    return names[code];
}

void sluice_policy_report(sluice_policy_reader *r, sluice_policy_code code, size_t offset, const char *hint, const char *fmt, ...)
{
    sluice_policy_finding f = { .is_error = code < P_NO_RULES };
    va_list args;

    if (r->n_findings >= SLUICE_POLICY_FINDINGS_MAX && !(f.is_error && r->status == SLUICE_OK))
        return; /* but the first error always counts */
    r->n_findings++;
    f.code = code_name(code);
    sluice_json_place(r->text, offset, &f.line, &f.column);
    va_start(args, fmt);
    (void)vsnprintf(f.message, sizeof f.message, fmt, args);
    va_end(args);
    (void)sluice_copy_str(f.hint, sizeof f.hint, hint);
    if (f.is_error && r->status == SLUICE_OK) {
        r->status = sluice_error_set(r->err, status_of(code), "policy: %s (%s)", f.message, f.code);
        sluice_error_line(r->err, f.line, f.column);
        sluice_error_offset(r->err, offset);
        if (hint[0] != '\0')
            sluice_error_hint(r->err, "%s", hint);
    }
    if (r->on_finding != NULL)
        r->on_finding(&f, r->finding_user);
}

/* A foreign string for a message: printable ASCII, cut short. */
typedef struct quoted { char text[QUOTE_LEN_MAX + 4]; } quoted;

static quoted quote(const char *s)
{
    quoted q;
    size_t n = 0;

    for (; *s != '\0' && n < QUOTE_LEN_MAX; s++)
        q.text[n++] = *s >= 0x20 && *s < 0x7f ? *s : '?';
    (void)snprintf(q.text + n, sizeof q.text - n, "%s", *s != '\0' ? "..." : "");
    return q;
}

static const char *kind_name(sluice_json_kind kind)
{
    static const char *const names[] = { "null", "true or false", "a number", "a string", "a list", "an object" };

    return names[kind];
}

/* ---- did you mean -------------------------------------------------------------------------------- */

static char fold(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c == '-' ? '_' : c; }

/* Edit distance with case and '-' against '_' forgiven; words longer than 31 are not compared. */
static size_t distance(const char *a, const char *b)
{
    enum { CAP = 32 };
    size_t row[CAP], n = strlen(a), m = strlen(b);

    if (n >= CAP || m >= CAP)
        return CAP;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = diagonal + (fold(a[i - 1]) != fold(b[j - 1]));

            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[m];
}

/* The nearest known word, where it is near enough to be what was meant; then the list, where it is short. */
typedef struct suggestion { const char *best; size_t best_distance; char hint[160]; } suggestion;

static void suggest_word(suggestion *s, const char *given, const char *known)
{
    size_t d = distance(given, known);

    if (d < s->best_distance && d <= 1 + strlen(known) / 4) {
        s->best = known;
        s->best_distance = d;
    }
}

static const char *suggest_end(suggestion *s)
{
    if (s->best != NULL)
        (void)snprintf(s->hint, sizeof s->hint, "did you mean \"%s\"?", s->best);
    return s->hint;
}
#define SUGGESTION_INIT { NULL, SIZE_MAX, "" }

static const char *suggest(suggestion *s, const char *given, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        suggest_word(s, given, words[i]);
    if (s->best == NULL) {
        size_t len = (size_t)snprintf(s->hint, sizeof s->hint, "one of");

        for (size_t i = 0; i < n && len < sizeof s->hint; i++)
            len += (size_t)snprintf(s->hint + len, sizeof s->hint - len, "%s %s", i > 0 ? "," : "", words[i]);
        if (len >= sizeof s->hint)
            s->hint[0] = '\0';
    }
    return suggest_end(s);
}

/* ---- objects and their fields -------------------------------------------------------------------- */

typedef struct field { const char *name; bool is_required; } field;

/* Is the value an object with known fields alone, and all that are required? */
static bool read_object(sluice_policy_reader *r, const sluice_json *v, const char *what, const field *fields, size_t n_fields)
{
    if (v->kind != SLUICE_JSON_OBJECT) {
        sluice_policy_report(r, P_WRONG_TYPE, v->offset, "", "%s must be an object, not %s", what, kind_name(v->kind));
        return false;
    }
    for (const sluice_json *c = v->child; c != NULL; c = c->next) {
        suggestion s = SUGGESTION_INIT;
        size_t i = 0;

        while (i < n_fields && strcmp(fields[i].name, c->key) != 0)
            suggest_word(&s, c->key, fields[i++].name);
        if (i == n_fields)
            sluice_policy_report(r, P_UNKNOWN_FIELD, c->key_offset, suggest_end(&s), "unknown field \"%s\" in %s", quote(c->key).text, what);
    }
    for (size_t i = 0; i < n_fields; i++)
        if (fields[i].is_required && sluice_json_get(v, fields[i].name) == NULL)
            sluice_policy_report(r, P_MISSING_FIELD, v->offset, "", "%s lacks \"%s\"", what, fields[i].name);
    return true;
}
#define READ_OBJECT(r, v, what, fields) read_object((r), (v), (what), (fields), sizeof(fields) / sizeof((fields)[0]))

/* The field of that kind; NULL when it is missing, or of another kind, which is reported. */
static const sluice_json *get(sluice_policy_reader *r, const sluice_json *object, const char *key, sluice_json_kind kind)
{
    const sluice_json *v = sluice_json_get(object, key);

    if (v != NULL && v->kind != kind) {
        sluice_policy_report(r, P_WRONG_TYPE, v->offset, "", "\"%s\" must be %s, not %s", key, kind_name(kind), kind_name(v->kind));
        return NULL;
    }
    return v;
}

static char *keep(sluice_policy_reader *r, const char *ptr, size_t len)
{
    char *copy = sluice_arena_strdup(&r->policy->arena, sluice_span_of(ptr, len));

    if (copy == NULL)
        r->is_out_of_memory = true;
    return copy;
}

/* An integer in [min, max]; *out stays as it is when the field is missing or wrong. */
static bool get_integer(sluice_policy_reader *r, const sluice_json *object, const char *key, double min, double max, double *out)
{
    const sluice_json *v = get(r, object, key, SLUICE_JSON_NUMBER);

    if (v == NULL)
        return false;
    if (!(v->number >= min && v->number <= max) || v->number != (double)(int64_t)v->number) {
        sluice_policy_report(r, P_OUT_OF_RANGE, v->offset, "", "\"%s\" must be a whole number from %.0f to %.0f", key, min, max);
        return false;
    }
    *out = v->number;
    return true;
}

static void get_u32(sluice_policy_reader *r, const sluice_json *object, const char *key, uint32_t min, uint32_t max, uint32_t *out)
{
    double v;

    if (get_integer(r, object, key, min, max, &v))
        *out = (uint32_t)v;
}

static bool get_share(sluice_policy_reader *r, const sluice_json *object, const char *key, float *out)
{
    const sluice_json *v = get(r, object, key, SLUICE_JSON_NUMBER);

    if (v == NULL)
        return false;
    if (!(v->number >= 0.0 && v->number <= 1.0)) {
        sluice_policy_report(r, P_OUT_OF_RANGE, v->offset, "", "\"%s\" must be from 0 to 1", key);
        return false;
    }
    *out = (float)v->number;
    return true;
}

/* One of the words; its index, or -1 when missing or wrong. */
static int get_word(sluice_policy_reader *r, const sluice_json *object, const char *key, const char *const *words, size_t n)
{
    const sluice_json *v = get(r, object, key, SLUICE_JSON_STRING);
    suggestion s = SUGGESTION_INIT;

    if (v == NULL)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (strcmp(v->string, words[i]) == 0)
            return (int)i;
    sluice_policy_report(r, P_UNKNOWN_WORD, v->offset, suggest(&s, v->string, words, n), "\"%s\" may not be \"%s\"", key, quote(v->string).text);
    return -1;
}
#define GET_WORD(r, object, key, words) get_word((r), (object), (key), (words), sizeof(words) / sizeof((words)[0]))

/* Text without control characters (line feeds where they are allowed), 1 to max bytes. */
static const char *get_text(sluice_policy_reader *r, const sluice_json *object, const char *key, size_t max, bool may_have_lines)
{
    const sluice_json *v = get(r, object, key, SLUICE_JSON_STRING);

    if (v == NULL)
        return NULL;
    if (v->string_len < 1 || v->string_len > max) {
        sluice_policy_report(r, P_OUT_OF_RANGE, v->offset, "", "\"%s\" must have 1 to %zu bytes", key, max);
        return NULL;
    }
    for (const char *c = v->string; *c != '\0'; c++)
        if ((uint8_t)*c == 0x7f || ((uint8_t)*c < 0x20 && !(may_have_lines && *c == '\n'))) {
            sluice_policy_report(r, P_BAD_TEXT, v->offset, "", "\"%s\" holds a control character", key);
            return NULL;
        }
    return keep(r, v->string, v->string_len);
}

static bool is_id_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

static const char *get_id(sluice_policy_reader *r, const sluice_json *object)
{
    const sluice_json *v = get(r, object, "id", SLUICE_JSON_STRING);
    bool is_good;

    if (v == NULL)
        return NULL;
    is_good = v->string_len >= 1 && v->string_len < SLUICE_ID_MAX && v->string[0] != '.' && v->string[0] != '-';
    for (const char *c = v->string; is_good && *c != '\0'; c++)
        is_good = is_id_byte(*c);
    if (!is_good) {
        sluice_policy_report(r, P_BAD_ID, v->offset, "1 to 63 of a-z A-Z 0-9 . _ -, beginning with a letter, a digit or _", "\"%s\" is not an id",
                             quote(v->string).text);
        return NULL;
    }
    return keep(r, v->string, v->string_len);
}

/* The list in a field, with 1 to max items (or 0, where an empty list says something); NULL when missing or wrong. */
static const sluice_json *get_list(sluice_policy_reader *r, const sluice_json *object, const char *key, size_t max, bool may_be_empty)
{
    const sluice_json *v = get(r, object, key, SLUICE_JSON_ARRAY);

    if (v == NULL)
        return NULL;
    if (v->n_children > max) {
        sluice_policy_report(r, P_TOO_MANY, v->offset, "", "\"%s\" has %zu items, at most %zu are possible", key, v->n_children, max);
        return NULL;
    }
    if (v->n_children == 0 && !may_be_empty) {
        sluice_policy_report(r, P_EMPTY_LIST, v->offset, "", "\"%s\" is empty", key);
        return NULL;
    }
    return v;
}

/* ---- dates, addresses, keys ---------------------------------------------------------------------- */

static bool two_digits(const char *s, uint32_t min, uint32_t max, uint32_t *out)
{
    if (s[0] < '0' || s[0] > '9' || s[1] < '0' || s[1] > '9')
        return false;
    *out = (uint32_t)(s[0] - '0') * 10 + (uint32_t)(s[1] - '0');
    return *out >= min && *out <= max;
}

/* RFC 3339 in UTC, whole seconds: 2027-01-31T00:00:00Z.  Days are counted from 1 March, so that the leap day comes last. */
static bool parse_date(const char *s, size_t len, int64_t *out_ms)
{
    static const uint8_t days_in[12] = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    uint32_t century, in_century, year, month, day, hour, minute, second, months_on, day_of_year;
    bool is_leap;
    int64_t days;

    if (len != 20 || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' || s[19] != 'Z')
        return false;
    if (!two_digits(s, 19, 99, &century) || !two_digits(s + 2, 0, 99, &in_century) || !two_digits(s + 5, 1, 12, &month) ||
        !two_digits(s + 8, 1, 31, &day) || !two_digits(s + 11, 0, 23, &hour) || !two_digits(s + 14, 0, 59, &minute) ||
        !two_digits(s + 17, 0, 59, &second))
        return false;
    year = century * 100 + in_century;
    is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (year < 1970 || day > days_in[month - 1] || (month == 2 && day == 29 && !is_leap))
        return false;
    if (month < 3)
        year--;
    months_on = (month + 9) % 12;
    day_of_year = (153 * months_on + 2) / 5 + day - 1;
    days = (int64_t)year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719468;
    *out_ms = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000;
    return true;
}

static void read_expires(sluice_policy_reader *r, const sluice_json *root)
{
    const sluice_json *v = get(r, root, "expires", SLUICE_JSON_STRING);

    if (v != NULL && !parse_date(v->string, v->string_len, &r->policy->expires_ms))
        sluice_policy_report(r, P_BAD_DATE, v->offset, "write UTC with whole seconds, as in 2027-01-31T00:00:00Z", "\"expires\" is not a time");
}

/* Length of host[:port] (RFC 3986, 3.2.2, without userinfo), 0 when it is none.  A host is a DNS name, an IPv4 address or an IPv6
 * address in brackets; what stands for it is compared by the TLS stack later, so the shape is enough here. */
static size_t authority_len(const char *s)
{
    const char *c = s;
    uint32_t port = 0;

    if (*c == '[') {
        c++;
        while ((*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'f') || (*c >= 'A' && *c <= 'F') || *c == ':' || *c == '.')
            c++;
        if (*c != ']' || c - s < 3)
            return 0;
        c++;
    } else {
        char before = '.';

        while ((is_id_byte(*c) && *c != '_') && !(*c == '.' && before == '.') && !(*c == '-' && before == '.'))
            before = *c++;
        if (c == s || before == '.' || before == '-')
            return 0;
    }
    if (*c == ':') {
        const char *digits = ++c;

        while (*c >= '0' && *c <= '9' && port <= 65535)
            port = port * 10 + (uint32_t)(*c++ - '0');
        if (c == digits || *digits == '0' || port > 65535)
            return 0;
    }
    return (size_t)(c - s);
}

static bool is_path(const char *s) /* "/…" of visible ASCII, without a fragment; a backslash or quote would be somebody's trick */
{
    if (*s != '/')
        return false;
    for (; *s != '\0'; s++)
        if (*s <= 0x20 || *s >= 0x7f || strchr("#\\\"<>^`{|}", *s) != NULL)
            return false;
    return true;
}

static const char *get_url(sluice_policy_reader *r, const sluice_json *object)
{
    const sluice_json *v = get(r, object, "url", SLUICE_JSON_STRING);
    const char *why = NULL;
    size_t len;

    if (v == NULL)
        return NULL;
    if (strncmp(v->string, "https://", 8) != 0) {
        why = "it must begin with https://";
    } else if (v->string_len > URL_LEN_MAX) {
        why = "it is too long";
    } else {
        len = authority_len(v->string + 8);
        if (strchr(v->string, '@') != NULL)
            why = "it may not carry a user or an @";
        else if (strchr(v->string, '#') != NULL)
            why = "it may not have a fragment";
        else if (len == 0 || len > 255)
            why = "its host or port is malformed";
        else if (!is_path(v->string + 8 + len))
            why = "its path must begin with / and be visible ASCII";
    }
    if (why != NULL) {
        sluice_policy_report(r, P_BAD_URL, v->offset, "https://gateway.example/ohttp is the shape", "\"url\" is refused: %s", why);
        return NULL;
    }
    return keep(r, v->string, v->string_len);
}

static void read_target(sluice_policy_reader *r, const sluice_json *endpoint, sluice_policy_endpoint *e)
{
    static const field fields[] = { { "authority", true }, { "path", true } };
    const sluice_json *target = sluice_json_get(endpoint, "target"), *v;

    if (target == NULL || !READ_OBJECT(r, target, "\"target\"", fields))
        return;
    v = get(r, target, "authority", SLUICE_JSON_STRING);
    if (v != NULL) {
        if (v->string_len < 1 || v->string_len > TARGET_LEN_MAX || authority_len(v->string) != v->string_len)
            sluice_policy_report(r, P_BAD_TARGET, v->offset, "host or host:port, as in api.example.com", "\"authority\" is malformed");
        else
            e->target_authority = keep(r, v->string, v->string_len);
    }
    v = get(r, target, "path", SLUICE_JSON_STRING);
    if (v != NULL) {
        if (v->string_len > TARGET_LEN_MAX || !is_path(v->string))
            sluice_policy_report(r, P_BAD_TARGET, v->offset, "as in /v1/chat/completions", "\"path\" is malformed");
        else
            e->target_path = keep(r, v->string, v->string_len);
    }
}

static void read_pins(sluice_policy_reader *r, const sluice_json *endpoint, sluice_policy_endpoint *e)
{
    static const char prefix[] = "sha256//";
    const sluice_json *list = get_list(r, endpoint, "spki_pins", SLUICE_POLICY_PINS_MAX, false);

    for (const sluice_json *v = list != NULL ? list->child : NULL; v != NULL; v = v->next) {
        uint8_t digest[SLUICE_SHA256_BYTES];
        size_t len = 0;
        const char *pin;
        bool is_repeated = false;

        if (v->kind != SLUICE_JSON_STRING || strncmp(v->string, prefix, sizeof prefix - 1) != 0
            || !sluice_unbase64(digest, sizeof digest, &len, sluice_span_str(v->string + sizeof prefix - 1)) || len != sizeof digest) {
            sluice_policy_report(r, P_BAD_PIN, v->offset, "sha256// and the base64 of the SHA-256 of the key (SubjectPublicKeyInfo)",
                                 "an item of \"spki_pins\" is not a pin");
            continue;
        }
        pin = keep(r, v->string + sizeof prefix - 1, v->string_len - (sizeof prefix - 1));
        if (pin == NULL)
            return;
        for (size_t i = 0; i < e->n_spki_pins; i++)
            is_repeated = is_repeated || strcmp(e->spki_pins[i], pin) == 0;
        if (is_repeated)
            sluice_policy_report(r, P_REPEATED_ITEM, v->offset, "a backup pin is the pin of another key", "a pin is there twice");
        else
            e->spki_pins[e->n_spki_pins++] = pin;
    }
}

/* application/ohttp-keys (RFC 9458, 3.2): each configuration with its length in front; 3.1: id, KEM, key, length, KDF and AEAD pairs.
 * At least one must be for X25519 (0x0020), the one that every client can seal to; others are passed over here. */
static bool is_key_config(const uint8_t *c, size_t len)
{
    enum { KEM_X25519 = 0x0020, HEAD_BYTES = 3, LIST_LEN_BYTES = 2 };
    bool has_x25519 = false;
    size_t at = 0;

    while (at < len) {
        size_t config_len, key_end, list_len;
        const uint8_t *config;

        if (len - at < 2)
            return false;
        config_len = (size_t)c[at] << 8 | c[at + 1];
        at += 2;
        if (config_len < HEAD_BYTES || config_len > len - at)
            return false;
        config = c + at;
        at += config_len;
        if (((unsigned)config[1] << 8 | config[2]) != KEM_X25519)
            continue;
        key_end = HEAD_BYTES + SLUICE_X25519_BYTES;
        if (config_len < key_end + LIST_LEN_BYTES)
            return false;
        list_len = (size_t)config[key_end] << 8 | config[key_end + 1];
        if (list_len == 0 || list_len % 4 != 0 || key_end + LIST_LEN_BYTES + list_len != config_len)
            return false;
        has_x25519 = true;
    }
    return has_x25519;
}

static void read_key_config(sluice_policy_reader *r, const sluice_json *endpoint, sluice_policy_endpoint *e)
{
    const sluice_json *v = get(r, endpoint, "key_config", SLUICE_JSON_STRING);
    size_t cap, len = 0;
    uint8_t *bytes;

    if (v == NULL)
        return;
    cap = v->string_len / 4 * 3 + 3;
    if (cap > KEY_CONFIG_BYTES_MAX) {
        sluice_policy_report(r, P_OUT_OF_RANGE, v->offset, "", "\"key_config\" is too long");
        return;
    }
    bytes = sluice_arena_alloc(&r->policy->arena, cap);
    if (bytes == NULL) {
        r->is_out_of_memory = true;
        return;
    }
    if (!sluice_unbase64(bytes, cap, &len, sluice_span_of(v->string, v->string_len)) || !is_key_config(bytes, len)) {
        sluice_policy_report(r, P_BAD_KEY_CONFIG, v->offset, "base64 of what the gateway serves as application/ohttp-keys (RFC 9458, 3.2)",
                             "\"key_config\" holds no usable key configuration");
        return;
    }
    e->key_config = bytes;
    e->key_config_len = len;
}

static const char *check_pem(sluice_policy_reader *r, size_t offset, const char *what, const char *ptr, size_t len)
{
    const char *pem = keep(r, ptr, len);
    const char *begin, *why = NULL;

    if (pem == NULL)
        return NULL;
    begin = strstr(pem, "-----BEGIN CERTIFICATE-----");
    if (strlen(pem) != len)
        why = "it is not text";
    else if (strstr(pem, "PRIVATE KEY") != NULL)
        why = "it holds a private key";
    else if (begin == NULL || strstr(begin, "-----END CERTIFICATE-----") == NULL)
        why = "it holds no certificate";
    if (why == NULL)
        return pem;
    sluice_policy_report(r, P_BAD_PEM, offset, "PEM text of the certificates that may sign for this endpoint", "%s is refused: %s", what, why);
    return NULL;
}

static void read_ca_file(sluice_policy_reader *r, const sluice_json *v, sluice_policy_endpoint *e)
{
    sluice_error why = SLUICE_ERROR_INIT;
    sluice_status st;
    sluice_buf file;

    if (v->string_len == 0 || v->string[0] == '/' || strstr(v->string, "..") != NULL || strpbrk(v->string, "\\:") != NULL) {
        sluice_policy_report(r, P_CA_FILE, v->offset, "name a file in or below the folder of the policy", "\"ca_file\" is not a plain relative path");
        return;
    }
    if (r->read_file == NULL) {
        sluice_policy_report(r, P_CA_FILE, v->offset, "put the text into \"ca_pem\"",
                             "\"ca_file\" cannot be used here: the policy did not come from a file");
        return;
    }
    sluice_buf_init(&file, r->al, CA_BYTES_MAX);
    st = r->read_file(v->string, &file, r->read_user, &why);
    if (st == SLUICE_ERR_NO_MEMORY)
        r->is_out_of_memory = true;
    else if (st != SLUICE_OK)
        sluice_policy_report(r, P_CA_FILE, v->offset, why.message, "\"ca_file\" \"%s\" cannot be read", quote(v->string).text);
    else
        e->ca_pem = check_pem(r, v->offset, "\"ca_file\"", (const char *)file.ptr, file.len);
    sluice_buf_deinit(&file);
}

static void read_trust_anchors(sluice_policy_reader *r, const sluice_json *endpoint, sluice_policy_endpoint *e)
{
    const sluice_json *pem = sluice_json_get(endpoint, "ca_pem"), *file = sluice_json_get(endpoint, "ca_file");

    if ((pem != NULL) == (file != NULL)) {
        sluice_policy_report(r, P_TRUST_ANCHORS, pem != NULL ? pem->offset : endpoint->offset, "exactly one of \"ca_pem\" and \"ca_file\"",
                             pem != NULL ? "the endpoint has two sources of trust anchors" : "the endpoint has no trust anchors");
        return;
    }
    pem = get(r, endpoint, "ca_pem", SLUICE_JSON_STRING);
    file = get(r, endpoint, "ca_file", SLUICE_JSON_STRING);
    if (pem != NULL && pem->string_len > CA_BYTES_MAX)
        sluice_policy_report(r, P_OUT_OF_RANGE, pem->offset, "", "\"ca_pem\" is too long");
    else if (pem != NULL)
        e->ca_pem = check_pem(r, pem->offset, "\"ca_pem\"", pem->string, pem->string_len);
    else if (file != NULL)
        read_ca_file(r, file, e);
}

/* ---- sections ------------------------------------------------------------------------------------ */

static void read_router(sluice_policy_reader *r, const sluice_json *root)
{
    static const field fields[] = { { "escalate_below", false }, { "stop_below", false }, { "deadline_ms", false },
                                    { "cloud_reserve_ms", false }, { "max_tokens", false }, { "stream", false } };
    static const char *const streams[] = { "hold", "now" };
    sluice_policy *p = r->policy;
    const sluice_json *v = sluice_json_get(root, "router"), *stop;
    uint32_t reserve = UINT32_MAX;

    if (v == NULL || !READ_OBJECT(r, v, "\"router\"", fields))
        return;
    (void)get_share(r, v, "escalate_below", &p->escalate_below);
    p->stop_below = p->escalate_below / 2;
    stop = sluice_json_get(v, "stop_below");
    if (get_share(r, v, "stop_below", &p->stop_below) && p->stop_below > p->escalate_below)
        sluice_policy_report(r, P_THRESHOLDS, stop->offset, "",
                             "\"stop_below\" is above \"escalate_below\": a run would be stopped that is good enough");
    get_u32(r, v, "deadline_ms", 100, 600000, &p->deadline_ms);
    get_u32(r, v, "cloud_reserve_ms", 0, 600000, &reserve);
    if (reserve == UINT32_MAX) { /* not named: 2500, or a quarter of a short deadline */
        if (p->cloud_reserve_ms > p->deadline_ms / 4)
            p->cloud_reserve_ms = p->deadline_ms / 4;
    } else if (reserve >= p->deadline_ms) {
        sluice_policy_report(r, P_RESERVE, sluice_json_get(v, "cloud_reserve_ms")->offset, "",
                             "\"cloud_reserve_ms\" leaves the device no time before the deadline");
    } else {
        p->cloud_reserve_ms = reserve;
    }
    get_u32(r, v, "max_tokens", 1, 32768, &p->max_tokens);
    switch (GET_WORD(r, v, "stream", streams)) {
    case 0: p->stream = SLUICE_STREAM_HOLD; break;
    case 1: p->stream = SLUICE_STREAM_NOW; break;
    default: break;
    }
}

static void read_limits(sluice_policy_reader *r, const sluice_json *root)
{
    static const field fields[] = { { "request_bytes", false }, { "response_bytes", false }, { "attempts", false } };
    const sluice_json *v = sluice_json_get(root, "limits");

    if (v == NULL || !READ_OBJECT(r, v, "\"limits\"", fields))
        return;
    get_u32(r, v, "request_bytes", 256, 1 << 20, &r->policy->request_bytes_max);
    get_u32(r, v, "response_bytes", 1024, 16 << 20, &r->policy->response_bytes_max);
    get_u32(r, v, "attempts", 1, 4, &r->policy->max_attempts);
}

static void read_purpose(sluice_policy_reader *r, const sluice_json *v)
{
    static const field fields[] = { { "id", true }, { "text", true }, { "text_version", false } };
    sluice_policy *p = r->policy;
    sluice_policy_purpose *u = &p->purposes[p->n_purposes];

    if (!READ_OBJECT(r, v, "a purpose", fields))
        return;
    u->id = get_id(r, v);
    u->text = get_text(r, v, "text", TEXT_LEN_MAX, true);
    u->text_version = 1;
    get_u32(r, v, "text_version", 1, 1000000, &u->text_version);
    if (u->id == NULL)
        return;
    for (size_t i = 0; i < p->n_purposes; i++)
        if (strcmp(p->purposes[i].id, u->id) == 0) {
            sluice_policy_report(r, P_DUPLICATE_ID, v->offset, "", "purpose \"%s\" is defined twice", u->id);
            return;
        }
    p->n_purposes++;
}

static void read_endpoint(sluice_policy_reader *r, const sluice_json *v)
{
    static const field fields[] = { { "id", true },       { "url", true },         { "adapter", true },    { "model", true },
                                    { "target", true },   { "controller", false }, { "region", false },    { "ca_pem", false },
                                    { "ca_file", false }, { "spki_pins", true },   { "key_config", true }, { "expected_ttft_ms", false } };
    static const char *const adapters[] = { "openai-chat" };
    sluice_policy *p = r->policy;
    sluice_policy_endpoint *e = &p->endpoints[p->n_endpoints];
    int adapter;
    uint32_t column;

    memset(e, 0, sizeof *e); /* what a refused one before it has left */
    if (!READ_OBJECT(r, v, "an endpoint", fields))
        return;
    sluice_json_place(r->text, v->offset, &e->line, &column);
    e->id = get_id(r, v);
    e->url = get_url(r, v);
    adapter = GET_WORD(r, v, "adapter", adapters);
    e->adapter = adapter >= 0 ? adapters[adapter] : NULL;
    e->model = get_text(r, v, "model", NAME_LEN_MAX, false);
    e->controller = get_text(r, v, "controller", NAME_LEN_MAX, false);
    e->region = get_text(r, v, "region", NAME_LEN_MAX, false);
    read_target(r, v, e);
    read_trust_anchors(r, v, e);
    read_pins(r, v, e);
    read_key_config(r, v, e);
    e->expected_ttft_ms = 800;
    get_u32(r, v, "expected_ttft_ms", 1, 60000, &e->expected_ttft_ms);
    if (e->id == NULL)
        return;
    if (sluice_policy_find_endpoint(p, e->id) >= 0)
        sluice_policy_report(r, P_DUPLICATE_ID, v->offset, "", "endpoint \"%s\" is defined twice", e->id);
    else
        p->n_endpoints++; /* also with errors in it, so that rules that name it are not reported as well */
}

/* What a list in a rule may name. */
typedef struct name_set {
    const char *key;
    const char *names[32];
    size_t n;
    size_t max;
} name_set;

/* The bits of the names in a list; `all` when the field is missing. */
static uint32_t read_names(sluice_policy_reader *r, const sluice_json *rule, const name_set *set, uint32_t all)
{
    const sluice_json *list = get_list(r, rule, set->key, set->max, false);
    uint32_t bits = 0;

    if (sluice_json_get(rule, set->key) == NULL)
        return all;
    for (const sluice_json *v = list != NULL ? list->child : NULL; v != NULL; v = v->next) {
        suggestion s = SUGGESTION_INIT;
        size_t i = 0;

        if (v->kind != SLUICE_JSON_STRING) {
            sluice_policy_report(r, P_WRONG_TYPE, v->offset, "", "an item of \"%s\" must be a string, not %s", set->key, kind_name(v->kind));
            continue;
        }
        while (i < set->n && strcmp(set->names[i], v->string) != 0)
            i++;
        if (i == set->n)
            sluice_policy_report(r, P_UNDEFINED_NAME, v->offset, suggest(&s, v->string, set->names, set->n),
                                 "\"%s\" names \"%s\", which is not defined", set->key, quote(v->string).text);
        else if ((bits >> i & 1u) != 0)
            sluice_policy_report(r, P_REPEATED_ITEM, v->offset, "", "\"%s\" names \"%s\" twice", set->key, set->names[i]);
        else
            bits |= 1u << i;
    }
    return bits;
}

static void read_rule(sluice_policy_reader *r, const sluice_json *v)
{
    static const field fields[] = { { "id", true }, { "effect", true }, { "purposes", false }, { "endpoints", false },
                                    { "classes", false }, { "networks", false }, { "consent", false } };
    static const char *const effects[] = { "permit", "forbid" };
    static const char *const bounds[] = { "purposes", "endpoints", "classes" };
    sluice_policy *p = r->policy;
    sluice_policy_rule *u = &p->rules[p->n_rules];
    name_set purposes = { .key = "purposes", .max = SLUICE_POLICY_PURPOSES_MAX },
             endpoints = { .key = "endpoints", .max = SLUICE_POLICY_ENDPOINTS_MAX };
    name_set classes = { .key = "classes", .max = 32 }, networks = { .key = "networks", .names = { "metered" }, .n = 1, .max = 4 };
    const sluice_json *consent, *network;
    uint32_t column;

    memset(u, 0, sizeof *u);
    if (!READ_OBJECT(r, v, "a rule", fields))
        return;
    sluice_json_place(r->text, v->offset, &u->line, &column);
    for (; purposes.n < p->n_purposes; purposes.n++)
        purposes.names[purposes.n] = p->purposes[purposes.n].id;
    for (; endpoints.n < p->n_endpoints; endpoints.n++)
        endpoints.names[endpoints.n] = p->endpoints[endpoints.n].id;
    while ((classes.names[classes.n] = sluice_data_class_name(1u << classes.n)) != NULL)
        classes.n++;

    u->id = get_id(r, v);
    switch (GET_WORD(r, v, "effect", effects)) {
    case 0: u->effect = SLUICE_RULE_PERMIT; break;
    case 1: u->effect = SLUICE_RULE_FORBID; break;
    default: break;
    }
    u->purposes = read_names(r, v, &purposes, UINT32_MAX);
    u->endpoints = read_names(r, v, &endpoints, UINT32_MAX);
    u->classes = read_names(r, v, &classes, UINT32_MAX);
    network = sluice_json_get(v, "networks");
    u->forbids_metered = read_names(r, v, &networks, 0) != 0;
    consent = get(r, v, "consent", SLUICE_JSON_BOOL);
    u->requires_consent = u->effect == SLUICE_RULE_PERMIT && (consent == NULL || consent->boolean);

    if (u->effect == SLUICE_RULE_PERMIT) {
        for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++)
            if (sluice_json_get(v, bounds[i]) == NULL)
                sluice_policy_report(r, P_PERMIT_UNBOUNDED, v->offset, "a permit names its purposes, endpoints and classes; there are no wildcards",
                                     "the permit lacks \"%s\"", bounds[i]);
        if (network != NULL)
            sluice_policy_report(r, P_WRONG_EFFECT, network->key_offset, "write a forbid rule for the network instead",
                                 "\"networks\" is for forbid rules alone");
    } else if (u->effect == SLUICE_RULE_FORBID && sluice_json_get(v, "consent") != NULL) {
        sluice_policy_report(r, P_WRONG_EFFECT, sluice_json_get(v, "consent")->key_offset, "no consent opens what a rule forbids",
                             "\"consent\" is for permit rules alone");
    }
    for (size_t i = 0; u->id != NULL && i < p->n_rules; i++)
        if (p->rules[i].id != NULL && strcmp(p->rules[i].id, u->id) == 0) {
            sluice_policy_report(r, P_DUPLICATE_ID, v->offset, "", "rule \"%s\" is defined twice", u->id);
            return;
        }
    p->n_rules++;
}

static void read_each(sluice_policy_reader *r, const sluice_json *root, const char *key, size_t max,
                      void (*read)(sluice_policy_reader *, const sluice_json *))
{
    const sluice_json *list = get_list(r, root, key, max, true);

    for (const sluice_json *v = list != NULL ? list->child : NULL; v != NULL && !r->is_out_of_memory; v = v->next)
        read(r, v);
}

static void read_root(sluice_policy_reader *r, const sluice_json *root)
{
    static const field fields[] = { { "$schema", false }, { "sluice_policy", true }, { "id", true }, { "version", true }, { "expires", false },
                                    { "mode", false }, { "router", false }, { "limits", false }, { "purposes", false }, { "endpoints", false },
                                    { "rules", false } };
    static const char *const modes[] = { "prefer_local", "local_only", "prefer_cloud", "cloud_only" };
    const sluice_json *format;
    sluice_policy *p = r->policy;
    double version = 1;
    int mode;

    if (root->kind != SLUICE_JSON_OBJECT) {
        sluice_policy_report(r, P_NOT_OBJECT, root->offset, "", "a policy is an object, not %s", kind_name(root->kind));
        return;
    }
    format = get(r, root, "sluice_policy", SLUICE_JSON_NUMBER);
    if (format != NULL && format->number != 1.0) {
        sluice_policy_report(r, P_FORMAT_VERSION, format->offset, "this version reads \"sluice_policy\": 1",
                             "the policy is written in another version of the format");
        return; /* other fields may mean other things there */
    }
    (void)READ_OBJECT(r, root, "the policy", fields);
    (void)get(r, root, "$schema", SLUICE_JSON_STRING);
    p->id = get_id(r, root);
    (void)get_integer(r, root, "version", 1, version_max, &version);
    p->version = (uint64_t)version;
    read_expires(r, root);
    mode = GET_WORD(r, root, "mode", modes);
    if (mode >= 0)
        p->mode = (sluice_policy_mode)(mode + 1);
    read_router(r, root);
    read_limits(r, root);
    read_each(r, root, "purposes", SLUICE_POLICY_PURPOSES_MAX, read_purpose);
    read_each(r, root, "endpoints", SLUICE_POLICY_ENDPOINTS_MAX, read_endpoint);
    read_each(r, root, "rules", SLUICE_POLICY_RULES_MAX, read_rule);
}

/* ---- the whole ----------------------------------------------------------------------------------- */

static sluice_policy *policy_new(const sluice_allocator *al)
{
    sluice_policy *p = sluice_alloc_zeroed(al, sizeof *p);

    if (p == NULL)
        return NULL;
    p->al = al;
    sluice_arena_init(&p->arena, al, ARENA_BYTES_MAX);
    p->mode = SLUICE_MODE_PREFER_LOCAL;
    p->stream = SLUICE_STREAM_HOLD;
    p->escalate_below = 0.80f;
    p->stop_below = p->escalate_below / 2;
    p->deadline_ms = 10000;
    p->cloud_reserve_ms = 2500;
    p->max_tokens = 256;
    p->request_bytes_max = 65536;
    p->response_bytes_max = 1 << 20;
    p->max_attempts = 2;
    return p;
}

/* The JSON reader's own failure, as a finding like the others. */
static void report_json(sluice_policy_reader *r, const sluice_error *why)
{
    sluice_policy_code code = why->status == SLUICE_ERR_LIMIT             ? P_TOO_LARGE
                              : strstr(why->message, "duplicate") != NULL ? P_DUPLICATE_KEY
                                                                          : P_NOT_JSON;

    sluice_policy_report(r, code, why->has_offset && why->offset <= r->text.len ? (size_t)why->offset : 0, why->hint, "%.150s", why->message);
}

sluice_status sluice_policy_parse(sluice_policy **out, sluice_span text, sluice_policy_file_fn read_file, void *read_user,
                                  sluice_policy_finding_fn on_finding, void *finding_user, const sluice_allocator *al, sluice_error *err)
{
    static const sluice_json_limits limits = { SLUICE_POLICY_BYTES_MAX, 16 };
    sluice_policy_reader r = { .text = text, .read_file = read_file, .read_user = read_user, .on_finding = on_finding, .finding_user = finding_user,
                               .al = al, .err = err, .status = SLUICE_OK };
    sluice_error why = SLUICE_ERROR_INIT;
    sluice_json_doc *doc = NULL;
    sluice_status st;

    *out = NULL;
    st = sluice_crypto_init(err);
    if (st != SLUICE_OK)
        return st;
    r.policy = policy_new(al);
    if (r.policy == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "policy: no memory for the policy");
    st = sluice_json_parse(&doc, text, &limits, al, &why);
    if (st == SLUICE_ERR_NO_MEMORY) {
        r.is_out_of_memory = true;
    } else if (st != SLUICE_OK) {
        report_json(&r, &why);
    } else {
        read_root(&r, sluice_json_root(doc));
        if (r.status == SLUICE_OK && !r.is_out_of_memory)
            sluice_policy_lint_tree(&r, sluice_json_root(doc));
    }
    sluice_json_close(doc);
    if (r.is_out_of_memory)
        r.status = sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "policy: no memory to read it");
    if (r.status != SLUICE_OK) {
        sluice_policy_close(r.policy);
        return r.status;
    }
    sluice_blake2b(r.policy->hash, SLUICE_SPAN_EMPTY, text);
    *out = r.policy;
    return SLUICE_OK;
}

void sluice_policy_close(sluice_policy *policy)
{
    if (policy == NULL)
        return;
    sluice_arena_deinit(&policy->arena);
    sluice_free(policy->al, policy, sizeof *policy);
}

int sluice_policy_find_endpoint(const sluice_policy *p, const char *id)
{
    for (size_t i = 0; p != NULL && id != NULL && i < p->n_endpoints; i++)
        if (strcmp(p->endpoints[i].id, id) == 0)
            return (int)i;
    return -1;
}

int sluice_policy_find_purpose(const sluice_policy *p, const char *id)
{
    if (p == NULL || p->n_purposes == 0)
        return -1;
    if (id == NULL)
        return 0;
    for (size_t i = 0; i < p->n_purposes; i++)
        if (strcmp(p->purposes[i].id, id) == 0)
            return (int)i;
    return -1;
}
