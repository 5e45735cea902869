/* rope.c: rotary position embedding of whole tokens. */
#include "rope_rotate.h"
#include "variants.h"

void LSPAN_VARIANT(rope)(const lspan_rotation *rotation, int64_t first, int64_t end)
{
    const lspan_rotation *r = rotation;
    for (int64_t t = first; t < end; t++) {
        const float *cosine = r->cosine + t * r->pairs, *sine = r->sine + t * r->pairs;
        for (int64_t h = 0; h < r->heads; h++) {
            int64_t in = t * r->input.token_stride + h * r->input.head_stride;
            int64_t out = t * r->output.token_stride + h * r->output.head_stride;
            rope_row row = {r->input.data, r->output.data, in, out};
            rotate_row(row, r->layout, r->head_dim, r->pairs, cosine, sine, r->input.dtype, r->output.dtype);
        }
    }
}
