/* model_quantize.c - a GGUF file to another with smaller tensors, a few rows at a time.
 *
 * The source is mapped, so its pages come and go as the system likes.  The output's header is known before any tensor is made, because sizes follow
 * from types and shapes; after it the tensors are written one behind the other:
 *
 *      source rows ──► per thread: one row of floats ──► a batch of finished rows ──► OUT.part ──► sync ──► rename to OUT
 *
 * Threads take runs of rows of a batch; which thread took which changes nothing in the file.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

#include "local-engine/threads.h"
#include "local-engine/tools/calibrate.h"
#include "local-engine/tools/gguf_write.h"
#include "local-engine/tools/imatrix.h"
#include "local-engine/tools/mix.h"
#include "local-engine/tools/model_tools.h"
#include "local-engine/tools/quantize.h"

enum {
    BATCH_BYTES = 4 << 20,  /* finished rows of a batch; one row at least */
    RUN_WEIGHTS = 1 << 15,  /* of a pool item: some milliseconds of work */
    MAX_THREADS_BY_DEFAULT = 8,
    PATH_BYTES_MAX = 4096,
    QUANTIZATION_VERSION = 2 /* of the blocks' layouts: the only one that files still have */
};

typedef struct plan {
    uint32_t type; /* of the output */
    uint64_t bytes;
} plan;

/* Rows of one tensor that the pool works on. */
typedef struct batch {
    const sluice_gguf_tensor *t;
    uint32_t type;
    uint64_t first, n_rows;      /* rows of the tensor, all experts' rows counted on */
    uint64_t run;                /* rows of an item */
    size_t in_bytes, out_bytes;  /* of a row */
    const sluice_imatrix *imatrix;
    uint8_t *out;
    float *rows;                 /* (n_threads, cols) */
    atomic_flag failed;          /* the first failure keeps `error` */
    sluice_error error;
    _Atomic bool stop;
    _Atomic bool without_importance;
} batch;

typedef struct quantizer {
    const sluice_model_quantize_options *options;
    const sluice_platform *p;
    const sluice_allocator *al;
    sluice_error *err;
    sluice_model_quantize_result *result;
    sluice_gguf *g;
    const sluice_mix_kind *kind;
    sluice_mix_model model;
    sluice_imatrix *imatrix;
    sluice_pool *pool;
    plan *plans;                /* (n_tensors) */
    uint8_t *batch_out;
    size_t batch_cap;
    float *rows;
    size_t rows_bytes;
    sluice_file *file;
    char part[PATH_BYTES_MAX];
    uint64_t done, total;       /* source bytes */
    uint32_t n_done;
} quantizer;

const char *sluice_model_quantize_types(void)
{
    return sluice_mix_names();
}

#define NAME_ARGS(t) (int)(t)->name.len, (const char *)(t)->name.ptr

/* ---- what becomes of each tensor ------------------------------------------------------------------------ */

static bool is_float(uint32_t type)
{
    return type == SLUICE_TENSOR_F32 || type == SLUICE_TENSOR_F16 || type == SLUICE_TENSOR_BF16;
}

static uint32_t choose_type(quantizer *q, const sluice_gguf_tensor *t)
{
    bool is_fallback = false;
    uint32_t type;
    uint64_t bytes;

    if (!sluice_mix_applies(t)) /* vectors and norms are read as F32; what else stays, stays as it is */
        return is_float(t->type) && t->n_dims == 1 ? (uint32_t)SLUICE_TENSOR_F32 : t->type;
    if (!sluice_can_quantize(t->type))
        return t->type;
    if (q->options->pure) {
        type = sluice_mix_base(q->kind);
        is_fallback = !sluice_tensor_row_bytes(type, t->ne[0], &bytes);
        if (is_fallback)
            type = sluice_mix_fallback(type, t->ne[0]);
    } else {
        type = sluice_mix_type(q->kind, &q->model, t, &is_fallback);
    }
    q->result->n_fallback += is_fallback;
    return type;
}

static sluice_status check_source(quantizer *q, const sluice_gguf_tensor *t, uint32_t type)
{
    sluice_status st;

    if (type == t->type || is_float(t->type))
        return SLUICE_OK;
    if (!sluice_can_quantize(t->type)) {
        st = sluice_error_set(q->err, SLUICE_ERR_UNSUPPORTED, "quantize: \"%.*s\" is %s, which cannot be converted", NAME_ARGS(t),
                              sluice_tensor_type_name(t->type));
        sluice_error_hint(q->err, "start from an F16, BF16 or F32 file of the model");
        return st;
    }
    if (q->options->allow_requantize)
        return SLUICE_OK;
    st = sluice_error_set(q->err, SLUICE_ERR_UNSUPPORTED, "quantize: \"%.*s\" is %s: the source is quantized already, and doing it twice loses more",
                          NAME_ARGS(t), sluice_tensor_type_name(t->type));
    sluice_error_hint(q->err, "start from an F16, BF16 or F32 file of the model, or add --allow-requantize");
    return st;
}

static sluice_status make_plans(quantizer *q)
{
    const size_t n = sluice_gguf_n_tensors(q->g);

    if (n == 0)
        return sluice_error_set(q->err, SLUICE_ERR_FORMAT, "quantize: the file has no tensors");
    q->plans = sluice_alloc_array(q->al, n, sizeof *q->plans);
    if (q->plans == NULL)
        return sluice_error_set(q->err, SLUICE_ERR_NO_MEMORY, "quantize: no memory for the plan of %zu tensors", n);
    for (size_t i = 0; i < n; i++) {
        const sluice_gguf_tensor *t = sluice_gguf_tensor_at(q->g, i);
        const uint32_t type = choose_type(q, t);
        uint64_t row_bytes = 0;
        sluice_status st = check_source(q, t, type);

        if (st != SLUICE_OK)
            return st;
        if (!sluice_tensor_row_bytes(type, t->ne[0], &row_bytes) || !sluice_mul_u64(row_bytes, t->ne[1] * t->ne[2] * t->ne[3], &q->plans[i].bytes))
            return sluice_error_set(q->err, SLUICE_ERR_LIMIT, "quantize: \"%.*s\" is too large", NAME_ARGS(t));
        q->plans[i].type = type;
        q->total += t->bytes;
        q->result->n_changed += type != t->type;
    }
    q->result->n_tensors = (uint32_t)n;
    return SLUICE_OK;
}

/* ---- header ------------------------------------------------------------------------------------------------ */

static bool begins(sluice_span s, const char *with)
{
    return s.len >= strlen(with) && memcmp(s.ptr, with, strlen(with)) == 0;
}

static void copy_values(quantizer *q, sluice_gguf_writer *w)
{
    for (size_t i = 0; i < sluice_gguf_n_values(q->g); i++) {
        const sluice_gguf_value *v = sluice_gguf_value_at(q->g, i);
        const uint8_t *from = v->key.ptr + v->key.len + 4, *end = v->data.ptr + v->data.len; /* behind key and type number */

        if (sluice_span_eq_str(v->key, "general.file_type") || sluice_span_eq_str(v->key, "general.quantization_version") ||
            begins(v->key, "quantize.imatrix.") || begins(v->key, "split."))
            continue;
        sluice_gguf_put_raw(w, v->key, (uint32_t)v->type, sluice_span_of(from, (size_t)(end - from)));
    }
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

/* The metadata says how the file was made: with which matrix, but not where that lay on somebody's machine. */
static void put_origin(quantizer *q, sluice_gguf_writer *w)
{
    sluice_gguf_put_u32(w, "general.file_type", sluice_mix_file_type(q->kind));
    sluice_gguf_put_u32(w, "general.quantization_version", QUANTIZATION_VERSION);
    if (q->imatrix == NULL)
        return;
    if (q->options->imatrix != NULL)
        sluice_gguf_put_string(w, "quantize.imatrix.file", last_part(q->options->imatrix));
    else
        sluice_gguf_put_string(w, "quantize.imatrix.dataset", last_part(q->options->calibrate));
    sluice_gguf_put_u32(w, "quantize.imatrix.entries_count", (uint32_t)sluice_imatrix_n_entries(q->imatrix));
}

static uint64_t padding_of(uint64_t bytes, uint32_t alignment)
{
    return (alignment - bytes % alignment) % alignment;
}

static sluice_status write_header(quantizer *q)
{
    const uint32_t alignment = sluice_gguf_alignment(q->g);
    sluice_gguf_writer w;
    sluice_buf header;
    uint64_t offset = 0;
    sluice_status st;

    sluice_gguf_writer_init(&w, q->al, SIZE_MAX);
    sluice_buf_init(&header, q->al, SIZE_MAX);
    w.alignment = alignment;
    copy_values(q, &w);
    put_origin(q, &w);
    for (size_t i = 0; i < q->result->n_tensors; i++) {
        const sluice_gguf_tensor *t = sluice_gguf_tensor_at(q->g, i);

        sluice_gguf_put_tensor_row(&w, t->name, q->plans[i].type, t->n_dims, t->ne, offset);
        offset += q->plans[i].bytes + padding_of(q->plans[i].bytes, alignment);
    }
    if (sluice_gguf_writer_finish(&w, &header)) {
        q->result->out_bytes = header.len + offset;
        st = q->p->file_write(q->p->user, q->file, header.ptr, header.len, q->err);
    } else {
        st = sluice_error_set(q->err, SLUICE_ERR_NO_MEMORY, "quantize: no memory for the header");
    }
    sluice_buf_deinit(&header);
    sluice_gguf_writer_deinit(&w);
    return st;
}

/* ---- rows ---------------------------------------------------------------------------------------------------- */

static void fail_batch(batch *b, const sluice_error *why, uint64_t row)
{
    atomic_store(&b->stop, true);
    if (atomic_flag_test_and_set(&b->failed))
        return;
    b->error = *why;
    (void)sluice_error_set(&b->error, why->status, "%s, in row %" PRIu64 " of \"%.*s\"", why->message, row, NAME_ARGS(b->t));
    if (why->status == SLUICE_ERR_INTEGRITY)
        sluice_error_hint(&b->error, "the source file is damaged or was converted badly: get it again");
    else if (why->status == SLUICE_ERR_LIMIT)
        sluice_error_hint(&b->error, "use BF16, which has the range of F32");
}

static void quantize_run(void *arg, uint32_t item, uint32_t thread)
{
    batch *b = arg;
    const uint64_t cols = b->t->ne[0], from = (uint64_t)item * b->run, end = from + b->run < b->n_rows ? from + b->run : b->n_rows;
    const float *importance = NULL;
    uint64_t expert = UINT64_MAX;
    float *row = b->rows + thread * cols;

    for (uint64_t i = from; i < end && !atomic_load(&b->stop); i++) {
        const uint8_t *in = (const uint8_t *)b->t->data + (b->first + i) * b->in_bytes;
        const uint64_t now = (b->first + i) / b->t->ne[1];
        sluice_error e = SLUICE_ERROR_INIT;
        sluice_status st = SLUICE_OK;

        (void)sluice_dequantize_row(b->t->type, in, (size_t)cols, row);
        if (b->imatrix != NULL && now != expert) {
            st = sluice_imatrix_get(b->imatrix, b->t->name, cols, b->t->ne[2], now, &importance, &e);
            expert = now;
        }
        if (b->imatrix != NULL && importance == NULL)
            atomic_store(&b->without_importance, true);
        if (st == SLUICE_OK)
            st = sluice_quantize_row(b->type, row, (size_t)cols, importance, b->out + i * b->out_bytes, &e);
        if (st != SLUICE_OK)
            fail_batch(b, &e, b->first + i);
    }
}

static sluice_status report(quantizer *q, const sluice_gguf_tensor *t, uint32_t to)
{
    char name[SLUICE_GGUF_MAX_NAME_BYTES + 1];
    sluice_tool_progress now = { "quantize", name, sluice_tensor_type_name(t->type), sluice_tensor_type_name(to), q->done, q->total, q->n_done,
                                 q->result->n_tensors };

    (void)snprintf(name, sizeof name, "%.*s", NAME_ARGS(t));
    if (q->options->progress != NULL && !q->options->progress(&now, q->options->user))
        return sluice_error_set(q->err, SLUICE_ERR_CANCELLED, "quantize: stopped before \"%s\" was done", name);
    return SLUICE_OK;
}

static bool reserve(quantizer *q, size_t out_bytes, size_t rows_bytes)
{
    if (out_bytes > q->batch_cap) {
        sluice_free(q->al, q->batch_out, q->batch_cap);
        q->batch_out = sluice_alloc(q->al, out_bytes);
        q->batch_cap = q->batch_out != NULL ? out_bytes : 0;
    }
    if (rows_bytes > q->rows_bytes) {
        sluice_free(q->al, q->rows, q->rows_bytes);
        q->rows = sluice_alloc(q->al, rows_bytes);
        q->rows_bytes = q->rows != NULL ? rows_bytes : 0;
    }
    return q->batch_cap >= out_bytes && q->rows_bytes >= rows_bytes;
}

static sluice_status write_converted(quantizer *q, const sluice_gguf_tensor *t, const plan *to)
{
    const uint64_t n_rows = t->ne[1] * t->ne[2] * t->ne[3];
    const size_t out_bytes = (size_t)(to->bytes / n_rows), in_bytes = t->bytes / (size_t)n_rows;
    const uint64_t wanted = BATCH_BYTES / out_bytes > 0 ? BATCH_BYTES / out_bytes : 1, each = wanted < n_rows ? wanted : n_rows;
    const uint64_t run = (RUN_WEIGHTS + t->ne[0] - 1) / t->ne[0];
    size_t rows_bytes = 0;
    sluice_status st = SLUICE_OK;
    batch b;

    if (!sluice_mul_size((size_t)t->ne[0] * sizeof(float), sluice_pool_n_threads(q->pool), &rows_bytes) || !reserve(q, (size_t)each * out_bytes, rows_bytes))
        return sluice_error_set(q->err, SLUICE_ERR_NO_MEMORY, "quantize: no memory for rows of \"%.*s\"", NAME_ARGS(t));
    memset(&b, 0, sizeof b);
    b.t = t;
    b.type = to->type;
    b.run = run;
    b.in_bytes = in_bytes;
    b.out_bytes = out_bytes;
    b.imatrix = is_float(to->type) ? NULL : q->imatrix;
    b.out = q->batch_out;
    b.rows = q->rows;
    atomic_flag_clear(&b.failed);
    for (uint64_t first = 0; first < n_rows && st == SLUICE_OK; first += each) {
        b.first = first;
        b.n_rows = n_rows - first < each ? n_rows - first : each;
        sluice_pool_run(q->pool, quantize_run, &b, (uint32_t)((b.n_rows + run - 1) / run));
        if (atomic_load(&b.stop)) {
            if (q->err != NULL)
                *q->err = b.error;
            return b.error.status;
        }
        st = q->p->file_write(q->p->user, q->file, q->batch_out, (size_t)b.n_rows * out_bytes, q->err);
        q->done += b.n_rows * in_bytes;
        if (st == SLUICE_OK)
            st = report(q, t, to->type);
    }
    q->result->n_without_importance += atomic_load(&b.without_importance);
    return st;
}

static sluice_status write_copy(quantizer *q, const sluice_gguf_tensor *t)
{
    sluice_status st = SLUICE_OK;

    for (size_t at = 0; at < t->bytes && st == SLUICE_OK; at += BATCH_BYTES) {
        const size_t n = t->bytes - at < BATCH_BYTES ? t->bytes - at : BATCH_BYTES;

        st = q->p->file_write(q->p->user, q->file, (const uint8_t *)t->data + at, n, q->err);
        q->done += n;
        if (st == SLUICE_OK)
            st = report(q, t, t->type);
    }
    return st;
}

static sluice_status write_tensors(quantizer *q)
{
    static const uint8_t zeros[SLUICE_GGUF_MAX_ALIGNMENT] = { 0 };
    sluice_status st = SLUICE_OK;

    for (size_t i = 0; i < q->result->n_tensors && st == SLUICE_OK; i++) {
        const sluice_gguf_tensor *t = sluice_gguf_tensor_at(q->g, i);
        const uint64_t pad = padding_of(q->plans[i].bytes, sluice_gguf_alignment(q->g));

        st = report(q, t, q->plans[i].type);
        if (st == SLUICE_OK)
            st = q->plans[i].type == t->type ? write_copy(q, t) : write_converted(q, t, &q->plans[i]);
        if (st == SLUICE_OK && pad > 0)
            st = q->p->file_write(q->p->user, q->file, zeros, (size_t)pad, q->err);
        q->n_done++;
    }
    return st;
}

/* ---- the output file -------------------------------------------------------------------------------------------- */

static sluice_status refuse_existing(quantizer *q, const char *out, const char *what)
{
    sluice_file *f = NULL;
    sluice_error e = SLUICE_ERROR_INIT;
    sluice_status st = q->p->file_open(q->p->user, &f, out, SLUICE_FILE_READ, &e);

    q->p->file_close(q->p->user, f);
    if (st == SLUICE_ERR_NOT_FOUND || (st == SLUICE_OK && q->options->overwrite))
        return SLUICE_OK;
    if (st != SLUICE_OK) {
        if (q->err != NULL)
            *q->err = e;
        return st;
    }
    st = sluice_error_set(q->err, SLUICE_ERR_STATE, "quantize: %s exists already", what);
    sluice_error_where(q->err, out);
    sluice_error_hint(q->err, "choose another name, or add --force to replace it");
    return st;
}

/* "OUT.part", ours alone.  One that is there already belongs to a program that is at work, which then holds its lock, or to one that was killed. */
static sluice_status open_part(quantizer *q, const char *out)
{
    sluice_file *f = NULL;
    sluice_error e = SLUICE_ERROR_INIT;
    sluice_status st;

    if (snprintf(q->part, sizeof q->part, "%s.part", out) >= (int)sizeof q->part)
        return sluice_error_set(q->err, SLUICE_ERR_LIMIT, "quantize: the output's path is too long");
    st = q->p->file_open(q->p->user, &f, q->part, SLUICE_FILE_READ, &e);
    if (st == SLUICE_OK) {
        st = q->p->file_lock(q->p->user, f, q->err);
        if (st == SLUICE_OK)
            (void)q->p->file_remove(q->p->user, q->part, NULL);
        q->p->file_close(q->p->user, f);
        if (st != SLUICE_OK)
            return st;
    }
    st = q->p->file_open(q->p->user, &f, q->part, SLUICE_FILE_CREATE_NEW, q->err);
    if (st == SLUICE_ERR_NOT_FOUND)
        sluice_error_hint(q->err, "make its folder first");
    if (st != SLUICE_OK)
        return st;
    q->file = f;
    return q->p->file_lock(q->p->user, f, q->err);
}

static sluice_status finish_file(quantizer *q, const char *out)
{
    sluice_status st = q->p->file_sync(q->p->user, q->file, q->err);

    if (st == SLUICE_OK)
        st = q->p->file_rename(q->p->user, q->part, out, q->err);
    if (st == SLUICE_OK) {
        q->p->file_close(q->p->user, q->file);
        q->file = NULL;
    }
    return st;
}

/* Nothing stays of an output that was not finished. */
static void drop_file(quantizer *q)
{
    if (q->file == NULL)
        return;
    (void)q->p->file_remove(q->p->user, q->part, NULL);
    q->p->file_close(q->p->user, q->file);
    q->file = NULL;
}

/* ---- all of it ------------------------------------------------------------------------------------------------------ */

static uint32_t choose_threads(const quantizer *q)
{
    sluice_device_state device;

    if (q->options->n_threads > 0)
        return q->options->n_threads;
    memset(&device, 0, sizeof device);
    q->p->device_state(q->p->user, &device);
    return device.n_cores == 0 ? 1 : device.n_cores < MAX_THREADS_BY_DEFAULT ? device.n_cores : (uint32_t)MAX_THREADS_BY_DEFAULT;
}

static sluice_status check_options(quantizer *q, const char *in, const char *out)
{
    const sluice_model_quantize_options *o = q->options;
    sluice_status st;

    q->kind = sluice_mix_find(o->type);
    if (q->kind == NULL) {
        st = sluice_error_set(q->err, SLUICE_ERR_ARGUMENT, "quantize: no type is called \"%.40s\"", o->type);
        sluice_error_hint(q->err, "one of %s", sluice_mix_names());
        return st;
    }
    if (o->imatrix != NULL && o->calibrate != NULL)
        return sluice_error_set(q->err, SLUICE_ERR_ARGUMENT, "quantize: an importance matrix and a text to make one from; give one of them");
    if (o->imatrix_out != NULL && o->calibrate == NULL)
        return sluice_error_set(q->err, SLUICE_ERR_ARGUMENT, "quantize: an importance matrix to save, but no text to make it from");
    if (o->imatrix_out != NULL && (strcmp(o->imatrix_out, in) == 0 || strcmp(o->imatrix_out, out) == 0))
        return sluice_error_set(q->err, SLUICE_ERR_ARGUMENT, "quantize: the importance matrix and a model under one name");
    if (o->calibrate_tokens > 0 && o->calibrate_tokens < SLUICE_CALIBRATE_MIN)
        return sluice_error_set(q->err, SLUICE_ERR_ARGUMENT, "quantize: %" PRIu32 " tokens to calibrate with, and %d are the least",
                                o->calibrate_tokens, SLUICE_CALIBRATE_MIN);
    if (o->n_threads > SLUICE_POOL_MAX_THREADS)
        return sluice_error_set(q->err, SLUICE_ERR_ARGUMENT, "quantize: %" PRIu32 " threads, of at most %d", o->n_threads, SLUICE_POOL_MAX_THREADS);
    return SLUICE_OK;
}

static sluice_status get_importance(quantizer *q, const char *in)
{
    const sluice_model_quantize_options *o = q->options;

    if (o->imatrix != NULL)
        return sluice_imatrix_open(&q->imatrix, o->imatrix, q->p, q->al, q->err);
    if (o->calibrate != NULL)
        return sluice_calibrate(&q->imatrix, in, o, choose_threads(q), q->p, q->al, &q->result->calibrated_tokens, q->err);
    return SLUICE_OK;
}

static sluice_status run(quantizer *q, const char *in, const char *out)
{
    uint64_t start;
    sluice_status st = check_options(q, in, out);

    if (st == SLUICE_OK)
        st = refuse_existing(q, out, "the output file");
    if (st == SLUICE_OK && q->options->imatrix_out != NULL)
        st = refuse_existing(q, q->options->imatrix_out, "the file for the importance matrix");
    if (st != SLUICE_OK)
        return st;
    st = sluice_gguf_open(&q->g, in, q->p, q->al, q->err);
    if (st != SLUICE_OK) {
        sluice_error_where(q->err, in);
        return st;
    }
    q->result->in_bytes = sluice_gguf_bytes(q->g).len;
    st = sluice_mix_model_init(&q->model, q->g, q->options->imatrix != NULL || q->options->calibrate != NULL, q->err);
    if (st == SLUICE_OK)
        st = make_plans(q);
    if (st == SLUICE_OK)
        st = get_importance(q, in);
    if (st == SLUICE_OK)
        st = sluice_pool_open(&q->pool, q->p, q->al, choose_threads(q), q->err);
    if (st == SLUICE_OK)
        st = open_part(q, out);
    start = sluice_now_us(q->p);
    if (st == SLUICE_OK)
        st = write_header(q);
    if (st == SLUICE_OK)
        st = write_tensors(q);
    if (st == SLUICE_OK)
        st = finish_file(q, out);
    q->result->us = sluice_now_us(q->p) - start;
    return st;
}

sluice_status sluice_model_quantize(const char *in, const char *out, const sluice_model_quantize_options *options, const sluice_platform *platform,
                                    const sluice_allocator *al, sluice_model_quantize_result *result, sluice_error *err)
{
    quantizer q;
    sluice_status st;

    memset(&q, 0, sizeof q);
    memset(result, 0, sizeof *result);
    q.options = options;
    q.p = platform;
    q.al = al;
    q.err = err;
    q.result = result;
    st = run(&q, in, out);
    drop_file(&q);
    if (st != SLUICE_OK && err != NULL && err->where[0] == '\0')
        sluice_error_where(err, in);
    sluice_pool_close(q.pool);
    sluice_imatrix_close(q.imatrix);
    if (q.plans != NULL)
        sluice_free(al, q.plans, sluice_gguf_n_tensors(q.g) * sizeof *q.plans);
    sluice_free(al, q.batch_out, q.batch_cap);
    sluice_free(al, q.rows, q.rows_bytes);
    sluice_gguf_close(q.g);
    return st;
}
