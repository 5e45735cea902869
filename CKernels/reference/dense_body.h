/* dense_body.h: norms, rotary embedding, activations and losses in the precision that precision_*.h chose. */
#define REAL LSPAN_REFERENCE_REAL
#define NAME LSPAN_REFERENCE_NAME
#define MATH LSPAN_REFERENCE_MATH

static REAL NAME(at)(lspan_matrix m, int64_t row, int64_t column)
{
    return (REAL)lspan_reference_element(m.data, m.dtype, row * m.row_stride + column);
}

void NAME(rms_norm)(
    int64_t rows, int64_t columns, lspan_matrix input, const float *weight, float epsilon, REAL *output)
{
    for (int64_t r = 0; r < rows; r++) {
        REAL squares = 0;
        for (int64_t c = 0; c < columns; c++) squares += NAME(at)(input, r, c) * NAME(at)(input, r, c);
        REAL root = MATH(sqrt)(squares / (REAL)columns + (REAL)epsilon);
        for (int64_t c = 0; c < columns; c++) {
            output[r * columns + c] = NAME(at)(input, r, c) / root * (weight ? (REAL)weight[c] : 1);
        }
    }
}

void NAME(layer_norm)(
    int64_t rows, int64_t columns, lspan_matrix input, const float *weight, const float *bias, float epsilon,
    REAL *output)
{
    for (int64_t r = 0; r < rows; r++) {
        REAL sum = 0, squares = 0;
        for (int64_t c = 0; c < columns; c++) sum += NAME(at)(input, r, c);
        REAL mean = sum / (REAL)columns;
        for (int64_t c = 0; c < columns; c++) {
            REAL x = NAME(at)(input, r, c) - mean;
            squares += x * x;
        }
        REAL root = MATH(sqrt)(squares / (REAL)columns + (REAL)epsilon);
        for (int64_t c = 0; c < columns; c++) {
            REAL y = (NAME(at)(input, r, c) - mean) / root;
            output[r * columns + c] = y * (weight ? (REAL)weight[c] : 1) + (bias ? (REAL)bias[c] : 0);
        }
    }
}

void NAME(rope_table)(
    int64_t tokens, const int64_t *positions, int64_t pairs, const float *inverse_frequencies, REAL *cosine, REAL *sine)
{
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t i = 0; i < pairs; i++) {
            REAL angle = (REAL)positions[t] * (REAL)inverse_frequencies[i];
            cosine[t * pairs + i] = MATH(cos)(angle);
            sine[t * pairs + i] = MATH(sin)(angle);
        }
    }
}

void NAME(rope)(
    lspan_rope_layout layout, int64_t tokens, int64_t heads, int64_t head_dim, int64_t pairs, const float *cosine,
    const float *sine, lspan_heads input, REAL *output)
{
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t h = 0; h < heads; h++) {
            int64_t base = t * input.token_stride + h * input.head_stride;
            REAL *out = output + (t * heads + h) * head_dim;
            for (int64_t d = 0; d < head_dim; d++) {
                out[d] = (REAL)lspan_reference_element(input.data, input.dtype, base + d);
            }
            for (int64_t i = 0; i < pairs; i++) {
                int64_t first = layout == lspan_rope_layout_halves ? i : 2 * i;
                int64_t second = layout == lspan_rope_layout_halves ? i + pairs : 2 * i + 1;
                REAL c = (REAL)cosine[t * pairs + i], s = (REAL)sine[t * pairs + i];
                REAL x = out[first], y = out[second];
                out[first] = x * c - y * s;
                out[second] = x * s + y * c;
            }
        }
    }
}

REAL NAME(activation)(lspan_activation activation, REAL x)
{
    /* 2 / pi and 1 / 2 under the roots of the two GELU forms */
    const REAL two_over_pi = (REAL)0.63661977236758134308;
    switch (activation) {
    case lspan_activation_gelu_tanh: {
        REAL inner = MATH(sqrt)(two_over_pi) * (x + (REAL)0.044715 * x * x * x);
        return (REAL)0.5 * x * (1 + MATH(tanh)(inner));
    }
    case lspan_activation_gelu_erf:
        return (REAL)0.5 * x * (1 + MATH(erf)(x / MATH(sqrt)((REAL)2)));
    default:
        return x / (1 + MATH(exp)(-x));
    }
}

void NAME(gated_activation)(
    lspan_activation activation, int64_t rows, int64_t columns, lspan_matrix gate, lspan_matrix up, REAL *output)
{
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < columns; c++) {
            output[r * columns + c] = NAME(activation)(activation, NAME(at)(gate, r, c)) * NAME(at)(up, r, c);
        }
    }
}

void NAME(log_softmax_gather)(
    int64_t rows, int64_t vocabulary, lspan_matrix logits, const int32_t *targets, REAL *nll, REAL *entropy)
{
    for (int64_t r = 0; r < rows; r++) {
        REAL maximum = -(REAL)INFINITY, sum = 0, expected = 0;
        for (int64_t v = 0; v < vocabulary; v++) {
            REAL x = NAME(at)(logits, r, v);
            if (x > maximum || isnan(x)) maximum = x;
        }
        for (int64_t v = 0; v < vocabulary; v++) sum += MATH(exp)(NAME(at)(logits, r, v) - maximum);
        REAL log_sum = maximum + MATH(log)(sum);
        for (int64_t v = 0; v < vocabulary; v++) {
            REAL x = NAME(at)(logits, r, v), p = MATH(exp)(x - log_sum);
            if (!(p == 0)) expected += p * x;
        }
        if (nll) nll[r] = log_sum - NAME(at)(logits, r, targets[r]);
        if (entropy) entropy[r] = log_sum - expected;
    }
}

#undef REAL
#undef NAME
#undef MATH
