/* neon.h: 4 lanes; needs AArch64, whose baseline has FMA and the conversions of f16, and with V_BF16_DOT also BF16. */
#ifndef LSPAN_SIMD_NEON_H
#define LSPAN_SIMD_NEON_H

#include <arm_neon.h>

#if defined(__AARCH64EB__)
#error "big-endian AArch64 is not supported"
#endif

#define V_WIDTH 4

typedef float32x4_t v_f32;
typedef int32x4_t v_i32;
typedef uint32x4_t v_mask;

V_INLINE v_f32 v_zero(void) { return vdupq_n_f32(0.0f); }
V_INLINE v_f32 v_set1(float x) { return vdupq_n_f32(x); }

V_INLINE v_f32 v_load(const float *p) { return vld1q_f32(p); }
V_INLINE void v_store(float *p, v_f32 x) { vst1q_f32(p, x); }
/* There are no masked moves, so short rows go through a copy. */
V_INLINE v_f32 v_load_n(const float *p, int n)
{
    float lanes[V_WIDTH] = {0};
    memcpy(lanes, p, (size_t)n * sizeof *p);
    return vld1q_f32(lanes);
}
V_INLINE void v_store_n(float *p, v_f32 x, int n)
{
    float lanes[V_WIDTH];
    vst1q_f32(lanes, x);
    memcpy(p, lanes, (size_t)n * sizeof *p);
}
V_INLINE uint16x4_t v_load_u16_n_(const uint16_t *p, int n)
{
    uint16_t lanes[V_WIDTH] = {0};
    memcpy(lanes, p, (size_t)n * sizeof *p);
    return vld1_u16(lanes);
}
V_INLINE void v_store_u16_n_(uint16_t *p, uint16x4_t x, int n)
{
    uint16_t lanes[V_WIDTH];
    vst1_u16(lanes, x);
    memcpy(p, lanes, (size_t)n * sizeof *p);
}

V_INLINE v_f32 v_from_f16_(uint16x4_t x) { return vcvt_f32_f16(vreinterpret_f16_u16(x)); }
V_INLINE uint16x4_t v_to_f16_(v_f32 x) { return vreinterpret_u16_f16(vcvt_f16_f32(x)); }
V_INLINE v_f32 v_from_bf16_(uint16x4_t x) { return vreinterpretq_f32_u32(vshll_n_u16(x, 16)); }
/* Round to nearest even; a NaN keeps its upper bits and gets a quiet bit, so it cannot round to infinity. */
V_INLINE uint16x4_t v_to_bf16_(v_f32 x)
{
    uint32x4_t bits = vreinterpretq_u32_f32(x);
    uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7FFF)));
    uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), rounded, quiet), 16);
}

V_INLINE v_f32 v_load_f16(const uint16_t *p) { return v_from_f16_(vld1_u16(p)); }
V_INLINE v_f32 v_load_bf16(const uint16_t *p) { return v_from_bf16_(vld1_u16(p)); }
/* Even elements of 8 in a, odd ones in b: an upper half is a float as it stands. */
V_INLINE void v_load_bf16_pair(const uint16_t *p, v_f32 *a, v_f32 *b)
{
    uint32x4_t x = vreinterpretq_u32_u16(vld1q_u16(p));
    *a = vreinterpretq_f32_u32(vshlq_n_u32(x, 16));
    *b = vreinterpretq_f32_u32(vandq_u32(x, vdupq_n_u32(0xFFFF0000u)));
}
V_INLINE v_f32 v_load_f16_n(const uint16_t *p, int n) { return v_from_f16_(v_load_u16_n_(p, n)); }
V_INLINE v_f32 v_load_bf16_n(const uint16_t *p, int n) { return v_from_bf16_(v_load_u16_n_(p, n)); }
V_INLINE void v_store_f16(uint16_t *p, v_f32 x) { vst1_u16(p, v_to_f16_(x)); }
V_INLINE void v_store_bf16(uint16_t *p, v_f32 x) { vst1_u16(p, v_to_bf16_(x)); }
V_INLINE void v_store_f16_n(uint16_t *p, v_f32 x, int n) { v_store_u16_n_(p, v_to_f16_(x), n); }
V_INLINE void v_store_bf16_n(uint16_t *p, v_f32 x, int n) { v_store_u16_n_(p, v_to_bf16_(x), n); }

V_INLINE v_f32 v_add(v_f32 a, v_f32 b) { return vaddq_f32(a, b); }
V_INLINE v_f32 v_sub(v_f32 a, v_f32 b) { return vsubq_f32(a, b); }
V_INLINE v_f32 v_mul(v_f32 a, v_f32 b) { return vmulq_f32(a, b); }
V_INLINE v_f32 v_div(v_f32 a, v_f32 b) { return vdivq_f32(a, b); }
V_INLINE v_f32 v_fma(v_f32 a, v_f32 b, v_f32 c) { return vfmaq_f32(c, a, b); }
V_INLINE v_f32 v_fnma(v_f32 a, v_f32 b, v_f32 c) { return vfmsq_f32(c, a, b); }
/* FMAX returns NaN where either is one. */
V_INLINE v_f32 v_max(v_f32 a, v_f32 b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
V_INLINE v_f32 v_min(v_f32 a, v_f32 b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
V_INLINE v_f32 v_sqrt(v_f32 x) { return vsqrtq_f32(x); }
V_INLINE v_f32 v_abs(v_f32 x) { return vabsq_f32(x); }
V_INLINE v_f32 v_round(v_f32 x) { return vrndnq_f32(x); }
V_INLINE v_f32 v_power2_(v_i32 n) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23)); }
/* In two halves, because one exponent field holds only 2^-126 .. 2^127. */
V_INLINE v_f32 v_scale2(v_f32 x, v_f32 n)
{
    v_i32 whole = vcvtnq_s32_f32(n), half = vshrq_n_s32(whole, 1);
    return vmulq_f32(vmulq_f32(x, v_power2_(half)), v_power2_(vsubq_s32(whole, half)));
}
/* In one product: the field of -127 is that of 0. */
V_INLINE v_f32 v_scale2_normal(v_f32 x, v_f32 n) { return vmulq_f32(x, v_power2_(vcvtnq_s32_f32(n))); }

V_INLINE v_mask v_lt(v_f32 a, v_f32 b) { return vcltq_f32(a, b); }
V_INLINE v_mask v_eq(v_f32 a, v_f32 b) { return vceqq_f32(a, b); }
V_INLINE uint32x4_t v_lane_bits_(void) { return (uint32x4_t){1, 2, 4, 8}; }
V_INLINE uint32_t v_bits(v_mask m) { return vaddvq_u32(vandq_u32(m, v_lane_bits_())); }
V_INLINE v_f32 v_select(v_mask m, v_f32 yes, v_f32 no) { return vbslq_f32(m, yes, no); }
V_INLINE v_f32 v_fma_unless(v_mask m, v_f32 a, v_f32 b, v_f32 c) { return v_select(m, a, v_fma(a, b, c)); }
/* The sign bit of `sign` on the magnitude of x. */
V_INLINE v_f32 v_copysign(v_f32 x, v_f32 sign) { return vbslq_f32(vdupq_n_u32(0x80000000u), sign, x); }

V_INLINE float v_reduce_add(v_f32 x) { return vaddvq_f32(x); }
V_INLINE float v_reduce_max(v_f32 x)
{
    x = v_max(x, vextq_f32(x, x, 2));
    return vgetq_lane_f32(v_max(x, vextq_f32(x, x, 1)), 0);
}
V_INLINE void v_reduce_add4(const v_f32 x[4], float *out)
{
    vst1q_f32(out, vpaddq_f32(vpaddq_f32(x[0], x[1]), vpaddq_f32(x[2], x[3])));
}

V_INLINE void v_unzip(v_f32 a, v_f32 b, v_f32 *even, v_f32 *odd)
{
    *even = vuzp1q_f32(a, b);
    *odd = vuzp2q_f32(a, b);
}
V_INLINE void v_zip(v_f32 even, v_f32 odd, v_f32 *a, v_f32 *b)
{
    *a = vzip1q_f32(even, odd);
    *b = vzip2q_f32(even, odd);
}
V_INLINE void v_transpose(v_f32 rows[V_WIDTH])
{
    v_f32 a = vzip1q_f32(rows[0], rows[2]), b = vzip2q_f32(rows[0], rows[2]);
    v_f32 c = vzip1q_f32(rows[1], rows[3]), d = vzip2q_f32(rows[1], rows[3]);
    rows[0] = vzip1q_f32(a, c);
    rows[1] = vzip2q_f32(a, c);
    rows[2] = vzip1q_f32(b, d);
    rows[3] = vzip2q_f32(b, d);
}

#if defined(V_BF16_DOT)
V_INLINE v_f32 v_dot_bf16(v_f32 sum, v_f32 a, v_f32 b)
{
    return vbfdotq_f32(sum, vreinterpretq_bf16_f32(a), vreinterpretq_bf16_f32(b));
}
V_INLINE void v_narrow_bf16(uint16_t *p, v_f32 x) { vst1_u16(p, vreinterpret_u16_bf16(vcvt_bf16_f32(x))); }
V_INLINE v_f32 v_pair_bf16(v_f32 a, v_f32 b)
{
    uint16x8_t halves = vreinterpretq_u16_bf16(vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(a), b));
    return vreinterpretq_f32_u16(vzip1q_u16(halves, vextq_u16(halves, halves, 4)));
}
V_INLINE v_f32 v_low_bf16(v_f32 pairs) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(pairs), 16)); }
V_INLINE v_f32 v_high_bf16(v_f32 pairs)
{
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(pairs), vdupq_n_u32(0xFFFF0000u)));
}
V_INLINE v_f32 v_first_bf16(v_f32 pairs)
{
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(pairs), vdupq_n_u32(0xFFFF)));
}
V_INLINE v_f32 v_zip_bf16(const uint16_t *p, const uint16_t *q, int n)
{
    uint16x4_t low = n == V_WIDTH ? vld1_u16(p) : v_load_u16_n_(p, n), high = vdup_n_u16(0);
    if (q) high = n == V_WIDTH ? vld1_u16(q) : v_load_u16_n_(q, n);
    return vreinterpretq_f32_u16(vcombine_u16(vzip1_u16(low, high), vzip2_u16(low, high)));
}
#endif

V_INLINE v_i32 vi_set1(int32_t x) { return vdupq_n_s32(x); }
V_INLINE v_i32 vi_load_u8(const uint8_t *p)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four)))));
}
V_INLINE v_i32 vi_load_i8(const int8_t *p)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four))));
}
V_INLINE v_i32 vi_and(v_i32 a, v_i32 b) { return vandq_s32(a, b); }
V_INLINE v_i32 vi_or(v_i32 a, v_i32 b) { return vorrq_s32(a, b); }
V_INLINE v_i32 vi_srl(v_i32 a, int n)
{
    return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-n)));
}
V_INLINE v_i32 vi_load(const void *p) { return vreinterpretq_s32_u8(vld1q_u8(p)); }
V_INLINE v_i32 vi_sra(v_i32 a, int n) { return vshlq_s32(a, vdupq_n_s32(-n)); }
V_INLINE v_i32 vi_sll(v_i32 a, int n) { return vshlq_s32(a, vdupq_n_s32(n)); }
/* `yes` in lane i where bit i of bits is set, else 0. */
V_INLINE v_i32 vi_bits(uint32_t bits, int32_t yes)
{
    return vandq_s32(vreinterpretq_s32_u32(vtstq_u32(vdupq_n_u32(bits), v_lane_bits_())), vdupq_n_s32(yes));
}
V_INLINE v_f32 v_from_i32(v_i32 a) { return vcvtq_f32_s32(a); }

V_INLINE v_i32 v_to_i32(v_f32 x) { return vcvtnq_s32_f32(x); }
V_INLINE void vi_store_i8(int8_t *p, v_i32 x)
{
    int16x4_t half = vmovn_s32(x);
    uint32_t four = vget_lane_u32(vreinterpret_u32_s8(vmovn_s16(vcombine_s16(half, half))), 0);
    memcpy(p, &four, sizeof four);
}

#define V_DOT_I8_BIAS 0
V_INLINE v_i32 vi_biased_i8(v_i32 w) { return w; }
V_INLINE v_i32 vi_dot_i8(v_i32 sum, v_i32 w, v_i32 s)
{
    int8x16_t a = vreinterpretq_s8_s32(w), b = vreinterpretq_s8_s32(s);
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(sum, a, b);
#else
    /* two products of at most 128 * 127 fit 16 bits */
    return vpadalq_s16(sum, vpaddq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_high_s8(a, b)));
#endif
}
/* Bytes of at most 127 are the same signed. */
V_INLINE v_i32 vi_dot_u8(v_i32 sum, v_i32 u, v_i32 s) { return vi_dot_i8(sum, u, s); }

#endif
