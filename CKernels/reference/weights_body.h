/* weights_body.h: quantized weights and what reads them, in the precision that precision_*.h chose. */
#define REAL LSPAN_REFERENCE_REAL
#define NAME LSPAN_REFERENCE_NAME

/* Element i of one block, from the block layouts of the GGUF format. */
static REAL NAME(block_element)(lspan_block_type type, const uint8_t *block, int i)
{
    REAL d = (REAL)f16_at(block);
    switch (type) {
    case lspan_block_type_f32:
        return (REAL)lspan_reference_element(block, lspan_dtype_f32, 0);
    case lspan_block_type_f16:
        return d;
    case lspan_block_type_bf16:
        return (REAL)lspan_reference_from_bf16((uint16_t)(block[0] | block[1] << 8));
    case lspan_block_type_q4_0: /* f16 d, 16 bytes of nibbles */
        return d * (REAL)(nibble(block + 2, i) - 8);
    case lspan_block_type_q4_1: /* f16 d, f16 m, 16 bytes of nibbles */
        return d * (REAL)nibble(block + 4, i) + (REAL)f16_at(block + 2);
    case lspan_block_type_q5_0: /* f16 d, 32 fifth bits, 16 bytes of nibbles */
        return d * (REAL)(nibble(block + 6, i) + 16 * bit(block + 2, i) - 16);
    case lspan_block_type_q5_1: /* f16 d, f16 m, 32 fifth bits, 16 bytes of nibbles */
        return d * (REAL)(nibble(block + 8, i) + 16 * bit(block + 4, i)) + (REAL)f16_at(block + 2);
    case lspan_block_type_q8_0: /* f16 d, 32 int8 */
        return d * (REAL)(int8_t)block[2 + i];
    case lspan_block_type_q4_k: { /* f16 d, f16 dmin, 12 bytes of 6-bit pairs, 128 bytes of nibbles */
        int sub = i / 32, byte = block[16 + sub / 2 * 32 + i % 32];
        int q = sub % 2 ? byte >> 4 : byte & 15;
        int scale = six_bits(block + 4, sub, 0), minimum = six_bits(block + 4, sub, 1);
        return d * (REAL)scale * (REAL)q - (REAL)f16_at(block + 2) * (REAL)minimum;
    }
    case lspan_block_type_q6_k: { /* 128 bytes of nibbles, 64 bytes of bit pairs, 16 int8 scales, f16 d */
        int half = i / 128, run = i % 128 / 32, lane = i % 32;
        int low = block[half * 64 + run % 2 * 32 + lane] >> (run / 2 * 4) & 15;
        int high = block[128 + half * 32 + lane] >> (run * 2) & 3;
        int scale = (int8_t)block[192 + i / 16];
        return (REAL)f16_at(block + 208) * (REAL)scale * (REAL)(low + 16 * high - 32);
    }
    }
    return (REAL)NAN;
}

static REAL NAME(weight)(const lspan_weights *w, int64_t row, int64_t column)
{
    int64_t elements, bytes;
    lspan_block_type_layout(w->type, &elements, &bytes);
    int64_t index = row * w->columns + column;
    const uint8_t *block = (const uint8_t *)w->data + index / elements * bytes;
    return NAME(block_element)(w->type, block, (int)(index % elements));
}

void NAME(dequantize)(const lspan_weights *weights, REAL *output)
{
    for (int64_t r = 0; r < weights->rows; r++) {
        for (int64_t c = 0; c < weights->columns; c++) output[r * weights->columns + c] = NAME(weight)(weights, r, c);
    }
}

void NAME(embedding)(const lspan_weights *table, int64_t tokens, const int32_t *ids, REAL *output)
{
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t c = 0; c < table->columns; c++) output[t * table->columns + c] = NAME(weight)(table, ids[t], c);
    }
}

void NAME(linear)(const lspan_linear *linear, REAL *output)
{
    const lspan_weights *w = &linear->weights;
    for (int64_t r = 0; r < linear->rows; r++) {
        for (int64_t m = 0; m < w->rows; m++) {
            REAL sum = 0;
            for (int64_t k = 0; k < w->columns; k++) {
                sum += (REAL)linear->input[r * linear->input_row_stride + k] * NAME(weight)(w, m, k);
            }
            if (linear->accumulate) sum += (REAL)linear->output[r * linear->output_row_stride + m];
            output[r * w->rows + m] = sum;
        }
    }
}

#undef REAL
#undef NAME
