/* dispatch.c: the ISA variants, best first, and whether this CPU can run each. Compiled for the baseline CPU. */
#include "dispatch.h"
#include <longspan/context.h>
#include <string.h>

#if defined(__AVX__)
#error "the dispatcher must run on any CPU: compile it without -mavx or -march=native"
#endif

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

static int always_supported(void)
{
    return 1;
}

static const struct {
    const char *name;
    int (*supported)(void);
    const lspan_kernels *kernels;
} variants[] = {
    {"avx512bf16", avx512bf16_supported, &lspan_avx512bf16_kernels},
    {"avx512vnni", avx512vnni_supported, &lspan_avx512vnni_kernels},
    {"avx512", avx512_supported, &lspan_avx512_kernels},
    {"avx2", avx2_supported, &lspan_avx2_kernels},
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
