/* tls_server.h - a TLS server that a test plays: `openssl s_server`, its input and output in the test's hands.
 *
 * What the client sends is read with tls_server_wait_for(), what it shall get is written with tls_server_say(), and ending the
 * process cuts the connection where it is.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_UNIT_CLOUD_TLS_SERVER_H
#define SLUICE_TESTS_UNIT_CLOUD_TLS_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

typedef struct tls_server {
    pid_t pid;
    int in, out, port;
    char seen[65536]; /* all that s_server has printed, the client's bytes among it; NUL-terminated */
    size_t n_seen;
} tls_server;

/* certificate: a name without ".pem" in `dir`, which make_certs.sh has filled.  version: "-tls1_3" or "-tls1_2". */
void tls_server_open(tls_server *s, const char *dir, const char *certificate, const char *version);
bool tls_server_has_seen(tls_server *s, const char *text); /* without waiting */
void tls_server_say(tls_server *s, const char *text);
void tls_server_cut(tls_server *s); /* kill: the connection ends without close_notify */
void tls_server_close(tls_server *s);

/* Listens and, where `text` is not NULL, answers every connection with it in the clear; else it never answers.  With `needle`, only a
 * request that holds it gets the text, and any other 401. */
typedef struct raw_server {
    pid_t pid;
    int port;
} raw_server;
void raw_server_open(raw_server *s, const char *needle, const char *text);
void raw_server_close(raw_server *s);

int unused_port(void);        /* where nobody listens */
const char *test_certs(void); /* a folder with certificates, made once for the process; NULL without the openssl command */
void test_certs_remove(void);
char *test_read_text(const char *dir, const char *name); /* free() */

#endif
