/* kernel_calls_attention.c: calls of attention.h and sparse.h, see kernel_calls.h. */
#include "attention_support.h"
#include "kernel_calls.h"

KERNEL_WITH_WORKSPACE(attention_prefill, lspan_attention_prefill, lspan_attention)
KERNEL_WITH_WORKSPACE(attention_decode, lspan_attention_decode, lspan_attention)
KERNEL_WITH_WORKSPACE(sparse_prefill, lspan_sparse_prefill, lspan_sparse_attention)
KERNEL_WITH_WORKSPACE(sparse_decode, lspan_sparse_decode, lspan_sparse_attention)
KERNEL_WITH_WORKSPACE(lag_prefill, lspan_lag_prefill, lspan_lag_attention)

typedef struct merge_arguments {
    int64_t parts, rows, head_dim;
    const float *outputs, *log_sum_exps;
    float *output, *log_sum_exp;
} merge_arguments;

KERNEL_WITH_PARAMETERS(
    attention_merge, merge_arguments, call->parts, call->rows, call->head_dim, call->outputs, call->log_sum_exps,
    call->output, call->log_sum_exp)

/* A call of these shapes whose outputs belong to `call`. */
static lspan_attention attention(kernel_call *call, const attention_spec *spec)
{
    attention_case *c = test_malloc(1, sizeof *c);
    *c = attention_make(spec);
    lspan_attention a = attention_call(c);
    a.output = kernel_call_output(call, c->rows * spec->head_dim, sizeof(float));
    a.output_token_stride = a.query_heads * a.head_dim;
    a.output_head_stride = a.head_dim;
    a.log_sum_exp = kernel_call_output(call, c->rows, sizeof(float));
    return a;
}

static void add_dense(kernel_size size, kernel_run run, const char *name, attention_spec spec)
{
    kernel_call *call = kernel_call_add(size, run, NULL, "%s", name);
    spec.spread = 1;
    call->arguments = KERNEL_KEEP(lspan_attention, {0});
    *(lspan_attention *)call->arguments = attention(call, &spec);
}

static void add_decode(void)
{
    const kernel_size size = size_attention_decode;
    const kernel_run run = run_attention_decode;
    const lspan_dtype bf16 = lspan_dtype_bf16, f16 = lspan_dtype_f16;
    add_dense(size, run, "attention_decode of one long sequence", (attention_spec){
        .sequences = 1, .tokens = {1}, .keys = {9000}, .kv_heads = 1, .group = 2, .head_dim = 32, .causal = 1});
    add_dense(size, run, "attention_decode in bf16", (attention_spec){
        .sequences = 1, .tokens = {2}, .keys = {6000}, .kv_heads = 1, .group = 2, .head_dim = 64, .query_dtype = bf16,
        .kv_dtype = bf16, .causal = 1});
    add_dense(size, run, "attention_decode of a batch with a window", (attention_spec){
        .sequences = 3, .tokens = {1, 4, 0}, .keys = {4100, 2500, 7}, .kv_heads = 2, .group = 3, .head_dim = 16,
        .kv_dtype = f16, .causal = 1, .window = 3000, .sinks = 4, .softcap = 30});
    add_dense(size, run, "attention_decode with lengths of heads", (attention_spec){
        .sequences = 2, .tokens = {1, 8}, .keys = {5000, 3000}, .kv_heads = 2, .group = 1, .head_dim = 24, .causal = 1,
        .own_lengths = 1});
    add_dense(size, run, "attention_decode with rotated keys", (attention_spec){
        .sequences = 1, .tokens = {1}, .keys = {4000}, .kv_heads = 1, .group = 2, .head_dim = 32, .kv_dtype = bf16,
        .causal = 1, .rotation = 2});
}

static void add_prefill(void)
{
    const kernel_size size = size_attention_prefill;
    const kernel_run run = run_attention_prefill;
    const lspan_dtype bf16 = lspan_dtype_bf16, f16 = lspan_dtype_f16;
    add_dense(size, run, "attention_prefill", (attention_spec){
        .sequences = 1, .tokens = {110}, .keys = {230}, .kv_heads = 1, .group = 3, .head_dim = 32, .causal = 1});
    add_dense(size, run, "attention_prefill in bf16", (attention_spec){
        .sequences = 2, .tokens = {70, 30}, .keys = {70, 90}, .kv_heads = 2, .group = 2, .head_dim = 32,
        .query_dtype = bf16, .kv_dtype = bf16, .causal = 1});
    add_dense(size, run, "attention_prefill with a window", (attention_spec){
        .sequences = 1, .tokens = {130}, .keys = {200}, .kv_heads = 1, .group = 3, .head_dim = 24, .kv_dtype = f16,
        .causal = 1, .window = 60, .sinks = 3, .softcap = 20});
    add_dense(size, run, "attention_prefill with lengths of heads", (attention_spec){
        .sequences = 2, .tokens = {60, 50}, .keys = {120, 80}, .kv_heads = 2, .group = 2, .head_dim = 16, .causal = 1,
        .own_lengths = 1});
    add_dense(size, run, "attention_prefill with rotated keys", (attention_spec){
        .sequences = 1, .tokens = {110}, .keys = {110}, .kv_heads = 1, .group = 2, .head_dim = 16, .causal = 1,
        .rotation = 1});
}

/* Every list holds every second to fourth entry. */
static void add_sparse(kernel_size size, kernel_run run, const char *name, attention_spec spec, int64_t block, int64_t query_tokens)
{
    kernel_call *call = kernel_call_add(size, run, NULL, "%s", name);
    spec.spread = 1;
    lspan_sparse_attention *s = KERNEL_KEEP(lspan_sparse_attention, {0});
    *s = (lspan_sparse_attention){
        .attention = attention(call, &spec), .block = block, .list_heads = spec.kv_heads, .query_tokens = query_tokens};
    int64_t tiles = 0, most = 0;
    for (int64_t b = 0; b < spec.sequences; b++) {
        int64_t of_sequence = query_tokens == 0 ? 1 : (spec.tokens[b] + query_tokens - 1) / query_tokens;
        tiles += of_sequence;
        most += of_sequence * spec.kv_heads * spec.keys[b];
    }
    int64_t *indptr = test_malloc(tiles * spec.kv_heads + 1, sizeof *indptr), list = 0, count = 0;
    int32_t *indices = test_malloc(most, sizeof *indices);
    for (int64_t b = 0; b < spec.sequences; b++) {
        int64_t of_sequence = query_tokens == 0 ? 1 : (spec.tokens[b] + query_tokens - 1) / query_tokens;
        for (int64_t l = 0; l < of_sequence * spec.kv_heads; l++) {
            for (int64_t e = test_random_int(0, 1); e < (spec.keys[b] + block - 1) / block; e += test_random_int(2, 4)) {
                indices[count++] = (int32_t)e;
            }
            indptr[++list] = count;
        }
    }
    s->indptr = indptr;
    s->indices = indices;
    call->arguments = s;
}

static void add_lag(void)
{
    enum { leading = 3, lag = 32, keep = 10, slots = 200, windows = (slots - leading) / lag };
    attention_spec spec = {.sequences = 1, .tokens = {slots}, .keys = {slots}, .kv_heads = 2, .group = 2, .head_dim = 32,
        .causal = 1, .spread = 1};
    kernel_call *call = kernel_call_add(size_lag_prefill, run_lag_prefill, NULL, "lag_prefill");
    int32_t *kept = test_malloc(spec.kv_heads * windows * keep, sizeof *kept);
    for (int64_t i = 0; i < spec.kv_heads * windows * keep; i++) {
        kept[i] = (int32_t)(leading + i / keep % windows * lag + 3 * (i % keep));
    }
    lspan_lag_attention *l = KERNEL_KEEP(lspan_lag_attention, {0});
    *l = (lspan_lag_attention){.attention = attention(call, &spec), .leading = leading, .lag = lag, .raw_windows = 2,
        .keep = keep, .kept_windows = windows, .kept = kept};
    call->arguments = l;
}

static void add_merge(void)
{
    enum { parts = 5, rows = 301, head_dim = 56 };
    kernel_call *call = kernel_call_add(NULL, run_attention_merge, NULL, "attention_merge");
    float *outputs = test_floats(parts * rows * head_dim, 1), *log_sum_exps = test_floats(parts * rows, 2);
    call->arguments = KERNEL_KEEP(merge_arguments, {
        parts, rows, head_dim, outputs, log_sum_exps, kernel_call_output(call, rows * head_dim, sizeof(float)),
        kernel_call_output(call, rows, sizeof(float))});
}

void kernel_calls_attention(void)
{
    const attention_spec decode = {.sequences = 2, .tokens = {1, 3}, .keys = {14000, 3000}, .kv_heads = 1, .group = 2,
        .head_dim = 32, .kv_dtype = lspan_dtype_f16, .causal = 1};
    const attention_spec prefill = {.sequences = 2, .tokens = {90, 40}, .keys = {150, 40}, .kv_heads = 2, .group = 2,
        .head_dim = 32, .causal = 1};
    add_decode();
    add_prefill();
    add_sparse(size_sparse_decode, run_sparse_decode, "sparse_decode of tokens", decode, 1, 0);
    add_sparse(size_sparse_decode, run_sparse_decode, "sparse_decode of blocks", decode, 16, 0);
    add_sparse(size_sparse_prefill, run_sparse_prefill, "sparse_prefill of tokens", prefill, 1, 32);
    add_sparse(size_sparse_prefill, run_sparse_prefill, "sparse_prefill of blocks", prefill, 16, 0);
    add_lag();
    add_merge();
}
