/* pack.c: weights in the order in which products read them. */
#include "checks.h"
#include "context_internal.h"
#include "packing.h"
#include "weights.h"
#include <string.h>

lspan_status lspan_packed_bytes(lspan_block_type type, int64_t rows, int64_t columns, size_t *bytes)
{
    if (!bytes) return lspan_status_null_pointer;
    lspan_packing packing = lspan_packing_of(type);
    if (packing.unit_columns == 0) return lspan_status_bad_dtype;
    int64_t elements, units, panel, total;
    lspan_block_type_layout(type, &elements, NULL);
    if (rows < 0 || columns < 0 || columns % elements != 0) return lspan_status_bad_shape;
    if (__builtin_add_overflow(columns, packing.unit_columns - 1, &units)) return lspan_status_overflow;
    LSPAN_CHECK(lspan_multiply(units / packing.unit_columns, packing.unit_bytes, &panel));
    if (rows > INT64_MAX - LSPAN_PANELS_TOGETHER * LSPAN_PANEL_ROWS) return lspan_status_overflow;
    LSPAN_CHECK(lspan_multiply(panel, lspan_panels(rows), &total));
    *bytes = (size_t)total;
    return lspan_status_ok;
}

/* Row `lane` of a panel, which was zeroed: `row` are its blocks, `stride` the bytes from one unit to the next. */
typedef struct row_source {
    const uint8_t *row;
    int64_t columns;
    uint8_t *panel;
    int64_t stride;
    int lane;
} row_source;

static void copy_half(uint8_t *to, int lane, const uint8_t *from)
{
    memcpy(to + 2 * lane, from, 2);
}

/* Byte `column` mod 4 of the lane's place in the line of that column. */
static uint8_t *byte_at(uint8_t *lines, int lane, int column)
{
    return lines + column / 4 * LSPAN_LINE + 4 * lane + column % 4;
}

/* 32 quants of 4 bits, one in a byte. */
static void put_nibbles(uint8_t *block, int lane, const uint8_t quants[32])
{
    for (int i = 0; i < 16; i++) *byte_at(block, lane, i) = (uint8_t)(quants[i] | quants[i + 16] << 4);
}

/* The 16 bytes of a block of 32 in GGUF: low nibbles first. */
static void put_block_nibbles(uint8_t *block, int lane, const uint8_t *bytes)
{
    uint8_t quants[32];
    for (int i = 0; i < 16; i++) {
        quants[i] = bytes[i] & 15;
        quants[i + 16] = bytes[i] >> 4;
    }
    put_nibbles(block, lane, quants);
}

static void pack_f32(row_source s)
{
    for (int64_t k = 0; k < s.columns; k++) memcpy(s.panel + k * s.stride + 4 * s.lane, s.row + 4 * k, 4);
}

static void pack_f16(row_source s)
{
    for (int64_t k = 0; k < s.columns; k++) {
        copy_half(s.panel + k / 2 * s.stride + k % 2 * (LSPAN_LINE / 2), s.lane, s.row + 2 * k);
    }
}

static void pack_bf16(row_source s)
{
    for (int64_t k = 0; k < s.columns; k++) {
        memcpy(s.panel + k / 2 * s.stride + 4 * s.lane + k % 2 * 2, s.row + 2 * k, 2);
    }
}

/* Blocks of 32, two to a unit: f16 d, then `bytes` bytes of quants. */
static void pack_pairs(row_source s, lspan_block_type type, int64_t bytes)
{
    int64_t block_bytes = (lspan_packing_of(type).unit_bytes - LSPAN_LINE) / 2;
    for (int64_t b = 0; b < s.columns / 32; b++) {
        const uint8_t *block = s.row + b * (2 + bytes);
        uint8_t *unit = s.panel + b / 2 * s.stride, *quants = unit + LSPAN_LINE + b % 2 * block_bytes;
        copy_half(unit + b % 2 * (LSPAN_LINE / 2), s.lane, block);
        if (type == lspan_block_type_q4_0) {
            put_block_nibbles(quants, s.lane, block + 2);
        } else {
            for (int i = 0; i < 32; i++) *byte_at(quants, s.lane, i) = block[2 + i];
        }
    }
}

static void pack_q4_1(row_source s)
{
    for (int64_t b = 0; b < s.columns / 32; b++) {
        const uint8_t *block = s.row + b * 20;
        uint8_t *unit = s.panel + b * s.stride;
        copy_half(unit, s.lane, block);
        copy_half(unit + LSPAN_LINE / 2, s.lane, block + 2);
        put_block_nibbles(unit + LSPAN_LINE, s.lane, block + 4);
    }
}

/* The 6-bit scale and minimum of sub-block `sub` of a q4_k block: those of 0-3 are the low 6 bits of bytes 0-3 and 4-7;
 * those of 4-7 have their low 4 bits in bytes 8-11 and their upper 2 in the top of bytes 0-3 and 4-7. */
static void read_six_bits(const uint8_t *packed, int sub, uint8_t *scale, uint8_t *minimum)
{
    if (sub < 4) {
        *scale = packed[sub] & 63;
        *minimum = packed[sub + 4] & 63;
    } else {
        *scale = (uint8_t)((packed[sub + 4] & 15) | packed[sub - 4] >> 6 << 4);
        *minimum = (uint8_t)(packed[sub + 4] >> 4 | packed[sub] >> 6 << 4);
    }
}

static void pack_q4_k(row_source s)
{
    for (int64_t b = 0; b < s.columns / 256; b++) {
        const uint8_t *block = s.row + b * 144;
        uint8_t *unit = s.panel + b * s.stride;
        uint8_t *scales = unit + LSPAN_LINE, *minima = scales + 8 * LSPAN_PANEL_ROWS;
        uint8_t *nibbles = minima + 8 * LSPAN_PANEL_ROWS;
        copy_half(unit, s.lane, block);
        copy_half(unit + LSPAN_LINE / 2, s.lane, block + 2);
        for (int sub = 0; sub < 8; sub++) {
            int at = sub * LSPAN_PANEL_ROWS + s.lane;
            read_six_bits(block + 4, sub, &scales[at], &minima[at]);
            uint8_t quants[32];
            for (int i = 0; i < 32; i++) quants[i] = block[16 + sub / 2 * 32 + i] >> (sub % 2 * 4) & 15;
            put_nibbles(nibbles + sub * LSPAN_NIBBLE_BLOCK, s.lane, quants);
        }
    }
}

/* GGUF's block: 128 bytes of low nibbles, 64 of bit pairs, 16 scales, d. Each half of 128 elements is four runs of 32;
 * runs 0 and 2, and 1 and 3, share bytes of nibbles, and all four one of bit pairs. */
static void pack_q6_k(row_source s)
{
    for (int64_t b = 0; b < s.columns / 256; b++) {
        const uint8_t *block = s.row + b * 210;
        uint8_t *unit = s.panel + b * s.stride;
        uint8_t *scales = unit + LSPAN_LINE, *runs = scales + 16 * LSPAN_PANEL_ROWS;
        copy_half(unit, s.lane, block + 208);
        for (int sub = 0; sub < 16; sub++) scales[sub * LSPAN_PANEL_ROWS + s.lane] = block[192 + sub];
        for (int run = 0; run < 8; run++) {
            const uint8_t *low = block + run / 4 * 64 + run % 2 * 32, *high = block + 128 + run / 4 * 32;
            int low_shift = run % 4 / 2 * 4, high_shift = run % 4 * 2;
            uint8_t *nibbles = runs + run * (LSPAN_NIBBLE_BLOCK + 2 * LSPAN_LINE);
            uint8_t quants[32];
            for (int i = 0; i < 32; i++) {
                quants[i] = low[i] >> low_shift & 15;
                uint8_t pair = high[i] >> high_shift & 3;
                uint8_t *byte = nibbles + LSPAN_NIBBLE_BLOCK + i / 16 * LSPAN_LINE + 4 * s.lane + i % 4;
                *byte = (uint8_t)(*byte | pair << (i % 16 / 4 * 2));
            }
            put_nibbles(nibbles, s.lane, quants);
        }
    }
}

static void pack_row(lspan_block_type type, row_source s)
{
    switch (type) {
    case lspan_block_type_f16: pack_f16(s); break;
    case lspan_block_type_bf16: pack_bf16(s); break;
    case lspan_block_type_q8_0: pack_pairs(s, type, 32); break;
    case lspan_block_type_q4_0: pack_pairs(s, type, 16); break;
    case lspan_block_type_q4_1: pack_q4_1(s); break;
    case lspan_block_type_q4_k: pack_q4_k(s); break;
    case lspan_block_type_q6_k: pack_q6_k(s); break;
    default: pack_f32(s); break;
    }
}

typedef struct packing_call {
    const lspan_weights *weights;
    int64_t row_bytes;
    int64_t pair_bytes;
    uint8_t *packed;
} packing_call;

/* Pairs of panels. */
static void pack_pairs_of_panels(const lspan_context *context, const void *argument, int64_t first, int64_t end)
{
    (void)context;
    const packing_call *p = argument;
    const lspan_weights *w = p->weights;
    int64_t unit_bytes = lspan_packing_of(w->type).unit_bytes, rows = LSPAN_PANELS_TOGETHER * LSPAN_PANEL_ROWS;
    memset(p->packed + first * p->pair_bytes, 0, (size_t)((end - first) * p->pair_bytes));
    for (int64_t row = first * rows; row < end * rows && row < w->rows; row++) {
        const uint8_t *blocks = (const uint8_t *)w->data + row * p->row_bytes;
        uint8_t *panel = p->packed + lspan_panel_offset(w->type, w->columns, row / LSPAN_PANEL_ROWS);
        int lane = (int)(row % LSPAN_PANEL_ROWS);
        pack_row(w->type, (row_source){blocks, w->columns, panel, LSPAN_PANELS_TOGETHER * unit_bytes, lane});
    }
}

lspan_status lspan_pack_weights(
    const lspan_context *context, const lspan_weights *weights, void *packed, size_t packed_bytes)
{
    int64_t row_bytes;
    size_t bytes;
    if (!context) return lspan_status_null_pointer;
    LSPAN_CHECK(lspan_check_weights(weights, &row_bytes));
    LSPAN_CHECK(lspan_packed_bytes(weights->type, weights->rows, weights->columns, &bytes));
    LSPAN_CHECK(lspan_check_workspace(packed, packed_bytes, bytes));
    int64_t pair_bytes = LSPAN_PANELS_TOGETHER * lspan_panel_bytes(weights->type, weights->columns);
    packing_call call = {weights, row_bytes, pair_bytes, packed};
    int64_t pairs = bytes == 0 ? 0 : lspan_panels(weights->rows) / LSPAN_PANELS_TOGETHER;
    return lspan_run_rows(context, pairs, (int64_t)bytes, pack_pairs_of_panels, &call);
}
