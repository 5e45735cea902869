/* attention_softmax.h: the streamed softmax of one row over one key tile, shared by prefill and decode. */
#ifndef LSPAN_ATTENTION_SOFTMAX_H
#define LSPAN_ATTENTION_SOFTMAX_H

#include "../simd/vmath.h"
#include "attention_keys.h"
#include "attention_scratch.h"

/* lspan_dtype_size where the compiler knows the dtype. */
V_INLINE int64_t element_bytes(const lspan_dtype dtype)
{
    return dtype == lspan_dtype_f32 ? 4 : 2;
}

/* Loads a row of queries [D] as f32 times scale. */
V_INLINE void load_query(float *out, lspan_heads queries, int64_t token, int64_t head, int64_t head_dim, float scale)
{
    int64_t base = token * queries.token_stride + head * queries.head_stride;
    v_f32 factor = v_set1(scale);
    int64_t d = 0;
    for (; d + V_WIDTH <= head_dim; d += V_WIDTH) {
        v_store(out + d, v_mul(v_load_as(queries.data, base + d, queries.dtype), factor));
    }
    int rest = (int)(head_dim - d);
    if (rest > 0) v_store_n(out + d, v_mul(v_load_as_n(queries.data, base + d, queries.dtype, rest), factor), rest);
}

V_INLINE void cap_scores(float *scores, int64_t count, float softcap)
{
    v_f32 cap = v_set1(softcap);
    v_f32 inverse = v_set1(1.0f / softcap);
    for (int64_t j = 0; j < count; j += V_WIDTH) {
        v_store(scores + j, v_mul(cap, v_tanh(v_mul(v_load(scores + j), inverse))));
    }
}

V_INLINE void scale_row(float *row, int64_t columns, float factor)
{
    v_f32 f = v_set1(factor);
    for (int64_t d = 0; d < columns; d += V_WIDTH) v_store(row + d, v_mul(v_load(row + d), f));
}

/* log2(e) and its inverse: exponentials are taken as powers of two, whose argument reduction is exact. */
#define LOG2_E 0x1.715476p+0f
#define LN_2 0x1.62e43p-1f

/* Turns a row's scores times `scale` over keys from .. from+count-1 of a tile into exponentials relative to the row's new
 * maximum and updates its running maximum, which is log2(e) times that of the logits, and its sum. `padded` is count
 * rounded up to whole vectors; scores between the two become 0. With `narrow` the exponentials are stored as bf16 in the
 * scores' own memory, while the sum keeps the unrounded ones. Returns the factor by which the row's earlier output must
 * be multiplied. */
V_INLINE float stream_softmax(
    float *scores, const key_tile *tile, int64_t from, int64_t count, int64_t padded, lspan_row_keys seen, float scale,
    float softcap, float *maximum, float *sum, const int narrow)
{
    const int32_t *slots = tile->slots;
    int64_t first = slots ? tile->first : tile->first + from;
    int sees_all = lspan_row_sees_all(seen, first, slots ? tile->end : first + count);
    if (softcap > 0 || padded != count || !sees_all) {
        if (scale != 1.0f) scale_row(scores, padded, scale);
        scale = 1.0f;
        if (softcap > 0) cap_scores(scores, padded, softcap);
        for (int64_t j = count; j < padded; j++) scores[j] = -INFINITY;
    }
    if (!sees_all && slots) {
        for (int64_t j = 0; j < count; j++) {
            int64_t slot = slots[from + j];
            scores[j] = slot < seen.high && (slot >= seen.low || slot < seen.sinks) ? scores[j] : -INFINITY;
        }
    } else if (!sees_all) {
        int64_t sinks = lspan_clamp64(seen.sinks - first, 0, count);
        int64_t low = lspan_clamp64(seen.low - first, sinks, count);
        int64_t high = lspan_clamp64(seen.high - first, low, count);
        for (int64_t j = sinks; j < low; j++) scores[j] = -INFINITY;
        for (int64_t j = high; j < count; j++) scores[j] = -INFINITY;
    }

    v_f32 factors = v_set1(scale * LOG2_E), top = v_set1(*maximum);
#pragma GCC unroll 4
    for (int64_t j = 0; j < padded; j += V_WIDTH) top = v_max(top, v_mul(v_load(scores + j), factors));
    float highest = v_reduce_max(top);
    /* a row that has seen nothing keeps minus infinity as its maximum, and 2^(-inf - 0) = 0 is right for it */
    float base = highest == -INFINITY ? 0.0f : highest;
    v_f32 shift = v_set1(-base);
    v_f32 total = v_zero();
#pragma GCC unroll 4
    for (int64_t j = 0; j < padded; j += V_WIDTH) {
        v_f32 p = v_exp2_below(v_fma(v_load(scores + j), factors, shift));
#if V_BF16_DOT
        /* the narrow element j lies before the wide one, so going up is safe */
        if (narrow) v_narrow_bf16((uint16_t *)(void *)scores + j, p);
        else v_store(scores + j, p);
#else
        (void)narrow;
        v_store(scores + j, p);
#endif
        total = v_add(total, p);
    }
    float factor = *maximum == base ? 1.0f : exp2f(*maximum - base);
    *sum = *sum * factor + v_reduce_add(total);
    *maximum = highest;
    return factor;
}

/* Writes output / sum and returns the row's log-sum-exp; a row that saw nothing gives zeros and minus infinity. */
V_INLINE float finish_row(float *out, const float *row, int64_t head_dim, float maximum, float sum)
{
    float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    v_f32 f = v_set1(inverse);
    int64_t d = 0;
    for (; d + V_WIDTH <= head_dim; d += V_WIDTH) v_store(out + d, v_mul(v_load(row + d), f));
    int rest = (int)(head_dim - d);
    if (rest > 0) v_store_n(out + d, v_mul(v_load(row + d), f), rest);
    return sum == 0.0f ? -INFINITY : maximum * LN_2 + logf(sum);
}

#endif
