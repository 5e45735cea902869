/* rope_shift_test.c: keys moved to other positions, against the reference and against rope at the other position. */
#include "support.h"

typedef struct shift_spec {
    lspan_rope_layout layout;
    int64_t tokens;
    int64_t heads;
    int64_t head_dim;
    int64_t pairs;
    lspan_dtype dtype;
    test_layout tensor_layout;
    int shared;
    int inverse;
    int64_t table_first;
    int64_t table_rows;
} shift_spec;

static float *frequencies(int64_t pairs)
{
    float *f = test_malloc(pairs, sizeof *f);
    for (int64_t i = 0; i < pairs; i++) f[i] = powf(10000.0f, -(float)i / (float)pairs);
    return f;
}

/* A table of cosines and sines for positions first .. first + rows - 1. */
static void make_table(int64_t first, int64_t rows, int64_t pairs, test_buffer *cosine, test_buffer *sine)
{
    int64_t *positions = test_malloc(rows, sizeof *positions);
    float *f = frequencies(pairs);
    for (int64_t i = 0; i < rows; i++) positions[i] = first + i;
    *cosine = test_allocate((size_t)(rows * pairs) * sizeof(float), sizeof(float));
    *sine = test_allocate((size_t)(rows * pairs) * sizeof(float), sizeof(float));
    CHECK_OK(lspan_rope_table(rows, positions, pairs, f, cosine->data, sine->data));
    free(positions);
    free(f);
}

static test_buffer make_shifts(const shift_spec *s, int64_t *head_stride)
{
    *head_stride = s->shared ? 0 : s->tokens + test_random_int(0, 2);
    int64_t count = s->shared ? s->tokens : s->heads > 0 ? (s->heads - 1) * *head_stride + s->tokens : 0;
    test_buffer shifts = test_allocate((size_t)count * sizeof(int32_t), sizeof(int32_t));
    for (int64_t i = 0; i < count; i++) {
        int64_t shift = test_random_int(s->table_first, s->table_first + s->table_rows - 1);
        int has_zero = s->table_first <= 0 && s->table_first + s->table_rows > 0;
        ((int32_t *)shifts.data)[i] = has_zero && test_one_in(3) ? 0 : (int32_t)shift;
    }
    return shifts;
}

static void check_shift(const shift_spec *s)
{
    test_case(
        "rope_shift layout%d T%lld H%lld D%lld pairs%lld dtype%d tensor%d shared%d inverse%d table %lld + %lld",
        (int)s->layout, (long long)s->tokens, (long long)s->heads, (long long)s->head_dim, (long long)s->pairs,
        (int)s->dtype, (int)s->tensor_layout, s->shared, s->inverse, (long long)s->table_first, (long long)s->table_rows);
    test_tensor x = test_tensor_random(s->dtype, s->tokens, s->heads, s->head_dim, s->tensor_layout, 1);
    test_buffer cosine, sine;
    make_table(s->table_first, s->table_rows, s->pairs, &cosine, &sine);
    lspan_rope_shifting call = {
        .layout = s->layout, .tokens = s->tokens, .heads = s->heads, .head_dim = s->head_dim, .pairs = s->pairs,
        .inverse = s->inverse, .table_first = s->table_first, .table_rows = s->table_rows, .cosine = cosine.data,
        .sine = sine.data, .keys = test_heads_out(&x)};
    test_buffer shifts = make_shifts(s, &call.shift_head_stride);
    call.shifts = shifts.data;
    int64_t count = s->tokens * s->heads * s->head_dim;
    double *want = test_malloc(count, sizeof *want);
    float *simple = test_malloc(count, sizeof *simple), *before = test_gather(&x);
    lspan_reference_rope_shift_f64(&call, want);
    lspan_reference_rope_shift_f32(&call, simple);
    double largest = test_largest(want, count);
    /* two products and a sum, then one rounding to the dtype */
    double rounding = s->dtype == lspan_dtype_f32 ? 0 : 1.01 * test_epsilon(s->dtype);
    double floor = largest * (3 * test_epsilon(lspan_dtype_f32) + rounding);
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        test_tensor keys = test_tensor_copy(&x);
        call.keys = test_heads_out(&keys);
        CHECK_OK(lspan_rope_shift(contexts[i].context, &call));
        float *got = test_gather(&keys);
        test_check_errors("rope_shift", contexts[i].name, s->dtype, got, want, simple, count, floor);
        for (int64_t r = 0; r < s->tokens * s->heads; r++) {
            int64_t shift = call.shifts[r % s->heads * call.shift_head_stride + r / s->heads];
            /* channels past the rotated ones, and all where nothing turns, keep their bits */
            int64_t d = shift == 0 ? 0 : 2 * s->pairs;
            size_t bytes = (size_t)(s->head_dim - d) * sizeof(float);
            CHECK(memcmp(got + r * s->head_dim + d, before + r * s->head_dim + d, bytes) == 0);
        }
        free(got);

        /* the way back, with as many roundings again */
        call.inverse = !s->inverse;
        CHECK_OK(lspan_rope_shift(contexts[i].context, &call));
        call.inverse = s->inverse;
        got = test_gather(&keys);
        double worst = 0;
        for (int64_t j = 0; j < count; j++) worst = fmax(worst, fabs((double)got[j] - (double)before[j]));
        CHECK_MESSAGE(worst <= largest * 8 * test_epsilon(s->dtype), "%s: back, but off by %g", contexts[i].name, worst);
        free(got);
        test_check_gaps(&keys);
        test_tensor_release(&keys);
    }
    test_tensor_release(&x);
    test_release(&cosine);
    test_release(&sine);
    test_release(&shifts);
    free(want);
    free(simple);
    free(before);
}

/* A key that rope put at position p and a shift moved to p + s is the key that rope puts at p + s. */
static void test_shifted_position(void)
{
    enum { tokens = 12, heads = 3, head_dim = 80, pairs = 36, first = -20, rows = 41 };
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    test_tensor x = test_tensor_random(lspan_dtype_f32, tokens, heads, head_dim, test_layout_token_major, 1);
    test_buffer cosine, sine;
    make_table(first, rows, pairs, &cosine, &sine);
    float *f = frequencies(pairs);
    int64_t from[tokens], to[tokens];
    int32_t shifts[tokens];
    for (int i = 0; i < tokens; i++) {
        from[i] = test_random_int(30, 100000);
        shifts[i] = (int32_t)test_random_int(first, first + rows - 1);
        to[i] = from[i] + shifts[i];
    }
    static float c[2][tokens * pairs], s[2][tokens * pairs];
    CHECK_OK(lspan_rope_table(tokens, from, pairs, f, c[0], s[0]));
    CHECK_OK(lspan_rope_table(tokens, to, pairs, f, c[1], s[1]));
    for (int layout = 0; layout < 2; layout++) {
        for (size_t i = 0; i < contexts_count; i++) {
            test_case("rope at a shifted position, layout %d, %s", layout, contexts[i].name);
            test_tensor moved = test_tensor_copy(&x), direct = test_tensor_copy(&x);
            lspan_rope_layout l = (lspan_rope_layout)layout;
            const lspan_context *context = contexts[i].context;
            CHECK_OK(lspan_rope(
                context, l, tokens, heads, head_dim, pairs, c[0], s[0], test_heads(&x), test_heads_out(&moved)));
            CHECK_OK(lspan_rope(
                context, l, tokens, heads, head_dim, pairs, c[1], s[1], test_heads(&x), test_heads_out(&direct)));
            lspan_rope_shifting call = {
                .layout = l, .tokens = tokens, .heads = heads, .head_dim = head_dim, .pairs = pairs, .shifts = shifts,
                .table_first = first, .table_rows = rows, .cosine = cosine.data, .sine = sine.data,
                .keys = test_heads_out(&moved)};
            CHECK_OK(lspan_rope_shift(context, &call));
            float *got = test_gather(&moved), *want = test_gather(&direct);
            for (int j = 0; j < tokens * heads * head_dim; j++) CHECK(fabsf(got[j] - want[j]) <= 4e-6f);
            free(got);
            free(want);
            test_tensor_release(&moved);
            test_tensor_release(&direct);
        }
    }
    test_tensor_release(&x);
    test_release(&cosine);
    test_release(&sine);
    free(f);
}

int main(void)
{
    for (int i = 0; i < 240; i++) {
        shift_spec s = {.layout = (lspan_rope_layout)(i % 2)};
        s.tokens = test_random_int(0, 9);
        s.heads = test_random_int(1, 4);
        s.head_dim = test_random_int(2, test_one_in(4) ? 300 : 70);
        if (test_one_in(20)) {
            s.tokens = 65; /* enough elements for several tasks */
            s.head_dim = 128;
        }
        s.pairs = test_one_in(2) ? s.head_dim / 2 : test_random_int(1, s.head_dim / 2);
        s.dtype = test_random_dtype();
        s.tensor_layout = test_random_layout();
        s.shared = test_one_in(3);
        s.inverse = test_one_in(2);
        s.table_first = test_random_int(-40, 20);
        s.table_rows = test_random_int(1, 60);
        check_shift(&s);
    }
    test_shifted_position();
    return test_finish("rope_shift_test");
}
