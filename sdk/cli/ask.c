/* ask.c - the verbs ask, chat and explain.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { INPUT_BYTES_MAX = 1 << 20, LINE_BYTES_MAX = 65536 };

/* The words of the command line joined by blanks, or standard input; NULL, and said why, when that is no question. */
static char *gather_raw(const cli *c, size_t *len)
{
    sluice_error err = SLUICE_ERROR_INIT;
    size_t total = 1;

    if (c->n_args == 0 || (c->n_args == 1 && strcmp(c->args[0], "-") == 0)) {
        if (c->n_args == 0 && isatty(STDIN_FILENO)) {
            (void)cli_usage(c->json, "what do you want to ask?  For example: sluice \"set a timer for ten minutes\"", "");
            return NULL;
        }
        char *text = cli_read_file("-", INPUT_BYTES_MAX, len, &err);
        if (text == NULL)
            cli_print_error(c, &err, "reading the question");
        while (text != NULL && *len > 0 && (text[*len - 1] == '\n' || text[*len - 1] == '\r'))
            text[--*len] = '\0';
        return text;
    }
    for (int i = 0; i < c->n_args; i++)
        total += strlen(c->args[i]) + 1;
    char *text = malloc(total);
    if (text == NULL)
        return NULL;
    *len = 0;
    for (int i = 0; i < c->n_args; i++)
        *len += (size_t)snprintf(text + *len, total - *len, "%s%s", i ? " " : "", c->args[i]);
    return text;
}

static char *gather(const cli *c, size_t *len)
{
    char *text = gather_raw(c, len);
    if (text == NULL || strspn(text, " \t\r\n") < *len)
        return text;
    (void)cli_usage(c->json, "the question is empty", "");
    free(text);
    return NULL;
}

typedef struct printer {
    const cli *c;
    bool at_line_start;
} printer;

static void on_text(const char *text, size_t len, bool is_restart, void *user)
{
    printer *p = user;
    if (is_restart) {
        fprintf(stdout, "\n%s[another backend answers; forget the above]%s\n", cli_paint(p->c->color_out, CLI_DIM),
                cli_paint(p->c->color_out, CLI_OFF));
        p->at_line_start = true;
        return;
    }
    cli_print_text(stdout, text, len);
    fflush(stdout);
    if (len > 0)
        p->at_line_start = text[len - 1] == '\n';
}

static int ask_one(const cli *c, session *ses, const char *text, size_t len)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_request r;
    sluice_message m;
    answer a;
    printer p = { c, true };

    session_fill_request(c, &r, &m, text, len);
    if (session_ask(ses, &r, c->json ? NULL : on_text, &p, &a, &err) != SLUICE_OK) {
        cli_print_error(c, &err, "asking");
        return cli_exit_code(err.status);
    }
    if (!p.at_line_start)
        fputc('\n', stdout);
    if (c->json)
        answer_print_json(&a, stdout);
    fflush(stdout); /* whoever reads a chat through a pipe waits for this answer before the next question */
    if (!c->json)
        answer_print_line(c, &a, stderr, c->color_err);
    const int code = answer_exit_code(&a);
    answer_free(&a);
    return code;
}

static bool open_or_say(session **ses, const cli *c, bool with_model, bool can_ask, int *code)
{
    sluice_error err = SLUICE_ERROR_INIT;
    if (session_open(ses, c, with_model, can_ask, NULL, NULL, &err) == SLUICE_OK)
        return true;
    cli_print_error(c, &err, "opening");
    *code = cli_open_code(c, &err);
    return false;
}

int cmd_ask(const cli *c)
{
    session *ses = NULL;
    size_t len = 0;
    int code = EXIT_USAGE;

    char *text = gather(c, &len);
    if (text == NULL)
        return EXIT_USAGE;
    /* Whoever pipes the question in has no terminal to answer on. */
    const bool can_ask = c->yes || (isatty(STDIN_FILENO) && isatty(STDERR_FILENO) && !c->json);
    if (open_or_say(&ses, c, true, can_ask, &code))
        code = ask_one(c, ses, text, len);
    session_close(ses);
    free(text);
    return code;
}

int cmd_chat(const cli *c)
{
    session *ses = NULL;
    int code = EXIT_DONE;
    char *line = malloc(LINE_BYTES_MAX);
    const bool tty = isatty(STDIN_FILENO) && isatty(STDERR_FILENO);

    if (line == NULL || !open_or_say(&ses, c, true, c->yes || (tty && !c->json), &code)) {
        free(line);
        return code;
    }
    if (tty && !c->json)
        fputs("One question a line; each stands for itself.  \"exit\" ends.\n", stderr);
    for (;;) {
        if (tty && !c->json) {
            fputs("> ", stderr);
            fflush(stderr);
        }
        if (fgets(line, LINE_BYTES_MAX, stdin) == NULL)
            break;
        size_t len = strlen(line);
        while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r'))
            line[--len] = '\0';
        if (strcmp(line, "exit") == 0 || strcmp(line, "quit") == 0)
            break;
        if (len > 0)
            code = ask_one(c, ses, line, len);
    }
    session_close(ses);
    free(line);
    return code;
}

int cmd_explain(const cli *c)
{
    session *ses = NULL;
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_request r;
    sluice_message m;
    size_t len = 0;
    int code = EXIT_USAGE;
    char *json = NULL;

    char *text = gather(c, &len);
    if (text == NULL)
        return EXIT_USAGE;
    if (open_or_say(&ses, c, true, true, &code)) {
        session_fill_request(c, &r, &m, text, len);
        if (sluice_explain(session_instance(ses), &r, &json, &err) == SLUICE_OK) {
            if (c->json)
                printf("%s\n", json);
            else
                cli_print_json_plain(stdout, json);
            sluice_text_free(session_instance(ses), NULL, json);
            code = EXIT_DONE;
        } else {
            cli_print_error(c, &err, "explaining");
            code = cli_exit_code(err.status);
        }
    }
    session_close(ses);
    free(text);
    return code;
}

int cmd_info(const cli *c)
{
    session *ses = NULL;
    sluice_error err = SLUICE_ERROR_INIT;
    int code = EXIT_FAILED;
    char *json = NULL;

    if (!open_or_say(&ses, c, true, false, &code))
        return code;
    if (sluice_info(session_instance(ses), &json, &err) == SLUICE_OK) {
        if (c->json)
            printf("%s\n", json);
        else
            cli_print_json_plain(stdout, json);
        sluice_text_free(session_instance(ses), NULL, json);
        code = EXIT_DONE;
    } else {
        cli_print_error(c, &err, "describing the instance");
    }
    session_close(ses);
    return code;
}
