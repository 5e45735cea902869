/* attention_prefill.c: one task of prefill attention: a tile of query rows against every key tile it sees.
 *
 * Rows are (token, query head of the group) pairs, so each key and value tile is converted and transposed once
 * for the G heads that share it, and for many tokens. The rows pass over it in blocks, each of which takes only the
 * keys that its own rows see. Scores = Q K^T and output += P V are both register-tiled products. Packing is also where
 * listed keys are gathered and keys are rotated, so the products know nothing of either.
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

/* V_WIDTH columns of a panel of keys transposed: panel[d][j] for `count` keys at elements rows[j], zero for others. */
V_INLINE void pack_columns(
    float *panel, const void *data, const int64_t rows[V_WIDTH], int64_t count, int64_t depth, const lspan_dtype dtype,
    const int pairs)
{
    for (int64_t d = 0; d < depth; d += V_WIDTH) {
        int width = (int)lspan_min64(V_WIDTH, depth - d);
        v_f32 block[V_WIDTH];
#pragma GCC unroll 16
        for (int i = 0; i < V_WIDTH; i++) {
            block[i] = v_zero();
            if (i < count) block[i] = load_keys(data, rows[i], d, width, dtype, pairs);
        }
        v_transpose(block);
#pragma GCC unroll 16
        for (int i = 0; i < V_WIDTH; i++) {
            if (i < width) v_store(panel + (d + i) * PANEL, block[i]);
        }
    }
}

/* Panels of keys transposed: out[panel][d][j] for the keys of a tile, padded with zeros to whole vectors; depth elements
 * d. `base` is the element of slot 0. */
V_INLINE void pack_keys(
    float *out, const lspan_attention *a, const key_tile *tile, int64_t key0, int64_t base, int64_t depth,
    const lspan_dtype dtype, const int pairs)
{
    for (int64_t j = 0; j < tile->count; j += V_WIDTH) {
        float *panel = out + j / PANEL * PANEL * depth + j % PANEL;
        int64_t rows[V_WIDTH], count = lspan_min64(V_WIDTH, tile->count - j);
        for (int64_t i = 0; i < count; i++) rows[i] = base + slot_of(tile, j + i) * a->keys.token_stride;
        if (!pairs && a->key_rotation) {
            float rotated[V_WIDTH * LSPAN_ATTENTION_MAX_HEAD_DIM];
            for (int64_t i = 0; i < count; i++) {
                rotate_key(rotated + i * depth, a, key0, slot_of(tile, j + i), rows[i], dtype);
                rows[i] = i * depth;
            }
            pack_columns(panel, rotated, rows, count, depth, lspan_dtype_f32, 0);
        } else {
            pack_columns(panel, a->keys.data, rows, count, depth, dtype, pairs);
        }
    }
}

/* Panels of values: out[panel][j][d], zero in the columns that pad head_dim to whole vectors; with pairs, j counts
 * pairs of keys, the last of which may have one key and a zero. `base` is the element of slot 0. */
V_INLINE void pack_values(
    float *out, lspan_heads values, const key_tile *tile, int64_t base, int64_t head_dim, const lspan_dtype dtype,
    const int pairs)
{
    const int64_t step = pairs ? 2 : 1;
    for (int64_t j = 0; j < tile->count; j += step) {
        int64_t row = base + slot_of(tile, j) * values.token_stride;
#if V_BF16_DOT
        const uint16_t *second = NULL;
        if (pairs && j + 1 < tile->count) {
            second = (const uint16_t *)values.data + base + slot_of(tile, j + 1) * values.token_stride;
        }
#endif
        for (int64_t d = 0; d < head_dim; d += V_WIDTH) {
            float *to = out + (d / PANEL * LSPAN_PREFILL_KEYS + j / step) * PANEL + d % PANEL;
            int width = (int)lspan_min64(V_WIDTH, head_dim - d);
#if V_BF16_DOT
            if (pairs) {
                v_store(to, v_zip_bf16((const uint16_t *)values.data + row + d, second ? second + d : NULL, width));
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
    int64_t keys;    /* S of the head */
    int64_t key0;    /* the sequence's first row in K and V */
    int64_t key_base; /* the element of the head's slot 0 in K, and in V */
    int64_t value_base;
} tile_rows;

/* Asks for keys from .. end-1 of a tile and their values, ahead of their use. */
V_INLINE void prefetch_keys(
    const lspan_attention *a, const tile_rows *t, const key_tile *tile, int64_t from, int64_t end,
    const lspan_dtype dtype)
{
    int64_t element = element_bytes(dtype);
    for (int64_t j = from; j < end; j++) {
        int64_t slot = slot_of(tile, j);
        const char *key = (const char *)a->keys.data + (t->key_base + slot * a->keys.token_stride) * element;
        const char *value = (const char *)a->values.data + (t->value_base + slot * a->values.token_stride) * element;
        for (int64_t byte = 0; byte < a->head_dim * element; byte += 64) v_prefetch_l2(key + byte);
        for (int64_t byte = 0; byte < a->head_dim * element; byte += 64) v_prefetch_l2(value + byte);
    }
}

/* Keys of a tile, in whole panels at their start, outside which no row sees any. */
typedef struct tile_part {
    int64_t from;
    int64_t to;
} tile_part;

V_INLINE tile_part seen_part(const key_tile *tile, lspan_row_keys seen)
{
    tile_part part = {0, tile->count};
    if (tile->slots) {
        while (part.to > 0 && tile->slots[part.to - 1] >= seen.high) part.to--;
        while (part.from < part.to && tile->slots[part.from] < seen.low && tile->slots[part.from] >= seen.sinks) {
            part.from++;
        }
    } else {
        part.to = lspan_min64(part.to, seen.high - tile->first);
        part.from = tile->first < seen.sinks ? 0 : lspan_max64(0, seen.low - tile->first);
    }
    part.from = part.from / PANEL * PANEL;
    return part;
}

/* Rows r .. r+rows-1, of which those from t->rows on only pad the last product tile, against a packed tile of keys. */
V_INLINE void attend_block(
    const lspan_attention *a, const lspan_prefill_task *task, const tile_rows *t, const lspan_attention_scratch *s,
    int64_t r, int64_t rows, const key_tile *tile, const int pairs)
{
    int64_t head_dim = a->head_dim, depth = pairs ? head_dim / 2 : head_dim;
    int64_t columns = lspan_round_up(head_dim, V_WIDTH), stride = lspan_round_up(head_dim, LSPAN_SCRATCH_LANES);
    int64_t end = lspan_min64(r + rows, t->rows);
    lspan_row_keys seen = lspan_keys_of_rows(
        a, task->first + r / t->group, task->first + (end - 1) / t->group, t->tokens, t->keys);
    tile_part part = seen_part(tile, seen);
    int64_t from = part.from, count = part.to - part.from;
    if (count <= 0) return;
    int64_t padded = lspan_round_up(count, V_WIDTH);

    product(
        s->queries + r * depth, depth, s->keys + from * depth, depth, s->scores, LSPAN_PREFILL_KEYS, rows, padded,
        depth, 0, pairs);
    for (int64_t i = r; i < end; i++) {
        float *scores = s->scores + (i - r) * LSPAN_PREFILL_KEYS;
        float factor = stream_softmax(
            scores, tile, from, count, padded, lspan_keys_of_row(a, task->first + i / t->group, t->tokens, t->keys),
            pairs ? a->scale : 1.0f, a->softcap, s->maximum + i, s->sum + i, pairs);
        if (factor != 1.0f) scale_row(s->output + i * stride, columns, factor);
    }
    int64_t skipped = pairs ? from / 2 : from, taken = pairs ? (count + 1) / 2 : count;
    product(
        s->scores, LSPAN_PREFILL_KEYS, s->values + skipped * PANEL, LSPAN_PREFILL_KEYS, s->output + r * stride, stride,
        rows, columns, taken, 1, pairs);
}

/* One key tile against every row of the task, while the tile after it is asked for. */
V_INLINE void attend_tile(
    const lspan_attention *a, const lspan_prefill_task *task, const tile_rows *t, const lspan_attention_scratch *s,
    const key_tile *tile, const key_tile *next, const lspan_dtype dtype, const int pairs)
{
    int64_t depth = pairs ? a->head_dim / 2 : a->head_dim;
    pack_keys(s->keys, a, tile, t->key0, t->key_base, depth, dtype, pairs);
    pack_values(s->values, a->values, tile, t->value_base, a->head_dim, dtype, pairs);
    for (int64_t r = 0; r < t->padded; r += LSPAN_PREFILL_BLOCK_ROWS) {
        int64_t rows = lspan_min64(LSPAN_PREFILL_BLOCK_ROWS, t->padded - r);
        prefetch_keys(a, t, next, next->count * r / t->padded, next->count * (r + rows) / t->padded, dtype);
        attend_block(a, task, t, s, r, rows, tile, pairs);
    }
}

/* The next tile: a piece of a range where there is enough of it, or where no list follows that could fill the tile up;
 * else slots across segments. */
V_INLINE key_tile take_tile(key_cursor *cursor, int32_t *slots)
{
    const lspan_key_segment *s = current_segment(cursor);
    key_tile tile = {NULL, 0, 0, 0};
    if (!s) return tile;
    int64_t left = s->end - cursor->next;
    if (s->entries || (cursor->segments->listed && left < LSPAN_PREFILL_KEYS)) {
        return tile_of_slots(slots, take_slots(cursor, slots, LSPAN_PREFILL_KEYS));
    }
    tile.first = cursor->next;
    tile.count = lspan_min64(LSPAN_PREFILL_KEYS, left);
    tile.end = cursor->next += tile.count;
    return tile;
}

V_INLINE void attend(
    const lspan_attention *a, lspan_prefill_task task, void *scratch, const lspan_dtype dtype, const int pairs)
{
    tile_rows t;
    t.group = a->query_heads / a->kv_heads;
    t.rows = task.count * t.group;
    t.padded = lspan_round_up(t.rows, ROWS);
    t.key0 = a->kv_indptr[task.sequence];
    t.keys = lspan_keys_of_head(a, task.sequence, task.kv_head);
    t.key_base = t.key0 * a->keys.token_stride + task.kv_head * a->keys.head_stride;
    t.value_base = t.key0 * a->values.token_stride + task.kv_head * a->values.head_stride;
    int64_t query0 = a->query_indptr[task.sequence];
    t.tokens = a->query_indptr[task.sequence + 1] - query0;

    lspan_attention_scratch s = lspan_cut_scratch(scratch, t.rows, a->head_dim, LSPAN_PREFILL_KEYS, 1);
    int64_t stride = lspan_round_up(a->head_dim, LSPAN_SCRATCH_LANES);
    int64_t depth = pairs ? a->head_dim / 2 : a->head_dim;
    lspan_row_keys seen = lspan_keys_of_rows(a, task.first, task.first + task.count - 1, t.tokens, t.keys);
    key_cursor cursor = first_key(a, &task.segments, task.sequence, seen);
    int32_t slots[2][LSPAN_PREFILL_KEYS];
    key_tile tile = take_tile(&cursor, slots[0]);
    prefetch_keys(a, &t, &tile, 0, tile.count, dtype);
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

    for (int i = 1; tile.count > 0; i ^= 1) {
        key_tile next = take_tile(&cursor, slots[i]);
        attend_tile(a, &task, &t, &s, &tile, &next, dtype, pairs);
        tile = next;
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
        attend(attention, task, scratch, lspan_dtype_f16, 0);
        break;
    case lspan_dtype_bf16:
        if (V_BF16_DOT && attention->queries.dtype == lspan_dtype_bf16 && !attention->key_rotation) {
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
