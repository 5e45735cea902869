/* scan.c: the scans of Mamba and Mamba-2 with ggml_ssm_scan's arguments. */
#include "adapter.h"
#include <math.h>

enum { operand_s, operand_x, operand_dt, operand_a, operand_b, operand_c, operand_ids, operand_count };

static const char *const names[operand_count] = {"s", "x", "dt", "A", "B", "C", "ids"};

typedef struct scan_op {
    adapter_op base;
    /* All of a call but its sequences and data pointers; one of them. */
    lspan_selective_scan selective;
    lspan_ssd_scan ssd;
    bool scalar_decay; /* Mamba-2 */
    bool packed;       /* sequences lie one behind the other in every operand */
    int64_t tokens;
    int64_t states; /* elements of a sequence's */
    int64_t indptr[];
} scan_op;

static const float *floats_of(const struct ggml_tensor *tensor, size_t offset)
{
    return (const float *)(const void *)((const char *)tensor->data + offset);
}

/* Sequences first .. end-1, which start from consecutive states. */
static lspan_status run_sequences(const scan_op *op, const struct ggml_tensor *dst, int64_t first, int64_t end)
{
    struct ggml_tensor *const *src = dst->src;
    const lspan_ggml *adapter = op->base.adapter;
    size_t f = (size_t)first;
    int64_t id = ((const int32_t *)src[operand_ids]->data)[first];
    const float *s = floats_of(src[operand_s], 0) + id * op->states;
    const float *x = floats_of(src[operand_x], f * src[operand_x]->nb[3]);
    const float *dt = floats_of(src[operand_dt], f * src[operand_dt]->nb[2]);
    const float *a = floats_of(src[operand_a], 0);
    const float *b = floats_of(src[operand_b], f * src[operand_b]->nb[3]);
    const float *c = floats_of(src[operand_c], f * src[operand_c]->nb[3]);
    int64_t row = src[operand_x]->ne[0] * src[operand_x]->ne[1];
    float *y = (float *)dst->data + first * op->tokens * row;
    float *after = (float *)dst->data + ggml_nelements(src[operand_x]) + first * op->states;
    if (op->scalar_decay) {
        lspan_ssd_scan scan = op->ssd;
        scan.sequences = end - first;
        scan.input.data = x;
        scan.dt.data = dt;
        scan.a = a;
        scan.b.data = b;
        scan.c.data = c;
        scan.initial_state = s;
        scan.final_state = after;
        scan.output.data = y;
        return lspan_ssd_scan_run(adapter->context, &scan, adapter->workspace, adapter->workspace_bytes);
    }
    lspan_selective_scan scan = op->selective;
    scan.sequences = end - first;
    scan.input.data = x;
    scan.dt.data = dt;
    scan.a = a;
    scan.b.data = b;
    scan.c.data = c;
    scan.initial_state = s;
    scan.final_state = after;
    scan.output.data = y;
    if (op->tokens <= LSPAN_SSM_MAX_UPDATE_TOKENS) return lspan_selective_update(adapter->context, &scan);
    return lspan_selective_scan_run(adapter->context, &scan, adapter->workspace, adapter->workspace_bytes);
}

static lspan_status run_scan(const adapter_op *base, const struct ggml_tensor *dst)
{
    const scan_op *op = (const scan_op *)base;
    const int32_t *ids = dst->src[operand_ids]->data;
    int64_t sequences = dst->src[operand_x]->ne[3], states = dst->src[operand_s]->ne[3];
    for (int64_t i = 0; i < sequences; i++) {
        if (ids[i] < 0 || ids[i] >= states) return lspan_status_bad_index;
    }
    for (int64_t first = 0, end; first < sequences; first = end) {
        for (end = first + 1; op->packed && end < sequences && ids[end] == ids[end - 1] + 1;) end++;
        lspan_status status = run_sequences(op, dst, first, end);
        if (status != lspan_status_ok) return status;
    }
    return lspan_status_ok;
}

/* The most that a call for one to all sequences needs. */
static bool reserve(lspan_ggml *adapter, scan_op *op, int64_t sequences)
{
    /* a final state there will be, which is not looked at here */
    float state = 0;
    lspan_selective_scan selective = op->selective;
    lspan_ssd_scan ssd = op->ssd;
    ssd.final_state = selective.final_state = &state;
    size_t most = 0;
    for (int64_t n = 1; n <= sequences; n++) {
        size_t bytes = 0;
        ssd.sequences = selective.sequences = n;
        lspan_status status = op->scalar_decay
                                  ? lspan_ssd_scan_workspace_size(adapter->context, &ssd, &bytes)
                                  : lspan_selective_scan_workspace_size(adapter->context, &selective, &bytes);
        if (!adapter_accepts(adapter, status, "ssm_scan")) return false;
        if (bytes > most) most = bytes;
    }
    return adapter_reserve(adapter, most);
}

/* The layouts that ggml_ssm_scan asserts. */
static bool check_layouts(lspan_ggml *adapter, struct ggml_tensor *const *src)
{
    for (int i = 0; i < operand_count; i++) {
        enum ggml_type type = i == operand_ids ? GGML_TYPE_I32 : GGML_TYPE_F32;
        bool rows = i == operand_x || i == operand_b || i == operand_c;
        if (src[i]->type != type) {
            return adapter_refuse(
                adapter, "%s is %s, not %s", names[i], ggml_type_name(src[i]->type), ggml_type_name(type));
        }
        if (!rows && !ggml_is_contiguous(src[i])) return adapter_refuse(adapter, "%s is not contiguous", names[i]);
        if (rows && (!adapter_strided(src[i]) || src[i]->nb[1] != (size_t)src[i]->ne[0] * src[i]->nb[0])) {
            return adapter_refuse(adapter, "the first two dimensions of %s are not contiguous", names[i]);
        }
    }
    return true;
}

static bool has_shape(const struct ggml_tensor *tensor, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return tensor->ne[0] == a && tensor->ne[1] == b && tensor->ne[2] == c && tensor->ne[3] == d;
}

static bool check_shapes(lspan_ggml *adapter, struct ggml_tensor *const *src)
{
    const struct ggml_tensor *s = src[operand_s], *x = src[operand_x], *a = src[operand_a], *b = src[operand_b];
    int64_t state = s->ne[0], dim = x->ne[0], heads = x->ne[1], tokens = x->ne[2], sequences = x->ne[3];
    if (s->ne[1] != dim || s->ne[2] != heads) return adapter_refuse(adapter, "s is not [d_state, dim, n_head, states] of x");
    if (!has_shape(src[operand_dt], heads, tokens, sequences, 1)) {
        return adapter_refuse(adapter, "dt is not [n_head, n_seq_tokens, n_seqs] of x");
    }
    if (!has_shape(b, state, b->ne[1], tokens, sequences) || !ggml_are_same_shape(b, src[operand_c])) {
        return adapter_refuse(adapter, "B and C are not [d_state, n_group, n_seq_tokens, n_seqs] of s and x");
    }
    if (!has_shape(src[operand_ids], sequences, 1, 1, 1)) return adapter_refuse(adapter, "ids are not [n_seqs] of x");
    if (!has_shape(a, a->ne[0], heads, 1, 1) || (a->ne[0] != 1 && a->ne[0] != state)) {
        return adapter_refuse(adapter, "A is neither [1, n_head] nor [d_state, n_head] of s and x");
    }
    if (a->ne[0] != 1 && dim != 1) {
        return adapter_refuse(adapter, "A of [d_state, n_head] with heads of %lld channels, not 1", (long long)dim);
    }
    return true;
}

static bool is_packed(const struct ggml_tensor *tensor)
{
    return tensor->ne[3] == 1 || tensor->nb[3] == tensor->nb[2] * (size_t)tensor->ne[2];
}

struct ggml_tensor *lspan_ggml_ssm_scan(
    lspan_ggml *adapter, struct ggml_context *ctx, struct ggml_tensor *s, struct ggml_tensor *x, struct ggml_tensor *dt,
    struct ggml_tensor *A, struct ggml_tensor *B, struct ggml_tensor *C, struct ggml_tensor *ids)
{
    struct ggml_tensor *src[operand_count] = {s, x, dt, A, B, C, ids};
    if (!check_layouts(adapter, src) || !check_shapes(adapter, src)) return NULL;
    int64_t state = s->ne[0], dim = x->ne[0], heads = x->ne[1], tokens = x->ne[2], sequences = x->ne[3];
    scan_op *op = adapter_new_op(adapter, sizeof *op + (size_t)(sequences + 1) * sizeof(int64_t), run_scan);
    if (!op) return NULL;
    for (int64_t i = 0; i <= sequences; i++) op->indptr[i] = i * tokens;
    op->scalar_decay = A->ne[0] == 1;
    op->packed = is_packed(x) && is_packed(B) && is_packed(C);
    op->tokens = tokens;
    op->states = state * dim * heads;
    const lspan_dt_rule rule = {.softplus = 1, .maximum = INFINITY};
    const lspan_heads b = {.token_stride = adapter_stride(B, 2), .head_stride = state};
    const lspan_heads c = {.token_stride = adapter_stride(C, 2), .head_stride = state};
    int64_t step = adapter_stride(x, 2);
    if (op->scalar_decay) {
        op->ssd = (lspan_ssd_scan){
            .indptr = op->indptr, .heads = heads, .head_dim = dim, .state_size = state, .groups = B->ne[1],
            .input = {.token_stride = step, .head_stride = dim}, .dt = {.row_stride = heads}, .rule = rule, .b = b, .c = c,
            .state_stride = op->states, .output = {.token_stride = dim * heads, .head_stride = dim}};
    } else {
        op->selective = (lspan_selective_scan){
            .indptr = op->indptr, .channels = heads, .state_size = state, .groups = B->ne[1], .input = {.row_stride = step},
            .dt = {.row_stride = heads}, .rule = rule, .b = b, .c = c, .state_stride = op->states,
            .output = {.row_stride = heads}};
    }
    if (!reserve(adapter, op, sequences)) return NULL;
    const int64_t ne[4] = {ggml_nelements(x) + op->states * sequences, 1, 1, 1};
    return adapter_node(ctx, &op->base, ne, src, operand_count);
}
