/* main.c - sluice-gateway: a small oblivious HTTP gateway in front of a model.
 *
 *   sluice-gateway init DIR     make keys and certificates, and the endpoint's description for a policy file
 *   sluice-gateway serve DIR    open sealed requests, ask a model, seal its answers
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include "samples/gateway/parts.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { EXIT_USAGE = 2, PORT_DEFAULT = 8443, TARGETS_MAX = 8 };

static const char usage_text[] =
    "sluice-gateway - an oblivious HTTP gateway in front of a model\n"
    "\n"
    "  sluice-gateway init DIR [--host NAME] [--port N]\n"
    "      Make what is missing in DIR: a private CA, a server certificate, an oblivious HTTP key and\n"
    "      endpoint.json, which goes into the \"endpoints\" of a policy file; print that.  Existing files stay.\n"
    "      --host NAME            name or IPv4 address in the url and certificate (localhost)\n"
    "      --port N               port in the url (8443)\n"
    "\n"
    "  sluice-gateway serve DIR (--model FILE | --upstream URL) [options]\n"
    "      --model FILE           answer with a GGUF model on this machine\n"
    "      --upstream URL         answer with an OpenAI-compatible server, such as https://api.example.com\n"
    "      --upstream-key-env VAR its key is in this environment variable\n"
    "      --upstream-key-file F  its key is in this file\n"
    "      --upstream-ca FILE     CAs for it (/etc/ssl/certs/ca-certificates.crt)\n"
    "      --target AUTHORITY     let sealed requests name it as their target, beside model.gateway.internal; up to 7 times\n"
    "      --listen ADDRESS       numeric address (127.0.0.1)\n"
    "      --port N               8443; 0 lets the system choose\n"
    "      --ready-file FILE      write endpoint.json with the port in use there when connections are taken\n"
    "      --date-window SECONDS  how far a request's Date may be off (300)\n"
    "      --connections N        at most this many at once (64)\n"
    "      --exit-with-parent     end when the parent process does\n"
    "\n"
    "  for tests and demonstrations:\n"
    "      --tap FILE             append every byte that passes between TLS and the sealed layer, both ways\n"
    "      --once-fail MODE       what the first request meets: status (503 in the clear), inner (500 sealed),\n"
    "                             cut (the answer breaks off) or stall (no answer)\n"
    "\n"
    "  SIGTERM or SIGINT end it.  Exit status: 0 done, 1 failed, 2 wrong usage.\n";

typedef struct arguments {
    const char *dir, *host, *model, *upstream, *key_env, *key_file, *upstream_ca, *listen, *ready_file, *tap;
    const char *targets[TARGETS_MAX];
    size_t n_targets;
    int port;
    unsigned date_window_s, connections;
    gateway_fault once_fail;
    bool exits_with_parent;
} arguments;

/* ---- stopping -------------------------------------------------------------------------------------------- */

static int stop_pipe[2] = { -1, -1 }; /* a signal writes one byte that nobody reads: readable means stop, for every poll() */
static atomic_bool is_stopping;       /* lock-free, so fit for a signal handler, and for the threads that look at it */

bool gateway_is_stopping(void)
{
    return atomic_load(&is_stopping);
}

int gateway_stop_fd(void)
{
    return stop_pipe[0];
}

static void on_signal(int number)
{
    const int saved = errno;

    (void)number;
    atomic_store(&is_stopping, true);
    if (write(stop_pipe[1], "", 1) < 0) {
        /* full: it is readable already */
    }
    errno = saved;
}

static bool catch_signals(bool with_parent, sluice_error *err)
{
    struct sigaction action = { .sa_handler = on_signal };
    const pid_t parent = getppid();

    if (pipe2(stop_pipe, O_CLOEXEC | O_NONBLOCK) != 0)
        return gateway_fail(err, SLUICE_ERR_IO, "", "no pipe: %s", strerror(errno));
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* libmicrohttpd and libcurl write to sockets that may have closed */
    if (with_parent) {
        if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0)
            return gateway_fail(err, SLUICE_ERR_UNSUPPORTED, "leave --exit-with-parent out", "the system cannot tell when the parent ends");
        if (getppid() != parent || parent == 1)
            on_signal(SIGTERM); /* it had ended before we asked */
    }
    return true;
}

/* ---- init -------------------------------------------------------------------------------------------------- */

static bool run_init(const arguments *a, sluice_error *err)
{
    char *text;

    if (!gateway_identity_init(a->dir, a->host, a->port, err))
        return false;
    text = gateway_endpoint_text(a->dir, a->port, err);
    if (text == NULL)
        return false;
    printf("%s\n", text);
    fprintf(stderr,
            "%s: ready.  Above is endpoint.json: an element for \"endpoints\" in a policy file.\n"
            "Keep ca.key and backup.key somewhere else; backup.key is the server's next key, and its pin is there already.\n",
            a->dir);
    free(text);
    return true;
}

/* ---- serve ------------------------------------------------------------------------------------------------- */

static int listen_on(const char *address, int port, sluice_error *err)
{
    struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_PASSIVE, .ai_socktype = SOCK_STREAM }, *found = NULL;
    char service[8];
    const int on = 1;
    int fd = -1;

    (void)snprintf(service, sizeof service, "%d", port);
    if (getaddrinfo(address, service, &hints, &found) != 0) {
        gateway_fail(err, SLUICE_ERR_ARGUMENT, "127.0.0.1 is this machine alone, 0.0.0.0 every IPv4 address of it",
                     "--listen: \"%s\" is no numeric address", address);
        return -1;
    }
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 64) != 0) {
        gateway_fail(err, SLUICE_ERR_IO, "is another gateway running there? --port 0 takes a free one", "cannot listen on %s port %d: %s", address,
                     port, strerror(errno));
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
}

static int port_of(int fd)
{
    struct sockaddr_storage at;
    socklen_t len = sizeof at;

    if (getsockname(fd, (struct sockaddr *)&at, &len) != 0)
        return 0;
    return ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port : ((struct sockaddr_in *)&at)->sin_port);
}

static bool announce(const arguments *a, int listener, const char *backend, sluice_error *err)
{
    const int port = port_of(listener);
    char *text = gateway_endpoint_text(a->dir, port, err);
    bool ok = text != NULL;

    if (ok && a->ready_file != NULL)
        ok = gateway_write_whole(a->ready_file, text, strlen(text), err);
    free(text);
    if (ok)
        gateway_log("listening on %s port %d; %s answers", a->listen, port, backend);
    return ok;
}

/* The key is text in a file or an environment variable; never an argument, where `ps` would show it.  free(). */
static bool read_upstream_key(const arguments *a, char **key, sluice_error *err)
{
    *key = NULL;
    if (a->key_env != NULL) {
        const char *value = getenv(a->key_env);
        if (value == NULL)
            return gateway_fail(err, SLUICE_ERR_NOT_FOUND, "set it in the environment of this command", "--upstream-key-env: there is no variable %s",
                                a->key_env);
        *key = strdup(value);
    } else if (a->key_file != NULL) {
        *key = gateway_read_file(a->key_file, NULL, err);
        if (*key == NULL)
            return false;
        (*key)[strcspn(*key, "\r\n")] = '\0';
    }
    return true;
}

static bool open_backend(const arguments *a, gateway_backend *out, sluice_error *err)
{
    gateway_upstream_options options = { .url = a->upstream, .ca_file = a->upstream_ca };
    char *key;
    bool ok;

    if (a->model != NULL)
        return gateway_engine_open(out, a->model, err);
    if (!read_upstream_key(a, &key, err))
        return false;
    options.key = key;
    ok = gateway_upstream_open(out, &options, err);
    if (key != NULL)
        explicit_bzero(key, strlen(key));
    free(key);
    return ok;
}

static bool serve_with(const arguments *a, const gateway_http_options *options, sluice_error *err)
{
    gateway_http *http = gateway_http_open(options, err);
    gateway_tls *tls = http ? gateway_tls_open(a->dir, a->tap, a->connections, http, err) : NULL;
    const int listener = tls ? listen_on(a->listen, a->port, err) : -1;
    const bool ok = listener >= 0 && announce(a, listener, options->backend.name, err);

    if (ok) {
        gateway_tls_serve(tls, listener);
        gateway_log("stopped");
    }
    if (listener >= 0)
        close(listener);
    gateway_http_close(http);
    gateway_tls_close(tls);
    return ok;
}

static bool run_serve(const arguments *a, sluice_error *err)
{
    gateway_http_options options = { .targets = { "model.gateway.internal" },
                                     .n_targets = 1,
                                     .request_bytes_max = 256 << 10,
                                     .response_bytes_max = 4 << 20,
                                     .connections_max = a->connections,
                                     .answer_ms = 120000,
                                     .once_fail = a->once_fail };
    bool ok;

    if (!catch_signals(a->exits_with_parent, err) || !gateway_identity_load(a->dir, &options.identity, err))
        return false;
    for (size_t i = 0; i < a->n_targets; i++)
        options.targets[options.n_targets++] = a->targets[i];
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return gateway_fail(err, SLUICE_ERR_UNSUPPORTED, "", "libcurl cannot be started");
    options.replay = gateway_replay_open(a->date_window_s);
    if (options.replay == NULL)
        return gateway_fail(err, SLUICE_ERR_NO_MEMORY, "", "no memory for the replay cache");
    ok = open_backend(a, &options.backend, err);
    if (ok) {
        ok = serve_with(a, &options, err);
        options.backend.close(options.backend.user);
    }
    gateway_replay_close(options.replay);
    explicit_bzero(&options.identity, sizeof options.identity);
    return ok;
}

/* ---- the command line ----------------------------------------------------------------------------------------- */

static bool parse_number(const char *name, const char *text, long least, long most, long *out, sluice_error *err)
{
    char *end;

    errno = 0;
    *out = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || *out < least || *out > most)
        return gateway_fail(err, SLUICE_ERR_ARGUMENT, "see sluice-gateway --help", "--%s: \"%s\" is not a number from %ld to %ld", name, text, least,
                            most);
    return true;
}

static bool parse_fault(const char *text, gateway_fault *out, sluice_error *err)
{
    static const struct {
        const char *name;
        gateway_fault fault;
    } rows[] = {
        { "status", GATEWAY_FAULT_STATUS }, { "inner", GATEWAY_FAULT_INNER }, { "cut", GATEWAY_FAULT_CUT }, { "stall", GATEWAY_FAULT_STALL }
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strcmp(text, rows[i].name) == 0) {
            *out = rows[i].fault;
            return true;
        }
    return gateway_fail(err, SLUICE_ERR_ARGUMENT, "status, inner, cut or stall", "--once-fail: there is no \"%s\"", text);
}

static bool parse_option(arguments *a, int which, const char *name, const char *value, sluice_error *err)
{
    long number;

    switch (which) {
    case 'h': a->host = value; return true;
    case 'm': a->model = value; return true;
    case 'u': a->upstream = value; return true;
    case 'e': a->key_env = value; return true;
    case 'f': a->key_file = value; return true;
    case 'c': a->upstream_ca = value; return true;
    case 'l': a->listen = value; return true;
    case 'r': a->ready_file = value; return true;
    case 't': a->tap = value; return true;
    case 'x': a->exits_with_parent = true; return true;
    case 'F': return parse_fault(value, &a->once_fail, err);
    case 'T':
        if (a->n_targets == TARGETS_MAX - 1)
            return gateway_fail(err, SLUICE_ERR_LIMIT, "", "--target: at most %d", TARGETS_MAX - 1);
        a->targets[a->n_targets++] = value;
        return true;
    case 'p':
        if (!parse_number(name, value, 0, 65535, &number, err))
            return false;
        a->port = (int)number;
        return true;
    case 'w':
        if (!parse_number(name, value, 1, 86400, &number, err))
            return false;
        a->date_window_s = (unsigned)number;
        return true;
    case 'n':
        if (!parse_number(name, value, 1, 4096, &number, err))
            return false;
        a->connections = (unsigned)number;
        return true;
    default: return gateway_fail(err, SLUICE_ERR_ARGUMENT, "see sluice-gateway --help", "what is \"%s\"?", name);
    }
}

static bool parse_arguments(arguments *a, int argc, char **argv, sluice_error *err)
{
    static const struct option options[] = { { "host", required_argument, NULL, 'h' },
                                             { "model", required_argument, NULL, 'm' },
                                             { "upstream", required_argument, NULL, 'u' },
                                             { "upstream-key-env", required_argument, NULL, 'e' },
                                             { "upstream-key-file", required_argument, NULL, 'f' },
                                             { "upstream-ca", required_argument, NULL, 'c' },
                                             { "listen", required_argument, NULL, 'l' },
                                             { "port", required_argument, NULL, 'p' },
                                             { "ready-file", required_argument, NULL, 'r' },
                                             { "tap", required_argument, NULL, 't' },
                                             { "target", required_argument, NULL, 'T' },
                                             { "date-window", required_argument, NULL, 'w' },
                                             { "connections", required_argument, NULL, 'n' },
                                             { "once-fail", required_argument, NULL, 'F' },
                                             { "exit-with-parent", no_argument, NULL, 'x' },
                                             { NULL, 0, NULL, 0 } };
    int which, index = 0;

    opterr = 0;
    while ((which = getopt_long(argc, argv, "", options, &index)) != -1)
        if (!parse_option(a, which, which == '?' ? argv[optind - 1] : options[index].name, optarg, err))
            return false;
    if (optind + 1 != argc)
        return gateway_fail(err, SLUICE_ERR_ARGUMENT, "see sluice-gateway --help", optind == argc ? "DIR is missing" : "there is one DIR too many");
    a->dir = argv[optind];
    return true;
}

static int complain(const sluice_error *err, int code)
{
    fprintf(stderr, "sluice-gateway: %s\n", err->message);
    if (err->hint[0] != '\0')
        fprintf(stderr, "  %s\n", err->hint);
    return code;
}

int main(int argc, char **argv)
{
    arguments a = { .host = "localhost",
                    .listen = "127.0.0.1",
                    .port = PORT_DEFAULT,
                    .upstream_ca = "/etc/ssl/certs/ca-certificates.crt",
                    .date_window_s = 300,
                    .connections = 64 };
    sluice_error err = SLUICE_ERROR_INIT;
    const char *command = argc > 1 ? argv[1] : "";
    const bool is_init = strcmp(command, "init") == 0, is_serve = strcmp(command, "serve") == 0;

    if (strcmp(command, "--help") == 0 || strcmp(command, "-h") == 0) {
        fputs(usage_text, stdout);
        return EXIT_SUCCESS;
    }
    if (strcmp(command, "--version") == 0) {
        printf("sluice-gateway %s\n", sluice_version());
        return EXIT_SUCCESS;
    }
    if (!is_init && !is_serve) {
        fputs(usage_text, stderr);
        return EXIT_USAGE;
    }
    if (!parse_arguments(&a, argc - 1, argv + 1, &err))
        return complain(&err, EXIT_USAGE);
    if (is_serve && (a.model == NULL) == (a.upstream == NULL)) {
        gateway_fail(&err, SLUICE_ERR_ARGUMENT, "give --model FILE or --upstream URL", "serve needs one thing that answers");
        return complain(&err, EXIT_USAGE);
    }
    if (!(is_init ? run_init(&a, &err) : run_serve(&a, &err)))
        return complain(&err, EXIT_FAILURE);
    return EXIT_SUCCESS;
}
