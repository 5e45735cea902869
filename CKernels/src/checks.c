/* checks.c: validation shared by every entry point. */
#include "checks.h"

lspan_status lspan_multiply(int64_t a, int64_t b, int64_t *product)
{
    return __builtin_mul_overflow(a, b, product) ? lspan_status_overflow : lspan_status_ok;
}

lspan_status lspan_check_aligned(const void *pointer, size_t alignment)
{
    return (uintptr_t)pointer % alignment == 0 ? lspan_status_ok : lspan_status_bad_alignment;
}

lspan_status lspan_check_count(int64_t count, size_t element)
{
    return count < PTRDIFF_MAX / (ptrdiff_t)element ? lspan_status_ok : lspan_status_overflow;
}

/* One past the last element's offset of an [outer, middle, inner] view, in bytes, must fit in 63 bits. */
static lspan_status check_extent(
    int64_t outer, int64_t outer_stride, int64_t middle, int64_t middle_stride, int64_t inner, int64_t element)
{
    int64_t a, b, sum, bytes;
    if (__builtin_mul_overflow(outer - 1, outer_stride, &a)) return lspan_status_overflow;
    if (__builtin_mul_overflow(middle - 1, middle_stride, &b)) return lspan_status_overflow;
    if (__builtin_add_overflow(a, b, &sum) || __builtin_add_overflow(sum, inner, &sum)) return lspan_status_overflow;
    return __builtin_mul_overflow(sum, element, &bytes) ? lspan_status_overflow : lspan_status_ok;
}

lspan_status lspan_check_heads(lspan_heads view, int64_t tokens, int64_t heads, int64_t head_dim)
{
    size_t element = lspan_dtype_size(view.dtype);
    if (element == 0) return lspan_status_bad_dtype;
    if (view.token_stride < 0 || view.head_stride < 0) return lspan_status_bad_stride;
    if (tokens == 0 || heads == 0) return lspan_status_ok;
    LSPAN_CHECK(check_extent(tokens, view.token_stride, heads, view.head_stride, head_dim, (int64_t)element));
    if (!view.data) return lspan_status_null_pointer;
    return lspan_check_aligned(view.data, element);
}

lspan_status lspan_check_heads_out(lspan_heads_out view, int64_t tokens, int64_t heads, int64_t head_dim)
{
    lspan_heads as_input = {view.data, view.dtype, view.token_stride, view.head_stride};
    LSPAN_CHECK(lspan_check_heads(as_input, tokens, heads, head_dim));
    if (tokens == 0 || heads == 0) return lspan_status_ok;
    /* check_extent passed, so these products fit */
    int64_t token_span = (heads - 1) * view.head_stride + head_dim;
    int64_t head_span = (tokens - 1) * view.token_stride + head_dim;
    int heads_inside = (heads == 1 || view.head_stride >= head_dim) && (tokens == 1 || view.token_stride >= token_span);
    int tokens_inside = (tokens == 1 || view.token_stride >= head_dim) && (heads == 1 || view.head_stride >= head_span);
    return heads_inside || tokens_inside ? lspan_status_ok : lspan_status_bad_stride;
}

lspan_status lspan_check_matrix(lspan_matrix view, int64_t rows, int64_t columns)
{
    lspan_heads as_heads = {view.data, view.dtype, view.row_stride, 0};
    return lspan_check_heads(as_heads, rows, columns > 0, columns);
}

lspan_status lspan_check_matrix_out(lspan_matrix_out view, int64_t rows, int64_t columns)
{
    lspan_heads_out as_heads = {view.data, view.dtype, view.row_stride, 0};
    return lspan_check_heads_out(as_heads, rows, columns > 0, columns);
}

lspan_status lspan_check_floats(const float *data, int64_t count)
{
    if (count == 0) return lspan_status_ok;
    if (count > INT64_MAX / (int64_t)sizeof(float)) return lspan_status_overflow;
    return data ? lspan_check_aligned(data, sizeof(float)) : lspan_status_null_pointer;
}

lspan_status lspan_check_indptr(const int64_t *indptr, int64_t sequences)
{
    if (!indptr) return lspan_status_null_pointer;
    LSPAN_CHECK(lspan_check_aligned(indptr, sizeof *indptr));
    LSPAN_CHECK(lspan_check_count(sequences, sizeof *indptr));
    if (indptr[0] != 0) return lspan_status_bad_index;
    for (int64_t b = 0; b < sequences; b++) {
        if (indptr[b + 1] < indptr[b]) return lspan_status_bad_index;
    }
    return lspan_status_ok;
}

lspan_status lspan_check_workspace(const void *workspace, size_t bytes, size_t needed)
{
    if (bytes < needed) return lspan_status_workspace_too_small;
    if (needed == 0) return lspan_status_ok;
    if (!workspace) return lspan_status_null_pointer;
    return lspan_check_aligned(workspace, LSPAN_WORKSPACE_ALIGNMENT);
}
