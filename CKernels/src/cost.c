/* cost.c: bytes, FLOPs and exponentials of every kernel call.
 *
 * No sum here overflows for a call that has ended: it would have taken centuries. */
#include "cost.h"
#include "kernels/attention_mask.h"

static int64_t size_of(lspan_dtype dtype)
{
    return (int64_t)lspan_dtype_size(dtype);
}

static int64_t keys_in(lspan_row_keys seen)
{
    return seen.sinks + seen.high - seen.low;
}

/* An attention call of so many pairs of a query token and a key, over all key/value heads, and keys that one sees. */
static lspan_cost attention_cost(const lspan_attention *a, int64_t pairs, int64_t keys_read)
{
    int64_t rows = a->query_indptr[a->sequences] * a->query_heads, group = a->query_heads / a->kv_heads;
    int64_t row_bytes = a->head_dim * (size_of(a->queries.dtype) + (int64_t)sizeof(float));
    if (a->log_sum_exp) row_bytes += (int64_t)sizeof(float);
    lspan_cost cost;
    cost.bytes = 2 * keys_read * a->head_dim * size_of(a->keys.dtype) + rows * row_bytes;
    cost.flops = 4 * group * a->head_dim * pairs;
    cost.exponentials = group * pairs;
    return cost;
}

lspan_cost lspan_attention_cost(const lspan_attention *a)
{
    /* heads differ only where each has a number of keys of its own */
    int64_t pairs = 0, keys_read = 0, heads = a->kv_lengths ? a->kv_heads : 1;
    for (int64_t b = 0; b < a->sequences; b++) {
        int64_t tokens = a->query_indptr[b + 1] - a->query_indptr[b];
        for (int64_t h = 0; h < heads && tokens > 0; h++) {
            int64_t keys = lspan_keys_of_head(a, b, h);
            keys_read += keys_in(lspan_keys_of_rows(a, 0, tokens - 1, tokens, keys));
            for (int64_t row = 0; row < tokens; row++) {
                pairs += keys_in(lspan_keys_of_rows(a, row, row, tokens, keys));
            }
        }
    }
    int64_t alike = a->kv_heads / heads;
    return attention_cost(a, pairs * alike, keys_read * alike);
}

/* Query tokens first .. end-1 of T that see a slot of `keys`. */
static int64_t rows_that_see(
    const lspan_attention *a, int64_t slot, int64_t first, int64_t end, int64_t tokens, int64_t keys)
{
    if (a->causal) first = lspan_max64(first, slot - keys + tokens);
    int64_t distance = keys - tokens + end - 1 - slot;
    /* the last ones may have left it behind */
    if (a->window > 0 && slot >= a->sinks && distance >= a->window) end -= distance - a->window + 1;
    return lspan_max64(0, end - first);
}

/* Pairs and keys of one list, for one head and query tokens first .. end-1. */
static void add_list(
    const lspan_sparse_attention *sparse, int64_t list, int64_t b, int64_t head, int64_t first, int64_t end,
    int64_t *pairs, int64_t *keys_read)
{
    const lspan_attention *a = &sparse->attention;
    int64_t tokens = a->query_indptr[b + 1] - a->query_indptr[b], keys = lspan_keys_of_head(a, b, head);
    for (int64_t i = sparse->indptr[list]; i < sparse->indptr[list + 1]; i++) {
        int64_t slot = sparse->indices[i] * sparse->block;
        int64_t slots = lspan_min64(sparse->block, keys - slot);
        for (int64_t j = 0; j < slots; j++) {
            int64_t rows = rows_that_see(a, slot + j, first, end, tokens, keys);
            *pairs += rows;
            *keys_read += rows > 0;
        }
    }
}

lspan_cost lspan_sparse_cost(const lspan_sparse_attention *sparse)
{
    const lspan_attention *a = &sparse->attention;
    int64_t pairs = 0, keys_read = 0, entries = 0, list = 0;
    for (int64_t b = 0; b < a->sequences; b++) {
        int64_t tokens = a->query_indptr[b + 1] - a->query_indptr[b];
        int64_t step = sparse->query_tokens > 0 ? lspan_min64(sparse->query_tokens, tokens) : tokens;
        if (tokens == 0 && sparse->query_tokens == 0) list += sparse->list_heads;
        for (int64_t first = 0; first < tokens; first += step, list += sparse->list_heads) {
            int64_t end = lspan_min64(first + step, tokens);
            for (int64_t h = 0; h < a->kv_heads; h++) {
                add_list(sparse, list + (sparse->list_heads == 1 ? 0 : h), b, h, first, end, &pairs, &keys_read);
            }
            entries += sparse->indptr[list + sparse->list_heads] - sparse->indptr[list];
        }
    }
    lspan_cost cost = attention_cost(a, pairs, keys_read);
    cost.bytes += entries * (int64_t)sizeof *sparse->indices;
    return cost;
}

lspan_cost lspan_lag_cost(const lspan_lag_attention *lag)
{
    const lspan_attention *a = &lag->attention;
    int64_t tokens = a->query_indptr[a->sequences], keys = a->kv_indptr[a->sequences];
    int64_t pairs = 0, keys_read = 0, kept = 0;
    for (int64_t p = lspan_max64(0, keys - tokens); p < keys; p++) {
        int64_t windows = 0, raw = 0;
        if (p >= lag->leading) {
            windows = (p - lag->leading) / lag->lag - lag->raw_windows + 1;
            windows = lspan_max64(0, windows);
            raw = lag->leading + windows * lag->lag;
        }
        int64_t seen = windows == 0 ? p + 1 : lag->leading + windows * lag->keep + p + 1 - raw;
        pairs += seen;
        /* what later queries see and earlier ones do not is their own slot: windows only lose slots */
        keys_read = keys_read == 0 ? seen : keys_read + 1;
        kept = windows;
    }
    lspan_cost cost = attention_cost(a, pairs * a->kv_heads, keys_read * a->kv_heads);
    cost.bytes += kept * lag->keep * a->kv_heads * (int64_t)sizeof *lag->kept;
    return cost;
}

lspan_cost lspan_merge_cost(int64_t parts, int64_t rows, int64_t head_dim, int has_log_sum_exp)
{
    lspan_cost cost = {0, 0, 0};
    if (rows == 0) return cost;
    int64_t part_rows = parts * rows, out_row = head_dim + (has_log_sum_exp ? 1 : 0);
    cost.bytes = (int64_t)sizeof(float) * (part_rows * (head_dim + 1) + rows * out_row);
    cost.flops = 2 * part_rows * head_dim;
    cost.exponentials = part_rows;
    return cost;
}

lspan_cost lspan_rope_cost(int64_t tokens, const lspan_rotation *r)
{
    int64_t elements = tokens * r->heads * r->head_dim;
    lspan_cost cost = {0, 0, 0};
    if (elements == 0) return cost;
    cost.bytes = elements * (size_of(r->input.dtype) + size_of(r->output.dtype)) +
        2 * (int64_t)sizeof(float) * tokens * r->pairs;
    cost.flops = 6 * tokens * r->heads * r->pairs;
    return cost;
}

lspan_cost lspan_convert_cost(int64_t elements, lspan_dtype input, lspan_dtype output)
{
    lspan_cost cost = {elements * (size_of(input) + size_of(output)), 0, 0};
    return cost;
}

/* A norm whose rows cost `flops` an element without weight and bias, each of which adds one. */
static lspan_cost norm_cost(int64_t rows, const lspan_norm *norm, int64_t flops)
{
    int64_t vectors = (norm->weight ? 1 : 0) + (norm->bias ? 1 : 0);
    lspan_cost cost = {0, 0, 0};
    if (rows == 0) return cost;
    cost.bytes = rows * norm->columns * (size_of(norm->input.dtype) + size_of(norm->output.dtype)) +
        vectors * norm->columns * (int64_t)sizeof(float);
    cost.flops = rows * norm->columns * (flops + vectors);
    return cost;
}

lspan_cost lspan_rms_norm_cost(int64_t rows, const lspan_norm *norm)
{
    return norm_cost(rows, norm, 3);
}

lspan_cost lspan_layer_norm_cost(int64_t rows, const lspan_norm *norm)
{
    return norm_cost(rows, norm, 5);
}

int64_t lspan_activation_flops(lspan_activation activation)
{
    if (activation == lspan_activation_silu) return 4;
    return activation == lspan_activation_gelu_tanh ? 9 : 6;
}

lspan_cost lspan_gate_cost(int64_t rows, const lspan_gate *g)
{
    int64_t elements = rows * g->columns;
    lspan_cost cost;
    cost.bytes = elements * (size_of(g->gate.dtype) + size_of(g->up.dtype) + size_of(g->output.dtype));
    cost.flops = elements * lspan_activation_flops(g->activation);
    cost.exponentials = elements;
    return cost;
}

lspan_cost lspan_loss_cost(int64_t rows, const lspan_loss *l)
{
    int64_t elements = rows * l->vocabulary;
    /* a target is read and a loss written, or neither */
    int64_t row_bytes = (l->nll ? 8 : 0) + (l->entropy ? 4 : 0);
    lspan_cost cost = {elements * size_of(l->logits.dtype) + rows * row_bytes, 5 * elements, elements};
    return cost;
}

/* Decoding rows of weights to f32; an offset and a factor for each quantized element. */
static lspan_cost decode_cost(int64_t rows, const lspan_weights *weights, int64_t row_bytes)
{
    int64_t elements = rows * weights->columns, block;
    lspan_block_type_layout(weights->type, &block, NULL);
    lspan_cost cost = {rows * row_bytes + elements * (int64_t)sizeof(float), block > 1 ? 2 * elements : 0, 0};
    return cost;
}

lspan_cost lspan_embedding_cost(int64_t tokens, const lspan_weights *table, int64_t row_bytes)
{
    lspan_cost cost = decode_cost(tokens, table, row_bytes);
    cost.bytes += tokens * (int64_t)sizeof(int32_t);
    return cost;
}

lspan_cost lspan_dequantize_cost(const lspan_weights *weights, int64_t row_bytes)
{
    return decode_cost(weights->rows, weights, row_bytes);
}

lspan_cost lspan_linear_cost(const lspan_linear *l, int64_t row_bytes)
{
    int64_t outputs = l->rows * l->weights.rows;
    lspan_cost cost = {0, 0, 0};
    if (outputs == 0) return cost;
    int64_t floats = l->rows * l->weights.columns + outputs * (l->accumulate ? 2 : 1);
    cost.bytes = l->weights.rows * row_bytes + (int64_t)sizeof(float) * floats;
    cost.flops = 2 * outputs * l->weights.columns;
    return cost;
}

/* ---- Caches ------------------------------------------------------------------------------------------ */

lspan_cost lspan_lag_scores_cost(const lspan_lag_scores *c)
{
    int64_t scored = c->heads * c->windows * c->window;
    lspan_cost cost = {0, 0, 0};
    if (scored == 0) return cost;
    int64_t read = c->heads * (c->windows + 1) * c->window;
    cost.bytes = 2 * read * c->head_dim * size_of(c->keys.dtype) + scored * (int64_t)sizeof(float);
    /* a channel of keys or of values: subtract and divide, add to the mean, subtract, square and add; a token of them:
     * root, exponential, sum and division; then the weight and the sum of the two */
    cost.flops = scored * (2 * (6 * c->head_dim + 4) + 2);
    cost.exponentials = 2 * scored;
    return cost;
}

lspan_cost lspan_select_cost(const lspan_selection *s)
{
    int shared = s->scope == lspan_select_scope_shared;
    int64_t lists = shared ? 1 : s->rows, scores = s->rows * s->tokens;
    int64_t offsets = s->row_offsets ? s->rows * (int64_t)sizeof(int32_t) : 0;
    lspan_cost cost = {0, 0, 0};
    cost.bytes = scores * (int64_t)sizeof(float) + s->forced_count * (int64_t)sizeof(lspan_token_range) + offsets +
        s->indptr[lists] * (int64_t)sizeof(int32_t) + (lists + 1) * (int64_t)sizeof(int64_t);
    cost.flops = shared ? scores : 0;
    return cost;
}

/* Entries lie in place up to the first that does not: from there each is above its target. */
static int64_t moved_entries(const lspan_compaction *c, int64_t list)
{
    const int32_t *indices = lspan_list_of(c, list);
    int64_t low = 0, count = c->indptr[list + 1] - c->indptr[list], high = count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (indices[middle] == c->destination + middle) low = middle + 1;
        else high = middle;
    }
    return count - low;
}

int64_t lspan_moved_rows(const lspan_compaction *c)
{
    int64_t tail = c->tail_end - c->tail_begin, rows = 0;
    for (int64_t l = 0; l < c->lists; l++) {
        int64_t end = c->destination + c->indptr[l + 1] - c->indptr[l];
        rows += moved_entries(c, l) + (c->tail_begin == end ? 0 : tail);
    }
    return c->lists == 1 ? rows * c->heads : rows;
}

lspan_cost lspan_compact_cost(const lspan_compaction *c)
{
    int64_t moved = lspan_moved_rows(c), slot_bytes = 0;
    lspan_cost cost = {0, 0, 0};
    if (moved == 0) return cost;
    slot_bytes = c->head_dim * (size_of(c->keys.dtype) + size_of(c->values.dtype));
    for (int64_t s = 0; s < c->side_count; s++) slot_bytes += c->side[s].element_bytes;
    cost.bytes = 2 * moved * slot_bytes;
    return cost;
}

lspan_cost lspan_rope_shift_cost(const lspan_rope_shifting *s)
{
    int64_t rows = s->tokens * s->heads, shifts = s->shift_head_stride == 0 ? s->tokens : rows;
    lspan_cost cost = {0, 0, 0};
    if (rows == 0) return cost;
    int64_t table = s->table_rows < shifts ? s->table_rows : shifts;
    cost.bytes = 4 * rows * s->pairs * size_of(s->keys.dtype) + shifts * (int64_t)sizeof(int32_t) +
        2 * (int64_t)sizeof(float) * table * s->pairs;
    cost.flops = 6 * rows * s->pairs;
    return cost;
}
