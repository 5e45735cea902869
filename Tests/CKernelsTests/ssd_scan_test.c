/* ssd_scan_test.c: the SSD scan in both forms against the recurrence in double precision. */
#include "ssd_support.h"

static void describe(const ssd_spec *s)
{
    test_case(
        "ssd B%lld L%lld H%lld G%lld P%lld N%lld x%d dt%d bc%d z%d y%d skip%d gate%d initial%d filter%d",
        (long long)s->sequences, (long long)s->longest, (long long)s->heads, (long long)s->groups,
        (long long)s->head_dim, (long long)s->state_size, (int)s->x, (int)s->dt, (int)s->bc, (int)s->z, (int)s->y,
        s->skip, s->gated, s->initial, s->filtered);
}

/* What a scan should give, and what a straightforward one gives. */
typedef struct expected {
    int64_t outputs, states;
    double *y, *state;
    float *simple_y, *simple_state;
    float *rounded_y, *rounded_state; /* with operands in bf16, where the kernel may have them so */
    int64_t *kept;
} expected;

static expected expect(const ssd_case *c)
{
    const ssd_spec *s = &c->spec;
    expected e = {.outputs = c->tokens * s->heads * s->head_dim, .states = ssd_states(s)};
    e.y = test_malloc(e.outputs, sizeof *e.y);
    e.state = test_malloc(e.states, sizeof *e.state);
    e.simple_y = test_malloc(e.outputs, sizeof *e.simple_y);
    e.simple_state = test_malloc(e.states, sizeof *e.simple_state);
    e.rounded_y = test_malloc(e.outputs, sizeof *e.rounded_y);
    e.rounded_state = test_malloc(e.states, sizeof *e.rounded_state);
    e.kept = test_malloc(s->sequences * s->heads, sizeof *e.kept);
    lspan_reference_ssd_f64(&c->call, e.y, e.state, e.kept);
    lspan_reference_ssd_f32(&c->call, e.simple_y, e.simple_state, NULL);
    if (s->x == lspan_dtype_bf16 && s->bc == lspan_dtype_bf16) {
        lspan_reference_ssd_bf16(&c->call, e.rounded_y, e.rounded_state);
    } else {
        memcpy(e.rounded_y, e.simple_y, (size_t)e.outputs * sizeof(float));
        memcpy(e.rounded_state, e.simple_state, (size_t)e.states * sizeof(float));
    }
    return e;
}

static void free_expected(expected *e)
{
    free(e->y), free(e->state), free(e->simple_y), free(e->simple_state), free(e->rounded_y), free(e->rounded_state);
    free(e->kept);
}

/* One call on one context. In place on the gate, and on the states, now and then. */
static void check_run(const ssd_case *c, const expected *e, const test_context *context, lspan_ssd_form form)
{
    const ssd_spec *s = &c->spec;
    lspan_ssd_scan call = c->call;
    int chunked = form == lspan_ssd_form_chunked;
    test_tensor z = test_tensor_copy(&c->z), y = z;
    int on_gate = s->gated && s->z == s->y && test_one_in(2);
    if (!on_gate) y = test_tensor_make(s->y, c->tokens, s->heads, s->head_dim, test_random_layout());
    if (s->gated) call.gate = test_heads(&z);
    call.output = test_heads_out(&y);
    test_buffer state = test_allocate((size_t)e->states * sizeof(float), sizeof(float));
    test_buffer kept = test_allocate((size_t)(s->sequences * s->heads) * sizeof(int64_t), sizeof(int64_t));
    int final = !test_one_in(4);
    if (final) call.final_state = state.data;
    if (final && s->initial && test_one_in(2)) {
        memcpy(state.data, c->state, state.bytes);
        call.initial_state = state.data;
    }
    call.kept = kept.data;
    call.form = form;
    CHECK_OK(ssd_run(context->context, &call));
    double rounding = s->y == lspan_dtype_f32 ? 0 : 1.01 * test_epsilon(s->y);
    float *got = test_gather(&y);
    test_check_errors(
        chunked ? "ssd_scan chunked" : "ssd_scan recurrent", context->name, s->y, got, e->y,
        chunked ? e->rounded_y : e->simple_y, e->outputs,
        test_largest(e->y, e->outputs) * (16 * test_epsilon(lspan_dtype_f32) + rounding));
    if (final) {
        test_check_errors(
            chunked ? "ssd_scan state chunked" : "ssd_scan state recurrent", context->name, lspan_dtype_f32, state.data,
            e->state, chunked ? e->rounded_state : e->simple_state, e->states,
            test_largest(e->state, e->states) * 16 * test_epsilon(lspan_dtype_f32));
    }
    CHECK(memcmp(kept.data, e->kept, kept.bytes) == 0);
    test_check_gaps(&y);
    free(got);
    test_release(&state);
    test_release(&kept);
    if (!on_gate) test_tensor_release(&y);
    test_tensor_release(&z);
}

static void check_scan(const ssd_spec *s)
{
    if (!test_sampled()) return;
    describe(s);
    ssd_case c = ssd_make(s);
    ssd_set_filter(&c);
    expected e = expect(&c);
    size_t count;
    const test_context *contexts = test_contexts(&count);
    for (size_t i = 0; i < count; i++) {
        check_run(&c, &e, contexts + i, lspan_ssd_form_recurrent);
        check_run(&c, &e, contexts + i, lspan_ssd_form_chunked);
    }
    free_expected(&e);
    ssd_free(&c);
}

static ssd_spec random_spec(void)
{
    static const int64_t sizes[] = {1, 3, 16, 17, 64, 100, 128, 256};
    ssd_spec s = {.sequences = test_random_int(1, 3), .longest = test_random_int(0, 150)};
    s.groups = test_random_int(1, 2);
    s.heads = s.groups * test_random_int(1, 3);
    s.head_dim = sizes[test_random_int(0, 5)];
    s.state_size = sizes[test_random_int(0, 6)];
    s.x = test_random_dtype();
    s.bc = test_one_in(2) ? s.x : test_random_dtype();
    s.dt = test_random_dtype();
    s.z = test_random_dtype();
    s.y = test_one_in(2) ? s.z : test_random_dtype();
    s.skip = !test_one_in(3);
    s.gated = test_one_in(2);
    s.initial = !test_one_in(3);
    s.filtered = test_one_in(2);
    return s;
}

static void check_scans(void)
{
    for (int i = 0; i < 40; i++) {
        ssd_spec s = random_spec();
        if (i % 3 == 0) s.x = s.bc = lspan_dtype_bf16;
        check_scan(&s);
    }
    /* the largest sizes, more heads than a task has, and one head for several workers */
    ssd_spec large = {.sequences = 1, .longest = 70, .heads = 1, .groups = 1, .head_dim = 256, .state_size = 256, .skip = 1};
    check_scan(&large);
    large.x = large.bc = lspan_dtype_bf16;
    check_scan(&large);
    ssd_spec wide = {.sequences = 2, .longest = 67, .heads = 38, .groups = 2, .head_dim = 16, .state_size = 16, .filtered = 1};
    check_scan(&wide);
    ssd_spec none = {.sequences = 0, .longest = 0, .heads = 2, .groups = 1, .head_dim = 3, .state_size = 5};
    check_scan(&none);
}

int main(void)
{
    check_scans();
    return test_finish("ssd_scan_test");
}
