/* weights.c: dequantization and embedding lookup. */
#include "weights.h"
#include "checks.h"
#include "profile_internal.h"

lspan_status lspan_check_weights(const lspan_weights *weights, int64_t *row_bytes)
{
    int64_t elements, bytes, total;
    if (!weights) return lspan_status_null_pointer;
    lspan_block_type_layout(weights->type, &elements, &bytes);
    if (elements == 0) return lspan_status_bad_dtype;
    if (weights->rows < 0 || weights->columns < 0 || weights->columns % elements != 0) return lspan_status_bad_shape;
    LSPAN_CHECK(lspan_multiply(weights->columns / elements, bytes, row_bytes));
    LSPAN_CHECK(lspan_multiply(*row_bytes, weights->rows, &total));
    LSPAN_CHECK(lspan_multiply(weights->rows, weights->columns, &total));
    if (total > 0 && !weights->data) return lspan_status_null_pointer;
    return lspan_check_aligned(weights->data, elements == 1 ? (size_t)bytes : 1);
}

typedef struct row_decode {
    const lspan_weights *weights;
    int64_t row_bytes;
    const int32_t *ids; /* NULL for all rows in order */
    float *output;
    int64_t output_row_stride;
} row_decode;

static void decode_rows(const lspan_context *context, const void *argument, int64_t first, int64_t end)
{
    const row_decode *d = argument;
    for (int64_t r = first; r < end; r++) {
        int64_t source = d->ids ? d->ids[r] : r;
        const char *row = (const char *)d->weights->data + source * d->row_bytes;
        context->kernels->dequantize(
            d->weights->type, row, d->weights->columns, d->output + r * d->output_row_stride);
    }
}

lspan_status lspan_dequantize(const lspan_context *context, const lspan_weights *weights, float *output)
{
    int64_t row_bytes;
    if (!context) return lspan_status_null_pointer;
    LSPAN_CHECK(lspan_check_weights(weights, &row_bytes));
    int64_t elements = weights->rows * weights->columns;
    LSPAN_CHECK(lspan_check_floats(output, elements));
    row_decode decode = {weights, row_bytes, NULL, output, weights->columns};
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_run_written_rows(context, weights->rows, elements, decode_rows, &decode);
    if (lspan_profile_wants(began, status)) {
        lspan_cost cost = lspan_dequantize_cost(weights, row_bytes);
        lspan_profile_record(context, began, lspan_profile_kernel_dequantize, (int)weights->type, cost);
    }
    return status;
}

static lspan_status check_lookup(
    const lspan_weights *table, int64_t tokens, const int32_t *ids, lspan_matrix_out output)
{
    if (!ids) return lspan_status_null_pointer;
    LSPAN_CHECK(lspan_check_aligned(ids, sizeof *ids));
    LSPAN_CHECK(lspan_check_count(tokens, sizeof *ids));
    LSPAN_CHECK(lspan_check_matrix_out(output, tokens, table->columns));
    for (int64_t t = 0; t < tokens; t++) {
        if (ids[t] < 0 || ids[t] >= table->rows) return lspan_status_bad_index;
    }
    return lspan_status_ok;
}

lspan_status lspan_embedding(
    const lspan_context *context, const lspan_weights *table, int64_t tokens, const int32_t *ids,
    float *output, int64_t output_row_stride)
{
    int64_t row_bytes, elements;
    if (!context) return lspan_status_null_pointer;
    LSPAN_CHECK(lspan_check_weights(table, &row_bytes));
    if (tokens < 0) return lspan_status_bad_shape;
    LSPAN_CHECK(lspan_multiply(tokens, table->columns, &elements));
    lspan_matrix_out rows = {output, lspan_dtype_f32, output_row_stride};
    if (tokens > 0) LSPAN_CHECK(check_lookup(table, tokens, ids, rows));
    row_decode decode = {table, row_bytes, ids, output, output_row_stride};
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_run_written_rows(context, tokens, elements, decode_rows, &decode);
    if (lspan_profile_wants(began, status)) {
        lspan_cost cost = lspan_embedding_cost(tokens, table, row_bytes);
        lspan_profile_record(context, began, lspan_profile_kernel_embedding, (int)table->type, cost);
    }
    return status;
}
