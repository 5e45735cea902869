/* attention_merge.c: one row of the exact merge of partial attention results. */
#include "../simd/vmath.h"
#include "variants.h"

void LSPAN_VARIANT(attention_merge)(const lspan_merge *merge, int64_t row, float *output, float *log_sum_exp)
{
    /* without parts there may be no array to point into */
    const float *lse = merge->parts > 0 ? merge->log_sum_exps + row : NULL;
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

    if (merge->parts == 0) memset(output, 0, (size_t)merge->columns * sizeof(float));
    for (int64_t p = 0; p < merge->parts; p++) {
        /* a part that saw nothing has zeros by contract, so its weight of 0 needs no special case */
        v_f32 weight = v_set1(expf(lse[p * stride] - base) * inverse);
        const float *part = merge->outputs + (row + p * stride) * merge->columns;
        for (int64_t d = 0; d < merge->columns; d += V_WIDTH) {
            int lanes = merge->columns - d < V_WIDTH ? (int)(merge->columns - d) : V_WIDTH;
            v_f32 total = p == 0 ? v_zero() : v_load_n(output + d, lanes);
            v_store_n(output + d, v_fma(weight, v_load_n(part + d, lanes), total), lanes);
        }
    }
    if (log_sum_exp) *log_sum_exp = sum == 0.0f ? -INFINITY : base + logf(sum);
}
