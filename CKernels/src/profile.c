/* profile.c: recording calls and reading what was recorded. */
#include "profile_internal.h"
#include "checks.h"
#include <sched.h>
#include <time.h>

static _Thread_local int32_t thread_tag = -1;
/* 0 until the thread records its first event, then its number plus 1 */
static _Thread_local int32_t thread_number;
static _Atomic(int32_t) threads_numbered;

static const char *const kernel_names[LSPAN_PROFILE_KERNELS] = {
    [lspan_profile_kernel_attention_prefill] = "attention_prefill",
    [lspan_profile_kernel_attention_decode] = "attention_decode",
    [lspan_profile_kernel_attention_merge] = "attention_merge",
    [lspan_profile_kernel_rope] = "rope",
    [lspan_profile_kernel_convert] = "convert",
    [lspan_profile_kernel_rms_norm] = "rms_norm",
    [lspan_profile_kernel_layer_norm] = "layer_norm",
    [lspan_profile_kernel_gated_activation] = "gated_activation",
    [lspan_profile_kernel_log_softmax_gather] = "log_softmax_gather",
    [lspan_profile_kernel_embedding] = "embedding",
    [lspan_profile_kernel_linear] = "linear",
    [lspan_profile_kernel_dequantize] = "dequantize",
    [lspan_profile_kernel_lag_scores] = "lag_scores",
    [lspan_profile_kernel_select] = "select",
    [lspan_profile_kernel_compact] = "compact",
    [lspan_profile_kernel_rope_shift] = "rope_shift",
    [lspan_profile_kernel_sparse_prefill] = "sparse_prefill",
    [lspan_profile_kernel_sparse_decode] = "sparse_decode",
    [lspan_profile_kernel_lag_prefill] = "lag_prefill",
    [lspan_profile_kernel_selective_scan] = "selective_scan",
    [lspan_profile_kernel_selective_update] = "selective_update",
    [lspan_profile_kernel_ssd_scan] = "ssd_scan",
    [lspan_profile_kernel_ssd_update] = "ssd_update",
    [lspan_profile_kernel_causal_conv] = "causal_conv",
    [lspan_profile_kernel_gated_rms_norm] = "gated_rms_norm",
    [lspan_profile_kernel_dt_steps] = "dt_steps",
    [lspan_profile_kernel_product] = "product",
};

size_t lspan_profile_kernel_count(void)
{
    return LSPAN_PROFILE_KERNELS;
}

static int is_kernel(lspan_profile_kernel kernel)
{
    return (int)kernel >= 0 && (int)kernel < LSPAN_PROFILE_KERNELS;
}

const char *lspan_profile_kernel_name(lspan_profile_kernel kernel)
{
    return is_kernel(kernel) ? kernel_names[kernel] : "unknown";
}

void lspan_profile_set_tag(int32_t tag)
{
    thread_tag = tag;
}

uint64_t lspan_profile_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ---- On and off ------------------------------------------------------------------------------------ */

/* A writer enters before it looks at the state, so once the state is not "on" and no writer is in, none will touch the
 * events again. Both sides of that are sequentially consistent. */
static void wait_for_writers(lspan_profiler *p)
{
    while (atomic_load(&p->writers) != 0) sched_yield();
}

lspan_status lspan_profile_start(lspan_context *context, lspan_profile_event *events, size_t capacity)
{
    if (!context || (!events && capacity > 0)) return lspan_status_null_pointer;
    LSPAN_CHECK(lspan_check_aligned(events, _Alignof(lspan_profile_event)));
    if (capacity > SIZE_MAX / sizeof *events) return lspan_status_overflow;
    lspan_profiler *p = context->profiler;
    int off = lspan_profile_off;
    if (!atomic_compare_exchange_strong(&p->state, &off, lspan_profile_starting)) return lspan_status_bad_value;
    wait_for_writers(p);
    p->since = lspan_profile_clock();
    p->events = events;
    atomic_store_explicit(&p->capacity, capacity, memory_order_relaxed);
    atomic_store_explicit(&p->taken, 0, memory_order_relaxed);
    for (int i = 0; i < LSPAN_PROFILE_KERNELS; i++) {
        atomic_store_explicit(&p->totals[i].calls, 0, memory_order_relaxed);
        atomic_store_explicit(&p->totals[i].nanoseconds, 0, memory_order_relaxed);
        atomic_store_explicit(&p->totals[i].bytes, 0, memory_order_relaxed);
        atomic_store_explicit(&p->totals[i].flops, 0, memory_order_relaxed);
        atomic_store_explicit(&p->totals[i].exponentials, 0, memory_order_relaxed);
    }
    atomic_store(&p->state, lspan_profile_on);
    return lspan_status_ok;
}

lspan_status lspan_profile_stop(lspan_context *context)
{
    if (!context) return lspan_status_null_pointer;
    int on = lspan_profile_on;
    atomic_compare_exchange_strong(&context->profiler->state, &on, lspan_profile_off);
    wait_for_writers(context->profiler);
    return lspan_status_ok;
}

int lspan_profile_is_on(const lspan_context *context)
{
    return context && atomic_load_explicit(&context->profiler->state, memory_order_relaxed) == lspan_profile_on;
}

/* ---- Recording ------------------------------------------------------------------------------------- */

static int32_t number_of_thread(void)
{
    if (thread_number == 0) {
        thread_number = atomic_fetch_add_explicit(&threads_numbered, 1, memory_order_relaxed) + 1;
    }
    return thread_number - 1;
}

static void add(_Atomic(int64_t) *total, int64_t amount)
{
    atomic_fetch_add_explicit(total, amount, memory_order_relaxed);
}

void lspan_profile_record(
    const lspan_context *context, uint64_t began, lspan_profile_kernel kernel, int variant, lspan_cost cost)
{
    uint64_t duration = lspan_profile_clock() - began;
    lspan_profiler *p = context->profiler;
    atomic_fetch_add(&p->writers, 1);
    /* a call may have begun in a profile that was stopped and started anew since */
    if (atomic_load(&p->state) == lspan_profile_on && began >= p->since) {
        add(&p->totals[kernel].calls, 1);
        add(&p->totals[kernel].nanoseconds, (int64_t)duration);
        add(&p->totals[kernel].bytes, cost.bytes);
        add(&p->totals[kernel].flops, cost.flops);
        add(&p->totals[kernel].exponentials, cost.exponentials);
        size_t slot = atomic_fetch_add_explicit(&p->taken, 1, memory_order_relaxed);
        if (slot < atomic_load_explicit(&p->capacity, memory_order_relaxed)) {
            p->events[slot] = (lspan_profile_event){
                .start_ns = began, .duration_ns = duration, .bytes = cost.bytes, .flops = cost.flops,
                .exponentials = cost.exponentials, .kernel = kernel, .variant = (int32_t)variant, .tag = thread_tag,
                .thread = number_of_thread()};
        }
    }
    atomic_fetch_sub_explicit(&p->writers, 1, memory_order_release);
}

/* ---- Reading --------------------------------------------------------------------------------------- */

lspan_status lspan_profile_read(
    const lspan_context *context, lspan_profile_kernel kernel, lspan_profile_totals *totals)
{
    if (!context || !totals) return lspan_status_null_pointer;
    if (!is_kernel(kernel)) return lspan_status_bad_value;
    lspan_profiler *p = context->profiler;
    totals->calls = atomic_load_explicit(&p->totals[kernel].calls, memory_order_relaxed);
    totals->nanoseconds = atomic_load_explicit(&p->totals[kernel].nanoseconds, memory_order_relaxed);
    totals->bytes = atomic_load_explicit(&p->totals[kernel].bytes, memory_order_relaxed);
    totals->flops = atomic_load_explicit(&p->totals[kernel].flops, memory_order_relaxed);
    totals->exponentials = atomic_load_explicit(&p->totals[kernel].exponentials, memory_order_relaxed);
    return lspan_status_ok;
}

lspan_status lspan_profile_count(const lspan_context *context, size_t *stored, size_t *lost)
{
    if (!context || !stored || !lost) return lspan_status_null_pointer;
    size_t capacity = atomic_load_explicit(&context->profiler->capacity, memory_order_relaxed);
    size_t taken = atomic_load_explicit(&context->profiler->taken, memory_order_relaxed);
    *stored = taken < capacity ? taken : capacity;
    *lost = taken - *stored;
    return lspan_status_ok;
}
