/* context_internal.h: what a context holds, and the helpers with which entry points use it. */
#ifndef LSPAN_CONTEXT_INTERNAL_H
#define LSPAN_CONTEXT_INTERNAL_H

#include "kernels/kernels.h"
#include <longspan/context.h>

typedef struct lspan_profiler lspan_profiler;

struct lspan_context {
    const lspan_kernels *kernels;
    lspan_executor executor;
    size_t split; /* workers that calls are cut for */
    lspan_profiler *profiler; /* the only part that changes after creation, by atomic operations */
};

/* Runs tasks on the context's executor, or on the caller where there is one task or one worker. */
lspan_status lspan_run_tasks(const lspan_context *context, size_t count, lspan_task_function function, void *argument);

/* Runs function over rows 0 .. rows-1 in equal ranges, on the caller alone where `elements` in all are too few to
 * pay for a fork and join. */
typedef void (*lspan_range_function)(const lspan_context *context, const void *argument, int64_t first, int64_t end);
lspan_status lspan_run_rows(
    const lspan_context *context, int64_t rows, int64_t elements, lspan_range_function function, const void *argument);
/* The same where elements are what the call writes: without any nothing runs, however many rows are empty. */
lspan_status lspan_run_written_rows(
    const lspan_context *context, int64_t rows, int64_t elements, lspan_range_function function, const void *argument);

/* The default executor: an OpenMP team of worker_count threads. */
int lspan_openmp_run(void *user, size_t count, lspan_task_function function, void *argument);

/* The size of the OpenMP teams that the calling thread would start, which belongs to the thread: an OpenBLAS that threads
 * by OpenMP reads it, and sets it. */
int lspan_openmp_threads(void);
void lspan_openmp_set_threads(int threads);

#endif
