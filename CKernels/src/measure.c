/* measure.c: entry points of measure.h: validation, one task a worker, and sums of what they did. */
#include "checks.h"
#include "context_internal.h"
#include <longspan/measure.h>
#include <stdatomic.h>

typedef struct measurement {
    const lspan_kernels *kernels;
    int64_t workers;
    int64_t repeats;
    const float *data;
    int64_t lines;
    lspan_measured (*fma)(int64_t iterations, float multiplier, float addend);
    atomic_flag busy;
    lspan_measured sum;
} measurement;

static void add(measurement *m, int64_t done, double checksum)
{
    while (atomic_flag_test_and_set_explicit(&m->busy, memory_order_acquire)) {
    }
    m->sum.done += done;
    m->sum.checksum += checksum;
    atomic_flag_clear_explicit(&m->busy, memory_order_release);
}

static lspan_status run(const lspan_context *context, measurement *m, lspan_task_function function)
{
    m->kernels = context->kernels;
    m->workers = (int64_t)context->executor.worker_count;
    atomic_flag_clear(&m->busy);
    return lspan_run_tasks(context, context->executor.worker_count, function, m);
}

/* ---- Reading --------------------------------------------------------------------------------------- */

static void read_slice(void *argument, size_t task, size_t worker)
{
    measurement *m = argument;
    (void)worker;
    int64_t share = m->lines / m->workers, extra = m->lines % m->workers, index = (int64_t)task;
    int64_t first = index * share + (index < extra ? index : extra);
    int64_t count = (share + (index < extra ? 1 : 0)) * LSPAN_MEASURE_LINE;
    if (count > 0) add(m, count, m->kernels->measure_read(m->data + first * LSPAN_MEASURE_LINE, count, m->repeats));
}

lspan_status lspan_measure_read(
    const lspan_context *context, const float *data, int64_t count, int64_t passes, double *checksum)
{
    if (!context || !checksum) return lspan_status_null_pointer;
    if (count < 0 || count % LSPAN_MEASURE_LINE != 0) return lspan_status_bad_shape;
    if (passes < 0) return lspan_status_bad_value;
    LSPAN_CHECK(lspan_check_floats(data, count));
    LSPAN_CHECK(lspan_check_aligned(data, LSPAN_MEASURE_LINE * sizeof(float)));
    measurement m = {.repeats = passes, .data = data, .lines = count / LSPAN_MEASURE_LINE};
    LSPAN_CHECK(run(context, &m, read_slice));
    *checksum = m.sum.checksum;
    return lspan_status_ok;
}

/* ---- Multiply-adds --------------------------------------------------------------------------------- */

static void run_fma(void *argument, size_t task, size_t worker)
{
    measurement *m = argument;
    (void)task;
    (void)worker;
    /* each step adds 1 to every lane, which the checksum counts */
    lspan_measured done = m->fma(m->repeats, 1.0f, 1.0f);
    add(m, done.done, done.checksum);
}

lspan_status lspan_measure_fma(
    const lspan_context *context, lspan_dtype dtype, int64_t iterations, int64_t *flops, double *checksum)
{
    if (!context || !flops || !checksum) return lspan_status_null_pointer;
    if (lspan_dtype_size(dtype) == 0) return lspan_status_bad_dtype;
    if (iterations < 0) return lspan_status_bad_value;
    measurement m = {.repeats = iterations};
    if (dtype == lspan_dtype_f32) m.fma = context->kernels->measure_fma_f32;
    if (dtype == lspan_dtype_bf16) m.fma = context->kernels->measure_fma_bf16;
    if (m.fma) {
        /* no variant does more than 1,024 operations a step */
        int64_t steps, bound;
        LSPAN_CHECK(lspan_multiply(iterations, (int64_t)context->executor.worker_count, &steps));
        LSPAN_CHECK(lspan_multiply(steps, 1024, &bound));
        LSPAN_CHECK(run(context, &m, run_fma));
    }
    *flops = m.sum.done;
    *checksum = m.sum.checksum;
    return lspan_status_ok;
}

/* ---- Exponentials ---------------------------------------------------------------------------------- */

static void run_exp(void *argument, size_t task, size_t worker)
{
    measurement *m = argument;
    (void)task;
    (void)worker;
    add(m, m->repeats * LSPAN_MEASURE_EXPONENTS, m->kernels->measure_exp(m->repeats));
}

lspan_status lspan_measure_exp(const lspan_context *context, int64_t passes, int64_t *elements, double *checksum)
{
    if (!context || !elements || !checksum) return lspan_status_null_pointer;
    if (passes < 0) return lspan_status_bad_value;
    int64_t total;
    LSPAN_CHECK(lspan_multiply(passes, LSPAN_MEASURE_EXPONENTS, &total));
    LSPAN_CHECK(lspan_multiply(total, (int64_t)context->executor.worker_count, &total));
    measurement m = {.repeats = passes};
    LSPAN_CHECK(run(context, &m, run_exp));
    *elements = m.sum.done;
    *checksum = m.sum.checksum;
    return lspan_status_ok;
}
