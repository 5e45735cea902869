/* selective_support.h: random calls of the selective scan and its update, for the tests of both. */
#ifndef LSPAN_TEST_SELECTIVE_SUPPORT_H
#define LSPAN_TEST_SELECTIVE_SUPPORT_H

#include "support.h"

typedef struct scan_spec {
    int64_t sequences;
    int64_t longest;
    int64_t groups;
    int64_t group_channels;
    int64_t state_size;
    lspan_dtype input_dtype;
    lspan_dtype dt_dtype;
    lspan_dtype b_dtype;
    lspan_dtype c_dtype;
    lspan_dtype output_dtype;
    int biased;
    int softplus;
    int clamped;
    int filtered; /* 1: scales, 2: thresholds, 3: both */
    int per_sequence;
    int has_d;
    int gate; /* 1: of its own memory, 2: the output's */
    int initial;
} scan_spec;

/* A call and what it points to; the output and states are made for each context. */
typedef struct scan_case {
    lspan_selective_scan call;
    lspan_dt_filter filter;
    int64_t *indptr;
    int64_t rows;
    test_tensor input, dt, b, c, gate;
    test_buffer a, d, bias, scales, thresholds, initial;
} scan_case;

static inline test_buffer scan_floats(int64_t count, float low, float high)
{
    test_buffer buffer = test_allocate((size_t)count * sizeof(float), sizeof(float));
    for (int64_t i = 0; i < count; i++) ((float *)buffer.data)[i] = low + (high - low) * (float)test_random_unit();
    return buffer;
}

/* Raw steps and biases are multiples of a half and thresholds lie between the steps that those give, so that rounding moves
 * no step across one. */
static inline scan_case make_scan(const scan_spec *s)
{
    scan_case k = {0};
    int64_t channels = s->groups * s->group_channels, states = channels * s->state_size;
    k.indptr = test_malloc(s->sequences + 1, sizeof *k.indptr);
    k.indptr[0] = 0;
    for (int64_t b = 0; b < s->sequences; b++) {
        k.indptr[b + 1] = k.indptr[b] + (test_one_in(5) ? 0 : test_random_int(1, s->longest));
    }
    k.rows = k.indptr[s->sequences];
    k.input = test_tensor_random(s->input_dtype, k.rows, 1, channels, test_random_layout(), 1);
    k.dt = test_tensor_make(s->dt_dtype, k.rows, 1, channels, test_random_layout());
    for (int64_t t = 0; t < k.rows; t++) {
        for (int64_t e = 0; e < channels; e++) {
            test_set(&k.dt, t, 0, e, 0.5f * (float)test_random_int(s->softplus ? -12 : 0, 2));
        }
    }
    k.b = test_tensor_random(s->b_dtype, k.rows, s->groups, s->state_size, test_random_layout(), 1);
    k.c = test_tensor_random(s->c_dtype, k.rows, s->groups, s->state_size, test_random_layout(), 1);
    k.gate = test_tensor_random(s->output_dtype, k.rows, 1, channels, test_random_layout(), 2);
    k.a = scan_floats(states, -8, 0);
    for (int64_t i = 0; i < states; i += 7) ((float *)k.a.data)[i] *= 1e-3f;
    k.d = scan_floats(channels, -1, 1);
    k.bias = scan_floats(channels, 0, 3);
    float *bias = k.bias.data;
    for (int64_t e = 0; e < channels; e++) bias[e] = 0.5f * floorf(bias[e]);
    k.scales = scan_floats(s->sequences * channels, 0.25f, 1.5f);
    k.thresholds = scan_floats(s->sequences * channels, -4, 2);
    float *thresholds = k.thresholds.data;
    for (int64_t i = 0; i < s->sequences * channels; i++) {
        double raw = floor((double)thresholds[i]) * 0.5 + 0.25;
        thresholds[i] = (float)(s->softplus ? log1p(exp(raw)) : raw);
    }
    k.initial = scan_floats(s->sequences * (states + 3), -1, 1);
    k.filter = (lspan_dt_filter){
        .scales = s->filtered & 1 ? k.scales.data : NULL, .thresholds = s->filtered & 2 ? thresholds : NULL,
        .sequence_stride = s->per_sequence ? channels : 0};
    k.call = (lspan_selective_scan){
        .sequences = s->sequences, .indptr = k.indptr, .channels = channels, .state_size = s->state_size,
        .groups = s->groups, .input = test_matrix(&k.input), .dt = test_matrix(&k.dt),
        .rule = {.bias = s->biased ? bias : NULL, .softplus = s->softplus, .minimum = s->clamped ? 0.002f : 0,
                 .maximum = s->clamped ? 1.1f : INFINITY, .filter = NULL},
        .a = k.a.data, .b = test_heads(&k.b), .c = test_heads(&k.c), .d = s->has_d ? k.d.data : NULL,
        .initial_state = s->initial ? k.initial.data : NULL, .state_stride = states + 3};
    if (s->gate) k.call.gate = test_matrix(&k.gate);
    return k;
}

static inline void release_scan(scan_case *k)
{
    test_tensor *tensors[] = {&k->input, &k->dt, &k->b, &k->c, &k->gate};
    test_buffer *buffers[] = {&k->a, &k->d, &k->bias, &k->scales, &k->thresholds, &k->initial};
    for (int i = 0; i < 5; i++) test_tensor_release(tensors[i]);
    for (int i = 0; i < 6; i++) test_release(buffers[i]);
    free(k->indptr);
}

/* The call with a workspace of just the size asked for. */
static inline lspan_status run_scan(const lspan_context *context, const lspan_selective_scan *call)
{
    size_t bytes = 0;
    lspan_status status = lspan_selective_scan_workspace_size(context, call, &bytes);
    if (status != lspan_status_ok) return status;
    test_buffer workspace = test_allocate(bytes, LSPAN_WORKSPACE_ALIGNMENT);
    status = lspan_selective_scan_run(context, call, workspace.data, workspace.bytes);
    test_release(&workspace);
    return status;
}

#endif
