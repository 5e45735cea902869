/* ssd_profile_test.c: what the profile counts of SSD scans and updates, by hand counts. */
#include "support.h"

enum { tokens = 6, heads = 4, groups = 2, head_dim = 8, state_size = 16, states = 2 * heads * head_dim * state_size };

static float numbers[states];
static uint16_t halves[tokens * heads * head_dim];
static float output[tokens * heads * head_dim], state[states], decays[heads] = {-1, -2, -3, -4};
static int64_t indptr[3] = {0, 2, tokens}, kept[2 * heads];
static lspan_dt_filter filter = {numbers, numbers, heads};

static lspan_ssd_scan plain_scan(void)
{
    return (lspan_ssd_scan){
        .sequences = 2, .indptr = indptr, .heads = heads, .head_dim = head_dim, .state_size = state_size, .groups = groups,
        .input = {numbers, lspan_dtype_f32, heads * head_dim, head_dim}, .dt = {numbers, lspan_dtype_f32, heads},
        .rule = {.maximum = INFINITY}, .a = decays, .b = {numbers, lspan_dtype_f32, groups * state_size, state_size},
        .c = {numbers, lspan_dtype_f32, groups * state_size, state_size}, .final_state = state,
        .state_stride = states / 2, .output = {output, lspan_dtype_f32, heads * head_dim, head_dim},
        .form = lspan_ssd_form_recurrent};
}

static lspan_ssd_scan full_scan(void)
{
    lspan_ssd_scan s = plain_scan();
    s.rule = (lspan_dt_rule){.bias = numbers, .softplus = 1, .maximum = INFINITY, .filter = &filter};
    s.input = (lspan_heads){halves, lspan_dtype_f16, heads * head_dim, head_dim};
    s.gate = (lspan_heads){halves, lspan_dtype_bf16, heads * head_dim, head_dim};
    s.initial_state = numbers;
    s.d = numbers;
    s.kept = kept;
    return s;
}

static void check_scan(lspan_context *context, const lspan_ssd_scan *s, int update, int64_t bytes, int64_t flops, int64_t exponentials)
{
    size_t size = 0;
    CHECK_OK(lspan_ssd_scan_workspace_size(context, s, &size));
    test_buffer workspace = test_allocate(size, LSPAN_WORKSPACE_ALIGNMENT);
    lspan_profile_event event;
    CHECK_OK(lspan_profile_start(context, &event, 1));
    CHECK_OK(update ? lspan_ssd_update(context, s) : lspan_ssd_scan_run(context, s, workspace.data, size));
    CHECK_OK(lspan_profile_stop(context));
    CHECK(event.kernel == (update ? lspan_profile_kernel_ssd_update : lspan_profile_kernel_ssd_scan));
    CHECK(event.variant == (int32_t)s->input.dtype);
    CHECK_MESSAGE(event.bytes == bytes, "%lld bytes, not %lld", (long long)event.bytes, (long long)bytes);
    CHECK_MESSAGE(event.flops == flops, "%lld flops, not %lld", (long long)event.flops, (long long)flops);
    CHECK_MESSAGE(
        event.exponentials == exponentials, "%lld exponentials, not %lld", (long long)event.exponentials,
        (long long)exponentials);
    test_release(&workspace);
}

int main(void)
{
    lspan_context_options options = {1, NULL, NULL, 0};
    lspan_context *context = NULL;
    test_case("costs of the SSD scan");
    if (!CHECK_OK(lspan_context_create(&options, &context))) return test_finish("ssd_profile_test");
    const int64_t rows = tokens * heads, inputs = rows * head_dim, b_and_c = 2 * tokens * groups * state_size;
    lspan_ssd_scan s = plain_scan();
    /* x, y, dt, B and C, A, the final state */
    int64_t bytes = 4 * (2 * inputs + rows + b_and_c + heads + states);
    check_scan(context, &s, 0, bytes, 5 * inputs * state_size, rows);
    check_scan(context, &s, 1, bytes, 5 * inputs * state_size, rows);
    s.form = lspan_ssd_form_chunked;
    int64_t chunked = rows * 2 * (head_dim * 32 + 2 * head_dim * state_size) + tokens * groups * 2 * state_size * 32;
    check_scan(context, &s, 0, bytes, chunked, rows);

    s = full_scan();
    s.form = lspan_ssd_form_chunked;
    /* x and z in halves; bias, D, scales and thresholds of two sequences, both states, kept */
    bytes = 2 * 2 * inputs + 4 * inputs + 4 * (rows + b_and_c + 3 * heads + 4 * heads + 2 * states) + 8 * 2 * heads;
    /* D x, the gate; bias, filter and softplus */
    check_scan(context, &s, 0, bytes, chunked + 6 * inputs + 5 * rows, 3 * rows + inputs);
    check_scan(context, &s, 1, bytes, 5 * inputs * state_size + 6 * inputs + 5 * rows, 3 * rows + inputs);
    lspan_context_destroy(context);
    return test_finish("ssd_profile_test");
}
