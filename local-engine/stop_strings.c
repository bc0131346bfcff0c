/* stop_strings.c - the automaton and what it holds back.
 *
 * A state is a node of the trie of all stop strings: the longest suffix of the text that begins one of them.  Exactly that suffix may still
 * become a stop string, so exactly that is held back; everything before it is free.  At most 16 * 256 nodes.
 *
 * A node keeps its children in a list, and a failed step follows the fail links: amortised constant time, since each link goes to a shorter suffix.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/stop_strings.h"

typedef struct sluice_stop_node {
    uint32_t child, next; /* first child; next sibling; 0: none, for the root is nobody's child */
    uint32_t fail;
    uint16_t depth;
    uint8_t byte;
    uint8_t match; /* 1 + index of the longest string that ends here; 0: none */
} sluice_stop_node;

static uint32_t child_of(const sluice_stop_strings *s, uint32_t node, uint8_t byte)
{
    uint32_t child = s->nodes[node].child;

    while (child != 0 && s->nodes[child].byte != byte)
        child = s->nodes[child].next;
    return child;
}

static uint32_t step(const sluice_stop_strings *s, uint32_t node, uint8_t byte)
{
    uint32_t child = child_of(s, node, byte);

    while (child == 0 && node != 0) {
        node = s->nodes[node].fail;
        child = child_of(s, node, byte);
    }
    return child;
}

static void add(sluice_stop_strings *s, sluice_span string, uint32_t index)
{
    uint32_t at = 0;

    for (size_t i = 0; i < string.len; i++) {
        uint32_t child = child_of(s, at, string.ptr[i]);

        if (child == 0) {
            child = (uint32_t)s->n_nodes++;
            s->nodes[child] = (sluice_stop_node){ .next = s->nodes[at].child, .depth = (uint16_t)(i + 1), .byte = string.ptr[i] };
            s->nodes[at].child = child;
        }
        at = child;
    }
    if (s->nodes[at].match == 0)
        s->nodes[at].match = (uint8_t)(index + 1);
}

/* Fail links, the shallow nodes first.  A node without a string of its own that ends there has that of its fail link: shorter, but as much of an end. */
static void link_fails(sluice_stop_strings *s, size_t longest)
{
    for (size_t depth = 1; depth <= longest; depth++)
        for (uint32_t node = 0; node < s->n_nodes; node++) {
            if (s->nodes[node].depth + 1u != depth)
                continue;
            for (uint32_t child = s->nodes[node].child; child != 0; child = s->nodes[child].next) {
                sluice_stop_node *c = &s->nodes[child];

                c->fail = node == 0 ? 0 : step(s, s->nodes[node].fail, c->byte);
                if (c->match == 0)
                    c->match = s->nodes[c->fail].match;
            }
        }
}

sluice_status sluice_stop_strings_init(sluice_stop_strings *s, const sluice_span *strings, size_t n, bool whole_code_points,
                                       const sluice_allocator *al, sluice_error *err)
{
    size_t bytes = 0, longest = 0;

    memset(s, 0, sizeof *s);
    s->al = al;
    s->whole_code_points = whole_code_points;
    if (n > SLUICE_STOP_STRINGS_MAX)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "stop strings: %zu of them; the most is %d", n, SLUICE_STOP_STRINGS_MAX);
    for (size_t i = 0; i < n; i++) {
        if (strings[i].len == 0)
            return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "stop strings: number %zu is empty", i);
        if (strings[i].len > SLUICE_STOP_STRING_BYTES_MAX)
            return sluice_error_set(err, SLUICE_ERR_LIMIT, "stop strings: number %zu has %zu bytes; the most is %d", i, strings[i].len,
                                    SLUICE_STOP_STRING_BYTES_MAX);
        bytes += strings[i].len;
        s->lengths[i] = (uint16_t)strings[i].len;
        longest = strings[i].len > longest ? strings[i].len : longest;
    }
    if (n == 0)
        return SLUICE_OK;
    s->nodes = sluice_alloc_array(al, bytes + 1, sizeof *s->nodes);
    if (s->nodes == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "stop strings: no memory for %zu bytes", bytes);
    s->n_nodes_max = bytes + 1;
    s->n_nodes = 1;
    for (size_t i = 0; i < n; i++)
        add(s, strings[i], (uint32_t)i);
    link_fails(s, longest);
    return SLUICE_OK;
}

void sluice_stop_strings_deinit(sluice_stop_strings *s)
{
    if (s->nodes != NULL)
        sluice_free_wiped(s->al, s->nodes, s->n_nodes_max * sizeof *s->nodes);
    sluice_wipe(s, sizeof *s);
}

void sluice_stop_strings_reset(sluice_stop_strings *s)
{
    s->at = 0;
    s->has_stopped = false;
    s->n_held = 0;
    sluice_wipe(s->held, sizeof s->held);
}

/* Let the first n held bytes out. */
static void let_out(sluice_stop_strings *s, uint32_t n, sluice_stop_text_fn emit, void *user)
{
    if (n == 0)
        return;
    emit(sluice_span_of(s->held, n), user);
    s->n_held -= n;
    memmove(s->held, s->held + n, s->n_held);
}

/* Bytes at the end of the text that may become a stop string. */
static uint32_t depth_of(const sluice_stop_strings *s)
{
    return s->nodes != NULL ? s->nodes[s->at].depth : 0;
}

/* What of the first n held bytes may be shown: all, or up to a code point that is not whole. */
static uint32_t showable(const sluice_stop_strings *s, uint32_t n)
{
    return s->whole_code_points ? (uint32_t)sluice_utf8_whole(sluice_span_of(s->held, n)) : n;
}

bool sluice_stop_strings_push(sluice_stop_strings *s, sluice_span text, sluice_stop_text_fn emit, void *user)
{
    if (s->has_stopped)
        return true;
    for (size_t i = 0; i < text.len; i++) {
        if (s->n_held == SLUICE_STOP_HELD_MAX) /* at least 5 bytes are no part of the state, and at most 3 of these of a cut code point */
            let_out(s, showable(s, s->n_held - depth_of(s)), emit, user);
        s->held[s->n_held++] = text.ptr[i];
        if (s->nodes == NULL)
            continue;
        s->at = step(s, s->at, text.ptr[i]);
        if (s->nodes[s->at].match == 0)
            continue;
        s->has_stopped = true;
        s->stopped_by = s->nodes[s->at].match - 1u;
        s->n_held -= s->lengths[s->stopped_by]; /* nothing of it was let out: it is a suffix of the state's string, or that string */
        let_out(s, s->n_held, emit, user);
        return true;
    }
    let_out(s, showable(s, s->n_held - depth_of(s)), emit, user);
    return false;
}

void sluice_stop_strings_flush(sluice_stop_strings *s, sluice_stop_text_fn emit, void *user)
{
    let_out(s, s->n_held, emit, user);
}
