/* ssd.c: entry points of ssm.h for Mamba-2: the SSD scan in both forms, and its update. */
#include "integers.h"
#include "kernels/ssd_scratch.h"
#include "profile_internal.h"
#include "ssm_checks.h"
#include "tuning.h"
#include <string.h>

/* ---- Checks ------------------------------------------------------------------------------------------ */

static int64_t longest_sequence(const lspan_ssd_scan *s)
{
    int64_t longest = 0;
    for (int64_t b = 0; b < s->sequences; b++) longest = lspan_max64(longest, s->indptr[b + 1] - s->indptr[b]);
    return longest;
}

/* What the sizes of a call depend on. */
static lspan_status check_shapes(const lspan_context *context, const lspan_ssd_scan *s)
{
    int64_t state, states;
    if (!context || !s) return lspan_status_null_pointer;
    if (s->sequences < 0 || s->heads < 1 || s->groups < 1 || s->heads % s->groups != 0) return lspan_status_bad_shape;
    if (s->head_dim < 1 || s->head_dim > LSPAN_SSM_MAX_STATE) return lspan_status_bad_shape;
    if (s->state_size < 1 || s->state_size > LSPAN_SSM_MAX_STATE) return lspan_status_bad_shape;
    LSPAN_CHECK(lspan_check_indptr(s->indptr, s->sequences));
    LSPAN_CHECK(lspan_multiply(s->heads, s->head_dim * s->state_size, &state));
    LSPAN_CHECK(lspan_multiply(lspan_max64(s->sequences, 1), state, &states));
    if (s->form < lspan_ssd_form_automatic || s->form > lspan_ssd_form_chunked) return lspan_status_bad_value;
    return lspan_status_ok;
}

static lspan_status check_scan(const lspan_context *context, const lspan_ssd_scan *s)
{
    LSPAN_CHECK(check_shapes(context, s));
    int64_t rows = s->indptr[s->sequences];
    LSPAN_CHECK(lspan_check_heads(s->input, rows, s->heads, s->head_dim));
    LSPAN_CHECK(lspan_check_matrix(s->dt, rows, s->heads));
    LSPAN_CHECK(lspan_check_dt_rule(&s->rule, s->sequences, s->heads));
    LSPAN_CHECK(lspan_check_heads(s->b, rows, s->groups, s->state_size));
    LSPAN_CHECK(lspan_check_heads(s->c, rows, s->groups, s->state_size));
    LSPAN_CHECK(lspan_check_aligned(s->d, sizeof(float)));
    if (s->gate.data) LSPAN_CHECK(lspan_check_heads(s->gate, rows, s->heads, s->head_dim));
    LSPAN_CHECK(lspan_check_states(
        s->initial_state, s->final_state, s->state_stride, s->sequences, s->heads * s->head_dim * s->state_size));
    LSPAN_CHECK(lspan_check_heads_out(s->output, rows, s->heads, s->head_dim));
    LSPAN_CHECK(lspan_check_aligned(s->kept, sizeof *s->kept));
    LSPAN_CHECK(lspan_check_decays(s->a, s->heads));
    if (!s->gate.data || s->gate.data != s->output.data || rows == 0) return lspan_status_ok;
    if (s->gate.dtype != s->output.dtype) return lspan_status_bad_dtype;
    int same = s->gate.token_stride == s->output.token_stride && s->gate.head_stride == s->output.head_stride;
    return same ? lspan_status_ok : lspan_status_bad_stride;
}

/* ---- Recurrent --------------------------------------------------------------------------------------- */

/* The state of a head of a sequence in `to`, from the initial one. */
static void start_state(const lspan_ssd_scan *s, int64_t sequence, int64_t head, float *to)
{
    int64_t count = s->head_dim * s->state_size;
    if (!s->initial_state) {
        memset(to, 0, (size_t)count * sizeof(float));
        return;
    }
    const float *from = s->initial_state + sequence * s->state_stride + head * count;
    if (from != to) memmove(to, from, (size_t)count * sizeof(float));
}

/* Heads first .. end-1 of all sequences, on their final states. */
static void step_heads(const lspan_context *context, const void *argument, int64_t first, int64_t end)
{
    const lspan_ssd_scan *s = argument;
    for (int64_t i = first; i < end; i++) {
        int64_t sequence = i / s->heads, head = i % s->heads;
        float *state = s->final_state + sequence * s->state_stride + head * s->head_dim * s->state_size;
        start_state(s, sequence, head, state);
        context->kernels->ssd_steps(s, sequence, head, state);
    }
}

static lspan_status run_steps(const lspan_context *context, const lspan_ssd_scan *s)
{
    int64_t heads = s->sequences * s->heads;
    return lspan_run_rows(context, heads, heads * s->head_dim * s->state_size, step_heads, s);
}

/* ---- Plans ------------------------------------------------------------------------------------------- */

/* Tasks are (sequence, run of heads of a group, part of the columns). */
typedef struct ssd_plan {
    const lspan_context *context;
    const lspan_ssd_scan *scan;
    lspan_ssd_form form;
    int64_t heads;    /* of a run */
    int64_t runs;     /* of a group */
    int64_t columns;  /* of a part */
    int64_t parts;
    int64_t tasks;
    size_t scratch_bytes; /* of a worker */
    char *scratch;
} ssd_plan;

static lspan_ssd_form form_of(const lspan_ssd_scan *s)
{
    if (s->form != lspan_ssd_form_automatic) return s->form;
    return longest_sequence(s) < LSPAN_SSD_LEAST_CHUNKED ? lspan_ssd_form_recurrent : lspan_ssd_form_chunked;
}

static ssd_plan plan_chunks(const lspan_context *context, const lspan_ssd_scan *s)
{
    ssd_plan plan = {.context = context, .scan = s, .form = lspan_ssd_form_chunked};
    int64_t workers = (int64_t)context->split, all = s->sequences * s->heads;
    int64_t in_group = s->heads / s->groups;
    int64_t state_bytes = s->head_dim * s->state_size * (int64_t)sizeof(float);
    int64_t most = lspan_clamp64(LSPAN_SSD_STATE_BYTES / state_bytes, 1, LSPAN_SSD_HEADS);
    int64_t share = workers > 1 ? all / (workers * LSPAN_SSD_TASKS_PER_WORKER) : all;
    plan.heads = lspan_min64(lspan_clamp64(share, 1, most), in_group);
    plan.runs = (in_group + plan.heads - 1) / plan.heads;
    int64_t tasks = s->sequences * s->groups * plan.runs;
    plan.columns = s->head_dim;
    if (tasks > 0 && tasks < workers) {
        int64_t parts = (workers + tasks - 1) / tasks;
        plan.columns = lspan_round_up((s->head_dim + parts - 1) / parts, LSPAN_SSD_PANEL);
    }
    plan.parts = (s->head_dim + plan.columns - 1) / plan.columns;
    plan.tasks = tasks * plan.parts;
    plan.scratch_bytes =
        lspan_cut_ssd_scratch(NULL, plan.heads, lspan_min64(plan.columns, s->head_dim), s->state_size).bytes;
    return plan;
}

static ssd_plan plan_scan(const lspan_context *context, const lspan_ssd_scan *s)
{
    if (form_of(s) == lspan_ssd_form_chunked) return plan_chunks(context, s);
    ssd_plan plan = {.context = context, .scan = s, .form = lspan_ssd_form_recurrent};
    plan.tasks = s->sequences * s->heads;
    int64_t floats = lspan_round_up(s->head_dim * s->state_size, LSPAN_WORKSPACE_ALIGNMENT);
    /* without a final state to work on, each worker has one of its own */
    plan.scratch_bytes = s->final_state ? 0 : (size_t)floats * sizeof(float);
    return plan;
}

static size_t bytes_of(const ssd_plan *plan)
{
    return plan->tasks == 0 ? 0 : plan->scratch_bytes * plan->context->executor.worker_count;
}

static void run_chunk_task(void *argument, size_t index, size_t worker)
{
    const ssd_plan *plan = argument;
    const lspan_ssd_scan *s = plan->scan;
    int64_t in_group = s->heads / s->groups, rest = (int64_t)index, part = rest % plan->parts;
    rest /= plan->parts;
    int64_t run = rest % plan->runs;
    rest /= plan->runs;
    lspan_ssd_task task = {.sequence = rest / s->groups, .column = part * plan->columns};
    task.head = rest % s->groups * in_group + run * plan->heads;
    task.heads = lspan_min64(plan->heads, in_group - run * plan->heads);
    task.column_end = lspan_min64(task.column + plan->columns, s->head_dim);
    plan->context->kernels->ssd_chunks(s, task, plan->scratch + worker * plan->scratch_bytes);
}

static void run_head_task(void *argument, size_t index, size_t worker)
{
    const ssd_plan *plan = argument;
    const lspan_ssd_scan *s = plan->scan;
    int64_t sequence = (int64_t)index / s->heads, head = (int64_t)index % s->heads;
    float *state = (float *)(void *)(plan->scratch + worker * plan->scratch_bytes);
    start_state(s, sequence, head, state);
    plan->context->kernels->ssd_steps(s, sequence, head, state);
}

/* ---- Entry points ------------------------------------------------------------------------------------ */

lspan_status lspan_ssd_scan_form(const lspan_context *context, const lspan_ssd_scan *scan, lspan_ssd_form *form)
{
    if (!form) return lspan_status_null_pointer;
    LSPAN_CHECK(check_shapes(context, scan));
    *form = form_of(scan);
    return lspan_status_ok;
}

lspan_status lspan_ssd_scan_workspace_size(const lspan_context *context, const lspan_ssd_scan *scan, size_t *bytes)
{
    if (!bytes) return lspan_status_null_pointer;
    LSPAN_CHECK(check_shapes(context, scan));
    ssd_plan plan = plan_scan(context, scan);
    *bytes = bytes_of(&plan);
    return lspan_status_ok;
}

lspan_status lspan_ssd_scan_run(
    const lspan_context *context, const lspan_ssd_scan *scan, void *workspace, size_t workspace_bytes)
{
    LSPAN_CHECK(check_scan(context, scan));
    ssd_plan plan = plan_scan(context, scan);
    LSPAN_CHECK(lspan_check_workspace(workspace, workspace_bytes, bytes_of(&plan)));
    plan.scratch = workspace;
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_status_ok;
    if (plan.form == lspan_ssd_form_recurrent && scan->final_state) {
        status = run_steps(context, scan);
    } else if (plan.tasks > 0) {
        lspan_task_function function = plan.form == lspan_ssd_form_chunked ? run_chunk_task : run_head_task;
        status = lspan_run_tasks(context, (size_t)plan.tasks, function, &plan);
    }
    if (lspan_profile_wants(began, status)) {
        lspan_cost cost = lspan_ssd_cost(scan, plan.form);
        lspan_profile_record(context, began, lspan_profile_kernel_ssd_scan, (int)scan->input.dtype, cost);
    }
    return status;
}

lspan_status lspan_ssd_update(const lspan_context *context, const lspan_ssd_scan *scan)
{
    LSPAN_CHECK(check_scan(context, scan));
    if (longest_sequence(scan) > LSPAN_SSM_MAX_UPDATE_TOKENS) return lspan_status_bad_shape;
    if (!scan->final_state) return lspan_status_null_pointer;
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = run_steps(context, scan);
    if (lspan_profile_wants(began, status)) {
        lspan_cost cost = lspan_ssd_cost(scan, lspan_ssd_form_recurrent);
        lspan_profile_record(context, began, lspan_profile_kernel_ssd_update, (int)scan->input.dtype, cost);
    }
    return status;
}
