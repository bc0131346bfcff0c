/* stop_strings.h - cut a stream of text before the first stop string, and never let a part of one through.
 *
 * Text goes in as it comes, token by token; what can no longer be part of a stop string comes out.  The text that comes out, put together, is all
 * of what went in up to the first occurrence of a stop string: the one that ends first, and of those that end there the longest.
 *
 * The automaton of Aho and Corasick (1975): one step a byte whatever the strings are, and its depth is how many bytes must be held back.
 * Optionally a code point that is not yet whole is held back too, so that what comes out can be shown as it is.
 *
 * Everything is inside the struct or allocated by init; pushing allocates nothing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_STOP_STRINGS_H
#define SLUICE_LOCAL_ENGINE_STOP_STRINGS_H

#include "sdk/base/base.h"

enum {
    SLUICE_STOP_STRINGS_MAX = 16,
    SLUICE_STOP_STRING_BYTES_MAX = 256,
    SLUICE_STOP_HELD_MAX = SLUICE_STOP_STRING_BYTES_MAX + 4 /* bytes that may be held back */
};

typedef struct sluice_stop_strings {
    const sluice_allocator *al;
    struct sluice_stop_node *nodes; /* the automaton; NULL without strings */
    size_t n_nodes, n_nodes_max;
    uint32_t at;                    /* its state */
    bool whole_code_points, has_stopped;
    uint32_t stopped_by;            /* index of the string */
    uint16_t lengths[SLUICE_STOP_STRINGS_MAX];
    uint32_t n_held;
    uint8_t held[SLUICE_STOP_HELD_MAX];
} sluice_stop_strings;

/* Receives text; borrowed for the call.  Never called with nothing. */
typedef void (*sluice_stop_text_fn)(sluice_span text, void *user);

/* SLUICE_ERR_ARGUMENT for an empty string, SLUICE_ERR_LIMIT for more or longer ones than the above.  The strings are copied.  On failure there is nothing to release. */
sluice_status sluice_stop_strings_init(sluice_stop_strings *s, const sluice_span *strings, size_t n, bool whole_code_points,
                                       const sluice_allocator *al, sluice_error *err);
void sluice_stop_strings_deinit(sluice_stop_strings *s); /* wipes; safe on a zeroed struct */
void sluice_stop_strings_reset(sluice_stop_strings *s);  /* to the start of a text */

/* True when a stop string has been seen, now or before: the text ends there, and what follows is swallowed. */
bool sluice_stop_strings_push(sluice_stop_strings *s, sluice_span text, sluice_stop_text_fn emit, void *user);
/* The text ends here: what was held back comes out. */
void sluice_stop_strings_flush(sluice_stop_strings *s, sluice_stop_text_fn emit, void *user);

#endif
