/* activations.c: activation(gate) * up, and conversion between dtypes and layouts. */
#include "activation.h"
#include "variants.h"

V_INLINE void gate_rows(const lspan_gate *g, int64_t first, int64_t end, const lspan_activation activation)
{
    for (int64_t row = first; row < end; row++) {
        int64_t gate = row * g->gate.row_stride, up = row * g->up.row_stride, out = row * g->output.row_stride;
        for (int64_t i = 0; i < g->columns; i += V_WIDTH) {
            int lanes = g->columns - i < V_WIDTH ? (int)(g->columns - i) : V_WIDTH;
            if (lanes == V_WIDTH) {
                v_f32 y = activate(v_load_as(g->gate.data, gate + i, g->gate.dtype), activation);
                y = v_mul(y, v_load_as(g->up.data, up + i, g->up.dtype));
                v_store_as(g->output.data, out + i, g->output.dtype, y);
            } else {
                v_f32 y = activate(v_load_as_n(g->gate.data, gate + i, g->gate.dtype, lanes), activation);
                y = v_mul(y, v_load_as_n(g->up.data, up + i, g->up.dtype, lanes));
                v_store_as_n(g->output.data, out + i, g->output.dtype, y, lanes);
            }
        }
    }
}

void LSPAN_VARIANT(gated_activation)(const lspan_gate *gate, int64_t first, int64_t end)
{
    switch (gate->activation) {
    case lspan_activation_gelu_tanh:
        gate_rows(gate, first, end, lspan_activation_gelu_tanh);
        break;
    case lspan_activation_gelu_erf:
        gate_rows(gate, first, end, lspan_activation_gelu_erf);
        break;
    default:
        gate_rows(gate, first, end, lspan_activation_silu);
        break;
    }
}

void LSPAN_VARIANT(convert)(
    int64_t heads, int64_t head_dim, lspan_heads input, lspan_heads_out output, int64_t first, int64_t end)
{
    for (int64_t t = first; t < end; t++) {
        for (int64_t h = 0; h < heads; h++) {
            int64_t in = t * input.token_stride + h * input.head_stride;
            int64_t out = t * output.token_stride + h * output.head_stride;
            int64_t d = 0;
            for (; d + V_WIDTH <= head_dim; d += V_WIDTH) {
                v_store_as(output.data, out + d, output.dtype, v_load_as(input.data, in + d, input.dtype));
            }
            int rest = (int)(head_dim - d);
            if (rest > 0) {
                v_f32 x = v_load_as_n(input.data, in + d, input.dtype, rest);
                v_store_as_n(output.data, out + d, output.dtype, x, rest);
            }
        }
    }
}
