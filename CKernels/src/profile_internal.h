/* profile_internal.h: the recording side of profile.h. An entry point does
 *
 *     uint64_t began = lspan_profile_begin(context);
 *     lspan_status status = ...;
 *     if (lspan_profile_wants(began, status)) lspan_profile_record(context, began, kernel, variant, cost);
 *     return status;
 */
#ifndef LSPAN_PROFILE_INTERNAL_H
#define LSPAN_PROFILE_INTERNAL_H

#include "context_internal.h"
#include "cost.h"
#include <longspan/profile.h>
#include <stdatomic.h>

#define LSPAN_PROFILE_KERNELS (lspan_profile_kernel_product + 1)

typedef enum lspan_profile_state {
    lspan_profile_off,
    lspan_profile_starting,
    lspan_profile_on
} lspan_profile_state;

struct lspan_profiler {
    _Atomic(int) state;      /* lspan_profile_state */
    _Atomic(size_t) writers; /* threads in lspan_profile_record */
    /* written by lspan_profile_start, while no writer is in */
    uint64_t since;
    lspan_profile_event *events;
    _Atomic(size_t) capacity;
    _Atomic(size_t) taken; /* slots, also beyond the capacity */
    struct {
        _Atomic(int64_t) calls, nanoseconds, bytes, flops, exponentials;
    } totals[LSPAN_PROFILE_KERNELS];
};

/* The time, or 0 where the profile is off. */
static inline uint64_t lspan_profile_begin(const lspan_context *context)
{
    int state = atomic_load_explicit(&context->profiler->state, memory_order_relaxed);
    return __builtin_expect(state == lspan_profile_on, 0) ? lspan_profile_clock() : 0;
}

static inline int lspan_profile_wants(uint64_t began, lspan_status status)
{
    return __builtin_expect(began != 0, 0) && status == lspan_status_ok;
}

void lspan_profile_record(
    const lspan_context *context, uint64_t began, lspan_profile_kernel kernel, int variant, lspan_cost cost);

#endif
