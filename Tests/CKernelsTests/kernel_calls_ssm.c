/* kernel_calls_ssm.c: calls of ssm.h, see kernel_calls.h. */
#include "kernel_calls.h"
#include "selective_support.h"
#include "ssd_support.h"

/* ---- Mamba ----------------------------------------------------------------------------------------------- */

KERNEL_WITH_WORKSPACE(selective_scan, lspan_selective_scan_run, lspan_selective_scan)
KERNEL_WITHOUT_WORKSPACE(selective_update, lspan_selective_update, lspan_selective_scan)

static void add_selective(kernel_size size, kernel_run run, const char *name, const scan_spec *spec)
{
    kernel_call *call = kernel_call_add(size, run, NULL, "%s", name);
    scan_case *c = test_malloc(1, sizeof *c);
    *c = make_scan(spec);
    lspan_selective_scan *s = &c->call;
    if (spec->filtered) s->rule.filter = &c->filter;
    /* there are gaps between the states of sequences */
    int64_t states = spec->sequences * s->state_stride;
    s->final_state = test_floats(states, 1);
    kernel_call_in_place(call, s->final_state, (size_t)states * sizeof(float));
    int64_t elements = c->rows * s->channels;
    s->output = (lspan_matrix_out){
        kernel_call_output(call, elements, lspan_dtype_size(spec->output_dtype)), spec->output_dtype, s->channels};
    s->kept = kernel_call_output(call, spec->sequences * s->channels, sizeof(int64_t));
    call->arguments = s;
}

/* ---- Mamba-2 --------------------------------------------------------------------------------------------- */

KERNEL_WITH_WORKSPACE(ssd_scan, lspan_ssd_scan_run, lspan_ssd_scan)
KERNEL_WITHOUT_WORKSPACE(ssd_update, lspan_ssd_update, lspan_ssd_scan)

static void add_ssd(
    kernel_size size, kernel_run run, const char *name, const ssd_spec *spec, lspan_ssd_form form, int keeps_state)
{
    kernel_call *call = kernel_call_add(size, run, NULL, "%s", name);
    ssd_case *c = test_malloc(1, sizeof *c);
    *c = ssd_make(spec);
    ssd_set_filter(c);
    lspan_ssd_scan *s = &c->call;
    int64_t width = spec->heads * spec->head_dim;
    s->form = form;
    if (keeps_state) s->final_state = kernel_call_output(call, ssd_states(spec), sizeof(float));
    s->output = (lspan_heads_out){
        kernel_call_output(call, c->tokens * width, lspan_dtype_size(spec->y)), spec->y, width, spec->head_dim};
    s->kept = kernel_call_output(call, spec->sequences * spec->heads, sizeof(int64_t));
    call->arguments = s;
}

static void add_ssd_scans(void)
{
    const lspan_dtype bf16 = lspan_dtype_bf16;
    const ssd_spec many = {.sequences = 2, .longest = 90, .heads = 6, .groups = 2, .head_dim = 24, .state_size = 40,
        .skip = 1, .gated = 1, .initial = 1, .filtered = 1};
    const ssd_spec one = {.sequences = 1, .longest = 150, .heads = 1, .groups = 1, .head_dim = 128, .state_size = 32,
        .skip = 1};
    ssd_spec narrow = many, update = many;
    narrow.x = narrow.bc = bf16;
    update.longest = 3;
    update.heads = 12;
    const lspan_ssd_form chunked = lspan_ssd_form_chunked, recurrent = lspan_ssd_form_recurrent;
    add_ssd(size_ssd_scan, run_ssd_scan, "ssd_scan in chunks", &many, chunked, 1);
    add_ssd(size_ssd_scan, run_ssd_scan, "ssd_scan in chunks of one head", &one, chunked, 0);
    add_ssd(size_ssd_scan, run_ssd_scan, "ssd_scan in chunks of bf16", &narrow, chunked, 1);
    add_ssd(size_ssd_scan, run_ssd_scan, "ssd_scan by tokens", &many, recurrent, 1);
    add_ssd(size_ssd_scan, run_ssd_scan, "ssd_scan by tokens without final states", &many, recurrent, 0);
    add_ssd(NULL, run_ssd_update, "ssd_update", &update, recurrent, 1);
}

/* ---- Layers ---------------------------------------------------------------------------------------------- */

KERNEL_WITHOUT_WORKSPACE(causal_conv, lspan_causal_conv_run, lspan_causal_conv)
KERNEL_WITHOUT_WORKSPACE(gated_rms_norm, lspan_gated_rms_norm_run, lspan_gated_rms_norm)

typedef struct step_arguments {
    int64_t sequences;
    const int64_t *indptr;
    int64_t channels;
    lspan_matrix dt;
    lspan_dt_rule rule;
    float *steps;
} step_arguments;

KERNEL_WITH_PARAMETERS(
    dt_steps, step_arguments, call->sequences, call->indptr, call->channels, call->dt, &call->rule, call->steps,
    call->channels)

static void add_conv(int64_t first, int64_t rows, int64_t channels, int64_t width)
{
    kernel_call *call = kernel_call_add(
        NULL, run_causal_conv, NULL, "causal_conv of %lld tokens and %lld channels", (long long)rows, (long long)channels);
    test_tensor x = test_tensor_random(lspan_dtype_f16, rows, 1, channels, test_layout_token_major, 1);
    int64_t *indptr = test_malloc(3, sizeof *indptr), states = (width - 1) * channels;
    indptr[1] = first;
    indptr[2] = rows;
    float *state = test_floats(2 * states, 1);
    kernel_call_in_place(call, state, (size_t)(2 * states) * sizeof *state);
    call->arguments = KERNEL_KEEP(lspan_causal_conv, {
        .sequences = 2, .indptr = indptr, .channels = channels, .width = width, .input = test_matrix(&x),
        .weight = test_floats(channels * width, 1), .bias = test_floats(channels, 1), .silu = 1, .initial_state = state,
        .final_state = state, .state_stride = states,
        .output = {kernel_call_output(call, rows * channels, sizeof(float)), lspan_dtype_f32, channels}});
}

static void add_layers(void)
{
    enum { rows = 50, columns = 480, channels = 400 };
    kernel_call *call = kernel_call_add(NULL, run_gated_rms_norm, NULL, "gated_rms_norm");
    test_tensor x = test_tensor_random(lspan_dtype_f32, rows, 1, columns, test_layout_token_major, 1);
    test_tensor z = test_tensor_random(lspan_dtype_bf16, rows, 1, columns, test_layout_token_major, 1);
    call->arguments = KERNEL_KEEP(lspan_gated_rms_norm, {
        .rows = rows, .columns = columns, .groups = 4, .input = test_matrix(&x), .gate = test_matrix(&z),
        .weight = test_floats(columns, 1), .epsilon = 1e-5f,
        .output = {kernel_call_output(call, rows * columns, sizeof(float)), lspan_dtype_f32, columns}});

    call = kernel_call_add(NULL, run_dt_steps, NULL, "dt_steps");
    test_tensor dt = test_tensor_random(lspan_dtype_bf16, rows, 1, channels, test_layout_token_major, 1);
    int64_t *indptr = test_malloc(3, sizeof *indptr);
    indptr[1] = 13;
    indptr[2] = rows;
    call->arguments = KERNEL_KEEP(step_arguments, {
        2, indptr, channels, test_matrix(&dt), {test_floats(channels, 1), 1, 0, INFINITY, NULL},
        kernel_call_output(call, rows * channels, sizeof(float))});
}

void kernel_calls_ssm(void)
{
    const scan_spec scan = {.sequences = 3, .longest = 70, .groups = 2, .group_channels = 72, .state_size = 16, .biased = 1,
        .softplus = 1, .filtered = 3, .per_sequence = 1, .has_d = 1, .gate = 1, .initial = 1};
    scan_spec few = scan, update = scan;
    few.groups = 1;
    few.sequences = 1;
    few.input_dtype = few.b_dtype = few.output_dtype = lspan_dtype_bf16;
    update.longest = 3;
    update.group_channels = 500;
    add_selective(size_selective_scan, run_selective_scan, "selective_scan of three sequences", &scan);
    add_selective(size_selective_scan, run_selective_scan, "selective_scan of one sequence", &few);
    add_selective(NULL, run_selective_update, "selective_update", &update);
    add_ssd_scans();
    add_conv(90, 230, 130, 4);
    add_conv(2, 5, 4200, 3);
    add_layers();
}
