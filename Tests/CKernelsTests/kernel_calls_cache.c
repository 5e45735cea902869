/* kernel_calls_cache.c: calls of kv.h, see kernel_calls.h. */
#include "kernel_calls.h"

KERNEL_WITHOUT_WORKSPACE(compact, lspan_compact, lspan_compaction)
KERNEL_WITHOUT_WORKSPACE(rope_shift, lspan_rope_shift, lspan_rope_shifting)
KERNEL_WITH_WORKSPACE(lag_scores, lspan_lag_scores_run, lspan_lag_scores)
KERNEL_WITH_WORKSPACE(select, lspan_select, lspan_selection)

static void add_lag_scores(int64_t heads, int64_t windows, lspan_dtype dtype)
{
    enum { head_dim = 48, window = 24 };
    kernel_call *call = kernel_call_add(
        size_lag_scores, run_lag_scores, NULL, "lag_scores of %lld heads", (long long)heads);
    int64_t tokens = (windows + 1) * window;
    test_tensor keys = test_tensor_random(dtype, tokens, heads, head_dim, test_layout_head_major, 1);
    test_tensor values = test_tensor_random(dtype, tokens, heads, head_dim, test_layout_head_major, 1);
    call->arguments = KERNEL_KEEP(lspan_lag_scores, {
        .heads = heads, .head_dim = head_dim, .window = window, .windows = windows, .keys = test_heads(&keys),
        .values = test_heads(&values), .value_weight = 0.7f,
        .scores = kernel_call_output(call, heads * windows * window, sizeof(float)),
        .score_head_stride = windows * window});
}

static void add_selection(lspan_select_scope scope, int64_t rows, int64_t tokens)
{
    static const char *const names[] = {"row", "shared", "joint", "threshold"};
    static const lspan_token_range forced[] = {{0, 3}, {10, 12}};
    kernel_call *call = kernel_call_add(
        size_select, run_select, NULL, "select by %s of %lld tokens", names[scope], (long long)tokens);
    int joint = scope == lspan_select_scope_joint, shared = scope == lspan_select_scope_shared;
    int64_t keep = (joint ? rows : 1) * tokens / 5;
    int64_t capacity = scope == lspan_select_scope_threshold ? rows * tokens : joint || shared ? keep : rows * keep;
    /* some scopes leave room unused */
    int32_t *indices = test_malloc(capacity, sizeof *indices);
    int64_t *indptr = test_malloc(rows + 1, sizeof *indptr);
    kernel_call_in_place(call, indices, (size_t)capacity * sizeof *indices);
    kernel_call_in_place(call, indptr, (size_t)(rows + 1) * sizeof *indptr);
    call->arguments = KERNEL_KEEP(lspan_selection, {
        .scope = scope, .rows = rows, .tokens = tokens, .scores = test_floats(rows * tokens, 1),
        .score_row_stride = tokens, .keep = keep, .threshold = 0.9f, .forced = forced, .forced_count = 2,
        .indices = indices, .capacity = capacity, .indptr = indptr});
}

/* Lists of other lengths for each head, a tail, and an array of positions beside the cache. */
static void add_compaction(void)
{
    enum { heads = 3, head_dim = 40, slots = 700, destination = 20, tail = 650 };
    kernel_call *call = kernel_call_add(NULL, run_compact, NULL, "compact");
    test_tensor keys = test_tensor_random(lspan_dtype_f16, slots, heads, head_dim, test_layout_token_major, 1);
    test_tensor values = test_tensor_random(lspan_dtype_f32, slots, heads, head_dim, test_layout_head_major, 1);
    int32_t *positions = test_malloc(heads * slots, sizeof *positions);
    for (int32_t i = 0; i < heads * slots; i++) positions[i] = i % slots;
    int64_t *indptr = test_malloc(heads + 1, sizeof *indptr);
    int32_t *indices = test_malloc(heads * slots, sizeof *indices);
    for (int64_t h = 0, count = 0; h < heads; h++) {
        for (int64_t s = destination; s < tail; s += test_random_int(1, 3)) indices[count++] = (int32_t)s;
        indptr[h + 1] = count;
    }
    call->arguments = KERNEL_KEEP(lspan_compaction, {
        .heads = heads, .head_dim = head_dim, .slots = slots, .lists = heads, .indptr = indptr, .indices = indices,
        .destination = destination, .tail_begin = tail, .tail_end = slots, .keys = test_heads_out(&keys),
        .values = test_heads_out(&values), .side = KERNEL_KEEP(lspan_side_array, {positions, sizeof *positions, slots}),
        .side_count = 1});
    kernel_call_in_place(call, keys.buffer.data, keys.buffer.bytes);
    kernel_call_in_place(call, values.buffer.data, values.buffer.bytes);
    kernel_call_in_place(call, positions, heads * slots * sizeof *positions);
}

static void add_rope_shift(lspan_rope_layout layout, lspan_dtype dtype)
{
    enum { tokens = 310, heads = 3, head_dim = 24, pairs = 10, first = -100, rows = 101 };
    kernel_call *call = kernel_call_add(NULL, run_rope_shift, NULL, "rope_shift, layout %d", (int)layout);
    test_tensor keys = test_tensor_random(dtype, tokens, heads, head_dim, test_layout_head_major, 1);
    int32_t *shifts = test_malloc(heads * tokens, sizeof *shifts);
    for (int64_t i = 0; i < heads * tokens; i++) shifts[i] = (int32_t)test_random_int(first, 0);
    float *cosine = test_malloc(rows * pairs, sizeof *cosine), *sine = test_malloc(rows * pairs, sizeof *sine);
    for (int64_t i = 0; i < rows * pairs; i++) {
        double angle = (double)(first + i / pairs) * pow(10000, -(double)(i % pairs) / pairs);
        cosine[i] = (float)cos(angle);
        sine[i] = (float)sin(angle);
    }
    call->arguments = KERNEL_KEEP(lspan_rope_shifting, {
        .layout = layout, .tokens = tokens, .heads = heads, .head_dim = head_dim, .pairs = pairs, .shifts = shifts,
        .shift_head_stride = tokens, .table_first = first, .table_rows = rows, .cosine = cosine, .sine = sine,
        .keys = test_heads_out(&keys)});
    kernel_call_in_place(call, keys.buffer.data, keys.buffer.bytes);
}

void kernel_calls_cache(void)
{
    add_lag_scores(1, 40, lspan_dtype_f32);
    add_lag_scores(12, 9, lspan_dtype_bf16);
    for (int scope = 0; scope < 4; scope++) {
        add_selection((lspan_select_scope)scope, 17, 400);
        add_selection((lspan_select_scope)scope, 3, 4100);
    }
    add_compaction();
    add_rope_shift(lspan_rope_layout_halves, lspan_dtype_f32);
    add_rope_shift(lspan_rope_layout_interleaved, lspan_dtype_bf16);
}
