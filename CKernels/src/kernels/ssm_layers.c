/* ssm_layers.c: the causal convolution, the gated RMSNorm and the steps of ssm.h. */
#include "lanes.h"
#include "ssm_step.h"
#include "variants.h"

V_INLINE v_f32 silu(v_f32 x)
{
    return v_mul(x, v_sigmoid(x));
}

/* ---- Steps ------------------------------------------------------------------------------------------- */

void LSPAN_VARIANT(dt_steps)(const lspan_dt_call *call, int64_t sequence, int64_t first, int64_t end)
{
    for (int64_t i = 0; i < call->channels; i += V_WIDTH) {
        int lanes = lanes_of(call->channels - i);
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
    const float *weight = c->weight + channel * width;
    if (lanes == V_WIDTH && width == 4) {
        v_f32 even[2], odd[2];
        v_unzip(v_load(weight), v_load(weight + V_WIDTH), &even[0], &odd[0]);
        v_unzip(v_load(weight + 2 * V_WIDTH), v_load(weight + 3 * V_WIDTH), &even[1], &odd[1]);
        v_unzip(even[0], even[1], &taps[0], &taps[2]);
        v_unzip(odd[0], odd[1], &taps[1], &taps[3]);
        return;
    }
    float column[4][V_WIDTH] = {{0}};
    for (int l = 0; l < lanes; l++) {
        for (int k = 0; k < width; k++) column[k][l] = weight[l * width + k];
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

/* Asks for channel e of the rows after those at work, of x to read and of y to write: where rows are pages long, no
 * hardware prefetcher goes from one to the next. */
V_INLINE void prefetch_rows(const lspan_causal_conv *c, int64_t t, int64_t end, int64_t e)
{
    int64_t in = (int64_t)lspan_dtype_size(c->input.dtype), out = (int64_t)lspan_dtype_size(c->output.dtype);
    for (int64_t i = t; i < end; i++) {
        v_prefetch_l2((const char *)c->input.data + (i * c->input.row_stride + e) * in);
        v_prefetch_write((const char *)c->output.data + (i * c->output.row_stride + e) * out);
    }
}

/* `tokens` tokens from t on, all channels of the task: rows are read and written in the order they lie in, which memory
 * likes best, and the taps are loaded once for them. */
V_INLINE void conv_rows(
    const lspan_causal_conv *c, const lspan_conv_task *task, int64_t t, const int tokens, const int width)
{
    for (int64_t e = task->channel; e < task->channel_end; e += V_WIDTH) {
        int lanes = lanes_of(task->channel_end - e);
        v_f32 taps[4], rows[LSPAN_CONV_ROWS + 3];
        load_taps(c, e, lanes, width, taps);
#pragma GCC unroll 8
        for (int i = 0; i < tokens + width - 1; i++) {
            rows[i] = conv_row(c, task->sequence, task->begin, t - width + 1 + i, e, lanes, width);
        }
        v_f32 bias = c->bias ? v_load_n(c->bias + e, lanes) : v_zero();
        if (tokens > 1 && t + 2 * tokens <= task->end) prefetch_rows(c, t + tokens, t + 2 * tokens, e);
#pragma GCC unroll 4
        for (int i = 0; i < tokens; i++) {
            v_f32 y = bias;
#pragma GCC unroll 4
            for (int k = 0; k < width; k++) y = v_fma(taps[k], rows[i + k], y);
            if (c->silu) y = silu(y);
            store_lanes(c->output.data, (t + i) * c->output.row_stride + e, c->output.dtype, y, lanes);
        }
    }
}

V_INLINE void conv_tokens(const lspan_causal_conv *c, const lspan_conv_task *task, const int width)
{
    int64_t t = task->first;
    for (; t + LSPAN_CONV_ROWS <= task->end; t += LSPAN_CONV_ROWS) conv_rows(c, task, t, LSPAN_CONV_ROWS, width);
    for (; t < task->end; t++) conv_rows(c, task, t, 1, width);
}

void LSPAN_VARIANT(causal_conv)(const lspan_causal_conv *c, lspan_conv_task task)
{
    if (c->width == 4) {
        conv_tokens(c, &task, 4);
    } else if (c->width == 3) {
        conv_tokens(c, &task, 3);
    } else {
        conv_tokens(c, &task, 2);
    }
}

/* The last W - 1 rows, oldest first, so that a state that is read and written in one place is moved down. */
void LSPAN_VARIANT(causal_conv_state)(const lspan_causal_conv *c, int64_t sequence)
{
    int64_t begin = c->indptr[sequence], end = c->indptr[sequence + 1];
    float *state = c->final_state + sequence * c->state_stride;
    for (int64_t k = 0; k + 1 < c->width; k++) {
        for (int64_t e = 0; e < c->channels; e += V_WIDTH) {
            int lanes = lanes_of(c->channels - e);
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
            v_f32 x = norm_operand(n, row, begin + j, lanes_of(size - j));
            squares = v_fma(x, x, squares);
        }
        v_f32 factor = v_set1(1.0f / sqrtf(v_reduce_add(squares) / (float)size + n->epsilon));
        for (int64_t j = 0; j < size; j += V_WIDTH) {
            int64_t column = begin + j;
            int lanes = lanes_of(size - j);
            v_f32 y = v_mul(norm_operand(n, row, column, lanes), factor);
            if (n->weight) y = v_mul(y, v_load_n(n->weight + column, lanes));
            if (n->norm_first) {
                y = v_mul(y, silu(load_lanes(n->gate.data, row * n->gate.row_stride + column, n->gate.dtype, lanes)));
            }
            store_lanes(n->output.data, row * n->output.row_stride + column, n->output.dtype, y, lanes);
        }
    }
}
