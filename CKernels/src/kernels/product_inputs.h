/* product_inputs.h: the inputs of a product as its weights want them.
 *
 * Rows come in tiles of LSPAN_PRODUCT_ROWS, the last of which may have fewer. An array with `n` elements a row has tile t
 * at t * LSPAN_PRODUCT_ROWS * n, and in it element i of row r at i * (rows of the tile) + r: what a step of the product
 * reads is together. */
#ifndef LSPAN_PRODUCT_INPUTS_H
#define LSPAN_PRODUCT_INPUTS_H

#include <stdint.h>

typedef struct lspan_product_inputs {
    int64_t rows;
    int64_t columns;
    int64_t padded; /* columns of the arrays: a multiple of 64, zeros beyond the input's */
    const float *x;
    int64_t row_stride;
    /* for the q types in native mode, else NULL: 4 quants an element [padded / 4], scales and scale * sum of quants
     * [padded / 32], and what the sums of products begin with: -8 * sum and -V_DOT_I8_BIAS * sum of quants [padded / 32],
     * -32 * sum of quants [padded / 16] */
    int32_t *quants;
    float *scales;
    float *scaled_sums;
    int32_t *minus8;
    int32_t *minus_bias;
    int32_t *minus32;
    /* for bf16 in native mode, else NULL: pairs [padded / 2] */
    uint32_t *pairs;
} lspan_product_inputs;

#endif
