/* instance.h - what one instance is made of, shared by the files of the façade.
 *
 * Two threads.  The orchestrator owns every request and the transport; it alone steps request machines and calls the app back.
 * The inference worker runs one local job at a time and talks to the orchestrator through the inbox.  Calls from other threads put a
 * message into the inbox, but for consents, ledger and explanations, which work on the shared state under `state_lock`.
 *
 *   app thread ── submit, cancel, answer ──► inbox ──► orchestrator ── job ──► worker
 *                                             ▲            │    ▲                │
 *                                             └── tokens, done ─┼────────────────┘
 *                                                          transport (libcurl)
 *
 * Lock order: state_lock, then inbox_lock.  No lock is held while the app's code runs.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_SDK_SRC_INSTANCE_H
#define SLUICE_SDK_SRC_INSTANCE_H

#include "cloud-adapters/oblivious/seal.h"
#include "cloud-adapters/providers/provider.h"
#include "cloud-adapters/transport/transport.h"
#include "local-engine/engine.h"
#include "policies/egress.h"
#include "router/breaker.h"
#include "router/machine.h"
#include "sdk/base/json.h"
#include "sdk/crypto/crypto.h"
#include "sluice/sluice.h"

enum {
    SLUICE_MESSAGES_MAX = 256,
    SLUICE_REQUEST_BYTES_MAX = 1 << 20,
    SLUICE_REQUESTS_MAX = 256,      /* waiting and running at once */
    SLUICE_OUTPUT_TOKENS_MAX = 4096,
    SLUICE_OUTPUT_BYTES_MAX = 1 << 20
};

/* What travels to the orchestrator. */
typedef enum sluice_note_kind {
    SLUICE_NOTE_SUBMIT = 1, SLUICE_NOTE_CANCEL, SLUICE_NOTE_CONSENT, SLUICE_NOTE_REVOKED,
    SLUICE_NOTE_TOKEN, SLUICE_NOTE_LOCAL_DONE, SLUICE_NOTE_LOCAL_FAILED
} sluice_note_kind;

typedef struct sluice_note {
    struct sluice_note *next;
    sluice_note_kind kind;
    uint64_t request_id;
    uint64_t run;               /* which local run the note is about */
    struct sluice_job *request; /* SUBMIT */
    bool is_granted;            /* CONSENT */
    bool is_declined;           /* TOKEN */
    float logprob, margin, entropy;
    sluice_engine_result result; /* LOCAL_DONE */
    sluice_status status;       /* LOCAL_FAILED */
    size_t text_len;
    uint8_t text[];             /* TOKEN; CONSENT and REVOKED: consent id */
} sluice_note;

/* A local run, waiting for or on the worker. */
typedef struct sluice_run {
    struct sluice_run *next;
    uint64_t request_id, run;
    int32_t *tokens;            /* (n_tokens) */
    size_t n_tokens;
    uint32_t max_tokens;
    sluice_engine_sampling sampling;
    sluice_span output_schema;  /* JSON Schema; empty: any text */
    bool keep_session;          /* for the next run */
} sluice_run;

/* What can answer on the device.  The built-in engine's is in worker.c; a simulated one is in tests/simulation, and a platform's own
 * model would fill in the same table.  It reports with notes: TOKEN, then LOCAL_DONE or LOCAL_FAILED; nothing follows a cancel. */
typedef struct sluice_backend {
    void *user;
    uint32_t context_tokens;
    bool can_constrain;         /* holds answers to a run's output_schema */
    /* As sluice_engine_render(). Called on any thread. */
    sluice_status (*render)(void *user, const sluice_engine_message *messages, size_t n_messages, int32_t *tokens, size_t *n, sluice_error *err);
    sluice_status (*start)(void *user, const sluice_run *run, sluice_error *err); /* copies what it needs */
    void (*cancel)(void *user, uint64_t run);
} sluice_backend;

/* One request, owned by the orchestrator. */
typedef struct sluice_job {
    struct sluice_job *next;
    struct sluice *s;
    uint64_t id;
    sluice_arena arena;              /* the copied request */
    sluice_request request;          /* pointers into the arena */
    sluice_event_fn on_event;
    void *on_event_user;
    size_t purpose;
    sluice_features features;
    int32_t *tokens;                 /* rendered prompt; NULL where there is no local model or it cannot carry it */
    size_t n_tokens;
    sluice_machine machine;
    sluice_machine_event pending[8]; /* events that actions gave rise to */
    size_t n_pending;
    uint64_t timer_at_us[4];         /* by sluice_machine_timer; 0: not armed */
    uint64_t run;                    /* current local run; 0: none */
    sluice_buf held;                 /* local text so far */
    sluice_buf carry;                /* bytes of a code point that is not whole yet */
    uint32_t local_prompt_tokens, local_output_tokens;
    /* one cloud attempt */
    sluice_grant *grant;
    sluice_envelope *envelope;
    sluice_answer_opener *opener;
    const sluice_provider *provider;
    sluice_provider_reader *reader;
    sluice_exchange *exchange;
    sluice_buf payload;
    uint32_t attempt;
    bool attempt_sent, attempt_done, answer_begun, cloud_truncated;
    int outer_status;
    uint32_t cloud_prompt_tokens, cloud_output_tokens;
    sluice_error cloud_error, local_error;
    /* for the terminal event */
    sluice_receipt receipt;
    sluice_timings timings;
    uint64_t submitted_us, started_us, first_text_us, last_text_us;
    bool is_finished;
    struct sluice_queued_event *done_event; /* poll mode: room for the terminal event, so that no lack of memory can lose it */
    bool has_lost_text;              /* poll mode: a piece could not be queued; such an answer is not whole */
} sluice_job;

typedef struct sluice_queued_event {
    struct sluice_queued_event *next;
    sluice_event_fn on_event;
    void *user;
    sluice_event event;
    uint8_t text[];
} sluice_queued_event;

/* A consent question that waits for its answer. */
typedef struct sluice_asked {
    uint64_t request_id; /* 0: free */
    size_t purpose, endpoint;
    sluice_data_classes classes;
} sluice_asked;

struct sluice {
    const sluice_allocator *al;
    const sluice_platform *platform;
    char *state_dir, *policy_path, *model_path;
    bool poll_events, is_stepped;
    sluice_consent_fn on_consent;
    void *on_consent_user;

    sluice_policy *policy;
    sluice_engine *engine;           /* NULL: no built-in model */
    sluice_backend backend;
    bool has_backend;                /* something can answer on the device */
    sluice_calibration calibration;

    sluice_mutex *state_lock;        /* consents, ledger, gate, breakers, rates */
    sluice_ledger *ledger;           /* NULL: nothing may leave; ledger_error says why */
    sluice_error ledger_error;
    sluice_consent_store *consents;
    sluice_egress_gate *gate;
    sluice_breaker breakers[SLUICE_POLICY_ENDPOINTS_MAX];
    sluice_asked asked[SLUICE_REQUESTS_MAX];
    float prefill_us_per_token, decode_us_per_token, output_tokens_mean; /* moving averages; 0: nothing measured yet */

    sluice_mutex *inbox_lock;
    sluice_cond *inbox_cond;         /* orchestrator and poll wait here */
    sluice_note *inbox_head, **inbox_tail;
    uint64_t next_request_id, next_run;
    uint64_t live[SLUICE_REQUESTS_MAX]; /* accepted and not finished */
    size_t n_requests;
    bool is_closing;
    sluice_queued_event *events_head, **events_tail; /* poll mode */
    bool is_polling, close_after_poll;

    sluice_mutex *worker_lock;
    sluice_cond *worker_cond;
    sluice_run *runs_head, **runs_tail;
    uint64_t current_run;            /* on the engine right now; 0: none */
    bool worker_must_end;

    sluice_transport transport;
    bool has_transport;
    sluice_job *jobs;                /* orchestrator only */
    sluice_thread *orchestrator, *worker;
    bool close_from_callback;        /* set on the orchestrator */
};

static inline void sluice_lock(struct sluice *s, sluice_mutex *m) { s->platform->mutex_lock(s->platform->user, m); }
static inline void sluice_unlock(struct sluice *s, sluice_mutex *m) { s->platform->mutex_unlock(s->platform->user, m); }

/* instance.c */
/* What a test may put in place of the real thing.  Zero means the real thing. */
typedef struct sluice_parts {
    const sluice_transport *transport; /* taken over */
    const sluice_backend *backend;
    bool is_stepped;                   /* no threads: the caller calls sluice_orchestrator_turn() */
} sluice_parts;
sluice_status sluice_instance_open(sluice **out, const sluice_options *options, const sluice_parts *parts, sluice_error *err);
void sluice_instance_free(sluice *s);

/* orchestrator.c */
void sluice_orchestrator_run(void *arg);
bool sluice_orchestrator_turn(sluice *s);                /* all that is ready now; true: the instance is closing */
uint64_t sluice_orchestrator_next_us(const sluice *s);   /* earliest timer, UINT64_MAX: none */
void sluice_orchestrator_end(sluice *s);                 /* cancel what runs, deliver the last events */
bool sluice_post(sluice *s, sluice_note *note);          /* takes the note; false (and it is freed) when closing, SUBMIT only */
sluice_note *sluice_note_new(sluice *s, sluice_note_kind kind, sluice_span text); /* NULL: out of memory */
void sluice_note_free(sluice *s, sluice_note *note);
void sluice_wake(sluice *s);

/* worker.c */
void sluice_worker_run(void *arg);
void sluice_worker_backend(sluice *s, sluice_backend *out); /* the built-in engine as a backend */

/* job.c: one request on the orchestrator */
sluice_status sluice_job_new(sluice_job **out, sluice *s, const sluice_request *request, sluice_error *err);
void sluice_job_free(sluice_job *job);
/* Features, tokens and facts, as sluice_decide() wants them. Takes state_lock. */
sluice_status sluice_job_prepare(sluice_job *job, uint32_t time_left_ms, sluice_decision_input *in, sluice_error *err);
void sluice_job_start(sluice_job *job);
void sluice_job_step(sluice_job *job, const sluice_machine_event *event);
void sluice_job_on_note(sluice_job *job, const sluice_note *note);
void sluice_job_on_timers(sluice_job *job, uint64_t now_us);
uint64_t sluice_job_next_timer(const sluice_job *job);   /* UINT64_MAX: none */
bool sluice_job_uses_consent(const sluice_job *job, const char *consent_id);

/* cloud.c: the cloud attempt of a job */
void sluice_cloud_ask_gate(sluice_job *job, int endpoint, uint32_t attempt);
void sluice_cloud_start(sluice_job *job, uint32_t attempt); /* with the grant that ask_gate got */
void sluice_cloud_abandon(sluice_job *job);              /* cancel and release; safe at any time */
void sluice_job_push(sluice_job *job, sluice_machine_event event); /* after the present actions */

/* events.c */
void sluice_deliver(sluice_job *job, sluice_event *event);
void sluice_events_drain(sluice *s); /* when the threads have ended */

#endif
