/* features.c - what is known of a request before anything runs.
 *
 * One pass over each message for the counts, one for the data classes.  The difficulty is a prior, not a verdict: it says how unlike a
 * short command the text is, from length and shape alone.  Its weights were set by hand so that one-line commands stay below
 * 0.2, paragraphs and code end above 0.8; the model's own confidence corrects it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "router/features.h"

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static float clamp01(float x)
{
    return x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x;
}

static bool contains(sluice_span text, const char *needle)
{
    const size_t n = strlen(needle);
    for (size_t i = 0; i + n <= text.len; i++)
        if (memcmp(text.ptr + i, needle, n) == 0)
            return true;
    return false;
}

static void count(sluice_features *f, sluice_span text, uint32_t *n_non_ascii)
{
    bool in_word = false, ended_sentence = false;
    for (size_t i = 0; i < text.len; i++) {
        const uint8_t c = text.ptr[i];
        if ((c & 0xc0) != 0x80) { /* a code point starts here */
            f->n_chars++;
            if (c >= 0x80)
                (*n_non_ascii)++;
        }
        if (is_space(c)) {
            in_word = false;
            if (ended_sentence)
                f->n_sentences++;
            ended_sentence = false;
        } else {
            if (!in_word)
                f->n_words++;
            in_word = true;
            ended_sentence = c == '.' || c == '!' || c == '?';
        }
        f->n_lines += c == '\n';
        f->n_digits += c >= '0' && c <= '9';
        f->n_questions += c == '?';
    }
    f->n_sentences += f->n_words > 0; /* the last one needs no mark */
}

void sluice_features_compute(sluice_features *out, const sluice_features_input *messages, size_t n_messages,
                             sluice_data_classes extra)
{
    uint32_t n_non_ascii = 0, n_user = 0;

    memset(out, 0, sizeof *out);
    out->is_valid_utf8 = true;
    out->classes = SLUICE_CLASS_PROMPT | extra;
    out->n_messages = (uint32_t)n_messages;
    for (size_t i = 0; i < n_messages; i++) {
        const sluice_span text = messages[i].text;
        const char *role = messages[i].role ? messages[i].role : "";
        if (!sluice_utf8_valid(text))
            out->is_valid_utf8 = false;
        out->n_bytes += (uint32_t)text.len;
        out->classes |= sluice_data_class_find(text);
        count(out, text, &n_non_ascii);
        if (contains(text, "```") || contains(text, "#include") || contains(text, "();"))
            out->has_code = true;
        out->has_system = out->has_system || strcmp(role, "system") == 0;
        n_user += strcmp(role, "user") == 0;
    }
    out->is_multi_turn = n_user > 1;
    out->non_ascii_share = out->n_chars ? (float)n_non_ascii / (float)out->n_chars : 0.0f;
    out->prompt_tokens_estimate = out->n_bytes * 3 / 10 + 4;

    const float extra_words = out->n_words > 12 ? (float)(out->n_words - 12) : 0.0f;
    float d = 0.05f + 0.02f * extra_words;
    d += out->n_sentences > 2 ? 0.1f * (float)(out->n_sentences - 2) : 0.0f;
    d += out->n_lines > 1 ? 0.1f * (float)(out->n_lines - 1) : 0.0f;
    d += out->has_code ? 0.6f : 0.0f;
    d += out->is_multi_turn || out->has_system ? 0.3f : 0.0f;
    d += out->non_ascii_share > 0.3f ? 0.5f : 0.0f;
    out->difficulty = out->n_words == 0 || !out->is_valid_utf8 ? 1.0f : clamp01(d);
}
