/* ssd_steps.c: the SSD recurrence of one head, a token at a time: the update of decoding and the scan's recurrent form.
 *
 * A state [P][N] is read and written once a token, with state elements in the lanes. Where the step is 0 it is read only. */
#include "lanes.h"
#include "../integers.h"
#include "ssm_step.h"
#include "variants.h"

/* Rows of the state whose sums are reduced together. */
#define SUMS 16
#define LARGEST LSPAN_SSM_MAX_STATE

/* `count` elements from `index` on as floats. */
V_INLINE void load_row(float *out, const void *data, int64_t index, lspan_dtype dtype, int64_t count)
{
    for (int64_t i = 0; i < count; i += V_WIDTH) {
        int lanes = lanes_of(count - i);
        v_store(out + i, load_lanes(data, index + i, dtype, lanes));
    }
}

/* The token's part in a head's state. */
typedef struct ssd_token {
    float decay;
    float b[LARGEST + V_WIDTH];
    float c[LARGEST + V_WIDTH];
    float input[LARGEST + V_WIDTH]; /* dt x */
} ssd_token;

/* sum = the row's part of C . h from element n on, where h is first decayed and added to if the step is not 0 */
V_INLINE v_f32 step_vector(
    float *row, int64_t n, int lanes, v_f32 decay, v_f32 input, v_f32 b, v_f32 c, v_f32 sum, const int moves)
{
    v_f32 state = lanes == V_WIDTH ? v_load(row + n) : v_load_n(row + n, lanes);
    if (moves) {
        state = v_fma(input, b, v_mul(decay, state));
        if (lanes == V_WIDTH) v_store(row + n, state);
        else v_store_n(row + n, state, lanes);
    }
    return v_fma(c, state, sum);
}

/* sums[p] = C . h_p for `rows` rows, up to 4 */
V_INLINE void step_rows(
    const ssd_token *token, float *state, int64_t size, int64_t p, const int rows, v_f32 sum[4], const int moves)
{
    v_f32 decay = v_set1(token->decay), input[4];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        input[r] = v_set1(token->input[p + r]);
        sum[r] = v_zero();
    }
    for (int64_t n = 0; n < size; n += V_WIDTH) {
        int lanes = lanes_of(size - n);
        v_f32 b = v_load(token->b + n), c = v_load(token->c + n);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            sum[r] = step_vector(state + (p + r) * size, n, lanes, decay, input[r], b, c, sum[r], moves);
        }
    }
}

V_INLINE void step_head(const ssd_token *token, float *state, int64_t rows, int64_t size, float *y, const int moves)
{
    int64_t p = 0;
    for (; p + SUMS <= rows; p += SUMS) {
        v_f32 sum[4][4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) step_rows(token, state, size, p + 4 * i, 4, sum[i], moves);
        v_reduce_add4x4((const v_f32 (*)[4])sum, y + p, 4);
    }
    for (; p < rows; p++) {
        v_f32 sum[4];
        step_rows(token, state, size, p, 1, sum, moves);
        y[p] = v_reduce_add(sum[0]);
    }
}

V_INLINE void store_output(const lspan_ssd_scan *scan, int64_t token, int64_t head, const float *sums)
{
    const lspan_heads *x = &scan->input, *z = &scan->gate;
    float inputs[LARGEST + V_WIDTH], gates[LARGEST + V_WIDTH];
    if (scan->d) load_row(inputs, x->data, token * x->token_stride + head * x->head_stride, x->dtype, scan->head_dim);
    if (z->data) load_row(gates, z->data, token * z->token_stride + head * z->head_stride, z->dtype, scan->head_dim);
    for (int64_t p = 0; p < scan->head_dim; p += V_WIDTH) {
        int64_t at = token * scan->output.token_stride + head * scan->output.head_stride + p;
        int lanes = lanes_of(scan->head_dim - p);
        v_f32 y = v_load(sums + p);
        if (scan->d) y = v_fma(v_set1(scan->d[head]), v_load(inputs + p), y);
        if (z->data) y = v_mul(y, v_mul(v_load(gates + p), v_sigmoid(v_load(gates + p))));
        if (lanes == V_WIDTH) v_store_as(scan->output.data, at, scan->output.dtype, y);
        else v_store_as_n(scan->output.data, at, scan->output.dtype, y, lanes);
    }
}

void LSPAN_VARIANT(ssd_steps)(const lspan_ssd_scan *scan, int64_t sequence, int64_t head, float *state)
{
    const lspan_heads *x = &scan->input, *b = &scan->b, *c = &scan->c;
    int64_t group = head / (scan->heads / scan->groups), rows = scan->head_dim, size = scan->state_size, kept = 0;
    v_dt_rule rule = v_dt_rule_at(&scan->rule, sequence, head, 1);
    ssd_token token;
    float sums[LARGEST + V_WIDTH];
    for (int64_t t = scan->indptr[sequence]; t < scan->indptr[sequence + 1]; t++) {
        float given[V_WIDTH], dt;
        v_store(given, v_dt_step(&rule, v_load_as_n(scan->dt.data, t * scan->dt.row_stride + head, scan->dt.dtype, 1)));
        dt = given[0];
        load_row(token.c, c->data, t * c->token_stride + group * c->head_stride, c->dtype, size);
        if (dt != 0.0f) {
            kept++;
            v_store(given, v_exp(v_set1(dt * scan->a[head])));
            token.decay = given[0];
            load_row(token.b, b->data, t * b->token_stride + group * b->head_stride, b->dtype, size);
            load_row(token.input, x->data, t * x->token_stride + head * x->head_stride, x->dtype, rows);
            for (int64_t p = 0; p < rows; p += V_WIDTH) {
                v_store(token.input + p, v_mul(v_set1(dt), v_load(token.input + p)));
            }
            step_head(&token, state, rows, size, sums, 1);
        } else {
            step_head(&token, state, rows, size, sums, 0);
        }
        store_output(scan, t, head, sums);
    }
    if (scan->kept) scan->kept[sequence * scan->heads + head] = kept;
}
