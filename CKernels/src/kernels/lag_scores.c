/* lag_scores.c: lag-relative scores of windows of keys or values, each against the window after it. */
#include "../simd/vmath.h"
#include "lag_scratch.h"
#include "variants.h"
#include <float.h>

/* Tokens that are taken together. */
#define TOKENS 4

/* By channel, of the window after the one that is scored: z becomes (z - low) * inverse. `counted` is 1 for a channel
 * that takes part and 0, like `inverse`, for one that does not and for padding. */
typedef struct channel_ranges {
    float *low;
    float *inverse;
    float *counted;
    int64_t count; /* of channels that take part */
} channel_ranges;

typedef struct lag_window {
    const void *data;
    int64_t first; /* element index of its first token */
    int64_t tokens;
    int64_t token_stride;
    int64_t ahead; /* tokens between what is read and what is asked for */
} lag_window;

/* Element index of a token; beyond the last one it is the last again, which changes no minimum and no maximum. */
V_INLINE int64_t token_at(lag_window w, int64_t token)
{
    return w.first + (token < w.tokens ? token : w.tokens - 1) * w.token_stride;
}

/* 2 * V_WIDTH channels, in whatever order is cheap but always the same; zeros beyond `left`. */
V_INLINE v_pair load_channels(const void *data, int64_t index, lspan_dtype dtype, int64_t left)
{
    if (left >= 2 * V_WIDTH) return v_load_pair(data, index, dtype);
    int first = left < V_WIDTH ? (int)left : V_WIDTH, second = left < V_WIDTH ? 0 : (int)(left - V_WIDTH);
    v_pair pair;
    pair.a = v_load_as_n(data, index, dtype, first);
    pair.b = v_load_as_n(data, index + first, dtype, second);
    return pair;
}

V_INLINE void ask_for(lag_window w, int64_t token, int64_t head_dim, lspan_dtype dtype)
{
    int64_t element = dtype == lspan_dtype_f32 ? 4 : 2;
    for (int i = 0; i < TOKENS && token + w.ahead + i < w.tokens; i++) {
        const char *row = (const char *)w.data + token_at(w, token + w.ahead + i) * element;
        for (int64_t b = 0; b < head_dim * element; b += 64) v_prefetch_l1(row + b);
    }
}

/* Minimum and maximum of each channel over the window. */
V_INLINE void find_extremes(
    lag_window w, float *low, float *high, const int64_t head_dim, const lspan_dtype dtype)
{
    for (int64_t d = 0; d < head_dim; d += 2 * V_WIDTH) {
        for (int64_t i = d; i < d + 2 * V_WIDTH; i += V_WIDTH) {
            v_store(low + i, v_set1(INFINITY));
            v_store(high + i, v_set1(-INFINITY));
        }
    }
    for (int64_t t = 0; t < w.tokens; t += TOKENS) {
        ask_for(w, t, head_dim, dtype);
        int64_t at[TOKENS];
        for (int i = 0; i < TOKENS; i++) at[i] = token_at(w, t + i);
        for (int64_t d = 0; d < head_dim; d += 2 * V_WIDTH) {
            v_pair least = {v_load(low + d), v_load(low + d + V_WIDTH)};
            v_pair most = {v_load(high + d), v_load(high + d + V_WIDTH)};
#pragma GCC unroll 4
            for (int i = 0; i < TOKENS; i++) {
                v_pair z = load_channels(w.data, at[i] + d, dtype, head_dim - d);
                least.a = v_min(least.a, z.a);
                least.b = v_min(least.b, z.b);
                most.a = v_max(most.a, z.a);
                most.b = v_max(most.b, z.b);
            }
            v_store(low + d, least.a);
            v_store(low + d + V_WIDTH, least.b);
            v_store(high + d, most.a);
            v_store(high + d + V_WIDTH, most.b);
        }
    }
}

V_INLINE void find_ranges(lag_window w, channel_ranges *r, const int64_t head_dim, const lspan_dtype dtype)
{
    find_extremes(w, r->low, r->inverse, head_dim, dtype);
    v_f32 count = v_zero(), smallest = v_set1(FLT_MIN), one = v_set1(1.0f);
    for (int64_t d = 0; d < head_dim; d += 2 * V_WIDTH) {
        for (int64_t i = d; i < d + 2 * V_WIDTH; i += V_WIDTH) {
            v_f32 range = v_sub(v_load(r->inverse + i), v_load(r->low + i));
            v_mask flat = v_lt(range, smallest);
            v_f32 counted = v_select(flat, v_zero(), one);
            v_store(r->inverse + i, v_select(flat, v_zero(), v_div(one, range)));
            v_store(r->counted + i, counted);
            count = v_add(count, counted);
        }
    }
    r->count = (int64_t)v_reduce_add(count);
}

V_INLINE v_pair normalize(
    lag_window w, int64_t at, const channel_ranges *r, int64_t d, const int64_t head_dim, const lspan_dtype dtype)
{
    v_pair z = load_channels(w.data, at + d, dtype, head_dim - d);
    z.a = v_mul(v_sub(z.a, v_load(r->low + d)), v_load(r->inverse + d));
    z.b = v_mul(v_sub(z.b, v_load(r->low + d + V_WIDTH)), v_load(r->inverse + d + V_WIDTH));
    return z;
}

/* The squared deviations of each token's normalized channels from their mean, summed. In the second pass over the row
 * the compiler reuses the normalized channels where a constant head_dim lets it keep them in registers. */
V_INLINE void sum_deviations(
    lag_window w, const channel_ranges *r, float *sums, const int64_t head_dim, const lspan_dtype dtype)
{
    float share = 1.0f / (float)r->count;
    for (int64_t t = 0; t < w.tokens; t += TOKENS) {
        ask_for(w, t, head_dim, dtype);
        v_f32 squares[TOKENS];
#pragma GCC unroll 4
        for (int i = 0; i < TOKENS; i++) {
            int64_t at = token_at(w, t + i);
            v_pair sum = {v_zero(), v_zero()}, square = {v_zero(), v_zero()};
#pragma GCC unroll 4
            for (int64_t d = 0; d < head_dim; d += 2 * V_WIDTH) {
                v_pair n = normalize(w, at, r, d, head_dim, dtype);
                sum.a = v_add(sum.a, n.a);
                sum.b = v_add(sum.b, n.b);
            }
            v_f32 mean = v_set1(v_reduce_add(v_add(sum.a, sum.b)) * share);
#pragma GCC unroll 4
            for (int64_t d = 0; d < head_dim; d += 2 * V_WIDTH) {
                v_pair n = normalize(w, at, r, d, head_dim, dtype);
                n.a = v_fnma(mean, v_load(r->counted + d), n.a);
                n.b = v_fnma(mean, v_load(r->counted + d + V_WIDTH), n.b);
                square.a = v_fma(n.a, n.a, square.a);
                square.b = v_fma(n.b, n.b, square.b);
            }
            squares[i] = v_add(square.a, square.b);
        }
        v_reduce_add4(squares, sums + t);
    }
}

/* The softmax of sqrt(sums * factor), times weight. */
V_INLINE void softmax_of_deviations(float *sums, int64_t tokens, float factor, const lspan_lag_task *task, float *scores)
{
    v_f32 f = v_set1(factor), highest = v_zero(), total = v_zero();
    for (int64_t t = 0; t < tokens; t += V_WIDTH) {
        int lanes = tokens - t < V_WIDTH ? (int)(tokens - t) : V_WIDTH;
        v_f32 sigma = v_sqrt(v_mul(v_load_n(sums + t, lanes), f));
        v_store_n(sums + t, sigma, lanes);
        highest = v_max(highest, sigma);
    }
    highest = v_set1(v_reduce_max(highest));
    for (int64_t t = 0; t < tokens; t += V_WIDTH) {
        int lanes = tokens - t < V_WIDTH ? (int)(tokens - t) : V_WIDTH;
        v_store_n(sums + t, v_exp(v_sub(v_load_n(sums + t, lanes), highest)), lanes);
        total = v_add(total, v_load_n(sums + t, lanes));
    }
    v_f32 scale = v_set1(task->weight / v_reduce_add(total));
    for (int64_t t = 0; t < tokens; t += V_WIDTH) {
        int lanes = tokens - t < V_WIDTH ? (int)(tokens - t) : V_WIDTH;
        v_f32 score = v_mul(v_load_n(sums + t, lanes), scale);
        if (task->accumulate) score = v_add(score, v_load_n(scores + t, lanes));
        v_store_n(scores + t, score, lanes);
    }
}

V_INLINE void score_windows(
    const lspan_lag_task *task, float *scratch, const int64_t head_dim, const lspan_dtype dtype)
{
    int64_t channels = lspan_lag_channels(head_dim);
    channel_ranges ranges = {scratch, scratch + channels, scratch + 2 * channels, 0};
    float *sums = scratch + 3 * channels;
    int64_t row_bytes = head_dim * (dtype == lspan_dtype_f32 ? 4 : 2);
    int64_t ahead = lspan_round_up(lspan_max64(LSPAN_LAG_AHEAD_BYTES / row_bytes, 1), TOKENS);
    lag_window scored = {task->data, 0, task->window, task->token_stride, ahead};
    for (int64_t p = 0; p < task->windows; p++) {
        lag_window next = scored;
        next.first += task->window * task->token_stride;
        find_ranges(next, &ranges, head_dim, dtype);
        float factor = 0.0f;
        if (ranges.count < 2) {
            for (int64_t t = 0; t < task->window; t++) sums[t] = 0.0f;
        } else {
            sum_deviations(scored, &ranges, sums, head_dim, dtype);
            factor = 1.0f / (float)(ranges.count - 1);
        }
        softmax_of_deviations(sums, task->window, factor, task, task->scores + p * task->window);
        scored = next;
    }
}

V_INLINE void score_dtype(const lspan_lag_task *task, float *scratch, const lspan_dtype dtype)
{
    switch (task->head_dim) {
    case 64:
        score_windows(task, scratch, 64, dtype);
        break;
    case 128:
        score_windows(task, scratch, 128, dtype);
        break;
    default:
        score_windows(task, scratch, task->head_dim, dtype);
        break;
    }
}

void LSPAN_VARIANT(lag_scores)(const lspan_lag_task *task, float *scratch)
{
    switch (task->dtype) {
    case lspan_dtype_f16:
        score_dtype(task, scratch, lspan_dtype_f16);
        break;
    case lspan_dtype_bf16:
        score_dtype(task, scratch, lspan_dtype_bf16);
        break;
    default:
        score_dtype(task, scratch, lspan_dtype_f32);
        break;
    }
}
