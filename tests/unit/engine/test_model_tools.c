/* test_model_tools.c - whole files: quantized, calibrated, described, measured; and what is left behind when something fails (nothing).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _XOPEN_SOURCE 700 /* setrlimit */

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "local-engine/tools/gguf_write.h"
#include "local-engine/tools/model_tools.h"
#include "local-engine/tools/quantize.h"
#include "tests/support/fake_allocator.h"
#include "tests/support/fake_platform.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

enum { FILE_MAX = 64 << 20, COLS = 256, ROWS = 24, N_EXPERTS = 3 };

/* ---- a source ------------------------------------------------------------------------------------------------ */

static float weight_at(size_t i)
{
    uint32_t r = (uint32_t)(i + 1) * 2654435761u;

    r ^= r >> 15;
    r *= 2246822519u;
    r ^= r >> 13;
    return ((float)(r & 0xffff) / 32768.0f - 1.0f) * 0.1f;
}

static void put_matrix(sluice_gguf_writer *w, const char *name, uint32_t type, uint64_t cols, uint64_t rows, uint64_t experts, size_t nan_at)
{
    const uint64_t ne[3] = { cols, rows, experts };
    const size_t n = (size_t)(cols * rows * experts);
    uint64_t bytes = 0;
    float *x = calloc(n, sizeof *x);
    uint8_t *out;

    assert_true(sluice_tensor_row_bytes(type, n, &bytes));
    out = malloc((size_t)bytes);
    for (size_t i = 0; i < n; i++)
        x[i] = weight_at(i + (size_t)name[4]);
    assert_int_equal(sluice_quantize_row(type, x, n, NULL, out, NULL), SLUICE_OK);
    if (nan_at != SIZE_MAX && type == SLUICE_TENSOR_F16)
        out[2 * nan_at + 1] = 0x7e;
    sluice_gguf_put_tensor(w, name, type, experts > 1 ? 3 : 2, ne, out, (size_t)bytes);
    free(out);
    free(x);
}

static void put_vector(sluice_gguf_writer *w, const char *name, uint32_t type)
{
    const uint64_t ne[1] = { COLS };
    uint8_t out[4 * COLS];
    float x[COLS];
    uint64_t bytes = 0;

    for (size_t i = 0; i < COLS; i++)
        x[i] = 1.0f + weight_at(i);
    assert_true(sluice_tensor_row_bytes(type, COLS, &bytes));
    assert_int_equal(sluice_quantize_row(type, x, COLS, NULL, out, NULL), SLUICE_OK);
    sluice_gguf_put_tensor(w, name, type, 1, ne, out, (size_t)bytes);
}

static void make_source(sluice_buf *out, uint32_t type, size_t nan_at)
{
    static const sluice_span words[2] = { { (const uint8_t *)"one", 3 }, { (const uint8_t *)"two", 3 } };
    sluice_gguf_writer w;

    sluice_buf_init(out, NULL, FILE_MAX);
    sluice_gguf_writer_init(&w, NULL, FILE_MAX);
    w.alignment = 64;
    sluice_gguf_put_u32(&w, "general.alignment", 64);
    sluice_gguf_put_string(&w, "general.architecture", "llama");
    sluice_gguf_put_u32(&w, "general.file_type", 1);
    sluice_gguf_put_u32(&w, "llama.block_count", 8);
    sluice_gguf_put_u32(&w, "llama.attention.head_count", 4);
    sluice_gguf_put_u32(&w, "split.count", 1);
    sluice_gguf_put_strings(&w, "some.words", words, 2);
    sluice_gguf_put_f32(&w, "some.number", 0.25f);
    put_matrix(&w, "token_embd.weight", type, COLS, ROWS, 1, SIZE_MAX);
    put_vector(&w, "blk.0.attn_norm.weight", type == SLUICE_TENSOR_BF16 ? SLUICE_TENSOR_BF16 : SLUICE_TENSOR_F32);
    put_matrix(&w, "blk.0.attn_v.weight", type, COLS, ROWS, 1, nan_at);
    put_matrix(&w, "blk.1.attn_v.weight", type, COLS, ROWS, 1, SIZE_MAX);
    put_matrix(&w, "blk.1.ffn_gate_inp.weight", SLUICE_TENSOR_F32, COLS, N_EXPERTS, 1, SIZE_MAX);
    put_matrix(&w, "blk.1.ffn_up_exps.weight", type, COLS, ROWS, N_EXPERTS, SIZE_MAX);
    put_matrix(&w, "blk.1.attn_output.weight", type, 96, ROWS, 1, SIZE_MAX);
    put_matrix(&w, "output.weight", type, COLS, ROWS, 1, SIZE_MAX);
    assert_true(sluice_gguf_writer_finish(&w, out));
    sluice_gguf_writer_deinit(&w);
}

typedef struct bench {
    temp_dir dir;
    char in[700], out[700];
    sluice_model_quantize_options o;
    sluice_model_quantize_result r;
    sluice_error err;
} bench;

static void write_file(const char *path, sluice_span bytes)
{
    sluice_error err = SLUICE_ERROR_INIT;

    if (sluice_platform_write_file(sluice_platform_default(), path, bytes, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
}

static void open_bench(bench *b, uint32_t type, size_t nan_at)
{
    sluice_buf source;

    memset(b, 0, sizeof *b);
    temp_dir_open(&b->dir);
    (void)snprintf(b->in, sizeof b->in, "%s/in.gguf", b->dir.path);
    (void)snprintf(b->out, sizeof b->out, "%s/out.gguf", b->dir.path);
    make_source(&source, type, nan_at);
    write_file(b->in, sluice_buf_span(&source));
    sluice_buf_deinit(&source);
    b->o.type = "Q4_K_M";
    b->o.n_threads = 1;
}

static sluice_status run_on(bench *b, const sluice_platform *p)
{
    memset(&b->err, 0, sizeof b->err);
    return sluice_model_quantize(b->in, b->out, &b->o, p, NULL, &b->r, &b->err);
}

static sluice_status run(bench *b)
{
    return run_on(b, sluice_platform_default());
}

static bool is_there(const char *path)
{
    sluice_buf bytes;
    const bool there = test_read_file(path, &bytes);

    if (there)
        sluice_buf_deinit(&bytes);
    return there;
}

/* Only the source is in the folder. */
static void assert_nothing_left(bench *b)
{
    char part[720];

    (void)snprintf(part, sizeof part, "%s.part", b->out);
    assert_false(is_there(part));
    assert_false(is_there(b->out));
}

static void close_bench(bench *b)
{
    temp_dir_close(&b->dir);
}

/* ---- quantizing ------------------------------------------------------------------------------------------------- */

static void the_file_is_the_rows_quantized(void **state)
{
    static const struct { const char *name; uint32_t want; } tensors[] = {
        { "token_embd.weight", SLUICE_TENSOR_Q4_K },       { "blk.0.attn_norm.weight", SLUICE_TENSOR_F32 },
        { "blk.0.attn_v.weight", SLUICE_TENSOR_Q6_K },     { "blk.1.attn_v.weight", SLUICE_TENSOR_Q4_K },
        { "blk.1.ffn_gate_inp.weight", SLUICE_TENSOR_F32 }, { "blk.1.ffn_up_exps.weight", SLUICE_TENSOR_Q4_K },
        { "blk.1.attn_output.weight", SLUICE_TENSOR_Q5_0 }, { "output.weight", SLUICE_TENSOR_Q6_K },
    };
    sluice_gguf *in = NULL, *out = NULL;
    uint32_t n = 0;
    bench b;

    (void)state;
    open_bench(&b, SLUICE_TENSOR_F16, SIZE_MAX);
    if (run(&b) != SLUICE_OK)
        fail_msg("%s", b.err.message);
    assert_int_equal(b.r.n_tensors, 8);
    assert_int_equal(b.r.n_changed, 6);
    assert_int_equal(b.r.n_fallback, 1);
    assert_int_equal(sluice_gguf_open(&in, b.in, sluice_platform_default(), NULL, NULL), SLUICE_OK);
    assert_int_equal(sluice_gguf_open(&out, b.out, sluice_platform_default(), NULL, NULL), SLUICE_OK);
    assert_true(b.r.out_bytes == sluice_gguf_bytes(out).len);
    assert_int_equal(sluice_gguf_alignment(out), 64);
    assert_int_equal(sluice_gguf_get_u32(out, "general.file_type", &n, NULL), SLUICE_OK);
    assert_int_equal(n, 15);
    assert_int_equal(sluice_gguf_get_u32(out, "general.quantization_version", &n, NULL), SLUICE_OK);
    assert_int_equal(n, 2);
    assert_null(sluice_gguf_find(out, "split.count"));
    assert_true(sluice_span_eq(sluice_gguf_find(out, "some.words")->data, sluice_gguf_find(in, "some.words")->data));
    assert_true(sluice_span_eq(sluice_gguf_find(out, "some.number")->data, sluice_gguf_find(in, "some.number")->data));
    for (size_t i = 0; i < 8; i++) {
        const sluice_gguf_tensor *from = sluice_gguf_tensor_find(in, tensors[i].name), *to = sluice_gguf_tensor_find(out, tensors[i].name);
        const size_t elements = (size_t)(from->ne[0] * from->ne[1] * from->ne[2]);
        float *x = calloc(elements, sizeof *x);
        uint8_t *want = calloc(1, to->bytes);

        assert_int_equal(to->type, tensors[i].want);
        assert_memory_equal(to->ne, from->ne, sizeof to->ne);
        assert_true(sluice_dequantize_row(from->type, from->data, elements, x));
        assert_int_equal(sluice_quantize_row(to->type, x, elements, NULL, want, NULL), SLUICE_OK);
        assert_memory_equal(want, to->data, to->bytes);
        free(want);
        free(x);
    }
    sluice_gguf_close(in);
    sluice_gguf_close(out);
    close_bench(&b);
}

static void every_type_comes_out_and_the_number_of_threads_changes_nothing(void **state)
{
    static const char *const kinds[] = { "F32",    "F16",    "BF16",   "Q4_0",   "Q4_1", "Q5_0",   "Q5_1",   "Q8_0",  "Q2_K",     "Q3_K_S", "Q3_K_M",
                                         "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q6_K", "Q5_K_M", "IQ4_NL", "IQ4_XS", "MXFP4", "MXFP4_MOE" };
    static const uint32_t sources[] = { SLUICE_TENSOR_F32, SLUICE_TENSOR_F16, SLUICE_TENSOR_BF16 };
    bench b;

    (void)state;
    for (size_t s = 0; s < 3; s++) {
        open_bench(&b, sources[s], SIZE_MAX);
        b.o.overwrite = true;
        for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
            sluice_buf one, three;

            b.o.type = kinds[i];
            b.o.n_threads = 1;
            if (run(&b) != SLUICE_OK)
                fail_msg("%s: %s", kinds[i], b.err.message);
            assert_true(test_read_file(b.out, &one));
            b.o.n_threads = 3;
            assert_int_equal(run(&b), SLUICE_OK);
            assert_true(test_read_file(b.out, &three));
            assert_true(sluice_span_eq(sluice_buf_span(&one), sluice_buf_span(&three)));
            sluice_buf_deinit(&one);
            sluice_buf_deinit(&three);
        }
        close_bench(&b);
    }
}

static void a_number_that_is_none_is_refused_by_name(void **state)
{
    bench b;

    (void)state;
    open_bench(&b, SLUICE_TENSOR_F16, 5 * COLS + 7);
    assert_int_equal(run(&b), SLUICE_ERR_INTEGRITY);
    assert_non_null(strstr(b.err.message, "blk.0.attn_v.weight"));
    assert_non_null(strstr(b.err.message, "row 5"));
    assert_non_null(strstr(b.err.message, "element 7"));
    assert_string_equal(b.err.where, b.in);
    assert_true(b.err.hint[0] != '\0');
    assert_nothing_left(&b);
    b.o.n_threads = 3;
    assert_int_equal(run(&b), SLUICE_ERR_INTEGRITY);
    assert_nothing_left(&b);
    close_bench(&b);
}

static void a_quantized_source_needs_permission(void **state)
{
    sluice_gguf *g = NULL;
    bench b;

    (void)state;
    open_bench(&b, SLUICE_TENSOR_Q8_0, SIZE_MAX);
    b.o.type = "Q4_0";
    assert_int_equal(run(&b), SLUICE_ERR_UNSUPPORTED);
    assert_non_null(strstr(b.err.message, "token_embd.weight"));
    assert_non_null(strstr(b.err.hint, "--allow-requantize"));
    assert_nothing_left(&b);
    b.o.type = "Q8_0"; /* there is nothing to do twice */
    assert_int_equal(run(&b), SLUICE_OK);
    assert_int_equal(b.r.n_changed, 0);
    b.o.type = "Q4_0";
    b.o.allow_requantize = b.o.overwrite = true;
    assert_int_equal(run(&b), SLUICE_OK);
    assert_int_equal(sluice_gguf_open(&g, b.out, sluice_platform_default(), NULL, NULL), SLUICE_OK);
    assert_int_equal(sluice_gguf_tensor_find(g, "blk.1.attn_v.weight")->type, SLUICE_TENSOR_Q4_0);
    sluice_gguf_close(g);
    close_bench(&b);
}

static void pure_means_one_type(void **state)
{
    sluice_gguf *g = NULL;
    bench b;

    (void)state;
    open_bench(&b, SLUICE_TENSOR_F16, SIZE_MAX);
    b.o.pure = true;
    assert_int_equal(run(&b), SLUICE_OK);
    assert_int_equal(sluice_gguf_open(&g, b.out, sluice_platform_default(), NULL, NULL), SLUICE_OK);
    assert_int_equal(sluice_gguf_tensor_find(g, "output.weight")->type, SLUICE_TENSOR_Q4_K);
    assert_int_equal(sluice_gguf_tensor_find(g, "blk.0.attn_v.weight")->type, SLUICE_TENSOR_Q4_K);
    assert_int_equal(sluice_gguf_tensor_find(g, "blk.1.attn_output.weight")->type, SLUICE_TENSOR_Q5_0);
    sluice_gguf_close(g);
    close_bench(&b);
}

static void wrong_options_touch_nothing(void **state)
{
    bench b;

    (void)state;
    open_bench(&b, SLUICE_TENSOR_F16, SIZE_MAX);
    b.o.type = "Q9";
    assert_int_equal(run(&b), SLUICE_ERR_ARGUMENT);
    assert_non_null(strstr(b.err.hint, "Q4_K_M"));
    b.o.type = "Q4_0";
    b.o.n_threads = 1000;
    assert_int_equal(run(&b), SLUICE_ERR_ARGUMENT);
    b.o.n_threads = 1;
    b.o.imatrix = b.o.calibrate = b.in;
    assert_int_equal(run(&b), SLUICE_ERR_ARGUMENT);
    b.o.calibrate = NULL;
    assert_int_equal(run(&b), SLUICE_ERR_FORMAT); /* a model is no importance matrix */
    b.o.imatrix = NULL;
    b.o.imatrix_out = b.out;
    assert_int_equal(run(&b), SLUICE_ERR_ARGUMENT);
    b.o.calibrate = b.in;
    assert_int_equal(run(&b), SLUICE_ERR_ARGUMENT); /* the model and the matrix under one name */
    b.o.imatrix_out = b.in;
    assert_int_equal(run(&b), SLUICE_ERR_ARGUMENT);
    b.o.overwrite = true;
    assert_int_equal(run(&b), SLUICE_ERR_ARGUMENT); /* nor may it replace the source */
    b.o.overwrite = false;
    b.o.imatrix_out = NULL;
    b.o.calibrate_tokens = 3;
    assert_int_equal(run(&b), SLUICE_ERR_ARGUMENT);
    assert_nothing_left(&b);
    close_bench(&b);
}

static void an_existing_file_is_replaced_only_when_asked_to(void **state)
{
    sluice_buf bytes;
    bench b;

    (void)state;
    open_bench(&b, SLUICE_TENSOR_F16, SIZE_MAX);
    b.o.calibrate = b.in;
    b.o.imatrix_out = b.dir.path; /* exists, and is no file to replace */
    assert_true(run(&b) < 0);
    b.o.calibrate = b.o.imatrix_out = NULL;
    write_file(b.out, SLUICE_SPAN_LIT("precious"));
    assert_int_equal(run(&b), SLUICE_ERR_STATE);
    assert_string_equal(b.err.where, b.out);
    assert_true(test_read_file(b.out, &bytes));
    assert_true(sluice_span_eq_str(sluice_buf_span(&bytes), "precious"));
    sluice_buf_deinit(&bytes);
    b.o.overwrite = true;
    assert_int_equal(run(&b), SLUICE_OK);
    assert_true(test_read_file(b.out, &bytes));
    assert_memory_equal(bytes.ptr, "GGUF", 4);
    sluice_buf_deinit(&bytes);
    /* the source itself: its mapping outlives its name */
    (void)snprintf(b.out, sizeof b.out, "%s", b.in);
    assert_int_equal(run(&b), SLUICE_OK);
    close_bench(&b);
}

static void a_file_that_a_killed_program_left_is_taken_over_and_one_at_work_is_not(void **state)
{
    const sluice_platform *p = sluice_platform_default();
    sluice_file *f = NULL;
    char part[720];
    bench b;

    (void)state;
    open_bench(&b, SLUICE_TENSOR_F16, SIZE_MAX);
    (void)snprintf(part, sizeof part, "%s.part", b.out);
    assert_int_equal(p->file_open(p->user, &f, part, SLUICE_FILE_CREATE_NEW, NULL), SLUICE_OK);
    assert_int_equal(p->file_write(p->user, f, "half", 4, NULL), SLUICE_OK);
    assert_int_equal(p->file_lock(p->user, f, NULL), SLUICE_OK);
    assert_int_equal(run(&b), SLUICE_ERR_STATE);
    assert_true(is_there(part));
    p->file_close(p->user, f);
    assert_int_equal(run(&b), SLUICE_OK);
    assert_false(is_there(part));
    assert_true(is_there(b.out));
    close_bench(&b);
}

static void failing_files_leave_nothing_behind(void **state)
{
    static const fake_op ops[] = { FAKE_OPEN, FAKE_WRITE, FAKE_SYNC, FAKE_LOCK, FAKE_RENAME, FAKE_MAP };
    fake_platform fp;
    bench b;

    (void)state;
    open_bench(&b, SLUICE_TENSOR_F16, SIZE_MAX);
    fake_platform_init(&fp, 7);
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        for (int torn = 0; torn < 2; torn++) {
            size_t n = 0;

            fp.torn_writes = torn != 0;
            for (; n < 100; n++) {
                fake_platform_heal(&fp);
                fake_platform_fail(&fp, ops[i], n);
                if (run_on(&b, &fp.platform) == SLUICE_OK)
                    break;
                assert_true(b.err.message[0] != '\0');
                assert_nothing_left(&b);
            }
            assert_true(n >= 1 && n < 100);
            assert_true(is_there(b.out));
            assert_int_equal(sluice_platform_default()->file_remove(NULL, b.out, NULL), SLUICE_OK);
        }
    }
    fake_platform_deinit(&fp);
    close_bench(&b);
}

typedef struct stopper {
    uint32_t calls, stop_at;
    uint64_t last;
} stopper;

static bool stop_after(const sluice_tool_progress *p, void *user)
{
    stopper *s = user;

    assert_string_equal(p->stage, "quantize");
    assert_true(p->done >= s->last && p->done <= p->total);
    s->last = p->done;
    return s->calls++ < s->stop_at;
}

static void stopping_leaves_nothing_behind(void **state)
{
    stopper s;
    bench b;

    (void)state;
    open_bench(&b, SLUICE_TENSOR_F16, SIZE_MAX);
    b.o.progress = stop_after;
    b.o.user = &s;
    for (uint32_t n = 0;; n++) {
        sluice_status st;

        s = (stopper){ 0, n, 0 };
        st = run(&b);
        if (st == SLUICE_OK)
            break;
        assert_int_equal(st, SLUICE_ERR_CANCELLED);
        assert_nothing_left(&b);
        assert_true(n < 100);
    }
    assert_true(s.calls >= 8);
    close_bench(&b);
}

/* A limit on the size of files is what a full disk looks like from here. */
static void a_full_disk_leaves_nothing_behind(void **state)
{
    struct rlimit was, low;
    sluice_status st;
    bench b;

    (void)state;
    open_bench(&b, SLUICE_TENSOR_F16, SIZE_MAX);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    (void)signal(SIGXFSZ, SIG_IGN);
    for (rlim_t limit = 100; limit < 20000; limit += 4000) {
        low = was;
        low.rlim_cur = limit;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
        st = run(&b);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
        assert_int_equal(st, SLUICE_ERR_IO);
        assert_non_null(strstr(b.err.where, "out.gguf"));
        assert_nothing_left(&b);
    }
    (void)snprintf(b.out, sizeof b.out, "%s/no/such/folder/out.gguf", b.dir.path);
    assert_true(run(&b) < 0);
    assert_true(b.err.where[0] != '\0');
    close_bench(&b);
}

static void damaged_sources_end_in_a_status(void **state)
{
    sluice_buf source;
    bench b;

    (void)state;
    open_bench(&b, SLUICE_TENSOR_F16, SIZE_MAX);
    assert_true(test_read_file(b.in, &source));
    for (size_t len = 1; len < source.len; len += len < 2000 ? 7 : 9973) {
        write_file(b.in, sluice_span_of(source.ptr, len));
        assert_true(run(&b) < 0);
        assert_true(b.err.message[0] != '\0');
        assert_nothing_left(&b);
    }
    b.o.overwrite = true;
    for (size_t i = 0; i < 1400; i += 3) { /* whatever a changed byte means: a status, and no half of a file */
        source.ptr[i] ^= 0x41;
        write_file(b.in, sluice_buf_span(&source));
        source.ptr[i] ^= 0x41;
        if (run(&b) != SLUICE_OK)
            assert_true(b.err.message[0] != '\0');
        (void)sluice_platform_default()->file_remove(NULL, b.out, NULL);
        assert_nothing_left(&b);
    }
    sluice_buf_deinit(&source);
    close_bench(&b);
}

static sluice_status quantize_once(const sluice_allocator *al, void *user)
{
    bench *b = user;
    sluice_model_quantize_result r;

    return sluice_model_quantize(b->in, b->out, &b->o, sluice_platform_default(), al, &r, NULL);
}

static void every_failed_allocation_is_no_memory(void **state)
{
    size_t n;
    bench b;

    (void)state;
    open_bench(&b, SLUICE_TENSOR_F16, SIZE_MAX);
    n = fake_allocator_sweep(quantize_once, &b);
    assert_true(n != SIZE_MAX && n > 10);
    close_bench(&b);
}

/* ---- a model that runs -------------------------------------------------------------------------------------------- */

static const char text[] = "set a timer for ten minutes\nwhat is the weather like tomorrow in Paris\nturn the lights in the kitchen off\n"
                           "remind me to call my mother at eight\nplay some music\nhow far is it from here to the station\n"
                           "wake me at seven in the morning\nadd milk, bread and butter to the shopping list\n";

static bool find_model(bench *b)
{
    const char *path = test_source_path("local-engine/models/sluice-intents.gguf");

    if (path == NULL || !is_there(path))
        return false;
    open_bench(b, SLUICE_TENSOR_F16, SIZE_MAX);
    (void)snprintf(b->in, sizeof b->in, "%s", path);
    return true;
}

static void a_text_makes_a_matrix_for_every_matrix(void **state)
{
    char text_path[700], matrix_path[700];
    sluice_gguf *g = NULL;
    bench b;

    (void)state;
    if (!find_model(&b))
        skip();
    (void)snprintf(text_path, sizeof text_path, "%s/text", b.dir.path);
    (void)snprintf(matrix_path, sizeof matrix_path, "%s/imatrix.gguf", b.dir.path);
    write_file(text_path, sluice_span_of(text, sizeof text - 1));
    b.o.allow_requantize = true;
    b.o.calibrate = text_path;
    b.o.imatrix_out = matrix_path;
    b.o.type = "Q4_K_M";
    if (run(&b) != SLUICE_OK)
        fail_msg("%s", b.err.message);
    assert_true(b.r.calibrated_tokens >= 64);
    assert_true(b.r.n_without_importance <= 1); /* the embeddings are looked up, not multiplied with */
    assert_int_equal(sluice_gguf_open(&g, matrix_path, sluice_platform_default(), NULL, NULL), SLUICE_OK);
    const sluice_gguf_tensor *q = sluice_gguf_tensor_find(g, "blk.0.attn_q.weight.in_sum2"), *k = sluice_gguf_tensor_find(g, "blk.0.attn_k.weight.in_sum2");
    const sluice_gguf_tensor *down = sluice_gguf_tensor_find(g, "blk.5.ffn_down.weight.in_sum2");
    assert_non_null(q);
    assert_non_null(k);
    assert_non_null(down);
    assert_memory_equal(q->data, k->data, q->bytes); /* the same input */
    const sluice_gguf_tensor *first_count = sluice_gguf_tensor_find(g, "blk.0.attn_q.weight.counts");
    const sluice_gguf_tensor *last_count = sluice_gguf_tensor_find(g, "blk.5.ffn_down.weight.counts");
    assert_true(*(const float *)first_count->data >= (float)b.r.calibrated_tokens);
    assert_memory_equal(first_count->data, last_count->data, sizeof(float)); /* the last layer sees every token too */
    sluice_gguf_close(g);
    /* the matrix that was saved does the same again */
    sluice_buf first;
    assert_true(test_read_file(b.out, &first));
    b.o.calibrate = b.o.imatrix_out = NULL;
    b.o.imatrix = matrix_path;
    b.o.overwrite = true;
    assert_int_equal(run(&b), SLUICE_OK);
    assert_int_equal(sluice_gguf_open(&g, b.out, sluice_platform_default(), NULL, NULL), SLUICE_OK);
    assert_non_null(sluice_gguf_find(g, "quantize.imatrix.file"));
    const sluice_span data = sluice_span_of(sluice_gguf_bytes(g).ptr + (size_t)sluice_gguf_data_offset(g), sluice_gguf_bytes(g).len - (size_t)sluice_gguf_data_offset(g));
    assert_true(first.len > data.len);
    assert_memory_equal(first.ptr + first.len - data.len, data.ptr, data.len);
    sluice_gguf_close(g);
    sluice_buf_deinit(&first);
    /* too little text */
    write_file(text_path, SLUICE_SPAN_LIT("a few words"));
    b.o.imatrix = NULL;
    b.o.calibrate = text_path;
    assert_int_equal(run(&b), SLUICE_ERR_ARGUMENT);
    assert_string_equal(b.err.where, text_path);
    close_bench(&b);
}

static void a_model_is_described_in_words(void **state)
{
    sluice_error err = SLUICE_ERROR_INIT;
    char *page = NULL;
    bench b;

    (void)state;
    if (!find_model(&b))
        skip();
    assert_int_equal(sluice_model_describe(b.in, true, sluice_platform_default(), NULL, &page, &err), SLUICE_OK);
    assert_non_null(strstr(page, "llama"));
    assert_non_null(strstr(page, "Q8_0"));
    assert_non_null(strstr(page, "intent-action/1"));
    assert_non_null(strstr(page, "blk.5.ffn_down.weight"));
    assert_non_null(strstr(page, "KV cache"));
    sluice_model_text_free(NULL, page);
    assert_int_equal(sluice_model_describe(b.in, false, sluice_platform_default(), NULL, &page, &err), SLUICE_OK);
    assert_null(strstr(page, "blk.5.ffn_down.weight"));
    sluice_model_text_free(NULL, page);
    /* one that does not run is described too */
    (void)snprintf(b.in, sizeof b.in, "%s/in.gguf", b.dir.path);
    assert_int_equal(sluice_model_describe(b.in, false, sluice_platform_default(), NULL, &page, &err), SLUICE_OK);
    assert_non_null(strstr(page, "does not run"));
    sluice_model_text_free(NULL, page);
    write_file(b.in, SLUICE_SPAN_LIT("nothing of the kind"));
    assert_int_equal(sluice_model_describe(b.in, false, sluice_platform_default(), NULL, &page, &err), SLUICE_ERR_FORMAT);
    assert_null(page);
    close_bench(&b);
}

static sluice_status describe_once(const sluice_allocator *al, void *user)
{
    char *page = NULL;
    const sluice_status st = sluice_model_describe(((bench *)user)->in, true, sluice_platform_default(), al, &page, NULL);

    assert_true((page != NULL) == (st == SLUICE_OK));
    sluice_model_text_free(al, page);
    return st;
}

static void describing_without_memory_is_no_memory(void **state)
{
    bench b;
    size_t n;

    (void)state;
    if (!find_model(&b))
        skip();
    n = fake_allocator_sweep(describe_once, &b);
    assert_true(n != SIZE_MAX && n > 5);
    close_bench(&b);
}

static bool stop_at_once(const sluice_tool_progress *p, void *user)
{
    (void)p;
    (void)user;
    return false;
}

static void a_model_is_measured(void **state)
{
    sluice_model_bench_options o = { .prompt_tokens = 16, .decode_tokens = 8, .n_threads = 1, .rounds = 3 };
    sluice_model_bench_result r;
    sluice_error err = SLUICE_ERROR_INIT;
    bench b;

    (void)state;
    if (!find_model(&b))
        skip();
    if (sluice_model_bench(b.in, &o, sluice_platform_default(), &r, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
    assert_string_equal(r.architecture, "llama");
    assert_true(r.prefill.slowest > 0 && r.prefill.slowest <= r.prefill.median && r.prefill.median <= r.prefill.fastest);
    assert_true(r.decode.slowest > 0 && r.decode.mean <= r.decode.fastest && r.decode.deviation >= 0);
    assert_true(r.first_token_us >= r.open_us && r.first_token_us > 0);
    assert_true(r.peak_bytes > r.kv_bytes && r.peak_bytes < 4 * (r.kv_bytes + r.scratch_bytes));
    o.prompt_tokens = 100000;
    assert_int_equal(sluice_model_bench(b.in, &o, sluice_platform_default(), &r, &err), SLUICE_ERR_ARGUMENT);
    assert_non_null(strstr(err.hint, "--prompt"));
    o.prompt_tokens = 16;
    o.rounds = 10000;
    assert_int_equal(sluice_model_bench(b.in, &o, sluice_platform_default(), &r, &err), SLUICE_ERR_ARGUMENT);
    o.rounds = 1;
    o.progress = stop_at_once;
    assert_int_equal(sluice_model_bench(b.in, &o, sluice_platform_default(), &r, &err), SLUICE_ERR_CANCELLED);
    assert_int_equal(sluice_model_bench(b.dir.path, &o, sluice_platform_default(), &r, &err) < 0, true);
    close_bench(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_is_the_rows_quantized),
        cmocka_unit_test(every_type_comes_out_and_the_number_of_threads_changes_nothing),
        cmocka_unit_test(a_number_that_is_none_is_refused_by_name),
        cmocka_unit_test(a_quantized_source_needs_permission),
        cmocka_unit_test(pure_means_one_type),
        cmocka_unit_test(wrong_options_touch_nothing),
        cmocka_unit_test(an_existing_file_is_replaced_only_when_asked_to),
        cmocka_unit_test(a_file_that_a_killed_program_left_is_taken_over_and_one_at_work_is_not),
        cmocka_unit_test(failing_files_leave_nothing_behind),
        cmocka_unit_test(stopping_leaves_nothing_behind),
        cmocka_unit_test(a_full_disk_leaves_nothing_behind),
        cmocka_unit_test(damaged_sources_end_in_a_status),
        cmocka_unit_test(every_failed_allocation_is_no_memory),
        cmocka_unit_test(a_text_makes_a_matrix_for_every_matrix),
        cmocka_unit_test(a_model_is_described_in_words),
        cmocka_unit_test(describing_without_memory_is_no_memory),
        cmocka_unit_test(a_model_is_measured),
    };

    return cmocka_run_group_tests_name("model tools", tests, NULL, NULL);
}
