/* product_tiles.h: sums of products of a tile of input rows with V_WIDTH rows of a panel, from beginning to end.
 *
 * `panel` points at the first of the V_WIDTH rows in the panel's first line. Each row's sums are made in the same order
 * whatever the number of rows. */
#ifndef LSPAN_PRODUCT_TILES_H
#define LSPAN_PRODUCT_TILES_H

#include "../packing.h"
#include "product_inputs.h"
#include "variants.h"

/* A tile of a lspan_product_inputs. */
typedef struct input_tile {
    const int32_t *quants;
    const float *scales;
    const float *scaled_sums;
    const int32_t *minus8;
    const int32_t *minus_bias;
    const int32_t *minus32;
    const uint32_t *pairs;
} input_tile;

V_INLINE input_tile tile_of(const lspan_product_inputs *in, int64_t tile)
{
    int64_t row = tile * LSPAN_PRODUCT_ROWS, blocks = row * (in->padded / 32);
    input_tile t = {0};
    if (in->quants) {
        t.quants = in->quants + row * (in->padded / 4);
        t.scales = in->scales + blocks;
        t.scaled_sums = in->scaled_sums + blocks;
        t.minus8 = in->minus8 + blocks;
        t.minus_bias = in->minus_bias + blocks;
        t.minus32 = in->minus32 + row * (in->padded / 16);
    }
    if (in->pairs) t.pairs = in->pairs + row * (in->padded / 2);
    return t;
}

/* dots += the products of a block of nibbles, 32 columns, with quants [8][rows]. */
V_INLINE void dot_nibbles(const int rows, const uint8_t *block, const int32_t *quants, v_i32 *dots)
{
    v_i32 low_bits = vi_set1(0x0F0F0F0F);
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) {
        v_i32 line = vi_load(block + g * LSPAN_LINE);
        v_i32 low = vi_and(line, low_bits), high = vi_and(vi_srl(line, 4), low_bits);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) dots[r] = vi_dot_u8(dots[r], low, vi_set1(quants[g * rows + r]));
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) dots[r] = vi_dot_u8(dots[r], high, vi_set1(quants[(g + 4) * rows + r]));
    }
}

/* sums += weight scales * input scales * dots of a block */
V_INLINE void add_scaled(const int rows, const v_i32 *dots, v_f32 weight_scales, const float *input_scales, v_f32 *sums)
{
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        sums[r] = v_fma(v_from_i32(dots[r]), v_mul(weight_scales, v_set1(input_scales[r])), sums[r]);
    }
}

V_INLINE v_f32 load_scales(const uint8_t *halves)
{
    return v_load_f16((const uint16_t *)(const void *)halves);
}

V_INLINE void tile_q4_0(const int rows, const uint8_t *panel, int lane, int64_t columns, input_tile x, v_f32 *sums)
{
    for (int64_t unit = 0; unit * 64 < columns; unit++, panel += 9 * LSPAN_LINE) {
        for (int half = 0; half < 2; half++) {
            int64_t at = (2 * unit + half) * rows;
            v_i32 dots[LSPAN_PRODUCT_ROWS];
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) dots[r] = vi_set1(x.minus8[at + r]);
            dot_nibbles(rows, panel + LSPAN_LINE + half * LSPAN_NIBBLE_BLOCK + 4 * lane, x.quants + at * 8, dots);
            add_scaled(rows, dots, load_scales(panel + half * (LSPAN_LINE / 2) + 2 * lane), x.scales + at, sums);
        }
    }
}

V_INLINE void tile_q8_0(const int rows, const uint8_t *panel, int lane, int64_t columns, input_tile x, v_f32 *sums)
{
    for (int64_t unit = 0; unit * 64 < columns; unit++, panel += 17 * LSPAN_LINE) {
        for (int half = 0; half < 2; half++) {
            int64_t at = (2 * unit + half) * rows;
            const uint8_t *lines = panel + (1 + 8 * half) * LSPAN_LINE + 4 * lane;
            v_i32 dots[LSPAN_PRODUCT_ROWS];
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) dots[r] = vi_set1(x.minus_bias[at + r]);
#pragma GCC unroll 8
            for (int g = 0; g < 8; g++) {
                v_i32 line = vi_load(lines + g * LSPAN_LINE);
#pragma GCC unroll 8
                for (int r = 0; r < rows; r++) {
                    dots[r] = vi_dot_i8(dots[r], line, vi_set1(x.quants[(at * 8) + g * rows + r]));
                }
            }
            add_scaled(rows, dots, load_scales(panel + half * (LSPAN_LINE / 2) + 2 * lane), x.scales + at, sums);
        }
    }
}

/* sums += a vector * one number a row */
V_INLINE void add_minima(const int rows, v_f32 minima, const float *scaled_sums, v_f32 *sums)
{
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) sums[r] = v_fma(minima, v_set1(scaled_sums[r]), sums[r]);
}

V_INLINE void clear_dots(const int rows, v_i32 *dots)
{
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) dots[r] = vi_set1(0);
}

V_INLINE void tile_q4_1(const int rows, const uint8_t *panel, int lane, int64_t columns, input_tile x, v_f32 *sums)
{
    for (int64_t block = 0; block * 32 < columns; block++, panel += LSPAN_LINE + LSPAN_NIBBLE_BLOCK) {
        int64_t at = block * rows;
        v_i32 dots[LSPAN_PRODUCT_ROWS];
        clear_dots(rows, dots);
        dot_nibbles(rows, panel + LSPAN_LINE + 4 * lane, x.quants + at * 8, dots);
        add_scaled(rows, dots, load_scales(panel + 2 * lane), x.scales + at, sums);
        add_minima(rows, load_scales(panel + LSPAN_LINE / 2 + 2 * lane), x.scaled_sums + at, sums);
    }
}

V_INLINE void tile_q4_k(const int rows, const uint8_t *panel, int lane, int64_t columns, input_tile x, v_f32 *sums)
{
    for (int64_t unit = 0; unit * 256 < columns; unit++, panel += 37 * LSPAN_LINE) {
        v_f32 d = load_scales(panel + 2 * lane), least = load_scales(panel + LSPAN_LINE / 2 + 2 * lane);
        const uint8_t *scales = panel + LSPAN_LINE + lane, *minima = scales + 8 * LSPAN_PANEL_ROWS;
        const uint8_t *nibbles = panel + 5 * LSPAN_LINE + 4 * lane;
        for (int sub = 0; sub < 8; sub++) {
            int64_t at = (8 * unit + sub) * rows;
            v_i32 dots[LSPAN_PRODUCT_ROWS];
            clear_dots(rows, dots);
            dot_nibbles(rows, nibbles + sub * LSPAN_NIBBLE_BLOCK, x.quants + at * 8, dots);
            v_f32 scale = v_mul(d, v_from_i32(vi_load_u8(scales + sub * LSPAN_PANEL_ROWS)));
            v_f32 minimum = v_mul(least, v_from_i32(vi_load_u8(minima + sub * LSPAN_PANEL_ROWS)));
            add_scaled(rows, dots, scale, x.scales + at, sums);
            add_minima(rows, v_sub(v_zero(), minimum), x.scaled_sums + at, sums);
        }
    }
}

V_INLINE void tile_q6_k(const int rows, const uint8_t *panel, int lane, int64_t columns, input_tile x, v_f32 *sums)
{
    v_i32 low_bits = vi_set1(0x0F0F0F0F), pair_bits = vi_set1(0x30303030);
    for (int64_t unit = 0; unit * 256 < columns; unit++, panel += 53 * LSPAN_LINE) {
        v_f32 d = load_scales(panel + 2 * lane);
        const int8_t *scales = (const int8_t *)panel + LSPAN_LINE + lane;
        for (int run = 0; run < 8; run++) {
            int64_t at = (8 * unit + run) * rows;
            const uint8_t *nibbles = panel + (5 + 6 * run) * LSPAN_LINE + 4 * lane;
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                v_i32 pairs = vi_load(nibbles + (4 + half) * LSPAN_LINE);
                v_i32 dots[LSPAN_PRODUCT_ROWS];
#pragma GCC unroll 8
                for (int r = 0; r < rows; r++) dots[r] = vi_set1(x.minus32[2 * at + half * rows + r]);
#pragma GCC unroll 4
                for (int g = 0; g < 4; g++) {
                    v_i32 line = vi_load(nibbles + g * LSPAN_LINE);
                    v_i32 low = vi_and(half ? vi_srl(line, 4) : line, low_bits);
                    v_i32 high = vi_and(g < 3 ? vi_sll(pairs, 4 - 2 * g) : vi_srl(pairs, 2), pair_bits);
                    v_i32 quants = vi_or(low, high);
#pragma GCC unroll 8
                    for (int r = 0; r < rows; r++) {
                        dots[r] = vi_dot_u8(dots[r], quants, vi_set1(x.quants[at * 8 + (half * 4 + g) * rows + r]));
                    }
                }
                v_f32 scale = v_mul(d, v_from_i32(vi_load_i8(scales + (2 * run + half) * LSPAN_PANEL_ROWS)));
                add_scaled(rows, dots, scale, x.scales + at, sums);
            }
        }
    }
}

#if V_BF16_DOT
/* Two sums a row, of even and of odd units, hide the instruction's latency. */
V_INLINE void tile_bf16(const int rows, const uint8_t *panel, int lane, int64_t columns, input_tile x, v_f32 *sums)
{
    v_f32 odd[LSPAN_PRODUCT_ROWS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) odd[r] = v_zero();
    const float *w = (const float *)(const void *)panel + lane, *pairs = (const float *)(const void *)x.pairs;
    int64_t units = (columns + 1) / 2, unit = 0;
    for (; unit + 2 <= units; unit += 2) {
        v_f32 a = v_load(w + unit * LSPAN_PANEL_ROWS), b = v_load(w + (unit + 1) * LSPAN_PANEL_ROWS);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) sums[r] = v_dot_bf16(sums[r], a, v_set1(pairs[unit * rows + r]));
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) odd[r] = v_dot_bf16(odd[r], b, v_set1(pairs[(unit + 1) * rows + r]));
    }
    if (unit < units) {
        v_f32 a = v_load(w + unit * LSPAN_PANEL_ROWS);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) sums[r] = v_dot_bf16(sums[r], a, v_set1(pairs[unit * rows + r]));
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) sums[r] = v_add(sums[r], odd[r]);
}
#endif

/* Columns 0 .. columns-1 of weights decoded to f32, [columns][16], with rows of x a stride apart. */
V_INLINE void tile_f32(
    const int rows, const float *weights, int64_t columns, const float *x, int64_t stride, v_f32 *sums)
{
    v_f32 even[LSPAN_PRODUCT_ROWS], odd[LSPAN_PRODUCT_ROWS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) even[r] = odd[r] = v_zero();
    int64_t k = 0;
    for (; k + 2 <= columns; k += 2) {
        v_f32 a = v_load(weights + k * LSPAN_PANEL_ROWS), b = v_load(weights + (k + 1) * LSPAN_PANEL_ROWS);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) even[r] = v_fma(a, v_set1(x[r * stride + k]), even[r]);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) odd[r] = v_fma(b, v_set1(x[r * stride + k + 1]), odd[r]);
    }
    if (k < columns) {
        v_f32 a = v_load(weights + k * LSPAN_PANEL_ROWS);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) even[r] = v_fma(a, v_set1(x[r * stride + k]), even[r]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) sums[r] = v_add(sums[r], v_add(even[r], odd[r]));
}

#endif
