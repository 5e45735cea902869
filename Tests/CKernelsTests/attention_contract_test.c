/* attention_contract_test.c: what attention.h refuses, with which status, and that nothing is written then. */
#include "attention_support.h"

#define HEADS 4
#define KV_HEADS 2
#define HEAD_DIM 16
#define TOKENS 3
#define KEYS 7

/* A valid call of two sequences, to be broken in one place at a time. */
typedef struct fixture {
    int64_t query_indptr[3];
    int64_t kv_indptr[3];
    test_tensor queries, keys, values, output;
    test_buffer log_sum_exp, workspace;
    size_t bytes;
    attention_kernel kernel;
    const lspan_context *context;
} fixture;

static const char *const kernel_names[] = {"prefill", "decode"};

static fixture make_fixture(attention_kernel kernel)
{
    fixture f = {.query_indptr = {0, 2, TOKENS}, .kv_indptr = {0, 3, KEYS}, .kernel = kernel};
    size_t count;
    f.context = test_contexts(&count)[1].context;
    f.queries = test_tensor_random(lspan_dtype_f32, TOKENS, HEADS, HEAD_DIM, test_layout_token_major, 1);
    f.keys = test_tensor_random(lspan_dtype_f32, KEYS, KV_HEADS, HEAD_DIM, test_layout_token_major, 1);
    f.values = test_tensor_random(lspan_dtype_f32, KEYS, KV_HEADS, HEAD_DIM, test_layout_token_major, 1);
    f.output = test_tensor_make(lspan_dtype_f32, TOKENS, HEADS, HEAD_DIM, test_layout_token_major);
    f.log_sum_exp = test_allocate(TOKENS * HEADS * sizeof(float), sizeof(float));
    return f;
}

static lspan_attention valid_call(const fixture *f)
{
    return attention_valid_call(
        2, f->query_indptr, f->kv_indptr, &f->queries, &f->keys, &f->values, &f->output, f->log_sum_exp.data);
}

static lspan_status run(const fixture *f, const lspan_context *context, const lspan_attention *a, void *workspace, size_t bytes)
{
    return f->kernel == attention_kernel_prefill ? lspan_attention_prefill(context, a, workspace, bytes)
                                                 : lspan_attention_decode(context, a, workspace, bytes);
}

static lspan_status ask_size(const fixture *f, const lspan_context *context, const lspan_attention *a, size_t *bytes)
{
    return f->kernel == attention_kernel_prefill ? lspan_attention_prefill_workspace_size(context, a, bytes)
                                                 : lspan_attention_decode_workspace_size(context, a, bytes);
}

static void check_untouched(const fixture *f)
{
    CHECK_MESSAGE(
        test_is_untouched(f->output.buffer.data, f->output.buffer.bytes) &&
            test_is_untouched(f->log_sum_exp.data, f->log_sum_exp.bytes) &&
            test_is_untouched(f->workspace.data, f->workspace.bytes),
        "a refused call wrote something");
}

static void expect_call(
    const fixture *f, const lspan_attention *a, void *workspace, size_t bytes, lspan_status want, int line)
{
    test_status(run(f, f->context, a, workspace, bytes), want, __FILE__, line, kernel_names[f->kernel]);
    check_untouched(f);
}

/* A call that is wrong in `a`, with the right workspace. */
#define EXPECT(want) expect_call(f, &a, f->workspace.data, f->bytes, want, __LINE__)
/* Starts from a valid call, changes one thing, and expects a status. */
#define REFUSE(change, want)           \
    do {                               \
        lspan_attention a = valid_call(f); \
        change;                        \
        EXPECT(want);                  \
    } while (0)

/* The same, and the size query refuses it too. */
#define REFUSE_SHAPE(change, want)                                                          \
    do {                                                                                    \
        lspan_attention a = valid_call(f);                                                  \
        size_t size = 12345;                                                                \
        change;                                                                             \
        EXPECT(want);                                                                       \
        test_status(ask_size(f, f->context, &a, &size), want, __FILE__, __LINE__, "size query"); \
        CHECK(size == 12345);                                                               \
    } while (0)

static void test_null_pointers(const fixture *f)
{
    lspan_attention a = valid_call(f);
    size_t size = 12345;
    CHECK_STATUS(run(f, NULL, &a, f->workspace.data, f->bytes), lspan_status_null_pointer);
    CHECK_STATUS(run(f, f->context, NULL, f->workspace.data, f->bytes), lspan_status_null_pointer);
    CHECK_STATUS(run(f, f->context, &a, NULL, f->bytes), lspan_status_null_pointer);
    CHECK_STATUS(ask_size(f, NULL, &a, &size), lspan_status_null_pointer);
    CHECK_STATUS(ask_size(f, f->context, NULL, &size), lspan_status_null_pointer);
    CHECK_STATUS(ask_size(f, f->context, &a, NULL), lspan_status_null_pointer);
    CHECK(size == 12345);
    check_untouched(f);
    REFUSE_SHAPE(a.query_indptr = NULL, lspan_status_null_pointer);
    REFUSE_SHAPE(a.kv_indptr = NULL, lspan_status_null_pointer);
    REFUSE(a.queries.data = NULL, lspan_status_null_pointer);
    REFUSE(a.keys.data = NULL, lspan_status_null_pointer);
    REFUSE(a.values.data = NULL, lspan_status_null_pointer);
    REFUSE(a.output = NULL, lspan_status_null_pointer);
}

static void test_shapes(const fixture *f)
{
    static const int64_t bad_dims[] = {0, -8, 4, 12, 17, 257, 264, 512, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < sizeof bad_dims / sizeof bad_dims[0]; i++) {
        REFUSE_SHAPE(a.head_dim = bad_dims[i], lspan_status_bad_shape);
    }
    REFUSE_SHAPE(a.sequences = -1, lspan_status_bad_shape);
    REFUSE_SHAPE(a.sequences = INT64_MIN, lspan_status_bad_shape);
    REFUSE_SHAPE(a.query_heads = 0, lspan_status_bad_shape);
    REFUSE_SHAPE(a.query_heads = -4, lspan_status_bad_shape);
    REFUSE_SHAPE(a.query_heads = 5, lspan_status_bad_shape);
    REFUSE_SHAPE(a.query_heads = 1, lspan_status_bad_shape);
    REFUSE_SHAPE(a.kv_heads = 0, lspan_status_bad_shape);
    REFUSE_SHAPE(a.kv_heads = -2, lspan_status_bad_shape);
    REFUSE_SHAPE(a.kv_heads = INT64_MIN, lspan_status_bad_shape);
    if (f->kernel == attention_kernel_decode) {
        int64_t nine[3] = {0, 0, 9};
        REFUSE_SHAPE(a.query_indptr = nine, lspan_status_bad_shape);
    }
}

static void test_strides(const fixture *f)
{
    REFUSE(a.queries.token_stride = -1, lspan_status_bad_stride);
    REFUSE(a.queries.head_stride = -1, lspan_status_bad_stride);
    REFUSE(a.keys.token_stride = -HEAD_DIM, lspan_status_bad_stride);
    REFUSE(a.keys.head_stride = INT64_MIN, lspan_status_bad_stride);
    REFUSE(a.values.token_stride = INT64_MIN, lspan_status_bad_stride);
    REFUSE(a.values.head_stride = -1, lspan_status_bad_stride);
    REFUSE(a.output_token_stride = -1, lspan_status_bad_stride);
    REFUSE(a.output_head_stride = -1, lspan_status_bad_stride);
    REFUSE(a.output_token_stride = 0, lspan_status_bad_stride);
    REFUSE(a.output_head_stride = 0, lspan_status_bad_stride);
    REFUSE(a.output_head_stride = HEAD_DIM - 1, lspan_status_bad_stride);
    REFUSE(a.output_token_stride = HEADS * HEAD_DIM - 1, lspan_status_bad_stride);
    /* neither heads inside tokens nor tokens inside heads */
    REFUSE((a.output_token_stride = HEAD_DIM, a.output_head_stride = 2 * HEAD_DIM), lspan_status_bad_stride);
}

static void *shifted(const void *pointer, size_t bytes)
{
    return (char *)(uintptr_t)pointer + bytes;
}

static void test_alignment(const fixture *f)
{
    REFUSE(a.queries.data = shifted(a.queries.data, 2), lspan_status_bad_alignment);
    REFUSE((a.queries.dtype = lspan_dtype_f16, a.queries.data = shifted(a.queries.data, 1)), lspan_status_bad_alignment);
    REFUSE(a.keys.data = shifted(a.keys.data, 1), lspan_status_bad_alignment);
    REFUSE(a.values.data = shifted(a.values.data, 3), lspan_status_bad_alignment);
    REFUSE(a.output = shifted(a.output, 2), lspan_status_bad_alignment);
    REFUSE(a.log_sum_exp = shifted(a.log_sum_exp, 1), lspan_status_bad_alignment);
    REFUSE_SHAPE(a.query_indptr = shifted(a.query_indptr, 4), lspan_status_bad_alignment);
    REFUSE_SHAPE(a.kv_indptr = shifted(a.kv_indptr, 4), lspan_status_bad_alignment);
    test_buffer wide = test_allocate(f->bytes + LSPAN_WORKSPACE_ALIGNMENT, LSPAN_WORKSPACE_ALIGNMENT);
    static const size_t shifts[] = {1, 4, 16, 32};
    for (size_t i = 0; i < 4; i++) {
        lspan_attention a = valid_call(f);
        expect_call(f, &a, shifted(wide.data, shifts[i]), f->bytes, lspan_status_bad_alignment, __LINE__);
    }
    CHECK(test_is_untouched(wide.data, wide.bytes));
    test_release(&wide);
}

static void test_codes_and_values(const fixture *f)
{
    REFUSE(a.queries.dtype = (lspan_dtype)3, lspan_status_bad_dtype);
    REFUSE(a.queries.dtype = (lspan_dtype)-1, lspan_status_bad_dtype);
    REFUSE(a.keys.dtype = (lspan_dtype)99, lspan_status_bad_dtype);
    REFUSE(a.values.dtype = (lspan_dtype)3, lspan_status_bad_dtype);
    REFUSE(a.keys.dtype = lspan_dtype_f16, lspan_status_bad_dtype);
    REFUSE(a.values.dtype = lspan_dtype_bf16, lspan_status_bad_dtype);
    REFUSE(a.scale = NAN, lspan_status_bad_value);
    REFUSE(a.scale = INFINITY, lspan_status_bad_value);
    REFUSE(a.scale = -INFINITY, lspan_status_bad_value);
    REFUSE(a.softcap = NAN, lspan_status_bad_value);
    REFUSE(a.softcap = INFINITY, lspan_status_bad_value);
    REFUSE(a.softcap = -1, lspan_status_bad_value);
    REFUSE(a.causal = 2, lspan_status_bad_value);
    REFUSE(a.causal = -1, lspan_status_bad_value);
    REFUSE(a.window = -1, lspan_status_bad_value);
    REFUSE(a.window = INT64_MIN, lspan_status_bad_value);
    REFUSE((a.window = 2, a.sinks = -1), lspan_status_bad_value);
    REFUSE((a.window = 2, a.sinks = INT64_MIN), lspan_status_bad_value);
}

static void test_indptr(const fixture *f)
{
    int64_t not_from_zero[3] = {1, 2, TOKENS}, negative[3] = {-1, 2, TOKENS}, decreasing[3] = {0, 2, 1};
    int64_t below[3] = {0, -1, TOKENS}, keys_not_from_zero[3] = {1, 3, KEYS};
    REFUSE_SHAPE(a.query_indptr = not_from_zero, lspan_status_bad_index);
    REFUSE_SHAPE(a.query_indptr = negative, lspan_status_bad_index);
    REFUSE_SHAPE(a.query_indptr = decreasing, lspan_status_bad_index);
    REFUSE_SHAPE(a.query_indptr = below, lspan_status_bad_index);
    REFUSE_SHAPE(a.kv_indptr = keys_not_from_zero, lspan_status_bad_index);
    REFUSE_SHAPE(a.kv_indptr = decreasing, lspan_status_bad_index);
    REFUSE_SHAPE(a.kv_indptr = below, lspan_status_bad_index);
}

static void test_lengths(const fixture *f)
{
    int64_t lengths[4] = {3, 0, 4, 1}, too_many[4] = {3, 4, 4, 1}, negative[4] = {3, 0, 4, -1};
    REFUSE_SHAPE(a.kv_lengths = too_many, lspan_status_bad_index);
    REFUSE_SHAPE(a.kv_lengths = negative, lspan_status_bad_index);
    REFUSE_SHAPE(a.kv_lengths = shifted(lengths, 4), lspan_status_bad_alignment);
}

static void test_rotation(const fixture *f)
{
    float table[KEYS * HEAD_DIM];
    int32_t positions[KEYS] = {0, 4, 2, 1, 0, 4, 3};
    const lspan_key_rotation valid = {lspan_rope_layout_halves, HEAD_DIM / 2, 5, table, table, positions};
    lspan_key_rotation r = valid;
#define REFUSE_ROTATION(change, want)                      \
    do {                                                   \
        r = valid;                                         \
        REFUSE((a.key_rotation = &r, change), want);       \
    } while (0)
    REFUSE_ROTATION(r.layout = (lspan_rope_layout)2, lspan_status_bad_dtype);
    REFUSE_ROTATION(r.layout = (lspan_rope_layout)-1, lspan_status_bad_dtype);
    REFUSE_ROTATION(r.pairs = 0, lspan_status_bad_shape);
    REFUSE_ROTATION(r.pairs = HEAD_DIM / 2 + 1, lspan_status_bad_shape);
    REFUSE_ROTATION(r.rows = -1, lspan_status_bad_shape);
    REFUSE_ROTATION(r.rows = INT64_MAX / 2, lspan_status_overflow);
    REFUSE_ROTATION(r.cosine = NULL, lspan_status_null_pointer);
    REFUSE_ROTATION(r.sine = NULL, lspan_status_null_pointer);
    REFUSE_ROTATION(r.cosine = shifted(table, 2), lspan_status_bad_alignment);
    REFUSE_ROTATION(r.sine = shifted(table, 1), lspan_status_bad_alignment);
    REFUSE_ROTATION(r.positions = shifted(positions, 2), lspan_status_bad_alignment);
    REFUSE_ROTATION(a.key_rotation = shifted(&r, 1), lspan_status_bad_alignment);
    REFUSE_ROTATION(r.rows = 4, lspan_status_bad_index);
    REFUSE_ROTATION((r.positions = NULL, r.rows = 3), lspan_status_bad_shape);
    positions[6] = -1;
    REFUSE_ROTATION(r.rows = 5, lspan_status_bad_index);
#undef REFUSE_ROTATION
}

static void test_workspace(const fixture *f)
{
    lspan_attention a = valid_call(f);
    CHECK(f->bytes > 0);
    expect_call(f, &a, f->workspace.data, f->bytes - 1, lspan_status_workspace_too_small, __LINE__);
    expect_call(f, &a, f->workspace.data, 0, lspan_status_workspace_too_small, __LINE__);
    expect_call(f, &a, NULL, 0, lspan_status_workspace_too_small, __LINE__);
}

/* Memory that was right for one number of keys is right for every other, also where its parts are more. */
static void test_workspace_of_any_length(const fixture *f)
{
    static const int64_t keys[] = {0, 1, 511, 513, 2049, 7680, 8192, 8193, 100000, INT64_C(1) << 40};
    static const int32_t teams[] = {1, 3, 16};
    for (size_t t = 0; t < sizeof teams / sizeof teams[0]; t++) {
        lspan_context_options options = {teams[t], NULL, NULL, 0};
        lspan_context *context = NULL;
        CHECK_OK(lspan_context_create(&options, &context));
        size_t first = 0;
        for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
            lspan_attention a = valid_call(f);
            const int64_t lengths[3] = {0, keys[i] / 3, keys[i]};
            size_t bytes = 0;
            a.kv_indptr = lengths;
            a.keys.token_stride = a.values.token_stride = HEADS * HEAD_DIM;
            CHECK_OK(ask_size(f, context, &a, &bytes));
            if (i == 0) first = bytes;
            CHECK_MESSAGE(bytes == first && bytes > 0, "%s of %lld keys: %zu bytes, not %zu", kernel_names[f->kernel],
                          (long long)keys[i], bytes, first);
        }
        lspan_context_destroy(context);
    }
}

/* Shapes and strides whose products leave 64 bits. */
static void test_overflow(const fixture *f)
{
    REFUSE(a.queries.token_stride = INT64_MAX, lspan_status_overflow);
    REFUSE(a.queries.head_stride = INT64_MAX, lspan_status_overflow);
    REFUSE(a.queries.head_stride = INT64_MAX / (HEADS - 1), lspan_status_overflow);
    REFUSE(a.keys.token_stride = INT64_MAX / 2, lspan_status_overflow);
    REFUSE(a.keys.token_stride = INT64_MAX / 4 / (KEYS - 1) + 1, lspan_status_overflow);
    REFUSE(a.values.head_stride = INT64_MAX, lspan_status_overflow);
    REFUSE(a.output_token_stride = INT64_MAX, lspan_status_overflow);
    REFUSE(a.output_head_stride = INT64_MAX / 2, lspan_status_overflow);
    int64_t endless[3] = {0, 2, INT64_MAX};
    REFUSE(a.kv_indptr = endless, lspan_status_overflow);
    if (f->kernel == attention_kernel_prefill) REFUSE(a.query_indptr = endless, lspan_status_overflow);

    /* more heads or sequences than memory can hold: an overflow or a shape out of range, whichever is found first */
    for (int i = 0; i < 3; i++) {
        lspan_attention a = valid_call(f);
        if (i == 0) a.query_heads = INT64_MAX - 1;
        if (i == 1) a.query_heads = a.kv_heads = INT64_MAX;
        if (i == 2) a.sequences = INT64_MAX;
        lspan_status status = run(f, f->context, &a, f->workspace.data, f->bytes);
        CHECK(status == lspan_status_overflow || status == lspan_status_bad_shape);
        check_untouched(f);
    }
    /* a size query reads no tensor, so an absurd length is either refused or answered, but not computed with wrapped
     * integers */
    int64_t all_in_last[3] = {0, 0, INT64_MAX};
    for (int mask = 0; mask < 16; mask++) {
        lspan_attention a = valid_call(f);
        size_t size = 0;
        a.kv_indptr = mask & 8 ? all_in_last : endless;
        a.causal = mask & 1;
        a.window = mask & 2 ? INT64_MAX : mask & 4 ? 5 : 0;
        a.sinks = mask & 4 ? INT64_MAX : 0;
        lspan_status status = ask_size(f, f->context, &a, &size);
        CHECK(status == lspan_status_overflow || status == lspan_status_ok);
        if (f->kernel == attention_kernel_decode) continue;
        a.query_indptr = all_in_last;
        status = ask_size(f, f->context, &a, &size);
        CHECK(status == lspan_status_overflow || status == lspan_status_ok);
    }
}

/* What looks odd and is legal. Runs last: it writes. */
static void test_legal(fixture *f)
{
    int64_t nothing[3] = {0, 0, 0};
    lspan_attention a = valid_call(f);
    a.sequences = 0;
    CHECK_OK(run(f, f->context, &a, f->workspace.data, f->bytes));
    a = valid_call(f);
    a.query_indptr = nothing;
    a.queries.data = NULL;
    a.output = NULL;
    CHECK_OK(run(f, f->context, &a, f->workspace.data, f->bytes));
    check_untouched(f);
    a = valid_call(f);
    a.kv_indptr = nothing;
    a.keys.data = NULL;
    a.values.data = NULL;
    CHECK_OK(run(f, f->context, &a, f->workspace.data, f->bytes));
    for (int64_t i = 0; i < TOKENS * HEADS; i++) CHECK(((float *)f->log_sum_exp.data)[i] == -INFINITY);
    a = valid_call(f);
    /* the stride of a row that has none after it */
    const int64_t one_key[3] = {0, 0, 1};
    a.kv_indptr = one_key;
    a.keys.token_stride = a.values.token_stride = INT64_MAX / 3;
    CHECK_OK(run(f, f->context, &a, f->workspace.data, f->bytes));
    a = valid_call(f);
    a.sinks = -0; /* ignored without a window */
    a.scale = 0;
    CHECK_OK(run(f, f->context, &a, f->workspace.data, f->bytes));
    a.log_sum_exp = NULL;
    CHECK_OK(run(f, f->context, &a, f->workspace.data, f->bytes));
}

static void test_kernel(attention_kernel kernel)
{
    fixture f = make_fixture(kernel);
    lspan_attention a = valid_call(&f);
    test_case("%s contract", kernel_names[kernel]);
    CHECK_OK(ask_size(&f, f.context, &a, &f.bytes));
    f.workspace = test_allocate(f.bytes, LSPAN_WORKSPACE_ALIGNMENT);
    test_null_pointers(&f);
    test_shapes(&f);
    test_strides(&f);
    test_alignment(&f);
    test_codes_and_values(&f);
    test_indptr(&f);
    test_lengths(&f);
    test_rotation(&f);
    test_workspace_of_any_length(&f);
    test_workspace(&f);
    test_overflow(&f);
    test_legal(&f);
    test_tensor_release(&f.queries);
    test_tensor_release(&f.keys);
    test_tensor_release(&f.values);
    test_tensor_release(&f.output);
    test_release(&f.log_sum_exp);
    test_release(&f.workspace);
}

static void test_merge(void)
{
    test_case("merge contract");
    size_t count;
    const lspan_context *c = test_contexts(&count)[1].context;
    float outputs[2 * 3 * 4] = {0}, lses[2 * 3] = {0};
    test_buffer out = test_allocate(3 * 4 * sizeof(float), sizeof(float));
    test_buffer lse = test_allocate(3 * sizeof(float), sizeof(float));
    CHECK_STATUS(lspan_attention_merge(NULL, 2, 3, 4, outputs, lses, out.data, lse.data), lspan_status_null_pointer);
    CHECK_STATUS(lspan_attention_merge(c, 2, 3, 4, NULL, lses, out.data, lse.data), lspan_status_null_pointer);
    CHECK_STATUS(lspan_attention_merge(c, 2, 3, 4, outputs, NULL, out.data, lse.data), lspan_status_null_pointer);
    CHECK_STATUS(lspan_attention_merge(c, 2, 3, 4, outputs, lses, NULL, lse.data), lspan_status_null_pointer);
    CHECK_STATUS(lspan_attention_merge(c, -1, 3, 4, outputs, lses, out.data, lse.data), lspan_status_bad_shape);
    CHECK_STATUS(lspan_attention_merge(c, 2, -1, 4, outputs, lses, out.data, lse.data), lspan_status_bad_shape);
    CHECK_STATUS(lspan_attention_merge(c, 2, 3, 0, outputs, lses, out.data, lse.data), lspan_status_bad_shape);
    CHECK_STATUS(lspan_attention_merge(c, 2, 3, -4, outputs, lses, out.data, lse.data), lspan_status_bad_shape);
    CHECK_STATUS(lspan_attention_merge(c, INT64_MAX, 3, 4, outputs, lses, out.data, lse.data), lspan_status_overflow);
    CHECK_STATUS(lspan_attention_merge(c, 2, INT64_MAX, 4, outputs, lses, out.data, lse.data), lspan_status_overflow);
    CHECK_STATUS(lspan_attention_merge(c, 2, 3, INT64_MAX, outputs, lses, out.data, lse.data), lspan_status_overflow);
    CHECK_STATUS(
        lspan_attention_merge(c, 2, 3, 4, shifted(outputs, 1), lses, out.data, lse.data), lspan_status_bad_alignment);
    CHECK_STATUS(
        lspan_attention_merge(c, 2, 3, 4, outputs, shifted(lses, 2), out.data, lse.data), lspan_status_bad_alignment);
    CHECK_STATUS(
        lspan_attention_merge(c, 2, 3, 4, outputs, lses, shifted(out.data, 2), lse.data), lspan_status_bad_alignment);
    CHECK_STATUS(
        lspan_attention_merge(c, 2, 3, 4, outputs, lses, out.data, shifted(lse.data, 1)), lspan_status_bad_alignment);
    CHECK(test_is_untouched(out.data, out.bytes) && test_is_untouched(lse.data, lse.bytes));
    CHECK_OK(lspan_attention_merge(c, 2, 0, 4, NULL, NULL, NULL, NULL));
    CHECK_OK(lspan_attention_merge(c, 0, 3, 4, NULL, NULL, out.data, lse.data));
    for (int i = 0; i < 12; i++) CHECK(((float *)out.data)[i] == 0);
    for (int i = 0; i < 3; i++) CHECK(((float *)lse.data)[i] == -INFINITY);
    test_release(&out);
    test_release(&lse);
}

int main(void)
{
    test_kernel(attention_kernel_prefill);
    test_kernel(attention_kernel_decode);
    test_merge();
    return test_finish("attention_contract_test");
}
