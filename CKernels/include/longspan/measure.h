/* measure.h: loops that run into one limit of the machine each, so that a kernel's rate has something to stand beside.
 *
 * Every worker of the context takes part, each on a share of its own; the caller takes the time and divides what was
 * done by it. Run each loop for a millisecond or more, so that starting the workers does not count. A checksum proves
 * that the work was done. The loops use the context's ISA variant: a machine's ceilings are those of its best one.
 */
#ifndef LONGSPAN_MEASURE_H
#define LONGSPAN_MEASURE_H

#include "context.h"
#include "status.h"
#include "types.h"

LSPAN_BEGIN_DECLS

/* Floats that lspan_measure_read's count is a multiple of: a cache line of 64 bytes. */
#define LSPAN_MEASURE_LINE 16

/* Reads data [count] f32 from front to back `passes` times: each worker reads one slice of whole cache lines, over and
 * over. data is aligned to 64 bytes. *checksum = passes times the sum of the elements; the slices' sums are in f32, so
 * it is exact only for whole numbers whose sums stay below 2^24.
 * Errors: null_pointer, bad_shape (count negative or not whole lines), bad_value (passes negative), bad_alignment,
 * overflow, executor_failed. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_measure_read(
    const lspan_context *context, const float *data, int64_t count, int64_t passes, double *checksum);

/* Multiply-adds in registers, in at least 12 independent chains: of f32, or of pairs of bf16 that are summed in f32.
 * *flops is what all workers did, a multiply-add counting two; it and *checksum are 0, and nothing is run, where the
 * variant or the CPU has no arithmetic in `dtype` (always for f16). *checksum = multiply-add instructions times their
 * lanes, exact up to 2^20 iterations.
 * Errors: null_pointer, bad_dtype, bad_value (iterations negative), overflow, executor_failed. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_measure_fma(
    const lspan_context *context, lspan_dtype dtype, int64_t iterations, int64_t *flops, double *checksum);

/* e^x over an array that stays in each worker's L1 cache, as the attention kernels compute it. *elements is what all
 * workers did. *checksum is the sum of the results of one pass of each worker, 0 for no passes: 2048 values of
 * x = -(i mod 64) / 8 a worker.
 * Errors: null_pointer, bad_value (passes negative), overflow, executor_failed. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_measure_exp(
    const lspan_context *context, int64_t passes, int64_t *elements, double *checksum);

LSPAN_END_DECLS

#endif
