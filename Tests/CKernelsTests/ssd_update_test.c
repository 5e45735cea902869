/* ssd_update_test.c: the SSD update against the recurrence, and what holds between calls: splits, skipped tokens, long runs. */
#include "ssd_support.h"

static const ssd_spec usual = {
    .sequences = 2, .longest = 150, .heads = 4, .groups = 2, .head_dim = 20, .state_size = 18, .skip = 1, .gated = 1, .initial = 1};

/* Outputs of one run of a case: y [sum L, H, P] and states, f32. */
typedef struct outcome {
    float *y, *state;
    int64_t outputs, states;
} outcome;

static outcome make_outcome(const ssd_case *c)
{
    outcome o = {.outputs = c->tokens * c->spec.heads * c->spec.head_dim, .states = ssd_states(&c->spec)};
    o.y = test_malloc(o.outputs, sizeof *o.y);
    o.state = test_malloc(o.states, sizeof *o.state);
    return o;
}

static lspan_ssd_scan to_outcome(const ssd_case *c, const outcome *o, lspan_ssd_form form)
{
    lspan_ssd_scan call = c->call;
    call.output = (lspan_heads_out){o->y, lspan_dtype_f32, c->spec.heads * c->spec.head_dim, c->spec.head_dim};
    call.final_state = o->state;
    call.form = form;
    return call;
}

static outcome scan(const ssd_case *c, const lspan_context *context, lspan_ssd_form form)
{
    outcome o = make_outcome(c);
    lspan_ssd_scan call = to_outcome(c, &o, form);
    CHECK_OK(ssd_run(context, &call));
    return o;
}

static void free_outcome(outcome *o)
{
    free(o->y), free(o->state);
}

static void check_close(const float *got, const float *want, int64_t count, const char *what)
{
    double largest = 1e-30;
    for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs((double)want[i]));
    for (int64_t i = 0; i < count; i++) {
        double error = fabs((double)got[i] - (double)want[i]);
        if (!CHECK_MESSAGE(error <= 1e-5 * largest, "%s: element %lld is %g, not %g", what, (long long)i, (double)got[i], (double)want[i])) return;
    }
}

static void check_same(const outcome *a, const outcome *b, const char *what)
{
    CHECK_MESSAGE(memcmp(a->y, b->y, (size_t)a->outputs * sizeof(float)) == 0, "%s: outputs differ", what);
    CHECK_MESSAGE(memcmp(a->state, b->state, (size_t)a->states * sizeof(float)) == 0, "%s: states differ", what);
}

/* ---- Updates ----------------------------------------------------------------------------------------- */

static void check_update(const ssd_spec *s)
{
    if (!test_sampled()) return;
    test_case("ssd_update B%lld H%lld P%lld N%lld x%d bc%d filter%d", (long long)s->sequences, (long long)s->heads,
        (long long)s->head_dim, (long long)s->state_size, (int)s->x, (int)s->bc, s->filtered);
    ssd_case c = ssd_make(s);
    ssd_set_filter(&c);
    outcome o = make_outcome(&c), simple = make_outcome(&c);
    double *y = test_malloc(o.outputs, sizeof *y), *state = test_malloc(o.states, sizeof *state);
    lspan_reference_ssd_f64(&c.call, y, state, NULL);
    lspan_reference_ssd_f32(&c.call, simple.y, simple.state, NULL);
    size_t count;
    const test_context *contexts = test_contexts(&count);
    for (size_t i = 0; i < count; i++) {
        lspan_ssd_scan call = to_outcome(&c, &o, lspan_ssd_form_automatic);
        if (s->initial && test_one_in(2)) {
            memcpy(o.state, c.state, (size_t)o.states * sizeof(float));
            call.initial_state = o.state;
        }
        CHECK_OK(lspan_ssd_update(contexts[i].context, &call));
        double floor = 8 * test_epsilon(lspan_dtype_f32);
        test_check_errors("ssd_update", contexts[i].name, lspan_dtype_f32, o.y, y, simple.y, o.outputs, floor * test_largest(y, o.outputs));
        test_check_errors(
            "ssd_update state", contexts[i].name, lspan_dtype_f32, o.state, state, simple.state, o.states,
            floor * test_largest(state, o.states));
    }
    free(y), free(state);
    free_outcome(&o);
    free_outcome(&simple);
    ssd_free(&c);
}

static void check_updates(void)
{
    static const int64_t sizes[] = {1, 3, 16, 17, 64, 100, 128, 256};
    for (int i = 0; i < 64; i++) {
        ssd_spec s = {.sequences = test_random_int(1, 4), .longest = i % 3 == 0 ? 1 : test_random_int(0, 8), .groups = 1 + i % 2};
        s.heads = s.groups * test_random_int(1, 4);
        s.head_dim = sizes[i % 8];
        s.state_size = sizes[i / 8];
        s.x = test_random_dtype();
        s.bc = test_random_dtype();
        s.dt = test_random_dtype();
        s.z = test_random_dtype();
        s.skip = test_one_in(2);
        s.gated = test_one_in(2);
        s.initial = !test_one_in(3);
        s.filtered = test_one_in(3);
        check_update(&s);
    }
}

/* ---- Splits ------------------------------------------------------------------------------------------ */

/* The rows of a case's only sequence from `first` on. */
static lspan_ssd_scan rows_from(lspan_ssd_scan call, int64_t first, const int64_t *indptr)
{
    call.indptr = indptr;
    call.input.data = (const float *)call.input.data + first * call.input.token_stride;
    call.dt.data = (const float *)call.dt.data + first * call.dt.row_stride;
    call.b.data = (const float *)call.b.data + first * call.b.token_stride;
    call.c.data = (const float *)call.c.data + first * call.c.token_stride;
    call.gate.data = (const float *)call.gate.data + first * call.gate.token_stride;
    call.output.data = (float *)call.output.data + first * call.output.token_stride;
    return call;
}

/* A scan, a second one from its state, and updates of what is left give what one scan gives. */
static void check_splits(const lspan_context *context, lspan_ssd_form form)
{
    ssd_spec s = usual;
    s.sequences = 1;
    ssd_case c = ssd_make(&s);
    ssd_set_filter(&c);
    outcome whole = scan(&c, context, form);
    static const int64_t cuts[] = {0, 1, 63, 64, 65, 100, 128, 147};
    for (int i = 0; i < 8; i++) {
        outcome parts = make_outcome(&c);
        lspan_ssd_scan call = to_outcome(&c, &parts, form);
        int64_t begin[2] = {0, cuts[i]}, middle[2] = {0, 147 - cuts[i]}, rest[2] = {0, 3};
        call.indptr = begin;
        CHECK_OK(ssd_run(context, &call));
        call.initial_state = parts.state;
        lspan_ssd_scan second = rows_from(call, cuts[i], middle), last = rows_from(call, 147, rest);
        CHECK_OK(ssd_run(context, &second));
        CHECK_OK(lspan_ssd_update(context, &last));
        check_close(parts.y, whole.y, whole.outputs, "y of a split scan");
        check_close(parts.state, whole.state, whole.states, "state of a split scan");
        free_outcome(&parts);
    }
    free_outcome(&whole);
    ssd_free(&c);
}

/* ---- Skipped tokens ----------------------------------------------------------------------------------- */

static void set_rows(test_tensor *tensor, int64_t token, int64_t head, float value)
{
    for (int64_t i = 0; i < tensor->columns; i++) test_set(tensor, token, head, i, value);
}

static void check_filters(const lspan_context *context, lspan_ssd_form form, int bf16)
{
    ssd_spec s = usual;
    if (bf16) s.x = s.bc = lspan_dtype_bf16;
    ssd_case c = ssd_make(&s);
    outcome plain = scan(&c, context, form);
    c.filter = (lspan_dt_filter){NULL, c.thresholds, 0};
    c.call.rule.filter = &c.filter;
    for (int64_t h = 0; h < s.heads; h++) c.thresholds[h] = -1;
    outcome all = scan(&c, context, form);
    check_same(&plain, &all, "a filter that keeps all");
    for (int64_t h = 0; h < s.heads; h++) c.thresholds[h] = INFINITY;
    outcome none = scan(&c, context, form);
    CHECK_MESSAGE(
        memcmp(none.state, c.state, (size_t)none.states * sizeof(float)) == 0, "a filter that drops all moved the state");

    /* what dropped tokens hold reaches nothing but their own D x */
    s.skip = 0;
    c.call.d = NULL;
    c.filter = (lspan_dt_filter){c.scales, c.thresholds, s.heads};
    ssd_choose_thresholds(&c, 0.3f);
    outcome clean = scan(&c, context, form);
    lspan_dt_rule rule = c.call.rule;
    for (int64_t b = 0; b < s.sequences; b++) {
        for (int64_t t = c.indptr[b]; t < c.indptr[b + 1]; t++) {
            int kept[2] = {0, 0};
            for (int64_t h = 0; h < s.heads; h++) {
                int keeps = lspan_reference_dt_step_f32(&rule, b, h, test_get(&c.dt, t, 0, h)) != 0;
                kept[h / 2] |= keeps;
                if (!keeps) set_rows(&c.x, t, h, t % 2 ? INFINITY : NAN);
            }
            for (int64_t g = 0; g < 2; g++) {
                if (!kept[g]) set_rows(&c.b, t, g, t % 3 ? NAN : INFINITY);
            }
        }
    }
    outcome odd = scan(&c, context, form);
    check_same(&clean, &odd, "infinities in dropped tokens");
    free_outcome(&plain), free_outcome(&all), free_outcome(&none), free_outcome(&clean), free_outcome(&odd);
    ssd_free(&c);
}

/* A token that is not finite, by its step or its input, changes nothing before it. */
static void check_causality(const lspan_context *context, lspan_ssd_form form, int bf16, int what)
{
    ssd_spec s = usual;
    s.sequences = 1;
    s.longest = 100;
    if (bf16) s.x = s.bc = lspan_dtype_bf16;
    ssd_case c = ssd_make(&s);
    outcome clean = scan(&c, context, form);
    int64_t at = test_random_int(0, 99), row = s.heads * s.head_dim;
    for (int64_t h = 0; h < s.heads; h++) {
        if (what == 0) test_set(&c.dt, at, 0, h, NAN);
        else if (what == 1) set_rows(&c.x, at, h, INFINITY);
        else set_rows(&c.b, at, h / 2, NAN);
    }
    outcome odd = scan(&c, context, form);
    CHECK_MESSAGE(
        memcmp(clean.y, odd.y, (size_t)(at * row) * sizeof(float)) == 0, "token %lld of kind %d reached one before it",
        (long long)at, what);
    for (int64_t i = 0; what != 1 && i < odd.states; i++) CHECK(isnan(odd.state[i]));
    for (int64_t i = at * row; what != 1 && i < odd.outputs; i++) CHECK(isnan(odd.y[i]));
    free_outcome(&clean), free_outcome(&odd);
    ssd_free(&c);
}

/* ---- Long runs --------------------------------------------------------------------------------------- */

/* A million tokens with steps and decays of all sizes. */
static void check_long_run(const lspan_context *context, lspan_ssd_form form)
{
    if (!test_sampled()) return;
    enum { tokens = 1000000, heads = 2, rows = 2, states = 2 };
    test_case("a million tokens, form %d", (int)form);
    float *x = test_floats(tokens * heads * rows, 1), *b = test_floats(tokens * states, 1);
    float *c = test_floats(tokens * states, 1), *dt = test_floats(tokens * heads, 1);
    float *y = test_malloc(tokens * heads * rows, sizeof *y), state[heads * rows * states], a[heads] = {-1e-3f, -32};
    for (int64_t i = 0; i < tokens * heads; i++) dt[i] = (float)exp(log(1e-6) + test_random_unit() * log(2e7));
    int64_t indptr[2] = {0, tokens};
    lspan_ssd_scan call = {
        .sequences = 1, .indptr = indptr, .heads = heads, .head_dim = rows, .state_size = states, .groups = 1,
        .input = {x, lspan_dtype_f32, heads * rows, rows}, .dt = {dt, lspan_dtype_f32, heads},
        .rule = {.maximum = INFINITY}, .a = a, .b = {b, lspan_dtype_f32, states, 0}, .c = {c, lspan_dtype_f32, states, 0},
        .final_state = state, .state_stride = heads * rows * states,
        .output = {y, lspan_dtype_f32, heads * rows, rows}, .form = form};
    double *want = test_malloc(tokens * heads * rows, sizeof *want), want_state[heads * rows * states];
    lspan_reference_ssd_f64(&call, want, want_state, NULL);
    CHECK_OK(ssd_run(context, &call));
    double worst = 0, largest = test_largest(want, tokens * heads * rows);
    for (int64_t i = 0; i < tokens * heads * rows; i++) {
        if (!CHECK_MESSAGE(isfinite(y[i]), "output %lld is %g", (long long)i, (double)y[i])) break;
        worst = fmax(worst, fabs((double)y[i] - want[i]));
    }
    CHECK_MESSAGE(worst <= 1e-5 * largest, "error %g of outputs up to %g", worst, largest);
    for (int64_t i = 0; i < heads * rows * states; i++) CHECK(fabs((double)state[i] - want_state[i]) <= 1e-5 * largest);
    free(x), free(b), free(c), free(dt), free(y), free(want);
}

/* The form of a call that names none. */
static void check_automatic(const lspan_context *context)
{
    ssd_spec s = usual;
    ssd_case c = ssd_make(&s);
    lspan_ssd_form form = lspan_ssd_form_automatic;
    CHECK_OK(lspan_ssd_scan_form(context, &c.call, &form));
    CHECK(form == lspan_ssd_form_chunked);
    outcome named = scan(&c, context, form), automatic = scan(&c, context, lspan_ssd_form_automatic);
    check_same(&named, &automatic, "the automatic form");
    int64_t few[3] = {0, 1, 3};
    c.call.indptr = few;
    CHECK_OK(lspan_ssd_scan_form(context, &c.call, &form));
    CHECK(form == lspan_ssd_form_recurrent);
    c.call.form = lspan_ssd_form_chunked;
    CHECK_OK(lspan_ssd_scan_form(context, &c.call, &form));
    CHECK(form == lspan_ssd_form_chunked);
    free_outcome(&named), free_outcome(&automatic);
    ssd_free(&c);
}

int main(void)
{
    check_updates();
    size_t count;
    const test_context *contexts = test_contexts(&count);
    for (size_t i = 0; i < count; i++) {
        for (int form = lspan_ssd_form_recurrent; form <= lspan_ssd_form_chunked; form++) {
            test_case("%s, form %d", contexts[i].name, form);
            check_splits(contexts[i].context, (lspan_ssd_form)form);
            for (int bf16 = 0; bf16 < 2; bf16++) {
                check_filters(contexts[i].context, (lspan_ssd_form)form, bf16);
                for (int what = 0; what < 3; what++) check_causality(contexts[i].context, (lspan_ssd_form)form, bf16, what);
            }
        }
        check_automatic(contexts[i].context);
        if (contexts[i].threads != 1) continue;
        check_long_run(contexts[i].context, lspan_ssd_form_recurrent);
        check_long_run(contexts[i].context, lspan_ssd_form_chunked);
    }
    return test_finish("ssd_update_test");
}
