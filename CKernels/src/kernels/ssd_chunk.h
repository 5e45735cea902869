/* ssd_chunk.h: what the parts of a chunked SSD task (ssd_chunks.c) share: its data, and the product that it is made of. */
#ifndef LSPAN_SSD_CHUNK_H
#define LSPAN_SSD_CHUNK_H

#include "lanes.h"
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

#endif
