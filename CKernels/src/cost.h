/* cost.h: what a call must move and compute, from its checked arguments; the rules are in profile.h. */
#ifndef LSPAN_COST_H
#define LSPAN_COST_H

#include "kernels/kernels.h"
#include <longspan/product.h>
#include <longspan/sparse.h>

typedef struct lspan_cost {
    int64_t bytes;
    int64_t flops;
    int64_t exponentials;
} lspan_cost;

lspan_cost lspan_attention_cost(const lspan_attention *attention);
lspan_cost lspan_sparse_cost(const lspan_sparse_attention *sparse);
lspan_cost lspan_lag_cost(const lspan_lag_attention *lag);
lspan_cost lspan_merge_cost(int64_t parts, int64_t rows, int64_t head_dim, int has_log_sum_exp);
lspan_cost lspan_rope_cost(int64_t tokens, const lspan_rotation *rotation);
lspan_cost lspan_convert_cost(int64_t elements, lspan_dtype input, lspan_dtype output);
lspan_cost lspan_rms_norm_cost(int64_t rows, const lspan_norm *norm);
lspan_cost lspan_layer_norm_cost(int64_t rows, const lspan_norm *norm);
lspan_cost lspan_gate_cost(int64_t rows, const lspan_gate *gate);
lspan_cost lspan_loss_cost(int64_t rows, const lspan_loss *loss);
lspan_cost lspan_embedding_cost(int64_t tokens, const lspan_weights *table, int64_t row_bytes);
lspan_cost lspan_dequantize_cost(const lspan_weights *weights, int64_t row_bytes);
lspan_cost lspan_linear_cost(const lspan_linear *linear, int64_t row_bytes);
lspan_cost lspan_product_cost(const lspan_product *product);
/* of one element */
int64_t lspan_activation_flops(lspan_activation activation);

lspan_cost lspan_lag_scores_cost(const lspan_lag_scores *call);
lspan_cost lspan_select_cost(const lspan_selection *selection);
lspan_cost lspan_compact_cost(const lspan_compaction *compaction);
lspan_cost lspan_rope_shift_cost(const lspan_rope_shifting *shifting);

lspan_cost lspan_dt_steps_cost(const lspan_dt_call *call);
/* form is the one that ran, not automatic */
lspan_cost lspan_ssd_cost(const lspan_ssd_scan *scan, lspan_ssd_form form);
lspan_cost lspan_causal_conv_cost(const lspan_causal_conv *convolution);
lspan_cost lspan_gated_rms_norm_cost(const lspan_gated_rms_norm *norm);
lspan_cost lspan_selective_scan_cost(const lspan_selective_scan *scan);

/* A list of a compaction whose lists are checked; NULL where all are empty. */
static inline const int32_t *lspan_list_of(const lspan_compaction *c, int64_t list)
{
    return c->indptr[c->lists] > 0 ? c->indices + c->indptr[list] : NULL;
}
/* Rows of keys (and as many of every other array) that a compaction moves to another slot. */
int64_t lspan_moved_rows(const lspan_compaction *compaction);

#endif
