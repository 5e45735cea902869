/* check.c: the operators against ggml's own, on teams of several sizes.
 *
 * References are ggml's operators on the operands' numbers as f32, which is exact: on f16 ggml itself rounds queries and
 * sums to f16. Both sides then compute in f32 and differ by its rounding and by their exp. Outputs of attention are
 * averages of standard normal values, so that ATTENTION bounds them absolutely; a scan carries its rounding along for as
 * long as its state remembers, some hundred tokens here, so that SCAN is relative to the largest output. Prefill with
 * everything bf16 may round each weight by 2^-8 of itself, so that an output moves by at most 2^-8 of the largest value. */
#include "support.h"
#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ATTENTION 2e-5
#define SCAN 1e-4

static int checked, failures;

static void report(bool good, const char *name, const char *what)
{
    checked++;
    if (good) return;
    failures++;
    printf("FAILED %s: %s\n", name, what);
}

/* ---- Teams ------------------------------------------------------------------------------------------- */

/* Workers of the adapter, threads of the graph: alone, fewer, as many, and more of them than workers. */
static const int teams[][2] = {{1, 1}, {2, 1}, {2, 2}, {2, 3}, {4, 2}, {3, 3}};
enum { team_count = sizeof teams / sizeof *teams };

/* Makes an operator's node with an adapter; NULL if it is refused. */
typedef struct ggml_tensor *builder(lspan_ggml *adapter, struct ggml_context *ctx, const void *operands);

static double largest_difference(const float *a, const float *b, int64_t count)
{
    double largest = 0;
    for (int64_t i = 0; i < count; i++) {
        double difference = fabs((double)a[i] - (double)b[i]);
        if (!(difference <= largest)) largest = difference; /* NaN too */
        if (isnan(largest)) break;
    }
    return largest;
}

static void run_reference(struct ggml_context *ctx, struct ggml_tensor *node)
{
    planned_graph planned = plan_graph(graph_of(ctx, node), 1, NULL);
    compute_graph(&planned);
    free_plan(&planned);
}

static void check_against(
    const char *name, struct ggml_context *ctx, builder *build, const void *operands, struct ggml_tensor *reference,
    double tolerance)
{
    run_reference(ctx, reference);
    int64_t count = ggml_nelements(reference);
    for (int i = 0; i < team_count; i++) {
        char what[256];
        lspan_ggml *adapter = NULL;
        if (lspan_ggml_create(teams[i][0], &adapter) != lspan_status_ok) {
            report(false, name, "no adapter");
            continue;
        }
        struct ggml_tensor *node = build(adapter, ctx, operands);
        if (!node) {
            report(false, name, lspan_ggml_refusal(adapter));
            lspan_ggml_destroy(adapter);
            continue;
        }
        report(ggml_are_same_shape(node, reference), name, "another shape than ggml's");
        planned_graph planned = plan_graph(graph_of(ctx, node), teams[i][1], adapter);
        for (int run = 0; run < 3; run++) {
            memset(node->data, 0xff, ggml_nbytes(node)); /* NaN */
            enum ggml_status status = compute_graph(&planned);
            double difference = largest_difference(node->data, reference->data, count);
            snprintf(
                what, sizeof what, "%d workers, %d threads, run %d: difference %.2e above %.2e (%s)", teams[i][0],
                teams[i][1], run, difference, tolerance, lspan_status_name(lspan_ggml_status(adapter)));
            report(status == GGML_STATUS_SUCCESS && difference <= tolerance, name, what);
        }
        free_plan(&planned);
        lspan_ggml_destroy(adapter);
    }
}

/* ---- Attention --------------------------------------------------------------------------------------- */

typedef struct attention_case {
    const char *name;
    int64_t dim, query_heads, kv_heads, tokens, keys, batch;
    enum ggml_type queries, kv;
    bool causal;
    int64_t window, sinks;
    float softcap;
    bool token_major;
    bool lengths;
    int64_t block, entries, query_tokens; /* lists, if block > 0 */
    bool list_per_head;
} attention_case;

#define F32 GGML_TYPE_F32
#define F16 GGML_TYPE_F16
#define BF16 GGML_TYPE_BF16

static const attention_case attention_cases[] = {
    {"decode f32", 64, 9, 3, 1, 1000, 1, F32, F32, .causal = true},
    {"decode f16 cache", 128, 8, 2, 1, 2049, 1, F32, F16, .causal = true, .token_major = true},
    {"decode bf16 cache", 80, 14, 2, 1, 777, 1, F32, BF16, .causal = true, .token_major = true},
    {"decode all bf16", 128, 8, 2, 1, 777, 1, BF16, BF16, .causal = true},
    {"decode one key", 64, 9, 3, 1, 1, 1, F32, F32, .causal = true},
    {"decode three tokens, batch, lengths", 64, 4, 2, 3, 600, 3, F32, F16, .causal = true, .token_major = true,
     .lengths = true},
    {"decode eight tokens, window", 72, 6, 6, 8, 333, 1, F32, F32, .causal = true, .window = 100},
    {"decode window and sinks", 64, 4, 1, 1, 5000, 1, F32, F16, .causal = true, .window = 1500, .sinks = 4,
     .token_major = true},
    {"decode softcap, f16 queries", 256, 4, 2, 2, 300, 1, F16, F16, .causal = true, .softcap = 20},
    {"prefill f32", 64, 9, 3, 70, 70, 1, F32, F32, .causal = true},
    {"prefill f16 behind a cache, lengths", 128, 8, 2, 37, 500, 2, F32, F16, .causal = true, .token_major = true,
     .lengths = true},
    {"prefill bf16 cache, window and sinks", 64, 4, 4, 131, 260, 1, F32, BF16, .causal = true, .window = 50, .sinks = 3},
    {"prefill all bf16", 128, 8, 2, 65, 129, 1, BF16, BF16, .causal = true},
    {"prefill bidirectional, softcap", 8, 3, 1, 19, 45, 1, F32, F32, .softcap = 5},
    {"prefill more queries than keys", 64, 2, 1, 40, 17, 1, F32, F32, .causal = true},
    {"sparse decode", 64, 9, 3, 1, 3000, 1, F32, F32, .causal = true, .block = 1, .entries = 700, .list_per_head = true},
    {"sparse decode blocks, lengths", 128, 8, 2, 1, 1001, 2, F32, F16, .causal = true, .token_major = true,
     .lengths = true, .block = 16, .entries = 20},
    {"sparse decode five tokens", 64, 4, 2, 5, 901, 1, F32, BF16, .causal = true, .window = 400, .block = 32,
     .entries = 20, .list_per_head = true},
    {"sparse prefill", 64, 9, 3, 40, 640, 2, F32, F32, .causal = true, .block = 8, .entries = 30, .query_tokens = 16,
     .list_per_head = true},
    {"sparse prefill one list", 128, 4, 4, 33, 500, 1, F32, F16, .causal = true, .token_major = true, .block = 1,
     .entries = 111},
};

typedef struct attention_operands {
    const attention_case *c;
    struct ggml_tensor *q, *k, *v, *indices;
    lspan_ggml_visibility visibility;
    float scale;
} attention_operands;

static struct ggml_tensor *build_attention(lspan_ggml *adapter, struct ggml_context *ctx, const void *operands)
{
    const attention_operands *o = operands;
    if (!o->indices) return lspan_ggml_attention(adapter, ctx, o->q, o->k, o->v, o->visibility, o->scale, o->c->softcap);
    return lspan_ggml_sparse_attention(
        adapter, ctx, o->q, o->k, o->v, o->indices, o->c->block, o->c->query_tokens, o->visibility, o->scale,
        o->c->softcap);
}

static bool is_listed(const void *lists, int64_t batch, int64_t head, int64_t token, int64_t key)
{
    const attention_operands *o = lists;
    const attention_case *c = o->c;
    int64_t tile = c->query_tokens > 0 ? token / c->query_tokens : 0;
    int64_t list = o->indices->ne[1] == 1 ? 0 : head / (c->query_heads / c->kv_heads);
    const char *start = (const char *)o->indices->data + (size_t)list * o->indices->nb[1] +
                        (size_t)tile * o->indices->nb[2] + (size_t)batch * o->indices->nb[3];
    const int32_t *entries = (const int32_t *)(const void *)start;
    for (int64_t i = 0; i < c->entries; i++) {
        if (entries[i] == key / c->block) return true;
    }
    return false;
}

/* Memory of a view, filled, and a view of its numbers as f32. */
static struct ggml_tensor *fill_view(struct ggml_context *ctx, struct ggml_tensor *view, struct ggml_tensor *whole)
{
    fill_normal(whole, 1.0f);
    struct ggml_tensor *copy = copied_as_f32(ctx, whole);
    size_t element = ggml_type_size(view->type), f = sizeof(float);
    return ggml_view_4d(
        ctx, copy, view->ne[0], view->ne[1], view->ne[2], view->ne[3], view->nb[1] / element * f,
        view->nb[2] / element * f, view->nb[3] / element * f, 0);
}

static double largest_value(const struct ggml_tensor *tensor)
{
    double largest = 0;
    for (int64_t i = 0; i < ggml_nelements(tensor); i++) largest = fmax(largest, fabs((double)((float *)tensor->data)[i]));
    return largest;
}

static void check_attention(const attention_case *c)
{
    struct ggml_context *ctx = new_context(512);
    attention_operands o = {.c = c, .scale = 1.0f / sqrtf((float)c->dim)};
    struct ggml_tensor *whole;
    const int64_t query_shape[4] = {c->dim, c->tokens, c->query_heads, c->batch};
    const int64_t key_shape[4] = {c->dim, c->keys, c->kv_heads, c->batch};
    o.q = new_heads(ctx, c->queries, query_shape, c->tokens, c->token_major, &whole);
    struct ggml_tensor *q = fill_view(ctx, o.q, whole);
    o.k = new_heads(ctx, c->kv, key_shape, c->keys + 7, c->token_major, &whole);
    struct ggml_tensor *k = fill_view(ctx, o.k, whole);
    o.v = new_heads(ctx, c->kv, key_shape, c->keys + 7, c->token_major, &whole);
    struct ggml_tensor *v = fill_view(ctx, o.v, whole);

    o.visibility = (lspan_ggml_visibility){.causal = c->causal, .window = c->window, .sinks = c->sinks};
    int64_t shortest = c->keys;
    if (c->lengths) {
        o.visibility.lengths = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, c->batch);
        for (int64_t b = 0; b < c->batch; b++) {
            int64_t length = c->keys - b * c->keys / 3 - 1;
            ((int32_t *)o.visibility.lengths->data)[b] = (int32_t)length;
            if (length < shortest) shortest = length;
        }
    }
    if (c->block > 0) {
        int64_t tiles = c->query_tokens > 0 ? (c->tokens + c->query_tokens - 1) / c->query_tokens : 1;
        o.indices = ggml_new_tensor_4d(
            ctx, GGML_TYPE_I32, c->entries, c->list_per_head ? c->kv_heads : 1, tiles, c->batch);
        for (int64_t i = 0; i < ggml_nrows(o.indices); i++) {
            draw((int32_t *)o.indices->data + i * c->entries, c->entries, (shortest + c->block - 1) / c->block);
        }
    }

    const int64_t mask_shape[4] = {c->keys, c->tokens, o.indices ? c->query_heads : 1, c->batch};
    struct ggml_tensor *mask = new_mask(ctx, mask_shape, o.visibility, o.indices ? is_listed : NULL, &o);
    struct ggml_tensor *reference = ggml_flash_attn_ext(ctx, q, k, v, mask, o.scale, 0.0f, c->softcap);
    bool rounds = c->queries == BF16 && c->kv == BF16 && c->tokens > LSPAN_ATTENTION_MAX_DECODE_TOKENS;
    double tolerance = rounds ? largest_value(v->view_src) * 0x1p-8 : ATTENTION;
    check_against(c->name, ctx, build_attention, &o, reference, tolerance);
    free_context(ctx);
}

/* One operator whose keys become more, as a cache that fills: how a call is cut into tasks changes all along. */
static void check_growing_cache(void)
{
    enum { dim = 8, keys = 8192, step = 61 };
    struct ggml_context *ctx = new_context(64);
    const int64_t query_shape[4] = {dim, 1, 1, 1}, key_shape[4] = {dim, keys, 1, 1}, mask_shape[4] = {keys, 1, 1, 1};
    struct ggml_tensor *q_whole, *k_whole, *v_whole;
    struct ggml_tensor *q = new_heads(ctx, F32, query_shape, 1, false, &q_whole);
    struct ggml_tensor *k = new_heads(ctx, F32, key_shape, keys, false, &k_whole);
    struct ggml_tensor *v = new_heads(ctx, F32, key_shape, keys, false, &v_whole);
    fill_normal(q_whole, 1.0f);
    fill_normal(k_whole, 1.0f);
    fill_normal(v_whole, 1.0f);
    lspan_ggml_visibility visibility = {.causal = true, .lengths = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, 1)};
    int32_t *length = visibility.lengths->data;
    struct ggml_tensor *mask = ggml_new_tensor(ctx, F16, GGML_MAX_DIMS, mask_shape);
    ggml_fp16_t *bits = mask->data;
    for (int64_t j = 0; j < keys; j++) bits[j] = ggml_fp32_to_fp16(-INFINITY);
    struct ggml_tensor *reference = ggml_flash_attn_ext(ctx, q, k, v, mask, 0.35f, 0.0f, 0.0f);

    lspan_ggml *adapter = NULL;
    if (lspan_ggml_create(4, &adapter) != lspan_status_ok) return report(false, "growing cache", "no adapter");
    struct ggml_tensor *node = lspan_ggml_attention(adapter, ctx, q, k, v, visibility, 0.35f, 0.0f);
    if (!node) {
        report(false, "growing cache", lspan_ggml_refusal(adapter));
    } else {
        planned_graph ours = plan_graph(graph_of(ctx, node), 2, adapter);
        planned_graph theirs = plan_graph(graph_of(ctx, reference), 1, NULL);
        for (int64_t n = 0; n < keys; n += step) {
            for (int64_t j = *length; j < n; j++) bits[j] = ggml_fp32_to_fp16(0.0f);
            *length = (int32_t)n;
            char what[64];
            compute_graph(&theirs);
            bool computed = compute_graph(&ours) == GGML_STATUS_SUCCESS;
            double difference = largest_difference(node->data, reference->data, dim);
            snprintf(what, sizeof what, "%lld keys: difference %.2e", (long long)n, difference);
            report(computed && difference <= ATTENTION, "growing cache", what);
        }
        free_plan(&ours);
        free_plan(&theirs);
    }
    lspan_ggml_destroy(adapter);
    free_context(ctx);
}

/* ---- Scans ------------------------------------------------------------------------------------------- */

typedef struct scan_case {
    const char *name;
    int64_t state, dim, heads, groups, tokens, sequences, states;
    bool per_state_decay;
    bool consecutive; /* ids */
    bool in_rows;     /* x, B and C of a token lie in one row, as llama.cpp has them behind its convolution */
} scan_case;

static const scan_case scan_cases[] = {
    {"selective update", 16, 1, 200, 1, 1, 1, 1, .per_state_decay = true},
    {"selective update, sequences, rows", 16, 1, 333, 1, 3, 5, 9, .per_state_decay = true, .in_rows = true},
    {"selective scan", 16, 1, 257, 1, 75, 1, 2, .per_state_decay = true, .in_rows = true},
    {"selective scan, groups, sequences", 24, 1, 96, 3, 40, 3, 3, .per_state_decay = true, .consecutive = true},
    {"selective scan, scattered states", 16, 1, 96, 1, 20, 4, 40, .per_state_decay = true},
    {"SSD update", 128, 64, 6, 1, 1, 1, 1, .consecutive = true},
    {"SSD update, sequences, rows", 64, 20, 8, 2, 2, 4, 6, .in_rows = true},
    {"SSD scan of seven tokens", 32, 33, 5, 1, 7, 2, 2, .consecutive = true},
    {"SSD scan", 128, 64, 4, 1, 130, 1, 3, .in_rows = true},
    {"SSD scan, groups, sequences", 48, 40, 6, 3, 65, 4, 8, .consecutive = true},
    {"SSD scan, scattered states", 64, 16, 4, 1, 30, 4, 40, .in_rows = false},
};

typedef struct scan_operands {
    struct ggml_tensor *s, *x, *dt, *a, *b, *c, *ids;
} scan_operands;

static struct ggml_tensor *build_scan(lspan_ggml *adapter, struct ggml_context *ctx, const void *operands)
{
    const scan_operands *o = operands;
    return lspan_ggml_ssm_scan(adapter, ctx, o->s, o->x, o->dt, o->a, o->b, o->c, o->ids);
}

/* x, B and C, in one memory or each in its own. */
static void new_inputs(struct ggml_context *ctx, const scan_case *c, scan_operands *o)
{
    int64_t width = c->dim * c->heads, side = c->state * c->groups, row = width + 2 * side;
    if (!c->in_rows) {
        o->x = ggml_new_tensor_4d(ctx, F32, c->dim, c->heads, c->tokens, c->sequences);
        o->b = ggml_new_tensor_4d(ctx, F32, c->state, c->groups, c->tokens, c->sequences);
        o->c = ggml_new_tensor_4d(ctx, F32, c->state, c->groups, c->tokens, c->sequences);
        fill_normal(o->x, 1.0f);
        fill_normal(o->b, 1.0f);
        fill_normal(o->c, 1.0f);
        return;
    }
    /* with a gap between the sequences, so that several cannot go in one call */
    struct ggml_tensor *rows = ggml_new_tensor_3d(ctx, F32, row, c->tokens + 1, c->sequences);
    fill_normal(rows, 1.0f);
    size_t f = sizeof(float), size = (size_t)row * f, d = (size_t)c->dim, n = (size_t)c->state, w = (size_t)width;
    o->x = ggml_view_4d(ctx, rows, c->dim, c->heads, c->tokens, c->sequences, d * f, size, rows->nb[2], 0);
    o->b = ggml_view_4d(ctx, rows, c->state, c->groups, c->tokens, c->sequences, n * f, size, rows->nb[2], w * f);
    o->c = ggml_view_4d(
        ctx, rows, c->state, c->groups, c->tokens, c->sequences, n * f, size, rows->nb[2], (w + (size_t)side) * f);
}

static void check_scan(const scan_case *c)
{
    struct ggml_context *ctx = new_context(128);
    scan_operands o;
    new_inputs(ctx, c, &o);
    o.s = ggml_new_tensor_4d(ctx, F32, c->state, c->dim, c->heads, c->states);
    o.dt = ggml_new_tensor_3d(ctx, F32, c->heads, c->tokens, c->sequences);
    o.a = ggml_new_tensor_2d(ctx, F32, c->per_state_decay ? c->state : 1, c->heads);
    o.ids = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, c->sequences);
    fill_normal(o.s, 1.0f);
    fill_uniform(o.dt, -7.0f, -1.0f); /* steps of 0.001 to 0.3 */
    fill_uniform(o.a, -16.0f, -1.0f);
    if (c->consecutive) {
        for (int32_t i = 0; i < c->sequences; i++) ((int32_t *)o.ids->data)[i] = i + (int32_t)(c->states - c->sequences);
    } else {
        draw(o.ids->data, c->sequences, c->states);
    }
    struct ggml_tensor *reference = ggml_ssm_scan(ctx, o.s, o.x, o.dt, o.a, o.b, o.c, o.ids, 1);
    run_reference(ctx, reference);
    check_against(c->name, ctx, build_scan, &o, reference, SCAN * largest_value(reference));
    free_context(ctx);
}

/* ---- A graph of both, with ggml's operators between -------------------------------------------------- */

static void check_mixed_graph(void)
{
    enum { dim = 64, heads = 4, tokens = 3, keys = 900, layers = 40 };
    struct ggml_context *ctx = new_context(256);
    const int64_t key_shape[4] = {dim, keys, 2, 1}, mask_shape[4] = {keys, tokens, 1, 1};
    struct ggml_tensor *whole, *start = ggml_new_tensor_3d(ctx, F32, dim, heads, tokens);
    struct ggml_tensor *k = new_heads(ctx, F32, key_shape, keys, true, &whole);
    fill_normal(whole, 1.0f);
    struct ggml_tensor *v = new_heads(ctx, F32, key_shape, keys, true, &whole);
    fill_normal(whole, 1.0f);
    fill_normal(start, 1.0f);
    lspan_ggml_visibility visibility = {.causal = true};
    struct ggml_tensor *mask = new_mask(ctx, mask_shape, visibility, NULL, NULL);
    lspan_ggml *adapter = NULL;
    if (lspan_ggml_create(2, &adapter) != lspan_status_ok) return report(false, "mixed graph", "no adapter");
    struct ggml_tensor *ours = start, *theirs = start;
    for (int i = 0; i < layers && ours; i++) {
        struct ggml_tensor *q = ggml_permute(ctx, ggml_rms_norm(ctx, ours, 1e-5f), 0, 2, 1, 3);
        struct ggml_tensor *attended = lspan_ggml_attention(adapter, ctx, q, k, v, visibility, 0.125f, 0.0f);
        ours = attended ? ggml_add(ctx, ours, attended) : NULL;
        q = ggml_permute(ctx, ggml_rms_norm(ctx, theirs, 1e-5f), 0, 2, 1, 3);
        theirs = ggml_add(ctx, theirs, ggml_flash_attn_ext(ctx, q, k, v, mask, 0.125f, 0.0f, 0.0f));
    }
    if (!ours) {
        report(false, "mixed graph", lspan_ggml_refusal(adapter));
    } else {
        run_reference(ctx, theirs);
        struct ggml_cgraph *graph = graph_of(ctx, ours);
        for (int run = 0; run < 30; run++) {
            char what[64];
            planned_graph planned = plan_graph(graph, 1 + run % 3, adapter);
            memset(ours->data, 0xff, ggml_nbytes(ours));
            bool computed = compute_graph(&planned) == GGML_STATUS_SUCCESS;
            double difference = largest_difference(ours->data, theirs->data, ggml_nelements(ours));
            snprintf(what, sizeof what, "%d threads: difference %.2e", 1 + run % 3, difference);
            report(computed && difference <= 10 * ATTENTION, "mixed graph", what);
            free_plan(&planned);
        }
    }
    lspan_ggml_destroy(adapter);
    free_context(ctx);
}

/* ---- A graph that ggml's allocator places and its CPU backend runs ----------------------------------- */

static void check_backend(void)
{
    enum { dim = 64, heads = 8, tokens = 12, keys = 200 };
    struct ggml_context *ctx = ggml_init((struct ggml_init_params){.mem_size = 1 << 20, .no_alloc = true});
    ggml_backend_t backend = ggml_backend_cpu_init();
    ggml_gallocr_t allocator = ggml_gallocr_new(ggml_backend_cpu_buffer_type());
    lspan_ggml *adapter = NULL;
    if (!ctx || !backend || !allocator || lspan_ggml_create(2, &adapter) != lspan_status_ok) exit(1);
    ggml_backend_cpu_set_n_threads(backend, 2);
    ggml_backend_cpu_set_abort_callback(backend, lspan_ggml_failed, adapter);
    struct ggml_tensor *q = ggml_new_tensor_3d(ctx, F32, dim, tokens, heads);
    struct ggml_tensor *k = ggml_new_tensor_3d(ctx, F32, dim, keys, 2);
    struct ggml_tensor *v = ggml_new_tensor_3d(ctx, F32, dim, keys, 2), *inputs[] = {q, k, v};
    for (int i = 0; i < 3; i++) ggml_set_input(inputs[i]);
    struct ggml_tensor *scaled = ggml_scale(ctx, q, 2.0f);
    struct ggml_tensor *ours = lspan_ggml_attention(adapter, ctx, scaled, k, v, (lspan_ggml_visibility){0}, 0.1f, 0.0f);
    if (!ours) return report(false, "backend", lspan_ggml_refusal(adapter));
    struct ggml_tensor *theirs = ggml_flash_attn_ext(ctx, scaled, k, v, NULL, 0.1f, 0.0f, 0.0f);
    struct ggml_tensor *difference = ggml_sub(ctx, ours, theirs), *size = ggml_sum(ctx, ggml_sqr(ctx, ours));
    struct ggml_cgraph *graph = graph_of(ctx, difference);
    ggml_set_output(difference);
    ggml_set_output(size);
    ggml_build_forward_expand(graph, size);
    report(ggml_gallocr_alloc_graph(allocator, graph), "backend", "the graph was not allocated");
    for (int i = 0; i < 3; i++) fill_normal(inputs[i], 1.0f);
    report(ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS, "backend", "the graph was not computed");
    report(largest_value(difference) <= ATTENTION, "backend", "differs from ggml");
    report(*(const float *)size->data > 1.0f, "backend", "computed nothing");
    lspan_ggml_destroy(adapter);
    ggml_gallocr_free(allocator);
    ggml_backend_free(backend);
    ggml_free(ctx);
}

/* ---- Refusals and failures --------------------------------------------------------------------------- */

static void expect_refusal(lspan_ggml *adapter, const struct ggml_tensor *node, const char *part)
{
    report(!node, part, "was not refused");
    report(strstr(lspan_ggml_refusal(adapter), part) != NULL, part, lspan_ggml_refusal(adapter));
    lspan_ggml_clear(adapter);
    report(lspan_ggml_refusal(adapter)[0] == '\0', part, "clearing keeps the refusal");
}

static struct ggml_tensor *heads_of(
    struct ggml_context *ctx, enum ggml_type type, int64_t dim, int64_t tokens, int64_t heads)
{
    struct ggml_tensor *tensor = ggml_new_tensor_3d(ctx, type, dim, tokens, heads);
    memset(tensor->data, 0, ggml_nbytes(tensor));
    return tensor;
}

static void check_attention_refusals(lspan_ggml *adapter, struct ggml_context *ctx)
{
    struct ggml_tensor *q = heads_of(ctx, F32, 64, 2, 6), *k = heads_of(ctx, F16, 64, 50, 2);
    struct ggml_tensor *v = heads_of(ctx, F16, 64, 50, 2), *quantized = heads_of(ctx, GGML_TYPE_Q8_0, 64, 50, 2);
    struct ggml_tensor *transposed = ggml_transpose(ctx, heads_of(ctx, F16, 50, 64, 2));
    struct ggml_tensor *other = heads_of(ctx, F32, 64, 50, 2), *narrow = heads_of(ctx, F16, 32, 50, 2);
    struct ggml_tensor *fewer = heads_of(ctx, F16, 64, 49, 2), *four = heads_of(ctx, F16, 64, 50, 4);
    struct ggml_tensor *q12 = heads_of(ctx, F32, 12, 2, 6), *k12 = heads_of(ctx, F32, 12, 50, 2);
    struct ggml_tensor *numbers = ggml_new_tensor_1d(ctx, F32, 1), *indices = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, 5, 3);
    const lspan_ggml_visibility all = {.causal = false};
#define ATTENTION_OF(q, k, v, ...) \
    lspan_ggml_attention(adapter, ctx, q, k, v, (lspan_ggml_visibility){__VA_ARGS__}, 1.0f, 0.0f)
    expect_refusal(adapter, ATTENTION_OF(q, quantized, quantized, .causal = true), "keys are q8_0");
    expect_refusal(adapter, ATTENTION_OF(quantized, k, v, .causal = true), "queries are q8_0");
    expect_refusal(adapter, ATTENTION_OF(q, k, other, .causal = true), "values are f32 where keys are f16");
    expect_refusal(adapter, ATTENTION_OF(q, k, narrow, .causal = true), "head dimensions 64, 64 and 32");
    expect_refusal(adapter, ATTENTION_OF(q, k, fewer, .causal = true), "differ in tokens");
    expect_refusal(adapter, ATTENTION_OF(q, four, four, .causal = true), "bad_shape");
    expect_refusal(adapter, ATTENTION_OF(q12, k12, k12, .causal = true), "bad_shape");
    expect_refusal(adapter, ATTENTION_OF(q, transposed, v, .causal = true), "first stride");
    expect_refusal(adapter, ATTENTION_OF(q, k, v, .window = -1), "negative");
    expect_refusal(adapter, ATTENTION_OF(q, k, v, .sinks = 2), "sinks without a window");
    expect_refusal(adapter, ATTENTION_OF(q, k, v, .lengths = numbers), "lengths are not I32");
    expect_refusal(adapter, lspan_ggml_attention(adapter, ctx, q, k, v, all, NAN, 0.0f), "scale");
    expect_refusal(adapter, lspan_ggml_attention(adapter, ctx, q, k, v, all, 1.0f, -1.0f), "logit_softcap");
#define SPARSE_OF(indices, block, query_tokens) \
    lspan_ggml_sparse_attention(adapter, ctx, q, k, v, indices, block, query_tokens, all, 1.0f, 0.0f)
    expect_refusal(adapter, SPARSE_OF(indices, 1, 0), "indices are not [entries");
    expect_refusal(adapter, SPARSE_OF(numbers, 1, 0), "contiguous I32");
    expect_refusal(adapter, SPARSE_OF(indices, 0, 0), "out of range");
    struct ggml_tensor *tiles = ggml_new_tensor_3d(ctx, GGML_TYPE_I32, 5, 1, 2);
    expect_refusal(adapter, SPARSE_OF(tiles, 1, 1), "bad_shape");
}

static void check_scan_refusals(lspan_ggml *adapter, struct ggml_context *ctx)
{
    struct ggml_tensor *s = ggml_new_tensor_4d(ctx, F32, 16, 4, 6, 1), *x = ggml_new_tensor_4d(ctx, F32, 4, 6, 5, 1);
    struct ggml_tensor *dt = ggml_new_tensor_3d(ctx, F32, 6, 5, 1), *a = ggml_new_tensor_2d(ctx, F32, 1, 6);
    struct ggml_tensor *wide = ggml_new_tensor_2d(ctx, F32, 16, 6), *b = ggml_new_tensor_4d(ctx, F32, 16, 2, 5, 1);
    struct ggml_tensor *ids = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, 1), *half = ggml_new_tensor_4d(ctx, F16, 4, 6, 5, 1);
    struct ggml_tensor *many = ggml_new_tensor_4d(ctx, F32, 16, 5, 5, 1), *ids2 = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, 2);
    expect_refusal(adapter, lspan_ggml_ssm_scan(adapter, ctx, s, half, dt, a, b, b, ids), "x is f16, not f32");
    expect_refusal(adapter, lspan_ggml_ssm_scan(adapter, ctx, s, x, dt, wide, b, b, ids), "heads of 4 channels");
    expect_refusal(adapter, lspan_ggml_ssm_scan(adapter, ctx, s, x, dt, dt, b, b, ids), "A is neither");
    expect_refusal(adapter, lspan_ggml_ssm_scan(adapter, ctx, x, x, dt, a, b, b, ids), "s is not [d_state");
    expect_refusal(adapter, lspan_ggml_ssm_scan(adapter, ctx, s, x, a, a, b, b, ids), "dt is not [n_head");
    expect_refusal(adapter, lspan_ggml_ssm_scan(adapter, ctx, s, x, dt, a, b, many, ids), "B and C are not");
    expect_refusal(adapter, lspan_ggml_ssm_scan(adapter, ctx, s, x, dt, a, many, many, ids), "bad_shape");
    expect_refusal(adapter, lspan_ggml_ssm_scan(adapter, ctx, s, x, dt, a, b, b, ids2), "ids are not");
}

/* A second operator behind one that fails must not run. */
static void check_failure(lspan_ggml *adapter, struct ggml_context *ctx, struct ggml_tensor *node, const char *name)
{
    if (!node) return report(false, name, lspan_ggml_refusal(adapter));
    struct ggml_tensor *behind = ggml_sqr(ctx, node);
    planned_graph planned = plan_graph(graph_of(ctx, behind), 2, adapter);
    *(float *)behind->data = 42.0f;
    report(compute_graph(&planned) == GGML_STATUS_ABORTED, name, "the graph did not stop");
    report(lspan_ggml_status(adapter) == lspan_status_bad_index, name, lspan_status_name(lspan_ggml_status(adapter)));
    report(*(float *)behind->data == 42.0f, name, "what is behind it ran");
    free_plan(&planned);
    lspan_ggml_clear(adapter);
    report(lspan_ggml_status(adapter) == lspan_status_ok, name, "clearing keeps the failure");
}

static void check_errors(void)
{
    struct ggml_context *ctx = new_context(16);
    lspan_ggml *adapter = NULL;
    report(lspan_ggml_create(0, &adapter) == lspan_status_bad_value, "create", "takes no threads");
    report(lspan_ggml_create(1, NULL) == lspan_status_null_pointer, "create", "takes no pointer");
    if (lspan_ggml_create(2, &adapter) != lspan_status_ok) return report(false, "errors", "no adapter");
    check_attention_refusals(adapter, ctx);
    check_scan_refusals(adapter, ctx);

    struct ggml_tensor *q = heads_of(ctx, F32, 64, 1, 2), *k = heads_of(ctx, F32, 64, 50, 1);
    struct ggml_tensor *number = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, 1);
    lspan_ggml_visibility visibility = {.causal = true};
    int32_t *value = number->data;
    *value = 50;
    check_failure(
        adapter, ctx, lspan_ggml_sparse_attention(adapter, ctx, q, k, k, number, 1, 0, visibility, 1.0f, 0.0f),
        "an entry beyond the keys");
    *value = 51;
    visibility.lengths = number;
    check_failure(adapter, ctx, lspan_ggml_attention(adapter, ctx, q, k, k, visibility, 1.0f, 0.0f), "a length too large");
    struct ggml_tensor *s = heads_of(ctx, F32, 16, 1, 8), *x = heads_of(ctx, F32, 1, 8, 1);
    struct ggml_tensor *dt = heads_of(ctx, F32, 8, 1, 1), *a = heads_of(ctx, F32, 16, 8, 1);
    struct ggml_tensor *b = heads_of(ctx, F32, 16, 1, 1);
    check_failure(adapter, ctx, lspan_ggml_ssm_scan(adapter, ctx, s, x, dt, a, b, b, number), "a state that is not there");
    lspan_ggml_destroy(adapter);
    lspan_ggml_destroy(NULL);
    free_context(ctx);
}

int main(void)
{
    ggml_cpu_init();
    for (size_t i = 0; i < sizeof attention_cases / sizeof *attention_cases; i++) check_attention(&attention_cases[i]);
    for (size_t i = 0; i < sizeof scan_cases / sizeof *scan_cases; i++) check_scan(&scan_cases[i]);
    check_growing_cache();
    check_mixed_graph();
    check_backend();
    check_errors();
    printf("%d checks, %d failed\n", checked, failures);
    return failures != 0;
}
