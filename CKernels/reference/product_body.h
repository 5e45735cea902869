/* product_body.h: products with weights in the precision that precision_*.h chose. */
#define REAL LSPAN_REFERENCE_REAL
#define NAME LSPAN_REFERENCE_NAME

/* sums [rows, weights->rows] of the rounded inputs times the weights. */
static void NAME(multiply)(const lspan_reference_product *p, const lspan_weights *weights, REAL *sums)
{
    int64_t columns = weights->columns;
    REAL *w = calloc((size_t)(weights->rows * columns + 1), sizeof *w);
    double *x = calloc((size_t)columns + 1, sizeof *x);
    if (!w || !x) abort();
    NAME(dequantize)(weights, w);
    for (int64_t r = 0; r < p->rows; r++) {
        lspan_reference_round_inputs(p->rounding, p->input + r * p->input_row_stride, columns, x, NULL);
        for (int64_t m = 0; m < weights->rows; m++) {
            REAL sum = 0;
            for (int64_t k = 0; k < columns; k++) sum += (REAL)x[k] * w[m * columns + k];
            sums[r * weights->rows + m] = sum;
        }
    }
    free(w);
    free(x);
}

void NAME(product)(const lspan_reference_product *p, REAL *output)
{
    int64_t columns = p->weights.rows, count = p->rows * columns;
    NAME(multiply)(p, &p->weights, output);
    if (p->initial) {
        for (int64_t i = 0; i < count; i++) {
            output[i] += (REAL)p->initial[i / columns * p->initial_row_stride + i % columns];
        }
    }
    if (p->gate.data) {
        REAL *gate = calloc((size_t)count + 1, sizeof *gate);
        if (!gate) abort();
        NAME(multiply)(p, &p->gate, gate);
        for (int64_t i = 0; i < count; i++) output[i] *= NAME(activation)(p->activation, gate[i]);
        free(gate);
    }
}

#undef REAL
#undef NAME
