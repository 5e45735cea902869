/* product_edges_test.c: products where arithmetic could go wrong: extreme quants and scales, tiny and infinite inputs,
 * and no rows at all. */
#include "product_support.h"

static const test_context *contexts;
static size_t context_count;

static int64_t least_columns(lspan_block_type type)
{
    int64_t elements;
    lspan_block_type_layout(type, &elements, NULL);
    return elements == 1 ? 70 : elements == 256 ? 256 : 3 * elements;
}

/* Checks the first `modes` modes and every variant with one thread. */
static void check_against_reference(const product_matrix *weights, const test_tensor *x, int modes)
{
    for (int mode = 0; mode < modes; mode++) {
        for (size_t i = 0; i < context_count; i += TEST_THREAD_COUNTS) {
            lspan_reference_rounding rounding =
                product_rounding(contexts[i].isa, weights->weights.type, (lspan_product_mode)mode);
            product_expectation e = product_expect(x, rounding, weights, NULL, 0, NULL);
            float *got =
                product_of(contexts[i].context, x, x->tokens, (lspan_product_mode)mode, weights, NULL, 0, NULL);
            product_check(contexts[i].name, rounding, got, &e);
            free(got);
            product_expectation_free(&e);
        }
    }
}

/* ---- Extreme quants -------------------------------------------------------------------------------- */

/* Blocks with every quant byte the same and scales at their largest magnitudes: sums of pairs of products leave 16 bits
 * where they are kept in 16. */
static lspan_weights extreme_weights(
    lspan_block_type type, int64_t rows, int64_t columns, uint8_t quants, test_buffer *buffer)
{
    int64_t elements, bytes;
    lspan_block_type_layout(type, &elements, &bytes);
    lspan_weights weights = random_weights(type, rows, columns, 0, buffer);
    for (int64_t b = 0; b < rows * columns / elements; b++) {
        uint8_t *block = (uint8_t *)buffer->data + b * bytes;
        switch (type) {
        case lspan_block_type_q8_0:
        case lspan_block_type_q4_0:
            memset(block + 2, quants, (size_t)bytes - 2);
            break;
        case lspan_block_type_q4_1:
            memset(block + 4, quants, (size_t)bytes - 4);
            break;
        case lspan_block_type_q4_k:
            memset(block + 4, quants, (size_t)bytes - 4);
            break;
        default:
            /* bits of quants, then scales of -128 and 127 in turn */
            memset(block, quants, 192);
            for (int i = 0; i < 16; i++) block[192 + i] = (b + i) % 2 ? 0x80 : 0x7F;
            break;
        }
    }
    return weights;
}

static void test_extreme_quants(void)
{
    static const lspan_block_type types[] = {
        lspan_block_type_q4_0, lspan_block_type_q4_1, lspan_block_type_q8_0, lspan_block_type_q4_k,
        lspan_block_type_q6_k};
    /* as int8 0, -1, -128, 127; as nibbles 0, 15, 0 and 8, 15 and 7 */
    static const uint8_t fills[] = {0x00, 0xFF, 0x80, 0x7F};
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        for (size_t f = 0; f < sizeof fills / sizeof fills[0]; f++) {
            /* rows of the largest input, of the least, of both in turn by one and by two, and one almost flat */
            test_tensor x = test_tensor_make(lspan_dtype_f32, 5, 1, 512, test_layout_token_major);
            for (int64_t c = 0; c < 512; c++) {
                test_set(&x, 0, 0, c, 3.0f);
                test_set(&x, 1, 0, c, -3.0f);
                test_set(&x, 2, 0, c, c % 2 ? -3.0f : 3.0f);
                test_set(&x, 3, 0, c, c / 2 % 2 ? -3.0f : 3.0f);
                test_set(&x, 4, 0, c, c % 32 == 31 ? -3.0f : 2.99f);
            }
            test_case("%s with all quants 0x%02X", product_type_name(types[t]), fills[f]);
            test_buffer blocks;
            lspan_weights w = extreme_weights(types[t], 18, 512, fills[f], &blocks);
            product_matrix weights = product_pack(contexts[0].context, w, blocks);
            /* in f32 mode the roundings of a sum of equal terms are no random walk */
            check_against_reference(&weights, &x, 1);
            product_matrix_release(&weights);
            test_tensor_release(&x);
        }
    }
}

/* ---- Extreme scales -------------------------------------------------------------------------------- */

/* Each row of blocks has one of these for a scale, and for a minimum. */
static void test_extreme_scales(void)
{
    /* 0, -0, the least and the largest subnormal, the least normal, the largest, 1 */
    static const uint16_t scales[] = {0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00};
    enum { scale_count = sizeof scales / sizeof scales[0] };
    for (size_t t = 0; t < PACKABLE_COUNT; t++) {
        lspan_block_type type = packable[t];
        int64_t elements, bytes, columns = 512;
        lspan_block_type_layout(type, &elements, &bytes);
        if (elements == 1) continue;
        test_case("%s with extreme scales", product_type_name(type));
        test_buffer blocks;
        lspan_weights w = random_weights(type, scale_count * scale_count, columns, 0, &blocks);
        int64_t row_blocks = columns / elements, at = type == lspan_block_type_q6_k ? 208 : 0;
        for (int64_t b = 0; b < w.rows * row_blocks; b++) {
            int64_t row = b / row_blocks;
            uint8_t *block = (uint8_t *)blocks.data + b * bytes;
            memcpy(block + at, &scales[row % scale_count], 2);
            int minimum = type == lspan_block_type_q4_1 || type == lspan_block_type_q4_k;
            if (minimum) memcpy(block + 2, &scales[row / scale_count], 2);
        }
        product_matrix weights = product_pack(contexts[0].context, w, blocks);
        test_tensor x = test_tensor_random(lspan_dtype_f32, 11, 1, columns, test_layout_token_major, 1.0f);
        check_against_reference(&weights, &x, 2);
        product_matrix_release(&weights);
        test_tensor_release(&x);
    }
}

/* ---- Inputs ---------------------------------------------------------------------------------------- */

/* A row of zeros gives zeros, also where a sum of positive terms would hide a wrong scale. */
static void test_zero_inputs(void)
{
    for (size_t t = 0; t < PACKABLE_COUNT; t++) {
        int64_t k = least_columns(packable[t]);
        test_case("zero inputs, %s", product_type_name(packable[t]));
        product_matrix weights = product_matrix_random(contexts[0].context, packable[t], 20, k, 1);
        test_tensor x = test_tensor_random(lspan_dtype_f32, 9, 1, k, test_layout_padded_token_major, 1.0f);
        for (int64_t c = 0; c < k; c++) {
            test_set(&x, 0, 0, c, 0);
            test_set(&x, 4, 0, c, -0.0f);
        }
        for (int mode = 0; mode < 2; mode++) {
            for (size_t i = 0; i < context_count; i += TEST_THREAD_COUNTS) {
                float *got = product_of(contexts[i].context, &x, 9, (lspan_product_mode)mode, &weights, NULL, 0, NULL);
                int zero = 1;
                for (int64_t m = 0; m < 20; m++) zero = zero && got[m] == 0 && got[4 * 20 + m] == 0;
                CHECK_MESSAGE(zero, "%s mode%d: a row of zeros gives something else", contexts[i].name, mode);
                free(got);
            }
        }
        product_matrix_release(&weights);
        test_tensor_release(&x);
    }
}

/* Inputs so small that scales of 8 bits, or bf16's subnormals, may take them for zeros: outputs are finite, and off by
 * no more than the inputs' sizes allow. */
static void test_tiny_inputs(void)
{
    static const float sizes[] = {1e-30f, 2e-36f, 1e-36f, 1e-38f, 1e-41f, 1.4e-45f};
    enum { rows = sizeof sizes / sizeof sizes[0], m = 20 };
    for (size_t t = 0; t < PACKABLE_COUNT; t++) {
        int64_t k = least_columns(packable[t]);
        test_case("tiny inputs, %s", product_type_name(packable[t]));
        product_matrix weights = product_matrix_random(contexts[0].context, packable[t], m, k, 0);
        double *magnitudes = product_magnitudes(&weights.weights), want[rows * m], bounds[rows * m];
        test_tensor x = test_tensor_random(lspan_dtype_f32, rows, 1, k, test_layout_token_major, 1.0f);
        for (int64_t r = 0; r < rows; r++) {
            for (int64_t c = 0; c < k; c++) test_set(&x, r, 0, c, sizes[r] * (float)(2 * test_random_unit() - 1));
            for (int64_t i = 0; i < m; i++) {
                bounds[r * m + i] = 0x1p-126 * (double)k;
                for (int64_t c = 0; c < k; c++) bounds[r * m + i] += (double)sizes[r] * magnitudes[i * k + c];
            }
        }
        lspan_reference_product call = {
            .rows = rows, .input = x.buffer.data, .input_row_stride = x.token_stride, .weights = weights.weights};
        lspan_reference_product_f64(&call, want);
        for (int mode = 0; mode < 2; mode++) {
            for (size_t i = 0; i < context_count; i += TEST_THREAD_COUNTS) {
                float *got =
                    product_of(contexts[i].context, &x, rows, (lspan_product_mode)mode, &weights, NULL, 0, NULL);
                test_check_bounds("tiny inputs", contexts[i].name, got, want, bounds, rows * m);
                free(got);
            }
        }
        free(magnitudes);
        product_matrix_release(&weights);
        test_tensor_release(&x);
    }
}

/* An input that is not finite gives no finite output in its row, as its products are infinite or NaN, and leaves the
 * bits of the other rows as they are. */
static void test_inputs_not_finite(void)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    enum { rows = 17, m = 35 };
    for (size_t t = 0; t < PACKABLE_COUNT; t++) {
        int64_t k = least_columns(packable[t]);
        for (int b = 0; b < 3; b++) {
            test_case("an input of %g, %s", (double)bad[b], product_type_name(packable[t]));
            product_matrix weights = product_matrix_random(contexts[0].context, packable[t], m, k, 0);
            test_tensor x = test_tensor_random(lspan_dtype_f32, rows, 1, k, test_layout_token_major, 1.0f);
            test_tensor broken = test_tensor_copy(&x);
            int64_t row = test_random_int(0, rows - 1);
            test_set(&broken, row, 0, test_random_int(0, k - 1), bad[b]);
            for (int mode = 0; mode < 2; mode++) {
                lspan_product_mode as = (lspan_product_mode)mode;
                for (size_t i = 0; i < context_count; i += TEST_THREAD_COUNTS) {
                    float *want = product_of(contexts[i].context, &x, rows, as, &weights, NULL, 0, NULL);
                    float *got = product_of(contexts[i].context, &broken, rows, as, &weights, NULL, 0, NULL);
                    int same = 1, finite = 0;
                    for (int64_t r = 0; r < rows; r++) {
                        if (r != row) same = same && memcmp(got + r * m, want + r * m, m * sizeof *got) == 0;
                        for (int64_t c = 0; c < m && r == row; c++) finite += isfinite(got[r * m + c]);
                    }
                    CHECK_MESSAGE(same, "%s mode%d: another row is touched by it", contexts[i].name, mode);
                    CHECK_MESSAGE(finite == 0, "%s mode%d: %d outputs are finite", contexts[i].name, mode, finite);
                    free(want);
                    free(got);
                }
            }
            product_matrix_release(&weights);
            test_tensor_release(&x);
            test_tensor_release(&broken);
        }
    }
}

/* A row of weights that is NaN, or infinite, keeps that to its own outputs. */
static void test_weights_not_finite(void)
{
    enum { rows = 9, m = 35 };
    for (size_t t = 0; t < PACKABLE_COUNT; t++) {
        lspan_block_type type = packable[t];
        int64_t elements, bytes, k = least_columns(type);
        lspan_block_type_layout(type, &elements, &bytes);
        for (int b = 0; b < 2; b++) {
            test_case("a weight that is %s, %s", b ? "infinite" : "NaN", product_type_name(type));
            product_matrix weights = product_matrix_random(contexts[0].context, type, m, k, 0);
            test_tensor x = test_tensor_random(lspan_dtype_f32, rows, 1, k, test_layout_token_major, 1.0f);
            float *want[2 * 16 * TEST_THREAD_COUNTS];
            for (size_t i = 0; i < 2 * context_count; i += TEST_THREAD_COUNTS) {
                lspan_product_mode mode = (lspan_product_mode)(i >= context_count);
                want[i] = product_of(contexts[i % context_count].context, &x, rows, mode, &weights, NULL, 0, NULL);
            }
            int64_t row = test_random_int(0, m - 1), block = test_random_int(0, k / elements - 1);
            uint8_t *at = (uint8_t *)weights.blocks.data + (row * (k / elements) + block) * bytes;
            const float number = b ? INFINITY : NAN;
            uint16_t half = lspan_reference_to_f16((double)number);
            if (type == lspan_block_type_bf16) half = lspan_reference_to_bf16((double)number);
            if (type == lspan_block_type_q6_k) at += 208;
            if (type == lspan_block_type_f32) memcpy(at, &number, 4);
            else memcpy(at, &half, 2);
            CHECK_OK(
                lspan_pack_weights(contexts[0].context, &weights.weights, weights.memory.data, weights.memory.bytes));
            for (size_t i = 0; i < 2 * context_count; i += TEST_THREAD_COUNTS) {
                const test_context *c = &contexts[i % context_count];
                lspan_product_mode mode = (lspan_product_mode)(i >= context_count);
                float *got = product_of(c->context, &x, rows, mode, &weights, NULL, 0, NULL);
                int same = 1, finite = 0;
                for (int64_t j = 0; j < rows * m; j++) {
                    if (j % m == row) finite += isfinite(got[j]);
                    else same = same && memcmp(&got[j], &want[i][j], sizeof *got) == 0;
                }
                CHECK_MESSAGE(same, "%s: another output is touched by it", c->name);
                CHECK_MESSAGE(finite == 0, "%s: %d of its outputs are finite", c->name, finite);
                free(got);
                free(want[i]);
            }
            product_matrix_release(&weights);
            test_tensor_release(&x);
        }
    }
}

/* ---- Nothing ---------------------------------------------------------------------------------------- */

static void test_empty(void)
{
    for (size_t i = 0; i < context_count; i++) {
        test_case("no rows and no outputs, %s", contexts[i].name);
        product_matrix weights = product_matrix_random(contexts[i].context, lspan_block_type_q4_k, 20, 256, 0);
        product_matrix none = product_matrix_random(contexts[i].context, lspan_block_type_q4_k, 0, 256, 0);
        CHECK(none.memory.bytes == 0);
        test_tensor x = test_tensor_random(lspan_dtype_f32, 3, 1, 256, test_layout_token_major, 1.0f);
        lspan_product_output output = {.weights = weights.packed, .row_stride = 20};
        lspan_product product = {.columns = 256, .input_row_stride = 256, .output_count = 1, .outputs = &output};
        CHECK_OK(product_run(contexts[i].context, &product));
        product.rows = 3;
        product.input = x.buffer.data;
        output.weights = none.packed;
        output.weights.data = NULL;
        CHECK_OK(product_run(contexts[i].context, &product));
        product.output_count = 0;
        product.outputs = NULL;
        CHECK_OK(product_run(contexts[i].context, &product));
        product_matrix_release(&weights);
        product_matrix_release(&none);
        test_tensor_release(&x);
    }
}

int main(void)
{
    contexts = test_contexts(&context_count);
    test_extreme_quants();
    test_extreme_scales();
    test_zero_inputs();
    test_tiny_inputs();
    test_inputs_not_finite();
    test_weights_not_finite();
    test_empty();
    return test_finish("product_edges_test");
}
