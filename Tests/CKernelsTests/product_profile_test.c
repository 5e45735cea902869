/* product_profile_test.c: what the profile counts for products with packed weights. */
#include "product_support.h"

enum { rows = 3, columns = 64 };

static lspan_context *context;

static void expect(
    const lspan_product *product, lspan_block_type type, int64_t bytes, int64_t flops, int64_t exponentials)
{
    lspan_profile_event event;
    lspan_profile_totals totals;
    size_t stored = 0, lost = 0;
    CHECK_OK(lspan_profile_start(context, &event, 1));
    CHECK_OK(product_run(context, product));
    CHECK_OK(lspan_profile_stop(context));
    CHECK_OK(lspan_profile_count(context, &stored, &lost));
    if (!CHECK(stored == 1 && lost == 0)) return;
    CHECK_MESSAGE(
        event.kernel == lspan_profile_kernel_product && event.variant == (int32_t)type && event.bytes == bytes &&
            event.flops == flops && event.exponentials == exponentials,
        "kernel %d of variant %d: %lld bytes, %lld flops, %lld exponentials", (int)event.kernel, (int)event.variant,
        (long long)event.bytes, (long long)event.flops, (long long)event.exponentials);
    CHECK_OK(lspan_profile_read(context, lspan_profile_kernel_product, &totals));
    CHECK(totals.calls == 1 && totals.bytes == bytes && totals.flops == flops && totals.exponentials == exponentials);
}

int main(void)
{
    lspan_context_options options = {1, NULL, NULL, 0};
    CHECK_OK(lspan_context_create(&options, &context));
    /* 5 and 7 rows are padded to 16 when they are packed */
    product_matrix q8 = product_matrix_random(context, lspan_block_type_q8_0, 5, columns, 0);
    product_matrix gate = product_matrix_random(context, lspan_block_type_q8_0, 5, columns, 0);
    product_matrix bf16 = product_matrix_random(context, lspan_block_type_bf16, 7, columns, 0);
    test_tensor x = test_tensor_random(lspan_dtype_f32, rows, 1, columns, test_layout_token_major, 1.0f);
    static float y[rows * 12];
    lspan_product_output outputs[2] = {
        {.weights = q8.packed, .data = y, .row_stride = 5}, {.weights = bf16.packed, .data = y + 15, .row_stride = 7}};
    lspan_product product = {
        .rows = rows, .columns = columns, .input = x.buffer.data, .input_row_stride = columns, .output_count = 1,
        .outputs = outputs};
    enum { q8_bytes = 5 * 2 * 34, bf16_bytes = 7 * columns * 2, input_bytes = rows * columns * 4 };

    test_case("cost of one product");
    expect(&product, lspan_block_type_q8_0, q8_bytes + input_bytes + 15 * 4, 2 * 15 * columns, 0);
    test_case("cost of one that accumulates");
    outputs[0].accumulate = 1;
    expect(&product, lspan_block_type_q8_0, q8_bytes + input_bytes + 15 * 8, 2 * 15 * columns, 0);
    outputs[0].accumulate = 0;
    test_case("cost of two");
    product.output_count = 2;
    expect(
        &product, lspan_block_type_q8_0, q8_bytes + bf16_bytes + input_bytes + 36 * 4, 2 * 36 * columns, 0);
    static const int64_t flops[] = {4, 9, 6};
    for (int i = 0; i < 3; i++) {
        test_case("cost of a gate, activation %d", i);
        outputs[0].gate = gate.packed;
        outputs[0].activation = (lspan_activation)i;
        product.output_count = 1;
        expect(
            &product, lspan_block_type_q8_0, 2 * q8_bytes + input_bytes + 15 * 4, 4 * 15 * columns + 15 * flops[i], 15);
    }
    test_case("cost of no rows");
    product.rows = 0;
    expect(&product, lspan_block_type_q8_0, 0, 0, 0);
    test_case("cost of weights without rows");
    product.rows = rows;
    outputs[0].gate.data = NULL;
    outputs[0].weights.rows = 0;
    expect(&product, lspan_block_type_q8_0, 0, 0, 0);

    test_case("a product without outputs is not recorded");
    lspan_profile_totals totals;
    product.output_count = 0;
    CHECK_OK(lspan_profile_start(context, NULL, 0));
    CHECK_OK(product_run(context, &product));
    CHECK_OK(lspan_profile_stop(context));
    CHECK_OK(lspan_profile_read(context, lspan_profile_kernel_product, &totals));
    CHECK(totals.calls == 0);

    product_matrix_release(&q8);
    product_matrix_release(&gate);
    product_matrix_release(&bf16);
    test_tensor_release(&x);
    lspan_context_destroy(context);
    return test_finish("product_profile_test");
}
