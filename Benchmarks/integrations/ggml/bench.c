/* bench.c: the operators beside ggml's own, in the same process, on the same operands and in turns.
 *
 *     bench [THREADS [SECONDS]]      threads of both (1), and seconds for each row (4)
 *
 * Times are nanoseconds a node of the graph; ratios are ggml's time over ours. Short operators are timed as graphs of
 * several nodes that read the same operands. The last table is the cost of a call: attention over one key. */
#include "support.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { most_calls = 1 << 16 };
static double seconds = 4;
static int threads = 1;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* ---- Turns ------------------------------------------------------------------------------------------- */

/* Something that is timed: a call of it does `units` of what a time is given for. */
typedef struct contender {
    const char *name;
    void (*call)(void *subject);
    void *subject;
    int units;
    double *times;
    int calls;
} contender;

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A turn: one call that does not count, and then calls for a twentieth of the contender's time, at least one. */
static void take_turn(contender *c, double turn)
{
    c->call(c->subject);
    double end = now() + turn;
    do {
        double start = now();
        c->call(c->subject);
        if (c->calls < most_calls) c->times[c->calls++] = (now() - start) / c->units;
    } while (now() < end);
}

/* Sorts each contender's times when it returns: the first is the minimum. */
static void take_turns(contender *contenders, int count)
{
    double turn = seconds * 1e9 / count / 20, end = now() + seconds * 1e9;
    for (int i = 0; i < count; i++) {
        contenders[i].times = malloc(most_calls * sizeof(double));
        if (!contenders[i].times) exit(1);
    }
    for (int round = 0; round < 5 || now() < end; round++) {
        for (int i = 0; i < count; i++) take_turn(&contenders[(i + round) % count], turn);
    }
    for (int i = 0; i < count; i++) qsort(contenders[i].times, (size_t)contenders[i].calls, sizeof(double), compare);
}

static double median(const contender *c) { return c->times[c->calls / 2]; }

static void call_graph(void *subject)
{
    if (compute_graph(subject) == GGML_STATUS_SUCCESS) return;
    fprintf(stderr, "a graph was not computed\n");
    exit(1);
}

/* ---- A row ------------------------------------------------------------------------------------------- */

static struct ggml_tensor *required(lspan_ggml *adapter, struct ggml_tensor *node)
{
    if (node) return node;
    fprintf(stderr, "refused: %s\n", lspan_ggml_refusal(adapter));
    exit(1);
}

static lspan_ggml *new_adapter(int workers)
{
    lspan_ggml *adapter = NULL;
    lspan_status status = lspan_ggml_create(workers, &adapter);
    if (status == lspan_status_ok) return adapter;
    fprintf(stderr, "no adapter: %s\n", lspan_status_description(status));
    exit(1);
}

/* The root of the mean square of the difference over that of b. */
static double relative_difference(const struct ggml_tensor *a, const struct ggml_tensor *b)
{
    const float *x = a->data, *y = b->data;
    double difference = 0, size = 0;
    for (int64_t i = 0; i < ggml_nelements(b); i++) {
        difference += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        size += (double)y[i] * (double)y[i];
    }
    return sqrt(difference / size);
}

static void print_head(void)
{
    printf("| %d threads | ours min | median | ggml min | median | ratio of min | of medians | difference |\n", threads);
    printf("| --- | --: | --: | --: | --: | --: | --: | --: |\n");
}

/* Nodes of the two kinds in graphs of their own; all of a kind compute the same. */
typedef struct row {
    struct ggml_tensor *ours[16], *theirs[16];
    int nodes;
} row;

static void time_row(const char *name, struct ggml_context *ctx, lspan_ggml *adapter, const row *r)
{
    struct ggml_cgraph *our_graph = ggml_new_graph(ctx), *their_graph = ggml_new_graph(ctx);
    for (int i = 0; i < r->nodes; i++) {
        ggml_build_forward_expand(our_graph, required(adapter, r->ours[i]));
        ggml_build_forward_expand(their_graph, r->theirs[i]);
    }
    planned_graph ours = plan_graph(our_graph, threads, adapter), theirs = plan_graph(their_graph, threads, NULL);
    contender c[2] = {{"ours", call_graph, &ours, r->nodes, NULL, 0}, {"ggml", call_graph, &theirs, r->nodes, NULL, 0}};
    take_turns(c, 2);
    printf(
        "| %s | %.0f | %.0f | %.0f | %.0f | %.2f | %.2f | %.1e |\n", name, c[0].times[0], median(&c[0]), c[1].times[0],
        median(&c[1]), c[1].times[0] / c[0].times[0], median(&c[1]) / median(&c[0]),
        relative_difference(r->ours[0], r->theirs[0]));
    fflush(stdout);
    for (int i = 0; i < 2; i++) free(c[i].times);
    free_plan(&ours);
    free_plan(&theirs);
}

/* ---- Attention --------------------------------------------------------------------------------------- */

typedef struct attention_row {
    const char *name;
    int64_t tokens, keys, entries; /* listed keys of each key/value head; 0: all */
    enum ggml_type type;
    int nodes;
} attention_row;

/* 32 query heads, 8 key/value heads of 128, token-major as llama.cpp's cache. */
static const attention_row attention_rows[] = {
    {"decode, 1024 keys, f16", 1, 1024, 0, GGML_TYPE_F16, 16},
    {"decode, 1024 keys, f32", 1, 1024, 0, GGML_TYPE_F32, 16},
    {"decode, 16384 keys, f16", 1, 16384, 0, GGML_TYPE_F16, 4},
    {"decode, 16384 keys, f32", 1, 16384, 0, GGML_TYPE_F32, 4},
    {"decode, 16384 keys, bf16", 1, 16384, 0, GGML_TYPE_BF16, 4},
    {"decode, 2048 listed of 16384 keys, f16", 1, 16384, 2048, GGML_TYPE_F16, 4},
    {"prefill, 1024 tokens, f16", 1024, 1024, 0, GGML_TYPE_F16, 1},
    {"prefill, 1024 tokens, f32", 1024, 1024, 0, GGML_TYPE_F32, 1},
};

enum { query_heads = 32, kv_heads = 8, dim = 128 };

static bool is_listed(const void *lists, int64_t batch, int64_t head, int64_t token, int64_t key)
{
    (void)batch, (void)token;
    return ((const bool *)lists)[head / (query_heads / kv_heads) * 16384 + key];
}

static void time_attention(lspan_ggml *adapter, const attention_row *a)
{
    struct ggml_context *ctx = new_context(640);
    struct ggml_tensor *whole;
    const int64_t query_shape[4] = {dim, a->tokens, query_heads, 1}, key_shape[4] = {dim, a->keys, kv_heads, 1};
    const float scale = 1.0f / sqrtf(dim);
    struct ggml_tensor *q = new_heads(ctx, GGML_TYPE_F32, query_shape, a->tokens, true, &whole);
    fill_normal(whole, 1.0f);
    struct ggml_tensor *k = new_heads(ctx, a->type, key_shape, a->keys, true, &whole);
    fill_normal(whole, 1.0f);
    struct ggml_tensor *v = new_heads(ctx, a->type, key_shape, a->keys, true, &whole);
    fill_normal(whole, 1.0f);
    const lspan_ggml_visibility visibility = {.causal = true};
    const int64_t mask_shape[4] = {a->keys, a->tokens, a->entries > 0 ? query_heads : 1, 1};
    struct ggml_tensor *mask = NULL, *indices = NULL;
    if (a->entries > 0) {
        indices = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, a->entries, kv_heads);
        static bool listed[kv_heads * 16384];
        for (int64_t h = 0; h < kv_heads; h++) {
            int32_t *list = (int32_t *)indices->data + h * a->entries;
            draw(list, a->entries, a->keys);
            for (int64_t i = 0; i < a->entries; i++) listed[h * 16384 + list[i]] = true;
        }
        mask = new_mask(ctx, mask_shape, visibility, is_listed, listed);
    } else if (a->tokens > 1) {
        mask = new_mask(ctx, mask_shape, visibility, NULL, NULL);
    }
    row r = {.nodes = a->nodes};
    for (int i = 0; i < r.nodes; i++) {
        r.ours[i] = indices ? lspan_ggml_sparse_attention(adapter, ctx, q, k, v, indices, 1, 0, visibility, scale, 0.0f)
                            : lspan_ggml_attention(adapter, ctx, q, k, v, visibility, scale, 0.0f);
        r.theirs[i] = ggml_flash_attn_ext(ctx, q, k, v, mask, scale, 0.0f, 0.0f);
    }
    time_row(a->name, ctx, adapter, &r);
    lspan_ggml_clear(adapter);
    free_context(ctx);
}

/* ---- Scans ------------------------------------------------------------------------------------------- */

typedef struct scan_row {
    const char *name;
    int64_t state, dim, heads, tokens;
    bool per_state_decay;
    int nodes;
} scan_row;

static const scan_row scan_rows[] = {
    {"selective update, E 2048, N 16", 16, 1, 2048, 1, true, 16},
    {"selective scan, 512 tokens, E 2048, N 16", 16, 1, 2048, 512, true, 1},
    {"SSD update, 64 heads of 64, N 128", 128, 64, 64, 1, false, 16},
    {"SSD scan, 512 tokens, 64 heads of 64, N 128", 128, 64, 64, 512, false, 1},
};

static void time_scan(lspan_ggml *adapter, const scan_row *a)
{
    struct ggml_context *ctx = new_context(256);
    struct ggml_tensor *s = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, a->state, a->dim, a->heads, 1);
    struct ggml_tensor *x = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, a->dim, a->heads, a->tokens, 1);
    struct ggml_tensor *dt = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, a->heads, a->tokens, 1);
    struct ggml_tensor *decay = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, a->per_state_decay ? a->state : 1, a->heads);
    struct ggml_tensor *b = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, a->state, 1, a->tokens, 1);
    struct ggml_tensor *c = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, a->state, 1, a->tokens, 1);
    struct ggml_tensor *ids = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, 1);
    struct ggml_tensor *const normals[] = {s, x, b, c};
    for (int i = 0; i < 4; i++) fill_normal(normals[i], 1.0f);
    fill_uniform(dt, -7.0f, -2.0f);
    fill_uniform(decay, -16.0f, -1.0f);
    *(int32_t *)ids->data = 0;
    row r = {.nodes = a->nodes};
    for (int i = 0; i < r.nodes; i++) {
        r.ours[i] = lspan_ggml_ssm_scan(adapter, ctx, s, x, dt, decay, b, c, ids);
        r.theirs[i] = ggml_ssm_scan(ctx, s, x, dt, decay, b, c, ids, 1);
    }
    time_row(a->name, ctx, adapter, &r);
    lspan_ggml_clear(adapter);
    free_context(ctx);
}

/* ---- The cost of a call ------------------------------------------------------------------------------ */

enum { call_query_heads = 9, call_kv_heads = 3, call_dim = 64, call_nodes = 512 };

typedef struct direct_calls {
    lspan_context *context;
    lspan_attention attention;
    void *workspace;
    size_t bytes;
} direct_calls;

static void call_directly(void *subject)
{
    const direct_calls *d = subject;
    for (int i = 0; i < call_nodes; i++) {
        if (lspan_attention_decode(d->context, &d->attention, d->workspace, d->bytes) != lspan_status_ok) exit(1);
    }
}

static void do_nothing(struct ggml_tensor *dst, int ith, int nth, void *userdata)
{
    (void)dst, (void)ith, (void)nth, (void)userdata;
}

static direct_calls new_direct_calls(const struct ggml_tensor *q, const struct ggml_tensor *k, float *output)
{
    static const int64_t rows[2] = {0, 1};
    direct_calls d = {.attention = {
        .sequences = 1, .query_heads = call_query_heads, .kv_heads = call_kv_heads, .head_dim = call_dim,
        .query_indptr = rows, .kv_indptr = rows,
        .queries = {q->data, lspan_dtype_f32, call_query_heads * call_dim, call_dim},
        .keys = {k->data, lspan_dtype_f32, call_kv_heads * call_dim, call_dim},
        .values = {k->data, lspan_dtype_f32, call_kv_heads * call_dim, call_dim}, .output = output,
        .output_token_stride = call_query_heads * call_dim, .output_head_stride = call_dim, .scale = 0.125f, .causal = 1}};
    const lspan_context_options options = {.threads = 1};
    if (lspan_context_create(&options, &d.context) != lspan_status_ok ||
        lspan_attention_decode_workspace_size(d.context, &d.attention, &d.bytes) != lspan_status_ok) {
        exit(1);
    }
    d.workspace = aligned_alloc(LSPAN_WORKSPACE_ALIGNMENT, d.bytes);
    return d;
}

static void time_call(void)
{
    struct ggml_context *ctx = new_context(64);
    lspan_ggml *adapter = new_adapter(1);
    const lspan_ggml_visibility visibility = {.causal = true};
    struct ggml_tensor *q = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, call_dim, 1, call_query_heads);
    struct ggml_tensor *k = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, call_dim, 1, call_kv_heads), *nodes[3];
    fill_normal(q, 1.0f);
    fill_normal(k, 1.0f);
    struct ggml_cgraph *graphs[3];
    planned_graph planned[3];
    for (int kind = 0; kind < 3; kind++) {
        graphs[kind] = ggml_new_graph_custom(ctx, 2 * call_nodes, false);
        for (int i = 0; i < call_nodes; i++) {
            struct ggml_tensor *operands[3] = {q, k, k};
            nodes[kind] =
                kind == 0   ? ggml_custom_4d(ctx, GGML_TYPE_F32, call_dim, call_query_heads, 1, 1, operands, 3, do_nothing,
                                GGML_N_TASKS_MAX, NULL)
                : kind == 1 ? required(adapter, lspan_ggml_attention(adapter, ctx, q, k, k, visibility, 0.125f, 0.0f))
                            : ggml_flash_attn_ext(ctx, q, k, k, NULL, 0.125f, 0.0f, 0.0f);
            ggml_build_forward_expand(graphs[kind], nodes[kind]);
        }
        planned[kind] = plan_graph(graphs[kind], 1, adapter);
    }
    float output[call_query_heads * call_dim];
    direct_calls direct = new_direct_calls(q, k, output);
    contender c[4] = {
        {"empty custom operator", call_graph, &planned[0], call_nodes, NULL, 0},
        {"longspan attention as a custom operator", call_graph, &planned[1], call_nodes, NULL, 0},
        {"ggml_flash_attn_ext", call_graph, &planned[2], call_nodes, NULL, 0},
        {"lspan_attention_decode called from C", call_directly, &direct, call_nodes, NULL, 0}};
    take_turns(c, 4);
    printf("\n| one key, 9 query heads, 3 key/value heads of 64, f32, 1 thread | min | median |\n| --- | --: | --: |\n");
    for (int i = 0; i < 4; i++) printf("| %s | %.0f | %.0f |\n", c[i].name, c[i].times[0], median(&c[i]));
    printf(
        "| custom operator without the empty one's time | %.0f | %.0f |\n", c[1].times[0] - c[0].times[0],
        median(&c[1]) - median(&c[0]));
    for (int i = 0; i < 4; i++) free(c[i].times);
    for (int i = 0; i < 3; i++) free_plan(&planned[i]);
    free(direct.workspace);
    lspan_context_destroy(direct.context);
    lspan_ggml_destroy(adapter);
    free_context(ctx);
}

int main(int count, char **arguments)
{
    if (count > 1) threads = atoi(arguments[1]);
    if (count > 2) seconds = atof(arguments[2]);
    if (threads < 1 || !(seconds > 0)) {
        fprintf(stderr, "usage: bench [THREADS [SECONDS]]\n");
        return 2;
    }
    ggml_cpu_init();
    printf("ggml %s, longspan %s; nanoseconds\n\n", ggml_version(), lspan_version());
    print_head();
    lspan_ggml *adapter = new_adapter(threads);
    for (size_t i = 0; i < sizeof attention_rows / sizeof *attention_rows; i++) time_attention(adapter, &attention_rows[i]);
    for (size_t i = 0; i < sizeof scan_rows / sizeof *scan_rows; i++) time_scan(adapter, &scan_rows[i]);
    lspan_ggml_destroy(adapter);
    time_call();
    return 0;
}
