/* selective_scan.c: entry points of ssm.h for the scan of Mamba and its update. */
#include "integers.h"
#include "kernels/scan_scratch.h"
#include "profile_internal.h"
#include "ssm_checks.h"

/* ---- Checks ------------------------------------------------------------------------------------------------ */

static lspan_status check_shapes(const lspan_context *context, const lspan_selective_scan *s)
{
    int64_t elements;
    if (!context || !s) return lspan_status_null_pointer;
    if (s->sequences < 0 || s->channels < 1 || s->state_size < 1 || s->state_size > LSPAN_SSM_MAX_STATE) {
        return lspan_status_bad_shape;
    }
    if (s->groups < 1 || s->channels % s->groups != 0) return lspan_status_bad_shape;
    LSPAN_CHECK(lspan_check_indptr(s->indptr, s->sequences));
    LSPAN_CHECK(lspan_multiply(s->channels, s->state_size, &elements));
    LSPAN_CHECK(lspan_multiply(s->sequences, s->channels, &elements));
    return lspan_multiply(s->indptr[s->sequences], s->channels, &elements);
}

/* All but what a scan asks of A's values. */
static lspan_status check_scan(const lspan_context *context, const lspan_selective_scan *s)
{
    LSPAN_CHECK(check_shapes(context, s));
    int64_t rows = s->indptr[s->sequences], states = s->channels * s->state_size;
    LSPAN_CHECK(lspan_check_matrix(s->input, rows, s->channels));
    LSPAN_CHECK(lspan_check_matrix(s->dt, rows, s->channels));
    LSPAN_CHECK(lspan_check_dt_rule(&s->rule, s->sequences, s->channels));
    LSPAN_CHECK(lspan_check_floats(s->a, states));
    LSPAN_CHECK(lspan_check_heads(s->b, rows, s->groups, s->state_size));
    LSPAN_CHECK(lspan_check_heads(s->c, rows, s->groups, s->state_size));
    LSPAN_CHECK(lspan_check_aligned(s->d, sizeof(float)));
    LSPAN_CHECK(lspan_check_states(s->initial_state, s->final_state, s->state_stride, s->sequences, states));
    LSPAN_CHECK(lspan_check_matrix_out(s->output, rows, s->channels));
    LSPAN_CHECK(lspan_check_aligned(s->kept, sizeof *s->kept));
    if (!s->gate.data) return lspan_status_ok;
    LSPAN_CHECK(lspan_check_matrix(s->gate, rows, s->channels));
    if (s->gate.data != s->output.data || rows == 0) return lspan_status_ok;
    if (s->gate.dtype != s->output.dtype) return lspan_status_bad_dtype;
    return s->gate.row_stride == s->output.row_stride ? lspan_status_ok : lspan_status_bad_stride;
}

static void record(
    const lspan_context *context, uint64_t began, lspan_status status, lspan_profile_kernel kernel,
    const lspan_selective_scan *s)
{
    if (!lspan_profile_wants(began, status)) return;
    lspan_profile_record(context, began, kernel, (int)s->input.dtype, lspan_selective_scan_cost(s));
}

/* ---- Scan -------------------------------------------------------------------------------------------------- */

/* Tasks are (sequence, group, strip of its channels). */
typedef struct scan_plan {
    const lspan_context *context;
    const lspan_selective_scan *scan;
    int64_t strip;
    int64_t strips; /* of a group */
    int64_t tasks;
    size_t scratch_bytes;
    char *scratch;
} scan_plan;

static scan_plan plan_scan(const lspan_context *context, const lspan_selective_scan *s)
{
    scan_plan plan = {.context = context, .scan = s};
    int64_t enough = LSPAN_SCAN_TASKS_PER_WORKER * (int64_t)context->split;
    int64_t channels = s->channels / s->groups;
    for (plan.strip = LSPAN_SCAN_CHANNELS;; plan.strip /= 2) {
        plan.strips = (channels + plan.strip - 1) / plan.strip;
        plan.tasks = s->sequences * s->groups * plan.strips;
        if (plan.tasks >= enough || plan.strip == LSPAN_SCAN_LEAST_CHANNELS) break;
    }
    plan.strip = lspan_min64(plan.strip, channels);
    plan.scratch_bytes = lspan_cut_scan_scratch(NULL, plan.strip, s->state_size).bytes;
    return plan;
}

static size_t scan_bytes(const scan_plan *plan)
{
    return plan->tasks == 0 ? 0 : plan->scratch_bytes * plan->context->executor.worker_count;
}

static void run_strip(void *argument, size_t index, size_t worker)
{
    const scan_plan *plan = argument;
    const lspan_selective_scan *s = plan->scan;
    int64_t channels = s->channels / s->groups, group = (int64_t)index / plan->strips % s->groups;
    int64_t first = (int64_t)index % plan->strips * plan->strip;
    lspan_scan_task task = {
        (int64_t)index / plan->strips / s->groups, group * channels + first, lspan_min64(plan->strip, channels - first)};
    void *scratch = plan->scratch + worker * plan->scratch_bytes;
    plan->context->kernels->selective_scan(s, task, scratch);
}

lspan_status lspan_selective_scan_workspace_size(
    const lspan_context *context, const lspan_selective_scan *scan, size_t *bytes)
{
    if (!bytes) return lspan_status_null_pointer;
    LSPAN_CHECK(check_shapes(context, scan));
    scan_plan plan = plan_scan(context, scan);
    *bytes = scan_bytes(&plan);
    return lspan_status_ok;
}

lspan_status lspan_selective_scan_run(
    const lspan_context *context, const lspan_selective_scan *scan, void *workspace, size_t workspace_bytes)
{
    LSPAN_CHECK(check_scan(context, scan));
    LSPAN_CHECK(lspan_check_decays(scan->a, scan->channels * scan->state_size));
    scan_plan plan = plan_scan(context, scan);
    LSPAN_CHECK(lspan_check_workspace(workspace, workspace_bytes, scan_bytes(&plan)));
    plan.scratch = workspace;
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_run_tasks(context, (size_t)plan.tasks, run_strip, &plan);
    record(context, began, status, lspan_profile_kernel_selective_scan, scan);
    return status;
}

/* ---- Update ------------------------------------------------------------------------------------------------ */

/* Runs of channels, counted over all sequences. */
static void update_channels(const lspan_context *context, const void *argument, int64_t first, int64_t end)
{
    const lspan_selective_scan *s = argument;
    int64_t runs = (s->channels + LSPAN_UPDATE_CHANNELS - 1) / LSPAN_UPDATE_CHANNELS;
    for (int64_t b = first / runs; b * runs < end; b++) {
        int64_t begin = lspan_max64(first - b * runs, 0) * LSPAN_UPDATE_CHANNELS;
        int64_t stop = lspan_min64((end - b * runs) * LSPAN_UPDATE_CHANNELS, s->channels);
        context->kernels->selective_update(s, b, begin, stop);
    }
}

lspan_status lspan_selective_update(const lspan_context *context, const lspan_selective_scan *s)
{
    LSPAN_CHECK(check_scan(context, s));
    if (!s->final_state) return lspan_status_null_pointer;
    for (int64_t b = 0; b < s->sequences; b++) {
        if (s->indptr[b + 1] - s->indptr[b] > LSPAN_SSM_MAX_UPDATE_TOKENS) return lspan_status_bad_shape;
    }
    int64_t runs = s->sequences * ((s->channels + LSPAN_UPDATE_CHANNELS - 1) / LSPAN_UPDATE_CHANNELS);
    int64_t states = lspan_max64(s->indptr[s->sequences], s->sequences) * s->channels * s->state_size;
    uint64_t began = lspan_profile_begin(context);
    lspan_status status =
        lspan_run_rows(context, runs, states / LSPAN_UPDATE_STATES_PER_ELEMENT, update_channels, s);
    record(context, began, status, lspan_profile_kernel_selective_update, s);
    return status;
}
