/* allocation_test.c: no kernel call allocates, maps memory or takes a lock, in any thread, on the caller alone or on an
 * executor of the caller's.
 *
 * The functions of the C library that do so are defined here, count, and go on to those of the C library. A pool that
 * spins takes no lock itself, so everything in the process is counted while a call runs. */
#define _GNU_SOURCE
#include "kernel_calls.h"
#include <stdatomic.h>

#if !defined(__GLIBC__) || defined(LSPAN_SANITIZED)
int main(void)
{
    printf("allocation_test: SKIPPED: needs the C library's own malloc, which sanitizers replace\n");
    return 77;
}
#else
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/mman.h>

/* ---- Counting ------------------------------------------------------------------------------------------------ */

static atomic_int counting;
static atomic_long allocations, locks;

static void count_one(atomic_long *counter)
{
    if (atomic_load_explicit(&counting, memory_order_relaxed)) {
        atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
    }
}

static void start_counting(void)
{
    atomic_store(&allocations, 0);
    atomic_store(&locks, 0);
    atomic_store(&counting, 1);
}

static void stop_counting(void)
{
    atomic_store(&counting, 0);
}

/* ---- The C library's functions --------------------------------------------------------------------------------- */

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

void *malloc(size_t bytes)
{
    count_one(&allocations);
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t element)
{
    count_one(&allocations);
    return __libc_calloc(count, element);
}

void *realloc(void *memory, size_t bytes)
{
    count_one(&allocations);
    return __libc_realloc(memory, bytes);
}

void free(void *memory)
{
    count_one(&allocations);
    __libc_free(memory);
}

void *memalign(size_t alignment, size_t bytes)
{
    count_one(&allocations);
    return __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    return memalign(alignment, bytes);
}

int posix_memalign(void **memory, size_t alignment, size_t bytes)
{
    *memory = memalign(alignment, bytes);
    return *memory ? 0 : 12;
}

/* Defines a function that counts and calls the C library's of that name. */
#define COUNTED(counter, result, name, parameters, arguments) \
    result name parameters \
    { \
        static _Atomic(void *) next; \
        void *known = atomic_load_explicit(&next, memory_order_relaxed); \
        if (!known) atomic_store_explicit(&next, known = dlsym(RTLD_NEXT, #name), memory_order_relaxed); \
        result(*function) parameters; \
        memcpy(&function, &known, sizeof function); \
        count_one(&counter); \
        return function arguments; \
    }

COUNTED(allocations, void *, mmap, (void *a, size_t n, int p, int f, int fd, off_t o), (a, n, p, f, fd, o))
COUNTED(allocations, int, munmap, (void *a, size_t n), (a, n))
COUNTED(allocations, int, madvise, (void *a, size_t n, int advice), (a, n, advice))
COUNTED(allocations, void *, sbrk, (intptr_t n), (n))
COUNTED(locks, int, pthread_mutex_lock, (pthread_mutex_t * m), (m))
COUNTED(locks, int, pthread_mutex_trylock, (pthread_mutex_t * m), (m))
COUNTED(locks, int, pthread_rwlock_rdlock, (pthread_rwlock_t * l), (l))
COUNTED(locks, int, pthread_rwlock_wrlock, (pthread_rwlock_t * l), (l))
COUNTED(locks, int, pthread_spin_lock, (pthread_spinlock_t * l), (l))
COUNTED(locks, int, sem_wait, (sem_t * s), (s))

/* ---- A pool that spins ------------------------------------------------------------------------------------------ */

#define POOL_WORKERS 3

/* Threads wait for `generation` to change, take tasks until there are none, and say so. The caller is worker 0. */
typedef struct spinning_pool {
    pthread_t threads[POOL_WORKERS];
    atomic_ulong generation;
    atomic_size_t next, done;
    size_t count;
    lspan_task_function function;
    void *argument;
    atomic_int stop;
} spinning_pool;

typedef struct spinning_worker {
    spinning_pool *pool;
    size_t number;
} spinning_worker;

static void take_tasks(spinning_pool *p, size_t worker)
{
    size_t task;
    while ((task = atomic_fetch_add(&p->next, 1)) < p->count) p->function(p->argument, task, worker);
}

static void *spin(void *argument)
{
    spinning_worker *self = argument;
    spinning_pool *p = self->pool;
    for (unsigned long seen = 0;; seen++) {
        while (atomic_load(&p->generation) == seen) sched_yield();
        if (atomic_load(&p->stop)) return NULL;
        take_tasks(p, self->number);
        atomic_fetch_add(&p->done, 1);
    }
}

static int run_on_spinning_pool(void *user, size_t count, lspan_task_function function, void *argument)
{
    spinning_pool *p = user;
    p->count = count;
    p->function = function;
    p->argument = argument;
    atomic_store(&p->next, 0);
    atomic_store(&p->done, 0);
    atomic_fetch_add(&p->generation, 1);
    take_tasks(p, 0);
    while (atomic_load(&p->done) < POOL_WORKERS - 1) sched_yield();
    return 0;
}

static void start_pool(spinning_pool *p, spinning_worker *workers)
{
    for (size_t w = 1; w < POOL_WORKERS; w++) {
        workers[w] = (spinning_worker){p, w};
        CHECK(pthread_create(&p->threads[w], NULL, spin, &workers[w]) == 0);
    }
}

static void stop_pool(spinning_pool *p)
{
    atomic_store(&p->stop, 1);
    atomic_fetch_add(&p->generation, 1);
    for (size_t w = 1; w < POOL_WORKERS; w++) pthread_join(p->threads[w], NULL);
}

/* ---- Tests -------------------------------------------------------------------------------------------------------- */

static void expect_nothing(void)
{
    CHECK_MESSAGE(atomic_load(&allocations) == 0, "%ld allocations", atomic_load(&allocations));
    CHECK_MESSAGE(atomic_load(&locks) == 0, "%ld locks", atomic_load(&locks));
}

/* Contexts allocate and products by OpenBLAS lock, so the counters must see them. */
static void test_counters(void)
{
    test_case("counters");
    lspan_context *context = NULL;
    lspan_context_options options = {1, NULL, NULL, 0};
    start_counting();
    lspan_status status = lspan_context_create(&options, &context);
    stop_counting();
    CHECK_OK(status);
    CHECK(atomic_load(&allocations) == 1);
    float x = 2, y = 0;
    lspan_linear one = {.weights = {&x, lspan_block_type_f32, 1, 1}, .rows = 1, .input = &x, .input_row_stride = 1,
        .output = &y, .output_row_stride = 1};
    start_counting();
    status = lspan_linear_run(context, &one, NULL, 0);
    stop_counting();
    CHECK_OK(status);
    CHECK(y == 4 && atomic_load(&locks) >= 2);
    start_counting();
    lspan_context_destroy(context);
    stop_counting();
    CHECK(atomic_load(&allocations) == 1);
    void *memory = NULL;
    start_counting();
    status = lspan_kv_reserve(1, &memory);
    stop_counting();
    CHECK_OK(status);
    CHECK(atomic_load(&allocations) > 0);
    CHECK_OK(lspan_kv_release(memory, 1));
}

/* The loops of measure.h, and what answers without a kernel. */
static lspan_status run_others(const lspan_context *context, const float *line)
{
    double checksum;
    int64_t done;
    size_t bytes;
    lspan_profile_totals totals;
    const char *names[] = {lspan_status_name(lspan_status_ok), lspan_context_isa(context), lspan_isa_name(0),
        lspan_profile_kernel_name(lspan_profile_kernel_rope), lspan_version(), lspan_status_description(lspan_status_ok)};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!names[i]) return lspan_status_null_pointer;
    }
    lspan_status status = lspan_measure_read(context, line, LSPAN_MEASURE_LINE, 3, &checksum);
    if (status == lspan_status_ok) status = lspan_measure_fma(context, lspan_dtype_f32, 10, &done, &checksum);
    if (status == lspan_status_ok) status = lspan_measure_fma(context, lspan_dtype_bf16, 10, &done, &checksum);
    if (status == lspan_status_ok) status = lspan_measure_exp(context, 1, &done, &checksum);
    if (status == lspan_status_ok) status = lspan_packed_bytes(lspan_block_type_q4_k, 64, 256, &bytes);
    if (status == lspan_status_ok) status = lspan_profile_read(context, lspan_profile_kernel_rope, &totals);
    return status;
}

static void test_context_calls(lspan_context *context, const kernel_call *calls, size_t count, const float *line)
{
    static lspan_profile_event events[16];
    for (size_t i = 0; i < count; i++) {
        test_case("%s, %s with %zu workers", calls[i].name, lspan_context_isa(context), lspan_context_workers(context));
        size_t bytes = kernel_call_bytes(&calls[i], context), again = 0;
        test_buffer workspace = test_allocate(bytes, LSPAN_WORKSPACE_ALIGNMENT);
        for (int profiled = 0; profiled < 2; profiled++) {
            kernel_call_reset(&calls[i], 0);
            start_counting();
            lspan_status status = profiled ? lspan_profile_start(context, events, 16) : lspan_status_ok;
            if (status == lspan_status_ok && calls[i].size) status = calls[i].size(context, calls[i].arguments, &again);
            if (status == lspan_status_ok) status = calls[i].run(context, calls[i].arguments, workspace.data, bytes);
            if (profiled) lspan_profile_stop(context);
            stop_counting();
            CHECK_OK(status);
            if (!calls[i].uses_openblas) expect_nothing();
        }
        test_release(&workspace);
    }
    test_case("other functions, %s with %zu workers", lspan_context_isa(context), lspan_context_workers(context));
    start_counting();
    lspan_status status = run_others(context, line);
    stop_counting();
    CHECK_OK(status);
    expect_nothing();
}

/* What cannot be in a profile cannot be forgotten here. */
static void test_all_kernels_are_called(const kernel_call *calls, size_t count)
{
    test_case("every kernel");
    lspan_context *context = NULL;
    lspan_context_options options = {1, NULL, NULL, 0};
    if (!CHECK_OK(lspan_context_create(&options, &context))) return;
    CHECK_OK(lspan_profile_start(context, NULL, 0));
    for (size_t i = 0; i < count; i++) CHECK_OK(kernel_call_run(&calls[i], context, 0));
    CHECK_OK(lspan_profile_stop(context));
    for (size_t k = 0; k < lspan_profile_kernel_count(); k++) {
        lspan_profile_totals totals = {0};
        CHECK_OK(lspan_profile_read(context, (lspan_profile_kernel)k, &totals));
        CHECK_MESSAGE(totals.calls > 0, "%s is not called", lspan_profile_kernel_name((lspan_profile_kernel)k));
    }
    lspan_context_destroy(context);
}

/* OpenMP's threads, once there, take nothing more from the system either; its locks are its own. */
static void test_default_executor(const kernel_call *calls, size_t count)
{
    lspan_context *context = NULL;
    lspan_context_options options = {2, NULL, NULL, 0};
    if (!CHECK_OK(lspan_context_create(&options, &context))) return;
    for (size_t i = 0; i < count; i++) CHECK_OK(kernel_call_run(&calls[i], context, 0));
    for (size_t i = 0; i < count; i++) {
        if (calls[i].uses_openblas) continue;
        test_case("%s, the default executor", calls[i].name);
        size_t bytes = kernel_call_bytes(&calls[i], context);
        test_buffer workspace = test_allocate(bytes, LSPAN_WORKSPACE_ALIGNMENT);
        kernel_call_reset(&calls[i], 0);
        start_counting();
        lspan_status status = calls[i].run(context, calls[i].arguments, workspace.data, bytes);
        stop_counting();
        CHECK_OK(status);
        CHECK_MESSAGE(atomic_load(&allocations) == 0, "%ld allocations", atomic_load(&allocations));
        test_release(&workspace);
    }
    lspan_context_destroy(context);
}

int main(void)
{
    size_t count, isas;
    const kernel_call *calls = kernel_calls(&count);
    const char *const *names = test_isas(&isas);
    _Alignas(64) static const float line[LSPAN_MEASURE_LINE] = {1, 2, 3};
    static spinning_pool pool;
    spinning_worker workers[POOL_WORKERS];
    test_counters();
    test_all_kernels_are_called(calls, count);
    start_pool(&pool, workers);
    lspan_executor executor = {run_on_spinning_pool, &pool, POOL_WORKERS};
    for (size_t v = 0; v < isas; v++) {
        for (int pooled = 0; pooled < 2; pooled++) {
            lspan_context_options options = {1, names[v], pooled ? &executor : NULL, 0};
            lspan_context *context = NULL;
            if (!CHECK_OK(lspan_context_create(&options, &context))) continue;
            test_context_calls(context, calls, count, line);
            lspan_context_destroy(context);
        }
    }
    stop_pool(&pool);
    test_default_executor(calls, count);
    return test_finish("allocation_test");
}
#endif
