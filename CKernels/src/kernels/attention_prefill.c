/* attention_prefill.c: one task of prefill attention: a tile of query rows against every key tile it sees.
 *
 * Rows are (token, query head of the group) pairs, so each key and value tile is converted and transposed once
 * for the G heads that share it. Scores = Q K^T and output += P V are both register-tiled products. */
#include "attention_softmax.h"
#include "variants.h"

#define ROWS LSPAN_TILE_ROWS
#define VECTORS LSPAN_TILE_VECTORS
#define PANEL (VECTORS * V_WIDTH)

/* c[ROWS][vectors] (+)= a[ROWS][depth] * b[depth][vectors], b with rows of PANEL */
V_INLINE void product_tile(
    const float *a, int64_t a_stride, const float *b, float *c, int64_t c_stride, int64_t depth, const int vectors,
    const int accumulate)
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
            for (int n = 0; n < vectors; n++) sum[r][n] = v_fma(left, right[n], sum[r][n]);
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
    int64_t columns, int64_t depth, const int accumulate)
{
    for (int64_t j = 0; j < columns; j += PANEL, b += capacity * PANEL) {
        int64_t vectors = (columns - j) / V_WIDTH;
        for (int64_t r = 0; r < rows; r += ROWS) {
            const float *left = a + r * a_stride;
            float *out = c + r * c_stride + j;
            if (vectors >= VECTORS) {
                product_tile(left, a_stride, b, out, c_stride, depth, VECTORS, accumulate);
            } else {
                for (int64_t n = 0; n < vectors; n++) {
                    product_tile(left, a_stride, b + n * V_WIDTH, out + n * V_WIDTH, c_stride, depth, 1, accumulate);
                }
            }
        }
    }
}

/* Panels of keys transposed: out[panel][d][j] for count keys, zero for keys count .. padded-1. */
V_INLINE void pack_keys(
    float *out, lspan_heads keys, int64_t base, int64_t count, int64_t padded, int64_t head_dim, const lspan_dtype dtype)
{
    for (int64_t j = 0; j < padded; j += V_WIDTH) {
        float *panel = out + j / PANEL * PANEL * head_dim + j % PANEL;
        for (int64_t d = 0; d < head_dim; d += V_WIDTH) {
            int width = (int)lspan_min64(V_WIDTH, head_dim - d);
            v_f32 block[V_WIDTH];
#pragma GCC unroll 16
            for (int i = 0; i < V_WIDTH; i++) {
                block[i] = v_zero();
                if (j + i < count) {
                    int64_t at = base + (j + i) * keys.token_stride + d;
                    block[i] = width == V_WIDTH ? v_load_as(keys.data, at, dtype)
                                                : v_load_as_n(keys.data, at, dtype, width);
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

/* Panels of values: out[panel][j][d], zero in the columns that pad head_dim to whole vectors. */
V_INLINE void pack_values(
    float *out, lspan_heads values, int64_t base, int64_t count, int64_t head_dim, const lspan_dtype dtype)
{
    for (int64_t d = 0; d < head_dim; d += V_WIDTH) {
        float *panel = out + d / PANEL * PANEL * LSPAN_PREFILL_KEYS + d % PANEL;
        int width = (int)lspan_min64(V_WIDTH, head_dim - d);
        for (int64_t j = 0; j < count; j++) {
            int64_t at = base + j * values.token_stride + d;
            v_f32 x = width == V_WIDTH ? v_load_as(values.data, at, dtype)
                                       : v_load_as_n(values.data, at, dtype, width);
            v_store(panel + j * PANEL, x);
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

/* One key tile: keys first .. first+count-1 of the sequence against every row of the task. */
V_INLINE void attend_tile(
    const lspan_attention *a, const lspan_prefill_task *task, const tile_rows *t, const lspan_attention_scratch *s,
    int64_t first, int64_t count, const lspan_dtype dtype)
{
    int64_t head_dim = a->head_dim;
    int64_t columns = lspan_round_up(head_dim, V_WIDTH);
    int64_t stride = lspan_round_up(head_dim, LSPAN_SCRATCH_LANES);
    int64_t padded = lspan_round_up(count, V_WIDTH);

    int64_t key_base = (t->key0 + first) * a->keys.token_stride + task->kv_head * a->keys.head_stride;
    pack_keys(s->keys, a->keys, key_base, count, padded, head_dim, dtype);
    product(s->queries, head_dim, s->keys, head_dim, s->scores, LSPAN_PREFILL_KEYS, t->padded, padded, head_dim, 0);

    for (int64_t r = 0; r < t->rows; r++) {
        lspan_row_keys seen = lspan_keys_of_row(a, task->first + r / t->group, t->tokens, t->keys);
        float factor = stream_softmax(
            s->scores + r * LSPAN_PREFILL_KEYS, first, count, padded, seen, a->softcap, s->maximum + r, s->sum + r);
        if (factor != 1.0f) scale_row(s->output + r * stride, columns, factor);
    }

    int64_t value_base = (t->key0 + first) * a->values.token_stride + task->kv_head * a->values.head_stride;
    pack_values(s->values, a->values, value_base, count, head_dim, dtype);
    product(
        s->scores, LSPAN_PREFILL_KEYS, s->values, LSPAN_PREFILL_KEYS, s->output, stride, t->padded, columns, count, 1);
}

V_INLINE void attend(const lspan_attention *a, lspan_prefill_task task, void *scratch, const lspan_dtype dtype)
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
    for (int64_t r = 0; r < t.rows; r++) {
        load_query(
            s.queries + r * a->head_dim, a->queries, query0 + task.first + r / t.group,
            task.kv_head * t.group + r % t.group, a->head_dim, a->scale);
        s.maximum[r] = -INFINITY;
        s.sum[r] = 0.0f;
    }
    /* rows that only pad the tile must not carry NaNs from earlier use of the scratch into slow arithmetic */
    memset(s.queries + t.rows * a->head_dim, 0, (size_t)((t.padded - t.rows) * a->head_dim) * sizeof(float));
    memset(s.output, 0, (size_t)(t.padded * stride) * sizeof(float));

    lspan_row_keys seen = lspan_keys_of_rows(a, task.first, task.first + task.count - 1, t.tokens, t.keys);
    for (int64_t j = 0; j < seen.sinks; j += LSPAN_PREFILL_KEYS) {
        attend_tile(a, &task, &t, &s, j, lspan_min64(LSPAN_PREFILL_KEYS, seen.sinks - j), dtype);
    }
    for (int64_t j = seen.low; j < seen.high; j += LSPAN_PREFILL_KEYS) {
        attend_tile(a, &task, &t, &s, j, lspan_min64(LSPAN_PREFILL_KEYS, seen.high - j), dtype);
    }

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
        attend(attention, task, scratch, lspan_dtype_f16);
        break;
    case lspan_dtype_bf16:
        attend(attention, task, scratch, lspan_dtype_bf16);
        break;
    default:
        attend(attention, task, scratch, lspan_dtype_f32);
        break;
    }
}
