/* checks.h: validation shared by every entry point. Each returns the status to refuse with, or ok. */
#ifndef LSPAN_CHECKS_H
#define LSPAN_CHECKS_H

#include <longspan/status.h>
#include <longspan/types.h>

/* Returns from the caller with the first status that is not ok. */
#define LSPAN_CHECK(expression) \
    do { \
        lspan_status check_status_ = (expression); \
        if (check_status_ != lspan_status_ok) return check_status_; \
    } while (0)

/* *product = a * b, or overflow; both at least 0. */
lspan_status lspan_multiply(int64_t a, int64_t b, int64_t *product);

lspan_status lspan_check_aligned(const void *pointer, size_t alignment);

/* Whether `count` elements and one more can be in memory, before they are looked at one by one. */
lspan_status lspan_check_count(int64_t count, size_t element);

/* A [tokens, heads, head_dim] input: dtype known, data present and aligned, strides not negative, last offset in
 * 64 bits. Overlapping (broadcast) inputs are allowed. */
lspan_status lspan_check_heads(lspan_heads view, int64_t tokens, int64_t heads, int64_t head_dim);
/* The same for an output, whose elements must also not overlap. */
lspan_status lspan_check_heads_out(lspan_heads_out view, int64_t tokens, int64_t heads, int64_t head_dim);
/* [rows, columns] likewise. */
lspan_status lspan_check_matrix(lspan_matrix view, int64_t rows, int64_t columns);
lspan_status lspan_check_matrix_out(lspan_matrix_out view, int64_t rows, int64_t columns);

/* A contiguous f32 array of `count` elements that must be there if count > 0. */
lspan_status lspan_check_floats(const float *data, int64_t count);

/* B + 1 offsets from 0 that do not decrease. */
lspan_status lspan_check_indptr(const int64_t *indptr, int64_t sequences);

lspan_status lspan_check_workspace(const void *workspace, size_t bytes, size_t needed);

#endif
