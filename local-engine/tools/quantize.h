/* quantize.h - float32 rows to the tensor types of GGUF files, and back.
 *
 * How each type lays out its blocks is drawn in quantize.c.  Quantizing minimises the squared error of each block, weighted by the importance of
 * the columns where that is known: the mean square of what a column is multiplied with, so that the sum is the expected error of the product.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_TOOLS_QUANTIZE_H
#define SLUICE_LOCAL_ENGINE_TOOLS_QUANTIZE_H

#include "local-engine/gguf.h"

uint16_t sluice_half_from_float(float f); /* nearest, ties to even; too large: infinity */
float sluice_float_from_half(uint16_t h);
uint16_t sluice_bfloat_from_float(float f);
float sluice_float_from_bfloat(uint16_t b);

/* The largest magnitude that types with a half-precision scale take. */
#define SLUICE_QUANTIZE_MAX 65504.0f

/* n elements, whole blocks, into `out`, which has sluice_tensor_row_bytes(type, n) bytes.  importance: (n) of the columns, none negative, or
 * NULL: all the same (a block whose columns all have none counts as that too).  Equal input gives equal bytes on every machine with IEEE arithmetic.
 * SLUICE_ERR_INTEGRITY for a NaN or an infinity, SLUICE_ERR_LIMIT for a number that is too large for the type, SLUICE_ERR_UNSUPPORTED for another type,
 * SLUICE_ERR_ARGUMENT for a part of a block; the message names the element. */
sluice_status sluice_quantize_row(uint32_t ggml_type, const float *x, size_t n, const float *importance, uint8_t *out, sluice_error *err);
/* n elements, whole blocks; false for a type that sluice_quantize_row() does not make.  The definition of what the bytes mean. */
bool sluice_dequantize_row(uint32_t ggml_type, const uint8_t *in, size_t n, float *out);
bool sluice_can_quantize(uint32_t ggml_type);

/* The same for numbers and types that are known to be good. */
void sluice_quantize(sluice_tensor_type type, const float *in, size_t n, uint8_t *out);
void sluice_dequantize(sluice_tensor_type type, const uint8_t *in, size_t n, float *out);

#endif
