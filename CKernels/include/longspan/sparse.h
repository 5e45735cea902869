/* sparse.h: attention over some of the keys, chosen by index lists or by lag windows. What is not chosen is not read.
 *
 * Both calls take an lspan_attention, whose header says what the operands are, how queries are aligned with keys, and
 * what a row gives that sees nothing. Here a query sees a key where its list has it AND the attention's own mask (causal,
 * window, sinks, by the keys' slots) lets it. Selection is by key/value head, so the G query heads of a group share it.
 * A sequence has at most 2^31 - 1 slots here; more is bad_shape.
 */
#ifndef LONGSPAN_SPARSE_H
#define LONGSPAN_SPARSE_H

#include "attention.h"

LSPAN_BEGIN_DECLS

/* ---- Index lists ------------------------------------------------------------------------------------ */

/* Attention over listed tokens or blocks of tokens: exact softmax attention over the listed keys.
 *
 * An entry e of a list of sequence b stands for the slots e*block .. e*block+block-1 of that sequence that exist: a last
 * block may be cut short by S (or kv_lengths), and one that begins there or beyond stands for none, but an entry must be
 * below ceil(S / block). Entries may come in any order; an entry given twice counts its keys twice. Ascending entries
 * let causal prefill skip what no row of a tile sees, and read memory in order.
 *
 * The lists of sequence b, whose queries are cut into tiles(b) = ceil(T / query_tokens) tiles of query_tokens tokens
 * (query_tokens 0: one tile, also where T is 0), are numbered in order of sequence, tile and head:
 *
 *     list = (sum of tiles over earlier sequences + tile) * list_heads + (list_heads == 1 ? 0 : kv_head)
 *
 * T = 2, S = 6, block 2, entries {0, 2}, causal:   1 1 . . 1 .
 *                                                  1 1 . . 1 1
 */
LSPAN_SINCE(0, 1)
typedef struct lspan_sparse_attention {
    lspan_attention attention;
    int64_t block;        /* tokens of an entry: 1 for a list of tokens */
    int64_t list_heads;   /* 1: a list is shared by all heads; Hk: one for each */
    int64_t query_tokens; /* query tokens that share a list; 0: all of a sequence */
    const int64_t *indptr;  /* [lists + 1], from 0, not decreasing: list l has entries indptr[l] .. indptr[l+1]-1 */
    const int32_t *indices; /* [indptr[lists]] */
} lspan_sparse_attention;

LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_sparse_prefill_workspace_size(
    const lspan_context *context, const lspan_sparse_attention *sparse, size_t *bytes);

/* For any T. A task packs the listed keys once for the rows of a tile of queries that share the list.
 * Errors: those of lspan_attention_prefill; bad_shape (block, list_heads, query_tokens), bad_index (indptr, entries). */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_sparse_prefill(
    const lspan_context *context, const lspan_sparse_attention *sparse, void *workspace, size_t workspace_bytes);

LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_sparse_decode_workspace_size(
    const lspan_context *context, const lspan_sparse_attention *sparse, size_t *bytes);

/* For T = 0 .. 8 query tokens a sequence: each listed key is read once for all T*G rows; a list is split over tasks.
 * query_tokens must be 0 or at least T. Errors: as lspan_sparse_prefill, and bad_shape for a larger T. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_sparse_decode(
    const lspan_context *context, const lspan_sparse_attention *sparse, void *workspace, size_t workspace_bytes);

/* ---- Lag windows ------------------------------------------------------------------------------------ */

/* Prefill under the chunk mask of lag-relative sparse attention (LRSA, arXiv 2506.11498) in one call: what reading a text
 * window by window with a LagKV cache (arXiv 2504.04704) computes, without moving a key.
 *
 * Slots 0 .. leading-1 are seen by every query that is behind them: attention sinks, and tokens kept by earlier
 * compactions. After them slots divide into windows of `lag`: slot s is in window m = (s - leading) / lag. A query in
 * window m sees, causally,
 *
 *     slots below leading;  the kept slots of windows 0 .. m - raw_windows;  every slot of windows m - raw_windows + 1 .. m
 *
 * and a query below leading sees the slots up to its own. raw_windows is 2 where a cache is used and then compressed, 1
 * where it is compressed first. Every other slot is skipped, not masked.
 *
 * leading 1, lag 2, raw_windows 2, kept {1}, {4} of windows 0 and 1, T = S = 8 (windows: 12 34 56 7.):
 *
 *     1 . . . . . . .
 *     1 1 . . . . . .
 *     1 1 1 . . . . .
 *     1 1 1 1 . . . .
 *     1 1 1 1 1 . . .
 *     1 1 . 1 1 1 . .
 *     1 1 . 1 1 1 1 .
 *     1 1 . . 1 1 1 1
 */
LSPAN_SINCE(0, 1)
typedef struct lspan_lag_attention {
    /* causal 1, window 0, one sequence, kv_lengths NULL */
    lspan_attention attention;
    int64_t leading;      /* 0 .. S */
    int64_t lag;          /* at least 1 */
    int64_t raw_windows;  /* at least 1 */
    int64_t keep;         /* slots kept of each window, 0 .. lag */
    int64_t kept_windows; /* windows that have a list: at least those that a query of the call sees by it */
    /* Slots kept, [Hk, kept_windows, keep]: ascending within a window, and within that window. Lists that no query of the
     * call sees are not read. */
    const int32_t *kept;
} lspan_lag_attention;

LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_lag_prefill_workspace_size(
    const lspan_context *context, const lspan_lag_attention *lag, size_t *bytes);

/* Errors: those of lspan_attention_prefill; bad_shape (more than one sequence, leading, lag, raw_windows, keep,
 * kept_windows), bad_value (causal, window, kv_lengths), bad_index (a kept slot outside its window or out of order). */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_lag_prefill(
    const lspan_context *context, const lspan_lag_attention *lag, void *workspace, size_t workspace_bytes);

LSPAN_END_DECLS

#endif
