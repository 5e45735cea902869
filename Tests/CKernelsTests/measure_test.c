/* measure_test.c: the measuring loops do the work that they count, in every variant, and refuse what they must. */
#include "support.h"

/* Whole numbers, so that f32 sums are exact in any order. */
static void test_reading(const test_context *c)
{
    for (int i = 0; i < 40; i++) {
        int64_t count = LSPAN_MEASURE_LINE * test_random_int(0, test_one_in(4) ? 600 : 30);
        int64_t passes = test_random_int(0, 3);
        test_case("read %lld floats %lld times under %s", (long long)count, (long long)passes, c->name);
        test_buffer buffer = test_allocate((size_t)count * sizeof(float), 64);
        float *data = buffer.data;
        double sum = 0, checksum = -1;
        for (int64_t j = 0; j < count; j++) {
            data[j] = (float)test_random_int(-9, 9);
            sum += (double)data[j];
        }
        CHECK_OK(lspan_measure_read(c->context, data, count, passes, &checksum));
        CHECK_MESSAGE(checksum == (double)passes * sum, "%g instead of %g", checksum, (double)passes * sum);
        test_release(&buffer);
    }
}

static void test_multiply_adds(const test_context *c)
{
    static const int64_t iterations[] = {0, 1, 7, 1000, 100000};
    int64_t last = 0;
    for (size_t i = 0; i < sizeof iterations / sizeof iterations[0]; i++) {
        test_case("%lld multiply-adds under %s", (long long)iterations[i], c->name);
        int64_t flops = -1;
        double checksum = -1;
        CHECK_OK(lspan_measure_fma(c->context, lspan_dtype_f32, iterations[i], &flops, &checksum));
        CHECK((double)flops == 2 * checksum);
        /* at least 12 chains a worker, and the same number each step */
        CHECK(flops >= iterations[i] * 24 * c->threads && (i < 2 || flops == iterations[i] * last));
        if (iterations[i] == 1) last = flops;

        CHECK_OK(lspan_measure_fma(c->context, lspan_dtype_bf16, iterations[i], &flops, &checksum));
        int wide = strstr(c->isa, "bf16") != NULL;
        CHECK((double)flops == 4 * checksum && flops == (wide ? 2 * iterations[i] * last : 0));

        CHECK_OK(lspan_measure_fma(c->context, lspan_dtype_f16, iterations[i], &flops, &checksum));
        CHECK(flops == 0 && checksum == 0);
    }
}

static void test_exponentials(const test_context *c)
{
    double want = 0;
    for (int i = 0; i < 2048; i++) want += exp(-(double)(i % 64) / 8);
    for (int64_t passes = 0; passes < 3; passes++) {
        test_case("%lld passes of exp under %s", (long long)passes, c->name);
        int64_t elements = -1;
        double checksum = -1;
        CHECK_OK(lspan_measure_exp(c->context, passes, &elements, &checksum));
        CHECK(elements == passes * 2048 * c->threads);
        CHECK(passes == 0 ? checksum == 0 : fabs(checksum / (want * c->threads) - 1) < 1e-6);
    }
}

static int refuse_tasks(void *user, size_t count, lspan_task_function function, void *argument)
{
    (void)user, (void)count, (void)function, (void)argument;
    return 1;
}

static void test_contract(const lspan_context *c)
{
    test_case("measuring contract");
    _Alignas(64) static float data[2 * LSPAN_MEASURE_LINE];
    const int64_t line = LSPAN_MEASURE_LINE;
    double sum = 7;
    int64_t done = 7;
    CHECK_STATUS(lspan_measure_read(NULL, data, line, 1, &sum), lspan_status_null_pointer);
    CHECK_STATUS(lspan_measure_read(c, NULL, line, 1, &sum), lspan_status_null_pointer);
    CHECK_STATUS(lspan_measure_read(c, data, line, 1, NULL), lspan_status_null_pointer);
    CHECK_STATUS(lspan_measure_read(c, data, -line, 1, &sum), lspan_status_bad_shape);
    CHECK_STATUS(lspan_measure_read(c, data, line - 1, 1, &sum), lspan_status_bad_shape);
    CHECK_STATUS(lspan_measure_read(c, data, line, -1, &sum), lspan_status_bad_value);
    CHECK_STATUS(lspan_measure_read(c, data + 1, line, 1, &sum), lspan_status_bad_alignment);
    CHECK_STATUS(lspan_measure_read(c, data, INT64_MAX - 15, 1, &sum), lspan_status_overflow);

    CHECK_STATUS(lspan_measure_fma(NULL, lspan_dtype_f32, 1, &done, &sum), lspan_status_null_pointer);
    CHECK_STATUS(lspan_measure_fma(c, lspan_dtype_f32, 1, NULL, &sum), lspan_status_null_pointer);
    CHECK_STATUS(lspan_measure_fma(c, lspan_dtype_f32, 1, &done, NULL), lspan_status_null_pointer);
    CHECK_STATUS(lspan_measure_fma(c, (lspan_dtype)9, 1, &done, &sum), lspan_status_bad_dtype);
    CHECK_STATUS(lspan_measure_fma(c, lspan_dtype_f32, -1, &done, &sum), lspan_status_bad_value);
    CHECK_STATUS(lspan_measure_fma(c, lspan_dtype_f32, INT64_MAX, &done, &sum), lspan_status_overflow);

    CHECK_STATUS(lspan_measure_exp(NULL, 1, &done, &sum), lspan_status_null_pointer);
    CHECK_STATUS(lspan_measure_exp(c, 1, NULL, &sum), lspan_status_null_pointer);
    CHECK_STATUS(lspan_measure_exp(c, 1, &done, NULL), lspan_status_null_pointer);
    CHECK_STATUS(lspan_measure_exp(c, -1, &done, &sum), lspan_status_bad_value);
    CHECK_STATUS(lspan_measure_exp(c, INT64_MAX, &done, &sum), lspan_status_overflow);

    lspan_executor executor = {refuse_tasks, NULL, 2};
    lspan_context_options options = {0, NULL, &executor, 0};
    lspan_context *failing = NULL;
    CHECK_OK(lspan_context_create(&options, &failing));
    CHECK_STATUS(lspan_measure_read(failing, data, 2 * line, 1, &sum), lspan_status_executor_failed);
    CHECK_STATUS(lspan_measure_fma(failing, lspan_dtype_f32, 1, &done, &sum), lspan_status_executor_failed);
    CHECK_STATUS(lspan_measure_exp(failing, 1, &done, &sum), lspan_status_executor_failed);
    CHECK(sum == 7 && done == 7);
    lspan_context_destroy(failing);
}

int main(void)
{
    size_t count;
    const test_context *contexts = test_contexts(&count);
    for (size_t i = 0; i < count; i++) {
        test_reading(&contexts[i]);
        test_multiply_adds(&contexts[i]);
        test_exponentials(&contexts[i]);
    }
    test_contract(contexts[0].context);
    return test_finish("measure_test");
}
