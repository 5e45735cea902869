/* lag_attention_test.c: attention under the mask of lag windows against the reference, and against what it stands for:
 * window after window of dense attention over a cache that is compacted. */
#include "attention_support.h"

typedef struct lag_spec {
    int64_t leading;
    int64_t lag;
    int64_t raw_windows;
    int64_t keep;
} lag_spec;

typedef struct lag_case {
    lag_spec spec;
    int64_t windows; /* that have a list */
    test_buffer kept;
} lag_case;

/* Lists for every window that a key may be in, and with `spare` some that nobody may look at. */
static lag_case make_lag(const lag_spec *spec, const attention_spec *s, int64_t spare)
{
    lag_case l = {.spec = *spec};
    int64_t behind = s->sequences > 0 && s->tokens[0] > 0 ? s->keys[0] - spec->leading : 0;
    int64_t last = behind > 0 ? (behind - 1) / spec->lag : -1;
    int64_t seen = last >= spec->raw_windows ? last - spec->raw_windows + 1 : 0;
    l.windows = seen + spare;
    l.kept = test_allocate((size_t)(s->kv_heads * l.windows * spec->keep) * sizeof(int32_t), sizeof(int32_t));
    int32_t *kept = l.kept.data;
    for (int64_t h = 0; h < s->kv_heads; h++) {
        for (int64_t m = 0; m < seen; m++) {
            int64_t left = spec->keep, at = (h * l.windows + m) * spec->keep;
            for (int64_t i = 0; i < spec->lag; i++) {
                if (test_random_int(1, spec->lag - i) > left) continue;
                kept[at + spec->keep - left--] = (int32_t)(spec->leading + m * spec->lag + i);
            }
        }
    }
    return l;
}

typedef struct lag_mask {
    const lag_case *lag;
    int64_t tokens, keys;
} lag_mask;

/* The mask as sparse.h writes it; that a query sees no later slot is the attention's own part. */
static int64_t times_seen(const void *user, int64_t sequence, int64_t row, int64_t kv_head, int64_t slot)
{
    const lag_mask *mask = user;
    const lag_spec *l = &mask->lag->spec;
    int64_t position = mask->keys - mask->tokens + row;
    (void)sequence;
    if (slot < l->leading || position < l->leading) return 1;
    int64_t m = (position - l->leading) / l->lag, window = (slot - l->leading) / l->lag;
    if (window > m - l->raw_windows) return 1;
    const int32_t *kept = mask->lag->kept.data;
    kept += (kv_head * mask->lag->windows + window) * l->keep;
    for (int64_t i = 0; i < l->keep; i++) {
        if (kept[i] == slot) return 1;
    }
    return 0;
}

static lspan_status run_lag(const void *user, const lspan_context *context, const lspan_attention *call)
{
    const lag_case *l = user;
    lspan_lag_attention a = {
        *call, l->spec.leading, l->spec.lag, l->spec.raw_windows, l->spec.keep, l->windows, l->kept.data};
    size_t bytes = 0;
    lspan_status status = lspan_lag_prefill_workspace_size(context, &a, &bytes);
    if (status != lspan_status_ok) return status;
    test_buffer workspace = test_allocate(bytes, LSPAN_WORKSPACE_ALIGNMENT);
    status = lspan_lag_prefill(context, &a, workspace.data, bytes);
    test_release(&workspace);
    return status;
}

static void check_lag(const attention_spec *spec, const lag_spec *lag, int every_team)
{
    if (!test_sampled()) return;
    attention_case c = attention_make(spec);
    lag_case l = make_lag(lag, spec, test_one_in(3) ? test_random_int(1, 3) : 0);
    lag_mask mask = {&l, spec->tokens[0], spec->keys[0]};
    lspan_reference_keys chosen = {times_seen, &mask};
    /* a window of which all is kept hides nothing */
    attention_refer_over(&c, lag->keep == lag->lag ? NULL : &chosen);
    size_t count;
    const test_context *contexts = test_contexts(&count);
    for (size_t i = 0; i < count; i++) {
        if (!every_team && i % TEST_THREAD_COUNTS != (size_t)(test_random() % TEST_THREAD_COUNTS)) continue;
        attention_check_run(
            &c, &contexts[i], run_lag, &l, attention_rounding(&c, attention_kernel_prefill, contexts[i].name),
            "lag prefill", "lag prefill lse");
    }
    test_release(&l.kept);
    attention_release(&c);
}

/* A spec of what lag attention takes. */
static attention_spec lag_attention_spec(void)
{
    attention_spec s = attention_random_spec();
    s.sequences = test_one_in(30) ? 0 : 1;
    s.causal = 1;
    s.window = 0;
    s.own_lengths = 0;
    if (s.special == attention_special_nan) s.special = attention_special_none;
    return s;
}

static void test_random_windows(void)
{
    for (int i = 0; i < 250; i++) {
        attention_spec s = lag_attention_spec();
        int64_t budget = INT64_C(1000000);
        s.keys[0] = test_one_in(10) ? 0 : test_random_int(1, test_one_in(3) ? 600 : 90);
        int64_t most = budget / (s.kv_heads * s.group * s.head_dim * (s.keys[0] + 1));
        s.tokens[0] = test_one_in(10) ? 0 : test_random_int(1, most < 1 ? 1 : most);
        if (s.tokens[0] > s.keys[0] + 3 && !test_one_in(10)) s.tokens[0] = s.keys[0];
        int64_t keys = s.sequences == 0 ? 0 : s.keys[0];
        lag_spec l = {.raw_windows = test_one_in(20) ? INT64_MAX : test_random_int(1, 3)};
        l.leading = test_one_in(2) ? 0 : test_random_int(0, test_one_in(4) ? keys : keys / 8);
        l.lag = test_one_in(20) ? INT64_MAX : test_random_int(1, test_one_in(2) ? 12 : 200);
        l.keep = l.lag == INT64_MAX ? 0 : test_random_int(0, l.lag);
        check_lag(&s, &l, 0);
    }
}

static void test_keeping_all_is_dense(void)
{
    for (int i = 0; i < 12; i++) {
        attention_spec s = {.sequences = 1, .kv_heads = 2, .group = 4, .spread = 1, .causal = 1, .want_log_sum_exp = 1};
        s.head_dim = i % 2 ? 64 : 128;
        s.tokens[0] = i % 3 ? 150 : 421;
        s.keys[0] = 421;
        s.kv_dtype = s.query_dtype = (lspan_dtype)(i % 3);
        s.rotation = i % 5;
        lag_spec l = {.leading = i % 4, .lag = 32, .raw_windows = 1 + i % 3, .keep = 32};
        check_lag(&s, &l, 1);
    }
}

/* Reading a text window by window: a window's queries over its cache, which then holds what of it is seen later. */
static lspan_status run_windows(const void *user, const lspan_context *context, const lspan_attention *call)
{
    const lag_case *l = user;
    int64_t keys = call->kv_indptr[1], tokens = call->query_indptr[1], group = call->query_heads / call->kv_heads;
    lspan_status status = lspan_status_ok;
    for (int64_t h = 0; h < call->kv_heads; h++) {
        for (int64_t first = 0, next; first < tokens && status == lspan_status_ok; first = next) {
            int64_t position = keys - tokens + first, m = (position - l->spec.leading) / l->spec.lag;
            int64_t end = position < l->spec.leading ? l->spec.leading : l->spec.leading + (m + 1) * l->spec.lag;
            if (end > keys) end = keys;
            next = end - keys + tokens;
            lag_mask mask = {l, tokens, keys};
            int64_t cached = 0;
            test_tensor k = test_tensor_make(lspan_dtype_f32, end, 1, call->head_dim, test_layout_token_major);
            test_tensor v = test_tensor_make(lspan_dtype_f32, end, 1, call->head_dim, test_layout_token_major);
            for (int64_t j = 0; j < end; j++) {
                if (!times_seen(&mask, 0, first, h, j)) continue;
                for (int64_t d = 0; d < call->head_dim; d++) {
                    int64_t at = j * call->keys.token_stride + h * call->keys.head_stride + d;
                    test_set(&k, cached, 0, d, (float)lspan_reference_element(call->keys.data, call->keys.dtype, at));
                    at = j * call->values.token_stride + h * call->values.head_stride + d;
                    test_set(&v, cached, 0, d, (float)lspan_reference_element(call->values.data, call->values.dtype, at));
                }
                cached++;
            }
            int64_t query_indptr[2] = {0, next - first}, kv_indptr[2] = {0, cached};
            lspan_attention a = *call;
            a.query_heads = group;
            a.kv_heads = 1;
            a.query_indptr = query_indptr;
            a.kv_indptr = kv_indptr;
            a.keys = test_heads(&k);
            a.values = test_heads(&v);
            int64_t at = first * a.queries.token_stride + h * group * a.queries.head_stride;
            a.queries.data = (const char *)a.queries.data + at * (int64_t)lspan_dtype_size(a.queries.dtype);
            a.output += first * a.output_token_stride + h * group * a.output_head_stride;
            a.log_sum_exp = NULL;
            status = attention_run(attention_kernel_prefill, context, &a);
            test_tensor_release(&k);
            test_tensor_release(&v);
        }
    }
    return status;
}

static void test_window_by_window(void)
{
    for (int i = 0; i < 12; i++) {
        attention_spec s = {.sequences = 1, .kv_heads = 2, .group = 2, .head_dim = 40, .spread = 1, .causal = 1};
        s.tokens[0] = i % 3 == 1 ? 90 : 233;
        s.keys[0] = 233;
        s.kv_dtype = (lspan_dtype)(i % 3);
        attention_case c = attention_make(&s);
        lag_spec spec = {.leading = i % 4 * 3, .lag = 24 + i, .raw_windows = 1 + i % 2, .keep = i % 5 * 3};
        lag_case l = make_lag(&spec, &s, 0);
        lag_mask mask = {&l, s.tokens[0], s.keys[0]};
        lspan_reference_keys chosen = {times_seen, &mask};
        attention_refer_over(&c, &chosen);
        size_t count;
        const test_context *contexts = test_contexts(&count);
        for (size_t k = 0; k < count; k += TEST_THREAD_COUNTS) {
            attention_check_run(&c, &contexts[k], run_windows, &l, 0, "window by window", "");
            attention_check_run(&c, &contexts[k], run_lag, &l, 0, "lag prefill", "lag prefill lse");
        }
        test_release(&l.kept);
        attention_release(&c);
    }
}

int main(void)
{
    test_random_windows();
    test_keeping_all_is_dense();
    test_window_by_window();
    return test_finish("lag_attention_test");
}
