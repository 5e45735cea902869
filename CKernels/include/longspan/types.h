/* types.h: element types and tensor views.
 *
 * Dimension letters are the same in every header:
 *   B sequences in a batch      Hq, Hk query heads, key/value heads; G = Hq / Hk
 *   T query tokens of a call    D head dimension
 *   S cached tokens (keys)
 * Strides count elements, not bytes. The last dimension is always contiguous.
 */
#ifndef LONGSPAN_TYPES_H
#define LONGSPAN_TYPES_H

#include "export.h"
#include <stddef.h>
#include <stdint.h>

LSPAN_BEGIN_DECLS

/* Element type of an input or output. f16 and bf16 are carried as uint16_t bit patterns. */
LSPAN_SINCE(0, 1)
typedef enum LSPAN_OPEN_ENUM lspan_dtype {
    lspan_dtype_f32 = 0, /* IEEE 754 binary32 */
    lspan_dtype_f16 = 1, /* IEEE 754 binary16 */
    lspan_dtype_bf16 = 2 /* the upper half of a binary32 */
} lspan_dtype;

/* Bytes of one element, or 0 for an unknown dtype. */
LSPAN_SINCE(0, 1)
LSPAN_API size_t lspan_dtype_size(lspan_dtype dtype);

/* How a weight matrix or an embedding table is stored. Numbers are GGUF's tensor type ids. A row is a whole
 * number of blocks. */
LSPAN_SINCE(0, 1)
typedef enum LSPAN_OPEN_ENUM lspan_block_type {
    lspan_block_type_f32 = 0,
    lspan_block_type_f16 = 1,
    lspan_block_type_q4_0 = 2,
    lspan_block_type_q4_1 = 3,
    lspan_block_type_q5_0 = 6,
    lspan_block_type_q5_1 = 7,
    lspan_block_type_q8_0 = 8,
    lspan_block_type_q4_k = 12,
    lspan_block_type_q6_k = 14,
    lspan_block_type_bf16 = 30
} lspan_block_type;

/* Elements and bytes of one block; both 0 for an unknown type. Either pointer may be NULL. */
LSPAN_SINCE(0, 1)
LSPAN_API void lspan_block_type_layout(lspan_block_type type, int64_t *elements, int64_t *bytes);

/* A read-only [tokens, heads, D] view: element (t, h, d) is at data + t*token_stride + h*head_stride + d.
 * data must be aligned to its element size and may be NULL where the view has no tokens. */
LSPAN_SINCE(0, 1)
typedef struct lspan_heads {
    const void *data;
    lspan_dtype dtype;
    int64_t token_stride;
    int64_t head_stride;
} lspan_heads;

/* A writable [tokens, heads, D] view. Its elements must not overlap one another. */
LSPAN_SINCE(0, 1)
typedef struct lspan_heads_out {
    void *data;
    lspan_dtype dtype;
    int64_t token_stride;
    int64_t head_stride;
} lspan_heads_out;

/* Which channels of a head a rotary embedding turns together. */
LSPAN_SINCE(0, 1)
typedef enum LSPAN_OPEN_ENUM lspan_rope_layout {
    lspan_rope_layout_halves = 0,     /* pair i is (x[i], x[i + pairs]): GPT-NeoX, Hugging Face */
    lspan_rope_layout_interleaved = 1 /* pair i is (x[2i], x[2i+1]): Su et al. 2021, eq. 34; GGUF's llama */
} lspan_rope_layout;

/* A read-only [rows, columns] view with contiguous columns. */
LSPAN_SINCE(0, 1)
typedef struct lspan_matrix {
    const void *data;
    lspan_dtype dtype;
    int64_t row_stride;
} lspan_matrix;

/* A writable [rows, columns] view with contiguous columns and rows that do not overlap. */
LSPAN_SINCE(0, 1)
typedef struct lspan_matrix_out {
    void *data;
    lspan_dtype dtype;
    int64_t row_stride;
} lspan_matrix_out;

/* Every workspace pointer must be aligned to this many bytes. */
#define LSPAN_WORKSPACE_ALIGNMENT 64

LSPAN_END_DECLS

#endif
