/* calibrate.c - an importance matrix from a text.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/tools/calibrate.h"

#include "local-engine/engine.h"

enum {
    TEXT_BYTES_MAX = 64 << 20,
    STEP = 16 /* tokens of a call: of so many the last layer and the logits are computed for each, which a prompt has no use for but this has */
};

typedef struct calibration {
    const sluice_model_quantize_options *options;
    const sluice_platform *p;
    const sluice_allocator *al;
    sluice_error *err;
    sluice_engine *engine;
    sluice_imatrix *matrix;
    sluice_error failure;    /* of the observer, which has no way to return one */
    int32_t *tokens;
    size_t n_tokens, token_cap;
    uint32_t chunk, n_chunks;
} calibration;

static void observe(void *user, const char *tensor, int32_t expert, const float *x, size_t n_tokens, size_t cols)
{
    calibration *c = user;

    if (c->failure.status == SLUICE_OK)
        (void)sluice_imatrix_add(c->matrix, tensor, expert, x, n_tokens, cols, &c->failure);
}

static sluice_status open_engine(calibration *c, const char *path, uint32_t n_threads)
{
    sluice_engine_options o;

    sluice_engine_options_init(&o);
    o.n_threads = n_threads;
    o.context_tokens = SLUICE_CALIBRATE_CHUNK;
    return sluice_engine_open(&c->engine, path, &o, c->p, c->al, c->err);
}

static sluice_status read_text(calibration *c)
{
    sluice_buf text;
    sluice_status st;
    size_t n = 0;

    sluice_buf_init(&text, c->al, TEXT_BYTES_MAX);
    st = sluice_platform_read_file(c->p, c->options->calibrate, TEXT_BYTES_MAX, &text, c->err);
    if (st == SLUICE_OK) {
        c->token_cap = text.len + 16; /* a token is a byte at least */
        c->tokens = sluice_alloc_array(c->al, c->token_cap, sizeof *c->tokens);
        n = c->token_cap;
        st = c->tokens != NULL ? sluice_engine_tokenize(c->engine, sluice_buf_span(&text), false, c->tokens, &n, c->err)
                               : sluice_error_set(c->err, SLUICE_ERR_NO_MEMORY, "calibrate: no memory for the tokens of %zu bytes", text.len);
    }
    sluice_buf_deinit(&text);
    if (st == SLUICE_ERR_LIMIT) {
        sluice_error_where(c->err, c->options->calibrate);
        sluice_error_hint(c->err, "a part of the text does as well: some thousand words of it");
    }
    if (st != SLUICE_OK)
        return st;
    c->n_tokens = c->options->calibrate_tokens > 0 && c->options->calibrate_tokens < n ? c->options->calibrate_tokens : n;
    if (n >= SLUICE_CALIBRATE_MIN)
        return SLUICE_OK;
    st = sluice_error_set(c->err, SLUICE_ERR_ARGUMENT, "calibrate: the text has %zu tokens, and %d are the least", n, SLUICE_CALIBRATE_MIN);
    sluice_error_where(c->err, c->options->calibrate);
    sluice_error_hint(c->err, "some thousand words like those that the model will meet are a fair choice");
    return st;
}

static sluice_status report(const calibration *c, size_t done)
{
    const sluice_tool_progress now = { "calibrate", "", "", "", done, c->n_tokens, 0, 0 };

    if (c->options->progress != NULL && !c->options->progress(&now, c->options->user))
        return sluice_error_set(c->err, SLUICE_ERR_CANCELLED, "calibrate: stopped after %zu of %zu tokens", done, c->n_tokens);
    return SLUICE_OK;
}

/* The token that begins every text of the model, if it has one: what an empty text becomes. */
static size_t first_token(const calibration *c, int32_t *token)
{
    int32_t tokens[8];
    size_t n = 8;

    if (sluice_engine_tokenize(c->engine, SLUICE_SPAN_EMPTY, true, tokens, &n, NULL) != SLUICE_OK || n != 1)
        return 0;
    *token = tokens[0];
    return 1;
}

/* One piece of text from an empty cache. */
static sluice_status run_chunk(calibration *c, const int32_t *tokens, size_t n)
{
    const float *logits;
    sluice_status st = SLUICE_OK;

    sluice_engine_reset(c->engine);
    for (size_t at = 0; at < n && st == SLUICE_OK; at += STEP) {
        const uint32_t step = n - at < STEP ? (uint32_t)(n - at) : (uint32_t)STEP;

        st = sluice_engine_eval_rows(c->engine, tokens + at, step, step, &logits, c->err);
    }
    if (st != SLUICE_OK || c->failure.status == SLUICE_OK)
        return st;
    if (c->err != NULL)
        *c->err = c->failure;
    return c->failure.status;
}

static sluice_status run_chunks(calibration *c)
{
    const uint32_t context = sluice_engine_get_info(c->engine)->context_tokens;
    int32_t chunk[SLUICE_CALIBRATE_CHUNK];
    size_t n_first, n;
    sluice_status st = SLUICE_OK;

    c->chunk = context < SLUICE_CALIBRATE_CHUNK ? context : SLUICE_CALIBRATE_CHUNK;
    n_first = c->chunk > 1 ? first_token(c, chunk) : 0;
    sluice_engine_observe(c->engine, observe, c);
    for (size_t at = 0; at < c->n_tokens && st == SLUICE_OK; at += n) {
        n = c->n_tokens - at < c->chunk - n_first ? c->n_tokens - at : c->chunk - n_first;
        memcpy(chunk + n_first, c->tokens + at, n * sizeof *chunk);
        st = report(c, at);
        if (st == SLUICE_OK)
            st = run_chunk(c, chunk, n_first + n);
        c->n_chunks++;
    }
    sluice_engine_observe(c->engine, NULL, NULL);
    return st == SLUICE_OK ? report(c, c->n_tokens) : st;
}

static sluice_status save(calibration *c, const char *path)
{
    sluice_gguf *g = NULL;
    sluice_buf file;
    sluice_status st;

    if (c->options->imatrix_out == NULL)
        return SLUICE_OK;
    sluice_buf_init(&file, c->al, SIZE_MAX);
    st = sluice_gguf_open(&g, path, c->p, c->al, c->err);
    if (st == SLUICE_OK)
        st = sluice_imatrix_write(c->matrix, g, c->options->calibrate, c->n_chunks, c->chunk, &file, c->err);
    if (st == SLUICE_OK)
        st = sluice_platform_write_file(c->p, c->options->imatrix_out, sluice_buf_span(&file), c->err);
    sluice_gguf_close(g);
    sluice_buf_deinit(&file);
    return st;
}

sluice_status sluice_calibrate(sluice_imatrix **out, const char *path, const sluice_model_quantize_options *options, uint32_t n_threads,
                               const sluice_platform *platform, const sluice_allocator *al, uint32_t *n_tokens, sluice_error *err)
{
    calibration c;
    sluice_status st;

    *out = NULL;
    memset(&c, 0, sizeof c);
    c.options = options;
    c.p = platform;
    c.al = al;
    c.err = err;
    st = sluice_imatrix_new(&c.matrix, al, err);
    if (st == SLUICE_OK)
        st = open_engine(&c, path, n_threads);
    if (st == SLUICE_OK)
        st = read_text(&c);
    if (st == SLUICE_OK)
        st = run_chunks(&c);
    if (st == SLUICE_OK)
        st = save(&c, path);
    *n_tokens = (uint32_t)c.n_tokens;
    if (c.tokens != NULL)
        sluice_free_wiped(al, c.tokens, c.token_cap * sizeof *c.tokens);
    sluice_engine_close(c.engine);
    if (st != SLUICE_OK) {
        sluice_imatrix_close(c.matrix);
        return st;
    }
    *out = c.matrix;
    return SLUICE_OK;
}
