/* product_tiles.h: sums of products of a tile of input rows with V_WIDTH rows of each of some panels, from beginning to end.
 *
 * Several panels share each load of an input, which would else take longer than the products. `lane` is the first of the
 * V_WIDTH rows in every panel; arrays of vectors are [panels][rows]. Each row's sums are made in the same order whatever the
 * number of rows. Sums are kept in arrays of the body's own, which the compiler can hold in registers. */
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

#define PANELS LSPAN_PRODUCT_VECTORS
#define TILE (LSPAN_PRODUCT_ROWS * PANELS)

/* Weights of a tile: its panels, at the unit that is next. */
typedef struct weight_tile {
    const uint8_t *panels[PANELS];
} weight_tile;

/* To the next unit. What lies ahead is asked for, because the loads of a few blocks are all that an out-of-order window
 * holds, and a memory stream needs more; beyond the end that is harmless. */
V_INLINE void advance(weight_tile *w, const int64_t unit_bytes)
{
#pragma GCC unroll 16
    for (int64_t i = 0; i < LSPAN_PANELS_TOGETHER * unit_bytes; i += LSPAN_LINE) {
        v_prefetch_l1(w->panels[0] + LSPAN_PRODUCT_AHEAD + i);
    }
#pragma GCC unroll 4
    for (int p = 0; p < PANELS; p++) w->panels[p] += LSPAN_PANELS_TOGETHER * unit_bytes;
}

V_INLINE void clear_sums(const int rows, v_f32 *sums)
{
#pragma GCC unroll 16
    for (int i = 0; i < PANELS * rows; i++) sums[i] = v_zero();
}

V_INLINE void return_sums(const int rows, const v_f32 *sums, v_f32 *result)
{
#pragma GCC unroll 16
    for (int i = 0; i < PANELS * rows; i++) result[i] = sums[i];
}

/* dots = one number a row */
V_INLINE void start_dots(const int rows, const int32_t *numbers, v_i32 *dots)
{
#pragma GCC unroll 16
    for (int i = 0; i < PANELS * rows; i++) dots[i] = numbers ? vi_set1(numbers[i % rows]) : vi_set1(0);
}

/* dots += products of a line of each panel, unsigned bytes, with quants [rows] */
V_INLINE void dot_lines(const int rows, const v_i32 *lines, const int32_t *quants, v_i32 *dots)
{
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        v_i32 x = vi_set1(quants[r]);
#pragma GCC unroll 4
        for (int p = 0; p < PANELS; p++) dots[p * rows + r] = vi_dot_u8(dots[p * rows + r], lines[p], x);
    }
}

/* dots += the products of a block of nibbles, 32 columns, at `offset` in each panel's unit, with quants [8][rows]. */
V_INLINE void dot_nibbles(const int rows, const weight_tile *w, int64_t offset, const int32_t *quants, v_i32 *dots)
{
    v_i32 low_bits = vi_set1(0x0F0F0F0F);
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) {
        v_i32 low[PANELS], high[PANELS];
#pragma GCC unroll 4
        for (int p = 0; p < PANELS; p++) {
            v_i32 line = vi_load(w->panels[p] + offset + g * LSPAN_LINE);
            low[p] = vi_and(line, low_bits);
            high[p] = vi_and(vi_srl(line, 4), low_bits);
        }
        dot_lines(rows, low, quants + g * rows, dots);
        dot_lines(rows, high, quants + (g + 4) * rows, dots);
    }
}

/* sums += weight scales * input scales * dots of a block */
V_INLINE void add_scaled(const int rows, const v_i32 *dots, const v_f32 *weight_scales, const float *input_scales, v_f32 *sums)
{
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        v_f32 x = v_set1(input_scales[r]);
#pragma GCC unroll 4
        for (int p = 0; p < PANELS; p++) {
            sums[p * rows + r] = v_fma(v_from_i32(dots[p * rows + r]), v_mul(weight_scales[p], x), sums[p * rows + r]);
        }
    }
}

/* sums += minima of the weights * scaled sums of the inputs */
V_INLINE void add_minima(const int rows, const v_f32 *minima, const float *scaled_sums, v_f32 *sums)
{
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        v_f32 x = v_set1(scaled_sums[r]);
#pragma GCC unroll 4
        for (int p = 0; p < PANELS; p++) sums[p * rows + r] = v_fma(minima[p], x, sums[p * rows + r]);
    }
}

/* 16-bit scales at `offset` in each panel's unit */
V_INLINE void load_scales(const weight_tile *w, int64_t offset, v_f32 *scales)
{
#pragma GCC unroll 4
    for (int p = 0; p < PANELS; p++) {
        scales[p] = v_load_f16((const uint16_t *)(const void *)(w->panels[p] + offset));
    }
}

V_INLINE void tile_q4_0(const int rows, weight_tile w, int lane, int64_t columns, input_tile x, v_f32 *result)
{
    v_f32 sums[TILE], scales[PANELS];
    clear_sums(rows, sums);
    for (int64_t block = 0; block * 32 < columns; block += 2, advance(&w, 9 * LSPAN_LINE)) {
        for (int half = 0; half < 2; half++) {
            int64_t at = (block + half) * rows;
            v_i32 dots[TILE];
            start_dots(rows, x.minus8 + at, dots);
            dot_nibbles(rows, &w, LSPAN_LINE + half * LSPAN_NIBBLE_BLOCK + 4 * lane, x.quants + at * 8, dots);
            load_scales(&w, half * (LSPAN_LINE / 2) + 2 * lane, scales);
            add_scaled(rows, dots, scales, x.scales + at, sums);
        }
    }
    return_sums(rows, sums, result);
}

V_INLINE void tile_q8_0(const int rows, weight_tile w, int lane, int64_t columns, input_tile x, v_f32 *result)
{
    v_f32 sums[TILE], scales[PANELS];
    clear_sums(rows, sums);
    for (int64_t block = 0; block * 32 < columns; block += 2, advance(&w, 17 * LSPAN_LINE)) {
        for (int half = 0; half < 2; half++) {
            int64_t at = (block + half) * rows;
            v_i32 dots[TILE];
            start_dots(rows, x.minus_bias + at, dots);
#pragma GCC unroll 8
            for (int g = 0; g < 8; g++) {
                v_i32 lines[PANELS];
#pragma GCC unroll 4
                for (int p = 0; p < PANELS; p++) {
                    lines[p] = vi_biased_i8(vi_load(w.panels[p] + (1 + 8 * half + g) * LSPAN_LINE + 4 * lane));
                }
#pragma GCC unroll 8
                for (int r = 0; r < rows; r++) {
                    v_i32 quants = vi_set1(x.quants[at * 8 + g * rows + r]);
#pragma GCC unroll 4
                    for (int p = 0; p < PANELS; p++) {
                        dots[p * rows + r] = vi_dot_i8(dots[p * rows + r], lines[p], quants);
                    }
                }
            }
            load_scales(&w, half * (LSPAN_LINE / 2) + 2 * lane, scales);
            add_scaled(rows, dots, scales, x.scales + at, sums);
        }
    }
    return_sums(rows, sums, result);
}

V_INLINE void tile_q4_1(const int rows, weight_tile w, int lane, int64_t columns, input_tile x, v_f32 *result)
{
    v_f32 sums[TILE], scales[PANELS];
    clear_sums(rows, sums);
    for (int64_t block = 0; block * 32 < columns; block++, advance(&w, LSPAN_LINE + LSPAN_NIBBLE_BLOCK)) {
        int64_t at = block * rows;
        v_i32 dots[TILE];
        start_dots(rows, NULL, dots);
        dot_nibbles(rows, &w, LSPAN_LINE + 4 * lane, x.quants + at * 8, dots);
        load_scales(&w, 2 * lane, scales);
        add_scaled(rows, dots, scales, x.scales + at, sums);
        load_scales(&w, LSPAN_LINE / 2 + 2 * lane, scales);
        add_minima(rows, scales, x.scaled_sums + at, sums);
    }
    return_sums(rows, sums, result);
}

V_INLINE void tile_q4_k(const int rows, weight_tile w, int lane, int64_t columns, input_tile x, v_f32 *result)
{
    v_f32 sums[TILE], d[PANELS], least[PANELS], scales[PANELS], minima[PANELS];
    clear_sums(rows, sums);
    for (int64_t block = 0; block * 32 < columns; block += 8, advance(&w, 37 * LSPAN_LINE)) {
        load_scales(&w, 2 * lane, d);
        load_scales(&w, LSPAN_LINE / 2 + 2 * lane, least);
        for (int sub = 0; sub < 8; sub++) {
            int64_t at = (block + sub) * rows;
            v_i32 dots[TILE];
            start_dots(rows, NULL, dots);
            dot_nibbles(rows, &w, 5 * LSPAN_LINE + sub * LSPAN_NIBBLE_BLOCK + 4 * lane, x.quants + at * 8, dots);
#pragma GCC unroll 4
            for (int p = 0; p < PANELS; p++) {
                const uint8_t *bytes = w.panels[p] + LSPAN_LINE + sub * LSPAN_PANEL_ROWS + lane;
                scales[p] = v_mul(d[p], v_from_i32(vi_load_u8(bytes)));
                minima[p] = v_mul(v_sub(v_zero(), least[p]), v_from_i32(vi_load_u8(bytes + 8 * LSPAN_PANEL_ROWS)));
            }
            add_scaled(rows, dots, scales, x.scales + at, sums);
            add_minima(rows, minima, x.scaled_sums + at, sums);
        }
    }
    return_sums(rows, sums, result);
}

/* Line g of 16 columns of q6_k: nibbles of one half of a line's bytes and the bit pairs above them. */
V_INLINE v_i32 six_bit_line(const uint8_t *nibbles, const int half, const int g, v_i32 pairs)
{
    v_i32 line = vi_load(nibbles + g * LSPAN_LINE);
    v_i32 low = vi_and(half ? vi_srl(line, 4) : line, vi_set1(0x0F0F0F0F));
    return vi_or(low, vi_and(g < 3 ? vi_sll(pairs, 4 - 2 * g) : vi_srl(pairs, 2), vi_set1(0x30303030)));
}

V_INLINE void tile_q6_k(const int rows, weight_tile w, int lane, int64_t columns, input_tile x, v_f32 *result)
{
    v_f32 sums[TILE], d[PANELS], scales[PANELS];
    clear_sums(rows, sums);
    for (int64_t block = 0; block * 32 < columns; block += 8, advance(&w, 53 * LSPAN_LINE)) {
        load_scales(&w, 2 * lane, d);
        for (int run = 0; run < 8; run++) {
            int64_t at = (block + run) * rows;
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                v_i32 dots[TILE], pairs[PANELS], lines[PANELS];
                start_dots(rows, x.minus32 + 2 * at + half * rows, dots);
#pragma GCC unroll 4
                for (int p = 0; p < PANELS; p++) {
                    pairs[p] = vi_load(w.panels[p] + (5 + 6 * run + 4 + half) * LSPAN_LINE + 4 * lane);
                }
#pragma GCC unroll 4
                for (int g = 0; g < 4; g++) {
#pragma GCC unroll 4
                    for (int p = 0; p < PANELS; p++) {
                        const uint8_t *nibbles = w.panels[p] + (5 + 6 * run) * LSPAN_LINE + 4 * lane;
                        lines[p] = six_bit_line(nibbles, half, g, pairs[p]);
                    }
                    dot_lines(rows, lines, x.quants + at * 8 + (half * 4 + g) * rows, dots);
                }
#pragma GCC unroll 4
                for (int p = 0; p < PANELS; p++) {
                    const uint8_t *bytes = w.panels[p] + LSPAN_LINE + (2 * run + half) * LSPAN_PANEL_ROWS + lane;
                    scales[p] = v_mul(d[p], v_from_i32(vi_load_i8((const int8_t *)bytes)));
                }
                add_scaled(rows, dots, scales, x.scales + at, sums);
            }
        }
    }
    return_sums(rows, sums, result);
}

#if V_BF16_DOT
V_INLINE void tile_bf16(const int rows, weight_tile w, int lane, int64_t columns, input_tile x, v_f32 *result)
{
    v_f32 sums[TILE];
    clear_sums(rows, sums);
    const float *pairs = (const float *)(const void *)x.pairs;
    for (int64_t k = 0; k < columns; k += 2, pairs += rows, advance(&w, LSPAN_LINE)) {
        v_f32 lines[PANELS];
#pragma GCC unroll 4
        for (int p = 0; p < PANELS; p++) lines[p] = v_load((const float *)(const void *)w.panels[p] + lane);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            v_f32 pair = v_set1(pairs[r]);
#pragma GCC unroll 4
            for (int p = 0; p < PANELS; p++) sums[p * rows + r] = v_dot_bf16(sums[p * rows + r], lines[p], pair);
        }
    }
    return_sums(rows, sums, result);
}
#endif

/* result += columns 0 .. columns-1 of weights as f32, [columns][16] in each panel, with rows of x a stride apart; in one
 * addition, so that an error grows with the number of such runs and with their length, not with the product of both. */
V_INLINE void tile_f32(
    const int rows, weight_tile w, int lane, int64_t columns, const float *x, int64_t stride, v_f32 *result)
{
    v_f32 sums[TILE];
    clear_sums(rows, sums);
    for (int64_t k = 0; k < columns; k++, advance(&w, LSPAN_LINE)) {
        v_f32 lines[PANELS];
#pragma GCC unroll 4
        for (int p = 0; p < PANELS; p++) lines[p] = v_load((const float *)(const void *)w.panels[p] + lane);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            v_f32 value = v_set1(x[r * stride + k]);
#pragma GCC unroll 4
            for (int p = 0; p < PANELS; p++) sums[p * rows + r] = v_fma(lines[p], value, sums[p * rows + r]);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < PANELS * rows; i++) result[i] = v_add(result[i], sums[i]);
}

/* The same of weights in f16, as they are packed. */
V_INLINE void tile_f16(
    const int rows, weight_tile w, int lane, int64_t columns, const float *x, int64_t stride, v_f32 *result)
{
    v_f32 sums[TILE];
    clear_sums(rows, sums);
    for (int64_t k = 0; k < columns; k += 2, advance(&w, LSPAN_LINE)) {
        const int pair = k + 1 < columns;
        v_f32 even[PANELS], odd[PANELS];
        load_scales(&w, 2 * lane, even);
        load_scales(&w, LSPAN_LINE / 2 + 2 * lane, odd);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            v_f32 first = v_set1(x[r * stride + k]), second = v_set1(pair ? x[r * stride + k + 1] : 0.0f);
#pragma GCC unroll 4
            for (int p = 0; p < PANELS; p++) {
                v_f32 sum = v_fma(even[p], first, sums[p * rows + r]);
                sums[p * rows + r] = v_fma(odd[p], second, sum);
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < PANELS * rows; i++) result[i] = v_add(result[i], sums[i]);
}

#endif
