/* attention.c: entry points of attention.h: validation, and how a call is cut into tasks. */
#include "checks.h"
#include "context_internal.h"
#include "kernels/attention_mask.h"
#include "kernels/attention_scratch.h"
#include "profile_internal.h"
#include <longspan/attention.h>
#include <math.h>

#define MAX_QUERY_HEADS (INT64_C(1) << 20)

static lspan_status check_shapes(const lspan_context *context, const lspan_attention *a)
{
    if (!context || !a) return lspan_status_null_pointer;
    if (a->sequences < 0 || a->sequences == INT64_MAX) return lspan_status_bad_shape;
    if (a->kv_heads < 1 || a->query_heads < 1 || a->query_heads > MAX_QUERY_HEADS || a->query_heads % a->kv_heads != 0) {
        return lspan_status_bad_shape;
    }
    if (a->head_dim < 8 || a->head_dim > LSPAN_ATTENTION_MAX_HEAD_DIM || a->head_dim % 8 != 0) {
        return lspan_status_bad_shape;
    }
    if ((a->causal != 0 && a->causal != 1) || a->window < 0 || a->sinks < 0) return lspan_status_bad_value;
    LSPAN_CHECK(lspan_check_indptr(a->query_indptr, a->sequences));
    return lspan_check_indptr(a->kv_indptr, a->sequences);
}

static lspan_status check_attention(const lspan_context *context, const lspan_attention *a)
{
    LSPAN_CHECK(check_shapes(context, a));
    int64_t tokens = a->query_indptr[a->sequences], keys = a->kv_indptr[a->sequences];
    LSPAN_CHECK(lspan_check_heads(a->queries, tokens, a->query_heads, a->head_dim));
    LSPAN_CHECK(lspan_check_heads(a->keys, keys, a->kv_heads, a->head_dim));
    LSPAN_CHECK(lspan_check_heads(a->values, keys, a->kv_heads, a->head_dim));
    if (a->keys.dtype != a->values.dtype) return lspan_status_bad_dtype;
    lspan_heads_out output = {a->output, lspan_dtype_f32, a->output_token_stride, a->output_head_stride};
    LSPAN_CHECK(lspan_check_heads_out(output, tokens, a->query_heads, a->head_dim));
    LSPAN_CHECK(lspan_check_aligned(a->log_sum_exp, sizeof(float)));
    if (!isfinite(a->scale) || !isfinite(a->softcap) || a->softcap < 0) return lspan_status_bad_value;
    return lspan_status_ok;
}

static void record(
    const lspan_context *context, uint64_t began, lspan_profile_kernel kernel, const lspan_attention *a)
{
    lspan_profile_record(context, began, kernel, (int)a->keys.dtype, lspan_attention_cost(a));
}

static int64_t longest_query(const lspan_attention *a)
{
    int64_t longest = 0;
    for (int64_t b = 0; b < a->sequences; b++) {
        longest = lspan_max64(longest, a->query_indptr[b + 1] - a->query_indptr[b]);
    }
    return longest;
}

/* ---- Prefill --------------------------------------------------------------------------------------- */

typedef struct prefill_plan {
    const lspan_context *context;
    const lspan_attention *attention;
    int64_t tile_tokens; /* query tokens of a task */
    int64_t tasks;
    char *scratch;
    size_t scratch_bytes; /* of one worker */
} prefill_plan;

static int64_t prefill_tiles(const prefill_plan *plan, int64_t sequence)
{
    const int64_t *indptr = plan->attention->query_indptr;
    int64_t tokens = indptr[sequence + 1] - indptr[sequence];
    return tokens / plan->tile_tokens + (tokens % plan->tile_tokens != 0);
}

static lspan_status plan_prefill(const lspan_context *context, const lspan_attention *a, prefill_plan *plan)
{
    int64_t group = a->query_heads / a->kv_heads;
    int64_t enough = LSPAN_PREFILL_TASKS_PER_WORKER * (int64_t)context->executor.worker_count;
    plan->context = context;
    plan->attention = a;
    for (int64_t rows = LSPAN_PREFILL_ROWS;; rows /= 2) {
        plan->tile_tokens = lspan_max64(1, lspan_min64(rows / group, longest_query(a)));
        plan->tasks = 0;
        for (int64_t b = 0; b < a->sequences; b++) {
            int64_t tasks;
            LSPAN_CHECK(lspan_multiply(prefill_tiles(plan, b), a->kv_heads, &tasks));
            if (__builtin_add_overflow(plan->tasks, tasks, &plan->tasks)) return lspan_status_overflow;
        }
        if (plan->tasks >= enough || rows / 2 < LSPAN_PREFILL_LEAST_ROWS) break;
    }
    plan->scratch_bytes = lspan_cut_scratch(NULL, plan->tile_tokens * group, a->head_dim, LSPAN_PREFILL_KEYS, 1).bytes;
    return lspan_status_ok;
}

static size_t prefill_bytes(const prefill_plan *plan)
{
    return plan->tasks == 0 ? 0 : plan->scratch_bytes * plan->context->executor.worker_count;
}

/* Later query tiles see more keys when causal, so they go first and the short ones even out the end. */
static void run_prefill_task(void *argument, size_t index, size_t worker)
{
    const prefill_plan *plan = argument;
    const lspan_attention *a = plan->attention;
    int64_t rest = plan->tasks - 1 - (int64_t)index;
    int64_t b = 0;
    while (rest >= prefill_tiles(plan, b) * a->kv_heads) rest -= prefill_tiles(plan, b++) * a->kv_heads;
    lspan_prefill_task task;
    task.sequence = b;
    task.kv_head = rest % a->kv_heads;
    task.first = rest / a->kv_heads * plan->tile_tokens;
    task.count = lspan_min64(plan->tile_tokens, a->query_indptr[b + 1] - a->query_indptr[b] - task.first);
    plan->context->kernels->attention_prefill(a, task, plan->scratch + worker * plan->scratch_bytes);
}

lspan_status lspan_attention_prefill_workspace_size(
    const lspan_context *context, const lspan_attention *attention, size_t *bytes)
{
    prefill_plan plan;
    if (!bytes) return lspan_status_null_pointer;
    LSPAN_CHECK(check_shapes(context, attention));
    LSPAN_CHECK(plan_prefill(context, attention, &plan));
    *bytes = prefill_bytes(&plan);
    return lspan_status_ok;
}

lspan_status lspan_attention_prefill(
    const lspan_context *context, const lspan_attention *attention, void *workspace, size_t workspace_bytes)
{
    prefill_plan plan;
    LSPAN_CHECK(check_attention(context, attention));
    LSPAN_CHECK(plan_prefill(context, attention, &plan));
    LSPAN_CHECK(lspan_check_workspace(workspace, workspace_bytes, prefill_bytes(&plan)));
    plan.scratch = workspace;
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_run_tasks(context, (size_t)plan.tasks, run_prefill_task, &plan);
    if (lspan_profile_wants(began, status)) record(context, began, lspan_profile_kernel_attention_prefill, attention);
    return status;
}

/* ---- Decode ---------------------------------------------------------------------------------------- */

typedef struct decode_plan {
    const lspan_context *context;
    const lspan_attention *attention;
    int64_t chunk; /* keys of a task */
    int64_t tasks;
    int64_t units;        /* (sequence, head) pairs */
    int64_t partial_rows; /* rows of partial results, over all sequences whose keys are split */
    char *scratch;
    size_t scratch_bytes; /* of one worker */
    float *partial_outputs;
    float *partial_log_sum_exps;
} decode_plan;

/* A sequence's place in the plan. */
typedef struct decode_sequence {
    int64_t tokens;
    int64_t visible; /* keys that at least one of its queries sees */
    int64_t parts;   /* tasks of one head */
    int64_t rows;    /* T * G */
} decode_sequence;

static int64_t visible_keys(const lspan_attention *a, int64_t b)
{
    int64_t tokens = a->query_indptr[b + 1] - a->query_indptr[b], keys = a->kv_indptr[b + 1] - a->kv_indptr[b];
    if (tokens == 0) return 0;
    lspan_row_keys seen = lspan_keys_of_rows(a, 0, tokens - 1, tokens, keys);
    return seen.sinks + seen.high - seen.low;
}

static decode_sequence sequence_of(const decode_plan *plan, int64_t b)
{
    const lspan_attention *a = plan->attention;
    decode_sequence s;
    s.tokens = a->query_indptr[b + 1] - a->query_indptr[b];
    s.visible = visible_keys(a, b);
    s.parts = s.tokens == 0 ? 0 : lspan_max64(1, s.visible / plan->chunk + (s.visible % plan->chunk != 0));
    s.rows = s.tokens * (a->query_heads / a->kv_heads);
    return s;
}

static lspan_status plan_decode(const lspan_context *context, const lspan_attention *a, decode_plan *plan)
{
    if (longest_query(a) > LSPAN_ATTENTION_MAX_DECODE_TOKENS) return lspan_status_bad_shape;
    LSPAN_CHECK(lspan_multiply(a->sequences, a->kv_heads, &plan->units));
    int64_t total = 0;
    for (int64_t b = 0; b < a->sequences; b++) {
        int64_t keys;
        LSPAN_CHECK(lspan_multiply(visible_keys(a, b), a->kv_heads, &keys));
        if (__builtin_add_overflow(total, keys, &total)) return lspan_status_overflow;
    }
    int64_t workers = (int64_t)context->executor.worker_count;
    int64_t share = total / (workers * LSPAN_DECODE_TASKS_PER_WORKER) + 1;
    plan->context = context;
    plan->attention = a;
    plan->chunk = workers == 1 ? INT64_MAX
                               : lspan_round_up(lspan_max64(share, LSPAN_DECODE_MIN_SPLIT), LSPAN_DECODE_KEYS);
    plan->tasks = 0;
    plan->partial_rows = 0;
    int64_t most_rows = 1;
    for (int64_t b = 0; b < a->sequences; b++) {
        decode_sequence s = sequence_of(plan, b);
        plan->tasks += s.parts * a->kv_heads;
        if (s.parts > 1) plan->partial_rows += s.parts * s.rows * a->kv_heads;
        most_rows = lspan_max64(most_rows, s.rows);
    }
    plan->scratch_bytes = lspan_cut_scratch(NULL, most_rows, a->head_dim, LSPAN_DECODE_KEYS, 0).bytes;
    return lspan_status_ok;
}

/* Byte offsets of the partial results behind the workers' scratch, and the whole size. */
static size_t decode_layout(const decode_plan *plan, size_t *outputs, size_t *log_sum_exps)
{
    size_t rows = (size_t)plan->partial_rows;
    *outputs = plan->tasks == 0 ? 0 : plan->scratch_bytes * plan->context->executor.worker_count;
    *log_sum_exps = *outputs + rows * (size_t)plan->attention->head_dim * sizeof(float);
    return (size_t)lspan_round_up((int64_t)(*log_sum_exps + rows * sizeof(float)), LSPAN_WORKSPACE_ALIGNMENT);
}

static void run_decode_task(void *argument, size_t index, size_t worker)
{
    const decode_plan *plan = argument;
    const lspan_attention *a = plan->attention;
    int64_t group = a->query_heads / a->kv_heads, rest = (int64_t)index, b = 0, partial = 0;
    decode_sequence s = sequence_of(plan, 0);
    while (rest >= s.parts * a->kv_heads) {
        rest -= s.parts * a->kv_heads;
        if (s.parts > 1) partial += s.parts * s.rows * a->kv_heads;
        s = sequence_of(plan, ++b);
    }
    lspan_decode_task task;
    int64_t part = rest % s.parts, query0 = a->query_indptr[b];
    task.sequence = b;
    task.kv_head = rest / s.parts;
    task.begin = part * plan->chunk;
    task.end = s.visible - task.begin > plan->chunk ? task.begin + plan->chunk : s.visible;
    if (s.parts == 1) {
        task.output = a->output + query0 * a->output_token_stride + task.kv_head * group * a->output_head_stride;
        task.output_token_stride = a->output_token_stride;
        task.output_head_stride = a->output_head_stride;
        task.log_sum_exp = a->log_sum_exp ? a->log_sum_exp + query0 * a->query_heads + task.kv_head * group : NULL;
        task.log_sum_exp_stride = a->query_heads;
    } else {
        int64_t row = partial + rest * s.rows;
        task.output = plan->partial_outputs + row * a->head_dim;
        task.output_token_stride = group * a->head_dim;
        task.output_head_stride = a->head_dim;
        task.log_sum_exp = plan->partial_log_sum_exps + row;
        task.log_sum_exp_stride = group;
    }
    plan->context->kernels->attention_decode(a, task, plan->scratch + worker * plan->scratch_bytes);
}

/* Merges the parts of one (sequence, head). */
static void run_merge_task(void *argument, size_t index, size_t worker)
{
    const decode_plan *plan = argument;
    const lspan_attention *a = plan->attention;
    (void)worker;
    int64_t group = a->query_heads / a->kv_heads, sequence = (int64_t)index / a->kv_heads, partial = 0;
    int64_t head = (int64_t)index % a->kv_heads;
    for (int64_t b = 0; b < sequence; b++) {
        decode_sequence s = sequence_of(plan, b);
        if (s.parts > 1) partial += s.parts * s.rows * a->kv_heads;
    }
    decode_sequence s = sequence_of(plan, sequence);
    if (s.parts <= 1) return;
    partial += head * s.parts * s.rows;
    lspan_merge merge = {
        s.parts, s.rows, a->head_dim, plan->partial_outputs + partial * a->head_dim,
        plan->partial_log_sum_exps + partial};
    for (int64_t r = 0; r < s.rows; r++) {
        int64_t token = a->query_indptr[sequence] + r / group, query_head = head * group + r % group;
        float *output = a->output + token * a->output_token_stride + query_head * a->output_head_stride;
        float *lse = a->log_sum_exp ? a->log_sum_exp + token * a->query_heads + query_head : NULL;
        plan->context->kernels->attention_merge(&merge, r, output, lse);
    }
}

lspan_status lspan_attention_decode_workspace_size(
    const lspan_context *context, const lspan_attention *attention, size_t *bytes)
{
    decode_plan plan;
    size_t outputs, log_sum_exps;
    if (!bytes) return lspan_status_null_pointer;
    LSPAN_CHECK(check_shapes(context, attention));
    LSPAN_CHECK(plan_decode(context, attention, &plan));
    *bytes = decode_layout(&plan, &outputs, &log_sum_exps);
    return lspan_status_ok;
}

lspan_status lspan_attention_decode(
    const lspan_context *context, const lspan_attention *attention, void *workspace, size_t workspace_bytes)
{
    decode_plan plan;
    size_t outputs, log_sum_exps;
    LSPAN_CHECK(check_attention(context, attention));
    LSPAN_CHECK(plan_decode(context, attention, &plan));
    size_t needed = decode_layout(&plan, &outputs, &log_sum_exps);
    LSPAN_CHECK(lspan_check_workspace(workspace, workspace_bytes, needed));
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_status_ok;
    if (plan.tasks > 0) {
        plan.scratch = workspace;
        plan.partial_outputs = (float *)(void *)(plan.scratch + outputs);
        plan.partial_log_sum_exps = (float *)(void *)(plan.scratch + log_sum_exps);
        status = lspan_run_tasks(context, (size_t)plan.tasks, run_decode_task, &plan);
    }
    if (status == lspan_status_ok && plan.partial_rows > 0) {
        status = lspan_run_tasks(context, (size_t)plan.units, run_merge_task, &plan);
    }
    if (lspan_profile_wants(began, status)) record(context, began, lspan_profile_kernel_attention_decode, attention);
    return status;
}

/* ---- Merge ----------------------------------------------------------------------------------------- */

typedef struct merge_call {
    lspan_merge merge;
    float *output;
    float *log_sum_exp;
} merge_call;

static void merge_rows(const lspan_context *context, const void *argument, int64_t first, int64_t end)
{
    const merge_call *call = argument;
    for (int64_t r = first; r < end; r++) {
        float *lse = call->log_sum_exp ? call->log_sum_exp + r : NULL;
        context->kernels->attention_merge(&call->merge, r, call->output + r * call->merge.columns, lse);
    }
}

lspan_status lspan_attention_merge(
    const lspan_context *context, int64_t parts, int64_t rows, int64_t head_dim, const float *outputs,
    const float *log_sum_exps, float *output, float *log_sum_exp)
{
    int64_t part_elements, row_elements, elements;
    if (!context) return lspan_status_null_pointer;
    if (parts < 0 || rows < 0 || head_dim < 1) return lspan_status_bad_shape;
    LSPAN_CHECK(lspan_multiply(rows, head_dim, &row_elements));
    LSPAN_CHECK(lspan_multiply(parts, rows, &part_elements));
    LSPAN_CHECK(lspan_multiply(parts, row_elements, &elements));
    LSPAN_CHECK(lspan_check_floats(outputs, elements));
    LSPAN_CHECK(lspan_check_floats(log_sum_exps, part_elements));
    LSPAN_CHECK(lspan_check_floats(output, row_elements));
    LSPAN_CHECK(lspan_check_aligned(log_sum_exp, sizeof(float)));
    merge_call call = {{parts, rows, head_dim, outputs, log_sum_exps}, output, log_sum_exp};
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_run_rows(context, rows, elements, merge_rows, &call);
    if (lspan_profile_wants(began, status)) {
        lspan_cost cost = lspan_merge_cost(parts, rows, head_dim, log_sum_exp != NULL);
        lspan_profile_record(context, began, lspan_profile_kernel_attention_merge, lspan_dtype_f32, cost);
    }
    return status;
}
