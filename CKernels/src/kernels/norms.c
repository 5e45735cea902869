/* norms.c: RMSNorm and LayerNorm, a row at a time. */
#include "variants.h"

/* Sum over the row of (x - center)^2, or of x itself, in two independent chains. */
V_INLINE float sum_row(lspan_matrix m, int64_t base, int64_t columns, float center, int squared)
{
    v_f32 c = v_set1(center);
    v_f32 even = v_zero(), odd = v_zero();
    int64_t i = 0;
    for (; i + 2 * V_WIDTH <= columns; i += 2 * V_WIDTH) {
        v_f32 x = v_sub(v_load_as(m.data, base + i, m.dtype), c);
        v_f32 y = v_sub(v_load_as(m.data, base + i + V_WIDTH, m.dtype), c);
        even = squared ? v_fma(x, x, even) : v_add(x, even);
        odd = squared ? v_fma(y, y, odd) : v_add(y, odd);
    }
    float rest = 0.0f;
    for (; i < columns; i += V_WIDTH) {
        int lanes = columns - i < V_WIDTH ? (int)(columns - i) : V_WIDTH;
        float x[V_WIDTH];
        v_store(x, v_sub(v_load_as_n(m.data, base + i, m.dtype, lanes), c));
        for (int l = 0; l < lanes; l++) rest += squared ? x[l] * x[l] : x[l];
    }
    return v_reduce_add(v_add(even, odd)) + rest;
}

/* y = (x - center) * factor * weight + bias */
V_INLINE void write_row(const lspan_norm *n, int64_t row, float center, float factor)
{
    int64_t in = row * n->input.row_stride, out = row * n->output.row_stride;
    v_f32 c = v_set1(center), f = v_set1(factor);
    for (int64_t i = 0; i < n->columns; i += V_WIDTH) {
        int lanes = n->columns - i < V_WIDTH ? (int)(n->columns - i) : V_WIDTH;
        int whole = lanes == V_WIDTH;
        v_f32 x = whole ? v_load_as(n->input.data, in + i, n->input.dtype)
                        : v_load_as_n(n->input.data, in + i, n->input.dtype, lanes);
        v_f32 y = v_mul(v_sub(x, c), f);
        if (n->weight) y = v_mul(y, whole ? v_load(n->weight + i) : v_load_n(n->weight + i, lanes));
        if (n->bias) y = v_add(y, whole ? v_load(n->bias + i) : v_load_n(n->bias + i, lanes));
        if (whole) {
            v_store_as(n->output.data, out + i, n->output.dtype, y);
        } else {
            v_store_as_n(n->output.data, out + i, n->output.dtype, y, lanes);
        }
    }
}

void LSPAN_VARIANT(rms_norm)(const lspan_norm *norm, int64_t first, int64_t end)
{
    for (int64_t row = first; row < end; row++) {
        float squares = sum_row(norm->input, row * norm->input.row_stride, norm->columns, 0.0f, 1);
        write_row(norm, row, 0.0f, 1.0f / sqrtf(squares / (float)norm->columns + norm->epsilon));
    }
}

void LSPAN_VARIANT(layer_norm)(const lspan_norm *norm, int64_t first, int64_t end)
{
    for (int64_t row = first; row < end; row++) {
        int64_t base = row * norm->input.row_stride;
        float mean = sum_row(norm->input, base, norm->columns, 0.0f, 0) / (float)norm->columns;
        float squares = sum_row(norm->input, base, norm->columns, mean, 1);
        write_row(norm, row, mean, 1.0f / sqrtf(squares / (float)norm->columns + norm->epsilon));
    }
}
