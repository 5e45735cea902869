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
    static void sum_##type(int rows, weight_tile w, int lane, int64_t columns, input_tile x, v_f32 *sums) \
    { \
        BY_ROWS(rows, tile_##type, w, lane, columns, x, sums) \
    }
TILE_FUNCTION(q4_0)
TILE_FUNCTION(q4_1)
TILE_FUNCTION(q8_0)
TILE_FUNCTION(q4_k)
TILE_FUNCTION(q6_k)
#if V_BF16_DOT
TILE_FUNCTION(bf16)
#endif

static void sum_f32(
    int rows, weight_tile w, int lane, int64_t columns, const float *x, int64_t stride, v_f32 *sums)
{
    BY_ROWS(rows, tile_f32, w, lane, columns, x, stride, sums)
}

static void sum_f16(
    int rows, weight_tile w, int lane, int64_t columns, const float *x, int64_t stride, v_f32 *sums)
{
    BY_ROWS(rows, tile_f16, w, lane, columns, x, stride, sums)
}

V_INLINE void sum_tile(
    lspan_block_type type, int rows, weight_tile w, int lane, int64_t columns, input_tile x, v_f32 *sums)
{
    switch (type) {
    case lspan_block_type_q4_0: sum_q4_0(rows, w, lane, columns, x, sums); break;
    case lspan_block_type_q4_1: sum_q4_1(rows, w, lane, columns, x, sums); break;
    case lspan_block_type_q8_0: sum_q8_0(rows, w, lane, columns, x, sums); break;
    case lspan_block_type_q4_k: sum_q4_k(rows, w, lane, columns, x, sums); break;
#if V_BF16_DOT
    case lspan_block_type_bf16: sum_bf16(rows, w, lane, columns, x, sums); break;
#endif
    default: sum_q6_k(rows, w, lane, columns, x, sums); break;
    }
}

/* As many panels as a tile has, which divides those of a pair. */
V_INLINE weight_tile weights_of(const lspan_packed_weights *weights, int64_t panel)
{
    weight_tile w;
    for (int p = 0; p < PANELS; p++) {
        w.panels[p] = (const uint8_t *)weights->data + lspan_panel_offset(weights->type, weights->columns, panel + p);
    }
    return w;
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

/* The sums of a tile to the output, [panels][rows] from a panel and a row on. */
V_INLINE void finish_tile(
    const lspan_product_task *t, int rows, int64_t row, int64_t panel, int lane, const v_f32 *sums, const v_f32 *gates)
{
    for (int p = 0; p < PANELS; p++) {
        for (int r = 0; r < rows; r++) {
            v_f32 gate = t->output->gate.data ? gates[p * rows + r] : v_zero();
            finish(t->output, row + r, (panel + p) * LSPAN_PANEL_ROWS + lane, sums[p * rows + r], gate);
        }
    }
}

V_INLINE int rows_of_tile(const lspan_product_task *t, int64_t row)
{
    return t->row_end - row < LSPAN_PRODUCT_ROWS ? (int)(t->row_end - row) : LSPAN_PRODUCT_ROWS;
}

/* Panels whose sums are made in one go, with inputs in 8 bits or in bf16. */
static void multiply_packed(const lspan_product_task *t)
{
    const lspan_product_output *o = t->output;
    int64_t columns = o->weights.columns;
    for (int64_t first = t->panel; first < t->panel_end; first += LSPAN_PRODUCT_PANELS) {
        int64_t rest = t->panel_end - first, end = first + (rest < LSPAN_PRODUCT_PANELS ? rest : LSPAN_PRODUCT_PANELS);
        for (int64_t row = t->row; row < t->row_end; row += LSPAN_PRODUCT_ROWS) {
            int rows = rows_of_tile(t, row);
            input_tile x = tile_of(t->inputs, row / LSPAN_PRODUCT_ROWS);
            for (int64_t panel = first; panel < end; panel += PANELS) {
                weight_tile weights = weights_of(&o->weights, panel), gate = weights;
                if (o->gate.data) gate = weights_of(&o->gate, panel);
                for (int lane = 0; lane < LSPAN_PANEL_ROWS; lane += V_WIDTH) {
                    v_f32 sums[TILE], gates[TILE];
                    sum_tile(o->weights.type, rows, weights, lane, columns, x, sums);
                    if (o->gate.data) sum_tile(o->weights.type, rows, gate, lane, columns, x, gates);
                    finish_tile(t, rows, row, panel, lane, sums, gates);
                }
            }
        }
    }
}

/* sums [rows][panels][16] += columns column .. column+count-1 of panels from `panel` on times those of the input. */
static void add_decoded(
    const lspan_product_task *t, const lspan_packed_weights *packed, int64_t panel, int64_t column, int64_t count,
    float *decoded, float *sums)
{
    weight_tile weights = weights_of(packed, panel);
    for (int p = 0; p < PANELS; p++) {
        if (packed->type == lspan_block_type_f32) {
            weights.panels[p] += column * LSPAN_PANELS_TOGETHER * LSPAN_LINE;
        } else if (packed->type == lspan_block_type_f16) {
            weights.panels[p] += column / 2 * LSPAN_PANELS_TOGETHER * LSPAN_LINE;
        } else {
            /* in the order of packed f32 */
            float *to = decoded + p * LSPAN_PANEL_ROWS;
            decode_columns(packed->type, weights.panels[p], column, count, to);
            weights.panels[p] = (const uint8_t *)to;
        }
    }
    for (int64_t row = t->row; row < t->row_end; row += LSPAN_PRODUCT_ROWS) {
        int rows = rows_of_tile(t, row);
        const float *x = t->inputs->x + row * t->inputs->row_stride + column;
        float *at = sums + (row - t->row) * PANELS * LSPAN_PANEL_ROWS;
        for (int lane = 0; lane < LSPAN_PANEL_ROWS; lane += V_WIDTH) {
            v_f32 tile[TILE];
            for (int i = 0; i < PANELS * rows; i++) tile[i] = v_load(at + i * LSPAN_PANEL_ROWS + lane);
            if (packed->type == lspan_block_type_f16) {
                sum_f16(rows, weights, lane, count, x, t->inputs->row_stride, tile);
            } else {
                sum_f32(rows, weights, lane, count, x, t->inputs->row_stride, tile);
            }
            for (int i = 0; i < PANELS * rows; i++) v_store(at + i * LSPAN_PANEL_ROWS + lane, tile[i]);
        }
    }
}

/* Panels decoded to f32 a few columns at a time, with inputs as they are. */
static void multiply_decoded(const lspan_product_task *t, float *scratch)
{
    const lspan_product_output *o = t->output;
    int64_t tile_floats = PANELS * LSPAN_PANEL_ROWS, rows = t->row_end - t->row;
    float *sums = scratch + LSPAN_PRODUCT_COLUMNS * COLUMN, *gates = sums + LSPAN_PRODUCT_BLOCK_ROWS * tile_floats;
    for (int64_t panel = t->panel; panel < t->panel_end; panel += PANELS) {
        memset(sums, 0, (size_t)(rows * tile_floats) * sizeof *sums);
        if (o->gate.data) memset(gates, 0, (size_t)(rows * tile_floats) * sizeof *gates);
        for (int64_t column = 0; column < o->weights.columns; column += LSPAN_PRODUCT_COLUMNS) {
            int64_t rest = o->weights.columns - column, count = rest < LSPAN_PRODUCT_COLUMNS ? rest : LSPAN_PRODUCT_COLUMNS;
            add_decoded(t, &o->weights, panel, column, count, scratch, sums);
            if (o->gate.data) add_decoded(t, &o->gate, panel, column, count, scratch, gates);
        }
        for (int64_t row = t->row; row < t->row_end; row += LSPAN_PRODUCT_ROWS) {
            int tile_rows = rows_of_tile(t, row);
            int64_t at = (row - t->row) * tile_floats;
            for (int lane = 0; lane < LSPAN_PANEL_ROWS; lane += V_WIDTH) {
                v_f32 tile[TILE], gate[TILE];
                for (int i = 0; i < PANELS * tile_rows; i++) {
                    tile[i] = v_load(sums + at + i * LSPAN_PANEL_ROWS + lane);
                    gate[i] = o->gate.data ? v_load(gates + at + i * LSPAN_PANEL_ROWS + lane) : v_zero();
                }
                finish_tile(t, tile_rows, row, panel, lane, tile, gate);
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
