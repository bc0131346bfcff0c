/* imatrix.c - importance matrices, read, collected and written.
 *
 * What is kept are sums of squares.  Within a block only the proportions between columns count, so nobody divides them by the number of tokens.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/tools/imatrix.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "local-engine/tools/gguf_write.h"

enum { ENTRIES_MAX = SLUICE_GGUF_MAX_TENSORS, EXPERTS_MAX = 4096, COLS_MAX = 1 << 24 };
#define SUMS ".in_sum2"
#define COUNTS ".counts"

typedef struct entry {
    char *name;
    size_t cols, n_experts;
    float *sums;   /* (n_experts, cols) */
    float *counts; /* (n_experts): tokens */
} entry;

struct sluice_imatrix {
    const sluice_allocator *al;
    entry *entries;
    size_t n, cap;
    size_t hint; /* models ask in the order of their layers: most often it is the one after the last */
};

/* ---- entries ------------------------------------------------------------------------------------------- */

static void entry_deinit(entry *e, const sluice_allocator *al)
{
    if (e->name != NULL)
        sluice_str_free(al, e->name);
    sluice_free(al, e->sums, e->n_experts * e->cols * sizeof *e->sums);
    sluice_free(al, e->counts, e->n_experts * sizeof *e->counts);
}

sluice_status sluice_imatrix_new(sluice_imatrix **out, const sluice_allocator *al, sluice_error *err)
{
    *out = sluice_alloc_zeroed(al, sizeof **out);
    if (*out == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "imatrix: %zu bytes", sizeof **out);
    (*out)->al = al;
    return SLUICE_OK;
}

void sluice_imatrix_close(sluice_imatrix *m)
{
    if (m == NULL)
        return;
    for (size_t i = 0; i < m->n; i++)
        entry_deinit(&m->entries[i], m->al);
    sluice_free(m->al, m->entries, m->cap * sizeof *m->entries);
    sluice_free(m->al, m, sizeof *m);
}

size_t sluice_imatrix_n_entries(const sluice_imatrix *m)
{
    return m->n;
}

static size_t find(const sluice_imatrix *m, sluice_span name)
{
    for (size_t i = 0; i < m->n; i++) {
        const size_t at = (m->hint + i) % m->n;

        if (sluice_span_eq_str(name, m->entries[at].name))
            return at;
    }
    return SIZE_MAX;
}

static sluice_status no_memory(sluice_error *err)
{
    return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "imatrix: no memory for another entry");
}

static sluice_status grow(sluice_imatrix *m, sluice_error *err)
{
    const size_t cap = m->cap > 0 ? 2 * m->cap : 64;
    entry *more;

    if (m->n < m->cap)
        return SLUICE_OK;
    if (m->n >= ENTRIES_MAX)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "imatrix: more than %d entries", ENTRIES_MAX);
    more = sluice_alloc_array(m->al, cap, sizeof *more);
    if (more == NULL)
        return no_memory(err);
    if (m->n > 0)
        memcpy(more, m->entries, m->n * sizeof *more);
    sluice_free(m->al, m->entries, m->cap * sizeof *m->entries);
    m->entries = more;
    m->cap = cap;
    return SLUICE_OK;
}

/* A new entry of zeros. */
static sluice_status append(sluice_imatrix *m, const char *name, size_t cols, size_t n_experts, entry **out, sluice_error *err)
{
    sluice_status st;
    entry e = { NULL, cols, n_experts, NULL, NULL };

    if (cols == 0 || cols > COLS_MAX || n_experts == 0 || n_experts > EXPERTS_MAX)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "imatrix: \"%s\" has %zu columns and %zu experts", name, cols, n_experts);
    st = grow(m, err);
    if (st != SLUICE_OK)
        return st;
    e.name = sluice_strdup(m->al, name);
    e.sums = sluice_alloc_array(m->al, n_experts * cols, sizeof *e.sums);
    e.counts = sluice_alloc_array(m->al, n_experts, sizeof *e.counts);
    if (e.name == NULL || e.sums == NULL || e.counts == NULL) {
        entry_deinit(&e, m->al);
        return no_memory(err);
    }
    m->entries[m->n] = e;
    *out = &m->entries[m->n++];
    return SLUICE_OK;
}

/* More experts for an entry that has fewer. */
static sluice_status widen(sluice_imatrix *m, entry *e, size_t n_experts, sluice_error *err)
{
    float *sums, *counts;

    if (n_experts > EXPERTS_MAX)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "imatrix: \"%s\" has %zu experts", e->name, n_experts);
    sums = sluice_alloc_array(m->al, n_experts * e->cols, sizeof *sums);
    counts = sluice_alloc_array(m->al, n_experts, sizeof *counts);
    if (sums == NULL || counts == NULL) {
        sluice_free(m->al, sums, n_experts * e->cols * sizeof *sums);
        sluice_free(m->al, counts, n_experts * sizeof *counts);
        return no_memory(err);
    }
    memcpy(sums, e->sums, e->n_experts * e->cols * sizeof *sums);
    memcpy(counts, e->counts, e->n_experts * sizeof *counts);
    sluice_free(m->al, e->sums, e->n_experts * e->cols * sizeof *sums);
    sluice_free(m->al, e->counts, e->n_experts * sizeof *counts);
    e->sums = sums;
    e->counts = counts;
    e->n_experts = n_experts;
    return SLUICE_OK;
}

sluice_status sluice_imatrix_add(sluice_imatrix *m, const char *tensor, int32_t expert, const float *x, size_t n_tokens, size_t cols, sluice_error *err)
{
    const size_t which = expert > 0 ? (size_t)expert : 0, at = find(m, sluice_span_str(tensor));
    entry *e = at != SIZE_MAX ? &m->entries[at] : NULL;
    sluice_status st = SLUICE_OK;

    if (e == NULL)
        st = append(m, tensor, cols, which + 1, &e, err);
    else if (e->cols != cols)
        st = sluice_error_set(err, SLUICE_ERR_STATE, "imatrix: \"%s\" had %zu columns and now has %zu", tensor, e->cols, cols);
    else if (which >= e->n_experts)
        st = widen(m, e, which + 1, err);
    if (st != SLUICE_OK)
        return st;
    m->hint = (size_t)(e - m->entries) + 1;
    for (size_t j = 0; j < cols; j++) {
        double sum = 0;

        for (size_t t = 0; t < n_tokens; t++)
            sum += (double)x[t * cols + j] * (double)x[t * cols + j];
        e->sums[which * cols + j] += (float)sum;
    }
    e->counts[which] += (float)n_tokens;
    return SLUICE_OK;
}

sluice_status sluice_imatrix_get(const sluice_imatrix *m, sluice_span tensor, uint64_t cols, uint64_t n_experts, uint64_t expert, const float **out,
                                 sluice_error *err)
{
    const size_t at = find(m, tensor);
    const entry *e = at != SIZE_MAX ? &m->entries[at] : NULL;
    sluice_status st;

    *out = NULL;
    if (e == NULL)
        return SLUICE_OK;
    if (e->n_experts == 1 && n_experts > 1 && e->cols / n_experts == cols && e->cols % n_experts == 0) { /* a legacy entry, see read_legacy_entry() */
        *out = e->counts[0] > 0 && expert < n_experts ? e->sums + expert * cols : NULL;
        return SLUICE_OK;
    }
    if (e->cols != cols || e->n_experts > n_experts) {
        st = sluice_error_set(err, SLUICE_ERR_FORMAT, "imatrix: \"%s\" has %zu columns and %zu experts there; in the model it has %" PRIu64 " and %" PRIu64,
                              e->name, e->cols, e->n_experts, cols, n_experts);
        sluice_error_hint(err, "use an importance matrix that was made from this model");
        return st;
    }
    if (expert < e->n_experts && e->counts[expert] > 0)
        *out = e->sums + expert * cols;
    return SLUICE_OK;
}

/* ---- reading -------------------------------------------------------------------------------------------- */

static sluice_status check_values(const entry *e, sluice_error *err)
{
    for (size_t i = 0; i < e->n_experts * e->cols; i++)
        if (!isfinite(e->sums[i]) || e->sums[i] < 0)
            return sluice_error_set(err, SLUICE_ERR_FORMAT, "imatrix: \"%s\" has the sum of squares %g in column %zu", e->name, (double)e->sums[i],
                                    i % e->cols);
    for (size_t i = 0; i < e->n_experts; i++)
        if (!isfinite(e->counts[i]) || e->counts[i] < 0)
            return sluice_error_set(err, SLUICE_ERR_FORMAT, "imatrix: \"%s\" counts %g tokens", e->name, (double)e->counts[i]);
    return SLUICE_OK;
}

static bool cut_end(sluice_span s, const char *end, char *out, size_t cap)
{
    const size_t n = strlen(end);

    if (s.len <= n || s.len - n >= cap || memcmp(s.ptr + s.len - n, end, n) != 0)
        return false;
    memcpy(out, s.ptr, s.len - n);
    out[s.len - n] = '\0';
    return true;
}

static sluice_status read_pair(sluice_imatrix *m, const sluice_gguf *g, const sluice_gguf_tensor *sums, const char *name, sluice_error *err)
{
    char key[SLUICE_GGUF_MAX_NAME_BYTES + 16];
    const sluice_gguf_tensor *counts;
    entry *e = NULL;
    sluice_status st;

    (void)snprintf(key, sizeof key, "%s" COUNTS, name);
    counts = sluice_gguf_tensor_find(g, key);
    if (counts == NULL)
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "imatrix: \"%s\" has sums and no counts", name);
    if (sums->type != SLUICE_TENSOR_F32 || counts->type != SLUICE_TENSOR_F32 || sums->ne[2] != 1 || sums->ne[3] != 1 || counts->ne[0] != 1 ||
        counts->ne[1] != sums->ne[1] || counts->ne[2] != 1 || counts->ne[3] != 1)
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "imatrix: the sums and counts of \"%s\" do not go together", name);
    if (sums->ne[0] > COLS_MAX || sums->ne[1] > EXPERTS_MAX)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "imatrix: \"%s\" has %" PRIu64 " columns", name, sums->ne[0]);
    st = append(m, name, (size_t)sums->ne[0], (size_t)sums->ne[1], &e, err);
    if (st != SLUICE_OK)
        return st;
    memcpy(e->sums, sums->data, sums->bytes);
    memcpy(e->counts, counts->data, counts->bytes);
    return check_values(e, err);
}

static sluice_status read_gguf(sluice_imatrix *m, sluice_span bytes, sluice_error *err)
{
    sluice_gguf *g = NULL;
    sluice_span type = SLUICE_SPAN_EMPTY;
    sluice_status st = sluice_gguf_open_span(&g, bytes, m->al, err);

    if (st != SLUICE_OK)
        return st;
    st = sluice_gguf_opt_string(g, "general.type", &type, err);
    if (st == SLUICE_OK && !sluice_span_eq_str(type, "imatrix")) {
        st = sluice_error_set(err, SLUICE_ERR_FORMAT, "imatrix: a GGUF file that is no importance matrix (general.type)");
        sluice_error_hint(err, "make one with --calibrate TEXT, or with llama-imatrix");
    }
    for (size_t i = 0; i < sluice_gguf_n_tensors(g) && st == SLUICE_OK; i++) {
        const sluice_gguf_tensor *t = sluice_gguf_tensor_at(g, i);
        char name[SLUICE_GGUF_MAX_NAME_BYTES + 1];

        if (cut_end(t->name, SUMS, name, sizeof name)) /* other statistics may lie beside them */
            st = read_pair(m, g, t, name, err);
    }
    sluice_gguf_close(g);
    return st;
}

typedef struct reader {
    sluice_span left;
    uint64_t at;
    sluice_error *err;
} reader;

static sluice_status take(reader *r, uint64_t n, sluice_span *out)
{
    if (n > r->left.len) {
        (void)sluice_error_set(r->err, SLUICE_ERR_FORMAT, "imatrix: the file ends inside an entry");
        sluice_error_offset(r->err, r->at);
        return SLUICE_ERR_FORMAT;
    }
    *out = sluice_span_of(r->left.ptr, (size_t)n);
    r->left = sluice_span_of(r->left.ptr + n, r->left.len - (size_t)n);
    r->at += n;
    return SLUICE_OK;
}

/* A count of the legacy form, from 0 to max. */
static sluice_status take_count(reader *r, const char *what, uint32_t max, uint32_t *out)
{
    sluice_span s = SLUICE_SPAN_EMPTY;
    sluice_status st = take(r, 4, &s);

    if (st != SLUICE_OK)
        return st;
    *out = (uint32_t)s.ptr[0] | (uint32_t)s.ptr[1] << 8 | (uint32_t)s.ptr[2] << 16 | (uint32_t)s.ptr[3] << 24;
    if (*out > max) {
        (void)sluice_error_set(r->err, SLUICE_ERR_FORMAT, "imatrix: %" PRIu32 " as %s; is this an importance matrix?", *out, what);
        sluice_error_offset(r->err, r->at - 4);
        return SLUICE_ERR_FORMAT;
    }
    return SLUICE_OK;
}

/* The legacy form does not tell experts from columns: an entry of several is one long row, which get() cuts. */
static sluice_status read_legacy_entry(sluice_imatrix *m, reader *r)
{
    char name[SLUICE_GGUF_MAX_NAME_BYTES + 1];
    uint32_t n_name = 0, n_calls = 0, n_values = 0;
    sluice_span text = SLUICE_SPAN_EMPTY, values = SLUICE_SPAN_EMPTY;
    entry *e = NULL;
    sluice_status st = take_count(r, "the length of a name", SLUICE_GGUF_MAX_NAME_BYTES, &n_name);

    if (st == SLUICE_OK)
        st = take(r, n_name, &text);
    if (st == SLUICE_OK)
        st = take_count(r, "a number of calls", INT32_MAX, &n_calls);
    if (st == SLUICE_OK)
        st = take_count(r, "a number of columns", COLS_MAX, &n_values);
    if (st == SLUICE_OK)
        st = take(r, (uint64_t)n_values * sizeof(float), &values);
    if (st != SLUICE_OK)
        return st;
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] < 0x20 || text.ptr[i] > 0x7e)
            return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "imatrix: a name that is not printable; is this an importance matrix?");
    memcpy(name, text.ptr, text.len);
    name[text.len] = '\0';
    if (find(m, text) != SIZE_MAX)
        return sluice_error_set(r->err, SLUICE_ERR_FORMAT, "imatrix: \"%s\" is there twice", name);
    st = append(m, name, n_values, 1, &e, r->err);
    if (st != SLUICE_OK)
        return st;
    memcpy(e->sums, values.ptr, values.len);
    e->counts[0] = (float)n_calls;
    return check_values(e, r->err);
}

static sluice_status read_legacy(sluice_imatrix *m, sluice_span bytes, sluice_error *err)
{
    reader r = { bytes, 0, err };
    uint32_t n = 0;
    sluice_status st = take_count(&r, "the number of entries", ENTRIES_MAX, &n);

    for (uint32_t i = 0; i < n && st == SLUICE_OK; i++)
        st = read_legacy_entry(m, &r);
    return st; /* what follows names the text; nothing depends on it */
}

sluice_status sluice_imatrix_open(sluice_imatrix **out, const char *path, const sluice_platform *platform, const sluice_allocator *al, sluice_error *err)
{
    sluice_mapping map = SLUICE_MAPPING_EMPTY;
    sluice_imatrix *m = NULL;
    sluice_status st;

    *out = NULL;
    st = platform->map(platform->user, &map, path, err);
    if (st == SLUICE_OK)
        st = sluice_imatrix_new(&m, al, err);
    if (st == SLUICE_OK)
        st = map.len >= 4 && memcmp(map.ptr, "GGUF", 4) == 0 ? read_gguf(m, sluice_span_of(map.ptr, map.len), err)
                                                             : read_legacy(m, sluice_span_of(map.ptr, map.len), err);
    if (st == SLUICE_OK && m->n == 0)
        st = sluice_error_set(err, SLUICE_ERR_FORMAT, "imatrix: there are no entries");
    platform->unmap(platform->user, &map);
    if (st != SLUICE_OK) {
        sluice_error_where(err, path);
        sluice_imatrix_close(m);
        return st;
    }
    *out = m;
    return SLUICE_OK;
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

/* Sums and counts of one entry, filled up to n_experts with zeros. */
static sluice_status put_entry(sluice_gguf_writer *w, const sluice_imatrix *m, const entry *e, size_t n_experts, sluice_error *err)
{
    const uint64_t sums_ne[2] = { e->cols, n_experts }, counts_ne[2] = { 1, n_experts };
    char name[SLUICE_GGUF_MAX_NAME_BYTES + 16];
    float *sums = sluice_alloc_array(m->al, n_experts * e->cols, sizeof *sums);
    float *counts = sluice_alloc_array(m->al, n_experts, sizeof *counts);

    if (sums != NULL && counts != NULL) {
        memcpy(sums, e->sums, e->n_experts * e->cols * sizeof *sums);
        memcpy(counts, e->counts, e->n_experts * sizeof *counts);
        (void)snprintf(name, sizeof name, "%s" SUMS, e->name);
        sluice_gguf_put_tensor(w, name, SLUICE_TENSOR_F32, 2, sums_ne, sums, n_experts * e->cols * sizeof *sums);
        (void)snprintf(name, sizeof name, "%s" COUNTS, e->name);
        sluice_gguf_put_tensor(w, name, SLUICE_TENSOR_F32, 2, counts_ne, counts, n_experts * sizeof *counts);
    }
    sluice_free(m->al, sums, n_experts * e->cols * sizeof *sums);
    sluice_free(m->al, counts, n_experts * sizeof *counts);
    return sums != NULL && counts != NULL ? SLUICE_OK : no_memory(err);
}

static size_t experts_of(const entry *e, const sluice_gguf *model)
{
    const sluice_gguf_tensor *t = model != NULL ? sluice_gguf_tensor_find(model, e->name) : NULL;

    return t != NULL && t->ne[2] > e->n_experts && t->ne[2] <= EXPERTS_MAX ? (size_t)t->ne[2] : e->n_experts;
}

sluice_status sluice_imatrix_write(const sluice_imatrix *m, const sluice_gguf *model, const char *dataset, uint32_t n_chunks, uint32_t chunk,
                                   sluice_buf *out, sluice_error *err)
{
    const sluice_span datasets[1] = { sluice_span_str(dataset) };
    sluice_gguf_writer w;
    sluice_status st = SLUICE_OK;

    sluice_gguf_writer_init(&w, m->al, SIZE_MAX);
    sluice_gguf_put_string(&w, "general.type", "imatrix");
    sluice_gguf_put_strings(&w, "imatrix.datasets", datasets, 1);
    sluice_gguf_put_u32(&w, "imatrix.chunk_count", n_chunks);
    sluice_gguf_put_u32(&w, "imatrix.chunk_size", chunk);
    for (size_t i = 0; i < m->n && st == SLUICE_OK; i++)
        st = put_entry(&w, m, &m->entries[i], experts_of(&m->entries[i], model), err);
    if (st == SLUICE_OK && !sluice_gguf_writer_finish(&w, out))
        st = no_memory(err);
    sluice_gguf_writer_deinit(&w);
    return st;
}
