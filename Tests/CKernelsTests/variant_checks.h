/* variant_checks.h: the vector wrapper and elementary functions of one ISA variant, as plain functions over
 * arrays, so that a test compiled for any CPU can reach them. */
#ifndef LSPAN_TEST_VARIANT_CHECKS_H
#define LSPAN_TEST_VARIANT_CHECKS_H

#include <longspan/types.h>
#include <stdint.h>

#define VARIANT_MAX_WIDTH 16

typedef struct variant_operations {
    const char *name;
    int width; /* lanes */

    /* y[i] = f(x[i]) for count elements, a multiple of VARIANT_MAX_WIDTH */
    void (*exp)(const float *x, float *y, int64_t count);
    void (*exp2_below)(const float *x, float *y, int64_t count);
    void (*exp2_decay)(const float *x, float *y, int64_t count);
    void (*softplus)(const float *x, float *y, int64_t count);
    void (*tanh)(const float *x, float *y, int64_t count);
    void (*erf)(const float *x, float *y, int64_t count);
    void (*sigmoid)(const float *x, float *y, int64_t count);
    void (*round)(const float *x, float *y, int64_t count);
    void (*absolute)(const float *x, float *y, int64_t count);
    void (*root)(const float *x, float *y, int64_t count);

    /* one vector each; arrays hold `width` elements */
    void (*scale2)(const float *x, const float *n, float *y);
    void (*maximum)(const float *a, const float *b, float *y);
    void (*minimum)(const float *a, const float *b, float *y);
    void (*fnma)(const float *a, const float *b, const float *c, float *y);
    void (*copysign)(const float *x, const float *sign, float *y);
    void (*select_less)(const float *a, const float *b, const float *yes, const float *no, float *y);
    void (*fma_unless_equal)(const float *a, const float *b, const float *c, float *y); /* a where a = b, else a*b + c */
    uint32_t (*equal)(const float *a, const float *b); /* bit i for lane i */
    float (*reduce_add)(const float *x);
    float (*reduce_max)(const float *x);
    void (*reduce_add4)(const float *x, float *sums); /* x [4, width] */
    void (*reduce_add4x4)(const float *x, float *sums, int64_t stride); /* x [4, 4, width] */
    void (*unzip)(const float *x, float *even, float *odd); /* x [2 * width] */
    void (*zip)(const float *even, const float *odd, float *y);
    void (*transpose)(float *square);                 /* [width, width] */

    void (*load)(const void *data, int64_t index, lspan_dtype dtype, float *y);
    void (*load_n)(const void *data, int64_t index, lspan_dtype dtype, int lanes, float *y);
    void (*store)(void *data, int64_t index, lspan_dtype dtype, const float *x);
    void (*store_n)(void *data, int64_t index, lspan_dtype dtype, const float *x, int lanes);

    /* integers, as floats: (bytes >> shift & mask | bit i of bits times 16) */
    void (*unpack)(const uint8_t *bytes, int shift, int mask, uint32_t bits, float *y);
    /* int8 shifted left by `shift` */
    void (*shift_left)(const int8_t *bytes, int shift, float *y);
} variant_operations;

extern const variant_operations lspan_avx512bf16_operations;
extern const variant_operations lspan_avx512_operations;
extern const variant_operations lspan_avx2_operations;
extern const variant_operations lspan_neonbf16_operations;
extern const variant_operations lspan_neondot_operations;
extern const variant_operations lspan_neon_operations;
extern const variant_operations lspan_scalar_operations;

#endif
