/* product_inputs.c: inputs of products in 8 bits, or in bf16. */
#include "product_inputs.h"
#include "variants.h"
#include <float.h>

/* Below this a block's scale would be subnormal, and its inverse infinite. */
#define LEAST_MAGNITUDE (127.0f * FLT_MIN)

V_INLINE v_f32 load_columns(const float *x, int64_t column, int64_t columns)
{
    int64_t rest = columns - column;
    if (rest >= V_WIDTH) return v_load(x + column);
    return rest > 0 ? v_load_n(x + column, (int)rest) : v_zero();
}

/* A block of 32 columns of row r of a tile of `rows`. */
V_INLINE void quantize_block(const lspan_product_inputs *in, const float *x, int64_t block, int64_t tile, int64_t rows, int64_t r)
{
    v_f32 most = v_zero(), poison = v_zero(), values[32 / V_WIDTH];
    for (int i = 0; i < 32 / V_WIDTH; i++) {
        values[i] = load_columns(x, block * 32 + i * V_WIDTH, in->columns);
        most = v_max(v_abs(values[i]), most);
        poison = v_fma(values[i], v_zero(), poison);
    }
    float magnitude = v_reduce_max(most);
    float scale = magnitude < LEAST_MAGNITUDE ? 0.0f : magnitude / 127.0f;
    float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    /* NaN where an input is infinite or NaN, and so are all sums then */
    scale += v_reduce_add(poison);

    int8_t quants[32];
    int32_t sums[2];
    for (int half = 0; half < 2; half++) {
        v_f32 sum = v_zero();
        for (int i = half * 16; i < half * 16 + 16; i += V_WIDTH) {
            v_f32 rounded = v_round(v_mul(values[i / V_WIDTH], v_set1(inverse)));
            sum = v_add(sum, rounded);
            vi_store_i8(quants + i, v_to_i32(rounded));
        }
        float total = v_reduce_add(sum);
        sums[half] = total == total ? (int32_t)total : 0;
    }
    int64_t at = tile * LSPAN_PRODUCT_ROWS * (in->padded / 32) + block * rows + r;
    in->scales[at] = scale;
    in->scaled_sums[at] = scale * (float)(sums[0] + sums[1]);
    in->minus8[at] = -8 * (sums[0] + sums[1]);
    in->minus_bias[at] = -V_DOT_I8_BIAS * (sums[0] + sums[1]);
    int64_t half_at = tile * LSPAN_PRODUCT_ROWS * (in->padded / 16) + block * 2 * rows + r;
    in->minus32[half_at] = -32 * sums[0];
    in->minus32[half_at + rows] = -32 * sums[1];
    int32_t *to = in->quants + tile * LSPAN_PRODUCT_ROWS * (in->padded / 4) + block * 8 * rows + r;
    for (int i = 0; i < 8; i++) memcpy(to + i * rows, quants + 4 * i, 4);
}

#if V_BF16_DOT
V_INLINE void pair_block(const lspan_product_inputs *in, const float *x, int64_t block, int64_t tile, int64_t rows, int64_t r)
{
    uint16_t halves[32];
    for (int i = 0; i < 32; i += V_WIDTH) v_narrow_bf16(halves + i, load_columns(x, block * 32 + i, in->columns));
    uint32_t *to = in->pairs + tile * LSPAN_PRODUCT_ROWS * (in->padded / 2) + block * 16 * rows + r;
    for (int i = 0; i < 16; i++) memcpy(to + i * rows, halves + 2 * i, 4);
}
#endif

void LSPAN_VARIANT(product_inputs)(const lspan_product_inputs *in, int64_t first, int64_t end)
{
    for (int64_t tile = first; tile < end; tile++) {
        int64_t row = tile * LSPAN_PRODUCT_ROWS, rest = in->rows - row;
        int64_t rows = rest < LSPAN_PRODUCT_ROWS ? rest : LSPAN_PRODUCT_ROWS;
        for (int64_t r = 0; r < rows; r++) {
            const float *x = in->x + (row + r) * in->row_stride;
            for (int64_t block = 0; block < in->padded / 32; block++) {
                if (in->quants) quantize_block(in, x, block, tile, rows, r);
#if V_BF16_DOT
                if (in->pairs) pair_block(in, x, block, tile, rows, r);
#endif
            }
        }
    }
}
