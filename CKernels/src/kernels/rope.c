/* rope.c: rotary position embedding of whole tokens. */
#include "variants.h"

V_INLINE void rotate_halves(const lspan_rotation *r, int64_t in, int64_t out, const float *cosine, const float *sine)
{
    for (int64_t i = 0; i < r->pairs; i += V_WIDTH) {
        int lanes = r->pairs - i < V_WIDTH ? (int)(r->pairs - i) : V_WIDTH;
        v_f32 c = v_load_n(cosine + i, lanes), s = v_load_n(sine + i, lanes);
        v_f32 x = v_load_as_n(r->input.data, in + i, r->input.dtype, lanes);
        v_f32 y = v_load_as_n(r->input.data, in + r->pairs + i, r->input.dtype, lanes);
        v_store_as_n(r->output.data, out + i, r->output.dtype, v_fnma(y, s, v_mul(x, c)), lanes);
        v_store_as_n(r->output.data, out + r->pairs + i, r->output.dtype, v_fma(x, s, v_mul(y, c)), lanes);
    }
}

/* Neighbours are taken apart into two short rows, rotated, and put back. */
V_INLINE void rotate_interleaved(const lspan_rotation *r, int64_t in, int64_t out, const float *cosine, const float *sine)
{
    for (int64_t i = 0; i < r->pairs; i += V_WIDTH) {
        int lanes = r->pairs - i < V_WIDTH ? (int)(r->pairs - i) : V_WIDTH;
        int low = 2 * lanes < V_WIDTH ? 2 * lanes : V_WIDTH, high = 2 * lanes - low;
        float pair[2 * V_WIDTH], even[V_WIDTH], odd[V_WIDTH];
        v_store(pair, v_load_as_n(r->input.data, in + 2 * i, r->input.dtype, low));
        v_store(pair + V_WIDTH, v_load_as_n(r->input.data, in + 2 * i + low, r->input.dtype, high));
        for (int l = 0; l < V_WIDTH; l++) {
            even[l] = pair[2 * l];
            odd[l] = pair[2 * l + 1];
        }
        v_f32 c = v_load_n(cosine + i, lanes), s = v_load_n(sine + i, lanes);
        v_f32 x = v_load(even), y = v_load(odd);
        v_store(even, v_fnma(y, s, v_mul(x, c)));
        v_store(odd, v_fma(x, s, v_mul(y, c)));
        for (int l = 0; l < V_WIDTH; l++) {
            pair[2 * l] = even[l];
            pair[2 * l + 1] = odd[l];
        }
        v_store_as_n(r->output.data, out + 2 * i, r->output.dtype, v_load(pair), low);
        v_store_as_n(r->output.data, out + 2 * i + low, r->output.dtype, v_load(pair + V_WIDTH), high);
    }
}

void LSPAN_VARIANT(rope)(const lspan_rotation *rotation, int64_t first, int64_t end)
{
    const lspan_rotation *r = rotation;
    for (int64_t t = first; t < end; t++) {
        const float *cosine = r->cosine + t * r->pairs, *sine = r->sine + t * r->pairs;
        for (int64_t h = 0; h < r->heads; h++) {
            int64_t in = t * r->input.token_stride + h * r->input.head_stride;
            int64_t out = t * r->output.token_stride + h * r->output.head_stride;
            if (r->layout == lspan_rope_layout_halves) {
                rotate_halves(r, in, out, cosine, sine);
            } else {
                rotate_interleaved(r, in, out, cosine, sine);
            }
            for (int64_t d = 2 * r->pairs; d < r->head_dim; d += V_WIDTH) {
                int lanes = r->head_dim - d < V_WIDTH ? (int)(r->head_dim - d) : V_WIDTH;
                v_f32 x = v_load_as_n(r->input.data, in + d, r->input.dtype, lanes);
                v_store_as_n(r->output.data, out + d, r->output.dtype, x, lanes);
            }
        }
    }
}
