/* attention_merge.c: one row of the exact merge of partial attention results. */
#include "../simd/vmath.h"
#include "variants.h"

void LSPAN_VARIANT(attention_merge)(const lspan_merge *merge, int64_t row, float *output, float *log_sum_exp)
{
    const float *lse = merge->log_sum_exps + row;
    int64_t stride = merge->part_stride_rows;
    float highest = -INFINITY;
    for (int64_t p = 0; p < merge->parts; p++) {
        float x = lse[p * stride];
        if (!(x <= highest)) highest = x;
        if (x != x) break;
    }
    float base = highest == -INFINITY ? 0.0f : highest;
    float sum = 0.0f;
    for (int64_t p = 0; p < merge->parts; p++) sum += expf(lse[p * stride] - base);
    float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;

    for (int64_t d = 0; d < merge->columns; d += V_WIDTH) {
        int lanes = merge->columns - d < V_WIDTH ? (int)(merge->columns - d) : V_WIDTH;
        v_f32 total = v_zero();
        for (int64_t p = 0; p < merge->parts; p++) {
            /* a part that saw nothing has zeros by contract, so its weight of 0 needs no special case */
            v_f32 weight = v_set1(expf(lse[p * stride] - base) * inverse);
            const float *part = merge->outputs + (row + p * stride) * merge->columns + d;
            total = v_fma(weight, lanes == V_WIDTH ? v_load(part) : v_load_n(part, lanes), total);
        }
        if (lanes == V_WIDTH) {
            v_store(output + d, total);
        } else {
            v_store_n(output + d, total, lanes);
        }
    }
    if (log_sum_exp) *log_sum_exp = sum == 0.0f ? -INFINITY : base + logf(sum);
}
