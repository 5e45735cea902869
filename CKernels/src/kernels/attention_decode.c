/* attention_decode.c: one task of decode attention: a few query rows over ranges of one head's keys. */
#include "attention_decode_rows.h"
#include "variants.h"

V_INLINE void attend_range(
    const lspan_attention *a, const decode_rows *t, const lspan_attention_scratch *s, int64_t begin, int64_t end,
    const lspan_dtype dtype, const int dot)
{
    for (int64_t j = begin; j < end; j += KEYS) {
        key_tile tile = {NULL, j, lspan_min64(j + KEYS, end), lspan_min64(KEYS, end - j)};
        key_tile after = {NULL, tile.end, end, end - tile.end};
        attend_tile(a, t, s, &tile, &after, dtype, dot, 0, 0);
    }
}

V_INLINE void attend(
    const lspan_attention *a, const lspan_decode_task *task, void *scratch, const lspan_dtype dtype, const int dot)
{
    decode_rows t = rows_of(a, task, dtype);
    lspan_attention_scratch s = lspan_cut_scratch(scratch, t.rows, a->head_dim, KEYS, 0);
    begin_rows(a, task, &t, &s, dtype, dot);
    for (int64_t i = 0; i < task->segments.count; i++) {
        attend_range(a, &t, &s, task->segments.at[i].begin, task->segments.at[i].end, dtype, dot);
    }
    finish_rows(a, task, &t, &s, dtype);
}

DECODE_INSTANCES(attend_f32, lspan_dtype_f32, 0)
DECODE_INSTANCES(attend_f16, lspan_dtype_f16, 0)
DECODE_INSTANCES(attend_bf16, lspan_dtype_bf16, 0)
#if V_BF16_DOT
DECODE_INSTANCES(attend_bf16_pairs, lspan_dtype_bf16, 1)
#endif

void LSPAN_VARIANT(attention_decode)(const lspan_attention *attention, lspan_decode_task task, void *scratch)
{
    switch (attention->keys.dtype) {
    case lspan_dtype_f16:
        attend_f16(attention, &task, scratch);
        break;
    case lspan_dtype_bf16:
#if V_BF16_DOT
        if (attention->queries.dtype == lspan_dtype_bf16) {
            attend_bf16_pairs(attention, &task, scratch);
            break;
        }
#endif
        attend_bf16(attention, &task, scratch);
        break;
    default:
        attend_f32(attention, &task, scratch);
        break;
    }
}
