/* executor.c: the default executor, the only file that uses OpenMP.
 *
 * One parallel region a call and an atomic task counter: any OpenMP runtime has what that needs, and unequal
 * tasks even out. */
#include "context_internal.h"
#include <omp.h>
#include <stdatomic.h>

int lspan_openmp_run(void *user, size_t count, lspan_task_function function, void *argument)
{
    const lspan_context *context = user;
    size_t workers = context->executor.worker_count;
    int team = (int)(count < workers ? count : workers);
    atomic_size_t next = 0;
#pragma omp parallel num_threads(team) default(none) shared(next, count, function, argument)
    {
        size_t worker = (size_t)omp_get_thread_num();
        for (;;) {
            size_t task = atomic_fetch_add_explicit(&next, 1, memory_order_relaxed);
            if (task >= count) break;
            function(argument, task, worker);
        }
    }
    return 0;
}

int lspan_openmp_threads(void)
{
    return omp_get_max_threads();
}

void lspan_openmp_set_threads(int threads)
{
    omp_set_num_threads(threads);
}
