/* worker.c - the inference thread: one local run at a time, tokens into the inbox.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/src/instance.h"

typedef struct running {
    sluice *s;
    const sluice_run *run;
    bool lost; /* a token could not be handed over: the answer would have a hole */
} running;

static bool on_token(const sluice_engine_token *token, void *user)
{
    running *r = user;
    sluice_note *note = sluice_note_new(r->s, SLUICE_NOTE_TOKEN, token->text);
    if (note == NULL) {
        r->lost = true;
        return false;
    }
    note->request_id = r->run->request_id;
    note->run = r->run->run;
    note->logprob = token->logprob;
    note->margin = token->margin;
    note->entropy = token->entropy;
    note->is_declined = token->is_declined;
    sluice_post(r->s, note);
    return true;
}

static void release_run(sluice *s, sluice_run *run)
{
    sluice_free_wiped(s->al, run->tokens, run->n_tokens * sizeof *run->tokens);
    sluice_free_wiped(s->al, (void *)(uintptr_t)run->output_schema.ptr, run->output_schema.len);
    sluice_free(s->al, run, sizeof *run);
}

static void execute(sluice *s, sluice_run *run)
{
    running r = { s, run, false };
    sluice_engine_result result;
    sluice_error err = SLUICE_ERROR_INIT;

    const sluice_engine_request request = {
        .prompt = run->tokens, .n_prompt = run->n_tokens, .max_tokens = run->max_tokens, .sampling = run->sampling,
        .json = run->output_schema.len > 0, .json_schema = run->output_schema,
        .keep = run->keep_session, /* otherwise the engine wipes prompt and answer before it returns */
        .on_token = on_token, .user = &r
    };
    sluice_status st = sluice_engine_run(s->engine, &request, &result, &err);
    if (r.lost)
        st = SLUICE_ERR_NO_MEMORY;
    if (st == SLUICE_ERR_CANCELLED)
        return; /* whoever stopped it no longer waits */
    sluice_note *note =
        sluice_note_new(s, st == SLUICE_OK ? SLUICE_NOTE_LOCAL_DONE : SLUICE_NOTE_LOCAL_FAILED,
                        st == SLUICE_OK ? SLUICE_SPAN_EMPTY : sluice_span_str(err.message));
    if (note == NULL) /* the deadline timer ends the request */
        return;
    note->request_id = run->request_id;
    note->run = run->run;
    note->result = result;
    note->status = st;
    sluice_post(s, note);
}

void sluice_worker_run(void *arg)
{
    sluice *s = arg;

    sluice_lock(s, s->worker_lock);
    for (;;) {
        while (s->runs_head == NULL && !s->worker_must_end)
            s->platform->cond_wait(s->platform->user, s->worker_cond, s->worker_lock, UINT64_MAX);
        if (s->worker_must_end)
            break;
        sluice_run *run = s->runs_head;
        s->runs_head = run->next;
        if (s->runs_head == NULL)
            s->runs_tail = &s->runs_head;
        s->current_run = run->run;
        sluice_engine_resume(s->engine);
        sluice_unlock(s, s->worker_lock);
        execute(s, run);
        release_run(s, run);
        sluice_lock(s, s->worker_lock);
        s->current_run = 0;
    }
    while (s->runs_head != NULL) {
        sluice_run *run = s->runs_head;
        s->runs_head = run->next;
        release_run(s, run);
    }
    s->runs_tail = &s->runs_head;
    sluice_unlock(s, s->worker_lock);
}

static sluice_status start(void *user, const sluice_run *asked, sluice_error *err)
{
    sluice *s = user;
    sluice_run *run = sluice_alloc_zeroed(s->al, sizeof *run);
    int32_t *tokens = sluice_alloc_array(s->al, asked->n_tokens, sizeof *tokens);
    uint8_t *schema = sluice_alloc(s->al, asked->output_schema.len); /* NULL for none */

    if (run == NULL || tokens == NULL || (schema == NULL && asked->output_schema.len > 0)) {
        sluice_free(s->al, run, sizeof *run);
        sluice_free(s->al, schema, asked->output_schema.len);
        sluice_free(s->al, tokens, asked->n_tokens * sizeof *tokens);
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "local run: no memory for %zu tokens", asked->n_tokens);
    }
    *run = *asked;
    memcpy(tokens, asked->tokens, asked->n_tokens * sizeof *tokens);
    run->tokens = tokens;
    run->output_schema = sluice_span_of(schema, asked->output_schema.len);
    if (schema != NULL)
        memcpy(schema, asked->output_schema.ptr, asked->output_schema.len);
    run->next = NULL;
    sluice_lock(s, s->worker_lock);
    *s->runs_tail = run;
    s->runs_tail = &run->next;
    s->platform->cond_broadcast(s->platform->user, s->worker_cond);
    sluice_unlock(s, s->worker_lock);
    return SLUICE_OK;
}

/* Forget it when it waits, stop it within one token when it runs. */
static void cancel(void *user, uint64_t run)
{
    sluice *s = user;
    sluice_run *found = NULL;

    sluice_lock(s, s->worker_lock);
    for (sluice_run **p = &s->runs_head; *p != NULL; p = &(*p)->next)
        if ((*p)->run == run) {
            found = *p;
            *p = found->next;
            if (*p == NULL)
                s->runs_tail = p;
            break;
        }
    if (found == NULL && s->current_run == run)
        sluice_engine_stop(s->engine);
    sluice_unlock(s, s->worker_lock);
    if (found != NULL)
        release_run(s, found);
}

static sluice_status render(void *user, const sluice_engine_message *messages, size_t n_messages, int32_t *tokens, size_t *n,
                            sluice_error *err)
{
    const sluice *s = user;
    return sluice_engine_render(s->engine, messages, n_messages, tokens, n, err);
}

void sluice_worker_backend(sluice *s, sluice_backend *out)
{
    const sluice_backend backend = {
        .user = s, .context_tokens = sluice_engine_get_info(s->engine)->context_tokens, .can_constrain = true, .render = render, .start = start,
        .cancel = cancel
    };
    *out = backend;
}
