/* demo.c - the whole way, on one machine: a gateway on loopback, a dozen requests, consent once, the ledger verified.
 *
 * Round one asks everything without any consent: what the local model is sure of is answered, the rest is held back.  Then consent is asked for once,
 * and what was held back is asked again.  At the end the ledger is verified, and every byte that the gateway's TLS side saw is searched
 * for the requests' words.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ENDPOINT_BYTES_MAX = 65536, TAP_BYTES_MAX = 16 << 20, READY_WAIT_MS = 15000, CANARY_BYTES = 12 };

typedef struct demo_request {
    const char *text;
    const char *about;      /* what it shows */
    uint32_t deadline_ms;
} demo_request;

static const demo_request requests[] = {
    { "set a timer for ten minutes", "a command that the model knows", 0 },
    { "what's the weather like in Paris tomorrow?", "a command with slots", 0 },
    { "wake me up at 7 am", "a command with slots", 0 },
    { "call jane", "a command with slots", 0 },
    { "play some jazz by Miles Davis", "a command whose slots the model is not sure of", 0 },
    { "what is my credit score", "a command that the model knows", 0 },
    { "who wrote the Odyssey, and when?", "nothing the model was made for", 0 },
    { "write a haiku about the sea at night", "nothing the model was made for", 0 },
    { "explain in two sentences why the sky is blue", "nothing the model was made for", 0 },
    { "tell jane.doe@example.org that my flight lands at noon", "personal data: an e-mail address", 0 },
    { "write a poem about my card 4111 1111 1111 1111",
      "personal data that a rule forbids to send", 0 },
    { "compare the industrial revolutions of England and Japan, their causes, their social cost and what they did to the "
      "countryside, then propose three essay questions on each",
      "a deadline too short for anyone", 1 },
};
enum { N_REQUESTS = sizeof requests / sizeof requests[0] };

typedef struct row {
    answer first, second;
    bool was_asked_again;
} row;

typedef struct demo {
    const cli *c;
    char home[CLI_PATH_MAX], dir[CLI_PATH_MAX], state[CLI_PATH_MAX], gateway_dir[CLI_PATH_MAX];
    char ready[CLI_PATH_MAX], tap[CLI_PATH_MAX], policy[CLI_PATH_MAX], log[CLI_PATH_MAX], model[CLI_PATH_MAX];
    pid_t gateway;
    row rows[N_REQUESTS];
} demo;

static void say(const demo *d, const char *text)
{
    printf("\n%s%s%s\n", cli_paint(d->c->color_out, CLI_BOLD), text, cli_paint(d->c->color_out, CLI_OFF));
    fflush(stdout);
}

static int fail(const char *what, const char *why, const char *mend)
{
    fprintf(stderr, "sluice: demo: %s: %s\n  to mend it: %s\n", what, why, mend);
    return EXIT_FAILED;
}

/* ---- the gateway --------------------------------------------------------------------------------------- */

static bool find_gateway(char *out, size_t cap)
{
    return cli_beside_me(out, cap, "sluice-gateway") && access(out, X_OK) == 0;
}

static pid_t spawn(const char *log_path, const char *const *argv)
{
    const pid_t pid = fork();
    if (pid != 0)
        return pid;
    FILE *log = freopen(log_path, "ab", stderr);
    if (log != NULL)
        (void)dup2(fileno(stderr), STDOUT_FILENO);
    execv(argv[0], (char *const *)argv);
    _exit(127);
}

static bool sleep_ms(long ms)
{
    const struct timespec t = { ms / 1000, (ms % 1000) * 1000000L };
    return nanosleep(&t, NULL) == 0;
}

static int start_gateway(demo *d)
{
    char program[CLI_PATH_MAX];
    int status = 0;

    if (!find_gateway(program, sizeof program))
        return fail("the gateway", "sluice-gateway is not beside this program",
                    "build it (it needs libmicrohttpd), or install both programs into one folder");
    const char *const init[] = { program, "init", d->gateway_dir, NULL };
    pid_t pid = spawn(d->log, init);
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return fail("the gateway could not make its keys", d->log, "read that log");
    (void)unlink(d->ready);
    (void)unlink(d->tap);
    const char *const serve[] = { program, "serve", d->gateway_dir, "--port", "0", "--ready-file", d->ready, "--tap", d->tap,
                                  "--model", d->model, "--exit-with-parent", NULL };
    d->gateway = spawn(d->log, serve);
    if (d->gateway < 0)
        return fail("the gateway could not be started", strerror(errno), "is there memory left?");
    for (int waited = 0; access(d->ready, R_OK) != 0; waited += 50) {
        if (waitpid(d->gateway, &status, WNOHANG) == d->gateway) {
            d->gateway = 0;
            return fail("the gateway ended at once", d->log, "read that log");
        }
        if (waited > READY_WAIT_MS)
            return fail("the gateway is not ready", d->log, "read that log");
        (void)sleep_ms(50);
    }
    return EXIT_DONE;
}

static void stop_gateway(demo *d)
{
    if (d->gateway <= 0)
        return;
    (void)kill(d->gateway, SIGTERM);
    for (int i = 0; i < 60; i++) {
        if (waitpid(d->gateway, NULL, WNOHANG) == d->gateway) {
            d->gateway = 0;
            return;
        }
        (void)sleep_ms(50);
    }
    (void)kill(d->gateway, SIGKILL);
    (void)waitpid(d->gateway, NULL, 0);
    d->gateway = 0;
}

/* The endpoint that the gateway describes, inside a policy that permits little. */
static int write_policy(const demo *d)
{
    sluice_error err = SLUICE_ERROR_INIT;
    size_t len = 0;
    char *endpoint = cli_read_file(d->ready, ENDPOINT_BYTES_MAX, &len, &err);
    if (endpoint == NULL)
        return fail("the gateway's endpoint", err.message, "run the demo again");
    FILE *f = fopen(d->policy, "wb");
    if (f == NULL) {
        free(endpoint);
        return fail("the policy file", strerror(errno), "choose a folder that can be written: SLUICE_HOME or --home");
    }
    fprintf(f,
            "{\n"
            "  \"sluice_policy\": 1,\n"
            "  \"id\": \"demo\",\n"
            "  \"version\": 1,\n"
            "  \"mode\": \"prefer_local\",\n"
            "  \"router\": {\"escalate_below\": 0.6, \"stop_below\": 0.1, \"deadline_ms\": 10000, \"max_tokens\": 64},\n"
            "  \"purposes\": [{\"id\": \"answer_question\", \"text\": \"Answer what the model on this device cannot.\", \"text_version\": 1}],\n"
            "  \"endpoints\": [\n%s\n  ],\n"
            "  \"rules\": [\n"
            "    {\"id\": \"cloud-help\", \"effect\": \"permit\", \"purposes\": [\"answer_question\"], \"endpoints\": [\"gateway\"],\n"
            "     \"classes\": [\"prompt\", \"email\"], \"consent\": true},\n"
            "    {\"id\": \"never-cards-or-secrets\", \"effect\": \"forbid\", \"classes\": [\"payment_card\", \"secret\"]}\n"
            "  ]\n"
            "}\n",
            endpoint);
    free(endpoint);
    if (fclose(f) != 0)
        return fail("the policy file", strerror(errno), "is the disk full?");
    return EXIT_DONE;
}

/* ---- asking -------------------------------------------------------------------------------------------- */

static void print_request(const demo *d, size_t i, const answer *a)
{
    const bool color = d->c->color_out;
    printf("\n%s%2zu. %s%s\n", cli_paint(color, CLI_BLUE), i + 1, requests[i].text, cli_paint(color, CLI_OFF));
    printf("    %s%s%s\n", cli_paint(color, CLI_DIM), requests[i].about, cli_paint(color, CLI_OFF));
    if (a->text_len > 0) {
        printf("    %s ", a->done.outcome == SLUICE_OUTCOME_ANSWERED ? "answer:" : "a guess:");
        cli_print_text(stdout, a->text, a->text_len);
        printf("\n");
    }
    printf("    ");
    answer_print_line(d->c, a, stdout, color);
    fflush(stdout);
}

static int ask(demo *d, session *ses, size_t i, answer *out)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_request r;
    sluice_message m;

    session_fill_request(d->c, &r, &m, requests[i].text, strlen(requests[i].text));
    r.deadline_ms = requests[i].deadline_ms;
    r.purpose = "answer_question";
    if (session_ask(ses, &r, NULL, NULL, out, &err) != SLUICE_OK) {
        cli_print_error(d->c, &err, "asking");
        return cli_exit_code(err.status);
    }
    if (!d->c->json)
        print_request(d, i, out);
    return EXIT_DONE;
}

/* Once, for everything that the demo holds back: to this gateway, for a prompt that may hold an e-mail address, for this session. */
static bool ask_consent(const demo *d)
{
    char line[32] = "";

    if (!d->c->json) {
        say(d, "Consent");
        printf("What was held back may go to the gateway on this machine, sealed, for the purpose\n"
               "\"Answer what the model on this device cannot\", when you agree.\n"
               "  what: prompt, email    to: gateway    until: this session ends\n");
    }
    if (d->c->yes) {
        if (!d->c->json)
            puts("agreed, by --yes");
        return true;
    }
    if (!isatty(STDIN_FILENO)) {
        if (!d->c->json)
            puts("not agreed: there is nobody to ask (sluice demo --yes agrees)");
        return false;
    }
    printf("Agree? [y/N] ");
    fflush(stdout);
    return fgets(line, sizeof line, stdin) != NULL && (line[0] == 'y' || line[0] == 'Y');
}

static sluice_status grant(session *ses, char *id, sluice_error *err)
{
    sluice_consent consent;
    sluice_consent_init(&consent, sizeof consent);
    (void)snprintf(consent.purpose, sizeof consent.purpose, "answer_question");
    (void)snprintf(consent.endpoint, sizeof consent.endpoint, "gateway");
    consent.classes = SLUICE_CLASS_PROMPT | SLUICE_CLASS_EMAIL;
    consent.scope = SLUICE_CONSENT_SESSION;
    return sluice_consent_grant(session_instance(ses), &consent, id, err);
}

/* Also what a rule forbids: consent does not change that, and round two shows it. */
static bool is_held_back(const answer *a)
{
    return a->done.outcome == SLUICE_OUTCOME_NEEDS_CONSENT || a->done.outcome == SLUICE_OUTCOME_LOW_CONFIDENCE ||
           a->done.outcome == SLUICE_OUTCOME_REFUSED;
}

/* ---- proof --------------------------------------------------------------------------------------------- */

/* How many pieces of the requests stand in what the gateway's TLS side saw, before it opened the envelopes. */
static size_t count_leaks(const demo *d, size_t *n_bytes)
{
    sluice_error err = SLUICE_ERROR_INIT;
    size_t n = 0;
    char *tap = cli_read_file(d->tap, TAP_BYTES_MAX, n_bytes, &err);

    if (tap == NULL)
        return SIZE_MAX;
    for (size_t i = 0; i < N_REQUESTS; i++)
        for (size_t at = 0; at + CANARY_BYTES <= strlen(requests[i].text); at++)
            n += memmem(tap, *n_bytes, requests[i].text + at, CANARY_BYTES) != NULL;
    free(tap);
    return n;
}

static void print_table(const demo *d)
{
    printf("%-44s %-15s %-6s %5s  %-15s %-6s %6s\n", "request", "without consent", "by", "sure", "with consent", "by", "sealed");
    for (size_t i = 0; i < N_REQUESTS; i++) {
        const row *r = &d->rows[i];
        char sure[8] = "-";
        if (r->first.done.confidence >= 0.0f)
            (void)snprintf(sure, sizeof sure, "%.0f %%", (double)r->first.done.confidence * 100.0);
        printf("%-44.44s %-15s %-6s %5s  ", requests[i].text, sluice_outcome_name(r->first.done.outcome),
               sluice_route_name(r->first.done.route), sure);
        if (r->was_asked_again)
            printf("%-15s %-6s %6llu\n", sluice_outcome_name(r->second.done.outcome), sluice_route_name(r->second.done.route),
                   (unsigned long long)r->second.done.receipt.sealed_bytes_sent);
        else
            printf("%-15s %-6s %6d\n", "-", "-", 0);
    }
}

static int run_rounds(demo *d, session *ses)
{
    sluice_error err = SLUICE_ERROR_INIT;
    char consent_id[SLUICE_ID_MAX] = "";
    int code = EXIT_DONE;

    if (!d->c->json)
        say(d, "Round one: no consent.  The local model answers what it is sure of; nothing leaves.");
    for (size_t i = 0; i < N_REQUESTS && code == EXIT_DONE; i++)
        code = ask(d, ses, i, &d->rows[i].first);
    if (code != EXIT_DONE)
        return code;
    if (ask_consent(d)) {
        if (grant(ses, consent_id, &err) != SLUICE_OK) {
            cli_print_error(d->c, &err, "recording the consent");
            return cli_exit_code(err.status);
        }
        if (!d->c->json)
            say(d, "Round two: the requests that were held back, with consent.");
        for (size_t i = 0; i < N_REQUESTS && code == EXIT_DONE; i++)
            if (is_held_back(&d->rows[i].first)) {
                d->rows[i].was_asked_again = true;
                code = ask(d, ses, i, &d->rows[i].second);
            }
        if (code == EXIT_DONE && sluice_consent_revoke(session_instance(ses), consent_id, &err) != SLUICE_OK) {
            cli_print_error(d->c, &err, "revoking the consent");
            code = cli_exit_code(err.status);
        }
    }
    return code;
}

static int finish(demo *d, session *ses)
{
    sluice_error err = SLUICE_ERROR_INIT;
    uint64_t n_entries = 0;
    size_t n_bytes = 0;

    const sluice_status st = sluice_ledger_verify(session_instance(ses), &n_entries, &err);
    if (st != SLUICE_OK) {
        cli_print_error(d->c, &err, "verifying the ledger");
        return cli_exit_code(st);
    }
    stop_gateway(d); /* so that the tap is whole */
    const size_t leaks = count_leaks(d, &n_bytes);
    if (d->c->json) {
        fputs("{\"requests\": [", stdout);
        for (size_t i = 0; i < N_REQUESTS; i++) {
            fputs(i ? ",\n {\"prompt\": " : "\n {\"prompt\": ", stdout);
            cli_json_str(stdout, requests[i].text, strlen(requests[i].text));
            fputs(", \"without_consent\": ", stdout);
            answer_print_json(&d->rows[i].first, stdout);
            if (d->rows[i].was_asked_again) {
                fputs(", \"with_consent\": ", stdout);
                answer_print_json(&d->rows[i].second, stdout);
            }
            fputs("}", stdout);
        }
        printf("],\n \"ledger\": {\"entries\": %llu, \"verified\": true}, \"gateway_tls_bytes\": %zu, \"prompt_fragments_in_them\": %zu}\n",
               (unsigned long long)n_entries, n_bytes, leaks);
    } else {
        say(d, "What happened");
        print_table(d);
        printf("\nledger: %llu entries, chain and authentication verified\n", (unsigned long long)n_entries);
        if (leaks == SIZE_MAX)
            printf("gateway: its tap could not be read: %s\n", d->tap);
        else
            printf("gateway: saw %zu bytes on its TLS side; %zu fragments of %d or more bytes of any request in them\n", n_bytes, leaks, CANARY_BYTES);
        printf("\nEverything the demo wrote is in %s\n", d->dir);
    }
    return leaks == 0 || leaks == SIZE_MAX ? EXIT_DONE : EXIT_INTEGRITY;
}

static int prepare(demo *d)
{
    const cli *c = d->c;
    const sluice_platform *p = sluice_platform_default();
    sluice_error err = SLUICE_ERROR_INIT;

    if (!cli_home(c, d->home, sizeof d->home) || !cli_join(d->dir, sizeof d->dir, d->home, "demo") ||
        !cli_join(d->state, sizeof d->state, d->dir, "state") || !cli_join(d->gateway_dir, sizeof d->gateway_dir, d->dir, "gateway") ||
        !cli_join(d->ready, sizeof d->ready, d->dir, "endpoint.json") || !cli_join(d->tap, sizeof d->tap, d->dir, "gateway.tap") ||
        !cli_join(d->policy, sizeof d->policy, d->dir, "policy.json") || !cli_join(d->log, sizeof d->log, d->dir, "gateway.log"))
        return fail("the state folder", "its path is too long", "choose a shorter one: SLUICE_HOME or --home");
    if (!cli_model_path(c, d->model, sizeof d->model))
        return fail("the model", "no model file was found", "give one with --model FILE");
    if (p->make_dir(p->user, d->dir, &err) != SLUICE_OK) {
        cli_print_error(c, &err, "making the state folder");
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}

int cmd_demo(const cli *c)
{
    static demo d; /* large; there is one demo in a process */
    sluice_error err = SLUICE_ERROR_INIT;
    session *ses = NULL;

    d.c = c;
    int code = prepare(&d);
    if (code != EXIT_DONE)
        return code;
    if (!c->json) {
        printf("Sluice %s.  State folder: %s\nModel: %s\n", sluice_version(), d.dir, d.model);
        puts("The \"cloud\" of this demo is a gateway on loopback that answers from a second instance of the same engine.");
    }
    code = start_gateway(&d);
    if (code == EXIT_DONE)
        code = write_policy(&d);
    if (code == EXIT_DONE && session_open(&ses, c, true, false, d.policy, d.state, &err) != SLUICE_OK) {
        cli_print_error(c, &err, "opening");
        code = cli_exit_code(err.status);
    }
    if (code == EXIT_DONE)
        code = run_rounds(&d, ses);
    if (code == EXIT_DONE)
        code = finish(&d, ses);
    session_close(ses);
    stop_gateway(&d);
    for (size_t i = 0; i < N_REQUESTS; i++) {
        answer_free(&d.rows[i].first);
        answer_free(&d.rows[i].second);
    }
    return code;
}
