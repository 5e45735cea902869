/* packing.h: where packed weights lie. pack.c writes them, kernels/product*.h read them.
 *
 * A panel is 16 rows of W, in units of some columns. Two panels lie together, a unit of one and a unit of the other in
 * turns: products that read both read one stream. Units begin on a cache line. A line holds 4 bytes of each of the 16 rows,
 * row by row, unless said otherwise. Rows beyond M and columns beyond K are zero.
 *
 *   f32    unit of 1:   one line
 *   f16    unit of 2:   16 halves of the even column, 16 of the odd one
 *   bf16   unit of 2:   one line of pairs, the even column in the low half
 *   q8_0   unit of 64:  d of two blocks [2][16] f16; 16 lines of 4 columns each
 *   q4_0   unit of 64:  d of two blocks [2][16] f16; two blocks of nibbles
 *   q4_1   unit of 32:  d [16] f16, m [16] f16; a block of nibbles
 *   q4_k   unit of 256: d [16] f16, dmin [16] f16; scales [8][16] u8, minima [8][16] u8; eight blocks of nibbles
 *   q6_k   unit of 256: d [16] f16, 32 bytes of padding; scales [16][16] i8; eight blocks of nibbles, each followed by
 *                       two lines of bit pairs
 *
 * A block of nibbles is four lines for 32 columns: a line's low nibbles are columns 4g .. 4g+3 of the block and its high
 * ones columns 16+4g .. 16+4g+3, g being the line. A line of bit pairs has bits 4 and 5 of 16 columns: those of columns
 * 4g .. 4g+3 are bits 2g and 2g+1 of its bytes; the first of two is for the low nibbles. */
#ifndef LSPAN_PACKING_H
#define LSPAN_PACKING_H

#include <longspan/product.h>

#define LSPAN_PANEL_ROWS 16
#define LSPAN_PANELS_TOGETHER 2
#define LSPAN_LINE 64
#define LSPAN_NIBBLE_BLOCK (4 * LSPAN_LINE)

typedef struct lspan_packing {
    int64_t unit_columns; /* 0 for a type that cannot be packed */
    int64_t unit_bytes;
} lspan_packing;

static inline lspan_packing lspan_packing_of(lspan_block_type type)
{
    switch (type) {
    case lspan_block_type_f32: return (lspan_packing){1, LSPAN_LINE};
    case lspan_block_type_f16:
    case lspan_block_type_bf16: return (lspan_packing){2, LSPAN_LINE};
    case lspan_block_type_q8_0: return (lspan_packing){64, 17 * LSPAN_LINE};
    case lspan_block_type_q4_0: return (lspan_packing){64, 9 * LSPAN_LINE};
    case lspan_block_type_q4_1: return (lspan_packing){32, 5 * LSPAN_LINE};
    case lspan_block_type_q4_k: return (lspan_packing){256, 37 * LSPAN_LINE};
    case lspan_block_type_q6_k: return (lspan_packing){256, 53 * LSPAN_LINE};
    default: return (lspan_packing){0, 0};
    }
}

/* What inputs are rounded to for weights of a type. */
typedef enum lspan_product_form {
    lspan_product_form_f32,
    lspan_product_form_bf16,
    lspan_product_form_8bit
} lspan_product_form;

static inline lspan_product_form lspan_product_form_of(lspan_block_type type, lspan_product_mode mode, int bf16)
{
    if (mode == lspan_product_mode_f32 || type == lspan_block_type_f32 || type == lspan_block_type_f16) {
        return lspan_product_form_f32;
    }
    if (type != lspan_block_type_bf16) return lspan_product_form_8bit;
    return bf16 ? lspan_product_form_bf16 : lspan_product_form_f32;
}

/* Bytes of a panel of weights whose shape was checked. */
static inline int64_t lspan_panel_bytes(lspan_block_type type, int64_t columns)
{
    lspan_packing packing = lspan_packing_of(type);
    return (columns + packing.unit_columns - 1) / packing.unit_columns * packing.unit_bytes;
}

/* Panels of weights, with the one of zeros that fills up a pair. */
static inline int64_t lspan_panels(int64_t rows)
{
    int64_t together = LSPAN_PANELS_TOGETHER * LSPAN_PANEL_ROWS;
    return (rows + together - 1) / together * LSPAN_PANELS_TOGETHER;
}

/* Where a panel begins; its units are LSPAN_PANELS_TOGETHER units apart. */
static inline int64_t lspan_panel_offset(lspan_block_type type, int64_t columns, int64_t panel)
{
    int64_t inside = panel % LSPAN_PANELS_TOGETHER;
    return (panel - inside) * lspan_panel_bytes(type, columns) + inside * lspan_packing_of(type).unit_bytes;
}

#endif
