/* manage.c - the verbs policy, consent and ledger.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { POLICY_BYTES_MAX = 1 << 20 };

/* ---- policy ------------------------------------------------------------------------------------------- */

typedef struct lint_sink {
    const cli *c;
    const char *path;
    unsigned n, n_errors;
} lint_sink;

static void on_finding(const sluice_finding *f, void *user)
{
    lint_sink *s = user;
    if (s->c->json) {
        printf("%s{\"file\": ", s->n ? ",\n " : "");
        cli_json_str(stdout, s->path, strlen(s->path));
        printf(", \"code\": \"%s\", \"severity\": \"%s\", \"line\": %u, \"column\": %u, \"message\": ", f->code,
               f->is_error ? "error" : "warning", f->line, f->column);
        cli_json_str(stdout, f->message, strlen(f->message));
        fputs(", \"hint\": ", stdout);
        cli_json_str(stdout, f->hint, strlen(f->hint));
        fputc('}', stdout);
    } else {
        printf("%s", s->path);
        if (f->line > 0)
            printf(":%u:%u", f->line, f->column);
        printf(": %s%s%s %s: ", cli_paint(s->c->color_out, f->is_error ? CLI_RED : CLI_YELLOW),
               f->is_error ? "error" : "warning", cli_paint(s->c->color_out, CLI_OFF), f->code);
        cli_print_text(stdout, f->message, strlen(f->message));
        if (f->hint[0] != '\0') {
            fputs("\n  to mend it: ", stdout);
            cli_print_text(stdout, f->hint, strlen(f->hint));
        }
        fputc('\n', stdout);
    }
    s->n++;
    s->n_errors += f->is_error;
}

static int lint(const cli *c)
{
    int code = EXIT_DONE;
    lint_sink s = { c, NULL, 0, 0 };

    if (c->n_args < 2)
        return cli_usage(c->json, "policy lint wants a file", "");
    if (c->json)
        fputs("{\"findings\": [", stdout);
    for (int i = 1; i < c->n_args; i++) {
        sluice_error err = SLUICE_ERROR_INIT;
        size_t len = 0;
        char *text = cli_read_file(c->args[i], POLICY_BYTES_MAX, &len, &err);
        if (text == NULL) {
            cli_print_error(c, &err, "reading the policy");
            code = EXIT_FAILED;
            continue;
        }
        s.path = c->args[i];
        const sluice_span span = { (const uint8_t *)text, len };
        const unsigned before = s.n_errors;
        const sluice_status st = sluice_policy_lint(span, NULL, on_finding, &s, &err);
        if (st != SLUICE_OK && s.n_errors == before)
            cli_print_error(c, &err, "linting"); /* no finding says it: memory, a limit */
        if (st != SLUICE_OK)
            code = EXIT_POLICY;
        else if (!c->json)
            printf("%s: %sloads%s\n", s.path, cli_paint(c->color_out, CLI_GREEN), cli_paint(c->color_out, CLI_OFF));
        free(text);
    }
    if (c->json)
        printf("], \"errors\": %u, \"warnings\": %u}\n", s.n_errors, s.n - s.n_errors);
    return code;
}

int cmd_policy(const cli *c)
{
    const char *verb = c->n_args > 0 ? c->args[0] : "";
    if (strcmp(verb, "lint") == 0)
        return lint(c);
    if (strcmp(verb, "schema") == 0) {
        const sluice_span schema = sluice_policy_schema();
        fwrite(schema.ptr, 1, schema.len, stdout);
        return EXIT_DONE;
    }
    return cli_usage(c->json, "policy wants lint or schema", "");
}

/* ---- an instance without a model ------------------------------------------------------------------------ */

static bool open_state(session **ses, const cli *c, int *code)
{
    sluice_error err = SLUICE_ERROR_INIT;
    if (session_open(ses, c, false, false, NULL, NULL, &err) == SLUICE_OK)
        return true;
    cli_print_error(c, &err, "opening");
    *code = cli_open_code(c, &err);
    return false;
}

/* ---- consent ------------------------------------------------------------------------------------------- */

static bool parse_classes(const char *names, sluice_data_classes *out)
{
    *out = 0;
    while (*names != '\0') {
        const size_t len = strcspn(names, ",");
        sluice_data_classes found = 0;
        for (unsigned bit = 0; bit < 32 && found == 0; bit++) {
            const char *name = sluice_data_class_name(1u << bit);
            if (name != NULL && strlen(name) == len && strncmp(name, names, len) == 0)
                found = 1u << bit;
        }
        if (found == 0)
            return false;
        *out |= found;
        names += len + (names[len] == ',');
    }
    return *out != 0;
}

static bool parse_until(const char *text, sluice_consent *consent)
{
    char *end = NULL;
    if (strcmp(text, "once") == 0) {
        consent->scope = SLUICE_CONSENT_ONCE;
        return true;
    }
    if (strcmp(text, "session") == 0) {
        consent->scope = SLUICE_CONSENT_SESSION;
        return true;
    }
    const long days = strtol(text, &end, 10);
    if (end == text || strcmp(end, "d") != 0 || days < 1 || days > 3650)
        return false;
    consent->scope = SLUICE_CONSENT_UNTIL;
    consent->valid_until_ms = ((int64_t)time(NULL) + days * 86400) * 1000;
    return true;
}

static int grant(const cli *c, sluice *s)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_consent consent;
    char id[SLUICE_ID_MAX] = "";

    sluice_consent_init(&consent, sizeof consent);
    consent.classes = SLUICE_CLASS_PROMPT;
    if (c->endpoint == NULL)
        return cli_usage(c->json, "consent grant wants --endpoint ID (an endpoint of the policy)", "");
    if (c->classes != NULL && !parse_classes(c->classes, &consent.classes)) {
        char all[256], what[400];
        cli_class_names(SLUICE_CLASS_ALL, all, sizeof all);
        (void)snprintf(what, sizeof what, "--classes takes names from %s, with commas between them; not", all);
        return cli_usage(c->json, what, c->classes);
    }
    if (c->until != NULL && !parse_until(c->until, &consent))
        return cli_usage(c->json, "--until takes once, session, or days as in 30d", "");
    (void)snprintf(consent.endpoint, sizeof consent.endpoint, "%s", c->endpoint);
    (void)snprintf(consent.purpose, sizeof consent.purpose, "%s", c->purpose != NULL ? c->purpose : "");
    const sluice_status st = sluice_consent_grant(s, &consent, id, &err);
    if (st != SLUICE_OK) {
        cli_print_error(c, &err, "recording the consent");
        return cli_exit_code(st);
    }
    if (c->json)
        printf("{\"id\": \"%s\"}\n", id);
    else
        printf("granted %s\n", id);
    return EXIT_DONE;
}

static const char *state_name(sluice_consent_state state)
{
    switch (state) {
    case SLUICE_CONSENT_ACTIVE: return "active";
    case SLUICE_CONSENT_EXPIRED: return "expired";
    case SLUICE_CONSENT_REVOKED: return "revoked";
    case SLUICE_CONSENT_REFUSED: return "refused";
    case SLUICE_CONSENT_USED: return "used";
    }
    return "unknown";
}

static const char *scope_name(sluice_consent_scope scope)
{
    return scope == SLUICE_CONSENT_ONCE ? "once" : scope == SLUICE_CONSENT_SESSION ? "session" : "until";
}

static void format_time(char *out, size_t cap, int64_t ms)
{
    const time_t t = (time_t)(ms / 1000);
    struct tm tm;
    if (ms <= 0 || gmtime_r(&t, &tm) == NULL || strftime(out, cap, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        (void)snprintf(out, cap, "%s", "revoked");
}

static int list_consents(const cli *c, sluice *s)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_consent *list = NULL;
    size_t n = 0;
    char classes[256], until[40];

    const sluice_status st = sluice_consent_list(s, &list, &n, &err);
    if (st != SLUICE_OK) {
        cli_print_error(c, &err, "listing");
        return cli_exit_code(st);
    }
    if (c->json)
        fputs("[", stdout);
    for (size_t i = 0; i < n; i++) {
        const sluice_consent *k = &list[i];
        cli_class_names(k->classes, classes, sizeof classes);
        format_time(until, sizeof until, k->valid_until_ms);
        if (c->json)
            printf("%s{\"id\": \"%s\", \"state\": \"%s\", \"purpose\": \"%s\", \"endpoint\": \"%s\", \"classes\": \"%s\", \"scope\": \"%s\", "
                   "\"valid_until_ms\": %lld, \"granted_ms\": %lld, \"text_version\": %u}",
                   i ? ",\n " : "", k->id, state_name(k->state), k->purpose, k->endpoint, classes, scope_name(k->scope),
                   (long long)k->valid_until_ms, (long long)k->granted_ms, k->text_version);
        else
            printf("%-20s %-8s %s to %s, %s, %s%s%s\n", k->id, state_name(k->state), k->purpose, k->endpoint, classes,
                   scope_name(k->scope), k->scope == SLUICE_CONSENT_UNTIL ? " " : "",
                   k->scope == SLUICE_CONSENT_UNTIL ? until : "");
    }
    if (c->json)
        fputs("]\n", stdout);
    else if (n == 0)
        puts("no consents");
    sluice_consent_list_free(s, list, n);
    return EXIT_DONE;
}

static int revoke(const cli *c, sluice *s)
{
    sluice_error err = SLUICE_ERROR_INIT;
    if (c->n_args < 2)
        return cli_usage(c->json, "consent revoke wants an id (see consent list)", "");
    const sluice_status st = sluice_consent_revoke(s, c->args[1], &err);
    if (st != SLUICE_OK) {
        cli_print_error(c, &err, "revoking");
        return cli_exit_code(st);
    }
    if (c->json)
        printf("{\"revoked\": \"%s\"}\n", c->args[1]);
    else
        printf("revoked %s\n", c->args[1]);
    return EXIT_DONE;
}

int cmd_consent(const cli *c)
{
    const char *verb = c->n_args > 0 ? c->args[0] : "";
    int (*run)(const cli *, sluice *) = strcmp(verb, "grant") == 0    ? grant
                                        : strcmp(verb, "revoke") == 0 ? revoke
                                        : strcmp(verb, "list") == 0   ? list_consents
                                                                      : NULL;
    session *ses = NULL;
    int code = EXIT_FAILED;
    if (run == NULL)
        return cli_usage(c->json, "consent wants grant, revoke or list", "");
    if (!open_state(&ses, c, &code))
        return code;
    code = run(c, session_instance(ses));
    session_close(ses);
    return code;
}

/* ---- ledger -------------------------------------------------------------------------------------------- */

typedef struct ledger_sink {
    const cli *c;
    uint64_t seen, skip;
} ledger_sink;

static bool count_line(const char *json, size_t len, void *user)
{
    (void)json;
    (void)len;
    ((ledger_sink *)user)->seen++;
    return true;
}

static bool print_line(const char *json, size_t len, void *user)
{
    ledger_sink *k = user;
    if (k->seen++ < k->skip)
        return true;
    printf("%.*s\n", (int)len, json); /* an entry is one line of JSON for people and programs alike */
    return true;
}

int cmd_ledger(const cli *c)
{
    const char *verb = c->n_args > 0 ? c->args[0] : "";
    sluice_error err = SLUICE_ERROR_INIT;
    session *ses = NULL;
    uint64_t n = 0;
    int code = EXIT_FAILED;
    ledger_sink sink = { c, 0, 0 };

    if (strcmp(verb, "list") != 0 && strcmp(verb, "verify") != 0)
        return cli_usage(c->json, "ledger wants list or verify", "");
    if (!open_state(&ses, c, &code))
        return code;
    sluice *s = session_instance(ses);
    sluice_status st;
    if (strcmp(verb, "verify") == 0) {
        st = sluice_ledger_verify(s, &n, &err);
        if (st == SLUICE_OK && c->json)
            printf("{\"entries\": %llu, \"verified\": true}\n", (unsigned long long)n);
        else if (st == SLUICE_OK)
            printf("%sverified%s: %llu entries, chain and authentication intact\n", cli_paint(c->color_out, CLI_GREEN),
                   cli_paint(c->color_out, CLI_OFF), (unsigned long long)n);
    } else {
        st = c->last > 0 ? sluice_ledger_list(s, count_line, &sink, &err) : SLUICE_OK;
        sink.skip = c->last > 0 && sink.seen > c->last ? sink.seen - c->last : 0;
        sink.seen = 0;
        if (st == SLUICE_OK)
            st = sluice_ledger_list(s, print_line, &sink, &err);
    }
    if (st != SLUICE_OK)
        cli_print_error(c, &err, verb);
    session_close(ses);
    return cli_exit_code(st);
}
