/* table.c: this variant's row of the dispatch table. */
#include "variants.h"

#define LSPAN_QUOTE_(x) #x
#define LSPAN_QUOTE(x) LSPAN_QUOTE_(x)

const lspan_kernels LSPAN_VARIANT(kernels) = {
    .name = LSPAN_QUOTE(LSPAN_ISA),
    .attention_prefill = LSPAN_SHARED(attention_prefill),
    .attention_decode = LSPAN_SHARED(attention_decode),
    .attention_decode_gather = LSPAN_SHARED(attention_decode_gather),
    .attention_merge = LSPAN_SHARED(attention_merge),
    .rms_norm = LSPAN_SHARED(rms_norm),
    .layer_norm = LSPAN_SHARED(layer_norm),
    .rope = LSPAN_SHARED(rope),
    .gated_activation = LSPAN_SHARED(gated_activation),
    .convert = LSPAN_SHARED(convert),
    .log_softmax_gather = LSPAN_SHARED(log_softmax_gather),
    .dequantize = LSPAN_SHARED(dequantize),
    .lag_scores = LSPAN_SHARED(lag_scores),
    .move_rows = LSPAN_SHARED(move_rows),
    .rope_shift = LSPAN_SHARED(rope_shift),
    .product_rows = LSPAN_PRODUCT_ROWS,
    .product_bf16 = V_BF16_DOT,
    .product_inputs = LSPAN_VARIANT(product_inputs),
    .product = LSPAN_VARIANT(product),
    .dt_steps = LSPAN_SHARED(dt_steps),
    .causal_conv = LSPAN_SHARED(causal_conv),
    .causal_conv_state = LSPAN_SHARED(causal_conv_state),
    .gated_rms_norm = LSPAN_SHARED(gated_rms_norm),
    .selective_scan = LSPAN_SHARED(selective_scan),
    .selective_update = LSPAN_SHARED(selective_update),
    .ssd_chunks = LSPAN_SHARED(ssd_chunks),
    .ssd_steps = LSPAN_SHARED(ssd_steps),
    .measure_read = LSPAN_SHARED(measure_read),
    .measure_fma_f32 = LSPAN_SHARED(measure_fma_f32),
#if V_BF16_DOT
    .measure_fma_bf16 = LSPAN_SHARED(measure_fma_bf16),
#endif
    .measure_exp = LSPAN_SHARED(measure_exp),
};
