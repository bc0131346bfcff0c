/* tokenizer_bpe.c - byte-level byte-pair encoding by merge rank (tokenizer.ggml.model = "gpt2").
 *
 * A pre-tokenizer cuts the text into words; inside a word every byte is a symbol, and the pair that stands first in the list of merges
 * merges first.  Vocabularies are written in an alphabet of 256 printable characters, one for each byte; it is undone once, on
 * opening, so that encoding works on bytes and token numbers alone: a merge is (left token, right token) -> token.
 *
 * The pre-tokenizers are the regular expressions of the models' authors, written out as loops: each is one pass with a bounded look
 * ahead, so that no text can make it backtrack.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>

#include "local-engine/tokenizer_impl.h"
#include "local-engine/unicode.h"

enum { MERGES_MAX = 1 << 20, MERGE_BUDGET_PER_ENTRY = 32, MERGE_BUDGET_BASE = 4096 };

/* ---- pre-tokenizers ------------------------------------------------------------------------------------- */

/* A code point in its text.  Past the end: len 0, and a class that is none. */
enum { CLASS_END = 7 };
typedef struct place {
    uint32_t code_point, len;
    int cls;
} place;

static place look(sluice_span s, size_t at)
{
    place p = { 0, 0, CLASS_END };

    if (at < s.len) {
        p.code_point = sluice_unicode_decode(s, at, &p.len);
        p.cls = (int)sluice_unicode_class_of(p.code_point);
    }
    return p;
}

static bool is_symbol(int cls) /* [^\s\p{L}\p{N}] */
{
    return cls == SLUICE_UNICODE_OTHER || cls == SLUICE_UNICODE_PUNCTUATION;
}

/* The end of the run of characters of this class (symbols and punctuation count as one) that begins at `at`. */
static size_t run_end(sluice_span s, size_t at, int cls)
{
    place p = look(s, at);

    while (p.len > 0 && (p.cls == cls || (is_symbol(cls) && is_symbol(p.cls)))) {
        at += p.len;
        p = look(s, at);
    }
    return at;
}

/* Length of 's 't 'm 'd 're 've 'll at `at`, else 0. */
static size_t contraction(sluice_span s, size_t at, bool any_case)
{
    uint8_t a, b = 0, fold = any_case ? 0x20 : 0;

    if (s.ptr[at] != '\'' || s.len - at < 2)
        return 0;
    a = s.ptr[at + 1];
    if (a >= 'A' && a <= 'Z')
        a |= fold;
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    if (s.len - at < 3)
        return 0;
    b = s.ptr[at + 2];
    if (b >= 'A' && b <= 'Z')
        b |= fold;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* \s+(?!\S)|\s+ : a run of white space leaves its last character to the word that follows, where there is one. */
static size_t space_run_end(sluice_span s, size_t at)
{
    size_t end = at, last = at;
    place p = look(s, end);

    while (p.cls == SLUICE_UNICODE_SPACE) {
        last = end;
        end += p.len;
        p = look(s, end);
    }
    return p.len > 0 && last > at ? last : end;
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
static size_t split_gpt2(sluice_span s, size_t at)
{
    size_t n = contraction(s, at, false);
    place p = look(s, at);

    if (n > 0)
        return at + n;
    if (p.code_point == ' ') {
        place next = look(s, at + 1);

        if (next.len > 0 && next.cls != SLUICE_UNICODE_SPACE)
            return run_end(s, at + 1, next.cls);
    }
    if (p.cls == SLUICE_UNICODE_SPACE)
        return space_run_end(s, at);
    return run_end(s, at, p.cls);
}

/* \p{N}{1,digits_max}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ , where symbols may also be followed by "/" */
static size_t split_wordless(sluice_span s, size_t at, int digits_max, bool slash)
{
    place p = look(s, at), next = look(s, at + p.len);
    size_t line_end = 0, end;

    if (p.cls == SLUICE_UNICODE_NUMBER) {
        for (int i = 0; i < digits_max && p.cls == SLUICE_UNICODE_NUMBER; i++) {
            at += p.len;
            p = look(s, at);
        }
        return at;
    }
    if (is_symbol(p.cls) || (p.code_point == ' ' && is_symbol(next.cls))) {
        at = run_end(s, p.code_point == ' ' ? at + 1 : at, SLUICE_UNICODE_OTHER);
        while (at < s.len && (s.ptr[at] == '\r' || s.ptr[at] == '\n' || (slash && s.ptr[at] == '/')))
            at++;
        return at;
    }
    end = run_end(s, at, SLUICE_UNICODE_SPACE);
    for (size_t i = at; i < end; i++)
        if (s.ptr[i] == '\r' || s.ptr[i] == '\n')
            line_end = i + 1;
    return line_end > 0 ? line_end : space_run_end(s, at);
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+| and the rest, as above */
static size_t split_llama3(sluice_span s, size_t at, int digits_max)
{
    size_t n = contraction(s, at, true);
    place p = look(s, at), next = look(s, at + p.len);

    if (n > 0)
        return at + n;
    if (p.cls == SLUICE_UNICODE_LETTER)
        return run_end(s, at, SLUICE_UNICODE_LETTER);
    if (p.code_point != '\r' && p.code_point != '\n' && p.cls != SLUICE_UNICODE_NUMBER && next.cls == SLUICE_UNICODE_LETTER)
        return run_end(s, at + p.len, SLUICE_UNICODE_LETTER);
    return split_wordless(s, at, digits_max, false);
}

static size_t split_llama_bpe(sluice_span s, size_t at)
{
    return split_llama3(s, at, 3);
}

static size_t split_qwen2(sluice_span s, size_t at)
{
    return split_llama3(s, at, 1);
}

/* Letters that may stand in the front of a word (Lu Lt Lm Lo M), and those that may end it (Ll Lm Lo M). */
static bool is_head(sluice_unicode_kind k)
{
    return k == SLUICE_UNICODE_KIND_UPPER || k == SLUICE_UNICODE_KIND_LETTER || k == SLUICE_UNICODE_KIND_NONSPACING || k == SLUICE_UNICODE_KIND_MARK;
}

static bool is_tail(sluice_unicode_kind k)
{
    return k == SLUICE_UNICODE_KIND_LOWER || (is_head(k) && k != SLUICE_UNICODE_KIND_UPPER);
}

/* [head]*[tail]+ from `at`, else [head]+[tail]*; `at` where neither is.  The first gives letters back to let the tail have one: it ends at the
 * last head that is also a tail.  *is_first tells which it was. */
static size_t cased_word_end(sluice_span s, size_t at, bool *is_first)
{
    size_t last_tail = at, end = at;
    place p = look(s, end);
    sluice_unicode_kind k = p.len > 0 ? sluice_unicode_kind_of(p.code_point) : SLUICE_UNICODE_KIND_OTHER;

    while (p.len > 0 && is_head(k)) {
        end += p.len;
        if (is_tail(k))
            last_tail = end;
        p = look(s, end);
        k = p.len > 0 ? sluice_unicode_kind_of(p.code_point) : SLUICE_UNICODE_KIND_OTHER;
    }
    *is_first = true;
    if (p.len > 0 && is_tail(k)) {
        while (p.len > 0 && is_tail(sluice_unicode_kind_of(p.code_point))) {
            end += p.len;
            p = look(s, end);
        }
        return end;
    }
    if (last_tail > at)
        return last_tail;
    *is_first = false;
    return end;
}

/* [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|
 * [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*| and the rest, as above; both, for GPT-4o, with a contraction behind */
static size_t split_cased(sluice_span s, size_t at, int digits_max, bool contracts)
{
    place p = look(s, at);
    bool prefix = p.code_point != '\r' && p.code_point != '\n' && p.cls != SLUICE_UNICODE_LETTER && p.cls != SLUICE_UNICODE_NUMBER;
    bool with_first = false, bare_first;
    size_t with = prefix ? cased_word_end(s, at + p.len, &with_first) : at, bare = cased_word_end(s, at, &bare_first), end = at;

    if (prefix && with == at + p.len)
        with = at; /* nothing behind it */
    if (with > at && with_first)
        end = with;
    else if (bare > at && bare_first)
        end = bare;
    else if (with > at)
        end = with;
    else
        end = bare;
    if (end == at)
        return split_wordless(s, at, digits_max, true);
    return end + (contracts && end < s.len ? contraction(s, end, true) : 0);
}

static size_t split_tekken(sluice_span s, size_t at)
{
    return split_cased(s, at, 1, false);
}

static size_t split_gpt4o(sluice_span s, size_t at)
{
    return split_cased(s, at, 3, true);
}

/* The end of the run of what is not a number. */
static size_t number_free_end(sluice_span s, size_t at)
{
    place p = look(s, at);

    while (p.len > 0 && p.cls != SLUICE_UNICODE_NUMBER) {
        at += p.len;
        p = look(s, at);
    }
    return at;
}

static size_t split_each_number(sluice_span s, size_t at) /* \p{N} */
{
    place p = look(s, at);

    return p.cls == SLUICE_UNICODE_NUMBER ? at + p.len : number_free_end(s, at);
}

static size_t split_numbers(sluice_span s, size_t at) /* \p{N}+ */
{
    return look(s, at).cls == SLUICE_UNICODE_NUMBER ? run_end(s, at, SLUICE_UNICODE_NUMBER) : number_free_end(s, at);
}

static bool three_digits(sluice_span s, size_t at)
{
    if (s.len - at < 3)
        return false;
    for (size_t i = at; i < at + 3; i++)
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
    return true;
}

static size_t split_three_digits(sluice_span s, size_t at) /* [0-9][0-9][0-9] */
{
    if (three_digits(s, at))
        return at + 3;
    while (at < s.len && !three_digits(s, at))
        at++;
    return at;
}

/* [\p{P}\$\+<=>\^~\|]+ and, for Falcon, ` as well */
static bool is_mark(place p, bool falcon)
{
    if (p.cls == SLUICE_UNICODE_PUNCTUATION)
        return true;
    return p.len == 1 && p.code_point != 0 && (strchr("$+<=>^~|", (int)p.code_point) != NULL || (falcon && p.code_point == '`'));
}

static size_t split_marks_of(sluice_span s, size_t at, bool falcon)
{
    place p = look(s, at);
    bool mark = is_mark(p, falcon);

    while (p.len > 0 && is_mark(p, falcon) == mark) {
        at += p.len;
        p = look(s, at);
    }
    return at;
}

static size_t split_marks(sluice_span s, size_t at)
{
    return split_marks_of(s, at, false);
}

static size_t split_marks_falcon(sluice_span s, size_t at)
{
    return split_marks_of(s, at, true);
}

/* ---- DeepSeek's: a stage for each kind of run; what is left between the runs goes to the next stage */

static bool is_line_break(place p)
{
    return p.code_point == '\r' || p.code_point == '\n';
}

/* \s?X+ at `at`: the end of the match, or 0.  White space that is itself X matches as such where no X follows. */
typedef bool (*is_fn)(place p);
static size_t match_run(sluice_span s, size_t at, is_fn is_x, bool after_space)
{
    place p = look(s, at), next;

    if (after_space && p.cls == SLUICE_UNICODE_SPACE) {
        next = look(s, at + p.len);
        if (next.len > 0 && is_x(next)) {
            at += p.len;
            p = next;
        }
    }
    if (p.len == 0 || !is_x(p))
        return 0;
    while (p.len > 0 && is_x(p)) {
        at += p.len;
        p = look(s, at);
    }
    return at;
}

static size_t split_runs(sluice_span s, size_t at, is_fn is_x, bool after_space)
{
    size_t end = match_run(s, at, is_x, after_space);

    if (end > 0)
        return end;
    while (at < s.len && match_run(s, at, is_x, after_space) == 0)
        at += look(s, at).len;
    return at;
}

/* The letters of deepseek-llm: those with case, as its authors listed them (a Unicode version's L&). */
static bool is_deepseek_letter(place p)
{
    static const uint32_t ranges[][2] = {
        { 'A', 'Z' },         { 'a', 'z' },         { 0xb5, 0xb5 },       { 0xc0, 0xd6 },       { 0xd8, 0xf6 },       { 0xf8, 0x1ba },
        { 0x1bc, 0x1bf },     { 0x1c4, 0x293 },     { 0x295, 0x2af },     { 0x370, 0x373 },     { 0x376, 0x377 },     { 0x37b, 0x37d },
        { 0x37f, 0x37f },     { 0x386, 0x386 },     { 0x388, 0x38a },     { 0x38c, 0x38c },     { 0x38e, 0x3a1 },     { 0x3a3, 0x3f5 },
        { 0x3f7, 0x481 },     { 0x48a, 0x52f },     { 0x531, 0x556 },     { 0x10a0, 0x10c5 },   { 0x13a0, 0x13f5 },   { 0x13f8, 0x13fd },
        { 0x1c90, 0x1cba },   { 0x1cbd, 0x1cbf },   { 0x1d00, 0x1d2b },   { 0x1d6b, 0x1d77 },   { 0x1d79, 0x1d9a },   { 0x1e00, 0x1f15 },
        { 0x1f18, 0x1f1d },   { 0x1f20, 0x1f45 },   { 0x1f48, 0x1f4d },   { 0x1f50, 0x1f57 },   { 0x1f59, 0x1f59 },   { 0x1f5b, 0x1f5b },
        { 0x1f5d, 0x1f5d },   { 0x1f5f, 0x1f7d },   { 0x1f80, 0x1fb4 },   { 0x1fb6, 0x1fbc },   { 0x1fbe, 0x1fbe },   { 0x1fc2, 0x1fc4 },
        { 0x1fc6, 0x1fcc },   { 0x1fd0, 0x1fd3 },   { 0x1fd6, 0x1fdb },   { 0x1fe0, 0x1fec },   { 0x1ff2, 0x1ff4 },   { 0x1ff6, 0x1ffc },
        { 0x2102, 0x2102 },   { 0x2107, 0x2107 },   { 0x210a, 0x2113 },   { 0x2115, 0x2115 },   { 0x2119, 0x211d },   { 0x2124, 0x2124 },
        { 0x2126, 0x2126 },   { 0x2128, 0x2128 },   { 0x212a, 0x212d },   { 0x212f, 0x2134 },   { 0x2139, 0x2139 },   { 0x213c, 0x213f },
        { 0x2145, 0x2149 },   { 0x214e, 0x214e },   { 0x2183, 0x2184 },   { 0x2c00, 0x2c7b },   { 0x2c7e, 0x2ce4 },   { 0x2ceb, 0x2cee },
        { 0x2cf2, 0x2cf3 },   { 0xa640, 0xa66d },   { 0xa680, 0xa69b },   { 0xa722, 0xa76f },   { 0xa771, 0xa787 },   { 0xa78b, 0xa78e },
        { 0xab70, 0xabbf },   { 0xfb00, 0xfb06 },   { 0xfb13, 0xfb17 },   { 0xff21, 0xff3a },   { 0xff41, 0xff5a },   { 0x10400, 0x1044f },
        { 0x104b0, 0x104d3 }, { 0x104d8, 0x104fb }, { 0x10c80, 0x10cb2 }, { 0x10cc0, 0x10cf2 }, { 0x118a0, 0x118df }, { 0x1e900, 0x1e943 },
    };

    if (p.code_point < 0x80)
        return (p.code_point | 0x20) - 'a' < 26;
    for (size_t i = 2; i < sizeof ranges / sizeof ranges[0] && ranges[i][0] <= p.code_point; i++)
        if (p.code_point <= ranges[i][1])
            return true;
    return false;
}

static bool is_deepseek_mark(place p) /* [!-/:-~！-／：-～‘-‟　-。] */
{
    uint32_t c = p.code_point;

    return (c >= '!' && c <= '/') || (c >= ':' && c <= '~') || (c >= 0xff01 && c <= 0xff0f) || (c >= 0xff1a && c <= 0xff5e) ||
           (c >= 0x2018 && c <= 0x201f) || (c >= 0x3000 && c <= 0x3002);
}

static bool is_deepseek_cjk(place p) /* [一-龥ࠀ-一가-퟿] */
{
    uint32_t c = p.code_point;

    return (c >= 0x0800 && c <= 0x9fa5) || (c >= 0xac00 && c <= 0xd7ff);
}

static bool is_letter(place p)
{
    return p.cls == SLUICE_UNICODE_LETTER;
}

static bool is_punctuation(place p)
{
    return p.cls == SLUICE_UNICODE_PUNCTUATION;
}

static size_t split_line_breaks(sluice_span s, size_t at) /* [\r\n] */
{
    return is_line_break(look(s, at)) ? at + 1 : split_runs(s, at, is_line_break, false);
}

static size_t split_deepseek_letters(sluice_span s, size_t at)
{
    return split_runs(s, at, is_deepseek_letter, true);
}

static size_t split_deepseek_marks(sluice_span s, size_t at)
{
    return split_runs(s, at, is_deepseek_mark, true);
}

static size_t split_deepseek_cjk(sluice_span s, size_t at)
{
    return split_runs(s, at, is_deepseek_cjk, false);
}

static size_t split_letters(sluice_span s, size_t at) /* \s?\p{L}+ */
{
    return split_runs(s, at, is_letter, true);
}

static size_t split_punctuation(sluice_span s, size_t at) /* \s?\p{P}+ */
{
    return split_runs(s, at, is_punctuation, true);
}

static size_t split_trailing_space(sluice_span s, size_t at) /* \s+$ */
{
    size_t space_begins = s.len;

    for (size_t i = at; i < s.len;) {
        place p = look(s, i);

        if (p.cls != SLUICE_UNICODE_SPACE)
            space_begins = s.len;
        else if (space_begins == s.len)
            space_begins = i;
        i += p.len;
    }
    return space_begins > at ? space_begins : s.len;
}

static const sluice_pre_tokenizer pre_tokenizers[] = {
    { "gpt-2", { split_gpt2 }, false, false },
    { "default", { split_marks, split_gpt2, split_numbers, split_three_digits }, false, false },
    { "phi-2", { split_gpt2 }, false, false },
    { "mpt", { split_gpt2 }, false, false },
    { "olmo", { split_gpt2 }, false, false },
    { "llama-bpe", { split_llama_bpe }, true, true },
    { "llama3", { split_llama_bpe }, true, true },
    { "llama-v3", { split_llama_bpe }, true, true },
    { "smaug-bpe", { split_llama_bpe }, false, false },
    { "dbrx", { split_llama_bpe }, false, false },
    { "qwen2", { split_qwen2 }, false, false },
    { "deepseek-r1-qwen", { split_qwen2 }, false, false },
    { "stablelm2", { split_qwen2 }, false, false },
    { "smollm", { split_each_number, split_gpt2 }, false, false },
    { "starcoder", { split_each_number, split_gpt2 }, false, false },
    { "refact", { split_each_number, split_gpt2 }, false, false },
    { "command-r", { split_each_number, split_gpt2 }, false, false },
    { "falcon", { split_marks_falcon, split_gpt2, split_three_digits }, false, false },
    { "deepseek-llm",
      { split_line_breaks, split_deepseek_letters, split_deepseek_marks, split_trailing_space, split_deepseek_cjk, split_numbers },
      false,
      false },
    { "deepseek-coder", { split_line_breaks, split_letters, split_punctuation, split_deepseek_cjk, split_each_number }, false, false },
    { "tekken", { split_tekken }, true, true },
    { "gpt-4o", { split_gpt4o }, false, false },
};

/* A file that does not say gets the original: GPT-2's. */
static sluice_status read_pre_tokenizer(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err)
{
    sluice_span name = SLUICE_SPAN_LIT("gpt-2");
    sluice_status st = sluice_gguf_opt_string(g, "tokenizer.ggml.pre", &name, err);

    if (st != SLUICE_OK)
        return st;
    for (size_t i = 0; i < sizeof pre_tokenizers / sizeof pre_tokenizers[0]; i++) {
        if (sluice_span_eq_str(name, pre_tokenizers[i].name)) {
            t->pre = &pre_tokenizers[i];
            return SLUICE_OK;
        }
    }
    st = sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "tokenizer: the pre-tokenizer \"%.*s\" (tokenizer.ggml.pre) is not in this build",
                          (int)(name.len < 40 ? name.len : 40), (const char *)name.ptr);
    sluice_error_hint(err, "it has gpt-2, default, llama-bpe, qwen2, smollm, deepseek-llm, deepseek-coder, tekken, gpt-4o, stablelm2, starcoder, "
                           "refact, command-r, falcon and their kin");
    sluice_error_offset(err, sluice_gguf_find(g, "tokenizer.ggml.pre")->offset);
    return st;
}

/* ---- byte alphabet ---------------------------------------------------------------------------------------- */

/* The printable bytes of Latin-1 stand for themselves; the other 68 are U+0100, U+0101 … in their order. */
static bool alphabet_byte(uint32_t c, uint8_t *out)
{
    if ((c >= 33 && c <= 126) || (c >= 161 && c <= 172) || (c >= 174 && c <= 255)) {
        *out = (uint8_t)c;
        return true;
    }
    if (c < 256 || c > 256 + 67)
        return false;
    c -= 256;
    *out = (uint8_t)(c < 33 ? c : c < 67 ? c - 33 + 127 : 173);
    return true;
}

bool sluice_bpe_token_text(sluice_span raw, uint8_t *out, size_t *n)
{
    size_t i = 0;

    for (*n = 0; i < raw.len; (*n)++) {
        uint32_t len, c = sluice_unicode_decode(raw, i, &len);

        if (!alphabet_byte(c, &out[*n])) {
            memcpy(out, raw.ptr, raw.len);
            *n = raw.len;
            return false;
        }
        i += len;
    }
    return true;
}

/* ---- merges ---------------------------------------------------------------------------------------------- */

/* Two thirds full at most. */
static uint32_t merge_slots_for(uint64_t n)
{
    return (uint32_t)(n + n / 2 + 4);
}

uint64_t sluice_bpe_merge_bytes(uint64_t n_merges)
{
    uint64_t n = n_merges < MERGES_MAX ? n_merges : MERGES_MAX;

    return n > 0 ? n * sizeof(sluice_bpe_merge) + merge_slots_for(n) * sizeof(uint32_t) : 0;
}

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 20 | (uint32_t)right;
}

static uint32_t pair_hash(uint64_t pair)
{
    uint64_t h = pair * 0x9e3779b97f4a7c15u;

    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    return (uint32_t)(h >> 32);
}

/* The slot of this pair: one that holds it, or the free one where it belongs.  *budget counts down; UINT32_MAX when it is used up. */
static uint32_t find_slot(const sluice_tokenizer *t, uint64_t pair, uint64_t *budget)
{
    for (uint32_t at = (uint32_t)((uint64_t)pair_hash(pair) * t->n_merge_slots >> 32);; at = at + 1 < t->n_merge_slots ? at + 1 : 0) {
        uint32_t rank = t->merge_slots[at];

        if (rank == 0 || t->merges[rank - 1] >> 20 == pair)
            return at;
        if (*budget == 0)
            return UINT32_MAX;
        --*budget;
    }
}

/* "left right": the two sides of a merge, both written in the byte alphabet, which has no space. */
static bool cut_merge(sluice_span text, sluice_span *left, sluice_span *right)
{
    const uint8_t *space = text.len > 0 ? memchr(text.ptr, ' ', text.len) : NULL;

    if (space == NULL)
        return false;
    *left = sluice_span_of(text.ptr, (size_t)(space - text.ptr));
    *right = sluice_span_of(space + 1, text.len - left->len - 1);
    return left->len > 0 && right->len > 0 && memchr(right->ptr, ' ', right->len) == NULL && left->len <= TOKEN_BYTES_MAX &&
           right->len <= TOKEN_BYTES_MAX;
}

/* Both sides and what they make must be tokens that text can become.  A merge that would end in a markup token is left out: *out is 0. */
static bool resolve_merge(const sluice_tokenizer *t, sluice_span text, sluice_bpe_merge *out)
{
    uint8_t bytes[2 * TOKEN_BYTES_MAX];
    sluice_span left, right;
    size_t n_left, n_right;
    uint32_t a, b, ab;

    if (!cut_merge(text, &left, &right) || !sluice_bpe_token_text(left, bytes, &n_left) || !sluice_bpe_token_text(right, bytes + n_left, &n_right))
        return false;
    a = sluice_text_index_find(&t->words, sluice_span_of(bytes, n_left));
    b = sluice_text_index_find(&t->words, sluice_span_of(bytes + n_left, n_right));
    ab = sluice_text_index_find(&t->words, sluice_span_of(bytes, n_left + n_right));
    *out = 0;
    if (ab == SLUICE_TEXT_INDEX_NONE && sluice_text_index_find2(&t->specials, left, right) != SLUICE_TEXT_INDEX_NONE)
        return true;
    *out = pair_of((int32_t)a, (int32_t)b) << 20 | ab;
    return a != SLUICE_TEXT_INDEX_NONE && b != SLUICE_TEXT_INDEX_NONE && ab != SLUICE_TEXT_INDEX_NONE;
}

static sluice_status bad_merge(sluice_error *err, const sluice_gguf_value *merges, uint32_t rank, const char *what)
{
    sluice_status st = sluice_error_set(err, SLUICE_ERR_FORMAT, "tokenizer: merge %" PRIu32 " %s", rank, what);

    sluice_error_offset(err, merges->offset);
    return st;
}

static sluice_status read_merges(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err)
{
    const sluice_gguf_value *merges = NULL;
    uint64_t cursor = 0, budget;
    sluice_status st = sluice_gguf_get_array(g, "tokenizer.ggml.merges", SLUICE_GGUF_STRING, &merges, err);

    if (st != SLUICE_OK)
        return st;
    if (merges->count > MERGES_MAX)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "tokenizer: %" PRIu64 " merges; the limit is %d", merges->count, MERGES_MAX);
    if (merges->count == 0)
        return SLUICE_OK;
    t->n_merges = (uint32_t)merges->count;
    t->n_merge_slots = merge_slots_for(t->n_merges);
    t->merges = sluice_alloc_array(t->al, t->n_merges, sizeof *t->merges);
    t->merge_slots = sluice_alloc_array(t->al, t->n_merge_slots, sizeof *t->merge_slots);
    if (t->merges == NULL || t->merge_slots == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "tokenizer: no memory for %" PRIu32 " merges", t->n_merges);
    budget = (uint64_t)t->n_merges * MERGE_BUDGET_PER_ENTRY + MERGE_BUDGET_BASE;
    for (uint32_t rank = 0; rank < t->n_merges; rank++) {
        sluice_span text;
        uint32_t slot;

        if (!sluice_gguf_array_next_string(merges, &cursor, &text) || !resolve_merge(t, text, &t->merges[rank]))
            return bad_merge(err, merges, rank, "is not two tokens that make a third");
        if (t->merges[rank] == 0) /* never that of two tokens: a token and itself make a third */
            continue;
        slot = find_slot(t, t->merges[rank] >> 20, &budget);
        if (slot == UINT32_MAX)
            return bad_merge(err, merges, rank, "collides: the list is made to be slow");
        if (t->merge_slots[slot] == 0) /* said twice: the first counts */
            t->merge_slots[slot] = rank + 1;
    }
    return SLUICE_OK;
}

sluice_status sluice_bpe_open(sluice_tokenizer *t, const sluice_gguf *g, sluice_error *err)
{
    sluice_status st = read_pre_tokenizer(t, g, err);

    if (st != SLUICE_OK)
        return st;
    t->wants_bos = t->pre->wants_bos;
    return read_merges(t, g, err);
}

/* ---- encoding -------------------------------------------------------------------------------------------- */

static bool pair(const sluice_tokenizer *t, sluice_span text, const sluice_symbol *a, const sluice_symbol *b, sluice_merge_candidate *out)
{
    uint64_t budget = UINT64_MAX;
    uint32_t rank;

    (void)text;
    if (t->n_merges == 0 || a->id == SLUICE_TOKEN_NONE || b->id == SLUICE_TOKEN_NONE)
        return false;
    rank = t->merge_slots[find_slot(t, pair_of(a->id, b->id), &budget)];
    if (rank == 0)
        return false;
    out->key = rank;
    out->id = (int32_t)(t->merges[rank - 1] & 0xfffffu);
    return true;
}

static sluice_status encode_word(sluice_encoder *e, sluice_span word)
{
    const sluice_tokenizer *t = e->t;
    sluice_status st = SLUICE_OK;
    sluice_symbol *symbols;
    uint32_t id;

    if (t->pre->whole_words && word.len <= TOKEN_BYTES_MAX) {
        id = sluice_text_index_find(&t->words, word);
        if (id != SLUICE_TEXT_INDEX_NONE) {
            sluice_encoder_emit(e, (int32_t)id);
            return SLUICE_OK;
        }
    }
    symbols = sluice_encoder_scratch(e, word.len * MERGE_SCRATCH_BYTES); /* a word is at most a text: no overflow */
    if (symbols == NULL)
        return SLUICE_ERR_NO_MEMORY;
    for (size_t i = 0; i < word.len; i++)
        symbols[i] = (sluice_symbol){ (uint32_t)i, 1, t->byte_ids[word.ptr[i]], 0, 0 };
    sluice_link_symbols(symbols, word.len);
    sluice_merge_symbols(t, word, symbols, word.len, (sluice_merge_candidate *)(void *)(symbols + word.len), pair);
    for (size_t i = 0; i < word.len && st == SLUICE_OK; i = symbols[i].next != UINT32_MAX ? symbols[i].next : word.len) {
        if (symbols[i].id != SLUICE_TOKEN_NONE)
            sluice_encoder_emit(e, symbols[i].id);
        else
            st = sluice_encoder_emit_byte(e, word.ptr[symbols[i].start]);
    }
    return st;
}

/* Cut by the stages from `stage` on; at most SPLIT_STAGES_MAX deep. */
static sluice_status encode_stages(sluice_encoder *e, sluice_span text, size_t stage)
{
    const sluice_pre_tokenizer *pre = e->t->pre;
    sluice_status st = SLUICE_OK;

    if (stage == SPLIT_STAGES_MAX || pre->stages[stage] == NULL)
        return encode_word(e, text);
    for (size_t at = 0; at < text.len && st == SLUICE_OK;) {
        size_t end = pre->stages[stage](text, at);

        st = encode_stages(e, sluice_span_of(text.ptr + at, end - at), stage + 1);
        at = end;
    }
    return st;
}

sluice_status sluice_bpe_encode(sluice_encoder *e, sluice_span text)
{
    return encode_stages(e, text, 0);
}
