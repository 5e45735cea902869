/* ssm_profile_test.c: what the profile counts for the scans of state-space layers. */
#include "selective_support.h"

enum { rows = 5, channels = 8, groups = 2, size = 3, sequences = 2, states = channels * size };

static void expect(lspan_context *context, lspan_profile_kernel kernel, int64_t bytes, int64_t flops, int64_t exponentials)
{
    lspan_profile_totals totals;
    CHECK_OK(lspan_profile_stop(context));
    CHECK_OK(lspan_profile_read(context, kernel, &totals));
    CHECK_MESSAGE(
        totals.calls == 1 && totals.bytes == bytes && totals.flops == flops && totals.exponentials == exponentials,
        "%s: %lld calls, %lld bytes, %lld flops, %lld exponentials", lspan_profile_kernel_name(kernel),
        (long long)totals.calls, (long long)totals.bytes, (long long)totals.flops, (long long)totals.exponentials);
}

int main(void)
{
    static float numbers[sequences * states], state[sequences * states], output[rows * channels], decays[states];
    int64_t offsets[3] = {0, 2, rows}, kept[sequences * channels];
    lspan_context *context;
    lspan_context_options options = {1, NULL, NULL, 0};
    CHECK_OK(lspan_context_create(&options, &context));
    lspan_matrix in = {numbers, lspan_dtype_f32, channels};
    lspan_heads view = {numbers, lspan_dtype_bf16, groups * size, size};
    lspan_selective_scan plain = {
        .sequences = sequences, .indptr = offsets, .channels = channels, .state_size = size, .groups = groups, .input = in,
        .dt = in, .rule = {.maximum = INFINITY}, .a = decays, .b = view, .c = view, .final_state = state,
        .state_stride = states, .output = {output, lspan_dtype_f32, channels}};
    lspan_selective_scan full = plain;
    lspan_dt_filter filter = {.thresholds = numbers, .sequence_stride = channels};
    full.rule = (lspan_dt_rule){.bias = numbers, .softplus = 1, .maximum = INFINITY, .filter = &filter};
    full.d = numbers;
    full.gate = in;
    full.initial_state = numbers;
    full.kept = kept;
    const int64_t elements = rows * channels;
    for (int update = 0; update < 2; update++) {
        lspan_profile_kernel kernel = update ? lspan_profile_kernel_selective_update : lspan_profile_kernel_selective_scan;
        test_case("costs of the selective %s", update ? "update" : "scan");
        /* u, dt, y; B and C; A and the final states */
        int64_t bytes = 12 * elements + 4 * rows * groups * size + 4 * (states + sequences * states);
        CHECK_OK(lspan_profile_start(context, NULL, 0));
        CHECK_OK(update ? lspan_selective_update(context, &plain) : run_scan(context, &plain));
        expect(context, kernel, bytes, elements * (7 * size + 1), elements * size);
        /* z, the initial states, D, the bias, thresholds, counts */
        bytes += 4 * elements + 4 * sequences * states + 8 * channels + 4 * sequences * channels + 8 * sequences * channels;
        CHECK_OK(lspan_profile_start(context, NULL, 0));
        CHECK_OK(update ? lspan_selective_update(context, &full) : run_scan(context, &full));
        expect(context, kernel, bytes, elements * (7 * size + 1 + 2 + 4 + 1 + 1 + 3), elements * (size + 1 + 2));
    }
    lspan_context_destroy(context);
    return test_finish("ssm_profile_test");
}
