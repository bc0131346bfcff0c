/* tools.c - calls that need no request: info, policy lint, model inspection.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/src/instance.h"

enum { DOCUMENT_BYTES_MAX = 4 << 20 };

static sluice_status take(sluice_buf *out, bool ok, char **json, const char *what, sluice_error *err)
{
    sluice_status st = ok ? SLUICE_OK : sluice_buf_error(out, what, err);
    if (st == SLUICE_OK && (*json = sluice_buf_take_str(out)) == NULL)
        st = sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "%s: no memory", what);
    sluice_buf_deinit(out);
    return st;
}

static void write_model(sluice_json_writer *w, const sluice *s)
{
    const sluice_engine_info *i = sluice_engine_get_info(s->engine);
    char hash[65];

    sluice_json_object_open(w, "model");
    sluice_json_str(w, "path", s->model_path);
    sluice_json_str(w, "name", i->name);
    sluice_json_str(w, "architecture", i->architecture);
    sluice_json_str(w, "file_type", i->file_type);
    sluice_json_str(w, "prompt_format", i->prompt_format);
    sluice_json_uint(w, "parameters", i->n_params);
    sluice_json_uint(w, "bytes", i->model_bytes);
    sluice_json_uint(w, "context_tokens", i->context_tokens);
    sluice_json_str(w, "kernels", i->kernels);
    sluice_json_uint(w, "threads", i->n_threads);
    sluice_hex(hash, i->model_hash, sizeof i->model_hash);
    sluice_json_str(w, "hash", hash);
    sluice_json_bool(w, "confidence_is_calibrated", s->calibration.is_fitted);
    sluice_json_object_close(w);
}

sluice_status sluice_info(sluice *s, char **json, sluice_error *err)
{
    sluice_buf out;
    sluice_json_writer w;
    char hash[65];

    sluice_error_clear(err);
    if (s == NULL || json == NULL)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "info: a required argument is NULL");
    *json = NULL;
    sluice_buf_init(&out, s->al, DOCUMENT_BYTES_MAX);
    sluice_json_begin(&w, &out);
    sluice_json_object_open(&w, NULL);
    sluice_json_str(&w, "version", sluice_version());
    sluice_json_object_open(&w, "policy");
    sluice_json_str(&w, "id", s->policy->id);
    sluice_json_uint(&w, "version", s->policy->version);
    sluice_hex(hash, s->policy->hash, sizeof s->policy->hash);
    sluice_json_str(&w, "hash", hash);
    sluice_json_uint(&w, "endpoints", s->policy->n_endpoints);
    sluice_json_uint(&w, "rules", s->policy->n_rules);
    sluice_json_object_close(&w);
    if (s->engine != NULL)
        write_model(&w, s);
    sluice_json_object_open(&w, "state");
    sluice_json_str(&w, "folder", s->state_dir);
    sluice_lock(s, s->state_lock);
    const bool writable = s->ledger != NULL && sluice_ledger_is_writable(s->ledger);
    sluice_json_bool(&w, "may_leave", writable);
    if (!writable) {
        sluice_json_str(&w, "why_not", s->ledger_error.message);
        sluice_json_str(&w, "hint", s->ledger_error.hint);
    }
    sluice_unlock(s, s->state_lock);
    sluice_json_object_close(&w);
    sluice_json_object_open(&w, "libraries");
    sluice_json_str(&w, "transport", sluice_transport_curl_version());
    sluice_json_str(&w, "libsodium", sluice_crypto_version());
    sluice_json_object_close(&w);
    sluice_json_object_close(&w);
    return take(&out, w.ok, json, "info", err);
}

typedef struct lint_sink {
    sluice_finding_fn fn;
    void *user;
} lint_sink;

static void on_finding(const sluice_policy_finding *f, void *user)
{
    const lint_sink *sink = user;
    const sluice_finding out = {
        .size = sizeof out, .code = f->code, .is_error = f->is_error, .line = f->line, .column = f->column,
        .message = f->message, .hint = f->hint
    };
    if (sink->fn != NULL)
        sink->fn(&out, sink->user);
}

/* A lint has no files at hand: a "ca_file" counts as readable. */
static sluice_status any_file(const char *name, sluice_buf *out, void *user, sluice_error *err)
{
    (void)name;
    (void)user;
    return sluice_buf_append_str(out, "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
               ? SLUICE_OK
               : sluice_buf_error(out, "policy", err);
}

sluice_status sluice_policy_lint(sluice_span policy, const sluice_allocator *al, sluice_finding_fn fn, void *user,
                                 sluice_error *err)
{
    sluice_policy *parsed = NULL;
    lint_sink sink = { fn, user };

    sluice_error_clear(err);
    sluice_status st = sluice_crypto_init(err);
    if (st == SLUICE_OK)
        st = sluice_policy_parse(&parsed, policy, any_file, NULL, on_finding, &sink, al, err);
    if (st == SLUICE_OK) {
        const sluice_platform *p = sluice_platform_default();
        sluice_policy_lint_time(parsed, sluice_wall_ms(p), on_finding, &sink);
    }
    sluice_policy_close(parsed);
    return st;
}

sluice_span sluice_policy_schema(void)
{
    return sluice_policy_schema_text();
}

sluice_status sluice_model_inspect(const char *path, const sluice_allocator *al, const sluice_platform *platform, char **json,
                                   sluice_error *err)
{
    sluice_buf out;

    sluice_error_clear(err);
    if (path == NULL || json == NULL)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "inspect: a required argument is NULL");
    *json = NULL;
    const sluice_platform *p = platform != NULL ? platform : sluice_platform_default();
    sluice_status st = sluice_platform_check(p, err);
    if (st != SLUICE_OK)
        return st;
    sluice_buf_init(&out, al, DOCUMENT_BYTES_MAX);
    st = sluice_engine_inspect(path, p, al, &out, err);
    if (st != SLUICE_OK) {
        if (err != NULL && err->where[0] == '\0')
            sluice_error_where(err, path);
        sluice_buf_deinit(&out);
        return st;
    }
    return take(&out, true, json, "inspect", err);
}

void sluice_text_free(sluice *s, const sluice_allocator *al, char *text)
{
    sluice_str_free(s != NULL ? s->al : al, text);
}
