/* attention_prefill.c: one task of prefill attention: a tile of query rows against every key tile it sees.
 *
 * Rows are (token, query head of the group) pairs, so each key and value tile is converted and transposed once
 * for the G heads that share it, and for many tokens. The rows pass over it in blocks, each of which takes only the
 * keys that its own rows see. Scores = Q K^T and output += P V are both register-tiled products.
 *
 * Where the CPU has bf16 dot products and queries, keys and values are all bf16, both products take pairs of bf16 as
 * their elements (`pairs` below): Q K^T is then exact but for its f32 sums, and the probabilities are rounded to bf16,
 * a relative error of at most 2^-8 in each, while their sum and the log-sum-exp keep the unrounded ones. */
#include "attention_softmax.h"
#include "variants.h"

#define ROWS LSPAN_TILE_ROWS
#define VECTORS LSPAN_TILE_VECTORS
#define PANEL (VECTORS * V_WIDTH)

V_INLINE v_f32 multiply_add(v_f32 a, v_f32 b, v_f32 sum, const int pairs)
{
#if V_BF16_DOT
    if (pairs) return v_dot_bf16(sum, a, b);
#else
    (void)pairs;
#endif
    return v_fma(a, b, sum);
}

/* c[ROWS][vectors] (+)= a[ROWS][depth] * b[depth][vectors], b with rows of PANEL; elements of a and b are floats or
 * pairs of bf16 */
V_INLINE void product_tile(
    const float *a, int64_t a_stride, const float *b, float *c, int64_t c_stride, int64_t depth, const int vectors,
    const int accumulate, const int pairs)
{
    v_f32 sum[ROWS][VECTORS];
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++) {
            sum[r][n] = accumulate ? v_load(c + r * c_stride + n * V_WIDTH) : v_zero();
        }
    }
    for (int64_t k = 0; k < depth; k++) {
        v_f32 right[VECTORS];
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++) right[n] = v_load(b + k * PANEL + n * V_WIDTH);
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++) {
            v_f32 left = v_set1(a[r * a_stride + k]);
#pragma GCC unroll 4
            for (int n = 0; n < vectors; n++) sum[r][n] = multiply_add(left, right[n], sum[r][n], pairs);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++) v_store(c + r * c_stride + n * V_WIDTH, sum[r][n]);
    }
}

/* c[rows][columns] (+)= a[rows][depth] * b, where b is cut into panels of PANEL columns, each [capacity][PANEL] and
 * contiguous; rows a multiple of ROWS, columns of V_WIDTH. A panel stays in L1 while all rows pass over it: with the
 * row stride of a whole tile, a power of two, its lines would fall into few cache sets. */
V_INLINE void product(
    const float *a, int64_t a_stride, const float *b, int64_t capacity, float *c, int64_t c_stride, int64_t rows,
    int64_t columns, int64_t depth, const int accumulate, const int pairs)
{
    for (int64_t j = 0; j < columns; j += PANEL, b += capacity * PANEL) {
        int64_t vectors = (columns - j) / V_WIDTH;
        for (int64_t r = 0; r < rows; r += ROWS) {
            const float *left = a + r * a_stride;
            float *out = c + r * c_stride + j;
            if (vectors >= VECTORS) {
                product_tile(left, a_stride, b, out, c_stride, depth, VECTORS, accumulate, pairs);
            } else {
                for (int64_t n = 0; n < vectors; n++) {
                    product_tile(left, a_stride, b + n * V_WIDTH, out + n * V_WIDTH, c_stride, depth, 1, accumulate, pairs);
                }
            }
        }
    }
}

/* Elements index .. index+lanes-1 of a row of keys, as floats or as pairs of bf16. */
V_INLINE v_f32 load_keys(const void *data, int64_t base, int64_t index, int lanes, const lspan_dtype dtype, const int pairs)
{
    if (pairs) {
        const void *row = (const uint16_t *)data + base + 2 * index;
        return lanes == V_WIDTH ? v_load(row) : v_load_n(row, lanes);
    }
    return lanes == V_WIDTH ? v_load_as(data, base + index, dtype) : v_load_as_n(data, base + index, dtype, lanes);
}

/* Panels of keys transposed: out[panel][d][j] for count keys, zero for keys count .. padded-1; depth elements d. */
V_INLINE void pack_keys(
    float *out, lspan_heads keys, int64_t base, int64_t count, int64_t padded, int64_t depth, const lspan_dtype dtype,
    const int pairs)
{
    for (int64_t j = 0; j < padded; j += V_WIDTH) {
        float *panel = out + j / PANEL * PANEL * depth + j % PANEL;
        for (int64_t d = 0; d < depth; d += V_WIDTH) {
            int width = (int)lspan_min64(V_WIDTH, depth - d);
            v_f32 block[V_WIDTH];
#pragma GCC unroll 16
            for (int i = 0; i < V_WIDTH; i++) {
                block[i] = v_zero();
                if (j + i < count) {
                    block[i] = load_keys(keys.data, base + (j + i) * keys.token_stride, d, width, dtype, pairs);
                }
            }
            v_transpose(block);
#pragma GCC unroll 16
            for (int i = 0; i < V_WIDTH; i++) {
                if (i < width) v_store(panel + (d + i) * PANEL, block[i]);
            }
        }
    }
}

/* Panels of values: out[panel][j][d], zero in the columns that pad head_dim to whole vectors; with pairs, j counts
 * pairs of keys, the last of which may have one key and a zero. */
V_INLINE void pack_values(
    float *out, lspan_heads values, int64_t base, int64_t count, int64_t head_dim, const lspan_dtype dtype,
    const int pairs)
{
    const int64_t step = pairs ? 2 : 1;
    for (int64_t j = 0; j < count; j += step) {
        int64_t row = base + j * values.token_stride;
        for (int64_t d = 0; d < head_dim; d += V_WIDTH) {
            float *to = out + (d / PANEL * LSPAN_PREFILL_KEYS + j / step) * PANEL + d % PANEL;
            int width = (int)lspan_min64(V_WIDTH, head_dim - d);
#if V_BF16_DOT
            if (pairs) {
                const uint16_t *from = (const uint16_t *)values.data + row + d;
                v_store(to, v_zip_bf16(from, j + 1 < count ? from + values.token_stride : NULL, width));
                continue;
            }
#endif
            v_store(to, width == V_WIDTH ? v_load_as(values.data, row + d, dtype)
                                         : v_load_as_n(values.data, row + d, dtype, width));
        }
    }
}

typedef struct tile_rows {
    int64_t group;   /* G */
    int64_t rows;    /* count * G */
    int64_t padded;  /* rows rounded up to ROWS */
    int64_t tokens;  /* T of the sequence */
    int64_t keys;    /* S of the sequence */
    int64_t key0;    /* the sequence's first row in K and V */
} tile_rows;

/* Asks for `rows` rows from an element on. */
V_INLINE void prefetch_rows(lspan_heads view, int64_t base, int64_t rows, int64_t head_dim, const lspan_dtype dtype)
{
    int64_t element = element_bytes(dtype);
    const char *row = (const char *)view.data + base * element;
    for (; rows > 0; rows--, row += view.token_stride * element) {
        for (int64_t byte = 0; byte < head_dim * element; byte += 64) v_prefetch_l2(row + byte);
    }
}

/* Asks for keys first .. end-1 of the sequence and their values, ahead of their use. */
V_INLINE void prefetch_keys(
    const lspan_attention *a, const lspan_prefill_task *task, const tile_rows *t, int64_t first, int64_t end,
    const lspan_dtype dtype)
{
    int64_t token = t->key0 + first, head = task->kv_head;
    prefetch_rows(
        a->keys, token * a->keys.token_stride + head * a->keys.head_stride, end - first, a->head_dim, dtype);
    prefetch_rows(
        a->values, token * a->values.token_stride + head * a->values.head_stride, end - first, a->head_dim, dtype);
}

/* Rows r .. r+rows-1, of which those from t->rows on only pad the last product tile, against the packed keys first ..
 * first+count-1. */
V_INLINE void attend_block(
    const lspan_attention *a, const lspan_prefill_task *task, const tile_rows *t, const lspan_attention_scratch *s,
    int64_t r, int64_t rows, int64_t first, int64_t count, const int pairs)
{
    int64_t head_dim = a->head_dim, depth = pairs ? head_dim / 2 : head_dim;
    int64_t columns = lspan_round_up(head_dim, V_WIDTH), stride = lspan_round_up(head_dim, LSPAN_SCRATCH_LANES);
    int64_t end = lspan_min64(r + rows, t->rows);
    lspan_row_keys seen = lspan_keys_of_rows(
        a, task->first + r / t->group, task->first + (end - 1) / t->group, t->tokens, t->keys);
    int64_t to = lspan_min64(count, seen.high - first);
    /* from a whole panel on */
    int64_t from = first < seen.sinks ? 0 : lspan_max64(0, seen.low - first) / PANEL * PANEL;
    if (from >= to) return;
    int64_t padded = lspan_round_up(to - from, V_WIDTH);

    product(
        s->queries + r * depth, depth, s->keys + from * depth, depth, s->scores, LSPAN_PREFILL_KEYS, rows, padded,
        depth, 0, pairs);
    for (int64_t i = r; i < end; i++) {
        float *scores = s->scores + (i - r) * LSPAN_PREFILL_KEYS;
        float factor = stream_softmax(
            scores, first + from, to - from, padded,
            lspan_keys_of_row(a, task->first + i / t->group, t->tokens, t->keys), pairs ? a->scale : 1.0f, a->softcap,
            s->maximum + i, s->sum + i, pairs);
        if (factor != 1.0f) scale_row(s->output + i * stride, columns, factor);
    }
    int64_t skipped = pairs ? from / 2 : from, taken = pairs ? (to - from + 1) / 2 : to - from;
    product(
        s->scores, LSPAN_PREFILL_KEYS, s->values + skipped * PANEL, LSPAN_PREFILL_KEYS, s->output + r * stride, stride,
        rows, columns, taken, 1, pairs);
}

/* One key tile: keys first .. first+count-1 of the sequence against every row of the task; `after` keys follow that it
 * will see next. */
V_INLINE void attend_tile(
    const lspan_attention *a, const lspan_prefill_task *task, const tile_rows *t, const lspan_attention_scratch *s,
    int64_t first, int64_t count, int64_t after, const lspan_dtype dtype, const int pairs)
{
    int64_t depth = pairs ? a->head_dim / 2 : a->head_dim;
    int64_t key_base = (t->key0 + first) * a->keys.token_stride + task->kv_head * a->keys.head_stride;
    int64_t value_base = (t->key0 + first) * a->values.token_stride + task->kv_head * a->values.head_stride;
    pack_keys(s->keys, a->keys, key_base, count, lspan_round_up(count, V_WIDTH), depth, dtype, pairs);
    pack_values(s->values, a->values, value_base, count, a->head_dim, dtype, pairs);
    int64_t next = first + count;
    after = lspan_min64(after, LSPAN_PREFILL_KEYS);
    for (int64_t r = 0; r < t->padded; r += LSPAN_PREFILL_BLOCK_ROWS) {
        int64_t rows = lspan_min64(LSPAN_PREFILL_BLOCK_ROWS, t->padded - r);
        prefetch_keys(a, task, t, next + after * r / t->padded, next + after * (r + rows) / t->padded, dtype);
        attend_block(a, task, t, s, r, rows, first, count, pairs);
    }
}

/* The key tiles of keys begin .. end-1. */
V_INLINE void attend_range(
    const lspan_attention *a, const lspan_prefill_task *task, const tile_rows *t, const lspan_attention_scratch *s,
    int64_t begin, int64_t end, const lspan_dtype dtype, const int pairs)
{
    for (int64_t j = begin; j < end; j += LSPAN_PREFILL_KEYS) {
        int64_t count = lspan_min64(LSPAN_PREFILL_KEYS, end - j);
        attend_tile(a, task, t, s, j, count, end - j - count, dtype, pairs);
    }
}

V_INLINE void attend(
    const lspan_attention *a, lspan_prefill_task task, void *scratch, const lspan_dtype dtype, const int pairs)
{
    tile_rows t;
    t.group = a->query_heads / a->kv_heads;
    t.rows = task.count * t.group;
    t.padded = lspan_round_up(t.rows, ROWS);
    t.key0 = a->kv_indptr[task.sequence];
    t.keys = a->kv_indptr[task.sequence + 1] - t.key0;
    int64_t query0 = a->query_indptr[task.sequence];
    t.tokens = a->query_indptr[task.sequence + 1] - query0;

    lspan_attention_scratch s = lspan_cut_scratch(scratch, t.rows, a->head_dim, LSPAN_PREFILL_KEYS, 1);
    int64_t stride = lspan_round_up(a->head_dim, LSPAN_SCRATCH_LANES);
    int64_t depth = pairs ? a->head_dim / 2 : a->head_dim;
    lspan_row_keys seen = lspan_keys_of_rows(a, task.first, task.first + task.count - 1, t.tokens, t.keys);
    int64_t start = seen.sinks > 0 ? 0 : seen.low;
    prefetch_keys(a, &task, &t, start, lspan_min64(seen.high, start + LSPAN_PREFILL_KEYS), dtype);
    for (int64_t r = 0; r < t.rows; r++) {
        int64_t token = query0 + task.first + r / t.group, head = task.kv_head * t.group + r % t.group;
        if (pairs) {
            int64_t base = token * a->queries.token_stride + head * a->queries.head_stride;
            memcpy(s.queries + r * depth, (const uint16_t *)a->queries.data + base, (size_t)depth * sizeof(float));
        } else {
            load_query(s.queries + r * depth, a->queries, token, head, depth, a->scale);
        }
        s.maximum[r] = -INFINITY;
        s.sum[r] = 0.0f;
    }
    /* rows that only pad the tile must not carry NaNs from earlier use of the scratch into slow arithmetic */
    memset(s.queries + t.rows * depth, 0, (size_t)((t.padded - t.rows) * depth) * sizeof(float));
    memset(s.output, 0, (size_t)(t.padded * stride) * sizeof(float));

    attend_range(a, &task, &t, &s, 0, seen.sinks, dtype, pairs);
    attend_range(a, &task, &t, &s, seen.low, seen.high, dtype, pairs);

    for (int64_t r = 0; r < t.rows; r++) {
        int64_t token = query0 + task.first + r / t.group;
        int64_t head = task.kv_head * t.group + r % t.group;
        float *out = a->output + token * a->output_token_stride + head * a->output_head_stride;
        float lse = finish_row(out, s.output + r * stride, a->head_dim, s.maximum[r], s.sum[r]);
        if (a->log_sum_exp) a->log_sum_exp[token * a->query_heads + head] = lse;
    }
}

void LSPAN_VARIANT(attention_prefill)(const lspan_attention *attention, lspan_prefill_task task, void *scratch)
{
    switch (attention->keys.dtype) {
    case lspan_dtype_f16:
        attend(attention, task, scratch, lspan_dtype_f16, 0);
        break;
    case lspan_dtype_bf16:
        if (V_BF16_DOT && attention->queries.dtype == lspan_dtype_bf16) {
            attend(attention, task, scratch, lspan_dtype_bf16, V_BF16_DOT);
        } else {
            attend(attention, task, scratch, lspan_dtype_bf16, 0);
        }
        break;
    default:
        attend(attention, task, scratch, lspan_dtype_f32, 0);
        break;
    }
}
