/* context.h: what a kernel call runs with: an ISA variant, an executor and its team size.
 *
 * What a context runs with is immutable after lspan_context_create, so any number of threads may call kernels with
 * one context at once if its executor allows it (the default one does: each call runs a team of its own). The one
 * thing of a context that changes is its profile (profile.h), which threads may turn on, off and read at any time.
 * The only function here that allocates is lspan_context_create_abi. No function keeps a pointer after it
 * returns, except the `user` pointer of an executor, which must outlive the context, and the events of a profile
 * until it is stopped.
 */
#ifndef LONGSPAN_CONTEXT_H
#define LONGSPAN_CONTEXT_H

#include "export.h"
#include "status.h"
#include <stddef.h>
#include <stdint.h>

LSPAN_BEGIN_DECLS

#define LSPAN_VERSION_MAJOR 0
#define LSPAN_VERSION_MINOR 1
#define LSPAN_VERSION_PATCH 0

/* The version of the library that runs, as "0.1.0". */
LSPAN_SINCE(0, 1)
LSPAN_API const char *lspan_version(void);

/* Number of the binary interface that these headers describe: sizes and fields of structs, signatures, numbers of enums.
 * It is also the number of the shared library's SONAME. */
#define LSPAN_ABI 1
/* The number of the library that runs. */
LSPAN_SINCE(0, 1)
LSPAN_API int32_t lspan_abi(void);

/* ---- ISA variants ---------------------------------------------------------------------------------- */

/* Variants compiled into the library, best first; index 0 .. lspan_isa_count()-1. */
LSPAN_SINCE(0, 1)
LSPAN_API size_t lspan_isa_count(void);
/* "avx512bf16", "avx512vnni", "avx512", "avx2" or "scalar"; NULL for an index out of range. */
LSPAN_SINCE(0, 1)
LSPAN_API const char *lspan_isa_name(size_t index);
/* 1 if this CPU and operating system can run the variant, else 0. */
LSPAN_SINCE(0, 1)
LSPAN_API int lspan_isa_is_supported(size_t index);

/* ---- Executor -------------------------------------------------------------------------------------- */

/* One task of a kernel: must be called exactly once for each task in 0 .. count-1, in any order, on any
 * thread. `worker` names the caller's scratch: two tasks that run at the same time must have different
 * workers, and each must be below the executor's worker_count. */
LSPAN_SINCE(0, 1)
typedef void (*lspan_task_function)(void *argument, size_t task, size_t worker);

/* A thread pool. `run` calls `function(argument, i, w)` for each i in 0 .. task_count-1 and returns once all
 * have finished: 0 on success, anything else if it could not run them all. */
LSPAN_SINCE(0, 1)
typedef struct lspan_executor {
    int (*run)(void *user, size_t task_count, lspan_task_function function, void *argument);
    void *user;
    size_t worker_count; /* at least 1 */
} lspan_executor;

/* ---- Context --------------------------------------------------------------------------------------- */

LSPAN_SINCE(0, 1)
typedef struct lspan_context lspan_context;

LSPAN_SINCE(0, 1)
typedef struct lspan_context_options {
    /* Team size of the default executor; 0 takes the physical cores that hwloc finds in the process's
     * binding. Ignored with an executor of your own. At most 4096. */
    int32_t threads;
    /* ISA variant by name; NULL takes the environment's LONGSPAN_ISA, and without one the best supported. */
    const char *isa;
    /* NULL takes the default executor: one OpenMP parallel region a call with an atomic task counter. Copied. */
    const lspan_executor *executor;
    /* 0: calls are cut into tasks for the context's workers, and sums that the cut divides may differ in their last bits
     * between teams. n, 1 to 4096: they are cut as for n workers whatever the team, so that the same call on the same ISA
     * variant gives the same bits with any number of workers and any executor. lspan_linear_run alone is exempt: OpenBLAS
     * decides there. */
    int32_t fixed_split;
} lspan_context_options;

/* Makes a context for a caller that was compiled with headers of number `abi`; programs in C call
 * lspan_context_create. `options` may be NULL for all defaults. On failure *context is left as it was.
 * Errors: abi_mismatch (looked at first), null_pointer, bad_value (threads, worker_count or fixed_split out of range,
 * executor without run), unknown_isa, out_of_memory. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_context_create_abi(
    int32_t abi, const lspan_context_options *options, lspan_context **context);

/* The same for these headers. */
LSPAN_SINCE(0, 1)
static inline lspan_status lspan_context_create(const lspan_context_options *options, lspan_context **context)
{
    return lspan_context_create_abi(LSPAN_ABI, options, context);
}
/* Frees a context; NULL is allowed. No call that uses it may be running. */
LSPAN_SINCE(0, 1)
LSPAN_API void lspan_context_destroy(lspan_context *context);

/* The ISA variant in use, "scalar" for NULL. */
LSPAN_SINCE(0, 1)
LSPAN_API const char *lspan_context_isa(const lspan_context *context);
/* The number of workers (threads) in use, 0 for NULL. */
LSPAN_SINCE(0, 1)
LSPAN_API size_t lspan_context_workers(const lspan_context *context);

/* ---- Topology -------------------------------------------------------------------------------------- */

/* What hwloc reports; 0 where it does not know. */
LSPAN_SINCE(0, 1)
typedef struct lspan_topology {
    int32_t packages;
    int32_t numa_nodes;
    int32_t cores;             /* physical cores this process may run on */
    int32_t processing_units;  /* hardware threads this process may run on */
    int64_t l1d_bytes;         /* of one cache */
    int64_t l2_bytes;          /* of one cache */
    int64_t l3_bytes;          /* of one cache */
    int64_t memory_bytes;      /* of the machine */
} lspan_topology;

/* Reads the machine's topology. It takes milliseconds and allocates inside hwloc: not a kernel call.
 * Errors: null_pointer, out_of_memory. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_topology_read(lspan_topology *topology);

/* The OpenBLAS in use: its configuration string, and how it threads (0 serial, 1 pthreads, 2 OpenMP). */
LSPAN_SINCE(0, 1)
LSPAN_API const char *lspan_openblas_config(void);
LSPAN_SINCE(0, 1)
LSPAN_API int lspan_openblas_parallel(void);

LSPAN_END_DECLS

#endif
