/* tls.c - the gateway's outer door: accepts connections, ends TLS, hands plain HTTP on.
 *
 * One thread per connection pumps bytes between the TLS connection and one end of a socket pair; libmicrohttpd has the other end, and
 * never sees a connection whose handshake has failed.
 *
 *     phone ═══ TLS 1.3 ═══ [fd]  pump  [pair] ─── HTTP/1.1 ─── libmicrohttpd
 *
 * Each direction has one buffer.  A side is read only while its buffer is empty, so a slow side slows the other down and nothing
 * grows.  The tap, where there is one, gets every byte that passes here, in both directions: what it holds is all that whoever
 * ends TLS (this gateway, or a relay or content network in its place) can read.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE /* accept4 */
#include "samples/gateway/parts.h"

#include <errno.h>
#include <fcntl.h>
#include <mbedtls/error.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/psa_util.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <psa/crypto.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PUMP_BYTES = 16384, HANDSHAKE_MS = 10000, IDLE_MS = 120000 };

struct gateway_tls {
    mbedtls_ssl_config config;
    mbedtls_x509_crt chain;
    mbedtls_pk_context key;
    gateway_http *http;
    int tap;
    unsigned connections_max;
    pthread_mutex_t lock; /* n_live and the tap's order */
    pthread_cond_t changed;
    unsigned n_live;
};

typedef struct pump_side {
    uint8_t bytes[PUMP_BYTES];
    size_t at, len; /* what is left to pass on: [at, len) */
} pump_side;

typedef struct connection {
    gateway_tls *owner;
    int fd, pair;
    struct sockaddr_storage peer;
    socklen_t peer_len;
    mbedtls_ssl_context ssl;
    bool wants_write; /* TLS is waiting to write, whatever we asked it for */
    pump_side inward, outward;
} connection;

/* ---- bytes for mbedTLS ------------------------------------------------------------------------------ */

static int tls_send(void *user, const unsigned char *data, size_t len)
{
    const ssize_t n = send(*(int *)user, data, len, MSG_NOSIGNAL);

    if (n >= 0)
        return (int)n;
    return errno == EAGAIN || errno == EINTR ? MBEDTLS_ERR_SSL_WANT_WRITE : MBEDTLS_ERR_NET_SEND_FAILED;
}

static int tls_receive(void *user, unsigned char *data, size_t len)
{
    const ssize_t n = recv(*(int *)user, data, len, 0);

    if (n >= 0)
        return (int)n; /* 0: the end; mbedTLS says MBEDTLS_ERR_SSL_CONN_EOF */
    return errno == EAGAIN || errno == EINTR ? MBEDTLS_ERR_SSL_WANT_READ : MBEDTLS_ERR_NET_RECV_FAILED;
}

static void tap_write(gateway_tls *t, const void *data, size_t len)
{
    const char *at = data;

    if (t->tap < 0)
        return;
    pthread_mutex_lock(&t->lock);
    while (len > 0) {
        const ssize_t n = write(t->tap, at, len);
        if (n <= 0)
            break; /* a full disk must not stop the gateway; the tap is a test's tool */
        at += n;
        len -= (size_t)n;
    }
    pthread_mutex_unlock(&t->lock);
}

/* ---- the pump --------------------------------------------------------------------------------------- */

typedef enum pump_result { PUMP_IDLE, PUMP_MOVED, PUMP_OVER } pump_result;

static pump_result from_phone(connection *c)
{
    int n;

    if (c->inward.at < c->inward.len)
        return PUMP_IDLE;
    n = mbedtls_ssl_read(&c->ssl, c->inward.bytes, sizeof c->inward.bytes);
    if (n == MBEDTLS_ERR_SSL_WANT_WRITE)
        c->wants_write = true;
    if (n == MBEDTLS_ERR_SSL_WANT_READ || n == MBEDTLS_ERR_SSL_WANT_WRITE)
        return PUMP_IDLE;
    if (n <= 0)
        return PUMP_OVER; /* closed, orderly or not */
    tap_write(c->owner, c->inward.bytes, (size_t)n);
    c->inward.at = 0;
    c->inward.len = (size_t)n;
    return PUMP_MOVED;
}

static pump_result to_http(connection *c)
{
    ssize_t n;

    if (c->inward.at == c->inward.len)
        return PUMP_IDLE;
    n = send(c->pair, c->inward.bytes + c->inward.at, c->inward.len - c->inward.at, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return PUMP_IDLE;
    /* The other end has answered and closed without reading on: drop the bytes, its answer may still be in `outward`. */
    c->inward.at = n < 0 ? c->inward.len : c->inward.at + (size_t)n;
    return PUMP_MOVED;
}

static pump_result from_http(connection *c)
{
    ssize_t n;

    if (c->outward.at < c->outward.len)
        return PUMP_IDLE;
    n = recv(c->pair, c->outward.bytes, sizeof c->outward.bytes, 0);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? PUMP_IDLE : PUMP_OVER;
    if (n == 0)
        return PUMP_OVER;
    tap_write(c->owner, c->outward.bytes, (size_t)n);
    c->outward.at = 0;
    c->outward.len = (size_t)n;
    return PUMP_MOVED;
}

static pump_result to_phone(connection *c)
{
    int n;

    if (c->outward.at == c->outward.len)
        return PUMP_IDLE;
    /* After WANT_WRITE mbedTLS must be called again with the same bytes; `at` has not moved, so it is. */
    n = mbedtls_ssl_write(&c->ssl, c->outward.bytes + c->outward.at, c->outward.len - c->outward.at);
    c->wants_write = n == MBEDTLS_ERR_SSL_WANT_WRITE;
    if (n == MBEDTLS_ERR_SSL_WANT_READ || n == MBEDTLS_ERR_SSL_WANT_WRITE)
        return PUMP_IDLE;
    if (n < 0)
        return PUMP_OVER;
    c->outward.at += (size_t)n;
    return PUMP_MOVED;
}

/* False: the gateway stops, or nothing has happened for too long. */
static bool wait_for(connection *c, bool with_pair, uint64_t until_ms)
{
    const bool inward_full = c->inward.at < c->inward.len, outward_full = c->outward.at < c->outward.len;
    const uint64_t now_ms = gateway_now_ms();
    struct pollfd fds[3] = { { c->fd, 0, 0 }, { gateway_stop_fd(), POLLIN, 0 }, { -1, 0, 0 } };
    int n;

    fds[0].events = (short)((inward_full ? 0 : POLLIN) | (c->wants_write ? POLLOUT : 0));
    fds[2].events = (short)((inward_full ? POLLOUT : 0) | (outward_full ? 0 : POLLIN));
    if (with_pair && fds[2].events != 0) /* a hang-up is reported asked or not, and would turn this into a busy loop */
        fds[2].fd = c->pair;
    if (now_ms >= until_ms)
        return false;
    n = poll(fds, 3, (int)(until_ms - now_ms));
    if (n <= 0)
        return n < 0 && errno == EINTR;
    if ((fds[0].revents & (POLLHUP | POLLERR)) != 0 && (fds[0].events & POLLIN) == 0)
        return false; /* the phone has gone while HTTP was busy */
    return fds[1].revents == 0;
}

static bool handshake(connection *c)
{
    const uint64_t until_ms = gateway_now_ms() + HANDSHAKE_MS;
    char words[128];
    int code;

    while ((code = mbedtls_ssl_handshake(&c->ssl)) != 0) {
        c->wants_write = code == MBEDTLS_ERR_SSL_WANT_WRITE;
        if (code != MBEDTLS_ERR_SSL_WANT_READ && code != MBEDTLS_ERR_SSL_WANT_WRITE) {
            mbedtls_strerror(code, words, sizeof words);
            gateway_log("a TLS handshake failed: %s", words);
            return false;
        }
        if (!wait_for(c, false, until_ms))
            return false;
    }
    c->wants_write = false;
    return true;
}

static void pump(connection *c)
{
    static pump_result (*const steps[])(connection *) = { to_phone, from_http, to_http, from_phone };

    for (;;) {
        bool moved = false;

        for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
            const pump_result result = steps[i](c);
            if (result == PUMP_OVER)
                return;
            moved = moved || result == PUMP_MOVED;
        }
        /* Bytes that mbedTLS holds decrypted do not show up in poll(); but then from_phone() has moved. */
        if (!moved && !wait_for(c, true, gateway_now_ms() + IDLE_MS))
            return;
    }
}

static bool attach_http(connection *c)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return false;
    c->pair = pair[0];
    return fcntl(c->pair, F_SETFL, O_NONBLOCK) == 0 && gateway_http_add(c->owner->http, pair[1], (struct sockaddr *)&c->peer, c->peer_len);
}

static void *connection_run(void *user)
{
    connection *c = user;
    gateway_tls *t = c->owner;

    mbedtls_ssl_init(&c->ssl);
    if (mbedtls_ssl_setup(&c->ssl, &t->config) == 0) {
        mbedtls_ssl_set_bio(&c->ssl, &c->fd, tls_send, tls_receive, NULL);
        if (handshake(c) && attach_http(c)) {
            pump(c);
            (void)mbedtls_ssl_close_notify(&c->ssl);
        }
    }
    mbedtls_ssl_free(&c->ssl);
    if (c->pair >= 0)
        close(c->pair);
    close(c->fd);
    explicit_bzero(c, sizeof *c);
    free(c);
    pthread_mutex_lock(&t->lock);
    t->n_live--;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* ---- accepting ---------------------------------------------------------------------------------------- */

static bool admit(gateway_tls *t)
{
    bool ok;

    pthread_mutex_lock(&t->lock);
    ok = t->n_live < t->connections_max;
    if (ok)
        t->n_live++;
    pthread_mutex_unlock(&t->lock);
    return ok;
}

static void start_connection(gateway_tls *t, int fd, const struct sockaddr_storage *peer, socklen_t peer_len)
{
    connection *c = calloc(1, sizeof *c);
    const int on = 1;
    pthread_attr_t attr;
    pthread_t thread;

    if (c != NULL && admit(t)) {
        *c = (connection){ .owner = t, .fd = fd, .pair = -1, .peer = *peer, .peer_len = peer_len };
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        pthread_attr_init(&attr);
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        if (pthread_create(&thread, &attr, connection_run, c) == 0) {
            pthread_attr_destroy(&attr);
            return;
        }
        pthread_attr_destroy(&attr);
        pthread_mutex_lock(&t->lock);
        t->n_live--;
        pthread_mutex_unlock(&t->lock);
    }
    gateway_log("a connection was turned away: %u are open", t->connections_max);
    free(c);
    close(fd);
}

void gateway_tls_serve(gateway_tls *t, int listener)
{
    while (!gateway_is_stopping()) {
        struct pollfd fds[2] = { { listener, POLLIN, 0 }, { gateway_stop_fd(), POLLIN, 0 } };
        struct sockaddr_storage peer;
        socklen_t peer_len = sizeof peer;
        int fd;

        if (poll(fds, 2, -1) < 0 || fds[0].revents == 0)
            continue;
        fd = accept4(listener, (struct sockaddr *)&peer, &peer_len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)
            start_connection(t, fd, &peer, peer_len);
        else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            (void)poll(NULL, 0, 100); /* out of descriptors: wait for some to come back */
    }
    pthread_mutex_lock(&t->lock);
    while (t->n_live > 0)
        pthread_cond_wait(&t->changed, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

/* ---- opening -------------------------------------------------------------------------------------------- */

static bool configure(gateway_tls *t, const char *dir, sluice_error *err)
{
    char *key = gateway_path(dir, "server.key"), *chain = gateway_path(dir, "server.pem"), words[128];
    const char *what = chain;
    int code = mbedtls_x509_crt_parse_file(&t->chain, chain);

    if (code == 0) {
        what = key;
        code = mbedtls_pk_parse_keyfile(&t->key, key, NULL, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE);
    }
    if (code == 0) {
        what = "TLS";
        code = mbedtls_ssl_config_defaults(&t->config, MBEDTLS_SSL_IS_SERVER, MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
    }
    if (code == 0)
        code = mbedtls_ssl_conf_own_cert(&t->config, &t->chain, &t->key);
    if (code != 0) {
        mbedtls_strerror(code, words, sizeof words);
        gateway_fail(err, SLUICE_ERR_IO, "make the folder with: sluice-gateway init DIR", "%s: %s", what, words);
    }
    mbedtls_ssl_conf_rng(&t->config, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE);
    mbedtls_ssl_conf_min_tls_version(&t->config, MBEDTLS_SSL_VERSION_TLS1_3);
    mbedtls_ssl_conf_max_tls_version(&t->config, MBEDTLS_SSL_VERSION_TLS1_3);
    free(key);
    free(chain);
    return code == 0;
}

gateway_tls *gateway_tls_open(const char *dir, const char *tap_path, unsigned connections_max, gateway_http *http, sluice_error *err)
{
    gateway_tls *t = calloc(1, sizeof *t);

    if (t == NULL || psa_crypto_init() != PSA_SUCCESS) {
        free(t);
        gateway_fail(err, SLUICE_ERR_NO_MEMORY, "", "mbedTLS cannot be started");
        return NULL;
    }
    t->http = http;
    t->connections_max = connections_max;
    t->tap = -1;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->changed, NULL);
    mbedtls_ssl_config_init(&t->config);
    mbedtls_x509_crt_init(&t->chain);
    mbedtls_pk_init(&t->key);
    if (tap_path != NULL) {
        t->tap = open(tap_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (t->tap < 0) {
            gateway_fail(err, SLUICE_ERR_IO, "its folder must exist and be writable", "cannot open the tap %s: %s", tap_path, strerror(errno));
            gateway_tls_close(t);
            return NULL;
        }
    }
    if (!configure(t, dir, err)) {
        gateway_tls_close(t);
        return NULL;
    }
    return t;
}

void gateway_tls_close(gateway_tls *t)
{
    if (t == NULL)
        return;
    mbedtls_ssl_config_free(&t->config);
    mbedtls_x509_crt_free(&t->chain);
    mbedtls_pk_free(&t->key);
    if (t->tap >= 0)
        close(t->tap);
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->changed);
    free(t);
}
