/* ssm_step.h: the step dt of V_WIDTH channels or heads, as ssm.h defines it. */
#ifndef LSPAN_SSM_STEP_H
#define LSPAN_SSM_STEP_H

#include "../simd/vmath.h"
#include <longspan/ssm.h>

/* A rule's values for the lanes from one channel on. */
typedef struct v_dt_rule {
    v_f32 bias;
    v_f32 minimum;
    v_f32 maximum;
    v_f32 scale;
    v_f32 threshold;
    int softplus;
    int filtered;
} v_dt_rule;

V_INLINE v_dt_rule v_dt_rule_at(const lspan_dt_rule *rule, int64_t sequence, int64_t channel, int lanes)
{
    const lspan_dt_filter *filter = rule->filter;
    int64_t at = filter ? sequence * filter->sequence_stride + channel : 0;
    return (v_dt_rule){
        .bias = rule->bias ? v_load_n(rule->bias + channel, lanes) : v_zero(),
        .minimum = v_set1(rule->minimum),
        .maximum = v_set1(rule->maximum),
        .scale = filter && filter->scales ? v_load_n(filter->scales + at, lanes) : v_set1(1.0f),
        .threshold = filter && filter->thresholds ? v_load_n(filter->thresholds + at, lanes) : v_set1(-INFINITY),
        .softplus = rule->softplus,
        .filtered = filter != NULL};
}

/* A NaN goes through: v_max and v_min give their second operand where one is NaN. */
V_INLINE v_f32 v_dt_step(const v_dt_rule *rule, v_f32 dt)
{
    dt = v_add(dt, rule->bias);
    if (rule->softplus) dt = v_softplus(dt);
    dt = v_min(rule->maximum, v_max(rule->minimum, dt));
    if (!rule->filtered) return dt;
    return v_select(v_lt(rule->threshold, dt), v_mul(rule->scale, dt), v_min(v_zero(), dt));
}

#endif
