/* context.c: making and asking contexts, and running tasks on them. */
#include "context_internal.h"
#include "dispatch.h"
#include "profile_internal.h"
#include "tuning.h"
#include <stdlib.h>
#include <string.h>

#define MAX_WORKERS 4096

/* One allocation for both. */
typedef struct context_memory {
    lspan_context context;
    lspan_profiler profiler;
} context_memory;

const char *lspan_version(void)
{
    return "0.1.0";
}

int32_t lspan_abi(void)
{
    return LSPAN_ABI;
}

lspan_status lspan_context_create_abi(int32_t abi, const lspan_context_options *options, lspan_context **context)
{
    static const lspan_context_options defaults = {0, NULL, NULL, 0};
    const lspan_context_options *o = options ? options : &defaults;
    if (abi != LSPAN_ABI) return lspan_status_abi_mismatch;
    if (!context) return lspan_status_null_pointer;
    if (o->threads < 0 || o->threads > MAX_WORKERS) return lspan_status_bad_value;
    if (o->fixed_split < 0 || o->fixed_split > MAX_WORKERS) return lspan_status_bad_value;
    if (o->executor && (!o->executor->run || o->executor->worker_count < 1 || o->executor->worker_count > MAX_WORKERS)) {
        return lspan_status_bad_value;
    }
    const char *forced = getenv("LONGSPAN_ISA");
    const char *isa = o->isa ? o->isa : forced && *forced ? forced : NULL;
    const lspan_kernels *kernels = lspan_find_kernels(isa);
    if (!kernels) return lspan_status_unknown_isa;

    size_t workers = (size_t)o->threads;
    if (!o->executor && workers == 0) {
        lspan_topology topology;
        lspan_status status = lspan_topology_read(&topology);
        if (status != lspan_status_ok) return status;
        workers = topology.cores > 0 ? (size_t)topology.cores : 1;
        if (workers > MAX_WORKERS) workers = MAX_WORKERS;
    }
    context_memory *memory = calloc(1, sizeof *memory);
    if (!memory) return lspan_status_out_of_memory;
    lspan_context *made = &memory->context;
    made->profiler = &memory->profiler;
    made->kernels = kernels;
    if (o->executor) {
        made->executor = *o->executor;
    } else {
        made->executor.run = lspan_openmp_run;
        made->executor.user = made;
        made->executor.worker_count = workers;
    }
    made->split = o->fixed_split > 0 ? (size_t)o->fixed_split : made->executor.worker_count;
    *context = made;
    return lspan_status_ok;
}

void lspan_context_destroy(lspan_context *context)
{
    free(context);
}

const char *lspan_context_isa(const lspan_context *context)
{
    return context ? context->kernels->name : "scalar";
}

size_t lspan_context_workers(const lspan_context *context)
{
    return context ? context->executor.worker_count : 0;
}

lspan_status lspan_run_tasks(const lspan_context *context, size_t count, lspan_task_function function, void *argument)
{
    if (count <= 1 || context->executor.worker_count == 1) {
        for (size_t i = 0; i < count; i++) function(argument, i, 0);
        return lspan_status_ok;
    }
    int failed = context->executor.run(context->executor.user, count, function, argument);
    return failed ? lspan_status_executor_failed : lspan_status_ok;
}

typedef struct row_ranges {
    const lspan_context *context;
    int64_t rows;
    int64_t tasks;
    lspan_range_function function;
    const void *argument;
} row_ranges;

static void run_range(void *argument, size_t task, size_t worker)
{
    const row_ranges *r = argument;
    (void)worker;
    int64_t share = r->rows / r->tasks, extra = r->rows % r->tasks, index = (int64_t)task;
    int64_t first = index * share + (index < extra ? index : extra);
    r->function(r->context, r->argument, first, first + share + (index < extra ? 1 : 0));
}

lspan_status lspan_run_rows(
    const lspan_context *context, int64_t rows, int64_t elements, lspan_range_function function, const void *argument)
{
    if (rows == 0) return lspan_status_ok;
    int64_t tasks = (int64_t)context->split;
    if (elements < LSPAN_SERIAL_ELEMENTS) tasks = 1;
    if (tasks > rows) tasks = rows;
    row_ranges ranges = {context, rows, tasks, function, argument};
    return lspan_run_tasks(context, (size_t)tasks, run_range, &ranges);
}

lspan_status lspan_run_written_rows(
    const lspan_context *context, int64_t rows, int64_t elements, lspan_range_function function, const void *argument)
{
    return elements > 0 ? lspan_run_rows(context, rows, elements, function, argument) : lspan_status_ok;
}
