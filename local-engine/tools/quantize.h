/* quantize.h - float32 rows to the tensor types of this build, as GGUF lays them out.
 *
 *   F16    IEEE 754 half precision, nearest even
 *   Q8_0   32 weights: d as F16, then 32 signed bytes;       w = d * q
 *   Q4_0   32 weights: d as F16, then 16 bytes of two nibbles, weight j low and weight j + 16 high;   w = d * (q - 8)
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_TOOLS_QUANTIZE_H
#define SLUICE_LOCAL_ENGINE_TOOLS_QUANTIZE_H

#include "local-engine/gguf.h"

uint16_t sluice_half_from_float(float f);
float sluice_float_from_half(uint16_t h);

/* n elements (whole blocks) into `out`, which has sluice_tensor_row_bytes(type, n) bytes. */
void sluice_quantize(sluice_tensor_type type, const float *in, size_t n, uint8_t *out);
void sluice_dequantize(sluice_tensor_type type, const uint8_t *in, size_t n, float *out);

#endif
