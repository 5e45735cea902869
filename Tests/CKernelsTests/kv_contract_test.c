/* kv_contract_test.c: what scores, selection, compaction and shifted keys refuse, with which status, and that nothing is
 * written then. */
#include "support.h"

#define HEADS 2
#define DIM 8
#define SLOTS 12
#define F32 lspan_dtype_f32
#define UNKNOWN_DTYPE ((lspan_dtype)3)

static const lspan_context *context;
static test_tensor input;                     /* [SLOTS, HEADS, DIM] */
static test_buffer floats;                    /* zeros */
static test_buffer output, more_output, side; /* hold the pattern */
static test_buffer workspace;

static void expect(lspan_status got, lspan_status want, const char *call, int line)
{
    test_status(got, want, __FILE__, line, call);
    CHECK_MESSAGE(
        test_is_untouched(output.data, output.bytes) && test_is_untouched(more_output.data, more_output.bytes) &&
            test_is_untouched(side.data, side.bytes) && test_is_untouched(workspace.data, workspace.bytes),
        "a refused call wrote something");
}

#define REFUSE(call, status) expect((call), lspan_status_##status, #call, __LINE__)

static void *shifted(const void *pointer, size_t bytes)
{
    return (char *)(uintptr_t)pointer + bytes;
}

/* Sets a field of a copy of the good call and expects a refusal. */
#define WITH(type, good, function, status, assignment) \
    do {                                               \
        type call = good;                              \
        assignment;                                    \
        REFUSE(function, status);                      \
    } while (0)

/* ---- Lag-relative scores ------------------------------------------------------------------------------- */

static lspan_status run_scores(const lspan_lag_scores *call)
{
    return lspan_lag_scores_run(context, call, workspace.data, workspace.bytes);
}

static void test_scores(void)
{
    test_case("lag_scores contract");
    const lspan_lag_scores good = {
        .heads = HEADS, .head_dim = DIM, .window = 4, .windows = 2, .keys = test_heads(&input),
        .values = test_heads(&input), .value_weight = 1, .scores = output.data, .score_head_stride = 8};
    size_t bytes = 99;
#define SCORES(status, assignment) WITH(lspan_lag_scores, good, run_scores(&call), status, assignment)
#define SCORES_SIZE(status, assignment) \
    WITH(lspan_lag_scores, good, lspan_lag_scores_workspace_size(context, &call, &bytes), status, assignment); \
    SCORES(status, assignment)
    REFUSE(lspan_lag_scores_run(NULL, &good, workspace.data, workspace.bytes), null_pointer);
    REFUSE(lspan_lag_scores_run(context, NULL, workspace.data, workspace.bytes), null_pointer);
    REFUSE(lspan_lag_scores_run(context, &good, NULL, workspace.bytes), null_pointer);
    REFUSE(lspan_lag_scores_workspace_size(NULL, &good, &bytes), null_pointer);
    REFUSE(lspan_lag_scores_workspace_size(context, NULL, &bytes), null_pointer);
    REFUSE(lspan_lag_scores_workspace_size(context, &good, NULL), null_pointer);
    SCORES(null_pointer, call.keys.data = NULL);
    SCORES(null_pointer, call.values.data = NULL);
    SCORES(null_pointer, call.scores = NULL);
    SCORES_SIZE(bad_shape, call.heads = 0);
    SCORES_SIZE(bad_shape, call.head_dim = 0);
    SCORES_SIZE(bad_shape, call.window = 0);
    SCORES_SIZE(bad_shape, call.windows = -1);
    SCORES(bad_stride, call.keys.token_stride = -1);
    SCORES(bad_stride, call.values.head_stride = -1);
    SCORES(bad_stride, call.score_head_stride = 7);
    SCORES(bad_alignment, call.keys.data = shifted(call.keys.data, 2));
    SCORES(bad_alignment, call.values.data = shifted(call.values.data, 1));
    SCORES(bad_alignment, call.scores = shifted(call.scores, 2));
    REFUSE(lspan_lag_scores_run(context, &good, shifted(workspace.data, 4), workspace.bytes - 64), bad_alignment);
    SCORES(bad_dtype, call.keys.dtype = UNKNOWN_DTYPE);
    SCORES(bad_dtype, call.values.dtype = UNKNOWN_DTYPE);
    SCORES(bad_dtype, call.values.dtype = lspan_dtype_bf16);
    SCORES_SIZE(overflow, call.heads = INT64_MAX);
    SCORES_SIZE(overflow, call.head_dim = INT64_MAX);
    SCORES_SIZE(overflow, call.window = INT64_MAX);
    SCORES_SIZE(overflow, call.windows = INT64_MAX);
    SCORES_SIZE(overflow, (call.heads = call.window = call.windows = 1, call.head_dim = INT64_MAX / 4));
    SCORES(overflow, call.keys.token_stride = INT64_MAX);
    SCORES(overflow, call.values.head_stride = INT64_MAX);
    SCORES(overflow, call.score_head_stride = INT64_MAX);
    SCORES(bad_value, call.value_weight = NAN);
    SCORES(bad_value, call.value_weight = INFINITY);
    SCORES(bad_value, call.value_weight = -1);
    CHECK_OK(lspan_lag_scores_workspace_size(context, &good, &bytes));
    REFUSE(lspan_lag_scores_run(context, &good, workspace.data, bytes - 1), workspace_too_small);
    lspan_lag_scores empty = good;
    empty.windows = 0;
    empty.keys.data = empty.values.data = NULL;
    empty.scores = NULL;
    CHECK_OK(lspan_lag_scores_workspace_size(context, &empty, &bytes));
    CHECK(bytes == 0);
    CHECK_OK(lspan_lag_scores_run(context, &empty, NULL, 0));
#undef SCORES
#undef SCORES_SIZE
}

/* ---- Selection ----------------------------------------------------------------------------------------- */

static lspan_status run_select(const lspan_selection *call)
{
    return lspan_select(context, call, workspace.data, workspace.bytes);
}

static void test_selection(void)
{
    test_case("select contract");
    static const lspan_token_range forced[] = {{0, 1}, {4, 5}};
    static const lspan_token_range falling[] = {{4, 5}, {3, 4}}, overlapping[] = {{0, 2}, {1, 3}}, beyond[] = {{5, 7}};
    static const lspan_token_range below[] = {{-1, 1}}, backward[] = {{3, 2}};
    static const int32_t offsets[] = {0, INT32_MAX - 5}, large[] = {0, INT32_MAX - 4}, negative[] = {-1, 0};
    const lspan_selection good = {
        .scope = lspan_select_scope_row, .rows = 2, .tokens = 6, .scores = floats.data, .score_row_stride = 6, .keep = 3,
        .forced = forced, .forced_count = 2, .row_offsets = offsets, .indices = output.data, .capacity = 12,
        .indptr = more_output.data};
    size_t bytes = 99;
#define SELECT(status, assignment) WITH(lspan_selection, good, run_select(&call), status, assignment)
#define SELECT_SIZE(status, assignment) \
    WITH(lspan_selection, good, lspan_select_workspace_size(context, &call, &bytes), status, assignment); \
    SELECT(status, assignment)
    REFUSE(lspan_select(NULL, &good, workspace.data, workspace.bytes), null_pointer);
    REFUSE(lspan_select(context, NULL, workspace.data, workspace.bytes), null_pointer);
    REFUSE(lspan_select(context, &good, NULL, workspace.bytes), null_pointer);
    REFUSE(lspan_select_workspace_size(NULL, &good, &bytes), null_pointer);
    REFUSE(lspan_select_workspace_size(context, NULL, &bytes), null_pointer);
    REFUSE(lspan_select_workspace_size(context, &good, NULL), null_pointer);
    SELECT(null_pointer, call.scores = NULL);
    SELECT_SIZE(null_pointer, call.forced = NULL);
    SELECT(null_pointer, call.indices = NULL);
    SELECT(null_pointer, call.indptr = NULL);
    SELECT_SIZE(bad_shape, call.rows = -1);
    SELECT_SIZE(bad_shape, call.rows = INT64_MAX);
    SELECT_SIZE(bad_shape, call.tokens = -1);
    SELECT_SIZE(bad_shape, call.tokens = INT64_C(1) << 31);
    SELECT_SIZE(bad_shape, call.keep = 7);
    SELECT_SIZE(bad_shape, call.keep = 1);
    SELECT_SIZE(bad_shape, (call.scope = lspan_select_scope_joint, call.keep = 13));
    SELECT_SIZE(bad_shape, (call.scope = lspan_select_scope_joint, call.keep = 3));
    SELECT_SIZE(bad_shape, call.forced_count = -1);
    SELECT(bad_shape, call.capacity = 5);
    SELECT(bad_shape, (call.scope = lspan_select_scope_shared, call.row_offsets = NULL, call.capacity = 2));
    SELECT(bad_shape, (call.scope = lspan_select_scope_joint, call.keep = 7, call.capacity = 6));
    SELECT(bad_shape, (call.scope = lspan_select_scope_threshold, call.capacity = 11));
    SELECT(bad_stride, call.score_row_stride = -1);
    SELECT(bad_alignment, call.scores = shifted(call.scores, 2));
    SELECT_SIZE(bad_alignment, call.forced = shifted(call.forced, 4));
    SELECT(bad_alignment, call.row_offsets = shifted(call.row_offsets, 2));
    SELECT(bad_alignment, call.indices = shifted(call.indices, 2));
    SELECT(bad_alignment, call.indptr = shifted(call.indptr, 4));
    REFUSE(lspan_select(context, &good, shifted(workspace.data, 4), workspace.bytes - 64), bad_alignment);
    SELECT_SIZE(overflow, call.rows = INT64_MAX - 1);
    SELECT_SIZE(overflow, call.forced_count = INT64_MAX / 16);
    SELECT(overflow, call.capacity = INT64_MAX / 4);
    SELECT(overflow, (call.rows = INT64_MAX / 8, call.tokens = call.keep = call.forced_count = 0));
    SELECT(overflow, call.score_row_stride = INT64_MAX);
    SELECT(overflow, call.row_offsets = large);
    SELECT(overflow, call.row_offsets = negative);
    SELECT_SIZE(bad_value, call.scope = (lspan_select_scope)4);
    SELECT_SIZE(bad_value, call.scope = (lspan_select_scope)-1);
    SELECT_SIZE(bad_value, (call.scope = lspan_select_scope_threshold, call.threshold = NAN));
    SELECT(bad_value, call.scope = lspan_select_scope_shared);
    SELECT_SIZE(bad_index, call.forced = falling);
    SELECT_SIZE(bad_index, call.forced = overlapping);
    SELECT_SIZE(bad_index, (call.forced = beyond, call.forced_count = 1));
    SELECT_SIZE(bad_index, (call.forced = below, call.forced_count = 1));
    SELECT_SIZE(bad_index, (call.forced = backward, call.forced_count = 1));
    CHECK_OK(lspan_select_workspace_size(context, &good, &bytes));
    REFUSE(lspan_select(context, &good, workspace.data, bytes - 1), workspace_too_small);
    int64_t indptr[1] = {7};
    lspan_selection empty = {.scope = lspan_select_scope_row, .indptr = indptr, .threshold = NAN};
    CHECK_OK(lspan_select_workspace_size(context, &empty, &bytes));
    CHECK(bytes == 0);
    CHECK_OK(lspan_select(context, &empty, NULL, 0));
    CHECK(indptr[0] == 0);
#undef SELECT
#undef SELECT_SIZE
}

/* ---- Compaction ---------------------------------------------------------------------------------------- */

static void test_compaction(void)
{
    test_case("compact contract");
    static const int64_t indptr[] = {0, 2, 4}, late[] = {1, 2, 4}, falling[] = {0, 3, 2}, many[] = {0, 13, 13};
    static const int64_t endless[] = {0, 2, INT64_MAX};
    static const int64_t hollow[] = {0, 2, 2};
    static const int32_t indices[] = {2, 5, 3, 4}, equal[] = {2, 5, 3, 3}, down[] = {5, 2, 3, 4}, low[] = {1, 5, 3, 4};
    static const int32_t high[] = {2, 5, 3, 9};
    lspan_side_array sides[] = {{side.data, 1, SLOTS}, {side.data, 4, SLOTS}}, changed[2];
    const lspan_compaction good = {
        .heads = HEADS, .head_dim = DIM, .slots = SLOTS, .lists = HEADS, .indptr = indptr, .indices = indices,
        .destination = 2, .tail_begin = 9, .tail_end = SLOTS, .keys = {output.data, F32, HEADS * DIM, DIM},
        .values = {more_output.data, lspan_dtype_bf16, DIM, SLOTS * DIM}, .side = sides, .side_count = 2};
#define COMPACT(status, assignment) WITH(lspan_compaction, good, lspan_compact(context, &call), status, assignment)
#define SIDE(status, assignment)                \
    do {                                        \
        memcpy(changed, sides, sizeof sides);   \
        assignment;                             \
        COMPACT(status, call.side = changed);   \
    } while (0)
    REFUSE(lspan_compact(NULL, &good), null_pointer);
    REFUSE(lspan_compact(context, NULL), null_pointer);
    COMPACT(null_pointer, call.keys.data = NULL);
    COMPACT(null_pointer, call.values.data = NULL);
    COMPACT(null_pointer, call.side = NULL);
    COMPACT(null_pointer, call.indptr = NULL);
    COMPACT(null_pointer, call.indices = NULL);
    SIDE(null_pointer, changed[1].data = NULL);
    COMPACT(bad_shape, call.heads = 0);
    COMPACT(bad_shape, call.head_dim = 0);
    COMPACT(bad_shape, call.slots = -1);
    COMPACT(bad_shape, call.lists = 0);
    COMPACT(bad_shape, call.lists = 3);
    COMPACT(bad_shape, call.destination = -1);
    COMPACT(bad_shape, call.destination = SLOTS + 1);
    COMPACT(bad_shape, call.tail_begin = -1);
    COMPACT(bad_shape, call.tail_end = 8);
    COMPACT(bad_shape, call.tail_end = SLOTS + 1);
    COMPACT(bad_shape, call.side_count = -1);
    SIDE(bad_shape, changed[1].element_bytes = 0);
    SIDE(bad_shape, changed[1].element_bytes = 3);
    SIDE(bad_shape, changed[1].element_bytes = 32);
    COMPACT(bad_stride, call.keys.token_stride = DIM);
    COMPACT(bad_stride, call.values.head_stride = -1);
    SIDE(bad_stride, changed[0].head_stride = SLOTS - 1);
    COMPACT(bad_alignment, call.keys.data = shifted(call.keys.data, 2));
    COMPACT(bad_alignment, call.values.data = shifted(call.values.data, 1));
    COMPACT(bad_alignment, call.indptr = shifted(call.indptr, 4));
    COMPACT(bad_alignment, call.indices = shifted(call.indices, 2));
    COMPACT(bad_alignment, call.side = shifted(call.side, 4));
    SIDE(bad_alignment, changed[1].data = shifted(side.data, 2));
    COMPACT(bad_dtype, call.keys.dtype = UNKNOWN_DTYPE);
    COMPACT(bad_dtype, call.values.dtype = UNKNOWN_DTYPE);
    COMPACT(overflow, call.indptr = endless);
    COMPACT(overflow, call.side_count = INT64_MAX);
    COMPACT(overflow, call.side_count = INT64_MAX / 24);
    COMPACT(overflow, call.heads = call.lists = INT64_MAX);
    COMPACT(overflow, call.head_dim = INT64_MAX);
    COMPACT(overflow, call.keys.head_stride = INT64_MAX);
    COMPACT(overflow, call.values.token_stride = INT64_MAX);
    SIDE(overflow, changed[1].head_stride = INT64_MAX);
    COMPACT(bad_index, call.indptr = late);
    COMPACT(bad_index, call.indptr = falling);
    COMPACT(bad_index, call.indptr = many);
    COMPACT(bad_index, call.indices = equal);
    COMPACT(bad_index, call.indices = down);
    COMPACT(bad_index, call.indices = low);
    COMPACT(bad_index, call.indices = high);
    COMPACT(bad_index, call.tail_begin = 4);
    COMPACT(bad_index, (call.tail_begin = call.tail_end = 9, call.slots = 9, call.indices = high));
    /* an empty list, whose tail would go up */
    COMPACT(bad_index, (call.indptr = hollow, call.indices = high, call.destination = 2, call.tail_begin = 1));
    static const int64_t empty[] = {0, 0};
    lspan_compaction none = {
        .heads = HEADS, .head_dim = DIM, .lists = 1, .indptr = empty, .keys = {NULL, F32, 8, 8},
        .values = {NULL, F32, 8, 8}};
    REFUSE(lspan_compact(context, &none), ok);
    /* lists that lie in place already, and no tail */
    static const int32_t compact[] = {2, 3, 2, 3};
    lspan_compaction still = good;
    still.indices = compact;
    still.tail_end = still.tail_begin;
    REFUSE(lspan_compact(context, &still), ok);
#undef COMPACT
#undef SIDE
}

/* ---- Keys at other positions --------------------------------------------------------------------------- */

static void test_shifting(void)
{
    test_case("rope_shift contract");
    static const int32_t shifts[] = {-1, 0, 1, 2, -1, 0}, below[] = {-1, 0, 1, 2, -2, 0}, above[] = {-1, 0, 1, 2, 3, 0};
    const lspan_rope_shifting good = {
        .layout = lspan_rope_layout_halves, .tokens = 3, .heads = HEADS, .head_dim = DIM, .pairs = 3, .shifts = shifts,
        .shift_head_stride = 3, .table_first = -1, .table_rows = 4, .cosine = floats.data, .sine = floats.data,
        .keys = {output.data, F32, HEADS * DIM, DIM}};
#define SHIFT(status, assignment) \
    WITH(lspan_rope_shifting, good, lspan_rope_shift(context, &call), status, assignment)
    REFUSE(lspan_rope_shift(NULL, &good), null_pointer);
    REFUSE(lspan_rope_shift(context, NULL), null_pointer);
    SHIFT(null_pointer, call.shifts = NULL);
    SHIFT(null_pointer, call.cosine = NULL);
    SHIFT(null_pointer, call.sine = NULL);
    SHIFT(null_pointer, call.keys.data = NULL);
    SHIFT(bad_shape, call.tokens = -1);
    SHIFT(bad_shape, call.heads = -1);
    SHIFT(bad_shape, call.head_dim = -1);
    SHIFT(bad_shape, call.pairs = 0);
    SHIFT(bad_shape, call.pairs = DIM / 2 + 1);
    SHIFT(bad_shape, call.table_rows = -1);
    SHIFT(bad_stride, call.shift_head_stride = 2);
    SHIFT(bad_stride, call.shift_head_stride = -3);
    SHIFT(bad_stride, call.keys.token_stride = DIM);
    SHIFT(bad_alignment, call.shifts = shifted(call.shifts, 2));
    SHIFT(bad_alignment, call.cosine = shifted(call.cosine, 2));
    SHIFT(bad_alignment, call.sine = shifted(call.sine, 1));
    SHIFT(bad_alignment, call.keys.data = shifted(call.keys.data, 2));
    SHIFT(bad_dtype, call.layout = (lspan_rope_layout)2);
    SHIFT(bad_dtype, call.layout = (lspan_rope_layout)-1);
    SHIFT(bad_dtype, call.keys.dtype = UNKNOWN_DTYPE);
    SHIFT(overflow, call.tokens = call.shift_head_stride = INT64_MAX);
    SHIFT(overflow, call.heads = INT64_MAX);
    SHIFT(overflow, call.head_dim = INT64_MAX);
    SHIFT(overflow, call.table_rows = INT64_MAX);
    SHIFT(overflow, (call.table_first = INT64_MAX, call.table_rows = 1));
    SHIFT(overflow, call.shift_head_stride = INT64_MAX);
    SHIFT(overflow, call.keys.token_stride = INT64_MAX);
    SHIFT(bad_value, call.inverse = 2);
    SHIFT(bad_value, call.inverse = -1);
    SHIFT(bad_index, call.shifts = below);
    SHIFT(bad_index, call.shifts = above);
    SHIFT(bad_index, call.table_rows = 0);
    SHIFT(bad_index, call.table_first = INT64_MIN);
    lspan_rope_shifting none = good;
    none.tokens = 0;
    none.shifts = NULL;
    none.keys.data = NULL;
    REFUSE(lspan_rope_shift(context, &none), ok);
#undef SHIFT
}

/* ---- A failing executor -------------------------------------------------------------------------------- */

static int refuse_tasks(void *user, size_t count, lspan_task_function function, void *argument)
{
    (void)user, (void)count, (void)function, (void)argument;
    return 1;
}

/* Large enough for several tasks. */
static void test_failing_executor(void)
{
    test_case("a failing executor");
    enum { heads = 4, dim = 64, slots = 256 };
    lspan_executor executor = {refuse_tasks, NULL, 2};
    lspan_context_options options = {0, NULL, &executor, 0};
    lspan_context *failing = NULL;
    CHECK_OK(lspan_context_create(&options, &failing));
    static float keys[heads * slots * dim], values[heads * slots * dim], scores[heads * 8192], table[2 * dim];
    static int32_t indices[heads * 8192], shifts[slots];
    static int64_t indptr[heads + 1];
    static _Alignas(LSPAN_WORKSPACE_ALIGNMENT) char room[1 << 20];
    lspan_lag_scores score = {
        .heads = heads, .head_dim = dim, .window = 128, .windows = 1, .keys = {keys, F32, dim, slots * dim},
        .values = {values, F32, dim, slots * dim}, .value_weight = 1, .scores = scores, .score_head_stride = 128};
    CHECK_STATUS(lspan_lag_scores_run(failing, &score, room, sizeof room), lspan_status_executor_failed);
    for (int scope = 0; scope < 4; scope++) {
        lspan_selection s = {
            .scope = (lspan_select_scope)scope, .rows = heads, .tokens = 8192, .scores = scores,
            .score_row_stride = 8192, .keep = 100, .indices = indices, .capacity = heads * 8192, .indptr = indptr};
        CHECK_STATUS(lspan_select(failing, &s, room, sizeof room), lspan_status_executor_failed);
    }
    static const int64_t one[] = {0, 0};
    lspan_compaction c = {
        .heads = heads, .head_dim = dim, .slots = slots, .lists = 1, .indptr = one, .tail_begin = 1, .tail_end = slots,
        .keys = {keys, F32, dim, slots * dim}, .values = {values, F32, dim, slots * dim}};
    CHECK_STATUS(lspan_compact(failing, &c), lspan_status_executor_failed);
    lspan_rope_shifting r = {
        .tokens = slots, .heads = heads, .head_dim = dim, .pairs = dim / 2, .shifts = shifts, .table_rows = 1,
        .cosine = table, .sine = table, .keys = {keys, F32, dim, slots * dim}};
    CHECK_STATUS(lspan_rope_shift(failing, &r), lspan_status_executor_failed);
    lspan_context_destroy(failing);
}

int main(void)
{
    size_t count;
    context = test_contexts(&count)[1].context;
    input = test_tensor_random(F32, SLOTS, HEADS, DIM, test_layout_token_major, 1);
    floats = test_allocate(SLOTS * HEADS * DIM * sizeof(float), sizeof(float));
    memset(floats.data, 0, floats.bytes);
    output = test_allocate(SLOTS * HEADS * DIM * sizeof(float), sizeof(int64_t));
    more_output = test_allocate(SLOTS * HEADS * DIM * sizeof(float), sizeof(int64_t));
    side = test_allocate(SLOTS * HEADS * 16, 16);
    workspace = test_allocate(1 << 16, LSPAN_WORKSPACE_ALIGNMENT);
    test_scores();
    test_selection();
    test_compaction();
    test_shifting();
    test_failing_executor();
    test_tensor_release(&input);
    test_release(&floats);
    test_release(&output);
    test_release(&more_output);
    test_release(&side);
    test_release(&workspace);
    return test_finish("kv_contract_test");
}
