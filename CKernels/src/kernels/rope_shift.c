/* rope_shift.c: keys in place to other positions. */
#include "rope_rotate.h"
#include "variants.h"

V_INLINE void shift_rows(
    const lspan_rope_shifting *s, int64_t first, int64_t end, const lspan_dtype dtype, const lspan_rope_layout layout,
    const int inverse)
{
    for (int64_t row = first; row < end; row++) {
        int64_t head = row / s->tokens, token = row % s->tokens;
        int64_t shift = s->shifts[head * s->shift_head_stride + token];
        /* a rotation by the angle 0 changes no bit */
        if (shift == 0) continue;
        int64_t base = token * s->keys.token_stride + head * s->keys.head_stride;
        int64_t entry = (shift - s->table_first) * s->pairs;
        rope_row place = {s->keys.data, s->keys.data, base, base};
        if (layout == lspan_rope_layout_halves) {
            rotate_halves(place, s->pairs, s->cosine + entry, s->sine + entry, dtype, dtype, inverse);
        } else {
            rotate_interleaved(place, s->pairs, s->cosine + entry, s->sine + entry, dtype, dtype, inverse);
        }
    }
}

V_INLINE void shift_dtype(const lspan_rope_shifting *s, int64_t first, int64_t end, const lspan_dtype dtype)
{
    if (s->layout == lspan_rope_layout_halves) {
        if (s->inverse) shift_rows(s, first, end, dtype, lspan_rope_layout_halves, 1);
        else shift_rows(s, first, end, dtype, lspan_rope_layout_halves, 0);
    } else {
        if (s->inverse) shift_rows(s, first, end, dtype, lspan_rope_layout_interleaved, 1);
        else shift_rows(s, first, end, dtype, lspan_rope_layout_interleaved, 0);
    }
}

void LSPAN_VARIANT(rope_shift)(const lspan_rope_shifting *shifting, int64_t first, int64_t end)
{
    switch (shifting->keys.dtype) {
    case lspan_dtype_f16:
        shift_dtype(shifting, first, end, lspan_dtype_f16);
        break;
    case lspan_dtype_bf16:
        shift_dtype(shifting, first, end, lspan_dtype_bf16);
        break;
    default:
        shift_dtype(shifting, first, end, lspan_dtype_f32);
        break;
    }
}
