/* context_test.c: contexts, variants, executors, statuses, and contexts shared by threads. */
#include "attention_support.h"
#include <pthread.h>
#include <stdatomic.h>

/* ---- Names and numbers -------------------------------------------------------------------------------- */

static void test_statuses(void)
{
    test_case("statuses");
    static const struct {
        int number;
        const char *name;
    } pinned[] = {
        {0, "ok"},          {10, "null_pointer"}, {20, "bad_shape"},           {30, "bad_stride"}, {40, "bad_alignment"},
        {50, "bad_dtype"},  {60, "overflow"},     {70, "workspace_too_small"}, {80, "bad_value"},  {90, "bad_index"},
        {100, "unknown_isa"}, {110, "out_of_memory"}, {120, "executor_failed"}, {130, "abi_mismatch"}};
    for (size_t i = 0; i < sizeof pinned / sizeof pinned[0]; i++) {
        lspan_status status = (lspan_status)pinned[i].number;
        CHECK(strcmp(lspan_status_name(status), pinned[i].name) == 0);
        const char *description = lspan_status_description(status);
        CHECK(description && *description && strcmp(description, lspan_status_description((lspan_status)1)) != 0);
    }
    CHECK(strcmp(lspan_status_name((lspan_status)1), "unknown") == 0);
    CHECK(strcmp(lspan_status_name((lspan_status)-10), "unknown") == 0);
    CHECK(lspan_status_description((lspan_status)12345) != NULL);
}

static void test_types(void)
{
    test_case("types");
    CHECK(lspan_dtype_size(lspan_dtype_f32) == 4 && lspan_dtype_size(lspan_dtype_f16) == 2);
    CHECK(lspan_dtype_size(lspan_dtype_bf16) == 2 && lspan_dtype_size((lspan_dtype)3) == 0);
    CHECK(lspan_dtype_size((lspan_dtype)-1) == 0);
    static const int64_t layouts[][3] = {{0, 1, 4},    {1, 1, 2},    {2, 32, 18},    {3, 32, 20},    {6, 32, 22}, {7, 32, 24},
                                         {8, 32, 34}, {12, 256, 144}, {14, 256, 210}, {30, 1, 2}, {4, 0, 0},   {-1, 0, 0}};
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        int64_t elements = -1, bytes = -1;
        lspan_block_type type = (lspan_block_type)layouts[i][0];
        lspan_block_type_layout(type, &elements, &bytes);
        CHECK(elements == layouts[i][1] && bytes == layouts[i][2]);
        lspan_block_type_layout(type, NULL, NULL);
    }
}

static void test_library(void)
{
    test_case("library");
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", LSPAN_VERSION_MAJOR, LSPAN_VERSION_MINOR, LSPAN_VERSION_PATCH);
    CHECK(strcmp(lspan_version(), version) == 0);
    CHECK(lspan_openblas_config() && *lspan_openblas_config());
    CHECK(lspan_openblas_parallel() >= -1 && lspan_openblas_parallel() <= 2);

    lspan_topology t;
    memset(&t, 0xFF, sizeof t);
    CHECK_STATUS(lspan_topology_read(NULL), lspan_status_null_pointer);
    CHECK_OK(lspan_topology_read(&t));
    CHECK(t.packages >= 0 && t.numa_nodes >= 0 && t.cores >= 1 && t.processing_units >= t.cores);
    CHECK(t.l1d_bytes >= 0 && t.l2_bytes >= 0 && t.l3_bytes >= 0 && t.memory_bytes > 0);
}

/* ---- Contexts ------------------------------------------------------------------------------------------ */

static void test_variants(void)
{
    test_case("variants");
    size_t count = lspan_isa_count();
    CHECK(count >= 1 && lspan_isa_name(count) == NULL && lspan_isa_is_supported(count) == 0);
    CHECK(lspan_isa_name(SIZE_MAX) == NULL && lspan_isa_is_supported(SIZE_MAX) == 0);
    CHECK(strcmp(lspan_isa_name(count - 1), "scalar") == 0 && lspan_isa_is_supported(count - 1) == 1);
    for (size_t i = 0; i < count; i++) {
        lspan_context *made = NULL;
        lspan_context_options options = {2, lspan_isa_name(i), NULL, 0};
        test_case("variant %s", lspan_isa_name(i));
        if (!lspan_isa_is_supported(i)) {
            CHECK_STATUS(lspan_context_create(&options, &made), lspan_status_unknown_isa);
            continue;
        }
        if (!CHECK_OK(lspan_context_create(&options, &made))) continue;
        CHECK(strcmp(lspan_context_isa(made), lspan_isa_name(i)) == 0);
        CHECK(lspan_context_workers(made) == 2);
        lspan_context_destroy(made);
    }
}

static int run_serially(void *user, size_t count, lspan_task_function function, void *argument)
{
    (void)user;
    for (size_t i = 0; i < count; i++) function(argument, i, 0);
    return 0;
}

static void refuse_options(int32_t threads, const char *isa, const lspan_executor *executor, lspan_status want)
{
    lspan_context_options options = {threads, isa, executor, 0};
    lspan_context *made = (lspan_context *)(uintptr_t)0x1234;
    CHECK_STATUS(lspan_context_create(&options, &made), want);
    CHECK_MESSAGE(made == (lspan_context *)(uintptr_t)0x1234, "a failed create changed its output");
}

static void test_options(void)
{
    test_case("context options");
    lspan_executor without_workers = {run_serially, NULL, 0}, without_run = {NULL, NULL, 1};
    lspan_executor too_many = {run_serially, NULL, 4097};
    CHECK_STATUS(lspan_context_create(NULL, NULL), lspan_status_null_pointer);
    refuse_options(-1, NULL, NULL, lspan_status_bad_value);
    refuse_options(INT32_MIN, NULL, NULL, lspan_status_bad_value);
    refuse_options(4097, NULL, NULL, lspan_status_bad_value);
    refuse_options(0, NULL, &without_workers, lspan_status_bad_value);
    refuse_options(0, NULL, &without_run, lspan_status_bad_value);
    refuse_options(0, NULL, &too_many, lspan_status_bad_value);
    refuse_options(1, "sse9", NULL, lspan_status_unknown_isa);
    refuse_options(1, "", NULL, lspan_status_unknown_isa);
    refuse_options(1, "AVX2", NULL, lspan_status_unknown_isa);
    lspan_context *untouched = (lspan_context *)(uintptr_t)0x1234;
    CHECK(lspan_abi() == LSPAN_ABI);
    CHECK_STATUS(lspan_context_create_abi(LSPAN_ABI - 1, NULL, &untouched), lspan_status_abi_mismatch);
    CHECK_STATUS(lspan_context_create_abi(LSPAN_ABI + 1, NULL, NULL), lspan_status_abi_mismatch);
    CHECK_MESSAGE(untouched == (lspan_context *)(uintptr_t)0x1234, "a refused ABI changed the output");
    for (int32_t split = -1; split <= 4097; split += 4098) {
        lspan_context_options cut = {1, NULL, NULL, split};
        CHECK_STATUS(lspan_context_create(&cut, &untouched), lspan_status_bad_value);
    }
    lspan_context_destroy(NULL);
    CHECK(strcmp(lspan_context_isa(NULL), "scalar") == 0 && lspan_context_workers(NULL) == 0);

    lspan_topology topology;
    lspan_context *made = NULL;
    CHECK_OK(lspan_topology_read(&topology));
    if (CHECK_OK(lspan_context_create(NULL, &made))) CHECK(lspan_context_workers(made) == (size_t)topology.cores);
    lspan_context_destroy(made);
    lspan_context_options most = {4096, "scalar", NULL, 0};
    if (CHECK_OK(lspan_context_create(&most, &made))) CHECK(lspan_context_workers(made) == 4096);
    lspan_context_destroy(made);
}

static void expect_isa(const char *isa, const char *want)
{
    lspan_context_options options = {1, isa, NULL, 0};
    lspan_context *made = NULL;
    if (!CHECK_OK(lspan_context_create(&options, &made))) return;
    CHECK_MESSAGE(strcmp(lspan_context_isa(made), want) == 0, "chose %s, not %s", lspan_context_isa(made), want);
    lspan_context_destroy(made);
}

static void test_environment(void)
{
    test_case("LONGSPAN_ISA");
    size_t first = 0;
    while (!lspan_isa_is_supported(first)) first++;
    const char *before = getenv("LONGSPAN_ISA"), *best = lspan_isa_name(first);
    char *saved = before ? strdup(before) : NULL;
    unsetenv("LONGSPAN_ISA");
    expect_isa(NULL, best);
    setenv("LONGSPAN_ISA", "", 1);
    expect_isa(NULL, best);
    setenv("LONGSPAN_ISA", "scalar", 1);
    expect_isa(NULL, "scalar");
    expect_isa(best, best);
    setenv("LONGSPAN_ISA", "nonsense", 1);
    expect_isa("scalar", "scalar");
    refuse_options(1, NULL, NULL, lspan_status_unknown_isa);
    if (saved) {
        setenv("LONGSPAN_ISA", saved, 1);
    } else {
        unsetenv("LONGSPAN_ISA");
    }
    free(saved);
}

/* ---- Executors ------------------------------------------------------------------------------------------ */

/* A pool of threads made for one call; tasks are handed out from the last to the first. */
typedef struct pool {
    size_t workers;
    atomic_long next;
    atomic_long runs;
    lspan_task_function function;
    void *argument;
} pool;

typedef struct pool_thread {
    pool *pool;
    size_t worker;
} pool_thread;

static void *work(void *argument)
{
    pool_thread *self = argument;
    for (;;) {
        long task = atomic_fetch_sub(&self->pool->next, 1) - 1;
        if (task < 0) return NULL;
        self->pool->function(self->pool->argument, (size_t)task, self->worker);
    }
}

static int run_on_pool(void *user, size_t count, lspan_task_function function, void *argument)
{
    pool *p = user;
    pthread_t threads[8];
    pool_thread selves[8];
    atomic_fetch_add(&p->runs, 1);
    atomic_store(&p->next, (long)count);
    p->function = function;
    p->argument = argument;
    for (size_t w = 0; w < p->workers; w++) {
        selves[w].pool = p;
        selves[w].worker = w;
        if (pthread_create(&threads[w], NULL, work, &selves[w]) != 0) abort();
    }
    for (size_t w = 0; w < p->workers; w++) pthread_join(threads[w], NULL);
    return 0;
}

static int run_nothing(void *user, size_t count, lspan_task_function function, void *argument)
{
    (void)count;
    (void)function;
    (void)argument;
    ++*(int *)user;
    return 1;
}

/* Attention of a case with its outputs in plain memory. */
static lspan_status attend(
    const attention_case *c, attention_kernel kernel, const lspan_context *context, float *output, float *lse)
{
    lspan_attention a = attention_call(c);
    a.output = output;
    a.output_token_stride = a.query_heads * a.head_dim;
    a.output_head_stride = a.head_dim;
    a.log_sum_exp = lse;
    return attention_run(kernel, context, &a);
}

static attention_case parallel_case(void)
{
    attention_spec s = {.sequences = 2, .kv_heads = 2, .group = 2, .head_dim = 64, .spread = 1, .causal = 1};
    s.tokens[0] = 8;
    s.keys[0] = 2300;
    s.tokens[1] = 3;
    s.keys[1] = 90;
    return attention_make(&s);
}

/* With as many workers, the cut into tasks is the same, so every executor must give the same bits. */
static void test_executors(void)
{
    attention_case c = parallel_case();
    test_case("executors");
    size_t count;
    const test_context *contexts = test_contexts(&count);
    int64_t elements = c.rows * c.spec.head_dim;
    float *want = test_malloc(elements, sizeof *want), *want_lse = test_malloc(c.rows, sizeof *want);
    float *got = test_malloc(elements, sizeof *got), *got_lse = test_malloc(c.rows, sizeof *got);
    for (size_t i = 0; i < count; i++) {
        pool p = {.workers = (size_t)contexts[i].threads};
        lspan_executor executors[] = {{run_serially, NULL, p.workers}, {run_on_pool, &p, p.workers}};
        for (int kernel = 0; kernel < 2; kernel++) {
            CHECK_OK(attend(&c, (attention_kernel)kernel, contexts[i].context, want, want_lse));
            for (int e = 0; e < 2; e++) {
                lspan_context_options options = {0, contexts[i].isa, &executors[e], 0};
                lspan_context *made = NULL;
                if (!CHECK_OK(lspan_context_create(&options, &made))) continue;
                CHECK(lspan_context_workers(made) == p.workers);
                CHECK_OK(attend(&c, (attention_kernel)kernel, made, got, got_lse));
                CHECK(memcmp(got, want, (size_t)elements * sizeof *got) == 0);
                CHECK(memcmp(got_lse, want_lse, (size_t)c.rows * sizeof *got) == 0);
                lspan_context_destroy(made);
            }
        }
        CHECK(contexts[i].threads == 1 || atomic_load(&p.runs) > 0);
    }
    free(want);
    free(want_lse);
    free(got);
    free(got_lse);
    attention_release(&c);
}

/* Every kernel passes its executor's failure on. */
static void test_failing_executor(void)
{
    attention_case c = parallel_case();
    test_case("failing executor");
    int calls = 0;
    lspan_executor executor = {run_nothing, &calls, 2};
    lspan_context_options options = {0, NULL, &executor, 0};
    lspan_context *made = NULL;
    if (!CHECK_OK(lspan_context_create(&options, &made))) return;
    int64_t rows = 200, columns = 256; /* enough elements for several tasks */
    float *x = test_floats(rows * columns, 1), *y = test_malloc(rows * columns, sizeof *y);
    float *out = test_malloc(c.rows * c.spec.head_dim, sizeof *out), *lse = test_malloc(c.rows, sizeof *lse);
    int32_t *ids = test_malloc(rows, sizeof *ids);
    lspan_matrix in = {x, lspan_dtype_f32, columns};
    lspan_matrix_out to = {y, lspan_dtype_f32, columns};
    lspan_heads in_heads = {x, lspan_dtype_f32, columns, columns};
    lspan_heads_out to_heads = {y, lspan_dtype_f32, columns, columns};
    lspan_weights w = {x, lspan_block_type_f32, rows, columns};
    lspan_linear l = {.weights = w, .rows = 2, .input = x, .input_row_stride = columns, .output = y, .output_row_stride = rows};
    const lspan_status failed = lspan_status_executor_failed;
    CHECK_STATUS(attend(&c, attention_kernel_prefill, made, out, lse), failed);
    CHECK_STATUS(attend(&c, attention_kernel_decode, made, out, lse), failed);
    CHECK_STATUS(lspan_attention_merge(made, 1, rows, columns, x, x, y, NULL), failed);
    CHECK_STATUS(lspan_rms_norm(made, rows, columns, in, NULL, 0, to), failed);
    CHECK_STATUS(lspan_layer_norm(made, rows, columns, in, NULL, NULL, 0, to), failed);
    CHECK_STATUS(lspan_rope(made, lspan_rope_layout_halves, rows, 1, columns, 1, x, x, in_heads, to_heads), failed);
    CHECK_STATUS(lspan_gated_activation(made, lspan_activation_silu, rows, columns, in, in, to), failed);
    CHECK_STATUS(lspan_convert(made, rows, 1, columns, in_heads, to_heads), failed);
    CHECK_STATUS(lspan_log_softmax_gather(made, rows, columns, in, ids, y, NULL), failed);
    CHECK_STATUS(lspan_dequantize(made, &w, y), failed);
    CHECK_STATUS(lspan_embedding(made, &w, rows, ids, y, columns), failed);
    CHECK_STATUS(lspan_linear_run(made, &l, NULL, 0), failed);
    CHECK(calls == 12);
    free(x);
    free(y);
    free(out);
    free(lse);
    free(ids);
    lspan_context_destroy(made);
    attention_release(&c);
}

/* ---- One context, many threads -------------------------------------------------------------------------- */

typedef struct sharer {
    const attention_case *attention;
    const lspan_context *context;
    const float *want[2];
    const float *x;
    const float *want_product;
    void *workspace[2];
    size_t bytes[2];
    int wrong;
} sharer;

#define SHARED_ROWS 20
#define SHARED_DEPTH 96
#define SHARED_OUTPUTS 150

static lspan_status shared_product(const lspan_context *context, const float *x, float *y)
{
    lspan_weights w = {x, lspan_block_type_f32, SHARED_OUTPUTS, SHARED_DEPTH};
    lspan_linear l = {.weights = w, .rows = SHARED_ROWS, .input = x, .input_row_stride = SHARED_DEPTH, .output = y};
    l.output_row_stride = SHARED_OUTPUTS;
    return lspan_linear_run(context, &l, NULL, 0);
}

static void *share(void *argument)
{
    sharer *s = argument;
    const attention_case *c = s->attention;
    size_t count = (size_t)(c->rows * c->spec.head_dim);
    float *output = malloc(count * sizeof *output), *product = malloc(SHARED_ROWS * SHARED_OUTPUTS * sizeof *product);
    if (!output || !product) abort();
    for (int round = 0; round < 6; round++) {
        for (int kernel = 0; kernel < 2; kernel++) {
            lspan_attention a = attention_call(c);
            a.output = output;
            a.output_token_stride = a.query_heads * a.head_dim;
            a.output_head_stride = a.head_dim;
            lspan_status status = kernel == attention_kernel_prefill
                ? lspan_attention_prefill(s->context, &a, s->workspace[kernel], s->bytes[kernel])
                : lspan_attention_decode(s->context, &a, s->workspace[kernel], s->bytes[kernel]);
            s->wrong += status != lspan_status_ok || memcmp(output, s->want[kernel], count * sizeof *output) != 0;
        }
        s->wrong += shared_product(s->context, s->x, product) != lspan_status_ok ||
            memcmp(product, s->want_product, SHARED_ROWS * SHARED_OUTPUTS * sizeof *product) != 0;
    }
    free(output);
    free(product);
    return NULL;
}

static void test_shared_context(void)
{
    enum { threads = 4 };
    attention_case c = parallel_case();
    test_case("a context shared by threads");
    size_t count;
    const lspan_context *context = test_contexts(&count)[1].context;
    sharer shared = {.attention = &c, .context = context};
    float *want[2], *x = test_floats(SHARED_OUTPUTS * SHARED_DEPTH, 1);
    float *want_product = test_malloc(SHARED_ROWS * SHARED_OUTPUTS, sizeof *want_product);
    for (int kernel = 0; kernel < 2; kernel++) {
        want[kernel] = test_malloc(c.rows * c.spec.head_dim, sizeof(float));
        CHECK_OK(attend(&c, (attention_kernel)kernel, context, want[kernel], NULL));
        shared.want[kernel] = want[kernel];
    }
    CHECK_OK(shared_product(context, x, want_product));
    shared.x = x;
    shared.want_product = want_product;
    lspan_attention a = attention_call(&c);
    CHECK_OK(lspan_attention_prefill_workspace_size(context, &a, &shared.bytes[0]));
    CHECK_OK(lspan_attention_decode_workspace_size(context, &a, &shared.bytes[1]));
    sharer sharers[threads];
    test_buffer workspaces[threads][2];
    pthread_t ids[threads];
    for (int t = 0; t < threads; t++) {
        sharers[t] = shared;
        for (int kernel = 0; kernel < 2; kernel++) {
            workspaces[t][kernel] = test_allocate(shared.bytes[kernel], LSPAN_WORKSPACE_ALIGNMENT);
            sharers[t].workspace[kernel] = workspaces[t][kernel].data;
        }
    }
    for (int t = 0; t < threads; t++) CHECK(pthread_create(&ids[t], NULL, share, &sharers[t]) == 0);
    for (int t = 0; t < threads; t++) {
        pthread_join(ids[t], NULL);
        CHECK_MESSAGE(sharers[t].wrong == 0, "%d of a thread's results differ", sharers[t].wrong);
        test_release(&workspaces[t][0]);
        test_release(&workspaces[t][1]);
    }
    free(want[0]);
    free(want[1]);
    free(want_product);
    free(x);
    attention_release(&c);
}

int main(void)
{
    test_statuses();
    test_types();
    test_library();
    test_variants();
    test_options();
    test_environment();
    test_executors();
    test_failing_executor();
    test_shared_context();
    return test_finish("context_test");
}
