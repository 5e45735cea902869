/* attention_decode.c: one task of decode attention: a few query rows over a range of one head's keys.
 *
 * Memory-bound: each key and value is loaded from memory once for all T*G rows, and converted in registers. Keys and
 * values alternate in tiles, so that a softmax has enough to do. A tile is read in blocks, and while one is in use the
 * next is prefetched into L1 in address order, a line for each line that is read: loads that miss would fill the CPU's
 * window of instructions before enough of them are under way. Channels are handled in pairs of vectors in whatever
 * order the dtype unpacks cheapest (v_load_pair in simd.h); queries are stored in that order, and outputs put back in
 * theirs at the end. bf16 queries on bf16 keys are left as they are, for dot products of pairs. */
#include "attention_softmax.h"
#include "variants.h"

#define KEYS LSPAN_DECODE_KEYS
#define ROWS LSPAN_DECODE_ROWS
#define PAIR (2 * V_WIDTH)
#define COLUMNS LSPAN_DECODE_COLUMNS
/* Keys whose scores are reduced together. */
#define REDUCED 4
/* Most keys of a block. */
#define BLOCK 64

/* What to prefetch while a block is in use: rows of the next one. */
typedef struct next_block {
    const char *data;
    int64_t stride; /* bytes from row to row */
    int64_t rows;
} next_block;

V_INLINE next_block block_at(lspan_heads view, int64_t base, int64_t rows, const lspan_dtype dtype)
{
    int64_t element = element_bytes(dtype);
    next_block next = {(const char *)view.data + base * element, view.token_stride * element, rows};
    return next;
}

/* Asks for part `index` of the next block, whose rows have `parts` parts of `bytes` bytes, in address order. */
V_INLINE void prefetch_part(const next_block *next, int64_t index, const int64_t parts, const int64_t bytes)
{
    int64_t row = index / parts;
    if (row >= next->rows) return;
    const char *part = next->data + row * next->stride + index % parts * bytes;
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
    const float *queries, lspan_heads keys, int64_t base, int64_t count, float *scores, int64_t head_dim,
    const next_block *next, const int rows)
{
    for (int64_t j = 0; j < count; j += REDUCED) {
        v_f32 sum[ROWS][REDUCED];
#pragma GCC unroll 4
        for (int i = 0; i < REDUCED; i++) {
            /* past the end the last key is scored again; stream_softmax drops those scores */
            const uint16_t *key = (const uint16_t *)keys.data + base + lspan_min64(j + i, count - 1) * keys.token_stride;
            prefetch_part(next, j + i, 1, head_dim * (int64_t)sizeof *key);
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
    const float *queries, lspan_heads keys, int64_t base, int64_t d, int64_t count, float *partial, int64_t head_dim,
    const next_block *next, int64_t part, row_parts parts, const int rows, const int pairs, const lspan_dtype dtype)
{
    const int accumulate = d > 0;
    v_f32 query[ROWS][COLUMNS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int n = 0; n < 2 * pairs; n++) query[r][n] = v_load(queries + r * head_dim + d + n * V_WIDTH);
    }
    for (int64_t j = 0; j < count; j++) {
        int64_t at = base + j * keys.token_stride + d;
        v_f32 sum[ROWS];
        prefetch_part(next, part + j, parts.count, parts.bytes);
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
    const float *queries, lspan_heads keys, int64_t base, int64_t d, int64_t count, float *partial, int64_t head_dim,
    int lanes, const int rows, const lspan_dtype dtype)
{
    for (int64_t j = 0; j < count; j++) {
        v_f32 k = v_load_as_n(keys.data, base + j * keys.token_stride + d, dtype, lanes);
        for (int r = 0; r < rows; r++) {
            float *sums = partial + (j * ROWS + r) * V_WIDTH;
            v_store(sums, v_fma(v_load_n(queries + r * head_dim + d, lanes), k, d > 0 ? v_load(sums) : v_zero()));
        }
    }
}

/* scores[r][j] = queries[r] . keys[j] for the keys of a block */
V_INLINE void score_block(
    const float *queries, lspan_heads keys, int64_t base, int64_t count, float *scores, int64_t head_dim,
    const next_block *next, const int rows, const lspan_dtype dtype)
{
    float partial[BLOCK * ROWS * V_WIDTH];
    const int64_t width = COLUMNS * V_WIDTH;
    const row_parts parts = parts_of(head_dim, width, dtype);
    int64_t d = 0;
    for (; d + width <= head_dim; d += width) {
        multiply_pairs(
            queries, keys, base, d, count, partial, head_dim, next, d / width * count, parts, rows, COLUMNS / 2, dtype);
    }
    for (; d + PAIR <= head_dim; d += PAIR) {
        /* the passes above have asked for everything */
        int64_t part = d == 0 ? 0 : parts.count * count;
        multiply_pairs(queries, keys, base, d, count, partial, head_dim, next, part, parts, rows, 1, dtype);
    }
    for (; d < head_dim; d += V_WIDTH) {
        int lanes = (int)lspan_min64(V_WIDTH, head_dim - d);
        multiply_rest(queries, keys, base, d, count, partial, head_dim, lanes, rows, dtype);
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
    const float *scores, lspan_heads values, int64_t base, int64_t d, int64_t count, float *output, int64_t stride,
    const next_block *next, int64_t part, row_parts parts, const int rows, const int pairs,
    const lspan_dtype dtype)
{
    v_f32 sum[ROWS][COLUMNS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 8
        for (int n = 0; n < 2 * pairs; n++) sum[r][n] = v_load(output + r * stride + d + n * V_WIDTH);
    }
    for (int64_t j = 0; j < count; j++) {
        int64_t at = base + j * values.token_stride + d;
        prefetch_part(next, part + j, parts.count, parts.bytes);
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

V_INLINE void add_values(
    const float *scores, lspan_heads values, int64_t base, int64_t count, float *output, int64_t stride,
    int64_t head_dim, const next_block *next, const int rows, const lspan_dtype dtype)
{
    const int64_t width = COLUMNS * V_WIDTH;
    const row_parts parts = parts_of(head_dim, width, dtype);
    int64_t d = 0;
    for (; d + width <= head_dim; d += width) {
        add_pairs(
            scores, values, base, d, count, output, stride, next, d / width * count, parts, rows, COLUMNS / 2,
            dtype);
    }
    for (; d + PAIR <= head_dim; d += PAIR) {
        /* the passes above have asked for everything */
        int64_t part = d == 0 ? 0 : parts.count * count;
        add_pairs(scores, values, base, d, count, output, stride, next, part, parts, rows, 1, dtype);
    }
    for (; d < head_dim; d += V_WIDTH) {
        int lanes = (int)lspan_min64(V_WIDTH, head_dim - d);
        add_rest(scores, values, base + d, count, output + d, stride, lanes, rows, dtype);
    }
}

typedef struct decode_rows {
    int64_t group;   /* G */
    int64_t rows;    /* T * G */
    int64_t tokens;  /* T */
    int64_t keys;    /* S */
    int64_t key0;    /* the sequence's first row in K and V */
    int64_t block;   /* keys of a block */
} decode_rows;

/* What follows block j of `count` rows from `base`: the next of them, or the first block of `after` rows from `then`. */
V_INLINE next_block block_after(
    const decode_rows *t, int64_t j, int64_t count, lspan_heads view, int64_t base, lspan_heads next_view, int64_t then,
    int64_t after, const lspan_dtype dtype)
{
    int64_t next = j + t->block;
    if (next < count) return block_at(view, base + next * view.token_stride, lspan_min64(t->block, count - next), dtype);
    return block_at(next_view, then, lspan_min64(t->block, after), dtype);
}

/* Rows r .. r+rows-1 against keys first .. first+count-1, count <= KEYS; `after` more keys follow in the range. */
V_INLINE void attend_rows(
    const lspan_attention *a, const decode_rows *t, const lspan_attention_scratch *s, int64_t kv_head, int64_t r,
    int64_t first, int64_t count, int64_t after, const int rows, const lspan_dtype dtype, const int dot)
{
    int64_t head_dim = a->head_dim, stride = lspan_round_up(head_dim, LSPAN_SCRATCH_LANES);
    float *scores = s->scores + r * KEYS, *output = s->output + r * stride;
    int64_t key_base = (t->key0 + first) * a->keys.token_stride + kv_head * a->keys.head_stride;
    int64_t value_base = (t->key0 + first) * a->values.token_stride + kv_head * a->values.head_stride;
    int64_t next_key = key_base + count * a->keys.token_stride;

    for (int64_t j = 0; j < count; j += t->block) {
        next_block next = block_after(t, j, count, a->keys, key_base, a->values, value_base, count, dtype);
        /* later row groups find the tile in the cache */
        if (r > 0) next.rows = 0;
        const float *queries = s->queries + r * head_dim;
        int64_t at = key_base + j * a->keys.token_stride, block = lspan_min64(t->block, count - j);
#if V_BF16_DOT
        if (dot) {
            score_block_pairs(queries, a->keys, at, block, scores + j, head_dim, &next, rows);
            continue;
        }
#endif
        score_block(queries, a->keys, at, block, scores + j, head_dim, &next, rows, dtype);
    }
    for (int i = 0; i < rows; i++) {
        lspan_row_keys seen = lspan_keys_of_row(a, (r + i) / t->group, t->tokens, t->keys);
        float factor = stream_softmax(
            scores + i * KEYS, first, count, lspan_round_up(count, V_WIDTH), seen, dot ? a->scale : 1.0f, a->softcap,
            s->maximum + r + i, s->sum + r + i, 0);
        if (factor != 1.0f) scale_row(output + i * stride, lspan_round_up(head_dim, V_WIDTH), factor);
    }
    for (int64_t j = 0; j < count; j += t->block) {
        next_block next = block_after(t, j, count, a->values, value_base, a->keys, next_key, after, dtype);
        if (r > 0) next.rows = 0;
        add_values(
            scores + j, a->values, value_base + j * a->values.token_stride, lspan_min64(t->block, count - j), output,
            stride, head_dim, &next, rows, dtype);
    }
}

V_INLINE void attend_range(
    const lspan_attention *a, const decode_rows *t, const lspan_attention_scratch *s, int64_t kv_head, int64_t begin,
    int64_t end, const lspan_dtype dtype, const int dot)
{
    for (int64_t j = begin; j < end; j += KEYS) {
        int64_t count = lspan_min64(KEYS, end - j), after = end - j - count, r = 0;
        for (; r + ROWS <= t->rows; r += ROWS) attend_rows(a, t, s, kv_head, r, j, count, after, ROWS, dtype, dot);
        switch (t->rows - r) {
#if LSPAN_DECODE_ROWS > 3
        case 3:
            attend_rows(a, t, s, kv_head, r, j, count, after, 3, dtype, dot);
            break;
        case 2:
            attend_rows(a, t, s, kv_head, r, j, count, after, 2, dtype, dot);
            break;
#endif
        case 1:
            attend_rows(a, t, s, kv_head, r, j, count, after, 1, dtype, dot);
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

V_INLINE void attend(
    const lspan_attention *a, lspan_decode_task task, void *scratch, const lspan_dtype dtype, const int dot)
{
    decode_rows t;
    t.group = a->query_heads / a->kv_heads;
    t.key0 = a->kv_indptr[task.sequence];
    t.keys = a->kv_indptr[task.sequence + 1] - t.key0;
    int64_t query0 = a->query_indptr[task.sequence];
    t.tokens = a->query_indptr[task.sequence + 1] - query0;
    t.rows = t.tokens * t.group;
    t.block = LSPAN_DECODE_BLOCK_BYTES / (a->head_dim * element_bytes(dtype)) / REDUCED * REDUCED;
    t.block = lspan_clamp64(t.block, REDUCED, BLOCK);

    lspan_attention_scratch s = lspan_cut_scratch(scratch, t.rows, a->head_dim, KEYS, 0);
    int64_t stride = lspan_round_up(a->head_dim, LSPAN_SCRATCH_LANES);
    for (int64_t r = 0; r < t.rows; r++) {
        float *query = s.queries + r * a->head_dim;
        int64_t token = query0 + r / t.group, head = task.kv_head * t.group + r % t.group;
        if (dot) {
            int64_t base = token * a->queries.token_stride + head * a->queries.head_stride;
            memcpy(query, (const uint16_t *)a->queries.data + base, (size_t)a->head_dim * sizeof(uint16_t));
        } else {
            load_query(query, a->queries, token, head, a->head_dim, a->scale);
            to_pair_order(query, a->head_dim, dtype);
        }
        s.maximum[r] = -INFINITY;
        s.sum[r] = 0.0f;
    }
    memset(s.output, 0, (size_t)(t.rows * stride) * sizeof(float));

    lspan_row_keys seen = lspan_keys_of_rows(a, 0, t.tokens - 1, t.tokens, t.keys);
    attend_range(a, &t, &s, task.kv_head, task.begin, lspan_min64(task.end, seen.sinks), dtype, dot);
    int64_t gap = seen.low - seen.sinks;
    attend_range(a, &t, &s, task.kv_head, lspan_max64(task.begin, seen.sinks) + gap, task.end + gap, dtype, dot);

    for (int64_t r = 0; r < t.rows; r++) {
        float *out = task.output + r / t.group * task.output_token_stride + r % t.group * task.output_head_stride;
        from_pair_order(s.output + r * stride, a->head_dim, dtype);
        float lse = finish_row(out, s.output + r * stride, a->head_dim, s.maximum[r], s.sum[r]);
        if (task.log_sum_exp) task.log_sum_exp[r / t.group * task.log_sum_exp_stride + r % t.group] = lse;
    }
}

/* The usual head dimensions get instances of their own, whose loops over channels are unrolled. */
V_INLINE void attend_any(
    const lspan_attention *a, lspan_decode_task task, void *scratch, const lspan_dtype dtype, const int dot)
{
    lspan_attention fixed = *a;
    switch (a->head_dim) {
#if !defined(LSPAN_SANITIZED)
    /* a sanitizer takes minutes to compile these, which are the default's source with one number known */
    case 64:
        fixed.head_dim = 64;
        attend(&fixed, task, scratch, dtype, dot);
        break;
    case 128:
        fixed.head_dim = 128;
        attend(&fixed, task, scratch, dtype, dot);
        break;
#endif
    default:
        attend(&fixed, task, scratch, dtype, dot);
        break;
    }
}

void LSPAN_VARIANT(attention_decode)(const lspan_attention *attention, lspan_decode_task task, void *scratch)
{
    switch (attention->keys.dtype) {
    case lspan_dtype_f16:
        attend_any(attention, task, scratch, lspan_dtype_f16, 0);
        break;
    case lspan_dtype_bf16:
        if (V_BF16_DOT && attention->queries.dtype == lspan_dtype_bf16) {
            attend_any(attention, task, scratch, lspan_dtype_bf16, V_BF16_DOT);
        } else {
            attend_any(attention, task, scratch, lspan_dtype_bf16, 0);
        }
        break;
    default:
        attend_any(attention, task, scratch, lspan_dtype_f32, 0);
        break;
    }
}
