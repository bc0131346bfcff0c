/* kernels_neon.h - what the two ARM tables share: the strips that products over many tokens run over.
 *
 * A strip holds up to 32 rows and 64 groups as signed bytes, one 8 rows after the other, and of each 8 rows one group of 32 weights after the other:
 *
 *     q       256 bytes a group, in one of two orders:
 *             units of 4 (sdot by lane)   half 0: [rows 0-3, k 0-3] [rows 4-7, k 0-3] [rows 0-3, k 4-7] …   half 1: …
 *             pairs of 8 (smmla)          k 0-7: [rows 0, 1] [rows 2, 3] [rows 4, 5] [rows 6, 7]   k 8-15: …
 *     scale   8 floats a group (or half)
 *     min     8 floats a group (or half), where the format has mins
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_LOCAL_ENGINE_KERNELS_KERNELS_NEON_H
#define SLUICE_LOCAL_ENGINE_KERNELS_KERNELS_NEON_H

#include <arm_neon.h>
#include <string.h>

#include "local-engine/kernels/kernels.h"

enum {
    NEON_QUAD = 4,              /* rows that are read side by side */
    NEON_ROWS = 8,              /* rows of a tile */
    NEON_TILE = 4,              /* tokens of a tile */
    NEON_FEW = 5,               /* tokens up to which rows are read as they lie in the file */
    NEON_GROUPS = 64            /* groups of a strip: 64 KB of bytes and up to 32 KB of scales and mins, for phones' second caches of 256 KB */
};

typedef struct sluice_neon_strip {
    size_t row, n_rows;         /* first row in the product; rows, the last ones repeated up to a multiple of 8 */
    size_t group, n_groups;     /* first group in the rows; groups */
    int8_t *q;
    float *scale, *min;
    void *panel;                /* (SLUICE_STRIP_BYTES less the above) what a table wants to keep of a tile's activations */
} sluice_neon_strip;

/* y += strip * x for all tokens of the product; y = strip * x where the strip is its rows' first. */
typedef void (*sluice_neon_strip_fn)(const sluice_product *p, const sluice_neon_strip *s);

typedef struct sluice_neon_gemm {
    bool in_pairs;              /* the order of q */
    sluice_neon_strip_fn run[2][2];     /* [halves][mins] */
} sluice_neon_gemm;

/* A product with quantized weights. */
void sluice_neon_product(const sluice_product *p, sluice_weight type, const sluice_neon_gemm *gemm);

#define NEON_INLINE static inline __attribute__((always_inline))

NEON_INLINE const sluice_q8 *neon_token(const sluice_product *p, size_t t)
{
    return (const sluice_q8 *)(const void *)((const uint8_t *)p->x + t * p->x_stride);
}

typedef struct neon_tile {
    float y[NEON_TILE][NEON_ROWS];
} neon_tile;

/* The results of a tile so far; rows and tokens that the product does not have are zero. */
NEON_INLINE neon_tile neon_tile_load(const sluice_product *p, const sluice_neon_strip *s, size_t r, size_t n_rows, size_t t, size_t n_tokens)
{
    neon_tile tile = { { { 0 } } };

    if (s->group != 0)
        for (size_t j = 0; j < n_tokens; j++)
            memcpy(tile.y[j], p->y + (t + j) * p->y_stride + r, n_rows * sizeof(float));
    return tile;
}

NEON_INLINE void neon_tile_store(const sluice_product *p, const neon_tile *tile, size_t r, size_t n_rows, size_t t, size_t n_tokens)
{
    for (size_t j = 0; j < n_tokens; j++)
        memcpy(p->y + (t + j) * p->y_stride + r, tile->y[j], n_rows * sizeof(float));
}

#endif
