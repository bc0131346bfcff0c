/* term.c - colour, errors, and JSON for people.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void cli_term_init(cli *c, bool no_color)
{
    const char *env = getenv("NO_COLOR");
    const bool wanted = !no_color && !(env != NULL && env[0] != '\0') && !c->json;
    c->color_out = wanted && isatty(STDOUT_FILENO);
    c->color_err = wanted && isatty(STDERR_FILENO);
}

const char *cli_paint(bool color, const char *code)
{
    return color ? code : "";
}

void cli_print_text(FILE *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        const unsigned char ch = (unsigned char)text[i];
        if ((ch < 0x20 && ch != '\n' && ch != '\t') || ch == 0x7f)
            fputs("\xef\xbf\xbd", out); /* a model or a server must not drive the terminal */
        else
            fputc(ch, out);
    }
}

/* How many bytes the code point at `at` has; 0 where it is not UTF-8 (a message may have been cut inside one). */
static size_t code_point_len(const char *text, size_t len, size_t at)
{
    const unsigned char first = (unsigned char)text[at];
    const size_t n = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;

    if (n == 0 || n > len - at)
        return 0;
    for (size_t i = 1; i < n; i++)
        if (((unsigned char)text[at + i] & 0xc0u) != 0x80)
            return 0;
    const unsigned char second = n > 1 ? (unsigned char)text[at + 1] : 0;
    const bool is_surrogate_or_long = (first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
                                      (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f);
    return is_surrogate_or_long ? 0 : n;
}

void cli_json_str(FILE *out, const char *text, size_t len)
{
    fputc('"', out);
    for (size_t i = 0; i < len;) {
        const unsigned char ch = (unsigned char)text[i];
        const size_t n = code_point_len(text, len, i);
        if (n == 0)
            fputs("\xef\xbf\xbd", out);
        else if (ch == '"' || ch == '\\')
            fprintf(out, "\\%c", ch);
        else if (ch == '\n')
            fputs("\\n", out);
        else if (ch < 0x20 || ch == 0x7f)
            fprintf(out, "\\u%04x", ch);
        else
            fwrite(text + i, 1, n, out);
        i += n > 0 ? n : 1;
    }
    fputc('"', out);
}

static void field(FILE *out, const char *key, const char *value, bool *first)
{
    fprintf(out, "%s\"%s\": ", *first ? "" : ", ", key);
    cli_json_str(out, value, strlen(value));
    *first = false;
}

void cli_print_error(const cli *c, const sluice_error *err, const char *doing)
{
    if (c->json) {
        bool first = true;
        fputs("{\"error\": {", stderr);
        field(stderr, "status", sluice_status_name(err->status), &first);
        field(stderr, "message", err->message, &first);
        field(stderr, "hint", err->hint, &first);
        field(stderr, "where", err->where, &first);
        fprintf(stderr, ", \"line\": %u, \"column\": %u", err->line, err->column);
        if (err->has_offset)
            fprintf(stderr, ", \"offset\": %llu", (unsigned long long)err->offset);
        fputs("}}\n", stderr);
        return;
    }
    fprintf(stderr, "%ssluice: ", cli_paint(c->color_err, CLI_RED));
    if (err->where[0] != '\0') {
        fputs(err->where, stderr);
        if (err->line > 0)
            fprintf(stderr, ":%u:%u", err->line, err->column);
        else if (err->has_offset && err->offset > 0)
            fprintf(stderr, " at byte %llu", (unsigned long long)err->offset);
        fputs(": ", stderr);
    }
    fprintf(stderr, "%s%s", err->message[0] ? err->message : sluice_status_name(err->status),
            cli_paint(c->color_err, CLI_OFF));
    fprintf(stderr, " [%s%s%s]\n", doing ? doing : "", doing ? ", " : "", sluice_status_name(err->status));
    if (err->hint[0] != '\0')
        fprintf(stderr, "  to mend it: %s\n", err->hint);
}

int cli_exit_code(sluice_status status)
{
    switch (status) {
    case SLUICE_OK: return EXIT_DONE;
    case SLUICE_ERR_ARGUMENT: return EXIT_USAGE;
    case SLUICE_ERR_POLICY: return EXIT_POLICY;
    case SLUICE_ERR_CONSENT: return EXIT_CONSENT;
    case SLUICE_ERR_INTEGRITY: return EXIT_INTEGRITY;
    case SLUICE_ERR_NETWORK:
    case SLUICE_ERR_TIMEOUT:
    case SLUICE_ERR_PIN_MISMATCH:
    case SLUICE_ERR_TLS:
    case SLUICE_ERR_REMOTE:
    case SLUICE_ERR_TRUNCATED: return EXIT_NETWORK;
    default: return EXIT_FAILED;
    }
}

int cli_usage(bool json, const char *what, const char *arg)
{
    char text[320];

    (void)snprintf(text, sizeof text, "%s%s%s", what, arg[0] ? " " : "", arg);
    if (json) {
        fputs("{\"error\": {\"status\": \"SLUICE_ERR_ARGUMENT\", \"message\": ", stderr);
        cli_json_str(stderr, text, strlen(text));
        fputs(", \"hint\": \"see sluice --help\"}}\n", stderr);
    } else {
        fputs("sluice: ", stderr);
        cli_print_text(stderr, text, strlen(text));
        fputs("\n  to mend it: see sluice --help\n", stderr);
    }
    return EXIT_USAGE;
}

/* In an error's place '?' stands for what a terminal must not see, and of a path that is too long it has "..." and the end. */
bool cli_error_is_at(const sluice_error *err, const char *path)
{
    const char *where = err->where;
    const size_t len = path != NULL ? strlen(path) : 0;
    size_t n = strlen(where);

    if (len >= sizeof err->where && strncmp(where, "...", 3) == 0) {
        where += 3;
        n -= 3;
    } else if (len != n) {
        return false;
    }
    for (size_t i = 0; i < n; i++)
        if (where[i] != path[len - n + i] && where[i] != '?')
            return false;
    return n > 0;
}

int cli_open_code(const cli *c, const sluice_error *err)
{
    char path[CLI_PATH_MAX], home[CLI_PATH_MAX];

    if (cli_model_path(c, path, sizeof path) && cli_error_is_at(err, path))
        return EXIT_MODEL;
    if (cli_error_is_at(err, c->policy) ||
        (cli_home(c, home, sizeof home) && cli_join(path, sizeof path, home, "policy.json") && cli_error_is_at(err, path)))
        return EXIT_POLICY;
    return cli_exit_code(err->status);
}

void cli_class_names(sluice_data_classes set, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = '\0';
    for (unsigned bit = 0; bit < 32; bit++) {
        const char *name = set >> bit & 1u ? sluice_data_class_name(1u << bit) : NULL;
        if (name == NULL || n >= cap)
            continue;
        const int w = snprintf(out + n, cap - n, "%s%s", n ? ", " : "", name);
        n += w > 0 ? (size_t)w : 0;
    }
}

/* Trusted JSON, written by our own library: strings are walked, never interpreted. */
static const char *print_string(FILE *out, const char *p)
{
    for (p++; *p != '\0' && *p != '"'; p++) {
        if (*p == '\\' && p[1] != '\0') {
            p++;
            fputs(*p == 'n' ? " " : *p == '"' ? "\"" : *p == '\\' ? "\\" : *p == '/' ? "/" : " ", out);
            if (*p == 'u')
                for (int i = 0; i < 4 && p[1] != '\0'; i++)
                    p++;
        } else {
            fputc(*p, out);
        }
    }
    return *p == '"' ? p + 1 : p;
}

static const char *print_value(FILE *out, const char *p, int depth, bool after_dash);

static const char *skip_space(const char *p)
{
    while (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r' || *p == ',')
        p++;
    return p;
}

static const char *print_members(FILE *out, const char *p, int depth, char end, bool after_dash)
{
    bool is_first = true;
    p = skip_space(p + 1);
    if (*p == end)
        fputs("none", out);
    for (; *p != '\0' && *p != end; p = skip_space(p)) {
        if (!(is_first && after_dash)) /* an object in a list begins on the line of its dash */
            fprintf(out, "\n%*s", depth * 2, "");
        is_first = false;
        if (end == ']') {
            fputs("- ", out);
        } else {
            p = print_string(out, p);
            fputs(": ", out);
            p = skip_space(p);
            if (*p == ':')
                p = skip_space(p + 1);
        }
        p = print_value(out, p, depth + 1, end == ']');
    }
    return *p == end ? p + 1 : p;
}

static const char *print_value(FILE *out, const char *p, int depth, bool after_dash)
{
    if (depth > 40)
        return p + strlen(p);
    if (*p == '{')
        return print_members(out, p, depth, '}', after_dash);
    if (*p == '[')
        return print_members(out, p, depth, ']', false);
    if (*p == '"')
        return print_string(out, p);
    while (*p != '\0' && *p != ',' && *p != '}' && *p != ']')
        fputc(*p++, out);
    return p;
}

void cli_print_json_plain(FILE *out, const char *json)
{
    const char *p = skip_space(json);
    if (*p == '{' || *p == '[') { /* the outermost level needs no indent and no leading empty line */
        const char end = *p == '{' ? '}' : ']';
        bool first = true;
        for (p = skip_space(p + 1); *p != '\0' && *p != end; p = skip_space(p)) {
            if (!first)
                fputc('\n', out);
            first = false;
            if (end == '}') {
                p = print_string(out, p);
                fputs(": ", out);
                p = skip_space(p);
                if (*p == ':')
                    p = skip_space(p + 1);
            } else {
                fputs("- ", out);
            }
            p = print_value(out, p, 1, end == ']');
        }
    } else {
        print_value(out, p, 0, false);
    }
    fputc('\n', out);
}
