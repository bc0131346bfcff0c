/* house.c - see house.h
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include "tests/integration/house.h"

#include "tests/support/cm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sdk/crypto/crypto.h"

enum { READY_MS = 30000, ANSWER_MS = 60000, ARGUMENTS_MAX = 32 };

static const char *gateway_program, *gateway_model;

void house_programs(const char *gateway, const char *model)
{
    gateway_program = gateway;
    gateway_model = model;
}

static void *read_whole(const char *path, size_t *len)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    char *text = NULL;
    ssize_t n = 0;

    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) == 0 && (text = calloc(1, (size_t)st.st_size + 1)) != NULL)
        n = read(fd, text, (size_t)st.st_size);
    close(fd);
    *len = n > 0 ? (size_t)n : 0;
    return text;
}

static pid_t run(const char *const *argv)
{
    const pid_t pid = fork();

    if (pid == 0) {
        const int quiet = open("/dev/null", O_WRONLY);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(quiet, 1);
        if (getenv("SLUICE_TEST_VERBOSE") == NULL)
            dup2(quiet, 2);
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    return pid;
}

bool gateway_process_open(gateway_process *g, const char *const *arguments)
{
    char dir[600], ready[600], tap[600];
    const char *argv[ARGUMENTS_MAX] = { gateway_program, "init", dir, NULL };
    size_t n = 0, len;
    int status;

    if (g->work.path[0] == '\0')
        temp_dir_open(&g->work);
    (void)snprintf(dir, sizeof dir, "%s/gateway", g->work.path);
    (void)snprintf(ready, sizeof ready, "%s/ready.json", g->work.path);
    (void)snprintf(tap, sizeof tap, "%s/tap", g->work.path);
    g->pid = run(argv);
    if (waitpid(g->pid, &status, 0) < 0 || status != 0)
        return false;
    (void)unlink(ready);
    for (const char *const first[] = { gateway_program, "serve", dir, "--port", "0", "--ready-file", ready, "--tap", tap, "--exit-with-parent",
                                       NULL };
         first[n] != NULL; n++)
        argv[n] = first[n];
    bool has_upstream = false;
    for (; *arguments != NULL && n + 3 < ARGUMENTS_MAX; arguments++) {
        has_upstream = has_upstream || strcmp(*arguments, "--upstream") == 0;
        argv[n++] = *arguments;
    }
    if (!has_upstream) {
        argv[n++] = "--model";
        argv[n++] = gateway_model;
    }
    argv[n] = NULL;
    g->pid = run(argv);
    for (int waited = 0; waited < READY_MS; waited += 20) {
        free(g->endpoint);
        g->endpoint = read_whole(ready, &len); /* written by rename: whole or not there */
        if (g->endpoint != NULL)
            return true;
        if (waitpid(g->pid, NULL, WNOHANG) == g->pid)
            break;
        usleep(20000);
    }
    g->pid = 0;
    return false;
}

int gateway_process_stop(gateway_process *g)
{
    int status = -1;

    if (g->pid <= 0)
        return -1;
    kill(g->pid, SIGTERM);
    for (int waited = 0; waited < 10000; waited += 20) {
        if (waitpid(g->pid, &status, WNOHANG) == g->pid) {
            g->pid = 0;
            return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        }
        usleep(20000);
    }
    kill(g->pid, SIGKILL);
    waitpid(g->pid, &status, 0);
    g->pid = 0;
    return -1;
}

void gateway_process_close(gateway_process *g)
{
    (void)gateway_process_stop(g);
    free(g->endpoint);
    temp_dir_close(&g->work);
    memset(g, 0, sizeof *g);
}

void *gateway_process_tap(gateway_process *g, size_t *len)
{
    return read_whole(temp_dir_file(&g->work, "tap"), len);
}

/* ---- the client ------------------------------------------------------------------------------------------- */

static void must(sluice_status st, const sluice_error *err)
{
    if (st != SLUICE_OK)
        fail_msg("%s: %s (%s)", sluice_status_name(st), err->message, err->hint);
}

void house_open(house *h, const char *endpoint_json)
{
    const sluice_platform *p = sluice_platform_default();
    const size_t cap = strlen(endpoint_json) + 1024;
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_consent consent;
    char *policy = malloc(cap);

    memset(h, 0, sizeof *h);
    must(sluice_crypto_init(&err), &err);
    temp_dir_open(&h->state);
    (void)snprintf(
        policy, cap,
        "{\"sluice_policy\":1,\"id\":\"test\",\"version\":1,\"purposes\":[{\"id\":\"ask\",\"text\":\"Your question goes to the gateway.\"}],"
        "\"endpoints\":[%s],\"rules\":[{\"id\":\"allow\",\"effect\":\"permit\",\"purposes\":[\"ask\"],\"endpoints\":[\"gateway\"],\"classes\":["
        "\"prompt\"]}]}",
        endpoint_json);
    must(sluice_policy_parse(&h->policy, sluice_span_str(policy), NULL, NULL, NULL, NULL, NULL, &err), &err);
    free(policy);
    must(sluice_ledger_open(&h->ledger, h->state.path, p, NULL, &err), &err);
    must(sluice_consent_open(&h->consents, h->ledger, p, NULL, &err), &err);
    memset(&consent, 0, sizeof consent);
    consent.size = sizeof consent;
    strcpy(consent.purpose, "ask");
    strcpy(consent.endpoint, "gateway");
    consent.classes = SLUICE_CLASS_PROMPT;
    consent.scope = SLUICE_CONSENT_UNTIL;
    must(sluice_consent_add(h->consents, h->policy, &consent, NULL, &err), &err);
    must(sluice_egress_open(&h->gate, h->policy, h->consents, h->ledger, p, NULL, &err), &err);
    must(sluice_transport_curl_open(&h->transport, p, NULL, &err), &err);
}

void house_close(house *h)
{
    h->transport.close(h->transport.user);
    sluice_egress_close(h->gate);
    sluice_consent_close(h->consents);
    sluice_ledger_close(h->ledger);
    sluice_policy_close(h->policy);
    temp_dir_close(&h->state);
}

static bool on_text(const sluice_provider_event *e, void *user)
{
    house_answer *a = user;

    if (e->part == SLUICE_PROVIDER_TEXT) {
        assert_true(a->n_text + e->text.len < sizeof a->text);
        memcpy(a->text + a->n_text, e->text.ptr, e->text.len);
        a->n_text += e->text.len;
        a->n_pieces++;
    }
    return true;
}

sluice_status house_seal(house *h, const house_question *q, house_answer *a)
{
    const sluice_platform *p = sluice_platform_default();
    const sluice_policy_endpoint *ep = &h->policy->endpoints[0];
    const sluice_provider_message message = { "user", sluice_span_str(q->text) };
    const sluice_provider_request request = { .authority = ep->target_authority,
                                              .path = ep->target_path,
                                              .model = ep->model,
                                              .messages = &message,
                                              .n_messages = 1,
                                              .max_tokens = 64,
                                              .is_streamed = q->is_streamed,
                                              .date_ms = sluice_wall_ms(p) + q->date_offset_ms };
    sluice_egress_request gate = { .request_id = 1, .attempt = 1, .query = { .classes = SLUICE_CLASS_PROMPT, .network = SLUICE_NETWORK_UNMETERED } };
    sluice_grant *grant = NULL;
    sluice_reason reason;
    sluice_status st;
    sluice_buf plain;

    memset(a, 0, sizeof *a);
    a->provider = sluice_provider_find(ep->adapter);
    sluice_buf_init(&plain, NULL, 65536);
    st = a->provider->build(&request, &plain, NULL, &a->error);
    gate.plaintext = sluice_buf_span(&plain);
    gate.expires_us = sluice_now_us(p) + ANSWER_MS * 1000ull;
    if (st == SLUICE_OK)
        st = sluice_egress_grant(h->gate, &gate, &grant, &reason, &a->error);
    if (st == SLUICE_OK)
        st = sluice_seal(grant, gate.plaintext, q->is_streamed, p, NULL, &a->envelope, &a->opener, &a->error);
    if (st == SLUICE_OK)
        st = a->provider->reader_open(&a->reader, NULL, on_text, a, &a->error);
    sluice_grant_close(grant);
    sluice_buf_deinit(&plain);
    return st;
}

static bool on_inner(const sluice_answer_event *e, void *user)
{
    house_answer *a = user;
    sluice_error *err = a->error.status == SLUICE_OK ? &a->error : NULL;
    size_t n;

    switch (e->part) {
    case SLUICE_ANSWER_STATUS: a->inner_status = e->http_status; return a->provider->reader_status(a->reader, e->http_status, err) == SLUICE_OK;
    case SLUICE_ANSWER_HEADER:
        n = strlen(a->inner_headers);
        (void)snprintf(a->inner_headers + n, sizeof a->inner_headers - n, "%.*s=%.*s\n", (int)e->name.len, (const char *)e->name.ptr,
                       (int)e->value.len, (const char *)e->value.ptr);
        return a->provider->reader_header(a->reader, e->name, e->value, err) == SLUICE_OK;
    case SLUICE_ANSWER_BODY: return a->provider->reader_feed(a->reader, e->body, err) == SLUICE_OK;
    case SLUICE_ANSWER_END: return true;
    }
    return true;
}

static void on_outer(const sluice_exchange_event *e, void *user)
{
    house_answer *a = user;
    sluice_error *err = a->error.status == SLUICE_OK ? &a->error : NULL;

    switch (e->kind) {
    case SLUICE_EXCHANGE_CONNECTED:
    case SLUICE_EXCHANGE_SENT: break;
    case SLUICE_EXCHANGE_STATUS: a->outer_status = e->http_status; break;
    case SLUICE_EXCHANGE_HEADER:
        if (a->outer_status == 200 && sluice_span_eq_str(e->name, "content-type"))
            a->is_begun = sluice_answer_begin(a->opener, e->value, 1 << 20, on_inner, a, err) == SLUICE_OK;
        break;
    case SLUICE_EXCHANGE_BODY:
        if (a->is_begun)
            (void)sluice_answer_feed(a->opener, e->body, err);
        break;
    case SLUICE_EXCHANGE_END:
        a->is_over = true;
        a->is_whole = a->is_begun && sluice_answer_finish(a->opener, err) == SLUICE_OK && a->provider->reader_finish(a->reader, err) == SLUICE_OK;
        break;
    case SLUICE_EXCHANGE_FAILED:
        a->is_over = true;
        a->was_sent = e->was_sent;
        if (err != NULL)
            *err = e->error;
        break;
    }
}

void house_send(house *h, const house_question *q, house_answer *a)
{
    const sluice_exchange_limits limits = { .deadline_us = sluice_now_us(sluice_platform_default()) + ANSWER_MS * 1000ull,
                                            .first_byte_ms = q->first_byte_ms };
    sluice_exchange *x;

    a->is_over = a->is_begun = a->is_whole = false;
    a->outer_status = 0;
    must(h->transport.open(h->transport.user, a->envelope, &limits, on_outer, a, &x, &a->error), &a->error);
    while (!a->is_over)
        (void)h->transport.step(h->transport.user, 1000);
}

void house_answer_close(house_answer *a)
{
    if (a->reader != NULL)
        a->provider->reader_close(a->reader);
    sluice_answer_close(a->opener);
    sluice_envelope_close(a->envelope);
}
