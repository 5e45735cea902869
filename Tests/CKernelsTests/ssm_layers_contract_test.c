/* ssm_layers_contract_test.c: what steps, the convolution and the gated norm refuse, with which status, and that nothing is
 * written then. */
#include "support.h"

enum { rows = 5, channels = 8, width = 4, states = 2 * (width - 1) * channels };

static const lspan_context *context;
static test_buffer output, state;
static float numbers[rows * channels * width];
static int64_t offsets[3] = {0, 2, rows};
static int64_t bad_offsets[3] = {0, 3, 2};

static void expect(lspan_status got, lspan_status want, const char *what, int line)
{
    test_status(got, want, __FILE__, line, what);
    CHECK_MESSAGE(
        test_is_untouched(output.data, output.bytes) && test_is_untouched(state.data, state.bytes),
        "a refused call wrote something");
}

#define CHANGED(type, valid, run, change, status) \
    do { \
        type c = (valid); \
        change; \
        expect(run(&c), lspan_status_##status, #change, __LINE__); \
    } while (0)

/* ---- Steps ------------------------------------------------------------------------------------------- */

typedef struct step_call {
    int64_t sequences;
    const int64_t *indptr;
    int64_t channels;
    lspan_matrix dt;
    lspan_dt_rule rule;
    lspan_dt_filter filter;
    float *steps;
    int64_t row_stride;
} step_call;

static step_call valid_steps(void)
{
    return (step_call){
        .sequences = 2, .indptr = offsets, .channels = channels, .dt = {numbers, lspan_dtype_f32, channels},
        .rule = {.softplus = 1, .maximum = INFINITY}, .filter = {numbers, numbers, channels}, .steps = output.data,
        .row_stride = channels};
}

static lspan_status run_steps(step_call *c)
{
    c->rule.filter = &c->filter;
    return lspan_dt_steps(context, c->sequences, c->indptr, c->channels, c->dt, &c->rule, c->steps, c->row_stride);
}

static void test_steps(void)
{
    static float bad[2 * channels];
    test_case("dt_steps contract");
#define REFUSE(change, status) CHANGED(step_call, valid_steps(), run_steps, change, status)
    step_call v = valid_steps();
    expect(lspan_dt_steps(NULL, 2, offsets, channels, v.dt, &v.rule, v.steps, channels), lspan_status_null_pointer, "context", __LINE__);
    expect(lspan_dt_steps(context, 2, offsets, channels, v.dt, NULL, v.steps, channels), lspan_status_null_pointer, "rule", __LINE__);
    REFUSE(c.sequences = -1, bad_shape);
    REFUSE(c.channels = 0, bad_shape);
    REFUSE(c.indptr = NULL, null_pointer);
    REFUSE(c.indptr = bad_offsets, bad_index);
    REFUSE(c.dt.data = NULL, null_pointer);
    REFUSE(c.dt.dtype = (lspan_dtype)3, bad_dtype);
    REFUSE(c.dt.row_stride = -1, bad_stride);
    REFUSE(c.steps = NULL, null_pointer);
    REFUSE(c.row_stride = channels - 1, bad_stride);
    REFUSE(c.row_stride = INT64_MAX / 2, overflow);
    REFUSE(c.rule.bias = (const float *)(const void *)((const char *)numbers + 2), bad_alignment);
    REFUSE(c.rule.softplus = 2, bad_value);
    REFUSE(c.rule.minimum = -1, bad_value);
    REFUSE(c.rule.minimum = NAN, bad_value);
    REFUSE(c.rule.minimum = INFINITY, bad_value);
    REFUSE(c.rule.maximum = NAN, bad_value);
    REFUSE(c.rule.minimum = 2; c.rule.maximum = 1, bad_value);
    REFUSE(c.filter.sequence_stride = channels - 1, bad_stride);
    REFUSE(c.filter.sequence_stride = INT64_MAX / 2, overflow);
    /* sequences without tokens, and more channels than can be in memory */
    static const int64_t none[] = {0, 0, 0};
    REFUSE((c.indptr = none, c.channels = INT64_MAX / 4, c.filter.sequence_stride = 0), overflow);
    bad[2 * channels - 1] = -1;
    REFUSE(c.filter.scales = bad, bad_value);
    bad[2 * channels - 1] = NAN;
    REFUSE(c.filter.scales = bad, bad_value);
    REFUSE(c.filter.thresholds = bad, bad_value);
#undef REFUSE
}

/* ---- Causal convolution ------------------------------------------------------------------------------ */

static lspan_causal_conv valid_conv(void)
{
    return (lspan_causal_conv){
        .sequences = 2, .indptr = offsets, .channels = channels, .width = width,
        .input = {numbers, lspan_dtype_f32, channels}, .weight = numbers, .bias = numbers, .silu = 1,
        .initial_state = numbers, .final_state = state.data, .state_stride = states / 2,
        .output = {output.data, lspan_dtype_f32, channels}};
}

static lspan_status run_conv(const lspan_causal_conv *c)
{
    return lspan_causal_conv_run(context, c);
}

static void test_conv(void)
{
    test_case("causal_conv contract");
#define REFUSE(change, status) CHANGED(lspan_causal_conv, valid_conv(), run_conv, change, status)
    lspan_causal_conv v = valid_conv();
    expect(lspan_causal_conv_run(NULL, &v), lspan_status_null_pointer, "context", __LINE__);
    expect(lspan_causal_conv_run(context, NULL), lspan_status_null_pointer, "call", __LINE__);
    REFUSE(c.sequences = -1, bad_shape);
    REFUSE(c.channels = 0, bad_shape);
    REFUSE(c.width = 1, bad_shape);
    REFUSE(c.width = 5, bad_shape);
    REFUSE(c.indptr = NULL, null_pointer);
    REFUSE(c.indptr = bad_offsets, bad_index);
    REFUSE(c.input.data = NULL, null_pointer);
    REFUSE(c.input.dtype = (lspan_dtype)3, bad_dtype);
    REFUSE(c.weight = NULL, null_pointer);
    REFUSE(c.channels = INT64_MAX / 2, overflow);
    REFUSE(c.bias = (const float *)(const void *)((const char *)numbers + 1), bad_alignment);
    REFUSE(c.silu = -1, bad_value);
    REFUSE(c.state_stride = states / 2 - 1, bad_stride);
    REFUSE(c.state_stride = INT64_MAX / 2, overflow);
    REFUSE(c.output.data = NULL, null_pointer);
    REFUSE(c.output.row_stride = channels - 1, bad_stride);
#undef REFUSE
}

/* ---- Gated RMSNorm ----------------------------------------------------------------------------------- */

static lspan_gated_rms_norm valid_norm(void)
{
    return (lspan_gated_rms_norm){
        .rows = rows, .columns = channels, .groups = 2, .input = {numbers, lspan_dtype_f32, channels},
        .gate = {numbers, lspan_dtype_f32, channels}, .weight = numbers, .epsilon = 1e-5f,
        .output = {output.data, lspan_dtype_f32, channels}};
}

static lspan_status run_norm(const lspan_gated_rms_norm *n)
{
    return lspan_gated_rms_norm_run(context, n);
}

static void test_norm(void)
{
    test_case("gated_rms_norm contract");
#define REFUSE(change, status) CHANGED(lspan_gated_rms_norm, valid_norm(), run_norm, change, status)
    lspan_gated_rms_norm v = valid_norm();
    expect(lspan_gated_rms_norm_run(NULL, &v), lspan_status_null_pointer, "context", __LINE__);
    expect(lspan_gated_rms_norm_run(context, NULL), lspan_status_null_pointer, "call", __LINE__);
    REFUSE(c.rows = -1, bad_shape);
    REFUSE(c.columns = 0, bad_shape);
    REFUSE(c.groups = 0, bad_shape);
    REFUSE(c.groups = 3, bad_shape);
    REFUSE(c.input.data = NULL, null_pointer);
    REFUSE(c.gate.data = NULL, null_pointer);
    REFUSE(c.gate.row_stride = -1, bad_stride);
    REFUSE(c.gate.dtype = (lspan_dtype)7, bad_dtype);
    REFUSE(c.weight = (const float *)(const void *)((const char *)numbers + 1), bad_alignment);
    REFUSE(c.norm_first = 2, bad_value);
    REFUSE(c.epsilon = -1, bad_value);
    REFUSE(c.epsilon = NAN, bad_value);
    REFUSE(c.output.row_stride = 0, bad_stride);
    REFUSE(c.rows = INT64_MAX / 4; c.input.row_stride = 0; c.gate.row_stride = 0, overflow);
#undef REFUSE
}

int main(void)
{
    size_t count;
    context = test_contexts(&count)[0].context;
    output = test_allocate(rows * channels * sizeof(float), sizeof(float));
    state = test_allocate(states * sizeof(float), sizeof(float));
    test_steps();
    test_conv();
    test_norm();

    test_case("valid calls");
    step_call s = valid_steps();
    lspan_causal_conv c = valid_conv();
    lspan_gated_rms_norm n = valid_norm();
    CHECK_OK(run_steps(&s));
    CHECK_OK(run_conv(&c));
    CHECK_OK(run_norm(&n));
    test_release(&output);
    test_release(&state);
    return test_finish("ssm_layers_contract_test");
}
