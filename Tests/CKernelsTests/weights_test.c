/* weights_test.c: block decoding, embedding lookup and linear layers against the reference. */
#include "weights_support.h"

static const lspan_block_type types[] = {
    lspan_block_type_f32,  lspan_block_type_f16,  lspan_block_type_bf16, lspan_block_type_q4_0, lspan_block_type_q4_1,
    lspan_block_type_q5_0, lspan_block_type_q5_1, lspan_block_type_q8_0, lspan_block_type_q4_k, lspan_block_type_q6_k};
#define TYPE_COUNT (sizeof types / sizeof types[0])

static int64_t random_columns(lspan_block_type type, int64_t most)
{
    int64_t elements;
    lspan_block_type_layout(type, &elements, NULL);
    return elements * test_random_int(1, most / elements > 0 ? most / elements : 1);
}

/* Products of an f16 scale, a small scale and a quant are exact in f32, so a decoded value is the exact one rounded
 * at most once. */
static void check_dequantize(lspan_block_type type, int64_t rows, int64_t columns)
{
    test_case("dequantize type%d rows%lld columns%lld", (int)type, (long long)rows, (long long)columns);
    test_buffer data;
    lspan_weights weights = random_weights(type, rows, columns, 1, &data);
    double *want = test_malloc(rows * columns, sizeof *want);
    lspan_reference_dequantize_f64(&weights, want);
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        test_buffer out = test_allocate((size_t)(rows * columns) * sizeof(float), sizeof(float));
        CHECK_OK(lspan_dequantize(contexts[i].context, &weights, out.data));
        for (int64_t k = 0; k < rows * columns; k++) {
            float got = ((float *)out.data)[k];
            if (!CHECK_MESSAGE(
                    got == (float)want[k], "%s: element %lld is %.9g, not %.9g", contexts[i].name, (long long)k,
                    (double)got, want[k])) {
                break;
            }
        }
        test_release(&out);
    }
    test_release(&data);
    free(want);
}

static void check_embedding(lspan_block_type type, int64_t rows, int64_t columns, int64_t tokens)
{
    test_case(
        "embedding type%d rows%lld columns%lld T%lld", (int)type, (long long)rows, (long long)columns,
        (long long)tokens);
    test_buffer data, ids = test_allocate((size_t)tokens * sizeof(int32_t), sizeof(int32_t));
    lspan_weights table = random_weights(type, rows, columns, 0, &data);
    for (int64_t t = 0; t < tokens; t++) ((int32_t *)ids.data)[t] = (int32_t)test_random_int(0, rows - 1);
    double *want = test_malloc(tokens * columns, sizeof *want);
    lspan_reference_embedding_f64(&table, tokens, ids.data, want);
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        test_tensor out = test_tensor_make(lspan_dtype_f32, tokens, 1, columns, test_random_layout());
        CHECK_OK(lspan_embedding(
            contexts[i].context, &table, tokens, ids.data, out.buffer.data, out.token_stride));
        int right = 1;
        for (int64_t t = 0; t < tokens; t++) {
            for (int64_t c = 0; c < columns; c++) right = right && test_get(&out, t, 0, c) == (float)want[t * columns + c];
        }
        CHECK_MESSAGE(right, "%s: a row is wrong", contexts[i].name);
        test_check_gaps(&out);
        test_tensor_release(&out);
    }
    test_release(&data);
    test_release(&ids);
    free(want);
}

static void check_linear(lspan_block_type type, int64_t rows, int64_t depth, int64_t outputs, int accumulate)
{
    test_case(
        "linear type%d R%lld K%lld M%lld accumulate%d", (int)type, (long long)rows, (long long)depth,
        (long long)outputs, accumulate);
    test_buffer data;
    lspan_linear linear = {.rows = rows, .accumulate = accumulate};
    linear.weights = random_weights(type, outputs, depth, 0, &data);
    test_tensor x = test_tensor_random(lspan_dtype_f32, rows, 1, depth, test_random_layout(), 1.0f);
    test_tensor y = test_tensor_make(lspan_dtype_f32, rows, 1, outputs, test_random_layout());
    if (accumulate) {
        for (int64_t r = 0; r < rows; r++) {
            for (int64_t m = 0; m < outputs; m++) test_set(&y, r, 0, m, 10 * test_random_normal());
        }
    }
    linear.input = x.buffer.data;
    linear.input_row_stride = x.token_stride;
    linear.output = y.buffer.data;
    linear.output_row_stride = y.token_stride;
    int64_t count = rows * outputs;
    double *want = test_malloc(count, sizeof *want);
    float *simple = test_malloc(count, sizeof *simple);
    lspan_reference_linear_f64(&linear, want);
    lspan_reference_linear_f32(&linear, simple);
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        test_tensor out = test_tensor_copy(&y);
        linear.output = out.buffer.data;
        size_t bytes = 0;
        CHECK_OK(lspan_linear_workspace_size(contexts[i].context, &linear, &bytes));
        test_buffer workspace = test_allocate(bytes, LSPAN_WORKSPACE_ALIGNMENT);
        CHECK_OK(lspan_linear_run(contexts[i].context, &linear, workspace.data, bytes));
        test_release(&workspace);
        float *got = test_gather(&out);
        /* K roundings at the size of the partial sums are a random walk of about 0.4 sqrt(K) 2^-24 times a result's
         * size; five deviations are always granted, because a small product's straightforward version may be lucky */
        double walk = 2 * sqrt((double)depth) + 4;
        test_check_errors(
            "linear", contexts[i].name, lspan_dtype_f32, got, want, simple, count,
            test_epsilon(lspan_dtype_f32) * walk * test_largest(want, count) / 2);
        test_check_gaps(&out);
        free(got);
        test_tensor_release(&out);
    }
    test_release(&data);
    test_tensor_release(&x);
    test_tensor_release(&y);
    free(want);
    free(simple);
}

int main(void)
{
    for (int i = 0; i < 300; i++) {
        lspan_block_type type = types[(size_t)i % TYPE_COUNT];
        check_dequantize(type, test_random_int(0, 6), random_columns(type, test_one_in(6) ? 4096 : 512));
        check_embedding(type, test_random_int(1, 9), random_columns(type, 512), test_random_int(0, 40));
    }
    for (int i = 0; i < 300; i++) {
        lspan_block_type type = types[(size_t)i % TYPE_COUNT];
        int64_t rows = test_one_in(3) ? 1 : test_random_int(0, 20);
        int64_t outputs = test_random_int(1, test_one_in(3) ? 300 : 40);
        check_linear(type, rows, random_columns(type, test_one_in(3) ? 512 : 64), outputs, test_one_in(3));
    }
    /* many input rows, and more weights than one decoded panel */
    check_linear(lspan_block_type_f32, 150, 40, 30, 0);
    check_linear(lspan_block_type_q8_0, 3, 2048, 200, 1);
    return test_finish("weights_test");
}
