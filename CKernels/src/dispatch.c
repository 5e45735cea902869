/* dispatch.c: the ISA variants, best first, and whether this CPU can run each. Compiled for the baseline CPU. */
#include "dispatch.h"
#include <longspan/context.h>
#include <string.h>

#if defined(__AVX__) || (defined(__linux__) && defined(__ARM_FEATURE_DOTPROD))
#error "the dispatcher must run on any CPU: compile it for the baseline, without -march=native"
#endif

#if defined(__x86_64__)
/* __builtin_cpu_supports also asks the operating system for the vector state (XGETBV). */
static int avx512_supported(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
}

static int avx512vnni_supported(void)
{
    return avx512_supported() && __builtin_cpu_supports("avx512vnni");
}

static int avx512bf16_supported(void)
{
    return avx512vnni_supported() && __builtin_cpu_supports("avx512bf16");
}

static int avx2_supported(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

#elif defined(__aarch64__)
#if defined(__APPLE__)
#include <sys/sysctl.h>

/* Names that a system does not know count as absent. */
static int has_feature(const char *name)
{
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value != 0;
}

static int has_dot_products(void)
{
    return has_feature("hw.optional.arm.FEAT_DotProd");
}

static int has_bf16(void)
{
    return has_feature("hw.optional.arm.FEAT_BF16");
}
#elif defined(__linux__)
#include <sys/auxv.h>

/* Bits of the kernel's asm/hwcap.h, of which older headers lack the second. */
static int has_dot_products(void)
{
    return (getauxval(AT_HWCAP) >> 20 & 1) != 0;
}

static int has_bf16(void)
{
    return (getauxval(AT_HWCAP2) >> 14 & 1) != 0;
}
#else
static int has_dot_products(void)
{
    return 0;
}

static int has_bf16(void)
{
    return 0;
}
#endif

static int neondot_supported(void)
{
    return has_dot_products();
}

static int neonbf16_supported(void)
{
    return has_dot_products() && has_bf16();
}
#endif

static int always_supported(void)
{
    return 1;
}

static const struct {
    const char *name;
    int (*supported)(void);
    const lspan_kernels *kernels;
} variants[] = {
#if defined(__x86_64__)
    {"avx512bf16", avx512bf16_supported, &lspan_avx512bf16_kernels},
    {"avx512vnni", avx512vnni_supported, &lspan_avx512vnni_kernels},
    {"avx512", avx512_supported, &lspan_avx512_kernels},
    {"avx2", avx2_supported, &lspan_avx2_kernels},
#elif defined(__aarch64__)
    {"neonbf16", neonbf16_supported, &lspan_neonbf16_kernels},
    {"neondot", neondot_supported, &lspan_neondot_kernels},
    {"neon", always_supported, &lspan_neon_kernels},
#endif
    {"scalar", always_supported, &lspan_scalar_kernels},
};

#define VARIANT_COUNT (sizeof variants / sizeof variants[0])

size_t lspan_isa_count(void)
{
    return VARIANT_COUNT;
}

const char *lspan_isa_name(size_t index)
{
    return index < VARIANT_COUNT ? variants[index].name : NULL;
}

int lspan_isa_is_supported(size_t index)
{
    return index < VARIANT_COUNT && variants[index].supported() ? 1 : 0;
}

const lspan_kernels *lspan_find_kernels(const char *name)
{
    for (size_t i = 0; i < VARIANT_COUNT; i++) {
        if ((!name || strcmp(name, variants[i].name) == 0) && variants[i].supported()) return variants[i].kernels;
    }
    return NULL;
}
