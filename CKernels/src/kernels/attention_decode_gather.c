/* attention_decode_gather.c: one task of decode attention over keys wherever they are: those of a list, or any that are
 * rotated as they are read. */
#include "attention_decode_rows.h"
#include "variants.h"

V_INLINE void attend(
    const lspan_attention *a, const lspan_decode_task *task, void *scratch, const lspan_dtype dtype, const int dot,
    const int rotated)
{
    decode_rows t = rows_of(a, task, dtype);
    lspan_attention_scratch s = lspan_cut_scratch(scratch, t.rows, a->head_dim, KEYS, 0);
    lspan_row_keys seen = lspan_keys_of_rows(a, 0, t.tokens - 1, t.tokens, t.keys);
    key_cursor cursor = first_key(a, &task->segments, task->sequence, seen);
    int32_t slots[2][KEYS];
    key_tile tile = tile_of_slots(slots[0], take_slots(&cursor, slots[0], KEYS));
    if (tile.count > 0) {
        next_block first = block_at(tile_rows(t.key, &tile, 1), lspan_min64(t.block, tile.count), dtype);
        for (int64_t i = 0; i < first.rows; i++) prefetch_part(&first, i, 1, a->head_dim * element_bytes(dtype), 1);
    }
    begin_rows(a, task, &t, &s, rotated ? lspan_dtype_f32 : dtype, dot);
    for (int i = 1; tile.count > 0; i ^= 1) {
        key_tile after = tile_of_slots(slots[i], take_slots(&cursor, slots[i], KEYS));
        attend_tile(a, &t, &s, &tile, &after, dtype, dot, 1, rotated);
        tile = after;
    }
    finish_rows(a, task, &t, &s, dtype);
}

DECODE_INSTANCES(attend_f32, lspan_dtype_f32, 0, 0)
DECODE_INSTANCES(attend_f16, lspan_dtype_f16, 0, 0)
DECODE_INSTANCES(attend_bf16, lspan_dtype_bf16, 0, 0)
#if V_BF16_DOT
DECODE_INSTANCES(attend_bf16_pairs, lspan_dtype_bf16, 1, 0)
#endif

/* Rotation takes most of the time where there is one, so no instance is unrolled. */
DECODE_INSTANCE(attend_rotated_f32, 0, lspan_dtype_f32, 0, 1)
DECODE_INSTANCE(attend_rotated_f16, 0, lspan_dtype_f16, 0, 1)
DECODE_INSTANCE(attend_rotated_bf16, 0, lspan_dtype_bf16, 0, 1)

void LSPAN_VARIANT(attention_decode_gather)(const lspan_attention *attention, lspan_decode_task task, void *scratch)
{
    int rotated = attention->key_rotation != NULL;
    switch (attention->keys.dtype) {
    case lspan_dtype_f16:
        (rotated ? attend_rotated_f16 : attend_f16)(attention, &task, scratch);
        break;
    case lspan_dtype_bf16:
#if V_BF16_DOT
        if (attention->queries.dtype == lspan_dtype_bf16 && !rotated) {
            attend_bf16_pairs(attention, &task, scratch);
            break;
        }
#endif
        (rotated ? attend_rotated_bf16 : attend_bf16)(attention, &task, scratch);
        break;
    default:
        (rotated ? attend_rotated_f32 : attend_f32)(attention, &task, scratch);
        break;
    }
}
