/* dense.c: entry points of dense.h but for the matrix product: validation, and row ranges for the kernels. */
#include "checks.h"
#include "profile_internal.h"
#include <longspan/dense.h>
#include <math.h>

/* Elements of a [tokens, heads, head_dim] call, or overflow. */
static lspan_status count_elements(int64_t tokens, int64_t heads, int64_t head_dim, int64_t *elements)
{
    if (tokens < 0 || heads < 0 || head_dim < 0) return lspan_status_bad_shape;
    LSPAN_CHECK(lspan_multiply(tokens, heads, elements));
    return lspan_multiply(*elements, head_dim, elements);
}

/* ---- Norms ----------------------------------------------------------------------------------------- */

static void rms_norm_rows(const lspan_context *context, const void *argument, int64_t first, int64_t end)
{
    context->kernels->rms_norm(argument, first, end);
}

static void layer_norm_rows(const lspan_context *context, const void *argument, int64_t first, int64_t end)
{
    context->kernels->layer_norm(argument, first, end);
}

static lspan_status check_norm(const lspan_context *context, int64_t rows, const lspan_norm *norm)
{
    int64_t elements;
    if (!context) return lspan_status_null_pointer;
    LSPAN_CHECK(count_elements(rows, 1, norm->columns, &elements));
    if (norm->columns == 0) return lspan_status_bad_shape;
    LSPAN_CHECK(lspan_check_matrix(norm->input, rows, norm->columns));
    LSPAN_CHECK(lspan_check_matrix_out(norm->output, rows, norm->columns));
    LSPAN_CHECK(lspan_check_aligned(norm->weight, sizeof(float)));
    LSPAN_CHECK(lspan_check_aligned(norm->bias, sizeof(float)));
    if (!isfinite(norm->epsilon) || norm->epsilon < 0) return lspan_status_bad_value;
    return lspan_status_ok;
}

lspan_status lspan_rms_norm(
    const lspan_context *context, int64_t rows, int64_t columns, lspan_matrix input, const float *weight,
    float epsilon, lspan_matrix_out output)
{
    lspan_norm norm = {columns, input, weight, NULL, epsilon, output};
    LSPAN_CHECK(check_norm(context, rows, &norm));
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_run_rows(context, rows, rows * columns, rms_norm_rows, &norm);
    if (lspan_profile_wants(began, status)) {
        lspan_cost cost = lspan_rms_norm_cost(rows, &norm);
        lspan_profile_record(context, began, lspan_profile_kernel_rms_norm, (int)input.dtype, cost);
    }
    return status;
}

lspan_status lspan_layer_norm(
    const lspan_context *context, int64_t rows, int64_t columns, lspan_matrix input, const float *weight,
    const float *bias, float epsilon, lspan_matrix_out output)
{
    lspan_norm norm = {columns, input, weight, bias, epsilon, output};
    LSPAN_CHECK(check_norm(context, rows, &norm));
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_run_rows(context, rows, rows * columns, layer_norm_rows, &norm);
    if (lspan_profile_wants(began, status)) {
        lspan_cost cost = lspan_layer_norm_cost(rows, &norm);
        lspan_profile_record(context, began, lspan_profile_kernel_layer_norm, (int)input.dtype, cost);
    }
    return status;
}

/* ---- Rotary position embedding ---------------------------------------------------------------------- */

lspan_status lspan_rope_table(
    int64_t tokens, const int64_t *positions, int64_t pairs, const float *inverse_frequencies, float *cosine,
    float *sine)
{
    int64_t entries;
    LSPAN_CHECK(count_elements(tokens, 1, pairs, &entries));
    if (entries == 0) return lspan_status_ok;
    if (!positions) return lspan_status_null_pointer;
    LSPAN_CHECK(lspan_check_aligned(positions, sizeof *positions));
    LSPAN_CHECK(lspan_check_floats(inverse_frequencies, pairs));
    LSPAN_CHECK(lspan_check_floats(cosine, entries));
    LSPAN_CHECK(lspan_check_floats(sine, entries));
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t i = 0; i < pairs; i++) {
            double angle = (double)positions[t] * (double)inverse_frequencies[i];
            cosine[t * pairs + i] = (float)cos(angle);
            sine[t * pairs + i] = (float)sin(angle);
        }
    }
    return lspan_status_ok;
}

static void rope_tokens(const lspan_context *context, const void *argument, int64_t first, int64_t end)
{
    context->kernels->rope(argument, first, end);
}

lspan_status lspan_rope(
    const lspan_context *context, lspan_rope_layout layout, int64_t tokens, int64_t heads, int64_t head_dim,
    int64_t pairs, const float *cosine, const float *sine, lspan_heads input, lspan_heads_out output)
{
    int64_t elements;
    if (!context) return lspan_status_null_pointer;
    LSPAN_CHECK(count_elements(tokens, heads, head_dim, &elements));
    if (pairs < 0 || pairs > head_dim / 2) return lspan_status_bad_shape;
    if (layout != lspan_rope_layout_halves && layout != lspan_rope_layout_interleaved) return lspan_status_bad_dtype;
    LSPAN_CHECK(lspan_check_heads(input, tokens, heads, head_dim));
    LSPAN_CHECK(lspan_check_heads_out(output, tokens, heads, head_dim));
    int64_t entries;
    LSPAN_CHECK(lspan_multiply(tokens, pairs, &entries));
    LSPAN_CHECK(lspan_check_floats(cosine, entries));
    LSPAN_CHECK(lspan_check_floats(sine, entries));
    lspan_rotation rotation = {layout, heads, head_dim, pairs, cosine, sine, input, output};
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_run_written_rows(context, tokens, elements, rope_tokens, &rotation);
    if (lspan_profile_wants(began, status)) {
        lspan_cost cost = lspan_rope_cost(tokens, &rotation);
        lspan_profile_record(context, began, lspan_profile_kernel_rope, (int)output.dtype, cost);
    }
    return status;
}

/* ---- Activations and conversion ---------------------------------------------------------------------- */

static void gate_rows(const lspan_context *context, const void *argument, int64_t first, int64_t end)
{
    context->kernels->gated_activation(argument, first, end);
}

lspan_status lspan_gated_activation(
    const lspan_context *context, lspan_activation activation, int64_t rows, int64_t columns, lspan_matrix gate,
    lspan_matrix up, lspan_matrix_out output)
{
    int64_t elements;
    if (!context) return lspan_status_null_pointer;
    LSPAN_CHECK(count_elements(rows, 1, columns, &elements));
    if (activation != lspan_activation_silu && activation != lspan_activation_gelu_tanh &&
        activation != lspan_activation_gelu_erf) {
        return lspan_status_bad_dtype;
    }
    LSPAN_CHECK(lspan_check_matrix(gate, rows, columns));
    LSPAN_CHECK(lspan_check_matrix(up, rows, columns));
    LSPAN_CHECK(lspan_check_matrix_out(output, rows, columns));
    lspan_gate call = {activation, columns, gate, up, output};
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_run_written_rows(context, rows, elements, gate_rows, &call);
    if (lspan_profile_wants(began, status)) {
        lspan_cost cost = lspan_gate_cost(rows, &call);
        lspan_profile_record(context, began, lspan_profile_kernel_gated_activation, (int)activation, cost);
    }
    return status;
}

typedef struct conversion {
    int64_t heads;
    int64_t head_dim;
    lspan_heads input;
    lspan_heads_out output;
} conversion;

static void convert_tokens(const lspan_context *context, const void *argument, int64_t first, int64_t end)
{
    const conversion *c = argument;
    context->kernels->convert(c->heads, c->head_dim, c->input, c->output, first, end);
}

lspan_status lspan_convert(
    const lspan_context *context, int64_t tokens, int64_t heads, int64_t head_dim, lspan_heads input,
    lspan_heads_out output)
{
    int64_t elements;
    if (!context) return lspan_status_null_pointer;
    LSPAN_CHECK(count_elements(tokens, heads, head_dim, &elements));
    LSPAN_CHECK(lspan_check_heads(input, tokens, heads, head_dim));
    LSPAN_CHECK(lspan_check_heads_out(output, tokens, heads, head_dim));
    conversion call = {heads, head_dim, input, output};
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_run_written_rows(context, tokens, elements, convert_tokens, &call);
    if (lspan_profile_wants(began, status)) {
        lspan_cost cost = lspan_convert_cost(elements, input.dtype, output.dtype);
        lspan_profile_record(context, began, lspan_profile_kernel_convert, (int)output.dtype, cost);
    }
    return status;
}

/* ---- Losses ----------------------------------------------------------------------------------------- */

static void loss_rows(const lspan_context *context, const void *argument, int64_t first, int64_t end)
{
    context->kernels->log_softmax_gather(argument, first, end);
}

lspan_status lspan_log_softmax_gather(
    const lspan_context *context, int64_t rows, int64_t vocabulary, lspan_matrix logits, const int32_t *targets,
    float *nll, float *entropy)
{
    int64_t elements;
    if (!context) return lspan_status_null_pointer;
    LSPAN_CHECK(count_elements(rows, 1, vocabulary, &elements));
    if (vocabulary == 0) return lspan_status_bad_shape;
    LSPAN_CHECK(lspan_check_matrix(logits, rows, vocabulary));
    LSPAN_CHECK(lspan_check_aligned(nll, sizeof(float)));
    LSPAN_CHECK(lspan_check_aligned(entropy, sizeof(float)));
    if (nll && rows > 0) {
        if (!targets) return lspan_status_null_pointer;
        LSPAN_CHECK(lspan_check_aligned(targets, sizeof *targets));
        LSPAN_CHECK(lspan_check_count(rows, sizeof *targets));
        for (int64_t r = 0; r < rows; r++) {
            if (targets[r] < 0 || targets[r] >= vocabulary) return lspan_status_bad_index;
        }
    }
    lspan_loss loss = {vocabulary, logits, targets, nll, entropy};
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = lspan_run_rows(context, rows, elements, loss_rows, &loss);
    if (lspan_profile_wants(began, status)) {
        lspan_cost cost = lspan_loss_cost(rows, &loss);
        lspan_profile_record(context, began, lspan_profile_kernel_log_softmax_gather, (int)logits.dtype, cost);
    }
    return status;
}
