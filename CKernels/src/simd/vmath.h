/* vmath.h: elementary functions over v_f32, by range reduction and the polynomials of the Cephes library
 * (S. Moshier, netlib.org/cephes, single precision). Errors are stated as measured in f32 ulp over each
 * function's range by Tests/CKernelsTests/vmath_test.c. */
#ifndef LSPAN_SIMD_VMATH_H
#define LSPAN_SIMD_VMATH_H

#include "simd.h"

/* e^x within 2 ulp; 0 below -104, infinity above 88.73, NaN for NaN (which is why x is the second operand). */
V_INLINE v_f32 v_exp(v_f32 x)
{
    x = v_min(v_set1(89.0f), v_max(v_set1(-104.0f), x));
    v_f32 n = v_round(v_mul(x, v_set1(0x1.715476p+0f)));
    v_f32 r = v_fnma(n, v_set1(0x1.62e4p-1f), x);
    r = v_fnma(n, v_set1(0x1.7f7d1cp-20f), r);
    v_f32 p = v_set1(1.9875691500e-4f);
    p = v_fma(p, r, v_set1(1.3981999507e-3f));
    p = v_fma(p, r, v_set1(8.3334519073e-3f));
    p = v_fma(p, r, v_set1(4.1665795894e-2f));
    p = v_fma(p, r, v_set1(1.6666665459e-1f));
    p = v_fma(p, r, v_set1(5.0000001201e-1f));
    p = v_add(v_fma(p, v_mul(r, r), r), v_set1(1.0f));
    return v_scale2(p, n);
}

/* 2^x for x <= 0 and NaN, within 2 ulp; 0 from -150 down. Fewer operations than v_exp: there is no other end to guard,
 * and the reduced argument is exact. */
V_INLINE v_f32 v_exp2_below(v_f32 x)
{
    x = v_max(v_set1(-160.0f), x);
    v_f32 n = v_round(x);
    v_f32 f = v_sub(x, n);
    v_f32 p = v_set1(1.535336188319500e-4f);
    p = v_fma(p, f, v_set1(1.339887440266574e-3f));
    p = v_fma(p, f, v_set1(9.618437357674640e-3f));
    p = v_fma(p, f, v_set1(5.550332471162809e-2f));
    p = v_fma(p, f, v_set1(2.402264791363012e-1f));
    p = v_fma(p, f, v_set1(6.931472028550421e-1f));
    p = v_fma(p, f, v_set1(1.0f));
    return v_scale2(p, n);
}

/* 2^x for finite x <= 0 and NaN, within 2.5 ulp where the result is normal, and 0 or nearly so below 2^-126; exactly 1 for 0. For
 * products with a state, where nothing less than 2^-126 counts. Near 1 the distance from 1 is right to 2e-5 or to the
 * rounding of the result, so that a state which decays slowly decays at its rate. */
#if V_SPLIT32
/* 2^(i/32) */
static const float v_exp2_roots[32] __attribute__((aligned(64), unused)) = {
    0x1p+0f, 0x1.059b0ep+0f, 0x1.0b5586p+0f, 0x1.11301ep+0f, 0x1.172b84p+0f, 0x1.1d4874p+0f, 0x1.2387a6p+0f, 0x1.29e9ep+0f,
    0x1.306fep+0f, 0x1.371a74p+0f, 0x1.3dea64p+0f, 0x1.44e086p+0f, 0x1.4bfdaep+0f, 0x1.5342b6p+0f, 0x1.5ab07ep+0f, 0x1.6247ecp+0f,
    0x1.6a09e6p+0f, 0x1.71f75ep+0f, 0x1.7a1148p+0f, 0x1.82589ap+0f, 0x1.8ace54p+0f, 0x1.93737cp+0f, 0x1.9c4918p+0f, 0x1.a5503cp+0f,
    0x1.ae89fap+0f, 0x1.b7f77p+0f, 0x1.c199bep+0f, 0x1.cb720ep+0f, 0x1.d5818ep+0f, 0x1.dfc974p+0f, 0x1.ea4afap+0f, 0x1.f50766p+0f,
};

/* A table of two registers leaves the polynomial with two terms, on the pipes that a recurrence needs for its products. */
V_INLINE v_f32 v_exp2_decay(v_f32 x)
{
    v_32nds s = v_split32(x);
    v_f32 root = v_lookup32(v_load(v_exp2_roots), v_load(v_exp2_roots + 16), s.index);
    v_f32 q = v_mul(s.rest, v_fma(v_set1(0x1.ebfbdep-3f), s.rest, v_set1(0x1.62e584p-1f)));
    return v_scale2_floor(v_fma(root, q, root), s.rounded);
}
#else
V_INLINE v_f32 v_exp2_decay(v_f32 x)
{
    x = v_max(v_set1(-127.0f), x);
    v_f32 n = v_round(x);
    v_f32 f = v_sub(x, n);
    v_f32 p = v_set1(1.326472814174029e-3f);
    p = v_fma(p, f, v_set1(9.671512965930888e-3f));
    p = v_fma(p, f, v_set1(5.550733743984901e-2f));
    p = v_fma(p, f, v_set1(2.4022242080400524e-1f));
    p = v_fma(p, f, v_set1(6.931469775967325e-1f));
    p = v_fma(p, f, v_set1(1.0f));
    return v_scale2_normal(p, n);
}
#endif

/* log(1 + e^x) within 4 ulp: what is above 0 of x, and log(1 + t) = 2 atanh(t / (2 + t)) of t = e^-|x|, whose series keeps
 * the relative precision of small results. */
V_INLINE v_f32 v_softplus(v_f32 x)
{
    v_f32 t = v_exp(v_sub(v_zero(), v_abs(x)));
    v_f32 s = v_div(t, v_add(v_set1(2.0f), t));
    v_f32 q = v_mul(s, s);
    v_f32 p = v_set1(0.2439756989479065f);
    p = v_fma(p, q, v_set1(0.2139754742383957f));
    p = v_fma(p, q, v_set1(0.2862030565738678f));
    p = v_fma(p, q, v_set1(0.3999870717525482f));
    p = v_fma(p, q, v_set1(0.6666668057441711f));
    p = v_fma(p, q, v_set1(2.0f));
    return v_fma(p, s, v_max(x, v_zero()));
}

/* tanh within 3 ulp. */
V_INLINE v_f32 v_tanh(v_f32 x)
{
    v_f32 magnitude = v_abs(x);
    v_f32 square = v_mul(x, x);
    v_f32 p = v_set1(-5.70498872745e-3f);
    p = v_fma(p, square, v_set1(2.06390887954e-2f));
    p = v_fma(p, square, v_set1(-5.37397155531e-2f));
    p = v_fma(p, square, v_set1(1.33314422036e-1f));
    p = v_fma(p, square, v_set1(-3.33332819422e-1f));
    v_f32 small = v_fma(v_mul(p, square), x, x);
    v_f32 e = v_exp(v_add(magnitude, magnitude));
    v_f32 large = v_sub(v_set1(1.0f), v_div(v_set1(2.0f), v_add(e, v_set1(1.0f))));
    return v_select(v_lt(magnitude, v_set1(0.625f)), small, v_copysign(large, x));
}

/* erf within 3 ulp. */
V_INLINE v_f32 v_erf(v_f32 x)
{
    v_f32 magnitude = v_abs(x);
    v_f32 square = v_mul(x, x);
    v_f32 p = v_set1(7.853861353153693e-5f);
    p = v_fma(p, square, v_set1(-8.010193625184903e-4f));
    p = v_fma(p, square, v_set1(5.188327685732524e-3f));
    p = v_fma(p, square, v_set1(-2.685381193529856e-2f));
    p = v_fma(p, square, v_set1(1.128358514861418e-1f));
    p = v_fma(p, square, v_set1(-3.761262582423300e-1f));
    p = v_fma(p, square, v_set1(1.128379165726710f));
    v_f32 small = v_mul(p, x);

    v_f32 inverse = v_div(v_set1(1.0f), v_max(v_set1(1.0f), magnitude));
    v_f32 y = v_mul(inverse, inverse);
    v_f32 near = v_set1(2.326819970068386e-2f);
    near = v_fma(near, y, v_set1(-1.387039388740657e-1f));
    near = v_fma(near, y, v_set1(3.687424674597105e-1f));
    near = v_fma(near, y, v_set1(-5.824733027278666e-1f));
    near = v_fma(near, y, v_set1(6.210004621745983e-1f));
    near = v_fma(near, y, v_set1(-4.944515323274145e-1f));
    near = v_fma(near, y, v_set1(3.404879937665872e-1f));
    near = v_fma(near, y, v_set1(-2.741127028184656e-1f));
    near = v_fma(near, y, v_set1(5.638259427386472e-1f));
    v_f32 far = v_set1(-1.047766399936249e+1f);
    far = v_fma(far, y, v_set1(1.297719955372516e+1f));
    far = v_fma(far, y, v_set1(-7.495518717768503f));
    far = v_fma(far, y, v_set1(2.921019019210786f));
    far = v_fma(far, y, v_set1(-1.015265279202700f));
    far = v_fma(far, y, v_set1(4.218463358204948e-1f));
    far = v_fma(far, y, v_set1(-2.820767439740514e-1f));
    far = v_fma(far, y, v_set1(5.641895067754075e-1f));
    v_f32 q = v_select(v_lt(magnitude, v_set1(2.0f)), near, far);
    v_f32 complement = v_mul(v_exp(v_sub(v_zero(), square)), v_mul(inverse, q));
    v_f32 large = v_copysign(v_sub(v_set1(1.0f), complement), x);
    return v_select(v_lt(magnitude, v_set1(1.0f)), small, large);
}

/* The logistic function 1 / (1 + e^-x). */
V_INLINE v_f32 v_sigmoid(v_f32 x)
{
    return v_div(v_set1(1.0f), v_add(v_set1(1.0f), v_exp(v_sub(v_zero(), x))));
}

#endif
