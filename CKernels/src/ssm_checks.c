/* ssm_checks.c: validation that the calls of ssm.h share. */
#include "ssm_checks.h"
#include <math.h>

static lspan_status check_filter(const lspan_dt_filter *filter, int64_t sequences, int64_t channels)
{
    int64_t stride = filter->sequence_stride, last;
    if (stride != 0 && stride < channels) return lspan_status_bad_stride;
    LSPAN_CHECK(lspan_multiply(sequences, stride, &last));
    LSPAN_CHECK(lspan_multiply(last, (int64_t)sizeof(float), &last));
    LSPAN_CHECK(lspan_check_aligned(filter->scales, sizeof(float)));
    LSPAN_CHECK(lspan_check_aligned(filter->thresholds, sizeof(float)));
    if (!filter->scales && !filter->thresholds) return lspan_status_ok;
    LSPAN_CHECK(lspan_check_count(channels, sizeof(float)));
    int64_t rows = stride == 0 ? sequences > 0 : sequences;
    for (int64_t b = 0; b < rows; b++) {
        for (int64_t i = 0; i < channels; i++) {
            float scale = filter->scales ? filter->scales[b * stride + i] : 1.0f;
            float threshold = filter->thresholds ? filter->thresholds[b * stride + i] : 0.0f;
            if (!isfinite(scale) || scale < 0 || isnan(threshold)) return lspan_status_bad_value;
        }
    }
    return lspan_status_ok;
}

lspan_status lspan_check_dt_rule(const lspan_dt_rule *rule, int64_t sequences, int64_t channels)
{
    if (rule->softplus != 0 && rule->softplus != 1) return lspan_status_bad_value;
    if (!isfinite(rule->minimum) || rule->minimum < 0 || !(rule->maximum >= rule->minimum)) return lspan_status_bad_value;
    LSPAN_CHECK(lspan_check_aligned(rule->bias, sizeof(float)));
    return rule->filter ? check_filter(rule->filter, sequences, channels) : lspan_status_ok;
}

lspan_status lspan_check_states(
    const float *initial_state, const float *final_state, int64_t state_stride, int64_t sequences, int64_t elements)
{
    int64_t last;
    if (!initial_state && !final_state) return lspan_status_ok;
    if (state_stride < elements) return lspan_status_bad_stride;
    LSPAN_CHECK(lspan_multiply(sequences, state_stride, &last));
    LSPAN_CHECK(lspan_multiply(last, (int64_t)sizeof(float), &last));
    LSPAN_CHECK(lspan_check_aligned(initial_state, sizeof(float)));
    return lspan_check_aligned(final_state, sizeof(float));
}

lspan_status lspan_check_decays(const float *a, int64_t count)
{
    LSPAN_CHECK(lspan_check_floats(a, count));
    int good = 1;
    for (int64_t i = 0; i < count; i++) good &= a[i] <= 0.0f && a[i] >= -3.402823466e38f;
    return good ? lspan_status_ok : lspan_status_bad_value;
}
