/* rope_rotate.h: the rotation of one head's row by one row of a table, shared by rope, rope_shift and attention that
 * rotates keys as it reads them. */
#ifndef LSPAN_ROPE_ROTATE_H
#define LSPAN_ROPE_ROTATE_H

#include "../simd/simd.h"

/* A row: where its first channel lies. Input and output may be the same. */
typedef struct rope_row {
    const void *input;
    void *output;
    int64_t in;
    int64_t out;
} rope_row;

/* With `inverse` the other way round. */
V_INLINE v_f32 load_sine(const float *sine, int lanes, const int inverse)
{
    v_f32 s = lanes == V_WIDTH ? v_load(sine) : v_load_n(sine, lanes);
    return inverse ? v_sub(v_zero(), s) : s;
}

V_INLINE void rotate_halves(
    rope_row row, int64_t pairs, const float *cosine, const float *sine, const lspan_dtype in_dtype,
    const lspan_dtype out_dtype, const int inverse)
{
    int64_t i = 0;
    for (; i + V_WIDTH <= pairs; i += V_WIDTH) {
        v_f32 c = v_load(cosine + i), s = load_sine(sine + i, V_WIDTH, inverse);
        v_f32 x = v_load_as(row.input, row.in + i, in_dtype), y = v_load_as(row.input, row.in + pairs + i, in_dtype);
        v_store_as(row.output, row.out + i, out_dtype, v_fnma(y, s, v_mul(x, c)));
        v_store_as(row.output, row.out + pairs + i, out_dtype, v_fma(x, s, v_mul(y, c)));
    }
    int lanes = (int)(pairs - i);
    if (lanes == 0) return;
    v_f32 c = v_load_n(cosine + i, lanes), s = load_sine(sine + i, lanes, inverse);
    v_f32 x = v_load_as_n(row.input, row.in + i, in_dtype, lanes);
    v_f32 y = v_load_as_n(row.input, row.in + pairs + i, in_dtype, lanes);
    v_store_as_n(row.output, row.out + i, out_dtype, v_fnma(y, s, v_mul(x, c)), lanes);
    v_store_as_n(row.output, row.out + pairs + i, out_dtype, v_fma(x, s, v_mul(y, c)), lanes);
}

/* Turns the pairs (a[0], a[1]), (a[2], a[3]), ... and goes on in b. */
V_INLINE void rotate_neighbours(v_f32 *a, v_f32 *b, v_f32 c, v_f32 s)
{
    v_f32 x, y;
    v_unzip(*a, *b, &x, &y);
    v_zip(v_fnma(y, s, v_mul(x, c)), v_fma(x, s, v_mul(y, c)), a, b);
}

V_INLINE void rotate_interleaved(
    rope_row row, int64_t pairs, const float *cosine, const float *sine, const lspan_dtype in_dtype,
    const lspan_dtype out_dtype, const int inverse)
{
    int64_t i = 0;
    for (; i + V_WIDTH <= pairs; i += V_WIDTH) {
        v_f32 c = v_load(cosine + i), s = load_sine(sine + i, V_WIDTH, inverse);
        v_f32 a = v_load_as(row.input, row.in + 2 * i, in_dtype);
        v_f32 b = v_load_as(row.input, row.in + 2 * i + V_WIDTH, in_dtype);
        rotate_neighbours(&a, &b, c, s);
        v_store_as(row.output, row.out + 2 * i, out_dtype, a);
        v_store_as(row.output, row.out + 2 * i + V_WIDTH, out_dtype, b);
    }
    int lanes = (int)(pairs - i);
    if (lanes == 0) return;
    int low = 2 * lanes < V_WIDTH ? 2 * lanes : V_WIDTH, high = 2 * lanes - low;
    v_f32 c = v_load_n(cosine + i, lanes), s = load_sine(sine + i, lanes, inverse);
    v_f32 a = v_load_as_n(row.input, row.in + 2 * i, in_dtype, low);
    v_f32 b = v_load_as_n(row.input, row.in + 2 * i + low, in_dtype, high);
    rotate_neighbours(&a, &b, c, s);
    v_store_as_n(row.output, row.out + 2 * i, out_dtype, a, low);
    v_store_as_n(row.output, row.out + 2 * i + low, out_dtype, b, high);
}

/* A whole row of head_dim channels, of which those behind the pairs are copied. */
V_INLINE void rotate_row(
    rope_row row, lspan_rope_layout layout, int64_t head_dim, int64_t pairs, const float *cosine, const float *sine,
    const lspan_dtype in_dtype, const lspan_dtype out_dtype)
{
    if (layout == lspan_rope_layout_halves) {
        rotate_halves(row, pairs, cosine, sine, in_dtype, out_dtype, 0);
    } else {
        rotate_interleaved(row, pairs, cosine, sine, in_dtype, out_dtype, 0);
    }
    for (int64_t d = 2 * pairs; d < head_dim; d += V_WIDTH) {
        int lanes = head_dim - d < V_WIDTH ? (int)(head_dim - d) : V_WIDTH;
        v_f32 x = v_load_as_n(row.input, row.in + d, in_dtype, lanes);
        v_store_as_n(row.output, row.out + d, out_dtype, x, lanes);
    }
}

#endif
