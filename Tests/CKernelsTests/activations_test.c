/* activations_test.c: gated activations and dtype conversion against the reference. */
#include "support.h"

typedef enum place { place_apart, place_gate, place_up } place;

static void check_gate(
    lspan_activation activation, int64_t rows, int64_t columns, const lspan_dtype dtypes[3], float spread, place where)
{
    test_case(
        "activation%d rows%lld columns%lld gate%d up%d out%d spread%g place%d", (int)activation, (long long)rows,
        (long long)columns, (int)dtypes[0], (int)dtypes[1], (int)dtypes[2], (double)spread, (int)where);
    test_tensor gate = test_tensor_random(dtypes[0], rows, 1, columns, test_random_layout(), spread);
    test_tensor up = test_tensor_random(dtypes[1], rows, 1, columns, test_random_layout(), 1.0f);
    int64_t count = rows * columns;
    if (count > 3 && test_one_in(3)) {
        test_set(&gate, 0, 0, 0, NAN);
        test_set(&gate, 0, 0, columns - 1, 0.0f);
    }
    double *want = test_malloc(count, sizeof *want);
    float *simple = test_malloc(count, sizeof *simple);
    lspan_reference_gated_activation_f64(activation, rows, columns, test_matrix(&gate), test_matrix(&up), want);
    lspan_reference_gated_activation_f32(activation, rows, columns, test_matrix(&gate), test_matrix(&up), simple);
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        test_tensor g = test_tensor_copy(&gate), u = test_tensor_copy(&up);
        test_tensor out = test_tensor_make(dtypes[2], rows, 1, columns, test_random_layout());
        test_tensor *target = where == place_gate ? &g : where == place_up ? &u : &out;
        CHECK_OK(lspan_gated_activation(
            contexts[i].context, activation, rows, columns, test_matrix(&g), test_matrix(&u), test_matrix_out(target)));
        float *got = test_gather(target);
        /* an exponential, tanh or erf within 3 ulp, and three roundings; then one to the output's dtype */
        double rounding = target->dtype == lspan_dtype_f32 ? 0 : 1.01 * test_epsilon(target->dtype);
        test_check_errors(
            activation == lspan_activation_silu ? "silu" : "gelu", contexts[i].name, target->dtype, got, want, simple,
            count, test_largest(want, count) * (9 * test_epsilon(lspan_dtype_f32) + rounding) + 0x1p-149);
        test_check_gaps(target);
        free(got);
        test_tensor_release(&g);
        test_tensor_release(&u);
        test_tensor_release(&out);
    }
    test_tensor_release(&gate);
    test_tensor_release(&up);
    free(want);
    free(simple);
}

static void test_gates(void)
{
    for (int i = 0; i < 330; i++) {
        static const float spreads[] = {0.01f, 1.0f, 1.0f, 10.0f, 300.0f};
        lspan_dtype dtypes[3] = {test_random_dtype(), test_random_dtype(), test_random_dtype()};
        place where = test_one_in(3) ? (place)test_random_int(1, 2) : place_apart;
        if (where == place_gate) dtypes[2] = dtypes[0];
        if (where == place_up) dtypes[2] = dtypes[1];
        int64_t columns = test_random_int(1, test_one_in(4) ? 3000 : 100);
        check_gate(
            (lspan_activation)(i % 3), test_random_int(0, 9), columns, dtypes, spreads[test_random_int(0, 4)], where);
    }
}

/* One activation of one gate value, in f32 with up = 1. */
static float activate(const lspan_context *context, lspan_activation activation, float x)
{
    float gate = x, up = 1, out = 0;
    lspan_matrix g = {&gate, lspan_dtype_f32, 1}, u = {&up, lspan_dtype_f32, 1};
    lspan_matrix_out o = {&out, lspan_dtype_f32, 1};
    CHECK_OK(lspan_gated_activation(context, activation, 1, 1, g, u, o));
    return out;
}

static void test_gate_limits(void)
{
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i += TEST_THREAD_COUNTS) {
        for (int activation = 0; activation < 3; activation++) {
            test_case("activation%d limits under %s", activation, contexts[i].name);
            const lspan_context *c = contexts[i].context;
            lspan_activation a = (lspan_activation)activation;
            CHECK(activate(c, a, 0.0f) == 0);
            CHECK(activate(c, a, 1e30f) == 1e30f && activate(c, a, -1e30f) == 0);
            CHECK(isinf(activate(c, a, INFINITY)) && isnan(activate(c, a, NAN)));
        }
    }
}

static void check_convert(lspan_dtype from, lspan_dtype to, int64_t tokens, int64_t heads, int64_t head_dim)
{
    test_case(
        "convert %d to %d T%lld H%lld D%lld", (int)from, (int)to, (long long)tokens, (long long)heads,
        (long long)head_dim);
    test_tensor input = test_tensor_random(from, tokens, heads, head_dim, test_random_layout(), 1.0f);
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t h = 0; h < heads; h++) {
            uint32_t bits = (uint32_t)test_random();
            float x;
            memcpy(&x, &bits, sizeof x);
            test_set(&input, t, h, test_random_int(0, head_dim - 1), x);
        }
    }
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        test_tensor output = test_tensor_make(to, tokens, heads, head_dim, test_random_layout());
        CHECK_OK(lspan_convert(
            contexts[i].context, tokens, heads, head_dim, test_heads(&input), test_heads_out(&output)));
        int right = 1;
        for (int64_t t = 0; t < tokens; t++) {
            for (int64_t h = 0; h < heads; h++) {
                for (int64_t d = 0; d < head_dim; d++) {
                    float x = test_get(&input, t, h, d), y = test_get(&output, t, h, d);
                    float want = (float)lspan_reference_round((double)x, to);
                    right = right && (isnan(x) ? isnan(y) : y == want && !signbit(y) == !signbit(want));
                }
            }
        }
        CHECK_MESSAGE(right, "%s: a value is not the nearest", contexts[i].name);
        test_check_gaps(&output);
        test_tensor_release(&output);
    }
    test_tensor_release(&input);
}

static void test_conversions(void)
{
    for (int i = 0; i < 306; i++) {
        int64_t head_dim = test_random_int(1, test_one_in(4) ? 300 : 40);
        check_convert(
            (lspan_dtype)(i % 3), (lspan_dtype)(i / 3 % 3), test_random_int(0, 12), test_random_int(1, 6), head_dim);
    }
    check_convert(lspan_dtype_f32, lspan_dtype_bf16, 90, 3, 128);
}

int main(void)
{
    test_gates();
    test_gate_limits();
    test_conversions();
    return test_finish("activations_test");
}
