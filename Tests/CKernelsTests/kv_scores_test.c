/* kv_scores_test.c: lag-relative scores against the reference. */
#include "support.h"

typedef struct scores_spec {
    int64_t heads;
    int64_t head_dim;
    int64_t window;
    int64_t windows;
    lspan_dtype dtype;
    test_layout key_layout;
    test_layout value_layout;
    float key_spread;
    float value_spread;
    float mean; /* of both, in standard deviations */
    float value_weight;
    int flat_channels; /* in ten: constant in a window */
    int64_t padding;   /* of the score rows */
} scores_spec;

/* Makes channels constant, each in some windows. */
static void flatten(test_tensor *x, const scores_spec *s)
{
    for (int64_t p = 0; p <= s->windows; p++) {
        for (int64_t h = 0; h < s->heads; h++) {
            for (int64_t d = 0; d < s->head_dim; d++) {
                if (test_random_int(0, 9) >= s->flat_channels) continue;
                float value = test_random_normal();
                for (int64_t t = p * s->window; t < (p + 1) * s->window; t++) test_set(x, t, h, d, value);
            }
        }
    }
}

static test_tensor make_input(const scores_spec *s, test_layout layout, float spread)
{
    test_tensor x = test_tensor_make(s->dtype, (s->windows + 1) * s->window, s->heads, s->head_dim, layout);
    for (int64_t t = 0; t < x.tokens; t++) {
        for (int64_t h = 0; h < s->heads; h++) {
            for (int64_t d = 0; d < s->head_dim; d++) test_set(&x, t, h, d, spread * (s->mean + test_random_normal()));
        }
    }
    flatten(&x, s);
    return x;
}

/* The largest normalized magnitude: no standard deviation is more than twice that. */
static double largest_normalized(const test_tensor *x, const scores_spec *s)
{
    double largest = 0;
    for (int64_t p = 0; p < s->windows; p++) {
        for (int64_t h = 0; h < s->heads; h++) {
            for (int64_t d = 0; d < s->head_dim; d++) {
                double low = INFINITY, high = -INFINITY;
                for (int64_t t = (p + 1) * s->window; t < (p + 2) * s->window; t++) {
                    low = fmin(low, (double)test_get(x, t, h, d));
                    high = fmax(high, (double)test_get(x, t, h, d));
                }
                for (int64_t t = p * s->window; high > low && t < (p + 1) * s->window; t++) {
                    largest = fmax(largest, fabs(((double)test_get(x, t, h, d) - low) / (high - low)));
                }
            }
        }
    }
    return largest;
}

/* Scores [heads, P * W] of the call, from a workspace of exactly the size asked for. */
static float *run_scores(const lspan_context *context, lspan_lag_scores call, int64_t padding)
{
    int64_t tokens = call.windows * call.window;
    call.score_head_stride = tokens + padding;
    int64_t count = tokens == 0 ? 0 : (call.heads - 1) * call.score_head_stride + tokens;
    test_buffer scores = test_allocate((size_t)count * sizeof(float), sizeof(float));
    size_t bytes = 99;
    CHECK_OK(lspan_lag_scores_workspace_size(context, &call, &bytes));
    test_buffer workspace = test_allocate(bytes, LSPAN_WORKSPACE_ALIGNMENT);
    call.scores = scores.data;
    CHECK_OK(lspan_lag_scores_run(context, &call, workspace.data, bytes));
    float *got = test_malloc(call.heads * tokens, sizeof *got);
    const float *written = scores.data;
    for (int64_t h = 0; h < call.heads && tokens > 0; h++) {
        memcpy(got + h * tokens, written + h * call.score_head_stride, (size_t)tokens * sizeof *got);
        if (h + 1 < call.heads) {
            CHECK(test_is_untouched(written + h * call.score_head_stride + tokens, (size_t)padding * sizeof *got));
        }
    }
    test_release(&scores);
    test_release(&workspace);
    return got;
}

static lspan_lag_scores call_of(const scores_spec *s, const test_tensor *keys, const test_tensor *values)
{
    return (lspan_lag_scores){
        .heads = s->heads, .head_dim = s->head_dim, .window = s->window, .windows = s->windows,
        .keys = test_heads(keys), .values = test_heads(values), .value_weight = s->value_weight};
}

static void check_scores(const scores_spec *s)
{
    test_case(
        "lag_scores H%lld D%lld W%lld P%lld dtype%d layouts %d%d spreads %g %g mean%g weight%g flat%d",
        (long long)s->heads, (long long)s->head_dim, (long long)s->window, (long long)s->windows, (int)s->dtype,
        (int)s->key_layout, (int)s->value_layout, (double)s->key_spread, (double)s->value_spread, (double)s->mean,
        (double)s->value_weight, s->flat_channels);
    test_tensor keys = make_input(s, s->key_layout, s->key_spread), values = make_input(s, s->value_layout, s->value_spread);
    lspan_lag_scores call = call_of(s, &keys, &values);
    int64_t count = s->heads * s->windows * s->window;
    double *want = test_malloc(count, sizeof *want);
    float *simple = test_malloc(count, sizeof *simple);
    lspan_reference_lag_scores_f64(&call, want);
    lspan_reference_lag_scores_f32(&call, simple);
    double sigma = 2 * fmax(largest_normalized(&keys, s), largest_normalized(&values, s));
    /* a share's relative error is the absolute error of its sigma, which is some roundings of the largest normalized
     * value, and those of the exponential, the sum and the division */
    double floor = test_largest(want, count) * test_epsilon(lspan_dtype_f32) * (8 + 4 * sigma);
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        float *got = run_scores(contexts[i].context, call, s->padding);
        test_check_errors("lag_scores", contexts[i].name, lspan_dtype_f32, got, want, simple, count, floor);
        free(got);
    }
    test_tensor_release(&keys);
    test_tensor_release(&values);
    free(want);
    free(simple);
}

static scores_spec random_spec(void)
{
    static const int64_t dims[] = {1, 2, 3, 16, 31, 32, 33, 64, 80, 96, 128, 160};
    scores_spec s = {.key_spread = 1, .value_spread = 1, .value_weight = 1};
    s.heads = test_random_int(1, 5);
    s.head_dim = test_one_in(3) ? test_random_int(1, 150) : dims[test_random_int(0, 11)];
    s.window = test_one_in(6) ? 1 : test_random_int(1, 37);
    s.windows = test_one_in(8) ? 0 : test_random_int(1, 3);
    if (test_one_in(10)) s.windows = 23;
    s.dtype = test_random_dtype();
    s.key_layout = test_random_layout();
    s.value_layout = test_random_layout();
    if (test_one_in(3)) s.value_spread = test_one_in(2) ? 1e-4f : 3000;
    if (test_one_in(3)) s.key_spread = test_one_in(2) ? 1e-3f : 300;
    if (test_one_in(3)) s.mean = 10;
    if (test_one_in(3)) s.value_weight = test_one_in(2) ? 0 : 2.5f;
    if (test_one_in(3)) s.flat_channels = test_one_in(3) ? 10 : (int)test_random_int(1, 9);
    s.padding = test_random_int(0, 3);
    if (s.windows > 3) {
        s.window = test_random_int(1, 6);
        s.head_dim = test_random_int(1, 70);
    }
    return s;
}

/* Every channel constant in the next window, one channel, or one token: shares are equal, to the last bit. */
static void test_equal_shares(void)
{
    size_t count;
    const test_context *contexts = test_contexts(&count);
    for (int kind = 0; kind < 3; kind++) {
        scores_spec s = {
            .heads = 2, .head_dim = kind == 1 ? 1 : 40, .window = kind == 2 ? 1 : 8, .windows = 3, .key_spread = 1,
            .value_spread = 1, .value_weight = 0.5f, .flat_channels = kind == 0 ? 10 : 0};
        test_case("equal shares, kind %d", kind);
        test_tensor keys = make_input(&s, 0, 1), values = make_input(&s, 0, 1);
        for (size_t i = 0; i < count; i++) {
            float *got = run_scores(contexts[i].context, call_of(&s, &keys, &values), 0);
            for (int64_t j = 0; j < s.heads * s.windows * s.window; j++) CHECK(got[j] == 1.5f / (float)s.window);
            free(got);
        }
        test_tensor_release(&keys);
        test_tensor_release(&values);
    }
}

/* A NaN or an infinity spoils the scores of its own window and of the one before it, in its own head, and no others. */
static void test_spoiled_window(void)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    scores_spec s = {
        .heads = 3, .head_dim = 70, .window = 9, .windows = 5, .key_spread = 1, .value_spread = 1, .value_weight = 1};
    size_t count;
    const test_context *contexts = test_contexts(&count);
    test_tensor keys = make_input(&s, 1, 1), values = make_input(&s, 0, 1);
    for (int kind = 0; kind < 6; kind++) {
        test_case("a window with %g in the %s", (double)bad[kind % 3], kind < 3 ? "keys" : "values");
        test_tensor spoiled = test_tensor_copy(kind < 3 ? &keys : &values);
        test_set(&spoiled, 2 * s.window + 4, 1, 33, bad[kind % 3]);
        lspan_lag_scores clean = call_of(&s, &keys, &values), other = clean;
        if (kind < 3) other.keys = test_heads(&spoiled);
        else other.values = test_heads(&spoiled);
        for (size_t i = 0; i < count; i++) {
            float *want = run_scores(contexts[i].context, clean, 0), *got = run_scores(contexts[i].context, other, 0);
            for (int64_t j = 0; j < s.heads * s.windows * s.window; j++) {
                int64_t head = j / (s.windows * s.window), window = j / s.window % s.windows;
                if (head != 1 || window < 1 || window > 2) CHECK(got[j] == want[j]);
            }
            free(want);
            free(got);
        }
        test_tensor_release(&spoiled);
    }
    test_tensor_release(&keys);
    test_tensor_release(&values);
}

int main(void)
{
    for (int i = 0; i < 200; i++) {
        scores_spec s = random_spec();
        check_scores(&s);
    }
    /* one window of many tokens: the row of scores is longer than a vector in every variant, and ends within one */
    scores_spec large = {
        .heads = 2, .head_dim = 128, .window = 301, .windows = 1, .dtype = lspan_dtype_bf16, .key_spread = 1,
        .value_spread = 5, .value_weight = 1, .key_layout = test_layout_head_major,
        .value_layout = test_layout_head_major};
    check_scores(&large);
    large.dtype = lspan_dtype_f32;
    large.heads = 13;
    large.window = 65;
    check_scores(&large);
    test_equal_shares();
    test_spoiled_window();
    return test_finish("kv_scores_test");
}
