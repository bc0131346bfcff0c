/* constraint_regex.c - a regular expression to a DFA over the JSON spelling of the strings that it matches.
 *
 *   pattern ──parse──► tree ──emit──► NFA over bytes ──subsets──► DFA with the length counted in
 *
 * The syntax is that of ECMA-262 as far as it is regular: literals, ., classes, \d \w \s and their opposites, \t \n \r \f \v \xHH \uHHHH, groups, |, * + ? {n,m}
 * (lazy or not is the same language), ^ at the beginning and $ at the end of the pattern or of an alternative at its top.  A pattern that is not anchored
 * matches anywhere in the string, as JSON Schema says.  Look-around, back references, \b and \p are refused.
 *
 * Code points become the bytes that JSON spells them with: UTF-8, or the short escape of a quote, a backslash or a control character.  Other control
 * characters are left out of classes; that makes the language smaller, never larger.
 *
 * The number of code points is part of a DFA state where minLength or maxLength ask for it.  Every size is bounded and so is the work, whatever the pattern.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/constraint_impl.h"

enum {
    PATTERN_MAX = 1024,
    TREE_MAX = 2048,
    RANGES_MAX = 2048,
    NFA_MAX = 4096,
    DFA_MAX = 2048,
    DEPTH_MAX = 32,
    REPEAT_MAX = 1000,
    WORDS = NFA_MAX / 64,
    CODE_POINT_MAX = 0x10ffff
};

typedef enum tree_kind { EMPTY, CLASS, CAT, ALT, REPEAT, ANYWHERE } tree_kind;

typedef struct tree {
    tree_kind kind;
    uint32_t a, b, min, max;
} tree; /* CLASS: ranges a … b - 1; REPEAT: a from min to max times, UINT32_MAX: any */

typedef struct range {
    uint32_t low, high;
} range;

/* BYTES: low … high leads to out.  SPLIT: to both.  A state in which a code point is under way is marked. */
typedef struct nfa_state {
    uint8_t kind, low, high, is_inside;
    uint16_t out, other;
} nfa_state;
enum { NFA_BYTES, NFA_SPLIT, NFA_ACCEPT };

typedef struct dfa_key {
    uint64_t set[WORDS];
    uint32_t count;
    bool is_inside;
} dfa_key;

typedef struct compiler {
    sluice_span text;
    size_t at;
    uint32_t depth;
    sluice_error *err;
    sluice_status status;
    tree trees[TREE_MAX];
    uint32_t n_trees;
    range ranges[RANGES_MAX];
    uint32_t n_ranges;
    nfa_state nfa[NFA_MAX];
    uint32_t n_nfa;
    uint64_t work, work_max; /* NFA states looked at */
    dfa_key keys[DFA_MAX];
    uint32_t n_dfa;
    uint16_t buckets[2 * DFA_MAX];
    uint16_t stack[NFA_MAX];
} compiler;

static uint32_t fail(compiler *c, sluice_status status, const char *what)
{
    if (c->status == SLUICE_OK)
        c->status = sluice_error_set(c->err, status, "constraint: pattern, byte %zu: %s", c->at, what);
    return 0;
}

/* ---- parsing */

static uint32_t new_tree(compiler *c, tree_kind kind, uint32_t a, uint32_t b)
{
    if (c->n_trees == TREE_MAX)
        return fail(c, SLUICE_ERR_LIMIT, "too long");
    c->trees[c->n_trees] = (tree){ kind, a, b, 0, 0 };
    return c->n_trees++;
}

static int peek(const compiler *c)
{
    return c->at < c->text.len ? c->text.ptr[c->at] : -1;
}

static bool eat(compiler *c, int byte)
{
    if (peek(c) != byte)
        return false;
    c->at++;
    return true;
}

static void add_range(compiler *c, uint32_t low, uint32_t high)
{
    if (c->n_ranges == RANGES_MAX)
        (void)fail(c, SLUICE_ERR_LIMIT, "too many characters in classes");
    else
        c->ranges[c->n_ranges++] = (range){ low, high };
}

/* Ranges from `begin` on: sorted, joined, and turned into their opposite if asked. */
static void settle(compiler *c, uint32_t begin, bool negated)
{
    uint32_t n = begin, next = 0;

    for (uint32_t i = begin + 1; i < c->n_ranges; i++) {
        const range r = c->ranges[i];
        uint32_t k = i;

        for (; k > begin && c->ranges[k - 1].low > r.low; k--)
            c->ranges[k] = c->ranges[k - 1];
        c->ranges[k] = r;
        c->work += i - k;
    }
    for (uint32_t i = begin; i < c->n_ranges; i++) {
        const range r = c->ranges[i];

        if (n > begin && r.low <= c->ranges[n - 1].high + 1)
            c->ranges[n - 1].high = r.high > c->ranges[n - 1].high ? r.high : c->ranges[n - 1].high;
        else
            c->ranges[n++] = r;
    }
    c->n_ranges = n;
    if (!negated)
        return;
    n = c->n_ranges;
    for (uint32_t i = begin; i < n; i++) {
        const range r = c->ranges[i];

        if (r.low > next)
            add_range(c, next, r.low - 1);
        next = r.high + 1;
    }
    if (next <= CODE_POINT_MAX)
        add_range(c, next, CODE_POINT_MAX);
    memmove(&c->ranges[begin], &c->ranges[n], (c->n_ranges - n) * sizeof *c->ranges);
    c->n_ranges -= n - begin;
}

static bool add_shorthand(compiler *c, int letter)
{
    const uint32_t begin = c->n_ranges;

    switch (letter) {
    case 'd':
    case 'D': add_range(c, '0', '9'); break;
    case 'w':
    case 'W':
        add_range(c, '0', '9');
        add_range(c, 'A', 'Z');
        add_range(c, '_', '_');
        add_range(c, 'a', 'z');
        break;
    case 's':
    case 'S':
        add_range(c, 9, 13);
        add_range(c, ' ', ' ');
        add_range(c, 0xa0, 0xa0);
        add_range(c, 0x1680, 0x1680);
        add_range(c, 0x2000, 0x200a);
        add_range(c, 0x2028, 0x2029);
        add_range(c, 0x202f, 0x202f);
        add_range(c, 0x205f, 0x205f);
        add_range(c, 0x3000, 0x3000);
        add_range(c, 0xfeff, 0xfeff);
        break;
    default: return false;
    }
    settle(c, begin, letter < 'a');
    return true;
}

static uint32_t hex(compiler *c, uint32_t n)
{
    uint32_t value = 0;

    while (n-- > 0) {
        const int b = peek(c);

        if (b >= '0' && b <= '9')
            value = value * 16 + (uint32_t)(b - '0');
        else if ((b >= 'a' && b <= 'f') || (b >= 'A' && b <= 'F'))
            value = value * 16 + (uint32_t)((b | 32) - 'a' + 10);
        else
            return fail(c, SLUICE_ERR_FORMAT, "\\x takes two and \\u four hexadecimal digits");
        c->at++;
    }
    return value;
}

/* After a backslash, where the letter is no class. */
static uint32_t escaped(compiler *c)
{
    const int b = peek(c);

    c->at++;
    switch (b) {
    case 't': return '\t';
    case 'n': return '\n';
    case 'r': return '\r';
    case 'f': return '\f';
    case 'v': return '\v';
    case 'x': return hex(c, 2);
    case 'u': return hex(c, 4);
    default: break;
    }
    if (b < 0 || b >= 0x80 || (b >= '0' && b <= '9') || (b >= 'A' && b <= 'Z') || (b >= 'a' && b <= 'z'))
        return fail(c, SLUICE_ERR_UNSUPPORTED, "this escape is not supported");
    return (uint32_t)b;
}

static uint32_t code_point(compiler *c)
{
    bool valid;
    const size_t n = sluice_utf8_step(c->text, c->at, &valid);
    uint32_t value = c->text.ptr[c->at];

    if (n > 1)
        value &= 0xffu >> (n + 1);
    for (size_t i = 1; i < n; i++)
        value = value << 6 | (c->text.ptr[c->at + i] & 0x3fu);
    c->at += n;
    return value;
}

/* After '['. */
static uint32_t parse_class(compiler *c)
{
    const bool negated = eat(c, '^');
    const uint32_t begin = c->n_ranges;

    while (c->status == SLUICE_OK && !eat(c, ']')) {
        uint32_t low, high;

        if (peek(c) < 0)
            return fail(c, SLUICE_ERR_FORMAT, "'[' without ']'");
        if (eat(c, '\\')) {
            if (add_shorthand(c, peek(c))) {
                c->at++;
                continue;
            }
            low = escaped(c);
        } else {
            low = code_point(c);
        }
        high = low;
        if (peek(c) == '-' && c->at + 1 < c->text.len && c->text.ptr[c->at + 1] != ']') {
            c->at++;
            high = eat(c, '\\') ? escaped(c) : code_point(c);
            if (high < low)
                return fail(c, SLUICE_ERR_FORMAT, "a range that goes down");
        }
        add_range(c, low, high);
    }
    settle(c, begin, negated);
    return new_tree(c, CLASS, begin, c->n_ranges);
}

static uint32_t parse_alternatives(compiler *c);

static uint32_t parse_atom(compiler *c)
{
    const int b = peek(c);
    const uint32_t begin = c->n_ranges;
    uint32_t value;

    if (eat(c, '(')) {
        uint32_t inside;

        if (eat(c, '?') && !eat(c, ':'))
            return fail(c, SLUICE_ERR_UNSUPPORTED, "groups other than ( ) and (?: ) are not supported");
        if (++c->depth > DEPTH_MAX)
            return fail(c, SLUICE_ERR_LIMIT, "groups nest too deep");
        inside = parse_alternatives(c);
        c->depth--;
        return eat(c, ')') ? inside : fail(c, SLUICE_ERR_FORMAT, "'(' without ')'");
    }
    if (eat(c, '['))
        return parse_class(c);
    if (eat(c, '.')) {
        add_range(c, '\n', '\n');
        add_range(c, '\r', '\r');
        add_range(c, 0x2028, 0x2029);
        settle(c, begin, true);
        return new_tree(c, CLASS, begin, c->n_ranges);
    }
    if (b == '*' || b == '+' || b == '?' || b == '{')
        return fail(c, SLUICE_ERR_FORMAT, "nothing to repeat");
    if (b == '^' || b == '$')
        return fail(c, SLUICE_ERR_UNSUPPORTED, "'^' and '$' are supported only where the pattern, or an alternative of its top, begins and ends");
    if (eat(c, '\\')) {
        if (add_shorthand(c, peek(c))) {
            c->at++;
            return new_tree(c, CLASS, begin, c->n_ranges);
        }
        value = escaped(c);
    } else {
        value = code_point(c);
    }
    add_range(c, value, value);
    return new_tree(c, CLASS, begin, c->n_ranges);
}

static uint32_t parse_number(compiler *c)
{
    uint32_t value = 0;

    if (peek(c) < '0' || peek(c) > '9')
        return fail(c, SLUICE_ERR_FORMAT, "'{' takes a number");
    while (peek(c) >= '0' && peek(c) <= '9') {
        value = value * 10 + (uint32_t)(peek(c) - '0');
        c->at++;
        if (value > REPEAT_MAX)
            return fail(c, SLUICE_ERR_LIMIT, "too many repetitions");
    }
    return value;
}

static uint32_t parse_repeated(compiler *c)
{
    const uint32_t atom = parse_atom(c);
    uint32_t min, max, id;

    if (eat(c, '*')) {
        min = 0;
        max = UINT32_MAX;
    } else if (eat(c, '+')) {
        min = 1;
        max = UINT32_MAX;
    } else if (eat(c, '?')) {
        min = 0;
        max = 1;
    } else if (eat(c, '{')) {
        min = max = parse_number(c);
        if (eat(c, ','))
            max = peek(c) == '}' ? UINT32_MAX : parse_number(c);
        if (!eat(c, '}') || max < min)
            return fail(c, SLUICE_ERR_FORMAT, "'{' takes one or two numbers, the lower one first");
    } else {
        return atom;
    }
    (void)eat(c, '?');
    id = new_tree(c, REPEAT, atom, 0);
    c->trees[id].min = min;
    c->trees[id].max = max;
    return id;
}

static uint32_t parse_sequence(compiler *c)
{
    uint32_t left = new_tree(c, EMPTY, 0, 0);
    const bool is_top = c->depth == 0;

    if (is_top && !eat(c, '^'))
        left = new_tree(c, ANYWHERE, 0, 0);
    while (c->status == SLUICE_OK && peek(c) >= 0 && peek(c) != '|' && peek(c) != ')') {
        if (is_top && peek(c) == '$' && (c->at + 1 == c->text.len || c->text.ptr[c->at + 1] == '|')) {
            c->at++;
            return left;
        }
        left = new_tree(c, CAT, left, parse_repeated(c));
    }
    return is_top ? new_tree(c, CAT, left, new_tree(c, ANYWHERE, 0, 0)) : left;
}

static uint32_t parse_alternatives(compiler *c)
{
    uint32_t left = parse_sequence(c);

    while (c->status == SLUICE_OK && eat(c, '|'))
        left = new_tree(c, ALT, left, parse_sequence(c));
    return left;
}

/* ---- NFA.  Built from the end: each function gets the state that follows, and returns the one that begins. */

static uint32_t new_state(compiler *c, uint8_t kind, uint32_t low, uint32_t high, uint32_t out, uint32_t other)
{
    if (c->n_nfa == NFA_MAX)
        return fail(c, SLUICE_ERR_LIMIT, "it needs too many states");
    c->nfa[c->n_nfa] = (nfa_state){ kind, (uint8_t)low, (uint8_t)high, false, (uint16_t)out, (uint16_t)other };
    return c->n_nfa++;
}

static uint32_t split(compiler *c, uint32_t a, uint32_t b)
{
    return a == UINT32_MAX ? b : b == UINT32_MAX ? a : new_state(c, NFA_SPLIT, 0, 0, a, b);
}

static uint32_t inside(compiler *c, uint32_t low, uint32_t high, uint32_t out)
{
    const uint32_t id = new_state(c, NFA_BYTES, low, high, out, 0);

    c->nfa[id].is_inside = true;
    return id;
}

/* The bytes from first to last, each of n: one path for the UTF-8 of code points whose trailing bytes run through all values. */
static uint32_t emit_path(compiler *c, const uint8_t *first, const uint8_t *last, uint32_t n, uint32_t out)
{
    for (uint32_t i = n; i-- > 1;)
        out = inside(c, first[i], last[i], out);
    return new_state(c, NFA_BYTES, first[0], last[0], out, 0);
}

static uint32_t to_utf8(uint32_t value, uint8_t out[4])
{
    if (value < 0x80) {
        out[0] = (uint8_t)value;
        return 1;
    }
    if (value < 0x800) {
        out[0] = (uint8_t)(0xc0 | value >> 6);
        out[1] = (uint8_t)(0x80 | (value & 0x3f));
        return 2;
    }
    if (value < 0x10000) {
        out[0] = (uint8_t)(0xe0 | value >> 12);
        out[1] = (uint8_t)(0x80 | (value >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (value & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | value >> 18);
    out[1] = (uint8_t)(0x80 | (value >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (value >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (value & 0x3f));
    return 4;
}

/* Code points of equal length in UTF-8, cut so that in each piece all trailing bytes below one that varies run from 80 to bf. */
static uint32_t emit_utf8(compiler *c, uint32_t low, uint32_t high, uint32_t out)
{
    uint32_t begin = UINT32_MAX;

    while (low <= high && c->status == SLUICE_OK) {
        uint8_t first[4], last[4];
        uint32_t until = high;
        const uint32_t n = to_utf8(low, first);

        for (uint32_t bits = 6; bits <= 6 * (n - 1); bits += 6) {
            const uint32_t tail = (1u << bits) - 1;

            if ((low & ~tail) == (until & ~tail))
                continue;
            if ((low & tail) != 0)
                until = low | tail;
            else if ((until & tail) != tail)
                until = (until & ~tail) - 1;
        }
        (void)to_utf8(until, last);
        begin = split(c, emit_path(c, first, last, n, out), begin);
        low = until + 1;
    }
    return begin;
}

static uint32_t emit_range(compiler *c, uint32_t low, uint32_t high, uint32_t out)
{
    static const range lengths[] = { { 0x80, 0x7ff }, { 0x800, 0xd7ff }, { 0xe000, 0xffff }, { 0x10000, CODE_POINT_MAX } };
    static const range plain[] = { { ' ', '!' }, { '#', '[' }, { ']', 0x7f } };
    static const struct {
        uint8_t value, letter;
    } escapes[] = { { '"', '"' }, { '\\', '\\' }, { '\b', 'b' }, { '\f', 'f' }, { '\n', 'n' }, { '\r', 'r' }, { '\t', 't' } };
    uint32_t begin = UINT32_MAX;

    for (size_t i = 0; i < sizeof escapes / sizeof escapes[0]; i++)
        if (escapes[i].value >= low && escapes[i].value <= high)
            begin = split(c, new_state(c, NFA_BYTES, '\\', '\\', inside(c, escapes[i].letter, escapes[i].letter, out), 0), begin);
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        const uint32_t from = low > plain[i].low ? low : plain[i].low, to = high < plain[i].high ? high : plain[i].high;

        if (from <= to)
            begin = split(c, new_state(c, NFA_BYTES, from, to, out, 0), begin);
    }
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        const uint32_t from = low > lengths[i].low ? low : lengths[i].low, to = high < lengths[i].high ? high : lengths[i].high;

        if (from <= to)
            begin = split(c, emit_utf8(c, from, to, out), begin);
    }
    return begin;
}

/* A state that leads nowhere, for classes without a character. */
static uint32_t emit_nothing(compiler *c)
{
    return new_state(c, NFA_BYTES, 1, 0, 0, 0);
}

static uint32_t emit_class(compiler *c, uint32_t begin_range, uint32_t end_range, uint32_t out)
{
    uint32_t begin = UINT32_MAX;

    for (uint32_t i = begin_range; i < end_range; i++)
        begin = split(c, emit_range(c, c->ranges[i].low, c->ranges[i].high, out), begin);
    return begin != UINT32_MAX ? begin : emit_nothing(c);
}

static uint32_t emit(compiler *c, uint32_t id, uint32_t out, uint32_t depth)
{
    const tree t = c->trees[id];
    uint32_t loop, body;

    if (c->status != SLUICE_OK)
        return 0;
    if (depth > 4 * TREE_MAX / DEPTH_MAX)
        return fail(c, SLUICE_ERR_LIMIT, "it nests too deep");
    switch (t.kind) {
    case EMPTY: return out;
    case CLASS: return emit_class(c, t.a, t.b, out);
    case CAT: /* chains lean to the left: walk them without recursion */
        for (; c->trees[id].kind == CAT && c->status == SLUICE_OK; id = c->trees[id].a)
            out = emit(c, c->trees[id].b, out, depth + 1);
        return emit(c, id, out, depth + 1);
    case ALT:
        body = UINT32_MAX;
        for (; c->trees[id].kind == ALT && c->status == SLUICE_OK; id = c->trees[id].a)
            body = split(c, emit(c, c->trees[id].b, out, depth + 1), body);
        return split(c, emit(c, id, out, depth + 1), body);
    case ANYWHERE:
        loop = new_state(c, NFA_SPLIT, 0, 0, out, out);
        body = emit_range(c, 0, CODE_POINT_MAX, loop);
        c->nfa[loop].other = (uint16_t)body;
        return loop;
    case REPEAT:
    default:
        if (t.max == UINT32_MAX) {
            loop = new_state(c, NFA_SPLIT, 0, 0, out, out);
            body = emit(c, t.a, loop, depth + 1);
            c->nfa[loop].other = (uint16_t)body;
            out = loop;
        } else {
            const uint32_t after = out;

            for (uint32_t i = t.min; i < t.max && c->status == SLUICE_OK; i++)
                out = new_state(c, NFA_SPLIT, 0, 0, emit(c, t.a, out, depth + 1), after);
        }
        for (uint32_t i = 0; i < t.min && c->status == SLUICE_OK; i++)
            out = emit(c, t.a, out, depth + 1);
        return out;
    }
}

/* ---- DFA */

/* Add a state and what it reaches without a byte. */
static void close_over(compiler *c, dfa_key *key, uint32_t state)
{
    uint32_t n = 0;

    if (key->set[state / 64] >> state % 64 & 1)
        return;
    key->set[state / 64] |= (uint64_t)1 << state % 64;
    c->stack[n++] = (uint16_t)state;
    while (n > 0) {
        const nfa_state *s = &c->nfa[c->stack[--n]];

        c->work++;
        if (s->kind != NFA_SPLIT)
            continue;
        for (uint32_t k = 0; k < 2; k++) {
            const uint32_t to = k == 0 ? s->out : s->other;

            if (key->set[to / 64] >> to % 64 & 1)
                continue;
            key->set[to / 64] |= (uint64_t)1 << to % 64;
            c->stack[n++] = (uint16_t)to; /* each state is put there once */
        }
    }
}

static bool is_empty(const dfa_key *key, uint32_t n_words)
{
    for (uint32_t i = 0; i < n_words; i++)
        if (key->set[i] != 0)
            return false;
    return true;
}

/* The number of a DFA state, a new one perhaps. */
static uint32_t intern(compiler *c, const dfa_key *key, uint32_t n_words)
{
    uint64_t hash = key->count * 0x9e3779b97f4a7c15u;
    uint32_t at;

    for (uint32_t i = 0; i < n_words; i++)
        hash = (hash ^ key->set[i]) * 0xff51afd7ed558ccdu, hash ^= hash >> 32;
    for (at = (uint32_t)(hash % (2 * DFA_MAX)); c->buckets[at] != 0; at = (at + 1) % (2 * DFA_MAX)) {
        const dfa_key *other = &c->keys[c->buckets[at]];

        c->work += n_words;
        if (other->count == key->count && memcmp(other->set, key->set, n_words * sizeof *key->set) == 0)
            return c->buckets[at];
    }
    if (c->n_dfa == DFA_MAX)
        return fail(c, SLUICE_ERR_LIMIT, "its automaton needs too many states");
    c->keys[c->n_dfa] = *key;
    c->buckets[at] = (uint16_t)c->n_dfa;
    return c->n_dfa++;
}

static uint32_t find_classes(const compiler *c, uint8_t classes[256])
{
    bool begins[257] = { false };
    uint32_t n = 0;

    for (uint32_t i = 0; i < c->n_nfa; i++)
        if (c->nfa[i].kind == NFA_BYTES && c->nfa[i].low <= c->nfa[i].high) {
            begins[c->nfa[i].low] = true;
            begins[c->nfa[i].high + 1u] = true;
        }
    for (uint32_t b = 0; b < 256; b++) {
        if (b > 0 && begins[b])
            n++;
        classes[b] = (uint8_t)n;
    }
    return n + 1;
}

/* After byte b.  min and max: code points; max UINT32_MAX counts no further than min. */
static bool step_key(compiler *c, const dfa_key *from, uint32_t b, uint32_t min, uint32_t max, uint32_t n_words, dfa_key *to)
{
    bool inside_now = false;

    memset(to, 0, sizeof *to);
    to->count = from->count;
    if (!from->is_inside) {
        if (from->count == max)
            return false;
        if (max != UINT32_MAX || from->count < min)
            to->count++;
    }
    for (uint32_t w = 0; w < n_words; w++)
        for (uint64_t bits = from->set[w]; bits != 0; bits &= bits - 1) {
            uint32_t state = w * 64;

            for (uint64_t low = bits & (0 - bits); low > 1; low >>= 1)
                state++;
            c->work++;
            if (c->nfa[state].kind == NFA_BYTES && b >= c->nfa[state].low && b <= c->nfa[state].high) {
                close_over(c, to, c->nfa[state].out);
                inside_now = c->nfa[c->nfa[state].out].is_inside; /* the spellings of code points are prefix-free: all agree */
            }
        }
    to->is_inside = inside_now;
    return !is_empty(to, n_words);
}

static bool determinise(compiler *c, sluice_dfa *dfa, uint32_t start, uint32_t min, uint32_t max, uint16_t *next)
{
    const uint32_t n_words = (c->n_nfa + 63) / 64;
    dfa_key key;

    memset(&key, 0, sizeof key);
    c->n_dfa = 1; /* 0 is the dead state */
    close_over(c, &key, start);
    (void)intern(c, &key, n_words);
    for (uint32_t i = 1; i < c->n_dfa && c->status == SLUICE_OK; i++) {
        for (uint32_t cls = 0; cls < dfa->n_classes; cls++) {
            uint32_t b = 0;

            while (dfa->classes[b] != cls)
                b++;
            next[i * dfa->n_classes + cls] = step_key(c, &c->keys[i], b, min, max, n_words, &key) ? (uint16_t)intern(c, &key, n_words) : 0;
        }
        if (c->work > c->work_max)
            (void)fail(c, SLUICE_ERR_LIMIT, "it takes too long to compile");
    }
    return c->status == SLUICE_OK;
}

/* Bytes to an accepting state, over bytes that the vocabulary can spell alone; relaxed until nothing changes, at most n_states times. */
static void find_rests(sluice_dfa *dfa, const sluice_constraint_vocab *v)
{
    bool spelled[256] = { false }, changed = true;

    for (uint32_t b = 0; b < 256; b++)
        spelled[dfa->classes[b]] = spelled[dfa->classes[b]] || v->spells[b];
    for (uint32_t i = 0; i < dfa->n_states; i++)
        dfa->rest[i] = dfa->accepts[i] ? 0 : UINT16_MAX;
    while (changed) {
        changed = false;
        for (uint32_t i = dfa->n_states; i-- > 1;)
            for (uint32_t cls = 0; cls < dfa->n_classes; cls++) {
                const uint32_t to = dfa->next[i * dfa->n_classes + cls];

                if (to != 0 && spelled[cls] && dfa->rest[to] != UINT16_MAX && dfa->rest[to] + 1 < dfa->rest[i]) {
                    dfa->rest[i] = (uint16_t)(dfa->rest[to] + 1);
                    changed = true;
                }
            }
    }
}

static sluice_status compile(compiler *c, sluice_dfa **out, uint32_t min, uint32_t max, const sluice_constraint_vocab *v, sluice_arena *arena,
                             uint16_t *next, size_t n_next)
{
    sluice_dfa *dfa = sluice_arena_alloc(arena, sizeof *dfa);
    uint32_t top, accept, start;

    if (dfa == NULL)
        return sluice_error_set(c->err, SLUICE_ERR_NO_MEMORY, "constraint: no memory for a pattern");
    top = parse_alternatives(c);
    if (c->status == SLUICE_OK && c->at < c->text.len)
        (void)fail(c, SLUICE_ERR_FORMAT, "')' without '('");
    accept = new_state(c, NFA_ACCEPT, 0, 0, 0, 0);
    start = emit(c, top, accept, 0);
    if (c->status != SLUICE_OK)
        return c->status;
    dfa->n_classes = find_classes(c, dfa->classes);
    if ((size_t)DFA_MAX * dfa->n_classes > n_next)
        return sluice_error_set(c->err, SLUICE_ERR_LIMIT, "constraint: pattern: too many kinds of characters");
    if (!determinise(c, dfa, start, min, max, next))
        return c->status;
    dfa->n_states = c->n_dfa;
    dfa->next = sluice_arena_alloc(arena, (size_t)dfa->n_states * dfa->n_classes * sizeof *dfa->next);
    dfa->rest = sluice_arena_alloc(arena, dfa->n_states * sizeof *dfa->rest);
    dfa->accepts = sluice_arena_alloc(arena, dfa->n_states * sizeof *dfa->accepts);
    if (dfa->next == NULL || dfa->rest == NULL || dfa->accepts == NULL)
        return sluice_error_set(c->err, SLUICE_ERR_NO_MEMORY, "constraint: no memory for the automaton of a pattern");
    memcpy(dfa->next, next, (size_t)dfa->n_states * dfa->n_classes * sizeof *dfa->next);
    for (uint32_t i = 1; i < dfa->n_states; i++)
        dfa->accepts[i] = (c->keys[i].set[accept / 64] >> accept % 64 & 1) != 0 && c->keys[i].count >= min;
    find_rests(dfa, v);
    *out = dfa;
    return SLUICE_OK;
}

sluice_status sluice_regex_compile(sluice_dfa **out, sluice_span pattern, uint32_t min, uint32_t max, const sluice_constraint_vocab *v,
                                   sluice_arena *arena, const sluice_allocator *al, uint64_t *work, sluice_error *err)
{
    const size_t n_next = (size_t)DFA_MAX * 128;
    compiler *c;
    uint16_t *next;
    sluice_status st;

    *out = NULL;
    if (pattern.len > PATTERN_MAX)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "constraint: a pattern of %zu bytes; the limit is %d", pattern.len, PATTERN_MAX);
    c = sluice_alloc_zeroed(al, sizeof *c);
    next = sluice_alloc_zeroed(al, n_next * sizeof *next);
    if (c == NULL || next == NULL) {
        st = sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "constraint: no memory for a pattern");
    } else {
        c->text = pattern;
        c->err = err;
        c->work_max = *work;
        st = compile(c, out, min, max, v, arena, next, n_next);
        *work -= c->work < *work ? c->work : *work;
    }
    sluice_free(al, c, sizeof *c);
    sluice_free(al, next, n_next * sizeof *next);
    return st;
}
