/* linear.c: matrix products through OpenBLAS or, with LSPAN_ACCELERATE, Apple's Accelerate; the only file that uses them.
 *
 * Our executor splits the product; inside a task OpenBLAS runs on one thread. Accelerate has no such switch on all systems
 * that we build for, and takes calls from any number of threads. */
#include "checks.h"
#include "integers.h"
#include "profile_internal.h"
#include "weights.h"
#include <limits.h>
#if defined(LSPAN_ACCELERATE)
#include <Accelerate/Accelerate.h>
#else
#include <cblas.h>
#include <pthread.h>
#endif

#if defined(LSPAN_ACCELERATE)
typedef int blasint;

const char *lspan_openblas_config(void)
{
    return "Accelerate";
}

int lspan_openblas_parallel(void)
{
    return -1;
}

static void enter_single_threaded(void)
{
}

static void leave_single_threaded(void)
{
}
#else
const char *lspan_openblas_config(void)
{
    return openblas_get_config();
}

int lspan_openblas_parallel(void)
{
    return openblas_get_parallel();
}

/* Which count of threads an OpenBLAS obeys depends on its build and version: one of the process, or the size of the calling
 * thread's OpenMP teams, which it also changes when it is told the other. So both are 1 while a product runs, and the
 * callers' own afterwards. The first product in sets the process's, the last one out puts it back; the lock is held only
 * while that changes, because OpenBLAS frees and makes buffers then, which no product may be using. */
static pthread_mutex_t thread_count_lock = PTHREAD_MUTEX_INITIALIZER;
static int products_running;
static int threads_before;

/* Keeps the calling thread's own number. */
static void set_process_threads(int threads)
{
    int own = lspan_openmp_threads();
    openblas_set_num_threads(threads);
    lspan_openmp_set_threads(own);
}

static void enter_single_threaded(void)
{
    pthread_mutex_lock(&thread_count_lock);
    if (products_running++ == 0) {
        threads_before = openblas_get_num_threads();
        set_process_threads(1);
    }
    pthread_mutex_unlock(&thread_count_lock);
}

static void leave_single_threaded(void)
{
    pthread_mutex_lock(&thread_count_lock);
    if (--products_running == 0) set_process_threads(threads_before);
    pthread_mutex_unlock(&thread_count_lock);
}
#endif

typedef struct product {
    const lspan_context *context;
    const lspan_linear *linear;
    int64_t row_bytes;
    int64_t column_tasks;  /* ranges of output columns (rows of W) */
    int64_t row_tasks;     /* ranges of input rows; 1 where weights must be decoded */
    int64_t panel_rows;    /* rows of W decoded at a time */
    char *panels;          /* [workers][panel_rows][K] f32, NULL for f32 weights */
    size_t panel_bytes;    /* of one worker */
} product;

/* A decoded panel of 256 KiB stays in L2 between its decoding and its use. */
#define PANEL_BYTES (INT64_C(256) << 10)
/* OpenBLAS ends the process when more threads than it was built for (64 in Debian) are inside it at once. */
#define MAX_TASKS 64
/* Fewer output columns a task than this and OpenBLAS's packing costs more than the split gains. */
#define MIN_TASK_COLUMNS 64

/* f32 weights that are a whole matrix go to OpenBLAS as they are. */
static product plan_product(const lspan_context *context, const lspan_linear *linear, int64_t row_bytes)
{
    int64_t workers = lspan_min64((int64_t)context->executor.worker_count, MAX_TASKS);
    product p = {context, linear, row_bytes, 1, 1, 0, NULL, 0};
    int64_t columns = linear->weights.rows, rows = linear->rows, depth = linear->weights.columns;
    p.column_tasks = lspan_clamp64(columns / MIN_TASK_COLUMNS, 1, workers);
    if (linear->weights.type == lspan_block_type_f32) {
        if (rows > columns) {
            p.column_tasks = 1;
            p.row_tasks = lspan_clamp64(rows / MIN_TASK_COLUMNS, 1, workers);
        }
    } else {
        int64_t row = lspan_max64(1, depth) * (int64_t)sizeof(float);
        p.panel_rows = lspan_clamp64(PANEL_BYTES / row, 16, lspan_max64(16, columns));
        p.panel_bytes = (size_t)lspan_round_up(p.panel_rows * row, LSPAN_WORKSPACE_ALIGNMENT);
    }
    return p;
}

static size_t product_bytes(const product *p)
{
    return p->panel_bytes * p->context->executor.worker_count;
}

/* y[row0..][column0..] (+)= x W^T for f32 W rows at `weights`. */
static void multiply(
    const lspan_linear *l, const float *weights, int64_t row0, int64_t rows, int64_t column0, int64_t columns)
{
    float beta = l->accumulate ? 1.0f : 0.0f;
    const float *x = l->input + row0 * l->input_row_stride;
    float *y = l->output + row0 * l->output_row_stride + column0;
    blasint depth = (blasint)l->weights.columns, m = (blasint)columns;
    if (rows == 1) {
        cblas_sgemv(CblasRowMajor, CblasNoTrans, m, depth, 1.0f, weights, depth, x, 1, beta, y, 1);
        return;
    }
    cblas_sgemm(
        CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)rows, m, depth, 1.0f, x, (blasint)l->input_row_stride,
        weights, depth, beta, y, (blasint)l->output_row_stride);
}

static void multiply_part(const product *p, size_t index, size_t worker)
{
    const lspan_linear *l = p->linear;
    int64_t column_task = (int64_t)index % p->column_tasks, row_task = (int64_t)index / p->column_tasks;
    int64_t first = l->weights.rows * column_task / p->column_tasks;
    int64_t end = l->weights.rows * (column_task + 1) / p->column_tasks;
    int64_t row0 = l->rows * row_task / p->row_tasks, row_end = l->rows * (row_task + 1) / p->row_tasks;
    if (!p->panels) {
        const float *weights = (const float *)l->weights.data + first * l->weights.columns;
        multiply(l, weights, row0, row_end - row0, first, end - first);
        return;
    }
    float *panel = (float *)(void *)(p->panels + worker * p->panel_bytes);
    for (int64_t column = first; column < end; column += p->panel_rows) {
        int64_t count = lspan_min64(p->panel_rows, end - column);
        const char *blocks = (const char *)l->weights.data + column * p->row_bytes;
        p->context->kernels->dequantize(l->weights.type, blocks, count * l->weights.columns, panel);
        multiply(l, panel, row0, row_end - row0, column, count);
    }
}

static void run_product_task(void *argument, size_t index, size_t worker)
{
    int own = lspan_openmp_threads();
    lspan_openmp_set_threads(1);
    multiply_part(argument, index, worker);
    lspan_openmp_set_threads(own);
}

static lspan_status check_shape(const lspan_context *context, const lspan_linear *linear, int64_t *row_bytes)
{
    if (!context || !linear) return lspan_status_null_pointer;
    LSPAN_CHECK(lspan_check_weights(&linear->weights, row_bytes));
    if (linear->rows < 0 || linear->weights.columns < 1) return lspan_status_bad_shape;
    /* OpenBLAS counts in blasint */
    if (linear->rows > INT_MAX || linear->weights.rows > INT_MAX || linear->weights.columns > INT_MAX / 8 ||
        linear->input_row_stride > INT_MAX || linear->output_row_stride > INT_MAX) {
        return lspan_status_overflow;
    }
    return lspan_status_ok;
}

lspan_status lspan_linear_workspace_size(
    const lspan_context *context, const lspan_linear *linear, size_t *bytes)
{
    int64_t row_bytes;
    if (!bytes) return lspan_status_null_pointer;
    LSPAN_CHECK(check_shape(context, linear, &row_bytes));
    product p = plan_product(context, linear, row_bytes);
    *bytes = product_bytes(&p);
    return lspan_status_ok;
}

lspan_status lspan_linear_run(
    const lspan_context *context, const lspan_linear *linear, void *workspace, size_t workspace_bytes)
{
    int64_t row_bytes;
    LSPAN_CHECK(check_shape(context, linear, &row_bytes));
    lspan_matrix input = {linear->input, lspan_dtype_f32, linear->input_row_stride};
    lspan_matrix_out output = {linear->output, lspan_dtype_f32, linear->output_row_stride};
    LSPAN_CHECK(lspan_check_matrix(input, linear->rows, linear->weights.columns));
    LSPAN_CHECK(lspan_check_matrix_out(output, linear->rows, linear->weights.rows));
    if (linear->rows > 1 && linear->input_row_stride < linear->weights.columns) return lspan_status_bad_stride;
    if (linear->accumulate != 0 && linear->accumulate != 1) return lspan_status_bad_value;
    product p = plan_product(context, linear, row_bytes);
    LSPAN_CHECK(lspan_check_workspace(workspace, workspace_bytes, product_bytes(&p)));
    p.panels = p.panel_bytes ? workspace : NULL;
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_status_ok;
    if (linear->rows > 0 && linear->weights.rows > 0) {
        enter_single_threaded();
        status = lspan_run_tasks(context, (size_t)(p.column_tasks * p.row_tasks), run_product_task, &p);
        leave_single_threaded();
    }
    if (lspan_profile_wants(began, status)) {
        lspan_cost cost = lspan_linear_cost(linear, row_bytes);
        lspan_profile_record(context, began, lspan_profile_kernel_linear, (int)linear->weights.type, cost);
    }
    return status;
}
