/* sparse.c: entry points of sparse.h: validation, and what is recorded. */
#include "attention_plan.h"
#include "checks.h"
#include "kernels/attention_mask.h"
#include "profile_internal.h"

static void record(
    const lspan_context *context, uint64_t began, lspan_profile_kernel kernel, const lspan_attention *a, lspan_cost cost)
{
    lspan_profile_record(context, began, kernel, (int)a->keys.dtype, cost);
}

/* ---- Index lists ----------------------------------------------------------------------------------- */

/* Lists of the call, or overflow. */
static lspan_status count_lists(const lspan_sparse_attention *sparse, int64_t *lists)
{
    int64_t tiles = 0;
    for (int64_t b = 0; b < sparse->attention.sequences; b++) {
        if (__builtin_add_overflow(tiles, lspan_list_tiles(sparse, b), &tiles)) return lspan_status_overflow;
    }
    LSPAN_CHECK(lspan_multiply(tiles, sparse->list_heads, lists));
    return *lists == INT64_MAX ? lspan_status_overflow : lspan_status_ok;
}

/* Shapes, and where lists begin; `most` tiles a sequence. */
static lspan_status check_lists(const lspan_context *context, const lspan_sparse_attention *sparse, int64_t most)
{
    int64_t lists;
    if (!context || !sparse) return lspan_status_null_pointer;
    LSPAN_CHECK(lspan_check_attention_shapes(context, &sparse->attention));
    LSPAN_CHECK(lspan_check_slots(&sparse->attention));
    if (sparse->block < 1 || sparse->query_tokens < 0) return lspan_status_bad_shape;
    if (sparse->list_heads != 1 && sparse->list_heads != sparse->attention.kv_heads) return lspan_status_bad_shape;
    for (int64_t b = 0; b < sparse->attention.sequences; b++) {
        if (lspan_list_tiles(sparse, b) > most) return lspan_status_bad_shape;
    }
    LSPAN_CHECK(count_lists(sparse, &lists));
    LSPAN_CHECK(lspan_check_indptr(sparse->indptr, lists));
    return lspan_check_count(sparse->indptr[lists], sizeof *sparse->indices);
}

/* Entries are compared as unsigned numbers, so that negative ones are too large. */
static lspan_status check_entries(const lspan_sparse_attention *sparse)
{
    const lspan_attention *a = &sparse->attention;
    int64_t list = 0;
    for (int64_t b = 0; b < a->sequences; b++) {
        int64_t slots = a->kv_indptr[b + 1] - a->kv_indptr[b];
        uint32_t blocks = (uint32_t)(slots / sparse->block + (slots % sparse->block != 0)), outside = 0;
        int64_t end = list + lspan_list_tiles(sparse, b) * sparse->list_heads;
        if (sparse->indptr[end] > sparse->indptr[list]) {
            if (!sparse->indices) return lspan_status_null_pointer;
            LSPAN_CHECK(lspan_check_aligned(sparse->indices, sizeof *sparse->indices));
        }
        for (int64_t i = sparse->indptr[list]; i < sparse->indptr[end]; i++) {
            outside |= (uint32_t)sparse->indices[i] >= blocks;
        }
        if (outside) return lspan_status_bad_index;
        list = end;
    }
    return lspan_status_ok;
}

lspan_status lspan_sparse_prefill_workspace_size(
    const lspan_context *context, const lspan_sparse_attention *sparse, size_t *bytes)
{
    if (!bytes) return lspan_status_null_pointer;
    LSPAN_CHECK(check_lists(context, sparse, INT64_MAX));
    lspan_prefill_plan plan = {.context = context, .attention = &sparse->attention, .sparse = sparse};
    LSPAN_CHECK(lspan_plan_prefill(&plan));
    *bytes = lspan_prefill_bytes(&plan);
    return lspan_status_ok;
}

lspan_status lspan_sparse_prefill(
    const lspan_context *context, const lspan_sparse_attention *sparse, void *workspace, size_t workspace_bytes)
{
    LSPAN_CHECK(check_lists(context, sparse, INT64_MAX));
    LSPAN_CHECK(lspan_check_attention(context, &sparse->attention));
    LSPAN_CHECK(check_entries(sparse));
    lspan_prefill_plan plan = {.context = context, .attention = &sparse->attention, .sparse = sparse};
    LSPAN_CHECK(lspan_plan_prefill(&plan));
    LSPAN_CHECK(lspan_check_workspace(workspace, workspace_bytes, lspan_prefill_bytes(&plan)));
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_run_prefill(&plan, workspace);
    if (lspan_profile_wants(began, status)) {
        record(context, began, lspan_profile_kernel_sparse_prefill, &sparse->attention, lspan_sparse_cost(sparse));
    }
    return status;
}

lspan_status lspan_sparse_decode_workspace_size(
    const lspan_context *context, const lspan_sparse_attention *sparse, size_t *bytes)
{
    if (!bytes) return lspan_status_null_pointer;
    LSPAN_CHECK(check_lists(context, sparse, 1));
    lspan_decode_plan plan = {.context = context, .attention = &sparse->attention, .sparse = sparse};
    LSPAN_CHECK(lspan_plan_decode(&plan));
    *bytes = lspan_decode_bytes(&plan);
    return lspan_status_ok;
}

lspan_status lspan_sparse_decode(
    const lspan_context *context, const lspan_sparse_attention *sparse, void *workspace, size_t workspace_bytes)
{
    LSPAN_CHECK(check_lists(context, sparse, 1));
    LSPAN_CHECK(lspan_check_attention(context, &sparse->attention));
    LSPAN_CHECK(check_entries(sparse));
    lspan_decode_plan plan = {.context = context, .attention = &sparse->attention, .sparse = sparse};
    LSPAN_CHECK(lspan_plan_decode(&plan));
    LSPAN_CHECK(lspan_check_workspace(workspace, workspace_bytes, lspan_decode_bytes(&plan)));
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_run_decode(&plan, workspace);
    if (lspan_profile_wants(began, status)) {
        record(context, began, lspan_profile_kernel_sparse_decode, &sparse->attention, lspan_sparse_cost(sparse));
    }
    return status;
}

/* ---- Lag windows ----------------------------------------------------------------------------------- */

/* Windows whose kept slots a query of the call sees: as many as its last query. */
static int64_t seen_windows(const lspan_lag_attention *lag)
{
    const lspan_attention *a = &lag->attention;
    int64_t behind = a->sequences == 0 || a->query_indptr[1] == 0 ? 0 : a->kv_indptr[1] - lag->leading;
    return behind == 0 ? 0 : lspan_kept_windows(lag, (behind - 1) / lag->lag);
}

static lspan_status check_windows(const lspan_context *context, const lspan_lag_attention *lag)
{
    if (!context || !lag) return lspan_status_null_pointer;
    const lspan_attention *a = &lag->attention;
    LSPAN_CHECK(lspan_check_attention_shapes(context, a));
    if (a->sequences > 1) return lspan_status_bad_shape;
    if (a->causal != 1 || a->window != 0 || a->kv_lengths) return lspan_status_bad_value;
    LSPAN_CHECK(lspan_check_slots(a));
    if (lag->leading < 0 || lag->leading > (a->sequences == 0 ? 0 : a->kv_indptr[1])) return lspan_status_bad_shape;
    if (lag->lag < 1 || lag->raw_windows < 1 || lag->keep < 0 || lag->keep > lag->lag) return lspan_status_bad_shape;
    return lag->kept_windows < seen_windows(lag) ? lspan_status_bad_shape : lspan_status_ok;
}

/* The slots kept of each window that is seen. */
static lspan_status check_kept(const lspan_lag_attention *lag)
{
    int64_t windows = seen_windows(lag), slots;
    if (windows == 0 || lag->keep == 0) return lspan_status_ok;
    LSPAN_CHECK(lspan_multiply(lag->kept_windows, lag->keep, &slots));
    LSPAN_CHECK(lspan_multiply(slots, lag->attention.kv_heads, &slots));
    if (!lag->kept) return lspan_status_null_pointer;
    LSPAN_CHECK(lspan_check_aligned(lag->kept, sizeof *lag->kept));
    LSPAN_CHECK(lspan_check_count(slots, sizeof *lag->kept));
    for (int64_t h = 0; h < lag->attention.kv_heads; h++) {
        for (int64_t m = 0; m < windows; m++) {
            const int32_t *kept = lag->kept + (h * lag->kept_windows + m) * lag->keep;
            int64_t least = lag->leading + m * lag->lag, end = least + lag->lag;
            for (int64_t i = 0; i < lag->keep; i++) {
                if (kept[i] < least || kept[i] >= end) return lspan_status_bad_index;
                least = (int64_t)kept[i] + 1;
            }
        }
    }
    return lspan_status_ok;
}

lspan_status lspan_lag_prefill_workspace_size(
    const lspan_context *context, const lspan_lag_attention *lag, size_t *bytes)
{
    if (!bytes) return lspan_status_null_pointer;
    LSPAN_CHECK(check_windows(context, lag));
    lspan_prefill_plan plan = {.context = context, .attention = &lag->attention, .lag = lag};
    LSPAN_CHECK(lspan_plan_prefill(&plan));
    *bytes = lspan_prefill_bytes(&plan);
    return lspan_status_ok;
}

lspan_status lspan_lag_prefill(
    const lspan_context *context, const lspan_lag_attention *lag, void *workspace, size_t workspace_bytes)
{
    LSPAN_CHECK(check_windows(context, lag));
    LSPAN_CHECK(lspan_check_attention(context, &lag->attention));
    LSPAN_CHECK(check_kept(lag));
    lspan_prefill_plan plan = {.context = context, .attention = &lag->attention, .lag = lag};
    LSPAN_CHECK(lspan_plan_prefill(&plan));
    LSPAN_CHECK(lspan_check_workspace(workspace, workspace_bytes, lspan_prefill_bytes(&plan)));
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_run_prefill(&plan, workspace);
    if (lspan_profile_wants(began, status)) {
        record(context, began, lspan_profile_kernel_lag_prefill, &lag->attention, lspan_lag_cost(lag));
    }
    return status;
}
