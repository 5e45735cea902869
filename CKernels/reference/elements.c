/* elements.c: f16 and bf16 by exact arithmetic on their value, not on their bits. */
#include "reference.h"
#include <math.h>

/* The value of an IEEE-like format: 1 sign bit, then `exponent_bits`, then `fraction_bits`. */
static double decode(unsigned bits, int exponent_bits, int fraction_bits)
{
    int sign = (int)(bits >> (exponent_bits + fraction_bits)) & 1;
    int exponent = (int)(bits >> fraction_bits) & ((1 << exponent_bits) - 1);
    int fraction = (int)bits & ((1 << fraction_bits) - 1);
    int bias = (1 << (exponent_bits - 1)) - 1;
    double magnitude;
    if (exponent == (1 << exponent_bits) - 1) {
        magnitude = fraction ? (double)NAN : (double)INFINITY;
    } else if (exponent == 0) {
        magnitude = ldexp(fraction, 1 - bias - fraction_bits);
    } else {
        magnitude = ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
    }
    return sign ? -magnitude : magnitude;
}

/* The nearest value of the format: x is scaled so that the format's spacing around it is 1, rounded to an
 * integer with ties to even (the default rounding mode), and read off. */
static unsigned encode(double x, int exponent_bits, int fraction_bits)
{
    unsigned sign = signbit(x) ? 1u << (exponent_bits + fraction_bits) : 0;
    int bias = (1 << (exponent_bits - 1)) - 1;
    unsigned infinity = ((1u << exponent_bits) - 1) << fraction_bits;
    if (isnan(x)) return sign | infinity | 1u << (fraction_bits - 1);
    if (isinf(x)) return sign | infinity;
    if (x == 0) return sign;
    int exponent;
    frexp(x, &exponent);
    exponent -= 1; /* |x| in [2^exponent, 2^(exponent+1)) */
    if (exponent < 1 - bias) exponent = 1 - bias;
    double units = nearbyint(ldexp(fabs(x), fraction_bits - exponent));
    /* a value that rounds up to the next power of two carries into the exponent field by itself */
    double coded = units + ldexp(exponent + bias - 1, fraction_bits);
    return sign | (coded >= (double)infinity ? infinity : (unsigned)coded);
}

double lspan_reference_from_f16(uint16_t bits)
{
    return decode(bits, 5, 10);
}

double lspan_reference_from_bf16(uint16_t bits)
{
    return decode(bits, 8, 7);
}

uint16_t lspan_reference_to_f16(double x)
{
    return (uint16_t)encode(x, 5, 10);
}

uint16_t lspan_reference_to_bf16(double x)
{
    return (uint16_t)encode(x, 8, 7);
}

double lspan_reference_element(const void *data, lspan_dtype dtype, int64_t index)
{
    switch (dtype) {
    case lspan_dtype_f16:
        return lspan_reference_from_f16(((const uint16_t *)data)[index]);
    case lspan_dtype_bf16:
        return lspan_reference_from_bf16(((const uint16_t *)data)[index]);
    default:
        return (double)((const float *)data)[index];
    }
}

double lspan_reference_round(double x, lspan_dtype dtype)
{
    switch (dtype) {
    case lspan_dtype_f16:
        return lspan_reference_from_f16(lspan_reference_to_f16(x));
    case lspan_dtype_bf16:
        return lspan_reference_from_bf16(lspan_reference_to_bf16(x));
    default:
        return (double)(float)x;
    }
}
