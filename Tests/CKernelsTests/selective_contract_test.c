/* selective_contract_test.c: what the selective scan and its update refuse, with which status, and that nothing is written
 * then. */
#include "support.h"

enum { rows = 5, channels = 8, groups = 2, size = 3, states = channels * size };

static const lspan_context *context;
static test_buffer output, state, kept, workspace;
static float numbers[2 * states + rows * channels];
static float decays[states];
static int64_t offsets[3] = {0, 2, rows};
static int64_t bad_offsets[3] = {0, 3, 2};
static int64_t long_offsets[3] = {0, 0, 9};

static lspan_selective_scan valid(void)
{
    lspan_matrix in = {numbers, lspan_dtype_f32, channels};
    lspan_heads view = {numbers, lspan_dtype_f32, groups * size, size};
    return (lspan_selective_scan){
        .sequences = 2, .indptr = offsets, .channels = channels, .state_size = size, .groups = groups, .input = in,
        .dt = in, .rule = {.softplus = 1, .maximum = INFINITY}, .a = decays, .b = view, .c = view, .d = numbers, .gate = in,
        .initial_state = numbers, .final_state = state.data, .state_stride = states,
        .output = {output.data, lspan_dtype_f32, channels}, .kept = kept.data};
}

static lspan_status run(const lspan_selective_scan *call)
{
    return lspan_selective_scan_run(context, call, workspace.data, workspace.bytes);
}

static lspan_status update(const lspan_selective_scan *call)
{
    return lspan_selective_update(context, call);
}

static void expect(lspan_status got, lspan_status want, const char *what, int line)
{
    test_status(got, want, __FILE__, line, what);
    CHECK_MESSAGE(
        test_is_untouched(output.data, output.bytes) && test_is_untouched(state.data, state.bytes) &&
            test_is_untouched(kept.data, kept.bytes),
        "a refused call wrote something");
}

#define REFUSE_ONE(function, change, status) \
    do { \
        lspan_selective_scan c = valid(); \
        change; \
        expect(function(&c), lspan_status_##status, #function ": " #change, __LINE__); \
    } while (0)
#define REFUSE(change, status) \
    do { \
        REFUSE_ONE(run, change, status); \
        REFUSE_ONE(update, change, status); \
    } while (0)

static void test_shapes(void)
{
    test_case("selective scan shapes");
    lspan_selective_scan v = valid();
    size_t bytes = 7;
    expect(lspan_selective_scan_run(NULL, &v, workspace.data, workspace.bytes), lspan_status_null_pointer, "context", __LINE__);
    expect(lspan_selective_update(NULL, &v), lspan_status_null_pointer, "context", __LINE__);
    expect(run(NULL), lspan_status_null_pointer, "call", __LINE__);
    expect(update(NULL), lspan_status_null_pointer, "call", __LINE__);
    expect(lspan_selective_scan_workspace_size(context, &v, NULL), lspan_status_null_pointer, "bytes", __LINE__);
    expect(lspan_selective_scan_workspace_size(NULL, &v, &bytes), lspan_status_null_pointer, "context", __LINE__);
    expect(lspan_selective_scan_workspace_size(context, NULL, &bytes), lspan_status_null_pointer, "call", __LINE__);
    v.groups = 3;
    expect(lspan_selective_scan_workspace_size(context, &v, &bytes), lspan_status_bad_shape, "groups", __LINE__);
    CHECK(bytes == 7);
    REFUSE(c.sequences = -1, bad_shape);
    REFUSE(c.channels = 0, bad_shape);
    REFUSE(c.state_size = 0, bad_shape);
    REFUSE(c.state_size = LSPAN_SSM_MAX_STATE + 1, bad_shape);
    REFUSE(c.groups = 0, bad_shape);
    REFUSE(c.groups = 3, bad_shape);
    REFUSE(c.indptr = NULL, null_pointer);
    REFUSE(c.indptr = bad_offsets, bad_index);
    REFUSE(c.indptr = (const int64_t *)(const void *)((const char *)offsets + 4), bad_alignment);
    REFUSE((c.channels = INT64_MAX / 2, c.groups = 1), overflow);
    REFUSE(c.sequences = INT64_MAX / 8, overflow);
    REFUSE_ONE(update, c.indptr = long_offsets, bad_shape);
}

static void test_arrays(void)
{
    test_case("selective scan arrays");
    const void *odd = (const char *)numbers + 1;
    REFUSE(c.input.data = NULL, null_pointer);
    REFUSE(c.input.dtype = (lspan_dtype)3, bad_dtype);
    REFUSE(c.input.row_stride = -1, bad_stride);
    REFUSE(c.input.data = odd, bad_alignment);
    REFUSE(c.input.row_stride = INT64_MAX / 2, overflow);
    REFUSE(c.dt.data = NULL, null_pointer);
    REFUSE(c.dt.dtype = (lspan_dtype)3, bad_dtype);
    REFUSE(c.a = NULL, null_pointer);
    REFUSE(c.a = odd, bad_alignment);
    REFUSE(c.b.data = NULL, null_pointer);
    REFUSE(c.b.head_stride = -1, bad_stride);
    REFUSE(c.c.data = NULL, null_pointer);
    REFUSE(c.c.dtype = (lspan_dtype)3, bad_dtype);
    REFUSE(c.d = odd, bad_alignment);
    REFUSE(c.gate.dtype = (lspan_dtype)3, bad_dtype);
    REFUSE(c.gate.row_stride = -1, bad_stride);
    REFUSE((c.gate.data = output.data, c.gate.dtype = lspan_dtype_bf16), bad_dtype);
    REFUSE((c.gate.data = output.data, c.gate.row_stride = channels + 1), bad_stride);
    REFUSE(c.state_stride = states - 1, bad_stride);
    REFUSE(c.initial_state = odd, bad_alignment);
    REFUSE(c.final_state = (float *)(void *)((char *)state.data + 1), bad_alignment);
    REFUSE(c.output.data = NULL, null_pointer);
    REFUSE(c.output.dtype = (lspan_dtype)3, bad_dtype);
    REFUSE(c.output.row_stride = channels - 1, bad_stride);
    REFUSE(c.kept = (int64_t *)(void *)((char *)kept.data + 4), bad_alignment);
    REFUSE_ONE(update, c.final_state = NULL, null_pointer);
}

static void test_values(void)
{
    test_case("selective scan values");
    static float bad[2 * channels];
    lspan_dt_filter filter = {.thresholds = bad};
    REFUSE(c.rule.softplus = 2, bad_value);
    REFUSE(c.rule.minimum = -1, bad_value);
    REFUSE(c.rule.maximum = NAN, bad_value);
    REFUSE((c.rule.minimum = 2, c.rule.maximum = 1), bad_value);
    bad[channels - 1] = NAN;
    REFUSE(c.rule.filter = &filter, bad_value);
    filter.sequence_stride = channels - 1;
    REFUSE(c.rule.filter = &filter, bad_stride);
    filter = (lspan_dt_filter){.scales = bad, .sequence_stride = channels};
    bad[channels - 1] = 1;
    bad[2 * channels - 1] = -1;
    REFUSE(c.rule.filter = &filter, bad_value);
    const float wrong[] = {1e-30f, NAN, -INFINITY, INFINITY};
    for (int i = 0; i < 4; i++) {
        decays[states - 1] = wrong[i];
        lspan_selective_scan c = valid();
        expect(run(&c), lspan_status_bad_value, "A", __LINE__);
    }
    decays[states - 1] = -0.0f;
}

static void test_workspace(void)
{
    test_case("selective scan workspace");
    lspan_selective_scan v = valid();
    char *start = workspace.data;
    expect(lspan_selective_scan_run(context, &v, start, workspace.bytes - 1), lspan_status_workspace_too_small, "small", __LINE__);
    expect(lspan_selective_scan_run(context, &v, NULL, workspace.bytes), lspan_status_null_pointer, "none", __LINE__);
    expect(lspan_selective_scan_run(context, &v, start + 32, workspace.bytes), lspan_status_bad_alignment, "odd", __LINE__);
}

/* No sequences, no tokens, and neither state. */
static void test_empty(void)
{
    test_case("empty selective scans");
    int64_t none[3] = {0, 0, 0};
    lspan_selective_scan c = valid();
    c.sequences = 0;
    expect(run(&c), lspan_status_ok, "no sequences", __LINE__);
    expect(update(&c), lspan_status_ok, "no sequences", __LINE__);
    c = valid();
    c.indptr = none;
    c.input.data = c.dt.data = c.b.data = c.c.data = NULL;
    c.output.data = NULL;
    c.gate.data = NULL;
    c.initial_state = NULL;
    c.kept = NULL;
    c.final_state = NULL;
    expect(run(&c), lspan_status_ok, "no tokens and no state", __LINE__);
    for (int i = 0; i < 2; i++) {
        c.final_state = state.data;
        c.kept = kept.data;
        CHECK_OK(i ? update(&c) : run(&c));
        const float *h = state.data;
        for (int j = 0; j < 2 * states; j++) CHECK(h[j] == 0);
        for (int j = 0; j < 2 * channels; j++) CHECK(((const int64_t *)kept.data)[j] == 0);
        memset(state.data, 0xFF, state.bytes);
        memset(kept.data, 0xFF, kept.bytes);
    }
}

int main(void)
{
    size_t count;
    context = test_contexts(&count)[0].context;
    for (int i = 0; i < states; i++) decays[i] = -1;
    output = test_allocate(rows * channels * sizeof(float), sizeof(float));
    state = test_allocate(2 * states * sizeof(float), sizeof(float));
    kept = test_allocate(2 * channels * sizeof(int64_t), sizeof(int64_t));
    size_t bytes;
    lspan_selective_scan v = valid();
    CHECK_OK(lspan_selective_scan_workspace_size(context, &v, &bytes));
    workspace = test_allocate(bytes, LSPAN_WORKSPACE_ALIGNMENT);
    test_shapes();
    test_arrays();
    test_values();
    test_workspace();
    test_empty();
    lspan_selective_scan c = valid();
    CHECK_OK(run(&c));
    CHECK_OK(update(&c));
    test_release(&output), test_release(&state), test_release(&kept), test_release(&workspace);
    return test_finish("selective_contract_test");
}
