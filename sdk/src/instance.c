/* instance.c - opening and closing an instance.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/src/instance.h"

enum { POLICY_FILE_BYTES_MAX = SLUICE_POLICY_BYTES_MAX, CA_FILE_BYTES_MAX = 1 << 18, PATH_MAX_BYTES = 4096 };

void sluice_options_init(sluice_options *options, size_t size)
{
    const sluice_options defaults = { .size = size };
    memset(options, 0, size);
    memcpy(options, &defaults, size < sizeof defaults ? size : sizeof defaults);
}

void sluice_request_init(sluice_request *request, size_t size)
{
    const sluice_request defaults = { .size = size };
    memset(request, 0, size);
    memcpy(request, &defaults, size < sizeof defaults ? size : sizeof defaults);
}

void sluice_consent_init(sluice_consent *consent, size_t size)
{
    const sluice_consent defaults = { .size = size, .scope = SLUICE_CONSENT_UNTIL };
    memset(consent, 0, size);
    memcpy(consent, &defaults, size < sizeof defaults ? size : sizeof defaults);
}

/* ---- policy file --------------------------------------------------------------------------------------- */

typedef struct ca_reader {
    const sluice_platform *platform;
    const char *policy_path;
} ca_reader;

/* "ca_file" names a file beside the policy: no absolute path and no way up, so that a policy from elsewhere cannot point at other files. */
static sluice_status read_beside_policy(const char *name, sluice_buf *out, void *user, sluice_error *err)
{
    const ca_reader *r = user;
    char path[PATH_MAX_BYTES];
    const char *slash = strrchr(r->policy_path, '/');
    const size_t dir_len = slash != NULL ? (size_t)(slash - r->policy_path) + 1 : 0;

    if (name[0] == '/' || strstr(name, "..") != NULL) {
        sluice_error_set(err, SLUICE_ERR_POLICY, "policy: \"ca_file\" must be a path below the policy file's folder");
        sluice_error_hint(err, "put the certificate beside the policy file, or use \"ca_pem\"");
        return SLUICE_ERR_POLICY;
    }
    if (dir_len + strlen(name) + 1 > sizeof path)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "policy: the path of \"ca_file\" is too long");
    memcpy(path, r->policy_path, dir_len);
    memcpy(path + dir_len, name, strlen(name) + 1);
    return sluice_platform_read_file(r->platform, path, CA_FILE_BYTES_MAX, out, err);
}

static sluice_status load_policy(sluice *s, const sluice_options *o, sluice_error *err)
{
    sluice_buf file;
    sluice_span text = o->policy_json;
    ca_reader reader = { s->platform, s->policy_path };
    sluice_status st = SLUICE_OK;

    sluice_buf_init(&file, s->al, POLICY_FILE_BYTES_MAX);
    if (s->policy_path != NULL) {
        st = sluice_platform_read_file(s->platform, s->policy_path, POLICY_FILE_BYTES_MAX, &file, err);
        text = sluice_buf_span(&file);
    }
    if (st == SLUICE_OK)
        st = sluice_policy_parse(&s->policy, text, s->policy_path ? read_beside_policy : NULL, &reader, NULL, NULL, s->al, err);
    sluice_buf_deinit(&file);
    if (st != SLUICE_OK)
        sluice_error_where(err, s->policy_path != NULL ? s->policy_path : "policy_json");
    if (st == SLUICE_ERR_NOT_FOUND && err != NULL && err->hint[0] == '\0')
        sluice_error_hint(err, "check the path; without a policy nothing is permitted");
    return st;
}

/* ---- state: whatever is wrong here closes the way out, never the instance ------------------------------- */

typedef struct last_policy {
    const char *hash;
    bool is_ours;
} last_policy;

static bool contains(sluice_span text, sluice_span part)
{
    for (size_t i = 0; i + part.len <= text.len; i++)
        if (memcmp(text.ptr + i, part.ptr, part.len) == 0)
            return true;
    return false;
}

static bool on_ledger_line(const char *json, size_t len, void *user)
{
    last_policy *last = user;
    const sluice_span line = sluice_span_of(json, len);
    if (contains(line, SLUICE_SPAN_LIT("\"type\":\"policy\"")))
        last->is_ours = contains(line, sluice_span_str(last->hash));
    return true;
}

/* The ledger says under which policy its entries were made; said again only when that has changed. */
static void record_policy(sluice *s)
{
    char hash[65];
    last_policy last = { hash, false };

    sluice_hex(hash, s->policy->hash, sizeof s->policy->hash);
    if (sluice_ledger_walk(s->ledger, on_ledger_line, &last, NULL) == SLUICE_OK && last.is_ours)
        return;
    const sluice_ledger_field fields[] = {
        { "policy", s->policy->id, 0 }, { "version", NULL, s->policy->version }, { "hash", hash, 0 }
    };
    /* A ledger that cannot be written refuses from here on, and with it the gate. */
    (void)sluice_ledger_append(s->ledger, "policy", fields, 3, NULL, &s->ledger_error);
}

static sluice_status open_state(sluice *s, sluice_error *err)
{
    sluice_error *why = &s->ledger_error, damage = SLUICE_ERROR_INIT;

    if (s->state_dir == NULL) {
        sluice_error_set(why, SLUICE_ERR_STATE, "no state folder was given: nothing can be recorded, so nothing may leave");
        sluice_error_hint(why, "set options.state_dir");
    } else if (sluice_ledger_open(&s->ledger, s->state_dir, s->platform, s->al, why) != SLUICE_OK) {
        s->ledger = NULL;
        sluice_log(s->platform, SLUICE_LOG_WARN, "nothing may leave: %s", why->message);
    }
    sluice_status st = sluice_consent_open(&s->consents, s->ledger, s->platform, s->al, &damage);
    if (st == SLUICE_ERR_NO_MEMORY && err != NULL)
        *err = damage;
    if (st != SLUICE_OK && s->ledger != NULL && st != SLUICE_ERR_NO_MEMORY) { /* damaged records: as if there were no ledger */
        *why = damage;
        sluice_ledger_close(s->ledger);
        s->ledger = NULL;
        st = sluice_consent_open(&s->consents, NULL, s->platform, s->al, err);
    }
    if (st == SLUICE_OK)
        st = sluice_egress_open(&s->gate, s->policy, s->consents, s->ledger, s->platform, s->al, err);
    if (st == SLUICE_OK && s->ledger != NULL)
        record_policy(s);
    return st;
}

static sluice_status open_engine(sluice *s, const sluice_options *o, sluice_error *err)
{
    const sluice_engine_options eo = {
        .n_threads = o->n_threads, .context_tokens = o->context_tokens, .cpu = 0xffffffffu
    };
    if (s->model_path == NULL)
        return SLUICE_OK;
    const sluice_status st = sluice_engine_open(&s->engine, s->model_path, &eo, s->platform, s->al, err);
    if (st != SLUICE_OK && err != NULL && err->where[0] == '\0')
        sluice_error_where(err, s->model_path);
    if (st != SLUICE_OK)
        return st;
    const sluice_engine_info *info = sluice_engine_get_info(s->engine);
    s->calibration = (sluice_calibration){ info->confidence_bias, info->confidence_weight_min, info->confidence_weight_mean,
                                           info->has_calibration };
    sluice_worker_backend(s, &s->backend);
    s->has_backend = true;
    return SLUICE_OK;
}

static sluice_status start_threads(sluice *s, sluice_error *err)
{
    const sluice_platform *p = s->platform;
    sluice_status st = SLUICE_OK;

    if (s->engine != NULL)
        st = p->thread_start(p->user, &s->worker, sluice_worker_run, s, "sluice-infer", err);
    if (st == SLUICE_OK) /* the lock makes s->orchestrator visible to the thread itself before it can be asked for */
        st = p->thread_start(p->user, &s->orchestrator, sluice_orchestrator_run, s, "sluice", err);
    return st;
}

static sluice_status create_locks(sluice *s, sluice_error *err)
{
    const sluice_platform *p = s->platform;
    sluice_status st = p->mutex_create(p->user, &s->state_lock, err);
    if (st == SLUICE_OK)
        st = p->mutex_create(p->user, &s->inbox_lock, err);
    if (st == SLUICE_OK)
        st = p->cond_create(p->user, &s->inbox_cond, err);
    if (st == SLUICE_OK)
        st = p->mutex_create(p->user, &s->worker_lock, err);
    if (st == SLUICE_OK)
        st = p->cond_create(p->user, &s->worker_cond, err);
    return st;
}

static sluice_status copy_options(sluice *s, const sluice_options *o, sluice_error *err)
{
    const struct { const char *from; char **to; } strings[] = {
        { o->state_dir, &s->state_dir }, { o->policy_path, &s->policy_path }, { o->model_path, &s->model_path }
    };
    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++)
        if (strings[i].from != NULL && (*strings[i].to = sluice_strdup(s->al, strings[i].from)) == NULL)
            return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "open: no memory");
    s->poll_events = o->poll_events;
    s->on_consent = o->on_consent;
    s->on_consent_user = o->on_consent_user;
    return SLUICE_OK;
}

sluice_status sluice_instance_open(sluice **out, const sluice_options *o, const sluice_parts *parts, sluice_error *err)
{
    static const sluice_parts real;
    sluice_status st;
    sluice *s = NULL;

    if (parts == NULL)
        parts = &real;
    if (out == NULL)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "open: out is NULL");
    *out = NULL;
    if (o == NULL || o->size < sizeof *o)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "open: options.size is not set: call sluice_options_init() first");
    if ((o->policy_path == NULL) == (o->policy_json.len == 0)) {
        sluice_error_set(err, SLUICE_ERR_ARGUMENT, "open: give exactly one of policy_path and policy_json");
        sluice_error_hint(err, "without a policy nothing is permitted, so one is required");
        return SLUICE_ERR_ARGUMENT;
    }
    const sluice_platform *platform = o->platform != NULL ? o->platform : sluice_platform_default();
    st = sluice_platform_check(platform, err);
    if (st == SLUICE_OK)
        st = sluice_crypto_init(err);
    if (st != SLUICE_OK)
        return st;
    s = sluice_alloc_zeroed(o->allocator, sizeof *s);
    if (s == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "open: no memory");
    s->al = o->allocator;
    s->platform = platform;
    s->inbox_tail = &s->inbox_head;
    s->events_tail = &s->events_head;
    s->runs_tail = &s->runs_head;
    s->next_request_id = 1;
    for (size_t i = 0; i < SLUICE_POLICY_ENDPOINTS_MAX; i++)
        sluice_breaker_init(&s->breakers[i]);
    s->is_stepped = parts->is_stepped;
    if (parts->transport != NULL) {
        s->transport = *parts->transport;
        s->has_transport = true;
    }
    if (parts->backend != NULL) {
        s->backend = *parts->backend;
        s->has_backend = true;
    }
    st = copy_options(s, o, err);
    if (st == SLUICE_OK)
        st = create_locks(s, err);
    if (st == SLUICE_OK)
        st = load_policy(s, o, err);
    if (st == SLUICE_OK)
        st = open_engine(s, o, err);
    if (st == SLUICE_OK)
        st = open_state(s, err);
    if (st == SLUICE_OK && !parts->is_stepped)
        st = start_threads(s, err);
    if (st != SLUICE_OK) {
        sluice_instance_free(s);
        return st;
    }
    *out = s;
    return SLUICE_OK;
}

sluice_status sluice_open(sluice **out, const sluice_options *options, sluice_error *err)
{
    sluice_error_clear(err);
    return sluice_instance_open(out, options, NULL, err);
}

static void end_worker(sluice *s)
{
    if (s->worker == NULL)
        return;
    sluice_lock(s, s->worker_lock);
    s->worker_must_end = true;
    sluice_engine_stop(s->engine);
    s->platform->cond_broadcast(s->platform->user, s->worker_cond);
    sluice_unlock(s, s->worker_lock);
    s->platform->thread_join(s->platform->user, s->worker);
    s->worker = NULL;
}

/* Runs when the orchestrator has ended, or on it as its last act. */
void sluice_instance_free(sluice *s)
{
    if (s == NULL)
        return;
    const sluice_platform *p = s->platform;
    end_worker(s);
    while (s->inbox_head != NULL) {
        sluice_note *note = s->inbox_head;
        s->inbox_head = note->next;
        if (note->kind == SLUICE_NOTE_SUBMIT)
            sluice_job_free(note->request);
        sluice_note_free(s, note);
    }
    if (p->thread_join != NULL && s->orchestrator != NULL)
        p->thread_join(p->user, s->orchestrator); /* from the thread itself: it releases itself when it ends */
    sluice_events_drain(s);
    if (s->has_transport)
        s->transport.close(s->transport.user);
    sluice_egress_close(s->gate);
    sluice_consent_close(s->consents);
    sluice_ledger_close(s->ledger);
    sluice_engine_close(s->engine);
    sluice_policy_close(s->policy);
    p->cond_destroy(p->user, s->worker_cond);
    p->mutex_destroy(p->user, s->worker_lock);
    p->cond_destroy(p->user, s->inbox_cond);
    p->mutex_destroy(p->user, s->inbox_lock);
    p->mutex_destroy(p->user, s->state_lock);
    sluice_str_free(s->al, s->state_dir);
    sluice_str_free(s->al, s->policy_path);
    sluice_str_free(s->al, s->model_path);
    sluice_free_wiped(s->al, s, sizeof *s);
}

void sluice_close(sluice *s)
{
    if (s == NULL)
        return;
    const sluice_platform *p = s->platform;
    sluice_lock(s, s->inbox_lock);
    if (s->poll_events && s->is_polling) { /* from a callback inside sluice_poll(): it closes when that returns */
        s->close_after_poll = true;
        sluice_wake(s); /* a poll that waits on another thread ends now */
        sluice_unlock(s, s->inbox_lock);
        return;
    }
    if (s->is_closing) { /* from a callback that the first call is delivering: that call does the work */
        sluice_unlock(s, s->inbox_lock);
        return;
    }
    const bool from_callback = s->orchestrator != NULL && p->thread_is_self(p->user, s->orchestrator);
    s->is_closing = true;
    s->close_from_callback = from_callback;
    sluice_wake(s);
    sluice_unlock(s, s->inbox_lock);
    if (from_callback)
        return;
    if (s->is_stepped) {
        (void)sluice_orchestrator_turn(s);
        sluice_orchestrator_end(s);
    }
    p->thread_join(p->user, s->orchestrator);
    s->orchestrator = NULL;
    sluice_instance_free(s);
}
