/* hostile_corpus.h - model files that mean harm: each wrong in one way, most of them ways in which another reader of GGUF was once broken.
 *
 * All are built by code from one valid model of about 5 KB: a llama of one layer, embedding 32, two heads on one, feed-forward 32, all matrices Q4_0,
 * and a SentencePiece vocabulary of 16 tokens (or byte-level BPE, where a case is about that).  The groups are classes of published flaws and of what a
 * format with counts, lengths and offsets invites; none of the files is anybody's proof of concept.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_TESTS_UNIT_ENGINE_HOSTILE_CORPUS_H
#define SLUICE_TESTS_UNIT_ENGINE_HOSTILE_CORPUS_H

#include "local-engine/gguf.h"

enum {
    HOSTILE_N_EMBD = 32, HOSTILE_N_VOCAB = 16, HOSTILE_N_CONTEXT = 64,
    HOSTILE_GROUPS = 62
};

typedef struct hostile_case {
    unsigned group;             /* 1 … HOSTILE_GROUPS */
    const char *name;
    sluice_status open;         /* what sluice_engine_open() says */
    sluice_status inspect;      /* what describing the file says; it does not load the model, and minds less */
} hostile_case;

size_t hostile_n_cases(void);
const hostile_case *hostile_case_at(size_t i);
/* Case i, appended to `out`, which the caller has initialised without a maximum below 16 MiB.  Running out of memory ends the test program. */
void hostile_write(size_t i, sluice_buf *out);

/* The model that nothing is wrong with, its matrices of `type`: a type with blocks of 256 makes it eight times as wide. */
void hostile_write_valid(sluice_tensor_type type, sluice_buf *out);

#endif
