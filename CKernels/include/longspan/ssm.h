/* ssm.h: state-space layers: the selective scan of Mamba, the SSD scan of Mamba-2, their one-token updates, the causal
 * convolution before them and the gated norm after them.
 *
 * Mamba (Gu and Dao 2023, algorithm 2, with the simplified discretization of their code), channel e of E, state n of N,
 * token t of a sequence, g the group of e:
 *
 *     h_t[e,n] = exp(dt_t[e] * A[e,n]) * h_{t-1}[e,n] + dt_t[e] * B_t[g,n] * u_t[e]
 *     y_t[e]   = (sum_n C_t[g,n] * h_t[e,n] + D[e] * u_t[e]) * silu(z_t[e])
 *
 * Mamba-2 (Dao and Gu 2024, eq. 2 with a scalar A a head), head h of H, channel p of P, g the group of h:
 *
 *     s_t[h,p,n] = exp(dt_t[h] * A[h]) * s_{t-1}[h,p,n] + dt_t[h] * B_t[g,n] * x_t[h,p]
 *     y_t[h,p]   = (sum_n C_t[g,n] * s_t[h,p,n] + D[h] * x_t[h,p]) * silu(z_t[h,p])
 *
 * The step dt. From the dt that is given, in this order: + dt_bias, where there is one; softplus(x) = log(1 + e^x), if
 * dt_softplus; the clamp to dt_min .. dt_max; then the filter, for a channel or head i:
 *
 *     dt = dt > threshold[i] ? scale[i] * dt : 0
 *
 * Where dt is 0 the token is skipped: the state stays bit for bit as it was, neither decayed nor written, whatever the
 * token's input is, and y_t still reads it. This is how LongMamba (Ye et al. 2025, section 4) drops tokens, and scales
 * alone are MambaExtend's and UPI's. The clamp comes before the filter, so a dt_min above 0 cannot bring back a token that
 * the filter dropped. A NaN in dt is no number to compare and passes the clamp and the filter: it makes the state, and
 * what reads it from there on, NaN.
 *
 * Inputs are f32, f16 or bf16, each on its own; states and all arithmetic are f32, with one exception: the chunked form of
 * the Mamba-2 scan on a CPU with bf16 dot products, described there. Group g of G serves the channels (or heads)
 * g * E / G .. (g + 1) * E / G - 1. Sequences are packed one after another in the token dimension, sequence b in rows
 * indptr[b] .. indptr[b+1]-1; a sequence without tokens keeps its state. Zero sequences and tokens are legal.
 *
 * Splitting a sequence over calls, with the final state of one as the initial state of the next, gives what one call
 * gives but for rounding. Errors of every function: null_pointer, bad_shape, bad_stride, bad_alignment, bad_dtype,
 * overflow, bad_value (a limit, flag, scale or threshold out of range), bad_index (indptr), workspace_too_small where there
 * is a workspace, and executor_failed. Nothing is written if one of them but the last is returned.
 */
#ifndef LONGSPAN_SSM_H
#define LONGSPAN_SSM_H

#include "context.h"
#include "status.h"
#include "types.h"

LSPAN_BEGIN_DECLS

/* Largest state size N. */
#define LSPAN_SSM_MAX_STATE 256
/* Largest number of tokens that a sequence may have in an update call. */
#define LSPAN_SSM_MAX_UPDATE_TOKENS 8

/* ---- The step ---------------------------------------------------------------------------------------- */

/* A scale and a threshold for each channel (Mamba) or head (Mamba-2), of one sequence or of all. */
LSPAN_SINCE(0, 1)
typedef struct lspan_dt_filter {
    const float *scales;     /* finite and at least 0; NULL for ones */
    const float *thresholds; /* not NaN; NULL where every token is kept */
    int64_t sequence_stride; /* elements from one sequence's values to the next one's in both; 0: all share them */
} lspan_dt_filter;

/* How dt is made of what is given: see the top of this file. {NULL, 0, 0, INFINITY, NULL} takes it as it is. */
LSPAN_SINCE(0, 1)
typedef struct lspan_dt_rule {
    const float *bias;    /* [E] or [H] f32, or NULL */
    int32_t softplus;     /* 0 or 1 */
    float minimum;        /* 0 <= minimum <= maximum, minimum finite; a negative dt becomes the minimum */
    float maximum;        /* may be infinity */
    const lspan_dt_filter *filter; /* or NULL */
} lspan_dt_rule;

/* The steps that a scan would use, for calibration: steps [sum L, channels] f32 with row_stride, of dt
 * [sum L, channels]. The rule's values are per channel (or head). Errors: those above. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_dt_steps(
    const lspan_context *context, int64_t sequences, const int64_t *indptr, int64_t channels, lspan_matrix dt,
    const lspan_dt_rule *rule, float *steps, int64_t row_stride);

/* ---- Mamba: selective scan --------------------------------------------------------------------------- */

LSPAN_SINCE(0, 1)
typedef struct lspan_selective_scan {
    int64_t sequences;     /* B */
    const int64_t *indptr; /* [B + 1] rows of each sequence */
    int64_t channels;      /* E >= 1 */
    int64_t state_size;    /* N, 1 .. 256 */
    int64_t groups;        /* G of B and C, a divisor of E */

    lspan_matrix input; /* u [sum L, E] */
    lspan_matrix dt;    /* [sum L, E] */
    lspan_dt_rule rule;
    const float *a;  /* A [E, N] f32, contiguous, finite, none above 0; -exp(A_log). Refused as bad_value by scans only */
    lspan_heads b;   /* B [sum L, G, N] */
    lspan_heads c;   /* C [sum L, G, N] */
    const float *d;  /* D [E] f32, or NULL for none */
    lspan_matrix gate; /* z [sum L, E]; data NULL for none */

    /* States [B, E, N] f32, state_stride elements from one sequence to the next, at least E * N. Both may be the same
     * memory, with no other overlap. */
    const float *initial_state; /* NULL for zeros */
    float *final_state;         /* NULL if not wanted; an update needs it */
    int64_t state_stride;

    lspan_matrix_out output; /* y [sum L, E]; must not overlap an input, but may be the gate's memory, of its dtype and stride */
    int64_t *kept;           /* [B, E] tokens of this call whose step was not 0, or NULL */
} lspan_selective_scan;

/* Bytes of workspace of a scan: grows with the workers, not with L. Errors: those of the call that concern shapes. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_selective_scan_workspace_size(
    const lspan_context *context, const lspan_selective_scan *scan, size_t *bytes);

/* The scan, for any L. Tasks are (sequence, strip of channels). */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_selective_scan_run(
    const lspan_context *context, const lspan_selective_scan *scan, void *workspace, size_t workspace_bytes);

/* The scan for 0 .. 8 tokens a sequence, as decoding needs it: states are read and written once, in place where both
 * pointers are equal, and there is no workspace. Errors also: bad_shape for more tokens; null_pointer without final_state.
 * A is not looked at before it is used: a positive one grows the state. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_selective_update(const lspan_context *context, const lspan_selective_scan *scan);

/* ---- Mamba-2: SSD scan ------------------------------------------------------------------------------- */

/* How a scan of Mamba-2 is computed. */
LSPAN_SINCE(0, 1)
typedef enum LSPAN_OPEN_ENUM lspan_ssd_form {
    lspan_ssd_form_automatic = 0, /* the faster by shape, see lspan_ssd_scan_form */
    lspan_ssd_form_recurrent = 1, /* a token at a time: 5 * P * N flops a token and head */
    lspan_ssd_form_chunked = 2    /* by products over chunks of tokens: Dao and Gu 2024, section 6 */
} lspan_ssd_form;

LSPAN_SINCE(0, 1)
typedef struct lspan_ssd_scan {
    int64_t sequences;     /* B */
    const int64_t *indptr; /* [B + 1] rows of each sequence */
    int64_t heads;         /* H >= 1 */
    int64_t head_dim;      /* P, 1 .. 256 */
    int64_t state_size;    /* N, 1 .. 256 */
    int64_t groups;        /* G of B and C, a divisor of H */

    lspan_heads input; /* x [sum L, H, P] */
    lspan_matrix dt;   /* [sum L, H] */
    lspan_dt_rule rule;
    const float *a;  /* A [H] f32, finite, none above 0: bad_value otherwise */
    lspan_heads b;   /* B [sum L, G, N] */
    lspan_heads c;   /* C [sum L, G, N] */
    const float *d;  /* D [H] f32, or NULL for none */
    lspan_heads gate; /* z [sum L, H, P]; data NULL for none */

    /* States [B, H, P, N] f32, state_stride elements from one sequence to the next, at least H * P * N. Both may be the
     * same memory, with no other overlap. */
    const float *initial_state; /* NULL for zeros */
    float *final_state;         /* NULL if not wanted; an update needs it */
    int64_t state_stride;

    lspan_heads_out output; /* y [sum L, H, P]; may be the gate's memory, of its dtype and strides, else no overlap */
    int64_t *kept;          /* [B, H] tokens of this call whose step was not 0, or NULL */
    lspan_ssd_form form;    /* of a scan; an update is recurrent */
} lspan_ssd_scan;

/* The form that a scan of these shapes takes; the call's own where it names one. Automatic is chunked where the longest
 * sequence has 8 tokens or more: fewer do not pay for turning the states around. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_ssd_scan_form(
    const lspan_context *context, const lspan_ssd_scan *scan, lspan_ssd_form *form);

/* Bytes of workspace of a scan: grows with the workers, not with L. Errors: those of the call that concern shapes. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_ssd_scan_workspace_size(
    const lspan_context *context, const lspan_ssd_scan *scan, size_t *bytes);

/* The scan, for any L. In chunks, the state that tokens of a chunk read is a product of C with the state before the chunk,
 * and tokens that a head's filter dropped take no part in the other products. Where x, B and C are all bf16 and the CPU has
 * bf16 dot products, and N is even, the chunked form rounds to bf16 what it multiplies (the state as it is read, the
 * weighted C B^T, and dt x where the state takes it), with sums and the carried state in f32. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_ssd_scan_run(
    const lspan_context *context, const lspan_ssd_scan *scan, void *workspace, size_t workspace_bytes);

/* The scan for 0 .. 8 tokens a sequence, in place where both state pointers are equal, without workspace.
 * Errors also: bad_shape for more tokens; null_pointer without final_state. */
LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_ssd_update(const lspan_context *context, const lspan_ssd_scan *scan);

/* ---- Causal convolution ------------------------------------------------------------------------------ */

/* Depthwise causal convolution along the tokens of a sequence, with W taps, 2 to 4:
 *
 *     y_t[e] = activation(bias[e] + sum_{k=0}^{W-1} weight[e,k] * x_{t-W+1+k}[e])
 *
 * x before the first token is the initial state: its row j of W - 1 is x_{j-W+1}. The final state holds the last W - 1
 * rows of x in the same way, as f32, of the initial state where the sequence is shorter. One token a sequence is the
 * update of decoding, and needs no function of its own. */
LSPAN_SINCE(0, 1)
typedef struct lspan_causal_conv {
    int64_t sequences;     /* B */
    const int64_t *indptr; /* [B + 1] rows of each sequence */
    int64_t channels;      /* E >= 1 */
    int64_t width;         /* W, 2 .. 4 */
    lspan_matrix input;    /* x [sum L, E] */
    const float *weight;   /* [E, W] f32, the last tap is the token's own */
    const float *bias;     /* [E] f32, or NULL */
    int32_t silu;          /* 1: activation is silu, 0: there is none */
    /* States [B, W - 1, E] f32, contiguous but for state_stride elements from one sequence to the next, at least
     * (W - 1) * E. Both may be the same memory. */
    const float *initial_state; /* NULL for zeros */
    float *final_state;         /* NULL if not wanted */
    int64_t state_stride;
    lspan_matrix_out output; /* y [sum L, E]; must not overlap an input */
} lspan_causal_conv;

LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_causal_conv_run(const lspan_context *context, const lspan_causal_conv *convolution);

/* ---- Gated RMSNorm ----------------------------------------------------------------------------------- */

/* RMSNorm over groups of channels with a SiLU gate, as Mamba-2 has it (Dao and Gu 2024, section 7.1):
 *
 *     gate first (norm_first 0):   y = norm(x * silu(z)) * weight
 *     norm first (norm_first 1):   y = norm(x) * weight * silu(z)
 *
 * with norm(v) = v / sqrt(mean(v^2) + epsilon) over each of `groups` equal runs of the columns. In place on x or z allowed. */
LSPAN_SINCE(0, 1)
typedef struct lspan_gated_rms_norm {
    int64_t rows;
    int64_t columns; /* at least 1 */
    int64_t groups;  /* a divisor of columns */
    int32_t norm_first;
    lspan_matrix input;  /* x [rows, columns] */
    lspan_matrix gate;   /* z [rows, columns] */
    const float *weight; /* [columns] f32, or NULL for ones */
    float epsilon;       /* finite, at least 0 */
    lspan_matrix_out output; /* y [rows, columns] */
} lspan_gated_rms_norm;

LSPAN_SINCE(0, 1)
LSPAN_API lspan_status lspan_gated_rms_norm_run(const lspan_context *context, const lspan_gated_rms_norm *norm);

LSPAN_END_DECLS

#endif
