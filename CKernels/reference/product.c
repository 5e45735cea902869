/* product.c: products with weights, of inputs that may be rounded first. */
#include "reference.h"
#include <math.h>
#include <stdlib.h>

static void round_block(const float *input, int64_t count, double *rounded, double *steps)
{
    float largest = 0;
    for (int64_t k = 0; k < count; k++) largest = fmaxf(largest, fabsf(input[k]));
    float scale = largest / 127;
    for (int64_t k = 0; k < count; k++) {
        rounded[k] = scale == 0 ? 0 : (double)scale * nearbyint((double)input[k] / (double)scale);
        if (steps) steps[k] = (double)scale;
    }
}

void lspan_reference_round_inputs(
    lspan_reference_rounding rounding, const float *input, int64_t count, double *rounded, double *steps)
{
    if (rounding == lspan_reference_rounding_8bit) {
        for (int64_t k = 0; k < count; k += 32) {
            round_block(input + k, count - k < 32 ? count - k : 32, rounded + k, steps ? steps + k : NULL);
        }
        return;
    }
    for (int64_t k = 0; k < count; k++) {
        double x = (double)input[k];
        int narrow = rounding == lspan_reference_rounding_bf16;
        rounded[k] = narrow ? lspan_reference_round(x, lspan_dtype_bf16) : x;
        if (steps) steps[k] = narrow ? ldexp(fabs(x), -7) : 0;
    }
}

#include "precision_f64.h"
#include "product_body.h"

#include "precision_f32.h"
#include "product_body.h"
