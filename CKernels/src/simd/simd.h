/* simd.h: the vector type of the ISA variant that this translation unit is compiled for.
 *
 * Each kernel body is compiled once per variant with -DLSPAN_VARIANT_<isa>; it is written over the names
 * below and never assumes a width. A wrapper defines:
 *
 *   V_WIDTH                 f32 lanes; a power of two, at most 16
 *   v_f32, v_i32, v_mask    vectors of V_WIDTH floats, 32-bit integers, and a lane predicate
 *   loads and stores        v_load, v_store (any alignment); *_n touch only the first n lanes, 0 <= n <= V_WIDTH,
 *                           and load zeros above them; f16 and bf16 forms convert, rounding to nearest even
 *   arithmetic              v_fma(a, b, c) = a*b + c, v_fnma(a, b, c) = c - a*b; v_max and v_min return
 *                           the second operand where either is NaN
 *   v_fma_unless(m, a, b, c)  a where m, else a*b + c
 *   v_to_i32(x), vi_store_i8(p, x)  to the nearest integer; the lanes as bytes, both for |x| <= 127, else any value
 *   v_round                 to nearest integer value, ties to even
 *   v_scale2(x, n)          x * 2^n for n a float with an integer value in -252 .. 254
 *   v_scale2_normal(x, n)   the same for n in -127 .. 127, with 0 for -127; where V_SPLIT32 is 0
 *   v_eq(a, b), v_lt(a, b)  predicates, false where either is NaN; v_bits(m) is an integer with bit i for lane i
 *   reductions              v_reduce_add, v_reduce_max; v_reduce_add4 of four vectors into out[0..3];
 *                           v_reduce_add4x4 of four times four into four such rows, where it is cheaper in one go
 *   v_transpose             rows[i] lane j <-> rows[j] lane i
 *   vi_dot_u8(s, u, x)      s + the four products of bytes of each 32-bit lane, u unsigned and at most 127, x signed and
 *                           not -128
 *   vi_biased_i8(w)         signed bytes w, any, as vi_dot_i8(s, w, x) wants them, which is the same of w + V_DOT_I8_BIAS
 *   v_unzip, v_zip          2 * V_WIDTH elements in two vectors: apart into even and odd ones, and back
 *
 * and where V_SPLIT32 is 1, because there it is cheap:
 *
 *   v_split32(x)            .rounded, x to the nearest 1/32; .rest, x less that; and .index, whose lowest
 *                           five bits count the 32nds of .rounded above the integer below it, for |x| < 2^17
 *   v_lookup32(a, b, i)     entry i mod 32 of a followed by b
 *   v_scale2_floor(x, n)    x * 2^floor(n) for any n
 *
 * and where V_BF16_DOT is 1, on vectors whose lanes are taken as pairs of bf16 (low half first):
 *
 *   v_dot_bf16(s, a, b)     s + a.low * b.low + a.high * b.high in f32, lane by lane
 *   v_narrow_bf16(p, x)     stores x as bf16, subnormals perhaps as zero, in fewer operations than v_store_bf16
 *   v_pair_bf16(a, b)       lane i is the pair (a[i], b[i]), rounded as v_narrow_bf16 does
 *   v_low_bf16, v_high_bf16 the low and the high half of each pair as floats
 *   v_first_bf16(x)         each pair with a zero for its high half
 *   v_zip_bf16(p, q, n)     lane i is the pair (p[i], q[i]), or (p[i], 0) where q is NULL; only the first n lanes are read
 */
#ifndef LSPAN_SIMD_H
#define LSPAN_SIMD_H

#include <longspan/types.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define V_INLINE static inline __attribute__((always_inline, unused))

#if defined(LSPAN_VARIANT_avx512bf16)
#define LSPAN_ISA avx512bf16
#define V_BF16_DOT 1
#include "avx512.h"
#elif defined(LSPAN_VARIANT_avx512vnni)
#define LSPAN_ISA avx512vnni
/* only its matrix products differ */
#define LSPAN_SHARED_ISA avx512
#include "avx512.h"
#elif defined(LSPAN_VARIANT_avx512)
#define LSPAN_ISA avx512
#include "avx512.h"
#elif defined(LSPAN_VARIANT_avx2)
#define LSPAN_ISA avx2
#include "avx2.h"
#elif defined(LSPAN_VARIANT_neonbf16)
#define LSPAN_ISA neonbf16
#define V_BF16_DOT 1
#include "neon.h"
#elif defined(LSPAN_VARIANT_neondot)
#define LSPAN_ISA neondot
/* only its matrix products differ */
#define LSPAN_SHARED_ISA neon
#include "neon.h"
#elif defined(LSPAN_VARIANT_neon)
#define LSPAN_ISA neon
#include "neon.h"
#elif defined(LSPAN_VARIANT_scalar)
#define LSPAN_ISA scalar
#include "scalar.h"
#else
#error "compile kernel bodies with -DLSPAN_VARIANT_<isa>"
#endif

#if !defined(V_BF16_DOT)
#define V_BF16_DOT 0
#endif
#if !defined(V_SPLIT32)
#define V_SPLIT32 0
#endif

#define LSPAN_CONCAT4_(a, b, c, d) a##b##c##d
#define LSPAN_CONCAT4(a, b, c, d) LSPAN_CONCAT4_(a, b, c, d)
/* The name of this variant's instance of a kernel body: lspan_<isa>_<name>. */
#define LSPAN_VARIANT(name) LSPAN_CONCAT4(lspan_, LSPAN_ISA, _, name)
/* The instance that this variant uses, which may be another variant's. */
#if !defined(LSPAN_SHARED_ISA)
#define LSPAN_SHARED_ISA LSPAN_ISA
#endif
#define LSPAN_SHARED(name) LSPAN_CONCAT4(lspan_, LSPAN_SHARED_ISA, _, name)

#if !defined(V_REDUCE_ADD4X4)
V_INLINE void v_reduce_add4x4(const v_f32 x[4][4], float *out, int64_t stride)
{
    for (int r = 0; r < 4; r++) v_reduce_add4(x[r], out + r * stride);
}
#endif

/* The same pointer, of which the compiler does not know it: keeps loads by it out of other branches. */
#define V_FORGET(pointer) __asm__("" : "+r"(pointer))

/* Asks for a cache line to be brought into L2, or into L1. */
V_INLINE void v_prefetch_l2(const void *line)
{
    __builtin_prefetch(line, 0, 2);
}
V_INLINE void v_prefetch_l1(const void *line)
{
    __builtin_prefetch(line, 0, 3);
}
/* Asks for a cache line that will be written. */
V_INLINE void v_prefetch_write(const void *line)
{
    __builtin_prefetch(line, 1, 2);
}

V_INLINE v_f32 v_load_as(const void *data, int64_t index, lspan_dtype dtype)
{
    switch (dtype) {
    case lspan_dtype_f16:
        return v_load_f16((const uint16_t *)data + index);
    case lspan_dtype_bf16:
        return v_load_bf16((const uint16_t *)data + index);
    default:
        return v_load((const float *)data + index);
    }
}

V_INLINE v_f32 v_load_as_n(const void *data, int64_t index, lspan_dtype dtype, int n)
{
    switch (dtype) {
    case lspan_dtype_f16:
        return v_load_f16_n((const uint16_t *)data + index, n);
    case lspan_dtype_bf16:
        return v_load_bf16_n((const uint16_t *)data + index, n);
    default:
        return v_load_n((const float *)data + index, n);
    }
}

V_INLINE void v_store_as(void *data, int64_t index, lspan_dtype dtype, v_f32 x)
{
    switch (dtype) {
    case lspan_dtype_f16:
        v_store_f16((uint16_t *)data + index, x);
        break;
    case lspan_dtype_bf16:
        v_store_bf16((uint16_t *)data + index, x);
        break;
    default:
        v_store((float *)data + index, x);
        break;
    }
}

V_INLINE void v_store_as_n(void *data, int64_t index, lspan_dtype dtype, v_f32 x, int n)
{
    switch (dtype) {
    case lspan_dtype_f16:
        v_store_f16_n((uint16_t *)data + index, x, n);
        break;
    case lspan_dtype_bf16:
        v_store_bf16_n((uint16_t *)data + index, x, n);
        break;
    default:
        v_store_n((float *)data + index, x, n);
        break;
    }
}

/* 2 * V_WIDTH elements as two vectors in the order that is cheapest to unpack: even and odd elements for bf16, the
 * first and the second half otherwise. */
typedef struct v_pair {
    v_f32 a;
    v_f32 b;
} v_pair;

V_INLINE v_pair v_load_pair(const void *data, int64_t index, lspan_dtype dtype)
{
    v_pair pair;
    if (dtype == lspan_dtype_bf16) {
        v_load_bf16_pair((const uint16_t *)data + index, &pair.a, &pair.b);
    } else {
        pair.a = v_load_as(data, index, dtype);
        pair.b = v_load_as(data, index + V_WIDTH, dtype);
    }
    return pair;
}

#endif
