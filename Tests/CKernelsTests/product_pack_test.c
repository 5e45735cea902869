/* product_pack_test.c: packed weights have the promised size, are the same from every context, and hold the values that
 * gguf-py decodes. */
#include "json.h"
#include "product_support.h"

static void check_size(lspan_block_type type, int64_t rows, int64_t columns)
{
    int64_t elements, block_bytes;
    size_t bytes = 0;
    lspan_block_type_layout(type, &elements, &block_bytes);
    test_case("size of %s %lld x %lld", product_type_name(type), (long long)rows, (long long)columns);
    CHECK_OK(lspan_packed_bytes(type, rows, columns, &bytes));
    double blocks = (double)(rows * columns / elements * block_bytes);
    CHECK(bytes % LSPAN_WORKSPACE_ALIGNMENT == 0);
    if (elements == 256) CHECK((double)bytes >= blocks && (double)bytes <= 1.03 * blocks);
    else CHECK((double)bytes == blocks);
}

static void test_sizes(void)
{
    for (size_t t = 0; t < PACKABLE_COUNT; t++) {
        int64_t elements;
        lspan_block_type_layout(packable[t], &elements, NULL);
        int64_t step = elements == 256 ? 256 : 64;
        check_size(packable[t], 32, step);
        check_size(packable[t], 4096, 14 * step);
        check_size(packable[t], 0, step);
    }
}

/* Every context writes the same bytes, all of them: what the memory held before is gone. */
static void test_same_bytes(void)
{
    size_t count;
    const test_context *contexts = test_contexts(&count);
    for (size_t t = 0; t < PACKABLE_COUNT; t++) {
        int64_t elements;
        lspan_block_type_layout(packable[t], &elements, NULL);
        int64_t columns = elements == 1 ? 33 : elements == 256 ? 512 : 3 * elements;
        test_case("packing %s", product_type_name(packable[t]));
        product_matrix first = product_matrix_random(contexts[0].context, packable[t], 100, columns, 1);
        for (size_t i = 1; i < count; i++) {
            test_buffer again = test_allocate(first.memory.bytes, LSPAN_WORKSPACE_ALIGNMENT);
            memset(again.data, (int)(0x11 * i), again.bytes);
            CHECK_OK(lspan_pack_weights(contexts[i].context, &first.weights, again.data, again.bytes));
            CHECK_MESSAGE(
                memcmp(again.data, first.memory.data, again.bytes) == 0, "%s packs otherwise", contexts[i].name);
            test_release(&again);
        }
        product_matrix_release(&first);
    }
}

/* ---- Decoded values -------------------------------------------------------------------------------- */

static char *read_file(const char *name, size_t *size)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/dequant/%s", LSPAN_FIXTURES, name);
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

/* Real blocks as the rows of a matrix: the unit vector of a column, in f32 mode, gives that column of the decoded
 * matrix. */
static void check_columns(lspan_weights weights, const float *expected)
{
    int64_t k = weights.columns, m = weights.rows;
    test_tensor units = test_tensor_make(lspan_dtype_f32, k, 1, k, test_layout_token_major);
    for (int64_t r = 0; r < k; r++) {
        for (int64_t c = 0; c < k; c++) test_set(&units, r, 0, c, r == c);
    }
    size_t count;
    const test_context *contexts = test_contexts(&count);
    product_matrix packed = product_pack(contexts[0].context, weights, (test_buffer){0});
    for (size_t i = 0; i < count; i++) {
        float *got = product_of(contexts[i].context, &units, k, lspan_product_mode_f32, &packed, NULL, 0, NULL);
        int64_t wrong = 0;
        for (int64_t c = 0; c < k; c++) {
            for (int64_t r = 0; r < m; r++) wrong += got[c * m + r] != expected[r * k + c];
        }
        CHECK_MESSAGE(wrong == 0, "%s: %lld values differ from gguf-py's", contexts[i].name, (long long)wrong);
        free(got);
    }
    product_matrix_release(&packed);
    test_tensor_release(&units);
}

static void test_decoded_values(void)
{
    size_t size = 0;
    char *manifest = read_file("dequant.json", &size);
    if (!manifest) return;
    const char *cases = json_member(json_space(manifest), "cases");
    int checked = 0;
    for (long i = 0; i < json_count(cases); i++) {
        const char *a_case = json_item(cases, i), *type = json_member(a_case, "type");
        size_t bytes = 0, raw_size = 0, expected_size = 0;
        lspan_block_type code = (lspan_block_type)json_number(json_member(a_case, "type_id"));
        if (lspan_packed_bytes(code, 0, 0, &bytes) != lspan_status_ok) continue;
        checked++;
        test_case("decoding packed %.*s", (int)(json_skip(type) - type), type);
        const char *names[2] = {
            json_member(json_member(a_case, "raw"), "file"), json_member(json_member(a_case, "expected"), "file")};
        char name[2][64];
        for (int j = 0; j < 2; j++) {
            snprintf(name[j], sizeof name[j], "%.*s", (int)(json_skip(names[j]) - names[j]) - 2, names[j] + 1);
        }
        char *raw = read_file(name[0], &raw_size);
        float *expected = (float *)(void *)read_file(name[1], &expected_size);
        int64_t elements, block_bytes, blocks = (int64_t)json_number(json_member(a_case, "blocks"));
        lspan_block_type_layout(code, &elements, &block_bytes);
        int complete = raw && expected && raw_size == (size_t)(blocks * block_bytes) &&
            expected_size == (size_t)(blocks * elements) * sizeof(float);
        /* rows of one block, or of 32 numbers */
        int64_t columns = elements == 1 ? 32 : elements;
        if (CHECK(complete && blocks * elements % columns == 0)) {
            check_columns((lspan_weights){raw, code, blocks * elements / columns, columns}, expected);
        }
        free(raw);
        free(expected);
    }
    CHECK_MESSAGE(checked == (int)PACKABLE_COUNT, "%d types have real blocks", checked);
    free(manifest);
}

int main(void)
{
    test_sizes();
    test_same_bytes();
    test_decoded_values();
    return test_finish("product_pack_test");
}
