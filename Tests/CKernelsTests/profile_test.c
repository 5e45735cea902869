/* profile_test.c: what a profile records, what it leaves out, what calls cost by hand counts, and threads. */
#include "support.h"
#include <pthread.h>
#include <sched.h>

#define COLUMNS 64
#define ROWS 8

static lspan_context *make_context(int32_t threads)
{
    lspan_context_options options = {threads, NULL, NULL, 0};
    lspan_context *context = NULL;
    if (!CHECK_OK(lspan_context_create(&options, &context))) exit(test_finish("profile_test"));
    return context;
}

static float input[ROWS * COLUMNS * 4], output[ROWS * COLUMNS * 4];
static _Alignas(LSPAN_WORKSPACE_ALIGNMENT) char workspace[4 << 20];

static lspan_status norm(const lspan_context *context, int64_t rows)
{
    lspan_matrix in = {input, lspan_dtype_f32, COLUMNS};
    lspan_matrix_out out = {output, lspan_dtype_f32, COLUMNS};
    return lspan_rms_norm(context, rows, COLUMNS, in, NULL, 1e-5f, out);
}

static lspan_profile_totals totals_of(const lspan_context *context, lspan_profile_kernel kernel)
{
    lspan_profile_totals totals;
    CHECK_OK(lspan_profile_read(context, kernel, &totals));
    return totals;
}

static void check_count(const lspan_context *context, size_t want_stored, size_t want_lost)
{
    size_t stored = 99, lost = 99;
    CHECK_OK(lspan_profile_count(context, &stored, &lost));
    CHECK_MESSAGE(stored == want_stored && lost == want_lost, "%zu stored and %zu lost", stored, lost);
}

/* ---- On and off ------------------------------------------------------------------------------------ */

static void test_names(void)
{
    test_case("kernel names");
    static const char *const names[] = {
        "attention_prefill", "attention_decode", "attention_merge",    "rope",      "convert", "rms_norm",
        "layer_norm",        "gated_activation", "log_softmax_gather", "embedding", "linear",  "dequantize",
        "lag_scores",        "select", "compact", "rope_shift", "sparse_prefill", "sparse_decode", "lag_prefill",
        "selective_scan",    "selective_update", "ssd_scan", "ssd_update", "causal_conv", "gated_rms_norm", "dt_steps",
        "product"};
    CHECK(lspan_profile_kernel_count() == sizeof names / sizeof names[0]);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CHECK(strcmp(lspan_profile_kernel_name((lspan_profile_kernel)i), names[i]) == 0);
    }
    CHECK(strcmp(lspan_profile_kernel_name((lspan_profile_kernel)27), "unknown") == 0);
    CHECK(strcmp(lspan_profile_kernel_name((lspan_profile_kernel)-1), "unknown") == 0);
}

static void test_contract(void)
{
    test_case("contract");
    lspan_context *c = make_context(1);
    lspan_profile_event events[2];
    lspan_profile_totals totals;
    size_t stored, lost;
    void *odd = (char *)events + 4;
    CHECK_STATUS(lspan_profile_start(NULL, events, 2), lspan_status_null_pointer);
    CHECK_STATUS(lspan_profile_start(c, NULL, 2), lspan_status_null_pointer);
    CHECK_STATUS(lspan_profile_start(c, odd, 1), lspan_status_bad_alignment);
    CHECK_STATUS(lspan_profile_start(c, events, SIZE_MAX / 8), lspan_status_overflow);
    CHECK_STATUS(lspan_profile_stop(NULL), lspan_status_null_pointer);
    CHECK_STATUS(lspan_profile_read(NULL, lspan_profile_kernel_rope, &totals), lspan_status_null_pointer);
    CHECK_STATUS(lspan_profile_read(c, lspan_profile_kernel_rope, NULL), lspan_status_null_pointer);
    CHECK_STATUS(lspan_profile_read(c, (lspan_profile_kernel)27, &totals), lspan_status_bad_value);
    CHECK_STATUS(lspan_profile_read(c, (lspan_profile_kernel)-1, &totals), lspan_status_bad_value);
    CHECK_STATUS(lspan_profile_count(NULL, &stored, &lost), lspan_status_null_pointer);
    CHECK_STATUS(lspan_profile_count(c, NULL, &lost), lspan_status_null_pointer);
    CHECK_STATUS(lspan_profile_count(c, &stored, NULL), lspan_status_null_pointer);
    CHECK(!lspan_profile_is_on(NULL) && !lspan_profile_is_on(c));
    CHECK_OK(lspan_profile_stop(c));

    CHECK_OK(lspan_profile_start(c, events, 2));
    CHECK(lspan_profile_is_on(c));
    CHECK_STATUS(lspan_profile_start(c, NULL, 0), lspan_status_bad_value);
    CHECK_OK(lspan_profile_stop(c));
    CHECK(!lspan_profile_is_on(c));
    lspan_context_destroy(c);
}

static void test_recording(void)
{
    test_case("recording");
    lspan_context *c = make_context(1);
    lspan_profile_event events[4];
    memset(events, 0xFF, sizeof events);

    CHECK_OK(norm(c, ROWS));
    check_count(c, 0, 0);
    CHECK(totals_of(c, lspan_profile_kernel_rms_norm).calls == 0);

    uint64_t before = lspan_profile_clock();
    CHECK_OK(lspan_profile_start(c, events, 3));
    CHECK_OK(norm(c, ROWS));
    lspan_profile_set_tag(7);
    CHECK_OK(norm(c, 2));
    CHECK_STATUS(norm(c, -1), lspan_status_bad_shape);
    lspan_profile_set_tag(-1);
    CHECK_OK(norm(c, 0));
    CHECK_OK(norm(c, 1));
    CHECK_OK(norm(c, 1));
    CHECK_OK(lspan_profile_stop(c));
    uint64_t after = lspan_profile_clock();
    CHECK_OK(norm(c, ROWS));

    check_count(c, 3, 2);
    CHECK(test_is_untouched(&events[3], sizeof events[3]));
    static const int64_t rows[] = {ROWS, 2, 0};
    uint64_t end = before;
    for (int i = 0; i < 3; i++) {
        const lspan_profile_event *e = &events[i];
        CHECK(e->kernel == lspan_profile_kernel_rms_norm && e->variant == lspan_dtype_f32);
        CHECK(e->bytes == rows[i] * COLUMNS * 8 && e->flops == rows[i] * COLUMNS * 3 && e->exponentials == 0);
        CHECK(e->tag == (i == 1 ? 7 : -1) && e->thread == events[0].thread && e->thread >= 0);
        CHECK(e->start_ns >= end && e->start_ns + e->duration_ns <= after);
        end = e->start_ns + e->duration_ns;
    }
    lspan_profile_totals t = totals_of(c, lspan_profile_kernel_rms_norm);
    CHECK(t.calls == 5 && t.bytes == (ROWS + 4) * COLUMNS * 8 && t.flops == (ROWS + 4) * COLUMNS * 3);
    CHECK(t.exponentials == 0 && t.nanoseconds >= 0 && (uint64_t)t.nanoseconds <= after - before);
    for (size_t k = 0; k < lspan_profile_kernel_count(); k++) {
        if (k != lspan_profile_kernel_rms_norm) CHECK(totals_of(c, (lspan_profile_kernel)k).calls == 0);
    }

    /* totals without events, from zero again */
    CHECK_OK(lspan_profile_start(c, NULL, 0));
    check_count(c, 0, 0);
    CHECK_OK(norm(c, 1));
    CHECK_OK(lspan_profile_stop(c));
    check_count(c, 0, 1);
    CHECK(totals_of(c, lspan_profile_kernel_rms_norm).calls == 1);
    lspan_context_destroy(c);
}

/* A call whose executor fails is none. */
static int refuse_tasks(void *user, size_t count, lspan_task_function function, void *argument)
{
    (void)user, (void)count, (void)function, (void)argument;
    return 1;
}

/* A call that outlives its profile belongs to no profile. */
static int restart_profile(void *user, size_t count, lspan_task_function function, void *argument)
{
    lspan_context *context = *(lspan_context **)user;
    for (size_t i = 0; i < count; i++) function(argument, i, 0);
    CHECK_OK(lspan_profile_stop(context));
    return lspan_profile_start(context, NULL, 0) != lspan_status_ok;
}

static void test_calls_left_out(void)
{
    static float x[512 * 64];
    lspan_matrix in = {x, lspan_dtype_f32, 64};
    lspan_matrix_out out = {x, lspan_dtype_f32, 64};
    lspan_context *context = NULL;
    lspan_executor executors[] = {{refuse_tasks, NULL, 2}, {restart_profile, &context, 2}};
    static const lspan_status want[] = {lspan_status_executor_failed, lspan_status_ok};
    for (int i = 0; i < 2; i++) {
        test_case("a call left out, executor %d", i);
        lspan_context_options options = {0, NULL, &executors[i], 0};
        CHECK_OK(lspan_context_create(&options, &context));
        CHECK_OK(lspan_profile_start(context, NULL, 0));
        CHECK_STATUS(lspan_rms_norm(context, 512, 64, in, NULL, 0, out), want[i]);
        CHECK(totals_of(context, lspan_profile_kernel_rms_norm).calls == 0);
        check_count(context, 0, 0);
        CHECK_OK(lspan_profile_stop(context));
        lspan_context_destroy(context);
    }
}

/* ---- Costs, by hand -------------------------------------------------------------------------------- */

typedef struct hand_count {
    lspan_profile_kernel kernel;
    int variant;
    int64_t bytes, flops, exponentials;
} hand_count;

static lspan_context *counted;
static lspan_profile_event event;

static void begin_count(void)
{
    CHECK_OK(lspan_profile_start(counted, &event, 1));
}

static void end_count(lspan_status status, hand_count want)
{
    CHECK_OK(status);
    CHECK_OK(lspan_profile_stop(counted));
    check_count(counted, 1, 0);
    CHECK_MESSAGE(
        event.kernel == want.kernel && event.variant == want.variant, "kernel %d of variant %d", (int)event.kernel,
        (int)event.variant);
    CHECK_MESSAGE(
        event.bytes == want.bytes && event.flops == want.flops && event.exponentials == want.exponentials,
        "%lld bytes, %lld FLOPs and %lld exponentials instead of %lld, %lld, %lld", (long long)event.bytes,
        (long long)event.flops, (long long)event.exponentials, (long long)want.bytes, (long long)want.flops,
        (long long)want.exponentials);
    lspan_profile_totals totals = totals_of(counted, want.kernel);
    CHECK(totals.calls == 1 && totals.bytes == want.bytes && totals.flops == want.flops);
    CHECK(totals.exponentials == want.exponentials && totals.nanoseconds == (int64_t)event.duration_ns);
}
#define COUNT(call, ...) \
    do { \
        test_case("cost of %s", #call); \
        begin_count(); \
        end_count((call), (hand_count){__VA_ARGS__}); \
    } while (0)

/* Two query heads over one key/value head of 8. */
static void test_attention_costs(void)
{
    static float q[6 * 2 * 8], k[12 * 8], v[12 * 8], out[6 * 2 * 8], lse[6 * 2];
    static const uint16_t narrow[12 * 8];
    const int64_t one[] = {0, 3}, five[] = {0, 5}, nothing[] = {0, 0}, two[] = {0, 3, 4}, ragged[] = {0, 5, 12};
    lspan_attention a = {
        .sequences = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 8, .query_indptr = one, .kv_indptr = five,
        .queries = {q, lspan_dtype_f32, 16, 8}, .keys = {k, lspan_dtype_f32, 8, 8}, .values = {v, lspan_dtype_f32, 8, 8},
        .output = out, .output_token_stride = 16, .output_head_stride = 8, .scale = 1, .causal = 1};
    const size_t room = sizeof workspace;
    enum { io = 3 * 2 * 8 * (4 + 4), pair = 4 * 2 * 8 };
    /* the masks drawn in attention.h */
    COUNT(
        lspan_attention_prefill(counted, &a, workspace, room), lspan_profile_kernel_attention_prefill, lspan_dtype_f32,
        2 * 5 * 8 * 4 + io, 12 * pair, 12 * 2);
    COUNT(
        lspan_attention_decode(counted, &a, workspace, room), lspan_profile_kernel_attention_decode, lspan_dtype_f32,
        2 * 5 * 8 * 4 + io, 12 * pair, 12 * 2);
    a.window = 2;
    COUNT(
        lspan_attention_decode(counted, &a, workspace, room), lspan_profile_kernel_attention_decode, lspan_dtype_f32,
        2 * 4 * 8 * 4 + io, 6 * pair, 6 * 2);
    a.sinks = 1;
    COUNT(
        lspan_attention_prefill(counted, &a, workspace, room), lspan_profile_kernel_attention_prefill, lspan_dtype_f32,
        2 * 5 * 8 * 4 + io, 9 * pair, 9 * 2);
    a.window = 0;
    a.causal = 0;
    a.log_sum_exp = lse;
    a.keys.data = a.values.data = narrow;
    a.keys.dtype = a.values.dtype = lspan_dtype_bf16;
    COUNT(
        lspan_attention_prefill(counted, &a, workspace, room), lspan_profile_kernel_attention_prefill, lspan_dtype_bf16,
        2 * 5 * 8 * 2 + io + 3 * 2 * 4, 15 * pair, 15 * 2);
    /* more queries than keys: the first sees nothing */
    a.log_sum_exp = NULL;
    a.causal = 1;
    const int64_t short_keys[] = {0, 2};
    a.kv_indptr = short_keys;
    COUNT(
        lspan_attention_decode(counted, &a, workspace, room), lspan_profile_kernel_attention_decode, lspan_dtype_bf16,
        2 * 2 * 8 * 2 + io, 3 * pair, 3 * 2);
    a.sequences = 2;
    a.query_indptr = two;
    a.kv_indptr = ragged;
    COUNT(
        lspan_attention_decode(counted, &a, workspace, room), lspan_profile_kernel_attention_decode, lspan_dtype_bf16,
        2 * 12 * 8 * 2 + 4 * 2 * 8 * 8, (12 + 7) * pair, (12 + 7) * 2);
    a.sequences = 1;
    a.query_indptr = nothing;
    COUNT(lspan_attention_decode(counted, &a, workspace, room), lspan_profile_kernel_attention_decode, lspan_dtype_bf16, 0, 0, 0);
    COUNT(lspan_attention_prefill(counted, &a, workspace, room), lspan_profile_kernel_attention_prefill, lspan_dtype_bf16, 0, 0, 0);

    COUNT(
        lspan_attention_merge(counted, 3, 4, 8, k, v, out, lse), lspan_profile_kernel_attention_merge, lspan_dtype_f32,
        4 * (3 * 4 * 9 + 4 * 9), 2 * 3 * 4 * 8, 12);
    COUNT(
        lspan_attention_merge(counted, 3, 4, 8, k, v, out, NULL), lspan_profile_kernel_attention_merge, lspan_dtype_f32,
        4 * (3 * 4 * 9 + 4 * 8), 2 * 3 * 4 * 8, 12);
}

/* Two query heads over each of two key/value heads of 8. */
static void test_sparse_costs(void)
{
    static float q[8 * 4 * 8], k[8 * 2 * 8], v[8 * 2 * 8], out[8 * 4 * 8], lse[8 * 4];
    const int64_t two[] = {0, 2}, six[] = {0, 6}, eight[] = {0, 8}, lengths[] = {6, 5};
    const int64_t shared[] = {0, 2}, own[] = {0, 2, 3}, tiled[] = {0, 2, 3, 3, 4};
    const int32_t entries[] = {0, 2, 1, 2}, kept[] = {1, 4, 2, 3};
    const size_t room = sizeof workspace;
    enum { io = 2 * 4 * 8 * (4 + 4), pair = 4 * 2 * 8, key = 2 * 8 * 4 };
    lspan_attention a = {
        .sequences = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 8, .query_indptr = two, .kv_indptr = six,
        .queries = {q, lspan_dtype_f32, 32, 8}, .keys = {k, lspan_dtype_f32, 16, 8},
        .values = {v, lspan_dtype_f32, 16, 8}, .output = out, .output_token_stride = 32, .output_head_stride = 8,
        .scale = 1, .causal = 1};
    /* the mask drawn in sparse.h, for both heads */
    lspan_sparse_attention s = {a, 2, 1, 0, shared, entries};
    COUNT(
        lspan_sparse_prefill(counted, &s, workspace, room), lspan_profile_kernel_sparse_prefill, lspan_dtype_f32,
        2 * 4 * key + io + 2 * 4, 2 * 7 * pair, 2 * 7 * 2);
    COUNT(
        lspan_sparse_decode(counted, &s, workspace, room), lspan_profile_kernel_sparse_decode, lspan_dtype_f32,
        2 * 4 * key + io + 2 * 4, 2 * 7 * pair, 2 * 7 * 2);
    /* blocks 0 and 2 of the first head, 1 of the second, which ends with slot 4: its queries are at 3 and 4 */
    s.list_heads = 2;
    s.indptr = own;
    s.attention.kv_lengths = lengths;
    s.attention.log_sum_exp = lse;
    COUNT(
        lspan_sparse_decode(counted, &s, workspace, room), lspan_profile_kernel_sparse_decode, lspan_dtype_f32,
        (4 + 2) * key + io + 2 * 4 * 4 + 3 * 4, (7 + 4) * pair, (7 + 4) * 2);
    /* a window of 2 leaves block 0 of the first head behind, and slot 2 of the second after its first query */
    s.attention.window = 2;
    COUNT(
        lspan_sparse_decode(counted, &s, workspace, room), lspan_profile_kernel_sparse_decode, lspan_dtype_f32,
        (2 + 2) * key + io + 2 * 4 * 4 + 3 * 4, (3 + 3) * pair, (3 + 3) * 2);
    /* each query its own lists: the second one's are {} and {2} */
    s.attention.window = 0;
    s.attention.kv_lengths = NULL;
    s.query_tokens = 1;
    s.indptr = tiled;
    COUNT(
        lspan_sparse_prefill(counted, &s, workspace, room), lspan_profile_kernel_sparse_prefill, lspan_dtype_f32,
        (3 + 2 + 0 + 2) * key + io + 2 * 4 * 4 + 4 * 4, (3 + 2 + 0 + 2) * pair, (3 + 2 + 0 + 2) * 2);
    COUNT(
        lspan_attention_decode(counted, &(lspan_attention){
            .sequences = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 8, .query_indptr = two, .kv_indptr = six,
            .kv_lengths = lengths, .queries = a.queries, .keys = a.keys, .values = a.values, .output = out,
            .output_token_stride = 32, .output_head_stride = 8, .scale = 1, .causal = 1}, workspace, room),
        lspan_profile_kernel_attention_decode, lspan_dtype_f32, (6 + 5) * key + io, (5 + 6 + 4 + 5) * pair,
        (5 + 6 + 4 + 5) * 2);

    /* the mask drawn in sparse.h */
    a.query_indptr = a.kv_indptr = eight;
    lspan_lag_attention l = {a, 1, 2, 2, 1, 2, kept};
    COUNT(
        lspan_lag_prefill(counted, &l, workspace, room), lspan_profile_kernel_lag_prefill, lspan_dtype_f32,
        2 * 8 * key + 8 * 4 * 8 * 8 + 2 * 2 * 4, 2 * (1 + 2 + 3 + 4 + 5 + 5 + 6 + 6) * pair, 2 * 32 * 2);
    /* the last two queries: slot 0, one kept of the first window, and 3 to 7 */
    l.attention.query_indptr = two;
    COUNT(
        lspan_lag_prefill(counted, &l, workspace, room), lspan_profile_kernel_lag_prefill, lspan_dtype_f32,
        2 * 7 * key + io + 2 * 2 * 4, 2 * (6 + 6) * pair, 2 * 12 * 2);
}

static void test_layer_costs(void)
{
    static uint16_t narrow[256], rotated[256];
    static float x[256], y[256], table[16];
    static const int32_t targets[] = {1, 2};
    float losses[2], entropies[2];
    lspan_matrix f32 = {x, lspan_dtype_f32, 10}, bf16 = {narrow, lspan_dtype_bf16, 10};
    lspan_matrix_out to = {y, lspan_dtype_f32, 10};
    COUNT(lspan_rms_norm(counted, 2, 10, f32, NULL, 0, to), lspan_profile_kernel_rms_norm, lspan_dtype_f32, 20 * 8, 60, 0);
    COUNT(
        lspan_rms_norm(counted, 2, 10, bf16, x, 0, to), lspan_profile_kernel_rms_norm, lspan_dtype_bf16, 20 * 6 + 40, 80, 0);
    COUNT(
        lspan_layer_norm(counted, 2, 10, f32, x, x, 1, to), lspan_profile_kernel_layer_norm, lspan_dtype_f32,
        20 * 8 + 80, 140, 0);
    COUNT(
        lspan_layer_norm(counted, 2, 10, f32, NULL, x, 1, to), lspan_profile_kernel_layer_norm, lspan_dtype_f32,
        20 * 8 + 40, 120, 0);
    COUNT(lspan_rms_norm(counted, 0, 10, f32, x, 0, to), lspan_profile_kernel_rms_norm, lspan_dtype_f32, 0, 0, 0);

    lspan_heads heads = {x, lspan_dtype_f32, 16, 8};
    lspan_heads_out slots = {rotated, lspan_dtype_f16, 16, 8};
    /* 3 pairs of 8 channels, 2 heads, 4 tokens */
    COUNT(
        lspan_rope(counted, lspan_rope_layout_halves, 4, 2, 8, 3, table, table, heads, slots), lspan_profile_kernel_rope,
        lspan_dtype_f16, 64 * 6 + 4 * 3 * 8, 4 * 2 * 3 * 6, 0);
    COUNT(lspan_convert(counted, 4, 2, 8, heads, slots), lspan_profile_kernel_convert, lspan_dtype_f16, 64 * 6, 0, 0);

    static const int64_t flops[] = {4, 9, 6};
    for (int i = 0; i < 3; i++) {
        COUNT(
            lspan_gated_activation(counted, (lspan_activation)i, 2, 10, f32, bf16, to),
            lspan_profile_kernel_gated_activation, i, 20 * (4 + 2 + 4), 20 * flops[i], 20);
    }
    COUNT(
        lspan_log_softmax_gather(counted, 2, 10, f32, targets, losses, entropies),
        lspan_profile_kernel_log_softmax_gather, lspan_dtype_f32, 20 * 4 + 2 * 12, 100, 20);
    COUNT(
        lspan_log_softmax_gather(counted, 2, 10, f32, NULL, NULL, entropies), lspan_profile_kernel_log_softmax_gather,
        lspan_dtype_f32, 20 * 4 + 2 * 4, 100, 20);
}

static void test_weight_costs(void)
{
    static const uint8_t blocks[5 * 2 * 34];
    static float x[4 * 64], y[4 * 64];
    static const int32_t ids[] = {4, 0, 4};
    lspan_weights q8 = {blocks, lspan_block_type_q8_0, 5, 64}, f32 = {x, lspan_block_type_f32, 4, 64};
    COUNT(
        lspan_dequantize(counted, &f32, y), lspan_profile_kernel_dequantize, lspan_block_type_f32, 2 * 4 * 64 * 4, 0, 0);
    lspan_weights two = {blocks, lspan_block_type_q8_0, 2, 64};
    COUNT(
        lspan_dequantize(counted, &two, y), lspan_profile_kernel_dequantize, lspan_block_type_q8_0,
        2 * 68 + 2 * 64 * 4, 2 * 128, 0);
    COUNT(
        lspan_embedding(counted, &q8, 3, ids, y, 64), lspan_profile_kernel_embedding, lspan_block_type_q8_0,
        3 * 68 + 3 * 64 * 4 + 3 * 4, 2 * 192, 0);
    COUNT(lspan_embedding(counted, &q8, 0, NULL, NULL, 64), lspan_profile_kernel_embedding, lspan_block_type_q8_0, 0, 0, 0);
    lspan_linear l = {.weights = q8, .rows = 3, .input = x, .input_row_stride = 64, .output = y, .output_row_stride = 5};
    COUNT(
        lspan_linear_run(counted, &l, workspace, sizeof workspace), lspan_profile_kernel_linear, lspan_block_type_q8_0,
        5 * 68 + 3 * (64 + 5) * 4, 2 * 3 * 5 * 64, 0);
    l.accumulate = 1;
    COUNT(
        lspan_linear_run(counted, &l, workspace, sizeof workspace), lspan_profile_kernel_linear, lspan_block_type_q8_0,
        5 * 68 + 3 * (64 + 5 + 5) * 4, 2 * 3 * 5 * 64, 0);
    l.rows = 0;
    COUNT(
        lspan_linear_run(counted, &l, workspace, sizeof workspace), lspan_profile_kernel_linear, lspan_block_type_q8_0, 0, 0,
        0);
}

/* Two heads of 8 channels. */
static void test_cache_costs(void)
{
    static float x[2 * 20 * 8], y[2 * 20 * 8], scores[2 * 6], table[5 * 3];
    static uint16_t narrow[2 * 20 * 8];
    static uint8_t flags[2 * 20];
    static int32_t indices[12], offsets[2];
    static int64_t indptr[3];
    const size_t room = sizeof workspace;
    lspan_lag_scores score = {
        .heads = 2, .head_dim = 8, .window = 3, .windows = 2, .keys = {narrow, lspan_dtype_bf16, 16, 8},
        .values = {narrow, lspan_dtype_bf16, 8, 160}, .value_weight = 1, .scores = scores, .score_head_stride = 6};
    COUNT(
        lspan_lag_scores_run(counted, &score, workspace, room), lspan_profile_kernel_lag_scores, lspan_dtype_bf16,
        2 * 2 * 9 * 8 * 2 + 2 * 6 * 4, 2 * 6 * (12 * 8 + 10), 2 * 2 * 6);
    score.windows = 0;
    COUNT(
        lspan_lag_scores_run(counted, &score, workspace, room), lspan_profile_kernel_lag_scores, lspan_dtype_bf16, 0, 0, 0);

    const lspan_token_range forced[] = {{0, 1}};
    lspan_selection select = {
        .scope = lspan_select_scope_row, .rows = 2, .tokens = 6, .scores = scores, .score_row_stride = 6, .keep = 2,
        .forced = forced, .forced_count = 1, .row_offsets = offsets, .indices = indices, .capacity = 12,
        .indptr = indptr};
    COUNT(
        lspan_select(counted, &select, workspace, room), lspan_profile_kernel_select, lspan_dtype_f32,
        12 * 4 + 16 + 2 * 4 + 4 * 4 + 3 * 8, 0, 0);
    select.row_offsets = NULL;
    select.scope = lspan_select_scope_shared;
    COUNT(
        lspan_select(counted, &select, workspace, room), lspan_profile_kernel_select, lspan_dtype_f32,
        12 * 4 + 16 + 2 * 4 + 2 * 8, 12, 0);

    /* two entries of the first list and one of the second change their slot, and the tail of both */
    static const int64_t lists[] = {0, 3, 6};
    static const int32_t kept[] = {1, 3, 4, 1, 2, 9};
    const lspan_side_array side = {flags, 1, 20};
    lspan_compaction compact = {
        .heads = 2, .head_dim = 8, .slots = 20, .lists = 2, .indptr = lists, .indices = kept, .destination = 1,
        .tail_begin = 10, .tail_end = 13, .keys = {narrow, lspan_dtype_bf16, 8, 160},
        .values = {x, lspan_dtype_f32, 8, 160}, .side = &side, .side_count = 1};
    COUNT(
        lspan_compact(counted, &compact), lspan_profile_kernel_compact, lspan_dtype_bf16,
        2 * (3 + 2 * 3) * (8 * 2 + 8 * 4 + 1), 0, 0);
    compact.lists = 1;
    compact.tail_begin = compact.tail_end;
    COUNT(
        lspan_compact(counted, &compact), lspan_profile_kernel_compact, lspan_dtype_bf16,
        2 * 2 * 2 * (8 * 2 + 8 * 4 + 1), 0, 0);
    static const int32_t still[] = {1, 2, 3};
    compact.indices = still;
    COUNT(lspan_compact(counted, &compact), lspan_profile_kernel_compact, lspan_dtype_bf16, 0, 0, 0);

    static const int32_t shifts[8];
    lspan_rope_shifting shift = {
        .tokens = 4, .heads = 2, .head_dim = 8, .pairs = 3, .shifts = shifts, .shift_head_stride = 4, .table_rows = 5,
        .cosine = table, .sine = table, .keys = {y, lspan_dtype_f32, 16, 8}};
    COUNT(
        lspan_rope_shift(counted, &shift), lspan_profile_kernel_rope_shift, lspan_dtype_f32,
        8 * 6 * 4 * 2 + 8 * 4 + 5 * 3 * 8, 8 * 3 * 6, 0);
    shift.shift_head_stride = 0;
    COUNT(
        lspan_rope_shift(counted, &shift), lspan_profile_kernel_rope_shift, lspan_dtype_f32,
        8 * 6 * 4 * 2 + 4 * 4 + 4 * 3 * 8, 8 * 3 * 6, 0);
    shift.tokens = 0;
    COUNT(lspan_rope_shift(counted, &shift), lspan_profile_kernel_rope_shift, lspan_dtype_f32, 0, 0, 0);
}

/* ---- Threads --------------------------------------------------------------------------------------- */

enum { callers = 4, calls = 3000 };

typedef struct caller {
    const lspan_context *context;
    int32_t tag;
    int failed;
    float x[COLUMNS], y[COLUMNS];
} caller;

static void *call_often(void *argument)
{
    caller *c = argument;
    lspan_matrix in = {c->x, lspan_dtype_f32, COLUMNS};
    lspan_matrix_out out = {c->y, lspan_dtype_f32, COLUMNS};
    lspan_profile_set_tag(c->tag);
    for (int i = 0; i < calls; i++) {
        c->failed += lspan_rms_norm(c->context, 1, COLUMNS, in, NULL, 0, out) != lspan_status_ok;
    }
    return NULL;
}

static void run_callers(const lspan_context *context, caller *group, pthread_t *ids)
{
    for (int t = 0; t < callers; t++) {
        group[t] = (caller){.context = context, .tag = 100 + t};
        CHECK(pthread_create(&ids[t], NULL, call_often, &group[t]) == 0);
    }
}

static void join_callers(caller *group, pthread_t *ids)
{
    for (int t = 0; t < callers; t++) {
        pthread_join(ids[t], NULL);
        CHECK(group[t].failed == 0);
    }
}

static void test_threads(void)
{
    test_case("threads that share a profile");
    static caller group[callers];
    pthread_t ids[callers];
    lspan_context *c = make_context(1);
    size_t all = (size_t)callers * calls, capacity = all - 100;
    lspan_profile_event *events = test_malloc((int64_t)capacity + 1, sizeof *events);
    memset(events, 0xFF, (capacity + 1) * sizeof *events);
    CHECK_OK(lspan_profile_start(c, events, capacity));
    run_callers(c, group, ids);
    join_callers(group, ids);
    CHECK_OK(lspan_profile_stop(c));
    check_count(c, capacity, 100);
    CHECK(test_is_untouched(&events[capacity], sizeof *events));
    lspan_profile_totals t = totals_of(c, lspan_profile_kernel_rms_norm);
    CHECK(t.calls == (int64_t)all && t.bytes == t.calls * COLUMNS * 8 && t.flops == t.calls * COLUMNS * 3);
    int64_t by_tag[callers] = {0}, threads[callers] = {-1, -1, -1, -1}, wrong = 0;
    for (size_t i = 0; i < capacity; i++) {
        int32_t tag = events[i].tag - 100;
        if (tag < 0 || tag >= callers || events[i].bytes != COLUMNS * 8) {
            wrong++;
            continue;
        }
        by_tag[tag]++;
        if (threads[tag] < 0) threads[tag] = events[i].thread;
        wrong += threads[tag] != events[i].thread;
    }
    CHECK_MESSAGE(wrong == 0, "%lld events are wrong", (long long)wrong);
    for (int i = 0; i < callers; i++) {
        CHECK(by_tag[i] <= calls && by_tag[i] >= calls - 100);
        for (int j = 0; j < i; j++) CHECK(threads[i] != threads[j]);
    }
    free(events);
    lspan_context_destroy(c);
}

/* Profiles come and go while others call: nothing is written to the memory of one that has ended. */
static void test_restarts(void)
{
    test_case("profiles that come and go");
    enum { capacity = 64 };
    static caller group[callers];
    pthread_t ids[callers];
    lspan_context *c = make_context(1);
    run_callers(c, group, ids);
    for (int round = 0; round < 200; round++) {
        test_buffer memory = test_allocate(capacity * sizeof(lspan_profile_event), 8);
        CHECK_OK(lspan_profile_start(c, memory.data, capacity));
        sched_yield();
        CHECK_OK(lspan_profile_stop(c));
        size_t stored, lost;
        CHECK_OK(lspan_profile_count(c, &stored, &lost));
        const lspan_profile_event *events = memory.data;
        for (size_t i = 0; i < stored; i++) CHECK(events[i].bytes == COLUMNS * 8 && events[i].tag >= 100);
        CHECK(totals_of(c, lspan_profile_kernel_rms_norm).calls == (int64_t)(stored + lost));
        CHECK(test_is_untouched(events + stored, (capacity - stored) * sizeof *events));
        test_release(&memory);
    }
    join_callers(group, ids);
    CHECK_OK(lspan_profile_stop(c));
    lspan_context_destroy(c);
}

int main(void)
{
    test_names();
    test_contract();
    test_recording();
    test_calls_left_out();
    counted = make_context(2);
    test_attention_costs();
    test_sparse_costs();
    test_layer_costs();
    test_weight_costs();
    test_cache_costs();
    lspan_context_destroy(counted);
    test_threads();
    test_restarts();
    return test_finish("profile_test");
}
