/* lspan_ggml.h: Longspan's attention and state-space scans as custom operators of a ggml graph, run by ggml's own threads.
 *
 * An adapter holds a Longspan context whose executor is the threads that compute the graph, and the workspace. Builders
 * take ggml tensors and give a node of type GGML_OP_CUSTOM, with the shape that ggml's own operator has there; data
 * pointers are read when the graph runs, so graph allocators and schedulers may place tensors as they like.
 *
 * A builder that cannot serve what it is given returns NULL, and lspan_ggml_refusal says why. An operator that fails while
 * the graph runs leaves its result unspecified, and lspan_ggml_status says so afterwards; with lspan_ggml_failed as the
 * plan's abort callback the graph stops behind it.
 *
 * One graph at a time may be computed with the operators of an adapter, and none while one of the functions below but
 * lspan_ggml_failed runs. Operators allocate nothing. */
#ifndef LSPAN_GGML_H
#define LSPAN_GGML_H

#include <ggml.h>
#include <longspan/longspan.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lspan_ggml lspan_ggml;

/* Makes an adapter for graphs that are computed by up to `threads` threads, 1 to 4096: threads beyond that wait while an
 * operator runs. The ISA variant is that of the environment's LONGSPAN_ISA, or the best.
 * Errors: null_pointer, bad_value, unknown_isa, out_of_memory. */
lspan_status lspan_ggml_create(int threads, lspan_ggml **adapter);

/* Frees an adapter and what its operators need. NULL is allowed. */
void lspan_ggml_destroy(lspan_ggml *adapter);

/* Frees what the operators built so far need, whose graphs must not run any more, and forgets failures. For engines that
 * build a graph anew for every token: the workspace stays. */
void lspan_ggml_clear(lspan_ggml *adapter);

/* Why the last builder that returned NULL did so, or "". */
const char *lspan_ggml_refusal(const lspan_ggml *adapter);

/* Of the first operator that failed since the adapter was made or cleared; lspan_status_ok if none did. */
lspan_status lspan_ggml_status(const lspan_ggml *adapter);

/* Whether one has failed: a ggml_abort_callback, whose data is the adapter. */
bool lspan_ggml_failed(void *adapter);

/* What attention is told beside its operands, instead of by a mask tensor. Query i of T is at position p = n - T + i of its
 * n keys, and sees key j where
 *
 *     j <= p                          if causal
 *     j > p - window, or j < sinks    if window > 0
 *
 * Every other mask is refused or cannot be asked for: additive biases, ALiBi (max_bias), logits of sinks, several texts in
 * one batch entry, holes. Holes are what lspan_ggml_sparse_attention is for. */
typedef struct lspan_ggml_visibility {
    bool causal;
    int64_t window; /* 0 for none */
    int64_t sinks;  /* leading keys; 0 without a window */
    /* I32 [ne3]: the keys of each batch entry that exist, 0 to n_kv, at the front of k and v; read when the graph runs.
     * NULL: all n_kv. */
    struct ggml_tensor *lengths;
} lspan_ggml_visibility;

/* ggml_flash_attn_ext without its mask: softmax(scale * q k^T) v, capped by `logit_softcap` where that is not 0.
 *
 *     q   f32, f16 or bf16  [D, T, n_head, ne3]
 *     k   f32, f16 or bf16  [D, n_kv, n_head_kv, ne3]
 *     v   as k
 *     ->  f32               [D, n_head, T, ne3]
 *
 * Any strides whose first is one element. D is a multiple of 8, at most 256, n_head a multiple of n_head_kv. Up to 8
 * query tokens run as decode (keys split over the threads), more as prefill. */
struct ggml_tensor *lspan_ggml_attention(
    lspan_ggml *adapter, struct ggml_context *ctx, struct ggml_tensor *q, struct ggml_tensor *k, struct ggml_tensor *v,
    lspan_ggml_visibility visibility, float scale, float logit_softcap);

/* The same over listed keys only; what is not listed is not read. A query sees a key that is listed and visible.
 *
 *     indices  I32 contiguous [entries, 1 or n_head_kv, ceil(T / query_tokens), ne3], as ggml_top_k gives them:
 *              entry e stands for keys e*block .. e*block+block-1 that exist, 0 <= e < ceil(n / block), in any order; one
 *              given twice counts twice
 *
 * query_tokens is the number of query tokens that share a list, 0 for all T; up to 8 tokens must share one. */
struct ggml_tensor *lspan_ggml_sparse_attention(
    lspan_ggml *adapter, struct ggml_context *ctx, struct ggml_tensor *q, struct ggml_tensor *k, struct ggml_tensor *v,
    struct ggml_tensor *indices, int64_t block, int64_t query_tokens, lspan_ggml_visibility visibility, float scale,
    float logit_softcap);

/* ggml_ssm_scan with its arguments and its result, for K = 1: y and behind it the states. All f32 but ids.
 *
 *     s    contiguous [d_state, dim, n_head, n_seqs or more]
 *     x    [dim, n_head, n_seq_tokens, n_seqs], rows of dim * n_head contiguous
 *     dt   contiguous [n_head, n_seq_tokens, n_seqs]; the softplus is applied here
 *     A    contiguous [1, n_head]: Mamba-2's SSD scan; [d_state, n_head] with dim 1: Mamba's selective scan. None above 0
 *     B, C [d_state, n_group, n_seq_tokens, n_seqs], rows of d_state * n_group contiguous
 *     ids  I32 [n_seqs]: which state of s each sequence starts from
 *     ->   f32 [dim * n_head * n_seq_tokens * n_seqs + d_state * dim * n_head * n_seqs]
 *
 * d_state and dim are at most 256. Sequences with consecutive ids run as one call. */
struct ggml_tensor *lspan_ggml_ssm_scan(
    lspan_ggml *adapter, struct ggml_context *ctx, struct ggml_tensor *s, struct ggml_tensor *x, struct ggml_tensor *dt,
    struct ggml_tensor *A, struct ggml_tensor *B, struct ggml_tensor *C, struct ggml_tensor *ids);

#ifdef __cplusplus
}
#endif

#endif
