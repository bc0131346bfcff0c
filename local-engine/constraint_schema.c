/* constraint_schema.c - a JSON schema to a grammar.
 *
 * A value is described by a list of schemas that must all hold; a property of two merged objects has the list of what both say of it.  Each value is
 * compiled once, from a queue, so recursion in the schema becomes a cycle in the grammar and never recursion here:
 *
 *   list of schemas ──► alternatives: $ref, allOf, anyOf and oneOf resolved, each a set of plain schemas
 *                   ──► facts: the keywords of such a set, intersected
 *                   ──► nodes: at most one for each kind of value                 ──► the choice of the value
 *
 * Then costs are computed to a fixed point: cheapest whole values first, until nothing gets cheaper.  What keeps an infinite cost has no finite value.
 *
 * oneOf is anyOf where the alternatives exclude each other, which is proved from types, constants and required properties or refused.
 *
 * A schema comes from an app or from a server's tool list, so it may be hostile: numbers of values, nodes, alternatives and the work are bounded.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "local-engine/constraint_impl.h"

#include <stdlib.h>

#include "sdk/base/json.h"

enum {
    VALUES_MAX = 4096,
    NODES_MAX = 8192,
    ALTERNATIVES_MAX = 64,     /* of one value; the automaton follows as many at a time */
    PLAIN_MAX = 64,            /* schemas that hold together */
    CHAIN_MAX = 64,            /* $ref, allOf, anyOf and oneOf without a value between */
    LITERALS_MAX = 4096,       /* of one enum */
    LITERAL_BYTES_MAX = 16384, /* costs are 16 bits */
    ARENA_MAX = 32 << 20,
    ROUNDS_MAX = 256,
    DISJOINT_DEPTH = 4,
    SCALE_WANTED = 4, /* digits after the point of a number in a range, where nothing asks for more */
    TOOLS_MAX = SLUICE_OBJECT_MAX_PROPERTIES
};
#define WORK_MAX      4000000u
#define DECIMAL_LIMIT 999999999999999 /* 15 digits */

enum {
    T_NULL = 1,
    T_BOOL = 2,
    T_INTEGER = 4,
    T_FRACTION = 8,
    T_STRING = 16,
    T_ARRAY = 32,
    T_OBJECT = 64,
    T_NUMBER = T_INTEGER | T_FRACTION,
    T_ALL = 127
};

typedef struct schema_list {
    const sluice_json **items;
    uint32_t n;
} schema_list;
typedef struct alternatives {
    schema_list *items;
    uint32_t n;
} alternatives;
typedef struct chain {
    const sluice_json *schema;
    const struct chain *up;
    uint32_t depth;
} chain; /* what is being resolved */

typedef struct queued {
    schema_list all;         /* sorted by address */
    const sluice_json *root; /* where its $ref begin */
    uint32_t choice;
} queued;

typedef struct pattern {
    sluice_span text;
    uint32_t min, max;
    sluice_dfa *dfa;
    struct pattern *next;
} pattern;

typedef struct compiler {
    sluice_grammar *g;
    const sluice_constraint_vocab *v;
    const sluice_allocator *al;
    sluice_span text;
    sluice_json_doc *doc;
    sluice_arena scratch;
    queued *values;
    uint32_t n_values;
    sluice_property *properties; /* of the object that is being made */
    pattern *patterns;           /* compiled so far */
    uint64_t pattern_work;       /* what is left for others */
    uint32_t work;
    sluice_status status;
    sluice_error *err;
} compiler;

/* ---- errors ------------------------------------------------------------------------------------------- */

/* "/properties/a/items": by places, since a node does not know its parent. */
static void write_pointer(const sluice_json *root, const sluice_json *target, sluice_buf *out)
{
    while (root != target) {
        const sluice_json *inside = NULL;
        uint32_t i = 0, index = 0;

        for (const sluice_json *child = root->child; child != NULL; child = child->next, i++)
            if (child->offset <= target->offset) {
                inside = child;
                index = i;
            }
        if (inside == NULL)
            return;
        if (inside->key != NULL)
            (void)sluice_buf_appendf(out, "/%.60s", inside->key);
        else
            (void)sluice_buf_appendf(out, "/%u", index);
        root = inside;
    }
}

static void add_place(const compiler *c, const sluice_json *at)
{
    uint32_t line, column;
    sluice_buf pointer;
    char *where;

    if (c->err == NULL || at == NULL || c->doc == NULL)
        return;
    sluice_json_place(c->text, at->offset, &line, &column);
    sluice_error_line(c->err, line, column);
    sluice_error_offset(c->err, at->offset);
    sluice_buf_init(&pointer, c->al, sizeof c->err->where - 1);
    (void)sluice_buf_append_byte(&pointer, '#');
    write_pointer(sluice_json_root(c->doc), at, &pointer);
    where = sluice_buf_take_str(&pointer);
    if (where != NULL) {
        sluice_error_where(c->err, where);
        sluice_str_free(c->al, where);
    }
    sluice_buf_deinit(&pointer);
}

/* Words the first failure, and is false. */
static bool fail(compiler *c, const sluice_json *at, sluice_status status, const char *what, const char *name)
{
    if (c->status != SLUICE_OK)
        return false;
    c->status = sluice_error_set(c->err, status, name != NULL ? "schema: %s \"%.80s\"" : "schema: %s", what, name);
    add_place(c, at);
    return false;
}

static bool no_memory(compiler *c, const sluice_arena *a)
{
    return a->used_bytes > ARENA_MAX / 2 ? fail(c, NULL, SLUICE_ERR_LIMIT, "it is too large", NULL)
                                         : fail(c, NULL, SLUICE_ERR_NO_MEMORY, "no memory to compile it", NULL);
}

static void *take_from(compiler *c, sluice_arena *a, size_t n, size_t each)
{
    size_t bytes;
    void *p = NULL;

    if (sluice_mul_size(n > 0 ? n : 1, each, &bytes))
        p = sluice_arena_alloc(a, bytes);
    if (p == NULL)
        (void)no_memory(c, a);
    return p;
}

static void *scratch(compiler *c, size_t n, size_t each)
{
    return take_from(c, &c->scratch, n, each);
}

static void *keep(compiler *c, size_t n, size_t each)
{
    return take_from(c, &c->g->arena, n, each);
}

static bool does_work(compiler *c, uint32_t n)
{
    c->work += n;
    return c->work <= WORK_MAX || fail(c, NULL, SLUICE_ERR_LIMIT, "it takes too long to compile", NULL);
}

/* ---- keywords ----------------------------------------------------------------------------------------- */

typedef struct keyword {
    const char *name;
    int kind;
} keyword; /* the kind of JSON that it must be; -1: any */

static const keyword keywords[] = {
    { "type", -1 },
    { "enum", SLUICE_JSON_ARRAY },
    { "const", -1 },
    { "anyOf", SLUICE_JSON_ARRAY },
    { "oneOf", SLUICE_JSON_ARRAY },
    { "allOf", SLUICE_JSON_ARRAY },
    { "$ref", SLUICE_JSON_STRING },
    { "$defs", SLUICE_JSON_OBJECT },
    { "definitions", SLUICE_JSON_OBJECT },
    { "properties", SLUICE_JSON_OBJECT },
    { "required", SLUICE_JSON_ARRAY },
    { "additionalProperties", -1 },
    { "minProperties", SLUICE_JSON_NUMBER },
    { "maxProperties", SLUICE_JSON_NUMBER },
    { "items", -1 },
    { "prefixItems", SLUICE_JSON_ARRAY },
    { "minItems", SLUICE_JSON_NUMBER },
    { "maxItems", SLUICE_JSON_NUMBER },
    { "minLength", SLUICE_JSON_NUMBER },
    { "maxLength", SLUICE_JSON_NUMBER },
    { "pattern", SLUICE_JSON_STRING },
    { "format", SLUICE_JSON_STRING },
    { "minimum", SLUICE_JSON_NUMBER },
    { "maximum", SLUICE_JSON_NUMBER },
    { "exclusiveMinimum", SLUICE_JSON_NUMBER },
    { "exclusiveMaximum", SLUICE_JSON_NUMBER },
    { "multipleOf", SLUICE_JSON_NUMBER },
    { "title", -1 },
    { "description", -1 },
    { "default", -1 },
    { "examples", -1 },
    { "$schema", -1 },
    { "$id", -1 },
    { "$comment", -1 },
    { "deprecated", -1 },
    { "readOnly", -1 },
    { "writeOnly", -1 },
};

static const struct {
    const char *name, *pattern;
} formats[] = {
    /* the 29th of February is left out: a pattern cannot know the leap years */
    { "date", "^\\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8]))$" },
    { "time", "^([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)$" },
    { "date-time", "^\\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8]))"
                   "T([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)$" },
    { "uuid", "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$" },
    { "email", "^[A-Za-z0-9]+([._+-][A-Za-z0-9]+)*@[A-Za-z0-9]+(-[A-Za-z0-9]+)*(\\.[A-Za-z0-9]+(-[A-Za-z0-9]+)*)*\\.[A-Za-z]{2,}$" },
    { "ipv4", "^((25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)\\.){3}(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)$" },
};

static bool check_keywords(compiler *c, const sluice_json *schema)
{
    for (const sluice_json *k = schema->child; k != NULL; k = k->next) {
        size_t i = 0;

        while (i < sizeof keywords / sizeof keywords[0] && strcmp(keywords[i].name, k->key) != 0)
            i++;
        if (i == sizeof keywords / sizeof keywords[0])
            return fail(c, k, SLUICE_ERR_UNSUPPORTED, "unsupported keyword", k->key);
        if (keywords[i].kind >= 0 && (int)k->kind != keywords[i].kind)
            return fail(c, k, SLUICE_ERR_FORMAT, "a value of the wrong type for", k->key);
        if (strcmp(k->key, "items") == 0 && k->kind == SLUICE_JSON_ARRAY)
            return fail(c, k, SLUICE_ERR_UNSUPPORTED, "a list of schemas is called \"prefixItems\" since 2020-12; unsupported", "items");
    }
    return true;
}

/* ---- values ------------------------------------------------------------------------------------------- */

static uint32_t new_choice(compiler *c)
{
    sluice_grammar *g = c->g;

    if (g->n_choices == g->n_choices_max) {
        (void)fail(c, NULL, SLUICE_ERR_LIMIT, "too many different values", NULL);
        return 0;
    }
    g->choices[g->n_choices] = (sluice_choice){ NULL, 0, SLUICE_COST_NEVER, 0 };
    return g->n_choices++;
}

/* The choice for values of which all of the list holds; compiled later. */
static uint32_t value_of(compiler *c, const schema_list *list, const sluice_json *root)
{
    const sluice_json **items = scratch(c, list->n, sizeof *items);
    uint32_t n = 0;

    if (items == NULL)
        return 0;
    for (uint32_t i = 0; i < list->n; i++) { /* sorted and once each */
        uint32_t at = 0;

        while (at < n && (uintptr_t)items[at] < (uintptr_t)list->items[i])
            at++;
        if (at < n && items[at] == list->items[i])
            continue;
        for (uint32_t k = n; k > at; k--)
            items[k] = items[k - 1];
        items[at] = list->items[i];
        n++;
    }
    for (uint32_t i = 0; i < c->n_values; i++)
        if (c->values[i].all.n == n && c->values[i].root == root && (n == 0 || memcmp(c->values[i].all.items, items, n * sizeof *items) == 0))
            return c->values[i].choice;
    if (!does_work(c, c->n_values / 16 + 1))
        return 0;
    if (c->n_values == VALUES_MAX) {
        (void)fail(c, n > 0 ? items[0] : NULL, SLUICE_ERR_LIMIT, "too many different values", NULL);
        return 0;
    }
    c->values[c->n_values] = (queued){ { items, n }, root, new_choice(c) };
    return c->values[c->n_values++].choice;
}

/* ---- alternatives ------------------------------------------------------------------------------------- */

static const sluice_json *resolve(compiler *c, const sluice_json *ref, const sluice_json *root)
{
    const char *p = ref->string;
    const sluice_json *at = root;
    char name[256];

    if (*p++ != '#' || (*p != 0 && *p != '/')) {
        (void)fail(c, ref, SLUICE_ERR_UNSUPPORTED, "only references into the document, as \"#/$defs/name\", are supported; unsupported", "$ref");
        return NULL;
    }
    while (*p != 0 && at != NULL) {
        size_t n = 0;

        for (p++; *p != 0 && *p != '/'; p++) {
            char byte = *p;

            if (byte == '~' && (p[1] == '0' || p[1] == '1'))
                byte = *++p == '0' ? '~' : '/';
            else if (byte == '%') {
                (void)fail(c, ref, SLUICE_ERR_UNSUPPORTED, "percent escapes are not supported in", "$ref");
                return NULL;
            }
            if (n + 1 < sizeof name)
                name[n++] = byte;
        }
        name[n] = 0;
        if (at->kind == SLUICE_JSON_ARRAY) {
            unsigned long index = strtoul(name, NULL, 10);

            for (at = at->child; at != NULL && index > 0; index--)
                at = at->next;
        } else {
            at = sluice_json_get(at, name);
        }
    }
    if (at == NULL)
        (void)fail(c, ref, SLUICE_ERR_FORMAT, "there is nothing at", ref->string);
    return at;
}

/* What holds in one of a and in one of b. */
static bool intersect(compiler *c, const alternatives *a, const alternatives *b, alternatives *out)
{
    alternatives all = { NULL, 0 };

    if (!does_work(c, a->n * b->n + 1))
        return false;
    if ((size_t)a->n * b->n > ALTERNATIVES_MAX)
        return fail(c, NULL, SLUICE_ERR_LIMIT, "too many combinations of alternatives", NULL);
    all.items = scratch(c, (size_t)a->n * b->n, sizeof *all.items);
    for (uint32_t i = 0; i < a->n && all.items != NULL; i++)
        for (uint32_t k = 0; k < b->n; k++) {
            schema_list *list = &all.items[all.n];

            list->n = 0;
            list->items = scratch(c, (size_t)a->items[i].n + b->items[k].n, sizeof *list->items);
            if (list->items == NULL)
                return false;
            for (uint32_t m = 0; m < a->items[i].n + b->items[k].n; m++) {
                const sluice_json *schema = m < a->items[i].n ? a->items[i].items[m] : b->items[k].items[m - a->items[i].n];
                bool is_there = false;

                for (uint32_t j = 0; j < list->n && !is_there; j++)
                    is_there = list->items[j] == schema;
                if (!is_there)
                    list->items[list->n++] = schema;
            }
            if (list->n > PLAIN_MAX)
                return fail(c, NULL, SLUICE_ERR_LIMIT, "too many schemas that hold together", NULL);
            all.n++;
        }
    *out = all;
    return all.items != NULL;
}

static bool join(compiler *c, alternatives *a, const alternatives *b)
{
    alternatives all;

    if (a->n + b->n > ALTERNATIVES_MAX)
        return fail(c, NULL, SLUICE_ERR_LIMIT, "too many alternatives of one value", NULL);
    all.items = scratch(c, (size_t)a->n + b->n, sizeof *all.items);
    if (all.items == NULL || !does_work(c, a->n + b->n + 1))
        return false;
    all.n = 0;
    for (uint32_t i = 0; i < a->n; i++)
        all.items[all.n++] = a->items[i];
    for (uint32_t i = 0; i < b->n; i++)
        all.items[all.n++] = b->items[i];
    *a = all;
    return true;
}

static bool exclude_each_other(compiler *c, const alternatives *a, const alternatives *b, const sluice_json *root, uint32_t depth);

/* The alternatives of one schema. */
static bool resolve_schema(compiler *c, const sluice_json *schema, const sluice_json *root, const chain *up, alternatives *out)
{
    const chain here = { schema, up, up != NULL ? up->depth + 1 : 0 };
    alternatives result;

    if (!does_work(c, 1))
        return false;
    result.n = 1;
    result.items = scratch(c, 1, sizeof *result.items);
    if (result.items == NULL)
        return false;
    if (schema->kind == SLUICE_JSON_BOOL) { /* true: one alternative without conditions; false: none */
        result.n = schema->boolean ? 1 : 0;
        *out = result;
        return true;
    }
    if (schema->kind != SLUICE_JSON_OBJECT)
        return fail(c, schema, SLUICE_ERR_FORMAT, "a schema is an object, true or false", NULL);
    if (here.depth > CHAIN_MAX)
        return fail(c, schema, SLUICE_ERR_LIMIT, "references and alternatives nest too deep", NULL);
    for (const chain *k = up; k != NULL; k = k->up)
        if (k->schema == schema)
            return fail(c, schema, SLUICE_ERR_FORMAT, "the schema refers to itself without an array or an object between", NULL);
    if (!check_keywords(c, schema))
        return false;
    result.items[0].items = scratch(c, 1, sizeof *result.items[0].items);
    if (result.items[0].items == NULL)
        return false;
    result.items[0].items[0] = schema;
    result.items[0].n = 1;
    for (const sluice_json *k = schema->child; k != NULL; k = k->next) {
        const bool is_one = strcmp(k->key, "oneOf") == 0;
        alternatives some = { NULL, 0 };

        if (strcmp(k->key, "$ref") == 0) {
            const sluice_json *target = resolve(c, k, root);

            if (target == NULL || !resolve_schema(c, target, root, &here, &some) || !intersect(c, &result, &some, &result))
                return false;
        } else if (strcmp(k->key, "allOf") == 0) {
            for (const sluice_json *part = k->child; part != NULL; part = part->next)
                if (!resolve_schema(c, part, root, &here, &some) || !intersect(c, &result, &some, &result))
                    return false;
        } else if (is_one || strcmp(k->key, "anyOf") == 0) {
            alternatives branch;

            for (const sluice_json *part = k->child; part != NULL; part = part->next) {
                if (!resolve_schema(c, part, root, &here, &branch))
                    return false;
                if (is_one && !exclude_each_other(c, &some, &branch, root, 0))
                    return fail(c, part, SLUICE_ERR_UNSUPPORTED, "an alternative that does not visibly exclude the others: use anyOf instead of",
                                "oneOf");
                if (!join(c, &some, &branch))
                    return false;
            }
            if (!intersect(c, &result, &some, &result))
                return false;
        }
    }
    *out = result;
    return true;
}

static bool resolve_all(compiler *c, const schema_list *all, const sluice_json *root, alternatives *out)
{
    alternatives result, some;

    result.items = scratch(c, 1, sizeof *result.items);
    result.n = 1;
    if (result.items == NULL)
        return false;
    for (uint32_t i = 0; i < all->n; i++)
        if (!resolve_schema(c, all->items[i], root, NULL, &some) || !intersect(c, &result, &some, &result))
            return false;
    *out = result;
    return true;
}

/* ---- JSON as text ------------------------------------------------------------------------------------- */

static bool write_string(sluice_buf *out, const char *s, size_t n)
{
    static const char letters[] = "btn\0fr"; /* of 8 … 13 */
    bool ok = sluice_buf_append_byte(out, '"');

    for (size_t i = 0; i < n && ok; i++) {
        const uint8_t b = (uint8_t)s[i];

        if (b == '"' || b == '\\')
            ok = sluice_buf_append_byte(out, '\\') && sluice_buf_append_byte(out, b);
        else if (b >= 8 && b <= 13 && b != 11)
            ok = sluice_buf_append_byte(out, '\\') && sluice_buf_append_byte(out, (uint8_t)letters[b - 8]);
        else if (b < 0x20)
            ok = sluice_buf_appendf(out, "\\u%04x", b);
        else
            ok = sluice_buf_append_byte(out, b);
    }
    return ok && sluice_buf_append_byte(out, '"');
}

/* Where a number stands in the text, as it is written there: reading it as a double would change some. */
static sluice_span number_text(const compiler *c, const sluice_json *number)
{
    size_t n = 0;

    while (number->offset + n < c->text.len && memchr("+-.0123456789eE", c->text.ptr[number->offset + n], 15) != NULL)
        n++;
    return sluice_span_of(c->text.ptr + number->offset, n);
}

static bool write_json(const compiler *c, sluice_buf *out, const sluice_json *j)
{
    bool ok = true;

    switch (j->kind) {
    case SLUICE_JSON_NULL: return sluice_buf_append_str(out, "null");
    case SLUICE_JSON_BOOL: return sluice_buf_append_str(out, j->boolean ? "true" : "false");
    case SLUICE_JSON_NUMBER: return sluice_buf_append_span(out, number_text(c, j));
    case SLUICE_JSON_STRING: return write_string(out, j->string, j->string_len);
    default: break;
    }
    ok = sluice_buf_append_byte(out, j->kind == SLUICE_JSON_ARRAY ? '[' : '{');
    for (const sluice_json *child = j->child; child != NULL && ok; child = child->next) {
        ok = child == j->child || sluice_buf_append_byte(out, ',');
        if (ok && child->key != NULL)
            ok = write_string(out, child->key, strlen(child->key)) && sluice_buf_append_byte(out, ':');
        ok = ok && write_json(c, out, child);
    }
    return ok && sluice_buf_append_byte(out, j->kind == SLUICE_JSON_ARRAY ? ']' : '}');
}

static uint32_t nesting(const sluice_json *j)
{
    uint32_t most = 0;

    if (j->kind < SLUICE_JSON_ARRAY)
        return 0;
    for (const sluice_json *child = j->child; child != NULL; child = child->next) {
        const uint32_t n = nesting(child);

        most = n > most ? n : most;
    }
    return most + 1;
}

static bool equal(const sluice_json *a, const sluice_json *b)
{
    const sluice_json *x, *y;

    if (a->kind != b->kind || a->n_children != b->n_children)
        return false;
    switch (a->kind) {
    case SLUICE_JSON_NULL: return true;
    case SLUICE_JSON_BOOL: return a->boolean == b->boolean;
    case SLUICE_JSON_NUMBER: return !(a->number < b->number) && !(a->number > b->number);
    case SLUICE_JSON_STRING: return a->string_len == b->string_len && memcmp(a->string, b->string, a->string_len) == 0;
    case SLUICE_JSON_ARRAY:
        for (x = a->child, y = b->child; x != NULL && y != NULL; x = x->next, y = y->next)
            if (!equal(x, y))
                return false;
        return true;
    default:
        for (x = a->child; x != NULL; x = x->next) {
            y = sluice_json_get(b, x->key);
            if (y == NULL || !equal(x, y))
                return false;
        }
        return true;
    }
}

/* A literal of its own memory from `text`, whose bytes must all have tokens. */
static bool make_literal(compiler *c, sluice_literal *l, sluice_span text, const sluice_json *at)
{
    sluice_status st;

    if (text.len > LITERAL_BYTES_MAX)
        return fail(c, at, SLUICE_ERR_LIMIT, "a constant or a name is too long", NULL);
    if (!does_work(c, (uint32_t)text.len * 8))
        return false;
    l->len = (uint32_t)text.len;
    l->bytes = keep(c, text.len, 1);
    l->costs = keep(c, text.len + 1, sizeof *l->costs);
    if (l->bytes == NULL || l->costs == NULL)
        return false;
    if (text.len > 0)
        memcpy(l->bytes, text.ptr, text.len);
    st = sluice_literal_cost(c->v, l, c->status == SLUICE_OK ? c->err : NULL);
    if (st != SLUICE_OK && c->status == SLUICE_OK) {
        c->status = st;
        add_place(c, at);
    }
    return st == SLUICE_OK;
}

/* ---- numbers ------------------------------------------------------------------------------------------ */

typedef struct decimal {
    bool negative;
    uint64_t digits;
    int32_t exponent;
} decimal; /* digits * 10^exponent */

/* False when it has more than 18 digits that matter. */
static bool read_decimal(sluice_span text, decimal *out)
{
    bool after_point = false;
    int32_t exponent = 0, given = 0;
    size_t i = 0;

    memset(out, 0, sizeof *out);
    if (text.len > 0 && text.ptr[0] == '-') {
        out->negative = true;
        i++;
    }
    for (; i < text.len && text.ptr[i] != 'e' && text.ptr[i] != 'E'; i++) {
        if (text.ptr[i] == '.') {
            after_point = true;
            continue;
        }
        if (out->digits >= 100000000000000000u) { /* 18 digits: only zeros may follow */
            if (text.ptr[i] != '0')
                return false;
            exponent += !after_point;
            continue;
        }
        out->digits = out->digits * 10 + (uint64_t)(text.ptr[i] - '0');
        exponent -= after_point;
    }
    if (i < text.len) {
        bool negative = false;

        i++;
        if (text.ptr[i] == '-' || text.ptr[i] == '+')
            negative = text.ptr[i++] == '-';
        for (; i < text.len && given < 10000; i++)
            given = given * 10 + (text.ptr[i] - '0');
        exponent += negative ? -given : given;
    }
    while (out->digits != 0 && out->digits % 10 == 0) {
        out->digits /= 10;
        exponent++;
    }
    out->exponent = out->digits == 0 ? 0 : exponent;
    return true;
}

/* In units of 10^-scale, rounded up or down, and no further from zero than DECIMAL_LIMIT + 1. */
static int64_t to_units(const decimal *d, uint32_t scale, bool up)
{
    int32_t shift = d->exponent + (int32_t)scale;
    uint64_t value = d->digits;
    bool is_cut = false;

    for (; shift > 0 && value <= DECIMAL_LIMIT && value != 0; shift--)
        value *= 10;
    for (; shift < 0 && value != 0; shift++) {
        is_cut = is_cut || value % 10 != 0;
        value /= 10;
    }
    if (is_cut && up != d->negative)
        value++;
    if (value > DECIMAL_LIMIT)
        value = (uint64_t)DECIMAL_LIMIT + 1;
    return d->negative ? -(int64_t)value : (int64_t)value;
}

/* ---- facts -------------------------------------------------------------------------------------------- */

typedef struct facts {
    uint32_t types;
    const sluice_json *values[2]; /* an enum, or a const, of each of two schemas … */
    const sluice_json *pattern, *format;
    const sluice_json *numeric; /* some keyword about numbers, for messages; NULL: none */
    decimal low, high, step;
    bool has_low, has_high, has_step, low_excluded, high_excluded;
    uint32_t length_min, length_max, items_min, items_max, properties_min, properties_max;
    bool says_object, says_array; /* keywords that look inside */
    bool names_properties, says_additional;
} facts;

static bool read_type(compiler *c, const sluice_json *j, uint32_t *types)
{
    static const struct {
        const char *name;
        uint32_t type;
    } names[] = {
        { "null", T_NULL },     { "boolean", T_BOOL }, { "integer", T_INTEGER }, { "number", T_NUMBER },
        { "string", T_STRING }, { "array", T_ARRAY },  { "object", T_OBJECT },
    };

    if (j->kind == SLUICE_JSON_ARRAY) {
        for (const sluice_json *one = j->child; one != NULL; one = one->next)
            if (one->kind != SLUICE_JSON_STRING || !read_type(c, one, types))
                return fail(c, one, SLUICE_ERR_FORMAT, "a type is one of null, boolean, integer, number, string, array, object", NULL);
        return true;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (j->kind == SLUICE_JSON_STRING && strcmp(j->string, names[i].name) == 0) {
            *types |= names[i].type;
            return true;
        }
    return fail(c, j, SLUICE_ERR_FORMAT, "a type is one of null, boolean, integer, number, string, array, object", NULL);
}

static bool read_count(compiler *c, const sluice_json *j, uint32_t *out)
{
    if (!(j->number >= 0 && j->number <= 1e9 && j->number <= (double)(uint32_t)j->number))
        return fail(c, j, SLUICE_ERR_FORMAT, "a number of things, at most 1e9, is expected for", j->key);
    *out = (uint32_t)j->number;
    return true;
}

static int compare(const decimal *a, const decimal *b)
{
    const decimal *const both[2] = { a, b };
    double values[2];

    /* Near enough: bounds that differ by less than a double tells apart are equal, and then the later one stands. */
    for (int i = 0; i < 2; i++) {
        double power = 1;

        for (int32_t k = both[i]->exponent < 0 ? -both[i]->exponent : both[i]->exponent; k > 0; k--)
            power = power < 1e300 ? power * 10 : power;
        values[i] = (both[i]->negative ? -1.0 : 1.0) * (both[i]->exponent < 0 ? (double)both[i]->digits / power : (double)both[i]->digits * power);
    }
    return values[0] < values[1] ? -1 : values[0] > values[1];
}

static bool read_bound(compiler *c, const sluice_json *j, facts *f)
{
    const bool excluded = strncmp(j->key, "exclusive", 9) == 0, is_low = strstr(j->key, "inimum") != NULL;
    decimal d;
    int order;

    if (!read_decimal(number_text(c, j), &d))
        return fail(c, j, SLUICE_ERR_UNSUPPORTED, "more than 18 digits are not supported for", j->key);
    f->numeric = j;
    if (strcmp(j->key, "multipleOf") == 0) {
        if (d.digits == 0 || d.negative)
            return fail(c, j, SLUICE_ERR_FORMAT, "a number above 0 is expected for", j->key);
        if (f->has_step && compare(&f->step, &d) != 0)
            return fail(c, j, SLUICE_ERR_UNSUPPORTED, "two different ones together are not supported:", j->key);
        f->step = d;
        f->has_step = true;
        return true;
    }
    if (is_low) {
        order = f->has_low ? compare(&d, &f->low) : 1;
        if (order > 0 || (order == 0 && excluded)) {
            f->low = d;
            f->low_excluded = excluded;
        }
        f->has_low = true;
    } else {
        order = f->has_high ? compare(&d, &f->high) : -1;
        if (order < 0 || (order == 0 && excluded)) {
            f->high = d;
            f->high_excluded = excluded;
        }
        f->has_high = true;
    }
    return true;
}

static bool raise_to(compiler *c, const sluice_json *j, uint32_t *min)
{
    uint32_t n;

    if (!read_count(c, j, &n))
        return false;
    *min = n > *min ? n : *min;
    return true;
}

static bool lower_to(compiler *c, const sluice_json *j, uint32_t *max)
{
    uint32_t n;

    if (!read_count(c, j, &n))
        return false;
    *max = n < *max ? n : *max;
    return true;
}

static bool read_keyword(compiler *c, const sluice_json *k, facts *f)
{
    const char *name = k->key;
    uint32_t types = 0;

    if (strcmp(name, "type") == 0) {
        if (!read_type(c, k, &types))
            return false;
        f->types &= types;
    } else if (strcmp(name, "enum") == 0 || strcmp(name, "const") == 0) {
        if (f->values[0] == NULL)
            f->values[0] = k;
        else if (f->values[1] == NULL)
            f->values[1] = k;
        else
            return fail(c, k, SLUICE_ERR_UNSUPPORTED, "more than two lists of values together are not supported:", name);
    } else if (strcmp(name, "pattern") == 0) {
        if (f->pattern != NULL && !equal(f->pattern, k))
            return fail(c, k, SLUICE_ERR_UNSUPPORTED, "two different ones together are not supported:", name);
        f->pattern = k;
    } else if (strcmp(name, "format") == 0) {
        if (f->format != NULL && !equal(f->format, k))
            return fail(c, k, SLUICE_ERR_UNSUPPORTED, "two different ones together are not supported:", name);
        f->format = k;
    } else if (strcmp(name, "minLength") == 0) {
        return raise_to(c, k, &f->length_min);
    } else if (strcmp(name, "maxLength") == 0) {
        return lower_to(c, k, &f->length_max);
    } else if (strcmp(name, "minItems") == 0) {
        f->says_array = true;
        return raise_to(c, k, &f->items_min);
    } else if (strcmp(name, "maxItems") == 0) {
        f->says_array = true;
        return lower_to(c, k, &f->items_max);
    } else if (strcmp(name, "minProperties") == 0) {
        f->says_object = true;
        return raise_to(c, k, &f->properties_min);
    } else if (strcmp(name, "maxProperties") == 0) {
        f->says_object = true;
        return lower_to(c, k, &f->properties_max);
    } else if (strcmp(name, "items") == 0 || strcmp(name, "prefixItems") == 0) {
        f->says_array = true;
    } else if (strcmp(name, "properties") == 0 || strcmp(name, "required") == 0) {
        f->says_object = true;
        f->names_properties = f->names_properties || name[0] == 'p';
    } else if (strcmp(name, "additionalProperties") == 0) {
        f->says_object = f->says_additional = true;
    } else if (strstr(name, "inimum") != NULL || strstr(name, "aximum") != NULL || strcmp(name, "multipleOf") == 0) {
        return read_bound(c, k, f);
    }
    return true;
}

static bool read_facts(compiler *c, const schema_list *all, facts *f)
{
    memset(f, 0, sizeof *f);
    f->types = T_ALL;
    f->length_max = f->items_max = f->properties_max = UINT32_MAX;
    for (uint32_t i = 0; i < all->n; i++)
        for (const sluice_json *k = all->items[i]->child; k != NULL; k = k->next)
            if (!does_work(c, 1) || !read_keyword(c, k, f))
                return false;
    return true;
}

static const sluice_json *first_value(const sluice_json *list)
{
    return strcmp(list->key, "const") == 0 ? list : list->child;
}

static const sluice_json *next_value(const sluice_json *list, const sluice_json *one)
{
    return one == list ? NULL : one->next;
}

static bool is_listed(const sluice_json *list, const sluice_json *one)
{
    for (const sluice_json *k = first_value(list); k != NULL; k = next_value(list, k))
        if (equal(k, one))
            return true;
    return false;
}

static uint32_t type_of(const sluice_json *j)
{
    switch (j->kind) {
    case SLUICE_JSON_NULL: return T_NULL;
    case SLUICE_JSON_BOOL: return T_BOOL;
    case SLUICE_JSON_NUMBER:
        return j->number < 1e18 && j->number > -1e18 && !((double)(int64_t)j->number < j->number) && !((double)(int64_t)j->number > j->number)
                   ? T_INTEGER
                   : T_FRACTION;
    case SLUICE_JSON_STRING: return T_STRING;
    case SLUICE_JSON_ARRAY: return T_ARRAY;
    default: return T_OBJECT;
    }
}

static uint32_t types_of(const facts *f)
{
    uint32_t types = 0;

    if (f->values[0] == NULL)
        return f->types;
    for (const sluice_json *k = first_value(f->values[0]); k != NULL; k = next_value(f->values[0], k))
        types |= type_of(k);
    return types & f->types;
}

/* ---- which alternatives exclude each other ------------------------------------------------------------- */

static bool is_required(const schema_list *all, const char *name)
{
    for (uint32_t i = 0; i < all->n; i++) {
        const sluice_json *required = sluice_json_get(all->items[i], "required");

        for (const sluice_json *k = required != NULL ? required->child : NULL; k != NULL; k = k->next)
            if (k->kind == SLUICE_JSON_STRING && strcmp(k->string, name) == 0)
                return true;
    }
    return false;
}

/* What the schemas say of a property, or of additional ones with name NULL. */
static schema_list property_schemas(compiler *c, const schema_list *all, const char *name)
{
    schema_list list = { scratch(c, all->n, sizeof *list.items), 0 };

    for (uint32_t i = 0; i < all->n && list.items != NULL; i++) {
        const sluice_json *properties = sluice_json_get(all->items[i], "properties");
        const sluice_json *one = name != NULL && properties != NULL ? sluice_json_get(properties, name) : NULL;

        if (one == NULL)
            one = sluice_json_get(all->items[i], "additionalProperties");
        if (one != NULL)
            list.items[list.n++] = one;
    }
    return list;
}

static bool objects_exclude(compiler *c, const schema_list *a, const schema_list *b, const sluice_json *root, uint32_t depth)
{
    const schema_list *const both[2] = { a, b };

    if (depth == DISJOINT_DEPTH)
        return false;
    for (int side = 0; side < 2; side++)
        for (uint32_t i = 0; i < both[side]->n; i++) {
            const sluice_json *required = sluice_json_get(both[side]->items[i], "required");

            for (const sluice_json *k = required != NULL ? required->child : NULL; k != NULL; k = k->next) {
                alternatives mine, other;
                schema_list list;

                if (k->kind != SLUICE_JSON_STRING)
                    continue;
                list = property_schemas(c, both[1 - side], k->string);
                if (list.n > 0 && list.items[0]->kind == SLUICE_JSON_BOOL && !list.items[0]->boolean)
                    return true; /* one needs what the other forbids */
                if (!is_required(both[1 - side], k->string))
                    continue;
                if (!resolve_all(c, &list, root, &other))
                    return false;
                list = property_schemas(c, both[side], k->string);
                if (!resolve_all(c, &list, root, &mine))
                    return false;
                if (exclude_each_other(c, &mine, &other, root, depth + 1))
                    return true;
            }
        }
    return false;
}

static bool exclude(compiler *c, const schema_list *a, const schema_list *b, const sluice_json *root, uint32_t depth)
{
    facts x, y;
    uint32_t shared;

    if (!read_facts(c, a, &x) || !read_facts(c, b, &y))
        return false;
    shared = types_of(&x) & types_of(&y);
    if (shared == 0)
        return true;
    if (x.values[0] != NULL && y.values[0] != NULL) {
        for (const sluice_json *k = first_value(x.values[0]); k != NULL; k = next_value(x.values[0], k))
            if (!does_work(c, (uint32_t)y.values[0]->n_children + 1) || is_listed(y.values[0], k))
                return false;
        return true;
    }
    return shared == T_OBJECT && objects_exclude(c, a, b, root, depth);
}

static bool exclude_each_other(compiler *c, const alternatives *a, const alternatives *b, const sluice_json *root, uint32_t depth)
{
    for (uint32_t i = 0; i < a->n; i++)
        for (uint32_t k = 0; k < b->n; k++)
            if (!exclude(c, &a->items[i], &b->items[k], root, depth))
                return false;
    return true;
}

/* ---- nodes -------------------------------------------------------------------------------------------- */

typedef struct node_list {
    uint32_t ids[ALTERNATIVES_MAX * 6], n;
} node_list; /* at most six kinds of node for each alternative */

static sluice_node *new_node(compiler *c, sluice_node_kind kind, node_list *out)
{
    sluice_grammar *g = c->g;
    sluice_node *node;

    if (g->n_nodes == g->n_nodes_max || (out != NULL && out->n == sizeof out->ids / sizeof out->ids[0])) {
        (void)fail(c, NULL, SLUICE_ERR_LIMIT, "too many different values", NULL);
        return NULL;
    }
    node = &g->nodes[g->n_nodes];
    *node = (sluice_node){ .kind = kind, .cost = SLUICE_COST_NEVER, .max = UINT32_MAX, .rest_choice = SLUICE_CHOICE_NONE };
    if (out != NULL)
        out->ids[out->n++] = g->n_nodes;
    g->n_nodes++;
    return node;
}

static bool literal_comes_first(const sluice_literal *a, const sluice_literal *b)
{
    const int order = memcmp(a->bytes, b->bytes, a->len < b->len ? a->len : b->len);

    return order != 0 ? order < 0 : a->len < b->len;
}

static int compare_literals(const void *a, const void *b)
{
    return literal_comes_first(a, b) ? -1 : literal_comes_first(b, a);
}

static bool same_literal(const sluice_literal *a, const sluice_literal *b)
{
    return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

static bool add_literal(compiler *c, sluice_node *node, const sluice_json *j)
{
    sluice_buf text;
    bool ok;

    sluice_buf_init(&text, c->al, LITERAL_BYTES_MAX);
    ok = write_json(c, &text, j);
    if (!ok)
        ok = text.failed_limit ? fail(c, j, SLUICE_ERR_LIMIT, "a constant is too long", NULL)
                               : fail(c, j, SLUICE_ERR_NO_MEMORY, "no memory for a constant", NULL);
    else
        ok = make_literal(c, &node->literals[node->n_literals], sluice_buf_span(&text), j);
    sluice_buf_deinit(&text);
    node->n_literals += ok;
    return ok;
}

static void sort_literals(sluice_node *node)
{
    uint32_t n = 0;

    qsort(node->literals, node->n_literals, sizeof *node->literals, compare_literals);
    for (uint32_t i = 0; i < node->n_literals; i++)
        if (n == 0 || !same_literal(&node->literals[n - 1], &node->literals[i]))
            node->literals[n++] = node->literals[i];
    node->n_literals = n;
}

static bool compile_pattern(compiler *c, const facts *f, const sluice_dfa **out)
{
    const sluice_json *at = f->pattern != NULL ? f->pattern : f->format;
    sluice_span text = SLUICE_SPAN_EMPTY;
    sluice_status st;
    pattern *made;

    if (f->pattern != NULL && f->format != NULL)
        return fail(c, f->format, SLUICE_ERR_UNSUPPORTED, "it is not supported beside \"pattern\":", "format");
    if (f->pattern != NULL)
        text = sluice_span_of(f->pattern->string, f->pattern->string_len);
    for (size_t i = 0; f->pattern == NULL && i < sizeof formats / sizeof formats[0]; i++)
        if (strcmp(formats[i].name, f->format->string) == 0)
            text = sluice_span_str(formats[i].pattern);
    if (f->pattern == NULL && text.ptr == NULL)
        return fail(c, f->format, SLUICE_ERR_UNSUPPORTED, "unsupported format", f->format->string);
    for (const pattern *p = c->patterns; p != NULL; p = p->next)
        if (p->min == f->length_min && p->max == f->length_max && sluice_span_eq(p->text, text)) {
            *out = p->dfa;
            return true;
        }
    made = scratch(c, 1, sizeof *made);
    if (made == NULL)
        return false;
    st = sluice_regex_compile(&made->dfa, text, f->length_min, f->length_max, c->v, &c->g->arena, c->al, &c->pattern_work,
                              c->status == SLUICE_OK ? c->err : NULL);
    if (st != SLUICE_OK && c->status == SLUICE_OK) {
        c->status = st;
        add_place(c, at);
    }
    made->text = text; /* of the document, or static */
    made->min = f->length_min;
    made->max = f->length_max;
    made->next = c->patterns;
    c->patterns = made;
    *out = made->dfa;
    return st == SLUICE_OK;
}

static uint32_t n_code_points(const sluice_json *string)
{
    uint32_t n = 0;

    for (size_t i = 0; i < string->string_len; i++)
        n += ((uint8_t)string->string[i] & 0xc0) != 0x80;
    return n;
}

static bool matches(const compiler *c, const sluice_dfa *dfa, const sluice_json *string, bool *out)
{
    sluice_buf text;
    uint32_t state = 1;
    bool ok;

    sluice_buf_init(&text, c->al, LITERAL_BYTES_MAX);
    ok = write_json(c, &text, string);
    for (size_t i = 1; ok && i + 1 < text.len; i++)
        state = dfa->next[state * dfa->n_classes + dfa->classes[text.ptr[i]]];
    *out = state != 0 && dfa->accepts[state];
    sluice_buf_deinit(&text);
    return ok;
}

/* Does a listed value keep the other keywords? */
static bool keeps(compiler *c, const facts *f, const sluice_dfa *dfa, const sluice_json *j, bool *out)
{
    decimal d;

    *out = (type_of(j) & f->types) != 0;
    if (!*out)
        return true;
    if ((j->kind == SLUICE_JSON_OBJECT && f->says_object) || (j->kind == SLUICE_JSON_ARRAY && f->says_array))
        return fail(c, j, SLUICE_ERR_UNSUPPORTED, "a listed array or object beside keywords that look into it is not supported", NULL);
    if (j->kind == SLUICE_JSON_STRING) {
        const uint32_t n = n_code_points(j);

        *out = n >= f->length_min && n <= f->length_max;
        if (*out && dfa != NULL && !matches(c, dfa, j, out))
            return fail(c, j, SLUICE_ERR_NO_MEMORY, "no memory for a constant", NULL);
    }
    if (j->kind == SLUICE_JSON_NUMBER && f->numeric != NULL) {
        if (f->has_step || !read_decimal(number_text(c, j), &d))
            return fail(c, j, SLUICE_ERR_UNSUPPORTED, "a listed number beside \"multipleOf\", or of more than 18 digits, is not supported", NULL);
        *out = (!f->has_low || compare(&d, &f->low) > (f->low_excluded ? 0 : -1)) &&
               (!f->has_high || compare(&d, &f->high) < (f->high_excluded ? 0 : 1));
    }
    return true;
}

static bool make_listed(compiler *c, const facts *f, node_list *out)
{
    const sluice_json *list = f->values[0];
    const size_t n = list->kind == SLUICE_JSON_ARRAY ? list->n_children + 1 : 1;
    const sluice_dfa *dfa = NULL;
    sluice_node *node;

    if (n > LITERALS_MAX)
        return fail(c, list, SLUICE_ERR_LIMIT, "too many values in", list->key);
    if ((f->pattern != NULL || f->format != NULL) && !compile_pattern(c, f, &dfa))
        return false;
    node = new_node(c, SLUICE_NODE_LITERALS, out);
    if (node == NULL)
        return false;
    node->literals = keep(c, n, sizeof *node->literals);
    node->max = 0;
    if (node->literals == NULL)
        return false;
    for (const sluice_json *k = first_value(list); k != NULL; k = next_value(list, k)) {
        bool is_in;
        uint32_t depth;

        if (!does_work(c, f->values[1] != NULL ? (uint32_t)f->values[1]->n_children + 1 : 1) || !keeps(c, f, dfa, k, &is_in))
            return false;
        if (!is_in || (f->values[1] != NULL && !is_listed(f->values[1], k)))
            continue;
        if (!add_literal(c, node, k))
            return false;
        depth = nesting(k);
        node->max = depth > node->max ? depth : node->max;
    }
    sort_literals(node);
    return true;
}

static bool make_words(compiler *c, uint32_t types, node_list *out)
{
    static const struct {
        const char *word;
        uint32_t type;
    } words[] = { { "false", T_BOOL }, { "null", T_NULL }, { "true", T_BOOL } };
    sluice_node *node = new_node(c, SLUICE_NODE_LITERALS, out);

    if (node == NULL)
        return false;
    node->max = 0;
    node->literals = keep(c, 3, sizeof *node->literals);
    for (size_t i = 0; i < 3 && node->literals != NULL; i++)
        if ((words[i].type & types) != 0) {
            if (!make_literal(c, &node->literals[node->n_literals], sluice_span_str(words[i].word), NULL))
                return false;
            node->n_literals++;
        }
    return node->literals != NULL;
}

static uint64_t power_of_ten(uint32_t n)
{
    uint64_t p = 1;

    while (n-- > 0)
        p *= 10;
    return p;
}

static uint64_t greatest_divisor(uint64_t a, uint64_t b)
{
    while (b != 0) {
        const uint64_t r = a % b;

        a = b;
        b = r;
    }
    return a;
}

/* Digits after the point that a bound has, at most what is possible. */
static uint32_t scale_of(const decimal *d)
{
    return d->exponent >= 0 ? 0 : d->exponent < -SLUICE_NUMBER_SCALE_MAX ? SLUICE_NUMBER_SCALE_MAX : (uint32_t)-d->exponent;
}

static bool make_number(compiler *c, const facts *f, node_list *out)
{
    const bool is_integer = (f->types & T_FRACTION) == 0;
    sluice_node *node;
    uint32_t scale = 0;
    uint64_t step = 1;

    if (!is_integer && f->numeric == NULL)
        return new_node(c, SLUICE_NODE_NUMBER, out) != NULL;
    if (!is_integer) {
        const decimal *const all[] = { &f->low, &f->high, &f->step };

        for (size_t i = 0; i < 3; i++)
            scale = scale_of(all[i]) > scale ? scale_of(all[i]) : scale;
        if (scale < SCALE_WANTED && !f->has_step)
            scale = SCALE_WANTED;
        /* leave the bounds' own digits before the point room */
        while (scale > 0 &&
               ((f->has_high && to_units(&f->high, scale, false) > DECIMAL_LIMIT) || (f->has_low && to_units(&f->low, scale, true) < -DECIMAL_LIMIT)))
            scale--;
    }
    node = new_node(c, SLUICE_NODE_DECIMAL, out);
    if (node == NULL)
        return false;
    node->scale = scale;
    node->low = -DECIMAL_LIMIT;
    node->high = DECIMAL_LIMIT;
    if (f->has_low) {
        node->low = to_units(&f->low, scale, true);
        if (f->low_excluded && to_units(&f->low, scale, false) == node->low)
            node->low++;
    }
    if (f->has_high) {
        node->high = to_units(&f->high, scale, false);
        if (f->high_excluded && to_units(&f->high, scale, true) == node->high)
            node->high--;
    }
    if (node->low > DECIMAL_LIMIT || node->high < -DECIMAL_LIMIT)
        return fail(c, f->numeric, SLUICE_ERR_UNSUPPORTED, "numbers of more than 15 digits are not supported; all that is left by", f->numeric->key);
    node->low = node->low < -DECIMAL_LIMIT ? -DECIMAL_LIMIT : node->low;
    node->high = node->high > DECIMAL_LIMIT ? DECIMAL_LIMIT : node->high;
    if (f->has_step) {
        const int64_t units = to_units(&f->step, scale, false);

        if (to_units(&f->step, scale, true) != units && is_integer) { /* integers that are multiples of 2.5 are multiples of 5 */
            const uint32_t fraction = scale_of(&f->step);
            const uint64_t unit = power_of_ten(fraction), fine = (uint64_t)to_units(&f->step, fraction, false);

            if (to_units(&f->step, fraction, true) != (int64_t)fine || fine > DECIMAL_LIMIT)
                return fail(c, f->numeric, SLUICE_ERR_UNSUPPORTED, "so many digits are not supported for", "multipleOf");
            step = fine / greatest_divisor(fine, unit);
        } else if (to_units(&f->step, scale, true) != units || units > DECIMAL_LIMIT) {
            return fail(c, f->numeric, SLUICE_ERR_UNSUPPORTED, "so many digits are not supported for", "multipleOf");
        } else {
            step = (uint64_t)units;
        }
    }
    for (uint32_t digits = 0; digits <= scale; digits++) { /* least common multiple; where it passes all limits, only zero is one */
        const uint64_t unit = power_of_ten(scale - digits);

        if (!sluice_mul_u64(step / greatest_divisor(step, unit), unit, &node->steps[digits]))
            node->steps[digits] = 0;
    }
    return true;
}

static bool make_string(compiler *c, const facts *f, node_list *out)
{
    sluice_node *node;

    if (f->length_min > f->length_max)
        return true;
    node = new_node(c, f->pattern != NULL || f->format != NULL ? SLUICE_NODE_PATTERN : SLUICE_NODE_STRING, out);
    if (node == NULL)
        return false;
    node->min = f->length_min;
    node->max = f->length_max;
    return node->kind == SLUICE_NODE_STRING || compile_pattern(c, f, &node->dfa);
}

/* What the schemas say of the items from the `index`-th on; with index UINT32_MAX, of those after all prefixes. */
static schema_list item_schemas(compiler *c, const schema_list *all, uint32_t index)
{
    schema_list list = { scratch(c, all->n, sizeof *list.items), 0 };

    for (uint32_t i = 0; i < all->n && list.items != NULL; i++) {
        const sluice_json *prefix = sluice_json_get(all->items[i], "prefixItems"), *one = NULL;

        if (prefix != NULL && index < prefix->n_children) {
            one = prefix->child;
            for (uint32_t k = 0; k < index; k++)
                one = one->next;
        } else {
            one = sluice_json_get(all->items[i], "items");
        }
        if (one != NULL)
            list.items[list.n++] = one;
    }
    return list;
}

static bool make_array(compiler *c, const facts *f, const schema_list *all, const sluice_json *root, node_list *out)
{
    sluice_node *node;
    schema_list list;
    size_t n_prefix = 0;

    if (f->items_min > f->items_max)
        return true;
    for (uint32_t i = 0; i < all->n; i++) {
        const sluice_json *prefix = sluice_json_get(all->items[i], "prefixItems");

        if (prefix != NULL && prefix->n_children > n_prefix)
            n_prefix = prefix->n_children;
    }
    if (n_prefix > VALUES_MAX || !does_work(c, (uint32_t)(n_prefix * n_prefix)))
        return fail(c, all->items[0], SLUICE_ERR_LIMIT, "too many schemas in", "prefixItems");
    node = new_node(c, SLUICE_NODE_ARRAY, out);
    if (node == NULL)
        return false;
    node->min = f->items_min;
    node->max = f->items_max;
    node->prefix = keep(c, n_prefix, sizeof *node->prefix);
    if (node->prefix == NULL)
        return false;
    for (uint32_t i = 0; i < n_prefix; i++) {
        list = item_schemas(c, all, i);
        node->prefix[node->n_prefix++] = value_of(c, &list, root);
    }
    list = item_schemas(c, all, UINT32_MAX);
    node->rest_choice = value_of(c, &list, root);
    return c->status == SLUICE_OK;
}

static bool add_property(compiler *c, sluice_node *node, const schema_list *all, const sluice_json *root, const char *name, const sluice_json *at)
{
    sluice_property *p = &node->properties[node->n_properties];
    schema_list list;
    sluice_buf text;
    bool ok;

    sluice_buf_init(&text, c->al, LITERAL_BYTES_MAX);
    ok = write_string(&text, name, strlen(name)) && sluice_buf_append_byte(&text, ':');
    if (!ok)
        ok = text.failed_limit ? fail(c, at, SLUICE_ERR_LIMIT, "a name is too long", NULL)
                               : fail(c, at, SLUICE_ERR_NO_MEMORY, "no memory for a name", NULL);
    else
        ok = make_literal(c, &p->text, sluice_buf_span(&text), at);
    sluice_buf_deinit(&text);
    if (!ok || !does_work(c, node->n_properties + 1))
        return false;
    for (uint32_t i = 0; i < node->n_properties; i++)
        if (same_literal(&node->properties[i].text, &p->text))
            return true; /* another schema has named it already */
    if (node->n_properties == SLUICE_OBJECT_MAX_PROPERTIES)
        return fail(c, at, SLUICE_ERR_LIMIT, "more than 128 properties in one object", NULL);
    p->is_required = is_required(all, name);
    list = property_schemas(c, all, name);
    p->choice = value_of(c, &list, root);
    node->has_escapes = node->has_escapes || memchr(p->text.bytes, '\\', p->text.len) != NULL;
    node->n_required += p->is_required;
    node->n_properties++;
    return c->status == SLUICE_OK;
}

static int compare_properties(const void *a, const void *b)
{
    return compare_literals(&((const sluice_property *)a)->text, &((const sluice_property *)b)->text);
}

static bool make_object(compiler *c, const facts *f, const schema_list *all, const sluice_json *root, node_list *out)
{
    sluice_node *node;

    if (f->properties_min > f->properties_max)
        return true;
    node = new_node(c, SLUICE_NODE_OBJECT, out);
    if (node == NULL)
        return false;
    node->min = f->properties_min;
    node->max = f->properties_max;
    if (c->properties == NULL)
        c->properties = scratch(c, SLUICE_OBJECT_MAX_PROPERTIES + 1, sizeof *c->properties); /* one more, to look at before it is counted */
    node->properties = c->properties;
    if (node->properties == NULL)
        return false;
    for (uint32_t i = 0; i < all->n; i++) {
        const sluice_json *properties = sluice_json_get(all->items[i], "properties"), *required = sluice_json_get(all->items[i], "required");

        for (const sluice_json *k = properties != NULL ? properties->child : NULL; k != NULL; k = k->next)
            if (!add_property(c, node, all, root, k->key, k))
                return false;
        for (const sluice_json *k = required != NULL ? required->child : NULL; k != NULL; k = k->next) {
            if (k->kind != SLUICE_JSON_STRING)
                return fail(c, k, SLUICE_ERR_FORMAT, "a list of names is expected for", "required");
            if (!add_property(c, node, all, root, k->string, k))
                return false;
        }
    }
    qsort(node->properties, node->n_properties, sizeof *node->properties, compare_properties);
    node->properties = keep(c, node->n_properties, sizeof *node->properties);
    if (node->properties == NULL)
        return false;
    memcpy(node->properties, c->properties, node->n_properties * sizeof *node->properties);
    node->by_cost = keep(c, node->n_properties, sizeof *node->by_cost);
    if (node->by_cost == NULL)
        return false;
    for (uint32_t i = 0; i < node->n_properties; i++)
        if (!node->properties[i].is_required)
            node->by_cost[node->n_by_cost++] = (uint16_t)i;
    if ((f->says_additional || !f->names_properties) && node->n_properties <= SLUICE_OBJECT_MAX_NAMES_BESIDE) {
        const schema_list list = property_schemas(c, all, NULL);

        node->rest_choice = value_of(c, &list, root);
    }
    if (node->n_required > node->max) { /* there is no such object */
        c->g->n_nodes--;
        out->n--;
    }
    return c->status == SLUICE_OK;
}

static bool compile_alternative(compiler *c, const schema_list *all, const sluice_json *root, node_list *out)
{
    facts f;

    if (!read_facts(c, all, &f))
        return false;
    if (f.values[0] != NULL)
        return make_listed(c, &f, out);
    return ((f.types & (T_NULL | T_BOOL)) == 0 || make_words(c, f.types, out)) && ((f.types & T_INTEGER) == 0 || make_number(c, &f, out)) &&
           ((f.types & T_STRING) == 0 || make_string(c, &f, out)) && ((f.types & T_ARRAY) == 0 || make_array(c, &f, all, root, out)) &&
           ((f.types & T_OBJECT) == 0 || make_object(c, &f, all, root, out));
}

static bool set_choice(compiler *c, uint32_t id, const uint32_t *nodes, uint32_t n)
{
    sluice_choice *choice = &c->g->choices[id];

    choice->nodes = keep(c, n, sizeof *choice->nodes);
    if (choice->nodes == NULL)
        return false;
    memcpy(choice->nodes, nodes, n * sizeof *nodes);
    choice->n = n;
    return true;
}

static bool compile_values(compiler *c)
{
    node_list *nodes = scratch(c, 1, sizeof *nodes);

    for (uint32_t i = 0; i < c->n_values && c->status == SLUICE_OK && nodes != NULL; i++) {
        const queued v = c->values[i];
        alternatives all;

        nodes->n = 0;
        if (!resolve_all(c, &v.all, v.root, &all))
            break;
        for (uint32_t k = 0; k < all.n; k++)
            if (!compile_alternative(c, &all.items[k], v.root, nodes))
                break;
        if (c->status == SLUICE_OK)
            (void)set_choice(c, v.choice, nodes->ids, nodes->n);
    }
    return c->status == SLUICE_OK;
}

/* ---- costs -------------------------------------------------------------------------------------------- */

static void sort_by_cost(const sluice_grammar *g, sluice_node *node)
{
    for (uint32_t i = 1; i < node->n_by_cost; i++) {
        const uint16_t p = node->by_cost[i];
        const uint32_t cost = sluice_cost_add(node->properties[p].text.costs[0], g->choices[node->properties[p].choice].cost);
        uint32_t k = i;

        for (; k > 0; k--) {
            const sluice_property *other = &node->properties[node->by_cost[k - 1]];

            if (sluice_cost_add(other->text.costs[0], g->choices[other->choice].cost) <= cost)
                break;
            node->by_cost[k] = node->by_cost[k - 1];
        }
        node->by_cost[k] = p;
    }
}

/* Costs only fall, and each round's are those of values that exist; so stopping early would be safe, if not the best. */
static bool find_costs(compiler *c)
{
    sluice_grammar *g = c->g;
    bool changed = true;

    for (uint32_t round = 0; changed && round < ROUNDS_MAX; round++) {
        changed = false;
        for (uint32_t i = g->n_nodes; i-- > 0;) {
            sluice_node *node = &g->nodes[i];
            uint32_t cost, depth;

            if (!does_work(c, (node->n_properties + node->n_prefix + node->n_literals) / 16 + 1))
                return false;
            if (node->kind == SLUICE_NODE_OBJECT && node->min > node->n_required)
                sort_by_cost(g, node);
            sluice_node_estimate(g, c->v, node, &cost, &depth);
            if (cost < node->cost) {
                node->cost = cost;
                node->depth = depth;
                changed = true;
            }
        }
        for (uint32_t i = 0; i < g->n_choices; i++)
            for (uint32_t k = 0; k < g->choices[i].n; k++) {
                const sluice_node *node = &g->nodes[g->choices[i].nodes[k]];

                if (node->cost < g->choices[i].cost) {
                    g->choices[i].cost = node->cost;
                    g->choices[i].depth = node->depth;
                    changed = true;
                }
            }
    }
    return true;
}

/* The cheapest first: where more alternatives begin with a byte than there can be threads, the one that a budget relies on is among them. */
static void sort_choices(sluice_grammar *g)
{
    for (uint32_t i = 0; i < g->n_choices; i++) {
        uint32_t *nodes = g->choices[i].nodes;

        for (uint32_t k = 1; k < g->choices[i].n; k++) {
            const uint32_t id = nodes[k];
            uint32_t at = k;

            for (; at > 0 && g->nodes[nodes[at - 1]].cost > g->nodes[id].cost; at--)
                nodes[at] = nodes[at - 1];
            nodes[at] = id;
        }
    }
}

/* From scratch to memory of just the size. */
static bool settle(compiler *c)
{
    sluice_grammar *g = c->g;
    sluice_node *nodes = keep(c, g->n_nodes, sizeof *nodes);
    sluice_choice *choices = keep(c, g->n_choices, sizeof *choices);

    if (nodes == NULL || choices == NULL)
        return false;
    memcpy(nodes, g->nodes, g->n_nodes * sizeof *nodes);
    memcpy(choices, g->choices, g->n_choices * sizeof *choices);
    g->nodes = nodes;
    g->choices = choices;
    g->n_nodes_max = g->n_nodes;
    g->n_choices_max = g->n_choices;
    return true;
}

/* ---- roots -------------------------------------------------------------------------------------------- */

/* `begin`, a value of the choice, `end`. */
static sluice_node *make_sequence(compiler *c, uint32_t n, sluice_span end)
{
    sluice_node *node = new_node(c, SLUICE_NODE_SEQUENCE, NULL);

    if (node == NULL)
        return NULL;
    node->literals = keep(c, 1, sizeof *node->literals);
    node->properties = keep(c, n, sizeof *node->properties);
    if (node->literals == NULL || node->properties == NULL || !make_literal(c, node->literals, end, NULL))
        return NULL;
    node->n_literals = 1;
    return node;
}

static bool add_begin(compiler *c, sluice_node *node, sluice_span text, uint32_t choice, const sluice_json *at)
{
    sluice_property *p = &node->properties[node->n_properties++];

    p->choice = choice;
    return make_literal(c, &p->text, text, at);
}

static bool compile_plain(compiler *c)
{
    schema_list list = { scratch(c, 1, sizeof *list.items), 0 };
    sluice_node *root = make_sequence(c, 1, SLUICE_SPAN_EMPTY);
    const sluice_json *schema = NULL;

    if (root == NULL || list.items == NULL)
        return false;
    c->g->root = c->g->n_nodes - 1;
    if (c->doc != NULL) {
        schema = sluice_json_root(c->doc);
        list.items[list.n++] = schema;
    }
    return add_begin(c, root, SLUICE_SPAN_EMPTY, value_of(c, &list, schema), NULL);
}

/* {"name": "x", "arguments": …}, spaced as the calls in the training data of the common families are. */
static bool add_tool(compiler *c, sluice_node *calls, const sluice_json *tool, const char *arguments_key, const char *only, bool *found)
{
    const sluice_json *type = sluice_json_get(tool, "type"), *function = sluice_json_get(tool, "function"), *name, *parameters;
    schema_list list = { scratch(c, 1, sizeof *list.items), 0 };
    uint32_t choice;
    sluice_buf text;
    bool ok;

    if (function == NULL || (type != NULL && (type->kind != SLUICE_JSON_STRING || strcmp(type->string, "function") != 0)))
        return fail(c, tool, SLUICE_ERR_FORMAT, "a tool is {\"type\": \"function\", \"function\": {…}}", NULL);
    name = sluice_json_get(function, "name");
    if (name == NULL || name->kind != SLUICE_JSON_STRING || name->string_len == 0 || name->string_len > 256)
        return fail(c, function, SLUICE_ERR_FORMAT, "a tool needs a name of at most 256 bytes", NULL);
    if (only != NULL && strcmp(only, name->string) != 0)
        return true;
    *found = true;
    parameters = sluice_json_get(function, "parameters");
    if (parameters != NULL) {
        if (list.items == NULL)
            return false;
        list.items[list.n++] = parameters;
        choice = value_of(c, &list, parameters);
    } else {
        sluice_node *empty = new_node(c, SLUICE_NODE_OBJECT, NULL); /* an object without properties */
        const uint32_t id = c->g->n_nodes - 1;

        choice = new_choice(c);
        if (empty == NULL || c->status != SLUICE_OK || !set_choice(c, choice, &id, 1))
            return false;
    }
    sluice_buf_init(&text, c->al, LITERAL_BYTES_MAX);
    ok = sluice_buf_append_str(&text, "{\"name\": ") && write_string(&text, name->string, name->string_len) && sluice_buf_append_str(&text, ", ") &&
         write_string(&text, arguments_key, strlen(arguments_key)) && sluice_buf_append_str(&text, ": ");
    ok = ok ? add_begin(c, calls, sluice_buf_span(&text), choice, name) : fail(c, name, SLUICE_ERR_NO_MEMORY, "no memory for a tool", NULL);
    sluice_buf_deinit(&text);
    return ok && c->status == SLUICE_OK;
}

static bool make_fails(compiler *c, sluice_node *text)
{
    const sluice_literal *begin = &text->literals[0];
    uint32_t k = 0;

    text->fails = keep(c, (size_t)begin->len + 1, sizeof *text->fails);
    if (text->fails == NULL)
        return false;
    for (uint32_t i = 1; i < begin->len; i++) {
        while (k > 0 && begin->bytes[i] != begin->bytes[k])
            k = text->fails[k];
        k += begin->bytes[i] == begin->bytes[k];
        text->fails[i + 1] = (uint16_t)k;
    }
    return true;
}

static bool compile_tools(compiler *c, const sluice_grammar_source *source)
{
    static const sluice_tool_format no_marks = { { NULL, 0 }, { NULL, 0 }, NULL };
    const sluice_tool_format *format = source->format != NULL ? source->format : &no_marks;
    const char *only = source->tool_choice == SLUICE_TOOL_NAMED ? source->tool_name : NULL;
    const sluice_json *tools = c->doc != NULL ? sluice_json_root(c->doc) : NULL;
    sluice_node *calls, *root;
    uint32_t calls_id, choice, root_id;
    bool found = false;

    if (tools == NULL || tools->kind != SLUICE_JSON_ARRAY)
        return fail(c, tools, SLUICE_ERR_FORMAT, "tools are a list", NULL);
    if (tools->n_children > TOOLS_MAX)
        return fail(c, tools, SLUICE_ERR_LIMIT, "more than 128 tools", NULL);
    if (source->tool_choice == SLUICE_TOOL_NAMED && only == NULL)
        return fail(c, NULL, SLUICE_ERR_ARGUMENT, "a tool is to be called by name, and no name is given", NULL);
    if (!sluice_utf8_valid(format->begin) || !sluice_utf8_valid(format->end))
        return fail(c, NULL, SLUICE_ERR_ARGUMENT, "the marks around a tool's call are no UTF-8", NULL);
    calls = make_sequence(c, (uint32_t)tools->n_children, SLUICE_SPAN_LIT("}"));
    calls_id = c->g->n_nodes - 1;
    for (const sluice_json *tool = tools->child; tool != NULL && calls != NULL; tool = tool->next)
        if (!add_tool(c, calls, tool, format->arguments_key != NULL ? format->arguments_key : "arguments", only, &found))
            return false;
    if (calls == NULL)
        return false;
    if (!found)
        return fail(c, tools, SLUICE_ERR_NOT_FOUND, only != NULL ? "there is no tool" : "there are no tools", only);
    qsort(calls->properties, calls->n_properties, sizeof *calls->properties, compare_properties);
    for (uint32_t i = 1; i < calls->n_properties; i++)
        if (same_literal(&calls->properties[i - 1].text, &calls->properties[i].text))
            return fail(c, tools, SLUICE_ERR_FORMAT, "two tools have the same name", NULL);
    choice = new_choice(c);
    if (c->status != SLUICE_OK || !set_choice(c, choice, &calls_id, 1))
        return false;
    root = make_sequence(c, 1, format->end);
    root_id = c->g->n_nodes - 1;
    if (root == NULL || !add_begin(c, root, format->begin, choice, NULL))
        return false;
    c->g->root = root_id;
    if (source->tool_choice != SLUICE_TOOL_AUTO)
        return true;
    root = new_node(c, SLUICE_NODE_TEXT, NULL);
    if (root == NULL)
        return false;
    root->literals = keep(c, 1, sizeof *root->literals);
    root->sequence = root_id;
    c->g->root = c->g->n_nodes - 1;
    return root->literals != NULL && make_literal(c, root->literals, format->begin, NULL) && make_fails(c, root);
}

/* ---- compiling ---------------------------------------------------------------------------------------- */

static sluice_status parse(compiler *c, const sluice_grammar_source *source)
{
    const sluice_json_limits limits = { SLUICE_CONSTRAINT_MAX_SCHEMA_BYTES, 64 };

    if (source->json.len == 0 && !source->is_tools)
        return SLUICE_OK;
    if (source->json.len > SLUICE_CONSTRAINT_MAX_SCHEMA_BYTES)
        return sluice_error_set(c->err, SLUICE_ERR_LIMIT, "schema: %zu bytes; the limit is %d", source->json.len, SLUICE_CONSTRAINT_MAX_SCHEMA_BYTES);
    return sluice_json_parse(&c->doc, source->json, &limits, c->al, c->err);
}

static sluice_status compile(compiler *c, const sluice_grammar_source *source)
{
    sluice_grammar *g = c->g;

    for (uint32_t b = 0x20; b < 0x7f; b++)
        if (!c->v->spells[b])
            return sluice_error_set(c->err, SLUICE_ERR_UNSUPPORTED, "constraint: the vocabulary has no token for the single byte 0x%02x", b);
    c->status = parse(c, source);
    if (c->status != SLUICE_OK)
        return c->status;
    c->values = scratch(c, VALUES_MAX, sizeof *c->values);
    g->n_nodes_max = NODES_MAX;
    g->nodes = scratch(c, g->n_nodes_max, sizeof *g->nodes);
    g->n_choices_max = VALUES_MAX + TOOLS_MAX + 2;
    g->choices = scratch(c, g->n_choices_max, sizeof *g->choices);
    if (c->status != SLUICE_OK)
        return c->status;
    if (!(source->is_tools ? compile_tools(c, source) : compile_plain(c)) || !compile_values(c) || !find_costs(c) || !settle(c))
        return c->status;
    sort_choices(g);
    if (g->nodes[g->root].kind == SLUICE_NODE_SEQUENCE &&
        (g->nodes[g->root].cost == SLUICE_COST_NEVER || g->nodes[g->root].depth > SLUICE_CONSTRAINT_MAX_DEPTH + 1u))
        (void)fail(c, c->doc != NULL ? sluice_json_root(c->doc) : NULL, SLUICE_ERR_ARGUMENT,
                   "no value satisfies it, or none that nests 32 deep at most", NULL);
    return c->status;
}

sluice_status sluice_grammar_compile(sluice_grammar *g, const sluice_constraint_vocab *v, const sluice_grammar_source *source,
                                     const sluice_allocator *al, sluice_error *err)
{
    compiler c = { .g = g, .v = v, .al = al, .text = source->json, .pattern_work = SLUICE_REGEX_WORK, .err = err };
    sluice_status st;

    memset(g, 0, sizeof *g);
    sluice_arena_init(&g->arena, al, ARENA_MAX);
    sluice_arena_init(&c.scratch, al, ARENA_MAX);
    st = compile(&c, source);
    sluice_json_close(c.doc);
    sluice_arena_deinit(&c.scratch);
    if (st != SLUICE_OK)
        sluice_grammar_deinit(g);
    return st;
}

void sluice_grammar_deinit(sluice_grammar *g)
{
    sluice_arena_deinit(&g->arena);
    memset(g, 0, sizeof *g);
}
