/* ssd_support.h: random calls of the SSD scan, and running them. */
#ifndef LSPAN_TEST_SSD_SUPPORT_H
#define LSPAN_TEST_SSD_SUPPORT_H

#include "support.h"

typedef struct ssd_spec {
    int64_t sequences;
    int64_t longest; /* tokens */
    int64_t heads;
    int64_t groups;
    int64_t head_dim;
    int64_t state_size;
    lspan_dtype x, dt, bc, z, y;
    int skip;     /* D */
    int gated;
    int initial;
    int filtered; /* per-sequence thresholds and scales */
} ssd_spec;

/* A call's inputs; outputs are the test's. */
typedef struct ssd_case {
    ssd_spec spec;
    int64_t *indptr;
    int64_t tokens;
    test_tensor x, dt, b, c, z;
    float *a, *d, *bias, *scales, *thresholds, *state;
    lspan_dt_filter filter;
    lspan_ssd_scan call;
} ssd_case;

static inline int64_t ssd_states(const ssd_spec *s)
{
    return s->sequences * s->heads * s->head_dim * s->state_size;
}

/* Thresholds between two steps of a head that are far enough apart for no rounding to matter. */
static inline void ssd_choose_thresholds(ssd_case *c, float share)
{
    const ssd_spec *s = &c->spec;
    for (int64_t b = 0; b < s->sequences; b++) {
        for (int64_t h = 0; h < s->heads; h++) {
            int64_t first = c->indptr[b], count = c->indptr[b + 1] - first, best = -1;
            double *steps = test_malloc(count + 1, sizeof *steps);
            for (int64_t t = 0; t < count; t++) {
                double x = (double)test_get(&c->dt, first + t, 0, h);
                lspan_dt_rule plain = c->call.rule;
                plain.filter = NULL;
                steps[t] = lspan_reference_dt_step_f64(&plain, b, h, x);
                for (int64_t i = t; i > 0 && steps[i - 1] > steps[i]; i--) {
                    double swap = steps[i];
                    steps[i] = steps[i - 1];
                    steps[i - 1] = swap;
                }
            }
            for (int64_t t = 0; t + 1 < count; t++) {
                int apart = steps[t + 1] - steps[t] > 1e-4 * steps[t + 1];
                if (apart && (best < 0 || (float)t <= (1 - share) * (float)count)) best = t;
            }
            c->thresholds[b * s->heads + h] = best < 0 ? 0 : (float)((steps[best] + steps[best + 1]) / 2);
            free(steps);
        }
    }
}

static inline ssd_case ssd_make(const ssd_spec *s)
{
    ssd_case c = {.spec = *s};
    c.indptr = test_malloc(s->sequences + 1, sizeof *c.indptr);
    c.indptr[0] = 0;
    for (int64_t b = 0; b < s->sequences; b++) {
        int64_t tokens = b == 0 ? s->longest : test_one_in(3) ? 0 : test_random_int(0, s->longest);
        c.indptr[b + 1] = c.indptr[b] + tokens;
    }
    c.tokens = c.indptr[s->sequences];
    c.x = test_tensor_random(s->x, c.tokens, s->heads, s->head_dim, test_random_layout(), 1);
    c.dt = test_tensor_random(s->dt, c.tokens, 1, s->heads, test_layout_padded_token_major, 1.5f);
    c.b = test_tensor_random(s->bc, c.tokens, s->groups, s->state_size, test_random_layout(), 1);
    c.c = test_tensor_random(s->bc, c.tokens, s->groups, s->state_size, test_random_layout(), 1);
    c.z = test_tensor_random(s->z, c.tokens, s->heads, s->head_dim, test_random_layout(), 1);
    c.a = test_floats(s->heads, 4);
    c.d = test_floats(s->heads, 1);
    c.bias = test_floats(s->heads, 1);
    c.scales = test_floats(s->sequences * s->heads, 1);
    c.thresholds = test_floats(s->sequences * s->heads, 1);
    c.state = test_floats(ssd_states(s), 1);
    for (int64_t h = 0; h < s->heads; h++) {
        c.a[h] = -fabsf(c.a[h]);
        c.bias[h] -= 2;
    }
    for (int64_t i = 0; i < s->sequences * s->heads; i++) c.scales[i] = fabsf(c.scales[i]) + 0.1f;
    c.call = (lspan_ssd_scan){
        .sequences = s->sequences, .indptr = c.indptr, .heads = s->heads, .head_dim = s->head_dim,
        .state_size = s->state_size, .groups = s->groups, .input = test_heads(&c.x), .dt = test_matrix(&c.dt),
        .rule = {.bias = c.bias, .softplus = 1, .minimum = 0, .maximum = test_one_in(3) ? 0.5f : INFINITY},
        .a = c.a, .b = test_heads(&c.b), .c = test_heads(&c.c), .d = s->skip ? c.d : NULL,
        .initial_state = s->initial ? c.state : NULL,
        .state_stride = s->heads * s->head_dim * s->state_size};
    if (s->gated) c.call.gate = test_heads(&c.z);
    if (s->filtered) ssd_choose_thresholds(&c, test_one_in(2) ? 0.1f : 0.6f);
    return c;
}

/* The filter is a part of the case, which has its place only now. */
static inline void ssd_set_filter(ssd_case *c)
{
    c->filter = (lspan_dt_filter){c->scales, c->thresholds, c->spec.heads};
    c->call.rule.filter = c->spec.filtered ? &c->filter : NULL;
}

static inline void ssd_free(ssd_case *c)
{
    test_tensor_release(&c->x);
    test_tensor_release(&c->dt);
    test_tensor_release(&c->b);
    test_tensor_release(&c->c);
    test_tensor_release(&c->z);
    free(c->indptr), free(c->a), free(c->d), free(c->bias), free(c->scales), free(c->thresholds), free(c->state);
}

/* Runs a scan with the workspace it asks for, behind guard pages. */
static inline lspan_status ssd_run(const lspan_context *context, const lspan_ssd_scan *call)
{
    size_t bytes = 0;
    CHECK_OK(lspan_ssd_scan_workspace_size(context, call, &bytes));
    test_buffer workspace = test_allocate(bytes, LSPAN_WORKSPACE_ALIGNMENT);
    lspan_status status = lspan_ssd_scan_run(context, call, workspace.data, bytes);
    test_release(&workspace);
    return status;
}

#endif
