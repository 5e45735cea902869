/* product.h: matrix products with packed weights, which are read once for several rows.
 *
 * A token of a language model reads every weight once, so its time is that of the memory. Packed weights are streamed
 * in one piece and serve up to 8 rows of input from registers, 16 from the nearest cache, and more from L2: several
 * tokens then cost little more than one. Any number of rows is legal.
 *
 * A row of output depends on its row of input alone: it has the same bits however many rows a call has, and however many
 * threads run it.
 */
#ifndef LONGSPAN_PRODUCT_H
#define LONGSPAN_PRODUCT_H

#include "context.h"
#include "dense.h"
#include "status.h"
#include "types.h"

LSPAN_BEGIN_DECLS

/* ---- Packing --------------------------------------------------------------------------------------- */

/* Weights [M, K] in panels of 16 rows, the same values as the blocks they were made of, in an order that is the same
 * for every ISA variant but not for every version of the library: not a file format. Types f32, f16, bf16, q4_0, q4_1,
 * q8_0, q4_k and q6_k. They take as many bytes as the blocks, and at most 3% more for the K types, when M is a multiple
 * of 32 and K one of 64. */
LSPAN_SINCE(0, 1)
typedef struct lspan_packed_weights {
    const void *data; /* aligned to LSPAN_WORKSPACE_ALIGNMENT */
    lspan_block_type type;
    int64_t rows;    /* M */
    int64_t columns; /* K, a multiple of the block's elements */
} lspan_packed_weights;

/* Bytes of packed weights. Errors: null_pointer, bad_dtype (a type that cannot be packed), bad_shape (also where K is
 * not whole blocks), overflow. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_packed_bytes(lspan_block_type type, int64_t rows, int64_t columns, size_t *bytes);

/* Packs weights into `packed`, of lspan_packed_bytes bytes and not overlapping them. Errors as there, and bad_alignment,
 * workspace_too_small (packed_bytes), executor_failed. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_pack_weights(
    const lspan_context *context, const lspan_weights *weights, void *packed, size_t packed_bytes);

/* ---- Products -------------------------------------------------------------------------------------- */

/* In what the products of weights and inputs are made. Sums are f32 in any case. */
LSPAN_SINCE(0, 1)
typedef enum LSPAN_OPEN_ENUM lspan_product_mode {
    /* As the weights are: inputs of the q types are rounded to 8 bits, 32 at a time with one f32 scale
     * (max |x| / 127) as in llama.cpp's q8_0 but for the scale's precision, and 32 products are summed exactly; inputs
     * of bf16 are rounded to bf16 where the variant multiplies those (avx512bf16); f16 and f32 as below. A row with an
     * input that is not finite may give NaN for all its outputs. */
    lspan_product_mode_native = 0,
    /* Inputs stay f32 and weights are decoded to f32, as lspan_dequantize does. */
    lspan_product_mode_f32 = 1
} lspan_product_mode;

/* One output of a product: y = x W^T, y += x W^T with accumulate, or activation(x G^T) * (x W^T) with a gate. */
LSPAN_SINCE(0, 1)
typedef struct lspan_product_output {
    lspan_packed_weights weights; /* W [M, K] */
    lspan_packed_weights gate;    /* G, of the type and shape of W; data NULL for none */
    lspan_activation activation;  /* of the gate */
    int32_t accumulate;           /* 0 or 1; with a gate 0 */
    float *data;                  /* y [R, M], not overlapping the input or another output */
    int64_t row_stride;
} lspan_product_output;

/* Products of one input with several weights: queries, keys and values of attention are made in one call. */
LSPAN_SINCE(0, 1)
typedef struct lspan_product {
    int64_t rows;    /* R */
    int64_t columns; /* K, of all weights */
    const float *input; /* x [R, K] */
    int64_t input_row_stride;
    lspan_product_mode mode;
    int64_t output_count;
    const lspan_product_output *outputs;
} lspan_product;

/* The workspace holds the inputs as the weights want them and the sums of a worker's panels.
 * Errors: null_pointer, bad_shape, bad_stride, bad_alignment, bad_dtype, bad_value (mode, accumulate, activation),
 * overflow, workspace_too_small, executor_failed; all before anything is written but the last. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_product_workspace_size(
    const lspan_context *context, const lspan_product *product, size_t *bytes);
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_product_run(
    const lspan_context *context, const lspan_product *product, void *workspace, size_t workspace_bytes);

LSPAN_END_DECLS

#endif
