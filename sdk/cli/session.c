/* session.c - an open instance for the verbs that ask, and what is shown of an answer.
 *
 * Events are pulled with sluice_poll() on the main thread, so that a question for consent can wait for the person at the terminal while
 * the instance keeps the deadline.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/cli/cli.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Without a policy file nothing may leave. */
static const char local_only_policy[] =
    "{\"sluice_policy\": 1, \"id\": \"built-in-local-only\", \"version\": 1, \"mode\": \"local_only\"}";

typedef struct question {
    bool is_open;
    uint64_t request_id;
    sluice_data_classes classes;
    char purpose_text[512], endpoint[SLUICE_ID_MAX], controller[128], region[64];
} question;

struct session {
    const cli *c;
    sluice *s;
    char policy[CLI_PATH_MAX], model[CLI_PATH_MAX], state[CLI_PATH_MAX];
    sluice_mutex *lock; /* guards q: it is filled in on the orchestrator */
    question q;
};

typedef struct asking {
    session *ses;
    answer *a;
    session_text_fn on_text;
    void *user;
    bool is_done, is_out_of_memory;
} asking;

static void on_consent(const sluice_consent_request *ask, void *user)
{
    session *ses = user;
    const sluice_platform *p = sluice_platform_default();

    p->mutex_lock(p->user, ses->lock);
    ses->q.is_open = true;
    ses->q.request_id = ask->request_id;
    ses->q.classes = ask->classes;
    (void)snprintf(ses->q.purpose_text, sizeof ses->q.purpose_text, "%s", ask->purpose_text);
    (void)snprintf(ses->q.endpoint, sizeof ses->q.endpoint, "%s", ask->endpoint);
    (void)snprintf(ses->q.controller, sizeof ses->q.controller, "%s", ask->controller);
    (void)snprintf(ses->q.region, sizeof ses->q.region, "%s", ask->region);
    p->mutex_unlock(p->user, ses->lock);
}

sluice_status session_open(session **out, const cli *c, bool with_model, bool can_ask, const char *policy_path,
                           const char *state_dir, sluice_error *err)
{
    const sluice_platform *p = sluice_platform_default();
    char home[CLI_PATH_MAX];
    sluice_options o;

    *out = NULL;
    if (!cli_home(c, home, sizeof home) || strlen(home) + sizeof "/policy.json" > sizeof home) {
        memset(err, 0, sizeof *err);
        err->status = SLUICE_ERR_ARGUMENT;
        (void)snprintf(err->message, sizeof err->message, "the state folder's path is too long");
        (void)snprintf(err->hint, sizeof err->hint, "choose a shorter one: SLUICE_HOME or --home");
        return err->status;
    }
    session *ses = calloc(1, sizeof *ses);
    if (ses == NULL || p->mutex_create(p->user, &ses->lock, err) != SLUICE_OK) {
        memset(err, 0, sizeof *err);
        err->status = SLUICE_ERR_NO_MEMORY;
        (void)snprintf(err->message, sizeof err->message, "no memory");
        free(ses);
        return err->status;
    }
    ses->c = c;
    sluice_options_init(&o, sizeof o);
    if (state_dir != NULL)
        (void)snprintf(ses->state, sizeof ses->state, "%s", state_dir);
    else
        (void)cli_join(ses->state, sizeof ses->state, home, "state");
    o.state_dir = ses->state;
    if (policy_path == NULL)
        policy_path = c->policy;
    if (policy_path != NULL)
        (void)snprintf(ses->policy, sizeof ses->policy, "%s", policy_path);
    else if (!cli_join(ses->policy, sizeof ses->policy, home, "policy.json") || access(ses->policy, F_OK) != 0)
        ses->policy[0] = '\0';
    if (ses->policy[0] != '\0') {
        o.policy_path = ses->policy;
    } else {
        o.policy_json.ptr = (const uint8_t *)local_only_policy;
        o.policy_json.len = sizeof local_only_policy - 1;
    }
    if (with_model && cli_model_path(c, ses->model, sizeof ses->model))
        o.model_path = ses->model;
    o.poll_events = true;
    if (can_ask) {
        o.on_consent = on_consent;
        o.on_consent_user = ses;
    }
    const sluice_status st = sluice_open(&ses->s, &o, err);
    if (st != SLUICE_OK) {
        session_close(ses);
        return st;
    }
    *out = ses;
    return SLUICE_OK;
}

void session_close(session *ses)
{
    const sluice_platform *p = sluice_platform_default();
    if (ses == NULL)
        return;
    sluice_close(ses->s);
    p->mutex_destroy(p->user, ses->lock);
    free(ses);
}

sluice *session_instance(session *ses)
{
    return ses->s;
}

const char *session_state_dir(const session *ses)
{
    return ses->state;
}

void session_fill_request(const cli *c, sluice_request *r, sluice_message *m, const char *text, size_t len)
{
    sluice_request_init(r, sizeof *r);
    m->role = "user";
    m->text.ptr = (const uint8_t *)text;
    m->text.len = len;
    r->messages = m;
    r->n_messages = 1;
    r->deadline_ms = c->deadline_ms;
    r->purpose = c->purpose;
    r->max_tokens = c->max_tokens;
    r->temperature = c->temperature;
    r->seed = c->seed;
    r->privacy = c->local_only ? SLUICE_PRIVACY_LOCAL_ONLY : SLUICE_PRIVACY_POLICY;
}

static void keep_text(asking *k, const char *text, size_t len)
{
    char *grown = realloc(k->a->text, k->a->text_len + len + 1);
    if (grown == NULL) {
        k->is_out_of_memory = true;
        return;
    }
    memcpy(grown + k->a->text_len, text, len);
    k->a->text = grown;
    k->a->text_len += len;
    grown[k->a->text_len] = '\0';
}

static void on_event(const sluice_event *e, void *user)
{
    asking *k = user;
    switch (e->kind) {
    case SLUICE_EVENT_ROUTE:
        k->a->route = *e;
        k->a->route.text = (sluice_span){ NULL, 0 };
        break;
    case SLUICE_EVENT_TEXT:
        keep_text(k, (const char *)e->text.ptr, e->text.len);
        if (k->on_text != NULL)
            k->on_text((const char *)e->text.ptr, e->text.len, false, k->user);
        break;
    case SLUICE_EVENT_RESTART:
        k->a->text_len = 0;
        k->a->n_restarts++;
        if (k->on_text != NULL)
            k->on_text("", 0, true, k->user);
        break;
    case SLUICE_EVENT_CONSENT: k->a->was_asked = true; break;
    case SLUICE_EVENT_DONE:
        k->a->done = *e;
        k->a->done.text = (sluice_span){ NULL, 0 };
        k->is_done = true;
        break;
    }
}

static bool take_question(session *ses, question *out)
{
    const sluice_platform *p = sluice_platform_default();
    p->mutex_lock(p->user, ses->lock);
    const bool open = ses->q.is_open;
    *out = ses->q;
    ses->q.is_open = false;
    p->mutex_unlock(p->user, ses->lock);
    return open;
}

static void print_question(const session *ses, const question *q)
{
    char classes[256];
    cli_class_names(q->classes, classes, sizeof classes);
    fprintf(stderr, "\n%sMay this request leave the device?%s\n", cli_paint(ses->c->color_err, CLI_BOLD),
            cli_paint(ses->c->color_err, CLI_OFF));
    fprintf(stderr, "  why:   %s\n", q->purpose_text);
    fprintf(stderr, "  to:    %s%s%s%s%s%s\n", q->endpoint, q->controller[0] ? " (" : "", q->controller,
            q->controller[0] ? ")" : "", q->region[0] ? ", " : "", q->region);
    fprintf(stderr, "  what:  %s\n", classes);
    fprintf(stderr, "[o]nce, this [s]ession, [a]lways until revoked, or [n]o? ");
    fflush(stderr);
}

/* A line from the terminal, or nothing once the request has ended meanwhile. */
static void answer_question(asking *k, const question *q)
{
    session *ses = k->ses;
    sluice_consent grant;
    sluice_error err = SLUICE_ERROR_INIT;
    char line[64] = "n";

    sluice_consent_init(&grant, sizeof grant);
    grant.scope = SLUICE_CONSENT_ONCE;
    if (!ses->c->yes) {
        print_question(ses, q);
        struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
        while (!k->is_done && poll(&in, 1, 100) == 0)
            (void)sluice_poll(ses->s, 0, NULL);
        if (k->is_done || fgets(line, sizeof line, stdin) == NULL)
            line[0] = 'n';
    } else {
        line[0] = 'o';
    }
    if (line[0] == 's')
        grant.scope = SLUICE_CONSENT_SESSION;
    if (line[0] == 'a')
        grant.scope = SLUICE_CONSENT_UNTIL;
    const bool yes = line[0] == 'o' || line[0] == 's' || line[0] == 'a';
    const sluice_status st = sluice_consent_answer(ses->s, q->request_id, yes ? &grant : NULL, &err);
    if (st != SLUICE_OK && st != SLUICE_ERR_NOT_FOUND)
        cli_print_error(ses->c, &err, "recording the consent");
}

sluice_status session_ask(session *ses, const sluice_request *request, session_text_fn on_text, void *user, answer *out,
                          sluice_error *err)
{
    asking k = { ses, out, on_text, user, false, false };
    question q;

    memset(out, 0, sizeof *out);
    const sluice_status st = sluice_submit(ses->s, request, on_event, &k, NULL, err);
    if (st != SLUICE_OK)
        return st;
    while (!k.is_done) {
        (void)sluice_poll(ses->s, 50, NULL);
        if (!k.is_done && take_question(ses, &q))
            answer_question(&k, &q);
    }
    if (k.is_out_of_memory) {
        memset(err, 0, sizeof *err);
        err->status = SLUICE_ERR_NO_MEMORY;
        (void)snprintf(err->message, sizeof err->message, "no memory for the answer");
        return err->status;
    }
    return SLUICE_OK;
}

void answer_free(answer *a)
{
    free(a->text);
    memset(a, 0, sizeof *a);
}

int answer_exit_code(const answer *a)
{
    switch (a->done.outcome) {
    case SLUICE_OUTCOME_ANSWERED: return EXIT_DONE;
    case SLUICE_OUTCOME_LOW_CONFIDENCE: return EXIT_WEAK;
    case SLUICE_OUTCOME_NEEDS_CONSENT: return EXIT_CONSENT;
    case SLUICE_OUTCOME_REFUSED: return EXIT_POLICY;
    case SLUICE_OUTCOME_ABSTAINED: return EXIT_MODEL;
    default: /* an encoder, say, which answers nothing */
        return a->done.status == SLUICE_ERR_UNSUPPORTED ? EXIT_MODEL : cli_exit_code(a->done.status);
    }
}

static void print_reasons_json(FILE *out, const sluice_event *e)
{
    fputs("[", out);
    for (size_t i = 0; i < e->n_reasons; i++)
        fprintf(out, "%s{\"code\": %d, \"name\": \"%s\"}", i ? ", " : "", (int)e->reasons[i],
                sluice_reason_name(e->reasons[i]));
    fputs("]", out);
}

void answer_print_json(const answer *a, FILE *out)
{
    const sluice_event *e = &a->done;
    char classes[256];

    cli_class_names(e->receipt.classes, classes, sizeof classes);
    fputs("{\"text\": ", out);
    cli_json_str(out, a->text ? a->text : "", a->text_len);
    fprintf(out, ", \"outcome\": \"%s\", \"route\": \"%s\", \"reasons\": ", sluice_outcome_name(e->outcome),
            sluice_route_name(e->route));
    print_reasons_json(out, e);
    if (e->confidence >= 0.0f)
        fprintf(out, ", \"confidence\": %.4f", (double)e->confidence);
    fprintf(out, ", \"status\": \"%s\"", sluice_status_name(e->status));
    if (e->status != SLUICE_OK) {
        fputs(", \"error\": ", out);
        cli_json_str(out, e->error.message, strlen(e->error.message));
        fputs(", \"hint\": ", out);
        cli_json_str(out, e->error.hint, strlen(e->error.hint));
    }
    fprintf(out, ", \"prompt_tokens\": %u, \"output_tokens\": %u", e->prompt_tokens, e->output_tokens);
    fprintf(out, ", \"timings\": {\"features_us\": %llu, \"prefill_us\": %llu, \"ttft_us\": %llu, \"tpot_us\": %llu, \"total_us\": %llu}",
            (unsigned long long)e->timings.features_us, (unsigned long long)e->timings.prefill_us,
            (unsigned long long)e->timings.ttft_us, (unsigned long long)e->timings.tpot_us,
            (unsigned long long)e->timings.total_us);
    fprintf(out, ", \"receipt\": {\"attempts\": %u, \"endpoint\": \"%s\", \"rule\": \"%s\", \"consent\": \"%s\", \"ledger_seq\": %llu, "
                 "\"sealed_bytes_sent\": %llu, \"sealed_bytes_received\": %llu, \"data_classes\": \"%s\"}}\n",
            e->receipt.attempts, e->receipt.endpoint, e->receipt.rule, e->receipt.consent,
            (unsigned long long)e->receipt.ledger_seq, (unsigned long long)e->receipt.sealed_bytes_sent,
            (unsigned long long)e->receipt.sealed_bytes_received, classes);
}

void answer_print_line(const cli *c, const answer *a, FILE *out, bool color)
{
    const sluice_event *e = &a->done;
    const char *paint = e->outcome == SLUICE_OUTCOME_ANSWERED ? CLI_GREEN : CLI_YELLOW;

    fprintf(out, "%s%s%s", cli_paint(color, paint), sluice_outcome_name(e->outcome), cli_paint(color, CLI_OFF));
    if (e->route == SLUICE_ROUTE_LOCAL || e->route == SLUICE_ROUTE_CLOUD)
        fprintf(out, "%s %s", e->outcome == SLUICE_OUTCOME_ANSWERED ? " by" : ", a guess by", sluice_route_name(e->route));
    if (e->confidence >= 0.0f)
        fprintf(out, ", %.0f %% sure", (double)e->confidence * 100.0);
    fprintf(out, ", %.1f ms", (double)e->timings.total_us / 1000.0);
    if (e->output_tokens > 0)
        fprintf(out, ", %u + %u tokens", e->prompt_tokens, e->output_tokens);
    if (e->receipt.attempts > 0 && e->receipt.sealed_bytes_sent == 0)
        fprintf(out, ", nothing left the device: no connection to %s in %u attempts", e->receipt.endpoint, e->receipt.attempts);
    else if (e->receipt.attempts > 0)
        fprintf(out, ", %llu sealed bytes to %s (ledger entry %llu)", (unsigned long long)e->receipt.sealed_bytes_sent,
                e->receipt.endpoint, (unsigned long long)e->receipt.ledger_seq);
    else
        fputs(", nothing left the device", out);
    fputc('\n', out);
    if (e->status != SLUICE_OK && e->error.message[0] != '\0')
        fprintf(out, "  %s%s%s\n", e->error.message, e->error.hint[0] ? "; to mend it: " : "", e->error.hint);
    fprintf(out, "%s  why: ", cli_paint(color, CLI_DIM));
    for (size_t i = 0; i < e->n_reasons; i++)
        fprintf(out, "%s%s", i ? ", " : "", sluice_reason_name(e->reasons[i]));
    fprintf(out, "%s\n", cli_paint(color, CLI_OFF));
    if (c->verbose)
        for (size_t i = 0; i < e->n_reasons; i++)
            fprintf(out, "    %d %s\n", (int)e->reasons[i], sluice_reason_text(e->reasons[i]));
}
