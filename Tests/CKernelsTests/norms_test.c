/* norms_test.c: RMSNorm and LayerNorm against the reference. */
#include "support.h"

typedef struct norm_spec {
    int layer; /* LayerNorm, else RMSNorm */
    int64_t rows;
    int64_t columns;
    lspan_dtype input_dtype;
    lspan_dtype output_dtype;
    test_layout layout;
    float mean; /* of the input, in standard deviations */
    float spread;
    float epsilon;
    int weighted;
    int biased;
    int in_place; /* needs equal dtypes */
} norm_spec;

static void check_norm(const norm_spec *s)
{
    test_case(
        "%s rows%lld columns%lld in%d out%d layout%d mean%g spread%g epsilon%g weight%d bias%d in_place%d",
        s->layer ? "layer_norm" : "rms_norm", (long long)s->rows, (long long)s->columns, (int)s->input_dtype,
        (int)s->output_dtype, (int)s->layout, (double)s->mean, (double)s->spread, (double)s->epsilon, s->weighted,
        s->biased, s->in_place);
    test_tensor x = test_tensor_make(s->input_dtype, s->rows, 1, s->columns, s->layout);
    for (int64_t r = 0; r < s->rows; r++) {
        for (int64_t c = 0; c < s->columns; c++) test_set(&x, r, 0, c, s->spread * (s->mean + test_random_normal()));
    }
    int64_t count = s->rows * s->columns;
    test_buffer weight = test_allocate((size_t)s->columns * sizeof(float), sizeof(float));
    test_buffer bias = test_allocate((size_t)s->columns * sizeof(float), sizeof(float));
    for (int64_t c = 0; c < s->columns; c++) {
        ((float *)weight.data)[c] = 1 + 0.5f * test_random_normal();
        ((float *)bias.data)[c] = test_random_normal();
    }
    const float *w = s->weighted ? weight.data : NULL, *b = s->biased ? bias.data : NULL;
    double *want = test_malloc(count, sizeof *want);
    float *simple = test_malloc(count, sizeof *simple);
    if (s->layer) {
        lspan_reference_layer_norm_f64(s->rows, s->columns, test_matrix(&x), w, b, s->epsilon, want);
        lspan_reference_layer_norm_f32(s->rows, s->columns, test_matrix(&x), w, b, s->epsilon, simple);
    } else {
        lspan_reference_rms_norm_f64(s->rows, s->columns, test_matrix(&x), w, s->epsilon, want);
        lspan_reference_rms_norm_f32(s->rows, s->columns, test_matrix(&x), w, s->epsilon, simple);
    }
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        test_tensor input = test_tensor_copy(&x), output = input;
        if (!s->in_place) output = test_tensor_make(s->output_dtype, s->rows, 1, s->columns, test_random_layout());
        lspan_matrix_out out = test_matrix_out(&output);
        const lspan_context *context = contexts[i].context;
        CHECK_OK(
            s->layer ? lspan_layer_norm(context, s->rows, s->columns, test_matrix(&input), w, b, s->epsilon, out)
                     : lspan_rms_norm(context, s->rows, s->columns, test_matrix(&input), w, s->epsilon, out));
        float *got = test_gather(&output);
        /* f32: the sum, the root, and three products, with the mean's rounding seen through x - mean; then one
         * rounding to the output's dtype */
        double f32 = test_epsilon(lspan_dtype_f32) * (8 + 2 * fabs((double)s->mean));
        double rounding = s->output_dtype == lspan_dtype_f32 ? 0 : 1.01 * test_epsilon(s->output_dtype);
        test_check_errors(
            s->layer ? "layer_norm" : "rms_norm", contexts[i].name, s->output_dtype, got, want, simple, count,
            test_largest(want, count) * (f32 + rounding));
        test_check_gaps(&output);
        free(got);
        test_tensor_release(&input);
        if (!s->in_place) test_tensor_release(&output);
    }
    test_tensor_release(&x);
    test_release(&weight);
    test_release(&bias);
    free(want);
    free(simple);
}

int main(void)
{
    static const int64_t columns[] = {1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 100, 576, 1027, 4096};
    for (int i = 0; i < 320; i++) {
        norm_spec s = {.spread = 1, .epsilon = 1e-5f};
        s.layer = i % 2;
        s.columns = i < 28 ? columns[i / 2] : test_random_int(1, test_one_in(4) ? 3000 : 150);
        s.rows = i < 28 ? 9 : test_random_int(0, 12);
        s.input_dtype = test_random_dtype();
        s.in_place = test_one_in(3);
        s.output_dtype = s.in_place ? s.input_dtype : test_random_dtype();
        s.layout = test_random_layout();
        s.mean = test_one_in(3) ? 10.0f : 0.0f;
        if (test_one_in(3)) s.spread = test_one_in(2) ? 1e-3f : 100.0f;
        if (test_one_in(5)) s.epsilon = 0.5f;
        /* a single column has no variance, which only a positive epsilon makes a number */
        if (test_one_in(5) && s.columns > 8) s.epsilon = 0;
        s.weighted = !test_one_in(3);
        s.biased = s.layer && !test_one_in(3);
        check_norm(&s);
    }
    return test_finish("norms_test");
}
