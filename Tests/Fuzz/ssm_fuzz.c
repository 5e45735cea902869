/* ssm_fuzz.c: targets of ssm.h. */
#include "fuzz.h"
#include <math.h>

/* ---- The step ------------------------------------------------------------------------------------------ */

static void draw_rule(fuzz *f, lspan_dt_rule *rule, lspan_dt_filter *filter, int64_t sequences, int64_t channels)
{
    *rule = (lspan_dt_rule){.softplus = fuzz_flag(f), .minimum = fuzz_float(f, fuzz_below(f, 2) ? 0.0f : 0.001f),
        .maximum = fuzz_float(f, fuzz_below(f, 2) ? INFINITY : 0.5f)};
    fuzz_optional(f, &rule->bias, fuzz_count(channels, 1, 1, 4), fuzz_f32, 0);
    if (fuzz_below(f, 2)) return;
    rule->filter = filter;
    *filter = (lspan_dt_filter){.sequence_stride = fuzz_below(f, 2) ? 0 : fuzz_stride(f, channels)};
    long double bytes = fuzz_span(sequences, filter->sequence_stride, 1, 0, channels, 4);
    fuzz_optional(f, &filter->scales, bytes, fuzz_scale, 0);
    fuzz_optional(f, &filter->thresholds, bytes, fuzz_f32, 0);
}

static void fuzz_dt_steps(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    int64_t sequences = fuzz_dim(f, 0, 4), channels = fuzz_dim(f, 1, 70), tokens;
    const int64_t *indptr = fuzz_indptr(f, sequences, 6, &tokens);
    lspan_dt_rule rule;
    lspan_dt_filter filter;
    draw_rule(f, &rule, &filter, sequences, channels);
    lspan_matrix dt = {.dtype = fuzz_dtype(f)};
    lspan_matrix_out steps = {.dtype = lspan_dtype_f32};
    fuzz_matrix_input(f, &dt, tokens, channels);
    fuzz_matrix_output(f, &steps, tokens, channels);
    fuzz_place(f);
    fuzz_finish(f, context, lspan_dt_steps(context, sequences, indptr, channels, dt, fuzz_wild(f, 64) ? NULL : &rule,
        steps.data, steps.row_stride));
}

/* ---- States -------------------------------------------------------------------------------------------- */

/* Of `elements` a sequence. In one call of three both pointers are to be the same: returns whether. */
static int draw_states(fuzz *f, const float **initial, float **final, int64_t *stride, int64_t sequences,
    int64_t elements)
{
    *stride = fuzz_stride(f, elements);
    long double bytes = fuzz_span(sequences, *stride, 1, 0, elements, 4);
    *initial = NULL;
    *final = NULL;
    if (fuzz_below(f, 8)) fuzz_output(f, final, bytes, fuzz_f32);
    if (fuzz_below(f, 3) == 0) return 1;
    if (fuzz_below(f, 2)) fuzz_input(f, initial, bytes, fuzz_f32);
    return 0;
}

static void draw_kept(fuzz *f, int64_t **kept, int64_t sequences, int64_t channels)
{
    *kept = NULL;
    if (fuzz_below(f, 2)) fuzz_operand_at(f, kept, fuzz_count(sequences, channels, 1, 8), 8, fuzz_bytes, 1);
}

/* ---- Mamba --------------------------------------------------------------------------------------------- */

static void fuzz_selective(fuzz *f, int is_update)
{
    const lspan_context *context = fuzz_context(f);
    lspan_selective_scan s = {.sequences = fuzz_dim(f, 0, 4), .state_size = fuzz_dim(f, 1, 20)};
    int64_t tokens, group = 1 + (int64_t)fuzz_below(f, 30);
    s.indptr = fuzz_indptr(f, s.sequences, is_update ? 8 + fuzz_wild(f, 8) : fuzz_below(f, 2) ? 70 : 6, &tokens);
    s.groups = fuzz_dim(f, 1, 3);
    s.channels = s.groups >= 1 && s.groups <= 3 && !fuzz_wild(f, 12) ? s.groups * group : fuzz_dim(f, 1, 70);
    int64_t states = fuzz_product(s.channels, s.state_size);
    fuzz_work(f, tokens, states, 1, 1);
    fuzz_work(f, s.sequences, states, 1, 1);
    lspan_dt_filter filter;
    draw_rule(f, &s.rule, &filter, s.sequences, s.channels);
    s.input.dtype = fuzz_dtype(f);
    s.dt.dtype = fuzz_dtype(f);
    s.b.dtype = fuzz_dtype(f);
    s.c.dtype = fuzz_dtype(f);
    s.output.dtype = fuzz_dtype(f);
    fuzz_matrix_input(f, &s.input, tokens, s.channels);
    fuzz_matrix_input(f, &s.dt, tokens, s.channels);
    fuzz_input(f, &s.a, fuzz_count(s.channels, s.state_size, 1, 4), fuzz_decay);
    fuzz_heads_input(f, &s.b, tokens, s.groups, s.state_size);
    fuzz_heads_input(f, &s.c, tokens, s.groups, s.state_size);
    fuzz_optional(f, &s.d, fuzz_count(s.channels, 1, 1, 4), fuzz_f32, 0);
    fuzz_matrix_output(f, &s.output, tokens, s.channels);
    uint32_t gate = fuzz_below(f, 3);
    s.gate.dtype = gate == 1 || fuzz_wild(f, 8) ? fuzz_dtype(f) : s.output.dtype;
    if (gate == 1) fuzz_matrix_input(f, &s.gate, tokens, s.channels);
    int in_place = draw_states(f, &s.initial_state, &s.final_state, &s.state_stride, s.sequences, states);
    draw_kept(f, &s.kept, s.sequences, s.channels);
    fuzz_place(f);
    if (gate == 2) s.gate = (lspan_matrix){s.output.data, s.gate.dtype, s.output.row_stride};
    if (in_place) s.initial_state = s.final_state;
    const lspan_selective_scan *call = fuzz_wild(f, 64) ? NULL : &s;
    if (is_update) {
        fuzz_finish(f, context, lspan_selective_update(context, call));
        return;
    }
    FUZZ_RUN(f, context, call, lspan_selective_scan_workspace_size, lspan_selective_scan_run);
}

static void fuzz_selective_scan(fuzz *f)
{
    fuzz_selective(f, 0);
}

static void fuzz_selective_update(fuzz *f)
{
    fuzz_selective(f, 1);
}

/* ---- Mamba-2 ------------------------------------------------------------------------------------------- */

static void check_form(fuzz *f, const lspan_context *context, const lspan_ssd_scan *scan)
{
    lspan_ssd_form form = (lspan_ssd_form)-1;
    lspan_status status = lspan_ssd_scan_form(context, scan, fuzz_wild(f, 64) ? NULL : &form);
    if (status != lspan_status_ok ? (int)form != -1
                                  : form != lspan_ssd_form_recurrent && form != lspan_ssd_form_chunked) {
        fuzz_fail("a form that is none, or one of a refused query");
    }
}

static void fuzz_ssd(fuzz *f, int is_update)
{
    static const int32_t forms[] = {lspan_ssd_form_automatic, lspan_ssd_form_recurrent, lspan_ssd_form_chunked};
    const lspan_context *context = fuzz_context(f);
    lspan_ssd_scan s = {.sequences = fuzz_dim(f, 0, 3), .head_dim = fuzz_dim(f, 1, 40),
        .state_size = fuzz_dim(f, 1, 40), .form = (lspan_ssd_form)fuzz_code(f, forms, 3)};
    int64_t tokens, group = 1 + (int64_t)fuzz_below(f, 3);
    s.indptr = fuzz_indptr(f, s.sequences, is_update ? 8 + fuzz_wild(f, 8) : fuzz_below(f, 2) ? 140 : 10, &tokens);
    s.groups = fuzz_dim(f, 1, 2);
    s.heads = s.groups >= 1 && s.groups <= 2 && !fuzz_wild(f, 12) ? s.groups * group : fuzz_dim(f, 1, 6);
    int64_t states = fuzz_product(s.heads, fuzz_product(s.head_dim, s.state_size));
    fuzz_work(f, tokens, states, 1, 1);
    fuzz_work(f, s.sequences, states, 1, 1);
    lspan_dt_filter filter;
    draw_rule(f, &s.rule, &filter, s.sequences, s.heads);
    s.input.dtype = fuzz_dtype(f);
    s.dt.dtype = fuzz_dtype(f);
    s.b.dtype = fuzz_below(f, 2) ? s.input.dtype : fuzz_dtype(f);
    s.c.dtype = fuzz_below(f, 2) ? s.input.dtype : fuzz_dtype(f);
    s.output.dtype = fuzz_dtype(f);
    fuzz_heads_input(f, &s.input, tokens, s.heads, s.head_dim);
    fuzz_matrix_input(f, &s.dt, tokens, s.heads);
    fuzz_input(f, &s.a, fuzz_count(s.heads, 1, 1, 4), fuzz_decay);
    fuzz_heads_input(f, &s.b, tokens, s.groups, s.state_size);
    fuzz_heads_input(f, &s.c, tokens, s.groups, s.state_size);
    fuzz_optional(f, &s.d, fuzz_count(s.heads, 1, 1, 4), fuzz_f32, 0);
    fuzz_heads_output(f, &s.output, tokens, s.heads, s.head_dim);
    uint32_t gate = fuzz_below(f, 3);
    s.gate.dtype = gate == 1 || fuzz_wild(f, 8) ? fuzz_dtype(f) : s.output.dtype;
    if (gate == 1) fuzz_heads_input(f, &s.gate, tokens, s.heads, s.head_dim);
    int in_place = draw_states(f, &s.initial_state, &s.final_state, &s.state_stride, s.sequences, states);
    draw_kept(f, &s.kept, s.sequences, s.heads);
    fuzz_place(f);
    if (gate == 2) {
        s.gate = (lspan_heads){s.output.data, s.gate.dtype, s.output.token_stride, s.output.head_stride};
    }
    if (in_place) s.initial_state = s.final_state;
    const lspan_ssd_scan *call = fuzz_wild(f, 64) ? NULL : &s;
    check_form(f, context, call);
    if (is_update) {
        fuzz_finish(f, context, lspan_ssd_update(context, call));
        return;
    }
    FUZZ_RUN(f, context, call, lspan_ssd_scan_workspace_size, lspan_ssd_scan_run);
}

static void fuzz_ssd_scan(fuzz *f)
{
    fuzz_ssd(f, 0);
}

static void fuzz_ssd_update(fuzz *f)
{
    fuzz_ssd(f, 1);
}

/* ---- Layers around scans ------------------------------------------------------------------------------- */

static void fuzz_causal_conv(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    lspan_causal_conv c = {.sequences = fuzz_dim(f, 0, 4), .channels = fuzz_dim(f, 1, 70), .width = fuzz_dim(f, 2, 4),
        .silu = fuzz_flag(f)};
    int64_t tokens;
    c.indptr = fuzz_indptr(f, c.sequences, 9, &tokens);
    c.input.dtype = fuzz_dtype(f);
    c.output.dtype = fuzz_dtype(f);
    fuzz_matrix_input(f, &c.input, tokens, c.channels);
    fuzz_input(f, &c.weight, fuzz_count(c.channels, c.width, 1, 4), fuzz_f32);
    fuzz_optional(f, &c.bias, fuzz_count(c.channels, 1, 1, 4), fuzz_f32, 0);
    int64_t states = c.width > INT64_MIN ? fuzz_product(c.width - 1, c.channels) : -1;
    fuzz_work(f, c.sequences, states, 1, 1);
    int in_place = draw_states(f, &c.initial_state, &c.final_state, &c.state_stride, c.sequences, states);
    fuzz_matrix_output(f, &c.output, tokens, c.channels);
    fuzz_place(f);
    if (in_place) c.initial_state = c.final_state;
    fuzz_finish(f, context, lspan_causal_conv_run(context, fuzz_wild(f, 64) ? NULL : &c));
}

static void fuzz_gated_rms_norm(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    lspan_gated_rms_norm n = {.rows = fuzz_dim(f, 0, 12), .groups = fuzz_dim(f, 1, 4), .norm_first = fuzz_flag(f),
        .epsilon = fuzz_float(f, 1e-5f)};
    int64_t group = 1 + (int64_t)fuzz_below(f, 40);
    n.columns = n.groups >= 1 && n.groups <= 4 && !fuzz_wild(f, 12) ? n.groups * group : fuzz_dim(f, 1, 100);
    n.input.dtype = fuzz_dtype(f);
    n.gate.dtype = fuzz_dtype(f);
    n.output.dtype = fuzz_dtype(f);
    uint32_t in_place = fuzz_below(f, 3);
    if (in_place != 1) fuzz_matrix_input(f, &n.input, n.rows, n.columns);
    if (in_place != 2) fuzz_matrix_input(f, &n.gate, n.rows, n.columns);
    fuzz_optional(f, &n.weight, fuzz_count(n.columns, 1, 1, 4), fuzz_f32, 0);
    fuzz_matrix_output(f, &n.output, n.rows, n.columns);
    fuzz_place(f);
    lspan_matrix same = {n.output.data, n.output.dtype, n.output.row_stride};
    if (in_place == 1) n.input = same;
    if (in_place == 2) n.gate = same;
    fuzz_finish(f, context, lspan_gated_rms_norm_run(context, fuzz_wild(f, 64) ? NULL : &n));
}

const fuzz_target fuzz_ssm_targets[] = {
    {"dt_steps", fuzz_dt_steps, "lspan_dt_steps"},
    {"selective_scan", fuzz_selective_scan, "lspan_selective_scan_workspace_size lspan_selective_scan_run"},
    {"selective_update", fuzz_selective_update, "lspan_selective_update"},
    {"ssd_scan", fuzz_ssd_scan, "lspan_ssd_scan_form lspan_ssd_scan_workspace_size lspan_ssd_scan_run"},
    {"ssd_update", fuzz_ssd_update, "lspan_ssd_update"},
    {"causal_conv", fuzz_causal_conv, "lspan_causal_conv_run"},
    {"gated_rms_norm", fuzz_gated_rms_norm, "lspan_gated_rms_norm_run"},
    {NULL, NULL, NULL}};
