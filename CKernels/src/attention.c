/* attention.c: entry points of attention.h: validation, and what is recorded. */
#include "attention_plan.h"
#include "checks.h"
#include "kernels/attention_mask.h"
#include "profile_internal.h"
#include <math.h>

#define MAX_QUERY_HEADS (INT64_C(1) << 20)

static lspan_status check_kv_lengths(const lspan_attention *a)
{
    if (!a->kv_lengths) return lspan_status_ok;
    LSPAN_CHECK(lspan_check_aligned(a->kv_lengths, sizeof *a->kv_lengths));
    for (int64_t b = 0; b < a->sequences; b++) {
        int64_t slots = a->kv_indptr[b + 1] - a->kv_indptr[b];
        for (int64_t h = 0; h < a->kv_heads; h++) {
            int64_t keys = a->kv_lengths[b * a->kv_heads + h];
            if (keys < 0 || keys > slots) return lspan_status_bad_index;
        }
    }
    return lspan_status_ok;
}

lspan_status lspan_check_attention_shapes(const lspan_context *context, const lspan_attention *a)
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
    LSPAN_CHECK(lspan_check_indptr(a->kv_indptr, a->sequences));
    return check_kv_lengths(a);
}

lspan_status lspan_check_slots(const lspan_attention *a)
{
    for (int64_t b = 0; b < a->sequences; b++) {
        if (a->kv_indptr[b + 1] - a->kv_indptr[b] > INT32_MAX) return lspan_status_bad_shape;
    }
    return lspan_status_ok;
}

/* The most keys that a head of sequence b has. */
static int64_t longest_head(const lspan_attention *a, int64_t b)
{
    int64_t longest = 0;
    for (int64_t h = 0; h < a->kv_heads; h++) longest = lspan_max64(longest, lspan_keys_of_head(a, b, h));
    return longest;
}

static lspan_status check_rotation(const lspan_attention *a)
{
    const lspan_key_rotation *r = a->key_rotation;
    int64_t entries;
    if (!r) return lspan_status_ok;
    LSPAN_CHECK(lspan_check_aligned(r, _Alignof(lspan_key_rotation)));
    if (r->layout != lspan_rope_layout_halves && r->layout != lspan_rope_layout_interleaved) return lspan_status_bad_dtype;
    if (r->pairs < 1 || r->pairs > a->head_dim / 2 || r->rows < 0) return lspan_status_bad_shape;
    LSPAN_CHECK(lspan_check_slots(a));
    LSPAN_CHECK(lspan_multiply(r->rows, r->pairs, &entries));
    LSPAN_CHECK(lspan_check_floats(r->cosine, entries));
    LSPAN_CHECK(lspan_check_floats(r->sine, entries));
    LSPAN_CHECK(lspan_check_aligned(r->positions, sizeof *r->positions));
    for (int64_t b = 0; b < a->sequences; b++) {
        int64_t keys = longest_head(a, b);
        if (!r->positions && keys > r->rows) return lspan_status_bad_shape;
        for (int64_t j = 0; r->positions && j < keys; j++) {
            int32_t position = r->positions[a->kv_indptr[b] + j];
            if (position < 0 || position >= r->rows) return lspan_status_bad_index;
        }
    }
    return lspan_status_ok;
}

lspan_status lspan_check_attention(const lspan_context *context, const lspan_attention *a)
{
    LSPAN_CHECK(lspan_check_attention_shapes(context, a));
    int64_t tokens = a->query_indptr[a->sequences], keys = a->kv_indptr[a->sequences];
    LSPAN_CHECK(lspan_check_heads(a->queries, tokens, a->query_heads, a->head_dim));
    LSPAN_CHECK(lspan_check_heads(a->keys, keys, a->kv_heads, a->head_dim));
    LSPAN_CHECK(lspan_check_heads(a->values, keys, a->kv_heads, a->head_dim));
    if (a->keys.dtype != a->values.dtype) return lspan_status_bad_dtype;
    lspan_heads_out output = {a->output, lspan_dtype_f32, a->output_token_stride, a->output_head_stride};
    LSPAN_CHECK(lspan_check_heads_out(output, tokens, a->query_heads, a->head_dim));
    LSPAN_CHECK(lspan_check_aligned(a->log_sum_exp, sizeof(float)));
    if (!isfinite(a->scale) || !isfinite(a->softcap) || a->softcap < 0) return lspan_status_bad_value;
    return check_rotation(a);
}

static void record(
    const lspan_context *context, uint64_t began, lspan_profile_kernel kernel, const lspan_attention *a)
{
    lspan_profile_record(context, began, kernel, (int)a->keys.dtype, lspan_attention_cost(a));
}

/* ---- Prefill and decode ---------------------------------------------------------------------------- */

lspan_status lspan_attention_prefill_workspace_size(
    const lspan_context *context, const lspan_attention *attention, size_t *bytes)
{
    if (!bytes) return lspan_status_null_pointer;
    LSPAN_CHECK(lspan_check_attention_shapes(context, attention));
    lspan_prefill_plan plan = {.context = context, .attention = attention};
    LSPAN_CHECK(lspan_plan_prefill(&plan));
    *bytes = lspan_prefill_bytes(&plan);
    return lspan_status_ok;
}

lspan_status lspan_attention_prefill(
    const lspan_context *context, const lspan_attention *attention, void *workspace, size_t workspace_bytes)
{
    LSPAN_CHECK(lspan_check_attention(context, attention));
    lspan_prefill_plan plan = {.context = context, .attention = attention};
    LSPAN_CHECK(lspan_plan_prefill(&plan));
    LSPAN_CHECK(lspan_check_workspace(workspace, workspace_bytes, lspan_prefill_bytes(&plan)));
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_run_prefill(&plan, workspace);
    if (lspan_profile_wants(began, status)) record(context, began, lspan_profile_kernel_attention_prefill, attention);
    return status;
}

lspan_status lspan_attention_decode_workspace_size(
    const lspan_context *context, const lspan_attention *attention, size_t *bytes)
{
    if (!bytes) return lspan_status_null_pointer;
    LSPAN_CHECK(lspan_check_attention_shapes(context, attention));
    lspan_decode_plan plan = {.context = context, .attention = attention};
    LSPAN_CHECK(lspan_plan_decode(&plan));
    *bytes = lspan_decode_bytes(&plan);
    return lspan_status_ok;
}

lspan_status lspan_attention_decode(
    const lspan_context *context, const lspan_attention *attention, void *workspace, size_t workspace_bytes)
{
    LSPAN_CHECK(lspan_check_attention(context, attention));
    lspan_decode_plan plan = {.context = context, .attention = attention};
    LSPAN_CHECK(lspan_plan_decode(&plan));
    LSPAN_CHECK(lspan_check_workspace(workspace, workspace_bytes, lspan_decode_bytes(&plan)));
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_run_decode(&plan, workspace);
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
