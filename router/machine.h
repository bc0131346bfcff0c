/* machine.h - one request as a state machine without I/O.
 *
 * An event and the time go in, actions come out.  It reads no clock, draws no randomness, opens nothing and allocates nothing: the struct is the
 * state.  The real driver (sdk/src) and the simulated one (tests/simulation) run the same machine.
 *
 *         START
 *   NEW ───────┬──► LOCAL ── confident, or nothing better is possible ──► DONE
 *              │      │ weak, late, failed
 *              ├──► ASKING ──► GATE ──► CLOUD ── answered ──► DONE
 *              │      │ no      │ refused  │ failed: BACKOFF ──► GATE, while nothing was sent and attempts are left
 *              │      └─────────┴──────────┴──► the weak local answer, a last local run, or the refusal ──► DONE
 *              └──► abstain ──► DONE
 *
 * Invariants, checked by the simulation after every event:
 *   - exactly one FINISH action, and nothing after it;
 *   - START_CLOUD is never emitted before a GATE_GRANTED event of that very attempt;
 *   - text is delivered only whole-answer (hold) or token by token (now), and RESTART comes before text of another backend;
 *   - FINISH comes no later than the deadline timer.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_ROUTER_MACHINE_H
#define SLUICE_ROUTER_MACHINE_H

#include "router/confidence.h"
#include "router/decision.h"

typedef enum sluice_machine_state {
    SLUICE_MACHINE_NEW = 0, SLUICE_MACHINE_LOCAL = 1, SLUICE_MACHINE_ASKING = 2, SLUICE_MACHINE_GATE = 3,
    SLUICE_MACHINE_CLOUD = 4, SLUICE_MACHINE_BACKOFF = 5, SLUICE_MACHINE_DONE = 6
} sluice_machine_state;

typedef enum sluice_machine_event_kind {
    SLUICE_ME_START = 1,        /* decision is filled in */
    SLUICE_ME_LOCAL_TOKEN,      /* token */
    SLUICE_ME_LOCAL_DONE,       /* the model ended; `truncated` when it hit max_tokens */
    SLUICE_ME_LOCAL_FAILED,     /* status */
    SLUICE_ME_CONSENT,          /* is_granted */
    SLUICE_ME_GATE_GRANTED,     /* attempt */
    SLUICE_ME_GATE_REFUSED,     /* reason, status */
    SLUICE_ME_CLOUD_TEXT,       /* text of a valid stream; attempt */
    SLUICE_ME_CLOUD_DONE,       /* with its proof of completion; attempt */
    SLUICE_ME_CLOUD_FAILED,     /* status; was_sent tells whether the envelope may have reached the far side; attempt */
    SLUICE_ME_REVOKED,          /* consent was withdrawn: nothing more may leave, a cloud answer in flight is dropped */
    SLUICE_ME_TIMER,            /* timer */
    SLUICE_ME_CANCEL
} sluice_machine_event_kind;

typedef enum sluice_machine_timer { SLUICE_TIMER_DEADLINE = 1, SLUICE_TIMER_LOCAL_BUDGET = 2, SLUICE_TIMER_BACKOFF = 3 } sluice_machine_timer;

typedef struct sluice_machine_event {
    sluice_machine_event_kind kind;
    uint32_t attempt;
    const sluice_decision *decision;
    sluice_span text;           /* LOCAL_TOKEN, CLOUD_TEXT: borrowed during the call */
    float logprob, margin, entropy;
    bool is_granted, was_sent, is_truncated;
    bool is_declined;           /* LOCAL_TOKEN: with this token the model says that it cannot answer */
    sluice_reason reason;
    sluice_status status;
    sluice_machine_timer timer;
    uint64_t jitter;            /* random bits handed in for backoff */
} sluice_machine_event;

typedef enum sluice_machine_action_kind {
    SLUICE_MA_START_LOCAL = 1,
    SLUICE_MA_STOP_LOCAL,
    SLUICE_MA_ASK_CONSENT,      /* cloud */
    SLUICE_MA_ASK_GATE,         /* cloud, attempt: build the payload, ask egress for a grant, report GATE_* */
    SLUICE_MA_START_CLOUD,      /* cloud, attempt: seal with that grant and hand the envelope to the transport */
    SLUICE_MA_CANCEL_CLOUD,     /* attempt */
    SLUICE_MA_DELIVER,          /* text: token by token */
    SLUICE_MA_DELIVER_HELD,     /* the driver's held local text, all of it (the driver buffers local tokens) */
    SLUICE_MA_RESTART,          /* tell the app to forget the text so far */
    SLUICE_MA_REPORT_ROUTE,     /* route, reasons, confidence */
    SLUICE_MA_ARM_TIMER,        /* timer, at_us */
    SLUICE_MA_RECORD,           /* note type + reason in the ledger: decision, attempt outcome */
    SLUICE_MA_FINISH            /* outcome, route, status */
} sluice_machine_action_kind;

typedef struct sluice_machine_action {
    sluice_machine_action_kind kind;
    int cloud;
    uint32_t attempt;
    sluice_span text;           /* borrowed from the event */
    sluice_route route;
    sluice_reason reason;
    sluice_outcome outcome;
    sluice_status status;
    float confidence;
    sluice_machine_timer timer;
    uint64_t at_us;
} sluice_machine_action;

enum { SLUICE_MACHINE_ACTIONS_MAX = 16 };

typedef struct sluice_machine {
    sluice_machine_state state;
    sluice_decision decision;
    uint64_t started_us, deadline_us, local_until_us;
    float escalate_below, stop_below;
    sluice_stream_mode stream;
    uint32_t max_attempts, attempt; /* attempt: the current one, 0 before the first */
    int cloud;                      /* endpoint index */
    sluice_confidence local;
    sluice_calibration calibration;
    float confidence;               /* of the local answer so far; < 0 before the first token */
    bool local_running, local_finished, local_truncated, local_delivered;
    bool local_is_last_resort;      /* this local run's answer is given whatever its confidence */
    bool gate_granted;              /* by a GATE_GRANTED event of the current attempt */
    bool asked, cloud_delivered;
    sluice_reason gate_reason;      /* why the cloud was not permitted, where it was not */
    sluice_status cloud_status;     /* how the last cloud attempt failed, where it did */
    sluice_reason reasons[SLUICE_REASONS_MAX];
    size_t n_reasons;
    /* where step() puts its actions; valid during a step only */
    sluice_machine_action *out;
    size_t n_out;
} sluice_machine;

/* `deadline_us` is absolute on the clock whose values are passed to step. */
void sluice_machine_init(sluice_machine *m, const sluice_policy *policy, const sluice_calibration *cal, uint64_t now_us, uint64_t deadline_us);

/* Advance by one event.  Fills at most SLUICE_MACHINE_ACTIONS_MAX actions, in the order in which they are to be done; returns how many.
 * Events that do not fit the state (a late token, an answer of an older attempt) are ignored: 0 actions. */
size_t sluice_machine_step(sluice_machine *m, const sluice_machine_event *event, uint64_t now_us, sluice_machine_action *actions);

#endif
