/* variants.h: this variant's instances of the kernel bodies; kernels.h says what each argument is. */
#ifndef LSPAN_VARIANTS_H
#define LSPAN_VARIANTS_H

#include "../simd/simd.h"
#include "../tuning.h"
#include "kernels.h"

void LSPAN_SHARED(attention_prefill)(const lspan_attention *attention, lspan_prefill_task task, void *scratch);
void LSPAN_SHARED(attention_decode)(const lspan_attention *attention, lspan_decode_task task, void *scratch);
void LSPAN_SHARED(attention_decode_gather)(const lspan_attention *attention, lspan_decode_task task, void *scratch);
void LSPAN_SHARED(attention_merge)(const lspan_merge *merge, int64_t row, float *output, float *log_sum_exp);
void LSPAN_SHARED(rms_norm)(const lspan_norm *norm, int64_t first, int64_t end);
void LSPAN_SHARED(layer_norm)(const lspan_norm *norm, int64_t first, int64_t end);
void LSPAN_SHARED(rope)(const lspan_rotation *rotation, int64_t first, int64_t end);
void LSPAN_SHARED(gated_activation)(const lspan_gate *gate, int64_t first, int64_t end);
void LSPAN_SHARED(convert)(
    int64_t heads, int64_t head_dim, lspan_heads input, lspan_heads_out output, int64_t first, int64_t end);
void LSPAN_SHARED(log_softmax_gather)(const lspan_loss *loss, int64_t first, int64_t end);
void LSPAN_SHARED(dequantize)(lspan_block_type type, const void *blocks, int64_t count, float *output);
void LSPAN_SHARED(lag_scores)(const lspan_lag_task *task, float *scratch);
void LSPAN_SHARED(move_rows)(const lspan_row_move *move);
void LSPAN_SHARED(rope_shift)(const lspan_rope_shifting *shifting, int64_t first, int64_t end);
void LSPAN_VARIANT(product_inputs)(const lspan_product_inputs *inputs, int64_t first, int64_t end);
void LSPAN_VARIANT(product)(const lspan_product_task *task, float *scratch);
void LSPAN_SHARED(dt_steps)(const lspan_dt_call *call, int64_t sequence, int64_t first, int64_t end);
void LSPAN_SHARED(causal_conv)(const lspan_causal_conv *convolution, lspan_conv_task task);
void LSPAN_SHARED(causal_conv_state)(const lspan_causal_conv *convolution, int64_t sequence);
void LSPAN_SHARED(gated_rms_norm)(const lspan_gated_rms_norm *norm, int64_t first, int64_t end);
void LSPAN_SHARED(selective_scan)(const lspan_selective_scan *scan, lspan_scan_task task, float *scratch);
void LSPAN_SHARED(selective_update)(const lspan_selective_scan *scan, int64_t sequence, int64_t first, int64_t end);
void LSPAN_SHARED(ssd_chunks)(const lspan_ssd_scan *scan, lspan_ssd_task task, void *scratch);
void LSPAN_SHARED(ssd_steps)(const lspan_ssd_scan *scan, int64_t sequence, int64_t head, float *state);
double LSPAN_SHARED(measure_read)(const float *data, int64_t count, int64_t passes);
lspan_measured LSPAN_SHARED(measure_fma_f32)(int64_t iterations, float multiplier, float addend);
lspan_measured LSPAN_SHARED(measure_fma_bf16)(int64_t iterations, float multiplier, float addend);
double LSPAN_SHARED(measure_exp)(int64_t passes);

#endif
