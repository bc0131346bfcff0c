/* fuzz_openai_answer.c - a model's answer, streamed, plain or an error, cut anywhere
 *
 * Events and status must not depend on the cut, DONE comes at most once and only with success, text is UTF-8, and what the server wrote does not get
 * into an error message unless it is an identifier.  Byte 0: form (stream, JSON, error).  Byte 1: where to cut.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "cloud-adapters/providers/provider.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct answer {
    sluice_buf log;
    int n_done;
} answer;

static void must(bool ok)
{
    if (!ok)
        abort();
}

static bool write_down(const sluice_provider_event *e, void *user)
{
    answer *a = user;

    must(a->n_done == 0);
    a->n_done += e->part == SLUICE_PROVIDER_DONE;
    must(sluice_utf8_valid(e->text));
    must(sluice_buf_appendf(&a->log, "<%d %u %u %d>", (int)e->part, e->prompt_tokens, e->output_tokens, e->is_truncated) &&
         sluice_buf_append_span(&a->log, e->text));
    return true;
}

static void check_message(const sluice_error *err)
{
    for (const char *c = err->message; *c != 0; c++)
        must(*c >= 0x20 && *c < 0x7f);
}

static sluice_status read_cut(unsigned form, sluice_span bytes, size_t cut, answer *a)
{
    const sluice_provider *p = sluice_provider_find("openai-chat");
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_provider_reader *r;
    sluice_status st;

    sluice_buf_init(&a->log, NULL, SIZE_MAX);
    a->n_done = 0;
    must(p->reader_open(&r, NULL, write_down, a, NULL) == SLUICE_OK);
    must(p->reader_status(r, form == 2 ? 500 : 200, NULL) == SLUICE_OK);
    must(p->reader_header(r, SLUICE_SPAN_LIT("content-type"), form == 0 ? SLUICE_SPAN_LIT("text/event-stream") : SLUICE_SPAN_LIT("application/json"),
                          NULL) == SLUICE_OK);
    st = p->reader_feed(r, sluice_span_of(bytes.ptr, cut), &err);
    if (st == SLUICE_OK)
        st = p->reader_feed(r, sluice_span_of(bytes.ptr + cut, bytes.len - cut), &err);
    if (st == SLUICE_OK)
        st = p->reader_finish(r, &err);
    must((st == SLUICE_OK) == (a->n_done == 1) && st == err.status);
    check_message(&err);
    p->reader_close(r);
    return st;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    answer whole, cut;
    sluice_span bytes;
    sluice_status st;

    if (size < 3)
        return 0;
    bytes = sluice_span_of(data + 2, size - 2);
    st = read_cut(data[0] % 3, bytes, bytes.len, &whole);
    must(read_cut(data[0] % 3, bytes, data[1] % bytes.len, &cut) == st);
    must(sluice_span_eq(sluice_buf_span(&whole.log), sluice_buf_span(&cut.log)));
    sluice_buf_deinit(&whole.log);
    sluice_buf_deinit(&cut.log);
    return 0;
}
