/* ssd_operands.h: the operands of a chunk's products that are made of B, C and the steps: B and C packed and multiplied, the
 * weights with which tokens read each other, and what decays leave. */
#ifndef LSPAN_SSD_OPERANDS_H
#define LSPAN_SSD_OPERANDS_H

#include "ssd_chunk.h"

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

#endif
