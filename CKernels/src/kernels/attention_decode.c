/* attention_decode.c: one task of decode attention: a few query rows over a range of one head's keys.
 *
 * Memory-bound: each key and value is loaded from memory once for all T*G rows, converted in registers. */
#include "attention_softmax.h"
#include "variants.h"

#define KEYS LSPAN_DECODE_KEYS

/* scores[r][j..j+3] = queries[r] . keys[j..j+3] for `rows` rows; key[i] are element offsets. */
V_INLINE void dot_keys4(
    const float *queries, const void *data, const int64_t key[4], float *scores, int64_t head_dim, const int rows,
    const lspan_dtype dtype)
{
    v_f32 sum[LSPAN_DECODE_ROWS][4];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) sum[r][i] = v_zero();
    }
    int64_t d = 0;
    for (; d + V_WIDTH <= head_dim; d += V_WIDTH) {
        v_f32 k[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) k[i] = v_load_as(data, key[i] + d, dtype);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            v_f32 q = v_load(queries + r * head_dim + d);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) sum[r][i] = v_fma(q, k[i], sum[r][i]);
        }
    }
    if (d < head_dim) {
        int rest = (int)(head_dim - d);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            v_f32 q = v_load_n(queries + r * head_dim + d, rest);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) sum[r][i] = v_fma(q, v_load_as_n(data, key[i] + d, dtype, rest), sum[r][i]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) v_reduce_add4(sum[r][0], sum[r][1], sum[r][2], sum[r][3], scores + r * KEYS);
}

V_INLINE void score_rows(
    const float *queries, lspan_heads keys, int64_t base, int64_t count, float *scores, int64_t head_dim,
    const int rows, const lspan_dtype dtype)
{
    for (int64_t j = 0; j < count; j += 4) {
        int64_t key[4];
        /* past the end the last key is scored again; stream_softmax drops those scores */
        for (int i = 0; i < 4; i++) key[i] = base + lspan_min64(j + i, count - 1) * keys.token_stride;
        dot_keys4(queries, keys.data, key, scores + j, head_dim, rows, dtype);
    }
}

/* output[r][d..] += sum_j scores[r][j] * values[j][d..] for `vectors` vectors, the last of which has `lanes` lanes. */
V_INLINE void add_values_block(
    const float *scores, lspan_heads values, int64_t base, int64_t count, float *output, int64_t stride,
    const int rows, const int vectors, const int partial, int lanes, const lspan_dtype dtype)
{
    v_f32 sum[LSPAN_DECODE_ROWS][LSPAN_DECODE_COLUMNS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++) sum[r][n] = v_load(output + r * stride + n * V_WIDTH);
    }
    for (int64_t j = 0; j < count; j++) {
        int64_t at = base + j * values.token_stride;
        v_f32 value[LSPAN_DECODE_COLUMNS];
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++) {
            value[n] = partial ? v_load_as_n(values.data, at, dtype, lanes)
                               : v_load_as(values.data, at + n * V_WIDTH, dtype);
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            v_f32 p = v_set1(scores[r * KEYS + j]);
#pragma GCC unroll 4
            for (int n = 0; n < vectors; n++) sum[r][n] = v_fma(p, value[n], sum[r][n]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++) v_store(output + r * stride + n * V_WIDTH, sum[r][n]);
    }
}

V_INLINE void add_values(
    const float *scores, lspan_heads values, int64_t base, int64_t count, float *output, int64_t stride,
    int64_t head_dim, const int rows, const lspan_dtype dtype)
{
    int64_t d = 0;
    for (; d + LSPAN_DECODE_COLUMNS * V_WIDTH <= head_dim; d += LSPAN_DECODE_COLUMNS * V_WIDTH) {
        add_values_block(
            scores, values, base + d, count, output + d, stride, rows, LSPAN_DECODE_COLUMNS, 0, V_WIDTH, dtype);
    }
    for (; d + V_WIDTH <= head_dim; d += V_WIDTH) {
        add_values_block(scores, values, base + d, count, output + d, stride, rows, 1, 0, V_WIDTH, dtype);
    }
    if (d < head_dim) {
        add_values_block(
            scores, values, base + d, count, output + d, stride, rows, 1, 1, (int)(head_dim - d), dtype);
    }
}

typedef struct decode_rows {
    int64_t group;   /* G */
    int64_t rows;    /* T * G */
    int64_t tokens;  /* T */
    int64_t keys;    /* S */
    int64_t key0;    /* the sequence's first row in K and V */
} decode_rows;

/* Rows r .. r+rows-1 against keys first .. first+count-1, count <= KEYS. */
V_INLINE void attend_rows(
    const lspan_attention *a, const decode_rows *t, const lspan_attention_scratch *s, int64_t kv_head, int64_t r,
    int64_t first, int64_t count, const int rows, const lspan_dtype dtype)
{
    int64_t stride = lspan_round_up(a->head_dim, LSPAN_SCRATCH_LANES);
    float *scores = s->scores + r * KEYS;
    int64_t key_base = (t->key0 + first) * a->keys.token_stride + kv_head * a->keys.head_stride;
    score_rows(s->queries + r * a->head_dim, a->keys, key_base, count, scores, a->head_dim, rows, dtype);
    for (int i = 0; i < rows; i++) {
        lspan_row_keys seen = lspan_keys_of_row(a, (r + i) / t->group, t->tokens, t->keys);
        float factor = stream_softmax(
            scores + i * KEYS, first, count, lspan_round_up(count, V_WIDTH), seen, a->softcap, s->maximum + r + i,
            s->sum + r + i);
        if (factor != 1.0f) scale_row(s->output + (r + i) * stride, lspan_round_up(a->head_dim, V_WIDTH), factor);
    }
    int64_t value_base = (t->key0 + first) * a->values.token_stride + kv_head * a->values.head_stride;
    add_values(
        scores, a->values, value_base, count, s->output + r * stride, stride, a->head_dim, rows, dtype);
}

V_INLINE void attend_range(
    const lspan_attention *a, const decode_rows *t, const lspan_attention_scratch *s, int64_t kv_head, int64_t begin,
    int64_t end, const lspan_dtype dtype)
{
    for (int64_t j = begin; j < end; j += KEYS) {
        int64_t count = lspan_min64(KEYS, end - j);
        int64_t r = 0;
        for (; r + LSPAN_DECODE_ROWS <= t->rows; r += LSPAN_DECODE_ROWS) {
            attend_rows(a, t, s, kv_head, r, j, count, LSPAN_DECODE_ROWS, dtype);
        }
        switch (t->rows - r) {
#if LSPAN_DECODE_ROWS > 3
        case 3:
            attend_rows(a, t, s, kv_head, r, j, count, 3, dtype);
            break;
        case 2:
            attend_rows(a, t, s, kv_head, r, j, count, 2, dtype);
            break;
#endif
        case 1:
            attend_rows(a, t, s, kv_head, r, j, count, 1, dtype);
            break;
        default:
            break;
        }
    }
}

V_INLINE void attend(const lspan_attention *a, lspan_decode_task task, void *scratch, const lspan_dtype dtype)
{
    decode_rows t;
    t.group = a->query_heads / a->kv_heads;
    t.key0 = a->kv_indptr[task.sequence];
    t.keys = a->kv_indptr[task.sequence + 1] - t.key0;
    int64_t query0 = a->query_indptr[task.sequence];
    t.tokens = a->query_indptr[task.sequence + 1] - query0;
    t.rows = t.tokens * t.group;

    lspan_attention_scratch s = lspan_cut_scratch(scratch, t.rows, a->head_dim, KEYS, 0);
    int64_t stride = lspan_round_up(a->head_dim, LSPAN_SCRATCH_LANES);
    for (int64_t r = 0; r < t.rows; r++) {
        load_query(
            s.queries + r * a->head_dim, a->queries, query0 + r / t.group, task.kv_head * t.group + r % t.group,
            a->head_dim, a->scale);
        s.maximum[r] = -INFINITY;
        s.sum[r] = 0.0f;
    }
    memset(s.output, 0, (size_t)(t.rows * stride) * sizeof(float));

    lspan_row_keys seen = lspan_keys_of_rows(a, 0, t.tokens - 1, t.tokens, t.keys);
    attend_range(a, &t, &s, task.kv_head, task.begin, lspan_min64(task.end, seen.sinks), dtype);
    int64_t gap = seen.low - seen.sinks;
    attend_range(a, &t, &s, task.kv_head, lspan_max64(task.begin, seen.sinks) + gap, task.end + gap, dtype);

    for (int64_t r = 0; r < t.rows; r++) {
        float *out = task.output + r / t.group * task.output_token_stride + r % t.group * task.output_head_stride;
        float lse = finish_row(out, s.output + r * stride, a->head_dim, s.maximum[r], s.sum[r]);
        if (task.log_sum_exp) task.log_sum_exp[r / t.group * task.log_sum_exp_stride + r % t.group] = lse;
    }
}

void LSPAN_VARIANT(attention_decode)(const lspan_attention *attention, lspan_decode_task task, void *scratch)
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
