/* ssm_layers.c: entry points of ssm.h for steps, the causal convolution and the gated norm. */
#include "integers.h"
#include "profile_internal.h"
#include "ssm_checks.h"
#include "tuning.h"
#include <math.h>

/* ---- Steps ------------------------------------------------------------------------------------------- */

static void step_rows(const lspan_context *context, const void *argument, int64_t first, int64_t end)
{
    const lspan_dt_call *call = argument;
    for (int64_t b = 0; b < call->sequences; b++) {
        int64_t begin = lspan_max64(first, call->indptr[b]), stop = lspan_min64(end, call->indptr[b + 1]);
        if (begin < stop) context->kernels->dt_steps(call, b, begin, stop);
    }
}

lspan_status lspan_dt_steps(
    const lspan_context *context, int64_t sequences, const int64_t *indptr, int64_t channels, lspan_matrix dt,
    const lspan_dt_rule *rule, float *steps, int64_t row_stride)
{
    int64_t elements;
    if (!context || !rule) return lspan_status_null_pointer;
    if (sequences < 0 || channels < 1) return lspan_status_bad_shape;
    LSPAN_CHECK(lspan_check_indptr(indptr, sequences));
    int64_t rows = indptr[sequences];
    LSPAN_CHECK(lspan_multiply(rows, channels, &elements));
    LSPAN_CHECK(lspan_check_matrix(dt, rows, channels));
    LSPAN_CHECK(lspan_check_dt_rule(rule, sequences, channels));
    lspan_matrix_out out = {steps, lspan_dtype_f32, row_stride};
    LSPAN_CHECK(lspan_check_matrix_out(out, rows, channels));
    lspan_dt_call call = {sequences, indptr, channels, dt, rule, steps, row_stride};
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_run_rows(context, rows, elements, step_rows, &call);
    if (lspan_profile_wants(began, status)) {
        lspan_profile_record(context, began, lspan_profile_kernel_dt_steps, (int)dt.dtype, lspan_dt_steps_cost(&call));
    }
    return status;
}

/* ---- Causal convolution ------------------------------------------------------------------------------ */

/* Tasks are (sequence, run of tokens, run of channels): rows are read in the order they lie in where there are enough
 * tokens, and one token of a sequence is split by channels. Tokens before a run are read again from the input, so that
 * runs do not depend on each other. */
typedef struct conv_plan {
    const lspan_context *context;
    const lspan_causal_conv *call;
    int64_t tokens; /* of a run */
    int64_t runs;
    int64_t strip; /* channels */
    int64_t strips;
} conv_plan;

static void run_conv(void *argument, size_t index, size_t worker)
{
    const conv_plan *plan = argument;
    const lspan_causal_conv *c = plan->call;
    (void)worker;
    int64_t strip = (int64_t)index % plan->strips, run = (int64_t)index / plan->strips;
    int64_t first = run * plan->tokens, end = first + plan->tokens, channel = strip * plan->strip;
    for (int64_t b = 0; b < c->sequences; b++) {
        int64_t begin = c->indptr[b];
        lspan_conv_task task = {
            .sequence = b,
            .begin = begin,
            .channel = channel,
            .channel_end = lspan_min64(channel + plan->strip, c->channels)};
        task.first = lspan_max64(first, begin);
        task.end = lspan_min64(end, c->indptr[b + 1]);
        if (task.first < task.end) plan->context->kernels->causal_conv(c, task);
    }
}

static void run_conv_states(const lspan_context *context, const void *argument, int64_t first, int64_t end)
{
    for (int64_t b = first; b < end; b++) context->kernels->causal_conv_state(argument, b);
}

static lspan_status check_conv(const lspan_context *context, const lspan_causal_conv *c)
{
    int64_t taps, elements;
    if (!context || !c) return lspan_status_null_pointer;
    if (c->sequences < 0 || c->channels < 1 || c->width < 2 || c->width > 4) return lspan_status_bad_shape;
    LSPAN_CHECK(lspan_check_indptr(c->indptr, c->sequences));
    int64_t rows = c->indptr[c->sequences];
    LSPAN_CHECK(lspan_multiply(rows, c->channels, &elements));
    LSPAN_CHECK(lspan_multiply(c->channels, c->width, &taps));
    LSPAN_CHECK(lspan_check_matrix(c->input, rows, c->channels));
    LSPAN_CHECK(lspan_check_floats(c->weight, taps));
    LSPAN_CHECK(lspan_check_aligned(c->bias, sizeof(float)));
    if (c->silu != 0 && c->silu != 1) return lspan_status_bad_value;
    LSPAN_CHECK(lspan_check_states(
        c->initial_state, c->final_state, c->state_stride, c->sequences, (c->width - 1) * c->channels));
    return lspan_check_matrix_out(c->output, rows, c->channels);
}

lspan_status lspan_causal_conv_run(const lspan_context *context, const lspan_causal_conv *c)
{
    LSPAN_CHECK(check_conv(context, c));
    int64_t rows = c->indptr[c->sequences], workers = (int64_t)context->split;
    int serial = rows * c->channels < LSPAN_SERIAL_ELEMENTS;
    conv_plan plan = {.context = context, .call = c, .tokens = LSPAN_CONV_TOKENS, .strip = c->channels, .strips = 1};
    if (!serial && rows < LSPAN_CONV_TOKENS * workers) {
        plan.strip = lspan_max64(LSPAN_CONV_LEAST_CHANNELS, (c->channels + workers - 1) / workers);
        plan.strips = (c->channels + plan.strip - 1) / plan.strip;
    }
    if (serial) plan.tokens = lspan_max64(rows, 1);
    plan.runs = (rows + plan.tokens - 1) / plan.tokens;
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_status_ok;
    if (plan.runs > 0) status = lspan_run_tasks(context, (size_t)(plan.runs * plan.strips), run_conv, &plan);
    /* after all runs, which read the initial state */
    if (status == lspan_status_ok && c->final_state) {
        int64_t floats = c->sequences * (c->width - 1) * c->channels;
        status = lspan_run_rows(context, c->sequences, floats, run_conv_states, c);
    }
    if (lspan_profile_wants(began, status)) {
        lspan_cost cost = lspan_causal_conv_cost(c);
        lspan_profile_record(context, began, lspan_profile_kernel_causal_conv, (int)c->input.dtype, cost);
    }
    return status;
}

/* ---- Gated RMSNorm ----------------------------------------------------------------------------------- */

static void norm_groups(const lspan_context *context, const void *argument, int64_t first, int64_t end)
{
    context->kernels->gated_rms_norm(argument, first, end);
}

lspan_status lspan_gated_rms_norm_run(const lspan_context *context, const lspan_gated_rms_norm *n)
{
    int64_t elements;
    if (!context || !n) return lspan_status_null_pointer;
    if (n->rows < 0 || n->columns < 1 || n->groups < 1 || n->columns % n->groups != 0) return lspan_status_bad_shape;
    LSPAN_CHECK(lspan_multiply(n->rows, n->columns, &elements));
    LSPAN_CHECK(lspan_check_matrix(n->input, n->rows, n->columns));
    LSPAN_CHECK(lspan_check_matrix(n->gate, n->rows, n->columns));
    LSPAN_CHECK(lspan_check_matrix_out(n->output, n->rows, n->columns));
    LSPAN_CHECK(lspan_check_aligned(n->weight, sizeof(float)));
    if (n->norm_first != 0 && n->norm_first != 1) return lspan_status_bad_value;
    if (!isfinite(n->epsilon) || n->epsilon < 0) return lspan_status_bad_value;
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_run_rows(context, n->rows * n->groups, elements, norm_groups, n);
    if (lspan_profile_wants(began, status)) {
        lspan_cost cost = lspan_gated_rms_norm_cost(n);
        lspan_profile_record(context, began, lspan_profile_kernel_gated_rms_norm, (int)n->input.dtype, cost);
    }
    return status;
}
