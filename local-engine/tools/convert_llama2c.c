/* convert_llama2c.c - command: llama2.c checkpoint and tokenizer to a GGUF file.
 *
 *   convert_llama2c MODEL.bin TOKENIZER.bin OUT.gguf [TYPE] [NAME]       TYPE: f32, q8_0, q4_k … of every matrix
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <ctype.h>
#include <stdio.h>

#include "local-engine/tools/llama2c.h"
#include "local-engine/tools/quantize.h"

enum { FILE_BYTES_MAX = 1 << 30 };

static bool parse_type(const char *text, sluice_tensor_type *out)
{
    for (uint32_t type = 0; type < 64; type++) {
        const char *name = sluice_tensor_type_name(type);
        size_t i = 0;

        while (text[i] != '\0' && toupper((unsigned char)text[i]) == name[i])
            i++;
        if (text[i] == '\0' && name[i] == '\0' && sluice_can_quantize(type)) {
            *out = (sluice_tensor_type)type;
            return true;
        }
    }
    return false;
}

int main(int argc, char **argv)
{
    const sluice_platform *p = sluice_platform_default();
    sluice_tensor_type type = SLUICE_TENSOR_F32;
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_buf model, tokenizer, out;
    sluice_status st;

    if (argc < 4 || argc > 6 || (argc > 4 && !parse_type(argv[4], &type))) {
        fprintf(stderr, "usage: convert_llama2c MODEL.bin TOKENIZER.bin OUT.gguf [TYPE] [NAME]\n");
        return 2;
    }
    sluice_buf_init(&model, NULL, FILE_BYTES_MAX);
    sluice_buf_init(&tokenizer, NULL, FILE_BYTES_MAX);
    sluice_buf_init(&out, NULL, FILE_BYTES_MAX);
    st = sluice_platform_read_file(p, argv[1], FILE_BYTES_MAX, &model, &err);
    if (st == SLUICE_OK)
        st = sluice_platform_read_file(p, argv[2], FILE_BYTES_MAX, &tokenizer, &err);
    if (st == SLUICE_OK)
        st = sluice_convert_llama2c(sluice_buf_span(&model), sluice_buf_span(&tokenizer), argc > 5 ? argv[5] : "llama2.c model", type, NULL, &out,
                                    &err);
    if (st == SLUICE_OK)
        st = sluice_platform_write_file(p, argv[3], sluice_buf_span(&out), &err);
    if (st != SLUICE_OK)
        fprintf(stderr, "convert_llama2c: %s%s%s\n", err.message, err.where[0] != '\0' ? ": " : "", err.where);
    else
        printf("%s: %zu bytes\n", argv[3], out.len);
    sluice_buf_deinit(&model);
    sluice_buf_deinit(&tokenizer);
    sluice_buf_deinit(&out);
    return st == SLUICE_OK ? 0 : 1;
}
