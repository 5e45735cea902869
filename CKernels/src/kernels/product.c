/* product.c: products with packed weights: panels of 16 rows of W by tiles of rows of the input. */
#include "activation.h"
#include "product_decode.h"
#include "product_tiles.h"

/* Calls function with the number of rows as a constant, as each is a body of its own. */
#define ROW_CASE(n, function, ...) \
    case n: \
        function(n, __VA_ARGS__); \
        break;
#if LSPAN_PRODUCT_ROWS == 8
#define MORE_ROW_CASES(function, ...) \
    ROW_CASE(5, function, __VA_ARGS__) \
    ROW_CASE(6, function, __VA_ARGS__) \
    ROW_CASE(7, function, __VA_ARGS__) \
    ROW_CASE(8, function, __VA_ARGS__)
#else
#define MORE_ROW_CASES(function, ...)
#endif
#define BY_ROWS(rows, function, ...) \
    switch (rows) { \
        ROW_CASE(1, function, __VA_ARGS__) \
        ROW_CASE(2, function, __VA_ARGS__) \
        ROW_CASE(3, function, __VA_ARGS__) \
        ROW_CASE(4, function, __VA_ARGS__) \
        MORE_ROW_CASES(function, __VA_ARGS__) \
    }

/* One body a type, out of line: each has code for every number of rows. */
#define TILE_FUNCTION(type) \
    static void sum_##type(int rows, const uint8_t *panel, int lane, int64_t columns, input_tile x, v_f32 *sums) \
    { \
        BY_ROWS(rows, tile_##type, panel, lane, columns, x, sums) \
    }
TILE_FUNCTION(q4_0)
TILE_FUNCTION(q4_1)
TILE_FUNCTION(q8_0)
TILE_FUNCTION(q4_k)
TILE_FUNCTION(q6_k)
#if V_BF16_DOT
TILE_FUNCTION(bf16)
#endif

static void sum_f32(int rows, const float *weights, int64_t columns, const float *x, int64_t stride, v_f32 *sums)
{
    BY_ROWS(rows, tile_f32, weights, columns, x, stride, sums)
}

V_INLINE void sum_panel(
    lspan_block_type type, int rows, const uint8_t *panel, int lane, int64_t columns, input_tile x, v_f32 *sums)
{
    for (int r = 0; r < rows; r++) sums[r] = v_zero();
    switch (type) {
    case lspan_block_type_q4_0: sum_q4_0(rows, panel, lane, columns, x, sums); break;
    case lspan_block_type_q4_1: sum_q4_1(rows, panel, lane, columns, x, sums); break;
    case lspan_block_type_q8_0: sum_q8_0(rows, panel, lane, columns, x, sums); break;
    case lspan_block_type_q4_k: sum_q4_k(rows, panel, lane, columns, x, sums); break;
#if V_BF16_DOT
    case lspan_block_type_bf16: sum_bf16(rows, panel, lane, columns, x, sums); break;
#endif
    default: sum_q6_k(rows, panel, lane, columns, x, sums); break;
    }
}

V_INLINE v_f32 activate_as(v_f32 x, lspan_activation activation)
{
    switch (activation) {
    case lspan_activation_gelu_tanh: return activate(x, lspan_activation_gelu_tanh);
    case lspan_activation_gelu_erf: return activate(x, lspan_activation_gelu_erf);
    default: return activate(x, lspan_activation_silu);
    }
}

/* Sums of V_WIDTH rows of W from `column` on, for one row of the input, to the output. */
V_INLINE void finish(const lspan_product_output *o, int64_t row, int64_t column, v_f32 sum, v_f32 gate)
{
    int64_t lanes = o->weights.rows - column;
    if (lanes <= 0) return;
    if (o->gate.data) sum = v_mul(activate_as(gate, o->activation), sum);
    float *y = o->data + row * o->row_stride + column;
    if (lanes >= V_WIDTH) {
        v_store(y, o->accumulate ? v_add(v_load(y), sum) : sum);
    } else {
        v_store_n(y, o->accumulate ? v_add(v_load_n(y, (int)lanes), sum) : sum, (int)lanes);
    }
}

/* Panels whose sums are made in one go, with inputs in 8 bits or in bf16. */
static void multiply_packed(const lspan_product_task *t)
{
    const lspan_product_output *o = t->output;
    int64_t bytes = lspan_panel_bytes(o->weights.type, o->weights.columns), columns = o->weights.columns;
    for (int64_t first = t->panel; first < t->panel_end; first += LSPAN_PRODUCT_PANELS) {
        int64_t rest = t->panel_end - first, end = first + (rest < LSPAN_PRODUCT_PANELS ? rest : LSPAN_PRODUCT_PANELS);
        for (int64_t row = t->row; row < t->row_end; row += LSPAN_PRODUCT_ROWS) {
            int64_t left = t->row_end - row;
            int rows = left < LSPAN_PRODUCT_ROWS ? (int)left : LSPAN_PRODUCT_ROWS;
            input_tile x = tile_of(t->inputs, row / LSPAN_PRODUCT_ROWS);
            for (int64_t panel = first; panel < end; panel++) {
                const uint8_t *weights = (const uint8_t *)o->weights.data + panel * bytes;
                const uint8_t *gates = (const uint8_t *)o->gate.data + (o->gate.data ? panel * bytes : 0);
                for (int lane = 0; lane < LSPAN_PANEL_ROWS; lane += V_WIDTH) {
                    v_f32 sums[LSPAN_PRODUCT_ROWS], gated[LSPAN_PRODUCT_ROWS];
                    sum_panel(o->weights.type, rows, weights, lane, columns, x, sums);
                    if (o->gate.data) sum_panel(o->weights.type, rows, gates, lane, columns, x, gated);
                    for (int r = 0; r < rows; r++) {
                        v_f32 gate = o->gate.data ? gated[r] : v_zero();
                        finish(o, row + r, panel * LSPAN_PANEL_ROWS + lane, sums[r], gate);
                    }
                }
            }
        }
    }
}

/* sums [rows][16] += columns column .. column+count-1 of a panel times those of the input. */
static void add_decoded(
    const lspan_product_task *t, const uint8_t *panel, lspan_block_type type, int64_t column, int64_t count,
    float *decoded, float *sums)
{
    const float *weights = decoded;
    if (type == lspan_block_type_f32) {
        weights = (const float *)(const void *)panel + column * LSPAN_PANEL_ROWS;
    } else {
        decode_columns(type, panel, column, count, decoded);
    }
    for (int64_t row = t->row; row < t->row_end; row += LSPAN_PRODUCT_ROWS) {
        int64_t left = t->row_end - row;
        int rows = left < LSPAN_PRODUCT_ROWS ? (int)left : LSPAN_PRODUCT_ROWS;
        const float *x = t->inputs->x + row * t->inputs->row_stride + column;
        for (int lane = 0; lane < LSPAN_PANEL_ROWS; lane += V_WIDTH) {
            v_f32 tile[LSPAN_PRODUCT_ROWS];
            float *at = sums + (row - t->row) * LSPAN_PANEL_ROWS + lane;
            for (int r = 0; r < rows; r++) tile[r] = v_load(at + r * LSPAN_PANEL_ROWS);
            sum_f32(rows, weights + lane, count, x, t->inputs->row_stride, tile);
            for (int r = 0; r < rows; r++) v_store(at + r * LSPAN_PANEL_ROWS, tile[r]);
        }
    }
}

/* Panels decoded to f32 a few columns at a time, with inputs as they are. */
static void multiply_decoded(const lspan_product_task *t, float *scratch)
{
    const lspan_product_output *o = t->output;
    lspan_block_type type = o->weights.type;
    int64_t bytes = lspan_panel_bytes(type, o->weights.columns), rows = t->row_end - t->row;
    float *sums = scratch + LSPAN_PRODUCT_COLUMNS * LSPAN_PANEL_ROWS;
    float *gated = sums + LSPAN_PRODUCT_BLOCK_ROWS * LSPAN_PANEL_ROWS;
    for (int64_t panel = t->panel; panel < t->panel_end; panel++) {
        memset(sums, 0, (size_t)rows * LSPAN_PANEL_ROWS * sizeof *sums);
        if (o->gate.data) memset(gated, 0, (size_t)rows * LSPAN_PANEL_ROWS * sizeof *gated);
        for (int64_t column = 0; column < o->weights.columns; column += LSPAN_PRODUCT_COLUMNS) {
            int64_t rest = o->weights.columns - column, count = rest < LSPAN_PRODUCT_COLUMNS ? rest : LSPAN_PRODUCT_COLUMNS;
            const uint8_t *weights = (const uint8_t *)o->weights.data + panel * bytes;
            add_decoded(t, weights, type, column, count, scratch, sums);
            if (o->gate.data) {
                add_decoded(t, (const uint8_t *)o->gate.data + panel * bytes, type, column, count, scratch, gated);
            }
        }
        for (int64_t r = 0; r < rows; r++) {
            for (int lane = 0; lane < LSPAN_PANEL_ROWS; lane += V_WIDTH) {
                v_f32 gate = o->gate.data ? v_load(gated + r * LSPAN_PANEL_ROWS + lane) : v_zero();
                v_f32 sum = v_load(sums + r * LSPAN_PANEL_ROWS + lane);
                finish(o, t->row + r, panel * LSPAN_PANEL_ROWS + lane, sum, gate);
            }
        }
    }
}

void LSPAN_VARIANT(product)(const lspan_product_task *task, float *scratch)
{
    if (lspan_product_form_of(task->output->weights.type, task->mode, V_BF16_DOT) == lspan_product_form_f32) {
        multiply_decoded(task, scratch);
    } else {
        multiply_packed(task);
    }
}
