/* product_decode.h: packed weights to f32, exactly as dequantize.c decodes the blocks they were made of. */
#ifndef LSPAN_PRODUCT_DECODE_H
#define LSPAN_PRODUCT_DECODE_H

#include "../packing.h"
#include "variants.h"

/* Floats from one decoded column to the next: those of two panels lie together, as packed f32 weights do. */
#define COLUMN (LSPAN_PANELS_TOGETHER * LSPAN_PANEL_ROWS)

/* out [4][16] = scales * quants + offsets of one line, of which bits shift .. shift+3 of each byte are the quants. */
V_INLINE void decode_nibble_line(const uint8_t *line, int shift, v_f32 scales, v_f32 offsets, float *out)
{
    v_i32 bits = vi_load(line);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        v_f32 q = v_from_i32(vi_and(vi_srl(bits, 8 * j + shift), vi_set1(15)));
        v_store(out + j * COLUMN, v_fma(q, scales, offsets));
    }
}

V_INLINE void decode_nibbles(const uint8_t *block, v_f32 scales, v_f32 offsets, float *out)
{
    for (int g = 0; g < 4; g++) {
        decode_nibble_line(block + g * LSPAN_LINE, 0, scales, offsets, out + 4 * g * COLUMN);
        decode_nibble_line(block + g * LSPAN_LINE, 4, scales, offsets, out + (16 + 4 * g) * COLUMN);
    }
}

V_INLINE void decode_unit_q8_0(const uint8_t *unit, int lane, float *out)
{
    for (int half = 0; half < 2; half++) {
        v_f32 scales = v_load_f16((const uint16_t *)(const void *)(unit + half * (LSPAN_LINE / 2)) + lane);
        for (int g = 0; g < 8; g++) {
            v_i32 bits = vi_load(unit + (1 + 8 * half + g) * LSPAN_LINE + 4 * lane);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                v_f32 q = v_from_i32(vi_sra(vi_sll(bits, 24 - 8 * j), 24));
                v_store(out + (32 * half + 4 * g + j) * COLUMN, v_mul(q, scales));
            }
        }
    }
}

V_INLINE void decode_unit_q6_k(const uint8_t *unit, int lane, float *out)
{
    v_f32 d = v_load_f16((const uint16_t *)(const void *)unit + lane);
    for (int sub = 0; sub < 16; sub++) {
        const uint8_t *nibbles = unit + (5 + 6 * (sub / 2)) * LSPAN_LINE + 4 * lane;
        const int8_t *scale = (const int8_t *)unit + LSPAN_LINE + sub * LSPAN_PANEL_ROWS + lane;
        v_f32 scales = v_mul(d, v_from_i32(vi_load_i8(scale)));
        v_i32 pairs = vi_load(nibbles + (4 + sub % 2) * LSPAN_LINE);
        for (int g = 0; g < 4; g++) {
            v_i32 bits = vi_load(nibbles + g * LSPAN_LINE);
            for (int j = 0; j < 4; j++) {
                v_i32 low = vi_and(vi_srl(bits, 8 * j + sub % 2 * 4), vi_set1(15));
                v_i32 high = vi_sll(vi_and(vi_srl(pairs, 8 * j + 2 * g), vi_set1(3)), 4);
                v_f32 q = v_sub(v_from_i32(vi_or(low, high)), v_set1(32.0f));
                v_store(out + (16 * sub + 4 * g + j) * COLUMN, v_mul(q, scales));
            }
        }
    }
}

V_INLINE void decode_unit(lspan_block_type type, const uint8_t *unit, int lane, float *out)
{
    const uint16_t *halves = (const uint16_t *)(const void *)unit;
    switch (type) {
    case lspan_block_type_bf16: {
        v_f32 even, odd;
        v_load_bf16_pair(halves + 2 * lane, &even, &odd);
        v_store(out, even);
        v_store(out + COLUMN, odd);
        break;
    }
    case lspan_block_type_q8_0:
        decode_unit_q8_0(unit, lane, out);
        break;
    case lspan_block_type_q4_0:
        for (int half = 0; half < 2; half++) {
            v_f32 scales = v_load_f16(halves + half * LSPAN_PANEL_ROWS + lane);
            const uint8_t *nibbles = unit + LSPAN_LINE + half * LSPAN_NIBBLE_BLOCK + 4 * lane;
            decode_nibbles(nibbles, scales, v_mul(scales, v_set1(-8.0f)), out + 32 * half * COLUMN);
        }
        break;
    case lspan_block_type_q4_1:
        decode_nibbles(
            unit + LSPAN_LINE + 4 * lane, v_load_f16(halves + lane), v_load_f16(halves + LSPAN_PANEL_ROWS + lane), out);
        break;
    case lspan_block_type_q4_k: {
        v_f32 d = v_load_f16(halves + lane), least = v_load_f16(halves + LSPAN_PANEL_ROWS + lane);
        const uint8_t *scales = unit + LSPAN_LINE + lane, *minima = scales + 8 * LSPAN_PANEL_ROWS;
        for (int sub = 0; sub < 8; sub++) {
            v_f32 scale = v_mul(d, v_from_i32(vi_load_u8(scales + sub * LSPAN_PANEL_ROWS)));
            v_f32 minimum = v_mul(least, v_from_i32(vi_load_u8(minima + sub * LSPAN_PANEL_ROWS)));
            decode_nibbles(
                unit + 5 * LSPAN_LINE + sub * LSPAN_NIBBLE_BLOCK + 4 * lane, scale, v_sub(v_zero(), minimum),
                out + 32 * sub * COLUMN);
        }
        break;
    }
    default:
        decode_unit_q6_k(unit, lane, out);
        break;
    }
}

/* `columns` columns of a panel from a multiple of its unit on, rounded up to whole units: out [columns] of COLUMN floats, of
 * which the first 16 are written. */
V_INLINE void decode_columns(lspan_block_type type, const uint8_t *panel, int64_t first, int64_t columns, float *out)
{
    lspan_packing packing = lspan_packing_of(type);
    int64_t stride = LSPAN_PANELS_TOGETHER * packing.unit_bytes;
    const uint8_t *unit = panel + first / packing.unit_columns * stride;
    for (int64_t k = 0; k < columns; k += packing.unit_columns, unit += stride) {
        for (int64_t i = 0; i < packing.unit_bytes; i += LSPAN_LINE) v_prefetch_l1(unit + LSPAN_PRODUCT_AHEAD + i);
        for (int lane = 0; lane < LSPAN_PANEL_ROWS; lane += V_WIDTH) {
            decode_unit(type, unit, lane, out + k * COLUMN + lane);
        }
    }
}

#endif
