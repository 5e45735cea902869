/* ssd_body.h: the SSD recurrence in the precision that precision_*.h chose. */
#define REAL LSPAN_REFERENCE_REAL
#define NAME LSPAN_REFERENCE_NAME
#define MATH LSPAN_REFERENCE_MATH

static REAL NAME(in_heads)(lspan_heads view, int64_t token, int64_t head, int64_t column)
{
    int64_t at = token * view.token_stride + head * view.head_stride + column;
    return (REAL)lspan_reference_element(view.data, view.dtype, at);
}

static REAL NAME(step)(const lspan_ssd_scan *s, int64_t sequence, int64_t token, int64_t head)
{
    int64_t at = token * s->dt.row_stride + head;
    return NAME(dt_step)(&s->rule, sequence, head, (REAL)lspan_reference_element(s->dt.data, s->dt.dtype, at));
}

/* y of a sum C . h: with D x, and the gate. */
static REAL NAME(gated)(const lspan_ssd_scan *s, int64_t token, int64_t head, int64_t column, REAL y)
{
    if (s->d) y += (REAL)s->d[head] * NAME(in_heads)(s->input, token, head, column);
    if (!s->gate.data) return y;
    REAL z = NAME(in_heads)(s->gate, token, head, column);
    return y * (z / (1 + MATH(exp)(-z)));
}

void NAME(ssd)(const lspan_ssd_scan *s, REAL *output, REAL *final_state, int64_t *kept)
{
    int64_t rows = s->head_dim, size = s->state_size;
    for (int64_t b = 0; b < s->sequences; b++) {
        for (int64_t h = 0; h < s->heads; h++) {
            int64_t group = h / (s->heads / s->groups), count = 0;
            REAL *state = final_state + (b * s->heads + h) * rows * size;
            for (int64_t i = 0; i < rows * size; i++) {
                state[i] = s->initial_state ? (REAL)s->initial_state[b * s->state_stride + h * rows * size + i] : 0;
            }
            for (int64_t t = s->indptr[b]; t < s->indptr[b + 1]; t++) {
                REAL dt = NAME(step)(s, b, t, h), decay = MATH(exp)(dt * (REAL)s->a[h]);
                count += dt != 0;
                for (int64_t p = 0; p < rows; p++) {
                    REAL y = 0, x = dt != 0 ? dt * NAME(in_heads)(s->input, t, h, p) : 0;
                    for (int64_t n = 0; n < size; n++) {
                        REAL *element = state + p * size + n;
                        if (dt != 0) *element = decay * *element + x * NAME(in_heads)(s->b, t, group, n);
                        y += NAME(in_heads)(s->c, t, group, n) * *element;
                    }
                    output[(t * s->heads + h) * rows + p] = NAME(gated)(s, t, h, p, y);
                }
            }
            if (kept) kept[b * s->heads + h] = count;
        }
    }
}

#undef REAL
#undef NAME
#undef MATH
