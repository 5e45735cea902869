/* kernel_calls_dense.c: calls of dense.h, product.h and measure.h, see kernel_calls.h. */
#include "kernel_calls.h"
#include "product_support.h"

/* ---- Weights and products ------------------------------------------------------------------------------ */

KERNEL_WITH_WORKSPACE(linear, lspan_linear_run, lspan_linear)
KERNEL_WITH_WORKSPACE(product, lspan_product_run, lspan_product)

typedef struct weight_arguments {
    lspan_weights weights;
    int64_t tokens;
    const int32_t *ids;
    void *output;
    size_t bytes;
} weight_arguments;

KERNEL_WITH_PARAMETERS(dequantize, weight_arguments, &call->weights, call->output)
KERNEL_WITH_PARAMETERS(
    embedding, weight_arguments, &call->weights, call->tokens, call->ids, call->output, call->weights.columns)
KERNEL_WITH_PARAMETERS(pack_weights, weight_arguments, &call->weights, call->output, call->bytes)

static lspan_weights weights_of(lspan_block_type type, int64_t rows, int64_t columns)
{
    test_buffer buffer;
    return random_weights(type, rows, columns, 0, &buffer);
}

static void add_weights(lspan_block_type type)
{
    enum { rows = 70, columns = 256, tokens = 90 };
    lspan_weights weights = weights_of(type, rows, columns);
    kernel_call *call = kernel_call_add(NULL, run_dequantize, NULL, "dequantize of type %d", (int)type);
    call->arguments = KERNEL_KEEP(weight_arguments, {
        .weights = weights, .output = kernel_call_output(call, rows * columns, sizeof(float))});
    int32_t *ids = test_malloc(tokens, sizeof *ids);
    for (int64_t t = 0; t < tokens; t++) ids[t] = (int32_t)test_random_int(0, rows - 1);
    call = kernel_call_add(NULL, run_embedding, NULL, "embedding of type %d", (int)type);
    call->arguments = KERNEL_KEEP(weight_arguments, {
        .weights = weights, .tokens = tokens, .ids = ids,
        .output = kernel_call_output(call, tokens * columns, sizeof(float))});
}

static void add_pack(lspan_block_type type)
{
    lspan_weights weights = weights_of(type, 130, 512);
    size_t bytes = 0;
    CHECK_OK(lspan_packed_bytes(type, weights.rows, weights.columns, &bytes));
    kernel_call *call = kernel_call_add(NULL, run_pack_weights, NULL, "pack_weights of type %d", (int)type);
    test_buffer packed = test_allocate(bytes, LSPAN_WORKSPACE_ALIGNMENT);
    memset(packed.data, 0, bytes);
    kernel_call_in_place(call, packed.data, bytes);
    call->arguments = KERNEL_KEEP(weight_arguments, {.weights = weights, .output = packed.data, .bytes = bytes});
}

static void add_linear(lspan_block_type type, int64_t rows)
{
    enum { outputs = 300, columns = 256 };
    kernel_call *call = kernel_call_add(
        size_linear, run_linear, NULL, "linear of type %d, %lld rows", (int)type, (long long)rows);
    call->uses_openblas = 1;
    call->arguments = KERNEL_KEEP(lspan_linear, {
        .weights = weights_of(type, outputs, columns), .rows = rows, .input = test_floats(rows * columns, 1),
        .input_row_stride = columns, .output = kernel_call_output(call, rows * outputs, sizeof(float)),
        .output_row_stride = outputs});
}

static lspan_packed_weights packed_of(lspan_block_type type, int64_t outputs, int64_t columns)
{
    size_t count;
    const lspan_context *context = test_contexts(&count)[0].context;
    return product_matrix_random(context, type, outputs, columns, 0).packed;
}

static void add_product(lspan_block_type type, lspan_product_mode mode, int64_t rows)
{
    enum { outputs = 330, columns = 512 };
    kernel_call *call = kernel_call_add(
        size_product, run_product, NULL, "product of %s, mode %d, %lld rows", product_type_name(type), (int)mode,
        (long long)rows);
    lspan_product_output *output = KERNEL_KEEP(lspan_product_output, {
        .weights = packed_of(type, outputs, columns), .data = kernel_call_output(call, rows * outputs, sizeof(float)),
        .row_stride = outputs});
    call->arguments = KERNEL_KEEP(lspan_product, {
        .rows = rows, .columns = columns, .input = test_floats(rows * columns, 1), .input_row_stride = columns,
        .mode = mode, .output_count = 1, .outputs = output});
}

/* Three outputs of one input: one that accumulates, one with a gate, and a plain one of another type. */
static void add_products(lspan_product_mode mode, int64_t rows)
{
    enum { first = 200, second = 150, third = 90, columns = 512 };
    kernel_call *call = kernel_call_add(
        size_product, run_product, NULL, "product with three outputs, mode %d, %lld rows", (int)mode, (long long)rows);
    lspan_product_output *outputs = test_malloc(3, sizeof *outputs);
    float *sums = test_floats(rows * first, 1);
    outputs[0] = (lspan_product_output){
        .weights = packed_of(lspan_block_type_q8_0, first, columns), .accumulate = 1, .data = sums, .row_stride = first};
    kernel_call_in_place(call, sums, (size_t)(rows * first) * sizeof *sums);
    outputs[1] = (lspan_product_output){
        .weights = packed_of(lspan_block_type_q4_k, second, columns),
        .gate = packed_of(lspan_block_type_q4_k, second, columns), .activation = lspan_activation_silu,
        .data = kernel_call_output(call, rows * second, sizeof(float)), .row_stride = second};
    outputs[2] = (lspan_product_output){
        .weights = packed_of(lspan_block_type_bf16, third, columns),
        .data = kernel_call_output(call, rows * third, sizeof(float)), .row_stride = third};
    call->arguments = KERNEL_KEEP(lspan_product, {
        .rows = rows, .columns = columns, .input = test_floats(rows * columns, 1), .input_row_stride = columns,
        .mode = mode, .output_count = 3, .outputs = outputs});
}

/* ---- Elementwise --------------------------------------------------------------------------------------- */

typedef struct row_arguments {
    int64_t rows, columns;
    lspan_matrix input, second;
    const float *weight, *bias;
    float epsilon;
    lspan_activation activation;
    lspan_matrix_out output;
    const int32_t *targets;
    float *nll, *entropy;
} row_arguments;

KERNEL_WITH_PARAMETERS(
    rms_norm, row_arguments, call->rows, call->columns, call->input, call->weight, call->epsilon, call->output)
KERNEL_WITH_PARAMETERS(
    layer_norm, row_arguments, call->rows, call->columns, call->input, call->weight, call->bias, call->epsilon,
    call->output)
KERNEL_WITH_PARAMETERS(
    gated_activation, row_arguments, call->activation, call->rows, call->columns, call->input, call->second,
    call->output)
KERNEL_WITH_PARAMETERS(
    log_softmax_gather, row_arguments, call->rows, call->columns, call->input, call->targets, call->nll, call->entropy)

static void add_rows(kernel_run run, const char *name, int detail, lspan_dtype dtype)
{
    enum { rows = 77, columns = 300 };
    kernel_call *call = kernel_call_add(NULL, run, NULL, "%s, detail %d, dtype %d", name, detail, (int)dtype);
    test_tensor x = test_tensor_random(dtype, rows, 1, columns, test_layout_padded_token_major, 1);
    test_tensor z = test_tensor_random(dtype, rows, 1, columns, test_layout_token_major, 1);
    lspan_matrix_out output = {kernel_call_output(call, rows * columns, lspan_dtype_size(dtype)), dtype, columns};
    call->arguments = KERNEL_KEEP(row_arguments, {
        .rows = rows, .columns = columns, .input = test_matrix(&x), .second = test_matrix(&z),
        .weight = test_floats(columns, 1), .bias = test_floats(columns, 1), .epsilon = 1e-5f,
        .activation = (lspan_activation)detail, .output = output});
}

static void add_loss(lspan_dtype dtype)
{
    enum { rows = 23, vocabulary = 1100 };
    kernel_call *call = kernel_call_add(NULL, run_log_softmax_gather, NULL, "log_softmax_gather, dtype %d", (int)dtype);
    test_tensor logits = test_tensor_random(dtype, rows, 1, vocabulary, test_layout_token_major, 3);
    int32_t *targets = test_malloc(rows, sizeof *targets);
    for (int64_t r = 0; r < rows; r++) targets[r] = (int32_t)test_random_int(0, vocabulary - 1);
    call->arguments = KERNEL_KEEP(row_arguments, {
        .rows = rows, .columns = vocabulary, .input = test_matrix(&logits), .targets = targets,
        .nll = kernel_call_output(call, rows, sizeof(float)), .entropy = kernel_call_output(call, rows, sizeof(float))});
}

typedef struct head_arguments {
    lspan_rope_layout layout;
    int64_t tokens, heads, head_dim, pairs;
    const float *cosine, *sine;
    lspan_heads input;
    lspan_heads_out output;
} head_arguments;

KERNEL_WITH_PARAMETERS(
    rope, head_arguments, call->layout, call->tokens, call->heads, call->head_dim, call->pairs, call->cosine,
    call->sine, call->input, call->output)
KERNEL_WITH_PARAMETERS(
    convert, head_arguments, call->tokens, call->heads, call->head_dim, call->input, call->output)

static void add_heads(kernel_run run, const char *name, lspan_rope_layout layout, lspan_dtype from, lspan_dtype to)
{
    enum { tokens = 111, heads = 5, head_dim = 40, pairs = 14 };
    kernel_call *call = kernel_call_add(NULL, run, NULL, "%s, layout %d, dtypes %d %d", name, (int)layout, (int)from, (int)to);
    test_tensor x = test_tensor_random(from, tokens, heads, head_dim, test_layout_padded_head_major, 1);
    lspan_heads_out output = {
        kernel_call_output(call, tokens * heads * head_dim, lspan_dtype_size(to)), to, heads * head_dim, head_dim};
    call->arguments = KERNEL_KEEP(head_arguments, {
        .layout = layout, .tokens = tokens, .heads = heads, .head_dim = head_dim, .pairs = pairs,
        .cosine = test_floats(tokens * pairs, 1), .sine = test_floats(tokens * pairs, 1), .input = test_heads(&x),
        .output = output});
}

typedef struct table_arguments {
    int64_t tokens, pairs;
    const int64_t *positions;
    const float *frequencies;
    float *cosine, *sine;
} table_arguments;

static lspan_status run_rope_table(const lspan_context *context, const void *arguments, void *memory, size_t bytes)
{
    const table_arguments *call = arguments;
    (void)context;
    (void)memory;
    (void)bytes;
    return lspan_rope_table(call->tokens, call->positions, call->pairs, call->frequencies, call->cosine, call->sine);
}

static void add_rope_table(void)
{
    enum { tokens = 40, pairs = 16 };
    kernel_call *call = kernel_call_add(NULL, run_rope_table, NULL, "rope_table");
    int64_t *positions = test_malloc(tokens, sizeof *positions);
    for (int64_t t = 0; t < tokens; t++) positions[t] = 1000 * t;
    call->arguments = KERNEL_KEEP(table_arguments, {
        tokens, pairs, positions, test_floats(pairs, 1), kernel_call_output(call, tokens * pairs, sizeof(float)),
        kernel_call_output(call, tokens * pairs, sizeof(float))});
}

void kernel_calls_dense(void)
{
    static const lspan_block_type types[] = {
        lspan_block_type_f32,  lspan_block_type_f16,  lspan_block_type_bf16, lspan_block_type_q4_0, lspan_block_type_q4_1,
        lspan_block_type_q5_0, lspan_block_type_q5_1, lspan_block_type_q8_0, lspan_block_type_q4_k, lspan_block_type_q6_k};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) add_weights(types[i]);
    for (size_t i = 0; i < PACKABLE_COUNT; i++) {
        add_pack(packable[i]);
        add_product(packable[i], lspan_product_mode_native, 1);
        add_product(packable[i], lspan_product_mode_native, 11);
    }
    add_product(lspan_block_type_q4_0, lspan_product_mode_f32, 5);
    add_products(lspan_product_mode_native, 3);
    add_products(lspan_product_mode_native, 40);
    add_products(lspan_product_mode_f32, 19);
    add_linear(lspan_block_type_f32, 20);
    add_linear(lspan_block_type_q8_0, 3);
    add_rows(run_rms_norm, "rms_norm", 0, lspan_dtype_f32);
    add_rows(run_rms_norm, "rms_norm", 0, lspan_dtype_bf16);
    add_rows(run_layer_norm, "layer_norm", 0, lspan_dtype_f32);
    for (int a = 0; a < 3; a++) add_rows(run_gated_activation, "gated_activation", a, (lspan_dtype)a);
    add_loss(lspan_dtype_f32);
    add_loss(lspan_dtype_f16);
    add_heads(run_rope, "rope", lspan_rope_layout_halves, lspan_dtype_f32, lspan_dtype_bf16);
    add_heads(run_rope, "rope", lspan_rope_layout_interleaved, lspan_dtype_f16, lspan_dtype_f32);
    add_heads(run_convert, "convert", lspan_rope_layout_halves, lspan_dtype_f32, lspan_dtype_f16);
    add_rope_table();
}
