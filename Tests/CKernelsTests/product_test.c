/* product_test.c: products with packed weights against the reference, and that a row has the same bits whatever the
 * number of rows, threads and the executor. */
#include "product_support.h"

#define MOST_ROWS 65
static const int64_t row_counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 33, MOST_ROWS};
#define ROW_COUNTS (sizeof row_counts / sizeof row_counts[0])

typedef struct product_case {
    lspan_block_type type;
    lspan_product_mode mode;
    int64_t m, k;
    int gated, accumulate, wild;
    lspan_activation activation;
} product_case;

/* Rows of many sizes, some with blocks of zeros, and one of zeros alone. */
static test_tensor random_inputs(int64_t columns)
{
    test_tensor x = test_tensor_random(lspan_dtype_f32, MOST_ROWS, 1, columns, test_random_layout(), 1.0f);
    int64_t zeros = test_random_int(0, MOST_ROWS - 1);
    for (int64_t r = 0; r < MOST_ROWS; r++) {
        float scale = test_one_in(8) ? ldexpf(1, (int)test_random_int(-20, 20)) : 1;
        for (int64_t c = 0; c < columns; c++) {
            int empty = r == zeros || (r % 5 == 3 && c / 32 % 3 == 1);
            test_set(&x, r, 0, c, empty ? 0 : scale * test_get(&x, r, 0, c));
        }
    }
    return x;
}

static int same_rows(const float *a, const float *b, int64_t rows, int64_t m)
{
    return memcmp(a, b, (size_t)(rows * m) * sizeof *a) == 0;
}

static void check_product(product_case p)
{
    if (!test_sampled()) return;
    test_case(
        "product %s mode%d M%lld K%lld gate%d activation%d accumulate%d wild%d", product_type_name(p.type), (int)p.mode,
        (long long)p.m, (long long)p.k, p.gated, (int)p.activation, p.accumulate, p.wild);
    size_t count;
    const test_context *contexts = test_contexts(&count);
    product_matrix weights = product_matrix_random(contexts[1].context, p.type, p.m, p.k, p.wild), gates;
    if (p.gated) gates = product_matrix_random(contexts[1].context, p.type, p.m, p.k, 0);
    const product_matrix *gate = p.gated ? &gates : NULL;
    test_tensor x = random_inputs(p.k), held;
    held = test_tensor_random(lspan_dtype_f32, MOST_ROWS, 1, p.m, test_random_layout(), 10.0f);
    const test_tensor *initial = p.accumulate ? &held : NULL;
    product_expectation expected[3];
    int known[3] = {0, 0, 0};
    float *all = NULL;
    for (size_t i = 0; i < count; i++) {
        const test_context *c = &contexts[i];
        float *got = product_of(c->context, &x, MOST_ROWS, p.mode, &weights, gate, p.activation, initial);
        if (c->threads == 1) {
            lspan_reference_rounding rounding = product_rounding(c->isa, p.type, p.mode);
            if (!known[rounding]++) {
                expected[rounding] = product_expect(&x, rounding, &weights, gate, p.activation, initial);
            }
            product_check(c->name, rounding, got, &expected[rounding]);
            free(all);
            all = got;
        } else {
            CHECK_MESSAGE(same_rows(got, all, MOST_ROWS, p.m), "%s: other bits than with 1 thread", c->name);
            free(got);
        }
        for (size_t j = 0; j < ROW_COUNTS; j++) {
            /* more threads add nothing but another split */
            if (c->threads > 1 && (j + i) % 5 != 0) continue;
            got = product_of(c->context, &x, row_counts[j], p.mode, &weights, gate, p.activation, initial);
            CHECK_MESSAGE(
                same_rows(got, all, row_counts[j], p.m), "%s: other bits in %lld rows than in %d", c->name,
                (long long)row_counts[j], MOST_ROWS);
            free(got);
        }
    }
    for (int i = 0; i < 3; i++) {
        if (known[i]) product_expectation_free(&expected[i]);
    }
    free(all);
    product_matrix_release(&weights);
    if (p.gated) product_matrix_release(&gates);
    test_tensor_release(&x);
    test_tensor_release(&held);
}

/* One block, odd numbers of blocks, which packing pads, and for types without blocks any number. */
static int64_t columns_of(lspan_block_type type, int i)
{
    static const int64_t blocks[] = {1, 3, 2, 5, 7};
    static const int64_t any[] = {1, 37, 64, 255, 300};
    int64_t elements;
    lspan_block_type_layout(type, &elements, NULL);
    if (elements == 1) return any[i % 5];
    return elements == 256 ? 256 * (1 + i % 3) : elements * blocks[i % 5];
}

static void test_shapes(void)
{
    for (size_t t = 0; t < PACKABLE_COUNT; t++) {
        const int64_t sizes[] = {1, 15, 16, 17, 32, 33, 48, test_random_int(2, 70)};
        for (int i = 0; i < 8; i++) {
            for (int mode = 0; mode < 2; mode++) {
                product_case p = {
                    .type = packable[t], .mode = (lspan_product_mode)mode, .m = sizes[i],
                    .k = columns_of(packable[t], i + (int)t + mode), .wild = test_one_in(4)};
                p.accumulate = (i + mode) % 3 == 1;
                check_product(p);
            }
        }
        for (int i = 0; i < 3; i++) {
            product_case p = {
                .type = packable[t], .mode = (lspan_product_mode)((i + (int)t) % 2), .m = sizes[(i * 2 + 1) % 8],
                .k = columns_of(packable[t], i + (int)t), .gated = 1, .activation = (lspan_activation)i};
            check_product(p);
        }
    }
    /* several pieces of columns, and panels of several tasks */
    check_product((product_case){.type = lspan_block_type_q4_0, .m = 200, .k = 2080, .accumulate = 1});
    check_product((product_case){.type = lspan_block_type_q6_k, .mode = lspan_product_mode_f32, .m = 100, .k = 1280});
    check_product((product_case){.type = lspan_block_type_bf16, .m = 150, .k = 777, .gated = 1});
    check_product((product_case){.type = lspan_block_type_f32, .m = 260, .k = 600});
}

/* More rows than one task takes. */
static void test_many_rows(void)
{
    const int64_t rows = 1100, m = 40, k = 64;
    size_t count;
    const test_context *contexts = test_contexts(&count);
    for (size_t t = 0; t < PACKABLE_COUNT; t++) {
        int64_t elements;
        lspan_block_type_layout(packable[t], &elements, NULL);
        int64_t columns = elements == 256 ? 256 : k;
        test_case("product of %lld rows, %s", (long long)rows, product_type_name(packable[t]));
        product_matrix weights = product_matrix_random(contexts[0].context, packable[t], m, columns, 0);
        test_tensor x = test_tensor_random(lspan_dtype_f32, rows, 1, columns, test_random_layout(), 1.0f);
        float *all = NULL;
        for (size_t i = 0; i < count; i++) {
            const test_context *c = &contexts[i];
            float *got = product_of(c->context, &x, rows, lspan_product_mode_native, &weights, NULL, 0, NULL);
            if (c->threads == 1) {
                lspan_reference_rounding rounding = product_rounding(c->isa, packable[t], lspan_product_mode_native);
                product_expectation e = product_expect(&x, rounding, &weights, NULL, 0, NULL);
                product_check(c->name, rounding, got, &e);
                product_expectation_free(&e);
                free(all);
                all = got;
            } else {
                CHECK_MESSAGE(same_rows(got, all, rows, m), "%s: other bits than with 1 thread", c->name);
                free(got);
            }
        }
        free(all);
        product_matrix_release(&weights);
        test_tensor_release(&x);
    }
}

/* ---- Several outputs ------------------------------------------------------------------------------- */

enum { outputs_most = 6 };

/* Outputs of different types and sizes, some gated, some accumulating, in one call. */
static void check_outputs(lspan_product_mode mode, int64_t rows, int64_t k, int output_count)
{
    if (!test_sampled()) return;
    test_case("%d outputs, mode%d R%lld K%lld", output_count, (int)mode, (long long)rows, (long long)k);
    size_t count;
    const test_context *contexts = test_contexts(&count);
    test_tensor x = test_tensor_random(lspan_dtype_f32, rows, 1, k, test_random_layout(), 1.0f);
    product_matrix weights[outputs_most], gates[outputs_most];
    test_tensor held[outputs_most];
    int gated[outputs_most], accumulates[outputs_most];
    lspan_activation activations[outputs_most];
    for (int o = 0; o < output_count; o++) {
        lspan_block_type type = packable[(size_t)test_random_int(0, PACKABLE_COUNT - 1)];
        int64_t m = test_one_in(4) ? test_random_int(0, 2) : test_random_int(1, 60);
        gated[o] = test_one_in(3);
        accumulates[o] = !gated[o] && test_one_in(2);
        activations[o] = (lspan_activation)test_random_int(0, 2);
        weights[o] = product_matrix_random(contexts[0].context, type, m, k, 0);
        if (gated[o]) gates[o] = product_matrix_random(contexts[0].context, type, m, k, 0);
        held[o] = test_tensor_random(lspan_dtype_f32, rows, 1, m, test_random_layout(), 3.0f);
    }
    for (size_t i = 0; i < count; i++) {
        lspan_product_output outputs[outputs_most];
        test_tensor y[outputs_most];
        for (int o = 0; o < output_count; o++) {
            y[o] = test_tensor_copy(&held[o]);
            outputs[o] = (lspan_product_output){
                .weights = weights[o].packed, .activation = activations[o], .accumulate = accumulates[o],
                .data = y[o].buffer.data, .row_stride = y[o].token_stride};
            if (gated[o]) outputs[o].gate = gates[o].packed;
        }
        lspan_product product = {
            .rows = rows, .columns = k, .input = x.buffer.data, .input_row_stride = x.token_stride, .mode = mode,
            .output_count = output_count, .outputs = outputs};
        CHECK_OK(product_run(contexts[i].context, &product));
        for (int o = 0; o < output_count; o++) {
            lspan_reference_rounding rounding = product_rounding(contexts[i].isa, weights[o].weights.type, mode);
            product_expectation e = product_expect(
                &x, rounding, &weights[o], gated[o] ? &gates[o] : NULL, activations[o],
                accumulates[o] ? &held[o] : NULL);
            float *got = test_gather(&y[o]);
            product_check(contexts[i].name, rounding, got, &e);
            test_check_gaps(&y[o]);
            product_expectation_free(&e);
            free(got);
            test_tensor_release(&y[o]);
        }
    }
    for (int o = 0; o < output_count; o++) {
        product_matrix_release(&weights[o]);
        if (gated[o]) product_matrix_release(&gates[o]);
        test_tensor_release(&held[o]);
    }
    test_tensor_release(&x);
}

static void test_outputs(void)
{
    for (int i = 0; i < 12; i++) {
        int64_t rows = test_one_in(2) ? test_random_int(1, 9) : test_random_int(10, 40);
        check_outputs((lspan_product_mode)(i % 2), rows, 256 * (1 + i % 2), 1 + i % outputs_most);
    }
}

/* ---- Executors ------------------------------------------------------------------------------------- */

/* Tasks from the last to the first, on one worker or on three in turn. */
static int run_backwards(void *user, size_t count, lspan_task_function function, void *argument)
{
    size_t workers = *(const size_t *)user;
    for (size_t i = count; i-- > 0;) function(argument, i, i % workers);
    return 0;
}

static void test_executors(void)
{
    size_t count;
    const test_context *contexts = test_contexts(&count);
    for (size_t i = 0; i < count; i += TEST_THREAD_COUNTS) {
        for (size_t workers = 1; workers <= 3; workers += 2) {
            lspan_executor executor = {run_backwards, &workers, workers};
            lspan_context_options options = {0, contexts[i].isa, &executor, 0};
            lspan_context *context = NULL;
            if (!CHECK_OK(lspan_context_create(&options, &context))) continue;
            for (size_t t = 0; t < PACKABLE_COUNT; t++) {
                test_case("%s, %zu workers of a host, %s", contexts[i].isa, workers, product_type_name(packable[t]));
                product_matrix weights = product_matrix_random(context, packable[t], 300, 512, 0);
                test_tensor x = test_tensor_random(lspan_dtype_f32, 40, 1, 512, test_random_layout(), 1.0f);
                for (int mode = 0; mode < 2; mode++) {
                    lspan_product_mode m = (lspan_product_mode)mode;
                    float *want = product_of(contexts[i].context, &x, 40, m, &weights, NULL, 0, NULL);
                    float *got = product_of(context, &x, 40, m, &weights, NULL, 0, NULL);
                    CHECK_MESSAGE(same_rows(got, want, 40, 300), "other bits than with the default executor");
                    free(want);
                    free(got);
                }
                product_matrix_release(&weights);
                test_tensor_release(&x);
            }
            lspan_context_destroy(context);
        }
    }
}

int main(void)
{
    test_shapes();
    test_many_rows();
    test_outputs();
    test_executors();
    return test_finish("product_test");
}
