/* upstream.c - forwards an opened request to a server that speaks the same dialect, and its answer back as it comes.
 *
 * The server's key is added here: a phone never has it.  Of the server's header lines only status and content type go on.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include "samples/gateway/parts.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { CONNECT_S = 10, STALL_S = 60 };

typedef struct upstream {
    char *url, *ca_file, *authorization; /* the last: a whole header line, or NULL */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned n_live; /* threads that use this */
} upstream;

typedef struct forward {
    upstream *owner;
    gateway_stream *stream;
    CURL *easy;
    char *body;
    size_t len;
    bool has_started;
} forward;

static void start(forward *f)
{
    long status = 0;
    const char *type = NULL;

    if (f->has_started)
        return;
    f->has_started = true;
    curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(f->easy, CURLINFO_CONTENT_TYPE, &type);
    gateway_stream_start(f->stream, status >= 200 && status <= 599 ? (int)status : 502, type ? type : "application/json");
}

static size_t on_body(char *data, size_t size, size_t n, void *user)
{
    forward *f = user;

    start(f);
    return gateway_stream_write(f->stream, data, size * n) ? size * n : 0;
}

static int on_progress(void *user, curl_off_t down_total, curl_off_t down, curl_off_t up_total, curl_off_t up)
{
    forward *f = user;

    (void)down_total, (void)down, (void)up_total, (void)up;
    return gateway_is_stopping() || gateway_stream_is_abandoned(f->stream); /* nonzero ends it */
}

static CURLcode perform(forward *f, struct curl_slist *headers)
{
    const bool is_tls = strncasecmp(f->owner->url, "https:", 6) == 0;
    CURL *c = f->easy;
    CURLcode code = CURLE_OK;

#define SET(option, value) code = code != CURLE_OK ? code : curl_easy_setopt(c, option, value)
    SET(CURLOPT_URL, f->owner->url);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION, 0L); /* a redirect would carry prompt and key somewhere else */
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    if (is_tls) {
        SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
        SET(CURLOPT_SSL_VERIFYPEER, 1L);
        SET(CURLOPT_SSL_VERIFYHOST, 2L);
        SET(CURLOPT_CAINFO, f->owner->ca_file);
    }
    SET(CURLOPT_POST, 1L);
    SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)f->len);
    SET(CURLOPT_POSTFIELDS, f->body);
    SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    SET(CURLOPT_LOW_SPEED_LIMIT, 1L);
    SET(CURLOPT_LOW_SPEED_TIME, (long)STALL_S);
    SET(CURLOPT_NOPROGRESS, 0L);
    SET(CURLOPT_XFERINFOFUNCTION, on_progress);
    SET(CURLOPT_XFERINFODATA, f);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, f);
#undef SET
    return code != CURLE_OK ? code : curl_easy_perform(c);
}

static void forward_free(forward *f)
{
    upstream *u = f->owner;

    explicit_bzero(f->body, f->len);
    free(f->body);
    free(f);
    pthread_mutex_lock(&u->lock);
    u->n_live--;
    pthread_cond_broadcast(&u->changed);
    pthread_mutex_unlock(&u->lock);
}

static void *forward_run(void *user)
{
    forward *f = user;
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    CURLcode code = CURLE_OUT_OF_MEMORY;
    char *text;

    f->easy = curl_easy_init();
    if (headers != NULL && f->owner->authorization != NULL) {
        struct curl_slist *more = curl_slist_append(headers, f->owner->authorization);
        if (more == NULL)
            curl_slist_free_all(headers);
        headers = more;
    }
    if (headers != NULL && f->easy != NULL)
        code = perform(f, headers);
    if (code == CURLE_OK) {
        start(f);
    } else if (!f->has_started) {
        gateway_log("the upstream server failed: %s", curl_easy_strerror(code));
        gateway_stream_start(f->stream, 502, "application/json");
        text = gateway_chat_error("upstream_unreachable", "the gateway could not reach the model's server");
        if (text != NULL)
            gateway_stream_write(f->stream, text, strlen(text));
        free(text);
        code = CURLE_OK; /* a whole answer, if not the wanted one */
    }
    gateway_stream_finish(f->stream, code == CURLE_OK);
    curl_slist_free_all(headers);
    curl_easy_cleanup(f->easy);
    forward_free(f);
    return NULL;
}

static forward *forward_new(upstream *u, const char *body, size_t len, gateway_stream *s)
{
    forward *f = calloc(1, sizeof *f);

    if (f == NULL)
        return NULL;
    *f = (forward){ .owner = u, .stream = s, .body = malloc(len), .len = len };
    if (f->body == NULL) {
        free(f);
        return NULL;
    }
    memcpy(f->body, body, len);
    pthread_mutex_lock(&u->lock);
    u->n_live++;
    pthread_mutex_unlock(&u->lock);
    return f;
}

static void upstream_ask(void *user, const char *body, size_t len, gateway_stream *s)
{
    forward *f = forward_new(user, body, len, s);
    pthread_attr_t attr;
    pthread_t thread;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    if (f == NULL || pthread_create(&thread, &attr, forward_run, f) != 0) {
        if (f != NULL)
            forward_free(f);
        gateway_stream_finish(s, false);
    }
    pthread_attr_destroy(&attr);
}

static void upstream_close(void *user)
{
    upstream *u = user;

    pthread_mutex_lock(&u->lock);
    while (u->n_live > 0) /* on_progress() ends them within a second */
        pthread_cond_wait(&u->changed, &u->lock);
    pthread_mutex_unlock(&u->lock);
    if (u->authorization != NULL)
        explicit_bzero(u->authorization, strlen(u->authorization));
    pthread_cond_destroy(&u->changed);
    pthread_mutex_destroy(&u->lock);
    free(u->authorization);
    free(u->ca_file);
    free(u->url);
    free(u);
}

/* Prompts go in the clear to this machine at most. */
static bool is_loopback_http(const char *url)
{
    static const char *const prefixes[] = { "http://127.0.0.1", "http://localhost", "http://[::1]" };

    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        const size_t n = strlen(prefixes[i]);
        if (strncasecmp(url, prefixes[i], n) == 0 && (url[n] == '\0' || url[n] == ':' || url[n] == '/'))
            return true;
    }
    return false;
}

static bool key_is_sane(const char *key)
{
    for (const char *k = key; *k != '\0'; k++)
        if (*k <= ' ' || *k > '~')
            return false;
    return key[0] != '\0';
}

bool gateway_upstream_open(gateway_backend *out, const gateway_upstream_options *options, sluice_error *err)
{
    static const char path[] = "/v1/chat/completions";
    size_t len = strlen(options->url);
    upstream *u;

    if (strncasecmp(options->url, "https://", 8) != 0 && !is_loopback_http(options->url))
        return gateway_fail(err, SLUICE_ERR_ARGUMENT, "use https://; plain http:// is for servers on 127.0.0.1 alone",
                            "--upstream: \"%s\" would carry prompts in the clear", options->url);
    if (options->key != NULL && !key_is_sane(options->key))
        return gateway_fail(err, SLUICE_ERR_ARGUMENT, "it must be one word without white space",
                            "the upstream key holds characters that cannot go into a header");
    u = calloc(1, sizeof *u);
    if (u == NULL)
        return gateway_fail(err, SLUICE_ERR_NO_MEMORY, "", "no memory");
    pthread_mutex_init(&u->lock, NULL);
    pthread_cond_init(&u->changed, NULL);
    while (len > 0 && options->url[len - 1] == '/')
        len--;
    if (len >= 3 && memcmp(options->url + len - 3, "/v1", 3) == 0)
        len -= 3; /* base URLs are written with and without it */
    if (asprintf(&u->url, "%.*s%s", (int)len, options->url, path) < 0)
        u->url = NULL;
    u->ca_file = strdup(options->ca_file);
    if (options->key != NULL && asprintf(&u->authorization, "Authorization: Bearer %s", options->key) < 0)
        u->authorization = NULL;
    if (u->url == NULL || u->ca_file == NULL || (options->key != NULL && u->authorization == NULL)) {
        upstream_close(u);
        return gateway_fail(err, SLUICE_ERR_NO_MEMORY, "", "no memory");
    }
    *out = (gateway_backend){ .name = "an upstream server", .user = u, .ask = upstream_ask, .close = upstream_close };
    return true;
}
