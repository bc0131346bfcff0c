/* fuzz_schema.c - any bytes as a schema or a list of tools: a status, or a constraint under which any choice of tokens ends in JSON within the budget.
 *
 * Byte 0 chooses: bit 0 tools or schema, bits 1 and 2 how tools are called; byte 1 how many tokens there are beside those that are needed; byte 2 seeds the
 * choices.  The rest is the text.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "local-engine/constraint.h"
#include "sdk/base/json.h"
#include "tests/unit/engine/gguf_samples.h"

enum { TEXT_MAX = 8192, OUT_MAX = 1 << 20, STEPS_MAX = 3000 };

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "fuzz_schema: %s\n", what);
        abort();
    }
}

static const sample_token pieces[] = {
    { "{\"", 1, 0 },  { "\":", 1, 0 }, { "\":\"", 1, 0 }, { "\",\"", 1, 0 }, { "\"}", 1, 0 },
    { "]}", 1, 0 },   { "[]", 1, 0 },  { "true", 1, 0 },  { "false", 1, 0 }, { "null", 1, 0 },
    { "12", 1, 0 },   { "007", 1, 0 }, { "1.5", 1, 0 },   { "e5", 1, 0 },    { "name", 1, 0 },
    { "ab", 1, 0 },   { "\\u", 1, 0 }, { "d83d", 1, 0 },  { "\\\"", 1, 0 },  { "\xc4\xa0\xc4\xa0", 1, 0 },
    { "[[[[", 1, 0 },
};

static const sluice_constraint_vocab *vocabulary(const sluice_tokenizer **tokenizer)
{
    static sluice_constraint_vocab *vocab;
    static sluice_tokenizer *opened;
    static sluice_gguf *gguf;
    static sluice_buf file;

    if (vocab == NULL) {
        sluice_buf_init(&file, NULL, OUT_MAX);
        sample_bpe(&file, &(sample_bpe_options){ .pre = "gpt-2", .tokens = pieces, .n_tokens = sizeof pieces / sizeof pieces[0] });
        must(sluice_gguf_open_span(&gguf, sluice_buf_span(&file), NULL, NULL) == SLUICE_OK &&
                 sluice_tokenizer_open(&opened, gguf, NULL, NULL) == SLUICE_OK &&
                 sluice_constraint_vocab_open(&vocab, opened, NULL, NULL) == SLUICE_OK,
             "no vocabulary");
    }
    *tokenizer = opened;
    return vocab;
}

/* A token of the mask. */
static int32_t choose(const uint32_t *bits, uint32_t n_vocab, uint32_t n, uint64_t *seed)
{
    uint32_t nth;

    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    nth = (uint32_t)((*seed >> 33) % n);
    for (uint32_t t = 0; t < n_vocab; t++)
        if ((bits[t / 32] >> t % 32 & 1) && nth-- == 0)
            return (int32_t)t;
    return -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint32_t bits[64];
    const sluice_tool_format format = { SLUICE_SPAN_LIT("<call>"), SLUICE_SPAN_LIT("</call>"), NULL };
    const sluice_tokenizer *tokenizer;
    const sluice_constraint_vocab *vocab = vocabulary(&tokenizer);
    const uint32_t n_vocab = sluice_tokenizer_n_vocab(tokenizer);
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_constraint *c;
    sluice_json_doc *doc;
    sluice_buf out;
    sluice_status st;
    uint64_t seed;
    uint32_t budget;
    bool is_tools;

    if (size < 3 || size > TEXT_MAX)
        return 0;
    is_tools = (data[0] & 1) != 0;
    seed = data[2];
    if (is_tools)
        st = sluice_constraint_open_tools_shared(&c, vocab, sluice_span_of(data + 3, size - 3), (sluice_tool_choice)((data[0] >> 1) % 3), "a",
                                                 &format, NULL, &err);
    else
        st = sluice_constraint_open_shared(&c, vocab, sluice_span_of(data + 3, size - 3), NULL, &err);
    if (st != SLUICE_OK) {
        must(c == NULL && err.status == st && err.message[0] != 0, "a failure without a message");
        must(st == SLUICE_ERR_FORMAT || st == SLUICE_ERR_UNSUPPORTED || st == SLUICE_ERR_ARGUMENT || st == SLUICE_ERR_LIMIT ||
                 st == SLUICE_ERR_NOT_FOUND,
             "a status that does not belong here");
        return 0;
    }
    budget = sluice_constraint_least_tokens(c) + data[1];
    sluice_buf_init(&out, NULL, OUT_MAX);
    if (budget <= STEPS_MAX) {
        must(sluice_constraint_set_budget(c, budget, NULL) == SLUICE_OK, "the budget it asked for is too small");
        for (uint32_t i = 0; i < budget; i++) {
            const uint32_t n = sluice_constraint_mask(c, bits);
            int32_t token;

            must(n > 0, "nothing is allowed");
            token = choose(bits, n_vocab, n, &seed);
            must(token >= 0 && sluice_constraint_allows(c, token), "the mask and the check differ");
            must(sluice_constraint_accept(c, token, NULL) == SLUICE_OK, "an allowed token is refused");
            if (sluice_tokenizer_is_end(tokenizer, token))
                break;
            must(sluice_buf_append_span(&out, sluice_tokenizer_bytes(tokenizer, token)), "too much text");
        }
        must(sluice_constraint_is_complete(c), "the budget is spent and the value is not whole");
        must(sluice_utf8_valid(sluice_buf_span(&out)), "no UTF-8");
        if (!is_tools) {
            must(sluice_json_parse(&doc, sluice_buf_span(&out), NULL, NULL, NULL) == SLUICE_OK, "no JSON");
            sluice_json_close(doc);
        }
    }
    sluice_buf_deinit(&out);
    sluice_constraint_close(c);
    return 0;
}
