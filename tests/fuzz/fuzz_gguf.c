/* fuzz_gguf.c - a model file may say anything: it is refused with a place, or all that it promises is there.
 *
 * A file that opens has tensors inside the file, in order, of the size that shape and type say, and every one is found by its name.
 * A vocabulary that opens encodes any text without a control token, within its range; a byte-level one gives the text back.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "local-engine/prompt.h"

enum { TOKENS_MAX = 512 };

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "fuzz_gguf: %s\n", what);
        abort();
    }
}

static void must_be_a_refusal(sluice_status st, const sluice_error *err, size_t size)
{
    must(st == SLUICE_ERR_FORMAT || st == SLUICE_ERR_LIMIT || st == SLUICE_ERR_UNSUPPORTED || st == SLUICE_ERR_NOT_FOUND, "another status");
    must(err->status == st && err->message[0] != '\0', "no message");
    must(!err->has_offset || err->offset <= size, "a place outside");
    must(sluice_utf8_valid(sluice_span_str(err->message)), "a message that is not UTF-8");
}

static void check_tensors(const sluice_gguf *g, size_t size)
{
    uint64_t end = sluice_gguf_data_offset(g);

    must(end <= size, "data begins outside");
    for (size_t i = 0; i < sluice_gguf_n_tensors(g); i++) {
        const sluice_gguf_tensor *t = sluice_gguf_tensor_at(g, i);
        char name[SLUICE_GGUF_MAX_NAME_BYTES + 1] = "";
        uint64_t bytes = 0;

        must(t->name.len <= SLUICE_GGUF_MAX_NAME_BYTES, "a long name");
        memcpy(name, t->name.ptr, t->name.len);
        must(sluice_gguf_tensor_find(g, name) == t, "a tensor not found by its name");
        must(t->offset >= end && t->offset <= size && t->bytes <= size - t->offset, "a tensor outside");
        must(t->offset % 8 == 0, "a tensor not aligned");
        must(sluice_tensor_row_bytes(t->type, t->ne[0], &bytes) && bytes * t->ne[1] * t->ne[2] * t->ne[3] == t->bytes, "another size");
        end = t->offset + t->bytes;
    }
}

static void ask_for_everything(const sluice_gguf *g)
{
    for (size_t i = 0; i < sluice_gguf_n_values(g); i++) {
        const sluice_gguf_value *v = sluice_gguf_value_at(g, i);
        char key[SLUICE_GGUF_MAX_NAME_BYTES + 1] = "";
        uint64_t u64, cursor = 0, n = 0;
        sluice_span text;
        uint32_t u32;
        int32_t i32;
        float f32;
        bool b;

        memcpy(key, v->key.ptr, v->key.len);
        must(sluice_gguf_find(g, key) == v, "a value not found by its key");
        (void)sluice_gguf_get_u32(g, key, &u32, NULL);
        (void)sluice_gguf_get_u64(g, key, &u64, NULL);
        (void)sluice_gguf_get_i32(g, key, &i32, NULL);
        if (sluice_gguf_get_f32(g, key, &f32, NULL) == SLUICE_OK)
            must(f32 - f32 == 0.0f, "a float that is not finite");
        (void)sluice_gguf_get_bool(g, key, &b, NULL);
        if (sluice_gguf_get_string(g, key, &text, NULL) == SLUICE_OK)
            must(sluice_utf8_valid(text), "a string that is not UTF-8");
        if (v->type != SLUICE_GGUF_ARRAY || v->item_type != SLUICE_GGUF_STRING)
            continue;
        while (sluice_gguf_array_next_string(v, &cursor, &text))
            n++;
        must(n == v->count, "another number of strings");
    }
}

static void encode_and_decode(const sluice_tokenizer *t)
{
    static const uint8_t text[] = "Hello  w\xc3\xb6rld <|bos|></s>\n\xff 12345 \xf0\x9f\x9a\x80 \xe2\x96\x81it's";
    int32_t tokens[TOKENS_MAX];
    size_t n = TOKENS_MAX, at = 0;
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_status st = sluice_tokenizer_encode(t, sluice_span_of(text, sizeof text - 1), false, tokens, &n, &err);
    bool exact = sluice_tokenizer_kind(t)[0] == 'b';

    if (st != SLUICE_OK) {
        must(st == SLUICE_ERR_UNSUPPORTED, "text that cannot be encoded");
        return;
    }
    must(n <= 3 * sizeof text, "more tokens than bytes");
    for (size_t i = 0; i < n; i++) {
        sluice_span s = sluice_tokenizer_bytes(t, tokens[i]);

        must(tokens[i] >= 0 && (uint32_t)tokens[i] < sluice_tokenizer_n_vocab(t), "a token out of range");
        if (sluice_tokenizer_is_control(t, tokens[i]))
            return; /* the unknown token: the bytes are lost, as the vocabulary wants it */
        if (exact)
            must(s.len <= sizeof text - 1 - at && (s.len == 0 || memcmp(text + at, s.ptr, s.len) == 0), "another text");
        at += s.len;
    }
    must(!exact || at == sizeof text - 1, "a shorter text");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_tokenizer *t = NULL;
    sluice_gguf *g = NULL;
    sluice_prompt prompt;
    sluice_status st = sluice_gguf_open_span(&g, sluice_span_of(data, size), NULL, &err);

    if (st != SLUICE_OK) {
        must(g == NULL && err.has_offset, "an output beside an error, or no place");
        must_be_a_refusal(st, &err, size);
        return 0;
    }
    check_tensors(g, size);
    ask_for_everything(g);
    st = sluice_tokenizer_open(&t, g, NULL, &err);
    if (st == SLUICE_OK) {
        encode_and_decode(t);
        st = sluice_prompt_init(&prompt, g, t, &err);
    } else {
        must(t == NULL, "a tokenizer beside an error");
    }
    if (st != SLUICE_OK)
        must_be_a_refusal(st, &err, size);
    sluice_tokenizer_close(t);
    sluice_gguf_close(g);
    return 0;
}
