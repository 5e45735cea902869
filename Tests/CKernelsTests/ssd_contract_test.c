/* ssd_contract_test.c: what the SSD scan and its update refuse, with which status, and that nothing is written then. */
#include "support.h"

enum { rows = 5, heads = 4, groups = 2, head_dim = 6, state_size = 10, states = heads * head_dim * state_size };

static const lspan_context *context;
static test_buffer output, state, kept, workspace;
static float numbers[rows * heads * head_dim * state_size], decays[heads];
static int64_t offsets[3] = {0, 2, rows};
static lspan_dt_filter filter;

static lspan_ssd_scan valid_scan(void)
{
    filter = (lspan_dt_filter){numbers, numbers, heads};
    return (lspan_ssd_scan){
        .sequences = 2, .indptr = offsets, .heads = heads, .head_dim = head_dim, .state_size = state_size, .groups = groups,
        .input = {numbers, lspan_dtype_f32, heads * head_dim, head_dim}, .dt = {numbers, lspan_dtype_f32, heads},
        .rule = {.bias = numbers, .softplus = 1, .maximum = INFINITY, .filter = &filter}, .a = decays,
        .b = {numbers, lspan_dtype_f32, groups * state_size, state_size},
        .c = {numbers, lspan_dtype_f32, groups * state_size, state_size}, .d = numbers,
        .gate = {numbers, lspan_dtype_f32, heads * head_dim, head_dim}, .initial_state = numbers, .final_state = state.data,
        .state_stride = states, .output = {output.data, lspan_dtype_f32, heads * head_dim, head_dim}, .kept = kept.data,
        .form = lspan_ssd_form_chunked};
}

static void check_untouched(const char *what)
{
    CHECK_MESSAGE(
        test_is_untouched(output.data, output.bytes) && test_is_untouched(state.data, state.bytes) &&
            test_is_untouched(kept.data, kept.bytes) && test_is_untouched(workspace.data, workspace.bytes),
        "%s: a refused call wrote something", what);
}

static void refuse(const lspan_ssd_scan *c, lspan_status want, int shape, const char *what, int line)
{
    size_t bytes = 12345;
    lspan_ssd_form form = (lspan_ssd_form)77;
    test_status(lspan_ssd_scan_run(context, c, workspace.data, workspace.bytes), want, __FILE__, line, what);
    test_status(lspan_ssd_update(context, c), want, __FILE__, line, what);
    if (shape) {
        test_status(lspan_ssd_scan_workspace_size(context, c, &bytes), want, __FILE__, line, what);
        test_status(lspan_ssd_scan_form(context, c, &form), want, __FILE__, line, what);
    }
    CHECK(bytes == 12345 && (int)form == 77);
    check_untouched(what);
}

#define REFUSE_(change, status, shape) \
    do { \
        lspan_ssd_scan c = valid_scan(); \
        change; \
        refuse(&c, lspan_status_##status, shape, #change, __LINE__); \
    } while (0)
#define REFUSE(change, status) REFUSE_(change, status, 0)
#define REFUSE_SHAPE(change, status) REFUSE_(change, status, 1)

static const float *shifted(const void *pointer, size_t bytes)
{
    return (const float *)(const void *)((const char *)pointer + bytes);
}

static void test_shapes(void)
{
    static int64_t decreasing[3] = {0, 3, 2}, not_from_zero[3] = {1, 2, rows};
    REFUSE_SHAPE(c.sequences = -1, bad_shape);
    REFUSE_SHAPE(c.heads = 0, bad_shape);
    REFUSE_SHAPE(c.groups = 0, bad_shape);
    REFUSE_SHAPE(c.groups = 3, bad_shape);
    REFUSE_SHAPE(c.head_dim = 0, bad_shape);
    REFUSE_SHAPE(c.head_dim = LSPAN_SSM_MAX_STATE + 1, bad_shape);
    REFUSE_SHAPE(c.state_size = 0, bad_shape);
    REFUSE_SHAPE(c.state_size = LSPAN_SSM_MAX_STATE + 1, bad_shape);
    REFUSE_SHAPE(c.indptr = NULL, null_pointer);
    REFUSE_SHAPE(c.indptr = decreasing, bad_index);
    REFUSE_SHAPE(c.indptr = not_from_zero, bad_index);
    REFUSE_SHAPE((c.heads = INT64_MAX / 8, c.groups = 1), overflow);
    REFUSE_SHAPE(c.sequences = INT64_MAX / 8, overflow);
    REFUSE_SHAPE(c.form = (lspan_ssd_form)3, bad_value);
    REFUSE_SHAPE(c.form = (lspan_ssd_form)-1, bad_value);
}

static void test_operands(void)
{
    static float bad[heads];
    REFUSE(c.input.data = NULL, null_pointer);
    REFUSE(c.input.dtype = (lspan_dtype)3, bad_dtype);
    REFUSE(c.input.head_stride = -1, bad_stride);
    REFUSE(c.input.token_stride = INT64_MAX / 2, overflow);
    REFUSE(c.dt.data = NULL, null_pointer);
    REFUSE(c.dt.row_stride = -1, bad_stride);
    REFUSE(c.b.data = NULL, null_pointer);
    REFUSE(c.b.dtype = (lspan_dtype)-1, bad_dtype);
    REFUSE(c.c.data = shifted(numbers, 2), bad_alignment);
    REFUSE(c.gate.dtype = (lspan_dtype)3, bad_dtype);
    REFUSE(c.gate.token_stride = -1, bad_stride);
    REFUSE(c.d = shifted(numbers, 1), bad_alignment);
    REFUSE(c.a = NULL, null_pointer);
    REFUSE(c.a = shifted(decays, 2), bad_alignment);
    bad[heads - 1] = 1e-30f;
    REFUSE(c.a = bad, bad_value);
    bad[heads - 1] = NAN;
    REFUSE(c.a = bad, bad_value);
    bad[heads - 1] = -INFINITY;
    REFUSE(c.a = bad, bad_value);
    REFUSE(c.rule.softplus = 2, bad_value);
    REFUSE((c.rule.minimum = 2, c.rule.maximum = 1), bad_value);
    REFUSE(filter.sequence_stride = heads - 1, bad_stride);
    bad[heads - 1] = -1;
    REFUSE((filter.scales = bad, filter.sequence_stride = 0), bad_value);
}

static void test_outputs(void)
{
    REFUSE(c.output.data = NULL, null_pointer);
    REFUSE(c.output.dtype = (lspan_dtype)3, bad_dtype);
    REFUSE(c.output.head_stride = head_dim - 1, bad_stride);
    REFUSE((c.gate = (lspan_heads){c.output.data, lspan_dtype_bf16, c.output.token_stride, c.output.head_stride}), bad_dtype);
    REFUSE((c.gate = (lspan_heads){c.output.data, c.output.dtype, c.output.token_stride + 1, c.output.head_stride}), bad_stride);
    REFUSE(c.state_stride = states - 1, bad_stride);
    REFUSE(c.state_stride = INT64_MAX / 2, overflow);
    REFUSE(c.initial_state = shifted(numbers, 2), bad_alignment);
    REFUSE(c.final_state = (float *)(void *)((char *)state.data + 2), bad_alignment);
    REFUSE(c.kept = (int64_t *)(void *)((char *)kept.data + 4), bad_alignment);
}

static void test_calls(void)
{
    lspan_ssd_scan c = valid_scan();
    lspan_ssd_form form;
    size_t bytes;
    CHECK_STATUS(lspan_ssd_scan_run(NULL, &c, workspace.data, workspace.bytes), lspan_status_null_pointer);
    CHECK_STATUS(lspan_ssd_scan_run(context, NULL, workspace.data, workspace.bytes), lspan_status_null_pointer);
    CHECK_STATUS(lspan_ssd_scan_run(context, &c, NULL, workspace.bytes), lspan_status_null_pointer);
    CHECK_STATUS(lspan_ssd_scan_run(context, &c, workspace.data, workspace.bytes - 1), lspan_status_workspace_too_small);
    CHECK_STATUS(
        lspan_ssd_scan_run(context, &c, (char *)workspace.data + 4, workspace.bytes), lspan_status_bad_alignment);
    CHECK_STATUS(lspan_ssd_update(NULL, &c), lspan_status_null_pointer);
    CHECK_STATUS(lspan_ssd_update(context, NULL), lspan_status_null_pointer);
    CHECK_STATUS(lspan_ssd_scan_workspace_size(NULL, &c, &bytes), lspan_status_null_pointer);
    CHECK_STATUS(lspan_ssd_scan_workspace_size(context, &c, NULL), lspan_status_null_pointer);
    CHECK_STATUS(lspan_ssd_scan_form(NULL, &c, &form), lspan_status_null_pointer);
    CHECK_STATUS(lspan_ssd_scan_form(context, &c, NULL), lspan_status_null_pointer);
    c.final_state = NULL;
    CHECK_STATUS(lspan_ssd_update(context, &c), lspan_status_null_pointer);
    c = valid_scan();
    int64_t nine[3] = {0, 0, 9};
    c.indptr = nine;
    c.input.token_stride = c.dt.row_stride = c.b.token_stride = c.c.token_stride = c.gate.token_stride = 0;
    CHECK_STATUS(lspan_ssd_update(context, &c), lspan_status_bad_shape);
    check_untouched("calls");
}

/* What looks odd and is legal. Runs last: it writes. */
static void test_legal(void)
{
    int64_t nothing[3] = {0, 0, 0};
    lspan_ssd_scan c = valid_scan();
    c.sequences = 0;
    CHECK_OK(lspan_ssd_scan_run(context, &c, NULL, 0));
    CHECK_OK(lspan_ssd_update(context, &c));
    check_untouched("no sequences");
    c = valid_scan();
    c.indptr = nothing;
    c.input.data = c.dt.data = c.b.data = c.c.data = c.output.data = NULL;
    c.initial_state = NULL;
    CHECK_OK(lspan_ssd_scan_run(context, &c, workspace.data, workspace.bytes));
    for (int i = 0; i < 2 * states; i++) CHECK(((float *)state.data)[i] == 0);
    for (int i = 0; i < 2 * heads; i++) CHECK(((int64_t *)kept.data)[i] == 0);
    c.initial_state = numbers;
    CHECK_OK(lspan_ssd_update(context, &c));
    CHECK(memcmp(state.data, numbers, 2 * states * sizeof(float)) == 0);
    memset(state.data, 0, state.bytes);
    CHECK_OK(lspan_ssd_scan_run(context, &c, workspace.data, workspace.bytes));
    CHECK(memcmp(state.data, numbers, 2 * states * sizeof(float)) == 0);
    c = valid_scan();
    c.initial_state = NULL;
    c.final_state = NULL;
    c.state_stride = 0;
    CHECK_OK(lspan_ssd_scan_run(context, &c, workspace.data, workspace.bytes));
}

int main(void)
{
    size_t count;
    context = test_contexts(&count)[1].context;
    test_case("ssd contract");
    for (int i = 0; i < rows * heads * head_dim * state_size; i++) numbers[i] = (float)(i % 7);
    for (int i = 0; i < heads; i++) decays[i] = -1;
    output = test_allocate(rows * heads * head_dim * sizeof(float), sizeof(float));
    state = test_allocate(2 * states * sizeof(float), sizeof(float));
    kept = test_allocate(2 * heads * sizeof(int64_t), sizeof(int64_t));
    lspan_ssd_scan c = valid_scan();
    size_t bytes = 0;
    CHECK_OK(lspan_ssd_scan_workspace_size(context, &c, &bytes));
    workspace = test_allocate(bytes, LSPAN_WORKSPACE_ALIGNMENT);
    test_shapes();
    test_operands();
    test_outputs();
    test_calls();
    test_legal();
    test_release(&output);
    test_release(&state);
    test_release(&kept);
    test_release(&workspace);
    return test_finish("ssd_contract_test");
}
