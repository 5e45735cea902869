/* product_support.h: packed weights, running products, and how exact they must be.
 *
 * A product of n numbers in f32 is off by the roundings of its n partial sums, a random walk with a standard deviation
 * of about 0.4 eps times the root of the sum of their squares, eps = 2^-24. In whatever order terms t_k are added, a
 * partial sum's square is about sum t_k^2 + sum^2 at most, so five deviations are 2 eps walk, where walk^2 =
 * n (sum t_k^2 + sum^2). They are always granted, because the straightforward version may be lucky in one output, and
 * beside them two eps of the terms' magnitudes, in which the roundings of decoded weights, scales and products are. So,
 * for each output:
 *
 *     |y - want| <= 2 |simple - want| + 2 eps (walk + sum |x_k| |w_k|)
 *
 * where |w_k| of the types with minima is |d q| + |m|, as these are multiplied one by one.
 *   f32 mode, and f32 and f16: want is the product of the inputs as they are.
 *   native mode, q types: integer sums of 32 products are exact, so the same holds where want is the product of rounded
 *     inputs. Whether an input within 2^-14 of the middle between two quants goes up or down depends on how it is
 *     divided by the scale; for each of those a step times |w_k| is added. Against the product of inputs as they are,
 *     each is off by half a step, so |y - want| also stays below that plus sum |w_k| step_k / 2.
 *   native mode, bf16, where the variant rounds inputs: the same with a step of 2^-7 |x_k| at most, half of which is
 *     the rounding. The instruction adds pairs in an order of its own and takes subnormals for zeros, for which
 *     2^-125 (n + sum |w_k|) is added.
 *   a gate: activation(g) u is off by at most 1.13 dg |u| + |activation(g)| du + 1.13 dg du, the slopes of the
 *     activations being below 1.13, and by the activation's own rounding, of which 16 eps are granted.
 */
#ifndef LSPAN_TEST_PRODUCT_SUPPORT_H
#define LSPAN_TEST_PRODUCT_SUPPORT_H

#include "weights_support.h"

static const lspan_block_type packable[] = {
    lspan_block_type_f32,  lspan_block_type_f16,  lspan_block_type_bf16, lspan_block_type_q4_0,
    lspan_block_type_q4_1, lspan_block_type_q8_0, lspan_block_type_q4_k, lspan_block_type_q6_k};
#define PACKABLE_COUNT (sizeof packable / sizeof packable[0])

/* ---- Packed weights -------------------------------------------------------------------------------- */

typedef struct product_matrix {
    lspan_weights weights;
    lspan_packed_weights packed;
    test_buffer blocks, memory;
} product_matrix;

static inline product_matrix product_pack(const lspan_context *context, lspan_weights weights, test_buffer blocks)
{
    product_matrix m = {.weights = weights, .blocks = blocks};
    size_t bytes = 0;
    CHECK_OK(lspan_packed_bytes(weights.type, weights.rows, weights.columns, &bytes));
    m.memory = test_allocate(bytes, LSPAN_WORKSPACE_ALIGNMENT);
    CHECK_OK(lspan_pack_weights(context, &weights, m.memory.data, bytes));
    m.packed = (lspan_packed_weights){m.memory.data, weights.type, weights.rows, weights.columns};
    return m;
}

static inline product_matrix product_matrix_random(
    const lspan_context *context, lspan_block_type type, int64_t rows, int64_t columns, int wild)
{
    test_buffer blocks;
    lspan_weights weights = random_weights(type, rows, columns, wild, &blocks);
    return product_pack(context, weights, blocks);
}

static inline void product_matrix_release(product_matrix *m)
{
    test_release(&m->blocks);
    test_release(&m->memory);
}

/* ---- Running --------------------------------------------------------------------------------------- */

/* Runs with a workspace of exactly the bytes asked for. */
static inline lspan_status product_run(const lspan_context *context, const lspan_product *product)
{
    size_t bytes = 0;
    CHECK_OK(lspan_product_workspace_size(context, product, &bytes));
    test_buffer workspace = test_allocate(bytes, LSPAN_WORKSPACE_ALIGNMENT);
    lspan_status status = lspan_product_run(context, product, workspace.data, bytes);
    test_release(&workspace);
    return status;
}

/* The first rows of a matrix, in memory and with a stride of their own. */
static inline test_tensor product_first_rows(const test_tensor *all, int64_t rows)
{
    test_tensor some = test_tensor_make(lspan_dtype_f32, rows, 1, all->columns, test_random_layout());
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < all->columns; c++) test_set(&some, r, 0, c, test_get(all, r, 0, c));
    }
    return some;
}

/* One product of the first rows of x; `initial` NULL without accumulate, `gate` NULL without one. Returns a contiguous
 * copy of the output; free() it. */
static inline float *product_of(
    const lspan_context *context, const test_tensor *x, int64_t rows, lspan_product_mode mode,
    const product_matrix *weights, const product_matrix *gate, lspan_activation activation, const test_tensor *initial)
{
    test_tensor input = product_first_rows(x, rows), y;
    if (initial) y = product_first_rows(initial, rows);
    else y = test_tensor_make(lspan_dtype_f32, rows, 1, weights->weights.rows, test_random_layout());
    lspan_product_output output = {
        .weights = weights->packed, .activation = activation, .accumulate = initial != NULL, .data = y.buffer.data,
        .row_stride = y.token_stride};
    if (gate) output.gate = gate->packed;
    lspan_product product = {
        .rows = rows, .columns = weights->weights.columns, .input = input.buffer.data,
        .input_row_stride = input.token_stride, .mode = mode, .output_count = 1, .outputs = &output};
    CHECK_OK(product_run(context, &product));
    float *got = test_gather(&y);
    test_check_gaps(&y);
    test_tensor_release(&input);
    test_tensor_release(&y);
    return got;
}

/* ---- What is allowed ------------------------------------------------------------------------------- */

static inline lspan_reference_rounding product_rounding(const char *isa, lspan_block_type type, lspan_product_mode mode)
{
    if (mode == lspan_product_mode_f32 || type == lspan_block_type_f32 || type == lspan_block_type_f16) {
        return lspan_reference_rounding_none;
    }
    if (type != lspan_block_type_bf16) return lspan_reference_rounding_8bit;
    return strstr(isa, "bf16") ? lspan_reference_rounding_bf16 : lspan_reference_rounding_none;
}

/* |w_k| of all weights: those of blocks whose scale and minimum have lost their signs. */
static inline double *product_magnitudes(const lspan_weights *weights)
{
    int64_t elements, bytes, count = weights->rows * weights->columns;
    lspan_block_type_layout(weights->type, &elements, &bytes);
    uint8_t *blocks = test_malloc(count / elements * bytes, 1);
    memcpy(blocks, weights->data, (size_t)(count / elements * bytes));
    int minima = weights->type == lspan_block_type_q4_1 || weights->type == lspan_block_type_q4_k;
    for (int64_t b = 0; b < count / elements && minima; b++) {
        uint8_t *scale = blocks + b * bytes + 1, *minimum = scale + 2;
        *scale &= 0x7F;
        *minimum &= 0x7F;
        /* which q4_k subtracts */
        if (weights->type == lspan_block_type_q4_k) *minimum |= 0x80;
    }
    lspan_weights positive = *weights;
    positive.data = blocks;
    double *magnitudes = test_malloc(count, sizeof *magnitudes);
    lspan_reference_dequantize_f64(&positive, magnitudes);
    for (int64_t i = 0; i < count; i++) magnitudes[i] = fabs(magnitudes[i]);
    free(blocks);
    return magnitudes;
}

/* Sums [R, M] of a product and by how much they may be off; half steps of the inputs' rounding apart. */
typedef struct product_sums {
    double *sums, *floors, *half_steps;
} product_sums;

static inline product_sums product_sums_of(
    const lspan_weights *weights, const test_tensor *x, lspan_reference_rounding rounding)
{
    int64_t rows = x->tokens, m = weights->rows, n = weights->columns;
    product_sums s = {
        test_malloc(rows * m, sizeof(double)), test_malloc(rows * m, sizeof(double)),
        test_malloc(rows * m, sizeof(double))};
    double *w = test_malloc(m * n, sizeof *w), *magnitudes = product_magnitudes(weights);
    double *rounded = test_malloc(n, sizeof *rounded), *steps = test_malloc(n, sizeof *steps);
    lspan_reference_dequantize_f64(weights, w);
    for (int64_t r = 0; r < rows; r++) {
        const float *input = (const float *)x->buffer.data + r * x->token_stride;
        lspan_reference_round_inputs(rounding, input, n, rounded, steps);
        for (int64_t i = 0; i < m; i++) {
            double sum = 0, squares = 0, terms = 0, sizes = 0, ties = 0, half_steps = 0;
            for (int64_t k = 0; k < n; k++) {
                double weight = w[i * n + k], size = magnitudes[i * n + k];
                double quant = steps[k] > 0 ? fabs((double)input[k]) / steps[k] : 0;
                sum += rounded[k] * weight;
                double term = fabs(rounded[k]) * size;
                squares += term * term;
                terms += term;
                sizes += size;
                half_steps += fabs(weight) * steps[k] / 2;
                if (rounding == lspan_reference_rounding_8bit && fabs(quant - floor(quant) - 0.5) < 0x1p-14) {
                    ties += fabs(weight) * steps[k];
                }
            }
            s.sums[r * m + i] = sum;
            double walk = sqrt((double)n * (squares + sum * sum));
            s.floors[r * m + i] = 0x1p-23 * (walk + terms) + ties + 0x1p-125 * ((double)n + sizes);
            s.half_steps[r * m + i] = half_steps * (1 + 0x1p-10);
        }
    }
    free(w);
    free(magnitudes);
    free(rounded);
    free(steps);
    return s;
}

static inline void product_sums_free(product_sums *s)
{
    free(s->sums);
    free(s->floors);
    free(s->half_steps);
}

/* What a call should give and how far off it may be, for inputs rounded like the call's, and the same for inputs as
 * they are; all [R, M]. */
typedef struct product_expectation {
    double *want, *bounds, *want_unrounded, *bounds_unrounded;
    int64_t count;
} product_expectation;

static inline product_expectation product_expect(
    const test_tensor *x, lspan_reference_rounding rounding, const product_matrix *weights, const product_matrix *gate,
    lspan_activation activation, const test_tensor *initial)
{
    int64_t count = x->tokens * weights->weights.rows, m = weights->weights.rows;
    product_expectation e = {
        test_malloc(count, sizeof(double)), test_malloc(count, sizeof(double)), test_malloc(count, sizeof(double)),
        test_malloc(count, sizeof(double)), count};
    lspan_reference_product call = {
        .rows = x->tokens, .input = x->buffer.data, .input_row_stride = x->token_stride, .rounding = rounding,
        .weights = weights->weights, .activation = activation};
    if (gate) call.gate = gate->weights;
    if (initial) {
        call.initial = initial->buffer.data;
        call.initial_row_stride = initial->token_stride;
    }
    float *simple = test_malloc(count, sizeof *simple);
    lspan_reference_product_f64(&call, e.want);
    lspan_reference_product_f32(&call, simple);
    call.rounding = lspan_reference_rounding_none;
    lspan_reference_product_f64(&call, e.want_unrounded);
    product_sums up = product_sums_of(&weights->weights, x, rounding), g = {0};
    if (gate) g = product_sums_of(&gate->weights, x, rounding);
    const double eps = test_epsilon(lspan_dtype_f32);
    for (int64_t i = 0; i < count; i++) {
        double slack = up.floors[i], half = up.half_steps[i];
        if (gate) {
            double active = fabs(lspan_reference_activation_f64(activation, g.sums[i])), u = fabs(up.sums[i]);
            half = 1.13 * g.half_steps[i] * (u + half) + active * half;
            slack = 1.13 * g.floors[i] * (u + slack) + active * slack + 16 * eps * (active + fabs(g.sums[i])) * u;
        }
        if (initial) slack += 2 * eps * fabs((double)test_get(initial, i / m, 0, i % m));
        e.bounds[i] = 2 * fabs((double)simple[i] - e.want[i]) + slack;
        e.bounds_unrounded[i] = e.bounds[i] + half;
    }
    product_sums_free(&up);
    product_sums_free(&g);
    free(simple);
    return e;
}

static inline void product_expectation_free(product_expectation *e)
{
    free(e->want);
    free(e->bounds);
    free(e->want_unrounded);
    free(e->bounds_unrounded);
}

static inline const char *product_type_name(lspan_block_type type)
{
    switch (type) {
    case lspan_block_type_f32: return "f32";
    case lspan_block_type_f16: return "f16";
    case lspan_block_type_bf16: return "bf16";
    case lspan_block_type_q4_0: return "q4_0";
    case lspan_block_type_q4_1: return "q4_1";
    case lspan_block_type_q8_0: return "q8_0";
    case lspan_block_type_q4_k: return "q4_k";
    case lspan_block_type_q6_k: return "q6_k";
    default: return "a type that is not packed";
    }
}

/* Both rules of the head of this file; names of what is checked are static. */
static inline void product_check(
    const char *context, lspan_reference_rounding rounding, const float *got, const product_expectation *e)
{
    static const char *const names[3][2] = {
        {"product", NULL}, {"product in 8 bits", "product in 8 bits against inputs as they are"},
        {"product in bf16", "product in bf16 against inputs as they are"}};
    test_check_bounds(names[rounding][0], context, got, e->want, e->bounds, e->count);
    if (rounding != lspan_reference_rounding_none) {
        test_check_bounds(names[rounding][1], context, got, e->want_unrounded, e->bounds_unrounded, e->count);
    }
}

#endif
