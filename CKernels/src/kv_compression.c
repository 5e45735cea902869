/* kv_compression.c: entry points of kv.h that score windows, move rows together, and shift keys. */
#include "checks.h"
#include "kernels/lag_scratch.h"
#include "profile_internal.h"
#include "tuning.h"
#include <longspan/kv.h>
#include <math.h>

/* ---- Lag-relative scores ----------------------------------------------------------------------------- */

/* A task is a run of windows of one head, keys and then values; where heads are few the two are tasks of their own, and
 * the values' shares go to an array that is added to the scores afterwards. */
typedef struct lag_plan {
    const lspan_context *context;
    const lspan_lag_scores *call;
    int64_t tokens; /* P * W */
    int64_t run;    /* windows of a task */
    int64_t runs;   /* of one head */
    int split;
    int64_t tasks;
    int64_t scratch_floats; /* of one worker, in whole cache lines */
    float *scratch;
    float *value_shares; /* [Hk, P * W], if split */
    size_t bytes;
} lag_plan;

static lspan_status plan_lag_scores(const lspan_context *context, const lspan_lag_scores *c, lag_plan *plan)
{
    int64_t tokens, elements, shares, workspace;
    if (!context || !c) return lspan_status_null_pointer;
    if (c->heads < 1 || c->head_dim < 1 || c->window < 1 || c->windows < 0) return lspan_status_bad_shape;
    if (c->windows == INT64_MAX) return lspan_status_overflow;
    LSPAN_CHECK(lspan_multiply(c->windows + 1, c->window, &tokens));
    LSPAN_CHECK(lspan_multiply(tokens, c->heads, &elements));
    LSPAN_CHECK(lspan_multiply(elements, c->head_dim, &elements));
    *plan = (lag_plan){.context = context, .call = c, .tokens = c->windows * c->window};
    if (c->windows == 0) return lspan_status_ok;

    int64_t workers = (int64_t)context->split, enough = workers * LSPAN_LAG_TASKS_PER_WORKER;
    plan->split = workers > 1 && c->heads < enough;
    int64_t units = plan->split ? 2 * c->heads : c->heads;
    int64_t wanted = workers > 1 && units < enough ? (enough + units - 1) / units : 1;
    plan->run = lspan_max64((c->windows + wanted - 1) / wanted, lspan_min64(LSPAN_LAG_LEAST_WINDOWS, c->windows));
    plan->runs = (c->windows + plan->run - 1) / plan->run;
    plan->tasks = units * plan->runs;
    /* the padding of D and W, whose product fits, is small beside what overflows here */
    if (c->head_dim > INT64_MAX / 64 || c->window > INT64_MAX / 64) return lspan_status_overflow;
    plan->scratch_floats = lspan_lag_scratch_floats(c->head_dim, c->window);
    LSPAN_CHECK(lspan_multiply(plan->scratch_floats, (int64_t)context->executor.worker_count, &workspace));
    LSPAN_CHECK(lspan_multiply(plan->tokens, plan->split ? c->heads : 0, &shares));
    if (__builtin_add_overflow(workspace, shares, &workspace)) return lspan_status_overflow;
    LSPAN_CHECK(lspan_multiply(workspace, (int64_t)sizeof(float), &workspace));
    plan->bytes = (size_t)workspace;
    return lspan_status_ok;
}

static lspan_status check_lag_scores(const lag_plan *plan)
{
    const lspan_lag_scores *c = plan->call;
    int64_t read = plan->tokens == 0 ? 0 : plan->tokens + c->window;
    LSPAN_CHECK(lspan_check_heads(c->keys, read, c->heads, c->head_dim));
    LSPAN_CHECK(lspan_check_heads(c->values, read, c->heads, c->head_dim));
    if (c->keys.dtype != c->values.dtype) return lspan_status_bad_dtype;
    if (!isfinite(c->value_weight) || c->value_weight < 0) return lspan_status_bad_value;
    if (c->score_head_stride < plan->tokens) return lspan_status_bad_stride;
    lspan_matrix_out scores = {c->scores, lspan_dtype_f32, c->score_head_stride};
    return lspan_check_matrix_out(scores, c->heads, plan->tokens);
}

static void score_run(
    const lag_plan *plan, lspan_heads view, int64_t head, int64_t run, float weight, int accumulate, float *out,
    size_t worker)
{
    const lspan_lag_scores *c = plan->call;
    int64_t first = run * plan->run, token = first * c->window;
    int64_t element = token * view.token_stride + head * view.head_stride;
    lspan_lag_task task = {
        .data = (const char *)view.data + element * (int64_t)lspan_dtype_size(view.dtype),
        .dtype = view.dtype,
        .token_stride = view.token_stride,
        .head_dim = c->head_dim,
        .window = c->window,
        .windows = lspan_min64(plan->run, c->windows - first),
        .weight = weight,
        .accumulate = accumulate,
        .scores = out + token};
    plan->context->kernels->lag_scores(&task, plan->scratch + (int64_t)worker * plan->scratch_floats);
}

static void run_lag_task(void *argument, size_t index, size_t worker)
{
    const lag_plan *plan = argument;
    const lspan_lag_scores *c = plan->call;
    int64_t run = (int64_t)index % plan->runs, unit = (int64_t)index / plan->runs;
    int64_t head = plan->split ? unit / 2 : unit;
    float *scores = c->scores + head * c->score_head_stride;
    if (!plan->split) {
        score_run(plan, c->keys, head, run, 1.0f, 0, scores, worker);
        score_run(plan, c->values, head, run, c->value_weight, 1, scores, worker);
    } else if (unit % 2 == 0) {
        score_run(plan, c->keys, head, run, 1.0f, 0, scores, worker);
    } else {
        score_run(plan, c->values, head, run, c->value_weight, 0, plan->value_shares + head * plan->tokens, worker);
    }
}

static void add_value_shares(const lspan_context *context, const void *argument, int64_t first, int64_t end)
{
    const lag_plan *plan = argument;
    (void)context;
    for (int64_t h = first; h < end; h++) {
        float *scores = plan->call->scores + h * plan->call->score_head_stride;
        const float *shares = plan->value_shares + h * plan->tokens;
        for (int64_t t = 0; t < plan->tokens; t++) scores[t] += shares[t];
    }
}

lspan_status lspan_lag_scores_workspace_size(
    const lspan_context *context, const lspan_lag_scores *call, size_t *bytes)
{
    lag_plan plan;
    if (!bytes) return lspan_status_null_pointer;
    LSPAN_CHECK(plan_lag_scores(context, call, &plan));
    *bytes = plan.bytes;
    return lspan_status_ok;
}

lspan_status lspan_lag_scores_run(
    const lspan_context *context, const lspan_lag_scores *call, void *workspace, size_t workspace_bytes)
{
    lag_plan plan;
    LSPAN_CHECK(plan_lag_scores(context, call, &plan));
    LSPAN_CHECK(check_lag_scores(&plan));
    LSPAN_CHECK(lspan_check_workspace(workspace, workspace_bytes, plan.bytes));
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_status_ok;
    if (plan.tasks > 0) {
        plan.scratch = workspace;
        plan.value_shares = plan.scratch + plan.scratch_floats * (int64_t)context->executor.worker_count;
        status = lspan_run_tasks(context, (size_t)plan.tasks, run_lag_task, &plan);
    }
    if (status == lspan_status_ok && plan.split) {
        status = lspan_run_rows(context, call->heads, call->heads * plan.tokens, add_value_shares, &plan);
    }
    if (lspan_profile_wants(began, status)) {
        lspan_cost cost = lspan_lag_scores_cost(call);
        lspan_profile_record(context, began, lspan_profile_kernel_lag_scores, (int)call->keys.dtype, cost);
    }
    return status;
}

/* ---- Compaction -------------------------------------------------------------------------------------- */

static lspan_status check_side_array(const lspan_side_array *side, int64_t heads, int64_t slots)
{
    int64_t size = side->element_bytes, last;
    if (size < 1 || size > 16 || (size & (size - 1)) != 0) return lspan_status_bad_shape;
    if (side->head_stride < slots) return lspan_status_bad_stride;
    LSPAN_CHECK(lspan_multiply(heads, side->head_stride, &last));
    LSPAN_CHECK(lspan_multiply(last, size, &last));
    if (slots == 0) return lspan_status_ok;
    return side->data ? lspan_check_aligned(side->data, (size_t)size) : lspan_status_null_pointer;
}

/* A list that ascends from `destination` has entry i at destination + i or above. */
static int is_list(const lspan_compaction *c, const int32_t *indices, int64_t count)
{
    int64_t limit = c->tail_end > c->tail_begin ? c->tail_begin : c->slots;
    if (count == 0) return c->tail_end == c->tail_begin || c->tail_begin >= c->destination;
    int falls = 0;
    for (int64_t i = 1; i < count; i++) falls |= indices[i] <= indices[i - 1];
    return !falls && indices[0] >= c->destination && indices[count - 1] < limit;
}

static lspan_status check_lists(const lspan_compaction *c)
{
    LSPAN_CHECK(lspan_check_indptr(c->indptr, c->lists));
    if (c->indptr[c->lists] > 0) {
        if (!c->indices) return lspan_status_null_pointer;
        LSPAN_CHECK(lspan_check_aligned(c->indices, sizeof *c->indices));
        LSPAN_CHECK(lspan_check_count(c->indptr[c->lists], sizeof *c->indices));
    }
    for (int64_t l = 0; l < c->lists; l++) {
        int64_t count = c->indptr[l + 1] - c->indptr[l];
        /* a longer list could not ascend, and must not be read to find out */
        if (count > c->slots || !is_list(c, lspan_list_of(c, l), count)) return lspan_status_bad_index;
    }
    return lspan_status_ok;
}

static lspan_status check_compaction(const lspan_context *context, const lspan_compaction *c)
{
    int64_t arrays;
    if (!context || !c) return lspan_status_null_pointer;
    if (c->heads < 1 || c->head_dim < 1 || c->slots < 0 || c->side_count < 0) return lspan_status_bad_shape;
    if (c->lists != 1 && c->lists != c->heads) return lspan_status_bad_shape;
    if (c->destination < 0 || c->destination > c->slots) return lspan_status_bad_shape;
    if (c->tail_begin < 0 || c->tail_end < c->tail_begin || c->tail_end > c->slots) return lspan_status_bad_shape;
    if (__builtin_add_overflow(c->side_count, 2, &arrays)) return lspan_status_overflow;
    LSPAN_CHECK(lspan_multiply(arrays, c->heads, &arrays));
    LSPAN_CHECK(lspan_check_heads_out(c->keys, c->slots, c->heads, c->head_dim));
    LSPAN_CHECK(lspan_check_heads_out(c->values, c->slots, c->heads, c->head_dim));
    if (c->side_count > 0 && !c->side) return lspan_status_null_pointer;
    LSPAN_CHECK(lspan_check_aligned(c->side, _Alignof(lspan_side_array)));
    LSPAN_CHECK(lspan_check_count(c->side_count, sizeof *c->side));
    for (int64_t s = 0; s < c->side_count; s++) LSPAN_CHECK(check_side_array(&c->side[s], c->heads, c->slots));
    return check_lists(c);
}

static void move_view(lspan_row_move *move, lspan_heads_out view, int64_t head, int64_t head_dim)
{
    int64_t element = (int64_t)lspan_dtype_size(view.dtype);
    move->data = (char *)view.data + head * view.head_stride * element;
    move->row_bytes = head_dim * element;
    move->stride_bytes = view.token_stride * element;
}

typedef struct compact_call {
    const lspan_context *context;
    const lspan_compaction *compaction;
} compact_call;

/* One head of one array: keys, values, then the arrays beside them. */
static void run_move(void *argument, size_t index, size_t worker)
{
    const compact_call *call = argument;
    const lspan_compaction *c = call->compaction;
    (void)worker;
    int64_t array = (int64_t)index / c->heads, head = (int64_t)index % c->heads, list = c->lists == 1 ? 0 : head;
    lspan_row_move move = {
        .indices = lspan_list_of(c, list),
        .count = c->indptr[list + 1] - c->indptr[list],
        .destination = c->destination,
        .tail_begin = c->tail_begin,
        .tail = c->tail_end - c->tail_begin};
    if (array == 0) {
        move_view(&move, c->keys, head, c->head_dim);
    } else if (array == 1) {
        move_view(&move, c->values, head, c->head_dim);
    } else {
        const lspan_side_array *side = &c->side[array - 2];
        move.data = (char *)side->data + head * side->head_stride * side->element_bytes;
        move.row_bytes = move.stride_bytes = side->element_bytes;
    }
    call->context->kernels->move_rows(&move);
}

lspan_status lspan_compact(const lspan_context *context, const lspan_compaction *compaction)
{
    const lspan_compaction *c = compaction;
    LSPAN_CHECK(check_compaction(context, c));
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_status_ok;
    compact_call call = {context, c};
    int64_t moved = lspan_moved_rows(c), units = c->heads * (c->side_count + 2);
    if (moved * c->head_dim < LSPAN_SERIAL_ELEMENTS) {
        for (int64_t u = 0; moved > 0 && u < units; u++) run_move(&call, (size_t)u, 0);
    } else {
        status = lspan_run_tasks(context, (size_t)units, run_move, &call);
    }
    if (lspan_profile_wants(began, status)) {
        lspan_cost cost = lspan_compact_cost(c);
        lspan_profile_record(context, began, lspan_profile_kernel_compact, (int)c->keys.dtype, cost);
    }
    return status;
}

/* ---- Keys at other positions ------------------------------------------------------------------------- */

static lspan_status check_shifts(const lspan_rope_shifting *s)
{
    int64_t rows = s->shift_head_stride == 0 ? 1 : s->heads, end = s->table_first + s->table_rows, span;
    LSPAN_CHECK(lspan_multiply(rows, s->shift_head_stride, &span));
    LSPAN_CHECK(lspan_multiply(span, (int64_t)sizeof *s->shifts, &span));
    if (!s->shifts) return lspan_status_null_pointer;
    LSPAN_CHECK(lspan_check_aligned(s->shifts, sizeof *s->shifts));
    for (int64_t h = 0; h < rows; h++) {
        for (int64_t t = 0; t < s->tokens; t++) {
            int64_t shift = s->shifts[h * s->shift_head_stride + t];
            if (shift < s->table_first || shift >= end) return lspan_status_bad_index;
        }
    }
    return lspan_status_ok;
}

static lspan_status check_rope_shift(const lspan_context *context, const lspan_rope_shifting *s, int64_t *elements)
{
    int64_t entries, end;
    if (!context || !s) return lspan_status_null_pointer;
    if (s->tokens < 0 || s->heads < 0 || s->head_dim < 0 || s->table_rows < 0) return lspan_status_bad_shape;
    if (s->pairs < 1 || s->pairs > s->head_dim / 2) return lspan_status_bad_shape;
    if (s->layout != lspan_rope_layout_halves && s->layout != lspan_rope_layout_interleaved) {
        return lspan_status_bad_dtype;
    }
    if (s->inverse != 0 && s->inverse != 1) return lspan_status_bad_value;
    if (s->shift_head_stride != 0 && s->shift_head_stride < s->tokens) return lspan_status_bad_stride;
    LSPAN_CHECK(lspan_multiply(s->tokens, s->heads, elements));
    LSPAN_CHECK(lspan_multiply(*elements, s->head_dim, elements));
    LSPAN_CHECK(lspan_multiply(s->table_rows, s->pairs, &entries));
    if (__builtin_add_overflow(s->table_first, s->table_rows, &end)) return lspan_status_overflow;
    LSPAN_CHECK(lspan_check_heads_out(s->keys, s->tokens, s->heads, s->head_dim));
    LSPAN_CHECK(lspan_check_floats(s->cosine, entries));
    LSPAN_CHECK(lspan_check_floats(s->sine, entries));
    return *elements == 0 ? lspan_status_ok : check_shifts(s);
}

static void shift_rows(const lspan_context *context, const void *argument, int64_t first, int64_t end)
{
    context->kernels->rope_shift(argument, first, end);
}

lspan_status lspan_rope_shift(const lspan_context *context, const lspan_rope_shifting *shifting)
{
    int64_t elements;
    LSPAN_CHECK(check_rope_shift(context, shifting, &elements));
    uint64_t began = lspan_profile_begin(context);
    int64_t rows = shifting->tokens * shifting->heads;
    lspan_status status = lspan_run_written_rows(context, rows, elements, shift_rows, shifting);
    if (lspan_profile_wants(began, status)) {
        lspan_cost cost = lspan_rope_shift_cost(shifting);
        lspan_profile_record(context, began, lspan_profile_kernel_rope_shift, (int)shifting->keys.dtype, cost);
    }
    return status;
}
