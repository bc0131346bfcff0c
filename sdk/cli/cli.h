/* cli.h - what the verbs of the command-line tool share.
 *
 * The tool is a client of the public API: it includes <sluice/…> and the operating system, nothing else of the library; but for the verb model,
 * which also prepares model files, with local-engine/tools/model_tools.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_SDK_CLI_CLI_H
#define SLUICE_SDK_CLI_CLI_H

#include <stdio.h>

#include "sluice/sluice.h"

/* Stable: scripts test them.  Listed in docs/cli.md. */
enum {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_POLICY = 3,
    EXIT_CONSENT = 4,
    EXIT_NETWORK = 5,
    EXIT_MODEL = 6,
    EXIT_INTEGRITY = 7,
    EXIT_WEAK = 8 /* answered, but below the confidence threshold */
};

enum { CLI_PATH_MAX = 4096 };

typedef struct cli {
    const char *policy, *model, *home;  /* as given; NULL: found by default */
    const char *purpose, *endpoint, *classes, *until;
    uint32_t deadline_ms, max_tokens, last;
    float temperature;
    uint64_t seed;
    bool json, yes, local_only, verbose, color_out, color_err;
    struct {                            /* of the verb model */
        const char *imatrix, *calibrate, *save_imatrix;
        uint32_t threads, context, prompt, decode, rounds, calibrate_tokens;
        bool tensors, force, allow_requantize, pure;
    } model_options;
    const char *const *args;            /* positional ones of the verb */
    int n_args;
} cli;

/* ---- term.c: what reaches the terminal */
void cli_term_init(cli *c, bool no_color);
const char *cli_paint(bool color, const char *code);  /* an escape sequence, or "" */
#define CLI_DIM "\033[2m"
#define CLI_BOLD "\033[1m"
#define CLI_RED "\033[31m"
#define CLI_GREEN "\033[32m"
#define CLI_YELLOW "\033[33m"
#define CLI_BLUE "\033[34m"
#define CLI_OFF "\033[0m"
void cli_print_error(const cli *c, const sluice_error *err, const char *doing); /* what, where, why, how to mend, on stderr */
void cli_print_json_plain(FILE *out, const char *json);   /* JSON of our own library as indented "key: value" lines */
void cli_print_text(FILE *out, const char *text, size_t len); /* untrusted text: control characters but newline and tab are replaced */
void cli_json_str(FILE *out, const char *text, size_t len); /* a quoted JSON string */
int cli_exit_code(sluice_status status);
int cli_usage(bool json, const char *what, const char *arg); /* what is wrong with the command line, on stderr; EXIT_USAGE */
bool cli_error_is_at(const sluice_error *err, const char *path); /* it names this file; false for no path */
int cli_open_code(const cli *c, const sluice_error *err);   /* after a failed session_open(): the policy's code, the model's, or the status's */
void cli_class_names(sluice_data_classes set, char *out, size_t cap);

/* ---- paths.c: where things are */
bool cli_home(const cli *c, char *out, size_t cap);         /* --home, SLUICE_HOME, XDG data folder */
bool cli_model_path(const cli *c, char *out, size_t cap);   /* --model, SLUICE_MODEL, HOME/model.gguf, the one that came along; false: none */
bool cli_join(char *out, size_t cap, const char *dir, const char *name);
bool cli_beside_me(char *out, size_t cap, const char *name); /* a file in this program's own folder */
char *cli_read_file(const char *path, size_t max, size_t *len, sluice_error *err); /* free() it; "-" is stdin */

/* ---- session.c: an open instance and one question at a time */
typedef struct session session;
typedef struct answer {
    sluice_event done;          /* its terminal event */
    sluice_event route;         /* the last route that was reported */
    char *text;                 /* NUL-terminated, owned */
    size_t text_len;
    uint32_t n_restarts;
    bool was_asked;             /* a consent question came up */
} answer;
typedef void (*session_text_fn)(const char *text, size_t len, bool is_restart, void *user);

sluice_status session_open(session **out, const cli *c, bool with_model, bool can_ask, const char *policy_path, const char *state_dir, sluice_error *err);
void session_close(session *s);
sluice *session_instance(session *s);
const char *session_state_dir(const session *s);
void session_fill_request(const cli *c, sluice_request *r, sluice_message *m, const char *text, size_t len);
sluice_status session_ask(session *s, const sluice_request *request, session_text_fn on_text, void *user, answer *out, sluice_error *err);
void answer_free(answer *a);
void answer_print_json(const answer *a, FILE *out);
void answer_print_line(const cli *c, const answer *a, FILE *out, bool color); /* "local · 97 % sure · 12 ms …" */
int answer_exit_code(const answer *a);

/* ---- the verbs: each returns an exit code */
int cmd_ask(const cli *c);
int cmd_chat(const cli *c);
int cmd_explain(const cli *c);
int cmd_policy(const cli *c);
int cmd_consent(const cli *c);
int cmd_ledger(const cli *c);
int cmd_model(const cli *c);
int cmd_info(const cli *c);
int cmd_demo(const cli *c);

#endif
