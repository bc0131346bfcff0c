/* transport_curl.c - sealed envelopes over HTTPS, with libcurl's multi interface.
 *
 * One exchange is one connection: TCP, TLS 1.3, one POST, one answer.  Connections are not kept.  A kept one that a
 * mobile network has dropped in silence looks alive until the request is on it, and an encapsulated request must never be
 * repeated by itself (RFC 9458, 6.5.1): libcurl repeats only on kept connections, so here it never does.
 *
 *   PENDING --add--> CONNECTING --pin ok--> WAITING --status line--> HEADERS --blank line--> BODY
 *      |                 |                     |                        |                      |
 *      +-----------------+----------- terminal event or cancel: reap ---+----------------------+
 *
 * What stays true:
 *  - no byte of a request is written before the chain, the name and the pinned key have been verified.  libcurl compares
 *    the pin at the end of the handshake and calls the pre-request function after that, just before it writes.
 *  - an option that libcurl refuses fails the exchange before it starts: a build without pinning must not go on without.
 *  - events are delivered from within step(), some of them inside libcurl's callbacks, where libcurl must not be re-entered;
 *    so open() and cancel() in a callback only leave a mark, and step() does the work when libcurl has returned.
 *  - all timers run on the platform's clock; libcurl's own connect timer is only the backstop that makes it try the next
 *    address in time.
 *
 * The body is ciphertext, so nothing that libcurl or the TLS library copies into its heap needs wiping.  Their heap is
 * libc's: curl_global_init_mem() is for the whole process, and so not ours to call from inside somebody's app.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cloud-adapters/transport/transport.h"

#include <curl/curl.h>
#include <stdio.h>

enum {
    CONNECT_MS_DEFAULT = 10000,
    GAP_MS_DEFAULT = 20000,
    RESPONSE_BYTES_DEFAULT = 1 << 20,
    HEADER_BYTES_MAX = 16384, /* libcurl's own limit is 300 kB; a gateway's answer has some ten short lines */
    HEADER_LINES_MAX = 64,
    PINS_MAX = 8,
    PIN_LEN = 44,       /* base64 of 32 bytes */
    HOST_LEN_MAX = 100, /* in messages */
    POLL_MS_MAX = 60000
};

typedef enum exchange_phase { PENDING, CONNECTING, WAITING, HEADERS, BODY } exchange_phase;

typedef struct curl_transport {
    CURLM *multi;
    sluice_exchange *head;
    const sluice_platform *platform;
    const sluice_allocator *al;
    uint64_t n_events; /* delivered so far */
    bool in_step;
} curl_transport;

struct sluice_exchange {
    curl_transport *transport;
    sluice_exchange *next;
    CURL *easy;
    struct curl_slist *request_headers;
    const char *endpoint_id; /* the policy's */
    sluice_exchange_fn on_event;
    void *event_user;

    exchange_phase phase;
    bool is_in_multi, is_over; /* over: cancelled, or the terminal event is out; waits for reap() */
    bool may_have_sent, is_sent;
    bool is_interim; /* inside a 1xx response */

    uint64_t deadline_us, connect_us, first_byte_us, gap_us; /* deadline and connect: instants; the others: spans, 0 none */
    uint64_t sent_us, last_byte_us;
    size_t response_bytes, response_bytes_max;
    size_t header_bytes, n_header_lines;
    sluice_status own_failure; /* why one of our callbacks stopped libcurl; SLUICE_OK: it did not */

    char host[HOST_LEN_MAX + 1];
    char pins[PINS_MAX * (sizeof "sha256//;" + PIN_LEN)];
    char detail[CURL_ERROR_SIZE]; /* libcurl's words; searched, never shown: they may quote the server */
};

/* ---- events -------------------------------------------------------------------------------------- */

/* False when the exchange is over, now or already. */
static bool emit(sluice_exchange *x, sluice_exchange_event *event)
{
    if (x->is_over)
        return false;
    x->transport->n_events++;
    x->on_event(event, x->event_user);
    return !x->is_over;
}

static void emit_terminal(sluice_exchange *x, sluice_exchange_event *event)
{
    if (x->is_over)
        return;
    event->was_sent = x->may_have_sent;
    x->is_over = true; /* first: a cancel from inside the callback finds nothing left to do */
    x->transport->n_events++;
    x->on_event(event, x->event_user);
}

/* ---- what went wrong, in words --------------------------------------------------------------------- */

typedef struct failure_words {
    sluice_status status;
    const char *what, *hint;
} failure_words;

/* The verifier's findings as the TLS library words them: mbedTLS's mbedtls_x509_crt_verify_info() first, OpenSSL's for builds on system
 * libraries second.  The order is the order of blame: a chain to an unknown root makes every other finding meaningless. */
static failure_words certificate_words(const char *detail)
{
    static const failure_words unknown_ca = {
        SLUICE_ERR_TLS, "the server's certificate does not lead to the endpoint's CA",
        "another server, or a box in between that reads TLS; if the gateway's CA has changed, put the new one into ca_pem"
    };
    static const failure_words expired = {
        SLUICE_ERR_TLS, "the server's certificate has expired",
        "renew the gateway's certificate with the same key, so that its pin stays; or set this device's date right"
    };
    static const failure_words future = { SLUICE_ERR_TLS, "the server's certificate is not valid yet",
                                          "set this device's date right, or look at the dates of the gateway's certificate" };
    static const failure_words other_host = { SLUICE_ERR_TLS, "the server's certificate is for another host name",
                                              "the host in the endpoint's url must be one of the certificate's subject alternative names" };
    static const failure_words revoked = { SLUICE_ERR_TLS, "the server's certificate has been revoked", "give the gateway a new certificate" };
    static const failure_words weak = { SLUICE_ERR_TLS, "the server's certificate uses a weak hash, key or curve",
                                        "use ECDSA P-256 or P-384, or RSA of 2048 bits or more, with SHA-256 or better" };
    static const failure_words refused = { SLUICE_ERR_TLS, "the server's certificate was refused",
                                           "compare the certificate that the server shows with the endpoint's ca_pem and host" };
    static const struct {
        const char *needle;
        const failure_words *words;
    } rows[] = {
        { "not correctly signed by the trusted CA", &unknown_ca },
        { "self-signed certificate", &unknown_ca },
        { "unable to get local issuer", &unknown_ca },
        { "validity has expired", &expired },
        { "certificate has expired", &expired },
        { "starts in the future", &future },
        { "not yet valid", &future },
        { "does not match with the expected CN", &other_host },
        { "subject name", &other_host },
        { "has been revoked", &revoked },
        { "unacceptable", &weak },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strstr(detail, rows[i].needle) != NULL)
            return *rows[i].words;
    return refused;
}

/* A handshake that broke off is the network's fault, one that was refused is TLS's. */
static failure_words handshake_words(const char *detail)
{
    static const char *const cut[] = { "-0x7280", "-0x0050", "-0x004E", "unexpected eof", "SSL_ERROR_SYSCALL" };

    for (size_t i = 0; i < sizeof cut / sizeof cut[0]; i++)
        if (strstr(detail, cut[i]) != NULL)
            return (failure_words){ SLUICE_ERR_NETWORK, "the connection broke off during the TLS handshake",
                                    "is the endpoint's port the gateway's TLS port, and the gateway up?" };
    return (failure_words){ SLUICE_ERR_TLS, "the TLS handshake failed",
                            "the server must speak TLS 1.3; something that is not TLS, such as a captive portal, fails here as well" };
}

static failure_words receive_words(const sluice_exchange *x)
{
    if (x->phase >= HEADERS)
        return (failure_words){ SLUICE_ERR_TRUNCATED, "the connection broke off in the middle of the answer",
                                "what arrived is incomplete; see the gateway's log" };
    return (failure_words){ SLUICE_ERR_NETWORK, "the connection broke off before an answer came",
                            "see the gateway's log; a TLS alert about an unknown or bad certificate also ends here" };
}

static failure_words words_for(const sluice_exchange *x, CURLcode code)
{
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return (failure_words){ SLUICE_ERR_NETWORK, "the host name cannot be resolved",
                                "is the device online, and the host in the endpoint's url spelt right?" };
    case CURLE_COULDNT_CONNECT:
        return (failure_words){ SLUICE_ERR_NETWORK, "no connection: refused or unreachable",
                                "is the gateway running there, and the port in the endpoint's url right?" };
    case CURLE_OPERATION_TIMEDOUT:
        return (failure_words){ SLUICE_ERR_TIMEOUT, "no connection in time", "is the network slow, or a firewall dropping packets?" };
    case CURLE_PEER_FAILED_VERIFICATION: return certificate_words(x->detail);
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
        return (failure_words){ SLUICE_ERR_PIN_MISMATCH, "the server's key is none of those that the policy pins",
                                "somebody may be in between; if the gateway's key has changed, its new pin belongs into spki_pins" };
    case CURLE_SSL_CONNECT_ERROR: return handshake_words(x->detail);
    case CURLE_SSL_CACERT_BADFILE:
        return (failure_words){ SLUICE_ERR_TLS, "the endpoint's ca_pem cannot be read",
                                "it must be one or more certificates between BEGIN CERTIFICATE and END CERTIFICATE lines" };
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ENGINE_NOTFOUND:
    case CURLE_SSL_ENGINE_INITFAILED:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_USE_SSL_FAILED: return (failure_words){ SLUICE_ERR_TLS, "TLS could not be set up", "is libcurl built on the bundled mbedTLS?" };
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING: return receive_words(x);
    case CURLE_SEND_ERROR:
    case CURLE_SEND_FAIL_REWIND:
        return (failure_words){ SLUICE_ERR_NETWORK, "the connection broke off while the request was written", "see the gateway's log" };
    case CURLE_FILESIZE_EXCEEDED:
        return (failure_words){ SLUICE_ERR_LIMIT, "the answer announces more bytes than allowed",
                                "raise limits.response_bytes in the policy, or ask for fewer tokens" };
    case CURLE_OUT_OF_MEMORY: return (failure_words){ SLUICE_ERR_NO_MEMORY, "out of memory in libcurl", "" };
    default: return (failure_words){ SLUICE_ERR_NETWORK, "the answer is not HTTP/1.1 as it should be", "is it the gateway that answers there?" };
    }
}

static void fail(sluice_exchange *x, failure_words words)
{
    sluice_exchange_event event = { .kind = SLUICE_EXCHANGE_FAILED, .error = SLUICE_ERROR_INIT };

    sluice_error_set(&event.error, words.status, "%s: %s", x->host, words.what);
    sluice_error_hint(&event.error, "%s", words.hint);
    sluice_error_where(&event.error, x->endpoint_id);
    emit_terminal(x, &event);
}

static void finish(sluice_exchange *x, CURLcode code)
{
    sluice_exchange_event end = { .kind = SLUICE_EXCHANGE_END };

    if (x->is_over)
        return; /* cancelled: libcurl tells that its callback was not happy */
    if (x->own_failure == SLUICE_ERR_LIMIT)
        fail(x,
             (failure_words){ SLUICE_ERR_LIMIT, x->phase == BODY ? "the answer is larger than allowed" : "the answer's header is larger than allowed",
                              "raise limits.response_bytes in the policy, or ask for fewer tokens" });
    else if (x->own_failure != SLUICE_OK || (code == CURLE_OK && x->phase < BODY))
        fail(x, words_for(x, CURLE_WEIRD_SERVER_REPLY));
    else if (code != CURLE_OK)
        fail(x, words_for(x, code));
    else
        emit_terminal(x, &end);
}

/* ---- libcurl's callbacks.  All run inside curl_multi_perform(), so inside step(). -------------------- */

static void note_sent(sluice_exchange *x)
{
    sluice_exchange_event event = { .kind = SLUICE_EXCHANGE_SENT };
    curl_off_t written_us = 0;

    if (x->is_sent || x->phase < WAITING)
        return;
    /* Set when libcurl has written the last byte of the request; an answer proves as much. */
    if (x->phase == WAITING && (curl_easy_getinfo(x->easy, CURLINFO_POSTTRANSFER_TIME_T, &written_us) != CURLE_OK || written_us == 0))
        return;
    x->is_sent = true;
    x->sent_us = sluice_now_us(x->transport->platform);
    emit(x, &event);
}

static int on_prerequest(void *user, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
    sluice_exchange *x = user;
    sluice_exchange_event event = { .kind = SLUICE_EXCHANGE_CONNECTED };

    (void)remote_ip, (void)local_ip, (void)remote_port, (void)local_port;
    x->phase = WAITING;
    if (!emit(x, &event))
        return CURL_PREREQFUNC_ABORT;
    x->may_have_sent = true;
    return CURL_PREREQFUNC_OK;
}

static bool is_token_char(char c) /* RFC 9110, 5.6.2 */
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

/* "HTTP/1.1 200 OK": the three digits after the first space; 0 when it is no status line. */
static int parse_status_line(const char *line, size_t len)
{
    const char *space = memchr(line, ' ', len);
    int status = 0;

    if (len < 5 || memcmp(line, "HTTP/", 5) != 0 || space == NULL || (size_t)(line + len - space) < 4)
        return 0;
    for (int i = 1; i <= 3; i++) {
        if (space[i] < '0' || space[i] > '9')
            return 0;
        status = 10 * status + (space[i] - '0');
    }
    return status;
}

/* One "Name: value" line.  What is no such line is passed over: nothing above depends on header lines but the content type. */
static bool header_line(sluice_exchange *x, char *line, size_t len)
{
    sluice_exchange_event event = { .kind = SLUICE_EXCHANGE_HEADER };
    char *colon = memchr(line, ':', len);
    const char *value, *end = line + len;

    if (colon == NULL || colon == line)
        return true;
    for (char *c = line; c < colon; c++) {
        if (!is_token_char(*c))
            return true;
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c + ('a' - 'A'));
    }
    value = colon + 1;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    event.name = sluice_span_of(line, (size_t)(colon - line));
    event.value = sluice_span_of(value, (size_t)(end - value));
    return emit(x, &event);
}

static bool status_line(sluice_exchange *x, const char *line, size_t len)
{
    sluice_exchange_event event = { .kind = SLUICE_EXCHANGE_STATUS };

    event.http_status = parse_status_line(line, len);
    if (event.http_status < 100 || event.http_status > 599) {
        x->own_failure = SLUICE_ERR_NETWORK;
        return false;
    }
    x->is_interim = event.http_status < 200;
    if (x->is_interim)
        return true; /* 100 Continue, 103 Early Hints: the answer is still to come */
    x->phase = HEADERS;
    note_sent(x);
    return emit(x, &event);
}

static size_t on_header(char *data, size_t size, size_t n, void *user)
{
    enum { STOP = 0 }; /* any count but the one that was given stops the transfer */
    sluice_exchange *x = user;
    char line[HEADER_BYTES_MAX];
    size_t len = size * n;

    if (x->is_over)
        return STOP;
    x->last_byte_us = sluice_now_us(x->transport->platform);
    x->header_bytes += len;
    x->n_header_lines++;
    if (x->header_bytes > HEADER_BYTES_MAX || x->n_header_lines > HEADER_LINES_MAX) {
        x->own_failure = SLUICE_ERR_LIMIT;
        return STOP;
    }
    memcpy(line, data, len);
    while (len > 0 && (line[len - 1] == '\r' || line[len - 1] == '\n'))
        len--;
    if (x->phase == BODY)
        return size * n; /* a trailer */
    if (x->phase == WAITING && !x->is_interim)
        return status_line(x, line, len) ? size * n : STOP;
    if (len == 0) {
        if (x->phase == HEADERS)
            x->phase = BODY;
        x->is_interim = false;
        return size * n;
    }
    if (x->is_interim)
        return size * n;
    return header_line(x, line, len) ? size * n : STOP;
}

static size_t on_body(char *data, size_t size, size_t n, void *user)
{
    enum { STOP = 0 };
    sluice_exchange *x = user;
    sluice_exchange_event event = { .kind = SLUICE_EXCHANGE_BODY };
    const size_t len = size * n;

    if (x->is_over)
        return STOP;
    x->last_byte_us = sluice_now_us(x->transport->platform);
    if (len > x->response_bytes_max - x->response_bytes) {
        x->own_failure = SLUICE_ERR_LIMIT;
        return STOP;
    }
    x->response_bytes += len;
    event.body = sluice_span_of(data, len);
    return emit(x, &event) ? len : STOP;
}

/* ---- setting up one exchange ----------------------------------------------------------------------- */

/* "sha256//A;sha256//B".  A pin that is no base64 of 32 bytes could bend the list, so it is refused. */
static bool join_pins(char *out, size_t cap, const sluice_destination *to)
{
    size_t len = 0;

    if (to->n_spki_pins == 0 || to->n_spki_pins > PINS_MAX)
        return false;
    for (size_t i = 0; i < to->n_spki_pins; i++) {
        const char *pin = to->spki_pins[i];
        const int wrote = snprintf(out + len, cap - len, "%ssha256//%s", i == 0 ? "" : ";", pin);

        if (strlen(pin) != PIN_LEN || pin[PIN_LEN - 1] != '=')
            return false;
        for (size_t k = 0; k < PIN_LEN - 1; k++)
            if (!((pin[k] >= 'A' && pin[k] <= 'Z') || (pin[k] >= 'a' && pin[k] <= 'z') || (pin[k] >= '0' && pin[k] <= '9') || pin[k] == '+' ||
                  pin[k] == '/'))
                return false;
        if (wrote < 0 || (size_t)wrote >= cap - len)
            return false;
        len += (size_t)wrote;
    }
    return true;
}

/* https, a host, no user name or password; "host:port" for messages. */
static bool check_url(const char *url, char *host_out, size_t cap)
{
    CURLU *u = curl_url();
    char *scheme = NULL, *host = NULL, *port = NULL, *user = NULL, *password = NULL;
    bool ok = u != NULL && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK;

    ok = ok && curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK && strcmp(scheme, "https") == 0;
    ok = ok && curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK && host[0] != '\0';
    ok = ok && curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK;
    ok = ok && curl_url_get(u, CURLUPART_USER, &user, 0) != CURLUE_OK && curl_url_get(u, CURLUPART_PASSWORD, &password, 0) != CURLUE_OK;
    if (ok)
        (void)snprintf(host_out, cap, "%s:%s", host, port);
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_free(user);
    curl_free(password);
    curl_url_cleanup(u);
    return ok;
}

static bool add_request_header(sluice_exchange *x, const char *line)
{
    struct curl_slist *list = curl_slist_append(x->request_headers, line);

    if (list == NULL)
        return false;
    x->request_headers = list;
    return true;
}

static sluice_status build_request_headers(sluice_exchange *x, const char *type, sluice_error *err)
{
    const bool is_chunked = strcmp(type, "message/ohttp-chunked-req") == 0;
    bool ok;

    if (!is_chunked && strcmp(type, "message/ohttp-req") != 0)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "%s: an envelope of an unknown type", x->host);
    ok = add_request_header(x, is_chunked ? "Content-Type: message/ohttp-chunked-req" : "Content-Type: message/ohttp-req");
    ok = ok && add_request_header(x, is_chunked ? "Accept: message/ohttp-chunked-res" : "Accept: message/ohttp-res");
    /* Asks a relay in between not to collect the whole message first (draft-ietf-ohai-chunked-ohttp, 3). */
    ok = ok && (!is_chunked || add_request_header(x, "Incremental: ?1"));
    ok = ok && add_request_header(x, "Expect:"); /* no 100-continue round trip */
    return ok ? SLUICE_OK : sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "%s: no memory for the request's header", x->host);
}

/* Every option must be taken.  A refused one is named, so that a wrong build of libcurl is found out at once. */
#define SET(option, value)                                                                                                                           \
    do {                                                                                                                                             \
        const CURLcode set_code_ = curl_easy_setopt(x->easy, option, value);                                                                         \
        if (set_code_ == CURLE_OUT_OF_MEMORY)                                                                                                        \
            return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "%s: no memory for libcurl's %s", x->host, #option);                                  \
        if (set_code_ != CURLE_OK) {                                                                                                                 \
            sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "%s: libcurl refuses %s (%d)", x->host, #option, (int)set_code_);                          \
            sluice_error_hint(err, "build with the bundled libcurl and mbedTLS (SLUICE_DEPS=bundled)");                                              \
            return SLUICE_ERR_UNSUPPORTED;                                                                                                           \
        }                                                                                                                                            \
    } while (0)

static sluice_status set_tls(sluice_exchange *x, const sluice_destination *to, sluice_error *err)
{
    /* With its NUL, so that mbedTLS parses it in place; the policy outlives the exchange. */
    struct curl_blob ca = { (void *)(uintptr_t)to->ca_pem, strlen(to->ca_pem) + 1, CURL_BLOB_NOCOPY };

    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_3);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_CAINFO, NULL);
    SET(CURLOPT_CAPATH, NULL);
    SET(CURLOPT_CAINFO_BLOB, &ca);
    SET(CURLOPT_PINNEDPUBLICKEY, x->pins);
    /* A resumed TLS 1.3 session carries no certificate, so its pin could not be compared. */
    SET(CURLOPT_SSL_SESSIONID_CACHE, 0L);
    SET(CURLOPT_SSL_ENABLE_ALPN, 0L); /* HTTP/1.1 only: nothing to negotiate, nothing to tell an onlooker */
    return SLUICE_OK;
}

static sluice_status set_http(sluice_exchange *x, const sluice_destination *to, sluice_span body, sluice_error *err)
{
    SET(CURLOPT_PROTOCOLS_STR, "https");
    SET(CURLOPT_REDIR_PROTOCOLS_STR, "https");
    SET(CURLOPT_DEFAULT_PROTOCOL, "https");
    SET(CURLOPT_URL, to->url);
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_HTTP09_ALLOWED, 0L);
    SET(CURLOPT_FOLLOWLOCATION, 0L); /* a 3xx is an answer like any other; the envelope goes where the policy says */
    SET(CURLOPT_PROXY, "");          /* and not where the environment says */
    SET(CURLOPT_NOPROXY, "*");
    SET(CURLOPT_ACCEPT_ENCODING, NULL); /* ciphertext does not compress, and no decoder means no decompression bomb */
    SET(CURLOPT_USERAGENT, "Sluice");   /* the same for every device and version */
    SET(CURLOPT_POST, 1L);
    SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.len);
    /* A copy: one exchange's callback may cancel another one, whose envelope then goes, while libcurl is still at work on both. */
    SET(CURLOPT_COPYPOSTFIELDS, body.ptr);
    SET(CURLOPT_HTTPHEADER, x->request_headers);
    SET(CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)x->response_bytes_max);
    return SLUICE_OK;
}

static sluice_status set_connection(sluice_exchange *x, uint32_t connect_ms, sluice_error *err)
{
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_FRESH_CONNECT, 1L); /* see the top of this file */
    SET(CURLOPT_FORBID_REUSE, 1L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)connect_ms);
    SET(CURLOPT_ERRORBUFFER, x->detail);
    SET(CURLOPT_PRIVATE, x);
    SET(CURLOPT_PREREQFUNCTION, on_prerequest);
    SET(CURLOPT_PREREQDATA, x);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, x);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, x);
    return SLUICE_OK;
}
#undef SET

static uint64_t after_ms(uint64_t now_us, uint32_t ms)
{
    uint64_t then;
    return sluice_add_u64(now_us, (uint64_t)ms * 1000, &then) ? then : UINT64_MAX;
}

static void exchange_free(sluice_exchange *x)
{
    if (x == NULL)
        return;
    if (x->is_in_multi)
        (void)curl_multi_remove_handle(x->transport->multi, x->easy);
    curl_easy_cleanup(x->easy);
    curl_slist_free_all(x->request_headers);
    sluice_free(x->transport->al, x, sizeof *x);
}

static sluice_status check_destination(sluice_exchange *x, const sluice_destination *to, sluice_error *err)
{
    (void)sluice_copy_str(x->host, sizeof x->host, to->endpoint_id); /* until the URL has been read */
    if (to->url == NULL || !check_url(to->url, x->host, sizeof x->host)) {
        sluice_error_set(err, SLUICE_ERR_ARGUMENT, "endpoint \"%s\": its url is not https://host[:port]/path", to->endpoint_id);
        sluice_error_hint(err, "only https is spoken, and a url must not hold a user name or password");
        return SLUICE_ERR_ARGUMENT;
    }
    if (to->ca_pem == NULL || to->ca_pem[0] == '\0')
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "endpoint \"%s\": no ca_pem, so no certificate can be trusted", to->endpoint_id);
    if (!join_pins(x->pins, sizeof x->pins, to)) {
        sluice_error_set(err, SLUICE_ERR_ARGUMENT, "endpoint \"%s\": its pins cannot be used", to->endpoint_id);
        sluice_error_hint(err, "spki_pins needs 1 to %d base64 texts of a SHA-256, 44 characters each", PINS_MAX);
        return SLUICE_ERR_ARGUMENT;
    }
    return SLUICE_OK;
}

static size_t smaller_limit(size_t a, size_t b)
{
    if (a == 0 && b == 0)
        return RESPONSE_BYTES_DEFAULT;
    if (a == 0 || b == 0)
        return a + b;
    return a < b ? a : b;
}

static sluice_status exchange_setup(sluice_exchange *x, const sluice_envelope *envelope, const sluice_exchange_limits *limits, sluice_error *err)
{
    const sluice_destination *to = sluice_envelope_destination(envelope);
    const uint32_t connect_ms = limits->connect_ms ? limits->connect_ms : CONNECT_MS_DEFAULT;
    const uint64_t now_us = sluice_now_us(x->transport->platform);
    sluice_status st;

    x->endpoint_id = to->endpoint_id;
    st = check_destination(x, to, err);
    if (st != SLUICE_OK)
        return st;
    if (limits->deadline_us != 0 && limits->deadline_us <= now_us)
        return sluice_error_set(err, SLUICE_ERR_TIMEOUT, "%s: no time left to connect", x->host);
    x->deadline_us = limits->deadline_us ? limits->deadline_us : UINT64_MAX;
    x->connect_us = after_ms(now_us, connect_ms);
    x->first_byte_us = (uint64_t)limits->first_byte_ms * 1000;
    x->gap_us = (uint64_t)(limits->gap_ms ? limits->gap_ms : GAP_MS_DEFAULT) * 1000;
    x->response_bytes_max = smaller_limit(limits->response_bytes_max, to->response_bytes_max);

    st = build_request_headers(x, sluice_envelope_content_type(envelope), err);
    if (st != SLUICE_OK)
        return st;
    x->easy = curl_easy_init();
    if (x->easy == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "%s: no memory for a libcurl handle", x->host);
    st = set_connection(x, connect_ms, err);
    if (st == SLUICE_OK)
        st = set_tls(x, to, err);
    if (st == SLUICE_OK)
        st = set_http(x, to, sluice_envelope_bytes(envelope), err);
    return st;
}

static sluice_status transport_open(void *user, const sluice_envelope *envelope, const sluice_exchange_limits *limits, sluice_exchange_fn on_event,
                                    void *event_user, sluice_exchange **out, sluice_error *err)
{
    curl_transport *t = user;
    sluice_exchange *x;
    sluice_status st;

    *out = NULL;
    if (envelope == NULL || limits == NULL || on_event == NULL)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "transport: envelope, limits and on_event are required");
    x = sluice_alloc_zeroed(t->al, sizeof *x);
    if (x == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "transport: %zu bytes for an exchange", sizeof *x);
    x->transport = t;
    x->on_event = on_event;
    x->event_user = event_user;
    st = exchange_setup(x, envelope, limits, err);
    if (st != SLUICE_OK) {
        sluice_error_where(err, x->endpoint_id);
        exchange_free(x);
        return st;
    }
    x->next = t->head;
    t->head = x;
    *out = x;
    return SLUICE_OK;
}

/* ---- driving them ---------------------------------------------------------------------------------- */

static void reap(curl_transport *t)
{
    sluice_exchange **link = &t->head;

    while (*link != NULL) {
        sluice_exchange *x = *link;
        if (!x->is_over) {
            link = &x->next;
            continue;
        }
        *link = x->next;
        exchange_free(x);
    }
}

static void transport_cancel(void *user, sluice_exchange *exchange)
{
    curl_transport *t = user;

    if (exchange == NULL)
        return;
    exchange->is_over = true;
    if (!t->in_step)
        reap(t);
}

/* Hand libcurl what open() has left.  The first perform starts the connection. */
static void add_pending(curl_transport *t)
{
    for (sluice_exchange *x = t->head; x != NULL; x = x->next) {
        if (x->phase != PENDING || x->is_over)
            continue;
        x->phase = CONNECTING;
        x->is_in_multi = curl_multi_add_handle(t->multi, x->easy) == CURLM_OK;
        if (!x->is_in_multi)
            fail(x, words_for(x, CURLE_OUT_OF_MEMORY));
    }
}

/* The instant at which `x` is given up, with the words for it. */
static uint64_t next_timer(const sluice_exchange *x, const char **what)
{
    uint64_t at = x->deadline_us, other = UINT64_MAX;
    const char *words = "the deadline has passed";
    const char *other_words = NULL;

    if (x->phase <= CONNECTING) {
        other = x->connect_us;
        other_words = "no connection in time";
    } else if (x->phase == WAITING && x->is_sent && x->first_byte_us != 0) {
        other_words = "the server took the request and has not answered in time";
        if (!sluice_add_u64(x->sent_us, x->first_byte_us, &other))
            other = UINT64_MAX;
    } else if (x->phase >= HEADERS) {
        other_words = "the answer has stalled";
        if (!sluice_add_u64(x->last_byte_us, x->gap_us, &other))
            other = UINT64_MAX;
    }
    if (other < at) {
        at = other;
        words = other_words;
    }
    *what = words;
    return at;
}

static void expire(curl_transport *t)
{
    const uint64_t now_us = sluice_now_us(t->platform);

    for (sluice_exchange *x = t->head; x != NULL; x = x->next) {
        const char *what;
        if (!x->is_over && next_timer(x, &what) <= now_us)
            fail(x, (failure_words){ SLUICE_ERR_TIMEOUT, what, "" });
    }
}

static void drive(curl_transport *t)
{
    CURLMsg *message;
    int n_running, n_left;

    add_pending(t);
    (void)curl_multi_perform(t->multi, &n_running); /* what goes wrong with one exchange comes as its message */
    for (sluice_exchange *x = t->head; x != NULL; x = x->next)
        if (x->is_in_multi)
            note_sent(x);
    while ((message = curl_multi_info_read(t->multi, &n_left)) != NULL) {
        char *owner = NULL;
        if (message->msg == CURLMSG_DONE && curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &owner) == CURLE_OK && owner != NULL)
            finish((sluice_exchange *)(void *)owner, message->data.result);
    }
    expire(t);
    reap(t);
}

/* Up to the next timer of ours; libcurl cuts it further to its own. */
static int wait_ms(const curl_transport *t, uint32_t max_wait_ms)
{
    const uint64_t now_us = sluice_now_us(t->platform);
    uint64_t until_us = after_ms(now_us, max_wait_ms < POLL_MS_MAX ? max_wait_ms : POLL_MS_MAX);

    for (const sluice_exchange *x = t->head; x != NULL; x = x->next) {
        const char *what;
        const uint64_t at = next_timer(x, &what);
        if (x->phase == PENDING)
            return 0;
        if (at < until_us)
            until_us = at;
    }
    return until_us <= now_us ? 0 : (int)((until_us - now_us + 999) / 1000);
}

static size_t transport_step(void *user, uint32_t max_wait_ms)
{
    curl_transport *t = user;
    const uint64_t n_events = t->n_events;
    size_t n_live = 0;

    t->in_step = true;
    drive(t);
    if (t->n_events == n_events && max_wait_ms > 0) {
        (void)curl_multi_poll(t->multi, NULL, 0, wait_ms(t, max_wait_ms), NULL);
        drive(t);
    }
    t->in_step = false;
    for (const sluice_exchange *x = t->head; x != NULL; x = x->next)
        n_live++;
    return n_live;
}

static void transport_wake(void *user)
{
    curl_transport *t = user;
    (void)curl_multi_wakeup(t->multi);
}

static void transport_close(void *user)
{
    curl_transport *t = user;

    for (sluice_exchange *x = t->head; x != NULL; x = x->next)
        x->is_over = true;
    reap(t);
    (void)curl_multi_cleanup(t->multi);
    sluice_free(t->al, t, sizeof *t);
}

sluice_status sluice_transport_curl_open(sluice_transport *out, const sluice_platform *platform, const sluice_allocator *al, sluice_error *err)
{
    const sluice_transport empty = { 0 };
    const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);
    curl_transport *t;

    *out = empty;
    if ((info->features & CURL_VERSION_THREADSAFE) == 0 || (info->features & CURL_VERSION_SSL) == 0) {
        sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "transport: this libcurl is built without TLS or without thread safety");
        sluice_error_hint(err, "build with the bundled libcurl and mbedTLS (SLUICE_DEPS=bundled)");
        return SLUICE_ERR_UNSUPPORTED;
    }
    /* Counted and safe from any thread (CURL_VERSION_THREADSAFE).  There is no matching cleanup on purpose: on mbedTLS the last one
     * frees the PSA key store of the whole process, which an app may be using too. */
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "transport: libcurl cannot be started");
    t = sluice_alloc_zeroed(al, sizeof *t);
    if (t == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "transport: %zu bytes", sizeof *t);
    t->platform = platform;
    t->al = al;
    t->multi = curl_multi_init();
    if (t->multi == NULL) {
        sluice_free(al, t, sizeof *t);
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "transport: no memory for libcurl");
    }
    *out = (sluice_transport){ .size = sizeof *out,
                               .user = t,
                               .open = transport_open,
                               .cancel = transport_cancel,
                               .step = transport_step,
                               .wake = transport_wake,
                               .close = transport_close };
    return SLUICE_OK;
}

const char *sluice_transport_curl_version(void)
{
    return curl_version();
}
