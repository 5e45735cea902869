/* measure.c: the loops of measure.h for one worker. */
#include "../simd/vmath.h"
#include "variants.h"

/* Between two passes, so that no compiler sees that they compute the same. */
#define MEMORY_BARRIER(pointer) __asm__ volatile("" : : "r"(pointer) : "memory")

/* Loads of one round: 8 sums hide the latency of an addition on two pipes. */
#define READ_SUMS 8
#if defined(__aarch64__)
/* 16 chains hide an FMA latency of 4 on four pipes. */
#define FMA_CHAINS 16
#else
/* 12 chains and 2 operands fit the 16 registers of AVX2 and hide an FMA latency of 5 on two pipes. */
#define FMA_CHAINS 12
#endif

double LSPAN_VARIANT(measure_read)(const float *data, int64_t count, int64_t passes)
{
    v_f32 sums[READ_SUMS];
    for (int i = 0; i < READ_SUMS; i++) sums[i] = v_zero();
    const int64_t round = READ_SUMS * V_WIDTH;
    for (int64_t pass = 0; pass < passes; pass++) {
        int64_t at = 0;
        for (; at + round <= count; at += round) {
#pragma GCC unroll 8
            for (int i = 0; i < READ_SUMS; i++) sums[i] = v_add(sums[i], v_load(data + at + i * V_WIDTH));
        }
        for (; at < count; at += V_WIDTH) sums[0] = v_add(sums[0], v_load(data + at));
        MEMORY_BARRIER(data);
    }
    double total = 0;
    for (int i = 0; i < READ_SUMS; i++) total += (double)v_reduce_add(sums[i]);
    return total;
}

lspan_measured LSPAN_VARIANT(measure_fma_f32)(int64_t iterations, float multiplier, float addend)
{
    v_f32 chains[FMA_CHAINS], a = v_set1(multiplier), b = v_set1(addend);
    /* different starts, or a compiler would run one chain for all */
    for (int i = 0; i < FMA_CHAINS; i++) chains[i] = v_set1((float)i);
    for (int64_t n = 0; n < iterations; n++) {
#pragma GCC unroll 16
        for (int i = 0; i < FMA_CHAINS; i++) chains[i] = v_fma(chains[i], a, b);
    }
    lspan_measured m = {iterations * FMA_CHAINS * V_WIDTH * 2, 0};
    for (int i = 0; i < FMA_CHAINS; i++) m.checksum += (double)v_reduce_add(v_sub(chains[i], v_set1((float)i)));
    return m;
}

#if V_BF16_DOT
lspan_measured LSPAN_VARIANT(measure_fma_bf16)(int64_t iterations, float multiplier, float addend)
{
    v_f32 chains[FMA_CHAINS], a = v_pair_bf16(v_set1(multiplier), v_set1(multiplier));
    /* a lane adds two products */
    v_f32 b = v_pair_bf16(v_set1(addend * 0.5f), v_set1(addend * 0.5f));
    for (int i = 0; i < FMA_CHAINS; i++) chains[i] = v_set1((float)i);
    for (int64_t n = 0; n < iterations; n++) {
#pragma GCC unroll 16
        for (int i = 0; i < FMA_CHAINS; i++) chains[i] = v_dot_bf16(chains[i], a, b);
    }
    lspan_measured m = {iterations * FMA_CHAINS * V_WIDTH * 4, 0};
    for (int i = 0; i < FMA_CHAINS; i++) m.checksum += (double)v_reduce_add(v_sub(chains[i], v_set1((float)i)));
    return m;
}
#endif

double LSPAN_VARIANT(measure_exp)(int64_t passes)
{
    /* 16 KiB in all: half of the smallest L1 */
    float input[LSPAN_MEASURE_EXPONENTS], output[LSPAN_MEASURE_EXPONENTS];
    for (int i = 0; i < LSPAN_MEASURE_EXPONENTS; i++) input[i] = -(float)(i % 64) / 8.0f;
    for (int64_t pass = 0; pass < passes; pass++) {
        MEMORY_BARRIER(input);
        /* two at a time, so that their chains overlap in any CPU's window */
        for (int i = 0; i < LSPAN_MEASURE_EXPONENTS; i += 2 * V_WIDTH) {
            v_store(output + i, v_exp(v_load(input + i)));
            v_store(output + i + V_WIDTH, v_exp(v_load(input + i + V_WIDTH)));
        }
        MEMORY_BARRIER(output);
    }
    double total = 0;
    for (int i = 0; passes > 0 && i < LSPAN_MEASURE_EXPONENTS; i++) total += (double)output[i];
    return total;
}
