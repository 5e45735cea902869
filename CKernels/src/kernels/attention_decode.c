/* attention_decode.c: one task of decode attention: a few query rows over a range of one head's keys.
 *
 * Memory-bound: each key and value is loaded from memory once for all T*G rows, and converted in registers. Keys and
 * values alternate in tiles; while one is in use the next is prefetched, because the hardware's prefetchers stop at
 * each change. Channels are handled in pairs of vectors in whatever order the dtype unpacks cheapest (V_PAIR in
 * simd.h); queries are stored in that order, and outputs put back in theirs at the end. */
#include "attention_softmax.h"
#include "variants.h"

#define KEYS LSPAN_DECODE_KEYS
#define ROWS LSPAN_DECODE_ROWS
#define PAIR (2 * V_WIDTH)
#define COLUMNS LSPAN_DECODE_COLUMNS

/* Asks for `bytes` bytes, a cache line at a time. */
V_INLINE void prefetch_row(const void *data, int64_t offset, int64_t bytes)
{
    const char *start = (const char *)data + offset;
#pragma GCC unroll 8
    for (int64_t line = 0; line < bytes; line += 64) v_prefetch(start + line);
}

/* What to prefetch while a tile is in use: row j of the next tile. */
typedef struct next_tile {
    const void *data;
    int64_t base;   /* bytes */
    int64_t stride; /* bytes from row to row */
    int64_t rows;
    int64_t bytes;  /* of a row */
} next_tile;

V_INLINE next_tile tile_after(lspan_heads view, int64_t base, int64_t rows, int64_t head_dim, const lspan_dtype dtype)
{
    int64_t element = dtype == lspan_dtype_f32 ? 4 : 2;
    next_tile next = {view.data, base * element, view.token_stride * element, rows, head_dim * element};
    return next;
}

V_INLINE void prefetch_tile_row(const next_tile *next, int64_t row)
{
    if (row < next->rows) prefetch_row(next->data, next->base + row * next->stride, next->bytes);
}

/* scores[r][j..j+3] = queries[r] . keys[j..j+3] for `rows` rows; key[i] are element offsets. A key is read whole before
 * the next one, in address order: the hardware's prefetchers lose track of four keys read side by side. */
V_INLINE void dot_keys4(
    const float *queries, const void *data, const int64_t key[4], float *scores, int64_t head_dim, const int rows,
    const lspan_dtype dtype)
{
    v_f32 sum[ROWS][4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        v_f32 even[ROWS], odd[ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) even[r] = odd[r] = v_zero();
        int64_t d = 0;
        for (; d + PAIR <= head_dim; d += PAIR) {
            v_pair k = v_load_pair(data, key[i] + d, dtype);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                even[r] = v_fma(v_load(queries + r * head_dim + d), k.a, even[r]);
                odd[r] = v_fma(v_load(queries + r * head_dim + d + V_WIDTH), k.b, odd[r]);
            }
        }
        for (; d < head_dim; d += V_WIDTH) {
            int lanes = (int)lspan_min64(V_WIDTH, head_dim - d);
            v_f32 k = v_load_as_n(data, key[i] + d, dtype, lanes);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) even[r] = v_fma(v_load_n(queries + r * head_dim + d, lanes), k, even[r]);
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) sum[r][i] = v_add(even[r], odd[r]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) v_reduce_add4(sum[r][0], sum[r][1], sum[r][2], sum[r][3], scores + r * KEYS);
}

V_INLINE void score_rows(
    const float *queries, lspan_heads keys, int64_t base, int64_t count, float *scores, int64_t head_dim,
    const next_tile *next, const int rows, const lspan_dtype dtype)
{
    for (int64_t j = 0; j < count; j += 4) {
        int64_t key[4];
        /* past the end the last key is scored again; stream_softmax drops those scores */
        for (int i = 0; i < 4; i++) {
            key[i] = base + lspan_min64(j + i, count - 1) * keys.token_stride;
            prefetch_tile_row(next, j + i);
        }
        dot_keys4(queries, keys.data, key, scores + j, head_dim, rows, dtype);
    }
}

/* output[r][d..] += sum_j scores[r][j] * values[j][d..] for `pairs` pairs of vectors. */
V_INLINE void add_pairs(
    const float *scores, lspan_heads values, int64_t base, int64_t count, float *output, int64_t stride,
    const next_tile *next, const int rows, const int pairs, const lspan_dtype dtype)
{
    v_f32 sum[ROWS][COLUMNS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 8
        for (int n = 0; n < 2 * pairs; n++) sum[r][n] = v_load(output + r * stride + n * V_WIDTH);
    }
    for (int64_t j = 0; j < count; j++) {
        int64_t at = base + j * values.token_stride;
        if (next) prefetch_tile_row(next, j);
#pragma GCC unroll 4
        for (int n = 0; n < pairs; n++) {
            v_pair value = v_load_pair(values.data, at + n * PAIR, dtype);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                v_f32 p = v_set1(scores[r * KEYS + j]);
                sum[r][2 * n] = v_fma(p, value.a, sum[r][2 * n]);
                sum[r][2 * n + 1] = v_fma(p, value.b, sum[r][2 * n + 1]);
            }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 8
        for (int n = 0; n < 2 * pairs; n++) v_store(output + r * stride + n * V_WIDTH, sum[r][n]);
    }
}

/* The same for the channels behind the last whole pair, one vector of `lanes` lanes at a time. */
V_INLINE void add_rest(
    const float *scores, lspan_heads values, int64_t base, int64_t count, float *output, int64_t stride, int lanes,
    const int rows, const lspan_dtype dtype)
{
    for (int r = 0; r < rows; r++) {
        v_f32 sum = v_load(output + r * stride);
        for (int64_t j = 0; j < count; j++) {
            v_f32 value = v_load_as_n(values.data, base + j * values.token_stride, dtype, lanes);
            sum = v_fma(v_set1(scores[r * KEYS + j]), value, sum);
        }
        v_store(output + r * stride, sum);
    }
}

/* All channels of up to LSPAN_DECODE_VALUE_ROWS rows: whole value rows are read in address order, COLUMNS vectors at
 * a time. */
V_INLINE void add_value_rows(
    const float *scores, lspan_heads values, int64_t base, int64_t count, float *output, int64_t stride,
    int64_t head_dim, const next_tile *next, const int rows, const lspan_dtype dtype)
{
    int64_t d = 0;
    for (; d + COLUMNS * V_WIDTH <= head_dim; d += COLUMNS * V_WIDTH) {
        /* the first pass over a tile's rows asks for the next tile */
        add_pairs(scores, values, base + d, count, output + d, stride, d ? NULL : next, rows, COLUMNS / 2, dtype);
    }
    for (; d + PAIR <= head_dim; d += PAIR) {
        add_pairs(scores, values, base + d, count, output + d, stride, d ? NULL : next, rows, 1, dtype);
    }
    for (; d < head_dim; d += V_WIDTH) {
        int lanes = (int)lspan_min64(V_WIDTH, head_dim - d);
        add_rest(scores, values, base + d, count, output + d, stride, lanes, rows, dtype);
    }
}

/* The second group of rows finds the value tile in L1. */
V_INLINE void add_values(
    const float *scores, lspan_heads values, int64_t base, int64_t count, float *output, int64_t stride,
    int64_t head_dim, const next_tile *next, const int rows, const lspan_dtype dtype)
{
    const int first = rows < LSPAN_DECODE_VALUE_ROWS ? rows : LSPAN_DECODE_VALUE_ROWS, rest = rows - first;
    add_value_rows(scores, values, base, count, output, stride, head_dim, next, first, dtype);
    if (rest > 0) {
        add_value_rows(
            scores + first * KEYS, values, base, count, output + first * stride, stride, head_dim, NULL, rest, dtype);
    }
}

typedef struct decode_rows {
    int64_t group;   /* G */
    int64_t rows;    /* T * G */
    int64_t tokens;  /* T */
    int64_t keys;    /* S */
    int64_t key0;    /* the sequence's first row in K and V */
    int prefetch;    /* whether the call's keys and values come from memory */
} decode_rows;

/* Rows r .. r+rows-1 against keys first .. first+count-1, count <= KEYS; `after` more keys follow in the range. */
V_INLINE void attend_rows(
    const lspan_attention *a, const decode_rows *t, const lspan_attention_scratch *s, int64_t kv_head, int64_t r,
    int64_t first, int64_t count, int64_t after, const int rows, const lspan_dtype dtype)
{
    int64_t head_dim = a->head_dim, stride = lspan_round_up(head_dim, LSPAN_SCRATCH_LANES);
    float *scores = s->scores + r * KEYS;
    int64_t key_base = (t->key0 + first) * a->keys.token_stride + kv_head * a->keys.head_stride;
    int64_t value_base = (t->key0 + first) * a->values.token_stride + kv_head * a->values.head_stride;
    /* later row groups find the tiles in the cache */
    int first_group = r == 0 && t->prefetch;
    next_tile values = tile_after(a->values, value_base, first_group ? count : 0, head_dim, dtype);
    next_tile keys = tile_after(
        a->keys, key_base + count * a->keys.token_stride, first_group ? lspan_min64(after, KEYS) : 0, head_dim, dtype);

    score_rows(s->queries + r * head_dim, a->keys, key_base, count, scores, head_dim, &values, rows, dtype);
    for (int i = 0; i < rows; i++) {
        lspan_row_keys seen = lspan_keys_of_row(a, (r + i) / t->group, t->tokens, t->keys);
        float factor = stream_softmax(
            scores + i * KEYS, first, count, lspan_round_up(count, V_WIDTH), seen, a->softcap, s->maximum + r + i,
            s->sum + r + i);
        if (factor != 1.0f) scale_row(s->output + (r + i) * stride, lspan_round_up(head_dim, V_WIDTH), factor);
    }
    add_values(scores, a->values, value_base, count, s->output + r * stride, stride, head_dim, &keys, rows, dtype);
}

V_INLINE void attend_range(
    const lspan_attention *a, const decode_rows *t, const lspan_attention_scratch *s, int64_t kv_head, int64_t begin,
    int64_t end, const lspan_dtype dtype)
{
    for (int64_t j = begin; j < end; j += KEYS) {
        int64_t count = lspan_min64(KEYS, end - j), after = end - j - count, r = 0;
        for (; r + ROWS <= t->rows; r += ROWS) attend_rows(a, t, s, kv_head, r, j, count, after, ROWS, dtype);
        switch (t->rows - r) {
#if LSPAN_DECODE_ROWS > 3
        case 3:
            attend_rows(a, t, s, kv_head, r, j, count, after, 3, dtype);
            break;
        case 2:
            attend_rows(a, t, s, kv_head, r, j, count, after, 2, dtype);
            break;
#endif
        case 1:
            attend_rows(a, t, s, kv_head, r, j, count, after, 1, dtype);
            break;
        default:
            break;
        }
    }
}

/* Whether v_load_pair takes channels out of order: bf16 unpacks into even and odd ones. */
V_INLINE int pairs_interleave(const lspan_dtype dtype)
{
    return dtype == lspan_dtype_bf16 && V_WIDTH > 1;
}

V_INLINE void to_pair_order(float *row, int64_t head_dim, const lspan_dtype dtype)
{
    if (!pairs_interleave(dtype)) return;
    for (int64_t d = 0; d + PAIR <= head_dim; d += PAIR) {
        float block[PAIR];
        memcpy(block, row + d, sizeof block);
        for (int i = 0; i < V_WIDTH; i++) {
            row[d + i] = block[2 * i];
            row[d + V_WIDTH + i] = block[2 * i + 1];
        }
    }
}

V_INLINE void from_pair_order(float *row, int64_t head_dim, const lspan_dtype dtype)
{
    if (!pairs_interleave(dtype)) return;
    for (int64_t d = 0; d + PAIR <= head_dim; d += PAIR) {
        float block[PAIR];
        memcpy(block, row + d, sizeof block);
        for (int i = 0; i < V_WIDTH; i++) {
            row[d + 2 * i] = block[i];
            row[d + 2 * i + 1] = block[V_WIDTH + i];
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
    t.prefetch = task.prefetch;

    lspan_attention_scratch s = lspan_cut_scratch(scratch, t.rows, a->head_dim, KEYS, 0);
    int64_t stride = lspan_round_up(a->head_dim, LSPAN_SCRATCH_LANES);
    for (int64_t r = 0; r < t.rows; r++) {
        float *query = s.queries + r * a->head_dim;
        load_query(
            query, a->queries, query0 + r / t.group, task.kv_head * t.group + r % t.group, a->head_dim, a->scale);
        to_pair_order(query, a->head_dim, dtype);
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
        from_pair_order(s.output + r * stride, a->head_dim, dtype);
        float lse = finish_row(out, s.output + r * stride, a->head_dim, s.maximum[r], s.sum[r]);
        if (task.log_sum_exp) task.log_sum_exp[r / t.group * task.log_sum_exp_stride + r % t.group] = lse;
    }
}

/* The usual head dimensions get instances of their own, whose loops over channels are unrolled. */
V_INLINE void attend_any(const lspan_attention *a, lspan_decode_task task, void *scratch, const lspan_dtype dtype)
{
    lspan_attention fixed = *a;
    switch (a->head_dim) {
#if !defined(LSPAN_SANITIZED)
    /* a sanitizer takes minutes to compile these, which are the default's source with one number known */
    case 64:
        fixed.head_dim = 64;
        attend(&fixed, task, scratch, dtype);
        break;
    case 128:
        fixed.head_dim = 128;
        attend(&fixed, task, scratch, dtype);
        break;
#endif
    default:
        attend(&fixed, task, scratch, dtype);
        break;
    }
}

void LSPAN_VARIANT(attention_decode)(const lspan_attention *attention, lspan_decode_task task, void *scratch)
{
    switch (attention->keys.dtype) {
    case lspan_dtype_f16:
        attend_any(attention, task, scratch, lspan_dtype_f16);
        break;
    case lspan_dtype_bf16:
        attend_any(attention, task, scratch, lspan_dtype_bf16);
        break;
    default:
        attend_any(attention, task, scratch, lspan_dtype_f32);
        break;
    }
}
