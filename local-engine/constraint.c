/* constraint.c - the automaton: threads over bytes, what it costs to finish, and which tokens that allows.
 *
 * A thread is a stack of frames, one for each value that is open; its top is held by value, the frames below lie in a pool and are never changed there, so
 * threads share them and a step is undone by forgetting.  Within one thread everything is decided by the next byte; only where a choice has several
 * nodes that begin with that byte does a thread become several (anyOf), at most N_THREADS of them, and equal ones become one again.
 *
 *   frame:  SEQUENCE ─► OBJECT ─► ARRAY ─► STRING      the text so far: {"a":[1,"xy
 *                        next `,}`  next `,]`  at a character
 *
 * Every frame knows how many tokens finish what is below it (`after`), so the cost of a thread is that of its top and one addition.  The cost is an upper bound
 * with one property that everything rests on: from any state that costs n > 0, some token leads to one that costs at most n - 1.  The
 * budget rule (a token is allowed if what follows costs no more than the tokens left) therefore always leaves a token, down to the end.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/constraint_impl.h"

#include <inttypes.h>

enum {
    N_THREADS = 64,  /* as many as one value may have alternatives that begin alike: none of them may be lost */
    N_FRAMES = 4096, /* live ones: at most N_THREADS * (SLUICE_CONSTRAINT_MAX_DEPTH + 2) = 2176; the others are for the bytes of one token */
    N_KEYS = 1024,
    KEYS_RESERVE = 96, /* left for keys that have been begun */
    N_WALK = (SLUICE_CONSTRAINT_MAX_TOKEN_BYTES + 1) * N_THREADS,
    N_CACHED = 8,
    FORCED_BYTES_MAX = 256
};

#define NONE UINT32_MAX

typedef struct frame {
    uint64_t used[2];      /* properties that have come, by index */
    uint64_t value;        /* number: its digits so far; key: hash of its bytes so far */
    uint32_t node, parent; /* NONE: the text has ended; the root */
    uint32_t lo, hi,
        pos;        /* literals, properties that may still be meant, and how far; pattern: state in lo; object before a value: its choice in lo */
    uint32_t count; /* code points, digits, items, properties */
    uint32_t keys;  /* free keys of the object: a list */
    uint32_t after; /* tokens that finish what is below */
    uint8_t state, sub, space, depth;
    uint8_t flag, n_free;
    uint16_t unused;
} frame;

_Static_assert(sizeof(frame) == 64, "frames are compared as bytes: no padding");

typedef struct key_node {
    uint64_t hash;
    uint32_t next, unused;
} key_node;

typedef struct pool {
    frame *frames;
    key_node *keys;
    uint32_t n_frames, n_keys;
} pool;

typedef struct cached_mask {
    uint32_t node, lo, pos;
    uint8_t state, sub;
    bool is_set;
    uint32_t cost_max; /* of the states that its tokens lead to, without `after` */
    uint32_t *bits;
} cached_mask;

struct sluice_constraint {
    const sluice_allocator *al;
    sluice_allocator allocator;
    const sluice_constraint_vocab *v;
    sluice_constraint_vocab *own_vocab;
    sluice_grammar g;
    frame threads[N_THREADS];
    uint32_t n_threads;
    uint32_t left; /* tokens; UINT32_MAX: no budget */
    pool live, other;
    frame *walk;       /* (N_WALK) */
    uint32_t *forward; /* (N_FRAMES + N_KEYS) */
    cached_mask cached[N_CACHED];
    uint32_t next_cached;
    bool has_cache;
};

enum { SEQ_BEGIN, SEQ_VALUE, SEQ_END };
enum { TEXT_START, TEXT_FREE };
enum { OBJ_OPEN, OBJ_KEY, OBJ_COLON, OBJ_VALUE, OBJ_NEXT, OBJ_COMMA };
enum { ARR_OPEN, ARR_NEXT, ARR_COMMA };
enum { NUM_MINUS, NUM_ZERO, NUM_INT, NUM_POINT, NUM_FRAC, NUM_E, NUM_SIGN, NUM_EXP };
enum { DEC_MINUS, DEC_INT, DEC_FRAC };
enum { FLAG_FREE_KEY = 1, FLAG_NEGATIVE = 1 };

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* ---- costs: literals, numbers ------------------------------------------------------------------------- */

sluice_status sluice_literal_cost(const sluice_constraint_vocab *v, sluice_literal *l, sluice_error *err)
{
    l->costs[l->len] = 0;
    for (uint32_t at = l->len; at-- > 0;) {
        uint32_t best = UINT16_MAX, node = v->first[l->bytes[at]], end = v->first[l->bytes[at] + 1u];

        if (!v->spells[l->bytes[at]])
            return sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "constraint: the vocabulary has no token for the single byte 0x%02x", l->bytes[at]);
        for (uint32_t depth = 0; node < end && at + depth < l->len;) {
            if (v->all.nodes[node].byte != l->bytes[at + depth]) {
                node = v->all.nodes[node].end;
                continue;
            }
            if (v->all.nodes[node].token != SLUICE_TRIE_NO_TOKEN)
                best = least(best, 1u + l->costs[at + depth + 1]);
            if (v->all.nodes[node].end == node + 1) { /* a leaf: perhaps one of several with the same bytes */
                node++;
                continue;
            }
            end = v->all.nodes[node].end;
            node++;
            depth++;
        }
        l->costs[at] = (uint16_t)best;
    }
    return SLUICE_OK;
}

static uint64_t power_of_ten(uint32_t n)
{
    uint64_t p = 1;

    while (n-- > 0)
        p *= 10;
    return p;
}

/* Is there a multiple of step in [low, high] and [min, max]?  Step 0: zero alone. */
static bool has_multiple(uint64_t low, uint64_t high, uint64_t min, uint64_t max, uint64_t step)
{
    low = low > min ? low : min;
    high = high < max ? high : max;
    if (low > high)
        return false;
    return step == 0 ? low == 0 : high / step * step >= low;
}

/* Digits, and a point, that are still needed for a decimal number to be in its range; SLUICE_COST_NEVER: it cannot be any more.
 * A prefix stands for all numbers that begin with it: k digits more before the point, and then f after it. */
static uint32_t decimal_rest(const sluice_node *node, uint32_t state, bool negative, uint64_t value, uint32_t n_digits, uint32_t n_fraction)
{
    const uint32_t digits_max = SLUICE_NUMBER_DIGITS - node->scale;
    const uint64_t unit = power_of_ten(node->scale);
    uint32_t best = SLUICE_COST_NEVER;
    uint64_t min, max;

    if (negative) { /* never minus zero */
        if (node->low >= 0)
            return SLUICE_COST_NEVER;
        min = node->high < 0 ? (uint64_t)-node->high : 1;
        max = (uint64_t)-node->low;
    } else {
        if (node->high < 0)
            return SLUICE_COST_NEVER;
        min = node->low > 0 ? (uint64_t)node->low : 0;
        max = (uint64_t)node->high;
    }
    if (state == DEC_FRAC) {
        const uint64_t each = power_of_ten(node->scale - n_fraction);

        for (uint32_t f = n_fraction > 0 ? n_fraction : 1; f <= node->scale; f++)
            if (has_multiple(value * each, value * each + each - 1, min, max, node->steps[f]))
                return f - n_fraction;
        return SLUICE_COST_NEVER;
    }
    for (uint32_t k = state == DEC_MINUS ? 1 : 0; n_digits + k <= digits_max && k < best; k++) {
        const uint64_t more = power_of_ten(k);
        const uint64_t low = state != DEC_MINUS ? value * more : k == 1 ? 0 : more / 10;
        const uint64_t high = state != DEC_MINUS ? low + more - 1 : more - 1;

        if (k > 0 && state == DEC_INT && value == 0)
            break; /* no digit follows a leading zero */
        for (uint32_t f = 0; f <= node->scale; f++)
            if (has_multiple(low * unit, high * unit + (f > 0 ? unit - 1 : 0), min, max, node->steps[f])) {
                best = least(best, k + (f > 0 ? 1 + f : 0));
                break;
            }
    }
    return best;
}

static uint32_t number_rest(uint32_t state)
{
    return state == NUM_MINUS || state == NUM_POINT || state == NUM_E || state == NUM_SIGN ? 1 : 0;
}

/* ---- costs: what is open ------------------------------------------------------------------------------ */

/* A value of this choice inside `depth` containers. */
static uint32_t choice_cost(const sluice_grammar *g, uint32_t id, uint32_t depth)
{
    const sluice_choice *choice;
    uint32_t cost = SLUICE_COST_NEVER;

    if (id == SLUICE_CHOICE_NONE)
        return SLUICE_COST_NEVER;
    choice = &g->choices[id];
    if (depth + choice->depth <= SLUICE_CONSTRAINT_MAX_DEPTH)
        return choice->cost;
    for (uint32_t i = 0; i < choice->n; i++)
        if (depth + g->nodes[choice->nodes[i]].depth <= SLUICE_CONSTRAINT_MAX_DEPTH)
            cost = least(cost, g->nodes[choice->nodes[i]].cost);
    return cost;
}

static bool is_used(const frame *f, uint32_t i)
{
    return f->used[i / 64] >> i % 64 & 1;
}

static void use(frame *f, uint32_t i)
{
    f->used[i / 64] |= (uint64_t)1 << i % 64;
}

static uint32_t n_missing(const sluice_node *node, const frame *f)
{
    uint32_t n = 0;

    for (uint32_t i = 0; n < node->n_required && i < node->n_properties; i++)
        n += node->properties[i].is_required && !is_used(f, i);
    return n;
}

/* May a free key begin in this object?  (A key more, besides those that must come.) */
static bool takes_free_key(const sluice_grammar *g, const sluice_node *node, const frame *f, uint32_t missing)
{
    return node->rest_choice != SLUICE_CHOICE_NONE && f->n_free < SLUICE_OBJECT_MAX_FREE_KEYS && (uint64_t)f->count + missing < node->max &&
           choice_cost(g, node->rest_choice, f->depth) != SLUICE_COST_NEVER;
}

static bool takes_property(const sluice_grammar *g, const sluice_node *node, const frame *f, uint32_t i, uint32_t missing)
{
    const sluice_property *p = &node->properties[i];

    return !is_used(f, i) && (p->is_required || (uint64_t)f->count + missing < node->max) && choice_cost(g, p->choice, f->depth) != SLUICE_COST_NEVER;
}

static uint32_t property_cost(const sluice_grammar *g, const frame *f, const sluice_property *p)
{
    return sluice_cost_add(p->text.costs[0], choice_cost(g, p->choice, f->depth));
}

/* A free key with its value: two quotes, a character if the empty key is taken, a colon. */
static uint32_t free_cost(const sluice_grammar *g, const sluice_node *node, const frame *f)
{
    return sluice_cost_add(4, choice_cost(g, node->rest_choice, f->depth));
}

/* After `count` members of an object: those that must still come, each with a comma, and the brace. */
static uint32_t object_rest(const sluice_grammar *g, const sluice_node *node, const frame *f)
{
    const uint32_t missing = n_missing(node, f);
    uint32_t cost = 1, fill, more = missing;

    for (uint32_t i = 0; missing > 0 && i < node->n_properties; i++)
        if (node->properties[i].is_required && !is_used(f, i))
            cost = sluice_cost_add(cost, sluice_cost_add(1, property_cost(g, f, &node->properties[i])));
    fill = f->count + missing < node->min ? node->min - f->count - missing : 0;
    more += fill;
    for (uint32_t i = 0; fill > 0 && i < node->n_by_cost; i++) {
        const sluice_property *p = &node->properties[node->by_cost[i]];

        if (is_used(f, node->by_cost[i]) || choice_cost(g, p->choice, f->depth) == SLUICE_COST_NEVER)
            continue;
        cost = sluice_cost_add(cost, sluice_cost_add(1, property_cost(g, f, p)));
        fill--;
    }
    if (fill > 0 && (node->rest_choice == SLUICE_CHOICE_NONE || f->n_free + fill > SLUICE_OBJECT_MAX_FREE_KEYS))
        return SLUICE_COST_NEVER;
    while (fill-- > 0)
        cost = sluice_cost_add(cost, sluice_cost_add(1, free_cost(g, node, f)));
    return f->count == 0 && more > 0 && cost != SLUICE_COST_NEVER ? cost - 1 : cost; /* the first has no comma */
}

/* What a property costs from where its key stands, with the rest of the object. */
static uint32_t cost_with(const sluice_grammar *g, const sluice_node *node, const frame *f, uint32_t i, uint32_t pos)
{
    frame then = *f;

    use(&then, i);
    then.count++;
    return sluice_cost_add(sluice_cost_add(node->properties[i].text.costs[pos], choice_cost(g, node->properties[i].choice, f->depth)),
                           object_rest(g, node, &then));
}

static bool is_taken(const pool *p, const frame *f, uint64_t hash)
{
    for (uint32_t k = f->keys; k != NONE; k = p->keys[k].next)
        if (p->keys[k].hash == hash)
            return true;
    return false;
}

/* Is the key, as it is, a named property?  Names are sorted and end in a quote, so it is the one with the quote next. */
static uint32_t named(const sluice_node *node, const frame *f)
{
    for (uint32_t i = f->lo; i < f->hi; i++)
        if (node->properties[i].text.bytes[f->pos] == '"' && f->pos == node->properties[i].text.len - 2)
            return i;
    return NONE;
}

static uint32_t free_key_rest(const sluice_constraint *c, const sluice_node *node, const frame *f)
{
    frame then = *f;
    uint32_t cost = sluice_string_rest[f->sub] + 2u;

    if (f->sub != SLUICE_STR_GROUND) {
        if (!c->v->spells_utf8)
            return SLUICE_COST_NEVER;
        cost++; /* perhaps the character makes it a key that is taken */
    } else if (is_taken(&c->live, f, f->value) || named(node, f) != NONE) {
        cost++;
    }
    then.count++;
    then.n_free++;
    cost = sluice_cost_add(cost, choice_cost(&c->g, node->rest_choice, f->depth));
    return sluice_cost_add(cost, object_rest(&c->g, node, &then));
}

/* `enough`: a cost at or below it need not be the least. */
static uint32_t object_cost(const sluice_constraint *c, const sluice_node *node, const frame *f, uint32_t enough)
{
    const sluice_grammar *g = &c->g;
    uint32_t cost = SLUICE_COST_NEVER, missing;

    switch (f->state) {
    case OBJ_COLON: return sluice_cost_add(1, sluice_cost_add(choice_cost(g, node->rest_choice, f->depth), object_rest(g, node, f)));
    case OBJ_VALUE: return sluice_cost_add(choice_cost(g, f->lo, f->depth), object_rest(g, node, f));
    case OBJ_KEY:
        if (f->flag & FLAG_FREE_KEY)
            cost = free_key_rest(c, node, f);
        missing = n_missing(node, f);
        for (uint32_t i = f->lo; i < f->hi && cost > enough; i++)
            if (takes_property(g, node, f, i, missing))
                cost = least(cost, cost_with(g, node, f, i, f->pos));
        return cost;
    case OBJ_COMMA:
        missing = n_missing(node, f);
        if (missing > 0 || f->count < node->min) {
            cost = object_rest(g, node, f);
            return cost == SLUICE_COST_NEVER ? cost : cost - 1;
        }
        if (takes_free_key(g, node, f, missing))
            cost = sluice_cost_add(1, free_cost(g, node, f));
        for (uint32_t i = 0; i < node->n_properties && cost > enough; i++)
            if (takes_property(g, node, f, i, missing))
                cost = least(cost, sluice_cost_add(1, property_cost(g, f, &node->properties[i])));
        return cost;
    default: return object_rest(g, node, f); /* OBJ_OPEN, OBJ_NEXT */
    }
}

static uint32_t item_choice(const sluice_node *node, uint32_t i)
{
    return i < node->n_prefix ? node->prefix[i] : node->rest_choice;
}

/* Items from `count` on, each with a comma, and the bracket. */
static uint32_t array_rest(const sluice_grammar *g, const sluice_node *node, const frame *f, uint32_t count)
{
    uint32_t cost = 1;

    for (; count < node->min && count < node->n_prefix; count++)
        cost = sluice_cost_add(cost, sluice_cost_add(1, choice_cost(g, node->prefix[count], f->depth)));
    if (count < node->min) {
        const uint64_t each = sluice_cost_add(1, choice_cost(g, node->rest_choice, f->depth));
        const uint64_t all = each * (node->min - count);

        cost = all >= SLUICE_COST_NEVER ? SLUICE_COST_NEVER : sluice_cost_add(cost, (uint32_t)all);
    }
    return cost;
}

static uint32_t array_cost(const sluice_grammar *g, const sluice_node *node, const frame *f)
{
    uint32_t cost;

    if (f->state == ARR_COMMA)
        return sluice_cost_add(choice_cost(g, item_choice(node, f->count), f->depth), array_rest(g, node, f, f->count + 1));
    cost = array_rest(g, node, f, f->count);
    return f->state == ARR_OPEN && node->min > 0 && cost != SLUICE_COST_NEVER ? cost - 1 : cost;
}

static uint32_t string_cost(const sluice_constraint_vocab *v, const sluice_node *node, uint32_t sub, uint32_t count)
{
    if (sub != SLUICE_STR_GROUND) {
        if (sub < SLUICE_STR_ESCAPE && !v->spells_utf8)
            return SLUICE_COST_NEVER;
        count++;
    }
    return sluice_cost_add(1u + sluice_string_rest[sub], count < node->min ? node->min - count : 0);
}

/* Tokens that finish the value of a frame. */
static uint32_t frame_cost(const sluice_constraint *c, const frame *f, uint32_t enough)
{
    const sluice_node *node;
    uint32_t cost = SLUICE_COST_NEVER;

    if (f->node == NONE)
        return 0;
    node = &c->g.nodes[f->node];
    switch (node->kind) {
    case SLUICE_NODE_STRING: return string_cost(c->v, node, f->sub, f->count);
    case SLUICE_NODE_PATTERN: return node->dfa->rest[f->lo] == UINT16_MAX ? SLUICE_COST_NEVER : 1u + node->dfa->rest[f->lo];
    case SLUICE_NODE_NUMBER: return number_rest(f->state);
    case SLUICE_NODE_DECIMAL: return decimal_rest(node, f->state, (f->flag & FLAG_NEGATIVE) != 0, f->value, f->count, f->sub);
    case SLUICE_NODE_LITERALS:
        for (uint32_t i = f->lo; i < f->hi && cost > enough; i++)
            cost = least(cost, node->literals[i].costs[f->pos]);
        return cost;
    case SLUICE_NODE_OBJECT: return object_cost(c, node, f, enough);
    case SLUICE_NODE_ARRAY: return array_cost(&c->g, node, f);
    case SLUICE_NODE_SEQUENCE:
        if (f->state == SEQ_END)
            return node->literals[0].costs[f->pos];
        if (f->state == SEQ_VALUE)
            return sluice_cost_add(choice_cost(&c->g, f->lo, f->depth), node->literals[0].costs[0]);
        for (uint32_t i = f->lo; i < f->hi && cost > enough; i++)
            cost = least(cost, sluice_cost_add(
                                   sluice_cost_add(node->properties[i].text.costs[f->pos], choice_cost(&c->g, node->properties[i].choice, f->depth)),
                                   node->literals[0].costs[0]));
        return cost;
    case SLUICE_NODE_TEXT:
    default: return f->sub == SLUICE_STR_GROUND ? 0 : c->v->spells_utf8 ? sluice_string_rest[f->sub] : SLUICE_COST_NEVER;
    }
}

static uint32_t thread_cost(const sluice_constraint *c, const frame *f, uint32_t enough)
{
    return sluice_cost_add(frame_cost(c, f, enough > f->after ? enough - f->after : 0), f->after);
}

void sluice_node_estimate(const sluice_grammar *g, const sluice_constraint_vocab *v, const sluice_node *node, uint32_t *cost, uint32_t *depth)
{
    const frame start = { .keys = NONE };
    uint32_t fill;

    *depth = 0;
    *cost = SLUICE_COST_NEVER;
    switch (node->kind) {
    case SLUICE_NODE_STRING: *cost = sluice_cost_add(1, string_cost(v, node, SLUICE_STR_GROUND, 0)); break;
    case SLUICE_NODE_PATTERN: *cost = node->dfa->rest[1] == UINT16_MAX ? SLUICE_COST_NEVER : 2u + node->dfa->rest[1]; break;
    case SLUICE_NODE_NUMBER: *cost = 1; break;
    case SLUICE_NODE_DECIMAL:
        *cost = least(decimal_rest(node, DEC_MINUS, false, 0, 0, 0), sluice_cost_add(1, decimal_rest(node, DEC_MINUS, true, 0, 0, 0)));
        break;
    case SLUICE_NODE_LITERALS:
        for (uint32_t i = 0; i < node->n_literals; i++)
            *cost = least(*cost, node->literals[i].costs[0]);
        *depth = node->max;
        break;
    case SLUICE_NODE_OBJECT:
        *cost = sluice_cost_add(1, object_rest(g, node, &start));
        fill = node->n_required < node->min ? node->min - node->n_required : 0;
        for (uint32_t i = 0; i < node->n_properties; i++)
            if (node->properties[i].is_required && g->choices[node->properties[i].choice].depth > *depth)
                *depth = g->choices[node->properties[i].choice].depth;
        for (uint32_t i = 0; fill > 0 && i < node->n_by_cost; i++) {
            const sluice_choice *choice = &g->choices[node->properties[node->by_cost[i]].choice];

            if (choice->cost == SLUICE_COST_NEVER)
                continue;
            *depth = choice->depth > *depth ? choice->depth : *depth;
            fill--;
        }
        if (fill > 0 && node->rest_choice != SLUICE_CHOICE_NONE && g->choices[node->rest_choice].depth > *depth)
            *depth = g->choices[node->rest_choice].depth;
        ++*depth;
        break;
    case SLUICE_NODE_ARRAY:
        *cost = array_rest(g, node, &start, 0);
        *cost = node->min == 0 ? 2 : *cost; /* the bracket that opens it and the comma that the first item lacks are one each */
        for (uint32_t i = 0; i < node->min && i <= node->n_prefix; i++)
            if (item_choice(node, i) != SLUICE_CHOICE_NONE && g->choices[item_choice(node, i)].depth > *depth)
                *depth = g->choices[item_choice(node, i)].depth;
        ++*depth;
        break;
    case SLUICE_NODE_SEQUENCE:
        for (uint32_t i = 0; i < node->n_properties; i++) {
            const sluice_choice *choice = &g->choices[node->properties[i].choice];
            const uint32_t all = sluice_cost_add(sluice_cost_add(node->properties[i].text.costs[0], choice->cost), node->literals[0].costs[0]);

            if (all < *cost) {
                *cost = all;
                *depth = choice->depth + 1;
            }
        }
        break;
    case SLUICE_NODE_TEXT:
    default: *cost = 0; break;
    }
}

/* ---- steps -------------------------------------------------------------------------------------------- */

typedef enum outcome {
    DEAD,
    STAY,
    DONE,  /* the byte was the value's last */
    AGAIN, /* the value ended before the byte, which is its parent's */
    ENTER  /* a value begins with the byte */
} outcome;

static bool is_space(uint8_t b)
{
    return b == ' ' || b == '\n' || b == '\t' || b == '\r';
}

static outcome step_space(frame *f)
{
    if (f->space >= 8 + 4 * f->depth)
        return DEAD;
    f->space++;
    return STAY;
}

/* First of the sorted texts in [lo, hi) whose byte at `pos` is at least `b`; texts that end before pos come first. */
static uint32_t lower_literal(const sluice_literal *l, size_t stride, uint32_t lo, uint32_t hi, uint32_t pos, uint32_t b)
{
    while (lo < hi) {
        const uint32_t mid = lo + (hi - lo) / 2;
        const sluice_literal *m = (const sluice_literal *)(const void *)((const uint8_t *)l + mid * stride);

        if (pos >= m->len || m->bytes[pos] < b)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static void narrow(frame *f, const sluice_literal *l, size_t stride, uint8_t b)
{
    f->lo = lower_literal(l, stride, f->lo, f->hi, f->pos, b);
    f->hi = lower_literal(l, stride, f->lo, f->hi, f->pos, b + 1u);
    f->pos++;
}

static outcome step_literals(const sluice_node *node, frame *f, uint8_t b)
{
    const bool could_end = f->pos > 0 && node->literals[f->lo].len == f->pos;

    narrow(f, node->literals, sizeof *node->literals, b);
    if (f->lo == f->hi)
        return could_end ? AGAIN : DEAD;
    return f->hi - f->lo == 1 && node->literals[f->lo].len == f->pos ? DONE : STAY;
}

static outcome step_string(const sluice_constraint_vocab *v, const sluice_node *node, frame *f, uint8_t b)
{
    const uint8_t next = v->string_next[f->sub][b];

    if (next == SLUICE_STR_QUOTE)
        return f->count >= node->min ? DONE : DEAD;
    if (next == SLUICE_STR_DEAD || (f->sub == SLUICE_STR_GROUND && f->count >= node->max))
        return DEAD;
    f->sub = next;
    if (next == SLUICE_STR_GROUND)
        f->count++;
    return STAY;
}

static outcome step_pattern(const sluice_node *node, frame *f, uint8_t b)
{
    const sluice_dfa *dfa = node->dfa;
    const uint32_t next = dfa->next[f->lo * dfa->n_classes + dfa->classes[b]];

    if (next != 0) {
        f->lo = next;
        return STAY;
    }
    return b == '"' && dfa->accepts[f->lo] ? DONE : DEAD;
}

static outcome step_digit(uint32_t *n, uint32_t n_max)
{
    if (*n >= n_max)
        return DEAD;
    ++*n;
    return STAY;
}

/* At most 15 digits, 15 after the point and 2 of an exponent: every reader takes it, and no model can go on for ever. */
static outcome step_number(frame *f, uint8_t b)
{
    const bool is_digit = b >= '0' && b <= '9';
    const bool ends = f->state == NUM_ZERO || f->state == NUM_INT || f->state == NUM_FRAC || f->state == NUM_EXP;

    if (is_digit) {
        switch (f->state) {
        case NUM_MINUS:
            f->state = b == '0' ? NUM_ZERO : NUM_INT;
            f->count = 1;
            return STAY;
        case NUM_ZERO: return DEAD;
        case NUM_INT: return step_digit(&f->count, SLUICE_NUMBER_DIGITS);
        case NUM_POINT:
            f->state = NUM_FRAC;
            f->pos = 1;
            return STAY;
        case NUM_FRAC: return step_digit(&f->pos, SLUICE_NUMBER_DIGITS);
        case NUM_E:
        case NUM_SIGN:
            f->state = NUM_EXP;
            f->hi = 1;
            return STAY;
        default: return step_digit(&f->hi, 2);
        }
    }
    if (b == '.' && (f->state == NUM_ZERO || f->state == NUM_INT)) {
        f->state = NUM_POINT;
        return STAY;
    }
    if ((b == 'e' || b == 'E') && ends && f->state != NUM_EXP) {
        f->state = NUM_E;
        return STAY;
    }
    if ((b == '+' || b == '-') && f->state == NUM_E) {
        f->state = NUM_SIGN;
        return STAY;
    }
    return ends ? AGAIN : DEAD;
}

static outcome step_decimal(const sluice_node *node, frame *f, uint8_t b)
{
    const bool negative = (f->flag & FLAG_NEGATIVE) != 0;
    frame then = *f;

    if (b >= '0' && b <= '9') {
        then.value = f->value * 10 + (b - '0');
        if (f->state == DEC_FRAC) {
            if (f->sub >= node->scale)
                return DEAD;
            then.sub++;
        } else {
            if ((f->state == DEC_INT && f->value == 0) || f->count + node->scale >= SLUICE_NUMBER_DIGITS)
                return DEAD;
            then.state = DEC_INT;
            then.count++;
        }
    } else if (b == '.' && f->state == DEC_INT && node->scale > 0) {
        then.state = DEC_FRAC;
    } else {
        return f->state != DEC_MINUS && decimal_rest(node, f->state, negative, f->value, f->count, f->sub) == 0 ? AGAIN : DEAD;
    }
    if (decimal_rest(node, then.state, negative, then.value, then.count, then.sub) == SLUICE_COST_NEVER)
        return DEAD;
    *f = then;
    return STAY;
}

/* The key is whole: the value of `choice` comes next. */
static void take_key(frame *f, uint32_t state, uint32_t choice)
{
    f->count++;
    f->state = (uint8_t)state;
    f->lo = choice;
    f->hi = f->pos = 0;
    f->value = 0;
    f->flag = 0;
    f->sub = 0;
}

static outcome step_key(sluice_constraint *c, const sluice_node *node, frame *f, uint8_t b)
{
    const uint32_t missing = n_missing(node, f);
    const frame before = *f;
    uint8_t sub;

    if (f->lo < f->hi) {
        bool is_open = false;

        narrow(f, &node->properties[0].text, sizeof *node->properties, b);
        for (uint32_t i = f->lo; i < f->hi && !is_open; i++)
            is_open = takes_property(&c->g, node, f, i, missing);
        if (is_open && f->hi - f->lo == 1 && f->pos == node->properties[f->lo].text.len) {
            use(f, f->lo);
            take_key(f, OBJ_VALUE, node->properties[f->lo].choice);
            return STAY;
        }
        if (!is_open && !(f->flag & FLAG_FREE_KEY))
            return DEAD;
        if (b == '"' && f->lo < f->hi && f->pos == node->properties[f->lo].text.len - 1) { /* a named key is never free, used or not */
            f->flag = 0;
            return is_open ? STAY : DEAD;
        }
    }
    if (!(f->flag & FLAG_FREE_KEY))
        return f->lo < f->hi ? STAY : DEAD;
    sub = c->v->string_next[f->sub][b];
    if (b == '\\' || sub == SLUICE_STR_DEAD) { /* free keys have no escapes: each can be spelled in one way alone */
        f->flag = 0;
        return f->lo < f->hi && b == '\\' ? STAY : DEAD;
    }
    if (sub != SLUICE_STR_QUOTE) {
        f->sub = sub;
        f->value = sluice_key_hash(f->value, b);
        return STAY;
    }
    if (is_taken(&c->live, &before, before.value) || c->live.n_keys == N_KEYS)
        return DEAD;
    c->live.keys[c->live.n_keys] = (key_node){ before.value, f->keys, 0 };
    f->keys = c->live.n_keys++;
    f->n_free++;
    take_key(f, OBJ_COLON, node->rest_choice);
    return STAY;
}

static bool is_room_for_key(const sluice_constraint *c)
{
    return c->live.n_keys < N_KEYS - KEYS_RESERVE;
}

static outcome begin_key(sluice_constraint *c, const sluice_node *node, frame *f)
{
    const uint32_t missing = n_missing(node, f);
    bool is_open = false;

    f->lo = 0;
    f->hi = node->n_properties;
    f->pos = 1;
    f->state = OBJ_KEY;
    f->flag = takes_free_key(&c->g, node, f, missing) && is_room_for_key(c) ? FLAG_FREE_KEY : 0;
    f->value = sluice_key_hash_start();
    f->sub = SLUICE_STR_GROUND;
    f->space = 0;
    for (uint32_t i = 0; i < node->n_properties && !is_open; i++)
        is_open = takes_property(&c->g, node, f, i, missing);
    if (!is_open)
        f->hi = f->flag != 0 ? f->hi : 0; /* names stay in sight: a free key must not be one of them */
    return is_open || f->flag != 0 ? STAY : DEAD;
}

static outcome step_object(sluice_constraint *c, const sluice_node *node, frame *f, uint8_t b, uint32_t *choice)
{
    if (f->state == OBJ_KEY)
        return step_key(c, node, f, b);
    if (f->state == OBJ_COLON) {
        f->state = OBJ_VALUE;
        return b == ':' ? STAY : DEAD;
    }
    if (is_space(b))
        return step_space(f);
    f->space = 0;
    switch (f->state) {
    case OBJ_OPEN:
        if (b == '}')
            return node->min == 0 && node->n_required == 0 ? DONE : DEAD;
        return b == '"' ? begin_key(c, node, f) : DEAD;
    case OBJ_COMMA: return b == '"' ? begin_key(c, node, f) : DEAD;
    case OBJ_VALUE: *choice = f->lo; return ENTER;
    default: /* OBJ_NEXT */
        if (b == '}')
            return f->count >= node->min && n_missing(node, f) == 0 ? DONE : DEAD;
        if (b != ',')
            return DEAD;
        f->state = OBJ_COMMA;
        return object_cost(c, node, f, SLUICE_COST_NEVER - 1) != SLUICE_COST_NEVER ? STAY : DEAD;
    }
}

static outcome step_array(const sluice_constraint *c, const sluice_node *node, frame *f, uint8_t b, uint32_t *choice)
{
    if (is_space(b))
        return step_space(f);
    f->space = 0;
    if (b == ']' && f->state != ARR_COMMA)
        return f->count >= node->min ? DONE : DEAD;
    if (f->state == ARR_NEXT) {
        f->state = ARR_COMMA;
        return b == ',' && f->count < node->max && choice_cost(&c->g, item_choice(node, f->count), f->depth) != SLUICE_COST_NEVER ? STAY : DEAD;
    }
    if (f->count >= node->max)
        return DEAD;
    *choice = item_choice(node, f->count);
    f->count++;
    return *choice != SLUICE_CHOICE_NONE ? ENTER : DEAD;
}

static void begin_sequence_value(frame *f, uint32_t choice)
{
    f->state = SEQ_VALUE;
    f->lo = choice;
    f->hi = f->pos = 0;
}

static outcome step_sequence(const sluice_node *node, frame *f, uint8_t b, uint32_t *choice)
{
    if (f->state == SEQ_VALUE) {
        if (is_space(b))
            return step_space(f);
        f->space = 0;
        *choice = f->lo;
        return ENTER;
    }
    if (f->state == SEQ_END) {
        if (node->literals[0].bytes[f->pos] != b)
            return DEAD;
        f->pos++;
        return f->pos < node->literals[0].len ? STAY : DONE;
    }
    narrow(f, &node->properties[0].text, sizeof *node->properties, b);
    if (f->hi - f->lo == 1 && f->pos == node->properties[f->lo].text.len)
        begin_sequence_value(f, node->properties[f->lo].choice);
    else if (f->lo == f->hi)
        return DEAD;
    return STAY;
}

/* Free text is UTF-8 without NUL.  The begin mark is looked for by the automaton of Knuth, Morris and Pratt. */
static outcome step_text(const sluice_constraint *c, const sluice_node *node, frame *f, uint8_t b, uint32_t *choice)
{
    const sluice_literal *begin = &node->literals[0];

    if (f->sub != SLUICE_STR_GROUND || b >= 0x80) {
        f->sub = c->v->string_next[f->sub][b];
        if (f->sub == SLUICE_STR_DEAD)
            return DEAD;
    } else if (b == 0) {
        return DEAD;
    }
    if (begin->len == 0) {
        if (f->state == TEXT_START && b == '{') {
            *choice = c->g.nodes[node->sequence].properties[0].choice;
            f->node = node->sequence;
            begin_sequence_value(f, *choice);
            return ENTER;
        }
        if (!is_space(b))
            f->state = TEXT_FREE;
        return STAY;
    }
    while (f->pos > 0 && begin->bytes[f->pos] != b)
        f->pos = node->fails[f->pos];
    if (begin->bytes[f->pos] == b)
        f->pos++;
    if (f->pos == begin->len) {
        f->node = node->sequence;
        begin_sequence_value(f, c->g.nodes[node->sequence].properties[0].choice);
    }
    return STAY;
}

static outcome step_frame(sluice_constraint *c, frame *f, uint8_t b, uint32_t *choice)
{
    const sluice_node *node;

    if (f->node == NONE)
        return DEAD;
    node = &c->g.nodes[f->node];
    switch (node->kind) {
    case SLUICE_NODE_STRING: return step_string(c->v, node, f, b);
    case SLUICE_NODE_PATTERN: return step_pattern(node, f, b);
    case SLUICE_NODE_NUMBER: return step_number(f, b);
    case SLUICE_NODE_DECIMAL: return step_decimal(node, f, b);
    case SLUICE_NODE_LITERALS: return step_literals(node, f, b);
    case SLUICE_NODE_OBJECT: return step_object(c, node, f, b, choice);
    case SLUICE_NODE_ARRAY: return step_array(c, node, f, b, choice);
    case SLUICE_NODE_SEQUENCE: return step_sequence(node, f, b, choice);
    case SLUICE_NODE_TEXT:
    default: return step_text(c, node, f, b, choice);
    }
}

/* The value of *f is whole: go on in what it is part of. */
static void pop(const sluice_constraint *c, frame *f)
{
    for (;;) {
        const sluice_node *node;

        if (f->parent == NONE) {
            *f = (frame){ .node = NONE, .parent = NONE, .keys = NONE };
            return;
        }
        *f = c->live.frames[f->parent];
        node = &c->g.nodes[f->node];
        if (node->kind == SLUICE_NODE_SEQUENCE) {
            f->state = SEQ_END;
            f->lo = f->hi = f->pos = 0;
            if (node->literals[0].len == 0)
                continue;
        } else {
            f->state = node->kind == SLUICE_NODE_OBJECT ? OBJ_NEXT : ARR_NEXT;
            f->lo = 0;
        }
        return;
    }
}

static uint32_t rest_after_child(const sluice_constraint *c, const frame *f)
{
    const sluice_node *node = &c->g.nodes[f->node];

    if (node->kind == SLUICE_NODE_SEQUENCE)
        return node->literals[0].costs[0];
    return node->kind == SLUICE_NODE_OBJECT ? object_rest(&c->g, node, f) : array_rest(&c->g, node, f, f->count);
}

static void add_thread(frame *out, uint32_t *n, const frame *f)
{
    for (uint32_t i = 0; i < *n; i++)
        if (memcmp(&out[i], f, sizeof *f) == 0)
            return;
    if (*n < N_THREADS)
        out[(*n)++] = *f;
}

/* Does a value of this node begin with b?  Then *f is set up and has taken it. */
static outcome begin_value(const sluice_node *node, frame *f, uint8_t b)
{
    uint32_t choice;

    switch (node->kind) {
    case SLUICE_NODE_STRING: return b == '"' ? STAY : DEAD;
    case SLUICE_NODE_PATTERN: f->lo = 1; return b == '"' ? STAY : DEAD;
    case SLUICE_NODE_NUMBER: return b == '-' ? STAY : b >= '0' && b <= '9' ? step_number(f, b) : DEAD;
    case SLUICE_NODE_DECIMAL:
        if (b == '-') {
            f->flag = FLAG_NEGATIVE;
            return decimal_rest(node, DEC_MINUS, true, 0, 0, 0) != SLUICE_COST_NEVER ? STAY : DEAD;
        }
        return b >= '0' && b <= '9' ? step_decimal(node, f, b) : DEAD;
    case SLUICE_NODE_LITERALS: f->hi = node->n_literals; return step_literals(node, f, b);
    case SLUICE_NODE_OBJECT: f->depth++; return b == '{' ? STAY : DEAD;
    case SLUICE_NODE_ARRAY: f->depth++; return b == '[' ? STAY : DEAD;
    case SLUICE_NODE_SEQUENCE:
        f->depth++;
        f->hi = node->n_properties;
        return step_sequence(node, f, b, &choice);
    default: return DEAD;
    }
}

/* Every value of the choice that begins with b, inside the container f. */
static void enter(sluice_constraint *c, const frame *f, uint32_t choice_id, uint8_t b, frame *out, uint32_t *n_out)
{
    const sluice_choice *choice = &c->g.choices[choice_id];
    uint32_t parent = NONE, after = 0;

    for (uint32_t i = 0; i < choice->n; i++) {
        const sluice_node *node = &c->g.nodes[choice->nodes[i]];
        frame child = { .node = choice->nodes[i], .depth = f->depth, .keys = NONE };
        outcome o;

        if (node->cost == SLUICE_COST_NEVER || f->depth + node->depth > SLUICE_CONSTRAINT_MAX_DEPTH)
            continue;
        o = begin_value(node, &child, b);
        if (o == DEAD)
            continue;
        if (parent == NONE) {
            if (c->live.n_frames == N_FRAMES)
                return;
            parent = c->live.n_frames++;
            c->live.frames[parent] = *f;
            after = sluice_cost_add(rest_after_child(c, f), f->after);
        }
        child.parent = parent;
        child.after = after;
        if (o == DONE)
            pop(c, &child);
        add_thread(out, n_out, &child);
    }
}

static void step_thread(sluice_constraint *c, const frame *thread, uint8_t b, frame *out, uint32_t *n_out)
{
    frame f = *thread;
    uint32_t choice = SLUICE_CHOICE_NONE;

    for (;;)
        switch (step_frame(c, &f, b, &choice)) {
        case DEAD: return;
        case STAY: add_thread(out, n_out, &f); return;
        case DONE:
            pop(c, &f);
            add_thread(out, n_out, &f);
            return;
        case AGAIN: pop(c, &f); break;
        case ENTER: enter(c, &f, choice, b, out, n_out); return;
        }
}

/* One thread through some bytes.  The result is in c->walk; how many threads it became. */
static frame *run_thread(sluice_constraint *c, const frame *thread, sluice_span text, uint32_t *n_out)
{
    frame *now = c->walk, *next = c->walk + N_THREADS, *swap;
    uint32_t n = 1;

    now[0] = *thread;
    for (size_t i = 0; i < text.len && n > 0; i++) {
        uint32_t n_next = 0;

        for (uint32_t k = 0; k < n; k++)
            step_thread(c, &now[k], text.ptr[i], next, &n_next);
        swap = now;
        now = next;
        next = swap;
        n = n_next;
    }
    *n_out = n;
    return now;
}

/* ---- tokens ------------------------------------------------------------------------------------------- */

/* The most that may be left to do after the next token. */
static uint32_t cost_limit(const sluice_constraint *c)
{
    return c->left == UINT32_MAX ? SLUICE_COST_NEVER - 1 : c->left - 1; /* left > 0 */
}

static bool is_affordable(const sluice_constraint *c, const frame *threads, uint32_t n, uint32_t limit)
{
    for (uint32_t i = 0; i < n; i++)
        if (thread_cost(c, &threads[i], limit) <= limit)
            return true;
    return false;
}

static bool token_text(const sluice_constraint *c, int32_t token, sluice_span *text)
{
    if (token < 0 || (uint32_t)token >= c->v->n_vocab || sluice_tokenizer_is_control(c->v->tokenizer, token) ||
        sluice_tokenizer_is_end(c->v->tokenizer, token))
        return false;
    *text = sluice_tokenizer_bytes(c->v->tokenizer, token);
    return text->len > 0 && text->len <= SLUICE_CONSTRAINT_MAX_TOKEN_BYTES;
}

static bool is_end(const sluice_constraint *c, int32_t token)
{
    for (uint32_t i = 0; i < c->v->n_ends; i++)
        if (token >= 0 && c->v->ends[i] == (uint32_t)token)
            return true;
    return false;
}

bool sluice_constraint_allows(sluice_constraint *c, int32_t token)
{
    const uint32_t n_frames = c->live.n_frames, n_keys = c->live.n_keys;
    bool is_allowed = false;
    sluice_span text;

    if (is_end(c, token))
        return sluice_constraint_is_complete(c);
    if (c->left == 0 || !token_text(c, token, &text))
        return false;
    for (uint32_t i = 0; i < c->n_threads && !is_allowed; i++) {
        uint32_t n;
        const frame *threads = run_thread(c, &c->threads[i], text, &n);

        is_allowed = is_affordable(c, threads, n, cost_limit(c));
        c->live.n_frames = n_frames;
        c->live.n_keys = n_keys;
    }
    return is_allowed;
}

/* ---- masks -------------------------------------------------------------------------------------------- */

static void put(uint32_t *bits, uint32_t token)
{
    bits[token / 32] |= 1u << token % 32;
}

/* All tokens of a trie from one thread.  c->walk holds the threads of each depth, one after the other.  With `cost_max`, what the states cost at most. */
static void walk_trie(sluice_constraint *c, const sluice_trie *trie, const frame *thread, uint32_t limit, uint32_t *bits, uint32_t *cost_max)
{
    uint32_t begin[SLUICE_CONSTRAINT_MAX_TOKEN_BYTES + 2], ends[SLUICE_CONSTRAINT_MAX_TOKEN_BYTES + 1];
    uint32_t n_frames[SLUICE_CONSTRAINT_MAX_TOKEN_BYTES + 1], n_keys[SLUICE_CONSTRAINT_MAX_TOKEN_BYTES + 1];
    uint32_t depth = 0;

    c->walk[0] = *thread;
    begin[0] = 0;
    begin[1] = 1;
    ends[0] = trie->n;
    n_frames[0] = c->live.n_frames;
    n_keys[0] = c->live.n_keys;
    for (uint32_t i = 0; i < trie->n;) {
        const sluice_trie_node *node = &trie->nodes[i];
        uint32_t n = 0;

        while (i >= ends[depth])
            depth--;
        c->live.n_frames = n_frames[depth];
        c->live.n_keys = n_keys[depth];
        for (uint32_t k = begin[depth]; k < begin[depth + 1]; k++)
            step_thread(c, &c->walk[k], (uint8_t)node->byte, &c->walk[begin[depth + 1]], &n);
        if (n == 0) {
            i = node->end;
            continue;
        }
        if (node->token != SLUICE_TRIE_NO_TOKEN && is_affordable(c, &c->walk[begin[depth + 1]], n, limit)) {
            put(bits, node->token);
            for (uint32_t k = 0; cost_max != NULL && k < n; k++) {
                const uint32_t cost = thread_cost(c, &c->walk[begin[depth + 1] + k], SLUICE_COST_NEVER - 1);

                *cost_max = cost > *cost_max ? cost : *cost_max;
            }
        }
        i++;
        if (node->end == i)
            continue;
        depth++; /* at most the longest token's bytes, less one */
        ends[depth] = node->end;
        begin[depth + 1] = begin[depth] + n;
        n_frames[depth] = c->live.n_frames;
        n_keys[depth] = c->live.n_keys;
    }
    c->live.n_frames = n_frames[0];
    c->live.n_keys = n_keys[0];
}

/* Tokens that stay in a pattern's string, by the table alone. */
static void walk_pattern(const sluice_constraint *c, const sluice_dfa *dfa, uint32_t start, cached_mask *out)
{
    uint32_t states[SLUICE_CONSTRAINT_MAX_TOKEN_BYTES + 1], ends[SLUICE_CONSTRAINT_MAX_TOKEN_BYTES + 1], depth = 0;
    const sluice_trie *trie = &c->v->all;

    states[0] = start;
    ends[0] = trie->n;
    for (uint32_t i = 0; i < trie->n;) {
        const sluice_trie_node *node = &trie->nodes[i];
        uint32_t next;

        while (i >= ends[depth])
            depth--;
        next = dfa->next[states[depth] * dfa->n_classes + dfa->classes[node->byte]];
        if (next == 0) {
            i = node->end;
            continue;
        }
        if (node->token != SLUICE_TRIE_NO_TOKEN && dfa->rest[next] != UINT16_MAX) {
            put(out->bits, node->token);
            out->cost_max = dfa->rest[next] + 1u > out->cost_max ? dfa->rest[next] + 1u : out->cost_max;
        }
        i++;
        if (node->end == i)
            continue;
        depth++;
        ends[depth] = node->end;
        states[depth] = next;
    }
}

/* The mask of tokens that stay in the pattern or the free text that f is in, without a budget. */
static const cached_mask *find_cached(sluice_constraint *c, const frame *f)
{
    const sluice_node *node = &c->g.nodes[f->node];
    cached_mask *m;

    for (uint32_t i = 0; i < N_CACHED; i++) {
        m = &c->cached[i];
        if (m->is_set && m->node == f->node && m->lo == f->lo && m->pos == f->pos && m->state == f->state && m->sub == f->sub)
            return m;
    }
    m = &c->cached[c->next_cached];
    c->next_cached = (c->next_cached + 1) % N_CACHED;
    m->node = f->node;
    m->lo = f->lo;
    m->pos = f->pos;
    m->state = f->state;
    m->sub = f->sub;
    m->cost_max = 0;
    m->is_set = true;
    memset(m->bits, 0, sluice_mask_words(c->v->n_vocab) * sizeof *m->bits);
    if (node->kind == SLUICE_NODE_PATTERN)
        walk_pattern(c, node->dfa, f->lo, m);
    else
        walk_trie(c, &c->v->all, f, SLUICE_COST_NEVER - 1, m->bits, &m->cost_max);
    return m;
}

static void join(uint32_t *bits, const uint32_t *more, uint32_t n_words)
{
    for (uint32_t i = 0; i < n_words; i++)
        bits[i] |= more[i];
}

/* A string with limits near: every token by what is known of it. */
static void mask_limited_string(const sluice_constraint *c, const sluice_node *node, const frame *f, uint32_t limit, uint32_t *bits)
{
    const sluice_constraint_vocab *v = c->v;

    for (uint32_t token = 0; token < v->n_vocab; token++) {
        const uint32_t end = v->string_end[token];
        uint32_t count;

        if (end >= SLUICE_STR_STATES)
            continue;
        count = f->count + v->string_chars[token];
        if ((uint64_t)count + (end != SLUICE_STR_GROUND) <= node->max && sluice_cost_add(string_cost(v, node, end, count), f->after) <= limit)
            put(bits, token);
    }
}

static void mask_thread(sluice_constraint *c, const frame *f, uint32_t limit, uint32_t *bits)
{
    const sluice_constraint_vocab *v = c->v;
    const uint32_t n_words = sluice_mask_words(v->n_vocab);
    const sluice_node *node;

    if (f->node == NONE)
        return;
    node = &c->g.nodes[f->node];
    if (node->kind == SLUICE_NODE_STRING && f->sub == SLUICE_STR_GROUND) {
        /* no limit in reach of one token, and no cost: at most 8 bytes of an escape, and the quote */
        if (f->count >= node->min && (node->max == UINT32_MAX || node->max - f->count >= SLUICE_CONSTRAINT_MAX_TOKEN_BYTES) &&
            sluice_cost_add(f->after, 16) <= limit) {
            frame then = *f;

            join(bits, v->string_mask, n_words);
            for (uint32_t i = 0; i < v->n_quote_alone; i++)
                put(bits, v->quote_alone[i]);
            pop(c, &then);
            walk_trie(c, &v->after_quote, &then, limit, bits, NULL);
        } else {
            mask_limited_string(c, node, f, limit, bits);
            walk_trie(c, &v->quote, f, limit, bits, NULL);
        }
        return;
    }
    if (node->kind == SLUICE_NODE_PATTERN || node->kind == SLUICE_NODE_TEXT) {
        const cached_mask *m = find_cached(c, f);

        if (sluice_cost_add(m->cost_max, f->after) <= limit) {
            join(bits, m->bits, n_words);
            if (node->kind == SLUICE_NODE_PATTERN)
                walk_trie(c, &v->quote, f, limit, bits, NULL);
            return;
        }
    }
    if (node->kind == SLUICE_NODE_OBJECT && f->state == OBJ_KEY && (f->flag & FLAG_FREE_KEY) && f->sub == SLUICE_STR_GROUND &&
        (f->lo == f->hi || !node->has_escapes) && sluice_cost_add(sluice_cost_add(free_key_rest(c, node, f), 5), f->after) <= limit) {
        join(bits, v->key_mask, n_words);
        walk_trie(c, &v->quote, f, limit, bits, NULL);
        return;
    }
    walk_trie(c, &v->all, f, limit, bits, NULL);
}

/* Pairs, then fours, then bytes, then their sum (Hacker's Delight, 5-1). */
static uint32_t count_bits(uint32_t x)
{
    x -= x >> 1 & 0x55555555u;
    x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0fu;
    return x * 0x01010101u >> 24;
}

uint32_t sluice_constraint_mask(sluice_constraint *c, uint32_t *bits)
{
    const uint32_t n_words = sluice_mask_words(c->v->n_vocab);
    uint32_t n = 0;

    memset(bits, 0, n_words * sizeof *bits);
    for (uint32_t i = 0; i < c->n_threads && c->left > 0; i++)
        mask_thread(c, &c->threads[i], cost_limit(c), bits);
    if (sluice_constraint_is_complete(c))
        for (uint32_t i = 0; i < c->v->n_ends; i++)
            put(bits, c->v->ends[i]);
    for (uint32_t i = 0; i < n_words; i++)
        n += count_bits(bits[i]);
    return n;
}

/* ---- going on ----------------------------------------------------------------------------------------- */

static uint32_t copy_keys(sluice_constraint *c, uint32_t key)
{
    uint32_t *forward = c->forward + N_FRAMES, head = NONE, *link = &head;

    while (key != NONE) {
        if (forward[key] != NONE) {
            *link = forward[key];
            return head;
        }
        forward[key] = c->other.n_keys;
        *link = c->other.n_keys;
        c->other.keys[c->other.n_keys] = (key_node){ c->live.keys[key].hash, NONE, 0 };
        link = &c->other.keys[c->other.n_keys++].next;
        key = c->live.keys[key].next;
    }
    return head;
}

static uint32_t copy_frame(sluice_constraint *c, uint32_t id)
{
    uint32_t head = NONE, *link = &head;

    while (id != NONE) {
        frame *copy;

        if (c->forward[id] != NONE) {
            *link = c->forward[id];
            return head;
        }
        c->forward[id] = c->other.n_frames;
        *link = c->other.n_frames;
        copy = &c->other.frames[c->other.n_frames++];
        *copy = c->live.frames[id];
        copy->keys = copy_keys(c, copy->keys);
        id = copy->parent;
        copy->parent = NONE;
        link = &copy->parent;
    }
    return head;
}

/* Keep what the threads reach, and let go of the rest. */
static void compact(sluice_constraint *c)
{
    const pool swap = c->live;

    memset(c->forward, 0xff, (N_FRAMES + N_KEYS) * sizeof *c->forward);
    c->other.n_frames = c->other.n_keys = 0;
    for (uint32_t i = 0; i < c->n_threads; i++) {
        c->threads[i].parent = copy_frame(c, c->threads[i].parent);
        c->threads[i].keys = copy_keys(c, c->threads[i].keys);
    }
    c->live = c->other;
    c->other = swap;
}

typedef struct ranking {
    frame threads[N_THREADS];
    uint32_t costs[N_THREADS], n;
} ranking;

/* The cheapest threads, in the order of their costs: one that a budget relies on is among them. */
static void rank(ranking *r, const frame *f, uint32_t cost)
{
    uint32_t at;

    if (cost == SLUICE_COST_NEVER)
        return;
    for (uint32_t i = 0; i < r->n; i++)
        if (memcmp(&r->threads[i], f, sizeof *f) == 0)
            return;
    if (r->n < N_THREADS)
        at = r->n++;
    else if (cost >= r->costs[N_THREADS - 1])
        return;
    else
        at = N_THREADS - 1;
    for (; at > 0 && r->costs[at - 1] > cost; at--) {
        r->threads[at] = r->threads[at - 1];
        r->costs[at] = r->costs[at - 1];
    }
    r->threads[at] = *f;
    r->costs[at] = cost;
}

sluice_status sluice_constraint_accept(sluice_constraint *c, int32_t token, sluice_error *err)
{
    ranking r;
    sluice_span text;

    if (!sluice_constraint_allows(c, token))
        return sluice_error_set(err, SLUICE_ERR_STATE, "constraint: token %" PRId32 " is not allowed here", token);
    if (is_end(c, token)) {
        c->threads[0] = (frame){ .node = NONE, .parent = NONE, .keys = NONE };
        c->n_threads = 1;
        return SLUICE_OK;
    }
    r.n = 0;
    (void)token_text(c, token, &text);
    for (uint32_t i = 0; i < c->n_threads; i++) {
        uint32_t n;
        const frame *threads = run_thread(c, &c->threads[i], text, &n); /* a pool that one thread fills is not there for the next: see allows() */

        for (uint32_t k = 0; k < n; k++)
            rank(&r, &threads[k], thread_cost(c, &threads[k], 0));
    }
    if (r.n == 0)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "constraint: the alternatives together need more room than there is");
    memcpy(c->threads, r.threads, r.n * sizeof *r.threads);
    c->n_threads = r.n;
    if (c->left != UINT32_MAX)
        c->left--;
    compact(c);
    return SLUICE_OK;
}

uint32_t sluice_constraint_least_tokens(const sluice_constraint *c)
{
    uint32_t cost = SLUICE_COST_NEVER;

    for (uint32_t i = 0; i < c->n_threads; i++)
        cost = least(cost, thread_cost(c, &c->threads[i], 0));
    return cost;
}

bool sluice_constraint_is_complete(const sluice_constraint *c)
{
    return is_affordable(c, c->threads, c->n_threads, 0);
}

bool sluice_constraint_has_ended(const sluice_constraint *c)
{
    for (uint32_t i = 0; i < c->n_threads; i++)
        if (c->threads[i].node != NONE)
            return false;
    return true;
}

sluice_status sluice_constraint_set_budget(sluice_constraint *c, uint32_t tokens_left, sluice_error *err)
{
    c->left = tokens_left;
    if (is_affordable(c, c->threads, c->n_threads, tokens_left))
        return SLUICE_OK;
    return sluice_error_set(err, SLUICE_ERR_LIMIT, "constraint: %" PRIu32 " tokens are left, and finishing the value takes up to %" PRIu32,
                            tokens_left, sluice_constraint_least_tokens(c));
}

/* The only byte that may come next, or -1. */
static int only_byte(sluice_constraint *c, const frame *threads, uint32_t n, frame *out, uint32_t *n_out)
{
    int only = -1;

    for (uint32_t b = 0; b < 256; b++) {
        const uint32_t n_frames = c->live.n_frames, n_keys = c->live.n_keys;
        frame next[N_THREADS];
        uint32_t n_next = 0;

        for (uint32_t i = 0; i < n; i++)
            step_thread(c, &threads[i], (uint8_t)b, next, &n_next);
        if (n_next == 0) {
            c->live.n_frames = n_frames;
            c->live.n_keys = n_keys;
            continue;
        }
        if (only >= 0)
            return -1;
        only = (int)b;
        memcpy(out, next, n_next * sizeof *next);
        *n_out = n_next;
    }
    return only;
}

uint32_t sluice_constraint_forced(sluice_constraint *c, int32_t *tokens, uint32_t capacity)
{
    const uint32_t n_frames = c->live.n_frames, n_keys = c->live.n_keys;
    uint8_t run[FORCED_BYTES_MAX];
    uint32_t costs[FORCED_BYTES_MAX + 1], n_run = 0, n_threads = c->n_threads, n = 0;
    frame threads[N_THREADS], next[N_THREADS];

    memcpy(threads, c->threads, n_threads * sizeof *threads);
    while (n_run < FORCED_BYTES_MAX && n_run < c->left) {
        uint32_t n_next = 0;
        bool may_end = false;
        int b;

        for (uint32_t i = 0; i < n_threads; i++)
            may_end = may_end || thread_cost(c, &threads[i], 0) == 0;
        b = may_end ? -1 : only_byte(c, threads, n_threads, next, &n_next);
        if (b < 0)
            break;
        n_threads = n_next;
        memcpy(threads, next, n_next * sizeof *next);
        run[n_run++] = (uint8_t)b;
        costs[n_run] = SLUICE_COST_NEVER;
        for (uint32_t i = 0; i < n_threads; i++)
            costs[n_run] = least(costs[n_run], thread_cost(c, &threads[i], 0));
    }
    c->live.n_frames = n_frames;
    c->live.n_keys = n_keys;
    for (uint32_t at = 0; at < n_run && n < capacity;) {
        uint32_t node = c->v->first[run[at]], end = c->v->first[run[at] + 1u], best = SLUICE_TRIE_NO_TOKEN, best_end = 0;

        for (uint32_t depth = 0; node < end && at + depth < n_run;) {
            const sluice_trie_node *t = &c->v->all.nodes[node];

            if (t->byte != run[at + depth]) {
                node = t->end;
                continue;
            }
            /* each token so far took one of the budget */
            if (t->token != SLUICE_TRIE_NO_TOKEN && (c->left == UINT32_MAX || costs[at + depth + 1] <= c->left - n - 1)) {
                best = t->token;
                best_end = at + depth + 1;
            }
            if (t->end == node + 1) {
                node++;
                continue;
            }
            end = t->end;
            node++;
            depth++;
        }
        if (best == SLUICE_TRIE_NO_TOKEN)
            break;
        tokens[n++] = (int32_t)best;
        at = best_end;
    }
    return n;
}

/* ---- opening ------------------------------------------------------------------------------------------ */

void sluice_constraint_reset(sluice_constraint *c)
{
    const sluice_node *root = &c->g.nodes[c->g.root];

    c->live.n_frames = c->live.n_keys = 0;
    c->threads[0] = (frame){ .node = c->g.root, .parent = NONE, .keys = NONE };
    if (root->kind == SLUICE_NODE_SEQUENCE && root->properties[0].text.len == 0)
        begin_sequence_value(&c->threads[0], root->properties[0].choice);
    else if (root->kind == SLUICE_NODE_SEQUENCE)
        c->threads[0].hi = root->n_properties;
    c->n_threads = 1;
    c->left = UINT32_MAX;
}

static bool allocate(sluice_constraint *c)
{
    const uint32_t n_words = sluice_mask_words(c->v->n_vocab);
    pool *pools[] = { &c->live, &c->other };

    for (size_t i = 0; i < 2; i++) {
        pools[i]->frames = sluice_alloc_array(c->al, N_FRAMES, sizeof(frame));
        pools[i]->keys = sluice_alloc_array(c->al, N_KEYS, sizeof(key_node));
        if (pools[i]->frames == NULL || pools[i]->keys == NULL)
            return false;
    }
    c->walk = sluice_alloc_array(c->al, N_WALK, sizeof(frame));
    c->forward = sluice_alloc_array(c->al, N_FRAMES + N_KEYS, sizeof *c->forward);
    if (c->walk == NULL || c->forward == NULL)
        return false;
    for (uint32_t i = 0; i < c->g.n_nodes; i++)
        c->has_cache = c->has_cache || c->g.nodes[i].kind == SLUICE_NODE_PATTERN || c->g.nodes[i].kind == SLUICE_NODE_TEXT;
    for (uint32_t i = 0; c->has_cache && i < N_CACHED; i++) {
        c->cached[i].bits = sluice_alloc_array(c->al, n_words, sizeof *c->cached[i].bits);
        if (c->cached[i].bits == NULL)
            return false;
    }
    return true;
}

static sluice_status open_source(sluice_constraint **out, const sluice_constraint_vocab *v, const sluice_tokenizer *t,
                                 const sluice_grammar_source *source, const sluice_allocator *al, sluice_error *err)
{
    sluice_constraint *c = sluice_alloc_zeroed(al, sizeof *c);
    sluice_status st = SLUICE_OK;

    *out = NULL;
    if (c == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "constraint: %zu bytes", sizeof *c);
    if (al != NULL) {
        c->allocator = *al;
        c->al = &c->allocator;
    }
    if (v == NULL) {
        st = sluice_constraint_vocab_open(&c->own_vocab, t, c->al, err);
        v = c->own_vocab;
    }
    c->v = v;
    if (st == SLUICE_OK)
        st = sluice_grammar_compile(&c->g, v, source, c->al, err);
    if (st == SLUICE_OK && !allocate(c))
        st = sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "constraint: no memory for its state");
    if (st != SLUICE_OK) {
        sluice_constraint_close(c);
        return st;
    }
    sluice_constraint_reset(c);
    *out = c;
    return SLUICE_OK;
}

sluice_status sluice_constraint_open_shared(sluice_constraint **out, const sluice_constraint_vocab *v, sluice_span json_schema,
                                            const sluice_allocator *al, sluice_error *err)
{
    return open_source(out, v, NULL, &(sluice_grammar_source){ .json = json_schema }, al, err);
}

sluice_status sluice_constraint_open(sluice_constraint **out, const sluice_tokenizer *t, sluice_span json_schema, const sluice_allocator *al,
                                     sluice_error *err)
{
    return open_source(out, NULL, t, &(sluice_grammar_source){ .json = json_schema }, al, err);
}

sluice_status sluice_constraint_open_tools_shared(sluice_constraint **out, const sluice_constraint_vocab *v, sluice_span tools_json,
                                                  sluice_tool_choice choice, const char *name, const sluice_tool_format *format,
                                                  const sluice_allocator *al, sluice_error *err)
{
    return open_source(out, v, NULL,
                       &(sluice_grammar_source){ .json = tools_json, .is_tools = true, .tool_choice = choice, .tool_name = name, .format = format },
                       al, err);
}

sluice_status sluice_constraint_open_tools(sluice_constraint **out, const sluice_tokenizer *t, sluice_span tools_json, sluice_tool_choice choice,
                                           const char *name, const sluice_tool_format *format, const sluice_allocator *al, sluice_error *err)
{
    return open_source(out, NULL, t,
                       &(sluice_grammar_source){ .json = tools_json, .is_tools = true, .tool_choice = choice, .tool_name = name, .format = format },
                       al, err);
}

void sluice_constraint_close(sluice_constraint *c)
{
    sluice_allocator allocator;
    bool is_custom;

    if (c == NULL)
        return;
    sluice_free_wiped(c->al, c->live.frames, N_FRAMES * sizeof(frame));
    sluice_free_wiped(c->al, c->other.frames, N_FRAMES * sizeof(frame));
    sluice_free_wiped(c->al, c->live.keys, N_KEYS * sizeof(key_node));
    sluice_free_wiped(c->al, c->other.keys, N_KEYS * sizeof(key_node));
    sluice_free_wiped(c->al, c->walk, N_WALK * sizeof(frame));
    sluice_free(c->al, c->forward, (N_FRAMES + N_KEYS) * sizeof *c->forward);
    for (uint32_t i = 0; i < N_CACHED; i++)
        sluice_free(c->al, c->cached[i].bits, sluice_mask_words(c->v != NULL ? c->v->n_vocab : 0) * sizeof *c->cached[i].bits);
    sluice_grammar_deinit(&c->g);
    sluice_constraint_vocab_close(c->own_vocab);
    is_custom = c->al != NULL;
    allocator = c->allocator; /* c->al points into what is about to go */
    sluice_free_wiped(is_custom ? &allocator : NULL, c, sizeof *c);
}
