/* attention.c: attention over all keys, and over listed ones. */
#include "adapter.h"
#include <math.h>

typedef struct attention_op {
    adapter_op base;
    /* All of a call but data pointers and the keys' range; dense attention uses the first member only. */
    lspan_sparse_attention call;
    bool sparse;
    bool decode;
    int lengths; /* which operand, or 0 */
    int64_t query_rows[2];
    int64_t indptr[]; /* of one batch entry */
} attention_op;

static const char *byte_of(const struct ggml_tensor *tensor, int64_t batch)
{
    return (const char *)tensor->data + (size_t)batch * tensor->nb[3];
}

static lspan_status run_batch_entry(const attention_op *op, const lspan_sparse_attention *call)
{
    const lspan_ggml *adapter = op->base.adapter;
    const lspan_context *context = adapter->context;
    void *workspace = adapter->workspace;
    size_t bytes = adapter->workspace_bytes;
    if (op->sparse && op->decode) return lspan_sparse_decode(context, call, workspace, bytes);
    if (op->sparse) return lspan_sparse_prefill(context, call, workspace, bytes);
    if (op->decode) return lspan_attention_decode(context, &call->attention, workspace, bytes);
    return lspan_attention_prefill(context, &call->attention, workspace, bytes);
}

static lspan_status run_attention(const adapter_op *base, const struct ggml_tensor *dst)
{
    const attention_op *op = (const attention_op *)base;
    const struct ggml_tensor *q = dst->src[0], *k = dst->src[1], *v = dst->src[2];
    int64_t kv_rows[2] = {0, k->ne[1]};
    lspan_sparse_attention call = op->call;
    call.attention.kv_indptr = kv_rows;
    for (int64_t b = 0; b < q->ne[3]; b++) {
        if (op->lengths) kv_rows[1] = ((const int32_t *)dst->src[op->lengths]->data)[b];
        if (kv_rows[1] < 0 || kv_rows[1] > k->ne[1]) return lspan_status_bad_index;
        call.attention.queries.data = byte_of(q, b);
        call.attention.keys.data = byte_of(k, b);
        call.attention.values.data = byte_of(v, b);
        call.attention.output = (float *)dst->data + b * (int64_t)(dst->nb[3] / sizeof(float));
        if (op->sparse) call.indices = (const int32_t *)(const void *)byte_of(dst->src[3], b);
        lspan_status status = run_batch_entry(op, &call);
        if (status != lspan_status_ok) return status;
    }
    return lspan_status_ok;
}

/* The workspace of an operator whatever its keys' number turns out to be. A decode call cuts the keys in tasks of at least
 * some length and of whole tiles, so it may have more tasks, and partial results, with fewer keys; it has most where
 * neither rounds, with very many. */
static bool reserve(lspan_ggml *adapter, attention_op *op, int64_t keys)
{
    int64_t rows[2] = {0, keys};
    size_t bytes = 0, most = 0;
    lspan_sparse_attention call = op->call;
    call.attention.kv_indptr = rows;
    const lspan_attention *a = &call.attention;
    const lspan_context *context = adapter->context;
    lspan_status status;
    if (op->sparse) {
        status = op->decode ? lspan_sparse_decode_workspace_size(context, &call, &bytes)
                            : lspan_sparse_prefill_workspace_size(context, &call, &bytes);
    } else {
        status = op->decode ? lspan_attention_decode_workspace_size(context, a, &bytes)
                            : lspan_attention_prefill_workspace_size(context, a, &bytes);
    }
    if (!adapter_accepts(adapter, status, "attention")) return false;
    if (op->decode) {
        rows[1] = INT32_MAX;
        call.attention.window = 0;
        status = lspan_attention_decode_workspace_size(context, a, &most);
        if (!adapter_accepts(adapter, status, "attention")) return false;
    }
    return adapter_reserve(adapter, bytes > most ? bytes : most);
}

/* Whether the operands fit one another, and the call's dtypes. */
static bool check_operands(
    lspan_ggml *adapter, const struct ggml_tensor *q, const struct ggml_tensor *k, const struct ggml_tensor *v,
    lspan_attention *call)
{
    if (!adapter_dtype(q->type, &call->queries.dtype)) {
        return adapter_refuse(adapter, "queries are %s, not f32, f16 or bf16", ggml_type_name(q->type));
    }
    if (!adapter_dtype(k->type, &call->keys.dtype)) {
        return adapter_refuse(adapter, "keys are %s, not f32, f16 or bf16", ggml_type_name(k->type));
    }
    if (v->type != k->type) {
        return adapter_refuse(
            adapter, "values are %s where keys are %s", ggml_type_name(v->type), ggml_type_name(k->type));
    }
    if (!adapter_strided(q) || !adapter_strided(k) || !adapter_strided(v)) {
        return adapter_refuse(adapter, "the first stride of queries, keys and values must be one element");
    }
    if (q->ne[0] != k->ne[0] || v->ne[0] != k->ne[0]) {
        return adapter_refuse(
            adapter, "queries, keys and values have head dimensions %lld, %lld and %lld", (long long)q->ne[0],
            (long long)k->ne[0], (long long)v->ne[0]);
    }
    if (v->ne[1] != k->ne[1] || v->ne[2] != k->ne[2]) {
        return adapter_refuse(adapter, "keys and values differ in tokens or heads");
    }
    if (k->ne[3] != q->ne[3] || v->ne[3] != q->ne[3]) {
        return adapter_refuse(adapter, "queries, keys and values differ in batch entries");
    }
    return true;
}

static bool check_parameters(
    lspan_ggml *adapter, const struct ggml_tensor *q, lspan_ggml_visibility visibility, float scale, float softcap)
{
    if (!isfinite(scale)) return adapter_refuse(adapter, "the scale is not finite");
    if (!isfinite(softcap) || softcap < 0) return adapter_refuse(adapter, "logit_softcap is negative or not finite");
    if (visibility.window < 0 || visibility.sinks < 0) {
        return adapter_refuse(adapter, "a window or a number of sinks is negative");
    }
    if (visibility.sinks > 0 && visibility.window == 0) {
        return adapter_refuse(adapter, "sinks without a window: all keys are seen as it is");
    }
    const struct ggml_tensor *lengths = visibility.lengths;
    if (lengths && (lengths->type != GGML_TYPE_I32 || lengths->ne[0] != q->ne[3] || !ggml_is_vector(lengths) ||
                    !ggml_is_contiguous(lengths))) {
        return adapter_refuse(adapter, "lengths are not I32 of [%lld]", (long long)q->ne[3]);
    }
    return true;
}

static lspan_heads view_of(const struct ggml_tensor *tensor, lspan_dtype dtype)
{
    return (lspan_heads){
        .dtype = dtype, .token_stride = adapter_stride(tensor, 1), .head_stride = adapter_stride(tensor, 2)};
}

/* A record with `lists` lists, whose indptr is not filled; NULL after a refusal. */
static attention_op *new_attention(
    lspan_ggml *adapter, struct ggml_tensor *const *operands, int64_t lists, lspan_ggml_visibility visibility, float scale,
    float softcap)
{
    const struct ggml_tensor *q = operands[0], *k = operands[1], *v = operands[2];
    lspan_attention call = {
        .sequences = 1, .query_heads = q->ne[2], .kv_heads = k->ne[2], .head_dim = q->ne[0],
        .output_token_stride = q->ne[2] * q->ne[0], .output_head_stride = q->ne[0], .scale = scale, .softcap = softcap,
        .causal = visibility.causal, .window = visibility.window, .sinks = visibility.sinks};
    if (!check_operands(adapter, q, k, v, &call)) return NULL;
    if (!check_parameters(adapter, q, visibility, scale, softcap)) return NULL;
    size_t bytes = sizeof(attention_op) + (size_t)(lists + 1) * sizeof(int64_t);
    attention_op *op = adapter_new_op(adapter, bytes, run_attention);
    if (!op) return NULL;
    call.queries = view_of(q, call.queries.dtype);
    call.keys = view_of(k, call.keys.dtype);
    call.values = view_of(v, call.keys.dtype);
    call.query_indptr = op->query_rows;
    op->query_rows[1] = q->ne[1];
    op->call.attention = call;
    op->decode = q->ne[1] <= LSPAN_ATTENTION_MAX_DECODE_TOKENS;
    return op;
}

static struct ggml_tensor *attention_node(
    struct ggml_context *ctx, attention_op *op, struct ggml_tensor **operands, int count, struct ggml_tensor *lengths)
{
    const struct ggml_tensor *q = operands[0];
    if (lengths) {
        op->lengths = count;
        operands[count++] = lengths;
    }
    const int64_t ne[4] = {q->ne[0], q->ne[2], q->ne[1], q->ne[3]};
    return adapter_node(ctx, &op->base, ne, operands, count);
}

struct ggml_tensor *lspan_ggml_attention(
    lspan_ggml *adapter, struct ggml_context *ctx, struct ggml_tensor *q, struct ggml_tensor *k, struct ggml_tensor *v,
    lspan_ggml_visibility visibility, float scale, float logit_softcap)
{
    struct ggml_tensor *operands[4] = {q, k, v};
    attention_op *op = new_attention(adapter, operands, 0, visibility, scale, logit_softcap);
    if (!op || !reserve(adapter, op, k->ne[1])) return NULL;
    return attention_node(ctx, op, operands, 3, visibility.lengths);
}

struct ggml_tensor *lspan_ggml_sparse_attention(
    lspan_ggml *adapter, struct ggml_context *ctx, struct ggml_tensor *q, struct ggml_tensor *k, struct ggml_tensor *v,
    struct ggml_tensor *indices, int64_t block, int64_t query_tokens, lspan_ggml_visibility visibility, float scale,
    float logit_softcap)
{
    int64_t tiles = query_tokens > 0 ? (q->ne[1] + query_tokens - 1) / query_tokens : 1;
    if (block < 1 || query_tokens < 0) return adapter_refuse(adapter, "a block, or its query tokens, are out of range");
    if (indices->type != GGML_TYPE_I32 || !ggml_is_contiguous(indices)) {
        return adapter_refuse(adapter, "indices are not contiguous I32");
    }
    if ((indices->ne[1] != 1 && indices->ne[1] != k->ne[2]) || indices->ne[2] != tiles || indices->ne[3] != q->ne[3]) {
        return adapter_refuse(
            adapter, "indices are not [entries, 1 or %lld, %lld, %lld]", (long long)k->ne[2], (long long)tiles,
            (long long)q->ne[3]);
    }
    struct ggml_tensor *operands[5] = {q, k, v, indices};
    int64_t lists = indices->ne[1] * tiles;
    attention_op *op = new_attention(adapter, operands, lists, visibility, scale, logit_softcap);
    if (!op) return NULL;
    op->sparse = true;
    op->call.block = block;
    op->call.list_heads = indices->ne[1];
    op->call.query_tokens = query_tokens;
    op->call.indptr = op->indptr;
    for (int64_t i = 0; i <= lists; i++) op->indptr[i] = i * indices->ne[0];
    if (!reserve(adapter, op, k->ne[1])) return NULL;
    return attention_node(ctx, op, operands, 4, visibility.lengths);
}
