/* cost.c: bytes, FLOPs and exponentials of every kernel call.
 *
 * No sum here overflows for a call that has ended: it would have taken centuries. */
#include "cost.h"
#include "kernels/attention_mask.h"

static int64_t size_of(lspan_dtype dtype)
{
    return (int64_t)lspan_dtype_size(dtype);
}

static int64_t keys_in(lspan_row_keys seen)
{
    return seen.sinks + seen.high - seen.low;
}

lspan_cost lspan_attention_cost(const lspan_attention *a)
{
    int64_t pairs = 0, keys_read = 0;
    for (int64_t b = 0; b < a->sequences; b++) {
        int64_t tokens = a->query_indptr[b + 1] - a->query_indptr[b], keys = a->kv_indptr[b + 1] - a->kv_indptr[b];
        if (tokens == 0) continue;
        keys_read += keys_in(lspan_keys_of_rows(a, 0, tokens - 1, tokens, keys));
        for (int64_t row = 0; row < tokens; row++) {
            pairs += keys_in(lspan_keys_of_rows(a, row, row, tokens, keys));
        }
    }
    int64_t rows = a->query_indptr[a->sequences] * a->query_heads;
    int64_t row_bytes = a->head_dim * (size_of(a->queries.dtype) + (int64_t)sizeof(float));
    if (a->log_sum_exp) row_bytes += (int64_t)sizeof(float);
    lspan_cost cost;
    cost.bytes = 2 * keys_read * a->kv_heads * a->head_dim * size_of(a->keys.dtype) + rows * row_bytes;
    cost.flops = 4 * a->query_heads * a->head_dim * pairs;
    cost.exponentials = a->query_heads * pairs;
    return cost;
}

lspan_cost lspan_merge_cost(int64_t parts, int64_t rows, int64_t head_dim, int has_log_sum_exp)
{
    int64_t part_rows = parts * rows, out_row = head_dim + (has_log_sum_exp ? 1 : 0);
    lspan_cost cost = {0, 0, 0};
    if (rows == 0) return cost;
    cost.bytes = (int64_t)sizeof(float) * (part_rows * (head_dim + 1) + rows * out_row);
    cost.flops = 2 * part_rows * head_dim;
    cost.exponentials = part_rows;
    return cost;
}

lspan_cost lspan_rope_cost(int64_t tokens, const lspan_rotation *r)
{
    int64_t elements = tokens * r->heads * r->head_dim;
    lspan_cost cost = {0, 0, 0};
    if (elements == 0) return cost;
    cost.bytes = elements * (size_of(r->input.dtype) + size_of(r->output.dtype)) +
        2 * (int64_t)sizeof(float) * tokens * r->pairs;
    cost.flops = 6 * tokens * r->heads * r->pairs;
    return cost;
}

lspan_cost lspan_convert_cost(int64_t elements, lspan_dtype input, lspan_dtype output)
{
    lspan_cost cost = {elements * (size_of(input) + size_of(output)), 0, 0};
    return cost;
}

/* A norm whose rows cost `flops` an element without weight and bias, each of which adds one. */
static lspan_cost norm_cost(int64_t rows, const lspan_norm *norm, int64_t flops)
{
    int64_t vectors = (norm->weight ? 1 : 0) + (norm->bias ? 1 : 0);
    lspan_cost cost = {0, 0, 0};
    if (rows == 0) return cost;
    cost.bytes = rows * norm->columns * (size_of(norm->input.dtype) + size_of(norm->output.dtype)) +
        vectors * norm->columns * (int64_t)sizeof(float);
    cost.flops = rows * norm->columns * (flops + vectors);
    return cost;
}

lspan_cost lspan_rms_norm_cost(int64_t rows, const lspan_norm *norm)
{
    return norm_cost(rows, norm, 3);
}

lspan_cost lspan_layer_norm_cost(int64_t rows, const lspan_norm *norm)
{
    return norm_cost(rows, norm, 5);
}

lspan_cost lspan_gate_cost(int64_t rows, const lspan_gate *g)
{
    int64_t elements = rows * g->columns, flops = 6;
    if (g->activation == lspan_activation_silu) flops = 4;
    if (g->activation == lspan_activation_gelu_tanh) flops = 9;
    lspan_cost cost;
    cost.bytes = elements * (size_of(g->gate.dtype) + size_of(g->up.dtype) + size_of(g->output.dtype));
    cost.flops = elements * flops;
    cost.exponentials = elements;
    return cost;
}

lspan_cost lspan_loss_cost(int64_t rows, const lspan_loss *l)
{
    int64_t elements = rows * l->vocabulary;
    /* a target is read and a loss written, or neither */
    int64_t row_bytes = (l->nll ? 8 : 0) + (l->entropy ? 4 : 0);
    lspan_cost cost = {elements * size_of(l->logits.dtype) + rows * row_bytes, 5 * elements, elements};
    return cost;
}

/* Decoding rows of weights to f32; an offset and a factor for each quantized element. */
static lspan_cost decode_cost(int64_t rows, const lspan_weights *weights, int64_t row_bytes)
{
    int64_t elements = rows * weights->columns, block;
    lspan_block_type_layout(weights->type, &block, NULL);
    lspan_cost cost = {rows * row_bytes + elements * (int64_t)sizeof(float), block > 1 ? 2 * elements : 0, 0};
    return cost;
}

lspan_cost lspan_embedding_cost(int64_t tokens, const lspan_weights *table, int64_t row_bytes)
{
    lspan_cost cost = decode_cost(tokens, table, row_bytes);
    cost.bytes += tokens * (int64_t)sizeof(int32_t);
    return cost;
}

lspan_cost lspan_dequantize_cost(const lspan_weights *weights, int64_t row_bytes)
{
    return decode_cost(weights->rows, weights, row_bytes);
}

lspan_cost lspan_linear_cost(const lspan_linear *l, int64_t row_bytes)
{
    int64_t outputs = l->rows * l->weights.rows;
    lspan_cost cost = {0, 0, 0};
    if (outputs == 0) return cost;
    int64_t floats = l->rows * l->weights.columns + outputs * (l->accumulate ? 2 : 1);
    cost.bytes = l->weights.rows * row_bytes + (int64_t)sizeof(float) * floats;
    cost.flops = 2 * outputs * l->weights.columns;
    return cost;
}
