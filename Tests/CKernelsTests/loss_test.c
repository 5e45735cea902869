/* loss_test.c: negative log-likelihood and entropy against the reference. */
#include "support.h"

static void check_loss(
    int64_t rows, int64_t vocabulary, lspan_dtype dtype, float spread, float offset, int holes, int want_nll,
    int want_entropy)
{
    test_case(
        "rows%lld V%lld dtype%d spread%g offset%g holes%d nll%d entropy%d", (long long)rows, (long long)vocabulary,
        (int)dtype, (double)spread, (double)offset, holes, want_nll, want_entropy);
    test_tensor logits = test_tensor_make(dtype, rows, 1, vocabulary, test_random_layout());
    test_buffer targets = test_allocate((size_t)rows * sizeof(int32_t), sizeof(int32_t));
    int32_t *ids = targets.data;
    for (int64_t r = 0; r < rows; r++) {
        ids[r] = (int32_t)test_random_int(0, vocabulary - 1);
        for (int64_t v = 0; v < vocabulary; v++) {
            float x = offset + spread * test_random_normal();
            test_set(&logits, r, 0, v, holes && test_one_in(3) ? -INFINITY : x);
        }
    }
    double *want_n = test_malloc(rows, sizeof *want_n), *want_e = test_malloc(rows, sizeof *want_e);
    float *simple_n = test_malloc(rows, sizeof *simple_n), *simple_e = test_malloc(rows, sizeof *simple_e);
    lspan_reference_log_softmax_gather_f64(rows, vocabulary, test_matrix(&logits), ids, want_n, want_e);
    lspan_reference_log_softmax_gather_f32(rows, vocabulary, test_matrix(&logits), ids, simple_n, simple_e);
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        test_buffer nll = test_allocate((size_t)rows * sizeof(float), sizeof(float));
        test_buffer entropy = test_allocate((size_t)rows * sizeof(float), sizeof(float));
        CHECK_OK(lspan_log_softmax_gather(
            contexts[i].context, rows, vocabulary, test_matrix(&logits), want_nll ? ids : NULL,
            want_nll ? nll.data : NULL, want_entropy ? entropy.data : NULL));
        /* exponentials within 2 ulp make the sum off by as much; the logarithm, the differences and the rounding of
         * the result add their own. Entropy weighs distances from the largest logit with those exponentials. */
        double epsilon = test_epsilon(lspan_dtype_f32);
        double size = 1 + fmax(test_largest(want_n, rows), test_largest(want_e, rows));
        if (want_nll) {
            test_check_errors("nll", contexts[i].name, lspan_dtype_f32, nll.data, want_n, simple_n, rows, 4 * epsilon * size);
        }
        if (want_entropy) {
            test_check_errors(
                "entropy", contexts[i].name, lspan_dtype_f32, entropy.data, want_e, simple_e, rows, 8 * epsilon * size);
        }
        test_release(&nll);
        test_release(&entropy);
    }
    test_tensor_release(&logits);
    test_release(&targets);
    free(want_n);
    free(want_e);
    free(simple_n);
    free(simple_e);
}

/* Rows of nothing but minus infinity, with one number, with a NaN, and with all the mass on one logit. */
static void test_special_rows(void)
{
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    static const int64_t vocabularies[] = {1, 5, 16, 33, 700, 1500};
    for (size_t v = 0; v < 6; v++) {
        int64_t vocabulary = vocabularies[v];
        test_tensor logits = test_tensor_make(lspan_dtype_f32, 4, 1, vocabulary, test_layout_padded_token_major);
        for (int64_t i = 0; i < 4 * vocabulary; i++) test_set(&logits, i / vocabulary, 0, i % vocabulary, -INFINITY);
        for (int64_t i = 0; i < vocabulary; i++) test_set(&logits, 2, 0, i, 1.0f);
        for (int64_t i = 0; i < vocabulary; i++) test_set(&logits, 3, 0, i, -50000.0f);
        int32_t last = (int32_t)(vocabulary - 1), targets[4] = {0, last, 0, last};
        test_set(&logits, 1, 0, last, -3.0f);
        test_set(&logits, 2, 0, last, NAN);
        test_set(&logits, 3, 0, last, 50000.0f);
        for (size_t i = 0; i < contexts_count; i++) {
            test_case("special rows, V%lld under %s", (long long)vocabulary, contexts[i].name);
            float nll[4], entropy[4];
            CHECK_OK(lspan_log_softmax_gather(
                contexts[i].context, 4, vocabulary, test_matrix(&logits), targets, nll, entropy));
            CHECK(isnan(nll[0]) && isnan(entropy[0]));
            CHECK(nll[1] == 0 && entropy[1] == 0);
            CHECK(isnan(nll[2]) && isnan(entropy[2]));
            CHECK(nll[3] == 0 && entropy[3] == 0);
        }
        test_tensor_release(&logits);
    }
}

int main(void)
{
    for (int i = 0; i < 320; i++) {
        static const float spreads[] = {0.0f, 0.1f, 1.0f, 5.0f, 100.0f};
        int64_t vocabulary = test_random_int(1, test_one_in(5) ? 5000 : 200);
        float offset = test_one_in(4) ? 1000.0f : 0.0f;
        lspan_dtype dtype = test_random_dtype();
        check_loss(
            test_random_int(0, 6), vocabulary, dtype, spreads[test_random_int(0, 4)], offset, vocabulary > 20 && test_one_in(4),
            !test_one_in(5), !test_one_in(5));
    }
    check_loss(5, 49152, lspan_dtype_f32, 3, 0, 0, 1, 1);
    test_special_rows();
    return test_finish("loss_test");
}
