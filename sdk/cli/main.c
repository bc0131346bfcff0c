/* main.c - the command `sluice`: arguments, help, dispatch.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/cli/cli.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "sluice - answer on the device, escalate only with consent\n"
    "\n"
    "  sluice [ask] [options] TEXT…      ask one question (TEXT - or none: standard input)\n"
    "  sluice chat                       one question a line; \"exit\" or the end of input ends it\n"
    "  sluice explain TEXT…              what would be decided, and why; runs and sends nothing\n"
    "  sluice policy lint FILE…          check policy files\n"
    "  sluice policy schema              print the JSON Schema of policy files\n"
    "  sluice consent grant --endpoint ID [--purpose ID] [--classes a,b] [--until once|session|30d]\n"
    "  sluice consent revoke ID          withdraw a consent\n"
    "  sluice consent list               all consents and their state\n"
    "  sluice ledger list [--last N]     what was decided and what left the device\n"
    "  sluice ledger verify              check the ledger's hash chain and authentication\n"
    "  sluice model inspect [FILE] [--tensors]  what a GGUF file holds\n"
    "  sluice model quantize IN OUT TYPE [--imatrix FILE | --calibrate TEXT]  make it smaller: Q4_K_M, Q8_0, IQ4_XS …\n"
    "  sluice model bench [FILE] [--prompt N] [--decode N] [--rounds N]       how fast it runs here, and what it takes\n"
    "  sluice info                       policy, model, state folder, library versions\n"
    "  sluice demo [--yes]               a gateway on loopback and a dozen requests, end to end\n"
    "\n"
    "options\n"
    "  --policy FILE     policy file (default: HOME/policy.json; without one nothing may leave)\n"
    "  --model FILE      GGUF model (default: SLUICE_MODEL, HOME/model.gguf, the one that came along)\n"
    "  --home DIR        state folder (default: SLUICE_HOME, or the XDG data folder + /sluice)\n"
    "  --deadline MS     time for the whole request, local and cloud together\n"
    "  --purpose ID      a purpose of the policy\n"
    "  --local-only      this request must not leave the device\n"
    "  --max-tokens N, --temperature T, --seed N\n"
    "  --threads N       of model quantize and bench (default: from the machine)\n"
    "  --imatrix FILE, --calibrate TEXT, --save-imatrix FILE, --calibrate-tokens N, --pure, --allow-requantize, --force\n"
    "                    of model quantize; --context N of model bench: see docs/models.md\n"
    "  --yes, -y         answer consent questions with \"once\"\n"
    "  --json            machine-readable output\n"
    "  --no-color        plain output (also: NO_COLOR set, or not a terminal)\n"
    "  --verbose, -v     say every reason in a sentence\n"
    "  --help, --version\n"
    "\n"
    "exit codes: 0 answered · 1 failed · 2 usage · 3 policy · 4 consent missing · 5 network · 6 model ·\n"
    "            7 integrity · 8 answered below the confidence threshold\n";

static const struct verb {
    const char *name;
    int (*run)(const cli *c);
} verbs[] = {
    { "ask", cmd_ask },       { "chat", cmd_chat },     { "explain", cmd_explain }, { "policy", cmd_policy },
    { "consent", cmd_consent }, { "ledger", cmd_ledger }, { "model", cmd_model },   { "info", cmd_info },
    { "demo", cmd_demo },
};

static bool parse_u64(const char *text, uint64_t max, uint64_t *out)
{
    char *end = NULL;
    errno = 0;
    if (text[0] < '0' || text[0] > '9')
        return false;
    const unsigned long long v = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || v > max)
        return false;
    *out = v;
    return true;
}

typedef struct option {
    const char *name;
    const char **text;
    uint32_t *number;
    uint64_t *wide;
    float *real;
    bool *flag;
} option;

/* 1: taken (and *i moved past its value), 0: not an option of ours, -1: a bad or missing value. */
static int take_option(const option *options, size_t n, const char *const *argv, int argc, int *i)
{
    const char *arg = argv[*i];
    for (size_t k = 0; k < n; k++) {
        const option *o = &options[k];
        const size_t len = strlen(o->name);
        if (strncmp(arg, o->name, len) != 0 || (arg[len] != '\0' && arg[len] != '='))
            continue;
        if (o->flag != NULL) {
            *o->flag = true;
            return arg[len] == '\0' ? 1 : -1;
        }
        const char *value = arg[len] == '=' ? arg + len + 1 : *i + 1 < argc ? argv[++*i] : NULL;
        uint64_t wide = 0;
        if (value == NULL)
            return -1;
        if (o->text != NULL)
            *o->text = value;
        else if (o->real != NULL) {
            char *end = NULL;
            *o->real = strtof(value, &end);
            return end != value && *end == '\0' ? 1 : -1;
        } else if (!parse_u64(value, o->number ? UINT32_MAX : UINT64_MAX, &wide))
            return -1;
        else if (o->number != NULL)
            *o->number = (uint32_t)wide;
        else
            *o->wide = wide;
        return 1;
    }
    return 0;
}

int main(int argc, char **argv_in)
{
    const char *const *argv = (const char *const *)argv_in;
    bool no_color = false, want_help = false, want_version = false, short_yes = false, short_v = false, short_h = false;
    cli c;
    memset(&c, 0, sizeof c);
    const option options[] = {
        { "--policy", &c.policy, 0, 0, 0, 0 },     { "--model", &c.model, 0, 0, 0, 0 },
        { "--home", &c.home, 0, 0, 0, 0 },         { "--purpose", &c.purpose, 0, 0, 0, 0 },
        { "--endpoint", &c.endpoint, 0, 0, 0, 0 }, { "--classes", &c.classes, 0, 0, 0, 0 },
        { "--until", &c.until, 0, 0, 0, 0 },       { "--deadline", 0, &c.deadline_ms, 0, 0, 0 },
        { "--max-tokens", 0, &c.max_tokens, 0, 0, 0 }, { "--last", 0, &c.last, 0, 0, 0 },
        { "--seed", 0, 0, &c.seed, 0, 0 },         { "--temperature", 0, 0, 0, &c.temperature, 0 },
        { "--yes", 0, 0, 0, 0, &c.yes },           { "-y", 0, 0, 0, 0, &short_yes },
        { "--json", 0, 0, 0, 0, &c.json },         { "--local-only", 0, 0, 0, 0, &c.local_only },
        { "--verbose", 0, 0, 0, 0, &c.verbose },   { "-v", 0, 0, 0, 0, &short_v },
        { "--no-color", 0, 0, 0, 0, &no_color },   { "--help", 0, 0, 0, 0, &want_help },
        { "-h", 0, 0, 0, 0, &short_h },            { "--version", 0, 0, 0, 0, &want_version },
        { "--imatrix", &c.model_options.imatrix, 0, 0, 0, 0 },
        { "--calibrate", &c.model_options.calibrate, 0, 0, 0, 0 },
        { "--save-imatrix", &c.model_options.save_imatrix, 0, 0, 0, 0 },
        { "--calibrate-tokens", 0, &c.model_options.calibrate_tokens, 0, 0, 0 },
        { "--threads", 0, &c.model_options.threads, 0, 0, 0 },
        { "--context", 0, &c.model_options.context, 0, 0, 0 },
        { "--prompt", 0, &c.model_options.prompt, 0, 0, 0 },
        { "--decode", 0, &c.model_options.decode, 0, 0, 0 },
        { "--rounds", 0, &c.model_options.rounds, 0, 0, 0 },
        { "--tensors", 0, 0, 0, 0, &c.model_options.tensors },
        { "--force", 0, 0, 0, 0, &c.model_options.force },
        { "--allow-requantize", 0, 0, 0, 0, &c.model_options.allow_requantize },
        { "--pure", 0, 0, 0, 0, &c.model_options.pure },
    };
    const char **rest = calloc((size_t)argc + 1, sizeof *rest);
    int n_rest = 0;
    if (rest == NULL)
        return EXIT_FAILED;
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        c.json = c.json || strcmp(argv[i], "--json") == 0; /* first: it says how to complain of the others */
    (void)signal(SIGPIPE, SIG_IGN); /* a closed pipe is a write error, not a death */
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            while (++i < argc)
                rest[n_rest++] = argv[i];
            break;
        }
        const char *const arg = argv[i];
        const int took = take_option(options, sizeof options / sizeof options[0], argv, argc, &i);
        if (took < 0) {
            free(rest);
            return cli_usage(c.json, "this option's value is missing or wrong:", arg);
        }
        if (took == 0 && argv[i][0] == '-' && argv[i][1] != '\0') {
            free(rest);
            return cli_usage(c.json, "unknown option", arg);
        }
        if (took == 0)
            rest[n_rest++] = argv[i];
    }
    c.yes = c.yes || short_yes;
    c.verbose = c.verbose || short_v;
    cli_term_init(&c, no_color);
    if (want_help || short_h) {
        fputs(help, stdout);
        free(rest);
        return EXIT_DONE;
    }
    if (want_version) {
        printf("sluice %s\n", sluice_version());
        free(rest);
        return EXIT_DONE;
    }
    int code = -1;
    for (size_t v = 0; n_rest > 0 && code < 0 && v < sizeof verbs / sizeof verbs[0]; v++)
        if (strcmp(rest[0], verbs[v].name) == 0) {
            c.args = rest + 1;
            c.n_args = n_rest - 1;
            code = verbs[v].run(&c);
        }
    if (code < 0) { /* asking is the default */
        c.args = rest;
        c.n_args = n_rest;
        code = cmd_ask(&c);
    }
    free(rest);
    /* What was longer than the buffer has failed before, and there is nothing left to flush then. */
    if ((fflush(stdout) != 0 || ferror(stdout) != 0) && (code == EXIT_DONE || code == EXIT_WEAK)) {
        if (errno != EPIPE) { /* a reader that leaves early has seen what it wanted */
            sluice_error err = SLUICE_ERROR_INIT;
            err.status = SLUICE_ERR_IO;
            (void)snprintf(err.message, sizeof err.message, "standard output cannot be written");
            (void)snprintf(err.hint, sizeof err.hint, "see whether its disk is full");
            cli_print_error(&c, &err, "printing");
        }
        code = EXIT_FAILED;
    }
    return code;
}
