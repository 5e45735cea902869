/* product_fuzz.c: targets of product.h. */
#include "fuzz.h"
#include <string.h>

static const int32_t types[] = {lspan_block_type_f32, lspan_block_type_f16, lspan_block_type_bf16,
    lspan_block_type_q4_0, lspan_block_type_q4_1, lspan_block_type_q8_0, lspan_block_type_q4_k, lspan_block_type_q6_k,
    lspan_block_type_q5_0};

/* One that cannot be packed is drawn in wild calls. */
static lspan_block_type draw_type(fuzz *f)
{
    return (lspan_block_type)fuzz_code(f, types, fuzz_wild(f, 8) ? 9 : 8);
}

/* Columns of whole blocks, most of the time. */
static int64_t draw_columns(fuzz *f, lspan_block_type type)
{
    int64_t elements;
    lspan_block_type_layout(type, &elements, NULL);
    int64_t blocks = fuzz_dim(f, 0, 3);
    if (elements == 0 || blocks < 0 || blocks > 3) return blocks;
    return blocks * (elements == 1 ? 1 + (int64_t)fuzz_below(f, 40) : elements);
}

/* Bytes of packed weights; -1 where there can be none. */
static long double packed_bytes(lspan_block_type type, int64_t rows, int64_t columns)
{
    size_t bytes;
    return lspan_packed_bytes(type, rows, columns, &bytes) == lspan_status_ok ? (long double)bytes : -1;
}

static void fuzz_packed_bytes(fuzz *f)
{
    lspan_block_type type = draw_type(f);
    int64_t columns = draw_columns(f, type), rows = fuzz_dim(f, 0, 200), elements, block;
    lspan_block_type_layout(type, &elements, &block);
    size_t bytes = 7;
    lspan_status status = lspan_packed_bytes(type, rows, columns, fuzz_wild(f, 16) ? NULL : &bytes);
    if (status != lspan_status_ok && bytes != 7) fuzz_fail("a refused query wrote a size");
    if (status == lspan_status_ok && (long double)bytes < (long double)rows * (columns / elements) * block) {
        fuzz_fail("packed weights are smaller than their blocks");
    }
}

static void fuzz_pack_weights(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    lspan_weights w = {.type = draw_type(f), .rows = fuzz_dim(f, 0, 70)};
    int64_t elements, bytes;
    w.columns = draw_columns(f, w.type);
    lspan_block_type_layout(w.type, &elements, &bytes);
    long double space = packed_bytes(w.type, w.rows, w.columns);
    void *packed;
    fuzz_work(f, w.rows, w.columns, 1, 1);
    fuzz_operand_at(f, &w.data, fuzz_count(w.rows, elements ? w.columns / elements : w.columns, 1, elements ? (size_t)bytes : 4),
        elements == 1 ? (size_t)bytes : 1, fuzz_bytes, 0);
    fuzz_operand_at(f, &packed, space, LSPAN_WORKSPACE_ALIGNMENT, fuzz_bytes, 1);
    fuzz_place(f);
    size_t given = space > 0 && space < 1e18L ? (size_t)space : 0;
    if (fuzz_wild(f, 16)) given = given > 0 && fuzz_below(f, 2) ? given - 1 : 0;
    fuzz_finish(f, context, lspan_pack_weights(context, fuzz_wild(f, 64) ? NULL : &w, packed, given));
}

static void place_packed(fuzz *f, lspan_packed_weights *w)
{
    fuzz_operand_at(
        f, &w->data, packed_bytes(w->type, w->rows, w->columns), LSPAN_WORKSPACE_ALIGNMENT, fuzz_bytes, 0);
}

static void draw_output(fuzz *f, const lspan_product *p, lspan_block_type type, lspan_product_output *o,
    lspan_matrix_out *view)
{
    static const int32_t activations[] = {0, 1, 2};
    *o = (lspan_product_output){.weights = {.type = type, .rows = fuzz_dim(f, 0, 40), .columns = p->columns},
        .activation = (lspan_activation)fuzz_code(f, activations, 3), .accumulate = fuzz_flag(f)};
    if (fuzz_wild(f, 16)) o->weights.columns = fuzz_dim(f, 0, 300);
    fuzz_work(f, p->rows, o->weights.rows, o->weights.columns, 2);
    place_packed(f, &o->weights);
    if (fuzz_below(f, 3) == 0) {
        o->gate = o->weights;
        if (!fuzz_wild(f, 8)) o->accumulate = 0;
        if (fuzz_wild(f, 16)) o->gate.rows = fuzz_dim(f, 0, 40);
        place_packed(f, &o->gate);
    }
    *view = (lspan_matrix_out){.dtype = lspan_dtype_f32};
    fuzz_matrix_output(f, view, p->rows, o->weights.rows);
}

static void fuzz_product_run(fuzz *f)
{
    static const int32_t modes[] = {lspan_product_mode_native, lspan_product_mode_f32};
    const lspan_context *context = fuzz_context(f);
    lspan_block_type type = draw_type(f);
    lspan_product p = {.rows = fuzz_dim(f, 0, fuzz_below(f, 8) ? 9 : 40), .columns = draw_columns(f, type),
        .mode = (lspan_product_mode)fuzz_code(f, modes, 2), .output_count = fuzz_dim(f, 0, 3)};
    lspan_product_output *outputs = fuzz_indices(f, p.output_count, sizeof *outputs);
    lspan_matrix_out views[3];
    p.outputs = outputs;
    int drawn = fuzz_usable(outputs, 8) && p.output_count <= 3;
    for (int64_t i = 0; drawn && i < p.output_count; i++) {
        lspan_block_type other = fuzz_below(f, 4) ? type : draw_type(f);
        draw_output(f, &p, other, &outputs[i], &views[i]);
    }
    lspan_matrix input = {.dtype = lspan_dtype_f32};
    fuzz_matrix_input(f, &input, p.rows, p.columns);
    fuzz_place(f);
    p.input = input.data;
    p.input_row_stride = input.row_stride;
    for (int64_t i = 0; drawn && i < p.output_count; i++) {
        outputs[i].data = views[i].data;
        outputs[i].row_stride = views[i].row_stride;
    }
    const lspan_product *call = fuzz_wild(f, 64) ? NULL : &p;
    FUZZ_RUN(f, context, call, lspan_product_workspace_size, lspan_product_run);
}

const fuzz_target fuzz_product_targets[] = {
    {"packed_bytes", fuzz_packed_bytes, "lspan_packed_bytes"},
    {"pack_weights", fuzz_pack_weights, "lspan_pack_weights"},
    {"product", fuzz_product_run, "lspan_product_workspace_size lspan_product_run"},
    {NULL, NULL, NULL}};
