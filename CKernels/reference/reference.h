/* reference.h: plain scalar versions of every kernel, for tests only.
 *
 * Each is written from the formula in the public header, with no attention to speed, and exists twice: ..._f64
 * in double precision is what kernels are compared with, and ..._f32 is the straightforward version in the
 * kernels' own precision, whose error says how much error is reasonable.
 *
 * Inputs are the same views and structs that the kernels take; outputs are contiguous. Arguments are not
 * validated. */
#ifndef LONGSPAN_REFERENCE_H
#define LONGSPAN_REFERENCE_H

#include <longspan/longspan.h>

/* ---- Element types, by exact arithmetic ------------------------------------------------------------ */

double lspan_reference_from_f16(uint16_t bits);
double lspan_reference_from_bf16(uint16_t bits);
/* Round to nearest, ties to even; overflow gives an infinity, NaN a quiet NaN. */
uint16_t lspan_reference_to_f16(double x);
uint16_t lspan_reference_to_bf16(double x);
/* Element `index` of an array of that dtype. */
double lspan_reference_element(const void *data, lspan_dtype dtype, int64_t index);
/* x after rounding to a dtype. */
double lspan_reference_round(double x, lspan_dtype dtype);

/* ---- Kernels ---------------------------------------------------------------------------------------- */

/* Keys chosen beside the attention's own mask: how often query token `row` of a sequence counts the key in a slot. */
typedef struct lspan_reference_keys {
    int64_t (*times)(const void *user, int64_t sequence, int64_t row, int64_t kv_head, int64_t slot);
    const void *user;
} lspan_reference_keys;

/* What the inputs of a product are rounded to before they are multiplied. */
typedef enum lspan_reference_rounding {
    lspan_reference_rounding_none,
    /* 32 at a time: integers to nearest even, times one f32 scale, the largest magnitude over 127 */
    lspan_reference_rounding_8bit,
    lspan_reference_rounding_bf16
} lspan_reference_rounding;

/* One output of a product, from weights that are not packed. */
typedef struct lspan_reference_product {
    int64_t rows;
    const float *input; /* [rows, weights.columns] */
    int64_t input_row_stride;
    lspan_reference_rounding rounding;
    lspan_weights weights;
    lspan_weights gate; /* data NULL for none */
    lspan_activation activation;
    const float *initial; /* [rows, weights.rows], what the output held where it accumulates; NULL for none */
    int64_t initial_row_stride;
} lspan_reference_product;

/* A row of inputs as they are multiplied; `steps` (may be NULL) are the distances of the numbers that each could be
 * rounded to, 0 where nothing is rounded. */
void lspan_reference_round_inputs(
    lspan_reference_rounding rounding, const float *input, int64_t count, double *rounded, double *steps);

#define LSPAN_REFERENCE_DECLARE(REAL, NAME)                                                                       \
    /* output [sum T, Hq, D], log_sum_exp [sum T, Hq] */                                                          \
    void NAME(attention)(const lspan_attention *attention, REAL *output, REAL *log_sum_exp);                      \
    /* the same over chosen keys, all if `chosen` is NULL */                                                      \
    void NAME(attention_over)(                                                                                    \
        const lspan_attention *attention, const lspan_reference_keys *chosen, REAL *output, REAL *log_sum_exp);   \
    void NAME(attention_merge)(                                                                                   \
        int64_t parts, int64_t rows, int64_t head_dim, const float *outputs, const float *log_sum_exps,           \
        REAL *output, REAL *log_sum_exp);                                                                         \
    void NAME(rms_norm)(                                                                                          \
        int64_t rows, int64_t columns, lspan_matrix input, const float *weight, float epsilon, REAL *output);     \
    void NAME(layer_norm)(                                                                                        \
        int64_t rows, int64_t columns, lspan_matrix input, const float *weight, const float *bias, float epsilon, \
        REAL *output);                                                                                            \
    void NAME(rope_table)(                                                                                        \
        int64_t tokens, const int64_t *positions, int64_t pairs, const float *inverse_frequencies, REAL *cosine,  \
        REAL *sine);                                                                                              \
    void NAME(rope)(                                                                                              \
        lspan_rope_layout layout, int64_t tokens, int64_t heads, int64_t head_dim, int64_t pairs,                 \
        const float *cosine, const float *sine, lspan_heads input, REAL *output);                                 \
    /* scores [heads, P * W] */                                                                                   \
    void NAME(lag_scores)(const lspan_lag_scores *call, REAL *scores);                                            \
    /* output [tokens, heads, D]: what the keys hold afterwards */                                                \
    void NAME(rope_shift)(const lspan_rope_shifting *shifting, REAL *output);                                     \
    void NAME(gated_activation)(                                                                                  \
        lspan_activation activation, int64_t rows, int64_t columns, lspan_matrix gate, lspan_matrix up,           \
        REAL *output);                                                                                            \
    /* nll and entropy may be NULL, as in the kernel */                                                           \
    void NAME(log_softmax_gather)(                                                                                \
        int64_t rows, int64_t vocabulary, lspan_matrix logits, const int32_t *targets, REAL *nll, REAL *entropy); \
    void NAME(dequantize)(const lspan_weights *weights, REAL *output);                                            \
    void NAME(embedding)(const lspan_weights *table, int64_t tokens, const int32_t *ids, REAL *output);           \
    /* one step of a channel or head */                                                                           \
    REAL NAME(dt_step)(const lspan_dt_rule *rule, int64_t sequence, int64_t channel, REAL dt);                    \
    void NAME(dt_steps)(                                                                                          \
        int64_t sequences, const int64_t *indptr, int64_t channels, lspan_matrix dt, const lspan_dt_rule *rule,   \
        REAL *steps);                                                                                             \
    /* output [sum L, H, P], final_state [B, H, P, N], kept [B, H] or NULL */                                     \
    void NAME(ssd)(const lspan_ssd_scan *scan, REAL *output, REAL *final_state, int64_t *kept);                   \
    /* output [sum L, E], state [B, W - 1, E] */                                                                  \
    void NAME(causal_conv)(const lspan_causal_conv *convolution, REAL *output, REAL *state);                      \
    void NAME(gated_rms_norm)(const lspan_gated_rms_norm *norm, REAL *output);                                    \
    /* output [sum L, E], state [B, E, N], kept [B, E] or NULL */                                                 \
    void NAME(selective_scan)(const lspan_selective_scan *scan, REAL *output, REAL *state, int64_t *kept);        \
    /* of one number */                                                                                           \
    REAL NAME(activation)(lspan_activation activation, REAL x);                                                   \
    /* with accumulate, reads what linear->output holds before the kernel runs */                                 \
    void NAME(linear)(const lspan_linear *linear, REAL *output);                                                  \
    /* output [rows, weights.rows] */                                                                             \
    void NAME(product)(const lspan_reference_product *product, REAL *output);

#define LSPAN_REFERENCE_F64(function) lspan_reference_##function##_f64
#define LSPAN_REFERENCE_F32(function) lspan_reference_##function##_f32
LSPAN_REFERENCE_DECLARE(double, LSPAN_REFERENCE_F64)
LSPAN_REFERENCE_DECLARE(float, LSPAN_REFERENCE_F32)
#undef LSPAN_REFERENCE_F64
#undef LSPAN_REFERENCE_F32
#undef LSPAN_REFERENCE_DECLARE

/* The same in chunks, in single precision, with what the bf16 form rounds rounded. */
void lspan_reference_ssd_bf16(const lspan_ssd_scan *scan, float *output, float *final_state);

/* These move and compare without rounding, so there is one of each. The first writes the lists and indptr of the
 * selection; the second moves what the compaction moves. */
void lspan_reference_select(const lspan_selection *selection);
void lspan_reference_compact(const lspan_compaction *compaction);

#endif
