/* ssm_layers_test.c: steps, the causal convolution and the gated norm against the reference. */
#include "support.h"

/* B + 1 offsets of sequences of 0 to `longest` tokens. */
static int64_t *random_indptr(int64_t sequences, int64_t longest)
{
    int64_t *indptr = test_malloc(sequences + 1, sizeof *indptr);
    indptr[0] = 0;
    for (int64_t b = 0; b < sequences; b++) {
        indptr[b + 1] = indptr[b] + (test_one_in(4) ? test_random_int(0, 2) : test_random_int(0, longest));
    }
    return indptr;
}

static double output_floor(const double *want, int64_t count, lspan_dtype dtype, double epsilons)
{
    double rounding = dtype == lspan_dtype_f32 ? 0 : 1.01 * test_epsilon(dtype);
    return test_largest(want, count) * (epsilons * test_epsilon(lspan_dtype_f32) + rounding);
}

/* ---- Steps ------------------------------------------------------------------------------------------- */

/* Thresholds half way between two of a channel's steps, so that rounding cannot move a step across one. */
static void choose_thresholds(
    const double *steps, const int64_t *indptr, int64_t sequences, int64_t channels, float *thresholds)
{
    for (int64_t b = 0; b < sequences; b++) {
        for (int64_t i = 0; i < channels; i++) {
            int64_t tokens = indptr[b + 1] - indptr[b];
            float threshold = test_one_in(2) ? -1.0f : INFINITY;
            if (tokens > 1) {
                double a = steps[(indptr[b] + test_random_int(0, tokens - 1)) * channels + i], next = INFINITY;
                for (int64_t t = indptr[b]; t < indptr[b + 1]; t++) {
                    double x = steps[t * channels + i];
                    if (x > a && x < next) next = x;
                }
                if (isfinite(next) && next - a > 1e-4 * next) threshold = (float)((a + next) / 2);
            }
            thresholds[b * channels + i] = threshold;
        }
    }
}

static void check_steps(int64_t sequences, int64_t channels, lspan_dtype dtype)
{
    int64_t *indptr = random_indptr(sequences, 40), rows = indptr[sequences], count = rows * channels;
    test_case("dt_steps sequences%lld channels%lld rows%lld", (long long)sequences, (long long)channels, (long long)rows);
    float spread = test_one_in(3) ? 20.0f : 2.0f;
    test_tensor dt = test_tensor_random(dtype, rows, 1, channels, test_random_layout(), spread);
    float *bias = test_floats(channels, 2), *scales = test_floats(sequences * channels, 1);
    for (int64_t i = 0; i < sequences * channels; i++) scales[i] = fabsf(scales[i]);
    float *thresholds = test_floats(sequences * channels, 1);
    double *want = test_malloc(count, sizeof *want);
    float *simple = test_malloc(count, sizeof *simple);

    lspan_dt_filter filter = {.scales = test_one_in(2) ? scales : NULL, .sequence_stride = channels};
    lspan_dt_rule rule = {.bias = test_one_in(2) ? bias : NULL, .softplus = test_one_in(4) ? 0 : 1, .maximum = INFINITY};
    if (test_one_in(3)) rule.minimum = 0.01f;
    if (test_one_in(3)) rule.maximum = 3.0f;
    lspan_reference_dt_steps_f64(sequences, indptr, channels, test_matrix(&dt), &rule, want);
    if (!test_one_in(3)) {
        if (!test_one_in(3)) {
            choose_thresholds(want, indptr, sequences, channels, thresholds);
            filter.thresholds = thresholds;
        }
        rule.filter = &filter;
    }
    lspan_reference_dt_steps_f64(sequences, indptr, channels, test_matrix(&dt), &rule, want);
    lspan_reference_dt_steps_f32(sequences, indptr, channels, test_matrix(&dt), &rule, simple);
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        test_tensor output = test_tensor_make(lspan_dtype_f32, rows, 1, channels, test_layout_padded_token_major);
        CHECK_OK(lspan_dt_steps(
            contexts[i].context, sequences, indptr, channels, test_matrix(&dt), &rule, output.buffer.data,
            output.token_stride));
        float *got = test_gather(&output);
        /* softplus keeps the relative precision of small steps */
        for (int64_t e = 0; e < count; e++) {
            double bound = 8 * test_epsilon(lspan_dtype_f32) * fabs(want[e]) + 2 * fabs((double)simple[e] - want[e]);
            CHECK_MESSAGE(
                fabs((double)got[e] - want[e]) <= bound + 1e-44, "%s: step %lld is %g, not %g", contexts[i].name,
                (long long)e, (double)got[e], want[e]);
        }
        test_check_gaps(&output);
        free(got);
        test_tensor_release(&output);
    }
    test_tensor_release(&dt);
    free(indptr), free(bias), free(scales), free(thresholds), free(want), free(simple);
}

/* A NaN passes, whatever the filter; a threshold below every step changes no bit. */
static void check_special_steps(void)
{
    test_case("dt_steps specials");
    float dt[6] = {NAN, -INFINITY, INFINITY, -3, 0, 2}, got[6], plain[6];
    int64_t indptr[2] = {0, 6};
    float threshold = 0.5f, low = -1;
    lspan_dt_filter filter = {.thresholds = &threshold};
    lspan_dt_rule rule = {.maximum = INFINITY, .softplus = 1, .filter = &filter};
    lspan_matrix in = {dt, lspan_dtype_f32, 1};
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        rule.filter = &filter;
        filter.thresholds = &threshold;
        CHECK_OK(lspan_dt_steps(contexts[i].context, 1, indptr, 1, in, &rule, got, 1));
        CHECK(isnan(got[0]) && got[1] == 0 && got[2] == INFINITY && got[3] == 0 && got[4] > 0.69f && got[5] > 2);
        filter.thresholds = &low;
        CHECK_OK(lspan_dt_steps(contexts[i].context, 1, indptr, 1, in, &rule, got, 1));
        rule.filter = NULL;
        CHECK_OK(lspan_dt_steps(contexts[i].context, 1, indptr, 1, in, &rule, plain, 1));
        CHECK(memcmp(got + 1, plain + 1, sizeof got - sizeof *got) == 0);
    }
}

/* ---- Causal convolution ------------------------------------------------------------------------------ */

static void check_conv(int64_t sequences, int64_t longest, int64_t channels, int64_t width)
{
    int64_t *indptr = random_indptr(sequences, longest), rows = indptr[sequences];
    int64_t count = rows * channels, kept = width - 1, stride = kept * channels + 3, states = sequences * stride;
    lspan_dtype input_dtype = test_random_dtype(), output_dtype = test_random_dtype();
    int silu = !test_one_in(3), in_place = test_one_in(2), initial = !test_one_in(3), biased = !test_one_in(3);
    test_case(
        "causal_conv sequences%lld rows%lld channels%lld width%lld in%d out%d silu%d in_place%d initial%d",
        (long long)sequences, (long long)rows, (long long)channels, (long long)width, (int)input_dtype,
        (int)output_dtype, silu, in_place, initial);
    test_tensor x = test_tensor_random(input_dtype, rows, 1, channels, test_random_layout(), 1);
    float *weight = test_floats(channels * width, 1), *bias = test_floats(channels, 1);
    float *first = test_floats(states, 1);
    double *want = test_malloc(count, sizeof *want), *want_state = test_malloc(sequences * kept * channels, sizeof *want);
    float *simple = test_malloc(count, sizeof *simple);
    float *simple_state = test_malloc(sequences * kept * channels, sizeof *simple);
    lspan_causal_conv c = {
        .sequences = sequences, .indptr = indptr, .channels = channels, .width = width, .input = test_matrix(&x),
        .weight = weight, .bias = biased ? bias : NULL, .silu = silu, .initial_state = initial ? first : NULL,
        .state_stride = stride};
    lspan_reference_causal_conv_f64(&c, want, want_state);
    lspan_reference_causal_conv_f32(&c, simple, simple_state);
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        test_tensor output = test_tensor_make(output_dtype, rows, 1, channels, test_random_layout());
        test_buffer state = test_allocate((size_t)states * sizeof(float), sizeof(float));
        if (initial && in_place) memcpy(state.data, first, (size_t)states * sizeof(float));
        c.initial_state = !initial ? NULL : in_place ? state.data : first;
        c.final_state = state.data;
        c.output = test_matrix_out(&output);
        CHECK_OK(lspan_causal_conv_run(contexts[i].context, &c));
        float *got = test_gather(&output);
        double floor = output_floor(want, count, output_dtype, 16);
        test_check_errors("causal_conv", contexts[i].name, output_dtype, got, want, simple, count, floor);
        for (int64_t b = 0; b < sequences; b++) {
            for (int64_t e = 0; e < kept * channels; e++) {
                float left = ((float *)state.data)[b * stride + e];
                CHECK((double)left == want_state[b * kept * channels + e]);
            }
        }
        test_check_gaps(&output);
        free(got);
        test_release(&state);
        test_tensor_release(&output);
    }
    test_tensor_release(&x);
    free(indptr), free(weight), free(bias), free(first), free(want), free(want_state), free(simple), free(simple_state);
}

/* Any split gives the same bits as one call: no sum crosses a token. */
static void check_conv_splits(void)
{
    enum { tokens = 200, channels = 37, width = 4 };
    test_case("causal_conv splits");
    float *x = test_floats(tokens * channels, 1), *weight = test_floats(channels * width, 1);
    float *whole = test_floats(tokens * channels, 1), *parts = test_floats(tokens * channels, 1);
    float whole_state[3 * channels], state[3 * channels];
    int64_t indptr[2] = {0, tokens};
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        lspan_causal_conv c = {
            .sequences = 1, .indptr = indptr, .channels = channels, .width = width, .silu = 1, .weight = weight,
            .input = {x, lspan_dtype_f32, channels}, .output = {whole, lspan_dtype_f32, channels},
            .final_state = whole_state, .state_stride = 3 * channels};
        indptr[1] = tokens;
        CHECK_OK(lspan_causal_conv_run(contexts[i].context, &c));
        memset(state, 0, sizeof state);
        c.initial_state = c.final_state = state;
        for (int64_t t = 0; t < tokens; t += indptr[1]) {
            indptr[1] = test_one_in(2) ? 1 : test_random_int(1, 90);
            if (indptr[1] > tokens - t) indptr[1] = tokens - t;
            c.input.data = x + t * channels;
            c.output.data = parts + t * channels;
            CHECK_OK(lspan_causal_conv_run(contexts[i].context, &c));
        }
        CHECK(memcmp(whole, parts, tokens * channels * sizeof *whole) == 0);
        CHECK(memcmp(whole_state, state, sizeof state) == 0);
    }
    free(x), free(weight), free(whole), free(parts);
}

/* ---- Gated RMSNorm ----------------------------------------------------------------------------------- */

static void check_gated_norm(int64_t rows, int64_t groups, int64_t size)
{
    int64_t columns = groups * size, count = rows * columns;
    lspan_dtype input_dtype = test_random_dtype(), gate_dtype = test_random_dtype();
    int norm_first = test_one_in(2), in_place = test_one_in(3);
    lspan_dtype output_dtype = in_place ? input_dtype : test_random_dtype();
    test_case(
        "gated_rms_norm rows%lld groups%lld size%lld in%d gate%d out%d norm_first%d in_place%d", (long long)rows,
        (long long)groups, (long long)size, (int)input_dtype, (int)gate_dtype, (int)output_dtype, norm_first, in_place);
    test_tensor x = test_tensor_random(input_dtype, rows, 1, columns, test_random_layout(), test_one_in(3) ? 30.0f : 1.0f);
    test_tensor z = test_tensor_random(gate_dtype, rows, 1, columns, test_random_layout(), 2);
    float *weight = test_floats(columns, 1);
    double *want = test_malloc(count, sizeof *want);
    float *simple = test_malloc(count, sizeof *simple);
    lspan_gated_rms_norm n = {
        .rows = rows, .columns = columns, .groups = groups, .norm_first = norm_first, .input = test_matrix(&x),
        .gate = test_matrix(&z), .weight = test_one_in(3) ? NULL : weight, .epsilon = 1e-5f};
    lspan_reference_gated_rms_norm_f64(&n, want);
    lspan_reference_gated_rms_norm_f32(&n, simple);
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        test_tensor input = test_tensor_copy(&x), output = input;
        if (!in_place) output = test_tensor_make(output_dtype, rows, 1, columns, test_random_layout());
        n.input = test_matrix(&input);
        n.output = test_matrix_out(&output);
        CHECK_OK(lspan_gated_rms_norm_run(contexts[i].context, &n));
        float *got = test_gather(&output);
        double floor = output_floor(want, count, output_dtype, 16);
        test_check_errors("gated_rms_norm", contexts[i].name, output_dtype, got, want, simple, count, floor);
        test_check_gaps(&output);
        free(got);
        test_tensor_release(&input);
        if (!in_place) test_tensor_release(&output);
    }
    test_tensor_release(&x);
    test_tensor_release(&z);
    free(weight), free(want), free(simple);
}

int main(void)
{
    static const int64_t channels[] = {1, 2, 7, 8, 15, 16, 17, 33, 64, 100};
    for (int i = 0; i < 60; i++) {
        check_steps(test_random_int(0, 4), channels[i % 10], test_random_dtype());
    }
    check_special_steps();
    for (int i = 0; i < 60; i++) {
        check_conv(test_random_int(0, 4), test_one_in(5) ? 300 : 20, channels[i % 10], 2 + i % 3);
    }
    check_conv(1, 3000, 150, 4);
    check_conv(30, 1, 2000, 4);
    check_conv_splits();
    for (int i = 0; i < 80; i++) {
        check_gated_norm(test_random_int(0, 9), test_random_int(1, 4), channels[i % 10]);
    }
    check_gated_norm(40, 2, 2048);
    return test_finish("ssm_layers_test");
}
