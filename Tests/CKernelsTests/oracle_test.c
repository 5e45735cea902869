/* oracle_test.c: references and kernels against values computed elsewhere: PyTorch in double precision for the
 * kernels, and the gguf package for the block types (Tests/Oracles makes both). */
#include "json.h"
#include "support.h"

/* Results are stored as f32 and come from f64, so a reference in f64 agrees to a few f32 roundings. */
#define REFERENCE_TOLERANCE 1e-6
#define KERNEL_TOLERANCE 1e-5

static char *read_file(const char *folder, const char *name, size_t *size)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s/%s", LSPAN_FIXTURES, folder, name);
    FILE *file = fopen(path, "rb");
    if (!CHECK_MESSAGE(file != NULL, "cannot open %s", path)) return NULL;
    fseek(file, 0, SEEK_END);
    long length = ftell(file);
    rewind(file);
    char *content = test_malloc(length + 1, 1);
    *size = fread(content, 1, (size_t)length, file);
    fclose(file);
    return content;
}

static float *all_floats;
static int64_t all_count;

/* The numbers of one array of a case; NULL, after a failed check, where the manifest points outside the file. */
static const float *array_of(const char *a_case, const char *name, int64_t count)
{
    const char *array = json_member(json_member(a_case, "arrays"), name);
    int64_t offset = (int64_t)json_number(json_member(array, "offset"));
    int64_t stated = (int64_t)json_number(json_member(array, "count"));
    int fits = array && stated == count && offset >= 0 && offset + count <= all_count;
    return CHECK_MESSAGE(fits, "array %s is missing or has the wrong size", name) ? all_floats + offset : NULL;
}

static int64_t parameter(const char *a_case, const char *name)
{
    return (int64_t)json_number(json_member(json_member(a_case, "parameters"), name));
}

/* |got - want| <= tolerance * max(1, largest |want|); infinities and NaN must match. */
static void check_close(const char *what, const double *got, const float *want, int64_t count, double tolerance)
{
    double largest = 1;
    for (int64_t i = 0; i < count; i++) {
        if (isfinite(want[i])) largest = fmax(largest, fabs((double)want[i]));
    }
    for (int64_t i = 0; i < count; i++) {
        double x = (double)want[i];
        int close = isnan(x) ? isnan(got[i]) : got[i] == x || fabs(got[i] - x) <= tolerance * largest;
        if (!CHECK_MESSAGE(close, "%s: element %lld is %.9g, not %.9g", what, (long long)i, got[i], x)) return;
    }
}

static void check_kernel(const char *isa, const float *got, const float *want, int64_t count)
{
    double *wide = test_malloc(count, sizeof *wide);
    for (int64_t i = 0; i < count; i++) wide[i] = (double)got[i];
    check_close(isa, wide, want, count, KERNEL_TOLERANCE);
    free(wide);
}

/* ---- Attention ------------------------------------------------------------------------------------------ */

static test_tensor rounded_tensor(const float *values, int64_t tokens, int64_t heads, int64_t head_dim, lspan_dtype dtype)
{
    test_tensor t = test_tensor_make(dtype, tokens, heads, head_dim, test_layout_token_major);
    for (int64_t i = 0; i < tokens * heads * head_dim; i++) {
        test_set(&t, i / (heads * head_dim), i / head_dim % heads, i % head_dim, values[i]);
    }
    return t;
}

static void run_attention(const lspan_attention *call, int64_t longest, const float *out, const float *lse)
{
    int64_t tokens = call->query_indptr[call->sequences], rows = tokens * call->query_heads;
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        for (int decode = 0; decode <= (longest <= LSPAN_ATTENTION_MAX_DECODE_TOKENS); decode++) {
            lspan_attention a = *call;
            float *got = test_malloc(rows * a.head_dim, sizeof *got), *got_lse = test_malloc(rows, sizeof *got_lse);
            a.output = got;
            a.output_token_stride = a.query_heads * a.head_dim;
            a.output_head_stride = a.head_dim;
            a.log_sum_exp = got_lse;
            size_t bytes = 0;
            const lspan_context *c = contexts[i].context;
            CHECK_OK(
                decode ? lspan_attention_decode_workspace_size(c, &a, &bytes)
                       : lspan_attention_prefill_workspace_size(c, &a, &bytes));
            test_buffer workspace = test_allocate(bytes, LSPAN_WORKSPACE_ALIGNMENT);
            CHECK_OK(
                decode ? lspan_attention_decode(c, &a, workspace.data, bytes)
                       : lspan_attention_prefill(c, &a, workspace.data, bytes));
            check_kernel(contexts[i].name, got, out, rows * a.head_dim);
            check_kernel(contexts[i].name, got_lse, lse, rows);
            test_release(&workspace);
            free(got);
            free(got_lse);
        }
    }
}

static void check_attention(const char *a_case)
{
    const char *parameters = json_member(a_case, "parameters");
    const char *query_lengths = json_member(parameters, "query_lengths"), *key_lengths = json_member(parameters, "key_lengths");
    int64_t query_indptr[17] = {0}, kv_indptr[17] = {0}, longest = 0;
    lspan_attention a = {0};
    a.sequences = json_count(query_lengths);
    if (!CHECK(a.sequences <= 16 && json_count(key_lengths) == a.sequences)) return;
    for (int64_t b = 0; b < a.sequences; b++) {
        int64_t tokens = (int64_t)json_number(json_item(query_lengths, b));
        query_indptr[b + 1] = query_indptr[b] + tokens;
        kv_indptr[b + 1] = kv_indptr[b] + (int64_t)json_number(json_item(key_lengths, b));
        if (tokens > longest) longest = tokens;
    }
    a.query_heads = parameter(a_case, "heads");
    a.kv_heads = parameter(a_case, "kv_heads");
    a.head_dim = parameter(a_case, "head_dim");
    a.query_indptr = query_indptr;
    a.kv_indptr = kv_indptr;
    a.scale = (float)json_number(json_member(parameters, "scale"));
    a.softcap = (float)json_number(json_member(parameters, "softcap"));
    a.causal = (int32_t)parameter(a_case, "causal");
    a.window = parameter(a_case, "window");
    a.sinks = parameter(a_case, "sinks");
    const char *kv = json_member(parameters, "kv");
    lspan_dtype dtype = json_is(kv, "f16") ? lspan_dtype_f16 : json_is(kv, "bf16") ? lspan_dtype_bf16 : lspan_dtype_f32;
    int64_t tokens = query_indptr[a.sequences], keys = kv_indptr[a.sequences], rows = tokens * a.query_heads;
    const float *q = array_of(a_case, "q", rows * a.head_dim), *out = array_of(a_case, "out", rows * a.head_dim);
    const float *k = array_of(a_case, "k", keys * a.kv_heads * a.head_dim), *lse = array_of(a_case, "lse", rows);
    const float *v = array_of(a_case, "v", keys * a.kv_heads * a.head_dim);
    if (!q || !k || !v || !out || !lse) return;

    test_tensor queries = rounded_tensor(q, tokens, a.query_heads, a.head_dim, lspan_dtype_f32);
    test_tensor key_tensor = rounded_tensor(k, keys, a.kv_heads, a.head_dim, dtype);
    test_tensor value_tensor = rounded_tensor(v, keys, a.kv_heads, a.head_dim, dtype);
    a.queries = test_heads(&queries);
    a.keys = test_heads(&key_tensor);
    a.values = test_heads(&value_tensor);
    double *want = test_malloc(rows * a.head_dim, sizeof *want), *want_lse = test_malloc(rows, sizeof *want_lse);
    lspan_reference_attention_f64(&a, want, want_lse);
    check_close("reference", want, out, rows * a.head_dim, REFERENCE_TOLERANCE);
    check_close("reference lse", want_lse, lse, rows, REFERENCE_TOLERANCE);
    run_attention(&a, longest, out, lse);
    test_tensor_release(&queries);
    test_tensor_release(&key_tensor);
    test_tensor_release(&value_tensor);
    free(want);
    free(want_lse);
}

/* ---- Dense kernels ---------------------------------------------------------------------------------------- */

static void check_rope(const char *a_case)
{
    const char *positions_list = json_member(json_member(a_case, "parameters"), "positions");
    int64_t tokens = json_count(positions_list), heads = parameter(a_case, "heads");
    int64_t head_dim = parameter(a_case, "head_dim"), pairs = parameter(a_case, "rotary_dim") / 2;
    int half = json_is(json_member(json_member(a_case, "parameters"), "style"), "half");
    lspan_rope_layout layout = half ? lspan_rope_layout_halves : lspan_rope_layout_interleaved;
    int64_t count = tokens * heads * head_dim;
    const float *x = array_of(a_case, "x", count), *out = array_of(a_case, "out", count);
    const float *frequencies = array_of(a_case, "frequencies", pairs);
    if (!x || !out || !frequencies) return;
    int64_t *positions = test_malloc(tokens, sizeof *positions);
    for (int64_t t = 0; t < tokens; t++) positions[t] = (int64_t)json_number(json_item(positions_list, t));
    float *cosine = test_malloc(tokens * pairs, sizeof *cosine), *sine = test_malloc(tokens * pairs, sizeof *sine);
    float *got = test_malloc(count, sizeof *got);
    double *want = test_malloc(count, sizeof *want);
    CHECK_OK(lspan_rope_table(tokens, positions, pairs, frequencies, cosine, sine));
    lspan_heads input = {x, lspan_dtype_f32, heads * head_dim, head_dim};
    lspan_heads_out output = {got, lspan_dtype_f32, heads * head_dim, head_dim};
    lspan_reference_rope_f64(layout, tokens, heads, head_dim, pairs, cosine, sine, input, want);
    check_close("reference", want, out, count, REFERENCE_TOLERANCE);
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        CHECK_OK(lspan_rope(contexts[i].context, layout, tokens, heads, head_dim, pairs, cosine, sine, input, output));
        check_kernel(contexts[i].name, got, out, count);
    }
    free(positions);
    free(cosine);
    free(sine);
    free(got);
    free(want);
}

static void check_norm(const char *a_case, int layer)
{
    int64_t rows = parameter(a_case, "rows"), columns = parameter(a_case, "columns"), count = rows * columns;
    float epsilon = (float)json_number(json_member(json_member(a_case, "parameters"), "eps"));
    const float *x = array_of(a_case, "x", count), *weight = array_of(a_case, "weight", columns);
    const float *bias = layer ? array_of(a_case, "bias", columns) : NULL, *out = array_of(a_case, "out", count);
    if (!x || !weight || !out || (layer && !bias)) return;
    double *want = test_malloc(count, sizeof *want);
    float *got = test_malloc(count, sizeof *got);
    lspan_matrix input = {x, lspan_dtype_f32, columns};
    lspan_matrix_out output = {got, lspan_dtype_f32, columns};
    if (layer) {
        lspan_reference_layer_norm_f64(rows, columns, input, weight, bias, epsilon, want);
    } else {
        lspan_reference_rms_norm_f64(rows, columns, input, weight, epsilon, want);
    }
    check_close("reference", want, out, count, REFERENCE_TOLERANCE);
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        const lspan_context *c = contexts[i].context;
        CHECK_OK(
            layer ? lspan_layer_norm(c, rows, columns, input, weight, bias, epsilon, output)
                  : lspan_rms_norm(c, rows, columns, input, weight, epsilon, output));
        check_kernel(contexts[i].name, got, out, count);
    }
    free(want);
    free(got);
}

static void check_activation(const char *a_case, lspan_activation activation)
{
    int64_t rows = parameter(a_case, "rows"), columns = parameter(a_case, "columns"), count = rows * columns;
    const float *gate = array_of(a_case, "gate", count), *up = array_of(a_case, "up", count);
    const float *out = array_of(a_case, "out", count);
    if (!gate || !up || !out) return;
    double *want = test_malloc(count, sizeof *want);
    float *got = test_malloc(count, sizeof *got);
    lspan_matrix g = {gate, lspan_dtype_f32, columns}, u = {up, lspan_dtype_f32, columns};
    lspan_matrix_out output = {got, lspan_dtype_f32, columns};
    lspan_reference_gated_activation_f64(activation, rows, columns, g, u, want);
    check_close("reference", want, out, count, REFERENCE_TOLERANCE);
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        CHECK_OK(lspan_gated_activation(contexts[i].context, activation, rows, columns, g, u, output));
        check_kernel(contexts[i].name, got, out, count);
    }
    free(want);
    free(got);
}

static void check_loss(const char *a_case)
{
    const char *target_list = json_member(json_member(a_case, "parameters"), "targets");
    int64_t rows = parameter(a_case, "rows"), vocabulary = parameter(a_case, "vocab");
    const float *logits = array_of(a_case, "logits", rows * vocabulary);
    const float *nll = array_of(a_case, "nll", rows), *entropy = array_of(a_case, "entropy", rows);
    if (!logits || !nll || !entropy) return;
    int32_t *targets = test_malloc(rows, sizeof *targets);
    for (int64_t r = 0; r < rows; r++) targets[r] = (int32_t)json_number(json_item(target_list, r));
    double *want_n = test_malloc(rows, sizeof *want_n), *want_e = test_malloc(rows, sizeof *want_e);
    float *got_n = test_malloc(rows, sizeof *got_n), *got_e = test_malloc(rows, sizeof *got_e);
    lspan_matrix input = {logits, lspan_dtype_f32, vocabulary};
    lspan_reference_log_softmax_gather_f64(rows, vocabulary, input, targets, want_n, want_e);
    check_close("reference nll", want_n, nll, rows, REFERENCE_TOLERANCE);
    check_close("reference entropy", want_e, entropy, rows, REFERENCE_TOLERANCE);
    size_t contexts_count;
    const test_context *contexts = test_contexts(&contexts_count);
    for (size_t i = 0; i < contexts_count; i++) {
        CHECK_OK(lspan_log_softmax_gather(contexts[i].context, rows, vocabulary, input, targets, got_n, got_e));
        check_kernel(contexts[i].name, got_n, nll, rows);
        check_kernel(contexts[i].name, got_e, entropy, rows);
    }
    free(targets);
    free(want_n);
    free(want_e);
    free(got_n);
    free(got_e);
}

static void test_kernel_cases(void)
{
    size_t size = 0, bytes = 0;
    char *manifest = read_file("kernels", "cases.json", &size);
    all_floats = (float *)(void *)read_file("kernels", "cases.f32", &bytes);
    all_count = (int64_t)(bytes / sizeof(float));
    if (!manifest || !all_floats) return;
    const char *cases = json_member(json_space(manifest), "cases");
    CHECK_MESSAGE(json_count(cases) > 0, "the manifest has no cases");
    for (long i = 0; i < json_count(cases); i++) {
        const char *a_case = json_item(cases, i), *kernel = json_member(a_case, "kernel");
        const char *name = json_member(a_case, "name");
        test_case("oracle %.*s %.*s", (int)(json_skip(kernel) - kernel), kernel, (int)(json_skip(name) - name), name);
        if (json_is(kernel, "attention")) check_attention(a_case);
        else if (json_is(kernel, "rope")) check_rope(a_case);
        else if (json_is(kernel, "rms_norm")) check_norm(a_case, 0);
        else if (json_is(kernel, "layer_norm")) check_norm(a_case, 1);
        else if (json_is(kernel, "silu_mul")) check_activation(a_case, lspan_activation_silu);
        else if (json_is(kernel, "gelu_tanh_mul")) check_activation(a_case, lspan_activation_gelu_tanh);
        else if (json_is(kernel, "gelu_erf_mul")) check_activation(a_case, lspan_activation_gelu_erf);
        else if (json_is(kernel, "nll_entropy")) check_loss(a_case);
        else CHECK_MESSAGE(0, "no test for this kernel");
    }
    free(manifest);
    free(all_floats);
}

/* ---- Block types ------------------------------------------------------------------------------------------ */

static void check_block_type(const char *a_case)
{
    lspan_weights weights = {0};
    int64_t elements, block_bytes, blocks = (int64_t)json_number(json_member(a_case, "blocks"));
    weights.type = (lspan_block_type)json_number(json_member(a_case, "type_id"));
    lspan_block_type_layout(weights.type, &elements, &block_bytes);
    CHECK(elements == (int64_t)json_number(json_member(a_case, "block_elements")));
    CHECK(block_bytes == (int64_t)json_number(json_member(a_case, "block_bytes")));
    weights.rows = 1;
    weights.columns = blocks * elements;
    const char *raw_name = json_member(json_member(a_case, "raw"), "file");
    const char *expected_name = json_member(json_member(a_case, "expected"), "file");
    char name[64];
    size_t raw_size = 0, expected_size = 0;
    snprintf(name, sizeof name, "%.*s", (int)(json_skip(raw_name) - raw_name) - 2, raw_name + 1);
    char *raw = read_file("dequant", name, &raw_size);
    snprintf(name, sizeof name, "%.*s", (int)(json_skip(expected_name) - expected_name) - 2, expected_name + 1);
    float *expected = (float *)(void *)read_file("dequant", name, &expected_size);
    int complete = raw && expected && raw_size == (size_t)(blocks * block_bytes) &&
        expected_size == (size_t)weights.columns * sizeof(float);
    if (CHECK(complete)) {
        weights.data = raw;
        double *want = test_malloc(weights.columns, sizeof *want);
        float *got = test_malloc(weights.columns, sizeof *got);
        lspan_reference_dequantize_f64(&weights, want);
        check_close("reference", want, expected, weights.columns, 1e-7);
        size_t contexts_count;
        const test_context *contexts = test_contexts(&contexts_count);
        for (size_t i = 0; i < contexts_count; i++) {
            CHECK_OK(lspan_dequantize(contexts[i].context, &weights, got));
            check_kernel(contexts[i].name, got, expected, weights.columns);
        }
        free(want);
        free(got);
    }
    free(raw);
    free(expected);
}

static void test_block_types(void)
{
    size_t size = 0;
    char *manifest = read_file("dequant", "dequant.json", &size);
    if (!manifest) return;
    const char *cases = json_member(json_space(manifest), "cases");
    CHECK_MESSAGE(json_count(cases) == 10, "ten block types are supported");
    for (long i = 0; i < json_count(cases); i++) {
        const char *a_case = json_item(cases, i), *type = json_member(a_case, "type");
        test_case("oracle dequantize %.*s", (int)(json_skip(type) - type), type);
        check_block_type(a_case);
    }
    free(manifest);
}

int main(void)
{
    test_kernel_cases();
    test_block_types();
    return test_finish("oracle_test");
}
