/* table.c: this variant's row of the dispatch table. */
#include "variants.h"

#define LSPAN_QUOTE_(x) #x
#define LSPAN_QUOTE(x) LSPAN_QUOTE_(x)

const lspan_kernels LSPAN_VARIANT(kernels) = {
    .name = LSPAN_QUOTE(LSPAN_ISA),
    .attention_prefill = LSPAN_VARIANT(attention_prefill),
    .attention_decode = LSPAN_VARIANT(attention_decode),
    .attention_decode_gather = LSPAN_VARIANT(attention_decode_gather),
    .attention_merge = LSPAN_VARIANT(attention_merge),
    .rms_norm = LSPAN_VARIANT(rms_norm),
    .layer_norm = LSPAN_VARIANT(layer_norm),
    .rope = LSPAN_VARIANT(rope),
    .gated_activation = LSPAN_VARIANT(gated_activation),
    .convert = LSPAN_VARIANT(convert),
    .log_softmax_gather = LSPAN_VARIANT(log_softmax_gather),
    .dequantize = LSPAN_VARIANT(dequantize),
    .lag_scores = LSPAN_VARIANT(lag_scores),
    .move_rows = LSPAN_VARIANT(move_rows),
    .rope_shift = LSPAN_VARIANT(rope_shift),
    .dt_steps = LSPAN_VARIANT(dt_steps),
    .causal_conv = LSPAN_VARIANT(causal_conv),
    .causal_conv_state = LSPAN_VARIANT(causal_conv_state),
    .gated_rms_norm = LSPAN_VARIANT(gated_rms_norm),
    .selective_scan = LSPAN_VARIANT(selective_scan),
    .selective_update = LSPAN_VARIANT(selective_update),
    .ssd_chunks = LSPAN_VARIANT(ssd_chunks),
    .ssd_steps = LSPAN_VARIANT(ssd_steps),
    .measure_read = LSPAN_VARIANT(measure_read),
    .measure_fma_f32 = LSPAN_VARIANT(measure_fma_f32),
#if V_BF16_DOT
    .measure_fma_bf16 = LSPAN_VARIANT(measure_fma_bf16),
#endif
    .measure_exp = LSPAN_VARIANT(measure_exp),
};
