/* dense_contract_test.c: what norms, rope, activations, conversion and losses refuse, with which status, and that
 * nothing is written then. */
#include "support.h"

#define ROWS 3
#define COLUMNS 8

static const lspan_context *context;
static test_tensor input, other, output;
static test_buffer floats; /* ROWS * COLUMNS */
static test_buffer results, more_results;

static void expect(lspan_status got, lspan_status want, const char *call, int line)
{
    test_status(got, want, __FILE__, line, call);
    CHECK_MESSAGE(
        test_is_untouched(output.buffer.data, output.buffer.bytes) && test_is_untouched(results.data, results.bytes) &&
            test_is_untouched(more_results.data, more_results.bytes),
        "a refused call wrote something");
}

#define REFUSE(call, status) expect((call), lspan_status_##status, #call, __LINE__)

static const void *shifted(const void *pointer, size_t bytes)
{
    return (const char *)pointer + bytes;
}

static lspan_matrix matrix(const void *data, lspan_dtype dtype, int64_t row_stride)
{
    lspan_matrix m = {data, dtype, row_stride};
    return m;
}

static lspan_matrix_out matrix_out(const void *data, lspan_dtype dtype, int64_t row_stride)
{
    lspan_matrix_out m = {(void *)(uintptr_t)data, dtype, row_stride};
    return m;
}

static lspan_heads heads(const void *data, lspan_dtype dtype, int64_t token_stride, int64_t head_stride)
{
    lspan_heads h = {data, dtype, token_stride, head_stride};
    return h;
}

static lspan_heads_out heads_out(const void *data, lspan_dtype dtype, int64_t token_stride, int64_t head_stride)
{
    lspan_heads_out h = {(void *)(uintptr_t)data, dtype, token_stride, head_stride};
    return h;
}

#define F32 lspan_dtype_f32
#define UNKNOWN_DTYPE ((lspan_dtype)3)
#define IN matrix(input.buffer.data, F32, COLUMNS)
#define OUT matrix_out(output.buffer.data, F32, COLUMNS)

static void test_norms(void)
{
    test_case("norm contract");
    const float *w = floats.data;
    const void *x = input.buffer.data, *y = output.buffer.data;
#define RMS(c, rows, columns, in, weight, epsilon, out) lspan_rms_norm(c, rows, columns, in, weight, epsilon, out)
#define LAYER(c, rows, columns, in, weight, epsilon, out) \
    lspan_layer_norm(c, rows, columns, in, weight, weight, epsilon, out)
#define REFUSE_BOTH(status, ...)        \
    do {                                \
        REFUSE(RMS(__VA_ARGS__), status);   \
        REFUSE(LAYER(__VA_ARGS__), status); \
    } while (0)
    REFUSE_BOTH(null_pointer, NULL, ROWS, COLUMNS, IN, w, 0, OUT);
    REFUSE_BOTH(null_pointer, context, ROWS, COLUMNS, matrix(NULL, F32, COLUMNS), w, 0, OUT);
    REFUSE_BOTH(null_pointer, context, ROWS, COLUMNS, IN, w, 0, matrix_out(NULL, F32, COLUMNS));
    REFUSE_BOTH(bad_shape, context, -1, COLUMNS, IN, w, 0, OUT);
    REFUSE_BOTH(bad_shape, context, ROWS, -1, IN, w, 0, OUT);
    REFUSE_BOTH(bad_shape, context, ROWS, 0, IN, w, 0, OUT);
    REFUSE_BOTH(bad_stride, context, ROWS, COLUMNS, matrix(x, F32, -1), w, 0, OUT);
    REFUSE_BOTH(bad_stride, context, ROWS, COLUMNS, IN, w, 0, matrix_out(y, F32, COLUMNS - 1));
    REFUSE_BOTH(bad_stride, context, ROWS, COLUMNS, IN, w, 0, matrix_out(y, F32, 0));
    REFUSE_BOTH(bad_stride, context, ROWS, COLUMNS, IN, w, 0, matrix_out(y, F32, -COLUMNS));
    REFUSE_BOTH(bad_alignment, context, ROWS, COLUMNS, matrix(shifted(x, 2), F32, COLUMNS), w, 0, OUT);
    REFUSE_BOTH(bad_alignment, context, ROWS, COLUMNS, matrix(shifted(x, 1), lspan_dtype_f16, COLUMNS), w, 0, OUT);
    REFUSE_BOTH(bad_alignment, context, ROWS, COLUMNS, IN, w, 0, matrix_out(shifted(y, 1), F32, COLUMNS));
    REFUSE_BOTH(bad_alignment, context, ROWS, COLUMNS, IN, shifted(w, 2), 0, OUT);
    REFUSE(lspan_layer_norm(context, ROWS, COLUMNS, IN, w, shifted(w, 1), 0, OUT), bad_alignment);
    REFUSE_BOTH(bad_dtype, context, ROWS, COLUMNS, matrix(x, UNKNOWN_DTYPE, COLUMNS), w, 0, OUT);
    REFUSE_BOTH(bad_dtype, context, ROWS, COLUMNS, IN, w, 0, matrix_out(y, UNKNOWN_DTYPE, COLUMNS));
    REFUSE_BOTH(bad_value, context, ROWS, COLUMNS, IN, w, NAN, OUT);
    REFUSE_BOTH(bad_value, context, ROWS, COLUMNS, IN, w, INFINITY, OUT);
    REFUSE_BOTH(bad_value, context, ROWS, COLUMNS, IN, w, -1e-6f, OUT);
    REFUSE_BOTH(overflow, context, INT64_MAX, COLUMNS, IN, w, 0, OUT);
    REFUSE_BOTH(overflow, context, ROWS, INT64_MAX, IN, w, 0, OUT);
    REFUSE_BOTH(overflow, context, ROWS, COLUMNS, matrix(x, F32, INT64_MAX), w, 0, OUT);
    REFUSE_BOTH(overflow, context, ROWS, COLUMNS, IN, w, 0, matrix_out(y, F32, INT64_MAX / 2));
    CHECK_OK(RMS(context, 0, COLUMNS, matrix(NULL, F32, COLUMNS), w, 0, matrix_out(NULL, F32, COLUMNS)));
    CHECK_OK(LAYER(context, 0, COLUMNS, matrix(NULL, F32, COLUMNS), w, 0, matrix_out(NULL, F32, COLUMNS)));
#undef REFUSE_BOTH
#undef RMS
#undef LAYER
}

static void test_rope_table(void)
{
    test_case("rope_table contract");
    int64_t positions[2] = {0, 1};
    const float *f = floats.data;
    float *c = results.data, *s = more_results.data;
    REFUSE(lspan_rope_table(2, NULL, 3, f, c, s), null_pointer);
    REFUSE(lspan_rope_table(2, positions, 3, NULL, c, s), null_pointer);
    REFUSE(lspan_rope_table(2, positions, 3, f, NULL, s), null_pointer);
    REFUSE(lspan_rope_table(2, positions, 3, f, c, NULL), null_pointer);
    REFUSE(lspan_rope_table(-2, positions, 3, f, c, s), bad_shape);
    REFUSE(lspan_rope_table(2, positions, -3, f, c, s), bad_shape);
    REFUSE(lspan_rope_table(INT64_MAX, positions, 3, f, c, s), overflow);
    REFUSE(lspan_rope_table(2, positions, INT64_MAX, f, c, s), overflow);
    REFUSE(lspan_rope_table(2, shifted(positions, 4), 3, f, c, s), bad_alignment);
    REFUSE(lspan_rope_table(2, positions, 3, shifted(f, 1), c, s), bad_alignment);
    REFUSE(lspan_rope_table(2, positions, 3, f, (float *)(uintptr_t)shifted(c, 2), s), bad_alignment);
    REFUSE(lspan_rope_table(2, positions, 3, f, c, (float *)(uintptr_t)shifted(s, 3)), bad_alignment);
}

/* [ROWS, 2, 4] inside the same memory. */
static void test_rope(void)
{
    test_case("rope contract");
    const float *t = floats.data;
    const void *x = input.buffer.data, *y = output.buffer.data;
    const lspan_rope_layout halves = lspan_rope_layout_halves;
#define ROPE_IN heads(x, F32, COLUMNS, 4)
#define ROPE_OUT heads_out(y, F32, COLUMNS, 4)
    REFUSE(lspan_rope(NULL, halves, ROWS, 2, 4, 2, t, t, ROPE_IN, ROPE_OUT), null_pointer);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, 2, NULL, t, ROPE_IN, ROPE_OUT), null_pointer);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, 2, t, NULL, ROPE_IN, ROPE_OUT), null_pointer);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, 2, t, t, heads(NULL, F32, COLUMNS, 4), ROPE_OUT), null_pointer);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, 2, t, t, ROPE_IN, heads_out(NULL, F32, COLUMNS, 4)), null_pointer);
    REFUSE(lspan_rope(context, (lspan_rope_layout)2, ROWS, 2, 4, 2, t, t, ROPE_IN, ROPE_OUT), bad_dtype);
    REFUSE(lspan_rope(context, (lspan_rope_layout)-1, ROWS, 2, 4, 2, t, t, ROPE_IN, ROPE_OUT), bad_dtype);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, 2, t, t, heads(x, UNKNOWN_DTYPE, COLUMNS, 4), ROPE_OUT), bad_dtype);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, 2, t, t, ROPE_IN, heads_out(y, UNKNOWN_DTYPE, COLUMNS, 4)), bad_dtype);
    REFUSE(lspan_rope(context, halves, -1, 2, 4, 2, t, t, ROPE_IN, ROPE_OUT), bad_shape);
    REFUSE(lspan_rope(context, halves, ROWS, -1, 4, 2, t, t, ROPE_IN, ROPE_OUT), bad_shape);
    REFUSE(lspan_rope(context, halves, ROWS, 2, -4, 2, t, t, ROPE_IN, ROPE_OUT), bad_shape);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, -1, t, t, ROPE_IN, ROPE_OUT), bad_shape);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, 3, t, t, ROPE_IN, ROPE_OUT), bad_shape);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, INT64_MAX, t, t, ROPE_IN, ROPE_OUT), bad_shape);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, 2, t, t, heads(x, F32, -1, 4), ROPE_OUT), bad_stride);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, 2, t, t, heads(x, F32, COLUMNS, -4), ROPE_OUT), bad_stride);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, 2, t, t, ROPE_IN, heads_out(y, F32, COLUMNS, 3)), bad_stride);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, 2, t, t, ROPE_IN, heads_out(y, F32, 7, 4)), bad_stride);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, 2, t, t, ROPE_IN, heads_out(y, F32, 0, 4)), bad_stride);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, 2, shifted(t, 2), t, ROPE_IN, ROPE_OUT), bad_alignment);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, 2, t, shifted(t, 1), ROPE_IN, ROPE_OUT), bad_alignment);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, 2, t, t, heads(shifted(x, 2), F32, COLUMNS, 4), ROPE_OUT), bad_alignment);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, 2, t, t, ROPE_IN, heads_out(shifted(y, 1), F32, COLUMNS, 4)), bad_alignment);
    REFUSE(lspan_rope(context, halves, INT64_MAX, 2, 4, 2, t, t, ROPE_IN, ROPE_OUT), overflow);
    REFUSE(lspan_rope(context, halves, ROWS, INT64_MAX, 4, 2, t, t, ROPE_IN, ROPE_OUT), overflow);
    REFUSE(lspan_rope(context, halves, ROWS, 2, INT64_MAX, 2, t, t, ROPE_IN, ROPE_OUT), overflow);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, 2, t, t, heads(x, F32, INT64_MAX, 4), ROPE_OUT), overflow);
    REFUSE(lspan_rope(context, halves, ROWS, 2, 4, 2, t, t, ROPE_IN, heads_out(y, F32, COLUMNS, INT64_MAX)), overflow);
    CHECK_OK(lspan_rope(context, halves, 0, 2, 4, 2, NULL, NULL, heads(NULL, F32, 8, 4), heads_out(NULL, F32, 8, 4)));
#undef ROPE_IN
#undef ROPE_OUT
}

static void test_activation(void)
{
    test_case("activation contract");
    const void *x = input.buffer.data, *y = output.buffer.data;
    const lspan_activation silu = lspan_activation_silu;
#define UP matrix(other.buffer.data, F32, COLUMNS)
    REFUSE(lspan_gated_activation(NULL, silu, ROWS, COLUMNS, IN, UP, OUT), null_pointer);
    REFUSE(lspan_gated_activation(context, silu, ROWS, COLUMNS, matrix(NULL, F32, COLUMNS), UP, OUT), null_pointer);
    REFUSE(lspan_gated_activation(context, silu, ROWS, COLUMNS, IN, matrix(NULL, F32, COLUMNS), OUT), null_pointer);
    REFUSE(lspan_gated_activation(context, silu, ROWS, COLUMNS, IN, UP, matrix_out(NULL, F32, COLUMNS)), null_pointer);
    REFUSE(lspan_gated_activation(context, (lspan_activation)3, ROWS, COLUMNS, IN, UP, OUT), bad_dtype);
    REFUSE(lspan_gated_activation(context, (lspan_activation)-1, ROWS, COLUMNS, IN, UP, OUT), bad_dtype);
    REFUSE(lspan_gated_activation(context, silu, ROWS, COLUMNS, matrix(x, UNKNOWN_DTYPE, COLUMNS), UP, OUT), bad_dtype);
    REFUSE(lspan_gated_activation(context, silu, ROWS, COLUMNS, IN, matrix(x, UNKNOWN_DTYPE, COLUMNS), OUT), bad_dtype);
    REFUSE(lspan_gated_activation(context, silu, ROWS, COLUMNS, IN, UP, matrix_out(y, UNKNOWN_DTYPE, COLUMNS)), bad_dtype);
    REFUSE(lspan_gated_activation(context, silu, -1, COLUMNS, IN, UP, OUT), bad_shape);
    REFUSE(lspan_gated_activation(context, silu, ROWS, -1, IN, UP, OUT), bad_shape);
    REFUSE(lspan_gated_activation(context, silu, ROWS, COLUMNS, matrix(x, F32, -1), UP, OUT), bad_stride);
    REFUSE(lspan_gated_activation(context, silu, ROWS, COLUMNS, IN, matrix(x, F32, -1), OUT), bad_stride);
    REFUSE(lspan_gated_activation(context, silu, ROWS, COLUMNS, IN, UP, matrix_out(y, F32, COLUMNS - 1)), bad_stride);
    REFUSE(lspan_gated_activation(context, silu, ROWS, COLUMNS, matrix(shifted(x, 1), F32, COLUMNS), UP, OUT), bad_alignment);
    REFUSE(lspan_gated_activation(context, silu, ROWS, COLUMNS, IN, matrix(shifted(x, 2), F32, COLUMNS), OUT), bad_alignment);
    REFUSE(lspan_gated_activation(context, silu, ROWS, COLUMNS, IN, UP, matrix_out(shifted(y, 2), F32, COLUMNS)), bad_alignment);
    REFUSE(lspan_gated_activation(context, silu, INT64_MAX, COLUMNS, IN, UP, OUT), overflow);
    REFUSE(lspan_gated_activation(context, silu, ROWS, INT64_MAX, IN, UP, OUT), overflow);
    REFUSE(lspan_gated_activation(context, silu, ROWS, COLUMNS, matrix(x, F32, INT64_MAX), UP, OUT), overflow);
    REFUSE(lspan_gated_activation(context, silu, ROWS, COLUMNS, IN, UP, matrix_out(y, F32, INT64_MAX)), overflow);
#undef UP
}

static void test_convert(void)
{
    test_case("convert contract");
    const void *x = input.buffer.data, *y = output.buffer.data;
    const lspan_heads in = heads(x, F32, COLUMNS, 4);
    const lspan_heads_out out = heads_out(y, F32, COLUMNS, 4);
    REFUSE(lspan_convert(NULL, ROWS, 2, 4, in, out), null_pointer);
    REFUSE(lspan_convert(context, ROWS, 2, 4, heads(NULL, F32, COLUMNS, 4), out), null_pointer);
    REFUSE(lspan_convert(context, ROWS, 2, 4, in, heads_out(NULL, F32, COLUMNS, 4)), null_pointer);
    REFUSE(lspan_convert(context, -1, 2, 4, in, out), bad_shape);
    REFUSE(lspan_convert(context, ROWS, -2, 4, in, out), bad_shape);
    REFUSE(lspan_convert(context, ROWS, 2, -4, in, out), bad_shape);
    REFUSE(lspan_convert(context, ROWS, 2, 4, heads(x, F32, -1, 4), out), bad_stride);
    REFUSE(lspan_convert(context, ROWS, 2, 4, in, heads_out(y, F32, COLUMNS, 2)), bad_stride);
    REFUSE(lspan_convert(context, ROWS, 2, 4, in, heads_out(y, F32, 4, 4)), bad_stride);
    REFUSE(lspan_convert(context, ROWS, 2, 4, heads(shifted(x, 1), F32, COLUMNS, 4), out), bad_alignment);
    REFUSE(lspan_convert(context, ROWS, 2, 4, in, heads_out(shifted(y, 1), lspan_dtype_bf16, COLUMNS, 4)), bad_alignment);
    REFUSE(lspan_convert(context, ROWS, 2, 4, heads(x, UNKNOWN_DTYPE, COLUMNS, 4), out), bad_dtype);
    REFUSE(lspan_convert(context, ROWS, 2, 4, in, heads_out(y, UNKNOWN_DTYPE, COLUMNS, 4)), bad_dtype);
    REFUSE(lspan_convert(context, INT64_MAX, 2, 4, in, out), overflow);
    REFUSE(lspan_convert(context, ROWS, INT64_MAX, 4, in, out), overflow);
    REFUSE(lspan_convert(context, ROWS, 2, INT64_MAX, in, out), overflow);
    REFUSE(lspan_convert(context, ROWS, 2, 4, heads(x, F32, INT64_MAX, 4), out), overflow);
    REFUSE(lspan_convert(context, ROWS, 2, 4, in, heads_out(y, F32, COLUMNS, INT64_MAX)), overflow);
    CHECK_OK(lspan_convert(context, 0, 2, 4, heads(NULL, F32, COLUMNS, 4), heads_out(NULL, F32, COLUMNS, 4)));
    /* nothing in each of very many rows takes no time */
    CHECK_OK(lspan_convert(context, INT64_MAX, 0, 4, heads(NULL, F32, COLUMNS, 4), heads_out(NULL, F32, COLUMNS, 4)));
}

static void test_loss(void)
{
    test_case("log_softmax_gather contract");
    const void *x = input.buffer.data;
    int32_t targets[ROWS] = {0, COLUMNS - 1, 3}, low[ROWS] = {0, -1, 3}, high[ROWS] = {0, 1, COLUMNS};
    float *n = results.data, *e = more_results.data;
    float *n_shifted = (float *)(uintptr_t)shifted(n, 2), *e_shifted = (float *)(uintptr_t)shifted(e, 1);
    REFUSE(lspan_log_softmax_gather(NULL, ROWS, COLUMNS, IN, targets, n, e), null_pointer);
    REFUSE(lspan_log_softmax_gather(context, ROWS, COLUMNS, matrix(NULL, F32, COLUMNS), targets, n, e), null_pointer);
    REFUSE(lspan_log_softmax_gather(context, ROWS, COLUMNS, IN, NULL, n, e), null_pointer);
    REFUSE(lspan_log_softmax_gather(context, -1, COLUMNS, IN, targets, n, e), bad_shape);
    REFUSE(lspan_log_softmax_gather(context, ROWS, -1, IN, targets, n, e), bad_shape);
    REFUSE(lspan_log_softmax_gather(context, ROWS, 0, IN, targets, n, e), bad_shape);
    REFUSE(lspan_log_softmax_gather(context, ROWS, COLUMNS, matrix(x, F32, -1), targets, n, e), bad_stride);
    REFUSE(lspan_log_softmax_gather(context, ROWS, COLUMNS, matrix(shifted(x, 2), F32, COLUMNS), targets, n, e), bad_alignment);
    REFUSE(lspan_log_softmax_gather(context, ROWS, COLUMNS, IN, shifted(targets, 2), n, e), bad_alignment);
    REFUSE(lspan_log_softmax_gather(context, ROWS, COLUMNS, IN, targets, n_shifted, e), bad_alignment);
    REFUSE(lspan_log_softmax_gather(context, ROWS, COLUMNS, IN, targets, n, e_shifted), bad_alignment);
    REFUSE(lspan_log_softmax_gather(context, ROWS, COLUMNS, matrix(x, UNKNOWN_DTYPE, COLUMNS), targets, n, e), bad_dtype);
    REFUSE(lspan_log_softmax_gather(context, ROWS, COLUMNS, IN, low, n, e), bad_index);
    REFUSE(lspan_log_softmax_gather(context, ROWS, COLUMNS, IN, high, n, e), bad_index);
    REFUSE(lspan_log_softmax_gather(context, INT64_MAX, COLUMNS, IN, targets, n, e), overflow);
    REFUSE(lspan_log_softmax_gather(context, ROWS, INT64_MAX, IN, targets, n, e), overflow);
    REFUSE(lspan_log_softmax_gather(context, ROWS, COLUMNS, matrix(x, F32, INT64_MAX), targets, n, e), overflow);
    CHECK_OK(lspan_log_softmax_gather(context, 0, COLUMNS, matrix(NULL, F32, COLUMNS), NULL, NULL, NULL));
    CHECK_OK(lspan_log_softmax_gather(context, ROWS, COLUMNS, IN, NULL, NULL, NULL));
}

int main(void)
{
    size_t count;
    context = test_contexts(&count)[1].context;
    input = test_tensor_random(F32, ROWS, 1, COLUMNS, test_layout_token_major, 1);
    other = test_tensor_random(F32, ROWS, 1, COLUMNS, test_layout_token_major, 1);
    output = test_tensor_make(F32, ROWS, 1, COLUMNS, test_layout_token_major);
    floats = test_allocate(ROWS * COLUMNS * sizeof(float), sizeof(float));
    memset(floats.data, 0, floats.bytes);
    results = test_allocate(ROWS * COLUMNS * sizeof(float), sizeof(float));
    more_results = test_allocate(ROWS * COLUMNS * sizeof(float), sizeof(float));
    test_norms();
    test_rope_table();
    test_rope();
    test_activation();
    test_convert();
    test_loss();
    test_tensor_release(&input);
    test_tensor_release(&other);
    test_tensor_release(&output);
    test_release(&floats);
    test_release(&results);
    test_release(&more_results);
    return test_finish("dense_contract_test");
}
