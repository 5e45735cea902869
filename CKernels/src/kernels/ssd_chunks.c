/* ssd_chunks.c: one task of the chunked SSD scan: some heads of a group over a sequence, a chunk of tokens at a time (Dao
 * and Gu 2024, section 6).
 *
 * With c_t the sum of dt * A over a chunk's tokens up to t, and S the state before the chunk, kept as [N][P]:
 *
 *     Y_t = exp(c_t) * C_t S + sum_{s <= t} (C_t . B_s) exp(c_t - c_s) dt_s x_s
 *     S   = exp(c_last) * S + sum_s B_s^T (exp(c_last - c_s) dt_s x_s)
 *
 * C B^T is made once a chunk for all heads. The rest is three register-tiled products a head; no exponent is above 0. Sums of
 * dt * A are kept in two floats: differences of sums that large steps have made large would otherwise be wrong. Tokens with
 * dt = 0 are left out of both sums over s: the others are gathered by a list, which names all tokens where none is 0.
 *
 * A token reaches none before it, even if it is infinite or NaN: sums end at the token itself, row by row.
 *
 * Where the CPU has bf16 dot products and x, B and C are all bf16 (and N is even), products take pairs of bf16 as their
 * elements (`pairs` below): along n in C S and C B^T, along tokens in the others. */
#include "ssd_scratch.h"
#include "ssm_step.h"
#include "variants.h"

#define ROWS LSPAN_SSD_ROWS
#define VECTORS LSPAN_TILE_VECTORS
#define PANEL (VECTORS * V_WIDTH)
#define CHUNK LSPAN_SSD_CHUNK
#define BLOCK LSPAN_SSD_BLOCK

/* Column t of a row of `depth` rows that lie in blocks of BLOCK columns. */
V_INLINE int64_t in_blocks(int64_t t, int64_t depth)
{
    return t / BLOCK * BLOCK * depth + t % BLOCK;
}

/* What a task works on; rows of chunk token t are first + t. */
typedef struct chunk_call {
    const lspan_ssd_scan *scan;
    lspan_ssd_task task;
    lspan_ssd_scratch s;
    int64_t group;
    int64_t columns;      /* of the task */
    int64_t width;        /* columns in whole panels of the scratch */
    int64_t state_size;   /* N */
    int64_t state_stride; /* of rows with state elements in the columns */
    int64_t first;
    int64_t count; /* tokens of this chunk */
} chunk_call;

/* A head's kept tokens of a chunk. */
typedef struct kept_tokens {
    int64_t count;
    const int32_t *token;
    const int32_t *until;
} kept_tokens;

V_INLINE v_f32 load_lanes(const void *data, int64_t index, lspan_dtype dtype, int lanes)
{
    return lanes == V_WIDTH ? v_load_as(data, index, dtype) : v_load_as_n(data, index, dtype, lanes);
}

V_INLINE int lanes_of(int64_t left)
{
    return (int)lspan_min64(left, V_WIDTH);
}

/* ---- Products ---------------------------------------------------------------------------------------- */

V_INLINE v_f32 multiply_add(v_f32 a, v_f32 b, v_f32 sum, const int pairs)
{
#if V_BF16_DOT
    if (pairs) return v_dot_bf16(sum, a, b);
#else
    (void)pairs;
#endif
    return v_fma(a, b, sum);
}

/* sum[r][v] += sum_k a[r * a_row + k * a_depth] * b[k * b_stride + v * b_vector] over floats or pairs of bf16 */
V_INLINE void accumulate(
    v_f32 sum[ROWS][VECTORS], const float *a, int64_t a_row, int64_t a_depth, const float *b, int64_t b_stride,
    int64_t b_vector, int64_t depth, const int vectors, const int pairs)
{
    for (int64_t k = 0; k < depth; k++) {
        v_f32 right[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) right[v] = v_load(b + k * b_stride + v * b_vector);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            v_f32 left = v_set1(a[r * a_row + k * a_depth]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[r][v] = multiply_add(left, right[v], sum[r][v], pairs);
        }
    }
}

V_INLINE void clear(v_f32 sum[ROWS][VECTORS], const int vectors)
{
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[r][v] = v_zero();
    }
}

/* ---- A chunk's C, B and their product ------------------------------------------------------------------ */

/* out[n][t] = rows[t][n] in blocks of t, zero for t >= count; elements are floats or pairs. */
V_INLINE void transpose_tokens(
    float *out, const void *data, int64_t base, int64_t row_stride, lspan_dtype dtype, int64_t count, int64_t depth,
    const int pairs)
{
    for (int64_t t = 0; t < CHUNK; t += V_WIDTH) {
        for (int64_t n = 0; n < depth; n += V_WIDTH) {
            int lanes = lanes_of(depth - n);
            v_f32 block[V_WIDTH];
#pragma GCC unroll 16
            for (int i = 0; i < V_WIDTH; i++) {
                int64_t at = base + (t + i) * row_stride + (pairs ? 2 * n : n);
                block[i] = v_zero();
                if (t + i >= count) continue;
                if (pairs) {
                    const void *row = (const uint16_t *)data + at;
                    block[i] = lanes == V_WIDTH ? v_load(row) : v_load_n(row, lanes);
                } else {
                    block[i] = load_lanes(data, at, dtype, lanes);
                }
            }
            v_transpose(block);
#pragma GCC unroll 16
            for (int i = 0; i < V_WIDTH; i++) {
                if (i < lanes) v_store(out + in_blocks(t, depth) + (n + i) * BLOCK, block[i]);
            }
        }
    }
}

/* Rows of B of the given tokens; with pairs, those of two tokens side by side, the last of which may be alone. */
V_INLINE void pack_b(const chunk_call *call, float *out, const int32_t *token, int64_t count, const int pairs)
{
    lspan_heads b = call->scan->b;
    for (int64_t k = 0; k < count; k += pairs ? 2 : 1) {
        int64_t row = (call->first + token[k]) * b.token_stride + call->group * b.head_stride;
        float *to = out + (pairs ? k / 2 : k) * call->state_stride;
        for (int64_t n = 0; n < call->state_stride; n += V_WIDTH) {
            int lanes = lanes_of(lspan_max64(0, call->state_size - n));
#if V_BF16_DOT
            if (pairs) {
                const uint16_t *p = (const uint16_t *)b.data + row + n, *q = NULL;
                if (k + 1 < count) {
                    q = (const uint16_t *)b.data + (call->first + token[k + 1]) * b.token_stride +
                        call->group * b.head_stride + n;
                }
                v_store(to + n, lanes > 0 ? v_zip_bf16(p, q, lanes) : v_zero());
                continue;
            }
#endif
            v_store(to + n, lanes > 0 ? load_lanes(b.data, row + n, b.dtype, lanes) : v_zero());
        }
    }
}

/* Products of a tile of rows r .. with tokens t .. in `vectors` vectors. The last tile may pass the last row, into what the
 * scratch holds there: no use is made of that. */
V_INLINE void product_tile(const chunk_call *call, int64_t r, int64_t t, const int vectors, const int pairs)
{
    const lspan_ssd_scratch *s = &call->s;
    int64_t depth = pairs ? call->state_size / 2 : call->state_size, row = pairs ? depth : call->state_stride;
    int64_t at = in_blocks(t, depth);
    v_f32 sum[ROWS][VECTORS];
    clear(sum, vectors);
    accumulate(
        sum, (pairs ? s->b_rows : s->b) + r * row, row, 1, s->c + at, BLOCK, in_blocks(t + V_WIDTH, depth) - at, depth,
        vectors, pairs);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) v_store(s->products + (r + i) * CHUNK + t + v * V_WIDTH, sum[i][v]);
    }
}

/* Rows of B with the tokens from their own on. */
V_INLINE void multiply_tokens(const chunk_call *call, const int pairs)
{
    const int64_t start = PANEL < BLOCK ? PANEL : BLOCK;
    for (int64_t r = 0; r < call->count; r += ROWS) {
        int64_t t = r / start * start;
        for (; t + (VECTORS - 1) * V_WIDTH < call->count; t += PANEL) product_tile(call, r, t, VECTORS, pairs);
        for (; t < call->count; t += V_WIDTH) product_tile(call, r, t, 1, pairs);
    }
}

V_INLINE void pack_chunk(const chunk_call *call, const int pairs)
{
    const lspan_heads *b = &call->scan->b, *c = &call->scan->c;
    int64_t depth = pairs ? call->state_size / 2 : call->state_size;
    int64_t row = call->first * c->token_stride + call->group * c->head_stride;
    transpose_tokens(call->s.c, c->data, row, c->token_stride, c->dtype, call->count, depth, pairs);
    pack_b(call, call->s.b, call->s.all, call->count, pairs);
    for (int64_t t = 0; pairs && t < call->count; t++) {
        int64_t at = (call->first + t) * b->token_stride + call->group * b->head_stride;
        memcpy(call->s.b_rows + t * depth, (const uint16_t *)b->data + at, (size_t)depth * sizeof(float));
    }
    multiply_tokens(call, pairs);
}

/* ---- Steps ------------------------------------------------------------------------------------------- */

/* *high + *low += x, exactly but for the rounding of *low. */
V_INLINE void add_exactly(v_f32 *high, v_f32 *low, v_f32 x)
{
    v_f32 sum = v_add(*high, x);
    v_f32 added = v_sub(sum, *high);
    *low = v_add(*low, v_add(v_sub(*high, v_sub(sum, added)), v_sub(x, added)));
    *high = sum;
}

/* steps, high, low and least of V_WIDTH heads from the task's head h on. */
V_INLINE void make_steps(const chunk_call *call, int64_t h)
{
    const lspan_ssd_scan *scan = call->scan;
    const lspan_ssd_scratch *s = &call->s;
    int lanes = lanes_of(call->task.heads - h);
    int64_t head = call->task.head + h;
    v_dt_rule rule = v_dt_rule_at(&scan->rule, call->task.sequence, head, lanes);
    v_f32 decay = v_mul(v_load_n(scan->a + head, lanes), v_set1(0x1.715476p+0f));
    v_f32 high = v_zero(), low = v_zero(), least = v_set1(INFINITY);
    for (int64_t t = 0; t < CHUNK; t += V_WIDTH) {
        v_f32 block[3][V_WIDTH];
        for (int i = 0; i < V_WIDTH; i++) {
            v_f32 dt = v_zero();
            if (t + i < call->count) {
                int64_t at = (call->first + t + i) * scan->dt.row_stride + head;
                dt = v_dt_step(&rule, load_lanes(scan->dt.data, at, scan->dt.dtype, lanes));
                least = v_min(v_abs(dt), least);
                /* a power so low is 0 as well, and sums of such are finite */
                add_exactly(&high, &low, v_max(v_set1(-1e6f), v_mul(dt, decay)));
            }
            block[0][i] = dt;
            block[1][i] = high;
            block[2][i] = low;
        }
        float *out[3] = {s->steps, s->high, s->low};
#pragma GCC unroll 3
        for (int a = 0; a < 3; a++) {
            v_transpose(block[a]);
            for (int i = 0; i < lanes; i++) v_store(out[a] + (h + i) * CHUNK + t, block[a][i]);
        }
    }
    v_store_n(s->least + h, least, lanes);
}

V_INLINE kept_tokens find_kept(const chunk_call *call, int64_t h)
{
    const lspan_ssd_scratch *s = &call->s;
    if (s->least[h] > 0) return (kept_tokens){call->count, s->all, s->all_until};
    const float *steps = s->steps + h * CHUNK;
    int32_t count = 0;
    for (int32_t t = 0; t < (int32_t)call->count; t++) {
        s->kept[count] = t;
        count += steps[t] != 0.0f;
        s->kept_until[t] = count;
    }
    return (kept_tokens){count, s->kept, s->kept_until};
}

/* ---- Memory ahead of its use -------------------------------------------------------------------------- */

V_INLINE int64_t bytes_of(lspan_dtype dtype)
{
    return (int64_t)(dtype == lspan_dtype_f32 ? sizeof(float) : sizeof(uint16_t));
}

/* Asks for the task's columns of one row of x or z, or of y. */
V_INLINE void prefetch_row(
    const chunk_call *call, const void *data, lspan_dtype dtype, int64_t row, const int written)
{
    const char *at = (const char *)data + (row + call->task.column) * bytes_of(dtype);
    for (int64_t byte = 0; byte < call->columns * bytes_of(dtype); byte += 64) {
        if (written) v_prefetch_write(at + byte);
        else v_prefetch_l2(at + byte);
    }
}

/* Head h's share of the next chunk's rows of B and C. */
V_INLINE void prefetch_chunk(const chunk_call *call, int64_t h)
{
    const lspan_heads *b = &call->scan->b, *c = &call->scan->c;
    int64_t end = call->scan->indptr[call->task.sequence + 1], share = (CHUNK + call->task.heads - 1) / call->task.heads;
    int64_t first = call->first + CHUNK + h * share, stop = lspan_min64(first + share, end);
    for (int64_t t = first; t < stop; t++) {
        const char *rows[2] = {b->data, c->data};
        rows[0] += (t * b->token_stride + call->group * b->head_stride) * bytes_of(b->dtype);
        rows[1] += (t * c->token_stride + call->group * c->head_stride) * bytes_of(c->dtype);
        for (int64_t byte = 0; byte < call->state_size * bytes_of(b->dtype); byte += 64) v_prefetch_l2(rows[0] + byte);
        for (int64_t byte = 0; byte < call->state_size * bytes_of(c->dtype); byte += 64) v_prefetch_l2(rows[1] + byte);
    }
}

/* Rows of y, and of z, of tokens from .. end-1. */
V_INLINE void prefetch_outputs(const chunk_call *call, int64_t head, int64_t from, int64_t end)
{
    const lspan_heads_out *y = &call->scan->output;
    const lspan_heads *z = &call->scan->gate;
    end = lspan_min64(end, call->count);
    for (int64_t t = call->first + from; t < call->first + end; t++) {
        prefetch_row(call, y->data, y->dtype, t * y->token_stride + head * y->head_stride, 1);
        if (z->data) prefetch_row(call, z->data, z->dtype, t * z->token_stride + head * z->head_stride, 0);
    }
}

/* ---- A head's operands --------------------------------------------------------------------------------- */

/* 2^(what tokens t .. of high and low have more than the sum `high` + `low`) */
V_INLINE v_f32 decay_since(const float *highs, const float *lows, int64_t t, v_f32 high, v_f32 low)
{
    return v_exp2_below(v_add(v_sub(v_load(highs + t), high), v_sub(v_load(lows + t), low)));
}

/* Row k of the weights at tokens t ..; zero before token k itself. */
V_INLINE v_f32 weights_at(const chunk_call *call, int64_t h, int64_t token, int64_t t)
{
    const lspan_ssd_scratch *s = &call->s;
    const float *highs = s->high + h * CHUNK, *lows = s->low + h * CHUNK;
    v_f32 decay = decay_since(highs, lows, t, v_set1(highs[token]), v_set1(lows[token]));
    v_f32 step = v_set1(s->steps[h * CHUNK + token]);
    return v_mul(decay, v_mul(v_load(s->products + token * CHUNK + t), step));
}

V_INLINE void make_weights(const chunk_call *call, int64_t h, kept_tokens kept, const int pairs)
{
    const lspan_ssd_scratch *s = &call->s;
#if V_BF16_DOT
    for (int64_t k = 0; pairs && k < kept.count; k += 2) {
        int64_t token = kept.token[k], next = k + 1 < kept.count ? kept.token[k + 1] : CHUNK;
        for (int64_t t = token / V_WIDTH * V_WIDTH; t < call->count; t += V_WIDTH) {
            v_f32 first = weights_at(call, h, token, t), second = v_zero();
            if (next < t + V_WIDTH) {
                /* zero before the token itself, where a pair is read for the sake of its first half */
                v_mask before = v_lt(v_load(s->tokens + t), v_set1((float)next));
                second = v_select(before, v_zero(), weights_at(call, h, next, t));
            }
            v_store(s->weights + in_blocks(t, CHUNK) + k / 2 * BLOCK, v_pair_bf16(first, second));
        }
    }
#endif
    for (int64_t k = 0; !pairs && k < kept.count; k++) {
        int64_t token = kept.token[k];
        for (int64_t t = token / V_WIDTH * V_WIDTH; t < call->count; t += V_WIDTH) {
            v_store(s->weights + in_blocks(t, CHUNK) + k * BLOCK, weights_at(call, h, token, t));
        }
    }
}

/* entry and exit of a head. */
V_INLINE void make_decays(const chunk_call *call, int64_t h)
{
    const lspan_ssd_scratch *s = &call->s;
    const float *highs = s->high + h * CHUNK, *lows = s->low + h * CHUNK;
    v_f32 high = v_set1(highs[call->count - 1]), low = v_set1(lows[call->count - 1]);
    for (int64_t t = 0; t < CHUNK; t += V_WIDTH) {
        v_f32 left = v_exp2_below(v_add(v_sub(high, v_load(highs + t)), v_sub(low, v_load(lows + t))));
        v_store(s->entry + t, v_exp2_below(v_load(highs + t)));
        v_store(s->exit + t, v_mul(left, v_load(s->steps + h * CHUNK + t)));
    }
}

/* x of some heads in a chunk, to be staged: panels of all tokens, zero in the columns that pad the task's. It is read token
 * by token, where the heads lie side by side (rows of one head are often a multiple of 4 KiB apart, and would drive each
 * other out of the caches), and while the heads before are at work, so that memory has time. */
typedef struct input_stage {
    float *to;
    int64_t head;
    int64_t heads;
    int64_t first;
    int64_t count; /* of tokens */
} input_stage;

V_INLINE void stage_tokens(const chunk_call *call, const input_stage *stage, int64_t from, int64_t end, const int pairs)
{
    const lspan_heads *x = &call->scan->input;
    int64_t base = stage->first * x->token_stride + stage->head * x->head_stride;
    for (int64_t t = from; t < end; t += pairs ? 2 : 1) {
        for (int64_t h = 0; h < stage->heads; h++) {
            int64_t row = base + t * x->token_stride + h * x->head_stride + call->task.column;
            float *to = stage->to + h * call->width * CHUNK + (pairs ? t / 2 : t) * PANEL;
            for (int64_t p = 0; p < call->columns; p += V_WIDTH) {
                int lanes = lanes_of(call->columns - p);
                float *at = to + p / PANEL * PANEL * CHUNK + p % PANEL;
#if V_BF16_DOT
                if (pairs) {
                    const uint16_t *first = (const uint16_t *)x->data + row + p;
                    v_store(at, v_zip_bf16(first, t + 1 < stage->count ? first + x->token_stride : NULL, lanes));
                    continue;
                }
#endif
                v_store(at, load_lanes(x->data, row + p, x->dtype, lanes));
            }
        }
    }
}

/* Stages tokens from .. from+count-1, as far as there are such, and asks for those that come after the next so many. */
V_INLINE void stage_part(const chunk_call *call, const input_stage *stage, int64_t from, int64_t count, const int pairs)
{
    const lspan_heads *x = &call->scan->input;
    int64_t ahead = lspan_min64(from + 2 * count, stage->count), end = lspan_min64(from + 3 * count, stage->count);
    for (int64_t t = ahead; t < end; t++) {
        int64_t row = (stage->first + t) * x->token_stride + stage->head * x->head_stride;
        for (int64_t h = 0; h < stage->heads; h++) prefetch_row(call, x->data, x->dtype, row + h * x->head_stride, 0);
    }
    stage_tokens(call, stage, from, lspan_min64(from + count, stage->count), pairs);
}

/* The stage of the task's heads from h on in the chunk at work or, after its last head, of the first heads in the next. */
V_INLINE input_stage stage_from(const chunk_call *call, int64_t h, float *to)
{
    input_stage stage = {to, call->task.head + h, 0, call->first, call->count};
    if (h >= call->task.heads) {
        h = 0;
        stage.head = call->task.head;
        stage.first += CHUNK;
        stage.count = lspan_clamp64(call->scan->indptr[call->task.sequence + 1] - stage.first, 0, CHUNK);
    }
    stage.heads = lspan_min64(LSPAN_SSD_STAGED, call->task.heads - h);
    return stage;
}

/* Token t of a vector of staged columns. */
V_INLINE v_f32 staged_input(const float *staged, int64_t t, const int pairs)
{
#if V_BF16_DOT
    if (pairs) {
        v_f32 x = v_load(staged + t / 2 * PANEL);
        return t % 2 != 0 ? v_high_bf16(x) : v_low_bf16(x);
    }
#else
    (void)pairs;
#endif
    return v_load(staged + t * PANEL);
}

/* Panels of x of the kept tokens: the staged ones, where that is all of them. */
V_INLINE float *pack_input(const chunk_call *call, float *staged, kept_tokens kept, const int pairs)
{
    if (kept.count == call->count) return staged;
    for (int64_t p = 0; p < call->columns; p += V_WIDTH) {
        int64_t at = p / PANEL * PANEL * CHUNK + p % PANEL;
        float *to = call->s.input + at;
#if V_BF16_DOT
        for (int64_t k = 0; pairs && k < kept.count; k += 2, to += PANEL) {
            v_f32 second = k + 1 < kept.count ? staged_input(staged + at, kept.token[k + 1], 1) : v_zero();
            v_store(to, v_pair_bf16(staged_input(staged + at, kept.token[k], 1), second));
        }
#endif
        for (int64_t k = 0; !pairs && k < kept.count; k++, to += PANEL) {
            v_store(to, staged_input(staged + at, kept.token[k], 0));
        }
    }
    return call->s.input;
}

/* The input as the state takes it: x_s times exit_s, in place. */
V_INLINE void weigh_input(const chunk_call *call, float *input, kept_tokens kept, const int pairs)
{
    const lspan_ssd_scratch *s = &call->s;
    for (int64_t p = 0; p < call->columns; p += V_WIDTH) {
        float *at = input + p / PANEL * PANEL * CHUNK + p % PANEL;
#if V_BF16_DOT
        for (int64_t k = 0; pairs && k < kept.count; k += 2, at += PANEL) {
            v_f32 x = v_load(at), high = v_zero();
            if (k + 1 < kept.count) high = v_mul(v_set1(s->exit[kept.token[k + 1]]), v_high_bf16(x));
            v_store(at, v_pair_bf16(v_mul(v_set1(s->exit[kept.token[k]]), v_low_bf16(x)), high));
        }
#endif
        for (int64_t k = 0; !pairs && k < kept.count; k++, at += PANEL) {
            v_store(at, v_mul(v_set1(s->exit[kept.token[k]]), v_load(at)));
        }
    }
}

/* ---- Outputs ----------------------------------------------------------------------------------------- */

/* Sums of a tile of tokens, from column `column` of the head on, on their way out. */
V_INLINE void store_outputs(
    const chunk_call *call, int64_t head, int64_t t, int64_t column, const float *staged,
    const v_f32 sum[ROWS][VECTORS], const int vectors, const int pairs)
{
    const lspan_ssd_scan *scan = call->scan;
    const lspan_heads *z = &scan->gate;
    v_f32 d = v_set1(scan->d ? scan->d[head] : 0.0f);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
        if (t + r >= call->count) break;
        int64_t token = call->first + t + r;
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            int64_t p = column + v * V_WIDTH;
            int lanes = lanes_of(call->task.column_end - p);
            v_f32 y = sum[r][v];
            if (scan->d) y = v_fma(d, staged_input(staged + v * V_WIDTH, t + r, pairs), y);
            if (z->data) {
                v_f32 g = load_lanes(z->data, token * z->token_stride + head * z->head_stride + p, z->dtype, lanes);
                y = v_mul(y, v_mul(g, v_sigmoid(g)));
            }
            int64_t at = token * scan->output.token_stride + head * scan->output.head_stride + p;
#if V_BF16_DOT
            if (pairs && lanes == V_WIDTH && scan->output.dtype == lspan_dtype_bf16) {
                v_narrow_bf16((uint16_t *)scan->output.data + at, y);
                continue;
            }
#endif
            if (lanes == V_WIDTH) v_store_as(scan->output.data, at, scan->output.dtype, y);
            else v_store_as_n(scan->output.data, at, scan->output.dtype, y, lanes);
        }
    }
}

/* What the tile of tokens from t on reads of kept tokens that not all of its rows see. */
V_INLINE void accumulate_rest(
    const chunk_call *call, v_f32 sum[ROWS][VECTORS], int64_t t, const float *input, kept_tokens kept,
    const int vectors, const int pairs)
{
    int64_t seen = kept.until[t];
#pragma GCC unroll 16
    for (int r = 1 - pairs; r < ROWS; r++) {
        if (t + r >= call->count) break;
        int64_t until = kept.until[t + r];
        const float *weight = call->s.weights + in_blocks(t + r, CHUNK);
        int64_t k = pairs ? seen / 2 : seen, end = pairs ? until / 2 : until;
        for (; k < end; k++) {
            v_f32 left = v_set1(weight[k * BLOCK]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) {
                sum[r][v] = multiply_add(left, v_load(input + k * PANEL + v * V_WIDTH), sum[r][v], pairs);
            }
        }
#if V_BF16_DOT
        if (pairs && until % 2 != 0) {
            v_f32 left = v_set1(weight[end * BLOCK]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) {
                sum[r][v] = v_dot_bf16(sum[r][v], left, v_first_bf16(v_load(input + end * PANEL + v * V_WIDTH)));
            }
        }
#endif
    }
}

/* Outputs of a tile of tokens in `vectors` vectors of columns. */
V_INLINE void output_tile(
    const chunk_call *call, int64_t head, int64_t t, int64_t column, const float *state, const float *staged,
    const float *input, kept_tokens kept, const int vectors, const int pairs)
{
    const lspan_ssd_scratch *s = &call->s;
    v_f32 sum[ROWS][VECTORS];
    clear(sum, vectors);
    int64_t depth = pairs ? call->state_size / 2 : call->state_size;
    accumulate(sum, s->c + in_blocks(t, depth), 1, BLOCK, state, PANEL, V_WIDTH, depth, vectors, pairs);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
        v_f32 entry = v_set1(s->entry[t + r]);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[r][v] = v_mul(entry, sum[r][v]);
    }
    int64_t seen = kept.until[t];
    accumulate(sum, s->weights + in_blocks(t, CHUNK), 1, BLOCK, input, PANEL, V_WIDTH, pairs ? seen / 2 : seen, vectors, pairs);
    accumulate_rest(call, sum, t, input, kept, vectors, pairs);
    store_outputs(call, head, t, column, staged, sum, vectors, pairs);
}

/* A tile of rows n .. of a panel of the state: decayed, and with what the chunk adds. */
V_INLINE void state_tile(
    float *state, const float *b, int64_t b_stride, int64_t rows, const float *input, float decay, int64_t depth,
    const int vectors, const int pairs)
{
    v_f32 sum[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            sum[r][v] = r < rows ? v_mul(v_set1(decay), v_load(state + r * PANEL + v * V_WIDTH)) : v_zero();
        }
    }
    accumulate(sum, b, 1, b_stride, input, PANEL, V_WIDTH, depth, vectors, pairs);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            if (r < rows) v_store(state + r * PANEL + v * V_WIDTH, sum[r][v]);
        }
    }
}

/* Vectors of columns that a panel has from column p of the task on. */
V_INLINE int64_t vectors_from(const chunk_call *call, int64_t p)
{
    return lspan_min64(VECTORS, (call->columns - p + V_WIDTH - 1) / V_WIDTH);
}

V_INLINE void make_outputs(
    const chunk_call *call, int64_t h, const float *states, const float *staged, const float *input,
    kept_tokens kept, const input_stage *next, const int pairs)
{
    int64_t head = call->task.head + h, place = h % LSPAN_SSD_STAGED, tiles = (call->count + ROWS - 1) / ROWS;
    int64_t steps = tiles * lspan_min64(LSPAN_SSD_STAGED, call->task.heads - h + place);
    int64_t each = lspan_round_up((next->count + steps - 1) / steps, 2);
    int64_t depth = pairs ? call->state_size / 2 : call->state_size;
    prefetch_outputs(call, head, 0, LSPAN_SSD_AHEAD);
    for (int64_t p = 0; p < call->columns; p += PANEL) {
        int64_t vectors = vectors_from(call, p), column = call->task.column + p;
        const float *state = states + p * depth, *x = staged + p * CHUNK, *kept_x = input + p * CHUNK;
        for (int64_t t = 0; t < call->count; t += ROWS) {
            if (p == 0) {
                prefetch_outputs(call, head, t + LSPAN_SSD_AHEAD, t + LSPAN_SSD_AHEAD + ROWS);
                stage_part(call, next, (place * tiles + t / ROWS) * each, each, pairs);
            }
            if (vectors == VECTORS) {
                output_tile(call, head, t, column, state, x, kept_x, kept, VECTORS, pairs);
                continue;
            }
            for (int64_t v = 0; v < vectors * V_WIDTH; v += V_WIDTH) {
                output_tile(call, head, t, column + v, state + v, x + v, kept_x + v, kept, 1, pairs);
            }
        }
    }
}

/* Leaves the input weighed. */
V_INLINE void update_state(const chunk_call *call, float *states, float *inputs, kept_tokens kept, const int pairs)
{
    int64_t depth = pairs ? (kept.count + 1) / 2 : kept.count;
    const float *b = call->s.b;
    float decay = call->s.entry[call->count - 1];
    if (kept.count == 0) return;
    if (kept.count < call->count) {
        b = call->s.kept_b;
        pack_b(call, call->s.kept_b, kept.token, kept.count, pairs);
    }
    weigh_input(call, inputs, kept, pairs);
    for (int64_t p = 0; p < call->columns; p += PANEL) {
        int64_t vectors = vectors_from(call, p);
        float *state = states + p * call->state_size;
        const float *input = inputs + p * CHUNK;
        for (int64_t n = 0; n < call->state_size; n += ROWS) {
            int64_t rows = lspan_min64(ROWS, call->state_size - n);
            if (vectors == VECTORS) {
                state_tile(
                    state + n * PANEL, b + n, call->state_stride, rows, input, decay, depth, VECTORS, pairs);
                continue;
            }
            for (int64_t v = 0; v < vectors * V_WIDTH; v += V_WIDTH) {
                state_tile(
                    state + n * PANEL + v, b + n, call->state_stride, rows, input + v, decay, depth, 1, pairs);
            }
        }
    }
}

#if V_BF16_DOT
/* The state as the outputs read it, in pairs along n. */
V_INLINE void pair_states(const chunk_call *call, const float *states)
{
    for (int64_t p = 0; p < call->columns; p += PANEL) {
        const float *from = states + p * call->state_size;
        float *to = call->s.state_pairs + p * (call->state_size / 2);
        for (int64_t n = 0; n < call->state_size; n += 2, from += 2 * PANEL, to += PANEL) {
#pragma GCC unroll 4
            for (int v = 0; v < PANEL; v += V_WIDTH) v_store(to + v, v_pair_bf16(v_load(from + v), v_load(from + PANEL + v)));
        }
    }
}
#endif

/* ---- States between a call's layout and the scratch's --------------------------------------------------- */

/* Panels of [N][panel] of one head from its state [P][N], or zeros. */
V_INLINE void load_state(const chunk_call *call, const float *state, float *out)
{
    memset(out, 0, (size_t)(call->width * call->state_size) * sizeof(float));
    for (int64_t p = 0; state && p < call->columns; p += V_WIDTH) {
        int count = lanes_of(call->columns - p);
        float *panel = out + p / PANEL * PANEL * call->state_size + p % PANEL;
        for (int64_t n = 0; n < call->state_size; n += V_WIDTH) {
            int lanes = lanes_of(call->state_size - n);
            v_f32 block[V_WIDTH];
            for (int i = 0; i < V_WIDTH; i++) {
                block[i] = i < count ? v_load_n(state + (p + i) * call->state_size + n, lanes) : v_zero();
            }
            v_transpose(block);
            for (int i = 0; i < lanes; i++) v_store(panel + (n + i) * PANEL, block[i]);
        }
    }
}

V_INLINE void store_state(const chunk_call *call, const float *in, float *state)
{
    for (int64_t p = 0; p < call->columns; p += V_WIDTH) {
        int count = lanes_of(call->columns - p);
        const float *panel = in + p / PANEL * PANEL * call->state_size + p % PANEL;
        for (int64_t n = 0; n < call->state_size; n += V_WIDTH) {
            int lanes = lanes_of(call->state_size - n);
            v_f32 block[V_WIDTH];
            for (int i = 0; i < V_WIDTH; i++) block[i] = i < lanes ? v_load(panel + (n + i) * PANEL) : v_zero();
            v_transpose(block);
            for (int i = 0; i < count; i++) v_store_n(state + (p + i) * call->state_size + n, block[i], lanes);
        }
    }
}

/* ---- The task ---------------------------------------------------------------------------------------- */

/* Staged is the head's x, next what is to be staged meanwhile. */
V_INLINE int64_t scan_head_chunk(
    const chunk_call *call, int64_t h, float *staged, const input_stage *next, const int pairs)
{
    float *states = call->s.states + h * call->width * call->state_size;
    kept_tokens kept = find_kept(call, h);
    prefetch_chunk(call, h);
    make_decays(call, h);
    make_weights(call, h, kept, pairs);
    float *input = pack_input(call, staged, kept, pairs);
#if V_BF16_DOT
    if (pairs) pair_states(call, states);
#endif
    make_outputs(call, h, pairs ? call->s.state_pairs : states, staged, input, kept, next, pairs);
    update_state(call, states, input, kept, pairs);
    return kept.count;
}

V_INLINE void scan_chunks(chunk_call *call, const int pairs)
{
    const lspan_ssd_scan *scan = call->scan;
    int64_t end = scan->indptr[call->task.sequence + 1];
    int64_t *kept = scan->kept && call->task.column == 0
        ? scan->kept + call->task.sequence * scan->heads + call->task.head : NULL;
    for (int64_t h = 0; kept && h < call->task.heads; h++) kept[h] = 0;
    int64_t stage_size = lspan_min64(LSPAN_SSD_STAGED, call->task.heads) * call->width * CHUNK;
    input_stage stage = {0}, next = {0};
    for (int i = 0; call->first < end; call->first += CHUNK) {
        call->count = lspan_min64(CHUNK, end - call->first);
        pack_chunk(call, pairs);
        for (int64_t h = 0; h < call->task.heads; h += V_WIDTH) make_steps(call, h);
        for (int64_t h = 0; h < call->task.heads; h++) {
            if (h % LSPAN_SSD_STAGED == 0) {
                if (next.count == 0) {
                    next = stage_from(call, h, call->s.staged);
                    stage_tokens(call, &next, 0, next.count, pairs);
                }
                stage = next;
                i ^= 1;
                next = stage_from(call, h + LSPAN_SSD_STAGED, call->s.staged + i * stage_size);
            }
            float *staged = stage.to + h % LSPAN_SSD_STAGED * call->width * CHUNK;
            int64_t count = scan_head_chunk(call, h, staged, &next, pairs);
            if (kept) kept[h] += count;
        }
    }
}

void LSPAN_VARIANT(ssd_chunks)(const lspan_ssd_scan *scan, lspan_ssd_task task, void *scratch)
{
    chunk_call call = {
        .scan = scan,
        .task = task,
        .group = task.head / (scan->heads / scan->groups),
        .columns = task.column_end - task.column,
        .state_size = scan->state_size,
        .state_stride = lspan_ssd_state_stride(scan->state_size),
        .first = scan->indptr[task.sequence]};
    call.width = lspan_round_up(call.columns, LSPAN_SSD_PANEL);
    call.s = lspan_cut_ssd_scratch(scratch, task.heads, call.columns, scan->state_size);
    for (int32_t t = 0; t < CHUNK; t++) {
        call.s.tokens[t] = (float)t;
        call.s.all[t] = t;
        call.s.all_until[t] = t + 1;
    }
    int64_t head_state = scan->head_dim * scan->state_size, column = task.column * scan->state_size;
    int64_t at = task.sequence * scan->state_stride + task.head * head_state + column;
    for (int64_t h = 0; h < task.heads; h++) {
        const float *initial = scan->initial_state ? scan->initial_state + at + h * head_state : NULL;
        load_state(&call, initial, call.s.states + h * call.width * scan->state_size);
    }
#if V_BF16_DOT
    int pairs = scan->input.dtype == lspan_dtype_bf16 && scan->b.dtype == lspan_dtype_bf16 &&
        scan->c.dtype == lspan_dtype_bf16 && scan->state_size % 2 == 0;
    if (pairs) scan_chunks(&call, 1);
    else scan_chunks(&call, 0);
#else
    scan_chunks(&call, 0);
#endif
    for (int64_t h = 0; scan->final_state && h < task.heads; h++) {
        store_state(&call, call.s.states + h * call.width * scan->state_size, scan->final_state + at + h * head_state);
    }
}
