/* selective_scan_test.c: the selective scan and its update against the reference. */
#include "selective_support.h"

static double floor_of(const double *want, int64_t count, int64_t longest, lspan_dtype dtype)
{
    /* sums of up to 256 terms; and a decay's own error, which is the same at every equal step: twice what the reference's
     * rounding leaves is allowed without this, and half an epsilon a token beside it */
    double rounding = dtype == lspan_dtype_f32 ? 0 : 1.01 * test_epsilon(dtype);
    return test_largest(want, count) * ((16 + 0.5 * (double)longest) * test_epsilon(lspan_dtype_f32) + rounding);
}

static void check_scan(const scan_spec *s, int update)
{
    if (!test_sampled()) return;
    scan_case k = make_scan(s);
    int64_t states = k.call.channels * s->state_size, count = k.rows * k.call.channels;
    if (s->filtered) k.call.rule.filter = &k.filter;
    test_case(
        "%s B%lld rows%lld G%lld E%lld N%lld u%d dt%d b%d c%d y%d bias%d softplus%d clamp%d filter%d own%d D%d gate%d initial%d",
        update ? "update" : "scan", (long long)s->sequences, (long long)k.rows, (long long)s->groups,
        (long long)k.call.channels, (long long)s->state_size, (int)s->input_dtype, (int)s->dt_dtype, (int)s->b_dtype,
        (int)s->c_dtype, (int)s->output_dtype, s->biased, s->softplus, s->clamped, s->filtered, s->per_sequence, s->has_d,
        s->gate, s->initial);
    double *want = test_malloc(count, sizeof *want), *want_state = test_malloc(s->sequences * states, sizeof *want);
    float *simple = test_malloc(count, sizeof *simple), *simple_state = test_malloc(s->sequences * states, sizeof *simple);
    int64_t *want_kept = test_malloc(s->sequences * k.call.channels, sizeof *want_kept);
    lspan_reference_selective_scan_f64(&k.call, want, want_state, want_kept);
    lspan_reference_selective_scan_f32(&k.call, simple, simple_state, NULL);
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        lspan_selective_scan call = k.call;
        test_tensor output = s->gate == 2 ? test_tensor_copy(&k.gate)
                                          : test_tensor_make(s->output_dtype, k.rows, 1, k.call.channels, test_random_layout());
        if (s->gate == 2) call.gate = test_matrix(&output);
        call.output = test_matrix_out(&output);
        test_buffer final = test_allocate(k.initial.bytes, sizeof(float));
        test_buffer kept = test_allocate((size_t)(s->sequences * call.channels) * sizeof(int64_t), sizeof(int64_t));
        if (s->initial) memcpy(final.data, k.initial.data, final.bytes);
        if (s->initial && test_one_in(2)) call.initial_state = final.data;
        call.final_state = final.data;
        call.kept = test_one_in(3) ? NULL : kept.data;
        CHECK_OK(update ? lspan_selective_update(contexts[i].context, &call) : run_scan(contexts[i].context, &call));
        float *got = test_gather(&output), *got_state = test_malloc(s->sequences * states, sizeof *got_state);
        for (int64_t b = 0; b < s->sequences; b++) {
            const float *from = (const float *)final.data + b * call.state_stride;
            memcpy(got_state + b * states, from, (size_t)states * sizeof(float));
            const float *gap = s->initial ? (const float *)k.initial.data + b * call.state_stride + states : NULL;
            CHECK(gap ? memcmp(from + states, gap, 12) == 0 : test_is_untouched(from + states, 12));
        }
        const char *name = update ? "selective_update" : "selective_scan";
        test_check_errors(
            name, contexts[i].name, s->output_dtype, got, want, simple, count, floor_of(want, count, s->longest, s->output_dtype));
        test_check_errors(
            name, contexts[i].name, lspan_dtype_f32, got_state, want_state, simple_state, s->sequences * states,
            floor_of(want_state, s->sequences * states, s->longest, lspan_dtype_f32));
        if (call.kept) CHECK(memcmp(kept.data, want_kept, kept.bytes) == 0);
        test_check_gaps(&output);
        free(got), free(got_state);
        test_tensor_release(&output);
        test_release(&final), test_release(&kept);
    }
    free(want), free(want_state), free(simple), free(simple_state), free(want_kept);
    release_scan(&k);
}

/* ---- Properties -------------------------------------------------------------------------------------------- */

enum { tokens = 150, channels = 37, size = 19, states = channels * size };

typedef struct results {
    float output[tokens * channels];
    float state[states];
    int64_t kept[channels];
} results;

/* Tokens first .. end-1 of an f32 case, from `state` on. */
static void run_part(
    const lspan_context *context, const scan_case *k, int64_t first, int64_t end, int update, results *r)
{
    int64_t indptr[2] = {0, end - first};
    lspan_selective_scan call = k->call;
    call.indptr = indptr;
    call.input.data = (const float *)call.input.data + first * call.input.row_stride;
    call.dt.data = (const float *)call.dt.data + first * call.dt.row_stride;
    call.b.data = (const float *)call.b.data + first * call.b.token_stride;
    call.c.data = (const float *)call.c.data + first * call.c.token_stride;
    call.initial_state = call.final_state = r->state;
    call.output = (lspan_matrix_out){r->output + first * channels, lspan_dtype_f32, channels};
    call.kept = r->kept;
    CHECK_OK(update ? lspan_selective_update(context, &call) : run_scan(context, &call));
}

static double worst_difference(const float *a, const float *b, int64_t count)
{
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < count; i++) {
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
        largest = fmax(largest, fabs((double)a[i]));
    }
    return worst / largest;
}

static scan_case plain_case(void)
{
    scan_spec s = {
        .sequences = 1, .longest = tokens, .groups = 1, .group_channels = channels, .state_size = size, .softplus = 1,
        .has_d = 1};
    scan_case k;
    for (;;) {
        k = make_scan(&s);
        if (k.rows == tokens) return k;
        release_scan(&k);
    }
}

/* One call, two calls split anywhere, and a scan followed by updates give the same. */
static void check_splits(const test_context *c, const scan_case *k)
{
    static results whole, parts;
    test_case("selective scan in parts on %s", c->name);
    memset(&whole, 0, sizeof whole);
    run_part(c->context, k, 0, tokens, 0, &whole);
    for (int64_t split = 0; split <= tokens; split += test_random_int(7, 23)) {
        memset(&parts, 0, sizeof parts);
        run_part(c->context, k, 0, split, 0, &parts);
        run_part(c->context, k, split, tokens, 0, &parts);
        CHECK(worst_difference(whole.output, parts.output, tokens * channels) < 1e-5);
        CHECK(worst_difference(whole.state, parts.state, states) < 1e-5);
    }
    memset(&parts, 0, sizeof parts);
    run_part(c->context, k, 0, 90, 0, &parts);
    for (int64_t t = 90; t < tokens;) {
        int64_t step = tokens - t < 8 ? tokens - t : test_random_int(0, 8);
        run_part(c->context, k, t, t + step, 1, &parts);
        t += step;
    }
    CHECK(worst_difference(whole.output, parts.output, tokens * channels) < 1e-5);
    CHECK(worst_difference(whole.state, parts.state, states) < 1e-5);
}

/* Channels that drop every token keep their state bit for bit whatever their inputs are, and the others are as without a
 * filter; a filter that drops nothing changes no bit. */
static void check_skips(const test_context *c, const scan_case *k)
{
    static results plain, filtered;
    float thresholds[channels], first[states];
    test_case("skipped tokens on %s", c->name);
    for (int64_t i = 0; i < states; i++) first[i] = test_random_normal();
    lspan_dt_filter filter = {.thresholds = thresholds};
    for (int update = 0; update < 2; update++) {
        int64_t end = update ? 8 : tokens;
        memset(&plain, 0, sizeof plain);
        memcpy(plain.state, first, sizeof first);
        run_part(c->context, k, 0, end, update, &plain);
        scan_case dropping = *k;
        dropping.call.rule.filter = &filter;
        for (int e = 0; e < channels; e++) thresholds[e] = -1;
        memset(&filtered, 0, sizeof filtered);
        memcpy(filtered.state, first, sizeof first);
        run_part(c->context, &dropping, 0, end, update, &filtered);
        CHECK(memcmp(&plain, &filtered, sizeof plain) == 0);

        test_tensor input = test_tensor_copy(&k->input), b = test_tensor_copy(&k->b);
        for (int e = 0; e < channels; e += 2) {
            thresholds[e] = 1e30f;
            for (int64_t t = 0; t < end; t++) test_set(&input, t, 0, e, test_one_in(2) ? NAN : INFINITY);
        }
        dropping.call.input = test_matrix(&input);
        memcpy(filtered.state, first, sizeof first);
        run_part(c->context, &dropping, 0, end, update, &filtered);
        for (int e = 0; e < channels; e++) {
            const float *want = e % 2 ? plain.state : first;
            CHECK(memcmp(filtered.state + e * size, want + e * size, size * sizeof(float)) == 0);
            CHECK(filtered.kept[e] == (e % 2 ? end : 0));
            for (int64_t t = 0; t < end && e % 2; t++) {
                CHECK(filtered.output[t * channels + e] == plain.output[t * channels + e]);
            }
        }
        for (int e = 0; e < channels; e++) thresholds[e] = 1e30f;
        for (int64_t t = 0; t < end; t++) test_set(&b, t, 0, t % size, t % 2 ? INFINITY : NAN);
        dropping.call.b = test_heads(&b);
        memcpy(filtered.state, first, sizeof first);
        run_part(c->context, &dropping, 0, end, update, &filtered);
        CHECK(memcmp(filtered.state, first, sizeof first) == 0);
        test_tensor_release(&input), test_tensor_release(&b);
    }
}

/* A NaN in dt is kept, and makes that channel's state and what reads it NaN. */
static void check_nan(const test_context *c, const scan_case *k)
{
    static results r;
    float thresholds[channels];
    test_case("a NaN step on %s", c->name);
    for (int e = 0; e < channels; e++) thresholds[e] = 1e30f;
    lspan_dt_filter filter = {.thresholds = thresholds};
    for (int update = 0; update < 2; update++) {
        scan_case odd = *k;
        test_tensor dt = test_tensor_copy(&k->dt);
        test_set(&dt, 3, 0, 5, NAN);
        odd.call.dt = test_matrix(&dt);
        odd.call.rule.filter = &filter;
        memset(&r, 0, sizeof r);
        run_part(c->context, &odd, 0, 8, update, &r);
        for (int e = 0; e < channels; e++) CHECK(r.kept[e] == (e == 5));
        for (int64_t i = 0; i < states; i++) CHECK(!isnan(r.state[i]) == (i / size != 5));
        for (int64_t t = 0; t < 8; t++) CHECK(isnan(r.output[t * channels + 5]) == (t >= 3));
        test_tensor_release(&dt);
    }
}

/* A million steps of every length, decays from slow to at once: no error builds up beyond 1e-4 of the largest output. */
static void check_long_run(const test_context *c)
{
    if (!test_sampled()) return;
    enum { steps = 1000000, lanes = 3, values = 2, all = lanes * values };
    test_case("a long scan on %s", c->name);
    float *u = test_malloc(steps * lanes, sizeof *u), *dt = test_malloc(steps * lanes, sizeof *dt);
    float *b = test_malloc(steps * values, sizeof *b), *y = test_malloc(steps * lanes, sizeof *y);
    float a[all] = {-1e-3f, -32, -0.1f, -1, -4, -1e-2f}, state[all], h0[all];
    int64_t indptr[2] = {0, steps};
    for (int64_t i = 0; i < steps * lanes; i++) {
        u[i] = test_random_normal();
        dt[i] = expf((float)(log(1e-6) + test_random_unit() * (log(20) - log(1e-6))));
    }
    for (int64_t i = 0; i < steps * values; i++) b[i] = test_random_normal();
    for (int i = 0; i < all; i++) h0[i] = 1;
    lspan_selective_scan call = {
        .sequences = 1, .indptr = indptr, .channels = lanes, .state_size = values, .groups = 1,
        .input = {u, lspan_dtype_f32, lanes}, .dt = {dt, lspan_dtype_f32, lanes}, .rule = {.maximum = INFINITY}, .a = a,
        .b = {b, lspan_dtype_f32, values, values}, .c = {b, lspan_dtype_f32, values, values}, .initial_state = h0,
        .final_state = state, .state_stride = all, .output = {y, lspan_dtype_f32, lanes}};
    CHECK_OK(run_scan(c->context, &call));
    double h[all], worst = 0, largest = 0;
    for (int i = 0; i < all; i++) h[i] = 1;
    for (int64_t t = 0; t < steps; t++) {
        for (int e = 0; e < lanes; e++) {
            double sum = 0, step = (double)dt[t * lanes + e];
            for (int i = 0; i < values; i++) {
                double *x = h + e * values + i, g = (double)b[t * values + i];
                *x = exp(step * (double)a[e * values + i]) * *x + step * g * (double)u[t * lanes + e];
                sum += g * *x;
            }
            double error = fabs((double)y[t * lanes + e] - sum);
            if (error > worst || isnan(error)) worst = error;
            largest = fmax(largest, fabs(sum));
        }
    }
    printf("selective_scan_test: a million steps on %s: largest error %.3g of %.3g\n", c->name, worst, largest);
    CHECK(worst <= 1e-4 * largest);
    free(u), free(dt), free(b), free(y);
}

int main(void)
{
    static const int64_t sizes[] = {1, 2, 3, 8, 15, 16, 17, 64, 256};
    for (int i = 0; i < 108; i++) {
        int update = i % 2;
        scan_spec s = {.state_size = sizes[i / 2 % 9]};
        s.sequences = test_one_in(12) ? 0 : test_random_int(1, 4);
        s.longest = update ? 8 : s.state_size > 64 ? 70 : test_one_in(3) ? 150 : 20;
        s.groups = test_one_in(3) ? test_random_int(2, 3) : 1;
        s.group_channels = s.state_size > 64 ? test_random_int(1, 20) : test_random_int(1, test_one_in(4) ? 150 : 40);
        s.input_dtype = test_random_dtype();
        s.dt_dtype = test_random_dtype();
        s.b_dtype = test_random_dtype();
        s.c_dtype = test_random_dtype();
        s.output_dtype = test_random_dtype();
        s.biased = test_one_in(2);
        s.softplus = !test_one_in(3);
        s.clamped = test_one_in(3);
        s.filtered = test_one_in(2) ? (int)test_random_int(1, 3) : 0;
        if (s.clamped) s.filtered &= 1; /* a clamp may move a step onto a threshold */
        s.per_sequence = test_one_in(2);
        s.has_d = test_one_in(2);
        s.gate = (int)test_random_int(0, 2);
        s.initial = test_one_in(2);
        check_scan(&s, update);
    }
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    scan_case k = plain_case();
    for (size_t i = 0; i < contexts_count; i += TEST_THREAD_COUNTS) {
        check_splits(&contexts[i + 1], &k);
        check_skips(&contexts[i], &k);
        check_nan(&contexts[i], &k);
        check_long_run(&contexts[i]);
    }
    release_scan(&k);
    return test_finish("selective_scan_test");
}
