/* selective_body.h: the selective scan in the precision that precision_*.h chose. */
#define REAL LSPAN_REFERENCE_REAL
#define NAME LSPAN_REFERENCE_NAME
#define MATH LSPAN_REFERENCE_MATH

static REAL NAME(scan_at)(lspan_matrix m, int64_t row, int64_t column)
{
    return (REAL)lspan_reference_element(m.data, m.dtype, row * m.row_stride + column);
}

void NAME(selective_scan)(const lspan_selective_scan *s, REAL *output, REAL *state, int64_t *kept)
{
    int64_t n = s->state_size, size = s->channels / s->groups;
    for (int64_t b = 0; b < s->sequences; b++) {
        for (int64_t e = 0; e < s->channels; e++) {
            REAL *h = state + (b * s->channels + e) * n;
            int64_t count = 0;
            for (int64_t i = 0; i < n; i++) {
                h[i] = s->initial_state ? (REAL)s->initial_state[b * s->state_stride + e * n + i] : 0;
            }
            for (int64_t t = s->indptr[b]; t < s->indptr[b + 1]; t++) {
                REAL u = NAME(scan_at)(s->input, t, e), y = 0;
                REAL dt = NAME(dt_step)(&s->rule, b, e, NAME(scan_at)(s->dt, t, e));
                count += dt != 0;
                for (int64_t i = 0; i < n; i++) {
                    int64_t at_b = t * s->b.token_stride + e / size * s->b.head_stride + i;
                    int64_t at_c = t * s->c.token_stride + e / size * s->c.head_stride + i;
                    if (dt != 0) {
                        REAL push = dt * (REAL)lspan_reference_element(s->b.data, s->b.dtype, at_b) * u;
                        h[i] = MATH(exp)(dt * (REAL)s->a[e * n + i]) * h[i] + push;
                    }
                    y += (REAL)lspan_reference_element(s->c.data, s->c.dtype, at_c) * h[i];
                }
                if (s->d) y += (REAL)s->d[e] * u;
                if (s->gate.data) {
                    REAL z = NAME(scan_at)(s->gate, t, e);
                    y *= z / (1 + MATH(exp)(-z));
                }
                output[t * s->channels + e] = y;
            }
            if (kept) kept[b * s->channels + e] = count;
        }
    }
}

#undef REAL
#undef NAME
#undef MATH
