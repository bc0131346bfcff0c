/* driver.c - the library's client and gateway, driven by lines of hexadecimal on standard input and output
 *
 *   ohttp_interop_driver client plain|chunked KEYS
 *     > request TYPE BODY     < TYPE BODY     > ok EVENTS | refused STATUS
 *   ohttp_interop_driver gateway plain|chunked
 *     > keys LIST     < TYPE BODY     > request CONTROL FIELDS CONTENT | refused STATUS     > response TYPE BODY
 *
 * The client goes the whole way: provider, egress gate, seal.  Answers are fed to it in pieces of 13 bytes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "cloud-adapters/oblivious/seal.h"
#include "cloud-adapters/providers/provider.h"
#include "sdk/crypto/crypto.h"
#include "sluice/gateway.h"
#include "tests/unit/cloud/gate.h"

enum { LINE_MAX_BYTES = 1 << 20, STEP = 13 };

static char line[LINE_MAX_BYTES], type[64];
static uint8_t body[LINE_MAX_BYTES / 2];

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "driver: %s\n", what);
        exit(2);
    }
}

static void put_hex(sluice_span bytes)
{
    putchar(' ');
    for (size_t i = 0; i < bytes.len; i++)
        printf("%02x", bytes.ptr[i]);
}

static void end_line(void)
{
    putchar('\n');
    fflush(stdout);
}

static size_t unhex_into(uint8_t *out, const char *hex)
{
    const size_t len = strlen(hex) / 2;

    must(sluice_unhex(out, len, hex), "not hexadecimal");
    return len;
}

/* "TYPE BODY" from standard input. */
static sluice_span read_message(void)
{
    char *space;

    must(fgets(line, sizeof line, stdin) != NULL, "no input");
    line[strcspn(line, "\n")] = 0;
    space = strchr(line, ' ');
    must(space != NULL && (size_t)(space - line) < sizeof type, "not two words");
    memcpy(type, line, (size_t)(space - line));
    type[space - line] = 0;
    return sluice_span_of(body, unhex_into(body, space + 1));
}

static bool write_down(const sluice_answer_event *e, void *user)
{
    sluice_buf *log = user;

    switch (e->part) {
    case SLUICE_ANSWER_STATUS: return sluice_buf_appendf(log, "%d", e->http_status);
    case SLUICE_ANSWER_HEADER:
        return sluice_buf_append_str(log, "|") && sluice_buf_append_span(log, e->name) && sluice_buf_append_str(log, "=") &&
               sluice_buf_append_span(log, e->value) && sluice_buf_append_str(log, "|");
    case SLUICE_ANSWER_BODY: return sluice_buf_append_span(log, e->body);
    case SLUICE_ANSWER_END: return sluice_buf_append_str(log, "|end");
    }
    return false;
}

static sluice_status read_answer(sluice_answer_opener *o, sluice_buf *log)
{
    const sluice_span bytes = read_message();
    sluice_status st = sluice_answer_begin(o, sluice_span_str(type), 1 << 20, write_down, log, NULL);

    for (size_t at = 0; st == SLUICE_OK && at < bytes.len; at += STEP)
        st = sluice_answer_feed(o, sluice_span_of(bytes.ptr + at, bytes.len - at < STEP ? bytes.len - at : STEP), NULL);
    return st == SLUICE_OK ? sluice_answer_finish(o, NULL) : st;
}

static void client(bool is_streamed, const char *keys)
{
    static const sluice_provider_message message = { "user",
                                                     { (const uint8_t *)"Gr\xc3\xbc\xc3\x9f"
                                                                        "e \xf0\x9f\x98\x80",
                                                       12 } };
    const sluice_provider_request q = { "api.example", "/v1/chat/completions", "small", &message, 1, 64, 0.0f, is_streamed, 1763690000000 };
    uint8_t list[256];
    sluice_buf request, log;
    sluice_envelope *e;
    sluice_answer_opener *o;
    sluice_grant *grant;
    sluice_status st;
    static test_gate gate;

    test_gate_open(&gate, sluice_span_of(list, unhex_into(list, keys)));
    gate.fp.seed = (uint64_t)(uintptr_t)&request; /* another ephemeral key in each run, where addresses are random */
    sluice_buf_init(&request, NULL, 1 << 20);
    sluice_buf_init(&log, NULL, 1 << 20);
    must(sluice_provider_find("openai-chat")->build(&q, &request, NULL, NULL) == SLUICE_OK, "build");
    grant = test_gate_grant(&gate, sluice_buf_span(&request));
    must(sluice_seal(grant, sluice_buf_span(&request), is_streamed, &gate.fp.platform, NULL, &e, &o, NULL) == SLUICE_OK, "seal");
    printf("request %s", sluice_envelope_content_type(e));
    put_hex(sluice_envelope_bytes(e));
    end_line();
    st = read_answer(o, &log);
    printf("%s", st == SLUICE_OK ? "ok" : "refused");
    if (st == SLUICE_OK)
        put_hex(sluice_buf_span(&log));
    else
        printf(" %s", sluice_status_name(st));
    end_line();
    sluice_grant_close(grant);
    sluice_envelope_close(e);
    sluice_answer_close(o);
    sluice_buf_deinit(&request);
    sluice_buf_deinit(&log);
    test_gate_close(&gate);
}

static sluice_status collect(sluice_span bytes, void *user)
{
    return sluice_buf_append_span(user, bytes) ? SLUICE_OK : SLUICE_ERR_NO_MEMORY;
}

static void put_request(const sluice_gateway_request *http)
{
    const sluice_span control[] = { http->method, http->scheme, http->authority, http->path };
    sluice_buf text;

    printf("request");
    sluice_buf_init(&text, NULL, 1 << 20);
    for (size_t i = 0; i < 4; i++)
        must((i == 0 || sluice_buf_append_str(&text, " ")) && sluice_buf_append_span(&text, control[i]), "memory");
    put_hex(sluice_buf_span(&text));
    sluice_buf_clear(&text);
    for (size_t i = 0; i < http->n_headers; i++)
        must(sluice_buf_append_span(&text, http->headers[i].name) && sluice_buf_append_str(&text, ": ") &&
                 sluice_buf_append_span(&text, http->headers[i].value) && sluice_buf_append_str(&text, "\n"),
             "memory");
    put_hex(sluice_buf_span(&text));
    put_hex(http->body);
    end_line();
    sluice_buf_deinit(&text);
}

static void gateway(bool is_chunked)
{
    static const uint8_t random[32] = { 9, 9, 9 };
    static const sluice_gateway_header header = { { (const uint8_t *)"content-type", 12 }, { (const uint8_t *)"text/plain", 10 } };
    static uint8_t long_piece[30000];
    uint8_t list[64];
    size_t len = sizeof list;
    sluice_gateway_exchange *x;
    sluice_gateway_request http;
    sluice_span message;
    sluice_status st;
    sluice_buf out;

    must(sluice_gateway_key_config(7, TEST_GATEWAY_SECRET, list, &len, NULL) == SLUICE_OK, "key configuration");
    printf("keys");
    put_hex(sluice_span_of(list, len));
    end_line();
    message = read_message();
    st = sluice_gateway_open(&x, 7, TEST_GATEWAY_SECRET, type, message, NULL, &http, NULL);
    if (st != SLUICE_OK) {
        printf("refused %s", sluice_status_name(st));
        end_line();
        return;
    }
    must(http.is_chunked == is_chunked, "form");
    put_request(&http);
    memset(long_piece, 'z', sizeof long_piece);
    sluice_buf_init(&out, NULL, 1 << 20);
    must(sluice_gateway_respond_begin(x, random, 201, &header, 1, collect, &out, NULL) == SLUICE_OK &&
             sluice_gateway_respond_body(x, SLUICE_SPAN_LIT("one "), NULL) == SLUICE_OK &&
             sluice_gateway_respond_body(x, SLUICE_SPAN_LIT("two three"), NULL) == SLUICE_OK &&
             sluice_gateway_respond_body(x, sluice_span_of(long_piece, sizeof long_piece), NULL) == SLUICE_OK &&
             sluice_gateway_respond_end(x, NULL) == SLUICE_OK,
         "respond");
    printf("response %s", sluice_gateway_response_type(x));
    put_hex(sluice_buf_span(&out));
    end_line();
    sluice_buf_deinit(&out);
    sluice_gateway_close(x);
}

int main(int argc, char **argv)
{
    must(sluice_crypto_init(NULL) == SLUICE_OK, "crypto");
    must(argc >= 3, "client|gateway plain|chunked [KEYS]");
    if (strcmp(argv[1], "gateway") == 0) {
        gateway(strcmp(argv[2], "chunked") == 0);
    } else {
        must(argc == 4, "client plain|chunked KEYS");
        client(strcmp(argv[2], "chunked") == 0, argv[3]);
    }
    return 0;
}
