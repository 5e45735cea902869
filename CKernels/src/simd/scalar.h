/* scalar.h: one lane of plain C, for any CPU. */
#ifndef LSPAN_SIMD_SCALAR_H
#define LSPAN_SIMD_SCALAR_H

#include "half.h"

#define V_WIDTH 1

typedef float v_f32;
typedef int32_t v_i32;
typedef int v_mask;

V_INLINE v_f32 v_zero(void) { return 0.0f; }
V_INLINE v_f32 v_set1(float x) { return x; }

V_INLINE v_f32 v_load(const float *p) { return *p; }
V_INLINE void v_store(float *p, v_f32 x) { *p = x; }
V_INLINE v_f32 v_load_n(const float *p, int n) { return n > 0 ? *p : 0.0f; }
V_INLINE void v_store_n(float *p, v_f32 x, int n)
{
    if (n > 0) *p = x;
}

V_INLINE v_f32 v_load_f16(const uint16_t *p) { return lspan_float_from_f16(*p); }
V_INLINE v_f32 v_load_bf16(const uint16_t *p) { return lspan_float_from_bf16(*p); }
V_INLINE void v_load_bf16_pair(const uint16_t *p, v_f32 *a, v_f32 *b)
{
    *a = v_load_bf16(p);
    *b = v_load_bf16(p + 1);
}
V_INLINE v_f32 v_load_f16_n(const uint16_t *p, int n) { return n > 0 ? v_load_f16(p) : 0.0f; }
V_INLINE v_f32 v_load_bf16_n(const uint16_t *p, int n) { return n > 0 ? v_load_bf16(p) : 0.0f; }
V_INLINE void v_store_f16(uint16_t *p, v_f32 x) { *p = lspan_f16_from_float(x); }
V_INLINE void v_store_bf16(uint16_t *p, v_f32 x) { *p = lspan_bf16_from_float(x); }
V_INLINE void v_store_f16_n(uint16_t *p, v_f32 x, int n)
{
    if (n > 0) v_store_f16(p, x);
}
V_INLINE void v_store_bf16_n(uint16_t *p, v_f32 x, int n)
{
    if (n > 0) v_store_bf16(p, x);
}

V_INLINE v_f32 v_add(v_f32 a, v_f32 b) { return a + b; }
V_INLINE v_f32 v_sub(v_f32 a, v_f32 b) { return a - b; }
V_INLINE v_f32 v_mul(v_f32 a, v_f32 b) { return a * b; }
V_INLINE v_f32 v_div(v_f32 a, v_f32 b) { return a / b; }
/* Rounded twice: a fused fmaf without hardware is a slow library call. */
V_INLINE v_f32 v_fma(v_f32 a, v_f32 b, v_f32 c) { return a * b + c; }
V_INLINE v_f32 v_fnma(v_f32 a, v_f32 b, v_f32 c) { return c - a * b; }
V_INLINE v_f32 v_max(v_f32 a, v_f32 b) { return a > b ? a : b; }
V_INLINE v_f32 v_min(v_f32 a, v_f32 b) { return a < b ? a : b; }
V_INLINE v_f32 v_abs(v_f32 x) { return fabsf(x); }
V_INLINE v_f32 v_sqrt(v_f32 x) { return sqrtf(x); }
V_INLINE v_f32 v_round(v_f32 x) { return nearbyintf(x); }
/* A number out of the ranges that simd.h names comes of a NaN beside it, and what is made of it does not matter; but C does
 * not define its conversion. */
V_INLINE int32_t v_exponent(v_f32 n) { return n >= -252.0f && n <= 254.0f ? (int32_t)n : 0; }
/* In two halves, because one exponent field holds only 2^-126 .. 2^127. */
V_INLINE v_f32 v_scale2(v_f32 x, v_f32 n)
{
    int32_t whole = v_exponent(n), half = whole / 2, rest = whole - half;
    return x * lspan_float_from_bits((uint32_t)(half + 127) << 23) * lspan_float_from_bits((uint32_t)(rest + 127) << 23);
}
/* In one product: the field of -127 is that of 0. */
V_INLINE v_f32 v_scale2_normal(v_f32 x, v_f32 n)
{
    return x * lspan_float_from_bits((uint32_t)(v_exponent(n) + 127) << 23);
}

V_INLINE v_mask v_lt(v_f32 a, v_f32 b) { return a < b; }
V_INLINE v_mask v_eq(v_f32 a, v_f32 b) { return a == b; }
V_INLINE uint32_t v_bits(v_mask m) { return (uint32_t)m; }
V_INLINE v_f32 v_select(v_mask m, v_f32 yes, v_f32 no) { return m ? yes : no; }
V_INLINE v_f32 v_fma_unless(v_mask m, v_f32 a, v_f32 b, v_f32 c) { return m ? a : v_fma(a, b, c); }
V_INLINE v_f32 v_copysign(v_f32 x, v_f32 sign) { return copysignf(x, sign); }

V_INLINE float v_reduce_add(v_f32 x) { return x; }
V_INLINE float v_reduce_max(v_f32 x) { return x; }
V_INLINE void v_reduce_add4(const v_f32 x[4], float *out)
{
    memcpy(out, x, 4 * sizeof(float));
}
V_INLINE void v_unzip(v_f32 a, v_f32 b, v_f32 *even, v_f32 *odd)
{
    *even = a;
    *odd = b;
}
V_INLINE void v_zip(v_f32 even, v_f32 odd, v_f32 *a, v_f32 *b)
{
    *a = even;
    *b = odd;
}
V_INLINE void v_transpose(v_f32 rows[V_WIDTH]) { (void)rows; }

V_INLINE v_i32 vi_set1(int32_t x) { return x; }
V_INLINE v_i32 vi_load_u8(const uint8_t *p) { return *p; }
V_INLINE v_i32 vi_load_i8(const int8_t *p) { return *p; }
V_INLINE v_i32 vi_and(v_i32 a, v_i32 b) { return a & b; }
V_INLINE v_i32 vi_or(v_i32 a, v_i32 b) { return a | b; }
V_INLINE v_i32 vi_srl(v_i32 a, int n) { return (int32_t)((uint32_t)a >> n); }
V_INLINE v_i32 vi_load(const void *p)
{
    int32_t x;
    memcpy(&x, p, sizeof x);
    return x;
}
V_INLINE v_i32 vi_sra(v_i32 a, int n) { return a >> n; }
V_INLINE v_i32 vi_sll(v_i32 a, int n) { return (int32_t)((uint32_t)a << n); }
/* `yes` where bit 0 of bits is set, else 0. */
V_INLINE v_i32 vi_bits(uint32_t bits, int32_t yes) { return bits & 1u ? yes : 0; }
V_INLINE v_f32 v_from_i32(v_i32 a) { return (float)a; }

V_INLINE v_i32 v_to_i32(v_f32 x) { return x >= -128.0f && x <= 127.0f ? (int32_t)nearbyintf(x) : 0; }
V_INLINE void vi_store_i8(int8_t *p, v_i32 x) { *p = (int8_t)x; }

V_INLINE v_i32 vi_dot_u8(v_i32 sum, v_i32 u, v_i32 s)
{
    for (int i = 0; i < 32; i += 8) sum += (int32_t)((uint32_t)u >> i & 255u) * (int8_t)((uint32_t)s >> i & 255u);
    return sum;
}
#define V_DOT_I8_BIAS 0
V_INLINE v_i32 vi_biased_i8(v_i32 w) { return w; }
V_INLINE v_i32 vi_dot_i8(v_i32 sum, v_i32 w, v_i32 s)
{
    for (int i = 0; i < 32; i += 8) sum += (int8_t)((uint32_t)w >> i & 255u) * (int8_t)((uint32_t)s >> i & 255u);
    return sum;
}

#endif
