/* weights_support.h: random weights of every type. */
#ifndef LSPAN_TEST_WEIGHTS_SUPPORT_H
#define LSPAN_TEST_WEIGHTS_SUPPORT_H

#include "support.h"

/* A finite f16 scale: mostly about 1/50, sometimes any finite pattern, subnormals and zeros included. */
static inline void write_scale(uint8_t *bytes, int wild)
{
    uint16_t half = lspan_reference_to_f16(0.02 * (double)test_random_normal());
    if (wild) half = (uint16_t)(test_random() & 0xBBFFu);
    bytes[0] = (uint8_t)half;
    bytes[1] = (uint8_t)(half >> 8);
}

/* Random weights of a type at the end of a page; quants take every value, scales are finite. */
static inline lspan_weights random_weights(
    lspan_block_type type, int64_t rows, int64_t columns, int wild, test_buffer *buffer)
{
    int64_t elements, bytes;
    lspan_block_type_layout(type, &elements, &bytes);
    int64_t blocks = rows * columns / elements;
    *buffer = test_allocate((size_t)(blocks * bytes), elements == 1 ? (size_t)bytes : 1);
    for (int64_t i = 0; i < blocks; i++) {
        uint8_t *block = (uint8_t *)buffer->data + i * bytes;
        float value = test_random_normal();
        uint16_t half = lspan_reference_to_f16((double)value);
        if (type == lspan_block_type_bf16) half = lspan_reference_to_bf16((double)value);
        if (elements == 1) {
            memcpy(block, type == lspan_block_type_f32 ? (void *)&value : (void *)&half, (size_t)bytes);
            continue;
        }
        for (int64_t k = 0; k < bytes; k++) block[k] = (uint8_t)test_random();
        write_scale(type == lspan_block_type_q6_k ? block + 208 : block, wild && test_one_in(2));
        int minimum = type == lspan_block_type_q4_1 || type == lspan_block_type_q5_1 || type == lspan_block_type_q4_k;
        if (minimum) write_scale(block + 2, wild && test_one_in(2));
    }
    lspan_weights weights = {buffer->data, type, rows, columns};
    return weights;
}

#endif
