/* avx512.h: 16 lanes; needs AVX-512 F, BW, DQ and VL, and with V_BF16_DOT also BF16. */
#ifndef LSPAN_SIMD_AVX512_H
#define LSPAN_SIMD_AVX512_H

#include <immintrin.h>

#define V_WIDTH 16

typedef __m512 v_f32;
typedef __m512i v_i32;
typedef __mmask16 v_mask;
typedef struct v_32nds {
    v_f32 rounded;
    v_f32 rest;
    v_i32 index;
} v_32nds;

V_INLINE __mmask16 v_first_n(int n)
{
    return (__mmask16)((1u << n) - 1u);
}

V_INLINE v_f32 v_zero(void) { return _mm512_setzero_ps(); }
V_INLINE v_f32 v_set1(float x) { return _mm512_set1_ps(x); }

V_INLINE v_f32 v_load(const float *p) { return _mm512_loadu_ps(p); }
V_INLINE void v_store(float *p, v_f32 x) { _mm512_storeu_ps(p, x); }
V_INLINE v_f32 v_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps(v_first_n(n), p); }
V_INLINE void v_store_n(float *p, v_f32 x, int n) { _mm512_mask_storeu_ps(p, v_first_n(n), x); }

V_INLINE v_f32 v_from_bf16_(__m256i x)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

/* Round to nearest even; a NaN keeps its upper bits and gets a quiet bit, so it cannot round to infinity. */
V_INLINE __m256i v_to_bf16_(v_f32 x)
{
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_epi32(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}

V_INLINE v_f32 v_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
V_INLINE v_f32 v_load_bf16(const uint16_t *p)
{
    return v_from_bf16_(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
/* Even elements of 32 in a, odd ones in b: an upper half is a float as it stands. */
V_INLINE void v_load_bf16_pair(const uint16_t *p, v_f32 *a, v_f32 *b)
{
    __m512i x = _mm512_loadu_si512(p);
    *a = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
    *b = _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(INT32_C(-65536))));
}
V_INLINE v_f32 v_load_f16_n(const uint16_t *p, int n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(v_first_n(n), p));
}
V_INLINE v_f32 v_load_bf16_n(const uint16_t *p, int n)
{
    return v_from_bf16_(_mm256_maskz_loadu_epi16(v_first_n(n), p));
}
V_INLINE void v_store_f16(uint16_t *p, v_f32 x)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
V_INLINE void v_store_bf16(uint16_t *p, v_f32 x) { _mm256_storeu_si256((__m256i *)(void *)p, v_to_bf16_(x)); }
V_INLINE void v_store_f16_n(uint16_t *p, v_f32 x, int n)
{
    _mm256_mask_storeu_epi16(p, v_first_n(n), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
V_INLINE void v_store_bf16_n(uint16_t *p, v_f32 x, int n)
{
    _mm256_mask_storeu_epi16(p, v_first_n(n), v_to_bf16_(x));
}

V_INLINE v_f32 v_add(v_f32 a, v_f32 b) { return _mm512_add_ps(a, b); }
V_INLINE v_f32 v_sub(v_f32 a, v_f32 b) { return _mm512_sub_ps(a, b); }
V_INLINE v_f32 v_mul(v_f32 a, v_f32 b) { return _mm512_mul_ps(a, b); }
V_INLINE v_f32 v_div(v_f32 a, v_f32 b) { return _mm512_div_ps(a, b); }
V_INLINE v_f32 v_fma(v_f32 a, v_f32 b, v_f32 c) { return _mm512_fmadd_ps(a, b, c); }
V_INLINE v_f32 v_fnma(v_f32 a, v_f32 b, v_f32 c) { return _mm512_fnmadd_ps(a, b, c); }
V_INLINE v_f32 v_max(v_f32 a, v_f32 b) { return _mm512_max_ps(a, b); }
V_INLINE v_f32 v_min(v_f32 a, v_f32 b) { return _mm512_min_ps(a, b); }
V_INLINE v_f32 v_abs(v_f32 x) { return _mm512_abs_ps(x); }
V_INLINE v_f32 v_sqrt(v_f32 x) { return _mm512_sqrt_ps(x); }
V_INLINE v_f32 v_round(v_f32 x)
{
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
V_INLINE v_f32 v_scale2(v_f32 x, v_f32 n) { return _mm512_scalef_ps(x, n); }

#define V_SPLIT32 1
/* Adding this leaves x in steps of 1/32, its number of them in the lowest bits. */
V_INLINE v_32nds v_split32(v_f32 x)
{
    v_32nds s;
    s.index = _mm512_castps_si512(_mm512_add_ps(x, _mm512_set1_ps(0x1.8p18f)));
    s.rounded = _mm512_roundscale_ps(x, 5 << 4 | _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    /* not vreduceps, which takes two slots */
    s.rest = _mm512_sub_ps(x, s.rounded);
    return s;
}
V_INLINE v_f32 v_lookup32(v_f32 low, v_f32 high, v_i32 index) { return _mm512_permutex2var_ps(low, index, high); }
V_INLINE v_f32 v_scale2_floor(v_f32 x, v_f32 n) { return _mm512_scalef_ps(x, n); }

V_INLINE v_mask v_lt(v_f32 a, v_f32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
V_INLINE v_f32 v_fma_unless(v_mask m, v_f32 a, v_f32 b, v_f32 c) { return _mm512_mask_fmadd_ps(a, (__mmask16)~m, b, c); }
V_INLINE v_mask v_eq(v_f32 a, v_f32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
V_INLINE uint32_t v_bits(v_mask m) { return (uint32_t)m; }
V_INLINE v_f32 v_select(v_mask m, v_f32 yes, v_f32 no) { return _mm512_mask_blend_ps(m, no, yes); }
/* The sign bit of `sign` on the magnitude of x. */
V_INLINE v_f32 v_copysign(v_f32 x, v_f32 sign)
{
    __m512i high = _mm512_set1_epi32(INT32_MIN);
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(high, _mm512_castps_si512(sign), _mm512_castps_si512(x), 0xCA));
}

V_INLINE float v_reduce_add(v_f32 x) { return _mm512_reduce_add_ps(x); }
V_INLINE float v_reduce_max(v_f32 x) { return _mm512_reduce_max_ps(x); }

/* Each 128-bit lane holds that lane's sums of a, b, c and d. */
V_INLINE v_f32 v_sum_lanes_(v_f32 a, v_f32 b, v_f32 c, v_f32 d)
{
    __m512d ab = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
    __m512d cd = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)));
    return _mm512_add_ps(
        _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)), _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
}

V_INLINE void v_reduce_add4(const v_f32 x[4], float *out)
{
    __m512 sums = v_sum_lanes_(x[0], x[1], x[2], x[3]);
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(sums), _mm512_extractf32x8_ps(sums, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

/* 16 sums at once share the additions across lanes. */
#define V_REDUCE_ADD4X4
V_INLINE void v_reduce_add4x4(const v_f32 x[4][4], float *out, int64_t stride)
{
    __m512 row[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) row[r] = v_sum_lanes_(x[r][0], x[r][1], x[r][2], x[r][3]);
    __m512 low = _mm512_add_ps(_mm512_shuffle_f32x4(row[0], row[1], 0x44), _mm512_shuffle_f32x4(row[0], row[1], 0xEE));
    __m512 high = _mm512_add_ps(_mm512_shuffle_f32x4(row[2], row[3], 0x44), _mm512_shuffle_f32x4(row[2], row[3], 0xEE));
    __m512 sums = _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xDD));
    _mm_storeu_ps(out, _mm512_castps512_ps128(sums));
    _mm_storeu_ps(out + stride, _mm512_extractf32x4_ps(sums, 1));
    _mm_storeu_ps(out + 2 * stride, _mm512_extractf32x4_ps(sums, 2));
    _mm_storeu_ps(out + 3 * stride, _mm512_extractf32x4_ps(sums, 3));
}

V_INLINE void v_unzip(v_f32 a, v_f32 b, v_f32 *even, v_f32 *odd)
{
    __m512i index = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    *even = _mm512_permutex2var_ps(a, index, b);
    *odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(index, _mm512_set1_epi32(1)), b);
}
V_INLINE void v_zip(v_f32 even, v_f32 odd, v_f32 *a, v_f32 *b)
{
    __m512i index = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    *a = _mm512_permutex2var_ps(even, index, odd);
    *b = _mm512_permutex2var_ps(even, _mm512_add_epi32(index, _mm512_set1_epi32(8)), odd);
}

V_INLINE void v_transpose(v_f32 rows[V_WIDTH])
{
    __m512 t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    /* u[4g + k]: lane group q holds column 4q + k of rows 4g .. 4g+3 */
    __m512 u[16];
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) {
        u[4 * g] = _mm512_shuffle_ps(t[4 * g], t[4 * g + 2], 0x44);
        u[4 * g + 1] = _mm512_shuffle_ps(t[4 * g], t[4 * g + 2], 0xEE);
        u[4 * g + 2] = _mm512_shuffle_ps(t[4 * g + 1], t[4 * g + 3], 0x44);
        u[4 * g + 3] = _mm512_shuffle_ps(t[4 * g + 1], t[4 * g + 3], 0xEE);
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        __m512 low01 = _mm512_shuffle_f32x4(u[k], u[4 + k], 0x88);
        __m512 low23 = _mm512_shuffle_f32x4(u[8 + k], u[12 + k], 0x88);
        __m512 high01 = _mm512_shuffle_f32x4(u[k], u[4 + k], 0xDD);
        __m512 high23 = _mm512_shuffle_f32x4(u[8 + k], u[12 + k], 0xDD);
        rows[k] = _mm512_shuffle_f32x4(low01, low23, 0x88);
        rows[8 + k] = _mm512_shuffle_f32x4(low01, low23, 0xDD);
        rows[4 + k] = _mm512_shuffle_f32x4(high01, high23, 0x88);
        rows[12 + k] = _mm512_shuffle_f32x4(high01, high23, 0xDD);
    }
}

#if defined(V_BF16_DOT)
V_INLINE v_f32 v_dot_bf16(v_f32 sum, v_f32 a, v_f32 b)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
}

V_INLINE void v_narrow_bf16(uint16_t *p, v_f32 x)
{
    _mm256_storeu_si256((__m256i *)(void *)p, (__m256i)_mm512_cvtneps_pbh(x));
}

V_INLINE v_f32 v_pair_bf16(v_f32 a, v_f32 b)
{
    __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(b, a);
    __m512i lane = _mm512_setr_epi32(
        0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006, 0x170007, 0x180008, 0x190009, 0x1A000A,
        0x1B000B, 0x1C000C, 0x1D000D, 0x1E000E, 0x1F000F);
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(lane, halves));
}

V_INLINE v_f32 v_low_bf16(v_f32 pairs)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs), 16));
}

V_INLINE v_f32 v_high_bf16(v_f32 pairs)
{
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs), _mm512_set1_epi32(INT32_C(-65536))));
}

V_INLINE v_f32 v_first_bf16(v_f32 pairs)
{
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs), _mm512_set1_epi32(0xFFFF)));
}

V_INLINE v_f32 v_zip_bf16(const uint16_t *p, const uint16_t *q, int n)
{
    __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(v_first_n(n), p));
    __m512i high = q ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(v_first_n(n), q)) : _mm512_setzero_si512();
    return _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}
#endif

typedef uint32_t v_u32_ __attribute__((vector_size(64)));
typedef int32_t v_s32_ __attribute__((vector_size(64)));

V_INLINE v_i32 vi_set1(int32_t x) { return _mm512_set1_epi32(x); }
V_INLINE v_i32 vi_load_u8(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}
V_INLINE v_i32 vi_load_i8(const int8_t *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}
V_INLINE v_i32 vi_and(v_i32 a, v_i32 b) { return _mm512_and_si512(a, b); }
V_INLINE v_i32 vi_or(v_i32 a, v_i32 b) { return _mm512_or_si512(a, b); }
V_INLINE v_i32 vi_load(const void *p) { return _mm512_loadu_si512(p); }
/* Shifts by the compiler's vectors: constant counts become immediate ones. */
V_INLINE v_i32 vi_srl(v_i32 a, int n) { return (v_i32)((v_u32_)a >> (uint32_t)n); }
V_INLINE v_i32 vi_sra(v_i32 a, int n) { return (v_i32)((v_s32_)a >> n); }
V_INLINE v_i32 vi_sll(v_i32 a, int n) { return (v_i32)((v_u32_)a << (uint32_t)n); }
/* Lane i is `yes` where bit i of bits is set, else 0. */
V_INLINE v_i32 vi_bits(uint32_t bits, int32_t yes)
{
    return _mm512_maskz_set1_epi32((__mmask16)bits, yes);
}
V_INLINE v_f32 v_from_i32(v_i32 a) { return _mm512_cvtepi32_ps(a); }

V_INLINE v_i32 v_to_i32(v_f32 x) { return _mm512_cvtps_epi32(x); }
V_INLINE void vi_store_i8(int8_t *p, v_i32 x)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(x));
}

#if defined(__AVX512VNNI__)
V_INLINE v_i32 vi_dot_u8(v_i32 sum, v_i32 u, v_i32 s) { return _mm512_dpbusd_epi32(sum, u, s); }
/* The instruction has one unsigned side: signed bytes go there with their sign bit flipped, which adds 128. */
#define V_DOT_I8_BIAS 128
V_INLINE v_i32 vi_biased_i8(v_i32 w) { return _mm512_xor_si512(w, _mm512_set1_epi8(-128)); }
V_INLINE v_i32 vi_dot_i8(v_i32 sum, v_i32 w, v_i32 s) { return vi_dot_u8(sum, w, s); }
#else
V_INLINE v_i32 vi_dot_u8(v_i32 sum, v_i32 u, v_i32 s)
{
    return _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(u, s), _mm512_set1_epi16(1)));
}
#define V_DOT_I8_BIAS 0
V_INLINE v_i32 vi_biased_i8(v_i32 w) { return w; }
V_INLINE v_i32 vi_dot_i8(v_i32 sum, v_i32 w, v_i32 s)
{
    __m512i signed_s = _mm512_mask_sub_epi8(s, _mm512_movepi8_mask(w), _mm512_setzero_si512(), s);
    return vi_dot_u8(sum, _mm512_abs_epi8(w), signed_s);
}
#endif

#endif
