/* avx2.h: 8 lanes; needs AVX2, FMA and F16C. */
#ifndef LSPAN_SIMD_AVX2_H
#define LSPAN_SIMD_AVX2_H

#include <immintrin.h>

#define V_WIDTH 8

typedef __m256 v_f32;
typedef __m256i v_i32;
typedef __m256 v_mask;

V_INLINE __m256i v_first_n(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

V_INLINE v_f32 v_zero(void) { return _mm256_setzero_ps(); }
V_INLINE v_f32 v_set1(float x) { return _mm256_set1_ps(x); }

V_INLINE v_f32 v_load(const float *p) { return _mm256_loadu_ps(p); }
V_INLINE void v_store(float *p, v_f32 x) { _mm256_storeu_ps(p, x); }
V_INLINE v_f32 v_load_n(const float *p, int n) { return _mm256_maskload_ps(p, v_first_n(n)); }
V_INLINE void v_store_n(float *p, v_f32 x, int n) { _mm256_maskstore_ps(p, v_first_n(n), x); }

V_INLINE v_f32 v_from_bf16_(__m128i x)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}

/* Round to nearest even; a NaN keeps its upper bits and gets a quiet bit, so it cannot round to infinity. */
V_INLINE __m128i v_to_bf16_(v_f32 x)
{
    __m256i bits = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    rounded = _mm256_blendv_epi8(rounded, _mm256_or_si256(bits, _mm256_set1_epi32(0x400000)), nan);
    rounded = _mm256_srli_epi32(rounded, 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
}

/* There are no masked 16-bit moves below AVX-512, so short rows go through a copy. */
V_INLINE __m128i v_load_u16_n_(const uint16_t *p, int n)
{
    uint16_t lanes[V_WIDTH] = {0};
    memcpy(lanes, p, (size_t)n * sizeof *p);
    return _mm_loadu_si128((const __m128i *)(const void *)lanes);
}
V_INLINE void v_store_u16_n_(uint16_t *p, __m128i x, int n)
{
    uint16_t lanes[V_WIDTH];
    _mm_storeu_si128((__m128i *)(void *)lanes, x);
    memcpy(p, lanes, (size_t)n * sizeof *p);
}

V_INLINE v_f32 v_load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
V_INLINE v_f32 v_load_bf16(const uint16_t *p)
{
    return v_from_bf16_(_mm_loadu_si128((const __m128i *)(const void *)p));
}
/* Even elements of 16 in a, odd ones in b: an upper half is a float as it stands. */
V_INLINE void v_load_bf16_pair(const uint16_t *p, v_f32 *a, v_f32 *b)
{
    __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)p);
    *a = _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
    *b = _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(INT32_C(-65536))));
}
V_INLINE v_f32 v_load_f16_n(const uint16_t *p, int n) { return _mm256_cvtph_ps(v_load_u16_n_(p, n)); }
V_INLINE v_f32 v_load_bf16_n(const uint16_t *p, int n) { return v_from_bf16_(v_load_u16_n_(p, n)); }
V_INLINE void v_store_f16(uint16_t *p, v_f32 x)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
V_INLINE void v_store_bf16(uint16_t *p, v_f32 x) { _mm_storeu_si128((__m128i *)(void *)p, v_to_bf16_(x)); }
V_INLINE void v_store_f16_n(uint16_t *p, v_f32 x, int n)
{
    v_store_u16_n_(p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT), n);
}
V_INLINE void v_store_bf16_n(uint16_t *p, v_f32 x, int n) { v_store_u16_n_(p, v_to_bf16_(x), n); }

V_INLINE v_f32 v_add(v_f32 a, v_f32 b) { return _mm256_add_ps(a, b); }
V_INLINE v_f32 v_sub(v_f32 a, v_f32 b) { return _mm256_sub_ps(a, b); }
V_INLINE v_f32 v_mul(v_f32 a, v_f32 b) { return _mm256_mul_ps(a, b); }
V_INLINE v_f32 v_div(v_f32 a, v_f32 b) { return _mm256_div_ps(a, b); }
V_INLINE v_f32 v_fma(v_f32 a, v_f32 b, v_f32 c) { return _mm256_fmadd_ps(a, b, c); }
V_INLINE v_f32 v_fnma(v_f32 a, v_f32 b, v_f32 c) { return _mm256_fnmadd_ps(a, b, c); }
V_INLINE v_f32 v_max(v_f32 a, v_f32 b) { return _mm256_max_ps(a, b); }
V_INLINE v_f32 v_min(v_f32 a, v_f32 b) { return _mm256_min_ps(a, b); }
V_INLINE v_f32 v_sqrt(v_f32 x) { return _mm256_sqrt_ps(x); }
V_INLINE v_f32 v_abs(v_f32 x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
V_INLINE v_f32 v_round(v_f32 x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* In two halves, because one exponent field holds only 2^-126 .. 2^127. */
V_INLINE v_f32 v_scale2(v_f32 x, v_f32 n)
{
    __m256i whole = _mm256_cvtps_epi32(n);
    __m256i half = _mm256_srai_epi32(whole, 1);
    __m256i rest = _mm256_sub_epi32(whole, half);
    __m256i bias = _mm256_set1_epi32(127);
    __m256 a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    __m256 b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(x, a), b);
}
/* In one product: the field of -127 is that of 0. */
V_INLINE v_f32 v_scale2_normal(v_f32 x, v_f32 n)
{
    __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}

V_INLINE v_mask v_lt(v_f32 a, v_f32 b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
V_INLINE v_mask v_eq(v_f32 a, v_f32 b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
V_INLINE uint32_t v_bits(v_mask m) { return (uint32_t)_mm256_movemask_ps(m); }
V_INLINE v_f32 v_select(v_mask m, v_f32 yes, v_f32 no) { return _mm256_blendv_ps(no, yes, m); }
V_INLINE v_f32 v_fma_unless(v_mask m, v_f32 a, v_f32 b, v_f32 c) { return v_select(m, a, v_fma(a, b, c)); }
/* The sign bit of `sign` on the magnitude of x. */
V_INLINE v_f32 v_copysign(v_f32 x, v_f32 sign)
{
    __m256 high = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(high, x), _mm256_and_ps(high, sign));
}

V_INLINE float v_reduce_add(v_f32 x)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
V_INLINE float v_reduce_max(v_f32 x)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
V_INLINE void v_reduce_add4(const v_f32 x[4], float *out)
{
    __m256 abcd = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1)));
}

V_INLINE void v_unzip(v_f32 a, v_f32 b, v_f32 *even, v_f32 *odd)
{
    /* the choice within each half, then the quarters in order */
    *even = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(a, b, 0x88)), 0xD8));
    *odd = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(a, b, 0xDD)), 0xD8));
}
V_INLINE void v_zip(v_f32 even, v_f32 odd, v_f32 *a, v_f32 *b)
{
    __m256 low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
    *a = _mm256_permute2f128_ps(low, high, 0x20);
    *b = _mm256_permute2f128_ps(low, high, 0x31);
}

V_INLINE void v_transpose(v_f32 rows[V_WIDTH])
{
    __m256 t[8], u[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int g = 0; g < 2; g++) {
        u[4 * g] = _mm256_shuffle_ps(t[4 * g], t[4 * g + 2], 0x44);
        u[4 * g + 1] = _mm256_shuffle_ps(t[4 * g], t[4 * g + 2], 0xEE);
        u[4 * g + 2] = _mm256_shuffle_ps(t[4 * g + 1], t[4 * g + 3], 0x44);
        u[4 * g + 3] = _mm256_shuffle_ps(t[4 * g + 1], t[4 * g + 3], 0xEE);
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        rows[k] = _mm256_permute2f128_ps(u[k], u[4 + k], 0x20);
        rows[4 + k] = _mm256_permute2f128_ps(u[k], u[4 + k], 0x31);
    }
}

typedef uint32_t v_u32_ __attribute__((vector_size(32)));
typedef int32_t v_s32_ __attribute__((vector_size(32)));

V_INLINE v_i32 vi_set1(int32_t x) { return _mm256_set1_epi32(x); }
V_INLINE v_i32 vi_load_u8(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}
V_INLINE v_i32 vi_load_i8(const int8_t *p)
{
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}
V_INLINE v_i32 vi_and(v_i32 a, v_i32 b) { return _mm256_and_si256(a, b); }
V_INLINE v_i32 vi_or(v_i32 a, v_i32 b) { return _mm256_or_si256(a, b); }
V_INLINE v_i32 vi_load(const void *p) { return _mm256_loadu_si256(p); }
/* Shifts by the compiler's vectors: constant counts become immediate ones. */
V_INLINE v_i32 vi_srl(v_i32 a, int n) { return (v_i32)((v_u32_)a >> (uint32_t)n); }
V_INLINE v_i32 vi_sra(v_i32 a, int n) { return (v_i32)((v_s32_)a >> n); }
V_INLINE v_i32 vi_sll(v_i32 a, int n) { return (v_i32)((v_u32_)a << (uint32_t)n); }
/* Lane i is `yes` where bit i of bits is set, else 0. */
V_INLINE v_i32 vi_bits(uint32_t bits, int32_t yes)
{
    __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int32_t)bits), lane), lane);
    return _mm256_and_si256(set, _mm256_set1_epi32(yes));
}
V_INLINE v_f32 v_from_i32(v_i32 a) { return _mm256_cvtepi32_ps(a); }

V_INLINE v_i32 v_to_i32(v_f32 x) { return _mm256_cvtps_epi32(x); }
V_INLINE void vi_store_i8(int8_t *p, v_i32 x)
{
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packs_epi16(words, words));
}

V_INLINE v_i32 vi_dot_u8(v_i32 sum, v_i32 u, v_i32 s)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1)));
}
#define V_DOT_I8_BIAS 0
V_INLINE v_i32 vi_biased_i8(v_i32 w) { return w; }
V_INLINE v_i32 vi_dot_i8(v_i32 sum, v_i32 w, v_i32 s)
{
    return vi_dot_u8(sum, _mm256_abs_epi8(w), _mm256_sign_epi8(s, w));
}

#endif
