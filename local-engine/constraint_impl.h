/* constraint_impl.h - what a schema compiles to, and what the compiler and the automaton share.
 *
 *   schema ──constraint_schema.c──► grammar: nodes, choices, literals, DFAs ──constraint.c──► threads over bytes ──► tokens
 *                 └─constraint_regex.c (pattern, format)                          └─constraint_vocab.c (tries, classes of tokens)
 *
 * A node is one kind of value with its limits; a choice is a list of nodes, any of which may come.  Where several fit the bytes so far, they run in parallel as
 * threads; each thread is a stack of frames, one for each value that is open.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_CONSTRAINT_IMPL_H
#define SLUICE_LOCAL_ENGINE_CONSTRAINT_IMPL_H

#include "local-engine/constraint.h"

#define SLUICE_COST_NEVER UINT32_MAX    /* tokens to finish: it cannot be finished */

enum {
    SLUICE_CHOICE_NONE = 0xffffff,
    SLUICE_OBJECT_MAX_PROPERTIES = 128,     /* bits in a frame */
    SLUICE_OBJECT_MAX_FREE_KEYS = 48,       /* keys of additional properties in one object … */
    SLUICE_OBJECT_MAX_NAMES_BESIDE = 44,    /* … beside at most so many named ones: together fewer than the 93 plain characters, so that a key which
                                             * is taken can always be made another by one character more */
    SLUICE_NUMBER_DIGITS = 15,              /* decimal numbers of 15 digits survive being a double */
    SLUICE_NUMBER_SCALE_MAX = 9
};

static inline uint32_t sluice_cost_add(uint32_t a, uint32_t b)
{
    return a >= SLUICE_COST_NEVER - b ? SLUICE_COST_NEVER : a + b;
}

/* ---- vocabulary */

enum { SLUICE_TRIE_NO_TOKEN = 0xffffff, SLUICE_VOCAB_MAX_ENDS = 32 };

/* Tries lie in preorder: the first child follows its node, and `end` is where the subtree stops.  Tokens with equal bytes are siblings with equal bytes. */
typedef struct sluice_trie_node {
    uint32_t end;
    uint32_t token : 24;
    uint32_t byte : 8;
} sluice_trie_node;

typedef struct sluice_trie { sluice_trie_node *nodes; uint32_t n; } sluice_trie;

/* Places inside a JSON string: sluice_string_step(). */
enum {
    SLUICE_STR_GROUND = 0,
    SLUICE_STR_ESCAPE = 8,
    SLUICE_STR_STATES = 25,
    SLUICE_STR_QUOTE = 0xfe,    /* the closing quote */
    SLUICE_STR_DEAD = 0xff
};

struct sluice_constraint_vocab {
    const sluice_allocator *al;
    const sluice_tokenizer *tokenizer;
    size_t bytes;               /* of all blocks */
    uint32_t n_vocab;
    sluice_trie all;            /* every token that has a text of at most SLUICE_CONSTRAINT_MAX_TOKEN_BYTES */
    uint32_t first[257];        /* children of the root of `all`, by byte: where they begin; equal to the next where there are none */
    sluice_trie quote;          /* every token that holds a quote */
    sluice_trie after_quote;    /* the same by what follows their first quote, for those that begin in the string's ground state; tokens with an equal rest
                                 * are siblings */
    uint32_t n_quote;           /* tokens in `quote` */
    uint32_t n_quote_alone;     /* the tokens that end with their first quote: they have no rest */
    uint32_t *quote_alone;
    uint8_t *string_end;        /* (n_vocab) where a token leaves a string that it begins in its ground state; SLUICE_STR_QUOTE: closes it; _DEAD */
    uint8_t *string_chars;      /* (n_vocab) code points begun and ended in it, up to its end */
    uint32_t *string_mask;      /* tokens that stay in a string */
    uint32_t *key_mask;         /* those of them without a backslash */
    uint32_t ends[SLUICE_VOCAB_MAX_ENDS], n_ends; /* end tokens */
    bool spells[256];           /* there is a token of this one byte */
    bool spells_utf8;           /* all continuation bytes are spelled, so a code point can be left unfinished */
    uint8_t string_next[SLUICE_STR_STATES][256];
};

static inline uint32_t sluice_mask_words(uint32_t n_vocab)
{
    return (n_vocab + 31) / 32;
}

/* Bytes that bring a string from a state to its ground state. */
extern const uint8_t sluice_string_rest[SLUICE_STR_STATES];

/* ---- grammar */

typedef enum sluice_node_kind {
    SLUICE_NODE_STRING,     /* any string, with limits of length */
    SLUICE_NODE_PATTERN,    /* a string that a DFA over its JSON spelling accepts */
    SLUICE_NODE_NUMBER,     /* any number */
    SLUICE_NODE_DECIMAL,    /* a decimal number in a range, perhaps a multiple; integers */
    SLUICE_NODE_LITERALS,   /* one of a sorted list of spellings */
    SLUICE_NODE_OBJECT,
    SLUICE_NODE_ARRAY,
    SLUICE_NODE_SEQUENCE,   /* one of some texts, the value that goes with it, a text: the root, and calls of tools */
    SLUICE_NODE_TEXT        /* free text that may lead into a sequence */
} sluice_node_kind;

/* Bytes, and for each place in them the fewest tokens that spell the rest: costs[len] is 0. */
typedef struct sluice_literal {
    uint8_t *bytes;
    uint16_t *costs;        /* (len + 1) */
    uint32_t len;
} sluice_literal;

typedef struct sluice_property {
    sluice_literal text;    /* "name": with both quotes and the colon */
    uint32_t choice;
    bool is_required;
} sluice_property;

typedef struct sluice_dfa {
    uint32_t n_states, n_classes;
    uint8_t classes[256];
    uint16_t *next;         /* (n_states, n_classes); 0 is the dead state, 1 the start */
    uint16_t *rest;         /* (n_states) fewest bytes to an accepting state; UINT16_MAX: none */
    bool *accepts;
} sluice_dfa;

typedef struct sluice_node {
    sluice_node_kind kind;
    uint32_t cost, depth;   /* fewest tokens for a whole value, by the way that the constraint finishes by; containers inside each other on that way */
    uint32_t min, max;      /* code points, items or properties; UINT32_MAX: no limit.  Literals: max is how deep they nest */
    const sluice_dfa *dfa;
    /* numbers, in units of 10^-scale */
    int64_t low, high;
    uint32_t scale;
    uint64_t steps[SLUICE_NUMBER_SCALE_MAX + 1]; /* with f digits after the point, a multiple of steps[f]; 0: none but zero */
    /* literals in the order of their bytes; a sequence's end; the begin mark of TEXT */
    sluice_literal *literals;
    uint32_t n_literals;
    uint16_t *fails;        /* TEXT: longest border of each prefix of literals[0] */
    /* objects: properties in the order of their text; sequences: what they may begin with; arrays: choices of the first items */
    sluice_property *properties;
    uint16_t *by_cost;      /* indices of properties that need not come, the cheapest first */
    uint32_t n_properties, n_required, n_by_cost;
    uint32_t *prefix;
    uint32_t n_prefix;
    bool has_escapes;       /* a property's name is spelled with a backslash */
    uint32_t sequence;      /* TEXT: the node that the begin mark leads into */
    uint32_t rest_choice;   /* additional properties, or items after the prefix; SLUICE_CHOICE_NONE */
} sluice_node;

typedef struct sluice_choice {
    uint32_t *nodes;
    uint32_t n;
    uint32_t cost, depth;   /* of the cheapest */
} sluice_choice;

typedef struct sluice_grammar {
    sluice_arena arena;
    sluice_node *nodes;
    uint32_t n_nodes, n_nodes_max;
    sluice_choice *choices;
    uint32_t n_choices, n_choices_max;
    uint32_t root;          /* a node */
} sluice_grammar;

/* What the root is. */
typedef struct sluice_grammar_source {
    sluice_span json;
    bool is_tools;
    sluice_tool_choice tool_choice;
    const char *tool_name;
    const sluice_tool_format *format;   /* NULL: none */
} sluice_grammar_source;

/* On failure there is nothing to release. */
sluice_status sluice_grammar_compile(sluice_grammar *g, const sluice_constraint_vocab *v, const sluice_grammar_source *source, const sluice_allocator *al,
                                     sluice_error *err);
void sluice_grammar_deinit(sluice_grammar *g);

/* Costs that depend on each other, in constraint.c beside those of open values: tokens for a node from its start, by the costs that choices have now. */
void sluice_node_estimate(const sluice_grammar *g, const sluice_constraint_vocab *v, const sluice_node *node, uint32_t *cost, uint32_t *depth);

/* Costs of a literal from the vocabulary.  SLUICE_ERR_UNSUPPORTED when a byte of it has no token. */
sluice_status sluice_literal_cost(const sluice_constraint_vocab *v, sluice_literal *l, sluice_error *err);

/* ECMA-262 pattern to a DFA over the JSON spelling of a string, closing quote not included.  The memory is of `arena`, scratch of `al`.  min and max: code points.
 * *work is what may be spent, in states looked at, and then what is left of it.
 * SLUICE_ERR_UNSUPPORTED for what no DFA can do or what is not understood, _FORMAT, _LIMIT. */
#define SLUICE_REGEX_WORK 30000000u
sluice_status sluice_regex_compile(sluice_dfa **out, sluice_span pattern, uint32_t min, uint32_t max, const sluice_constraint_vocab *v, sluice_arena *arena,
                                   const sluice_allocator *al, uint64_t *work, sluice_error *err);

static inline uint64_t sluice_key_hash_start(void)
{
    return 0xcbf29ce484222325u;
}

/* FNV-1a; keys are compared by 64 bits, and a collision only forbids a key that could have been allowed. */
static inline uint64_t sluice_key_hash(uint64_t hash, uint8_t byte)
{
    return (hash ^ byte) * 0x100000001b3u;
}

#endif
