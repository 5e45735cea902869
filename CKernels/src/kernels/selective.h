/* selective.h: what the selective scan and its update share: moves of up to V_WIDTH channels, and how a sum over states
 * becomes an output. */
#ifndef LSPAN_SELECTIVE_H
#define LSPAN_SELECTIVE_H

#include "lanes.h"
#include "ssm_step.h"

/* log2(e): A in units of ln 2 turns exp(dt A) into a power of two. */
#define LSPAN_LOG2_E 0x1.715476p+0f

/* dt and A as the exponent of a decay takes them, so that their product is finite: a dt above 2^40 decays like 2^40, an A
 * below -2^86 like that. */
V_INLINE v_f32 decay_step(v_f32 dt)
{
    return v_min(v_set1(0x1p40f), dt);
}
V_INLINE v_f32 decay_rate(v_f32 a)
{
    return v_mul(v_set1(LSPAN_LOG2_E), v_max(v_set1(-0x1p86f), a));
}

V_INLINE v_f32 load_row(lspan_matrix m, int64_t row, int64_t column, int lanes)
{
    return load_lanes(m.data, row * m.row_stride + column, m.dtype, lanes);
}

/* (sum + D u) silu(z), stored in the output's dtype. */
V_INLINE void write_output(
    const lspan_selective_scan *s, int64_t row, int64_t channel, int lanes, v_f32 d, v_f32 sum)
{
    v_f32 y = sum;
    if (s->d) y = v_fma(d, load_row(s->input, row, channel, lanes), y);
    if (s->gate.data) {
        v_f32 z = load_row(s->gate, row, channel, lanes);
        y = v_mul(y, v_mul(z, v_sigmoid(z)));
    }
    store_lanes(s->output.data, row * s->output.row_stride + channel, s->output.dtype, y, lanes);
}

/* N values of B or C of one token and group as f32, with zeros above them up to a whole vector. */
V_INLINE void load_states(lspan_heads view, int64_t row, int64_t group, int64_t n, float *out)
{
    int64_t at = row * view.token_stride + group * view.head_stride;
    for (int64_t i = 0; i < n; i += V_WIDTH) {
        int lanes = lanes_of(n - i);
        v_store(out + i, v_load_as_n(view.data, at + i, view.dtype, lanes));
    }
}

#endif
