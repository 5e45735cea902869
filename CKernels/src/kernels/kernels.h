/* kernels.h: the table of kernel bodies that each ISA variant fills. Arguments are already validated. */
#ifndef LSPAN_KERNELS_H
#define LSPAN_KERNELS_H

#include "product_inputs.h"
#include <longspan/attention.h>
#include <longspan/dense.h>
#include <longspan/kv.h>
#include <longspan/product.h>
#include <longspan/ssm.h>

/* Keys of a task: slots begin .. end-1 of the sequence or, with entries, numbers begin .. end-1 of a list, counted as if
 * every entry had all its slots: number i is slot entries[i / block] * block + i % block, if the head has it. */
typedef struct lspan_key_segment {
    int64_t begin;
    int64_t end;
    const int32_t *entries;
    int64_t block;
} lspan_key_segment;

typedef struct lspan_key_segments {
    int64_t count; /* at least 1; segments may be empty */
    lspan_key_segment at[3];
    int listed; /* at least one has entries */
} lspan_key_segments;

/* A prefill task's place: query tokens first .. first+count-1 of one sequence, for one key/value head. */
typedef struct lspan_prefill_task {
    int64_t sequence;
    int64_t kv_head;
    int64_t first;
    int64_t count;
    lspan_key_segments segments;
} lspan_prefill_task;

/* A decode task's place: some of the keys that the sequence's queries see, for one key/value head. Results go to output
 * [T, G, D] by the strides and to log_sum_exp [T, G] with token stride log_sum_exp_stride. */
typedef struct lspan_decode_task {
    int64_t sequence;
    int64_t kv_head;
    lspan_key_segments segments;
    float *output;
    int64_t output_token_stride;
    int64_t output_head_stride;
    float *log_sum_exp;
    int64_t log_sum_exp_stride;
} lspan_decode_task;

typedef struct lspan_merge {
    int64_t parts;
    int64_t part_stride_rows; /* rows from one part to the next in outputs and log_sum_exps */
    int64_t columns;
    const float *outputs;
    const float *log_sum_exps;
} lspan_merge;

typedef struct lspan_norm {
    int64_t columns;
    lspan_matrix input;
    const float *weight;
    const float *bias;
    float epsilon;
    lspan_matrix_out output;
} lspan_norm;

typedef struct lspan_rotation {
    lspan_rope_layout layout;
    int64_t heads;
    int64_t head_dim;
    int64_t pairs;
    const float *cosine;
    const float *sine;
    lspan_heads input;
    lspan_heads_out output;
} lspan_rotation;

typedef struct lspan_gate {
    lspan_activation activation;
    int64_t columns;
    lspan_matrix gate;
    lspan_matrix up;
    lspan_matrix_out output;
} lspan_gate;

typedef struct lspan_loss {
    int64_t vocabulary;
    lspan_matrix logits;
    const int32_t *targets;
    float *nll;
    float *entropy;
} lspan_loss;

/* Windows of one head's keys or of its values: `windows` of them are scored, and one more is read. */
typedef struct lspan_lag_task {
    const void *data; /* the first token of the first window */
    lspan_dtype dtype;
    int64_t token_stride;
    int64_t head_dim;
    int64_t window;
    int64_t windows;
    float weight;    /* of these scores */
    int accumulate;  /* add to `scores`, else overwrite */
    float *scores;   /* [windows * window] */
} lspan_lag_task;

/* Rows of one head of one array: entry i of `indices` goes to slot destination + i, and `tail` rows from tail_begin
 * behind the last. */
typedef struct lspan_row_move {
    char *data; /* slot 0 */
    int64_t row_bytes;
    int64_t stride_bytes; /* at least row_bytes */
    const int32_t *indices;
    int64_t count;
    int64_t destination;
    int64_t tail_begin;
    int64_t tail;
} lspan_row_move;

/* A call of lspan_dt_steps. */
typedef struct lspan_dt_call {
    int64_t sequences;
    const int64_t *indptr;
    int64_t channels;
    lspan_matrix dt;
    const lspan_dt_rule *rule;
    float *steps;
    int64_t row_stride;
} lspan_dt_call;

/* Tokens first .. end-1 of a sequence whose first is `begin`, and some channels of them. */
typedef struct lspan_conv_task {
    int64_t sequence;
    int64_t begin;
    int64_t first;
    int64_t end;
    int64_t channel;
    int64_t channel_end;
} lspan_conv_task;

/* Channels of one group and sequence. */
typedef struct lspan_scan_task {
    int64_t sequence;
    int64_t channel;
    int64_t count;
} lspan_scan_task;

/* A task of the chunked SSD scan: columns column .. column_end-1 of head_dim of some heads, all of one group, over all
 * tokens of a sequence. */
typedef struct lspan_ssd_task {
    int64_t sequence;
    int64_t head;
    int64_t heads;
    int64_t column;
    int64_t column_end;
} lspan_ssd_task;

/* A task of a product: some panels of one output for some rows of the input. */
typedef struct lspan_product_task {
    const lspan_product_output *output;
    lspan_product_mode mode;
    const lspan_product_inputs *inputs;
    int64_t panel;
    int64_t panel_end;
    int64_t row; /* a multiple of product_rows */
    int64_t row_end;
} lspan_product_task;

/* Exponents of a pass of measure_exp. */
#define LSPAN_MEASURE_EXPONENTS 2048

/* What a measuring loop did, in its own unit, and the proof. */
typedef struct lspan_measured {
    int64_t done;
    double checksum;
} lspan_measured;

typedef struct lspan_kernels {
    const char *name;

    void (*attention_prefill)(const lspan_attention *attention, lspan_prefill_task task, void *scratch);
    /* of keys in ranges that need no rotation */
    void (*attention_decode)(const lspan_attention *attention, lspan_decode_task task, void *scratch);
    /* of any keys */
    void (*attention_decode_gather)(const lspan_attention *attention, lspan_decode_task task, void *scratch);
    void (*attention_merge)(
        const lspan_merge *merge, int64_t row, float *output, float *log_sum_exp);

    /* rows or tokens first .. end-1 */
    void (*rms_norm)(const lspan_norm *norm, int64_t first, int64_t end);
    void (*layer_norm)(const lspan_norm *norm, int64_t first, int64_t end);
    void (*rope)(const lspan_rotation *rotation, int64_t first, int64_t end);
    void (*gated_activation)(const lspan_gate *gate, int64_t first, int64_t end);
    void (*convert)(
        int64_t heads, int64_t head_dim, lspan_heads input, lspan_heads_out output, int64_t first, int64_t end);
    void (*log_softmax_gather)(const lspan_loss *loss, int64_t first, int64_t end);
    /* `count` elements of whole blocks */
    void (*dequantize)(lspan_block_type type, const void *blocks, int64_t count, float *output);

    /* scratch as lag_scratch.h lays it out */
    void (*lag_scores)(const lspan_lag_task *task, float *scratch);
    void (*move_rows)(const lspan_row_move *move);
    /* rows first .. end-1 of heads * tokens, by heads */
    void (*rope_shift)(const lspan_rope_shifting *shifting, int64_t first, int64_t end);

    /* rows of a tile of inputs */
    int64_t product_rows;
    /* whether bf16 weights want inputs in bf16 */
    int product_bf16;
    /* tiles first .. end-1 */
    void (*product_inputs)(const lspan_product_inputs *inputs, int64_t first, int64_t end);
    /* scratch of LSPAN_PRODUCT_SCRATCH floats */
    void (*product)(const lspan_product_task *task, float *scratch);

    /* tokens first .. end-1, of one sequence */
    void (*dt_steps)(const lspan_dt_call *call, int64_t sequence, int64_t first, int64_t end);
    void (*causal_conv)(const lspan_causal_conv *convolution, lspan_conv_task task);
    /* the final state of one sequence; no task of that sequence may run any more */
    void (*causal_conv_state)(const lspan_causal_conv *convolution, int64_t sequence);
    /* groups first .. end-1 of all rows */
    void (*gated_rms_norm)(const lspan_gated_rms_norm *norm, int64_t first, int64_t end);
    /* scratch as scan_scratch.h lays it out */
    void (*selective_scan)(const lspan_selective_scan *scan, lspan_scan_task task, float *scratch);
    /* channels first .. end-1 of one sequence */
    void (*selective_update)(const lspan_selective_scan *scan, int64_t sequence, int64_t first, int64_t end);

    /* scratch as ssd_scratch.h lays it out */
    void (*ssd_chunks)(const lspan_ssd_scan *scan, lspan_ssd_task task, void *scratch);
    /* all tokens of one head of one sequence, in place on its state [P, N] */
    void (*ssd_steps)(const lspan_ssd_scan *scan, int64_t sequence, int64_t head, float *state);

    /* the sum of what was read; count is a multiple of 16 */
    double (*measure_read)(const float *data, int64_t count, int64_t passes);
    lspan_measured (*measure_fma_f32)(int64_t iterations, float multiplier, float addend);
    /* needs AVX512-BF16; NULL in a variant that never has it */
    lspan_measured (*measure_fma_bf16)(int64_t iterations, float multiplier, float addend);
    double (*measure_exp)(int64_t passes);
} lspan_kernels;

extern const lspan_kernels lspan_avx512bf16_kernels;
extern const lspan_kernels lspan_avx512vnni_kernels;
extern const lspan_kernels lspan_avx512_kernels;
extern const lspan_kernels lspan_avx2_kernels;
extern const lspan_kernels lspan_neonbf16_kernels;
extern const lspan_kernels lspan_neondot_kernels;
extern const lspan_kernels lspan_neon_kernels;
extern const lspan_kernels lspan_scalar_kernels;

#endif
