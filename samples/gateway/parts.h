/* parts.h - what the files of sluice-gateway say to each other.
 *
 *   phone ── TLS ──► tls.c ── plain HTTP/1.1 over a socket pair ──► http.c (libmicrohttpd)
 *                     │ tap                                           │ opens the sealed request: sluice/gateway.h
 *                     ▼                                               │ replay.c: seen before? too old?
 *              every byte, still sealed                               ▼
 *                                              stream.c ◄── upstream.c (another server)  or  engine.c (a model of our own)
 *
 * The gateway is a client of Sluice's public headers and needs nothing else of the library.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_SAMPLES_GATEWAY_PARTS_H
#define SLUICE_SAMPLES_GATEWAY_PARTS_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "sluice/base.h"

/* ---- util.c: errors, files, log --------------------------------------------------------------------- */

/* Fill err (not NULL) and return false, so that `return gateway_fail(...)` reads well.  hint: how to mend it. */
bool gateway_fail(sluice_error *err, sluice_status status, const char *hint, const char *fmt, ...) SLUICE_PRINTF(4, 5);
/* One line on stderr with the time.  Never content: numbers and our own words only. */
void gateway_log(const char *fmt, ...) SLUICE_PRINTF(1, 2);

char *gateway_path(const char *dir, const char *name); /* "dir/name"; free(); exits when out of memory */
/* The whole file, NUL-terminated; free().  NULL with err filled when it is missing or larger than a mebibyte. */
char *gateway_read_file(const char *path, size_t *len, sluice_error *err);
bool gateway_write_new(const char *path, const void *data, size_t len, bool is_secret, sluice_error *err); /* never over an existing file */
bool gateway_write_whole(const char *path, const void *data, size_t len, sluice_error *err);               /* by rename */
bool gateway_random(void *out, size_t len);
char *gateway_base64(const void *data, size_t len); /* free() */
uint64_t gateway_now_ms(void);                      /* monotonic */

/* Set once, by a signal; everything that waits looks at it, or polls gateway_stop_fd() for readability. */
bool gateway_is_stopping(void);
int gateway_stop_fd(void);

/* A buffer that grows up to a maximum. */
typedef struct gateway_buf {
    uint8_t *ptr;
    size_t len, cap, max;
} gateway_buf;
bool gateway_buf_add(gateway_buf *b, const void *data, size_t len); /* false: maximum or no memory */
void gateway_buf_free(gateway_buf *b);                              /* wipes */

/* ---- identity.c: keys and certificates --------------------------------------------------------------- */

typedef struct gateway_identity {
    uint8_t key_id;
    uint8_t secret[32]; /* X25519, of the key configuration */
} gateway_identity;

/* Make what is missing in `dir`: CA, server certificate, backup key, oblivious HTTP key, endpoint.json.  What is there stays. */
bool gateway_identity_init(const char *dir, const char *host, int port, sluice_error *err);
bool gateway_identity_load(const char *dir, gateway_identity *out, sluice_error *err);
/* endpoint.json with `port` in its url; free(). */
char *gateway_endpoint_text(const char *dir, int port, sluice_error *err);

/* ---- stream.c: an answer on its way from a backend to the phone ------------------------------------------ */

/* One writer (the backend's thread), one reader (the connection's).  Each side holds one of two references. */
typedef struct gateway_stream gateway_stream;
gateway_stream *gateway_stream_new(size_t bytes_max);                                    /* two references */
void gateway_stream_start(gateway_stream *s, int http_status, const char *content_type); /* the first call counts */
bool gateway_stream_write(gateway_stream *s, const void *data, size_t len);              /* false: the reader has left, or too much; stop */
void gateway_stream_finish(gateway_stream *s, bool is_whole);                            /* gives up the writer's reference */
bool gateway_stream_is_abandoned(gateway_stream *s);

/* Wait for the start.  False: the backend gave up without one, `deadline_ms` has passed or the gateway stops. */
bool gateway_stream_wait(gateway_stream *s, uint64_t deadline_ms, int *http_status, const char **content_type);
typedef enum gateway_stream_state { GATEWAY_STREAM_BYTES, GATEWAY_STREAM_END, GATEWAY_STREAM_BROKEN } gateway_stream_state;
/* Append what has come to `out`, waiting for the first byte, then up to `gather_ms` for more so that the size of a sealed chunk does not tell one
 * token's length. */
gateway_stream_state gateway_stream_read(gateway_stream *s, gateway_buf *out, unsigned gather_ms, uint64_t deadline_ms);
void gateway_stream_leave(gateway_stream *s); /* gives up the reader's reference; accepts NULL */

/* ---- backends: answer one chat completion ------------------------------------------------------------- */

typedef struct gateway_backend {
    const char *name; /* for the log */
    void *user;
    /* Start answering `body` (a JSON object with messages) into `s`; takes the writer's reference in every case. */
    void (*ask)(void *user, const char *body, size_t len, gateway_stream *s);
    void (*close)(void *user);
} gateway_backend;

typedef struct gateway_upstream_options {
    const char *url; /* of the server: /v1/chat/completions is appended */
    const char *ca_file;
    const char *key; /* or NULL */
} gateway_upstream_options;
bool gateway_upstream_open(gateway_backend *out, const gateway_upstream_options *options, sluice_error *err);
bool gateway_engine_open(gateway_backend *out, const char *model_path, sluice_error *err);

/* ---- chat.c: the OpenAI chat-completions dialect ------------------------------------------------------- */

typedef struct gateway_chat_message {
    const char *role, *text;
} gateway_chat_message;
typedef struct gateway_chat {
    void *json; /* owns the strings below */
    gateway_chat_message *messages;
    size_t n_messages;
    bool is_streamed, wants_usage;
    unsigned max_tokens; /* 0: not said */
    float temperature;
} gateway_chat;
/* NULL, or what is wrong with it in words of our own. */
const char *gateway_chat_parse(gateway_chat *out, const char *body, size_t len);
void gateway_chat_free(gateway_chat *c);

typedef struct gateway_reply {
    char id[48];
    long long created;
    const char *model;
} gateway_reply;
/* Each returns a text to free(), or NULL. */
char *gateway_chat_chunk(const gateway_reply *r, const char *role, const char *text, size_t text_len, const char *finish);
char *gateway_chat_usage_chunk(const gateway_reply *r, unsigned prompt_tokens, unsigned output_tokens);
char *gateway_chat_whole(const gateway_reply *r, const char *text, size_t text_len, const char *finish, unsigned prompt_tokens,
                         unsigned output_tokens);
char *gateway_chat_error(const char *type, const char *message); /* {"error":{...}} */

/* ---- replay.c ----------------------------------------------------------------------------------------- */

typedef enum gateway_freshness { GATEWAY_FRESH, GATEWAY_SEEN, GATEWAY_STALE, GATEWAY_FULL } gateway_freshness;
typedef struct gateway_replay gateway_replay;
gateway_replay *gateway_replay_open(unsigned window_s);
/* Has this encapsulated key been seen, and is the request's date (Unix seconds, < 0: none) inside the window?  Remembers the key when fresh.
 * Any thread. */
gateway_freshness gateway_replay_check(gateway_replay *r, sluice_span enc, long long date_s);
void gateway_replay_close(gateway_replay *r);

/* ---- http.c ------------------------------------------------------------------------------------------- */

typedef enum gateway_fault { GATEWAY_FAULT_NONE, GATEWAY_FAULT_STATUS, GATEWAY_FAULT_INNER, GATEWAY_FAULT_CUT, GATEWAY_FAULT_STALL } gateway_fault;
typedef struct gateway_http_options {
    gateway_identity identity;
    gateway_backend backend;
    gateway_replay *replay;
    const char *targets[8]; /* authorities that a sealed request may name */
    size_t n_targets;
    size_t request_bytes_max, response_bytes_max;
    unsigned connections_max;
    unsigned answer_ms;      /* a request's whole time */
    gateway_fault once_fail; /* for tests: what the first request meets */
} gateway_http_options;
typedef struct gateway_http gateway_http;
gateway_http *gateway_http_open(const gateway_http_options *options, sluice_error *err);
bool gateway_http_add(gateway_http *h, int fd, const struct sockaddr *peer, socklen_t peer_len); /* takes the socket */
void gateway_http_close(gateway_http *h);                                                        /* ends what is running */

/* ---- tls.c -------------------------------------------------------------------------------------------- */

typedef struct gateway_tls gateway_tls;
gateway_tls *gateway_tls_open(const char *dir, const char *tap_path, unsigned connections_max, gateway_http *http, sluice_error *err);
/* Accept until the gateway stops, then wait for the connections' threads. */
void gateway_tls_serve(gateway_tls *t, int listener);
void gateway_tls_close(gateway_tls *t);

#endif
