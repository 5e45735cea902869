/* attention_merge_test.c: merging partial attention results. */
#include "attention_support.h"

/* The merge kernel on given parts, against the reference on the same parts. */
static void check_merge(int64_t parts, int64_t rows, int64_t head_dim, float spread, int in_place, int want_lse)
{
    if (!test_sampled()) return;
    test_case(
        "parts%lld rows%lld D%lld spread%g in_place%d lse%d", (long long)parts, (long long)rows, (long long)head_dim,
        (double)spread, in_place, want_lse);
    size_t row_bytes = (size_t)(rows * head_dim) * sizeof(float), lse_bytes = (size_t)rows * sizeof(float);
    float *outputs = test_floats(parts * rows * head_dim, 1.0f), *lses = test_floats(parts * rows, spread);
    for (int64_t i = 0; i < parts * rows; i++) {
        if (!test_one_in(4)) continue;
        lses[i] = -INFINITY;
        memset(outputs + i * head_dim, 0, (size_t)head_dim * sizeof(float));
    }
    double *want = test_malloc(rows * head_dim, sizeof *want), *want_lse_values = test_malloc(rows, sizeof *want);
    float *simple = test_malloc(rows * head_dim, sizeof *simple), *simple_lse = test_malloc(rows, sizeof *simple);
    lspan_reference_attention_merge_f64(parts, rows, head_dim, outputs, lses, want, want_lse_values);
    lspan_reference_attention_merge_f32(parts, rows, head_dim, outputs, lses, simple, simple_lse);

    size_t count;
    const test_context *contexts = test_contexts(&count);
    for (size_t i = 0; i < count; i++) {
        test_buffer in = test_allocate((size_t)parts * row_bytes, sizeof(float));
        test_buffer in_lse = test_allocate((size_t)parts * lse_bytes, sizeof(float));
        test_buffer out = test_allocate(row_bytes, sizeof(float)), out_lse = test_allocate(lse_bytes, sizeof(float));
        memcpy(in.data, outputs, in.bytes);
        memcpy(in_lse.data, lses, in_lse.bytes);
        float *result = in_place ? in.data : out.data, *result_lse = in_place ? in_lse.data : out_lse.data;
        const char *name = contexts[i].name;
        CHECK_OK(lspan_attention_merge(
            contexts[i].context, parts, rows, head_dim, in.data, in_lse.data, result, want_lse ? result_lse : NULL));
        double epsilon = test_epsilon(lspan_dtype_f32), largest = test_largest(want, rows * head_dim);
        double largest_lse = fmax(1, test_largest(want_lse_values, rows));
        /* the weights are exponentials of differences of log-sum-exps, which are rounded at their own size */
        test_check_errors(
            "merge", name, lspan_dtype_f32, result, want, simple, rows * head_dim, epsilon * largest * (4 + largest_lse));
        if (want_lse) {
            test_check_errors(
                "merge lse", name, lspan_dtype_f32, result_lse, want_lse_values, simple_lse, rows,
                4 * epsilon * largest_lse);
        }
        test_release(&in);
        test_release(&in_lse);
        test_release(&out);
        test_release(&out_lse);
    }
    free(outputs);
    free(lses);
    free(want);
    free(want_lse_values);
    free(simple);
    free(simple_lse);
}

static void test_merge_alone(void)
{
    for (int64_t parts = 0; parts <= 5; parts++) check_merge(parts, 7, 33, 3, 0, 1);
    check_merge(3, 0, 64, 1, 0, 1);
    check_merge(4, 300, 80, 1, 1, 1); /* enough elements for several tasks */
    for (int i = 0; i < 300; i++) {
        float spread = test_one_in(4) ? 1e4f : test_one_in(2) ? 1.0f : 30.0f;
        int64_t parts = test_random_int(0, 12);
        check_merge(
            parts, test_random_int(1, 20), test_random_int(1, 140), spread, parts > 0 && test_one_in(3), !test_one_in(4));
    }
}

/* Cuts the keys at random points, attends each range by itself, merges, and compares with attending the whole.
 * Only the last range is causal: all rows see every key before it as long as it holds all of their positions. */
static void check_split(const attention_spec *spec, attention_kernel kernel)
{
    if (!test_sampled()) return;
    attention_case c = attention_make(spec);
    attention_refer(&c);
    int64_t parts = test_random_int(1, 5), cuts[6] = {0};
    int64_t before_causal = spec->causal ? spec->keys[0] - spec->tokens[0] : spec->keys[0];
    for (int64_t p = 1; p < parts; p++) cuts[p] = cuts[p - 1] + test_random_int(0, before_causal - cuts[p - 1]);
    cuts[parts] = spec->keys[0];
    size_t count;
    const test_context *contexts = test_contexts(&count);
    for (size_t i = 0; i < count; i += TEST_THREAD_COUNTS) {
        const test_context *context = &contexts[i + (size_t)test_random_int(0, TEST_THREAD_COUNTS - 1)];
        int64_t heads = c.queries.heads, columns = c.rows * spec->head_dim;
        float *outputs = test_malloc(parts * columns, sizeof *outputs), *lses = test_malloc(parts * c.rows, sizeof *lses);
        test_tensor whole =
            test_tensor_make(lspan_dtype_f32, spec->tokens[0], heads, spec->head_dim, test_layout_token_major);
        float *whole_lse = test_malloc(c.rows, sizeof *whole_lse);
        for (int64_t p = 0; p < parts; p++) {
            int64_t kv_indptr[2] = {0, cuts[p + 1] - cuts[p]};
            size_t skip = (size_t)(cuts[p] * c.keys.token_stride) * lspan_dtype_size(spec->kv_dtype);
            lspan_attention a = attention_call(&c);
            a.kv_indptr = kv_indptr;
            a.keys.data = (const char *)a.keys.data + skip;
            a.values.data = (const char *)a.values.data + skip;
            a.causal = spec->causal && p == parts - 1;
            a.output = outputs + p * columns;
            a.output_token_stride = heads * spec->head_dim;
            a.output_head_stride = spec->head_dim;
            a.log_sum_exp = lses + p * c.rows;
            CHECK_OK(attention_run(kernel, context->context, &a));
        }
        CHECK_OK(lspan_attention_merge(
            context->context, parts, c.rows, spec->head_dim, outputs, lses, whole.buffer.data, whole_lse));
        attention_compare(&c, attention_rounding(&c, attention_kernel_prefill, context->name), "split and merged", "split and merged lse", context->name, &whole, whole_lse);
        attention_check_empty_rows(&c, &whole, whole_lse);
        test_tensor_release(&whole);
        free(whole_lse);
        free(outputs);
        free(lses);
    }
    attention_release(&c);
}

static void test_split_equals_whole(void)
{
    for (int i = 0; i < 150; i++) {
        attention_spec s = attention_random_spec();
        s.sequences = 1;
        s.window = s.sinks = 0;
        s.own_lengths = s.rotation = 0;
        s.tokens[0] = test_random_int(0, 8);
        s.keys[0] = s.tokens[0] + test_random_int(0, 200);
        if (s.special == attention_special_nan) s.special = attention_special_none;
        check_split(&s, i % 2 ? attention_kernel_decode : attention_kernel_prefill);
    }
}

int main(void)
{
    test_merge_alone();
    test_split_equals_whole();
    return test_finish("attention_merge_test");
}
