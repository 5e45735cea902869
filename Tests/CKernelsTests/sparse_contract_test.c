/* sparse_contract_test.c: what sparse.h refuses, with which status, and that nothing is written then. */
#include "attention_support.h"

#define HEADS 4
#define KV_HEADS 2
#define HEAD_DIM 16
#define TOKENS 3
#define KEYS 9

typedef enum call_kind { call_prefill, call_decode, call_lag, call_kinds } call_kind;

static const char *const call_names[] = {"sparse prefill", "sparse decode", "lag prefill"};

/* Valid calls, to be broken in one place at a time. Lists are for two sequences, lag windows for one. */
typedef struct fixture {
    call_kind kind;
    const lspan_context *context;
    int64_t query_indptr[3], kv_indptr[3], lengths[2 * KV_HEADS];
    int64_t indptr[5];
    int32_t indices[6], kept[KV_HEADS * 3], positions[KEYS];
    float table[KEYS * HEAD_DIM];
    lspan_key_rotation rotation;
    test_tensor queries, keys, values, output;
    test_buffer log_sum_exp, workspace;
    size_t bytes;
} fixture;

/* One call of each kind; a test changes what it is about, and the kind under test takes its own. */
typedef struct calls {
    lspan_sparse_attention sparse;
    lspan_lag_attention lag;
    lspan_attention *a; /* of the call under test */
    lspan_key_rotation rotation;
} calls;

static fixture make_fixture(call_kind kind)
{
    fixture f = {.kind = kind, .query_indptr = {0, 2, TOKENS}, .kv_indptr = {0, 5, KEYS}};
    static const int64_t indptr[] = {0, 2, 3, 4, 6}, lengths[] = {5, 4, 0, 3};
    static const int32_t indices[] = {2, 0, 1, 1, 0, 1}, kept[] = {1, 4, 6, 2, 3, 5};
    size_t count;
    memcpy(f.indptr, indptr, sizeof indptr);
    memcpy(f.indices, indices, sizeof indices);
    memcpy(f.kept, kept, sizeof kept);
    memcpy(f.lengths, lengths, sizeof lengths);
    if (kind == call_lag) {
        f.query_indptr[1] = TOKENS;
        f.kv_indptr[1] = KEYS;
    }
    f.context = test_contexts(&count)[1].context;
    f.queries = test_tensor_random(lspan_dtype_f32, TOKENS, HEADS, HEAD_DIM, test_layout_token_major, 1);
    f.keys = test_tensor_random(lspan_dtype_f32, KEYS, KV_HEADS, HEAD_DIM, test_layout_token_major, 1);
    f.values = test_tensor_random(lspan_dtype_f32, KEYS, KV_HEADS, HEAD_DIM, test_layout_token_major, 1);
    f.output = test_tensor_make(lspan_dtype_f32, TOKENS, HEADS, HEAD_DIM, test_layout_token_major);
    f.log_sum_exp = test_allocate(TOKENS * HEADS * sizeof(float), sizeof(float));
    return f;
}

static void make_calls(fixture *f, calls *c)
{
    lspan_attention a = attention_valid_call(
        f->kind == call_lag ? 1 : 2, f->query_indptr, f->kv_indptr, &f->queries, &f->keys, &f->values, &f->output,
        f->log_sum_exp.data);
    memset(c, 0, sizeof *c);
    c->rotation = (lspan_key_rotation){
        lspan_rope_layout_halves, HEAD_DIM / 2, KEYS, f->table, f->table, NULL};
    c->sparse = (lspan_sparse_attention){a, 2, KV_HEADS, 0, f->indptr, f->indices};
    /* windows 1 2, 3 4, 5 6 and 7 8 */
    c->lag = (lspan_lag_attention){a, 1, 2, 2, 1, 3, f->kept};
    c->a = f->kind == call_lag ? &c->lag.attention : &c->sparse.attention;
}

static lspan_status run(const fixture *f, const lspan_context *context, const calls *c, void *workspace, size_t bytes)
{
    if (f->kind == call_prefill) return lspan_sparse_prefill(context, c ? &c->sparse : NULL, workspace, bytes);
    if (f->kind == call_decode) return lspan_sparse_decode(context, c ? &c->sparse : NULL, workspace, bytes);
    return lspan_lag_prefill(context, c ? &c->lag : NULL, workspace, bytes);
}

static lspan_status ask_size(const fixture *f, const lspan_context *context, const calls *c, size_t *bytes)
{
    if (f->kind == call_prefill) return lspan_sparse_prefill_workspace_size(context, c ? &c->sparse : NULL, bytes);
    if (f->kind == call_decode) return lspan_sparse_decode_workspace_size(context, c ? &c->sparse : NULL, bytes);
    return lspan_lag_prefill_workspace_size(context, c ? &c->lag : NULL, bytes);
}

static void check_untouched(const fixture *f)
{
    CHECK_MESSAGE(
        test_is_untouched(f->output.buffer.data, f->output.buffer.bytes) &&
            test_is_untouched(f->log_sum_exp.data, f->log_sum_exp.bytes) &&
            test_is_untouched(f->workspace.data, f->workspace.bytes),
        "a refused call wrote something");
}

static void expect(const fixture *f, const calls *c, lspan_status want, int line)
{
    test_status(run(f, f->context, c, f->workspace.data, f->bytes), want, __FILE__, line, call_names[f->kind]);
    check_untouched(f);
}

/* Starts from a valid call, changes something, and expects a status. */
#define REFUSE(change, want)         \
    do {                             \
        calls c;                     \
        make_calls(f, &c);           \
        change;                      \
        expect(f, &c, want, __LINE__); \
    } while (0)

/* The same, and the size query refuses it too. */
#define REFUSE_SHAPE(change, want)                                                               \
    do {                                                                                         \
        calls c;                                                                                 \
        size_t size = 12345;                                                                     \
        make_calls(f, &c);                                                                       \
        change;                                                                                  \
        expect(f, &c, want, __LINE__);                                                           \
        test_status(ask_size(f, f->context, &c, &size), want, __FILE__, __LINE__, "size query"); \
        CHECK(size == 12345);                                                                    \
    } while (0)

static void *shifted(const void *pointer, size_t bytes)
{
    return (char *)(uintptr_t)pointer + bytes;
}

/* What any attention call refuses is refused here too; attention_contract_test.c has the whole list. */
static void test_attention(fixture *f)
{
    calls valid;
    size_t size = 12345;
    make_calls(f, &valid);
    CHECK_STATUS(run(f, NULL, &valid, f->workspace.data, f->bytes), lspan_status_null_pointer);
    CHECK_STATUS(run(f, f->context, NULL, f->workspace.data, f->bytes), lspan_status_null_pointer);
    CHECK_STATUS(run(f, f->context, &valid, NULL, f->bytes), lspan_status_null_pointer);
    CHECK_STATUS(run(f, f->context, &valid, f->workspace.data, f->bytes - 1), lspan_status_workspace_too_small);
    CHECK_STATUS(run(f, f->context, &valid, shifted(f->workspace.data, 4), f->bytes), lspan_status_bad_alignment);
    CHECK_STATUS(ask_size(f, NULL, &valid, &size), lspan_status_null_pointer);
    CHECK_STATUS(ask_size(f, f->context, NULL, &size), lspan_status_null_pointer);
    CHECK_STATUS(ask_size(f, f->context, &valid, NULL), lspan_status_null_pointer);
    CHECK(size == 12345);
    check_untouched(f);
    REFUSE_SHAPE(c.a->head_dim = 12, lspan_status_bad_shape);
    REFUSE_SHAPE(c.a->query_heads = 5, lspan_status_bad_shape);
    REFUSE_SHAPE(c.a->kv_indptr = NULL, lspan_status_null_pointer);
    REFUSE(c.a->keys.data = NULL, lspan_status_null_pointer);
    REFUSE(c.a->values.dtype = lspan_dtype_f16, lspan_status_bad_dtype);
    REFUSE(c.a->output_head_stride = 1, lspan_status_bad_stride);
    REFUSE(c.a->scale = NAN, lspan_status_bad_value);
    REFUSE((c.a->key_rotation = &c.rotation, c.rotation.pairs = 0), lspan_status_bad_shape);
    int64_t endless[3] = {0, 5, INT64_MAX};
    endless[1] = f->kind == call_lag ? INT64_MAX : 5;
    REFUSE_SHAPE(c.a->kv_indptr = endless, lspan_status_bad_shape);
}

static void test_lists(fixture *f)
{
    REFUSE_SHAPE(c.sparse.block = 0, lspan_status_bad_shape);
    REFUSE_SHAPE(c.sparse.block = INT64_MIN, lspan_status_bad_shape);
    REFUSE_SHAPE(c.sparse.query_tokens = -1, lspan_status_bad_shape);
    REFUSE_SHAPE(c.sparse.list_heads = 0, lspan_status_bad_shape);
    REFUSE_SHAPE(c.sparse.list_heads = -KV_HEADS, lspan_status_bad_shape);
    REFUSE_SHAPE(c.sparse.list_heads = KV_HEADS + 1, lspan_status_bad_shape);
    REFUSE_SHAPE(c.sparse.indptr = NULL, lspan_status_null_pointer);
    REFUSE_SHAPE(c.sparse.indptr = shifted(f->indptr, 4), lspan_status_bad_alignment);
    REFUSE(c.sparse.indices = NULL, lspan_status_null_pointer);
    REFUSE(c.sparse.indices = shifted(f->indices, 2), lspan_status_bad_alignment);
    int64_t not_from_zero[5] = {1, 2, 3, 4, 6}, decreasing[5] = {0, 2, 1, 4, 6}, negative[5] = {0, -1, 3, 4, 6};
    REFUSE_SHAPE(c.sparse.indptr = not_from_zero, lspan_status_bad_index);
    REFUSE_SHAPE(c.sparse.indptr = decreasing, lspan_status_bad_index);
    REFUSE_SHAPE(c.sparse.indptr = negative, lspan_status_bad_index);
    /* blocks 0 to 2 of the first sequence, 0 and 1 of the second */
    static const int32_t outside[] = {-1, 3, INT32_MAX, INT32_MIN, 2};
    for (int i = 0; i < 5; i++) {
        int32_t indices[6];
        memcpy(indices, f->indices, sizeof indices);
        indices[i < 4 ? 1 : 5] = outside[i];
        REFUSE(c.sparse.indices = indices, lspan_status_bad_index);
    }
    REFUSE(c.sparse.block = 5, lspan_status_bad_index);
    REFUSE(c.sparse.block = INT64_MAX, lspan_status_bad_index);
    REFUSE_SHAPE((f->lengths[1] = 6, c.a->kv_lengths = f->lengths), lspan_status_bad_index);
    f->lengths[1] = 4;
    if (f->kind == call_decode) {
        REFUSE_SHAPE(c.sparse.query_tokens = 1, lspan_status_bad_shape);
        int64_t nine[3] = {0, 0, 9};
        REFUSE_SHAPE(c.a->query_indptr = nine, lspan_status_bad_shape);
    } else {
        int64_t endless[3] = {0, 0, INT64_MAX};
        REFUSE_SHAPE((c.a->query_indptr = endless, c.sparse.query_tokens = 1), lspan_status_overflow);
    }
}

static void test_windows(fixture *f)
{
    int64_t two[3] = {0, TOKENS, TOKENS}, keys[3] = {0, KEYS, KEYS};
    REFUSE_SHAPE((c.a->sequences = 2, c.a->query_indptr = two, c.a->kv_indptr = keys), lspan_status_bad_shape);
    REFUSE_SHAPE(c.lag.leading = -1, lspan_status_bad_shape);
    REFUSE_SHAPE(c.lag.leading = KEYS + 1, lspan_status_bad_shape);
    REFUSE_SHAPE(c.lag.leading = INT64_MAX, lspan_status_bad_shape);
    REFUSE_SHAPE((c.a->sequences = 0, c.lag.leading = 1), lspan_status_bad_shape);
    REFUSE_SHAPE(c.lag.lag = 0, lspan_status_bad_shape);
    REFUSE_SHAPE(c.lag.lag = INT64_MIN, lspan_status_bad_shape);
    REFUSE_SHAPE(c.lag.raw_windows = 0, lspan_status_bad_shape);
    REFUSE_SHAPE(c.lag.raw_windows = -1, lspan_status_bad_shape);
    REFUSE_SHAPE(c.lag.keep = -1, lspan_status_bad_shape);
    REFUSE_SHAPE(c.lag.keep = 3, lspan_status_bad_shape);
    REFUSE_SHAPE(c.lag.kept_windows = 1, lspan_status_bad_shape);
    REFUSE_SHAPE(c.lag.kept_windows = -1, lspan_status_bad_shape);
    REFUSE_SHAPE(c.a->causal = 0, lspan_status_bad_value);
    REFUSE_SHAPE(c.a->window = 4, lspan_status_bad_value);
    f->lengths[0] = KEYS;
    REFUSE_SHAPE(c.a->kv_lengths = f->lengths, lspan_status_bad_value);
    REFUSE(c.lag.kept = NULL, lspan_status_null_pointer);
    REFUSE(c.lag.kept = shifted(f->kept, 1), lspan_status_bad_alignment);
    REFUSE(c.lag.kept_windows = INT64_MAX, lspan_status_overflow);
    static const int32_t outside[] = {-1, 0, 3, INT32_MAX, INT32_MIN};
    for (int i = 0; i < 5; i++) {
        int32_t kept[KV_HEADS * 3];
        memcpy(kept, f->kept, sizeof kept);
        kept[3] = outside[i];
        REFUSE(c.lag.kept = kept, lspan_status_bad_index);
    }
    /* two of each window, the last pair of the second head out of order or twice the same */
    for (int i = 0; i < 2; i++) {
        int32_t kept[] = {1, 2, 3, 4, 1, 2, 4, i ? 3 : 4};
        REFUSE((c.lag.keep = 2, c.lag.kept_windows = 2, c.lag.kept = kept), lspan_status_bad_index);
    }
}

/* What looks odd and is legal. Runs last: it writes. */
static void test_legal(fixture *f)
{
    int64_t nothing[5] = {0, 0, 0, 0, 0};
    size_t most = f->bytes;
    calls c;
    make_calls(f, &c);
    c.a->sequences = 0;
    c.lag.leading = 0;
    CHECK_OK(run(f, f->context, &c, f->workspace.data, most));
    make_calls(f, &c);
    c.a->query_indptr = nothing;
    c.lag.kept_windows = 0;
    c.lag.kept = NULL;
    CHECK_OK(run(f, f->context, &c, f->workspace.data, most));
    check_untouched(f);
    make_calls(f, &c);
    c.sparse.indptr = nothing;
    c.sparse.indices = NULL;
    c.lag.keep = 0;
    c.lag.kept = NULL;
    CHECK_OK(run(f, f->context, &c, f->workspace.data, most));
    if (f->kind != call_lag) {
        for (int64_t i = 0; i < TOKENS * HEADS; i++) CHECK(((float *)f->log_sum_exp.data)[i] == -INFINITY);
    }
    make_calls(f, &c);
    c.a->key_rotation = &c.rotation;
    CHECK_OK(run(f, f->context, &c, f->workspace.data, most));
    /* the last window's list is not looked at */
    f->kept[2] = f->kept[5] = -1;
    CHECK_OK(run(f, f->context, &c, f->workspace.data, most));
}

static void test_kind(call_kind kind)
{
    fixture f = make_fixture(kind);
    calls c;
    test_case("%s contract", call_names[kind]);
    for (int i = 0; i < KEYS * HEAD_DIM; i++) f.table[i] = 0.5f;
    make_calls(&f, &c);
    CHECK_OK(ask_size(&f, f.context, &c, &f.bytes));
    CHECK(f.bytes > 0);
    f.workspace = test_allocate(f.bytes, LSPAN_WORKSPACE_ALIGNMENT);
    test_attention(&f);
    if (kind == call_lag) test_windows(&f);
    else test_lists(&f);
    test_legal(&f);
    test_tensor_release(&f.queries);
    test_tensor_release(&f.keys);
    test_tensor_release(&f.values);
    test_tensor_release(&f.output);
    test_release(&f.log_sum_exp);
    test_release(&f.workspace);
}

int main(void)
{
    for (int kind = 0; kind < call_kinds; kind++) test_kind((call_kind)kind);
    return test_finish("sparse_contract_test");
}
