/* ssm_layers.c: the causal convolution, the gated RMSNorm and the steps of ssm.h. */
#include "ssm_step.h"
#include "variants.h"

V_INLINE v_f32 load_lanes(const void *data, int64_t index, lspan_dtype dtype, int lanes)
{
    return lanes == V_WIDTH ? v_load_as(data, index, dtype) : v_load_as_n(data, index, dtype, lanes);
}

V_INLINE void store_lanes(void *data, int64_t index, lspan_dtype dtype, v_f32 x, int lanes)
{
    if (lanes == V_WIDTH) {
        v_store_as(data, index, dtype, x);
    } else {
        v_store_as_n(data, index, dtype, x, lanes);
    }
}

V_INLINE v_f32 silu(v_f32 x)
{
    return v_mul(x, v_sigmoid(x));
}

/* ---- Steps ------------------------------------------------------------------------------------------- */

void LSPAN_VARIANT(dt_steps)(const lspan_dt_call *call, int64_t sequence, int64_t first, int64_t end)
{
    for (int64_t i = 0; i < call->channels; i += V_WIDTH) {
        int lanes = call->channels - i < V_WIDTH ? (int)(call->channels - i) : V_WIDTH;
        v_dt_rule rule = v_dt_rule_at(call->rule, sequence, i, lanes);
        for (int64_t t = first; t < end; t++) {
            v_f32 dt = load_lanes(call->dt.data, t * call->dt.row_stride + i, call->dt.dtype, lanes);
            v_store_n(call->steps + t * call->row_stride + i, v_dt_step(&rule, dt), lanes);
        }
    }
}

/* ---- Causal convolution ------------------------------------------------------------------------------ */

/* Taps of V_WIDTH channels from `channel` on: tap k of lane l is weight[channel + l][k]. */
V_INLINE void load_taps(const lspan_causal_conv *c, int64_t channel, int lanes, const int width, v_f32 taps[4])
{
    float column[4][V_WIDTH] = {{0}};
    for (int l = 0; l < lanes; l++) {
        for (int k = 0; k < width; k++) column[k][l] = c->weight[(channel + l) * width + k];
    }
    for (int k = 0; k < width; k++) taps[k] = v_load(column[k]);
}

/* Row `t` of a sequence's x, which before its first token is a row of the initial state or zeros. */
V_INLINE v_f32 conv_row(
    const lspan_causal_conv *c, int64_t sequence, int64_t begin, int64_t t, int64_t channel, int lanes, const int width)
{
    if (t >= begin) {
        return load_lanes(c->input.data, t * c->input.row_stride + channel, c->input.dtype, lanes);
    }
    if (!c->initial_state) return v_zero();
    int64_t row = t - begin + width - 1;
    return v_load_n(c->initial_state + sequence * c->state_stride + row * c->channels + channel, lanes);
}

/* Tokens first .. end-1 of a sequence that begins at `begin`: each row of x is loaded once a strip. */
V_INLINE void conv_strip(
    const lspan_causal_conv *c, const lspan_conv_task *task, int64_t channel, int lanes, const int width)
{
    v_f32 taps[4], rows[4];
    load_taps(c, channel, lanes, width, taps);
    v_f32 bias = c->bias ? v_load_n(c->bias + channel, lanes) : v_zero();
#pragma GCC unroll 4
    for (int k = 0; k + 1 < width; k++) {
        rows[k] = conv_row(c, task->sequence, task->begin, task->first - width + 1 + k, channel, lanes, width);
    }
    for (int64_t t = task->first; t < task->end; t++) {
        rows[width - 1] = load_lanes(c->input.data, t * c->input.row_stride + channel, c->input.dtype, lanes);
        v_f32 y = bias;
#pragma GCC unroll 4
        for (int k = 0; k < width; k++) y = v_fma(taps[k], rows[k], y);
        if (c->silu) y = silu(y);
        store_lanes(c->output.data, t * c->output.row_stride + channel, c->output.dtype, y, lanes);
#pragma GCC unroll 4
        for (int k = 0; k + 1 < width; k++) rows[k] = rows[k + 1];
    }
}

void LSPAN_VARIANT(causal_conv)(const lspan_causal_conv *c, lspan_conv_task task)
{
    for (int64_t e = task.channel; e < task.channel_end; e += V_WIDTH) {
        int lanes = task.channel_end - e < V_WIDTH ? (int)(task.channel_end - e) : V_WIDTH;
        if (c->width == 4) {
            conv_strip(c, &task, e, lanes, 4);
        } else if (c->width == 3) {
            conv_strip(c, &task, e, lanes, 3);
        } else {
            conv_strip(c, &task, e, lanes, 2);
        }
    }
}

/* The last W - 1 rows, oldest first, so that a state that is read and written in one place is moved down. */
void LSPAN_VARIANT(causal_conv_state)(const lspan_causal_conv *c, int64_t sequence)
{
    int64_t begin = c->indptr[sequence], end = c->indptr[sequence + 1];
    float *state = c->final_state + sequence * c->state_stride;
    for (int64_t k = 0; k + 1 < c->width; k++) {
        for (int64_t e = 0; e < c->channels; e += V_WIDTH) {
            int lanes = c->channels - e < V_WIDTH ? (int)(c->channels - e) : V_WIDTH;
            v_f32 row = conv_row(c, sequence, begin, end - c->width + 1 + k, e, lanes, (int)c->width);
            v_store_n(state + k * c->channels + e, row, lanes);
        }
    }
}

/* ---- Gated RMSNorm ----------------------------------------------------------------------------------- */

V_INLINE v_f32 norm_operand(const lspan_gated_rms_norm *n, int64_t row, int64_t column, int lanes)
{
    v_f32 x = load_lanes(n->input.data, row * n->input.row_stride + column, n->input.dtype, lanes);
    if (n->norm_first) return x;
    return v_mul(x, silu(load_lanes(n->gate.data, row * n->gate.row_stride + column, n->gate.dtype, lanes)));
}

void LSPAN_VARIANT(gated_rms_norm)(const lspan_gated_rms_norm *n, int64_t first, int64_t end)
{
    int64_t size = n->columns / n->groups;
    for (int64_t i = first; i < end; i++) {
        int64_t row = i / n->groups, begin = i % n->groups * size;
        v_f32 squares = v_zero();
        for (int64_t j = 0; j < size; j += V_WIDTH) {
            v_f32 x = norm_operand(n, row, begin + j, size - j < V_WIDTH ? (int)(size - j) : V_WIDTH);
            squares = v_fma(x, x, squares);
        }
        v_f32 factor = v_set1(1.0f / sqrtf(v_reduce_add(squares) / (float)size + n->epsilon));
        for (int64_t j = 0; j < size; j += V_WIDTH) {
            int64_t column = begin + j;
            int lanes = size - j < V_WIDTH ? (int)(size - j) : V_WIDTH;
            v_f32 y = v_mul(norm_operand(n, row, column, lanes), factor);
            if (n->weight) y = v_mul(y, v_load_n(n->weight + column, lanes));
            if (n->norm_first) {
                y = v_mul(y, silu(load_lanes(n->gate.data, row * n->gate.row_stride + column, n->gate.dtype, lanes)));
            }
            store_lanes(n->output.data, row * n->output.row_stride + column, n->output.dtype, y, lanes);
        }
    }
}
