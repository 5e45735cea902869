/* attention.h: exact attention with a streamed softmax, for prefill and for decode.
 *
 * For sequence b, query token i of T and query head h with key/value head g = h / G:
 *
 *     s_j = scale * q_i . k_j                              scaled dot product, Vaswani et al. 2017, eq. 1
 *     s_j = softcap * tanh(s_j / softcap)                  where softcap > 0 (Gemma 2, section 2)
 *     o_i = sum_j exp(s_j - L) v_j,  L = log sum_j exp(s_j)      over the keys j that the query sees
 *
 * The softmax is streamed over key tiles (Milakov and Gimelshein 2018; Dao et al. 2022, algorithm 1), so no
 * T x S matrix exists. Arithmetic and statistics are f32 whatever the inputs' dtype, with one exception: prefill on a
 * CPU with bf16 dot products (variant avx512bf16), where queries, keys and values are all bf16, rounds each
 * exp(s_j - max) to bf16 before it weighs v_j, a relative error of at most 2^-8; sums stay f32. There, in prefill and
 * decode, subnormal bf16 elements of queries and keys (and in prefill of values) count as zero.
 *
 * Which keys a query sees. Queries sit at the end of the keys (bottom-right alignment): query i is at key
 * position p = S - T + i, which is negative for the first queries where T > S. It sees key j where
 *
 *     j <= p                       if causal
 *     j > p - window, or j < sinks     if window > 0     (a window of w sees w keys, its own included)
 *
 * T = 3, S = 5:  causal      causal, window 2   causal, window 2, sinks 1
 *                1 1 1 . .   . 1 1 . .          1 1 1 . .
 *                1 1 1 1 .   . . 1 1 .          1 . 1 1 .
 *                1 1 1 1 1   . . . 1 1          1 . . 1 1
 *
 * A query that sees no key, or only keys whose logit is minus infinity, gives a zero output and a log-sum-exp
 * of minus infinity. T = 0 and S = 0 are legal. A NaN in a visible key, value or query gives NaN in the rows
 * that see it; a key or value that is not finite may also reach rows of the same call that do not see it.
 * Grouped queries never repeat K or V: query heads h = g*G .. g*G+G-1 read key/value head g.
 */
#ifndef LONGSPAN_ATTENTION_H
#define LONGSPAN_ATTENTION_H

#include "context.h"
#include "status.h"
#include "types.h"

LSPAN_BEGIN_DECLS

/* Largest head dimension D; D must be a multiple of 8. */
#define LSPAN_ATTENTION_MAX_HEAD_DIM 256
/* Largest number of query tokens a sequence may have in a decode call. */
#define LSPAN_ATTENTION_MAX_DECODE_TOKENS 8

/* Rotary embedding of keys as they are read, for a cache that holds them unrotated: the first 2*pairs channels of the
 * key in slot s of its sequence turn by row positions[s] of the table, or by row s where positions is NULL. The keys in
 * memory stay as they are; queries come rotated. The rotation is f32, and with it bf16 keys are not taken by dot products
 * of pairs. Equal to lspan_rope on the keys, without its rounding to the keys' dtype. A sequence has at most 2^31 - 1 slots
 * then; more is bad_shape. An unknown layout is bad_dtype, as for lspan_rope. */
LSPAN_SINCE(0, 1)
typedef struct lspan_key_rotation {
    lspan_rope_layout layout;
    int64_t pairs;        /* 1 .. D / 2 */
    int64_t rows;         /* of the table: more than any position, or at least as many as any head has keys */
    const float *cosine;  /* [rows, pairs], as lspan_rope_table makes them */
    const float *sine;
    const int32_t *positions; /* [sum S], 0 .. rows-1, shared by the heads; or NULL. Slots without a key are not looked at */
} lspan_key_rotation;

/* One attention call over a ragged batch. */
LSPAN_SINCE(0, 1)
typedef struct lspan_attention {
    int64_t sequences;   /* B >= 0; finding a task's sequence takes O(B), so hundreds, not hundreds of thousands */
    int64_t query_heads; /* Hq: a multiple of kv_heads, at most 2^20 */
    int64_t kv_heads;    /* Hk >= 1 */
    int64_t head_dim;    /* D: a multiple of 8, 8 to 256 */

    /* Row ranges of each sequence in the packed token dimensions, [B + 1], non-decreasing from 0: sequence b
     * has query tokens query_indptr[b] .. query_indptr[b+1]-1 and keys kv_indptr[b] .. kv_indptr[b+1]-1. */
    const int64_t *query_indptr;
    const int64_t *kv_indptr;

    lspan_heads queries; /* [sum T, Hq, D] */
    lspan_heads keys;    /* [sum S, Hk, D] */
    lspan_heads values;  /* [sum S, Hk, D]; same dtype as keys */

    /* Keys that each head of a sequence has, [B, Hk], 0 .. the sequence's S, which then is a capacity; NULL where every
     * head has all S. What is said of S above holds for each head's own number: queries sit at the end of its keys. */
    const int64_t *kv_lengths;
    /* NULL for keys that are rotated already, or need not be. */
    const lspan_key_rotation *key_rotation;

    /* [sum T, Hq, D] f32; must not overlap any input. */
    float *output;
    int64_t output_token_stride;
    int64_t output_head_stride;
    /* [sum T, Hq] f32, contiguous; NULL if not wanted. Natural logarithm, of the scaled and capped logits. */
    float *log_sum_exp;

    float scale;    /* finite; usually 1 / sqrt(D) */
    float softcap;  /* 0 for none, else positive and finite */
    int32_t causal; /* 0 or 1 */
    int64_t window; /* 0 for none, else at least 1 */
    int64_t sinks;  /* leading keys seen whatever the window; 0 for none; ignored without a window */
} lspan_attention;

/* Bytes of workspace that a prefill call needs: grows with the workers of the context and with D, not with
 * T or S. Errors: those of the call that concern shapes. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_attention_prefill_workspace_size(
    const lspan_context *context, const lspan_attention *attention, size_t *bytes);

/* Attention for any T: tasks are (sequence, key/value head, tile of query rows); key tiles that no row of a
 * query tile sees are skipped. workspace: aligned to LSPAN_WORKSPACE_ALIGNMENT, not shared with a call that
 * runs at the same time.
 * Errors: null_pointer, bad_shape, bad_stride, bad_alignment, bad_dtype, overflow, bad_value, bad_index
 * (indptr, kv_lengths, a rotation's positions), workspace_too_small, executor_failed. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_attention_prefill(
    const lspan_context *context, const lspan_attention *attention, void *workspace, size_t workspace_bytes);

/* Bytes of workspace that a decode call needs: grows with T, with the workers and with B*Hk, not with S. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_attention_decode_workspace_size(
    const lspan_context *context, const lspan_attention *attention, size_t *bytes);

/* Attention for T = 0 .. 8 query tokens a sequence: each key is read once for all T*G rows, and the keys of a
 * sequence and head are split over tasks, whose partial results are merged exactly, so that one sequence
 * with one key/value head still uses every worker. Errors: as prefill; T > 8 is bad_shape. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_attention_decode(
    const lspan_context *context, const lspan_attention *attention, void *workspace, size_t workspace_bytes);

/* Merges attention results over disjoint key sets into the result over their union (Dao et al. 2022, sec 3.1;
 * Juravsky et al. 2024, eq. 4): out = sum_p exp(lse_p - L) out_p with L = log sum_p exp(lse_p).
 *   outputs          [parts, rows, D] f32, contiguous
 *   log_sum_exps     [parts, rows] f32; minus infinity marks a part in which the row saw nothing, whose output
 *                    must be finite (attention writes zeros)
 *   output           [rows, D] f32, contiguous; may be the first part's rows of `outputs`, no other overlap
 *   log_sum_exp      [rows] f32, or NULL; may be the first part's rows of `log_sum_exps`
 * head_dim is any value >= 1. parts = 0 gives zeros and minus infinity.
 * Errors: null_pointer, bad_shape, bad_alignment, overflow, executor_failed. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_attention_merge(
    const lspan_context *context, int64_t parts, int64_t rows, int64_t head_dim, const float *outputs,
    const float *log_sum_exps, float *output, float *log_sum_exp);

LSPAN_END_DECLS

#endif
