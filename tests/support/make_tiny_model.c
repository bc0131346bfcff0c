/* make_tiny_model.c - writes a small model with random weights, for comparisons with other engines.
 *
 *   make_tiny_model FAMILY TYPE SEED OUT.gguf
 *
 * FAMILY: llama, qwen3, gemma3, …: without arguments they are listed.  TYPE: f32, f16, q4_k, …, of the matrices.  "FAMILY:small" is the form that
 * unit tests use, whose rows are too short for blocks of 256; "FAMILY:seed" is smaller yet and has no tokenizer, for a fuzzer to begin with.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/engine/tiny_model.h"

static bool equals_ignoring_case(const char *a, const char *b)
{
    while (*a != 0 && tolower((unsigned char)*a) == tolower((unsigned char)*b)) {
        a++;
        b++;
    }
    return *a == *b;
}

static bool type_of(const char *name, sluice_tensor_type *out)
{
    for (uint32_t type = 0; type < 64; type++)
        if (sluice_tensor_type_is_supported(type) && equals_ignoring_case(sluice_tensor_type_name(type), name)) {
            *out = (sluice_tensor_type)type;
            return true;
        }
    return false;
}

int main(int argc, char **argv)
{
    char family[64];
    tiny_model m;
    bool is_small, is_seed;
    char *colon;

    if (argc != 5) {
        (void)fprintf(stderr, "usage: make_tiny_model FAMILY[:small|:seed] TYPE SEED OUT.gguf\nfamilies:");
        for (size_t i = 0; tiny_model_family_name(i) != NULL; i++)
            (void)fprintf(stderr, " %s", tiny_model_family_name(i));
        (void)fprintf(stderr, "\n");
        return 2;
    }
    (void)snprintf(family, sizeof family, "%s", argv[1]);
    colon = strchr(family, ':');
    is_seed = colon != NULL && strcmp(colon, ":seed") == 0;
    is_small = is_seed || (colon != NULL && strcmp(colon, ":small") == 0);
    if (colon != NULL)
        *colon = 0;
    if (!tiny_model_family(family, !is_small, &m) || !type_of(argv[2], &m.type)) {
        (void)fprintf(stderr, "make_tiny_model: no family %s, or no type %s\n", family, argv[2]);
        return 2;
    }
    if (is_seed) {
        m.n_embd = m.n_ff = 32;
        m.head_dim = m.n_vocab = m.n_context = 16;
        m.n_head = 2;
        m.n_head_kv = m.is_encoder ? 2 : 1;
        m.n_layer = 2;
        m.n_rot = 0;
        m.window = m.window > 0 ? 2 : 0;
        m.window_pattern = m.window > 0 ? 2 : 0;
        m.rope_context = m.rope_context > 0 && m.rope_context < 4096 ? 8 : m.rope_context;
    }
    m.seed = strtoull(argv[3], NULL, 10);
    tiny_model_write(&m, argv[4]);
    return 0;
}
