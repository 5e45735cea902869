/* product_contract_test.c: what packing and products refuse, with which status, and that nothing is written then. */
#include "product_support.h"

#define ROWS 3
#define M 20
#define K 96

static const lspan_context *context;
static product_matrix q8, gate, dense;
static test_buffer input, output, workspace, packed;

static void *shifted(const void *pointer, size_t bytes)
{
    return (char *)(uintptr_t)pointer + bytes;
}

static void expect(lspan_status got, lspan_status want, const char *call, int line)
{
    test_status(got, want, __FILE__, line, call);
    CHECK_MESSAGE(
        test_is_untouched(output.data, output.bytes) && test_is_untouched(workspace.data, workspace.bytes) &&
            test_is_untouched(packed.data, packed.bytes),
        "a refused call wrote something");
}

#define REFUSE(call, status) expect((call), lspan_status_##status, #call, __LINE__)

/* ---- Packing --------------------------------------------------------------------------------------- */

static void test_packed_bytes(void)
{
    test_case("contract of packed bytes");
    const lspan_block_type type = lspan_block_type_q8_0;
    size_t bytes = 12345;
    CHECK_STATUS(lspan_packed_bytes(type, M, K, NULL), lspan_status_null_pointer);
    CHECK_STATUS(lspan_packed_bytes(lspan_block_type_q5_0, M, K, &bytes), lspan_status_bad_dtype);
    CHECK_STATUS(lspan_packed_bytes(lspan_block_type_q5_1, M, K, &bytes), lspan_status_bad_dtype);
    CHECK_STATUS(lspan_packed_bytes((lspan_block_type)4, M, K, &bytes), lspan_status_bad_dtype);
    CHECK_STATUS(lspan_packed_bytes((lspan_block_type)-1, M, K, &bytes), lspan_status_bad_dtype);
    CHECK_STATUS(lspan_packed_bytes(type, -1, K, &bytes), lspan_status_bad_shape);
    CHECK_STATUS(lspan_packed_bytes(type, M, -32, &bytes), lspan_status_bad_shape);
    for (size_t t = 0; t < PACKABLE_COUNT; t++) {
        int64_t elements;
        lspan_block_type_layout(packable[t], &elements, NULL);
        if (elements > 1) {
            CHECK_STATUS(lspan_packed_bytes(packable[t], M, elements + 1, &bytes), lspan_status_bad_shape);
            CHECK_STATUS(lspan_packed_bytes(packable[t], M, elements / 2, &bytes), lspan_status_bad_shape);
        }
        CHECK_STATUS(lspan_packed_bytes(packable[t], INT64_MAX, elements, &bytes), lspan_status_overflow);
        CHECK_STATUS(lspan_packed_bytes(packable[t], INT64_MAX - 8, elements, &bytes), lspan_status_overflow);
        CHECK_STATUS(
            lspan_packed_bytes(packable[t], M, INT64_MAX / elements * elements, &bytes), lspan_status_overflow);
        CHECK_STATUS(lspan_packed_bytes(packable[t], INT64_MAX / 256, 1024, &bytes), lspan_status_overflow);
    }
    CHECK(bytes == 12345);
}

static void test_packing(void)
{
    test_case("contract of packing");
    lspan_weights w = q8.weights, broken;
    void *to = packed.data;
    size_t room = packed.bytes;
    REFUSE(lspan_pack_weights(NULL, &w, to, room), null_pointer);
    REFUSE(lspan_pack_weights(context, NULL, to, room), null_pointer);
    REFUSE(lspan_pack_weights(context, &w, NULL, room), null_pointer);
    REFUSE(lspan_pack_weights(context, &w, to, room - 1), workspace_too_small);
    REFUSE(lspan_pack_weights(context, &w, to, 0), workspace_too_small);
#define REFUSE_WEIGHTS(change, status)                                                 \
    do {                                                                               \
        broken = w;                                                                    \
        change;                                                                        \
        REFUSE(lspan_pack_weights(context, &broken, to, SIZE_MAX), status);            \
    } while (0)
    REFUSE_WEIGHTS(broken.data = NULL, null_pointer);
    REFUSE_WEIGHTS(broken.rows = -1, bad_shape);
    REFUSE_WEIGHTS(broken.columns = K - 1, bad_shape);
    REFUSE_WEIGHTS(broken.columns = -K, bad_shape);
    REFUSE_WEIGHTS(broken.type = lspan_block_type_q4_k, bad_shape);
    REFUSE_WEIGHTS(broken.type = lspan_block_type_q5_0, bad_dtype);
    REFUSE_WEIGHTS(broken.type = (lspan_block_type)99, bad_dtype);
    REFUSE_WEIGHTS(broken.rows = INT64_MAX, overflow);
    REFUSE_WEIGHTS((broken.type = lspan_block_type_bf16, broken.data = shifted(w.data, 1)), bad_alignment);
    REFUSE_WEIGHTS((broken.type = lspan_block_type_f32, broken.data = shifted(dense.weights.data, 2)), bad_alignment);
    test_buffer wide = test_allocate(room + LSPAN_WORKSPACE_ALIGNMENT, LSPAN_WORKSPACE_ALIGNMENT);
    REFUSE(lspan_pack_weights(context, &w, shifted(wide.data, 32), room), bad_alignment);
    CHECK(test_is_untouched(wide.data, wide.bytes));
    test_release(&wide);
    w.rows = 0;
    w.data = NULL;
    CHECK_OK(lspan_pack_weights(context, &w, NULL, 0));
}

/* ---- Products -------------------------------------------------------------------------------------- */

/* A gated output, and one that accumulates. */
typedef struct valid_call {
    lspan_product product;
    lspan_product_output outputs[2];
} valid_call;

static void make_valid(valid_call *v)
{
    v->outputs[0] = (lspan_product_output){
        .weights = q8.packed, .gate = gate.packed, .data = output.data, .row_stride = M};
    v->outputs[1] = (lspan_product_output){
        .weights = dense.packed, .accumulate = 1, .data = (float *)output.data + ROWS * M, .row_stride = M};
    v->product = (lspan_product){
        .rows = ROWS, .columns = K, .input = input.data, .input_row_stride = K, .output_count = 2,
        .outputs = v->outputs};
}

/* Refused by lspan_product_run, and by the query where it can see it. */
#define REFUSE_RUN(change, status)                                                                \
    do {                                                                                          \
        valid_call v;                                                                             \
        make_valid(&v);                                                                           \
        change;                                                                                   \
        REFUSE(lspan_product_run(context, &v.product, workspace.data, workspace.bytes), status);  \
    } while (0)
#define REFUSE_BOTH(change, status)                                                               \
    do {                                                                                          \
        valid_call v;                                                                             \
        size_t size = 12345;                                                                      \
        make_valid(&v);                                                                           \
        change;                                                                                   \
        REFUSE(lspan_product_workspace_size(context, &v.product, &size), status);                 \
        CHECK(size == 12345);                                                                     \
        REFUSE(lspan_product_run(context, &v.product, workspace.data, workspace.bytes), status);  \
    } while (0)

static void test_shapes(void)
{
    test_case("contract of a product's shape");
    REFUSE_BOTH(v.product.rows = -1, bad_shape);
    REFUSE_BOTH(v.product.columns = 0, bad_shape);
    REFUSE_BOTH(v.product.columns = -K, bad_shape);
    REFUSE_BOTH(v.product.columns = K - 32, bad_shape);
    REFUSE_BOTH(v.product.columns = K + 32, bad_shape);
    REFUSE_BOTH(v.product.output_count = -1, bad_shape);
    REFUSE_BOTH(v.product.outputs = NULL, null_pointer);
    REFUSE_BOTH(v.product.outputs = shifted(v.product.outputs, 4), bad_alignment);
    REFUSE_BOTH(v.product.output_count = INT64_MAX / 16, overflow);
    REFUSE_BOTH(v.product.mode = (lspan_product_mode)2, bad_value);
    REFUSE_BOTH(v.product.mode = (lspan_product_mode)-1, bad_value);
    REFUSE_BOTH(v.product.rows = INT64_MAX, overflow);
    REFUSE_BOTH(v.product.rows = INT64_MAX / 128, overflow);
    REFUSE_BOTH(v.product.columns = INT64_MAX, overflow);
    REFUSE_RUN(v.product.input = NULL, null_pointer);
    REFUSE_RUN(v.product.input = shifted(v.product.input, 2), bad_alignment);
    REFUSE_RUN(v.product.input_row_stride = -1, bad_stride);
    REFUSE_RUN(v.product.input_row_stride = INT64_MAX, overflow);
}

static void test_outputs(void)
{
    test_case("contract of a product's outputs");
    REFUSE_RUN(v.outputs[0].data = NULL, null_pointer);
    REFUSE_RUN(v.outputs[1].data = NULL, null_pointer);
    REFUSE_RUN(v.outputs[1].data = shifted(v.outputs[1].data, 1), bad_alignment);
    REFUSE_RUN(v.outputs[1].row_stride = M - 1, bad_stride);
    REFUSE_RUN(v.outputs[0].row_stride = 0, bad_stride);
    REFUSE_RUN(v.outputs[0].row_stride = -M, bad_stride);
    REFUSE_RUN(v.outputs[0].row_stride = INT64_MAX, overflow);
    REFUSE_BOTH(v.outputs[1].accumulate = 2, bad_value);
    REFUSE_BOTH(v.outputs[1].accumulate = -1, bad_value);
    REFUSE_BOTH(v.outputs[0].accumulate = 1, bad_value);
    REFUSE_BOTH(v.outputs[0].activation = (lspan_activation)3, bad_value);
    REFUSE_BOTH(v.outputs[0].activation = (lspan_activation)-1, bad_value);
}

static void test_weights(void)
{
    test_case("contract of a product's weights");
    for (int i = 0; i < 2; i++) {
        REFUSE_BOTH(v.outputs[i].weights.data = NULL, null_pointer);
        REFUSE_BOTH(v.outputs[i].weights.data = shifted(v.outputs[i].weights.data, 32), bad_alignment);
        REFUSE_BOTH(v.outputs[i].weights.rows = -1, bad_shape);
        REFUSE_BOTH(v.outputs[i].weights.columns = K / 2 + 1, bad_shape);
        REFUSE_BOTH(v.outputs[i].weights.columns = K - 32, bad_shape);
        REFUSE_BOTH(v.outputs[i].weights.columns = K + 32, bad_shape);
        REFUSE_BOTH(v.outputs[i].weights.type = lspan_block_type_q4_k, bad_shape);
        REFUSE_BOTH(v.outputs[i].weights.type = lspan_block_type_q5_1, bad_dtype);
        REFUSE_BOTH(v.outputs[i].weights.type = (lspan_block_type)99, bad_dtype);
        REFUSE_BOTH(v.outputs[i].weights.rows = INT64_MAX, overflow);
    }
    test_case("contract of a product's gate");
    REFUSE_BOTH(v.outputs[0].gate.data = shifted(v.outputs[0].gate.data, 32), bad_alignment);
    REFUSE_BOTH(v.outputs[0].gate.rows = M - 1, bad_shape);
    REFUSE_BOTH(v.outputs[0].gate.rows = -1, bad_shape);
    REFUSE_BOTH(v.outputs[0].gate.columns = K - 32, bad_shape);
    REFUSE_BOTH(v.outputs[0].gate.type = lspan_block_type_q4_0, bad_dtype);
    REFUSE_BOTH(v.outputs[0].gate.type = lspan_block_type_q5_0, bad_dtype);
    REFUSE_BOTH(v.outputs[0].gate.rows = INT64_MAX, overflow);
}

static void test_workspace(void)
{
    test_case("contract of a product's workspace");
    valid_call v;
    make_valid(&v);
    size_t size = 12345;
    CHECK_STATUS(lspan_product_workspace_size(NULL, &v.product, &size), lspan_status_null_pointer);
    CHECK_STATUS(lspan_product_workspace_size(context, NULL, &size), lspan_status_null_pointer);
    CHECK_STATUS(lspan_product_workspace_size(context, &v.product, NULL), lspan_status_null_pointer);
    CHECK(size == 12345);
    REFUSE(lspan_product_run(NULL, &v.product, workspace.data, workspace.bytes), null_pointer);
    REFUSE(lspan_product_run(context, NULL, workspace.data, workspace.bytes), null_pointer);
    REFUSE(lspan_product_run(context, &v.product, NULL, workspace.bytes), null_pointer);
    REFUSE(lspan_product_run(context, &v.product, workspace.data, workspace.bytes - 1), workspace_too_small);
    REFUSE(lspan_product_run(context, &v.product, NULL, 0), workspace_too_small);
    test_buffer wide = test_allocate(workspace.bytes + LSPAN_WORKSPACE_ALIGNMENT, LSPAN_WORKSPACE_ALIGNMENT);
    REFUSE(lspan_product_run(context, &v.product, shifted(wide.data, 32), workspace.bytes), bad_alignment);
    CHECK(test_is_untouched(wide.data, wide.bytes));
    test_release(&wide);
}

/* One row may have any stride that is not negative, and rows of inputs may be one and the same. */
static void test_strides(void)
{
    test_case("strides of one row, and rows that repeat");
    valid_call v;
    make_valid(&v);
    memset(output.data, 0, output.bytes);
    v.product.input_row_stride = 0;
    CHECK_OK(product_run(context, &v.product));
    const float *y = output.data;
    CHECK(memcmp(y, y + M, M * sizeof *y) == 0 && memcmp(y, y + 2 * M, M * sizeof *y) == 0);
    v.product.rows = 1;
    v.outputs[0].row_stride = v.outputs[1].row_stride = 0;
    CHECK_OK(product_run(context, &v.product));
    memset(output.data, 0xFF, output.bytes);
}

static int fail(void *user, size_t count, lspan_task_function function, void *argument)
{
    (void)user, (void)count, (void)function, (void)argument;
    return 1;
}

static void test_failing_executor(void)
{
    test_case("an executor that fails");
    lspan_executor executor = {fail, NULL, 2};
    lspan_context_options options = {0, NULL, &executor, 0};
    lspan_context *failing = NULL;
    if (!CHECK_OK(lspan_context_create(&options, &failing))) return;
    /* large enough for more than one task */
    product_matrix large = product_matrix_random(context, lspan_block_type_f32, 2048, 1024, 0);
    test_tensor x = test_tensor_random(lspan_dtype_f32, 16, 1, 1024, test_layout_token_major, 1.0f);
    test_tensor y = test_tensor_make(lspan_dtype_f32, 16, 1, 2048, test_layout_token_major);
    lspan_product_output out = {.weights = large.packed, .data = y.buffer.data, .row_stride = 2048};
    lspan_product product = {
        .rows = 16, .columns = 1024, .input = x.buffer.data, .input_row_stride = 1024, .output_count = 1,
        .outputs = &out};
    CHECK_STATUS(product_run(failing, &product), lspan_status_executor_failed);
    CHECK_STATUS(
        lspan_pack_weights(failing, &large.weights, large.memory.data, large.memory.bytes),
        lspan_status_executor_failed);
    product_matrix_release(&large);
    test_tensor_release(&x);
    test_tensor_release(&y);
    lspan_context_destroy(failing);
}

int main(void)
{
    size_t count;
    context = test_contexts(&count)[1].context;
    q8 = product_matrix_random(context, lspan_block_type_q8_0, M, K, 0);
    gate = product_matrix_random(context, lspan_block_type_q8_0, M, K, 0);
    dense = product_matrix_random(context, lspan_block_type_f32, M, K, 0);
    input = test_allocate(ROWS * K * sizeof(float), sizeof(float));
    for (int i = 0; i < ROWS * K; i++) ((float *)input.data)[i] = test_random_normal();
    output = test_allocate(2 * ROWS * M * sizeof(float), sizeof(float));
    packed = test_allocate(q8.memory.bytes, LSPAN_WORKSPACE_ALIGNMENT);
    valid_call v;
    make_valid(&v);
    size_t bytes = 0;
    CHECK_OK(lspan_product_workspace_size(context, &v.product, &bytes));
    CHECK(bytes > 0);
    workspace = test_allocate(bytes, LSPAN_WORKSPACE_ALIGNMENT);
    test_packed_bytes();
    test_packing();
    test_shapes();
    test_outputs();
    test_weights();
    test_workspace();
    test_strides();
    test_failing_executor();
    product_matrix_release(&q8);
    product_matrix_release(&gate);
    product_matrix_release(&dense);
    test_release(&input);
    test_release(&output);
    test_release(&workspace);
    test_release(&packed);
    return test_finish("product_contract_test");
}
