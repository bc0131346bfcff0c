/* generate.c - a request, from its prompt to the reason why it stopped.
 *
 * One loop serves plain and speculative decoding.  A run of the model evaluates the last token that was picked and a guess at those after it; then each row
 * of logits is picked from in turn, and as long as what is picked is what was guessed, the next row is already there:
 *
 *     run      [ t0  g1  g2  g3 ]         g: guessed
 *     rows       |   |   |   |
 *     picks      t1  t2  t3               t1 = g1 and t2 = g2, but t3 is not g3: row 3 is of a text that is none, and the cache is cut before g3
 *
 * Picking does not know about guesses, so the answer cannot depend on them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/engine_impl.h"
#include "local-engine/speculate.h"
#include "local-engine/stop_strings.h"

typedef struct generation {
    sluice_engine *e;
    const sluice_engine_request *request;
    sluice_engine_result *result;
    sluice_sampler sampler;
    sluice_constraint *constraint;  /* or NULL */
    sluice_stop_strings filter;     /* stop strings and whole code points */
    bool has_filter;
    uint8_t *text;                  /* (text_cap) what comes out of the filter with one token */
    size_t text_len, text_cap;
    sluice_drafter drafter;
    int32_t guess[SLUICE_MAX_DRAFT];
    uint32_t n_guess;
} generation;

/* ---- what a request needs */

static sluice_status check_request(const sluice_engine *e, const sluice_engine_request *r, sluice_error *err)
{
    const bool has_tools = r->tools.len > 0;

    if (e->info.is_encoder)
        return sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "engine: %s is an encoder: it embeds, and does not generate", e->model.architecture);
    if (r->n_prompt == 0)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "engine: no tokens");
    for (size_t i = 0; i < r->n_prompt; i++)
        if (r->prompt[i] < 0 || (uint32_t)r->prompt[i] >= e->model.n_vocab)
            return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "engine: token %zu is %d, outside the vocabulary of %u", i, r->prompt[i], e->model.n_vocab);
    if ((r->json || has_tools) && r->n_stop > 0)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "engine: a stop string could cut JSON in two");
    if (r->json && has_tools)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "engine: a schema for the answer and tools at once");
    if (r->overflow > SLUICE_OVERFLOW_TRUNCATE_OLDEST)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "engine: overflow policy %d is unknown", (int)r->overflow);
    if (r->overflow == SLUICE_OVERFLOW_TRUNCATE_OLDEST && r->n_keep > e->context / 2)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "engine: %u tokens to keep, of a context of %u", r->n_keep, e->context);
    return SLUICE_OK;
}

static size_t longest_token(sluice_engine *e)
{
    if (e->max_token_bytes == 0) {
        e->max_token_bytes = 1;
        for (uint32_t i = 0; i < e->model.n_vocab; i++) {
            const size_t n = sluice_tokenizer_bytes(e->tokenizer, (int32_t)i).len;

            e->max_token_bytes = n > e->max_token_bytes ? n : e->max_token_bytes;
        }
    }
    return e->max_token_bytes;
}

static sluice_status open_filter(generation *g, sluice_error *err)
{
    const sluice_engine_request *r = g->request;
    sluice_status st;

    if (r->n_stop == 0 && !r->whole_code_points)
        return SLUICE_OK;
    st = sluice_stop_strings_init(&g->filter, r->stop, r->n_stop, r->whole_code_points, g->e->al, err);
    if (st != SLUICE_OK)
        return st;
    g->has_filter = true;
    g->text_cap = longest_token(g->e) + SLUICE_STOP_HELD_MAX;
    g->text = sluice_alloc(g->e->al, g->text_cap);
    if (g->text == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "engine: %zu bytes for text that is held back", g->text_cap);
    return SLUICE_OK;
}

/* How the families of chat_template.h write a call. */
static sluice_tool_format tool_format_of(const sluice_engine *e)
{
    static const struct { const char *family; const char *begin, *end, *arguments_key; } forms[] = {
        { "chatml", "<tool_call>\n", "\n</tool_call>", NULL }, { "qwen", "<tool_call>\n", "\n</tool_call>", NULL },
        { "smollm", "<tool_call>\n", "\n</tool_call>", NULL }, { "llama-3", "", "", "parameters" },
        { "mistral-v3-tekken", "[TOOL_CALLS][", "]", NULL }, { "mistral-v3", "[TOOL_CALLS] [", "]", NULL },
        { "mistral-v7-tekken", "[TOOL_CALLS][", "]", NULL }, { "mistral-v7", "[TOOL_CALLS] [", "]", NULL },
    };
    const char *name = sluice_prompt_format_name(e->prompt.format);

    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        if (strncmp(name, forms[i].family, strlen(forms[i].family)) == 0)
            return (sluice_tool_format){ .begin = sluice_span_str(forms[i].begin), .end = sluice_span_str(forms[i].end),
                                         .arguments_key = forms[i].arguments_key };
    return (sluice_tool_format){ .begin = SLUICE_SPAN_EMPTY, .end = SLUICE_SPAN_EMPTY };
}

static sluice_status open_constraint(generation *g, sluice_error *err)
{
    const sluice_engine_request *r = g->request;
    const sluice_tool_format own = tool_format_of(g->e), *format = r->tool_format != NULL ? r->tool_format : &own;
    sluice_engine *e = g->e;
    sluice_status st = SLUICE_OK;

    if (!r->json && r->tools.len == 0)
        return SLUICE_OK;
    if (e->constraint_vocab == NULL)
        st = sluice_constraint_vocab_open(&e->constraint_vocab, e->tokenizer, e->al, err);
    if (st != SLUICE_OK)
        return st;
    if (r->json)
        return sluice_constraint_open_shared(&g->constraint, e->constraint_vocab, r->json_schema, e->al, err);
    return sluice_constraint_open_tools_shared(&g->constraint, e->constraint_vocab, r->tools, r->tool_choice, r->tool_name, format, e->al, err);
}

static sluice_status open_generation(generation *g, sluice_error *err)
{
    sluice_engine *e = g->e;
    sluice_status st = check_request(e, g->request, err);

    if (st == SLUICE_OK)
        st = sluice_sampler_init(&g->sampler, &e->kernels, &g->request->sampling, e->model.n_vocab, e->sampler_scratch, err);
    if (st == SLUICE_OK)
        st = sluice_drafter_init(&g->drafter, e, g->request, err);
    if (st == SLUICE_OK)
        st = open_filter(g, err);
    if (st == SLUICE_OK)
        st = open_constraint(g, err);
    return st;
}

static void close_generation(generation *g)
{
    sluice_constraint_close(g->constraint);
    sluice_stop_strings_deinit(&g->filter);
    if (g->text != NULL)
        sluice_free_wiped(g->e->al, g->text, g->text_cap);
    sluice_wipe(g->guess, sizeof g->guess);
    if (!g->request->keep)
        sluice_engine_reset(g->e); /* nothing of the prompt or the answer stays behind, however this ended */
    else {
        sluice_wipe(g->e->sampler_scratch, g->e->sampler_bytes);
        sluice_wipe(g->e->pending, g->e->context * sizeof *g->e->pending);
    }
}

/* ---- a context that is full */

static uint32_t kept_tokens(const generation *g)
{
    return g->request->overflow == SLUICE_OVERFLOW_TRUNCATE_OLDEST ? g->request->n_keep : 0;
}

/* What truncation takes away at a time.  Coarse steps leave the beginning of the next prompts the same, so that more of the cache is of use. */
static uint32_t step_of(const generation *g)
{
    const uint32_t step = (g->e->context - kept_tokens(g)) / 4;

    return step > 0 ? step : 1;
}

static uint32_t tokens_left(const generation *g)
{
    return g->request->max_tokens - g->result->output_tokens;
}

/* The part of the prompt that the model sees: all of it, or with the overflow policy's tokens left out, in e->pending.  *n is 0 when it stops here. */
static sluice_status fit_prompt(generation *g, const int32_t **prompt, size_t *n, sluice_error *err)
{
    const sluice_engine_request *r = g->request;
    sluice_engine *e = g->e;
    const uint32_t keep = kept_tokens(g), step = step_of(g), half = (e->context - keep) / 2;
    const uint32_t room = r->max_tokens < half ? r->max_tokens : half;
    size_t drop;

    *prompt = r->prompt;
    *n = r->n_prompt;
    if (r->n_prompt <= e->context)
        return SLUICE_OK;
    if (r->overflow == SLUICE_OVERFLOW_REFUSE) {
        sluice_error_set(err, SLUICE_ERR_LIMIT, "engine: a prompt of %zu tokens does not fit the context of %u", r->n_prompt, e->context);
        sluice_error_hint(err, "leave out older messages, or open the engine with a larger context");
        return SLUICE_ERR_LIMIT;
    }
    if (r->overflow == SLUICE_OVERFLOW_STOP) {
        g->result->stop = SLUICE_STOP_CONTEXT;
        *n = 0;
        return SLUICE_OK;
    }
    drop = (r->n_prompt - e->context + room + step - 1) / step * step;
    if (drop >= r->n_prompt - keep)
        drop = r->n_prompt - e->context + room;
    *n = r->n_prompt - drop;
    memcpy(e->pending, r->prompt, keep * sizeof *e->pending);
    memcpy(e->pending + keep, r->prompt + keep + drop, (*n - keep) * sizeof *e->pending);
    *prompt = e->pending;
    g->result->dropped_tokens += (uint32_t)drop;
    g->result->reevaluated_tokens += (uint32_t)(*n - keep);
    return SLUICE_OK;
}

/* Make room for `next` and more, and evaluate what stays again. */
static sluice_status shift(generation *g, int32_t next, const float **logits, sluice_error *err)
{
    sluice_engine *e = g->e;
    const uint32_t keep = kept_tokens(g), used = e->kv.n_used;
    const uint32_t drop = used - keep > 2 * step_of(g) ? 2 * step_of(g) : used - keep, stay = used - keep - drop;

    memcpy(e->pending, e->history + keep + drop, stay * sizeof *e->pending);
    e->pending[stay] = next;
    sluice_engine_truncate(e, keep);
    g->result->dropped_tokens += drop;
    g->result->reevaluated_tokens += stay;
    return sluice_engine_eval(e, e->pending, (size_t)stay + 1, logits, err);
}

/* ---- one token */

static void append_text(sluice_span text, void *user)
{
    generation *g = user;

    if (text.len > g->text_cap - g->text_len) /* cannot be: what is held back and one token fit */
        return;
    memcpy(g->text + g->text_len, text.ptr, text.len);
    g->text_len += text.len;
}

/* Why this token is the last one; 0 when it is not.  `n_seen`: tokens before it that the model has seen. */
static sluice_engine_stop_reason reason_to_stop(const generation *g, const sluice_engine_token *token, uint32_t n_seen)
{
    if (g->has_filter && g->filter.has_stopped)
        return SLUICE_STOP_STRING;
    if (token->is_end)
        return SLUICE_STOP_END;
    if (g->constraint != NULL && sluice_constraint_has_ended(g->constraint))
        return SLUICE_STOP_COMPLETE;
    if (tokens_left(g) == 0)
        return SLUICE_STOP_MAX_TOKENS;
    if (n_seen >= g->e->context && g->request->overflow != SLUICE_OVERFLOW_TRUNCATE_OLDEST)
        return SLUICE_STOP_CONTEXT;
    return 0;
}

static void show(generation *g, sluice_engine_token *token, uint32_t n_seen)
{
    sluice_engine_result *result = g->result;

    g->text_len = 0;
    if (g->has_filter)
        (void)sluice_stop_strings_push(&g->filter, token->text, append_text, g);
    result->stop = reason_to_stop(g, token, n_seen);
    if (g->has_filter && g->filter.has_stopped)
        result->stop_string = g->filter.stopped_by;
    else if (g->has_filter && result->stop != 0)
        sluice_stop_strings_flush(&g->filter, append_text, g);
    if (g->has_filter)
        token->text = sluice_span_of(g->text, g->text_len);
    if (g->request->on_token != NULL && !g->request->on_token(token, g->request->user))
        result->stop = SLUICE_STOP_CALLER;
}

/* Pick from `logits`, report, and say in *next what was picked.  result->stop is set when it is the last one. */
static sluice_status take(generation *g, const float *logits, float probe, uint32_t n_seen, int32_t *next, sluice_error *err)
{
    sluice_engine *e = g->e;
    sluice_engine_token token;
    sluice_sample sample;
    sluice_status st;

    sluice_sampler_pick(&g->sampler, logits, g->constraint, &sample);
    if (sample.id == SLUICE_TOKEN_NONE)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "engine: after %u tokens the biases leave none that is allowed", g->result->output_tokens);
    memset(&token, 0, sizeof token);
    token.id = sample.id;
    token.is_end = sluice_tokenizer_is_end(e->tokenizer, sample.id);
    token.is_declined = sample.id == e->prompt.declines && sample.id != SLUICE_TOKEN_NONE;
    token.logprob = sample.logprob;
    token.margin = sample.margin;
    token.entropy = sample.entropy;
    token.probe = probe;
    token.alternatives = sample.alternatives;
    token.n_alternatives = sample.n_alternatives;
    token.index = g->result->output_tokens;
    if (!token.is_end) {
        if (g->constraint != NULL && (st = sluice_constraint_accept(g->constraint, sample.id, err)) != SLUICE_OK)
            return st;
        sluice_sampler_accept(&g->sampler, sample.id);
        token.text = sluice_tokenizer_bytes(e->tokenizer, sample.id);
        g->result->output_tokens++;
    }
    show(g, &token, n_seen);
    *next = sample.id;
    return SLUICE_OK;
}

/* ---- decoding */

/* Run the model on `next` and a guess at what follows it. */
static sluice_status run_next(generation *g, int32_t next, const float **logits, sluice_error *err)
{
    sluice_engine *e = g->e;
    uint32_t room;

    g->n_guess = 0;
    g->result->decode_runs++;
    if (e->kv.n_used >= e->context)
        return shift(g, next, logits, err);
    room = e->context - e->kv.n_used - 1;
    if (tokens_left(g) - 1 < room)
        room = tokens_left(g) - 1;
    if (room > SLUICE_MAX_DRAFT)
        room = SLUICE_MAX_DRAFT;
    e->history[e->kv.n_used] = next; /* where eval would put it: the drafter reads the whole text */
    g->n_guess = sluice_drafter_propose(&g->drafter, e->history, (size_t)e->kv.n_used + 1, g->constraint, g->guess, room);
    e->pending[0] = next;
    memcpy(e->pending + 1, g->guess, g->n_guess * sizeof *g->guess);
    return sluice_engine_eval_rows(e, e->pending, 1 + g->n_guess, 1 + g->n_guess, logits, err);
}

/* The probe head's word on row `row` of the last run.  The hidden states lie one after the other, and the last one is what the forward pass points at. */
static float probe_of(const generation *g, uint32_t row)
{
    return sluice_engine_probe(g->e, sluice_forward_hidden(g->e->forward) - (size_t)(g->n_guess - row) * g->e->model.n_embd);
}

static sluice_status decode(generation *g, const float *logits, sluice_error *err)
{
    sluice_engine *e = g->e;
    sluice_status st = SLUICE_OK;
    int32_t next = 0;

    g->result->stop = 0;
    while (st == SLUICE_OK && g->result->stop == 0) {
        const uint32_t n_seen = e->kv.n_used - g->n_guess; /* by the first row */
        uint32_t n_right = 0;

        for (;; n_right++) {
            st = take(g, logits + (size_t)n_right * e->model.n_vocab, probe_of(g, n_right), n_seen + n_right, &next, err);
            if (st != SLUICE_OK || g->result->stop != 0 || n_right == g->n_guess || next != g->guess[n_right])
                break;
        }
        sluice_engine_truncate(e, n_seen + n_right);
        g->result->drafted_tokens += g->n_guess;
        g->result->accepted_tokens += n_right;
        sluice_drafter_learn(&g->drafter, g->n_guess, n_right);
        if (st == SLUICE_OK && g->result->stop == 0)
            st = run_next(g, next, &logits, err);
    }
    return st;
}

/* Enough tokens for a whole value, before anything is evaluated for it. */
static sluice_status set_budget(generation *g, size_t n_prompt, sluice_error *err)
{
    uint32_t budget = g->request->max_tokens;
    const uint32_t room = g->e->context - (uint32_t)n_prompt + 1;

    if (g->constraint == NULL)
        return SLUICE_OK;
    if (g->request->overflow != SLUICE_OVERFLOW_TRUNCATE_OLDEST && room < budget)
        budget = room;
    return sluice_constraint_set_budget(g->constraint, budget, err);
}

static sluice_status generate(generation *g, sluice_error *err)
{
    sluice_engine *e = g->e;
    const uint64_t begin = sluice_now_us(&e->platform);
    const int32_t *prompt;
    const float *logits;
    uint64_t prefilled;
    size_t n;
    sluice_status st = fit_prompt(g, &prompt, &n, err);

    if (st != SLUICE_OK || n == 0)
        return st;
    st = set_budget(g, n, err);
    if (st != SLUICE_OK)
        return st;
    g->result->reused_tokens = sluice_engine_common_prefix(e, prompt, n - 1); /* the last one runs again, for its logits */
    sluice_engine_truncate(e, g->result->reused_tokens);
    st = sluice_engine_eval(e, prompt + g->result->reused_tokens, n - g->result->reused_tokens, &logits, err);
    prefilled = sluice_now_us(&e->platform);
    g->result->prefill_us = prefilled - begin;
    if (st != SLUICE_OK)
        return st;
    g->result->prompt_tokens = (uint32_t)n;
    sluice_sampler_feed_prompt(&g->sampler, prompt, n);
    if (g->request->max_tokens == 0)
        g->result->stop = SLUICE_STOP_MAX_TOKENS;
    else
        st = decode(g, logits, err);
    g->result->decode_us = sluice_now_us(&e->platform) - prefilled;
    return st;
}

sluice_status sluice_engine_run(sluice_engine *e, const sluice_engine_request *request, sluice_engine_result *result, sluice_error *err)
{
    generation g;
    sluice_status st;

    memset(&g, 0, sizeof g);
    memset(result, 0, sizeof *result);
    g.e = e;
    g.request = request;
    g.result = result;
    sluice_engine_adapt_threads(e);
    result->n_threads = sluice_pool_n_active(e->pool);
    st = open_generation(&g, err);
    if (st == SLUICE_OK)
        st = generate(&g, err);
    if (st == SLUICE_ERR_INTEGRITY)
        sluice_engine_reset(e); /* what the cache holds is no better than the weights that made it */
    close_generation(&g);
    return st;
}

sluice_status sluice_engine_generate(sluice_engine *e, const int32_t *prompt, size_t n_prompt, uint32_t max_tokens,
                                     const sluice_engine_sampling *sampling, sluice_engine_token_fn on_token, void *user,
                                     sluice_engine_result *result, sluice_error *err)
{
    const sluice_engine_request request = { .prompt = prompt, .n_prompt = n_prompt, .max_tokens = max_tokens, .sampling = *sampling,
                                            .on_token = on_token, .user = user };

    sluice_engine_reset(e);
    return sluice_engine_run(e, &request, result, err);
}
