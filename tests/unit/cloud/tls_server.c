/* tls_server.c - see tls_server.h
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE /* pipe2 */
#include "tests/unit/cloud/tls_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/temp_dir.h"

enum { START_MS = 10000 };

static void give_up(const char *what)
{
    fprintf(stderr, "tls_server: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void read_more(tls_server *s, int wait_ms)
{
    struct pollfd fd = { s->out, POLLIN, 0 };
    ssize_t n;

    if (s->n_seen + 1 >= sizeof s->seen || poll(&fd, 1, wait_ms) <= 0)
        return;
    n = read(s->out, s->seen + s->n_seen, sizeof s->seen - 1 - s->n_seen);
    for (ssize_t i = 0; i < n; i++)
        if (s->seen[s->n_seen + (size_t)i] == '\0')
            s->seen[s->n_seen + (size_t)i] = '.';
    if (n > 0)
        s->n_seen += (size_t)n;
    s->seen[s->n_seen] = '\0';
}

void tls_server_open(tls_server *s, const char *dir, const char *certificate, const char *version)
{
    char pem[600], key[600];
    int in[2], out[2];
    const char *at;

    memset(s, 0, sizeof *s);
    (void)snprintf(pem, sizeof pem, "%s/%s.pem", dir, certificate);
    (void)snprintf(key, sizeof key, "%s/server.key", dir);
    /* A socket, so that writing to a server that has gone raises no SIGPIPE: the transport must live without ignoring it. */
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in) != 0 || pipe2(out, O_CLOEXEC) != 0)
        give_up("pipe");
    s->pid = fork();
    if (s->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(in[0], 0);
        dup2(out[1], 1);
        dup2(out[1], 2);
        execlp("openssl", "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", pem, "-key", key, version, "-naccept", "1", (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    s->in = in[1];
    s->out = out[0];
    for (int waited = 0; waited < START_MS && s->port == 0; waited += 100) {
        read_more(s, 100);
        at = strstr(s->seen, "ACCEPT 127.0.0.1:");
        if (at != NULL && strchr(at, '\n') != NULL)
            s->port = atoi(at + strlen("ACCEPT 127.0.0.1:"));
    }
    if (s->port == 0)
        give_up(s->seen);
}

bool tls_server_has_seen(tls_server *s, const char *text)
{
    read_more(s, 0);
    return strstr(s->seen, text) != NULL;
}

void tls_server_say(tls_server *s, const char *text)
{
    if (send(s->in, text, strlen(text), MSG_NOSIGNAL) < 0 && errno != EPIPE)
        give_up("send");
}

void tls_server_cut(tls_server *s)
{
    if (s->pid <= 0)
        return;
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
}

void tls_server_close(tls_server *s)
{
    tls_server_cut(s);
    close(s->in);
    close(s->out);
}

static int listen_on_loopback(int *port)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof at;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 8) != 0 || getsockname(fd, (struct sockaddr *)&at, &len) != 0)
        give_up("listen");
    *port = ntohs(at.sin_port);
    return fd;
}

static void answer_in_the_clear(int fd, const char *needle, const char *text)
{
    static const char refusal[] = "HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    char request[8192];
    const ssize_t n = read(fd, request, sizeof request - 1);

    if (n <= 0)
        return;
    request[n] = '\0';
    if (needle != NULL && strstr(request, needle) == NULL)
        text = refusal;
    if (write(fd, text, strlen(text)) > 0)
        shutdown(fd, SHUT_WR);
    while (read(fd, request, sizeof request) > 0)
        ;
}

void raw_server_open(raw_server *s, const char *needle, const char *text)
{
    const int listener = listen_on_loopback(&s->port);

    s->pid = fork();
    if (s->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
            const int fd = accept(listener, NULL, NULL);
            if (fd < 0 || text == NULL)
                continue; /* keep it open, and say nothing */
            answer_in_the_clear(fd, needle, text);
            close(fd);
        }
    }
    close(listener);
}

void raw_server_close(raw_server *s)
{
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
}

int unused_port(void)
{
    int port;

    close(listen_on_loopback(&port));
    return port;
}

static temp_dir certs;
static bool has_certs;

const char *test_certs(void)
{
    const char *root = getenv("SLUICE_SOURCE_DIR");
    char command[1200];

    if (has_certs)
        return certs.path;
    if (root == NULL || system("command -v openssl >/dev/null 2>&1") != 0)
        return NULL;
    temp_dir_open(&certs);
    (void)snprintf(command, sizeof command, "sh '%s/tests/unit/cloud/make_certs.sh' '%s'", root, certs.path);
    if (system(command) != 0)
        give_up("make_certs.sh failed");
    has_certs = true;
    return certs.path;
}

void test_certs_remove(void)
{
    if (has_certs)
        temp_dir_close(&certs);
    has_certs = false;
}

char *test_read_text(const char *dir, const char *name)
{
    char path[700], *text = calloc(1, 65536);
    FILE *f;

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "rb");
    if (f == NULL || text == NULL || fread(text, 1, 65535, f) == 0)
        give_up(path);
    fclose(f);
    return text;
}
