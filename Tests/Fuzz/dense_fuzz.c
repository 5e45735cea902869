/* dense_fuzz.c: targets of dense.h. */
#include "fuzz.h"

static const int32_t block_types[] = {0, 1, 2, 3, 6, 7, 8, 12, 14, 30};

/* Weights of whole blocks of columns, most of the time. */
static lspan_weights draw_weights(fuzz *f)
{
    lspan_weights w = {.type = (lspan_block_type)fuzz_code(f, block_types, 10)};
    int64_t elements, bytes;
    lspan_block_type_layout(w.type, &elements, &bytes);
    w.rows = fuzz_dim(f, 0, 40);
    w.columns = fuzz_dim(f, 0, 3);
    if (w.columns >= 0 && w.columns <= 3) w.columns *= elements == 1 ? 1 + (int64_t)fuzz_below(f, 40) : elements;
    if (fuzz_wild(f, 16)) w.columns = fuzz_dim(f, 0, 300);
    return w;
}

static void place_weights(fuzz *f, lspan_weights *w)
{
    int64_t elements, bytes;
    lspan_block_type_layout(w->type, &elements, &bytes);
    int64_t blocks = elements ? w->columns / elements : w->columns;
    fuzz_operand_at(f, &w->data, fuzz_count(w->rows, blocks, 1, elements ? (size_t)bytes : 4),
        elements == 1 ? (size_t)bytes : 1, fuzz_bytes, 0);
}

static void fuzz_dequantize(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    lspan_weights w = draw_weights(f);
    float *output;
    fuzz_work(f, w.rows, w.columns, 1, 1);
    place_weights(f, &w);
    fuzz_output(f, &output, fuzz_count(w.rows, w.columns, 1, 4), fuzz_f32);
    fuzz_place(f);
    fuzz_finish(f, context, lspan_dequantize(context, fuzz_wild(f, 64) ? NULL : &w, output));
}

static void fuzz_embedding(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    lspan_weights table = draw_weights(f);
    int64_t tokens = fuzz_dim(f, 0, 20);
    int32_t *ids = fuzz_indices(f, tokens, sizeof *ids);
    for (int64_t t = 0; fuzz_usable(ids, 4) && t < tokens && tokens <= 20; t++) {
        ids[t] = (int32_t)(fuzz_bits(f) % (uint64_t)(table.rows > 0 ? table.rows : 1));
        if (fuzz_wild(f, 64)) ids[t] = (int32_t)fuzz_bad_number(f);
    }
    lspan_matrix_out output = {.dtype = lspan_dtype_f32};
    place_weights(f, &table);
    fuzz_matrix_output(f, &output, tokens, table.columns);
    fuzz_place(f);
    fuzz_finish(f, context, lspan_embedding(context, fuzz_wild(f, 64) ? NULL : &table, tokens, ids, output.data,
        output.row_stride));
}

static void fuzz_linear(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    lspan_linear l = {.weights = draw_weights(f), .rows = fuzz_dim(f, 0, 20), .accumulate = fuzz_flag(f)};
    fuzz_work(f, l.weights.rows, l.weights.columns, l.rows, 1);
    place_weights(f, &l.weights);
    lspan_matrix input = {.dtype = lspan_dtype_f32};
    lspan_matrix_out output = {.dtype = lspan_dtype_f32};
    fuzz_matrix_input(f, &input, l.rows, l.weights.columns);
    fuzz_matrix_output(f, &output, l.rows, l.weights.rows);
    l.input_row_stride = input.row_stride;
    l.output_row_stride = output.row_stride;
    fuzz_place(f);
    l.input = input.data;
    l.output = output.data;
    FUZZ_RUN(f, context, &l, lspan_linear_workspace_size, lspan_linear_run);
}

static void fuzz_norm(fuzz *f, int layer)
{
    const lspan_context *context = fuzz_context(f);
    int64_t rows = fuzz_dim(f, 0, 12), columns = fuzz_dim(f, 1, 100);
    lspan_matrix input = {.dtype = fuzz_dtype(f)};
    lspan_matrix_out output = {.dtype = fuzz_dtype(f)};
    const float *weight, *bias;
    fuzz_matrix_input(f, &input, rows, columns);
    fuzz_matrix_output(f, &output, rows, columns);
    fuzz_optional(f, &weight, fuzz_count(columns, 1, 1, 4), fuzz_f32, 0);
    fuzz_optional(f, &bias, fuzz_count(columns, 1, 1, 4), fuzz_f32, 0);
    float epsilon = fuzz_float(f, 1e-5f);
    fuzz_place(f);
    lspan_status status = layer ? lspan_layer_norm(context, rows, columns, input, weight, bias, epsilon, output)
                                : lspan_rms_norm(context, rows, columns, input, weight, epsilon, output);
    fuzz_finish(f, context, status);
}

static void fuzz_rms_norm(fuzz *f)
{
    fuzz_norm(f, 0);
}

static void fuzz_layer_norm(fuzz *f)
{
    fuzz_norm(f, 1);
}

static void fuzz_rope_table(fuzz *f)
{
    int64_t tokens = fuzz_dim(f, 0, 20), pairs = fuzz_dim(f, 0, 40);
    const int64_t *positions;
    const float *frequencies;
    float *cosine, *sine;
    fuzz_work(f, tokens, pairs, 1, 1);
    fuzz_operand_at(f, &positions, fuzz_count(tokens, 1, 1, 8), 8, fuzz_bytes, 0);
    fuzz_input(f, &frequencies, fuzz_count(pairs, 1, 1, 4), fuzz_f32);
    fuzz_output(f, &cosine, fuzz_count(tokens, pairs, 1, 4), fuzz_f32);
    fuzz_output(f, &sine, fuzz_count(tokens, pairs, 1, 4), fuzz_f32);
    fuzz_place(f);
    fuzz_finish(f, NULL, lspan_rope_table(tokens, positions, pairs, frequencies, cosine, sine));
}

static void fuzz_rope(fuzz *f)
{
    static const int32_t layouts[] = {lspan_rope_layout_halves, lspan_rope_layout_interleaved};
    const lspan_context *context = fuzz_context(f);
    lspan_rope_layout layout = (lspan_rope_layout)fuzz_code(f, layouts, 2);
    int64_t tokens = fuzz_dim(f, 0, 10), heads = fuzz_dim(f, 0, 5), head_dim = fuzz_dim(f, 0, 70);
    int64_t pairs = fuzz_dim(f, 0, head_dim >= 0 && head_dim <= 70 ? head_dim / 2 : 8);
    const float *cosine, *sine;
    lspan_heads input = {.dtype = fuzz_dtype(f)};
    lspan_heads_out output = {.dtype = fuzz_dtype(f)};
    fuzz_input(f, &cosine, fuzz_count(tokens, pairs, 1, 4), fuzz_f32);
    fuzz_input(f, &sine, fuzz_count(tokens, pairs, 1, 4), fuzz_f32);
    fuzz_heads_input(f, &input, tokens, heads, head_dim);
    fuzz_heads_output(f, &output, tokens, heads, head_dim);
    fuzz_place(f);
    fuzz_finish(f, context, lspan_rope(context, layout, tokens, heads, head_dim, pairs, cosine, sine, input, output));
}

static void fuzz_gated_activation(fuzz *f)
{
    static const int32_t activations[] = {0, 1, 2};
    const lspan_context *context = fuzz_context(f);
    lspan_activation activation = (lspan_activation)fuzz_code(f, activations, 3);
    int64_t rows = fuzz_dim(f, 0, 12), columns = fuzz_dim(f, 0, 100);
    lspan_matrix gate = {.dtype = fuzz_dtype(f)}, up = {.dtype = fuzz_dtype(f)};
    lspan_matrix_out output = {.dtype = fuzz_dtype(f)};
    fuzz_matrix_input(f, &gate, rows, columns);
    fuzz_matrix_input(f, &up, rows, columns);
    fuzz_matrix_output(f, &output, rows, columns);
    fuzz_place(f);
    fuzz_finish(f, context, lspan_gated_activation(context, activation, rows, columns, gate, up, output));
}

static void fuzz_convert(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    int64_t tokens = fuzz_dim(f, 0, 10), heads = fuzz_dim(f, 0, 6), head_dim = fuzz_dim(f, 0, 70);
    lspan_heads input = {.dtype = fuzz_dtype(f)};
    lspan_heads_out output = {.dtype = fuzz_dtype(f)};
    fuzz_heads_input(f, &input, tokens, heads, head_dim);
    fuzz_heads_output(f, &output, tokens, heads, head_dim);
    fuzz_place(f);
    fuzz_finish(f, context, lspan_convert(context, tokens, heads, head_dim, input, output));
}

static void fuzz_log_softmax_gather(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    int64_t rows = fuzz_dim(f, 0, 10), vocabulary = fuzz_dim(f, 1, 200);
    int32_t *targets = fuzz_indices(f, rows, sizeof *targets);
    for (int64_t r = 0; fuzz_usable(targets, 4) && r < rows && rows <= 10; r++) {
        targets[r] = (int32_t)(fuzz_bits(f) % (uint64_t)(vocabulary > 0 ? vocabulary : 1));
        if (fuzz_wild(f, 32)) targets[r] = (int32_t)fuzz_bad_number(f);
    }
    lspan_matrix logits = {.dtype = fuzz_dtype(f)};
    float *nll, *entropy;
    fuzz_matrix_input(f, &logits, rows, vocabulary);
    fuzz_optional(f, &nll, fuzz_count(rows, 1, 1, 4), fuzz_f32, 1);
    fuzz_optional(f, &entropy, fuzz_count(rows, 1, 1, 4), fuzz_f32, 1);
    fuzz_place(f);
    fuzz_finish(f, context, lspan_log_softmax_gather(context, rows, vocabulary, logits, targets, nll, entropy));
}

const fuzz_target fuzz_dense_targets[] = {
    {"dequantize", fuzz_dequantize, "lspan_dequantize"},
    {"embedding", fuzz_embedding, "lspan_embedding"},
    {"linear", fuzz_linear, "lspan_linear_workspace_size lspan_linear_run"},
    {"rms_norm", fuzz_rms_norm, "lspan_rms_norm"},
    {"layer_norm", fuzz_layer_norm, "lspan_layer_norm"},
    {"rope_table", fuzz_rope_table, "lspan_rope_table"},
    {"rope", fuzz_rope, "lspan_rope"},
    {"gated_activation", fuzz_gated_activation, "lspan_gated_activation"},
    {"convert", fuzz_convert, "lspan_convert"},
    {"log_softmax_gather", fuzz_log_softmax_gather, "lspan_log_softmax_gather"},
    {NULL, NULL, NULL}};
