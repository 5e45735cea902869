/* attention_decode_rows.h: what both forms of decode share, of keys that lie in ranges (attention_decode.c) and of keys
 * wherever they are (attention_decode_gather.c): query rows against a tile of keys and values, and the frame of a task.
 *
 * Memory-bound: each key and value is loaded from memory once for all T*G rows, and converted in registers. Keys and
 * values alternate in tiles, so that a softmax has enough to do. A tile is read in blocks, and while one is in use the
 * next is prefetched into L1 in address order, a line for each line that is read: loads that miss would fill the CPU's
 * window of instructions before enough of them are under way. Channels are handled in pairs of vectors in whatever
 * order the dtype unpacks cheapest (v_load_pair in simd.h); queries are stored in that order, and outputs put back in
 * theirs at the end. bf16 queries on bf16 keys are left as they are, for dot products of pairs. */
#ifndef LSPAN_ATTENTION_DECODE_ROWS_H
#define LSPAN_ATTENTION_DECODE_ROWS_H

#include "attention_softmax.h"

#define KEYS LSPAN_DECODE_KEYS
#define ROWS LSPAN_DECODE_ROWS
#define PAIR (2 * V_WIDTH)
#define COLUMNS LSPAN_DECODE_COLUMNS
/* Keys whose scores are reduced together. */
#define REDUCED 4
/* Most keys of a block. */
#define BLOCK 64
/* Most floats of a block of keys: such of 2 bytes an element have twice as many as their bytes. */
#define ROTATED (LSPAN_DECODE_BLOCK_BYTES / 2)

/* Rows of keys or values of one head: row j is at element base + j * stride or, gathered, base + slots[j] * stride. */
typedef struct row_view {
    const void *data;
    int64_t base;
    int64_t stride;
    const int32_t *slots;
} row_view;

V_INLINE int64_t row_at(const row_view *view, int64_t j, const int gather)
{
    return view->base + (gather ? view->slots[j] : j) * view->stride;
}

V_INLINE row_view rows_from(row_view view, int64_t j, const int gather)
{
    if (gather) view.slots += j;
    else view.base += j * view.stride;
    return view;
}

/* What to prefetch while a block is in use: rows of the next one. */
typedef struct next_block {
    const char *data;
    int64_t stride; /* bytes from row to row */
    int64_t rows;
    const int32_t *slots; /* of gathered rows */
} next_block;

V_INLINE next_block block_at(row_view view, int64_t rows, const lspan_dtype dtype)
{
    int64_t element = element_bytes(dtype);
    /* rows that there are not have no address, and one row alone may have any stride */
    int64_t base = rows > 0 ? view.base * element : 0;
    int64_t stride = (int64_t)((uint64_t)view.stride * (uint64_t)element);
    next_block next = {(const char *)view.data + base, stride, rows, view.slots};
    return next;
}

/* Asks for part `index` of the next block, whose rows have `parts` parts of `bytes` bytes, in address order. */
V_INLINE void prefetch_part(
    const next_block *next, int64_t index, const int64_t parts, const int64_t bytes, const int gather)
{
    int64_t row = index / parts;
    if (row >= next->rows) return;
    const char *part = next->data + (gather ? next->slots[row] : row) * next->stride + index % parts * bytes;
#pragma GCC unroll 16
    for (int64_t line = 0; line < bytes; line += 64) v_prefetch_l1(part + line);
}

/* The parts in which a block's rows are read: one for each pass over `width` channels. */
typedef struct row_parts {
    int64_t count;
    int64_t bytes;
} row_parts;

V_INLINE row_parts parts_of(int64_t head_dim, const int64_t width, const lspan_dtype dtype)
{
    row_parts parts = {lspan_max64(1, head_dim / width), 0};
    parts.bytes = head_dim * element_bytes(dtype) / parts.count;
    return parts;
}

/* scores[r][j..] = sums over lanes, for REDUCED keys */
V_INLINE void reduce_keys(const v_f32 sum[ROWS][REDUCED], float *scores, const int rows)
{
#if LSPAN_DECODE_ROWS == 4
    if (rows == 4) {
        v_reduce_add4x4(sum, scores, KEYS);
        return;
    }
#endif
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) v_reduce_add4(sum[r], scores + r * KEYS);
}

#if V_BF16_DOT
/* scores[r][j] = queries[r] . keys[j] for the keys of a block; both are pairs of bf16. A key is read whole before the
 * next one: side by side the prefetchers lose the stream. */
V_INLINE void score_block_pairs(
    const float *queries, row_view keys, int64_t count, float *scores, int64_t head_dim, const next_block *next,
    const int rows, const int gather)
{
    for (int64_t j = 0; j < count; j += REDUCED) {
        v_f32 sum[ROWS][REDUCED];
#pragma GCC unroll 4
        for (int i = 0; i < REDUCED; i++) {
            /* past the end the last key is scored again; stream_softmax drops those scores */
            const uint16_t *key = (const uint16_t *)keys.data + row_at(&keys, lspan_min64(j + i, count - 1), gather);
            prefetch_part(next, j + i, 1, head_dim * (int64_t)sizeof *key, gather);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) sum[r][i] = v_zero();
#pragma GCC unroll 8
            for (int64_t d = 0; d < head_dim; d += PAIR) {
                int lanes = (int)lspan_min64(PAIR, head_dim - d) / 2;
                const void *at = key + d;
                v_f32 k = lanes == V_WIDTH ? v_load(at) : v_load_n(at, lanes);
#pragma GCC unroll 4
                for (int r = 0; r < rows; r++) {
                    const float *query = queries + r * head_dim + d / 2;
                    sum[r][i] = v_dot_bf16(sum[r][i], lanes == V_WIDTH ? v_load(query) : v_load_n(query, lanes), k);
                }
            }
        }
        reduce_keys(sum, scores + j, rows);
    }
}
#endif

/* partial[j][r] (+)= queries[r] * keys[j], lane by lane, over `pairs` pairs of vectors of channels from d. The queries
 * stay in registers, so that keys are nearly all that is loaded. */
V_INLINE void multiply_pairs(
    const float *queries, row_view keys, int64_t d, int64_t count, float *partial, int64_t head_dim,
    const next_block *next, int64_t part, row_parts parts, const int rows, const int pairs, const lspan_dtype dtype,
    const int gather)
{
    const int accumulate = d > 0;
    v_f32 query[ROWS][COLUMNS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int n = 0; n < 2 * pairs; n++) query[r][n] = v_load(queries + r * head_dim + d + n * V_WIDTH);
    }
    for (int64_t j = 0; j < count; j++) {
        int64_t at = row_at(&keys, j, gather) + d;
        v_f32 sum[ROWS];
        prefetch_part(next, part + j, parts.count, parts.bytes, gather);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) sum[r] = accumulate ? v_load(partial + (j * ROWS + r) * V_WIDTH) : v_zero();
#pragma GCC unroll 4
        for (int n = 0; n < pairs; n++) {
            v_pair k = v_load_pair(keys.data, at + n * PAIR, dtype);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) sum[r] = v_fma(query[r][2 * n], k.a, sum[r]);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) sum[r] = v_fma(query[r][2 * n + 1], k.b, sum[r]);
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) v_store(partial + (j * ROWS + r) * V_WIDTH, sum[r]);
    }
}

/* The same for the channels behind the last whole pair, one vector of `lanes` lanes at a time. */
V_INLINE void multiply_rest(
    const float *queries, row_view keys, int64_t d, int64_t count, float *partial, int64_t head_dim, int lanes,
    const int rows, const lspan_dtype dtype, const int gather)
{
    for (int64_t j = 0; j < count; j++) {
        v_f32 k = v_load_as_n(keys.data, row_at(&keys, j, gather) + d, dtype, lanes);
        for (int r = 0; r < rows; r++) {
            float *sums = partial + (j * ROWS + r) * V_WIDTH;
            v_store(sums, v_fma(v_load_n(queries + r * head_dim + d, lanes), k, d > 0 ? v_load(sums) : v_zero()));
        }
    }
}

/* scores[r][j] = queries[r] . keys[j] for the keys of a block */
V_INLINE void score_block(
    const float *queries, row_view keys, int64_t count, float *scores, int64_t head_dim, const next_block *next,
    const int rows, const lspan_dtype dtype, const int gather)
{
    float partial[BLOCK * ROWS * V_WIDTH];
    const int64_t width = COLUMNS * V_WIDTH;
    const row_parts parts = parts_of(head_dim, width, dtype);
    int64_t d = 0;
    for (; d + width <= head_dim; d += width) {
        multiply_pairs(
            queries, keys, d, count, partial, head_dim, next, d / width * count, parts, rows, COLUMNS / 2, dtype, gather);
    }
    for (; d + PAIR <= head_dim; d += PAIR) {
        /* the passes above have asked for everything */
        int64_t part = d == 0 ? 0 : parts.count * count;
        multiply_pairs(queries, keys, d, count, partial, head_dim, next, part, parts, rows, 1, dtype, gather);
    }
    for (; d < head_dim; d += V_WIDTH) {
        int lanes = (int)lspan_min64(V_WIDTH, head_dim - d);
        multiply_rest(queries, keys, d, count, partial, head_dim, lanes, rows, dtype, gather);
    }
    for (int64_t j = 0; j < count; j += REDUCED) {
        v_f32 sum[ROWS][REDUCED];
        /* past the end the last key is reduced again; stream_softmax drops those scores */
#pragma GCC unroll 4
        for (int i = 0; i < REDUCED; i++) {
            const float *row = partial + lspan_min64(j + i, count - 1) * ROWS * V_WIDTH;
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) sum[r][i] = v_load(row + r * V_WIDTH);
        }
        reduce_keys(sum, scores + j, rows);
    }
}

/* output[r][d..] += sum_j scores[r][j] * values[j][d..] for `pairs` pairs of vectors, d elements into the rows; key j
 * asks for part `part` + j of the next block. */
V_INLINE void add_pairs(
    const float *scores, row_view values, int64_t d, int64_t count, float *output, int64_t stride,
    const next_block *next, int64_t part, row_parts parts, const int rows, const int pairs, const lspan_dtype dtype,
    const int gather)
{
    v_f32 sum[ROWS][COLUMNS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 8
        for (int n = 0; n < 2 * pairs; n++) sum[r][n] = v_load(output + r * stride + d + n * V_WIDTH);
    }
    for (int64_t j = 0; j < count; j++) {
        int64_t at = row_at(&values, j, gather) + d;
        prefetch_part(next, part + j, parts.count, parts.bytes, gather);
        v_f32 p[ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) p[r] = v_set1(scores[r * KEYS + j]);
#pragma GCC unroll 4
        for (int n = 0; n < pairs; n++) {
            v_pair value = v_load_pair(values.data, at + n * PAIR, dtype);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                sum[r][2 * n] = v_fma(p[r], value.a, sum[r][2 * n]);
                sum[r][2 * n + 1] = v_fma(p[r], value.b, sum[r][2 * n + 1]);
            }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 8
        for (int n = 0; n < 2 * pairs; n++) v_store(output + r * stride + d + n * V_WIDTH, sum[r][n]);
    }
}

/* The same for the channels behind the last whole pair, one vector of `lanes` lanes at a time. */
V_INLINE void add_rest(
    const float *scores, row_view values, int64_t d, int64_t count, float *output, int64_t stride, int lanes,
    const int rows, const lspan_dtype dtype, const int gather)
{
    for (int r = 0; r < rows; r++) {
        v_f32 sum = v_load(output + r * stride + d);
        for (int64_t j = 0; j < count; j++) {
            v_f32 value = v_load_as_n(values.data, row_at(&values, j, gather) + d, dtype, lanes);
            sum = v_fma(v_set1(scores[r * KEYS + j]), value, sum);
        }
        v_store(output + r * stride + d, sum);
    }
}

V_INLINE void add_values(
    const float *scores, row_view values, int64_t count, float *output, int64_t stride, int64_t head_dim,
    const next_block *next, const int rows, const lspan_dtype dtype, const int gather)
{
    const int64_t width = COLUMNS * V_WIDTH;
    const row_parts parts = parts_of(head_dim, width, dtype);
    int64_t d = 0;
    for (; d + width <= head_dim; d += width) {
        add_pairs(
            scores, values, d, count, output, stride, next, d / width * count, parts, rows, COLUMNS / 2, dtype, gather);
    }
    for (; d + PAIR <= head_dim; d += PAIR) {
        /* the passes above have asked for everything */
        int64_t part = d == 0 ? 0 : parts.count * count;
        add_pairs(scores, values, d, count, output, stride, next, part, parts, rows, 1, dtype, gather);
    }
    for (; d < head_dim; d += V_WIDTH) {
        int lanes = (int)lspan_min64(V_WIDTH, head_dim - d);
        add_rest(scores, values, d, count, output, stride, lanes, rows, dtype, gather);
    }
}

typedef struct decode_rows {
    int64_t group;   /* G */
    int64_t rows;    /* T * G */
    int64_t tokens;  /* T */
    int64_t keys;    /* S of the head */
    int64_t key0;    /* the sequence's first row in K and V */
    row_view key;    /* the head's slots from 0 on */
    row_view value;
    int64_t block;   /* keys of a block */
} decode_rows;

/* What follows block j of `count` rows: the next of them, or the first block of `after` rows of `then`. */
V_INLINE next_block block_after(
    const decode_rows *t, int64_t j, int64_t count, row_view view, row_view then, int64_t after, const lspan_dtype dtype,
    const int gather)
{
    int64_t next = j + t->block;
    if (next < count) return block_at(rows_from(view, next, gather), lspan_min64(t->block, count - next), dtype);
    return block_at(then, lspan_min64(t->block, after), dtype);
}

/* The rows of a tile in K or V. */
V_INLINE row_view tile_rows(row_view head, const key_tile *tile, const int gather)
{
    if (gather) head.slots = tile->slots;
    else head.base += tile->first * head.stride;
    return head;
}

/* Keys from .. from+count-1 of a tile, turned and in f32, while those of the next block are asked for. Not inlined: one
 * instance serves every dtype and number of rows. */
static __attribute__((noinline, unused)) void rotate_block(
    float *out, const lspan_attention *a, int64_t key0, const key_tile *tile, const row_view *keys, int64_t from,
    int64_t count, const next_block *next)
{
    lspan_dtype dtype = a->keys.dtype;
    for (int64_t i = 0; i < count; i++) {
        prefetch_part(next, i, 1, a->head_dim * element_bytes(dtype), 1);
        rotate_key(out + i * a->head_dim, a, key0, tile->slots[from + i], row_at(keys, from + i, 1), dtype);
    }
}

/* Rows r .. r+rows-1 against a tile of at most KEYS keys, while the one after it is asked for. */
V_INLINE void attend_rows(
    const lspan_attention *a, const decode_rows *t, const lspan_attention_scratch *s, int64_t r, const key_tile *tile,
    const key_tile *after, const int rows, const lspan_dtype dtype, const int dot, const int gather, const int rotated)
{
    int64_t head_dim = a->head_dim, stride = lspan_round_up(head_dim, LSPAN_SCRATCH_LANES), count = tile->count;
    float *scores = s->scores + r * KEYS, *output = s->output + r * stride;
    const float *queries = s->queries + r * head_dim;
    row_view keys = tile_rows(t->key, tile, gather), values = tile_rows(t->value, tile, gather);
    row_view next_keys = tile_rows(t->key, after, gather);

    for (int64_t j = 0; j < count; j += t->block) {
        next_block next = block_after(t, j, count, keys, values, count, dtype, gather);
        /* later row groups find the tile in the cache */
        if (r > 0) next.rows = 0;
        int64_t block = lspan_min64(t->block, count - j);
        if (rotated) {
            float turned[ROTATED];
            row_view view = {turned, 0, head_dim, NULL};
            next_block nothing = {NULL, 0, 0, NULL};
            rotate_block(turned, a, t->key0, tile, &keys, j, block, &next);
            score_block(queries, view, block, scores + j, head_dim, &nothing, rows, lspan_dtype_f32, 0);
            continue;
        }
        row_view at = rows_from(keys, j, gather);
#if V_BF16_DOT
        if (dot) {
            score_block_pairs(queries, at, block, scores + j, head_dim, &next, rows, gather);
            continue;
        }
#endif
        score_block(queries, at, block, scores + j, head_dim, &next, rows, dtype, gather);
    }
    for (int i = 0; i < rows; i++) {
        lspan_row_keys seen = lspan_keys_of_row(a, (r + i) / t->group, t->tokens, t->keys);
        float factor = stream_softmax(
            scores + i * KEYS, tile, 0, count, lspan_round_up(count, V_WIDTH), seen, dot ? a->scale : 1.0f, a->softcap,
            s->maximum + r + i, s->sum + r + i, 0);
        if (factor != 1.0f) scale_row(output + i * stride, lspan_round_up(head_dim, V_WIDTH), factor);
    }
    for (int64_t j = 0; j < count; j += t->block) {
        next_block next = block_after(t, j, count, values, next_keys, after->count, dtype, gather);
        if (r > 0) next.rows = 0;
        add_values(
            scores + j, rows_from(values, j, gather), lspan_min64(t->block, count - j), output, stride, head_dim, &next,
            rows, dtype, gather);
    }
}

/* All rows against a tile. */
V_INLINE void attend_tile(
    const lspan_attention *a, const decode_rows *t, const lspan_attention_scratch *s, const key_tile *tile,
    const key_tile *after, const lspan_dtype dtype, const int dot, const int gather, const int rotated)
{
    int64_t r = 0;
    for (; r + ROWS <= t->rows; r += ROWS) attend_rows(a, t, s, r, tile, after, ROWS, dtype, dot, gather, rotated);
    switch (t->rows - r) {
#if LSPAN_DECODE_ROWS > 3
    case 3:
        attend_rows(a, t, s, r, tile, after, 3, dtype, dot, gather, rotated);
        break;
    case 2:
        attend_rows(a, t, s, r, tile, after, 2, dtype, dot, gather, rotated);
        break;
#endif
    case 1:
        attend_rows(a, t, s, r, tile, after, 1, dtype, dot, gather, rotated);
        break;
    default:
        break;
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

/* What a task knows of its rows. */
V_INLINE decode_rows rows_of(const lspan_attention *a, const lspan_decode_task *task, const lspan_dtype dtype)
{
    decode_rows t;
    t.group = a->query_heads / a->kv_heads;
    t.tokens = a->query_indptr[task->sequence + 1] - a->query_indptr[task->sequence];
    t.rows = t.tokens * t.group;
    t.keys = lspan_keys_of_head(a, task->sequence, task->kv_head);
    t.key0 = a->kv_indptr[task->sequence];
    t.key = (row_view){
        a->keys.data, t.key0 * a->keys.token_stride + task->kv_head * a->keys.head_stride, a->keys.token_stride, NULL};
    t.value = (row_view){
        a->values.data, t.key0 * a->values.token_stride + task->kv_head * a->values.head_stride, a->values.token_stride,
        NULL};
    t.block = LSPAN_DECODE_BLOCK_BYTES / (a->head_dim * element_bytes(dtype)) / REDUCED * REDUCED;
    t.block = lspan_clamp64(t.block, REDUCED, BLOCK);
    return t;
}

/* Loads the queries, in the order in which keys of `dtype` are unpacked, and clears what is accumulated. */
V_INLINE void begin_rows(
    const lspan_attention *a, const lspan_decode_task *task, const decode_rows *t, const lspan_attention_scratch *s,
    const lspan_dtype dtype, const int dot)
{
    int64_t query0 = a->query_indptr[task->sequence], stride = lspan_round_up(a->head_dim, LSPAN_SCRATCH_LANES);
    for (int64_t r = 0; r < t->rows; r++) {
        float *query = s->queries + r * a->head_dim;
        int64_t token = query0 + r / t->group, head = task->kv_head * t->group + r % t->group;
        if (dot) {
            int64_t base = token * a->queries.token_stride + head * a->queries.head_stride;
            memcpy(query, (const uint16_t *)a->queries.data + base, (size_t)a->head_dim * sizeof(uint16_t));
        } else {
            load_query(query, a->queries, token, head, a->head_dim, a->scale);
            to_pair_order(query, a->head_dim, dtype);
        }
        s->maximum[r] = -INFINITY;
        s->sum[r] = 0.0f;
    }
    memset(s->output, 0, (size_t)(t->rows * stride) * sizeof(float));
}

/* Writes the task's results; values are of `dtype`. */
V_INLINE void finish_rows(
    const lspan_attention *a, const lspan_decode_task *task, const decode_rows *t, const lspan_attention_scratch *s,
    const lspan_dtype dtype)
{
    int64_t stride = lspan_round_up(a->head_dim, LSPAN_SCRATCH_LANES);
    for (int64_t r = 0; r < t->rows; r++) {
        float *out = task->output + r / t->group * task->output_token_stride + r % t->group * task->output_head_stride;
        from_pair_order(s->output + r * stride, a->head_dim, dtype);
        float lse = finish_row(out, s->output + r * stride, a->head_dim, s->maximum[r], s->sum[r]);
        if (task->log_sum_exp) task->log_sum_exp[r / t->group * task->log_sum_exp_stride + r % t->group] = lse;
    }
}

/* The instances of a body, attend(), for one way to read keys, given as its last arguments. The usual head dimensions get
 * some of their own, whose loops over channels are unrolled. Each is a function by itself: in one that holds them all
 * compilers run out of registers in the loops that matter. */
#define DECODE_INSTANCE(name, dimension, ...)                                                                           \
    static __attribute__((noinline)) void name(const lspan_attention *a, const lspan_decode_task *task, void *scratch) \
    {                                                                                                                   \
        lspan_attention fixed = *a;                                                                                     \
        if ((dimension) > 0) fixed.head_dim = (dimension);                                                              \
        attend(&fixed, task, scratch, __VA_ARGS__);                                                                     \
    }

#if defined(LSPAN_SANITIZED)
/* a sanitizer takes minutes to compile those of one dimension, which are the others' source with one number known */
#define DECODE_INSTANCES(name, ...) DECODE_INSTANCE(name, 0, __VA_ARGS__)
#else
#define DECODE_INSTANCES(name, ...)                                                                     \
    DECODE_INSTANCE(name##_64, 64, __VA_ARGS__)                                                         \
    DECODE_INSTANCE(name##_128, 128, __VA_ARGS__)                                                       \
    DECODE_INSTANCE(name##_any, 0, __VA_ARGS__)                                                         \
    static void name(const lspan_attention *a, const lspan_decode_task *task, void *scratch)           \
    {                                                                                                   \
        (a->head_dim == 64 ? name##_64 : a->head_dim == 128 ? name##_128 : name##_any)(a, task, scratch); \
    }
#endif

#endif
