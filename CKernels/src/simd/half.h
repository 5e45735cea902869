/* half.h: f16 and bf16 to f32 and back, one value at a time, in plain C for any CPU. */
#ifndef LSPAN_HALF_H
#define LSPAN_HALF_H

#include <stdint.h>
#include <string.h>

static inline float lspan_float_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t lspan_bits_of_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float lspan_float_from_f16(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t magnitude = half & 0x7FFFu;
    if (magnitude < 0x0400u) {
        /* zero and subnormals: an integer count of 2^-24 */
        float value = (float)magnitude * 0x1p-24f;
        return lspan_float_from_bits(lspan_bits_of_float(value) | sign);
    }
    uint32_t exponent = magnitude >= 0x7C00u ? 0x7F800000u : ((magnitude >> 10) + 112u) << 23;
    return lspan_float_from_bits(sign | exponent | (magnitude & 0x3FFu) << 13);
}

static inline float lspan_float_from_bf16(uint16_t half)
{
    return lspan_float_from_bits((uint32_t)half << 16);
}

static inline uint16_t lspan_f16_from_float(float x)
{
    uint32_t bits = lspan_bits_of_float(x);
    uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | (magnitude >> 13 & 0x3FFu));
    if (magnitude >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u);
    if (magnitude < 0x38800000u) {
        /* adding 0.5 leaves the value's multiple of 2^-24 in the low bits, rounded by the FPU */
        float shifted = lspan_float_from_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (lspan_bits_of_float(shifted) - 0x3F000000u));
    }
    uint32_t rounded = magnitude + 0xFFFu + (magnitude >> 13 & 1u);
    return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
}

static inline uint16_t lspan_bf16_from_float(float x)
{
    uint32_t bits = lspan_bits_of_float(x);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

#endif
