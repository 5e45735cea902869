/* rope_test.c: rotary position embedding against the reference. */
#include "support.h"

static void test_table(void)
{
    static const int64_t far[] = {0, 1, -1, 511, 131071, 1048575, INT64_C(1) << 40};
    int64_t pairs = 37;
    test_case("rope_table of %lld pairs", (long long)pairs);
    test_buffer frequencies = test_allocate((size_t)pairs * sizeof(float), sizeof(float));
    test_buffer cosine = test_allocate((size_t)(7 * pairs) * sizeof(float), sizeof(float));
    test_buffer sine = test_allocate((size_t)(7 * pairs) * sizeof(float), sizeof(float));
    float *f = frequencies.data;
    for (int64_t i = 0; i < pairs; i++) f[i] = powf(10000.0f, -(float)i / (float)pairs);
    double *want_cosine = test_malloc(7 * pairs, sizeof *want_cosine), *want_sine = test_malloc(7 * pairs, sizeof *want_sine);
    CHECK_OK(lspan_rope_table(7, far, pairs, f, cosine.data, sine.data));
    lspan_reference_rope_table_f64(7, far, pairs, f, want_cosine, want_sine);
    for (int64_t i = 0; i < 7 * pairs; i++) {
        CHECK(((float *)cosine.data)[i] == (float)want_cosine[i]);
        CHECK(((float *)sine.data)[i] == (float)want_sine[i]);
    }
    CHECK_OK(lspan_rope_table(0, NULL, pairs, f, NULL, NULL));
    CHECK_OK(lspan_rope_table(7, far, 0, NULL, NULL, NULL));
    test_release(&frequencies);
    test_release(&cosine);
    test_release(&sine);
    free(want_cosine);
    free(want_sine);
}

static void check_rope(
    lspan_rope_layout layout, int64_t tokens, int64_t heads, int64_t head_dim, int64_t pairs, lspan_dtype input_dtype,
    lspan_dtype output_dtype, test_layout input_layout, test_layout output_layout, int in_place)
{
    test_case(
        "rope layout%d T%lld H%lld D%lld pairs%lld in%d out%d layouts %d%d in_place%d", (int)layout, (long long)tokens,
        (long long)heads, (long long)head_dim, (long long)pairs, (int)input_dtype, (int)output_dtype,
        (int)input_layout, (int)output_layout, in_place);
    test_tensor x = test_tensor_random(input_dtype, tokens, heads, head_dim, input_layout, 1.0f);
    size_t table_bytes = (size_t)(tokens * pairs) * sizeof(float);
    test_buffer cosine = test_allocate(table_bytes, sizeof(float)), sine = test_allocate(table_bytes, sizeof(float));
    for (int64_t i = 0; i < tokens * pairs; i++) {
        double angle = 6.283185307179586 * test_random_unit();
        ((float *)cosine.data)[i] = (float)cos(angle);
        ((float *)sine.data)[i] = (float)sin(angle);
    }
    int64_t count = tokens * heads * head_dim;
    double *want = test_malloc(count, sizeof *want);
    float *simple = test_malloc(count, sizeof *simple);
    lspan_reference_rope_f64(layout, tokens, heads, head_dim, pairs, cosine.data, sine.data, test_heads(&x), want);
    lspan_reference_rope_f32(layout, tokens, heads, head_dim, pairs, cosine.data, sine.data, test_heads(&x), simple);
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        test_tensor input = test_tensor_copy(&x), output = input;
        if (!in_place) output = test_tensor_make(output_dtype, tokens, heads, head_dim, output_layout);
        CHECK_OK(lspan_rope(
            contexts[i].context, layout, tokens, heads, head_dim, pairs, cosine.data, sine.data, test_heads(&input),
            test_heads_out(&output)));
        float *got = test_gather(&output);
        /* two products and a sum, then one rounding to the output's dtype */
        double rounding = output_dtype == lspan_dtype_f32 ? 0 : 1.01 * test_epsilon(output_dtype);
        test_check_errors(
            "rope", contexts[i].name, output_dtype, got, want, simple, count,
            test_largest(want, count) * (3 * test_epsilon(lspan_dtype_f32) + rounding));
        /* channels past the rotated ones are copied, not computed */
        if (input_dtype == output_dtype) {
            for (int64_t r = 0; r < tokens * heads; r++) {
                for (int64_t d = 2 * pairs; d < head_dim; d++) CHECK((double)got[r * head_dim + d] == want[r * head_dim + d]);
            }
        }
        test_check_gaps(&output);
        free(got);
        test_tensor_release(&input);
        if (!in_place) test_tensor_release(&output);
    }
    test_tensor_release(&x);
    test_release(&cosine);
    test_release(&sine);
    free(want);
    free(simple);
}

int main(void)
{
    test_table();
    for (int i = 0; i < 320; i++) {
        int64_t tokens = test_random_int(0, 9), heads = test_random_int(1, 5);
        int64_t head_dim = test_random_int(1, test_one_in(4) ? 300 : 70);
        if (test_one_in(20)) {
            tokens = 65; /* enough elements for several tasks */
            head_dim = 128;
        }
        int64_t pairs = test_one_in(2) ? head_dim / 2 : test_random_int(0, head_dim / 2);
        lspan_dtype dtype = test_random_dtype();
        int in_place = test_one_in(3);
        check_rope(
            (lspan_rope_layout)(i % 2), tokens, heads, head_dim, pairs, dtype, in_place ? dtype : test_random_dtype(),
            test_random_layout(), test_random_layout(), in_place);
    }
    return test_finish("rope_test");
}
