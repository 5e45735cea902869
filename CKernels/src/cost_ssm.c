/* cost_ssm.c: bytes, FLOPs and exponentials of the calls of ssm.h. */
#include "cost.h"

static int64_t size_of(lspan_dtype dtype)
{
    return (int64_t)lspan_dtype_size(dtype);
}

/* The step of one channel and token: bias and filter are one operation each, softplus an exponential and a logarithm. */
static void add_steps(lspan_cost *cost, const lspan_dt_rule *rule, int64_t sequences, int64_t channels, int64_t rows)
{
    int64_t steps = rows * channels, floats = rule->bias ? channels : 0;
    if (steps == 0) return;
    if (rule->filter) {
        int64_t sets = rule->filter->sequence_stride == 0 ? 1 : sequences;
        floats += sets * channels * ((rule->filter->scales != NULL) + (rule->filter->thresholds != NULL));
    }
    cost->bytes += floats * (int64_t)sizeof(float);
    cost->flops += steps * ((rule->bias != NULL) + (rule->filter != NULL) + (rule->softplus ? 3 : 0));
    cost->exponentials += rule->softplus ? 2 * steps : 0;
}

lspan_cost lspan_dt_steps_cost(const lspan_dt_call *call)
{
    int64_t rows = call->indptr[call->sequences], steps = rows * call->channels;
    lspan_cost cost = {.bytes = steps * (size_of(call->dt.dtype) + (int64_t)sizeof(float))};
    add_steps(&cost, call->rule, call->sequences, call->channels, rows);
    return cost;
}

/* A chunk of 64 tokens, however the kernel cuts them: half of C B^T and of its product with x is causal. */
#define SSD_CHUNK 64

lspan_cost lspan_ssd_cost(const lspan_ssd_scan *s, lspan_ssd_form form)
{
    int64_t rows = s->indptr[s->sequences], inputs = rows * s->heads * s->head_dim, states = s->head_dim * s->state_size;
    int64_t floats = s->heads * (1 + (s->d != NULL));
    floats += ((s->initial_state != NULL) + (s->final_state != NULL)) * s->sequences * s->heads * states;
    lspan_cost cost = {.bytes = floats * (int64_t)sizeof(float)};
    cost.bytes += inputs * (size_of(s->input.dtype) + size_of(s->output.dtype));
    cost.bytes += rows * s->heads * size_of(s->dt.dtype);
    cost.bytes += rows * s->groups * s->state_size * (size_of(s->b.dtype) + size_of(s->c.dtype));
    cost.bytes += s->gate.data ? inputs * size_of(s->gate.dtype) : 0;
    cost.bytes += s->kept ? s->sequences * s->heads * (int64_t)sizeof *s->kept : 0;
    if (form == lspan_ssd_form_chunked) {
        cost.flops = rows * s->heads * 2 * (s->head_dim * SSD_CHUNK / 2 + 2 * states);
        cost.flops += rows * s->groups * s->state_size * SSD_CHUNK;
    } else {
        cost.flops = rows * s->heads * 5 * states;
    }
    cost.flops += inputs * ((s->d ? 2 : 0) + (s->gate.data ? 4 : 0));
    cost.exponentials = rows * s->heads + (s->gate.data ? inputs : 0);
    add_steps(&cost, &s->rule, s->sequences, s->heads, rows);
    return cost;
}

lspan_cost lspan_causal_conv_cost(const lspan_causal_conv *c)
{
    int64_t elements = c->indptr[c->sequences] * c->channels;
    int64_t states = (c->initial_state != NULL) + (c->final_state != NULL);
    int64_t floats = c->channels * (c->width + (c->bias != NULL)) + states * c->sequences * (c->width - 1) * c->channels;
    lspan_cost cost;
    cost.bytes = elements * (size_of(c->input.dtype) + size_of(c->output.dtype)) + floats * (int64_t)sizeof(float);
    cost.flops = elements * (2 * c->width + (c->silu ? 4 : 0));
    cost.exponentials = c->silu ? elements : 0;
    return cost;
}

lspan_cost lspan_gated_rms_norm_cost(const lspan_gated_rms_norm *n)
{
    int64_t elements = n->rows * n->columns;
    lspan_cost cost = {0, 0, 0};
    if (elements == 0) return cost;
    cost.bytes = elements * (size_of(n->input.dtype) + size_of(n->gate.dtype) + size_of(n->output.dtype));
    cost.bytes += n->weight ? n->columns * (int64_t)sizeof(float) : 0;
    cost.flops = elements * (3 + 4 + (n->weight != NULL));
    cost.exponentials = elements;
    return cost;
}

lspan_cost lspan_selective_scan_cost(const lspan_selective_scan *s)
{
    int64_t rows = s->indptr[s->sequences], n = s->state_size, elements = rows * s->channels, states = s->channels * n;
    int64_t element = size_of(s->input.dtype) + size_of(s->dt.dtype) + size_of(s->output.dtype);
    int64_t copies = (s->initial_state != NULL) + (s->final_state != NULL);
    if (s->gate.data) element += size_of(s->gate.dtype);
    lspan_cost cost;
    cost.bytes = elements * element + rows * s->groups * n * (size_of(s->b.dtype) + size_of(s->c.dtype));
    cost.bytes += (states + copies * s->sequences * states) * (int64_t)sizeof(float);
    cost.bytes += s->d ? s->channels * (int64_t)sizeof(float) : 0;
    cost.bytes += s->kept ? s->sequences * s->channels * (int64_t)sizeof(int64_t) : 0;
    cost.flops = elements * (7 * n + 1 + (s->d ? 2 : 0) + (s->gate.data ? 4 : 0));
    cost.exponentials = elements * (n + (s->gate.data != NULL));
    add_steps(&cost, &s->rule, s->sequences, s->channels, rows);
    return cost;
}
