/* sluice/sluice.h - ask a question; the device answers when it can, the cloud only where that is permitted.
 *
 * An instance holds one policy, one local model, the consents that the user has given and the ledger of what
 * was decided.  A request is scored on the device, answered by the built-in engine where that is likely to
 * be good enough in time, and escalated to an endpoint of the policy only through the egress gate: policy
 * and consent must permit it, the ledger entry is durable first, and what leaves is sealed end to end (HPKE in
 * oblivious HTTP) inside TLS.
 *
 *     sluice_options o;
 *     sluice_options_init(&o, sizeof o);
 *     o.policy_path = "policy.json";
 *     o.model_path = "model.gguf";
 *     o.state_dir = "/data/app/sluice";
 *     sluice *s;
 *     sluice_error err = SLUICE_ERROR_INIT;
 *     if (sluice_open(&s, &o, &err) != SLUICE_OK) { ... err.message, err.hint ... }
 *
 * Structs that apps fill in begin with `size`, set by their _init function, so that fields can be appended.
 * Strings are UTF-8 and NUL-terminated unless they are spans.
 *
 * Threads: one instance runs an orchestrator thread and an inference thread.  Every function may be called
 *          from any thread.  Events arrive on the orchestrator thread, or, with options.poll_events, inside
 *          sluice_poll() on the thread that calls it.  An app may submit, cancel, grant, revoke or close from inside its own event callback.
 * Memory:  everything comes from options.allocator; what a call returns is released by its own _free function.
 * Globals: none; instances are independent of each other.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_SLUICE_H
#define SLUICE_SLUICE_H

#include "sluice/base.h"
#include "sluice/platform.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sluice sluice; /* opaque */

/* ---- what is decided, and why -------------------------------------------------------------------- */

/* Who answered, or what happened instead.  Stored in records: append, never renumber. */
typedef enum sluice_route {
    SLUICE_ROUTE_NONE = 0,
    SLUICE_ROUTE_LOCAL = 1,   /* the built-in engine */
    SLUICE_ROUTE_CLOUD = 2,   /* an endpoint, at once */
    SLUICE_ROUTE_CASCADE = 3, /* local first, escalated when weak, late or failed */
    SLUICE_ROUTE_ABSTAIN = 4, /* nothing permitted is likely to be good enough */
    SLUICE_ROUTE_ASK = 5      /* the user's consent is what is missing */
} sluice_route;

/* Why.  Bands: 1xx eligible (can it at all), 2xx worthwhile (should it), 3xx permitted (may it), 4xx what
 * happened on the way.  sluice_reason_name() and sluice_reason_text() give words.  Append, never renumber. */
typedef enum sluice_reason {
    SLUICE_REASON_NONE = 0,

    SLUICE_REASON_LOCAL_READY = 100,
    SLUICE_REASON_LOCAL_NO_MODEL = 101,
    SLUICE_REASON_LOCAL_CONTEXT_TOO_LONG = 102,
    SLUICE_REASON_LOCAL_NO_MEMORY = 103,
    SLUICE_REASON_LOCAL_DEVICE_STATE = 104, /* thermal or battery floor */
    SLUICE_REASON_LOCAL_UNSUPPORTED = 105,  /* the model cannot do what the request needs (several turns, a schema, a language) */
    SLUICE_REASON_CLOUD_READY = 120,
    SLUICE_REASON_CLOUD_NO_ENDPOINT = 121,
    SLUICE_REASON_CLOUD_OFFLINE = 122,
    SLUICE_REASON_CLOUD_BREAKER_OPEN = 123,
    SLUICE_REASON_CLOUD_TOO_LARGE = 124,

    SLUICE_REASON_LIKELY_GOOD = 200,       /* predicted confidence reaches the threshold */
    SLUICE_REASON_LIKELY_WEAK = 201,       /* it does not */
    SLUICE_REASON_OUT_OF_DOMAIN = 202,
    SLUICE_REASON_LOCAL_TOO_SLOW = 203,    /* would overrun the deadline */
    SLUICE_REASON_CLOUD_TOO_SLOW = 204,
    SLUICE_REASON_POLICY_PREFERS_LOCAL = 205,
    SLUICE_REASON_POLICY_PREFERS_CLOUD = 206,

    SLUICE_REASON_PERMITTED = 300,
    SLUICE_REASON_POLICY_NO_RULE = 301,     /* default deny: no rule permits it */
    SLUICE_REASON_POLICY_FORBIDS = 302,     /* a forbid rule matches */
    SLUICE_REASON_POLICY_LOCAL_ONLY = 303,  /* mode local_only, or the request's privacy class */
    SLUICE_REASON_CONSENT_MISSING = 304,
    SLUICE_REASON_CONSENT_EXPIRED = 305,
    SLUICE_REASON_CONSENT_REVOKED = 306,
    SLUICE_REASON_CONSENT_REFUSED = 307,    /* the user said no */
    SLUICE_REASON_CLOCK_UNTRUSTED = 308,
    SLUICE_REASON_LEDGER_UNAVAILABLE = 309, /* no ledger, no egress */
    SLUICE_REASON_PURPOSE_UNKNOWN = 310,
    SLUICE_REASON_CLASS_UNKNOWN = 311,
    SLUICE_REASON_POLICY_EXPIRED = 312,

    SLUICE_REASON_CONFIDENT = 400,         /* the finished local answer reached the threshold */
    SLUICE_REASON_LOW_CONFIDENCE = 401,    /* the finished local answer did not */
    SLUICE_REASON_STOPPED_EARLY = 402,     /* stopped while running: it could no longer reach the threshold */
    SLUICE_REASON_LOCAL_FAILED = 403,
    SLUICE_REASON_LOCAL_LATE = 404,        /* stopped so that the cloud still has its reserve */
    SLUICE_REASON_CLOUD_ANSWERED = 405,
    SLUICE_REASON_CLOUD_FAILED = 406,
    SLUICE_REASON_CLOUD_PIN_MISMATCH = 407,
    SLUICE_REASON_CLOUD_TLS = 408,
    SLUICE_REASON_CLOUD_TRUNCATED = 409,
    SLUICE_REASON_DEADLINE = 410,
    SLUICE_REASON_CANCELLED = 411,
    SLUICE_REASON_CONSENT_GIVEN = 412,
    SLUICE_REASON_FELL_BACK_TO_LOCAL = 413, /* the weak local answer is given because nothing better could be had */
    SLUICE_REASON_OUTPUT_LIMIT = 414        /* max_tokens reached */
} sluice_reason;

SLUICE_API const char *sluice_route_name(sluice_route route);     /* "local", "cloud", …; static */
SLUICE_API const char *sluice_reason_name(sluice_reason reason);  /* "consent_missing"; static; "unknown" outside the list */
SLUICE_API const char *sluice_reason_text(sluice_reason reason);  /* one English sentence; static */

/* What a text may contain, as consent and rules speak of it.  A set is the bitwise or. */
typedef uint32_t sluice_data_classes;
enum {
    SLUICE_CLASS_PROMPT = 1u << 0, /* free text of the user: every request has it */
    SLUICE_CLASS_EMAIL = 1u << 1,
    SLUICE_CLASS_PHONE = 1u << 2,
    SLUICE_CLASS_PAYMENT_CARD = 1u << 3,
    SLUICE_CLASS_IBAN = 1u << 4,
    SLUICE_CLASS_NATIONAL_ID = 1u << 5,
    SLUICE_CLASS_NETWORK_ADDRESS = 1u << 6, /* IP or MAC */
    SLUICE_CLASS_SECRET = 1u << 7,          /* API keys, tokens, passwords, URLs with credentials */
    SLUICE_CLASS_HEALTH = 1u << 8,
    SLUICE_CLASS_FINANCE = 1u << 9,
    SLUICE_CLASS_ALL = (1u << 10) - 1
};
SLUICE_API const char *sluice_data_class_name(sluice_data_classes one); /* "email"; NULL unless exactly one known bit is set */

/* ---- opening ------------------------------------------------------------------------------------- */

struct sluice_consent_request;
/* Asked at the moment of escalation, on the orchestrator thread, when a rule permits but consent is missing.
 * It returns at once; the app answers, now or later, from any thread, with sluice_consent_answer(), and silence until the request's deadline counts as
 * no.  A missing callback denies. */
typedef void (*sluice_consent_fn)(const struct sluice_consent_request *ask, void *user);

typedef struct sluice_options {
    size_t size;
    const char *policy_path;  /* the policy file; or */
    sluice_span policy_json;  /* its bytes, where policy_path is NULL.  One of the two is required. */
    const char *model_path;   /* a GGUF file, or NULL for none: then nothing runs locally */
    const char *state_dir;    /* consents, ledger and keys; created.  NULL: nothing can be recorded, so nothing may leave */
    uint32_t n_threads;       /* of the engine; 0 chooses from the machine */
    uint32_t context_tokens;  /* of the engine; 0 takes the model's own, at most 4096 */
    bool poll_events;         /* events are pulled with sluice_poll() instead of arriving on the orchestrator */
    sluice_consent_fn on_consent; /* NULL: consent is never asked for */
    void *on_consent_user;
    const sluice_allocator *allocator; /* borrowed until close(); NULL means malloc and free */
    const sluice_platform *platform;   /* borrowed until close(); NULL means sluice_platform_default() */
} sluice_options;

SLUICE_API void sluice_options_init(sluice_options *options, size_t size);

/* Open an instance.  Options and the strings in them are copied, but for the borrowed members.
 * Errors: SLUICE_ERR_FORMAT or _POLICY with line and column (policy file), _FORMAT with offset (model file), _NOT_FOUND,
 * _IO, _NO_MEMORY, _ARGUMENT.  *out is NULL after a failure.
 * A state folder that is read-only, damaged or held by another instance is no error here: the instance then answers locally
 * and lets nothing out (SLUICE_REASON_LEDGER_UNAVAILABLE); sluice_ledger_verify() and the consent calls return the cause. */
SLUICE_API sluice_status sluice_open(sluice **out, const sluice_options *options, sluice_error *err);

/* Cancel what is running, deliver the terminal events, stop the threads, release everything.  Accepts NULL.
 * From inside an event callback it returns at once and the instance goes away after the callback has returned.  With
 * poll_events, and a thread inside sluice_poll(), it returns at once as well: that poll ends, and closes the instance. */
SLUICE_API void sluice_close(sluice *s);

/* ---- asking -------------------------------------------------------------------------------------- */

typedef struct sluice_message {
    const char *role;  /* "system", "user" or "assistant" */
    sluice_span text;  /* UTF-8 */
} sluice_message;

typedef enum sluice_privacy {
    SLUICE_PRIVACY_POLICY = 0,    /* the policy decides */
    SLUICE_PRIVACY_LOCAL_ONLY = 1 /* this request never leaves, whatever the policy says */
} sluice_privacy;

typedef struct sluice_request {
    size_t size;
    const sluice_message *messages; /* (n_messages), oldest first; the last is the user's; at most 256 messages, 1 MiB together */
    size_t n_messages;
    uint32_t deadline_ms;     /* from submit to the terminal event; 0 takes the policy's */
    const char *domain;       /* hint such as "banking", or NULL; copied, but nothing is decided by it yet */
    const char *purpose;      /* a purpose id of the policy; NULL takes the policy's first */
    sluice_privacy privacy;
    sluice_data_classes extra_classes; /* what the app knows the text to contain, beside what is found in it */
    uint32_t max_tokens;      /* of the answer; 0 takes the policy's */
    float temperature;        /* 0 is greedy */
    uint64_t seed;            /* of the local sampler */
    sluice_span output_schema; /* JSON Schema (2020-12, docs/engine.md says which parts) that the answer fulfils; empty: none.  At most 256 KiB.  Only the
                                  model on the device is held to it, so such a request is SLUICE_PRIVACY_LOCAL_ONLY; SLUICE_ERR_UNSUPPORTED without that
                                  model.  A schema that cannot be used, or that max_tokens are too few for, fails the run: no answer, and event.error
                                  says why */
    bool keep_session;         /* keep what the model on the device computed for this conversation in memory until the next request, which is then answered
                                  sooner when its messages begin with these and the answer.  Default: it is wiped when the request ends */
} sluice_request;

SLUICE_API void sluice_request_init(sluice_request *request, size_t size);

typedef enum sluice_event_kind {
    SLUICE_EVENT_ROUTE = 1,   /* a decision: route, reasons, confidence; again after an escalation */
    SLUICE_EVENT_TEXT = 2,    /* a piece of the answer; whole code points */
    SLUICE_EVENT_RESTART = 3, /* forget the text so far: another backend answers */
    SLUICE_EVENT_CONSENT = 4, /* consent is being asked for */
    SLUICE_EVENT_DONE = 5     /* terminal, exactly once */
} sluice_event_kind;

typedef enum sluice_outcome {
    SLUICE_OUTCOME_NONE = 0,
    SLUICE_OUTCOME_ANSWERED = 1,
    SLUICE_OUTCOME_LOW_CONFIDENCE = 2, /* answered locally, below the threshold, and nothing better was permitted or reachable */
    SLUICE_OUTCOME_NEEDS_CONSENT = 3,  /* held back: a rule permits it, the user has not agreed */
    SLUICE_OUTCOME_REFUSED = 4,        /* held back: policy */
    SLUICE_OUTCOME_ABSTAINED = 5,      /* no backend could do it */
    SLUICE_OUTCOME_TRUNCATED = 6,      /* the answer broke off */
    SLUICE_OUTCOME_CANCELLED = 7,
    SLUICE_OUTCOME_FAILED = 8          /* see event.status and event.error */
} sluice_outcome;
SLUICE_API const char *sluice_outcome_name(sluice_outcome outcome); /* "answered"; static */

enum { SLUICE_REASONS_MAX = 16, SLUICE_ID_MAX = 64 };

/* Proof of what left the device for this request.  All zero (attempts 0) when nothing did. */
typedef struct sluice_receipt {
    uint32_t attempts;           /* envelopes handed to the transport */
    char endpoint[SLUICE_ID_MAX];   /* endpoint id of the last attempt */
    char rule[SLUICE_ID_MAX];       /* the rule that permitted it */
    char consent[SLUICE_ID_MAX];    /* the consent record that covered it */
    uint64_t ledger_seq;         /* sequence number of the gate's ledger entry */
    uint64_t sealed_bytes_sent;  /* ciphertext, HTTP framing not counted */
    uint64_t sealed_bytes_received;
    sluice_data_classes classes; /* data classes that the payload was found to contain */
} sluice_receipt;

typedef struct sluice_timings {
    uint64_t queued_us;    /* submit to start */
    uint64_t features_us;  /* scoring the request */
    uint64_t prefill_us;   /* local prompt pass; 0 when the engine did not run */
    uint64_t ttft_us;      /* submit to first token delivered; 0 when there was none */
    uint64_t tpot_us;      /* mean time per output token after the first; 0 below two tokens */
    uint64_t total_us;     /* submit to terminal event */
} sluice_timings;

typedef struct sluice_event {
    size_t size;
    uint64_t request_id;
    sluice_event_kind kind;
    sluice_route route;                      /* ROUTE: what was decided.  DONE: who answered (LOCAL, CLOUD) or ABSTAIN, ASK, NONE */
    sluice_reason reasons[SLUICE_REASONS_MAX]; /* ROUTE and DONE: in the order in which they were found */
    size_t n_reasons;
    float confidence;                        /* in [0, 1], of the answer (DONE), predicted (ROUTE); < 0 when unknown */
    sluice_span text;                        /* TEXT; valid during the callback, until the next poll */
    /* DONE only: */
    sluice_outcome outcome;
    sluice_status status;                    /* SLUICE_OK unless outcome is FAILED, TRUNCATED or CANCELLED */
    sluice_error error;
    uint32_t prompt_tokens;                  /* as the answering backend counts; 0 when it did not say */
    uint32_t output_tokens;
    sluice_timings timings;
    sluice_receipt receipt;
} sluice_event;

typedef void (*sluice_event_fn)(const sluice_event *event, void *user);

/* Submit a request.  Everything in it is copied.  Returns at once; events follow, the last is
 * SLUICE_EVENT_DONE, exactly once, no later than the deadline.  A refusal, an abstention and missing consent are outcomes, not
 * errors: this fails with SLUICE_ERR_ARGUMENT, _UNSUPPORTED, _LIMIT (too many or too long), _NO_MEMORY or _STATE (closing), and then no event follows. */
SLUICE_API sluice_status sluice_submit(sluice *s, const sluice_request *request, sluice_event_fn on_event, void *user,
                                       uint64_t *request_id, sluice_error *err);

/* Ask a request to end; its DONE event says SLUICE_OUTCOME_CANCELLED unless it was finished already.
 * Idempotent; SLUICE_ERR_NOT_FOUND when no such request is running. */
SLUICE_API sluice_status sluice_cancel(sluice *s, uint64_t request_id);

/* With options.poll_events: deliver waiting events on this thread, waiting up to timeout_ms for the first.
 * *n_delivered may be NULL.  SLUICE_ERR_STATE without poll_events, or from two threads at once. */
SLUICE_API sluice_status sluice_poll(sluice *s, uint32_t timeout_ms, size_t *n_delivered);

/* Decide without running, sending or recording anything.  *json is a UTF-8 document, described in
 * docs/explain.md: features, per-backend eligibility, worth and permission with their reasons, the rules that matched or why not, and
 * what would change the decision.  Release it with sluice_text_free(). */
SLUICE_API sluice_status sluice_explain(sluice *s, const sluice_request *request, char **json, sluice_error *err);

/* ---- consent ------------------------------------------------------------------------------------- */

typedef enum sluice_consent_scope {
    SLUICE_CONSENT_ONCE = 1,    /* for the next grant alone */
    SLUICE_CONSENT_SESSION = 2, /* until this instance closes */
    SLUICE_CONSENT_UNTIL = 3    /* until valid_until_ms, or until revoked when that is 0 */
} sluice_consent_scope;

typedef enum sluice_consent_state {
    SLUICE_CONSENT_ACTIVE = 1,
    SLUICE_CONSENT_EXPIRED = 2,
    SLUICE_CONSENT_REVOKED = 3,
    SLUICE_CONSENT_REFUSED = 4,
    SLUICE_CONSENT_USED = 5 /* scope once, spent */
} sluice_consent_state;

/* What was agreed: purpose x data classes x endpoint.  There are no wildcards. */
typedef struct sluice_consent {
    size_t size;
    char id[SLUICE_ID_MAX];          /* out */
    char purpose[SLUICE_ID_MAX];     /* empty: the policy's first */
    char endpoint[SLUICE_ID_MAX];
    sluice_data_classes classes;     /* what may be sent */
    sluice_consent_scope scope;
    int64_t valid_until_ms;          /* Unix time; 0: until revoked */
    int64_t granted_ms;              /* out */
    uint32_t text_version;           /* out: version of the purpose's text that was shown; a newer text needs a new consent */
    sluice_consent_state state;      /* out */
} sluice_consent;

SLUICE_API void sluice_consent_init(sluice_consent *consent, size_t size);

typedef struct sluice_consent_request {
    size_t size;
    uint64_t request_id;
    const char *purpose;      /* id */
    const char *purpose_text; /* what the policy says to show the user */
    const char *endpoint;     /* id */
    const char *controller;   /* who answers for it */
    const char *region;
    sluice_data_classes classes;
} sluice_consent_request;

/* Answer an on_consent question.  `grant` NULL refuses; else its scope and valid_until_ms count, the rest is taken from
 * the question.  SLUICE_ERR_NOT_FOUND when the request no longer waits. */
SLUICE_API sluice_status sluice_consent_answer(sluice *s, uint64_t request_id, const sluice_consent *grant, sluice_error *err);

/* Record a consent outside a request.  Durable when it returns SLUICE_OK; `id_out` (SLUICE_ID_MAX bytes) may be NULL.
 * SLUICE_ERR_ARGUMENT names what the policy does not know; SLUICE_ERR_IO or _STATE when it cannot be recorded. */
SLUICE_API sluice_status sluice_consent_grant(sluice *s, const sluice_consent *consent, char *id_out, sluice_error *err);

/* Withdraw: at once, also for requests in flight.  Durable when it returns SLUICE_OK; the withdrawal counts for this
 * instance even where it cannot be written (SLUICE_ERR_IO). */
SLUICE_API sluice_status sluice_consent_revoke(sluice *s, const char *id, sluice_error *err);

/* All records, oldest first, as an array of *n; release with sluice_consent_list_free(). */
SLUICE_API sluice_status sluice_consent_list(sluice *s, sluice_consent **list, size_t *n, sluice_error *err);
SLUICE_API void sluice_consent_list_free(sluice *s, sluice_consent *list, size_t n);

/* ---- the ledger, and tools ----------------------------------------------------------------------- */

/* One entry as a line of JSON (no newline).  Return false to stop. */
typedef bool (*sluice_line_fn)(const char *json, size_t len, void *user);

/* Walk the ledger of this instance, oldest entry first. */
SLUICE_API sluice_status sluice_ledger_list(sluice *s, sluice_line_fn on_line, void *user, sluice_error *err);

/* Verify hash chain and authentication of every entry, and the head.  *n_entries may be NULL.
 * SLUICE_ERR_INTEGRITY names the first bad sequence number. */
SLUICE_API sluice_status sluice_ledger_verify(sluice *s, uint64_t *n_entries, sluice_error *err);

/* What the instance is made of, as JSON: version, policy id and hash, model, kernels, state folder, TLS and library versions. */
SLUICE_API sluice_status sluice_info(sluice *s, char **json, sluice_error *err);

/* One finding of the policy linter. */
typedef struct sluice_finding {
    size_t size;
    const char *code;       /* "P001" …, stable, listed in docs/policy.md; static */
    bool is_error;          /* the file does not load; else a warning */
    uint32_t line, column;  /* 1-based; 0 when the finding is about the whole file */
    const char *message;    /* valid during the callback */
    const char *hint;       /* what to do about it; may be empty */
} sluice_finding;
typedef void (*sluice_finding_fn)(const sluice_finding *finding, void *user);

/* Check the text of a policy file without an instance ("ca_file" is not followed).  Findings come in the order of the file, on the calling thread.
 * SLUICE_OK: it would load (there may be warnings); SLUICE_ERR_FORMAT or _POLICY: it would not, and err is the first error. */
SLUICE_API sluice_status sluice_policy_lint(sluice_span policy, const sluice_allocator *al, sluice_finding_fn on_finding, void *user, sluice_error *err);

/* The JSON Schema (2020-12) of policy files.  Static. */
SLUICE_API sluice_span sluice_policy_schema(void);

/* Describe a GGUF file as JSON: architecture, sizes, types, tokenizer, metadata, memory estimate. */
SLUICE_API sluice_status sluice_model_inspect(const char *path, const sluice_allocator *al, const sluice_platform *platform, char **json, sluice_error *err);

/* Release a text that came out of this instance, or of a call without one (then s is NULL and `al` is the one that was given). */
SLUICE_API void sluice_text_free(sluice *s, const sluice_allocator *al, char *text);

#ifdef __cplusplus
}
#endif
#endif
