/* leak_test.c: a million decode calls, and thousands of contexts, leave the heap and the process as large as they were. */
#define _GNU_SOURCE
#include "support.h"
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#define DECODES 1000000
#define CONTEXTS 10000
/* Of the process: what the system may count late or give to the C library's stdio. */
#define RESIDENT_SLACK (1 << 20)

typedef struct memory_use {
    size_t heap;     /* bytes handed out */
    size_t resident; /* bytes of the process in memory; 0 where they are not known */
} memory_use;

static memory_use measure(void)
{
    memory_use use = {0, 0};
#if defined(__GLIBC__) && !defined(LSPAN_SANITIZED)
    struct mallinfo2 info = mallinfo2();
    use.heap = info.uordblks + info.hblkhd;
#endif
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fscanf(file, "%*u %lu", &pages) == 1) use.resident = pages * (size_t)sysconf(_SC_PAGESIZE);
    if (file) fclose(file);
    return use;
}

/* Sanitizers keep what was freed for a while, and look for leaks themselves when the process ends. */
static void expect_same(memory_use before, memory_use after)
{
    CHECK_MESSAGE(after.heap == before.heap, "the heap has %zu bytes, before %zu", after.heap, before.heap);
#ifndef LSPAN_SANITIZED
    CHECK_MESSAGE(
        after.resident <= before.resident + RESIDENT_SLACK, "the process has %zu bytes, before %zu", after.resident,
        before.resident);
#endif
}

#define MOST_KEYS 24

static float queries[2 * 64], keys[MOST_KEYS * 64], values[MOST_KEYS * 64], output[2 * 64], log_sum_exp[2];
_Alignas(LSPAN_WORKSPACE_ALIGNMENT) static char workspace[1 << 16];

/* Calls on 1 .. MOST_KEYS keys in turn, every other one on one key; returns how many went wrong. */
static long decode(const lspan_context *context, long calls)
{
    const int64_t query_indptr[] = {0, 1};
    long wrong = 0;
    for (long i = 0; i < calls; i++) {
        const int64_t kv_indptr[] = {0, i % 2 ? 1 : 1 + i / 2 % MOST_KEYS};
        lspan_attention a = {.sequences = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 64,
            .query_indptr = query_indptr, .kv_indptr = kv_indptr, .queries = {queries, lspan_dtype_f32, 128, 64},
            .keys = {keys, lspan_dtype_f32, 64, 64}, .values = {values, lspan_dtype_f32, 64, 64}, .output = output,
            .output_token_stride = 128, .output_head_stride = 64, .log_sum_exp = log_sum_exp, .scale = 0.125f, .causal = 1};
        wrong += lspan_attention_decode(context, &a, workspace, sizeof workspace) != lspan_status_ok;
        wrong += i % 2 && output[64] != values[0];
    }
    return wrong;
}

static void test_decodes(void)
{
    test_case("%d decode calls", DECODES);
    for (int i = 0; i < MOST_KEYS * 64; i++) {
        keys[i] = test_random_normal();
        values[i] = test_random_normal();
    }
    for (int i = 0; i < 128; i++) queries[i] = test_random_normal();
    lspan_context *context = NULL;
    lspan_context_options options = {1, test_isas(&(size_t){0})[0], NULL, 0};
    if (!CHECK_OK(lspan_context_create(&options, &context))) return;
    CHECK(decode(context, 1000) == 0);
    memory_use before = measure();
    CHECK(decode(context, DECODES) == 0);
    expect_same(before, measure());
    lspan_context_destroy(context);
}

/* Every tenth context runs a call, and every hundredth asks for the machine's topology. */
static void make_contexts(int count)
{
    int wrong = 0;
    for (int i = 0; i < count; i++) {
        lspan_context_options options = {i % 100 == 0 ? 0 : 1 + i % 3, NULL, NULL, i % 5};
        lspan_context *context = NULL;
        wrong += lspan_context_create(&options, &context) != lspan_status_ok;
        if (context && i % 10 == 0) wrong += decode(context, 10) != 0;
        lspan_context_destroy(context);
    }
    CHECK_MESSAGE(wrong == 0, "%d of %d contexts failed", wrong, count);
}

static void test_contexts_made(void)
{
    test_case("%d contexts", CONTEXTS);
    make_contexts(200);
    memory_use before = measure();
    make_contexts(CONTEXTS);
    expect_same(before, measure());
}

/* The checks above see what is lost. */
static void test_measure(void)
{
    test_case("a leak that is seen");
    memory_use before = measure();
    void *volatile kept = malloc(100000);
    memory_use after = measure();
#if defined(__GLIBC__) && !defined(LSPAN_SANITIZED)
    CHECK(after.heap >= before.heap + 100000);
#endif
    free(kept);
    (void)before;
    (void)after;
}

/* The C library counts what it keeps of freed memory for each thread as handed out, so the test runs without that. */
static void run_without_thread_caches(char **arguments)
{
    if (getenv("GLIBC_TUNABLES")) return;
    setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0", 1);
    execv("/proc/self/exe", arguments);
}

int main(int count, char **arguments)
{
    (void)count;
    run_without_thread_caches(arguments);
    test_measure();
    test_decodes();
    test_contexts_made();
    return test_finish("leak_test");
}
