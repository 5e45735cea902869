/* dense.h: the layers between attention calls: products, norms, rotary embedding, activations, losses.
 *
 * Arithmetic is f32 (f64 where a line says so). Outputs may be the same memory as an input of the same dtype
 * and strides where "in place" is said; any other overlap is not allowed. Zero rows or tokens are legal.
 * Unless a function lists more, errors are null_pointer, bad_shape, bad_stride, bad_alignment, bad_dtype,
 * overflow and executor_failed. Inputs may repeat rows (stride 0); outputs may not overlap.
 */
#ifndef LONGSPAN_DENSE_H
#define LONGSPAN_DENSE_H

#include "context.h"
#include "status.h"
#include "types.h"

LSPAN_BEGIN_DECLS

/* ---- Weights --------------------------------------------------------------------------------------- */

/* A weight matrix [rows, columns] with contiguous rows of whole blocks; columns must be a multiple of the
 * block's elements. data is aligned to 4 bytes for f32, 2 for f16 and bf16, 1 for the quantized types. */
LSPAN_SINCE(0, 1)
typedef struct lspan_weights {
    const void *data;
    lspan_block_type type;
    int64_t rows;
    int64_t columns;
} lspan_weights;

/* Decodes a whole weight matrix: output [rows, columns] f32, contiguous. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_dequantize(const lspan_context *context, const lspan_weights *weights, float *output);

/* Rows of an embedding table: output[t] = table[ids[t]]; ids [T], output [T, columns] f32 with row_stride.
 * Errors also: bad_index for an id outside 0 .. rows-1, before anything is written. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_embedding(
    const lspan_context *context, const lspan_weights *table, int64_t tokens, const int32_t *ids,
    float *output, int64_t output_row_stride);

/* y = x W^T, or y += x W^T with accumulate, through OpenBLAS (one thread inside each task).
 *   x [R, K] f32, its rows not overlapping; W [M, K]; y [R, M] f32. 1 <= K < 2^28; R, M and the strides below 2^31.
 * Weights other than f32 are decoded a panel at a time.
 * OpenBLAS keeps buffers of its own, allocated at its first calls, and one thread count for the process, which is 1
 * while a product runs and then what it was: the host must not run OpenBLAS of its own at that time, nor more than 64
 * threads in products at once. Errors also: bad_value (accumulate), workspace_too_small. */
LSPAN_SINCE(0, 1)
typedef struct lspan_linear {
    lspan_weights weights;
    int64_t rows; /* R */
    const float *input;
    int64_t input_row_stride;
    float *output;
    int64_t output_row_stride;
    int32_t accumulate; /* 0 or 1 */
} lspan_linear;

LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_linear_workspace_size(
    const lspan_context *context, const lspan_linear *linear, size_t *bytes);
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_linear_run(
    const lspan_context *context, const lspan_linear *linear, void *workspace, size_t workspace_bytes);

/* ---- Norms ----------------------------------------------------------------------------------------- */

/* RMSNorm (Zhang and Sennrich 2019, eq. 4): y = x / sqrt(mean(x^2) + epsilon) * weight, a row at a time.
 * x, y [rows, columns], columns >= 1; weight [columns] f32 or NULL for ones. In place allowed.
 * Errors also: bad_value (epsilon negative or not finite). */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_rms_norm(
    const lspan_context *context, int64_t rows, int64_t columns, lspan_matrix input, const float *weight,
    float epsilon, lspan_matrix_out output);

/* LayerNorm (Ba et al. 2016, eq. 4): y = (x - mean(x)) / sqrt(var(x) + epsilon) * weight + bias, with the
 * biased variance, in two passes over a row. weight and bias [columns] f32, each may be NULL. In place allowed. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_layer_norm(
    const lspan_context *context, int64_t rows, int64_t columns, lspan_matrix input, const float *weight,
    const float *bias, float epsilon, lspan_matrix_out output);

/* ---- Rotary position embedding ---------------------------------------------------------------------- */

/* cosine[t][i], sine[t][i] of positions[t] * inverse_frequencies[i], computed in f64 and rounded once.
 *   positions [T]; inverse_frequencies [pairs] f32, radians a token; cosine, sine [T, pairs] f32, contiguous.
 * Fill once for a chunk of tokens and use in every layer. Not parallel: about 20 ns an entry. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_rope_table(
    int64_t tokens, const int64_t *positions, int64_t pairs, const float *inverse_frequencies, float *cosine,
    float *sine);

/* Rotates the first 2*pairs channels of each head by the token's angles and copies the others (partial
 * rotary). input, output [T, heads, head_dim]; cosine, sine [T, pairs] f32. In place allowed.
 * head_dim is any value >= 2*pairs. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_rope(
    const lspan_context *context, lspan_rope_layout layout, int64_t tokens, int64_t heads, int64_t head_dim,
    int64_t pairs, const float *cosine, const float *sine, lspan_heads input, lspan_heads_out output);

/* ---- Activations and conversion ---------------------------------------------------------------------- */

LSPAN_SINCE(0, 1)
typedef enum LSPAN_OPEN_ENUM lspan_activation {
    lspan_activation_silu = 0,     /* x / (1 + exp(-x)); SwiGLU: Shazeer 2020 */
    lspan_activation_gelu_tanh = 1, /* Hendrycks and Gimpel 2016, the tanh form */
    lspan_activation_gelu_erf = 2  /* x * Phi(x), exact */
} lspan_activation;

/* y = activation(gate) * up over [rows, columns]. In place on gate or up allowed. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_gated_activation(
    const lspan_context *context, lspan_activation activation, int64_t rows, int64_t columns, lspan_matrix gate,
    lspan_matrix up, lspan_matrix_out output);

/* Copies [tokens, heads, head_dim] from one layout and dtype to another, rounding to nearest even: how new
 * keys and values enter a cache. A NaN stays a NaN. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_convert(
    const lspan_context *context, int64_t tokens, int64_t heads, int64_t head_dim, lspan_heads input,
    lspan_heads_out output);

/* ---- Losses ----------------------------------------------------------------------------------------- */

/* For each row of logits [rows, vocabulary], vocabulary >= 1, in one pass that stores nothing of the row:
 *   nll[r] = L - logits[r][targets[r]], entropy[r] = L - sum_v p_v logits[r][v], L = log sum_v exp(logits[r][v])
 * in nats, with sums in f64. targets [rows] may be NULL if nll is; nll and entropy [rows] f32, each may be NULL.
 * Minus-infinity logits have probability 0. A row that is all minus infinity gives NaN.
 * Errors also: bad_index for a target outside 0 .. vocabulary-1. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_log_softmax_gather(
    const lspan_context *context, int64_t rows, int64_t vocabulary, lspan_matrix logits, const int32_t *targets,
    float *nll, float *entropy);

LSPAN_END_DECLS

#endif
