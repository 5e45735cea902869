/* weights_contract_test.c: what dequantization, embedding and linear layers refuse, with which status, and that
 * nothing is written then. */
#include "support.h"

#define ROWS 5
#define COLUMNS 64
#define TOKENS 3

static const lspan_context *context;
static test_buffer q8, f32_data, output, workspace;

static void expect(lspan_status got, lspan_status want, const char *call, int line)
{
    test_status(got, want, __FILE__, line, call);
    CHECK_MESSAGE(
        test_is_untouched(output.data, output.bytes) && test_is_untouched(workspace.data, workspace.bytes),
        "a refused call wrote something");
}

#define REFUSE(call, status) expect((call), lspan_status_##status, #call, __LINE__)

static void *shifted(const void *pointer, size_t bytes)
{
    return (char *)(uintptr_t)pointer + bytes;
}

static lspan_weights weights(lspan_block_type type, int64_t rows, int64_t columns)
{
    lspan_weights w = {type == lspan_block_type_f32 ? f32_data.data : q8.data, type, rows, columns};
    return w;
}

/* Each way in which a weight matrix can be wrong, and the status for it. */
static size_t broken_weights(size_t index, lspan_weights *w, lspan_status *want)
{
    const lspan_block_type q8_0 = lspan_block_type_q8_0, f32 = lspan_block_type_f32;
    lspan_weights without_data = weights(q8_0, ROWS, COLUMNS), odd = weights(f32, ROWS, COLUMNS), half = odd;
    without_data.data = NULL;
    odd.data = shifted(odd.data, 2);
    half.type = lspan_block_type_bf16;
    half.data = shifted(half.data, 1);
    const struct {
        lspan_weights weights;
        lspan_status status;
    } cases[] = {
        {without_data, lspan_status_null_pointer},
        {weights(q8_0, -1, COLUMNS), lspan_status_bad_shape},
        {weights(q8_0, ROWS, -COLUMNS), lspan_status_bad_shape},
        {weights(q8_0, ROWS, COLUMNS - 1), lspan_status_bad_shape},
        {weights(lspan_block_type_q4_k, ROWS, COLUMNS), lspan_status_bad_shape},
        {weights((lspan_block_type)4, ROWS, COLUMNS), lspan_status_bad_dtype},
        {weights((lspan_block_type)31, ROWS, COLUMNS), lspan_status_bad_dtype},
        {weights((lspan_block_type)-1, ROWS, COLUMNS), lspan_status_bad_dtype},
        {odd, lspan_status_bad_alignment},
        {half, lspan_status_bad_alignment},
        {weights(q8_0, INT64_MAX, COLUMNS), lspan_status_overflow},
        {weights(f32, ROWS, INT64_MAX), lspan_status_overflow},
        {weights(q8_0, INT64_MAX / 32, INT64_MAX / 32 * 32), lspan_status_overflow},
    };
    size_t count = sizeof cases / sizeof cases[0];
    if (index < count) {
        *w = cases[index].weights;
        *want = cases[index].status;
    }
    return count;
}

static void test_dequantize(void)
{
    test_case("dequantize contract");
    lspan_weights w = weights(lspan_block_type_q8_0, ROWS, COLUMNS), broken;
    lspan_status want;
    float *y = output.data;
    REFUSE(lspan_dequantize(NULL, &w, y), null_pointer);
    REFUSE(lspan_dequantize(context, NULL, y), null_pointer);
    REFUSE(lspan_dequantize(context, &w, NULL), null_pointer);
    REFUSE(lspan_dequantize(context, &w, shifted(y, 2)), bad_alignment);
    for (size_t i = 0; i < broken_weights(i, &broken, &want); i++) {
        test_case("dequantize contract, weights %zu", i);
        expect(lspan_dequantize(context, &broken, y), want, "lspan_dequantize", __LINE__);
    }
    w = weights(lspan_block_type_q8_0, 0, COLUMNS);
    w.data = NULL;
    CHECK_OK(lspan_dequantize(context, &w, NULL));
}

static void test_embedding(void)
{
    test_case("embedding contract");
    lspan_weights w = weights(lspan_block_type_q8_0, ROWS, COLUMNS), broken;
    lspan_status want;
    float *y = output.data;
    int32_t ids[TOKENS] = {0, ROWS - 1, 2}, low[TOKENS] = {0, 1, -1}, high[TOKENS] = {0, 1, ROWS};
    REFUSE(lspan_embedding(NULL, &w, TOKENS, ids, y, COLUMNS), null_pointer);
    REFUSE(lspan_embedding(context, NULL, TOKENS, ids, y, COLUMNS), null_pointer);
    REFUSE(lspan_embedding(context, &w, TOKENS, NULL, y, COLUMNS), null_pointer);
    REFUSE(lspan_embedding(context, &w, TOKENS, ids, NULL, COLUMNS), null_pointer);
    REFUSE(lspan_embedding(context, &w, -1, ids, y, COLUMNS), bad_shape);
    REFUSE(lspan_embedding(context, &w, TOKENS, ids, y, COLUMNS - 1), bad_stride);
    REFUSE(lspan_embedding(context, &w, TOKENS, ids, y, 0), bad_stride);
    REFUSE(lspan_embedding(context, &w, TOKENS, ids, y, -COLUMNS), bad_stride);
    REFUSE(lspan_embedding(context, &w, TOKENS, ids, shifted(y, 1), COLUMNS), bad_alignment);
    REFUSE(lspan_embedding(context, &w, TOKENS, shifted(ids, 2), y, COLUMNS), bad_alignment);
    REFUSE(lspan_embedding(context, &w, TOKENS, low, y, COLUMNS), bad_index);
    REFUSE(lspan_embedding(context, &w, TOKENS, high, y, COLUMNS), bad_index);
    REFUSE(lspan_embedding(context, &w, INT64_MAX, ids, y, COLUMNS), overflow);
    lspan_weights narrow = w;
    narrow.columns = 0;
    REFUSE(lspan_embedding(context, &narrow, INT64_MAX / 4, ids, y, COLUMNS), overflow);
    REFUSE(lspan_embedding(context, &w, TOKENS, ids, y, INT64_MAX), overflow);
    for (size_t i = 0; i < broken_weights(i, &broken, &want); i++) {
        test_case("embedding contract, weights %zu", i);
        expect(lspan_embedding(context, &broken, TOKENS, ids, y, COLUMNS), want, "lspan_embedding", __LINE__);
    }
    CHECK_OK(lspan_embedding(context, &w, 0, NULL, NULL, COLUMNS));
}

static lspan_linear valid_linear(lspan_block_type type)
{
    lspan_linear l = {.weights = weights(type, ROWS, COLUMNS), .rows = TOKENS};
    l.input = f32_data.data;
    l.input_row_stride = COLUMNS;
    l.output = output.data;
    l.output_row_stride = ROWS;
    return l;
}

#define REFUSE_LINEAR(change, status)                                                     \
    do {                                                                                  \
        lspan_linear l = valid_linear(lspan_block_type_q8_0);                             \
        change;                                                                           \
        REFUSE(lspan_linear_run(context, &l, workspace.data, workspace.bytes), status);   \
    } while (0)

static void test_linear(void)
{
    test_case("linear contract");
    lspan_linear l = valid_linear(lspan_block_type_q8_0);
    size_t size = 12345;
    REFUSE(lspan_linear_run(NULL, &l, workspace.data, workspace.bytes), null_pointer);
    REFUSE(lspan_linear_run(context, NULL, workspace.data, workspace.bytes), null_pointer);
    REFUSE(lspan_linear_run(context, &l, NULL, workspace.bytes), null_pointer);
    REFUSE(lspan_linear_run(context, &l, workspace.data, workspace.bytes - 1), workspace_too_small);
    REFUSE(lspan_linear_run(context, &l, NULL, 0), workspace_too_small);
    CHECK_STATUS(lspan_linear_workspace_size(NULL, &l, &size), lspan_status_null_pointer);
    CHECK_STATUS(lspan_linear_workspace_size(context, NULL, &size), lspan_status_null_pointer);
    CHECK_STATUS(lspan_linear_workspace_size(context, &l, NULL), lspan_status_null_pointer);
    REFUSE_LINEAR(l.input = NULL, null_pointer);
    REFUSE_LINEAR(l.output = NULL, null_pointer);
    REFUSE_LINEAR(l.rows = -1, bad_shape);
    REFUSE_LINEAR(l.input_row_stride = -1, bad_stride);
    REFUSE_LINEAR(l.output_row_stride = ROWS - 1, bad_stride);
    REFUSE_LINEAR(l.output_row_stride = 0, bad_stride);
    REFUSE_LINEAR(l.output_row_stride = -ROWS, bad_stride);
    REFUSE_LINEAR(l.input = shifted(l.input, 2), bad_alignment);
    REFUSE_LINEAR(l.output = shifted(l.output, 1), bad_alignment);
    REFUSE_LINEAR(l.input_row_stride = INT64_MAX, overflow);
    REFUSE_LINEAR(l.output_row_stride = INT64_MAX, overflow);
    REFUSE_LINEAR(l.rows = INT64_MAX, overflow);
    REFUSE_LINEAR(l.accumulate = 2, bad_value);
    REFUSE_LINEAR(l.accumulate = -1, bad_value);
    lspan_weights broken;
    lspan_status want;
    for (size_t i = 0; i < broken_weights(i, &broken, &want); i++) {
        test_case("linear contract, weights %zu", i);
        l = valid_linear(lspan_block_type_q8_0);
        l.weights = broken;
        expect(lspan_linear_run(context, &l, workspace.data, workspace.bytes), want, "lspan_linear_run", __LINE__);
        CHECK_STATUS(lspan_linear_workspace_size(context, &l, &size), want);
    }
    CHECK(size == 12345);
    test_case("linear contract, alignment of the workspace");
    l = valid_linear(lspan_block_type_q8_0);
    size_t bytes = workspace.bytes;
    test_buffer wide = test_allocate(bytes + LSPAN_WORKSPACE_ALIGNMENT, LSPAN_WORKSPACE_ALIGNMENT);
    REFUSE(lspan_linear_run(context, &l, shifted(wide.data, 32), bytes), bad_alignment);
    CHECK(test_is_untouched(wide.data, wide.bytes));
    test_release(&wide);
    l.rows = 0;
    l.input = NULL;
    l.output = NULL;
    CHECK_OK(lspan_linear_run(context, &l, workspace.data, bytes));
    CHECK(test_is_untouched(output.data, output.bytes));
}

int main(void)
{
    size_t count;
    context = test_contexts(&count)[1].context;
    q8 = test_allocate(ROWS * COLUMNS / 32 * 34, 1);
    memset(q8.data, 0, q8.bytes);
    f32_data = test_allocate(ROWS * COLUMNS * sizeof(float), sizeof(float));
    memset(f32_data.data, 0, f32_data.bytes);
    output = test_allocate(ROWS * COLUMNS * sizeof(float), sizeof(float));
    lspan_linear l = valid_linear(lspan_block_type_q8_0);
    size_t bytes = 0;
    CHECK_OK(lspan_linear_workspace_size(context, &l, &bytes));
    CHECK(bytes > 0);
    workspace = test_allocate(bytes, LSPAN_WORKSPACE_ALIGNMENT);
    test_dequantize();
    test_embedding();
    test_linear();
    test_release(&q8);
    test_release(&f32_data);
    test_release(&output);
    test_release(&workspace);
    return test_finish("weights_contract_test");
}
