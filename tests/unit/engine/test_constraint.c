/* test_constraint.c - constrained decoding ends in JSON of the schema, whatever the model prefers and however few tokens there are.
 *
 * The text that comes out is read by the strict reader and checked by a validator that knows nothing of the automaton: it walks schema and value.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "local-engine/constraint.h"
#include "local-engine/sampler.h"
#include "sdk/base/json.h"
#include "tests/support/cm.h"
#include "tests/support/fake_allocator.h"
#include "tests/support/test_files.h"
#include "tests/unit/engine/gguf_samples.h"

enum { FILE_MAX = 4 << 20, TEXT_MAX = 1 << 16, STEPS_MAX = 2000 };

/* ---- a vocabulary: all bytes, and pieces that cross the borders of JSON's parts */

#define SP "\xc4\xa0" /* a space, and a newline, as GPT-2's alphabet writes them */
#define NL "\xc4\x8a"
static const char *const pieces[] = {
    "{\"",
    "\":",
    "\":\"",
    "\",\"",
    "\"}",
    "},{\"",
    "]}",
    "}}",
    "[]",
    "{}",
    "[{\"",
    "\"]",
    "\":{\"",
    "\":[",
    "],\"",
    "},\"",
    "\":" SP,
    "\":" SP "\"",
    "\"," SP "\"",
    "," SP "\"",
    SP "{\"",
    SP "[",
    SP "\"",
    SP SP,
    SP SP SP SP,
    NL SP SP,
    "{" NL,
    "\"," NL,
    SP "}",
    "," NL,
    "\"\"",
    "\",",
    "\"\\",
    "true",
    "false",
    "null",
    "tr",
    "ue",
    "fal",
    "se",
    "12",
    "123",
    "00",
    "10",
    "007",
    "1.5",
    "e5",
    "E+",
    "-1",
    ".0",
    "99",
    "3.",
    "1e",
    "25",
    "2024",
    "-0",
    "name",
    "na",
    "me",
    "value",
    "val",
    "id",
    "age",
    "items",
    "city",
    "type",
    "kind",
    "alpha",
    "beta",
    "ab",
    "abc",
    "the" SP "cat",
    SP "the",
    "hello",
    "wor",
    "ld",
    "\\n",
    "\\u",
    "\\u00",
    "\\ud83d",
    "\\ude00",
    "\\\"",
    "\\\\",
    "\\u0000",
    "d83d",
    "name\":",
    "\"name\":\"",
    "id\":",
    "\"id\"",
    "\xc3\x83\xc2\xa9",
    "\xc3\xa2\xc4\xa4",
    "\xc3\xb0\xc5\x81",
    "arguments",
    "{\"name\":" SP "\"",
    "\"," SP "\"arguments\":" SP "{",
    "<tool",
    "_call>",
    "aaaa",
    "bb",
    "\"x\":1",
    "\"a\":{\"b\":",
    "[1,2",
    "1,2,3",
    "{\"a\":1}",
    "[[[[",
    "{\"a\":{\"a\":{\"a\":",
    "]]]]",
    "}}}}",
    ".com",
    "-01-",
    "T12:",
};
enum { N_PIECES = sizeof pieces / sizeof pieces[0] };

static sluice_buf file;
static sluice_gguf *gguf;
static sluice_tokenizer *tokenizer;
static sluice_constraint_vocab *vocab;
static uint32_t n_vocab;
static sluice_kernels kernels;
static void *scratch;

static int setup(void **state)
{
    static sample_token tokens[N_PIECES];
    sluice_error err = SLUICE_ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < N_PIECES; i++)
        tokens[i] = (sample_token){ pieces[i], 1, 0 };
    sluice_kernels_init(&kernels, 0);
    sluice_buf_init(&file, NULL, FILE_MAX);
    sample_bpe(&file, &(sample_bpe_options){ .pre = "gpt-2", .tokens = tokens, .n_tokens = N_PIECES });
    assert_int_equal(sluice_gguf_open_span(&gguf, sluice_buf_span(&file), NULL, NULL), SLUICE_OK);
    if (sluice_tokenizer_open(&tokenizer, gguf, NULL, &err) != SLUICE_OK)
        fail_msg("%s", err.message);
    assert_int_equal(sluice_constraint_vocab_open(&vocab, tokenizer, NULL, NULL), SLUICE_OK);
    n_vocab = sluice_tokenizer_n_vocab(tokenizer);
    scratch = malloc(sluice_sampler_bytes(n_vocab));
    assert_non_null(scratch);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(scratch);
    sluice_constraint_vocab_close(vocab);
    sluice_tokenizer_close(tokenizer);
    sluice_gguf_close(gguf);
    sluice_buf_deinit(&file);
    return 0;
}

static uint64_t seed = 1;

static uint32_t pick_below(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((seed >> 33) % n);
}

static sluice_constraint *open_schema(const char *schema)
{
    sluice_constraint *c;
    sluice_error err = SLUICE_ERROR_INIT;

    if (sluice_constraint_open_shared(&c, vocab, sluice_span_str(schema), NULL, &err) != SLUICE_OK)
        fail_msg("%s\n%s (%s)", schema, err.message, err.where);
    return c;
}

/* ---- a validator */

static bool same(const sluice_json *a, const sluice_json *b)
{
    const sluice_json *x, *y;

    if (a->kind != b->kind || a->n_children != b->n_children)
        return false;
    if (a->kind == SLUICE_JSON_NULL)
        return true;
    if (a->kind == SLUICE_JSON_BOOL)
        return a->boolean == b->boolean;
    if (a->kind == SLUICE_JSON_NUMBER)
        return !(a->number < b->number || a->number > b->number);
    if (a->kind == SLUICE_JSON_STRING)
        return strcmp(a->string, b->string) == 0;
    for (x = a->child, y = b->child; x != NULL; x = x->next) {
        if (a->kind == SLUICE_JSON_OBJECT)
            y = sluice_json_get(b, x->key);
        if (y == NULL || !same(x, y))
            return false;
        if (a->kind == SLUICE_JSON_ARRAY)
            y = y->next;
    }
    return true;
}

static bool has_type(const sluice_json *v, const char *type)
{
    switch (v->kind) {
    case SLUICE_JSON_NULL: return strcmp(type, "null") == 0;
    case SLUICE_JSON_BOOL: return strcmp(type, "boolean") == 0;
    case SLUICE_JSON_NUMBER: return strcmp(type, "number") == 0 || (strcmp(type, "integer") == 0 && v->number == floor(v->number));
    case SLUICE_JSON_STRING: return strcmp(type, "string") == 0;
    case SLUICE_JSON_ARRAY: return strcmp(type, "array") == 0;
    default: return strcmp(type, "object") == 0;
    }
}

static double n_points(const sluice_json *v)
{
    double n = 0;

    for (size_t i = 0; i < v->string_len; i++)
        n += ((uint8_t)v->string[i] & 0xc0) != 0x80;
    return n;
}

static bool validates(const sluice_json *schema, const sluice_json *v, const sluice_json *root);

static const sluice_json *follow(const sluice_json *root, const char *ref)
{
    char name[64];

    if (strcmp(ref, "#") == 0)
        return root;
    assert_int_equal(sscanf(ref, "#/$defs/%63s", name), 1);
    return sluice_json_get(sluice_json_get(root, "$defs"), name);
}

static bool check_object(const sluice_json *schema, const sluice_json *v, const sluice_json *root)
{
    const sluice_json *properties = sluice_json_get(schema, "properties"), *additional = sluice_json_get(schema, "additionalProperties");
    const sluice_json *required = sluice_json_get(schema, "required"), *k;

    for (k = v->child; k != NULL; k = k->next) {
        const sluice_json *one = properties != NULL ? sluice_json_get(properties, k->key) : NULL;

        if (one == NULL)
            one = additional;
        if (one != NULL && !validates(one, k, root))
            return false;
    }
    for (k = required != NULL ? required->child : NULL; k != NULL; k = k->next)
        if (sluice_json_get(v, k->string) == NULL)
            return false;
    k = sluice_json_get(schema, "minProperties");
    if (k != NULL && (double)v->n_children < k->number)
        return false;
    k = sluice_json_get(schema, "maxProperties");
    return k == NULL || (double)v->n_children <= k->number;
}

static bool check_array(const sluice_json *schema, const sluice_json *v, const sluice_json *root)
{
    const sluice_json *prefix = sluice_json_get(schema, "prefixItems"), *items = sluice_json_get(schema, "items"), *k, *p;

    p = prefix != NULL ? prefix->child : NULL;
    for (k = v->child; k != NULL; k = k->next) {
        const sluice_json *one = p != NULL ? p : items;

        if (one != NULL && !validates(one, k, root))
            return false;
        p = p != NULL ? p->next : NULL;
    }
    k = sluice_json_get(schema, "minItems");
    if (k != NULL && (double)v->n_children < k->number)
        return false;
    k = sluice_json_get(schema, "maxItems");
    return k == NULL || (double)v->n_children <= k->number;
}

static bool check_number(const sluice_json *schema, const sluice_json *v)
{
    const sluice_json *k;

    if ((k = sluice_json_get(schema, "minimum")) != NULL && v->number < k->number)
        return false;
    if ((k = sluice_json_get(schema, "maximum")) != NULL && v->number > k->number)
        return false;
    if ((k = sluice_json_get(schema, "exclusiveMinimum")) != NULL && v->number <= k->number)
        return false;
    if ((k = sluice_json_get(schema, "exclusiveMaximum")) != NULL && v->number >= k->number)
        return false;
    k = sluice_json_get(schema, "multipleOf");
    return k == NULL || fabs(v->number / k->number - nearbyint(v->number / k->number)) < 1e-9;
}

static bool validates(const sluice_json *schema, const sluice_json *v, const sluice_json *root)
{
    const sluice_json *k, *one;
    bool any = false;

    if (schema->kind == SLUICE_JSON_BOOL)
        return schema->boolean;
    if ((k = sluice_json_get(schema, "$ref")) != NULL && !validates(follow(root, k->string), v, root))
        return false;
    if ((k = sluice_json_get(schema, "type")) != NULL) {
        if (k->kind == SLUICE_JSON_STRING)
            any = has_type(v, k->string);
        else
            for (one = k->child; one != NULL; one = one->next)
                any = any || has_type(v, one->string);
        if (!any)
            return false;
    }
    if ((k = sluice_json_get(schema, "const")) != NULL && !same(k, v))
        return false;
    if ((k = sluice_json_get(schema, "enum")) != NULL) {
        for (any = false, one = k->child; one != NULL; one = one->next)
            any = any || same(one, v);
        if (!any)
            return false;
    }
    if ((k = sluice_json_get(schema, "anyOf")) != NULL) {
        for (any = false, one = k->child; one != NULL; one = one->next)
            any = any || validates(one, v, root);
        if (!any)
            return false;
    }
    if ((k = sluice_json_get(schema, "oneOf")) != NULL) {
        uint32_t n = 0;

        for (one = k->child; one != NULL; one = one->next)
            n += validates(one, v, root);
        if (n != 1)
            return false;
    }
    for (one = (k = sluice_json_get(schema, "allOf")) != NULL ? k->child : NULL; one != NULL; one = one->next)
        if (!validates(one, v, root))
            return false;
    switch (v->kind) {
    case SLUICE_JSON_OBJECT: return check_object(schema, v, root);
    case SLUICE_JSON_ARRAY: return check_array(schema, v, root);
    case SLUICE_JSON_NUMBER: return check_number(schema, v);
    case SLUICE_JSON_STRING:
        if ((k = sluice_json_get(schema, "minLength")) != NULL && n_points(v) < k->number)
            return false;
        return (k = sluice_json_get(schema, "maxLength")) == NULL || n_points(v) <= k->number;
    default: return true;
    }
}

/* ---- models */

typedef enum model_kind { RANDOM, SPACES, DIGITS, QUOTES, FORBIDDEN, OPENERS, LETTERS, BACKSLASHES, COMMAS, N_MODELS } model_kind;

static void make_logits(model_kind kind, sluice_constraint *c, float *logits)
{
    static const char *const loved[] = { "", " \n", "0123456789.-e", "\"", "", "[{", "abcdefghijklmnopqrstuvwxyz\xc3\xf0", "\\u", ",:" };

    for (uint32_t i = 0; i < n_vocab; i++) {
        const sluice_span text = sluice_tokenizer_bytes(tokenizer, (int32_t)i);

        logits[i] = (float)pick_below(2000) / 100;
        if (kind == FORBIDDEN)
            logits[i] += sluice_constraint_allows(c, (int32_t)i) ? 0 : 100;
        else if (text.len > 0 && text.ptr[0] != 0 && strchr(loved[kind], text.ptr[0]) != NULL)
            logits[i] += 30;
    }
}

/* Decode with at most `budget` tokens.  The number of tokens, or -1 where the constraint had nothing to allow. */
static int decode(sluice_constraint *c, model_kind kind, float temperature, uint32_t budget, sluice_buf *text)
{
    const sluice_engine_sampling sampling = {
        .temperature = temperature, .top_k = pick_below(3) * 20, .top_p = pick_below(2) ? 1.0f : 0.9f, .seed = seed
    };
    float *logits = malloc(n_vocab * sizeof *logits);
    sluice_sampler s;
    int n = 0;

    assert_non_null(logits);
    assert_int_equal(sluice_sampler_init(&s, &kernels, &sampling, n_vocab, scratch, NULL), SLUICE_OK);
    while ((uint32_t)n < budget) {
        sluice_sample sample;

        if (sluice_constraint_set_budget(c, budget - (uint32_t)n, NULL) != SLUICE_OK) {
            n = -1;
            break;
        }
        make_logits(kind, c, logits);
        sluice_sampler_pick(&s, logits, c, &sample);
        if (sample.id < 0 || sluice_constraint_accept(c, sample.id, NULL) != SLUICE_OK) {
            n = -1;
            break;
        }
        if (sluice_tokenizer_is_end(tokenizer, sample.id))
            break;
        assert_true(sluice_buf_append_span(text, sluice_tokenizer_bytes(tokenizer, sample.id)));
        n++;
    }
    free(logits);
    return n;
}

static void check_text(const char *schema, sluice_span text)
{
    sluice_json_doc *schema_doc = NULL, *doc = NULL;
    sluice_error err = SLUICE_ERROR_INIT;

    if (schema[0] != 0)
        assert_int_equal(sluice_json_parse(&schema_doc, sluice_span_str(schema), &(sluice_json_limits){ 0, 64 }, NULL, NULL), SLUICE_OK);
    if (sluice_json_parse(&doc, text, NULL, NULL, &err) != SLUICE_OK)
        fail_msg("no JSON: %s\nschema: %s\ntext: %.*s", err.message, schema, (int)text.len, (const char *)text.ptr);
    if (schema_doc != NULL && !validates(sluice_json_root(schema_doc), sluice_json_root(doc), sluice_json_root(schema_doc)))
        fail_msg("not of the schema\nschema: %s\ntext: %.*s", schema, (int)text.len, (const char *)text.ptr);
    sluice_json_close(doc);
    sluice_json_close(schema_doc);
}

static void run_models(const char *schema, uint32_t rounds)
{
    sluice_constraint *c = open_schema(schema);
    const uint32_t needed = sluice_constraint_least_tokens(c);

    for (uint32_t i = 0; i < rounds; i++) {
        const model_kind kind = (model_kind)(i % N_MODELS);
        const uint32_t budget = needed + (pick_below(3) == 0 ? 0 : pick_below(60));
        sluice_buf text;
        int n;

        sluice_buf_init(&text, NULL, TEXT_MAX);
        sluice_constraint_reset(c);
        n = decode(c, kind, (float)pick_below(3), budget, &text);
        if (n < 0)
            fail_msg("stuck with a budget of %u (%u needed), model %d\nschema: %s\ntext: %.*s", budget, needed, (int)kind, schema, (int)text.len,
                     (const char *)text.ptr);
        if (!sluice_constraint_is_complete(c))
            fail_msg("not complete after %d of %u tokens\nschema: %s\ntext: %.*s", n, budget, schema, (int)text.len, (const char *)text.ptr);
        check_text(schema, sluice_buf_span(&text));
        sluice_buf_deinit(&text);
    }
    sluice_constraint_close(c);
}

static const char *const schemas[] = {
    "",
    "{}",
    "true",
    "{\"type\":\"string\"}",
    "{\"type\":\"string\",\"minLength\":3,\"maxLength\":5}",
    "{\"type\":\"string\",\"maxLength\":0}",
    "{\"type\":\"integer\"}",
    "{\"type\":\"integer\",\"minimum\":-5,\"maximum\":17}",
    "{\"type\":\"integer\",\"minimum\":95,\"maximum\":105}",
    "{\"type\":\"integer\",\"exclusiveMinimum\":-1000,\"exclusiveMaximum\":-10,\"multipleOf\":7}",
    "{\"type\":\"integer\",\"multipleOf\":1000}",
    "{\"type\":\"integer\",\"minimum\":0.5,\"maximum\":1.5}",
    "{\"type\":\"number\"}",
    "{\"type\":\"number\",\"minimum\":0,\"maximum\":1}",
    "{\"type\":\"number\",\"exclusiveMinimum\":0}",
    "{\"type\":\"number\",\"minimum\":0.25,\"maximum\":0.75,\"multipleOf\":0.25}",
    "{\"type\":[\"string\",\"null\",\"integer\"]}",
    "{\"type\":\"boolean\"}",
    "{\"type\":\"null\"}",
    "{\"enum\":[\"red\",\"green\",\"re\",1,10,100,null,{\"a\":[1,2]},\"\\n\\\"x\"]}",
    "{\"const\":{\"a\":[true,\"\\u00e9\",1.50]}}",
    "{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":2,\"maxItems\":3}",
    "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"string\"},{\"type\":\"null\"}],\"items\":false,\"minItems\":1}",
    "{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"boolean\"},\"minItems\":1},\"minItems\":1}",
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":\"integer\",\"minimum\":0}},\"required\":[\"name\","
    "\"age\"]}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"},\"ab\":{\"type\":\"boolean\"},\"abc\":{\"enum\":[1]}},\"minProperties\":2}",
    "{\"type\":\"object\",\"properties\":{\"a\":true,\"b\":false},\"maxProperties\":1}",
    "{\"type\":\"object\"}",
    "{\"type\":\"object\",\"minProperties\":4,\"additionalProperties\":{\"type\":\"integer\"}}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"\":{\"type\":\"null\"}},\"additionalProperties\":{\"type\":\"string\"},"
    "\"minProperties\":3,"
    "\"maxProperties\":4}",
    "{\"type\":\"object\",\"properties\":{\"na\\\"me\":{\"type\":\"integer\"},\"\\u00e9\":{\"type\":\"null\"}},\"required\":[\"na\\\"me\"],"
    "\"additionalProperties\":true}",
    "{\"anyOf\":[{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"a\"},\"x\":{\"type\":\"integer\"}},\"required\":[\"kind\",\"x\"]},"
    "{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"ab\"},\"y\":{\"type\":\"string\"}},\"required\":[\"kind\"]},{\"type\":\"string\"}]}",
    "{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"type\":{\"const\":\"a\"},\"v\":{\"type\":\"integer\"}},\"required\":[\"type\"]},"
    "{\"type\":\"object\",\"properties\":{\"type\":{\"const\":\"b\"},\"v\":{\"type\":\"null\"}},\"required\":[\"type\",\"v\"]},{\"type\":\"array\","
    "\"maxItems\":1}]}",
    "{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":[\"a\"]},{\"properties\":{\"a\":{\"minimum\":3,"
    "\"maximum\":4},"
    "\"b\":{\"type\":\"null\"}}}]}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"integer\"}},\"anyOf\":[{\"required\":[\"a\"]},{\"required\":"
    "[\"b\"]}]}",
    "{\"$defs\":{\"node\":{\"type\":\"object\",\"properties\":{\"value\":{\"type\":\"integer\"},\"next\":{\"anyOf\":[{\"type\":\"null\"},{\"$ref\":"
    "\"#/$defs/node\"}]}},"
    "\"required\":[\"value\",\"next\"]}},\"$ref\":\"#/$defs/node\"}",
    "{\"$defs\":{\"tree\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/tree\"}}},\"$ref\":\"#/$defs/tree\"}",
    "{\"type\":\"array\",\"items\":{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"number\"},{\"type\":\"integer\",\"minimum\":5}]}}",
    "{\"type\":\"array\",\"minItems\":3,\"items\":{\"anyOf\":[{\"type\":\"string\",\"maxLength\":2},{\"type\":\"string\",\"minLength\":4},{\"const\":"
    "\"hello\"}]}}",
};

static void every_model_ends_in_a_value_of_the_schema(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof schemas / sizeof schemas[0]; i++)
        run_models(schemas[i], 10 * N_MODELS);
}

/* ---- random schemas */

static void put_schema(sluice_buf *b, uint32_t depth);

static void put_object(sluice_buf *b, uint32_t depth)
{
    static const char *const names[] = { "a", "ab", "name", "id", "x\\\"y", "kind", "\\u00fc" };
    const uint32_t n = pick_below(5), first = pick_below(7);

    (void)sluice_buf_append_str(b, "{\"type\":\"object\",\"properties\":{");
    for (uint32_t i = 0; i < n; i++) {
        (void)sluice_buf_appendf(b, "%s\"%s\":", i > 0 ? "," : "", names[(first + i) % 7]);
        put_schema(b, depth);
    }
    (void)sluice_buf_append_str(b, "},\"required\":[");
    for (uint32_t i = 0, k = 0; i < n; i++)
        if (pick_below(2))
            (void)sluice_buf_appendf(b, "%s\"%s\"", k++ > 0 ? "," : "", names[(first + i) % 7]);
    (void)sluice_buf_append_str(b, "]");
    if (pick_below(3) == 0) {
        (void)sluice_buf_append_str(b, ",\"additionalProperties\":");
        put_schema(b, depth);
        if (pick_below(2))
            (void)sluice_buf_appendf(b, ",\"minProperties\":%u", pick_below(4));
    }
    (void)sluice_buf_append_str(b, "}");
}

static void put_schema(sluice_buf *b, uint32_t depth)
{
    const int low = (int)pick_below(300) - 150;

    switch (pick_below(depth > 0 ? 12 : 7)) {
    case 0: (void)sluice_buf_append_str(b, "{\"type\":\"boolean\"}"); return;
    case 1: (void)sluice_buf_appendf(b, "{\"type\":\"integer\",\"minimum\":%d,\"maximum\":%d}", low, low + (int)pick_below(200)); return;
    case 2: (void)sluice_buf_appendf(b, "{\"type\":\"string\",\"minLength\":%u,\"maxLength\":%u}", pick_below(4), 4 + pick_below(5)); return;
    case 3: (void)sluice_buf_append_str(b, pick_below(2) ? "{\"type\":[\"null\",\"string\"]}" : "{\"enum\":[\"alpha\",\"beta\",7,77,null]}"); return;
    case 4: (void)sluice_buf_append_str(b, "{\"type\":\"number\"}"); return;
    case 5: (void)sluice_buf_append_str(b, "{\"type\":\"string\"}"); return;
    case 6:
        (void)sluice_buf_appendf(b, "{\"type\":\"number\",\"minimum\":%d.%u,\"maximum\":%u.5}", low, pick_below(100), pick_below(100) + 151);
        return;
    case 7:
    case 8:
        (void)sluice_buf_appendf(b, "{\"type\":\"array\",\"minItems\":%u,\"maxItems\":%u,\"items\":", pick_below(3), 3 + pick_below(3));
        put_schema(b, depth - 1);
        (void)sluice_buf_append_str(b, "}");
        return;
    case 9:
        (void)sluice_buf_append_str(b, "{\"anyOf\":[");
        put_schema(b, depth - 1);
        (void)sluice_buf_append_str(b, ",");
        put_schema(b, depth - 1);
        (void)sluice_buf_append_str(b, "]}");
        return;
    default: put_object(b, depth - 1); return;
    }
}

static void random_schemas_and_models_agree_with_the_validator(void **state)
{
    (void)state;
    seed = 4711;
    for (uint32_t i = 0; i < 300; i++) {
        sluice_buf schema;
        char *text;

        sluice_buf_init(&schema, NULL, TEXT_MAX);
        put_schema(&schema, 3);
        text = sluice_buf_take_str(&schema);
        assert_non_null(text);
        run_models(text, N_MODELS);
        sluice_str_free(NULL, text);
    }
}

static void many_alternatives_keep_the_cheapest(void **state)
{
    sluice_buf b;
    char *schema;

    (void)state;
    sluice_buf_init(&b, NULL, TEXT_MAX);
    (void)sluice_buf_append_str(&b, "{\"type\":\"array\",\"minItems\":2,\"items\":{\"anyOf\":[");
    for (int i = 0; i < 40; i++) /* the last is the shortest, and all begin alike */
        (void)sluice_buf_appendf(&b,
                                 "%s{\"type\":\"object\",\"properties\":{\"aaaa\":{\"type\":\"string\",\"minLength\":%d}},\"required\":[\"aaaa\"]}",
                                 i > 0 ? "," : "", 45 - i);
    (void)sluice_buf_append_str(&b, "]}}");
    schema = sluice_buf_take_str(&b);
    assert_non_null(schema);
    run_models(schema, 10 * N_MODELS);
    sluice_str_free(NULL, schema);
}

/* All 64 begin with the same brace; the discriminator comes later, and with any of them a model may mean it. */
static void each_of_64_alternatives_can_be_chosen(void **state)
{
    enum { N = 64 };
    sluice_buf b;
    char *schema;
    sluice_constraint *c;

    (void)state;
    sluice_buf_init(&b, NULL, TEXT_MAX);
    (void)sluice_buf_append_str(&b, "{\"anyOf\":[");
    for (int i = 0; i < N; i++)
        (void)sluice_buf_appendf(&b,
                                 "%s{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"k%02d\"},\"v%d\":{\"type\":\"null\"}},"
                                 "\"required\":[\"kind\"]}",
                                 i > 0 ? "," : "", i, i);
    (void)sluice_buf_append_str(&b, "]}");
    schema = sluice_buf_take_str(&b);
    assert_non_null(schema);
    c = open_schema(schema);
    for (int i = 0; i < N; i++) {
        char want[64];

        (void)snprintf(want, sizeof want, "{\"kind\":\"k%02d\",\"v%d\":null}", i, i);
        sluice_constraint_reset(c);
        for (const char *at = want; *at != '\0'; at++) {
            int32_t token = -1;

            for (uint32_t t = 0; t < n_vocab && token < 0; t++)
                if (sluice_span_eq(sluice_tokenizer_bytes(tokenizer, (int32_t)t), sluice_span_of((const uint8_t *)at, 1)))
                    token = (int32_t)t;
            if (sluice_constraint_accept(c, token, NULL) != SLUICE_OK)
                fail_msg("%s: not beyond %d bytes", want, (int)(at - want));
        }
        assert_true(sluice_constraint_is_complete(c));
    }
    sluice_constraint_close(c);
    sluice_str_free(NULL, schema);
}

static void equal_patterns_are_compiled_once(void **state)
{
    sluice_buf b;
    sluice_constraint *c;

    (void)state;
    sluice_buf_init(&b, NULL, TEXT_MAX);
    (void)sluice_buf_append_str(&b, "{\"type\":\"object\",\"properties\":{");
    for (int i = 0; i < 100; i++)
        (void)sluice_buf_appendf(&b, "%s\"p%d\":{\"type\":\"string\",\"format\":\"date-time\"}", i > 0 ? "," : "", i);
    (void)sluice_buf_append_str(&b, "}}");
    assert_int_equal(sluice_constraint_open_shared(&c, vocab, sluice_buf_span(&b), NULL, NULL), SLUICE_OK);
    sluice_constraint_close(c);
    sluice_buf_deinit(&b);
}

/* ---- masks */

static void the_mask_is_what_allows_says(void **state)
{
    uint32_t *bits = calloc((n_vocab + 31) / 32, sizeof *bits);

    (void)state;
    assert_non_null(bits);
    seed = 99;
    for (size_t i = 0; i < sizeof schemas / sizeof schemas[0]; i++)
        for (uint32_t round = 0; round < 6; round++) {
            sluice_constraint *c = open_schema(schemas[i]);
            uint32_t left = sluice_constraint_least_tokens(c) + pick_below(40);
            const bool has_budget = round % 2 == 0;

            for (; left > 0; left--) {
                uint32_t n, count = 0, nth;
                int32_t taken = -1;

                if (has_budget)
                    assert_int_equal(sluice_constraint_set_budget(c, left, NULL), SLUICE_OK);
                n = sluice_constraint_mask(c, bits);
                for (uint32_t t = 0; t < n_vocab; t++) {
                    const bool in = bits[t / 32] >> t % 32 & 1;

                    if (in != sluice_constraint_allows(c, (int32_t)t))
                        fail_msg("token %u: mask says %d\nschema: %s", t, in, schemas[i]);
                    count += in;
                }
                assert_int_equal(n, count);
                assert_true(n > 0);
                nth = pick_below(n);
                for (uint32_t t = 0; t < n_vocab && taken < 0; t++)
                    if ((bits[t / 32] >> t % 32 & 1) && nth-- == 0)
                        taken = (int32_t)t;
                assert_int_equal(sluice_constraint_accept(c, taken, NULL), SLUICE_OK);
                if (sluice_tokenizer_is_end(tokenizer, taken))
                    break;
            }
            sluice_constraint_close(c);
        }
    free(bits);
}

static bool accepts(sluice_constraint *c, const char *text)
{
    bool ok = true;

    sluice_constraint_reset(c);
    for (size_t i = 0; text[i] != 0 && ok; i++)
        ok = sluice_constraint_accept(c, SAMPLE_BPE_BYTE_0 + (uint8_t)text[i], NULL) == SLUICE_OK;
    return ok && sluice_constraint_is_complete(c);
}

static void texts_are_taken_or_refused(void **state)
{
    static const struct {
        const char *schema, *text;
        bool taken;
    } cases[] = {
        { "", "{\"a\": [1, 2.5e3, null]}", true },
        { "", "{\n  \"a\": true\n}", true },
        { "", "{\"a\":1,\"a\":2}", false },
        { "", "{\"a\":1,\"a2\":2,\"\":3}", true },
        { "", "01", false },
        { "", "-0", true },
        { "", "\"\\u0000\"", false },
        { "", "\"\\ud83d\\ude00\"", true },
        { "", "\"\\ud83dx\"", false },
        { "", "\"\\ude00\"", false },
        { "", "\"\xc3\xa9\xf0\x9f\x98\x80\"", true },
        { "", "\"\xc0\x80\"", false },
        { "", "\"\xed\xa0\x80\"", false },
        { "", "\"a\nb\"", false },
        { "", "[1,]", false },
        { "", "{\"a\":1,}", false },
        { "", "            1", false }, /* too much white space */
        { "{\"properties\":{\"a\":{},\"b\":{}},\"type\":\"object\"}", "{\"b\":1,\"a\":2}", true },
        { "{\"properties\":{\"a\":{},\"b\":{}},\"type\":\"object\"}", "{\"b\":1,\"b\":2}", false },
        { "{\"properties\":{\"a\":{},\"b\":{}},\"type\":\"object\"}", "{\"c\":1}", false },
        { "{\"properties\":{\"a\":{}},\"type\":\"object\",\"additionalProperties\":true}", "{\"c\":1,\"a\":2,\"ab\":3}", true },
        { "{\"properties\":{\"a\":{\"type\":\"null\"}},\"type\":\"object\",\"additionalProperties\":true}", "{\"a\":1}", false },
        { "{\"properties\":{\"a\":{\"type\":\"null\"}},\"type\":\"object\",\"additionalProperties\":true}", "{\"a\":null,\"a\":null}", false },
        { "{\"type\":\"integer\"}", "-12", true },
        { "{\"type\":\"integer\"}", "1.0", false },
        { "{\"type\":\"integer\",\"minimum\":10,\"maximum\":20}", "9", false },
        { "{\"type\":\"integer\",\"minimum\":10,\"maximum\":20}", "1", false },
        { "{\"type\":\"integer\",\"minimum\":10,\"maximum\":20}", "20", true },
        { "{\"type\":\"integer\",\"minimum\":10,\"maximum\":20}", "21", false },
        { "{\"type\":\"number\",\"minimum\":0.5,\"maximum\":1}", "0.75", true },
        { "{\"type\":\"number\",\"minimum\":0.5,\"maximum\":1}", "0.4", false },
        { "{\"enum\":[1,10]}", "1", true },
        { "{\"enum\":[1,10]}", "10", true },
        { "{\"enum\":[1,10]}", "100", false },
        { "{\"type\":\"string\",\"maxLength\":2}", "\"\\u00e9\xc3\xa9\"", true },
        { "{\"type\":\"string\",\"maxLength\":2}", "\"abc\"", false },
        { "{\"type\":\"string\",\"minLength\":2}", "\"\\ud83d\\ude00\"", false },
        { "{\"type\":\"string\",\"pattern\":\"^a+b{2,3}$\"}", "\"aabb\"", true },
        { "{\"type\":\"string\",\"pattern\":\"^a+b{2,3}$\"}", "\"abbbb\"", false },
        { "{\"type\":\"string\",\"pattern\":\"b\"}", "\"abc\"", true },
        { "{\"type\":\"string\",\"pattern\":\"b\"}", "\"ac\"", false },
        { "{\"type\":\"string\",\"pattern\":\"^(x|y\\\\d)*$\"}", "\"xy1x\"", true },
        { "{\"type\":\"string\",\"pattern\":\"^[^a]$\"}", "\"\\n\"", true },
        { "{\"type\":\"string\",\"pattern\":\"^[^a]$\"}", "\"\\\"\"", true },
        { "{\"type\":\"string\",\"pattern\":\"^.$\"}", "\"\xe2\x82\xac\"", true },
        { "{\"type\":\"string\",\"pattern\":\"^[\\u00e0-\\u00ef]$\"}", "\"\xc3\xa9\"", true },
        { "{\"type\":\"string\",\"pattern\":\"^[\\u00e0-\\u00ef]$\"}", "\"\xc3\xb9\"", false },
        { "{\"type\":\"string\",\"pattern\":\"^a*$\",\"minLength\":2,\"maxLength\":3}", "\"aaaa\"", false },
        { "{\"type\":\"string\",\"pattern\":\"^a*$\",\"minLength\":2,\"maxLength\":3}", "\"aa\"", true },
        { "{\"type\":\"string\",\"format\":\"date\"}", "\"2024-02-28\"", true },
        { "{\"type\":\"string\",\"format\":\"date\"}", "\"2024-02-30\"", false },
        { "{\"type\":\"string\",\"format\":\"date-time\"}", "\"2024-02-28T12:00:00Z\"", true },
        { "{\"type\":\"string\",\"format\":\"uuid\"}", "\"123e4567-e89b-12d3-a456-426614174000\"", true },
        { "{\"type\":\"string\",\"format\":\"email\"}", "\"a.b@example.com\"", true },
        { "{\"type\":\"string\",\"format\":\"email\"}", "\"a.b@com\"", false },
        { "{\"enum\":[\"ab\",\"cd\"],\"pattern\":\"^a\"}", "\"cd\"", false },
        { "{\"enum\":[\"ab\",\"cd\"],\"pattern\":\"^a\"}", "\"ab\"", true },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sluice_constraint *c = open_schema(cases[i].schema);

        if (accepts(c, cases[i].text) != cases[i].taken)
            fail_msg("case %zu: %s %s %s", i, cases[i].schema, cases[i].taken ? "refuses" : "takes", cases[i].text);
        sluice_constraint_close(c);
    }
}

static void nesting_stops_at_32(void **state)
{
    char text[80];
    sluice_constraint *c = open_schema("");

    (void)state;
    memset(text, '[', 33);
    text[32] = 0;
    memset(text + 32, ']', 32);
    text[64] = 0;
    assert_true(accepts(c, text));
    memset(text, '[', 33);
    text[33] = 0;
    assert_false(accepts(c, text));
    sluice_constraint_close(c);
}

/* ---- what is refused */

static void schemas_are_refused_with_their_place(void **state)
{
    static const struct {
        const char *schema;
        sluice_status status;
        const char *message, *where;
    } cases[] = {
        { "{\"type\":\"string\",\"contentEncoding\":\"base64\"}", SLUICE_ERR_UNSUPPORTED, "contentEncoding", "#/contentEncoding" },
        { "{\"properties\":{\"a\":{\"not\":{}}}}", SLUICE_ERR_UNSUPPORTED, "not", "#/properties/a/not" },
        { "{\"items\":{\"anyOf\":[{},{\"uniqueItems\":true}]}}", SLUICE_ERR_UNSUPPORTED, "uniqueItems", "#/items/anyOf/1/uniqueItems" },
        { "{\"patternProperties\":{}}", SLUICE_ERR_UNSUPPORTED, "patternProperties", "#/patternProperties" },
        { "{\"items\":[]}", SLUICE_ERR_UNSUPPORTED, "items", "#/items" },
        { "{\"type\":\"strin\"}", SLUICE_ERR_FORMAT, "type", "#/type" },
        { "{\"minLength\":-1}", SLUICE_ERR_FORMAT, "minLength", "#/minLength" },
        { "{\"minLength\":\"1\"}", SLUICE_ERR_FORMAT, "minLength", "#/minLength" },
        { "7", SLUICE_ERR_FORMAT, "object, true or false", "#" },
        { "{", SLUICE_ERR_FORMAT, "json", "" },
        { "false", SLUICE_ERR_ARGUMENT, "no value", "#" },
        { "{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}", SLUICE_ERR_ARGUMENT, "no value", "#" },
        { "{\"type\":\"integer\",\"minimum\":1,\"maximum\":6,\"multipleOf\":7}", SLUICE_ERR_ARGUMENT, "no value", "#" },
        { "{\"type\":\"array\",\"minItems\":1,\"items\":{\"$ref\":\"#\"}}", SLUICE_ERR_ARGUMENT, "no value", "#" },
        { "{\"$ref\":\"#\"}", SLUICE_ERR_FORMAT, "refers to itself", "#" },
        { "{\"$ref\":\"#/$defs/x\"}", SLUICE_ERR_FORMAT, "nothing at", "#/$ref" },
        { "{\"$ref\":\"https://example.com/x\"}", SLUICE_ERR_UNSUPPORTED, "$ref", "#/$ref" },
        { "{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", SLUICE_ERR_UNSUPPORTED, "oneOf", "#/oneOf/1" },
        { "{\"type\":\"string\",\"pattern\":\"(?=a)\"}", SLUICE_ERR_UNSUPPORTED, "groups", "#/pattern" },
        { "{\"type\":\"string\",\"pattern\":\"a\\\\1\"}", SLUICE_ERR_UNSUPPORTED, "escape", "#/pattern" },
        { "{\"type\":\"string\",\"pattern\":\"[a\"}", SLUICE_ERR_FORMAT, "]", "#/pattern" },
        { "{\"type\":\"string\",\"pattern\":\"(((a{1000}){1000}){1000})\"}", SLUICE_ERR_LIMIT, "states", "#/pattern" },
        { "{\"type\":\"string\",\"pattern\":\"(a|b)*a(a|b){60}$\"}", SLUICE_ERR_LIMIT, "states", "#/pattern" },
        { "{\"type\":\"string\",\"format\":\"hostname\"}", SLUICE_ERR_UNSUPPORTED, "hostname", "#/format" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sluice_error err = SLUICE_ERROR_INIT;
        sluice_constraint *c = (sluice_constraint *)(void *)&err;
        const sluice_status st = sluice_constraint_open_shared(&c, vocab, sluice_span_str(cases[i].schema), NULL, &err);

        if (st != cases[i].status || strstr(err.message, cases[i].message) == NULL || strcmp(err.where, cases[i].where) != 0)
            fail_msg("%s: %d, \"%s\" at \"%s\"", cases[i].schema, (int)st, err.message, err.where);
        assert_null(c);
        assert_true(cases[i].where[0] == 0 || err.line == 1);
    }
}

static void hostile_schemas_meet_a_limit(void **state)
{
    sluice_buf b;
    sluice_constraint *c;
    sluice_error err = SLUICE_ERROR_INIT;

    (void)state;
    /* anyOf inside allOf multiplies */
    sluice_buf_init(&b, NULL, 1 << 18);
    (void)sluice_buf_append_str(&b, "{\"allOf\":[");
    for (int i = 0; i < 20; i++)
        (void)sluice_buf_appendf(&b, "%s{\"anyOf\":[{\"minLength\":%d},{\"maxLength\":%d}]}", i > 0 ? "," : "", i, i);
    (void)sluice_buf_append_str(&b, "]}");
    assert_int_equal(sluice_constraint_open_shared(&c, vocab, sluice_buf_span(&b), NULL, &err), SLUICE_ERR_LIMIT);
    sluice_buf_deinit(&b);
    /* each definition refers twice to the next */
    sluice_buf_init(&b, NULL, 1 << 18);
    (void)sluice_buf_append_str(&b, "{\"$ref\":\"#/$defs/d0\",\"$defs\":{");
    for (int i = 0; i < 60; i++)
        (void)sluice_buf_appendf(&b, "\"d%d\":{\"allOf\":[{\"$ref\":\"#/$defs/d%d\"},{\"$ref\":\"#/$defs/d%d\"}]},", i, i + 1, i + 1);
    (void)sluice_buf_append_str(&b, "\"d60\":{}}}");
    assert_int_equal(sluice_constraint_open_shared(&c, vocab, sluice_buf_span(&b), NULL, &err), SLUICE_ERR_LIMIT);
    sluice_buf_deinit(&b);
    /* more properties than a frame has bits for */
    sluice_buf_init(&b, NULL, 1 << 18);
    (void)sluice_buf_append_str(&b, "{\"type\":\"object\",\"properties\":{");
    for (int i = 0; i < 200; i++)
        (void)sluice_buf_appendf(&b, "%s\"p%d\":{}", i > 0 ? "," : "", i);
    (void)sluice_buf_append_str(&b, "}}");
    assert_int_equal(sluice_constraint_open_shared(&c, vocab, sluice_buf_span(&b), NULL, &err), SLUICE_ERR_LIMIT);
    assert_non_null(strstr(err.message, "128"));
    sluice_buf_deinit(&b);
}

/* ---- budgets */

static void too_small_a_budget_is_a_status_before_decoding(void **state)
{
    sluice_constraint *c =
        open_schema("{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"minLength\":5}},\"required\":[\"name\"]}");
    const uint32_t needed = sluice_constraint_least_tokens(c);
    sluice_error err = SLUICE_ERROR_INIT;

    (void)state;
    assert_true(needed > 3 && needed < 15);
    assert_int_equal(sluice_constraint_set_budget(c, needed - 1, &err), SLUICE_ERR_LIMIT);
    assert_int_equal(sluice_constraint_set_budget(c, needed, &err), SLUICE_OK);
    sluice_constraint_close(c);
}

static void accepting_counts_the_budget_down(void **state)
{
    sluice_constraint *c = open_schema("{\"type\":\"string\"}");

    (void)state;
    assert_int_equal(sluice_constraint_set_budget(c, 3, NULL), SLUICE_OK);
    assert_int_equal(sluice_constraint_accept(c, SAMPLE_BPE_BYTE_0 + '"', NULL), SLUICE_OK);
    assert_int_equal(sluice_constraint_accept(c, SAMPLE_BPE_BYTE_0 + 'a', NULL), SLUICE_OK);
    assert_false(sluice_constraint_allows(c, SAMPLE_BPE_BYTE_0 + 'a'));
    assert_int_equal(sluice_constraint_accept(c, SAMPLE_BPE_BYTE_0 + 'a', NULL), SLUICE_ERR_STATE);
    assert_int_equal(sluice_constraint_accept(c, SAMPLE_BPE_BYTE_0 + '"', NULL), SLUICE_OK);
    assert_true(sluice_constraint_is_complete(c) && sluice_constraint_has_ended(c));
    assert_true(sluice_constraint_allows(c, 1)); /* the end token */
    assert_false(sluice_constraint_allows(c, 0));
    sluice_constraint_close(c);
}

static void forced_runs_are_the_only_way_on(void **state)
{
    sluice_constraint *c =
        open_schema("{\"type\":\"object\",\"properties\":{\"name\":{\"const\":\"hello\"},\"nature\":{\"type\":\"null\"}},\"required\":[\"name\"]}");
    int32_t tokens[32];
    uint32_t n;
    char text[64] = "";

    (void)state;
    assert_int_equal(sluice_constraint_forced(c, tokens, 32), 0); /* a space may come */
    for (const char *p = "{\"nam"; *p != 0; p++)
        assert_int_equal(sluice_constraint_accept(c, SAMPLE_BPE_BYTE_0 + (uint8_t)*p, NULL), SLUICE_OK);
    n = sluice_constraint_forced(c, tokens, 32);
    assert_true(n > 0);
    for (uint32_t i = 0; i < n; i++) {
        const sluice_span s = sluice_tokenizer_bytes(tokenizer, tokens[i]);

        strncat(text, (const char *)s.ptr, s.len);
        assert_int_equal(sluice_constraint_accept(c, tokens[i], NULL), SLUICE_OK);
    }
    assert_string_equal(text, "e\":");
    sluice_constraint_close(c);
}

/* ---- the sampler under a constraint */

static void draws_follow_the_renormalised_distribution(void **state)
{
    enum { DRAWS = 40000 };
    const sluice_engine_sampling sampling = { .temperature = 0.8f, .top_p = 1, .seed = 3 };
    sluice_constraint *c =
        open_schema("{\"type\":\"object\",\"properties\":{\"a\":{\"type\":[\"integer\",\"string\",\"null\"]}},\"required\":[\"a\"]}");
    float *logits = malloc(n_vocab * sizeof *logits);
    double *p = calloc(n_vocab, sizeof *p), total = 0;
    uint32_t *count = calloc(n_vocab, sizeof *count);
    sluice_sampler s;

    (void)state;
    assert_true(logits != NULL && p != NULL && count != NULL);
    for (const char *at = "{\"a\":"; *at != 0; at++)
        assert_int_equal(sluice_constraint_accept(c, SAMPLE_BPE_BYTE_0 + (uint8_t)*at, NULL), SLUICE_OK);
    seed = 5;
    for (uint32_t t = 0; t < n_vocab; t++) { /* what is not allowed is far ahead */
        const bool allowed = sluice_constraint_allows(c, (int32_t)t);

        logits[t] = (float)pick_below(300) / 100 + (allowed ? 0 : 200);
        p[t] = allowed ? exp((double)logits[t] / 0.8) : 0;
        total += p[t];
    }
    assert_int_equal(sluice_sampler_init(&s, &kernels, &sampling, n_vocab, scratch, NULL), SLUICE_OK);
    for (uint32_t i = 0; i < DRAWS; i++) {
        sluice_sample got;

        sluice_sampler_pick(&s, logits, c, &got);
        assert_true(got.id >= 0);
        count[got.id]++;
    }
    for (uint32_t t = 0; t < n_vocab; t++) {
        const double share = p[t] / total, seen = (double)count[t] / DRAWS;

        if (fabs(seen - share) > 5 * sqrt(share * (1 - share) / DRAWS))
            fail_msg("token %u came in %.4f of the draws, not %.4f", t, seen, share);
    }
    free(logits);
    free(p);
    free(count);
    sluice_constraint_close(c);
}

static void nothing_left_gives_no_token(void **state)
{
    sluice_logit_bias bias[2] = { { SAMPLE_BPE_BYTE_0 + 'n', -INFINITY }, { 0, 0 } };
    sluice_constraint *c = open_schema("{\"type\":\"null\"}");
    float *logits = calloc(n_vocab, sizeof *logits);

    (void)state;
    assert_non_null(logits);
    for (uint32_t t = 0; t < n_vocab && bias[1].token == 0; t++)
        if (sluice_span_eq_str(sluice_tokenizer_bytes(tokenizer, (int32_t)t), "null"))
            bias[1] = (sluice_logit_bias){ (int32_t)t, -INFINITY };
    for (float temperature = 0; temperature < 2; temperature++) {
        const sluice_engine_sampling sampling = { .temperature = temperature, .top_p = 1, .logit_bias = bias, .n_logit_bias = 2 };
        sluice_sampler s;
        sluice_sample got;

        sluice_constraint_reset(c);
        assert_int_equal(sluice_constraint_set_budget(c, 1, NULL), SLUICE_OK);
        assert_int_equal(sluice_sampler_init(&s, &kernels, &sampling, n_vocab, scratch, NULL), SLUICE_OK);
        sluice_sampler_pick(&s, logits, c, &got);
        assert_int_equal(got.id, SLUICE_TOKEN_NONE);
    }
    free(logits);
    sluice_constraint_close(c);
}

/* ---- tools */

static const char tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"get_time\"}},{\"type\":\"function\",\"function\":{\"name\":\"get_weather\","
    "\"description\":\"x\",\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"$ref\":\"#/$defs/c\"}},\"required\":[\"city\"],"
    "\"$defs\":{\"c\":{\"enum\":[\"Oslo\",\"Rome\"]}}}}}]";

static void calls_of_tools_are_whole(void **state)
{
    static const sluice_tool_format format = { { (const uint8_t *)"<tool_call>\n", 12 }, { (const uint8_t *)"\n</tool_call>", 13 }, NULL };
    static const struct {
        sluice_tool_choice choice;
        const char *name;
        bool marks;
        const char *text;
        bool taken;
    } cases[] = {
        { SLUICE_TOOL_REQUIRED, NULL, true, "<tool_call>\n{\"name\": \"get_time\", \"arguments\": {}}\n</tool_call>", true },
        { SLUICE_TOOL_REQUIRED, NULL, true, "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\":\"Oslo\"}}\n</tool_call>", true },
        { SLUICE_TOOL_REQUIRED, NULL, true, "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {}}\n</tool_call>", false },
        { SLUICE_TOOL_REQUIRED, NULL, true, "Hello", false },
        { SLUICE_TOOL_REQUIRED, NULL, false, "{\"name\": \"get_time\", \"arguments\": {}}", true },
        { SLUICE_TOOL_NAMED, "get_weather", true, "<tool_call>\n{\"name\": \"get_time\", \"arguments\": {}}\n</tool_call>", false },
        { SLUICE_TOOL_NAMED, "get_time", true, "<tool_call>\n{\"name\": \"get_time\", \"arguments\": {}}\n</tool_call>", true },
        { SLUICE_TOOL_AUTO, NULL, true, "Hello, <tool", true },
        { SLUICE_TOOL_AUTO, NULL, true, "I look: <<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>",
          true },
        { SLUICE_TOOL_AUTO, NULL, true, "<tool_call>\nno", false },
        { SLUICE_TOOL_AUTO, NULL, false, "{\"name\": \"get_time\", \"arguments\": {}}", true },
        { SLUICE_TOOL_AUTO, NULL, false, "{\"x\"", false },
        { SLUICE_TOOL_AUTO, NULL, false, "An answer with {braces}.", true },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sluice_constraint *c;
        sluice_error err = SLUICE_ERROR_INIT;

        if (sluice_constraint_open_tools_shared(&c, vocab, sluice_span_str(tools), cases[i].choice, cases[i].name, cases[i].marks ? &format : NULL,
                                                NULL, &err) != SLUICE_OK)
            fail_msg("case %zu: %s", i, err.message);
        if (accepts(c, cases[i].text) != cases[i].taken)
            fail_msg("case %zu: %s", i, cases[i].text);
        sluice_constraint_close(c);
    }
}

static void every_model_calls_a_tool_in_its_budget(void **state)
{
    static const sluice_tool_format format = { { (const uint8_t *)"<tool_call>", 11 }, { (const uint8_t *)"</tool_call>", 12 }, "parameters" };
    sluice_constraint *c;

    (void)state;
    seed = 17;
    for (int choice = SLUICE_TOOL_AUTO; choice <= SLUICE_TOOL_REQUIRED; choice++) {
        assert_int_equal(
            sluice_constraint_open_tools_shared(&c, vocab, sluice_span_str(tools), (sluice_tool_choice)choice, NULL, &format, NULL, NULL), SLUICE_OK);
        for (uint32_t i = 0; i < 20 * N_MODELS; i++) {
            sluice_buf text;

            sluice_buf_init(&text, NULL, TEXT_MAX);
            sluice_constraint_reset(c);
            assert_true(decode(c, (model_kind)(i % N_MODELS), (float)(i % 2), sluice_constraint_least_tokens(c) + pick_below(80), &text) >= 0);
            assert_true(sluice_constraint_is_complete(c));
            assert_true(sluice_utf8_valid(sluice_buf_span(&text)));
            sluice_buf_deinit(&text);
        }
        sluice_constraint_close(c);
    }
}

static void tools_that_are_none_are_refused(void **state)
{
    static const struct {
        const char *tools;
        sluice_tool_choice choice;
        const char *name;
        sluice_status status;
    } cases[] = {
        { "{}", SLUICE_TOOL_AUTO, NULL, SLUICE_ERR_FORMAT },
        { "[]", SLUICE_TOOL_AUTO, NULL, SLUICE_ERR_NOT_FOUND },
        { "[{\"type\":\"x\"}]", SLUICE_TOOL_AUTO, NULL, SLUICE_ERR_FORMAT },
        { "[{\"function\":{}}]", SLUICE_TOOL_AUTO, NULL, SLUICE_ERR_FORMAT },
        { "[{\"function\":{\"name\":\"a\"}},{\"function\":{\"name\":\"a\"}}]", SLUICE_TOOL_AUTO, NULL, SLUICE_ERR_FORMAT },
        { "[{\"function\":{\"name\":\"a\"}}]", SLUICE_TOOL_NAMED, "b", SLUICE_ERR_NOT_FOUND },
        { "[{\"function\":{\"name\":\"a\"}}]", SLUICE_TOOL_NAMED, NULL, SLUICE_ERR_ARGUMENT },
        { "[{\"function\":{\"name\":\"a\",\"parameters\":{\"if\":{}}}}]", SLUICE_TOOL_AUTO, NULL, SLUICE_ERR_UNSUPPORTED },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sluice_constraint *c;

        assert_int_equal(
            sluice_constraint_open_tools_shared(&c, vocab, sluice_span_str(cases[i].tools), cases[i].choice, cases[i].name, NULL, NULL, NULL),
            cases[i].status);
        assert_null(c);
    }
}

/* ---- memory */

static sluice_status open_and_close(const sluice_allocator *al, void *user)
{
    sluice_constraint *c = (sluice_constraint *)user;
    const sluice_status st = sluice_constraint_open(&c, tokenizer,
                                                    sluice_span_str("{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"pattern\":\"^"
                                                                    "a|b$\"},\"b\":{\"enum\":[1,\"x\"]}},\"required\":[\"a\"]}"),
                                                    al, NULL);

    assert_true((st == SLUICE_OK) == (c != NULL));
    sluice_constraint_close(c);
    return st;
}

static void every_failed_allocation_is_a_status(void **state)
{
    (void)state;
    assert_true(fake_allocator_sweep(open_and_close, scratch) != SIZE_MAX);
}

static void decoding_allocates_nothing(void **state)
{
    fake_allocator fa;
    sluice_constraint *c;
    sluice_buf text;
    size_t n_allocs;

    (void)state;
    fake_allocator_init(&fa);
    assert_int_equal(sluice_constraint_open(&c, tokenizer, SLUICE_SPAN_EMPTY, &fa.al, NULL), SLUICE_OK);
    n_allocs = fa.n_allocs;
    sluice_buf_init(&text, NULL, TEXT_MAX);
    assert_true(decode(c, RANDOM, 1, 200, &text) > 0);
    assert_int_equal(fa.n_allocs, n_allocs);
    sluice_buf_deinit(&text);
    sluice_constraint_close(c);
    assert_true(fake_allocator_is_clean(&fa));
}

/* ---- a real vocabulary */

static void a_real_vocabulary_gives_the_same_masks_and_values(void **state)
{
    const char *data = getenv("SLUICE_TEST_DATA");
    char path[512];
    FILE *in;
    uint8_t *bytes;
    long size;
    sluice_gguf *g;
    sluice_tokenizer *t;
    sluice_constraint_vocab *v;
    uint32_t *bits, n;

    (void)state;
    (void)snprintf(path, sizeof path, "%s/vocab/ggml-vocab-gpt-2.gguf", data != NULL ? data : "");
    in = data != NULL ? fopen(path, "rb") : NULL;
    if (in == NULL) {
        print_message("SLUICE_TEST_DATA has no vocab/ggml-vocab-gpt-2.gguf\n");
        skip();
    }
    assert_int_equal(fseek(in, 0, SEEK_END), 0);
    size = ftell(in);
    assert_true(size > 0);
    rewind(in);
    bytes = malloc((size_t)size);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, (size_t)size, in), (size_t)size);
    (void)fclose(in);
    assert_int_equal(sluice_gguf_open_span(&g, sluice_span_of(bytes, (size_t)size), NULL, NULL), SLUICE_OK);
    assert_int_equal(sluice_tokenizer_open(&t, g, NULL, NULL), SLUICE_OK);
    assert_int_equal(sluice_constraint_vocab_open(&v, t, NULL, NULL), SLUICE_OK);
    n = sluice_tokenizer_n_vocab(t);
    bits = calloc((n + 31) / 32, sizeof *bits);
    assert_non_null(bits);
    seed = 31;
    for (size_t i = 0; i < sizeof schemas / sizeof schemas[0]; i++) {
        sluice_constraint *c;
        sluice_buf text;
        uint32_t left;

        sluice_buf_init(&text, NULL, TEXT_MAX);
        assert_int_equal(sluice_constraint_open_shared(&c, v, sluice_span_str(schemas[i]), NULL, NULL), SLUICE_OK);
        left = sluice_constraint_least_tokens(c) + pick_below(12);
        for (; left > 0; left--) {
            uint32_t nth;
            int32_t taken = -1;

            assert_int_equal(sluice_constraint_set_budget(c, left, NULL), SLUICE_OK);
            nth = sluice_constraint_mask(c, bits);
            assert_true(nth > 0);
            nth = pick_below(nth);
            for (uint32_t k = 0; k < n; k++) {
                const bool in_mask = bits[k / 32] >> k % 32 & 1;

                if (in_mask != sluice_constraint_allows(c, (int32_t)k))
                    fail_msg("token %u: mask says %d\nschema: %s", k, in_mask, schemas[i]);
                if (in_mask && nth-- == 0)
                    taken = (int32_t)k;
            }
            assert_int_equal(sluice_constraint_accept(c, taken, NULL), SLUICE_OK);
            if (sluice_tokenizer_is_end(t, taken))
                break;
            assert_true(sluice_buf_append_span(&text, sluice_tokenizer_bytes(t, taken)));
        }
        check_text(schemas[i], sluice_buf_span(&text));
        sluice_buf_deinit(&text);
        sluice_constraint_close(c);
    }
    free(bits);
    sluice_constraint_vocab_close(v);
    sluice_tokenizer_close(t);
    sluice_gguf_close(g);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_taken_or_refused),
        cmocka_unit_test(nesting_stops_at_32),
        cmocka_unit_test(schemas_are_refused_with_their_place),
        cmocka_unit_test(hostile_schemas_meet_a_limit),
        cmocka_unit_test(too_small_a_budget_is_a_status_before_decoding),
        cmocka_unit_test(accepting_counts_the_budget_down),
        cmocka_unit_test(forced_runs_are_the_only_way_on),
        cmocka_unit_test(the_mask_is_what_allows_says),
        cmocka_unit_test(every_model_ends_in_a_value_of_the_schema),
        cmocka_unit_test(random_schemas_and_models_agree_with_the_validator),
        cmocka_unit_test(many_alternatives_keep_the_cheapest),
        cmocka_unit_test(each_of_64_alternatives_can_be_chosen),
        cmocka_unit_test(equal_patterns_are_compiled_once),
        cmocka_unit_test(draws_follow_the_renormalised_distribution),
        cmocka_unit_test(nothing_left_gives_no_token),
        cmocka_unit_test(calls_of_tools_are_whole),
        cmocka_unit_test(every_model_calls_a_tool_in_its_budget),
        cmocka_unit_test(tools_that_are_none_are_refused),
        cmocka_unit_test(every_failed_allocation_is_a_status),
        cmocka_unit_test(decoding_allocates_nothing),
        cmocka_unit_test(a_real_vocabulary_gives_the_same_masks_and_values),
    };

    return cmocka_run_group_tests_name("constraint", tests, setup, teardown);
}
