/** @file
 * Key/value caches: memory, scores of what to keep, selection, compaction, and moving keys to other positions.
 *
 * Memory. A reservation is address space whose pages the system hands out, zeroed, when they are first written, so a cache
 * can be laid out for a long context at once and cost only what has been filled. Reservations of 2 MiB and more
 * start on a 2-MiB boundary and ask for huge pages (Linux: MADV_HUGEPAGE), which is worth about 13% of the DRAM read
 * bandwidth. None of the first four functions is a kernel call: each asks the system.
 *
 * Compression of a cache is three calls: scores, a selection that turns them into lists of slots, and a compaction that
 * moves the slots of a list together. A slot is a place in a cache, counted in tokens from its first; a token keeps its
 * position in the text when it moves to another slot, unless its key is rotated to another by lspan_rope_shift.
 */
#ifndef LONGSPAN_KV_H
#define LONGSPAN_KV_H

#include "context.h"
#include "status.h"
#include "types.h"
#include <stddef.h>
#include <stdint.h>

LSPAN_BEGIN_DECLS

/** Bytes of a page: lspan_kv_move moves whole pages. */
LSPAN_SINCE(0, 1)
LSPAN_API size_t lspan_kv_page_bytes(void);

/** Reserves `bytes` (rounded up to pages) of zeroed memory, aligned to a page or more. Release with the same count.
 * Errors: null_pointer, bad_shape (0 bytes), overflow, out_of_memory. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_kv_reserve(size_t bytes, void **memory);

/** Gives a reservation back. NULL is allowed. Errors: bad_alignment (not a page), bad_value (refused by the system). */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_kv_release(void *memory, size_t bytes);

/** Moves `bytes` of content from one reservation into another, by remapping whole pages where the system can (Linux),
 * else by copying. Both pointers and the count must be multiples of the page size and the ranges must not overlap.
 * The source range afterwards holds unspecified content.
 * Errors: null_pointer, bad_alignment; out_of_memory (the system has no more mappings), after which the content of
 * both ranges is unspecified and they must only be released. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_kv_move(void *destination, void *source, size_t bytes);

/* ---- Lag-relative scores ----------------------------------------------------------------------------- */

/** Scores of LagKV (arXiv 2504.04704): how far a token stands out from what the next window would lead one to expect.
 *
 * The keys and values of P + 1 windows of W tokens; window p < P is scored against window p + 1. For Z in {K, V} and one
 * head:
 *
 *     lo_d = min_t Z'[t,d],  hi_d = max_t Z'[t,d]          over the tokens t of window p + 1, by channel
 *     N[t,d] = (Z[t,d] - lo_d) / (hi_d - lo_d)             for the tokens t of window p; no clipping
 *     sigma_t = standard deviation of N[t,d] over the channels d, divisor D - 1
 *     p_t = exp(sigma_t) / sum_u exp(sigma_u)              over the tokens u of window p
 *     score_t = p_t of the keys + value_weight * p_t of the values
 *
 * The paper leaves out what happens where hi_d = lo_d: such a channel, and one whose hi_d - lo_d is less than the least
 * normal f32, takes no part (in the mean, the sum, or the number of channels D), and where fewer than two channels are
 * left, sigma is 0 for every token. Statistics are f32 whatever the dtype. Keys are as they lie in the cache, with their
 * rotary embedding. Nothing is copied. A NaN or an infinity in either of the two windows, or a range or the square of an
 * N[t,d] that f32 does not hold, makes the scores of that head and window unspecified, and no others. */
LSPAN_SINCE(0, 1)
typedef struct lspan_lag_scores {
    int64_t heads;    /**< Hk >= 1 */
    int64_t head_dim; /**< D >= 1 */
    int64_t window;   /**< W >= 1 */
    int64_t windows;  /**< P >= 0 */
    lspan_heads keys;   /**< [(P + 1) * W, Hk, D]; with P = 0 nothing is read */
    lspan_heads values; /**< the same shape and dtype */
    float value_weight; /**< finite, not negative; LagKV has 1 */
    float *scores;      /**< [Hk, P * W] */
    int64_t score_head_stride; /**< at least P * W */
} lspan_lag_scores;

/** Bytes of workspace that lspan_lag_scores_run needs. Errors: those of the call that concern shapes. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_lag_scores_workspace_size(
    const lspan_context *context, const lspan_lag_scores *call, size_t *bytes);

/** Writes the scores.
 * Errors: null_pointer, bad_shape, bad_stride, bad_alignment, bad_dtype, overflow, bad_value (value_weight),
 * workspace_too_small, executor_failed. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_lag_scores_run(
    const lspan_context *context, const lspan_lag_scores *call, void *workspace, size_t workspace_bytes);

/* ---- Selection --------------------------------------------------------------------------------------- */

/** Among what tokens compete, and how many lists that makes. */
LSPAN_SINCE(0, 1)
typedef enum LSPAN_OPEN_ENUM lspan_select_scope {
    lspan_select_scope_row = 0,      /**< the `keep` highest of each row: equal counts, one list a row */
    lspan_select_scope_shared = 1,   /**< the `keep` tokens with the highest sums over all rows: one list for all */
    lspan_select_scope_joint = 2,    /**< the `keep` highest (row, token) pairs of all rows: ragged lists, one a row */
    lspan_select_scope_threshold = 3 /**< every token of a score >= threshold, and at least the `keep` highest of each row */
} lspan_select_scope;

/** Tokens begin .. end-1. */
LSPAN_SINCE(0, 1)
typedef struct lspan_token_range {
    int64_t begin; /**< the first token */
    int64_t end;   /**< the token behind the last */
} lspan_token_range;

/** Which tokens to keep, by scores [rows, tokens]. A row is a head, or a head and a window: its tokens compete.
 *
 * Forced tokens are kept in every row whatever their scores, and count towards `keep` (in the joint scope once for each
 * row). Lists ascend. Among equal scores the lowest token goes first, and in the joint scope among equal tokens the lowest
 * row. -0 equals 0; a NaN ranks below everything, and is never above a threshold. Shared sums are f64, in the order of the
 * rows. */
LSPAN_SINCE(0, 1)
typedef struct lspan_selection {
    lspan_select_scope scope; /**< among what tokens compete */
    int64_t rows;   /**< >= 0 */
    int64_t tokens; /**< N, 0 .. 2^31 - 1 */
    const float *scores; /**< [rows, N] */
    int64_t score_row_stride; /**< elements, at least N */
    int64_t keep;    /**< 0 .. N (joint: rows * N); at least the number of forced tokens (joint: rows times that) */
    float threshold; /**< not NaN; ignored but in its scope */
    const lspan_token_range *forced; /**< [forced_count]: ascending, disjoint, within 0 .. N */
    int64_t forced_count;       /**< >= 0 */
    const int32_t *row_offsets; /**< [rows], >= 0, added to the entries of each row's list; NULL for 0; NULL if shared */

    int32_t *indices; /**< [capacity], written: lists one after another, in memory that overlaps nothing else of the call */
    /** Entries of `indices`, at least: row rows * keep, shared keep, joint keep, threshold rows * N. */
    int64_t capacity;
    int64_t *indptr; /**< [lists + 1], lists = rows, or 1 if shared: list l is indices[indptr[l]] .. [indptr[l+1]-1] */
} lspan_selection;

/** Bytes of workspace that lspan_select needs. Errors: those of the call that concern shapes. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_select_workspace_size(
    const lspan_context *context, const lspan_selection *selection, size_t *bytes);

/** Writes the lists. Takes O(rows * N) time in every scope.
 * Errors: null_pointer, bad_shape (keep and capacity too), bad_stride, bad_alignment, overflow (an offset is negative,
 * or with it the last token does not fit in 31 bits), bad_value (scope, threshold, offsets in the shared scope),
 * bad_index (forced), workspace_too_small, executor_failed. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_select(
    const lspan_context *context, const lspan_selection *selection, void *workspace, size_t workspace_bytes);

/* ---- Compaction -------------------------------------------------------------------------------------- */

/** An array beside the keys and values that is kept in step: element (head, slot) has element_bytes bytes and lies at
 * data + (head * head_stride + slot) * element_bytes. */
LSPAN_SINCE(0, 1)
typedef struct lspan_side_array {
    void *data;            /**< aligned to element_bytes */
    int64_t element_bytes; /**< 1, 2, 4, 8 or 16 */
    int64_t head_stride;   /**< elements, at least slots */
} lspan_side_array;

/** Moves listed slots together, in place: for each head, entry i of its list goes to slot destination + i, and the slots
 * tail_begin .. tail_end-1 go behind the last entry. What lay in other slots from `destination` on is overwritten or left
 * as it was; slots below are not touched. */
LSPAN_SINCE(0, 1)
typedef struct lspan_compaction {
    int64_t heads;    /**< Hk >= 1 */
    int64_t head_dim; /**< D >= 1 */
    int64_t slots;    /**< of the arrays; every index is below it */
    int64_t lists;    /**< 1: one list for all heads; Hk: one for each, of any lengths */
    const int64_t *indptr;  /**< [lists + 1], from 0, not decreasing */
    const int32_t *indices; /**< [indptr[lists]]: slots, strictly ascending within a list, the first >= destination */
    int64_t destination; /**< 0 .. slots */
    int64_t tail_begin;  /**< 0 .. slots; above the last entry of every list, or not below destination where a list is
                            empty, if the tail is not empty */
    int64_t tail_end;    /**< tail_begin .. slots */
    lspan_heads_out keys;   /**< [slots, Hk, D] */
    lspan_heads_out values; /**< the same shape; the dtype may be another */
    const lspan_side_array *side; /**< [side_count], or NULL */
    int64_t side_count;           /**< >= 0 */
} lspan_compaction;

/** Moves the slots of a cache. Tasks are (head, array).
 * Errors: null_pointer, bad_shape, bad_stride, bad_alignment, bad_dtype, overflow, bad_index (indptr, or an entry that
 * does not ascend, lies below the destination, or reaches into the tail or beyond the slots), executor_failed. Takes the
 * time of reading the lists where everything lies in place. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_compact(const lspan_context *context, const lspan_compaction *compaction);

/* ---- Keys at other positions ------------------------------------------------------------------------- */

/** Rotates cached keys from position p to p + shift, in place: R(p + shift) = R(shift) R(p) (Su et al. 2021, eq. 16). The
 * first 2*pairs channels of each head turn by the angles of its token's shift, which are rows of a table that
 * lspan_rope_table made for positions table_first .. table_first + table_rows - 1; the others stay. With `inverse` they
 * turn by as much the other way, which undoes the same call but for rounding. Not for frequencies that change with the
 * length ("dynamic NTK"). */
LSPAN_SINCE(0, 1)
typedef struct lspan_rope_shifting {
    lspan_rope_layout layout; /**< which channels turn together */
    int64_t tokens;        /**< >= 0 */
    int64_t heads;         /**< Hk >= 0 */
    int64_t head_dim;      /**< D >= 2 * pairs */
    int64_t pairs;         /**< 1 .. D / 2 */
    const int32_t *shifts; /**< head h, token t: shifts[h * shift_head_stride + t] */
    int64_t shift_head_stride; /**< at least `tokens`, or 0 where all heads share their shifts */
    int32_t inverse;       /**< 0 or 1 */
    int64_t table_first;   /**< the shift of the table's first row */
    int64_t table_rows;    /**< shifts that the table has */
    const float *cosine;   /**< [table_rows, pairs] */
    const float *sine;     /**< of the same shape */
    lspan_heads_out keys; /**< [tokens, heads, D] */
} lspan_rope_shifting;

/** Rotates the keys.
 * Errors: null_pointer, bad_shape, bad_stride, bad_alignment, bad_dtype, overflow, bad_value (inverse), bad_index (a shift
 * outside the table), executor_failed. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_rope_shift(const lspan_context *context, const lspan_rope_shifting *shifting);

LSPAN_END_DECLS

#endif
