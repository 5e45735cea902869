/* ssm_layers_body.h: steps, causal convolution and gated norm in the precision that precision_*.h chose. */
#define REAL LSPAN_REFERENCE_REAL
#define NAME LSPAN_REFERENCE_NAME
#define MATH LSPAN_REFERENCE_MATH

static REAL NAME(layer_at)(lspan_matrix m, int64_t row, int64_t column)
{
    return (REAL)lspan_reference_element(m.data, m.dtype, row * m.row_stride + column);
}

static REAL NAME(layer_silu)(REAL x)
{
    return x / (1 + MATH(exp)(-x));
}

REAL NAME(dt_step)(const lspan_dt_rule *rule, int64_t sequence, int64_t channel, REAL dt)
{
    if (rule->bias) dt += (REAL)rule->bias[channel];
    if (rule->softplus) dt = dt > 0 ? dt + MATH(log1p)(MATH(exp)(-dt)) : MATH(log1p)(MATH(exp)(dt));
    if (dt < (REAL)rule->minimum) dt = (REAL)rule->minimum;
    if (dt > (REAL)rule->maximum) dt = (REAL)rule->maximum;
    if (!rule->filter) return dt;
    int64_t at = sequence * rule->filter->sequence_stride + channel;
    if (rule->filter->thresholds && dt <= (REAL)rule->filter->thresholds[at]) return 0;
    return rule->filter->scales ? dt * (REAL)rule->filter->scales[at] : dt;
}

void NAME(dt_steps)(
    int64_t sequences, const int64_t *indptr, int64_t channels, lspan_matrix dt, const lspan_dt_rule *rule, REAL *steps)
{
    for (int64_t b = 0; b < sequences; b++) {
        for (int64_t t = indptr[b]; t < indptr[b + 1]; t++) {
            for (int64_t i = 0; i < channels; i++) {
                steps[t * channels + i] = NAME(dt_step)(rule, b, i, NAME(layer_at)(dt, t, i));
            }
        }
    }
}

void NAME(causal_conv)(const lspan_causal_conv *c, REAL *output, REAL *state)
{
    int64_t kept = c->width - 1;
    for (int64_t b = 0; b < c->sequences; b++) {
        int64_t tokens = c->indptr[b + 1] - c->indptr[b];
        for (int64_t e = 0; e < c->channels; e++) {
            /* x of token t of this sequence, which is negative for the rows of the state */
            for (int64_t t = -kept; t < tokens; t++) {
                REAL sum = c->bias ? (REAL)c->bias[e] : 0;
                for (int64_t k = 0; k < c->width; k++) {
                    int64_t from = t - kept + k;
                    REAL x = 0;
                    if (from >= 0) {
                        x = NAME(layer_at)(c->input, c->indptr[b] + from, e);
                    } else if (from >= -kept && c->initial_state) {
                        x = (REAL)c->initial_state[b * c->state_stride + (from + kept) * c->channels + e];
                    }
                    sum += (REAL)c->weight[e * c->width + k] * x;
                    /* the last tap's row is x of t itself */
                    if (k == kept && t >= tokens - kept) {
                        state[(b * kept + t - tokens + kept) * c->channels + e] = x;
                    }
                }
                if (t >= 0) output[(c->indptr[b] + t) * c->channels + e] = c->silu ? NAME(layer_silu)(sum) : sum;
            }
        }
    }
}

void NAME(gated_rms_norm)(const lspan_gated_rms_norm *n, REAL *output)
{
    int64_t size = n->columns / n->groups;
    for (int64_t i = 0; i < n->rows * n->groups; i++) {
        int64_t row = i / n->groups, begin = i % n->groups * size;
        REAL squares = 0;
        for (int64_t c = begin; c < begin + size; c++) {
            REAL x = NAME(layer_at)(n->input, row, c);
            if (!n->norm_first) x *= NAME(layer_silu)(NAME(layer_at)(n->gate, row, c));
            squares += x * x;
        }
        REAL root = MATH(sqrt)(squares / (REAL)size + (REAL)n->epsilon);
        for (int64_t c = begin; c < begin + size; c++) {
            REAL gate = NAME(layer_silu)(NAME(layer_at)(n->gate, row, c));
            REAL y = NAME(layer_at)(n->input, row, c) * gate / root;
            output[row * n->columns + c] = n->weight ? y * (REAL)n->weight[c] : y;
        }
    }
}

#undef REAL
#undef NAME
#undef MATH
