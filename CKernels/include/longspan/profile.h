/* profile.h: what kernel calls on a context took and did: totals by kernel, and an event a call.
 *
 * While a context's profile is on, every kernel call of attention.h, sparse.h, dense.h, product.h, kv.h and ssm.h on it
 * that succeeds is recorded when it returns, by the thread that made it. Off, as it is after lspan_context_create, a
 * call pays two loads and two branches for it; on, two readings of the clock and some atomic additions, about 90 ns.
 * lspan_rope_table has no context and is not recorded, nor are lspan_pack_weights, a product without outputs and the
 * loops of measure.h.
 *
 *     lspan_profile_event events[1000];
 *     lspan_profile_start(context, events, 1000);
 *     for each layer: lspan_profile_set_tag(layer); kernel calls ...
 *     lspan_profile_stop(context);
 *     lspan_profile_count(context, &stored, &lost);       events[0 .. stored-1] hold the calls
 *
 * What a call did is counted from its arguments, whatever the implementation:
 *   bytes         the fewest that must move: each input once, each output once. Of keys and values those that a
 *                 query of the call sees, which in sparse.h are counted for each list, and the lists' entries; of an
 *                 embedding table the rows looked up; optional operands only where they are given; the output also as
 *                 an input where a product accumulates; packed weights as their blocks, without padding. Of a
 *                 compaction only the rows that change their slot; of a rotation in place the channels that turn, and
 *                 as many rows of its table as it can use.
 *   flops         additions and multiplications of the mathematics; an exponential, tanh, erf or division counts
 *                 one. Attention: 4 * D for each query head and pair of a query and a key that it sees, or for each
 *                 time that its list has the key. Products: 2 * R * M * K for each weight matrix, gates also, whose
 *                 activation counts as in gated_activation. Decoding quantized weights counts 2 an element where it
 *                 is the call's purpose (dequantize, embedding), and nothing inside a product, nor does rounding its
 *                 input, nor do rotating keys inside attention and the table for it. Lag scores: 12 * D + 10 for each
 *                 head and scored token; selection: the sums of the shared scope; comparisons count nothing.
 *                 Convolution: 2 a tap; SiLU
 *                 4; softplus 3, and one each for a bias and a filter of steps; gated norm: 8 an element with weights.
 *                 Selective scan: 7 for each token, channel and state, as if no token were skipped, 1 for dt * u and 2
 *                 for D, beside the steps and SiLU. SSD, for each head and token: 5 * P * N in the recurrent form; in the
 *                 chunked one, in chunks of 64 tokens however the kernel cuts them, 64 * P + 4 * P * N, and 64 * N for
 *                 each group and token; and 2 * P for D.
 *   exponentials  exp, or a tanh or erf, which are made of one: one for each query head and pair in attention, two for
 *                 each head and scored token in lag scores; one a SiLU, two a softplus, which has a logarithm as well; one
 *                 for each token, channel and state in the selective scan, and for each head and token in SSD.
 *
 * Any number of threads may call kernels, set tags and read totals while the profile is on.
 */
#ifndef LONGSPAN_PROFILE_H
#define LONGSPAN_PROFILE_H

#include "context.h"
#include "export.h"
#include "status.h"
#include <stddef.h>
#include <stdint.h>

LSPAN_BEGIN_DECLS

/* The kernels that are told apart. Numbers are pinned; new ones may be added at the end. */
LSPAN_SINCE(0, 1)
typedef enum LSPAN_OPEN_ENUM lspan_profile_kernel {
    lspan_profile_kernel_attention_prefill = 0,
    lspan_profile_kernel_attention_decode = 1,
    lspan_profile_kernel_attention_merge = 2,
    lspan_profile_kernel_rope = 3,
    lspan_profile_kernel_convert = 4,
    lspan_profile_kernel_rms_norm = 5,
    lspan_profile_kernel_layer_norm = 6,
    lspan_profile_kernel_gated_activation = 7,
    lspan_profile_kernel_log_softmax_gather = 8,
    lspan_profile_kernel_embedding = 9,
    lspan_profile_kernel_linear = 10,
    lspan_profile_kernel_dequantize = 11,
    lspan_profile_kernel_lag_scores = 12,
    lspan_profile_kernel_select = 13,
    lspan_profile_kernel_compact = 14,
    lspan_profile_kernel_rope_shift = 15,
    lspan_profile_kernel_sparse_prefill = 16,
    lspan_profile_kernel_sparse_decode = 17,
    lspan_profile_kernel_lag_prefill = 18,
    lspan_profile_kernel_selective_scan = 19,
    lspan_profile_kernel_selective_update = 20,
    lspan_profile_kernel_ssd_scan = 21,
    lspan_profile_kernel_ssd_update = 22,
    lspan_profile_kernel_causal_conv = 23,
    lspan_profile_kernel_gated_rms_norm = 24,
    lspan_profile_kernel_dt_steps = 25,
    lspan_profile_kernel_product = 26
} lspan_profile_kernel;

/* Kernels are numbered 0 .. lspan_profile_kernel_count()-1. */
LSPAN_SINCE(0, 1)
LSPAN_API size_t lspan_profile_kernel_count(void);
/* The kernel's identifier without its prefix ("attention_decode"), or "unknown" for a number that is none. Static. */
LSPAN_SINCE(0, 1)
LSPAN_API const char *lspan_profile_kernel_name(lspan_profile_kernel kernel);

/* One call. */
LSPAN_SINCE(0, 1)
typedef struct lspan_profile_event {
    uint64_t start_ns;    /* when the kernel began, its arguments checked: lspan_profile_clock's time */
    uint64_t duration_ns;
    int64_t bytes;
    int64_t flops;
    int64_t exponentials;
    lspan_profile_kernel kernel;
    /* What the kernel worked on: lspan_block_type of the weights in linear, product (of its first output), dequantize
     * and embedding; lspan_activation in gated_activation; else lspan_dtype: of the keys and values in attention, of
     * the keys in lag_scores, compact and rope_shift, of the output in rope and convert, of the input in the others. */
    int32_t variant;
    int32_t tag;    /* of the calling thread, see lspan_profile_set_tag */
    int32_t thread; /* the calling thread: numbered from 0 as threads first record an event in this process */
} lspan_profile_event;

/* Sums over the recorded calls of one kernel. */
LSPAN_SINCE(0, 1)
typedef struct lspan_profile_totals {
    int64_t calls;
    int64_t nanoseconds;
    int64_t bytes;
    int64_t flops;
    int64_t exponentials;
} lspan_profile_totals;

/* Clears totals and counts and turns the profile on. A call is recorded if it begins after this returned and ends
 * before lspan_profile_stop.
 *   events  [capacity], aligned to 8 bytes, written to until lspan_profile_stop has returned; NULL with capacity 0
 *           for totals alone. Calls beyond the capacity are in the totals and counted as lost.
 * Errors: null_pointer, bad_alignment, overflow (the array does not fit in memory), bad_value (it is on already). */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_profile_start(lspan_context *context, lspan_profile_event *events, size_t capacity);

/* Turns the profile off and waits for calls that are just being recorded, not for calls that still run: when it
 * returns, the events are complete and the library uses them no more. Nothing happens where it is off. Totals stay.
 * Errors: null_pointer. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_profile_stop(lspan_context *context);

/* 1 if the profile is on, else 0; 0 for NULL. */
LSPAN_SINCE(0, 1)
LSPAN_API int lspan_profile_is_on(const lspan_context *context);

/* The totals of one kernel since the last start; zeros before the first. While calls are being recorded, each number
 * is one that was true at some moment, not all at the same one.
 * Errors: null_pointer, bad_value (no such kernel). */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_profile_read(
    const lspan_context *context, lspan_profile_kernel kernel, lspan_profile_totals *totals);

/* Events stored since the last start, and those lost because the array was full. Stored events may be read once the
 * profile is off. Errors: null_pointer. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_profile_count(const lspan_context *context, size_t *stored, size_t *lost);

/* What the engine wants to find again in the events of this thread's calls from now on, on any context: a layer, for
 * example. -1 until it is set. As cheap as a store, whether a profile is on or not. */
LSPAN_SINCE(0, 1)
LSPAN_API void lspan_profile_set_tag(int32_t tag);

/* Nanoseconds on the clock of the events (CLOCK_MONOTONIC), so that a host can put times of its own beside them. */
LSPAN_SINCE(0, 1)
LSPAN_API uint64_t lspan_profile_clock(void);

LSPAN_END_DECLS

#endif
