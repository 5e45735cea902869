/* product.c: checks products with packed weights and splits them into tasks. */
#include "checks.h"
#include "context_internal.h"
#include "integers.h"
#include "packing.h"
#include "profile_internal.h"
#include "tuning.h"

typedef struct product_call {
    const lspan_context *context;
    const lspan_product *product;
    lspan_product_inputs inputs;
    int64_t row_tasks;
    int64_t task_rows;
    int64_t task_bytes; /* of weights, about */
    char *scratch;      /* of each worker, scratch_bytes apart; NULL where no output needs any */
} product_call;

#define SCRATCH_BYTES ((int64_t)LSPAN_PRODUCT_SCRATCH * (int64_t)sizeof(float))

/* Columns of prepared inputs: two blocks, as packed weights have them. */
static int64_t padded_columns(const lspan_product *product)
{
    return lspan_round_up(product->columns, 64);
}

static int64_t output_bytes(const lspan_product_output *output)
{
    int64_t bytes = lspan_panel_bytes(output->weights.type, output->weights.columns);
    return bytes * (output->gate.data ? 2 : 1);
}

/* Panels of a task of an output. */
static int64_t task_panels(const product_call *call, const lspan_product_output *output)
{
    int64_t each = call->task_bytes / lspan_max64(1, output_bytes(output));
    return lspan_clamp64(
        each / LSPAN_PANELS_TOGETHER * LSPAN_PANELS_TOGETHER, LSPAN_PANELS_TOGETHER,
        lspan_max64(LSPAN_PANELS_TOGETHER, lspan_panels(output->weights.rows)));
}

static int64_t output_tasks(const product_call *call, const lspan_product_output *output)
{
    int64_t panels = lspan_panels(output->weights.rows), each = task_panels(call, output);
    return (panels + each - 1) / each * call->row_tasks;
}

static int64_t count_tasks(const product_call *call)
{
    int64_t tasks = 0;
    for (int64_t i = 0; i < call->product->output_count; i++) tasks += output_tasks(call, &call->product->outputs[i]);
    return tasks;
}

/* Weights are split first: every task of rows reads its weights again. */
static void plan_tasks(product_call *call)
{
    const lspan_product *product = call->product;
    int64_t workers = (int64_t)call->context->split, tile = call->context->kernels->product_rows;
    int64_t bytes = 0, wanted = workers * LSPAN_PRODUCT_TASKS_PER_WORKER;
    for (int64_t i = 0; i < product->output_count; i++) {
        bytes += output_bytes(&product->outputs[i]) * lspan_panels(product->outputs[i].weights.rows);
    }
    int64_t tiles = (product->rows + tile - 1) / tile;
    call->task_rows = lspan_min64(lspan_max64(1, product->rows), LSPAN_PRODUCT_BLOCK_ROWS);
    call->row_tasks = (product->rows + call->task_rows - 1) / call->task_rows;
    call->task_bytes = lspan_max64(bytes / wanted, LSPAN_PRODUCT_TASK_BYTES / lspan_max64(1, tiles));
    if (workers == 1 || bytes * lspan_max64(1, tiles) < LSPAN_PRODUCT_SERIAL_BYTES) {
        call->task_bytes = lspan_max64(1, bytes);
        return;
    }
    int64_t tasks = count_tasks(call);
    if (tasks > 0 && tasks < wanted) {
        int64_t splits = (wanted + tasks - 1) / tasks * call->row_tasks;
        call->task_rows = lspan_min64(call->task_rows, lspan_round_up((product->rows + splits - 1) / splits, tile));
        call->row_tasks = (product->rows + call->task_rows - 1) / call->task_rows;
    }
}

/* Gives `array` room for `elements` elements behind *used, where there is a workspace. */
#define PLACE(array, elements) \
    do { \
        if (workspace) (array) = (void *)(workspace + *used); \
        *used += lspan_round_up((elements) * (int64_t)sizeof *(array), LSPAN_WORKSPACE_ALIGNMENT); \
    } while (0)

/* Lays out what the call needs in a workspace, or just counts its bytes where it is NULL. */
static void place(product_call *call, char *workspace, int64_t *used)
{
    const lspan_product *product = call->product;
    const lspan_kernels *kernels = call->context->kernels;
    int wants[3] = {0, 0, 0};
    for (int64_t i = 0; i < product->output_count; i++) {
        wants[lspan_product_form_of(product->outputs[i].weights.type, product->mode, kernels->product_bf16)] = 1;
    }
    lspan_product_inputs *in = &call->inputs;
    *in = (lspan_product_inputs){.rows = product->rows, .columns = product->columns, .padded = padded_columns(product),
        .x = product->input, .row_stride = product->input_row_stride};
    int64_t elements = in->rows * in->padded;
    *used = 0;
    if (wants[lspan_product_form_8bit]) {
        PLACE(in->quants, elements / 4);
        PLACE(in->scales, elements / 32);
        PLACE(in->scaled_sums, elements / 32);
        PLACE(in->minus8, elements / 32);
        PLACE(in->minus_bias, elements / 32);
        PLACE(in->minus32, elements / 16);
    }
    if (wants[lspan_product_form_bf16]) PLACE(in->pairs, elements / 2);
    if (wants[lspan_product_form_f32]) {
        PLACE(call->scratch, SCRATCH_BYTES * (int64_t)call->context->executor.worker_count);
    }
}

static lspan_status check_weights(const lspan_packed_weights *weights, int64_t columns)
{
    size_t bytes;
    LSPAN_CHECK(lspan_packed_bytes(weights->type, weights->rows, weights->columns, &bytes));
    if (weights->columns != columns) return lspan_status_bad_shape;
    if (bytes > 0 && !weights->data) return lspan_status_null_pointer;
    return lspan_check_aligned(weights->data, LSPAN_WORKSPACE_ALIGNMENT);
}

static lspan_status check_output(const lspan_product *product, const lspan_product_output *output)
{
    LSPAN_CHECK(check_weights(&output->weights, product->columns));
    if (output->accumulate != 0 && output->accumulate != 1) return lspan_status_bad_value;
    if (!output->gate.data) return lspan_status_ok;
    LSPAN_CHECK(check_weights(&output->gate, product->columns));
    if (output->gate.type != output->weights.type) return lspan_status_bad_dtype;
    if (output->gate.rows != output->weights.rows) return lspan_status_bad_shape;
    if (output->accumulate) return lspan_status_bad_value;
    int known = output->activation == lspan_activation_silu || output->activation == lspan_activation_gelu_tanh ||
        output->activation == lspan_activation_gelu_erf;
    return known ? lspan_status_ok : lspan_status_bad_value;
}

static lspan_status check_product(const lspan_context *context, const lspan_product *product)
{
    int64_t elements;
    if (!context || !product) return lspan_status_null_pointer;
    if (product->rows < 0 || product->columns < 1 || product->output_count < 0) return lspan_status_bad_shape;
    if (product->mode != lspan_product_mode_native && product->mode != lspan_product_mode_f32) {
        return lspan_status_bad_value;
    }
    /* the workspace has at most 2 bytes an element, and rows are counted in floats */
    if (product->columns > INT64_MAX / 64) return lspan_status_overflow;
    LSPAN_CHECK(lspan_multiply(product->rows, padded_columns(product) * 8, &elements));
    if (product->output_count > 0 && !product->outputs) return lspan_status_null_pointer;
    LSPAN_CHECK(lspan_check_aligned(product->outputs, _Alignof(lspan_product_output)));
    LSPAN_CHECK(lspan_check_count(product->output_count, sizeof *product->outputs));
    for (int64_t i = 0; i < product->output_count; i++) LSPAN_CHECK(check_output(product, &product->outputs[i]));
    return lspan_status_ok;
}

static lspan_status check_operands(const lspan_product *product)
{
    lspan_matrix input = {product->input, lspan_dtype_f32, product->input_row_stride};
    LSPAN_CHECK(lspan_check_matrix(input, product->rows, product->columns));
    for (int64_t i = 0; i < product->output_count; i++) {
        const lspan_product_output *output = &product->outputs[i];
        lspan_matrix_out data = {output->data, lspan_dtype_f32, output->row_stride};
        LSPAN_CHECK(lspan_check_matrix_out(data, product->rows, output->weights.rows));
    }
    return lspan_status_ok;
}

lspan_status lspan_product_workspace_size(const lspan_context *context, const lspan_product *product, size_t *bytes)
{
    if (!bytes) return lspan_status_null_pointer;
    LSPAN_CHECK(check_product(context, product));
    product_call call = {.context = context, .product = product};
    int64_t used;
    place(&call, NULL, &used);
    *bytes = (size_t)used;
    return lspan_status_ok;
}

static void prepare_tiles(const lspan_context *context, const void *argument, int64_t first, int64_t end)
{
    const product_call *call = argument;
    context->kernels->product_inputs(&call->inputs, first, end);
}

static void run_product_task(void *argument, size_t index, size_t worker)
{
    const product_call *call = argument;
    const lspan_product_output *output = call->product->outputs;
    int64_t task = (int64_t)index;
    for (int64_t tasks; (tasks = output_tasks(call, output)) <= task; output++) task -= tasks;
    int64_t panels = lspan_panels(output->weights.rows), each = task_panels(call, output);
    int64_t panel = task / call->row_tasks * each, row = task % call->row_tasks * call->task_rows;
    lspan_product_task t = {output, call->product->mode, &call->inputs, panel, lspan_min64(panel + each, panels), row,
        lspan_min64(row + call->task_rows, call->product->rows)};
    float *scratch = call->scratch ? (float *)(void *)(call->scratch + (int64_t)worker * SCRATCH_BYTES) : NULL;
    call->context->kernels->product(&t, scratch);
}

static lspan_status run(product_call *call)
{
    const lspan_product *product = call->product;
    plan_tasks(call);
    int64_t tile = call->context->kernels->product_rows, tasks = count_tasks(call);
    if (tasks == 0) return lspan_status_ok;
    if (call->inputs.quants || call->inputs.pairs) {
        int64_t tiles = (product->rows + tile - 1) / tile;
        LSPAN_CHECK(lspan_run_rows(call->context, tiles, product->rows * product->columns, prepare_tiles, call));
    }
    return lspan_run_tasks(call->context, (size_t)tasks, run_product_task, call);
}

lspan_status lspan_product_run(
    const lspan_context *context, const lspan_product *product, void *workspace, size_t workspace_bytes)
{
    LSPAN_CHECK(check_product(context, product));
    LSPAN_CHECK(check_operands(product));
    product_call call = {.context = context, .product = product};
    int64_t needed;
    place(&call, NULL, &needed);
    LSPAN_CHECK(lspan_check_workspace(workspace, workspace_bytes, (size_t)needed));
    place(&call, workspace, &needed);
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = product->rows > 0 ? run(&call) : lspan_status_ok;
    if (product->output_count > 0 && lspan_profile_wants(began, status)) {
        lspan_cost cost = lspan_product_cost(product);
        int detail = (int)product->outputs[0].weights.type;
        lspan_profile_record(context, began, lspan_profile_kernel_product, detail, cost);
    }
    return status;
}
